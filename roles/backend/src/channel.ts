/**
 * A channel on the air: events go in from its source, and out to every frontend's leg. The newest
 * segments are kept, so that a frontend that joins or comes back has a full window at once.
 */
import type { StreamEvent } from '@starling/media/access-unit';
import { LinkMuxer } from '@starling/media/flv/mux';
import type { FlvMessage } from '@starling/media/flv/tag';

/** What is kept for a frontend that joins. */
const BACKLOG_SEGMENTS = 7;
const MAX_BACKLOG_BYTES = 48 * 1024 * 1024;

/** One segment's messages, as every frontend gets them. */
interface BacklogSegment {
  readonly messages: FlvMessage[];
  sizeBytes: number;
}

/** Takes the messages of a channel; called many times a second. */
export type MessageListener = (messages: readonly FlvMessage[]) => void;

export class Channel {
  readonly name: string;
  #muxer = new LinkMuxer();
  /** Timeline and tracks as they are now: what a joiner has to hear first. */
  readonly #head = new Map<string, StreamEvent>();
  readonly #backlog: BacklogSegment[] = [];
  readonly #listeners = new Set<MessageListener>();

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
  }

  /** Adds a frontend's leg: it hears the backlog at once, then every message. */
  join(listener: MessageListener): () => void {
    this.#listeners.add(listener);
    const muxer = new LinkMuxer();
    listener([...this.#head.values()].flatMap((event) => muxer.encode(event)));
    for (const segment of this.#backlog) listener(segment.messages);
    return () => this.#listeners.delete(listener);
  }

  #keep(event: StreamEvent, messages: readonly FlvMessage[]): void {
    if (event.type === 'timeline') this.#head.set('timeline', event);
    if (event.type === 'track') this.#head.set(event.track.kind, event);
    if (event.type === 'cue') {
      this.#backlog.push({ messages: [], sizeBytes: 0 });
      while (this.#backlog.length > BACKLOG_SEGMENTS) this.#backlog.shift();
    }
    const open = this.#backlog.at(-1);
    if (open === undefined) return;
    open.messages.push(...messages);
    for (const message of messages) open.sizeBytes += message.payload.length;
    let backlogBytes = this.#backlog.reduce((sum, segment) => sum + segment.sizeBytes, 0);
    while (backlogBytes > MAX_BACKLOG_BYTES && this.#backlog.length > 1) {
      backlogBytes -= this.#backlog.shift()?.sizeBytes ?? 0;
    }
  }
}
