/** Leases: which backends run what, for a few seconds at a time. */
import { type Static, Type } from 'typebox';

/** A backend or another machine of the network: random, made at its first start. */
export const NodeId = Type.String({ pattern: '^[0-9a-f]{16}$' });

const LeaseName = Type.String({ pattern: '^[a-z]{1,16}/[a-z0-9-]{1,63}$', examples: ['channel/demo'] });
/** Rises with each new holder of any lease, restarts included. */
const FencingToken = Type.Integer({ minimum: 1 });

/** A lease that a node holds, or would take. */
export const LeaseWish = Type.Object(
  {
    name: LeaseName,
    /** Nodes that may hold it at the same time. */
    maxHolders: Type.Integer({ minimum: 1, maximum: 8 }),
    /** Null while the node does not hold it. */
    fencingToken: Type.Union([FencingToken, Type.Null()]),
  },
  { additionalProperties: false },
);
export type LeaseWish = Static<typeof LeaseWish>;

export const LeaseGrant = Type.Object({
  name: LeaseName,
  /** Null: others hold it. */
  fencingToken: Type.Union([FencingToken, Type.Null()]),
  /** Of the holders the one that has held it longest. */
  isFirst: Type.Boolean(),
  /** When it may be worth while to ask again. */
  retryInMs: Type.Integer({ minimum: 0 }),
  /** Where it was refused: the nodes that hold it, so that what comes in for its channel can be sent on to them. */
  holderIds: Type.Optional(Type.Array(NodeId)),
});
export type LeaseGrant = Static<typeof LeaseGrant>;

/** All leases of a node: what it does not name it gives up. */
export const LeaseWishes = Type.Object(
  { leases: Type.Array(LeaseWish, { maxItems: 5000 }) },
  { additionalProperties: false },
);

export const LeaseGrants = Type.Object({
  /** A lease that is not renewed for so long is free. */
  ttlMs: Type.Integer({ minimum: 1 }),
  leases: Type.Array(LeaseGrant),
});
export type LeaseGrants = Static<typeof LeaseGrants>;

/** Who holds a lease now. */
export const HeldLease = Type.Object({
  name: LeaseName,
  /** Longest first. */
  holders: Type.Array(
    Type.Object({
      nodeId: NodeId,
      fencingToken: FencingToken,
      expiresInMs: Type.Integer({ minimum: 0 }),
    }),
  ),
});
export type HeldLease = Static<typeof HeldLease>;
