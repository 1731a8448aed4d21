import { expect, test } from 'vitest';
import { mediaPaths, nextRefreshMs, readChannel, readChannelList, readGuide } from './api.ts';

const nowMs = Date.parse('2026-05-01T12:00:00Z');
const demo = {
  name: 'demo',
  title: 'Demo',
  number: 1,
  logo: null,
  group: 'Best',
  kind: 'playout',
  isPrivate: false,
  isOnAir: true,
  viewerCount: 0,
  source: null,
  now: { title: 'Test card', startsAt: '2026-05-01T11:59:00Z', endsAt: '2026-05-01T12:00:04Z' },
  next: { title: 'Film', startsAt: '2026-05-01T12:00:04Z' },
};

test('a channel is taken over as it is', () => {
  expect(readChannel(demo)).toEqual(demo);
  expect(readChannel({ ...demo, source: 'backup' }).source).toBe('backup');
  expect(readChannelList({ items: [demo, { ...demo, now: null, next: null }] })).toHaveLength(2);
});

test.each([
  ['a list without items', {}],
  ['a channel of an unknown kind', { items: [{ ...demo, kind: 'radio' }] }],
  ['a channel that does not say whether it is on the air', { items: [{ ...demo, isOnAir: 'yes' }] }],
  ['a name that is not a text', { items: [{ ...demo, name: 7 }] }],
  ['a time that is none', { items: [{ ...demo, next: { title: 'Film', startsAt: 'soon' } }] }],
  ['no object', 'demo'],
])('%s is refused', (_case, answer) => {
  expect(() => readChannelList(answer)).toThrow(TypeError);
});

test('the list is asked for again when a programme ends, but not more than once a second', () => {
  const channel = readChannel(demo);
  const endingAt = (endsAt: string) => ({ ...channel, now: { title: '', startsAt: endsAt, endsAt } });
  expect(nextRefreshMs([], nowMs)).toBe(10_000);
  expect(nextRefreshMs([{ ...channel, now: null }], nowMs)).toBe(10_000);
  expect(nextRefreshMs([endingAt('2026-05-01T13:00:00Z'), channel], nowMs)).toBe(4_250);
  expect(nextRefreshMs([endingAt('2026-05-01T11:00:00Z')], nowMs)).toBe(1_000);
});

test('the media are under the name of the channel', () => {
  expect(mediaPaths('demo')).toEqual({
    hls: '/live/demo/index.m3u8',
    dvr: '/live/demo/dvr.m3u8',
    dvrExtent: '/live/demo/dvr.json',
    flv: '/live/demo.flv',
    ts: '/live/demo.ts',
    thumbnail: '/live/demo/thumbnail.jpg',
  });
  expect(mediaPaths('demo', 'a.b.c').hls).toBe('/live/demo/index.m3u8?token=a.b.c');
  expect(mediaPaths('demo', 'a&b').flv).toBe('/live/demo.flv?token=a%26b');
  expect(mediaPaths('a/../b').flv).toBe('/live/a%2F..%2Fb.flv');
});

test('the guide is taken over as it is, and refused in another form', () => {
  const programme = { title: 'Film', startsAt: '2026-05-01T12:00:00Z', endsAt: '2026-05-01T13:00:00Z' };
  const items = [
    { name: 'demo', programmes: [programme, { ...programme, description: 'A film.', category: 'Art' }] },
  ];
  expect(readGuide({ items })).toEqual(items);
  for (const wrong of [{}, { items: [{ name: 'demo' }] }, { items: [{ name: 'demo', programmes: [{}] }] }]) {
    expect(() => readGuide(wrong)).toThrow(TypeError);
  }
});
