import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import type {
  AlwaysRecord,
  RecordingOrders,
  RecordingReport,
  ReportedRecording,
} from '@starling/model/recording';
import { Channel } from '@starling/net/channel';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { Recordings, type RecordingsOptions } from '../src/recordings.ts';
import { ffmpeg, ffprobe } from './flash-and-beep.ts';
import { bundleProgram } from './node-program.ts';
import { makeMovie, type RecordedStream, streamOf } from './recorded-stream.ts';

const work = mkdtempSync(join(tmpdir(), 'starling-recordings-'));
const ID = '0123456789abcdef';
let movie: Buffer;
let stream: RecordedStream;
let otherStream: RecordedStream;
let dir: string;
let channel: Channel;
let reports: Map<string, ReportedRecording>;
let removed: string[];
let opened: Recordings[];

beforeAll(async () => {
  movie = await makeMovie('160x90');
  stream = streamOf(movie);
  otherStream = streamOf(await makeMovie('320x180'));
}, 60_000);
afterAll(() => rmSync(work, { recursive: true, force: true }));

beforeEach(() => {
  dir = mkdtempSync(join(work, 'dir-'));
  reports = new Map();
  removed = [];
  opened = [];
  channel = newChannel(stream);
});
afterEach(async () => {
  for (const recordings of opened) await recordings.close();
});

function newChannel({ tracks }: RecordedStream): Channel {
  const made = new Channel('films');
  made.push(tracks.map((track) => ({ type: 'track', track })));
  return made;
}

function open(options: Partial<RecordingsOptions> = {}): Recordings {
  const recordings = new Recordings({
    dir,
    nodeId: 'a'.repeat(16),
    coordinator: {
      reportRecordings: async (report: RecordingReport) => {
        for (const one of report.recordings) reports.set(one.id, one);
        removed.push(...report.removedIds);
      },
    },
    logger: pino({ level: 'silent' }),
    registry: new Registry(),
    nowUnixMs: Date.now,
    tracksOf: () => stream.tracks,
    minFreeBytes: 0,
    ...options,
  });
  opened.push(recordings);
  return recordings;
}

const createdAt = '2026-01-01T00:00:00.000Z';
const ordered: RecordingOrders = {
  wanted: [{ id: ID, name: 'Film', channel: 'films', stream: null, createdAt }],
  removedIds: [],
};
const nothing: RecordingOrders = { wanted: [], removedIds: [] };
const on = (source: Channel | undefined, record: AlwaysRecord | null = null) =>
  new Map([['films', { record, source }]]);

/** Waits for what is told to the coordinator. */
function told(id: string, matches: (report: ReportedRecording) => boolean): Promise<ReportedRecording> {
  return vi.waitFor(
    () => {
      const report = reports.get(id);
      if (report === undefined || !matches(report)) throw new Error(`not told: ${JSON.stringify(report)}`);
      return report;
    },
    { timeout: 15_000, interval: 10 },
  );
}

/** Gives the recordings their orders, and waits until they listen. */
async function begin(recordings: Recordings, orders = ordered, channels = on(channel)): Promise<void> {
  const tap = vi.spyOn(channel, 'tap');
  recordings.update(orders, channels);
  await vi.waitFor(() => expect(tap).toHaveBeenCalled());
}

/** Pictures that play, after FFmpeg has found nothing to complain about. */
async function framesIn(path: string): Promise<number> {
  await ffmpeg('-xerror', ['-i', path], '-f null -');
  const [count] = await ffprobe(
    path,
    '-count_frames',
    '-select_streams',
    'v',
    '-show_entries',
    'stream=nb_read_frames',
  );
  return Number(count);
}

describe('a recording that is asked for', () => {
  test('holds what was on from the next segment to its stop', async () => {
    const recordings = open();
    await begin(recordings);
    for (let number = 5; number < 9; number++) channel.push(stream.gop(number));
    recordings.update(nothing, on(channel));
    channel.push(stream.gop(9));
    const { parts, end, isRecording } = await told(ID, (report) => report.end !== null);
    expect([end?.reason, isRecording]).toEqual(['stopped', false]);
    expect(parts).toMatchObject([{ number: 1, startedAt: '2026-01-01T00:00:10.000Z', durationMs: 8000 }]);
    expect(await framesIn(parts[0]?.path ?? '')).toBe(200);
  });

  test('goes on with a new file where the codec configuration changes', async () => {
    const recordings = open();
    await begin(recordings);
    for (let number = 0; number < 2; number++) channel.push(stream.gop(number));
    const [cue, ...units] = otherStream.gop(2, { discontinuitySequence: 1 });
    const tracks = otherStream.tracks.map((track) => ({ type: 'track', track }) as const);
    channel.push([...(cue === undefined ? [] : [cue]), ...tracks, ...units]);
    recordings.update(nothing, on(channel));
    const { parts } = await told(ID, (report) => report.end !== null);
    expect(parts.map(({ durationMs }) => durationMs)).toEqual([4000, 2000]);
    const sizes = await Promise.all(
      parts.map(({ path }) =>
        ffprobe(
          path,
          '-select_streams',
          'v',
          '-show_entries',
          'stream=width,nb_read_frames',
          '-count_frames',
        ),
      ),
    );
    expect(sizes.flat()).toEqual(['160,100', '320,50']);
  });

  test('of a stream holds what its encoder sends', async () => {
    const tracksOf = vi.fn(() => stream.tracks);
    const recordings = open({ tracksOf });
    const order = { id: ID, name: 'Cam', channel: null, stream: 'cam', createdAt };
    recordings.update({ wanted: [order], removedIds: [] }, new Map());
    await vi.waitFor(() => expect(tracksOf).toHaveBeenCalledWith('cam'));
    for (let number = 0; number < 4; number++) {
      for (const event of stream.gop(number)) recordings.streamEvent('cam', event);
    }
    recordings.streamEnded('cam');
    recordings.update(nothing, new Map());
    const { parts, stream: source } = await told(ID, (report) => report.end !== null);
    expect(source).toBe('cam');
    expect(await framesIn(parts[0]?.path ?? '')).toBe(200);
  });

  test('is deleted with its folder', async () => {
    const recordings = open();
    await begin(recordings);
    for (let number = 0; number < 3; number++) channel.push(stream.gop(number));
    await told(ID, ({ parts }) => parts.length === 1);
    recordings.update({ wanted: [], removedIds: [ID] }, on(channel));
    await vi.waitFor(() => expect(removed).toContain(ID));
    expect(readdirSync(dir)).toEqual([]);
  });
});

describe('when the disk is full', () => {
  test('the recording ends and says so, and the channel plays on', async () => {
    const recordings = open({ minFreeBytes: Number.MAX_SAFE_INTEGER });
    await begin(recordings);
    for (let number = 0; number < 3; number++) channel.push(stream.gop(number));
    const { end, parts } = await told(ID, (report) => report.end !== null);
    expect([end?.reason, parts]).toEqual(['disk-full', []]);
    const send = vi.fn();
    channel.join({ isDrained: true, send, whenDrained: async () => {}, overtaken: () => {} });
    channel.push(stream.gop(3));
    expect(send).toHaveBeenCalled();
  });

  test('a folder that cannot be written to is told, too', async () => {
    const recordings = open();
    await begin(recordings);
    rmSync(dir, { recursive: true });
    writeFileSync(dir, '');
    for (let number = 0; number < 3; number++) channel.push(stream.gop(number));
    expect((await told(ID, (report) => report.end !== null)).end?.reason).toBe('disk-failed');
  });
});

describe('a channel that is always recorded', () => {
  /** Waits until the recording that starts then is told. */
  const startOf = (createdAt: string) =>
    vi.waitFor(() => expect(allOf().map((one) => one.createdAt)).toContain(createdAt), { timeout: 15_000 });
  const allOf = () => [...reports.values()].filter(({ id }) => !removed.includes(id));

  test('has a recording for each stretch of time, and the oldest give way', async () => {
    // A quarter of the bound to a recording: 8 s.
    const record = { maxHours: 32 / 3600, maxBytes: null };
    const recordings = open({ nowUnixMs: () => Date.UTC(2026, 0, 1, 0, 1, 20) });
    await begin(recordings, nothing, on(channel, record));
    for (let number = 0; number < 40; number++) channel.push(stream.gop(number));
    await startOf('2026-01-01T00:01:12.000Z');
    const kept = allOf().sort((a, b) => (a.createdAt < b.createdAt ? -1 : 1));
    // At 80 s what ended before 48 s is gone.
    expect(kept.map(({ createdAt }) => Date.parse(createdAt) - Date.UTC(2026, 0, 1))).toEqual([
      40_000, 48_000, 56_000, 64_000, 72_000,
    ]);
    expect(readdirSync(dir).sort()).toEqual(kept.map(({ id }) => id).sort());
  });

  test('keeps to its bound in bytes', async () => {
    const gopBytes = stream
      .gop(0)
      .reduce((sum, event) => sum + (event.type === 'unit' ? event.unit.data.length : 0), 0);
    const record = { maxHours: null, maxBytes: gopBytes * 20 };
    const recordings = open();
    await begin(recordings, nothing, on(channel, record));
    for (let number = 0; number < 60; number++) channel.push(stream.gop(number));
    await startOf('2026-01-01T00:01:58.000Z');
    const totalBytes = allOf()
      .flatMap(({ parts }) => parts)
      .reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    expect(removed.length).toBeGreaterThan(3);
    // The one that was being made when the bound was last kept has grown since.
    expect(totalBytes).toBeLessThan(record.maxBytes * 1.35);
  });
});

describe('kill -9', () => {
  test('costs no more than the fragment that was being made, and the recording goes on', async () => {
    const program = await bundleProgram('recorder-process.ts');
    try {
      const moviePath = join(work, 'source.mp4');
      writeFileSync(moviePath, movie);
      const child = spawn(process.execPath, [program, dir, ID, moviePath], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      let gopCount = 0;
      for await (const line of createInterface({ input: child.stdout })) {
        gopCount = Number(line);
        if (gopCount === 7) break;
      }
      child.kill('SIGKILL');
      await once(child, 'exit');
    } finally {
      rmSync(dirname(program), { recursive: true, force: true });
    }
    // As if it had been killed in the midst of a write.
    appendFileSync(join(dir, ID, 'part-1.mp4'), Buffer.from('0000ffff6d6f6f66000000106d666864', 'hex'));

    const recordings = open();
    await begin(recordings);
    for (let number = 20; number < 23; number++) channel.push(stream.gop(number));
    recordings.update(nothing, on(channel));
    const { parts } = await told(ID, (report) => report.end !== null);
    // Six groups at the least; the child may have gone on until the signal came.
    expect(parts[0]?.durationMs).toBeGreaterThanOrEqual(12_000);
    expect(parts[0]?.durationMs).toBe(Math.floor((parts[0]?.durationMs ?? 0) / 2000) * 2000);
    expect(await framesIn(parts[0]?.path ?? '')).toBe((parts[0]?.durationMs ?? 0) / 40);
    expect(parts[1]).toMatchObject({ number: 2, durationMs: 6000 });
    expect(await framesIn(parts[1]?.path ?? '')).toBe(150);
  }, 60_000);

  test('ends a recording that nobody wants any more', async () => {
    const first = open();
    await begin(first);
    for (let number = 0; number < 3; number++) channel.push(stream.gop(number));
    await told(ID, ({ parts }) => parts.length === 1);
    await first.close();
    reports.clear();
    const second = open();
    second.update(nothing, on(channel));
    const { end, parts } = await told(ID, (report) => report.end !== null);
    expect(end?.reason).toBe('interrupted');
    expect(parts.map(({ durationMs }) => durationMs)).toEqual([6000]);
  });
});
