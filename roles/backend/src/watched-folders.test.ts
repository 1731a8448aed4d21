import { appendFile, mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { FolderReport } from '@starling/model/library';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { WatchedFolders } from './watched-folders.ts';

let dir: string;
let nowMs: number;
let reported: string[];
let isCoordinatorUp: boolean;
let watched: WatchedFolders;

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'starling-watched-'));
  nowMs = 0;
  reported = [];
  isCoordinatorUp = true;
  watched = new WatchedFolders({
    coordinator: {
      async reportFolder(folderId: string, { files }: FolderReport) {
        if (!isCoordinatorUp) throw new Error('The coordinator does not answer.');
        for (const { path } of files) reported.push(`${folderId} ${path.slice(dir.length + 1)}`);
      },
    },
    logger: pino({ level: 'silent' }),
    mediaDir: join(dir, 'media'),
    intervalMs: 1_000_000, // looks are taken by hand
    settleMs: 10_000,
    nowMs: () => nowMs,
  });
});

afterEach(async () => {
  await watched.close();
  await rm(dir, { recursive: true });
});

const watch = (isRecursive = false) =>
  watched.setFolders([{ id: 'f', path: dir, isRecursive, createdAt: '2026-11-22T00:00:00.000Z' }]);

/** Looks, 5 s after the last look. */
async function look(): Promise<string[]> {
  nowMs += 5000;
  await watched.look();
  return reported.splice(0);
}

describe('a watched folder', () => {
  it('reports a file once, when it has been the same for ten seconds', async () => {
    watch();
    await writeFile(join(dir, 'film.mp4'), 'part');
    expect(await look()).toEqual([]);
    expect(await look()).toEqual([]);
    await appendFile(join(dir, 'film.mp4'), ', another part');
    expect(await look()).toEqual([]);
    expect(await look()).toEqual([]);
    expect(await look()).toEqual(['f film.mp4']);
    expect(await look()).toEqual([]);
  });

  it('reports a file again that was replaced, and one that was renamed from a temporary name', async () => {
    watch();
    await writeFile(join(dir, 'film.mp4'), 'one');
    await writeFile(join(dir, 'copy.mkv.part'), 'x');
    await Promise.all([look(), look()]);
    await look();
    reported = [];
    await rm(join(dir, 'film.mp4'));
    await look();
    await writeFile(join(dir, 'film.mp4'), 'three');
    await rename(join(dir, 'copy.mkv.part'), join(dir, 'copy.mkv'));
    expect(await look()).toEqual([]);
    expect(await look()).toEqual([]);
    expect(await look()).toEqual(['f copy.mkv', 'f film.mp4']);
  });

  it('looks into folders below only when asked, and never into the store or hidden ones', async () => {
    for (const folder of ['below/deeper', 'media/abc', '.hidden']) {
      await mkdir(join(dir, folder), { recursive: true });
      await writeFile(join(dir, folder, 'film.mp4'), 'x');
    }
    for (const name of ['notes.txt', '.film.mp4', 'cover.jpg']) await writeFile(join(dir, name), 'x');
    watch();
    expect([await look(), await look(), await look()].flat()).toEqual([]);
    watch(true);
    expect([await look(), await look(), await look()].flat()).toEqual(['f below/deeper/film.mp4']);
  });

  it('reports again what the coordinator did not take', async () => {
    watch();
    await writeFile(join(dir, 'film.mp4'), 'x');
    isCoordinatorUp = false;
    expect([await look(), await look(), await look()].flat()).toEqual([]);
    isCoordinatorUp = true;
    expect(await look()).toEqual(['f film.mp4']);
  });

  it('may be away for a while', async () => {
    watched.setFolders([
      { id: 'gone', path: join(dir, 'disk'), isRecursive: false, createdAt: '2026-11-22T00:00:00.000Z' },
    ]);
    expect(await look()).toEqual([]);
    await mkdir(join(dir, 'disk'));
    await writeFile(join(dir, 'disk', 'film.mp4'), 'x');
    expect([await look(), await look(), await look()].flat()).toEqual(['gone disk/film.mp4']);
  });
});
