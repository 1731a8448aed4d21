/**
 * The simple RTMP handshake, without digests, for either side.
 *
 * Source: RTMP 1.0 section 5.2.
 */
import { concatBytes } from '../bytes.ts';
import { MediaError } from '../error.ts';

const RTMP_VERSION = 3;
/** C1, S1, C2 and S2: time (4 bytes), zero or time2 (4 bytes), random (1528 bytes). */
const PACKET_BYTES = 1536;
export const HANDSHAKE_RANDOM_BYTES = PACKET_BYTES - 8;

/**
 * Bytes in, bytes out. A client sends C0 and C1 at once and C2 after S1; a server sends S0, S1 and
 * S2 after C1. Both then skip the peer's last packet, the echo of their own, without comparing it:
 * encoders with a wrong echo are in use, and it protects nothing.
 */
export class Handshake {
  readonly #side: 'server' | 'client';
  readonly #hello: Uint8Array;
  readonly #output: Uint8Array[];
  #hasVersion = false;
  readonly #peerPacket = new Uint8Array(PACKET_BYTES);
  #peerPacketLength = 0;
  #echoBytesLeft = PACKET_BYTES;

  /**
   * @param randomBytes 1528 bytes
   * @param output where bytes for the peer are appended
   */
  constructor(side: 'server' | 'client', randomBytes: Uint8Array, output: Uint8Array[]) {
    if (randomBytes.length !== HANDSHAKE_RANDOM_BYTES) {
      throw new Error(`handshake needs ${HANDSHAKE_RANDOM_BYTES} random bytes, got ${randomBytes.length}`);
    }
    this.#side = side;
    this.#output = output;
    const timeAndZero = new Uint8Array(8);
    this.#hello = concatBytes([Uint8Array.of(RTMP_VERSION), timeAndZero, randomBytes]);
    if (side === 'client') output.push(this.#hello);
  }

  get isComplete(): boolean {
    return this.#echoBytesLeft === 0;
  }

  /**
   * Takes what belongs to the handshake from the front of `bytes`.
   * @returns how many bytes that were; the rest, once `isComplete`, are chunks
   * @throws MediaError RTMP_BAD_VERSION as soon as the first byte says so; the handshake is then spent
   */
  receive(bytes: Uint8Array): number {
    let offset = 0;
    if (!this.#hasVersion) {
      const version = bytes[0];
      if (version === undefined) return 0;
      if (version !== RTMP_VERSION) {
        throw new MediaError('RTMP_BAD_VERSION', `The byte is ${version}.`, { byteOffset: 0 });
      }
      this.#hasVersion = true;
      offset = 1;
    }
    if (this.#peerPacketLength < PACKET_BYTES) {
      const part = bytes.subarray(offset, offset + PACKET_BYTES - this.#peerPacketLength);
      this.#peerPacket.set(part, this.#peerPacketLength);
      this.#peerPacketLength += part.length;
      offset += part.length;
      if (this.#peerPacketLength < PACKET_BYTES) return offset;
      if (this.#side === 'server') this.#output.push(this.#hello);
      this.#output.push(this.#peerPacket);
    }
    const skipped = Math.min(this.#echoBytesLeft, bytes.length - offset);
    this.#echoBytesLeft -= skipped;
    return offset + skipped;
  }
}
