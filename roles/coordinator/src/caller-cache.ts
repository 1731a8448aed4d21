/** Who has which token, remembered until the next change, so that a request need not ask the database. */
import type { Caller } from './access.ts';
import type { Changes } from './changes.ts';

/** What no change tells of, a session that is not used for instance, is seen so much later. */
const KEEP_MS = 5000;
/** The longest known make room. */
const MAX_CALLERS = 10_000;

export class CallerCache {
  readonly #now: () => number;
  readonly #callers = new Map<string, { readonly caller: Caller; readonly untilMs: number }>();
  #generation = 0;

  constructor(changes: Changes, now: () => number) {
    this.#now = now;
    changes.onChange(() => {
      this.#generation++;
      this.#callers.clear();
    });
  }

  /**
   * @param digest of the token
   * @param read asks the database; a token that is unknown is not remembered
   */
  async get(digest: string, read: () => Promise<Caller | undefined>): Promise<Caller | undefined> {
    const known = this.#callers.get(digest);
    const nowMs = this.#now();
    if (known !== undefined && nowMs < known.untilMs) return known.caller;
    const generation = this.#generation;
    const caller = await read();
    this.#callers.delete(digest);
    // A change in between may have made it wrong.
    if (caller === undefined || generation !== this.#generation) return caller;
    if (this.#callers.size >= MAX_CALLERS) {
      for (const oldest of this.#callers.keys()) {
        this.#callers.delete(oldest);
        break;
      }
    }
    const untilMs = Math.min(nowMs + KEEP_MS, caller.expiresAt?.getTime() ?? Number.POSITIVE_INFINITY);
    this.#callers.set(digest, { caller, untilMs });
    return caller;
  }
}
