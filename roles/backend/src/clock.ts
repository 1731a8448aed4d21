/** The wall clock as a channel may use it: it never runs backwards and ignores small steps. */

/** A difference that a time service corrects by slewing; more means that the machine slept or was set. */
const STEP_MS = 1000;

export class WallClock {
  readonly #wallMs: () => number;
  readonly #monotonicMs: () => number;
  #offsetMs: number;

  constructor(wallMs: () => number = Date.now, monotonicMs: () => number = () => performance.now()) {
    this.#wallMs = wallMs;
    this.#monotonicMs = monotonicMs;
    this.#offsetMs = wallMs() - monotonicMs();
  }

  /**
   * Milliseconds since 1970, never less than the call before. Follows the monotonic clock; after a
   * sleep or when the clock was set forward it jumps; when the clock was set back it goes on as it was.
   */
  nowUnixMs(): number {
    const monotonicMs = this.#monotonicMs();
    const aheadMs = this.#wallMs() - (monotonicMs + this.#offsetMs);
    if (aheadMs > STEP_MS) this.#offsetMs += aheadMs;
    return monotonicMs + this.#offsetMs;
  }
}
