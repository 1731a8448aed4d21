/** The agent with a real nginx, in front of frontends that say what they were asked. */
import { type ExecFileException, execFile } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { request as httpRequest } from 'node:http';
import { Agent, get, request as httpsRequest } from 'node:https';
import { connect, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { freePort } from '../../../tools/free-port.ts';
import { ListedFleet } from '../src/fleet.ts';
import { type Balancer, type BalancerConfig, startBalancer } from '../src/main.ts';
import { FakeFrontend } from './fake-frontend.ts';

const NAME = 'tv.starling.test';
const NGINX = '/usr/sbin/nginx';

async function until<T>(what: string, ask: () => T | undefined | Promise<T | undefined>): Promise<T> {
  const deadline = performance.now() + 10_000;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined && answer !== false) return answer;
    if (performance.now() > deadline) throw new Error(`gave up waiting for ${what}`);
    await new Promise((wake) => setTimeout(wake, 20));
  }
}

interface Reply {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}

let folder: string;
let httpPort: number;
let httpsPort: number;
let rtmpPort: number;
let frontends: [FakeFrontend, FakeFrontend];
let backend: Server;
let fleet: ListedFleet;
let balancer: Balancer;
let config: BalancerConfig;
let agent: Agent;

const listed = () => ({
  frontends: frontends.map(({ port }) => ({ host: '127.0.0.1', port })),
  backends: [{ host: 'localhost', rtmpPort: portOf(backend) }],
});

const portOf = (server: Server): number => {
  const address = server.address();
  return typeof address === 'object' && address !== null ? address.port : 0;
};

const logger = pino({ level: process.env.STARLING_LOG_LEVEL ?? 'silent' });
const start = () => startBalancer(config, { fleet, logger, registry: new Registry() });

function ask(
  path: string,
  options: { method?: string; headers?: Record<string, string>; body?: string } = {},
) {
  return new Promise<Reply>((resolve, reject) => {
    const { method = 'GET', headers = {}, body } = options;
    const request = httpsRequest(
      { host: '127.0.0.1', port: httpsPort, path, method, headers: { Host: NAME, ...headers }, agent },
      (response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (chunk: string) => {
          text += chunk;
        });
        response.on('end', () =>
          resolve({ status: response.statusCode ?? 0, headers: response.headers, body: text }),
        );
      },
    );
    request.on('error', reject);
    request.end(body);
  });
}

/** Bytes as they are, over TLS; what comes back until nothing more does. */
function askRaw(text: string): Promise<string> {
  return new Promise((resolve) => {
    const options = { host: '127.0.0.1', port: httpsPort, servername: NAME, rejectUnauthorized: false };
    const socket = connectTls(options, () => socket.write(text));
    const end = () => socket.destroy();
    let silence = setTimeout(end, 3000);
    let answer = '';
    socket.setEncoding('latin1').on('data', (chunk: string) => {
      answer += chunk;
      clearTimeout(silence);
      silence = setTimeout(end, 300);
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      clearTimeout(silence);
      resolve(answer);
    });
  });
}

/** 0 while there is none. */
const masterPid = () => {
  const path = join(folder, 'nginx', 'nginx.pid');
  return existsSync(path) ? Number(readFileSync(path, 'utf8')) : 0;
};

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'starling-balancer-'));
  chmodSync(folder, 0o755); // nginx's workers are another account when this is root
  [httpPort, httpsPort, rtmpPort] = [await freePort(), await freePort(), await freePort()];
  frontends = [await FakeFrontend.start(), await FakeFrontend.start()];
  backend = createServer((socket) => socket.on('error', () => {}).pipe(socket));
  backend.listen(0, '127.0.0.1');
  await once(backend, 'listening');
  agent = new Agent({ servername: NAME, rejectUnauthorized: false, keepAlive: true });
  config = {
    dataDir: folder,
    names: [NAME],
    http: { host: '127.0.0.1', port: httpPort },
    https: { host: '127.0.0.1', port: httpsPort },
    rtmp: { host: '127.0.0.1', port: rtmpPort },
    rtmps: undefined,
    site: undefined,
    balance: 'round-robin',
    acme: undefined,
    certificate: undefined,
    hstsSeconds: 63_072_000,
    trustedProxies: [],
    maxConnectionsPerAddress: 1000,
    maxRequestsPerSecondPerAddress: 5000,
    cacheMaxBytes: 64 * 1024 * 1024,
    nginxProgram: NGINX,
    nginxUser: 'www-data',
  };
  fleet = new ListedFleet(listed());
  balancer = await start();
});

afterAll(async () => {
  agent.destroy();
  await balancer.close();
  await Promise.all(frontends.map((frontend) => frontend.stop()));
  backend.close();
  rmSync(folder, { recursive: true, force: true });
});

beforeEach(() => {
  for (const frontend of frontends) frontend.requests.length = 0;
});

describe('what viewers get', () => {
  it('over HTTP is a redirect, and over HTTPS media from the frontends in turn', async () => {
    const redirect = await new Promise<Reply>((resolve) => {
      httpRequest(
        { host: '127.0.0.1', port: httpPort, path: '/watch/films?x=1', headers: { Host: NAME } },
        (r) => {
          r.resume();
          resolve({ status: r.statusCode ?? 0, headers: r.headers, body: '' });
        },
      ).end();
    });
    expect(redirect.status).toBe(301);
    expect(redirect.headers.location).toBe(`https://${NAME}:${httpsPort}/watch/films?x=1`);
    for (let i = 0; i < 6; i++) expect((await ask(`/live/films/main/index.m3u8?i=${i}`)).status).toBe(200);
    expect(frontends.map(({ requests }) => requests.length)).toEqual([3, 3]);
  });

  it('comes from here only under our names, and the fleet is none of their business', async () => {
    const stranger = await ask('/live/films/main/index.m3u8', { headers: { Host: 'other.example' } });
    expect(stranger.status).toBe(421);
    const isRefused = new Promise<string>((resolve) => {
      const socket = connectTls({ host: '127.0.0.1', port: httpsPort, servername: 'other.example' });
      socket.on('error', (error) => resolve(String(error)));
      socket.on('secureConnect', () => resolve('let in'));
    });
    expect(await isRefused).toMatch(/unrecognized name|alert/i);
    for (const path of ['/metrics', '/readyz']) expect((await ask(path)).status).toBe(404);
    expect((await ask('/healthz')).status).toBe(200);
    expect(frontends.flatMap(({ requests }) => requests)).toEqual([]);
  });

  it('of one segment costs a frontend one request, whoever asks', async () => {
    for (const frontend of frontends) {
      frontend.answer = (_, response) => {
        response.setHeader('Cache-Control', 'public, max-age=12, immutable');
        setTimeout(() => response.end(Buffer.alloc(100_000)), 10);
      };
    }
    const replies = await Promise.all(Array.from({ length: 200 }, () => ask('/live/films/main/x9/7.m4s')));
    expect(new Set(replies.map(({ status, body }) => `${status} ${body.length}`))).toEqual(
      new Set(['200 100000']),
    );
    const asked = () => frontends.flatMap((frontend) => frontend.asked('/live/films/main/x9/7.m4s')).length;
    // A second one where the first took longer than a viewer waits for it.
    expect(asked()).toBeLessThan(100);
    const before = asked();
    const later = await Promise.all(
      Array.from({ length: 100 }, (_, i) => ask(`/live/films/main/x9/7.m4s?viewer=${i}`)),
    );
    expect(later.every(({ status }) => status === 200)).toBe(true);
    expect(asked()).toBe(before);
  });

  it.each([
    ['private', '/live/films/main/1.m4s', 200, 'private, no-store'],
    ['not there', '/live/films/main/2.m4s', 404, 'public, max-age=8'],
    ['a playlist', '/live/films/main/index.m3u8', 200, 'public, max-age=12'],
  ])('is asked for again each time when it is %s', async (_, path, status, cacheControl) => {
    for (const frontend of frontends) {
      frontend.answer = (_request, response) => {
        response.writeHead(status, { 'Cache-Control': cacheControl }).end('x');
      };
    }
    for (let i = 0; i < 3; i++) expect((await ask(path)).status).toBe(status);
    expect(frontends.flatMap((frontend) => frontend.asked(path)).length).toBeGreaterThanOrEqual(3);
  });

  it('is on the other frontend when one lacks a segment', async () => {
    const [first, second] = frontends;
    first.answer = (_, response) => response.writeHead(404, { 'Cache-Control': 'public, max-age=8' }).end();
    second.answer = (_, response) => response.end('here');
    for (let i = 0; i < 4; i++) expect((await ask(`/live/films/main/9.${i}.m4s`)).body).toBe('here');
  });

  it('comes as it is made where it has no end, and goes on through a reload', async () => {
    for (const frontend of frontends) {
      frontend.answer = (_, response) => {
        response.shouldKeepAlive = false;
        response.useChunkedEncodingByDefault = false;
        response.writeHead(200, { 'Cache-Control': 'no-store' });
        const timer = setInterval(() => response.write('x'), 50);
        response.on('close', () => clearInterval(timer));
      };
    }
    let received = 0;
    let hasEnded = false;
    const headers = { Host: NAME };
    const request = get(
      { host: '127.0.0.1', port: httpsPort, path: '/live/films.flv', headers, agent },
      (response) => {
        response.on('data', (chunk: Buffer) => {
          received += chunk.length;
        });
        response.on('close', () => {
          hasEnded = true;
        });
      },
    );
    request.on('error', () => {});
    await until('the first bytes', () => received > 2 || undefined);
    const before = statusRevision();
    balancer.reconfigure({ ...config, maxRequestsPerSecondPerAddress: 4999 });
    await until('a reload', async () => (statusRevision() !== before ? true : undefined));
    await new Promise((wake) => setTimeout(wake, 500));
    const atReload = received;
    await until('more bytes', () => received > atReload + 5 || undefined);
    expect(hasEnded).toBe(false);
    request.destroy();
  });
});

const statusRevision = (): string =>
  /return 200 "?([0-9a-f]{16})/.exec(readFileSync(join(folder, 'nginx', 'nginx.conf'), 'utf8'))?.[1] ?? '';

describe('what frontends hear', () => {
  beforeEach(() => {
    for (const frontend of frontends) frontend.answer = (_, response) => response.end('x');
  });

  it("is the viewer's address, whatever the viewer claims", async () => {
    await ask('/live/films/main/index.m3u8', {
      headers: { 'X-Forwarded-For': '8.8.8.8', Forwarded: 'for=8.8.8.8', 'X-Forwarded-Proto': 'http' },
    });
    const [asked] = frontends.flatMap(({ requests }) => requests);
    expect(asked?.headers['x-forwarded-for']).toBe('127.0.0.1');
    expect(asked?.headers['x-forwarded-proto']).toBe('https');
    expect(asked?.headers.forwarded).toBeUndefined();
  });

  it('is no upgrade but WebSocket', async () => {
    await ask('/live/films/main/index.m3u8', {
      headers: { Upgrade: 'h2c', Connection: 'Upgrade, HTTP2-Settings' },
    });
    const [asked] = frontends.flatMap(({ requests }) => requests);
    expect(asked?.headers.upgrade).toBeUndefined();
    expect(asked?.headers.connection).toBeUndefined();
  });

  /** What is taken apart differently by two servers, after the collection of PortSwigger's "HTTP Desync Attacks". */
  const smuggled = 'GET /live/smuggled/main/index.m3u8 HTTP/1.1\r\nHost: tv.starling.test\r\n\r\n';
  const head = `/live/films/main/index.m3u8 HTTP/1.1\r\nHost: ${NAME}\r\n`;
  it.each([
    [
      'CL.TE',
      `POST ${head}Content-Length: ${smuggled.length + 5}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${smuggled}`,
    ],
    [
      'TE.CL',
      `GET ${head}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n${smuggled.length.toString(16)}\r\n${smuggled}\r\n0\r\n\r\n`,
    ],
    [
      'TE.TE',
      `GET ${head}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n${smuggled}`,
    ],
    [
      'TE with a tab',
      `GET ${head}Transfer-Encoding:\tchunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n${smuggled}`,
    ],
    [
      'TE with a space before the colon',
      `GET ${head}Transfer-Encoding : chunked\r\nContent-Length: ${smuggled.length}\r\n\r\n${smuggled}`,
    ],
    [
      'TE of another kind',
      `GET ${head}Transfer-Encoding: xchunked\r\nContent-Length: ${smuggled.length}\r\n\r\n${smuggled}`,
    ],
    ['two lengths', `GET ${head}Content-Length: 0\r\nContent-Length: ${smuggled.length}\r\n\r\n${smuggled}`],
    ['a length with a sign', `GET ${head}Content-Length: +${smuggled.length}\r\n\r\n${smuggled}`],
    ['a body on GET', `GET ${head}Content-Length: ${smuggled.length}\r\n\r\n${smuggled}`],
    [
      'a chunk with an extension that ends early',
      `GET ${head}Transfer-Encoding: chunked\r\n\r\n0;a\nb\r\n\r\n${smuggled}`,
    ],
    [
      'a folded header',
      `GET ${head}X: y\r\n Transfer-Encoding: chunked\r\nContent-Length: ${smuggled.length}\r\n\r\n${smuggled}`,
    ],
    [
      'HTTP/1.0 with chunks',
      `GET /live/films/main/index.m3u8 HTTP/1.0\r\nHost: ${NAME}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${smuggled}`,
    ],
    [
      'a line feed in the path',
      `GET /live/films/main/index.m3u8%0d%0aX:%20y HTTP/1.1\r\nHost: ${NAME}\r\nConnection: close\r\n\r\n`,
    ],
    ['a NUL in a header', `GET ${head}X: a\0b\r\nContent-Length: ${smuggled.length}\r\n\r\n${smuggled}`],
  ])('is no request that was smuggled: %s', async (_, text) => {
    const answer = await askRaw(text);
    // The second request is the viewer's own where nginx answers both; it must not be there without its answer.
    const answered = [...answer.matchAll(/HTTP\/1\.1 (\d{3})/g)].map(([, status]) => status);
    const asked = frontends.flatMap(({ requests }) => requests);
    expect(asked.length).toBeLessThanOrEqual(answered.filter((status) => status === '200').length);
    for (const { headers } of asked) {
      expect(headers['transfer-encoding']).toBeUndefined();
      expect(headers['content-length'] ?? '0').toBe('0');
      expect(headers['x-forwarded-for']).toBe('127.0.0.1');
      expect(Object.keys(headers)).not.toContain('x:');
    }
  });

  it('is nothing of a body that comes slowly, or is too long', async () => {
    const text = `POST /api/v1/x HTTP/1.1\r\nHost: ${NAME}\r\nContent-Length: 1000000\r\n\r\n`;
    const waiting = await Promise.all(Array.from({ length: 50 }, () => askRaw(`${text}a`)));
    expect(new Set(waiting.map((answer) => /^HTTP\/1\.1 (\d+)/.exec(answer)?.[1]))).toEqual(new Set(['404']));
    expect((await ask('/live/films.flv', { method: 'POST', body: 'x'.repeat(10) })).status).toBe(413);
    expect((await ask('/live/films.flv', { method: 'POST' })).status).toBe(405);
    const tooLong = await askRaw(`GET ${head}Content-Length: 3000000\r\n\r\n`);
    expect(tooLong).toMatch(/^HTTP\/1\.1 413/);
    const longHead = await askRaw(`GET ${head}X: ${'x'.repeat(40_000)}\r\n\r\n`);
    expect(longHead).toMatch(/^HTTP\/1\.1 400/);
    expect(frontends.flatMap(({ requests }) => requests)).toEqual([]);
  });

  it('leaves no token in the access log', async () => {
    await ask('/live/films/main/index.m3u8?session=a&token=s3cret', {
      headers: { Referer: `https://${NAME}/watch/films?token=s3cret`, 'User-Agent': 'say "hi"' },
    });
    await ask('/live/films/main/folder-that-nobody-knows/3.m4s');
    const lines = await until('two lines', () => {
      const text = readFileSync(join(folder, 'access.log'), 'utf8');
      return text.includes('say') && text.includes('3.m4s') ? text : undefined;
    });
    expect(lines).not.toMatch(/s3cret|folder-that-nobody-knows/);
    const entries = lines
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, string>);
    expect(entries.find(({ path }) => path?.endsWith('/3.m4s'))).toMatchObject({
      path: '/live/films/main/*/3.m4s',
      status: '200',
      address: '127.0.0.1',
    });
    expect(entries.find(({ userAgent }) => userAgent === 'say "hi"')).toMatchObject({
      path: '/live/films/main/index.m3u8',
      referer: `https://${NAME}/watch/films`,
    });
  });
});

describe('encoders', () => {
  it('reach a backend over TCP', async () => {
    const socket = connect(rtmpPort, '127.0.0.1');
    socket.write('C0C1');
    const [echo] = (await once(socket, 'data')) as [Buffer];
    expect(echo.toString()).toBe('C0C1');
    socket.destroy();
  });
});

describe('the agent', () => {
  afterEach(() => {
    for (const frontend of frontends) frontend.answer = (_, response) => response.end('x');
  });

  it('takes a frontend out that dies, with no request lost, and in again', async () => {
    const [first, second] = frontends;
    await first.stop();
    const replies = await Promise.all(
      Array.from({ length: 30 }, (_, i) => ask(`/live/films/main/index.m3u8?dead=${i}`)),
    );
    expect(new Set(replies.map(({ status }) => status))).toEqual(new Set([200]));
    const configured = () => readFileSync(join(folder, 'nginx', 'nginx.conf'), 'utf8');
    await until(
      'the ejection',
      () => configured().includes(`127.0.0.1:${first.port} max_fails=0 down`) || undefined,
    );
    frontends = [await FakeFrontend.start(first.port), second];
    frontends[0].answer = (_, response) => response.end('back');
    await until('its return', async () => {
      const { body } = await ask('/live/films/main/index.m3u8');
      return body === 'back' || undefined;
    });
  });

  it('bounds what one address asks for, and changes the bound while it runs', async () => {
    const statuses = async () => {
      const replies = await Promise.all(
        // A worker that nginx is replacing may close a connection that it has just taken; clients try again.
        Array.from({ length: 40 }, () => ask('/live/films/main/index.m3u8').catch(() => undefined)),
      );
      return new Set(replies.flatMap((reply) => reply?.status ?? []));
    };
    expect(await statuses()).toEqual(new Set([200]));
    balancer.reconfigure({ ...config, maxRequestsPerSecondPerAddress: 1 });
    await until('a refusal', async () => (await statuses()).has(429) || undefined);
    balancer.reconfigure(config);
    await until('no refusal', async () => !(await statuses()).has(429) || undefined);
  });

  it('starts nginx again when it was killed, workers that serve on included', async () => {
    const pid = masterPid();
    process.kill(pid, 'SIGKILL');
    await until('another nginx', () => {
      const now = masterPid();
      return (now !== 0 && now !== pid) || undefined;
    });
    await until(
      'service',
      async () => (await ask('/healthz').catch(() => undefined))?.status === 200 || undefined,
    );
    const orphans = readdirSync('/proc').filter((name) => {
      try {
        return new RegExp(`^${name} \\(nginx\\) [^Z] \\d+ \\d+ ${pid} `).test(
          readFileSync(`/proc/${name}/stat`, 'utf8'),
        );
      } catch {
        return false; // it has just ended
      }
    });
    expect(orphans).toEqual([]);
  });
});

describe('the certificate', () => {
  it("is the operator's own where there is one, and another one when its files change", async () => {
    const files = { certificatePath: join(folder, 'own.pem'), privateKeyPath: join(folder, 'own.key') };
    const args = [
      'req',
      '-x509',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-256',
      '-nodes',
      '-days',
      '9',
    ];
    const { error } = await new Promise<{ error: ExecFileException | null }>((resolve) => {
      execFile(
        'openssl',
        [
          ...args,
          '-subj',
          '/CN=own',
          '-addext',
          `subjectAltName=DNS:${NAME}`,
          '-out',
          files.certificatePath,
          '-keyout',
          files.privateKeyPath,
        ],
        (failure) => resolve({ error: failure }),
      );
    });
    expect(error).toBeNull();
    await balancer.close();
    config = { ...config, certificate: files };
    balancer = await start();
    const subject = await new Promise<string>((resolve, reject) => {
      const socket = connectTls(
        { host: '127.0.0.1', port: httpsPort, servername: NAME, rejectUnauthorized: false },
        () => {
          resolve(String(socket.getPeerCertificate().subject.CN));
          socket.destroy();
        },
      );
      socket.on('error', reject);
    });
    expect(subject).toBe('own');
    writeFileSync(files.privateKeyPath, 'no key');
    await balancer.close();
    await expect(start()).rejects.toThrow(/own\.pem and .*own\.key cannot be used/);
    config = { ...config, certificate: undefined };
    balancer = await start();
  });
});
