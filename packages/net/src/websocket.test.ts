import { once } from 'node:events';
import { createServer } from 'node:http';
import { type AddressInfo, connect, Socket } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { acceptWebSocket, binaryFrame, closeFrame, WebSocketReader } from './websocket.ts';

const bytes = (hex: string) => Uint8Array.from(Buffer.from(hex.replaceAll(' ', ''), 'hex'));
const cleanUps: (() => void)[] = [];
afterEach(() => {
  for (const cleanUp of cleanUps.splice(0)) cleanUp();
});

describe('frames out', () => {
  it('have the headers of RFC 6455, 5.7', () => {
    expect(Buffer.from(binaryFrame(new Uint8Array(125))).subarray(0, 2)).toEqual(Buffer.from('827d', 'hex'));
    expect(Buffer.from(binaryFrame(new Uint8Array(256))).subarray(0, 4)).toEqual(
      Buffer.from('827e0100', 'hex'),
    );
    expect(Buffer.from(binaryFrame(new Uint8Array(65_536))).subarray(0, 10)).toEqual(
      Buffer.from('827f0000000000010000', 'hex'),
    );
    expect(closeFrame(1001)).toEqual(bytes('88 02 03e9'));
  });
});

describe('frames in', () => {
  /** The masked "Hello" of RFC 6455, 5.7, as a ping; a text message with the same; a close with 1000. */
  const ping = '89 85 37fa213d 7f9f4d5158';
  const text = '81 85 37fa213d 7f9f4d5158';
  const close = '88 82 00000000 03e8';

  it('are read whatever way they are split', () => {
    const all = bytes(`${text} ${ping} ${close} ${ping}`);
    const expected = [
      { type: 'ping', payload: Uint8Array.from(Buffer.from('Hello')) },
      { type: 'close', code: 1000 },
    ];
    for (let split = 0; split <= all.length; split++) {
      const reader = new WebSocketReader();
      expect([...reader.push(all.subarray(0, split)), ...reader.push(all.subarray(split))]).toEqual(expected);
    }
  });

  it('an empty ping and a close without a code', () => {
    expect(new WebSocketReader().push(bytes('89 80 01020304 88 80 01020304'))).toEqual([
      { type: 'ping', payload: new Uint8Array(0) },
      { type: 'close', code: 1000 },
    ]);
  });

  it.each([
    ['not masked', '81 05', 1002],
    ['reserved bits', 'c1 85', 1002],
    ['an unknown opcode', '83 85', 1002],
    ['an unknown control opcode', '8b 80', 1002],
    ['a ping in fragments', '09 80', 1002],
    ['a ping of 126 bytes', '89 fe', 1002],
    ['a message of 65537 bytes', '82 ff 0000000000010001 00000000', 1009],
    ['a message of 2^63 bytes and more', '82 ff ffffffffffffffff 00000000', 1009],
  ])('end the connection when they are wrong: %s', (_, hex, code) => {
    const reader = new WebSocketReader();
    expect(reader.push(bytes(hex))).toEqual([{ type: 'close', code }]);
    expect(reader.push(bytes(ping))).toEqual([]);
  });
});

describe('the handshake', () => {
  async function exchange(request: string): Promise<{ socket: Socket; answer: () => Buffer }> {
    const server = createServer().listen(0, '127.0.0.1');
    server.on('upgrade', (message, socket, head) => {
      if (socket instanceof Socket) acceptWebSocket(message, socket, head);
    });
    await once(server, 'listening');
    const socket = connect((server.address() as AddressInfo).port, '127.0.0.1');
    cleanUps.push(() => {
      socket.destroy();
      server.close();
      server.closeAllConnections();
    });
    const chunks: Buffer[] = [];
    socket.on('data', (chunk: Buffer) => chunks.push(chunk));
    socket.write(request);
    while (!Buffer.concat(chunks).includes('\r\n\r\n')) await once(socket, 'data');
    return { socket, answer: () => Buffer.concat(chunks) };
  }
  const request = (headers: string) =>
    `GET /live/x.flv HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n${headers}\r\n`;
  const key = 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n';

  it('is that of RFC 6455, 1.3; then pings are answered and a close is echoed', async () => {
    const { socket, answer } = await exchange(request(`${key}Sec-WebSocket-Version: 13\r\n`));
    expect(answer().toString()).toContain('101 Switching Protocols');
    expect(answer().toString()).toContain('Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n');
    const head = answer().length;
    socket.write(bytes('89 85 37fa213d 7f9f4d5158 88 82 00000000 03e8'));
    await once(socket, 'end');
    expect(answer().subarray(head)).toEqual(Buffer.from(bytes(`8a 05 48656c6c6f 88 02 03e8`)));
  });

  it('refuses another version and a bad key', async () => {
    const old = await exchange(request(`${key}Sec-WebSocket-Version: 8\r\n`));
    expect(old.answer().toString()).toMatch(/^HTTP\/1.1 426 .*\r\nSec-WebSocket-Version: 13\r\n/);
    const bad = await exchange(request('Sec-WebSocket-Key: short\r\nSec-WebSocket-Version: 13\r\n'));
    expect(bad.answer().toString()).toMatch(/^HTTP\/1.1 400 /);
  });
});
