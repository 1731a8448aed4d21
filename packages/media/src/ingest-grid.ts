/**
 * Puts the stream of a third-party encoder on the channel's timeline and writes the cues
 * (docs/formats/cue.md), so that nothing downstream differs from our own playout.
 *
 * The way of a unit: {@link IngestGrid} places it in time, {@link ReorderBuffer} sorts all tracks
 * into one order, {@link SegmentCutter} decides where segments start.
 */
import {
  type AccessUnit,
  type AudioTrack,
  type Cue,
  isSameTrack,
  type StreamEvent,
  type Track,
  timescaleHz,
  trackIndex,
} from './access-unit.ts';
import { silentAacUnit } from './codec/aac.ts';
import { samplesInUnit } from './codec/samples.ts';
import { compareTicks, rescaleTicks, VIDEO_TIMESCALE_HZ } from './time.ts';

const TICKS_PER_MS = VIDEO_TIMESCALE_HZ / 1000;

/** An encoder's clock that steps further than this, back or forth, has been set anew. */
const MAX_CLOCK_STEP_TICKS = 10_000 * TICKS_PER_MS;
/** How far an encoder's clock may depart from ours, or step back, before that is taken as real. */
const CLOCK_TOLERANCE_MS = 100;
/** Units in a row with a foreign time, after which their clock is believed: about 1 s of audio. */
const MAX_FOREIGN_UNITS = 50;
/** How long to wait for the sequence header of the other kind of track, in media time. */
const OTHER_KIND_WAIT_MS = 1_000;
/** Bounds of what is held back, before the start and while sorting. */
const MAX_HELD_UNITS = 512;
const MAX_HELD_SECONDS = 1;

/** Assumed of the first video unit of a run. */
const USUAL_FRAME_DURATION_TICKS = 40 * TICKS_PER_MS;
/** A longer distance of two video units is a gap, not a low frame rate. */
const MAX_FRAME_DURATION_TICKS = 1_000 * TICKS_PER_MS;
/** A hole in the media that a player would notice: marked as a discontinuity, so that it can skip it. */
const MAX_HOLE_TICKS = 500 * TICKS_PER_MS;
/** Sound that has stopped so long before the picture is not missed any more. */
const MAX_SILENCE_SECONDS = 1;
const MIN_SEGMENT_MS = 1_000;
const MIN_TARGET_DURATION_MS = 2_000;
/** Where no second key frame came in the first segment: fewer cuts between key frames, at twice the delay. */
const SPARSE_KEY_FRAMES_TARGET_MS = 4_000;
/** The first segment is cut at the first key frame after this, which then sets the target. */
const MIN_FIRST_SEGMENT_MS = 1_900;
/** Without one it is cut here: viewers have a playlist within 3 s of the encoder's start. */
const MAX_FIRST_SEGMENT_MS = 2_050;
/** A segment may exceed the target by less than half a second (RFC 8216 4.3.3.1: it rounds to the target). */
const MAX_EXCESS_MS = 490;
/** Other tracks may go on a little longer, so that it is the leading one that opens the segment: video where there is any. */
const MAX_LAG_MS = 9;
/** A key frame is not waited for when it would come later than the target and this. */
const MAX_WAIT_EXCESS_MS = 400;

/** By {@link trackIndex}, as are all maps of tracks here; in that order. */
type Tracks = ReadonlyMap<number, Track>;

interface Arrival {
  readonly unit: AccessUnit;
  readonly nowUnixMs: number;
}

/** Where the units of one track are in a run. */
interface Place {
  readonly track: Track;
  /** Video: where the last unit was placed. Audio: where the next belongs if no sample is missing. */
  ticks: number | undefined;
}

/** A stretch of one encoder's stream that is placed with one offset. */
interface Run {
  readonly tracks: Tracks;
  /** Index of the track that rules the clock and the segmentation: the first video track, else the first. */
  readonly leading: number;
  readonly startTicks: number;
  /** From the encoder's clock to the timeline. */
  readonly offsetTicks: number;
  readonly buffer: ReorderBuffer;
  /** The latest time that the encoder has shown on any track, on its own clock. */
  encoderClockTicks: number;
  /** The last time of the leading track. */
  lastLeadingTicks: number | undefined;
  foreignUnits: number;
  readonly places: ReadonlyMap<number, Place>;
}

/**
 * The grid of one channel. It outlives its encoders: each continues the timeline of the one before.
 *
 * - The first key frame of an encoder's first video track lies at the time of its arrival, or at the end of
 *   what was emitted if that is later. From there on video keeps the encoder's distances, and each audio track
 *   runs on a sample counter, which rids it of the rounding to milliseconds.
 * - Further video tracks are placed with the same offset, each from its first key frame on. Segments start at
 *   key frames of the first; an encoder's renditions have theirs at the same times.
 * - An encoder whose clock is set back or more than 10 s forth is placed anew, with a discontinuity.
 * - Where the tracks change, all of them are announced again right after the cue, and replace those before.
 * - Where a run ends, AAC goes on with silence to the end of the picture. For browsers keep sound and picture of
 *   one stream in one buffer, and after a hole of more than one unit of either they drop the pictures up to the
 *   next key frame (W3C Media Source Extensions, coded frame processing, step 6).
 * - Timeline and cue events from the encoder are ignored: it has no say in the segmentation.
 *
 * | state   | event                                                             | then    |
 * | ------- | ----------------------------------------------------------------- | ------- |
 * | waiting | a key frame (without video: any unit), and tracks of both kinds    | running |
 * |         | are known or the other has not come for 1 s                       |         |
 * | running | a track with another configuration, or the clock set              | waiting |
 * | any     | end of publisher: its tracks are forgotten                        | waiting |
 */
export class IngestGrid {
  readonly #epochUnixMs: number;
  readonly #otherKindWaitTicks: number;
  readonly #cutter: SegmentCutter;
  /** As last announced: a run that ended before its first unit has announced nothing. */
  #tracksOnAir: readonly Track[] = [];
  #droppedUnits = 0;
  #events: StreamEvent[] = [];

  /** What the encoder publishing now has announced. */
  #tracks: Tracks = new Map();
  /** From the encoder's clock to the timeline; undefined where it has to be found anew. */
  #offsetTicks: number | undefined;
  #wasClockSet = false;
  #run: Run | undefined;
  /** While waiting: units from the first that may be needed. */
  #held: Arrival[] = [];

  /** @param options.otherKindWaitMs 0 where all tracks of an encoder are pushed before its first unit */
  constructor(options: { epochUnixMs: number; programmeId: string; otherKindWaitMs?: number }) {
    this.#epochUnixMs = options.epochUnixMs;
    this.#otherKindWaitTicks = (options.otherKindWaitMs ?? OTHER_KIND_WAIT_MS) * TICKS_PER_MS;
    this.#cutter = new SegmentCutter(options);
  }

  /** Where the next encoder's stream may begin: the end of what was emitted; 0 while nothing was. */
  get earliestStartTicks(): number {
    return this.#cutter.earliestRunTicks;
  }

  /** The next encoder's stream may begin up to here without a discontinuity; what begins later leaves a hole. */
  get latestSeamlessStartTicks(): number {
    return this.#cutter.latestSeamlessRunTicks;
  }

  /** Units that came too late to be sorted in, overlapped others, or had a foreign time. */
  get droppedUnits(): number {
    return this.#droppedUnits + (this.#run?.buffer.lateUnits ?? 0);
  }

  /**
   * @param event of the encoder now publishing, on its own clock
   * @param nowUnixMs wall-clock time
   * @returns events on the channel's timeline, in the order that access-unit.ts prescribes
   */
  push(event: StreamEvent, nowUnixMs: number): StreamEvent[] {
    if (event.type === 'track') this.#takeTrack(event.track);
    else if (event.type === 'unit') this.#takeUnit({ unit: event.unit, nowUnixMs });
    return this.#takeEvents();
  }

  /** The encoder left: gives out what was held back. The next one continues the timeline. */
  endOfPublisher(): StreamEvent[] {
    this.#stop();
    this.#tracks = new Map();
    this.#offsetTicks = undefined;
    this.#held = [];
    return this.#takeEvents();
  }

  #takeEvents(): StreamEvent[] {
    const events = this.#events;
    this.#events = [];
    return events;
  }

  #takeTrack(track: Track): void {
    const index = trackIndex(track);
    const known = this.#tracks.get(index);
    if (known !== undefined && isSameTrack(known, track)) return;
    this.#stop();
    this.#held = this.#held.filter(({ unit }) => trackIndex(unit) !== index);
    this.#tracks = new Map([...this.#tracks, [index, track] as const].sort(([a], [b]) => a - b));
    this.#startIfReady();
  }

  #takeUnit(arrival: Arrival): void {
    if (!this.#tracks.has(trackIndex(arrival.unit))) return;
    if (this.#run === undefined) this.#hold(arrival);
    else this.#place(arrival, this.#run);
  }

  // Waiting

  #hold(arrival: Arrival): void {
    const { unit } = arrival;
    const isOfSameTrack = (other: Arrival) => trackIndex(other.unit) === trackIndex(unit);
    const isUndecodable = unit.kind === 'video' && !unit.isRandomAccess && !this.#held.some(isOfSameTrack);
    if (isUndecodable) return;
    this.#held.push(arrival);
    this.#startIfReady();
    if (this.#held.length > MAX_HELD_UNITS) this.#held.shift();
  }

  #startIfReady(): void {
    const leading = leadingIndex(this.#tracks);
    const first = this.#held.find(({ unit }) => trackIndex(unit) === leading);
    const last = this.#held.at(-1);
    if (first === undefined || last === undefined) return;
    const kinds = new Set(Array.from(this.#tracks.values(), ({ kind }) => kind));
    const heldTicks = this.#encoderTicks(last.unit) - this.#encoderTicks(first.unit);
    if (kinds.size === 2 || heldTicks >= this.#otherKindWaitTicks || this.#held.length >= MAX_HELD_UNITS) {
      this.#start(first);
    }
  }

  #start(first: Arrival): void {
    const encoderTicks = this.#encoderTicks(first.unit);
    const wishedTicks =
      this.#offsetTicks === undefined
        ? Math.round((first.nowUnixMs - this.#epochUnixMs) * TICKS_PER_MS)
        : encoderTicks + this.#offsetTicks;
    const startTicks = Math.max(wishedTicks, this.#cutter.earliestRunTicks);
    this.#offsetTicks = startTicks - encoderTicks;

    const tracks = this.#tracks;
    const leading = leadingIndex(tracks);
    const isSame = areSameTracks([...tracks.values()], this.#tracksOnAir);
    this.#cutter.beginRun({ tracks, leading, isDiscontinuity: !isSame || this.#wasClockSet });
    this.#wasClockSet = false;
    this.#run = {
      tracks,
      leading,
      startTicks,
      offsetTicks: this.#offsetTicks,
      buffer: new ReorderBuffer(tracks, startTicks),
      encoderClockTicks: encoderTicks,
      lastLeadingTicks: undefined,
      foreignUnits: 0,
      places: new Map(Array.from(tracks, ([index, track]) => [index, { track, ticks: undefined }])),
    };
    const held = this.#held;
    this.#held = [];
    for (const arrival of held) this.#takeUnit(arrival);
  }

  /** Ends the run, if there is one, and gives out what it held back. */
  #stop(): void {
    const run = this.#run;
    if (run === undefined) return;
    this.#run = undefined;
    // In between where they belong, then on to the end.
    for (const unit of this.#silence(run, afterLastStartTicks(run))) {
      for (const due of run.buffer.push(unit)) this.#emit(due, run);
    }
    for (const unit of run.buffer.flush()) this.#emit(unit, run);
    for (const unit of this.#silence(run, this.#cutter.endTicks)) this.#emit(unit, run);
    this.#droppedUnits += run.buffer.lateUnits;
  }

  /** Units of silence that are missing up to a time, in order; none where there is no picture to go on with. */
  #silence(run: Run, untilTicks: number | undefined): AccessUnit[] {
    if (untilTicks === undefined) return [];
    const units: { readonly unit: AccessUnit; readonly hz: number }[] = [];
    for (const place of run.places.values()) {
      const { track } = place;
      if (track.kind !== 'audio' || track.codec !== 'aac' || place.ticks === undefined) continue;
      const hz = track.sampleRateHz;
      const untilSamples = rescaleTicks(untilTicks, VIDEO_TIMESCALE_HZ, hz);
      const data = silentAacUnit(track.config);
      if (data === undefined || untilSamples - place.ticks > MAX_SILENCE_SECONDS * hz) continue;
      const { kind, trackId } = track;
      while (place.ticks < untilSamples) {
        const dtsTicks = place.ticks;
        units.push({ unit: { kind, trackId, dtsTicks, ptsTicks: dtsTicks, isRandomAccess: true, data }, hz });
        place.ticks += samplesInUnit(track, data);
      }
    }
    units.sort(
      (a, b) =>
        compareTicks(a.unit.dtsTicks, a.hz, b.unit.dtsTicks, b.hz) || trackIndex(a.unit) - trackIndex(b.unit),
    );
    return units.map(({ unit }) => unit);
  }

  // Placing

  #place(arrival: Arrival, run: Run): void {
    const { unit } = arrival;
    switch (this.#judgeClock(unit, run)) {
      case 'foreign':
        this.#droppedUnits++;
        return;
      case 'set':
        this.#stop();
        this.#offsetTicks = undefined;
        this.#wasClockSet = true;
        this.#hold(arrival);
        return;
      case 'steady': {
        const placed = this.#placed(unit, run);
        if (placed === undefined) return;
        for (const due of run.buffer.push(placed)) this.#emit(due, run);
      }
    }
  }

  /**
   * Whether a unit's time follows from those before. When an encoder's clock is set, one track shows it
   * before the others; the leading one rules, and what else has a foreign time is left out until it has followed.
   */
  #judgeClock(unit: AccessUnit, run: Run): 'steady' | 'foreign' | 'set' {
    const ticks = this.#encoderTicks(unit);
    const isLeading = trackIndex(unit) === run.leading;
    if (Math.abs(ticks - run.encoderClockTicks) > MAX_CLOCK_STEP_TICKS) {
      if (isLeading) return 'set';
      run.foreignUnits++;
      return run.foreignUnits > MAX_FOREIGN_UNITS ? 'set' : 'foreign';
    }
    run.foreignUnits = 0;
    if (isLeading) {
      const isSetBack =
        run.lastLeadingTicks !== undefined &&
        ticks < run.lastLeadingTicks - CLOCK_TOLERANCE_MS * TICKS_PER_MS;
      if (isSetBack) return 'set';
      run.lastLeadingTicks = ticks;
    }
    run.encoderClockTicks = Math.max(run.encoderClockTicks, ticks);
    return 'steady';
  }

  #placed(unit: AccessUnit, run: Run): AccessUnit | undefined {
    const place = run.places.get(trackIndex(unit));
    if (place === undefined) return undefined;
    return place.track.kind === 'video'
      ? this.#placeVideo(unit, place, run)
      : this.#placeAudio(unit, place, place.track, run);
  }

  #placeVideo(unit: AccessUnit, place: Place, run: Run): AccessUnit | undefined {
    let dtsTicks = unit.dtsTicks + run.offsetTicks;
    if (place.ticks === undefined) {
      // What comes before the first key frame of its track cannot be decoded. A millisecond is only rounding.
      if (!unit.isRandomAccess || dtsTicks < run.startTicks - TICKS_PER_MS) return undefined;
      dtsTicks = Math.max(dtsTicks, run.startTicks);
    } else if (dtsTicks <= place.ticks) {
      // After a small step back: keep the unit, since others refer to it, and its grid of whole milliseconds.
      dtsTicks = place.ticks + TICKS_PER_MS;
    }
    place.ticks = dtsTicks;
    return unitAt(unit, dtsTicks, Math.max(unit.ptsTicks + run.offsetTicks, dtsTicks));
  }

  #placeAudio(unit: AccessUnit, place: Place, track: AudioTrack, run: Run): AccessUnit | undefined {
    const audioHz = track.sampleRateHz;
    const measured = unit.dtsTicks + rescaleTicks(run.offsetTicks, VIDEO_TIMESCALE_HZ, audioHz);
    const toleranceSamples = (audioHz * CLOCK_TOLERANCE_MS) / 1000;
    let dtsTicks = place.ticks;
    if (dtsTicks === undefined) {
      // Audio from before the first key frame has no picture. A millisecond is only rounding.
      const startSamples = rescaleTicksUp(run.startTicks, VIDEO_TIMESCALE_HZ, audioHz);
      if (measured < startSamples - audioHz / 1000) return undefined;
      dtsTicks = Math.max(measured, startSamples);
    } else if (measured > dtsTicks + toleranceSamples) {
      dtsTicks = measured;
    } else if (measured < dtsTicks - toleranceSamples) {
      this.#droppedUnits++;
      return undefined;
    }
    place.ticks = dtsTicks + samplesInUnit(track, unit.data);
    return unitAt(unit, dtsTicks, dtsTicks);
  }

  #encoderTicks(unit: AccessUnit): number {
    const track = this.#tracks.get(trackIndex(unit));
    if (track === undefined || track.kind === 'video') return unit.dtsTicks;
    return rescaleTicks(unit.dtsTicks, track.sampleRateHz, VIDEO_TIMESCALE_HZ);
  }

  #emit(unit: AccessUnit, run: Run): void {
    const cue = this.#cutter.add(unit);
    if (cue !== undefined) this.#emitCue(cue, run);
    this.#events.push({ type: 'unit', unit });
  }

  /** With the tracks before it where it is the first of all, behind it where they have changed. */
  #emitCue(cue: Cue, run: Run): void {
    const isFirst = this.#tracksOnAir.length === 0;
    const tracks = [...run.tracks.values()];
    const isSame = areSameTracks(tracks, this.#tracksOnAir);
    this.#tracksOnAir = tracks;
    if (isFirst) this.#events.push({ type: 'timeline', epochUnixMs: this.#epochUnixMs });
    else this.#events.push({ type: 'cue', cue });
    if (!isSame) for (const track of tracks) this.#events.push({ type: 'track', track });
    if (isFirst) this.#events.push({ type: 'cue', cue });
  }
}

/** After all units of all tracks so far began; undefined where there is no picture. */
function afterLastStartTicks({ places, leading }: Run): number | undefined {
  if (places.get(leading)?.track.kind !== 'video') return undefined;
  const starts = Array.from(places.values(), ({ track, ticks = 0 }) =>
    // Of sound the end is known: its last unit began before that.
    track.kind === 'video' ? ticks : rescaleTicksUp(ticks - 1, track.sampleRateHz, VIDEO_TIMESCALE_HZ),
  );
  return Math.max(...starts) + 1;
}

/** The first video track, else the first track. */
function leadingIndex(tracks: Tracks): number {
  const [leading] = tracks.keys();
  if (leading === undefined) throw new Error('no track leads where there are none');
  return leading; // video comes first
}

/**
 * The unit at another time. Spelled out: of an object literal that goes on after a spread V8 (11.3, in Node 20)
 * makes a hidden class for each object, and then every access to any of them is slow.
 */
function unitAt({ kind, trackId, isRandomAccess, data }: AccessUnit, dtsTicks: number, ptsTicks: number) {
  return { kind, trackId, dtsTicks, ptsTicks, isRandomAccess, data };
}

function areSameTracks(a: readonly Track[], b: readonly Track[]): boolean {
  return (
    a.length === b.length &&
    a.every((track, i) => {
      const other = b[i];
      return other !== undefined && trackIndex(track) === trackIndex(other) && isSameTrack(track, other);
    })
  );
}

/** `rescaleTicks`, but to the first tick that is not earlier. */
function rescaleTicksUp(ticks: number, fromHz: number, toHz: number): number {
  const nearest = rescaleTicks(ticks, fromHz, toHz);
  return compareTicks(nearest, toHz, ticks, fromHz) < 0 ? nearest + 1 : nearest;
}

/** `rescaleTicks`, but to the last tick that is not later. */
function rescaleTicksDown(ticks: number, fromHz: number, toHz: number): number {
  const nearest = rescaleTicks(ticks, fromHz, toHz);
  return compareTicks(nearest, toHz, ticks, fromHz) > 0 ? nearest - 1 : nearest;
}

/** The units of one track that wait to be sorted in. */
interface Queue {
  readonly track: Track;
  readonly index: number;
  readonly hz: number;
  readonly units: AccessUnit[];
  /** The earliest time that the next unit to come can have. */
  nextTicks: number;
}

interface UnitPlace {
  readonly ticks: number;
  readonly hz: number;
  readonly index: number;
}

/**
 * Sorts tracks, each in order by itself, into one order by DTS and, when equal, by {@link trackIndex}.
 *
 * A unit is due when no earlier one can come from another track any more. Bound: 1 s of media or 512
 * units of one track; then the oldest is due all the same, and what comes later but is older is dropped.
 */
class ReorderBuffer {
  readonly #queues: ReadonlyMap<number, Queue>;
  #lastDue: UnitPlace | undefined;
  lateUnits = 0;

  constructor(tracks: Tracks, startTicks: number) {
    this.#queues = new Map(
      Array.from(tracks, ([index, track]): [number, Queue] => {
        const hz = timescaleHz(track);
        const nextTicks = rescaleTicksUp(startTicks, VIDEO_TIMESCALE_HZ, hz);
        return [index, { track, index, hz, units: [], nextTicks }];
      }),
    );
  }

  /** @returns the units that are due now */
  push(unit: AccessUnit): AccessUnit[] {
    const queue = this.#queues.get(trackIndex(unit));
    if (queue === undefined) throw new Error(`a unit of the unknown ${unit.kind} track ${unit.trackId}`);
    queue.nextTicks =
      unit.dtsTicks + (queue.track.kind === 'audio' ? samplesInUnit(queue.track, unit.data) : 1);
    const place = { ticks: unit.dtsTicks, hz: queue.hz, index: queue.index };
    if (this.#lastDue !== undefined && isBefore(place, this.#lastDue)) {
      this.lateUnits++;
      return [];
    }
    queue.units.push(unit);
    const due: AccessUnit[] = [];
    for (let next = this.#takeDue(); next !== undefined; next = this.#takeDue()) due.push(next);
    return due;
  }

  /** @returns all that is left, in order */
  flush(): AccessUnit[] {
    const rest: AccessUnit[] = [];
    for (let queue = this.#oldest(); queue !== undefined; queue = this.#oldest()) {
      rest.push(...queue.units.splice(0, 1));
    }
    return rest;
  }

  #takeDue(): AccessUnit | undefined {
    const queue = this.#oldest();
    const unit = queue?.units[0];
    if (queue === undefined || unit === undefined) return undefined;
    const place = { ticks: unit.dtsTicks, hz: queue.hz, index: queue.index };
    let mayBePreceded = false;
    let isAnyFull = false;
    for (const other of this.#queues.values()) {
      if (other.units.length > 0) isAnyFull ||= isFull(other);
      else mayBePreceded ||= isBefore({ ticks: other.nextTicks, hz: other.hz, index: other.index }, place);
    }
    if (mayBePreceded && !isAnyFull) return undefined;
    this.#lastDue = place;
    return queue.units.shift();
  }

  /** The queue with the unit that comes first of all. */
  #oldest(): Queue | undefined {
    let oldest: Queue | undefined;
    let oldestTicks = 0;
    for (const queue of this.#queues.values()) {
      const ticks = queue.units[0]?.dtsTicks;
      if (ticks === undefined) continue;
      if (oldest === undefined || compareTicks(ticks, queue.hz, oldestTicks, oldest.hz) < 0) {
        oldest = queue; // at equal times the one before, since the queues are in the order of their tracks
        oldestTicks = ticks;
      }
    }
    return oldest;
  }
}

function isBefore(a: UnitPlace, b: UnitPlace): boolean {
  const byTime = compareTicks(a.ticks, a.hz, b.ticks, b.hz);
  return byTime < 0 || (byTime === 0 && a.index < b.index);
}

function isFull({ units, hz }: Queue): boolean {
  const heldTicks = (units.at(-1)?.dtsTicks ?? 0) - (units[0]?.dtsTicks ?? 0);
  return heldTicks > MAX_HELD_SECONDS * hz || units.length > MAX_HELD_UNITS;
}

interface OpenSegment {
  readonly startTicks: number;
  readonly mediaSequenceNumber: number;
  readonly discontinuitySequence: number;
}

/**
 * Decides where segments start, from units in their final order: at key frames of the leading track.
 *
 * The first segment of the process shows how far apart the encoder's key frames are, if a second one comes
 * in time. That sets the target duration, which then stays: players do not survive a change.
 */
class SegmentCutter {
  readonly #epochUnixMs: number;
  readonly #programmeId: string;
  #segment: OpenSegment | undefined;
  /** 0 until the first segment has ended. */
  #targetDurationMs = 0;

  #tracks: Tracks = new Map();
  #leading = 0;
  #hasVideo = false;
  #opensRun = false;
  #isDiscontinuity = false;
  /** End of the media so far. */
  #endTicks = 0;
  /** Of the last unit, rounded down. */
  #lastStartTicks = -1;
  /** Of each video track. */
  readonly #lastVideoTicks = new Map<number, number>();
  #lastKeyFrameTicks: number | undefined;
  /** Longest distance of two key frames seen in the open segment and in the one before it. */
  #longestGopTicks = { open: 0, before: 0 };

  constructor(options: { epochUnixMs: number; programmeId: string }) {
    this.#epochUnixMs = options.epochUnixMs;
    this.#programmeId = options.programmeId;
  }

  /**
   * Where the next run may start: after what was emitted, and never before the second that its media
   * sequence number stands for, or a restarted process could use the number again.
   */
  get earliestRunTicks(): number {
    if (this.#segment === undefined) return this.#endTicks;
    return Math.max(this.#endTicks, (this.#segment.mediaSequenceNumber + 1) * VIDEO_TIMESCALE_HZ);
  }

  /** The end of what was added; undefined where there is no picture. */
  get endTicks(): number | undefined {
    return this.#hasVideo ? this.#endTicks : undefined;
  }

  /** The open segment reaches to the start of the next run, and may not outlast the target. */
  get latestSeamlessRunTicks(): number {
    const holeTicks = this.#endTicks + MAX_HOLE_TICKS;
    return this.#segment === undefined ? holeTicks : Math.min(holeTicks, this.#latestEndTicks(this.#segment));
  }

  /** The next unit opens a segment, whatever the length of the one before. */
  beginRun(run: { tracks: Tracks; leading: number; isDiscontinuity: boolean }): void {
    this.#tracks = run.tracks;
    this.#leading = run.leading;
    this.#hasVideo = run.tracks.get(run.leading)?.kind === 'video';
    this.#opensRun = true;
    this.#isDiscontinuity ||= run.isDiscontinuity; // the run before may have ended before its first unit
    this.#lastVideoTicks.clear();
    this.#lastKeyFrameTicks = undefined;
  }

  /** @returns the cue to emit before the unit, if it opens a segment */
  add(unit: AccessUnit): Cue | undefined {
    const index = trackIndex(unit);
    const track = this.#tracks.get(index);
    if (track === undefined) throw new Error(`a unit of the unknown ${unit.kind} track ${unit.trackId}`);
    const startTicks = rescaleTicksDown(unit.dtsTicks, timescaleHz(track), VIDEO_TIMESCALE_HZ);
    const isFollower = index !== this.#leading;
    const isRandomAccess = unit.isRandomAccess && !isFollower;
    const durationTicks = this.#durationTicks(unit, track);
    if (unit.kind === 'video' && isRandomAccess) {
      const gopTicks = startTicks - (this.#lastKeyFrameTicks ?? startTicks);
      this.#longestGopTicks.open = Math.max(this.#longestGopTicks.open, gopTicks);
      this.#lastKeyFrameTicks = startTicks;
    }
    const opens =
      this.#segment === undefined ||
      this.#opensRun ||
      // Two sounds of different sample rates may have units within one tick, which no cue can tell apart.
      (startTicks > this.#lastStartTicks &&
        this.#isDue(isFollower, isRandomAccess, startTicks - this.#segment.startTicks, durationTicks));
    this.#lastStartTicks = startTicks;
    const cue = opens ? this.#open(startTicks, isRandomAccess) : undefined;
    const endTicks =
      track.kind === 'video'
        ? startTicks + durationTicks
        : rescaleTicksUp(
            unit.dtsTicks + samplesInUnit(track, unit.data),
            track.sampleRateHz,
            VIDEO_TIMESCALE_HZ,
          );
    this.#endTicks = Math.max(this.#endTicks, endTicks);
    return cue;
  }

  /** How long a unit lasts; for video as long as the one before, since its own end is not known yet. */
  #durationTicks(unit: AccessUnit, track: Track): number {
    if (track.kind === 'audio') {
      return rescaleTicks(samplesInUnit(track, unit.data), track.sampleRateHz, VIDEO_TIMESCALE_HZ);
    }
    const index = trackIndex(track);
    const lastTicks = this.#lastVideoTicks.get(index) ?? unit.dtsTicks - USUAL_FRAME_DURATION_TICKS;
    this.#lastVideoTicks.set(index, unit.dtsTicks);
    return Math.min(unit.dtsTicks - lastTicks, MAX_FRAME_DURATION_TICKS);
  }

  /** What the open segment may last; others a little longer, so that it is the leading track that opens the next. */
  #maxSegmentMs(isFollower: boolean): number {
    const lagMs = isFollower ? MAX_LAG_MS : 0;
    if (this.#targetDurationMs === 0) return MAX_FIRST_SEGMENT_MS + lagMs;
    return this.#targetDurationMs + MAX_EXCESS_MS + lagMs;
  }

  #latestEndTicks(segment: OpenSegment): number {
    const maxMs = this.#maxSegmentMs(this.#hasVideo || this.#tracks.size > 1);
    return segment.startTicks + maxMs * TICKS_PER_MS;
  }

  #isDue(isFollower: boolean, isRandomAccess: boolean, elapsedTicks: number, durationTicks: number): boolean {
    const elapsedMs = elapsedTicks / TICKS_PER_MS;
    if (elapsedMs + durationTicks / TICKS_PER_MS > this.#maxSegmentMs(isFollower)) return true;
    if (!isRandomAccess) return false;
    if (this.#targetDurationMs === 0) return elapsedMs >= MIN_FIRST_SEGMENT_MS;
    // Cut here if the next key frame would come too late, or further from the target than this one.
    const gopMs = Math.max(this.#longestGopTicks.open, this.#longestGopTicks.before) / TICKS_PER_MS;
    return (
      elapsedMs >= MIN_SEGMENT_MS &&
      (elapsedMs + gopMs > this.#targetDurationMs + MAX_WAIT_EXCESS_MS ||
        elapsedMs + gopMs / 2 > this.#targetDurationMs)
    );
  }

  #open(startTicks: number, isIndependent: boolean): Cue {
    const before = this.#segment;
    const hasHole = startTicks - this.#endTicks > MAX_HOLE_TICKS;
    // A gap that would stretch the segment before over the target: then that ends with its media instead.
    const isTooLong = before !== undefined && startTicks > this.#latestEndTicks(before);
    const isDiscontinuity =
      before !== undefined && (hasHole || isTooLong || (this.#opensRun && this.#isDiscontinuity));
    if (before !== undefined && this.#targetDurationMs === 0) {
      const endTicks = isDiscontinuity ? this.#endTicks : startTicks;
      const isGopKnown = !this.#hasVideo || this.#longestGopTicks.open > 0;
      this.#targetDurationMs = isGopKnown
        ? targetDurationMs((endTicks - before.startTicks) / TICKS_PER_MS)
        : SPARSE_KEY_FRAMES_TARGET_MS;
    }
    // The second of the timeline, so that the numbers exceed all that an earlier process used: it cannot
    // have used more than one per second.
    const second = Math.floor(startTicks / VIDEO_TIMESCALE_HZ);
    this.#segment = {
      startTicks,
      mediaSequenceNumber: before === undefined ? second : before.mediaSequenceNumber + 1,
      discontinuitySequence:
        before === undefined ? second : before.discontinuitySequence + (isDiscontinuity ? 1 : 0),
    };
    this.#opensRun = false;
    this.#isDiscontinuity = false;
    this.#longestGopTicks = { open: 0, before: this.#longestGopTicks.open };
    return {
      ...this.#segment,
      programDateTimeUnixMs: this.#epochUnixMs + Math.floor(startTicks / TICKS_PER_MS),
      programmeId: this.#programmeId,
      targetDurationMs: this.#targetDurationMs,
      isIndependent,
    };
  }
}

/** The smallest whole number of seconds to which segments of this length may round. */
function targetDurationMs(segmentMs: number): number {
  return Math.max(MIN_TARGET_DURATION_MS, Math.ceil((segmentMs - MAX_EXCESS_MS) / 1000) * 1000);
}
