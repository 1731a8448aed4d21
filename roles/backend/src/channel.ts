/**
 * A channel on the air: events go in from its source, and out to every frontend's leg, muxed and cut into
 * chunks once for all. A frontend that joins or comes back gets the newest segments first, so that it has a full
 * window at once: they are kept in memory, or made again where the source can do that.
 */
import { type StreamEvent, type Track, trackIndex } from '@starling/media/access-unit';
import { concatBytes } from '@starling/media/bytes';
import { LinkMuxer } from '@starling/media/flv/mux';
import type { FlvMessage } from '@starling/media/flv/tag';
import { SharedChunkWriter } from '@starling/media/rtmp/session';
import { msToTicks, VIDEO_TIMESCALE_HZ } from '@starling/media/time';

/**
 * What is kept for a frontend that joins, beside the open segment: what the playlists of those that were
 * there before it list, so that nobody can tell them apart.
 */
export const BACKLOG_DURATION_TICKS = msToTicks(30_000, VIDEO_TIMESCALE_HZ);
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

/** A frontend's leg. */
export interface Joiner {
  /** Many times a second, and the same bytes for all: RTMP chunks that refer to none before these. */
  send(chunks: Buffer): void;
  /** Resolves when what was sent has left the process. */
  whenDrained(): Promise<void>;
}

/** Makes again what the channel has had. */
export interface History {
  /** Begins with the segment that was on {@link BACKLOG_DURATION_TICKS} ago. */
  open(): HistoryReader;
}

export interface HistoryReader {
  /** Brings some of what comes next into memory. Never rejects. */
  readAhead(): Promise<void>;
  /** What is in memory, and whether it reaches to the last event that was pushed into the channel. */
  take(): { readonly events: readonly StreamEvent[]; readonly isUpToDate: boolean };
  close(): void;
}

export class Channel {
  readonly name: string;
  readonly #history: History | undefined;
  readonly #muxer = new LinkMuxer();
  readonly #cutter = new ChunkCutter();
  #timeline: StreamEvent | undefined;
  #tracks: readonly Track[] = [];
  /** After a discontinuity: the first track that is announced clears those from before it. */
  #replacesTracks = false;
  #discontinuitySequence: number | undefined;
  readonly #backlog: BacklogSegment[] = [];
  #backlogBytes = 0;
  readonly #joiners = new Set<Joiner>();
  readonly #taps = new Set<(events: readonly StreamEvent[]) => void>();

  /** @param history kept in memory when undefined */
  constructor(name: string, history?: History) {
    this.name = name;
    this.#history = history;
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
    if (this.#joiners.size > 0) {
      const chunks = this.#cutter.cut(messages);
      for (const joiner of this.#joiners) joiner.send(chunks);
    }
    for (const tap of this.#taps) tap(events);
  }

  /** Adds a listener to the events themselves: it hears the tracks at once, then every event. */
  tap(listener: (events: readonly StreamEvent[]) => void): () => void {
    this.#taps.add(listener);
    listener(this.#tracks.map((track) => ({ type: 'track', track })));
    return () => this.#taps.delete(listener);
  }

  /** Adds a frontend's leg: it gets what there was, as fast as it takes it, then every event. */
  join(joiner: Joiner): () => void {
    if (this.#history === undefined) return this.#joinAfterBacklog(joiner);
    return this.#joinAfter(this.#history.open(), joiner);
  }

  #joinAfterBacklog(joiner: Joiner): () => void {
    this.#joiners.add(joiner);
    const muxer = new LinkMuxer();
    const cutter = new ChunkCutter();
    const head = this.#head(this.#backlog[0]?.tracks ?? this.#tracks);
    if (head.length > 0) joiner.send(cutter.cut(head.flatMap((event) => muxer.encode(event))));
    for (const segment of this.#backlog) joiner.send(cutter.cut(segment.messages));
    return () => this.#joiners.delete(joiner);
  }

  #joinAfter(reader: HistoryReader, joiner: Joiner): () => void {
    let hasLeft = false;
    let isAnnounced = false;
    const muxer = new LinkMuxer();
    const cutter = new ChunkCutter();
    const catchUp = async () => {
      while (!hasLeft) {
        await reader.readAhead();
        await joiner.whenDrained();
        if (hasLeft) break;
        const { events: taken, isUpToDate } = reader.take();
        isAnnounced ||= taken.some(({ type }) => type === 'timeline');
        // Where nothing was on for so long, the channel's last announcement is all there is.
        const events = isUpToDate && !isAnnounced ? this.#head(this.#tracks) : taken;
        if (events.length > 0) joiner.send(cutter.cut(events.flatMap((event) => muxer.encode(event))));
        if (!isUpToDate) continue;
        if (!hasLeft) this.#joiners.add(joiner); // nothing is pushed between the two
        break;
      }
      reader.close();
    };
    void catchUp();
    return () => {
      hasLeft = true;
      this.#joiners.delete(joiner);
    };
  }

  /** What comes before all units. */
  #head(tracks: readonly Track[]): StreamEvent[] {
    const head = tracks.map((track): StreamEvent => ({ type: 'track', track }));
    return this.#timeline === undefined ? head : [this.#timeline, ...head];
  }

  #keep(event: StreamEvent, messages: readonly FlvMessage[]): void {
    switch (event.type) {
      case 'timeline':
        this.#timeline = event;
        return; // a joiner hears it first of all
      case 'cue':
        this.#replacesTracks = event.cue.discontinuitySequence !== this.#discontinuitySequence;
        this.#discontinuitySequence = event.cue.discontinuitySequence;
        if (this.#history !== undefined) return;
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

/** Cuts messages into chunks that refer to none before them. */
class ChunkCutter {
  readonly #writer = new SharedChunkWriter();

  cut(messages: readonly FlvMessage[]): Buffer {
    this.#writer.restart();
    const chunks = concatBytes(messages.flatMap((message) => this.#writer.write(message)));
    // Of another Uint8Array each socket would make a Buffer for itself.
    return Buffer.from(chunks.buffer, chunks.byteOffset, chunks.byteLength);
  }
}
