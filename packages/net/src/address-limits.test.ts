import { describe, expect, it } from 'vitest';
import { AddressLimits, LOOPBACK } from './address-limits.ts';

const limits = {
  maxConnectionsPerAddress: 2,
  maxRequestsPerSecondPerAddress: 10,
  maxRequestBurstPerAddress: 20,
};
const proxied = () => new AddressLimits(limits, [...LOOPBACK, '10.0.0.0/8', '2001:db8:1::/48', '192.0.2.1']);

describe('the address of a client', () => {
  it.each([
    ['a stranger', '203.0.113.5', '198.51.100.1', '203.0.113.5'],
    ['a stranger on a socket for both families', '::ffff:203.0.113.5', undefined, '203.0.113.5'],
    ['a proxy that says nothing', '127.0.0.1', undefined, '127.0.0.1'],
    ['a proxy', '::ffff:127.0.0.1', '203.0.113.5', '203.0.113.5'],
    ['a chain of proxies', '10.1.1.1', '6.6.6.6, 203.0.113.5, 192.0.2.1,10.2.2.2', '203.0.113.5'],
    ['proxies alone', '127.0.0.1', '10.1.1.1, 10.2.2.2', '10.1.1.1'],
    ['IPv6', '2001:db8:1::7', '2001:db8:2::9', '2001:db8:2::9'],
    ['IPv6 with a port', '127.0.0.1', '[2001:db8:2::9]:4711', '2001:db8:2::9'],
    ['IPv4 with a port', '127.0.0.1', '203.0.113.5:4711', '203.0.113.5'],
    ['what is no address', '127.0.0.1', '203.0.113.5, <script>', '127.0.0.1'],
    ['what is no address behind a proxy', '127.0.0.1', 'unknown, 10.1.1.1', '10.1.1.1'],
    ['a socket that has closed', undefined, undefined, 'unknown'],
  ])('of %s', (_, peer, forwardedFor, expected) => {
    expect(proxied().clientAddress(peer, forwardedFor)).toBe(expected);
  });

  it('is what a proxy says that is trusted for now, and no longer', () => {
    const addresses = proxied();
    expect(addresses.clientAddress('203.0.113.5', '198.51.100.1')).toBe('203.0.113.5');
    addresses.trust(['203.0.113.5', 'balancer.example']);
    expect(addresses.clientAddress('::ffff:203.0.113.5', '198.51.100.1')).toBe('198.51.100.1');
    addresses.trust([]);
    expect(addresses.clientAddress('203.0.113.5', '198.51.100.1')).toBe('203.0.113.5');
    expect(addresses.clientAddress('127.0.0.1', '198.51.100.1')).toBe('198.51.100.1');
  });

  it.each(['10.0.0.0/33', '10.0.0/8', 'proxy.example', '', '2001:db8::/129', '10.0.0.0/8/8'])(
    'is not taken from %j',
    (block) => {
      expect(() => new AddressLimits(limits, [block])).toThrow(RangeError);
    },
  );
});

describe('requests', () => {
  it('are a burst, and then as many as the rate gives', () => {
    const addresses = proxied();
    const count = (nowMs: number) => {
      let taken = 0;
      while (addresses.request('203.0.113.5', nowMs) === undefined) taken++;
      return taken;
    };
    expect(count(0)).toBe(20);
    expect(count(50)).toBe(0);
    expect(count(500)).toBe(5);
    expect(count(1_000_000)).toBe(20);
    expect(addresses.request('203.0.113.5', 1_000_000)).toBe(1);
    expect(addresses.request('203.0.113.6', 0)).toBeUndefined();
  });

  it.each(['127.0.0.1', '::1', '10.255.0.1', '2001:db8:1:ffff::1', '192.0.2.1', '::ffff:10.0.0.1'])(
    'of %s, which is trusted, have no limit',
    (address) => {
      const addresses = proxied();
      for (let turn = 0; turn < 1000; turn++) expect(addresses.request(address, 0)).toBeUndefined();
      expect(addresses.addressCount).toBe(0);
    },
  );

  it('are counted together for a /64 of IPv6', () => {
    const addresses = proxied();
    for (let host = 0; host < 20; host++) addresses.request(`2001:db8:2:3::${host}`, 0);
    expect(addresses.request('2001:0db8:0002:0003:ffff::1', 0)).toBe(1);
    expect(addresses.request('2001:db8:2:4::1', 0)).toBeUndefined();
    expect(addresses.request('2001:db8::1', 0)).toBeUndefined();
  });
});

it('connections are refused beyond the limit, and dropped beyond twice as many', () => {
  const addresses = proxied();
  const open = () => addresses.opened('::ffff:203.0.113.5');
  expect([open(), open(), open(), open(), open()]).toEqual(['accept', 'accept', 'refuse', 'refuse', 'drop']);
  for (let count = 0; count < 4; count++) addresses.closed('203.0.113.5');
  expect(open()).toBe('accept');
});

it('forgets who holds nothing, and never who holds a connection', () => {
  const addresses = proxied();
  addresses.opened('203.0.113.1');
  addresses.request('203.0.113.2', 0);
  addresses.sweep(50);
  expect(addresses.addressCount).toBe(2);
  addresses.sweep(100);
  expect(addresses.addressCount).toBe(1);
  for (let host = 0; host < 70_000; host++)
    addresses.request(`198.${host >> 16}.${(host >> 8) & 255}.${host & 255}`, 0);
  expect(addresses.addressCount).toBe(65_536);
  expect([addresses.opened('203.0.113.1'), addresses.opened('203.0.113.1')]).toEqual(['accept', 'refuse']);
});
