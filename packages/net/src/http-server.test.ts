/** The limits of an HTTP port over real sockets. Loopback is no exception here: no proxy is trusted. */
import { once } from 'node:events';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { connect, type Socket } from 'node:net';
import { pino } from 'pino';
import { afterEach, expect, it } from 'vitest';
import {
  clientAddress,
  type HttpListener,
  type HttpOptions,
  listenHttp,
  MAX_BODY_BYTES,
  MAX_HEAD_BYTES,
} from './http-server.ts';

const log: { msg: string; refused?: number; address?: string }[] = [];
const refused: string[] = [];
const sockets: Socket[] = [];
let listener: HttpListener;

async function listen(options: HttpOptions): Promise<void> {
  listener = await listenHttp(
    { host: '127.0.0.1', port: 0 },
    pino({}, { write: (line: string) => void log.push(JSON.parse(line)) }),
    (request, response) => response.end(clientAddress(request)),
    (request, socket) => {
      socket.end(`HTTP/1.1 101 ${clientAddress(request)}\r\n\r\n`);
      return true;
    },
    { onRefused: (reason) => void refused.push(reason), ...options },
  );
}

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await listener.close();
  log.length = 0;
  refused.length = 0;
});

async function get(
  headers: Record<string, string> = {},
  method = 'GET',
): Promise<{ status: number; headers: IncomingMessage['headers']; text: string }> {
  const request = httpRequest({ port: listener.port, host: '127.0.0.1', headers, method, agent: false });
  request.end();
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  let text = '';
  for await (const chunk of response.setEncoding('utf8')) text += chunk;
  return { status: response.statusCode ?? 0, headers: response.headers, text };
}

/** Sends bytes; resolves with all that came back when the server has closed. */
async function talk(bytes: string): Promise<string> {
  const socket = connect(listener.port, '127.0.0.1');
  sockets.push(socket);
  let answer = '';
  socket.setEncoding('utf8').on('data', (text: string) => (answer += text));
  socket.on('error', () => undefined);
  socket.write(bytes);
  await once(socket, 'close');
  return answer;
}

async function hold(): Promise<Socket> {
  const socket = connect(listener.port, '127.0.0.1');
  sockets.push(socket);
  await once(socket, 'connect');
  return socket;
}

it('refuses the connection that is one too many with 429, and takes one when another has gone', async () => {
  await listen({ trustedProxies: [], limits: { maxConnectionsPerAddress: 2 } });
  const [first] = [await hold(), await hold()];
  const answer = await get();
  expect(answer.status).toBe(429);
  expect(answer.headers).toMatchObject({ 'retry-after': '1', connection: 'close' });
  first.destroy();
  await expect.poll(async () => (await get()).status).toBe(200);
  expect(refused).toContain('connections');
});

it('drops connections at once when as many again wait to be refused', async () => {
  await listen({ trustedProxies: [], limits: { maxConnectionsPerAddress: 1 } });
  await hold();
  await hold();
  expect(await talk('')).toBe('');
});

it('refuses requests beyond the burst with 429 and when to come back, and logs it once a second', async () => {
  const limits = { maxRequestsPerSecondPerAddress: 0.01, maxRequestBurstPerAddress: 3 };
  await listen({ trustedProxies: [], limits });
  const statuses: number[] = [];
  for (let turn = 0; turn < 6; turn++) statuses.push((await get()).status);
  expect(statuses).toEqual([200, 200, 200, 429, 429, 429]);
  expect(Number((await get()).headers['retry-after'])).toBeGreaterThan(90);
  expect(refused).toEqual(Array.from({ length: 4 }, () => 'requests'));
  expect(log).toMatchObject([
    { msg: 'too many HTTP requests from one address: refused', address: '127.0.0.1' },
  ]);
  const upgrade = 'GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n';
  expect(await talk(upgrade)).toMatch(/^HTTP\/1\.1 429 Too Many Requests\r\nRetry-After: \d+\r\n/);
  expect((await get({ connection: 'Upgrade', upgrade: 'h2c' })).status).toBe(429);
});

it('gives a trusted proxy no limits, and its clients one each', async () => {
  await listen({
    limits: {
      maxConnectionsPerAddress: 1,
      maxRequestsPerSecondPerAddress: 0.01,
      maxRequestBurstPerAddress: 1,
    },
  });
  await hold();
  await hold();
  for (let turn = 0; turn < 3; turn++) expect((await get()).status).toBe(200);
  const via = async (forwardedFor: string) => {
    const { status, text } = await get({ 'x-forwarded-for': forwardedFor });
    return status === 200 ? text : status;
  };
  expect(await via('198.51.100.7, 203.0.113.9')).toBe('203.0.113.9');
  expect(await via('203.0.113.9')).toBe(429);
  expect(await via('203.0.113.10')).toBe('203.0.113.10');
});

it('does not take the word of a stranger for an address', async () => {
  await listen({ trustedProxies: ['10.0.0.0/8'] });
  expect((await get({ 'x-forwarded-for': '203.0.113.9' })).text).toBe('127.0.0.1');
});

it('answers a head that is too long with 431', async () => {
  await listen({});
  const fits = `GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: ${'x'.repeat(MAX_HEAD_BYTES - 200)}\r\n\r\n`;
  expect(await talk(fits)).toMatch(/^HTTP\/1\.1 200 /);
  const tooLong = `GET / HTTP/1.1\r\nHost: x\r\nX: ${'x'.repeat(MAX_HEAD_BYTES)}\r\n\r\n`;
  expect(await talk(tooLong)).toMatch(/^HTTP\/1\.1 431 /);
});

it('answers a body that is announced too long with 413, unread', async () => {
  await listen({});
  const post = (bytes: number) =>
    `POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: ${bytes}\r\n\r\n`;
  expect(await talk(post(MAX_BODY_BYTES + 1))).toMatch(/^HTTP\/1\.1 413 /);
  expect(await talk(`${post(1)}x`)).toMatch(/^HTTP\/1\.1 200 /);
});
