/**
 * A network of nodes, each a process of its own that joined by invitation: what a machine more takes, who may push, and how
 * one leaves.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, cpSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CoordinatorClient } from '@starling/model/client';
import { TEST_CARD_SOURCE } from '@starling/model/entities';
import type { NodeRole } from '@starling/model/node';
import { NodeProver, newNodeIdentity } from '@starling/model/node-identity';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { freePort } from '../tools/free-port.ts';
import { program, run, until } from './network.ts';
import { peersOf } from './processes.ts';
import { startRole } from './role-processes.ts';

const folder = mkdtempSync(join(tmpdir(), 'starling-nodes-'));
const coordinatorDir = join(folder, 'coordinator');
const configPath = join(folder, 'coordinator.yaml');
let url: string;
let client: CoordinatorClient;
let coordinator: ChildProcess;

interface RunningNode {
  process: ChildProcess;
  readonly http: number;
  readonly push: number;
  readonly https: number;
  readonly args: readonly string[];
  log: string;
}
const nodes = new Map<string, RunningNode>();

/** The command line on the coordinator's machine. */
async function starling(...args: string[]): Promise<string> {
  const done = await run(process.execPath, [program, ...args, '--data', coordinatorDir]);
  expect(done.exitCode, done.stderr).toBe(0);
  return done.stdout;
}

/** Runs a node's command again and again, as a supervisor does that restarts on code 75. */
async function supervise(name: string, env: Record<string, string> = {}): Promise<void> {
  const node = nodes.get(name);
  if (node === undefined) throw new Error(`there is no ${name}`);
  const child = spawn(process.execPath, [program, ...node.args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
  });
  node.process = child;
  child.stderr?.on('data', (text) => {
    node.log += text;
  });
  child.on('exit', (code) => {
    if (code === 75) void supervise(name);
  });
  if (child.stdout === null) throw new Error('no output');
  await Promise.race([
    once(child.stdout, 'data'),
    once(child, 'exit').then(([code]) => {
      throw new Error(`${name} ended with ${code}: ${node.log}`);
    }),
  ]);
}

/** Invites a node and runs the one command that it takes. */
async function addNode(role: NodeRole, name: string): Promise<RunningNode> {
  const invited = await starling('node', 'invite', '--json', '--role', role, '--name', name);
  const { token } = JSON.parse(invited) as { token: string };
  const [http, push, https] = [await freePort(), await freePort(), await freePort()];
  const ports = {
    frontend: ['--http', http, '--rtmp', push, '--dvr-hours', '0'],
    backend: ['--rtmp', push, '--rtmps', '0'],
    balancer: ['--http', http, '--https', https, '--rtmp', push, '--rtmps', await freePort()],
  };
  const args = [
    ...[role, '--data', join(folder, name), '--join', url, '--host', '127.0.0.1'],
    ...ports[role].map(String),
  ];
  const node: RunningNode = { process: coordinator, http, push, https, args, log: '' };
  nodes.set(name, node);
  await supervise(name, { STARLING_JOIN_TOKEN: token });
  return node;
}

const isPlaying = async (name: string): Promise<true | undefined> => {
  const response = await fetch(`http://127.0.0.1:${nodes.get(name)?.http}/live/card/index.m3u8`);
  await response.body?.cancel();
  return response.ok ? true : undefined;
};

async function startCoordinator(): Promise<void> {
  coordinator = (await startRole('coordinator', configPath)).process;
}

async function end(child: ChildProcess | undefined, signal: NodeJS.Signals): Promise<void> {
  if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
  child.kill(signal);
  await once(child, 'exit');
}

const framesOf = async (address: string): Promise<number> => {
  const probed = await run('ffprobe', [
    ...[
      '-v',
      'error',
      '-tls_verify',
      '0',
      '-select_streams',
      'v',
      '-count_packets',
      '-read_intervals',
      '%+2',
    ],
    ...['-of', 'csv=p=0', '-show_entries', 'stream=nb_read_packets', address],
  ]);
  return Number(/^\d+/m.exec(probed.stdout)?.[0]);
};

beforeAll(async () => {
  chmodSync(folder, 0o755); // nginx's workers are another account when this is root
  const api = await freePort();
  url = `http://127.0.0.1:${api}`;
  for (const name of ['operator', 'node']) writeFileSync(join(folder, `${name}.token`), `${name}-secret\n`);
  const config = {
    coordinator: {
      dataDir: coordinatorDir,
      http: { host: '127.0.0.1', port: api },
      operatorTokenFile: 'operator.token',
      nodeTokenFile: 'node.token',
    },
  };
  writeFileSync(configPath, JSON.stringify(config));
  const shared = inject('shared');
  for (const name of ['backend-a', 'backend-b'])
    cpSync(join(shared.dataDir, 'media'), join(folder, name, 'media'), { recursive: true });
  await startCoordinator();
  client = new CoordinatorClient({ baseUrl: url, token: 'operator-secret' });
  const asset = await client.assets.create({ source: TEST_CARD_SOURCE, name: 'card' });
  const token = readFileSync(join(shared.dataDir, 'operator.token'), 'utf8').trim();
  const [card] = await new CoordinatorClient({ baseUrl: shared.site, token }).assets.list();
  if (card === undefined || card.facts === null) throw new Error('the shared network has no test card');
  const shares = new CoordinatorClient({ baseUrl: url, token: 'node-secret' });
  await shares.reportImport(asset.id, { state: 'ready', facts: card.facts });
  await client.channels.create({ name: 'card', loop: [asset.id] });
});

afterAll(async () => {
  for (const { process: child } of nodes.values()) await end(child, 'SIGTERM'); // a balancer takes nginx with it
  await end(coordinator, 'SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

describe('nodes', () => {
  it('join by invitation, and need no list of each other to carry a channel', async () => {
    await Promise.all([
      addNode('frontend', 'front-a'),
      addNode('frontend', 'front-b'),
      addNode('backend', 'backend-a'),
    ]);
    await until('the channel on both', 20_000, async () =>
      (await isPlaying('front-a')) && (await isPlaying('front-b')) ? true : undefined,
    );
    expect(statSync(join(folder, 'front-a', 'node.json')).mode & 0o777).toBe(0o600);
    expect(readFileSync(join(folder, 'coordinator.yaml'), 'utf8')).not.toContain('front-a');
    const listed = await until('reports', 10_000, async () => {
      const items = await client.nodes.list();
      return items.every(({ health }) => health === 'ready') ? items : undefined;
    });
    expect(listed.map(({ name, role, state }) => [name, role, state])).toEqual([
      ['backend-a', 'backend', 'joined'],
      ['front-a', 'frontend', 'joined'],
      ['front-b', 'frontend', 'joined'],
    ]);
    expect(await starling('node', 'ls')).toMatch(/^front-b +frontend +joined +ready +1 /m);
  });

  it('are behind a balancer that joined too, and one more frontend carries viewers after one command', async () => {
    const balancer = await addNode('balancer', 'edge');
    await until('both behind it', 15_000, async () => {
      const { exitCode } = await run('curl', [
        '-skf',
        `https://localhost:${balancer.https}/live/card/index.m3u8`,
      ]);
      return exitCode === 0 ? true : undefined;
    });
    await addNode('frontend', 'front-c');
    const startedAtMs = performance.now();
    const pushedAfterMs = until(
      'the push',
      10_000,
      () => {
        const { process: child, push } = nodes.get('front-c') ?? {};
        return peersOf(child?.pid ?? 0, push ?? 0).size > 0 ? performance.now() - startedAtMs : undefined;
      },
      10,
    );
    const nginxConfig = () => readFileSync(join(folder, 'edge', 'nginx', 'nginx.conf'), 'utf8');
    await until('its place in nginx', 15_000, () =>
      nginxConfig().includes(`127.0.0.1:${nodes.get('front-c')?.http}`) ? true : undefined,
    );
    await until('the channel there', 15_000, () => isPlaying('front-c'));
    process.stdout.write(
      `a frontend more: pushed to ${Math.round(await pushedAfterMs)} ms after it said that it runs, plays and is behind the balancer after ${Math.round(performance.now() - startedAtMs)} ms\n`,
    );
    expect(await framesOf(`http://127.0.0.1:${nodes.get('front-c')?.http}/live/card.flv`)).toBeGreaterThan(
      25,
    );
    expect(await framesOf(`https://localhost:${balancer.https}/live/card.flv`)).toBeGreaterThan(25);
  });

  it('take pushes from backends that the network knows, and from nobody else', async () => {
    const { push, http } = nodes.get('front-a') ?? { push: 0, http: 0 };
    const { id } = await client.nodes.get('front-a');
    const known = JSON.parse(readFileSync(join(folder, 'backend-a', 'node.json'), 'utf8'));
    const notBackend = JSON.parse(readFileSync(join(folder, 'front-b', 'node.json'), 'utf8'));
    const proofs = {
      stranger: await new NodeProver(await newNodeIdentity()).proofFor(`push:${id}`),
      'a stranger that says it is the backend': await new NodeProver(
        await newNodeIdentity(known.nodeId),
      ).proofFor(`push:${id}`),
      'another frontend': await new NodeProver(notBackend).proofFor(`push:${id}`),
      'the backend, to another frontend': await new NodeProver(known).proofFor('push:0123456789abcdef'),
      'the backend, to the coordinator': await new NodeProver(known).proofFor('coordinator'),
      nothing: '',
    };
    for (const [who, proof] of Object.entries(proofs)) {
      const refused = await run('ffmpeg', [
        ...[
          '-v',
          'error',
          '-f',
          'lavfi',
          '-i',
          'testsrc2=s=160x90',
          '-t',
          '1',
          '-c:v',
          'libx264',
          '-f',
          'flv',
        ],
        `rtmp://127.0.0.1:${push}/live/card?proof=${proof}`,
      ]);
      expect(refused.stderr, who).toContain('pushes from backends only');
    }
    const metrics = await (await fetch(`http://127.0.0.1:${http}/metrics`)).text();
    expect(metrics).toContain('starling_frontend_refused_pushes_total{reason="proof"} 6');
    expect(nodes.get('front-a')?.log).toContain('RTMP publish refused');
    expect(nodes.get('front-a')?.log).not.toContain(proofs.stranger);
  });

  it('start and carry the channel while the coordinator is gone', async () => {
    await end(coordinator, 'SIGKILL');
    await Promise.all(['front-b', 'backend-a'].map((name) => end(nodes.get(name)?.process, 'SIGKILL')));
    await Promise.all([supervise('front-b'), supervise('backend-a')]);
    await until('the channel', 20_000, () => isPlaying('front-b'));
    await startCoordinator();
    await until('the nodes', 20_000, async () =>
      (await client.nodes.list()).every(({ health }) => health === 'ready') ? true : undefined,
    );
  });

  it('drain: a backend hands its channels over without a picture lost, a frontend its viewers', async () => {
    await addNode('backend', 'backend-b');
    const holders = async () => {
      const lease = (await client.leases()).find(({ name }) => name === 'channel/card');
      return (lease?.holders ?? []).map(({ nodeId }) => nodeId);
    };
    const idOf = async (name: string) => (await client.nodes.get(name)).id;
    const [a, b] = [await idOf('backend-a'), await idOf('backend-b')];
    await until('the lease', 10_000, async () => ((await holders()).includes(a) ? true : undefined));
    const frames = run('ffmpeg', [
      ...['-v', 'warning', '-i', `http://127.0.0.1:${nodes.get('front-a')?.http}/live/card.flv`, '-t', '9'],
      ...['-map', '0:v:0', '-f', 'framecrc', '-c', 'copy', '-'],
    ]);
    await new Promise((wake) => setTimeout(wake, 1000));
    await starling('node', 'drain', 'backend-a');
    await until('the other backend', 10_000, async () =>
      (await holders()).join() === b && (await client.nodes.get('backend-a')).isIdle ? true : undefined,
    );
    const dts = (await frames).stdout
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('#'))
      .map((line) => Number(line.split(',')[1]));
    expect(dts.length).toBeGreaterThan(200);
    expect(new Set(dts.slice(1).map((time, index) => time - (dts[index] ?? 0)))).toEqual(new Set([40]));

    const viewing = new AbortController();
    const stayed = fetch(`http://127.0.0.1:${nodes.get('front-c')?.http}/live/card.flv`, {
      signal: viewing.signal,
    });
    const gone = stayed.then(async ({ body }) => {
      for await (const _ of body ?? []);
    });
    await until('a viewer', 10_000, async () =>
      ((await client.nodes.get('front-c')).load?.viewerCount ?? 0) > 0 ? true : undefined,
    );
    await starling('node', 'drain', 'front-c');
    await gone.catch(() => {});
    await until('an empty frontend', 20_000, async () =>
      (await client.nodes.get('front-c')).isIdle ? true : undefined,
    );
    expect((await fetch(`http://127.0.0.1:${nodes.get('front-c')?.http}/readyz`)).status).toBe(503);
    expect((await fetch(`http://127.0.0.1:${nodes.get('front-c')?.http}/live/card.flv`)).status).toBe(503);
    const inNginx = readFileSync(join(folder, 'edge', 'nginx', 'nginx.conf'), 'utf8');
    expect(inNginx).not.toContain(`127.0.0.1:${nodes.get('front-c')?.http}`);
    await starling('node', 'uncordon', 'front-c', 'backend-a');
    await until('it back', 10_000, async () =>
      (await client.nodes.get('front-c')).health === 'ready' ? true : undefined,
    );
  });

  it('restart one at a time, when their supervisor starts them again', async () => {
    const before = new Map([...nodes].map(([name, { process: child }]) => [name, child.pid]));
    const out = await starling('node', 'restart', 'backend-a', 'front-a', '--one-at-a-time');
    expect(out).toMatch(/^backend-a is back after [\d.]+ s\.\nfront-a is back after [\d.]+ s\.\n$/);
    process.stdout.write(out);
    for (const name of ['backend-a', 'front-a'])
      expect(nodes.get(name)?.process.pid).not.toBe(before.get(name));
    expect((await client.nodes.list()).every(({ state }) => state === 'joined')).toBe(true);
    expect(await isPlaying('front-a')).toBe(true);
  });

  it('that are removed end, and their pushes with them', async () => {
    const child = nodes.get('backend-b')?.process;
    const { push, process: frontend } = nodes.get('front-b') ?? {};
    await client.nodes.drain('backend-a'); // so that the other one pushes
    await until('the handover', 10_000, async () =>
      (await client.nodes.get('backend-a')).isIdle ? true : undefined,
    );
    const ended = once(child ?? coordinator, 'exit');
    await starling('node', 'rm', 'backend-b');
    await until('the end of the push', 5000, () =>
      peersOf(frontend?.pid ?? 0, push ?? 0).size === 0 ? true : undefined,
    );
    expect((await ended)[0]).toBe(1);
    const again = await run(process.execPath, [program, ...(nodes.get('backend-b')?.args ?? [])], {
      env: { STARLING_JOIN_TOKEN: 'sjt_guess' },
    });
    expect(again.exitCode).toBe(1);
    expect(again.stderr).toContain('starling node invite --role backend');
  });
});
