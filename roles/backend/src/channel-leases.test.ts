import { expect, test } from 'vitest';
import { leaseNames, wantedLeases } from './channel-leases.ts';

const playout = (name: string, redundancy = 1) =>
  ({ name, kind: 'playout', sources: null, redundancy }) as const;
const taking = (name: string, primary: string | null, backup: string | null = null) =>
  ({ name, kind: 'playout', sources: { primary, backup }, redundancy: 1 }) as const;
const ofStream = (name: string) =>
  ({
    name,
    kind: 'live',
    sources: { primary: name, backup: null },
    redundancy: 1,
  }) as const;

test('channels of a schedule alone have a lease each, for as many backends as they say', () => {
  expect(wantedLeases([playout('films'), playout('news', 2)])).toEqual(
    new Map([
      ['library/media', 1],
      ['channel/films', 1],
      ['channel/news', 2],
    ]),
  );
});

test('channels that share a stream, or share one with such a channel, run together', () => {
  const channels = [
    taking('z', 'cam', 'phone'),
    ofStream('cam'),
    ofStream('phone'),
    taking('b', 'phone'),
    ofStream('studio'),
  ];
  const leaseOf = leaseNames(channels);
  expect(channels.map(({ name }) => leaseOf(name))).toEqual([
    'live/b',
    'live/b',
    'live/b',
    'live/b',
    'live/studio',
  ]);
});

test('a stream runs with its own channel, whatever that shows', () => {
  const silent = { ...ofStream('cam'), sources: { primary: null, backup: null } } as const;
  const leaseOf = leaseNames([silent, taking('films', 'cam')]);
  expect(leaseOf('films')).toBe(leaseOf('cam'));
});
