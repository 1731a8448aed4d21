/**
 * The time in the pictures: the bench's publisher puts into every H.264 picture when it sends it, and
 * viewers find that again in raw bytes, whatever protocol carries them.
 *
 * It is an SEI message `user_data_unregistered` (ITU-T H.264, D.1.7): 16 bytes of UUID, then here 17
 * characters: K for a random access point or P for another picture, and the microseconds of the
 * monotonic clock in 16 hexadecimal digits. All of it is free of zeros, so no escaping is needed.
 */
import { concatBytes } from '@starling/media/bytes';

/** Drawn at random. */
const UUID = Buffer.from('9d4e7bb1a35c4f1f8e62d1c6f72e0b55', 'hex');
const KIND_CHARACTERS = 1;
const TIME_DIGITS = 16;
const STAMP_SIZE_BYTES = UUID.length + KIND_CHARACTERS + TIME_DIGITS;

/** NAL unit type 6 (SEI), payload type 5, its size; then the stamp and the stop bit. */
const SEI_HEADER = Uint8Array.of(0x06, 0x05, STAMP_SIZE_BYTES);
const SEI_STOP = Uint8Array.of(0x80);

/** Of an FLV video body in AVC: frame type and codec, packet type, composition time (FLV 10.1, E.4.3). */
const AVC_BODY_HEADER_BYTES = 5;
const KEY_FRAME = 1;

export interface Stamp {
  readonly isRandomAccess: boolean;
  /** On the monotonic clock; 0 where it says nothing. */
  readonly sentAtMs: number;
}

/** The bytes of a stamp. */
export function makeStamp({ isRandomAccess, sentAtMs }: Stamp): Buffer {
  const time = Math.round(sentAtMs * 1000).toString(16);
  const text = `${isRandomAccess ? 'K' : 'P'}${time.padStart(TIME_DIGITS, '0')}`;
  return Buffer.concat([UUID, Buffer.from(text)]);
}

/** @param body of an FLV video tag with one AVC access unit */
export function stampAvcBody(body: Uint8Array, sentAtMs: number): Uint8Array {
  const isRandomAccess = (body[0] ?? 0) >> 4 === KEY_FRAME;
  const sei = concatBytes([SEI_HEADER, makeStamp({ isRandomAccess, sentAtMs }), SEI_STOP]);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(sei.length);
  const [header, rest] = [body.subarray(0, AVC_BODY_HEADER_BYTES), body.subarray(AVC_BODY_HEADER_BYTES)];
  return concatBytes([header, length, sei, rest]);
}

/** Finds stamps in bytes that come in pieces. */
export class StampReader {
  /** What a stamp that the end of the last piece cut off may begin with. */
  #tail = Buffer.alloc(0);

  /** @param piece may be overwritten afterwards */
  push(piece: Buffer): Stamp[] {
    const bytes = this.#tail.length === 0 ? piece : Buffer.concat([this.#tail, piece]);
    const stamps: Stamp[] = [];
    let searchedTo = 0;
    for (;;) {
      const at = bytes.indexOf(UUID, searchedTo);
      if (at < 0 || at + STAMP_SIZE_BYTES > bytes.length) {
        const tailAt = at < 0 ? Math.max(searchedTo, bytes.length - STAMP_SIZE_BYTES + 1) : at;
        this.#tail = Buffer.from(bytes.subarray(tailAt));
        return stamps;
      }
      const text = bytes.toString('latin1', at + UUID.length, at + STAMP_SIZE_BYTES);
      const sentAtMs = Number.parseInt(text.slice(KIND_CHARACTERS), 16) / 1000;
      stamps.push({ isRandomAccess: text.startsWith('K'), sentAtMs });
      searchedTo = at + STAMP_SIZE_BYTES;
    }
  }
}
