import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import { pino } from 'pino';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { copyToServer, restoreBackup, writeBackup } from '../src/backup.ts';
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
async function openedContents(dataDir: string, databaseUrl?: string): Promise<unknown> {
  const restored = await startLab({
    dataDir,
    databaseUrl,
    nowMs: lab.nowMs,
    isEmbedded: databaseUrl === undefined,
  });
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

it('is made while the coordinator runs, and restores all of it to a data folder', async () => {
  const bytes = Buffer.from(await new Response(await lab.operator.backup()).arrayBuffer());
  writeFileSync(file, bytes);
  const dataDir = newFolder();
  await restoreBackup({ dataDir, databaseUrl: undefined }, file, logger);
  expect(await openedContents(dataDir)).toEqual(before);
  expect(readFileSync(join(dataDir, 'viewing-keys.json'), 'utf8')).toBe(
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
  const dataDir = newFolder();
  await restoreBackup({ dataDir, databaseUrl: undefined }, file, logger);
  const second = join(folder, 'second.gz');
  await writeBackup({ dataDir, databaseUrl: undefined }, second, logger);
  const withoutTime = (path: string) =>
    gunzipSync(readFileSync(path))
      .toString()
      .replace(/"createdAt":"[^"]*"/, '')
      .split('\n')
      .sort();
  expect(withoutTime(second)).toEqual(withoutTime(file));
  expect(statSync(second).mode & 0o777).toBe(0o600);
}, 60_000);

it.runIf(isOnServer)(
  'goes from a folder to a server and back',
  async () => {
    const dataDir = newFolder();
    await restoreBackup({ dataDir, databaseUrl: undefined }, file, logger);
    const databaseUrl = await createServerDatabase('template0');
    const serverDir = newFolder();
    await copyToServer(dataDir, { dataDir: serverDir, databaseUrl }, logger);
    expect(await openedContents(serverDir, databaseUrl)).toEqual(before);
    const again = join(folder, 'of-server.gz');
    await writeBackup({ dataDir: serverDir, databaseUrl }, again, logger);
    const back = newFolder();
    await restoreBackup({ dataDir: back, databaseUrl: undefined }, again, logger);
    expect(await openedContents(back)).toMatchObject({ streams: await lab.operator.streams.list() });
    await expect(copyToServer(dataDir, { dataDir: newFolder(), databaseUrl }, logger)).rejects.toThrow(
      /The database is not empty/,
    );
  },
  60_000,
);

it('is refused where it is none, damaged, cut off, newer, or would write over something', async () => {
  const text = gunzipSync(readFileSync(file)).toString();
  const cases: [content: Buffer, message: RegExp][] = [
    [Buffer.from('not a backup'), /is not a whole backup/],
    [readFileSync(file).subarray(0, 500), /is not a whole backup/],
    [gzipSync('{"some":"json"}\n'), /This is no backup/],
    [gzipSync(text.replace('"version":1', '"version":2')), /a newer Starling reads/],
    [gzipSync(text.replace(/"migration":"[^"]*"/, '"migration":"999-later"')), /Update Starling/],
    [gzipSync(text.split('\n').slice(0, -3).join('\n')), /damaged|ends within/],
    [gzipSync(text.replace('"rowCount":3', '"rowCount":2')), /damaged/],
    [gzipSync(text.replace('"kind":"playout"', '"kind":"cinema"')), /damaged/],
  ];
  const target = isOnServer
    ? { dataDir: newFolder(), databaseUrl: await createServerDatabase('template0') }
    : { dataDir: newFolder(), databaseUrl: undefined };
  const bad = join(folder, 'bad.gz');
  for (const [content, message] of cases) {
    writeFileSync(bad, content);
    await expect(restoreBackup(target, bad, logger)).rejects.toThrow(message);
  }
  await expect(restoreBackup(target, join(folder, 'nosuch.gz'), logger)).rejects.toThrow(/cannot be read/);
  // None of that left anything behind.
  await restoreBackup(target, file, logger);
  await expect(restoreBackup(target, file, logger)).rejects.toThrow(/already|not empty/);
}, 120_000);
