/**
 * The ways out that have no end, for one channel:
 *
 *   GET /live/<channel>.flv        HTTP-FLV; with a WebSocket upgrade, WebSocket-FLV
 *   GET /live/<channel>.ts         MPEG-TS
 *   rtmp: play live/<channel>
 *
 * `?only=audio` on the first two leaves the picture out.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { FOUR_CC, isLegacyCodec } from '@starling/media/flv/tag';
import type { PlayerSource } from '@starling/net/rtmp-server';
import { acceptWebSocket, binaryFrame, closeCode, closeFrame, refuseUpgrade } from '@starling/net/websocket';
import type { CatchUp } from './catch-up.ts';
import { type Container, FlvContainer, RtmpContainer, TsContainer } from './containers.ts';
import { type Delivery, FanOut, type FanOutLimits } from './fan-out.ts';
import { notFound } from './hls-routes.ts';
import type { Stream } from './stream.ts';

export type EndlessProtocol = 'flv' | 'ws-flv' | 'ts' | 'rtmp';

export interface EndlessRoutesOptions {
  readonly stream: Stream;
  readonly catchUp: CatchUp;
  readonly limits: FanOutLimits;
  /** Makes the counters of a protocol. */
  counters(protocol: EndlessProtocol): Pick<Delivery, 'bytesSent' | 'skipped' | 'evicted'>;
}

const CONTENT_TYPES = { flv: 'video/x-flv', ts: 'video/mp2t' } as const;

/** A container with all tracks, and with sound alone. */
interface FanOutPair {
  readonly all: FanOut;
  readonly audio: FanOut;
}

export class EndlessRoutes {
  readonly #catchUp: CatchUp;
  readonly #flv: FanOutPair;
  readonly #ts: FanOutPair;
  readonly #rtmp: Readonly<Record<'legacy' | 'enhanced', FanOut>>;
  readonly #stream: Stream;
  readonly #deliveries: Readonly<Record<EndlessProtocol, Delivery>>;

  constructor(options: EndlessRoutesOptions) {
    const { stream, catchUp, limits, counters } = options;
    const fanOut = (newContainer: () => Container, only?: 'audio') =>
      new FanOut({ stream, catchUp, limits, newContainer, only });
    const pair = (newContainer: () => Container) => ({
      all: fanOut(newContainer),
      audio: fanOut(newContainer, 'audio'),
    });
    this.#catchUp = catchUp;
    this.#flv = pair(() => new FlvContainer());
    this.#ts = pair(() => new TsContainer());
    this.#rtmp = {
      legacy: fanOut(() => new RtmpContainer('legacy')),
      enhanced: fanOut(() => new RtmpContainer('enhanced')),
    };
    this.#stream = stream;
    this.#deliveries = {
      flv: { protocol: 'flv', ...counters('flv') },
      'ws-flv': { protocol: 'ws-flv', frame: binaryFrame, ...counters('ws-flv') },
      ts: { protocol: 'ts', ...counters('ts') },
      rtmp: { protocol: 'rtmp', ...counters('rtmp') },
    };
  }

  /** True once a viewer who joins gets something at once. */
  get isPlayable(): boolean {
    return this.#catchUp.isPlayable;
  }

  /** The number of viewers of each protocol that has any. */
  get viewerCounts(): ReadonlyMap<string, number> {
    const counts = new Map<string, number>();
    for (const fanOut of this.#fanOuts) {
      for (const [protocol, count] of fanOut.viewerCounts) {
        counts.set(protocol, (counts.get(protocol) ?? 0) + count);
      }
    }
    return counts;
  }

  /** Answers a GET or HEAD. */
  handle(container: 'flv' | 'ts', request: IncomingMessage, response: ServerResponse): void {
    const fanOut = this.#choose(container === 'flv' ? this.#flv : this.#ts, request);
    if ('status' in fanOut) {
      if (fanOut.status === 404) return notFound(response, fanOut.text, 1);
      response.writeHead(fanOut.status, { 'Content-Type': 'text/plain; charset=utf-8' });
      response.end(`${fanOut.text}\n`);
      return;
    }
    // No chunking and no keep-alive: the socket carries nothing but the container from here on, so that
    // one buffer can be written to all viewers as it is.
    response.shouldKeepAlive = false;
    response.useChunkedEncodingByDefault = false;
    response.writeHead(200, {
      'Access-Control-Allow-Origin': '*',
      'Content-Type': CONTENT_TYPES[container],
      'Cache-Control': 'no-store',
      'X-Accel-Buffering': 'no',
    });
    if (request.method === 'HEAD') {
      response.end();
      return;
    }
    response.flushHeaders();
    request.socket.setTimeout(0); // the fan-out has its own deadline
    fanOut.add({ socket: request.socket, delivery: this.#deliveries[container] }, performance.now());
  }

  /** Answers a WebSocket upgrade on the FLV address: one binary message a batch. */
  handleUpgrade(request: IncomingMessage, socket: Socket, head: Uint8Array): void {
    const fanOut = this.#choose(this.#flv, request);
    if ('status' in fanOut) {
      return refuseUpgrade(socket, fanOut.status === 404 ? '404 Not Found' : '400 Bad Request');
    }
    if (!acceptWebSocket(request, socket, head)) return;
    const farewell = () => closeFrame(closeCode.goingAway);
    fanOut.add({ socket, delivery: this.#deliveries['ws-flv'], farewell }, performance.now());
  }

  /** Serves an RTMP player; tracks in codecs that it has not said it takes are left out. */
  readonly play: PlayerSource = ({ socket, farewell, canReceive }) => {
    const takesAll = this.#stream.tracks.every(
      ({ kind, codec }) => isLegacyCodec(codec) || canReceive(kind, FOUR_CC[codec]),
    );
    const fanOut = takesAll ? this.#rtmp.enhanced : this.#rtmp.legacy;
    if (fanOut.tracks.length === 0) {
      socket.end(farewell() ?? new Uint8Array(0));
      return;
    }
    fanOut.add({ socket, farewell, delivery: this.#deliveries.rtmp }, performance.now());
  };

  close(): void {
    for (const fanOut of this.#fanOuts) fanOut.close();
  }

  get #fanOuts(): readonly FanOut[] {
    return [
      this.#flv.all,
      this.#flv.audio,
      this.#ts.all,
      this.#ts.audio,
      this.#rtmp.legacy,
      this.#rtmp.enhanced,
    ];
  }

  #choose(
    pair: FanOutPair,
    request: IncomingMessage,
  ): FanOut | { readonly status: 400 | 404; readonly text: string } {
    const query = new URLSearchParams((request.url ?? '').split('?')[1]);
    const only = query.get('only');
    if (only !== null && only !== 'audio') return { status: 400, text: 'Of only=..., only=audio is known.' };
    if (!this.isPlayable)
      return { status: 404, text: 'This channel has just started. Try again in a moment.' };
    const fanOut = only === 'audio' ? pair.audio : pair.all;
    if (fanOut.tracks.length > 0) return fanOut;
    return {
      status: 404,
      text:
        only === 'audio' ? 'This channel has no sound that fits.' : 'This channel does not fit this format.',
    };
  }
}
