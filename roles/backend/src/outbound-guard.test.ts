import { once } from 'node:events';
import { createServer, get, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import {
  checkHost,
  ForbiddenAddress,
  guardedLookup,
  isPublicAddress,
  openGuardProxy,
} from './outbound-guard.ts';

const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0)) await close();
});

describe('isPublicAddress', () => {
  it.each([
    '0.0.0.0',
    '10.1.2.3',
    '100.64.0.1',
    '127.0.0.1',
    '169.254.169.254', // the metadata service of clouds
    '172.31.255.255',
    '192.168.1.1',
    '198.18.0.1',
    '224.0.0.1',
    '255.255.255.255',
    '::',
    '::1',
    '::ffff:127.0.0.1',
    '64:ff9b::7f00:1',
    'fd00:ec2::254', // the metadata service of AWS
    'fe80::1',
    'ff02::1',
    '2001:db8::1',
    '2002:7f00:1::', // 127.0.0.1 through 6to4
    'no address',
  ])('refuses %s', (address) => {
    expect(isPublicAddress(address)).toBe(false);
  });

  it.each(['1.1.1.1', '93.184.216.34', '172.32.0.1', '2606:4700:4700::1111'])('takes %s', (address) => {
    expect(isPublicAddress(address)).toBe(true);
  });
});

describe('the look-up', () => {
  it('fails for a name of this machine', async () => {
    const outcome = new Promise((resolve) => guardedLookup(isPublicAddress)('localhost', {}, resolve));
    expect(await outcome).toBeInstanceOf(ForbiddenAddress);
  });

  it('does not see addresses, so they are checked by themselves, in every notation that URLs have', () => {
    for (const url of ['http://127.1/', 'http://0x7f000001/', 'http://2130706433/', 'http://[::1]/']) {
      expect(() => checkHost(new URL(url).hostname, isPublicAddress)).toThrow(ForbiddenAddress);
    }
    checkHost(new URL('http://example.org/').hostname, isPublicAddress);
  });
});

describe('the proxy for FFmpeg', () => {
  it('lets through what is allowed, plain and as a tunnel', async () => {
    const inside = createServer((incoming, response) => response.end(`asked for ${incoming.url}`));
    inside.listen(0, '127.0.0.1');
    await once(inside, 'listening');
    const { port } = inside.address() as AddressInfo;
    const proxy = await openGuardProxy((address) => address === '127.0.0.1');
    closers.push(
      () => proxy.close(),
      () => inside.close(),
    );
    const [answer] = await once(
      get({ ...parts(proxy.url), path: `http://127.0.0.1:${port}/a?b` }),
      'response',
    );
    expect(Buffer.concat(await answer.toArray()).toString()).toBe('asked for /a?b');
    const tunnel = request({ ...parts(proxy.url), method: 'CONNECT', path: `127.0.0.1:${port}` }).end();
    const [established, socket] = await once(tunnel, 'connect');
    expect(established.statusCode).toBe(200);
    socket.write('GET /c HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n');
    expect(Buffer.concat(await socket.toArray()).toString()).toMatch(/asked for \/c/);
  });

  it('lets nothing through to this machine, neither plain nor as a tunnel', async () => {
    const asked: string[] = [];
    const inside = createServer((incoming, response) => {
      asked.push(incoming.url ?? '');
      response.end('secret');
    }).listen(0, '127.0.0.1');
    await once(inside, 'listening');
    const { port } = inside.address() as AddressInfo;
    const proxy = await openGuardProxy(isPublicAddress);
    closers.push(
      () => proxy.close(),
      () => inside.close(),
    );
    for (const host of ['127.0.0.1', 'localhost', '[::1]']) {
      const plain = get({ ...parts(proxy.url), path: `http://${host}:${port}/plain` });
      const [answer] = await once(plain, 'response');
      expect(answer.statusCode).toBe(403);
      answer.resume();
      const tunnel = request({ ...parts(proxy.url), method: 'CONNECT', path: `${host}:${port}` }).end();
      const [refusal, socket] = await once(tunnel, 'connect');
      expect(refusal.statusCode).toBe(403);
      socket.destroy();
    }
    expect(asked).toEqual([]);
  });
});

function parts(url: string): { host: string; port: string } {
  const { hostname, port } = new URL(url);
  return { host: hostname, port };
}
