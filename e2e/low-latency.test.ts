/** Low latency as a strict client and as viewers see it. `npm run soak` takes longer and is stricter. */
import { describe, expect, inject, it } from 'vitest';
import { measureLatency } from './latency.ts';
import { watchRendition } from './ll-hls-checker.ts';

const { site } = inject('shared');
const isSoak = process.env.STARLING_SOAK !== undefined;
const WATCH_MS = isSoak ? 600_000 : 20_000;

describe('low-latency HLS', () => {
  it('breaks no rule', { timeout: WATCH_MS + 60_000 }, async () => {
    const watched = await watchRendition(`${site}/live/demo/main/index.m3u8`, { durationMs: WATCH_MS });
    expect(watched.violations).toEqual([]);
    // Parts of 0.4 s and segments of 2 s, one after another.
    expect(watched.partsSeen).toBeGreaterThan((WATCH_MS / 400) * 0.9);
    expect(watched.segmentsSeen).toBeGreaterThan((WATCH_MS / 2000) * 0.8);
  });
});

describe('from the timeline to the screen of Chromium', () => {
  const times = isSoak ? { settleMs: 20_000, measureMs: 300_000 } : { settleMs: 6000, measureMs: 8000 };

  // The goal is the first number; a machine that is busy with other tests is given more time.
  it.each([
    ['hls', 2000, 4000],
    ['flv', 800, 2500],
    // Three target durations behind the end of the playlist (RFC 8216, 6.3.3), and what that is behind.
    ['plain-hls', 7000, 9000],
  ] as const)('%s takes at most %i ms', { timeout: 400_000 }, async (way, goalMs, generousMs) => {
    const measured = await measureLatency(site, way, times);
    console.log(`${way}: ${JSON.stringify(measured)}`);
    expect(measured.pageErrors).toEqual([]);
    expect(measured.medianMs).toBeLessThanOrEqual(isSoak ? goalMs : generousMs);
    expect(measured.medianMs).toBeGreaterThan(0);
    expect(measured.pictureCount).toBeGreaterThan(times.measureMs / 100);
    if (isSoak) expect(measured.stallCount).toBe(0);
  });
});
