/**
 * Two frontends fed by one backend hold the same bytes under the same names, and one that restarts
 * in mid-stream agrees again from its next segment on.
 */

import { once } from 'node:events';
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Backend, startBackend } from '@starling/backend/main';
import { type Coordinator, startCoordinator } from '@starling/coordinator/main';
import { type Frontend, startFrontend } from '@starling/frontend/main';
import { CoordinatorClient } from '@starling/model/client';
import { TEST_CARD_SOURCE } from '@starling/model/entities';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { until } from './network.ts';

const logger = pino({ level: 'silent' });
const publishToken = 'a-token-of-this-test';
const dataDir = mkdtempSync(join(tmpdir(), 'starling-two-frontends-'));
let coordinator: Coordinator;
let backend: Backend;
const frontends: { frontend: Frontend; http: Server; site: string; rtmpPort: number }[] = [];

async function openFrontend(rtmpPort: number) {
  const frontend = await startFrontend({
    rtmpHost: '127.0.0.1',
    rtmpPort,
    publishToken,
    logger,
    registry: new Registry(),
  });
  const http = createServer((request, response) => frontend.handleRequest(request, response));
  http.listen(0, '127.0.0.1');
  await once(http, 'listening');
  const site = `http://127.0.0.1:${(http.address() as AddressInfo).port}`;
  return { frontend, http, site, rtmpPort: frontend.rtmpPort };
}

beforeAll(async () => {
  cpSync(join(inject('shared').dataDir, 'media'), join(dataDir, 'media'), { recursive: true });
  coordinator = await startCoordinator({
    registry: new Registry(),
    dataDir,
    operatorToken: 'o',
    nodeToken: 'n',
    logger,
    webDir: undefined,
  });
  const { port } = await coordinator.listen('127.0.0.1', 0);
  frontends.push(await openFrontend(0), await openFrontend(0));
  backend = await startBackend({
    dataDir,
    coordinator: { baseUrl: `http://127.0.0.1:${port}`, token: 'n' },
    rtmpHost: '127.0.0.1',
    rtmpPort: 0,
    frontends: frontends.map(({ rtmpPort }) => ({ host: '127.0.0.1', port: rtmpPort, publishToken })),
    leases: { from: 'nobody' },
    logger,
    registry: new Registry(),
  });
  const client = new CoordinatorClient({ baseUrl: `http://127.0.0.1:${port}`, token: 'o' });
  const asset = await client.assets.create({ source: TEST_CARD_SOURCE, name: 'card' });
  await until('the test card', 60_000, async () =>
    (await client.assets.get(asset.id)).state === 'ready' ? true : undefined,
  );
  await client.channels.create({ name: 'twin', loop: [asset.id] });
  for (const { site } of frontends) {
    await until('four segments', 20_000, async () => ((await entries(site)).size >= 4 ? true : undefined));
  }
});

afterAll(async () => {
  await backend?.close();
  for (const { frontend, http } of frontends) {
    await frontend.close();
    http.close();
    http.closeAllConnections();
  }
  await coordinator?.close();
  rmSync(dataDir, { recursive: true, force: true });
});

/** What a playlist says of each segment: its tags and name, by media sequence number. */
async function entries(site: string): Promise<Map<number, string>> {
  const text = await (await fetch(`${site}/live/twin/main/index.m3u8`)).text();
  const byNumber = new Map<number, string>();
  let tags: string[] = [];
  for (const line of text.split('\n')) {
    if (/^#EXT(INF|-X-(PROGRAM|DISCONTINUITY$|GAP))/.test(line)) tags.push(line);
    const number = /^(\d+)\.m4s$/.exec(line)?.[1];
    if (number === undefined) continue;
    byNumber.set(Number(number), [...tags, line].join('\n'));
    tags = [];
  }
  return byNumber;
}

async function bytes(url: string): Promise<Buffer> {
  const response = await fetch(url);
  expect(response.status).toBe(200);
  return Buffer.from(await response.arrayBuffer());
}

/** Compares all that both list; returns the numbers compared. */
async function compare(a: string, b: string): Promise<number[]> {
  const [entriesA, entriesB] = await Promise.all([entries(a), entries(b)]);
  const common = [...entriesA.keys()].filter((number) => entriesB.has(number));
  for (const number of common) {
    expect(entriesA.get(number)).toBe(entriesB.get(number));
    const path = `/live/twin/main/${number}.m4s`;
    expect((await bytes(a + path)).equals(await bytes(b + path))).toBe(true);
  }
  const init = /init-[0-9a-f]+\.mp4/.exec(await (await fetch(`${a}/live/twin/main/index.m3u8`)).text())?.[0];
  expect(
    (await bytes(`${a}/live/twin/main/${init}`)).equals(await bytes(`${b}/live/twin/main/${init}`)),
  ).toBe(true);
  return common;
}

async function dateRanges(site: string): Promise<string[]> {
  const text = await (await fetch(`${site}/live/twin/main/index.m3u8`)).text();
  return text.split('\n').filter((line) => line.startsWith('#EXT-X-DATERANGE:'));
}

describe('two frontends fed by one backend', () => {
  it('hold identical init segments, segments and playlist entries', async () => {
    const [first, second] = frontends;
    const compared = await compare(first?.site ?? '', second?.site ?? '');
    expect(compared.length).toBeGreaterThanOrEqual(4);
    const ranges = await dateRanges(first?.site ?? '');
    // At the full hour one may be a programme ahead.
    expect((await dateRanges(second?.site ?? '')).filter((range) => ranges.includes(range))).not.toEqual([]);
  });

  it('agree again after one of them restarted in mid-stream', async () => {
    const [first, second] = frontends;
    if (first === undefined || second === undefined) throw new Error('two frontends expected');
    await second.frontend.close();
    second.http.close();
    second.http.closeAllConnections();
    const reborn = await openFrontend(second.rtmpPort);
    frontends[1] = reborn;
    await until('the window of the reborn', 5000, () =>
      reborn.frontend.isPlayable('twin') ? true : undefined,
    );
    const newest = Math.max(...(await entries(first.site)).keys());
    await until('two more segments', 10_000, async () =>
      (await entries(reborn.site)).has(newest + 2) && (await entries(first.site)).has(newest + 2)
        ? true
        : undefined,
    );
    const compared = await compare(first.site, reborn.site);
    expect(compared).toContain(newest + 2);
    expect(compared.length).toBeGreaterThanOrEqual(4);
  });

  it('hear of it when the backend is told of others', async () => {
    const [first, second] = frontends;
    if (first === undefined || second === undefined) throw new Error('two frontends expected');
    const third = await openFrontend(0);
    frontends.push(third);
    const addressOf = ({ rtmpPort }: { rtmpPort: number }) => ({
      host: '127.0.0.1',
      port: rtmpPort,
      publishToken,
    });
    const pushedTo = () => frontends.map(({ frontend }) => frontend.channels().length);
    backend.setFrontends([first, third].map(addressOf));
    await until('the change', 5000, () => (pushedTo().join() === '1,0,1' ? true : undefined));
    await until('the window', 5000, () => (third.frontend.isPlayable('twin') ? true : undefined));
    await until('the same list', 5000, async () => {
      const [old, young] = await Promise.all([entries(first.site), entries(third.site)]);
      return [...old.values()].join() === [...young.values()].join() ? true : undefined;
    });
    expect((await compare(first.site, third.site)).length).toBeGreaterThanOrEqual(6);
    backend.setFrontends(frontends.map(addressOf));
    await until('all', 5000, () => (pushedTo().join() === '1,1,1' ? true : undefined));
  });
});
