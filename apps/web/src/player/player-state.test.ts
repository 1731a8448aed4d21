import { expect, test } from 'vitest';
import { initialPlayerState, nextPlayerState, type PlayerEvent, type PlayerState } from './player-state.ts';
import { statusWords } from './status-words.ts';

function run(...events: PlayerEvent[]): PlayerState {
  return events.reduce(nextPlayerState, initialPlayerState);
}

const advanced: PlayerEvent = { type: 'advanced' };
const ranDry: PlayerEvent = { type: 'ran-dry' };
const paused: PlayerEvent = { type: 'paused' };
const resumed: PlayerEvent = { type: 'resumed' };
const onAir: PlayerEvent = { type: 'directory', isOnAir: true };
const offAir: PlayerEvent = { type: 'directory', isOnAir: false };
const silent: PlayerEvent = { type: 'directory', isOnAir: undefined };
const failed = (failure: Extract<PlayerEvent, { type: 'failed' }>['failure']): PlayerEvent => ({
  type: 'failed',
  failure,
});

test('it begins by connecting and plays once media moves', () => {
  expect(run().status).toEqual({ name: 'waiting', reason: 'connecting' });
  expect(run(advanced).status).toEqual({ name: 'playing' });
});

test('an empty buffer is a stall, and counted once', () => {
  const state = run(advanced, ranDry, ranDry);
  expect(state.status).toEqual({ name: 'waiting', reason: 'buffering' });
  expect(state.stallCount).toBe(1);
  expect(run(ranDry).stallCount).toBe(0);
});

test('going to another time waits for its media, which is no stall', () => {
  const moved: PlayerEvent = { type: 'moved' };
  const state = run(advanced, moved, ranDry);
  expect(state).toMatchObject({ status: { name: 'waiting', reason: 'buffering' }, stallCount: 0 });
  expect(run(advanced, paused, moved).status.name).toBe('paused');
  expect(run(offAir, moved).status.name).toBe('offline');
  expect(run(failed('unsupported'), moved).status).toEqual({ name: 'waiting', reason: 'connecting' });
});

test('off the air while nothing plays is offline', () => {
  expect(run(offAir).status.name).toBe('offline');
  expect(run(offAir, failed('network')).status.name).toBe('offline');
});

test('the directory takes no picture away that plays', () => {
  expect(run(advanced, offAir).status.name).toBe('playing');
  expect(run(advanced, offAir, ranDry).status.name).toBe('offline');
});

test('media that moves ends every other state', () => {
  for (const before of [
    [offAir],
    [ranDry],
    [failed('network')],
    [failed('media'), failed('media'), failed('media')],
  ]) {
    expect(run(...before, advanced).status.name).toBe('playing');
  }
});

test('when it is back on the air it connects again', () => {
  expect(run(offAir, onAir).status).toEqual({ name: 'waiting', reason: 'reconnecting' });
});

test('a stream that is not found is off the air, unless the directory knows better', () => {
  expect(run(failed('not-found')).status.name).toBe('offline');
  expect(run(silent, failed('not-found')).status.name).toBe('offline');
  expect(run(onAir, failed('not-found')).status).toEqual({ name: 'waiting', reason: 'reconnecting' });
});

test('lost connections are tried again', () => {
  for (const failure of ['network', 'ended', 'starved'] as const) {
    expect(run(advanced, failed(failure)).status).toEqual({ name: 'waiting', reason: 'reconnecting' });
  }
});

test('media that cannot be decoded is an error after the third time', () => {
  expect(run(failed('media'), failed('media')).status.name).toBe('waiting');
  expect(run(failed('media'), failed('media'), failed('media')).status).toEqual({
    name: 'error',
    cause: 'media',
  });
  expect(run(failed('media'), failed('media'), advanced, failed('media')).status.name).toBe('waiting');
});

test('another attempt forgets the failures', () => {
  const state = run(failed('media'), failed('media'), failed('media'), { type: 'retried' }, failed('media'));
  expect(state.status).toEqual({ name: 'waiting', reason: 'reconnecting' });
});

test('a browser that cannot play the protocol stays at that, on or off the air', () => {
  const state = run(failed('unsupported'), offAir);
  expect(state.status).toEqual({ name: 'error', cause: 'unsupported' });
  expect(nextPlayerState(state, onAir).status.name).toBe('error');
});

test('pausing outlasts failures and the directory, until the viewer resumes', () => {
  expect(run(advanced, paused, offAir, failed('network')).status.name).toBe('paused');
  expect(run(advanced, paused, resumed).status).toEqual({ name: 'waiting', reason: 'buffering' });
  expect(run(advanced, paused, offAir, resumed).status.name).toBe('offline');
});

test('the same news twice changes nothing', () => {
  const state = run(onAir, advanced);
  expect(nextPlayerState(state, onAir)).toBe(state);
  expect(nextPlayerState(state, advanced)).toBe(state);
});

test('off the air is said in clear words', () => {
  expect(statusWords(run(offAir))).toEqual({
    title: 'Off the air',
    detail: 'This page starts playing by itself when it is back.',
  });
  expect(statusWords(run(advanced))).toBeUndefined();
});
