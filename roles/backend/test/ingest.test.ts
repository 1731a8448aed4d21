import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { RtmpClientSession } from '@starling/media/rtmp/session';
import { pino } from 'pino';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { Ingest } from '../src/ingest.ts';
import { readCertificate } from '../src/rtmps-certificate.ts';

const sockets: Socket[] = [];
let ingest: Ingest | undefined;
const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await ingest?.close();
  for (const close of closers.splice(0)) await close();
});

const sha256 = (text: string) => createHash('sha256').update(text).digest('hex');
const cam = { name: 'cam', keySha256: sha256('sk_cam') };
const stage = { name: 'stage', keySha256: sha256('sk_stage') };

async function openIngest() {
  const changes: string[] = [];
  ingest = await Ingest.listen({
    onRefused: () => {},
    host: '127.0.0.1',
    port: 0,
    rtmps: undefined,
    logger: pino({ level: 'silent' }),
    onPlay: undefined,
    addressElsewhere: () => undefined,
    onEvent: () => {},
    onPublishChange: (stream, isPublishing) => changes.push(`${stream} ${isPublishing ? 'on' : 'off'}`),
  });
  ingest.setStreams([cam, stage]);
  return { ingest, changes };
}

/** Publishes as an encoder does; resolves to `ready`, or to the status it was refused with. */
function publish(port: number, app: string, streamName: string) {
  const socket = connect(port, '127.0.0.1');
  sockets.push(socket);
  const session = new RtmpClientSession({
    mode: 'publish',
    tcUrl: `rtmp://127.0.0.1:${port}/${app}`,
    app,
    streamName,
    handshakeRandomBytes: randomBytes(1528),
    maxMessageBytes: 1 << 20,
  });
  const flush = () => {
    const output = session.takeOutput();
    if (output !== undefined && !socket.destroyed) socket.write(output);
  };
  const closed = new Promise<void>((resolve) => socket.on('close', () => resolve()));
  const answer = new Promise<string>((resolve, reject) => {
    socket.on('error', reject).on('connect', flush);
    socket.on('data', (bytes) => {
      for (const event of session.receive(bytes)) {
        if (event.type === 'ready') resolve('ready');
        if (event.type === 'rejected') resolve(event.code);
      }
      flush();
    });
  });
  return { answer, closed };
}

/** Two backends: the first knows that the streams' channels run on the second. */
async function openTwo(second: { readonly streams: (typeof cam)[] }) {
  const messages: string[] = [];
  const owner = await Ingest.listen({
    ...{ onRefused: () => {}, host: '127.0.0.1', port: 0, rtmps: undefined, onPlay: undefined },
    logger: pino({ level: 'silent' }),
    addressElsewhere: () => ({ host: '127.0.0.1', port: first.port }),
    onEvent: (stream, event) => messages.push(`${stream} ${event.type}`),
    onPublishChange: (stream, isPublishing) => messages.push(`${stream} ${isPublishing ? 'on' : 'off'}`),
  });
  const first = await Ingest.listen({
    ...{ onRefused: () => {}, host: '127.0.0.1', port: 0, rtmps: undefined, onPlay: undefined },
    logger: pino({ level: 'silent' }),
    addressElsewhere: () => ({ host: '127.0.0.1', port: owner.port }),
    onEvent: () => messages.push('at the first'),
    onPublishChange: () => messages.push('at the first'),
  });
  first.setStreams([], [cam, stage]);
  owner.setStreams(second.streams, [stage]);
  closers.push(
    () => first.close(),
    () => owner.close(),
  );
  return { first, owner, messages };
}

describe('an encoder that came to another backend than the one that runs its channel', () => {
  it.each([
    ['live', 'cam?key=sk_cam'],
    ['live/cam', 'sk_cam'],
    ['live', 'sk_cam'],
  ])('is passed on, wherever it has its key: %s %s', async (app, streamName) => {
    const { first, owner, messages } = await openTwo({ streams: [cam] });
    const encoder = publish(first.port, app, streamName);
    expect(await encoder.answer).toBe('ready');
    expect(owner.publishingStreams).toEqual(['cam']);
    expect(first.publishingStreams).toEqual([]);
    // A second encoder is refused there, as it would be here.
    expect(await publish(first.port, app, streamName).answer).toBe('NetStream.Publish.BadName');
    sockets[0]?.destroy();
    await expect.poll(() => messages).toEqual(['cam on', 'cam off']);
  });

  it('is cut off when the other backend lets go of it', async () => {
    const { first, owner } = await openTwo({ streams: [cam] });
    const encoder = publish(first.port, 'live', 'cam?key=sk_cam');
    expect(await encoder.answer).toBe('ready');
    owner.setStreams([]);
    await encoder.closed;
  });

  it('is refused with a wrong key, and where the other backend has not the channel either: nothing goes in circles', async () => {
    const { first, messages } = await openTwo({ streams: [cam] });
    expect(await publish(first.port, 'live', 'cam?key=sk_stage').answer).toBe(
      'NetStream.Publish.Unauthorized',
    );
    expect(await publish(first.port, 'live', 'stage?key=sk_stage').answer).toBe('NetStream.Publish.BadName');
    expect(messages).toEqual([]);
  });
});

describe('an encoder', () => {
  it.each([
    ['the key in the query', 'live', 'cam?key=sk_cam'],
    ['the name in the server address, the key as stream key', 'live/cam', 'sk_cam'],
    ['the key alone', 'live', 'sk_cam'],
  ])('is taken with %s', async (_what, app, streamName) => {
    const { ingest, changes } = await openIngest();
    expect(await publish(ingest.port, app, streamName).answer).toBe('ready');
    expect(ingest.publishingStreams).toEqual(['cam']);
    expect(changes).toEqual(['cam on']);
  });

  it.each([
    ['no key', 'live', 'cam'],
    ['a wrong key', 'live', 'cam?key=sk_guess'],
    ["another stream's key", 'live', 'cam?key=sk_stage'],
    ['an unknown stream', 'live', 'nosuch?key=sk_cam'],
    ['another application', 'other', 'cam?key=sk_cam'],
    ['too deep an address', 'live/cam/extra', 'sk_cam'],
  ])('is refused with %s, always with the same words', async (_what, app, streamName) => {
    const { ingest, changes } = await openIngest();
    expect(await publish(ingest.port, app, streamName).answer).toBe('NetStream.Publish.Unauthorized');
    expect(changes).toEqual([]);
  });

  it('is refused while another publishes the stream', async () => {
    const { ingest } = await openIngest();
    expect(await publish(ingest.port, 'live', 'cam?key=sk_cam').answer).toBe('ready');
    expect(await publish(ingest.port, 'live', 'cam?key=sk_cam').answer).toBe('NetStream.Publish.BadName');
    expect(await publish(ingest.port, 'live', 'stage?key=sk_stage').answer).toBe('ready');
  });

  it('is cut off when its key is rotated or its stream removed; its key is worth nothing then', async () => {
    const { ingest, changes } = await openIngest();
    const [first, second] = [
      publish(ingest.port, 'live', 'cam?key=sk_cam'),
      publish(ingest.port, 'live', 'sk_stage'),
    ];
    expect([await first.answer, await second.answer]).toEqual(['ready', 'ready']);
    ingest.setStreams([{ ...cam, keySha256: sha256('sk_new') }]);
    await Promise.all([first.closed, second.closed]);
    expect(changes.slice(2).sort()).toEqual(['cam off', 'stage off']);
    expect(await publish(ingest.port, 'live', 'cam?key=sk_cam').answer).toBe(
      'NetStream.Publish.Unauthorized',
    );
    expect(await publish(ingest.port, 'live', 'cam?key=sk_new').answer).toBe('ready');
  });

  it('goes on with its old key for as long as the new one overlaps with it', async () => {
    const { ingest, changes } = await openIngest();
    const first = publish(ingest.port, 'live', 'cam?key=sk_cam');
    expect(await first.answer).toBe('ready');
    const untilUnixMs = Date.now() + 1500;
    ingest.setStreams([
      { ...cam, keySha256: sha256('sk_new'), oldKey: { sha256: sha256('sk_cam'), untilUnixMs } },
    ]);
    // It is known by either key: another encoder does not get in beside it.
    expect(await publish(ingest.port, 'live', 'cam?key=sk_new').answer).toBe('NetStream.Publish.BadName');
    expect(changes).toEqual(['cam on']);
    await first.closed;
    expect(Date.now()).toBeGreaterThanOrEqual(untilUnixMs);
    expect(await publish(ingest.port, 'live', 'cam?key=sk_cam').answer).toBe(
      'NetStream.Publish.Unauthorized',
    );
    expect(await publish(ingest.port, 'live', 'cam?key=sk_new').answer).toBe('ready');
  });
});

describe('the port for RTMPS', () => {
  it('counts who does not end its TLS handshake, and refuses more from the same address', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'starling-ingest-'));
    try {
      const logger = pino({ level: 'silent' });
      const none = { certificatePath: undefined, privateKeyPath: undefined };
      const certificate = await readCertificate({ port: 0, ...none }, folder, logger);
      ingest = await Ingest.listen({
        host: '127.0.0.1',
        port: 0,
        rtmps: { port: 0, ...certificate },
        logger,
        onPlay: undefined,
        addressElsewhere: () => undefined,
        onRefused: () => {},
        onEvent: () => {},
        onPublishChange: () => {},
      });
      const open = () => {
        const socket = connect(ingest?.rtmpsPort ?? 0, '127.0.0.1');
        socket.on('error', () => {});
        sockets.push(socket);
        return socket;
      };
      const waiting = Array.from({ length: 256 }, open);
      await Promise.all(waiting.map((socket) => once(socket, 'connect')));
      await once(open(), 'close');
      waiting[0]?.destroy();
      // There is room for one again, whose handshake ends.
      await vi.waitFor(async () => {
        const secured = connectTls({
          port: ingest?.rtmpsPort ?? 0,
          host: '127.0.0.1',
          rejectUnauthorized: false,
        });
        sockets.push(secured);
        await once(secured, 'secureConnect');
      });
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
