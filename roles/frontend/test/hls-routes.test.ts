/** The delivery directives and status codes of draft-pantos-hls-rfc8216bis, section 6.2.5, over real HTTP. */
import { once } from 'node:events';
import { createServer, request as httpRequest, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { gunzipSync, gzipSync } from 'node:zlib';
import type { StreamEvent } from '@starling/media/access-unit';
import { serialiseMediaPlaylist } from '@starling/media/hls/playlist';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { HlsRoutes } from '../src/hls-routes.ts';
import { Stream } from '../src/stream.ts';
import { ViewerRegistry } from '../src/viewers.ts';
import { head, ladder, ladderHead, ladderSegment, segment } from './synthetic-channel.ts';

// As they are, but counted.
vi.mock('node:zlib', { spy: true });
vi.mock('@starling/media/hls/playlist', { spy: true });

const PART_TARGET_MS = 400;
/** With targets of 2 s and 0.4 s: the Advance Part Limit is 3 / 0.4, rounded up. */
const ADVANCE_PART_LIMIT = 8;

let stream: Stream;
let viewers: ViewerRegistry;
let routes: HlsRoutes;
let server: Server;
let push: (events: readonly StreamEvent[]) => void;

function newStream(): Stream {
  return new Stream({
    channel: 'test',
    partTargetMs: PART_TARGET_MS,
    windowDurationMs: 30_000,
    logger: pino({ level: 'silent' }),
  });
}

beforeEach(async () => {
  stream = newStream();
  viewers = new ViewerRegistry();
  routes = new HlsRoutes(stream, viewers, () => undefined, { maxWaiters: 3 });
  server = createServer((request, response) => {
    const path = (request.url ?? '').split('?', 1)[0] ?? '';
    routes.handle(path.slice(1), request, response);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const publisher = stream.addPublisher();
  push = (events) => {
    for (const event of events) publisher.event(event, 1);
  };
  push(head);
});

afterEach(async () => {
  routes.close();
  server.closeAllConnections();
  server.close();
  await once(server, 'close');
});

interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Buffer;
  readonly text: string;
}

/** A request under way. */
function ask(path: string, headers: Record<string, string> = {}, method = 'GET') {
  const { port } = server.address() as AddressInfo;
  const request = httpRequest({ port, host: '127.0.0.1', path: `/${path}`, headers, method });
  const answered = new Promise<Answer>((resolve, reject) => {
    request.on('error', reject);
    request.on('response', (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('end', () => {
        const raw = Buffer.concat(chunks);
        const body = response.headers['content-encoding'] === 'gzip' ? gunzipSync(raw) : raw;
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          body,
          text: body.toString(),
        });
      });
    });
  });
  answered.catch(() => undefined); // one test aborts its request
  request.end();
  return { answered, abort: () => request.destroy() };
}

const get = (path: string, headers?: Record<string, string>) => ask(path, headers).answered;
const untilWaiting = (count: number) => vi.waitFor(() => expect(routes.waiterCount).toBe(count));

/** Frames of the segment that a part target holds, and the frame that shows that the part is over. */
function unitsUpToVideo(number: number, frameCount: number): StreamEvent[] {
  const events = segment(number);
  let seen = 0;
  const end = events.findIndex(
    (event) => event.type === 'unit' && event.unit.kind === 'video' && ++seen > frameCount,
  );
  return end < 0 ? events : events.slice(0, end);
}
/** The segment from its cue to the end of its first `parts` parts; each has ten frames of 40 ms. */
const upToPart = (number: number, parts: number) => unitsUpToVideo(number, 10 * parts + 1);
const after = (number: number, done: readonly StreamEvent[]) => segment(number).slice(done.length);

describe('a player without directives', () => {
  it('gets the playlist as it is, with what low latency adds to it', async () => {
    push([...segment(5), ...segment(6), ...upToPart(7, 2)]);
    const answer = await get('main/index.m3u8');
    expect(answer.status).toBe(200);
    expect(answer.headers).toMatchObject({
      'content-type': 'application/vnd.apple.mpegurl',
      'cache-control': 'public, max-age=1',
      'access-control-allow-origin': '*',
      vary: 'Accept-Encoding',
    });
    expect(answer.text).toMatch(/6\.m4s\n#EXT-X-PROGRAM-DATE-TIME:\S+\n/);
    expect(answer.text).toContain('#EXT-X-PART:DURATION=0.400000,URI="7.1.m4s"\n#EXT-X-PRELOAD-HINT');
    expect(answer.text).toContain('#EXT-X-PRELOAD-HINT:TYPE=PART,URI="7.2.m4s"');
    const zipped = await get('main/index.m3u8', { 'Accept-Encoding': 'gzip' });
    expect(zipped.headers['content-encoding']).toBe('gzip');
    expect(zipped.text).toBe(answer.text);
  });

  it('is told that there is nothing yet', async () => {
    const answer = await get('main/index.m3u8');
    expect([answer.status, answer.headers['cache-control']]).toEqual([404, 'public, max-age=1']);
  });
});

describe('a blocking reload', () => {
  beforeEach(() => push([...segment(5), ...segment(6)]));

  it('is answered when the part is there, and not before', async () => {
    const first = upToPart(7, 1);
    push(first);
    const waiting = ask('main/index.m3u8?_HLS_msn=7&_HLS_part=1');
    await untilWaiting(1);
    push(upToPart(7, 2).slice(first.length));
    const answer = await waiting.answered;
    expect(answer.status).toBe(200);
    expect(answer.headers['cache-control']).toBe('public, max-age=12');
    expect(answer.text).toContain('URI="7.1.m4s"\n#EXT-X-PRELOAD-HINT:TYPE=PART,URI="7.2.m4s"');
    expect(routes.waiterCount).toBe(0);
  });

  it('is rendered and compressed once a part, however many wait and come later', async () => {
    const first = upToPart(7, 1);
    push(first);
    const path = 'main/index.m3u8?_HLS_msn=7&_HLS_part=1';
    const gzip = { 'accept-encoding': 'gzip' };
    const waiting = [ask(path, gzip), ask(path, gzip), ask(`${path}&_HLS_skip=YES`, gzip)];
    await untilWaiting(3);
    vi.mocked(serialiseMediaPlaylist).mockClear();
    vi.mocked(gzipSync).mockClear();
    push(upToPart(7, 2).slice(first.length));
    const texts = await Promise.all(waiting.map(async ({ answered }) => (await answered).text));
    expect(texts[1]).toBe(texts[0]);
    expect((await get(path, gzip)).text).toBe(texts[0]);
    expect((await get('main/index.m3u8')).text).toBe(texts[0]);
    // The whole playlist and the delta update.
    expect(serialiseMediaPlaylist).toHaveBeenCalledTimes(2);
    expect(gzipSync).toHaveBeenCalledTimes(2);
  });

  it('for a segment alone waits for the whole segment', async () => {
    const open = upToPart(7, 3);
    push(open);
    const waiting = ask('main/index.m3u8?_HLS_msn=7');
    await untilWaiting(1);
    push(after(7, open));
    expect(routes.waiterCount).toBe(1);
    push(segment(8));
    expect((await waiting.answered).text).toContain('\n7.m4s\n');
  });

  it('shows a finished segment at once, never its last part without it', async () => {
    const open = upToPart(7, 4);
    push(open);
    const waiting = ask('main/index.m3u8?_HLS_msn=7&_HLS_part=4');
    await untilWaiting(1);
    push([...after(7, open), ...segment(8).slice(0, 2)]);
    expect((await waiting.answered).text).toMatch(
      /URI="7\.4\.m4s"\n#EXTINF:2\.000000,\n7\.m4s\n#EXT-X-PRELOAD-HINT:TYPE=PART,URI="8\.0\.m4s"\n$/,
    );
  });

  it('takes a part past the end of a finished segment for part 0 of the next', async () => {
    push(segment(7));
    const waiting = ask('main/index.m3u8?_HLS_msn=6&_HLS_part=5');
    // Segment 7 is open and has part 0 already.
    expect((await waiting.answered).status).toBe(200);
    push(segment(8).slice(0, 2));
    const next = ask('main/index.m3u8?_HLS_msn=7&_HLS_part=9');
    await untilWaiting(1);
    push(upToPart(8, 1).slice(2));
    expect((await next.answered).text).toContain('URI="8.0.m4s",INDEPENDENT=YES\n');
  });

  it('gets what is there now when it asks for something old', async () => {
    const answer = await get('main/index.m3u8?_HLS_msn=1&_HLS_part=0');
    expect([answer.status, answer.headers['cache-control']]).toEqual([200, 'public, max-age=12']);
    expect((await get('main/index.m3u8?_HLS_msn=5')).status).toBe(200);
  });

  it.each([
    ['a part without a segment', '_HLS_part=0'],
    ['no number', '_HLS_msn=seven'],
    ['a negative number', '_HLS_msn=7&_HLS_part=-1'],
    ['the segment three after the last', '_HLS_msn=8'],
    ['a part beyond the Advance Part Limit', `_HLS_msn=6&_HLS_part=${ADVANCE_PART_LIMIT + 1}`],
  ])('is refused for %s', async (_, query) => {
    // Segment 5 is the last finished one; part 0 of segment 6 the newest.
    stream = newStream();
    routes.close();
    routes = new HlsRoutes(stream, viewers, () => undefined, { maxWaiters: 3 });
    const publisher = stream.addPublisher();
    for (const event of [...head, ...segment(4), ...segment(5), ...upToPart(6, 1)]) publisher.event(event, 1);
    const answer = await get(`main/index.m3u8?${query}`);
    expect([answer.status, answer.headers['cache-control']]).toEqual([400, 'no-store']);
  });

  it('waits for what lies just within the limits', async () => {
    push(upToPart(7, 1));
    ask('main/index.m3u8?_HLS_msn=8');
    ask(`main/index.m3u8?_HLS_msn=7&_HLS_part=${ADVANCE_PART_LIMIT}`);
    await untilWaiting(2);
  });

  it('is answered 503 when nothing has come in three target durations', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'performance'] });
    try {
      const waiting = ask('main/index.m3u8?_HLS_msn=7');
      while (routes.waiterCount === 0) await new Promise((wake) => setImmediate(wake));
      vi.advanceTimersByTime(5_999);
      expect(routes.waiterCount).toBe(1);
      vi.advanceTimersByTime(501); // they are looked at twice a second
      const answer = await waiting.answered;
      expect([answer.status, answer.headers['retry-after']]).toEqual([503, '1']);
      expect(answer.headers['cache-control']).toBe('no-store');
      expect(routes.waiterCount).toBe(0);
    } finally {
      vi.useRealTimers();
    }
  });

  it('is refused while as many wait as may', async () => {
    const waiting = [1, 2, 3].map(() => ask('main/index.m3u8?_HLS_msn=7'));
    await untilWaiting(3);
    expect((await get('main/index.m3u8?_HLS_msn=7')).status).toBe(503);
    push([...segment(7), ...segment(8).slice(0, 1)]);
    const statuses = await Promise.all(waiting.map(async ({ answered }) => (await answered).status));
    expect(statuses).toEqual([200, 200, 200]);
  });

  it('is forgotten when the player leaves', async () => {
    const waiting = ask('main/index.m3u8?_HLS_msn=7');
    await untilWaiting(1);
    waiting.abort();
    await untilWaiting(0);
  });

  it('is released when the channel is created anew', async () => {
    const waiting = ask('main/index.m3u8?_HLS_msn=7');
    await untilWaiting(1);
    const again = stream.addPublisher();
    again.event({ type: 'timeline', epochUnixMs: 1_800_000_000_000 }, 1);
    expect((await waiting.answered).status).toBe(503);
    for (const event of [...head.slice(1), ...segment(3), ...segment(4)]) again.event(event, 1);
    expect((await get('main/index.m3u8')).text).toContain('#EXT-X-MEDIA-SEQUENCE:3\n');
  });

  it('is hung up on when the frontend closes, so that a balancer asks another one', async () => {
    const waiting = ask('main/index.m3u8?_HLS_msn=7');
    await untilWaiting(1);
    const hungUp = expect(waiting.answered).rejects.toThrow('socket hang up');
    routes.close();
    await hungUp;
  });

  it('on a channel without a playlist is answered 404, kept for four target durations', async () => {
    stream = newStream();
    routes = new HlsRoutes(stream, viewers, () => undefined);
    const answer = await get('main/index.m3u8?_HLS_msn=7');
    expect([answer.status, answer.headers['cache-control']]).toEqual([404, 'public, max-age=4']);
  });
});

describe('a delta update', () => {
  it.each(['YES', 'v2'])('for _HLS_skip=%s leaves out what the player has', async (value) => {
    for (let number = 5; number < 20; number++) push(segment(number));
    const full = await get('main/index.m3u8');
    const delta = await get(`main/index.m3u8?_HLS_skip=${value}`);
    // Segments 5 to 18 are finished; the six newest lie within 12 s.
    expect(delta.text).toContain('#EXT-X-SKIP:SKIPPED-SEGMENTS=8\n');
    expect(delta.text).not.toContain('\n12.m4s');
    const tail = (text: string) => text.slice(text.indexOf('#EXT-X-PROGRAM', text.indexOf('\n12.m4s')));
    expect(delta.text.endsWith(tail(full.text))).toBe(true);
    expect(delta.headers['cache-control']).toBe('public, max-age=1');
    expect((await get('main/index.m3u8?_HLS_skip=NO')).text).toBe(full.text);
  });
});

describe('a part', () => {
  beforeEach(() => push([...segment(5), ...segment(6)]));

  it('that is there has the bytes that the segment has there', async () => {
    push(segment(7));
    const parts = await Promise.all([0, 1, 2, 3, 4].map((index) => get(`main/6.${index}.m4s`)));
    const whole = await get('main/6.m4s');
    expect(Buffer.concat(parts.map((part) => part.body)).equals(whole.body)).toBe(true);
    expect(parts[0]?.headers).toMatchObject({
      'content-type': 'video/mp4',
      'cache-control': 'public, max-age=12, immutable',
    });
  });

  it('that a hint names comes whole as soon as it is made', async () => {
    const first = upToPart(7, 1);
    push(first);
    const waiting = ask('main/7.1.m4s');
    await untilWaiting(1);
    push(upToPart(7, 2).slice(first.length));
    const answer = await waiting.answered;
    expect(answer.status).toBe(200);
    expect(answer.headers['content-length']).toBe(String(answer.body.length));
    expect(answer.headers['transfer-encoding']).toBeUndefined();
  });

  it('that the segment ended without is not found', async () => {
    const open = upToPart(7, 4);
    push(open);
    const waiting = ask('main/7.5.m4s');
    await untilWaiting(1);
    push([...after(7, open), ...segment(8).slice(0, 1)]);
    const answer = await waiting.answered;
    expect([answer.status, answer.headers['cache-control']]).toEqual([404, 'public, max-age=2']);
    expect((await get('main/7.5.m4s')).status).toBe(404);
  });

  it('that nobody hinted at is not found', async () => {
    expect((await get('main/1.0.m4s')).status).toBe(404);
    expect((await get('main/9.0.m4s')).status).toBe(404);
    expect((await get('main/7.99.m4s')).status).toBe(404);
  });

  it('is answered to HEAD without a body', async () => {
    const answer = await ask('main/5.0.m4s', {}, 'HEAD').answered;
    expect(answer.status).toBe(200);
    expect(Number(answer.headers['content-length'])).toBeGreaterThan(0);
    expect(answer.body.length).toBe(0);
  });
});

describe('a segment', () => {
  beforeEach(() => push([...segment(5), ...segment(6)]));

  it('that another frontend listed already is waited for', async () => {
    push(upToPart(7, 2));
    const waiting = ask('main/7.m4s');
    await untilWaiting(1);
    push([...after(7, upToPart(7, 2)), ...segment(8).slice(0, 1)]);
    const answer = await waiting.answered;
    expect(answer.status).toBe(200);
    expect(answer.body.equals((await get('main/7.m4s')).body)).toBe(true);
  });

  it('that is long gone or far ahead is not found', async () => {
    expect((await get('main/1.m4s')).status).toBe(404);
    expect((await get('main/10.m4s')).status).toBe(404);
  });
});

describe('a viewer', () => {
  const mediaAddress = async () => {
    const { text } = await get('index.m3u8');
    return /^main\/index\.m3u8\?session=[\w-]{16}$/m.exec(text)?.[0] ?? text;
  };
  const counted = () => viewers.list().map(({ id }) => id);

  beforeEach(() => push([...segment(5), ...segment(6), ...upToPart(7, 2)]));

  it('is given a session of its own by the multivariant playlist, and counts once it asks for the media', async () => {
    const multivariant = await get('index.m3u8');
    expect(multivariant.headers['cache-control']).toBe('no-store');
    expect(Number(multivariant.headers['content-length'])).toBe(multivariant.body.length);
    const [mine, other] = [await mediaAddress(), await mediaAddress()];
    expect(mine).not.toBe(other);
    await ask(mine, {}, 'HEAD').answered;
    expect(counted()).toEqual([]);
    await get(mine);
    const { text } = await get(`${mine}&_HLS_msn=6`);
    await get(other);
    expect(counted()).toEqual([mine, other].map((address) => address.split('session=')[1]));
    expect(text).toBe((await get('main/index.m3u8')).text);
    expect(text).not.toContain('session');
  });

  it('is there while its request waits, and after it until its time is over', async () => {
    const waiting = ask(`${await mediaAddress()}&_HLS_msn=7`);
    await untilWaiting(1);
    const [viewer] = viewers.list();
    push(after(7, upToPart(7, 2)));
    push(segment(8));
    const { body } = await waiting.answered;
    expect(viewers.list()).toEqual([{ ...viewer, sentBytes: body.length }]);
    const media = await get('main/6.m4s');
    expect(viewers.list()).toEqual([{ ...viewer, sentBytes: body.length + media.body.length }]);
  });

  it('that was kicked is answered 403, another one as before', async () => {
    const [mine, other] = [await mediaAddress(), await mediaAddress()];
    await get(mine);
    viewers.kick(mine.split('session=')[1] ?? '');
    const answer = await get(mine);
    expect([answer.status, answer.headers['cache-control']]).toEqual([403, 'no-store']);
    expect((await get(other)).status).toBe(200);
  });

  it('that is one too many is answered 503', async () => {
    routes.close();
    viewers = new ViewerRegistry({ maxViewersOf: () => 1 });
    routes = new HlsRoutes(stream, viewers, () => undefined);
    const [mine, other] = [await mediaAddress(), await mediaAddress()];
    expect((await get(mine)).status).toBe(200);
    const answer = await get(other);
    expect([answer.status, answer.headers['cache-control']]).toEqual([503, 'no-store']);
    expect(answer.text).toContain('all the viewers');
    expect((await get(mine)).status).toBe(200);
  });
});

describe('a channel of several renditions', () => {
  const PLAYLISTS = ['video-0', 'video-1', 'audio-0', 'audio-4'].map((name) => `${name}/index.m3u8`);

  beforeEach(() => {
    stream = newStream();
    routes.close();
    routes = new HlsRoutes(stream, viewers, () => undefined);
    const publisher = stream.addPublisher();
    push = (events) => {
      for (const event of events) publisher.event(event, 1);
    };
    push([...ladderHead, ...ladderSegment(5), ...ladderSegment(6)]);
  });

  it('gives a player the addresses of all with one session', async () => {
    const { text } = await get('index.m3u8');
    const sessions = new Set(Array.from(text.matchAll(/session=([\w-]{16})/g), ([, id]) => id));
    expect(sessions.size).toBe(1);
    const [session] = sessions;
    const addresses = Array.from(text.matchAll(/^[a-z].*$|URI="(.*?)"/gm), ([line, uri]) => uri ?? line);
    expect(addresses.sort()).toEqual(PLAYLISTS.map((path) => `${path}?session=${session}`).sort());
    for (const address of addresses) expect((await get(address)).status).toBe(200);
    expect(viewers.list().map(({ id }) => id)).toEqual([session]);
    expect(text).toContain('NAME="Deutsch",LANGUAGE="de"');
    const length = Buffer.byteLength(text);
    expect(Number((await get('index.m3u8')).headers['content-length'])).toBe(length);
  });

  it('reports every other rendition in each playlist, without a query', async () => {
    for (const path of PLAYLISTS) {
      const { text } = await get(`${path}?session=abcdefghijklmnop`);
      const reports = Array.from(text.matchAll(/RENDITION-REPORT:URI="(.*?)",(.*)/g), ([, uri, end]) => [
        uri,
        end,
      ]);
      // Segment 6 is open: its units came to 2 s less the last, so four parts are made.
      const others = PLAYLISTS.filter((other) => other !== path);
      expect(reports).toEqual(others.map((other) => [`../${other}`, 'LAST-MSN=6,LAST-PART=3']));
    }
  });

  it('has media of its own under each name', async () => {
    const bodies = await Promise.all(PLAYLISTS.map((path) => get(path.replace('index.m3u8', '5.m4s'))));
    expect(bodies.map(({ status }) => status)).toEqual([200, 200, 200, 200]);
    expect(new Set(bodies.map(({ body }) => body.toString('base64'))).size).toBe(4);
    for (const path of PLAYLISTS) {
      const { text } = await get(path);
      const init = /MAP:URI="(.*?)"/.exec(text)?.[1] ?? '';
      expect((await get(path.replace('index.m3u8', init))).status).toBe(200);
    }
    for (const path of ['main/index.m3u8', 'main/5.m4s', 'video-2/5.m4s', 'video-0/6.9.m4s/x', 'video-0/']) {
      expect((await get(path)).status, path).toBe(404);
    }
  });

  it('answers who waits for a part of one rendition when that one has it', async () => {
    const waiting = PLAYLISTS.map((path) => ask(`${path}?_HLS_msn=7&_HLS_part=0`));
    await untilWaiting(4);
    push(ladderSegment(7));
    for (const { answered } of waiting) {
      const { status, text } = await answered;
      expect([status, text.includes('URI="7.0.m4s"')]).toEqual([200, true]);
    }
  });

  it('says the same of the others in the whole playlist and in the delta update', async () => {
    const [cue, ...units] = ladderSegment(7);
    if (cue === undefined) throw new Error('a segment begins with its cue');
    push([cue]);
    const whole = await get('audio-0/index.m3u8');
    // Now the pictures have a part more, and this rendition has not.
    push(units.filter((event) => event.type === 'unit' && event.unit.kind === 'video'));
    expect((await get('video-0/index.m3u8')).text).toContain('URI="7.0.m4s"');
    expect((await get('audio-0/index.m3u8?_HLS_skip=YES')).text).toBe(whole.text);
  });

  it('ends the playlist of a rendition that it has no more, and lets go of those who wait for it', async () => {
    const waiting = [ask('audio-4/index.m3u8?_HLS_msn=7&_HLS_part=0'), ask('audio-4/7.0.m4s')];
    await untilWaiting(2);
    const left = ladder.slice(0, 3);
    const [cue, ...units] = ladderSegment(7, left);
    if (cue?.type !== 'cue') throw new Error('a segment begins with its cue');
    const discontinuity = { ...cue.cue, discontinuitySequence: 1 };
    push([
      { type: 'cue', cue: discontinuity },
      ...left.map((track): StreamEvent => ({ type: 'track', track })),
      ...units,
    ]);
    const [playlist, part] = await Promise.all(waiting.map(({ answered }) => answered));
    expect(playlist?.text).toMatch(/\n6\.m4s\n#EXT-X-ENDLIST\n$/);
    expect(part?.status).toBe(404);
    const again = await get('audio-4/index.m3u8?_HLS_msn=9&_HLS_part=0');
    expect(again.text).toBe(playlist?.text);
    expect((await get('audio-4/6.m4s')).status).toBe(200);
    const { text } = await get('video-0/index.m3u8');
    expect(text).not.toContain('audio-4');
    expect(text).toContain('#EXT-X-DISCONTINUITY\n');
  });
});
