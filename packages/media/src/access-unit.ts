/**
 * The currency between protocols: tracks, access units and cues on a channel's timeline.
 *
 * A stream is a sequence of {@link StreamEvent}s. Its order is part of the contract:
 * - `timeline` first, then each `track`, before the first unit; a `track` again when its
 *   configuration changes (then only right after a cue that raises the discontinuity sequence);
 * - a `cue` right before the access unit that opens the segment;
 * - units by DTS across all tracks (compared exactly; at equal DTS video goes first).
 */
import { VIDEO_TIMESCALE_HZ } from './time.ts';

export interface VideoTrack {
  readonly kind: 'video';
  readonly codec: 'avc';
  /** AVCDecoderConfigurationRecord (ISO/IEC 14496-15, 5.3.3.1). */
  readonly config: Uint8Array;
  /** RFC 6381, for instance `avc1.64001f`. */
  readonly codecString: string;
  readonly widthPx: number;
  readonly heightPx: number;
  /** Ticks of 1/90000 s that every frame lasts, where the frame rate is known to be constant. */
  readonly frameDurationTicks: number | undefined;
}

export interface AudioTrack {
  readonly kind: 'audio';
  readonly codec: 'aac';
  /** AudioSpecificConfig (ISO/IEC 14496-3, 1.6.2.1). */
  readonly config: Uint8Array;
  /** RFC 6381, for instance `mp4a.40.2`. */
  readonly codecString: string;
  readonly sampleRateHz: number;
  readonly channelCount: number;
}

export type Track = VideoTrack | AudioTrack;

/** Samples in one AAC-LC access unit (ISO/IEC 14496-3, 4.5.2.1.1). */
export const AAC_SAMPLES_PER_UNIT = 1024;

/** The unit of decoding: one coded picture (length-prefixed NAL units) or one raw AAC frame. */
export interface AccessUnit {
  readonly kind: 'video' | 'audio';
  /** Decoding time in ticks of the track's timescale: 1/90000 s for video, one sample for audio. */
  readonly dtsTicks: number;
  /** Presentation time, same unit. */
  readonly ptsTicks: number;
  /** A decoder can start here: an IDR picture, or any audio unit. */
  readonly isRandomAccess: boolean;
  readonly data: Uint8Array;
}

/**
 * Opens a media segment. Written by the publisher, the single writer of the segmentation, and
 * obeyed by every frontend (docs/formats/cue.md).
 */
export interface Cue {
  readonly mediaSequenceNumber: number;
  readonly discontinuitySequence: number;
  /** Where the segment starts on the timeline, in ticks of 1/90000 s. Every unit with a DTS at or after it belongs to it. */
  readonly startTicks: number;
  /** Wall-clock time of the segment's start, in milliseconds since 1970. */
  readonly programDateTimeUnixMs: number;
  /** What is on: an opaque id, the same in the guide. */
  readonly programmeId: string;
  /** EXT-X-TARGETDURATION of the channel; the same in every cue of a run. */
  readonly targetDurationMs: number;
  /** False where no random access point came in time and the segment had to be cut without one. */
  readonly isIndependent: boolean;
}

export type StreamEvent =
  /** The channel's epoch: wall-clock time of tick 0, in milliseconds since 1970. */
  | { readonly type: 'timeline'; readonly epochUnixMs: number }
  | { readonly type: 'track'; readonly track: Track }
  | { readonly type: 'cue'; readonly cue: Cue }
  | { readonly type: 'unit'; readonly unit: AccessUnit };

/** Ticks per second of a track's times. */
export function timescaleHz(track: Track): number {
  return track.kind === 'video' ? VIDEO_TIMESCALE_HZ : track.sampleRateHz;
}
