/** Requests that are sent twice, and changes of what somebody else has changed. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Lab, operatorToken, startLab, writtenBytes } from './support.ts';

let lab: Lab;
beforeAll(async () => {
  lab = await startLab();
}, 60_000);
afterAll(() => lab.close());

const KEY = '0d9f7c2e-6a53-4a9b-8a7b-1e6f0c2d4b58';

interface Reply {
  readonly status: number;
  readonly body: unknown;
  readonly isReplayed: boolean;
  readonly location: string | null;
}

async function send(
  method: string,
  path: string,
  {
    body,
    headers = {},
    token = operatorToken,
  }: { body?: unknown; headers?: Record<string, string>; token?: string },
): Promise<Reply> {
  const response = await lab.request(method, `/api/v1${path}`, { token, body, headers });
  const text = await response.text();
  return {
    status: response.status,
    body: text === '' ? undefined : JSON.parse(text),
    isReplayed: response.headers.get('idempotency-replayed') === 'true',
    location: response.headers.get('location'),
  };
}

const post = (path: string, body: unknown, key: string, token?: string) =>
  send('POST', path, { body, headers: { 'idempotency-key': key }, ...(token !== undefined && { token }) });

describe('a POST with an idempotency key', () => {
  it('is done once, and answered the same again, the key of a stream included', async () => {
    const first = await post('/streams', { name: 'cam' }, KEY);
    expect(first).toMatchObject({ status: 201, isReplayed: false });
    const again = await post('/streams', { name: 'cam' }, KEY);
    expect(again).toEqual({ ...first, isReplayed: true });
    expect(await lab.operator.streams.list()).toHaveLength(1);
    // Without a key it is a new request.
    expect(await send('POST', '/streams', { body: { name: 'cam' } })).toMatchObject({ status: 409 });
    const added = await post('/accounts', { name: 'ada', role: 'viewer' }, `${KEY}-2`);
    expect(await post('/accounts', { name: 'ada', role: 'viewer' }, `${KEY}-2`)).toEqual({
      ...added,
      isReplayed: true,
    });
    expect(added.location).toBe('/api/v1/accounts/ada');
  });

  it('outlasts a restart, for a day', async () => {
    const first = await post('/streams', { name: 'late' }, `${KEY}-late`);
    lab = await lab.restart();
    expect(await post('/streams', { name: 'late' }, `${KEY}-late`)).toEqual({ ...first, isReplayed: true });
    lab.nowMs += 25 * 3600 * 1000;
    expect(await post('/streams', { name: 'late' }, `${KEY}-late`)).toMatchObject({
      status: 409,
      body: { code: 'CHANNEL_EXISTS' },
    });
    // The request failed, and so it may be made again.
    await lab.operator.streams.remove('late');
    expect(await post('/streams', { name: 'late' }, `${KEY}-late`)).toMatchObject({
      status: 201,
      isReplayed: false,
    });
  });

  it('of which several come at once is done once', async () => {
    const replies = await Promise.all(
      Array.from({ length: 8 }, () => post('/webhooks', { url: 'http://127.0.0.1:1/hook' }, `${KEY}-many`)),
    );
    const done = replies.filter(({ status }) => status === 201);
    expect(done.length).toBeGreaterThan(0);
    expect(new Set(done.map(({ body }) => JSON.stringify(body))).size).toBe(1);
    for (const { status, body } of replies)
      if (status !== 201)
        expect({ status, body }).toMatchObject({ status: 409, body: { code: 'IDEMPOTENCY_KEY_IN_USE' } });
    expect(await lab.operator.webhooks.list()).toHaveLength(1);
  });

  it('with another body, or at another address, is refused', async () => {
    await post('/streams', { name: 'one' }, `${KEY}-reused`);
    for (const [path, body] of [
      ['/streams', { name: 'two' }],
      ['/webhooks', { name: 'one' }],
      ['/streams?x=1', { name: 'one' }],
    ] as const) {
      const reply = await post(path, body, `${KEY}-reused`);
      expect(reply.status).toBeGreaterThanOrEqual(400);
      if (path !== '/webhooks')
        expect(reply).toMatchObject({ status: 422, body: { code: 'IDEMPOTENCY_KEY_REUSED' } });
    }
    expect((await lab.operator.streams.list()).map(({ name }) => name)).not.toContain('two');
  });

  it('belongs to who sent it', async () => {
    const { token } = await lab.operator.apiTokens.create({
      name: 'other',
      scopes: ['streams:write'],
      expiresInSeconds: 600,
    });
    const own = await post('/streams', { name: 'mine' }, `${KEY}-whose`);
    expect(own.status).toBe(201);
    const other = await post('/streams', { name: 'mine' }, `${KEY}-whose`, token);
    expect(other).toMatchObject({ status: 409, isReplayed: false, body: { code: 'CHANNEL_EXISTS' } });
  });

  it.each(['short', 'x'.repeat(129), 'sixteen characters with spaces'])('%j is none', async (key) => {
    expect(await post('/streams', { name: 'bad' }, key)).toMatchObject({
      status: 400,
      body: { code: 'REQUEST_INVALID' },
    });
  });

  it('is not kept, nor is an answer in clear', async () => {
    const { body } = await post('/streams', { name: 'secret' }, `${KEY}-secret`);
    const { key } = body as { key: string };
    const written = await writtenBytes(lab);
    expect(written.includes(key)).toBe(false);
    expect(written.includes(`${KEY}-secret`)).toBe(false);
    expect(lab.log.filter((line) => line.includes(key) || line.includes(KEY))).toEqual([]);
  });
});

describe('a change with If-Match', () => {
  const read = async (path: string) => {
    const response = await lab.request('GET', `/api/v1${path}`, { token: operatorToken });
    return response.headers.get('etag') ?? '';
  };
  const change = (path: string, body: unknown, tag: string) =>
    send('PATCH', path, { body, headers: { 'if-match': tag } });
  const refused = { status: 412, body: { code: 'PRECONDITION_FAILED' } };

  beforeAll(async () => {
    await lab.operator.streams.create({ name: 'shared' });
  });

  it('is made when it is what was read, and refused when it is not any more', async () => {
    const tag = await read('/channels/shared');
    expect(await change('/channels/shared', { title: 'Mine' }, tag)).toMatchObject({ status: 200 });
    expect(await change('/channels/shared', { title: 'Theirs' }, tag)).toMatchObject(refused);
    expect(
      await change('/channels/shared', { title: 'Theirs' }, `"x", ${await read('/channels/shared')}`),
    ).toMatchObject({
      status: 200,
      body: { title: 'Theirs' },
    });
    expect(await change('/channels/shared', { title: 'Any' }, '*')).toMatchObject({ status: 200 });
    // Weak tags are not enough: RFC 9110, 13.1.1.
    expect(
      await change('/channels/shared', { title: 'Weak' }, `W/${await read('/channels/shared')}`),
    ).toMatchObject(refused);
  });

  it('of which several come at once is made once', async () => {
    const tag = await read('/channels/shared');
    const replies = await Promise.all(
      Array.from({ length: 8 }, (_, index) => change('/channels/shared', { title: `T${index}` }, tag)),
    );
    expect(replies.map(({ status }) => status).sort()).toEqual([200, ...Array(7).fill(412)]);
  });

  it('is refused where there is nothing, or nothing that can be read', async () => {
    expect(await change('/channels/gone', { title: 'x' }, '*')).toMatchObject(refused);
    const removal = await send('DELETE', '/webhooks/none', { headers: { 'if-match': '*' } });
    expect(removal).toMatchObject(refused);
  });

  it('removes what was read, and not what it has become', async () => {
    const tag = await read('/accounts/ada');
    await lab.operator.accounts.update('ada', { role: 'editor' });
    expect(await send('DELETE', '/accounts/ada', { headers: { 'if-match': tag } })).toMatchObject(refused);
    const now = await read('/accounts/ada');
    expect(await send('DELETE', '/accounts/ada', { headers: { 'if-match': now } })).toMatchObject({
      status: 204,
    });
  });
});
