import { describe, expect, it } from 'vitest';
import { type AssetTracks, fillTrackSet, isSameTrackSet, trackSetOf } from './track-set.ts';

const asset = (heightsPx: number[], languages: (string | null)[]): AssetTracks => ({
  videoTracks: heightsPx.map((heightPx) => ({ heightPx })),
  audioTracks: languages.map((language) => ({ language })),
});

describe('trackSetOf', () => {
  it('has every quality, the tallest first, and every language as it comes', () => {
    const assets = [asset([720, 480], ['en']), asset([1080, 720], ['de', 'en', 'fr'])];
    expect(trackSetOf(assets)).toEqual({ heightsPx: [1080, 720, 480], languages: ['en', 'de', 'fr'] });
  });

  it('adds no language for sound that does not tell its own, unless there is no other', () => {
    expect(trackSetOf([asset([720], [null]), asset([720], ['en'])]).languages).toEqual(['en']);
    expect(trackSetOf([asset([720], [null])]).languages).toEqual([null]);
  });

  it('keeps what there was before, with its numbers', () => {
    const before = trackSetOf([asset([720], ['en'])]);
    const after = trackSetOf([asset([480], ['de', 'en'])], before);
    expect(after).toEqual({ heightsPx: [720, 480], languages: ['en', 'de'] });
    expect(isSameTrackSet(after, before)).toBe(false);
    expect(isSameTrackSet(trackSetOf([asset([480], ['de'])], after), after)).toBe(true);
  });
});

describe('fillTrackSet', () => {
  it('fills a missing quality with the next lower one, or the lowest', () => {
    const set = { heightsPx: [1080, 720, 480, 240], languages: [null] };
    expect(fillTrackSet(set, asset([720, 360], [null])).videoTrackIds).toEqual([0, 0, 1, 1]);
    expect(fillTrackSet(set, asset([1080, 720, 480, 240], [null])).videoTrackIds).toEqual([0, 1, 2, 3]);
  });

  it('fills a missing language with the default sound', () => {
    const set = { heightsPx: [720], languages: ['en', 'de', 'fr'] };
    expect(fillTrackSet(set, asset([720], ['de', 'fr'])).audioTrackIds).toEqual([0, 0, 1]);
    expect(fillTrackSet(set, asset([720], [null])).audioTrackIds).toEqual([0, 0, 0]);
  });
});
