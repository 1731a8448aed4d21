import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import type { StreamEvent } from '@starling/media/access-unit';
import { FlvReader } from '@starling/media/flv/demux';
import type { FlvMessage } from '@starling/media/flv/tag';
import { pino } from 'pino';
import { afterEach, describe, expect, it } from 'vitest';
import { CatchUp } from '../src/catch-up.ts';
import { type Container, FlvContainer, RtmpContainer, TsContainer } from '../src/containers.ts';
import { type Delivery, defaultFanOutLimits, FanOut, type NewViewer } from '../src/fan-out.ts';
import { Stream } from '../src/stream.ts';
import { head, segment } from './synthetic-channel.ts';

const cleanUps: (() => void)[] = [];
afterEach(() => {
  for (const cleanUp of cleanUps.splice(0)) cleanUp();
});

function newFanOut(
  limits: Partial<typeof defaultFanOutLimits> = {},
  newContainer: () => Container = () => new FlvContainer(),
  only?: 'audio',
) {
  const stream = new Stream({
    channel: 'test',
    partTargetMs: 500,
    windowDurationMs: 20_000,
    logger: pino({ level: 'silent' }),
  });
  const counts = { bytes: 0, skipped: 0, evicted: 0 };
  const delivery: Delivery = {
    protocol: 'test',
    bytesSent: (sizeBytes) => {
      counts.bytes += sizeBytes;
    },
    skipped: () => counts.skipped++,
    evicted: () => counts.evicted++,
  };
  const catchUp = new CatchUp(stream);
  const fanOut = new FanOut({
    stream,
    catchUp,
    newContainer,
    only,
    limits: { ...defaultFanOutLimits, batchMs: 5, ...limits },
  });
  const publisher = stream.addPublisher();
  const push = (events: readonly StreamEvent[]) => {
    for (const event of events) publisher.event(event, 1);
  };
  const add = (socket: Socket, more: Partial<NewViewer> = {}) =>
    fanOut.add({ socket, delivery, ...more }, performance.now());
  cleanUps.push(() => fanOut.close());
  return { fanOut, counts, delivery, push, add };
}

/** A real pair of sockets: what the server writes and what the viewer reads. */
async function socketPair(): Promise<{ server: Socket; viewer: Socket }> {
  const listener: Server = createServer().listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const viewer = connect((listener.address() as AddressInfo).port, '127.0.0.1');
  const [server] = (await once(listener, 'connection')) as [Socket];
  listener.close();
  viewer.on('error', () => {});
  cleanUps.push(() => {
    viewer.destroy();
    server.destroy();
  });
  return { server, viewer };
}

async function messagesUntil(
  viewer: Socket,
  isEnough: (all: readonly FlvMessage[]) => boolean,
): Promise<FlvMessage[]> {
  const reader = new FlvReader();
  const all: FlvMessage[] = [];
  for await (const bytes of viewer) {
    all.push(...reader.push(bytes));
    if (isEnough(all)) break;
  }
  return all;
}

/** A coded picture: byte 0 is the frame type and codec, byte 1 the packet type (FLV 10.1, E.4.3). */
const isPicture = (message: FlvMessage) => message.kind === 'video' && message.payload[1] === 1;
const isKeyFrame = (message: FlvMessage) => isPicture(message) && (message.payload[0] ?? 0) >> 4 === 1;

describe('the FLV fan-out', () => {
  it('gives a late joiner the headers and the newest random access point at once', async () => {
    const { add, push } = newFanOut();
    push([...head, ...segment(7), ...segment(8).slice(0, 60)]);
    const { server, viewer } = await socketPair();
    add(server);
    const pictures = segment(8)
      .slice(0, 60)
      .filter((event) => event.type === 'unit' && event.unit.kind === 'video').length;
    const messages = await messagesUntil(viewer, (all) => all.filter(isPicture).length === pictures);
    expect(messages.slice(0, 3).map((message) => message.kind)).toEqual(['data', 'video', 'audio']);
    const first = messages.find(isPicture);
    expect(first && isKeyFrame(first)).toBe(true);
    expect(first?.timestampMs).toBe(16_000); // segment 8 of 2 s
    expect(new Set(messages.slice(0, 3).map((message) => message.timestampMs))).toEqual(new Set([16_000]));
  });

  it('goes on with every unit, once and in order', async () => {
    const { add, push } = newFanOut();
    push([...head, ...segment(7)]);
    const { server, viewer } = await socketPair();
    add(server);
    push([...segment(8), ...segment(9)]);
    const messages = await messagesUntil(viewer, (all) => all.filter(isPicture).length === 150);
    expect(messages.filter(isPicture).map((message) => message.timestampMs)).toEqual(
      Array.from({ length: 150 }, (_, frame) => 14_000 + frame * 40),
    );
  });

  it('moves a viewer that fell behind on to a later random access point', async () => {
    const { add, counts, push } = newFanOut({ maxBehindMs: 30, evictAfterMs: 60_000 });
    push([...head, ...segment(7)]);
    const { server, viewer } = await socketPair();
    viewer.pause();
    add(server);
    let number = 8;
    while (counts.skipped === 0) {
      push(segment(number++, 100_000)); // 5 MB each: soon more than the kernel holds
      await new Promise((wake) => setTimeout(wake, 10));
      expect(number).toBeLessThan(60);
    }
    const writtenWhenSkipped = counts.bytes;
    push(segment(number++, 100_000));
    await new Promise((wake) => setTimeout(wake, 20));
    expect(counts.bytes).toBe(writtenWhenSkipped); // nothing more is queued for it
    viewer.resume();
    const goOn = setInterval(() => push(segment(number++)), 20);
    cleanUps.push(() => clearInterval(goOn));
    const messages = await messagesUntil(viewer, (all) => {
      const gap = all
        .filter(isPicture)
        .findIndex(
          (message, at, list) =>
            message.timestampMs - (list[at - 1]?.timestampMs ?? message.timestampMs) > 40,
        );
      return gap > 0;
    });
    const pictures = messages.filter(isPicture);
    const afterGap = pictures.find(
      (message, at) => message.timestampMs - (pictures[at - 1]?.timestampMs ?? message.timestampMs) > 40,
    );
    expect(afterGap && isKeyFrame(afterGap)).toBe(true);
    expect(counts.evicted).toBe(0);
  });

  it('cuts off a viewer that stays behind', async () => {
    const { fanOut, add, counts, push } = newFanOut({ maxBehindMs: 20, evictAfterMs: 60 });
    push([...head, ...segment(7)]);
    const { server, viewer } = await socketPair();
    viewer.pause();
    add(server);
    const closed = once(server, 'close');
    for (let number = 8; counts.evicted === 0 && number < 60; number++) {
      push(segment(number, 100_000));
      await new Promise((wake) => setTimeout(wake, 10));
    }
    await closed;
    expect(counts.evicted).toBe(1);
    expect(fanOut.viewerCounts.size).toBe(0);
  });

  it('ends the responses where the timestamps begin anew, before FLV players meet the 31-bit wrap', async () => {
    const { add, push } = newFanOut();
    const periodSegments = (20 * 24 * 3600) / 2;
    push([...head, ...segment(periodSegments - 1)]);
    const { server, viewer } = await socketPair();
    add(server);
    push(segment(periodSegments));
    const before = await messagesUntil(viewer, () => false);
    expect(before.at(-1)?.timestampMs).toBeLessThan(2 ** 31);
    const again = await socketPair();
    add(again.server);
    const after = await messagesUntil(again.viewer, (all) => all.some(isPicture));
    expect(after.find(isPicture)?.timestampMs).toBe(0);
  });
});
