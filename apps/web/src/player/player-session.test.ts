import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { type MediaPlayer, UnsupportedProtocolError } from './media-player.ts';
import { PlayerSession, type SessionVideo } from './player-session.ts';
import type { PlaybackFailure } from './player-state.ts';

/** A video element without pictures: time moves when the test says so. */
class FakeVideo extends EventTarget implements SessionVideo {
  muted = false;
  paused = true;
  ended = false;
  seeking = false;
  currentTime = 0;
  playbackRate = 1;
  buffered: TimeRanges = { length: 0, start: () => 0, end: () => 0 };
  videoWidth = 0;
  videoHeight = 0;
  /** As a browser that wants a click before it makes noise. */
  refusesSound = false;

  async play() {
    if (this.refusesSound && !this.muted) throw new DOMException('no gesture', 'NotAllowedError');
    this.paused = false;
    this.dispatchEvent(new Event('play'));
  }

  pause() {
    this.paused = true;
    this.dispatchEvent(new Event('pause'));
  }

  getVideoPlaybackQuality() {
    return { droppedVideoFrames: 0, totalVideoFrames: 0 };
  }

  advance(seconds: number) {
    this.currentTime += seconds;
    this.dispatchEvent(new Event('timeupdate'));
  }
}

interface Connection {
  readonly fail: (failure: PlaybackFailure) => void;
  isClosed: boolean;
  sound: string;
}

function start(options: { video?: FakeVideo; isUnsupported?: boolean } = {}) {
  const video = options.video ?? new FakeVideo();
  const connections: Connection[] = [];
  const onAutoplayMuted = vi.fn();
  const session = new PlayerSession({
    video,
    loadPlayer: async () => (onFailure) => {
      if (options.isUnsupported) throw new UnsupportedProtocolError('test');
      const connection: Connection = { fail: onFailure, isClosed: false, sound: 'Deutsch' };
      connections.push(connection);
      const player: MediaPlayer = {
        protocolName: 'test',
        goLive: () => {},
        readBehindLiveSeconds: () => 0,
        readStats: () => ({
          latencySeconds: undefined,
          wallClockDelaySeconds: undefined,
          bitrateBps: undefined,
          frameRate: undefined,
          codecs: undefined,
        }),
        readChoice: (kind) =>
          kind === 'sound' ? { options: ['Deutsch', 'English'], chosen: connection.sound } : undefined,
        choose: (_kind, option) => {
          connection.sound = option;
        },
        close: () => {
          connection.isClosed = true;
          // As hls.js and mpegts.js do it when they let go.
          if (!video.paused) video.pause();
        },
      };
      return player;
    },
    onAutoplayMuted,
    random: () => 0,
  });
  sessions.push(session);
  return {
    session,
    video,
    connections,
    onAutoplayMuted,
    status: () => session.getState().status.name,
    newest: () => {
      const connection = connections.at(-1);
      if (connection === undefined) throw new Error('There is no connection.');
      return connection;
    },
  };
}

const sessions: PlayerSession[] = [];
const passMs = (ms: number) => vi.advanceTimersByTimeAsync(ms);

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  for (const session of sessions.splice(0)) session.close();
  vi.useRealTimers();
});

test('it connects at once, without waiting for the directory', async () => {
  const { video, connections, status } = start();
  await passMs(0);
  expect(connections).toHaveLength(1);
  expect(video.paused).toBe(false);
  video.advance(0.25);
  expect(status()).toBe('playing');
});

test('after a failure it tries again, each time later, and never ends', async () => {
  const { connections, newest } = start();
  await passMs(0);
  for (const delayMs of [500, 1_000, 2_000, 4_000, 8_000, 8_000, 8_000]) {
    const attempts = connections.length;
    newest().fail('network');
    expect(newest().isClosed).toBe(true);
    await passMs(delayMs - 1);
    expect(connections).toHaveLength(attempts);
    await passMs(1);
    expect(connections).toHaveLength(attempts + 1);
  }
});

test('only a connection that played for a while makes the next delay short again', async () => {
  const { video, connections, newest } = start();
  await passMs(0);
  newest().fail('network');
  await passMs(500);
  video.advance(0.25);
  newest().fail('network');
  await passMs(500);
  expect(connections).toHaveLength(2);
  await passMs(500);
  expect(connections).toHaveLength(3);
  for (let second = 0; second < 7; second += 1) {
    video.advance(1);
    await passMs(1_000);
  }
  newest().fail('ended');
  await passMs(500);
  expect(connections).toHaveLength(4);
});

test('off the air it waits for the directory alone, and starts by itself when it is back', async () => {
  const { session, connections, newest, video, status } = start();
  await passMs(0);
  session.setOnAir(false);
  expect(status()).toBe('offline');
  expect(newest().isClosed).toBe(true);
  await passMs(60_000);
  expect(connections).toHaveLength(1);
  session.setOnAir(true);
  await passMs(0);
  expect(connections).toHaveLength(2);
  expect(video.paused).toBe(false);
  video.advance(1);
  expect(status()).toBe('playing');
});

test('with the directory down it keeps trying a stream that is not found', async () => {
  const { session, connections, newest, status } = start();
  await passMs(0);
  session.setOnAir(undefined);
  newest().fail('not-found');
  expect(status()).toBe('offline');
  await passMs(500);
  expect(connections).toHaveLength(2);
});

test('a directory that falls silent while the channel is off leads to attempts again', async () => {
  const { session, connections } = start();
  await passMs(0);
  session.setOnAir(false);
  session.setOnAir(undefined);
  await passMs(500);
  expect(connections).toHaveLength(2);
});

test('off the air, a key press does not break the promise to start again', async () => {
  const { session, connections } = start();
  await passMs(0);
  session.setOnAir(false);
  session.togglePlay();
  session.setOnAir(true);
  await passMs(0);
  expect(connections).toHaveLength(2);
});

test('a connection that brings no media is given up', async () => {
  const { connections, status } = start();
  await passMs(13_000);
  expect(connections[0]?.isClosed).toBe(true);
  expect(status()).toBe('waiting');
  await passMs(500);
  expect(connections).toHaveLength(2);
});

test('a late word of an old connection is not heard', async () => {
  const { connections, newest, video, status } = start();
  await passMs(0);
  const old = newest();
  old.fail('network');
  await passMs(500);
  video.advance(1);
  old.fail('media');
  expect(status()).toBe('playing');
  expect(connections).toHaveLength(2);
  expect(newest().isClosed).toBe(false);
});

test('where sound is not allowed it starts muted and says so', async () => {
  const video = new FakeVideo();
  video.refusesSound = true;
  const { onAutoplayMuted } = start({ video });
  await passMs(0);
  expect(video).toMatchObject({ muted: true, paused: false });
  expect(onAutoplayMuted).toHaveBeenCalledOnce();
});

test('a pause stays a pause, and after a minute lets go of the connection', async () => {
  const { session, video, connections, newest, status } = start();
  await passMs(0);
  video.advance(1);
  session.togglePlay();
  expect(video.paused).toBe(true);
  await passMs(59_000);
  expect(status()).toBe('paused');
  expect(newest().isClosed).toBe(false);
  await passMs(3_000);
  expect(newest().isClosed).toBe(true);
  expect(connections).toHaveLength(1);
  session.togglePlay();
  await passMs(0);
  expect(connections).toHaveLength(2);
  expect(video.paused).toBe(false);
});

test('media keys pause and play as the buttons do', async () => {
  const { video, status } = start();
  await passMs(0);
  video.advance(1);
  video.pause();
  expect(status()).toBe('paused');
  await video.play();
  video.advance(1);
  expect(status()).toBe('playing');
});

test('a protocol that the browser lacks is not tried again', async () => {
  const { session, connections } = start({ isUnsupported: true });
  await passMs(60_000);
  expect(session.getState().status).toEqual({ name: 'error', cause: 'unsupported' });
  expect(connections).toHaveLength(0);
});

test('closed, it does nothing any more', async () => {
  const { session, connections, newest } = start();
  await passMs(0);
  newest().fail('network');
  session.close();
  await passMs(60_000);
  expect(connections).toHaveLength(1);
  expect(vi.getTimerCount()).toBe(0);
});

test('what the viewer chose holds across connections', async () => {
  const { session, connections } = start();
  await vi.advanceTimersByTimeAsync(0);
  session.choose('sound', 'English');
  expect(session.readChoice('sound')).toEqual({ options: ['Deutsch', 'English'], chosen: 'English' });
  expect(session.readChoice('quality')).toBeUndefined();
  connections[0]?.fail('network');
  await vi.advanceTimersByTimeAsync(10_000);
  expect(connections.map(({ sound }) => sound)).toEqual(['English', 'English']);
});
