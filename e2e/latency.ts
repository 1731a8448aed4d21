/**
 * Glass to glass: how long after its moment on the channel's timeline a picture is on the screen of
 * Chromium. The demo channel's test card carries its frame number in a strip of squares; each picture
 * that the browser shows is drawn to a canvas and its number read back.
 *
 * Server and browser run on one machine, so there is one clock.
 */
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { FRAME_STRIP, TEST_CARD_FRAME_COUNT } from '@starling/backend/demo-asset';
import type { Page } from 'playwright-core';
import type { Protocol } from '../apps/web/src/player/media-player.ts';
import { launchChromium } from './browser.ts';

export const FRAME_MS = 40;
export const LOOP_MS = TEST_CARD_FRAME_COUNT * FRAME_MS;
/** A square counts as white from here on, of 255. */
const WHITE_LUMA = 128;
const HLS_JS = join(dirname(fileURLToPath(import.meta.url)), '../node_modules/hls.js/dist/hls.js');

export interface MeasuredLatency {
  readonly medianMs: number;
  /** 19 of 20 pictures were no later. */
  readonly p95Ms: number;
  readonly pictureCount: number;
  /** How often playback ran dry while measuring. */
  readonly stallCount: number;
  readonly pageErrors: readonly string[];
}

/**
 * Watches the demo channel with the site's own player, or with hls.js as it plays HLS without low latency.
 * @param settleMs from the first picture on, before measuring: players find their place first
 */
export async function measureLatency(
  site: string,
  way: Protocol | 'plain-hls',
  times: { settleMs: number; measureMs: number },
): Promise<MeasuredLatency> {
  const response = await fetch(`${site}/api/v1/public/channels/demo`);
  const channel = (await response.json()) as { now: { startsAt: string } };
  const startsAtMs = Date.parse(channel.now.startsAt);
  const browser = await launchChromium();
  try {
    const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
    const pageErrors: string[] = [];
    page.on('pageerror', (error) => pageErrors.push(error.message));
    if (way === 'plain-hls') await playPlainHls(page, site);
    else await page.goto(`${site}/watch/demo?via=${way}`);
    await page.waitForFunction(() => (document.querySelector('video')?.currentTime ?? 0) > 0, undefined, {
      timeout: 20_000,
    });
    await page.waitForTimeout(times.settleMs);
    const seen = await watchPictures(page, times.measureMs);
    const latenciesMs = seen.pictures
      .map(({ frame, shownAtUnixMs }) => modulo(shownAtUnixMs - startsAtMs - frame * FRAME_MS, LOOP_MS))
      .sort((a, b) => a - b);
    const quantile = (share: number) => latenciesMs[Math.floor(share * latenciesMs.length)] ?? Number.NaN;
    return {
      medianMs: quantile(0.5),
      p95Ms: quantile(0.95),
      pictureCount: latenciesMs.length,
      stallCount: seen.stallCount,
      pageErrors,
    };
  } finally {
    await browser.close();
  }
}

async function playPlainHls(page: Page, site: string): Promise<void> {
  await page.goto(`${site}/healthz`);
  await page.addScriptTag({ path: HLS_JS });
  await page.evaluate(() => {
    const { Hls } = globalThis as unknown as { Hls: new (config: object) => PlainPlayer };
    const video = document.body.appendChild(document.createElement('video'));
    video.muted = true;
    const player = new Hls({ lowLatencyMode: false });
    player.loadSource('/live/demo/index.m3u8');
    player.attachMedia(video);
    void video.play();
  });
}

/** What is used here of hls.js. */
interface PlainPlayer {
  loadSource(url: string): void;
  attachMedia(element: HTMLVideoElement): void;
}

interface ReadingOptions {
  readonly measureMs: number;
  readonly bits: number;
  readonly leftPx: number;
  readonly pitchPx: number;
  readonly centreYPx: number;
  readonly whiteLuma: number;
}

interface Reading {
  readonly pictures: readonly { readonly frame: number; readonly shownAtUnixMs: number }[];
  readonly stallCount: number;
}

/** Reads the frame number off each picture of the test card that a page's video shows. */
export function watchPictures(page: Page, measureMs: number): Promise<Reading> {
  return page.evaluate(readPictures, { ...FRAME_STRIP, measureMs, whiteLuma: WHITE_LUMA });
}

/** Runs in the page. */
function readPictures(options: ReadingOptions): Promise<Reading> {
  const video = document.querySelector('video');
  const canvas = document.createElement('canvas');
  const context = canvas.getContext('2d', { willReadFrequently: true });
  if (video === null || context === null) throw new Error('no video to read pictures of');
  // One line through the middle of the squares is enough.
  canvas.width = video.videoWidth;
  canvas.height = 1;
  const pictures: { frame: number; shownAtUnixMs: number }[] = [];
  let stallCount = 0;
  video.addEventListener('waiting', () => stallCount++);
  const endAtMs = performance.now() + options.measureMs;
  return new Promise((resolve) => {
    const read = (_nowMs: number, metadata: VideoFrameCallbackMetadata) => {
      context.drawImage(video, 0, options.centreYPx, canvas.width, 1, 0, 0, canvas.width, 1);
      const line = context.getImageData(0, 0, canvas.width, 1).data;
      let frame = 0;
      for (let bit = 0; bit < options.bits; bit++) {
        const luma = line[4 * (options.leftPx + bit * options.pitchPx)] ?? 0;
        if (luma >= options.whiteLuma) frame += 2 ** bit;
      }
      pictures.push({ frame, shownAtUnixMs: performance.timeOrigin + metadata.expectedDisplayTime });
      if (performance.now() >= endAtMs) resolve({ pictures, stallCount });
      else video.requestVideoFrameCallback(read);
    };
    video.requestVideoFrameCallback(read);
    // A player that stands still shows no pictures.
    setTimeout(() => resolve({ pictures, stallCount }), options.measureMs + 5000);
  });
}

export function modulo(value: number, modulus: number): number {
  return ((value % modulus) + modulus) % modulus;
}
