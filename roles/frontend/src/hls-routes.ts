/**
 * HLS and Low-Latency HLS over HTTP from the live window:
 *
 *   /live/<channel>/index.m3u8                     multivariant playlist
 *   /live/<channel>/<rendition>/index.m3u8         media playlist; `?session=` says who asks (viewers.ts)
 *   /live/<channel>/<rendition>/init-<id>.mp4      init segment
 *   /live/<channel>/<rendition>/<number>.m4s       segment; the next one is waited for
 *   /live/<channel>/<rendition>/<number>.<part>.m4s    part of a segment; the next one is waited for
 *
 * `<rendition>` is `main` where picture and sound go together, else `video-<id>` or `audio-<id>`.
 * On a private channel the last three lie in folders that only its playlists tell (segment-names.ts).
 *
 * Names are the same on every frontend and always mean the same bytes. A playlist is rendered and
 * compressed once per part, whatever the number of viewers. That of a rendition that the channel has no
 * more says that it has ended.
 *
 * Media playlists take the delivery directives of draft-pantos-hls-rfc8216bis, section 6.2.5.
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
import type { IncomingMessage, ServerResponse } from 'node:http';
import {
  type MediaNames,
  type MediaPlaylist,
  mediaPlaylist,
  multivariantPlaylist,
  serialiseMediaPlaylist,
  serialiseMultivariantPlaylist,
  skippableSegmentCount,
} from '@starling/media/hls/playlist';
import { recordedSegment } from '@starling/media/hls/recording';
import type { Rendition } from '@starling/media/hls/renditions';
import {
  answerBadRequest,
  answerForbidden,
  answerMultivariant,
  answerPlaylist,
  answerUnavailable,
  beginMediaAnswer,
  clientOf,
  cutOut,
  mediaNames,
  notFound,
  RenderedPlaylist,
  segmentEtag,
} from './hls-answers.ts';
import { behindLiveEdgeMs } from './live-edge.ts';
import type { Stream } from './stream.ts';
import { CHANNEL_FULL_TEXT, type HlsViewer, type ViewerRegistry } from './viewers.ts';
import type { Pass } from './viewing-access.ts';

/** How long a request may wait, in target durations (rfc8216bis, 6.2.5.2). */
const MAX_WAIT_TARGET_DURATIONS = 3;
/** Requests that wait at the same time, for each channel; one more is answered 503. */
const MAX_WAITERS = 10_000;
/** How often the deadlines of those who wait are looked at: one timer is cheaper than thousands. */
const SWEEP_WAITERS_EVERY_MS = 500;

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

/** A request that waits for a part or a segment. */
interface Waiter {
  /** Answers if what it waits for is there, or will never be. */
  tryToAnswer(): boolean;
  readonly response: ServerResponse;
  /** On the monotonic clock. */
  readonly deadlineMs: number;
  /** Who asked, where the request says it. */
  readonly viewer: HlsViewer | undefined;
  /** Answers when the viewer has been shown out. */
  readonly refuse: () => void;
}

interface PlaylistSnapshot {
  /** Of the window. */
  readonly revision: number;
  readonly playlist: MediaPlaylist;
  readonly rendered: Map<'media' | 'delta', RenderedPlaylist>;
}

/** The place where one rendition is asked for. */
interface Desk {
  readonly rendition: Rendition;
  readonly waiters: Set<Waiter>;
  /** As it was at one moment: the whole playlist and the delta update say the same of the other renditions. */
  snapshot: PlaylistSnapshot | undefined;
  /** Of the window when the waiters were last tried. */
  seenRevision: number;
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
  /** By the rendition's name. */
  readonly #desks = new Map<string, Desk>();
  #waiterCount = 0;
  /** While somebody waits. */
  #sweepTimer: NodeJS.Timeout | undefined;
  #multivariant: { newestSegment: number; renditions: readonly Rendition[]; template: string } | undefined;

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
    return this.#waiterCount;
  }

  /**
   * Answers a GET or HEAD for a path below `/live/<channel>/`.
   * @param pass of who asks for a playlist of a private channel
   */
  handle(path: string, request: IncomingMessage, response: ServerResponse, pass?: Pass): void {
    if (path === 'index.m3u8') return this.#answerMultivariant(request, response, pass);
    const [, name = '', file = ''] = /^([a-z0-9-]{1,16})\/([a-z0-9.-]{1,40})$/.exec(path) ?? [];
    const desk = this.#desk(name);
    if (file === 'index.m3u8') return this.#takeMediaPlaylist(desk, request, response, pass);
    const mediaMatch = /^(\d{1,15})(?:\.(\d{1,4}))?\.m4s$/.exec(file);
    const initMatch = /^init-([0-9a-f]{16})\.mp4$/.exec(file);
    if (desk === undefined || (mediaMatch ?? initMatch) === null) {
      return this.#answerNotFound('No such file in this channel.', response);
    }
    if (mediaMatch !== null) {
      const number = Number(mediaMatch[1]);
      if (mediaMatch[2] !== undefined)
        return this.#takePart(desk, number, Number(mediaMatch[2]), request, response);
      return this.#takeSegment(desk, number, request, response);
    }
    const init = desk.rendition.window.init(initMatch?.[1] ?? '');
    if (init === undefined)
      return this.#answerNotFound('This init segment is not in the live window.', response);
    return this.#answerMedia([init.bytes], init.bytes.length, `"${init.id}"`, request, response);
  }

  /** Playlists are rendered anew: what they call media files has changed. */
  forgetPlaylists(): void {
    for (const desk of this.#desks.values()) desk.snapshot = undefined;
  }

  /** Hangs up on whoever waits, so that a balancer asks another frontend. The routes are of no more use then. */
  close(): void {
    this.#stopListening();
    this.#releaseAll((response) => response.destroy());
  }

  /** @returns undefined when the channel has no such rendition, nor had one a moment ago */
  #desk(name: string): Desk | undefined {
    const rendition = this.#stream.rendition(name);
    if (rendition === undefined) return undefined;
    const known = this.#desks.get(name);
    if (known?.rendition === rendition) return known;
    const desk: Desk = {
      rendition,
      waiters: new Set(),
      snapshot: undefined,
      seenRevision: -1,
    };
    this.#desks.set(name, desk);
    return desk;
  }

  /** Everything that one event completes is in the windows now, so nobody sees half of it. */
  #follow(): void {
    for (const [name, desk] of this.#desks) {
      const { isEnded, window } = desk.rendition;
      if (window.revision === desk.seenRevision && !isEnded) continue;
      desk.seenRevision = window.revision;
      for (const waiter of desk.waiters) {
        if (waiter.tryToAnswer()) this.#forget(desk, waiter);
      }
      if (isEnded && this.#stream.rendition(name) !== desk.rendition) this.#desks.delete(name);
    }
  }

  #startAnew(): void {
    this.#multivariant = undefined;
    this.#releaseAll((response) =>
      answerUnavailable(response, 'This channel was created anew. Load its playlist again.'),
    );
    this.#desks.clear();
  }

  #releaseAll(end: (response: ServerResponse) => void): void {
    for (const desk of this.#desks.values()) {
      for (const waiter of desk.waiters) {
        this.#forget(desk, waiter);
        end(waiter.response);
      }
    }
  }

  #forget(desk: Desk, waiter: Waiter): void {
    if (!desk.waiters.delete(waiter)) return;
    this.#waiterCount--;
    if (waiter.viewer !== undefined) this.#viewers.endHlsWait(waiter.viewer, waiter.refuse);
  }

  #wait(desk: Desk, response: ServerResponse, tryToAnswer: () => boolean, viewer?: HlsViewer): void {
    if (this.#waiterCount >= this.#maxWaiters) {
      return answerUnavailable(response, 'Too many requests are waiting here. Try again in a moment.');
    }
    const deadlineMs = performance.now() + MAX_WAIT_TARGET_DURATIONS * this.#targetSeconds * 1000;
    const refuse = () => {
      this.#forget(desk, waiter);
      answerForbidden(response);
    };
    const waiter: Waiter = { response, tryToAnswer, deadlineMs, viewer, refuse };
    desk.waiters.add(waiter);
    this.#waiterCount++;
    this.#sweepTimer ??= setInterval(() => this.#sweepWaiters(), SWEEP_WAITERS_EVERY_MS).unref();
    if (viewer !== undefined) this.#viewers.beginHlsWait(viewer, refuse);
    response.once('close', () => this.#forget(desk, waiter));
  }

  #sweepWaiters(): void {
    if (this.#waiterCount === 0) {
      clearInterval(this.#sweepTimer);
      this.#sweepTimer = undefined;
    }
    const nowMs = performance.now();
    for (const desk of this.#desks.values()) {
      for (const waiter of desk.waiters) {
        if (waiter.deadlineMs > nowMs) break; // who came later waits longer
        this.#forget(desk, waiter);
        answerUnavailable(waiter.response, 'Nothing new came in three target durations.');
      }
    }
  }

  #takeMediaPlaylist(
    desk: Desk | undefined,
    request: IncomingMessage,
    response: ServerResponse,
    pass: Pass | undefined,
  ): void {
    const directives = parseDirectives(request.url ?? '');
    if (directives === undefined) {
      return answerBadRequest(
        response,
        '_HLS_msn and _HLS_part are decimal numbers, and _HLS_part needs _HLS_msn.',
      );
    }
    const { mediaSequenceNumber, partIndex, isDeltaUpdate, sessionId } = directives;
    const isBlocking = mediaSequenceNumber !== undefined;
    if (desk?.rendition.window.isPlayable !== true) {
      const text = this.#stream.isPlayable
        ? 'This channel has no such rendition.'
        : 'This channel has just started. Try again in a moment.';
      return this.#answerNotFound(text, response, isBlocking);
    }
    const { rendition } = desk;
    const { window } = rendition;
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
      // With a picture and sound apart, the picture is what the viewer chose.
      if (viewer.rendition === undefined || !isSoundAlone(rendition)) viewer.rendition = rendition.name;
      viewer.latencyMs = isBlocking ? behindLiveEdgeMs(window, mediaSequenceNumber, partIndex) : undefined;
    }
    const answer = () => {
      const rendered = this.#renderMedia(desk, isDeltaUpdate ? 'delta' : 'media');
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
    // What a rendition that has ended lacks will never come: its end is the answer.
    const reach = () =>
      rendition.isEnded
        ? 'listed'
        : rendition.window.reach(mediaSequenceNumber, partIndex, this.#advancePartLimit);
    switch (reach()) {
      case 'listed':
        return answer();
      case 'too-far':
        return answerBadRequest(response, 'This part or segment is too far ahead.');
      case 'expected':
        return this.#wait(
          desk,
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
  #takeSegment(desk: Desk, number: number, request: IncomingMessage, response: ServerResponse): void {
    const { rendition } = desk;
    const { window } = rendition;
    const tryToAnswer = () => {
      const segment = window.segment(number);
      if (segment !== undefined) {
        const chunks = segment.parts.map((part) => part.bytes);
        const etag = segmentEtag(recordedSegment(segment));
        this.#answerMedia(chunks, segment.sizeBytes, etag, request, response);
        return true;
      }
      const isExpected =
        !rendition.isEnded && window.reach(number, undefined, this.#advancePartLimit) === 'expected';
      if (isExpected) return false;
      this.#answerNotFound('This segment is not in the live window.', response);
      return true;
    };
    if (!tryToAnswer()) this.#wait(desk, response, tryToAnswer);
  }

  /**
   * A part that a preload hint names is held back until all of it can go at full speed, from which
   * players measure their bandwidth (rfc8216bis, 6.2.6).
   */
  #takePart(
    desk: Desk,
    number: number,
    index: number,
    request: IncomingMessage,
    response: ServerResponse,
  ): void {
    const { rendition } = desk;
    const { window } = rendition;
    const tryToAnswer = () => {
      const part = window.part(number, index);
      if (part !== undefined) {
        this.#answerMedia([part.bytes], part.bytes.length, undefined, request, response);
        return true;
      }
      // A finished segment gets no more parts.
      const isExpected =
        !rendition.isEnded &&
        window.segment(number) === undefined &&
        window.reach(number, index, this.#advancePartLimit) === 'expected';
      if (isExpected) return false;
      this.#answerNotFound('This part is not in the live window.', response);
      return true;
    };
    if (!tryToAnswer()) this.#wait(desk, response, tryToAnswer);
  }

  #renderMedia(desk: Desk, which: 'media' | 'delta'): RenderedPlaylist {
    const { rendition } = desk;
    const revision = rendition.isEnded ? Number.POSITIVE_INFINITY : rendition.window.revision;
    if (desk.snapshot?.revision !== revision) {
      desk.snapshot = { revision, playlist: this.#mediaPlaylist(rendition), rendered: new Map() };
    }
    const { playlist, rendered } = desk.snapshot;
    const known = rendered.get(which);
    if (known !== undefined) return known;
    const skippedSegments = which === 'delta' ? skippableSegmentCount(playlist) : 0;
    const made = new RenderedPlaylist(serialiseMediaPlaylist(playlist, skippedSegments));
    rendered.set(which, made);
    return made;
  }

  #mediaPlaylist(rendition: Rendition): MediaPlaylist {
    const { window } = rendition;
    if (rendition.isEnded) return { ...mediaPlaylist(window, this.#names), isEnded: true };
    const { partTargetMs, renditions } = this.#stream;
    const otherRenditions = renditions
      .filter((other) => other !== rendition && other.window.isPlayable)
      .map((other) => ({ uri: `../${other.name}/index.m3u8`, window: other.window }));
    return mediaPlaylist(window, this.#names, { partTargetMs, otherRenditions });
  }

  /** Each player gets its own: the media playlists' addresses in it have a new session id, and the viewing token. */
  #answerMultivariant(request: IncomingMessage, response: ServerResponse, pass: Pass | undefined): void {
    const { isPlayable, renditions } = this.#stream;
    if (!isPlayable) {
      return this.#answerNotFound('This channel has just started. Try again in a moment.', response);
    }
    // What all of them have: rendered once a segment.
    const newestSegment = Math.min(
      ...renditions.map(({ window }) => window.segments.at(-1)?.cue.mediaSequenceNumber ?? 0),
    );
    if (this.#multivariant?.newestSegment !== newestSegment || this.#multivariant.renditions !== renditions) {
      const uri = (name: string) => `${name}/index.m3u8?session=${SESSION_PLACE}`;
      const template = serialiseMultivariantPlaylist(multivariantPlaylist(renditions, uri));
      this.#multivariant = { newestSegment, renditions, template };
    }
    const { template } = this.#multivariant;
    const token = pass?.tokenInAddress;
    const query = this.#viewers.newHlsSessionId() + (token === undefined ? '' : `&token=${token}`);
    this.#countBytes(answerMultivariant(template.replaceAll(SESSION_PLACE, query), request, response));
  }

  /** @returns the size of the body in bytes */
  #answerPlaylist(
    rendered: RenderedPlaylist,
    cacheControl: string,
    request: IncomingMessage,
    response: ServerResponse,
  ): number {
    const sizeBytes = answerPlaylist(rendered, cacheControl, request, response);
    this.#countBytes(sizeBytes);
    return sizeBytes;
  }

  /** @param etag undefined where there is no short name for the bytes */
  #answerMedia(
    chunks: readonly Uint8Array[],
    sizeBytes: number,
    etag: string | undefined,
    request: IncomingMessage,
    response: ServerResponse,
  ): void {
    const cacheControl = `${this.#cacheControl('media')}, immutable`;
    const range = beginMediaAnswer(request, response, { sizeBytes, etag, cacheControl });
    if (range === undefined) return;
    response.cork(); // one writev for all parts
    for (const chunk of cutOut(chunks, range)) response.write(chunk);
    response.end();
    response.uncork();
    const sentBytes = range.end - range.start;
    this.#countBytes(sentBytes);
    this.#viewers.countHlsMedia(this.#stream.channel, clientOf(request), sentBytes);
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
    return Math.max(1, Math.ceil(this.#stream.targetDurationMs / 1000));
  }
}

/** One of several sound tracks, or the sound that goes with several pictures. */
function isSoundAlone({ name, tracks }: Rendition): boolean {
  return name !== 'main' && tracks.every(({ kind }) => kind === 'audio');
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
