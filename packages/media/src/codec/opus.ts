/**
 * Opus: the ID header and the length of packets.
 * Sources: RFC 7845 section 5.1 (ID header); RFC 6716 section 3 (packets).
 */
import type { AudioTrack } from '../access-unit.ts';
import { ByteReader, ByteWriter } from '../bytes.ts';
import { MediaError } from '../error.ts';

/** Opus always counts samples of 48 kHz, whatever the encoder was fed (RFC 7845, section 4). */
const OPUS_SAMPLE_RATE_HZ = 48_000;
const MAGIC = 'OpusHead';
/** Frame sizes in samples of the 32 configurations in a packet's first byte (RFC 6716, table 2). */
const FRAME_SAMPLES = [
  ...[480, 960, 1920, 2880, 480, 960, 1920, 2880, 480, 960, 1920, 2880], // SILK
  ...[480, 960, 480, 960], // hybrid
  ...[120, 240, 480, 960, 120, 240, 480, 960, 120, 240, 480, 960, 120, 240, 480, 960], // CELT
];
const USUAL_PACKET_SAMPLES = 960;

/** The fields of an ID header, and of the box `dOps`, which has them in the other byte order. */
export interface OpusIdHeader {
  readonly channelCount: number;
  readonly preSkipSamples: number;
  readonly inputSampleRateHz: number;
  /** Q7.8 decibels. */
  readonly outputGain: number;
  readonly channelMappingFamily: number;
  /** Stream count, coupled count and mapping; empty for family 0. */
  readonly channelMapping: Uint8Array;
}

/**
 * Makes the track that an ID header describes.
 * @param idHeader empty where the sender gives none: then stereo, which decodes mono too (Enhanced RTMP v2)
 * @throws MediaError OPUS_BAD_CONFIG
 */
export function opusTrack(idHeader: Uint8Array): AudioTrack {
  const header = idHeader.length === 0 ? DEFAULT_ID_HEADER : parseOpusIdHeader(idHeader);
  return {
    kind: 'audio',
    trackId: 0,
    language: undefined,
    codec: 'opus',
    config: serialiseOpusIdHeader(header),
    codecString: 'Opus',
    sampleRateHz: OPUS_SAMPLE_RATE_HZ,
    channelCount: header.channelCount,
  };
}

const DEFAULT_ID_HEADER: OpusIdHeader = {
  channelCount: 2,
  preSkipSamples: 0,
  inputSampleRateHz: OPUS_SAMPLE_RATE_HZ,
  outputGain: 0,
  channelMappingFamily: 0,
  channelMapping: new Uint8Array(0),
};

/** @throws MediaError OPUS_BAD_CONFIG */
export function parseOpusIdHeader(idHeader: Uint8Array): OpusIdHeader {
  const magic = String.fromCharCode(...idHeader.subarray(0, MAGIC.length));
  const version = idHeader[MAGIC.length] ?? 0;
  // The upper four bits are the major version.
  if (magic !== MAGIC || version > 15) {
    throw new MediaError('OPUS_BAD_CONFIG', `it begins with ${JSON.stringify(magic)}, version ${version}`);
  }
  const reader = new ByteReader(idHeader);
  const u16 = () => reader.u8() + reader.u8() * 256;
  try {
    reader.skip(MAGIC.length + 1);
    const channelCount = reader.u8();
    const preSkipSamples = u16();
    const inputSampleRateHz = u16() + u16() * 65_536;
    const outputGain = u16();
    const channelMappingFamily = reader.u8();
    const channelMapping = reader.take(channelMappingFamily === 0 ? 0 : 2 + channelCount);
    if (channelCount < 1 || (channelMappingFamily === 0 && channelCount > 2)) {
      throw new MediaError(
        'OPUS_BAD_CONFIG',
        `${channelCount} channels in channel mapping family ${channelMappingFamily}`,
      );
    }
    return {
      channelCount,
      preSkipSamples,
      inputSampleRateHz,
      outputGain,
      channelMappingFamily,
      channelMapping,
    };
  } catch (error) {
    if (error instanceof MediaError && error.code === 'BYTES_TRUNCATED') {
      throw new MediaError('OPUS_BAD_CONFIG', 'it ends too early', { cause: error });
    }
    throw error;
  }
}

export function serialiseOpusIdHeader(header: OpusIdHeader): Uint8Array {
  const writer = new ByteWriter(19 + header.channelMapping.length).ascii(MAGIC).u8(1).u8(header.channelCount);
  const u16 = (value: number) => writer.u8(value & 0xff).u8(value >> 8);
  u16(header.preSkipSamples);
  u16(header.inputSampleRateHz % 65_536);
  u16(Math.floor(header.inputSampleRateHz / 65_536));
  u16(header.outputGain);
  return writer.u8(header.channelMappingFamily).bytes(header.channelMapping).finish();
}

/**
 * Samples of 48 kHz in a packet, by its first byte or two.
 * Source: RFC 6716 sections 3.1 and 3.2.
 */
export function opusPacketSamples(packet: Uint8Array): number {
  const [toc, frameCountByte = 0] = packet;
  if (toc === undefined) return USUAL_PACKET_SAMPLES;
  const frameSamples = FRAME_SAMPLES[toc >> 3] ?? USUAL_PACKET_SAMPLES;
  const code = toc & 0x03;
  const frameCount = code === 0 ? 1 : code < 3 ? 2 : frameCountByte & 0x3f;
  // A count of 0 is not allowed, but a unit must last.
  return frameSamples * Math.max(frameCount, 1);
}
