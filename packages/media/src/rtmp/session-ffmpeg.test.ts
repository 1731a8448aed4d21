/** The sessions against FFmpeg as publisher, player and server. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, expect, test } from 'vitest';
import { freePort } from '../../../../tools/free-port.ts';
import { ByteReader } from '../bytes.ts';
import type { FlvMessage } from '../flv/tag.ts';
import { decodeAmf0 } from './amf0.ts';
import {
  type ClientSessionEvent,
  RtmpClientSession,
  RtmpServerSession,
  type ServerSessionEvent,
} from './session.ts';

const RANDOM = new Uint8Array(1528).fill(0x5a);
const TIMEOUT_MS = 60_000;
/** Two seconds; almost lossless, so that key frames are longer than the largest chunk. */
const SOURCE = [
  ...['-f', 'lavfi', '-i', 'testsrc2=s=1280x720:r=25', '-f', 'lavfi', '-i', 'sine', '-t', '2'],
  ...[
    '-c:v',
    'libx264',
    '-preset',
    'ultrafast',
    '-qp',
    '4',
    '-threads',
    '1',
    '-pix_fmt',
    'yuv420p',
    '-g',
    '25',
  ],
  ...['-c:a', 'aac', '-fflags', '+bitexact', '-flags', '+bitexact'],
  ...['-flvflags', 'no_duration_filesize', '-f', 'flv'],
];

const cleanUps: (() => void)[] = [];
afterEach(() => {
  for (const cleanUp of cleanUps.splice(0)) cleanUp();
});

interface Finished {
  readonly exitCode: number | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

async function ffmpeg(options: readonly string[], stdin?: Uint8Array): Promise<Finished> {
  const child = spawn('ffmpeg', ['-hide_banner', '-nostdin', '-v', 'warning', ...options]);
  child.stdin.on('error', () => {});
  child.stdin.end(stdin);
  cleanUps.push(() => child.kill('SIGKILL'));
  const stdout: Buffer[] = [];
  let stderr = '';
  child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk;
  });
  const [exitCode] = await once(child, 'close');
  return { exitCode, stdout: Buffer.concat(stdout), stderr };
}

/** Starts an RTMP server on a free port; every connection's events go to `onEvent`. */
async function listen(
  onEvent: (event: ServerSessionEvent, session: RtmpServerSession, socket: Socket) => void,
): Promise<number> {
  const server = createServer((socket) => {
    const session = new RtmpServerSession({ handshakeRandomBytes: RANDOM, maxMessageBytes: 4_000_000 });
    socket.on('error', () => {});
    socket.on('data', (bytes) => {
      for (const event of session.receive(bytes)) onEvent(event, session, socket);
      const output = session.takeOutput();
      if (output !== undefined && socket.writable) socket.write(output);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  cleanUps.push(() => server.close());
  const address = server.address() as AddressInfo;
  return address.port;
}

/** The tags of an FLV file (Adobe FLV 10.1, annex E.2 to E.4.1). */
function tagsOf(flv: Uint8Array): FlvMessage[] {
  const reader = new ByteReader(flv);
  reader.skip(9 + 4);
  const tags: FlvMessage[] = [];
  while (reader.remaining > 0) {
    const typeId = reader.u8();
    const sizeBytes = reader.u24();
    const timestampLow24 = reader.u24();
    const timestampMs = reader.u8() * 2 ** 24 + timestampLow24;
    reader.skip(3);
    const kind = typeId === 8 ? 'audio' : typeId === 9 ? 'video' : 'data';
    tags.push({ kind, timestampMs, payload: reader.take(sizeBytes) });
    reader.skip(4);
  }
  return tags;
}

/** Without the payloads' identity, and short enough to read in a failure. */
const summary = (messages: readonly FlvMessage[]) =>
  messages.map(
    ({ kind, timestampMs, payload }) =>
      `${kind} ${timestampMs} ${payload.length} ${Buffer.from(payload).toString('base64').slice(-24)}`,
  );

/** The same tags as a file and as received, apart from metadata, where FFmpeg adds to what it publishes. */
const mediaOf = (messages: readonly FlvMessage[]) =>
  summary(messages.filter((message) => message.kind !== 'data'));

async function sourceFlv(...options: string[]): Promise<Buffer> {
  const { stdout, stderr } = await ffmpeg([...SOURCE, ...options, 'pipe:1']);
  expect(stderr).toBe('');
  return stdout;
}

test(
  'FFmpeg publishes: target, metadata and every tag as in its own file, beyond 24-bit times',
  async () => {
    const events: ServerSessionEvent[] = [];
    const port = await listen((event, session) => {
      events.push(event);
      if (event.type === 'publish') session.acceptPublish();
    });
    const later = ['-output_ts_offset', '16775.5']; // passes 0xFFFFFF ms after 1.7 s
    const file = tagsOf(await sourceFlv(...later));
    const { exitCode, stderr } = await ffmpeg([
      ...SOURCE,
      ...later,
      `rtmp://127.0.0.1:${port}/live/cam?key=K`,
    ]);
    expect([exitCode, stderr]).toEqual([0, '']);
    expect(events[0]).toEqual({
      type: 'connect',
      app: 'live',
      tcUrl: `rtmp://127.0.0.1:${port}/live`,
      fourCcList: [],
    });
    expect(events[1]).toEqual({
      type: 'publish',
      target: { app: 'live', streamName: 'cam', query: new Map([['key', 'K']]) },
    });
    expect(events.at(-1)).toEqual({ type: 'unpublish' });
    const messages = events.flatMap((event) => (event.type === 'message' ? [event.message] : []));
    const metadata = messages.find((message) => message.kind === 'data');
    expect(decodeAmf0(metadata?.payload ?? new Uint8Array(0))).toMatchObject([
      'onMetaData',
      { width: 1280, height: 720 },
    ]);
    expect(mediaOf(messages)).toEqual(mediaOf(file));
    expect(Math.max(...messages.map((message) => message.payload.length))).toBeGreaterThan(60_000);
    expect(Math.min(...mediaOf(messages).map((line) => Number(line.split(' ')[1])))).toBeLessThan(0xffffff);
    expect(messages.at(-1)?.timestampMs).toBeGreaterThan(0xffffff);
  },
  TIMEOUT_MS,
);

test(
  'FFmpeg prints why its publish was rejected',
  async () => {
    const port = await listen((event, session, socket) => {
      if (event.type !== 'publish') return;
      session.rejectPublish('NetStream.Publish.BadName', 'The stream key of cam is wrong.');
      socket.end(session.takeOutput() ?? '');
    });
    const { exitCode, stderr } = await ffmpeg([...SOURCE, `rtmp://127.0.0.1:${port}/live/cam?key=K`]);
    expect(stderr).toContain('The stream key of cam is wrong.');
    expect(exitCode).not.toBe(0);
  },
  TIMEOUT_MS,
);

test.each([
  ['from zero', 0],
  ['beyond 24-bit times', 20_000_000],
])(
  'FFmpeg plays, %s: the same packets as from the file, and a clean end',
  async (_, offsetMs) => {
    const flv = await sourceFlv();
    const shifted = tagsOf(flv).map((tag) => ({ ...tag, timestampMs: tag.timestampMs + offsetMs }));
    const file = Buffer.concat([flv.subarray(0, 13), ...shifted.map(flvTag)]);
    const port = await listen((event, session, socket) => {
      if (event.type !== 'play') return;
      expect(event.target).toEqual({ app: 'live', streamName: 'cam', query: new Map([['token', 'T']]) });
      session.acceptPlay();
      for (const message of shifted) session.sendMessage(message);
      session.endPlay();
      socket.end(session.takeOutput() ?? '');
    });
    const expected = await packetsOf(['-i', 'pipe:0'], file);
    expect(expected.split('\n').length).toBeGreaterThan(130);
    expect(await packetsOf(['-i', `rtmp://127.0.0.1:${port}/live/cam?token=T`])).toBe(expected);
  },
  TIMEOUT_MS,
);

/**
 * One line for each packet that FFmpeg reads: stream, times, size and checksum.
 * @param complaint what FFmpeg is expected to print
 */
async function packetsOf(input: readonly string[], stdin?: Uint8Array, complaint = /^$/): Promise<string> {
  const { exitCode, stdout, stderr } = await ffmpeg(
    ['-copyts', ...input, '-c', 'copy', '-f', 'framecrc', 'pipe:1'],
    stdin,
  );
  expect(stderr).toMatch(complaint);
  expect(exitCode).toBe(0);
  return stdout.toString();
}

function flvTag({ kind, timestampMs, payload }: FlvMessage): Buffer {
  const header = Buffer.alloc(11);
  header.writeUInt8({ audio: 8, video: 9, data: 18 }[kind], 0);
  header.writeUIntBE(payload.length, 1, 3);
  header.writeUIntBE(timestampMs & 0xffffff, 4, 3);
  header.writeUInt8(timestampMs >>> 24, 7);
  const backPointer = Buffer.alloc(4);
  backPointer.writeUInt32BE(payload.length + 11);
  return Buffer.concat([header, payload, backPointer]);
}

/** Runs a client session against a server that may not listen yet. */
async function runClient(
  mode: 'publish' | 'play',
  port: number,
  onEvent: (event: ClientSessionEvent, session: RtmpClientSession, socket: Socket) => void,
): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    const socket = connect(port, '127.0.0.1');
    const isOpen = await new Promise<boolean>((resolve) => {
      socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    });
    if (!isOpen) {
      if (attempt === 100) throw new Error(`nothing listens on port ${port}`);
      await sleep(50);
      continue;
    }
    const session = new RtmpClientSession({
      mode,
      tcUrl: `rtmp://127.0.0.1:${port}/live`,
      app: 'live',
      streamName: 'cam',
      handshakeRandomBytes: RANDOM,
      maxMessageBytes: 4_000_000,
    });
    const flush = () => {
      const output = session.takeOutput();
      if (output !== undefined && socket.writable) socket.write(output);
    };
    flush();
    socket.on('error', () => {});
    socket.on('data', (bytes) => {
      for (const event of session.receive(bytes)) onEvent(event, session, socket);
      flush();
    });
    await once(socket, 'close');
    return;
  }
}

test(
  'the client publishes to FFmpeg as server',
  async () => {
    const flv = await sourceFlv();
    const tags = tagsOf(flv);
    const port = await freePort();
    const received = packetsOf(
      ['-listen', '1', '-i', `rtmp://127.0.0.1:${port}/live/cam`],
      undefined,
      /Input\/output error/, // FFmpeg as server says so whenever a publisher leaves, itself too.
    );
    const types: string[] = [];
    await runClient('publish', port, (event, session, socket) => {
      types.push(event.type);
      if (event.type !== 'ready') return;
      for (const tag of tags) session.sendMessage(tag);
      session.close();
      socket.end(session.takeOutput() ?? '');
    });
    expect(types).toEqual(['ready']);
    expect(await received).toBe(await packetsOf(['-i', 'pipe:0'], flv));
  },
  TIMEOUT_MS,
);
