/** What each process of the network says of itself every few seconds: whether it is there, and what it is short of. */
import { type Static, Type } from 'typebox';

/** Of a process: its role and its machine, such as `frontend@studio-2:8080`. */
export const NodeName = Type.String({
  pattern: '^[A-Za-z0-9][A-Za-z0-9@:._/-]{0,127}$',
  examples: ['frontend@studio-2:8080'],
});
export type NodeName = Static<typeof NodeName>;

export const NodeHealth = Type.Object({
  node: NodeName,
  version: Type.String({ maxLength: 64 }),
  /** It ends, and is not missed. */
  isLeaving: Type.Boolean(),
  /** Disks that it writes to. */
  disks: Type.Array(
    Type.Object({
      path: Type.String({ minLength: 1, maxLength: 150 }),
      freeBytes: Type.Integer({ minimum: 0 }),
      sizeBytes: Type.Integer({ minimum: 0 }),
    }),
    { maxItems: 16 },
  ),
  /** What it serves TLS with. */
  certificates: Type.Array(
    Type.Object({
      name: Type.String({ minLength: 1, maxLength: 64 }),
      endsAt: Type.String({ format: 'date-time' }),
    }),
    { maxItems: 16 },
  ),
  /** Since its start: publishes without the key or the token. */
  refusedPublishCount: Type.Integer({ minimum: 0 }),
  /** Since its start: recordings that a fault ended or interrupted. */
  recordingFaultCount: Type.Integer({ minimum: 0 }),
  /** Of a balancer: frontends that are listed, and those of them that get viewers. */
  balancedFrontends: Type.Union([
    Type.Object({ listed: Type.Integer({ minimum: 0 }), admitted: Type.Integer({ minimum: 0 }) }),
    Type.Null(),
  ]),
});
export type NodeHealth = Static<typeof NodeHealth>;
