/**
 * The addresses for IPTV players: the channels as M3U, and the programme of the next 24 hours as XMLTV.
 *
 * Sources: the README of Kodi's pvr.iptvsimple (M3U attributes) and the XMLTV DTD.
 */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox';
import type { Channel, PublicChannel } from '@starling/model/entities';
import { Type } from 'typebox';
import { ApiProblem } from './problem.ts';
import type { Programme, PublicChannels } from './public-channels.ts';
import { viewingRightOf, viewingTokenOf, WithViewingToken } from './viewing-routes.ts';
import type { ViewingRight, ViewingTokens } from './viewing-tokens.ts';

const GUIDE_HOURS = 24;
/** One a minute. A loop of shorter clips is shown as the channel itself, hour by hour. */
const MAX_ENTRIES_PER_CHANNEL = GUIDE_HOURS * 60;
const HOUR_MS = 3_600_000;
const GUIDE_MAX_AGE_MS = 60_000;

/**
 * @param origin scheme and host of the addresses, for instance `http://localhost:8080`
 * @param token goes into the addresses of private channels, and of the guide
 */
export function playlistOf(
  channels: readonly PublicChannel[],
  origin: string,
  token: string | undefined,
): string {
  const query = token === undefined ? '' : `?token=${encodeURIComponent(token)}`;
  const guideUrl = `${origin}/guide.xml${query}`;
  const lines = [`#EXTM3U url-tvg="${guideUrl}" x-tvg-url="${guideUrl}"`];
  for (const { name, title, kind, isPrivate } of channels) {
    const group = kind === 'live' ? 'Live' : 'Channels';
    const label = printable(title);
    lines.push(
      `#EXTINF:-1 tvg-id="${name}" tvg-name="${label.replaceAll('"', "'")}" group-title="${group}",${label}`,
      `${origin}/live/${name}/index.m3u8${isPrivate ? query : ''}`,
    );
  }
  return `${lines.join('\n')}\n`;
}

/**
 * @param programmes by channel, from what is on now
 * @param nowMs the present, for channels without a programme of their own
 */
export function guideOf(programmes: ReadonlyMap<Channel, readonly Programme[]>, nowMs: number): string {
  const lines = ['<?xml version="1.0" encoding="UTF-8"?>', '<!DOCTYPE tv SYSTEM "xmltv.dtd">'];
  lines.push('<tv generator-info-name="Starling">');
  for (const { name, title } of programmes.keys()) {
    lines.push(`  <channel id="${name}"><display-name>${xml(title)}</display-name></channel>`);
  }
  for (const [channel, scheduled] of programmes) {
    const isListable = scheduled.length > 0 && scheduled.length < MAX_ENTRIES_PER_CHANNEL;
    for (const { title, startsAtMs, endsAtMs } of isListable ? scheduled : hourly(channel.title, nowMs)) {
      lines.push(
        `  <programme start="${xmltvTime(startsAtMs)}" stop="${xmltvTime(endsAtMs)}" channel="${channel.name}">` +
          `<title>${xml(title)}</title></programme>`,
      );
    }
  }
  lines.push('</tv>');
  return `${lines.join('\n')}\n`;
}

export function guideRoutes(nouns: {
  readonly publicChannels: PublicChannels;
  readonly viewingTokens: ViewingTokens;
  readonly now: () => number;
}): FastifyPluginAsyncTypebox {
  return async (app) => {
    const { publicChannels, viewingTokens, now } = nouns;
    const render = async (right: ViewingRight) =>
      guideOf(await publicChannels.programmes(right, GUIDE_HOURS, MAX_ENTRIES_PER_CHANNEL), now());
    /** Of the public channels. */
    let guide: { readonly text: Promise<string>; readonly atMs: number } | undefined;

    // Players that run in a web page of another site may read both.
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
        if (!/^[\w.:[\]-]{1,260}$/.test(request.host)) {
          throw new ApiProblem('REQUEST_INVALID', 'The Host header is not the name of a host.');
        }
        const right = await viewingRightOf(request, viewingTokens);
        const text = playlistOf(
          await publicChannels.list(right),
          `${request.protocol}://${request.host}`,
          right.isPersonal ? viewingTokenOf(request) : undefined,
        );
        return reply.type('audio/x-mpegurl; charset=utf-8').header('cache-control', 'no-cache').send(text);
      },
    );
    app.get(
      '/guide.xml',
      {
        config: { access: 'public' },
        schema: {
          tags: ['public'],
          summary: 'The programme of the next 24 hours as XMLTV; `?token=` as in the playlist',
          querystring: WithViewingToken,
          response: { 200: { content: { 'application/xml': { schema: Type.String() } } } },
        },
      },
      async (request, reply) => {
        reply.type('application/xml; charset=utf-8');
        const right = await viewingRightOf(request, viewingTokens);
        if (right.isPersonal) return reply.header('cache-control', 'no-store').send(await render(right));
        if (guide === undefined || now() - guide.atMs > GUIDE_MAX_AGE_MS) {
          guide = { text: render(right), atMs: now() };
          guide.text.catch(() => {
            guide = undefined;
          });
        }
        return reply
          .header('cache-control', `public, max-age=${GUIDE_MAX_AGE_MS / 1000}`)
          .send(await guide.text);
      },
    );
  };
}

function* hourly(title: string, nowMs: number): Generator<Programme> {
  const firstMs = Math.floor(nowMs / HOUR_MS) * HOUR_MS;
  for (let hour = 0; hour < GUIDE_HOURS; hour++) {
    const startsAtMs = firstMs + hour * HOUR_MS;
    yield { title, startsAtMs, endsAtMs: startsAtMs + HOUR_MS };
  }
}

/** `YYYYMMDDHHMMSS +0000` */
function xmltvTime(unixMs: number): string {
  return `${new Date(unixMs).toISOString().slice(0, 19).replace(/[-:T]/g, '')} +0000`;
}

/** On one line, without the control characters that neither format may hold. */
function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cs}\uFFFE\uFFFF]/gu, ' ');
}

function xml(text: string): string {
  return printable(text).replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`);
}
