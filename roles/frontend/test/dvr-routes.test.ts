/** What viewers rewind into, over real HTTP, from recordings on a real disk. */
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync, unlinkSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as hlsParser from 'hls-parser';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { DvrRoutes } from '../src/dvr-routes.ts';
import { DvrStore } from '../src/dvr-store.ts';
import { HlsRoutes } from '../src/hls-routes.ts';
import { Stream } from '../src/stream.ts';
import { ViewerRegistry } from '../src/viewers.ts';
import { head, segment } from './synthetic-channel.ts';

hlsParser.setOptions({ silent: true });

const logger = pino({ level: 'silent' });
const WINDOW_SEGMENTS = 50;
/** Start of a segment of the synthetic channel, in seconds since 1970. */
const startOf = (number: number) => 1_700_000_000 + 2 * number;
const range = (first: number, last: number) => Array.from({ length: last - first + 1 }, (_, i) => first + i);

let dir: string;
let store: DvrStore;
let stream: Stream;
let hls: HlsRoutes;
let routes: DvrRoutes;
let viewers: ViewerRegistry;
let server: Server;
let base: string;
let isOnAir: boolean;
let nowUnixMs: number;

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'starling-dvr-'));
  nowUnixMs = 0;
  isOnAir = true;
  await start();
  server = createServer((request, response) => {
    const path = (request.url ?? '').split('?', 1)[0]?.slice(1) ?? '';
    const live = isOnAir ? stream : undefined;
    const isDone = /\.(m4s|mp4)$/.test(path)
      ? routes.handleMedia('tv', path, live, request, response)
      : routes.handle('tv', path, undefined, request, response);
    if (!isDone) hls.handle(path, request, response);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});

afterEach(async () => {
  server.closeAllConnections();
  server.close();
  await store.close();
  rmSync(dir, { recursive: true, force: true });
});

/** A frontend whose live window is so small that most is on the disk alone. */
async function start(): Promise<void> {
  viewers = new ViewerRegistry();
  store = await DvrStore.open({
    dir,
    windowMs: WINDOW_SEGMENTS * 2000,
    maxBytes: 2 ** 30,
    logger,
    nowUnixMs: () => nowUnixMs,
  });
  stream = new Stream({ channel: 'tv', partTargetMs: 400, windowDurationMs: 4000, logger });
  stream.listen({
    made: (rendition, event) => {
      if (event.type === 'segment') store.add('tv', rendition, event.segment);
    },
  });
  hls = new HlsRoutes(stream, viewers, () => undefined);
  routes = new DvrRoutes({ store, viewers, countBytes: () => undefined, nowUnixMs: () => nowUnixMs });
}

/** The channel shows segments up to this one. */
async function show(first: number, last: number): Promise<void> {
  const publisher = stream.addPublisher();
  const events = [
    ...head,
    ...range(first, last).flatMap((n) => segment(n)),
    ...segment(last + 1).slice(0, 1),
  ];
  for (const event of events) publisher.event(event, 1);
  publisher.end();
  await store.flush();
}

async function get(path: string, headers: Record<string, string> = {}, method = 'GET') {
  const response = await fetch(`${base}/${path}`, { headers, method });
  const body = Buffer.from(await response.arrayBuffer());
  return { status: response.status, headers: response.headers, body, text: body.toString() };
}

async function media(path: string) {
  const { status, text } = await get(path);
  expect(status, text).toBe(200);
  const playlist = hlsParser.parse(text);
  if (!('segments' in playlist)) throw new Error('taken for a multivariant playlist');
  return playlist;
}

/** The media playlist that a multivariant one leads to. */
async function follow(path: string): Promise<string> {
  const { status, text } = await get(path);
  expect(status, text).toBe(200);
  const playlist = hlsParser.parse(text);
  if (!('variants' in playlist)) throw new Error('taken for a media playlist');
  expect(playlist.variants).toHaveLength(1);
  expect(playlist.variants[0]).toMatchObject({ codecs: 'avc1.42c00a,mp4a.40.2', frameRate: 25 });
  return playlist.variants[0]?.uri ?? '';
}

const uris = ({ segments }: { segments: readonly { uri: string }[] }) => segments.map(({ uri }) => uri);
const files = (first: number, last: number) => range(first, last).map((n) => `${n}.m4s`);

describe('the whole window', () => {
  it('reaches back as far as the window and up to the live edge', async () => {
    await show(1, 70);
    const uri = await follow('dvr.m3u8');
    expect(uri).toMatch(/^main\/dvr\.m3u8\?session=[\w-]{16}$/);
    const playlist = await media(uri);
    expect(uris(playlist)).toEqual(files(21, 70));
    expect(playlist).toMatchObject({ mediaSequenceBase: 21, targetDuration: 2, endlist: false });
    expect(playlist.segments[0]?.programDateTime?.getTime()).toBe(startOf(21) * 1000);
    expect(JSON.parse((await get('dvr.json')).text)).toEqual({
      from: new Date(startOf(21) * 1000).toISOString(),
      to: new Date(startOf(71) * 1000).toISOString(),
      now: '1970-01-01T00:00:00.000Z',
      windowSeconds: 100,
    });
    await show(71, 71);
    expect(uris(await media(uri))).toEqual(files(22, 71));
  });

  it('is given as a delta update to who asks, and compressed', async () => {
    await show(1, 40);
    const delta = await get('main/dvr.m3u8?_HLS_skip=YES', { 'Accept-Encoding': 'gzip' });
    expect(delta.headers.get('content-encoding')).toBe('gzip');
    expect(delta.text).toContain('#EXT-X-SKIP:SKIPPED-SEGMENTS=34\n');
    expect(delta.text).not.toContain('\n34.m4s');
    expect(delta.text).toContain('\n35.m4s');
  });

  it('plays: every segment has the bytes that it had live, and its init segment is there', async () => {
    await show(1, 3);
    const live = await get('main/2.m4s');
    const init = /URI="(.+?)"/.exec((await get('main/index.m3u8')).text)?.[1] ?? '';
    const liveInit = await get(`main/${init}`);
    await show(4, 20);
    expect(stream.rendition('main')?.window.segment(2)).toBeUndefined();
    const recorded = await get('main/2.m4s');
    expect(recorded.status).toBe(200);
    expect(recorded.body.equals(live.body)).toBe(true);
    const { text } = await get('main/dvr.m3u8');
    expect(text).toContain(`#EXT-X-MAP:URI="${init}"`);
    expect((await get(`main/${init}`)).body.equals(liveInit.body)).toBe(true);
  });

  it('starts where the viewer asks, but not so near to the edge that there is nothing to load ahead', async () => {
    await show(1, 20);
    const uri = await follow(`dvr.m3u8?start=${startOf(5) + 0.5}`);
    expect(uri).toContain(`main/dvr.m3u8?start=${startOf(5)}.5&session=`);
    const startAt = async (path: string) => (await media(path)).start;
    expect(await startAt(uri)).toEqual({ offset: 8.5, precise: true });
    expect(await startAt(`main/dvr.m3u8?start=${startOf(-5)}`)).toEqual({ offset: 0, precise: true });
    expect(await startAt(`main/dvr.m3u8?start=${startOf(20)}`)).toEqual({ offset: 34, precise: true });
    expect(await startAt('main/dvr.m3u8')).toBeUndefined();
    expect((await get('dvr.m3u8?start=now')).status).toBe(400);
  });

  it('has an end once the channel has left the air, and is there until it is too old', async () => {
    await show(1, 10);
    isOnAir = false;
    nowUnixMs = (startOf(11) + 59) * 1000;
    expect(await media('main/dvr.m3u8')).toMatchObject({ endlist: false });
    nowUnixMs += 2000;
    expect(await media(await follow('dvr.m3u8'))).toMatchObject({ endlist: true });
    expect((await get('main/2.m4s')).status).toBe(200);
    nowUnixMs = startOf(10 + WINDOW_SEGMENTS) * 1000 + 1;
    store.trim();
    expect(await get('dvr.m3u8')).toMatchObject({
      status: 404,
      text: 'Nothing of this channel is recorded.\n',
    });
  });
});

describe('a stretch of time', () => {
  beforeEach(() => show(1, 40));

  it('that is over has the segments that contain it, and starts where it was asked to', async () => {
    const from = new Date(startOf(10) * 1000 + 500).toISOString();
    const uri = await follow(`vod.m3u8?from=${from}&to=${startOf(14) + 1}`);
    expect(uri).toContain(`main/vod.m3u8?from=${startOf(10)}.5&to=${startOf(14) + 1}&session=`);
    const playlist = await media(uri);
    expect(uris(playlist)).toEqual(files(10, 14));
    expect(playlist).toMatchObject({
      playlistType: 'VOD',
      endlist: true,
      start: { offset: 0.5, precise: true },
    });
  });

  it('that goes on grows without losing its start, and ends when it is over', async () => {
    const uri = await follow(`vod.m3u8?from=${startOf(35)}&to=${startOf(43)}`);
    const before = await media(uri);
    expect(uris(before)).toEqual(files(35, 40));
    expect(before).toMatchObject({ playlistType: 'EVENT', endlist: false, start: { offset: 0 } });
    await show(41, 41);
    expect(uris(await media(uri))).toEqual(files(35, 41));
    await show(42, 45);
    const after = await media(uri);
    expect(uris(after)).toEqual(files(35, 42));
    expect(after).toMatchObject({ playlistType: 'EVENT', endlist: true, mediaSequenceBase: 35 });
  });

  it('without an end goes on for as long as a window', async () => {
    const uri = await follow(`vod.m3u8?from=${startOf(3) + 1}`);
    expect(uri).toContain(`event.m3u8?from=${startOf(3) + 1}&to=${startOf(53) + 1}&`);
    await show(41, 52);
    expect(await media(uri)).toMatchObject({ endlist: false, mediaSequenceBase: 3 });
    await show(53, 53);
    expect(uris(await media(uri))).toEqual(files(3, 53));
    expect(await media(uri)).toMatchObject({ endlist: true, mediaSequenceBase: 3 });
  });

  it('ends by the clock where the channel left the air', async () => {
    const uri = await follow(`vod.m3u8?from=${startOf(35)}&to=${startOf(43)}`);
    nowUnixMs = startOf(43) * 1000 + 30_001;
    expect(await media(uri)).toMatchObject({ endlist: true });
  });

  it('is given as far as it is recorded', async () => {
    const playlist = await media(await follow(`vod.m3u8?from=${startOf(-20)}&to=${startOf(3)}`));
    expect(uris(playlist)).toEqual(files(1, 2));
    expect(playlist.start?.offset).toBe(0);
  });

  it.each([
    ['before the recording', `from=${startOf(-20)}&to=${startOf(-10)}`],
    ['after it', `from=${startOf(50)}&to=${startOf(60)}`],
  ])('%s is not found, and the answer says what there is', async (_when, query) => {
    const { status, text } = await get(`vod.m3u8?${query}`);
    expect([status, text]).toEqual([
      404,
      'Nothing of this time is recorded, only from 2023-11-14T22:13:22.000Z to 2023-11-14T22:14:42.000Z.\n',
    ]);
  });

  it.each([
    '',
    'from=yesterday',
    'from=2023-11-14',
    'from=1e9',
    `from=${startOf(2)}&to=${startOf(2)}`,
    `from=${startOf(2)}&to=`,
    'from=99999999999999',
    'from=9999-99-99T00:00Z',
  ])('that is none (%s) is refused with a sentence', async (query) => {
    for (const path of ['vod.m3u8', 'main/vod.m3u8', 'main/event.m3u8']) {
      const { status, text } = await get(`${path}?${query}`);
      expect(status).toBe(400);
      expect(text).toMatch(/^(from,|to) .+\.\n$/);
    }
  });

  it('takes a time zone other than UTC, its plus sign written either way', async () => {
    for (const plus of ['+', '%2B']) {
      const query = `from=2023-11-15T00:13:40${plus}02:00&to=2023-11-14T21:13:44-0100`;
      expect(uris(await media(`main/vod.m3u8?${query}`))).toEqual(files(10, 11));
    }
  });
});

describe('two frontends, and one that restarted', () => {
  it('give the same playlists for the same time', async () => {
    await show(1, 30);
    const paths = [`main/vod.m3u8?from=${startOf(5)}&to=${startOf(20)}`, 'main/dvr.m3u8', 'dvr.json'];
    const before = await Promise.all(paths.map((path) => get(path)));
    await store.close();
    await start();
    const after = await Promise.all(paths.map((path) => get(path)));
    expect(after.map(({ text }) => text)).toEqual(before.map(({ text }) => text));
    expect(await follow(`vod.m3u8?from=${startOf(5)}`)).toContain('main/event.m3u8');
    await show(34, 36);
    const playlist = await media('main/dvr.m3u8');
    expect(uris(playlist)).toEqual(files(1, 36));
    expect(playlist.segments.filter(({ gap }) => gap).map(({ uri }) => uri)).toEqual(files(31, 33));
    expect((await get('main/32.m4s')).status).toBe(404);
  });
});

describe('a segment', () => {
  beforeEach(() => show(1, 20));

  it.each([
    ['from the disk', 2],
    ['from memory', 20],
  ])('%s is given whole, in ranges, or not at all to who has it', async (_where, number) => {
    const path = `main/${number}.m4s`;
    const whole = await get(path);
    const size = whole.body.length;
    expect(Object.fromEntries(whole.headers)).toMatchObject({
      'content-type': 'video/mp4',
      'content-length': String(size),
      'accept-ranges': 'bytes',
      'cache-control': 'public, max-age=12, immutable',
      'access-control-allow-origin': '*',
    });
    const etag = whole.headers.get('etag') ?? '';
    expect(etag).toMatch(/^"[\w-]+"$/);

    const ranges: [header: string, start: number, end: number][] = [
      ['bytes=0-0', 0, 1],
      ['bytes=100-5099', 100, 5100],
      [`bytes=${size - 10}-`, size - 10, size],
      ['bytes=-10', size - 10, size],
      [`bytes=0-${size + 100}`, 0, size],
      [`bytes=-${size + 100}`, 0, size],
    ];
    for (const [header, start, end] of ranges) {
      const part = await get(path, { Range: header });
      expect(part.status).toBe(206);
      expect(part.headers.get('content-range')).toBe(`bytes ${start}-${end - 1}/${size}`);
      expect(part.body.equals(whole.body.subarray(start, end))).toBe(true);
    }
    for (const header of ['bytes=5-2', 'bytes=0-1,5-6', 'lines=1-2', 'bytes=-', 'bytes=a-b']) {
      expect((await get(path, { Range: header })).status).toBe(200);
    }
    const beyond = await get(path, { Range: `bytes=${size}-` });
    expect([beyond.status, beyond.headers.get('content-range')]).toEqual([416, `bytes */${size}`]);
    expect((await get(path, { Range: 'bytes=0-9', 'If-Range': etag })).status).toBe(206);
    expect((await get(path, { Range: 'bytes=0-9', 'If-Range': '"other"' })).status).toBe(200);

    expect((await get(path, { 'If-None-Match': `"other", W/${etag}` })).status).toBe(304);
    expect((await get(path, { 'If-None-Match': '"other"' })).status).toBe(200);
    const onlyHead = await get(path, {}, 'HEAD');
    expect([onlyHead.status, onlyHead.headers.get('content-length'), onlyHead.body.length]).toEqual([
      200,
      String(size),
      0,
    ]);
  });

  it('has the same tag on the disk as it had in memory', async () => {
    const live = await get('main/20.m4s');
    await show(21, 30);
    expect((await get('main/20.m4s')).headers.get('etag')).toBe(live.headers.get('etag'));
  });

  it('that somebody removed is not found', async () => {
    const folder = join(dir, 'tv', 'main');
    for (const name of readdirSync(folder)) if (name.includes('-2-0-')) unlinkSync(join(folder, name));
    expect((await get('main/2.m4s')).status).toBe(404);
  });

  it.each([
    'main/0.m4s',
    'main/999999999999999.m4s',
    'other/2.m4s',
    'main/2.m4s?epoch=1',
    'main/%2e%2e/2.m4s',
  ])('that was never recorded is not found: %s', async (path) => {
    expect((await get(path)).status).toBe(404);
  });

  it('of an earlier epoch has its number alone, and is found by both', async () => {
    const earlier = startOf(0) * 1000;
    const publisher = stream.addPublisher();
    const later = earlier + 100_000; // the channel was created anew
    const events = [...head, ...segment(1), ...segment(2), ...segment(3)].map((event) => {
      if (event.type === 'timeline') return { ...event, epochUnixMs: later };
      if (event.type !== 'cue') return event;
      const programDateTimeUnixMs = event.cue.programDateTimeUnixMs + 100_000;
      return { ...event, cue: { ...event.cue, programDateTimeUnixMs } };
    });
    for (const event of events) publisher.event(event, 1);
    await store.flush();
    const playlist = await media(`main/vod.m3u8?from=${startOf(19)}&to=${startOf(53)}`);
    expect(uris(playlist)).toEqual([`19.m4s?epoch=${earlier}`, `20.m4s?epoch=${earlier}`, '1.m4s', '2.m4s']);
    expect(playlist.segments[2]?.discontinuity).toBe(true);
    const [old, fresh] = [await get(`main/2.m4s?epoch=${earlier}`), await get('main/2.m4s')];
    expect([old.status, fresh.status]).toEqual([200, 200]);
    expect(old.headers.get('etag')).not.toBe(fresh.headers.get('etag'));
  });
});

describe('who rewinds', () => {
  it('is counted as one viewer of HLS, also of what is over, and can be shown out', async () => {
    await show(1, 20);
    const uri = await follow('dvr.m3u8');
    await media(uri);
    await media(uri);
    expect(viewers.countsOf('tv')).toEqual(new Map([['hls', 1]]));
    const [viewer] = viewers.list();
    const before = viewer?.sentBytes ?? 0;
    expect(before).toBeGreaterThan(0);
    const { body } = await get('main/2.m4s');
    expect(viewers.list()[0]?.sentBytes).toBe(before + body.length);
    viewers.kick(viewer?.id ?? '');
    expect((await get(uri)).status).toBe(403);
  });
});
