/**
 * Puts the stream of a third-party encoder on the channel's timeline and writes the cues
 * (docs/formats/cue.md), so that nothing downstream differs from our own playout.
 *
 * The way of a unit: {@link IngestGrid} places it in time, {@link ReorderBuffer} sorts the two tracks
 * into one order, {@link SegmentCutter} decides where segments start.
 */
import {
  type AccessUnit,
  type AudioTrack,
  type Cue,
  isDefaultTrack,
  isSameTrack,
  type StreamEvent,
  type Track,
  type VideoTrack,
} from './access-unit.ts';
import { samplesInUnit } from './codec/samples.ts';
import { compareTicks, rescaleTicks, VIDEO_TIMESCALE_HZ } from './time.ts';

const TICKS_PER_MS = VIDEO_TIMESCALE_HZ / 1000;

/** An encoder's clock that steps further than this, back or forth, has been set anew. */
const MAX_CLOCK_STEP_TICKS = 10_000 * TICKS_PER_MS;
/** How far an encoder's clock may depart from ours, or step back, before that is taken as real. */
const CLOCK_TOLERANCE_MS = 100;
/** Audio units in a row with a foreign time, after which the audio's clock is believed: about 1 s. */
const MAX_FOREIGN_AUDIO_UNITS = 50;
/** How long to wait for the sequence header of the second track, in media time. */
const SECOND_TRACK_WAIT_MS = 1_000;
/** Bounds of what is held back, before the start and while sorting. */
const MAX_HELD_UNITS = 512;
const MAX_HELD_SECONDS = 1;

/** Assumed of the first video unit of a run. */
const USUAL_FRAME_DURATION_TICKS = 40 * TICKS_PER_MS;
/** A longer distance of two video units is a gap, not a low frame rate. */
const MAX_FRAME_DURATION_TICKS = 1_000 * TICKS_PER_MS;
/** A hole in the media that a player would notice: marked as a discontinuity, so that it can skip it. */
const MAX_HOLE_TICKS = 500 * TICKS_PER_MS;
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
/** Audio may go on a little longer, so that wherever there is video it is video that opens the segment. */
const MAX_AUDIO_LAG_MS = 9;
/** A key frame is not waited for when it would come later than the target and this. */
const MAX_WAIT_EXCESS_MS = 400;

interface Tracks {
  readonly video: VideoTrack | undefined;
  readonly audio: AudioTrack | undefined;
}

interface Arrival {
  readonly unit: AccessUnit;
  readonly nowUnixMs: number;
}

/** A stretch of one encoder's stream that is placed with one offset. */
interface Run {
  readonly hasVideo: boolean;
  readonly audio: AudioTrack | undefined;
  readonly startTicks: number;
  /** From the encoder's clock to the timeline. */
  readonly offsetTicks: number;
  readonly buffer: ReorderBuffer;
  /** The latest time that the encoder has shown on either track, on its own clock. */
  encoderClockTicks: number;
  /** The last time of the track that rules the clock: video where there is any. */
  lastRulingTicks: number | undefined;
  foreignAudioUnits: number;
  /** Where the last video unit was placed. */
  lastVideoTicks: number | undefined;
  /** Where the next audio unit belongs if no sample is missing. */
  nextAudioTicks: number | undefined;
  /** Video first. */
  readonly tracks: readonly Track[];
}

/**
 * The grid of one channel. It outlives its encoders: each continues the timeline of the one before.
 *
 * - The first key frame of an encoder lies at the time of its arrival, or at the end of what was emitted
 *   if that is later. From there on video keeps the encoder's distances, and audio runs on a sample
 *   counter, which rids it of the rounding to milliseconds.
 * - An encoder whose clock is set back or more than 10 s forth is placed anew, with a discontinuity.
 * - Where the tracks change, all of them are announced again right after the cue, and replace those before.
 * - Timeline and cue events from the encoder are ignored: it has no say in the segmentation.
 *
 * | state   | event                                                             | then    |
 * | ------- | ----------------------------------------------------------------- | ------- |
 * | waiting | a key frame (without video: any unit), and the second track is     | running |
 * |         | known or has not come for 1 s                                     |         |
 * | running | a track with another configuration, or the clock set              | waiting |
 * | any     | end of publisher: its tracks are forgotten                        | waiting |
 */
export class IngestGrid {
  readonly #epochUnixMs: number;
  readonly #secondTrackWaitTicks: number;
  readonly #cutter: SegmentCutter;
  /** As last announced: a run that ended before its first unit has announced nothing. */
  #tracksOnAir: readonly Track[] = [];
  #droppedUnits = 0;
  #events: StreamEvent[] = [];

  /** What the encoder publishing now has announced. */
  #tracks: Tracks = { video: undefined, audio: undefined };
  /** From the encoder's clock to the timeline; undefined where it has to be found anew. */
  #offsetTicks: number | undefined;
  #wasClockSet = false;
  #run: Run | undefined;
  /** While waiting: units from the first that may be needed. */
  #held: Arrival[] = [];

  /** @param options.secondTrackWaitMs 0 where all tracks of an encoder are pushed before its first unit */
  constructor(options: { epochUnixMs: number; programmeId: string; secondTrackWaitMs?: number }) {
    this.#epochUnixMs = options.epochUnixMs;
    this.#secondTrackWaitTicks = (options.secondTrackWaitMs ?? SECOND_TRACK_WAIT_MS) * TICKS_PER_MS;
    this.#cutter = new SegmentCutter(options);
  }

  /** Where the next encoder's stream may begin: the end of what was emitted; 0 while nothing was. */
  get earliestStartTicks(): number {
    return this.#cutter.earliestRunTicks;
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
    if (event.type === 'track' && isDefaultTrack(event.track)) this.#takeTrack(event.track);
    else if (event.type === 'unit' && isDefaultTrack(event.unit))
      this.#takeUnit({ unit: event.unit, nowUnixMs });
    return this.#takeEvents();
  }

  /** The encoder left: gives out what was held back. The next one continues the timeline. */
  endOfPublisher(): StreamEvent[] {
    this.#stop();
    this.#tracks = { video: undefined, audio: undefined };
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
    const known = this.#tracks[track.kind];
    if (known !== undefined && isSameTrack(known, track)) return;
    this.#stop();
    this.#held = this.#held.filter(({ unit }) => unit.kind !== track.kind);
    this.#tracks =
      track.kind === 'video' ? { ...this.#tracks, video: track } : { ...this.#tracks, audio: track };
    this.#startIfReady();
  }

  #takeUnit(arrival: Arrival): void {
    if (this.#tracks[arrival.unit.kind] === undefined) return;
    if (this.#run === undefined) this.#hold(arrival);
    else this.#place(arrival, this.#run);
  }

  // Waiting

  #hold(arrival: Arrival): void {
    const { unit } = arrival;
    const isUndecodable = unit.kind === 'video' && !unit.isRandomAccess && !this.#held.some(isVideo);
    if (isUndecodable) return;
    this.#held.push(arrival);
    this.#startIfReady();
    if (this.#held.length > MAX_HELD_UNITS) this.#held.shift();
  }

  #startIfReady(): void {
    const { video, audio } = this.#tracks;
    const first = video === undefined ? this.#held[0] : this.#held.find(isVideo);
    const last = this.#held.at(-1);
    if (first === undefined || last === undefined) return;
    const isComplete = video !== undefined && audio !== undefined;
    const heldTicks = this.#encoderTicks(last.unit) - this.#encoderTicks(first.unit);
    if (isComplete || heldTicks >= this.#secondTrackWaitTicks || this.#held.length >= MAX_HELD_UNITS) {
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

    const tracks = [this.#tracks.video, this.#tracks.audio].filter((track) => track !== undefined);
    const isSame = areSameTracks(tracks, this.#tracksOnAir);
    const hasVideo = this.#tracks.video !== undefined;
    const { audio } = this.#tracks;
    this.#cutter.beginRun({ hasVideo, audio, isDiscontinuity: !isSame || this.#wasClockSet });
    this.#wasClockSet = false;
    this.#run = {
      hasVideo,
      audio,
      startTicks,
      offsetTicks: this.#offsetTicks,
      buffer: new ReorderBuffer({ hasVideo, audio, startTicks }),
      encoderClockTicks: encoderTicks,
      lastRulingTicks: undefined,
      foreignAudioUnits: 0,
      lastVideoTicks: undefined,
      nextAudioTicks: undefined,
      tracks,
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
    for (const unit of run.buffer.flush()) this.#emit(unit, run);
    this.#droppedUnits += run.buffer.lateUnits;
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
        const placed = unit.kind === 'video' ? this.#placeVideo(unit, run) : this.#placeAudio(unit, run);
        if (placed === undefined) return;
        for (const due of run.buffer.push(placed)) this.#emit(due, run);
      }
    }
  }

  /**
   * Whether a unit's time follows from those before. When an encoder's clock is set, one track shows it
   * before the other; video rules, and audio with a foreign time is left out until video has followed.
   */
  #judgeClock(unit: AccessUnit, run: Run): 'steady' | 'foreign' | 'set' {
    const ticks = this.#encoderTicks(unit);
    const isRuling = unit.kind === 'video' || !run.hasVideo;
    if (Math.abs(ticks - run.encoderClockTicks) > MAX_CLOCK_STEP_TICKS) {
      if (isRuling) return 'set';
      run.foreignAudioUnits++;
      return run.foreignAudioUnits > MAX_FOREIGN_AUDIO_UNITS ? 'set' : 'foreign';
    }
    run.foreignAudioUnits = 0;
    if (isRuling) {
      const isSetBack =
        run.lastRulingTicks !== undefined && ticks < run.lastRulingTicks - CLOCK_TOLERANCE_MS * TICKS_PER_MS;
      if (isSetBack) return 'set';
      run.lastRulingTicks = ticks;
    }
    run.encoderClockTicks = Math.max(run.encoderClockTicks, ticks);
    return 'steady';
  }

  #placeVideo(unit: AccessUnit, run: Run): AccessUnit {
    let dtsTicks = unit.dtsTicks + run.offsetTicks;
    // After a small step back: keep the unit, since others refer to it, and its grid of whole milliseconds.
    if (run.lastVideoTicks !== undefined && dtsTicks <= run.lastVideoTicks) {
      dtsTicks = run.lastVideoTicks + TICKS_PER_MS;
    }
    run.lastVideoTicks = dtsTicks;
    return { ...unit, dtsTicks, ptsTicks: Math.max(unit.ptsTicks + run.offsetTicks, dtsTicks) };
  }

  #placeAudio(unit: AccessUnit, run: Run): AccessUnit | undefined {
    const { audio } = run;
    if (audio === undefined) return undefined;
    const audioHz = audio.sampleRateHz;
    const measured = unit.dtsTicks + rescaleTicks(run.offsetTicks, VIDEO_TIMESCALE_HZ, audioHz);
    const toleranceSamples = (audioHz * CLOCK_TOLERANCE_MS) / 1000;
    let dtsTicks = run.nextAudioTicks;
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
    run.nextAudioTicks = dtsTicks + samplesInUnit(audio, unit.data);
    return { ...unit, dtsTicks, ptsTicks: dtsTicks };
  }

  #encoderTicks(unit: AccessUnit): number {
    const audio = this.#tracks.audio;
    if (unit.kind === 'video' || audio === undefined) return unit.dtsTicks;
    return rescaleTicks(unit.dtsTicks, audio.sampleRateHz, VIDEO_TIMESCALE_HZ);
  }

  #emit(unit: AccessUnit, run: Run): void {
    const cue = this.#cutter.add(unit);
    if (cue !== undefined) this.#emitCue(cue, run);
    this.#events.push({ type: 'unit', unit });
  }

  /** With the tracks before it where it is the first of all, behind it where they have changed. */
  #emitCue(cue: Cue, run: Run): void {
    const isFirst = this.#tracksOnAir.length === 0;
    const isSame = areSameTracks(run.tracks, this.#tracksOnAir);
    this.#tracksOnAir = run.tracks;
    if (isFirst) this.#events.push({ type: 'timeline', epochUnixMs: this.#epochUnixMs });
    else this.#events.push({ type: 'cue', cue });
    if (!isSame) for (const track of run.tracks) this.#events.push({ type: 'track', track });
    if (isFirst) this.#events.push({ type: 'cue', cue });
  }
}

function isVideo({ unit }: Arrival): boolean {
  return unit.kind === 'video';
}

function areSameTracks(a: readonly Track[], b: readonly Track[]): boolean {
  return (
    a.length === b.length &&
    a.every((track, i) => {
      const other = b[i];
      return other !== undefined && isSameTrack(track, other);
    })
  );
}

function unitSamples(unit: AccessUnit, audio: AudioTrack | undefined): number {
  if (audio === undefined) throw new Error('an audio unit without its track');
  return samplesInUnit(audio, unit.data);
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

/**
 * Sorts two tracks, each in order by itself, into one order by DTS; video goes first when equal.
 *
 * A unit is due when no earlier one can come from the other track any more. Bound: 1 s of media or 512
 * units of one track; then the oldest is due all the same, and what comes later but is older is dropped.
 */
class ReorderBuffer {
  readonly #hasVideo: boolean;
  readonly #audioTrack: AudioTrack | undefined;
  /** 0 without audio. */
  readonly #audioHz: number;
  readonly #video: AccessUnit[] = [];
  readonly #audio: AccessUnit[] = [];
  /** The earliest time that the next unit of each track can have. */
  #nextVideoTicks: number;
  #nextAudioTicks: number;
  #lastDue: AccessUnit | undefined;
  lateUnits = 0;

  constructor(options: { hasVideo: boolean; audio: AudioTrack | undefined; startTicks: number }) {
    this.#hasVideo = options.hasVideo;
    this.#audioTrack = options.audio;
    this.#audioHz = options.audio?.sampleRateHz ?? 0;
    this.#nextVideoTicks = options.startTicks;
    this.#nextAudioTicks =
      this.#audioHz === 0 ? 0 : rescaleTicksUp(options.startTicks, VIDEO_TIMESCALE_HZ, this.#audioHz);
  }

  /** @returns the units that are due now */
  push(unit: AccessUnit): AccessUnit[] {
    if (unit.kind === 'video') this.#nextVideoTicks = unit.dtsTicks + 1;
    else this.#nextAudioTicks = unit.dtsTicks + unitSamples(unit, this.#audioTrack);
    if (this.#lastDue !== undefined && this.#compare(unit, this.#lastDue) < 0) {
      this.lateUnits++;
      return [];
    }
    this.#queue(unit.kind).push(unit);
    const due: AccessUnit[] = [];
    for (let next = this.#takeDue(); next !== undefined; next = this.#takeDue()) due.push(next);
    return due;
  }

  /** @returns all that is left, in order */
  flush(): AccessUnit[] {
    const rest = [...this.#video, ...this.#audio].sort((a, b) => this.#compare(a, b));
    this.#video.length = 0;
    this.#audio.length = 0;
    return rest;
  }

  #takeDue(): AccessUnit | undefined {
    const [video] = this.#video;
    const [audio] = this.#audio;
    let due: AccessUnit | undefined;
    if (video !== undefined && audio !== undefined) {
      due = this.#compare(video, audio) < 0 ? video : audio;
    } else if (video !== undefined) {
      if (!this.#canAudioPrecede(video) || this.#isFull(this.#video, VIDEO_TIMESCALE_HZ)) due = video;
    } else if (audio !== undefined) {
      if (!this.#canVideoPrecede(audio) || this.#isFull(this.#audio, this.#audioHz)) due = audio;
    }
    if (due === undefined) return undefined;
    this.#lastDue = due;
    return this.#queue(due.kind).shift();
  }

  #canAudioPrecede(video: AccessUnit): boolean {
    if (this.#audioHz === 0) return false;
    return compareTicks(this.#nextAudioTicks, this.#audioHz, video.dtsTicks, VIDEO_TIMESCALE_HZ) < 0;
  }

  #canVideoPrecede(audio: AccessUnit): boolean {
    if (!this.#hasVideo) return false;
    return compareTicks(this.#nextVideoTicks, VIDEO_TIMESCALE_HZ, audio.dtsTicks, this.#audioHz) <= 0;
  }

  #isFull(queue: readonly AccessUnit[], timescaleHz: number): boolean {
    const heldTicks = (queue.at(-1)?.dtsTicks ?? 0) - (queue[0]?.dtsTicks ?? 0);
    return heldTicks > MAX_HELD_SECONDS * timescaleHz || queue.length > MAX_HELD_UNITS;
  }

  #queue(kind: AccessUnit['kind']): AccessUnit[] {
    return kind === 'video' ? this.#video : this.#audio;
  }

  #hz(unit: AccessUnit): number {
    return unit.kind === 'video' ? VIDEO_TIMESCALE_HZ : this.#audioHz;
  }

  #compare(a: AccessUnit, b: AccessUnit): number {
    const byTime = compareTicks(a.dtsTicks, this.#hz(a), b.dtsTicks, this.#hz(b));
    if (byTime !== 0 || a.kind === b.kind) return byTime;
    return a.kind === 'video' ? -1 : 1;
  }
}

interface OpenSegment {
  readonly startTicks: number;
  readonly mediaSequenceNumber: number;
  readonly discontinuitySequence: number;
}

/**
 * Decides where segments start, from units in their final order.
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

  #hasVideo = false;
  #audio: AudioTrack | undefined;
  #opensRun = false;
  #isDiscontinuity = false;
  /** End of the media so far. */
  #endTicks = 0;
  #lastVideoTicks: number | undefined;
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

  /** The next unit opens a segment, whatever the length of the one before. */
  beginRun(run: { hasVideo: boolean; audio: AudioTrack | undefined; isDiscontinuity: boolean }): void {
    this.#hasVideo = run.hasVideo;
    this.#audio = run.audio;
    this.#opensRun = true;
    this.#isDiscontinuity ||= run.isDiscontinuity; // the run before may have ended before its first unit
    this.#lastVideoTicks = undefined;
    this.#lastKeyFrameTicks = undefined;
  }

  /** @returns the cue to emit before the unit, if it opens a segment */
  add(unit: AccessUnit): Cue | undefined {
    const audioHz = this.#audio?.sampleRateHz ?? 0;
    const startTicks =
      unit.kind === 'video' ? unit.dtsTicks : rescaleTicksDown(unit.dtsTicks, audioHz, VIDEO_TIMESCALE_HZ);
    const isRandomAccess = unit.isRandomAccess && (unit.kind === 'video' || !this.#hasVideo);
    const durationTicks = this.#durationTicks(unit);
    if (unit.kind === 'video' && isRandomAccess) {
      const gopTicks = startTicks - (this.#lastKeyFrameTicks ?? startTicks);
      this.#longestGopTicks.open = Math.max(this.#longestGopTicks.open, gopTicks);
      this.#lastKeyFrameTicks = startTicks;
    }
    const opens =
      this.#segment === undefined ||
      this.#opensRun ||
      this.#isDue(unit.kind, isRandomAccess, startTicks - this.#segment.startTicks, durationTicks);
    const cue = opens ? this.#open(startTicks, isRandomAccess) : undefined;
    const endTicks =
      unit.kind === 'video'
        ? startTicks + durationTicks
        : rescaleTicksUp(unit.dtsTicks + unitSamples(unit, this.#audio), audioHz, VIDEO_TIMESCALE_HZ);
    this.#endTicks = Math.max(this.#endTicks, endTicks);
    return cue;
  }

  /** How long a unit lasts; for video as long as the one before, since its own end is not known yet. */
  #durationTicks(unit: AccessUnit): number {
    if (unit.kind === 'audio') {
      const audioHz = this.#audio?.sampleRateHz ?? 0;
      return rescaleTicks(unitSamples(unit, this.#audio), audioHz, VIDEO_TIMESCALE_HZ);
    }
    const lastTicks = this.#lastVideoTicks ?? unit.dtsTicks - USUAL_FRAME_DURATION_TICKS;
    this.#lastVideoTicks = unit.dtsTicks;
    return Math.min(unit.dtsTicks - lastTicks, MAX_FRAME_DURATION_TICKS);
  }

  /** What the open segment may last; audio a little longer, so that it is video that opens the next. */
  #maxSegmentMs(kind: AccessUnit['kind']): number {
    const isFollower = kind === 'audio' && this.#hasVideo;
    if (this.#targetDurationMs === 0) return MAX_FIRST_SEGMENT_MS + (isFollower ? MAX_AUDIO_LAG_MS : 0);
    return this.#targetDurationMs + MAX_EXCESS_MS + (isFollower ? MAX_AUDIO_LAG_MS : 0);
  }

  #isDue(
    kind: AccessUnit['kind'],
    isRandomAccess: boolean,
    elapsedTicks: number,
    durationTicks: number,
  ): boolean {
    const elapsedMs = elapsedTicks / TICKS_PER_MS;
    if (elapsedMs + durationTicks / TICKS_PER_MS > this.#maxSegmentMs(kind)) return true;
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
    const isTooLong =
      before !== undefined && startTicks - before.startTicks > this.#maxSegmentMs('audio') * TICKS_PER_MS;
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
