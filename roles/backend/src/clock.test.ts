import { expect, it } from 'vitest';
import { WallClock } from './clock.ts';

function newClock() {
  const time = { wallMs: 1_700_000_000_000, monotonicMs: 5000 };
  const clock = new WallClock(
    () => time.wallMs,
    () => time.monotonicMs,
  );
  const pass = (ms: number, wallStepMs = 0) => {
    time.monotonicMs += ms;
    time.wallMs += ms + wallStepMs;
    return clock.nowUnixMs();
  };
  return { pass };
}

it('starts at the wall clock and follows the monotonic one', () => {
  const { pass } = newClock();
  expect(pass(0)).toBe(1_700_000_000_000);
  expect(pass(40)).toBe(1_700_000_000_040);
});

it('ignores what a time service corrects by slewing', () => {
  const { pass } = newClock();
  expect(pass(40, 300)).toBe(1_700_000_000_040);
  expect(pass(40, -300)).toBe(1_700_000_000_080);
});

it('never runs backwards when the wall clock is set back', () => {
  const { pass } = newClock();
  expect(pass(40, -3_600_000)).toBe(1_700_000_000_040);
  expect(pass(40)).toBe(1_700_000_000_080);
});

it('jumps to the wall clock after a sleep, in which the monotonic clock stood still', () => {
  const { pass } = newClock();
  expect(pass(40, 600_000)).toBe(1_700_000_600_040);
  expect(pass(40)).toBe(1_700_000_600_080);
});
