/**
 * A channel on the air: events go in from its source, and out to every frontend's leg, muxed and cut into
 * chunks once for all. A frontend that joins or comes back gets the newest segments first, so that it has a full
 * window at once: they are kept in memory, or made again where the source can do that.
 */
import { type StreamEvent, type Track, trackIndex } from '@starling/media/access-unit';
import { type FlvMessageParts, LinkMuxer } from '@starling/media/flv/mux';
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
  /** Nothing of what was sent is needed any more. */
  readonly isDrained: boolean;
  /** Many times a second, and the same bytes for all: RTMP chunks that refer to none before these. */
  send(chunks: Buffer): void;
  /** Resolves when what was sent has left the process. */
  whenDrained(): Promise<void>;
  /** It was so slow with what there was that the backlog has gone on without it. Nothing more comes. */
  overtaken(): void;
}

/** Makes again what the channel has had. */
export interface History {
  /** Begins with the segment that was on {@link BACKLOG_DURATION_TICKS} ago. */
  open(): HistoryReader;
}

export interface HistoryReader {
  /** Brings some of what comes next into memory. Never rejects. */
  readAhead(): Promise<void>;
  /**
   * What is in memory, and whether it reaches to the last event that was pushed into the channel. The data of units
   * may be read until the next call.
   */
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
    for (const event of events) {
      if (this.#history === undefined) {
        // What is kept must not hold on to the large buffers that its units may be part of: copied.
        const messages = this.#muxer.encode(event);
        for (const message of messages) this.#cutter.add(message, [message.payload]);
        this.#keep(event, messages);
      } else {
        for (const message of this.#muxer.encodeParts(event)) this.#cutter.add(message, message.parts);
        this.#keep(event, []);
      }
    }
    const chunks = this.#cutter.take();
    let isDrained = true;
    for (const joiner of this.#joiners) {
      joiner.send(chunks);
      isDrained &&= joiner.isDrained;
    }
    // Mostly the system takes it at once. The same memory again and again stays in the processor's caches.
    if (isDrained) slab.giveBack(chunks);
    for (const tap of this.#taps) tap(events);
  }

  /** Whoever joins from now on does not get the open segment: it will not be whole. */
  dropOpenSegment(): void {
    this.#backlogBytes -= this.#backlog.pop()?.sizeBytes ?? 0;
  }

  /** Somebody listens who may keep the events; the legs only copy from them. */
  get isTapped(): boolean {
    return this.#taps.size > 0;
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

  /** A segment at a time, as fast as the leg takes them: all at once would look as if it did not read. */
  #joinAfterBacklog(joiner: Joiner): () => void {
    let hasLeft = false;
    const muxer = new LinkMuxer();
    const cutter = new ChunkCutter();
    const catchUp = async () => {
      let [segment] = this.#backlog;
      const head = this.#head(segment?.tracks ?? this.#tracks);
      for (const event of head) cutter.addAll(muxer.encodeParts(event));
      while (segment !== undefined && segment !== this.#backlog.at(-1)) {
        for (const message of segment.messages) cutter.add(message, [message.payload]);
        joiner.send(cutter.take());
        if (!joiner.isDrained) await joiner.whenDrained();
        if (hasLeft) return;
        const sentIndex = this.#backlog.indexOf(segment);
        if (sentIndex === -1) return joiner.overtaken();
        segment = this.#backlog[sentIndex + 1];
      }
      for (const message of segment?.messages ?? []) cutter.add(message, [message.payload]);
      joiner.send(cutter.take());
      this.#joiners.add(joiner);
    };
    void catchUp();
    return () => {
      hasLeft = true;
      this.#joiners.delete(joiner);
    };
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
        for (const event of events) cutter.addAll(muxer.encodeParts(event));
        joiner.send(cutter.take());
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

const SLAB_BYTES = 1024 * 1024;

/** Memory for what is sent, in one piece: each piece costs the collector. */
class Slab {
  #free = Buffer.alloc(0);

  take(sizeBytes: number): Buffer {
    if (sizeBytes > this.#free.length) this.#free = Buffer.allocUnsafeSlow(Math.max(sizeBytes, SLAB_BYTES));
    const taken = this.#free.subarray(0, sizeBytes);
    this.#free = this.#free.subarray(sizeBytes);
    return taken;
  }

  /** Nobody reads it any more. Does nothing unless it was taken last. */
  giveBack(taken: Buffer): void {
    const isLast =
      taken.buffer === this.#free.buffer && taken.byteOffset + taken.length === this.#free.byteOffset;
    if (isLast) this.#free = Buffer.from(taken.buffer, taken.byteOffset, taken.length + this.#free.length);
  }
}

/** One for all channels: what one has given back the next one takes. */
const slab = new Slab();

/** Cuts messages into chunks that refer to none before the last `take`. */
class ChunkCutter {
  readonly #writer = new SharedChunkWriter();

  add(message: Omit<FlvMessage, 'payload'>, parts: readonly Uint8Array[]): void {
    this.#writer.add(message, parts);
  }

  addAll(messages: readonly FlvMessageParts[]): void {
    for (const message of messages) this.add(message, message.parts);
  }

  /** What was added. Nobody writes to it any more: all may send the same bytes. */
  take(): Buffer {
    const pieces = this.#writer.take();
    this.#writer.restart();
    let sizeBytes = 0;
    for (const piece of pieces) sizeBytes += piece.length;
    const chunks = slab.take(sizeBytes);
    let at = 0;
    for (const piece of pieces) {
      chunks.set(piece, at);
      at += piece.length;
    }
    return chunks;
  }
}
