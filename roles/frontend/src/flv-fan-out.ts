/**
 * HTTP-FLV: one stream to many viewers at little cost.
 *
 * Every unit is muxed once. A few times a second what has come in is joined to one batch, and that
 * one buffer is written to every viewer's socket. A viewer whose socket does not drain is skipped;
 * when it has drained it goes on at the next random access point; when it has stayed behind too
 * long it is cut off. So what a slow viewer holds is bounded by media time, not by its luck with
 * kernel buffers.
 *
 * Timestamps are offset per stream, not per viewer: the offset
 * is a whole number of periods of the timeline, the same on every frontend, and shorter than the
 * 31-bit wrap that FLV players cannot cross. When a period ends, so do the responses.
 */
import type { Socket } from 'node:net';
import type { Cue, StreamEvent, Track } from '@starling/media/access-unit';
import { concatBytes } from '@starling/media/bytes';
import { flvHeader, flvTag, metadataMessage, sequenceHeaderMessage, unitTag } from '@starling/media/flv/mux';
import { ticksToMs, VIDEO_TIMESCALE_HZ } from '@starling/media/time';
import type { Stream } from './stream.ts';

/** 20 days. The 31-bit wrap of FLV timestamps comes after 24.8. */
const TIMESTAMP_PERIOD_MS = 20 * 24 * 3600 * 1000;

export interface FlvLimits {
  /** How long units wait to be written together. */
  readonly batchMs: number;
  /** Media that may wait for a viewer before it is skipped. */
  readonly maxBehindMs: number;
  /** How long a viewer may stay behind before it is cut off. */
  readonly evictAfterMs: number;
  /** Bound of what is kept for late joiners, in case key frames are rare. */
  readonly maxCatchUpBytes: number;
}

export const defaultFlvLimits: FlvLimits = {
  batchMs: 200,
  maxBehindMs: 3000,
  evictAfterMs: 12_000,
  maxCatchUpBytes: 16 * 1024 * 1024,
};

export interface FlvCounters {
  bytesSent(sizeBytes: number): void;
  skipped(): void;
  evicted(): void;
}

interface Viewer {
  readonly socket: Socket;
  /** Nothing was waiting to be written at this time. */
  drainedAtMs: number;
  isSkipping: boolean;
}

export class FlvFanOut {
  readonly #stream: Stream;
  readonly #limits: FlvLimits;
  readonly #counters: FlvCounters;
  readonly #viewers = new Set<Viewer>();
  readonly #stopListening: () => void;
  readonly #timer: NodeJS.Timeout;
  #pending: Uint8Array[] = [];
  #pendingBytes = 0;
  #pendingRandomAccessAt: number | undefined;
  /** Tags since the random access point that opened the newest segment: what a late joiner gets at once. */
  #catchUp: Uint8Array[] = [];
  #catchUpBytes = 0;
  #catchUpTimestampMs = 0;
  #offsetMs: number | undefined;

  constructor(stream: Stream, limits: FlvLimits, counters: FlvCounters) {
    this.#stream = stream;
    this.#limits = limits;
    this.#counters = counters;
    this.#stopListening = stream.listen({
      event: (event) => this.#event(event),
      reset: () => this.#endAll(),
    });
    this.#timer = setInterval(() => this.#writeBatch(performance.now()), limits.batchMs);
  }

  get viewerCount(): number {
    return this.#viewers.size;
  }

  /** True once a joiner would get a picture at once. */
  get isPlayable(): boolean {
    return this.#catchUp.length > 0;
  }

  /** Adds a viewer whose HTTP response head has been written; its socket is the fan-out's from now on. */
  add(socket: Socket, nowMs: number): void {
    this.#writeBatch(nowMs); // what is pending is in the joiner's catch-up already
    const viewer: Viewer = { socket, drainedAtMs: nowMs, isSkipping: this.#catchUp.length === 0 };
    this.#viewers.add(viewer);
    socket.on('close', () => this.#viewers.delete(viewer));
    socket.on('error', () => {}); // 'close' follows
    this.#write(viewer, concatBytes([this.#head(), ...this.#catchUp]));
  }

  close(): void {
    this.#stopListening();
    clearInterval(this.#timer);
    this.#endAll();
  }

  /** FLV header, metadata and sequence headers: what a response begins with. */
  #head(): Uint8Array {
    const { tracks } = this.#stream;
    const has = (kind: Track['kind']) => tracks.some((track) => track.kind === kind);
    return concatBytes([
      flvHeader({ video: has('video'), audio: has('audio') }),
      flvTag(metadataMessage(tracks, this.#catchUpTimestampMs)),
      ...tracks.map((track) => flvTag(sequenceHeaderMessage(track, this.#catchUpTimestampMs))),
    ]);
  }

  #event(event: StreamEvent): void {
    switch (event.type) {
      case 'timeline':
        return;
      case 'cue':
        this.#openSegment(event.cue);
        return;
      case 'track':
        // A joiner gets it in the head; whoever watches already, in mid-stream.
        if (this.#viewers.size > 0)
          this.#pend(flvTag(sequenceHeaderMessage(event.track, this.#catchUpTimestampMs)));
        return;
      case 'unit': {
        const { tracks } = this.#stream;
        const track = tracks.find((one) => one.kind === event.unit.kind);
        if (track === undefined || this.#offsetMs === undefined) return;
        const tag = unitTag(event.unit, track, this.#offsetMs);
        if (event.unit.isRandomAccess && (track.kind === 'video' || tracks.length === 1)) {
          this.#pendingRandomAccessAt ??= this.#pendingBytes;
        }
        this.#pend(tag);
        this.#keepForJoiners(tag);
        return;
      }
    }
  }

  #openSegment(cue: Cue): void {
    const startMs = Math.floor(ticksToMs(cue.startTicks, VIDEO_TIMESCALE_HZ));
    const offsetMs = Math.floor(startMs / TIMESTAMP_PERIOD_MS) * TIMESTAMP_PERIOD_MS;
    if (this.#offsetMs !== undefined && this.#offsetMs !== offsetMs) this.#endAll();
    this.#offsetMs = offsetMs;
    if (!cue.isIndependent) return;
    this.#catchUp = [];
    this.#catchUpBytes = 0;
    this.#catchUpTimestampMs = startMs - offsetMs;
  }

  #pend(tag: Uint8Array): void {
    this.#pending.push(tag);
    this.#pendingBytes += tag.length;
  }

  /** When key frames are too rare to keep all since the last, joiners wait for the next one. */
  #keepForJoiners(tag: Uint8Array): void {
    if (this.#catchUpBytes > this.#limits.maxCatchUpBytes) return;
    this.#catchUp.push(tag);
    this.#catchUpBytes += tag.length;
    if (this.#catchUpBytes > this.#limits.maxCatchUpBytes) this.#catchUp = [];
  }

  #writeBatch(nowMs: number): void {
    if (this.#pending.length === 0) return;
    const randomAccessAt = this.#pendingRandomAccessAt;
    const bytes = this.#viewers.size > 0 ? concatBytes(this.#pending) : undefined;
    this.#pending = [];
    this.#pendingBytes = 0;
    this.#pendingRandomAccessAt = undefined;
    if (bytes === undefined) return;
    for (const viewer of this.#viewers) this.#serve(viewer, bytes, randomAccessAt, nowMs);
  }

  #serve(viewer: Viewer, bytes: Uint8Array, randomAccessAt: number | undefined, nowMs: number): void {
    if (viewer.socket.writableLength === 0) viewer.drainedAtMs = nowMs;
    const behindMs = nowMs - viewer.drainedAtMs;
    if (behindMs > this.#limits.evictAfterMs) {
      this.#counters.evicted();
      viewer.socket.destroy();
      return;
    }
    if (!viewer.isSkipping && behindMs > this.#limits.maxBehindMs) {
      viewer.isSkipping = true;
      this.#counters.skipped();
    }
    if (!viewer.isSkipping) {
      this.#write(viewer, bytes);
    } else if (behindMs === 0 && randomAccessAt !== undefined) {
      viewer.isSkipping = false;
      this.#write(viewer, bytes.subarray(randomAccessAt));
    }
  }

  #write(viewer: Viewer, bytes: Uint8Array): void {
    viewer.socket.write(bytes);
    this.#counters.bytesSent(bytes.length);
  }

  #endAll(): void {
    for (const viewer of this.#viewers) viewer.socket.end();
    this.#viewers.clear();
    this.#catchUp = [];
    this.#catchUpBytes = 0;
    this.#pending = [];
    this.#pendingBytes = 0;
    this.#pendingRandomAccessAt = undefined;
  }
}
