/**
 * `npm run bench -- fleet`: how long until the last of 200 nodes has heard of a change of the fleet. Two coordinators on one
 * PostgreSQL server; half of the nodes follow each, all report every 5 s, and the changes are asked of the first.
 */
import type { ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once, setMaxListeners } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { cpus, loadavg, release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { CoordinatorClient } from '@starling/model/client';
import { type NodeReport, nodeRoles } from '@starling/model/node';
import { NodeProver, newNodeIdentity } from '@starling/model/node-identity';
import { type PostgresServer, startPostgres } from '../../roles/coordinator/test/postgres/server.ts';
import { portOf, startCoordinatorProcess } from './api.ts';
import { monotonicMs } from './clock.ts';

const COORDINATORS = 2;
const REPORT_EVERY_MS = 5000;
const CONVERGE_WITHIN_MS = 10_000;

export interface FleetBenchOptions {
  readonly starlingProgram: string;
  readonly nodes: number;
  readonly changes: number;
  readonly progress: (text: string) => void;
}

/** @returns the table */
export async function benchFleet(options: FleetBenchOptions): Promise<string> {
  const scratch = mkdtempSync(join(tmpdir(), 'starling-bench-fleet-'));
  const loadBefore = loadavg();
  const coordinators: ChildProcess[] = [];
  const stop = new AbortController();
  setMaxListeners(0, stop.signal);
  let postgres: PostgresServer | undefined;
  try {
    postgres = await startPostgres();
    const token = randomBytes(32).toString('base64url');
    const urls: string[] = [];
    for (let index = 0; index < COORDINATORS; index++) {
      const dir = join(scratch, String(index));
      mkdirSync(dir);
      const child = startCoordinatorProcess(options.starlingProgram, dir, postgres.url(), token);
      coordinators.push(child);
      urls.push(`http://127.0.0.1:${await portOf(child)}`);
    }
    const operator = new CoordinatorClient({ baseUrl: urls[0] ?? '', token });
    options.progress(`${options.nodes} nodes join`);
    /** Of each node, the state that it knows of the node that changes. */
    const seen: (string | undefined)[] = [];
    let onSeen = () => {};
    for (let index = 0; index < options.nodes; index++) {
      const baseUrl = urls[index % urls.length] ?? '';
      const client = await joinAs(operator, baseUrl, index);
      const report = reportOf(index);
      void reportAgainAndAgain(client, report, stop.signal);
      void client.watchFleet(
        undefined,
        ({ nodes }) => {
          seen[index] = nodes.find(({ name }) => name === 'node-0')?.state;
          onSeen();
        },
        stop.signal,
      );
    }
    const allSee = (state: string) =>
      new Promise<number>((resolve, reject) => {
        const deadline = setTimeout(
          () => reject(new Error(`${state} did not reach all nodes`)),
          CONVERGE_WITHIN_MS,
        );
        onSeen = () => {
          if (seen.filter((one) => one === state).length < options.nodes) return;
          clearTimeout(deadline);
          onSeen = () => {};
          resolve(monotonicMs());
        };
        onSeen();
      });
    await allSee('joined');
    await sleep(REPORT_EVERY_MS); // what all say at once at their start has been taken
    options.progress(`${options.changes} changes`);
    const times: number[] = [];
    for (let index = 0; index < options.changes; index++) {
      const isCordoned = index % 2 === 0;
      const startMs = monotonicMs();
      const seenByAll = allSee(isCordoned ? 'cordoned' : 'joined');
      await (isCordoned ? operator.nodes.cordon('node-0') : operator.nodes.uncordon('node-0'));
      times.push((await seenByAll) - startMs);
      await sleep(300);
    }
    times.sort((a, b) => a - b);
    const at = (share: number) => (times[Math.floor(share * (times.length - 1))] ?? Number.NaN).toFixed(0);
    return [
      `${cpus().length} cores of ${cpus()[0]?.model ?? 'unknown'}, Linux ${release()}, Node ${process.versions.node}; ` +
        `load average before: ${loadBefore.map((load) => load.toFixed(2)).join(', ')}`,
      `${COORDINATORS} coordinators on one PostgreSQL server, all nodes in one process; from the request until the last node has heard of it, in milliseconds`,
      '',
      '| nodes | changes | p50 | p90 | longest |',
      '| --- | --- | --- | --- | --- |',
      `| ${options.nodes} | ${options.changes} | ${at(0.5)} | ${at(0.9)} | ${at(1)} |`,
      '',
    ].join('\n');
  } finally {
    stop.abort();
    for (const child of coordinators) {
      if (child.exitCode !== null) continue;
      const exited = once(child, 'exit');
      child.kill('SIGKILL');
      await exited;
    }
    postgres?.remove();
    rmSync(scratch, { recursive: true, force: true });
  }
}

async function joinAs(
  operator: CoordinatorClient,
  baseUrl: string,
  index: number,
): Promise<CoordinatorClient> {
  const role = nodeRoles[index % nodeRoles.length] ?? 'frontend';
  const name = `node-${index}`;
  const { token } = await operator.nodes.invite({ role, name, expiresInSeconds: 600 });
  const identity = await newNodeIdentity();
  const prover = new NodeProver(identity);
  const { nodeId, publicKey } = identity;
  const client = new CoordinatorClient({ baseUrl, token: () => prover.proofFor('coordinator') });
  await client.nodes.join({ token, role, nodeId, name, publicKey, proof: await prover.proofFor('join') });
  return client;
}

const reportOf = (index: number): NodeReport => ({
  bootId: randomBytes(8).toString('hex'),
  version: '0.1.0',
  addresses: { host: `10.1.${index >> 8}.${index & 255}`, httpPort: 8080, pushPorts: [1937], rtmpPort: 1935 },
  isReady: true,
  isIdle: false,
  cpuCores: 0.5,
  memoryBytes: 200_000_000,
  channelCount: 100,
  viewerCount: 300,
});

async function reportAgainAndAgain(
  client: CoordinatorClient,
  report: NodeReport,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    await client.reportNode(report).catch(() => {});
    await sleep(REPORT_EVERY_MS * (0.5 + Math.random()), undefined, { signal }).catch(() => {});
  }
}
