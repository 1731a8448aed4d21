/** Viewers that read, note what is missing and when, and discard: hundreds fit into one process. */
import { once } from 'node:events';
import { Agent, get, type IncomingMessage } from 'node:http';
import { get as getOverTls, Agent as TlsAgent } from 'node:https';
import { connect, isIP, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';

/** What the viewers of one kind went through. */
export interface LightViewer {
  /** Local ports of its connections that are open now. */
  readonly ports: readonly number[];
  /** Times that a connection broke and was replaced. */
  readonly brokenCount: number;
  /** The longest wait for media, in milliseconds; see the class. */
  longestStallMs(): number;
  /** Forgets the waits so far. */
  forgetStalls(): void;
  /** What is missing in what it got, in words. */
  readonly missing: readonly string[];
  /** How far it has come, in milliseconds of media. */
  readonly positionMs: number;
  leave(): void;
}

/** FLV tags without their payloads, from bytes cut anywhere (Adobe Flash Video File Format 10.1, annex E). */
class TagReader {
  readonly #onTag: (type: number, timestampMs: number, start: Buffer) => void;
  #pending: Buffer = Buffer.alloc(0);
  #skipBytes = 9 + 4; // file header, size of no previous tag

  constructor(onTag: (type: number, timestampMs: number, start: Buffer) => void) {
    this.#onTag = onTag;
  }

  push(bytes: Buffer): void {
    let rest = this.#pending.length === 0 ? bytes : Buffer.concat([this.#pending, bytes]);
    for (;;) {
      const skipped = Math.min(this.#skipBytes, rest.length);
      this.#skipBytes -= skipped;
      rest = rest.subarray(skipped);
      if (rest.length < 13) break; // header, and two bytes that say whether it is a sequence header
      const sizeBytes = rest.readUIntBE(1, 3);
      const timestampMs = rest.readUIntBE(4, 3) + rest.readUInt8(7) * 2 ** 24;
      this.#onTag(rest.readUInt8(0) & 0x1f, timestampMs, rest.subarray(11, 13));
      this.#skipBytes = 11 + sizeBytes + 4;
    }
    this.#pending = Buffer.from(rest);
  }
}

/** After what nobody answered, or only a server's excuse. */
const RETRY_MS = 100;

const TAG_KINDS = new Map([
  [8, { kind: 'audio', maxStepMs: 22 }], // 1024 samples at 48 kHz, in whole milliseconds
  [9, { kind: 'video', maxStepMs: 40 }], // 25 Hz
]);

/** HTTP-FLV on a socket. A stall is a time without a byte, from the loss of the connection on, too. */
export class FlvViewer implements LightViewer {
  readonly missing: string[] = [];
  brokenCount = 0;
  positionMs = 0;
  readonly #site: URL;
  readonly #path: string;
  #socket: Socket | undefined;
  #lastDataAtMs = performance.now();
  #longestMs = 0;
  #hasLeft = false;

  constructor(site: string, path: string) {
    this.#site = new URL(site);
    this.#path = path;
    this.#connect();
  }

  get ports(): readonly number[] {
    return this.#socket?.localPort === undefined ? [] : [this.#socket.localPort];
  }

  longestStallMs(): number {
    return Math.max(this.#longestMs, performance.now() - this.#lastDataAtMs);
  }

  forgetStalls(): void {
    this.#longestMs = 0;
    this.#lastDataAtMs = performance.now();
  }

  leave(): void {
    this.#hasLeft = true;
    this.#socket?.destroy();
  }

  #connect(): void {
    const { hostname, port, protocol } = this.#site;
    const address = { host: isIP(hostname) === 0 ? '127.0.0.1' : hostname, port: Number(port) };
    // HTTP/1.0: what a proxy in between passes on comes as it is, not in chunks.
    const [socket, version] =
      protocol === 'https:'
        ? [connectTls({ ...address, servername: hostname, rejectUnauthorized: false }), '1.0']
        : [connect(address), '1.1'];
    this.#socket = socket;
    socket.write(`GET ${this.#path} HTTP/${version}\r\nHost: ${hostname}\r\n\r\n`);
    const last = new Map<string, number>();
    const reader = new TagReader((type, timestampMs, start) => {
      const track = TAG_KINDS.get(type);
      if (track === undefined || start[1] === 0) return; // a script, or a sequence header
      const { kind, maxStepMs } = track;
      const before = last.get(kind);
      if (before !== undefined && (timestampMs <= before || timestampMs > before + maxStepMs)) {
        this.missing.push(`${kind}: ${timestampMs} ms came after ${before} ms`);
      }
      last.set(kind, timestampMs);
      this.positionMs = timestampMs;
    });
    let head = '';
    socket.on('data', (bytes: Buffer) => {
      const nowMs = performance.now();
      this.#longestMs = Math.max(this.#longestMs, nowMs - this.#lastDataAtMs);
      this.#lastDataAtMs = nowMs;
      if (head.endsWith('\r\n\r\n')) return reader.push(bytes);
      const text = head + bytes.toString('latin1');
      const end = text.indexOf('\r\n\r\n');
      head = end < 0 ? text : text.slice(0, end + 4);
      if (end < 0) return;
      if (!head.startsWith('HTTP/1.1 200')) return void socket.destroy();
      reader.push(Buffer.from(text.slice(end + 4), 'latin1'));
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      if (this.#hasLeft) return;
      this.brokenCount++;
      // At once where the stream broke off; a server that does not even answer is left a moment.
      setTimeout(() => this.#connect(), head === '' ? RETRY_MS : 0);
    });
  }
}

/** What it takes one after the other: segments, or parts of them. */
interface Piece {
  readonly durationMs: number;
  /** Media sequence number, and index of the part in it. */
  readonly number: number;
  readonly part: number;
  readonly isIndependent: boolean;
}

/**
 * HLS on connections that are kept: plain, three segments behind, or low-latency, by parts and blocking reloads. A stall is
 * a time in which it had nothing left to play. A request that fails is sent again at once, as players do; one that
 * a server cannot answer now (5xx), a moment later.
 */
export class HlsViewer implements LightViewer {
  readonly missing: string[] = [];
  brokenCount = 0;
  readonly #site: string;
  readonly #folder: string;
  readonly #agent: Agent;
  readonly #isLowLatency: boolean;
  /** The segment or part that is next. */
  #next: Pick<Piece, 'number' | 'part'> | undefined;
  #playingSinceMs: number | undefined;
  #bufferedMs = 0;
  #longestMs = 0;
  #stalledSinceMs: number | undefined;
  #hasLeft = false;
  readonly #sockets = new Set<Socket>();

  constructor(site: string, channel: string, isLowLatency = false) {
    const options = { keepAlive: true, maxSockets: 2 };
    this.#site = site;
    this.#isLowLatency = isLowLatency;
    this.#agent = site.startsWith('https:')
      ? new TlsAgent({ ...options, rejectUnauthorized: false })
      : new Agent(options);
    this.#folder = `/live/${channel}/`;
    void this.#play();
  }

  get ports(): readonly number[] {
    return [...this.#sockets].flatMap(({ localPort }) => localPort ?? []);
  }

  get positionMs(): number {
    return this.#bufferedMs;
  }

  longestStallMs(): number {
    this.#lookAtBuffer();
    return this.#longestMs;
  }

  forgetStalls(): void {
    this.#longestMs = 0;
  }

  leave(): void {
    this.#hasLeft = true;
    this.#agent.destroy();
  }

  async #play(): Promise<void> {
    const multivariant = String(await this.#get(`${this.#folder}index.m3u8`));
    const media = `${this.#folder}${/^main\/index\.m3u8.*$/m.exec(multivariant)?.[0]}`;
    while (!this.#hasLeft) {
      const next = this.#next;
      const blocking =
        this.#isLowLatency && next !== undefined ? `&_HLS_msn=${next.number}&_HLS_part=${next.part}` : '';
      const playlist = String(await this.#get(`${media}${blocking}`));
      const pieces = this.#isLowLatency ? partsIn(playlist) : segmentsIn(playlist);
      this.#next ??= this.#isLowLatency
        ? pieces.findLast(({ isIndependent }) => isIndependent)
        : pieces.at(-3);
      for (const piece of pieces) {
        if (this.#next === undefined || isBefore(piece, this.#next) || this.#hasLeft) continue;
        await this.#take(piece, this.#next);
      }
      this.#lookAtBuffer();
      const waitMs = this.#isLowLatency ? 0 : 500 + Math.random() * 500;
      await new Promise((wake) => setTimeout(wake, waitMs));
    }
  }

  async #take(piece: Piece, expected: Pick<Piece, 'number' | 'part'>): Promise<void> {
    const { number, part, durationMs } = piece;
    const isNextSegment = number === expected.number + 1 && part === 0;
    const isNext = number === expected.number && part === expected.part;
    // How many parts a segment has is known only when the next one begins.
    if (!isNext && !(this.#isLowLatency && isNextSegment)) {
      this.missing.push(`${number}.${part} came where ${expected.number}.${expected.part} was next`);
    }
    const file = this.#isLowLatency ? `${number}.${part}.m4s` : `${number}.m4s`;
    await this.#get(`${this.#folder}main/${file}`);
    this.#lookAtBuffer();
    this.#next = this.#isLowLatency ? { number, part: part + 1 } : { number: number + 1, part: 0 };
    this.#bufferedMs += durationMs;
    this.#playingSinceMs ??= performance.now();
    this.#stalledSinceMs = undefined;
  }

  /** Notes how long there has been nothing to play; after a stall it plays on where it stood. */
  #lookAtBuffer(): void {
    if (this.#playingSinceMs === undefined) return;
    const nowMs = performance.now();
    const emptySinceMs = this.#playingSinceMs + this.#bufferedMs;
    if (nowMs <= emptySinceMs) return;
    this.#stalledSinceMs ??= emptySinceMs;
    this.#longestMs = Math.max(this.#longestMs, nowMs - this.#stalledSinceMs);
    this.#playingSinceMs = nowMs - this.#bufferedMs;
  }

  async #get(path: string): Promise<Buffer> {
    for (;;) {
      try {
        return await this.#tryToGet(path);
      } catch (error) {
        if (this.#hasLeft) return Buffer.alloc(0);
        if (error instanceof HttpStatusError && error.status < 500) {
          this.missing.push(error.message);
          return Buffer.alloc(0);
        }
        this.brokenCount++;
        await new Promise((wake) => setTimeout(wake, error instanceof HttpStatusError ? RETRY_MS : 10));
      }
    }
  }

  async #tryToGet(path: string): Promise<Buffer> {
    const request = (this.#agent instanceof TlsAgent ? getOverTls : get)(`${this.#site}${path}`, {
      agent: this.#agent,
    });
    request.on('socket', (socket) => {
      if (this.#sockets.has(socket)) return;
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
    });
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    const chunks: Buffer[] = [];
    for await (const chunk of response) chunks.push(chunk as Buffer);
    if (response.statusCode !== 200) {
      throw new HttpStatusError(response.statusCode ?? 0, `${path} was answered ${response.statusCode}`);
    }
    return Buffer.concat(chunks);
  }
}

class HttpStatusError extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

function segmentsIn(playlist: string): Piece[] {
  return Array.from(
    playlist.matchAll(/^#EXTINF:([\d.]+),.*\n(?:#.*\n)*?(\d+)\.m4s$/gm),
    ([, seconds, number]) => ({
      ...{ durationMs: Number(seconds) * 1000, number: Number(number), part: 0, isIndependent: true },
    }),
  );
}

function partsIn(playlist: string): Piece[] {
  return Array.from(playlist.matchAll(/^#EXT-X-PART:(.*)$/gm), ([, attributes = '']) => {
    const [, number, part] = /URI="(\d+)\.(\d+)\.m4s"/.exec(attributes) ?? [];
    return {
      durationMs: Number(/DURATION=([\d.]+)/.exec(attributes)?.[1]) * 1000,
      ...{ number: Number(number), part: Number(part) },
      isIndependent: attributes.includes('INDEPENDENT=YES'),
    };
  });
}

function isBefore(one: Pick<Piece, 'number' | 'part'>, other: Pick<Piece, 'number' | 'part'>): boolean {
  return one.number < other.number || (one.number === other.number && one.part < other.part);
}
