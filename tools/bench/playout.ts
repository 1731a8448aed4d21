/**
 * `npm run bench -- playout`: one backend of ours that plays many channels to two frontends each, beside FFmpeg
 * processes that do the same for one channel each. The frontends discard what they get, and note when it came.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { cpus, loadavg, release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ASSET_INDEX_NAME, ASSET_MEDIA_NAME } from '@starling/backend/asset-file';
import { AssetWriter } from '@starling/backend/asset-writer';
import { houseSettings, planAsset } from '@starling/backend/house-format';
import { FlvDemuxer, FlvReader } from '@starling/media/flv/demux';
import type { BackendState, Channel } from '@starling/model/entities';
import { defaultLibrarySettings } from '@starling/model/library';
import type { AssetFacts } from '@starling/model/schedule';
import { Sink, type SinkReport } from './playout-sink.ts';
import { machineBusySeconds, memoryOf, runSecondsOf, usageOf } from './usage.ts';

export interface PlayoutBenchOptions {
  /** The built bench and the built `starling`. */
  readonly benchProgram: string;
  readonly starlingProgram: string;
  readonly channels: number;
  /** FFmpeg takes some fifty megabytes for each, so there are fewer of them; figures are for one channel. */
  readonly ffmpegProcesses: number;
  readonly measureSeconds: number;
  readonly progress: (text: string) => void;
}

/** What one side took, all its processes together. */
export interface PlayoutMeasurement {
  readonly name: 'starling' | 'ffmpeg';
  readonly channels: number;
  readonly processes: number;
  /** Cores that were used on the average. */
  readonly cores: number;
  readonly rssMegabytes: number;
  /** Pages that processes share are counted once. */
  readonly pssMegabytes: number;
  /** What both frontends took. */
  readonly megabitsPerSecond: number;
  /** Behind the channel's timeline; undefined for FFmpeg, which has none. */
  readonly late: SinkReport['late'] | undefined;
  /** Of the time between the units' times and their arrival: the latest behind the earliest, worst channel. */
  readonly spreadMs: number;
  /** Of one core: all that is neither of this side nor the bench. */
  readonly otherCores: number;
}

export interface PlayoutReport {
  readonly conditions: {
    readonly cpu: string;
    readonly cores: number;
    readonly kernel: string;
    readonly node: string;
    readonly ffmpeg: string;
    readonly loadAverageBefore: readonly number[];
    readonly bitrateBps: number;
    readonly measureSeconds: number;
  };
  readonly starling: PlayoutMeasurement;
  readonly ffmpeg: PlayoutMeasurement;
  /** Of one channel: ours divided by FFmpeg's. */
  readonly cpuRatio: number;
  readonly memoryRatio: number;
}

const BITRATE_BPS = 2_000_000;
const AUDIO_BITRATE_BPS = 128_000;
const CLIP_SECONDS = 32;
const FRAME_RATE = 25;
/** Channels play different files, and every file is played by several. */
const ASSETS = 8;
const FRONTENDS = 2;
/** After the last frontend has caught up. */
const SETTLE_MS = 5000;
/** Where the machine is busy, the half minute that every frontend gets first takes its time. */
const JOIN_DEADLINE_MS = 180_000;
const NODE_TOKEN = 'node';

/** Runs both. @throws when one of them does not come about */
export async function benchPlayout(options: PlayoutBenchOptions): Promise<PlayoutReport> {
  const { benchProgram, channels, ffmpegProcesses, measureSeconds, progress } = options;
  const scratch = mkdtempSync(join(tmpdir(), 'starling-bench-playout-'));
  const sinks: Sink[] = [];
  const conditions = {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: cpus().length,
    kernel: release(),
    node: process.versions.node,
    ffmpeg: /^ffmpeg version (\S+)/.exec(execFileSync('ffmpeg', ['-version']).toString())?.[1] ?? 'unknown',
    loadAverageBefore: loadavg(),
    bitrateBps: BITRATE_BPS,
    measureSeconds,
  };
  try {
    progress('drawing the clip');
    const clip = join(scratch, 'clip.flv');
    drawClip(clip);
    const assets = await storeAssets(clip, join(scratch, 'media'));
    for (let count = 0; count < FRONTENDS; count++) sinks.push(await Sink.start(benchProgram));
    progress(`${channels} channels of one backend`);
    const starling = await measureStarling(options, scratch, assets, sinks);
    progress(`${ffmpegProcesses} FFmpeg processes`);
    const [asset] = assets;
    if (asset === undefined) throw new Error('there are no assets');
    const file = join(scratch, 'media', asset.contentHash, ASSET_MEDIA_NAME);
    const ffmpeg = await measureFfmpeg(options, file, sinks);
    const perChannel = (one: PlayoutMeasurement) => ({
      cores: one.cores / one.channels,
      megabytes: one.rssMegabytes / one.channels,
    });
    return {
      conditions,
      starling,
      ffmpeg,
      cpuRatio: perChannel(starling).cores / perChannel(ffmpeg).cores,
      memoryRatio: perChannel(starling).megabytes / perChannel(ffmpeg).megabytes,
    };
  } finally {
    for (const sink of sinks) sink.stop();
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** A busy picture at a constant bit rate in the form of an asset: closed GOPs of 2 s, no reordering. */
function drawClip(path: string): void {
  const videoBps = BITRATE_BPS - AUDIO_BITRATE_BPS;
  const filters = houseSettings.video.indexOf('-bsf:v');
  execFileSync('ffmpeg', [
    ...['-v', 'error', '-y'],
    ...['-f', 'lavfi', '-i', `testsrc2=s=1280x720:r=${FRAME_RATE},noise=alls=8:allf=t`],
    ...['-f', 'lavfi', '-i', 'sine=r=48000', '-t', String(CLIP_SECONDS + 1)],
    ...['-c:v', 'libx264', '-preset', 'ultrafast', '-bf', '0', '-pix_fmt', 'yuv420p'],
    ...['-g', '50', '-keyint_min', '50', '-sc_threshold', '0'],
    ...['-b:v', String(videoBps), '-minrate', String(videoBps), '-maxrate', String(videoBps)],
    ...['-bufsize', String(videoBps), '-nal-hrd', 'cbr'],
    ...houseSettings.video.slice(filters, filters + 2), // the timing that the writer of assets expects
    ...['-c:a', 'aac', '-ac', '2', '-b:a', String(AUDIO_BITRATE_BPS), '-f', 'flv', path],
  ]);
}

/** The clip as assets of the backend's store: the same content under several names. */
async function storeAssets(clip: string, mediaDir: string): Promise<AssetFacts[]> {
  const hashes = Array.from({ length: ASSETS }, (_, index) => index.toString(16).padStart(64, '0'));
  const [first = '', ...others] = hashes;
  const folder = join(mediaDir, first);
  mkdirSync(folder, { recursive: true });
  const plan = planAsset(CLIP_SECONDS, FRAME_RATE);
  const audioTracks = [{ language: null, loudnessLufs: null, gainDb: 0 }];
  const rungs = [{ widthPx: 1280, heightPx: 720 }];
  const writer = await AssetWriter.create(folder, { plan, rungs, audioTracks });
  const demuxer = new FlvDemuxer();
  let frames = 0;
  for (const message of new FlvReader().push(readFileSync(clip))) {
    for (const event of demuxer.push(message)) {
      const isPicture = event.type === 'unit' && event.unit.kind === 'video';
      if (isPicture && ++frames > plan.frameCount) continue;
      await writer.push([event]);
    }
  }
  const facts = { ...(await writer.finish(first)), subtitles: [], hasPictures: false };
  await writer.writeIndex(facts);
  await writer.close();
  const all = [facts];
  for (const contentHash of others) {
    const copy = join(mediaDir, contentHash);
    cpSync(folder, copy, { recursive: true });
    const indexPath = join(copy, ASSET_INDEX_NAME);
    const index: unknown = JSON.parse(readFileSync(indexPath, 'utf8'));
    writeFileSync(indexPath, JSON.stringify(Object.assign({}, index, { facts: { ...facts, contentHash } })));
    all.push({ ...facts, contentHash });
  }
  return all;
}

/** Channels that were made a second after one another, and have been on for a while. */
function backendState(channels: number, assets: readonly AssetFacts[]): BackendState {
  const epochUnixMs = Math.floor(Date.now() / 1000) * 1000 - 120_000;
  return {
    revision: 1,
    channels: Array.from(
      { length: channels },
      (_, index): Channel => ({
        name: `bench-${index}`,
        title: `Bench ${index}`,
        number: index + 1,
        logo: null,
        group: null,
        kind: 'playout',
        epochUnixMs: epochUnixMs + (index % 60) * 1000,
        runs: [
          {
            startTicks: 0,
            firstMediaSequenceNumber: 0,
            firstDiscontinuitySequence: 0,
            loop: [`asset-${index % assets.length}`],
          },
        ],
        isPrivate: false,
        maxViewers: null,
        sources: null,
        sourceChoice: 'auto',
        record: null,
        redundancy: 1,
        createdAt: new Date(epochUnixMs).toISOString(),
      }),
    ),
    streams: [],
    destinations: [],
    recordings: { wanted: [], removedIds: [] },
    assets: assets.map((facts, index) => ({ id: `asset-${index}`, name: `asset-${index}`, facts })),
    imports: [],
    folders: [],
    library: defaultLibrarySettings,
  };
}

/** Says what is on, and takes every report. */
async function serveState(state: BackendState) {
  const server = createServer((request, response) => {
    request.resume();
    if (!request.url?.endsWith('/backend/watch')) {
      response.writeHead(204).end();
      return;
    }
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write(`id: ${state.revision}\ndata: ${JSON.stringify(state)}\n\n`);
    const pings = setInterval(() => response.write(': ping\n\n'), 10_000);
    response.on('close', () => clearInterval(pings));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return {
    url: `http://127.0.0.1:${address.port}`,
    close() {
      server.closeAllConnections();
      server.close();
    },
  };
}

async function measureStarling(
  options: PlayoutBenchOptions,
  scratch: string,
  assets: readonly AssetFacts[],
  sinks: readonly Sink[],
): Promise<PlayoutMeasurement> {
  const coordinator = await serveState(backendState(options.channels, assets));
  writeFileSync(join(scratch, 'node.token'), NODE_TOKEN);
  const config = join(scratch, 'starling.yaml');
  writeFileSync(
    config,
    JSON.stringify({
      backend: {
        dataDir: scratch,
        rtmp: { host: '127.0.0.1', port: 0 },
        leaseDir: 'leases',
        coordinator: { url: coordinator.url, tokenFile: 'node.token' },
        frontends: sinks.map(({ port }) => ({ host: '127.0.0.1', port, publishTokenFile: 'node.token' })),
      },
    }),
  );
  const profile = process.env.STARLING_BENCH_NODE_OPTIONS?.split(' ') ?? [];
  const child = spawn(
    process.execPath,
    [...profile, options.starlingProgram, 'backend', '--config', config],
    { stdio: ['ignore', 'ignore', 'inherit'], env: { ...process.env, STARLING_LOG_LEVEL: 'error' } },
  );
  try {
    return await measure('starling', options.channels, [child], options.measureSeconds, sinks);
  } finally {
    coordinator.close();
    child.kill('SIGTERM');
    await once(child, 'exit');
  }
}

async function measureFfmpeg(
  options: PlayoutBenchOptions,
  file: string,
  sinks: readonly Sink[],
): Promise<PlayoutMeasurement> {
  const children: ChildProcess[] = [];
  try {
    for (let index = 0; index < options.ffmpegProcesses; index++) {
      const outputs = sinks.flatMap(({ port }) => [
        ...['-map', '0', '-c', 'copy', '-f', 'flv', `rtmp://127.0.0.1:${port}/live/ffmpeg-${index}`],
      ]);
      const args = ['-v', 'error', '-nostdin', '-re', '-stream_loop', '-1', '-i', file, ...outputs];
      children.push(spawn('ffmpeg', args, { stdio: 'ignore' }));
      await sleep(50); // people do not start them all at once
    }
    return await measure('ffmpeg', options.ffmpegProcesses, children, options.measureSeconds, sinks);
  } finally {
    for (const child of children) child.kill('SIGKILL');
  }
}

async function measure(
  name: PlayoutMeasurement['name'],
  channels: number,
  children: readonly ChildProcess[],
  measureSeconds: number,
  sinks: readonly Sink[],
): Promise<PlayoutMeasurement> {
  const deadlineMs = performance.now() + JOIN_DEADLINE_MS;
  for (;;) {
    const reports = await Promise.all(sinks.map((sink) => sink.report()));
    if (reports.every(({ currentStreams }) => currentStreams === channels)) break;
    if (performance.now() > deadlineMs) {
      throw new Error(
        `${reports.map((one) => one.currentStreams).join(' and ')} of ${channels} channels came`,
      );
    }
    await sleep(250);
  }
  await sleep(SETTLE_MS);
  const pids = children.flatMap(({ pid }) => (pid === undefined ? [] : [pid]));
  const read = () => ({
    atMs: performance.now(),
    cpuSeconds: pids.reduce((sum, pid) => sum + runSecondsOf(pid), 0),
    sinkSeconds: sinks.reduce((sum, sink) => sum + usageOf(sink.pid).cpuSeconds, 0),
    benchSeconds: process.cpuUsage().user / 1e6 + process.cpuUsage().system / 1e6,
    busySeconds: machineBusySeconds(),
  });
  for (const sink of sinks) sink.begin();
  const before = read();
  await sleep(measureSeconds * 1000);
  const after = read();
  const reports = await Promise.all(sinks.map((sink) => sink.report()));
  const memory = pids.map((pid) => memoryOf(pid));
  const seconds = (after.atMs - before.atMs) / 1000;
  const cpuSeconds = after.cpuSeconds - before.cpuSeconds;
  const ownSeconds =
    cpuSeconds + after.sinkSeconds - before.sinkSeconds + after.benchSeconds - before.benchSeconds;
  const lates = reports.flatMap(({ late }) => (late === undefined ? [] : [late]));
  return {
    name,
    channels,
    processes: pids.length,
    cores: cpuSeconds / seconds,
    rssMegabytes: memory.reduce((sum, one) => sum + one.rssBytes, 0) / 1e6,
    pssMegabytes: memory.reduce((sum, one) => sum + one.pssBytes, 0) / 1e6,
    megabitsPerSecond: (reports.reduce((sum, one) => sum + one.receivedBytes, 0) * 8) / 1e6 / seconds,
    late:
      name === 'ffmpeg'
        ? undefined
        : {
            units: lates.reduce((sum, one) => sum + one.units, 0),
            p50Ms: Math.max(...lates.map((one) => one.p50Ms)),
            p99Ms: Math.max(...lates.map((one) => one.p99Ms)),
            maxMs: Math.max(...lates.map((one) => one.maxMs)),
            over100Ms: lates.reduce((sum, one) => sum + one.over100Ms, 0),
          },
    spreadMs: Math.max(...reports.map((one) => one.spreadMs)),
    otherCores: Math.max(0, (after.busySeconds - before.busySeconds - ownSeconds) / seconds),
  };
}

/** The report as text. */
export function playoutTableOf({
  conditions,
  starling,
  ffmpeg,
  cpuRatio,
  memoryRatio,
}: PlayoutReport): string {
  const rows: [string, (one: PlayoutMeasurement) => string][] = [
    ['', ({ name }) => name],
    ['channels', ({ channels }) => String(channels)],
    ['processes', ({ processes }) => String(processes)],
    ['Mb/s to two frontends', ({ megabitsPerSecond }) => megabitsPerSecond.toFixed(0)],
    ['cores', ({ cores }) => cores.toFixed(3)],
    ['% of a core for each channel', ({ cores, channels }) => ((100 * cores) / channels).toFixed(3)],
    ['resident MB', ({ rssMegabytes }) => rssMegabytes.toFixed(0)],
    ['resident MB for each channel', ({ rssMegabytes, channels }) => (rssMegabytes / channels).toFixed(1)],
    ['MB, shared pages once', ({ pssMegabytes }) => pssMegabytes.toFixed(0)],
    ['units late, p50 ms', ({ late }) => late?.p50Ms.toFixed(0) ?? ''],
    ['units late, p99 ms', ({ late }) => late?.p99Ms.toFixed(0) ?? ''],
    ['units late, latest ms', ({ late }) => late?.maxMs.toFixed(0) ?? ''],
    [
      'units more than 100 ms late',
      ({ late }) => (late === undefined ? '' : `${late.over100Ms} of ${late.units}`),
    ],
    ['latest behind earliest, ms', ({ spreadMs }) => spreadMs.toFixed(0)],
    ['cores that others used', ({ otherCores }) => otherCores.toFixed(2)],
  ];
  const lines = rows.map(([what, cell]) =>
    [what.padEnd(30), cell(starling).padStart(18), cell(ffmpeg).padStart(18)].join('').trimEnd(),
  );
  return [
    `${conditions.cores} cores of ${conditions.cpu}, Linux ${conditions.kernel}, Node ${conditions.node}, ` +
      `FFmpeg ${conditions.ffmpeg}; load average before: ` +
      conditions.loadAverageBefore.map((load) => load.toFixed(2)).join(', '),
    `channels of ${conditions.bitrateBps / 1e6} Mb/s, ${conditions.measureSeconds} s`,
    '',
    ...lines,
    '',
    `For one channel, ours divided by FFmpeg's: CPU ${cpuRatio.toFixed(3)}, resident memory ${memoryRatio.toFixed(3)}`,
    '',
  ].join('\n');
}
