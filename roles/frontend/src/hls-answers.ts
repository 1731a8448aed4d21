/**
 * What all answers of HLS have in common, from memory and from disk: names, headers, conditional requests and
 * byte ranges (RFC 9110, sections 13 and 14).
 */
import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http';
import { gzipSync } from 'node:zlib';
import type { MediaNames } from '@starling/media/hls/playlist';
import type { RecordedSegment } from '@starling/media/hls/recording';
import { clientAddress } from '@starling/net/http-server';
import type { Client } from './viewers.ts';
import type { Pass } from './viewing-access.ts';

/** The type that Apple's validator accepts; `application/x-mpegURL` it calls illegal. */
const PLAYLIST_TYPE = 'application/vnd.apple.mpegurl';

export const corsHeaders = {
  'Access-Control-Allow-Origin': '*',
  'Access-Control-Expose-Headers': 'Date, Age',
};

/** @param addressOf what playlists call a media file */
export const mediaNames = (addressOf: (name: string) => string): MediaNames => ({
  segment: (mediaSequenceNumber) => addressOf(`${mediaSequenceNumber}.m4s`),
  part: (mediaSequenceNumber, index) => addressOf(`${mediaSequenceNumber}.${index}.m4s`),
  init: (id) => addressOf(`init-${id}.mp4`),
});

/**
 * A playlist that many players get; compressed when the first asks for it so. As strings of one character a
 * byte: Node sends such a body together with its head in one write, from the stack, and thousands of players
 * wait for the same part.
 */
export class RenderedPlaylist {
  readonly plain: string;
  #gzipped: string | undefined;

  constructor(text: string) {
    this.plain = Buffer.from(text).toString('latin1');
  }

  get gzipped(): string {
    this.#gzipped ??= gzipSync(Buffer.from(this.plain, 'latin1'), { level: 1 }).toString('latin1');
    return this.#gzipped;
  }
}

/** @returns the size of the body in bytes */
export function answerPlaylist(
  rendered: RenderedPlaylist,
  cacheControl: string,
  request: IncomingMessage,
  response: ServerResponse,
): number {
  const wantsGzip = /\bgzip\b/.test(request.headers['accept-encoding'] ?? '');
  const body = wantsGzip ? rendered.gzipped : rendered.plain;
  const headers: OutgoingHttpHeaders = {
    ...corsHeaders,
    'Content-Type': PLAYLIST_TYPE,
    'Cache-Control': cacheControl,
    Vary: 'Accept-Encoding',
    'Content-Length': body.length,
  };
  if (wantsGzip) headers['Content-Encoding'] = 'gzip';
  response.writeHead(200, headers);
  if (request.method === 'HEAD') response.end();
  else response.end(body, 'latin1');
  return body.length;
}

/**
 * A few hundred bytes, never twice the same: not worth compressing.
 * @returns the size of the body in bytes
 */
export function answerMultivariant(text: string, request: IncomingMessage, response: ServerResponse): number {
  const body = Buffer.from(text);
  response.writeHead(200, {
    ...corsHeaders,
    'Content-Type': PLAYLIST_TYPE,
    'Cache-Control': 'no-store',
    'Content-Length': body.length,
  });
  response.end(request.method === 'HEAD' ? undefined : body);
  return body.length;
}

/** A segment's, wherever its bytes lie. */
export function segmentEtag({ programDateTimeUnixMs, initId, sizeBytes }: RecordedSegment): string {
  return `"${programDateTimeUnixMs}-${initId}-${sizeBytes}"`;
}

export interface MediaFile {
  readonly sizeBytes: number;
  readonly cacheControl: string;
  /** Of the same bytes always the same, in quotation marks; undefined where there is no short name for them. */
  readonly etag: string | undefined;
}

/** Bytes from `start` up to, but not including, `end`. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

/**
 * Writes the head of the answer to a GET or HEAD: 200, 206, 304 or 416.
 * @returns the bytes that the caller is to send; undefined when the response has ended
 */
export function beginMediaAnswer(
  request: IncomingMessage,
  response: ServerResponse,
  { sizeBytes, cacheControl, etag }: MediaFile,
): ByteRange | undefined {
  const headers: OutgoingHttpHeaders = {
    ...corsHeaders,
    'Content-Type': 'video/mp4',
    'Cache-Control': cacheControl,
    'Accept-Ranges': 'bytes',
  };
  if (etag !== undefined) headers.ETag = etag;
  if (etag !== undefined && matches(request.headers['if-none-match'], etag)) {
    response.writeHead(304, headers);
    response.end();
    return undefined;
  }
  const ifRange = request.headers['if-range'];
  const mayBeRange = request.method === 'GET' && (ifRange === undefined || ifRange === etag);
  const range = mayBeRange ? parseRange(request.headers.range, sizeBytes) : 'whole';
  if (range === 'unsatisfiable') {
    response.writeHead(416, { ...corsHeaders, 'Content-Range': `bytes */${sizeBytes}` });
    response.end();
    return undefined;
  }
  const { start, end } = range === 'whole' ? { start: 0, end: sizeBytes } : range;
  headers['Content-Length'] = end - start;
  if (range !== 'whole') headers['Content-Range'] = `bytes ${start}-${end - 1}/${sizeBytes}`;
  response.writeHead(range === 'whole' ? 200 : 206, headers);
  if (request.method !== 'HEAD') return { start, end };
  response.end();
  return undefined;
}

function matches(ifNoneMatch: string | undefined, etag: string): boolean {
  const names = ifNoneMatch?.split(',').map((name) => name.trim().replace(/^W\//, ''));
  return names?.some((name) => name === etag || name === '*') ?? false;
}

/** Several ranges, and what is no byte range, are answered with the whole file: a server may ignore them (14.2). */
function parseRange(header: string | undefined, sizeBytes: number): ByteRange | 'whole' | 'unsatisfiable' {
  const [, first = '', last = ''] = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header ?? '') ?? [];
  if (first === '' && last === '') return 'whole';
  if (first === '') {
    const start = Math.max(0, sizeBytes - Number(last));
    return start < sizeBytes ? { start, end: sizeBytes } : 'unsatisfiable';
  }
  const start = Number(first);
  if (last !== '' && Number(last) < start) return 'whole';
  const end = last === '' ? sizeBytes : Math.min(sizeBytes, Number(last) + 1);
  return start < sizeBytes ? { start, end } : 'unsatisfiable';
}

/** The bytes of a range, of a file that lies in several chunks. */
export function cutOut(chunks: readonly Uint8Array[], { start, end }: ByteRange): Uint8Array[] {
  let offset = 0;
  return chunks.flatMap((chunk) => {
    const cut = chunk.subarray(Math.max(0, start - offset), Math.max(0, end - offset));
    offset += chunk.length;
    return cut.length === 0 ? [] : [cut];
  });
}

/** Answers 400. */
export function answerBadRequest(response: ServerResponse, text: string): void {
  answerText(response, 400, text, { 'Cache-Control': 'no-store' });
}

/** Who sent a request. */
export function clientOf(request: IncomingMessage, pass?: Pass): Client {
  return { address: clientAddress(request), userAgent: request.headers['user-agent'], pass };
}

/** Answers 403 to a player that has been shown out. */
export function answerForbidden(response: ServerResponse): void {
  answerText(response, 403, 'This session has been ended.', { 'Cache-Control': 'no-store' });
}

/** Answers 503; the player is to come back. */
export function answerUnavailable(response: ServerResponse, text: string): void {
  answerText(response, 503, text, { 'Cache-Control': 'no-store', 'Retry-After': '1' });
}

/** Answers 404; caches may keep it for `maxAgeSeconds`. */
export function notFound(response: ServerResponse, text: string, maxAgeSeconds: number): void {
  answerText(response, 404, text, { 'Cache-Control': `public, max-age=${maxAgeSeconds}` });
}

/** Answers with a sentence. */
export function answerText(
  response: ServerResponse,
  status: number,
  text: string,
  headers: OutgoingHttpHeaders,
): void {
  response.writeHead(status, {
    ...corsHeaders,
    'Content-Type': 'text/plain; charset=utf-8',
    ...headers,
  });
  response.end(`${text}\n`);
}
