import { beforeEach, describe, expect, test } from 'vitest';
import { LEASE_TTL_MS, LeaseTable } from './lease-table.ts';

const [A, B, C] = ['a', 'b', 'c'].map((letter) => letter.repeat(16)) as [string, string, string];
const NAME = 'channel/films';
let nowMs: number;
let table: LeaseTable;

const ask = (nodeId: string, maxHolders = 1, fencingToken: number | null = null) => {
  const [grant] = table.renew(nodeId, [{ name: NAME, maxHolders, fencingToken }]).leases;
  if (grant === undefined) throw new Error('no grant');
  return grant;
};

beforeEach(() => {
  nowMs = 1000;
  table = new LeaseTable(1_800_000_000_000, () => nowMs);
  nowMs += LEASE_TTL_MS;
});

describe('a lease', () => {
  test('belongs to one node until it has not been renewed for 3 s', () => {
    const first = ask(A);
    expect(first.isFirst).toBe(true);
    nowMs += 2000;
    expect(ask(B)).toMatchObject({ fencingToken: null, retryInMs: 1000 });
    expect(ask(A).fencingToken).toBe(first.fencingToken);
    nowMs += 2999;
    expect(ask(B).fencingToken).toBeNull();
    nowMs += 1;
    const second = ask(B);
    expect(second.fencingToken).toBeGreaterThan(first.fencingToken ?? Number.POSITIVE_INFINITY);
    expect(ask(A, 1, first.fencingToken).fencingToken).toBeNull();
  });

  test('is free at once when it is given up, or not named any more', () => {
    ask(A);
    table.release(A);
    expect(ask(B).fencingToken).not.toBeNull();
    table.renew(B, []);
    expect(ask(A).fencingToken).not.toBeNull();
    expect(table.list()).toMatchObject([{ name: NAME, holders: [{ nodeId: A }] }]);
  });

  test('of two holders has the longer one first, and a third waits', () => {
    expect([ask(A, 2).isFirst, ask(B, 2).isFirst]).toEqual([true, false]);
    expect(ask(C, 2).fencingToken).toBeNull();
    nowMs += 2000;
    expect(ask(B, 2).isFirst).toBe(false);
    nowMs += 1500; // A is dead
    expect(ask(B, 2).isFirst).toBe(true);
    expect(ask(A, 2).isFirst).toBe(false);
  });

  test('for fewer holders than before is kept by the one that has held it longest', () => {
    ask(A, 2);
    ask(B, 2);
    expect(ask(B, 1).fencingToken).toBeNull();
    expect(ask(A, 1).fencingToken).not.toBeNull();
  });
});

describe('after a restart of the coordinator', () => {
  test('who held a lease keeps it, and nobody else takes it meanwhile', () => {
    const held = ask(A).fencingToken;
    table = new LeaseTable(1_800_000_010_000, () => nowMs);
    expect(ask(B)).toMatchObject({ fencingToken: null, retryInMs: LEASE_TTL_MS });
    expect(ask(A, 1, held)).toMatchObject({ fencingToken: held, isFirst: true });
    nowMs += LEASE_TTL_MS - 1;
    ask(A, 1, held);
    nowMs += 1;
    expect(ask(B).fencingToken).toBeNull();
  });

  test('a lease that nobody claims is free after 3 s, with a higher token', () => {
    const held = ask(A).fencingToken ?? 0;
    table = new LeaseTable(1_800_000_010_000, () => nowMs);
    nowMs += LEASE_TTL_MS;
    expect(ask(B).fencingToken).toBeGreaterThan(held);
    expect(ask(A, 1, held).fencingToken).toBeNull();
  });
});
