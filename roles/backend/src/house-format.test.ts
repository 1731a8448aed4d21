import { segmentStartTicks } from '@starling/model/schedule';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  assetRungs,
  encodeArguments,
  fitPicture,
  houseFrameRate,
  loudnessGainDb,
  planAsset,
  RUNGS,
} from './house-format.ts';

describe('houseFrameRate', () => {
  it.each([
    [24_000 / 1001, 24],
    [24, 24],
    [25, 25],
    [30_000 / 1001, 30],
    [30, 30],
    [48, 24],
    [50, 50],
    [60_000 / 1001, 60],
    [60, 60],
    [12.5, 25],
    [15, 30],
    [10, 30],
    [100, 50],
    [120, 60],
    [29.2, 30], // a telephone's variable rate
    [undefined, 25],
    [0, 25],
    [Number.NaN, 25],
  ])('%s becomes %s', (source, house) => {
    expect(houseFrameRate(source)).toBe(house);
  });
});

describe('planAsset', () => {
  it.each([
    // 25 fps: 8 frames are 15 audio units, 0.32 s
    { seconds: 10, rate: 25, frames: 256, units: 480 },
    { seconds: 10.24, rate: 25, frames: 256, units: 480 },
    { seconds: 10.26, rate: 25, frames: 256, units: 480 }, // the last AAC unit's padding
    { seconds: 10.3, rate: 25, frames: 264, units: 495 },
    { seconds: 32, rate: 25, frames: 800, units: 1500 },
    // 24 fps: 64 frames are 125 units, 2.667 s
    { seconds: 2.6, rate: 24, frames: 64, units: 125 },
    // 30 fps: 16 frames are 25 units, 0.533 s
    { seconds: 1, rate: 30, frames: 32, units: 50 },
    { seconds: 0.001, rate: 60, frames: 32, units: 25 },
  ] as const)(
    '$seconds s at $rate fps: $frames frames, $units audio units',
    ({ seconds, rate, frames, units }) => {
      expect(planAsset(seconds, rate)).toMatchObject({ frameCount: frames, audioUnitCount: units });
    },
  );

  it('is whole on both grids, holds the content, and cuts it into segments of 1 to 2 s', () => {
    fc.assert(
      fc.property(
        fc.double({ min: 0.01, max: 40_000, noNaN: true }),
        fc.constantFrom(24, 25, 30, 50, 60),
        (seconds, rate) => {
          const plan = planAsset(seconds, rate);
          expect(plan.frameCount * 48_000).toBe(plan.audioUnitCount * 1024 * rate);
          expect(plan.durationTicks * rate).toBe(plan.frameCount * 90_000);
          expect(plan.durationTicks / 90_000).toBeGreaterThan(seconds - 0.0251);
          const ends = [...plan.gopStartFrames.slice(1), plan.frameCount];
          const lengths = plan.gopStartFrames.map((start, i) => (ends[i] ?? 0) - start);
          expect(plan.gopStartFrames[0]).toBe(0);
          expect(Math.max(...lengths)).toBeLessThanOrEqual(2 * rate);
          if (lengths.length > 1) expect(Math.min(...lengths)).toBeGreaterThanOrEqual(rate);
        },
      ),
    );
  });
});

describe('fitPicture', () => {
  it.each([
    { widthPx: 1920, heightPx: 1080, pixelAspect: 1, fits: [1280, 720] },
    { widthPx: 320, heightPx: 180, pixelAspect: 1, fits: [1280, 720] },
    { widthPx: 640, heightPx: 480, pixelAspect: 1, fits: [960, 720] },
    { widthPx: 720, heightPx: 576, pixelAspect: 16 / 15, fits: [960, 720] }, // PAL 4:3
    { widthPx: 720, heightPx: 576, pixelAspect: 64 / 45, fits: [1280, 720] }, // PAL 16:9
    { widthPx: 1080, heightPx: 1920, pixelAspect: 1, fits: [406, 720] },
    { widthPx: 2048, heightPx: 858, pixelAspect: 1, fits: [1280, 536] },
    { widthPx: 4096, heightPx: 2, pixelAspect: 1, fits: [1280, 2] },
  ])('$widthPx x $heightPx, pixels of $pixelAspect', ({ fits, ...picture }) => {
    expect(fitPicture(picture, RUNGS['720p'])).toEqual({ widthPx: fits[0], heightPx: fits[1] });
  });
});

describe('assetRungs', () => {
  const heights = (scalesUp: boolean, picture: { widthPx: number; heightPx: number; pixelAspect?: number }) =>
    assetRungs(
      { ladder: ['480p', '1080p', '720p'], scalesUp, languages: [] },
      {
        streamIndex: 0,
        pixelAspect: 1,
        isInterlaced: false,
        isMatrixUntagged: false,
        isHdr: false,
        ...picture,
      },
    ).map(({ heightPx, maxBitrateBps }) => [heightPx, maxBitrateBps / 1e6]);

  it.each([
    ['4K', { widthPx: 3840, heightPx: 2160 }, 1080],
    ['full HD', { widthPx: 1920, heightPx: 1080 }, 1080],
    ['cinema', { widthPx: 1920, heightPx: 800 }, 1080],
    ['a telephone on end', { widthPx: 720, heightPx: 1280 }, 1080],
    ['HD', { widthPx: 1280, heightPx: 720 }, 720],
    ['PAL, 16:9', { widthPx: 720, heightPx: 576, pixelAspect: 64 / 45 }, 720],
    ['NTSC, 4:3', { widthPx: 720, heightPx: 480, pixelAspect: 8 / 9 }, 720], // 540 lines of square pixels
    ['VGA', { widthPx: 640, heightPx: 480 }, 480],
    ['small', { widthPx: 320, heightPx: 180 }, 480],
  ])('of %s: up to the smallest that holds it, unless told to scale up', (_name, picture, topPx) => {
    const rungs = [
      [1080, 6.5],
      [720, 4],
      [480, 1.8],
    ];
    const topMbps = rungs.find(([heightPx]) => heightPx === topPx)?.[1] ?? 0;
    expect(heights(false, picture)).toEqual(rungs.filter(([heightPx = 0]) => heightPx <= topPx));
    expect(heights(true, picture)).toEqual(
      rungs.map(([px = 0, mbps = 0]) => [px, Math.min(mbps, (topMbps * px) / topPx)]),
    );
  });
});

describe('loudnessGainDb', () => {
  it.each([
    [-33, -20, 10],
    [-14.04, 0.5, -9],
    [-23, -3, 0],
    [-40, -10, 9], // to a peak of -1 dBTP, no further
    [-65, -50, 20],
  ])('of %d LUFS with peaks of %d dBTP is %d dB', (integratedLufs, truePeakDbtp, gainDb) => {
    expect(loudnessGainDb({ integratedLufs, truePeakDbtp })).toBe(gainDb);
  });
});

describe('encodeArguments', () => {
  it('puts a dark card and silence where picture and sound are missing', () => {
    const args = encodeArguments(
      {
        inputArguments: ['-i', 'file:/a'],
        inputCount: 1,
        picture: undefined,
        sounds: [],
        startSeconds: 0,
      },
      { plan: planAsset(1, 25), rungs: [RUNGS['720p']], gainsDb: [] },
    ).join(' ');
    expect(args).toContain('-f lavfi -i color=');
    expect(args).toContain('-f lavfi -i anullsrc=');
    expect(args).toContain('-filter_complex [1:v:0]');
    expect(args).toContain('-filter_complex [2:a:0]');
    expect(args).toContain('-map [v0] -map [a0]');
  });
});

it('begins its GOPs where the schedule counts segments', () => {
  fc.assert(
    fc.property(
      fc.double({ min: 0.1, max: 20_000, noNaN: true }),
      fc.constantFrom(24, 25, 30, 50, 60),
      (seconds, frameRate) => {
        const plan = planAsset(seconds, frameRate);
        const { durationTicks, gopStartFrames } = plan;
        const facts = { durationTicks, segmentCount: gopStartFrames.length, frameRate };
        expect(plan.gopStartFrames.map((frame) => frame * plan.frameDurationTicks)).toEqual(
          plan.gopStartFrames.map((_, i) => segmentStartTicks(facts, i)),
        );
      },
    ),
  );
});
