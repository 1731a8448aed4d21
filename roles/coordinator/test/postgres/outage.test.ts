import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ApiError } from '@starling/model/client';
import type { BackendState } from '@starling/model/entities';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { addReadyAsset, type Lab, operatorToken, startLab } from '../support.ts';
import { type PostgresServer, startPostgres } from './server.ts';

let server: PostgresServer;
let lab: Lab;
let assetId: string;
beforeAll(async () => {
  server = await startPostgres();
  lab = await startLab({ databaseUrl: server.url() });
  assetId = await addReadyAsset(lab, 'film', 10);
}, 60_000);
afterAll(async () => {
  await lab.close();
  server.remove();
}, 30_000);

const recovered = { timeout: 15_000, interval: 50 };

describe.each([
  ['stopped', () => server.stop(), () => server.start()],
  ['killed', () => server.stop('immediate'), () => server.start()],
  ['frozen', () => server.freeze(), () => server.thaw()],
])('a server that is %s', (how, takeAway, bringBack) => {
  it('stops nobody who follows the state; writes are refused until it is back', async () => {
    const name = `before-${how}`;
    await lab.operator.channels.create({ name, loop: [assetId] });
    const states: BackendState[] = [];
    const retries: unknown[] = [];
    const stop = new AbortController();
    const following = lab.node.watchBackendState(
      (state) => states.push(state),
      stop.signal,
      (error) => retries.push(error),
    );
    await expect.poll(() => states.length, recovered).toBeGreaterThan(0);

    takeAway();
    await expect.poll(() => lab.coordinator.isReady(), recovered).toBe(false);
    expect((await lab.request('GET', '/readyz')).status).toBe(503);
    expect((await lab.request('GET', '/healthz')).status).toBe(200);
    const refused = await lab.request('POST', '/api/v1/channels', {
      token: operatorToken,
      body: { name: `during-${how}`, loop: [assetId] },
    });
    expect(refused.status).toBe(503);
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0);
    expect(await refused.json()).toMatchObject({ code: 'DATABASE_UNAVAILABLE' });
    // From memory.
    expect((await lab.operator.status()).revision).toBe(states.at(-1)?.revision);
    const late: BackendState[] = [];
    const stopLate = new AbortController();
    await lab.node.watchBackendState((state) => {
      late.push(state);
      stopLate.abort();
    }, stopLate.signal);
    expect(late[0]?.channels.map((channel) => channel.name)).toContain(name);

    bringBack();
    await expect.poll(() => lab.coordinator.isReady(), recovered).toBe(true);
    expect((await lab.request('GET', '/readyz')).status).toBe(200);
    const after = `after-${how}`;
    await expect
      .poll(
        () =>
          lab.operator.channels.create({ name: after, loop: [assetId] }).then(
            () => 'done',
            (error: unknown) => (error instanceof ApiError ? error.code : error),
          ),
        recovered,
      )
      .toMatch(/done|CHANNEL_EXISTS/);
    await expect
      .poll(() => states.at(-1)?.channels.some((channel) => channel.name === after), recovered)
      .toBe(true);
    expect(retries).toEqual([]);
    stop.abort();
    await following;
  }, 60_000);
});

it('never writes the password down', () => {
  const password = new URL(server.url()).password;
  expect(password.length).toBeGreaterThan(8);
  expect(lab.log.join('')).toContain('the database server does not answer');
  expect(lab.log.join('')).not.toContain(password);
  expect(readFileSync(join(lab.dataDir, 'viewing-keys.json'), 'utf8')).not.toContain(password);
});

it('says why it does not start, without the password', async () => {
  const wrong = new URL(server.url());
  wrong.password = 'not-the-password';
  await expect(startLab({ databaseUrl: wrong.href })).rejects.toThrow(/password authentication failed/);
  await expect(startLab({ databaseUrl: 'mysql://me:hidden@127.0.0.1/x' })).rejects.toThrow(
    /^DATABASE_URL is not of the form postgres:/,
  );
});
