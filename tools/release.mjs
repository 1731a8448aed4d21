#!/usr/bin/env node
/**
 * Packs what a host of the cloud, or a container, runs into one file: the built program and site, the npm packages that it needs, Node
 * itself. Needs no network.
 *
 *   node tools/release.mjs [FILE]       dist/starling.tar.gz, and beside it its SHA-256
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ensureBuilt } from './build.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');

/** Only commands that speak to AWS load them, and those run where the operator is. */
const operatorPackages = ['aws-cdk-lib', '@aws-cdk', 'constructs', '@aws-sdk', '@smithy'];

function fail(text) {
  process.stderr.write(`release: ${text}\n`);
  process.exit(2);
}

function runOrFail(command, args, cwd) {
  const { status, stderr, error } = spawnSync(command, args, { cwd, encoding: 'utf8' });
  if (status !== 0) fail(`${command} ${args[0]} failed: ${error?.message ?? stderr}`);
}

if (process.platform !== 'linux' || process.arch !== 'x64') {
  fail(
    `hosts run Linux on x86-64, and this is ${process.platform} on ${process.arch}: Node would not start there.`,
  );
}
await ensureBuilt();

// Beside the packages, so that they can be linked instead of copied.
const stage = mkdtempSync(join(root, '.release-'));
try {
  const folders = ['packages', 'roles', 'apps', 'ops'].flatMap((kind) =>
    readdirSync(join(root, kind), { withFileTypes: true }).map(({ name }) => join(kind, name)),
  );
  for (const path of ['package.json', 'package-lock.json', 'LICENSE'])
    copyFileSync(join(root, path), join(stage, path));
  for (const folder of folders) {
    mkdirSync(join(stage, folder), { recursive: true });
    try {
      copyFileSync(join(root, folder, 'package.json'), join(stage, folder, 'package.json'));
    } catch {
      // not a workspace
    }
  }
  runOrFail('cp', ['-al', join(root, 'node_modules'), join(stage, 'node_modules')]);
  // The one file that npm writes over instead of replacing: as a link it would be ours.
  rmSync(join(stage, 'node_modules/.package-lock.json'), { force: true });
  runOrFail(
    'npm',
    ['prune', '--omit=dev', '--ignore-scripts', '--no-audit', '--no-fund', '--offline'],
    stage,
  );
  for (const name of operatorPackages)
    rmSync(join(stage, 'node_modules', name), { recursive: true, force: true });
  mkdirSync(join(stage, 'dist'));
  for (const name of readdirSync(join(root, 'dist'))) {
    if (/\.m?js(\.map)?$/.test(name) && !/^(bench|fuzz)\./.test(name)) {
      copyFileSync(join(root, 'dist', name), join(stage, 'dist', name));
    }
  }
  cpSync(join(root, 'apps/web/dist'), join(stage, 'apps/web/dist'), { recursive: true });
  cpSync(join(root, 'docs'), join(stage, 'docs'), { recursive: true });
  mkdirSync(join(stage, 'bin'));
  copyFileSync(process.execPath, join(stage, 'bin/node'));
  writeFileSync(
    join(stage, 'bin/starling'),
    '#!/bin/sh\nhere=$(dirname "$(readlink -f "$0")")\nexec "$here/node" --enable-source-maps "$here/../dist/starling.js" "$@"\n',
  );
  for (const name of ['starling-health', 'starling-container.mjs'])
    copyFileSync(join(root, 'ops/container', name), join(stage, 'bin', name));
  for (const name of ['node', 'starling', 'starling-health']) chmodSync(join(stage, 'bin', name), 0o755);

  const file = resolve(process.argv[2] ?? join(root, 'dist/starling.tar.gz'));
  runOrFail('tar', ['-czf', file, '--owner=0', '--group=0', '--numeric-owner', '-C', stage, '.']);
  const hash = createHash('sha256').update(readFileSync(file)).digest('hex');
  writeFileSync(`${file}.sha256`, `${hash}  ${basename(file)}\n`);
  process.stdout.write(`${file}\n${file}.sha256\n`);
} finally {
  rmSync(stage, { recursive: true, force: true });
}
