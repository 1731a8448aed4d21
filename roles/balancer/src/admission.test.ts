import { describe, expect, it } from 'vitest';
import { Admission, type CheckResult } from './admission.ts';

/** Some frontends under checks every 500 ms, all ready until something else is said. */
class Rehearsal {
  readonly admission = new Admission();
  nowMs = 0;
  readonly #results = new Map<string, CheckResult>();

  constructor(...ids: string[]) {
    this.setMembers(...ids);
  }

  setMembers(...ids: string[]): void {
    this.admission.setMembers(ids);
    for (const id of this.#results.keys()) if (!ids.includes(id)) this.#results.delete(id);
    for (const id of ids) if (!this.#results.has(id)) this.#results.set(id, 'ready');
  }

  set(id: string, result: CheckResult): void {
    this.#results.set(id, result);
  }

  check(times: number): void {
    for (let i = 0; i < times; i++) {
      for (const [id, result] of this.#results) this.admission.observe(id, result, this.nowMs);
      this.nowMs += 500;
    }
  }

  get weights(): Record<string, number> {
    return Object.fromEntries(this.admission.weights(this.nowMs));
  }
}

describe('admission', () => {
  it('of those that start together gives all their full share at once', () => {
    const fleet = new Rehearsal('a', 'b', 'c');
    fleet.check(1);
    expect(fleet.weights).toEqual({ a: 10, b: 10, c: 10 });
  });

  it('takes out at once who refuses, and in after two checks, with a share that grows', () => {
    const fleet = new Rehearsal('a', 'b');
    fleet.check(10);
    fleet.set('b', 'refused');
    fleet.check(1);
    expect(fleet.weights).toEqual({ a: 10, b: 0 });
    fleet.set('b', 'ready');
    fleet.check(1);
    expect(fleet.weights).toEqual({ a: 10, b: 0 });
    const shares: (number | undefined)[] = [];
    for (let i = 0; i < 20; i++) {
      fleet.check(1);
      shares.push(fleet.weights.b);
    }
    expect(shares[0]).toBe(1);
    expect(shares.at(-1)).toBe(10);
    expect(shares).toEqual([...shares].sort((one, other) => (one ?? 0) - (other ?? 0)));
    expect(new Set(shares)).toEqual(new Set([1, 3, 6, 10]));
  });

  it('takes in who joins after its first good check', () => {
    const fleet = new Rehearsal('a', 'b');
    fleet.check(10);
    fleet.setMembers('a', 'b', 'c');
    fleet.check(1);
    expect(fleet.weights).toEqual({ a: 10, b: 10, c: 1 });
  });

  it('bears with a channel that makes frontends unready for a moment, and not for long', () => {
    const fleet = new Rehearsal('a', 'b');
    fleet.check(2);
    fleet.set('b', 'unready');
    fleet.check(3);
    expect(fleet.weights).toEqual({ a: 10, b: 10 });
    fleet.check(1);
    expect(fleet.weights).toEqual({ a: 10, b: 0 });
  });

  it('takes out the silent, but never so many that half of those that answer would go', () => {
    const fleet = new Rehearsal('a', 'b', 'c', 'd');
    fleet.check(2);
    for (const id of ['a', 'b', 'c']) fleet.set(id, 'silent');
    fleet.check(1);
    expect(fleet.weights).toEqual({ a: 0, b: 0, c: 10, d: 10 });
  });

  it('lets a frontend that goes and comes wait longer and longer', () => {
    const fleet = new Rehearsal('a', 'b');
    fleet.check(10);
    const absences: number[] = [];
    for (let round = 0; round < 7; round++) {
      fleet.set('b', 'refused');
      fleet.check(1);
      fleet.set('b', 'ready');
      let checks = 0;
      while (fleet.weights.b === 0) {
        fleet.check(1);
        checks++;
      }
      absences.push(checks);
    }
    expect(absences[0]).toBe(2);
    expect(absences).toEqual([...absences].sort((one, other) => one - other));
    expect(absences.at(-1)).toBe(61); // 30 s, and the check at their end
  });

  it('sends viewers to whoever answers when nobody is ready, and to nobody when nobody does', () => {
    const fleet = new Rehearsal('a', 'b');
    fleet.set('a', 'unready');
    fleet.set('b', 'refused');
    fleet.check(1);
    expect(fleet.weights).toEqual({ a: 10, b: 0 });
    fleet.set('a', 'refused');
    fleet.check(1);
    expect(fleet.weights).toEqual({ a: 0, b: 0 });
  });

  it('forgets who is not listed any more', () => {
    const fleet = new Rehearsal('a', 'b');
    fleet.check(1);
    fleet.setMembers('b');
    expect(fleet.weights).toEqual({ b: 10 });
    expect(fleet.admission.observe('a', 'ready', 0)).toBeUndefined();
  });
});
