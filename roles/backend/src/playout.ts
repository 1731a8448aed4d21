/**
 * Playout: turns a programme and a time into access units on the channel's timeline, by copying those of
 * stored assets. No FFmpeg, no state that decides anything: every event follows from the programme and
 * its place on the timeline, so two playouts that start at different times agree from then on.
 */
import {
  AAC_SAMPLES_PER_UNIT,
  type AccessUnit,
  type Cue,
  type StreamEvent,
  type Track,
  trackIndex,
} from '@starling/media/access-unit';
import { compareTicks, rescaleTicks, ticksToMs, VIDEO_TIMESCALE_HZ } from '@starling/media/time';
import { guideEntryAt } from '@starling/model/guide';
import {
  type AssetFacts,
  type ProgrammePosition,
  programmeAt,
  type Run,
  segmentStartTicks,
} from '@starling/model/schedule';
import { fillTrackSet, isSameTrackSet, type TrackSet } from '@starling/model/track-set';
import type { Logger } from 'pino';
import type { AssetFile } from './asset-file.ts';
import { BackendError } from './error.ts';
import { HOUSE_SAMPLE_RATE_HZ, HOUSE_SEGMENT_MS } from './house-format.ts';

/** What a channel plays. */
export interface PlayoutProgramme {
  readonly runs: readonly Run[];
  readonly assets: ReadonlyMap<string, AssetFacts>;
  /** Wall-clock time of tick 0, in milliseconds since 1970. */
  readonly epochUnixMs: number;
  /** What the guide calls the channel, and its assets by id; undefined for what is in no guide. */
  readonly guide?: { readonly title: string; readonly assetNames: ReadonlyMap<string, string> };
}

/** What playout reads: a stored asset. */
export type PlayableAsset = Pick<AssetFile, 'index' | 'tracks' | 'segmentEndTicks' | 'readSegment'> &
  Partial<Pick<AssetFile, 'recycle'>>;

export interface PlayoutOptions {
  readonly programme: PlayoutProgramme;
  openAsset(contentHash: string): Promise<PlayableAsset>;
  /** Playout begins with the segment that contains this time, in ticks of 1/90000 s. */
  readonly startTicks: number;
  /** Segments kept in memory, the one being played included. */
  readonly readAheadSegments?: number;
  /** More than this is not caught up with: the machine was asleep. */
  readonly maxBehindTicks?: number;
  readonly logger: Logger;
}

/** The one that is played, and the next: 2 s, unless an item is shorter, in which the disk may be busy. */
const READ_AHEAD_SEGMENTS = 2;
/** How far ahead of the time last asked for segments are looked for, where items are missing. */
const LOOK_AHEAD_TICKS = 10 * VIDEO_TIMESCALE_HZ;
const MAX_BEHIND_TICKS = 30 * VIDEO_TIMESCALE_HZ;

/** A segment of an asset that was read, on the channel's timeline. */
interface StoredSegment {
  readonly asset: PlayableAsset;
  readonly segmentIndex: number;
  readonly startTicks: number;
  readonly wholeEndTicks: number;
  /** In the order of the contract. */
  readonly wholeUnits: readonly AccessUnit[];
  /** Names the tracks: they are announced again where it changes. */
  readonly configKey: string;
  readonly tracks: readonly Track[];
}

/** What is played of it. */
interface ReadSegment extends StoredSegment {
  readonly position: ProgrammePosition;
  readonly mediaSequenceNumber: number;
  /** False for what joins the segment before, because little of it is left before the next item. */
  readonly opensSegment: boolean;
  readonly endTicks: number;
  readonly units: readonly AccessUnit[];
}

/** Where to go on reading: with the segment that contains the time, or with the first that starts at or after it. */
interface Cursor {
  readonly ticks: number;
  readonly mode: 'containing' | 'from';
}

export class Playout {
  readonly #openAsset: PlayoutOptions['openAsset'];
  readonly #logger: Logger;
  readonly #readAheadSegments: number;
  readonly #maxBehindTicks: number;
  /** Content hashes of assets whose failure was logged; they are logged again after they were readable. */
  readonly #unreadable = new Set<string>();
  #programme: PlayoutProgramme;
  #cursor: Cursor;
  /** At most `#readAheadSegments`. */
  #segments: ReadSegment[] = [];
  /** Units of the first segment that were handed out; undefined before its cue was. */
  #unitsPlayed: number | undefined;
  /** Some of these are kept by those who got them. */
  #areUnitsKept = false;
  /** Were handed out to the end, and are kept by nobody from the next call on. */
  #played: StoredSegment[] = [];
  #askedTicks: number;
  #isTimelineAnnounced = false;
  #announcedConfigKey: string | undefined;
  #openMediaSequenceNumber: number | undefined;
  #reading: Promise<void> | undefined;
  /** Counts the changes that make a read in flight void. */
  #epoch = 0;
  #isClosed = false;

  constructor(options: PlayoutOptions) {
    this.#openAsset = options.openAsset;
    this.#logger = options.logger;
    this.#readAheadSegments = options.readAheadSegments ?? READ_AHEAD_SEGMENTS;
    this.#maxBehindTicks = options.maxBehindTicks ?? MAX_BEHIND_TICKS;
    this.#programme = options.programme;
    this.#cursor = { ticks: options.startTicks, mode: 'containing' };
    this.#askedTicks = options.startTicks;
  }

  /** When the next event is due, in ticks of 1/90000 s, rounded down. */
  get nextDueTicks(): number {
    const segment = this.#segments[0];
    if (!segment) return this.#cursor.ticks;
    const unit = segment.units[this.#unitsPlayed ?? 0];
    if (this.#unitsPlayed === undefined || !unit) return segment.startTicks;
    return Math.floor((unit.dtsTicks * (VIDEO_TIMESCALE_HZ / 1000)) / (unitHz(unit) / 1000));
  }

  /**
   * The events with a DTS before `untilTicks` that were not handed out yet and are already in memory,
   * in the order of the contract in access-unit.ts. When they lie too far back, 30 s if nothing else was said, playout goes on
   * with the segment that contains `untilTicks` instead.
   * @param use `copied`: the data of the units is not read any more after the next call, and is then overwritten
   */
  eventsUntil(untilTicks: number, use: 'kept' | 'copied' = 'kept'): StreamEvent[] {
    for (const { asset, wholeUnits } of this.#played.splice(0)) asset.recycle?.(wholeUnits);
    this.#askedTicks = Math.max(this.#askedTicks, untilTicks);
    const segmentTicks = this.#segments[0]?.startTicks ?? Number.NEGATIVE_INFINITY;
    const mayBeBehind = untilTicks - segmentTicks > this.#maxBehindTicks;
    if (mayBeBehind && untilTicks - this.nextDueTicks > this.#maxBehindTicks) this.#skipTo(untilTicks);
    const events: StreamEvent[] = [];
    for (;;) {
      const segment = this.#segments[0];
      if (!segment || segment.startTicks >= untilTicks) return events;
      if (this.#unitsPlayed === undefined) {
        if (segment.opensSegment) this.#openSegment(segment, events);
        // Without the segment that it belongs to, it belongs to none.
        const isOpen = segment.mediaSequenceNumber === this.#openMediaSequenceNumber;
        this.#unitsPlayed = isOpen ? 0 : segment.units.length;
        this.#areUnitsKept = false;
      }
      this.#areUnitsKept ||= use === 'kept';
      for (;;) {
        const unit = segment.units[this.#unitsPlayed];
        if (!unit) break;
        if (compareTicks(unit.dtsTicks, unitHz(unit), untilTicks, VIDEO_TIMESCALE_HZ) >= 0) return events;
        events.push({ type: 'unit', unit });
        this.#unitsPlayed += 1;
      }
      this.#segments.shift();
      this.#unitsPlayed = undefined;
      if (!this.#areUnitsKept) this.#played.push(segment);
    }
  }

  #openSegment(segment: ReadSegment, events: StreamEvent[]): void {
    const { epochUnixMs } = this.#programme;
    this.#openMediaSequenceNumber = segment.mediaSequenceNumber;
    const isFirst = !this.#isTimelineAnnounced;
    if (isFirst) events.push({ type: 'timeline', epochUnixMs });
    this.#isTimelineAnnounced = true;
    const tracks: StreamEvent[] = [];
    if (this.#announcedConfigKey !== segment.configKey) {
      this.#announcedConfigKey = segment.configKey;
      for (const track of segment.tracks) tracks.push({ type: 'track', track });
    }
    const cue: StreamEvent = {
      type: 'cue',
      cue: {
        mediaSequenceNumber: segment.mediaSequenceNumber,
        discontinuitySequence: segment.position.discontinuitySequence,
        startTicks: segment.startTicks,
        programDateTimeUnixMs: epochUnixMs + Math.floor(ticksToMs(segment.startTicks, VIDEO_TIMESCALE_HZ)),
        programmeId: segment.position.programmeId,
        ...this.#guideProgrammeAt(segment.startTicks),
        targetDurationMs: HOUSE_SEGMENT_MS,
        isIndependent: true,
      },
    };
    if (isFirst) events.push(...tracks, cue);
    else events.push(cue, ...tracks);
  }

  #guideProgrammeAt(ticks: number): Pick<Cue, 'programme'> {
    const { guide, runs, assets, epochUnixMs } = this.#programme;
    if (guide === undefined) return {};
    const channel = { title: guide.title, epochUnixMs, runs };
    const entry = guideEntryAt(channel, { facts: assets, names: guide.assetNames }, ticks, 'guide');
    if (entry === undefined) return {};
    const unixMs = (at: number) => epochUnixMs + Math.floor(ticksToMs(at, VIDEO_TIMESCALE_HZ));
    const { title, startTicks, endTicks } = entry;
    return { programme: { title, startUnixMs: unixMs(startTicks), endUnixMs: unixMs(endTicks) } };
  }

  /**
   * Reads the next segments into memory, across the end of the item, up to a bound. An asset that
   * cannot be read is logged, and its place on the timeline stays empty. Never rejects.
   */
  async readAhead(): Promise<void> {
    if (this.#segments.length >= this.#readAheadSegments) return; // asked for many times a second
    this.#reading ??= this.#readAhead().finally(() => {
      this.#reading = undefined;
    });
    return this.#reading;
  }

  async #readAhead(): Promise<void> {
    while (
      !this.#isClosed &&
      this.#segments.length < this.#readAheadSegments &&
      this.#cursor.ticks < this.#askedTicks + LOOK_AHEAD_TICKS
    ) {
      const position = programmeAt(this.#programme.runs, this.#programme.assets, this.#cursor.ticks);
      const facts = position && this.#programme.assets.get(position.assetId);
      if (!position || !facts) {
        if (!this.#skipEmptyTime()) return;
        continue;
      }
      const epoch = this.#epoch;
      let segment: ReadSegment | undefined;
      try {
        segment = await this.#readSegment(position, facts, this.#cursor);
      } catch (error) {
        this.#logMissing(position, error);
      }
      if (epoch !== this.#epoch) continue; // the programme or the place changed while reading
      if (segment) this.#segments.push(segment);
      this.#cursor = { ticks: segment?.endTicks ?? position.endTicks, mode: 'from' };
    }
  }

  async #readSegment(
    position: ProgrammePosition,
    facts: AssetFacts,
    cursor: Cursor,
  ): Promise<ReadSegment | undefined> {
    const asset = await this.#openAsset(facts.contentHash);
    const { segments, facts: stored } = asset.index;
    if (stored.durationTicks !== facts.durationTicks || stored.segmentCount !== facts.segmentCount) {
      throw new BackendError(
        'ASSET_DAMAGED',
        `The stored asset ${facts.contentHash} is not the one announced.`,
      );
    }
    const relativeTicks = cursor.ticks - position.originTicks;
    const endIndex = position.firstSegmentIndex + position.segmentCount;
    const segmentIndex =
      cursor.mode === 'containing'
        ? Math.min(
            segments.findLastIndex(({ startTicks }) => startTicks <= relativeTicks),
            endIndex - 1,
          )
        : segments.findIndex((segment) => segment.startTicks >= relativeTicks);
    const relativeStartTicks = segments[segmentIndex]?.startTicks;
    if (relativeStartTicks === undefined) return undefined;
    if (relativeStartTicks !== segmentStartTicks(facts, segmentIndex)) {
      // The numbers that follow would be wrong.
      throw new BackendError(
        'ASSET_DAMAGED',
        `Segments of ${facts.contentHash} start at other times than they should.`,
      );
    }
    const startTicks = position.originTicks + relativeStartTicks;
    if (startTicks >= position.endTicks) return undefined;

    const storedUnits = await asset.readSegment(segmentIndex);
    const originSamples = rescaleTicks(position.originTicks, VIDEO_TIMESCALE_HZ, HOUSE_SAMPLE_RATE_HZ);
    const channelTracks = tracksToPlay(position.tracks, asset);
    const units = channelTracks.flatMap(({ track, assetTrackId }) => {
      const offsetTicks = track.kind === 'video' ? position.originTicks : originSamples;
      return storedUnits
        .filter((unit) => unit.kind === track.kind && unit.trackId === assetTrackId)
        .map((unit) => ({
          // Spelled out: this runs for every unit, and V8 is slow where properties follow a spread.
          kind: unit.kind,
          trackId: track.trackId,
          dtsTicks: unit.dtsTicks + offsetTicks,
          ptsTicks: unit.ptsTicks + offsetTicks,
          isRandomAccess: unit.isRandomAccess,
          data: unit.data,
        }));
    });
    this.#unreadable.delete(facts.contentHash);
    return placedAt(position, {
      asset,
      segmentIndex,
      startTicks,
      wholeEndTicks: position.originTicks + asset.segmentEndTicks(segmentIndex),
      wholeUnits: units.sort(byDecodingTime),
      configKey: `${facts.configHash} ${JSON.stringify(position.tracks)}`,
      tracks: channelTracks.map(({ track }) => track),
    });
  }

  /** Moves over time without programme to the next run. @returns false when there is none */
  #skipEmptyTime(): boolean {
    const next = this.#programme.runs.find((run) => run.startTicks > this.#cursor.ticks);
    if (!next) return false;
    this.#cursor = { ticks: next.startTicks, mode: 'from' };
    return true;
  }

  /** Gives up what lies before the time; the segment that is half played is finished first. */
  #skipTo(ticks: number): void {
    const isOn = programmeAt(this.#programme.runs, this.#programme.assets, this.nextDueTicks) !== undefined;
    if (isOn) {
      const skippedMs = Math.round(ticksToMs(ticks - this.nextDueTicks, VIDEO_TIMESCALE_HZ));
      this.#logger.warn({ skippedMs }, 'playout is behind and goes on with the present');
    }
    this.#segments = this.#unitsPlayed === undefined ? [] : this.#segments.slice(0, 1);
    this.#cursor = { ticks, mode: 'containing' };
    this.#epoch += 1;
  }

  /**
   * Takes an edited programme. What was read ahead is kept as far as the edit does not concern it; the
   * segment that is being played ends where a new run starts, at the earliest.
   */
  update(programme: PlayoutProgramme): void {
    this.#programme = programme;
    this.#epoch += 1;
    const { runs, assets } = programme;
    const kept: ReadSegment[] = [];
    for (const segment of this.#segments) {
      const position = programmeAt(runs, assets, segment.startTicks);
      const isSame = position !== undefined && isSameAiring(position, segment.position);
      const isBeingPlayed = this.#unitsPlayed !== undefined && kept.length === 0;
      if (!isSame && !isBeingPlayed) {
        if (kept.length === 0) this.#cursor = { ticks: segment.startTicks, mode: 'from' };
        break;
      }
      const next = runs.find((run) => run.startTicks > segment.startTicks);
      const placed = isSame
        ? placedAt(position, segment)
        : cutAt(next?.startTicks ?? Number.POSITIVE_INFINITY, segment);
      kept.push(placed);
      // An edit that comes too late begins with what is not over yet: time does not run backwards.
      const playedTicks = isBeingPlayed ? this.#askedTicks : 0;
      this.#cursor = { ticks: Math.max(placed.endTicks, playedTicks), mode: 'from' };
    }
    this.#segments = kept;
  }

  #logMissing(position: ProgrammePosition, error: unknown): void {
    const facts = this.#programme.assets.get(position.assetId);
    if (!facts || this.#unreadable.has(facts.contentHash)) return;
    this.#unreadable.add(facts.contentHash);
    const code = error instanceof BackendError ? error.code : undefined;
    this.#logger.error(
      { code, asset: position.assetId, programme: position.programmeId, err: error },
      'an asset cannot be read; its time stays empty',
    );
  }

  /** Waits for the read in flight. Nothing is read afterwards. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#reading;
  }
}

/**
 * The tracks of the channel, each with the track of the asset that is played on it.
 *
 * A channel may mix frame rates behind one codec configuration. So its tracks name none: it must not
 * matter which item a playout happened to start with. For the same reason a sound has the language that
 * the channel promises, also where an asset has none in it.
 */
function tracksToPlay(
  set: TrackSet,
  asset: PlayableAsset,
): { readonly track: Track; readonly assetTrackId: number }[] {
  const { videoTrackIds, audioTrackIds } = fillTrackSet(set, asset.index.facts);
  const find = (kind: Track['kind'], assetTrackId: number, trackId: number): Track => {
    const found = asset.tracks.find((track) => track.kind === kind && track.trackId === assetTrackId);
    if (!found)
      throw new BackendError('ASSET_DAMAGED', `A stored asset lacks ${kind} track ${assetTrackId}.`);
    return found.kind === 'video'
      ? { ...found, trackId, frameDurationTicks: undefined }
      : { ...found, trackId, language: set.languages[trackId] ?? undefined };
  };
  return [
    ...videoTrackIds.map((id, trackId) => ({ track: find('video', id, trackId), assetTrackId: id })),
    ...audioTrackIds.map((id, trackId) => ({ track: find('audio', id, trackId), assetTrackId: id })),
  ];
}

function unitHz(unit: AccessUnit): number {
  return unit.kind === 'video' ? VIDEO_TIMESCALE_HZ : HOUSE_SAMPLE_RATE_HZ;
}

/** The order of the contract: by DTS, at equal DTS by track. */
function byDecodingTime(a: AccessUnit, b: AccessUnit): number {
  return compareTicks(a.dtsTicks, unitHz(a), b.dtsTicks, unitHz(b)) || trackIndex(a) - trackIndex(b);
}

/** A stored segment as part of an airing: its number, and how much of it is played. */
function placedAt(position: ProgrammePosition, stored: StoredSegment): ReadSegment {
  const indexOfAiring = stored.segmentIndex - position.firstSegmentIndex;
  return cutAt(position.endTicks, {
    ...stored,
    position,
    mediaSequenceNumber:
      position.firstMediaSequenceNumber + Math.min(indexOfAiring, position.segmentCount - 1),
    opensSegment: indexOfAiring < position.segmentCount,
    endTicks: stored.wholeEndTicks,
    units: stored.wholeUnits,
  });
}

/** Leaves out the units that would last beyond the time. */
function cutAt(limitTicks: number, segment: ReadSegment): ReadSegment {
  const { wholeEndTicks, wholeUnits } = segment;
  // At equality too: its last audio unit may last into the segment after it.
  if (wholeEndTicks < limitTicks) return segment;
  const isBefore = (unit: AccessUnit) =>
    unit.kind === 'video'
      ? unit.dtsTicks < limitTicks
      : compareTicks(
          unit.dtsTicks + AAC_SAMPLES_PER_UNIT,
          HOUSE_SAMPLE_RATE_HZ,
          limitTicks,
          VIDEO_TIMESCALE_HZ,
        ) <= 0;
  return { ...segment, endTicks: limitTicks, units: wholeUnits.filter(isBefore) };
}

function isSameAiring(a: ProgrammePosition, b: ProgrammePosition): boolean {
  return (
    a.programmeId === b.programmeId &&
    a.assetId === b.assetId &&
    a.originTicks === b.originTicks &&
    a.firstSegmentIndex === b.firstSegmentIndex &&
    a.firstMediaSequenceNumber === b.firstMediaSequenceNumber &&
    a.discontinuitySequence === b.discontinuitySequence &&
    isSameTrackSet(a.tracks, b.tracks)
  );
}
