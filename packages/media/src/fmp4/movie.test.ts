import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import {
  decodeWarnings,
  encodeFragmentedMp4,
  ffmpeg,
  frameHashes,
  withTemporaryFolder,
} from '../../test/ffmpeg.ts';
import { EPOCH_UNIX_MS, streamEvents } from '../../test/stream.ts';
import { type AccessUnit, type StreamEvent, type Track, timescaleHz } from '../access-unit.ts';
import { concatBytes } from '../bytes.ts';
import { readBoxes } from './box.ts';
import { parseFragment } from './fragment.ts';
import { parseInitSegment } from './init-segment.ts';
import {
  type FragmentEntry,
  INDEX_SIZE_BYTES,
  type MovieEvent,
  MovieWriter,
  movieIndex,
  readBoxHeader,
  readFragmentEntry,
} from './movie.ts';

const DURATION_SECONDS = 8;
/** Eleven years into the timeline: what a file must not show. */
const START_TICKS = 11 * 365 * 86_400 * 90_000;

let source: Uint8Array;
let tracks: Track[];
let units: AccessUnit[];
let events: StreamEvent[];

beforeAll(() => {
  source = encodeFragmentedMp4({ durationSeconds: DURATION_SECONDS, sampleRateHz: 48_000 });
  tracks = parseInitSegment(source);
  units = parseFragment(source, tracks).map((unit) => {
    const hz = unit.kind === 'video' ? 90_000 : 48_000;
    const shift = (START_TICKS / 90_000) * hz;
    return { ...unit, dtsTicks: unit.dtsTicks + shift, ptsTicks: unit.ptsTicks + shift };
  });
  events = streamEvents(tracks, units, segmentStarts(2));
});

const segmentStarts = (seconds: number) =>
  Array.from({ length: DURATION_SECONDS / seconds }, (_, index) => START_TICKS + index * seconds * 90_000);

/** The files that a writer makes, each with its parts. */
function filesOf(made: readonly MovieEvent[]) {
  const files: {
    head: Uint8Array;
    startUnixMs: number;
    tracks: readonly Track[];
    fragments: Uint8Array[];
    entries: FragmentEntry[];
  }[] = [];
  for (const one of made) {
    if (one.type === 'file') files.push({ ...one, fragments: [], entries: [] });
    else {
      files.at(-1)?.fragments.push(one.bytes);
      files.at(-1)?.entries.push(one.entry);
    }
  }
  return files;
}

function write(stream: readonly StreamEvent[], writer = new MovieWriter()) {
  return filesOf([...stream.flatMap((event) => writer.push(event)), ...writer.end()]);
}

function only<T>(items: readonly T[]): T {
  const [item] = items;
  if (items.length !== 1 || item === undefined) throw new Error(`${items.length} where one is expected`);
  return item;
}

/** The file with its index written over the room for it. */
function finished({ head, tracks, fragments, entries }: ReturnType<typeof filesOf>[number]): Uint8Array {
  const indexAt = head.length - INDEX_SIZE_BYTES;
  return concatBytes([head.subarray(0, indexAt), movieIndex(tracks, entries), ...fragments]);
}

const hashesIn = (path: string) => frameHashes(path).map((line) => line.split(',').at(-1));

function probe(path: string, ...args: string[]): string {
  return execFileSync('ffprobe', ['-v', 'warning', ...args, '-of', 'csv=p=0', path], {
    encoding: 'utf8',
  }).trim();
}

describe('a movie file', () => {
  test('holds every picture and sound of the stream, from time 0', () => {
    const file = only(write(events));
    expect(file.startUnixMs).toBe(EPOCH_UNIX_MS + (START_TICKS / 90_000) * 1000);
    expect(file.entries.map(({ startTicks, endTicks }) => [startTicks, endTicks])).toEqual([
      [0, 180_000],
      [180_000, 360_000],
      [360_000, 540_000],
      [540_000, 720_000],
    ]);
    withTemporaryFolder((folder) => {
      const [original, growing, done] = ['a.mp4', 'b.mp4', 'c.mp4'].map((name) => join(folder, name)) as [
        string,
        string,
        string,
      ];
      writeFileSync(original, source);
      writeFileSync(growing, concatBytes([file.head, ...file.fragments]));
      writeFileSync(done, finished(file));
      for (const path of [growing, done]) {
        expect(hashesIn(path)).toEqual(hashesIn(original));
        expect(decodeWarnings(path)).toBe('');
        expect(Number(probe(path, '-show_entries', 'format=start_time'))).toBeLessThan(0.1);
      }
    });
  });

  test('has its length and its random access points in the index', () => {
    const file = only(write(events));
    withTemporaryFolder((folder) => {
      const path = join(folder, 'done.mp4');
      writeFileSync(path, finished(file));
      const seconds = Number(probe(path, '-show_entries', 'format=duration'));
      // The first picture is shown two frames after it is decoded, which FFmpeg counts twice.
      expect(seconds).toBeGreaterThanOrEqual(DURATION_SECONDS);
      expect(seconds).toBeLessThan(DURATION_SECONDS + 0.2);
      const original = join(folder, 'original.mp4');
      writeFileSync(original, source);
      const pictureAt = (seconds: string, file: string) =>
        sha256(ffmpeg('-ss', seconds, '-i', file, '-frames:v 1 -f rawvideo -'));
      for (const seconds of ['0', '3', '5', '7.5']) {
        expect(pictureAt(seconds, path)).toBe(pictureAt(seconds, original));
      }
      // FFmpeg enters a fragment or two before the one that holds the time, but not at the start of the file.
      const at7s = [
        '-read_intervals',
        '7%+#1',
        '-select_streams',
        'v',
        '-show_entries',
        'packet=flags,dts_time',
      ];
      expect(probe(path, ...at7s)).toMatch(/^[24]\.000000,K_$/);
    });
  });

  test('is a valid file after each fragment, and also cut anywhere within one', () => {
    const file = only(write(events));
    withTemporaryFolder((folder) => {
      const whole = join(folder, 'whole.mp4');
      const torn = join(folder, 'torn.mp4');
      writeFileSync(whole, concatBytes([file.head, ...file.fragments.slice(0, 2)]));
      expect(decodeWarnings(whole)).toBe('');
      expect(
        Number(
          probe(whole, '-count_packets', '-select_streams', 'v', '-show_entries', 'stream=nb_read_packets'),
        ),
      ).toBe(100);
      const third = file.fragments[2] ?? new Uint8Array(0);
      writeFileSync(
        torn,
        concatBytes([file.head, ...file.fragments.slice(0, 2), third.subarray(0, third.length / 2)]),
      );
      expect(hashesIn(torn).slice(0, 190)).toEqual(hashesIn(whole).slice(0, 190));
    });
  });

  test('loses at most 3 s with the process where key frames are far apart', () => {
    const file = only(write(streamEvents(tracks, units.map(withoutLaterKeyFrames), segmentStarts(8))));
    expect(file.entries.map(({ startTicks }) => startTicks)).toEqual([0, 270_000, 540_000]);
    expect(file.entries.map(({ isRandomAccess }) => isRandomAccess)).toEqual([true, false, false]);
    const [sidx] = readBoxes(movieIndex(file.tracks, file.entries));
    expect(sidx?.type).toBe('sidx');
    expect(sidx?.content.subarray(30, 32)).toEqual(Uint8Array.of(0, 1)); // one reference
  });

  test('of many hours has an index that fits', () => {
    const entries = Array.from({ length: 40_000 }, (_, index) => ({
      sizeBytes: 100,
      startTicks: index * 180_000,
      endTicks: (index + 1) * 180_000,
      presentationTicks: index * 180_000,
      isRandomAccess: true,
    }));
    const index = movieIndex(tracks, entries);
    expect(index).toHaveLength(INDEX_SIZE_BYTES);
    const [sidx, free] = readBoxes(index);
    expect([sidx?.type, free?.type]).toEqual(['sidx', 'free']);
    const view = new DataView(sidx?.content.buffer ?? new ArrayBuffer(0), sidx?.content.byteOffset);
    const count = view.getUint16(30);
    let [bytes, ticks] = [0, 0];
    for (let index = 0; index < count; index++) {
      bytes += view.getUint32(32 + index * 12);
      ticks += view.getUint32(36 + index * 12);
    }
    expect([bytes, ticks]).toEqual([4_000_000, 40_000 * 180_000]);
  });

  test('can have its index made from the fragments alone', () => {
    const file = only(write(events));
    let endTicks = 0;
    const read = file.fragments.map((bytes) => {
      const [moof] = readBoxes(bytes);
      const entry = readFragmentEntry(moof?.content ?? new Uint8Array(0), bytes.length, endTicks);
      endTicks = entry.endTicks;
      return entry;
    });
    expect(read).toEqual(file.entries);
  });
});

describe('a new movie file begins', () => {
  const firstDts = (file: ReturnType<typeof filesOf>[number]) =>
    parseFragment(file.fragments[0] ?? new Uint8Array(0), file.tracks)[0]?.dtsTicks;

  test('at the first random access point, not before', () => {
    const late = streamEvents(tracks, units, segmentStarts(2), (index) => ({ isIndependent: index > 0 }));
    const file = only(write(late));
    expect(firstDts(file)).toBe(0);
    expect(file.startUnixMs).toBe(EPOCH_UNIX_MS + (START_TICKS / 90_000) * 1000 + 2000);
  });

  test('where the configuration changes, and nowhere else', () => {
    const [picture, sound] = tracks;
    if (picture?.kind !== 'video' || sound === undefined) throw new Error('no video');
    const cues = events.flatMap((event, index) => (event.type === 'cue' ? [index] : []));
    const changed = events.map((event) =>
      event.type === 'cue' && event.cue.mediaSequenceNumber >= 2
        ? { ...event, cue: { ...event.cue, discontinuitySequence: 1 } }
        : event,
    );
    const announced = [picture, sound].map((track): StreamEvent => ({ type: 'track', track }));
    expect(write(changed.toSpliced((cues[2] ?? 0) + 1, 0, ...announced))).toHaveLength(1);

    const other = {
      ...picture,
      config: picture.config.map((byte, index) => (index === 3 ? byte + 1 : byte)),
    };
    const otherTracks = [other, sound].map((track): StreamEvent => ({ type: 'track', track }));
    const files = write(changed.toSpliced((cues[2] ?? 0) + 1, 0, ...otherTracks));
    expect(files.map(({ fragments }) => fragments.length)).toEqual([2, 2]);
    expect(files.map(firstDts)).toEqual([0, 0]);
    const total = files.flatMap(({ fragments, tracks }) =>
      fragments.flatMap((bytes) => parseFragment(bytes, tracks)),
    );
    expect(total).toHaveLength(units.length);
  });

  test('after a hole', () => {
    const cut = START_TICKS + 4 * 90_000;
    const moved = events.map((event): StreamEvent => {
      const shift = 60;
      if (event.type === 'cue' && event.cue.startTicks >= cut) {
        return { ...event, cue: { ...event.cue, startTicks: event.cue.startTicks + shift * 90_000 } };
      }
      if (event.type !== 'unit') return event;
      const { unit } = event;
      const hz = unit.kind === 'video' ? 90_000 : 48_000;
      if (unit.dtsTicks < (cut / 90_000) * hz) return event;
      return {
        ...event,
        unit: { ...unit, dtsTicks: unit.dtsTicks + shift * hz, ptsTicks: unit.ptsTicks + shift * hz },
      };
    });
    const files = write(moved);
    expect(files.map(({ entries }) => entries.at(-1)?.endTicks)).toEqual([360_000, 360_000]);
  });

  test('at whole multiples of the time asked for', () => {
    const files = write(events, new MovieWriter({ fileDurationMs: 4000 }));
    expect(files.map(({ startUnixMs }) => startUnixMs % 4000)).toEqual([0, 0]);
    expect(files.map(({ fragments }) => fragments.length)).toEqual([2, 2]);
  });

  test('with the next segment, once it is asked for', () => {
    const writer = new MovieWriter();
    const cue = events.findIndex((event) => event.type === 'cue' && event.cue.mediaSequenceNumber === 1);
    const made = events.slice(0, cue - 10).flatMap((event) => writer.push(event));
    writer.beginFile();
    made.push(...events.slice(cue - 10).flatMap((event) => writer.push(event)), ...writer.end());
    expect(filesOf(made).map(({ fragments }) => fragments.length)).toEqual([1, 3]);
  });
});

test('the largest picture and all sound are written', () => {
  const [picture, sound] = tracks;
  if (picture?.kind !== 'video' || sound === undefined) throw new Error('no video');
  const ladder: Track[] = [
    { ...picture, trackId: 0, heightPx: 90 },
    { ...picture, trackId: 1, heightPx: 360 },
    { ...sound, trackId: 0 },
    { ...sound, trackId: 1 },
  ];
  const copies = units.flatMap((unit) => [unit, { ...unit, trackId: 1 }]);
  const file = only(write(streamEvents(ladder, copies, segmentStarts(2))));
  expect(file.tracks.map(({ kind, trackId }) => `${kind} ${trackId}`)).toEqual([
    'video 1',
    'audio 0',
    'audio 1',
  ]);
  expect(file.tracks.map(timescaleHz)).toEqual([90_000, 48_000, 48_000]);
});

test('a box header is read once enough of it is there', () => {
  expect(readBoxHeader(Uint8Array.of(0, 0, 0, 16, 0x6d, 0x6f, 0x6f))).toBeUndefined();
  expect(readBoxHeader(Uint8Array.of(0, 0, 0, 16, 0x6d, 0x6f, 0x6f, 0x66))).toEqual({
    type: 'moof',
    sizeBytes: 16,
    headerSizeBytes: 8,
  });
  expect(readBoxHeader(Uint8Array.of(0, 0, 0, 1, 0x6d, 0x64, 0x61, 0x74, 0, 0, 0, 1, 0, 0, 0, 2))).toEqual({
    type: 'mdat',
    sizeBytes: 2 ** 32 + 2,
    headerSizeBytes: 16,
  });
});

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

function withoutLaterKeyFrames(unit: AccessUnit, index: number): AccessUnit {
  return unit.kind === 'video' && index > 0 ? { ...unit, isRandomAccess: false } : unit;
}
