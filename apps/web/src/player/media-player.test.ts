import { expect, test, vi } from 'vitest';
import { beyondGap, bufferedEnd, resumeEarly, wallClockDelay } from './media-player.ts';

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

test('playback that comes to a gap, or has passed it, is moved to what follows', () => {
  const buffered = ranges([0, 4], [4.05, 10]);
  expect(beyondGap(buffered, 3.8, 3.9)).toBeUndefined();
  expect(beyondGap(buffered, 3.9, 3.95)).toBeCloseTo(4.051);
  expect(beyondGap(buffered, 4, 4)).toBeCloseTo(4.051);
  // A timer that came late: the decoder still stands before the gap.
  expect(beyondGap(buffered, 3.9, 4.9)).toBe(4.9);
  expect(beyondGap(buffered, 4.051, 4.1)).toBeUndefined();
  expect(beyondGap(ranges([0, 4]), 3.9, 4)).toBeUndefined();
});

test('playback that waits before the first media is moved to it', () => {
  expect(beyondGap(ranges([5, 10]), 0, 0)).toBeCloseTo(5.001);
  expect(beyondGap(ranges([0.02, 10]), 0, 0)).toBeUndefined();
  expect(beyondGap(ranges(), 0, 0)).toBeUndefined();
});

test('playback that ran dry is sought once there is half a second to play, unless it goes on by itself', () => {
  vi.useFakeTimers();
  try {
    const sought: number[] = [];
    class Video extends EventTarget {
      paused = false;
      seeking = false;
      readyState = 2;
      buffered = ranges([0, 10]);
      get currentTime() {
        return 10;
      }
      set currentTime(value) {
        sought.push(value);
      }
    }
    const video = new Video();
    const closing = new AbortController();
    resumeEarly(video, closing.signal);
    const runDry = () => video.dispatchEvent(new Event('waiting'));
    runDry();
    video.buffered = ranges([0, 10.4]);
    vi.advanceTimersByTime(5000);
    expect(sought).toEqual([]);
    video.buffered = ranges([0, 10.8]);
    vi.advanceTimersByTime(100);
    expect(sought).toEqual([10.001]);
    // A seek takes its time; only after a second it did not help.
    vi.advanceTimersByTime(900);
    expect(sought).toHaveLength(1);
    vi.advanceTimersByTime(100);
    expect(sought).toHaveLength(2);
    video.readyState = 4;
    vi.advanceTimersByTime(100);
    expect(vi.getTimerCount()).toBe(0);
    runDry();
    vi.advanceTimersByTime(5000);
    expect(sought).toHaveLength(2);
    video.readyState = 2;
    video.seeking = true;
    runDry();
    vi.advanceTimersByTime(5000);
    expect(sought).toHaveLength(2);
    closing.abort();
    runDry();
    expect(vi.getTimerCount()).toBe(0);
  } finally {
    vi.useRealTimers();
  }
});

test('the delay by the clock is left out when the clock is evidently wrong', () => {
  const nowMs = Date.parse('2026-05-01T12:00:07.500Z');
  expect(wallClockDelay(new Date('2026-05-01T12:00:00Z'), nowMs)).toBe(7.5);
  expect(wallClockDelay(new Date('2026-05-01T12:00:09Z'), nowMs)).toBeUndefined();
  expect(wallClockDelay(new Date('2026-04-01T12:00:00Z'), nowMs)).toBeUndefined();
  expect(wallClockDelay(null, nowMs)).toBeUndefined();
});
