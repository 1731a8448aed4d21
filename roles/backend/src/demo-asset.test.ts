import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { AssetFacts } from '@starling/model/schedule';
import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { ffmpeg } from '../test/flash-and-beep.ts';
import { FRAME_STRIP, importTestCard, TEST_CARD_FRAME_COUNT, testCard } from './demo-asset.ts';
import { BackendError } from './error.ts';
import { Library } from './library.ts';

const options = () => ({ signal: new AbortController().signal, onProgress: () => {} });

describe('the test card', { timeout: 120_000 }, () => {
  let dir: string;
  let facts: AssetFacts;
  let path: string;

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'starling-test-card-'));
    const library = new Library({ mediaDir: dir, logger: pino({ level: 'silent' }) });
    await library.open();
    facts = await importTestCard(library, options());
    path = join(dir, facts.contentHash, 'video.mp4');
  }, 120_000);

  afterAll(async () => {
    await rm(dir, { recursive: true });
  });

  it('lasts 32 s in 16 segments', () => {
    expect(facts).toMatchObject({ durationTicks: 32 * 90_000, segmentCount: 16, frameRate: 25 });
  });

  it('carries its frame number in every picture', async () => {
    const { bits, leftPx, pitchPx, centreYPx, sizePx } = FRAME_STRIP;
    expect(leftPx).toBe(pitchPx / 2); // so that each square is in the middle of its share of the width
    const height = sizePx / 2;
    const levels = await ffmpeg(
      ['-i', path],
      `-map 0:v -vf crop=${bits * pitchPx}:${height}:0:${centreYPx - height / 2},scale=${bits}:1:flags=area,format=gray`,
      '-fps_mode passthrough -f rawvideo -',
    );
    expect(levels).toHaveLength(TEST_CARD_FRAME_COUNT * bits);
    const numbers = Array.from({ length: TEST_CARD_FRAME_COUNT }, (_, frame) =>
      levels
        .subarray(frame * bits, (frame + 1) * bits)
        .reduce((sum, level, bit) => sum + (level > 60 ? 2 ** bit : 0), 0),
    );
    expect(numbers).toEqual(Array.from({ length: TEST_CARD_FRAME_COUNT }, (_, frame) => frame));
  });

  it('flashes and beeps at the start of every second', async () => {
    const levels = await ffmpeg(
      ['-i', path],
      '-map 0:v -vf crop=32:32:1068:152,scale=1:1:flags=area,format=gray -fps_mode passthrough -f rawvideo -',
    );
    const flashes = [...levels].flatMap((level, frame) => (level > 120 ? [frame] : []));
    expect(flashes).toEqual(Array.from({ length: 32 }, (_, second) => [25 * second, 25 * second + 1]).flat());

    const bytes = await ffmpeg(['-i', path], '-map 0:a -ac 1 -f f32le -');
    const samples = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    const peak = (from: number, to: number) =>
      samples
        .subarray(from * 48_000, to * 48_000)
        .reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    for (let second = 0; second < 32; second++) {
      // The first 10 ms of all are faded in.
      expect(peak(second + 0.012, second + 0.07)).toBeGreaterThan(0.15);
      expect(peak(second + 0.1, second + 0.97)).toBeLessThan(0.15);
    }
    expect(peak(31.97, 32)).toBeLessThan(0.005); // no click where it loops
  });

  it('can be drawn without fonts', async () => {
    await ffmpeg([...testCard({ hasText: false }).args], '-t 0.1 -f null -');
  });
});

describe('importTestCard', () => {
  it('does without words where FFmpeg cannot write them', async () => {
    const importFrom = vi.spyOn(Library.prototype, 'importFrom').mockImplementation(async ({ args }) => {
      if (args.join(' ').includes('drawtext')) {
        throw new BackendError('IMPORT_FFMPEG_FAILED', 'FFmpeg could not convert it: no font.');
      }
      throw new BackendError('IMPORT_DISK_FULL', 'The disk is full.');
    });
    const library = new Library({ mediaDir: '/nowhere', logger: pino({ level: 'silent' }) });
    await expect(importTestCard(library, options())).rejects.toMatchObject({ code: 'IMPORT_DISK_FULL' });
    expect(importFrom).toHaveBeenCalledTimes(2);
    importFrom.mockRestore();
  });
});
