import { appendFileSync, mkdtempSync, readFileSync, rmSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { Type } from 'typebox';
import { afterAll, describe, expect, it } from 'vitest';
import { Spool } from './spool.ts';

const folder = mkdtempSync(join(tmpdir(), 'starling-spool-'));
const opened: { close(): Promise<void> }[] = [];
afterAll(async () => {
  for (const spool of opened) await spool.close();
  rmSync(folder, { recursive: true, force: true });
});

let count = 0;
const newPath = () => join(folder, String(count++), 'owed.spool');
const open = (path: string | undefined, maxEntries = 100) => {
  const errors: unknown[] = [];
  const onError = (error: unknown) => errors.push(error);
  const spool = new Spool({ path, schema: Type.String(), maxEntries, onError });
  opened.push(spool);
  return Object.assign(spool, { errors });
};
const values = (spool: Spool<ReturnType<typeof Type.String>>) =>
  spool.pending(1000).map(({ sequence, value }) => `${sequence} ${value}`);

describe('a spool', () => {
  it('offers what it owes until that is taken, also after a restart', async () => {
    const path = newPath();
    const first = open(path);
    for (const value of ['a', 'b', 'c']) first.add(value);
    await first.flushed();
    first.taken(1);
    expect(values(first)).toEqual(['2 b', '3 c']);
    await first.close();
    const second = open(path);
    expect(second.id).toBe(first.id);
    expect(values(second)).toEqual(['2 b', '3 c']);
    second.taken(3);
    second.add('d');
    await second.close();
    expect(values(open(path))).toEqual(['4 d']);
  });

  it('offers nothing before it is on disk, for its number might be given again', async () => {
    const spool = open(newPath());
    spool.add('a');
    expect(values(spool)).toEqual([]);
    await spool.flushed();
    expect(values(spool)).toEqual(['1 a']);
  });

  it('gives no number twice, wherever a kill cuts the file', async () => {
    const path = newPath();
    const whole = open(path);
    for (const value of ['a', 'b']) whole.add(value);
    await whole.flushed();
    whole.taken(1);
    whole.add('c');
    await whole.close();
    const text = readFileSync(path, 'utf8');
    const lastLine = text.lastIndexOf('\n', text.length - 2) + 1;
    for (let size = lastLine; size < text.length - 1; size++) {
      const cut = newPath();
      open(cut);
      appendFileSync(cut, text);
      truncateSync(cut, size);
      const next = open(cut);
      next.add('d');
      await next.close();
      // Half of `c` was never offered.
      expect(values(open(cut))).toEqual(['2 b', '3 d']);
    }
  });

  it('drives out the oldest beyond its bound, and counts them', async () => {
    const spool = open(newPath(), 3);
    for (const value of ['a', 'b', 'c', 'd', 'e']) spool.add(value);
    await spool.flushed();
    expect(values(spool)).toEqual(['3 c', '4 d', '5 e']);
    expect(spool.droppedCount).toBe(2);
  });

  it('goes on in memory when the disk takes nothing', async () => {
    const path = newPath();
    const spool = open(path);
    rmSync(join(path, '..'), { recursive: true });
    spool.add('a');
    await spool.flushed();
    expect(spool.errors).toHaveLength(1);
    expect(values(spool)).toEqual(['1 a']);
    expect(values(open(undefined))).toEqual([]);
  });

  it('owes after any adds, deliveries and restarts what was added and not taken', async () => {
    const step = fc.oneof(
      fc.record({ kind: fc.constant('add' as const), value: fc.string({ maxLength: 5 }) }),
      fc.record({ kind: fc.constant('taken' as const), share: fc.double({ min: 0, max: 1, noNaN: true }) }),
      fc.record({ kind: fc.constant('restart' as const) }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
        const path = newPath();
        let spool = open(path);
        let owed: string[] = [];
        let next = 1;
        for (const one of steps) {
          if (one.kind === 'add') {
            spool.add(one.value);
            owed.push(`${next++} ${one.value}`);
          } else if (one.kind === 'taken') {
            await spool.flushed();
            const last = spool.pending(Math.ceil(one.share * owed.length)).at(-1)?.sequence ?? 0;
            spool.taken(last);
            owed = owed.filter((text) => Number(text.split(' ')[0]) > last);
          } else {
            await spool.close();
            spool = open(path);
          }
          await spool.flushed();
          expect(values(spool)).toEqual(owed);
        }
        await spool.close();
      }),
      { numRuns: 40 },
    );
  });
});
