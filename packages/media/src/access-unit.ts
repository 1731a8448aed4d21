/**
 * The currency between protocols: tracks, access units and cues on a channel's timeline.
 *
 * A stream is a sequence of {@link StreamEvent}s. Its order is part of the contract:
 * - `timeline` first, then each `track`, before the first unit; a `track` again when its
 *   configuration changes (then only right after a cue that raises the discontinuity sequence);
 * - a `cue` right before the access unit that opens the segment;
 * - units by DTS across all tracks (compared exactly; at equal DTS by {@link trackIndex}: video first).
 *
 * A track is named by its kind and its id. The tracks of one kind are renditions of one content: the same
 * picture in several qualities, whose random access points lie at the same times, or the same programme's sound
 * in several languages. Track 0 of each kind is what a viewer gets who can choose none.
 */
import { equalBytes } from './bytes.ts';
import { VIDEO_TIMESCALE_HZ } from './time.ts';

export type VideoCodec = 'avc' | 'hevc' | 'av1' | 'vp9';
export type AudioCodec = 'aac' | 'opus' | 'flac' | 'ac3' | 'eac3' | 'mp3';

export interface VideoTrack {
  readonly kind: 'video';
  /** 0..255; 0 is the default track of its kind. */
  readonly trackId: number;
  readonly codec: VideoCodec;
  /**
   * The codec's configuration record: AVCDecoderConfigurationRecord, HEVCDecoderConfigurationRecord,
   * AV1CodecConfigurationRecord or VPCodecConfigurationRecord (codec/<codec>.ts).
   */
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
  /** 0..255; 0 is the default track of its kind. */
  readonly trackId: number;
  /** RFC 5646, for instance `de` or `pt-BR`, where it is known. */
  readonly language: string | undefined;
  readonly codec: AudioCodec;
  /**
   * AAC: AudioSpecificConfig. Opus: the ID header. FLAC: `fLaC` and STREAMINFO. AC-3 and E-AC-3: what
   * the boxes `dac3` and `dec3` hold. MP3: a frame header (codec/<codec>.ts).
   */
  readonly config: Uint8Array;
  /** RFC 6381, for instance `mp4a.40.2`. */
  readonly codecString: string;
  /** Ticks per second of the units' times. */
  readonly sampleRateHz: number;
  readonly channelCount: number;
}

export type Track = VideoTrack | AudioTrack;

/** Samples in one AAC-LC access unit (ISO/IEC 14496-3, 4.5.2.1.1). For other codecs see codec/samples.ts. */
export const AAC_SAMPLES_PER_UNIT = 1024;

/**
 * The unit of decoding. H.264 and HEVC: one coded picture, as length-prefixed NAL units. AV1: one temporal
 * unit without its temporal delimiter. VP9: one frame or superframe. Audio: one frame or packet, with
 * its header where the codec has one; for AAC raw.
 */
export interface AccessUnit {
  readonly kind: 'video' | 'audio';
  /** Of its track. */
  readonly trackId: number;
  /** Decoding time in ticks of the track's timescale: 1/90000 s for video, one sample for audio. */
  readonly dtsTicks: number;
  /** Presentation time, same unit. */
  readonly ptsTicks: number;
  /** A decoder can start here: an IDR picture or its like in the codec, or any audio unit. */
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
  /** What the guide says of it; undefined where it says nothing, and from a publisher that does not know. */
  readonly programme?: GuideProgramme | undefined;
  /** EXT-X-TARGETDURATION of the channel; the same in every cue of a run. */
  readonly targetDurationMs: number;
  /** False where no random access point came in time and the segment had to be cut without one. */
  readonly isIndependent: boolean;
}

/** A programme as the guide lists it, on the wall clock: it may begin long before the segment and end long after. */
export interface GuideProgramme {
  readonly title: string;
  /** Whole milliseconds since 1970. */
  readonly startUnixMs: number;
  /** As planned when the segment began; an edit on the air may bring the end forward. */
  readonly endUnixMs: number;
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

/** Track ids of Enhanced RTMP are one byte. */
export const MAX_TRACK_ID = 255;

/** The place of a track among all that a stream may have: video by id, then audio by id. Also names it in maps. */
export function trackIndex(track: Pick<Track, 'kind' | 'trackId'>): number {
  return track.kind === 'video' ? track.trackId : MAX_TRACK_ID + 1 + track.trackId;
}

/** True for the tracks, and their units, of a viewer who can choose none. */
export function isDefaultTrack(track: Pick<Track, 'trackId'>): boolean {
  return track.trackId === 0;
}

/** True when a decoder set up for one track is set up for the other. */
export function isSameTrack(a: Track, b: Track): boolean {
  if (a.codec !== b.codec || !equalBytes(a.config, b.config)) return false;
  // The configuration record of VP9 does not say how large the pictures are.
  return a.kind !== 'video' || b.kind !== 'video' || (a.widthPx === b.widthPx && a.heightPx === b.heightPx);
}
