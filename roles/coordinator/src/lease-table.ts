/**
 * The leases of all nodes. In memory where one coordinator grants them: a lease is true for seconds only, and after a restart
 * the holders claim theirs again (docs/decisions/014-leases.md). Several share one: `shared-leases.ts`.
 */
import type { HeldLease, LeaseGrant, LeaseGrants, LeaseWish } from '@starling/model/lease';
import type { NodeState } from '@starling/model/node';

/** A holder that has not renewed for so long is dead. */
export const LEASE_TTL_MS = 3000;
/** Tokens of a new start are above all that were given out before it: fewer than so many a millisecond. */
const TOKENS_PER_MS = 1000;

/** Who takes a lease over from a node that drains has so long to put it on the air. */
const HANDOVER_MS = 2000;

interface Holder {
  readonly fencingToken: number;
  readonly sinceMs: number;
  expiresAtMs: number;
}

/** A table between two changes, as JSON. */
export interface StoredLeases {
  readonly freeFromMs: number;
  readonly lastToken: number;
  readonly leases: readonly (readonly [
    name: string,
    holders: readonly (readonly [nodeId: string, Holder])[],
  ])[];
}

/** Who grants leases: this coordinator, or all of a database together. */
export interface Leases {
  renew(
    nodeId: string,
    wishes: readonly LeaseWish[],
    standingOf: (nodeId: string) => NodeState,
  ): LeaseGrants | Promise<LeaseGrants>;
  release(nodeId: string): void | Promise<void>;
  list(): HeldLease[] | Promise<HeldLease[]>;
}

export class LeaseTable implements Leases {
  readonly #monotonicMs: () => number;
  /** By the name of the lease, then by node. */
  readonly #leases = new Map<string, Map<string, Holder>>();
  #lastToken: number;
  /** Until then nothing is free: who held a lease before the start has not claimed it yet. */
  #freeFromMs: number;

  /**
   * @param startedAtUnixMs wall-clock time of the start
   * @param monotonicMs a clock that is never set
   */
  constructor(startedAtUnixMs: number, monotonicMs: () => number = () => performance.now()) {
    this.#monotonicMs = monotonicMs;
    this.#lastToken = startedAtUnixMs * TOKENS_PER_MS;
    this.#freeFromMs = monotonicMs() + LEASE_TTL_MS;
  }

  /** @param nowMs the clock that the stored times are of */
  static restore({ freeFromMs, lastToken, leases }: StoredLeases, nowMs: () => number): LeaseTable {
    const table = new LeaseTable(0, nowMs);
    table.#freeFromMs = freeFromMs;
    table.#lastToken = lastToken;
    for (const [name, holders] of leases) table.#leases.set(name, new Map(holders));
    return table;
  }

  stored(): StoredLeases {
    return {
      freeFromMs: this.#freeFromMs,
      lastToken: this.#lastToken,
      leases: [...this.#leases].map(([name, holders]) => [name, [...holders]]),
    };
  }

  /**
   * Renews what the node holds, gives it what is free, and takes back what it does not name.
   *
   * | the node                       | others hold        | then                                    |
   * | ------------------------------ | ------------------ | --------------------------------------- |
   * | holds it                       | fewer, for longer  | it is renewed                           |
   * | says that it does, after a restart of the coordinator | fewer | it is believed               |
   * | does not                       | fewer              | it gets it, with a higher token than any |
   * | any                            | as many as may     | it is refused                           |
   *
   * One that drains keeps what it holds until as many others as may hold it, too: then nothing is dark between the two. It
   * does not count for the others, and gets nothing new; nor does one that is cordoned.
   * @param standingOf what a node is to do
   */
  renew(
    nodeId: string,
    wishes: readonly LeaseWish[],
    standingOf: (nodeId: string) => NodeState = () => 'joined',
  ): LeaseGrants {
    const nowMs = this.#monotonicMs();
    const names = new Set(wishes.map(({ name }) => name));
    for (const [name, holders] of this.#leases) {
      for (const [holder, { expiresAtMs }] of holders) {
        if (expiresAtMs <= nowMs || (holder === nodeId && !names.has(name))) holders.delete(holder);
      }
      if (holders.size === 0) this.#leases.delete(name);
    }
    return {
      ttlMs: LEASE_TTL_MS,
      leases: wishes.map((wish) => this.#grant(nodeId, wish, nowMs, standingOf)),
    };
  }

  /** Takes back all that the node holds. */
  release(nodeId: string): void {
    this.renew(nodeId, []);
  }

  /** All that is held, by name. */
  list(): HeldLease[] {
    const nowMs = this.#monotonicMs();
    return [...this.#leases]
      .map(([name, holders]) => ({
        name,
        holders: [...holders]
          .filter(([, { expiresAtMs }]) => expiresAtMs > nowMs)
          .map(([nodeId, { fencingToken, expiresAtMs }]) => ({
            nodeId,
            fencingToken,
            expiresInMs: Math.round(expiresAtMs - nowMs),
          }))
          .sort((a, b) => a.fencingToken - b.fencingToken),
      }))
      .filter(({ holders }) => holders.length > 0)
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  #grant(
    nodeId: string,
    { name, maxHolders, fencingToken: claimed }: LeaseWish,
    nowMs: number,
    standingOf: (nodeId: string) => NodeState,
  ): LeaseGrant {
    const holders = this.#leases.get(name) ?? new Map<string, Holder>();
    const isStarting = nowMs < this.#freeFromMs;
    // Before a restart tokens were lower than any of now; and no two holders have the same.
    const isClaimGood =
      claimed !== null &&
      isStarting &&
      claimed < this.#lastToken &&
      [...holders.values()].every(({ fencingToken }) => fencingToken !== claimed);
    const own = holders.get(nodeId)?.fencingToken ?? (isClaimGood ? claimed : undefined);
    const standing = standingOf(nodeId);
    const others = [...holders]
      .filter(([holder]) => holder !== nodeId && standingOf(holder) !== 'draining')
      .map(([, holder]) => holder);
    const before =
      standing === 'draining'
        ? others.filter(({ sinceMs }) => nowMs - sinceMs >= HANDOVER_MS)
        : others.filter(({ fencingToken }) => own === undefined || fencingToken < own);
    const mayHaveNew = standing === 'joined' && !isStarting;
    if (before.length >= maxHolders || (own === undefined && !mayHaveNew)) {
      holders.delete(nodeId);
      const freeAtMs =
        before.length >= maxHolders
          ? Math.min(...before.map(({ expiresAtMs }) => expiresAtMs))
          : isStarting
            ? this.#freeFromMs
            : nowMs + LEASE_TTL_MS;
      const holderIds = [...holders.keys()];
      return { name, fencingToken: null, isFirst: false, retryInMs: Math.ceil(freeAtMs - nowMs), holderIds };
    }
    const fencingToken = own ?? ++this.#lastToken;
    const sinceMs = holders.get(nodeId)?.sinceMs ?? nowMs;
    holders.set(nodeId, { fencingToken, sinceMs, expiresAtMs: nowMs + LEASE_TTL_MS });
    this.#leases.set(name, holders);
    return { name, fencingToken, isFirst: before.length === 0, retryInMs: 0 };
  }
}
