/**
 * Builds what runs: the `starling` program (esbuild: our TypeScript in one file, npm packages left
 * outside) and the web site (Vite). Only when a source file is newer than the last build.
 */
import { copyFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const sourceFolders = {
  program: ['packages', 'roles', 'apps/cli', 'ops', 'tools'],
  site: ['apps/web', 'packages/model', 'packages/peer'],
};

/** Time of the last change below the folders, in milliseconds; build output and packages left out. */
function newestChangeMs(folders) {
  let newestMs = 0;
  const visit = (path) => {
    const stat = statSync(path, { throwIfNoEntry: false });
    if (stat === undefined) return;
    newestMs = Math.max(newestMs, stat.mtimeMs);
    if (!stat.isDirectory()) return;
    for (const name of readdirSync(path))
      if (name !== 'node_modules' && name !== 'dist') visit(join(path, name));
  };
  for (const folder of folders) visit(join(root, folder));
  visit(join(root, 'package-lock.json'));
  return newestMs;
}

function isStale(stampPath, folders) {
  const stamp = statSync(stampPath, { throwIfNoEntry: false });
  return stamp === undefined || stamp.mtimeMs < newestChangeMs(folders);
}

/** Builds the program and the site where their sources changed. */
export async function ensureBuilt() {
  const programStamp = join(root, 'dist', '.built');
  if (isStale(programStamp, sourceFolders.program)) {
    const { build } = await import('esbuild');
    rmSync(join(root, 'dist'), { recursive: true, force: true });
    const options = {
      absWorkingDir: root,
      outdir: 'dist',
      bundle: true,
      platform: 'node',
      target: 'node20',
      format: 'esm',
      sourcemap: true,
      logLevel: 'warning',
      plugins: [
        {
          // Ours is bundled; what npm installed stays outside.
          name: 'npm-packages-outside',
          setup(esbuild) {
            esbuild.onResolve({ filter: /^[^./]/ }, ({ path, kind }) =>
              kind === 'entry-point' || path.startsWith('@starling/') ? undefined : { path, external: true },
            );
          },
        },
      ],
    };
    // What is imported while the program runs goes to files of its own: a role loads what it needs, and no more.
    await build({
      ...options,
      entryPoints: {
        starling: 'apps/cli/src/main.ts',
        'frontend-worker': 'apps/cli/src/frontend-worker.ts',
      },
      splitting: true,
    });
    await build({ ...options, entryPoints: { bench: 'tools/bench/main.ts', fuzz: 'tools/fuzz.ts' } });
    // A worker thread starts from a file of its own.
    copyFileSync(
      join(root, 'roles/coordinator/src/database-worker.mjs'),
      join(root, 'dist/database-worker.mjs'),
    );
    writeFileSync(programStamp, '');
  }
  const siteStamp = join(root, 'apps', 'web', 'dist', '.built');
  if (isStale(siteStamp, sourceFolders.site)) {
    const { build } = await import('vite');
    await build({ root: join(root, 'apps', 'web'), logLevel: 'warn' });
    writeFileSync(siteStamp, '');
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await ensureBuilt();
