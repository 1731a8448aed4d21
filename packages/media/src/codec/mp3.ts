/**
 * MP3: the frame header.
 * Sources: ISO/IEC 11172-3 section 2.4.2.3; ISO/IEC 13818-3 section 2.4.2.3 (the lower sample rates).
 */
import type { AudioTrack } from '../access-unit.ts';
import { MediaError } from '../error.ts';

const LAYER_3 = 1;
const MONO = 3;
/** By version: 0 is MPEG-2.5 (an extension that no standard defines), 2 is MPEG-2, 3 is MPEG-1. */
const SAMPLE_RATES_HZ: readonly (readonly number[] | undefined)[] = [
  [11_025, 12_000, 8_000],
  undefined,
  [22_050, 24_000, 16_000],
  [44_100, 48_000, 32_000],
];
const MPEG_1 = 3;

/**
 * Makes the track that a frame belongs to. Its configuration is the frame's header with all cleared that may
 * change from frame to frame.
 * @param frame or a configuration
 * @throws MediaError MP3_BAD_FRAME
 */
export function mp3Track(frame: Uint8Array): AudioTrack {
  const [sync = 0, first = 0, second = 0, third = 0] = frame;
  const version = (first >> 3) & 0x03;
  const layer = (first >> 1) & 0x03;
  const sampleRateHz = SAMPLE_RATES_HZ[version]?.[(second >> 2) & 0x03];
  const isMono = third >> 6 === MONO;
  if (
    frame.length < 4 ||
    sync !== 0xff ||
    first >> 5 !== 7 ||
    layer !== LAYER_3 ||
    sampleRateHz === undefined
  ) {
    throw new MediaError(
      'MP3_BAD_FRAME',
      `${frame.length} bytes that begin with ${[sync, first, second, third]}; expected the header of a layer III frame`,
    );
  }
  return {
    kind: 'audio',
    trackId: 0,
    language: undefined,
    codec: 'mp3',
    config: Uint8Array.of(0xff, first | 0x01, second & 0x0c, isMono ? 0xc0 : 0),
    // Object types of MPEG-1 and MPEG-2 audio (ISO/IEC 14496-1, table 5).
    codecString: version === MPEG_1 ? 'mp4a.6b' : 'mp4a.69',
    sampleRateHz,
    channelCount: isMono ? 1 : 2,
  };
}

/**
 * Makes the track of a sample rate, which alone tells the version of MPEG.
 * @throws MediaError MP3_BAD_FRAME
 */
export function mp3TrackOf(sampleRateHz: number, channelCount: number): AudioTrack {
  for (const [version, rates] of SAMPLE_RATES_HZ.entries()) {
    const index = rates?.indexOf(sampleRateHz) ?? -1;
    if (index < 0) continue;
    const mode = channelCount === 1 ? MONO : 0;
    return mp3Track(Uint8Array.of(0xff, 0xe1 | (version << 3) | (LAYER_3 << 1), index << 2, mode << 6));
  }
  throw new MediaError('MP3_BAD_FRAME', `a sample rate of ${sampleRateHz} Hz`);
}

/** Samples in each frame of a track: two granules in MPEG-1, one in the others. */
export function mp3SamplesPerUnit(config: Uint8Array): number {
  return (((config[1] ?? 0) >> 3) & 0x03) === MPEG_1 ? 1152 : 576;
}
