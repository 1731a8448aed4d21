/**
 * Pushes a channel to one frontend over RTMP. Each leg has its own connection and its own queue: a
 * frontend that stalls or dies delays nobody. A leg whose queue overflows is cut and connects anew,
 * for then it gets whole segments again from the backlog; half a segment is worth nothing.
 */
import { randomBytes } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import { MediaError } from '@starling/media/error';
import type { FlvMessage } from '@starling/media/flv/tag';
import { RtmpClientSession } from '@starling/media/rtmp/session';
import type { Logger } from 'pino';
import type { Channel } from './channel.ts';

export interface FrontendAddress {
  readonly host: string;
  readonly port: number;
  /** What this frontend asks of those who push to it. */
  readonly publishToken: string;
}

const CONNECT_DEADLINE_MS = 3000;
/** A leg whose socket has not drained for so long is cut. */
const STALL_DEADLINE_MS = 5000;
const MAX_QUEUED_BYTES = 64 * 1024 * 1024;
const FIRST_RETRY_MS = 100;
const LAST_RETRY_MS = 1000;

export class FrontendLeg {
  readonly #channel: Channel;
  readonly #frontend: FrontendAddress;
  readonly #logger: Logger;
  #socket: Socket | undefined;
  #session: RtmpClientSession | undefined;
  #leaveChannel: (() => void) | undefined;
  #retryTimer: NodeJS.Timeout | undefined;
  #deadline: NodeJS.Timeout | undefined;
  #failures = 0;
  #isClosed = false;

  constructor(channel: Channel, frontend: FrontendAddress, logger: Logger) {
    this.#channel = channel;
    this.#frontend = frontend;
    this.#logger = logger.child({ channel: channel.name, frontend: `${frontend.host}:${frontend.port}` });
    this.#connect();
  }

  /** True once the frontend has accepted the push. */
  get isPushing(): boolean {
    return this.#leaveChannel !== undefined;
  }

  /** Says goodbye to the frontend and stops. */
  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#retryTimer);
    clearTimeout(this.#deadline);
    this.#leaveChannel?.();
    this.#leaveChannel = undefined;
    this.#session?.close();
    this.#flush();
    this.#socket?.end();
    this.#socket?.setTimeout(1000, () => this.#socket?.destroy());
  }

  #connect(): void {
    const { host, port, publishToken } = this.#frontend;
    const socket = connect({ host, port, noDelay: true });
    const session = new RtmpClientSession({
      mode: 'publish',
      tcUrl: `rtmp://${host}:${port}/live`,
      app: 'live',
      streamName: `${this.#channel.name}?token=${encodeURIComponent(publishToken)}`,
      handshakeRandomBytes: randomBytes(1528),
      maxMessageBytes: 64 * 1024,
    });
    this.#socket = socket;
    this.#session = session;
    this.#deadline = setTimeout(() => this.#fail('no answer in time'), CONNECT_DEADLINE_MS);
    socket.on('connect', () => this.#flush());
    socket.on('data', (bytes) => this.#receive(bytes));
    socket.on('error', (error) => this.#fail(error.message));
    socket.on('close', () => this.#fail('the frontend closed the connection'));
    socket.on('drain', () => this.#watchForStall(false));
  }

  #receive(bytes: Uint8Array): void {
    try {
      for (const event of this.#session?.receive(bytes) ?? []) {
        if (event.type === 'ready') this.#start();
        else if (event.type === 'rejected') return this.#fail(`refused: ${event.description}`);
      }
      this.#flush();
    } catch (error) {
      if (!(error instanceof MediaError)) throw error;
      this.#fail(error.message);
    }
  }

  #start(): void {
    clearTimeout(this.#deadline);
    this.#deadline = undefined;
    if (this.#failures > 0) this.#logger.info('pushing to the frontend again');
    this.#failures = 0;
    this.#leaveChannel = this.#channel.join((messages) => this.#send(messages));
  }

  #send(messages: readonly FlvMessage[]): void {
    for (const message of messages) this.#session?.sendMessage(message);
    this.#flush();
  }

  #flush(): void {
    const output = this.#session?.takeOutput();
    if (output === undefined || this.#socket === undefined || this.#socket.destroyed) return;
    const isDrained = this.#socket.write(output);
    if (!isDrained) this.#watchForStall(true);
    if (this.#socket.writableLength > MAX_QUEUED_BYTES) this.#fail('it does not keep up');
  }

  #watchForStall(isWaiting: boolean): void {
    if (this.#leaveChannel === undefined) return; // the connect deadline is running
    if (!isWaiting) {
      clearTimeout(this.#deadline);
      this.#deadline = undefined;
    } else {
      this.#deadline ??= setTimeout(() => this.#fail('it does not read'), STALL_DEADLINE_MS);
    }
  }

  #fail(reason: string): void {
    const socket = this.#socket;
    if (socket === undefined) return;
    this.#socket = undefined;
    this.#session = undefined;
    clearTimeout(this.#deadline);
    this.#deadline = undefined;
    this.#leaveChannel?.();
    this.#leaveChannel = undefined;
    socket.removeAllListeners();
    socket.on('error', () => {}); // one more may come after destroy
    socket.destroy();
    if (this.#isClosed) return;
    if (this.#failures === 0) this.#logger.warn({ reason }, 'push to the frontend broke off; trying again');
    const retryMs = Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** this.#failures);
    this.#failures++;
    this.#retryTimer = setTimeout(() => this.#connect(), retryMs * (0.5 + Math.random() / 2));
  }
}
