/** The public directory of channels, as the pages read it. */
import type { ChannelGuide, GuideProgramme, PublicChannel } from '@starling/model/entities';
import { keepPreviousData, useQuery } from '@tanstack/react-query';

import { useViewingToken } from './viewing-token.ts';

export type { ChannelGuide, GuideProgramme, PublicChannel };

const LIST_REFRESH_MS = 10_000;
const MIN_REFRESH_MS = 1_000;
const GUIDE_REFRESH_MS = 60_000;
const REQUEST_TIMEOUT_MS = 8_000;

/** The network has no channel of that name that this viewer may see. */
export class ChannelNotFoundError extends Error {}

/** The viewing token in the address opens nothing: it has expired, for instance. The message is for the viewer. */
export class TokenRefusedError extends Error {}

/** All channels; refreshed every 10 s, and when a programme that is on ends. */
export function useChannels() {
  const token = useViewingToken();
  return useQuery({
    queryKey: ['channels', { token }],
    queryFn: async ({ signal }) => readChannelList(await getJson('/api/v1/public/channels', token, signal)),
    refetchInterval: (query) => nextRefreshMs(query.state.data ?? [], Date.now()),
  });
}

/**
 * One channel.
 * @param refreshMs how often to ask again
 */
export function useChannel(name: string, refreshMs: number) {
  const token = useViewingToken();
  return useQuery({
    queryKey: ['channels', { token }, name],
    queryFn: async ({ signal }) =>
      readChannel(await getJson(`/api/v1/public/channels/${encodeURIComponent(name)}`, token, signal)),
    refetchInterval: (query) =>
      Math.min(refreshMs, nextRefreshMs(query.state.data ? [query.state.data] : [], Date.now())),
  });
}

/** What all channels show in some hours; refreshed every minute, for a schedule may change. */
export function useGuide(fromMs: number, hours: number) {
  const token = useViewingToken();
  const query = new URLSearchParams({ from: new Date(fromMs).toISOString(), hours: String(hours) });
  return useQuery({
    queryKey: ['guide', fromMs, hours, { token }],
    queryFn: async ({ signal }) => readGuide(await getJson(`/api/v1/public/guide?${query}`, token, signal)),
    refetchInterval: GUIDE_REFRESH_MS,
    placeholderData: keepPreviousData,
  });
}

/** How long to wait before asking again: 10 s, or less where a programme ends before that. */
export function nextRefreshMs(channels: readonly PublicChannel[], nowMs: number): number {
  let refreshMs = LIST_REFRESH_MS;
  for (const { now } of channels) {
    // A little after the end, so that the answer is about the next programme.
    if (now !== null) refreshMs = Math.min(refreshMs, Date.parse(now.endsAt) - nowMs + 250);
  }
  return Math.max(MIN_REFRESH_MS, refreshMs);
}

/**
 * The addresses of a channel's media, relative to the site.
 * @param token opens a private channel
 */
export function mediaPaths(
  channelName: string,
  token?: string | undefined,
): {
  readonly hls: string;
  /** What can be rewound to, as HLS; takes `start=` in seconds since 1970. */
  readonly dvr: string;
  /** How far that reaches back. */
  readonly dvrExtent: string;
  readonly flv: string;
  readonly ts: string;
  readonly thumbnail: string;
} {
  const base = `/live/${encodeURIComponent(channelName)}`;
  return {
    hls: withToken(`${base}/index.m3u8`, token),
    dvr: withToken(`${base}/dvr.m3u8`, token),
    dvrExtent: withToken(`${base}/dvr.json`, token),
    flv: withToken(`${base}.flv`, token),
    ts: withToken(`${base}.ts`, token),
    thumbnail: withToken(`${base}/thumbnail.jpg`, token),
  };
}

/** Puts a viewing token into an address that has no query yet. */
export function withToken(path: string, token: string | undefined): string {
  return token === undefined ? path : `${path}?${new URLSearchParams({ token })}`;
}

const SOURCES = ['primary', 'backup', 'playout', 'slate'] as const;

/** Takes the answer of the list request apart. @throws TypeError when it has another form */
export function readChannelList(value: unknown): PublicChannel[] {
  const items = field(value, 'items');
  if (!Array.isArray(items)) throw new TypeError('The list of channels has no items.');
  return items.map(readChannel);
}

/** Checks that a value is a channel. @throws TypeError when it has another form */
export function readChannel(value: unknown): PublicChannel {
  const kind = field(value, 'kind');
  const isOnAir = field(value, 'isOnAir');
  if (kind !== 'playout' && kind !== 'live') throw new TypeError('A channel is of an unknown kind.');
  const isPrivate = field(value, 'isPrivate');
  const viewerCount = field(value, 'viewerCount');
  if (typeof isOnAir !== 'boolean') throw new TypeError('A channel does not say whether it is on the air.');
  if (typeof isPrivate !== 'boolean') throw new TypeError('A channel does not say whether it is private.');
  if (typeof viewerCount !== 'number') throw new TypeError('A channel does not say how many watch it.');
  const now = field(value, 'now') ?? null;
  const next = field(value, 'next') ?? null;
  const number = field(value, 'number');
  if (typeof number !== 'number') throw new TypeError('A channel has no number.');
  const source = field(value, 'source') ?? null;
  return {
    name: text(value, 'name'),
    title: text(value, 'title'),
    number,
    logo: optionalText(value, 'logo') ?? null,
    group: optionalText(value, 'group') ?? null,
    kind,
    isPrivate,
    isOnAir,
    viewerCount,
    source: SOURCES.find((known) => known === source) ?? null,
    now:
      now === null
        ? null
        : { title: text(now, 'title'), startsAt: time(now, 'startsAt'), endsAt: time(now, 'endsAt') },
    next: next === null ? null : { title: text(next, 'title'), startsAt: time(next, 'startsAt') },
  };
}

/** Takes the answer of the guide request apart. @throws TypeError when it has another form */
export function readGuide(value: unknown): ChannelGuide[] {
  const items = field(value, 'items');
  if (!Array.isArray(items)) throw new TypeError('The guide has no items.');
  return items.map((item) => {
    const programmes = field(item, 'programmes');
    if (!Array.isArray(programmes)) throw new TypeError('A channel of the guide has no programmes.');
    return { name: text(item, 'name'), programmes: programmes.map(readProgramme) };
  });
}

function readProgramme(value: unknown): GuideProgramme {
  const description = optionalText(value, 'description');
  const category = optionalText(value, 'category');
  return {
    title: text(value, 'title'),
    ...(description !== undefined && { description }),
    ...(category !== undefined && { category }),
    startsAt: time(value, 'startsAt'),
    endsAt: time(value, 'endsAt'),
  };
}

/** @param token goes into a header, which nobody logs */
async function getJson(path: string, token: string | undefined, signal: AbortSignal): Promise<unknown> {
  const response = await fetch(path, {
    headers: {
      accept: 'application/json',
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
    },
    signal: AbortSignal.any([signal, AbortSignal.timeout(REQUEST_TIMEOUT_MS)]),
  });
  if (response.status === 404) {
    const problem: unknown = await response.json().catch(() => undefined);
    if (problem !== undefined && field(problem, 'code') === 'VIEWING_TOKEN_REFUSED') {
      throw new TokenRefusedError(text(problem, 'detail'));
    }
    throw new ChannelNotFoundError(`${path} does not exist.`);
  }
  if (!response.ok) throw new Error(`${path} answered ${response.status}.`);
  return await response.json();
}

/** @throws TypeError when the value is no object */
export function field(value: unknown, key: string): unknown {
  if (typeof value !== 'object' || value === null) throw new TypeError(`Expected an object with "${key}".`);
  return Object.getOwnPropertyDescriptor(value, key)?.value;
}

/** @throws TypeError when it is none */
export function text(value: unknown, key: string): string {
  const found = field(value, key);
  if (typeof found !== 'string') throw new TypeError(`"${key}" is not a text.`);
  return found;
}

function optionalText(value: unknown, key: string): string | undefined {
  return (field(value, key) ?? undefined) === undefined ? undefined : text(value, key);
}

function time(value: unknown, key: string): string {
  const found = text(value, key);
  if (Number.isNaN(Date.parse(found))) throw new TypeError(`"${key}" is not a time.`);
  return found;
}
