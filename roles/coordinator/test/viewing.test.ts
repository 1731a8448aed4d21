/** Private channels, viewing tokens, and who watches on all frontends, through the API. */
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CoordinatorClient } from '@starling/model/client';
import type { FrontendReport, FrontendState, ReportedViewer } from '@starling/model/entities';
import { ViewingTokenVerifier } from '@starling/model/viewing-token';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { addReadyAsset, type Lab, nodeToken, startLab } from './support.ts';

let lab: Lab;
beforeAll(async () => {
  lab = await startLab();
  await addReadyAsset(lab, 'film', 600);
  await lab.operator.channels.create({ name: 'open', loop: ['film'] });
  await lab.operator.channels.create({ name: 'closed', loop: ['film'], isPrivate: true, maxViewers: 3 });
}, 60_000);
afterAll(() => lab.close());

/** Follows what frontends are told until `isEnough`. */
async function follow(isEnough: (state: FrontendState) => boolean): Promise<FrontendState> {
  const stop = new AbortController();
  const deadline = setTimeout(() => stop.abort(), 5000);
  let last: FrontendState | undefined;
  await lab.node.watchFrontendState((state) => {
    last = state;
    if (isEnough(state)) stop.abort();
  }, stop.signal);
  clearTimeout(deadline);
  if (last === undefined || !isEnough(last)) throw new Error(`not so: ${JSON.stringify(last)}`);
  return last;
}

const present = () => follow(() => true);

describe('who may watch', () => {
  it('is changed and told to frontends at once', async () => {
    const { revision, channels } = await present();
    expect(channels).toMatchObject([
      { name: 'closed', isPrivate: true, maxViewers: 3 },
      { name: 'open', isPrivate: false, maxViewers: null },
    ]);
    expect(new Set(channels.map(({ nameKey }) => nameKey)).size).toBe(2);
    const changed = follow((state) => state.revision > revision);
    expect(await lab.operator.channels.update('open', { maxViewers: 9 })).toMatchObject({
      isPrivate: false,
      maxViewers: 9,
    });
    expect((await changed).channels[1]).toMatchObject({ name: 'open', isPrivate: false, maxViewers: 9 });
    await lab.operator.channels.update('open', { isPrivate: true, maxViewers: null });
    expect(await lab.operator.channels.get('open')).toMatchObject({ isPrivate: true, maxViewers: null });
    await lab.operator.channels.update('open', { isPrivate: false });
    await lab.operator.streams.create({ name: 'cam', isPrivate: true });
    expect(await lab.operator.channels.get('cam')).toMatchObject({ isPrivate: true });
  });

  it.each([
    [{}, 400],
    [{ isPrivate: 'yes' }, 400],
    [{ maxViewers: 0 }, 400],
    [{ name: 'x' }, 400],
  ])('is not changed by %j', async (body, status) => {
    const answer = await lab.request('PATCH', '/api/v1/channels/open', {
      token: 'operator-token-of-the-tests',
      body,
    });
    expect(answer.status).toBe(status);
  });

  it('of an unknown channel cannot be changed', async () => {
    await expect(lab.operator.channels.update('nobody', { isPrivate: true })).rejects.toMatchObject({
      code: 'CHANNEL_UNKNOWN',
    });
  });
});

describe('a viewing token', () => {
  const create = (change: object = {}) =>
    lab.operator.viewingTokens.create({ channels: ['closed'], expiresInSeconds: 3600, ...change });

  it('is shown once, can be checked with the keys that frontends get, and is not kept', async () => {
    const { viewingToken, token } = await create({ maxConcurrent: 2, name: 'Ada' });
    const expiresAtUnixMs = Math.floor(lab.nowMs / 1000) * 1000 + 3_600_000;
    expect(viewingToken).toEqual({
      id: expect.stringMatching(/^[0-9a-f]{18}$/),
      name: 'Ada',
      channels: ['closed'],
      maxConcurrent: 2,
      createdAt: new Date(lab.nowMs).toISOString(),
      expiresAt: new Date(expiresAtUnixMs).toISOString(),
      revokedAt: null,
    });
    expect(await lab.operator.viewingTokens.list()).toEqual([viewingToken]);
    const verifier = new ViewingTokenVerifier(() => lab.nowMs);
    verifier.setKeys((await present()).viewingTokenKeys);
    expect(await verifier.verify(token)).toEqual({
      id: viewingToken.id,
      channels: ['closed'],
      expiresAtUnixMs,
      maxConcurrent: 2,
    });
    const kept = (folder: string): string =>
      readdirSync(folder, { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map((entry) => readFileSync(join(entry.parentPath, entry.name), 'latin1'))
        .join();
    for (const text of [kept(lab.dataDir), lab.log.join()]) expect(text).not.toContain(token.split('.')[2]);
  });

  it('is not made for a channel that does not exist, or for ever', async () => {
    await expect(create({ channels: ['nobody'] })).rejects.toMatchObject({ code: 'CHANNEL_UNKNOWN' });
    await expect(create({ expiresInSeconds: 0 })).rejects.toMatchObject({ code: 'REQUEST_INVALID' });
    await expect(create({ channels: [] })).rejects.toMatchObject({ code: 'REQUEST_INVALID' });
  });

  it('is told to frontends when it is revoked, as long as it would be valid', async () => {
    lab.nowMs += 1000; // the newest in the list
    const { viewingToken } = await create();
    const told = follow(({ revokedTokenIds }) => revokedTokenIds.includes(viewingToken.id));
    await lab.operator.viewingTokens.revoke(viewingToken.id);
    await told;
    const [listed] = await lab.operator.viewingTokens.list();
    const revokedAt = new Date(lab.nowMs).toISOString();
    expect(listed).toMatchObject({ id: viewingToken.id, revokedAt });
    lab.nowMs += 3_599_000;
    await lab.operator.viewingTokens.revoke(viewingToken.id); // again: nothing changes
    expect((await lab.operator.viewingTokens.list())[0]?.revokedAt).toBe(revokedAt);
    lab.nowMs += 1000;
    await lab.operator.streams.rotateKey('cam');
    expect((await present()).revokedTokenIds).not.toContain(viewingToken.id);
    await expect(lab.operator.viewingTokens.revoke('nobody')).rejects.toMatchObject({
      code: 'VIEWING_TOKEN_UNKNOWN',
    });
  });

  it('stays valid when keys rotate; its key goes when it has expired', async () => {
    lab.nowMs += 24 * 3_600_000;
    await lab.operator.viewingTokens.rotateKey();
    const [first] = (await present()).viewingTokenKeys;
    await create();
    await lab.operator.viewingTokens.rotateKey();
    const keys = (await present()).viewingTokenKeys;
    expect(keys).toHaveLength(2);
    expect(keys[1]).toEqual(first);
    lab.nowMs += 3_600_001;
    await lab.operator.viewingTokens.rotateKey();
    expect((await present()).viewingTokenKeys.map(({ id }) => id)).not.toContain(first?.id);
  });

  it('opens the directory and the playlist of who shows it', async () => {
    const { token, viewingToken } = await create();
    const as = (shown?: string) => new CoordinatorClient({ baseUrl: lab.url, token: shown }).publicChannels;
    const names = async (shown?: string) => (await as(shown).list()).map(({ name }) => name);
    expect(await names()).toEqual(['open']);
    expect(await names(token)).toEqual(['closed', 'open']);
    expect(await names('operator-token-of-the-tests')).toEqual(['cam', 'closed', 'open']);
    expect(await as(token).get('closed')).toMatchObject({ name: 'closed', isPrivate: true, viewerCount: 0 });
    await expect(as().get('closed')).rejects.toMatchObject({ code: 'CHANNEL_UNKNOWN' });
    await expect(as(token).get('cam')).rejects.toMatchObject({ code: 'CHANNEL_UNKNOWN' });
    await expect(as('nonsense').get('closed')).rejects.toMatchObject({
      code: 'VIEWING_TOKEN_REFUSED',
      status: 404,
    });
    expect(await as('nonsense').get('open')).toMatchObject({ name: 'open' });

    const read = async (path: string) => (await fetch(`${lab.url}${path}`)).text();
    expect(await read('/playlist.m3u')).not.toContain('closed');
    const playlist = await read(`/playlist.m3u?token=${token}`);
    expect(playlist).toContain(`url-tvg="${lab.url}/guide.xml?token=${token}"`);
    expect(playlist).toContain(`${lab.url}/live/closed/index.m3u8?token=${token}\n`);
    expect(playlist).toContain(`${lab.url}/live/open/index.m3u8\n`);
    expect(await read(`/guide.xml?token=${token}`)).toContain('channel="closed"');
    expect(await read('/guide.xml')).not.toContain('closed');
    expect(await read('/playlist.m3u?token=nonsense')).not.toContain('token');

    await lab.operator.viewingTokens.revoke(viewingToken.id);
    expect(await names(token)).toEqual(['open']);
    await expect(as(token).get('closed')).rejects.toMatchObject({
      code: 'VIEWING_TOKEN_REFUSED',
      detail: 'The viewing token has been revoked.',
    });
  });

  it('and the keys outlive a restart, in a file that others cannot read', async () => {
    const { token } = await create();
    const before = await present();
    lab = await lab.restart();
    expect((await present()).viewingTokenKeys).toEqual(before.viewingTokenKeys);
    expect((await present()).channels).toEqual(before.channels);
    const viewer = new CoordinatorClient({ baseUrl: lab.url, token });
    expect(await viewer.publicChannels.get('closed')).toMatchObject({ name: 'closed' });
    expect(statSync(join(lab.dataDir, 'viewing-keys.json')).mode & 0o777).toBe(0o600);
  }, 60_000);
});

describe('who watches', () => {
  const id = (number: number) => `viewer-${String(number).padStart(9, '0')}`;
  const viewer = (number: number, change: Partial<ReportedViewer> = {}): ReportedViewer => ({
    id: id(number),
    channel: 'open',
    protocol: 'hls',
    rendition: 'main',
    address: '192.0.2.1',
    userAgent: 'player/1',
    sentBytes: 1000,
    latencyMs: 0,
    tokenId: null,
    startedAtUnixMs: 1000 * number,
    ...change,
  });
  const report = (frontendId: string, viewers: ReportedViewer[], change: Partial<FrontendReport> = {}) =>
    lab.node.reportFrontend({ frontendId, viewers, leftIds: [], isFresh: false, ...change });
  const ids = async (channel?: string) =>
    (await lab.operator.viewers.list(channel)).items.map((one) => one.id);

  beforeEach(() => {
    lab.nowMs += 60_000; // reports of the test before are stale
  });

  it('is merged: one viewer that asks two frontends counts once', async () => {
    expect(await report('frontend-a', [viewer(1), viewer(2)], { isFresh: true })).toMatchObject({
      isKnown: true,
    });
    await report('frontend-b', [
      viewer(2, { startedAtUnixMs: 2500, rendition: '720p' }),
      viewer(3, { channel: 'closed' }),
    ]);
    const { items, totals } = await lab.operator.viewers.list();
    expect(items.map((one) => one.id)).toEqual([id(3), id(2), id(1)]);
    const { startedAtUnixMs, ...fields } = viewer(2);
    expect(items[1]).toEqual({
      ...fields,
      rendition: '720p',
      sentBytes: 2000,
      startedAt: new Date(startedAtUnixMs).toISOString(),
    });
    expect(totals).toEqual([
      { channel: 'closed', viewerCount: 1 },
      { channel: 'open', viewerCount: 2 },
    ]);
    expect(await ids('closed')).toEqual([id(3)]);
    expect((await lab.operator.publicChannels.get('open')).viewerCount).toBe(2);
  });

  it('follows who comes and leaves, and forgets a frontend that says nothing', async () => {
    await report('frontend-a', [viewer(1), viewer(2)], { isFresh: true });
    await report('frontend-a', [viewer(3)], { leftIds: [id(1)] });
    expect(await ids()).toEqual([id(3), id(2)]);
    await report('frontend-a', [viewer(4)], { isFresh: true });
    expect(await ids()).toEqual([id(4)]);
    lab.nowMs += 6001;
    expect(await ids()).toEqual([]);
    expect(await report('frontend-a', [])).toMatchObject({ isKnown: false });
  });

  it('is shown out by a kick, which every frontend hears of', async () => {
    await report('frontend-a', [viewer(1), viewer(2)], { isFresh: true });
    const told = follow(({ endedViewerIds }) => endedViewerIds.includes(id(1)));
    await lab.operator.viewers.kick(id(1));
    await told;
    expect(await ids()).toEqual([id(2)]);
    await expect(lab.operator.viewers.kick(id(1))).rejects.toMatchObject({ code: 'VIEWER_UNKNOWN' });
  });

  it('is at most as many as the channel may have: who came last is shown out', async () => {
    const here = (number: number) => viewer(number, { channel: 'closed' });
    expect(await report('frontend-a', [here(11), here(14)], { isFresh: true })).toMatchObject({
      fullChannels: [],
    });
    expect(await report('frontend-b', [here(12)])).toMatchObject({ fullChannels: ['closed'] });
    expect((await present()).endedViewerIds).not.toContain(id(14));
    await report('frontend-b', [here(12), here(13)]);
    expect(await ids('closed')).toEqual([id(13), id(12), id(11)]);
    expect((await present()).endedViewerIds).toContain(id(14));
    expect(await report('frontend-b', [], { leftIds: [id(12)] })).toMatchObject({ fullChannels: [] });
  });

  it('is at most as many as the token allows, on all channels together', async () => {
    const { viewingToken } = await lab.operator.viewingTokens.create({
      channels: null,
      expiresInSeconds: 3600,
      maxConcurrent: 2,
    });
    const withIt = (number: number, channel: string) => viewer(number, { channel, tokenId: viewingToken.id });
    await report('frontend-a', [withIt(23, 'closed'), withIt(21, 'cam'), viewer(20)], { isFresh: true });
    expect(await report('frontend-b', [withIt(22, 'closed')])).toMatchObject({
      fullTokenIds: [viewingToken.id],
    });
    expect(await ids()).toEqual([id(22), id(21), id(20)]);
  });

  it('is told by the network itself only, in reports that fit', async () => {
    const tooMany = Array.from({ length: 501 }, (_, number) => viewer(number));
    await expect(report('frontend-a', tooMany)).rejects.toMatchObject({ code: 'REQUEST_INVALID' });
    const longest = viewer(1, { userAgent: '\u0001'.repeat(256), rendition: 'x'.repeat(64) });
    const full = Array.from({ length: 500 }, (_, number) => ({ ...longest, id: id(number) }));
    const leftIds = Array.from({ length: 5000 }, (_, number) => id(number + 1000));
    expect(await report('frontend-a', full, { leftIds, isFresh: true })).toMatchObject({ isKnown: true });
    expect(
      (await lab.request('POST', '/api/v1/frontend/report', { token: nodeToken, body: {} })).status,
    ).toBe(400);
  });
});

describe('the file with the keys', () => {
  it('says what to do when it is damaged', async () => {
    const { dataDir } = lab;
    await lab.coordinator.close();
    const path = join(dataDir, 'viewing-keys.json');
    const text = readFileSync(path, 'utf8');
    writeFileSync(path, '{}');
    await expect(startLab({ dataDir })).rejects.toThrow(/viewing-keys\.json is damaged\. Restore it/);
    writeFileSync(path, text);
    lab = await startLab({ dataDir });
  }, 60_000);
});
