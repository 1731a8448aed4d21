/** Which tracks an RTMP player gets: enhanced codecs only if it said, when it connected, that it takes them. */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import type { AudioTrack, StreamEvent } from '@starling/media/access-unit';
import { pino } from 'pino';
import { afterEach, expect, it, vi } from 'vitest';
import { CatchUp } from '../src/catch-up.ts';
import { EndlessRoutes } from '../src/endless-routes.ts';
import { defaultFanOutLimits } from '../src/fan-out.ts';
import { Stream } from '../src/stream.ts';
import { ViewerRegistry } from '../src/viewers.ts';
import { segment, videoTrack } from './synthetic-channel.ts';

/** RFC 7845, section 5.1: version 1, two channels, pre-skip 312, 48 kHz, no gain, mapping family 0. */
const OPUS_HEAD = Uint8Array.from([...Buffer.from('OpusHead'), 1, 2, 0x38, 0x01, 0x80, 0xbb, 0, 0, 0, 0, 0]);
const opusTrack: AudioTrack = {
  kind: 'audio',
  trackId: 0,
  language: undefined,
  codec: 'opus',
  config: OPUS_HEAD,
  codecString: 'opus',
  sampleRateHz: 48_000,
  channelCount: 2,
};

const cleanUps: (() => void)[] = [];
afterEach(() => {
  for (const cleanUp of cleanUps.splice(0)) cleanUp();
});

function channelOf(events: readonly StreamEvent[]) {
  const stream = new Stream({
    channel: 'test',
    partTargetMs: 400,
    windowDurationMs: 20_000,
    logger: pino({ level: 'silent' }),
  });
  const viewers = new ViewerRegistry();
  const nothing = () => {};
  const routes = new EndlessRoutes({
    stream,
    catchUp: new CatchUp(stream),
    viewers,
    limits: { ...defaultFanOutLimits, batchMs: 5 },
    counters: () => ({ bytesSent: nothing, skipped: nothing, evicted: nothing }),
  });
  cleanUps.push(() => routes.close());
  const publisher = stream.addPublisher();
  for (const event of events) publisher.event(event, 1);
  return { routes, viewers };
}

/** A player at the other end of a real connection. @param takes the FourCCs that it said it takes */
async function play(
  routes: EndlessRoutes,
  takes: readonly string[],
): Promise<{ text(): string; socket: Socket }> {
  const listener = createServer().listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const socket = connect((listener.address() as AddressInfo).port, '127.0.0.1');
  const [server] = (await once(listener, 'connection')) as [Socket];
  listener.close();
  cleanUps.push(() => {
    socket.destroy();
    server.destroy();
  });
  let text = '';
  socket.setEncoding('latin1').on('data', (more: string) => {
    text += more;
  });
  routes.play(undefined, {
    socket: server,
    canReceive: (_kind, fourCc) => takes.includes(fourCc),
    farewell: () => Buffer.from('farewell'),
  });
  return { text: () => text, socket };
}

const opening: readonly StreamEvent[] = [{ type: 'timeline', epochUnixMs: 0 }];
const opus: StreamEvent = { type: 'track', track: opusTrack };
/** Payload of the first picture of {@link segment}: an IDR slice of ones. */
const PICTURE = '\x65\x01\x01\x01';

it('gives Opus to a player that takes it', async () => {
  const { routes } = channelOf([...opening, { type: 'track', track: videoTrack }, opus, ...segment(1)]);
  const player = await play(routes, ['Opus']);
  await vi.waitFor(() => expect(player.text()).toContain(PICTURE));
  // Sound format 9 with SequenceStart, then with CodedFrames (Enhanced RTMP v2, "Enhanced Audio").
  expect(player.text()).toContain('\x90OpusOpusHead');
  expect(player.text()).toContain('\x91Opus');
});

it.each([[[]], [['hvc1', 'fLaC']]])(
  'leaves Opus out for a player that takes %j beside H.264',
  async (takes) => {
    const { routes, viewers } = channelOf([
      ...opening,
      { type: 'track', track: videoTrack },
      opus,
      ...segment(1),
    ]);
    const player = await play(routes, takes);
    await vi.waitFor(() => expect(player.text()).toContain(PICTURE));
    expect(player.text()).not.toContain('Opus');
    expect(viewers.list()).toMatchObject([{ protocol: 'rtmp' }]);
  },
);

it('says goodbye to a player that takes nothing of what there is', async () => {
  const units = segment(1).filter((event) => event.type !== 'unit' || event.unit.kind === 'audio');
  const { routes, viewers } = channelOf([...opening, opus, ...units]);
  const player = await play(routes, []);
  await once(player.socket, 'end');
  expect(player.text()).toBe('farewell');
  expect(viewers.list()).toEqual([]);
});
