import { createHmac } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { FrontendState } from '@starling/model/entities';
import { newSigningKey, type SigningKey, signViewingToken } from '@starling/model/viewing-token';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { SegmentNames } from '../src/segment-names.ts';
import { shownToken, ViewingAccess } from '../src/viewing-access.ts';

const NAME_KEY = 'k'.repeat(43);
let key: SigningKey;
let token: string;
let nowUnixMs = Date.now();
let access: ViewingAccess;

const state = (change: Partial<FrontendState> = {}): FrontendState => ({
  revision: 1,
  channels: [
    { name: 'open', isPrivate: false, maxViewers: 7, nameKey: NAME_KEY },
    { name: 'closed', isPrivate: true, maxViewers: null, nameKey: NAME_KEY },
  ],
  viewingTokenKeys: [{ id: key.id, x: key.x }],
  revokedTokenIds: [],
  endedViewerIds: [],
  ...change,
});

beforeAll(async () => {
  key = await newSigningKey();
  const claims = { id: 't', channels: ['closed'], expiresAtUnixMs: Date.now() + 3_600_000, maxConcurrent: 2 };
  token = await signViewingToken(key, { ...claims, name: undefined, issuedAtUnixMs: Date.now() });
});
beforeEach(() => {
  nowUnixMs = Date.now();
  access = new ViewingAccess({ isAlone: false, nowUnixMs: () => nowUnixMs });
});

const admit = (channel: string, text?: string, isInAddress = true) =>
  access.admit(channel, text === undefined ? undefined : { token: text, isInAddress });

describe('before the first state', () => {
  it('nothing is served, a token or none', async () => {
    expect(access.isKnown).toBe(false);
    expect(await admit('open')).toMatchObject({ status: 503 });
    expect(await admit('closed', token)).toMatchObject({ status: 503 });
    expect(access.mediaFile('open', 'main/1.m4s')).toBeUndefined();
  });

  it('a frontend that stands alone serves everything under plain names', async () => {
    access = new ViewingAccess({ isAlone: true });
    expect(access.isKnown).toBe(true);
    expect(await admit('anything')).toEqual({ pass: undefined });
    expect(access.mediaAddress('anything', '1.m4s')).toBe('1.m4s');
    expect(access.mediaFile('anything', 'main/1.m4s')).toBe('main/1.m4s');
    expect(access.mayStay('anything', undefined)).toBe(true);
  });
});

describe('a public channel', () => {
  beforeEach(() => access.update(state()));

  it('is for everybody, at once, whatever they show', () => {
    for (const shown of [undefined, token, 'nonsense'])
      expect(admit('open', shown)).toEqual({ pass: undefined });
    expect(access.maxViewersOf('open')).toBe(7);
    expect(access.mediaAddress('open', '1.m4s')).toBe('1.m4s');
    expect(access.mediaFile('open', 'main/1.m4s')).toBe('main/1.m4s');
  });
});

it('a channel that the state does not name is not served', () => {
  access.update(state());
  expect(admit('unknown', token)).toMatchObject({ status: 404 });
  expect(access.mediaFile('unknown', 'main/1.m4s')).toBeUndefined();
});

describe('a private channel', () => {
  beforeEach(() => access.update(state()));

  it('opens with a token, the second time without a promise', async () => {
    const pass = { tokenId: 't', maxConcurrent: 2, tokenInAddress: token };
    expect(await admit('closed', token)).toMatchObject({ pass });
    expect(admit('closed', token)).toMatchObject({ pass });
    expect(admit('closed', token, false)).toMatchObject({ pass: { tokenInAddress: undefined } });
    expect(access.maxViewersOf('closed')).toBeUndefined();
  });

  it.each([
    ['no token', undefined, 401],
    ['nonsense', 'nonsense', 403],
  ])('stays closed to %s', (_, shown, status) => {
    expect(admit('closed', shown)).toMatchObject({ status });
  });

  it('stays closed to a token for other channels', async () => {
    const { channels } = state();
    access.update(state({ channels: channels.map((channel) => ({ ...channel, isPrivate: true })) }));
    expect(await admit('open', token)).toMatchObject({
      status: 403,
      text: 'The viewing token is for other channels.',
    });
  });

  it('closes when the token is revoked or expires, and lets nobody stay', async () => {
    const admitted = await admit('closed', token);
    if ('status' in admitted) throw new Error(admitted.text);
    expect(access.mayStay('closed', admitted.pass)).toBe(true);
    access.update(state({ revokedTokenIds: ['t'] }));
    expect(admit('closed', token)).toMatchObject({
      status: 403,
      text: 'The viewing token has been revoked.',
    });
    expect(access.mayStay('closed', admitted.pass)).toBe(false);
    expect(access.mayStay('open', admitted.pass)).toBe(true);
    access.update(state());
    nowUnixMs = admitted.pass?.expiresAtUnixMs ?? 0;
    expect(access.mayStay('closed', admitted.pass)).toBe(false);
    expect(admit('closed', token)).toMatchObject({ status: 403, text: 'The viewing token has expired.' });
  });

  it('lets nobody stay who came when it was public', () => {
    expect(access.mayStay('closed', undefined)).toBe(false);
  });

  it('gives its media files under names that nobody can guess, and takes them under no others', () => {
    const address = access.mediaAddress('closed', '12.3.m4s');
    expect(address).toMatch(/^[\w-]{22}\/12\.3\.m4s$/);
    expect(access.mediaFile('closed', `main/${address}`)).toBe('main/12.3.m4s');
    expect(access.mediaFile('closed', 'main/12.3.m4s')).toBeUndefined();
    expect(access.mediaFile('closed', `main/${address.replace('12.3', '13.3')}`)).toBeUndefined();
    expect(access.mediaFile('closed', `main/${'A'.repeat(22)}/12.3.m4s`)).toBeUndefined();
    const { channels } = state();
    access.update(state({ channels: channels.map((channel) => ({ ...channel, isPrivate: false })) }));
    expect(access.mediaFile('closed', `main/${address}`)).toBe('main/12.3.m4s');
    expect(access.mediaFile('closed', 'main/12.3.m4s')).toBe('main/12.3.m4s');
  });
});

describe('the folder of a segment', () => {
  it('is 128 bits of an HMAC of its number, the same for all its parts', () => {
    const names = new SegmentNames(NAME_KEY);
    const folder = createHmac('sha256', NAME_KEY).update('12').digest().subarray(0, 16).toString('base64url');
    expect(names.inFolder('12.m4s')).toBe(`${folder}/12.m4s`);
    expect(names.inFolder('12.0.m4s')).toBe(`${folder}/12.0.m4s`);
    expect(new SegmentNames('j'.repeat(43)).inFolder('12.m4s')).not.toBe(`${folder}/12.m4s`);
    expect(names.withoutFolder(`${folder}/12.m4s`)).toBe('12.m4s');
    expect(names.withoutFolder(`video/720p/${folder}/12.m4s`)).toBe('video/720p/12.m4s');
  });

  it('is found however many were asked for', () => {
    const names = new SegmentNames(NAME_KEY);
    const address = names.inFolder('0.m4s');
    for (let number = 1; number < 5000; number++) names.withoutFolder(`${'A'.repeat(22)}/${number}.m4s`);
    expect(names.withoutFolder(address)).toBe('0.m4s');
  });
});

it.each([
  ['/live/x.flv', undefined, undefined],
  ['/live/x.flv?token=a.b.c&only=audio', undefined, { token: 'a.b.c', isInAddress: true }],
  ['/live/x.flv?token=', undefined, { token: '', isInAddress: true }],
  ['/live/x.flv?only=audio', 'Bearer a.b.c', { token: 'a.b.c', isInAddress: false }],
  ['/live/x.flv?token=a', 'Bearer b', { token: 'a', isInAddress: true }],
  ['/live/x.flv?mytoken=a', undefined, undefined],
  ['/live/x.flv', 'Basic b', undefined],
])('the token of %s with %j', (url, authorization, expected) => {
  const request = { url, headers: { authorization } } as unknown as IncomingMessage;
  expect(shownToken(request)).toEqual(expected);
});
