import type { FrontendState } from '@starling/model/entities';
import { pino } from 'pino';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { connectPeers } from '../../src/peers.ts';
import { SharedCounters } from '../../src/shared-counters.ts';
import { createServerDatabase, type Lab, startLab } from '../support.ts';
import { type RedisServer, startRedis } from './redis.ts';

let redis: RedisServer;
let one: Lab;
let other: Lab;
beforeAll(async () => {
  redis = await startRedis();
  const databaseUrl = await createServerDatabase();
  const start = () => startLab({ databaseUrl, redisUrl: redis.url });
  [one, other] = await Promise.all([start(), start()]);
  await one.operator.streams.create({ name: 'cam' });
}, 60_000);
afterAll(async () => {
  await one.close();
  await other.close();
  await redis.stop();
}, 30_000);

const soon = { timeout: 15_000, interval: 50 };
const viewerId = (number: number) => String(number).padStart(16, 'v');
const viewer = (number: number) => ({
  id: viewerId(number),
  channel: 'cam',
  protocol: 'hls' as const,
  address: '192.0.2.1',
  userAgent: 'test',
  tokenId: null,
  rendition: null,
  startedAtUnixMs: 1_700_000_000_000 + number,
  sentBytes: 1,
  latencyMs: null,
});
const reportViewers = (lab: Lab, numbers: number[], isFresh: boolean) =>
  lab.node.reportFrontend({
    frontendId: 'frontend-a',
    isFresh,
    leftIds: [],
    viewers: numbers.map(viewer),
  });
const onAir = (lab: Lab, channels: string[]) =>
  lab.node.reportBackend({
    nodeId: '00000000000000aa',
    destinations: [],
    onAirChannels: channels,
    publishingStreams: channels,
    activeSources: [],
    inputProblems: [],
    events: [],
  });
const viewerIds = async (lab: Lab) => (await lab.operator.viewers.list()).items.map(({ id }) => id).sort();

it('says on every coordinator what a backend told one of them', async () => {
  await expect.poll(() => [one, other].every(({ log }) => log.join('').includes('Redis answers'))).toBe(true);
  await onAir(one, ['cam']);
  await expect.poll(async () => (await other.operator.status()).onAirChannels, soon).toEqual(['cam']);
  expect((await other.operator.streams.list())[0]?.isPublishing).toBe(true);
});

it('shows the viewers of a frontend on every coordinator, and shows them out from each', async () => {
  await reportViewers(one, [1, 2], true);
  await expect.poll(() => viewerIds(other), soon).toEqual([viewerId(1), viewerId(2)]);
  const states: FrontendState[] = [];
  const stop = new AbortController();
  const following = one.node.watchFrontendState((state) => states.push(state), stop.signal);
  await other.operator.viewers.kick(viewerId(1));
  await expect.poll(() => states.at(-1)?.endedViewerIds, soon).toEqual([viewerId(1)]);
  stop.abort();
  await following;
});

it('tells a coordinator that comes later all about a frontend, and not only what changes', async () => {
  const late = await startLab({ databaseUrl: one.databaseUrl, redisUrl: redis.url });
  await expect
    .poll(async () => {
      await reportViewers(one, [3], false);
      return viewerIds(late);
    }, soon)
    // Whom the others have shown out it does not know; the frontend says soon that they have left.
    .toEqual([viewerId(1), viewerId(2), viewerId(3)]);
  await late.close();
});

it('counts on all of them together, and for itself while Redis is away', async () => {
  const clock = { nowMs: Date.UTC(2026, 10, 22) };
  const logger = pino({ level: 'silent' });
  const peers = [1, 2].map(() => connectPeers(redis.url, 'counting', logger));
  const [a, b] = peers.map((one) => new SharedCounters(one, () => clock.nowMs));
  if (a === undefined || b === undefined) throw new Error('no counters');
  // Who has just connected counts for itself.
  await expect.poll(async () => peers[0]?.count('first', 60_000), soon).toBeDefined();
  await expect.poll(async () => peers[1]?.count('first', 60_000), soon).toBeDefined();
  for (let count = 0; count < 5; count++) {
    await a.add('address', 60_000);
    await b.add('address', 60_000);
  }
  // Ten so far; each question adds one.
  await expect.poll(async () => (await a.add('address', 60_000)).count, soon).toBeGreaterThan(10);
  await expect.poll(async () => (await b.add('address', 60_000)).count, soon).toBeGreaterThan(11);
  expect((await a.add('address', 60_000)).resetsInMs).toBeLessThanOrEqual(60_000);
  await Promise.all(peers.map((one) => one.close()));
  // Without Redis what was heard last holds until the window ends.
  expect((await a.add('address', 60_000)).count).toBeGreaterThan(11);
  clock.nowMs += 60_001;
  expect(await a.add('address', 60_000)).toEqual({ count: 1, resetsInMs: 60_000 });
});

it.each([
  ['stopped', () => redis.stop(), () => redis.start()],
  ['frozen', async () => redis.freeze(), async () => redis.thaw()],
])(
  'stops nothing when Redis is %s, and goes on when it is back',
  async (_how, takeAway, bringBack) => {
    const failures = () => one.log.filter((line) => line.includes('Redis does not answer')).length;
    const before = failures();
    await takeAway();
    await expect.poll(failures, soon).toBe(before + 1);
    await onAir(one, []);
    await reportViewers(one, [4], false);
    expect(await viewerIds(one)).toContain(viewerId(4));
    await one.operator.channels.update('cam', { title: `without Redis, ${before}` });
    // Changes go through the database.
    await expect
      .poll(async () => (await other.operator.channels.get('cam')).title, soon)
      .toBe(`without Redis, ${before}`);
    expect(one.coordinator.isReady()).toBe(true);
    expect(failures()).toBe(before + 1);

    await bringBack();
    await expect
      .poll(async () => {
        await onAir(one, ['cam', `back-${before}`]);
        return (await other.operator.status()).onAirChannels;
      }, soon)
      .toEqual(['cam', `back-${before}`]);
    await onAir(one, ['cam']);
  },
  60_000,
);

it('does not start with an address that is none, and does not repeat it', async () => {
  await expect(startLab({ redisUrl: 'http://:hidden@127.0.0.1' })).rejects.toThrow(
    /^REDIS_URL is not of the form redis:/,
  );
  expect(one.log.join('')).not.toContain('only-for-the-tests');
});
