/**
 * Live inputs: encoders publish over RTMP with a stream key; each stream is put on its channel's
 * timeline and handed on.
 */
import { createHash } from 'node:crypto';
import type { StreamEvent } from '@starling/media/access-unit';
import { FlvDemuxer } from '@starling/media/flv/demux';
import { IngestGrid } from '@starling/media/ingest-grid';
import type { PublishTarget } from '@starling/media/rtmp/session';
import {
  type PlayHandler,
  type PublisherSink,
  type Refusal,
  type RtmpPeer,
  RtmpServer,
} from '@starling/net/rtmp-server';
import type { Logger } from 'pino';
import type { WallClock } from './clock.ts';

export interface LiveStream {
  readonly name: string;
  /** SHA-256 of the stream key, in hex. */
  readonly keySha256: string;
  readonly epochUnixMs: number;
}

export interface IngestOptions {
  /** The address to listen on; all of them when undefined. */
  readonly host: string | undefined;
  readonly port: number;
  readonly clock: WallClock;
  readonly logger: Logger;
  /** Lets players in at the address that encoders publish to; undefined where this machine serves none. */
  readonly onPlay: PlayHandler | undefined;
  /** Events of a live stream, on its channel's timeline. */
  onEvents(stream: string, events: readonly StreamEvent[]): void;
  onPublishChange(stream: string, isPublishing: boolean): void;
}

/** An encoder that has been silent for so long gives way to a new one with the same key. */
const GIVE_WAY_AFTER_MS = 3000;

interface Input {
  stream: LiveStream;
  readonly grid: IngestGrid;
  incumbent: { readonly peer: RtmpPeer; lastMessageAtMs: number } | undefined;
}

export class Ingest {
  readonly #options: IngestOptions;
  readonly #inputs = new Map<string, Input>();
  #server: RtmpServer | undefined;

  private constructor(options: IngestOptions) {
    this.#options = options;
  }

  /** @throws the system's error when the port cannot be opened */
  static async listen(options: IngestOptions): Promise<Ingest> {
    const ingest = new Ingest(options);
    ingest.#server = await RtmpServer.listen({
      host: options.host,
      port: options.port,
      logger: options.logger,
      handlers: { onPublish: (target, peer) => ingest.#publish(target, peer), onPlay: options.onPlay },
    });
    return ingest;
  }

  get port(): number {
    return this.#server?.port ?? 0;
  }

  get publishingStreams(): string[] {
    return [...this.#inputs.values()].filter((input) => input.incumbent).map((input) => input.stream.name);
  }

  /** Takes over the list of streams; an encoder whose stream is gone or whose key changed is cut off. */
  setStreams(streams: readonly LiveStream[]): void {
    const names = new Set(streams.map((stream) => stream.name));
    for (const [name, input] of this.#inputs) {
      if (names.has(name)) continue;
      input.incumbent?.peer.disconnect('the stream was removed');
      this.#inputs.delete(name);
    }
    for (const stream of streams) {
      const input = this.#inputs.get(stream.name);
      if (input === undefined || input.stream.epochUnixMs !== stream.epochUnixMs) {
        input?.incumbent?.peer.disconnect('the stream was made anew');
        const grid = new IngestGrid({ epochUnixMs: stream.epochUnixMs, programmeId: `live-${stream.name}` });
        this.#inputs.set(stream.name, { stream, grid, incumbent: undefined });
      } else {
        if (input.stream.keySha256 !== stream.keySha256)
          input.incumbent?.peer.disconnect('the stream key was rotated');
        input.stream = stream;
      }
    }
  }

  async close(): Promise<void> {
    await this.#server?.close();
  }

  #publish(target: PublishTarget, peer: RtmpPeer): PublisherSink | Refusal {
    const input = this.#authorise(target);
    // One answer for a wrong name and a wrong key: strangers learn nothing from it.
    if (input === undefined) {
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
    const { logger, clock } = this.#options;
    const incumbent = { peer, lastMessageAtMs: nowMs };
    const demuxer = new FlvDemuxer();
    input.incumbent = incumbent;
    logger.info({ stream: name, address: peer.address }, 'encoder connected');
    this.#options.onPublishChange(name, true);
    return {
      message: (message) => {
        incumbent.lastMessageAtMs = performance.now();
        for (const event of demuxer.push(message)) {
          this.#options.onEvents(name, input.grid.push(event, clock.nowUnixMs()));
        }
      },
      end: () => {
        input.incumbent = undefined;
        this.#options.onEvents(name, input.grid.endOfPublisher());
        logger.info({ stream: name, address: peer.address }, 'encoder disconnected');
        this.#options.onPublishChange(name, false);
      },
    };
  }

  /**
   * The stream that a target may publish to. Encoders put the key in one of three places:
   * `live` + `cam?key=K`, `live/cam` + `K`, or `live` + `K` (server and stream key in OBS).
   */
  #authorise({ app, streamName, query }: PublishTarget): Input | undefined {
    const [root, nameInApp, ...rest] = app.split('/').filter((part) => part !== '');
    if (root !== 'live' || rest.length > 0) return undefined;
    const key = query.get('key') ?? streamName;
    const name = query.has('key') ? streamName : nameInApp;
    const keySha256 = createHash('sha256').update(key).digest('hex');
    // The digest of a random key tells nothing about the key, so a plain comparison leaks nothing of use.
    return [...this.#inputs.values()].find(
      ({ stream }) => stream.keySha256 === keySha256 && (name === undefined || name === stream.name),
    );
  }
}
