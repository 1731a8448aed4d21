import { mkdir, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  AAC_SAMPLES_PER_UNIT,
  type AccessUnit,
  type StreamEvent,
  type Track,
  trackIndex,
} from '@starling/media/access-unit';
import { concatBytes } from '@starling/media/bytes';
import { aacTrack } from '@starling/media/codec/aac';
import { avcTrack } from '@starling/media/codec/avc';
import { FlvDemuxer } from '@starling/media/flv/demux';
import { fragment } from '@starling/media/fmp4/fragment';
import { initSegment } from '@starling/media/fmp4/init-segment';
import { ChunkReader } from '@starling/media/rtmp/chunk';
import { compareTicks } from '@starling/media/time';
import { defaultLibrarySettings, type LibrarySettings } from '@starling/model/library';
import { editRuns, extendRuns } from '@starling/model/runs';
import { type AssetFacts, numberedOn, type Run, segmentStartTicks } from '@starling/model/schedule';
import type { Schedule } from '@starling/model/schedule-definition';
import { Stretches } from '@starling/model/stretches';
import { Channel, type Joiner } from '@starling/net/channel';
import fc from 'fast-check';
import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { ffmpeg, findFlashesAndBeeps, makeFlashAndBeep } from '../test/flash-and-beep.ts';
import { AssetFile } from './asset-file.ts';
import { AssetWriter } from './asset-writer.ts';
import { BackendError } from './error.ts';
import { type HouseFrameRate, planAsset, RUNGS } from './house-format.ts';
import { Library } from './library.ts';
import { Playout, type PlayoutProgramme } from './playout.ts';
import { PlayoutHistory } from './playout-history.ts';

const SECOND = 90_000;
const EPOCH_UNIX_MS = 1_700_000_000_000;
const logger = pino({ level: 'silent' });
let dir: string;
const files = new Map<string, AssetFile>();
const assets = new Map<string, AssetFacts>();

/** The avcC of x264 at 1280x720, high profile, level 3.2, with the timing that is removed at import. */
const VIDEO = avcTrack(
  Buffer.from(
    '01640020ffe1001d67640020acb402802dd80b50101014000003000400000301e03c60ca80' + '01000568ef05f2c0fdf8f800',
    'hex',
  ),
);
const STEREO = aacTrack(Uint8Array.of(0x11, 0x90)); // AAC-LC, 48 kHz, 2 channels
const MONO = aacTrack(Uint8Array.of(0x11, 0x88));

/** An asset whose units are a few bytes that say which they are. */
async function makeAsset(
  id: string,
  seconds: number,
  frameRate: HouseFrameRate,
  audio = STEREO,
): Promise<void> {
  const folder = join(dir, id);
  await mkdir(folder);
  const plan = planAsset(seconds, frameRate);
  const audioTracks = [{ language: null, loudnessLufs: null, gainDb: 0 }];
  const writer = await AssetWriter.create(folder, { plan, rungs: [RUNGS['720p']], audioTracks });
  await writer.push([
    { type: 'track', track: VIDEO },
    { type: 'track', track: audio },
  ]);
  const unit = (kind: 'video' | 'audio', index: number, hz: number, perSecond: number): StreamEvent => {
    const ticks = Math.round((index * hz) / perSecond);
    const isRandomAccess = kind === 'audio' || plan.gopStartFrames.includes(index);
    const data = new TextEncoder().encode(`${id} ${kind} ${index}`);
    return {
      type: 'unit',
      unit: { kind, trackId: 0, dtsTicks: ticks, ptsTicks: ticks, isRandomAccess, data },
    };
  };
  let nextAudio = -1; // the encoder's priming
  for (let frame = 0; frame < plan.frameCount; frame++) {
    await writer.push([unit('video', frame, 90_000, frameRate)]);
    while (nextAudio < plan.audioUnitCount && nextAudio * 1024 * frameRate < (frame + 1) * 48_000) {
      await writer.push([unit('audio', nextAudio++, 48_000, 46.875)]);
    }
  }
  const media = await writer.finish(Buffer.from(id.padEnd(32, '.')).toString('hex'));
  const facts = { ...media, subtitles: [], hasPictures: false };
  await writer.writeIndex(facts);
  await writer.close();
  files.set(facts.contentHash, await AssetFile.open(folder));
  assets.set(id, facts);
}

function factsOf(id: string): AssetFacts {
  const facts = assets.get(id);
  if (!facts) throw new Error(`no asset ${id}`);
  return facts;
}

const openAsset = async (contentHash: string) => {
  const file = files.get(contentHash);
  if (!file) throw new BackendError('ASSET_MISSING', 'The asset is not there.');
  return file;
};

function programme(...runs: Run[]): PlayoutProgramme {
  return { runs, assets, epochUnixMs: EPOCH_UNIX_MS };
}

function run(startTicks: number, ...loop: string[]): Run {
  return { startTicks, firstMediaSequenceNumber: 0, firstDiscontinuitySequence: 0, loop };
}

function playoutOf(shown: PlayoutProgramme, startTicks: number): Playout {
  return new Playout({ programme: shown, openAsset, startTicks, logger });
}

/** Plays up to a time in steps, as fast as it goes. */
async function play(
  playout: Playout,
  fromTicks: number,
  untilTicks: number,
  stepTicks = SECOND,
): Promise<StreamEvent[]> {
  const events: StreamEvent[] = [];
  for (let ticks = fromTicks; ticks < untilTicks; ticks += stepTicks) {
    await playout.readAhead();
    events.push(...playout.eventsUntil(Math.min(ticks + stepTicks, untilTicks)));
  }
  // In a long step there may be more than is kept in memory.
  for (let rest: StreamEvent[] | undefined; rest?.length !== 0; events.push(...rest)) {
    await playout.readAhead();
    rest = playout.eventsUntil(untilTicks);
  }
  return events;
}

const unitsOf = (events: readonly StreamEvent[]) =>
  events.flatMap((event) => (event.type === 'unit' ? [event.unit] : []));
const cuesOf = (events: readonly StreamEvent[]) =>
  events.flatMap((event) => (event.type === 'cue' ? [event.cue] : []));
const hzOf = (unit: AccessUnit) => (unit.kind === 'video' ? 90_000 : 48_000);
const textOf = (unit: AccessUnit | undefined) => new TextDecoder().decode(unit?.data);

/** Checks all that the contract in access-unit.ts promises of a playout without missing assets. */
function expectUnbroken(events: readonly StreamEvent[], { hasCuts = false } = {}): void {
  expect(events.slice(0, 4).map((event) => event.type)).toEqual(['timeline', 'track', 'track', 'cue']);
  let last: AccessUnit | undefined;
  const next = new Map<string, number>();
  let cue: ReturnType<typeof cuesOf>[number] | undefined;
  let isAfterCue = false;
  for (const [i, event] of events.entries()) {
    if (event.type === 'cue') {
      if (cue) {
        expect(event.cue.mediaSequenceNumber).toBe(cue.mediaSequenceNumber + 1);
        expect(event.cue.discontinuitySequence).toBeGreaterThanOrEqual(cue.discontinuitySequence);
        // Half a second more than two rounds to two.
        expect(event.cue.startTicks - cue.startTicks).toBeLessThan(hasCuts ? 2.5 * SECOND : 2 * SECOND + 1);
      }
      cue = event.cue;
      isAfterCue = true;
    }
    if (event.type === 'track' && i > 2) expect(isAfterCue).toBe(true);
    if (event.type !== 'unit') continue;
    const { unit } = event;
    if (isAfterCue) {
      expect(unit).toMatchObject({
        kind: 'video',
        trackId: 0,
        isRandomAccess: true,
        dtsTicks: cue?.startTicks,
      });
    }
    isAfterCue = false;
    expect(unit.ptsTicks).toBe(unit.dtsTicks);
    if (last) {
      const order = compareTicks(last.dtsTicks, hzOf(last), unit.dtsTicks, hzOf(unit));
      expect(order < 0 || (order === 0 && last.kind === 'video' && unit.kind === 'audio')).toBe(true);
    }
    last = unit;
    if (unit.kind === 'audio') {
      const expected = next.get('audio');
      if (expected !== undefined && !hasCuts) expect(unit.dtsTicks).toBe(expected);
      // One unit may be left out before a cut, and three quarters of one after a place to join at.
      const gap = unit.dtsTicks - (expected ?? unit.dtsTicks);
      expect(gap).toBeGreaterThanOrEqual(0);
      expect(gap).toBeLessThan(1.75 * AAC_SAMPLES_PER_UNIT);
      next.set('audio', unit.dtsTicks + AAC_SAMPLES_PER_UNIT);
    }
  }
}

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'starling-playout-'));
  await makeAsset('short', 0.3, 25); // 0.32 s, one segment
  await makeAsset('film', 5, 24); // 5.33 s
  await makeAsset('news', 5, 25); // 5.12 s
  await makeAsset('sport', 3, 60); // 3.2 s
  await makeAsset('foreign', 3, 25, MONO); // 3.2 s
});

afterAll(async () => {
  await rm(dir, { recursive: true });
});

describe('playout', () => {
  it('puts an asset on the timeline, segment by segment', async () => {
    const events = await play(
      playoutOf(programme(run(10 * SECOND, 'news')), 10 * SECOND),
      10 * SECOND,
      20.24 * SECOND,
    );
    expectUnbroken(events);
    expect(events[0]).toEqual({ type: 'timeline', epochUnixMs: EPOCH_UNIX_MS });
    expect(cuesOf(events)).toEqual(
      [
        [0, 10, 'r900000-l0-i0'],
        [1, 12, 'r900000-l0-i0'],
        [2, 14, 'r900000-l0-i0'], // 1.12 s remain, more than half a segment
        [3, 15.12, 'r900000-l1-i0'],
        [4, 17.12, 'r900000-l1-i0'],
        [5, 19.12, 'r900000-l1-i0'],
      ].map(([mediaSequenceNumber, startSeconds, programmeId]) => ({
        mediaSequenceNumber,
        discontinuitySequence: 0,
        startTicks: Number(startSeconds) * SECOND,
        programDateTimeUnixMs: EPOCH_UNIX_MS + Number(startSeconds) * 1000,
        programmeId,
        targetDurationMs: 2000,
        isIndependent: true,
      })),
    );
    const units = unitsOf(events);
    expect(units.filter((unit) => unit.kind === 'video')).toHaveLength(256);
    expect(units.filter((unit) => unit.kind === 'audio')).toHaveLength(480);
    const second = units.filter((unit) => unit.kind === 'audio')[240];
    expect(textOf(second)).toBe('news audio 0');
    expect(second?.dtsTicks).toBe(15.12 * 48_000);
  });

  it('says with each segment what the guide says of its programme', async () => {
    const guide = { title: 'Clips', assetNames: new Map([['film', 'The film']]) };
    const runs = [
      { ...run(0, 'news', 'sport'), programme: { title: 'Morning' } },
      run(30 * SECOND, 'film'),
      run(100 * SECOND, 'news'),
    ];
    const shown = { ...programme(...runs), guide };
    const events = await play(playoutOf(shown, 0), 0, 40 * SECOND);
    const at = (seconds: number) => EPOCH_UNIX_MS + seconds * 1000;
    for (const { startTicks, programme: said } of cuesOf(events)) {
      expect(said).toEqual(
        startTicks < 30 * SECOND
          ? { title: 'Morning', startUnixMs: at(0), endUnixMs: at(30) }
          : // Items of a few seconds are the channel itself.
            { title: 'Clips', startUnixMs: at(30), endUnixMs: at(100) },
      );
    }
    expect(cuesOf(events).length).toBeGreaterThan(20);
  });

  it('mixes frame rates without a discontinuity, and announces none', async () => {
    const shown = programme(run(0, 'film', 'news', 'sport', 'short'));
    const events = await play(playoutOf(shown, 0), 0, 120 * SECOND);
    expectUnbroken(events);
    expect(events.filter((event) => event.type === 'track')).toHaveLength(2);
    expect(new Set(cuesOf(events).map((cue) => cue.discontinuitySequence))).toEqual(new Set([0]));
    expect(events[1]).toMatchObject({
      type: 'track',
      track: { kind: 'video', frameDurationTicks: undefined },
    });
  });

  it('announces the tracks again after the cue of a discontinuity', async () => {
    const events = await play(playoutOf(programme(run(0, 'foreign', 'news')), 0), 0, 10 * SECOND);
    expectUnbroken(events);
    const changes = events.flatMap((event, i) => (event.type === 'track' && i > 2 ? [i] : []));
    expect(changes).toHaveLength(4);
    for (const i of [changes[0] ?? 0, changes[2] ?? 0]) {
      expect(events.slice(i - 1, i + 3).map((event) => event.type)).toEqual([
        'cue',
        'track',
        'track',
        'unit',
      ]);
    }
    expect(cuesOf(events).map((cue) => cue.discontinuitySequence)).toEqual([0, 0, 1, 1, 1, 2]);
  });

  it('gives the same events wherever it starts, in steps of any size', { timeout: 60_000 }, async () => {
    const shown = programme(run(5 * SECOND, 'film', 'foreign', 'short', 'sport', 'news'));
    const all = await play(playoutOf(shown, 0), 0, 60 * SECOND);
    expectUnbroken(all);
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 5 * SECOND, max: 40 * SECOND }),
        fc.integer({ min: 1000, max: 4 * SECOND }),
        async (startTicks, stepTicks) => {
          const late = await play(playoutOf(shown, startTicks), startTicks, 60 * SECOND, stepTicks);
          const [firstCue] = cuesOf(late);
          // It begins with the segment that contains the time.
          expect(firstCue?.startTicks).toBeLessThanOrEqual(startTicks);
          const from = all.findIndex(
            (event) =>
              event.type === 'cue' && event.cue.mediaSequenceNumber === firstCue?.mediaSequenceNumber,
          );
          const nextCue = cuesOf(all.slice(from + 1))[0];
          expect(nextCue?.startTicks).toBeGreaterThan(startTicks);
          const tracksOf = (events: StreamEvent[]) => events.filter((event) => event.type !== 'track');
          expect(tracksOf(late).slice(1)).toEqual(tracksOf(all.slice(from)));
        },
      ),
      { numRuns: 25 },
    );
  });

  it('hands out nothing before it is due, and says when the next event is', async () => {
    const playout = playoutOf(programme(run(SECOND, 'news')), 0);
    await playout.readAhead();
    expect(playout.eventsUntil(SECOND)).toEqual([]);
    expect(playout.nextDueTicks).toBe(SECOND);
    const first = playout.eventsUntil(SECOND + 1);
    expect(first.map((event) => event.type)).toEqual(['timeline', 'track', 'track', 'cue', 'unit', 'unit']);
    expect(playout.nextDueTicks).toBe(SECOND + 1920); // the second audio unit
    expect(playout.eventsUntil(SECOND + 1920)).toEqual([]);
    expect(unitsOf(playout.eventsUntil(SECOND + 1921))).toHaveLength(1);
  });

  it('keeps the next item in memory before it is due, and a bounded number of segments', async () => {
    const opened = vi.fn(openAsset);
    const shown = programme(run(0, 'short', 'news'));
    const playout = new Playout({ programme: shown, openAsset: opened, startTicks: 0, logger });
    await playout.readAhead();
    await playout.readAhead();
    expect(opened).toHaveBeenCalledTimes(2);
    // All of `short` and the beginning of `news`, without another read.
    const events = playout.eventsUntil(20 * SECOND);
    expect(cuesOf(events).map((cue) => cue.startTicks / SECOND)).toEqual([0, 0.32]);
  });

  it('uses the memory of what nobody keeps again, and of nothing else', async () => {
    const shown = programme(run(0, 'film', 'news'));
    const expected = unitsOf(await play(playoutOf(shown, 0), 0, 60 * SECOND)).map(textOf);
    const [keeping, copying] = [playoutOf(shown, 0), playoutOf(shown, 0)];
    const kept: AccessUnit[] = [];
    const keptForAWhile: { unit: AccessUnit; text: string }[] = [];
    const copies: string[] = [];
    const buffers = new Set<ArrayBufferLike>();
    for (let ticks = SECOND / 10; ticks <= 60 * SECOND; ticks += SECOND / 10) {
      // The other one's memory is free again: it must not be used while this one's units are kept.
      if (ticks > 30 * SECOND) await keeping.readAhead();
      kept.push(...unitsOf(keeping.eventsUntil(ticks)));
      await copying.readAhead();
      const isKept = ticks > 20.5 * SECOND && ticks < 21 * SECOND;
      for (const unit of unitsOf(copying.eventsUntil(ticks, isKept ? 'kept' : 'copied'))) {
        copies.push(textOf(unit));
        if (ticks < 20 * SECOND) buffers.add(unit.data.buffer);
        if (isKept) keptForAWhile.push({ unit, text: textOf(unit) });
      }
    }
    expect(copies).toEqual(expected);
    expect(kept.length).toBeGreaterThan(0);
    expect(kept.map(textOf)).toEqual(expected.slice(-kept.length));
    expect(keptForAWhile.length).toBeGreaterThan(0);
    expect(keptForAWhile.map(({ unit }) => textOf(unit))).toEqual(keptForAWhile.map(({ text }) => text));
    // Ten segments and more were read in that time.
    expect(buffers.size).toBeLessThan(6);
  });

  it('goes on with the present when it was asleep for more than 30 s', async () => {
    const playout = playoutOf(programme(run(0, 'news', 'sport')), 0);
    const before = await play(playout, 0, 3 * SECOND);
    const atWakeUp = playout.eventsUntil(1000 * SECOND);
    // The segment that was being played is finished.
    expect(cuesOf(atWakeUp)).toEqual([]);
    expect(unitsOf(atWakeUp).at(-1)?.dtsTicks).toBeLessThan(4 * SECOND);
    await playout.readAhead();
    const after = playout.eventsUntil(1000 * SECOND + 1);
    const [cue] = cuesOf(after);
    expect(cue?.startTicks).toBeGreaterThan(998 * SECOND);
    expect(cue?.startTicks).toBeLessThanOrEqual(1000 * SECOND);
    expect(cuesOf(before)[0]?.mediaSequenceNumber).toBe(0);
    const fresh = await play(
      playoutOf(programme(run(0, 'news', 'sport')), 1000 * SECOND),
      1000 * SECOND,
      1000 * SECOND + 1,
    );
    expect(cuesOf(fresh)).toEqual(cuesOf(after));
  });

  it('leaves the time of a missing asset empty and keeps the place of all others', async () => {
    const errors = vi.fn();
    const gone = { ...factsOf('sport'), contentHash: 'f'.repeat(64) };
    const shown = {
      ...programme(run(0, 'news', 'gone', 'film')),
      assets: new Map([...assets, ['gone', gone]]),
    };
    const whole = { ...shown, runs: [run(0, 'news', 'sport', 'film')] };
    const playout = new Playout({
      programme: shown,
      openAsset,
      startTicks: 0,
      logger: Object.assign(pino({ level: 'silent' }), { error: errors }),
    });
    const events = await play(playout, 0, 30 * SECOND);
    const complete = await play(playoutOf(whole, 0), 0, 30 * SECOND);
    const isThere = (unit: AccessUnit) => !textOf(unit).startsWith('sport');
    expect(unitsOf(events)).toEqual(unitsOf(complete).filter(isThere));
    expect(cuesOf(events).map((cue) => cue.mediaSequenceNumber)).toEqual(
      cuesOf(complete).flatMap((cue) => (cue.programmeId.endsWith('i1') ? [] : [cue.mediaSequenceNumber])),
    );
    expect(errors).toHaveBeenCalledTimes(1);
    expect(errors.mock.calls[0]?.[0]).toMatchObject({
      code: 'ASSET_MISSING',
      asset: 'gone',
      programme: 'r0-l0-i1',
    });
  });

  it('does not run away when nothing can be read', async () => {
    const opening = vi.fn(() => Promise.reject(new BackendError('ASSET_MISSING', 'The asset is not there.')));
    const playout = new Playout({
      programme: programme(run(0, 'short')),
      openAsset: opening,
      startTicks: 0,
      logger,
    });
    await playout.readAhead();
    expect(opening.mock.calls.length).toBeLessThan(40); // 10 s of items of 0.32 s
    expect(playout.eventsUntil(5 * SECOND)).toEqual([]);
  });

  it('is damaged where the stored file is shorter than its index says', async () => {
    await makeAsset('cut', 5, 25);
    const facts = factsOf('cut');
    await truncate(join(dir, 'cut', 'video.mp4'), 4000);
    const file = await openAsset(facts.contentHash);
    await expect(file.readSegment(2)).rejects.toMatchObject({ code: 'ASSET_DAMAGED' });
    const events = await play(playoutOf(programme(run(0, 'cut', 'short')), 0), 0, 6 * SECOND);
    expect(unitsOf(events).some((unit) => textOf(unit).startsWith('short'))).toBe(true);
  });
});

describe('what a playout channel has had', () => {
  /** What a frontend makes of the chunks that it gets; a Set Chunk Size comes before them, as from the session. */
  function newJoiner() {
    const reader = new ChunkReader({ maxMessageBytes: 1 << 20 });
    reader.push(Uint8Array.of(2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 0, 0xea, 0x60));
    const demuxer = new FlvDemuxer();
    const events: StreamEvent[] = [];
    const joiner: Joiner = {
      isDrained: true,
      send(chunks) {
        for (const { typeId, timestampMs, payload } of reader.push(chunks)) {
          const kind = typeId === 8 ? 'audio' : typeId === 9 ? 'video' : 'data';
          events.push(...demuxer.push({ kind, timestampMs, payload: Uint8Array.from(payload) }));
        }
      },
      whenDrained: () => Promise.resolve(),
      overtaken: () => {},
    };
    return { joiner, events };
  }

  async function air(
    shown: PlayoutProgramme,
    untilTicks: number,
    joinTicks: number,
    stepTicks = SECOND / 25,
  ) {
    const main = playoutOf(shown, 0);
    const history = new PlayoutHistory({ programme: shown, openAsset, logger, pushedTicks: 0 });
    const channel = new Channel('test', history);
    const { joiner, events: late } = newJoiner();
    const pushed: StreamEvent[] = [];
    for (let ticks = 0; ticks < untilTicks; ticks += stepTicks) {
      await main.readAhead();
      if (ticks === joinTicks) channel.join(joiner);
      const events = main.eventsUntil(ticks);
      channel.push(events);
      history.advance(ticks);
      pushed.push(...events);
    }
    const lastOf = (events: readonly StreamEvent[]) => unitsOf(events).at(-1)?.dtsTicks;
    await vi.waitFor(() => expect(lastOf(late)).toBe(lastOf(pushed)));
    return { pushed, late };
  }

  it('is made again for a frontend that joins: all of the last 30 s, and then what the others get', async () => {
    const shown = programme(run(0, 'news', 'film', 'foreign', 'sport'));
    const { pushed, late } = await air(shown, 90 * SECOND, 61 * SECOND);
    expectUnbroken(pushed);
    expectUnbroken(late);
    const [oldest] = cuesOf(late);
    // The segment that was on then.
    const sinceTicks = 61 * SECOND - SECOND / 25 - 30 * SECOND;
    expect(oldest?.startTicks).toBeLessThanOrEqual(sinceTicks);
    expect(oldest?.startTicks).toBeGreaterThan(sinceTicks - 2 * SECOND - 1);
    const from = pushed.findIndex(
      (event) => event.type === 'cue' && event.cue.mediaSequenceNumber === oldest?.mediaSequenceNumber,
    );
    const withoutTracks = (events: readonly StreamEvent[]) =>
      events.filter(({ type }) => type === 'cue' || type === 'unit');
    expect(withoutTracks(late)).toEqual(withoutTracks(pushed.slice(from)));
  });

  it('is announced also where nothing was on for longer than that', async () => {
    const shown = programme(run(0, 'news'), run(10 * SECOND), {
      ...run(100 * SECOND, 'news'),
      firstMediaSequenceNumber: 9,
    });
    const { late } = await air(shown, 110 * SECOND, 70 * SECOND);
    expect(late.slice(0, 4).map(({ type }) => type)).toEqual(['timeline', 'track', 'track', 'cue']);
    expect(cuesOf(late)[0]).toMatchObject({ startTicks: 100 * SECOND });
  });
});

describe('an edit on the air', () => {
  it('takes effect at the end of the item, numbered on, as if it had always been there', async () => {
    const before = programme(run(0, 'news', 'film'));
    const playout = playoutOf(before, 0);
    const events = await play(playout, 0, 4 * SECOND); // the film's first segments are in memory by now
    const next = { startTicks: 5.12 * SECOND, loop: ['foreign'] };
    const after = programme(...before.runs, numberedOn(before.runs, assets, next));
    playout.update(after);
    events.push(...(await play(playout, 4 * SECOND, 20 * SECOND)));
    expectUnbroken(events);
    expect(events).toEqual(await play(playoutOf(after, 0), 0, 20 * SECOND));
    expect(cuesOf(events).find((cue) => cue.startTicks === 5.12 * SECOND)).toMatchObject({
      mediaSequenceNumber: 3,
      discontinuitySequence: 1,
      programmeId: `r${5.12 * SECOND}-l0-i0`,
    });
  });

  it('keeps what was read ahead when an edit concerns something else', async () => {
    const opened = vi.fn(openAsset);
    const before = programme(run(0, 'news'));
    const playout = new Playout({ programme: before, openAsset: opened, startTicks: 0, logger });
    await playout.readAhead();
    const reads = opened.mock.calls.length;
    playout.update(programme(run(0, 'news'), run(100 * SECOND, 'film')));
    await playout.readAhead();
    expect(opened).toHaveBeenCalledTimes(reads);
  });

  it('ends the segment that is being played where a run starts in the middle of it', async () => {
    const playout = playoutOf(programme(run(0, 'news')), 0);
    const events = await play(playout, 0, 0.5 * SECOND, SECOND / 10);
    playout.update(programme(run(0, 'news'), { ...run(SECOND, 'sport'), firstMediaSequenceNumber: 1 }));
    events.push(...(await play(playout, 0.5 * SECOND, 3 * SECOND)));
    const lastNews = unitsOf(events).filter((unit) => textOf(unit).startsWith('news'));
    expect(lastNews.filter((unit) => unit.kind === 'video')).toHaveLength(25);
    expect(lastNews.filter((unit) => unit.kind === 'audio')).toHaveLength(46); // the 47th would last too long
    expect(cuesOf(events).map((cue) => [cue.mediaSequenceNumber, cue.startTicks / SECOND])).toEqual([
      [0, 0],
      [1, 1],
    ]);
  });
});

describe('assets with different tracks', { timeout: 60_000 }, () => {
  it('play on the same tracks, filled where one has less', async () => {
    const mediaDir = join(dir, 'ladders');
    const library = new Library({ mediaDir, logger });
    await library.open();
    const source = join(dir, 'two languages.mkv');
    await ffmpeg(
      '-f lavfi -i testsrc2=s=320x180:r=25:d=2.5 -f lavfi -i sine=f=300:d=2.5 -f lavfi -i sine=f=900:d=2.5',
      '-map 0 -map 1 -map 2 -c:v libx264 -preset ultrafast -c:a aac',
      ['-metadata:s:a:0', 'language=eng', '-metadata:s:a:1', 'language=fre', source],
    );
    const importWith = (changed: Partial<LibrarySettings>) =>
      library.import(
        source,
        { ...defaultLibrarySettings, ...changed },
        { signal: new AbortController().signal, onProgress: () => {} },
      );
    const ladder = await importWith({ ladder: ['360p', '240p'] });
    const low = await importWith({ ladder: ['240p'], languages: ['fr'] });
    const item = (index: number) =>
      [index * ladder.durationTicks, (index + 1) * ladder.durationTicks] as const;
    const shown = {
      runs: [run(0, 'ladder', 'low', 'low')],
      assets: new Map([
        ['ladder', ladder],
        ['low', low],
      ]),
      epochUnixMs: EPOCH_UNIX_MS,
    };
    const playout = new Playout({
      programme: shown,
      openAsset: (contentHash) => library.openAsset(contentHash),
      startTicks: 0,
      logger,
    });
    const events = await play(playout, 0, item(3)[1]);
    const trackNames = events.map((event) =>
      event.type === 'track'
        ? `${event.track.kind} ${event.track.trackId} ${event.track.kind === 'video' ? event.track.heightPx : event.track.language}`
        : event.type,
    );
    const announced = (first: string) => [first, 'video 1 240', 'audio 0 en', 'audio 1 fr'];
    expect(trackNames.filter((name) => name.includes(' '))).toEqual([
      ...announced('video 0 360'),
      ...announced('video 0 240'),
      ...announced('video 0 360'),
    ]);
    // Announced anew only where the cue before says so.
    expect(cuesOf(events).map((cue) => cue.discontinuitySequence)).toEqual([0, 0, 1, 1, 1, 1, 2, 2]);
    for (const [i, name] of trackNames.entries()) {
      if (i > 5 && name.startsWith('video 0')) expect(trackNames[i - 1]).toBe('cue');
    }
    const units = unitsOf(events);
    for (let i = 1; i < units.length; i++) {
      const [before, after] = [units[i - 1], units[i]];
      if (!before || !after) continue;
      const order = compareTicks(before.dtsTicks, hzOf(before), after.dtsTicks, hzOf(after));
      expect(order < 0 || (order === 0 && trackIndex(before) < trackIndex(after))).toBe(true);
    }
    const bytesOf = (kind: string, trackId: number, [fromTicks, untilTicks]: readonly [number, number]) =>
      units
        .filter(
          (unit) =>
            unit.kind === kind &&
            unit.trackId === trackId &&
            compareTicks(unit.dtsTicks, hzOf(unit), fromTicks, SECOND) >= 0 &&
            compareTicks(unit.dtsTicks, hzOf(unit), untilTicks, SECOND) < 0,
        )
        .map(({ data }) => Buffer.from(data).toString('hex'));
    // The low one fills the upper track with what it has; French is its first sound, and still on track 1.
    expect(bytesOf('video', 0, item(1))).toEqual(bytesOf('video', 1, item(1)));
    expect(bytesOf('video', 0, item(0))).not.toEqual(bytesOf('video', 1, item(0)));
    expect(bytesOf('audio', 1, item(0))).toHaveLength(ladder.durationTicks / 1920);
    expect(bytesOf('audio', 1, item(1))).toEqual(bytesOf('audio', 1, item(0)));
    expect(bytesOf('audio', 0, item(1))).toEqual(bytesOf('audio', 0, item(0)));
    await playout.close();
    await library.close();
  });
});

/** Programmes at times that nothing fits to, filler between them, and one that interrupts another. */
describe('a schedule with filler and cuts', { timeout: 60_000 }, () => {
  // The timeline starts at 22:13:20 UTC.
  const schedule: Schedule = {
    timeZone: 'UTC',
    filler: { items: ['short', 'news', 'foreign', 'sport'], order: 'shuffle' },
    programmes: [
      { start: '2023-11-14T22:13:33', items: ['film', 'news'], title: 'Two' },
      { start: '2023-11-14T22:13:50', items: ['sport', 'film'], loop: true, duration: '0:00:31' },
      { start: '2023-11-14T22:14:01', items: ['short', 'short', 'foreign'], priority: 1 },
      // 33 ms into its film's second segment.
      { start: '2023-11-14T22:14:30', items: ['film', 'film', 'film'] },
      { start: '2023-11-14T22:14:37', items: ['news'], priority: 1, duration: '0:00:02' },
    ],
  };
  const endTicks = 100 * SECOND;
  const scheduled = (validFromTicks = 0): PlayoutProgramme => {
    const stretches = new Stretches({ schedule, assets, epochUnixMs: EPOCH_UNIX_MS, validFromTicks });
    const first = numberedOn([], assets, stretches.at(validFromTicks).content);
    return programme(...extendRuns([first], stretches, { assets, untilTicks: endTicks, maxCount: 1000 }));
  };

  it('starts every programme on the tick, with numbers and times unbroken', async () => {
    const shown = scheduled();
    const events = await play(playoutOf(shown, 0), 0, endTicks, SECOND / 3);
    expectUnbroken(events, { hasCuts: true });
    const startTicks = cuesOf(events).map((cue) => cue.startTicks);
    for (const run of shown.runs.slice(0, -1)) expect(startTicks).toContain(run.startTicks);
    expect(shown.runs.map((run) => run.startTicks / SECOND)).toEqual(
      expect.arrayContaining([0, 13, 30, 41, 61, 70, 77, 79]),
    );
    // The interrupted film is joined where it would be by then: in the segment that lies at 9 s.
    const joined = unitsOf(events).filter((unit) => unit.kind === 'video' && unit.dtsTicks >= 79 * SECOND)[0];
    expect(joined?.dtsTicks).toBe(79 * SECOND);
    expect(textOf(joined)).toMatch(/^film video (48|80)$/);
  });

  it('gives the same events wherever it starts', async () => {
    const shown = scheduled();
    const all = await play(playoutOf(shown, 0), 0, endTicks);
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 0, max: 90 * SECOND }),
        fc.integer({ min: 1000, max: 4 * SECOND }),
        async (startTicks, stepTicks) => {
          const late = await play(playoutOf(shown, startTicks), startTicks, endTicks, stepTicks);
          const [firstCue] = cuesOf(late);
          expect(firstCue?.startTicks).toBeLessThanOrEqual(startTicks);
          const from = all.findIndex(
            (event) =>
              event.type === 'cue' && event.cue.mediaSequenceNumber === firstCue?.mediaSequenceNumber,
          );
          expect(cuesOf(all.slice(from + 1))[0]?.startTicks).toBeGreaterThan(startTicks);
          const withoutTracks = (events: StreamEvent[]) => events.filter((event) => event.type !== 'track');
          expect(withoutTracks(late).slice(1)).toEqual(withoutTracks(all.slice(from)));
        },
      ),
      { numRuns: 12 },
    );
  });

  it('plays an edit as if it had always been there, whenever it comes', async () => {
    const { runs: before } = programme(run(0, 'film', 'news'));
    const edited = editRuns({
      runs: before,
      schedule,
      assets,
      epochUnixMs: EPOCH_UNIX_MS,
      earliestTicks: 35.2 * SECOND,
      effective: 'now',
      untilTicks: endTicks,
      maxCount: 1000,
    });
    const after = programme(...edited.runs);
    const expected = await play(playoutOf(after, 0), 0, endTicks);
    expectUnbroken(expected, { hasCuts: true });
    for (const atSeconds of [30, 33.3, 34.9, 35.1]) {
      const playout = playoutOf(programme(...before), 0);
      const events = await play(playout, 0, atSeconds * SECOND, SECOND / 10);
      playout.update(after);
      events.push(...(await play(playout, atSeconds * SECOND, endTicks, SECOND / 10)));
      expect(events).toEqual(expected);
    }
  });

  it('does not go back in time for an edit that comes too late', async () => {
    const playout = playoutOf(programme(run(0, 'news')), 0);
    const events = await play(playout, 0, 7 * SECOND, SECOND / 10);
    playout.update(programme(run(0, 'news'), { ...run(6 * SECOND, 'sport'), firstMediaSequenceNumber: 4 }));
    events.push(...(await play(playout, 7 * SECOND, 12 * SECOND, SECOND / 10)));
    const dts = unitsOf(events)
      .filter((unit) => unit.kind === 'video')
      .map((unit) => unit.dtsTicks);
    expect(dts).toEqual([...dts].sort((a, b) => a - b));
    expect(cuesOf(events).at(-1)?.startTicks).toBeGreaterThan(7 * SECOND);
    expect(textOf(unitsOf(events).at(-1))).toMatch(/^sport/);
  });

  it('finds segments in stored assets where the schedule counts them', () => {
    for (const [id, { startTicks }] of [...assets].flatMap(([id, { contentHash }]) =>
      (files.get(contentHash)?.index.segments ?? []).map((segment) => [id, segment] as const),
    )) {
      const facts = factsOf(id);
      const starts = Array.from({ length: facts.segmentCount }, (_, i) => segmentStartTicks(facts, i));
      expect(starts).toContain(startTicks);
    }
  });
});

describe('two hundred loops of a clip with flash and beep', { timeout: 120_000 }, () => {
  it('keeps picture and sound together to the end, by timestamp and by count', async () => {
    const library = new Library({ mediaDir: join(dir, 'media'), logger });
    await library.open();
    const clip = join(dir, 'clip.mp4');
    await makeFlashAndBeep(clip, 10, 44_100);
    const facts = await library.import(
      clip,
      { ...defaultLibrarySettings, ladder: ['720p'] },
      { signal: new AbortController().signal, onProgress: () => {} },
    );
    expect(facts.durationTicks).toBe(10.24 * SECOND);
    const loops = 200;
    const endTicks = loops * facts.durationTicks;
    const playout = new Playout({
      programme: { runs: [run(0, 'clip')], assets: new Map([['clip', facts]]), epochUnixMs: EPOCH_UNIX_MS },
      openAsset: (contentHash) => library.openAsset(contentHash),
      startTicks: 0,
      logger,
    });

    let frameCount = 0;
    let audioUnitCount = 0;
    let tracks: Track[] = [];
    const kept: { atLoop: number; units: AccessUnit[] }[] = [0, loops - 2].map((atLoop) => ({
      atLoop,
      units: [],
    }));
    for (let ticks = 0; ticks < endTicks; ticks += SECOND) {
      await playout.readAhead();
      for (const event of playout.eventsUntil(Math.min(ticks + SECOND, endTicks))) {
        if (event.type === 'track') tracks = [...tracks, event.track];
        if (event.type !== 'unit') continue;
        const { unit } = event;
        // Every DTS exactly where the count says: nothing irregular, no drift.
        if (unit.kind === 'video') expect(unit.dtsTicks).toBe(3600 * frameCount++);
        else expect(unit.dtsTicks).toBe(1024 * audioUnitCount++);
        const loop = Math.floor(unit.dtsTicks / hzOf(unit) / 10.24);
        for (const part of kept) if (loop === part.atLoop || loop === part.atLoop + 1) part.units.push(unit);
      }
    }
    expect(frameCount).toBe(loops * 256);
    expect(audioUnitCount).toBe(loops * 480);

    const init = initSegment(tracks);
    for (const { atLoop, units } of kept) {
      const path = join(dir, `loops-${atLoop}.mp4`);
      const partEndTicks = (atLoop + 2) * 10.24;
      const parts = tracks.map((track) => ({
        track,
        units: units.filter((unit) => unit.kind === track.kind),
        endTicks: Math.round(partEndTicks * (track.kind === 'video' ? 90_000 : 48_000)),
      }));
      await writeFile(path, concatBytes([init, fragment({ sequenceNumber: 1, tracks: parts })]));
      const { flashSeconds, beepSeconds } = await findFlashesAndBeeps(path);
      expect(flashSeconds).toHaveLength(20);
      expect(beepSeconds).toHaveLength(20);
      for (const [i, flash] of flashSeconds.entries()) {
        const expected = (atLoop + Math.floor(i / 10)) * 10.24 + (i % 10) + 0.48;
        expect(Math.abs(flash - expected)).toBeLessThan(0.001);
        expect(Math.abs((beepSeconds[i] ?? 0) - flash)).toBeLessThan(0.003);
      }
    }
    await library.close();
  });
});
