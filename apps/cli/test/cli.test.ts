/** The command line from the outside: arguments in, text and exit code out, against a real coordinator. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startCoordinator } from '@starling/coordinator/main';
import { CoordinatorClient } from '@starling/model/client';
import type { ImportReport } from '@starling/model/entities';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { run } from '../src/run.ts';

const dataDir = mkdtempSync(join(tmpdir(), 'starling-cli-'));
const facts = {
  contentHash: 'a'.repeat(64),
  configHash: 'b'.repeat(64),
  durationTicks: 3723 * 90_000,
  segmentCount: 1862,
  sizeBytes: 1_234_567_890,
  widthPx: 1920,
  heightPx: 1080,
  frameRate: 25,
  videoTracks: [
    { widthPx: 1920, heightPx: 1080, bitrateBps: 4_000_000 },
    { widthPx: 1280, heightPx: 720, bitrateBps: 2_000_000 },
  ],
  audioTracks: [
    { language: 'en', loudnessLufs: -20, gainDb: -3 },
    { language: null, loudnessLufs: null, gainDb: 0 },
  ],
  subtitles: [],
  hasPictures: true,
};
const closers: (() => Promise<unknown>)[] = [];

/** What the stand-in for a backend reports on an import, step by step. */
function reportsOn(source: string): ImportReport[] {
  const importing: ImportReport = { state: 'importing', progress: 0.5 };
  if (source.endsWith('endless.mp4')) return [importing];
  if (source.endsWith('broken.mp4'))
    return [importing, { state: 'failed', error: 'The file holds no picture.' }];
  return [importing, { state: 'ready', facts }];
}

beforeAll(async () => {
  const logger = pino({ level: 'silent' });
  writeFileSync(join(dataDir, 'operator.token'), 'operator\n', { mode: 0o600 });
  const coordinator = await startCoordinator({
    registry: new Registry(),
    dataDir,
    operatorToken: { file: join(dataDir, 'operator.token') },
    nodeToken: 'node',
    webDir: undefined,
    logger,
  });
  const { port } = await coordinator.listen('127.0.0.1', 0);
  const apiUrl = `http://127.0.0.1:${port}`;
  writeUpFile(process.pid, apiUrl);

  const backend = new CoordinatorClient({ baseUrl: apiUrl, token: 'node' });
  const stop = new AbortController();
  const begun = new Set<string>();
  const watching = backend.watchBackendState((state) => {
    for (const { assetId, source } of state.imports) {
      if (begun.has(assetId)) continue;
      begun.add(assetId);
      void (async () => {
        for (const report of reportsOn(source)) await backend.reportImport(assetId, report);
      })();
    }
  }, stop.signal);
  closers.push(
    async () => stop.abort(),
    () => watching,
    () => coordinator.close(),
  );
  for (const name of ['film.mp4', 'endless.mp4', 'broken.mp4', 'other.mp4'])
    writeFileSync(join(dataDir, name), 'x');
}, 60_000);

afterAll(async () => {
  for (const close of closers) await close();
  rmSync(dataDir, { recursive: true, force: true });
}, 30_000);

function writeUpFile(pid: number, apiUrl: string, folder = dataDir): void {
  const up = { pid, apiUrl, rtmpUrl: 'rtmp://localhost:1935/live', startedAt: new Date().toISOString() };
  writeFileSync(join(folder, 'up.json'), JSON.stringify(up));
}

interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

async function starling(
  args: readonly string[],
  options: { env?: Record<string, string>; isTTY?: boolean; interruptAfterMs?: number; stdin?: string } = {},
): Promise<Outcome> {
  let stdout = '';
  let stderr = '';
  const code = await run(args, {
    stdout: { write: (text) => (stdout += text) },
    stderr: { write: (text) => (stderr += text), isTTY: options.isTTY, columns: 100 },
    env: { STARLING_DATA: dataDir, ...options.env },
    cwd: dataDir,
    readStdin: async () => options.stdin ?? '',
    readLine: async () => options.stdin ?? '',
    readSecret: async () => options.stdin ?? '',
    onInterrupt(listener) {
      const timer =
        options.interruptAfterMs === undefined ? undefined : setTimeout(listener, options.interruptAfterMs);
      return () => clearTimeout(timer);
    },
  });
  return { code, stdout, stderr };
}

describe('help and misuse', () => {
  const commands = [
    ['up'],
    ['media', 'import'],
    ['media', 'ls'],
    ['media', 'rm'],
    ['media', 'cancel'],
    ['media', 'retry'],
    ['media', 'folders'],
    ['media', 'unwatch'],
    ['media', 'settings'],
    ['channel', 'add'],
    ['channel', 'set'],
    ['channel', 'ls'],
    ['channel', 'set'],
    ['channel', 'source'],
    ['channel', 'rm'],
    ['channel', 'set'],
    ['channel', 'schedule', 'show'],
    ['channel', 'schedule', 'set'],
    ['channel', 'schedule', 'import'],
    ['channel', 'schedule', 'export'],
    ['channel', 'schedule', 'preview'],
    ['node', 'invite'],
    ['node', 'ls'],
    ['node', 'drain'],
    ['node', 'cordon'],
    ['node', 'uncordon'],
    ['node', 'rm'],
    ['node', 'restart'],
    ['node', 'invitation', 'ls'],
    ['node', 'invitation', 'rm'],
    ['frontend'],
    ['backend'],
    ['balancer'],
    ['stream', 'add'],
    ['stream', 'ls'],
    ['stream', 'rm'],
    ['stream', 'rotate-key'],
    ['stream', 'give'],
    ['destination', 'add'],
    ['destination', 'ls'],
    ['destination', 'enable'],
    ['destination', 'disable'],
    ['destination', 'rm'],
    ['token', 'create'],
    ['token', 'ls'],
    ['token', 'revoke'],
    ['token', 'rotate-key'],
    ['viewers', 'ls'],
    ['viewers', 'kick'],
    ['webhook', 'add'],
    ['webhook', 'ls'],
    ['webhook', 'rm'],
    ['webhook', 'log'],
    ['webhook', 'rotate-secret'],
    ['account', 'add'],
    ['account', 'logout'],
    ['account', 'ls'],
    ['account', 'set'],
    ['account', 'password'],
    ['account', 'rm'],
    ['api-token', 'create'],
    ['api-token', 'ls'],
    ['api-token', 'revoke'],
    ['audit'],
    ['audit-log'],
    ['cost'],
    ['doctor'],
    ['pause'],
    ['resume'],
    ['status'],
    ['scale'],
    ['schedule', 'set'],
    ['schedule', 'ls'],
    ['schedule', 'override'],
    ['schedule', 'rm'],
    ['schedule', 'sync'],
    ['infra', 'deploy'],
    ['infra', 'diff'],
    ['infra', 'destroy'],
  ];

  it.each(commands.map((words) => [words.join(' '), words]))(
    '%s has help with examples',
    async (_name, words) => {
      const { code, stdout } = await starling([...words, '--help']);
      expect(code).toBe(0);
      expect(stdout).toContain(`$ starling ${words.join(' ')}`);
      expect(stdout).toContain('--json');
      expect(stdout).toContain('--data <dir>');
    },
  );

  it('shows all commands', async () => {
    const { code, stdout } = await starling(['--help']);
    expect(code).toBe(0);
    for (const [name = ''] of commands) expect(stdout).toMatch(new RegExp(`^ +${name} `, 'm'));
  });

  it.each([
    [[]],
    [['nothing']],
    [['media']],
    [['media', 'import']],
    [['channel', 'add', 'films']],
    [['channel', 'set', 'films']],
    [['channel', 'set', 'films', '--number', '0']],
    [['channel', 'schedule', 'preview', 'films', '--hours', '0']],
    [['channel', 'schedule', 'preview', 'films', '--from', 'soon']],
    [['channel', 'schedule', 'export', 'films', '--format', 'xls']],
    [['channel', 'schedule', 'import', 'films', 'x.yaml', '--effective', 'soon']],
    [['stream', 'add', 'cam', '--colour', 'red']],
    [['channel', 'set', 'films', '--private', '--public']],
    [['channel', 'set', 'films', '--max-viewers', 'many']],
    [['token', 'create', '--channel', 'films']],
    [['token', 'create', '--expires', '1h']],
    [['token', 'create', '--channel', 'films', '--all-channels', '--expires', '1h']],
    [['token', 'create', '--channel', 'films', '--expires', 'tomorrow']],
    [['token', 'create', '--channel', 'films', '--expires', '0h']],
    [['token', 'create', '--channel', 'films', '--expires', '1h', '--max-viewers', '0']],
    [['up', '--http', 'eighty']],
    [['up', '--rtmp', '65536']],
    [['up', '--workers', '0']],
    [['backend', '--config', 'starling.yaml', '--workers', '2']],
  ])('exits 2 on %j', async (args) => {
    const { code, stdout, stderr } = await starling(args);
    expect(code).toBe(2);
    expect(stdout).toBe('');
    expect(stderr).not.toBe('');
  });
});

describe('without a running Starling', () => {
  const sentence = (folder: string) => `Starling is not running on ${folder}. Start it with: npm start\n`;

  it('says so when there never was one', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'starling-cli-empty-'));
    expect(await starling(['media', 'ls', '--data', folder])).toEqual({
      code: 1,
      stdout: '',
      stderr: sentence(folder),
    });
  });

  it('says so when the process is gone, and when nothing answers', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'starling-cli-dead-'));
    writeFileSync(join(folder, 'operator.token'), 'operator');
    // Linux gives out no process id above 2^22.
    writeUpFile(2 ** 30, 'http://127.0.0.1:9', folder);
    expect(await starling(['--data', folder, 'stream', 'ls'])).toMatchObject({
      code: 1,
      stderr: sentence(folder),
    });
    writeUpFile(process.pid, 'http://127.0.0.1:9', folder);
    expect(await starling(['--data', folder, 'stream', 'ls'])).toMatchObject({
      code: 1,
      stderr: sentence(folder),
    });
    writeFileSync(join(folder, 'up.json'), '{"pid":');
    expect(await starling(['--data', folder, 'stream', 'ls'])).toMatchObject({
      code: 1,
      stderr: sentence(folder),
    });
  });
});

describe('media', () => {
  it('imports files, one id a line, and lists them', async () => {
    const { code, stdout, stderr } = await starling([
      'media',
      'import',
      'film.mp4',
      join(dataDir, 'other.mp4'),
    ]);
    expect(stderr).toBe('');
    expect(code).toBe(0);
    const ids = stdout.trimEnd().split('\n');
    expect(ids).toHaveLength(2);
    const list = await starling(['media', 'ls']);
    expect(list.stdout.split('\n')[0]).toMatch(/^ID +NAME +STATE +LENGTH +PICTURE +SOUND +SIZE +NOTE$/);
    expect(list.stdout).toMatch(
      new RegExp(`^${ids[0]} +film +ready +1:02:03 +1080p 720p, 25/s +en - +1\\.23 GB$`, 'm'),
    );
    const json: { items: { id: string }[] } = JSON.parse((await starling(['media', 'ls', '--json'])).stdout);
    expect(json.items.map(({ id }) => id)).toEqual(expect.arrayContaining(ids));
  });

  it('draws a bar on a terminal, and wipes it', async () => {
    const { stderr } = await starling(['media', 'import', 'film.mp4', '--name', 'barred'], { isTTY: true });
    expect(stderr).toMatch(/\[[#-]{30}\] +\d+ % {2}barred/);
    expect(stderr.endsWith('\r\u001b[K')).toBe(true);
  });

  it('says why an import failed, and still prints the others', async () => {
    const { code, stdout, stderr } = await starling(['media', 'import', 'broken.mp4', 'film.mp4']);
    expect(code).toBe(1);
    expect(stderr).toBe('broken: The file holds no picture.\n');
    expect(stdout.trimEnd().split('\n')).toHaveLength(1);
  });

  it('leaves an import running when the user stops waiting', async () => {
    const { code, stdout, stderr } = await starling(['media', 'import', 'endless.mp4'], {
      interruptAfterMs: 500,
    });
    expect(code).toBe(1);
    expect(stdout).toBe('');
    expect(stderr).toBe('The import goes on in Starling. See how far it is with: starling media ls\n');
    expect((await starling(['media', 'ls'])).stdout).toMatch(/endless +importing 50 %/);
  });

  it('looks at the files before it asks for anything', async () => {
    const before = (await starling(['media', 'ls'])).stdout;
    expect(await starling(['media', 'import', 'film.mp4', 'gone.mp4'])).toMatchObject({
      code: 1,
      stderr: 'There is no file gone.mp4.\n',
    });
    mkdirSync(join(dataDir, 'empty'));
    expect(await starling(['media', 'import', 'empty'])).toMatchObject({
      code: 1,
      stderr: 'There are no video or sound files in empty.\n',
    });
    expect((await starling(['media', 'ls'])).stdout).toBe(before);
  });
});

describe('media of other sources', () => {
  it('imports the media files of a folder, and of those in it when asked', async () => {
    const folder = join(dataDir, 'season');
    mkdirSync(join(folder, 'extras'), { recursive: true });
    for (const name of ['2.mkv', '1.mkv', 'cover.jpg', '.hidden.mkv', 'extras/3.mkv']) {
      writeFileSync(join(folder, name), 'x');
    }
    const sourcesOf = async (...flags: string[]) => {
      const { stdout } = await starling(['--json', 'media', 'import', 'season', ...flags]);
      const { items }: { items: { source: string }[] } = JSON.parse(stdout);
      return items.map(({ source }) => source);
    };
    expect(await sourcesOf()).toEqual([join(folder, '1.mkv'), join(folder, '2.mkv')]);
    expect(await sourcesOf('--recursive')).toContain(join(folder, 'extras', '3.mkv'));
  });

  it('imports a URL, named by its last part', async () => {
    const url = 'https://example.org/films/The%20Film.mp4?token=secret';
    const { stdout } = await starling(['--json', 'media', 'import', url]);
    expect(JSON.parse(stdout).items).toMatchObject([{ source: url, name: 'The Film', state: 'ready' }]);
    const refused = await starling(['media', 'import', 'https://me:secret@example.org/film.mp4']);
    expect(refused.code).toBe(1);
    expect(refused.stderr).toMatch(/password/);
  });

  it('watches a folder until told not to', async () => {
    const added = await starling(['media', 'import', '--watch', '--recursive', 'season']);
    const id = added.stdout.trim();
    expect((await starling(['media', 'folders'])).stdout).toMatch(
      new RegExp(`^${id} +${join(dataDir, 'season')} +yes$`, 'm'),
    );
    expect((await starling(['media', 'import', '--watch', 'season'])).stderr).toMatch(/watched already/);
    expect((await starling(['media', 'import', '--watch', 'film.mp4'])).stderr).toMatch(/not a folder/);
    expect(await starling(['media', 'unwatch', id])).toEqual({ code: 0, stdout: '', stderr: '' });
    expect((await starling(['media', 'folders'])).stdout).toMatch(/^No folder is watched/);
  });

  it('cancels an import, and imports again', async () => {
    const list = async () => JSON.parse((await starling(['media', 'ls', '--json'])).stdout).items;
    const { id } = (await list()).find((asset: { name: string }) => asset.name === 'endless');
    expect((await starling(['media', 'retry', id])).stderr).toMatch(/has not ended/);
    expect(await starling(['media', 'cancel', id])).toEqual({ code: 0, stdout: '', stderr: '' });
    expect((await starling(['media', 'ls'])).stdout).toMatch(/endless +cancelled/);
    expect((await starling(['media', 'retry', id])).code).toBe(0);
    expect((await starling(['media', 'ls'])).stdout).toMatch(/endless +queued/);
    expect((await starling(['media', 'cancel', id])).code).toBe(0);
  });

  it('shows and changes the settings', async () => {
    expect((await starling(['media', 'settings'])).stdout).toMatch(/--ladder +1080p,720p,480p\n/);
    const flags = [
      '--ladder',
      '720p,360p',
      '--max-size',
      '1.5TB',
      '--languages',
      'de,en',
      '--scale-up',
      'no',
    ];
    const { stdout } = await starling(['--json', 'media', 'settings', ...flags]);
    expect(JSON.parse(stdout)).toEqual({
      ladder: ['720p', '360p'],
      scalesUp: false,
      languages: ['de', 'en'],
      maxStoreBytes: 1_500_000_000_000,
      maxSourceHours: 8,
      allowsPrivateUrls: false,
    });
    expect((await starling(['media', 'settings', '--ladder', '719p'])).code).toBe(1);
    expect((await starling(['media', 'settings', '--max-size', 'much'])).code).toBe(2);
  });
});

describe('channel', () => {
  it('adds, lists and removes, and names what stands in the way', async () => {
    const asset = (await starling(['media', 'import', 'film.mp4', '--name', 'feature'])).stdout.trim();
    const added = await starling([
      'channel',
      'add',
      'films',
      '--loop',
      `feature,${asset}`,
      '--title',
      'All Films',
    ]);
    expect(added).toMatchObject({ code: 0, stderr: '' });
    expect(added.stdout).toMatch(/\/watch\/films\n$/);
    expect((await starling(['channel', 'ls'])).stdout).toMatch(
      /^1 +films +All Films +playout +public +no +0$/m,
    );
    const { items } = JSON.parse((await starling(['channel', 'ls', '--json'])).stdout);
    expect(items).toMatchObject([{ name: 'films', isOnAir: false, runs: [{ loop: [asset, asset] }] }]);

    const inUse = await starling(['media', 'rm', asset]);
    expect(inUse.code).toBe(1);
    expect(inUse.stderr).toMatch(/films/);
    expect(await starling(['channel', 'rm', 'films'])).toEqual({ code: 0, stdout: '', stderr: '' });
    expect(await starling(['media', 'rm', asset])).toEqual({ code: 0, stdout: '', stderr: '' });
    expect(await starling(['channel', 'rm', 'films'])).toMatchObject({
      code: 1,
      stderr: 'There is no channel films.\n',
    });
  });
});

describe('channel schedule', { timeout: 60_000 }, () => {
  it('goes into files and out again, and says what comes', async () => {
    await starling(['media', 'import', 'film.mp4', '--name', 'feature-film']);
    await starling(['media', 'import', 'other.mp4', '--name', 'ident']);
    await starling(['channel', 'add', 'tv', '--loop', 'ident']);
    const shown = await starling(['channel', 'schedule', 'show', 'tv']);
    expect(shown).toEqual({
      code: 0,
      stderr: '',
      stdout: 'timeZone: UTC\nfiller:\n  items:\n    - ident\nprogrammes: []\n',
    });
    writeFileSync(
      join(dataDir, 'week.yaml'),
      [
        'timeZone: UTC',
        'filler: { items: [ident] }',
        'programmes:',
        '  - { start: 2030-01-01T20:15, repeat: daily, items: [feature-film], title: The film }',
      ].join('\n'),
    );
    const imported = await starling([
      'channel',
      'schedule',
      'import',
      'tv',
      'week.yaml',
      '--effective',
      'now',
    ]);
    expect(imported).toMatchObject({ code: 0, stderr: '' });
    expect(imported.stdout).toMatch(
      /^The schedule of tv takes effect at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\n$/,
    );

    const exported = await starling([
      'channel',
      'schedule',
      'export',
      'tv',
      '--format',
      'csv',
      '--out',
      'week.csv',
    ]);
    expect(exported).toEqual({ code: 0, stdout: '', stderr: '' });
    expect(readFileSync(join(dataDir, 'week.csv'), 'utf8')).toContain(
      'programme,2030-01-01T20:15,daily,,,feature-film',
    );
    expect((await starling(['channel', 'schedule', 'set', 'tv', '--loop', 'ident'])).code).toBe(0);
    expect((await starling(['channel', 'schedule', 'import', 'tv', 'week.csv'])).code).toBe(0);
    const { items } = JSON.parse(
      (
        await starling([
          'channel',
          'schedule',
          'preview',
          'tv',
          '--from',
          '2031-07-01T20:15:30Z',
          '--hours',
          '1',
          '--json',
        ])
      ).stdout,
    );
    expect(items).toMatchObject([
      { startsAt: '2031-07-01T20:15:00.000Z', title: 'The film', assetName: 'feature-film' },
    ]);
    const table = await starling([
      'channel',
      'schedule',
      'preview',
      'tv',
      '--from',
      '2031-07-01T20:15:30Z',
      '--hours',
      '1',
    ]);
    expect(table.stdout).toMatch(
      /^FROM +TO +TITLE +ASSET\n\d{4}-\S+ \d\d:15:00 +\S+ \S+ +The film +feature-film\n$/,
    );

    writeFileSync(join(dataDir, 'bad.yaml'), 'timeZone: Nowhere\nprogrammes: []\n');
    expect(await starling(['channel', 'schedule', 'import', 'tv', 'bad.yaml'])).toEqual({
      code: 1,
      stdout: '',
      stderr: 'timeZone: Nowhere is not a time zone. Write one such as Europe/Berlin or UTC.\n',
    });
    expect(await starling(['channel', 'schedule', 'import', 'tv', 'gone.yaml'])).toEqual({
      code: 1,
      stdout: '',
      stderr: 'gone.yaml cannot be read: there is no such file or folder.\n',
    });
    expect(await starling(['channel', 'set', 'tv', '--number', '77', '--group', 'Best'])).toMatchObject({
      code: 0,
    });
    expect((await starling(['channel', 'ls'])).stdout).toMatch(/^77 +tv +tv +playout/m);
    await starling(['channel', 'rm', 'tv']);
  });
});

describe('stream', () => {
  it('prints server, key and URL once, and a new key on rotation', async () => {
    const { stdout, code } = await starling(['stream', 'add', 'cam', '--title', 'Camera']);
    expect(code).toBe(0);
    const key = /^Stream key +(sk_\S+)$/m.exec(stdout)?.[1];
    expect(stdout).toContain('Server      rtmp://localhost:1935/live/cam\n');
    expect(stdout).toContain(`URL         rtmp://localhost:1935/live/cam?key=${key}\n`);
    expect(stdout).toContain('OBS');
    expect((await starling(['stream', 'ls', '--json'])).stdout).not.toContain(key);
    expect((await starling(['stream', 'ls'])).stdout).toMatch(/^cam +RTMP +no +\d{4}-/m);

    const rotated = JSON.parse((await starling(['stream', 'rotate-key', 'cam', '--json'])).stdout);
    expect(rotated).toMatchObject({ name: 'cam', server: 'rtmp://localhost:1935/live/cam' });
    expect(rotated.key).toMatch(/^sk_/);
    expect(rotated.key).not.toBe(key);
    expect(await starling(['stream', 'add', 'cam'])).toMatchObject({ code: 1, stdout: '' });
    expect(await starling(['stream', 'rm', 'cam'])).toEqual({ code: 0, stdout: '', stderr: '' });
    expect((await starling(['stream', 'ls'])).stdout).toMatch(/^There are no streams/);
  });
});

describe('destination', () => {
  it('is listed with its state and without its key, and turned off and on', async () => {
    await starling(['stream', 'add', 'stage']);
    const url = 'rtmp://live.example/app/s3cr3t';
    expect(await starling(['destination', 'add', 'twitch', 'stage', url])).toEqual({
      code: 0,
      stdout: 'Pushing stage to rtmp://live.example/app/***. See how it goes with: starling destination ls\n',
      stderr: '',
    });
    const list = async () => (await starling(['destination', 'ls'])).stdout;
    expect(await list()).toMatch(/^twitch +stage +rtmp:\/\/live\.example\/app\/\*\*\* +unknown/m);
    await starling(['destination', 'disable', 'twitch']);
    expect(await list()).toMatch(/^twitch .* disabled/m);
    await starling(['destination', 'enable', 'twitch']);
    expect((await starling(['destination', 'ls', '--json'])).stdout).not.toContain('s3cr3t');
    expect((await starling(['destination', 'ls', '--channel', 'other'])).stdout).toMatch(/^There are no/);
    const bad = await starling(['destination', 'add', 'x', 'stage', 'https://live.example/s3cr3t']);
    expect(bad).toMatchObject({ code: 1, stderr: 'An address begins with rtmp://, rtmps:// or srt://.\n' });
    expect(await starling(['destination', 'rm', 'twitch'])).toEqual({ code: 0, stdout: '', stderr: '' });
    expect(await list()).toMatch(/^There are no destinations/);
    await starling(['stream', 'rm', 'stage']);
  });
});

describe('private channels', () => {
  it('are made, changed, and opened with tokens that are printed once', async () => {
    await starling(['stream', 'add', 'closed', '--private']);
    const set = (...change: string[]) => starling(['channel', 'set', 'closed', ...change]);
    expect((await starling(['channel', 'ls'])).stdout).toMatch(
      /^\d+ +closed +closed +live +private +no +0$/m,
    );
    expect((await set('--public', '--max-viewers', '20')).stdout).toBe(
      'Channel closed is public, for at most 20 viewers.\n',
    );
    expect((await set('--private', '--max-viewers', 'none')).stdout).toBe('Channel closed is private.\n');

    const made = await starling([
      ...[
        'token',
        'create',
        '--channel',
        'closed',
        '--expires',
        '90m',
        '--max-viewers',
        '2',
        '--name',
        'Ada',
      ],
    ]);
    const token = /^Token +(\S+)$/m.exec(made.stdout)?.[1] ?? '';
    expect(token.split('.')).toHaveLength(3);
    expect(made.stdout).toMatch(new RegExp(`^Watch +http://\\S+/watch/closed\\?token=${token}$`, 'm'));
    expect(made.stdout).toContain(`RTMP      rtmp://localhost:1935/live/closed?token=${token}\n`);
    const id = /^Id +(\S+)$/m.exec(made.stdout)?.[1] ?? '';
    const list = async () => (await starling(['token', 'ls'])).stdout;
    expect(await list()).toMatch(new RegExp(`^${id} +Ada +closed +2 +valid +\\d{4}-`, 'm'));
    expect(await starling(['token', 'revoke', id])).toEqual({ code: 0, stdout: '', stderr: '' });
    expect(await list()).toMatch(new RegExp(`^${id} +Ada +closed +2 +revoked`, 'm'));
    expect(await list()).not.toContain(token);
    expect((await starling(['token', 'create', '--all-channels', '--expires', '1d'])).stdout).toContain(
      'all channels',
    );
    expect((await starling(['token', 'rotate-key'])).code).toBe(0);
    expect(await starling(['token', 'revoke', 'nobody'])).toMatchObject({ code: 1 });
    await starling(['stream', 'rm', 'closed']);
  });
});

describe('access', () => {
  it('adds accounts with a password that is printed once, or read and never an argument', async () => {
    const made = await starling(['account', 'add', 'alice', '--role', 'streamer']);
    expect(made.code).toBe(0);
    expect(made.stdout).toMatch(/^Name {6}alice\nPassword {2}([a-z2-9]{4}-){4}[a-z2-9]{4}\n/);
    const stdin = 'correct horse battery';
    const asked = await starling(['account', 'add', 'bob', '--role', 'editor', '--ask'], { stdin });
    expect(asked).toEqual({ code: 0, stdout: '', stderr: '' });
    expect((await starling(['account', 'password', 'bob', '--ask'], { stdin: 'short' })).code).toBe(1);
    expect((await starling(['account', 'add', 'carol', '--role', 'king'])).code).toBe(2);
    await starling(['account', 'set', 'bob', '--role', 'viewer', '--disable', '--channels', 'a,b']);
    const { stdout } = await starling(['account', 'ls']);
    expect(stdout).toMatch(/^alice +streamer +new password +no +\d/m);
    expect(stdout).toMatch(/^bob +viewer +disabled +no +a,b +\d/m);
    expect((await starling(['account', 'rm', 'bob'])).code).toBe(0);
    const last = await starling(['account', 'rm', 'operator']);
    expect(last).toMatchObject({ code: 1, stderr: expect.stringContaining('last operator') });
  });

  it("rotates the operator's token, and the old one does until the overlap is over", async () => {
    const path = join(dataDir, 'operator.token');
    const { apiUrl } = JSON.parse(readFileSync(join(dataDir, 'up.json'), 'utf8'));
    const statusWith = async (token: string) =>
      (await fetch(`${apiUrl}/api/v1/accounts`, { headers: { authorization: `Bearer ${token}` } })).status;
    const rotated = await starling(['secret', 'rotate', '--overlap', '1h', '--json']);
    expect(JSON.parse(rotated.stdout)).toEqual({ file: path, oldUntil: expect.stringMatching(/Z$/) });
    const [second = ''] = readFileSync(path, 'utf8').split('\n');
    expect(second).toMatch(/^[\w-]{43}$/);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(await Promise.all(['operator', second, 'another'].map(statusWith))).toEqual([200, 200, 401]);
    expect((await starling(['account', 'ls'])).code).toBe(0);
    expect((await starling(['secret', 'rotate', path])).stdout).toContain('worthless within a second');
    const [third = ''] = readFileSync(path, 'utf8').split('\n');
    await vi.waitFor(
      async () => expect(await Promise.all([second, third].map(statusWith))).toEqual([401, 200]),
      5000,
    );
    expect(await starling(['secret', 'rotate', join(dataDir, 'none.token')])).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('none.token cannot be changed: ENOENT'),
    });
  });

  it('gives a stream to an account', async () => {
    await starling(['stream', 'add', 'hers', '--owner', 'alice']);
    expect((await starling(['stream', 'ls'])).stdout).toMatch(/^hers +RTMP +alice /m);
    await starling(['stream', 'give', 'hers']);
    expect((await starling(['stream', 'ls'])).stdout).toMatch(/^hers +RTMP +no /m);
    await starling(['stream', 'rm', 'hers']);
  });

  it('makes a token that does what it may and no more, and revokes it', async () => {
    const args = [
      'api-token',
      'create',
      '--name',
      'bot',
      '--scope',
      'streams:read',
      '--expires',
      '1h',
      '--json',
    ];
    const { apiToken, token } = JSON.parse((await starling(args)).stdout);
    const { apiUrl } = JSON.parse(readFileSync(join(dataDir, 'up.json'), 'utf8'));
    const client = new CoordinatorClient({ baseUrl: apiUrl, token });
    expect(await client.streams.list()).toEqual(expect.any(Array));
    await expect(client.channels.list()).rejects.toMatchObject({ code: 'TOKEN_NOT_ALLOWED' });
    expect((await starling(['api-token', 'ls'])).stdout).toMatch(/^\w+ +bot +streams:read +valid /m);
    await starling(['api-token', 'revoke', apiToken.id]);
    expect((await starling(['api-token', 'ls'])).stdout).toMatch(/^\w+ +bot +streams:read +revoked /m);
    await expect(client.streams.list()).rejects.toMatchObject({ code: 'TOKEN_MISSING' });
    expect((await starling([...args.slice(0, 5), 'streams:sing', '--expires', '1h'])).code).toBe(2);
  });

  it('shows who changed what', async () => {
    const { stdout } = await starling(['audit-log', '--target', 'hers', '--noun', 'streams']);
    expect(stdout).toMatch(/^TIME +WHO +FROM +WHAT +WHICH +CHANGED/);
    expect(stdout).toMatch(/Z +operator token +127\.0\.0\.1 +streams update +hers +owner$/m);
    const first = JSON.parse((await starling(['audit-log', '--limit', '1', '--json'])).stdout);
    expect(first.items).toHaveLength(1);
    const second = await starling(['audit-log', '--limit', '1', '--cursor', first.nextCursor, '--json']);
    expect(JSON.parse(second.stdout).items[0].number).toBeLessThan(first.items[0].number);
    expect((await starling(['audit-log', '--since', 'yesterday'])).code).toBe(2);
  });
});

describe('nodes', () => {
  it('are invited with a token that is printed once, and the command to run', async () => {
    const invited = await starling([
      'node',
      'invite',
      '--role',
      'frontend',
      '--name',
      'paris',
      '--url',
      'http://10.0.0.5:8080',
    ]);
    expect(invited).toMatchObject({ code: 0, stderr: '' });
    expect(invited.stdout).toMatch(/^Token +sjt_[\w-]{43}$/m);
    expect(invited.stdout).toMatch(/^Run +npx starling frontend --join http:\/\/10\.0\.0\.5:8080$/m);
    const { invitation } = JSON.parse(
      (await starling(['node', 'invite', '--role', 'backend', '--expires', '2d', '--json'])).stdout,
    ) as { invitation: { id: string } };
    const listed = await starling(['node', 'invitation', 'ls']);
    expect(listed.stdout).toMatch(/backend +open/);
    expect((await starling(['node', 'invitation', 'rm', invitation.id])).code).toBe(0);
    expect((await starling(['node', 'invitation', 'ls'])).stdout).not.toContain(invitation.id);
    expect((await starling(['node', 'ls'])).stdout).toContain('starling node invite --role frontend');
    for (const verb of ['drain', 'cordon', 'uncordon', 'rm', 'restart'])
      expect(await starling(['node', verb, 'nobody'])).toMatchObject({
        code: 1,
        stderr: 'There is no node nobody.\n',
      });
  });

  it('say what is missing', async () => {
    expect((await starling(['node', 'invite'])).code).toBe(2);
    expect((await starling(['node', 'invite', '--role', 'emperor'])).code).toBe(2);
    expect(await starling(['node', 'restart'])).toMatchObject({
      code: 1,
      stderr: 'Name the nodes, or say --all.\n',
    });
    expect(await starling(['frontend'])).toMatchObject({
      code: 1,
      stderr: 'Say either --config FILE or --join URL. See: starling frontend --help\n',
    });
    const { apiUrl } = JSON.parse(readFileSync(join(dataDir, 'up.json'), 'utf8')) as { apiUrl: string };
    const joinAs = (url: string, options: Parameters<typeof starling>[1] = {}) =>
      starling(['backend', '--join', url, '--data', join(dataDir, 'newcomer')], options);
    expect((await joinAs('coordinator')).stderr).toContain('is no address of a coordinator');
    expect((await joinAs(apiUrl)).stderr).toContain('starling node invite --role backend');
    const guess = await joinAs(apiUrl, { env: { STARLING_JOIN_TOKEN: 'sjt_guess' } });
    expect(guess).toMatchObject({ code: 1, stdout: '' });
    expect(guess.stderr).toContain('The join token is unknown, used or expired');
    const missing = await joinAs(apiUrl, { env: { STARLING_JOIN_TOKEN_FILE: join(dataDir, 'no.token') } });
    expect(missing.stderr).toContain('no.token cannot be read');
  });
});

describe('viewers', () => {
  it('are listed with what is known of them, and shown out', async () => {
    expect((await starling(['viewers', 'ls'])).stdout).toBe('Nobody watches.\n');
    const { apiUrl } = JSON.parse(readFileSync(join(dataDir, 'up.json'), 'utf8'));
    const frontend = new CoordinatorClient({ baseUrl: apiUrl, token: 'node' });
    const id = 'viewer-000000001';
    const viewer = { channel: 'films', protocol: 'hls', rendition: 'main', address: '192.0.2.1' } as const;
    const figures = { userAgent: 'VLC/3', sentBytes: 2_500_000, latencyMs: 1200, tokenId: null };
    await frontend.reportFrontend({
      frontendId: 'frontend-of-the-test',
      viewers: [{ id, ...viewer, ...figures, startedAtUnixMs: Date.now() - 65_000 }],
      leftIds: [],
      isFresh: true,
    });
    expect((await starling(['viewers', 'ls', '--channel', 'films'])).stdout).toMatch(
      new RegExp(`^${id} +films +hls +main +192\\.0\\.2\\.1 +1:0\\d +2\\.50 MB +1\\.2 s +VLC/3$`, 'm'),
    );
    expect((await starling(['viewers', 'ls', '--channel', 'other'])).stdout).toBe('Nobody watches.\n');
    expect(await starling(['viewers', 'kick', id])).toEqual({ code: 0, stdout: '', stderr: '' });
    expect(await starling(['viewers', 'kick', id])).toMatchObject({
      code: 1,
      stderr: `No viewer ${id} watches now.\n`,
    });
  });
});

describe('doctor', () => {
  const findingsOf = ({ stdout }: Outcome): Record<string, { result: string; advice?: string }> => {
    const { findings }: { findings: { check: string; result: string; advice?: string }[] } =
      JSON.parse(stdout);
    return Object.fromEntries(findings.map((finding) => [finding.check, finding]));
  };

  it('finds a running Starling, and what its machine has', async () => {
    const outcome = await starling(['doctor', '--json', '--http', '0', '--rtmp', '1935']);
    expect(outcome.code).toBe(0);
    expect(findingsOf(outcome)).toMatchObject({
      node: { result: 'ok' },
      ffmpeg: { result: 'ok' },
      ffprobe: { result: 'ok' },
      'ffmpeg parts': { result: 'ok' },
      'data folder': { result: 'ok' },
      'port rtmp': { result: 'ok', message: '1935 is used by this Starling' },
      starling: { result: 'ok', message: expect.stringMatching(/^running at /) },
    });
  });

  it('fails on a port that another program uses, and says what to do', async () => {
    const { port } = new URL(JSON.parse(readFileSync(join(dataDir, 'up.json'), 'utf8')).apiUrl);
    const folder = mkdtempSync(join(tmpdir(), 'starling-cli-doctor-'));
    const outcome = await starling(['doctor', '--data', folder, '--http', port, '--rtmp', '0']);
    expect(outcome.code).toBe(1);
    expect(outcome.stdout).toMatch(new RegExp(`^fail +port http +${port} is in use`, 'm'));
    expect(outcome.stdout).toContain('--http PORT');
    expect(outcome.stderr).toMatch(/^1 of \d+ checks failed\.\n$/);
  });

  it('fails when FFmpeg is missing, and says how to install it', async () => {
    const path = process.env.PATH;
    process.env.PATH = '/nowhere';
    const outcome = await starling(['doctor', '--json', '--http', '0', '--rtmp', '0']).finally(() => {
      process.env.PATH = path;
    });
    expect(outcome.code).toBe(1);
    expect(findingsOf(outcome)).toMatchObject({
      ffmpeg: { result: 'fail', advice: expect.stringMatching(/apt-get install ffmpeg/) },
    });
  });
});

describe('alarms and logs', () => {
  it('says what is wrong, who is at it, and that it is over', async () => {
    const { apiUrl } = JSON.parse(readFileSync(join(dataDir, 'up.json'), 'utf8'));
    const node = new CoordinatorClient({ baseUrl: apiUrl, token: 'node' });
    await node.reportHealth({
      ...{ node: 'frontend@far:8080', version: '0.1.0', isLeaving: false, certificates: [] },
      ...{ disks: [{ path: '/data', freeBytes: 5, sizeBytes: 100 }], balancedFrontends: null },
      ...{ refusedPublishCount: 0, recordingFaultCount: 0 },
    });
    const listed = async (...args: string[]) =>
      JSON.parse((await starling(['alarm', 'ls', '--json', ...args])).stdout).items;
    let items = await listed();
    while (items.length === 0) items = await listed();
    const [{ id }] = items;
    expect((await starling(['alarm', 'ls'])).stdout).toMatch(
      /warning +raised +disk-filling +5\.0 % are free/,
    );
    expect((await starling(['alarm', 'ack', id])).code).toBe(0);
    expect((await starling(['alarm', 'ls'])).stdout).toContain('operator token is at it');
    expect((await starling(['alarm', 'resolve', id])).code).toBe(0);
    expect((await starling(['alarm', 'ls'])).stdout).toBe('All is well.\n');
    expect(await listed('--all', '--kind', 'disk-filling')).toMatchObject([{ id, state: 'resolved' }]);
    expect(await starling(['alarm', 'ack', 'nosuch'])).toMatchObject({
      code: 1,
      stderr: 'There is no alarm nosuch.\n',
    });
  });

  it('changes when there is an alarm', async () => {
    const changed = await starling(['alarm', 'settings', '--set', 'diskFreePercent=5', '--mute', 'failover']);
    expect(changed.stdout).toMatch(/^diskFreePercent +5$/m);
    expect(changed.stdout).toMatch(/^mutedKinds +failover$/m);
    expect((await starling(['alarm', 'settings', '--mute', 'none'])).stdout).toMatch(/^mutedKinds +none$/m);
    for (const args of [
      ['--set', 'nonsense=5'],
      ['--set', 'diskFreePercent=x'],
      ['--mute', 'nonsense'],
    ])
      expect((await starling(['alarm', 'settings', ...args])).code).toBe(2);
    expect((await starling(['alarm', 'settings', '--set', 'diskFreePercent=0'])).code).toBe(1);
  });

  it('tries the ways out, and says which do not work', async () => {
    expect((await starling(['alarm', 'test'])).stdout).toMatch(/^Nobody hears of alarms/);
    const added = await starling(['webhook', 'add', 'mailto:ops@example.org']);
    expect(added.stdout).toMatch(/^Id {6}[0-9a-f]{16}\n\nTry it with: starling alarm test\n$/);
    const tried = await starling(['alarm', 'test']);
    expect(tried.code).toBe(1);
    expect(tried.stdout).toMatch(/mailto:ops@example\.org +waiting +the coordinator knows no SMTP server/);
    await starling(['webhook', 'rm', /Id {6}(\w+)/.exec(added.stdout)?.[1] ?? '']);
  });

  it('shows what nodes say, and follows it until Ctrl-C', async () => {
    const { apiUrl } = JSON.parse(readFileSync(join(dataDir, 'up.json'), 'utf8'));
    const node = new CoordinatorClient({ baseUrl: apiUrl, token: 'node' });
    const line = { at: '2026-11-22T12:00:00.000Z', channel: 'news', fields: { channel: 'news', n: 1 } };
    const lines = [
      { ...line, level: 'info' as const, message: 'began' },
      { ...line, level: 'error' as const, message: 'broke\u001b[2J' },
    ];
    await node.shipLogs({ node: 'backend@far:1935', lines, droppedCount: 0 });
    const shown = await starling(['logs', '--node', 'backend@far:1935', '--channel', 'news']);
    expect(shown.stdout).toBe(
      '2026-11-22T12:00:00.000Z  INFO   backend@far:1935  began  channel=news  n=1\n' +
        '2026-11-22T12:00:00.000Z  ERROR  backend@far:1935  broke [2J  channel=news  n=1\n',
    );
    const followed = await starling(['logs', '-f', '--json', '--level', 'error', '--since', '2026-11-22'], {
      interruptAfterMs: 1000,
    });
    expect(followed.code).toBe(0);
    expect(JSON.parse(followed.stdout)).toMatchObject({ level: 'error', node: 'backend@far:1935' });
    expect((await starling(['logs', '--since', 'yesterday'])).code).toBe(2);
  });
});
