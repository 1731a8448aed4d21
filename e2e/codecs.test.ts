/** Live streams in other codecs than H.264 and AAC, published as Enhanced RTMP v2 by a client of our own. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, inject, it } from 'vitest';
import { encode, enhancedMessages } from '../packages/media/test/encoded-stream.ts';
import { launchChromium } from './browser.ts';
import { ffmpegComplaints, run, until } from './network.ts';
import { addStream, publish } from './publisher.ts';

const { site, rtmp, dataDir } = inject('shared');
const scratch = mkdtempSync(join(tmpdir(), 'starling-codecs-'));
const publishers: (() => void)[] = [];
afterEach(() => {
  for (const close of publishers.splice(0)) close();
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const CLIP_SECONDS = 30;

describe.each([
  { video: 'av1WithoutConfig', audio: 'opus', ffprobe: ['av1', 'opus'], playsInChromium: true },
  { video: 'vp9', audio: 'flac', ffprobe: ['vp9', 'flac'], playsInChromium: true },
  { video: 'hevc', audio: 'eac3', ffprobe: ['hevc', 'eac3'], playsInChromium: false },
] as const)('$video and $audio', ({ video, audio, ffprobe, playsInChromium }) => {
  it('come out as HLS that FFmpeg plays without a warning, and Chromium where it knows the codecs', async () => {
    const name = `codecs-${ffprobe.join('-')}`;
    const streams = [video, audio].map((codec) =>
      encode(codec, scratch, { durationSeconds: CLIP_SECONDS, size: '320x180' }),
    );
    const messages = streams.flatMap(enhancedMessages).toSorted((a, b) => a.timestampMs - b.timestampMs);
    const key = await addStream(dataDir, name);
    publishers.push(await publish(rtmp, { name, key }, messages));

    const playlist = `${site}/live/${name}/index.m3u8`;
    const multivariant = await until('HLS', 10_000, async () => {
      const response = await fetch(playlist);
      return response.ok ? response.text() : void (await response.body?.cancel());
    });
    const probed = await run('ffprobe', [
      ...['-v', 'error', '-show_entries', 'stream=codec_name', '-of', 'csv=p=0', playlist],
    ]);
    expect(
      new Set(
        probed.stdout
          .trim()
          .split(/[\s,]+/)
          .filter((codec) => codec !== ''),
      ),
    ).toEqual(new Set(ffprobe));
    expect(await ffmpegComplaints(playlist, 4)).toBe('');

    const codecs = /CODECS="([^"]+)"/.exec(multivariant)?.[1];
    const browser = await launchChromium();
    try {
      const page = await browser.newPage();
      await page.goto(`${site}/watch/${name}`);
      const isSupported = await page.evaluate(
        (type) => MediaSource.isTypeSupported(type),
        `video/mp4; codecs="${codecs}"`,
      );
      expect(isSupported).toBe(playsInChromium);
      if (!playsInChromium) return;
      await page.waitForFunction(() => (document.querySelector('video')?.currentTime ?? 0) > 1, undefined, {
        timeout: 15_000,
      });
      const read = () =>
        page.evaluate(() => {
          const element = document.querySelector('video');
          return {
            mediaS: element?.currentTime ?? 0,
            wallS: performance.now() / 1000,
            widthPx: element?.videoWidth,
          };
        });
      await page.waitForTimeout(1000); // past the start-up seek to the live edge
      const before = await read();
      await page.waitForTimeout(4000);
      const after = await read();
      expect((after.mediaS - before.mediaS) / (after.wallS - before.wallS)).toBeGreaterThan(0.9);
      expect(after.widthPx).toBe(320);
    } finally {
      await browser.close();
    }
  });
});
