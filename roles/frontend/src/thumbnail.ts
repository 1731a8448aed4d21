/**
 * A channel's picture as a JPEG: `GET /live/<channel>/thumbnail.jpg`. FFmpeg decodes one random access
 * point when somebody asks; the answer serves everybody for a few seconds. While nobody asks, nothing runs.
 */
import { spawn } from 'node:child_process';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { type AccessUnit, isDefaultTrack, type Track } from '@starling/media/access-unit';
import { concatBytes } from '@starling/media/bytes';
import { fragment } from '@starling/media/fmp4/fragment';
import { initSegment } from '@starling/media/fmp4/init-segment';
import type { Logger } from 'pino';
import type { CatchUp } from './catch-up.ts';
import { notFound } from './hls-answers.ts';
import type { Stream } from './stream.ts';

const LIFETIME_MS = 5000;
const DEADLINE_MS = 5000;
const MAX_WIDTH_PX = 640;
const MAX_JPEG_BYTES = 4 * 1024 * 1024;
const MAX_STDERR_CHARS = 2000;
const MAX_CONCURRENT_RUNS = 2;

/** A picture; or why there is none: a sentence for whoever asked, and what the log needs beside it. */
type Drawn = { readonly jpeg: Buffer } | { readonly trouble: string; readonly detail: string };

/** Runs FFmpeg for all channels of a frontend, a few at a time. */
export class PictureDrawer {
  readonly #program: string;
  #freeRuns = MAX_CONCURRENT_RUNS;
  readonly #waiting: (() => void)[] = [];

  /** @param program FFmpeg's path, or a name to be found in PATH */
  constructor(program = 'ffmpeg') {
    this.#program = program;
  }

  /** Decodes one picture at which a decoder can start. Never rejects. */
  async draw(picture: AccessUnit, track: Track): Promise<Drawn> {
    if (this.#freeRuns > 0) this.#freeRuns--;
    else await new Promise<void>((go) => this.#waiting.push(go));
    try {
      const units = [picture];
      const part = { sequenceNumber: 1, tracks: [{ track, units, endTicks: picture.dtsTicks + 1 }] };
      return await this.#run(concatBytes([initSegment([track]), fragment(part)]));
    } catch (error) {
      return { trouble: 'FFmpeg could not draw it.', detail: String(error) };
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#freeRuns++;
      else next();
    }
  }

  #run(fmp4: Uint8Array): Promise<Drawn> {
    // Pixels need not be square: the width is that of the display.
    const scale = `scale=w=trunc(min(${MAX_WIDTH_PX}\\,iw*sar)/2)*2:h=trunc(ow/dar/2)*2,setsar=1`;
    const args = `-v error -threads 1 -f mp4 -i pipe:0 -frames:v 1 -vf ${scale} -pix_fmt yuvj420p -q:v 4 -f mjpeg pipe:1`;
    return new Promise((resolve) => {
      const child = spawn(this.#program, args.split(' '), { stdio: 'pipe' });
      const deadline = setTimeout(() => child.kill('SIGKILL'), DEADLINE_MS);
      const chunks: Buffer[] = [];
      let jpegBytes = 0;
      let stderr = '';
      child.stdout.on('data', (chunk: Buffer) => {
        chunks.push(chunk);
        jpegBytes += chunk.length;
        if (jpegBytes > MAX_JPEG_BYTES) child.kill('SIGKILL');
      });
      child.stderr.setEncoding('utf8').on('data', (text: string) => {
        stderr = (stderr + text).slice(0, MAX_STDERR_CHARS);
      });
      child.once('error', (error: NodeJS.ErrnoException) => {
        clearTimeout(deadline);
        const trouble =
          error.code === 'ENOENT'
            ? 'FFmpeg, which draws it, is not installed on this frontend.'
            : 'FFmpeg, which draws it, cannot be started on this frontend.';
        resolve({ trouble, detail: error.message });
      });
      child.once('close', (exitCode, signal) => {
        clearTimeout(deadline);
        if (exitCode === 0 && jpegBytes > 0) return resolve({ jpeg: Buffer.concat(chunks) });
        const end = signal === null ? `it ended with ${exitCode}` : `it was ended by ${signal}`;
        resolve({ trouble: 'FFmpeg could not draw it.', detail: stderr.trim() || end });
      });
      child.stdin.on('error', () => {}); // it closed its input early; 'close' says how it ended
      child.stdin.end(fmp4);
    });
  }
}

export interface ThumbnailOptions {
  readonly stream: Stream;
  readonly catchUp: CatchUp;
  readonly drawer: PictureDrawer;
  readonly logger: Logger;
  bytesSent(sizeBytes: number): void;
}

export class Thumbnail {
  readonly #options: ThumbnailOptions;
  #newest: { readonly drawn: Drawn; readonly drawnAtMs: number } | undefined;
  #drawing: Promise<{ readonly drawn: Drawn; readonly drawnAtMs: number }> | undefined;

  constructor(options: ThumbnailOptions) {
    this.#options = options;
  }

  /**
   * Answers a GET or HEAD.
   * @param scope whether caches that serve several people may keep it
   */
  async handle(
    request: IncomingMessage,
    response: ServerResponse,
    scope: 'public' | 'private' = 'public',
  ): Promise<void> {
    const { stream, catchUp, bytesSent } = this.#options;
    const track = stream.tracks.find((one) => one.kind === 'video' && isDefaultTrack(one));
    const picture = catchUp.randomAccessPicture;
    if (track === undefined || picture === undefined) {
      return notFound(response, 'This channel has no picture just now.', 1);
    }
    const { drawn, drawnAtMs } = await this.#draw(picture, track);
    if ('trouble' in drawn) {
      response.writeHead(503, {
        'Access-Control-Allow-Origin': '*',
        'Content-Type': 'text/plain; charset=utf-8',
        'Cache-Control': 'no-store',
        'Retry-After': String(LIFETIME_MS / 1000),
      });
      response.end(`There is no thumbnail. ${drawn.trouble}\n`);
      return;
    }
    const ageMs = performance.now() - drawnAtMs;
    response.writeHead(200, {
      'Access-Control-Allow-Origin': '*',
      'Content-Type': 'image/jpeg',
      'Content-Length': drawn.jpeg.length,
      'Cache-Control': `${scope}, max-age=${Math.max(1, Math.ceil((LIFETIME_MS - ageMs) / 1000))}`,
    });
    response.end(request.method === 'HEAD' ? undefined : drawn.jpeg);
    bytesSent(drawn.jpeg.length);
  }

  /** A failure is kept as long as a picture: a channel that cannot be drawn does not cost more than one that can. */
  async #draw(picture: AccessUnit, track: Track) {
    if (this.#newest !== undefined && performance.now() - this.#newest.drawnAtMs < LIFETIME_MS) {
      return this.#newest;
    }
    this.#drawing ??= this.#options.drawer.draw(picture, track).then((drawn) => {
      if ('trouble' in drawn) {
        const { logger, stream } = this.#options;
        logger.warn({ channel: stream.channel, reason: drawn.detail }, `No thumbnail: ${drawn.trouble}`);
      }
      this.#newest = { drawn, drawnAtMs: performance.now() };
      this.#drawing = undefined;
      return this.#newest;
    });
    return this.#drawing;
  }
}
