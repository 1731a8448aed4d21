const FIRST_DELAY_MS = 500;
const MAX_DELAY_MS = 8_000;

/**
 * Waiting times between attempts to connect: doubling from 0.5 s to 8 s and staying there, each
 * shortened at random by up to half, so that the viewers of a server that restarts do not all come
 * back in the same instant.
 */
export class Backoff {
  readonly #random: () => number;
  #attempts = 0;

  /** @param random a number from 0 to 1, 1 excluded */
  constructor(random: () => number) {
    this.#random = random;
  }

  /** How long to wait before the next attempt, in milliseconds. */
  nextDelayMs(): number {
    const ceilingMs = Math.min(MAX_DELAY_MS, FIRST_DELAY_MS * 2 ** this.#attempts);
    // 2 ** 10 is past the cap; counting on would overflow after a long night.
    if (this.#attempts < 10) this.#attempts += 1;
    return ceilingMs * (1 - this.#random() / 2);
  }

  /** Starts from the short delay again. To be called once a connection has proved itself. */
  reset(): void {
    this.#attempts = 0;
  }
}
