/**
 * Rows that were asked for, kept until the next change: consoles and machines ask for the same ones again and again. It
 * also answers while the database cannot.
 */
import type { Changes } from './changes.ts';

/** A page of the largest items is about a megabyte. */
const MAX_ENTRIES = 100;

export class RowCache<T> {
  readonly #entries = new Map<string, Promise<T>>();

  constructor(changes: Changes) {
    changes.onChange(() => this.#entries.clear());
  }

  /**
   * What `read` gave when it was last asked for under this name; no older than the last change that was committed here
   * before the call.
   */
  get(name: string, read: () => Promise<T>): Promise<T> {
    const known = this.#entries.get(name);
    if (known !== undefined) return known;
    const reading = read();
    this.#entries.set(name, reading);
    reading.catch(() => {
      if (this.#entries.get(name) === reading) this.#entries.delete(name);
    });
    const [oldest] = this.#entries.keys();
    if (this.#entries.size > MAX_ENTRIES && oldest !== undefined) this.#entries.delete(oldest);
    return reading;
  }
}
