/**
 * Nodes of an earlier build stay on the air while the coordinator is upgraded, follow it afterwards, and nodes of both builds push
 * to each other: machines are upgraded one by one. The earlier build is made from the history; in a clone without it, only
 * `link.test.ts` and the tests of the API hold what goes over the wire.
 */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CoordinatorClient } from '@starling/model/client';
import { TEST_CARD_SOURCE } from '@starling/model/entities';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { freePort } from '../tools/free-port.ts';
import { FlvViewer } from './light-viewers.ts';
import { program, until } from './network.ts';

/** The last one before nodes joined by invitation. To be moved on with each minor release. */
const EARLIER_COMMIT = '3c354adbb9c63c176f2ee78d0acba3644dd62b8a';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const git = (...args: string[]) => spawnSync('git', ['-C', root, ...args], { maxBuffer: 512 * 1024 * 1024 });
const hasHistory = git('cat-file', '-e', `${EARLIER_COMMIT}^{commit}`).status === 0;
if (!hasHistory) process.stdout.write('the clone has no history: nodes of an earlier build are not tried\n');

const folder = mkdtempSync(join(tmpdir(), 'starling-skew-'));
const running = new Map<string, ChildProcess>();
const viewers: FlvViewer[] = [];
afterAll(() => {
  for (const viewer of viewers) viewer.leave();
  for (const child of running.values()) child.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

/** @returns the program of the earlier build */
function buildEarlier(): string {
  const tree = join(folder, 'earlier');
  mkdirSync(tree);
  const archive = git('archive', EARLIER_COMMIT);
  execFileSync('tar', ['-x', '-C', tree], { input: archive.stdout });
  // The packages of npm are the same; ours are those of the earlier tree.
  mkdirSync(join(tree, 'node_modules', '@starling'), { recursive: true });
  for (const name of readdirSync(join(root, 'node_modules'))) {
    if (name !== '@starling') symlinkSync(join(root, 'node_modules', name), join(tree, 'node_modules', name));
  }
  for (const group of ['packages', 'roles', 'apps']) {
    for (const name of readdirSync(join(tree, group))) {
      symlinkSync(join(tree, group, name), join(tree, 'node_modules', '@starling', name));
    }
  }
  mkdirSync(join(tree, 'apps', 'web', 'dist'), { recursive: true });
  writeFileSync(join(tree, 'apps', 'web', 'dist', '.built'), ''); // nobody looks at the site here
  execFileSync(process.execPath, [join(tree, 'tools', 'build.mjs')], { stdio: 'inherit' });
  return join(tree, 'dist', 'starling.js');
}

describe.runIf(hasHistory)('nodes of an earlier build', () => {
  const host = '127.0.0.1';
  let earlier: string;
  let api: number;
  let client: CoordinatorClient;
  const http = { old: 0, new: 0 };

  async function start(name: string, role: string, build: string): Promise<void> {
    const child = spawn(process.execPath, [build, role, '--config', join(folder, `${name}.yaml`)], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    running.set(name, child);
    await once(child.stdout, 'data');
  }
  async function stop(name: string): Promise<void> {
    const child = running.get(name);
    child?.kill('SIGTERM');
    if (child !== undefined) await once(child, 'exit');
  }
  const get = async (port: number, path: string) => {
    const response = await fetch(`http://${host}:${port}/live/${path}`).catch(() => undefined);
    return response?.ok === true ? Buffer.from(await response.arrayBuffer()) : undefined;
  };
  /** The newest segment that both frontends list has the same bytes on both. */
  const expectSameBytes = async (channel: string) => {
    const lists = await until('the channel on both frontends', 30_000, async () => {
      const texts = await Promise.all(
        [http.old, http.new].map((port) => get(port, `${channel}/main/index.m3u8`)),
      );
      const [one, other] = texts.map((text): string[] => text?.toString().match(/^\d+\.m4s$/gm) ?? []);
      const common = one?.filter((name) => other?.includes(name)) ?? [];
      return common.length > 1 ? common : undefined;
    });
    const path = `${channel}/main/${lists.at(-1)}`;
    const [one, other] = await Promise.all([get(http.old, path), get(http.new, path)]);
    expect(one?.length).toBeGreaterThan(1000);
    expect(one?.equals(other ?? Buffer.alloc(0))).toBe(true);
  };

  beforeAll(async () => {
    earlier = buildEarlier();
    api = await freePort();
    for (const name of ['operator', 'node', 'publish'])
      writeFileSync(join(folder, `${name}.token`), `${name}-secret\n`);
    const coordinator = { url: `http://${host}:${api}`, tokenFile: 'node.token' };
    const push = { old: await freePort(), new: await freePort() };
    http.old = await freePort();
    http.new = await freePort();
    const frontend = (which: 'old' | 'new') => ({
      http: { host, port: http[which] },
      rtmp: { host, port: push[which] },
      ...{ publishTokenFile: 'publish.token', coordinator, dataDir: join(folder, which) },
    });
    const configs = {
      coordinator: {
        dataDir: join(folder, 'coordinator'),
        http: { host, port: api },
        ...{ operatorTokenFile: 'operator.token', nodeTokenFile: 'node.token' },
      },
      backend: {
        dataDir: join(folder, 'backend'),
        rtmp: { host, port: await freePort() },
        coordinator,
        frontends: [push.old, push.new].map((port) => ({ host, port, publishTokenFile: 'publish.token' })),
      },
      'frontend-old': frontend('old'),
      'frontend-new': frontend('new'),
    };
    for (const [name, section] of Object.entries(configs)) {
      writeFileSync(join(folder, `${name}.yaml`), JSON.stringify({ [name.split('-')[0] ?? '']: section }));
    }
    const shared = inject('shared');
    cpSync(join(shared.dataDir, 'media'), join(folder, 'backend', 'media'), { recursive: true });
    await start('coordinator', 'coordinator', earlier);
    client = new CoordinatorClient({ baseUrl: coordinator.url, token: 'operator-secret' });
    const asset = await client.assets.create({ source: TEST_CARD_SOURCE, name: 'card' });
    const token = readFileSync(join(shared.dataDir, 'operator.token'), 'utf8').trim();
    const [card] = await new CoordinatorClient({ baseUrl: shared.site, token }).assets.list();
    const node = new CoordinatorClient({ baseUrl: coordinator.url, token: 'node-secret' });
    if (card?.facts) await node.reportImport(asset.id, { state: 'ready', facts: card.facts });
    await client.channels.create({ name: 'first', loop: [asset.id] });
    await Promise.all([start('frontend-old', 'frontend', earlier), start('backend', 'backend', earlier)]);
    await until('the channel', 30_000, () => get(http.old, 'first/main/index.m3u8'));
    viewers.push(new FlvViewer(`http://${host}:${http.old}`, '/live/first.flv'));
    await until('the picture', 10_000, () => ((viewers[0]?.positionMs ?? 0) > 0 ? true : undefined));
  }, 180_000);

  it('stay on the air while the coordinator is upgraded, and follow the new one', async () => {
    await stop('coordinator');
    await start('coordinator', 'coordinator', program);
    const [asset] = await client.assets.list();
    await client.channels.create({ name: 'second', loop: [asset?.id ?? ''] });
    await until('a channel of the new coordinator', 30_000, () => get(http.old, 'second/main/index.m3u8'));
    expect((await client.leases()).flatMap(({ holders }) => holders).length).toBeGreaterThanOrEqual(2);
    await until('the report of an old backend', 30_000, async () =>
      (await client.status()).onAirChannels.length === 2 ? true : undefined,
    );
    expect(viewers[0]?.brokenCount).toBe(0);
    expect(viewers[0]?.missing).toEqual([]);
  });

  it('push to frontends of this build, which make the same bytes', async () => {
    await start('frontend-new', 'frontend', program);
    await expectSameBytes('first');
    expect(viewers[0]?.brokenCount).toBe(0);
    expect(viewers[0]?.missing).toEqual([]);
  });

  it('take the pushes of a backend of this build', async () => {
    await stop('backend');
    await start('backend', 'backend', program);
    const before = viewers[0]?.positionMs ?? 0;
    await until('the picture again', 30_000, () =>
      (viewers[0]?.positionMs ?? 0) > before + 4000 ? true : undefined,
    );
    await expectSameBytes('second');
  });
});
