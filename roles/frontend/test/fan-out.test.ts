import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import type { StreamEvent } from '@starling/media/access-unit';
import { FlvReader } from '@starling/media/flv/demux';
import type { FlvMessage } from '@starling/media/flv/tag';
import { ChunkReader } from '@starling/media/rtmp/chunk';
import { binaryFrame } from '@starling/net/websocket';
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
    fanOut.add({ socket, delivery, tally: { sentBytes: 0 }, ...more }, performance.now());
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

/** A picture as a viewer finds it. */
interface Picture {
  readonly timeMs: number;
  readonly isKey: boolean;
}

/** A coded picture in FLV and RTMP: byte 0 is the frame type and codec, byte 1 the packet type (FLV 10.1, E.4.3). */
function pictureOf(message: { payload: Uint8Array; timestampMs: number }): Picture[] {
  const [first = 0, packetType] = message.payload;
  return packetType === 1 ? [{ timeMs: message.timestampMs, isKey: first >> 4 === 1 }] : [];
}

function flvReader() {
  const reader = new FlvReader();
  return (bytes: Uint8Array) =>
    reader.push(bytes).flatMap((message) => (message.kind === 'video' ? pictureOf(message) : []));
}

/** Whole frames of RFC 6455 of up to 2^32 bytes; what is in them is FLV. */
function webSocketFlvReader() {
  const readFlv = flvReader();
  let rest = Buffer.alloc(0);
  return (bytes: Uint8Array) => {
    rest = Buffer.concat([rest, bytes]);
    const pictures: Picture[] = [];
    while (rest.length >= 10) {
      expect(rest[0]).toBe(0x82);
      const length = rest.readUInt8(1);
      const headerBytes = length === 127 ? 10 : length === 126 ? 4 : 2;
      const sizeBytes =
        length === 127 ? rest.readUInt32BE(6) : length === 126 ? rest.readUInt16BE(2) : length;
      if (rest.length < headerBytes + sizeBytes) break;
      pictures.push(...readFlv(rest.subarray(headerBytes, headerBytes + sizeBytes)));
      rest = rest.subarray(headerBytes + sizeBytes);
    }
    return pictures;
  };
}

function rtmpReader() {
  const reader = new ChunkReader({ maxMessageBytes: 1 << 24 });
  // Set Chunk Size to 60000, as the server announces it.
  reader.push(Uint8Array.from(Buffer.from('020000000000040100000000' + '0000ea60', 'hex')));
  return (bytes: Uint8Array) =>
    reader.push(bytes.slice()).flatMap((message) => (message.typeId === 9 ? pictureOf(message) : []));
}

/** The first packet of each picture: PID 0x100, payload_unit_start_indicator (ISO/IEC 13818-1, 2.4.3.2). */
function tsReader() {
  let rest = Buffer.alloc(0);
  return (bytes: Uint8Array) => {
    rest = Buffer.concat([rest, bytes]);
    const pictures: Picture[] = [];
    for (; rest.length >= 188; rest = rest.subarray(188)) {
      expect(rest[0]).toBe(0x47);
      if (rest.readUInt16BE(1) !== 0x4100) continue;
      const [fieldLength = 0, flags = 0] = rest.subarray(4);
      const pes = rest.subarray(4 + 1 + fieldLength);
      // Here PTS is DTS. 3, 15 and 15 bits, each group closed by a marker bit.
      const ticks =
        ((pes.readUInt8(9) >> 1) & 7) * 2 ** 30 +
        (pes.readUInt16BE(10) >> 1) * 2 ** 15 +
        (pes.readUInt16BE(12) >> 1);
      pictures.push({ timeMs: ticks / 90, isKey: (flags & 0x40) !== 0 });
    }
    return pictures;
  };
}

interface Form {
  readonly newContainer: () => Container;
  readonly newReader: () => (bytes: Uint8Array) => Picture[];
  readonly frame?: (bytes: Uint8Array) => Uint8Array;
}

const forms: [string, Form][] = [
  ['HTTP-FLV', { newContainer: () => new FlvContainer(), newReader: flvReader }],
  [
    'WebSocket-FLV',
    { newContainer: () => new FlvContainer(), newReader: webSocketFlvReader, frame: binaryFrame },
  ],
  ['MPEG-TS', { newContainer: () => new TsContainer(), newReader: tsReader }],
  ['RTMP', { newContainer: () => new RtmpContainer('legacy'), newReader: rtmpReader }],
];

async function picturesUntil(
  viewer: Socket,
  form: Form,
  isEnough: (all: readonly Picture[]) => boolean,
): Promise<Picture[]> {
  const read = form.newReader();
  const all: Picture[] = [];
  for await (const bytes of viewer) {
    all.push(...read(bytes));
    if (isEnough(all)) break;
  }
  return all;
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

describe.each(forms)('the fan-out of %s', (_, form) => {
  const newFormFanOut = (limits: Partial<typeof defaultFanOutLimits> = {}) => {
    const made = newFanOut(limits, form.newContainer);
    const delivery = { ...made.delivery, ...(form.frame === undefined ? {} : { frame: form.frame }) };
    const add = (socket: Socket, more: Partial<NewViewer> = {}) => made.add(socket, { delivery, ...more });
    return { ...made, add };
  };

  it('moves a viewer that fell behind on to a later random access point', async () => {
    const { add, counts, push } = newFormFanOut({ maxBehindMs: 30, evictAfterMs: 60_000 });
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
    const gapAt = (all: readonly Picture[]) =>
      all.findIndex((picture, at) => at > 0 && picture.timeMs - (all[at - 1]?.timeMs ?? 0) > 40);
    const pictures = await picturesUntil(viewer, form, (all) => gapAt(all) > 0);
    const after = pictures[gapAt(pictures)];
    expect(after?.isKey).toBe(true);
    expect((after?.timeMs ?? 0) % 2000).toBe(0); // the time is right, too: segments of 2 s begin with a key frame
    expect(counts.evicted).toBe(0);
  });

  it('cuts off a viewer that stays behind', async () => {
    const { fanOut, add, counts, push } = newFormFanOut({ maxBehindMs: 20, evictAfterMs: 60 });
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
    expect(fanOut.isRunning).toBe(false); // nobody is left
  });

  it('muxes nothing while nobody watches, and gives a late joiner a random access point at once all the same', async () => {
    const { fanOut, add, push } = newFormFanOut();
    push([...head, ...segment(7), ...segment(8).slice(0, 60)]);
    expect(fanOut.isRunning).toBe(false);
    for (const turn of ['first', 'again']) {
      const { server, viewer } = await socketPair();
      add(server);
      const [first] = await picturesUntil(viewer, form, (all) => all.length > 0);
      expect(first, turn).toEqual({ timeMs: 16_000, isKey: true });
      viewer.destroy();
      await once(server, 'close');
      expect(fanOut.isRunning).toBe(false);
    }
  });

  it('gives all viewers the same bytes after their heads, whenever they came', async () => {
    const { add, push } = newFormFanOut();
    push([...head, ...segment(7)]);
    const early = await socketPair();
    add(early.server);
    push(segment(8).slice(0, 70));
    const late = await socketPair();
    add(late.server);
    push([...segment(8).slice(70), ...segment(9)]);
    const times = (from: number, count: number) =>
      Array.from({ length: count }, (_, frame) => from + frame * 40);
    const [all, newest] = await Promise.all([
      picturesUntil(early.viewer, form, (pictures) => pictures.length === 150),
      picturesUntil(late.viewer, form, (pictures) => pictures.length === 100),
    ]);
    expect(all.map(({ timeMs }) => timeMs)).toEqual(times(14_000, 150));
    expect(newest.map(({ timeMs }) => timeMs)).toEqual(times(16_000, 100));
  });

  it('says farewell when the channel ends', async () => {
    const { fanOut, add, push } = newFormFanOut();
    push([...head, ...segment(7)]);
    const { server, viewer } = await socketPair();
    add(server, { farewell: () => Uint8Array.of(1, 2, 3) });
    fanOut.close();
    const chunks: Buffer[] = [];
    for await (const chunk of viewer) chunks.push(chunk);
    expect(Buffer.concat(chunks).subarray(-3)).toEqual(Buffer.of(1, 2, 3));
  });
});

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

  it('leaves the picture out where only the sound is asked for', async () => {
    const { add, push, fanOut } = newFanOut({}, () => new FlvContainer(), 'audio');
    push([...head, ...segment(7)]);
    expect(fanOut.tracks.map(({ kind }) => kind)).toEqual(['audio']);
    const { server, viewer } = await socketPair();
    add(server);
    const [header] = (await once(viewer, 'data')) as [Buffer];
    expect(header.subarray(0, 5)).toEqual(Buffer.from('464c560104', 'hex')); // FLV 1 with audio alone
    const messages = new FlvReader().push(header);
    expect(new Set(messages.map(({ kind }) => kind))).toEqual(new Set(['data', 'audio']));
  });
});
