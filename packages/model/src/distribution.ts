/**
 * Which frontends a channel is pushed to. With many channels not every frontend has every one: each channel has a few
 * origins, and another frontend pulls it from one of them while somebody watches there.
 */
import { type Static, Type } from 'typebox';

export const DEFAULT_ORIGIN_COUNT = 2;

export const Distribution = Type.Union([
  /** Every channel to every frontend. */
  Type.Object({ mode: Type.Literal('all') }),
  Type.Object({
    mode: Type.Literal('on-demand'),
    /** Frontends that each channel is pushed to. */
    originCount: Type.Integer({ minimum: 1, maximum: 16 }),
  }),
]);
export type Distribution = Static<typeof Distribution>;

/**
 * All nodes in the order in which they come into question for a channel: the first ones are its origins. Everybody
 * who knows the nodes computes the same, and when one leaves or joins, only the channels that it has move
 * (rendezvous hashing: Thaler and Ravishankar, "A Name-Based Mapping Scheme for Rendezvous", 1996).
 */
export function rendezvousOrder(channel: string, nodeIds: Iterable<string>): string[] {
  return [...new Set(nodeIds)]
    .map((id) => ({ id, score: scoreOf(channel, id) }))
    .sort((one, other) => other.score - one.score || (one.id < other.id ? -1 : 1))
    .map(({ id }) => id);
}

/** FNV-1a, then the finaliser of MurmurHash3: FNV alone leaves the high bits of short names alike. */
function scoreOf(channel: string, nodeId: string): number {
  let hash = 0x811c9dc5;
  for (const character of `${channel} ${nodeId}`) {
    hash = Math.imul(hash ^ (character.codePointAt(0) ?? 0), 0x01000193);
  }
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
