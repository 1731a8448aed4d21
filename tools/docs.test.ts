/** The documents tell the truth: links lead somewhere, and the errors are all listed. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { backendErrorCatalogue } from '@starling/backend/error';
import { problemCatalogue } from '@starling/coordinator/problem';
import { operateErrorCatalogue } from '@starling/infra/operate/error';
import { mediaErrorCatalogue } from '@starling/media/error';
import { topologyErrorCatalogue } from '@starling/model/topology/error';
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
    const named = [...text.matchAll(/`((?:packages|roles|apps|ops|tools|docs|e2e)\/[\w./-]+\.\w+)`/g)].map(
      (match) => match[1] ?? '',
    );
    expect(named.length).toBeGreaterThan(10);
    expect(named.filter((path) => !existsSync(join(root, path)))).toEqual([]);
  });

  it.each([
    ['Media', Object.entries(mediaErrorCatalogue).map(([code, text]) => `\`${code}\` | ${text}`)],
    ['Backend', Object.entries(backendErrorCatalogue).map(([code, text]) => `\`${code}\` | ${text}`)],
    ['Deployments', Object.entries(topologyErrorCatalogue).map(([code, text]) => `\`${code}\` | ${text}`)],
    ['Operate', Object.entries(operateErrorCatalogue).map(([code, text]) => `\`${code}\` | ${text}`)],
    [
      'API',
      Object.entries(problemCatalogue).map(([code, [status, title]]) => `\`${code}\` | ${status} | ${title}`),
    ],
  ])('docs/errors.md, %s: lists every coded error, and no other', (section, expected) => {
    const text = readFileSync(join(root, 'docs/errors.md'), 'utf8');
    const [, body = ''] = text.split(`\n## ${section}\n`);
    const rows = [...(body.split('\n## ')[0] ?? '').matchAll(/^\| (`[A-Z0-9_]+` .+) \|$/gm)].map(
      (match) => match[1],
    );
    expect(rows).toEqual(expected);
  });
});
