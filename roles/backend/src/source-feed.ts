/**
 * One source of a channel as the chain sees it: whether it is well, and the newest groups of pictures, so
 * that the channel can change to it at once and without a hole. Time is handed in; nothing is awaited.
 */
import {
  type AccessUnit,
  type Cue,
  isDefaultTrack,
  isSameTrack,
  type StreamEvent,
  type Track,
  timescaleHz,
  trackIndex,
} from '@starling/media/access-unit';
import { rescaleTicks, VIDEO_TIMESCALE_HZ } from '@starling/media/time';

const TICKS_PER_MS = VIDEO_TIMESCALE_HZ / 1000;

/** Units are kept back to a random access point that is older than this: what a change may have to fill. */
const KEPT_TICKS = 1500 * TICKS_PER_MS;
const MAX_KEPT_BYTES = 24 * 1024 * 1024;
const MAX_KEPT_UNITS = 8192;
/** A source whose second track has not come for so long has none. */
const SECOND_TRACK_WAIT_MS = 1000;
/** A smaller step back is jitter, as for the ingest grid. */
const MAX_STEP_BACK_TICKS = 100 * TICKS_PER_MS;
/** A step forth is a hole when as much time has passed, but for this; or else the clock was set. */
const MAX_STEP_AHEAD_TICKS = 500 * TICKS_PER_MS;
const MAX_STEP_FORTH_TICKS = 10_000 * TICKS_PER_MS;
/** So many pictures in a row may be missing before a source of few pictures per second counts as silent. */
const MISSED_PICTURES = 3;
/** No source of fewer pictures per second than this is waited for. */
const MAX_SILENCE_MS = 5000;
/** How far from real time, and how unevenly, pictures may come in that are made now; and how long it takes to tell. */
const PACE_WINDOW_MS = 500;
const MIN_PACE_WINDOW_MS = 300;
const PACE_TOLERANCE = 0.5;
const PACE_TOLERANCE_MS = 200;
const MAX_ARRIVALS = 256;

export interface SourceTiming {
  /** A source from which no picture came for so long is silent. */
  readonly silentAfterMs: number;
  /** A source that failed is gone back to when it has been well for so long. */
  readonly healthyAfterMs: number;
  /** A publisher that is back within this is gone back to at once. */
  readonly graceMs: number;
}

/** Why a source is not well. */
export type Fault = 'silent' | 'left' | 'clock' | 'dark';

/** Units from a random access point up to the next one, in the order of arrival. */
export interface Gop {
  readonly startTicks: number;
  readonly arrivedAtMs: number;
  /** Of the last cue before it; undefined for a source that sends none. */
  readonly cue: Cue | undefined;
  readonly units: AccessUnit[];
  sizeBytes: number;
}

export interface FeedOptions {
  /** Its times are already those of the channel's timeline: playout and slate. */
  readonly isScheduled: boolean;
  readonly timing: SourceTiming;
}

export class SourceFeed {
  readonly isScheduled: boolean;
  readonly #timing: SourceTiming;
  readonly #tracks = new Map<number, Track>();
  #gops: Gop[] = [];
  #keptUnits = 0;
  #keptBytes = 0;
  #cue: Cue | undefined;

  /** The last time of the track that rules: the default picture, or the sound where there is no picture. */
  #newestTicks: number | undefined;
  #longestStepTicks = 0;
  /** The ruling units of the last half second, or the last two. */
  readonly #arrivals: { readonly ticks: number; readonly atMs: number }[] = [];
  #firstUnitAtMs: number | undefined;
  #lastUnitAtMs = Number.NEGATIVE_INFINITY;
  #isConnected = true;
  #isDark = false;
  #wasClockSet = false;

  #wellSinceMs: number | undefined;
  /** The last fault; of use while it is not well. */
  #fault: Fault = 'silent';
  /** A source that was well for long enough and is back before this goes on as if it had never left. */
  #graceUntilMs = Number.NEGATIVE_INFINITY;
  #isResumed = false;

  constructor({ isScheduled, timing }: FeedOptions) {
    this.isScheduled = isScheduled;
    this.#timing = timing;
  }

  /** Video first. */
  get tracks(): readonly Track[] {
    return [...this.#tracks.values()].sort((a, b) => trackIndex(a) - trackIndex(b));
  }

  /** Ticks per second of a unit's times. */
  timescaleHzOf(unit: AccessUnit): number {
    const track = this.#tracks.get(trackIndex(unit));
    return track === undefined ? VIDEO_TIMESCALE_HZ : timescaleHz(track);
  }

  /** What can be changed to, oldest first. */
  get gops(): readonly Gop[] {
    return this.#gops;
  }

  /** On the source's own clock, in ticks of 1/90000 s. */
  get newestTicks(): number {
    return this.#newestTicks ?? 0;
  }

  get fault(): Fault {
    return this.#fault;
  }

  /** It delivers, and can be changed to. As of the last {@link observe}. */
  get isWell(): boolean {
    return this.#wellSinceMs !== undefined;
  }

  /** It has been well for so long that it is worth leaving another source for it. */
  isSteady(nowMs: number): boolean {
    if (this.#wellSinceMs === undefined) return false;
    if (this.isScheduled) return true;
    return this.#isPaced() && (this.#isResumed || nowMs - this.#wellSinceMs >= this.#timing.healthyAfterMs);
  }

  /**
   * Takes one event, on the source's clock.
   * @returns `clock` when its clock was set, and nothing from before can be continued; `random-access`
   *   when the channel could change to the source here
   */
  take(event: StreamEvent, nowMs: number): 'clock' | 'random-access' | undefined {
    switch (event.type) {
      case 'timeline':
        return undefined;
      case 'cue':
        this.#cue = event.cue;
        return undefined;
      case 'track':
        this.#takeTrack(event.track);
        return undefined;
      case 'unit':
        return this.#takeUnit(event.unit, nowMs);
    }
  }

  /** The publisher came or left. */
  setConnected(isConnected: boolean): void {
    this.#isConnected = isConnected;
    if (isConnected) return;
    this.#tracks.clear();
    this.#clear();
    this.#firstUnitAtMs = undefined;
  }

  /** Whether its picture is black and does not move. */
  setDark(isDark: boolean): void {
    this.#isDark = isDark;
  }

  /** Judges whether it is well now. */
  observe(nowMs: number): void {
    const fault = this.#faultNow(nowMs);
    this.#wasClockSet = false;
    if (fault === undefined) {
      if (this.#wellSinceMs !== undefined) return;
      this.#wellSinceMs = nowMs;
      this.#isResumed = nowMs <= this.#graceUntilMs;
      return;
    }
    if (this.#wellSinceMs !== undefined) {
      const wasSteady = this.#lastUnitAtMs - this.#wellSinceMs >= this.#timing.healthyAfterMs;
      const hasGrace = wasSteady && (fault === 'silent' || fault === 'left');
      this.#graceUntilMs = hasGrace ? this.#lastUnitAtMs + this.#timing.graceMs : Number.NEGATIVE_INFINITY;
      this.#wellSinceMs = undefined;
    }
    this.#fault = fault;
  }

  #faultNow(nowMs: number): Fault | undefined {
    if (!this.#isConnected) return 'left';
    if (this.#wasClockSet) return 'clock';
    if (this.#isDark) return 'dark';
    if (nowMs - this.#lastUnitAtMs > this.#silenceMs()) return 'silent';
    const hasBothKinds = new Set(this.tracks.map(({ kind }) => kind)).size === 2;
    const areTracksKnown =
      hasBothKinds || nowMs - (this.#firstUnitAtMs ?? nowMs) >= SECOND_TRACK_WAIT_MS || this.isScheduled;
    return this.#gops.length > 0 && areTracksKnown ? undefined : 'silent';
  }

  #silenceMs(): number {
    const missedMs = (MISSED_PICTURES * this.#longestStepTicks) / TICKS_PER_MS;
    return Math.max(this.#timing.silentAfterMs, Math.min(missedMs, MAX_SILENCE_MS));
  }

  #takeTrack(track: Track): void {
    const index = trackIndex(track);
    const known = this.#tracks.get(index);
    if (known !== undefined && isSameTrack(known, track)) return;
    this.#tracks.set(index, track);
    this.#clear(); // what came before cannot be decoded with it
  }

  #takeUnit(unit: AccessUnit, nowMs: number): 'clock' | 'random-access' | undefined {
    const track = this.#tracks.get(trackIndex(unit));
    if (track === undefined) return undefined;
    this.#firstUnitAtMs ??= nowMs;
    const hasVideo = [...this.#tracks.values()].some(({ kind }) => kind === 'video');
    const isRuling = isDefaultTrack(unit) && (unit.kind === 'video' || !hasVideo);
    const ticks = rescaleTicks(unit.dtsTicks, timescaleHz(track), VIDEO_TIMESCALE_HZ);
    let wasSet = false;
    if (isRuling) {
      const stepTicks = this.#newestTicks === undefined ? 0 : ticks - this.#newestTicks;
      wasSet = this.#isClockSet(stepTicks, nowMs);
      if (wasSet) this.#clear();
      else if (stepTicks > 0 && nowMs - this.#lastUnitAtMs < MAX_SILENCE_MS) this.#noteStep(stepTicks);
      this.#wasClockSet ||= wasSet;
      this.#newestTicks = ticks;
      this.#lastUnitAtMs = nowMs;
      this.#arrivals.push({ ticks, atMs: nowMs });
      const isOld = ({ atMs }: { readonly atMs: number }) => nowMs - atMs > PACE_WINDOW_MS;
      while (this.#arrivals.length > 2 && this.#arrivals.some(isOld)) this.#arrivals.shift();
      if (this.#arrivals.length > MAX_ARRIVALS) this.#arrivals.shift();
    }
    const opens = isRuling && unit.isRandomAccess;
    if (opens) {
      this.#gops.push({ startTicks: ticks, arrivedAtMs: nowMs, cue: this.#cue, units: [], sizeBytes: 0 });
    }
    this.#keep(unit);
    return wasSet ? 'clock' : opens ? 'random-access' : undefined;
  }

  #isClockSet(stepTicks: number, nowMs: number): boolean {
    if (stepTicks < -MAX_STEP_BACK_TICKS || stepTicks > MAX_STEP_FORTH_TICKS) return true;
    const passedTicks = (nowMs - this.#lastUnitAtMs) * TICKS_PER_MS;
    const isUsual = stepTicks <= MISSED_PICTURES * this.#longestStepTicks;
    return stepTicks - passedTicks > MAX_STEP_AHEAD_TICKS && !isUsual && this.#longestStepTicks > 0;
  }

  /**
   * False while what was held up on the way comes in all at once, also at its first pictures: the newest one then
   * does not lie at the present. To go on with it would put the channel ahead of the clock, by all that is still to come.
   */
  #isPaced(): boolean {
    const [first] = this.#arrivals;
    const last = this.#arrivals.at(-1);
    if (first === undefined || last === undefined) return false;
    const mediaMs = (last.ticks - first.ticks) / TICKS_PER_MS;
    const passedMs = last.atMs - first.atMs;
    return (
      passedMs >= MIN_PACE_WINDOW_MS &&
      Math.abs(mediaMs - passedMs) <= passedMs * PACE_TOLERANCE + PACE_TOLERANCE_MS
    );
  }

  /** The longest of late: it fades, so that one long step does not count for ever. */
  #noteStep(stepTicks: number): void {
    this.#longestStepTicks = Math.max(stepTicks, this.#longestStepTicks * 0.99);
  }

  #keep(unit: AccessUnit): void {
    const gop = this.#gops.at(-1);
    if (gop === undefined) return;
    gop.units.push(unit);
    gop.sizeBytes += unit.data.length;
    this.#keptUnits++;
    this.#keptBytes += unit.data.length;
    for (;;) {
      const [first, second] = this.#gops;
      if (first === undefined) return;
      const isTooMuch = this.#keptBytes > MAX_KEPT_BYTES || this.#keptUnits > MAX_KEPT_UNITS;
      const isCovered = second !== undefined && this.newestTicks - second.startTicks >= KEPT_TICKS;
      if (!isTooMuch && !isCovered) return;
      this.#gops.shift();
      this.#keptUnits -= first.units.length;
      this.#keptBytes -= first.sizeBytes;
    }
  }

  /** Nothing that is kept is of use any more, and its clock starts afresh. */
  #clear(): void {
    this.#gops = [];
    this.#keptUnits = 0;
    this.#keptBytes = 0;
    this.#newestTicks = undefined;
    this.#longestStepTicks = 0;
    this.#arrivals.length = 0;
  }
}
