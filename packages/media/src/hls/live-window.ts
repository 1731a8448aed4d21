/**
 * The newest segments of a live stream: those in the playlist, those just removed from it that
 * players may still fetch, and the parts of the segment being made.
 */
import type { Cue } from '../access-unit.ts';
import { msToTicks, VIDEO_TIMESCALE_HZ } from '../time.ts';
import type { InitSegment, Part, Segment, SegmenterEvent } from './segmenter.ts';

/** The segment being made. */
export interface OpenSegment {
  readonly cue: Cue;
  readonly init: InitSegment;
  /** In order, from part 0 on. */
  readonly parts: readonly Part[];
}

/** Where something that a player asks for lies: at or before the end of the playlist, soon after it, or too far. */
export type Reach = 'listed' | 'expected' | 'too-far';

/** A segment and how long it has to stay. */
interface Entry {
  readonly segment: Segment;
  /** Duration of the longest playlist that listed it, in ticks of 1/90000 s. */
  longestPlaylistTicks: number;
  /** Media added since it was removed from the playlist, in ticks of 1/90000 s. */
  ticksSinceRemoval: number;
}

/**
 * Bound: the listed segments last no longer than the window, or are the fewest allowed; a removed
 * one is kept for its own duration and that of the longest playlist that listed it (RFC 8216
 * section 6.2.2), measured by the media added since.
 */
export class LiveWindow {
  readonly #windowTicks: number;
  readonly #minSegments: number;
  /** Oldest first. */
  #listed: Entry[] = [];
  #removed: Entry[] = [];
  #open: { cue: Cue; init: InitSegment; parts: Part[] } | undefined;
  #targetDurationMs = 0;
  #revision = 0;

  /**
   * @param options.windowDurationMs the listed segments together last no longer than this
   * @param options.minSegments this many stay listed even if they last longer
   */
  constructor(options: { windowDurationMs: number; minSegments: number }) {
    this.#windowTicks = msToTicks(options.windowDurationMs, VIDEO_TIMESCALE_HZ);
    this.#minSegments = options.minSegments;
  }

  /**
   * Takes what the segmenter made.
   *
   * A segment that does not continue the list empties it first: the sequence numbers jump, or the
   * discontinuity sequence falls or rises by more than the one that a tag can express. A segment
   * that comes again, from a publisher that starts a little earlier than the last one stopped, is
   * ignored: it has the same bytes.
   */
  add(event: SegmenterEvent): void {
    if (event.type === 'part') this.#addPart(event.part, event.init, event.cue);
    else this.#addSegment(event.segment);
  }

  /**
   * Hears the cue that follows the newest segment: the first that knows the target duration, where
   * an encoder's first segment had to show it. The playlist need not wait for that segment's parts.
   */
  hearCue(cue: Cue): void {
    if (this.#targetDurationMs > 0 || cue.targetDurationMs === 0) return;
    this.#targetDurationMs = cue.targetDurationMs;
    this.#revision++;
  }

  /** Rises with everything that is added: what was derived from the window at the same number is still right. */
  get revision(): number {
    return this.#revision;
  }

  /** The segments in the playlist, oldest first. */
  get segments(): readonly Segment[] {
    return this.#listed.map(({ segment }) => segment);
  }

  /** The segment after the last listed one, as far as it is made; undefined before its first part. */
  get openSegment(): OpenSegment | undefined {
    return this.#open !== undefined && this.#continuesList(this.#open.cue) ? this.#open : undefined;
  }

  /** Of the first listed segment; 0 while there is none. */
  get firstMediaSequenceNumber(): number {
    return this.#listed[0]?.segment.cue.mediaSequenceNumber ?? 0;
  }

  /** Of the first listed segment; 0 while there is none. */
  get discontinuitySequence(): number {
    return this.#listed[0]?.segment.cue.discontinuitySequence ?? 0;
  }

  /** As the cues say; 0 while they do not know it yet. Constant from then on until a jump. */
  get targetDurationMs(): number {
    return this.#targetDurationMs;
  }

  /** There is something to list, and the target duration that the playlist must state is known. */
  get isPlayable(): boolean {
    return this.#listed.length > 0 && this.#targetDurationMs > 0;
  }

  /** All bytes kept, in the playlist or not. */
  get sizeBytes(): number {
    let sizeBytes = 0;
    for (const { segment } of [...this.#listed, ...this.#removed]) sizeBytes += segment.sizeBytes;
    for (const part of this.#open?.parts ?? []) sizeBytes += part.bytes.length;
    return sizeBytes;
  }

  /** A segment that is listed or was until recently. */
  segment(mediaSequenceNumber: number): Segment | undefined {
    const isWanted = ({ segment }: Entry) => segment.cue.mediaSequenceNumber === mediaSequenceNumber;
    return (this.#listed.find(isWanted) ?? this.#removed.findLast(isWanted))?.segment;
  }

  /** A part of a segment that is kept, or of the one being made. */
  part(mediaSequenceNumber: number, index: number): Part | undefined {
    const open = this.openSegment;
    if (open?.cue.mediaSequenceNumber === mediaSequenceNumber) return open.parts[index];
    return this.segment(mediaSequenceNumber)?.parts[index];
  }

  /**
   * Where a segment, or a part of one, lies. A part past the last one of a finished segment stands
   * for part 0 of the next.
   *
   * Source: draft-pantos-hls-rfc8216bis section 6.2.5.2.
   * @param partIndex undefined for the whole segment
   * @param maxPartsAhead a part whose index exceeds the newest one's by more is too far (the Advance
   * Part Limit); so is everything beyond the second segment after the last finished one
   */
  reach(mediaSequenceNumber: number, partIndex: number | undefined, maxPartsAhead: number): Reach {
    const newest = this.#listed.at(-1)?.segment;
    if (newest === undefined) return 'too-far';
    const segmentsAhead = mediaSequenceNumber - newest.cue.mediaSequenceNumber;
    if (segmentsAhead < 0) return 'listed';
    if (segmentsAhead === 0) {
      const isPast = partIndex !== undefined && partIndex >= newest.parts.length;
      return isPast ? this.reach(mediaSequenceNumber + 1, 0, maxPartsAhead) : 'listed';
    }
    if (segmentsAhead > 2) return 'too-far';
    if (partIndex === undefined) return 'expected';
    const partsMade = segmentsAhead === 1 ? (this.openSegment?.parts.length ?? 0) : 0;
    if (partIndex < partsMade) return 'listed';
    return partIndex - (partsMade - 1) > maxPartsAhead ? 'too-far' : 'expected';
  }

  /** The init segment of any segment kept, or of the one being made. */
  init(id: string): InitSegment | undefined {
    if (this.#open?.init.id === id) return this.#open.init;
    const entry = [...this.#listed, ...this.#removed].find(({ segment }) => segment.init.id === id);
    return entry?.segment.init;
  }

  #addPart(part: Part, init: InitSegment, cue: Cue): void {
    if (this.#isRepeat(cue)) return;
    this.#revision++;
    if (part.index === 0) this.#open = { cue, init, parts: [] };
    // Parts whose first one was never seen are of no use.
    if (this.#open?.cue.mediaSequenceNumber === cue.mediaSequenceNumber) this.#open.parts.push(part);
  }

  #addSegment(segment: Segment): void {
    const { cue } = segment;
    if (this.#isRepeat(cue)) return;
    this.#revision++;
    this.#open = undefined;
    for (const entry of this.#removed) entry.ticksSinceRemoval += segment.durationTicks;
    if (!this.#continuesList(cue)) {
      this.#removed.push(...this.#listed);
      this.#listed = [];
      // A publisher that does not know it yet after a jump will come to the same value.
      this.#targetDurationMs = cue.targetDurationMs || this.#targetDurationMs;
    }
    this.#targetDurationMs ||= cue.targetDurationMs;
    this.#listed.push({ segment, longestPlaylistTicks: 0, ticksSinceRemoval: 0 });

    let playlistTicks = this.#listed.reduce((sum, entry) => sum + entry.segment.durationTicks, 0);
    while (this.#listed.length > this.#minSegments && playlistTicks > this.#windowTicks) {
      const oldest = this.#listed.shift();
      if (oldest === undefined) break;
      playlistTicks -= oldest.segment.durationTicks;
      this.#removed.push(oldest);
    }
    for (const entry of this.#listed) {
      entry.longestPlaylistTicks = Math.max(entry.longestPlaylistTicks, playlistTicks);
    }
    this.#removed = this.#removed.filter(
      (entry) => entry.ticksSinceRemoval < entry.segment.durationTicks + entry.longestPlaylistTicks,
    );
  }

  /** It lies before the end of the list by number and by wall-clock time. */
  #isRepeat(cue: Cue): boolean {
    const newest = this.#listed.at(-1)?.segment.cue;
    return (
      newest !== undefined &&
      cue.mediaSequenceNumber <= newest.mediaSequenceNumber &&
      cue.programDateTimeUnixMs <= newest.programDateTimeUnixMs
    );
  }

  #continuesList(cue: Cue): boolean {
    const newest = this.#listed.at(-1)?.segment.cue;
    if (newest === undefined) return true;
    const discontinuities = cue.discontinuitySequence - newest.discontinuitySequence;
    return (
      cue.mediaSequenceNumber === newest.mediaSequenceNumber + 1 &&
      (discontinuities === 0 || discontinuities === 1)
    );
  }
}
