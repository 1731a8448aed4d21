import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import type { StreamEvent } from '@starling/media/access-unit';
import type { FlvMessage } from '@starling/media/flv/tag';
import { RtmpServerSession } from '@starling/media/rtmp/session';
import type { DestinationSettings } from '@starling/model/destination';
import { Channel } from '@starling/net/channel';
import { RtmpServer } from '@starling/net/rtmp-server';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { Destination, defaultDestinationTiming } from '../src/destination.ts';
import { Destinations } from '../src/destinations.ts';
import { audioTrack, avcConfig, GOP_FRAMES, gop, opening, videoTrack } from './gops.ts';

const cleanUps: (() => void | Promise<void>)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

const log: string[] = [];
const logger = pino({ level: 'trace' }, { write: (line: string) => log.push(line) });

/** A server of somebody else's. */
async function openServer(port = 0) {
  const messages: FlvMessage[] = [];
  const connections: number[] = [];
  const server = await RtmpServer.listen({
    host: '127.0.0.1',
    port,
    logger: pino({ level: 'silent' }),
    handlers: {
      onPublish: ({ app, streamName, query }) => {
        if (app !== 'live' || streamName !== 'cam' || query.get('key') !== 'sk_secret')
          return {
            code: 'NetStream.Publish.BadName',
            description: `No stream ${streamName}?key=${query.get('key')}.`,
          };
        connections.push(messages.length);
        return {
          message: (message) => void messages.push({ ...message, payload: Uint8Array.from(message.payload) }),
          end: () => {},
        };
      },
    },
  });
  let isOpen = true;
  const close = async () => {
    if (isOpen) await server.close();
    isOpen = false;
  };
  cleanUps.push(close);
  return { port: server.port, messages, connections, close };
}

const settingsFor = (port: number, key = 'sk_secret'): DestinationSettings => ({
  name: 'friend',
  channel: 'test',
  url: `rtmp://127.0.0.1:${port}/live/cam?key=${key}`,
  takesEnhancedCodecs: false,
  acceptsAnyCertificate: false,
});

const timing = {
  ...defaultDestinationTiming,
  firstRetryMs: 20,
  lastRetryMs: 100,
  healthyAfterMs: 300,
  stallMs: 1500,
  minStayMs: 0,
};

function openDestination(settings: DestinationSettings) {
  const told: string[] = [];
  const destination = new Destination({
    settings,
    logger,
    timing,
    nowUnixMs: Date.now,
    onChange: () => {},
    onFailed: (reason) => told.push(`failed: ${reason}`),
    onRestored: () => told.push('restored'),
  });
  cleanUps.push(() => destination.close());
  return { destination, told };
}

const mediaOf = (messages: readonly FlvMessage[], kind: 'video' | 'audio') =>
  messages.filter((message) => message.kind === kind && message.payload[1] === 1);
const sequenceHeaders = (messages: readonly FlvMessage[]) =>
  messages.filter(({ kind, payload }) => kind !== 'data' && payload[1] === 0);

describe('a destination', () => {
  it('gets ordinary RTMP: metadata, sequence headers, default tracks, times from nought', async () => {
    const server = await openServer();
    const channel = new Channel('test');
    channel.push(opening);
    const { destination } = openDestination(settingsFor(server.port));
    destination.attach(channel);
    channel.push(gop(0));
    await vi.waitFor(() => expect(mediaOf(server.messages, 'audio')).toHaveLength(GOP_FRAMES));
    channel.push(gop(1));
    await vi.waitFor(() => expect(mediaOf(server.messages, 'audio')).toHaveLength(2 * GOP_FRAMES));
    const [metadata, video, audio] = server.messages;
    expect(new TextDecoder().decode(metadata?.payload.subarray(3, 13))).toBe('onMetaData');
    expect(server.messages.filter(({ kind }) => kind === 'data')).toHaveLength(1);
    expect(video).toMatchObject({ kind: 'video', payload: Uint8Array.of(0x17, 0, 0, 0, 0, ...avcConfig()) });
    expect(audio).toMatchObject({ kind: 'audio', payload: Uint8Array.of(0xaf, 0, 0x11, 0x90) });
    const times = mediaOf(server.messages, 'video').map(({ timestampMs }) => timestampMs);
    expect(times).toEqual(Array.from({ length: 2 * GOP_FRAMES }, (_, index) => index * 40));
    expect(destination.status).toMatchObject({
      state: 'sending',
      reason: null,
      droppedUnits: 0,
      failures: 0,
    });
  });

  it('gets new sequence headers when the parameter sets change, and times that go on', async () => {
    const server = await openServer();
    const channel = new Channel('test');
    const { destination } = openDestination(settingsFor(server.port));
    destination.attach(channel);
    channel.push([...opening, ...gop(0)]);
    await vi.waitFor(() => expect(destination.status.state).toBe('sending'));
    const other = { ...videoTrack, config: avcConfig(0x42), codecString: 'avc1.420020' };
    const tracks: StreamEvent[] = [
      { type: 'track', track: other },
      { type: 'track', track: { ...other, trackId: 1 } },
      { type: 'track', track: audioTrack },
    ];
    channel.push(gop(1, 100, tracks, 1));
    await vi.waitFor(() => expect(mediaOf(server.messages, 'video')).toHaveLength(2 * GOP_FRAMES));
    const headers = sequenceHeaders(server.messages);
    expect(headers.map(({ kind, timestampMs, payload }) => [kind, timestampMs, payload[6]])).toEqual([
      ['video', 0, 0x64],
      ['audio', 0, undefined],
      ['video', 1000, 0x42],
    ]);
    const times = mediaOf(server.messages, 'video').map(({ timestampMs }) => timestampMs);
    expect(times).toEqual(Array.from({ length: 2 * GOP_FRAMES }, (_, index) => index * 40));
  });

  it('that is refused says why without the key, is tried again, and begins at a key frame', async () => {
    const dead = createServer().listen(0, '127.0.0.1');
    await once(dead, 'listening');
    const { port } = dead.address() as AddressInfo;
    dead.close();
    const channel = new Channel('test');
    const { destination, told } = openDestination(settingsFor(port));
    destination.attach(channel);
    channel.push(opening);
    let number = 0;
    await vi.waitFor(() => {
      channel.push(gop(number++));
      expect(destination.status.failures).toBeGreaterThan(2);
      // Between two tries; while one is under way there is none to give.
      expect(destination.status.reason).toBe('the connection was refused');
    });
    const server = await openServer(port);
    await vi.waitFor(() => {
      channel.push(gop(number++));
      expect(mediaOf(server.messages, 'video').length).toBeGreaterThan(GOP_FRAMES);
    });
    expect(mediaOf(server.messages, 'video')[0]).toMatchObject({ timestampMs: 0 });
    expect(mediaOf(server.messages, 'video')[0]?.payload[0]).toBe(0x17);
    await vi.waitFor(() => expect(told).toEqual(['failed: the connection was refused', 'restored']), 5000);

    const refused = openDestination(settingsFor(server.port, 'sk_wrong'));
    refused.destination.attach(channel);
    channel.push(gop(number++));
    await vi.waitFor(() => expect(refused.told).toHaveLength(1));
    expect(refused.told[0]).toBe('failed: refused: No stream ***.');
    expect(log.join('')).not.toMatch(/sk_secret|sk_wrong/);
  });

  it('that stops reading is skipped, cut, and tried again; the channel and its neighbour notice nothing', async () => {
    const stuck = createServer((socket: Socket) => {
      socket.on('error', () => {});
      const session = new RtmpServerSession({
        handshakeRandomBytes: new Uint8Array(1528),
        maxMessageBytes: 1 << 20,
      });
      socket.on('data', (bytes) => {
        for (const event of session.receive(bytes)) {
          if (event.type !== 'publish') continue;
          session.acceptPublish();
          socket.pause();
        }
        const output = session.takeOutput();
        if (output !== undefined) socket.write(output);
      });
    }).listen(0, '127.0.0.1');
    await once(stuck, 'listening');
    cleanUps.push(() => void stuck.close());
    const good = await openServer();
    const channel = new Channel('test');
    const slow = openDestination(settingsFor((stuck.address() as AddressInfo).port));
    const fast = openDestination(settingsFor(good.port));
    slow.destination.attach(channel);
    fast.destination.attach(channel);
    channel.push([...opening, ...gop(0)]);
    await vi.waitFor(() => expect(slow.destination.status.state).toBe('sending'));
    let number = 1;
    await vi.waitFor(
      async () => {
        channel.push(gop(number++, 40_000)); // two megabytes each
        await vi.waitFor(() => expect(mediaOf(good.messages, 'video')).toHaveLength(number * GOP_FRAMES));
        expect(slow.told).toEqual(['failed: it takes nothing']);
      },
      { timeout: 15_000, interval: 100 },
    );
    expect(slow.destination.status.droppedUnits).toBeGreaterThan(0);
    expect(fast.destination.status).toMatchObject({ state: 'sending', droppedUnits: 0, failures: 0 });
  });

  it('moves at a key frame to where the server asks for, and loses nothing', async () => {
    const next = await openServer();
    const times: number[] = [];
    const first = createServer((socket: Socket) => {
      socket.on('error', () => {});
      const session = new RtmpServerSession({
        handshakeRandomBytes: new Uint8Array(1528),
        maxMessageBytes: 1 << 20,
      });
      socket.on('data', (bytes) => {
        for (const event of session.receive(bytes)) {
          if (event.type === 'publish') {
            session.acceptPublish();
            expect(session.requestReconnect(`rtmp://127.0.0.1:${next.port}/live`)).toBe(true);
          }
          if (event.type === 'message' && event.message.kind === 'video')
            times.push(event.message.timestampMs);
        }
        const output = session.takeOutput();
        if (output !== undefined) socket.write(output);
      });
    }).listen(0, '127.0.0.1');
    await once(first, 'listening');
    cleanUps.push(() => void first.close());
    const channel = new Channel('test');
    const { destination, told } = openDestination(settingsFor((first.address() as AddressInfo).port));
    destination.attach(channel);
    channel.push([...opening, ...gop(0)]);
    await vi.waitFor(() => expect(times).toHaveLength(1 + GOP_FRAMES));
    channel.push(gop(1));
    await vi.waitFor(() => expect(mediaOf(next.messages, 'video')).toHaveLength(GOP_FRAMES));
    expect(times).toHaveLength(1 + GOP_FRAMES);
    expect(told).toEqual([]);
  });

  it('that takes no HEVC is not sent to, and says so', async () => {
    const server = await openServer();
    const channel = new Channel('test');
    channel.push([
      ...opening,
      { type: 'track', track: { ...videoTrack, codec: 'hevc', codecString: 'hvc1' } },
    ]);
    const { destination } = openDestination(settingsFor(server.port));
    destination.attach(channel);
    channel.push(gop(0));
    expect(destination.status).toMatchObject({
      state: 'off',
      reason: 'it does not take the hevc of the channel',
    });
    const willing = openDestination({ ...settingsFor(server.port), takesEnhancedCodecs: true });
    willing.destination.attach(channel);
    channel.push(gop(1));
    await vi.waitFor(() => expect(willing.destination.status.state).toBe('sending'));
  });
});

describe('the destinations of a backend', () => {
  it('follow the list and the channels, and are measured', async () => {
    const server = await openServer();
    const registry = new Registry();
    const destinations = new Destinations({
      logger,
      registry,
      nowUnixMs: Date.now,
      onChange: () => {},
      onFailed: () => {},
      onRestored: () => {},
    });
    cleanUps.push(() => destinations.close());
    const channel = new Channel('test');
    destinations.setDestinations([settingsFor(server.port)]);
    expect(destinations.statuses).toMatchObject([{ state: 'off', reason: 'the channel is off the air' }]);
    destinations.setOnAir(channel);
    channel.push([...opening, ...gop(0)]);
    await vi.waitFor(() => expect(destinations.statuses).toMatchObject([{ state: 'sending' }]));
    await vi.waitFor(async () => {
      const metrics = await registry.metrics();
      expect(metrics).toContain('starling_backend_destination_up{channel="test",destination="friend"} 1');
      expect(metrics).toMatch(
        /destination_sent_bytes_total\{channel="test",destination="friend"\} [1-9]\d{3}/,
      );
    });
    destinations.setOffAir(channel);
    expect(destinations.statuses).toMatchObject([{ state: 'off', bitrateBps: 0 }]);
    destinations.setOnAir(channel);
    channel.push(gop(1));
    await vi.waitFor(() => expect(server.connections).toHaveLength(2));
    destinations.setDestinations([]);
    expect(destinations.statuses).toEqual([]);
    expect(await registry.metrics()).not.toContain('destination="friend"');
  });
});
