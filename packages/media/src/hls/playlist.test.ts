import { writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import * as hlsParser from 'hls-parser';
import { describe, expect, test } from 'vitest';
import {
  decodeWarnings,
  encodeFragmentedMp4,
  frameHashes,
  probePackets,
  withTemporaryFolder,
} from '../../test/ffmpeg.ts';
import { cueAt, EPOCH_UNIX_MS, streamEvents } from '../../test/stream.ts';
import {
  type AccessUnit,
  type AudioTrack,
  type Cue,
  type Track,
  timescaleHz,
  type VideoTrack,
} from '../access-unit.ts';
import { fragment, parseFragment } from '../fmp4/fragment.ts';
import { parseInitSegment } from '../fmp4/init-segment.ts';
import { LiveWindow } from './live-window.ts';
import {
  mediaPlaylist,
  multivariantPlaylist,
  serialiseMediaPlaylist,
  serialiseMultivariantPlaylist,
  skippableSegmentCount,
} from './playlist.ts';
import { DEFAULT_PART_TARGET_MS, type InitSegment, type Part, type Segment, Segmenter } from './segmenter.ts';

/** What these tests read of m3u8-parser, which has no types. */
interface M3u8Manifest {
  targetDuration: number;
  mediaSequence: number;
  discontinuitySequence: number;
  discontinuityStarts: number[];
  endList?: boolean;
  independentSegments?: boolean;
  version: number;
  segments: {
    uri: string;
    duration: number;
    discontinuity?: boolean;
    programDateTime: number;
    map: { uri: string };
  }[];
  playlists: { uri: string; attributes: Record<string, unknown> }[];
  dateRanges?: { startDate: Date; duration: number; class: string; xTitle: string }[];
}
const { Parser }: { Parser: new () => { manifest: M3u8Manifest; push(text: string): void; end(): void } } =
  createRequire(import.meta.url)('m3u8-parser');

function parseWithM3u8Parser(text: string): M3u8Manifest {
  const parser = new Parser();
  parser.push(text);
  parser.end();
  return parser.manifest;
}

const names = {
  segment: (number: number) => `${number}.m4s`,
  part: (number: number, index: number) => `${number}.${index}.m4s`,
  init: (id: string) => `${id}.mp4`,
};
const mediaPlaylistUri = (rendition: string) => `${rendition}.m3u8`;

const video: VideoTrack = {
  kind: 'video',
  trackId: 0,
  codec: 'avc',
  config: Uint8Array.of(1),
  codecString: 'avc1.64001f',
  widthPx: 1280,
  heightPx: 720,
  frameDurationTicks: 3003,
};
const audio: AudioTrack = {
  kind: 'audio',
  trackId: 0,
  language: undefined,
  codec: 'aac',
  config: Uint8Array.of(0x11, 0x90),
  codecString: 'mp4a.40.2',
  sampleRateHz: 48_000,
  channelCount: 2,
};
const init: InitSegment = { id: '0123456789abcdef', bytes: Uint8Array.of(1), tracks: [video, audio] };

function segment(changes: Partial<Omit<Segment, 'cue'>> & { cue: Cue }): Segment {
  return {
    init,
    parts: [
      {
        mediaSequenceNumber: changes.cue.mediaSequenceNumber,
        index: 0,
        durationTicks: 180_000,
        isIndependent: true,
        bytes: new Uint8Array(),
      },
    ],
    durationTicks: 180_000,
    sizeBytes: 1_000_000,
    ...changes,
  };
}

function windowOf(segments: readonly Segment[]): LiveWindow {
  const window = new LiveWindow({ windowDurationMs: 20_000, minSegments: 3 });
  for (const made of segments) window.add({ type: 'segment', segment: made });
  return window;
}

const newInit: InitSegment = { ...init, id: 'fedcba9876543210' };
const eventful = windowOf([
  segment({ cue: { ...cueAt(41, 0), discontinuitySequence: 6, targetDurationMs: 2500 } }),
  segment({ cue: { ...cueAt(42, 180_000), discontinuitySequence: 6 }, durationTicks: 180_180 }),
  segment({ cue: { ...cueAt(43, 360_180), discontinuitySequence: 7 }, init: newInit, durationTicks: 90_001 }),
  segment({ cue: { ...cueAt(44, 450_181), discontinuitySequence: 7 }, init: newInit }),
]);

describe('the media playlist', () => {
  const text = serialiseMediaPlaylist(mediaPlaylist(eventful, names));

  test('has the tags of RFC 8216', () => {
    expect(text).toBe(`#EXTM3U
#EXT-X-VERSION:7
#EXT-X-TARGETDURATION:3
#EXT-X-MEDIA-SEQUENCE:41
#EXT-X-DISCONTINUITY-SEQUENCE:6
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-MAP:URI="0123456789abcdef.mp4"
#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:00.000Z
#EXTINF:2.000000,
41.m4s
#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:02.000Z
#EXTINF:2.002000,
42.m4s
#EXT-X-DISCONTINUITY
#EXT-X-MAP:URI="fedcba9876543210.mp4"
#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:04.002Z
#EXTINF:1.000011,
43.m4s
#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:05.002Z
#EXTINF:2.000000,
44.m4s
`);
  });

  test('is read by hls-parser as it was meant', () => {
    const read = hlsParser.parse(text);
    if (read.isMasterPlaylist) throw new Error('taken for a multivariant playlist');
    expect(read).toMatchObject({
      version: 7,
      targetDuration: 3,
      mediaSequenceBase: 41,
      discontinuitySequenceBase: 6,
      endlist: false,
      independentSegments: true,
    });
    expect(
      'segments' in read &&
        read.segments.map((s) => [
          s.uri,
          s.duration,
          s.mediaSequenceNumber,
          s.discontinuitySequence,
          s.discontinuity === true,
          s.map?.uri,
          s.programDateTime?.getTime(),
        ]),
    ).toEqual([
      ['41.m4s', 2, 41, 6, false, '0123456789abcdef.mp4', EPOCH_UNIX_MS],
      ['42.m4s', 2.002, 42, 6, false, '0123456789abcdef.mp4', EPOCH_UNIX_MS + 2000],
      ['43.m4s', 1.000011, 43, 7, true, 'fedcba9876543210.mp4', EPOCH_UNIX_MS + 4002],
      ['44.m4s', 2, 44, 7, false, 'fedcba9876543210.mp4', EPOCH_UNIX_MS + 5002],
    ]);
  });

  test('is read by m3u8-parser as it was meant', () => {
    const read = parseWithM3u8Parser(text);
    expect(read).toMatchObject({
      version: 7,
      targetDuration: 3,
      mediaSequence: 41,
      discontinuitySequence: 6,
      discontinuityStarts: [2],
      independentSegments: true,
    });
    expect(read.endList).toBeFalsy();
    expect(read.segments.map((s) => [s.uri, s.duration, s.map.uri, s.programDateTime])).toEqual([
      ['41.m4s', 2, '0123456789abcdef.mp4', EPOCH_UNIX_MS],
      ['42.m4s', 2.002, '0123456789abcdef.mp4', EPOCH_UNIX_MS + 2000],
      ['43.m4s', 1.000011, 'fedcba9876543210.mp4', EPOCH_UNIX_MS + 4002],
      ['44.m4s', 2, 'fedcba9876543210.mp4', EPOCH_UNIX_MS + 5002],
    ]);
  });

  test('counts a discontinuity that left the list', () => {
    const window = new LiveWindow({ windowDurationMs: 4000, minSegments: 2 });
    for (const [number, discontinuitySequence] of [0, 0, 1, 1].entries()) {
      window.add({
        type: 'segment',
        segment: segment({ cue: { ...cueAt(number, number * 180_000), discontinuitySequence } }),
      });
    }
    const read = parseWithM3u8Parser(serialiseMediaPlaylist(mediaPlaylist(window, names)));
    expect(read).toMatchObject({ mediaSequence: 2, discontinuitySequence: 1, discontinuityStarts: [] });
  });

  test('does not promise independent segments where one is not', () => {
    const cue = cueAt(1, 180_000);
    const first = segment({ cue: cueAt(0, 0) });
    const textWith = (second: Segment) =>
      serialiseMediaPlaylist(mediaPlaylist(windowOf([first, second]), names));
    expect(textWith(segment({ cue }))).toContain('INDEPENDENT');
    expect(textWith(segment({ cue: { ...cue, isIndependent: false } }))).not.toContain('INDEPENDENT');
    const parts = first.parts.map((part) => ({ ...part, isIndependent: false }));
    expect(textWith(segment({ cue, parts }))).not.toContain('INDEPENDENT');
  });
});

describe('programmes', () => {
  const HOUR_MS = 3_600_000;
  const news = {
    title: 'News "at" nine,\nu\u0308ber',
    startUnixMs: EPOCH_UNIX_MS,
    endUnixMs: EPOCH_UNIX_MS + 4002,
  };
  const film = { title: 'Film', startUnixMs: EPOCH_UNIX_MS + 4002, endUnixMs: EPOCH_UNIX_MS + HOUR_MS };
  const cutFilm = { ...film, endUnixMs: EPOCH_UNIX_MS + 10_000 };
  const at = (number: number, programme: Cue['programme']) =>
    segment({ cue: { ...cueAt(number, number * 180_000), ...(programme !== undefined && { programme }) } });
  const window = windowOf([at(0, undefined), at(1, news), at(2, news), at(3, film), at(4, cutFilm)]);
  const playlist = mediaPlaylist(window, names);
  const text = serialiseMediaPlaylist(playlist);

  test('are date ranges, and one whose end an edit brings forward is another one from there on', () => {
    expect(text).toContain(`
#EXT-X-DATERANGE:ID="1767225600000-1767225604002 News 'at' nine, über",CLASS="starling.programme",START-DATE="2026-01-01T00:00:00.000Z",DURATION=4.002,X-TITLE="News 'at' nine, über"
#EXT-X-DATERANGE:ID="1767225604002-1767229200000 Film",CLASS="starling.programme",START-DATE="2026-01-01T00:00:04.002Z",DURATION=3595.998,X-TITLE="Film"
#EXT-X-DATERANGE:ID="1767225604002-1767225610000 Film",CLASS="starling.programme",START-DATE="2026-01-01T00:00:04.002Z",DURATION=5.998,X-TITLE="Film"
#EXT-X-MAP`);
  });

  test('are all in a delta update', () => {
    const rangesOf = (update: string) =>
      update.split('\n').filter((line) => line.startsWith('#EXT-X-DATERANGE'));
    expect(rangesOf(serialiseMediaPlaylist(playlist, 4))).toEqual(rangesOf(text));
    expect(rangesOf(text)).toHaveLength(3);
  });

  test('are read by m3u8-parser as they were meant', () => {
    const ranges = parseWithM3u8Parser(text).dateRanges ?? [];
    expect(
      ranges.map(({ startDate, duration, class: name, xTitle }) => [startDate, duration, name, xTitle]),
    ).toEqual([
      [new Date(EPOCH_UNIX_MS), 4.002, 'starling.programme', "News 'at' nine, über"],
      [new Date(EPOCH_UNIX_MS + 4002), 3595.998, 'starling.programme', 'Film'],
      [new Date(EPOCH_UNIX_MS + 4002), 5.998, 'starling.programme', 'Film'],
    ]);
  });
});

describe('the low-latency media playlist', () => {
  const partsOf = (number: number, count: number): Part[] =>
    Array.from({ length: count }, (_, index) => ({
      mediaSequenceNumber: number,
      index,
      durationTicks: 36_000,
      isIndependent: index === 0,
      bytes: new Uint8Array(),
    }));
  /** Segments of 2 s in five parts each from `first` on, and some parts of the next one. */
  function windowWith(
    first: number,
    count: number,
    openParts: number,
    changes: Partial<Cue> = {},
  ): LiveWindow {
    const window = new LiveWindow({ windowDurationMs: 60_000, minSegments: 3 });
    for (let number = first; number < first + count; number++) {
      const cue = { ...cueAt(number, number * 180_000), ...changes };
      window.add({ type: 'segment', segment: segment({ cue, parts: partsOf(number, 5) }) });
    }
    const next = first + count;
    for (const part of partsOf(next, openParts)) {
      window.add({ type: 'part', part, init, cue: cueAt(next, next * 180_000) });
    }
    return window;
  }
  const lowLatency = { partTargetMs: 400, otherRenditions: [] };
  const textOf = (window: LiveWindow) => serialiseMediaPlaylist(mediaPlaylist(window, names, lowLatency));

  test('has the tags of rfc8216bis, and parts near its end alone', () => {
    // The segment that ends 6.4 s before the end is further away than three target durations, the next is not.
    expect(textOf(windowWith(10, 5, 1))).toBe(`#EXTM3U
#EXT-X-VERSION:7
#EXT-X-TARGETDURATION:2
#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=12.0,HOLD-BACK=6.0,PART-HOLD-BACK=1.200
#EXT-X-PART-INF:PART-TARGET=0.400
#EXT-X-MEDIA-SEQUENCE:10
#EXT-X-DISCONTINUITY-SEQUENCE:0
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-MAP:URI="0123456789abcdef.mp4"
#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:20.000Z
#EXTINF:2.000000,
10.m4s
#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:22.000Z
#EXTINF:2.000000,
11.m4s
${[12, 13, 14]
  .map(
    (number) => `#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:${2 * number}.000Z
#EXT-X-PART:DURATION=0.400000,URI="${number}.0.m4s",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.400000,URI="${number}.1.m4s"
#EXT-X-PART:DURATION=0.400000,URI="${number}.2.m4s"
#EXT-X-PART:DURATION=0.400000,URI="${number}.3.m4s"
#EXT-X-PART:DURATION=0.400000,URI="${number}.4.m4s"
#EXTINF:2.000000,
${number}.m4s
`,
  )
  .join('')}#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:30.000Z
#EXT-X-PART:DURATION=0.400000,URI="15.0.m4s",INDEPENDENT=YES
#EXT-X-PRELOAD-HINT:TYPE=PART,URI="15.1.m4s"
`);
  });

  test('hints at the first part of the next segment when there is none of it yet', () => {
    expect(textOf(windowWith(10, 3, 0))).toContain('#EXT-X-PRELOAD-HINT:TYPE=PART,URI="13.0.m4s"');
  });

  test('puts a discontinuity and a new init segment before the first part of the open segment', () => {
    const window = windowWith(10, 3, 0);
    const cue = { ...cueAt(13, 26 * 90_000), discontinuitySequence: 1 };
    for (const part of partsOf(13, 1)) window.add({ type: 'part', part, init: newInit, cue });
    expect(textOf(window)).toContain(`12.m4s
#EXT-X-DISCONTINUITY
#EXT-X-MAP:URI="fedcba9876543210.mp4"
#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:26.000Z
#EXT-X-PART:DURATION=0.400000,URI="13.0.m4s",INDEPENDENT=YES
#EXT-X-PRELOAD-HINT`);
  });

  test('does not promise independent segments while the open one is not', () => {
    const window = windowWith(10, 3, 0);
    const [part] = partsOf(13, 1);
    const cue = { ...cueAt(13, 26 * 90_000), isIndependent: false };
    if (part !== undefined) window.add({ type: 'part', part: { ...part, isIndependent: false }, init, cue });
    expect(textOf(window)).not.toContain('INDEPENDENT-SEGMENTS');
  });

  test('reports how far the other renditions are', () => {
    const others = { uri: '../audio/index.m3u8', window: windowWith(10, 3, 2) };
    const finished = { uri: '../low/index.m3u8', window: windowWith(10, 3, 0) };
    const text = serialiseMediaPlaylist(
      mediaPlaylist(windowWith(10, 3, 1), names, { partTargetMs: 400, otherRenditions: [others, finished] }),
    );
    expect(text).toContain(`#EXT-X-RENDITION-REPORT:URI="../audio/index.m3u8",LAST-MSN=13,LAST-PART=1
#EXT-X-RENDITION-REPORT:URI="../low/index.m3u8",LAST-MSN=12,LAST-PART=4
`);
  });

  test('leaves out of a delta update what lies before the skip boundary', () => {
    // 12 s are CAN-SKIP-UNTIL: the six newest and, while a part of the next is there, no more.
    expect(skippableSegmentCount(mediaPlaylist(windowWith(10, 6, 0), names, lowLatency))).toBe(0);
    expect(skippableSegmentCount(mediaPlaylist(windowWith(10, 7, 0), names, lowLatency))).toBe(1);
    expect(skippableSegmentCount(mediaPlaylist(windowWith(10, 7, 1), names, lowLatency))).toBe(1);
    expect(skippableSegmentCount(mediaPlaylist(windowWith(10, 6, 1), names, lowLatency))).toBe(0);
    const playlist = mediaPlaylist(windowWith(10, 15, 1), names, lowLatency);
    expect(skippableSegmentCount(playlist)).toBe(9);
    const delta = serialiseMediaPlaylist(playlist, 9);
    expect(delta).toContain(`#EXT-X-VERSION:9
`);
    expect(delta).toContain(`#EXT-X-MEDIA-SEQUENCE:10
#EXT-X-DISCONTINUITY-SEQUENCE:0
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-SKIP:SKIPPED-SEGMENTS=9
#EXT-X-MAP:URI="0123456789abcdef.mp4"
#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:38.000Z
#EXTINF:2.000000,
19.m4s
`);
    const full = serialiseMediaPlaylist(playlist);
    const tail = (text: string) => text.slice(text.indexOf('#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:38'));
    expect(tail(delta)).toBe(tail(full));
  });

  test('is given whole where there is a discontinuity, which many hls.js lose in a delta update', () => {
    const window = windowWith(10, 15, 0);
    const cue = { ...cueAt(25, 50 * 90_000), discontinuitySequence: 1 };
    window.add({ type: 'segment', segment: segment({ cue, parts: partsOf(25, 5) }) });
    expect(skippableSegmentCount(mediaPlaylist(window, names, lowLatency))).toBe(0);
  });

  test('is read by hls-parser as it was meant', () => {
    const read = hlsParser.parse(textOf(windowWith(10, 5, 2)));
    if (!('segments' in read)) throw new Error('taken for a multivariant playlist');
    expect(read).toMatchObject({
      targetDuration: 2,
      partTargetDuration: 0.4,
      lowLatencyCompatibility: { canBlockReload: true, canSkipUntil: 12, holdBack: 6, partHoldBack: 1.2 },
      prefetchSegments: [],
    });
    const shown = read.segments.map((one) => [
      one.mediaSequenceNumber,
      one.uri,
      one.parts.map((part) => [part.uri, part.duration, part.independent === true, part.hint]),
    ]);
    const fiveParts = (number: number) =>
      [0, 1, 2, 3, 4].map((index) => [`${number}.${index}.m4s`, 0.4, index === 0, false]);
    expect(shown).toEqual([
      [10, '10.m4s', []],
      [11, '11.m4s', []],
      [12, '12.m4s', fiveParts(12)],
      [13, '13.m4s', fiveParts(13)],
      [14, '14.m4s', fiveParts(14)],
      [
        15,
        '',
        [
          ['15.0.m4s', 0.4, true, false],
          ['15.1.m4s', 0.4, false, false],
          ['15.2.m4s', undefined, false, true],
        ],
      ],
    ]);
  });

  test('is read by m3u8-parser as it was meant', () => {
    const read = parseWithM3u8Parser(
      serialiseMediaPlaylist(
        mediaPlaylist(windowWith(10, 5, 2), names, {
          partTargetMs: 400,
          otherRenditions: [{ uri: '../low/index.m3u8', window: windowWith(10, 5, 2) }],
        }),
      ),
    );
    expect(read).toMatchObject({
      serverControl: { canBlockReload: true, canSkipUntil: 12, holdBack: 6, partHoldBack: 1.2 },
      partInf: { partTarget: 0.4 },
      renditionReports: [{ uri: '../low/index.m3u8', lastMsn: 15, lastPart: 1 }],
      preloadSegment: {
        parts: [
          { uri: '15.0.m4s', duration: 0.4, independent: true },
          { uri: '15.1.m4s', duration: 0.4 },
        ],
        preloadHints: [{ type: 'PART', uri: '15.2.m4s' }],
      },
    });
  });

  test.each([23.976, 24, 25, 29.97, 30, 48, 50, 59.94, 60])(
    'at %s frames per second every part but the last of a segment fills 85 % of the target',
    (rate) => {
      const exactRate = Number.isInteger(rate) ? rate : (Math.ceil(rate) * 1000) / 1001;
      const frameTicks = (index: number) => Math.round((index * 90_000) / exactRate);
      const framesPerSegment = 2 * Math.round(exactRate);
      const units = Array.from({ length: 3 * framesPerSegment + 1 }, (_, index): AccessUnit => {
        const ticks = frameTicks(index);
        const isRandomAccess = index % framesPerSegment === 0;
        return {
          kind: 'video',
          trackId: 0,
          dtsTicks: ticks,
          ptsTicks: ticks,
          isRandomAccess,
          data: new Uint8Array(9),
        };
      });
      const starts = [0, 1, 2, 3].map((number) => frameTicks(number * framesPerSegment));
      const segmenter = new Segmenter({ partTargetMs: DEFAULT_PART_TARGET_MS });
      const made = streamEvents([{ ...video, frameDurationTicks: undefined }], units, starts).flatMap(
        (event) => segmenter.push(event),
      );
      const segments = made.flatMap((event) => (event.type === 'segment' ? [event.segment] : []));
      expect(segments).toHaveLength(3);
      for (const { parts } of segments) {
        expect(parts.length).toBeLessThanOrEqual(6);
        for (const part of parts) {
          expect(part.durationTicks).toBeLessThanOrEqual(DEFAULT_PART_TARGET_MS * 90);
        }
        for (const part of parts.slice(0, -1)) {
          expect(part.durationTicks).toBeGreaterThanOrEqual(0.85 * DEFAULT_PART_TARGET_MS * 90);
        }
      }
    },
  );
});

describe('the multivariant playlist', () => {
  const window = windowOf([
    segment({ cue: cueAt(0, 0), sizeBytes: 1_000_000 }), // 4.0 Mb/s
    segment({ cue: cueAt(1, 180_000), sizeBytes: 1_053_000 }), // 4.212 Mb/s
    segment({ cue: cueAt(2, 360_000), durationTicks: 90_000, sizeBytes: 400_000 }), // 3.2 Mb/s
  ]);
  const text = serialiseMultivariantPlaylist(
    multivariantPlaylist([{ name: 'video', window }], mediaPlaylistUri),
  );

  test('has the tags of RFC 8216', () => {
    // 19.624 Mb in 5 s are 3.92 Mb/s.
    expect(text).toBe(`#EXTM3U
#EXT-X-VERSION:7
#EXT-X-STREAM-INF:BANDWIDTH=4300000,AVERAGE-BANDWIDTH=4000000,CODECS="avc1.64001f,mp4a.40.2",RESOLUTION=1280x720,FRAME-RATE=29.970
video.m3u8
`);
  });

  test('is read by hls-parser and m3u8-parser as it was meant', () => {
    const read = hlsParser.parse(text);
    if (!('variants' in read)) throw new Error('taken for a media playlist');
    expect(read.variants).toHaveLength(1);
    expect(read.variants[0]).toMatchObject({
      uri: 'video.m3u8',
      bandwidth: 4_300_000,
      averageBandwidth: 4_000_000,
      codecs: 'avc1.64001f,mp4a.40.2',
      resolution: { width: 1280, height: 720 },
      frameRate: 29.97,
    });
    expect(parseWithM3u8Parser(text).playlists).toMatchObject([
      {
        uri: 'video.m3u8',
        attributes: {
          BANDWIDTH: 4_300_000,
          'AVERAGE-BANDWIDTH': '4000000',
          CODECS: 'avc1.64001f,mp4a.40.2',
          RESOLUTION: { width: 1280, height: 720 },
          'FRAME-RATE': 29.97,
        },
      },
    ]);
  });

  test('of audio alone states neither resolution nor frame rate', () => {
    const audioWindow = windowOf([
      segment({ cue: cueAt(0, 0), init: { ...init, tracks: [audio] }, sizeBytes: 32_000 }),
    ]);
    expect(
      serialiseMultivariantPlaylist(
        multivariantPlaylist([{ name: 'a', window: audioWindow }], mediaPlaylistUri),
      ),
    ).toContain('#EXT-X-STREAM-INF:BANDWIDTH=130000,AVERAGE-BANDWIDTH=130000,CODECS="mp4a.40.2"\n');
  });

  test.each([
    ['25 frames per second', 40, 25],
    ['29.97 frames per second in whole milliseconds', 1001 / 30, 30_000 / 1001],
    ['an unusual rate', 1000 / 13, 13],
  ])('measures %s where the track does not say', (_, frameMs, expected) => {
    const unknown: VideoTrack = { ...video, frameDurationTicks: undefined };
    const unknownInit: InitSegment = { ...init, tracks: [unknown] };
    const frameCount = 52;
    const dtsTicks = (index: number) => Math.round(index * frameMs) * 90;
    const made = [0, 1, 2].map((number) => {
      const units = Array.from({ length: frameCount }, (_, i): AccessUnit => {
        const ticks = dtsTicks(number * frameCount + i);
        return {
          kind: 'video',
          trackId: 0,
          dtsTicks: ticks,
          ptsTicks: ticks,
          isRandomAccess: i === 0,
          data: new Uint8Array(9),
        };
      });
      const startTicks = dtsTicks(number * frameCount);
      const endTicks = dtsTicks((number + 1) * frameCount);
      const bytes = fragment({ sequenceNumber: 1, tracks: [{ track: unknown, units, endTicks }] });
      const durationTicks = endTicks - startTicks;
      return segment({
        cue: cueAt(number, startTicks),
        init: unknownInit,
        durationTicks,
        parts: [{ mediaSequenceNumber: number, index: 0, durationTicks, isIndependent: true, bytes }],
      });
    });
    const [variant] = multivariantPlaylist(
      [{ name: 'video', window: windowOf(made) }],
      mediaPlaylistUri,
    ).variants;
    expect(variant?.frameRate).toBeCloseTo(expected, 3);
  });
});

describe('the multivariant playlist of several renditions', () => {
  const windowWith = (track: Track, sizesBytes: readonly number[]) =>
    windowOf(
      sizesBytes.map((sizeBytes, i) =>
        segment({ cue: cueAt(i, i * 180_000), init: { ...init, tracks: [track] }, sizeBytes }),
      ),
    );
  const of = (track: Track, ...sizesBytes: number[]) => ({
    name: `${track.kind}-${track.trackId}`,
    window: windowWith(track, sizesBytes),
  });
  const small: VideoTrack = {
    ...video,
    trackId: 1,
    codecString: 'avc1.640015',
    widthPx: 426,
    heightPx: 240,
    frameDurationTicks: 3600,
  };
  const large: VideoTrack = { ...video, frameDurationTicks: 3600 };
  const german: AudioTrack = { ...audio, language: 'de' };
  const english: AudioTrack = { ...audio, trackId: 1, language: 'en' };
  const unknown: AudioTrack = { ...audio, trackId: 2 };
  const textOf = (...renditions: ReturnType<typeof of>[]) =>
    serialiseMultivariantPlaylist(multivariantPlaylist(renditions, mediaPlaylistUri));

  test('has a variant for each picture and a group of the sounds', () => {
    // Segments of 2 s: 1,000,000 bytes are 4 Mb/s at the peak, 750,000 bytes 3 Mb/s on average; sound 128 and 64 kb/s.
    const text = textOf(
      of(large, 1_000_000, 500_000),
      of(small, 100_000, 100_000),
      of(german, 32_000, 32_000),
      of(english, 16_000, 16_000),
      of(unknown, 16_000, 16_000),
    );
    expect(text).toBe(`#EXTM3U
#EXT-X-VERSION:7
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="aac",NAME="Deutsch",LANGUAGE="de",DEFAULT=YES,AUTOSELECT=YES,CHANNELS="2",URI="audio-0.m3u8"
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="aac",NAME="English",LANGUAGE="en",DEFAULT=NO,AUTOSELECT=YES,CHANNELS="2",URI="audio-1.m3u8"
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="aac",NAME="Audio 2",DEFAULT=NO,AUTOSELECT=NO,CHANNELS="2",URI="audio-2.m3u8"
#EXT-X-STREAM-INF:BANDWIDTH=4200000,AVERAGE-BANDWIDTH=3200000,CODECS="${large.codecString},mp4a.40.2",RESOLUTION=1280x720,FRAME-RATE=25.000,AUDIO="aac"
video-0.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=530000,AVERAGE-BANDWIDTH=530000,CODECS="avc1.640015,mp4a.40.2",RESOLUTION=426x240,FRAME-RATE=25.000,AUDIO="aac"
video-1.m3u8
`);
    const parsed = hlsParser.parse(text);
    if (!('variants' in parsed)) throw new Error('not a multivariant playlist');
    expect(parsed.variants.map(({ uri, audio: group }) => [uri, group.map(({ name }) => name)])).toEqual([
      ['video-0.m3u8', ['Deutsch', 'English', 'Audio 2']],
      ['video-1.m3u8', ['Deutsch', 'English', 'Audio 2']],
    ]);
  });

  test('has a group for each codec of sound, and all pictures with each, the default first', () => {
    const surround: AudioTrack = {
      ...audio,
      trackId: 1,
      codec: 'ac3',
      codecString: 'ac-3',
      channelCount: 6,
      language: 'de',
    };
    const { variants, audioRenditions } = multivariantPlaylist(
      [of(large, 1_000_000), of(small, 100_000), of(german, 32_000), of(surround, 96_000)],
      mediaPlaylistUri,
    );
    expect(
      audioRenditions.map(({ groupId, isDefault, channelCount }) => [groupId, isDefault, channelCount]),
    ).toEqual([
      ['aac', true, 2],
      ['ac3', true, 6],
    ]);
    expect(variants.map(({ uri, audioGroupId, codecs }) => [uri, audioGroupId, codecs.at(-1)])).toEqual([
      ['video-0.m3u8', 'aac', 'mp4a.40.2'],
      ['video-1.m3u8', 'aac', 'mp4a.40.2'],
      ['video-0.m3u8', 'ac3', 'ac-3'],
      ['video-1.m3u8', 'ac3', 'ac-3'],
    ]);
  });

  test('of sound alone has one variant, which is the default of its group', () => {
    const text = textOf(of(german, 32_000), of(english, 48_000));
    expect(text.match(/#EXT-X-STREAM-INF.*\n.*/g)).toEqual([
      '#EXT-X-STREAM-INF:BANDWIDTH=200000,AVERAGE-BANDWIDTH=200000,CODECS="mp4a.40.2",AUDIO="aac"\naudio-0.m3u8',
    ]);
  });

  test('of pictures alone has no group', () => {
    const text = textOf(of(large, 1_000_000), of(small, 100_000));
    expect(text).not.toContain('AUDIO');
    expect(text.match(/^video.*$/gm)).toEqual(['video-0.m3u8', 'video-1.m3u8']);
  });

  test('gives each sound a name of its own, and chooses only one for a language', () => {
    const tags = ['pt-BR', 'pt-BR', 'x9999999'];
    const { audioRenditions } = multivariantPlaylist(
      tags.map((language, trackId) => of({ ...audio, trackId, language }, 32_000)),
      mediaPlaylistUri,
    );
    expect(audioRenditions.map(({ name, isAutoselect }) => [name, isAutoselect])).toEqual([
      ['português (Brasil)', true],
      ['português (Brasil) (1)', false],
      ['x9999999', true],
    ]);
  });
});

describe('the playlist of a rendition that has ended', () => {
  test('ends, and hints at nothing', () => {
    const window = windowOf([segment({ cue: cueAt(0, 0) })]);
    const text = serialiseMediaPlaylist({ ...mediaPlaylist(window, names), isEnded: true });
    expect(text).toMatch(/0\.m4s\n#EXT-X-ENDLIST\n$/);
    expect(text).not.toContain('PRELOAD');
  });
});

describe('judged by FFmpeg', () => {
  /** Three years into the life of a channel. */
  const START_SECONDS = 3 * 365 * 86_400;
  const source = encodeFragmentedMp4({ durationSeconds: 8, sampleRateHz: 44_100 });
  const tracks = parseInitSegment(source);
  const units = parseFragment(source, tracks).map((unit): AccessUnit => {
    const track = tracks.find(({ kind }) => kind === unit.kind);
    const shiftTicks = START_SECONDS * (track === undefined ? 0 : timescaleHz(track));
    return { ...unit, dtsTicks: unit.dtsTicks + shiftTicks, ptsTicks: unit.ptsTicks + shiftTicks };
  });
  const starts = [0, 2, 4, 6, 8].map((seconds) => (START_SECONDS + seconds) * 90_000);

  test('a window plays without a warning and decodes to the frames of its source', () => {
    const window = new LiveWindow({ windowDurationMs: 60_000, minSegments: 3 });
    const segmenter = new Segmenter({ partTargetMs: 500 });
    for (const event of streamEvents(tracks, units, starts)) {
      for (const made of segmenter.push(event)) window.add(made);
    }
    expect(window.segments).toHaveLength(4);

    withTemporaryFolder((folder) => {
      const media = mediaPlaylist(window, names);
      // For FFmpeg to come to an end.
      writeFileSync(join(folder, 'video.m3u8'), serialiseMediaPlaylist({ ...media, isEnded: true }));
      writeFileSync(
        join(folder, 'index.m3u8'),
        serialiseMultivariantPlaylist(multivariantPlaylist([{ name: 'video', window }], mediaPlaylistUri)),
      );
      for (const { init: ofSegment, cue, parts } of window.segments) {
        writeFileSync(join(folder, names.init(ofSegment.id)), ofSegment.bytes);
        writeFileSync(
          join(folder, names.segment(cue.mediaSequenceNumber)),
          Buffer.concat(parts.map((part) => part.bytes)),
        );
      }
      const path = join(folder, 'index.m3u8');
      expect(decodeWarnings(path)).toBe('');

      const sourcePath = join(folder, 'source.mp4');
      writeFileSync(sourcePath, source);
      const packets = probePackets(path).video;
      expect(packets.map(({ size, flags }) => [size, flags])).toEqual(
        probePackets(sourcePath).video.map(({ size, flags }) => [size, flags]),
      );
      expect(packets).toHaveLength(200);
      const pictureHashes = (file: string) =>
        frameHashes(file).flatMap((line) => (line.startsWith('0,') ? [line.split(',').at(-1)] : []));
      expect(pictureHashes(path)).toEqual(pictureHashes(sourcePath));
      expect(pictureHashes(path)).toHaveLength(200);
    });
  });
});
