/**
 * Ships the log of a process to the coordinator, in batches. It never holds up who writes to the log: lines wait in a bounded
 * buffer, the oldest are dropped when it is full, and they are counted.
 */
import { type LogBatch, MAX_LOG_BATCH, type ShippedLogLine, shippedLogLine } from '@starling/model/log';
import { Counter, type Registry } from 'prom-client';

const SHIP_EVERY_MS = 1000;
const MAX_RETRY_MS = 30_000;
const MAX_WAITING_LINES = 2000;
const MAX_WAITING_CHARS = 2 * 1024 * 1024;
/** Below what the coordinator takes in one request. */
const MAX_BATCH_CHARS = 256 * 1024;
/** For what is left at the end. */
const FAREWELL_MS = 500;

/** Where lines go. */
export interface LogTarget {
  /** Name of this process. */
  readonly node: string;
  readonly ship: (batch: LogBatch) => Promise<void>;
}

export class LogShipper {
  #waiting: { readonly line: ShippedLogLine; readonly chars: number }[] = [];
  #waitingChars = 0;
  #droppedCount = 0;
  #dropped: Counter | undefined;
  #target: LogTarget | undefined;
  #timer: NodeJS.Timeout | undefined;
  #failures = 0;
  #shipping: Promise<boolean> | undefined;

  /** Takes a line as pino writes it. Pino calls it. */
  write(json: string): void {
    const line = shippedLogLine(json);
    if (line === undefined) return;
    const chars = JSON.stringify(line).length;
    this.#waiting.push({ line, chars });
    this.#waitingChars += chars;
    while (this.#waiting.length > MAX_WAITING_LINES || this.#waitingChars > MAX_WAITING_CHARS) {
      this.#waitingChars -= this.#waiting.shift()?.chars ?? 0;
      this.#droppedCount++;
      this.#dropped?.inc();
    }
  }

  /** Ships what waits and what comes from now on. */
  shipTo(target: LogTarget, registry: Registry): void {
    this.#target = target;
    this.#dropped = new Counter({
      name: 'starling_log_dropped_lines_total',
      help: 'Lines of the log that did not get to the coordinator; they are in the log of the process',
      registers: [registry],
    });
    this.#dropped.inc(this.#droppedCount);
    this.#plan(SHIP_EVERY_MS);
  }

  /** Ships what is left, within a bound. */
  async close(): Promise<void> {
    clearTimeout(this.#timer);
    let deadline: NodeJS.Timeout | undefined;
    const enough = new Promise((resolve) => {
      deadline = setTimeout(resolve, FAREWELL_MS);
    });
    const rest = async () => {
      await this.#shipping;
      while (this.#waiting.length > 0 && (await this.#ship()));
    };
    await Promise.race([rest(), enough]);
    clearTimeout(deadline);
    this.#target = undefined;
  }

  #plan(afterMs: number): void {
    this.#timer = setTimeout(() => {
      this.#shipping = this.#ship();
      void this.#shipping.then((isShipped) => {
        if (this.#target === undefined) return;
        this.#failures = isShipped ? 0 : this.#failures + 1;
        const retryMs = Math.min(MAX_RETRY_MS, SHIP_EVERY_MS * 2 ** Math.min(this.#failures, 10));
        const hasMore = isShipped && this.#waiting.length >= MAX_LOG_BATCH;
        this.#plan(hasMore ? 0 : isShipped ? SHIP_EVERY_MS : retryMs * (0.5 + Math.random() / 2));
      });
    }, afterMs);
    this.#timer.unref();
  }

  /** @returns false when the coordinator did not take them; they are kept */
  async #ship(): Promise<boolean> {
    const target = this.#target;
    if (target === undefined || (this.#waiting.length === 0 && this.#droppedCount === 0)) return true;
    let chars = 0;
    let count = 0;
    while (count < Math.min(MAX_LOG_BATCH, this.#waiting.length)) {
      chars += this.#waiting[count]?.chars ?? 0;
      if (count > 0 && chars > MAX_BATCH_CHARS) break;
      count++;
    }
    const batch = this.#waiting.slice(0, count);
    const droppedCount = this.#droppedCount;
    try {
      await target.ship({ node: target.node, lines: batch.map(({ line }) => line), droppedCount });
    } catch {
      return false; // said by those whose reports do not get through, too; here it would go round in circles
    }
    // Meanwhile some of them may have been dropped, being the oldest.
    const shipped = new Set(batch);
    const before = this.#waiting.length;
    this.#waiting = this.#waiting.filter((one) => !shipped.has(one));
    this.#waitingChars = this.#waiting.reduce((sum, one) => sum + one.chars, 0);
    const alsoDropped = batch.length - (before - this.#waiting.length);
    this.#droppedCount = Math.max(0, this.#droppedCount - droppedCount - alsoDropped);
    return true;
  }
}
