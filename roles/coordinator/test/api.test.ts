import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CoordinatorClient } from '@starling/model/client';
import { defaultLibrarySettings } from '@starling/model/library';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { addReadyAsset, factsOf, type Lab, operatorToken, startLab, writtenBytes } from './support.ts';

let lab: Lab;
beforeAll(async () => {
  lab = await startLab();
}, 60_000);
afterAll(() => lab.close());

describe('assets', () => {
  it('follows an import from the queue to its facts', async () => {
    const queued = await lab.operator.assets.create({ source: '/videos/Big Film.mp4' });
    expect(queued).toMatchObject({
      name: 'Big Film',
      state: 'queued',
      progress: 0,
      error: null,
      facts: null,
    });

    await lab.node.reportImport(queued.id, { state: 'importing', progress: 0.25 });
    expect(await lab.operator.assets.get(queued.id)).toMatchObject({ state: 'importing', progress: 0.25 });

    await lab.node.reportImport(queued.id, { state: 'ready', facts: factsOf(10) });
    expect(await lab.operator.assets.get(queued.id)).toMatchObject({
      state: 'ready',
      progress: 1,
      facts: { durationTicks: 900_000, segmentCount: 5 },
    });
  });

  it('keeps the sentence that says why an import failed', async () => {
    const { id } = await lab.operator.assets.create({ source: '/videos/broken.mp4', name: 'broken' });
    await lab.node.reportImport(id, { state: 'failed', error: 'The file holds no picture.' });
    expect(await lab.operator.assets.get(id)).toMatchObject({
      state: 'failed',
      error: 'The file holds no picture.',
    });
  });

  it('takes the last report twice, but no other after it', async () => {
    const id = await addReadyAsset(lab, 'twice', 10);
    await lab.node.reportImport(id, { state: 'ready', facts: factsOf(10) });
    await expect(lab.node.reportImport(id, { state: 'importing', progress: 0.5 })).rejects.toMatchObject({
      code: 'IMPORT_FINISHED',
      status: 409,
    });
    await expect(lab.node.reportImport('gone', { state: 'importing', progress: 0 })).rejects.toMatchObject({
      code: 'ASSET_UNKNOWN',
      status: 404,
    });
  });

  it('refuses a path that depends on where the coordinator was started', async () => {
    await expect(lab.operator.assets.create({ source: 'film.mp4' })).rejects.toMatchObject({
      status: 400,
    });
  });

  it('takes URLs without passwords, and names assets by the last part of their source', async () => {
    const url = 'https://example.org/a/Die%20Welle.mkv?key=1';
    expect(await lab.operator.assets.create({ source: url })).toMatchObject({
      source: url,
      name: 'Die Welle',
    });
    expect(await lab.operator.assets.create({ source: 'http://h/%ff.mp4' })).toMatchObject({ name: '%ff' });
    expect(await lab.operator.assets.create({ source: 'http://h' })).toMatchObject({ name: 'asset' });
    for (const source of [
      'ftp://example.org/a.mp4',
      'file:///etc/passwd',
      'concat:/a|/b',
      'https://',
      'http://u:p@h/a',
    ]) {
      await expect(lab.operator.assets.create({ source })).rejects.toMatchObject({ code: 'REQUEST_INVALID' });
    }
  });

  it('cancels an import and queues it again, and nothing else', async () => {
    const { id } = await lab.operator.assets.create({ source: '/videos/on-and-off.mp4' });
    const { assets } = lab.operator;
    await lab.node.reportImport(id, { state: 'importing', progress: 0.5 });
    await expect(assets.retry(id)).rejects.toMatchObject({ code: 'IMPORT_NOT_ENDED', status: 409 });
    expect(await assets.cancel(id)).toMatchObject({ state: 'cancelled', error: null, progress: 0 });
    expect(await assets.cancel(id)).toMatchObject({ state: 'cancelled' });
    // The backend has not heard of it yet.
    await expect(lab.node.reportImport(id, { state: 'importing', progress: 0.6 })).rejects.toMatchObject({
      code: 'IMPORT_FINISHED',
    });
    expect(await assets.retry(id)).toMatchObject({ state: 'queued', progress: 0 });
    await lab.node.reportImport(id, { state: 'queued', error: 'The server answered 503.' });
    expect(await assets.get(id)).toMatchObject({ state: 'queued', error: 'The server answered 503.' });
    await lab.node.reportImport(id, { state: 'failed', error: 'The server answered 404.' });
    expect(await assets.retry(id)).toMatchObject({ state: 'queued', error: null });
    await lab.node.reportImport(id, { state: 'ready', facts: factsOf(10) });
    await expect(assets.retry(id)).rejects.toMatchObject({ code: 'IMPORT_FINISHED' });
    await expect(assets.cancel(id)).rejects.toMatchObject({ code: 'IMPORT_FINISHED' });
    await expect(assets.cancel('none')).rejects.toMatchObject({ code: 'ASSET_UNKNOWN' });
  });

  it('serves the small files of an asset, and no other file', async () => {
    const id = await addReadyAsset(lab, 'pictured', 10);
    const folder = join(lab.dataDir, 'media', factsOf(10).contentHash);
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, 'poster.jpg'), 'a picture');
    writeFileSync(join(folder, 'subtitles-1.vtt'), 'WEBVTT\n');
    writeFileSync(join(folder, 'video.mp4'), 'large');
    const get = (fileName: string, token = operatorToken) =>
      lab.request('GET', `/api/v1/assets/${id}/files/${fileName}`, { token });
    const poster = await get('poster.jpg');
    expect([poster.status, poster.headers.get('content-type'), await poster.text()]).toEqual([
      200,
      'image/jpeg',
      'a picture',
    ]);
    expect((await get('subtitles-1.vtt')).headers.get('content-type')).toBe('text/vtt; charset=utf-8');
    for (const fileName of ['thumbnails.vtt', 'video.mp4', 'asset.json', '..%2F..%2Foperator.token', '%00']) {
      expect([fileName, (await get(fileName)).status]).toEqual([fileName, 404]);
    }
    expect((await get('poster.jpg', 'wrong')).status).toBe(401);
  });

  it('removes an asset only when no channel plays it, and names those that do', async () => {
    const id = await addReadyAsset(lab, 'used', 10);
    await lab.operator.channels.create({ name: 'user-one', loop: [id] });
    await lab.operator.channels.create({ name: 'user-two', loop: [id, id] });
    await expect(lab.operator.assets.remove(id)).rejects.toMatchObject({
      code: 'ASSET_IN_USE',
      status: 409,
      detail: expect.stringMatching(/user-one, user-two/),
    });
    expect(await lab.operator.assets.get(id)).toMatchObject({ state: 'ready' });
    await lab.operator.channels.remove('user-one');
    await lab.operator.channels.remove('user-two');
    await lab.operator.assets.remove(id);
    await expect(lab.operator.assets.get(id)).rejects.toMatchObject({ code: 'ASSET_UNKNOWN' });
  });
});

describe('the library', () => {
  it('keeps its settings, tells the backends, and refuses what is not allowed', async () => {
    const { library } = lab.operator;
    expect(await library.settings()).toEqual(defaultLibrarySettings);
    const changed = await library.changeSettings({ ladder: ['720p', '360p'], maxStoreBytes: 5e11 });
    expect(changed).toEqual({ ...defaultLibrarySettings, ladder: ['720p', '360p'], maxStoreBytes: 5e11 });
    expect(await library.settings()).toEqual(changed);
    for (const wrong of [
      { ladder: [] },
      { ladder: ['719p'] },
      { maxSourceHours: 0 },
      { languages: ['x y'] },
      { loud: 1 },
    ]) {
      const { status } = await lab.request('PATCH', '/api/v1/library/settings', {
        token: operatorToken,
        body: wrong,
      });
      expect([wrong, status]).toEqual([wrong, 400]);
    }
    await library.changeSettings(defaultLibrarySettings);
  });

  it('queues each file of a watched folder once, and again when it was replaced', async () => {
    const folder = await lab.operator.library.watch({ path: '/srv/films/', isRecursive: true });
    expect(folder).toMatchObject({ path: '/srv/films', isRecursive: true });
    expect(await lab.operator.library.folders()).toEqual([folder]);
    await expect(lab.operator.library.watch({ path: '/srv/films' })).rejects.toMatchObject({
      code: 'FOLDER_EXISTS',
    });
    await expect(lab.operator.library.watch({ path: 'films' })).rejects.toMatchObject({ status: 400 });

    const report = (...files: [path: string, version: string][]) =>
      lab.node.reportFolder(folder.id, { files: files.map(([path, version]) => ({ path, version })) });
    const queued = async () =>
      (await lab.operator.assets.list()).filter(({ source }) => source.startsWith('/srv/films/'));
    await report(['/srv/films/a.mp4', '1'], ['/srv/films/b.mp4', '1']);
    await report(['/srv/films/a.mp4', '1'], ['/srv/films/b.mp4', '1']);
    const [first, ...others] = await queued();
    expect([first?.name, first?.state, others.map(({ name }) => name)]).toEqual(['a', 'queued', ['b']]);
    await lab.operator.assets.remove(first?.id ?? '');
    await report(['/srv/films/a.mp4', '1']); // removed on purpose, so it stays away
    expect(await queued()).toHaveLength(1);
    const { revision } = await lab.operator.status();
    await report(['/srv/films/a.mp4', '1'], ['/srv/films/b.mp4', '1']);
    expect((await lab.operator.status()).revision).toBe(revision); // no news wakes nobody
    await report(['/srv/films/a.mp4', '2'], ['/srv/films/b.mp4', '1']);
    expect(await queued()).toHaveLength(2);

    await lab.operator.library.unwatch(folder.id);
    expect(await queued()).toHaveLength(2);
    await expect(report(['/srv/films/c.mp4', '1'])).rejects.toMatchObject({ code: 'FOLDER_UNKNOWN' });
    await expect(lab.operator.library.unwatch(folder.id)).rejects.toMatchObject({ code: 'FOLDER_UNKNOWN' });
  });
});

describe('channels', () => {
  it('starts the timeline at a whole second half a minute ago, and takes assets by id or name', async () => {
    const one = await addReadyAsset(lab, 'loop-one', 10);
    const two = await addReadyAsset(lab, 'loop-two', 20);
    lab.nowMs = Date.UTC(2026, 10, 22, 12, 30, 15, 987);
    const channel = await lab.operator.channels.create({
      name: 'mix',
      title: 'The Mix',
      loop: [two, 'loop-one', two],
    });
    expect(channel).toEqual({
      name: 'mix',
      title: 'The Mix',
      number: expect.any(Number),
      logo: null,
      group: null,
      kind: 'playout',
      epochUnixMs: Date.UTC(2026, 10, 22, 12, 29, 45),
      createdAt: '2026-11-22T12:30:15.987Z',
      runs: [
        { startTicks: 0, firstMediaSequenceNumber: 0, firstDiscontinuitySequence: 0, loop: [two, one, two] },
      ],
      sources: null,
      record: null,
      redundancy: 1,
      sourceChoice: 'auto',
      isPrivate: false,
      maxViewers: null,
    });
    expect(await lab.operator.channels.get('mix')).toEqual({ ...channel, activeSource: null });
  });

  it('says what is wrong with a loop', async () => {
    const { id } = await lab.operator.assets.create({ source: '/videos/slow.mp4' });
    await addReadyAsset(lab, 'double', 10);
    await addReadyAsset(lab, 'double', 10);
    const create = (loop: string[]) => lab.operator.channels.create({ name: 'faulty', loop });
    await expect(create(['nothing'])).rejects.toMatchObject({ code: 'ASSET_UNKNOWN' });
    await expect(create([id])).rejects.toMatchObject({ code: 'ASSET_NOT_READY' });
    await expect(create(['double'])).rejects.toMatchObject({ code: 'ASSET_AMBIGUOUS' });
    await expect(create([])).rejects.toMatchObject({ code: 'REQUEST_INVALID', status: 400 });
    await expect(lab.operator.channels.get('faulty')).rejects.toMatchObject({ code: 'CHANNEL_UNKNOWN' });
  });

  it('gives each channel the lowest free number, and changes what it is asked to', async () => {
    await addReadyAsset(lab, 'numbered', 10);
    const loop = ['numbered'];
    const first = await lab.operator.channels.create({ name: 'first', loop });
    const second = await lab.operator.channels.create({ name: 'second', loop });
    expect(second.number).toBe(first.number + 1);
    const changed = await lab.operator.channels.update('first', {
      number: 500,
      logo: 'https://tv.example/logo.png',
      group: 'News',
      title: 'The First',
    });
    expect(changed).toEqual({
      ...first,
      number: 500,
      logo: 'https://tv.example/logo.png',
      group: 'News',
      title: 'The First',
    });
    expect(await lab.operator.channels.create({ name: 'third', loop })).toMatchObject({
      number: first.number,
    });
    await expect(lab.operator.channels.update('second', { number: 500 })).rejects.toMatchObject({
      code: 'CHANNEL_NUMBER_TAKEN',
      detail: expect.stringMatching(/first/),
    });
    expect(await lab.operator.channels.update('first', { number: 500, logo: null })).toMatchObject({
      number: 500,
      logo: null,
      group: 'News',
    });
    await expect(lab.operator.channels.update('nothing', { number: 7 })).rejects.toMatchObject({
      code: 'CHANNEL_UNKNOWN',
    });
    for (const update of [{ logo: 'javascript:alert(1)' }, { number: 0 }, {}]) {
      await expect(lab.operator.channels.update('first', update)).rejects.toMatchObject({
        code: 'REQUEST_INVALID',
      });
    }
    for (const name of ['first', 'second', 'third']) await lab.operator.channels.remove(name);
  });

  it.each(['Demo', 'a b', '-a', 'a-', 'ä', '', '../x', 'x'.repeat(64)])(
    'refuses the name %j',
    async (name) => {
      await expect(lab.operator.channels.create({ name, loop: ['loop-one'] })).rejects.toMatchObject({
        status: 400,
      });
    },
  );
});

describe('sources of a channel', () => {
  const none = { primary: null, backup: null, fallback: 'none', darkAfterMs: 1000 } as const;

  it('are none for a schedule alone, and the stream itself for the channel of a stream', async () => {
    expect(await lab.operator.channels.get('mix')).toMatchObject({ sources: null, activeSource: null });
    await lab.operator.streams.create({ name: 'studio' });
    await lab.operator.streams.create({ name: 'phone' });
    expect(await lab.operator.channels.get('studio')).toMatchObject({
      sources: { ...none, primary: 'studio' },
      sourceChoice: 'auto',
    });
  });

  it('can be set, reach the backends, and are refused where they cannot be', async () => {
    const sources = { primary: 'studio', backup: 'phone', fallback: 'playout', darkAfterMs: null } as const;
    expect(await lab.operator.channels.setSources('mix', sources)).toMatchObject({ sources });
    const set = (name: string, change: object) =>
      lab.operator.channels.setSources(name, { ...none, ...change });
    await expect(set('mix', { primary: 'nosuch' })).rejects.toMatchObject({ code: 'STREAM_UNKNOWN' });
    await expect(set('nosuch', {})).rejects.toMatchObject({ code: 'CHANNEL_UNKNOWN' });
    await expect(set('mix', { primary: 'studio', backup: 'studio' })).rejects.toMatchObject({
      code: 'SOURCES_INVALID',
    });
    await expect(set('studio', { primary: 'studio', fallback: 'playout' })).rejects.toMatchObject({
      code: 'SOURCES_INVALID',
    });
    expect(await lab.operator.channels.get('mix')).toMatchObject({ sources });
  });

  it('follow a choice of the operator, among those that there are', async () => {
    await lab.operator.channels.chooseSource('mix', 'slate');
    expect(await lab.operator.channels.get('mix')).toMatchObject({ sourceChoice: 'slate' });
    await expect(lab.operator.channels.chooseSource('studio', 'slate')).rejects.toMatchObject({
      code: 'SOURCES_INVALID',
    });
    await expect(lab.operator.channels.chooseSource('nosuch', 'auto')).rejects.toMatchObject({
      code: 'CHANNEL_UNKNOWN',
    });
    await lab.operator.channels.chooseSource('mix', 'auto');
  });

  it('show which one is on the air while the backend says so', async () => {
    const active = { source: 'backup', since: '2026-11-22T12:00:00.000Z', reason: 'silent' } as const;
    await lab.node.reportBackend({
      nodeId: '00000000000000aa',
      onAirChannels: ['mix'],
      publishingStreams: ['phone'],
      activeSources: [{ channel: 'mix', ...active }],
      inputProblems: [],
      destinations: [],
      events: [],
    });
    expect(await lab.operator.channels.get('mix')).toMatchObject({ activeSource: active });
    lab.nowMs += 16_000;
    expect(await lab.operator.channels.get('mix')).toMatchObject({ activeSource: null });
  });

  it('lose a stream that is removed', async () => {
    await lab.operator.streams.remove('phone');
    expect(await lab.operator.channels.get('mix')).toMatchObject({
      sources: { primary: 'studio', backup: null, fallback: 'playout' },
    });
    await lab.operator.streams.remove('studio');
  });
});

describe('streams', () => {
  it('adds a channel of its name, and refuses a name that is taken', async () => {
    const { stream, key } = await lab.operator.streams.create({ name: 'cam', title: 'Camera' });
    expect(stream).toMatchObject({ name: 'cam', isPublishing: false });
    expect(key).toMatch(/^sk_[\w-]{27}$/);
    expect(await lab.operator.channels.get('cam')).toMatchObject({ kind: 'live', title: 'Camera', runs: [] });
    await expect(lab.operator.streams.create({ name: 'cam' })).rejects.toMatchObject({
      code: 'CHANNEL_EXISTS',
    });
    await expect(lab.operator.streams.create({ name: 'mix' })).rejects.toMatchObject({
      code: 'CHANNEL_EXISTS',
    });
    await expect(lab.operator.channels.create({ name: 'cam', loop: ['loop-one'] })).rejects.toMatchObject({
      status: 409,
    });
    await expect(lab.operator.channels.remove('cam')).rejects.toMatchObject({ code: 'CHANNEL_IS_LIVE' });
    expect(await lab.operator.channels.get('cam')).toMatchObject({ kind: 'live' });
  });

  it('goes together with its channel, and a playout channel is no stream', async () => {
    await lab.operator.streams.create({ name: 'brief' });
    await lab.operator.streams.remove('brief');
    await expect(lab.operator.channels.get('brief')).rejects.toMatchObject({ code: 'CHANNEL_UNKNOWN' });
    await expect(lab.operator.streams.remove('mix')).rejects.toMatchObject({ code: 'STREAM_UNKNOWN' });
    expect(await lab.operator.channels.get('mix')).toMatchObject({ kind: 'playout' });
  });

  it('shows a key once: not in a list, not in the log, not in the database', async () => {
    const first = await lab.operator.streams.create({ name: 'secret' });
    const second = await lab.operator.streams.rotateKey('secret');
    expect(second.key).not.toBe(first.key);
    await lab.operator.streams.list();
    const bytes = await writtenBytes(lab);
    // The digests are there, so the search does look where keys would be.
    expect(bytes.includes('secret')).toBe(true);
    for (const key of [first.key ?? '', second.key ?? '']) {
      expect(bytes.includes(key)).toBe(false);
      expect(lab.log.join('')).not.toContain(key);
      expect(
        await (await lab.request('GET', '/api/v1/streams', { token: operatorToken })).text(),
      ).not.toContain(key);
    }
  }, 20_000);
});

describe('public channels', () => {
  it('says what is on now and next, from the schedule', async () => {
    lab.nowMs = Date.UTC(2026, 10, 22, 18, 0, 0);
    await addReadyAsset(lab, 'ten', 10);
    await addReadyAsset(lab, 'twenty', 20);
    await lab.operator.channels.create({ name: 'evening', title: 'Evening', loop: ['ten', 'twenty'] });
    const viewer = new CoordinatorClient({ baseUrl: lab.url });

    expect(await viewer.publicChannels.get('evening')).toMatchObject({
      isOnAir: false,
      now: null,
      next: null,
    });

    // One loop of 30 s and 15 s later: 5 s into the second clip of the second loop.
    lab.nowMs += 45_000;
    await lab.node.reportBackend({
      nodeId: '00000000000000aa',
      onAirChannels: ['evening', 'cam'],
      publishingStreams: ['cam'],
      activeSources: [],
      inputProblems: [],
      destinations: [],
      events: [],
    });
    expect(await viewer.publicChannels.get('evening')).toEqual({
      name: 'evening',
      title: 'Evening',
      number: expect.any(Number),
      logo: null,
      group: null,
      kind: 'playout',
      isPrivate: false,
      isOnAir: true,
      viewerCount: 0,
      source: null,
      now: { title: 'twenty', startsAt: '2026-11-22T18:00:40.000Z', endsAt: '2026-11-22T18:01:00.000Z' },
      next: { title: 'ten', startsAt: '2026-11-22T18:01:00.000Z' },
    });
    expect(await viewer.publicChannels.get('cam')).toMatchObject({ isOnAir: true, now: null, next: null });
    expect((await lab.operator.streams.list()).filter((stream) => stream.isPublishing)).toHaveLength(1);
    const names = (await viewer.publicChannels.list()).map(({ name }) => name);
    expect(names).toEqual([...names].sort());

    // With streams before the schedule, what is on is the schedule's only while the schedule is on.
    const show = async (source: 'primary' | 'playout' | 'slate') => {
      await lab.node.reportBackend({
        nodeId: '00000000000000aa',
        onAirChannels: ['evening'],
        publishingStreams: ['cam'],
        activeSources: [
          { channel: 'evening', source, since: new Date(lab.nowMs).toISOString(), reason: 'start' },
        ],
        inputProblems: [],
        destinations: [],
        events: [],
      });
      return viewer.publicChannels.get('evening');
    };
    const sources = { primary: 'cam', backup: null } as const;
    await lab.operator.channels.setSources('evening', { ...sources, fallback: 'playout' });
    const next = { title: 'ten', startsAt: '2026-11-22T18:01:00.000Z' };
    expect(await show('primary')).toMatchObject({ source: 'primary', now: null, next });
    expect(await show('slate')).toMatchObject({ source: 'slate', now: null, next });
    expect(await show('playout')).toMatchObject({ source: 'playout', now: { title: 'twenty' }, next });
    await lab.operator.channels.setSources('evening', { ...sources, fallback: 'slate' });
    expect(await show('slate')).toMatchObject({ source: 'slate', now: null, next: null });

    lab.nowMs += 15_001;
    expect(await viewer.publicChannels.get('evening')).toMatchObject({ isOnAir: false, now: null });
    await expect(viewer.publicChannels.get('nothing')).rejects.toMatchObject({ status: 404 });
  });
});

describe('errors', () => {
  it.each([
    ['an unknown address', 'GET', '/api/v1/nothing', undefined, 404, 'ROUTE_UNKNOWN'],
    ['a misspelt field', 'POST', '/api/v1/streams', { name: 'x', titel: 'X' }, 400, 'REQUEST_INVALID'],
    ['a number for a text', 'POST', '/api/v1/streams', { name: 5 }, 400, 'REQUEST_INVALID'],
    ['an address that is none', 'GET', '/api/v1/assets/%zz', undefined, 400, 'REQUEST_INVALID'],
    [
      'a zero character',
      'POST',
      '/api/v1/streams',
      { name: 'zero', title: 'a\u0000b' },
      400,
      'REQUEST_INVALID',
    ],
    ['a zero character in the address', 'GET', '/api/v1/assets/%00', undefined, 400, 'REQUEST_INVALID'],
    ['a body beyond bounds', 'POST', '/api/v1/streams', { name: 'x'.repeat(2 ** 20) }, 413, 'BODY_TOO_LARGE'],
  ])('answers %s with problem details', async (_what, method, path, body, status, code) => {
    const response = await lab.request(method, path, { token: operatorToken, body });
    expect(response.status).toBe(status);
    expect(response.headers.get('content-type')).toMatch(/^application\/problem\+json/);
    expect(await response.json()).toMatchObject({
      status,
      code,
      title: expect.any(String),
      type: expect.any(String),
    });
  });

  it('answers text that is not JSON with problem details', async () => {
    const response = await fetch(`${lab.url}/api/v1/streams`, {
      method: 'POST',
      headers: { authorization: `Bearer ${operatorToken}`, 'content-type': 'application/json' },
      body: '{"name"',
    });
    expect(await response.json()).toMatchObject({ status: 400, code: 'REQUEST_INVALID' });
  });
});

describe('documents', () => {
  it('describes every route of the API as OpenAPI 3.1', async () => {
    const document: unknown = await (await lab.request('GET', '/api/openapi.json')).json();
    expect(document).toMatchObject({
      openapi: '3.1.0',
      paths: {
        '/api/v1/assets': {
          get: { security: [{ token: ['assets:read'] }, { session: ['assets:read'] }] },
          post: { responses: { 202: expect.anything() } },
        },
        '/api/v1/backend/watch': { get: { security: [{ node: ['backend'] }] } },
        '/api/v1/public/channels': { get: { security: [] } },
      },
    });
  });

  it('serves the page on the API without a script inside, under a policy that forbids them', async () => {
    const response = await lab.request('GET', '/api/docs/');
    expect(response.status).toBe(200);
    expect(response.headers.get('content-security-policy')).toMatch(/script-src 'self'(;|$)/);
    const page = await response.text();
    for (const [, attributes, code] of page.matchAll(/<script([^>]*)>([^<]*)<\/script>/g)) {
      expect(attributes).toContain('src=');
      expect(code?.trim()).toBe('');
    }
    const [script] = /[^"]*swagger-initializer.js/.exec(page) ?? [];
    expect((await fetch(new URL(script ?? '', `${lab.url}/api/docs/`))).status).toBe(200);
  });
});
