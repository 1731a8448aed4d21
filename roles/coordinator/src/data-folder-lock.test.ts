import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { lockDataFolder } from './data-folder-lock.ts';

const newFolder = () => mkdtempSync(join(tmpdir(), 'starling-lock-'));

it('keeps a second one off until it is released', async () => {
  const folder = newFolder();
  const lock = await lockDataFolder(folder);
  await expect(lockDataFolder(folder)).rejects.toThrow(/Another Starling uses the data folder .*--data/);
  await lock.release();
  await (await lockDataFolder(folder)).release();
});

it('takes over the lock of a process that was killed', async () => {
  const folder = newFolder();
  const hold = `require('node:net').createServer().listen(${JSON.stringify(join(folder, 'coordinator.lock'))},
    () => process.kill(process.pid, 'SIGKILL'))`;
  expect(spawnSync(process.execPath, ['-e', hold]).signal).toBe('SIGKILL');
  await (await lockDataFolder(folder)).release();
});

it('locks a folder whose path is too long for a socket', async () => {
  const folder = join(newFolder(), 'x'.repeat(120));
  mkdirSync(folder);
  const lock = await lockDataFolder(folder);
  await expect(lockDataFolder(folder)).rejects.toThrow(/Another Starling/);
  await lock.release();
});
