/** The files in `fixtures/` that fuzzing starts from and leaves behind, and the manifest that lists them. */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export interface ManifestEntry {
  /** From `fixtures/`. */
  readonly path: string;
  readonly origin: string;
  readonly licence: string;
  readonly sha256: string;
}

export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** The rows of `MANIFEST.md`: `| path | origin | licence | sha256 |`. */
export function readManifest(fixtures: string): ManifestEntry[] {
  const rows = readFileSync(join(fixtures, 'MANIFEST.md'), 'utf8').matchAll(
    /^\| `([^`]+)` \| (.+) \| (.+) \| `([0-9a-f]{64})` \|$/gm,
  );
  return [...rows].map(([, path = '', origin = '', licence = '', hash = '']) => ({
    path,
    origin,
    licence,
    sha256: hash,
  }));
}

/** Every file below `fixtures/` but the manifest, sorted. */
export function fixtureFiles(fixtures: string): string[] {
  return readdirSync(fixtures, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name !== 'MANIFEST.md')
    .map((entry) => join(entry.parentPath, entry.name).slice(fixtures.length + 1))
    .sort();
}

/** The corpus of a target, smallest first. */
export function readCorpus(fixtures: string, target: string): { path: string; bytes: Uint8Array }[] {
  const folder = join('corpus', target);
  if (!existsSync(join(fixtures, folder))) return [];
  return readdirSync(join(fixtures, folder))
    .map((name) => ({
      path: join(folder, name),
      bytes: Uint8Array.from(readFileSync(join(fixtures, folder, name))),
    }))
    .sort((a, b) => a.bytes.length - b.bytes.length || (a.path < b.path ? -1 : 1));
}

/** Writes inputs under the names that follow from their bytes, with their lines in the manifest. @returns the paths */
export function addFixtures(
  fixtures: string,
  folder: string,
  inputs: readonly Uint8Array[],
  origin: string,
): string[] {
  mkdirSync(join(fixtures, folder), { recursive: true });
  const entries = new Map(readManifest(fixtures).map((entry) => [entry.path, entry]));
  const paths = inputs.map((bytes) => {
    const hash = sha256(bytes);
    const path = join(folder, hash.slice(0, 12));
    if (entries.has(path)) return path;
    writeFileSync(join(fixtures, path), bytes);
    const text = origin.replace(/[|\s]+/g, ' ').slice(0, 160);
    entries.set(path, { path, origin: text, licence: 'Apache-2.0', sha256: hash });
    return path;
  });
  writeManifest(fixtures, [...entries.values()]);
  return paths;
}

export function removeFixtures(fixtures: string, paths: readonly string[]): void {
  for (const path of paths) rmSync(join(fixtures, path));
  writeManifest(
    fixtures,
    readManifest(fixtures).filter((entry) => !paths.includes(entry.path)),
  );
}

/** Replaces the rows of the manifest and leaves the text above them. */
function writeManifest(fixtures: string, entries: readonly ManifestEntry[]): void {
  const path = join(fixtures, 'MANIFEST.md');
  const text = readFileSync(path, 'utf8');
  const head = text.slice(0, text.indexOf('| --- |'));
  const rows = entries
    .toSorted((a, b) => (a.path < b.path ? -1 : 1))
    .map((entry) => `| \`${entry.path}\` | ${entry.origin} | ${entry.licence} | \`${entry.sha256}\` |\n`);
  writeFileSync(path, `${head}| --- | --- | --- | --- |\n${rows.join('')}`);
}
