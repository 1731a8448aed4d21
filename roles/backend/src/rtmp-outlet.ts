/**
 * A push to somebody else's RTMP or RTMPS server: ordinary RTMP, as from any encoder. Its times start at
 * nought and are as continuous as the channel's.
 */
import { isSameTrack, type Track, timescaleHz } from '@starling/media/access-unit';
import { metadataMessage, sequenceHeaderMessage, unitMessage } from '@starling/media/flv/mux';
import type { FlvMessage } from '@starling/media/flv/tag';
import { rescaleTicks } from '@starling/media/time';
import type { OpenOutlet, OutgoingUnit, Outlet, OutletListener } from './outlet.ts';
import { movedTarget, RtmpPublishing, type RtmpTarget } from './rtmp-publishing.ts';

const CONNECT_DEADLINE_MS = 10_000;
/** Servers cannot cross the 31-bit wrap of the timestamps, which comes after 24.8 days. */
const MAX_TIMESTAMP_MS = 20 * 24 * 3600 * 1000;

/** Opens connections to one server. */
export function rtmpOutlets(target: RtmpTarget): OpenOutlet {
  return (listener) => new RtmpOutlet(target, listener);
}

class RtmpOutlet implements Outlet {
  readonly #target: RtmpTarget;
  readonly #listener: OutletListener;
  readonly #publishing: RtmpPublishing;
  #offsetMs: number | undefined;
  #announced: readonly Track[] = [];
  #isMoving = false;

  constructor(target: RtmpTarget, listener: OutletListener) {
    this.#target = target;
    this.#listener = listener;
    this.#publishing = new RtmpPublishing(target, CONNECT_DEADLINE_MS, {
      onReady: () => listener.onReady(),
      onDrain: () => listener.onDrain(),
      onEnd: (reason) => listener.onEnd(reason),
      onReconnectRequest: (tcUrl) => this.#move(movedTarget(target, tcUrl)),
    });
  }

  get isFull(): boolean {
    return this.#publishing.isFull;
  }

  get sentBytes(): number {
    return this.#publishing.takenBytes;
  }

  send(units: readonly OutgoingUnit[]): void {
    const messages: FlvMessage[] = [];
    for (const { unit, track, tracks } of units) {
      const dtsMs = rescaleTicks(unit.dtsTicks, timescaleHz(track), 1000);
      this.#offsetMs ??= dtsMs;
      if (tracks !== this.#announced) messages.push(...this.#announce(tracks, dtsMs - this.#offsetMs));
      messages.push(unitMessage(unit, track, this.#offsetMs));
      if (dtsMs - this.#offsetMs > MAX_TIMESTAMP_MS) this.#move(this.#target);
    }
    this.#publishing.send(messages);
  }

  close(): void {
    this.#publishing.close();
  }

  #move(target: RtmpTarget): void {
    if (this.#isMoving) return;
    this.#isMoving = true;
    this.#listener.onMove(rtmpOutlets(target));
  }

  /** Metadata and sequence headers, where a decoder needs other ones than before. */
  #announce(tracks: readonly Track[], timestampMs: number): FlvMessage[] {
    const before = this.#announced;
    this.#announced = tracks;
    const changed = tracks.filter((track) => !before.some((known) => isSameTrack(known, track)));
    if (changed.length === 0 && tracks.length === before.length) return [];
    const headers = changed.map((track) => sequenceHeaderMessage(track, timestampMs));
    // Codecs whose units say all themselves have none; not every server knows what an empty message is.
    return [metadataMessage(tracks, timestampMs), ...headers.filter(({ payload }) => payload.length > 0)];
  }
}
