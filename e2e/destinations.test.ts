/**
 * The demo channel goes out to others: to nginx with its RTMP module, to this Starling's own encoder port over TLS
 * as if it were another one, and to FFmpeg as an SRT listener; FFmpeg judges what arrives. Beside them are
 * destinations that are dead in three ways, and nobody notices those.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CoordinatorClient } from '@starling/model/client';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { freePort } from '../tools/free-port.ts';
import { ffmpegComplaints, run, starling, until } from './network.ts';

const { site, rtmps, dataDir, logPath } = inject('shared');
const client = new CoordinatorClient({
  baseUrl: site,
  token: readFileSync(join(dataDir, 'operator.token'), 'utf8').trim(),
});
const scratch = mkdtempSync(join(tmpdir(), 'starling-destinations-'));
const children: ChildProcess[] = [];
const KEY = 'k3y-that-nobody-sees';
const names: string[] = [];
let nginx: ChildProcess;
let nginxPort: number;
/** Takes connections and says nothing. */
let mute: Server;

beforeAll(async () => {
  nginxPort = await freePort();
  const config = join(scratch, 'nginx.conf');
  writeFileSync(
    config,
    `load_module /usr/lib/nginx/modules/ngx_rtmp_module.so;
     daemon off; master_process off; pid ${scratch}/nginx.pid; error_log ${scratch}/nginx.log;
     events {}
     rtmp { access_log off; server { listen 127.0.0.1:${nginxPort}; application live { live on; wait_key on; } } }`,
  );
  nginx = spawn('/usr/sbin/nginx', ['-p', scratch, '-c', config], { stdio: 'ignore' });
  children.push(nginx);
  mute = createServer((socket) => socket.pause().on('error', () => {})).listen(0, '127.0.0.1');
  await once(mute, 'listening');
});
afterAll(async () => {
  for (const name of names) await client.destinations.remove(name);
  for (const child of children) child.kill('SIGKILL');
  mute.close();
  rmSync(scratch, { recursive: true, force: true });
});

async function add(name: string, url: string, ...flags: string[]): Promise<void> {
  const added = await starling(dataDir, ['destination', 'add', name, 'demo', url, ...flags, '--json']);
  expect(added.stderr).toBe('');
  expect(added.stdout).not.toContain(KEY);
  names.push(name);
}

const list = () => client.destinations.list();

const untilState = (name: string, state: string, timeoutMs = 30_000) =>
  until(
    `${name} to be ${state}`,
    timeoutMs,
    async () =>
      (await list()).find((one) => one.name === name && one.status?.state === state)?.status ?? undefined,
    250,
  );

async function freeUdpPort(): Promise<number> {
  const socket = createSocket('udp4').bind(0, '127.0.0.1');
  await once(socket, 'listening');
  const { port } = socket.address();
  socket.close();
  return port;
}

async function codecsOf(input: string): Promise<string> {
  const args = '-v error -show_entries stream=codec_name -of csv=p=0'.split(' ');
  const probed = await run('ffprobe', [...args, input]);
  // FFmpeg names a stream once more with its programme.
  return [...new Set(probed.stdout.trim().split(/\s+/))].sort().join(' ');
}

describe('a channel that goes out to others', () => {
  it('arrives over RTMP, RTMPS and SRT while other destinations are dead', async () => {
    const { port: mutePort } = mute.address() as { port: number };
    await add('refused', `rtmp://127.0.0.1:${await freePort()}/live/${KEY}`);
    await add('mute', `rtmp://127.0.0.1:${mutePort}/live/${KEY}`);
    await add('nginx', `rtmp://127.0.0.1:${nginxPort}/live/${KEY}`);
    const { key } = await client.streams.create({ name: 'copy' });
    await add('other-starling', `${rtmps}/copy?key=${key}`, '--any-certificate');
    const srtPort = await freeUdpPort();
    const recording = join(scratch, 'srt.ts');
    const listener = `srt://127.0.0.1:${srtPort}?mode=listener&passphrase=${KEY}`;
    const receiver = spawn(
      'ffmpeg',
      ['-v', 'error', '-i', listener, '-t', '4', '-c', 'copy', '-f', 'mpegts', recording],
      { stdio: 'ignore' },
    );
    children.push(receiver);
    await add('srt', `srt://127.0.0.1:${srtPort}?passphrase=${KEY}`);

    await untilState('nginx', 'sending');
    await untilState('other-starling', 'sending');
    const complaints = await Promise.all([
      ffmpegComplaints(`rtmp://127.0.0.1:${nginxPort}/live/${KEY}`, 4),
      ffmpegComplaints(`${site}/live/demo.flv`, 4),
      once(receiver, 'exit'),
    ]);
    expect(complaints.slice(0, 2)).toEqual(['', '']);
    expect(await codecsOf(recording)).toBe('aac h264');
    await until('the copy on the air', 20_000, async () => {
      const response = await fetch(`${site}/live/copy.flv`);
      await response.body?.cancel();
      return response.ok ? true : undefined;
    });
    expect(await ffmpegComplaints(`${site}/live/copy.flv`, 2)).toBe('');

    expect((await untilState('refused', 'waiting')).reason).toBe('the connection was refused');
    await untilState('mute', 'waiting', 20_000);
    const sending = await untilState('nginx', 'sending');
    expect(sending).toMatchObject({ droppedUnits: 0, failures: 0 });
    expect(sending.bitrateBps).toBeGreaterThan(50_000);
    const metrics = await (await fetch(`${site}/metrics`)).text();
    expect(metrics).toMatch(/starling_backend_destination_up\{[^}]*destination="nginx"[^}]*\} 1/);
    const log = readFileSync(logPath, 'utf8');
    expect(log).toContain('other-starling');
    for (const secret of [KEY, key ?? '']) expect(log).not.toContain(secret);
  });

  it('is cut from a server that stops, and brought to it again', async () => {
    // FFmpeg's listener: it serves one caller, and stops while it has one.
    const port = await freePort();
    const listen = () => {
      const child = spawn(
        'ffmpeg',
        ['-v', 'quiet', '-listen', '1', '-i', `rtmp://127.0.0.1:${port}/live/x`, '-f', 'null', '-'],
        { stdio: 'ignore' },
      );
      children.push(child);
      return child;
    };
    const first = listen();
    await add('stopped', `rtmp://127.0.0.1:${port}/live/${KEY}`);
    await untilState('stopped', 'sending');
    first.kill('SIGKILL');
    await untilState('stopped', 'waiting');
    const second = listen();
    expect((await untilState('stopped', 'sending')).failures).toBeGreaterThan(0);
    second.kill('SIGSTOP');
    expect(await ffmpegComplaints(`${site}/live/demo.flv`, 3)).toBe('');
    expect((await list()).find(({ name }) => name === 'nginx')?.status).toMatchObject({
      state: 'sending',
      droppedUnits: 0,
      failures: 0,
    });
    const disabled = await starling(dataDir, ['destination', 'disable', 'stopped', '--json']);
    expect(JSON.parse(disabled.stdout)).toMatchObject({ isEnabled: false, status: null });
  });
});
