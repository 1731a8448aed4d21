/**
 * AC-3 and E-AC-3: sync frames, and the records of the boxes `dac3` and `dec3` that describe them.
 * Source: ETSI TS 102 366 sections 4.3, 4.4 (AC-3), E.1.2 (E-AC-3) and annex F (boxes).
 */
import type { AudioTrack } from '../access-unit.ts';
import { MediaError } from '../error.ts';
import { BitReader } from './bit-reader.ts';

const SYNC_WORD = 0x0b77;
const SAMPLES_PER_BLOCK = 256;
/** An AC-3 frame always holds six blocks. */
export const AC3_SAMPLES_PER_UNIT = 6 * SAMPLES_PER_BLOCK;
const BLOCK_COUNTS = [1, 2, 3, 6] as const;

/** Sample rates by fscod (table 4.1). The half rates of E-AC-3 (fscod 3) are not taken: nobody sends them. */
const SAMPLE_RATES_HZ = [48_000, 44_100, 32_000] as const;
/** Channels by acmod (table 4.3), without the LFE. */
const CHANNEL_COUNTS = [2, 1, 2, 3, 3, 4, 4, 5] as const;
const MAX_FRAME_SIZE_CODE = 37;
const MAX_AC3_BSID = 8;
const EAC3_BSID = 16;
const DEPENDENT_SUBSTREAM = 1;
const MAX_DEPENDENT_SUBSTREAMS = 8;
/** Channels that each bit of chan_loc adds (table F.6): pairs, except Cs, Ts, Cvh and LFE2. */
const CHAN_LOC_CHANNEL_COUNTS = [2, 2, 1, 1, 2, 2, 2, 1, 1] as const;

/**
 * Makes the track that an AC-3 frame belongs to.
 * @throws MediaError AC3_BAD_FRAME
 */
export function ac3TrackOf(frame: Uint8Array): AudioTrack {
  const bits = new BitReader(frame, 'AC3_BAD_FRAME');
  expectSyncWord(bits);
  bits.skip(16); // crc1
  const fscod = bits.bits(2);
  const frameSizeCode = bits.bits(6);
  const bsid = bits.bits(5);
  const bsmod = bits.bits(3);
  const acmod = bits.bits(3);
  if (frameSizeCode > MAX_FRAME_SIZE_CODE || bsid > MAX_AC3_BSID) {
    throw new MediaError('AC3_BAD_FRAME', `frmsizecod ${frameSizeCode}, bsid ${bsid}; at most 37 and 8`);
  }
  if ((acmod & 1) !== 0 && acmod !== 1) bits.skip(2); // cmixlev
  if ((acmod & 4) !== 0) bits.skip(2); // surmixlev
  if (acmod === 2) bits.skip(2); // dsurmod
  const lfeon = bits.bit();
  const record = new BitWriter();
  record.bits(fscod, 2).bits(bsid, 5).bits(bsmod, 3).bits(acmod, 3).bits(lfeon, 1);
  record.bits(frameSizeCode >> 1, 5).bits(0, 5); // bit_rate_code, reserved
  return ac3Track(record.finish());
}

/**
 * Makes the track that an AC3SpecificBox describes.
 * Source: section F.4.
 * @throws MediaError AC3_BAD_FRAME
 */
export function ac3Track(config: Uint8Array): AudioTrack {
  const bits = new BitReader(config, 'AC3_BAD_FRAME');
  const sampleRateHz = sampleRateOf(bits.bits(2));
  bits.skip(5 + 3); // bsid, bsmod
  const channelCount = channelCountOf(bits.bits(3)) + bits.bit();
  bits.skip(5 + 5); // bit_rate_code, reserved
  return {
    kind: 'audio',
    trackId: 0,
    language: undefined,
    codec: 'ac3',
    config,
    codecString: 'ac-3',
    sampleRateHz,
    channelCount,
  };
}

/** What one E-AC-3 sync frame says (section E.1.2.2). */
interface Eac3Frame {
  readonly isDependent: boolean;
  readonly sizeBytes: number;
  readonly fscod: number;
  readonly sampleRateHz: number;
  readonly blockCount: number;
  readonly acmod: number;
  readonly lfeon: number;
  readonly bsid: number;
  /** chan_loc of a dependent substream: what it adds to the independent one. */
  readonly chanLoc: number;
}

/**
 * Makes the track that an E-AC-3 access unit belongs to: an independent substream with those that depend on
 * it. Further programmes are left out.
 * @throws MediaError AC3_BAD_FRAME
 */
export function eac3TrackOf(unit: Uint8Array): AudioTrack {
  const [main, ...others] = readEac3Frames(unit);
  if (main === undefined || main.isDependent) {
    throw new MediaError('AC3_BAD_FRAME', 'a unit does not begin with an independent substream');
  }
  const next = others.findIndex((frame) => !frame.isDependent);
  const dependents = next < 0 ? others : others.slice(0, next);
  if (dependents.length > MAX_DEPENDENT_SUBSTREAMS) {
    throw new MediaError(
      'AC3_BAD_FRAME',
      `${dependents.length} dependent substreams, at most ${MAX_DEPENDENT_SUBSTREAMS}`,
    );
  }
  const sizeBytes = [main, ...dependents].reduce((sum, frame) => sum + frame.sizeBytes, 0);
  const bitrateBps = (sizeBytes * 8 * main.sampleRateHz) / (main.blockCount * SAMPLES_PER_BLOCK);
  const record = new BitWriter();
  record.bits(Math.min(Math.round(bitrateBps / 1000), 0x1fff), 13).bits(0, 3); // data_rate, num_ind_sub - 1
  record.bits(main.fscod, 2).bits(main.bsid, 5).bits(0, 1).bits(0, 1); // reserved, asvc
  record.bits(0, 3).bits(main.acmod, 3).bits(main.lfeon, 1).bits(0, 3); // bsmod: complete main; reserved
  record.bits(dependents.length, 4);
  const chanLoc = dependents.reduce((sum, frame) => sum | frame.chanLoc, 0);
  record.bits(chanLoc, dependents.length === 0 ? 1 : 9); // without dependents, a reserved bit
  return eac3Track(record.finish());
}

/**
 * Makes the track that an EC3SpecificBox describes.
 * Source: section F.6.
 * @throws MediaError AC3_BAD_FRAME
 */
export function eac3Track(config: Uint8Array): AudioTrack {
  const bits = new BitReader(config, 'AC3_BAD_FRAME');
  bits.skip(13 + 3); // data_rate, num_ind_sub
  const sampleRateHz = sampleRateOf(bits.bits(2));
  bits.skip(5 + 1 + 1 + 3); // bsid, reserved, asvc, bsmod
  let channelCount = channelCountOf(bits.bits(3)) + bits.bit();
  bits.skip(3);
  if (bits.bits(4) > 0) {
    const chanLoc = bits.bits(9);
    CHAN_LOC_CHANNEL_COUNTS.forEach((count, bit) => {
      if ((chanLoc >> bit) & 1) channelCount += count;
    });
  }
  return {
    kind: 'audio',
    trackId: 0,
    language: undefined,
    codec: 'eac3',
    config,
    codecString: 'ec-3',
    sampleRateHz,
    channelCount,
  };
}

/**
 * Samples in an E-AC-3 access unit, by the header of its first frame.
 * @returns undefined where the header is malformed
 */
export function eac3UnitSamples(unit: Uint8Array): number | undefined {
  const byte = unit[4];
  if (unit[0] !== SYNC_WORD >> 8 || unit[1] !== (SYNC_WORD & 0xff) || byte === undefined) return undefined;
  const blockCount = BLOCK_COUNTS[(byte >> 4) & 0x03];
  return blockCount === undefined ? undefined : blockCount * SAMPLES_PER_BLOCK;
}

function readEac3Frames(unit: Uint8Array): Eac3Frame[] {
  const frames: Eac3Frame[] = [];
  for (let at = 0; at < unit.length; ) {
    const frame = readEac3Frame(unit.subarray(at));
    frames.push(frame);
    at += frame.sizeBytes;
  }
  return frames;
}

function readEac3Frame(bytes: Uint8Array): Eac3Frame {
  const bits = new BitReader(bytes, 'AC3_BAD_FRAME');
  expectSyncWord(bits);
  const isDependent = bits.bits(2) === DEPENDENT_SUBSTREAM;
  bits.skip(3); // substreamid
  const sizeBytes = (bits.bits(11) + 1) * 2;
  const fscod = bits.bits(2);
  const sampleRateHz = sampleRateOf(fscod);
  const blockCount = BLOCK_COUNTS[bits.bits(2)] ?? 6;
  const acmod = bits.bits(3);
  const lfeon = bits.bit();
  const bsid = bits.bits(5);
  if (bsid <= 10 || bsid > EAC3_BSID) {
    throw new MediaError('AC3_BAD_FRAME', `bsid ${bsid}, allowed 11..${EAC3_BSID}`);
  }
  for (let programme = 0; programme < (acmod === 0 ? 2 : 1); programme++) {
    bits.skip(5); // dialnorm
    if (bits.flag()) bits.skip(8); // compr
  }
  const chanLoc = isDependent && bits.flag() ? chanLocOf(bits.bits(16)) : 0;
  return { isDependent, sizeBytes, fscod, sampleRateHz, blockCount, acmod, lfeon, bsid, chanLoc };
}

/** chan_loc (section F.6.2.13) of a chanmap (table E.1.4), whose bit 0 is the most significant. */
function chanLocOf(chanmap: number): number {
  const isSet = (bit: number) => (chanmap >> (15 - bit)) & 1;
  let chanLoc = isSet(14) << 8; // LFE2
  for (let bit = 0; bit < 8; bit++) chanLoc |= isSet(5 + bit) << bit; // Lc/Rc to Cvh
  return chanLoc;
}

function expectSyncWord(bits: BitReader): void {
  const word = bits.bits(16);
  if (word !== SYNC_WORD) {
    throw new MediaError('AC3_BAD_FRAME', `sync word 0x${word.toString(16)}, expected 0x0b77`);
  }
}

function sampleRateOf(fscod: number): number {
  const sampleRateHz = SAMPLE_RATES_HZ[fscod];
  if (sampleRateHz === undefined) {
    throw new MediaError('AC3_BAD_FRAME', `sample rate code ${fscod}, allowed 0..2`);
  }
  return sampleRateHz;
}

function channelCountOf(acmod: number): number {
  return CHANNEL_COUNTS[acmod] ?? 0;
}

/** Collects the few bits of a record, most significant first. */
class BitWriter {
  #text = '';

  bits(value: number, count: number): this {
    this.#text += value.toString(2).padStart(count, '0');
    return this;
  }

  /** The bits so far, filled up with zeros to whole bytes. */
  finish(): Uint8Array {
    const bytes = this.#text.match(/.{1,8}/g) ?? [];
    return Uint8Array.from(bytes, (byte) => Number.parseInt(byte.padEnd(8, '0'), 2));
  }
}
