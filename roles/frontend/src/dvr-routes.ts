/**
 * What viewers rewind into, over HTTP from the recordings on disk:
 *
 *   /live/<channel>/dvr.json                          how far back it reaches
 *   /live/<channel>/dvr.m3u8[?start=<time>]           multivariant playlist of the window up to the live edge
 *   /live/<channel>/vod.m3u8?from=<time>&to=<time>    multivariant playlist of a stretch of time
 *   /live/<channel>/<rendition>/dvr.m3u8              media playlist: slides; gives delta updates
 *   /live/<channel>/<rendition>/event.m3u8?from&to    media playlist of a stretch that is not over: grows
 *   /live/<channel>/<rendition>/vod.m3u8?from&to      media playlist of a stretch that is over
 *   /live/<channel>/<rendition>/<number>.m4s          a segment that has left the live window
 *   /live/<channel>/<rendition>/init-<id>.mp4         its init segment
 *
 * Times are seconds since 1970 or ISO 8601. Without `to`, or with a `to` that is further away, the stretch is as long
 * as the window: a playlist that grows may not lose its start (RFC 8216, 6.2.1), and no segment is kept longer.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { pipeline } from 'node:stream/promises';
import {
  type MediaPlaylist,
  multivariantPlaylist,
  serialiseMediaPlaylist,
  serialiseMultivariantPlaylist,
  skippableSegmentCount,
} from '@starling/media/hls/playlist';
import {
  endUnixMs,
  epochUnixMs,
  type RecordedNames,
  type RecordedPlaylistKind,
  type RecordedSegment,
  recordedPlaylist,
} from '@starling/media/hls/recording';
import type { DvrStore } from './dvr-store.ts';
import {
  answerBadRequest,
  answerForbidden,
  answerMultivariant,
  answerPlaylist,
  answerUnavailable,
  beginMediaAnswer,
  clientOf,
  corsHeaders,
  mediaNames,
  notFound,
  RenderedPlaylist,
  segmentEtag,
} from './hls-answers.ts';
import type { Stream } from './stream.ts';
import { CHANNEL_FULL_TEXT, type ViewerRegistry } from './viewers.ts';
import type { Pass } from './viewing-access.ts';

/** Lifetimes in caches. Media as in hls-routes.ts: a channel that is created anew uses its names again. */
const MEDIA_MAX_AGE_TARGET_DURATIONS = 6;
const FINISHED_MAX_AGE_SECONDS = 60;
const NOT_FOUND_MAX_AGE_SECONDS = 1;

/** A stretch that ended this long ago gets no more segments, even if the channel went off the air before. */
const LATE_SEGMENT_MS = 30_000;
/** How far from the end of the list a start is at the least, in target durations. */
const START_HOLD_BACK_TARGET_DURATIONS = 3;
/** Renditions whose last segments lie further apart than this were not on the air together. */
const TOGETHER_MS = 30_000;
/** Rendered playlists in memory; those asked for longest ago make room. */
const MAX_RENDERED_BYTES = 32 * 2 ** 20;
const READ_SIZE_BYTES = 256 * 1024;
/** `setDate` and its like know no later time (ECMA-262, 21.4.1.1). */
const MAX_UNIX_MS = 8.64e15;

/** @param addressOf what playlists call a media file */
function recordedNames(addressOf: (name: string) => string): RecordedNames {
  const names = mediaNames(addressOf);
  return {
    init: names.init,
    segment: (mediaSequenceNumber, epoch) =>
      names.segment(mediaSequenceNumber) + (epoch === undefined ? '' : `?epoch=${epoch}`),
  };
}

/** What a playlist is to have; times in milliseconds since 1970. */
type Wanted =
  /** The whole window; playback starts at a time where the viewer says so. */
  | { readonly kind: 'dvr'; readonly startUnixMs: number | undefined }
  | { readonly kind: 'event' | 'vod'; readonly fromUnixMs: number; readonly toUnixMs: number };

export interface DvrRoutesOptions {
  readonly store: DvrStore;
  readonly viewers: ViewerRegistry;
  readonly countBytes: (channel: string, sizeBytes: number) => void;
  /** What playlists of a channel call a media file; the name itself when undefined. */
  readonly mediaAddress?: (channel: string, name: string) => string;
  /** Wall-clock time in milliseconds since 1970. */
  readonly nowUnixMs?: () => number;
}

export class DvrRoutes {
  readonly #store: DvrStore;
  readonly #viewers: ViewerRegistry;
  readonly #countBytes: (channel: string, sizeBytes: number) => void;
  readonly #mediaAddress: (channel: string, name: string) => string;
  readonly #nowUnixMs: () => number;
  /** By what was asked for; that asked for last comes last. */
  readonly #rendered = new Map<string, { readonly revision: number; readonly playlist: RenderedPlaylist }>();
  #renderedBytes = 0;

  constructor(options: DvrRoutesOptions) {
    this.#store = options.store;
    this.#viewers = options.viewers;
    this.#countBytes = options.countBytes;
    this.#mediaAddress = options.mediaAddress ?? ((_channel, name) => name);
    this.#nowUnixMs = options.nowUnixMs ?? Date.now;
  }

  /**
   * Answers a GET or HEAD for what lists the recording, below `/live/<channel>/`.
   * @param pass of who asks for a private channel
   * @returns false when the path is not of the recording
   */
  handle(
    channel: string,
    path: string,
    pass: Pass | undefined,
    request: IncomingMessage,
    response: ServerResponse,
  ): boolean {
    const exchange = { channel, request, response, pass };
    const giveUp = () => answerUnavailable(response, 'The recording cannot be read.');
    if (path === 'dvr.json') this.#answerExtent(exchange);
    else if (path === 'dvr.m3u8' || path === 'vod.m3u8') {
      const wanted = this.#wanted(path === 'vod.m3u8' ? 'vod' : 'dvr', exchange);
      if (wanted !== undefined) this.#answerMultivariant(exchange, wanted).catch(giveUp);
    } else {
      const [, rendition = '', kind] = /^([a-z0-9-]{1,16})\/(dvr|event|vod)\.m3u8$/.exec(path) ?? [];
      if (kind !== 'dvr' && kind !== 'event' && kind !== 'vod') return false;
      const wanted = this.#wanted(kind, exchange);
      if (wanted !== undefined) this.#answerMedia(exchange, rendition, wanted);
    }
    return true;
  }

  /**
   * Answers a GET or HEAD for a media file, below `/live/<channel>/`.
   * @param live the channel while it is on the air: what its live window has is not read from the disk
   * @returns false when it is not recorded, or need not be read from there
   */
  handleMedia(
    channel: string,
    path: string,
    live: Stream | undefined,
    request: IncomingMessage,
    response: ServerResponse,
  ): boolean {
    const exchange = { channel, request, response, pass: undefined };
    const [, rendition = '', file = ''] = /^([a-z0-9-]{1,16})\/([a-z0-9.-]{1,40})$/.exec(path) ?? [];
    const window = live?.rendition(rendition)?.window;
    const number = /^(\d{1,15})\.m4s$/.exec(file)?.[1];
    if (number !== undefined) {
      const epoch = /^\d{1,15}$/.exec(queryOf(request).get('epoch') ?? '')?.[0];
      if (epoch === undefined && window?.segment(Number(number)) !== undefined) return false;
      const segment = this.#store.segment(
        channel,
        rendition,
        Number(number),
        epoch === undefined ? undefined : Number(epoch),
      );
      if (segment === undefined) return false;
      void this.#answerSegment(exchange, rendition, segment);
      return true;
    }
    const initId = /^init-([0-9a-f]{16})\.mp4$/.exec(file)?.[1];
    if (initId === undefined || window?.init(initId) !== undefined) return false;
    if (!this.#store.hasInit(channel, rendition, initId)) return false;
    void this.#answerInit(exchange, rendition, initId);
    return true;
  }

  /** What a playlist request asks for; answered with 400 and undefined when it is none. */
  #wanted(kind: Wanted['kind'], { request, response }: Exchange): Wanted | undefined {
    const wanted = parseWanted(kind, queryOf(request), this.#store.windowMs);
    if (typeof wanted !== 'string') return wanted;
    answerBadRequest(response, wanted);
    return undefined;
  }

  // Playlists

  #answerExtent({ channel, request, response }: Exchange): void {
    const extent = this.#extent(channel);
    if (extent === undefined) return this.#answerNothing(response, channel);
    const body = JSON.stringify({
      from: new Date(extent.fromUnixMs).toISOString(),
      to: new Date(extent.toUnixMs).toISOString(),
      now: new Date(this.#nowUnixMs()).toISOString(),
      windowSeconds: this.#store.windowMs / 1000,
    });
    response.writeHead(200, {
      ...corsHeaders,
      'Content-Type': 'application/json',
      'Cache-Control': 'no-store',
      'Content-Length': body.length, // ASCII
    });
    response.end(request.method === 'HEAD' ? undefined : body);
  }

  async #answerMultivariant({ channel, request, response, pass }: Exchange, wanted: Wanted): Promise<void> {
    const found = this.#store.renditions(channel).map((rendition) => ({
      rendition,
      segments: this.#segments(channel, rendition, wanted),
    }));
    const lastUnixMs = Math.max(
      0,
      ...found.map(({ segments }) => segments.at(-1)?.programDateTimeUnixMs ?? 0),
    );
    const perRendition = await Promise.all(
      found.toSorted(compareRenditions).map(async ({ rendition, segments }) => {
        const newest = segments.at(-1);
        if (newest === undefined || lastUnixMs - newest.programDateTimeUnixMs > TOGETHER_MS) return [];
        const tracks = await this.#store.tracks(channel, rendition, newest.initId);
        if (tracks === undefined) return [];
        const init = { tracks };
        const needsCount = tracks.some((one) => one.kind === 'video' && one.frameDurationTicks === undefined);
        const bytes = needsCount ? await this.#store.read(channel, rendition, newest) : undefined;
        const described = segments.map((one) => ({
          durationTicks: one.durationTicks,
          sizeBytes: one.sizeBytes,
          init,
          parts: one === newest && bytes !== undefined ? [{ bytes }] : [],
        }));
        return [{ name: rendition, window: { segments: described } }];
      }),
    );
    const renditions = perRendition.flat();
    if (renditions.length === 0) return this.#answerNothing(response, channel);
    const token = pass?.tokenInAddress;
    const session = this.#viewers.newHlsSessionId() + (token === undefined ? '' : `&token=${token}`);
    const uri = (rendition: string) => {
      if (wanted.kind === 'dvr') {
        const start = wanted.startUnixMs === undefined ? '' : `start=${wanted.startUnixMs / 1000}&`;
        return `${rendition}/dvr.m3u8?${start}session=${session}`;
      }
      const isOver = this.#isOver(wanted.toUnixMs, this.#store.newestEndUnixMs(channel) ?? 0);
      const times = `from=${wanted.fromUnixMs / 1000}&to=${wanted.toUnixMs / 1000}`;
      return `${rendition}/${isOver ? 'vod' : 'event'}.m3u8?${times}&session=${session}`;
    };
    const text = serialiseMultivariantPlaylist(multivariantPlaylist(renditions, uri));
    this.#countBytes(channel, answerMultivariant(text, request, response));
  }

  #answerMedia({ channel, request, response, pass }: Exchange, rendition: string, asked: Wanted): void {
    const query = queryOf(request);
    const skip = query.get('_HLS_skip');
    const isDeltaUpdate = skip === 'YES' || skip === 'v2';
    // Who has the playlist has started: one delta update does for all, wherever that was.
    const wanted: Wanted =
      isDeltaUpdate && asked.kind === 'dvr' ? { kind: 'dvr', startUnixMs: undefined } : asked;
    const segments = this.#segments(channel, rendition, wanted);
    const newest = segments.at(-1);
    if (newest === undefined) return this.#answerNothing(response, channel);
    const session = query.get('session') ?? undefined;
    const viewer =
      request.method === 'HEAD'
        ? undefined
        : this.#viewers.touchHls(channel, session, clientOf(request, pass), newest.targetDurationMs);
    if (viewer === 'full') {
      return answerUnavailable(response, this.#viewers.whyFull(channel, pass) ?? CHANNEL_FULL_TEXT);
    }
    if (viewer === 'kicked') return answerForbidden(response);
    if (viewer !== undefined) viewer.rendition = rendition;
    const kind = this.#playlistKind(channel, wanted, newest);
    const newestEpochUnixMs = this.#store.newestEpochUnixMs(channel) ?? epochUnixMs(newest);
    const { isEnded } = kind;
    const names = recordedNames((name) => this.#mediaAddress(channel, name));
    const rendered = this.#render(
      // The address of one file shows whether those of all have changed.
      [
        channel,
        rendition,
        JSON.stringify(wanted),
        newestEpochUnixMs,
        isEnded,
        isDeltaUpdate,
        names.init(''),
      ].join(' '),
      this.#store.revision(channel, rendition),
      () => serialise(recordedPlaylist(segments, names, newestEpochUnixMs, kind), isDeltaUpdate),
    );
    const maxAgeSeconds = isEnded ? FINISHED_MAX_AGE_SECONDS : 1;
    const cacheControl = pass === undefined ? `public, max-age=${maxAgeSeconds}` : 'private, no-store';
    const sizeBytes = answerPlaylist(rendered, cacheControl, request, response);
    this.#countBytes(channel, sizeBytes);
    if (viewer !== undefined) viewer.sentBytes += sizeBytes;
  }

  #segments(channel: string, rendition: string, wanted: Wanted): readonly RecordedSegment[] {
    return wanted.kind === 'dvr'
      ? this.#store.listed(channel, rendition)
      : this.#store.within(channel, rendition, wanted.fromUnixMs, wanted.toUnixMs);
  }

  #playlistKind(channel: string, wanted: Wanted, newest: RecordedSegment): RecordedPlaylistKind {
    if (wanted.kind === 'dvr') {
      // Too near to the live edge there would be nothing to load ahead (RFC 8216, 4.3.5.2).
      const latestUnixMs = endUnixMs(newest) - START_HOLD_BACK_TARGET_DURATIONS * newest.targetDurationMs;
      const startUnixMs = wanted.startUnixMs && Math.min(wanted.startUnixMs, latestUnixMs);
      return { type: undefined, isEnded: this.#store.isOffAir(channel), startUnixMs };
    }
    const startUnixMs = wanted.fromUnixMs;
    if (wanted.kind === 'vod') return { type: 'VOD', isEnded: true, startUnixMs };
    return { type: 'EVENT', isEnded: this.#isOver(wanted.toUnixMs, endUnixMs(newest)), startUnixMs };
  }

  /** Nothing will be added to a stretch with this end. */
  #isOver(toUnixMs: number, recordedToUnixMs: number): boolean {
    return toUnixMs <= recordedToUnixMs || this.#nowUnixMs() - toUnixMs > LATE_SEGMENT_MS;
  }

  #render(key: string, revision: number, render: () => string): RenderedPlaylist {
    const known = this.#rendered.get(key);
    this.#rendered.delete(key);
    if (known !== undefined) this.#renderedBytes -= known.playlist.plain.length;
    const playlist = known?.revision === revision ? known.playlist : new RenderedPlaylist(render());
    this.#rendered.set(key, { revision, playlist });
    this.#renderedBytes += playlist.plain.length;
    for (const [oldest, { playlist: old }] of this.#rendered) {
      if (this.#renderedBytes <= MAX_RENDERED_BYTES || oldest === key) break;
      this.#rendered.delete(oldest);
      this.#renderedBytes -= old.plain.length;
    }
    return playlist;
  }

  #answerNothing(response: ServerResponse, channel: string): void {
    const extent = this.#extent(channel);
    const text =
      extent === undefined
        ? 'Nothing of this channel is recorded.'
        : `Nothing of this time is recorded, only from ${new Date(extent.fromUnixMs).toISOString()} to ${new Date(extent.toUnixMs).toISOString()}.`;
    notFound(response, text, NOT_FOUND_MAX_AGE_SECONDS);
  }

  /** What is listed of the channel. */
  #extent(channel: string): { readonly fromUnixMs: number; readonly toUnixMs: number } | undefined {
    const starts = this.#store
      .renditions(channel)
      .flatMap((rendition) => this.#store.listed(channel, rendition)[0]?.programDateTimeUnixMs ?? []);
    const toUnixMs = this.#store.newestEndUnixMs(channel);
    if (toUnixMs === undefined || starts.length === 0) return undefined;
    return { fromUnixMs: Math.min(...starts), toUnixMs };
  }

  // Media

  async #answerSegment(
    { channel, request, response }: Exchange,
    rendition: string,
    segment: RecordedSegment,
  ): Promise<void> {
    const file = await this.#store.open(channel, rendition, segment);
    if (file === undefined)
      return notFound(response, 'This segment is recorded no more.', NOT_FOUND_MAX_AGE_SECONDS);
    try {
      const range = beginMediaAnswer(request, response, {
        sizeBytes: segment.sizeBytes,
        etag: segmentEtag(segment),
        cacheControl: mediaCacheControl(segment),
      });
      if (range === undefined || range.start === range.end) return;
      // Ends the response; one that stands still is cut off by the server's deadline.
      await pipeline(
        file.createReadStream({
          start: range.start,
          end: range.end - 1,
          highWaterMark: READ_SIZE_BYTES,
          autoClose: false,
        }),
        response,
      );
      this.#countMedia(channel, request, range.end - range.start);
    } catch {
      response.destroy(); // the viewer has left, or the disk has failed: then the length is wrong
    } finally {
      await file.close().catch(() => {});
    }
  }

  async #answerInit({ channel, request, response }: Exchange, rendition: string, id: string): Promise<void> {
    const bytes = await this.#store.readInit(channel, rendition, id);
    if (bytes === undefined)
      return notFound(response, 'This init segment is recorded no more.', NOT_FOUND_MAX_AGE_SECONDS);
    const range = beginMediaAnswer(request, response, {
      sizeBytes: bytes.length,
      etag: `"${id}"`,
      cacheControl: `public, max-age=${FINISHED_MAX_AGE_SECONDS}, immutable`,
    });
    if (range === undefined) return;
    response.end(bytes.subarray(range.start, range.end));
    this.#countMedia(channel, request, range.end - range.start);
  }

  #countMedia(channel: string, request: IncomingMessage, sizeBytes: number): void {
    this.#countBytes(channel, sizeBytes);
    this.#viewers.countHlsMedia(channel, clientOf(request), sizeBytes);
  }
}

interface Exchange {
  readonly channel: string;
  readonly pass: Pass | undefined;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
}

function mediaCacheControl({ targetDurationMs }: RecordedSegment): string {
  const seconds = MEDIA_MAX_AGE_TARGET_DURATIONS * Math.max(1, Math.ceil(targetDurationMs / 1000));
  return `public, max-age=${seconds}, immutable`;
}

function serialise(playlist: MediaPlaylist, isDeltaUpdate: boolean): string {
  return serialiseMediaPlaylist(playlist, isDeltaUpdate ? skippableSegmentCount(playlist) : 0);
}

function queryOf(request: IncomingMessage): URLSearchParams {
  const url = request.url ?? '';
  const start = url.indexOf('?');
  return new URLSearchParams(start < 0 ? '' : url.slice(start));
}

/** @returns a sentence when the query has a time that is none */
function parseWanted(kind: Wanted['kind'], query: URLSearchParams, windowMs: number): Wanted | string {
  const times = kind === 'dvr' ? 'start' : 'from, and to if it is there,';
  const refusal = `${times} must be seconds since 1970 or a time like 2026-11-22T20:15:00Z.`;
  const timeAt = (name: string) => {
    const text = query.get(name);
    return text === null ? undefined : (parseTime(text) ?? Number.NaN);
  };
  if (kind === 'dvr') {
    const startUnixMs = timeAt('start');
    return Number.isNaN(startUnixMs) ? refusal : { kind, startUnixMs };
  }
  const fromUnixMs = timeAt('from') ?? Number.NaN;
  const toUnixMs = timeAt('to') ?? Number.POSITIVE_INFINITY;
  if (Number.isNaN(fromUnixMs) || Number.isNaN(toUnixMs)) return refusal;
  if (toUnixMs <= fromUnixMs) return 'to must be after from.';
  return { kind, fromUnixMs, toUnixMs: Math.min(toUnixMs, fromUnixMs + windowMs) };
}

/** Seconds since 1970, or ISO 8601 with a time zone. @returns milliseconds since 1970 */
function parseTime(text: string): number | undefined {
  if (/^\d{1,12}(\.\d{1,9})?$/.test(text)) return Math.round(Number(text) * 1000);
  // A plus sign in a query is a space.
  const iso = text.replace(' ', '+');
  if (!/^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:?\d\d)$/.test(iso)) return undefined;
  const unixMs = Date.parse(iso);
  return unixMs >= 0 && unixMs <= MAX_UNIX_MS ? unixMs : undefined;
}

/** In the order of their tracks: video before audio, by id. */
function compareRenditions(a: { readonly rendition: string }, b: { readonly rendition: string }): number {
  const place = ({ rendition }: { readonly rendition: string }) =>
    (rendition.startsWith('audio') ? 1000 : 0) + Number(/\d+$/.exec(rendition)?.[0] ?? 0);
  return place(a) - place(b);
}
