/**
 * H.264: the AVCDecoderConfigurationRecord and the sequence parameter set inside it.
 * Sources: ISO/IEC 14496-15 section 5.3.3.1; ISO/IEC 14496-10 sections 7.3.2.1.1 and E.1.1.
 */
import type { VideoTrack } from '../access-unit.ts';
import { ByteReader } from '../bytes.ts';
import { MediaError } from '../error.ts';
import { BitReader, withoutEmulationPrevention } from './bit-reader.ts';

/** What the AVCDecoderConfigurationRecord holds. Byte arrays are views. */
export interface AvcConfig {
  readonly profileIdc: number;
  /** The byte of constraint flags between profile and level. */
  readonly profileCompatibility: number;
  readonly levelIdc: number;
  /** Size of the length before each NAL unit of an access unit: 1, 2 or 4. */
  readonly nalLengthSizeBytes: number;
  readonly sequenceParameterSets: readonly Uint8Array[];
  readonly pictureParameterSets: readonly Uint8Array[];
}

/** What a sequence parameter set says about the picture. */
export interface AvcSequenceParameterSet {
  /** After cropping. */
  readonly widthPx: number;
  readonly heightPx: number;
  /** False where the pictures may be fields (interlaced video). */
  readonly isProgressive: boolean;
  /** Frames per second as a fraction, where the VUI declares a fixed frame rate. */
  readonly frameRate: { readonly numerator: number; readonly denominator: number } | undefined;
}

/** Far above level 6.2 (8192 x 4320), so that later arithmetic stays small. */
const MAX_DIMENSION_PX = 16_384;

/** Profiles whose parameter sets carry the chroma format and scaling matrices (7.3.2.1.1). */
const PROFILES_WITH_CHROMA_FORMAT = new Set([100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135]);

/** aspect_ratio_idc that announces an explicit ratio (table E-1). */
const EXTENDED_SAR = 255;

/** Width and height of a chroma sample in luma samples, by chroma_format_idc (table 6-1). */
const CHROMA_SAMPLE_SIZE = [
  { width: 1, height: 1 },
  { width: 2, height: 2 },
  { width: 2, height: 1 },
  { width: 1, height: 1 },
] as const;

/**
 * Makes the track that an AVCDecoderConfigurationRecord describes.
 *
 * @param frameDurationTicks ticks of 1/90000 s per frame, where the sender promises a constant frame
 *   rate. The VUI is not believed for this: encoders write it and then drop frames.
 * @throws MediaError AVC_BAD_CONFIG
 */
export function avcTrack(config: Uint8Array, frameDurationTicks?: number): VideoTrack {
  const { profileIdc, profileCompatibility, levelIdc, sequenceParameterSets } = parseAvcConfig(config);
  const [sps] = sequenceParameterSets;
  if (sps === undefined) throw new MediaError('AVC_BAD_CONFIG', 'it has no sequence parameter set');
  const { widthPx, heightPx } = parseAvcSps(sps);
  const hex = (byte: number) => byte.toString(16).padStart(2, '0');
  return {
    kind: 'video',
    trackId: 0,
    codec: 'avc',
    config,
    codecString: `avc1.${hex(profileIdc)}${hex(profileCompatibility)}${hex(levelIdc)}`,
    widthPx,
    heightPx,
    frameDurationTicks,
  };
}

/**
 * Reads an AVCDecoderConfigurationRecord. The chroma extension that may follow is not needed: the
 * parameter sets say the same.
 * Source: ISO/IEC 14496-15 section 5.3.3.1.2.
 * @throws MediaError AVC_BAD_CONFIG
 */
export function parseAvcConfig(config: Uint8Array): AvcConfig {
  const reader = new ByteReader(config);
  try {
    const version = reader.u8();
    if (version !== 1) throw new MediaError('AVC_BAD_CONFIG', `version ${version}, expected 1`);
    const profileIdc = reader.u8();
    const profileCompatibility = reader.u8();
    const levelIdc = reader.u8();
    const nalLengthSizeBytes = (reader.u8() & 0x03) + 1;
    if (nalLengthSizeBytes === 3) throw new MediaError('AVC_BAD_CONFIG', 'NAL unit lengths of 3 bytes');
    const takeSets = (count: number) => Array.from({ length: count }, () => reader.take(reader.u16()));
    return {
      profileIdc,
      profileCompatibility,
      levelIdc,
      nalLengthSizeBytes,
      sequenceParameterSets: takeSets(reader.u8() & 0x1f),
      pictureParameterSets: takeSets(reader.u8()),
    };
  } catch (error) {
    if (error instanceof MediaError && error.code === 'BYTES_TRUNCATED') {
      throw new MediaError('AVC_BAD_CONFIG', 'it ends too early', {
        byteOffset: reader.offset,
        cause: error,
      });
    }
    throw error;
  }
}

/**
 * Reads a sequence parameter set, from its NAL unit header up to the timing in the VUI.
 * Source: ISO/IEC 14496-10 sections 7.3.2.1.1 and E.1.1.
 * @throws MediaError AVC_BAD_CONFIG
 */
export function parseAvcSps(nalUnit: Uint8Array): AvcSequenceParameterSet {
  const bits = new BitReader(withoutEmulationPrevention(nalUnit), 'AVC_BAD_CONFIG');
  const nalUnitType = bits.bits(8) & 0x1f;
  if (nalUnitType !== 7) throw new MediaError('AVC_BAD_CONFIG', `NAL unit type ${nalUnitType}, expected 7`);
  const profileIdc = bits.bits(8);
  bits.skip(16); // constraint flags, level_idc
  bits.unsignedExpGolomb(); // seq_parameter_set_id

  let chromaFormatIdc = 1;
  let hasSeparateColourPlanes = false;
  if (PROFILES_WITH_CHROMA_FORMAT.has(profileIdc)) {
    chromaFormatIdc = bits.unsignedExpGolomb();
    if (chromaFormatIdc === 3) hasSeparateColourPlanes = bits.flag();
    bits.unsignedExpGolomb(); // bit_depth_luma_minus8
    bits.unsignedExpGolomb(); // bit_depth_chroma_minus8
    bits.skip(1); // qpprime_y_zero_transform_bypass_flag
    if (bits.flag()) skipScalingMatrix(bits, chromaFormatIdc);
  }
  const chromaSample = CHROMA_SAMPLE_SIZE[chromaFormatIdc];
  if (chromaSample === undefined) {
    throw new MediaError('AVC_BAD_CONFIG', `chroma_format_idc ${chromaFormatIdc}, allowed 0..3`);
  }

  bits.unsignedExpGolomb(); // log2_max_frame_num_minus4
  skipPictureOrderCount(bits);
  bits.unsignedExpGolomb(); // max_num_ref_frames
  bits.skip(1); // gaps_in_frame_num_value_allowed_flag
  const widthInMacroblocks = bits.unsignedExpGolomb() + 1;
  const heightInMapUnits = bits.unsignedExpGolomb() + 1;
  const isProgressive = bits.flag(); // frame_mbs_only_flag
  if (!isProgressive) bits.skip(1); // mb_adaptive_frame_field_flag
  bits.skip(1); // direct_8x8_inference_flag

  // A map unit is a pair of macroblocks where the pictures may be fields.
  const fieldFactor = isProgressive ? 1 : 2;
  const unit = hasSeparateColourPlanes ? { width: 1, height: 1 } : chromaSample;
  let widthPx = widthInMacroblocks * 16;
  let heightPx = heightInMapUnits * 16 * fieldFactor;
  if (bits.flag()) {
    const [left, right] = [bits.unsignedExpGolomb(), bits.unsignedExpGolomb()];
    const [top, bottom] = [bits.unsignedExpGolomb(), bits.unsignedExpGolomb()];
    widthPx -= (left + right) * unit.width;
    heightPx -= (top + bottom) * unit.height * fieldFactor;
  }
  if (widthPx < 1 || heightPx < 1 || widthPx > MAX_DIMENSION_PX || heightPx > MAX_DIMENSION_PX) {
    throw new MediaError(
      'AVC_BAD_CONFIG',
      `picture of ${widthPx} x ${heightPx}, allowed 1..${MAX_DIMENSION_PX}`,
    );
  }
  const hasVui = bits.flag();
  return { widthPx, heightPx, isProgressive, frameRate: hasVui ? parseVuiFrameRate(bits) : undefined };
}

function skipScalingMatrix(bits: BitReader, chromaFormatIdc: number): void {
  const listCount = chromaFormatIdc === 3 ? 12 : 8;
  for (let list = 0; list < listCount; list++) {
    if (!bits.flag()) continue;
    const size = list < 6 ? 16 : 64;
    let lastScale = 8;
    let nextScale = 8;
    for (let i = 0; i < size && nextScale !== 0; i++) {
      nextScale = (lastScale + bits.signedExpGolomb() + 256) % 256;
      if (nextScale !== 0) lastScale = nextScale;
    }
  }
}

function skipPictureOrderCount(bits: BitReader): void {
  const type = bits.unsignedExpGolomb();
  if (type === 0) {
    bits.unsignedExpGolomb(); // log2_max_pic_order_cnt_lsb_minus4
  } else if (type === 1) {
    bits.skip(1); // delta_pic_order_always_zero_flag
    bits.signedExpGolomb(); // offset_for_non_ref_pic
    bits.signedExpGolomb(); // offset_for_top_to_bottom_field
    const count = bits.unsignedExpGolomb();
    if (count > 255)
      throw new MediaError('AVC_BAD_CONFIG', `${count} reference frames in a cycle, at most 255`);
    for (let i = 0; i < count; i++) bits.signedExpGolomb(); // offset_for_ref_frame
  }
}

/** Reads the VUI up to its timing. Source: E.1.1; two ticks make one frame (E.2.1). */
function parseVuiFrameRate(bits: BitReader): AvcSequenceParameterSet['frameRate'] {
  if (bits.flag() && bits.bits(8) === EXTENDED_SAR) bits.skip(32); // sar_width, sar_height
  if (bits.flag()) bits.skip(1); // overscan_appropriate_flag
  if (bits.flag()) {
    bits.skip(4); // video_format, video_full_range_flag
    if (bits.flag()) bits.skip(24); // colour_primaries, transfer_characteristics, matrix_coefficients
  }
  if (bits.flag()) {
    bits.unsignedExpGolomb(); // chroma_sample_loc_type_top_field
    bits.unsignedExpGolomb(); // chroma_sample_loc_type_bottom_field
  }
  if (!bits.flag()) return undefined;
  const unitsInTick = bits.bits(32);
  const timescaleHz = bits.bits(32);
  const isFixed = bits.flag();
  if (!isFixed || unitsInTick === 0 || timescaleHz === 0) return undefined;
  return { numerator: timescaleHz, denominator: unitsInTick * 2 };
}
