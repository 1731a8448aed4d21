/**
 * Makes the release: what runs on a host or in a container, in one folder, with the Node that it runs on.
 *
 *   node tools/release.mjs FOLDER [ARCHIVE.tar.gz]
 *
 * FOLDER gets bin/ (`starling`, `starling-health`, `starling-container.mjs`, `node`), dist/, the site, the documents and the npm
 * packages that roles need, at the versions of package-lock.json. ARCHIVE gets the same, and ARCHIVE.sha256 its hash,
 * for `infra` and Ansible.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ensureBuilt } from './build.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
/** Commands for AWS load them, and those are run where the operator is. */
const operatorPackages = ['aws-cdk-lib', '@aws-cdk', 'constructs', '@aws-sdk', '@smithy'];

const [folderArgument, archive] = process.argv.slice(2);
if (folderArgument === undefined) {
  process.stderr.write('Usage: node tools/release.mjs FOLDER [ARCHIVE.tar.gz]\n');
  process.exit(2);
}
const folder = resolve(folderArgument);
if (existsSync(folder) && readdirSync(folder).length > 0) {
  process.stderr.write(`${folder} is not empty: give a new folder.\n`);
  process.exit(2);
}
await ensureBuilt();
mkdirSync(join(folder, 'bin'), { recursive: true });
for (const name of ['package.json', 'package-lock.json', 'LICENSE', 'dist', 'docs', 'apps/web/dist'])
  cpSync(join(root, name), join(folder, name), {
    recursive: true,
    filter: (path) => !/^(bench|fuzz)\.js/.test(basename(path)),
  });
for (const group of ['packages', 'roles', 'apps', 'ops'])
  for (const one of readdirSync(join(root, group))) {
    const path = join(group, one, 'package.json');
    if (existsSync(join(root, path))) cpSync(join(root, path), join(folder, path));
  }
execFileSync(
  'npm',
  [
    'ci',
    '--omit=dev',
    '--no-audit',
    '--no-fund',
    '--loglevel=error',
    '-w',
    'apps/cli',
    '--include-workspace-root=false',
  ],
  { cwd: folder, stdio: ['ignore', 'inherit', 'inherit'] },
);
for (const name of operatorPackages)
  rmSync(join(folder, 'node_modules', name), { recursive: true, force: true });

cpSync(process.execPath, join(folder, 'bin', 'node'));
for (const name of ['starling', 'starling-health', 'starling-container.mjs']) {
  cpSync(join(root, 'ops', 'container', name), join(folder, 'bin', name));
  chmodSync(join(folder, 'bin', name), 0o755);
}

if (archive !== undefined) {
  const order = ['--sort=name', '--mtime=@0', '--owner=0', '--group=0', '--numeric-owner'];
  execFileSync('tar', [...order, '-czf', resolve(archive), '-C', folder, '.']);
  const hash = createHash('sha256').update(readFileSync(archive)).digest('hex');
  writeFileSync(`${archive}.sha256`, `${hash}  ${basename(archive)}\n`);
}
