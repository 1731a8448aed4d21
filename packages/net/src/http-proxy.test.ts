import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { forwardedHeaders, forwardTo } from './http-proxy.ts';

const servers: Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) {
    server.close();
    server.closeAllConnections();
  }
});

async function listen(handle: (request: IncomingMessage, response: ServerResponse) => void): Promise<number> {
  const server = createServer(handle).listen(0, '127.0.0.1');
  servers.push(server);
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

/** The address of a server that hands on to `handle`. */
async function inFrontOf(handle: (request: IncomingMessage, response: ServerResponse) => void) {
  const port = await listen(forwardTo(await listen(handle)));
  return { port, url: `http://127.0.0.1:${port}` };
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of request.setEncoding('utf8')) text += chunk;
  return text;
}

describe('a request that is handed on', () => {
  it('keeps its method, address, headers and body, and says whose it is', async () => {
    const { url } = await inFrontOf(async (request, response) => {
      const { method, url: path, headers } = request;
      response.end(JSON.stringify({ method, path, headers, body: await bodyOf(request) }));
    });
    const answer = await fetch(`${url}/api/v1/streams?x=%20`, {
      method: 'POST',
      headers: { Authorization: 'Bearer t', 'X-Forwarded-For': '203.0.113.9' },
      body: 'a body',
    });
    expect(await answer.json()).toMatchObject({
      method: 'POST',
      path: '/api/v1/streams?x=%20',
      headers: {
        authorization: 'Bearer t',
        host: url.slice(7),
        'content-length': '6',
        'x-forwarded-for': '203.0.113.9, 127.0.0.1',
      },
      body: 'a body',
    });
  });

  it('brings the answer as it is', async () => {
    const { url } = await inFrontOf((_request, response) => {
      response.writeHead(418, 'Short and stout', { 'Set-Cookie': ['a=1', 'b=2'], 'X-Own': 'yes' });
      response.end('tea');
    });
    const answer = await fetch(url);
    expect([answer.status, answer.statusText, await answer.text()]).toEqual([418, 'Short and stout', 'tea']);
    expect(answer.headers.getSetCookie()).toEqual(['a=1', 'b=2']);
    expect(answer.headers.get('x-own')).toBe('yes');
    expect((await fetch(url, { method: 'HEAD' })).status).toBe(418);
  });

  it('brings each part of a long answer when it is written', async () => {
    let stream: ServerResponse | undefined;
    const { url } = await inFrontOf((_request, response) => {
      stream = response;
      response.writeHead(200, { 'Content-Type': 'text/event-stream' });
      response.flushHeaders();
    });
    const answer = await fetch(url); // the head comes although there is no body yet
    const reader = answer.body?.getReader();
    for (const event of ['data: 1\n\n', 'data: 2\n\n']) {
      stream?.write(event);
      expect(Buffer.from((await reader?.read())?.value ?? []).toString()).toBe(event);
    }
    stream?.end();
    expect((await reader?.read())?.done).toBe(true);
  });

  it('ends there when the client leaves', async () => {
    const gone = vi.fn();
    const { port } = await inFrontOf((_request, response) => {
      response.writeHead(200).write('begun');
      response.on('close', gone);
    });
    const socket = connect(port, '127.0.0.1');
    socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
    await once(socket, 'data');
    socket.destroy();
    await vi.waitFor(() => expect(gone).toHaveBeenCalled());
  });

  it('is cut off when the answer breaks off', async () => {
    const { url } = await inFrontOf((_request, response) => {
      response.writeHead(200, { 'Content-Length': 10 }).write('half');
      setTimeout(() => response.destroy(), 20);
    });
    await expect(fetch(url).then((answer) => answer.text())).rejects.toThrow();
  });

  it('is answered 503 when nobody is there', async () => {
    const port = await listen(() => {});
    const [behind] = servers.splice(0);
    behind?.close();
    const front = await listen(forwardTo(port));
    const answer = await fetch(`http://127.0.0.1:${front}/`);
    expect([answer.status, answer.headers.get('retry-after')]).toEqual([503, '1']);
  });

  const smuggled = 'GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n';
  it.each([
    [
      'whose length its Connection header hides',
      `Connection: content-length\r\nContent-Length: ${smuggled.length}`,
      smuggled,
    ],
    [
      'in chunks',
      'Transfer-Encoding: chunked',
      `${smuggled.length.toString(16)}\r\n${smuggled}\r\n0\r\n\r\n`,
    ],
  ])('keeps the body of a GET %s a body', async (_name, header, body) => {
    const seen: string[] = [];
    const { port } = await inFrontOf(async (request, response) => {
      seen.push(`${request.url} ${await bodyOf(request)}`);
      response.end('ok');
    });
    const socket = connect(port, '127.0.0.1');
    socket.write(`GET /own HTTP/1.1\r\nHost: x\r\n${header}\r\n\r\n${body}`);
    await once(socket, 'data');
    await fetch(`http://127.0.0.1:${port}/next`); // on the same connection behind
    expect(seen).toEqual([`/own ${smuggled}`, '/next ']);
    socket.destroy();
  });
});

describe('what the next server is told of where a request comes from', () => {
  const said = {
    'x-forwarded-for': '203.0.113.9',
    'x-forwarded-proto': 'https',
    forwarded: 'for=x',
    accept: '*/*',
  };

  it.each(['127.0.0.1', '::1', '10.1.2.3', '192.168.1.1', '::ffff:172.16.0.1', 'fd00::1'])(
    'is what a neighbour said, and its address %s',
    (address) => {
      expect(forwardedHeaders(said, address)).toEqual({
        ...said,
        'x-forwarded-for': `203.0.113.9, ${address}`,
      });
    },
  );

  it.each(['198.51.100.7', '::ffff:198.51.100.7', '2001:db8::1'])(
    'is nothing that the stranger %s said, but its address',
    (address) => {
      expect(forwardedHeaders(said, address)).toEqual({ accept: '*/*', 'x-forwarded-for': address });
    },
  );

  it('holds for one connection only where the sender says so', () => {
    const headers = {
      connection: 'close, X-Secret',
      'x-secret': '1',
      te: 'trailers',
      upgrade: 'h2c',
      expect: 'x',
    };
    expect(forwardedHeaders(headers, '127.0.0.1')).toEqual({ 'x-forwarded-for': '127.0.0.1' });
  });
});
