import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { escapeFilterValue, slateSource } from './slate.ts';

const scratch = mkdtempSync(join(tmpdir(), 'starling-slate-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** The picture that a filter draws, as a digest. */
function drawn(filter: string): string {
  return execFileSync(
    'ffmpeg',
    ['-v', 'error', '-f', 'lavfi', '-i', `color=c=black:s=640x64:d=0.04,${filter}`, '-f', 'md5', '-'],
    { encoding: 'utf8' },
  );
}

describe('a title on the slate', () => {
  it.each([
    "It's 5 o'clock: news, sport; [live] \\o/",
    '%{pts} %{n} 100% $(id) `id`',
    "a':text='b",
    'Ünïcödé ☃ 日本',
    "','; [x] color=red[y];",
  ])('is drawn as it is written: %s', (title) => {
    const path = join(scratch, 'title.txt');
    writeFileSync(path, title);
    const style = "font='DejaVu Sans':expansion=none:fontcolor=white:x=4:y=8:fontsize=24";
    // The same words from a file, where nothing needs escaping.
    const expected = drawn(`drawtext=${style}:textfile=${path}`);
    expect(drawn(`drawtext=${style}:text=${escapeFilterValue(title)}`)).toBe(expected);
    expect(drawn(`drawtext=${style}:text=${escapeFilterValue(`${title}.`)}`)).not.toBe(expected);
  });

  it('cannot break the line, and has a length that fits', () => {
    expect(escapeFilterValue('a\nb\0c')).toBe('abc');
    const { args } = slateSource('x'.repeat(200), { hasText: true });
    expect(args.join(' ')).toContain(`${'x'.repeat(47)}…`);
    expect(args.join(' ')).not.toContain('x'.repeat(48));
  });

  it('makes a slate of its own', () => {
    expect(slateSource('a', { hasText: true }).identity).not.toBe(
      slateSource('b', { hasText: true }).identity,
    );
  });
});
