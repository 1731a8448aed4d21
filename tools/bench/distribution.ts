/** Quantiles of many durations in little memory. */

/** Buckets grow by so much from one to the next: quantiles are exact to 2 %. */
const GROWTH = 1.02;
const SMALLEST_MS = 0.01;

export interface Summary {
  readonly count: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

export class Distribution {
  readonly #counts = new Map<number, number>();
  #count = 0;
  #maxMs = 0;

  add(durationMs: number): void {
    const bucket = Math.ceil(Math.log(Math.max(durationMs, SMALLEST_MS) / SMALLEST_MS) / Math.log(GROWTH));
    this.#counts.set(bucket, (this.#counts.get(bucket) ?? 0) + 1);
    this.#count++;
    this.#maxMs = Math.max(this.#maxMs, durationMs);
  }

  /** NaN where nothing was added. */
  summary(): Summary {
    return {
      count: this.#count,
      p50Ms: this.#quantile(0.5),
      p99Ms: this.#quantile(0.99),
      maxMs: this.#count === 0 ? Number.NaN : this.#maxMs,
    };
  }

  #quantile(share: number): number {
    let left = share * this.#count;
    for (const [bucket, count] of [...this.#counts].sort(([a], [b]) => a - b)) {
      left -= count;
      if (left <= 0) return Math.min(this.#maxMs, SMALLEST_MS * GROWTH ** bucket);
    }
    return Number.NaN;
  }
}
