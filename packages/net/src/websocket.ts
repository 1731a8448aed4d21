/**
 * The server's side of WebSockets that carry media one way: handshake, binary messages out; pings and
 * the close in. What a viewer says otherwise is read past, within bounds.
 *
 * Source: RFC 6455.
 */
import { createHash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';

/** Section 1.3. */
const HANDSHAKE_GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
const OPCODE = { continuation: 0x0, text: 0x1, binary: 0x2, close: 0x8, ping: 0x9, pong: 0xa } as const;
/** Section 7.4.1. */
export const closeCode = { goingAway: 1001, protocolError: 1002, tooBig: 1009 } as const;

/** Of a control frame (5.5). */
const MAX_CONTROL_PAYLOAD_BYTES = 125;
/** Of what a viewer says, which nobody reads. */
const MAX_IGNORED_PAYLOAD_BYTES = 64 * 1024;
/** With more than this waiting for the viewer, pings go unanswered: only the last needs an answer (5.5.2). */
const MAX_QUEUED_FOR_PONG_BYTES = 64 * 1024;
const CLOSE_DEADLINE_MS = 2000;

/** True for a request that asks for a WebSocket, whether or not it is well formed. */
export function isWebSocketRequest(request: IncomingMessage): boolean {
  return request.headers.upgrade?.toLowerCase() === 'websocket';
}

/**
 * Answers the opening handshake (4.2), and from then on the viewer's pings and its close.
 *
 * @param head what came with the request already
 * @returns false when the request was not a WebSocket's: it has been refused
 */
export function acceptWebSocket(request: IncomingMessage, socket: Socket, head: Uint8Array): boolean {
  const key = request.headers['sec-websocket-key'] ?? '';
  const isWellFormed = request.method === 'GET' && /^[A-Za-z0-9+/]{22}==$/.test(key);
  if (!isWellFormed || request.headers['sec-websocket-version'] !== '13') {
    refuseUpgrade(socket, isWellFormed ? '426 Upgrade Required' : '400 Bad Request', {
      'Sec-WebSocket-Version': '13',
    });
    return false;
  }
  const accept = createHash('sha1')
    .update(key + HANDSHAKE_GUID)
    .digest('base64');
  socket.setTimeout(0); // whoever writes to it has a deadline of its own
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`,
  );
  const reader = new WebSocketReader();
  const receive = (bytes: Uint8Array) => {
    for (const event of reader.push(bytes)) {
      if (event.type === 'close') {
        socket.end(closeFrame(event.code));
        socket.setTimeout(CLOSE_DEADLINE_MS, () => socket.destroy());
        socket.off('data', receive).resume();
        return;
      }
      if (socket.writableLength <= MAX_QUEUED_FOR_PONG_BYTES) socket.write(frame(OPCODE.pong, event.payload));
    }
  };
  socket.on('data', receive);
  if (head.length > 0) receive(head);
  return true;
}

/** Answers an upgrade with a status, for instance `404 Not Found`, and closes the connection. */
export function refuseUpgrade(socket: Socket, status: string, headers: Record<string, string> = {}): void {
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.end(`HTTP/1.1 ${status}\r\n${lines.join('')}Content-Length: 0\r\nConnection: close\r\n\r\n`);
  socket.setTimeout(CLOSE_DEADLINE_MS, () => socket.destroy());
}

/** One binary message. A server's frames are not masked, so all viewers can share it. */
export function binaryFrame(payload: Uint8Array): Uint8Array {
  return frame(OPCODE.binary, payload);
}

/** Ends a WebSocket; see {@link closeCode}. */
export function closeFrame(code: number): Uint8Array {
  return frame(OPCODE.close, Uint8Array.of(code >> 8, code & 0xff));
}

/** One whole message in one frame (5.2). */
function frame(opcode: number, payload: Uint8Array): Uint8Array {
  const headerBytes = payload.length < 126 ? 2 : payload.length <= 0xffff ? 4 : 10;
  const bytes = new Uint8Array(headerBytes + payload.length);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, 0x80 | opcode); // FIN
  if (headerBytes === 2) {
    view.setUint8(1, payload.length);
  } else if (headerBytes === 4) {
    view.setUint8(1, 126);
    view.setUint16(2, payload.length);
  } else {
    view.setUint8(1, 127);
    view.setBigUint64(2, BigInt(payload.length));
  }
  bytes.set(payload, headerBytes);
  return bytes;
}

export type WebSocketEvent =
  | { readonly type: 'ping'; readonly payload: Uint8Array }
  /** The viewer closes, or broke the protocol: the code is what to answer. Nothing follows. */
  | { readonly type: 'close'; readonly code: number };

/**
 * Reads a viewer's frames, from bytes split anywhere. Payloads of messages are passed over; of control
 * frames at most 125 bytes are kept.
 */
export class WebSocketReader {
  #header: number[] = [];
  #control: { readonly opcode: number; readonly payload: number[] } | undefined;
  #payloadBytesLeft = 0;
  #mask: readonly number[] = [];
  #isClosed = false;

  /** Nothing is read any more after a `close`. */
  push(bytes: Uint8Array): WebSocketEvent[] {
    const events: WebSocketEvent[] = [];
    let at = 0;
    while (at < bytes.length && !this.#isClosed) {
      if (this.#payloadBytesLeft > 0) {
        const piece = bytes.subarray(at, at + this.#payloadBytesLeft);
        at += piece.length;
        this.#payloadBytesLeft -= piece.length;
        this.#control?.payload.push(...piece);
      } else {
        this.#header.push(bytes[at] ?? 0);
        at++;
        const fault = this.#readHeader();
        if (fault === 'incomplete') continue;
        if (fault !== undefined) events.push(this.#close(fault));
      }
      if (this.#payloadBytesLeft === 0) this.#endFrame(events);
    }
    return events;
  }

  /** @returns a close code where the header is faulty; undefined once it is whole */
  #readHeader(): 'incomplete' | number | undefined {
    const [first = 0, second] = this.#header;
    if (second === undefined) return 'incomplete';
    const opcode = first & 0x0f;
    const isControl = opcode >= OPCODE.close;
    const isKnown = isControl ? opcode <= OPCODE.pong : opcode <= OPCODE.binary;
    const length = second & 0x7f;
    // Reserved bits and opcodes, a client that does not mask, control frames that are cut or long (5.2, 5.5).
    if ((first & 0x70) !== 0 || !isKnown || (second & 0x80) === 0) return closeCode.protocolError;
    if (isControl && ((first & 0x80) === 0 || length > MAX_CONTROL_PAYLOAD_BYTES))
      return closeCode.protocolError;
    const extendedBytes = length === 127 ? 8 : length === 126 ? 2 : 0;
    if (this.#header.length < 2 + extendedBytes + 4) return 'incomplete';
    const extended = this.#header.slice(2, 2 + extendedBytes);
    const payloadBytes = extendedBytes === 0 ? length : extended.reduce((sum, byte) => sum * 256 + byte, 0);
    if (payloadBytes > MAX_IGNORED_PAYLOAD_BYTES) return closeCode.tooBig;
    this.#mask = this.#header.slice(2 + extendedBytes);
    this.#header = [];
    this.#payloadBytesLeft = payloadBytes;
    this.#control = isControl ? { opcode, payload: [] } : undefined;
    return undefined;
  }

  #endFrame(events: WebSocketEvent[]): void {
    const control = this.#control;
    this.#control = undefined;
    if (control === undefined || this.#isClosed) return;
    const payload = Uint8Array.from(control.payload, (byte, i) => byte ^ (this.#mask[i % 4] ?? 0));
    if (control.opcode === OPCODE.ping) events.push({ type: 'ping', payload });
    if (control.opcode !== OPCODE.close) return;
    const [high, low] = payload;
    const isCoded = high !== undefined && low !== undefined;
    events.push(this.#close(isCoded ? high * 256 + low : 1000)); // echoed (5.5.1)
  }

  #close(code: number): WebSocketEvent {
    this.#isClosed = true;
    return { type: 'close', code };
  }
}
