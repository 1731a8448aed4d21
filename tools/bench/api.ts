/**
 * `npm run bench -- api`: authenticated reads a second that a coordinator on PostgreSQL answers, and how long they take,
 * while somebody makes changes. The readers are connections of another process, each with one request at a time.
 */
import { type ChildProcess, fork, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { CoordinatorClient } from '@starling/model/client';
import { type PostgresServer, startPostgres } from '../../roles/coordinator/test/postgres/server.ts';
import { monotonicMs } from './clock.ts';
import { HttpConnection } from './http-connection.ts';
import { machineBusySeconds, usageOf } from './usage.ts';

const STREAMS = 1000;
const WARM_UP_MS = 2000;
const CHANGES_PER_SECOND = 2;

/** What is read, by what it is called in the table; each path in turn. */
const subjects: Record<string, readonly string[]> = {
  'one channel': Array.from({ length: 50 }, (_, index) => `/channels/cam-${index * 20}`),
  'a page of 20 streams': ['/streams?limit=20'],
  'a page of 100 streams': ['/streams?limit=100'],
  status: ['/status'],
  'all of these': ['/channels/cam-1', '/channels/cam-7', '/streams?limit=20', '/status', '/channels/cam-500'],
};

export interface ApiLoadPlan {
  readonly port: number;
  readonly token: string;
  readonly paths: readonly string[];
  readonly connections: number;
  readonly measureMs: number;
}

interface ApiLoadReport {
  readonly readsPerSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  readonly failures: number;
  /** Cores that the readers' process took. */
  readonly readerCores: number;
}

/** The readers' process: takes a plan over IPC, and sends a report back. */
export function serveApiLoad(): void {
  process.on('disconnect', () => process.exit());
  process.on('message', (plan: ApiLoadPlan) => {
    void readersOf(plan).then((report) => process.send?.(report));
  });
}

async function readersOf(plan: ApiLoadPlan): Promise<ApiLoadReport> {
  const { port, token, paths, connections, measureMs } = plan;
  const headers = `Authorization: Bearer ${token}\r\n`;
  const beginMs = monotonicMs() + WARM_UP_MS;
  const endMs = beginMs + measureMs;
  const latencies: number[] = [];
  let failures = 0;
  const read = async (first: number) => {
    const connection = new HttpConnection(port);
    for (let count = first; monotonicMs() < endMs; count++) {
      const startMs = monotonicMs();
      const { status, endedAtMs } = await connection.get(`/api/v1${paths[count % paths.length]}`, {
        headers,
      });
      if (startMs < beginMs) continue;
      if (status !== 200) failures += 1;
      latencies.push(endedAtMs - startMs);
    }
    connection.close();
  };
  const before = process.cpuUsage();
  await Promise.all(Array.from({ length: connections }, (_, index) => read(index)));
  const { user, system } = process.cpuUsage(before);
  latencies.sort((a, b) => a - b);
  const at = (share: number) => latencies[Math.floor(share * (latencies.length - 1))] ?? Number.NaN;
  return {
    readsPerSecond: (latencies.length * 1000) / measureMs,
    p50Ms: at(0.5),
    p99Ms: at(0.99),
    maxMs: at(1),
    failures,
    readerCores: (user + system) / 1e6 / ((measureMs + WARM_UP_MS) / 1000),
  };
}

export interface ApiBenchOptions {
  readonly benchProgram: string;
  readonly starlingProgram: string;
  readonly connections: number;
  readonly seconds: number;
  readonly progress: (text: string) => void;
}

/** @returns the table */
export async function benchApi(options: ApiBenchOptions): Promise<string> {
  const scratch = mkdtempSync(join(tmpdir(), 'starling-bench-api-'));
  const loadBefore = loadavg();
  let postgres: PostgresServer | undefined;
  let coordinator: ChildProcess | undefined;
  let readers: ChildProcess | undefined;
  try {
    postgres = await startPostgres();
    const token = randomBytes(32).toString('base64url');
    const started = startCoordinatorProcess(options.starlingProgram, scratch, postgres.url(), token);
    coordinator = started;
    const port = await portOf(started);
    const client = new CoordinatorClient({ baseUrl: `http://127.0.0.1:${port}`, token });
    options.progress(`adding ${STREAMS} streams`);
    for (let index = 0; index < STREAMS; index++) await client.streams.create({ name: `cam-${index}` });
    readers = fork(options.benchProgram, ['api-load']);
    const rows: string[][] = [];
    for (const [subject, paths] of Object.entries(subjects)) {
      options.progress(`reading ${subject}`);
      const plan: ApiLoadPlan = {
        ...{ port, token, paths },
        connections: options.connections,
        measureMs: options.seconds * 1000,
      };
      readers.send(plan);
      const before = { usage: usageOf(started.pid ?? 0), busy: machineBusySeconds(), atMs: monotonicMs() };
      const stop = new AbortController();
      const changes = makeChanges(client, stop.signal);
      const [report] = (await once(readers, 'message')) as [ApiLoadReport];
      stop.abort();
      const changeCount = await changes;
      const seconds = (monotonicMs() - before.atMs) / 1000;
      const cores = (usageOf(started.pid ?? 0).cpuSeconds - before.usage.cpuSeconds) / seconds;
      const allCores = (machineBusySeconds() - before.busy) / seconds;
      rows.push([
        subject,
        report.readsPerSecond.toFixed(0),
        ...[report.p50Ms, report.p99Ms, report.maxMs].map((value) => value.toFixed(1)),
        String(report.failures),
        String(changeCount),
        ...[cores, report.readerCores, allCores - cores - report.readerCores].map((value) =>
          value.toFixed(2),
        ),
      ]);
    }
    return [
      `${cpus().length} cores of ${cpus()[0]?.model ?? 'unknown'}, Linux ${release()}, Node ${process.versions.node}; ` +
        `load average before: ${loadBefore.map((load) => load.toFixed(2)).join(', ')}`,
      `${options.connections} connections, ${STREAMS} streams with their channels; times in milliseconds, CPU in cores`,
      '',
      '| read | reads/s | p50 | p99 | longest | failed | changes meanwhile | coordinator | readers | PostgreSQL and others |',
      '| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |',
      ...rows.map((row) => `| ${row.join(' | ')} |`),
      '',
    ].join('\n');
  } finally {
    readers?.kill('SIGKILL');
    if (coordinator !== undefined && coordinator.exitCode === null) {
      const exited = once(coordinator, 'exit');
      coordinator.kill('SIGKILL');
      await exited;
    }
    postgres?.remove();
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** Each makes all that is kept in memory worthless. */
async function makeChanges(client: CoordinatorClient, signal: AbortSignal): Promise<number> {
  let count = 0;
  while (!signal.aborted) {
    await client.channels.update('cam-3', { title: `Change ${count++}` });
    await sleep(1000 / CHANGES_PER_SECOND, undefined, { signal }).catch(() => {});
  }
  return count;
}

export function startCoordinatorProcess(
  program: string,
  scratch: string,
  databaseUrl: string,
  token: string,
): ChildProcess {
  writeFileSync(join(scratch, 'operator.token'), token, { mode: 0o600 });
  writeFileSync(join(scratch, 'node.token'), randomBytes(32).toString('base64url'), { mode: 0o600 });
  writeFileSync(
    join(scratch, 'starling.yaml'),
    [
      'coordinator:',
      `  dataDir: ${scratch}`,
      '  http: { host: 127.0.0.1, port: 0 }',
      '  operatorTokenFile: operator.token',
      '  nodeTokenFile: node.token',
      '',
    ].join('\n'),
  );
  return spawn(process.execPath, [program, 'coordinator', '--config', join(scratch, 'starling.yaml')], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, DATABASE_URL: databaseUrl, STARLING_LOG_LEVEL: 'warn' },
  });
}

export async function portOf(child: ChildProcess): Promise<number> {
  const { stdout } = child;
  if (stdout === null) throw new Error('the coordinator has no output');
  for await (const chunk of stdout) {
    const port = /on port (\d+)/.exec(String(chunk))?.[1];
    if (port !== undefined) return Number(port);
  }
  throw new Error('the coordinator ended before it said its port');
}
