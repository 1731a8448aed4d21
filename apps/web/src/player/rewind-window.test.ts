import { expect, test } from 'vitest';
import { RewindWindow } from './rewind-window.ts';

const NOON = Date.UTC(2026, 4, 1, 12);
const answer = (fromSeconds: number, toSeconds: number, windowSeconds = 7200) => ({
  from: new Date(NOON + fromSeconds * 1000).toISOString(),
  to: new Date(NOON + toSeconds * 1000).toISOString(),
  now: new Date(NOON).toISOString(),
  windowSeconds,
});

function heard(value: unknown, nowMs: () => number = () => 0) {
  const window = new RewindWindow(nowMs);
  window.hear(value);
  return window.read();
}

test('it reaches from the oldest picture to the present of the server', () => {
  expect(heard(answer(-600, -3))).toEqual({ fromUnixMs: NOON - 600_000, liveUnixMs: NOON });
});

test('between two answers the present moves on, and what is too old goes', () => {
  let nowMs = 5000;
  const window = new RewindWindow(() => nowMs);
  window.hear(answer(-595, -3, 600));
  nowMs += 4000;
  expect(window.read()).toEqual({ fromUnixMs: NOON - 595_000, liveUnixMs: NOON + 4000 });
  nowMs += 4000;
  expect(window.read()).toEqual({ fromUnixMs: NOON - 592_000, liveUnixMs: NOON + 8000 });
  nowMs += 60_000;
  expect(window.read()).toBeUndefined();
});

test('there is nothing to rewind into without a recording, or with a short or an old one', () => {
  expect(heard(undefined)).toBeUndefined();
  expect(heard(answer(-19, -1))).toBeUndefined();
  expect(heard(answer(-600, -61))).toBeUndefined();
});

test('an answer of another form is an error, and forgets what was known', () => {
  const window = new RewindWindow(() => 0);
  window.hear(answer(-600, -3));
  expect(() => window.hear({ from: 'yesterday' })).toThrow(TypeError);
  expect(window.read()).toBeUndefined();
  expect(() => window.hear('x')).toThrow(TypeError);
});
