import { mkdtempSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AssetFacts } from '@starling/model/schedule';
import { sql } from 'kysely';
import { pino } from 'pino';
import { Check } from 'typebox/value';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Database, DatabaseUnavailable, SqlError } from './database.ts';
import { openEmbeddedPostgres } from './embedded-postgres.ts';

const folder = mkdtempSync(join(tmpdir(), 'starling-database-'));
const logger = pino({ level: 'silent' });
let database: Database;
beforeAll(async () => {
  database = await openEmbeddedPostgres(join(folder, 'db'), logger);
}, 60_000);
afterAll(async () => {
  await database.close();
  rmSync(folder, { recursive: true, force: true });
}, 30_000);

const setting = (name: string) => database.kysely.selectFrom('settings').selectAll().where('name', '=', name);

describe('queries', () => {
  it('gives 64-bit integers as text, times as dates and JSON as values', async () => {
    const { rows } =
      await sql`select 9007199254740993::int8 as big, '2026-11-22T00:00:00.5Z'::timestamptz as at,
      '[{"a":1}]'::jsonb as json, array['x','y']::text[] as list, 0.25::float8 as float`.execute(
        database.kysely,
      );
    expect(rows).toEqual([
      {
        big: '9007199254740993',
        at: new Date('2026-11-22T00:00:00.500Z'),
        json: [{ a: 1 }],
        list: ['x', 'y'],
        float: 0.25,
      },
    ]);
  });

  it('raises what PostgreSQL says, with its SQLSTATE and constraint', async () => {
    const insert = database.kysely.insertInto('settings').values({ name: 'revision', value: '1' }).execute();
    await expect(insert).rejects.toBeInstanceOf(SqlError);
    await expect(insert).rejects.toMatchObject({ sqlState: '23505', constraint: 'settings_pkey' });
  });
});

it('waits for the disk at each commit', async () => {
  const syncs = async () => {
    await sql`select pg_stat_force_next_flush()`.execute(database.kysely);
    const { rows } = await sql<{ count: string }>`
      select sum(fsyncs) as count from pg_stat_io where object = 'wal'`.execute(database.kysely);
    return Number(rows[0]?.count);
  };
  const { rows } =
    await sql`select current_setting('fsync') as fsync, current_setting('wal_sync_method') as how,
    current_setting('synchronous_commit') as waits`.execute(database.kysely);
  // Emscripten has no other way that does something.
  expect(rows).toEqual([{ fsync: 'on', how: 'fsync', waits: 'on' }]);
  const before = await syncs();
  for (const value of ['1', '2', '3'])
    await database.kysely
      .insertInto('settings')
      .values({ name: `synced-${value}`, value })
      .execute();
  await expect.poll(syncs).toBeGreaterThanOrEqual(before + 3);
});

describe('transactions', () => {
  it('run one after another', async () => {
    await database.kysely.insertInto('settings').values({ name: 'counter', value: '0' }).execute();
    const increment = () =>
      database.kysely.transaction().execute(async (transaction) => {
        const { value } = await transaction
          .selectFrom('settings')
          .select('value')
          .where('name', '=', 'counter')
          .executeTakeFirstOrThrow();
        await new Promise((wake) => setTimeout(wake, 1));
        await transaction
          .updateTable('settings')
          .set({ value: String(Number(value) + 1) })
          .where('name', '=', 'counter')
          .execute();
      });
    await Promise.all(Array.from({ length: 20 }, increment));
    expect(await setting('counter').executeTakeFirst()).toMatchObject({ value: 20 });
  });

  it('leave nothing behind when they fail', async () => {
    const failing = database.kysely.transaction().execute(async (transaction) => {
      await transaction.insertInto('settings').values({ name: 'half', value: '1' }).execute();
      throw new Error('changed my mind');
    });
    await expect(failing).rejects.toThrow('changed my mind');
    expect(await setting('half').execute()).toEqual([]);
  });

  it('refuse more that wait than the bound', async () => {
    const waiting = Array.from({ length: 600 }, () => setting('revision').execute());
    const outcomes = await Promise.allSettled(waiting);
    const refused = outcomes.filter((outcome) => outcome.status === 'rejected');
    expect(refused.length).toBe(600 - 501);
    for (const { reason } of refused) expect(reason).toBeInstanceOf(DatabaseUnavailable);
  });
});

it('starts the engine again when it died, with everything that was committed', async () => {
  await database.kysely.insertInto('settings').values({ name: 'kept', value: '7' }).execute();
  // Without its log, PostgreSQL panics at the next segment of it.
  const log = join(folder, 'db', 'pg_wal');
  renameSync(log, `${log}.away`);
  const dying = (async () => {
    await sql`select pg_switch_wal()`.execute(database.kysely);
    await database.kysely.insertInto('settings').values({ name: 'lost', value: '8' }).execute();
  })();
  await expect(dying).rejects.toThrow();
  await expect.poll(() => database.isUp(), { timeout: 1000 }).toBe(false);
  renameSync(`${log}.away`, log);
  await expect.poll(() => database.isUp(), { timeout: 10_000 }).toBe(true);
  expect(await setting('kept').executeTakeFirst()).toMatchObject({ value: 7 });
}, 20_000);

it('refuses a database that a newer Starling has used', async () => {
  const newer = join(folder, 'newer');
  const first = await openEmbeddedPostgres(newer, logger);
  await sql`insert into kysely_migration (name, timestamp) values ('999-from-the-future', '')`.execute(
    first.kysely,
  );
  await first.close();
  await expect(openEmbeddedPostgres(newer, logger)).rejects.toThrow(/newer Starling/);
}, 30_000);

it('gives channels of an older Starling a schedule, a number and their sources, and assets their tracks', async () => {
  const path = join(folder, 'older');
  const older = await openEmbeddedPostgres(path, logger);
  // Back to the tables of before.
  await sql`drop table leases, nodes, node_invitations, alarms, idempotency_keys, spools, viewer_sessions`.execute(
    older.kysely,
  );
  await sql`alter table streams drop column old_key_sha256, drop column old_key_until`.execute(older.kysely);
  await sql`drop table audit_entries, login_failures, api_tokens, sessions, accounts cascade`.execute(
    older.kysely,
  );
  await sql`drop function audit_change cascade`.execute(older.kysely);
  await sql`alter table streams drop column owner`.execute(older.kysely);
  await sql`drop index assets_by_creation, viewing_tokens_by_creation`.execute(older.kysely);
  await sql`drop table schedules, webhook_deliveries, webhooks, destinations`.execute(older.kysely);
  await sql`alter table channels drop column has_sources, drop column primary_stream, drop column backup_stream,
    drop column fallback, drop column source_choice, drop column dark_after_ms`.execute(older.kysely);
  await sql`alter table streams drop column input, drop column transcode`.execute(older.kysely);
  await sql`alter table runs drop column origin_ticks, drop column shuffle_seed, drop column programme`.execute(
    older.kysely,
  );
  await sql`alter table channels drop column number, drop column logo, drop column group_title`.execute(
    older.kysely,
  );
  await sql`drop table recordings`.execute(older.kysely);
  await sql`alter table channels drop column record, drop column redundancy`.execute(older.kysely);
  await sql`drop table watched_files, watched_folders`.execute(older.kysely);
  await sql`alter table runs drop column tracks`.execute(older.kysely);
  await sql`alter table assets drop column attempt`.execute(older.kysely);
  await sql`alter table assets rename column source to source_path`.execute(older.kysely);
  await sql`delete from kysely_migration where name >= '005'`.execute(older.kysely);
  const oldFacts = {
    ...{ contentHash: 'a'.repeat(64), configHash: 'b'.repeat(64), durationTicks: 900_000, segmentCount: 5 },
    ...{ sizeBytes: 2_500_000, widthPx: 1280, heightPx: 720, frameRate: 25 },
  };
  await sql`insert into assets (id, name, state, facts, source_path, created_at) values
    ('one', 'One', 'ready', ${JSON.stringify(oldFacts)}, '/one.mp4', '2026-01-01'),
    ('two', 'Two', 'failed', null, '/two.mp4', '2026-01-01')`.execute(older.kysely);
  await sql`insert into channels (name, title, kind, epoch, created_at) values
    ('b', 'B', 'playout', '2026-01-01', '2026-01-01'), ('a', 'A', 'playout', '2026-01-02', '2026-01-02'),
    ('live', 'Live', 'live', '2026-01-03', '2026-01-03')`.execute(older.kysely);
  await sql`insert into runs (channel, start_ticks, first_media_sequence_number, first_discontinuity_sequence, loop)
    values ('a', 0, 0, 0, array['one']), ('a', 900, 5, 0, array['two', 'one']), ('b', 0, 0, 0, array['one'])`.execute(
    older.kysely,
  );
  await older.close();

  const newer = await openEmbeddedPostgres(path, logger);
  expect(await newer.kysely.selectFrom('schedules').selectAll().orderBy('channel').execute()).toEqual([
    {
      channel: 'a',
      schedule: { timeZone: 'UTC', filler: { items: ['two', 'one'] }, programmes: [] },
      asset_ids: ['two', 'one'],
      valid_from_ticks: '900',
    },
    {
      channel: 'b',
      schedule: { timeZone: 'UTC', filler: { items: ['one'] }, programmes: [] },
      asset_ids: ['one'],
      valid_from_ticks: '0',
    },
  ]);
  const [one, two] = await newer.kysely.selectFrom('assets').selectAll().orderBy('id').execute();
  expect(one).toMatchObject({ source: '/one.mp4', attempt: 1, facts: oldFacts });
  expect(Check(AssetFacts, one?.facts)).toBe(true);
  expect(one?.facts?.videoTracks).toEqual([{ widthPx: 1280, heightPx: 720, bitrateBps: 2_000_000 }]);
  expect(two).toMatchObject({ source: '/two.mp4', facts: null });
  expect(
    await newer.kysely.selectFrom('channels').select(['name', 'number']).orderBy('number').execute(),
  ).toEqual([
    { name: 'b', number: 1 },
    { name: 'a', number: 2 },
    { name: 'live', number: 3 },
  ]);
  // The channel of a stream shows that stream; the others are made by their schedule alone.
  expect(
    await newer.kysely
      .selectFrom('channels')
      .select(['name', 'has_sources', 'primary_stream', 'fallback'])
      .orderBy('name')
      .execute(),
  ).toEqual([
    { name: 'a', has_sources: false, primary_stream: null, fallback: 'none' },
    { name: 'b', has_sources: false, primary_stream: null, fallback: 'none' },
    { name: 'live', has_sources: true, primary_stream: 'live', fallback: 'none' },
  ]);
  await newer.close();
}, 60_000);
