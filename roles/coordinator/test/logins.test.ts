/** Logging in as people do: passwords, sessions, locks, the second factor; and how often one may ask. */
import { TOTP } from 'otpauth';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type Lab, logIn, nodeToken, operatorToken, startLab, writtenBytes } from './support.ts';

const PASSWORD = 'correct horse battery';
const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;

let lab: Lab;
beforeAll(async () => {
  lab = await startLab();
}, 60_000);
afterAll(() => lab.close());
/** So that locks and limits of one test are over in the next. */
beforeEach(() => {
  lab.nowMs += 25 * HOUR_MS;
});

let accountCount = 0;
async function newAccount(role: 'operator' | 'editor' = 'editor'): Promise<string> {
  const name = `person-${++accountCount}`;
  await lab.operator.accounts.create({ name, role, password: PASSWORD });
  return name;
}

async function attempt(
  name: string,
  password: string,
  { code, from }: { code?: string; from?: string } = {},
): Promise<{ status: number; code: string | undefined; retryAfter: string | null; headers: Headers }> {
  const response = await lab.request('POST', '/api/v1/login', {
    body: { name, password, ...(code === undefined ? {} : { code }) },
    headers: from === undefined ? {} : { 'x-forwarded-for': from },
  });
  const { headers, status } = response;
  const body: unknown = await response.json();
  const problem = typeof body === 'object' && body !== null && 'code' in body ? String(body.code) : undefined;
  return { status, code: problem, retryAfter: headers.get('retry-after'), headers };
}

const me = (headers: Record<string, string>) => lab.request('GET', '/api/v1/me', { headers });

describe('the first account', () => {
  it('is made once, with a password that has to be replaced before anything else', async () => {
    const first = lab.coordinator.firstAccount;
    expect(first?.name).toBe('operator');
    const password = first?.password ?? '';
    expect(password).toMatch(/^([a-z2-9]{4}-){4}[a-z2-9]{4}$/);
    const headers = await logIn(lab, 'operator', password);
    expect(await (await me(headers)).json()).toMatchObject({ role: 'operator', hasOneTimePassword: true });
    const early = await lab.request('GET', '/api/v1/accounts', { headers });
    expect(await early.json()).toMatchObject({ status: 403, code: 'PASSWORD_CHANGE_NEEDED' });
    const change = { password, newPassword: PASSWORD };
    const changed = await lab.request('POST', '/api/v1/me/password', { headers, body: change });
    expect(changed.status).toBe(204);
    // Every session has ended, this one too.
    expect((await me(headers)).status).toBe(401);
    expect((await attempt('operator', password)).code).toBe('LOGIN_FAILED');
    const later = await logIn(lab, 'operator', PASSWORD);
    expect((await lab.request('GET', '/api/v1/accounts', { headers: later })).status).toBe(200);
    lab = await lab.restart();
    expect(lab.coordinator.firstAccount).toBeUndefined();
    expect((await me(later)).status).toBe(200);
  });

  it('is not locked out by itself: the last operator stays one', async () => {
    for (const change of [{ role: 'editor' } as const, { isDisabled: true }])
      await expect(lab.operator.accounts.update('operator', change)).rejects.toMatchObject({
        code: 'ACCOUNT_IS_LAST_OPERATOR',
      });
    await expect(lab.operator.accounts.remove('operator')).rejects.toMatchObject({
      code: 'ACCOUNT_IS_LAST_OPERATOR',
    });
  });
});

describe('a session', () => {
  it('is a cookie that no script reads and no other site sends', async () => {
    const name = await newAccount();
    const plain = (await attempt(name, PASSWORD)).headers.get('set-cookie');
    expect(plain).toMatch(/^starling=[\w-]{43}; Path=\/; HttpOnly; SameSite=Strict; Max-Age=43200$/);
    const secure = await lab.request('POST', '/api/v1/login', {
      body: { name, password: PASSWORD },
      headers: { 'x-forwarded-proto': 'https', 'x-forwarded-for': '203.0.113.7' },
    });
    expect(secure.headers.get('set-cookie')).toMatch(
      /^__Host-starling=[\w-]{43}; Path=\/; HttpOnly; SameSite=Strict; Max-Age=43200; Secure$/,
    );
    expect(secure.headers.get('cache-control')).toBe('no-store');
  });

  it('is in a list with the others of its account, each of which can be ended', async () => {
    const name = await newAccount();
    const [here, there, third] = [
      await logIn(lab, name, PASSWORD),
      await logIn(lab, name, PASSWORD),
      await logIn(lab, name, PASSWORD),
    ];
    const stranger = await logIn(lab, await newAccount(), PASSWORD);
    type Listed = { items: { id: string; isThisOne: boolean }[] };
    const list = async (headers: Record<string, string>) =>
      ((await (await lab.request('GET', '/api/v1/me/sessions', { headers })).json()) as Listed).items;
    const all = await list(here);
    expect(all).toHaveLength(3);
    expect(all.filter(({ isThisOne }) => isThisOne)).toHaveLength(1);
    const other = (await list(there)).find(({ isThisOne }) => isThisOne)?.id ?? '';
    const end = (headers: Record<string, string>) =>
      lab.request('DELETE', `/api/v1/me/sessions/${other}`, { headers });
    // Another account's is not there.
    expect((await end(stranger)).status).toBe(404);
    expect((await end(here)).status).toBe(204);
    expect([(await me(here)).status, (await me(there)).status, (await me(third)).status]).toEqual([
      200, 401, 200,
    ]);
    await lab.operator.accounts.logOut(name);
    expect([(await me(here)).status, (await me(third)).status, (await me(stranger)).status]).toEqual([
      401, 401, 200,
    ]);
  });

  it('is not begun by another site', async () => {
    const name = await newAccount();
    for (const headers of [{ 'sec-fetch-site': 'cross-site' }, { origin: 'https://evil.example' }]) {
      const body = { name, password: PASSWORD };
      expect((await lab.request('POST', '/api/v1/login', { body, headers })).status).toBe(403);
    }
  });

  it('ends with the account', async () => {
    const name = await newAccount();
    const headers = await logIn(lab, name, PASSWORD);
    expect((await me(headers)).status).toBe(200);
    await lab.operator.accounts.remove(name);
    expect((await me(headers)).status).toBe(401);
  });

  it('goes on with the new role at once', async () => {
    const name = await newAccount('operator');
    const headers = await logIn(lab, name, PASSWORD);
    expect((await lab.request('GET', '/api/v1/accounts', { headers })).status).toBe(200);
    await lab.operator.accounts.update(name, { role: 'viewer' });
    expect((await lab.request('GET', '/api/v1/accounts', { headers })).status).toBe(403);
  });

  it('shows a viewer the private channels that the account was given', async () => {
    await lab.operator.streams.create({ name: 'given', isPrivate: true });
    await lab.operator.streams.create({ name: 'kept', isPrivate: true });
    await lab.operator.accounts.create({
      name: 'viewer',
      role: 'viewer',
      password: PASSWORD,
      channels: ['given'],
    });
    const headers = await logIn(lab, 'viewer', PASSWORD);
    const list = await lab.request('GET', '/api/v1/public/channels', { headers });
    expect(await list.json()).toMatchObject({ items: [{ name: 'given' }] });
    expect((await lab.request('GET', '/api/v1/public/channels/kept', { headers })).status).toBe(404);
    // What frontends ask for.
    const made = await lab.request('POST', '/api/v1/me/viewing-token', { headers });
    const { token }: { token: string } = JSON.parse(await made.text());
    const withToken = await lab.request('GET', '/api/v1/public/channels', { token });
    expect(await withToken.json()).toMatchObject({ items: [{ name: 'given' }] });
    expect(await lab.operator.viewingTokens.list()).toMatchObject([{ name: 'viewer', channels: ['given'] }]);
    lab.nowMs += 1000;
    const editor = await logIn(lab, await newAccount(), PASSWORD);
    const forAll = await lab.request('POST', '/api/v1/me/viewing-token', { headers: editor });
    expect((await lab.operator.viewingTokens.list())[0]?.channels).toEqual(['given', 'kept']);
    expect(forAll.status).toBe(200);
    await lab.operator.accounts.update('viewer', { channels: [] });
    const none = await lab.request('POST', '/api/v1/me/viewing-token', { headers });
    expect(await none.json()).toEqual({ token: null });
  });
});

describe('guessing', () => {
  it('locks the account, for longer each time, and nobody else', async () => {
    const name = await newAccount();
    for (let i = 0; i < 5; i++) expect((await attempt(name, 'wrong')).status).toBe(401);
    expect(await attempt(name, PASSWORD)).toMatchObject({
      status: 429,
      code: 'LOGIN_LOCKED',
      retryAfter: '30',
    });
    lab.nowMs += 30_000;
    expect((await attempt(name, 'wrong')).status).toBe(401);
    expect(await attempt(name, PASSWORD)).toMatchObject({ code: 'LOGIN_LOCKED', retryAfter: '60' });
    expect((await attempt(await newAccount(), PASSWORD)).status).toBe(200);
    lab.nowMs += 60_000;
    expect((await attempt(name, PASSWORD)).status).toBe(200);
    // What was wrong before counts no more.
    for (let i = 0; i < 4; i++) await attempt(name, 'wrong');
    expect((await attempt(name, PASSWORD)).status).toBe(200);
  });

  it('at a name that nobody has gets the same answers', async () => {
    for (let i = 0; i < 5; i++) {
      expect(await attempt('nobody', 'wrong')).toMatchObject({ status: 401, code: 'LOGIN_FAILED' });
    }
    expect(await attempt('nobody', 'wrong')).toMatchObject({ code: 'LOGIN_LOCKED', retryAfter: '30' });
    expect((await attempt('O\u0000 or 1=1 --', 'wrong')).status).toBe(400);
  });

  it('at many accounts locks the address', async () => {
    const from = '203.0.113.99';
    for (let i = 0; i < 20; i++) expect((await attempt(`guess-${i}`, 'wrong', { from })).status).toBe(401);
    expect((await attempt(await newAccount(), PASSWORD, { from })).code).toBe('LOGIN_LOCKED');
    expect((await attempt(await newAccount(), PASSWORD, { from: '203.0.113.100' })).status).toBe(200);
  });

  // 20,000 take half a minute.
  const attempts = process.env.STARLING_SOAK === '1' ? 20_000 : 2000;
  it(`${attempts} times locks the account and not the service`, async () => {
    const name = await newAccount();
    const other = await newAccount();
    const statuses = new Map<number, number>();
    let left = attempts;
    let checks = 0;
    const attack = async () => {
      while (left > 0) {
        const number = --left;
        // Each from an address of its own, the hardest case.
        const from = `198.51.${number >> 8}.${number & 255}`;
        const { status } = await attempt(name, `wrong ${number}`, { from });
        statuses.set(status, (statuses.get(status) ?? 0) + 1);
        if (number % 1000 === 500) {
          expect((await lab.request('GET', '/api/v1/channels', { token: operatorToken })).status).toBe(200);
          checks++;
        }
      }
    };
    await Promise.all(Array.from({ length: 40 }, attack));
    expect(checks).toBe(attempts / 1000);
    expect(statuses.get(401)).toBeLessThanOrEqual(6); // two may be on their way when the fifth is counted
    expect(statuses.get(401)).toBeGreaterThanOrEqual(5);
    expect([...statuses.keys()].filter((status) => ![401, 429, 503].includes(status))).toEqual([]);
    expect((await attempt(name, PASSWORD)).code).toBe('LOGIN_LOCKED');
    expect((await attempt(other, PASSWORD)).status).toBe(200);
  }, 120_000);
});

describe('the second factor', () => {
  const codeAt = (secret: string) => new TOTP({ secret }).generate({ timestamp: lab.nowMs });

  async function withSecondFactor() {
    const name = await newAccount();
    const headers = await logIn(lab, name, PASSWORD);
    const post = (path: string, body: unknown) =>
      lab.request('POST', `/api/v1/me/second-factor${path}`, { headers, body });
    const { secret, uri }: { secret: string; uri: string } = JSON.parse(
      await (await post('', { password: PASSWORD })).text(),
    );
    expect(uri).toContain(`otpauth://totp/Starling:${name}?`);
    // Not before it was tried out.
    expect((await attempt(name, PASSWORD)).status).toBe(200);
    expect((await post('/confirm', { code: '000000' })).status).toBe(403);
    const confirmed = await post('/confirm', { code: codeAt(secret) });
    const { recoveryCodes }: { recoveryCodes: string[] } = JSON.parse(await confirmed.text());
    expect(recoveryCodes).toHaveLength(10);
    return { name, headers, secret, recoveryCodes, post };
  }

  it('is asked for after the password, and takes each code once', async () => {
    const { name, secret } = await withSecondFactor();
    expect(await attempt(name, PASSWORD)).toMatchObject({ status: 401, code: 'CODE_NEEDED' });
    expect((await attempt(name, 'wrong')).code).toBe('LOGIN_FAILED');
    // The code that confirmed it has been used.
    expect((await attempt(name, PASSWORD, { code: codeAt(secret) })).code).toBe('LOGIN_FAILED');
    lab.nowMs += 30_000;
    const code = codeAt(secret);
    expect((await attempt(name, PASSWORD, { code })).status).toBe(200);
    expect((await attempt(name, PASSWORD, { code })).code).toBe('LOGIN_FAILED');
    lab.nowMs += 5 * MINUTE_MS;
    const both = codeAt(secret);
    const racing = await Promise.all([1, 2].map(() => attempt(name, PASSWORD, { code: both })));
    expect(racing.map(({ status }) => status).sort()).toEqual([200, 401]);
  });

  it('can be replaced by each recovery code once', async () => {
    const { name, recoveryCodes } = await withSecondFactor();
    const [code = ''] = recoveryCodes;
    expect((await attempt(name, PASSWORD, { code: code.toUpperCase() })).status).toBe(200);
    expect((await attempt(name, PASSWORD, { code })).code).toBe('LOGIN_FAILED');
  });

  it('locks the account when it is guessed', async () => {
    const { name } = await withSecondFactor();
    for (let i = 0; i < 5; i++) {
      expect((await attempt(name, PASSWORD, { code: 'aaaaaaaa' })).code).toBe('LOGIN_FAILED');
    }
    expect((await attempt(name, PASSWORD, { code: 'aaaaaaaa' })).code).toBe('LOGIN_LOCKED');
  });

  it('is taken away by who has the password, or by an operator', async () => {
    const one = await withSecondFactor();
    expect((await one.post('', { password: PASSWORD })).status).toBe(409);
    expect((await one.post('/remove', { password: 'wrong' })).status).toBe(403);
    expect((await one.post('/remove', { password: PASSWORD })).status).toBe(204);
    expect((await attempt(one.name, PASSWORD)).status).toBe(200);
    const other = await withSecondFactor();
    await lab.operator.accounts.update(other.name, { hasSecondFactor: false });
    expect((await attempt(other.name, PASSWORD)).status).toBe(200);
  });
});

it('no password, session or token is in the log or the database', async () => {
  const name = await newAccount();
  const { cookie = '' } = await logIn(lab, name, PASSWORD);
  const { token } = await lab.operator.apiTokens.create({
    name: 'test',
    scopes: ['status:read'],
    expiresInSeconds: 60,
  });
  expect((await lab.request('GET', '/api/v1/status', { token })).status).toBe(200);
  const { password } = await lab.operator.accounts.resetPassword(name);
  const kept = Buffer.concat([await writtenBytes(lab), Buffer.from(lab.log.join(''))]);
  for (const secret of [PASSWORD, cookie.split('=')[1] ?? 'no cookie', token, password ?? 'none'])
    expect(kept.includes(secret)).toBe(false);
  expect(kept.includes('$argon2id$v=19$m=19456,t=2,p=1$')).toBe(true);
});

describe('an API token', () => {
  it('gives away no scope that its maker does not have', async () => {
    const { token } = await lab.operator.apiTokens.create({
      name: 'maker',
      scopes: ['api-tokens:write', 'channels:read'],
      expiresInSeconds: 60,
    });
    const make = (scope: string) =>
      lab.request('POST', '/api/v1/api-tokens', {
        token,
        body: { name: 'x', scopes: [scope], expiresInSeconds: 60 },
      });
    expect((await make('channels:read')).status).toBe(201);
    expect(await (await make('channels:write')).json()).toMatchObject({ code: 'SCOPE_NOT_HELD' });
    const editor = await newAccount();
    await expect(
      lab.operator.apiTokens.create({
        name: 'x',
        scopes: ['audit:read'],
        expiresInSeconds: 60,
        account: editor,
      }),
    ).rejects.toMatchObject({ code: 'SCOPE_NOT_HELD' });
  });
});

describe('limits', () => {
  const ask = (from: string, headers: Record<string, string> = {}) =>
    lab.request('GET', '/api/v1/public/channels/none', { headers: { 'x-forwarded-for': from, ...headers } });

  it('2,000 requests in 5 minutes from one address, a /64 of IPv6, and then 429', async () => {
    const first = await ask('203.0.113.1');
    expect(first.headers.get('ratelimit-limit')).toBe('2000');
    expect(first.headers.get('ratelimit-remaining')).toBe('1999');
    expect(first.headers.get('ratelimit-reset')).toBe('300');
    await Promise.all(Array.from({ length: 1999 }, () => ask('203.0.113.1').then((one) => one.text())));
    lab.nowMs += 100_000;
    const refused = await ask('203.0.113.1');
    expect(refused.status).toBe(429);
    expect(refused.headers.get('retry-after')).toBe('200');
    expect(refused.headers.get('ratelimit-remaining')).toBe('0');
    expect(await refused.json()).toMatchObject({ code: 'RATE_LIMITED' });
    expect((await ask('203.0.113.2')).status).toBe(404);
    await ask('2001:db8:0:1::1');
    const neighbour = await ask('2001:db8::1:ffff:0:0:2');
    expect(neighbour.headers.get('ratelimit-remaining')).toBe('1998');
    expect((await ask('2001:db8:0:2::1')).headers.get('ratelimit-remaining')).toBe('1999');
    // The fleet and this machine are not held up, whatever they say of themselves.
    expect((await ask('203.0.113.1', { authorization: `Bearer ${nodeToken}` })).status).toBe(404);
    expect(
      (await lab.request('GET', '/api/v1/public/channels/none')).headers.get('ratelimit-limit'),
    ).toBeNull();
    expect((await ask('127.0.0.1, 203.0.113.1')).status).toBe(429);
    const disguised = await lab.request('GET', '/%61pi/v1/public/channels/none', {
      headers: { 'x-forwarded-for': '203.0.113.1' },
    });
    expect(disguised.status).toBe(429);
    lab.nowMs += 200_000;
    expect((await ask('203.0.113.1')).status).toBe(404);
  });

  it('ten new streams a minute, whoever asks from elsewhere', async () => {
    await lab.operator.accounts.create({ name: 'streamer', role: 'streamer', password: PASSWORD });
    const headers = await logIn(lab, 'streamer', PASSWORD);
    const add = (i: number) =>
      lab.request('POST', '/api/v1/streams', { headers, body: { name: `stream-${i}` } });
    for (let i = 0; i < 10; i++) {
      const response = await add(i);
      expect(response.status).toBe(201);
      expect(response.headers.get('ratelimit-limit')).toBe('10');
      expect(response.headers.get('ratelimit-remaining')).toBe(String(9 - i));
    }
    const refused = await add(10);
    expect(refused.status).toBe(429);
    expect(refused.headers.get('retry-after')).toBe('60');
    expect((await me(headers)).status).toBe(200);
    lab.nowMs += MINUTE_MS;
    expect((await add(10)).status).toBe(201);
  });
});
