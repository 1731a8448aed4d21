/**
 * AAC: the AudioSpecificConfig.
 * Source: ISO/IEC 14496-3 sections 1.6.2.1, 1.6.5 (SBR and PS signalling) and 4.4.1.1.
 */
import type { AudioTrack } from '../access-unit.ts';
import { MediaError } from '../error.ts';
import { BitReader } from './bit-reader.ts';

/** Table 1.18; an index of 15 announces an explicit 24-bit frequency. */
const SAMPLING_FREQUENCIES_HZ = [
  96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350,
];
const EXPLICIT_FREQUENCY = 15;
const MAX_SAMPLE_RATE_HZ = 192_000;

/** Table 1.19: output channels by channelConfiguration; 0 means a program_config_element says. */
const CHANNEL_COUNTS = new Map([
  [1, 1],
  [2, 2],
  [3, 3],
  [4, 4],
  [5, 5],
  [6, 6],
  [7, 8],
  [11, 7],
  [12, 8],
  [14, 8],
]);

/** Audio object types (table 1.17). */
const AAC_MAIN = 1;
const AAC_LC = 2;
const AAC_LTP = 4;
const SBR = 5;
const PS = 29;
const ESCAPE = 31;

/** syncExtensionType values of backward-compatible signalling (1.6.5.2). */
const SBR_SYNC_EXTENSION = 0x2b7;
const PS_SYNC_EXTENSION = 0x548;

/**
 * Makes the track that an AudioSpecificConfig describes.
 *
 * `sampleRateHz` is the rate of the core coder, so that one access unit always lasts 1024 ticks:
 * for HE-AAC that is half of the rate at which the decoder plays. `channelCount` is what comes
 * out of the decoder, so 2 for parametric stereo.
 *
 * @throws MediaError AAC_BAD_CONFIG also for the object types of MPEG-4 audio whose units do not
 *   hold 1024 samples (low delay, 960-sample frames, USAC) and for those that are not AAC
 */
export function aacTrack(config: Uint8Array): AudioTrack {
  const bits = new BitReader(config, 'AAC_BAD_CONFIG');
  let objectType = readObjectType(bits);
  const sampleRateHz = readSamplingFrequency(bits);
  const channelConfiguration = bits.bits(4);
  let hasPs = objectType === PS;
  let hasSbr = hasPs || objectType === SBR;
  const isHierarchical = hasSbr;
  if (isHierarchical) {
    readSamplingFrequency(bits); // the rate after SBR
    objectType = readObjectType(bits);
  }
  if (objectType < AAC_MAIN || objectType > AAC_LTP) {
    throw new MediaError('AAC_BAD_CONFIG', `audio object type ${objectType}, allowed 1..4, 5 and 29`);
  }

  // GASpecificConfig (4.4.1.1)
  if (bits.flag()) throw new MediaError('AAC_BAD_CONFIG', 'units of 960 samples, expected 1024');
  if (bits.flag()) bits.skip(14); // coreCoderDelay
  bits.skip(1); // extensionFlag: nothing follows for these object types
  const channels =
    channelConfiguration === 0 ? readProgramConfigChannels(bits) : CHANNEL_COUNTS.get(channelConfiguration);
  if (channels === undefined || channels === 0) {
    throw new MediaError('AAC_BAD_CONFIG', `channel configuration ${channelConfiguration} is reserved`);
  }

  if (!isHierarchical && bits.remainingBits >= 16 && bits.bits(11) === SBR_SYNC_EXTENSION) {
    if (readObjectType(bits) === SBR && bits.flag()) {
      hasSbr = true;
      readSamplingFrequency(bits);
      if (bits.remainingBits >= 12 && bits.bits(11) === PS_SYNC_EXTENSION) hasPs = bits.flag();
    }
  }
  return {
    kind: 'audio',
    trackId: 0,
    language: undefined,
    codec: 'aac',
    config,
    codecString: `mp4a.40.${hasPs ? PS : hasSbr ? SBR : objectType}`,
    sampleRateHz,
    channelCount: hasPs && channels === 1 ? 2 : channels,
  };
}

function readObjectType(bits: BitReader): number {
  const objectType = bits.bits(5);
  return objectType === ESCAPE ? 32 + bits.bits(6) : objectType;
}

function readSamplingFrequency(bits: BitReader): number {
  const index = bits.bits(4);
  const frequencyHz = index === EXPLICIT_FREQUENCY ? bits.bits(24) : SAMPLING_FREQUENCIES_HZ[index];
  if (frequencyHz === undefined || frequencyHz < 1 || frequencyHz > MAX_SAMPLE_RATE_HZ) {
    throw new MediaError(
      'AAC_BAD_CONFIG',
      `sampling frequency ${frequencyHz ?? `index ${index}`}, at most ${MAX_SAMPLE_RATE_HZ} Hz`,
    );
  }
  return frequencyHz;
}

/** Counts the channels of a program_config_element (4.4.1.1, table 4.2). */
function readProgramConfigChannels(bits: BitReader): number {
  bits.skip(4 + 2 + 4); // element_instance_tag, object_type, sampling_frequency_index
  const frontCount = bits.bits(4);
  const sideCount = bits.bits(4);
  const backCount = bits.bits(4);
  const lfeCount = bits.bits(2);
  const associatedDataCount = bits.bits(3);
  const couplingCount = bits.bits(4);
  if (bits.flag()) bits.skip(4); // mono_mixdown_element_number
  if (bits.flag()) bits.skip(4); // stereo_mixdown_element_number
  if (bits.flag()) bits.skip(3); // matrix_mixdown_idx, pseudo_surround_enable
  let channelCount = lfeCount;
  for (let i = 0; i < frontCount + sideCount + backCount; i++) {
    channelCount += bits.flag() ? 2 : 1; // is_cpe: a channel pair
    bits.skip(4);
  }
  bits.skip(4 * lfeCount + 4 * associatedDataCount + 5 * couplingCount);
  bits.alignToByte();
  bits.skip(8 * bits.bits(8)); // comment
  return channelCount;
}

/** The 7 bytes that precede each AAC frame outside MP4 and FLV; `undefined` where ADTS cannot express the config. */
/** By channelConfiguration: what FFmpeg 5.1 makes of silence in AAC-LC, whatever the sample rate. */
const SILENT_UNITS = new Map([
  [1, Uint8Array.of(0x01, 0x18, 0x20, 0x07)],
  [2, Uint8Array.of(0x21, 0x10, 0x04, 0x60, 0x8c, 0x1c)],
]);

/** An access unit of silence; undefined but for AAC-LC in mono and stereo. */
export function silentAacUnit(config: Uint8Array): Uint8Array | undefined {
  const bits = new BitReader(config, 'AAC_BAD_CONFIG');
  if (readObjectType(bits) !== AAC_LC) return undefined;
  readSamplingFrequency(bits);
  return SILENT_UNITS.get(bits.bits(4));
}

export type AdtsHeader = (frameSizeBytes: number) => Uint8Array;

const ADTS_HEADER_SIZE_BYTES = 7;
/** aac_frame_length has 13 bits. */
const MAX_ADTS_FRAME_BYTES = 0x1fff;

/**
 * Makes ADTS headers for the frames of an AudioSpecificConfig.
 *
 * ADTS names the sampling frequency by its index and has three bits for the channel configuration,
 * so explicit frequencies, program config elements and 7.1 in its newer layouts do not fit.
 *
 * Source: ISO/IEC 14496-3 section 1.A.2.2.
 * @returns gives the header for a frame of that size, empty where the frame is too long for ADTS; or
 *   undefined when the configuration cannot be expressed
 * @throws MediaError AAC_BAD_CONFIG
 */
export function adtsHeaders(config: Uint8Array): AdtsHeader | undefined {
  const bits = new BitReader(config, 'AAC_BAD_CONFIG');
  let objectType = readObjectType(bits);
  const sampleRateHz = readSamplingFrequency(bits);
  const channelConfiguration = bits.bits(4);
  if (objectType === SBR || objectType === PS) {
    readSamplingFrequency(bits); // the rate after SBR; ADTS signals it implicitly
    objectType = readObjectType(bits);
  }
  const frequencyIndex = SAMPLING_FREQUENCIES_HZ.indexOf(sampleRateHz);
  if (frequencyIndex < 0 || channelConfiguration < 1 || channelConfiguration > 7) return undefined;
  if (objectType < AAC_MAIN || objectType > AAC_LTP) return undefined;
  return (frameSizeBytes) => {
    const sizeBytes = ADTS_HEADER_SIZE_BYTES + frameSizeBytes;
    if (sizeBytes > MAX_ADTS_FRAME_BYTES) return new Uint8Array(0);
    // Stores keep the low 8 bits.
    return Uint8Array.of(
      0xff, // syncword
      0xf1, // its end, MPEG-4, layer 0, no CRC
      ((objectType - 1) << 6) | (frequencyIndex << 2) | (channelConfiguration >> 2),
      (channelConfiguration << 6) | (sizeBytes >> 11),
      sizeBytes >> 3,
      (sizeBytes << 5) | 0x1f, // adts_buffer_fullness 0x7ff: variable rate
      0xfc, // its end; one raw data block
    );
  };
}
