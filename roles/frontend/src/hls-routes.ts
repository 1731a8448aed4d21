/**
 * HLS and Low-Latency HLS over HTTP from the live window:
 *
 *   /live/<channel>/index.m3u8                     multivariant playlist
 *   /live/<channel>/main/index.m3u8                media playlist; `?session=` says who asks (viewers.ts)
 *   /live/<channel>/main/init-<id>.mp4             init segment
 *   /live/<channel>/main/<number>.m4s              segment; the next one is waited for
 *   /live/<channel>/main/<number>.<part>.m4s       part of a segment; the next one is waited for
 *
 * On a private channel the last three lie in folders that only its playlists tell (segment-names.ts).
 *
 * Names are the same on every frontend and always mean the same bytes. A playlist is rendered and
 * compressed once per part, whatever the number of viewers.
 *
 * The media playlist takes the delivery directives of draft-pantos-hls-rfc8216bis, section 6.2.5.
 * A player that uses none gets the same playlist at once.
 *
 * | directives                     | answer                                                              |
 * | ------------------------------ | ------------------------------------------------------------------- |
 * | none                           | 200 with the playlist as it is                                      |
 * | `_HLS_msn`, with `_HLS_part`   | 200 once the playlist has the part or a later one; 400 when it is   |
 * |                                | too far ahead; 503 when it has not come in three target durations   |
 * | `_HLS_msn` alone               | the same for a whole segment                                        |
 * | `_HLS_part` alone, not numbers | 400                                                                 |
 * | `_HLS_skip` = `YES` or `v2`    | as above, without old segments that the player has                  |
 */
import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http';
import { gzipSync } from 'node:zlib';
import {
  type MediaNames,
  mediaPlaylist,
  multivariantPlaylist,
  serialiseMediaPlaylist,
  serialiseMultivariantPlaylist,
  skippableSegmentCount,
} from '@starling/media/hls/playlist';
import { clientAddress } from '@starling/net/http-server';
import { behindLiveEdgeMs } from './live-edge.ts';
import type { Stream } from './stream.ts';
import { CHANNEL_FULL_TEXT, type Client, type HlsViewer, type ViewerRegistry } from './viewers.ts';
import type { Pass } from './viewing-access.ts';

/** The type that Apple's validator accepts; `application/x-mpegURL` it calls illegal. */
const PLAYLIST_TYPE = 'application/vnd.apple.mpegurl';

/** How long a request may wait, in target durations (rfc8216bis, 6.2.5.2). */
const MAX_WAIT_TARGET_DURATIONS = 3;
/** Requests that wait at the same time, for each channel; one more is answered 503. */
const MAX_WAITERS = 10_000;

/** Lifetimes in caches, in target durations (rfc8216bis, appendix B). */
const MAX_AGE_TARGET_DURATIONS = {
  playlist: 0.5,
  blockingPlaylist: 6,
  media: 6,
  notFound: 1,
  blockingNotFound: 4,
} as const;

/** Stands in the rendered multivariant playlist for the id that each player gets. */
const SESSION_PLACE = '{session}';

const corsHeaders = { 'Access-Control-Allow-Origin': '*', 'Access-Control-Expose-Headers': 'Date, Age' };

const mediaNames = (addressOf: (name: string) => string): MediaNames => ({
  segment: (mediaSequenceNumber) => addressOf(`${mediaSequenceNumber}.m4s`),
  part: (mediaSequenceNumber, index) => addressOf(`${mediaSequenceNumber}.${index}.m4s`),
  init: (id) => addressOf(`init-${id}.mp4`),
});

/** A playlist that many players get; compressed when the first asks for it so. */
class RenderedPlaylist {
  readonly plain: Buffer;
  #gzipped: Buffer | undefined;

  constructor(text: string) {
    this.plain = Buffer.from(text);
  }

  get gzipped(): Buffer {
    this.#gzipped ??= gzipSync(this.plain, { level: 1 });
    return this.#gzipped;
  }
}

/** A request that waits for a part or a segment. */
interface Waiter {
  /** Answers if what it waits for is there, or will never be. */
  tryToAnswer(): boolean;
  readonly response: ServerResponse;
  readonly deadline: NodeJS.Timeout;
  /** Who asked, where the request says it. */
  readonly viewer: HlsViewer | undefined;
  /** Answers when the viewer has been shown out. */
  readonly refuse: () => void;
}

/** What a media playlist request asks for beside the playlist itself. */
interface Directives {
  readonly mediaSequenceNumber: number | undefined;
  readonly partIndex: number | undefined;
  readonly isDeltaUpdate: boolean;
  readonly sessionId: string | undefined;
}

export interface HlsRoutesOptions {
  readonly maxWaiters?: number;
  /** What playlists call a media file; the name itself when undefined. */
  readonly mediaAddress?: (name: string) => string;
}

export class HlsRoutes {
  readonly #stream: Stream;
  readonly #viewers: ViewerRegistry;
  readonly #countBytes: (sizeBytes: number) => void;
  readonly #maxWaiters: number;
  readonly #names: MediaNames;
  readonly #stopListening: () => void;
  readonly #waiters = new Set<Waiter>();
  /** Of the window at {@link #renderedRevision}. */
  readonly #rendered = new Map<'media' | 'delta', RenderedPlaylist>();
  #renderedRevision = -1;
  #multivariant: { newestSegment: number; template: string } | undefined;
  #seenRevision = -1;

  constructor(
    stream: Stream,
    viewers: ViewerRegistry,
    countBytes: (sizeBytes: number) => void,
    { maxWaiters = MAX_WAITERS, mediaAddress = (name) => name }: HlsRoutesOptions = {},
  ) {
    this.#stream = stream;
    this.#viewers = viewers;
    this.#countBytes = countBytes;
    this.#maxWaiters = maxWaiters;
    this.#names = mediaNames(mediaAddress);
    this.#stopListening = stream.listen({
      event: () => this.#follow(),
      reset: () => this.#startAnew(),
    });
  }

  /** Requests that wait for something to be made. */
  get waiterCount(): number {
    return this.#waiters.size;
  }

  /**
   * Answers a GET or HEAD for a path below `/live/<channel>/`.
   * @param pass of who asks for a playlist of a private channel
   */
  handle(path: string, request: IncomingMessage, response: ServerResponse, pass?: Pass): void {
    const { window } = this.#stream;
    if (path === 'index.m3u8') return this.#answerMultivariant(request, response, pass);
    if (path === 'main/index.m3u8') return this.#takeMediaPlaylist(request, response, pass);
    const mediaMatch = /^main\/(\d{1,15})(?:\.(\d{1,4}))?\.m4s$/.exec(path);
    if (mediaMatch !== null) {
      const number = Number(mediaMatch[1]);
      if (mediaMatch[2] !== undefined)
        return this.#takePart(number, Number(mediaMatch[2]), request, response);
      return this.#takeSegment(number, request, response);
    }
    const initMatch = /^main\/init-([0-9a-f]{16})\.mp4$/.exec(path);
    if (initMatch !== null) {
      const init = window.init(initMatch[1] ?? '');
      if (init === undefined)
        return this.#answerNotFound('This init segment is not in the live window.', response);
      return this.#answerMedia([init.bytes], init.bytes.length, request, response);
    }
    return this.#answerNotFound('No such file in this channel.', response);
  }

  /** Playlists are rendered anew: what they call media files has changed. */
  forgetPlaylists(): void {
    this.#renderedRevision = -1;
  }

  /** Releases whoever waits. The routes are of no more use then. */
  close(): void {
    this.#stopListening();
    this.#releaseAll('This channel is going off the air.');
  }

  /** Everything that one event completes is in the window now, so nobody sees half of it. */
  #follow(): void {
    const { revision } = this.#stream.window;
    if (revision === this.#seenRevision) return;
    this.#seenRevision = revision;
    for (const waiter of this.#waiters) {
      if (waiter.tryToAnswer()) this.#forget(waiter);
    }
  }

  #startAnew(): void {
    this.#rendered.clear();
    this.#renderedRevision = -1;
    this.#multivariant = undefined;
    this.#seenRevision = -1;
    this.#releaseAll('This channel was created anew. Load its playlist again.');
  }

  #releaseAll(text: string): void {
    for (const waiter of this.#waiters) {
      this.#forget(waiter);
      answerUnavailable(waiter.response, text);
    }
  }

  #forget(waiter: Waiter): void {
    if (!this.#waiters.delete(waiter)) return;
    clearTimeout(waiter.deadline);
    if (waiter.viewer !== undefined) this.#viewers.endHlsWait(waiter.viewer, waiter.refuse);
  }

  #wait(response: ServerResponse, tryToAnswer: () => boolean, viewer?: HlsViewer): void {
    if (this.#waiters.size >= this.#maxWaiters) {
      return answerUnavailable(response, 'Too many requests are waiting here. Try again in a moment.');
    }
    const deadline = setTimeout(
      () => {
        this.#forget(waiter);
        answerUnavailable(response, 'Nothing new came in three target durations.');
      },
      MAX_WAIT_TARGET_DURATIONS * this.#targetSeconds * 1000,
    );
    deadline.unref();
    const refuse = () => {
      this.#forget(waiter);
      answerForbidden(response);
    };
    const waiter: Waiter = { response, tryToAnswer, deadline, viewer, refuse };
    this.#waiters.add(waiter);
    if (viewer !== undefined) this.#viewers.beginHlsWait(viewer, refuse);
    response.once('close', () => this.#forget(waiter));
  }

  #takeMediaPlaylist(request: IncomingMessage, response: ServerResponse, pass: Pass | undefined): void {
    const { window } = this.#stream;
    const directives = parseDirectives(request.url ?? '');
    if (directives === undefined) {
      return answerBadRequest(
        response,
        '_HLS_msn and _HLS_part are decimal numbers, and _HLS_part needs _HLS_msn.',
      );
    }
    const { mediaSequenceNumber, partIndex, isDeltaUpdate, sessionId } = directives;
    const isBlocking = mediaSequenceNumber !== undefined;
    if (!window.isPlayable) {
      return this.#answerNotFound(
        'This channel has just started. Try again in a moment.',
        response,
        isBlocking,
      );
    }
    const { channel } = this.#stream;
    const client = clientOf(request, pass);
    const viewer =
      request.method === 'HEAD'
        ? undefined
        : this.#viewers.touchHls(channel, sessionId, client, window.targetDurationMs);
    if (viewer === 'full') {
      return answerUnavailable(response, this.#viewers.whyFull(channel, pass) ?? CHANNEL_FULL_TEXT);
    }
    if (viewer === 'kicked') return answerForbidden(response);
    if (viewer !== undefined) {
      viewer.rendition = 'main';
      viewer.latencyMs = isBlocking ? behindLiveEdgeMs(window, mediaSequenceNumber, partIndex) : undefined;
    }
    const answer = () => {
      const rendered = this.#renderMedia(isDeltaUpdate ? 'delta' : 'media');
      const sizeBytes = this.#answerPlaylist(
        rendered,
        pass !== undefined
          ? 'private, no-store'
          : this.#cacheControl(isBlocking ? 'blockingPlaylist' : 'playlist'),
        request,
        response,
      );
      if (viewer !== undefined) viewer.sentBytes += sizeBytes;
    };
    if (!isBlocking) return answer();
    const reach = () => this.#stream.window.reach(mediaSequenceNumber, partIndex, this.#advancePartLimit);
    switch (reach()) {
      case 'listed':
        return answer();
      case 'too-far':
        return answerBadRequest(response, 'This part or segment is too far ahead.');
      case 'expected':
        return this.#wait(
          response,
          () => {
            if (reach() !== 'listed') return false;
            answer();
            return true;
          },
          viewer,
        );
    }
  }

  /**
   * A segment may have been listed by another frontend that is some milliseconds ahead of this one: it is
   * held back until it is here too. Players take a 404 for an answer.
   */
  #takeSegment(number: number, request: IncomingMessage, response: ServerResponse): void {
    const tryToAnswer = () => {
      const { window } = this.#stream;
      const segment = window.segment(number);
      if (segment !== undefined) {
        const chunks = segment.parts.map((part) => part.bytes);
        this.#answerMedia(chunks, segment.sizeBytes, request, response);
        return true;
      }
      if (window.reach(number, undefined, this.#advancePartLimit) === 'expected') return false;
      this.#answerNotFound('This segment is not in the live window.', response);
      return true;
    };
    if (!tryToAnswer()) this.#wait(response, tryToAnswer);
  }

  /**
   * A part that a preload hint names is held back until all of it can go at full speed, from which
   * players measure their bandwidth (rfc8216bis, 6.2.6).
   */
  #takePart(number: number, index: number, request: IncomingMessage, response: ServerResponse): void {
    const tryToAnswer = () => {
      const { window } = this.#stream;
      const part = window.part(number, index);
      if (part !== undefined) {
        this.#answerMedia([part.bytes], part.bytes.length, request, response);
        return true;
      }
      // A finished segment gets no more parts.
      const isExpected =
        window.segment(number) === undefined &&
        window.reach(number, index, this.#advancePartLimit) === 'expected';
      if (isExpected) return false;
      this.#answerNotFound('This part is not in the live window.', response);
      return true;
    };
    if (!tryToAnswer()) this.#wait(response, tryToAnswer);
  }

  #renderMedia(which: 'media' | 'delta'): RenderedPlaylist {
    const { window, partTargetMs } = this.#stream;
    if (this.#renderedRevision !== window.revision) {
      this.#rendered.clear();
      this.#renderedRevision = window.revision;
    }
    const known = this.#rendered.get(which);
    if (known !== undefined) return known;
    const playlist = mediaPlaylist(window, this.#names, { partTargetMs, otherRenditions: [] });
    const skippedSegments = which === 'delta' ? skippableSegmentCount(playlist) : 0;
    const rendered = new RenderedPlaylist(serialiseMediaPlaylist(playlist, skippedSegments));
    this.#rendered.set(which, rendered);
    return rendered;
  }

  /** Each player gets its own: the media playlist's address in it has a new session id, and the viewing token. */
  #answerMultivariant(request: IncomingMessage, response: ServerResponse, pass: Pass | undefined): void {
    const { window } = this.#stream;
    const newestSegment = window.segments.at(-1)?.cue.mediaSequenceNumber;
    if (!window.isPlayable || newestSegment === undefined) {
      return this.#answerNotFound('This channel has just started. Try again in a moment.', response);
    }
    if (this.#multivariant?.newestSegment !== newestSegment) {
      const uri = `main/index.m3u8?session=${SESSION_PLACE}`;
      const template = serialiseMultivariantPlaylist(multivariantPlaylist(window, uri));
      this.#multivariant = { newestSegment, template };
    }
    const { template } = this.#multivariant;
    const token = pass?.tokenInAddress;
    const query = this.#viewers.newHlsSessionId() + (token === undefined ? '' : `&token=${token}`);
    const body = template.replaceAll(SESSION_PLACE, query);
    // A few hundred bytes, never twice the same: not worth compressing.
    response.writeHead(200, {
      ...corsHeaders,
      'Content-Type': PLAYLIST_TYPE,
      'Cache-Control': 'no-store',
      'Content-Length': body.length, // ASCII
    });
    response.end(request.method === 'HEAD' ? undefined : body);
    this.#countBytes(body.length);
  }

  /** @returns the size of the body in bytes */
  #answerPlaylist(
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
    response.end(request.method === 'HEAD' ? undefined : body);
    this.#countBytes(body.length);
    return body.length;
  }

  #answerMedia(
    chunks: readonly Uint8Array[],
    sizeBytes: number,
    request: IncomingMessage,
    response: ServerResponse,
  ): void {
    response.writeHead(200, {
      ...corsHeaders,
      'Content-Type': 'video/mp4',
      'Cache-Control': `${this.#cacheControl('media')}, immutable`,
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
    this.#viewers.countHlsMedia(this.#stream.channel, clientOf(request), sizeBytes);
  }

  #answerNotFound(text: string, response: ServerResponse, isBlocking = false): void {
    const age = MAX_AGE_TARGET_DURATIONS[isBlocking ? 'blockingNotFound' : 'notFound'];
    notFound(response, text, age * this.#targetSeconds);
  }

  #cacheControl(kind: keyof typeof MAX_AGE_TARGET_DURATIONS): string {
    const seconds = Math.max(1, Math.floor(MAX_AGE_TARGET_DURATIONS[kind] * this.#targetSeconds));
    return `public, max-age=${seconds}`;
  }

  /** How many parts after the newest may be asked for (rfc8216bis, 6.2.5.2). */
  get #advancePartLimit(): number {
    const { partTargetMs } = this.#stream;
    return partTargetMs < 1000 ? Math.ceil(3000 / partTargetMs) : 3;
  }

  get #targetSeconds(): number {
    return Math.max(1, Math.ceil(this.#stream.window.targetDurationMs / 1000));
  }
}

/** @returns undefined when a directive has a value that it cannot have */
function parseDirectives(url: string): Directives | undefined {
  const query = url.indexOf('?');
  if (query < 0) {
    return {
      mediaSequenceNumber: undefined,
      partIndex: undefined,
      isDeltaUpdate: false,
      sessionId: undefined,
    };
  }
  const parameters = new URLSearchParams(url.slice(query));
  const skip = parameters.get('_HLS_skip');
  const number = parameters.get('_HLS_msn') ?? undefined;
  const part = parameters.get('_HLS_part') ?? undefined;
  const isNumber = (text: string | undefined) => text === undefined || /^\d{1,15}$/.test(text);
  if (!isNumber(number) || !isNumber(part) || (part !== undefined && number === undefined)) return undefined;
  return {
    mediaSequenceNumber: number === undefined ? undefined : Number(number),
    partIndex: part === undefined ? undefined : Number(part),
    isDeltaUpdate: skip === 'YES' || skip === 'v2',
    sessionId: parameters.get('session') ?? undefined,
  };
}

function answerForbidden(response: ServerResponse): void {
  answerText(response, 403, 'This session has been ended.', { 'Cache-Control': 'no-store' });
}

function answerBadRequest(response: ServerResponse, text: string): void {
  answerText(response, 400, text, { 'Cache-Control': 'no-store' });
}

/** Who sent a request. */
export function clientOf(request: IncomingMessage, pass?: Pass): Client {
  return { address: clientAddress(request), userAgent: request.headers['user-agent'], pass };
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
