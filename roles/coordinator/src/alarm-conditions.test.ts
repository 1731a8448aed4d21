import { describe, expect, it } from 'vitest';
import { Conditions, Surges } from './alarm-conditions.ts';

const timing = { raiseAfterMs: 100, clearAfterMs: 50 };

/** @param observed per moment: bad (b), well (w) or between (-) @returns raised (R) or not (.) at each */
function run(conditions: Conditions, observed: string, stepMs: number, isOpen = false): string {
  return [...observed]
    .map((what, index) => {
      const isBad = what === 'b' ? true : what === 'w' ? false : undefined;
      return conditions.observe('k', isBad, index * stepMs, timing, isOpen) ? 'R' : '.';
    })
    .join('');
}

describe('a condition', () => {
  it.each([
    ['is raised after so long, and not before', 'bbbbb', '....R', 25],
    ['is not raised where it flickers', 'bbwbbwbbw', '.........', 40],
    ['is over after so long, and not before', 'bbwww', '.RRR.', 100, 25],
    ['stays where it flickers the other way', 'bb' + 'wbwbwb', '.RRRRRRR', 100, 25],
    ['stays between the two bounds', 'bb---', '.RRRR', 100],
    ['does not begin between the two bounds', '-----', '.....', 100],
    ['counts anew after what is between', 'b-b-b-', '......', 60],
  ])('%s', (_what, observed, expected, stepMs, laterStepMs = stepMs) => {
    const conditions = new Conditions();
    if (laterStepMs === stepMs) {
      expect(run(conditions, observed, stepMs)).toBe(expected);
      return;
    }
    let nowMs = 0;
    const raised = [...observed].map((what, index) => {
      nowMs += index < 2 ? stepMs : laterStepMs;
      return conditions.observe('k', what === 'b', nowMs, timing, false) ? 'R' : '.';
    });
    expect(raised.join('')).toBe(expected);
  });

  it('that was open before the start stays so until it is well', () => {
    expect(run(new Conditions(), 'b-www', 25, true)).toBe('RRRR.');
  });

  it('that was settled is not raised again before its time, unless it was well meanwhile', () => {
    const conditions = new Conditions();
    const at = (nowMs: number, isBad: boolean) => conditions.observe('k', isBad, nowMs, timing, false);
    at(0, true);
    expect(at(100, true)).toBe(true);
    conditions.settle('k', 1000);
    expect([at(200, true), at(500, true), at(999, true)]).toEqual([false, false, false]);
    expect([at(1000, true), at(1100, true)]).toEqual([false, true]);
    conditions.settle('k', 5000);
    at(1200, false);
    at(1300, true);
    expect(at(1400, true)).toBe(true);
  });
});

describe('a surge', () => {
  it('is what happened within the window', () => {
    const surges = new Surges(10_000);
    for (let atMs = 0; atMs < 12_000; atMs += 100) surges.add('a', 1, atMs);
    surges.add('b', 3, 11_000);
    expect(Object.fromEntries(surges.totals(11_999))).toEqual({ a: 100, b: 3 });
    expect(Object.fromEntries(surges.totals(20_999))).toEqual({ a: 10, b: 3 });
    expect(surges.totals(30_000).size).toBe(0);
  });

  it('is forgotten, the oldest first, when there are too many', () => {
    const surges = new Surges(1000, 2);
    for (const key of ['a', 'b', 'a', 'c']) surges.add(key, 1, 0);
    expect(Object.fromEntries(surges.totals(0))).toEqual({ a: 2, c: 1 });
  });
});
