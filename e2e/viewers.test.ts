/** Viewers are counted, each once, on every protocol; they can be limited and shown out. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Frontend, startFrontend } from '@starling/frontend/main';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { launchChromium } from './browser.ts';
import { run, until } from './network.ts';

const { site, rtmp } = inject('shared');
const hlsJs = join(dirname(fileURLToPath(import.meta.url)), '../node_modules/hls.js/dist/hls.js');
/** Viewers of a kind; 18 in all, and 50 in a soak. */
const TWINS =
  process.env.STARLING_SOAK === undefined
    ? { hls: 3, endless: 2, webSocket: 3 }
    : { hls: 11, endless: 8, webSocket: 9 };
const children: ChildProcess[] = [];
const sockets: Socket[] = [];

function leave(): void {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  for (const socket of sockets.splice(0)) socket.destroy();
}
afterAll(leave);

function start(command: string, ...args: string[]): void {
  const env = { ...process.env, GST_PLUGIN_FEATURE_RANK: 'hlsdemux2:512,hlsdemux:0' };
  children.push(spawn(command, args, { stdio: 'ignore', env }));
}

const ffmpeg = (url: string) => start('ffmpeg', ...`-v error -re -i ${url} -c copy -f null -`.split(' '));

function openSocket(of: string, head: string): Socket {
  const socket = connect(Number(new URL(of).port), '127.0.0.1', () => socket.write(`${head}\r\n\r\n`));
  sockets.push(socket);
  socket.on('error', () => {}).resume();
  return socket;
}

const upgrade = (channel: string) =>
  `GET /live/${channel}.flv HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13`;

describe('viewers of all protocols', () => {
  async function counts(): Promise<Record<string, number>> {
    const metrics = await (await fetch(`${site}/metrics`)).text();
    const lines = metrics.matchAll(
      /^starling_frontend_viewers\{channel="demo",protocol="([^"]+)"\} (\d+)$/gm,
    );
    return Object.fromEntries(Array.from(lines, ([, protocol, count]) => [protocol, Number(count)]));
  }
  const untilCounted = (expected: Record<string, number>, withinMs: number) => {
    let seen: Record<string, number> = {};
    return until('the count', withinMs, async () => {
      seen = await counts();
      return equal(seen, expected) ? true : undefined;
    }).catch((cause: unknown) => {
      throw new Error(`counted ${JSON.stringify(seen)}`, { cause });
    });
  };

  it('are counted exactly, each once, and are gone within 15 s of leaving', async () => {
    await untilCounted({}, 20_000); // those of other tests
    const hls = `${site}/live/demo/index.m3u8`;
    const browser = await launchChromium();
    try {
      for (let twin = 0; twin < TWINS.hls; twin++) ffmpeg(hls);
      ffmpeg(`${site}/live/demo/main/index.m3u8`);
      const vlc = ['cvlc', '-q', '-I', 'dummy', '--sout', '#dummy', hls];
      // VLC refuses to run as root.
      const asNobody = ['setpriv', '--reuid=65534', '--clear-groups', 'env', 'HOME=/tmp'];
      const [command = '', ...args] = process.getuid?.() === 0 ? [...asNobody, ...vlc] : vlc;
      start(command, ...args);
      start('mpv', '--no-config', '--vo=null', '--ao=null', hls);
      start('streamlink', `hls://${hls}`, 'best', '-f', '-o', '/dev/null');
      const sinks = ['video-sink=fakesink sync=true', 'audio-sink=fakesink sync=true'];
      start('gst-launch-1.0', 'playbin3', `uri=${hls}`, ...sinks);
      for (let twin = 0; twin < TWINS.endless; twin++) {
        ffmpeg(`${site}/live/demo.flv`);
        ffmpeg(`${site}/live/demo.ts`);
        ffmpeg(`${rtmp}/demo`);
      }
      for (let twin = 0; twin < TWINS.webSocket; twin++) openSocket(site, upgrade('demo'));
      const page = await browser.newPage();
      await page.goto(`${site}/healthz`);
      await page.addScriptTag({ path: hlsJs });
      await page.evaluate((url) => {
        const video = document.body.appendChild(document.createElement('video'));
        video.muted = true;
        const { Hls } = globalThis as unknown as {
          Hls: new () => { loadSource(url: string): void; attachMedia(element: HTMLVideoElement): void };
        };
        const player = new Hls();
        player.loadSource(url);
        player.attachMedia(video);
        void video.play();
      }, hls);

      const { hls: twins, endless, webSocket } = TWINS;
      // By themselves: FFmpeg without a session id, VLC, mpv, streamlink, GStreamer, hls.js.
      const expected = { hls: twins + 6, flv: endless, ts: endless, rtmp: endless, 'ws-flv': webSocket };
      await untilCounted(expected, 30_000);
      for (let second = 0; second < 12; second++) {
        await fetch(hls); // whoever looks at the multivariant playlist only is no viewer
        await new Promise((wake) => setTimeout(wake, 1000));
        expect(await counts()).toEqual(expected);
      }
    } finally {
      leave();
      await browser.close();
    }
    await untilCounted({}, 15_000);
  });
});

describe('a channel that may have two viewers', () => {
  const publishToken = 'a-token-of-this-test';
  let frontend: Frontend;
  let http: Server;
  let base: string;

  beforeAll(async () => {
    frontend = await startFrontend({
      rtmpHost: '127.0.0.1',
      rtmpPort: 0,
      publishToken,
      logger: pino({ level: 'silent' }),
      registry: new Registry(),
      maxViewersPerChannel: 2,
    });
    http = createServer((request, response) => frontend.handleRequest(request, response));
    http.on('upgrade', (request, socket: Socket, head) => frontend.handleUpgrade(request, socket, head));
    http.listen(0, '127.0.0.1');
    await once(http, 'listening');
    base = `http://127.0.0.1:${(http.address() as AddressInfo).port}`;
    const source = '-v error -re -f lavfi -i testsrc2=s=320x180:r=25 -c:v libx264 -preset ultrafast -g 25';
    const target = `rtmp://127.0.0.1:${frontend.rtmpPort}/live/cam?token=${publishToken}`;
    start('ffmpeg', ...`${source} -pix_fmt yuv420p -f flv ${target}`.split(' '));
    await until('the channel', 20_000, () => (frontend.isPlayable('cam') ? true : undefined));
  });

  afterAll(async () => {
    leave();
    await frontend.close();
    http.closeAllConnections();
    http.close();
  });

  it('refuses the third on each protocol, and takes one when another has been shown out', async () => {
    const flv = openSocket(base, 'GET /live/cam.flv HTTP/1.1\r\nHost: x');
    const multivariant = await (await fetch(`${base}/live/cam/index.m3u8`)).text();
    const media = `${base}/live/cam/${/^main.*$/m.exec(multivariant)?.[0]}`;
    expect((await fetch(media)).status).toBe(200);
    await until('both', 5000, () => (frontend.viewers().length === 2 ? true : undefined));

    for (const path of ['cam.flv', 'cam.ts', 'cam/main/index.m3u8?session=aaaaaaaaaaaaaaaa']) {
      const refused = await fetch(`${base}/live/${path}`);
      expect(refused.status).toBe(503);
      expect(await refused.text()).toContain('This channel has all the viewers that it may have.');
    }
    const socket = openSocket(base, upgrade('cam'));
    const [answer] = (await once(socket, 'data')) as [Buffer];
    expect(answer.toString()).toMatch(/^HTTP\/1\.1 503 /);
    const address = `rtmp://127.0.0.1:${frontend.rtmpPort}/live/cam`;
    const played = await run('ffmpeg', ['-v', 'error', '-i', address, '-f', 'null', '-']);
    expect(played.stderr).toContain('This channel has all the viewers that it may have.');

    await fetch(media); // it is in
    for (const { id } of frontend.viewers()) expect(frontend.kick(id)).toBe(true);
    expect(frontend.kick('nobody')).toBe(false);
    if (!flv.closed) await once(flv, 'close');
    expect((await fetch(media)).status).toBe(403);
    expect(frontend.viewers()).toEqual([]);
    ffmpeg(address);
    await until('the RTMP player', 10_000, () => {
      const [viewer] = frontend.viewers();
      return viewer?.protocol === 'rtmp' && viewer.address.includes('127.0.0.1') && viewer.sentBytes > 1000
        ? true
        : undefined;
    });
  });
});

function equal(a: Record<string, number>, b: Record<string, number>): boolean {
  const sorted = (counts: Record<string, number>) => JSON.stringify(Object.entries(counts).sort());
  return sorted(a) === sorted(b);
}
