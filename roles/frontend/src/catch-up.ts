/**
 * What a viewer who joins gets at once: the events since the random access point that opened the
 * newest independent segment. Kept once for all protocols, unmuxed: a protocol that nobody watches costs
 * nothing.
 */
import { type AccessUnit, isDefaultTrack, type StreamEvent } from '@starling/media/access-unit';
import type { Stream } from './stream.ts';

/** In case key frames are rare: joiners then wait for the next one. */
const MAX_BYTES = 16 * 1024 * 1024;

export class CatchUp {
  readonly #stopListening: () => void;
  #events: StreamEvent[] = [];
  #sizeBytes = 0;
  #randomAccessPicture: AccessUnit | undefined;

  constructor(stream: Stream) {
    this.#stopListening = stream.listen({
      event: (event) => this.#event(event),
      reset: () => this.#clear(),
    });
  }

  /** A cue and what followed it; empty while there is nothing to begin with. */
  get events(): readonly StreamEvent[] {
    return this.#events;
  }

  /** True once a joiner would get a picture, or sound where there is no picture, at once. */
  get isPlayable(): boolean {
    return this.#events.some((event) => event.type === 'unit');
  }

  /** The newest picture at which a decoder can start. */
  get randomAccessPicture(): AccessUnit | undefined {
    return this.#randomAccessPicture;
  }

  close(): void {
    this.#stopListening();
    this.#clear();
  }

  #event(event: StreamEvent): void {
    if (event.type === 'timeline') return;
    if (event.type === 'unit' && !isDefaultTrack(event.unit)) return;
    if (event.type === 'cue' && event.cue.isIndependent) {
      this.#events = [event];
      this.#sizeBytes = 0;
      return;
    }
    if (event.type === 'unit' && event.unit.kind === 'video' && event.unit.isRandomAccess) {
      this.#randomAccessPicture = event.unit;
    }
    if (this.#events.length === 0) return;
    this.#events.push(event);
    if (event.type === 'unit') this.#sizeBytes += event.unit.data.length;
    if (this.#sizeBytes > MAX_BYTES) this.#events = [];
  }

  #clear(): void {
    this.#events = [];
    this.#sizeBytes = 0;
    this.#randomAccessPicture = undefined;
  }
}
