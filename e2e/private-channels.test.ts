/** Private channels: one token on every protocol; taken back, it ends what is open on every protocol. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { CoordinatorClient } from '@starling/model/client';
import type { Viewer } from '@starling/model/entities';
import { afterAll, afterEach, beforeAll, describe, expect, inject, it } from 'vitest';
import { launchChromium } from './browser.ts';
import { run, starling, until } from './network.ts';

const network = inject('shared');
const operator = new CoordinatorClient({
  baseUrl: network.site,
  token: readFileSync(`${network.dataDir}/operator.token`, 'utf8').trim(),
});
/** Opens `secret`. */
let token: string;
/** Opens `other`. */
let othersToken: string;
/** Everything that must not be in the log. */
const tokens: string[] = [];

beforeAll(async () => {
  for (const name of ['secret', 'other']) {
    const added = await starling(network.dataDir, [
      'channel',
      'add',
      name,
      '--loop',
      'Test card',
      '--private',
    ]);
    expect(added.stderr).toBe('');
  }
  token = await newToken('--channel', 'secret');
  othersToken = await newToken('--channel', 'other');
  await until(
    'the channel',
    20_000,
    async () => (await get('secret/index.m3u8', token)).status === 200 || undefined,
  );
});

afterEach(leave);
afterAll(async () => {
  for (const name of ['secret', 'other']) await operator.channels.remove(name);
});

/** As the command line prints it. */
async function newToken(...args: string[]): Promise<string> {
  const expires = args.includes('--expires') ? [] : ['--expires', '1h'];
  const made = await starling(network.dataDir, ['token', 'create', ...args, ...expires, '--json']);
  const { token: text } = JSON.parse(made.stdout) as { token: string };
  tokens.push(text);
  return text;
}

const idOf = (text: string): string =>
  (JSON.parse(Buffer.from(text.split('.')[1] ?? '', 'base64url').toString()) as { jti: string }).jti;

const withToken = (path: string, of: string | undefined) =>
  of === undefined ? path : `${path}${path.includes('?') ? '&' : '?'}token=${of}`;

async function get(path: string, of?: string, headers: Record<string, string> = {}) {
  const leaving = new AbortController();
  const response = await fetch(`${network.site}/live/${withToken(path, of)}`, {
    headers,
    signal: leaving.signal,
  });
  const isEndless = response.ok && /\.(flv|ts)(\?|$)/.test(path);
  const text = isEndless ? '' : Buffer.from(await response.arrayBuffer()).toString('latin1');
  if (isEndless) await response.body?.getReader().read();
  leaving.abort();
  return { status: response.status, headers: response.headers, text };
}

/**
 * The worker that the request comes to has heard from the coordinator that there is no room. Any worker may take
 * it, and each hears of the others' viewers within a second or so: until then a second viewer gets in.
 */
async function untilRefused(path: string, of?: string): Promise<void> {
  await until('no room', 20_000, async () => (await get(path, of)).status === 503 || undefined);
}

const sockets: Socket[] = [];
const children: ChildProcess[] = [];
function leave(): void {
  for (const socket of sockets.splice(0)) socket.destroy();
  for (const child of children.splice(0)) child.kill('SIGKILL');
}

/** Sends a request on a socket of its own; resolves with the first line of the answer. */
async function openSocket(path: string, headers = ''): Promise<{ socket: Socket; status: string }> {
  const socket = connect(Number(new URL(network.site).port), '127.0.0.1');
  sockets.push(socket);
  socket.on('error', () => {});
  socket.write(`GET /live/${path} HTTP/1.1\r\nHost: x\r\n${headers}\r\n`);
  const [head] = (await once(socket, 'data')) as [Buffer];
  socket.resume();
  return { socket, status: head.toString('latin1').split('\r\n', 1)[0] ?? '' };
}

const UPGRADE =
  'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n';

const rtmpAddress = (of: string | undefined) => withToken(`${network.rtmp}/secret`, of);

const ffprobe = (url: string, ...options: string[]) =>
  run('ffprobe', ['-v', 'error', ...options, '-show_entries', 'stream=codec_type', '-of', 'csv=p=0', url], {
    timeoutMs: 20_000,
  });

/** The addresses in a media playlist, from the multivariant playlist on. */
async function readPlaylists(of: string) {
  const multivariant = await get('secret/index.m3u8', of);
  const media = /^main\/.*$/m.exec(multivariant.text)?.[0] ?? '';
  const playlist = await get(`secret/${media}`);
  const uris = [...playlist.text.matchAll(/^(?!#)\S+|URI="([^"]+)"/gm)].map(([line, uri]) => uri ?? line);
  return { multivariant, media, playlist, uris };
}

const closed = (socket: Socket) => (socket.closed ? undefined : once(socket, 'close'));

/** Watches on every protocol with a token. */
async function watchAll(of: string) {
  const flv = (await openSocket(withToken('secret.flv', of))).socket;
  const ts = (await openSocket(withToken('secret.ts', of))).socket;
  const ws = (await openSocket(withToken('secret.flv', of), UPGRADE)).socket;
  const rtmp = spawn('ffmpeg', ['-v', 'error', '-i', rtmpAddress(of), '-c', 'copy', '-f', 'null', '-'], {
    stdio: 'ignore',
  });
  children.push(rtmp);
  const { media } = await readPlaylists(of);
  const viewers = await until('five viewers', 15_000, async () => {
    const { items } = await operator.viewers.list('secret');
    return items.length === 5 ? items : undefined;
  });
  return {
    viewers,
    media,
    allClosed: () =>
      Promise.all([
        closed(flv),
        closed(ts),
        closed(ws),
        rtmp.exitCode === null ? once(rtmp, 'exit') : undefined,
      ]),
  };
}

/** A request for the segment after the one that is being made, with a second or more to wait. */
async function waitingReload(media: string): Promise<{ readonly answered: Promise<{ status: number }> }> {
  const next = await until('the beginning of a segment', 10_000, async () => {
    const { text } = await get(`secret/${media}`);
    const [, number, part] = /#EXT-X-PRELOAD-HINT:TYPE=PART,URI="[^"]*?(\d+)\.(\d+)\.m4s"/.exec(text) ?? [];
    return Number(part) < 2 ? Number(number) + 1 : undefined;
  });
  return { answered: get(`secret/${media}&_HLS_msn=${next}&_HLS_part=0`) };
}

const untilNobody = () =>
  until(
    'nobody',
    15_000,
    async () => (await operator.viewers.list('secret')).items.length === 0 || undefined,
  );

describe('a token', () => {
  it('opens its channel on every protocol', async () => {
    const { multivariant, media, playlist, uris } = await readPlaylists(token);
    expect(multivariant.status).toBe(200);
    expect(media).toContain(`&token=${token}`);
    expect(playlist.headers.get('cache-control')).toBe('private, no-store');
    expect(uris.length).toBeGreaterThan(10);
    // Segments carry no token, and anybody between here and the viewers may keep them.
    expect(playlist.text).not.toContain(token);
    for (const uri of uris) {
      const file = await get(`secret/main/${uri}`);
      expect([uri, file.status]).toEqual([uri, 200]);
      expect(file.headers.get('cache-control')).toMatch(/^public, max-age=\d+, immutable$/);
    }
    expect((await get('secret.flv', token)).status).toBe(200);
    expect((await get('secret.ts', token)).status).toBe(200);
    const picture = await get('secret/thumbnail.jpg', token);
    expect(picture.text.slice(0, 2)).toBe('\xff\xd8');
    expect(picture.headers.get('cache-control')).toMatch(/^private, /);
    expect((await openSocket(withToken('secret.flv', token), UPGRADE)).status).toContain(' 101 ');
    expect((await openSocket('secret.flv', `Authorization: Bearer ${token}\r\n`)).status).toContain(' 200 ');
    const hasBoth = ({ stdout }: { stdout: string }) => stdout.includes('video') && stdout.includes('audio');
    expect(hasBoth(await ffprobe(rtmpAddress(token)))).toBe(true);
    const hls = `${network.site}/live/secret/index.m3u8`;
    expect(hasBoth(await ffprobe(withToken(hls, token)))).toBe(true);
    expect(hasBoth(await ffprobe(hls, '-headers', `Authorization: Bearer ${token}\r\n`))).toBe(true);
  });

  it('that is missing, wrong, expired or for another channel opens nothing', async () => {
    const expired = await newToken('--channel', 'secret', '--expires', '1s');
    await new Promise((wake) => setTimeout(wake, 1500));
    const [head, payload, signature = ''] = token.split('.');
    const forged = `${head}.${payload}.${signature.startsWith('A') ? 'B' : 'A'}${signature.slice(1)}`;
    const cases: [string | undefined, number, RegExp][] = [
      [undefined, 401, /private/],
      ['nonsense', 403, /no viewing token/],
      [forged, 403, /no viewing token/],
      [expired, 403, /expired/],
      [othersToken, 403, /other channels/],
    ];
    const { uris } = await readPlaylists(token);
    for (const [shown, status, words] of cases) {
      const paths = [
        'secret/index.m3u8',
        'secret/main/index.m3u8',
        'secret.flv',
        'secret.ts',
        'secret/thumbnail.jpg',
      ];
      for (const path of paths) {
        const refused = await get(path, shown);
        expect([path, shown, refused.status]).toEqual([path, shown, status]);
        expect(refused.text).toMatch(words);
      }
      expect((await openSocket(withToken('secret.flv', shown), UPGRADE)).status).toContain(` ${status} `);
      expect((await ffprobe(rtmpAddress(shown))).stderr).toMatch(words);
      for (const uri of uris.slice(0, 3)) {
        const name = uri.replace(/^.*\//, '');
        expect((await get(`secret/main/${name}`, shown)).status).toBe(404);
        expect((await get(`secret/main/${'A'.repeat(22)}/${name}`, shown)).status).toBe(404);
      }
    }
    const bearer = await get('secret.flv', undefined, { authorization: `Bearer ${othersToken}` });
    expect(bearer.status).toBe(403);
  });

  it('that is revoked ends what is open on every protocol, requests that wait too', async () => {
    const revoked = await newToken('--channel', 'secret', '--name', 'to be revoked');
    const { media, allClosed } = await watchAll(revoked);
    const { answered } = await waitingReload(media);
    await operator.viewingTokens.revoke(idOf(revoked));
    expect((await answered).status).toBe(403);
    await allClosed();
    expect((await starling(network.dataDir, ['token', 'revoke', 'unknown'])).stderr).toContain(
      'no viewing token',
    );
    expect((await get(`secret/${media}`)).text).toContain('revoked');
    await untilNobody();
    const listed = await starling(network.dataDir, ['token', 'ls']);
    expect(listed.stdout).toMatch(new RegExp(`^${idOf(revoked)} +to be revoked +secret +any +revoked`, 'm'));
  });

  it('that expires ends what is open', async () => {
    const brief = await newToken('--channel', 'secret', '--expires', '3s');
    const { socket } = await openSocket(withToken('secret.flv', brief));
    const { media } = await readPlaylists(brief);
    await closed(socket);
    const late = await get(`secret/${media}`);
    expect([late.status, late.text]).toEqual([403, 'The viewing token has expired.\n']);
  });

  it('that is for one viewer keeps out the second on every protocol, until the first has left', async () => {
    const single = await newToken('--channel', 'secret', '--max-viewers', '1');
    const first = await openSocket(withToken('secret.ts', single));
    expect(first.status).toContain(' 200 ');
    for (const path of ['secret.flv', 'secret.ts', 'secret/index.m3u8']) {
      await untilRefused(path, single);
    }
    await until('no room for WebSockets', 20_000, async () => {
      const { socket, status } = await openSocket(withToken('secret.flv', single), UPGRADE);
      socket.destroy();
      return status.includes(' 503 ') || undefined;
    });
    // RTMP players come to the main process, which hears it on its own.
    await until('no room for RTMP', 10_000, async () => {
      const { stderr } = await ffprobe(rtmpAddress(single));
      return /As many watch with this token|all the viewers/.test(stderr) || undefined;
    });
    first.socket.destroy();
    await until('room', 20_000, async () => (await get('secret.ts', single)).status === 200 || undefined);
  });
});

describe('a viewer', () => {
  it('is shown out by a kick on every protocol', async () => {
    await untilNobody();
    const { viewers, media, allClosed } = await watchAll(token);
    expect(viewers.map(({ protocol }) => protocol).sort()).toEqual(['flv', 'hls', 'rtmp', 'ts', 'ws-flv']);
    const hls = viewers.find((viewer): viewer is Viewer => viewer.protocol === 'hls');
    expect(hls).toMatchObject({
      channel: 'secret',
      rendition: 'main',
      address: '127.0.0.1',
      tokenId: idOf(token),
    });
    const [listed] = (await operator.publicChannels.list()).filter(({ name }) => name === 'secret');
    expect(listed?.viewerCount).toBe(5);
    const { answered } = await waitingReload(media);
    await operator.viewers.kick(hls?.id ?? '');
    expect((await answered).status).toBe(403);
    const table = await starling(network.dataDir, ['viewers', 'ls', '--channel', 'secret']);
    for (const { id, protocol } of viewers) {
      if (protocol === 'hls') continue;
      expect(table.stdout).toContain(id);
      if (protocol === 'ts')
        expect((await starling(network.dataDir, ['viewers', 'kick', id])).exitCode).toBe(0);
      else await operator.viewers.kick(id);
    }
    await allClosed();
    expect((await get(`secret/${media}`)).status).toBe(403);
    await untilNobody();
  });

  it('of a public channel is shown out when it becomes private', async () => {
    const set = (...change: string[]) => starling(network.dataDir, ['channel', 'set', 'other', ...change]);
    expect((await set('--public', '--max-viewers', '1')).stdout).toContain('public, for at most 1 viewers');
    await until('the change', 5000, async () => (await get('other/index.m3u8')).status === 200 || undefined);
    const { socket } = await openSocket('other.flv');
    await untilRefused('other.flv');
    await untilRefused('other/index.m3u8');
    await set('--private', '--max-viewers', 'none');
    await closed(socket);
    expect((await get('other/index.m3u8')).status).toBe(401);
  });
});

describe('the site', () => {
  it('lists private channels to those who may see them, with the token in the addresses for IPTV players', async () => {
    const names = async (shown?: string) => {
      const client = new CoordinatorClient({ baseUrl: network.site, token: shown });
      return (await client.publicChannels.list()).map(({ name }) => name);
    };
    const open = await names();
    expect(open).not.toContain('secret');
    expect(await names('nonsense')).toEqual(open);
    expect(await names(token)).toEqual([...open, 'secret'].sort());
    const playlist = async (query: string) => (await fetch(`${network.site}/playlist.m3u${query}`)).text();
    expect(await playlist('')).not.toContain('secret');
    const addresses = (await playlist(`?token=${token}`))
      .split('\n')
      .filter((line) => line.startsWith('http'));
    expect(addresses).toContain(`${network.site}/live/demo/index.m3u8`);
    expect(addresses).toContain(`${network.site}/live/secret/index.m3u8?token=${token}`);
    expect(await (await fetch(`${network.site}/guide.xml`)).text()).not.toContain('secret');
    expect(await (await fetch(`${network.site}/guide.xml?token=${token}`)).text()).toContain('secret');
  });

  it('plays a private channel with the token in the address of the page, and tells it nobody', async () => {
    const browser = await launchChromium();
    try {
      const page = await browser.newPage();
      const referrers = new Set<string>();
      page.on('request', (request) => referrers.add(request.headers().referer ?? ''));
      for (const via of ['hls', 'flv']) {
        await page.goto(`${network.site}/watch/secret?via=${via}&token=${token}`);
        await page.waitForFunction(
          () =>
            (document.querySelector('video')?.currentTime ?? 0) > 0 &&
            !document.querySelector('video')?.paused,
          undefined,
          { timeout: 20_000 },
        );
      }
      // The token goes along to the list of channels.
      await page.getByRole('link', { name: 'Starling, all channels' }).click();
      await page.getByRole('link', { name: 'secret' }).waitFor();
      expect([...referrers]).toEqual(['']);

      const stranger = await browser.newPage();
      await stranger.goto(`${network.site}/watch/secret`);
      await stranger.getByText('There is no channel “secret”').waitFor();
      await stranger.goto(`${network.site}/watch/secret?token=${othersToken}`);
      await stranger.getByText('There is no channel “secret”').waitFor();
      await stranger.goto(`${network.site}/watch/secret?token=nonsense`);
      await stranger.getByText('This is no viewing token of this network.').waitFor();
    } finally {
      await browser.close();
    }
  });
});

it('no token is in the log', () => {
  const log = readFileSync(network.logPath, 'utf8');
  expect(log).toContain('viewing token made');
  for (const text of tokens) {
    for (const part of text.split('.').slice(1)) expect(log).not.toContain(part);
  }
  expect(log).not.toMatch(/token=\w/);
});
