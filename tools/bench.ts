/**
 * `npm run bench`: Starling's HTTP-FLV against nginx-rtmp's RTMP play, in one run, on the same
 * 4 Mb/s stream with as many viewers that read and discard. Prints server CPU seconds per gigabyte
 * delivered and the ratio. Absolute figures differ from machine to machine; the ratio is the result.
 *
 *   npm run bench [-- --viewers 300 --seconds 20 --json]
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { RtmpClientSession } from '@starling/media/rtmp/session';

const { values: flags } = parseArgs({
  options: {
    viewers: { type: 'string', default: '300' },
    seconds: { type: 'string', default: '20' },
    json: { type: 'boolean', default: false },
  },
});
const viewerCount = Number(flags.viewers);
const measureSeconds = Number(flags.seconds);
const program = join(dirname(fileURLToPath(import.meta.url)), 'starling.js');
const scratch = mkdtempSync(join(tmpdir(), 'starling-bench-'));
const children: ChildProcess[] = [];

interface Contender {
  readonly name: string;
  readonly version: string;
  readonly server: ChildProcess;
  readonly publishUrl: string;
  /** Opens one viewer that counts what it gets. */
  view(count: (sizeBytes: number) => void): Socket;
}

interface Result {
  readonly name: string;
  readonly version: string;
  readonly viewers: number;
  readonly gigabytes: number;
  readonly cpuSeconds: number;
  readonly cpuSecondsPerGigabyte: number;
  readonly rssMegabytes: number;
}

const clockTicksPerSecond = Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }));

/** The process and all below it. */
function processTree(pid: number): number[] {
  const tree = [pid];
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    const parent = readStat(Number(entry))?.[1];
    if (parent !== undefined && Number(parent) === pid) tree.push(...processTree(Number(entry)));
  }
  return tree;
}

/** Fields of /proc/PID/stat after the name: [0] state, [1] parent, [11] user ticks, [12] system ticks, [21] resident pages. */
function readStat(pid: number): string[] | undefined {
  try {
    return readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)?.split(' ');
  } catch {
    return undefined; // it has just ended
  }
}

function usage(pid: number): { cpuSeconds: number; rssBytes: number } {
  let ticks = 0;
  let pages = 0;
  for (const one of processTree(pid)) {
    const stat = readStat(one);
    ticks += Number(stat?.[11] ?? 0) + Number(stat?.[12] ?? 0);
    pages += Number(stat?.[21] ?? 0);
  }
  return { cpuSeconds: ticks / clockTicksPerSecond, rssBytes: pages * 4096 };
}

const sleep = (ms: number) => new Promise((wake) => setTimeout(wake, ms));

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no free port');
  return address.port;
}

/** One minute of busy picture at a constant 4 Mb/s, key frames every 2 s. */
function makeClip(): string {
  const path = join(scratch, 'clip.flv');
  const video = 'testsrc2=s=1280x720:r=25,noise=alls=20:allf=t';
  const args = `-v error -f lavfi -i ${video} -f lavfi -i sine=r=48000 -t 20 -c:v libx264 -preset ultrafast -g 50 -keyint_min 50 -sc_threshold 0 -b:v 3900k -minrate 3900k -maxrate 3900k -bufsize 2000k -nal-hrd cbr -pix_fmt yuv420p -c:a aac -b:a 128k -f flv`;
  execFileSync('ffmpeg', [...args.split(' '), path], { stdio: 'inherit' });
  return path;
}

async function startStarling(): Promise<Contender> {
  const token = randomBytes(16).toString('hex');
  writeFileSync(join(scratch, 'token'), token);
  const section = { http: { host: '127.0.0.1', port: 0 }, rtmp: { host: '127.0.0.1', port: 0 } };
  const config = join(scratch, 'starling.yaml');
  writeFileSync(config, JSON.stringify({ frontend: { ...section, publishTokenFile: 'token' } }));
  const server = spawn(process.execPath, [program, 'frontend', '--config', config], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  children.push(server);
  const [says] = await once(server.stdout, 'data');
  const ports = /HTTP on port (\d+), RTMP on port (\d+)/.exec(String(says));
  const httpPort = Number(ports?.[1]);
  return {
    name: 'starling http-flv',
    version: `node ${process.version}`,
    server,
    publishUrl: `rtmp://127.0.0.1:${ports?.[2]}/live/bench?token=${token}`,
    view(count) {
      const socket = connect(httpPort, '127.0.0.1');
      socket.write('GET /live/bench.flv HTTP/1.1\r\nHost: localhost\r\n\r\n');
      socket.on('data', (bytes) => count(bytes.length));
      return socket;
    },
  };
}

async function startNginx(): Promise<Contender> {
  const port = await freePort();
  const config = `
    load_module /usr/lib/nginx/modules/ngx_rtmp_module.so;
    daemon off; pid ${scratch}/nginx.pid; error_log ${scratch}/nginx.log; worker_processes 1; user root;
    events { worker_connections 4096; }
    rtmp { access_log off; server { listen 127.0.0.1:${port}; chunk_size 4096; application live { live on; } } }`;
  writeFileSync(join(scratch, 'nginx.conf'), config);
  const server = spawn('/usr/sbin/nginx', ['-p', scratch, '-c', join(scratch, 'nginx.conf')], {
    stdio: 'inherit',
  });
  children.push(server);
  await sleep(500);
  const status = execFileSync('dpkg', ['-s', 'libnginx-mod-rtmp'], { encoding: 'utf8' });
  const version = /^Version: (.+)$/m.exec(status)?.[1] ?? 'unknown';
  return {
    name: 'nginx-rtmp rtmp play',
    version,
    server,
    publishUrl: `rtmp://127.0.0.1:${port}/live/bench`,
    view(count) {
      const socket = connect(port, '127.0.0.1');
      const session = new RtmpClientSession({
        mode: 'play',
        tcUrl: `rtmp://127.0.0.1:${port}/live`,
        app: 'live',
        streamName: 'bench',
        handshakeRandomBytes: randomBytes(1528),
        maxMessageBytes: 8 << 20,
      });
      const flush = () => {
        const output = session.takeOutput();
        if (output !== undefined) socket.write(output);
      };
      let isPlaying = false;
      socket.on('connect', flush);
      socket.on('data', (bytes) => {
        count(bytes.length);
        if (isPlaying) return; // from here on it reads and discards
        isPlaying = session
          .receive(bytes)
          .some((event) => event.type === 'message' && event.message.kind === 'video');
        flush();
      });
      return socket;
    },
  };
}

async function measure(contender: Contender, clipPath: string): Promise<Result> {
  const feed = spawn(
    'ffmpeg',
    [
      '-v',
      'error',
      '-re',
      '-stream_loop',
      '-1',
      '-i',
      clipPath,
      '-c',
      'copy',
      '-f',
      'flv',
      contender.publishUrl,
    ],
    { stdio: ['ignore', 'ignore', 'inherit'] },
  );
  children.push(feed);
  await sleep(3000);
  let receivedBytes = 0;
  const viewers: Socket[] = [];
  for (let i = 0; i < viewerCount; i++) {
    const viewer = contender.view((sizeBytes) => {
      receivedBytes += sizeBytes;
    });
    viewer.on('error', () => {});
    viewers.push(viewer);
    if (i % 25 === 0) await sleep(20);
  }
  await sleep(4000); // the catch-up of the joiners is not what is measured
  const pid = contender.server.pid ?? 0;
  const before = usage(pid);
  const bytesBefore = receivedBytes;
  await sleep(measureSeconds * 1000);
  const after = usage(pid);
  const gigabytes = (receivedBytes - bytesBefore) / 1e9;
  const open = viewers.filter((viewer) => !viewer.destroyed).length;
  for (const viewer of viewers) viewer.destroy();
  feed.kill('SIGKILL');
  if (open < viewerCount)
    throw new Error(`${contender.name} lost ${viewerCount - open} of ${viewerCount} viewers`);
  const cpuSeconds = after.cpuSeconds - before.cpuSeconds;
  return {
    name: contender.name,
    version: contender.version,
    viewers: viewerCount,
    gigabytes,
    cpuSeconds,
    cpuSecondsPerGigabyte: cpuSeconds / gigabytes,
    rssMegabytes: after.rssBytes / 1e6,
  };
}

try {
  const clipPath = makeClip();
  const results: Result[] = [];
  for (const start of [startStarling, startNginx]) {
    const contender = await start();
    results.push(await measure(contender, clipPath));
    contender.server.kill('SIGTERM');
    await once(contender.server, 'exit');
  }
  const [ours, theirs] = results;
  const ratio = (ours?.cpuSecondsPerGigabyte ?? Number.NaN) / (theirs?.cpuSecondsPerGigabyte ?? Number.NaN);
  if (flags.json) {
    process.stdout.write(`${JSON.stringify({ results, ratio }, null, 2)}\n`);
  } else {
    for (const result of results) {
      process.stdout.write(
        `${result.name.padEnd(22)} ${result.version.padEnd(15)} ${result.viewers} viewers  ${result.gigabytes.toFixed(2)} GB  ` +
          `${result.cpuSecondsPerGigabyte.toFixed(3)} CPU s/GB  RSS ${result.rssMegabytes.toFixed(0)} MB\n`,
      );
    }
    process.stdout.write(`ratio: ${ratio.toFixed(2)} of nginx-rtmp's CPU per gigabyte\n`);
  }
} finally {
  for (const child of children) child.kill('SIGKILL');
  rmSync(scratch, { recursive: true, force: true });
}
