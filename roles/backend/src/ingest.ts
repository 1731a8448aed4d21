/** Live inputs: encoders publish over RTMP with a stream key, and what they send is handed on. */
import { createHash } from 'node:crypto';
import { SpanKind, trace } from '@opentelemetry/api';
import { type StreamEvent, type Track, trackIndex } from '@starling/media/access-unit';
import { FlvDemuxer } from '@starling/media/flv/demux';
import type { PublishTarget } from '@starling/media/rtmp/session';
import {
  type PlayHandler,
  type PublisherSink,
  type Refusal,
  type RtmpHandlers,
  type RtmpPeer,
  RtmpServer,
} from '@starling/net/rtmp-server';
import type { Logger } from 'pino';
import { type IngestAddress, PASSED_ON, passOn } from './passing-on.ts';

export interface LiveStream {
  readonly name: string;
  /** SHA-256 of the stream key, in hex. */
  readonly keySha256: string;
  /** The key before, which does as well until then. */
  readonly oldKey?: { readonly sha256: string; readonly untilUnixMs: number } | undefined;
}

export interface IngestOptions {
  /** The address to listen on; all of them when undefined. */
  readonly host: string | undefined;
  readonly port: number;
  /** Where encoders may publish over TLS, too. */
  readonly rtmps:
    | { readonly port: number; readonly certificate: string; readonly privateKey: string }
    | undefined;
  readonly logger: Logger;
  /** Lets players in at the address that encoders publish to; undefined where this machine serves none. */
  readonly onPlay: PlayHandler | undefined;
  /** Where the encoder of a stream is to go whose channel another backend runs; undefined where that is not known. */
  addressElsewhere(stream: string): IngestAddress | undefined;
  /** What the encoder of a stream sends, on its own clock. */
  onEvent(stream: string, event: StreamEvent): void;
  onPublishChange(stream: string, isPublishing: boolean): void;
  /** Somebody who wants to publish has no right to. */
  onRefused(): void;
}

const tracer = trace.getTracer('starling');

/** An encoder that has been silent for so long gives way to a new one with the same key. */
const GIVE_WAY_AFTER_MS = 3000;
/** Node's timers are no longer. */
const MAX_TIMER_MS = 2 ** 31 - 1;

interface Incumbent {
  readonly peer: RtmpPeer;
  /** Of the key that it came with. */
  readonly keySha256: string;
  lastMessageAtMs: number;
  readonly tracks: Map<number, Track>;
}

interface Input {
  stream: LiveStream;
  incumbent: Incumbent | undefined;
}

export class Ingest {
  readonly #options: IngestOptions;
  readonly #inputs = new Map<string, Input>();
  #elsewhere: readonly LiveStream[] = [];
  #server: RtmpServer | undefined;
  #tlsServer: RtmpServer | undefined;
  #oldKeyTimer: NodeJS.Timeout | undefined;

  private constructor(options: IngestOptions) {
    this.#options = options;
  }

  /** @throws the system's error when a port cannot be opened, or OpenSSL's when the certificate is not one */
  static async listen(options: IngestOptions): Promise<Ingest> {
    const ingest = new Ingest(options);
    const { host, port, rtmps: tls, logger, onPlay } = options;
    const handlers: RtmpHandlers = { onPublish: (target, peer) => ingest.#publish(target, peer), onPlay };
    ingest.#server = await RtmpServer.listen({ host, port, logger, handlers });
    try {
      if (tls !== undefined)
        ingest.#tlsServer = await RtmpServer.listen({ host, port: tls.port, tls, logger, handlers });
    } catch (error) {
      await ingest.close();
      throw error;
    }
    return ingest;
  }

  get port(): number {
    return this.#server?.port ?? 0;
  }

  /** Undefined without RTMPS. */
  get rtmpsPort(): number | undefined {
    return this.#tlsServer?.port;
  }

  get publishingStreams(): string[] {
    return [...this.#inputs.values()].filter((input) => input.incumbent).map((input) => input.stream.name);
  }

  /** What the encoder of a stream has announced; nothing while none publishes. */
  tracksOf(stream: string): readonly Track[] {
    return [...(this.#inputs.get(stream)?.incumbent?.tracks.values() ?? [])];
  }

  /**
   * Takes over the list of streams; an encoder whose stream is gone or whose key changed is cut off.
   * @param elsewhere those whose channels other backends run
   */
  setStreams(streams: readonly LiveStream[], elsewhere: readonly LiveStream[] = []): void {
    this.#elsewhere = elsewhere;
    const names = new Set(streams.map((stream) => stream.name));
    for (const [name, input] of this.#inputs) {
      if (names.has(name)) continue;
      input.incumbent?.peer.disconnect('the stream was removed');
      this.#inputs.delete(name);
    }
    for (const stream of streams) {
      const input = this.#inputs.get(stream.name);
      if (input === undefined) {
        this.#inputs.set(stream.name, { stream, incumbent: undefined });
      } else {
        input.stream = stream;
      }
    }
    this.#refuseOldKeys();
  }

  /** Cuts off encoders whose key is good for nothing any more, now and when the next one ends. */
  #refuseOldKeys(): void {
    clearTimeout(this.#oldKeyTimer);
    const nowMs = Date.now();
    let nextMs = Number.POSITIVE_INFINITY;
    for (const { stream, incumbent } of this.#inputs.values()) {
      if (incumbent !== undefined && !isKeyOf(stream, incumbent.keySha256, nowMs))
        incumbent.peer.disconnect('the stream key was rotated');
      const { untilUnixMs = 0 } = stream.oldKey ?? {};
      if (untilUnixMs > nowMs) nextMs = Math.min(nextMs, untilUnixMs);
    }
    if (nextMs === Number.POSITIVE_INFINITY) return;
    this.#oldKeyTimer = setTimeout(() => this.#refuseOldKeys(), Math.min(nextMs - nowMs, MAX_TIMER_MS));
    this.#oldKeyTimer.unref();
  }

  async close(): Promise<void> {
    clearTimeout(this.#oldKeyTimer);
    await Promise.all([this.#server?.close(), this.#tlsServer?.close()]);
  }

  #publish(
    target: PublishTarget,
    peer: RtmpPeer,
  ): PublisherSink | Refusal | Promise<PublisherSink | Refusal> {
    const shown = shownBy(target);
    const nowUnixMs = Date.now();
    const { keySha256 } = shown ?? { keySha256: '' };
    const isMeant = (stream: LiveStream) => shown !== undefined && isOpenedBy(stream, shown, nowUnixMs);
    const input = [...this.#inputs.values()].find(({ stream }) => isMeant(stream));
    const elsewhere = input === undefined ? this.#elsewhere.find(isMeant) : undefined;
    const address = elsewhere && this.#options.addressElsewhere(elsewhere.name);
    if (
      shown !== undefined &&
      elsewhere !== undefined &&
      address !== undefined &&
      !target.query.has(PASSED_ON)
    )
      return passOn({ stream: elsewhere.name, key: shown.key }, address, peer, this.#options.logger);
    // One answer for a wrong name and a wrong key: strangers learn nothing from it.
    if (input === undefined) {
      this.#options.onRefused();
      return { code: 'NetStream.Publish.Unauthorized', description: 'Wrong stream name or stream key.' };
    }
    const nowMs = performance.now();
    if (input.incumbent !== undefined) {
      if (nowMs - input.incumbent.lastMessageAtMs < GIVE_WAY_AFTER_MS) {
        return {
          code: 'NetStream.Publish.BadName',
          description: `Stream ${input.stream.name} is already being published.`,
        };
      }
      input.incumbent.peer.disconnect('silent; an encoder with the same key takes over');
    }
    const { name } = input.stream;
    const { logger } = this.#options;
    const incumbent: Incumbent = { peer, keySha256, lastMessageAtMs: nowMs, tracks: new Map() };
    const demuxer = new FlvDemuxer();
    input.incumbent = incumbent;
    logger.info({ stream: name, address: peer.address }, 'encoder connected');
    const span = tracer.startSpan('publish', {
      kind: SpanKind.SERVER,
      attributes: { 'starling.stream': name, 'client.address': peer.address },
    });
    this.#options.onPublishChange(name, true);
    return {
      message: (message) => {
        incumbent.lastMessageAtMs = performance.now();
        for (const event of demuxer.push(message)) {
          if (event.type === 'track') incumbent.tracks.set(trackIndex(event.track), event.track);
          this.#options.onEvent(name, event);
        }
      },
      end: () => {
        input.incumbent = undefined;
        logger.info({ stream: name, address: peer.address }, 'encoder disconnected');
        span.end();
        this.#options.onPublishChange(name, false);
      },
    };
  }
}

/** What an encoder shows of itself. */
interface Shown {
  readonly key: string;
  readonly keySha256: string;
  /** Of the stream; undefined where the key alone says which. */
  readonly name: string | undefined;
}

/**
 * The name and the key that a target has. Encoders put the key in one of three places:
 * `live` + `cam?key=K`, `live/cam` + `K`, or `live` + `K` (server and stream key in OBS).
 * @returns undefined for what is no address of a stream
 */
function shownBy({ app, streamName, query }: PublishTarget): Shown | undefined {
  const [root, nameInApp, ...rest] = app.split('/').filter((part) => part !== '');
  if (root !== 'live' || rest.length > 0) return undefined;
  const key = query.get('key') ?? streamName;
  const name = query.has('key') ? streamName : nameInApp;
  return { key, keySha256: createHash('sha256').update(key).digest('hex'), name };
}

/** The digest of a random key tells nothing about the key, so a plain comparison leaks nothing of use. */
function isOpenedBy(stream: LiveStream, { keySha256, name }: Shown, nowUnixMs: number): boolean {
  return isKeyOf(stream, keySha256, nowUnixMs) && (name === undefined || name === stream.name);
}

function isKeyOf({ keySha256, oldKey }: LiveStream, sha256: string, nowUnixMs: number): boolean {
  return keySha256 === sha256 || (oldKey?.sha256 === sha256 && oldKey.untilUnixMs > nowUnixMs);
}
