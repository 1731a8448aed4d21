/**
 * Cuts a stream into the media segments and partial segments of HLS.
 *
 * Everything is decided by the cues and by timestamps, nothing by when a unit arrives or by what
 * came before the cue: any two processes that see the same segment write the same bytes.
 */
import {
  type AccessUnit,
  type AudioTrack,
  type Cue,
  type StreamEvent,
  type Track,
  timescaleHz,
} from '../access-unit.ts';
import { samplesInUnit } from '../codec/samples.ts';
import { MediaError } from '../error.ts';
import { fragment } from '../fmp4/fragment.ts';
import { initSegment } from '../fmp4/init-segment.ts';
import { compareTicks, msToTicks, rescaleTicks, ticksToMs, VIDEO_TIMESCALE_HZ } from '../time.ts';

export interface InitSegment {
  /** 16 hexadecimal digits that follow from the bytes: the same configuration always has the same name. */
  readonly id: string;
  readonly bytes: Uint8Array;
  /** Video first, then audio. */
  readonly tracks: readonly Track[];
}

/** A partial segment: one fragment. */
export interface Part {
  readonly mediaSequenceNumber: number;
  /** Counts from 0 in each segment. */
  readonly index: number;
  /** Ticks of 1/90000 s. */
  readonly durationTicks: number;
  /** A decoder can start at its first video unit, or there is no video. */
  readonly isIndependent: boolean;
  readonly bytes: Uint8Array;
}

/** A media segment; its bytes are those of its parts, one after another. */
export interface Segment {
  /**
   * As it came, but for the date of a rendition with video alone: that is when its first picture is presented,
   * which is later than the start by what the pictures are reordered. Sound is not, and the dates of all
   * renditions have to agree with their media's times (RFC 8216, 6.2.4): players align by them.
   */
  readonly cue: Cue;
  readonly init: InitSegment;
  readonly parts: readonly Part[];
  /** Ticks of 1/90000 s, from this cue to the next; the sum of the parts' durations. */
  readonly durationTicks: number;
  readonly sizeBytes: number;
}

export type SegmenterEvent =
  | { readonly type: 'part'; readonly part: Part; readonly init: InitSegment; readonly cue: Cue }
  | { readonly type: 'segment'; readonly segment: Segment };

/**
 * EXT-X-PART-INF of all channels. All frontends have to cut at the same places, so it is one number;
 * why this one is in docs/decisions/005-part-target.md.
 */
export const DEFAULT_PART_TARGET_MS = 400;

/**
 * A segment that lasts longer than this many part targets is given up. Two neighbouring parts
 * always last longer than one target together, so a segment has fewer than twice as many parts.
 */
const MAX_SEGMENT_PART_TARGETS = 128;
const MAX_PARTS_PER_SEGMENT = 2 * MAX_SEGMENT_PART_TARGETS;
/** Payload of a segment: 16 s at 32 Mb/s. One that outgrows it is given up. */
const MAX_SEGMENT_SIZE_BYTES = 64 * 2 ** 20;
/** What a unit is counted as beside its payload, so that empty ones are bounded too. */
const UNIT_OVERHEAD_BYTES = 64;

/** What a segment's only picture is taken to last when a discontinuity follows: one frame at 25 Hz. */
const LONE_PICTURE_TICKS = 3600;
/** And the most that any is taken to last: a longer distance of two pictures is a gap. */
const MAX_PICTURE_TICKS = VIDEO_TIMESCALE_HZ;

/** The segment being made. */
interface OpenSegment {
  cue: Cue;
  /** Undefined until a track is known. */
  init: InitSegment | undefined;
  readonly parts: Part[];
  /** Where the open part starts, in ticks of 1/90000 s. */
  partStartTicks: number;
  /** DTS of the last picture. */
  lastPictureTicks: number | undefined;
  /** Where the media ends so far, if the last picture lasts as long as the one before it. */
  mediaEndTicks: number | undefined;
  /** Units that are in no part yet, in decode order. */
  readonly pending: { video: AccessUnit[]; audio: AccessUnit[] };
  /** Of all units so far, those in parts included. */
  sizeBytes: number;
}

/**
 * Follows the events of one stream.
 *
 * | event      | effect                                                                                |
 * | ---------- | ------------------------------------------------------------------------------------- |
 * | `timeline` | the stream starts anew: what is open is dropped, units count from the next cue on     |
 * | `track`    | takes effect at the next cue, or at the last one if no unit has followed it; the first |
 * |            | after a discontinuity replaces all tracks from before it                               |
 * | `cue`      | closes the open segment and opens the next; after a jump the open segment is dropped;  |
 * |            | before a discontinuity the open segment ends with its last unit                        |
 * | `unit`     | joins the open segment, then closes the parts that it ends; dropped where none is open |
 *
 * Bound: one segment of 128 part targets and 64 MiB.
 */
export class Segmenter {
  readonly #partTargetTicks: number;
  readonly #maxSegmentTicks: number;
  readonly #tracks = new Map<Track['kind'], Track>();
  readonly #lastDts = new Map<Track['kind'], { ticks: number; hz: number }>();
  #init: InitSegment | undefined;
  #lastCue: Cue | undefined;
  #open: OpenSegment | undefined;
  /** After a discontinuity: the first track that is announced clears those from before it. */
  #replacesTracks = false;

  /** @param options.partTargetMs no part lasts longer; to be advertised as PART-TARGET */
  constructor(options: { partTargetMs: number }) {
    this.#partTargetTicks = msToTicks(options.partTargetMs, VIDEO_TIMESCALE_HZ);
    this.#maxSegmentTicks = MAX_SEGMENT_PART_TARGETS * this.#partTargetTicks;
  }

  /**
   * Takes the next event of the stream.
   *
   * @returns the parts and segments that it completes, in order
   * @throws MediaError HLS_DTS_BACKWARDS when a unit does not come after the last one of its
   * track, or belongs to a part that is closed already; HLS_CUE_BACKWARDS when a cue does not come
   * after the last one, or starts before the open part. After these two the state is what it was.
   * HLS_SEGMENT_TOO_LONG when no cue comes in time: the open segment is dropped, and units count
   * again from the next cue on.
   */
  push(event: StreamEvent): SegmenterEvent[] {
    switch (event.type) {
      case 'timeline':
        this.#tracks.clear();
        this.#lastDts.clear();
        this.#init = undefined;
        this.#lastCue = undefined;
        this.#open = undefined;
        return [];
      case 'track':
        this.#setTrack(event.track);
        return [];
      case 'cue':
        return this.#startSegment(event.cue);
      case 'unit':
        return this.#addUnit(event.unit);
    }
  }

  #setTrack(track: Track): void {
    if (this.#replacesTracks) this.#tracks.clear();
    this.#replacesTracks = false;
    this.#tracks.set(track.kind, track);
    const tracks = [this.#tracks.get('video'), this.#tracks.get('audio')].filter(
      (known) => known !== undefined,
    );
    const bytes = initSegment(tracks);
    const id = initSegmentId(bytes);
    if (this.#init?.id !== id) this.#init = { id, bytes, tracks };

    const open = this.#open;
    const hasUnits =
      open !== undefined && open.parts.length + open.pending.video.length + open.pending.audio.length > 0;
    if (open !== undefined && !hasUnits) open.init = this.#init;
  }

  #startSegment(cue: Cue): SegmenterEvent[] {
    const last = this.#lastCue;
    if (
      last !== undefined &&
      (cue.mediaSequenceNumber <= last.mediaSequenceNumber || cue.startTicks <= last.startTicks)
    ) {
      throw new MediaError(
        'HLS_CUE_BACKWARDS',
        `segment ${cue.mediaSequenceNumber} at ${cue.startTicks} ticks after segment ${last.mediaSequenceNumber} at ${last.startTicks}`,
      );
    }
    const open = this.#open;
    const isNext = open !== undefined && cue.mediaSequenceNumber === open.cue.mediaSequenceNumber + 1;
    if (isNext && cue.startTicks < open.partStartTicks) {
      throw new MediaError(
        'HLS_CUE_BACKWARDS',
        `segment ${cue.mediaSequenceNumber} at ${cue.startTicks} ticks, parts are made up to ${open.partStartTicks}`,
      );
    }
    const next: OpenSegment = {
      cue,
      init: this.#init,
      parts: [],
      partStartTicks: cue.startTicks,
      lastPictureTicks: undefined,
      mediaEndTicks: undefined,
      pending: { video: [], audio: [] },
      sizeBytes: 0,
    };
    this.#lastCue = cue;
    this.#open = next;
    if (!isNext || open.init === undefined) return [];

    // Units that came before the cue but belong behind it.
    for (const track of open.init.tracks) {
      const pending = open.pending[track.kind];
      const early = pending.splice(indexFrom(pending, track, cue.startTicks));
      next.pending[track.kind] = early;
      for (const unit of early) {
        next.sizeBytes += countedSizeBytes(unit);
        extendMedia(next, unit, track);
      }
    }
    const isDiscontinuity = cue.discontinuitySequence > open.cue.discontinuitySequence;
    if (isDiscontinuity) this.#replacesTracks = true;
    // A gap before a discontinuity belongs to no segment. One without any media, where only another rendition
    // had some, is as long as a picture: up to the gap's end it could outlast the target duration.
    const mediaEndTicks = open.mediaEndTicks ?? open.partStartTicks + LONE_PICTURE_TICKS;
    const endTicks = isDiscontinuity
      ? Math.min(cue.startTicks, Math.max(mediaEndTicks, open.partStartTicks))
      : cue.startTicks;
    if (endTicks - open.cue.startTicks > this.#maxSegmentTicks) return [];
    return this.#finishSegment(open, open.init, endTicks);
  }

  #finishSegment(open: OpenSegment, init: InitSegment, endTicks: number): SegmenterEvent[] {
    const events: SegmenterEvent[] = [];
    while (endTicks - open.partStartTicks > this.#partTargetTicks) {
      events.push(this.#finishPart(open, init, this.#partEndTicks(open, init), endTicks));
    }
    if (endTicks > open.partStartTicks) events.push(this.#finishPart(open, init, endTicks, endTicks));
    const segment = {
      cue: open.cue,
      init,
      parts: open.parts,
      durationTicks: endTicks - open.cue.startTicks,
      sizeBytes: open.parts.reduce((sum, part) => sum + part.bytes.length, 0),
    };
    events.push({ type: 'segment', segment });
    return events;
  }

  #addUnit(unit: AccessUnit): SegmenterEvent[] {
    const open = this.#open;
    const init = open?.init;
    const track = init?.tracks.find(({ kind }) => kind === unit.kind);
    if (open === undefined || init === undefined || track === undefined) return [];

    const hz = timescaleHz(track);
    const last = this.#lastDts.get(unit.kind);
    if (last !== undefined && compareTicks(unit.dtsTicks, hz, last.ticks, last.hz) <= 0) {
      throw new MediaError(
        'HLS_DTS_BACKWARDS',
        `${unit.kind} at ${unit.dtsTicks} of ${hz} ticks per second after ${last.ticks} of ${last.hz}`,
      );
    }
    if (compareTicks(unit.dtsTicks, hz, open.partStartTicks, VIDEO_TIMESCALE_HZ) < 0) {
      throw new MediaError(
        'HLS_DTS_BACKWARDS',
        `${unit.kind} at ${unit.dtsTicks} of ${hz} ticks per second, the open part starts at ${open.partStartTicks} of ${VIDEO_TIMESCALE_HZ}`,
      );
    }
    const segmentTicks = timelineTicks(unit, hz) - open.cue.startTicks;
    const sizeBytes = open.sizeBytes + countedSizeBytes(unit);
    if (segmentTicks > this.#maxSegmentTicks || sizeBytes > MAX_SEGMENT_SIZE_BYTES) {
      this.#open = undefined;
      throw new MediaError(
        'HLS_SEGMENT_TOO_LONG',
        `segment ${open.cue.mediaSequenceNumber} has ${segmentTicks} ticks and ${sizeBytes} bytes, allowed ${this.#maxSegmentTicks} and ${MAX_SEGMENT_SIZE_BYTES}`,
      );
    }

    this.#lastDts.set(unit.kind, { ticks: unit.dtsTicks, hz });
    open.sizeBytes = sizeBytes;
    open.pending[unit.kind].push(unit);
    extendMedia(open, unit, track);
    if (unit.kind !== leadingTrack(init).kind) return [];
    return this.#finishParts(open, init, timelineTicks(unit, hz));
  }

  /**
   * Closes the parts that a unit of the leading track ends: it shows how long the unit before it
   * lasts, and so whether that one would still fit.
   */
  #finishParts(open: OpenSegment, init: InitSegment, nowTicks: number): SegmenterEvent[] {
    const events: SegmenterEvent[] = [];
    while (nowTicks - open.partStartTicks >= this.#partTargetTicks) {
      events.push(this.#finishPart(open, init, this.#partEndTicks(open, init), nowTicks));
    }
    return events;
  }

  /**
   * Where the open part ends. Video: the last start of a picture within the part target. The first
   * picture of the part is not it: a segment's key frame is in its first part even where it comes later
   * than the cue says. A picture that lasts longer than the target cannot be cut; the parts that it spans
   * are as long as the target.
   *
   * Sound alone: after the target, wherever its units start, as segments end with their cue. So its parts are
   * as long as those of the pictures that it goes with, and no segment ends with a sliver of a part, which
   * players have to ask for right after the one before.
   */
  #partEndTicks(open: OpenSegment, init: InitSegment): number {
    const leading = leadingTrack(init);
    const latestTicks = open.partStartTicks + this.#partTargetTicks;
    if (leading.kind === 'audio') return latestTicks;
    const starts = open.pending[leading.kind].map((unit) => timelineTicks(unit, timescaleHz(leading)));
    const fits = (ticks: number) => ticks > open.partStartTicks && ticks <= latestTicks;
    return starts.slice(1).findLast(fits) ?? latestTicks;
  }

  /** @param nextVideoTicks DTS of the video unit after the pending ones */
  #finishPart(
    open: OpenSegment,
    init: InitSegment,
    endTicks: number,
    nextVideoTicks: number,
  ): SegmenterEvent {
    const index = open.parts.length;
    const fragmentTracks = init.tracks.map((track) => {
      const pending = open.pending[track.kind];
      const units = pending.splice(0, indexFrom(pending, track, endTicks));
      const endOfTrackTicks =
        track.kind === 'video' ? (pending[0]?.dtsTicks ?? nextVideoTicks) : endOfAudioTicks(track, units);
      return { track, units, endTicks: endOfTrackTicks };
    });
    if (index === 0) open.cue = datedAsPresented(open.cue, fragmentTracks);
    const part: Part = {
      mediaSequenceNumber: open.cue.mediaSequenceNumber,
      index,
      durationTicks: endTicks - open.partStartTicks,
      isIndependent: fragmentTracks[0]?.units[0]?.isRandomAccess ?? false,
      bytes: fragment({
        // A function of the name alone: a restarted process agrees.
        sequenceNumber: (open.cue.mediaSequenceNumber * MAX_PARTS_PER_SEGMENT + index + 1) % 2 ** 32,
        tracks: fragmentTracks,
      }),
    };
    open.parts.push(part);
    open.partStartTicks = endTicks;
    return { type: 'part', part, init, cue: open.cue };
  }
}

/** The track whose units say where parts may end: video if there is any. */
function leadingTrack(init: InitSegment): Track {
  const [leading] = init.tracks;
  if (leading === undefined) throw new Error('an init segment without tracks');
  return leading;
}

/** See {@link Segment.cue}. */
function datedAsPresented(
  cue: Cue,
  firstPart: readonly { readonly track: Track; readonly units: readonly AccessUnit[] }[],
): Cue {
  const [video, sound] = firstPart;
  if (video?.track.kind !== 'video' || video.units.length === 0 || sound !== undefined) return cue;
  const firstTicks = Math.min(...video.units.map(({ ptsTicks }) => ptsTicks));
  const delayMs = Math.max(0, ticksToMs(firstTicks - cue.startTicks, VIDEO_TIMESCALE_HZ));
  return { ...cue, programDateTimeUnixMs: cue.programDateTimeUnixMs + delayMs };
}

/** Where the last unit ends if all its samples are played; 0 without units. */
function endOfAudioTicks(track: AudioTrack, units: readonly AccessUnit[]): number {
  const last = units.at(-1);
  return last === undefined ? 0 : last.dtsTicks + samplesInUnit(track, last.data);
}

/** Notes where the media of a segment ends with this unit. */
function extendMedia(open: OpenSegment, unit: AccessUnit, track: Track): void {
  const dtsTicks = timelineTicks(unit, timescaleHz(track));
  let endTicks: number;
  if (track.kind === 'audio') {
    endTicks = rescaleTicks(endOfAudioTicks(track, [unit]), track.sampleRateHz, VIDEO_TIMESCALE_HZ);
  } else {
    const durationTicks = dtsTicks - (open.lastPictureTicks ?? dtsTicks - LONE_PICTURE_TICKS);
    endTicks = dtsTicks + Math.min(durationTicks, MAX_PICTURE_TICKS);
    open.lastPictureTicks = dtsTicks;
  }
  open.mediaEndTicks = Math.max(open.mediaEndTicks ?? 0, endTicks);
}

/** DTS in ticks of 1/90000 s, rounded down: a boundary there does not come after the unit. */
function timelineTicks(unit: AccessUnit, hz: number): number {
  const ticks = rescaleTicks(unit.dtsTicks, hz, VIDEO_TIMESCALE_HZ);
  return compareTicks(ticks, VIDEO_TIMESCALE_HZ, unit.dtsTicks, hz) > 0 ? ticks - 1 : ticks;
}

/** Index of the first unit at or after a boundary in ticks of 1/90000 s; the count if there is none. */
function indexFrom(units: readonly AccessUnit[], track: Track, boundaryTicks: number): number {
  const hz = timescaleHz(track);
  const index = units.findIndex(
    (unit) => compareTicks(unit.dtsTicks, hz, boundaryTicks, VIDEO_TIMESCALE_HZ) >= 0,
  );
  return index < 0 ? units.length : index;
}

function countedSizeBytes(unit: AccessUnit): number {
  return UNIT_OVERHEAD_BYTES + unit.data.length;
}

/**
 * The name of an init segment: its FNV-1a hash of 64 bits, in hexadecimal.
 *
 * Source: draft-eastlake-fnv. Good for a name, not against an adversary.
 */
export function initSegmentId(bytes: Uint8Array): string {
  let hash = 0xcbf29ce484222325n;
  for (const byte of bytes) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  return hash.toString(16).padStart(16, '0');
}
