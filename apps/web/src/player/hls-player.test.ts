import Hls from 'hls.js';
import { expect, test } from 'vitest';
import { createHlsConfig, dateAt, positionOf, qualityName } from './hls-player.ts';

const config = createHlsConfig(() => 0);

test('the live edge is three segments away unless the playlist says otherwise', () => {
  expect(Hls.DefaultConfig.liveSyncDurationCount).toBe(3);
  // Setting either would overrule PART-HOLD-BACK, and with it low latency.
  expect(config).not.toHaveProperty('liveSyncDurationCount');
  expect(config).not.toHaveProperty('liveSyncDuration');
  expect(config).toMatchObject({ lowLatencyMode: true, backBufferLength: 30, maxMaxBufferLength: 60 });
});

test('hls.js takes the settings', () => {
  const hls = new Hls(config);
  expect(hls.config).toMatchObject({
    maxLiveSyncPlaybackRate: 1.1,
    liveSyncOnStallIncrease: 0.4,
    liveSyncDurationCount: 3,
  });
  hls.destroy();
});

test.each([
  ['a refused connection', 0, true],
  ['a server fault', 503, true],
  ['a missing segment', 404, false],
  ['a refusal', 403, false],
])('after %s a segment is asked for again: %s %s', (_case, code, isRetried) => {
  const retry = config.fragLoadPolicy?.default.errorRetry;
  const shouldRetry = (count: number) =>
    retry?.shouldRetry?.(retry, count, false, { url: '', code }, false) ?? false;
  expect(shouldRetry(0)).toBe(isRetried);
  expect(shouldRetry(12)).toBe(false);
});

test('the retries of a segment outlast a server restart of 30 s', () => {
  const retry = config.fragLoadPolicy?.default.errorRetry;
  if (!retry) throw new Error('no retry policy');
  let totalMs = 0;
  for (let count = 0; count < retry.maxNumRetry; count += 1) {
    totalMs += Math.min(retry.maxRetryDelayMs, retry.retryDelayMs * 2 ** count);
  }
  expect(totalMs).toBeGreaterThan(30_000);
});

/** A playlist of a recording: 20 s from 10:00:00 on, and after a break 20 s from 10:05:00 on. */
const TEN_UNIX_MS = Date.UTC(2026, 4, 1, 10);
const details = {
  fragments: [0, 1, 2, 3].map((index) => ({
    start: 100 + index * 10,
    duration: 10,
    programDateTime: TEN_UNIX_MS + (index < 2 ? index * 10_000 : 300_000 + (index - 2) * 10_000),
  })),
};

test('a position in the playlist has a date, on either side of a break', () => {
  expect(dateAt(details, 112.5)).toBe(TEN_UNIX_MS + 12_500);
  expect(dateAt(details, 125)).toBe(TEN_UNIX_MS + 305_000);
  expect(dateAt(details, 90)).toBeUndefined();
  expect(dateAt(details, 141)).toBeUndefined();
  expect(dateAt(null, 100)).toBeUndefined();
});

test('a date has a position, unless it is too early, too late, or about to go', () => {
  expect(positionOf(details, TEN_UNIX_MS + 12_500)).toBe(112.5);
  expect(positionOf(details, TEN_UNIX_MS + 305_000)).toBe(125);
  // In the break: what comes after it.
  expect(positionOf(details, TEN_UNIX_MS + 60_000)).toBe(120);
  expect(positionOf(details, TEN_UNIX_MS + 5000)).toBeUndefined();
  expect(positionOf(details, TEN_UNIX_MS - 60_000)).toBeUndefined();
  expect(positionOf(details, TEN_UNIX_MS + 320_000)).toBeUndefined();
  expect(positionOf(null, TEN_UNIX_MS)).toBeUndefined();
});

test.each([
  [{ height: 720, frameRate: 25, bitrate: 2_700_000 }, '720p'],
  [{ height: 1080, frameRate: 50, bitrate: 6_000_000 }, '1080p50'],
  [{ height: 240, frameRate: 0, bitrate: 300_000 }, '240p'],
  [{ height: 0, frameRate: 0, bitrate: 128_000 }, '128 kb/s'],
])('%o is called %s', (level, name) => {
  expect(qualityName(level)).toBe(name);
});
