/** Logging in with OpenID Connect, at a provider of another maker (oidc-provider, certified by the OpenID Foundation). */
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import Provider from 'oidc-provider';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { freePort } from '../../../tools/free-port.ts';
import { type Lab, startLab } from './support.ts';

const CALLBACK = '/api/v1/login/oidc/callback';
/** No port listens there: what comes back is read from the redirect, as a browser would. */
const SITE = 'http://127.0.0.1:9';

let lab: Lab;
let server: Server;
let issuer: string;
/** Who sits at the browser, and what the provider says of them. */
let person: { sub: string; claims: Record<string, unknown> };

beforeAll(async () => {
  const port = await freePort();
  issuer = `http://127.0.0.1:${port}`;
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: 'starling',
        client_secret: 'client-secret-of-the-tests',
        redirect_uris: [`${SITE}${CALLBACK}`],
      },
    ],
    claims: { openid: ['sub'], profile: ['preferred_username', 'groups', 'realm'] },
    pkce: { required: () => true },
    findAccount: (_context: unknown, sub: string) => ({
      accountId: sub,
      claims: () => ({ sub, ...person.claims }),
    }),
    cookies: { keys: ['for-the-cookies-of-the-provider'] },
    interactions: { url: (_context: unknown, { uid }: { uid: string }) => `/interaction/${uid}` },
    features: { devInteractions: { enabled: false } },
    // The client is ours: people are not asked whether it may know them.
    loadExistingGrant: async ({ oidc }) => {
      const clientId = oidc.client?.clientId;
      const accountId = oidc.session?.accountId;
      if (clientId === undefined || accountId === undefined) return undefined;
      const grant = new oidc.provider.Grant({ clientId, accountId });
      grant.addOIDCScope('openid profile email');
      await grant.save();
      return grant;
    },
  });
  const answer = provider.callback();
  server = createServer((request, response) => {
    if (!request.url?.startsWith('/interaction/')) return void answer(request, response);
    void provider.interactionFinished(request, response, { login: { accountId: person.sub } });
  });
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  lab = await startLab({
    oidc: {
      issuer,
      clientId: 'starling',
      clientSecret: 'client-secret-of-the-tests',
      siteUrl: SITE,
      label: 'Example Ltd',
      roleClaim: 'groups',
      roles: { operator: ['tv-admins'], editor: ['tv-editors'] },
      defaultRole: undefined,
      scopes: ['openid', 'profile', 'email'],
    },
  });
}, 60_000);
afterAll(async () => {
  await lab.close();
  server.close();
});
beforeEach(() => {
  person = { sub: 'u-1', claims: { preferred_username: 'Ada.Lovelace@example.org', groups: ['tv-editors'] } };
});

/** A browser: keeps cookies by host, and follows redirects until they lead back to the site. */
class Browser {
  readonly #cookies = new Map<string, Map<string, string>>();

  async get(url: string): Promise<Response> {
    const { origin } = new URL(url);
    const jar = this.#cookies.get(origin) ?? new Map<string, string>();
    this.#cookies.set(origin, jar);
    const cookie = [...jar].map(([name, value]) => `${name}=${value}`).join('; ');
    const response = await fetch(url, { redirect: 'manual', headers: { cookie } });
    for (const line of response.headers.getSetCookie()) {
      const [pair = '', ...attributes] = line.split(';').map((part) => part.trim());
      const at = pair.indexOf('=');
      const isGone = attributes.some((one) => /^(max-age=0|expires=.*1970)/i.test(one));
      if (isGone) jar.delete(pair.slice(0, at));
      else jar.set(pair.slice(0, at), pair.slice(at + 1));
    }
    return response;
  }

  cookieOf(name: string): string | undefined {
    return this.#cookies.get(lab.url)?.get(name);
  }

  /** @returns where the provider sends it back to */
  async logInThere(): Promise<URL> {
    let url = `${lab.url}/api/v1/login/oidc`;
    for (let steps = 0; steps < 10; steps++) {
      const response = await this.get(url);
      const { status } = response;
      expect({ url, status }).toMatchObject({
        status: expect.toSatisfy((code) => code === 302 || code === 303),
      });
      url = new URL(response.headers.get('location') ?? '', url).href;
      if (url.startsWith(SITE)) return new URL(url);
    }
    throw new Error(`still at ${url}`);
  }

  /** @returns where the site shows its page */
  async comeBack(back: URL): Promise<string> {
    const response = await this.get(`${lab.url}${back.pathname}${back.search}`);
    expect(response.status).toBe(302);
    return response.headers.get('location') ?? '';
  }

  async me(): Promise<unknown> {
    const response = await this.get(`${lab.url}/api/v1/me`);
    return response.status === 200 ? response.json() : response.status;
  }
}

async function logIn(): Promise<{ browser: Browser; page: string }> {
  const browser = new Browser();
  return { browser, page: await browser.comeBack(await browser.logInThere()) };
}

it('is offered to the page', async () => {
  const response = await lab.request('GET', '/api/v1/login/methods');
  expect(await response.json()).toEqual({ oidc: { label: 'Example Ltd' } });
});

it('makes an account with the role that the claims say, and finds it again', async () => {
  const { browser, page } = await logIn();
  expect(page).toBe('/login?from=outside');
  expect(await browser.me()).toMatchObject({
    account: 'ada-lovelace',
    role: 'editor',
    hasOneTimePassword: false,
  });
  person.claims = { preferred_username: 'ada.byron', groups: ['other', 'tv-admins'] };
  const again = await logIn();
  expect(await again.browser.me()).toMatchObject({ account: 'ada-lovelace', role: 'operator' });
  // Somebody else of the same name is somebody else.
  person = { sub: 'u-2', claims: { preferred_username: 'ada.lovelace', groups: ['tv-editors'] } };
  const other = await logIn();
  expect(await other.browser.me()).toMatchObject({
    account: expect.stringMatching(/^ada-lovelace-[0-9a-f]{8}$/),
    role: 'editor',
  });
  const entries = await lab.operator.audit({ noun: 'login' });
  expect(entries.items[0]).toMatchObject({
    verb: 'succeeded',
    actorKind: 'account',
    request: `GET ${CALLBACK}`,
  });
});

it('never takes an account that has a password here', async () => {
  await lab.operator.accounts.create({ name: 'boss', role: 'operator', password: 'correct horse battery' });
  person = { sub: 'u-3', claims: { preferred_username: 'boss', groups: ['tv-editors'] } };
  const { browser } = await logIn();
  expect(await browser.me()).toMatchObject({ account: expect.stringMatching(/^boss-/), role: 'editor' });
  expect((await lab.operator.accounts.list()).find(({ name }) => name === 'boss')?.role).toBe('operator');
});

it('lets in nobody without a role, nor whose account is disabled', async () => {
  person = { sub: 'u-4', claims: { preferred_username: 'eve', groups: 'visitors' } };
  const none = await logIn();
  expect(none.page).toBe('/login?refused=OIDC_NO_ROLE');
  expect(await none.browser.me()).toBe(401);
  person.claims = { preferred_username: 'eve', groups: 'tv-editors' };
  await logIn();
  await lab.operator.accounts.update('eve', { isDisabled: true });
  expect((await logIn()).page).toBe('/login?refused=OIDC_REFUSED');
});

it('refuses another state, another nonce, a code twice, and a browser that did not begin', async () => {
  const refused = '/login?refused=OIDC_REFUSED';
  const browser = new Browser();
  const back = await browser.logInThere();
  const changed = new URL(back);
  changed.searchParams.set('state', 'x'.repeat(43));
  expect(await browser.comeBack(changed)).toBe(refused);
  // The attempt is over, also with the right state.
  expect(await browser.comeBack(back)).toBe(refused);

  const victim = new Browser();
  expect(await victim.comeBack(await new Browser().logInThere())).toBe(refused);
  expect(await victim.me()).toBe(401);

  // An own code brought into the attempt of somebody else: the state fits, the PKCE verifier and the nonce do not.
  const attacker = await new Browser().logInThere();
  const mine = new Browser();
  const own = await mine.logInThere();
  own.searchParams.set('code', attacker.searchParams.get('code') ?? '');
  expect(await mine.comeBack(own)).toBe(refused);
  const issuerMixUp = new Browser();
  const mixed = await issuerMixUp.logInThere();
  mixed.searchParams.set('iss', 'https://evil.example');
  expect(await issuerMixUp.comeBack(mixed)).toBe(refused);
});

it('asks with a code challenge, a state and a nonce, and keeps the verifier from scripts', async () => {
  const response = await lab.request('GET', '/api/v1/login/oidc');
  const url = new URL(response.headers.get('location') ?? '');
  expect(url.origin).toBe(issuer);
  expect(Object.fromEntries(url.searchParams)).toMatchObject({
    response_type: 'code',
    client_id: 'starling',
    redirect_uri: `${SITE}${CALLBACK}`,
    code_challenge_method: 'S256',
    code_challenge: expect.stringMatching(/^[\w-]{43}$/),
    state: expect.stringMatching(/^[\w-]{43}$/),
    nonce: expect.stringMatching(/^[\w-]{43}$/),
  });
  const cookie = response.headers.get('set-cookie') ?? '';
  expect(cookie).toMatch(/^starling-oidc=[\w-]+; Path=\/; HttpOnly; SameSite=Lax; Max-Age=600$/);
  const behindTls = await lab.request('GET', '/api/v1/login/oidc', {
    headers: { 'x-forwarded-proto': 'https' },
  });
  expect(behindTls.headers.get('set-cookie')).toMatch(/^__Host-starling-oidc=.*; Secure$/);
});

it('says so when the provider is gone, and writes no secret into the log', async () => {
  expect(lab.log.join('')).not.toContain('client-secret-of-the-tests');
  server.closeAllConnections();
  await new Promise((done) => server.close(done));
  lab.nowMs += 2 * 3600 * 1000;
  const response = await lab.request('GET', '/api/v1/login/oidc');
  expect(response.headers.get('location')).toBe('/login?refused=OIDC_UNAVAILABLE');
});
