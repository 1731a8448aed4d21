import { describe, expect, it } from 'vitest';
import { LocalCounters } from './counters.ts';
import { addressGroup } from './rate-limits.ts';

describe('addressGroup', () => {
  // RFC 5952 forms; what is expected is written out by hand.
  it.each([
    ['203.0.113.7', '203.0.113.7'],
    ['::ffff:203.0.113.7', '203.0.113.7'],
    ['2001:db8::1', '2001:db8:0:0::/64'],
    ['2001:db8:0:0:1:2:3:4', '2001:db8:0:0::/64'],
    ['2001:0DB8:00a0:0b00::', '2001:db8:a0:b00::/64'],
    ['::1', '0:0:0:0::/64'],
    ['fe80::1%eth0', 'fe80:0:0:0::/64'],
    ['64:ff9b::203.0.113.7', '64:ff9b:0:0::/64'],
  ])('%s is in %s', (address, group) => expect(addressGroup(address)).toBe(group));
});

describe('counts', () => {
  it('begin anew when their time is over', async () => {
    let nowMs = 1000;
    const counters = new LocalCounters(() => nowMs);
    expect(await counters.add('a', 100)).toEqual({ count: 1, resetsInMs: 100 });
    nowMs = 1099;
    expect(await counters.add('a', 100)).toEqual({ count: 2, resetsInMs: 1 });
    expect(await counters.add('b', 100)).toEqual({ count: 1, resetsInMs: 100 });
    nowMs = 1100;
    expect(await counters.add('a', 100)).toEqual({ count: 1, resetsInMs: 100 });
  });

  it('are forgotten, the oldest first, when there are too many', async () => {
    const counters = new LocalCounters(() => 0);
    for (let i = 0; i <= 100_000; i++) await counters.add(String(i), 1000);
    expect((await counters.add('100000', 1000)).count).toBe(2);
    expect((await counters.add('50000', 1000)).count).toBe(2);
    expect((await counters.add('0', 1000)).count).toBe(1);
  });
});
