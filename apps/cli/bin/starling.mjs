#!/usr/bin/env node
/** `npx starling ...` in a checkout: builds what changed, then runs the program. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');
if (!existsSync(join(root, 'node_modules'))) {
  process.stderr.write('starling: the npm packages are missing. Run `npm start` once, or `npm ci`.\n');
  process.exit(2);
}
process.setSourceMapsEnabled(true);
const { ensureBuilt } = await import(join(root, 'tools', 'build.mjs'));
await ensureBuilt();
await import(join(root, 'dist', 'starling.js'));
