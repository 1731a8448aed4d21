/** Every way out beside HLS and HTTP-FLV: MPEG-TS, WebSocket-FLV, RTMP play, sound alone, thumbnails. */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { RtmpClientSession } from '@starling/media/rtmp/session';
import { afterAll, describe, expect, inject, it } from 'vitest';
import { launchChromium } from './browser.ts';
import { ffmpegComplaints, run, starling, until } from './network.ts';

const { site, rtmp, dataDir } = inject('shared');
const ts = `${site}/live/demo.ts`;
const play = `${rtmp}/demo`;
const mpegts = join(dirname(fileURLToPath(import.meta.url)), '../node_modules/mpegts.js/dist/mpegts.js');
const scratch = mkdtempSync(join(tmpdir(), 'starling-ways-out-'));
const children: ChildProcess[] = [];
const sockets: Socket[] = [];
afterAll(() => {
  for (const child of children) child.kill('SIGKILL');
  for (const socket of sockets) socket.destroy();
  rmSync(scratch, { recursive: true, force: true });
});

const PLAY_SECONDS = process.env.STARLING_SOAK === undefined ? 8 : 60;

/** What is used here of mpegts.js. */
interface MpegtsPlayer {
  attachMediaElement(element: HTMLVideoElement): void;
  load(): void;
}

describe.concurrent('FFmpeg', () => {
  it.each([
    ['MPEG-TS', ts],
    ['RTMP', play],
    ['MPEG-TS, sound alone', `${ts}?only=audio`],
    ['HTTP-FLV, sound alone', `${site}/live/demo.flv?only=audio`],
  ])('has no reason to complain over %s', async (_, url) => {
    expect(await ffmpegComplaints(url, PLAY_SECONDS)).toBe('');
  });

  it.each([
    ['MPEG-TS', `${ts}?only=audio`],
    ['HTTP-FLV', `${site}/live/demo.flv?only=audio`],
  ])('finds nothing but sound where only that was asked for: %s', async (_, url) => {
    expect(await streamKinds(url)).toEqual(['audio']);
  });
});

describe('MPEG-TS', () => {
  it('has the packets of HLS, at the same times', async () => {
    const recording = join(scratch, 'recording.ts');
    const recorded = await run('curl', ['-s', '-m', '7', '-o', recording, ts]);
    expect(recorded.exitCode).toBe(28); // the stream has no end: curl's time was over
    const base = `${site}/live/demo/main`;
    const playlist = await (await fetch(`${base}/index.m3u8`)).text();
    const names = [/URI="([^"]+)"/.exec(playlist)?.[1] ?? '', ...(playlist.match(/^\d+\.m4s$/gm) ?? [])];
    const files = await Promise.all(
      names.map(async (name) => Buffer.from(await (await fetch(`${base}/${name}`)).arrayBuffer())),
    );
    const window = join(scratch, 'window.mp4');
    writeFileSync(window, Buffer.concat(files));
    for (const kind of ['v', 'a'] as const) {
      const fromTs = await packets(recording, kind);
      const fromHls = await packets(window, kind);
      const [first, last] = [fromTs[0], fromHls.at(-1)];
      const from = first === undefined ? -1 : fromHls.indexOf(first);
      expect(from).toBeGreaterThanOrEqual(0);
      const to = last === undefined ? -1 : fromTs.indexOf(last);
      const common = to < 0 ? fromTs : fromTs.slice(0, to + 1);
      expect(common.length).toBeGreaterThan(100);
      expect(fromHls.slice(from, from + common.length)).toEqual(common);
    }
  });

  it('has the headers of an endless response', async () => {
    const response = await fetch(ts, { method: 'HEAD' });
    expect(response.headers.get('content-type')).toBe('video/mp2t');
    expect(response.headers.get('cache-control')).toBe('no-store');
    expect((await fetch(`${site}/live/no-such-channel.ts`)).status).toBe(404);
    expect((await fetch(`${ts}?only=smell`)).status).toBe(400);
  });
});

describe.concurrent('players', () => {
  it.each([
    ['MPEG-TS', `souphttpsrc location=${ts} is-live=true ! tsdemux name=d d. ! queue ! h264parse`, 'd.'],
    ['RTMP', `rtmp2src location=${play} ! flvdemux name=d d.video ! queue ! h264parse`, 'd.audio'],
  ])('GStreamer plays %s without a dropped picture', async (_, source, audioPad) => {
    const pipeline = `${source} ! avdec_h264 ! fpsdisplaysink video-sink=fakesink text-overlay=false sync=true ${audioPad} ! queue ! aacparse ! avdec_aac ! fakesink sync=true`;
    const played = await run('timeout', ['-s', 'INT', '8', 'gst-launch-1.0', '-v', ...pipeline.split(' ')]);
    const last = [...played.stdout.matchAll(/rendered: (\d+), dropped: (\d+)/g)].at(-1);
    expect(Number(last?.[1])).toBeGreaterThan(80);
    expect(Number(last?.[2])).toBeLessThan(5);
  });

  it.each([
    ['MPEG-TS', ts],
    ['RTMP', play],
  ])('VLC plays %s', async (_, url) => {
    const recording = join('/tmp', `starling-vlc-${randomUUID()}.ts`); // a folder that nobody may write to
    const output = `#std{access=file,mux=ts,dst=${recording}}`;
    const vlc = ['cvlc', '-q', '-I', 'dummy', '--sout', output, '--run-time=5', url, 'vlc://quit'];
    // VLC refuses to run as root.
    const asNobody = ['runuser', '-u', 'nobody', '--', 'env', 'HOME=/tmp'];
    const [command = '', ...args] = process.getuid?.() === 0 ? [...asNobody, ...vlc] : vlc;
    try {
      await run(command, args);
      expect(await streamKinds(recording)).toEqual(['audio', 'video']);
    } finally {
      rmSync(recording, { force: true });
    }
  });

  it.each([
    ['MPEG-TS', ts],
    ['RTMP', play],
  ])('mpv plays %s without a warning', async (_, url) => {
    const args = ['--no-config', '--vo=null', '--ao=null', '--length=5', '--msg-level=all=warn', url];
    const played = await run('mpv', args);
    expect(played.stdout + played.stderr).toBe('');
    expect(played.exitCode).toBe(0);
  });

  it('mpegts.js plays WebSocket-FLV in Chromium', async () => {
    const browser = await launchChromium();
    try {
      const page = await browser.newPage();
      await page.goto(`${site}/healthz`);
      await page.addScriptTag({ path: mpegts });
      await page.evaluate(
        (url) => {
          const video = document.body.appendChild(document.createElement('video'));
          video.muted = true;
          const { mpegts } = globalThis as unknown as {
            mpegts: { createPlayer(source: object): MpegtsPlayer };
          };
          const player = mpegts.createPlayer({ type: 'flv', isLive: true, url });
          player.attachMediaElement(video);
          player.load();
          void video.play();
        },
        `${site.replace('http', 'ws')}/live/demo.flv`,
      );
      const playedTo = (seconds: number) =>
        page.waitForFunction(
          (least) => {
            const video = document.querySelector('video');
            return (
              (video?.played.length ?? 0) > 0 &&
              (video?.played.end(0) ?? 0) - (video?.played.start(0) ?? 0) > least
            );
          },
          seconds,
          { timeout: 30_000 },
        );
      await playedTo(3);
      expect(await viewerCount('ws-flv')).toBe(1);
    } finally {
      await browser.close();
    }
    await until('the viewer to be gone', 5000, async () =>
      (await viewerCount('ws-flv')) === 0 ? true : undefined,
    );
  });
});

describe('RTMP play', () => {
  it('refuses what is not on the air, in words that the player shows', async () => {
    const played = await run('ffmpeg', ['-v', 'error', '-i', `${rtmp}/no-such-channel`, '-f', 'null', '-']);
    expect(played.exitCode).not.toBe(0);
    expect(played.stderr).toContain('There is no such channel on the air.');
  });
});

describe('viewers who do not read', () => {
  it('are cut off on every protocol, and counted', async () => {
    // Fast, so that the kernel's buffers are soon full: they hide some megabytes of each viewer.
    const clip = join(scratch, 'fast.flv');
    const rate = '-b:v 8M -minrate 8M -maxrate 8M -bufsize 4M -nal-hrd cbr';
    const encoding = `-v error -f lavfi -i testsrc2=s=640x360:r=25:d=60 -f lavfi -i sine=r=48000:d=60 -c:v libx264 -preset ultrafast -g 50 ${rate} -pix_fmt yuv420p -c:a aac`;
    expect((await run('ffmpeg', [...encoding.split(' '), clip])).stderr).toBe('');
    const added = await starling(dataDir, ['stream', 'add', 'fast', '--json']);
    const { key } = JSON.parse(added.stdout) as { key: string };
    const source = ['-v', 'error', '-re', '-i', clip, '-c', 'copy', '-f', 'flv', `${rtmp}/fast?key=${key}`];
    children.push(spawn('ffmpeg', source, { stdio: 'ignore' }));
    await until('the channel', 5000, async () => {
      const response = await fetch(`${site}/live/fast.ts`, { method: 'HEAD' });
      return response.ok ? true : undefined;
    });

    const open = (request: string) => {
      const socket = connect(Number(new URL(site).port), '127.0.0.1', () => socket.write(request));
      socket.on('error', () => {}).pause();
      sockets.push(socket);
    };
    open('GET /live/fast.ts HTTP/1.1\r\nHost: x\r\n\r\n');
    open(
      'GET /live/fast.flv HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n',
    );
    await openRtmpPlayer('fast');
    await until('all three to be cut off', 40_000, async () => {
      const metrics = await (await fetch(`${site}/metrics`)).text();
      const series = 'starling_frontend_evicted_viewers_total{channel="fast",protocol=';
      const evicted = (protocol: string) =>
        metrics.split('\n').some((line) => line.startsWith(`${series}"${protocol}"`) && line.endsWith(' 1'));
      return ['ts', 'ws-flv', 'rtmp'].every(evicted) ? true : undefined;
    });
  });
});

describe('the thumbnail', () => {
  const url = `${site}/live/demo/thumbnail.jpg`;

  it('is a small JPEG that caches may keep for some seconds', async () => {
    const response = await fetch(url);
    expect(response.status).toBe(200);
    expect(response.headers.get('content-type')).toBe('image/jpeg');
    expect(response.headers.get('cache-control')).toMatch(/^public, max-age=[1-5]$/);
    const path = join(scratch, 'thumbnail.jpg');
    writeFileSync(path, Buffer.from(await response.arrayBuffer()));
    const probed = await run('ffprobe', [
      ...['-v', 'error', '-show_entries', 'stream=codec_name,width,height', '-of', 'csv=p=0', path],
    ]);
    expect(probed.stdout.trim()).toBe('mjpeg,640,360');
    expect((await fetch(`${site}/live/no-such-channel/thumbnail.jpg`)).status).toBe(404);
  });

  it('is on the card of the channel', async () => {
    const browser = await launchChromium();
    try {
      const page = await browser.newPage();
      await page.goto(site);
      await page.waitForFunction(
        () => (document.querySelector<HTMLImageElement>('.card img')?.naturalWidth ?? 0) > 0,
      );
      expect(await page.locator('.card svg.poster').count()).toBeGreaterThan(0); // below it
    } finally {
      await browser.close();
    }
  });
});

/** A player that stops to read once it has been accepted. */
function openRtmpPlayer(channel: string): Promise<void> {
  const { hostname, port } = new URL(rtmp.replace('rtmp:', 'http:'));
  const session = new RtmpClientSession({
    mode: 'play',
    tcUrl: rtmp,
    app: 'live',
    streamName: channel,
    handshakeRandomBytes: randomBytes(1528),
    maxMessageBytes: 1 << 24,
  });
  const socket = connect(Number(port), hostname);
  sockets.push(socket);
  const flush = () => socket.write(session.takeOutput() ?? new Uint8Array(0));
  socket.on('connect', flush);
  return new Promise((resolve, reject) => {
    socket.on('error', reject);
    socket.on('data', (bytes) => {
      const isReady = session.receive(bytes).some(({ type }) => type === 'ready');
      flush();
      if (!isReady) return;
      socket.pause();
      resolve();
    });
  });
}

async function viewerCount(protocol: string): Promise<number> {
  const metrics = await (await fetch(`${site}/metrics`)).text();
  const label = `starling_frontend_viewers{channel="demo",protocol="${protocol}"} `;
  return Number(metrics.split(label)[1]?.split('\n', 1)[0] ?? 0);
}

/** `PTS in ms,DTS in ms,K or _` of each packet. MPEG-TS has ticks of 1/90000 s, so times are compared rounded. */
async function packets(path: string, kind: 'v' | 'a'): Promise<string[]> {
  const probed = await run('ffprobe', [
    ...['-v', 'error', '-select_streams', kind, '-show_entries', 'packet=pts_time,dts_time,flags'],
    ...['-of', 'csv=p=0', path],
  ]);
  return probed.stdout
    .split('\n')
    .filter((line) => /,[K_]/.test(line)) // lines about side data have no flags
    .map((line) => {
      const [pts, dts, flags = ''] = line.split(',');
      return [Math.round(Number(pts) * 1000), Math.round(Number(dts) * 1000), flags[0]].join();
    });
}

async function streamKinds(url: string): Promise<string[]> {
  const probed = await run('ffprobe', [
    '-v',
    'error',
    '-show_entries',
    'stream=codec_type',
    '-of',
    'csv=p=0',
    url,
  ]);
  return [...new Set(probed.stdout.match(/audio|video/g))].sort();
}
