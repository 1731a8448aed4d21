/** Traces, as a collector gets them over OTLP/HTTP. */
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { startBackend } from '@starling/backend/main';
import { startCoordinator } from '@starling/coordinator/main';
import { CoordinatorClient } from '@starling/model/client';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { expect, it } from 'vitest';
import { startTracing } from '../src/tracing.ts';

/** OTLP as JSON: opentelemetry-proto, trace.proto. */
interface OtlpSpan {
  readonly name: string;
  readonly kind: number;
  readonly traceId: string;
  readonly attributes: { key: string; value: { stringValue?: string; intValue?: number } }[];
  readonly status: { code?: number; message?: string };
}

it('is off unless the environment names a collector', async () => {
  expect(await startTracing('starling', {})).toBeUndefined();
  const endpoint = { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:1' };
  expect(await startTracing('starling', { ...endpoint, OTEL_SDK_DISABLED: 'true' })).toBeUndefined();
});

it('sends requests, imports, pushes and nothing secret to the collector', async () => {
  const bodies: { path: string; body: string }[] = [];
  const collector = createServer(async (request, response) => {
    bodies.push({ path: request.url ?? '', body: await text(request) });
    response.writeHead(200, { 'content-type': 'application/json' }).end('{}');
  });
  collector.listen(0, '127.0.0.1');
  await once(collector, 'listening');
  const endpoint = `http://127.0.0.1:${(collector.address() as AddressInfo).port}`;
  process.env.OTEL_EXPORTER_OTLP_ENDPOINT = endpoint; // the exporter reads it itself
  const end = await startTracing('starling-test', { OTEL_EXPORTER_OTLP_ENDPOINT: endpoint });
  expect(end).toBeDefined();

  const dataDir = mkdtempSync(join(tmpdir(), 'starling-tracing-'));
  const logger = pino({ level: 'silent' });
  const coordinator = await startCoordinator({
    ...{ dataDir, logger, webDir: undefined, registry: new Registry() },
    ...{ operatorToken: 'operator-secret', nodeToken: 'node-secret' },
  });
  const { port } = await coordinator.listen('127.0.0.1', 0);
  const baseUrl = `http://127.0.0.1:${port}`;
  const deaf = createTcpServer((socket) => socket.destroy());
  deaf.listen(0, '127.0.0.1');
  await once(deaf, 'listening');
  const backend = await startBackend({
    ...{ dataDir, logger, rtmpHost: '127.0.0.1', rtmpPort: 0, registry: new Registry() },
    coordinator: { baseUrl, token: 'node-secret' },
    frontends: [
      { host: '127.0.0.1', port: (deaf.address() as AddressInfo).port, publishToken: 'publish-secret' },
    ],
    leases: { from: 'nobody' },
  });
  const operator = new CoordinatorClient({ baseUrl, token: 'operator-secret' });
  const source = join(dataDir, 'broken.mp4');
  writeFileSync(source, 'this is no film');
  const { id } = await operator.assets.create({ source });
  while ((await operator.assets.get(id)).state !== 'failed')
    await new Promise((wake) => setTimeout(wake, 50));
  await fetch(`${baseUrl}/api/v1/assets?token=query-secret`, {
    headers: { authorization: 'Bearer wrong-secret' },
  });
  await backend.close();
  await coordinator.close();
  await end?.();
  for (const server of [collector, deaf]) server.close();
  rmSync(dataDir, { recursive: true, force: true });
  delete process.env.OTEL_EXPORTER_OTLP_ENDPOINT;

  expect(new Set(bodies.map(({ path }) => path))).toEqual(new Set(['/v1/traces']));
  const resources = bodies.flatMap(({ body }) => JSON.parse(body).resourceSpans);
  const attributes = (list: OtlpSpan['attributes']) =>
    Object.fromEntries(list.map(({ key, value }) => [key, value.stringValue ?? value.intValue]));
  expect(attributes(resources[0].resource.attributes)).toMatchObject({ 'service.name': 'starling-test' });
  const spans: OtlpSpan[] = resources.flatMap(({ scopeSpans }) =>
    scopeSpans.flatMap((scope: { spans: OtlpSpan[] }) => scope.spans),
  );
  const named = (name: string) => spans.filter((span) => span.name === name);
  const [posted] = named('POST /api/v1/assets');
  expect(posted).toMatchObject({ kind: 2, traceId: expect.stringMatching(/^[0-9a-f]{32}$/) });
  expect(attributes(posted?.attributes ?? [])).toMatchObject({
    ...{ 'http.request.method': 'POST', 'http.route': '/api/v1/assets', 'http.response.status_code': 202 },
  });
  expect(named('import')).toHaveLength(1);
  const [imported] = named('import');
  expect(imported?.status.code).toBe(2);
  expect(attributes(imported?.attributes ?? [])).toEqual({ 'starling.asset': id });
  const refused = named('GET /api/v1/assets').map((span) => attributes(span.attributes));
  expect(refused).toContainEqual(expect.objectContaining({ 'http.response.status_code': 401 }));
  for (const { body } of bodies) expect(body).not.toContain('-secret');
}, 180_000);
