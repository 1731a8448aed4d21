import { expect, test } from 'vitest';
import { BitrateMeter } from './bitrate-meter.ts';

test('nothing is known before the first piece', () => {
  expect(new BitrateMeter(10).read()).toBeUndefined();
});

test('the rate is weighted by how long the pieces play', () => {
  const meter = new BitrateMeter(10);
  meter.add(500_000, 2);
  meter.add(100_000, 1);
  expect(meter.read()).toBe(1_600_000);
});

test('only the newest stretch counts', () => {
  const meter = new BitrateMeter(4);
  meter.add(9_000_000, 2);
  for (let piece = 0; piece < 2; piece += 1) meter.add(250_000, 2);
  expect(meter.read()).toBe(1_000_000);
});

test('a piece without length is left out', () => {
  const meter = new BitrateMeter(4);
  meter.add(9_000_000, 0);
  expect(meter.read()).toBeUndefined();
});
