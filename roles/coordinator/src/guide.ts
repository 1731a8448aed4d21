/**
 * The addresses for IPTV players: the channels as M3U, and the programme of yesterday and the next days as
 * XMLTV.
 *
 * Sources: the README of Kodi's pvr.iptvsimple (M3U attributes) and the XMLTV DTD.
 */
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox';
import type { Channel, PublicChannel } from '@starling/model/entities';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { Type } from 'typebox';
import { ApiProblem } from './problem.ts';
import type { Programme, PublicChannels } from './public-channels.ts';
import { viewingRightOf, viewingTokenOf, WithViewingToken } from './viewing-routes.ts';
import type { ViewingRight, ViewingTokens } from './viewing-tokens.ts';

const HOURS_PER_DAY = 24;
const HOUR_MS = 3_600_000;
/** How far ahead the guide goes. */
const GUIDE_HOURS = 3 * HOURS_PER_DAY;
/** One a minute, for the days ahead. */
const MAX_ENTRIES_PER_CHANNEL = GUIDE_HOURS * 60;
const GUIDE_MAX_AGE_MS = 60_000;

const gzipped = promisify(gzip);
const TextOrGzip = Type.Unsafe<string | Buffer>(Type.String());

export interface PlaylistOptions {
  /** Scheme and host of the addresses, for instance `http://localhost:8080`. */
  readonly origin: string;
  /** How far back the recordings of the channels go; 0 when there are none. */
  readonly catchUpHours: number;
  /** Goes into the addresses of private channels, and of the guide. */
  readonly token?: string | undefined;
}

export function playlistOf(channels: readonly PublicChannel[], options: PlaylistOptions): string {
  const { origin, catchUpHours, token } = options;
  const query = token === undefined ? '' : `token=${encodeURIComponent(token)}`;
  const guideUrl = withQuery(`${origin}/guide.xml`, query);
  const lines = [`#EXTM3U url-tvg="${guideUrl}" x-tvg-url="${guideUrl}"`];
  for (const channel of channels.toSorted((a, b) => a.number - b.number)) {
    const { name, title, number, logo, group, kind, isPrivate } = channel;
    const address = (path: string) => withQuery(`${origin}/live/${name}/${path}`, isPrivate ? query : '');
    const attributes: Record<string, string> = {
      'tvg-id': name,
      'tvg-name': title,
      'tvg-chno': String(number),
      'tvg-logo': logo ?? address('thumbnail.jpg'),
      'group-title': group ?? (kind === 'live' ? 'Live' : 'Channels'),
    };
    if (catchUpHours > 0) {
      // `default`: the source is the whole address. {utc} and {utcend} are replaced by the programme's times.
      attributes.catchup = 'default';
      attributes['catchup-days'] = String(Math.ceil(catchUpHours / HOURS_PER_DAY));
      attributes['catchup-source'] = address('vod.m3u8?from={utc}&to={utcend}');
    }
    const text = Object.entries(attributes).map(([key, value]) => `${key}="${quotable(value)}"`);
    lines.push(`#EXTINF:-1 ${text.join(' ')},${printable(title)}`, address('index.m3u8'));
  }
  return `${lines.join('\n')}\n`;
}

/** @param programmes by channel */
export function guideOf(programmes: ReadonlyMap<Channel, readonly Programme[]>): string {
  const lines = ['<?xml version="1.0" encoding="UTF-8"?>', '<!DOCTYPE tv SYSTEM "xmltv.dtd">'];
  lines.push('<tv generator-info-name="Starling">');
  for (const { name, title, number, logo } of programmes.keys()) {
    const icon = logo === null ? '' : `<icon src="${xml(logo)}"/>`;
    lines.push(
      `  <channel id="${name}"><display-name>${xml(title)}</display-name>` +
        `<display-name>${number}</display-name>${icon}</channel>`,
    );
  }
  for (const [channel, entries] of programmes) {
    for (const { title, description, category, startsAtMs, endsAtMs } of entries) {
      const desc = description === undefined ? '' : `<desc>${xml(description)}</desc>`;
      const kind = category === undefined ? '' : `<category>${xml(category)}</category>`;
      lines.push(
        `  <programme start="${xmltvTime(startsAtMs)}" stop="${xmltvTime(endsAtMs)}" channel="${channel.name}">` +
          `<title>${xml(title)}</title>${desc}${kind}</programme>`,
      );
    }
  }
  lines.push('</tv>');
  return `${lines.join('\n')}\n`;
}

/** Scheme and host that a request was sent to. @throws ApiProblem REQUEST_INVALID */
export function originOf(request: FastifyRequest): string {
  if (!/^[\w.:[\]-]{1,260}$/.test(request.host)) {
    throw new ApiProblem('REQUEST_INVALID', 'The Host header is not the name of a host.');
  }
  return `${request.protocol}://${request.host}`;
}

interface Guide {
  readonly text: string;
  readonly gzip: Buffer;
}

export function guideRoutes(nouns: {
  readonly publicChannels: PublicChannels;
  readonly viewingTokens: ViewingTokens;
  /** How far back the recordings of the channels go; 0 when there are none. */
  readonly catchUpHours: number;
  readonly now: () => number;
}): FastifyPluginAsyncTypebox {
  const { publicChannels, viewingTokens, catchUpHours, now } = nouns;
  /** Of the public channels. */
  let current:
    | { readonly guide: Promise<Guide>; readonly atMs: number; readonly revision: number }
    | undefined;

  const render = async (right: ViewingRight): Promise<Guide> => {
    const hours = catchUpHours + GUIDE_HOURS;
    const maxCount = Math.ceil((MAX_ENTRIES_PER_CHANNEL * hours) / GUIDE_HOURS);
    const fromMs = now() - catchUpHours * HOUR_MS;
    const text = guideOf(await publicChannels.programmes(right, fromMs, hours, maxCount));
    return { text, gzip: await gzipped(text) };
  };
  /** Says also who may keep the answer. */
  const read = async (request: FastifyRequest, reply: FastifyReply): Promise<Guide> => {
    const right = await viewingRightOf(request, viewingTokens);
    reply.header(
      'cache-control',
      right.isPersonal ? 'no-store' : `public, max-age=${GUIDE_MAX_AGE_MS / 1000}`,
    );
    if (right.isPersonal) return render(right);
    const revision = await publicChannels.revision();
    if (current?.revision !== revision || now() - current.atMs > GUIDE_MAX_AGE_MS) {
      const guide = render(right);
      current = { guide, atMs: now(), revision };
      guide.catch(() => {
        current = undefined;
      });
    }
    return current.guide;
  };

  return async (app) => {
    // Players that run in a web page of another site may read all of it.
    app.addHook('onRequest', async (_request, reply) => {
      reply.header('access-control-allow-origin', '*').header('cross-origin-resource-policy', 'cross-origin');
    });
    app.get(
      '/playlist.m3u',
      {
        config: { access: 'public' },
        schema: {
          tags: ['public'],
          summary:
            'The channels as M3U, for IPTV players; with `?token=` the private ones that it opens, too',
          querystring: WithViewingToken,
          response: { 200: { content: { 'audio/x-mpegurl': { schema: Type.String() } } } },
        },
      },
      async (request, reply) => {
        const right = await viewingRightOf(request, viewingTokens);
        const text = playlistOf(await publicChannels.list(right), {
          origin: originOf(request),
          catchUpHours,
          token: right.isPersonal ? viewingTokenOf(request) : undefined,
        });
        return reply.type('audio/x-mpegurl; charset=utf-8').header('cache-control', 'no-cache').send(text);
      },
    );
    app.get(
      '/guide.xml',
      {
        config: { access: 'public' },
        schema: {
          tags: ['public'],
          summary:
            'The programme as XMLTV, compressed where the player takes that; `?token=` as in the playlist',
          querystring: WithViewingToken,
          response: { 200: { content: { 'application/xml': { schema: TextOrGzip } } } },
        },
      },
      async (request, reply) => {
        const guide = await read(request, reply);
        reply.type('application/xml; charset=utf-8').header('vary', 'accept-encoding');
        if (!takesGzip(request)) return reply.send(guide.text);
        return reply.header('content-encoding', 'gzip').send(guide.gzip);
      },
    );
    app.get(
      '/guide.xml.gz',
      {
        config: { access: 'public' },
        schema: {
          tags: ['public'],
          summary: 'The programme as a compressed XMLTV file; `?token=` as in the playlist',
          querystring: WithViewingToken,
          response: {
            200: { content: { 'application/gzip': { schema: TextOrGzip } } },
          },
        },
      },
      async (request, reply) => {
        const { gzip } = await read(request, reply);
        return reply.type('application/gzip').send(gzip);
      },
    );
  };
}

function withQuery(url: string, query: string): string {
  return query === '' ? url : `${url}${url.includes('?') ? '&' : '?'}${query}`;
}

/** RFC 9110, 12.5.3; a weight of 0 is a no. */
function takesGzip(request: FastifyRequest): boolean {
  const accepted = String(request.headers['accept-encoding'] ?? '').split(',');
  return accepted.some((coding) => /^\s*(gzip|\*)\s*(;\s*q=(?!0(\.0*)?\s*$)[\d.]+\s*)?$/i.test(coding));
}

/** `YYYYMMDDHHMMSS +0000` */
function xmltvTime(unixMs: number): string {
  return `${new Date(unixMs).toISOString().slice(0, 19).replace(/[-:T]/g, '')} +0000`;
}

/** On one line, without the control characters that neither format may hold. */
function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cs}\uFFFE\uFFFF]/gu, ' ');
}

/** Within the quotes of an attribute, which M3U cannot escape. */
function quotable(text: string): string {
  return printable(text).replaceAll('"', "'");
}

const entities: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };

function xml(text: string): string {
  return printable(text).replace(/[&<>"]/g, (character) => entities[character] ?? character);
}
