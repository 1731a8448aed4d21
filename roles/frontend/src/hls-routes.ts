/**
 * HLS over HTTP from the live window:
 *
 *   /live/<channel>/index.m3u8              multivariant playlist
 *   /live/<channel>/main/index.m3u8         media playlist
 *   /live/<channel>/main/init-<id>.mp4      init segment
 *   /live/<channel>/main/<number>.m4s       segment
 *
 * Names are the same on every frontend and always mean the same bytes. A playlist is rendered and
 * compressed once per segment, whatever the number of viewers.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { gzipSync } from 'node:zlib';
import type { LiveWindow } from '@starling/media/hls/live-window';
import {
  mediaPlaylist,
  multivariantPlaylist,
  serialiseMediaPlaylist,
  serialiseMultivariantPlaylist,
} from '@starling/media/hls/playlist';
import type { Stream } from './stream.ts';

/** The type that Apple's validator accepts; `application/x-mpegURL` it calls illegal. */
const PLAYLIST_TYPE = 'application/vnd.apple.mpegurl';

interface RenderedPlaylist {
  readonly newestSegment: number;
  readonly plain: Buffer;
  readonly gzipped: Buffer;
}

const corsHeaders = { 'Access-Control-Allow-Origin': '*', 'Access-Control-Expose-Headers': 'Date, Age' };

export class HlsRoutes {
  readonly #stream: Stream;
  readonly #countBytes: (sizeBytes: number) => void;
  readonly #rendered = new Map<'multivariant' | 'media', RenderedPlaylist>();

  constructor(stream: Stream, countBytes: (sizeBytes: number) => void) {
    this.#stream = stream;
    this.#countBytes = countBytes;
  }

  /** Answers a GET or HEAD for a path below `/live/<channel>/`. */
  handle(path: string, request: IncomingMessage, response: ServerResponse): void {
    const { window } = this.#stream;
    if (path === 'index.m3u8') return this.#playlist('multivariant', window, request, response);
    if (path === 'main/index.m3u8') return this.#playlist('media', window, request, response);
    const segmentMatch = /^main\/(\d{1,15})\.m4s$/.exec(path);
    if (segmentMatch !== null) {
      const segment = window.segment(Number(segmentMatch[1]));
      if (segment === undefined)
        return notFound(response, 'This segment is not in the live window.', targetSeconds(window));
      const chunks = segment.parts.map((part) => part.bytes);
      return this.#media('video/mp4', chunks, segment.sizeBytes, window, request, response);
    }
    const initMatch = /^main\/init-([0-9a-f]{16})\.mp4$/.exec(path);
    if (initMatch !== null) {
      const init = window.init(initMatch[1] ?? '');
      if (init === undefined)
        return notFound(response, 'This init segment is not in the live window.', targetSeconds(window));
      return this.#media('video/mp4', [init.bytes], init.bytes.length, window, request, response);
    }
    return notFound(response, 'No such file in this channel.', targetSeconds(window));
  }

  #playlist(
    which: 'multivariant' | 'media',
    window: LiveWindow,
    request: IncomingMessage,
    response: ServerResponse,
  ): void {
    const newestSegment = window.segments.at(-1)?.cue.mediaSequenceNumber;
    if (!window.isPlayable || newestSegment === undefined) {
      return notFound(response, 'This channel has just started. Try again in a moment.', 1);
    }
    let rendered = this.#rendered.get(which);
    if (rendered?.newestSegment !== newestSegment) {
      const plain = Buffer.from(
        which === 'multivariant'
          ? serialiseMultivariantPlaylist(multivariantPlaylist(window, 'main/index.m3u8'))
          : serialiseMediaPlaylist(
              mediaPlaylist(window, { segment: (number) => `${number}.m4s`, init: (id) => `init-${id}.mp4` }),
            ),
      );
      rendered = { newestSegment, plain, gzipped: gzipSync(plain, { level: 1 }) };
      this.#rendered.set(which, rendered);
    }
    const wantsGzip = /\bgzip\b/.test(request.headers['accept-encoding'] ?? '');
    const body = wantsGzip ? rendered.gzipped : rendered.plain;
    response.writeHead(200, {
      ...corsHeaders,
      'Content-Type': PLAYLIST_TYPE,
      // Half a target duration: a cache may answer while the playlist cannot have changed twice (rfc8216bis, appendix B).
      'Cache-Control': `public, max-age=${Math.max(1, Math.floor(targetSeconds(window) / 2))}`,
      Vary: 'Accept-Encoding',
      'Content-Length': body.length,
      ...(wantsGzip ? { 'Content-Encoding': 'gzip' } : {}),
    });
    this.#end(body, request, response);
  }

  #media(
    contentType: string,
    chunks: readonly Uint8Array[],
    sizeBytes: number,
    window: LiveWindow,
    request: IncomingMessage,
    response: ServerResponse,
  ): void {
    response.writeHead(200, {
      ...corsHeaders,
      'Content-Type': contentType,
      'Cache-Control': `public, max-age=${6 * targetSeconds(window)}, immutable`,
      'Content-Length': sizeBytes,
    });
    if (request.method === 'HEAD') {
      response.end();
      return;
    }
    response.cork(); // one writev for all parts
    for (const chunk of chunks) response.write(chunk);
    response.end();
    response.uncork();
    this.#countBytes(sizeBytes);
  }

  #end(body: Buffer, request: IncomingMessage, response: ServerResponse): void {
    response.end(request.method === 'HEAD' ? undefined : body);
    this.#countBytes(body.length);
  }
}

function targetSeconds(window: LiveWindow): number {
  return Math.max(1, Math.ceil(window.targetDurationMs / 1000));
}

/** Answers 404; caches may keep it for `maxAgeSeconds`. */
export function notFound(response: ServerResponse, text: string, maxAgeSeconds: number): void {
  response.writeHead(404, {
    ...corsHeaders,
    'Content-Type': 'text/plain; charset=utf-8',
    'Cache-Control': `public, max-age=${maxAgeSeconds}`,
  });
  response.end(`${text}\n`);
}
