/** Programs of these tests that run in a process of their own, so that they can be killed. */
import { mkdirSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const here = dirname(fileURLToPath(import.meta.url));

/**
 * Bundles a program of this folder for Node.
 * @returns its path, in a folder that is the caller's to remove
 */
export async function bundleProgram(name: string): Promise<string> {
  const folder = join(
    here,
    '../../../node_modules/.cache',
    `starling-${basename(name, '.ts')}-${process.pid}`,
  );
  mkdirSync(folder, { recursive: true });
  await build({
    entryPoints: [join(here, name)],
    outdir: folder,
    bundle: true,
    platform: 'node',
    format: 'esm',
    logLevel: 'error',
    plugins: [
      {
        name: 'npm-packages-outside',
        setup(esbuild) {
          esbuild.onResolve({ filter: /^[^./]/ }, ({ path, kind }) =>
            kind === 'entry-point' || path.startsWith('@starling/') ? undefined : { path, external: true },
          );
        },
      },
    ],
  });
  return join(folder, name.replace(/\.ts$/, '.js'));
}
