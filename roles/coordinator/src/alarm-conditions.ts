/**
 * When something that is observed again and again becomes an alarm, and when it stops being one: it has to be so for a while, and well
 * again for a while, so that what flickers is one alarm. Pure: time comes in, what follows comes out.
 */

export interface ConditionTiming {
  /** It has to be bad for so long. */
  readonly raiseAfterMs: number;
  /** And well for so long. */
  readonly clearAfterMs: number;
}

interface Condition {
  isRaised: boolean;
  /** Since when it is the opposite of `isRaised`; undefined while it is not. */
  turnedAtMs: number | undefined;
}

export class Conditions {
  readonly #conditions = new Map<string, Condition>();
  /** What somebody has settled by hand, and until when it is not brought up again. */
  readonly #settledUntilMs = new Map<string, number>();

  /**
   * | is raised | observed         | then                                                    |
   * | --------- | ---------------- | ------------------------------------------------------- |
   * | no        | bad              | raised after `raiseAfterMs`, where it was not settled    |
   * | no        | well, or between | stays                                                   |
   * | yes       | bad, or between  | stays                                                   |
   * | yes       | well             | over after `clearAfterMs`                               |
   *
   * @param isBad undefined between the bound where it begins and the one where it ends
   * @param isOpen whether there is an alarm already, at the first observation
   * @returns whether there should be an alarm
   */
  observe(
    key: string,
    isBad: boolean | undefined,
    nowMs: number,
    timing: ConditionTiming,
    isOpen: boolean,
  ): boolean {
    let condition = this.#conditions.get(key);
    if (condition === undefined) {
      condition = { isRaised: isOpen, turnedAtMs: undefined };
      this.#conditions.set(key, condition);
    }
    if (isBad === false) this.#settledUntilMs.delete(key);
    const settledUntilMs = this.#settledUntilMs.get(key);
    const isTurned = isBad !== undefined && isBad !== condition.isRaised;
    if (!isTurned || (isBad && settledUntilMs !== undefined && nowMs < settledUntilMs)) {
      condition.turnedAtMs = undefined;
      return condition.isRaised;
    }
    condition.turnedAtMs ??= nowMs;
    const afterMs = isBad ? timing.raiseAfterMs : timing.clearAfterMs;
    if (nowMs - condition.turnedAtMs >= afterMs) {
      condition.isRaised = isBad;
      condition.turnedAtMs = undefined;
    }
    return condition.isRaised;
  }

  /** Somebody says that it is over: it is not brought up before `untilMs`, unless it was well meanwhile. */
  settle(key: string, untilMs: number): void {
    this.#conditions.set(key, { isRaised: false, turnedAtMs: undefined });
    this.#settledUntilMs.set(key, untilMs);
  }

  /** Forgets whatever is not among `keys`. */
  retain(keys: ReadonlySet<string>): void {
    for (const key of this.#conditions.keys()) if (!keys.has(key)) this.#conditions.delete(key);
    for (const key of this.#settledUntilMs.keys()) if (!keys.has(key)) this.#settledUntilMs.delete(key);
  }
}

/** Counts what happens within a window of time, by what it happens to. */
export class Surges {
  readonly #windowMs: number;
  readonly #maxKeys: number;
  readonly #counts = new Map<string, { atMs: number; count: number }[]>();

  constructor(windowMs: number, maxKeys = 1000) {
    this.#windowMs = windowMs;
    this.#maxKeys = maxKeys;
  }

  add(key: string, count: number, nowMs: number): void {
    if (count <= 0) return;
    const entries = this.#counts.get(key) ?? [];
    const last = entries.at(-1);
    // To the second: a flood takes no more memory than a trickle.
    if (last !== undefined && nowMs - last.atMs < 1000) last.count += count;
    else entries.push({ atMs: nowMs, count });
    this.#counts.delete(key);
    this.#counts.set(key, entries);
    const [oldest] = this.#counts.keys();
    if (this.#counts.size > this.#maxKeys && oldest !== undefined) this.#counts.delete(oldest);
  }

  /** What happened in the window that ends now, by key. */
  totals(nowMs: number): Map<string, number> {
    const totals = new Map<string, number>();
    for (const [key, entries] of this.#counts) {
      const kept = entries.filter(({ atMs }) => nowMs - atMs < this.#windowMs);
      if (kept.length === 0) this.#counts.delete(key);
      else {
        this.#counts.set(key, kept);
        totals.set(
          key,
          kept.reduce((sum, { count }) => sum + count, 0),
        );
      }
    }
    return totals;
  }

  forget(key: string): void {
    this.#counts.delete(key);
  }
}
