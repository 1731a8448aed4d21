import fc from 'fast-check';
import * as hlsParser from 'hls-parser';
import { describe, expect, test } from 'vitest';
import { serialiseMediaPlaylist, skippableSegmentCount } from './playlist.ts';
import { type RecordedPlaylistKind, type RecordedSegment, recordedPlaylist } from './recording.ts';

const EPOCH_UNIX_MS = 1_700_000_000_000;
/** Two seconds. */
const SEGMENT_TICKS = 180_000;

/** Segment `n` of a channel with segments of 2 s. */
function recorded(n: number, changes: Partial<RecordedSegment> & { epochUnixMs?: number } = {}) {
  const { epochUnixMs = EPOCH_UNIX_MS, ...rest } = changes;
  const startTicks = rest.startTicks ?? n * SEGMENT_TICKS;
  return {
    mediaSequenceNumber: n,
    discontinuitySequence: 7,
    startTicks,
    durationTicks: SEGMENT_TICKS,
    programDateTimeUnixMs: epochUnixMs + startTicks / 90,
    targetDurationMs: 2000,
    isIndependent: true,
    initId: '0123456789abcdef',
    sizeBytes: 1000,
    ...rest,
  } satisfies RecordedSegment;
}

const sliding: RecordedPlaylistKind = { type: undefined, isEnded: false, startUnixMs: undefined };

const build = (segments: readonly RecordedSegment[], kind: RecordedPlaylistKind = sliding) =>
  recordedPlaylist(
    segments,
    {
      init: (id) => `init-${id}.mp4`,
      segment: (n, epoch) => `${n}.m4s${epoch === undefined ? '' : `?epoch=${epoch}`}`,
    },
    EPOCH_UNIX_MS,
    kind,
  );
const textOf = (segments: readonly RecordedSegment[], kind?: RecordedPlaylistKind) =>
  serialiseMediaPlaylist(build(segments, kind));

// It takes whatever has EXT-X-SERVER-CONTROL for low latency, and says on standard error what it misses in that.
hlsParser.setOptions({ silent: true });

/** As another implementation understands it. */
function read(text: string) {
  const playlist = hlsParser.parse(text);
  if (!('segments' in playlist)) throw new Error('taken for a multivariant playlist');
  return playlist;
}
/** What stands before each segment, in short. */
const marks = (text: string) =>
  read(text).segments.map(({ gap, discontinuity }) =>
    [discontinuity ? 'discontinuity' : '', gap ? 'gap' : ''].join(''),
  );
/** Address -> number and discontinuity sequence, of what is there. */
const places = (text: string) =>
  new Map(
    read(text)
      .segments.filter(({ gap }) => !gap)
      .map(({ uri, mediaSequenceNumber, discontinuitySequence }) => [
        uri,
        [mediaSequenceNumber, discontinuitySequence],
      ]),
  );

describe('a recording without holes', () => {
  test('is read by hls-parser as it was meant', () => {
    const playlist = read(textOf([recorded(40), recorded(41), recorded(42, { discontinuitySequence: 8 })]));
    expect(playlist).toMatchObject({
      targetDuration: 2,
      mediaSequenceBase: 40,
      discontinuitySequenceBase: 7,
      endlist: false,
      lowLatencyCompatibility: { canSkipUntil: 12, holdBack: 6 },
    });
    expect(playlist.playlistType).toBeUndefined();
    expect(
      playlist.segments.map(({ uri, duration, discontinuitySequence }) => [
        uri,
        duration,
        discontinuitySequence,
      ]),
    ).toEqual([
      ['40.m4s', 2, 7],
      ['41.m4s', 2, 7],
      ['42.m4s', 2, 8],
    ]);
    expect(playlist.segments[1]?.programDateTime?.getTime()).toBe(EPOCH_UNIX_MS + 82_000);
  });

  test('of a past stretch does not change, and says where in it playback starts', () => {
    const startUnixMs = EPOCH_UNIX_MS + 81_500;
    const text = textOf([recorded(40), recorded(41)], { type: 'VOD', isEnded: true, startUnixMs });
    expect(read(text)).toMatchObject({
      playlistType: 'VOD',
      endlist: true,
      start: { offset: 1.5, precise: true },
    });
    expect(text).not.toContain('SERVER-CONTROL');
  });

  test('of a stretch that goes on grows', () => {
    const text = textOf([recorded(40)], { type: 'EVENT', isEnded: false, startUnixMs: EPOCH_UNIX_MS });
    expect(read(text)).toMatchObject({ playlistType: 'EVENT', endlist: false, start: { offset: 0 } });
  });

  test('costs little to follow: a delta update has what is new and six target durations', () => {
    const twoHours = Array.from({ length: 3600 }, (_, index) => recorded(100_000 + index));
    const playlist = build(twoHours);
    const skipped = skippableSegmentCount(playlist);
    expect(skipped).toBe(3600 - 6);
    const delta = serialiseMediaPlaylist(playlist, skipped);
    expect(delta).toContain('#EXT-X-SKIP:SKIPPED-SEGMENTS=3594\n');
    expect(delta.length).toBeLessThan(1000);
    // A playlist with EXT-X-GAP is no obstacle, one with a discontinuity is given whole.
    expect(skippableSegmentCount(build(twoHours.filter((_, index) => index !== 5)))).toBe(3600 - 6);
    expect(skippableSegmentCount(build([recorded(5, { discontinuitySequence: 6 }), ...twoHours]))).toBe(0);
  });
});

describe('a hole', () => {
  test('is filled with gaps of its length, so that numbers count on', () => {
    const text = textOf([recorded(40), recorded(43)]);
    const { segments } = read(text);
    expect(marks(text)).toEqual(['', 'gap', 'gap', '']);
    expect(
      segments.map(({ uri, duration, mediaSequenceNumber }) => [uri, duration, mediaSequenceNumber]),
    ).toEqual([
      ['40.m4s', 2, 40],
      ['41.m4s', 2, 41],
      ['42.m4s', 2, 42],
      ['43.m4s', 2, 43],
    ]);
    expect(segments[2]?.programDateTime?.getTime()).toBe(EPOCH_UNIX_MS + 84_000);
  });

  test('has room for the discontinuities in it', () => {
    const { segments } = read(textOf([recorded(40), recorded(43, { discontinuitySequence: 9 })]));
    expect(segments.map(({ discontinuitySequence }) => discontinuitySequence)).toEqual([7, 7, 8, 9]);
  });

  test.each([
    ['more discontinuities than segments', recorded(43, { discontinuitySequence: 11 })],
    ['longer than its missing segments can be', recorded(43, { startTicks: 400 * SEGMENT_TICKS })],
    ['with another target duration behind it', recorded(43, { targetDurationMs: 4000 })],
  ])('%s is a break', (_what, next) => {
    expect(marks(textOf([recorded(40), next]))).toEqual(['', 'discontinuity']);
  });
});

describe('a break', () => {
  const before = [recorded(40), recorded(41), recorded(42)];
  const after = [
    recorded(9000, { discontinuitySequence: 9000 }),
    recorded(9001, { discontinuitySequence: 9000 }),
  ];

  test('is a discontinuity, and the numbers are those behind it', () => {
    expect([...places(textOf([...before, ...after]))]).toEqual([
      ['40.m4s', [8997, 8999]],
      ['41.m4s', [8998, 8999]],
      ['42.m4s', [8999, 8999]],
      ['9000.m4s', [9000, 9000]],
      ['9001.m4s', [9001, 9000]],
    ]);
  });

  test('to another epoch leaves the old numbers a name of their own', () => {
    const text = textOf([recorded(40, { epochUnixMs: EPOCH_UNIX_MS - 500_000 }), recorded(3)]);
    expect([...places(text).keys()]).toEqual([`40.m4s?epoch=${EPOCH_UNIX_MS - 500_000}`, '3.m4s']);
    expect(text).toContain('#EXT-X-MEDIA-SEQUENCE:2\n');
  });
});

/** Segments with holes, discontinuities and restarts, which jump by the second as those of an encoder do. */
const recordings = fc
  .array(
    fc.record({
      step: fc.constantFrom('next', 'next', 'next', 'hole', 'discontinuity', 'restart'),
      size: fc.integer({ min: 1, max: 5 }),
    }),
    { minLength: 1, maxLength: 40 },
  )
  .map((steps) => {
    let [n, discontinuity, startTicks] = [1000, 1000, 1000 * SEGMENT_TICKS];
    return steps.map(({ step, size }) => {
      const missing = step === 'hole' ? size : 0;
      n += 1 + missing;
      startTicks += (1 + missing) * SEGMENT_TICKS;
      if (step === 'discontinuity') {
        discontinuity++;
        startTicks += size * 90_000;
      }
      if (step === 'restart') {
        startTicks += size * 900_000;
        n = startTicks / 90_000;
        discontinuity = n;
      }
      return recorded(n, { discontinuitySequence: discontinuity, startTicks });
    });
  });

describe('any recording', () => {
  test('keeps the rules of RFC 8216', () => {
    fc.assert(
      fc.property(recordings, (segments) => {
        const playlist = read(textOf(segments));
        expect([...places(textOf(segments)).keys()]).toEqual(
          segments.map((one) => `${one.mediaSequenceNumber}.m4s`),
        );
        for (const { duration } of playlist.segments) {
          expect(Math.round(duration)).toBeLessThanOrEqual(playlist.targetDuration);
          expect(duration).toBeGreaterThan(0);
        }
        const times = playlist.segments.map(({ programDateTime }) => programDateTime?.getTime() ?? 0);
        expect(times).toEqual(times.toSorted((a, b) => a - b));
      }),
    );
  });

  test('keeps its numbers while old segments go and new ones come, up to the next break', () => {
    fc.assert(
      fc.property(recordings, fc.nat(40), fc.nat(40), (segments, from, to) => {
        const [start, end] = [Math.min(from, segments.length - 1), Math.min(to, segments.length)];
        const later = places(textOf(segments.slice(start)));
        const earlier = segments.slice(0, Math.max(1, end));
        // Numbers are counted from the last break.
        const isBroken = segments
          .slice(earlier.length)
          .some((one) => one.discontinuitySequence === one.mediaSequenceNumber);
        if (isBroken) return;
        for (const [uri, place] of places(textOf(earlier))) {
          if (later.has(uri)) expect(later.get(uri)).toEqual(place);
        }
      }),
    );
  });
});
