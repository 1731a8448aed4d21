/**
 * One RTMP or RTMPS connection on which something is published: what the legs to our frontends and those to
 * other servers have in common. It is used once: who wants another try opens another one.
 */
import { randomBytes } from 'node:crypto';
import { connect as connectTcp, isIP, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { MediaError } from '@starling/media/error';
import type { FlvMessage } from '@starling/media/flv/tag';
import { RtmpClientSession } from '@starling/media/rtmp/session';

export interface RtmpTarget {
  readonly host: string;
  readonly port: number;
  /** Plain RTMP when undefined. */
  readonly tls: { readonly acceptsAnyCertificate: boolean } | undefined;
  readonly app: string;
  /** With its query. */
  readonly streamName: string;
  readonly tcUrl: string;
}

export interface RtmpPublishingListener {
  /** The server accepted: media may be sent. */
  onReady(): void;
  /** What was written has left the queue. */
  onDrain(): void;
  /** Enhanced RTMP: the server wants the stream on another connection; see {@link movedTarget}. */
  onReconnectRequest(tcUrl: string | undefined): void;
  /** Called once, and not after `close` or `abandon`. */
  onEnd(reason: string): void;
}

/** How long a server may take over the last bytes. */
const GOODBYE_MS = 1000;
/** What servers say to publishers is short. */
const MAX_MESSAGE_BYTES = 64 * 1024;
/** More than this waiting is much: a key frame of a good picture is less. */
const HIGH_WATER_MARK_BYTES = 256 * 1024;

export class RtmpPublishing {
  readonly #socket: Socket;
  readonly #session: RtmpClientSession;
  readonly #listener: RtmpPublishingListener;
  readonly #deadline: NodeJS.Timeout;
  readonly #drainWaiters: (() => void)[] = [];
  #isReady = false;
  #hasEnded = false;

  /** @param connectDeadlineMs until the server must have accepted */
  constructor(target: RtmpTarget, connectDeadlineMs: number, listener: RtmpPublishingListener) {
    const { host, port, tls, app, streamName, tcUrl } = target;
    this.#listener = listener;
    this.#session = new RtmpClientSession({
      mode: 'publish',
      tcUrl,
      app,
      streamName,
      handshakeRandomBytes: randomBytes(1528),
      maxMessageBytes: MAX_MESSAGE_BYTES,
    });
    this.#deadline = setTimeout(() => this.#end('no answer in time'), connectDeadlineMs);
    this.#socket =
      tls === undefined
        ? connectTcp({ host, port, ...{ writableHighWaterMark: HIGH_WATER_MARK_BYTES } })
        : connectTls({
            host,
            port,
            rejectUnauthorized: !tls.acceptsAnyCertificate,
            // An address is no server name (RFC 6066, 3).
            ...(isIP(host) === 0 ? { servername: host } : {}),
          });
    this.#socket.setNoDelay(true);
    this.#socket.on(tls === undefined ? 'connect' : 'secureConnect', () => this.#flush());
    this.#socket.on('data', (bytes) => this.#receive(bytes));
    this.#socket.on('drain', () => {
      for (const resolve of this.#drainWaiters.splice(0)) resolve();
      listener.onDrain();
    });
    this.#socket.on('error', (error) => this.#end(reasonOf(error)));
    this.#socket.on('close', () => this.#end('the server closed the connection'));
  }

  get isReady(): boolean {
    return this.#isReady;
  }

  /** What was written waits; `onDrain` follows. */
  get isFull(): boolean {
    return this.#socket.writableNeedDrain;
  }

  /** What waits in this process. */
  get queuedBytes(): number {
    return this.#socket.writableLength;
  }

  /** What the system has taken over to send. */
  get takenBytes(): number {
    return Math.max(0, this.#socket.bytesWritten - this.#socket.writableLength);
  }

  /** True where {@link sendChunks} may be used. */
  get takesSharedChunks(): boolean {
    return this.#session.takesSharedChunks;
  }

  /** Sends what a SharedChunkWriter cut, as it is: the same bytes go to many. Not to be mixed with `send`. */
  sendChunks(chunks: Buffer): void {
    if (!this.#socket.destroyed) this.#socket.write(chunks);
  }

  /** Resolves when nothing waits, or when it has ended. */
  async whenDrained(): Promise<void> {
    if (this.#hasEnded || !this.isFull) return;
    await new Promise<void>((resolve) => {
      this.#drainWaiters.push(resolve);
    });
  }

  /** Does nothing unless the server has accepted. */
  send(messages: readonly FlvMessage[]): void {
    for (const message of messages) this.#session.sendMessage(message);
    this.#flush();
  }

  /** Says goodbye and closes; nothing is heard of it any more. Idempotent. */
  close(): void {
    if (this.#hasEnded) return;
    this.#release();
    this.#session.close();
    this.#flush();
    this.#socket.end();
    this.#socket.setTimeout(GOODBYE_MS, () => this.#socket.destroy());
    this.#socket.on('data', () => {});
  }

  /** Drops the connection and what waits for it, without a word. Idempotent. */
  abandon(): void {
    if (!this.#hasEnded) this.#release();
    this.#socket.destroy();
  }

  #receive(bytes: Uint8Array): void {
    try {
      for (const event of this.#session.receive(bytes)) {
        if (event.type === 'ready') {
          clearTimeout(this.#deadline);
          this.#isReady = true;
          this.#flush();
          this.#listener.onReady();
        } else if (event.type === 'rejected') {
          return this.#end(`refused: ${event.description || event.code}`);
        } else if (event.type === 'reconnect-request') {
          this.#listener.onReconnectRequest(event.tcUrl);
        }
        if (this.#hasEnded) return; // a listener closed it
      }
      this.#flush();
    } catch (error) {
      if (!(error instanceof MediaError)) throw error;
      this.#end(error.message);
    }
  }

  #flush(): void {
    const output = this.#session.takeOutput();
    if (output !== undefined && !this.#socket.destroyed) this.#socket.write(output);
  }

  #end(reason: string): void {
    if (this.#hasEnded) return;
    this.#release();
    this.#socket.destroy();
    this.#listener.onEnd(reason);
  }

  #release(): void {
    this.#hasEnded = true;
    this.#isReady = false;
    clearTimeout(this.#deadline);
    for (const resolve of this.#drainWaiters.splice(0)) resolve();
    this.#socket.removeAllListeners();
    this.#socket.on('error', () => {}); // one more may come after destroy
  }
}

/**
 * Where to go on when a server asked for it. A server that was spoken to over TLS cannot have the stream sent
 * without.
 *
 * Source: Enhanced RTMP v2 (2026-01-31), "Reconnect Request": `tcUrl` is a reference, absolute or relative.
 */
export function movedTarget(target: RtmpTarget, tcUrl: string | undefined): RtmpTarget {
  if (tcUrl === undefined || !URL.canParse(tcUrl, target.tcUrl)) return target;
  const url = new URL(tcUrl, target.tcUrl);
  const app = url.pathname.replace(/^\/+|\/+$/g, '');
  const isTls = url.protocol === 'rtmps:';
  if ((url.protocol !== 'rtmp:' && !isTls) || url.hostname === '' || app === '') return target;
  if (target.tls !== undefined && !isTls) return target;
  return {
    ...target,
    host: url.hostname.replace(/^\[|\]$/g, ''),
    port: url.port === '' ? (isTls ? 443 : 1935) : Number(url.port),
    tls: isTls ? (target.tls ?? { acceptsAnyCertificate: false }) : undefined,
    app,
    tcUrl: url.href,
  };
}

const REASONS: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'the connection was refused',
  ECONNRESET: 'the connection was reset',
  EPIPE: 'the connection was reset',
  EHOSTUNREACH: 'the host cannot be reached',
  ENETUNREACH: 'the network cannot be reached',
  ENOTFOUND: 'the name of the host is not known',
  EAI_AGAIN: 'the name of the host cannot be looked up now',
  ETIMEDOUT: 'the host does not answer',
};

/** In plain words. Where a name has several addresses the error has no text of its own. */
function reasonOf(error: Error): string {
  const code = 'code' in error && typeof error.code === 'string' ? error.code : '';
  const known = REASONS[code];
  if (known !== undefined) return known;
  const isCertificate = code.includes('CERT') || code.includes('VERIFY') || code.includes('SELF_SIGNED');
  return isCertificate ? `its certificate is not trusted: ${error.message}` : error.message || code;
}
