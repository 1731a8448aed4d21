import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  compareTicks,
  msToTicks,
  nanoFromTicks,
  rescaleTicks,
  TimestampUnwrapper,
  ticksFromNano,
  ticksToMs,
} from './time.ts';

const timescalesHz = fc.constantFrom(90_000, 48_000, 44_100, 32_000, 22_050);
/** A century. Its products with a timescale exceed 2^53. */
const ticks = fc.integer({ min: 0, max: 100 * 366 * 86_400 * 48_000 });

describe('times in ticks', () => {
  it('are rescaled to the nearest tick, as exact integers would be', () => {
    fc.assert(
      fc.property(ticks, timescalesHz, timescalesHz, (value, fromHz, toHz) => {
        const doubled = (2n * BigInt(value) * BigInt(toHz)) / BigInt(fromHz);
        expect(rescaleTicks(value, fromHz, toHz)).toBe(Number((doubled + 1n) / 2n));
      }),
    );
  });

  it('are ordered across timescales as exact fractions would be', () => {
    fc.assert(
      fc.property(
        ticks,
        timescalesHz,
        timescalesHz,
        fc.integer({ min: -2, max: 2 }),
        (value, aHz, bHz, step) => {
          const other = rescaleTicks(value, aHz, bHz) + step;
          const exact = BigInt(value) * BigInt(bHz) - BigInt(other) * BigInt(aHz);
          expect(Math.sign(compareTicks(value, aHz, other, bHz))).toBe(exact > 0n ? 1 : exact < 0n ? -1 : 0);
        },
      ),
    );
  });

  it('survive the way through milliseconds and nanoseconds', () => {
    fc.assert(
      fc.property(ticks, timescalesHz, (value, hz) => {
        const nano = nanoFromTicks(value, hz);
        expect(nano.nanos).toBeGreaterThanOrEqual(0);
        expect(nano.nanos).toBeLessThan(1_000_000);
        expect(ticksFromNano(nano, hz)).toBe(value);
      }),
    );
  });

  it('convert to and from milliseconds', () => {
    expect(ticksToMs(90_000 * 3600 + 45, 90_000)).toBe(3_600_000.5);
    expect(msToTicks(40, 90_000)).toBe(3600);
    expect(msToTicks(21.333, 48_000)).toBe(1024);
  });
});

describe('a timestamp that wraps', () => {
  it.each([2 ** 31, 2 ** 32])('is followed over many wraps at %d, small steps back included', (modulus) => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 2 ** 40 }),
        fc.array(fc.integer({ min: -50, max: 2 ** 29 }), { minLength: 1, maxLength: 60 }),
        (start, steps) => {
          const unwrapper = new TimestampUnwrapper(modulus);
          unwrapper.anchor(start);
          let absolute = start;
          for (const step of steps) {
            absolute = Math.max(0, absolute + step);
            expect(unwrapper.unwrap(absolute % modulus)).toBe(absolute);
          }
        },
      ),
    );
  });

  it('is taken as it is where nothing says what it is close to', () => {
    expect(new TimestampUnwrapper(2 ** 32).unwrap(4_000_000_000)).toBe(4_000_000_000);
  });
});
