/** Low-Latency HLS as a strict client sees it. `npm run soak` takes ten minutes. */
import { describe, expect, inject, it } from 'vitest';
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
