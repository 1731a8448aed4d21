/**
 * Pushes a channel to one frontend over RTMP. Each leg has its own connection and its own queue: a
 * frontend that stalls or dies delays nobody. A leg whose queue overflows is cut and connects anew,
 * for then it gets whole segments again from the backlog; half a segment is worth nothing.
 */
import { type Span, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api';
import { openSecret, type Secret } from '@starling/model/secret';
import type { Channel } from '@starling/net/channel';
import type { Logger } from 'pino';
import { movedTarget, RtmpPublishing, type RtmpTarget } from './rtmp-publishing.ts';

export type FrontendAddress = {
  readonly host: string;
  readonly port: number;
} & (
  | {
      /** What this frontend asks of those who push to it. */
      readonly publishToken: Secret;
    }
  | {
      /** Of a node of the network: it asks for a proof of who pushes. */
      readonly nodeId: string;
    }
);

/** Makes the proof for a frontend of the network. A promise is not to be rejected. */
export type ProvePush = (frontendNodeId: string) => Promise<string>;

const tracer = trace.getTracer('starling');

const CONNECT_DEADLINE_MS = 3000;
/** A leg whose socket has not drained for so long is cut. */
const STALL_DEADLINE_MS = 5000;
const MAX_QUEUED_BYTES = 64 * 1024 * 1024;
const FIRST_RETRY_MS = 100;
/** A frontend that is back is to have the stream within a second. */
const LAST_RETRY_MS = 500;
/** A frontend that sends its publishers away sooner is taken for a broken one. */
const MIN_STAY_MS = 1000;
/** A frontend that restarts is back sooner. */
const LOST_AFTER_MS = 3000;

export class FrontendLeg {
  readonly #channel: Channel;
  readonly #target: RtmpTarget;
  readonly #streamName: () => string | Promise<string>;
  readonly #logger: Logger;
  #publishing: RtmpPublishing | undefined;
  #leaveChannel: (() => void) | undefined;
  #retryTimer: NodeJS.Timeout | undefined;
  #stallTimer: NodeJS.Timeout | undefined;
  #failures = 0;
  /** Of the connection. */
  #span: Span | undefined;
  #isClosed = false;
  /** The last time that it took anything, or the leg's beginning. */
  #pushedAtMs = performance.now();

  constructor(channel: Channel, frontend: FrontendAddress, prove: ProvePush, logger: Logger) {
    const { host, port } = frontend;
    this.#channel = channel;
    if ('publishToken' in frontend) {
      const secret = openSecret(frontend.publishToken);
      this.#streamName = () => `${channel.name}?token=${encodeURIComponent(secret.current())}`;
    } else {
      this.#streamName = () => prove(frontend.nodeId).then((proof) => `${channel.name}?proof=${proof}`);
    }
    this.#target = {
      host,
      port,
      tls: undefined,
      app: 'live',
      streamName: channel.name,
      tcUrl: `rtmp://${host.includes(':') ? `[${host}]` : host}:${port}/live`,
    };
    this.#logger = logger.child({ channel: channel.name, frontend: `${host}:${port}` });
    this.#open(this.#target);
  }

  /** True once the frontend has accepted the push. */
  get isPushing(): boolean {
    return this.#leaveChannel !== undefined;
  }

  /** The frontend has taken nothing for seconds: it is gone, or hangs. */
  get isLost(): boolean {
    return !this.isPushing && performance.now() - this.#pushedAtMs > LOST_AFTER_MS;
  }

  /** Says goodbye to the frontend and stops. */
  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#retryTimer);
    this.#leave();
    this.#span?.end();
    this.#publishing?.close();
  }

  #open(target: RtmpTarget): void {
    const streamName = this.#streamName();
    if (typeof streamName === 'string') return this.#connect({ ...target, streamName });
    void streamName.then((signed) => {
      if (!this.#isClosed) this.#connect({ ...target, streamName: signed });
    });
  }

  #connect(target: RtmpTarget): void {
    let readyAtMs = 0;
    this.#span?.end(); // of the one that this takes over from
    this.#span = tracer.startSpan('push', {
      kind: SpanKind.CLIENT,
      attributes: {
        'starling.channel': this.#channel.name,
        'server.address': target.host,
        'server.port': target.port,
      },
    });
    const publishing = new RtmpPublishing(target, CONNECT_DEADLINE_MS, {
      onReady: () => {
        readyAtMs = performance.now();
        this.#span?.addEvent('accepted');
        if (this.#failures > 0) this.#logger.info('pushing to the frontend again');
        this.#failures = 0;
        if (!publishing.takesSharedChunks) return this.#fail('it is no frontend of ours');
        this.#leaveChannel = this.#channel.join({
          get isDrained() {
            return publishing.queuedBytes === 0;
          },
          send: (chunks) => this.#send(publishing, chunks),
          whenDrained: () => publishing.whenDrained(),
          overtaken: () => this.#fail('it does not keep up'),
        });
      },
      onDrain: () => this.#stopStallTimer(),
      onReconnectRequest: (tcUrl) => {
        if (performance.now() - readyAtMs < MIN_STAY_MS) return this.#fail('it sends us away at once');
        this.#logger.info('the frontend asks for another connection');
        // The backlog makes up for what the change takes; the frontend drops what it has already.
        this.#leave();
        publishing.close();
        this.#open(movedTarget(target, tcUrl));
      },
      onEnd: (reason) => this.#fail(reason),
    });
    this.#publishing = publishing;
  }

  #send(publishing: RtmpPublishing, chunks: Buffer): void {
    publishing.sendChunks(chunks);
    if (publishing.queuedBytes > MAX_QUEUED_BYTES) this.#fail('it does not keep up');
    else if (publishing.isFull) {
      this.#stallTimer ??= setTimeout(() => this.#fail('it does not read'), STALL_DEADLINE_MS);
    }
  }

  #stopStallTimer(): void {
    clearTimeout(this.#stallTimer);
    this.#stallTimer = undefined;
  }

  #leave(): void {
    this.#stopStallTimer();
    if (this.isPushing) this.#pushedAtMs = performance.now();
    this.#leaveChannel?.();
    this.#leaveChannel = undefined;
  }

  #fail(reason: string): void {
    this.#leave();
    this.#span?.setStatus({ code: SpanStatusCode.ERROR, message: reason }).end();
    this.#span = undefined;
    this.#publishing?.abandon();
    if (this.#failures === 0) this.#logger.warn({ reason }, 'push to the frontend broke off; trying again');
    const retryMs = Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** this.#failures);
    this.#failures++;
    this.#retryTimer = setTimeout(() => this.#open(this.#target), retryMs * (0.5 + Math.random() / 2));
  }
}
