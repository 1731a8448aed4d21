/** The documents tell the truth: links lead somewhere, and the errors are all listed. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { mediaErrorCatalogue } from '@starling/media/error';
import { describe, expect, it } from 'vitest';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');
const documents = [
  ...readdirSync(root).filter((name) => name.endsWith('.md')),
  ...readdirSync(join(root, 'docs'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.md'))
    .map((name) => join('docs', name)),
];

describe('the documents', () => {
  it.each(documents)('%s: every link leads to a file', (document) => {
    const text = readFileSync(join(root, document), 'utf8');
    const broken = [...text.matchAll(/\]\((?!https?:|#|mailto:)([^)#\s]+)[^)]*\)/g)]
      .map((match) => resolve(root, dirname(document), match[1] ?? ''))
      .filter((path) => !existsSync(path))
      .map((path) => relative(root, path));
    expect(broken).toEqual([]);
  });

  it('AGENTS.md: every source file that it names exists', () => {
    const text = readFileSync(join(root, 'AGENTS.md'), 'utf8');
    const named = [...text.matchAll(/`((?:packages|roles|apps|tools|docs|e2e)\/[\w./-]+\.\w+)`/g)].map(
      (match) => match[1] ?? '',
    );
    expect(named.length).toBeGreaterThan(10);
    expect(named.filter((path) => !existsSync(join(root, path)))).toEqual([]);
  });

  it('docs/errors.md lists every coded error of the media package, and no other', () => {
    const text = readFileSync(join(root, 'docs/errors.md'), 'utf8');
    const media = text.slice(text.indexOf('## Media'), text.indexOf('\n## ', text.indexOf('## Media') + 1));
    const listed = [...media.matchAll(/^\| `([A-Z0-9_]+)` \| (.+) \|$/gm)].map((match) => [match[1], match[2]]);
    expect(Object.fromEntries(listed)).toEqual(mediaErrorCatalogue);
  });
});
