/**
 * The import rules of the design: who may import whom, and no cycles, type imports included.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');

const rolePackages = ['packages/media', 'packages/net', 'packages/model', 'packages/peer'];

/** What a workspace's sources may import from the others. Itself is always allowed. */
const allowedImports: Record<string, readonly string[]> = {
  'packages/media': [],
  'packages/model': [],
  'packages/net': ['packages/media'],
  'packages/peer': ['packages/model'],
  'roles/backend': rolePackages,
  'roles/frontend': rolePackages,
  'roles/balancer': rolePackages,
  'roles/coordinator': rolePackages,
  'roles/relay': rolePackages,
  'apps/web': ['packages/model', 'packages/peer'],
  'apps/cli': [
    'packages/media',
    'packages/net',
    'packages/model',
    'roles/backend',
    'roles/frontend',
    'roles/balancer',
    'roles/coordinator',
    'roles/relay',
    'ops/infra',
  ],
  'ops/infra': ['packages/model'],
  'ops/lab': ['packages/model'],
};

interface Import {
  readonly from: string;
  readonly specifier: string;
  /** Path of the imported file from the root; undefined for an npm package or a Node module. */
  readonly target: string | undefined;
}

function sourceFiles(folder: string): string[] {
  return readdirSync(join(root, folder), { withFileTypes: true, recursive: true })
    .filter(
      (entry) => entry.isFile() && /\.(ts|tsx|mjs)$/.test(entry.name) && !/\.test\.tsx?$/.test(entry.name),
    )
    .map((entry) => relative(root, join(entry.parentPath, entry.name)))
    .filter((path) => /\/src\//.test(path) && !/node_modules|\/dist\//.test(path));
}

function importsOf(path: string): Import[] {
  const code = readFileSync(join(root, path), 'utf8')
    .replace(/\/\*[\s\S]*?\*\//g, '')
    .replace(/^\s*\/\/.*$/gm, '');
  const specifiers = [
    ...code.matchAll(/\b(?:import|export)\b[^'"`;]*?\bfrom\s*['"]([^'"]+)['"]/g),
    ...code.matchAll(/\bimport\s*\(?\s*['"]([^'"]+)['"]/g),
  ].map((match) => match[1] ?? '');
  return specifiers.map((specifier) => ({ from: path, specifier, target: targetOf(path, specifier) }));
}

function targetOf(path: string, specifier: string): string | undefined {
  if (specifier.startsWith('.')) return relative(root, resolve(root, dirname(path), specifier));
  const ours = /^@starling\/([^/]+)\/(.+)$/.exec(specifier);
  if (ours === null) return undefined;
  const workspace = Object.keys(allowedImports).find((name) => name.endsWith(`/${ours[1]}`));
  return workspace === undefined ? undefined : `${workspace}/src/${ours[2]}.ts`;
}

const workspaceOf = (path: string) => path.split('/').slice(0, 2).join('/');

const imports = ['packages', 'roles', 'apps', 'ops'].flatMap(sourceFiles).flatMap(importsOf);

describe('the import rules of the design', () => {
  it('finds the sources', () => {
    expect(new Set(imports.map((one) => workspaceOf(one.from))).size).toBeGreaterThanOrEqual(7);
  });

  it('lets each workspace import only what it may', () => {
    const broken = imports.filter(({ from, target }) => {
      if (target === undefined || workspaceOf(target) === workspaceOf(from)) return false;
      return !(allowedImports[workspaceOf(from)] ?? []).includes(workspaceOf(target));
    });
    expect(broken.map(({ from, specifier }) => `${from} imports ${specifier}`)).toEqual([]);
  });

  it('keeps the media package pure: no Node modules, no npm packages', () => {
    const impure = imports.filter(
      ({ from, target }) => workspaceOf(from) === 'packages/media' && target === undefined,
    );
    expect(impure.map(({ from, specifier }) => `${from} imports ${specifier}`)).toEqual([]);
  });

  it('loads the AWS SDK only when a command needs it', () => {
    const eager = ['ops', 'apps'].flatMap(sourceFiles).filter((path) => {
      const code = readFileSync(join(root, path), 'utf8');
      return /^import (?!type\b)[^;]*?from '@aws-sdk\//m.test(code);
    });
    expect(eager).toEqual([]);
  });

  it('has no import cycle, type imports included', () => {
    const graph = new Map<string, string[]>();
    for (const { from, target } of imports) {
      if (target !== undefined) graph.set(from, [...(graph.get(from) ?? []), target]);
    }
    const done = new Set<string>();
    const visit = (path: string, trail: readonly string[]): string[] | undefined => {
      if (trail.includes(path)) return [...trail.slice(trail.indexOf(path)), path];
      if (done.has(path)) return undefined;
      for (const next of graph.get(path) ?? []) {
        const cycle = visit(next, [...trail, path]);
        if (cycle !== undefined) return cycle;
      }
      done.add(path);
      return undefined;
    };
    for (const path of graph.keys()) expect(visit(path, [])).toBeUndefined();
  });
});
