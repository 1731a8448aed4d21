/** The stream that every server under test is fed with: 4 Mb/s, each picture stamped when it is sent. */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { FlvReader } from '@starling/media/flv/demux';
import type { FlvMessage } from '@starling/media/flv/tag';
import { RtmpClientSession } from '@starling/media/rtmp/session';
import { monotonicMs } from './clock.ts';
import { stampAvcBody } from './stamp.ts';

/** A whole number of GOPs of 2 s and of AAC frames at 48 kHz, so that the loop has no seam. */
const CLIP_SECONDS = 16;
const PICTURES_PER_SECOND = 25;
const PICTURE_MS = 1000 / PICTURES_PER_SECOND;
const AUDIO_FRAME_MS = 1024 / 48;
const AUDIO_FRAMES = (CLIP_SECONDS * 48_000) / 1024;
const AUDIO_BITRATE_BPS = 128_000;

export interface Clip {
  /** Metadata and sequence headers. */
  readonly head: readonly FlvMessage[];
  /** In order of their times, which are milliseconds from the clip's start. */
  readonly units: readonly { readonly atMs: number; readonly message: FlvMessage }[];
}

/** Draws a busy picture at a constant bit rate, key frames every 2 s. */
export async function makeClip(folder: string, bitrateBps: number): Promise<Clip> {
  const path = join(folder, `clip-${bitrateBps}.flv`);
  const videoBps = bitrateBps - AUDIO_BITRATE_BPS;
  await promisify(execFile)('ffmpeg', [
    ...['-v', 'error', '-y'],
    ...['-f', 'lavfi', '-i', `testsrc2=s=1280x720:r=${PICTURES_PER_SECOND},noise=alls=20:allf=t`],
    ...['-f', 'lavfi', '-i', 'sine=r=48000', '-t', String(CLIP_SECONDS + 1)],
    ...['-c:v', 'libx264', '-preset', 'ultrafast', '-g', '50', '-keyint_min', '50', '-sc_threshold', '0'],
    ...['-b:v', String(videoBps), '-minrate', String(videoBps), '-maxrate', String(videoBps)],
    ...['-bufsize', String(videoBps / 2), '-nal-hrd', 'cbr', '-pix_fmt', 'yuv420p'],
    ...['-c:a', 'aac', '-b:a', String(AUDIO_BITRATE_BPS), '-f', 'flv', path],
  ]);
  const head: FlvMessage[] = [];
  const pictures: FlvMessage[] = [];
  const sounds: FlvMessage[] = [];
  for (const message of new FlvReader().push(readFileSync(path))) {
    if (message.kind === 'data' || message.payload[1] === 0) head.push(message);
    else if (message.kind === 'video') pictures.push(message);
    else sounds.push(message);
  }
  const at = (everyMs: number) => (message: FlvMessage, index: number) => ({
    atMs: index * everyMs,
    message,
  });
  const units = [
    ...pictures.slice(0, CLIP_SECONDS * PICTURES_PER_SECOND).map(at(PICTURE_MS)),
    ...sounds.slice(0, AUDIO_FRAMES).map(at(AUDIO_FRAME_MS)),
  ];
  return { head, units: units.sort((a, b) => a.atMs - b.atMs) };
}

/**
 * Publishes a clip over RTMP, again and again, in real time. Sound goes out with the picture that follows
 * it, as from every encoder that interleaves by time.
 */
export class Publisher {
  readonly #socket: Socket;
  readonly #session: RtmpClientSession;
  readonly #clip: Clip;
  #startedAtMs = 0;
  #sentUnits = 0;
  #sentBytes = 0;
  #timer: NodeJS.Timeout | undefined;

  private constructor(socket: Socket, session: RtmpClientSession, clip: Clip) {
    this.#socket = socket;
    this.#session = session;
    this.#clip = clip;
  }

  /**
   * Connects, and sends from then on.
   * @param url `rtmp://host:port/app/name`, with a query where the server wants one
   * @throws when the server refuses
   */
  static async start(url: string, clip: Clip): Promise<Publisher> {
    const { hostname, port, pathname, search } = new URL(url);
    const [, app = '', name = ''] = pathname.split('/');
    const socket = connect({ host: hostname, port: Number(port), noDelay: true });
    await once(socket, 'connect');
    const session = new RtmpClientSession({
      mode: 'publish',
      tcUrl: `rtmp://${hostname}:${port}/${app}`,
      app,
      streamName: name + search,
      handshakeRandomBytes: randomBytes(1528),
      maxMessageBytes: 1 << 20,
    });
    const publisher = new Publisher(socket, session, clip);
    await publisher.#handshake();
    publisher.#begin();
    return publisher;
  }

  /** Of audio and video so far. */
  get sentBytes(): number {
    return this.#sentBytes;
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#session.close();
    this.#flush();
    this.#socket.end();
  }

  #handshake(): Promise<void> {
    this.#flush();
    return new Promise((resolve, reject) => {
      this.#socket.on('error', reject);
      this.#socket.on('close', () => reject(new Error('the server closed the connection of the publisher')));
      this.#socket.on('data', (bytes) => {
        for (const event of this.#session.receive(bytes)) {
          if (event.type === 'ready') resolve();
          if (event.type === 'rejected') reject(new Error(`${event.code} ${event.description}`));
        }
        this.#flush();
      });
    });
  }

  #begin(): void {
    for (const message of this.#clip.head) this.#session.sendMessage({ ...message, timestampMs: 0 });
    this.#flush();
    this.#startedAtMs = performance.now();
    this.#sendDue();
  }

  #sendDue(): void {
    const { units } = this.#clip;
    for (;;) {
      const unit = units[this.#sentUnits % units.length];
      if (unit === undefined) return;
      const loops = Math.floor(this.#sentUnits / units.length);
      const atMs = loops * CLIP_SECONDS * 1000 + unit.atMs;
      const waitMs = this.#startedAtMs + atMs - performance.now();
      if (waitMs > 0.5 && unit.message.kind === 'video') {
        this.#timer = setTimeout(() => this.#sendDue(), waitMs);
        return;
      }
      this.#sentUnits++;
      const { kind, payload } = unit.message;
      const sent = kind === 'video' ? stampAvcBody(payload, monotonicMs()) : payload;
      this.#sentBytes += sent.length;
      this.#session.sendMessage({ kind, timestampMs: Math.round(atMs), payload: sent });
      this.#flush();
    }
  }

  #flush(): void {
    const output = this.#session.takeOutput();
    if (output !== undefined && this.#socket.writable) this.#socket.write(output);
  }
}
