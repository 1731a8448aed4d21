/** A flood of refusals makes one line a second in the log, not one each. */
import type { Logger } from 'pino';

const INTERVAL_MS = 1000;

export class RefusalLog {
  readonly #logger: Logger;
  readonly #message: string;
  #refusedSinceLine = 0;
  #lastLineMs = Number.NEGATIVE_INFINITY;

  constructor(logger: Logger, message: string) {
    this.#logger = logger;
    this.#message = message;
  }

  /** @param address whoever was refused now; the line carries the last one and the number of all */
  add(address: string): void {
    this.#refusedSinceLine++;
    const nowMs = performance.now();
    if (nowMs - this.#lastLineMs < INTERVAL_MS) return;
    this.#lastLineMs = nowMs;
    this.#logger.warn({ address, refused: this.#refusedSinceLine }, this.#message);
    this.#refusedSinceLine = 0;
  }
}
