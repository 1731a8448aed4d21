/** What was on: as a playlist of a stretch of time, from the start in hls.js, and rewound to on the site. */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { FRAME_STRIP } from '@starling/backend/demo-asset';
import * as hlsParser from 'hls-parser';
import type { Page } from 'playwright-core';
import { beforeAll, describe, expect, inject, it } from 'vitest';
import { launchChromium } from './browser.ts';
import { FRAME_MS, LOOP_MS, modulo, watchPictures } from './latency.ts';
import { ffmpegComplaints, run, until } from './network.ts';

const { site, dataDir } = inject('shared');
const live = `${site}/live/demo`;
const hlsJs = join(dirname(fileURLToPath(import.meta.url)), '../node_modules/hls.js/dist/hls.js');
const SEGMENT_MS = 2000;
const FRAMES_PER_SEGMENT = SEGMENT_MS / FRAME_MS;

/** Start of a showing of the test card, whose frame 0 is on then. */
let startsAtUnixMs: number;

interface Extent {
  readonly fromUnixMs: number;
  readonly toUnixMs: number;
}

async function extent(): Promise<Extent> {
  const answer = await fetch(`${live}/dvr.json`);
  const { from, to } = (await answer.json()) as { from: string; to: string };
  return { fromUnixMs: Date.parse(from), toUnixMs: Date.parse(to) };
}

/** The recording once there is so much of it. */
const recordingOf = (seconds: number) =>
  until('the recording', (seconds + 20) * 1000, async () => {
    const { fromUnixMs, toUnixMs } = await extent();
    return toUnixMs - fromUnixMs >= seconds * 1000 ? { fromUnixMs, toUnixMs } : undefined;
  });

/** Number of the test card's frame that is on at a time. */
const frameAt = (unixMs: number) => Math.floor(modulo(unixMs - startsAtUnixMs, LOOP_MS) / FRAME_MS);

beforeAll(async () => {
  const channel = await (await fetch(`${site}/api/v1/public/channels/demo`)).json();
  startsAtUnixMs = Date.parse((channel as { now: { startsAt: string } }).now.startsAt);
});

describe('a stretch of time that is over', () => {
  it('plays exactly the pictures of that time', async () => {
    const { toUnixMs } = await recordingOf(14);
    const fromUnixMs = toUnixMs - 11_500;
    const url = `${live}/vod.m3u8?from=${fromUnixMs / 1000}&to=${toUnixMs / 1000 - 1.5}`;
    const [variant] = [...(await (await fetch(url)).text()).matchAll(/^main\/vod\.m3u8\?.+$/gm)];
    const playlist = hlsParser.parse(await (await fetch(`${live}/${variant?.[0]}`)).text());
    if (!('segments' in playlist)) throw new Error('taken for a multivariant playlist');
    expect(playlist).toMatchObject({ playlistType: 'VOD', endlist: true, start: { offset: 0.5 } });
    const firstUnixMs = playlist.segments[0]?.programDateTime?.getTime() ?? 0;
    expect(firstUnixMs).toBe(toUnixMs - 12_000);
    expect(playlist.segments).toHaveLength(6);

    const probed = await run('ffprobe', [
      ...'-v error -count_frames -select_streams v -show_entries stream=nb_read_frames -of csv=p=0'.split(
        ' ',
      ),
      url,
    ]);
    expect(Number(probed.stdout.trim().split('\n')[0])).toBe(6 * FRAMES_PER_SEGMENT);
    expect(await firstFrame(url)).toBe(frameAt(firstUnixMs));
    expect(await ffmpegComplaints(url, 12)).toBe('');
  });

  it('has on disk the bytes that its segments have live', async () => {
    const { toUnixMs } = await recordingOf(14);
    const media = await (await fetch(`${live}/main/vod.m3u8?from=${toUnixMs / 1000 - 4}`)).text();
    const number = /^(\d+)\.m4s$/m.exec(media)?.[1];
    const folder = join(dataDir, 'dvr', 'demo', 'main');
    const file = readdirSync(folder).find((name) => name.split('-')[1] === number && name.endsWith('.m4s'));
    const answer = await fetch(`${live}/main/${number}.m4s`);
    expect(readFileSync(join(folder, file ?? '')).equals(Buffer.from(await answer.arrayBuffer()))).toBe(true);
  });
});

describe('a programme that goes on', () => {
  it('plays in hls.js from its start, while it grows', async () => {
    const { toUnixMs } = await recordingOf(14);
    const fromUnixMs = toUnixMs - 9000;
    await inPage(async (page) => {
      await page.goto(`${site}/healthz`);
      await page.addScriptTag({ path: hlsJs });
      await page.setContent('<video muted></video>');
      await page.evaluate(
        loadWithHlsJs,
        `${live}/vod.m3u8?from=${fromUnixMs / 1000}&to=${fromUnixMs / 1000 + 60}`,
      );
      await page.waitForFunction(() => (document.querySelector('video')?.readyState ?? 0) >= 3);
      const watched = watchPictures(page, 3000);
      await page.evaluate(() => document.querySelector('video')?.play());
      const { pictures } = await watched;
      // The first picture that is shown may be the second.
      expect(modulo((pictures[0]?.frame ?? -1) - frameAt(fromUnixMs), LOOP_MS / FRAME_MS)).toBeLessThan(5);
      expect(pictures.length).toBeGreaterThan(30);
      const count = await page.evaluate(fragmentCount);
      await until('the playlist to grow', 10_000, async () =>
        (await page.evaluate(fragmentCount)) > count ? true : undefined,
      );
    });
  });
});

describe('on the site', () => {
  it('the viewer goes back, pauses, resumes there, and returns to live', async () => {
    await recordingOf(30);
    await inPage(async (page) => {
      const asked: string[] = [];
      page.on('request', (request) => asked.push(request.url()));
      await page.goto(`${site}/watch/demo?via=flv`);
      const isInState = (state: string) =>
        page.waitForSelector(`[data-state="${state}"]`, { timeout: 20_000 });
      const slider = page.getByRole('slider', { name: 'Time' });
      await isInState('playing');
      await slider.waitFor();
      await page.getByRole('heading', { level: 1 }).click();
      for (let step = 0; step < 2; step += 1) await page.keyboard.press('ArrowLeft');
      await until('the recording to be asked for', 5000, () =>
        asked.some((url) => url.includes('/main/dvr.m3u8')) ? true : undefined,
      );
      await isInState('playing');
      const { pictures } = await watchPictures(page, 1000);
      const behindMs = (shown: (typeof pictures)[number] | undefined) =>
        modulo((shown?.shownAtUnixMs ?? 0) - startsAtUnixMs - (shown?.frame ?? 0) * FRAME_MS, LOOP_MS);
      // A second behind live, and two steps of 10 s; the loop is 32 s.
      expect(behindMs(pictures.at(-1))).toBeGreaterThan(20_000);

      await page.keyboard.press('k');
      await isInState('paused');
      const stoppedAt = await page.evaluate(currentTime);
      await page.waitForTimeout(3000);
      await page.keyboard.press('k');
      await isInState('playing');
      expect((await page.evaluate(currentTime)) - stoppedAt).toBeLessThan(2);
      expect(await slider.getAttribute('aria-valuetext')).toMatch(/^\d\d:\d\d:\d\d, 0:2\d behind live$/);

      await page.getByRole('button', { name: 'Go live' }).click();
      await until('the slider to be at its end', 10_000, async () =>
        (await slider.getAttribute('aria-valuetext'))?.endsWith('Live') ? true : undefined,
      );
      await isInState('playing');
      const again = await watchPictures(page, 1000);
      expect(behindMs(again.pictures.at(-1))).toBeLessThan(8000);
    });
  });
});

async function inPage(use: (page: Page) => Promise<void>): Promise<void> {
  const browser = await launchChromium();
  try {
    const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
    const errors: string[] = [];
    page.on('pageerror', (error) => errors.push(error.message));
    await use(page);
    expect(errors).toEqual([]);
  } finally {
    await browser.close();
  }
}

/** The frame number in the strip of squares of the first picture, as FFmpeg decodes it. */
async function firstFrame(url: string): Promise<number> {
  const { bits, leftPx, pitchPx, centreYPx } = FRAME_STRIP;
  const line = `format=gray,crop=iw:1:0:${centreYPx}`;
  const args = ['-v', 'error', '-i', url, '-frames:v', '1', '-vf', line, '-f', 'rawvideo', '-y'];
  const path = join(dataDir, 'first-line.gray');
  await run('ffmpeg', [...args, path]);
  const luma = readFileSync(path);
  let frame = 0;
  for (let bit = 0; bit < bits; bit++) if ((luma[leftPx + bit * pitchPx] ?? 0) >= 128) frame += 2 ** bit;
  return frame;
}

/** What of hls.js's interface is used in the page. */
interface PageHls {
  loadSource(url: string): void;
  attachMedia(video: HTMLVideoElement): void;
  readonly latestLevelDetails: { readonly fragments: readonly unknown[] } | null;
}

declare global {
  interface Window {
    Hls: new () => PageHls;
    hls: PageHls | undefined;
  }
}

/** Runs in the page. */
function loadWithHlsJs(url: string): void {
  const video = document.querySelector('video');
  if (video === null) throw new Error('no video');
  const hls = new window.Hls();
  window.hls = hls;
  hls.loadSource(url);
  hls.attachMedia(video);
}

/** Runs in the page. */
function fragmentCount(): number {
  return window.hls?.latestLevelDetails?.fragments.length ?? 0;
}

/** Runs in the page. */
function currentTime(): number {
  return document.querySelector('video')?.currentTime ?? 0;
}
