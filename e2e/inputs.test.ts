/** The ways in beside plain RTMP, each fed by a peer of its kind and read back by ffprobe. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { run, starling, until } from './network.ts';

const { site, rtmps, dataDir } = inject('shared');
const scratch = mkdtempSync(join(tmpdir(), 'starling-inputs-'));
const clip = join(scratch, 'clip.mp4');
const foreignClip = join(scratch, 'foreign.ts');
const children: ChildProcess[] = [];

beforeAll(() => {
  const source =
    '-v error -f lavfi -i testsrc2=s=320x180:r=25 -f lavfi -i sine=r=48000 -t 20 -pix_fmt yuv420p';
  const [ours, foreign] = [
    '-c:v libx264 -preset ultrafast -g 25 -c:a aac -ac 2',
    // What FFmpeg has no place for in FLV.
    '-c:v libx265 -preset ultrafast -x265-params log-level=none:keyint=25 -c:a ac3',
  ];
  execFileSync('ffmpeg', [...source.split(' '), ...ours.split(' '), clip]);
  execFileSync('ffmpeg', [...source.split(' '), ...foreign.split(' '), foreignClip]);
});
afterAll(() => {
  for (const child of children) child.kill('SIGKILL');
  rmSync(scratch, { recursive: true, force: true });
});

async function add(...args: string[]): Promise<Record<string, string>> {
  const added = await starling(dataDir, ['stream', 'add', ...args, '--json']);
  expect(added.stderr).toBe('');
  return JSON.parse(added.stdout);
}

function send(file: string, output: readonly string[]): void {
  const args = ['-v', 'error', '-re', '-stream_loop', '-1', '-i', file, '-c', 'copy', ...output];
  children.push(spawn('ffmpeg', args, { stdio: 'ignore' }));
}

/** The codecs that viewers get, once there are any. */
async function codecsOf(channel: string): Promise<string> {
  await until(`${channel} on the air`, 30_000, async () => {
    const response = await fetch(`${site}/live/${channel}.flv`);
    await response.body?.cancel();
    return response.ok ? true : undefined;
  });
  const probed = await run('ffprobe', [
    ...'-v error -show_entries stream=codec_name -of csv=p=0'.split(' '),
    `${site}/live/${channel}.flv`,
  ]);
  expect(probed.stderr).toBe('');
  // FFmpeg counts the data messages, too.
  return probed.stdout.trim().split('\n').sort().join(' ').replace(' text', '');
}

async function freeUdpPort(): Promise<number> {
  const socket = createSocket('udp4').bind(0, '127.0.0.1');
  await once(socket, 'listening');
  const { port } = socket.address();
  socket.close();
  return port;
}

/** GStreamer's RTSP server, which bindings for Python alone can start. */
const RTSP_SERVER = `
import gi, sys
gi.require_version('Gst', '1.0')
gi.require_version('GstRtspServer', '1.0')
from gi.repository import Gst, GstRtspServer, GLib
Gst.init(None)
server = GstRtspServer.RTSPServer(address='127.0.0.1', service='0')
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(sys.argv[1])
server.get_mount_points().add_factory('/camera', factory)
server.attach(None)
print(server.get_bound_port(), flush=True)
GLib.MainLoop().run()
`;
const CAMERA = [
  'videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=25/1',
  '! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25 ! rtph264pay name=pay0 pt=96',
  'audiotestsrc is-live=true ! audio/x-raw,rate=48000,channels=2 ! avenc_aac ! rtpmp4gpay name=pay1 pt=97',
].join(' ');

/** @returns the port of an RTSP camera */
async function startCamera(): Promise<string> {
  const child = spawn('/usr/bin/python3', ['-c', RTSP_SERVER, `( ${CAMERA} )`], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  children.push(child);
  const [line] = (await once(child.stdout, 'data')) as [Buffer];
  return line.toString().trim();
}

/** The arguments of every FFmpeg on this machine. */
function ffmpegArguments(): string {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => {
      try {
        const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
        return words[0]?.endsWith('ffmpeg') && words.includes('concat') ? words.join(' ') : '';
      } catch {
        return '';
      }
    })
    .join('\n');
}

describe('a stream comes in', () => {
  it('over RTMPS', async () => {
    const { key } = await add('in-rtmps');
    send(clip, ['-f', 'flv', '-tls_verify', '0', `${rtmps}/in-rtmps?key=${key}`]);
    expect(await codecsOf('in-rtmps')).toBe('aac h264');
  });

  it('over SRT from a caller with the passphrase, which no argument of a process shows', async () => {
    const { url = '', passphrase = '' } = await add('in-srt', '--srt', String(await freeUdpPort()));
    const target = url.replace('localhost', '127.0.0.1');
    await until('the listener', 5000, () => (ffmpegArguments().includes('srt') ? true : undefined));
    send(clip, ['-f', 'mpegts', target]);
    expect(await codecsOf('in-srt')).toBe('aac h264');
    expect(passphrase).toMatch(/^sk_/);
    expect(ffmpegArguments()).not.toContain(passphrase);
    const listed = await starling(dataDir, ['stream', 'ls', '--json']);
    expect(listed.stdout).not.toContain(passphrase);
  });

  it.concurrent('by SRT from a listener with a passphrase, which no argument of ours shows', async () => {
    const port = await freeUdpPort();
    const passphrase = 'correct horse battery';
    // As a caller: the peer listens.
    const query = new URLSearchParams({ passphrase, pbkeylen: '16' }).toString().replaceAll('+', '%20');
    send(clip, ['-f', 'mpegts', `srt://127.0.0.1:${port}?mode=listener&${query}`]);
    await add('in-srt-caller', '--input', `srt://127.0.0.1:${port}?mode=caller&${query}`);
    expect(await codecsOf('in-srt-caller')).toBe('aac h264');
    expect(ffmpegArguments()).not.toContain('horse');
  });

  it.concurrent('by RTSP from a camera', async () => {
    await add('in-rtsp', '--input', `rtsp://127.0.0.1:${await startCamera()}/camera`);
    expect(await codecsOf('in-rtsp')).toBe('aac h264');
  });

  it.concurrent('over HTTP as MPEG-TS', async () => {
    await add('in-http', '--input', `${site}/live/demo.ts`);
    expect(await codecsOf('in-http')).toBe('aac h264');
  });

  it.concurrent('over UDP, with codecs that are converted', async () => {
    const port = await freeUdpPort();
    await add('in-udp', '--input', `udp://127.0.0.1:${port}?pkt_size=1316`);
    send(foreignClip, ['-f', 'mpegts', `udp://127.0.0.1:${port}?pkt_size=1316`]);
    expect(await codecsOf('in-udp')).toBe('aac h264');
  });

  it.concurrent('from the HLS of another channel', async () => {
    await add('in-hls', '--input', `${site}/live/demo/index.m3u8`);
    expect(await codecsOf('in-hls')).toBe('aac h264');
  });

  it('not at all, and the operator reads why, without the password', async () => {
    await add('in-dead', '--input', 'rtsp://user:hunter2@127.0.0.1:9/door');
    const problem = await until('the reason', 15_000, async () => {
      const listed = await starling(dataDir, ['stream', 'ls', '--json']);
      expect(listed.stdout).not.toContain('hunter2');
      const { items } = JSON.parse(listed.stdout) as { items: { name: string; problem: string | null }[] };
      return items.find(({ name }) => name === 'in-dead')?.problem ?? undefined;
    });
    expect(problem).toContain('Connection refused');
  });
});
