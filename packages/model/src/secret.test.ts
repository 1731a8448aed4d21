import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test, vi } from 'vitest';
import { currentSecret, openSecret, rotatedSecretFile } from './secret.ts';

const dir = mkdtempSync(join(tmpdir(), 'starling-secret-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const NOON = Date.parse('2026-12-01T12:00:00Z');
const HOUR_MS = 3_600_000;

describe('a file of secrets', () => {
  test('keeps the old one for as long as it is told', () => {
    const once = rotatedSecretFile('old\n', 'new', NOON + HOUR_MS, NOON);
    expect(once).toBe('new\nold until 2026-12-01T13:00:00.000Z\n');
    const twice = rotatedSecretFile(once, 'newest', NOON + 2 * HOUR_MS, NOON + HOUR_MS / 2);
    expect(twice).toBe('newest\nnew until 2026-12-01T14:00:00.000Z\nold until 2026-12-01T13:00:00.000Z\n');
    expect(rotatedSecretFile(twice, 'last', 0, NOON + 3 * HOUR_MS)).toBe('last\n');
    expect(currentSecret(twice)).toBe('newest');
  });

  test('lets in who shows one of them in its time, and nobody else', () => {
    const path = join(dir, 'overlap');
    writeFileSync(path, 'new\nold until 2026-12-01T13:00:00.000Z\nbroken until whenever\n');
    let nowMs = NOON;
    const secret = openSecret({ file: path }, () => nowMs);
    expect(secret.current()).toBe('new');
    const taken = () =>
      ['new', 'old', 'broken', '', 'old until 2026-12-01T13:00:00.000Z'].filter(secret.accepts);
    expect(taken()).toEqual(['new', 'old']);
    nowMs = NOON + HOUR_MS;
    expect(taken()).toEqual(['new']);
  });

  test('that is empty lets nobody in', () => {
    const path = join(dir, 'empty');
    writeFileSync(path, '\n');
    expect(openSecret({ file: path }).accepts('')).toBe(false);
    expect(openSecret('').accepts('')).toBe(false);
  });

  test('is read again when it has changed, and while it is away what it held counts', () => {
    const clock = vi.spyOn(performance, 'now').mockReturnValue(0);
    try {
      const path = join(dir, 'changes');
      writeFileSync(path, 'one\n');
      const secret = openSecret({ file: path });
      writeFileSync(`${path}.new`, 'two\n');
      renameSync(`${path}.new`, path);
      expect(secret.current()).toBe('one'); // not looked yet
      clock.mockReturnValue(100);
      expect(secret.accepts('two')).toBe(true); // sooner where somebody shows it
      writeFileSync(path, 'two\nthree until 2020-01-01T00:00:00Z\n');
      clock.mockReturnValue(1100);
      expect(secret.current()).toBe('two');
      expect(secret.accepts('one')).toBe(false);
      rmSync(path);
      clock.mockReturnValue(2000);
      expect(secret.accepts('two')).toBe(true);
    } finally {
      clock.mockRestore();
    }
  });

  test('that is missing at first is an error', () => {
    expect(() => openSecret({ file: join(dir, 'missing') })).toThrow('ENOENT');
  });
});
