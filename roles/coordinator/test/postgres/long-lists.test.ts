/** Ten thousand rows in each table, and PostgreSQL's own word (auto_explain) on how it found the rows of each answer. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { factsOf, type Lab, operatorToken, startLab } from '../support.ts';
import { type PostgresServer, startPostgres } from './server.ts';

const ROWS = 10_000;
const isSoak = process.env.STARLING_SOAK === '1';

let server: PostgresServer;
let lab: Lab;
beforeAll(async () => {
  server = await startPostgres([
    'fsync = off',
    "session_preload_libraries = 'auto_explain'",
    'auto_explain.log_min_duration = 0',
    'auto_explain.log_format = json',
  ]);
  lab = await startLab({ databaseUrl: server.url() });
  await fill(server);
  // Starts with what is in the database.
  lab = await lab.restart();
  // What it keeps in memory is read whole, once: at its first look for alarms, a second after its start.
  await sleep(2500);
}, 120_000);
afterAll(async () => {
  await lab.close();
  server.remove();
}, 30_000);

async function fill(target: PostgresServer): Promise<void> {
  const client = new Client({ connectionString: target.url() });
  await client.connect();
  const insert = (sql: string, values: unknown[] = []) => client.query(sql, values);
  const series = `generate_series(1, ${ROWS}) as n`;
  const at = `'2026-11-01T00:00:00Z'::timestamptz + n * interval '1 ms'`;
  await insert(
    `insert into assets (id, name, state, facts, source, created_at)
     select 'a' || n, 'asset ' || n, 'ready', $1, '/videos/' || n || '.mp4', ${at} from ${series}`,
    [JSON.stringify(factsOf(10))],
  );
  await insert(
    `insert into channels (name, title, kind, number, epoch, created_at, has_sources, primary_stream)
     select 'c' || n, 'Channel ' || n, 'live', n, ${at}, ${at}, true, 'c' || n from ${series}`,
  );
  await insert(
    `insert into streams (name, key_sha256, key_rotated_at, created_at)
     select 'c' || n, md5(n::text), ${at}, ${at} from ${series}`,
  );
  await insert(
    `insert into channels (name, title, kind, number, epoch, created_at)
     select 'p' || n, 'Playout ' || n, 'playout', n + ${ROWS}, '2026-11-22T12:00:00Z', ${at}
     from generate_series(1, 1000) as n`,
  );
  await insert(
    `insert into runs (channel, start_ticks, first_media_sequence_number, first_discontinuity_sequence, loop)
     select 'p' || (n % 1000 + 1), n / 1000 * 900000, n / 1000 * 5, n / 1000, array['a' || n] from ${series}`,
  );
  await insert(
    `insert into schedules (channel, schedule, asset_ids, valid_from_ticks)
     select 'p' || n, $1, array['a1'], 0 from generate_series(1, 1000) as n`,
    [JSON.stringify({ timeZone: 'UTC', filler: { items: ['a1'] }, programmes: [] })],
  );
  await insert(
    `insert into viewing_tokens (id, key_id, name, created_at, expires_at)
     select 't' || n, 'k', 'viewer ' || n, ${at}, '2030-01-01' from ${series}`,
  );
  await insert(
    `insert into webhooks (id, url, events, secret, created_at)
     select 'w' || n, 'http://127.0.0.1:1/', array['publish'], 's', ${at} from generate_series(1, 50) as n`,
  );
  await insert(
    `insert into webhook_deliveries (id, webhook_id, event, state, attempts, outcome)
     select 'd' || n, 'w' || (n % 50 + 1), $1, 'delivered', 1, 'HTTP 200' from ${series}`,
    [JSON.stringify({ id: 'e', type: 'publish', at: '2026-11-01T00:00:00.000Z', stream: 'c1' })],
  );
  await insert(
    `insert into watched_folders (id, path, is_recursive, created_at)
     select 'f' || n, '/videos/' || n, false, ${at} from ${series}`,
  );
  await insert(
    `insert into watched_files (folder, path, version) select 'f' || n, '/videos/1/' || n, 'v' from ${series}`,
  );
  await insert(
    `insert into accounts (name, role, password_hash, has_one_time_password, channels, created_at)
     select 'n' || n, 'viewer', 'none', false, '{}', ${at} from ${series}`,
  );
  await insert(
    `insert into audit_entries (actor_kind, actor, noun, verb, target)
     select 'account', 'n' || n, 'channels', 'update', 'c' || n from ${series}`,
  );
  await insert(
    `insert into alarms (id, kind, target, severity, state, message, raised_at, last_seen_at, resolved_at)
     select 'a' || n, 'failover', 'c' || n, 'warning', 'resolved', 'm', ${at}, ${at}, ${at} from ${series}`,
  );
  await insert(
    `insert into viewer_sessions (viewer_id, channel, protocol, started_at, ended_at, sent_bytes)
     select 'v' || n, 'c' || n, 'hls', ${at}, ${at}, 0 from ${series}`,
  );
  await insert('analyze');
  await client.end();
}

/** Tables of ten thousand rows that were read from end to end since `from` in the server's log. */
async function wholeTablesReadSince(from: number): Promise<string[]> {
  await sleep(50); // the log is written after the answer
  const plans = server.log().slice(from);
  return [...plans.matchAll(/"Node Type": "Seq Scan"[^}]*?"Relation Name": "(\w+)"/g)]
    .map(([, table = '']) => table)
    .filter((table) => table !== 'settings' && table !== 'webhooks' && !table.startsWith('pg_'));
}

const pagedRoutes = [
  'assets',
  'channels',
  'streams',
  'viewing-tokens',
  'library/folders',
  'accounts',
  'audit',
  'alarms',
  'viewer-sessions',
];
/** Of these there are 1000 at most. */
const boundedRoutes = ['nodes', 'node-invitations'];

interface Page {
  items: Record<string, unknown>[];
  nextCursor: string | null;
}

async function read(path: string): Promise<Page> {
  const response = await lab.request('GET', `/api/v1/${path}`, { token: operatorToken });
  expect(response.status).toBe(200);
  return (await response.json()) as Page;
}

it('are paged wherever they can be long', async () => {
  const document = (await (await lab.request('GET', '/api/openapi.json')).json()) as {
    paths: Record<string, { get?: { parameters?: { name: string }[] } }>;
  };
  const paged = Object.entries(document.paths)
    .filter(([, { get }]) => get?.parameters?.some(({ name }) => name === 'cursor'))
    .map(([path]) => path.replace('/api/v1/', ''));
  expect(paged.sort()).toEqual([...pagedRoutes, ...boundedRoutes].sort());
});

it.each([...pagedRoutes, 'webhooks/w7/deliveries'])(
  'of %s come from an index, on every page',
  async (route) => {
    const keyOf = (item: Record<string, unknown>) =>
      String(item.id ?? item.name ?? item.number ?? item.viewerId);
    const seen = new Set<string>();
    const times: number[] = [];
    const from = server.log().length;
    for (let cursor: string | null = ''; cursor !== null; ) {
      const startMs = performance.now();
      const page: Page = await read(`${route}?limit=100${cursor === '' ? '' : `&cursor=${cursor}`}`);
      times.push(performance.now() - startMs);
      for (const item of page.items) seen.add(keyOf(item));
      cursor = page.nextCursor ?? null;
    }
    expect(seen.size).toBeGreaterThanOrEqual(route.endsWith('deliveries') ? ROWS / 50 : ROWS);
    expect(await wholeTablesReadSince(from)).toEqual([]);
    expect(server.log().slice(from)).toMatch(/"Node Type": "(Bitmap )?Index/);

    const largeTimes: number[] = [];
    for (const limit of [1000, 999, 998]) {
      const startMs = performance.now();
      await read(`${route}?limit=${limit}`);
      largeTimes.push(performance.now() - startMs);
    }
    if (isSoak) {
      const show = (values: number[]) => values.map((value) => value.toFixed(1)).join(' ');
      process.stdout.write(
        `${route}: pages of 100, first: ${show(times.slice(0, 3))} ms, slowest: ${show([Math.max(...times)])} ms; of 1000: ${show(largeTimes)} ms\n`,
      );
    }
  },
);

it('go on after the last item, whatever was added and removed meanwhile', async () => {
  const first = await read('streams?limit=2');
  expect(first.items.map(({ name }) => name)).toEqual(['c1', 'c10']);
  await lab.operator.streams.remove('c10');
  await lab.operator.streams.create({ name: 'c0' });
  const second = await read(`streams?limit=2&cursor=${first.nextCursor}`);
  expect(second.items.map(({ name }) => name)).toEqual(['c100', 'c1000']);
  const byAge = await read('assets?limit=3');
  expect(byAge.items.map(({ id }) => id)).toEqual(['a1', 'a2', 'a3']);
  const newest = await read('viewing-tokens?limit=2');
  expect(newest.items.map(({ id }) => id)).toEqual(['t10000', 't9999']);
  const older = await read(`viewing-tokens?limit=2&cursor=${newest.nextCursor}`);
  expect(older.items.map(({ id }) => id)).toEqual(['t9998', 't9997']);
});

it.each([
  'limit=0',
  'limit=1001',
  'limit=x',
  'cursor=x',
  'cursor=W10',
  'cursor=WyJhIiwiYiJd',
  'cursor=bnVsbA',
])('are refused with %s', async (query) => {
  const response = await lab.request('GET', `/api/v1/assets?${query}`, { token: operatorToken });
  expect(response.status).toBe(400);
  expect(await response.json()).toMatchObject({ code: 'REQUEST_INVALID' });
});

it('of the backend are asked for by index, too', async () => {
  // What was changed above is read at the next look for alarms, a second later at most: the whole state, once.
  await sleep(2000);
  const from = server.log().length;
  await lab.operator.assets.get('a77');
  await lab.operator.channels.get('p7');
  await lab.node.reportBackend({
    nodeId: '00000000000000aa',
    destinations: [],
    onAirChannels: [],
    publishingStreams: [],
    activeSources: [],
    inputProblems: [],
    events: [{ id: 'event-1', type: 'publish', at: '2026-11-22T12:00:00.000Z', stream: 'c1' }],
  });
  expect(await wholeTablesReadSince(from)).toEqual([]);
});
