import { expect, test } from 'vitest';
import {
  formatBehind,
  formatBitrate,
  formatClock,
  formatDay,
  formatDuration,
  formatFrameRate,
  formatNextStart,
  formatProgrammeTimes,
  formatSeconds,
  formatTimeLeft,
  placeInSpan,
  programmeProgress,
} from './format.ts';

/** A time of the viewer's own time zone, whichever the test runs in. */
const local = (hours: number, minutes: number, seconds = 0) => new Date(2026, 4, 1, hours, minutes, seconds);
const programme = (from: Date, to: Date) => ({ startsAt: from.toISOString(), endsAt: to.toISOString() });

test('times are local, to the minute', () => {
  expect(formatClock(local(9, 5).getTime())).toBe('09:05');
  expect(formatProgrammeTimes(programme(local(20, 15), local(21, 45)))).toBe('20:15–21:45');
  expect(formatNextStart(local(21, 45).toISOString(), programme(local(20, 15), local(21, 45)))).toBe('21:45');
});

test('a distance from live is written as a clock', () => {
  expect([0, 7.4, 60, 750, 3723].map(formatBehind)).toEqual(['0:00', '0:07', '1:00', '12:30', '1:02:03']);
});

test('a programme of less than five minutes shows its seconds', () => {
  const short = programme(local(20, 15, 10), local(20, 15, 40));
  expect(formatProgrammeTimes(short)).toBe('20:15:10–20:15:40');
  expect(formatNextStart(short.endsAt, short)).toBe('20:15:40');
  expect(formatNextStart(local(20, 0).toISOString(), null)).toBe('20:00');
});

test('progress runs from 0 to 1 and stays there', () => {
  const hour = programme(local(20, 0), local(21, 0));
  expect(programmeProgress(hour, local(19, 59).getTime())).toBe(0);
  expect(programmeProgress(hour, local(20, 15).getTime())).toBe(0.25);
  expect(programmeProgress(hour, local(21, 1).getTime())).toBe(1);
  expect(programmeProgress(programme(local(20, 0), local(20, 0)), local(20, 0).getTime())).toBe(0);
});

test('the time left is in the largest useful unit', () => {
  const hour = programme(local(20, 0), local(21, 0));
  expect(formatTimeLeft(hour, local(20, 48).getTime())).toBe('12 min left');
  expect(formatTimeLeft(hour, local(20, 59, 20).getTime())).toBe('40 s left');
  expect(formatTimeLeft(hour, local(21, 0).getTime())).toBe('');
});

test.each([
  [400, '1 s'],
  [59_000, '59 s'],
  [59_500, '1 min'],
  [60 * 60_000, '1 h'],
  [65 * 60_000, '1 h 5 min'],
])('%i ms are %s', (lengthMs, words) => {
  expect(formatDuration(lengthMs)).toBe(words);
});

test('measured values carry their units, and a dash when they are not known', () => {
  expect(formatSeconds(2.345)).toBe('2.3 s');
  expect(formatBitrate(4_180_000)).toBe('4.2 Mb/s');
  expect(formatBitrate(640_400)).toBe('640 kb/s');
  expect(formatBitrate(999_700)).toBe('1.0 Mb/s');
  expect(formatFrameRate(25)).toBe('25 fps');
  expect(formatFrameRate(30_000 / 1001)).toBe('29.97 fps');
  expect([formatSeconds(undefined), formatBitrate(undefined), formatFrameRate(undefined)]).toEqual([
    '–',
    '–',
    '–',
  ]);
});

test('a programme is placed in the span that is shown, and cut at its ends', () => {
  const span = { fromMs: local(20, 0).getTime(), untilMs: local(22, 0).getTime() };
  expect(placeInSpan(programme(local(20, 30), local(21, 0)), span)).toEqual({
    startPercent: 25,
    widthPercent: 25,
  });
  expect(placeInSpan(programme(local(19, 0), local(21, 0)), span)).toEqual({
    startPercent: 0,
    widthPercent: 50,
  });
  expect(placeInSpan(programme(local(21, 30), local(23, 0)), span)).toEqual({
    startPercent: 75,
    widthPercent: 25,
  });
  expect(placeInSpan(programme(local(19, 0), local(20, 0)), span)).toBeUndefined();
  expect(placeInSpan(programme(local(22, 0), local(23, 0)), span)).toBeUndefined();
});

test('a day has its weekday', () => {
  expect(formatDay(local(9, 5).getTime())).toBe('Fri 1 May');
});
