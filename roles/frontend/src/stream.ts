/**
 * One channel on this frontend: takes events from its publishers, keeps the first copy of each,
 * and hands one unbroken sequence on to the renditions (HLS) and to the fan-out.
 */
import {
  type Cue,
  isSameTrack,
  type StreamEvent,
  type Track,
  timescaleHz,
  trackIndex,
} from '@starling/media/access-unit';
import { type Rendition, Renditions } from '@starling/media/hls/renditions';
import type { SegmenterEvent } from '@starling/media/hls/segmenter';
import { rescaleTicks } from '@starling/media/time';
import type { Logger } from 'pino';

export interface StreamOptions {
  readonly channel: string;
  readonly partTargetMs: number;
  readonly windowDurationMs: number;
  readonly logger: Logger;
}

/** Listens to the merged events of a stream, each once and in order. */
export interface StreamListener {
  /** The windows of the renditions have what it completes. */
  event?(event: StreamEvent): void;
  /** A part or a segment of a rendition is complete. */
  made?(rendition: string, event: SegmenterEvent): void;
  /** The open segment lacks something and was dropped. */
  dropped?(): void;
  /** The stream's timeline began anew; what was kept of it is void. */
  reset?(): void;
}

/** A publisher's place in the stream. */
interface PublisherState {
  /** Of the segment that it is in, which it carries in full: it begins with a cue. */
  mediaSequenceNumber: number | undefined;
  discontinuitySequence: number | undefined;
  /** By {@link trackIndex}, as are all maps of tracks here. */
  readonly tracks: Map<number, Track>;
  /** After a discontinuity: the first track that is announced clears those from before it. */
  replacesTracks: boolean;
}

/** Segments listed at the least, whatever their length: players want three to start (RFC 8216, 6.3.3). */
const MIN_SEGMENTS = 4;

export class Stream {
  readonly channel: string;
  readonly #options: StreamOptions;
  readonly #listeners = new Set<StreamListener>();
  readonly #publishers = new Set<PublisherState>();
  #renditions: Renditions;
  readonly #tracks = new Map<number, Track>();
  #epochUnixMs: number | undefined;
  #lastCue: Cue | undefined;
  /** No unit has followed the last cue: its tracks may be other ones than before. */
  #isSegmentEmpty = true;
  readonly #lastDtsTicks = new Map<number, number>();
  #lastUnitAtMs = 0;

  constructor(options: StreamOptions) {
    this.channel = options.channel;
    this.#options = options;
    this.#renditions = this.#newRenditions();
  }

  /** On the air now; the same array until they change. Empty before the first unit. */
  get renditions(): readonly Rendition[] {
    return this.#renditions.onAir;
  }

  /** The rendition of this name, on the air or ended not long ago. */
  rendition(name: string): Rendition | undefined {
    return this.#renditions.find(name);
  }

  /** Every rendition has something to list. */
  get isPlayable(): boolean {
    return this.#renditions.isPlayable;
  }

  /** Bytes of the live windows in memory. */
  get windowBytes(): number {
    return this.#renditions.sizeBytes;
  }

  /** As the cues say; 0 while they do not know it yet. */
  get targetDurationMs(): number {
    return this.#renditions.onAir[0]?.window.targetDurationMs ?? 0;
  }

  /** No part lasts longer (EXT-X-PART-INF). */
  get partTargetMs(): number {
    return this.#options.partTargetMs;
  }

  /** All tracks of the segment now open: video by id, then audio by id. Empty before the first unit. */
  get tracks(): readonly Track[] {
    return [...this.#tracks.values()];
  }

  /** Undefined before a publisher has told it. */
  get epochUnixMs(): number | undefined {
    return this.#epochUnixMs;
  }

  get publisherCount(): number {
    return this.#publishers.size;
  }

  /** Milliseconds on the monotonic clock when the last unit came in; 0 when none did. */
  get lastUnitAtMs(): number {
    return this.#lastUnitAtMs;
  }

  listen(listener: StreamListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Adds a publisher.
   * @returns takes its events, in the order of the contract in access-unit.ts; and its end
   */
  addPublisher(): { event(event: StreamEvent, nowMs: number): void; end(): void } {
    const publisher: PublisherState = {
      mediaSequenceNumber: undefined,
      discontinuitySequence: undefined,
      tracks: new Map(),
      replacesTracks: false,
    };
    this.#publishers.add(publisher);
    return {
      event: (event, nowMs) => this.#receive(publisher, event, nowMs),
      end: () => this.#publishers.delete(publisher),
    };
  }

  #receive(publisher: PublisherState, event: StreamEvent, nowMs: number): void {
    switch (event.type) {
      case 'timeline':
        if (this.#epochUnixMs !== undefined && this.#epochUnixMs !== event.epochUnixMs) this.#reset();
        this.#epochUnixMs = event.epochUnixMs;
        return;
      case 'track':
        if (publisher.replacesTracks) publisher.tracks.clear();
        publisher.replacesTracks = false;
        publisher.tracks.set(trackIndex(event.track), event.track);
        return;
      case 'cue': {
        const carried = publisher.mediaSequenceNumber;
        publisher.mediaSequenceNumber = event.cue.mediaSequenceNumber;
        publisher.discontinuitySequence ??= event.cue.discontinuitySequence;
        publisher.replacesTracks = event.cue.discontinuitySequence > publisher.discontinuitySequence;
        publisher.discontinuitySequence = event.cue.discontinuitySequence;
        if (
          this.#lastCue === undefined ||
          event.cue.mediaSequenceNumber > this.#lastCue.mediaSequenceNumber
        ) {
          this.#openSegment(carried, event.cue);
        }
        return;
      }
      case 'unit': {
        const { unit } = event;
        // Before its first cue a publisher says nothing about where its units belong; and what it still has
        // of an earlier segment comes too late.
        if (this.#lastCue === undefined) return;
        if (publisher.mediaSequenceNumber !== this.#lastCue.mediaSequenceNumber) return;
        if (this.#isSegmentEmpty) this.#adoptTracks(publisher);
        const index = trackIndex(unit);
        const lastDtsTicks = this.#lastDtsTicks.get(index);
        if (lastDtsTicks !== undefined && unit.dtsTicks <= lastDtsTicks) return; // another publisher brought it first
        // Within a segment all units are of the tracks that it began with.
        const track = publisher.tracks.get(index);
        const adopted = this.#tracks.get(index);
        if (track === undefined || adopted === undefined) return;
        if (track !== adopted && !isSameTrack(track, adopted)) return;
        this.#isSegmentEmpty = false;
        this.#lastDtsTicks.set(index, unit.dtsTicks);
        this.#lastUnitAtMs = nowMs;
        this.#emit(event);
        return;
      }
    }
  }

  /** @param carried the segment that the publisher was in before */
  #openSegment(carried: number | undefined, cue: Cue): void {
    const open = this.#lastCue?.mediaSequenceNumber;
    if (open !== undefined && carried !== open) {
      // Its units may lack some at the end, and its name must always mean the same bytes: never published.
      this.#options.logger.warn(
        { channel: this.channel, mediaSequenceNumber: open },
        'segment dropped: its publisher left before its end',
      );
      this.#renditions.dropOpenSegment();
      for (const listener of this.#listeners) listener.dropped?.();
    }
    this.#lastCue = cue;
    this.#isSegmentEmpty = true;
    this.#emit({ type: 'cue', cue });
  }

  /** Takes over the tracks of the publisher whose unit opens a segment, where they are new. */
  #adoptTracks(publisher: PublisherState): void {
    const isKnown = (track: Track) => {
      const known = this.#tracks.get(trackIndex(track));
      return known !== undefined && (known === track || isSameTrack(known, track));
    };
    const tracks = [...publisher.tracks.values()].sort((a, b) => trackIndex(a) - trackIndex(b));
    if (tracks.length === this.#tracks.size && tracks.every(isKnown)) return;
    const before = new Map(this.#tracks);
    this.#tracks.clear();
    for (const track of tracks) this.#tracks.set(trackIndex(track), track);
    for (const [index, known] of before) {
      const track = this.#tracks.get(index);
      const lastDtsTicks = this.#lastDtsTicks.get(index);
      if (track === undefined) this.#lastDtsTicks.delete(index);
      else if (lastDtsTicks !== undefined) {
        this.#lastDtsTicks.set(index, rescaleTicks(lastDtsTicks, timescaleHz(known), timescaleHz(track)));
      }
    }
    for (const track of tracks) this.#emit({ type: 'track', track });
  }

  #emit(event: StreamEvent): void {
    for (const made of this.#renditions.push(event)) {
      for (const listener of this.#listeners) listener.made?.(made.rendition, made.event);
    }
    for (const listener of this.#listeners) listener.event?.(event);
  }

  #reset(): void {
    this.#options.logger.warn(
      { channel: this.channel },
      'the channel was created anew: its window starts afresh',
    );
    this.#renditions = this.#newRenditions();
    this.#tracks.clear();
    this.#lastCue = undefined;
    this.#lastDtsTicks.clear();
    for (const listener of this.#listeners) listener.reset?.();
  }

  #newRenditions(): Renditions {
    const { partTargetMs, windowDurationMs } = this.#options;
    return new Renditions({ partTargetMs, windowDurationMs, minSegments: MIN_SEGMENTS });
  }
}
