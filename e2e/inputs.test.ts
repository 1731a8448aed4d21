/** The ways in beside plain RTMP: RTMPS, SRT, UDP and HLS, each fed by FFmpeg and read back by ffprobe. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, inject, it } from 'vitest';
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
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

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

  it('over UDP, with codecs that are converted', async () => {
    const port = await freeUdpPort();
    await add('in-udp', '--input', `udp://127.0.0.1:${port}?pkt_size=1316`);
    send(foreignClip, ['-f', 'mpegts', `udp://127.0.0.1:${port}?pkt_size=1316`]);
    expect(await codecsOf('in-udp')).toBe('aac h264');
  });

  it('from the HLS of another channel', async () => {
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
