import { expect, test } from 'vitest';
import { Backoff } from './backoff.ts';

test('the delay doubles up to the cap and stays there', () => {
  const backoff = new Backoff(() => 0);
  const delaysMs = Array.from({ length: 50 }, () => backoff.nextDelayMs());
  expect(delaysMs.slice(0, 6)).toEqual([500, 1_000, 2_000, 4_000, 8_000, 8_000]);
  expect(delaysMs.at(-1)).toBe(8_000);
});

test('chance takes up to half of a delay', () => {
  const backoff = new Backoff(() => 0.5);
  expect([backoff.nextDelayMs(), backoff.nextDelayMs()]).toEqual([375, 750]);
});

test('a connection that proved itself starts over', () => {
  const backoff = new Backoff(() => 0);
  backoff.nextDelayMs();
  backoff.nextDelayMs();
  backoff.reset();
  expect(backoff.nextDelayMs()).toBe(500);
});
