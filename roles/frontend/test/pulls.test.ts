/** Distribution on demand: frontends that pull a channel from those that backends push it to. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { FrontendLeg } from '@starling/backend/publisher';
import type { StreamEvent } from '@starling/media/access-unit';
import { rendezvousOrder } from '@starling/model/distribution';
import { newNodeIdentity } from '@starling/model/node-identity';
import { Channel } from '@starling/net/channel';
import { listenHttp } from '@starling/net/http-server';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { startFrontend } from '../src/main.ts';
import type { PeerFrontend } from '../src/pulls.ts';
import { head, segment } from './synthetic-channel.ts';

const logger = pino({ level: 'silent' });
const noProof = async () => '';
vi.setConfig({ testTimeout: 60_000 });
/** A machine with other work takes its time. */
const eventually = <T>(look: () => T | Promise<T>) => vi.waitFor(look, 15_000);
const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

/** In the order in which they come into question for the channel: the first ones are its origins. */
const ids = rendezvousOrder('test', ['00000000000000aa', '00000000000000bb', '00000000000000cc']);

/** A coordinator that knows the channel, and says no more. */
async function openCoordinator(): Promise<string> {
  const channels = [{ name: 'test', isPrivate: false, maxViewers: null, nameKey: 'k'.repeat(43) }];
  const state = { revision: 1, channels, viewingTokenKeys: [], revokedTokenIds: [], endedViewerIds: [] };
  const server = createServer((request, response) => {
    if (!request.url?.endsWith('/watch')) return void response.writeHead(503).end();
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write(`data: ${JSON.stringify(state)}\n\n`);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  closers.push(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

async function openNode(nodeId: string, baseUrl: string) {
  const identity = await newNodeIdentity(nodeId);
  const frontend = await startFrontend({
    rtmpHost: '127.0.0.1',
    rtmpPort: 0,
    publishToken: 'token',
    coordinator: { baseUrl, token: identity },
    logger,
    registry: new Registry(),
  });
  await eventually(() => expect(frontend.isReady()).toBe(true));
  const http = await listenHttp(
    { host: '127.0.0.1', port: 0 },
    logger,
    (request, response) => void frontend.handleRequest(request, response),
    frontend.handleUpgrade,
  );
  let closing: Promise<void> | undefined;
  const close = () => {
    closing ??= frontend.close().then(() => http.close());
    return closing;
  };
  closers.push(close);
  const peer: PeerFrontend = {
    ...{ nodeId, publicKey: identity.publicKey, host: '127.0.0.1' },
    ...{ rtmpPort: frontend.rtmpPort, httpPort: http.port },
  };
  const get = async (path: string, channel = 'test') => {
    const response = await fetch(`http://127.0.0.1:${http.port}/live/${channel}/${path}`);
    return { status: response.status, bytes: Buffer.from(await response.arrayBuffer()) };
  };
  const list = async () => {
    const { bytes } = await get('main/index.m3u8');
    return bytes.toString().match(/^(?:\d+\.m4s|#EXT-X-MAP:URI="[^"]+")$/gm) ?? [];
  };
  return { frontend, peer, get, list, close };
}
type Node = Awaited<ReturnType<typeof openNode>>;

/** Two origins and a frontend that is none, which know one another; each origin has a channel object of its own. */
async function openFleet() {
  const baseUrl = await openCoordinator();
  const nodes = await Promise.all(ids.map((id) => openNode(id, baseUrl)));
  for (const node of nodes) {
    node.frontend.setPeers(nodes.filter((other) => other !== node).map(({ peer }) => peer));
  }
  const [first, second, puller] = nodes as [Node, Node, Node];
  const channels = [first, second].map(({ peer }) => {
    const channel = new Channel('test');
    const leg = new FrontendLeg(
      channel,
      { host: peer.host, port: peer.rtmpPort, publishToken: 'token' },
      noProof,
      logger,
    );
    closers.push(() => leg.close());
    return { channel, leg };
  });
  const push = (events: readonly StreamEvent[]) => {
    for (const { channel } of channels) channel.push(events);
  };
  push(head);
  for (let number = 0; number < 5; number++) push(segment(number));
  await eventually(async () => {
    expect(await first.list()).toContain('3.m4s');
    expect(await second.list()).toContain('3.m4s');
  });
  return { first, second, puller, channels, push };
}

describe('a frontend that no backend pushes to', () => {
  it('answers the first request with a whole window, byte for byte that of an origin', async () => {
    const { first, puller, push } = await openFleet();
    expect(puller.frontend.channels()).toEqual([]);
    expect((await puller.get('index.m3u8')).status).toBe(200);
    expect(await puller.list()).toEqual(await first.list());
    push(segment(5));
    push(segment(6));
    await eventually(async () => expect(await puller.list()).toContain('5.m4s'));
    await eventually(async () => expect(await first.list()).toEqual(await puller.list()));
    const files = (await puller.list()).map((line) => /"(.*)"/.exec(line)?.[1] ?? line);
    expect(files.length).toBeGreaterThanOrEqual(7);
    for (const file of files) {
      const [mine, theirs] = await Promise.all([puller.get(`main/${file}`), first.get(`main/${file}`)]);
      expect(mine.status, file).toBe(200);
      expect(mine.bytes.equals(theirs.bytes), file).toBe(true);
    }
  });

  it.each(['main/3.m4s', '../test.flv'])(
    'brings %s where that is the first thing asked for',
    async (path) => {
      const { first, puller } = await openFleet();
      const abort = new AbortController();
      const response = await fetch(`http://127.0.0.1:${puller.peer.httpPort}/live/test/${path}`, {
        signal: abort.signal,
      });
      expect(response.status).toBe(200);
      if (path.endsWith('.m4s')) {
        const mine = Buffer.from(await response.arrayBuffer());
        expect(mine.equals((await first.get(path)).bytes)).toBe(true);
      }
      abort.abort();
    },
  );

  it('goes on from the other origin when its own dies, without a segment or a byte missing', async () => {
    const { first, second, puller, push } = await openFleet();
    await puller.get('index.m3u8');
    push(segment(5).slice(0, 70)); // in the midst of a segment
    await eventually(async () => expect(await puller.list()).toContain('4.m4s'));
    await first.close();
    push(segment(5).slice(70));
    push(segment(6));
    await eventually(async () => expect(await puller.list()).toContain('5.m4s'));
    for (const file of ['4.m4s', '5.m4s']) {
      const [mine, theirs] = await Promise.all([puller.get(`main/${file}`), second.get(`main/${file}`)]);
      expect(mine.bytes.equals(theirs.bytes), file).toBe(true);
    }
  });

  it('goes on from the other origin when its own brings nothing any more', async () => {
    const { second, puller, channels } = await openFleet();
    await puller.get('index.m3u8');
    for (const number of [5, 6]) {
      channels[1]?.channel.push(segment(number));
      await puller.get('main/index.m3u8'); // somebody watches
    }
    await eventually(async () => expect(await puller.list()).toContain('5.m4s'));
    const [mine, theirs] = await Promise.all([puller.get('main/5.m4s'), second.get('main/5.m4s')]);
    expect(mine.bytes.equals(theirs.bytes)).toBe(true);
  });

  it('lets an origin answer for what is recorded and for the thumbnail', async () => {
    const { first, puller } = await openFleet();
    for (const path of ['dvr.m3u8', 'main/vod.m3u8?from=1']) {
      // These frontends record nothing, and say so.
      const [mine, theirs] = await Promise.all([puller.get(path), first.get(path)]);
      expect(mine).toEqual(theirs);
    }
    expect(puller.frontend.isPlayable('test')).toBe(false);
  });

  it('pulls no more when a backend comes to push the channel to it', async () => {
    const { puller, push, channels } = await openFleet();
    await puller.get('index.m3u8');
    const { peer } = puller;
    const leg = new FrontendLeg(
      channels[0]?.channel ?? new Channel('test'),
      { host: peer.host, port: peer.rtmpPort, publishToken: 'token' },
      noProof,
      logger,
    );
    closers.push(() => leg.close());
    await eventually(() => expect(puller.frontend.channels()).toEqual([{ name: 'test', isPlayable: true }]));
    push(segment(5));
    push(segment(6));
    await eventually(async () => expect(await puller.list()).toContain('5.m4s'));
  });

  it('says of a channel that nobody has that it is off the air', async () => {
    const { puller } = await openFleet();
    expect((await puller.get('index.m3u8', 'nothing')).status).toBe(404);
    puller.frontend.setPeers([]);
    expect((await puller.get('index.m3u8')).status).toBe(404);
  });

  it('is refused where it is not known', async () => {
    const { first, second, puller } = await openFleet();
    for (const node of [first, second]) node.frontend.setPeers([first.peer, second.peer]);
    expect((await puller.get('index.m3u8')).status).toBe(404);
    // Nor does anybody get in with somebody else's id.
    const impostor = { ...puller.peer, publicKey: (await newNodeIdentity()).publicKey };
    for (const node of [first, second]) node.frontend.setPeers([impostor]);
    expect((await puller.get('index.m3u8')).status).toBe(404);
  });
});
