/**
 * Bounded reading and writing of big-endian binary structures.
 * Every read checks the length first and raises BYTES_TRUNCATED, never a RangeError.
 */
import { MediaError } from './error.ts';

/** Joins byte arrays with one allocation. */
export function concatBytes(parts: readonly Uint8Array[]): Uint8Array {
  let sizeBytes = 0;
  for (const part of parts) sizeBytes += part.length;
  const joined = new Uint8Array(sizeBytes);
  let offset = 0;
  for (const part of parts) {
    joined.set(part, offset);
    offset += part.length;
  }
  return joined;
}

/** True when both hold the same bytes. */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** A cursor over bytes. Slices are views, not copies. */
export class ByteReader {
  readonly bytes: Uint8Array;
  readonly #view: DataView;
  offset = 0;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get remaining(): number {
    return this.bytes.length - this.offset;
  }

  #advance(sizeBytes: number): number {
    const at = this.offset;
    if (sizeBytes > this.bytes.length - at) {
      throw new MediaError('BYTES_TRUNCATED', `${sizeBytes} bytes needed, ${this.bytes.length - at} left`, {
        byteOffset: at,
      });
    }
    this.offset = at + sizeBytes;
    return at;
  }

  u8(): number {
    return this.#view.getUint8(this.#advance(1));
  }
  u16(): number {
    return this.#view.getUint16(this.#advance(2));
  }
  u24(): number {
    const at = this.#advance(3);
    return (this.#view.getUint16(at) << 8) | this.#view.getUint8(at + 2);
  }
  i24(): number {
    return (this.u24() << 8) >> 8;
  }
  u32(): number {
    return this.#view.getUint32(this.#advance(4));
  }
  i32(): number {
    return this.#view.getInt32(this.#advance(4));
  }
  /** An unsigned 64-bit integer up to 2^53 - 1. */
  u64(): number {
    const at = this.#advance(8);
    const value = this.#view.getUint32(at) * 2 ** 32 + this.#view.getUint32(at + 4);
    if (!Number.isSafeInteger(value)) {
      throw new MediaError('MP4_BAD_BOX', `64-bit value ${value} exceeds 2^53 - 1`, { byteOffset: at });
    }
    return value;
  }
  f64(): number {
    return this.#view.getFloat64(this.#advance(8));
  }
  take(sizeBytes: number): Uint8Array {
    const at = this.#advance(sizeBytes);
    return this.bytes.subarray(at, at + sizeBytes);
  }
  skip(sizeBytes: number): void {
    this.#advance(sizeBytes);
  }
}

/** Builds a binary structure; grows as needed. */
export class ByteWriter {
  #bytes: Uint8Array;
  #view: DataView;
  #length = 0;

  constructor(initialSizeBytes = 256) {
    this.#bytes = new Uint8Array(initialSizeBytes);
    this.#view = new DataView(this.#bytes.buffer);
  }

  get length(): number {
    return this.#length;
  }

  #reserve(sizeBytes: number): number {
    const at = this.#length;
    const needed = at + sizeBytes;
    if (needed > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(needed, this.#bytes.length * 2));
      grown.set(this.#bytes.subarray(0, at));
      this.#bytes = grown;
      this.#view = new DataView(grown.buffer);
    }
    this.#length = needed;
    return at;
  }

  u8(value: number): this {
    const at = this.#reserve(1);
    this.#view.setUint8(at, value);
    return this;
  }
  u16(value: number): this {
    const at = this.#reserve(2);
    this.#view.setUint16(at, value);
    return this;
  }
  u24(value: number): this {
    const at = this.#reserve(3);
    this.#view.setUint16(at, (value >>> 8) & 0xffff);
    this.#view.setUint8(at + 2, value & 0xff);
    return this;
  }
  u32(value: number): this {
    const at = this.#reserve(4);
    this.#view.setUint32(at, value);
    return this;
  }
  i32(value: number): this {
    const at = this.#reserve(4);
    this.#view.setInt32(at, value);
    return this;
  }
  /** A whole number from 0 to 2^53 - 1. */
  u64(value: number): this {
    const at = this.#reserve(8);
    this.#view.setUint32(at, Math.floor(value / 2 ** 32));
    this.#view.setUint32(at + 4, value % 2 ** 32);
    return this;
  }
  f64(value: number): this {
    const at = this.#reserve(8);
    this.#view.setFloat64(at, value);
    return this;
  }
  bytes(value: Uint8Array): this {
    const at = this.#reserve(value.length);
    this.#bytes.set(value, at);
    return this;
  }
  /** Characters of a four-character code or another ASCII string, without terminator. */
  ascii(value: string): this {
    const at = this.#reserve(value.length);
    for (let i = 0; i < value.length; i++) this.#bytes[at + i] = value.charCodeAt(i);
    return this;
  }
  /** Overwrites four bytes written before: for sizes known only at the end. */
  patchU32(at: number, value: number): this {
    this.#view.setUint32(at, value);
    return this;
  }
  /** The bytes written so far: a view, valid until the next write. */
  finish(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }
}
