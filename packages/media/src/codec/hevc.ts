/**
 * HEVC: the HEVCDecoderConfigurationRecord and the sequence parameter set inside it.
 * Sources: ISO/IEC 14496-15 sections 8.3.3.1 and E.3; ISO/IEC 23008-2 (H.265) section 7.3.
 */
import type { VideoTrack } from '../access-unit.ts';
import { ByteReader } from '../bytes.ts';
import { MediaError } from '../error.ts';
import { BitReader, withoutEmulationPrevention } from './bit-reader.ts';

/** NAL unit types (H.265, table 7-1). */
const NAL_TYPE = { firstIrap: 16, lastIrap: 21, vps: 32, sps: 33, pps: 34 } as const;

const ARRAY_COMPLETENESS_BIT = 0x80;
const GENERAL_PROFILE_SIZE_BITS = 88;

/** The largest side of level 6.2 is 8444 (H.265, A.4.1); later arithmetic stays small. */
const MAX_DIMENSION_PX = 16_384;

/** SubWidthC and SubHeightC by chroma_format_idc (H.265, table 6-1). */
const CHROMA_SAMPLE_SIZE = [
  { width: 1, height: 1 },
  { width: 2, height: 2 },
  { width: 2, height: 1 },
  { width: 1, height: 1 },
] as const;

/**
 * Makes the track that an HEVCDecoderConfigurationRecord describes.
 *
 * The track's configuration calls its arrays of parameter sets complete, as a sample entry `hvc1` must
 * (14496-15, 8.4.1.1.1); FFmpeg's FLV muxer does not.
 *
 * @param frameDurationTicks ticks of 1/90000 s per frame, where the sender promises a constant frame rate
 * @throws MediaError HEVC_BAD_CONFIG
 */
export function hevcTrack(record: Uint8Array, frameDurationTicks?: number): VideoTrack {
  const config = record.slice();
  const reader = new ByteReader(config);
  try {
    // FFmpeg before 6.1 and some encoders write version 0, the value of the specification's drafts.
    const version = reader.u8();
    if (version > 1) throw new MediaError('HEVC_BAD_CONFIG', `version ${version}, expected 1`);
    const profileTierLevel = reader.take(12);
    reader.skip(8); // segmentation, parallelism, chroma format, bit depths, average frame rate
    const nalLengthSizeBytes = (reader.u8() & 0x03) + 1;
    if (nalLengthSizeBytes === 3) throw new MediaError('HEVC_BAD_CONFIG', 'NAL unit lengths of 3 bytes');
    let size: ReturnType<typeof parseHevcSps> | undefined;
    const arrayCount = reader.u8();
    for (let i = 0; i < arrayCount; i++) {
      const at = reader.offset;
      const typeByte = reader.u8();
      const type = typeByte & 0x3f;
      if (type >= NAL_TYPE.vps && type <= NAL_TYPE.pps) config[at] = typeByte | ARRAY_COMPLETENESS_BIT;
      for (let unitsLeft = reader.u16(); unitsLeft > 0; unitsLeft--) {
        const nalUnit = reader.take(reader.u16());
        if (type === NAL_TYPE.sps) size ??= parseHevcSps(nalUnit);
      }
    }
    if (size === undefined) throw new MediaError('HEVC_BAD_CONFIG', 'it has no sequence parameter set');
    const codecString = hevcCodecString(profileTierLevel);
    return { kind: 'video', trackId: 0, codec: 'hevc', config, codecString, ...size, frameDurationTicks };
  } catch (error) {
    if (error instanceof MediaError && error.code === 'BYTES_TRUNCATED') {
      throw new MediaError('HEVC_BAD_CONFIG', 'it ends too early', {
        byteOffset: reader.offset,
        cause: error,
      });
    }
    throw error;
  }
}

/**
 * The codec string: profile, compatibility, tier and level, constraints.
 * Source: ISO/IEC 14496-15 section E.3.
 * @param profileTierLevel the 12 bytes from general_profile_space to general_level_idc
 */
function hevcCodecString(profileTierLevel: Uint8Array): string {
  const reader = new ByteReader(profileTierLevel);
  const first = reader.u8();
  const profileSpace = ['', 'A', 'B', 'C'][first >> 6];
  const tier = (first & 0x20) === 0 ? 'L' : 'H';
  const profileIdc = first & 0x1f;
  let compatibilityFlags = reader.u32();
  let reversedFlags = 0;
  for (let bit = 0; bit < 32; bit++) {
    reversedFlags = reversedFlags * 2 + (compatibilityFlags & 1);
    compatibilityFlags >>>= 1;
  }
  const constraintBytes = reader.take(6);
  const levelIdc = reader.u8();
  const lastConstraint = constraintBytes.findLastIndex((byte) => byte !== 0);
  const constraints = Array.from(
    constraintBytes.subarray(0, lastConstraint + 1),
    (byte) => `.${byte.toString(16).toUpperCase()}`,
  );
  const compatibility = reversedFlags.toString(16).toUpperCase();
  return `hvc1.${profileSpace}${profileIdc}.${compatibility}.${tier}${levelIdc}${constraints.join('')}`;
}

/**
 * Reads a sequence parameter set, from its NAL unit header to the conformance window.
 * Source: ISO/IEC 23008-2 sections 7.3.2.2.1 and 7.3.3.
 * @returns the size of the picture after cropping
 * @throws MediaError HEVC_BAD_CONFIG
 */
export function parseHevcSps(nalUnit: Uint8Array): { readonly widthPx: number; readonly heightPx: number } {
  const bits = new BitReader(withoutEmulationPrevention(nalUnit), 'HEVC_BAD_CONFIG');
  bits.skip(1); // forbidden_zero_bit
  const nalUnitType = bits.bits(6);
  if (nalUnitType !== NAL_TYPE.sps) {
    throw new MediaError('HEVC_BAD_CONFIG', `NAL unit type ${nalUnitType}, expected ${NAL_TYPE.sps}`);
  }
  bits.skip(9 + 4); // nuh_layer_id, nuh_temporal_id_plus1, sps_video_parameter_set_id
  const subLayerCount = bits.bits(3);
  bits.skip(1); // sps_temporal_id_nesting_flag
  bits.skip(GENERAL_PROFILE_SIZE_BITS + 8); // general profile, general_level_idc
  const present = Array.from({ length: subLayerCount }, () => ({ profile: bits.flag(), level: bits.flag() }));
  if (subLayerCount > 0) bits.skip(2 * (8 - subLayerCount)); // reserved
  for (const { profile, level } of present) {
    bits.skip((profile ? GENERAL_PROFILE_SIZE_BITS : 0) + (level ? 8 : 0));
  }
  bits.unsignedExpGolomb(); // sps_seq_parameter_set_id
  const chromaFormatIdc = bits.unsignedExpGolomb();
  const hasSeparateColourPlanes = chromaFormatIdc === 3 && bits.flag();
  const chroma = CHROMA_SAMPLE_SIZE[hasSeparateColourPlanes ? 0 : chromaFormatIdc];
  if (chroma === undefined) {
    throw new MediaError('HEVC_BAD_CONFIG', `chroma_format_idc ${chromaFormatIdc}, allowed 0..3`);
  }
  let widthPx = bits.unsignedExpGolomb();
  let heightPx = bits.unsignedExpGolomb();
  if (bits.flag()) {
    const [left, right] = [bits.unsignedExpGolomb(), bits.unsignedExpGolomb()];
    const [top, bottom] = [bits.unsignedExpGolomb(), bits.unsignedExpGolomb()];
    widthPx -= (left + right) * chroma.width;
    heightPx -= (top + bottom) * chroma.height;
  }
  if (widthPx < 1 || heightPx < 1 || widthPx > MAX_DIMENSION_PX || heightPx > MAX_DIMENSION_PX) {
    throw new MediaError(
      'HEVC_BAD_CONFIG',
      `picture of ${widthPx} x ${heightPx}, allowed 1..${MAX_DIMENSION_PX}`,
    );
  }
  return { widthPx, heightPx };
}

/**
 * True where a decoder can start: the picture is an IDR, BLA or CRA picture. Encoders with open GOPs do not
 * agree whether the FLV frame type of a CRA picture is "key".
 * Source: ISO/IEC 14496-15 section 8.4.3 (sync samples); ISO/IEC 23008-2 table 7-1.
 */
export function isHevcRandomAccess(config: Uint8Array, data: Uint8Array): boolean {
  const lengthSizeBytes = ((config[21] ?? 3) & 0x03) + 1;
  let at = 0;
  while (at + lengthSizeBytes < data.length) {
    let sizeBytes = 0;
    for (let i = 0; i < lengthSizeBytes; i++) sizeBytes = sizeBytes * 256 + (data[at + i] ?? 0);
    at += lengthSizeBytes;
    const type = ((data[at] ?? 0) >> 1) & 0x3f;
    // Types below 32 are coded slices; all slices of a picture have the same type.
    if (type < NAL_TYPE.vps) return type >= NAL_TYPE.firstIrap && type <= NAL_TYPE.lastIrap;
    at += sizeBytes;
  }
  return false;
}
