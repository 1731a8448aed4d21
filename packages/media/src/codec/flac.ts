/**
 * FLAC: the STREAMINFO block and the length of frames.
 * Source: RFC 9639 sections 8.1, 8.2 (metadata) and 9.1 (frame header).
 */
import type { AudioTrack } from '../access-unit.ts';
import { ByteReader, concatBytes } from '../bytes.ts';
import { MediaError } from '../error.ts';

const MAGIC = Uint8Array.of(0x66, 0x4c, 0x61, 0x43); // "fLaC"
const STREAMINFO_SIZE_BYTES = 34;
/** The only metadata block: the last one, of type STREAMINFO, 34 bytes. */
const BLOCK_HEADER = Uint8Array.of(0x80, 0, 0, STREAMINFO_SIZE_BYTES);
const CONFIG_HEADER_SIZE_BYTES = MAGIC.length + BLOCK_HEADER.length;

/**
 * Makes the track that a FLAC stream's beginning describes.
 * @param header `fLaC` and metadata blocks, of which STREAMINFO is the first; the others are left out
 * @throws MediaError FLAC_BAD_CONFIG
 */
export function flacTrack(header: Uint8Array): AudioTrack {
  const reader = new ByteReader(header);
  if (header.length < CONFIG_HEADER_SIZE_BYTES + STREAMINFO_SIZE_BYTES) {
    throw new MediaError('FLAC_BAD_CONFIG', `${header.length} bytes, 42 are needed`);
  }
  const hasMagic = MAGIC.every((byte) => reader.u8() === byte);
  const blockType = reader.u8() & 0x7f;
  const sizeBytes = reader.u24();
  if (!hasMagic || blockType !== 0 || sizeBytes !== STREAMINFO_SIZE_BYTES) {
    throw new MediaError(
      'FLAC_BAD_CONFIG',
      `block type ${blockType}, ${sizeBytes} bytes; expected fLaC and a STREAMINFO of ${STREAMINFO_SIZE_BYTES}`,
    );
  }
  const config = concatBytes([MAGIC, BLOCK_HEADER, reader.take(STREAMINFO_SIZE_BYTES)]);
  const { sampleRateHz, channelCount, maxBlockSamples } = parseFlacStreamInfo(config);
  if (sampleRateHz === 0 || maxBlockSamples < 16) {
    throw new MediaError('FLAC_BAD_CONFIG', `${sampleRateHz} Hz, blocks of ${maxBlockSamples} samples`);
  }
  return {
    kind: 'audio',
    trackId: 0,
    language: undefined,
    codec: 'flac',
    config,
    codecString: 'fLaC',
    sampleRateHz,
    channelCount,
  };
}

/** Reads the STREAMINFO of a track's configuration. */
export function parseFlacStreamInfo(config: Uint8Array): {
  readonly maxBlockSamples: number;
  readonly sampleRateHz: number;
  readonly channelCount: number;
  readonly bitsPerSample: number;
  /** The metadata block with its header, as the box `dfLa` holds it. */
  readonly block: Uint8Array;
} {
  const reader = new ByteReader(config);
  reader.skip(CONFIG_HEADER_SIZE_BYTES + 2); // minimum block size
  const maxBlockSamples = reader.u16();
  reader.skip(6); // minimum and maximum frame size
  const packed = reader.u32();
  return {
    maxBlockSamples,
    sampleRateHz: packed >>> 12,
    channelCount: ((packed >> 9) & 0x07) + 1,
    bitsPerSample: ((packed >> 4) & 0x1f) + 1,
    block: config.subarray(MAGIC.length),
  };
}

/** The track's configuration for the metadata blocks of a box `dfLa`. */
export function flacHeaderOf(blocks: Uint8Array): Uint8Array {
  return concatBytes([MAGIC, blocks]);
}

/**
 * Samples in a frame, by its header.
 * Source: RFC 9639 section 9.1.1 (block size), 9.1.5 (coded number), 9.1.6 (uncommon block size).
 * @returns undefined where the header is malformed
 */
export function flacFrameSamples(frame: Uint8Array): number | undefined {
  if (frame[0] !== 0xff || ((frame[1] ?? 0) & 0xfe) !== 0xf8) return undefined;
  const code = (frame[2] ?? 0) >> 4;
  if (code === 0) return undefined;
  if (code === 1) return 192;
  if (code <= 5) return 144 * 2 ** code;
  if (code >= 8) return 2 ** code;
  // The block size follows the coded number, whose length its leading ones tell, as in UTF-8.
  const leadingOnes = Math.clz32(~((frame[4] ?? 0) << 24));
  const at = 4 + Math.max(leadingOnes, 1);
  const high = frame[at];
  const low = frame[at + 1];
  if (high === undefined) return undefined;
  if (code === 6) return high + 1;
  return low === undefined ? undefined : high * 256 + low + 1;
}
