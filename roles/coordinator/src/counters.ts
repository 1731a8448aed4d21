/** Counts of what happened in a span of time, for limits. */

export interface Count {
  readonly count: number;
  readonly resetsInMs: number;
}

/** Where the counts are: in this process, or on a server that several coordinators share. */
export interface Counters {
  /** Adds one to a count, which begins anew `windowMs` after its first. */
  add(key: string, windowMs: number): Promise<Count>;
}

/** Beyond these the oldest are forgotten: an attacker with so many addresses is not stopped by counting. */
const MAX_COUNTS = 100_000;

/** Counts in this process. */
export class LocalCounters implements Counters {
  readonly #now: () => number;
  /** In the order in which they were begun. */
  readonly #counts = new Map<string, { count: number; readonly endsAtMs: number }>();

  /** @param now milliseconds since 1970 */
  constructor(now: () => number) {
    this.#now = now;
  }

  async add(key: string, windowMs: number): Promise<Count> {
    const nowMs = this.#now();
    let entry = this.#counts.get(key);
    if (entry === undefined || entry.endsAtMs <= nowMs) {
      this.#counts.delete(key);
      if (this.#counts.size >= MAX_COUNTS) this.#makeRoom(nowMs);
      entry = { count: 0, endsAtMs: nowMs + windowMs };
      this.#counts.set(key, entry);
    }
    entry.count++;
    return { count: entry.count, resetsInMs: entry.endsAtMs - nowMs };
  }

  #makeRoom(nowMs: number): void {
    for (const [key, { endsAtMs }] of this.#counts) {
      if (endsAtMs <= nowMs || this.#counts.size >= MAX_COUNTS) this.#counts.delete(key);
    }
  }
}
