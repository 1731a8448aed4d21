/** The frontend's side of the coordinator, against a server that answers as one does. */
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import {
  createServer,
  request as httpRequest,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CoordinatorClient } from '@starling/model/client';
import type {
  FrontendReport,
  FrontendReportAnswer,
  FrontendState,
  ViewerStretch,
} from '@starling/model/entities';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CoordinatorLink } from '../src/coordinator-link.ts';
import { startFrontend } from '../src/main.ts';
import { ViewerReports } from '../src/viewer-reports.ts';
import { CHANNEL_FULL_TEXT, TOKEN_FULL_TEXT, ViewerRegistry } from '../src/viewers.ts';

const state = (change: Partial<FrontendState> = {}): FrontendState => ({
  revision: 1,
  channels: [{ name: 'closed', isPrivate: true, maxViewers: null, nameKey: 'k'.repeat(43) }],
  viewingTokenKeys: [],
  revokedTokenIds: [],
  endedViewerIds: [],
  ...change,
});
const logger = pino({ level: 'silent' });
const client = { address: '192.0.2.1', userAgent: 'player/1' };

let dataDir: string;
let server: Server;
let baseUrl: string;
let watchers: ServerResponse[];
let reports: FrontendReport[];
let answer: FrontendReportAnswer;
let viewers: ViewerRegistry;
const closers: (() => Promise<unknown>)[] = [];

beforeEach(async () => {
  dataDir = mkdtempSync(join(tmpdir(), 'starling-link-'));
  watchers = [];
  reports = [];
  answer = { isKnown: true, fullChannels: [], fullTokenIds: [] };
  viewers = new ViewerRegistry();
  server = createServer(async (request, response) => {
    if (request.url === '/api/v1/frontend/watch') {
      response.writeHead(200, { 'content-type': 'text/event-stream' }).flushHeaders();
      watchers.push(response);
      return;
    }
    let body = '';
    for await (const chunk of request) body += chunk;
    reports.push(JSON.parse(body));
    response.end(JSON.stringify(answer));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  baseUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});

afterEach(async () => {
  for (const close of closers.splice(0)) await close();
  server.closeAllConnections();
  server.close();
  rmSync(dataDir, { recursive: true, force: true });
});

async function tell(next: FrontendState): Promise<void> {
  await expect.poll(() => watchers.length).toBeGreaterThan(0);
  for (const watcher of watchers) watcher.write(`data: ${JSON.stringify(next)}\n\n`);
}

async function openLink(
  options: { baseUrl?: string } = {},
): Promise<{ link: CoordinatorLink; states: FrontendState[] }> {
  const states: FrontendState[] = [];
  const link = await CoordinatorLink.open({
    client: new CoordinatorClient({ baseUrl: options.baseUrl ?? baseUrl, token: 'node' }),
    dataDir,
    spoolPath: join(dataDir, 'owed.spool'),
    viewers,
    logger,
    onState: (next) => void states.push(next),
  });
  closers.push(() => link.close());
  return { link, states };
}

const openViewer = (channel = 'closed', disconnect = () => {}) => {
  const viewer = viewers.open(channel, 'flv', client, disconnect);
  if (viewer === undefined) throw new Error('no room');
  return viewer;
};

describe('what the coordinator says', () => {
  it('is followed, kept, and known again at the next start without it', async () => {
    const { states } = await openLink();
    expect(states).toEqual([]);
    await tell(state());
    await expect.poll(() => states).toEqual([state()]);
    const path = join(dataDir, 'frontend-state.json');
    await tell(state({ revision: 2 }));
    await expect.poll(() => JSON.parse(readFileSync(path, 'utf8')).revision).toBe(2);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    const { states: laterStates } = await openLink({ baseUrl: 'http://127.0.0.1:1' });
    expect(laterStates).toEqual([state({ revision: 2 })]);
  });

  it.each(['', '{', '{"revision":1}'])('is not known when what was kept is %j', async (text) => {
    writeFileSync(join(dataDir, 'frontend-state.json'), text);
    expect((await openLink({ baseUrl: 'http://127.0.0.1:1' })).states).toEqual([]);
  });

  it('shows viewers out, once', async () => {
    await openLink();
    let disconnects = 0;
    const viewer = openViewer('closed', () => void disconnects++);
    await tell(state({ endedViewerIds: [viewer.id] }));
    await expect.poll(() => disconnects).toBe(1);
    expect(viewers.list()).toEqual([]);
  });
});

describe('a frontend that follows a coordinator', () => {
  const start = async (url: string) => {
    const frontend = await startFrontend({
      ...{ rtmpHost: '127.0.0.1', rtmpPort: 0, publishToken: 'x', logger, registry: new Registry(), dataDir },
      coordinator: { baseUrl: url, token: 'node' },
    });
    closers.push(() => frontend.close());
    return frontend;
  };

  it('is not ready before it knows who may watch, and is after a restart without the coordinator', async () => {
    const first = await start(baseUrl);
    expect(first.isReady()).toBe(false);
    await tell(state());
    await expect.poll(() => first.isReady()).toBe(true);
    await first.close();
    expect(reports.at(-1)).toMatchObject({ isFresh: true, viewers: [] }); // its last word
    expect((await start('http://127.0.0.1:1')).isReady()).toBe(true);
  });
});

it('a request with a body is refused before it is read', async () => {
  const frontend = await startFrontend({
    ...{ rtmpHost: '127.0.0.1', rtmpPort: 0, publishToken: 'x', logger, registry: new Registry() },
  });
  const site = createServer((request, response) => frontend.handleRequest(request, response));
  closers.push(
    () => frontend.close(),
    async () => site.close(),
  );
  site.listen(0, '127.0.0.1');
  await once(site, 'listening');
  const { port } = site.address() as AddressInfo;
  for (const announced of [{ 'content-length': 1 }, { 'transfer-encoding': 'chunked' }]) {
    const request = httpRequest({ port, host: '127.0.0.1', path: '/live/demo.flv', headers: announced });
    request.flushHeaders();
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    expect([response.statusCode, response.headers.connection]).toEqual([413, 'close']);
    request.destroy();
  }
});

describe('viewers', () => {
  it('are reported when they come and when they leave', async () => {
    await openLink();
    const viewer = openViewer();
    viewer.sentBytes = 5;
    await expect
      .poll(() => reports.some((report) => report.viewers.some(({ id }) => id === viewer.id)))
      .toBe(true);
    const [first] = reports;
    expect(first?.isFresh).toBe(true);
    viewers.close(viewer);
    await expect.poll(() => reports.at(-1)?.leftIds, { timeout: 5000 }).toEqual([viewer.id]);
    expect(reports.at(-1)?.isFresh).toBe(false);
  });

  it('are reported anew to a coordinator that has forgotten them', async () => {
    answer = { ...answer, isKnown: false };
    await openLink();
    const viewer = openViewer();
    await expect
      .poll(
        () => reports.filter(({ isFresh, viewers: told }) => isFresh && told[0]?.id === viewer.id).length,
        { timeout: 8000 },
      )
      .toBeGreaterThan(1);
  });

  it('are kept out of what is full on all frontends together', async () => {
    answer = { ...answer, fullChannels: ['closed'], fullTokenIds: ['t'] };
    const { link } = await openLink();
    await expect.poll(() => link.whyFull('closed', undefined)).toBe(CHANNEL_FULL_TEXT);
    expect(link.whyFull('other', 't')).toBe(TOKEN_FULL_TEXT);
    expect(link.whyFull('other', 'u')).toBeUndefined();
    expect(link.whyFull('other', undefined)).toBeUndefined();
  });
});

describe('what is owed', () => {
  const stretch = (viewerId: string): ViewerStretch => ({
    ...{ viewerId, channel: 'closed', protocol: 'flv', tokenId: null },
    ...{ fromUnixMs: 1_700_000_000_000, toUnixMs: 1_700_000_060_000, sentBytes: 5 },
  });
  const offered = () =>
    reports.flatMap(
      ({ owed }) => owed?.entries.map(({ sequence, value }) => `${sequence} ${value.viewerId}`) ?? [],
    );

  it('is offered until it is taken, also after a restart', async () => {
    const { link } = await openLink();
    link.owe(stretch('viewer0000000001'));
    await expect.poll(() => offered().length, { timeout: 8000 }).toBeGreaterThan(0);
    await link.close(); // the coordinator has not said that it took it
    reports = [];
    answer = { ...answer, takenSequence: 1 };
    const { link: next } = await openLink();
    await expect.poll(offered, { timeout: 8000 }).toEqual(['1 viewer0000000001']);
    next.owe(stretch('viewer0000000002'));
    await expect.poll(offered, { timeout: 8000 }).toContain('2 viewer0000000002');
    expect(offered().filter((one) => one.startsWith('1 '))).toHaveLength(1);
  });

  it('is every session that ends, and what there is of a long one meanwhile', async () => {
    const stretches: ViewerStretch[] = [];
    const registry = new ViewerRegistry({ onStretch: (one) => void stretches.push(one) });
    const viewer = registry.open('closed', 'flv', client, () => {});
    if (viewer === undefined) throw new Error('no room');
    viewer.sentBytes = 10;
    registry.sweep();
    expect(stretches).toEqual([]);
    registry.touchHls('closed', undefined, client, 2000);
    registry.closeAll();
    expect(stretches.map(({ protocol, sentBytes }) => [protocol, sentBytes])).toEqual([
      ['flv', 10],
      ['hls', 0],
    ]);
  });
});

describe('reports', () => {
  it('hold those who came first, then the others in turn', () => {
    const all = Array.from({ length: 1100 }, () => openViewer().id);
    const own = new ViewerReports(viewers);
    const idsOf = (report: FrontendReport) => report.viewers.map(({ id }) => id);
    const first = own.next();
    expect([first.isFresh, own.isBehind, idsOf(first)]).toEqual([true, true, all.slice(0, 500)]);
    const second = own.next();
    expect([second.isFresh, own.isBehind, idsOf(second)]).toEqual([false, true, all.slice(500, 1000)]);
    const third = own.next();
    expect([own.isBehind, idsOf(third)]).toEqual([false, [...all.slice(1000), ...all.slice(0, 400)]]);
    expect(idsOf(own.next())).toEqual(all.slice(400, 900));
    own.startAnew();
    expect(own.next()).toMatchObject({ isFresh: true, leftIds: [] });
  });
});
