/** Two backends and one coordinator, each in a process of its own: a channel goes on whichever backend is killed. */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { AccessUnit } from '@starling/media/access-unit';
import { FlvDemuxer, FlvReader } from '@starling/media/flv/demux';
import { CoordinatorClient } from '@starling/model/client';
import { TEST_CARD_SOURCE } from '@starling/model/entities';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { freePort } from '../tools/free-port.ts';
import { until } from './network.ts';
import { peersOf } from './processes.ts';
import { startRole } from './role-processes.ts';

const folder = mkdtempSync(join(tmpdir(), 'starling-two-backends-'));
const running = new Map<string, ChildProcess>();
const viewer = new AbortController();
/** What the viewer got of the picture and of the sound, in milliseconds of the FLV stream. */
const shownMs = { video: [] as number[], audio: [] as number[] };
let push: number;
let client: CoordinatorClient;

async function start(name: string): Promise<void> {
  const role = name.startsWith('backend') ? 'backend' : name;
  const { process } = await startRole(role, join(folder, `${name}.yaml`));
  running.set(name, process);
}

async function kill(name: string): Promise<void> {
  const process = running.get(name);
  process?.kill('SIGKILL');
  if (process !== undefined) await once(process, 'exit');
  running.delete(name);
}

/** The backends that hold the channel's lease, longest first. */
async function holders(): Promise<string[]> {
  const lease = (await client.leases()).find(({ name }) => name === 'channel/twin');
  const names = ['backend-a', 'backend-b'];
  return (lease?.holders ?? []).flatMap(({ nodeId }) =>
    names.filter((name) => readFileSync(join(folder, name, 'node.id'), 'utf8').trim() === nodeId),
  );
}

/** Waits until so many backends push to the frontend. */
const pushed = (count: number) =>
  until(`${count} pushes`, 20_000, () =>
    peersOf(running.get('frontend')?.pid ?? 0, push).size === count ? true : undefined,
  );

/** Waits until the viewer has so much more. */
async function watched(seconds: number): Promise<void> {
  const untilMs = (shownMs.video.at(-1) ?? 0) + seconds * 1000;
  await until('the channel to go on', 30_000, () =>
    (shownMs.video.at(-1) ?? 0) >= untilMs ? true : undefined,
  );
}

async function watch(url: string): Promise<void> {
  const response = await fetch(url, { signal: viewer.signal });
  const reader = new FlvReader();
  const demuxer = new FlvDemuxer();
  const take = ({ kind, dtsTicks }: AccessUnit) =>
    shownMs[kind].push(kind === 'video' ? dtsTicks / 90 : dtsTicks / 48);
  for await (const bytes of response.body ?? []) {
    for (const message of reader.push(bytes)) {
      for (const event of demuxer.push(message)) if (event.type === 'unit') take(event.unit);
    }
  }
  throw new Error('the stream ended');
}

/** Every picture and every sound of the test card followed the one before it: FLV counts in milliseconds. */
function expectUnbroken(): void {
  const gaps = (times: readonly number[]) =>
    times.slice(1).map((time, index) => Math.round(time - (times[index] ?? 0)));
  expect(new Set(gaps(shownMs.video))).toEqual(new Set([40]));
  expect([...new Set(gaps(shownMs.audio))].filter((gap) => gap < 20 || gap > 22)).toEqual([]);
}

beforeAll(async () => {
  const [api, site] = [await freePort(), await freePort()];
  push = await freePort();
  for (const name of ['operator', 'node', 'publish'])
    writeFileSync(join(folder, `${name}.token`), `${name}-secret\n`);
  const coordinator = { url: `http://127.0.0.1:${api}`, tokenFile: 'node.token' };
  const host = '127.0.0.1';
  const configs = {
    coordinator: {
      coordinator: {
        dataDir: join(folder, 'coordinator'),
        http: { host, port: api },
        operatorTokenFile: 'operator.token',
        nodeTokenFile: 'node.token',
      },
    },
    frontend: {
      frontend: {
        http: { host, port: site },
        rtmp: { host, port: push },
        publishTokenFile: 'publish.token',
        coordinator,
      },
    },
    ...Object.fromEntries(
      ['backend-a', 'backend-b'].map((name) => [
        name,
        {
          backend: {
            dataDir: join(folder, name),
            rtmp: { host, port: 0 },
            coordinator,
            frontends: [{ host, port: push, publishTokenFile: 'publish.token' }],
          },
        },
      ]),
    ),
  };
  for (const [name, config] of Object.entries(configs)) {
    writeFileSync(join(folder, `${name}.yaml`), JSON.stringify(config));
    mkdirSync(join(folder, name));
    if (name.startsWith('backend'))
      cpSync(join(inject('shared').dataDir, 'media'), join(folder, name, 'media'), { recursive: true });
  }
  await start('coordinator');
  client = new CoordinatorClient({ baseUrl: coordinator.url, token: 'operator-secret' });
  const asset = await client.assets.create({ source: TEST_CARD_SOURCE, name: 'card' });
  // Both backends have the test card of the shared network, so nobody has to draw it again.
  const shared = inject('shared');
  const token = readFileSync(join(shared.dataDir, 'operator.token'), 'utf8').trim();
  const [card] = await new CoordinatorClient({ baseUrl: shared.site, token }).assets.list();
  if (card === undefined || card.facts === null) throw new Error('the shared network has no test card');
  const node = new CoordinatorClient({ baseUrl: coordinator.url, token: 'node-secret' });
  await node.reportImport(asset.id, { state: 'ready', facts: card.facts });
  await Promise.all([start('frontend'), start('backend-a'), start('backend-b')]);
  await client.channels.create({ name: 'twin', loop: [asset.id] });
  const url = `http://127.0.0.1:${site}/live/twin.flv`;
  await until('the channel', 20_000, async () => {
    const response = await fetch(url);
    await response.body?.cancel();
    return response.ok ? true : undefined;
  });
  watch(url).catch(() => {});
  await watched(1);
});
afterAll(() => {
  viewer.abort();
  for (const process of running.values()) process.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

describe('a channel that one backend makes', () => {
  it('is pushed by one alone, and by the other when that is killed', async () => {
    await pushed(1);
    const [holder = '', ...others] = await holders();
    expect(others).toEqual([]);
    await kill(holder);
    await watched(5);
    const other = holder === 'backend-a' ? 'backend-b' : 'backend-a';
    // The dead one's lease ends after 3 s, and the viewer has media for some of them.
    await until('the lease of the other', 10_000, async () => {
      const [first, ...more] = await holders();
      return first === other && more.length === 0 ? true : undefined;
    });
    await pushed(1);
    await start(holder);
    expectUnbroken();
  });
});

describe('a channel that two backends make', () => {
  it('lacks no picture and no sound when either is killed', async () => {
    await client.channels.update('twin', { redundancy: 2 });
    for (const name of ['backend-a', 'backend-b']) {
      await pushed(2);
      expect((await holders()).sort()).toEqual(['backend-a', 'backend-b']);
      await watched(1);
      await kill(name);
      await watched(3);
      await start(name);
    }
    await pushed(2);
    expectUnbroken();
  });

  it('goes on while the coordinator is gone', async () => {
    await kill('coordinator');
    await watched(5);
    await pushed(2);
    await start('coordinator');
    await until('the leases to be claimed again', 10_000, async () =>
      (await holders().catch(() => [])).length === 2 ? true : undefined,
    );
    await watched(1);
    expectUnbroken();
  });
});
