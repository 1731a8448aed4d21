/**
 * FLV tags and the bodies of audio and video tags, in both forms: legacy (Adobe FLV 10.1 annex E)
 * and enhanced (Enhanced RTMP v2, sections "Enhanced Audio" and "Enhanced Video").
 */
import { ByteReader, ByteWriter } from '../bytes.ts';
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

/** What an audio or video body says, whichever form it came in. Byte arrays are views. */
export type MediaBody =
  /** The codec's configuration record. */
  | { readonly type: 'sequenceStart'; readonly config: Uint8Array }
  | CodedFrames
  /** Nothing to decode: end of sequence, metadata, a command frame, silence. */
  | { readonly type: 'none' };

export interface CodedFrames {
  readonly type: 'codedFrames';
  readonly isRandomAccess: boolean;
  /** Presentation time minus decoding time; 24 bits with sign. 0 for audio. */
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
const LEGACY_CODEC = { avc: 7, aac: 10 } as const;
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

/** Packet types for which this server has no use yet, by medium: refused as an unsupported codec. */
const UNSUPPORTED_PACKET_TYPES = {
  video: new Map([
    [5, 'MPEG-2 TS sequence start'],
    [6, 'multitrack'],
  ]),
  audio: new Map([[5, 'multitrack']]),
};

/** Codecs by FourCC. `hasCompositionTime`: CodedFrames begin with an SI24 composition time. */
const FOUR_CC = {
  video: new Map([['avc1', { hasCompositionTime: true }]]),
  audio: new Map([['mp4a', { hasCompositionTime: false }]]),
};

const MOD_EX_TIMESTAMP_OFFSET_NANO = 0;
const NANOS_PER_MS = 1_000_000;

/** 44 kHz, 16 bit, stereo: what E.4.2.1 prescribes for AAC whatever the stream holds. */
const AAC_SOUND_FLAGS = 0x0f;

const NOTHING: MediaBody = { type: 'none' };

/**
 * Reads the body of a video tag.
 * Source: Adobe FLV 10.1 E.4.3; Enhanced RTMP v2, ExVideoTagHeader and ExVideoTagBody.
 * @throws MediaError FLV_BAD_TAG, FLV_UNSUPPORTED_CODEC
 */
export function parseVideoBody(payload: Uint8Array): MediaBody {
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
    if (frameType === FRAME_TYPE.command) return NOTHING;
    const codecId = first & 0x0f;
    if (codecId !== LEGACY_CODEC.avc) {
      throw new MediaError('FLV_UNSUPPORTED_CODEC', `video codec id ${codecId}`);
    }
    const packetType = reader.u8();
    const compositionTimeMs = reader.i24();
    switch (packetType) {
      case LEGACY_PACKET_TYPE.sequenceHeader:
        return { type: 'sequenceStart', config: reader.take(reader.remaining) };
      case LEGACY_PACKET_TYPE.data:
        return codedFrames(reader, isRandomAccess, compositionTimeMs, 0);
      case LEGACY_PACKET_TYPE.endOfSequence:
        return NOTHING;
      default:
        throw new MediaError('FLV_BAD_TAG', `AVC packet type ${packetType}, allowed 0..2`);
    }
  });
}

/**
 * Reads the body of an audio tag. An empty one means silence.
 * Source: Adobe FLV 10.1 E.4.2; Enhanced RTMP v2, ExAudioTagHeader and ExAudioTagBody.
 * @throws MediaError FLV_BAD_TAG, FLV_UNSUPPORTED_CODEC
 */
export function parseAudioBody(payload: Uint8Array): MediaBody {
  if (payload.length === 0) return NOTHING;
  return reportingTruncation('audio', () => {
    const reader = new ByteReader(payload);
    const first = reader.u8();
    const soundFormat = first >> 4;
    if (soundFormat === AUDIO_EX_HEADER) return parseEnhanced(reader, 'audio', first & 0x0f, true, false);
    if (soundFormat !== LEGACY_CODEC.aac) {
      throw new MediaError('FLV_UNSUPPORTED_CODEC', `sound format ${soundFormat}`);
    }
    const packetType = reader.u8();
    switch (packetType) {
      case LEGACY_PACKET_TYPE.sequenceHeader:
        return { type: 'sequenceStart', config: reader.take(reader.remaining) };
      case LEGACY_PACKET_TYPE.data:
        return codedFrames(reader, true, 0, 0);
      default:
        throw new MediaError('FLV_BAD_TAG', `AAC packet type ${packetType}, allowed 0 and 1`);
    }
  });
}

/** The enhanced form after its first byte: ModEx loop, FourCC, body. */
function parseEnhanced(
  reader: ByteReader,
  kind: 'video' | 'audio',
  firstPacketType: number,
  isRandomAccess: boolean,
  isCommandFrame: boolean,
): MediaBody {
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
  if (isCommandFrame && packetType !== PACKET_TYPE.metadata) return NOTHING;
  const unsupported = UNSUPPORTED_PACKET_TYPES[kind].get(packetType);
  if (unsupported !== undefined) {
    throw new MediaError('FLV_UNSUPPORTED_CODEC', `${kind} packet type ${packetType} (${unsupported})`);
  }
  const fourCc = String.fromCharCode(...reader.take(4));
  const codec = FOUR_CC[kind].get(fourCc);
  if (codec === undefined) {
    throw new MediaError('FLV_UNSUPPORTED_CODEC', `${kind} codec ${JSON.stringify(fourCc)}`);
  }
  switch (packetType) {
    case PACKET_TYPE.sequenceStart:
      return { type: 'sequenceStart', config: reader.take(reader.remaining) };
    case PACKET_TYPE.codedFrames:
      return codedFrames(reader, isRandomAccess, codec.hasCompositionTime ? reader.i24() : 0, offsetNanos);
    case PACKET_TYPE.sequenceEnd:
    case PACKET_TYPE.metadata:
      return NOTHING;
    case PACKET_TYPE.codedFramesX:
      if (kind === 'video') return codedFrames(reader, isRandomAccess, 0, offsetNanos);
      break;
  }
  throw new MediaError('FLV_BAD_TAG', `${kind} packet type ${packetType} is not defined`);
}

function codedFrames(
  reader: ByteReader,
  isRandomAccess: boolean,
  compositionTimeMs: number,
  offsetNanos: number,
): MediaBody {
  // An empty unit is no picture and no sound; passing it on would only confuse a decoder.
  if (reader.remaining === 0) return NOTHING;
  const data = reader.take(reader.remaining);
  return { type: 'codedFrames', isRandomAccess, compositionTimeMs, offsetNanos, data };
}

function reportingTruncation(kind: 'video' | 'audio', parse: () => MediaBody): MediaBody {
  try {
    return parse();
  } catch (error) {
    if (error instanceof MediaError && error.code === 'BYTES_TRUNCATED') {
      throw new MediaError('FLV_BAD_TAG', `a ${kind} body ends too early`, { cause: error });
    }
    throw error;
  }
}

/** A legacy sequence header: the codec's configuration record as a tag body (E.4.2, E.4.3). */
export function legacySequenceStart(kind: 'video' | 'audio', config: Uint8Array): Uint8Array {
  const headerSizeBytes = LEGACY_HEADER_SIZE_BYTES[kind];
  const body = new Uint8Array(headerSizeBytes + config.length);
  writeLegacyHeader(body, 0, kind, LEGACY_PACKET_TYPE.sequenceHeader, true, 0);
  body.set(config, headerSizeBytes);
  return body;
}

/** Bytes before the coded data in a legacy body. */
export const LEGACY_HEADER_SIZE_BYTES = { video: 5, audio: 2 } as const;

/** Writes the bytes before the coded data of a legacy body (E.4.2.1, E.4.3.1) in place. */
export function writeLegacyCodedHeader(
  target: Uint8Array,
  at: number,
  kind: 'video' | 'audio',
  isRandomAccess: boolean,
  compositionTimeMs: number,
): void {
  writeLegacyHeader(target, at, kind, LEGACY_PACKET_TYPE.data, isRandomAccess, compositionTimeMs);
}

function writeLegacyHeader(
  target: Uint8Array,
  at: number,
  kind: 'video' | 'audio',
  packetType: number,
  isRandomAccess: boolean,
  compositionTimeMs: number,
): void {
  if (kind === 'audio') {
    target[at] = (LEGACY_CODEC.aac << 4) | AAC_SOUND_FLAGS;
    target[at + 1] = packetType;
    return;
  }
  target[at] = ((isRandomAccess ? FRAME_TYPE.key : FRAME_TYPE.inter) << 4) | LEGACY_CODEC.avc;
  target[at + 1] = packetType;
  target[at + 2] = compositionTimeMs >> 16;
  target[at + 3] = compositionTimeMs >> 8;
  target[at + 4] = compositionTimeMs;
}

/** An enhanced SequenceStart with FourCC `avc1` or `mp4a`. */
export function enhancedSequenceStart(kind: 'video' | 'audio', config: Uint8Array): Uint8Array {
  return new ByteWriter(5 + config.length)
    .u8(enhancedFirstByte(kind, true, PACKET_TYPE.sequenceStart))
    .ascii(kind === 'video' ? 'avc1' : 'mp4a')
    .bytes(config)
    .finish();
}

/** Enhanced CodedFrames with FourCC `avc1` or `mp4a`, and the nanosecond offset where it is not 0. */
export function enhancedCodedFrames(kind: 'video' | 'audio', frames: Omit<CodedFrames, 'type'>): Uint8Array {
  const writer = new ByteWriter(13 + frames.data.length);
  if (frames.offsetNanos === 0) {
    writer.u8(enhancedFirstByte(kind, frames.isRandomAccess, PACKET_TYPE.codedFrames));
  } else {
    writer
      .u8(enhancedFirstByte(kind, frames.isRandomAccess, PACKET_TYPE.modEx))
      .u8(3 - 1) // modExDataSize - 1
      .u24(frames.offsetNanos)
      .u8((MOD_EX_TIMESTAMP_OFFSET_NANO << 4) | PACKET_TYPE.codedFrames);
  }
  if (kind === 'video') writer.ascii('avc1').u24(frames.compositionTimeMs & 0xffffff);
  else writer.ascii('mp4a');
  return writer.bytes(frames.data).finish();
}

function enhancedFirstByte(kind: 'video' | 'audio', isRandomAccess: boolean, packetType: number): number {
  if (kind === 'audio') return (AUDIO_EX_HEADER << 4) | packetType;
  return VIDEO_EX_HEADER_BIT | ((isRandomAccess ? FRAME_TYPE.key : FRAME_TYPE.inter) << 4) | packetType;
}
