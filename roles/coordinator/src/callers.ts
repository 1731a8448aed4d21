/** Whom requests come from; remembered until the next change, so that a request need not ask the database. */
import type { Reach, Role, Scope } from '@starling/model/account';
import type { NodeRole } from '@starling/model/node';
import type { Changes } from './changes.ts';

/** Whom a request comes from. */
export interface Caller {
  readonly kind: 'operator-token' | 'node-token' | 'node' | 'session' | 'api-token';
  /** Whose count of requests its are, no two alike. */
  readonly id: string;
  /** For the audit log. */
  readonly name: string;
  /** Of a machine that shows its own key. */
  readonly node?: { readonly id: string; readonly role: NodeRole };
  /** Null for a token that belongs to no account. */
  readonly account: string | null;
  readonly role: Role;
  /** Private channels that it may watch. */
  readonly channels: readonly string[];
  readonly hasOneTimePassword: boolean;
  readonly hasSecondFactor: boolean;
  readonly expiresAt: Date | null;
  /** What it may do with a scope. */
  reach(scope: Scope): Reach | undefined;
}

/** What no change tells of, a session that is not used for instance, is seen so much later. */
const KEEP_MS = 5000;
/** The longest known make room. */
const MAX_CALLERS = 10_000;

/** Who has which token. */
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
