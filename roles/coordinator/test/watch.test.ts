import { createHash } from 'node:crypto';
import { connect } from 'node:net';
import type { BackendState } from '@starling/model/entities';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { addReadyAsset, factsOf, type Lab, nodeToken, startLab } from './support.ts';

let lab: Lab;
beforeAll(async () => {
  lab = await startLab();
}, 60_000);
afterAll(() => lab.close());

/** Follows the state until `isEnough`, and gives back all states that came. */
async function follow(isEnough: (states: readonly BackendState[]) => boolean): Promise<BackendState[]> {
  const states: BackendState[] = [];
  const stop = new AbortController();
  const deadline = setTimeout(() => stop.abort(), 5000);
  await lab.node.watchBackendState((state) => {
    states.push(state);
    if (isEnough(states)) stop.abort();
  }, stop.signal);
  clearTimeout(deadline);
  return states;
}

it('sends the present state at once', async () => {
  const id = await addReadyAsset(lab, 'film', 10);
  const { id: queuedId } = await lab.operator.assets.create({ source: '/videos/next.mp4' });
  const { id: failedId } = await lab.operator.assets.create({ source: '/videos/bad.mp4' });
  await lab.node.reportImport(failedId, { state: 'failed', error: 'No picture.' });
  await lab.operator.channels.create({ name: 'films', loop: [id] });
  await lab.operator.streams.create({ name: 'cam' });
  const [state] = await follow((states) => states.length === 1);
  expect(state).toMatchObject({
    channels: [
      { name: 'cam', kind: 'live', runs: [] },
      { name: 'films', kind: 'playout', runs: [{ startTicks: 0, loop: [id] }] },
    ],
    streams: [{ name: 'cam', keySha256: expect.stringMatching(/^[0-9a-f]{64}$/) }],
    assets: [{ id, name: 'film', facts: factsOf(10) }],
    imports: [{ assetId: queuedId, source: '/videos/next.mp4' }],
  });
});

it('sends each change within a second, to every watcher, with rising revisions', async () => {
  const has = (name: string) => (states: readonly BackendState[]) =>
    states.at(-1)?.streams.some((stream) => stream.name === name) ?? false;
  const watchers = [follow(has('second')), follow(has('second')), follow(has('second'))];
  await lab.operator.streams.create({ name: 'first' });
  const startMs = performance.now();
  await lab.operator.streams.create({ name: 'second' });
  for (const states of await Promise.all(watchers)) {
    const revisions = states.map(({ revision }) => revision);
    expect(revisions).toEqual([...revisions].sort((a, b) => a - b));
    expect(has('second')(states)).toBe(true);
  }
  expect(performance.now() - startMs).toBeLessThan(1000);
});

it('keeps an import in the state until it has ended, progress or not', async () => {
  const { id } = await lab.operator.assets.create({ source: '/videos/slow.mp4' });
  await lab.node.reportImport(id, { state: 'importing', progress: 0.5 });
  const [state] = await follow((states) => states.length === 1);
  expect(state?.imports.map(({ assetId }) => assetId)).toContain(id);
});

it('does not queue events for a watcher that takes none', async () => {
  const socket = connect(Number(new URL(lab.url).port), '127.0.0.1');
  socket.write(`GET /api/v1/backend/watch HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${nodeToken}\r\n\r\n`);
  socket.pause();
  for (let count = 0; count < 5; count++) await lab.operator.streams.rotateKey('cam');
  const [state] = await follow((states) => states.length === 1);
  const events: string[] = [];
  socket.resume();
  socket.on('data', (bytes) => events.push(String(bytes)));
  await expect.poll(() => events.join('')).toContain(`id: ${state?.revision}\n`);
  socket.destroy();
});

it('refuses more watchers than it can serve, and takes the next one when one has left', async () => {
  const abort = new AbortController();
  const watch = () =>
    fetch(`${lab.url}/api/v1/backend/watch`, {
      signal: abort.signal,
      headers: { authorization: `Bearer ${nodeToken}` },
    });
  const answers = await Promise.all(Array.from({ length: 101 }, watch));
  expect(answers.filter(({ status }) => status === 503)).toHaveLength(1);
  abort.abort();
  await expect.poll(async () => (await lab.operator.status()).watcherCount).toBe(0);
  expect((await follow((states) => states.length === 1)).length).toBe(1);
});

it('sends the programme from the present on', async () => {
  const asset = await addReadyAsset(lab, 'item', 10);
  const { epochUnixMs } = await lab.operator.channels.create({ name: 'planned', loop: [asset] });
  const start = new Date(Math.ceil(lab.nowMs / 60_000) * 60_000 + 60_000).toISOString().slice(0, 16);
  await lab.operator.schedules.set('planned', {
    timeZone: 'UTC',
    filler: { items: [asset] },
    programmes: [{ start, repeat: 'daily', items: [asset] }],
  });
  const runsOf = async () => {
    const [state] = await follow((states) => states.length === 1);
    return state?.channels.find(({ name }) => name === 'planned')?.runs ?? [];
  };
  const before = await runsOf();
  lab.nowMs += 3 * 86_400_000;
  await lab.operator.channels.update('planned', { title: 'Changed' });
  const after = await runsOf();
  expect(before).toEqual(expect.arrayContaining(after));
  expect(after.length).toBe(before.length - 6);
  expect((after[1]?.startTicks ?? 0) / 90 + epochUnixMs).toBeGreaterThan(lab.nowMs - 3_600_000);
});

it('has the old key of a stream for as long as was asked for, and not beyond the next', async () => {
  const { key: old } = await lab.operator.streams.create({ name: 'overlap' });
  const sha256 = (text: string | null) =>
    createHash('sha256')
      .update(text ?? '')
      .digest('hex');
  const keysOf = async () =>
    (await follow((states) => states.length === 1))[0]?.streams.find(({ name }) => name === 'overlap');
  const { key } = await lab.operator.streams.rotateKey('overlap', { overlapSeconds: 60 });
  expect(await keysOf()).toMatchObject({
    keySha256: sha256(key),
    oldKey: { sha256: sha256(old), untilUnixMs: lab.nowMs + 60_000 },
  });
  const { key: third } = await lab.operator.streams.rotateKey('overlap');
  const now = await keysOf();
  expect(now).toMatchObject({ keySha256: sha256(third) });
  expect(now?.oldKey).toBe(undefined);
  await lab.operator.streams.remove('overlap');
});
