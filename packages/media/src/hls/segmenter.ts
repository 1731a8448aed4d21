/**
 * Cuts a stream into the media segments and partial segments of HLS.
 *
 * Everything is decided by the cues and by timestamps, nothing by when a unit arrives or by what
 * came before the cue: any two processes that see the same segment write the same bytes.
 */
import {
  AAC_SAMPLES_PER_UNIT,
  type AccessUnit,
  type Cue,
  type StreamEvent,
  timescaleHz,
  type Track,
} from '../access-unit.ts';
import { MediaError } from '../error.ts';
import { fragment } from '../fmp4/fragment.ts';
import { initSegment } from '../fmp4/init-segment.ts';
import { compareTicks, msToTicks, rescaleTicks, VIDEO_TIMESCALE_HZ } from '../time.ts';

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
 * A segment that lasts longer than this many part targets is given up. Two neighbouring parts
 * always last longer than one target together, so a segment has fewer than twice as many parts.
 */
const MAX_SEGMENT_PART_TARGETS = 128;
const MAX_PARTS_PER_SEGMENT = 2 * MAX_SEGMENT_PART_TARGETS;
/** Payload of a segment: 16 s at 32 Mb/s. One that outgrows it is given up. */
const MAX_SEGMENT_SIZE_BYTES = 64 * 2 ** 20;
/** What a unit is counted as beside its payload, so that empty ones are bounded too. */
const UNIT_OVERHEAD_BYTES = 64;

/** The segment being made. */
interface OpenSegment {
  readonly cue: Cue;
  /** Undefined until a track is known. */
  init: InitSegment | undefined;
  readonly parts: Part[];
  /** Where the open part starts, in ticks of 1/90000 s. */
  partStartTicks: number;
  /** Units that are in no part yet, in decode order. */
  readonly pending: { readonly video: AccessUnit[]; readonly audio: AccessUnit[] };
  /** Of all units so far, those in parts included. */
  sizeBytes: number;
}

/**
 * Follows the events of one stream.
 *
 * | event      | effect                                                                                |
 * | ---------- | ------------------------------------------------------------------------------------- |
 * | `timeline` | the stream starts anew: what is open is dropped, units count from the next cue on     |
 * | `track`    | takes effect at the next cue, or at the last one if no unit has followed it           |
 * | `cue`      | closes the open segment and opens the next; after a jump the open segment is dropped  |
 * | `unit`     | joins the open segment, then closes the parts that it ends; dropped where none is open |
 *
 * Bound: one segment of 128 part targets and 64 MiB.
 */
export class Segmenter {
  readonly #partTargetTicks: number;
  readonly #tracks = new Map<Track['kind'], Track>();
  readonly #lastDts = new Map<Track['kind'], { ticks: number; hz: number }>();
  #init: InitSegment | undefined;
  #lastCue: Cue | undefined;
  #open: OpenSegment | undefined;

  /** @param options.partTargetMs no part lasts longer; to be advertised as PART-TARGET */
  constructor(options: { partTargetMs: number }) {
    this.#partTargetTicks = msToTicks(options.partTargetMs, VIDEO_TIMESCALE_HZ);
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
    this.#tracks.set(track.kind, track);
    const tracks = [this.#tracks.get('video'), this.#tracks.get('audio')].filter((known) => known !== undefined);
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
    const events: SegmenterEvent[] = [];
    const pending: OpenSegment['pending'] = { video: [], audio: [] };
    if (open !== undefined && cue.mediaSequenceNumber === open.cue.mediaSequenceNumber + 1) {
      if (cue.startTicks < open.partStartTicks) {
        throw new MediaError(
          'HLS_CUE_BACKWARDS',
          `segment ${cue.mediaSequenceNumber} at ${cue.startTicks} ticks, its units are in parts up to ${open.partStartTicks} already`,
        );
      }
      if (open.init !== undefined && cue.startTicks - open.cue.startTicks <= this.#maxSegmentTicks) {
        events.push(...this.#finishSegment(open, open.init, cue.startTicks));
      }
    }
    this.#lastCue = cue;
    this.#open = { cue, init: this.#init, parts: [], partStartTicks: cue.startTicks, pending, sizeBytes: 0 };
    return events;
  }
}
