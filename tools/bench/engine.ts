/**
 * `npm run bench -- engine`: one frontend of ours beside nginx-rtmp, node-media-server and nginx, in one run
 * and on the same stream. Absolute figures differ from machine to machine; the ratios are the result.
 *
 * All servers take the stream in all the time, and one at a time has viewers. They take turns, so that a
 * change on the machine meets all of them.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { cpus, loadavg, release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Crowd, type CrowdPlan, type CrowdReport } from './crowd.ts';
import { listedIn, mediaPlaylistPath } from './hls-playlist.ts';
import { HttpConnection } from './http-connection.ts';
import { type Clip, makeClip, Publisher } from './publisher.ts';
import {
  type FileServer,
  STREAM_PATH,
  type StreamingServer,
  startFloors,
  startNginxFiles,
  startNginxRtmp,
  startNodeMediaServer,
  startStarling,
} from './servers.ts';
import { machineBusySeconds, usageOf } from './usage.ts';

export const SUBJECTS = ['http-flv', 'rtmp', 'hls', 'll-hls', 'floor'] as const;
export type Subject = (typeof SUBJECTS)[number];

export interface EngineOptions {
  /** The built bench and the built `starling`. */
  readonly benchProgram: string;
  readonly starlingProgram: string;
  /** An older build of `starling`, measured too. */
  readonly baselineProgram: string | undefined;
  readonly viewerCounts: readonly number[];
  readonly measureSeconds: number;
  readonly rounds: number;
  /** Servers run for months: what a compiler does in the first minute is not what they cost. */
  readonly warmUpSeconds: number;
  /** How long to wait, before each measurement, for other programs to leave the machine alone. */
  readonly patienceSeconds: number;
  readonly only: readonly Subject[];
  /** Told what is being measured. */
  readonly progress: (text: string) => void;
}

/** One server under one load. */
export interface Measurement {
  readonly subject: string;
  readonly server: string;
  readonly viewers: number;
  readonly round: number;
  readonly gigabytes: number;
  readonly cpuSeconds: number;
  readonly cpuSecondsPerGigabyte: number;
  readonly rssMegabytes: number;
  readonly requestsPerSecond: number;
  readonly requestsPerCpuSecond: number;
  /** Of what should have come: 1 where every viewer got the whole stream. Undefined where there is no such amount. */
  readonly deliveredShare: number | undefined;
  readonly report: CrowdReport;
  /** Of one core: the viewers' process, and all that is neither the server nor the bench. */
  readonly crowdCpuShare: number;
  readonly otherCpuShare: number;
}

export interface EngineReport {
  readonly conditions: {
    readonly cpu: string;
    readonly cores: number;
    readonly kernel: string;
    readonly node: string;
    /** Over 1, 5 and 15 minutes, before the first measurement. */
    readonly loadAverageBefore: readonly number[];
    readonly bitrateBps: number;
  };
  readonly versions: Readonly<Record<string, string>>;
  readonly measurements: readonly Measurement[];
}

const BITRATE_BPS = 4_000_000;
/** From the start of the publishing until the first viewer comes: some segments of HLS. */
const PUBLISH_LEAD_MS = 14_000;
/** Of a frontend that was told nothing else. */
const PART_MS = 400;
const JOIN_MS = 4000;
/** The catch-up of the joiners is not what is measured. */
const SETTLE_MS = 3000;
/** The machine is quiet when so much of one core is used for so long, the servers' taking in of the stream included. */
const QUIET_CPU_SHARE = 0.25;
const QUIET_MS = 2000;
/** HLS: closed loops over files, players, players that wait. */
const FILE_CONNECTIONS = 32;
const HLS_VIEWERS = 100;
/** Viewers, and the channels that they share among themselves. */
const RELOAD_WAITERS = [
  { viewers: 500, channelCount: 1 },
  { viewers: 2000, channelCount: 1 },
  { viewers: 2000, channelCount: 4 },
  { viewers: 2000, channelCount: 8 },
] as const;
/** nginx is given so many files of each kind. */
const COPIED_FILES = 6;

/** Runs all of it. @throws when a server or its viewers fail */
export async function benchEngine(options: EngineOptions): Promise<EngineReport> {
  const scratch = mkdtempSync(join(tmpdir(), 'starling-bench-'));
  const conditions = {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: cpus().length,
    kernel: release(),
    node: process.versions.node,
    loadAverageBefore: loadavg(),
    bitrateBps: BITRATE_BPS,
  };
  const servers: StreamingServer[] = [];
  const fileServers: FileServer[] = [];
  const publishers: Publisher[] = [];
  try {
    options.progress('drawing the clip');
    const clip = await makeClip(scratch, BITRATE_BPS);
    servers.push(await startStarling('starling', options.starlingProgram, scratch));
    if (options.baselineProgram !== undefined) {
      servers.push(await startStarling('baseline', options.baselineProgram, scratch));
    }
    servers.push(await startNginxRtmp(scratch), await startNodeMediaServer(scratch));
    if (options.only.includes('floor')) {
      servers.push(...(await startFloors(options.benchProgram, scratch, BITRATE_BPS)));
    }
    for (const { publishUrl } of servers) {
      if (publishUrl !== undefined) publishers.push(await Publisher.start(publishUrl, clip));
    }
    const [publisher] = publishers;
    if (publisher === undefined) throw new Error('nobody publishes');
    await sleep(PUBLISH_LEAD_MS);
    options.progress('warming up');
    await sleep(options.warmUpSeconds * 1000);
    const bench = new EngineBench(options, clip, publisher);
    for (let round = 1; round <= options.rounds; round++) {
      for (const viewers of options.viewerCounts) {
        for (const protocol of ['http-flv', 'rtmp'] as const) {
          if (!options.only.includes(protocol)) continue;
          for (const server of servers) await bench.measureStreams(server, protocol, viewers, round);
        }
      }
      if (!options.only.includes('hls') && !options.only.includes('ll-hls')) continue;
      const nginx = fileServers[0] ?? (await startNginxFiles(scratch));
      fileServers[0] = nginx;
      for (const server of servers) await bench.measureHls(server, nginx, round);
    }
    return {
      conditions,
      versions: Object.fromEntries([
        ...servers.map(({ name, version }) => [name, version]),
        ...fileServers.map(({ version }) => ['nginx', version]),
      ]),
      measurements: bench.measurements,
    };
  } finally {
    for (const publisher of publishers) publisher.stop();
    for (const server of [...servers, ...fileServers]) await server.stop();
    rmSync(scratch, { recursive: true, force: true });
  }
}

class EngineBench {
  readonly measurements: Measurement[] = [];
  readonly #options: EngineOptions;
  readonly #clip: Clip;
  /** All publishers send the same. */
  readonly #publisher: Publisher;

  constructor(options: EngineOptions, clip: Clip, publisher: Publisher) {
    this.#options = options;
    this.#clip = clip;
    this.#publisher = publisher;
  }

  /** Endless responses; does nothing where the server does not have the protocol. */
  async measureStreams(
    server: StreamingServer,
    protocol: 'http-flv' | 'rtmp',
    viewers: number,
    round: number,
  ): Promise<void> {
    const way = server.ways[protocol];
    if (way === undefined) return;
    const plan = { kind: 'streams', protocol, ...way, count: viewers, joinMs: JOIN_MS } as const;
    await this.#measure({ subject: protocol, server: server.name, viewers, round }, server.pid, plan);
  }

  /** HLS, beside nginx with the same files; does nothing where the server does not have it. */
  async measureHls(server: StreamingServer, nginx: FileServer, round: number): Promise<void> {
    const { only } = this.#options;
    const { hls } = server.ways;
    if (hls === undefined) return;
    const copied = await copyFiles(hls, nginx);
    for (const [subject, pick] of [
      ['hls', 'segments'],
      ['ll-hls', 'parts'],
    ] as const) {
      if (!only.includes(subject)) continue;
      const load = { subject: `${subject} ${pick}`, viewers: FILE_CONNECTIONS, round };
      const plan = { kind: 'files', count: FILE_CONNECTIONS } as const;
      const from = { playlist: copied.playlist, pick };
      await this.#measure({ ...load, server: server.name }, server.pid, {
        ...plan,
        port: hls.port,
        from,
      });
      const copies = { ...plan, port: nginx.port, from: copied[pick] };
      await this.#measure({ ...load, server: 'nginx' }, nginx.pid, copies);
      const viewers = { count: HLS_VIEWERS, joinMs: JOIN_MS, isLowLatency: subject === 'll-hls' };
      await this.#measure(
        { subject: `${subject} viewers`, server: server.name, viewers: HLS_VIEWERS, round },
        server.pid,
        { kind: 'hls', ...hls, ...viewers },
      );
    }
    if (!only.includes('ll-hls')) return;
    for (const { viewers, channelCount } of RELOAD_WAITERS) {
      const subject = channelCount === 1 ? 'll-hls reloads' : `ll-hls reloads, ${channelCount} channels`;
      const load = { subject, server: server.name, viewers, round };
      const others = await this.#publishMore(server, channelCount - 1);
      const paths = [hls.path, ...others.map(({ name }) => hls.path.replace(STREAM_PATH, name))];
      await this.#measure(load, server.pid, { kind: 'reloads', port: hls.port, paths, count: viewers });
      for (const { publisher } of others) publisher.stop();
    }
  }

  /** More channels, whose parts end at other times. */
  async #publishMore(
    { publishUrl = '' }: StreamingServer,
    count: number,
  ): Promise<{ name: string; publisher: Publisher }[]> {
    const others = [];
    for (let index = 1; index <= count; index++) {
      const name = `${STREAM_PATH}-${index}`;
      const publisher = await Publisher.start(publishUrl.replace(STREAM_PATH, name), this.#clip);
      others.push({ name, publisher });
      await sleep(PART_MS / (count + 1));
    }
    if (count > 0) await sleep(PUBLISH_LEAD_MS);
    return others;
  }

  async #untilQuiet(): Promise<void> {
    const deadlineMs = performance.now() + this.#options.patienceSeconds * 1000;
    while (performance.now() < deadlineMs) {
      const before = { atMs: performance.now(), busySeconds: machineBusySeconds() };
      await sleep(QUIET_MS);
      const busyShare =
        (machineBusySeconds() - before.busySeconds) / ((performance.now() - before.atMs) / 1000);
      if (busyShare < QUIET_CPU_SHARE) return;
    }
  }

  async #measure(
    load: Pick<Measurement, 'subject' | 'server' | 'viewers' | 'round'>,
    serverPid: number,
    plan: CrowdPlan,
  ): Promise<void> {
    const { benchProgram, measureSeconds, progress } = this.#options;
    await this.#untilQuiet();
    progress(`${load.subject}, ${load.server}, ${load.viewers} viewers`);
    const crowd = await Crowd.gather(benchProgram, plan);
    try {
      await sleep(SETTLE_MS);
      const read = () => ({
        atMs: performance.now(),
        server: usageOf(serverPid),
        crowdSeconds: crowd.cpuSeconds,
        benchSeconds: process.cpuUsage().user / 1e6 + process.cpuUsage().system / 1e6,
        busySeconds: machineBusySeconds(),
        publishedBytes: this.#publisher.sentBytes,
      });
      crowd.begin();
      const before = read();
      await sleep(measureSeconds * 1000);
      const after = read();
      const report = await crowd.report();
      const seconds = (after.atMs - before.atMs) / 1000;
      const gigabytes = report.receivedBytes / 1e9;
      const cpuSeconds = after.server.cpuSeconds - before.server.cpuSeconds;
      const crowdSeconds = after.crowdSeconds - before.crowdSeconds;
      const benchSeconds = after.benchSeconds - before.benchSeconds;
      const busySeconds = after.busySeconds - before.busySeconds;
      const publishedBytes = after.publishedBytes - before.publishedBytes;
      this.measurements.push({
        ...load,
        gigabytes,
        cpuSeconds,
        cpuSecondsPerGigabyte: cpuSeconds / gigabytes,
        rssMegabytes: after.server.rssBytes / 1e6,
        requestsPerSecond: report.requests / seconds,
        requestsPerCpuSecond: report.requests / cpuSeconds,
        deliveredShare:
          plan.kind === 'streams' ? report.receivedBytes / (publishedBytes * load.viewers) : undefined,
        report,
        crowdCpuShare: crowdSeconds / seconds,
        otherCpuShare: Math.max(0, (busySeconds - cpuSeconds - crowdSeconds - benchSeconds) / seconds),
      });
    } finally {
      await crowd.disperse();
    }
  }
}

/** Gives nginx the newest files of the window under the same names. */
async function copyFiles(
  hls: { port: number; path: string },
  nginx: FileServer,
): Promise<{ playlist: string; segments: readonly string[]; parts: readonly string[] }> {
  const connection = new HttpConnection(hls.port);
  const get = async (path: string) => (await connection.get(path, { keepsBody: true })).body;
  const playlist = mediaPlaylistPath((await get(hls.path)).toString(), hls.path);
  const listed = listedIn((await get(playlist)).toString(), playlist);
  const segments = listed.segments.slice(-COPIED_FILES);
  const parts = listed.parts.slice(-COPIED_FILES);
  for (const path of [...segments, ...parts]) nginx.put(path, await get(path));
  connection.close();
  return { playlist, segments, parts };
}
