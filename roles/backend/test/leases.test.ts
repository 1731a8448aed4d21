import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { LeaseGrant, LeaseWish } from '@starling/model/lease';
import { pino } from 'pino';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { FileLeases } from '../src/file-leases.ts';
import { type HeldLease, type LeaseAuthority, RenewedLeases, SoleHolder } from '../src/leases.ts';
import { bundleProgram } from './node-program.ts';

const logger = pino({ level: 'silent' });
const NAME = 'channel/films';
const [A, B, C] = ['a', 'b', 'c'].map((letter) => letter.repeat(16)) as [string, string, string];

describe('leases that are renewed', () => {
  let wishes: LeaseWish[][];
  let answer: (wish: LeaseWish) => Partial<LeaseGrant>;
  let leases: RenewedLeases;
  const onChange = vi.fn();
  const authority: LeaseAuthority = {
    renew: async (wanted) => {
      wishes.push([...wanted]);
      return wanted.map((wish) => {
        const none = { name: wish.name, fencingToken: null, isFirst: false, retryInMs: 1000 };
        return { ...none, ...answer(wish) };
      });
    },
    releaseAll: vi.fn(async () => {}),
  };

  beforeEach(() => {
    vi.useFakeTimers();
    wishes = [];
    onChange.mockClear();
    answer = () => ({ fencingToken: 5, isFirst: true });
    leases = new RenewedLeases({ authority, onChange, logger });
  });
  afterEach(async () => {
    await leases.close();
    vi.useRealTimers();
  });

  test('are asked for at once, and renewed with their tokens before they run out', async () => {
    leases.want(new Map([[NAME, 1]]));
    await vi.advanceTimersByTimeAsync(0);
    expect(leases.held).toEqual(new Map([[NAME, { fencingToken: 5, isFirst: true }]]));
    expect(onChange).toHaveBeenCalledTimes(1);
    await vi.advanceTimersByTimeAsync(2500);
    expect(wishes.length).toBeGreaterThanOrEqual(3);
    expect(wishes.at(-1)).toEqual([{ name: NAME, maxHolders: 1, fencingToken: 5 }]);
    expect(onChange).toHaveBeenCalledTimes(1);
  });

  test('of the last end are taken up when nobody can be asked for 3 s, and given up to whoever says so then', async () => {
    answer = () => {
      throw new Error('away');
    };
    const held = { fencingToken: 3, isFirst: true };
    const heldBefore = new Map([
      [NAME, held],
      ['channel/removed', held],
    ]);
    const started = new RenewedLeases({ authority, onChange, logger, heldBefore });
    started.want(
      new Map([
        [NAME, 1],
        ['channel/other', 1],
      ]),
    );
    await vi.advanceTimersByTimeAsync(2500);
    expect(started.held.size).toBe(0);
    expect(started.toRemember).toEqual(heldBefore);
    await vi.advanceTimersByTimeAsync(1500);
    expect(started.held).toEqual(new Map([[NAME, held]]));
    expect(onChange).toHaveBeenCalledTimes(1);
    answer = () => ({});
    await vi.advanceTimersByTimeAsync(1000);
    expect(started.held.size).toBe(0);
    await started.close();
  });

  test('of the last end count for nothing where somebody can be asked', async () => {
    answer = () => ({});
    const heldBefore = new Map([[NAME, { fencingToken: 3, isFirst: true }]]);
    const started = new RenewedLeases({ authority, onChange, logger, heldBefore });
    started.want(new Map([[NAME, 1]]));
    await vi.advanceTimersByTimeAsync(0);
    answer = () => {
      throw new Error('away');
    };
    await vi.advanceTimersByTimeAsync(6000);
    expect(started.held.size).toBe(0);
    await started.close();
  });

  test('that others hold are asked for again as soon as they run out', async () => {
    answer = () => ({ retryInMs: 300 });
    leases.want(new Map([[NAME, 1]]));
    await vi.advanceTimersByTimeAsync(0);
    answer = () => ({ fencingToken: 6, isFirst: true });
    await vi.advanceTimersByTimeAsync(290);
    expect(leases.held.size).toBe(0);
    await vi.advanceTimersByTimeAsync(60);
    expect(leases.held.get(NAME)?.fencingToken).toBe(6);
  });

  test('are kept while nobody can be asked, and given up when another has them', async () => {
    leases.want(new Map([[NAME, 1]]));
    await vi.advanceTimersByTimeAsync(0);
    answer = () => {
      throw new Error('unreachable');
    };
    await vi.advanceTimersByTimeAsync(60_000);
    expect(leases.held.has(NAME)).toBe(true);
    answer = () => ({});
    await vi.advanceTimersByTimeAsync(1000);
    expect(leases.held.has(NAME)).toBe(false);
    expect(onChange).toHaveBeenCalledTimes(2);
  });

  test('that are not wanted any more are not held, and are released', async () => {
    leases.want(new Map([[NAME, 1]]));
    await vi.advanceTimersByTimeAsync(0);
    leases.want(new Map());
    expect(leases.held.size).toBe(0);
    await vi.advanceTimersByTimeAsync(0);
    expect(wishes.at(-1)).toEqual([]);
    await leases.close();
    expect(authority.releaseAll).toHaveBeenCalled();
  });
});

test('the only backend holds whatever it wants', () => {
  const leases = new SoleHolder();
  leases.want(new Map([[NAME, 2]]));
  expect(leases.held.get(NAME)).toEqual({ fencingToken: 1, isFirst: true });
});

describe('leases in a folder', () => {
  const dir = mkdtempSync(join(tmpdir(), 'starling-leases-'));
  let program: string;
  const children: ChildProcess[] = [];

  beforeAll(async () => {
    program = await bundleProgram('lease-process.ts');
  });
  afterAll(() => {
    for (const child of children) child.kill('SIGKILL');
    rmSync(dir, { recursive: true, force: true });
    rmSync(dirname(program), { recursive: true, force: true });
  });

  interface Backend {
    readonly process: ChildProcess;
    /** What it holds now; undefined before it said anything. */
    held: HeldLease | null | undefined;
  }

  function start(folder: string, nodeId: string, maxHolders = 1): Backend {
    const child = spawn(process.execPath, [program, join(dir, folder), nodeId, String(maxHolders)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    children.push(child);
    const backend: Backend = { process: child, held: undefined };
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      backend.held = JSON.parse(text.trim().split('\n').at(-1) ?? 'null') as HeldLease | null;
    });
    return backend;
  }

  const holds = (backend: Backend) =>
    vi.waitFor(
      () => {
        if (!backend.held) throw new Error('it does not hold the lease');
        return backend.held;
      },
      { timeout: 10_000, interval: 10 },
    );

  test('go to another process when their holder is killed, with a higher token', async () => {
    const first = start('kill', A);
    const { fencingToken } = await holds(first);
    const second = start('kill', B);
    const third = start('kill', C);
    first.process.kill('SIGKILL');
    await once(first.process, 'exit');
    const taken = await Promise.race([holds(second), holds(third)]);
    expect(taken.fencingToken).toBeGreaterThan(fencingToken);
    expect([second.held, third.held].filter(Boolean)).toHaveLength(1);
  });

  test('go to another process when their holder is stopped, and it notices when it goes on', async () => {
    const first = start('stop', A);
    await holds(first);
    first.process.kill('SIGSTOP');
    await holds(start('stop', B));
    first.process.kill('SIGCONT');
    await vi.waitFor(() => expect(first.held).toBeNull(), { timeout: 10_000 });
  });

  test('are free at once when their holder ends in order', async () => {
    const first = start('end', A);
    await holds(first);
    const files = new FileLeases(join(dir, 'end'), B);
    const wish = { name: NAME, maxHolders: 1, fencingToken: null };
    expect((await files.renew([wish]))[0]?.fencingToken).toBeNull();
    first.process.kill('SIGTERM');
    await once(first.process, 'exit');
    expect((await files.renew([wish]))[0]).toMatchObject({ fencingToken: 2, isFirst: true });
  });

  test('have as many holders as they may, whoever comes at the same time', async () => {
    const wish = { name: NAME, maxHolders: 2, fencingToken: null };
    const all = Array.from(
      { length: 8 },
      (_, index) => new FileLeases(join(dir, 'many'), index.toString(16).repeat(16)),
    );
    // Until nobody stands back for another any more.
    for (let round = 0; round < 10; round++) await Promise.all(all.map((one) => one.renew([wish])));
    const grants = await Promise.all(all.map((one) => one.renew([wish])));
    const held = grants.flat().filter(({ fencingToken }) => fencingToken !== null);
    expect(held).toHaveLength(2);
    expect(held.filter(({ isFirst }) => isFirst)).toHaveLength(1);
  });
});
