import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  AAC_SAMPLES_PER_UNIT,
  type AccessUnit,
  type AudioTrack,
  type Cue,
  type StreamEvent,
  type Track,
  timescaleHz,
  trackIndex,
  type VideoTrack,
} from './access-unit.ts';
import { aacTrack } from './codec/aac.ts';
import { avcTrack } from './codec/avc.ts';
import { FlvDemuxer } from './flv/demux.ts';
import { sequenceHeaderMessage, unitMessage } from './flv/mux.ts';
import { IngestGrid } from './ingest-grid.ts';
import { compareTicks, rescaleTicks } from './time.ts';

const hex = (text: string) => Uint8Array.from(Buffer.from(text, 'hex'));
const VIDEO = avcTrack(
  hex('0142c01effe100196742c01ed900a02ff97011000003000100000300320f162e4801000568cb83cb20'),
);
const OTHER_VIDEO = avcTrack(
  hex('014d401fffe10017674d401feca06c1ef37808800001f480007530478c18cb01000568ebe3cb20'),
);
const AUDIO_48 = aacTrack(hex('1190'));
const AUDIO_44 = aacTrack(hex('1210'));

const EPOCH_MS = 1_769_000_000_000;
/** The timeline has run for an hour and a bit when the encoder comes. */
const NOW_MS = EPOCH_MS + 3_600_250;

interface Arrival {
  readonly event: StreamEvent;
  /** Since the encoder's start. */
  readonly atMs: number;
}

interface Encoder {
  readonly video?: VideoTrack;
  readonly audio?: AudioTrack;
  readonly seconds: number;
  readonly frameRate?: number;
  /** Frames at which a key frame comes. */
  readonly isKeyFrame?: (frame: number) => boolean;
  /** The encoder's clock at its start. */
  readonly clockMs?: number;
  readonly jitterMs?: number;
  /** Frames of picture reordering; a composition offset alternates up to this. */
  readonly reorderFrames?: number;
}

/** What a demuxer makes of an encoder that writes whole milliseconds, in the order of its clock. */
function encode(options: Encoder): Arrival[] {
  const { video, audio, seconds, frameRate = 25, clockMs = 0, jitterMs = 0, reorderFrames = 0 } = options;
  const isKeyFrame = options.isKeyFrame ?? ((frame) => frame % (2 * frameRate) === 0);
  const jitter = (n: number) => (jitterMs === 0 ? 0 : Math.round(Math.sin(n * 12.9898) * jitterMs));
  const units: { unit: AccessUnit; atMs: number }[] = [];
  if (video !== undefined) {
    for (let frame = 0; frame < Math.round(seconds * frameRate); frame++) {
      const atMs = (frame * 1000) / frameRate;
      const dtsMs = clockMs + Math.round(atMs) + (frame === 0 ? 0 : jitter(frame));
      const offsetFrames = reorderFrames === 0 ? 0 : isKeyFrame(frame) ? 1 : (frame % 2) * reorderFrames;
      const ptsMs = dtsMs + Math.round((offsetFrames * 1000) / frameRate);
      units.push({
        atMs,
        unit: {
          kind: 'video',
          trackId: 0,
          dtsTicks: dtsMs * 90,
          ptsTicks: ptsMs * 90,
          isRandomAccess: isKeyFrame(frame),
          data: Uint8Array.of(1),
        },
      });
    }
  }
  if (audio !== undefined) {
    const hz = audio.sampleRateHz;
    for (let n = 0; n * AAC_SAMPLES_PER_UNIT < seconds * hz; n++) {
      const atMs = (n * AAC_SAMPLES_PER_UNIT * 1000) / hz;
      const dtsMs = clockMs + Math.round(atMs) + (n === 0 ? 0 : jitter(n + 0.5));
      const dtsTicks = rescaleTicks(dtsMs, 1000, hz);
      units.push({
        atMs,
        unit: {
          kind: 'audio',
          trackId: 0,
          dtsTicks,
          ptsTicks: dtsTicks,
          isRandomAccess: true,
          data: Uint8Array.of(2),
        },
      });
    }
  }
  units.sort((a, b) => a.atMs - b.atMs);
  const tracks = [video, audio].filter((track) => track !== undefined);
  return [
    ...tracks.map((track): Arrival => ({ atMs: 0, event: { type: 'track', track } })),
    ...units.map(({ unit, atMs }): Arrival => ({ atMs, event: { type: 'unit', unit } })),
  ];
}

function newGrid() {
  return new IngestGrid({ epochUnixMs: EPOCH_MS, programmeId: 'cam' });
}

function feed(grid: IngestGrid, arrivals: readonly Arrival[], startUnixMs = NOW_MS): StreamEvent[] {
  return arrivals.flatMap(({ event, atMs }) => grid.push(event, startUnixMs + atMs));
}

interface Segment {
  readonly cue: Cue;
  readonly units: AccessUnit[];
}

/** Much cheaper than `expect`, for what is checked of each unit. */
function must(holds: boolean, what: string): void {
  if (!holds) throw new Error(`broken: ${what}`);
}

/** Checks what holds of every stream (access-unit.ts), and gives its segments. */
function segmentsOf(events: readonly StreamEvent[]): Segment[] {
  const tracks = new Map<number, Track>();
  const segments: Segment[] = [];
  const hz = (unit: AccessUnit) => {
    const track = tracks.get(trackIndex(unit));
    if (track === undefined) throw new Error(`a unit of ${unit.kind} ${unit.trackId} before its track`);
    return track.kind === 'video' ? 90_000 : track.sampleRateHz;
  };
  let last: { ticks: number; hz: number; index: number } | undefined;
  const lastOfTrack = new Map<number, number>();
  events.forEach((event, index) => {
    const segment = segments.at(-1);
    switch (event.type) {
      case 'timeline':
        expect(index).toBe(0);
        expect(event.epochUnixMs).toBe(EPOCH_MS);
        return;
      case 'track': {
        const isStart = segment === undefined;
        const isAfterCue = segment?.units.length === 0;
        expect(isStart || isAfterCue).toBe(true);
        // The tracks after a cue replace those before it.
        if (events[index - 1]?.type === 'cue') tracks.clear();
        tracks.set(trackIndex(event.track), event.track);
        lastOfTrack.delete(trackIndex(event.track));
        return;
      }
      case 'cue': {
        const { cue } = event;
        if (segment !== undefined) {
          expect(segment.units.length).toBeGreaterThan(0);
          expect(cue.mediaSequenceNumber).toBe(segment.cue.mediaSequenceNumber + 1);
          expect(cue.startTicks).toBeGreaterThan(segment.cue.startTicks);
          expect(cue.discontinuitySequence - segment.cue.discontinuitySequence).toBeOneOf([0, 1]);
          expect(compareTicks(cue.startTicks, 90_000, last?.ticks ?? 0, last?.hz ?? 1)).toBeGreaterThan(0);
        } else {
          expect(cue.mediaSequenceNumber).toBe(Math.floor(cue.startTicks / 90_000));
          expect(cue.discontinuitySequence).toBe(Math.floor(cue.startTicks / 90_000));
        }
        expect(cue.targetDurationMs).toBe(
          segments.length === 0 ? 0 : (segments[1]?.cue.targetDurationMs ?? cue.targetDurationMs),
        );
        // A process that starts later, with the second of its start as its number, never uses a number again.
        expect(cue.mediaSequenceNumber * 90_000).toBeLessThanOrEqual(cue.startTicks);
        expect(cue.programDateTimeUnixMs).toBe(EPOCH_MS + Math.floor(cue.startTicks / 90));
        expect(cue.programmeId).toBe('cam');
        segments.push({ cue, units: [] });
        return;
      }
      case 'unit': {
        const { unit } = event;
        if (segment === undefined) throw new Error('a unit before the first cue');
        if (last !== undefined) {
          const order = compareTicks(unit.dtsTicks, hz(unit), last.ticks, last.hz);
          must(order >= 0, 'units by DTS');
          must(order > 0 || last.index < trackIndex(unit), 'by track when equal');
        }
        const stepTicks = unit.dtsTicks - (lastOfTrack.get(trackIndex(unit)) ?? Number.NEGATIVE_INFINITY);
        must(stepTicks >= (unit.kind === 'video' ? 1 : AAC_SAMPLES_PER_UNIT), 'no overlap within a track');
        const intoSegment = compareTicks(unit.dtsTicks, hz(unit), segment.cue.startTicks, 90_000);
        must(intoSegment >= 0, 'no unit from before its segment');
        if (segment.units.length === 0) {
          const isIndependent = unit.isRandomAccess && trackIndex(unit) === Math.min(...tracks.keys());
          expect(segment.cue.isIndependent).toBe(isIndependent);
        }
        lastOfTrack.set(trackIndex(unit), unit.dtsTicks);
        last = { ticks: unit.dtsTicks, hz: hz(unit), index: trackIndex(unit) };
        segment.units.push(unit);
      }
    }
  });
  segments.forEach(({ cue }, i) => {
    const next = segments[i + 1]?.cue;
    if (next === undefined || next.discontinuitySequence !== cue.discontinuitySequence) return;
    // RFC 8216 4.3.3.1: rounded to the nearest second, a segment may not exceed the target duration.
    const targetSeconds = next.targetDurationMs / 1000;
    expect(Math.round((next.startTicks - cue.startTicks) / 90_000)).toBeLessThanOrEqual(targetSeconds);
  });
  return segments;
}

const durationsMs = (segments: readonly Segment[]) =>
  segments.slice(1).map(({ cue }, i) => (cue.startTicks - (segments[i]?.cue.startTicks ?? 0)) / 90);
const unitsOf = (segments: readonly Segment[], kind: AccessUnit['kind']) =>
  segments.flatMap(({ units }) => units.filter((unit) => unit.kind === kind));
const steps = (units: readonly AccessUnit[]) =>
  units.slice(1).map((unit, i) => unit.dtsTicks - (units[i]?.dtsTicks ?? 0));

describe('placing', () => {
  test('starts with timeline, tracks, cue and the key frame, at the time of its arrival', () => {
    const grid = newGrid();
    const events = feed(grid, encode({ video: VIDEO, audio: AUDIO_48, seconds: 0.1, clockMs: 77_777 }));
    const startTicks = 3_600_250 * 90;
    expect(events.slice(0, 5)).toEqual([
      { type: 'timeline', epochUnixMs: EPOCH_MS },
      { type: 'track', track: VIDEO },
      { type: 'track', track: AUDIO_48 },
      {
        type: 'cue',
        cue: {
          mediaSequenceNumber: 3600,
          discontinuitySequence: 3600,
          startTicks,
          programDateTimeUnixMs: NOW_MS,
          programmeId: 'cam',
          targetDurationMs: 0,
          isIndependent: true,
        },
      },
      {
        type: 'unit',
        unit: {
          kind: 'video',
          trackId: 0,
          dtsTicks: startTicks,
          ptsTicks: startTicks,
          isRandomAccess: true,
          data: Uint8Array.of(1),
        },
      },
    ]);
  });

  test.each([
    ['48 kHz', AUDIO_48, 0],
    ['44.1 kHz', AUDIO_44, 0],
    ['48 kHz with jitter', AUDIO_48, 8],
    ['44.1 kHz with jitter', AUDIO_44, 8],
  ])('audio runs on a sample counter, video keeps its distances: %s', (_, audio, jitterMs) => {
    const grid = newGrid();
    const arrivals = encode({ video: VIDEO, audio, seconds: 60, jitterMs, reorderFrames: 2 });
    const segments = segmentsOf([...feed(grid, arrivals), ...grid.endOfPublisher()]);
    const sent = arrivals.flatMap(({ event }) => (event.type === 'unit' ? [event.unit] : []));

    expect(new Set(steps(unitsOf(segments, 'audio')))).toEqual(new Set([AAC_SAMPLES_PER_UNIT]));
    const videoSent = sent.filter(({ kind }) => kind === 'video');
    const offsetTicks = 3_600_250 * 90;
    expect(unitsOf(segments, 'video')).toEqual(
      videoSent.map((unit) => ({
        ...unit,
        dtsTicks: unit.dtsTicks + offsetTicks,
        ptsTicks: unit.ptsTicks + offsetTicks,
      })),
    );
    // At the very end a unit of silence may complete the sound.
    const added = segments.flatMap(({ units }) => units).slice(sent.length);
    expect(added.length).toBeLessThanOrEqual(1);
    expect(grid.droppedUnits).toBe(0);
    // The sound belongs to the picture at the end as at the start: within the jitter and a millisecond.
    const lastSent = sent.findLast(({ kind }) => kind === 'audio');
    const lastOut = unitsOf(segments, 'audio').at(-1 - added.length);
    const hz = audio.sampleRateHz;
    const shiftMs =
      ((lastOut?.dtsTicks ?? 0) - rescaleTicks(offsetTicks, 90_000, hz) - (lastSent?.dtsTicks ?? 0)) /
      (hz / 1000);
    expect(Math.abs(shiftMs)).toBeLessThanOrEqual(jitterMs + 1);
  });

  test('where an encoder leaves, sound that ended before the picture goes on with silence to its end', () => {
    const grid = newGrid();
    const arrivals = encode({ video: VIDEO, audio: AUDIO_48, seconds: 10 }).filter(
      ({ event }) =>
        event.type !== 'unit' || event.unit.kind === 'video' || event.unit.dtsTicks < 9.7 * 48_000,
    );
    const segments = segmentsOf([...feed(grid, arrivals), ...grid.endOfPublisher()]);
    const sound = unitsOf(segments, 'audio');
    const pictures = unitsOf(segments, 'video');
    expect(new Set(steps(sound))).toEqual(new Set([AAC_SAMPLES_PER_UNIT]));
    const endOfSoundMs = ((sound.at(-1)?.dtsTicks ?? 0) + AAC_SAMPLES_PER_UNIT) / 48;
    const startOfLastPictureMs = (pictures.at(-1)?.dtsTicks ?? 0) / 90;
    expect(endOfSoundMs - startOfLastPictureMs).toBeGreaterThan(0);
    expect(endOfSoundMs - startOfLastPictureMs).toBeLessThan(100);
    // What FFmpeg's encoder makes of silence in stereo.
    expect(Buffer.from(sound.at(-1)?.data ?? []).toString('hex')).toBe('211004608c1c');
  });

  test('gives each unit out as soon as no earlier one can come', () => {
    const grid = newGrid();
    const arrivals = encode({ video: VIDEO, audio: AUDIO_48, seconds: 20 });
    let pending = 0;
    let mostPending = 0;
    for (const { event, atMs } of arrivals) {
      if (event.type === 'unit') pending++;
      pending -= grid.push(event, NOW_MS + atMs).filter(({ type }) => type === 'unit').length;
      mostPending = Math.max(mostPending, pending);
    }
    expect(mostPending).toBeLessThanOrEqual(2);
  });

  test('lost audio: the counter is set anew after a gap of more than 100 ms', () => {
    const grid = newGrid();
    const arrivals = encode({ video: VIDEO, audio: AUDIO_48, seconds: 12 }).filter(
      ({ event, atMs }) =>
        !(event.type === 'unit' && event.unit.kind === 'audio' && atMs > 5000 && atMs < 5500),
    );
    const segments = segmentsOf([...feed(grid, arrivals), ...grid.endOfPublisher()]);
    const gaps = steps(unitsOf(segments, 'audio')).filter((step) => step !== AAC_SAMPLES_PER_UNIT);
    expect(gaps).toHaveLength(1);
    expect(Math.abs((gaps[0] ?? 0) / 48 - 500 - 1024 / 48)).toBeLessThan(25);
    expect(grid.droppedUnits).toBe(0);
  });

  test('too much audio: units that would overlap are dropped, time never runs back', () => {
    const grid = newGrid();
    const arrivals = encode({ video: VIDEO, audio: AUDIO_48, seconds: 12 });
    const doubled = arrivals.flatMap((arrival) => {
      const { event, atMs } = arrival;
      const isDoubled = event.type === 'unit' && event.unit.kind === 'audio' && atMs > 4000 && atMs < 6000;
      return isDoubled ? [arrival, arrival] : [arrival];
    });
    const segments = segmentsOf([...feed(grid, doubled), ...grid.endOfPublisher()]);
    expect(new Set(steps(unitsOf(segments, 'audio')))).toEqual(new Set([AAC_SAMPLES_PER_UNIT]));
    // 94 units too many came; as many as make up the tolerance of 100 ms were let in.
    expect(grid.droppedUnits).toBeGreaterThan(85);
    expect(grid.droppedUnits).toBeLessThan(94);
  });

  test('a small step back of the video clock keeps every unit, in order', () => {
    const grid = newGrid();
    const arrivals = encode({ video: VIDEO, audio: AUDIO_48, seconds: 6, jitterMs: 45 });
    const segments = segmentsOf([...feed(grid, arrivals), ...grid.endOfPublisher()]);
    expect(unitsOf(segments, 'video')).toHaveLength(150);
    // The link between nodes carries whole milliseconds of composition time.
    for (const { ptsTicks, dtsTicks } of unitsOf(segments, 'video'))
      expect((ptsTicks - dtsTicks) % 90).toBe(0);
  });

  test('one track far behind the other: sorted within 1 s, dropped and counted beyond', () => {
    const late = (lateMs: number) => {
      const grid = newGrid();
      const arrivals = encode({ video: VIDEO, audio: AUDIO_48, seconds: 10 })
        .map((arrival) => {
          const isAudio = arrival.event.type === 'unit' && arrival.event.unit.kind === 'audio';
          return isAudio ? { ...arrival, atMs: arrival.atMs + lateMs } : arrival;
        })
        .sort((a, b) => a.atMs - b.atMs);
      const segments = segmentsOf([...feed(grid, arrivals), ...grid.endOfPublisher()]);
      return { audio: unitsOf(segments, 'audio').length, video: unitsOf(segments, 'video').length, grid };
    };
    expect(late(900)).toMatchObject({ audio: 469, video: 250, grid: { droppedUnits: 0 } });
    const { audio, video, grid } = late(1500);
    expect(video).toBe(250);
    expect(audio + grid.droppedUnits).toBe(469);
    expect(grid.droppedUnits).toBeGreaterThan(300);
  });
});

describe('starting', () => {
  test('waits for the first key frame; nothing from before it comes out', () => {
    const grid = newGrid();
    const arrivals = encode({
      video: VIDEO,
      audio: AUDIO_48,
      seconds: 4,
      isKeyFrame: (frame) => frame % 50 === 30,
    });
    const segments = segmentsOf([...feed(grid, arrivals), ...grid.endOfPublisher()]);
    expect(segments[0]?.cue.startTicks).toBe((3_600_250 + 1200) * 90);
    expect(segments[0]?.units[0]).toMatchObject({ kind: 'video', trackId: 0, isRandomAccess: true });
    // The first sound starts within one unit after the first picture, and belongs to it.
    const firstAudio = unitsOf(segments, 'audio')[0]?.dtsTicks ?? 0;
    expect(firstAudio / 48 - (3_600_250 + 1200)).toBeLessThan(1024 / 48);
    const unitMs = 1024 / 48;
    expect(Math.abs(firstAudio / 48 - 3_600_250 - Math.ceil(1200 / unitMs) * unitMs)).toBeLessThan(1);
  });

  test('holds the first second back for the header of the second track', () => {
    const grid = newGrid();
    const arrivals = encode({ video: VIDEO, audio: AUDIO_48, seconds: 4 });
    const [videoTrack, audioTrack, ...units] = arrivals;
    if (videoTrack === undefined || audioTrack === undefined) throw new Error('no tracks');
    const isAudio = ({ event }: Arrival) => event.type === 'unit' && event.unit.kind === 'audio';
    const early = units.filter((arrival) => arrival.atMs < 800 && !isAudio(arrival));
    const rest = units.filter(({ atMs }) => atMs >= 800);
    expect(feed(grid, [videoTrack, ...early])).toEqual([]);
    const events = feed(grid, [audioTrack, ...rest]);
    expect(events.slice(0, 3).map(({ type }) => type)).toEqual(['timeline', 'track', 'track']);
    const segments = segmentsOf([...events, ...grid.endOfPublisher()]);
    // The key frame that waited keeps the time of its own arrival.
    expect(segments[0]?.cue.startTicks).toBe(3_600_250 * 90);
    expect(unitsOf(segments, 'video')).toHaveLength(100);
    expect(new Set(segments.map(({ cue }) => cue.discontinuitySequence)).size).toBe(1);
  });

  test('video only: starts after 1 s of media', () => {
    const grid = newGrid();
    const arrivals = encode({ video: VIDEO, seconds: 10 });
    expect(feed(grid, arrivals.slice(0, 25))).toEqual([]); // the track and 24 frames: 920 ms
    const events = [...feed(grid, arrivals.slice(25)), ...grid.endOfPublisher()];
    const segments = segmentsOf(events);
    expect(events.filter(({ type }) => type === 'track')).toHaveLength(1);
    expect(unitsOf(segments, 'video')).toHaveLength(250);
    expect(durationsMs(segments)).toEqual([2000, 2000, 2000, 2000]);
  });

  test.each([
    ['48 kHz', AUDIO_48],
    ['44.1 kHz', AUDIO_44],
  ])('audio only, %s: starts after 1 s of media, segments are cut by time', (_, audio) => {
    const grid = newGrid();
    const segments = segmentsOf([...feed(grid, encode({ audio, seconds: 20 })), ...grid.endOfPublisher()]);
    expect(new Set(steps(unitsOf(segments, 'audio')))).toEqual(new Set([AAC_SAMPLES_PER_UNIT]));
    expect(segments.length).toBeGreaterThanOrEqual(10);
    for (const { cue } of segments) expect(cue.isIndependent).toBe(true);
    for (const ms of durationsMs(segments)) expect(Math.abs(ms - 2000)).toBeLessThan(110);
  });

  test('units that wait are forgotten when their track changes', () => {
    const grid = newGrid();
    expect(feed(grid, encode({ video: VIDEO, seconds: 0.5 }))).toEqual([]);
    const second = encode({ video: OTHER_VIDEO, audio: AUDIO_48, seconds: 3, clockMs: 500 });
    const segments = segmentsOf([...feed(grid, second, NOW_MS + 500), ...grid.endOfPublisher()]);
    expect(unitsOf(segments, 'video')).toHaveLength(75);
    expect(segments[0]?.cue.startTicks).toBe((3_600_250 + 500) * 90);
  });

  test('what the encoder says about timeline and cues is ignored', () => {
    const grid = newGrid();
    const [segment] = segmentsOf(feed(newGrid(), encode({ video: VIDEO, audio: AUDIO_48, seconds: 1 })));
    if (segment === undefined) throw new Error('no segment');
    expect(grid.push({ type: 'timeline', epochUnixMs: 5 }, NOW_MS)).toEqual([]);
    expect(grid.push({ type: 'cue', cue: segment.cue }, NOW_MS)).toEqual([]);
  });
});

describe('segments', () => {
  const run = (isKeyFrame: (frame: number) => boolean, seconds: number, frameRate = 25) => {
    const grid = newGrid();
    const arrivals = encode({ video: VIDEO, audio: AUDIO_48, seconds, frameRate, isKeyFrame });
    return segmentsOf([...feed(grid, arrivals), ...grid.endOfPublisher()]);
  };
  const target = (segments: readonly Segment[]) => segments[1]?.cue.targetDurationMs;

  test.each([
    { name: '2 s GOPs', gop: 50, rate: 25, lengthMs: 2000, targetMs: 2000 },
    { name: '1 s GOPs: two in a segment', gop: 25, rate: 25, lengthMs: 2000, targetMs: 2000 },
    { name: '0.5 s GOPs: four in a segment', gop: 15, rate: 30, lengthMs: 2000, targetMs: 2000 },
    { name: '60 frames at 29.97: 2.002 s', gop: 60, rate: 29.97, lengthMs: 2002, targetMs: 2000 },
  ])('$name', ({ gop, rate, lengthMs, targetMs }) => {
    const segments = run((frame) => frame % gop === 0, 4.5 * (lengthMs / 1000), rate);
    expect(target(segments)).toBe(targetMs);
    expect(durationsMs(segments).length).toBe(4);
    for (const ms of durationsMs(segments)) expect(Math.abs(ms - lengthMs)).toBeLessThanOrEqual(1);
    for (const { cue } of segments) expect(cue.isIndependent).toBe(true);
  });

  test('scene-cut key frames: a cut at one only if the next could come too late', () => {
    // keyint 50 restarts at each scene cut, as x264 does it: after 0.4 s and after 1.2 s
    const keys = new Set([0, 50, 100, 110, 160, 210, 240, 290, 340, 390]);
    const segments = run((frame) => keys.has(frame), 17.6);
    expect(target(segments)).toBe(2000);
    expect(segments.every(({ cue }) => cue.isIndependent)).toBe(true);
    expect(durationsMs(segments)).toEqual([2000, 2000, 2400, 2000, 1200, 2000, 2000, 2000]);
  });

  test('a key frame is not waited for that would come later than the target allows', () => {
    // 0.64 s GOPs in the first segment, then 1.24 s: two of them are 2.48 s
    const segments = run((frame) => (frame <= 48 ? frame % 16 === 0 : (frame - 48) % 31 === 0), 12);
    expect(target(segments)).toBe(2000);
    expect(segments.every(({ cue }) => cue.isIndependent)).toBe(true);
    expect(durationsMs(segments).slice(1)).toEqual(Array(8).fill(1240));
  });

  test('GOPs longer than the target: cut without a key frame, and said so', () => {
    // 2 s at first, then one key frame in 6 s
    const segments = run((frame) => frame === 50 || frame % 150 === 0, 24);
    expect(target(segments)).toBe(2000);
    const flags = segments.map(({ cue }) => cue.isIndependent);
    expect(flags.filter((flag) => flag).length).toBeGreaterThanOrEqual(4);
    expect(flags).toContain(false);
    for (const ms of durationsMs(segments)) expect(ms).toBeLessThan(2500);
    // Wherever there is video, video opens the segment.
    for (const { units } of segments) expect(units[0]?.kind).toBe('video');
  });

  test.each([
    { name: '3 s', gop: 75, rate: 25 },
    { name: '4 s', gop: 100, rate: 25 },
    { name: '8.33 s, x264 as it comes', gop: 250, rate: 30 },
    { name: '10 s', gop: 250, rate: 25 },
    { name: 'none after the first', gop: 10_000, rate: 25 },
  ])('sparse key frames, $name: nobody waits for the first segment', ({ gop, rate }) => {
    const seconds = 40;
    const segments = run((frame) => frame % gop === 0, seconds, rate);
    expect(target(segments)).toBe(4000);
    expect(durationsMs(segments)[0]).toBeLessThanOrEqual(2050);
    for (const ms of durationsMs(segments)) expect(ms).toBeLessThanOrEqual(4490);
    // Each key frame opens a segment, but for one that comes less than a second after a forced cut.
    const keyFrames = Math.ceil((seconds * rate) / gop);
    const independent = segments.filter(({ cue }) => cue.isIndependent).length;
    expect(independent).toBeGreaterThanOrEqual(keyFrames - 2);
    expect(independent).toBeLessThanOrEqual(keyFrames);
  });

  test('video that stops while audio goes on: segments go on, without video', () => {
    const grid = newGrid();
    const arrivals = encode({ video: VIDEO, audio: AUDIO_48, seconds: 30 }).filter(
      ({ event, atMs }) =>
        !(event.type === 'unit' && event.unit.kind === 'video' && atMs > 6500 && atMs < 20_000),
    );
    const segments = segmentsOf([...feed(grid, arrivals), ...grid.endOfPublisher()]);
    expect(unitsOf(segments, 'audio')).toHaveLength(1407);
    for (const ms of durationsMs(segments)) expect(ms).toBeLessThan(2500);
    expect(new Set(segments.map(({ cue }) => cue.discontinuitySequence)).size).toBe(1);
    expect(grid.droppedUnits).toBe(0);
  });
});

describe('discontinuities', () => {
  const av = (seconds: number, clockMs = 0, more: Partial<Encoder> = {}) =>
    encode({ video: VIDEO, audio: AUDIO_48, seconds, clockMs, ...more });
  const shifted = (arrivals: readonly Arrival[], byMs: number) =>
    arrivals.map(({ event, atMs }) => ({ event, atMs: atMs + byMs }));
  const unitsOnly = (arrivals: readonly Arrival[]) => arrivals.filter(({ event }) => event.type === 'unit');
  const sequences = (segments: readonly Segment[]) => {
    const first = segments[0]?.cue.discontinuitySequence ?? 0;
    return segments.map(({ cue }) => cue.discontinuitySequence - first);
  };

  test('an encoder that comes back continues the timeline and the numbers', () => {
    const grid = newGrid();
    const events = feed(grid, av(5));
    events.push(...grid.endOfPublisher());
    events.push(...feed(grid, av(5, 99_000), NOW_MS + 8000));
    events.push(...grid.endOfPublisher());
    const segments = segmentsOf(events);
    expect(sequences(segments)).toEqual([0, 0, 0, 1, 1, 1]);
    expect(segments[3]?.cue.startTicks).toBe((3_600_250 + 8000) * 90);
    // The same configuration: no tracks again.
    expect(events.filter(({ type }) => type === 'track')).toHaveLength(2);
    expect(unitsOf(segments, 'video')).toHaveLength(250);
  });

  test('an encoder that comes back with media still to play starts at its end, seamlessly', () => {
    const grid = newGrid();
    const events = feed(grid, av(4));
    events.push(...grid.endOfPublisher());
    events.push(...feed(grid, av(4), NOW_MS + 3000));
    events.push(...grid.endOfPublisher());
    const segments = segmentsOf(events);
    expect(sequences(segments)).toEqual([0, 0, 0, 0]);
    const endMs = 3_600_250 + (188 * 1024) / 48; // of the audio, which is longer
    const startMs = (segments[2]?.cue.startTicks ?? 0) / 90;
    expect(startMs).toBeGreaterThanOrEqual(endMs);
    expect(startMs).toBeLessThan(endMs + 1);
  });

  test('an encoder that comes back with other codecs: a cue, then all tracks', () => {
    const grid = newGrid();
    const events = feed(grid, av(4));
    events.push(...grid.endOfPublisher());
    const second = feed(grid, encode({ video: OTHER_VIDEO, audio: AUDIO_44, seconds: 4 }), NOW_MS + 4000);
    expect(second.filter(({ type }) => type === 'track')).toHaveLength(2);
    expect(second.slice(0, 3)).toMatchObject([
      { type: 'cue' },
      { type: 'track', track: OTHER_VIDEO },
      { type: 'track', track: AUDIO_44 },
    ]);
    const segments = segmentsOf([...events, ...second, ...grid.endOfPublisher()]);
    expect(sequences(segments)).toEqual([0, 0, 1, 1]);
  });

  // Found by fuzzing: the tracks counted as announced although the run ended before its first unit.
  test('other codecs are announced also where a second of audio on another clock comes first', () => {
    const grid = newGrid();
    const events = feed(grid, av(4));
    events.push(...grid.endOfPublisher());
    const foreign = encode({ audio: AUDIO_44, seconds: 1.5, clockMs: 20_000 });
    const second = [
      { event: { type: 'track', track: OTHER_VIDEO } as const, atMs: 0 },
      ...foreign,
      ...unitsOnly(encode({ video: OTHER_VIDEO, audio: AUDIO_44, seconds: 4 })),
    ];
    events.push(...feed(grid, second, NOW_MS + 4000), ...grid.endOfPublisher());
    const announced = events.flatMap((event) => (event.type === 'track' ? [event.track] : []));
    expect(announced).toEqual([VIDEO, AUDIO_48, OTHER_VIDEO, AUDIO_44]);
    expect(sequences(segmentsOf(events)).at(-1)).toBe(1);
  });

  test('flapping encoders never use up numbers faster than one a second', () => {
    const grid = newGrid();
    const events: StreamEvent[] = [];
    for (let i = 0; i < 20; i++) {
      events.push(...feed(grid, av(0.2), NOW_MS + i * 250), ...grid.endOfPublisher());
    }
    expect(segmentsOf(events)).toHaveLength(20);
  });

  test.each([
    ['back to 0', 0],
    ['back by 5 s', 95_000],
    ['forth by an hour', 3_700_000],
  ])('a clock set %s: one discontinuity, at the next key frame, at now', (_, clockMs) => {
    const grid = newGrid();
    const events = feed(grid, [...av(5, 100_000), ...shifted(unitsOnly(av(5, clockMs)), 5000)]);
    const segments = segmentsOf([...events, ...grid.endOfPublisher()]);
    expect(sequences(segments).at(-1)).toBe(1);
    const start = segments.find(({ cue }) => cue.discontinuitySequence === 3601)?.cue.startTicks ?? 0;
    expect(Math.abs(start / 90 - (3_600_250 + 5000))).toBeLessThan(25);
    expect(unitsOf(segments, 'video')).toHaveLength(250);
    expect(grid.droppedUnits).toBe(0);
  });

  test.each([0, 300])('a clock set where one track shows it %i ms before the other', (skewMs) => {
    for (const firstKind of ['video', 'audio']) {
      const grid = newGrid();
      const before = av(8, 1_000_000).filter(
        ({ event, atMs }) => event.type !== 'unit' || event.unit.kind !== firstKind || atMs < 8000 - skewMs,
      );
      const arrivals = [...before, ...shifted(unitsOnly(av(8, 0)), 8000)]
        .map((arrival) => {
          const isLate =
            arrival.atMs >= 8000 && arrival.event.type === 'unit' && arrival.event.unit.kind === firstKind;
          return isLate ? { ...arrival, atMs: arrival.atMs - skewMs } : arrival;
        })
        .sort((a, b) => a.atMs - b.atMs);
      const segments = segmentsOf([...feed(grid, arrivals), ...grid.endOfPublisher()]);
      expect(sequences(segments).at(-1)).toBe(1);
      expect(unitsOf(segments, 'video').length).toBeGreaterThan(380);
      expect(unitsOf(segments, 'audio').length).toBeGreaterThan(700);
      expect(grid.droppedUnits).toBeLessThan(20);
    }
  });

  test('both tracks silent for 5 s: the distance stays, the hole is a discontinuity', () => {
    const grid = newGrid();
    const arrivals = av(20).filter(({ atMs }) => atMs < 5000 || atMs > 10_010);
    const segments = segmentsOf([...feed(grid, arrivals), ...grid.endOfPublisher()]);
    expect(sequences(segments).at(-1)).toBe(1);
    const times = unitsOf(segments, 'video').map(({ dtsTicks }) => dtsTicks / 90 - 3_600_250);
    expect(times.at(-1)).toBe(19_960);
  });

  test('other parameter sets in mid-stream: a cue, then the tracks, at their key frame', () => {
    const grid = newGrid();
    const later = av(4, 4000);
    const events = feed(grid, [
      ...av(4),
      { atMs: 4000, event: { type: 'track', track: OTHER_VIDEO } },
      ...shifted(unitsOnly(later), 4000),
    ]);
    const segments = segmentsOf([...events, ...grid.endOfPublisher()]);
    expect(sequences(segments)).toEqual([0, 0, 1, 1]);
    const at = events.findIndex((event, i) => i > 5 && event.type === 'track');
    expect(events.slice(at - 1, at + 3)).toMatchObject([
      { type: 'cue' },
      { type: 'track', track: OTHER_VIDEO },
      { type: 'track', track: AUDIO_48 },
      { type: 'unit', unit: { kind: 'video', trackId: 0, isRandomAccess: true } },
    ]);
    expect(unitsOf(segments, 'video')).toHaveLength(200);
  });

  test('audio-only whose clock is set back', () => {
    const grid = newGrid();
    const first = encode({ audio: AUDIO_48, seconds: 5, clockMs: 50_000 });
    const second = encode({ audio: AUDIO_48, seconds: 5 });
    const events = feed(grid, [...first, ...shifted(unitsOnly(second), 5000)]);
    const segments = segmentsOf([...events, ...grid.endOfPublisher()]);
    expect(sequences(segments).at(-1)).toBe(1);
    expect(unitsOf(segments, 'audio')).toHaveLength(235 * 2);
  });

  test.each([
    ['31 bits, as FFmpeg wraps', 2 ** 31],
    ['32 bits', 2 ** 32],
  ])('a wrap at %s is no discontinuity', (_, modulus) => {
    const grid = newGrid();
    const demuxer = new FlvDemuxer();
    const tracks: Record<string, Track> = { video: VIDEO, audio: AUDIO_48 };
    const events: StreamEvent[] = [];
    for (const { event, atMs } of av(20, modulus - 10_010)) {
      if (event.type !== 'track' && event.type !== 'unit') continue;
      const track = tracks[event.type === 'track' ? event.track.kind : event.unit.kind];
      if (track === undefined) throw new Error('no track');
      const message =
        event.type === 'track' ? sequenceHeaderMessage(track, 0) : unitMessage(event.unit, track, 0);
      const wrapped = { ...message, timestampMs: message.timestampMs % modulus };
      for (const one of demuxer.push(wrapped)) events.push(...grid.push(one, NOW_MS + atMs));
    }
    const segments = segmentsOf([...events, ...grid.endOfPublisher()]);
    expect(new Set(sequences(segments))).toEqual(new Set([0]));
    expect(durationsMs(segments)).toEqual(Array(9).fill(2000));
    expect(new Set(steps(unitsOf(segments, 'video')))).toEqual(new Set([3600]));
    expect(new Set(steps(unitsOf(segments, 'audio')))).toEqual(new Set([1024]));
  });
});

describe('several tracks of a kind', () => {
  const SMALL = { ...OTHER_VIDEO, trackId: 3 };
  const SECOND_SOUND = { ...AUDIO_44, trackId: 1 };

  /** The arrivals of an encoder on one of its further tracks. */
  function onTrack(arrivals: readonly Arrival[], track: Track): Arrival[] {
    return arrivals.flatMap(({ event, atMs }): Arrival[] => {
      if (event.type === 'track') return [{ event: { type: 'track', track }, atMs }];
      if (event.type !== 'unit') return [];
      return [{ event: { type: 'unit', unit: { ...event.unit, trackId: track.trackId } }, atMs }];
    });
  }
  /** As multiplexed: all headers first, then by time. */
  const merged = (...encoders: Arrival[][]) =>
    encoders
      .flat()
      .sort((a, b) => Number(b.event.type === 'track') - Number(a.event.type === 'track') || a.atMs - b.atMs);
  const ofTrack = (segments: readonly Segment[], track: Track) =>
    segments.flatMap(({ units }) => units.filter((unit) => trackIndex(unit) === trackIndex(track)));

  test('all keep their distances, and segments start at key frames of the first', () => {
    const events = feed(
      newGrid(),
      merged(
        encode({ video: VIDEO, audio: AUDIO_48, seconds: 12, frameRate: 30 }),
        onTrack(encode({ video: OTHER_VIDEO, seconds: 12, frameRate: 30 }), SMALL),
        onTrack(encode({ audio: AUDIO_44, seconds: 12, jitterMs: 8 }), SECOND_SOUND),
      ),
    );
    expect(events.slice(0, 5).flatMap((event) => (event.type === 'track' ? [event.track] : []))).toEqual([
      VIDEO,
      SMALL,
      AUDIO_48,
      SECOND_SOUND,
    ]);
    const segments = segmentsOf(events);
    expect(segments.length).toBeGreaterThan(4);
    for (const { cue, units } of segments) {
      // Both pictures have their key frame first, at the start of the segment.
      expect(
        units.slice(0, 2).map(({ kind, trackId, isRandomAccess }) => [kind, trackId, isRandomAccess]),
      ).toEqual([
        ['video', 0, true],
        ['video', 3, true],
      ]);
      expect(units[1]?.dtsTicks).toBe(cue.startTicks);
    }
    const [large, small] = [ofTrack(segments, VIDEO), ofTrack(segments, SMALL)];
    expect(small.map(({ dtsTicks }) => dtsTicks)).toEqual(
      large.slice(0, small.length).map(({ dtsTicks }) => dtsTicks),
    );
    expect(small.length).toBeGreaterThan(large.length - 3);
    expect(new Set(steps(ofTrack(segments, AUDIO_48)))).toEqual(new Set([1024]));
    expect(new Set(steps(ofTrack(segments, SECOND_SOUND)))).toEqual(new Set([1024]));
  });

  test('a picture whose key frames come later starts there, and the first is not held up', () => {
    const isLate = (frame: number) => frame % 50 === 10;
    const events = feed(
      newGrid(),
      merged(
        encode({ video: VIDEO, audio: AUDIO_48, seconds: 6 }),
        onTrack(encode({ video: OTHER_VIDEO, seconds: 6, isKeyFrame: isLate }), SMALL),
      ),
    );
    const segments = segmentsOf(events);
    const [first] = ofTrack(segments, SMALL);
    const start = segments[0]?.cue.startTicks ?? 0;
    expect([first?.isRandomAccess, (first?.dtsTicks ?? 0) - start]).toEqual([true, 10 * 3600]);
    expect(ofTrack(segments, VIDEO)[0]?.dtsTicks).toBe(start);
    expect(segments.every(({ cue }) => cue.isIndependent)).toBe(true);
  });

  test('a further track that falls silent delays the others by a second at most', () => {
    const silent = onTrack(encode({ video: OTHER_VIDEO, seconds: 2 }), SMALL);
    const grid = newGrid();
    const arrivals = merged(encode({ video: VIDEO, audio: AUDIO_48, seconds: 8 }), silent);
    const units = ofTrack(segmentsOf(feed(grid, arrivals)), VIDEO);
    const last = units.at(-1)?.dtsTicks ?? 0;
    expect((last - (units[0]?.dtsTicks ?? 0)) / 90_000).toBeGreaterThan(6.8);
    expect(grid.droppedUnits).toBe(0);
  });

  test('a track that comes later is announced with all others, at a discontinuity', () => {
    const late = onTrack(encode({ audio: AUDIO_44, seconds: 4, clockMs: 4000 }), SECOND_SOUND);
    const events = feed(newGrid(), [
      ...encode({ video: VIDEO, audio: AUDIO_48, seconds: 4 }),
      ...merged(
        late,
        encode({ video: VIDEO, audio: AUDIO_48, seconds: 4, clockMs: 4000 }).filter(
          ({ event }) => event.type === 'unit',
        ),
      ).map(({ event, atMs }) => ({ event, atMs: atMs + 4000 })),
    ]);
    const segments = segmentsOf(events);
    const at = events.findLastIndex(
      (event) =>
        event.type === 'cue' && event.cue.discontinuitySequence !== segments[0]?.cue.discontinuitySequence,
    );
    expect(at).toBeGreaterThan(0);
    const announced = events.flatMap((event, i) => (event.type === 'track' && i > 4 ? [event.track] : []));
    expect(announced).toEqual([VIDEO, AUDIO_48, SECOND_SOUND]);
    expect(ofTrack(segments, SECOND_SOUND).length).toBeGreaterThan(100);
  });
});

test('whatever an encoder does, the contract of the stream holds', () => {
  const unit = fc.record({
    type: fc.constant('unit' as const),
    isVideo: fc.boolean(),
    trackId: fc.oneof(
      { weight: 3, arbitrary: fc.constant(0) },
      { weight: 1, arbitrary: fc.constantFrom(1, 7) },
    ),
    isKeyFrame: fc.boolean(),
    stepMs: fc.oneof(
      { weight: 20, arbitrary: fc.integer({ min: 0, max: 120 }) },
      { weight: 2, arbitrary: fc.integer({ min: -300, max: 3000 }) },
      { weight: 1, arbitrary: fc.constantFrom(-20_000, 20_000, 9000) },
    ),
    offsetMs: fc.integer({ min: -5, max: 200 }),
  });
  const track = fc.record({
    type: fc.constant('track' as const),
    track: fc.constantFrom<Track[]>(
      VIDEO,
      OTHER_VIDEO,
      AUDIO_48,
      AUDIO_44,
      { ...OTHER_VIDEO, trackId: 1 },
      { ...AUDIO_44, trackId: 1 },
    ),
  });
  const end = fc.record({ type: fc.constant('end' as const) });
  const commands = fc.array(
    fc.oneof({ weight: 60, arbitrary: unit }, { weight: 1, arbitrary: track }, { weight: 1, arbitrary: end }),
    { minLength: 50, maxLength: 400 },
  );
  const starts: Track[][] = [
    [VIDEO, AUDIO_44],
    [VIDEO],
    [AUDIO_48],
    [VIDEO, { ...OTHER_VIDEO, trackId: 1 }, AUDIO_44, { ...AUDIO_48, trackId: 7 }],
    [AUDIO_48, { ...AUDIO_44, trackId: 1 }],
  ];
  fc.assert(
    fc.property(commands, fc.constantFrom(...starts), (list, tracks) => {
      const grid = newGrid();
      const events: StreamEvent[] = [];
      let nowMs = NOW_MS;
      const clocksMs = new Map<number, number>();
      const rates = new Map<number, number>();
      const push = (event: StreamEvent) => {
        if (event.type === 'track') rates.set(trackIndex(event.track), timescaleHz(event.track));
        events.push(...grid.push(event, nowMs));
      };
      for (const one of tracks) push({ type: 'track', track: one });
      for (const command of list) {
        if (command.type === 'end') {
          events.push(...grid.endOfPublisher());
          for (const one of tracks) push({ type: 'track', track: one });
        } else if (command.type === 'track') {
          push(command);
        } else {
          const kind = command.isVideo ? 'video' : 'audio';
          const { trackId } = command;
          const index = trackIndex({ kind, trackId });
          const clockMs = Math.max(0, (clocksMs.get(index) ?? 50_000) + command.stepMs);
          clocksMs.set(index, clockMs);
          nowMs += Math.max(0, command.stepMs) / 2;
          const dtsTicks = rescaleTicks(clockMs, 1000, rates.get(index) ?? 90_000);
          const ptsTicks = dtsTicks + (command.isVideo ? command.offsetMs * 90 : 0);
          const isRandomAccess = !command.isVideo || command.isKeyFrame;
          push({
            type: 'unit',
            unit: { kind, trackId, dtsTicks, ptsTicks, isRandomAccess, data: Uint8Array.of(1) },
          });
        }
      }
      events.push(...grid.endOfPublisher());
      for (const { units } of segmentsOf(events)) {
        for (const one of units)
          must(one.ptsTicks >= one.dtsTicks, 'no picture is shown before it is decoded');
      }
    }),
    { numRuns: 300 },
  );
});
