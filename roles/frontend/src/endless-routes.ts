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
import { isDefaultTrack } from '@starling/media/access-unit';
import { FOUR_CC, isLegacyCodec } from '@starling/media/flv/tag';
import type { RtmpPlayer } from '@starling/net/rtmp-server';
import { acceptWebSocket, binaryFrame, closeCode, closeFrame, refuseUpgrade } from '@starling/net/websocket';
import type { CatchUp } from './catch-up.ts';
import { type Container, FlvContainer, RtmpContainer, TsContainer } from './containers.ts';
import { type Delivery, FanOut, type FanOutLimits } from './fan-out.ts';
import { answerUnavailable, clientOf, notFound } from './hls-answers.ts';
import type { Stream } from './stream.ts';
import {
  CHANNEL_FULL_TEXT,
  type Client,
  type Viewer,
  type ViewerProtocol,
  type ViewerRegistry,
} from './viewers.ts';
import type { Pass } from './viewing-access.ts';

export type EndlessProtocol = Exclude<ViewerProtocol, 'hls'>;

export interface EndlessRoutesOptions {
  readonly stream: Stream;
  readonly catchUp: CatchUp;
  readonly viewers: ViewerRegistry;
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
  readonly #viewers: ViewerRegistry;
  readonly #deliveries: Readonly<Record<EndlessProtocol, Delivery>>;

  constructor(options: EndlessRoutesOptions) {
    const { stream, catchUp, viewers, limits, counters } = options;
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
    this.#viewers = viewers;
    this.#deliveries = {
      flv: counters('flv'),
      'ws-flv': { frame: binaryFrame, ...counters('ws-flv') },
      ts: counters('ts'),
      rtmp: counters('rtmp'),
    };
  }

  /** True once a viewer who joins gets something at once. */
  get isPlayable(): boolean {
    return this.#catchUp.isPlayable;
  }

  /**
   * Answers a GET or HEAD.
   * @param pass of a viewer of a private channel
   */
  handle(container: 'flv' | 'ts', request: IncomingMessage, response: ServerResponse, pass?: Pass): void {
    const fanOut = this.#choose(container === 'flv' ? this.#flv : this.#ts, request);
    if ('status' in fanOut) {
      if (fanOut.status === 404) return notFound(response, fanOut.text, 1);
      response.writeHead(fanOut.status, { 'Content-Type': 'text/plain; charset=utf-8' });
      response.end(`${fanOut.text}\n`);
      return;
    }
    const { socket } = request;
    const isHead = request.method === 'HEAD';
    const tally = isHead ? undefined : this.#admit(container, socket, clientOf(request, pass));
    if (!isHead && tally === undefined) return answerUnavailable(response, this.#whyFull(pass));
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
    if (tally === undefined) {
      response.end();
      return;
    }
    response.flushHeaders();
    socket.setTimeout(0); // the fan-out has its own deadline
    fanOut.add({ socket, delivery: this.#deliveries[container], tally }, performance.now());
  }

  /** Answers a WebSocket upgrade on the FLV address: one binary message a batch. */
  handleUpgrade(request: IncomingMessage, socket: Socket, head: Uint8Array, pass?: Pass): void {
    const fanOut = this.#choose(this.#flv, request);
    if ('status' in fanOut) {
      return refuseUpgrade(socket, fanOut.status === 404 ? '404 Not Found' : '400 Bad Request');
    }
    if (this.#viewers.whyFull(this.#stream.channel, pass) !== undefined) {
      return refuseUpgrade(socket, '503 Service Unavailable');
    }
    if (!acceptWebSocket(request, socket, head)) return;
    const tally = this.#admit('ws-flv', socket, clientOf(request, pass));
    if (tally === undefined) return;
    const farewell = () => closeFrame(closeCode.goingAway);
    fanOut.add({ socket, delivery: this.#deliveries['ws-flv'], tally, farewell }, performance.now());
  }

  /** Serves an RTMP player; tracks in codecs that it has not said it takes are left out. */
  play(pass: Pass | undefined, { socket, farewell, canReceive }: RtmpPlayer): void {
    const takesAll = this.#stream.tracks
      .filter(isDefaultTrack)
      .every(({ kind, codec }) => isLegacyCodec(codec) || canReceive(kind, FOUR_CC[codec]));
    const fanOut = takesAll ? this.#rtmp.enhanced : this.#rtmp.legacy;
    const client = { address: socket.remoteAddress ?? 'unknown', userAgent: undefined, pass };
    const tally = fanOut.tracks.length === 0 ? undefined : this.#admit('rtmp', socket, client);
    if (tally === undefined) {
      socket.end(farewell() ?? new Uint8Array(0));
      return;
    }
    fanOut.add({ socket, farewell, delivery: this.#deliveries.rtmp, tally }, performance.now());
  }

  close(): void {
    for (const fanOut of this.#fanOuts) fanOut.close();
  }

  /**
   * Counts a viewer in, until its socket closes.
   * @returns undefined when there is no room for it, or it has left already
   */
  #admit(protocol: EndlessProtocol, socket: Socket, client: Client): Viewer | undefined {
    if (socket.destroyed) return undefined;
    const viewer = this.#viewers.open(this.#stream.channel, protocol, client, () => socket.destroy());
    if (viewer !== undefined) socket.once('close', () => this.#viewers.close(viewer));
    return viewer;
  }

  #whyFull(pass: Pass | undefined): string {
    return this.#viewers.whyFull(this.#stream.channel, pass) ?? CHANNEL_FULL_TEXT;
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
