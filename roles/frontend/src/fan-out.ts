/**
 * One stream to many viewers at little cost: HTTP-FLV, WebSocket-FLV, MPEG-TS and RTMP play.
 *
 * Every unit is muxed once, and only while somebody watches. A few times a second what has come in is
 * joined to one batch, and that one buffer is written to every viewer's socket. A viewer whose socket
 * does not drain is skipped; when it has drained it goes on at the next random access point; when it has
 * stayed behind too long it is cut off. So what a slow viewer holds is bounded by media time, not by
 * its luck with kernel buffers.
 */
import type { Socket } from 'node:net';
import { isDefaultTrack, type StreamEvent, type Track } from '@starling/media/access-unit';
import { concatBytes } from '@starling/media/bytes';
import type { CatchUp } from './catch-up.ts';
import type { Container } from './containers.ts';
import type { Stream } from './stream.ts';

export interface FanOutLimits {
  /** How long units wait to be written together. */
  readonly batchMs: number;
  /** Media that may wait for a viewer before it is skipped. */
  readonly maxBehindMs: number;
  /** How long a viewer may stay behind before it is cut off. */
  readonly evictAfterMs: number;
}

/**
 * Fewer and larger writes cost less (docs/performance.md), and the batch is what viewers are later by. They are
 * later by at most 350 ms, of which 100 are left for a busy machine.
 */
export const defaultFanOutLimits: FanOutLimits = { batchMs: 250, maxBehindMs: 3000, evictAfterMs: 12_000 };

/** How long a response that has ended may take to drain. */
const DRAIN_DEADLINE_MS = 5000;

/** What the viewers of one protocol have in common; they share the object. */
export interface Delivery {
  /** Wraps what is written at once, where the protocol wants that; done once a batch for all its viewers. */
  readonly frame?: (bytes: Uint8Array) => Uint8Array;
  /** Called once a batch for all its viewers, and for each that joins. */
  bytesSent(sizeBytes: number): void;
  skipped(): void;
  evicted(): void;
}

export interface NewViewer {
  /** The head of the response has been written; the socket is the fan-out's from now on. */
  readonly socket: Socket;
  readonly delivery: Delivery;
  /** Where what is written to it is added up, and the age of what waits to be taken by it stands. */
  readonly tally: { sentBytes: number; latencyMs?: number | undefined };
  /** Last bytes for the viewer when the stream ends, in the words of its protocol. */
  readonly farewell?: () => Uint8Array | undefined;
}

interface Viewer extends Omit<NewViewer, 'farewell'> {
  readonly farewell: NewViewer['farewell'] | undefined;
  /** Nothing was waiting to be written at this time. */
  drainedAtMs: number;
  isSkipping: boolean;
}

export interface FanOutOptions {
  readonly stream: Stream;
  readonly catchUp: CatchUp;
  readonly newContainer: () => Container;
  /** Leave out the tracks of the other kind. */
  readonly only: Track['kind'] | undefined;
  readonly limits: FanOutLimits;
}

/** What exists while somebody watches. */
interface Running {
  readonly container: Container;
  readonly stopListening: () => void;
  readonly timer: NodeJS.Timeout;
  tracks: readonly Track[];
  pending: Uint8Array[];
  pendingBytes: number;
  pendingRandomAccessAt: number | undefined;
  /** Muxed since the cue that a late joiner begins at; emptied where nobody can begin. */
  catchUp: Uint8Array[];
  /** What a joiner gets at once, until the next event: those who join together share it. */
  greeting: Batch | undefined;
}

export class FanOut {
  readonly #options: FanOutOptions;
  readonly #viewers = new Set<Viewer>();
  #running: Running | undefined;

  constructor(options: FanOutOptions) {
    this.#options = options;
  }

  /** True while units are being muxed. */
  get isRunning(): boolean {
    return this.#running !== undefined;
  }

  /** Tracks that viewers get: of the stream's, those that the container can carry and that were asked for. */
  get tracks(): readonly Track[] {
    return this.#running?.tracks ?? this.#tracksFor(this.#options.newContainer());
  }

  add(newViewer: NewViewer, nowMs: number): void {
    const { socket, delivery, tally, farewell } = newViewer;
    if (socket.destroyed) return; // it left meanwhile
    const running = this.#running ?? this.#start();
    this.#writeBatch(nowMs); // what is pending is in the joiner's catch-up already
    const hasBegun = running.catchUp.length > 0;
    const viewer: Viewer = {
      socket,
      delivery,
      tally,
      farewell,
      drainedAtMs: nowMs,
      isSkipping: !hasBegun,
    };
    this.#viewers.add(viewer);
    socket.on('close', () => this.#remove(viewer));
    socket.on('error', () => {}); // 'close' follows
    running.greeting ??= new Batch(concatBytes([...running.container.head(), ...running.catchUp]), undefined);
    write(viewer, running.greeting.whole(delivery));
    running.greeting.countSent();
  }

  close(): void {
    this.#endAll();
  }

  #tracksFor(container: Container): readonly Track[] {
    const { stream, only } = this.#options;
    return stream.tracks.filter(
      (track) =>
        isDefaultTrack(track) && (only === undefined || track.kind === only) && container.canCarry(track),
    );
  }

  #start(): Running {
    const { stream, catchUp, newContainer, limits } = this.#options;
    const container = newContainer();
    const tracks = this.#tracksFor(container);
    container.setTracks(tracks);
    const running: Running = {
      container,
      tracks,
      stopListening: stream.listen({ event: (event) => this.#event(event), reset: () => this.#endAll() }),
      timer: setInterval(() => this.#writeBatch(performance.now()), limits.batchMs),
      pending: [],
      pendingBytes: 0,
      pendingRandomAccessAt: undefined,
      catchUp: [],
      greeting: undefined,
    };
    this.#running = running;
    for (const event of catchUp.events) this.#event(event);
    return running;
  }

  #stop(): void {
    if (this.#running === undefined) return;
    clearInterval(this.#running.timer);
    this.#running.stopListening();
    this.#running = undefined;
  }

  #remove(viewer: Viewer): void {
    this.#viewers.delete(viewer);
    if (this.#viewers.size === 0) this.#stop();
  }

  #event(event: StreamEvent): void {
    const running = this.#running;
    if (running === undefined) return;
    running.greeting = undefined;
    switch (event.type) {
      case 'timeline':
        return;
      case 'cue':
        if (!running.container.openSegment(event.cue)) return this.#endAll();
        if (event.cue.isIndependent) running.catchUp = [];
        return;
      case 'track':
        if (!isDefaultTrack(event.track)) return;
        running.tracks = this.#tracksFor(running.container);
        this.#pend(running, running.container.setTracks(running.tracks));
        return;
      case 'unit': {
        const { unit } = event;
        const track = running.tracks.find((one) => one.kind === unit.kind && one.trackId === unit.trackId);
        if (track === undefined) return;
        if (unit.isRandomAccess && (unit.kind === 'video' || running.tracks.length === 1)) {
          running.pendingRandomAccessAt ??= running.pendingBytes;
        }
        const muxed = running.container.unit(unit, track);
        this.#pend(running, muxed);
        if (this.#options.catchUp.isPlayable) running.catchUp.push(...muxed);
        else running.catchUp = [];
        return;
      }
    }
  }

  #pend(running: Running, pieces: readonly Uint8Array[]): void {
    for (const piece of pieces) {
      running.pending.push(piece);
      running.pendingBytes += piece.length;
    }
  }

  #writeBatch(nowMs: number): void {
    const running = this.#running;
    if (running === undefined || running.pending.length === 0) return;
    const { pending, pendingRandomAccessAt } = running;
    running.pending = [];
    running.pendingBytes = 0;
    running.pendingRandomAccessAt = undefined;
    if (this.#viewers.size === 0) return;
    const batch = new Batch(concatBytes(pending), pendingRandomAccessAt);
    for (const viewer of this.#viewers) this.#serve(viewer, batch, nowMs);
    batch.countSent();
  }

  #serve(viewer: Viewer, batch: Batch, nowMs: number): void {
    const { limits } = this.#options;
    if (viewer.socket.writableLength === 0) viewer.drainedAtMs = nowMs;
    const behindMs = nowMs - viewer.drainedAtMs;
    viewer.tally.latencyMs = Math.round(behindMs);
    if (behindMs > limits.evictAfterMs) {
      viewer.delivery.evicted();
      viewer.socket.destroy();
      return;
    }
    if (!viewer.isSkipping && behindMs > limits.maxBehindMs) {
      viewer.isSkipping = true;
      viewer.delivery.skipped();
    }
    if (!viewer.isSkipping) {
      write(viewer, batch.whole(viewer.delivery));
    } else if (behindMs === 0) {
      const form = batch.fromRandomAccess(viewer.delivery);
      if (form === undefined) return;
      viewer.isSkipping = false;
      write(viewer, form);
    }
  }

  #endAll(): void {
    for (const { socket, farewell } of this.#viewers) {
      const lastBytes = farewell?.();
      if (lastBytes === undefined) socket.end();
      else socket.end(lastBytes);
      socket.setTimeout(DRAIN_DEADLINE_MS, () => socket.destroy());
    }
    this.#viewers.clear();
    this.#stop();
  }
}

/** Bytes as the viewers of one delivery get them. */
interface Form {
  /** A Buffer: of any other Uint8Array each socket would make one for itself. */
  readonly bytes: Buffer;
  sentBytes: number;
}

function write({ socket, tally }: Viewer, form: Form): void {
  if (form.bytes.length === 0) return;
  socket.write(form.bytes);
  tally.sentBytes += form.bytes.length;
  form.sentBytes += form.bytes.length;
}

/** What came in since the last write, framed at most once for each delivery. */
class Batch {
  readonly #bytes: Uint8Array;
  readonly #randomAccessAt: number | undefined;
  readonly #wholes = new Map<Delivery, Form>();
  readonly #fromRandomAccess = new Map<Delivery, Form>();

  constructor(bytes: Uint8Array, randomAccessAt: number | undefined) {
    this.#bytes = bytes;
    this.#randomAccessAt = randomAccessAt;
  }

  whole(delivery: Delivery): Form {
    return formFor(delivery, this.#wholes, this.#bytes);
  }

  /** @returns undefined where a decoder can start nowhere in it */
  fromRandomAccess(delivery: Delivery): Form | undefined {
    if (this.#randomAccessAt === undefined) return undefined;
    return formFor(delivery, this.#fromRandomAccess, this.#bytes.subarray(this.#randomAccessAt));
  }

  /** Tells the deliveries what has been written since the last call. */
  countSent(): void {
    for (const forms of [this.#wholes, this.#fromRandomAccess]) {
      for (const [delivery, form] of forms) {
        delivery.bytesSent(form.sentBytes);
        form.sentBytes = 0;
      }
    }
  }
}

function formFor(delivery: Delivery, forms: Map<Delivery, Form>, bytes: Uint8Array): Form {
  const known = forms.get(delivery);
  if (known !== undefined) return known;
  const framed = delivery.frame?.(bytes) ?? bytes;
  const form = { bytes: Buffer.from(framed.buffer, framed.byteOffset, framed.byteLength), sentBytes: 0 };
  forms.set(delivery, form);
  return form;
}
