/**
 * Who may call which route: every route of the OpenAPI document and every registered one, with every kind of caller. What is
 * expected is written down here once more; a route without an entry fails.
 */
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type NewApiToken, type Role, type Scope, scopes } from '@starling/model/account';
import { nodeRoles } from '@starling/model/node';
import { NodeProver, newNodeIdentity } from '@starling/model/node-identity';
import type { FastifyInstance } from 'fastify';
import { Type } from 'typebox';
import { Parse } from 'typebox/value';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Access } from '../src/access.ts';
import { joinNode, type Lab, logIn, nodeToken, operatorToken, startLab } from './support.ts';

/** What a route asks for, and its answer to who has it: to a request without a body, about things that there are not. */
const expected: Record<string, readonly [Access, status: number]> = {
  'GET /api/v1/assets': ['assets:read', 200],
  'POST /api/v1/assets': ['assets:write', 400],
  'GET /api/v1/assets/:id': ['assets:read', 404],
  'DELETE /api/v1/assets/:id': ['assets:write', 404],
  'POST /api/v1/assets/:id/cancel': ['assets:write', 404],
  'POST /api/v1/assets/:id/retry': ['assets:write', 404],
  'GET /api/v1/assets/:id/files/:fileName': ['assets:read', 404],
  'GET /api/v1/library/settings': ['library:read', 200],
  'PATCH /api/v1/library/settings': ['library:write', 400],
  'GET /api/v1/library/folders': ['library:read', 200],
  'POST /api/v1/library/folders': ['library:write', 400],
  'DELETE /api/v1/library/folders/:id': ['library:write', 404],
  'GET /api/v1/channels': ['channels:read', 200],
  'POST /api/v1/channels': ['channels:write', 400],
  'GET /api/v1/channels/:name': ['channels:read', 404],
  'PATCH /api/v1/channels/:name': ['channels:write', 400],
  'PUT /api/v1/channels/:name/sources': ['channels:write', 400],
  'POST /api/v1/channels/:name/source': ['channels:write', 400],
  'DELETE /api/v1/channels/:name': ['channels:write', 404],
  'GET /api/v1/channels/:name/schedule': ['schedules:read', 404],
  'PUT /api/v1/channels/:name/schedule': ['schedules:write', 400],
  'GET /api/v1/channels/:name/schedule/preview': ['schedules:read', 404],
  'GET /api/v1/streams': ['streams:read', 200],
  'POST /api/v1/streams': ['streams:write', 400],
  'PATCH /api/v1/streams/:name': ['streams:write', 400],
  'DELETE /api/v1/streams/:name': ['streams:write', 404],
  'POST /api/v1/streams/:name/rotate-key': ['streams:write', 404],
  'GET /api/v1/viewing-tokens': ['viewing-tokens:read', 200],
  'POST /api/v1/viewing-tokens': ['viewing-tokens:write', 400],
  'DELETE /api/v1/viewing-tokens/:id': ['viewing-tokens:write', 404],
  'POST /api/v1/viewing-tokens/rotate-key': ['viewing-tokens:write', 204],
  'GET /api/v1/viewers': ['viewers:read', 200],
  'GET /api/v1/viewer-sessions': ['viewers:read', 200],
  'DELETE /api/v1/viewers/:id': ['viewers:write', 404],
  'GET /api/v1/status': ['status:read', 200],
  'GET /api/v1/webhooks': ['webhooks:read', 200],
  'POST /api/v1/webhooks': ['webhooks:write', 400],
  'DELETE /api/v1/webhooks/:id': ['webhooks:write', 404],
  'POST /api/v1/webhooks/:id/rotate-secret': ['webhooks:write', 404],
  'GET /api/v1/webhooks/:id/deliveries': ['webhooks:read', 404],
  'GET /api/v1/alarms': ['alarms:read', 200],
  'GET /api/v1/alarms/settings': ['alarms:read', 200],
  'PATCH /api/v1/alarms/settings': ['alarms:write', 400],
  'POST /api/v1/alarms/test': ['alarms:write', 202],
  'GET /api/v1/alarms/:id': ['alarms:read', 404],
  'POST /api/v1/alarms/:id/acknowledge': ['alarms:write', 404],
  'POST /api/v1/alarms/:id/resolve': ['alarms:write', 404],
  'GET /api/v1/logs': ['logs:read', 200],
  'POST /api/v1/node/logs': ['node', 400],
  'POST /api/v1/node/health': ['node', 400],
  'GET /metrics': ['status:read', 200],
  'POST /api/v1/login': ['public', 400],
  'GET /api/v1/login/methods': ['public', 200],
  'GET /api/v1/login/oidc': ['public', 302],
  'GET /api/v1/login/oidc/callback': ['public', 302],
  'POST /api/v1/logout': ['signed-in', 204],
  'GET /api/v1/me': ['signed-in', 200],
  'GET /api/v1/me/sessions': ['signed-in', 200],
  'DELETE /api/v1/me/sessions/:id': ['signed-in', 404],
  'POST /api/v1/me/password': ['signed-in', 400],
  'POST /api/v1/me/viewing-token': ['signed-in', 200],
  'POST /api/v1/me/second-factor': ['signed-in', 400],
  'POST /api/v1/me/second-factor/confirm': ['signed-in', 400],
  'POST /api/v1/me/second-factor/remove': ['signed-in', 400],
  'GET /api/v1/accounts': ['accounts:read', 200],
  'POST /api/v1/accounts': ['accounts:write', 400],
  'GET /api/v1/accounts/:name': ['accounts:read', 404],
  'PATCH /api/v1/accounts/:name': ['accounts:write', 400],
  'POST /api/v1/accounts/:name/password': ['accounts:write', 400],
  'DELETE /api/v1/accounts/:name/sessions': ['accounts:write', 404],
  'DELETE /api/v1/accounts/:name': ['accounts:write', 404],
  'GET /api/v1/api-tokens': ['api-tokens:read', 200],
  'POST /api/v1/api-tokens': ['api-tokens:write', 400],
  'DELETE /api/v1/api-tokens/:id': ['api-tokens:write', 404],
  'GET /api/v1/audit': ['audit:read', 200],
  'GET /api/v1/backup': ['backup:read', 200],
  'GET /api/v1/destinations': ['destinations:read', 200],
  'POST /api/v1/destinations': ['destinations:write', 400],
  'GET /api/v1/destinations/:name': ['destinations:read', 404],
  'PATCH /api/v1/destinations/:name': ['destinations:write', 400],
  'DELETE /api/v1/destinations/:name': ['destinations:write', 404],
  'GET /api/v1/recordings': ['recordings:read', 200],
  'POST /api/v1/recordings': ['recordings:write', 400],
  'GET /api/v1/recordings/:id': ['recordings:read', 400],
  'DELETE /api/v1/recordings/:id': ['recordings:write', 400],
  'POST /api/v1/recordings/:id/stop': ['recordings:write', 400],
  'POST /api/v1/recordings/:id/import': ['recordings:write', 400],
  'GET /api/v1/recordings/:id/file': ['recordings:read', 400],
  'GET /api/v1/leases': ['status:read', 200],
  'PUT /api/v1/leases/:nodeId': ['backend', 400],
  'DELETE /api/v1/leases/:nodeId': ['backend', 400],
  'GET /api/v1/nodes': ['nodes:read', 200],
  'GET /api/v1/nodes/:name': ['nodes:read', 404],
  'DELETE /api/v1/nodes/:name': ['nodes:write', 404],
  'POST /api/v1/nodes/:name/cordon': ['nodes:write', 404],
  'POST /api/v1/nodes/:name/uncordon': ['nodes:write', 404],
  'POST /api/v1/nodes/:name/drain': ['nodes:write', 404],
  'POST /api/v1/nodes/:name/restart': ['nodes:write', 404],
  'GET /api/v1/node-invitations': ['nodes:read', 200],
  'POST /api/v1/node-invitations': ['nodes:write', 400],
  'DELETE /api/v1/node-invitations/:id': ['nodes:write', 404],
  'POST /api/v1/node/join': ['public', 400],
  'GET /api/v1/node/watch': ['node', 200],
  'POST /api/v1/node/report': ['node', 400],
  'POST /api/v1/backend/recordings': ['backend', 400],
  'GET /healthz': ['public', 200],
  'GET /readyz': ['public', 200],
  'GET /api/v1/public/channels': ['public', 200],
  'GET /api/v1/public/channels/:name': ['public', 404],
  'GET /api/v1/public/guide': ['public', 200],
  'GET /api/v1/backend/watch': ['backend', 200],
  'POST /api/v1/backend/imports/:assetId': ['backend', 400],
  'POST /api/v1/backend/folders/:id': ['backend', 400],
  'POST /api/v1/backend/report': ['backend', 400],
  'GET /api/v1/frontend/watch': ['frontend', 200],
  'POST /api/v1/frontend/report': ['frontend', 400],
  'GET /playlist.m3u': ['public', 200],
  'GET /guide.xml': ['public', 200],
  'GET /guide.xml.gz': ['public', 200],
  'GET /discover.json': ['public', 200],
  'GET /lineup.json': ['public', 200],
  'GET /lineup_status.json': ['public', 200],
  'POST /lineup.post': ['public', 200],
  'GET /device.xml': ['public', 200],
  'GET /api/openapi.json': ['public', 200],
  'GET /api/docs': ['public', 200],
  'GET /api/docs/json': ['public', 200],
  'GET /api/docs/yaml': ['public', 200],
  'GET /api/docs/static/*': ['public', 404],
  'GET /api/docs/static/index.html': ['public', 302],
  'GET /api/docs/static/swagger-initializer.js': ['public', 200],
  'GET /*': ['public', 404],
};

/** What a role has; `own`: with its own things only. */
const rights: Record<Role, readonly Scope[]> = {
  operator: scopes,
  editor: [
    'assets:read',
    'assets:write',
    'library:read',
    'recordings:read',
    'recordings:write',
    'channels:read',
    'channels:write',
    'schedules:read',
    'schedules:write',
    'streams:read',
    'alarms:read',
    'status:read',
  ],
  streamer: ['streams:read', 'streams:write'],
  viewer: [],
};
const roles = ['operator', 'editor', 'streamer', 'viewer'] as const;
const PASSWORD = 'correct horse battery';

const routes = new Set<string>();
const collectRoutes = (message: unknown) => {
  const { fastify } = message as { fastify: FastifyInstance };
  fastify.addHook('onRoute', ({ method, url }) => {
    for (const one of [method].flat()) routes.add(`${one} ${url}`);
  });
};

const Document = Type.Object({
  paths: Type.Record(
    Type.String(),
    Type.Record(
      Type.String(),
      Type.Object({
        security: Type.Optional(Type.Array(Type.Record(Type.String(), Type.Array(Type.String())))),
      }),
    ),
  ),
});

let lab: Lab;
/** Of the OpenAPI document, with what it says that they ask for. */
const documented = new Map<string, Access>();
beforeAll(async () => {
  subscribe('fastify.initialization', collectRoutes);
  const webDir = mkdtempSync(join(tmpdir(), 'starling-site-'));
  writeFileSync(join(webDir, 'index.html'), '<title>site</title>');
  lab = await startLab({ webDir });
  unsubscribe('fastify.initialization', collectRoutes);
  for (const role of roles)
    await lab.operator.accounts.create({
      name: role === 'operator' ? 'boss' : role,
      role,
      password: PASSWORD,
    });
  const { paths } = Parse(Document, await (await lab.request('GET', '/api/openapi.json')).json());
  for (const [path, operations] of Object.entries(paths)) {
    for (const [method, { security = [] }] of Object.entries(operations)) {
      const [first] = security;
      const scope = scopes.find((known) => known === first?.token?.[0]);
      const machine = (['frontend', 'backend'] as const).find((role) => role === first?.node?.[0]);
      const access =
        first === undefined ? 'public' : 'node' in first ? (machine ?? 'node') : (scope ?? 'signed-in');
      documented.set(`${method.toUpperCase()} ${path.replace(/\{(\w+)\}/g, ':$1')}`, access);
    }
  }
  return () => rmSync(webDir, { recursive: true });
}, 60_000);
afterAll(() => lab.close());

/** HEAD routes follow their GET routes, and a final slash makes no difference. */
const expectedOf = (route: string) => expected[route.replace(/^HEAD /, 'GET ').replace(/(\w)\/$/, '$1')];

it('knows every registered route', () => {
  expect(routes.size).toBeGreaterThan(20);
  expect([...routes].filter((route) => expectedOf(route) === undefined)).toEqual([]);
  expect(Object.keys(expected).filter((route) => !routes.has(route))).toEqual([]);
});

it('knows every route of the OpenAPI document, which says what it asks for', () => {
  expect(documented.size).toBeGreaterThan(50);
  const known = [...documented.keys()].map((route) => [route, expected[route]?.[0]]);
  expect(known).toEqual([...documented]);
  // Whatever asks for anything is in the document.
  const guarded = Object.keys(expected).filter((route) => expected[route]?.[0] !== 'public');
  expect(guarded.filter((route) => !documented.has(route))).toEqual([]);
});

/** Who asks: what the request carries, and what the answer depends on. */
interface Asker {
  readonly headers: Record<string, string>;
  /** Undefined: nobody that the network knows. */
  readonly has: readonly Access[] | undefined;
}

const all: readonly Access[] = [...scopes, 'signed-in'];
const bearer = (token: string) => ({ authorization: `Bearer ${token}` });
const makeToken = async (wanted: Partial<NewApiToken>) =>
  lab.operator.apiTokens.create({ name: 'test', scopes: [...scopes], expiresInSeconds: 60, ...wanted });

/** @param passingMs goes by after the login */
async function sessionOf(name: string, passingMs: number) {
  const headers = await logIn(lab, name, PASSWORD);
  lab.nowMs += passingMs;
  return headers;
}

const MINUTE_MS = 60_000;
const askers: Record<string, () => Promise<Asker>> = {
  'no token': async () => ({ headers: {}, has: undefined }),
  'a wrong token': async () => ({ headers: bearer('operator-token-of-the-testt'), has: undefined }),
  'a token that looks like one for programs': async () => ({
    headers: bearer(`sat_${'x'.repeat(43)}`),
    has: undefined,
  }),
  'a cookie that is none': async () => ({
    headers: { cookie: `starling=${'x'.repeat(43)}` },
    has: undefined,
  }),
  'the node token': async () => ({ headers: bearer(nodeToken), has: ['node', 'frontend', 'backend'] }),
  ...Object.fromEntries(
    nodeRoles.map((role) => [
      `the key of a ${role}`,
      async () => {
        const { prover } = await joinNode(lab, role);
        const has: readonly Access[] = role === 'balancer' ? ['node'] : ['node', role];
        return { headers: bearer(await prover.proofFor('coordinator')), has };
      },
    ]),
  ),
  'a proof that is for somebody else': async () => {
    const { prover } = await joinNode(lab, 'backend');
    return { headers: bearer(await prover.proofFor('push:0123456789abcdef')), has: undefined };
  },
  'a proof that is old': async () => {
    const { prover } = await joinNode(lab, 'backend');
    const headers = bearer(await prover.proofFor('coordinator'));
    lab.nowMs += 3 * MINUTE_MS;
    return { headers, has: undefined };
  },
  'a proof of a node that another key signed': async () => {
    const { identity } = await joinNode(lab, 'backend');
    const stranger = new NodeProver(await newNodeIdentity(identity.nodeId), () => lab.nowMs);
    return { headers: bearer(await stranger.proofFor('coordinator')), has: undefined };
  },
  'a proof of a node that nobody let in': async () => {
    const stranger = new NodeProver(await newNodeIdentity(), () => lab.nowMs);
    return { headers: bearer(await stranger.proofFor('coordinator')), has: undefined };
  },
  'the operator token': async () => ({ headers: bearer(operatorToken), has: all }),
  ...Object.fromEntries(
    roles.flatMap((role) => {
      const name = role === 'operator' ? 'boss' : role;
      const has = [...rights[role], 'signed-in'] as const;
      return [
        [`a session of the ${role}`, async () => ({ headers: await sessionOf(name, 0), has })],
        [
          `a session of the ${role} that was idle`,
          async () => ({ headers: await sessionOf(name, 60 * MINUTE_MS), has: undefined }),
        ],
      ];
    }),
  ),
  'a session that is half a day old, and was always used': async () => {
    const headers = await sessionOf('boss', 0);
    for (let minutes = 0; minutes < 12 * 60; minutes += 30) {
      expect((await lab.request('GET', '/api/v1/me', { headers })).status).toBe(200);
      lab.nowMs += 30 * MINUTE_MS;
    }
    return { headers, has: undefined };
  },
  'a session that has ended': async () => {
    const headers = await sessionOf('boss', 0);
    await lab.request('POST', '/api/v1/logout', { headers });
    return { headers, has: undefined };
  },
  'a session with a one-time password': async () => {
    const { password } = await lab.operator.accounts.create({ name: 'new', role: 'operator' });
    return { headers: await logIn(lab, 'new', password ?? ''), has: ['signed-in'] };
  },
  'a session of an account that was disabled': async () => {
    const headers = await sessionOf('editor', 0);
    await lab.operator.accounts.update('editor', { isDisabled: true });
    return { headers, has: undefined };
  },
  'a token with every scope': async () => ({ headers: bearer((await makeToken({})).token), has: all }),
  'a token that has expired': async () => {
    const { token } = await makeToken({});
    lab.nowMs += 61_000;
    return { headers: bearer(token), has: undefined };
  },
  'a token that was revoked': async () => {
    const { token, apiToken } = await makeToken({});
    expect((await lab.request('GET', '/api/v1/me', { token })).status).toBe(200);
    await lab.operator.apiTokens.revoke(apiToken.id);
    return { headers: bearer(token), has: undefined };
  },
  'a token of a streamer': async () => {
    const { token } = await makeToken({ account: 'streamer', scopes: ['streams:read'] });
    return { headers: bearer(token), has: ['streams:read', 'signed-in'] };
  },
  'a token of an account that lost the right': async () => {
    await lab.operator.accounts.create({ name: 'former', role: 'operator', password: PASSWORD });
    const { token } = await makeToken({ account: 'former', scopes: ['webhooks:read', 'channels:read'] });
    await lab.operator.accounts.update('former', { role: 'editor' });
    return { headers: bearer(token), has: ['channels:read', 'signed-in'] };
  },
};

async function statusOf(route: string, headers: Record<string, string>) {
  const [method = '', url = ''] = route.split(' ');
  const abort = new AbortController();
  const response = await fetch(`${lab.url}${url.replace(/:\w+/g, 'x1').replace('*', 'x1')}`, {
    method,
    headers,
    signal: abort.signal,
    redirect: 'manual',
  });
  const { status } = response;
  const challenge = response.headers.get('www-authenticate');
  abort.abort();
  return { status, challenge };
}

function expectedStatus(route: string, has: readonly Access[] | undefined): number {
  const [access, status] = expectedOf(route) ?? ['public', 0];
  if (access === 'public' || has?.includes(access)) return status;
  return has === undefined ? 401 : 403;
}

/** What every route answers; logging out comes last, for it ends the session. */
async function statusesOf(headers: Record<string, string>): Promise<Record<string, number>> {
  const entryOf = async (route: string): Promise<[string, number]> => {
    const { status, challenge } = await statusOf(route, headers);
    if (status === 401) expect(challenge).toMatch(/^Bearer/);
    return [route, status];
  };
  const last = 'POST /api/v1/logout';
  const entries = await Promise.all([...routes].filter((route) => route !== last).map(entryOf));
  return Object.fromEntries([...entries, await entryOf(last)]);
}

const expectedStatuses = (has: readonly Access[] | undefined) =>
  Object.fromEntries([...routes].map((route) => [route, expectedStatus(route, has)]));

describe.each(Object.entries(askers))('with %s', (_name, prepare) => {
  it('every route answers as it should', async () => {
    const { headers, has } = await prepare();
    expect(await statusesOf(headers)).toEqual(expectedStatuses(has));
  });
});

describe('with a token of one scope', () => {
  it.each(scopes)('%s opens the routes that ask for it, and no other', async (scope) => {
    const { token } = await makeToken({ scopes: [scope] });
    expect(await statusesOf(bearer(token))).toEqual(expectedStatuses([scope, 'signed-in']));
  });
});

it('a session changes nothing on behalf of another site', async () => {
  const { cookie = '' } = await sessionOf('boss', 0);
  const unsafe = [...routes].filter((route) => !/^(GET|HEAD) /.test(route));
  const foreign: Record<string, string>[] = [
    { 'sec-fetch-site': 'cross-site' },
    { 'sec-fetch-site': 'same-site' },
    { origin: 'https://evil.example' },
    { origin: 'null' },
    {},
  ];
  for (const route of unsafe) {
    for (const headers of foreign) {
      expect({ route, headers, ...(await statusOf(route, { cookie, ...headers })) }).toMatchObject({
        status: 403,
      });
    }
  }
  const own = await statusOf('POST /api/v1/logout', { cookie, origin: lab.url });
  expect(own.status).toBe(204);
});

describe("another account's things", () => {
  const things: Record<string, unknown> = {
    'PATCH /api/v1/streams/:name': { owner: 'streamer' },
    'POST /api/v1/streams/:name/rotate-key': undefined,
    'DELETE /api/v1/streams/:name': undefined,
  };

  it('has an entry for every route about one thing that a role may do with its own only', () => {
    const own = [...documented].filter(
      ([route, access]) => /^streams:/.test(access) && route.includes(':name'),
    );
    expect(Object.keys(things).sort()).toEqual(own.map(([route]) => route).sort());
  });

  it('is not there for a streamer, in lists neither, while its own is', async () => {
    const headers = await sessionOf('streamer', 0);
    await lab.operator.accounts.create({ name: 'other', role: 'streamer', password: PASSWORD });
    await lab.operator.streams.create({ name: 'theirs', owner: 'other' });
    await lab.operator.streams.create({ name: 'nobodys' });
    const added = await lab.request('POST', '/api/v1/streams', { headers, body: { name: 'mine' } });
    expect(await added.json()).toMatchObject({ stream: { name: 'mine', owner: 'streamer' } });
    const list: unknown = await (await lab.request('GET', '/api/v1/streams', { headers })).json();
    expect(list).toMatchObject({ items: [{ name: 'mine' }] });
    for (const [route, body] of Object.entries(things)) {
      const [method = '', path = ''] = route.split(' ');
      const statusFor = async (name: string) => {
        const { status } = await lab.request(method, path.replace(':name', name), { headers, body });
        return status;
      };
      expect({ route, theirs: await statusFor('theirs'), nobodys: await statusFor('nobodys') }).toEqual({
        route,
        theirs: 404,
        nobodys: 404,
      });
      // Its own it may not give away either.
      expect({ route, mine: await statusFor('mine') }).toEqual({
        route,
        mine: method === 'PATCH' ? 403 : method === 'DELETE' ? 204 : 200,
      });
    }
    expect((await lab.operator.streams.list()).map(({ name }) => name)).toEqual(['nobodys', 'theirs']);
  });

  it.each([
    ['the stream of somebody else', { owner: 'other' }],
    ['an address that the backend fetches', { input: { type: 'pull', url: 'http://10.0.0.1/x.flv' } }],
    ['a port that the backend opens', { input: { type: 'srt-listener', port: 9000 } }],
    ['an encoder', { transcode: { preset: 'veryfast', encoder: 'x264' } }],
  ])('a streamer does not add %s', async (_what, wanted) => {
    const headers = await sessionOf('streamer', 0);
    const { status } = await lab.request('POST', '/api/v1/streams', {
      headers,
      body: { name: 'more', ...wanted },
    });
    expect(status).toBe(403);
  });
});

it.each(['Basic b3A6b3A=', 'Bearer', 'Bearer ', `Bearer ${operatorToken} x`, `Token ${operatorToken}`])(
  'takes %j for no token',
  async (authorization) => {
    const response = await fetch(`${lab.url}/api/v1/assets`, { headers: { authorization } });
    expect(response.status).toBe(401);
  },
);

describe('the site', () => {
  it('answers a page address with the site, and an unknown file with a problem', async () => {
    const page = await fetch(`${lab.url}/watch/demo`, { headers: { accept: 'text/html,*/*' } });
    expect(await page.text()).toContain('<title>site</title>');
    expect(page.headers.get('cache-control')).toBe('no-cache');
    const script = await fetch(`${lab.url}/assets/gone.js`);
    expect(script.status).toBe(404);
    const api = await fetch(`${lab.url}/api/v1/gone`, { headers: { accept: 'text/html' } });
    expect(api.headers.get('content-type')).toMatch(/problem\+json/);
  });

  it.each([
    '/',
    '/watch/demo',
    '/login',
    '/api/docs',
    '/assets/gone.js',
    '/api/v1/gone',
    '/api/v1/me',
    '/guide.xml',
  ])('%s has the security headers', async (path) => {
    const { headers } = await fetch(`${lab.url}${path}`, { headers: { accept: 'text/html,*/*' } });
    expect(headers.get('content-security-policy')).toMatch(/default-src 'self'.*script-src 'self'(;|$)/);
    expect(headers.get('x-content-type-options')).toBe('nosniff');
    expect(headers.get('referrer-policy')).toBe('no-referrer');
    expect(headers.get('x-frame-options')).toBe('SAMEORIGIN');
  });
});

it('gives what was read a tag, and does not send it again to who has it', async () => {
  const read = (tag?: string) =>
    fetch(`${lab.url}/api/v1/streams`, {
      headers: {
        authorization: `Bearer ${operatorToken}`,
        ...(tag === undefined ? {} : { 'if-none-match': tag }),
      },
    });
  const first = await read();
  const tag = first.headers.get('etag') ?? '';
  expect(tag).toMatch(/^"[\w-]{27}"$/);
  const second = await read(`"other", W/${tag}`);
  expect([second.status, await second.text(), second.headers.get('etag')]).toEqual([304, '', tag]);
  await lab.operator.streams.create({ name: 'tagged' });
  const third = await read(tag);
  expect(third.status).toBe(200);
  expect(third.headers.get('etag')).not.toBe(tag);
});
