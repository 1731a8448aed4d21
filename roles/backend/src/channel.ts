/**
 * A channel on the air: events go in from its source, and out to every frontend's leg. The newest
 * segments are kept, so that a frontend that joins or comes back has a full window at once.
 */
import { type StreamEvent, type Track, trackIndex } from '@starling/media/access-unit';
import { LinkMuxer } from '@starling/media/flv/mux';
import type { FlvMessage } from '@starling/media/flv/tag';
import { msToTicks, VIDEO_TIMESCALE_HZ } from '@starling/media/time';

/**
 * What is kept for a frontend that joins, beside the open segment: what the playlists of those that were
 * there before it list, so that nobody can tell them apart.
 */
const BACKLOG_DURATION_TICKS = msToTicks(30_000, VIDEO_TIMESCALE_HZ);
/** In case that segments are very short, or the timeline jumps. */
const MAX_BACKLOG_SEGMENTS = 64;
const MAX_BACKLOG_BYTES = 48 * 1024 * 1024;

/** One segment's messages, as every frontend gets them. */
interface BacklogSegment {
  readonly startTicks: number;
  /** The tracks of its units. */
  tracks: readonly Track[];
  readonly messages: FlvMessage[];
  sizeBytes: number;
}

/** Takes the messages of a channel; called many times a second. */
export type MessageListener = (messages: readonly FlvMessage[]) => void;

export class Channel {
  readonly name: string;
  readonly #muxer = new LinkMuxer();
  #timeline: StreamEvent | undefined;
  #tracks: readonly Track[] = [];
  /** After a discontinuity: the first track that is announced clears those from before it. */
  #replacesTracks = false;
  #discontinuitySequence: number | undefined;
  readonly #backlog: BacklogSegment[] = [];
  #backlogBytes = 0;
  readonly #listeners = new Set<MessageListener>();
  readonly #taps = new Set<(events: readonly StreamEvent[]) => void>();

  constructor(name: string) {
    this.name = name;
  }

  /** Events in the order of the contract in access-unit.ts; muxed once for all frontends. */
  push(events: readonly StreamEvent[]): void {
    if (events.length === 0) return;
    const messages: FlvMessage[] = [];
    for (const event of events) {
      const muxed = this.#muxer.encode(event);
      messages.push(...muxed);
      this.#keep(event, muxed);
    }
    for (const listener of this.#listeners) listener(messages);
    for (const tap of this.#taps) tap(events);
  }

  /** Adds a listener to the events themselves: it hears the tracks at once, then every event. */
  tap(listener: (events: readonly StreamEvent[]) => void): () => void {
    this.#taps.add(listener);
    listener(this.#tracks.map((track) => ({ type: 'track', track })));
    return () => this.#taps.delete(listener);
  }

  /** Adds a frontend's leg: it hears the backlog at once, then every message. */
  join(listener: MessageListener): () => void {
    this.#listeners.add(listener);
    const muxer = new LinkMuxer();
    const tracks = this.#backlog[0]?.tracks ?? this.#tracks;
    const head = tracks.map((track): StreamEvent => ({ type: 'track', track }));
    if (this.#timeline !== undefined) head.unshift(this.#timeline);
    listener(head.flatMap((event) => muxer.encode(event)));
    for (const segment of this.#backlog) listener(segment.messages);
    return () => this.#listeners.delete(listener);
  }

  #keep(event: StreamEvent, messages: readonly FlvMessage[]): void {
    switch (event.type) {
      case 'timeline':
        this.#timeline = event;
        return; // a joiner hears it first of all
      case 'cue':
        this.#replacesTracks = event.cue.discontinuitySequence !== this.#discontinuitySequence;
        this.#discontinuitySequence = event.cue.discontinuitySequence;
        this.#backlog.push({
          startTicks: event.cue.startTicks,
          tracks: this.#tracks,
          messages: [],
          sizeBytes: 0,
        });
        break;
      case 'track': {
        const others = this.#replacesTracks
          ? []
          : this.#tracks.filter((known) => trackIndex(known) !== trackIndex(event.track));
        this.#replacesTracks = false;
        this.#tracks = [...others, event.track];
        break;
      }
      case 'unit':
        break;
    }
    const open = this.#backlog.at(-1);
    if (open === undefined) return;
    open.tracks = this.#tracks;
    open.messages.push(...messages);
    for (const message of messages) {
      open.sizeBytes += message.payload.length;
      this.#backlogBytes += message.payload.length;
    }
    while (this.#backlog.length > 1 && this.#hasMoreThanItMust(open)) {
      this.#backlogBytes -= this.#backlog.shift()?.sizeBytes ?? 0;
    }
  }

  /** Without its oldest segment the backlog would still hold enough, or it holds more than it may. */
  #hasMoreThanItMust(open: BacklogSegment): boolean {
    const secondOldest = this.#backlog[1] ?? open;
    return (
      open.startTicks - secondOldest.startTicks >= BACKLOG_DURATION_TICKS ||
      this.#backlog.length > MAX_BACKLOG_SEGMENTS ||
      this.#backlogBytes > MAX_BACKLOG_BYTES
    );
  }
}
