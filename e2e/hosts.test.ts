/**
 * The hosts of a group, as the profile `production` makes them: three of them from the files that it puts onto each, with their
 * paths in a folder and their addresses on loopback, on one PostgreSQL and one Redis, with one folder as the library. They make one
 * network by themselves: whichever host a viewer or an encoder comes to, and whichever ends.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CoordinatorClient } from '@starling/model/client';
import { TEST_CARD_SOURCE } from '@starling/model/entities';
import { drawPlan } from '@starling/model/topology/draw-plan';
import type { Host } from '@starling/model/topology/plan';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { parse } from 'yaml';
import { startRedis } from '../roles/coordinator/test/postgres/redis.ts';
import { startPostgres } from '../roles/coordinator/test/postgres/server.ts';
import { freePort } from '../tools/free-port.ts';
import { FlvViewer } from './light-viewers.ts';
import { until } from './network.ts';
import { startRole } from './role-processes.ts';

const ROLES = ['coordinator', 'backend', 'frontend'] as const;
type RoleName = (typeof ROLES)[number];

const folder = mkdtempSync(join(tmpdir(), 'starling-hosts-'));
const clip = join(folder, 'cam.flv');
/** On each host in place of the one that the profile gives it. */
const ports = new Map<number, number>();
const running = new Map<string, Map<RoleName, ChildProcess>>();
const stops: (() => unknown)[] = [];
const viewers: FlvViewer[] = [];
let host: Host;
let streamKey: string;

const addressOf = (name: string) => `127.0.0.${Number(name.slice(1)) + 1}`;
const portOf = (port: number) => ports.get(port) ?? port;
const siteOf = (name: string) => `http://${addressOf(name)}:${portOf(8080)}`;
const clientOf = (name: string) =>
  new CoordinatorClient({
    baseUrl: `http://${addressOf(name)}:${portOf(8090)}`,
    token: 'operator-secret',
  });

/** The text of a file of the host, as this machine can have it. */
const placed = (name: string, text: string) =>
  text
    .replaceAll('/var/lib/starling/shared', join(folder, 'shared'))
    .replaceAll('/var/lib/starling', join(folder, name))
    .replaceAll('/etc/starling/secrets', join(folder, 'secrets'));

function configOf(name: string): string {
  const file = host.files.find(({ path }) => path === '/etc/starling/starling.yaml');
  const address = addressOf(name);
  const config = parse(placed(name, file?.content ?? ''), (key, value) => {
    if (key === 'port') return portOf(Number(value));
    if (key === 'host' || value === 'auto') return address;
    if (key === 'url') return `http://${address}:${portOf(8090)}`;
    return value;
  });
  // Of what listens on all addresses of its host.
  for (const listener of [
    config.backend.rtmp,
    config.backend.rtmps,
    config.frontend.rtmp,
    config.frontend.http,
  ])
    listener.host ??= address;
  delete config.backend.rtmps.host;
  config.backend.rtmps.port = 0;
  return JSON.stringify(config);
}

/** What the unit of the services has in their environment. */
function environmentOf(name: string): Record<string, string> {
  const unit = host.files.find(({ path }) => path.endsWith('/starling@.service'))?.content ?? '';
  const lines = [...unit.matchAll(/^Environment=(STARLING_\w+)=(.*)$/gm)];
  return Object.fromEntries(lines.map(([, key = '', value = '']) => [key, placed(name, value)]));
}

async function startOn(name: string, ...roles: readonly RoleName[]): Promise<void> {
  const path = join(folder, `${name}.yaml`);
  writeFileSync(path, configOf(name));
  const processes = running.get(name) ?? new Map<RoleName, ChildProcess>();
  running.set(name, processes);
  await Promise.all(
    roles.map(async (role) => {
      mkdirSync(join(folder, name, role), { recursive: true });
      processes.set(role, (await startRole(role, path, [], environmentOf(name))).process);
    }),
  );
}

async function startHost(name: string): Promise<void> {
  await startOn(name, 'coordinator');
  await startOn(name, 'backend', 'frontend');
}

async function end(name: string, role: RoleName, ...signals: readonly NodeJS.Signals[]): Promise<void> {
  const child = running.get(name)?.get(role);
  if (child === undefined) throw new Error(`${name} has no ${role}`);
  const exited = once(child, 'exit');
  for (const signal of signals) child.kill(signal);
  await exited;
  running.get(name)?.delete(role);
}

/** An encoder that came to a host, as a load balancer chooses one. */
function encodeTo(name: string): ChildProcess {
  const url = `rtmp://${addressOf(name)}:${portOf(1935)}/live/cam?key=${streamKey}`;
  const args = `-v error -re -stream_loop -1 -i ${clip} -c copy -f flv ${url}`.split(' ');
  const child = spawn('ffmpeg', args, { stdio: 'ignore' });
  stops.push(() => child.kill('SIGKILL'));
  return child;
}

/** Who makes what a lease is for. */
async function holderOf(lease: string, asked: string): Promise<string> {
  return until(`the holder of ${lease}`, 15_000, async () => {
    const holders = (await clientOf(asked).leases()).find(({ name }) => name === lease)?.holders ?? [];
    expect(holders.length).toBeLessThanOrEqual(1);
    return [...running.keys()].find(
      (name) =>
        holders[0]?.nodeId ===
        JSON.parse(readFileSync(join(folder, name, 'backend/node.json'), 'utf8')).nodeId,
    );
  });
}

/** Waits until a channel goes on at a host: from what it has now. */
async function goesOn(name: string, channel: string): Promise<void> {
  await until(`${channel} at ${name}`, 20_000, async () => {
    const response = await fetch(`${siteOf(name)}/live/${channel}.flv`);
    await response.body?.cancel();
    return response.ok || undefined;
  });
  const viewer = new FlvViewer(siteOf(name), `/live/${channel}.flv`);
  viewers.push(viewer);
  const playing = await until(`${channel} at ${name}`, 20_000, () => viewer.positionMs || undefined);
  await until(`more of ${channel} at ${name}`, 20_000, () => viewer.positionMs > playing + 1000 || undefined);
  viewer.leave();
}

beforeAll(async () => {
  const group = { profile: 'production', region: 'eu-west-1', domain: 'tv.example.org' };
  const template = drawPlan(group).resources.find((one) => one.kind === 'launch-template');
  if (template?.host === undefined || template.host === null) throw new Error('the profile has no host');
  host = template.host;
  for (const port of [8080, 8090, 1935, 1937]) ports.set(port, await freePort());
  const [postgres, redis] = await Promise.all([startPostgres(['fsync = off']), startRedis()]);
  stops.push(
    () => postgres.remove(),
    () => redis.stop(),
  );
  mkdirSync(join(folder, 'secrets'));
  for (const { path } of host.secretFiles) {
    const name = path.split('/').at(-1) ?? '';
    const content =
      { 'database.url': postgres.url(), 'redis.url': redis.url }[name] ?? name.replace('.token', '-secret');
    writeFileSync(join(folder, 'secrets', name), content);
  }
  const source =
    '-v error -f lavfi -i testsrc2=s=320x180:r=25 -f lavfi -i sine=r=48000 -t 20 -pix_fmt yuv420p';
  const codecs = '-c:v libx264 -preset ultrafast -g 25 -c:a aac -ac 2';
  execFileSync('ffmpeg', [...source.split(' '), ...codecs.split(' '), clip]);

  // The library has the test card of the shared network, so nobody has to draw it again.
  const shared = inject('shared');
  cpSync(join(shared.dataDir, 'media'), join(folder, 'shared', 'media'), { recursive: true });
  await startOn('h1', 'coordinator');
  const operator = clientOf('h1');
  const asset = await operator.assets.create({ source: TEST_CARD_SOURCE, name: 'card' });
  const token = readFileSync(join(shared.dataDir, 'operator.token'), 'utf8').trim();
  const [card] = await new CoordinatorClient({ baseUrl: shared.site, token }).assets.list();
  if (card === undefined || card.facts === null) throw new Error('the shared network has no test card');
  const node = new CoordinatorClient({
    baseUrl: `http://${addressOf('h1')}:${portOf(8090)}`,
    token: 'node-secret',
  });
  await node.reportImport(asset.id, { state: 'ready', facts: card.facts });
  await operator.channels.create({ name: 'demo', loop: [asset.id] });
  streamKey = (await operator.streams.create({ name: 'cam' })).key ?? '';
  await Promise.all([startOn('h1', 'backend', 'frontend'), startHost('h2')]);
}, 90_000);

afterAll(async () => {
  for (const viewer of viewers) viewer.leave();
  for (const processes of running.values()) for (const child of processes.values()) child.kill('SIGKILL');
  for (const stop of stops.reverse()) await stop();
  rmSync(folder, { recursive: true, force: true });
}, 30_000);

const nodesOf = async (asked: string) =>
  (await clientOf(asked).nodes.list()).map(({ name, health }) => `${name} ${health}`).sort();

// Each part goes on where the one before it left the hosts: a second look at one alone would tell nothing.
describe('hosts of a group', { retry: 0 }, () => {
  it('make one network from the files that the profile puts onto them', async () => {
    await until('four nodes that do well', 20_000, async () => {
      const nodes = await nodesOf('h2');
      return (nodes.length === 4 && nodes.every((node) => node.endsWith(' ready'))) || undefined;
    });
    const nodes = await clientOf('h1').nodes.list();
    expect(nodes.every(({ isOfGroup, state }) => isOfGroup && state === 'joined')).toBe(true);
    expect(new Set(nodes.map(({ addresses }) => addresses?.host))).toEqual(
      new Set([addressOf('h1'), addressOf('h2')]),
    );
    for (const name of ['h1', 'h2']) await goesOn(name, 'demo');
    // One of them makes it, and both say so.
    expect(await holderOf('channel/demo', 'h1')).toBe(await holderOf('channel/demo', 'h2'));
  });

  it('take an encoder at any of them, and show it at all, also at one that joins later', async () => {
    const owner = await holderOf('live/cam', 'h1');
    const other = owner === 'h1' ? 'h2' : 'h1';
    const encoder = encodeTo(other);
    for (const name of ['h1', 'h2']) await goesOn(name, 'cam');
    await startHost('h3');
    for (const channel of ['cam', 'demo']) await goesOn('h3', channel);
    expect(await holderOf('live/cam', 'h3')).toBe(owner);
    encoder.kill('SIGKILL');
    await once(encoder, 'exit');
    // The same at its own host.
    await until('the end of the encoder', 10_000, async () => {
      const [cam] = await clientOf('h3').streams.list();
      return cam?.isPublishing === false || undefined;
    });
    encodeTo(owner);
    for (const name of ['h1', 'h2', 'h3']) await goesOn(name, 'cam');
  });

  it('go on without a picture lost when the host that makes a channel vanishes', async () => {
    const gone = await holderOf('channel/demo', 'h3');
    const left = ['h1', 'h2', 'h3'].filter((name) => name !== gone);
    const watching = left.map((name) => new FlvViewer(siteOf(name), '/live/demo.flv'));
    viewers.push(...watching);
    await until('the viewers', 20_000, () => watching.every(({ positionMs }) => positionMs > 0) || undefined);
    await Promise.all(ROLES.map((role) => end(gone, role, 'SIGKILL')));
    running.delete(gone);
    const before = watching.map(({ positionMs }) => positionMs);
    await until(
      'the channel to go on',
      20_000,
      () => watching.every(({ positionMs }, at) => positionMs > (before[at] ?? 0) + 5000) || undefined,
    );
    expect(watching.flatMap(({ missing }) => missing)).toEqual([]);
    for (const viewer of watching) viewer.leave();
    // An encoder that was connected there, or passed on to it, comes again through the balancer.
    for (const name of left) encodeTo(name);
    for (const name of left) await goesOn(name, 'cam');
  });

  it('lose no node at a restart, and those of a host that ends for good', async () => {
    const [leaving = '', stays = ''] = [...running.keys()];
    const before = await nodesOf(stays);
    await end(leaving, 'frontend', 'SIGTERM');
    expect((await nodesOf(stays)).length).toBe(before.length);
    await startOn(leaving, 'frontend');
    expect((await clientOf(stays).nodes.list()).length).toBe(before.length);
    await goesOn(leaving, 'demo');

    // As systemd does when the host is powered off: nodes first, then their coordinator.
    const viewer = new FlvViewer(siteOf(stays), '/live/demo.flv');
    viewers.push(viewer);
    await until('the viewer', 20_000, () => viewer.positionMs || undefined);
    await Promise.all(
      (['backend', 'frontend'] as const).map((role) => end(leaving, role, 'SIGUSR2', 'SIGTERM')),
    );
    await end(leaving, 'coordinator', 'SIGUSR2', 'SIGTERM');
    running.delete(leaving);
    const hosts = (await clientOf(stays).nodes.list()).map(({ addresses }) => addresses?.host);
    expect(hosts).not.toContain(addressOf(leaving));
    const positionMs = viewer.positionMs;
    await until('the channel to go on', 20_000, () => viewer.positionMs > positionMs + 2000 || undefined);
    expect(viewer.missing).toEqual([]);
    expect(await holderOf('channel/demo', stays)).toBe(stays);
  });
});
