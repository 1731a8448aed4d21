import { expect, test } from 'vitest';
import { bufferedEnd, nextBufferedStart, wallClockDelay } from './media-player.ts';

function ranges(...list: [start: number, end: number][]): TimeRanges {
  const edge = (index: number, side: 0 | 1) => {
    const range = list[index];
    if (range === undefined) throw new RangeError(`no range ${index}`);
    return range[side];
  };
  return { length: list.length, start: (index) => edge(index, 0), end: (index) => edge(index, 1) };
}

test('the buffer ends where the range around the position ends', () => {
  const buffered = ranges([0, 4], [6, 10]);
  expect(bufferedEnd(buffered, 2)).toBe(4);
  expect(bufferedEnd(buffered, 6)).toBe(10);
  expect(bufferedEnd(buffered, 5.95)).toBe(10);
  expect(bufferedEnd(buffered, 5)).toBeUndefined();
  expect(bufferedEnd(ranges(), 0)).toBeUndefined();
});

test('before a gap, playback goes on at the next range', () => {
  expect(nextBufferedStart(ranges([0, 4], [6, 10]), 4)).toBe(6);
  expect(nextBufferedStart(ranges([0, 4]), 4)).toBeUndefined();
});

test('the delay by the clock is left out when the clock is evidently wrong', () => {
  const nowMs = Date.parse('2026-05-01T12:00:07.500Z');
  expect(wallClockDelay(new Date('2026-05-01T12:00:00Z'), nowMs)).toBe(7.5);
  expect(wallClockDelay(new Date('2026-05-01T12:00:09Z'), nowMs)).toBeUndefined();
  expect(wallClockDelay(new Date('2026-04-01T12:00:00Z'), nowMs)).toBeUndefined();
  expect(wallClockDelay(null, nowMs)).toBeUndefined();
});
