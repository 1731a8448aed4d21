import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { type MediaPlayer, type PlaybackSource, UnsupportedProtocolError } from './media-player.ts';
import { PlayerSession, type SessionVideo } from './player-session.ts';
import type { PlaybackFailure } from './player-state.ts';
import type { RewindExtent } from './rewind-window.ts';

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
  error: MediaError | null = null;
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
  readonly source: PlaybackSource;
  sound: string;
}

/** The recording of a test: 100 minutes up to the present, which stands still. */
const LIVE_UNIX_MS = 1_700_000_000_000;
const extent: RewindExtent = { fromUnixMs: LIVE_UNIX_MS - 6_000_000, liveUnixMs: LIVE_UNIX_MS };

interface StartOptions {
  readonly video?: FakeVideo;
  readonly isUnsupported?: boolean;
  readonly extent?: RewindExtent;
  /** What a player of the live stream can reach by itself, in seconds behind live. */
  readonly reachSeconds?: number;
  /** As FLV, whose pictures have no date. */
  readonly isDateless?: boolean;
}

function start(options: StartOptions = {}) {
  const video = options.video ?? new FakeVideo();
  const connections: Connection[] = [];
  const onAutoplayMuted = vi.fn();
  const session = new PlayerSession({
    video,
    readExtent: () => options.extent,
    loadPlayer: async (source) => (onFailure) => {
      if (options.isUnsupported) throw new UnsupportedProtocolError('test');
      const connection: Connection = { fail: onFailure, isClosed: false, source, sound: 'Deutsch' };
      connections.push(connection);
      // The first picture is the one at position 0.
      video.currentTime = 0;
      const startUnixMs = source.kind === 'live' ? LIVE_UNIX_MS - 1000 : source.startUnixMs;
      const reachMs = (options.reachSeconds ?? 0) * 1000;
      const player: MediaPlayer = {
        protocolName: 'test',
        goLive: () => {},
        readDateUnixMs: () =>
          options.isDateless && source.kind === 'live' ? undefined : startUnixMs + video.currentTime * 1000,
        seekTo: (dateUnixMs) => {
          const isThere = source.kind === 'recording' || LIVE_UNIX_MS - dateUnixMs <= reachMs;
          if (isThere) video.currentTime = (dateUnixMs - startUnixMs) / 1000;
          return isThere;
        },
        readBehindLiveSeconds: () => 0,
        readStats: () => ({
          latencySeconds: options.isDateless ? 0.6 : undefined,
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

test('a pause by the browser, which cannot decode, is not the wish of the viewer', async () => {
  const { video, connections, newest, status } = start();
  await passMs(0);
  for (let second = 0; second < 6; second++) {
    await passMs(1000);
    video.advance(1);
  }
  // Chromium tells of the error first, and then pauses the element.
  video.error = { code: 3, message: 'PIPELINE_ERROR_DECODE' } as MediaError;
  video.pause();
  newest().fail('media');
  video.error = null;
  expect(status()).toBe('waiting');
  // At once where the connection was a good one ...
  await passMs(0);
  expect(connections).toHaveLength(2);
  expect(video.paused).toBe(false);
  // ... and with a delay where it was not.
  newest().fail('media');
  await passMs(0);
  expect(connections).toHaveLength(2);
  await passMs(500);
  expect(connections).toHaveLength(3);
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

describe('rewinding', () => {
  const minutesAgo = (minutes: number) => LIVE_UNIX_MS - minutes * 60_000;

  /** A session that plays live. */
  async function playing(options: StartOptions = {}) {
    const started = start({ extent, ...options });
    await passMs(0);
    started.video.advance(0.25);
    return started;
  }

  test('opens the recording at the time, and says so at once', async () => {
    const { session, video, newest, connections, status } = await playing();
    session.seekTo(minutesAgo(30));
    expect(session.readDateUnixMs()).toBe(minutesAgo(30));
    expect(status()).toBe('waiting');
    await passMs(0);
    expect(connections[0]?.isClosed).toBe(true);
    expect(newest().source).toEqual({ kind: 'recording', startUnixMs: minutesAgo(30) });
    video.advance(2);
    expect(status()).toBe('playing');
    expect(session.readDateUnixMs()).toBe(minutesAgo(30) + 2000);
    expect(session.readBehindLiveSeconds()).toBe(1798);
    expect(session.getState().stallCount).toBe(0);
  });

  test('goes no further back than there is something', async () => {
    const { session, newest } = await playing();
    session.seekTo(minutesAgo(500));
    await passMs(0);
    expect(newest().source).toEqual({ kind: 'recording', startUnixMs: extent.fromUnixMs });
  });

  test('needs no other connection where the one there is has the media', async () => {
    const { session, connections } = await playing({ reachSeconds: 25 });
    session.seekBy(-10);
    session.seekBy(-10);
    await passMs(0);
    expect(connections).toHaveLength(1);
    expect(session.readDateUnixMs()).toBe(LIVE_UNIX_MS - 20_750);
    session.seekBy(-10);
    await passMs(0);
    expect(connections[1]?.source).toEqual({ kind: 'recording', startUnixMs: LIVE_UNIX_MS - 30_750 });
    session.seekTo(minutesAgo(50));
    expect(connections).toHaveLength(2);
  });

  test('steps add up while the recording is being opened', async () => {
    const { session, newest } = await playing();
    for (let step = 0; step < 3; step += 1) session.seekBy(-10);
    await passMs(0);
    expect(newest().source).toEqual({ kind: 'recording', startUnixMs: LIVE_UNIX_MS - 30_750 });
  });

  test('ends with the present', async () => {
    const { session, video, newest } = await playing();
    session.seekTo(minutesAgo(30));
    await passMs(0);
    video.advance(0.25);
    session.goLive();
    await passMs(0);
    expect(newest().source).toEqual({ kind: 'live' });
    // So near to it there is no recording yet.
    session.seekTo(LIVE_UNIX_MS - 5000);
    await passMs(0);
    expect(newest().source).toEqual({ kind: 'live' });
  });

  test('is not possible without a recording', async () => {
    const { session, connections } = start();
    await passMs(0);
    session.seekTo(minutesAgo(30));
    session.seekBy(-10);
    await passMs(0);
    expect(connections).toHaveLength(1);
  });

  test('a lost connection is made again where the picture was', async () => {
    const { session, video, newest } = await playing();
    session.seekTo(minutesAgo(30));
    await passMs(0);
    video.advance(5);
    newest().fail('network');
    await passMs(500);
    expect(newest().source).toEqual({ kind: 'recording', startUnixMs: minutesAgo(30) + 5000 });
  });

  test.each(['ended', 'not-found'] as const)('a recording that is %s leads to live', async (failure) => {
    const { session, video, newest } = await playing();
    session.seekTo(minutesAgo(30));
    await passMs(0);
    video.advance(5);
    newest().fail(failure);
    await passMs(500);
    expect(newest().source).toEqual({ kind: 'live' });
  });
});

describe('pausing a channel with a recording', () => {
  /** Pauses, and lets the present move on. */
  async function paused(options: StartOptions & { forMs: number }) {
    let liveUnixMs = LIVE_UNIX_MS;
    const moving: RewindExtent = {
      fromUnixMs: LIVE_UNIX_MS - 6_000_000,
      get liveUnixMs() {
        return liveUnixMs;
      },
    };
    const started = start({ extent: moving, ...options });
    await passMs(0);
    started.video.advance(0.25);
    started.session.togglePlay();
    liveUnixMs += options.forMs;
    await passMs(options.forMs);
    return started;
  }

  test('goes on where it was, out of the recording', async () => {
    for (const forMs of [20_000, 600_000]) {
      const { session, newest, video, status } = await paused({ forMs });
      expect(session.readBehindLiveSeconds()).toBe(forMs / 1000 + 0.75);
      session.togglePlay();
      await passMs(0);
      expect(newest().source).toEqual({ kind: 'recording', startUnixMs: LIVE_UNIX_MS - 750 });
      video.advance(0.25);
      expect(status()).toBe('playing');
    }
  });

  test('knows where it was also on a stream without dates', async () => {
    const { session, newest } = await paused({ forMs: 20_000, isDateless: true });
    session.togglePlay();
    await passMs(0);
    expect(newest().source).toEqual({ kind: 'recording', startUnixMs: LIVE_UNIX_MS - 600 });
  });

  test('needs no other connection after a moment', async () => {
    const { session, connections } = await paused({ forMs: 5000 });
    session.togglePlay();
    await passMs(0);
    expect(connections).toHaveLength(1);
  });

  test('stays paused where it is moved to', async () => {
    const { session, newest, video, status } = await paused({ forMs: 5000 });
    session.seekTo(LIVE_UNIX_MS - 60_000);
    await passMs(0);
    expect(newest().source).toEqual({ kind: 'recording', startUnixMs: LIVE_UNIX_MS - 60_000 });
    expect([status(), video.paused]).toEqual(['paused', true]);
    expect(session.readDateUnixMs()).toBe(LIVE_UNIX_MS - 60_000);
    session.goLive();
    await passMs(0);
    expect(newest().source).toEqual({ kind: 'live' });
    expect(video.paused).toBe(false);
  });
});
