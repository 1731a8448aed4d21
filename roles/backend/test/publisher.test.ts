import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { StreamEvent } from '@starling/media/access-unit';
import { FlvDemuxer } from '@starling/media/flv/demux';
import { RtmpServerSession } from '@starling/media/rtmp/session';
import type { Secret } from '@starling/model/secret';
import { Channel } from '@starling/net/channel';
import { RtmpServer } from '@starling/net/rtmp-server';
import { pino } from 'pino';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { FrontendLeg } from '../src/publisher.ts';

const logger = pino({ level: 'silent' });
const cleanUps: (() => void | Promise<void>)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

const audioTrack = {
  kind: 'audio',
  trackId: 0,
  language: undefined,
  codec: 'aac',
  config: Uint8Array.of(0x11, 0x90), // AAC-LC, 48 kHz, stereo
  codecString: 'mp4a.40.2',
  sampleRateHz: 48_000,
  channelCount: 2,
} as const;

const opening: StreamEvent[] = [
  { type: 'timeline', epochUnixMs: 1_700_000_000_000 },
  { type: 'track', track: audioTrack },
];

/** A segment of 47 audio units: about a second. */
function segment(mediaSequenceNumber: number, unitBytes = 300): StreamEvent[] {
  const firstUnit = mediaSequenceNumber * 47;
  const cue = {
    mediaSequenceNumber,
    discontinuitySequence: 0,
    startTicks: firstUnit * 1920,
    programDateTimeUnixMs: 1_700_000_000_000,
    programmeId: 'p',
    targetDurationMs: 2000,
    isIndependent: true,
  };
  const units = Array.from({ length: 47 }, (_, index): StreamEvent => {
    const dtsTicks = (firstUnit + index) * 1024;
    const data = new Uint8Array(unitBytes).fill(index + 1);
    return {
      type: 'unit',
      unit: { kind: 'audio', trackId: 0, dtsTicks, ptsTicks: dtsTicks, isRandomAccess: true, data },
    };
  });
  return [{ type: 'cue', cue }, ...units];
}

const dts = (events: readonly StreamEvent[]) =>
  events.flatMap((event) => (event.type === 'unit' ? [event.unit.dtsTicks] : []));

/** A socket's bytes are Buffers, which `toEqual` does not take for the same as Uint8Arrays. */
function withPlainBytes(event: StreamEvent): StreamEvent {
  if (event.type !== 'unit') return event;
  return { ...event, unit: { ...event.unit, data: new Uint8Array(event.unit.data) } };
}

/** A frontend that takes what is pushed; `received` grows. */
async function openFrontend(port = 0, token = () => 't') {
  const received: StreamEvent[] = [];
  const server = await RtmpServer.listen({
    host: '127.0.0.1',
    port,
    logger,
    handlers: {
      onPublish: ({ query }) => {
        if (query.get('token') !== token())
          return { code: 'NetStream.Publish.Unauthorized', description: 'no' };
        const demuxer = new FlvDemuxer();
        return {
          message: (message) => void received.push(...demuxer.push(message).map(withPlainBytes)),
          end: () => {},
        };
      },
    },
  });
  cleanUps.push(() => server.close());
  return { port: server.port, received, close: () => server.close() };
}

function openLeg(channel: Channel, port: number, publishToken: Secret = 't'): FrontendLeg {
  const leg = new FrontendLeg(channel, { host: '127.0.0.1', port, publishToken }, async () => '', logger);
  cleanUps.push(() => leg.close());
  return leg;
}

describe('the legs of a channel', () => {
  it('show what the file of the token holds when they connect', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'starling-publisher-'));
    cleanUps.push(() => rmSync(dir, { recursive: true, force: true }));
    const file = join(dir, 'publish.token');
    writeFileSync(file, 'first\n');
    const channel = new Channel('test');
    channel.push([...opening, ...segment(1)]);
    let expected = 'first';
    const frontend = await openFrontend(0, () => expected);
    const leg = openLeg(channel, frontend.port, { file });
    await vi.waitFor(() => expect(leg.isPushing).toBe(true));
    writeFileSync(file, 'second\nfirst until 2020-01-01T00:00:00Z\n');
    expected = 'second';
    await frontend.close();
    await openFrontend(frontend.port, () => expected);
    await vi.waitFor(() => expect(leg.isPushing).toBe(false), 5000);
    await vi.waitFor(() => expect(leg.isPushing).toBe(true), 10_000);
  });

  it('bring a frontend that joins the backlog, then every event, exactly as they were pushed', async () => {
    const channel = new Channel('test');
    channel.push([...opening, ...segment(1), ...segment(2)]);
    const frontend = await openFrontend();
    openLeg(channel, frontend.port);
    await vi.waitFor(() => expect(dts(frontend.received)).toHaveLength(94));
    channel.push(segment(3));
    await vi.waitFor(() => expect(dts(frontend.received)).toHaveLength(141));
    expect(frontend.received).toEqual([...opening, ...segment(1), ...segment(2), ...segment(3)]);
  });

  it('keep a bounded backlog of whole segments', async () => {
    const channel = new Channel('test');
    channel.push([...opening, ...Array.from({ length: 50 }, (_, number) => segment(number)).flat()]);
    const frontend = await openFrontend();
    openLeg(channel, frontend.port);
    // The open one, and 30 s of finished ones; 30 of them last 30.08 s.
    await vi.waitFor(() => expect(dts(frontend.received)).toHaveLength(31 * 47));
    expect(frontend.received).toEqual([
      ...opening,
      ...Array.from({ length: 31 }, (_, at) => segment(19 + at)).flat(),
    ]);
  });

  it('bring the backlog to a slow one a segment at a time, and give it up once it is overtaken', async () => {
    const channel = new Channel('test');
    channel.push([...opening, ...[1, 2, 3].flatMap((number) => segment(number))]);
    const join = () => {
      const drains: (() => void)[] = [];
      const sizes: number[] = [];
      let overtaken = 0;
      const leave = channel.join({
        isDrained: false,
        send: (chunks) => void sizes.push(chunks.length),
        whenDrained: () => new Promise((resolve) => void drains.push(resolve)),
        overtaken: () => void overtaken++,
      });
      const drain = async () => {
        for (const resolve of drains.splice(0)) resolve();
        await new Promise(setImmediate);
      };
      return { sizes, drain, leave, overtaken: () => overtaken };
    };
    const slow = join();
    const gone = join();
    expect(slow.sizes).toHaveLength(1);
    channel.push(segment(4)); // while it is at the first
    for (const count of [2, 3, 4]) {
      await slow.drain();
      expect(slow.sizes).toHaveLength(count);
    }
    await slow.drain();
    channel.push(segment(5)); // it is where the others are
    expect(slow.sizes).toHaveLength(5);
    const lateSizes = slow.sizes.slice(1);
    expect(Math.max(...lateSizes) / Math.min(...lateSizes)).toBeLessThan(1.1);
    expect(slow.overtaken()).toBe(0);

    const stuck = join();
    channel.push(Array.from({ length: 40 }, (_, at) => segment(6 + at)).flat());
    await stuck.drain();
    expect([stuck.sizes.length, stuck.overtaken()]).toEqual([1, 1]);
    gone.leave();
    await gone.drain();
    expect([gone.sizes.length, gone.overtaken()]).toEqual([1, 0]);
  });

  it('do not delay one frontend by another that is dead, never answers, or stops reading', async () => {
    const channel = new Channel('test');
    const mute: Server = createServer((socket: Socket) => socket.pause().on('error', () => {})).listen(
      0,
      '127.0.0.1',
    );
    await once(mute, 'listening');
    cleanUps.push(() => void mute.close());
    const dead = createServer().listen(0, '127.0.0.1');
    await once(dead, 'listening');
    const deadPort = (dead.address() as AddressInfo).port;
    dead.close();
    const good = await openFrontend();
    const legs = [(mute.address() as AddressInfo).port, deadPort, good.port].map((port) =>
      openLeg(channel, port),
    );
    await vi.waitFor(() => expect(legs[2]?.isPushing).toBe(true));
    channel.push(opening);
    for (let number = 0; number < 20; number++) {
      channel.push(segment(number, 20_000)); // a megabyte each
      await vi.waitFor(() => expect(dts(good.received)).toHaveLength(47 * (number + 1)));
    }
    expect(legs.map((leg) => leg.isPushing)).toEqual([false, false, true]);
  });

  it('come back to a frontend that restarted, with whole segments', async () => {
    const channel = new Channel('test');
    const first = await openFrontend();
    openLeg(channel, first.port);
    channel.push([...opening, ...segment(1), ...segment(2).slice(0, 20)]);
    await vi.waitFor(() => expect(dts(first.received)).toHaveLength(47 + 19));
    await first.close();
    channel.push(segment(2).slice(20));
    const second = await openFrontend(first.port);
    await vi.waitFor(() => expect(dts(second.received)).toHaveLength(94), { timeout: 5000 });
    expect(second.received).toEqual([...opening, ...segment(1), ...segment(2)]);
  });

  it('move to the frontend that theirs asks them to go to, with whole segments', async () => {
    const next = await openFrontend();
    const first = createServer((socket: Socket) => {
      socket.on('error', () => {});
      const session = new RtmpServerSession({
        handshakeRandomBytes: new Uint8Array(1528),
        maxMessageBytes: 1 << 20,
      });
      socket.on('data', (bytes) => {
        for (const { type } of session.receive(bytes)) {
          if (type !== 'publish') continue;
          session.acceptPublish();
          setTimeout(() => {
            session.requestReconnect(`//127.0.0.1:${next.port}/live`);
            socket.write(session.takeOutput() ?? '');
          }, 1100);
        }
        const output = session.takeOutput();
        if (output !== undefined) socket.write(output);
      });
    }).listen(0, '127.0.0.1');
    await once(first, 'listening');
    cleanUps.push(() => void first.close());
    const channel = new Channel('test');
    const leg = openLeg(channel, (first.address() as AddressInfo).port);
    await vi.waitFor(() => expect(leg.isPushing).toBe(true));
    channel.push([...opening, ...segment(1)]);
    await vi.waitFor(() => expect(dts(next.received)).toHaveLength(47), { timeout: 5000 });
    channel.push(segment(2));
    await vi.waitFor(() => expect(dts(next.received)).toHaveLength(94));
    expect(next.received).toEqual([...opening, ...segment(1), ...segment(2)]);
  });

  it('announce to a joiner the tracks of the oldest segment that it gets, not the newest', async () => {
    const channel = new Channel('test');
    const mono = { ...audioTrack, config: Uint8Array.of(0x11, 0x88), channelCount: 1 };
    const [cue, ...units] = segment(2);
    if (cue?.type !== 'cue') throw new Error('a segment opens with its cue');
    const changed: StreamEvent[] = [
      { type: 'cue', cue: { ...cue.cue, discontinuitySequence: 1 } },
      { type: 'track', track: mono },
      ...units,
    ];
    channel.push([...opening, ...segment(1), ...changed]);
    const frontend = await openFrontend();
    openLeg(channel, frontend.port);
    await vi.waitFor(() => expect(dts(frontend.received)).toHaveLength(94));
    expect(frontend.received).toEqual([...opening, ...segment(1), ...changed]);
  });
});
