/**
 * AV1: the AV1CodecConfigurationRecord, sequence headers and key frames.
 * Sources: "AV1 Codec ISO Media File Format Binding" 1.2.0 sections 2.3, 2.4 and 5; "AV1 Bitstream &
 * Decoding Process Specification" sections 5.3 (OBU), 5.5 (sequence header) and 5.9 (frame header).
 */
import type { VideoTrack } from '../access-unit.ts';
import { concatBytes } from '../bytes.ts';
import { MediaError } from '../error.ts';
import { BitReader } from './bit-reader.ts';

/** obu_type (section 6.2.2). */
const OBU_TYPE = { sequenceHeader: 1, temporalDelimiter: 2, frameHeader: 3, frame: 6 } as const;

const MARKER_AND_VERSION = 0x81;
/** The fields of the record before configOBUs. */
const RECORD_FIELDS_SIZE_BYTES = 4;
const KEY_FRAME = 0;
const SELECT_SCREEN_CONTENT_TOOLS = 2;
const MAX_DIMENSION_PX = 65_536;

/** Colour of video that says nothing of it: BT.709 or unspecified (section 6.4.2). */
const ORDINARY_COLOURS = [1, 2];
const IDENTITY_MATRIX = 0;

/** What a sequence header says, as far as the configuration record and the codec string need it. */
interface SequenceHeader {
  readonly profile: number;
  readonly levelIdx: number;
  readonly tier: number;
  readonly bitDepth: number;
  readonly isMonochrome: boolean;
  readonly subsamplingX: number;
  readonly subsamplingY: number;
  readonly chromaSamplePosition: number;
  readonly colourPrimaries: number;
  readonly transferCharacteristics: number;
  readonly matrixCoefficients: number;
  readonly isFullRange: boolean;
  readonly widthPx: number;
  readonly heightPx: number;
}

interface Obu {
  readonly type: number;
  readonly payload: Uint8Array;
  /** Header, size and payload. */
  readonly bytes: Uint8Array;
}

/**
 * Makes the track that an AV1CodecConfigurationRecord describes.
 *
 * @param config with the sequence header among its configOBUs
 * @param frameDurationTicks ticks of 1/90000 s per frame, where the sender promises a constant frame rate
 * @returns undefined where the record has no sequence header (FFmpeg sends an empty one for some
 *   encoders): then `av1ConfigOf` the first key frame
 * @throws MediaError AV1_BAD_CONFIG
 */
export function av1Track(config: Uint8Array, frameDurationTicks?: number): VideoTrack | undefined {
  if (config.length <= RECORD_FIELDS_SIZE_BYTES) return undefined;
  if (config[0] !== MARKER_AND_VERSION) {
    throw new MediaError('AV1_BAD_CONFIG', `marker and version ${config[0]}, expected ${MARKER_AND_VERSION}`);
  }
  const obus = readObus(config.subarray(RECORD_FIELDS_SIZE_BYTES));
  const header = obus.find(({ type }) => type === OBU_TYPE.sequenceHeader);
  if (header === undefined) return undefined;
  const sequence = parseSequenceHeader(header.payload);
  const { widthPx, heightPx } = sequence;
  const codecString = av1CodecString(sequence);
  return {
    kind: 'video',
    trackId: 0,
    codec: 'av1',
    config,
    codecString,
    widthPx,
    heightPx,
    frameDurationTicks,
  };
}

/**
 * Makes the configuration record for the stream that begins with a temporal unit.
 * @returns undefined where the unit has no sequence header
 * @throws MediaError AV1_BAD_CONFIG
 */
export function av1ConfigOf(temporalUnit: Uint8Array): Uint8Array | undefined {
  const header = readObus(temporalUnit).find(({ type }) => type === OBU_TYPE.sequenceHeader);
  if (header === undefined) return undefined;
  const sequence = parseSequenceHeader(header.payload);
  const fields = Uint8Array.of(
    MARKER_AND_VERSION,
    (sequence.profile << 5) | sequence.levelIdx,
    (sequence.tier << 7) |
      (Number(sequence.bitDepth > 8) << 6) |
      (Number(sequence.bitDepth === 12) << 5) |
      (Number(sequence.isMonochrome) << 4) |
      (sequence.subsamplingX << 3) |
      (sequence.subsamplingY << 2) |
      sequence.chromaSamplePosition,
    0, // no initial presentation delay
  );
  return concatBytes([fields, header.bytes]);
}

/**
 * True where the temporal unit is a shown key frame. Encoders mark also forward key frames, which are not
 * shown and from which nothing can be decoded yet, and intra-only frames.
 * Source: AV1-ISOBMFF section 2.4 (sync samples); AV1 section 5.9.2.
 */
export function isAv1RandomAccess(temporalUnit: Uint8Array): boolean {
  let isReducedStill = false;
  for (const { type, payload } of readObus(temporalUnit)) {
    const first = payload[0];
    if (first === undefined) continue;
    if (type === OBU_TYPE.sequenceHeader) isReducedStill = (first & 0x08) !== 0;
    if (type !== OBU_TYPE.frame && type !== OBU_TYPE.frameHeader) continue;
    const showsExistingFrame = (first & 0x80) !== 0;
    const frameType = (first >> 5) & 0x03;
    const isShown = (first & 0x10) !== 0;
    return isReducedStill || (!showsExistingFrame && frameType === KEY_FRAME && isShown);
  }
  return false;
}

/**
 * The temporal unit without the delimiter that opens it, which an MP4 sample should not have.
 * Source: AV1-ISOBMFF section 2.4.
 * @returns a view
 */
export function withoutTemporalDelimiter(temporalUnit: Uint8Array): Uint8Array {
  const isDelimiter = temporalUnit[0] === ((OBU_TYPE.temporalDelimiter << 3) | 0x02) && temporalUnit[1] === 0;
  return isDelimiter ? temporalUnit.subarray(2) : temporalUnit;
}

/** Reads OBUs (section 5.3). @throws MediaError AV1_BAD_CONFIG */
function readObus(bytes: Uint8Array): Obu[] {
  const obus: Obu[] = [];
  let at = 0;
  while (at < bytes.length) {
    const start = at;
    const header = bytes[at++] ?? 0;
    if ((header & 0x80) !== 0) throw new MediaError('AV1_BAD_CONFIG', 'forbidden bit', { byteOffset: start });
    if ((header & 0x04) !== 0) at++; // extension
    let sizeBytes = bytes.length - at;
    if ((header & 0x02) !== 0) {
      sizeBytes = 0;
      // leb128 (section 4.10.5)
      for (let shift = 1, byte = 0x80; (byte & 0x80) !== 0; shift *= 128) {
        const next = bytes[at++];
        if (next === undefined || shift > 2 ** 28) {
          throw new MediaError('AV1_BAD_CONFIG', 'the size of an OBU ends too early', { byteOffset: start });
        }
        byte = next;
        sizeBytes += (byte & 0x7f) * shift;
      }
    }
    if (sizeBytes < 0 || sizeBytes > bytes.length - at) {
      throw new MediaError('AV1_BAD_CONFIG', `an OBU of ${sizeBytes} bytes, ${bytes.length - at} are left`, {
        byteOffset: start,
      });
    }
    const payload = bytes.subarray(at, at + sizeBytes);
    at += sizeBytes;
    obus.push({ type: (header >> 3) & 0x0f, payload, bytes: bytes.subarray(start, at) });
  }
  return obus;
}

/** Source: section 5.5.1. */
function parseSequenceHeader(payload: Uint8Array): SequenceHeader {
  const bits = new BitReader(payload, 'AV1_BAD_CONFIG');
  const profile = bits.bits(3);
  bits.skip(1); // still_picture
  const isReducedStill = bits.flag();
  let levelIdx = 0;
  let tier = 0;
  if (isReducedStill) {
    levelIdx = bits.bits(5);
  } else {
    ({ levelIdx, tier } = readOperatingPoints(bits));
  }
  const widthSizeBits = bits.bits(4) + 1;
  const heightSizeBits = bits.bits(4) + 1;
  const widthPx = bits.bits(widthSizeBits) + 1;
  const heightPx = bits.bits(heightSizeBits) + 1;
  if (widthPx > MAX_DIMENSION_PX || heightPx > MAX_DIMENSION_PX) {
    throw new MediaError('AV1_BAD_CONFIG', `picture of ${widthPx} x ${heightPx}`);
  }
  // frame_id_numbers_present_flag: delta_frame_id_length_minus_2, additional_frame_id_length_minus_1
  if (!isReducedStill && bits.flag()) bits.skip(4 + 3);
  bits.skip(3); // use_128x128_superblock, enable_filter_intra, enable_intra_edge_filter
  if (!isReducedStill) {
    bits.skip(4); // enable_interintra_compound, enable_masked_compound, enable_warped_motion, enable_dual_filter
    const hasOrderHint = bits.flag();
    if (hasOrderHint) bits.skip(2); // enable_jnt_comp, enable_ref_frame_mvs
    const screenContentTools = bits.flag() ? SELECT_SCREEN_CONTENT_TOOLS : bits.bit();
    if (screenContentTools > 0 && !bits.flag()) bits.skip(1); // seq_force_integer_mv
    if (hasOrderHint) bits.skip(3); // order_hint_bits_minus_1
  }
  bits.skip(3); // enable_superres, enable_cdef, enable_restoration
  return { profile, levelIdx, tier, widthPx, heightPx, ...readColourConfig(bits, profile) };
}

/** @returns level and tier of the first operating point: all layers */
function readOperatingPoints(bits: BitReader): { levelIdx: number; tier: number } {
  let hasDecoderModel = false;
  let delaySizeBits = 0;
  if (bits.flag()) {
    bits.skip(64); // num_units_in_display_tick, time_scale
    if (bits.flag()) bits.unsignedExpGolomb(); // num_ticks_per_picture_minus_1
    hasDecoderModel = bits.flag();
    if (hasDecoderModel) {
      delaySizeBits = bits.bits(5) + 1;
      bits.skip(32 + 5 + 5); // num_units_in_decoding_tick, two sizes
    }
  }
  const hasInitialDisplayDelay = bits.flag();
  const operatingPointCount = bits.bits(5) + 1;
  let first = { levelIdx: 0, tier: 0 };
  for (let i = 0; i < operatingPointCount; i++) {
    bits.skip(12); // operating_point_idc
    const levelIdx = bits.bits(5);
    const tier = levelIdx > 7 ? bits.bit() : 0;
    if (i === 0) first = { levelIdx, tier };
    if (hasDecoderModel && bits.flag()) bits.skip(2 * delaySizeBits + 1);
    if (hasInitialDisplayDelay && bits.flag()) bits.skip(4);
  }
  return first;
}

/** Source: section 5.5.2. */
function readColourConfig(bits: BitReader, profile: number) {
  const isHighBitDepth = bits.flag();
  const bitDepth = isHighBitDepth ? (profile === 2 && bits.flag() ? 12 : 10) : 8;
  const isMonochrome = profile !== 1 && bits.flag();
  let colourPrimaries = 2;
  let transferCharacteristics = 2;
  let matrixCoefficients = 2;
  if (bits.flag()) {
    colourPrimaries = bits.bits(8);
    transferCharacteristics = bits.bits(8);
    matrixCoefficients = bits.bits(8);
  }
  const colour = { bitDepth, isMonochrome, colourPrimaries, transferCharacteristics, matrixCoefficients };
  if (isMonochrome) {
    const isFullRange = bits.flag();
    return { ...colour, isFullRange, subsamplingX: 1, subsamplingY: 1, chromaSamplePosition: 0 };
  }
  const isSrgb =
    colourPrimaries === 1 && transferCharacteristics === 13 && matrixCoefficients === IDENTITY_MATRIX;
  if (isSrgb) {
    return { ...colour, isFullRange: true, subsamplingX: 0, subsamplingY: 0, chromaSamplePosition: 0 };
  }
  const isFullRange = bits.flag();
  let subsamplingX = profile === 1 ? 0 : 1;
  let subsamplingY = profile === 0 ? 1 : 0;
  if (profile === 2 && bitDepth === 12) {
    subsamplingX = bits.bit();
    subsamplingY = subsamplingX === 1 ? bits.bit() : 0;
  }
  const chromaSamplePosition = subsamplingX === 1 && subsamplingY === 1 ? bits.bits(2) : 0;
  return { ...colour, isFullRange, subsamplingX, subsamplingY, chromaSamplePosition };
}

/**
 * The codec string; the fields after the bit depth are left out where they say nothing of interest.
 * Source: AV1-ISOBMFF section 5.
 */
function av1CodecString(sequence: SequenceHeader): string {
  const two = (value: number) => String(value).padStart(2, '0');
  const level = `${two(sequence.levelIdx)}${sequence.tier === 0 ? 'M' : 'H'}`;
  const short = `av01.${sequence.profile}.${level}.${two(sequence.bitDepth)}`;
  const colours = [
    sequence.colourPrimaries,
    sequence.transferCharacteristics,
    sequence.matrixCoefficients,
  ] as const;
  const isOrdinary =
    !sequence.isMonochrome &&
    sequence.subsamplingX === 1 &&
    sequence.subsamplingY === 1 &&
    !sequence.isFullRange &&
    colours.every((colour) => ORDINARY_COLOURS.includes(colour));
  if (isOrdinary) return short;
  const subsampling = `${sequence.subsamplingX}${sequence.subsamplingY}${sequence.chromaSamplePosition}`;
  const mono = Number(sequence.isMonochrome);
  return `${short}.${mono}.${subsampling}.${colours.map(two).join('.')}.${Number(sequence.isFullRange)}`;
}
