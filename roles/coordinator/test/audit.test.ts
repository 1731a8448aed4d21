/** The audit log: every change, who asked for it and from where, and no secret. */
import { sql } from 'kysely';
import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openEmbeddedPostgres } from '../src/embedded-postgres.ts';
import { unauditedTables } from '../src/migrations.ts';
import { openPostgresServer } from '../src/postgres-server.ts';
import { addReadyAsset, type Lab, logIn, startLab } from './support.ts';

const PASSWORD = 'correct horse battery';

let lab: Lab;
let asset = '';
beforeAll(async () => {
  lab = await startLab();
  asset = await addReadyAsset(lab, 'film', 60);
}, 60_000);
afterAll(() => lab.close());

const newest = async () => (await lab.operator.audit({ limit: '1' })).items[0];

it('says who, what, from where, before and after', async () => {
  await lab.operator.channels.create({ name: 'news', title: 'News', loop: [asset] });
  await lab.operator.accounts.create({ name: 'eve', role: 'editor', password: PASSWORD });
  const headers = { ...(await logIn(lab, 'eve', PASSWORD)), 'x-forwarded-for': '203.0.113.5' };
  const body = { title: 'News at ten' };
  expect((await lab.request('PATCH', '/api/v1/channels/news', { headers, body })).status).toBe(200);
  expect(await newest()).toEqual({
    number: expect.any(Number),
    at: expect.any(String),
    actorKind: 'account',
    actor: 'eve',
    address: '203.0.113.5',
    request: 'PATCH /api/v1/channels/:name',
    noun: 'channels',
    verb: 'update',
    target: 'news',
    before: { title: 'News' },
    after: { title: 'News at ten' },
  });
  const { items } = await lab.operator.audit({ target: 'eve' });
  expect(items.map(({ actor, noun, verb }) => `${actor} ${noun} ${verb}`)).toEqual([
    'eve login succeeded',
    'operator token accounts insert',
  ]);
});

it('holds no change that did not come about', async () => {
  const before = await newest();
  await expect(lab.operator.channels.create({ name: 'news', loop: [asset] })).rejects.toThrow();
  await expect(lab.operator.channels.update('none', { title: 'x' })).rejects.toThrow();
  // Nor what changes nothing, or what the network's machines report.
  await lab.operator.channels.update('news', { title: 'News at ten' });
  await addReadyAsset(lab, 'other', 10).catch(() => undefined);
  const { items } = await lab.operator.audit();
  expect(items[1]?.number).toBe(before?.number);
  expect(items[0]).toMatchObject({ noun: 'assets', verb: 'insert', actorKind: 'operator-token' });
});

describe('every route that changes something', () => {
  it('leaves an entry that names it', async () => {
    const { operator } = lab;
    const { apiToken } = await operator.apiTokens.create({
      name: 'x',
      scopes: ['status:read'],
      expiresInSeconds: 60,
    });
    const { webhook } = await operator.webhooks.create({
      url: 'https://user:hunter2@example.org/?key=hunter2',
    });
    const { viewingToken } = await operator.viewingTokens.create({ channels: null, expiresInSeconds: 60 });
    const folder = await operator.library.watch({ path: '/videos' });
    const queued = await operator.assets.create({ source: '/videos/a.mp4' });
    const steps: Record<string, () => Promise<unknown>> = {
      'POST /api/v1/assets/:id/cancel assets update': () => operator.assets.cancel(queued.id),
      'POST /api/v1/assets/:id/retry assets update': () => operator.assets.retry(queued.id),
      'DELETE /api/v1/assets/:id assets delete': () => operator.assets.remove(queued.id),
      'PATCH /api/v1/library/settings settings insert': () =>
        operator.library.changeSettings({ scalesUp: false }),
      'DELETE /api/v1/library/folders/:id watched_folders delete': () => operator.library.unwatch(folder.id),
      'POST /api/v1/channels channels insert': () => operator.channels.create({ name: 'tmp', loop: [asset] }),
      'PUT /api/v1/channels/:name/schedule schedules update': () =>
        operator.schedules.set('tmp', { timeZone: 'UTC', filler: { items: ['other'] }, programmes: [] }),
      'POST /api/v1/streams streams insert': () => operator.streams.create({ name: 'cam' }),
      'PUT /api/v1/channels/:name/sources channels update': () =>
        operator.channels.setSources('tmp', { primary: 'cam', backup: null, fallback: 'slate' }),
      'POST /api/v1/channels/:name/source channels update': () =>
        operator.channels.chooseSource('tmp', 'slate'),
      'DELETE /api/v1/channels/:name channels delete': () => operator.channels.remove('tmp'),
      'POST /api/v1/streams/:name/rotate-key streams update': () => operator.streams.rotateKey('cam'),
      'PATCH /api/v1/streams/:name streams update': () => operator.streams.update('cam', { owner: 'eve' }),
      'DELETE /api/v1/streams/:name streams delete': () => operator.streams.remove('cam'),
      'DELETE /api/v1/webhooks/:id webhooks delete': () => operator.webhooks.remove(webhook.id),
      'DELETE /api/v1/viewing-tokens/:id viewing_tokens update': () =>
        operator.viewingTokens.revoke(viewingToken.id),
      'DELETE /api/v1/api-tokens/:id api_tokens update': () => operator.apiTokens.revoke(apiToken.id),
      'PATCH /api/v1/accounts/:name accounts update': () =>
        operator.accounts.update('eve', { role: 'streamer' }),
      'POST /api/v1/accounts/:name/password accounts update': () => operator.accounts.resetPassword('eve'),
      'DELETE /api/v1/accounts/:name accounts delete': () => operator.accounts.remove('eve'),
    };
    for (const [expected, step] of Object.entries(steps)) {
      const before = (await newest())?.number ?? 0;
      await step();
      const { items } = await operator.audit();
      const fresh = items.filter(({ number }) => number > before);
      expect(fresh.map(({ request, noun, verb }) => `${request} ${noun} ${verb}`)).toContain(expected);
    }
    const { items } = await operator.audit({ limit: '500' });
    for (const [noun, verb] of [
      ['api_tokens', 'insert'],
      ['webhooks', 'insert'],
      ['viewing_tokens', 'insert'],
      ['watched_folders', 'insert'],
    ])
      expect(items.some((entry) => entry.noun === noun && entry.verb === verb)).toBe(true);
  });

  it('leaves out every secret', async () => {
    const { key } = await lab.operator.streams.create({
      name: 'srt',
      input: { type: 'srt-listener', port: 9000 },
    });
    const { secret } = await lab.operator.webhooks.create({ url: 'https://example.org/' });
    const { password } = await lab.operator.accounts.create({ name: 'secretive', role: 'viewer' });
    const text = JSON.stringify((await lab.operator.audit({ limit: '500' })).items);
    expect(text).toContain('"(secret)"');
    for (const hidden of [key ?? '', secret ?? '', password ?? '', 'argon2id', 'hunter2', PASSWORD])
      expect(text.includes(hidden)).toBe(false);
  });
});

describe('pages', () => {
  it('go through everything once, newest first, while more is added', async () => {
    const seen: number[] = [];
    let cursor: string | null = '';
    while (cursor !== null) {
      const page = await lab.operator.audit({ limit: '7', ...(cursor === '' ? {} : { cursor }) });
      seen.push(...page.items.map(({ number }) => number));
      cursor = page.nextCursor;
      await lab.operator.channels.update('news', { title: `News ${seen.length}` });
    }
    expect(seen).toEqual([...seen].sort((a, b) => b - a));
    expect(new Set(seen).size).toBe(seen.length);
    expect(seen.at(-1)).toBe(1);
  });

  it('show what is asked for', async () => {
    const channels = await lab.operator.audit({ noun: 'channels', target: 'news', actor: 'eve' });
    expect(channels.items.map(({ after }) => after)).toEqual([{ title: 'News at ten' }]);
    expect((await lab.operator.audit({ since: '2100-01-01T00:00:00Z' })).items).toEqual([]);
    expect((await lab.operator.audit({ until: '2000-01-01T00:00:00Z' })).items).toEqual([]);
    await expect(lab.operator.audit({ cursor: "1' or 1=1" })).rejects.toMatchObject({ status: 400 });
  });
});

it('is only ever added to, and watches every table', async () => {
  const { dataDir, databaseUrl } = lab;
  await lab.coordinator.close();
  const logger = pino({ level: 'silent' });
  const { kysely, close } = await (databaseUrl === undefined
    ? openEmbeddedPostgres(`${dataDir}/db`, logger)
    : openPostgresServer(databaseUrl, logger));
  try {
    await expect(kysely.deleteFrom('audit_entries').execute()).rejects.toThrow('only ever added to');
    await expect(sql`update audit_entries set actor = 'nobody'`.execute(kysely)).rejects.toThrow(
      'only ever added to',
    );
    // What is older than it has to be kept may go.
    await sql`
      insert into audit_entries (at, actor_kind, actor, noun, verb, target)
      values (now() - interval '401 days', 'system', 'x', 'x', 'x', 'old')`.execute(kysely);
    await kysely.deleteFrom('audit_entries').where('target', '=', 'old').execute();
    const { rows } = await sql<{ name: string }>`
      select relname as name from pg_class
      where relkind = 'r' and relnamespace = 'public'::regnamespace and relname not like 'kysely%'
        and not exists (select from pg_trigger where tgrelid = pg_class.oid and tgname = 'audit')
      order by relname`.execute(kysely);
    expect(rows.map(({ name }) => name)).toEqual(unauditedTables);
  } finally {
    await close();
    lab = await startLab({ dataDir, databaseUrl });
  }
});
