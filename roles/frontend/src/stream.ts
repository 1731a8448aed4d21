/**
 * One channel on this frontend: takes events from its publishers, keeps the first copy of each,
 * and hands one unbroken sequence on to the live window (HLS) and to the FLV fan-out.
 */
import {
  type Cue,
  isDefaultTrack,
  isSameTrack,
  type StreamEvent,
  type Track,
} from '@starling/media/access-unit';
import { LiveWindow } from '@starling/media/hls/live-window';
import { Segmenter } from '@starling/media/hls/segmenter';
import type { Logger } from 'pino';

export interface StreamOptions {
  readonly channel: string;
  readonly partTargetMs: number;
  readonly windowDurationMs: number;
  readonly logger: Logger;
}

/** Listens to the merged events of a stream, each once and in order. */
export interface StreamListener {
  event(event: StreamEvent): void;
  /** The stream's timeline began anew; what was kept of it is void. */
  reset(): void;
}

/** A publisher's place in the stream. */
interface PublisherState {
  /** Number of the first segment that it announced: what it carries in full. */
  firstMediaSequenceNumber: number | undefined;
  discontinuitySequence: number | undefined;
  readonly tracks: Map<Track['kind'], Track>;
  /** After a discontinuity: the first track that is announced clears those from before it. */
  replacesTracks: boolean;
}

/** Segments listed at the least, whatever their length: players want three to start (RFC 8216, 6.3.3). */
const MIN_SEGMENTS = 4;

export class Stream {
  readonly channel: string;
  #window: LiveWindow;
  readonly #options: StreamOptions;
  readonly #listeners = new Set<StreamListener>();
  readonly #publishers = new Set<PublisherState>();
  #segmenter: Segmenter;
  #tracks = new Map<Track['kind'], Track>();
  #epochUnixMs: number | undefined;
  #lastCue: Cue | undefined;
  readonly #lastDtsTicks = { video: Number.NEGATIVE_INFINITY, audio: Number.NEGATIVE_INFINITY };
  #lastUnitAtMs = 0;

  constructor(options: StreamOptions) {
    this.channel = options.channel;
    this.#options = options;
    this.#window = this.#newWindow();
    this.#segmenter = this.#newSegmenter();
  }

  get window(): LiveWindow {
    return this.#window;
  }

  /** No part lasts longer (EXT-X-PART-INF). */
  get partTargetMs(): number {
    return this.#options.partTargetMs;
  }

  /** Tracks of the segment now open; empty before the first cue. */
  get tracks(): readonly Track[] {
    return [...this.#tracks.values()];
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
      firstMediaSequenceNumber: undefined,
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
    if (event.type === 'track' && !isDefaultTrack(event.track)) return;
    if (event.type === 'unit' && !isDefaultTrack(event.unit)) return;
    switch (event.type) {
      case 'timeline':
        if (this.#epochUnixMs !== undefined && this.#epochUnixMs !== event.epochUnixMs) this.#reset();
        this.#epochUnixMs = event.epochUnixMs;
        return;
      case 'track':
        if (publisher.replacesTracks) publisher.tracks.clear();
        publisher.replacesTracks = false;
        publisher.tracks.set(event.track.kind, event.track);
        return;
      case 'cue':
        publisher.firstMediaSequenceNumber ??= event.cue.mediaSequenceNumber;
        publisher.discontinuitySequence ??= event.cue.discontinuitySequence;
        publisher.replacesTracks = event.cue.discontinuitySequence > publisher.discontinuitySequence;
        publisher.discontinuitySequence = event.cue.discontinuitySequence;
        if (
          this.#lastCue === undefined ||
          event.cue.mediaSequenceNumber > this.#lastCue.mediaSequenceNumber
        ) {
          this.#openSegment(publisher, event.cue);
        }
        return;
      case 'unit': {
        // Before its first cue a publisher says nothing about where its units belong.
        if (publisher.firstMediaSequenceNumber === undefined || this.#lastCue === undefined) return;
        const { unit } = event;
        if (unit.dtsTicks <= this.#lastDtsTicks[unit.kind]) return; // another publisher brought it first
        this.#adoptTracks(publisher);
        this.#lastDtsTicks[unit.kind] = unit.dtsTicks;
        this.#lastUnitAtMs = nowMs;
        this.#emit(event);
        return;
      }
    }
  }

  #openSegment(publisher: PublisherState, cue: Cue): void {
    const open = this.#lastCue?.mediaSequenceNumber;
    const carriedOpen = (publisher.firstMediaSequenceNumber ?? Number.POSITIVE_INFINITY) <= (open ?? -1);
    if (open !== undefined && !carriedOpen) {
      // Its units may lack some at the end, and its name must always mean the same bytes: never published.
      this.#options.logger.warn(
        { channel: this.channel, mediaSequenceNumber: open },
        'segment dropped: its publisher left before its end',
      );
      this.#segmenter = this.#newSegmenter();
      for (const track of this.#tracks.values()) this.#segmenter.push({ type: 'track', track });
    }
    this.#lastCue = cue;
    this.#emit({ type: 'cue', cue });
    this.#window.hearCue(cue);
  }

  /** Takes over the tracks of the publisher whose unit comes next, where they are new. */
  #adoptTracks(publisher: PublisherState): void {
    const isKnown = (track: Track) => {
      const known = this.#tracks.get(track.kind);
      return known !== undefined && (known === track || isSameTrack(known, track));
    };
    const tracks = [...publisher.tracks.values()];
    if (tracks.length === this.#tracks.size && tracks.every(isKnown)) return;
    this.#tracks = new Map(publisher.tracks);
    for (const track of tracks) this.#emit({ type: 'track', track });
  }

  #emit(event: StreamEvent): void {
    for (const made of this.#segmenter.push(event)) this.#window.add(made);
    for (const listener of this.#listeners) listener.event(event);
  }

  #reset(): void {
    this.#options.logger.warn(
      { channel: this.channel },
      'the channel was created anew: its window starts afresh',
    );
    this.#segmenter = this.#newSegmenter();
    this.#window = this.#newWindow();
    this.#tracks = new Map();
    this.#lastCue = undefined;
    this.#lastDtsTicks.video = Number.NEGATIVE_INFINITY;
    this.#lastDtsTicks.audio = Number.NEGATIVE_INFINITY;
    for (const listener of this.#listeners) listener.reset();
  }

  #newWindow(): LiveWindow {
    return new LiveWindow({ windowDurationMs: this.#options.windowDurationMs, minSegments: MIN_SEGMENTS });
  }

  #newSegmenter(): Segmenter {
    return new Segmenter({ partTargetMs: this.#options.partTargetMs });
  }
}
