/**
 * A worker or a backend that is killed under hundreds of viewers: those of the worker come back at once, nobody
 * else notices anything.
 *
 * On a machine with other work the waits say little: they are printed, and `npm run soak` holds them to 1 s.
 */
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { Agent, get, type IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CoordinatorClient } from '@starling/model/client';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { freePort } from '../tools/free-port.ts';
import { FlvViewer, HlsViewer, type LightViewer } from './light-viewers.ts';
import { until } from './network.ts';
import { peersOf, workersOf } from './processes.ts';
import { type RoleProcess, startRole } from './role-processes.ts';

const isSoak = process.env.STARLING_SOAK !== undefined;
const VIEWERS = 200;
const WATCH_MS = isSoak ? 20_000 : 5000;

const sleep = (ms: number) => new Promise((wake) => setTimeout(wake, ms));

/** Half of them over HTTP-FLV, half over HLS; resolves when all have media. */
async function audience(site: string, channel: string): Promise<{ flv: FlvViewer[]; hls: HlsViewer[] }> {
  const flv: FlvViewer[] = [];
  const hls: HlsViewer[] = [];
  for (let count = 0; count < VIEWERS; count += 2) {
    flv.push(new FlvViewer(site, `/live/${channel}.flv`));
    hls.push(new HlsViewer(site, channel));
    await sleep(5); // people do not come all at once
  }
  await until('media for all', 30_000, () =>
    [...flv, ...hls].every(({ positionMs }) => positionMs > 0) ? true : undefined,
  );
  return { flv, hls };
}

/** Lets the viewers watch; all of them have to get on. */
async function watch(what: string, { flv, hls }: { flv: FlvViewer[]; hls: HlsViewer[] }): Promise<void> {
  const before = [...flv, ...hls].map(({ positionMs }) => positionMs);
  await sleep(WATCH_MS);
  expect([...flv, ...hls].filter(({ positionMs }, at) => positionMs <= (before[at] ?? 0))).toEqual([]);
  const longest = (viewers: readonly LightViewer[]) =>
    Math.round(Math.max(...viewers.map((viewer) => viewer.longestStallMs())));
  process.stdout.write(`${what}: longest wait HTTP-FLV ${longest(flv)} ms, HLS ${longest(hls)} ms\n`);
  if (isSoak) expect(longest([...flv, ...hls])).toBeLessThanOrEqual(1000);
}

async function metric(site: string, pattern: RegExp): Promise<number[]> {
  const text = await (await fetch(`${site}/metrics`)).text();
  return Array.from(text.matchAll(pattern), ([, value]) => Number(value));
}

describe('with one of two workers killed', () => {
  const { site, dataDir } = inject('shared');
  const mainPid: number = JSON.parse(readFileSync(join(dataDir, 'up.json'), 'utf8')).pid;
  const httpPort = Number(new URL(site).port);
  let viewers: { flv: FlvViewer[]; hls: HlsViewer[] };

  beforeAll(async () => {
    viewers = await audience(site, 'demo');
  });
  afterAll(() => {
    for (const viewer of [...viewers.flv, ...viewers.hls]) viewer.leave();
  });

  it('counts each viewer once, on whichever workers it is', async () => {
    expect(workersOf(mainPid)).toHaveLength(2);
    await until('the counts', 20_000, async () => {
      const counts = await metric(site, /^starling_frontend_viewers\{.*\} (\d+)$/gm);
      return counts.length === 2 && counts.every((count) => count === VIEWERS / 2) ? true : undefined;
    });
  });

  it('only its viewers reconnect, and at once', async () => {
    const { flv, hls } = viewers;
    const [victim, survivor] = workersOf(mainPid);
    if (victim === undefined || survivor === undefined) throw new Error('two workers expected');
    const lost = peersOf(victim, httpPort);
    expect(lost.size).toBeGreaterThan(0);
    expect(peersOf(survivor, httpPort).size).toBeGreaterThan(0);
    const isOf = (viewer: LightViewer) => viewer.ports.some((port) => lost.has(port));
    const mine = flv.filter(isOf);
    const others = [...flv, ...hls].filter((viewer) => !isOf(viewer));
    for (const viewer of [...flv, ...hls]) viewer.forgetStalls();
    process.kill(victim, 'SIGKILL');
    await watch(`worker killed, ${mine.length} of ${flv.length} HTTP-FLV viewers on it`, viewers);
    expect(mine.map(({ brokenCount }) => brokenCount)).toEqual(mine.map(() => 1));
    expect(others.map(({ brokenCount }) => brokenCount)).toEqual(others.map(() => 0));
    expect([...flv, ...hls].flatMap(({ missing }) => missing)).toEqual([]);
  });

  it('the one that takes its place has the same window', async () => {
    await until('two workers', 10_000, async () =>
      workersOf(mainPid).length === 2 && (await fetch(`${site}/readyz`)).ok ? true : undefined,
    );
    const doors = await Promise.all(workersOf(mainPid).map((pid) => doorTo(pid)));
    const windows = await until('the same window', 10_000, async () => {
      const texts = await Promise.all(doors.map((ask) => ask('/live/demo/main/index.m3u8')));
      return new Set(texts).size === 1 ? texts : undefined;
    });
    expect(windows[0]).not.toContain('#EXT-X-DISCONTINUITY\n');
    expect(windows[0]?.match(/^\d+\.m4s$/gm)?.length).toBeGreaterThanOrEqual(6);
  });

  /** Asks one worker, over a connection that it has taken. */
  async function doorTo(pid: number): Promise<(path: string) => Promise<string>> {
    return until('a connection to each worker', 10_000, async () => {
      const agent = new Agent({ keepAlive: true, maxSockets: 1 });
      const ask = async (path: string) => {
        const request = get(`${site}${path}`, { agent });
        const [response] = (await once(request, 'response')) as [IncomingMessage];
        let text = '';
        for await (const chunk of response.setEncoding('utf8')) text += chunk;
        return { text, port: request.socket?.localPort ?? 0 };
      };
      const { port } = await ask('/live/demo/main/index.m3u8');
      if (peersOf(pid, httpPort).has(port)) return async (path) => (await ask(path)).text;
      agent.destroy();
      return undefined;
    });
  }
});

describe('with one of two backends killed', () => {
  const folder = mkdtempSync(join(tmpdir(), 'starling-two-backends-'));
  const running: RoleProcess[] = [];
  afterAll(() => {
    for (const { process } of running) process.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  });

  async function start(role: string, config: string, ...flags: string[]): Promise<RoleProcess> {
    const started = await startRole(role, join(folder, config), flags);
    running.push(started);
    return started;
  }

  it('not one access unit is missing', { timeout: 180_000 }, async () => {
    const [api, push, http] = [await freePort(), await freePort(2), await freePort()];
    for (const name of ['operator', 'node', 'publish'])
      writeFileSync(join(folder, `${name}.token`), `${name}-secret\n`);
    const write = (name: string, config: object) => writeFileSync(join(folder, name), JSON.stringify(config));
    write('coordinator.yaml', {
      coordinator: {
        dataDir: join(folder, 'coordinator'),
        http: { host: '127.0.0.1', port: api },
        operatorTokenFile: 'operator.token',
        nodeTokenFile: 'node.token',
      },
    });
    write('frontend.yaml', {
      frontend: {
        http: { host: '127.0.0.1', port: http },
        rtmp: { host: '127.0.0.1', port: push },
        publishTokenFile: 'publish.token',
      },
    });
    const frontends = [push, push + 1].map((port) => ({
      host: '127.0.0.1',
      port,
      publishTokenFile: 'publish.token',
    }));
    for (const name of ['backend-a', 'backend-b']) {
      const dataDir = join(folder, name);
      mkdirSync(dataDir);
      const coordinator = { url: `http://127.0.0.1:${api}`, tokenFile: 'node.token' };
      write(`${name}.yaml`, {
        backend: { dataDir, rtmp: { host: '127.0.0.1', port: 0 }, coordinator, frontends },
      });
    }
    await start('coordinator', 'coordinator.yaml');
    const { says } = await start('frontend', 'frontend.yaml', '--workers', '2');
    expect(says).toContain(`RTMP on ports ${push}, ${push + 1}`);
    let first = await start('backend', 'backend-a.yaml');
    const client = new CoordinatorClient({ baseUrl: `http://127.0.0.1:${api}`, token: 'operator-secret' });
    const clip = join(folder, 'clip.mp4');
    const source = '-v error -f lavfi -i testsrc2=s=320x180:r=25 -f lavfi -i sine=r=48000 -t 10';
    execFileSync('ffmpeg', [...source.split(' '), '-c:v', 'libx264', '-preset', 'ultrafast', clip]);
    await client.library.changeSettings({ ladder: ['720p'] }); // the viewers look for one rendition
    const asset = await client.assets.create({ source: clip, name: 'clip' });
    await until('the import', 60_000, async () =>
      (await client.assets.get(asset.id)).state === 'ready' ? true : undefined,
    );
    await client.channels.create({ name: 'twin', loop: [asset.id] });
    await client.channels.update('twin', { redundancy: 2 });
    cpSync(join(folder, 'backend-a', 'media'), join(folder, 'backend-b', 'media'), { recursive: true });
    let second = await start('backend', 'backend-b.yaml');
    const site = `http://127.0.0.1:${http}`;
    const bothPush = () =>
      until('both backends to push to both workers', 20_000, async () => {
        const publishers = await metric(site, /^starling_frontend_publishers\{.*\} (\d+)$/gm);
        return publishers.length === 2 && publishers.every((count) => count === 2) ? true : undefined;
      });
    await bothPush();
    await until('readiness', 20_000, async () => ((await fetch(`${site}/readyz`)).ok ? true : undefined));

    const viewers = await audience(site, 'twin');
    try {
      for (const name of ['backend-a.yaml', ...(isSoak ? ['backend-b.yaml', 'backend-a.yaml'] : [])]) {
        for (const viewer of [...viewers.flv, ...viewers.hls]) viewer.forgetStalls();
        first.process.kill('SIGKILL');
        await watch(`${name} killed`, viewers);
        expect([...viewers.flv, ...viewers.hls].filter(({ brokenCount }) => brokenCount > 0)).toEqual([]);
        expect([...viewers.flv, ...viewers.hls].flatMap(({ missing }) => missing)).toEqual([]);
        if (!isSoak) break;
        const reborn = await start('backend', name);
        await bothPush();
        [first, second] = [second, reborn];
      }
    } finally {
      for (const viewer of [...viewers.flv, ...viewers.hls]) viewer.leave();
    }
  });
});
