/**
 * VP9: the VPCodecConfigurationRecord and the header of key frames.
 * Sources: "VP Codec ISO Media File Format Binding" 1.0; "VP9 Bitstream & Decoding Process Specification"
 * section 6.2 (uncompressed header).
 */
import type { VideoTrack } from '../access-unit.ts';
import { MediaError } from '../error.ts';
import { BitReader } from './bit-reader.ts';

/** What a key frame says of the size of the pictures. */
export interface Vp9PictureSize {
  readonly widthPx: number;
  readonly heightPx: number;
}

const RECORD_SIZE_BYTES = 8;
const FULL_BOX_HEADER_SIZE_BYTES = 4;
const FRAME_MARKER = 2;
const SYNC_CODE = 0x49_83_42;
const RGB_COLOUR_SPACE = 7;
const ORDINARY_COLOURS = [1, 2];

/**
 * Makes the track that a VPCodecConfigurationRecord describes.
 *
 * @param record with or without version and flags of the box `vpcC`; senders do both
 * @param size which the record does not say: see `vp9KeyFrameSize`
 * @param frameDurationTicks ticks of 1/90000 s per frame, where the sender promises a constant frame rate
 * @throws MediaError VP9_BAD_CONFIG
 */
export function vp9Track(record: Uint8Array, size: Vp9PictureSize, frameDurationTicks?: number): VideoTrack {
  const config = record.slice(hasBoxHeader(record) ? FULL_BOX_HEADER_SIZE_BYTES : 0);
  const bits = new BitReader(config, 'VP9_BAD_CONFIG');
  const profile = bits.bits(8);
  const level = bits.bits(8);
  const bitDepth = bits.bits(4);
  const chromaSubsampling = bits.bits(3);
  const isFullRange = bits.flag();
  const colours = [bits.bits(8), bits.bits(8), bits.bits(8)];
  if (profile > 3 || ![8, 10, 12].includes(bitDepth)) {
    throw new MediaError(
      'VP9_BAD_CONFIG',
      `profile ${profile}, ${bitDepth} bits; allowed 0..3 and 8, 10, 12`,
    );
  }
  const two = (value: number) => String(value).padStart(2, '0');
  const short = `vp09.${two(profile)}.${two(level)}.${two(bitDepth)}`;
  const isOrdinary =
    chromaSubsampling < 2 && !isFullRange && colours.every((colour) => ORDINARY_COLOURS.includes(colour));
  const codecString = isOrdinary
    ? short
    : `${short}.${two(chromaSubsampling)}.${colours.map(two).join('.')}.${two(Number(isFullRange))}`;
  const { widthPx, heightPx } = size;
  return {
    kind: 'video',
    trackId: 0,
    codec: 'vp9',
    config,
    codecString,
    widthPx,
    heightPx,
    frameDurationTicks,
  };
}

/** As the content of a box, the record follows version 1 and flags 0; read as a record that has 0 bits of depth. */
function hasBoxHeader(record: Uint8Array): boolean {
  const isVersion1 = record[0] === 1 && record[1] === 0 && record[2] === 0 && record[3] === 0;
  return isVersion1 && record.length >= FULL_BOX_HEADER_SIZE_BYTES + RECORD_SIZE_BYTES;
}

/**
 * Reads the header of a frame, or of the first in a superframe.
 * @returns the size of the pictures where it is a key frame, undefined where it is not
 * @throws MediaError VP9_BAD_CONFIG
 */
export function vp9KeyFrameSize(frame: Uint8Array): Vp9PictureSize | undefined {
  const bits = new BitReader(frame, 'VP9_BAD_CONFIG');
  const marker = bits.bits(2);
  if (marker !== FRAME_MARKER) throw new MediaError('VP9_BAD_CONFIG', `frame marker ${marker}`);
  const profile = bits.bit() + bits.bit() * 2;
  if (profile === 3) bits.skip(1); // reserved_zero
  if (bits.flag()) return undefined; // show_existing_frame
  const isKeyFrame = !bits.flag();
  bits.skip(2); // show_frame, error_resilient_mode
  if (!isKeyFrame) return undefined;
  const syncCode = bits.bits(24);
  if (syncCode !== SYNC_CODE) throw new MediaError('VP9_BAD_CONFIG', `sync code ${syncCode.toString(16)}`);
  if (profile >= 2) bits.skip(1); // ten_or_twelve_bit
  const isRgb = bits.bits(3) === RGB_COLOUR_SPACE;
  if (!isRgb) bits.skip(1); // color_range
  // Profiles 1 and 3: subsampling_x, subsampling_y unless RGB, reserved_zero
  if (profile === 1 || profile === 3) bits.skip(isRgb ? 1 : 3);
  return { widthPx: bits.bits(16) + 1, heightPx: bits.bits(16) + 1 };
}
