/** The recordings on a real disk: whole files or none, two writers, bounds, a restart, a disk that is full. */
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { StreamEvent } from '@starling/media/access-unit';
import type { Segment } from '@starling/media/hls/segmenter';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { DvrStore, type DvrStoreOptions, GRACE_MS } from '../src/dvr-store.ts';
import { Stream } from '../src/stream.ts';
import { head, segment } from './synthetic-channel.ts';

const EPOCH_UNIX_MS = 1_700_000_000_000;
const SEGMENT_MS = 2000;
/** Of the synthetic channel's time line. */
const timeOf = (number: number) => EPOCH_UNIX_MS + number * SEGMENT_MS;

let dir: string;
let stores: DvrStore[];
let log: { level: number; msg: string }[];
let dropped: string[];
let nowUnixMs: number;

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'starling-dvr-'));
  stores = [];
  log = [];
  dropped = [];
  nowUnixMs = 0;
});
afterEach(async () => {
  for (const store of stores) await store.close();
  rmSync(dir, { recursive: true, force: true });
});

async function open(options: Partial<DvrStoreOptions> = {}): Promise<DvrStore> {
  const store = await DvrStore.open({
    dir,
    windowMs: 3_600_000,
    maxBytes: 2 ** 30,
    logger: pino({}, { write: (line: string) => log.push(JSON.parse(line)) }),
    onDropped: (channel) => dropped.push(channel),
    nowUnixMs: () => nowUnixMs,
    ...options,
  });
  stores.push(store);
  return store;
}

/** What a frontend makes of these segments of the synthetic channel. */
function made(numbers: readonly number[], unitBytes = 200): Segment[] {
  const stream = new Stream({
    channel: 'test',
    partTargetMs: 400,
    windowDurationMs: 30_000,
    logger: pino({ level: 'silent' }),
  });
  const segments: Segment[] = [];
  stream.listen({
    made: (_rendition, event) => {
      if (event.type === 'segment') segments.push(event.segment);
    },
  });
  const publisher = stream.addPublisher();
  const push = (events: readonly StreamEvent[]) => {
    for (const event of events) publisher.event(event, 1);
  };
  push(head);
  // Each of them whole: the next cue ends it.
  for (const number of numbers)
    push([...segment(number, unitBytes), ...segment(number + 1, unitBytes).slice(0, 2)]);
  return segments.filter(({ cue }) => numbers.includes(cue.mediaSequenceNumber));
}

const range = (first: number, last: number) => Array.from({ length: last - first + 1 }, (_, i) => first + i);
const bytesOf = ({ parts }: Segment) => Buffer.concat(parts.map(({ bytes }) => bytes));
const numbers = (store: DvrStore, channel = 'tv') =>
  store.listed(channel, 'main').map(({ mediaSequenceNumber }) => mediaSequenceNumber);
const folder = () => join(dir, 'tv', 'main');
const files = () => readdirSync(folder()).toSorted();
const segmentFiles = () => files().filter((name) => name.endsWith('.m4s'));

async function record(store: DvrStore, segments: readonly Segment[], channel = 'tv'): Promise<void> {
  for (const one of segments) store.add(channel, 'main', one);
  await store.flush();
}

describe('a recording', () => {
  it('has the bytes of the live segment, and says in the file name what a playlist says', async () => {
    const store = await open();
    const [one] = made([5]);
    if (one === undefined) throw new Error('no segment was made');
    await record(store, [one]);
    const size = bytesOf(one).length;
    expect(files()).toEqual([
      `${timeOf(5)}-5-0-${5 * 180_000}-180000-2000-i-${one.init.id}-${size}.m4s`,
      `init-${one.init.id}.mp4`,
    ]);
    expect(readFileSync(join(folder(), segmentFiles()[0] ?? ''))).toEqual(bytesOf(one));
    expect(await store.readInit('tv', 'main', one.init.id)).toEqual(Buffer.from(one.init.bytes));
    expect(statSync(folder()).mode & 0o077).toBe(0); // a private channel's pictures
  });

  it('is there again after a restart, with its tracks', async () => {
    const segments = made(range(5, 9));
    const before = await open();
    await record(before, segments);
    await before.close();
    const after = await open();
    expect(after.listed('tv', 'main')).toEqual(before.listed('tv', 'main'));
    const tracks = await after.tracks('tv', 'main', segments[0]?.init.id ?? '');
    expect(tracks?.map(({ kind, trackId, codecString }) => [kind, trackId, codecString])).toEqual([
      ['video', 0, 'avc1.42c00a'],
      ['audio', 0, 'mp4a.40.2'],
    ]);
    await record(after, made(range(8, 11))); // a publisher starts a little earlier than the last one stopped
    expect(numbers(after)).toEqual(range(5, 11));
  });

  it('keeps the language of a sound track, which the init segment does not hold', async () => {
    const [one] = made([5]);
    if (one === undefined) throw new Error('no segment was made');
    const tracks = one.init.tracks.flatMap((track) =>
      track.kind === 'audio' ? [{ ...track, language: 'pt-BR', trackId: 2 }] : [],
    );
    const before = await open();
    before.add('tv', 'audio-2', { ...one, init: { ...one.init, tracks } });
    await before.close();
    const after = await open();
    const read = await after.tracks('tv', 'audio-2', one.init.id);
    expect(read?.find(({ kind }) => kind === 'audio')).toMatchObject({ language: 'pt-BR', trackId: 2 });
  });

  it('loses to a kill or a power cut only what was not whole', async () => {
    const before = await open();
    await record(before, made(range(5, 9)));
    await before.close();
    const torn = segmentFiles().at(-1) ?? '';
    truncateSync(join(folder(), torn), 100);
    const temporary = 'tmp-01234567-89ab-4cde-8f01-23456789abcd';
    const fresh = 'tmp-fedcba98-89ab-4cde-8f01-23456789abcd';
    for (const name of [temporary, fresh, 'notes.txt']) writeFileSync(join(folder(), name), 'half a segment');
    nowUnixMs = Date.now();
    utimesSync(join(folder(), temporary), nowUnixMs / 1000 - 61, nowUnixMs / 1000 - 61);
    const after = await open({ windowMs: 1e13 });
    expect(numbers(after)).toEqual(range(5, 8));
    // What another process may be writing, and what is somebody else's, stays.
    expect(files().filter((name) => !name.startsWith('1'))).toEqual([
      expect.stringMatching(/^init-/),
      'notes.txt',
      fresh,
    ]);
    expect(existsSync(join(folder(), torn))).toBe(false);
  });

  it('says so when a channel comes back with a clock that was set back', async () => {
    const store = await open();
    await record(store, made(range(5, 6)));
    const [again] = made([7]);
    if (again === undefined) throw new Error('no segment was made');
    const cue = { ...again.cue, programDateTimeUnixMs: timeOf(2) };
    await record(store, [{ ...again, cue }]);
    expect(numbers(store)).toEqual([5, 6]);
    expect(log.at(-1)?.msg).toContain("the clock of the channel's backend was set back");
  });

  it('that lost its init segment is not listed', async () => {
    const before = await open();
    await record(before, made(range(5, 6)));
    await before.close();
    for (const name of files()) if (name.startsWith('init-')) unlinkSync(join(folder(), name));
    expect(numbers(await open())).toEqual([]);
  });
});

describe('two frontends that share a folder', () => {
  it('write each file once, and have the same list', async () => {
    const [one, other] = [await open(), await open()];
    for (const segment of made(range(5, 14))) {
      one.add('tv', 'main', segment);
      other.add('tv', 'main', segment);
    }
    await Promise.all([one.flush(), other.flush()]);
    expect(segmentFiles()).toHaveLength(10);
    expect(files()).toHaveLength(11);
    expect(one.listed('tv', 'main')).toEqual(other.listed('tv', 'main'));
  });

  it('take from each other what one of them missed', async () => {
    const [one, other] = [await open(), await open()];
    await record(one, made(range(5, 9)));
    await record(other, made([5, 8]));
    expect(numbers(other)).toEqual(range(5, 9));
    await record(other, made([12]));
    expect(numbers(other)).toEqual([5, 6, 7, 8, 9, 12]);
    await record(one, made(range(10, 12)));
    // A list that players have does not change in the middle.
    await record(other, made([13]));
    expect(numbers(other)).toEqual([5, 6, 7, 8, 9, 12, 13]);
    expect(numbers(await open())).toEqual(range(5, 13));
  });
});

describe('the bounds', () => {
  it('list the newest hours, and keep a little longer what was listed until then', async () => {
    const store = await open({ windowMs: 10 * SEGMENT_MS });
    await record(store, made(range(1, 40)));
    expect(numbers(store)).toEqual(range(31, 40));
    expect(segmentFiles()).toHaveLength(40);
    const graceSegments = GRACE_MS / SEGMENT_MS;
    await record(store, made(range(41, 50 + graceSegments)));
    const newest = 50 + graceSegments;
    expect(numbers(store)).toEqual(range(newest - 9, newest));
    expect(segmentFiles()).toHaveLength(10 + graceSegments);
    expect(store.segment('tv', 'main', newest - 9 - graceSegments)).toBeDefined();
    expect(store.segment('tv', 'main', newest - 10 - graceSegments)).toBeUndefined();
  });

  it('let a list of a stretch that grows keep its start as long as it grows', async () => {
    const store = await open({ windowMs: 10 * SEGMENT_MS });
    await record(store, made(range(1, 20)));
    const from = timeOf(11) + 500; // inside of segment 11, the first that is listed
    const stretch = () =>
      store.within('tv', 'main', from, from + 10 * SEGMENT_MS).map((one) => one.mediaSequenceNumber);
    expect(stretch()).toEqual(range(11, 20));
    await record(store, made([21]));
    expect(numbers(store)).toEqual(range(12, 21));
    expect(stretch()).toEqual(range(11, 21));
    await record(store, made(range(22, 30)));
    expect(stretch()).toEqual(range(11, 21));
  });

  it('take bytes from the largest channel first, and never exceed them', async () => {
    const [small, large] = [made(range(1, 20)), made(range(1, 20), 2000)];
    const size = (segments: readonly Segment[]) => segments.reduce((sum, one) => sum + one.sizeBytes, 0);
    const maxBytes = size(small) + Math.floor(size(large) / 2);
    const store = await open({ maxBytes });
    for (const index of small.keys()) {
      await record(store, small.slice(index, index + 1), 'small');
      await record(store, large.slice(index, index + 1), 'large');
    }
    expect(numbers(store, 'small')).toEqual(range(1, 20));
    const left = numbers(store, 'large');
    expect(left.at(-1)).toBe(20);
    expect(left.length).toBeGreaterThan(6);
    expect(left.length).toBeLessThan(10);
    const onDisk = (channel: string) =>
      readdirSync(join(dir, channel, 'main'))
        .filter((name) => name.endsWith('.m4s'))
        .reduce((sum, name) => sum + statSync(join(dir, channel, 'main', name)).size, 0);
    expect(onDisk('small') + onDisk('large')).toBeLessThanOrEqual(maxBytes);
    expect(store.figures().map(({ sizeBytes }) => sizeBytes)).toEqual([onDisk('small'), onDisk('large')]);
    // What is listed no more is kept for a while.
    expect(store.segment('large', 'main', (left[0] ?? 0) - 1)).toBeDefined();
  });

  it('remove a channel that left the air once its window is over, and its folder', async () => {
    const before = await open({ windowMs: 10 * SEGMENT_MS });
    await record(before, made(range(1, 5)));
    await before.close();
    nowUnixMs = timeOf(6) + 50_000; // not yet off the air
    const still = await open({ windowMs: 10 * SEGMENT_MS });
    expect(numbers(still)).toEqual(range(1, 5));
    await still.close();
    nowUnixMs = timeOf(6) + 70_000;
    const off = await open({ windowMs: 10 * SEGMENT_MS });
    expect(numbers(off)).toEqual([]);
    expect(segmentFiles()).toHaveLength(5);
    await off.close();
    nowUnixMs = timeOf(16) + GRACE_MS;
    const gone = await open({ windowMs: 10 * SEGMENT_MS });
    await gone.flush();
    gone.trim();
    await gone.flush();
    expect(readdirSync(dir)).toEqual([]);
    expect(gone.figures()).toEqual([]);
  });

  it('remove an init segment with the last segment that needs it', async () => {
    const store = await open({ windowMs: 10 * SEGMENT_MS });
    const [first, ...rest] = made(range(1, 170));
    if (first === undefined) throw new Error('no segment was made');
    const init = { ...first.init, id: 'ffffffffffffffff' };
    await record(store, [{ ...first, init }, ...rest.slice(0, 9)]);
    expect(files().filter((name) => name.startsWith('init-'))).toHaveLength(2);
    await record(store, rest.slice(9));
    expect(files().filter((name) => name.startsWith('init-'))).toEqual([`init-${first.init.id}.mp4`]);
  });
});

describe('a disk that does not take more', () => {
  it('costs segments, says so once, and is used again when it is well', async () => {
    const mounted = join(dir, 'small');
    mkdirSync(mounted);
    if (!mountSmallDisk(mounted)) mkdirSync(join(mounted, 'tv'), { mode: 0o500 }); // not root: the next best thing
    try {
      const filler = join(mounted, 'filler');
      const store = await open({ dir: mounted });
      writeFileSync(filler, '');
      fill(filler);
      await record(store, made(range(1, 3)));
      expect(dropped).toEqual(['tv', 'tv', 'tv']);
      expect(numbers(store)).toEqual([]);
      const alarms = log.filter(({ level }) => level >= 50);
      expect(alarms.map(({ msg }) => msg)).toEqual([
        expect.stringMatching(
          /^segments are not recorded for rewinding: (the disk is full|EACCES)\. Live goes on$/,
        ),
      ]);
      unlinkSync(filler);
      chmodSync(join(mounted, 'tv'), 0o700);
      await record(store, made([4]));
      expect(numbers(store)).toEqual([4]);
      const left = readdirSync(mounted, { recursive: true }).map(String);
      expect(left.filter((name) => name.includes('tmp-'))).toEqual([]);
      expect(log.at(-1)?.msg).toBe('segments are recorded for rewinding again');
    } finally {
      unmount(mounted);
    }
  });

  it('that is slow never makes more than the queue wait', async () => {
    const segments = made(range(1, 5));
    const [first] = segments;
    const store = await open({ maxQueuedBytes: Math.floor((first?.sizeBytes ?? 0) * 2.5) });
    for (const one of segments) store.add('tv', 'main', one); // the disk has had no chance yet
    expect(dropped).toEqual(['tv', 'tv', 'tv']);
    await store.flush();
    expect(numbers(store)).toEqual([1, 2]);
    await record(store, made([6]));
    expect(numbers(store)).toEqual([1, 2, 6]);
  });

  it('does not keep a frontend from starting', async () => {
    const file = join(dir, 'a-file');
    writeFileSync(file, '');
    const store = await open({ dir: join(file, 'dvr') });
    await record(store, made([1]));
    expect(dropped).toEqual(['tv']);
    expect(log[0]).toMatchObject({ level: 50, msg: 'the recordings of before cannot be read' });
  });
});

/** A disk of 4 MiB, as root. */
function mountSmallDisk(path: string): boolean {
  if (process.getuid?.() !== 0 || !existsSync('/bin/mount')) return false;
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', path], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

function unmount(path: string): void {
  try {
    execFileSync('umount', [path], { stdio: 'ignore' });
  } catch {
    // It was not mounted.
  }
}

/** Takes all that is left on a small disk; harmless on a large one. */
function fill(path: string): void {
  try {
    writeFileSync(path, Buffer.alloc(4 * 2 ** 20));
  } catch {
    // It is full now.
  }
}
