import { beforeEach, describe, expect, it } from 'vitest';
import {
  CHANNEL_FULL_TEXT,
  type Client,
  type HlsViewer,
  TOKEN_FULL_TEXT,
  ViewerRegistry,
  type ViewerRegistryOptions,
} from '../src/viewers.ts';

const TARGET_DURATION_MS = 2000;
/** Two and a half target durations and 3 s. */
const LIFETIME_MS = 8000;
const client = { address: '192.0.2.1', userAgent: 'player/1' };

let nowMs = 0;
let registry: ViewerRegistry;

function newRegistry(options: ViewerRegistryOptions = {}): ViewerRegistry {
  return new ViewerRegistry({ nowMs: () => nowMs, ...options });
}

beforeEach(() => {
  nowMs = 1000;
  registry = newRegistry();
});

const touch = (sessionId?: string, by: Client = client, channel = 'demo') =>
  registry.touchHls(channel, sessionId, by, TARGET_DURATION_MS);

function touched(sessionId?: string, by: Client = client): HlsViewer {
  const viewer = touch(sessionId, by);
  if (typeof viewer === 'string') throw new Error(viewer);
  return viewer;
}

const open = (protocol: 'flv' | 'rtmp' = 'flv', disconnect: () => void = () => {}) =>
  registry.open('demo', protocol, client, disconnect);

const counts = (channel = 'demo') => Object.fromEntries(registry.countsOf(channel));

function passTime(ms: number): void {
  nowMs += ms;
  registry.sweep();
}

describe('a viewer with a connection', () => {
  it('is there until it is closed', () => {
    const [first, second] = [open(), open()];
    open('rtmp');
    expect(counts()).toEqual({ flv: 2, rtmp: 1 });
    passTime(1_000_000);
    expect(counts()).toEqual({ flv: 2, rtmp: 1 });
    if (first === undefined || second === undefined) throw new Error('not let in');
    registry.close(first);
    registry.close(first); // twice is as good as once
    expect(counts()).toEqual({ flv: 1, rtmp: 1 });
    registry.close(second);
    expect(counts()).toEqual({ rtmp: 1 });
  });

  it('is told apart, with what is known of it', () => {
    const viewer = open();
    if (viewer !== undefined) viewer.sentBytes += 5;
    expect(registry.list()).toEqual([
      {
        ...client,
        id: viewer?.id,
        channel: 'demo',
        protocol: 'flv',
        startedAtUnixMs: expect.any(Number),
        sentBytes: 5,
        rendition: undefined,
        latencyMs: undefined,
        pass: undefined,
      },
    ]);
  });

  it('is disconnected by a kick, and gone at once', () => {
    let disconnects = 0;
    const viewer = open('flv', () => void disconnects++);
    open();
    expect(registry.kick(viewer?.id ?? '')).toBe(true);
    expect(disconnects).toBe(1);
    expect(counts()).toEqual({ flv: 1 });
    expect(registry.kick(viewer?.id ?? '')).toBe(false);
  });
});

describe('a viewer of HLS', () => {
  it('does not count for having been given a session id', () => {
    expect(registry.newHlsSessionId()).not.toBe(registry.newHlsSessionId());
    expect(counts()).toEqual({});
  });

  it('counts once, however often it asks', () => {
    const id = registry.newHlsSessionId();
    for (let turn = 0; turn < 20; turn++) {
      touch(id);
      passTime(2000);
      expect(counts()).toEqual({ hls: 1 });
    }
    expect(registry.list()[0]?.id).toBe(id);
  });

  it('is told from another at the same address by the session id', () => {
    touch(registry.newHlsSessionId());
    touch(registry.newHlsSessionId());
    expect(counts()).toEqual({ hls: 2 });
  });

  it('is gone when it has not asked for two and a half target durations and 3 s', () => {
    touch(registry.newHlsSessionId());
    passTime(LIFETIME_MS);
    expect(counts()).toEqual({ hls: 1 });
    passTime(1);
    expect(counts()).toEqual({});
  });

  it('is gone after 12 s, however long segments are', () => {
    registry.touchHls('demo', undefined, client, 60_000);
    passTime(12_001);
    expect(counts()).toEqual({});
  });

  it('stays while a request of it waits, and its time runs from the answer on', () => {
    const viewer = touched(registry.newHlsSessionId());
    const refuse = () => undefined;
    registry.beginHlsWait(viewer, refuse);
    passTime(60_000);
    expect(counts()).toEqual({ hls: 1 });
    registry.endHlsWait(viewer, refuse);
    passTime(LIFETIME_MS);
    expect(counts()).toEqual({ hls: 1 });
    passTime(1);
    expect(counts()).toEqual({});
  });

  it.each([
    ['no session id', undefined],
    ['what is no session id', '../../etc/passwd'],
  ])('that shows %s is known by address and user agent', (_, sessionId) => {
    touch(sessionId);
    touch(sessionId);
    expect(counts()).toEqual({ hls: 1 });
    touch(sessionId, { ...client, userAgent: 'player/2' });
    touch(sessionId, { ...client, address: '192.0.2.2' });
    expect(counts()).toEqual({ hls: 3 });
  });

  it('is not taken for a viewer of another channel or protocol that has its session id', () => {
    const flvId = open()?.id;
    const id = registry.newHlsSessionId();
    touch(id);
    touch(id, client, 'other');
    touch(flvId);
    expect(counts()).toEqual({ flv: 1, hls: 2 });
    expect(counts('other')).toEqual({ hls: 1 });
  });

  it('is credited with segments that go to its address and user agent after its playlist', () => {
    const first = touched(registry.newHlsSessionId());
    const second = touched(registry.newHlsSessionId(), { ...client, address: '192.0.2.2' });
    registry.countHlsMedia('demo', client, 1000);
    registry.countHlsMedia('demo', { ...client, address: '192.0.2.3' }, 1);
    expect([first.sentBytes, second.sentBytes]).toEqual([1000, 0]);
  });

  it('is refused after a kick, with its session id or as what it is known by', () => {
    const id = registry.newHlsSessionId();
    touch(id);
    registry.kick(id);
    expect(touch(id)).toBe('kicked');
    const nameless = touched();
    registry.kick(nameless.id);
    expect(touch()).toBe('kicked');
    expect(counts()).toEqual({});
    expect(touch(registry.newHlsSessionId())).toMatchObject({ protocol: 'hls' });
  });

  it('is remembered as kicked until ten thousand others have been', () => {
    const id = registry.newHlsSessionId();
    touch(id);
    registry.kick(id);
    for (let kicked = 0; kicked < 10_000; kicked++) {
      expect(touch(id)).toBe('kicked');
      registry.kick(touched(registry.newHlsSessionId()).id);
    }
    expect(touch(id)).toMatchObject({ id });
  });
});

describe('limits', () => {
  it('keep out the viewer that is one too many for the channel, whatever its protocol', () => {
    registry = newRegistry({ maxViewersOf: () => 2 });
    const id = registry.newHlsSessionId();
    const viewer = open();
    touch(id);
    expect(registry.whyFull('demo', undefined)).toBe(CHANNEL_FULL_TEXT);
    expect(open()).toBeUndefined();
    expect(touch(registry.newHlsSessionId())).toBe('full');
    expect(touch(id)).toMatchObject({ id }); // it is in
    expect(registry.whyFull('other', undefined)).toBeUndefined();
    if (viewer !== undefined) registry.close(viewer);
    expect(touch(registry.newHlsSessionId())).toMatchObject({ protocol: 'hls' });
  });

  it('bound the viewers of all channels together', () => {
    registry = newRegistry({ maxViewers: 1 });
    open();
    expect(registry.whyFull('other', undefined)).toBe(CHANNEL_FULL_TEXT);
    expect(touch(undefined, client, 'other')).toBe('full');
  });

  it('bound what is kept of a user agent', () => {
    touch(undefined, { ...client, userAgent: 'x'.repeat(10_000) });
    expect(registry.list()[0]?.userAgent).toHaveLength(256);
  });
});

describe('viewers with passes', () => {
  const pass = (tokenId: string, maxConcurrent?: number) => ({
    ...client,
    pass: { tokenId, maxConcurrent, expiresAtUnixMs: Number.POSITIVE_INFINITY, tokenInAddress: undefined },
  });

  it('are as many at the same time as the token allows, whatever the protocol', () => {
    const one = pass('one', 2);
    const first = registry.open('demo', 'flv', one, () => {});
    expect(touch(registry.newHlsSessionId(), one)).toMatchObject({ protocol: 'hls' });
    expect(registry.whyFull('demo', one.pass)).toBe(TOKEN_FULL_TEXT);
    expect(registry.open('other', 'ts', one, () => {})).toBeUndefined();
    expect(touch(registry.newHlsSessionId(), one)).toBe('full');
    expect(registry.open('demo', 'ts', pass('two', 2), () => {})).toBeDefined();
    expect(registry.open('demo', 'ts', pass('three'), () => {})).toBeDefined();
    if (first !== undefined) registry.close(first);
    expect(registry.open('other', 'ts', one, () => {})).toBeDefined();
  });

  it('do not become one viewer by sharing a session, where they are limited', () => {
    const id = registry.newHlsSessionId();
    const at = (address: string) => ({ ...pass('one', 2), address });
    const first = touched(id, at('192.0.2.1'));
    expect(touched(id, at('192.0.2.1'))).toBe(first);
    expect(touched(id, at('192.0.2.2'))).not.toBe(first);
    expect(touch(id, at('192.0.2.3'))).toBe('full');
    const elsewhere = newRegistry();
    registry = elsewhere;
    expect(touched(id, at('192.0.2.1')).id).toBe(first.id); // the same on every frontend
  });

  it('without a session are told apart by their tokens', () => {
    touch(undefined, pass('one'));
    touch(undefined, pass('two'));
    touch(undefined, pass('two'));
    expect(counts()).toEqual({ hls: 2 });
  });

  it('are shown out in the next sweep when they may not stay, requests that wait too, and may come again', () => {
    let mayStay = true;
    registry = newRegistry({
      mayStay: (channel, given) => mayStay || channel !== 'demo' || given === undefined,
    });
    const gone: string[] = [];
    const id = registry.newHlsSessionId();
    const waiting = touched(id, pass('one'));
    const refuse = () => {
      gone.push('hls');
      registry.endHlsWait(waiting, refuse);
    };
    registry.beginHlsWait(waiting, refuse);
    registry.open('demo', 'flv', pass('one'), () => void gone.push('flv'));
    registry.open('other', 'flv', pass('one'), () => void gone.push('other'));
    registry.sweep();
    expect(gone).toEqual([]);
    mayStay = false;
    registry.sweep();
    expect(gone).toEqual(['hls', 'flv']);
    expect([counts(), counts('other')]).toEqual([{}, { flv: 1 }]);
    expect(touch(id, pass('two'))).toMatchObject({ id });
  });
});

it('a kick refuses requests that wait, and sessions that other frontends know', () => {
  const viewer = touched(registry.newHlsSessionId());
  let refusals = 0;
  registry.beginHlsWait(viewer, () => void refusals++);
  registry.kick(viewer.id);
  expect(refusals).toBe(1);
  const elsewhere = registry.newHlsSessionId();
  expect(registry.kick(elsewhere)).toBe(false);
  expect([registry.isKicked(elsewhere), touch(elsewhere)]).toEqual([true, 'kicked']);
});

it('the revision rises when somebody comes or leaves, and at no other time', () => {
  const id = registry.newHlsSessionId();
  const before = registry.revision;
  touch(id);
  const come = registry.revision;
  touch(id);
  expect([come > before, registry.revision]).toEqual([true, come]);
  passTime(LIFETIME_MS + 1);
  expect(registry.revision).toBeGreaterThan(come);
});
