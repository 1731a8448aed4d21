/**
 * FLV tags and the bodies of audio and video tags, in both forms: legacy (Adobe FLV 10.1 annex E)
 * and enhanced (Enhanced RTMP v2, sections "Enhanced Audio" and "Enhanced Video").
 */
import type { AudioCodec, Track, VideoCodec } from '../access-unit.ts';
import { ByteReader, ByteWriter, concatBytes } from '../bytes.ts';
import { MediaError } from '../error.ts';

/**
 * One FLV tag, which is also one RTMP audio, video or data message: the two share their bodies
 * (Adobe FLV 10.1 annex E.4; RTMP 1.0 section 7.1).
 */
export interface FlvMessage {
  readonly kind: 'audio' | 'video' | 'data';
  /** Milliseconds as on the wire: 32 bits, may wrap. */
  readonly timestampMs: number;
  readonly payload: Uint8Array;
}

/** What an audio or video body says of one track, whichever form it came in. Byte arrays are views. */
export type MediaBody = SequenceStart | CodedFrames;

export interface SequenceStart {
  readonly type: 'sequenceStart';
  /** 0 is the default track, and the only one of a message that is not multitrack. */
  readonly trackId: number;
  readonly codec: VideoCodec | AudioCodec;
  /** The codec's configuration record; may be empty. */
  readonly config: Uint8Array;
}

export interface CodedFrames {
  readonly type: 'codedFrames';
  readonly trackId: number;
  readonly codec: VideoCodec | AudioCodec;
  readonly isRandomAccess: boolean;
  /** Presentation time minus decoding time; 24 bits with sign. 0 where the codec has no place for it. */
  readonly compositionTimeMs: number;
  /** What to add to the message's timestamp, 0..999999: finer than the legacy form can say. */
  readonly offsetNanos: number;
  readonly data: Uint8Array;
}

/** TagType (E.4.1), which is also the RTMP message type. */
export const TAG_TYPE = { audio: 8, video: 9, data: 18 } as const;

/** FrameType (E.4.3.1). */
const FRAME_TYPE = { key: 1, inter: 2, disposable: 3, generatedKey: 4, command: 5 } as const;

/** CodecID (E.4.3.1) and SoundFormat (E.4.2.1) of the codecs that are taken. */
const LEGACY_CODEC = { avc: 7, mp3: 2, aac: 10, mp3At8kHz: 14 } as const;
/** SoundFormat that opens the enhanced form, and the bit that does so for video. */
const AUDIO_EX_HEADER = 9;
const VIDEO_EX_HEADER_BIT = 0x80;

/** AVCPacketType (E.4.3.1); AACPacketType (E.4.2.1) has the first two. */
const LEGACY_PACKET_TYPE = { sequenceHeader: 0, data: 1, endOfSequence: 2 } as const;

/** VideoPacketType and AudioPacketType of Enhanced RTMP v2. Only some apply to audio. */
const PACKET_TYPE = {
  sequenceStart: 0,
  codedFrames: 1,
  sequenceEnd: 2,
  codedFramesX: 3,
  /** Video: AMF-coded metadata. Audio: MultichannelConfig. Neither changes what is decoded. */
  metadata: 4,
  modEx: 7,
} as const;

/** Packet types whose values differ between the two media. Video 5: a descriptor, for AV1 in MPEG-2 TS form. */
const MULTITRACK_PACKET_TYPE = { video: 6, audio: 5 } as const;
const MPEG2_TS_SEQUENCE_START = 5;

/** AvMultitrackType. */
const MULTITRACK_TYPE = { oneTrack: 0, manyTracks: 1, manyTracksManyCodecs: 2 } as const;

/** The FourCC of each codec (VideoFourCc, AudioFourCc). */
export const FOUR_CC: Readonly<Record<VideoCodec | AudioCodec, string>> = {
  avc: 'avc1',
  hevc: 'hvc1',
  av1: 'av01',
  vp9: 'vp09',
  aac: 'mp4a',
  opus: 'Opus',
  flac: 'fLaC',
  ac3: 'ac-3',
  eac3: 'ec-3',
  mp3: '.mp3',
};
const VIDEO_CODECS: readonly VideoCodec[] = ['avc', 'hevc', 'av1', 'vp9'];
const AUDIO_CODECS: readonly AudioCodec[] = ['aac', 'opus', 'flac', 'ac3', 'eac3', 'mp3'];
const CODEC_OF_FOUR_CC = {
  video: new Map<string, VideoCodec>(VIDEO_CODECS.map((codec) => [FOUR_CC[codec], codec])),
  audio: new Map<string, AudioCodec>(AUDIO_CODECS.map((codec) => [FOUR_CC[codec], codec])),
};

/** FourCCs of all codecs that are taken and given out, for the `connect` command. */
export const FOUR_CCS = {
  video: [...CODEC_OF_FOUR_CC.video.keys()],
  audio: [...CODEC_OF_FOUR_CC.audio.keys()],
} as const;

/** True where CodedFrames begin with an SI24 composition time: pictures may be shown in another order. */
export function hasCompositionTime(codec: VideoCodec | AudioCodec): boolean {
  return codec === 'avc' || codec === 'hevc';
}

/** True where the legacy form has a place for the codec, which every player of FLV and RTMP reads. */
export function isLegacyCodec(codec: VideoCodec | AudioCodec): boolean {
  return codec === 'avc' || codec === 'aac' || codec === 'mp3';
}

const MOD_EX_TIMESTAMP_OFFSET_NANO = 0;
const NANOS_PER_MS = 1_000_000;

/** 44 kHz, 16 bit, stereo: what E.4.2.1 prescribes for AAC whatever the stream holds. */
const AAC_SOUND_FLAGS = 0x0f;

/**
 * Reads the body of a video tag.
 * Source: Adobe FLV 10.1 E.4.3; Enhanced RTMP v2, ExVideoTagHeader and ExVideoTagBody.
 * @returns what there is to decode, track by track; nothing for the end of a sequence, metadata and commands
 * @throws MediaError FLV_BAD_TAG, FLV_UNSUPPORTED_CODEC
 */
export function parseVideoBody(payload: Uint8Array): MediaBody[] {
  return reportingTruncation('video', () => {
    const reader = new ByteReader(payload);
    const first = reader.u8();
    const frameType = (first >> 4) & 0x07;
    if (frameType < FRAME_TYPE.key || frameType > FRAME_TYPE.command) {
      throw new MediaError('FLV_BAD_TAG', `video frame type ${frameType}, allowed 1..5`);
    }
    const isRandomAccess = frameType === FRAME_TYPE.key;
    if ((first & VIDEO_EX_HEADER_BIT) !== 0) {
      return parseEnhanced(reader, 'video', first & 0x0f, isRandomAccess, frameType === FRAME_TYPE.command);
    }
    if (frameType === FRAME_TYPE.command) return [];
    const codecId = first & 0x0f;
    if (codecId !== LEGACY_CODEC.avc) {
      throw new MediaError('FLV_UNSUPPORTED_CODEC', `video codec id ${codecId}`);
    }
    const packetType = reader.u8();
    const compositionTimeMs = reader.i24();
    switch (packetType) {
      case LEGACY_PACKET_TYPE.sequenceHeader:
        return [sequenceStart(reader, 0, 'avc')];
      case LEGACY_PACKET_TYPE.data:
        return codedFrames(reader, {
          trackId: 0,
          codec: 'avc',
          isRandomAccess,
          compositionTimeMs,
          offsetNanos: 0,
        });
      case LEGACY_PACKET_TYPE.endOfSequence:
        return [];
      default:
        throw new MediaError('FLV_BAD_TAG', `AVC packet type ${packetType}, allowed 0..2`);
    }
  });
}

/**
 * Reads the body of an audio tag. An empty one means silence.
 * Source: Adobe FLV 10.1 E.4.2; Enhanced RTMP v2, ExAudioTagHeader and ExAudioTagBody.
 * @returns what there is to decode, track by track
 * @throws MediaError FLV_BAD_TAG, FLV_UNSUPPORTED_CODEC
 */
export function parseAudioBody(payload: Uint8Array): MediaBody[] {
  if (payload.length === 0) return [];
  return reportingTruncation('audio', () => {
    const reader = new ByteReader(payload);
    const first = reader.u8();
    const soundFormat = first >> 4;
    switch (soundFormat) {
      case AUDIO_EX_HEADER:
        return parseEnhanced(reader, 'audio', first & 0x0f, true, false);
      case LEGACY_CODEC.mp3:
      case LEGACY_CODEC.mp3At8kHz:
        return legacySound(reader, 'mp3');
      case LEGACY_CODEC.aac:
        break;
      default:
        throw new MediaError('FLV_UNSUPPORTED_CODEC', `sound format ${soundFormat}`);
    }
    const packetType = reader.u8();
    switch (packetType) {
      case LEGACY_PACKET_TYPE.sequenceHeader:
        return [sequenceStart(reader, 0, 'aac')];
      case LEGACY_PACKET_TYPE.data:
        return legacySound(reader, 'aac');
      default:
        throw new MediaError('FLV_BAD_TAG', `AAC packet type ${packetType}, allowed 0 and 1`);
    }
  });
}

/** What one message says of all its tracks. */
interface EnhancedHeader {
  readonly kind: 'video' | 'audio';
  readonly packetType: number;
  readonly isRandomAccess: boolean;
  readonly offsetNanos: number;
}

/** The enhanced form after its first byte: ModEx loop, multitrack header, FourCC, bodies. */
function parseEnhanced(
  reader: ByteReader,
  kind: 'video' | 'audio',
  firstPacketType: number,
  isRandomAccess: boolean,
  isCommandFrame: boolean,
): MediaBody[] {
  let packetType = firstPacketType;
  let offsetNanos = 0;
  while (packetType === PACKET_TYPE.modEx) {
    let sizeBytes = reader.u8() + 1;
    if (sizeBytes === 256) sizeBytes = reader.u16() + 1;
    const data = new ByteReader(reader.take(sizeBytes));
    const next = reader.u8();
    if (next >> 4 === MOD_EX_TIMESTAMP_OFFSET_NANO) offsetNanos = data.u24();
    packetType = next & 0x0f;
  }
  if (offsetNanos >= NANOS_PER_MS) {
    throw new MediaError('FLV_BAD_TAG', `timestamp offset of ${offsetNanos} ns, at most ${NANOS_PER_MS - 1}`);
  }
  // A command frame is one byte of command instead of a FourCC and a body.
  if (isCommandFrame && packetType !== PACKET_TYPE.metadata) return [];
  if (packetType !== MULTITRACK_PACKET_TYPE[kind]) {
    return parseTrack(reader, 0, readFourCc(reader), { kind, packetType, isRandomAccess, offsetNanos });
  }

  const multitrack = reader.u8();
  const multitrackType = multitrack >> 4;
  const header = { kind, packetType: multitrack & 0x0f, isRandomAccess, offsetNanos };
  if (multitrackType > MULTITRACK_TYPE.manyTracksManyCodecs) {
    throw new MediaError('FLV_BAD_TAG', `multitrack type ${multitrackType}, allowed 0..2`);
  }
  const hasOneCodec = multitrackType !== MULTITRACK_TYPE.manyTracksManyCodecs;
  const commonFourCc = hasOneCodec ? readFourCc(reader) : '';
  const bodies: MediaBody[] = [];
  do {
    const fourCc = hasOneCodec ? commonFourCc : readFourCc(reader);
    const trackId = reader.u8();
    const sizeBytes = multitrackType === MULTITRACK_TYPE.oneTrack ? reader.remaining : reader.u24();
    bodies.push(...parseTrack(new ByteReader(reader.take(sizeBytes)), trackId, fourCc, header));
  } while (reader.remaining > 0);
  return bodies;
}

/** The body of one track: all that the reader has left. */
function parseTrack(
  reader: ByteReader,
  trackId: number,
  fourCc: string,
  { kind, packetType, isRandomAccess, offsetNanos }: EnhancedHeader,
): MediaBody[] {
  if (kind === 'video' && packetType === MPEG2_TS_SEQUENCE_START) {
    throw new MediaError(
      'FLV_UNSUPPORTED_CODEC',
      'video packet type 5: AV1 as in an MPEG-2 transport stream',
    );
  }
  const codec = CODEC_OF_FOUR_CC[kind].get(fourCc);
  if (codec === undefined) {
    // Another track than the default one may have any codec; it does no harm.
    if (trackId !== 0) return [];
    throw new MediaError('FLV_UNSUPPORTED_CODEC', `${kind} codec ${JSON.stringify(fourCc)}`);
  }
  const frames = (compositionTimeMs: number) =>
    codedFrames(reader, { trackId, codec, isRandomAccess, compositionTimeMs, offsetNanos });
  switch (packetType) {
    case PACKET_TYPE.sequenceStart:
      return [sequenceStart(reader, trackId, codec)];
    case PACKET_TYPE.codedFrames: {
      return frames(hasCompositionTime(codec) ? reader.i24() : 0);
    }
    case PACKET_TYPE.sequenceEnd:
    case PACKET_TYPE.metadata:
      return [];
    case PACKET_TYPE.codedFramesX:
      if (kind === 'video') return frames(0);
      break;
  }
  throw new MediaError('FLV_BAD_TAG', `${kind} packet type ${packetType} is not defined`);
}

function readFourCc(reader: ByteReader): string {
  return String.fromCharCode(...reader.take(4));
}

function sequenceStart(reader: ByteReader, trackId: number, codec: MediaBody['codec']): SequenceStart {
  return { type: 'sequenceStart', trackId, codec, config: reader.take(reader.remaining) };
}

function codedFrames(reader: ByteReader, frames: Omit<CodedFrames, 'type' | 'data'>): CodedFrames[] {
  // An empty unit is no picture and no sound; passing it on would only confuse a decoder.
  if (reader.remaining === 0) return [];
  const { trackId, codec, isRandomAccess, compositionTimeMs, offsetNanos } = frames;
  // Spelled out: this runs for every unit, and V8 is slow where properties follow a spread.
  const data = reader.take(reader.remaining);
  return [{ type: 'codedFrames', trackId, codec, isRandomAccess, compositionTimeMs, offsetNanos, data }];
}

function legacySound(reader: ByteReader, codec: AudioCodec): CodedFrames[] {
  return codedFrames(reader, {
    trackId: 0,
    codec,
    isRandomAccess: true,
    compositionTimeMs: 0,
    offsetNanos: 0,
  });
}

function reportingTruncation(kind: 'video' | 'audio', parse: () => MediaBody[]): MediaBody[] {
  try {
    return parse();
  } catch (error) {
    if (error instanceof MediaError && error.code === 'BYTES_TRUNCATED') {
      throw new MediaError('FLV_BAD_TAG', `a ${kind} body ends too early`, { cause: error });
    }
    throw error;
  }
}

/**
 * A sequence header for viewers: legacy where the codec has a legacy form (E.4.2, E.4.3), else enhanced.
 * @returns an empty body, which readers skip as silence, for codecs whose units say all themselves
 */
export function viewerSequenceStart(track: Track): Uint8Array {
  switch (track.codec) {
    case 'avc':
      return new ByteWriter(5 + track.config.length)
        .u8((FRAME_TYPE.key << 4) | LEGACY_CODEC.avc)
        .u8(LEGACY_PACKET_TYPE.sequenceHeader)
        .u24(0) // composition time
        .bytes(track.config)
        .finish();
    case 'aac':
      return new ByteWriter(2 + track.config.length)
        .u8((LEGACY_CODEC.aac << 4) | AAC_SOUND_FLAGS)
        .u8(LEGACY_PACKET_TYPE.sequenceHeader)
        .bytes(track.config)
        .finish();
    case 'mp3':
    case 'ac3':
    case 'eac3':
      return new Uint8Array(0);
    default:
      return enhancedSequenceStart(track);
  }
}

/** Bytes before the coded data in a body for viewers. */
export function viewerHeaderSizeBytes(codec: VideoCodec | AudioCodec): number {
  switch (codec) {
    case 'avc':
      return 5;
    case 'aac':
      return 2;
    case 'mp3':
      return 1;
    default:
      return hasCompositionTime(codec) ? 8 : 5;
  }
}

/**
 * Writes the bytes before the coded data of a body for viewers in place: legacy (E.4.2.1, E.4.3.1) where the
 * codec has a legacy form, else enhanced CodedFrames. Takes no nanoseconds: few players know ModEx.
 */
export function writeViewerHeader(
  target: Uint8Array,
  at: number,
  track: Track,
  isRandomAccess: boolean,
  compositionTimeMs: number,
): void {
  switch (track.codec) {
    case 'avc':
      target[at] = ((isRandomAccess ? FRAME_TYPE.key : FRAME_TYPE.inter) << 4) | LEGACY_CODEC.avc;
      target[at + 1] = LEGACY_PACKET_TYPE.data;
      writeI24(target, at + 2, compositionTimeMs);
      return;
    case 'aac':
      target[at] = (LEGACY_CODEC.aac << 4) | AAC_SOUND_FLAGS;
      target[at + 1] = LEGACY_PACKET_TYPE.data;
      return;
    case 'mp3':
      target[at] = mp3SoundByte(track.sampleRateHz, track.channelCount);
      return;
  }
  target[at] = enhancedFirstByte(track.kind, isRandomAccess, PACKET_TYPE.codedFrames);
  const fourCc = FOUR_CC[track.codec];
  for (let i = 0; i < 4; i++) target[at + 1 + i] = fourCc.charCodeAt(i);
  if (hasCompositionTime(track.codec)) writeI24(target, at + 5, compositionTimeMs);
}

function writeI24(target: Uint8Array, at: number, value: number): void {
  target[at] = value >> 16;
  target[at + 1] = value >> 8;
  target[at + 2] = value;
}

/** SoundFormat, SoundRate (the nearest of 5.5, 11, 22 and 44 kHz), 16 bit, SoundType. */
function mp3SoundByte(sampleRateHz: number, channelCount: number): number {
  const isStereo = Number(channelCount > 1);
  if (sampleRateHz === 8_000) return (LEGACY_CODEC.mp3At8kHz << 4) | 0x02 | isStereo;
  const soundRate = sampleRateHz >= 32_000 ? 3 : sampleRateHz >= 16_000 ? 2 : 1;
  return (LEGACY_CODEC.mp3 << 4) | (soundRate << 2) | 0x02 | isStereo;
}

/** An enhanced SequenceStart; multitrack for another track than the default one. */
export function enhancedSequenceStart(track: Track): Uint8Array {
  const { kind, trackId } = track;
  const writer = new ByteWriter(7 + track.config.length);
  writer.u8(enhancedFirstByte(kind, true, outerPacketType(kind, trackId, PACKET_TYPE.sequenceStart)));
  return writeTrackHeader(writer, trackId, PACKET_TYPE.sequenceStart, track.codec)
    .bytes(track.config)
    .finish();
}

/** The packet type outside the multitrack header, where the track needs one. */
function outerPacketType(kind: 'video' | 'audio', trackId: number, packetType: number): number {
  return trackId === 0 ? packetType : MULTITRACK_PACKET_TYPE[kind];
}

/** What stands between the packet type and a track's body. */
function writeTrackHeader(
  writer: ByteWriter,
  trackId: number,
  packetType: number,
  codec: VideoCodec | AudioCodec,
): ByteWriter {
  if (trackId === 0) return writer.ascii(FOUR_CC[codec]);
  return writer
    .u8((MULTITRACK_TYPE.oneTrack << 4) | packetType)
    .ascii(FOUR_CC[codec])
    .u8(trackId);
}

/**
 * Enhanced CodedFrames, with the nanosecond offset where it is not 0; multitrack for another track than the
 * default one.
 */
export function enhancedCodedFrames(kind: 'video' | 'audio', frames: Omit<CodedFrames, 'type'>): Uint8Array {
  return concatBytes([enhancedCodedFramesHeader(kind, frames), frames.data]);
}

/** What comes before the data in {@link enhancedCodedFrames}. Plain stores: every unit of every channel comes here. */
export function enhancedCodedFramesHeader(
  kind: 'video' | 'audio',
  frames: Omit<CodedFrames, 'type' | 'data'>,
): Uint8Array {
  const { trackId, codec, isRandomAccess, compositionTimeMs, offsetNanos } = frames;
  const hasTime = hasCompositionTime(codec);
  const target = new Uint8Array(
    5 + (offsetNanos === 0 ? 0 : 5) + (trackId === 0 ? 0 : 2) + (hasTime ? 3 : 0),
  );
  let at = 0;
  const packetType = outerPacketType(kind, trackId, PACKET_TYPE.codedFrames);
  if (offsetNanos !== 0) {
    target[at] = enhancedFirstByte(kind, isRandomAccess, PACKET_TYPE.modEx);
    target[at + 1] = 3 - 1; // modExDataSize - 1
    writeI24(target, at + 2, offsetNanos);
    target[at + 5] = (MOD_EX_TIMESTAMP_OFFSET_NANO << 4) | packetType;
    at += 6;
  } else {
    target[at++] = enhancedFirstByte(kind, isRandomAccess, packetType);
  }
  if (trackId !== 0) target[at++] = (MULTITRACK_TYPE.oneTrack << 4) | PACKET_TYPE.codedFrames;
  const fourCc = FOUR_CC[codec];
  for (let i = 0; i < 4; i++) target[at++] = fourCc.charCodeAt(i);
  if (trackId !== 0) target[at++] = trackId;
  if (hasTime) writeI24(target, at, compositionTimeMs);
  return target;
}

function enhancedFirstByte(kind: 'video' | 'audio', isRandomAccess: boolean, packetType: number): number {
  if (kind === 'audio') return (AUDIO_EX_HEADER << 4) | packetType;
  return VIDEO_EX_HEADER_BIT | ((isRandomAccess ? FRAME_TYPE.key : FRAME_TYPE.inter) << 4) | packetType;
}
