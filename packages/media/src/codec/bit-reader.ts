/** Bounded bit-wise reading of parameter sets. Meant for a few hundred bytes, not for media data. */
import { MediaError, type MediaErrorCode } from '../error.ts';

/** A cursor over bits, most significant first. Reading past the end raises the code given at construction. */
export class BitReader {
  readonly #bytes: Uint8Array;
  readonly #code: MediaErrorCode;
  #bitOffset = 0;

  constructor(bytes: Uint8Array, code: MediaErrorCode) {
    this.#bytes = bytes;
    this.#code = code;
  }

  get remainingBits(): number {
    return this.#bytes.length * 8 - this.#bitOffset;
  }

  bit(): number {
    const byte = this.#bytes[this.#bitOffset >> 3];
    if (byte === undefined) {
      throw new MediaError(this.#code, 'it ends too early', { byteOffset: this.#bytes.length });
    }
    const bit = (byte >> (7 - (this.#bitOffset & 7))) & 1;
    this.#bitOffset++;
    return bit;
  }

  flag(): boolean {
    return this.bit() === 1;
  }

  /** An unsigned number of at most 32 bits. */
  bits(count: number): number {
    let value = 0;
    for (let i = 0; i < count; i++) value = value * 2 + this.bit();
    return value;
  }

  skip(count: number): void {
    for (let i = 0; i < count; i++) this.bit();
  }

  alignToByte(): void {
    this.#bitOffset = (this.#bitOffset + 7) & ~7;
  }

  /** ue(v): an unsigned Exp-Golomb code (ISO/IEC 14496-10, 9.1). */
  unsignedExpGolomb(): number {
    let leadingZeros = 0;
    while (this.bit() === 0) {
      leadingZeros++;
      if (leadingZeros > 31) throw new MediaError(this.#code, 'an Exp-Golomb code is longer than 63 bits');
    }
    return 2 ** leadingZeros - 1 + this.bits(leadingZeros);
  }

  /** se(v): a signed Exp-Golomb code (ISO/IEC 14496-10, 9.1.1). */
  signedExpGolomb(): number {
    const code = this.unsignedExpGolomb();
    return code % 2 === 1 ? (code + 1) / 2 : -code / 2;
  }
}

/**
 * The payload of a NAL unit: drops the third byte of each 00 00 03.
 * Source: ISO/IEC 14496-10 section 7.3.1; ISO/IEC 23008-2 section 7.3.1.1.
 */
export function withoutEmulationPrevention(nalUnit: Uint8Array): Uint8Array {
  return nalUnit.filter((byte, i) => !(byte === 3 && i >= 2 && nalUnit[i - 1] === 0 && nalUnit[i - 2] === 0));
}
