/**
 * The nodes of the network: the machines, or processes, that run a role. A node joins once, by an invitation; from then on
 * it is known by its key (`node-identity.ts`). What they report is true for seconds, what the fleet is lasts.
 */
import { type Static, Type } from 'typebox';
import { Distribution } from './distribution.ts';
import { Name } from './entities.ts';
import { NodeId } from './lease.ts';

export const nodeRoles = ['frontend', 'backend', 'balancer'] as const;
export const NodeRole = Type.Enum(nodeRoles);
export type NodeRole = (typeof nodeRoles)[number];

const Time = Type.String({ format: 'date-time', examples: ['2026-11-22T12:00:00.000Z'] });
const OpenPort = Type.Integer({ minimum: 1, maximum: 65_535 });

/** The public half of a node's Ed25519 key (RFC 8037): the point, in base64url. */
export const NodePublicKey = Type.String({
  pattern: '^[A-Za-z0-9_-]{43}$',
  examples: ['11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo'],
});

/** Where the others reach a node: which ports there are follows from its role. */
export const NodeAddresses = Type.Object({
  /** Name or IP address. */
  host: Type.String({
    pattern: '^[A-Za-z0-9:]([A-Za-z0-9.:-]{0,251}[A-Za-z0-9:])?$',
    examples: ['10.0.0.7'],
  }),
  /** For viewers: of a frontend, of a balancer, and of a backend where `starling up` runs everything in one. */
  httpPort: Type.Optional(OpenPort),
  /** A frontend: where backends push to, a port for each worker. */
  pushPorts: Type.Optional(Type.Array(OpenPort, { maxItems: 256 })),
  /** A backend: where encoders publish. */
  rtmpPort: Type.Optional(OpenPort),
  rtmpsPort: Type.Optional(OpenPort),
});
export type NodeAddresses = Static<typeof NodeAddresses>;

/**
 * What a node is to do. `joined`: all. `cordoned`: goes on with what it has, and gets nothing new. `draining`: hands what it
 * has to the others, too. `removed`: nothing; its key is refused everywhere.
 */
export const NodeState = Type.Union([
  Type.Literal('joined'),
  Type.Literal('cordoned'),
  Type.Literal('draining'),
  Type.Literal('removed'),
]);
export type NodeState = Static<typeof NodeState>;

/** One start of a node's process: random. */
const BootId = Type.String({ pattern: '^[0-9a-f]{16}$' });

/** A node, as all others know it. */
export const FleetNode = Type.Object({
  id: NodeId,
  name: Name,
  role: NodeRole,
  publicKey: NodePublicKey,
  /** Null until it has reported for the first time. */
  addresses: Type.Union([NodeAddresses, Type.Null()]),
  state: NodeState,
  /** The start that is to end once it is drained, so that the supervisor makes another; null where none is. */
  restartBootId: Type.Union([BootId, Type.Null()]),
});
export type FleetNode = Static<typeof FleetNode>;

/** All nodes but those that were removed. Every node gets the whole fleet at each change. */
export const Fleet = Type.Object({
  /** Of the last change of a node. */
  revision: Type.Integer({ minimum: 0 }),
  nodes: Type.Array(FleetNode),
  /** Which frontends get which channels; all get all where it is left out. */
  distribution: Type.Optional(Distribution),
});
export type Fleet = Static<typeof Fleet>;

/** A node's report on itself; sent at each change and every 5 s. */
export const NodeReport = Type.Object({
  bootId: BootId,
  version: Type.String({ minLength: 1, maxLength: 64, examples: ['0.1.0'] }),
  addresses: NodeAddresses,
  /** Whether it can serve. */
  isReady: Type.Boolean(),
  /** Nothing is left that it owes anybody. */
  isIdle: Type.Boolean(),
  /** Its host ends for good: what it has goes to the others, and then it is removed. For nodes of a group. */
  isLeaving: Type.Optional(Type.Boolean()),
  /** Of the process: in cores. */
  cpuCores: Type.Number({ minimum: 0 }),
  memoryBytes: Type.Integer({ minimum: 0 }),
  /** A frontend: channels that are pushed to it. A backend: channels that it makes. */
  channelCount: Type.Integer({ minimum: 0 }),
  viewerCount: Type.Integer({ minimum: 0 }),
});
export type NodeReport = Static<typeof NodeReport>;

/** A node, as operators see it. */
export const Node = Type.Object({
  ...FleetNode.properties,
  bootId: Type.Union([BootId, Type.Null()]),
  version: Type.Union([Type.String(), Type.Null()]),
  joinedAt: Time,
  /** It joined as a host of a group: removed when it ends for good, or has been lost for an hour. */
  isOfGroup: Type.Boolean(),
  /** To the minute, after a restart of the coordinator. */
  lastSeenAt: Type.Union([Time, Type.Null()]),
  /** `lost`: it has not reported for 15 s. */
  health: Type.Union([Type.Literal('ready'), Type.Literal('unready'), Type.Literal('lost')]),
  /** It owes nobody anything: a node that drains may be ended. */
  isIdle: Type.Boolean(),
  /** As last reported; null when nothing has been for 15 s. */
  load: Type.Union([
    Type.Pick(NodeReport, ['cpuCores', 'memoryBytes', 'channelCount', 'viewerCount']),
    Type.Null(),
  ]),
});
export type Node = Static<typeof Node>;

const MAX_INVITATION_SECONDS = 30 * 24 * 3600;

/** The right to join, once. The token itself is not kept. */
export const NodeInvitation = Type.Object({
  id: Type.String(),
  role: NodeRole,
  /** Of the node; null leaves the choice to it. */
  name: Type.Union([Name, Type.Null()]),
  createdAt: Time,
  expiresAt: Time,
  /** Null while nobody has. */
  usedAt: Type.Union([Time, Type.Null()]),
  usedBy: Type.Union([NodeId, Type.Null()]),
});
export type NodeInvitation = Static<typeof NodeInvitation>;

export const NewNodeInvitation = Type.Object(
  {
    role: NodeRole,
    name: Type.Optional(Name),
    expiresInSeconds: Type.Integer({ minimum: 60, maximum: MAX_INVITATION_SECONDS, examples: [3600] }),
  },
  { additionalProperties: false },
);
export type NewNodeInvitation = Static<typeof NewNodeInvitation>;

/** An invitation, in the one answer that ever holds its token. */
export const NodeInvitationWithToken = Type.Object({ invitation: NodeInvitation, token: Type.String() });
export type NodeInvitationWithToken = Static<typeof NodeInvitationWithToken>;

/** Asks to be let in. */
export const JoinRequest = Type.Object(
  {
    /** Of an invitation; for a host of a group, the one that its nodes share. */
    token: Type.String({ minLength: 1, maxLength: 128 }),
    role: NodeRole,
    nodeId: NodeId,
    /** Where the invitation leaves the choice to the node. */
    name: Name,
    publicKey: NodePublicKey,
    /** Signed with the key's other half, for the audience `join`. */
    proof: Type.String({ maxLength: 1024 }),
  },
  { additionalProperties: false },
);
export type JoinRequest = Static<typeof JoinRequest>;
