import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { BackendState, FrontendState } from '@starling/model/entities';
import { openSecret, rotatedSecretFile, type Secret } from '@starling/model/secret';
import { sql } from 'kysely';
import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Changes } from '../../src/changes.ts';
import { openPostgresServer } from '../../src/postgres-server.ts';
import { ViewingKeys } from '../../src/viewing-keys.ts';
import {
  addReadyAsset,
  createServerDatabase,
  type Lab,
  nodeToken,
  startLab,
  writtenBytes,
} from '../support.ts';
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

describe('coordinators of a group', () => {
  const [A, B] = ['a'.repeat(16), 'b'.repeat(16)] as const;
  const wish = { name: 'live/cam', maxHolders: 1, fencingToken: null };
  let databaseUrl: string | undefined;
  const labs: Lab[] = [];
  const start = async () => {
    const lab = await startLab({ databaseUrl, isOfGroup: true });
    labs.push(lab);
    return lab;
  };
  beforeAll(async () => {
    databaseUrl = await createServerDatabase();
    await Promise.all([start(), start()]);
  }, 60_000);
  afterAll(async () => {
    for (const lab of labs) await lab.close();
  });
  const lab = (index: number): Lab => labs[index] as Lab;
  const ask = async (index: number, nodeId: string, fencingToken: number | null = null) => {
    const { leases } = await lab(index).node.renewLeases(nodeId, [{ ...wish, fencingToken }]);
    return leases[0];
  };

  it('grant a lease once, whomever a backend asks, and say who has it', async () => {
    await expect.poll(async () => (await ask(0, A))?.fencingToken, { timeout: 10_000 }).not.toBeNull();
    const held = await ask(0, A);
    expect(await ask(1, B)).toMatchObject({ fencingToken: null, holderIds: [A] });
    // The holder may ask another coordinator, and one that has just started.
    expect(await ask(1, A, held?.fencingToken)).toMatchObject({ fencingToken: held?.fencingToken });
    await start();
    expect(await ask(2, B)).toMatchObject({ fencingToken: null, holderIds: [A] });
    expect(await ask(2, A, held?.fencingToken)).toMatchObject({ fencingToken: held?.fencingToken });
    await lab(1).node.releaseLeases(A);
    const next = await ask(0, B);
    expect(next?.fencingToken).toBeGreaterThan(held?.fencingToken ?? Number.POSITIVE_INFINITY);
    expect(await ask(0, A)).toMatchObject({ fencingToken: null, holderIds: [B] });
  });

  it('grant a lease once when many ask at the same time', async () => {
    const nodeIds = Array.from({ length: 12 }, (_, index) => index.toString(16).repeat(16));
    await expect
      .poll(async () => (await lab(0).node.renewLeases(A, [{ ...wish, name: 'live/stage' }])).leases.length)
      .toBe(1);
    await lab(0).node.releaseLeases(A);
    const answers = await Promise.all(
      nodeIds.map((nodeId, index) =>
        lab(index % 3).node.renewLeases(nodeId, [{ ...wish, name: 'live/stage' }]),
      ),
    );
    const granted = answers.filter(({ leases }) => leases[0]?.fencingToken !== null);
    expect(granted).toHaveLength(1);
  });

  it('sign viewing tokens with the same keys, also after a change of key, and keep them sealed', async () => {
    const statesOf = async (index: number) => {
      const stop = new AbortController();
      let state: FrontendState | undefined;
      await lab(index).node.watchFrontendState((first) => {
        state = first;
        stop.abort();
      }, stop.signal);
      return state;
    };
    const id = await addReadyAsset(lab(0), 'feature', 10);
    await lab(0).operator.channels.create({ name: 'closed', loop: [id], isPrivate: true });
    const shown = async (index: number) => {
      const { viewingTokenKeys, channels } = (await statesOf(index)) ?? {};
      return [viewingTokenKeys, channels?.map(({ nameKey }) => nameKey)];
    };
    const before = await shown(0);
    await expect.poll(() => shown(1)).toEqual(before);
    await lab(1).operator.viewingTokens.create({ channels: null, expiresInSeconds: 600 });
    await lab(1).operator.viewingTokens.rotateKey();
    const after = await shown(1);
    expect(after).not.toEqual(before);
    await expect.poll(() => shown(0)).toEqual(after);
    await expect.poll(() => shown(2)).toEqual(after);
    const written = (await writtenBytes(lab(0))).toString();
    expect(written).toContain('viewing-keys');
    expect(written).not.toContain('nameSecret');
    expect(lab(0).log.join('')).not.toContain('nameSecret');
  });

  it('keep the keys of viewing tokens when the token of the group is replaced, and open them with no other', async () => {
    const file = join(mkdtempSync(join(tmpdir(), 'starling-group-')), 'node.token');
    const replaceWith = (token: string, old: string) =>
      writeFileSync(file, rotatedSecretFile(`${old}\n`, token, Date.now() + 3_600_000, Date.now()));
    const keysOf = async (secret: Secret) => {
      const opened = await openPostgresServer(databaseUrl ?? '', pino({ level: 'silent' }));
      try {
        const keys = await ViewingKeys.openShared(opened.kysely, new Changes(opened), openSecret(secret));
        return (await keys.read()).publicKeys;
      } finally {
        await opened.close();
      }
    };
    const before = await keysOf(nodeToken);
    await expect(keysOf('another')).rejects.toThrow('sealed with another node token');
    replaceWith('second', nodeToken);
    expect(await keysOf({ file })).toEqual(before);
    // Sealed anew: the first one is not needed any more, and is of no use.
    expect(await keysOf('second')).toEqual(before);
    await expect(keysOf(nodeToken)).rejects.toThrow('sealed with another node token');
    replaceWith(nodeToken, 'second');
    expect(await keysOf({ file })).toEqual(before);
    rmSync(dirname(file), { recursive: true });
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
