/** A viewer in Chromium with the site's own player: how long it had to wait for each picture. */
import type { Browser } from 'playwright-core';

/** Players find their place first. */
const SETTLE_MS = 2000;

export interface Seen {
  /** The longest times between two pictures, longest first, with how far into the watching they began. */
  readonly waits: readonly { readonly ms: number; readonly atMs: number }[];
  readonly pictureCount: number;
  /** How often playback ran dry. */
  readonly stallCount: number;
  readonly widthPx: number;
  /** Of the element, and what the page's scripts threw. */
  readonly errors: readonly string[];
}

export interface Viewer {
  stop(): Promise<Seen>;
}

/** Opens a page with a video of its own, and watches from when it plays. */
export async function openViewer(browser: Browser, url: string): Promise<Viewer> {
  const context = await browser.newContext({ viewport: { width: 1000, height: 700 } });
  const page = await context.newPage();
  const errors: string[] = [];
  page.on('pageerror', (error) => errors.push(error.message));
  await page.goto(url);
  await page.waitForFunction(() => (document.querySelector('video')?.currentTime ?? 0) > 0.5, undefined, {
    timeout: 30_000,
  });
  await page.waitForTimeout(SETTLE_MS);
  const seen = page.evaluate(watchPictures);
  return {
    async stop() {
      await page.evaluate(() => document.dispatchEvent(new Event('stop-watching')));
      const { error, ...rest } = await seen;
      await context.close();
      return { ...rest, errors: error === null ? errors : [...errors, error] };
    },
  };
}

/** For the message of an assertion. */
export function waitsInWords({ waits, stallCount }: Seen): string {
  const words = waits.map(({ ms, atMs }) => `${Math.round(ms)} ms after ${Math.round(atMs / 100) / 10} s`);
  return `${stallCount} stalls, waited ${words.join(', ')}`;
}

/** Runs in the page: takes the time of each picture until the page is told to stop. */
function watchPictures(): Promise<Omit<Seen, 'errors'> & { readonly error: string | null }> {
  const video = document.querySelector('video');
  if (video === null) throw new Error('no video to watch');
  const waits: { ms: number; atMs: number }[] = [];
  const startedAtMs = performance.now();
  let lastAtMs = startedAtMs;
  let pictureCount = 0;
  let stallCount = 0;
  video.addEventListener('waiting', () => stallCount++);
  const take = () => {
    const nowMs = performance.now();
    waits.push({ ms: nowMs - lastAtMs, atMs: lastAtMs - startedAtMs });
    waits.sort((a, b) => b.ms - a.ms);
    waits.length = Math.min(waits.length, 5);
    lastAtMs = nowMs;
  };
  const see = () => {
    pictureCount++;
    take();
    video.requestVideoFrameCallback(see);
  };
  video.requestVideoFrameCallback(see);
  return new Promise((resolve) => {
    document.addEventListener('stop-watching', () => {
      take();
      const error = video.error?.message ?? null;
      resolve({ waits, pictureCount, stallCount, widthPx: video.videoWidth, error });
    });
  });
}
