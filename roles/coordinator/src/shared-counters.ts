/**
 * Counts of all coordinators together. Each counts for itself and hears the sum of all a moment later (`peers.ts`), so that
 * no request waits for Redis, and one that is away leaves each with its own count.
 */
import { type Count, type Counters, LocalCounters } from './counters.ts';
import type { Peers } from './peers.ts';

/** Beyond these the longest known are forgotten. */
const MAX_SUMS = 100_000;

export class SharedCounters implements Counters {
  readonly #own: LocalCounters;
  readonly #peers: Peers;
  readonly #now: () => number;
  /** As last heard. */
  readonly #sums = new Map<string, { readonly count: number; readonly endsAtMs: number }>();

  /** @param now milliseconds since 1970 */
  constructor(peers: Peers, now: () => number) {
    this.#own = new LocalCounters(now);
    this.#peers = peers;
    this.#now = now;
  }

  async add(key: string, windowMs: number): Promise<Count> {
    const own = await this.#own.add(key, windowMs);
    const sum = this.#sums.get(key);
    void this.#hearSum(key, windowMs);
    const resetsInMs = (sum?.endsAtMs ?? 0) - this.#now();
    if (sum === undefined || resetsInMs <= 0 || sum.count < own.count) return own;
    return { count: sum.count + 1, resetsInMs };
  }

  async #hearSum(key: string, windowMs: number): Promise<void> {
    const sum = await this.#peers.count(key, windowMs);
    if (sum === undefined) return;
    this.#sums.delete(key);
    this.#sums.set(key, { count: sum.count, endsAtMs: this.#now() + sum.resetsInMs });
    const [oldest] = this.#sums.keys();
    if (this.#sums.size > MAX_SUMS && oldest !== undefined) this.#sums.delete(oldest);
  }
}
