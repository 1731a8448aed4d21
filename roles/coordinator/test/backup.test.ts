import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import { pino } from 'pino';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { copyToServer, restoreBackup, type Storage, writeBackup } from '../src/backup.ts';
import { addReadyAsset, createServerDatabase, type Lab, startLab } from './support.ts';

const logger = pino({ level: 'silent' });
const folder = mkdtempSync(join(tmpdir(), 'starling-backup-'));
const file = join(folder, 'starling.backup.gz');
const newFolder = () => mkdtempSync(join(folder, 'data-'));
const isOnServer = inject('postgresUrl') !== undefined;
// Line ends to some, and what JSON and SQL escape.
const TITLE = 'a\u2028b\u2029c \\ " \' {} \u{1F3A6}';

let lab: Lab;
let before: unknown;
beforeAll(async () => {
  lab = await startLab();
  const id = await addReadyAsset(lab, 'film', 10);
  await lab.operator.assets.create({ source: '/videos/queued.mp4' });
  await lab.operator.channels.create({ name: 'films', title: TITLE, loop: [id, id] });
  await lab.operator.streams.create({ name: 'cam' });
  await lab.operator.streams.create({ name: 'srt', input: { type: 'srt-listener', port: 9999 } });
  await lab.operator.viewingTokens.create({ channels: ['films'], expiresInSeconds: 3600 });
  await lab.operator.webhooks.create({ url: 'http://127.0.0.1:1/' });
  await lab.operator.library.watch({ path: '/videos' });
  before = await contentsOf(lab);
}, 60_000);
afterAll(async () => {
  await lab.close();
  rmSync(folder, { recursive: true, force: true });
});

async function contentsOf({ operator, node }: Lab) {
  const stop = new AbortController();
  let state: unknown;
  await node.watchBackendState((first) => {
    state = first;
    stop.abort();
  }, stop.signal);
  return {
    state,
    assets: await operator.assets.list(),
    channels: await operator.channels.list(),
    streams: await operator.streams.list(),
    tokens: await operator.viewingTokens.list(),
    webhooks: await operator.webhooks.list(),
    schedule: await operator.schedules.get('films'),
  };
}

/** What a coordinator on this storage says, and that it takes changes. */
async function openedContents({ dataDir, databaseUrl }: Storage): Promise<unknown> {
  const restored = await startLab({ dataDir, databaseUrl, nowMs: lab.nowMs });
  try {
    const contents = await contentsOf(restored);
    await restored.operator.channels.update('films', { group: 'after' });
    await restored.node.reportBackend({
      nodeId: '00000000000000aa',
      destinations: [],
      onAirChannels: [],
      publishingStreams: [],
      activeSources: [],
      inputProblems: [],
      events: [
        {
          type: 'publish',
          id: 'e1',
          at: '2026-11-22T12:00:00.000Z',
          stream: 'cam',
        },
      ],
    });
    return contents;
  } finally {
    await restored.coordinator.close();
  }
}

/** Where the tests run: a folder, or an empty database on the server. */
async function emptyStorage(): Promise<Storage> {
  return {
    dataDir: newFolder(),
    databaseUrl: isOnServer ? await createServerDatabase('template0') : undefined,
  };
}

const linesWithoutTime = (path: string) =>
  gunzipSync(readFileSync(path))
    .toString()
    .replace(/"createdAt":"[^"]*"/, '')
    .split('\n')
    .sort();

it('is made while the coordinator runs, and brings all of it back', async () => {
  const bytes = Buffer.from(await new Response(await lab.operator.backup()).arrayBuffer());
  writeFileSync(file, bytes);
  const storage = await emptyStorage();
  await restoreBackup(storage, file, logger);
  expect(await openedContents(storage)).toEqual(before);
  expect(readFileSync(join(storage.dataDir, 'viewing-keys.json'), 'utf8')).toBe(
    readFileSync(join(lab.dataDir, 'viewing-keys.json'), 'utf8'),
  );
}, 60_000);

it('can be read with zcat, and begins with what it is', () => {
  const [header, ...lines] = execFileSync('zcat', [file], { encoding: 'utf8' }).trimEnd().split('\n');
  expect(JSON.parse(header ?? '')).toMatchObject({ format: 'starling-backup', version: 1 });
  expect(lines).toContain('{"table":"channels","rowCount":3}');
  expect(lines.at(-1)).toBe('{"end":true}');
});

it('of a stopped coordinator is the same, and only its account may read it', async () => {
  const storage = await emptyStorage();
  await restoreBackup(storage, file, logger);
  const second = join(folder, 'second.gz');
  await writeBackup(storage, second, logger);
  expect(linesWithoutTime(second)).toEqual(linesWithoutTime(file));
  expect(statSync(second).mode & 0o777).toBe(0o600);
}, 60_000);

it.runIf(isOnServer)(
  'goes from a folder to a server',
  async () => {
    const dataDir = newFolder();
    await restoreBackup({ dataDir, databaseUrl: undefined }, file, logger);
    const storage = await emptyStorage();
    const ofServer = join(folder, 'of-server.gz');
    await expect(writeBackup(storage, ofServer, logger)).rejects.toThrow(/has not used this database/);
    await copyToServer(dataDir, storage, logger);
    await writeBackup(storage, ofServer, logger);
    expect(linesWithoutTime(ofServer)).toEqual(linesWithoutTime(file));
    expect(await openedContents(storage)).toEqual(before);
    await expect(copyToServer(dataDir, { ...storage, dataDir: newFolder() }, logger)).rejects.toThrow(
      /The database is not empty/,
    );
  },
  60_000,
);

it('is refused where it is none, damaged, cut off, newer, or would write over something', async () => {
  const text = gunzipSync(readFileSync(file)).toString();
  const bad = join(folder, 'bad.gz');
  const refused: [content: Buffer, message: RegExp][] = [
    [Buffer.from('not a backup'), /is not a whole backup/],
    [gzipSync('{"some":"json"}\n'), /This is no backup/],
    [gzipSync(text.replace('"version":1', '"version":2')), /a newer Starling reads/],
    [gzipSync(text.replace(/"migration":"[^"]*"/, '"migration":"999-later"')), /Update Starling/],
  ];
  const damaged: [content: Buffer, message: RegExp][] = [
    [gzipSync(text.replace('"kind":"playout"', '"kind":"cinema"')), /damaged/],
    [readFileSync(file).subarray(0, 500), /is not a whole backup/],
    [gzipSync(text.split('\n').slice(0, -3).join('\n')), /damaged|ends within/],
    [gzipSync(text.replace('"rowCount":3', '"rowCount":2')), /damaged/],
  ];
  const target = await emptyStorage();
  // A folder is made anew for each of these, which takes seconds.
  for (const [content, message] of [...refused, ...(isOnServer ? damaged : damaged.slice(0, 1))]) {
    writeFileSync(bad, content);
    await expect(restoreBackup(target, bad, logger)).rejects.toThrow(message);
  }
  await expect(restoreBackup(target, join(folder, 'nosuch.gz'), logger)).rejects.toThrow(/cannot be read/);
  // None of that left anything behind.
  await restoreBackup(target, file, logger);
  await expect(restoreBackup(target, file, logger)).rejects.toThrow(/already|not empty/);
}, 120_000);
