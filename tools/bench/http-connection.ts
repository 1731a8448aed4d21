/** A light HTTP/1.1 client for crowds: one connection kept alive, one request at a time. */
import { connect, type Socket } from 'node:net';
import { monotonicMs } from './clock.ts';

const HEAD_END = Buffer.from('\r\n\r\n');
/** All sockets of the process read into it, one after another; whoever needs bytes longer copies them. */
const readBuffer = Buffer.alloc(256 * 1024);

/**
 * Opens a socket that hands out what it reads without a buffer of its own.
 * @param onBytes gets bytes that are overwritten by the next read
 */
export function lightSocket(port: number, onBytes: (bytes: Buffer) => void): Socket {
  return connect({
    host: '127.0.0.1',
    port,
    noDelay: true,
    onread: {
      buffer: readBuffer,
      callback(sizeBytes) {
        onBytes(readBuffer.subarray(0, sizeBytes));
        return true;
      },
    },
  });
}

export interface HttpAnswer {
  readonly status: number;
  /** Empty where the request did not want it. */
  readonly body: Buffer;
  readonly bodySizeBytes: number;
  /** On the monotonic clock, in milliseconds, when its last byte was read. */
  readonly endedAtMs: number;
}

interface Pending {
  readonly keepsBody: boolean;
  resolve(answer: HttpAnswer): void;
  reject(error: Error): void;
}

export class HttpConnection {
  readonly #socket: Socket;
  #pending: Pending | undefined;
  #head = Buffer.alloc(0);
  #status = 0;
  #bodySizeBytes: number | undefined;
  #bodyBytesRead = 0;
  #pieces: Buffer[] = [];

  constructor(port: number) {
    this.#socket = lightSocket(port, (bytes) => this.#receive(bytes));
    this.#socket.on('error', () => {}); // 'close' follows
    this.#socket.on('close', () => this.#pending?.reject(new Error('the server closed the connection')));
  }

  /** @throws when the connection closes before the answer is whole */
  get(path: string, options: { keepsBody?: boolean; headers?: string } = {}): Promise<HttpAnswer> {
    const { keepsBody = false, headers = '' } = options;
    return new Promise((resolve, reject) => {
      if (this.#socket.destroyed) return reject(new Error('the connection is closed'));
      this.#pending = { keepsBody, resolve, reject };
      this.#socket.write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\n${headers}\r\n`);
    });
  }

  close(): void {
    this.#pending = undefined;
    this.#socket.destroy();
  }

  #receive(bytes: Buffer): void {
    let body = bytes;
    if (this.#bodySizeBytes === undefined) {
      const head = this.#head.length === 0 ? bytes : Buffer.concat([this.#head, bytes]);
      const endAt = head.indexOf(HEAD_END);
      if (endAt < 0) {
        this.#head = Buffer.from(head);
        return;
      }
      this.#head = Buffer.alloc(0);
      const text = head.toString('latin1', 0, endAt);
      this.#status = Number(text.slice(9, 12));
      this.#bodySizeBytes = Number(/^content-length: *(\d+)/im.exec(text)?.[1] ?? 0);
      this.#bodyBytesRead = 0;
      body = head.subarray(endAt + HEAD_END.length);
    }
    this.#bodyBytesRead += body.length;
    if (this.#pending?.keepsBody && body.length > 0) this.#pieces.push(Buffer.from(body));
    if (this.#bodyBytesRead < this.#bodySizeBytes) return;
    const answer = {
      status: this.#status,
      body: Buffer.concat(this.#pieces),
      bodySizeBytes: this.#bodySizeBytes,
      endedAtMs: monotonicMs(),
    };
    this.#bodySizeBytes = undefined;
    this.#pieces = [];
    const pending = this.#pending;
    this.#pending = undefined;
    pending?.resolve(answer);
  }
}
