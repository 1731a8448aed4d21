/** Imports through a crash: many at once, a watched folder, and files that cannot become assets. */
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CoordinatorClient } from '@starling/model/client';
import type { Asset } from '@starling/model/entities';
import { afterAll, expect, inject, it } from 'vitest';
import { type Network, starling, startNetwork, until } from './network.ts';

const { dataDir: sharedDataDir } = inject('shared');
const scratch = mkdtempSync(join(tmpdir(), 'starling-imports-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const ffmpeg = (args: string, ...more: string[]) =>
  execFileSync('ffmpeg', ['-v', 'error', '-y', ...args.split(' '), ...more]);

/** A clip, and copies of it that end in a box of their own: cheap to make, each another asset. */
function makeClips(folder: string, count: number): void {
  mkdirSync(folder);
  const first = join(scratch, 'first.mp4');
  ffmpeg(
    '-f lavfi -i testsrc2=s=320x180:r=25:d=1 -f lavfi -i sine=d=1 -c:v libx264 -preset ultrafast',
    first,
  );
  const clip = readFileSync(first);
  for (let i = 0; i < count; i++) {
    const free = Buffer.from(`\0\0\0\x0cfree${String(i).padStart(4, '0')}`, 'latin1');
    writeFileSync(join(folder, `clip-${String(i).padStart(2, '0')}.mp4`), Buffer.concat([clip, free]));
  }
}

function clientOf({ site, dataDir }: Network): CoordinatorClient {
  const token = readFileSync(join(dataDir, 'operator.token'), 'utf8').trim();
  return new CoordinatorClient({ baseUrl: site, token });
}

const count = (assets: readonly Asset[], state: Asset['state']) =>
  assets.filter((asset) => asset.state === state && asset.name.startsWith('clip-')).length;

it('twenty imports and a watched folder outlive kill -9: each ends once, and nothing half-made is seen', async () => {
  const dataDir = join(scratch, 'data');
  mkdirSync(dataDir);
  const media = join(dataDir, 'media');
  const hashes = () => readdirSync(media).filter((name) => /^[0-9a-f]{64}$/.test(name));
  makeClips(join(scratch, 'clips'), 20);
  mkdirSync(join(scratch, 'watched'));
  writeFileSync(join(scratch, 'watched', 'dropped.mp4'), readFileSync(join(scratch, 'first.mp4')));

  const first = await startNetwork({ dataDir, mediaFrom: sharedDataDir });
  const settings = await starling(dataDir, ['media', 'settings', '--ladder', '240p']);
  expect(settings.exitCode).toBe(0);
  const watching = await starling(dataDir, ['media', 'import', '--watch', join(scratch, 'watched')]);
  expect(watching.exitCode).toBe(0);
  const waiting = starling(dataDir, ['media', 'import', join(scratch, 'clips')]);
  const client = clientOf(first);
  await until('some to be done and others to run', 60_000, async () => {
    const assets = await client.assets.list();
    return count(assets, 'ready') >= 3 && count(assets, 'importing') >= 1 ? true : undefined;
  });
  first.process.kill('SIGKILL');
  await once(first.process, 'exit');
  for (const hash of hashes()) {
    expect(existsSync(join(media, hash, 'video.mp4'))).toBe(true);
    JSON.parse(readFileSync(join(media, hash, 'asset.json'), 'utf8'));
  }
  const inode = (hash: string) => statSync(join(media, hash, 'video.mp4')).ino;
  const before = new Map(hashes().map((hash) => [hash, inode(hash)]));
  expect(before.size).toBeGreaterThan(3);

  const second = await startNetwork({ dataDir });
  try {
    await waiting; // it gave up when its Starling was gone
    const again = clientOf(second);
    const assets = await until('all to be done', 120_000, async () => {
      const all = await again.assets.list();
      expect(count(all, 'failed')).toBe(0);
      const isDropped = all.some(({ name, state }) => name === 'dropped' && state === 'ready');
      return count(all, 'ready') === 20 && isDropped ? all : undefined;
    });
    const clips = assets.filter(({ name }) => name.startsWith('clip-'));
    expect(clips).toHaveLength(20);
    expect(new Set(clips.map(({ facts }) => facts?.contentHash)).size).toBe(20);
    const stored = assets.flatMap(({ facts }) => facts?.contentHash ?? []);
    expect(readdirSync(media).sort()).toEqual([...new Set(stored)].sort());
    // What was whole before the crash was not made again.
    expect(new Map([...before.keys()].map((hash) => [hash, inode(hash)]))).toEqual(before);
  } finally {
    await second.stop();
  }
});

it.each([
  [
    'encrypted with Common Encryption',
    'cenc.mp4',
    '-f lavfi -i testsrc2=s=64x64:r=25:d=1 -c:v libx264 -preset ultrafast -encryption_scheme cenc-aes-ctr -encryption_key 76a6c65c5ea762046bd749a2e632ccbb -encryption_kid a7e61c373e219033c21091fa607bf3b8',
    'is encrypted (DRM)',
  ],
  [
    'ten hours long',
    'ten-hours.mp4',
    '-f lavfi -i color=s=16x16:r=1/10:d=36000 -c:v libx264 -preset ultrafast',
    'is 10 h long',
  ],
])('says in one sentence why a file that is %s cannot be imported', async (_what, name, args, reason) => {
  const path = join(scratch, name);
  ffmpeg(args, path);
  const failed = await starling(sharedDataDir, ['media', 'import', path]);
  expect(failed.exitCode).toBe(1);
  expect(failed.stderr.trim().split('\n')).toHaveLength(1);
  expect(failed.stderr).toContain(reason);
});
