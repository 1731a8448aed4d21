/** How long an audio access unit lasts, whatever its codec. */
import { AAC_SAMPLES_PER_UNIT, type AudioTrack } from '../access-unit.ts';
import { AC3_SAMPLES_PER_UNIT, eac3UnitSamples } from './ac3.ts';
import { flacFrameSamples, parseFlacStreamInfo } from './flac.ts';
import { mp3SamplesPerUnit } from './mp3.ts';
import { opusPacketSamples } from './opus.ts';

/**
 * Samples that every unit of a track holds.
 * @returns undefined where units differ in length, and each has to be looked at
 */
export function constantSamplesPerUnit(track: AudioTrack): number | undefined {
  switch (track.codec) {
    case 'aac':
      return AAC_SAMPLES_PER_UNIT;
    case 'ac3':
      return AC3_SAMPLES_PER_UNIT;
    case 'mp3':
      return mp3SamplesPerUnit(track.config);
    case 'opus':
    case 'flac':
    case 'eac3':
      return undefined;
  }
}

/** Samples in one unit of a track; for a unit whose header is malformed, the track's usual number. */
export function samplesInUnit(track: AudioTrack, data: Uint8Array): number {
  switch (track.codec) {
    case 'opus':
      return opusPacketSamples(data);
    case 'flac':
      return flacFrameSamples(data) ?? parseFlacStreamInfo(track.config).maxBlockSamples;
    case 'eac3':
      return eac3UnitSamples(data) ?? AC3_SAMPLES_PER_UNIT;
    default:
      return constantSamplesPerUnit(track) ?? AAC_SAMPLES_PER_UNIT;
  }
}
