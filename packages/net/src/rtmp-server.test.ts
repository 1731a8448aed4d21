/** What an RTMP server takes from one address; how it stops: peers that understand Enhanced RTMP's reconnect request leave by themselves. */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import type { FlvMessage } from '@starling/media/flv/tag';
import { RtmpClientSession } from '@starling/media/rtmp/session';
import { pino } from 'pino';
import { afterEach, expect, it, vi } from 'vitest';
import { type RtmpLimits, RtmpServer } from './rtmp-server.ts';

const sockets: Socket[] = [];
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
});

async function listen(limits: Partial<RtmpLimits>) {
  const received: FlvMessage[] = [];
  const server = await RtmpServer.listen({
    host: '127.0.0.1',
    port: 0,
    logger: pino({ level: 'silent' }),
    limits,
    handlers: { onPublish: () => ({ message: (message) => received.push(message), end: () => {} }) },
  });
  return { server, received };
}

/** Publishes as our backends do, which say in `capsEx` that they understand the request. */
async function publish(port: number) {
  const session = new RtmpClientSession({
    mode: 'publish',
    tcUrl: `rtmp://127.0.0.1:${port}/live`,
    app: 'live',
    streamName: 'cam',
    handshakeRandomBytes: randomBytes(1528),
    maxMessageBytes: 1 << 20,
  });
  const socket = connect(port, '127.0.0.1');
  sockets.push(socket);
  const heard: string[] = [];
  const flush = () => {
    const output = session.takeOutput();
    if (output !== undefined) socket.write(output);
  };
  socket.on('error', () => {});
  socket.on('data', (bytes) => {
    heard.push(...session.receive(bytes).map(({ type }) => type));
    flush();
  });
  flush();
  await vi.waitFor(() => expect(heard).toContain('ready'));
  return {
    heard,
    socket,
    send(timestampMs: number) {
      // An AAC frame: sound format 10, 44 kHz, 16 bit, stereo; packet type 1 (FLV 10.1, E.4.2).
      session.sendMessage({ kind: 'audio', timestampMs, payload: Uint8Array.of(0xaf, 1, 0) });
      flush();
    },
  };
}

it('asks a publisher to connect anew, and takes what it sends until it leaves', async () => {
  const { server, received } = await listen({ reconnectDeadlineMs: 60_000 });
  const publisher = await publish(server.port);
  const closed = server.close();
  await vi.waitFor(() => expect(publisher.heard).toContain('reconnect-request'));
  publisher.send(20);
  await vi.waitFor(() => expect(received.map(({ timestampMs }) => timestampMs)).toEqual([20]));
  publisher.socket.end();
  await closed;
});

it('cuts off one that stays', async () => {
  const { server } = await listen({ reconnectDeadlineMs: 50 });
  const publisher = await publish(server.port);
  const left = once(publisher.socket, 'close');
  await server.close();
  await left;
  expect(publisher.heard).toContain('reconnect-request');
});

it('cuts off at once who has not published yet', async () => {
  const { server } = await listen({ reconnectDeadlineMs: 60_000 });
  const socket = connect(server.port, '127.0.0.1');
  sockets.push(socket);
  socket.on('error', () => {});
  await once(socket, 'connect');
  await vi.waitFor(() => expect(server.connectionCount).toBe(1));
  await server.close();
});

it('lets so many in from one address, whatever they do, and another when one has left', async () => {
  const { server } = await listen({ maxConnectionsPerAddress: 2, reconnectDeadlineMs: 0 });
  const first = await publish(server.port);
  await publish(server.port);
  const third = connect(server.port, '127.0.0.1');
  third.on('error', () => {});
  await once(third, 'close');
  first.socket.end();
  await vi.waitFor(() => expect(server.connectionCount).toBe(1));
  await publish(server.port);
  await server.close();
});

it('lets so few wait at the door from one address', async () => {
  const { server } = await listen({ maxPendingPerAddress: 2, reconnectDeadlineMs: 0 });
  await publish(server.port); // waits no more
  for (let count = 0; count < 2; count++) {
    const waiting = connect(server.port, '127.0.0.1');
    sockets.push(waiting);
    waiting.on('error', () => {});
    await once(waiting, 'connect');
  }
  await vi.waitFor(() => expect(server.connectionCount).toBe(3));
  const refused = connect(server.port, '127.0.0.1');
  refused.on('error', () => {});
  await once(refused, 'close');
  expect(server.connectionCount).toBe(3);
  await server.close();
});
