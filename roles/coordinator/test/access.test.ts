/** Who may call which route: every registered route, with every kind of token. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { FastifyInstance } from 'fastify';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Access } from '../src/access.ts';
import { type Lab, nodeToken, operatorToken, startLab } from './support.ts';

const expected: Record<string, Access> = {
  'GET /api/v1/assets': 'operator',
  'POST /api/v1/assets': 'operator',
  'GET /api/v1/assets/:id': 'operator',
  'DELETE /api/v1/assets/:id': 'operator',
  'POST /api/v1/assets/:id/cancel': 'operator',
  'POST /api/v1/assets/:id/retry': 'operator',
  'GET /api/v1/assets/:id/files/:fileName': 'operator',
  'GET /api/v1/library/settings': 'operator',
  'PATCH /api/v1/library/settings': 'operator',
  'GET /api/v1/library/folders': 'operator',
  'POST /api/v1/library/folders': 'operator',
  'DELETE /api/v1/library/folders/:id': 'operator',
  'GET /api/v1/channels': 'operator',
  'POST /api/v1/channels': 'operator',
  'GET /api/v1/channels/:name': 'operator',
  'PATCH /api/v1/channels/:name': 'operator',
  'PUT /api/v1/channels/:name/sources': 'operator',
  'POST /api/v1/channels/:name/source': 'operator',
  'DELETE /api/v1/channels/:name': 'operator',
  'GET /api/v1/channels/:name/schedule': 'operator',
  'PUT /api/v1/channels/:name/schedule': 'operator',
  'GET /api/v1/channels/:name/schedule/preview': 'operator',
  'GET /api/v1/streams': 'operator',
  'POST /api/v1/streams': 'operator',
  'DELETE /api/v1/streams/:name': 'operator',
  'POST /api/v1/streams/:name/rotate-key': 'operator',
  'GET /api/v1/viewing-tokens': 'operator',
  'POST /api/v1/viewing-tokens': 'operator',
  'DELETE /api/v1/viewing-tokens/:id': 'operator',
  'POST /api/v1/viewing-tokens/rotate-key': 'operator',
  'GET /api/v1/viewers': 'operator',
  'DELETE /api/v1/viewers/:id': 'operator',
  'GET /api/v1/backup': 'operator',
  'GET /api/v1/status': 'operator',
  'GET /api/v1/destinations': 'operator',
  'POST /api/v1/destinations': 'operator',
  'GET /api/v1/destinations/:name': 'operator',
  'PATCH /api/v1/destinations/:name': 'operator',
  'DELETE /api/v1/destinations/:name': 'operator',
  'GET /api/v1/webhooks': 'operator',
  'POST /api/v1/webhooks': 'operator',
  'DELETE /api/v1/webhooks/:id': 'operator',
  'GET /api/v1/webhooks/:id/deliveries': 'operator',
  'GET /api/v1/recordings': 'operator',
  'POST /api/v1/recordings': 'operator',
  'GET /api/v1/recordings/:id': 'operator',
  'DELETE /api/v1/recordings/:id': 'operator',
  'POST /api/v1/recordings/:id/stop': 'operator',
  'POST /api/v1/recordings/:id/import': 'operator',
  'GET /api/v1/recordings/:id/file': 'operator',
  'GET /api/v1/leases': 'operator',
  'PUT /api/v1/leases/:nodeId': 'node',
  'DELETE /api/v1/leases/:nodeId': 'node',
  'GET /api/v1/public/channels': 'public',
  'GET /api/v1/public/channels/:name': 'public',
  'GET /api/v1/public/guide': 'public',
  'GET /api/v1/backend/watch': 'node',
  'POST /api/v1/backend/imports/:assetId': 'node',
  'POST /api/v1/backend/folders/:id': 'node',
  'POST /api/v1/backend/report': 'node',
  'POST /api/v1/backend/recordings': 'node',
  'GET /api/v1/frontend/watch': 'node',
  'POST /api/v1/frontend/report': 'node',
  'GET /playlist.m3u': 'public',
  'GET /guide.xml': 'public',
  'GET /guide.xml.gz': 'public',
  'GET /discover.json': 'public',
  'GET /lineup.json': 'public',
  'GET /lineup_status.json': 'public',
  'POST /lineup.post': 'public',
  'GET /device.xml': 'public',
  'GET /healthz': 'public',
  'GET /readyz': 'public',
  'GET /api/openapi.json': 'public',
  'GET /api/docs': 'public',
  'GET /api/docs/json': 'public',
  'GET /api/docs/yaml': 'public',
  'GET /api/docs/static/*': 'public',
  'GET /api/docs/static/index.html': 'public',
  'GET /api/docs/static/swagger-initializer.js': 'public',
  'GET /*': 'public',
};

const routes = new Set<string>();
const collectRoutes = (message: unknown) => {
  const { fastify } = message as { fastify: FastifyInstance };
  fastify.addHook('onRoute', ({ method, url }) => {
    for (const one of [method].flat()) routes.add(`${one} ${url}`);
  });
};

let lab: Lab;
beforeAll(async () => {
  subscribe('fastify.initialization', collectRoutes);
  const webDir = mkdtempSync(join(tmpdir(), 'starling-site-'));
  writeFileSync(join(webDir, 'index.html'), '<title>site</title>');
  lab = await startLab({ webDir });
  unsubscribe('fastify.initialization', collectRoutes);
}, 60_000);
afterAll(() => lab.close());

/** HEAD routes follow their GET routes, and a final slash makes no difference. */
const accessOf = (route: string) => expected[route.replace(/^HEAD /, 'GET ').replace(/(\w)\/$/, '$1')];

it('knows every registered route', () => {
  expect(routes.size).toBeGreaterThan(20);
  expect([...routes].filter((route) => accessOf(route) === undefined)).toEqual([]);
  expect(Object.keys(expected).filter((route) => !routes.has(route))).toEqual([]);
});

describe.each([
  ['no token', undefined],
  ['a wrong token', 'operator-token-of-the-testt'],
  ['the node token', nodeToken],
  ['the operator token', operatorToken],
])('with %s', (_name, token) => {
  const caller = token === operatorToken ? 'operator' : token === nodeToken ? 'node' : undefined;

  it('lets in to the routes that are meant for it, and to no other', async () => {
    for (const route of routes) {
      const [method = '', url = ''] = route.split(' ');
      const path = url.replace(/:\w+/g, 'x1').replace('*', 'x1');
      const abort = new AbortController();
      const response = await fetch(`${lab.url}${path}`, {
        method,
        signal: abort.signal,
        redirect: 'manual',
        headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
      });
      const { status } = response;
      const challenge = response.headers.get('www-authenticate');
      abort.abort();
      const wanted = accessOf(route);
      const verdict =
        status === 401 ? 'unknown' : status === 403 ? 'refused' : status < 500 ? 'in' : `status ${status}`;
      const right =
        wanted === 'public' || wanted === caller ? 'in' : caller === undefined ? 'unknown' : 'refused';
      expect({ route, verdict }).toEqual({ route, verdict: right });
      if (status === 401) expect(challenge).toMatch(/^Bearer/);
    }
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
