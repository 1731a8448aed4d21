import type { BackendState } from '@starling/model/entities';
import { sql } from 'kysely';
import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openPostgresServer } from '../../src/postgres-server.ts';
import { addReadyAsset, createServerDatabase, type Lab, startLab } from '../support.ts';
import { type PostgresServer, startPostgres } from './server.ts';

describe('several coordinators on one database', () => {
  let one: Lab;
  let other: Lab;
  beforeAll(async () => {
    const databaseUrl = await createServerDatabase();
    [one, other] = await Promise.all([startLab({ databaseUrl }), startLab({ databaseUrl })]);
  }, 60_000);
  afterAll(async () => {
    await one.close();
    await other.close();
  });

  it('tell each other of their changes', async () => {
    const states: BackendState[] = [];
    const stop = new AbortController();
    const following = other.node.watchBackendState((state) => states.push(state), stop.signal);
    await expect.poll(() => states.length).toBe(1);
    const id = await addReadyAsset(one, 'film', 10);
    await one.operator.channels.create({ name: 'films', loop: [id] });
    await expect.poll(() => states.at(-1)?.channels.map(({ name }) => name)).toEqual(['films']);
    expect(states.at(-1)?.assets.map((asset) => asset.id)).toEqual([id]);
    stop.abort();
    await following;
    expect((await other.operator.status()).revision).toBe((await one.operator.status()).revision);
  });

  it('make their changes one after another: no number is given twice and no revision is skipped', async () => {
    const before = (await one.operator.status()).revision;
    const names = Array.from({ length: 40 }, (_, index) => `cam-${index}`);
    await Promise.all(
      names.map((name, index) => (index % 2 === 0 ? one : other).operator.streams.create({ name })),
    );
    const channels = await one.operator.channels.list();
    expect(new Set(channels.map(({ number }) => number)).size).toBe(channels.length);
    await expect
      .poll(async () => [(await one.operator.status()).revision, (await other.operator.status()).revision])
      .toEqual([before + 40, before + 40]);
  });
});

describe('migrations', () => {
  let server: PostgresServer;
  beforeAll(async () => {
    server = await startPostgres(['fsync = off']);
  }, 60_000);
  afterAll(() => server.remove());

  it('run once when several coordinators start at the same time', async () => {
    const log: string[] = [];
    const logging = pino({ level: 'info' }, { write: (line: string) => log.push(line) });
    const databases = await Promise.all(
      Array.from({ length: 6 }, () => openPostgresServer(server.url(), logging)),
    );
    const [first] = databases;
    if (first === undefined) throw new Error('no database');
    const { rows } = await sql<{ name: string }>`select name from kysely_migration order by name`.execute(
      first.kysely,
    );
    const done = log.filter((line) => line.includes('database brought up to date'));
    expect(done.map((line): unknown => JSON.parse(line).migration).sort()).toEqual(
      rows.map(({ name }) => name),
    );
    expect(rows.length).toBeGreaterThan(5);
    await Promise.all(databases.map((database) => database.close()));
  }, 60_000);
});
