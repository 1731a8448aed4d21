/**
 * Stream events to FLV: for players and files legacy tags where the codec has them, else enhanced ones;
 * Enhanced RTMP for the links between our nodes.
 */
import { type AccessUnit, type StreamEvent, type Track, timescaleHz, trackIndex } from '../access-unit.ts';
import { concatBytes } from '../bytes.ts';
import { Amf0EcmaArray, encodeAmf0 } from '../rtmp/amf0.ts';
import { nanoFromTicks, rescaleTicks, VIDEO_TIMESCALE_HZ } from '../time.ts';
import { encodeLinkMessage, type LinkMessage } from './link.ts';
import {
  enhancedCodedFramesHeader,
  enhancedSequenceStart,
  type FlvMessage,
  FOUR_CC,
  hasCompositionTime,
  TAG_TYPE,
  viewerHeaderSizeBytes,
  viewerSequenceStart,
  writeViewerHeader,
} from './tag.ts';

const TAG_HEADER_SIZE_BYTES = 11;
const PREVIOUS_TAG_SIZE_BYTES = 4;
const TICKS_PER_MS = VIDEO_TIMESCALE_HZ / 1000;

/**
 * The file header and PreviousTagSize0 that open an FLV byte stream.
 * Source: Adobe FLV 10.1 E.2, E.3.
 */
export function flvHeader(has: { video: boolean; audio: boolean }): Uint8Array {
  const flags = (has.audio ? 0x04 : 0) | (has.video ? 0x01 : 0);
  return Uint8Array.of(0x46, 0x4c, 0x56, 1, flags, 0, 0, 0, 9, 0, 0, 0, 0);
}

/**
 * One message as an FLV tag with its PreviousTagSize.
 * Source: Adobe FLV 10.1 E.3, E.4.1.
 */
export function flvTag(message: FlvMessage): Uint8Array {
  const tag = allocateTag(message.kind, message.payload.length, message.timestampMs);
  tag.set(message.payload, TAG_HEADER_SIZE_BYTES);
  return tag;
}

/** Allocates a tag and fills in all but its body. */
function allocateTag(kind: FlvMessage['kind'], bodySizeBytes: number, timestampMs: number): Uint8Array {
  const tagSizeBytes = TAG_HEADER_SIZE_BYTES + bodySizeBytes;
  const tag = new Uint8Array(tagSizeBytes + PREVIOUS_TAG_SIZE_BYTES);
  // Stores keep the low 8 bits. The stream id (bytes 8 to 10) is 0.
  tag[0] = TAG_TYPE[kind];
  tag[1] = bodySizeBytes >> 16;
  tag[2] = bodySizeBytes >> 8;
  tag[3] = bodySizeBytes;
  tag[4] = timestampMs >> 16;
  tag[5] = timestampMs >> 8;
  tag[6] = timestampMs;
  tag[7] = timestampMs >>> 24; // TimestampExtended: the upper 8 bits
  tag[tagSizeBytes] = tagSizeBytes >> 24;
  tag[tagSizeBytes + 1] = tagSizeBytes >> 16;
  tag[tagSizeBytes + 2] = tagSizeBytes >> 8;
  tag[tagSizeBytes + 3] = tagSizeBytes;
  return tag;
}

/**
 * The onMetaData message that opens a stream.
 * Source: Adobe FLV 10.1 E.5; Enhanced RTMP v2, "Enhancing onMetaData" (FourCCs as codec ids).
 * @param timestampMs of the message; taken modulo 2^32
 */
export function metadataMessage(tracks: readonly Track[], timestampMs: number): FlvMessage {
  const properties: Record<string, number | boolean> = {};
  for (const track of tracks) {
    if (track.kind === 'video') {
      properties.videocodecid = track.codec === 'avc' ? 7 : fourCcNumber(track);
      properties.width = track.widthPx;
      properties.height = track.heightPx;
      if (track.frameDurationTicks !== undefined) {
        properties.framerate = VIDEO_TIMESCALE_HZ / track.frameDurationTicks;
      }
    } else {
      properties.audiocodecid = track.codec === 'aac' ? 10 : track.codec === 'mp3' ? 2 : fourCcNumber(track);
      properties.audiosamplerate = track.sampleRateHz;
      properties.audiosamplesize = 16;
      properties.stereo = track.channelCount > 1;
    }
  }
  const payload = encodeAmf0(['onMetaData', new Amf0EcmaArray(properties)]);
  return { kind: 'data', timestampMs: timestampMs >>> 0, payload };
}

function fourCcNumber(track: Track): number {
  let value = 0;
  for (const character of FOUR_CC[track.codec]) value = value * 256 + character.charCodeAt(0);
  return value;
}

/**
 * The sequence header of a track for viewers. A codec that has none (MP3, AC-3, E-AC-3) gets an empty audio
 * message instead, which readers skip.
 * @param timestampMs of the message; taken modulo 2^32
 */
export function sequenceHeaderMessage(track: Track, timestampMs: number): FlvMessage {
  return { kind: track.kind, timestampMs: timestampMs >>> 0, payload: viewerSequenceStart(track) };
}

/**
 * Where a unit lies in whole milliseconds. DTS and PTS are each rounded to the nearest, so that each
 * keeps its own grid, and times that came in as milliseconds go out as they were.
 */
function viewerTimes(unit: AccessUnit, track: Track, offsetMs: number) {
  const rateHz = timescaleHz(track);
  const dtsMs = rescaleTicks(unit.dtsTicks, rateHz, 1000);
  const compositionTimeMs = rescaleTicks(unit.ptsTicks, rateHz, 1000) - dtsMs;
  // >>> 0 takes a number of any size modulo 2^32.
  return { timestampMs: (dtsMs - offsetMs) >>> 0, compositionTimeMs };
}

/**
 * One access unit as a message for viewers.
 * @param offsetMs what to subtract from the timeline, so that viewers' timestamps start small
 */
export function unitMessage(unit: AccessUnit, track: Track, offsetMs: number): FlvMessage {
  const { timestampMs, compositionTimeMs } = viewerTimes(unit, track, offsetMs);
  const headerSizeBytes = viewerHeaderSizeBytes(track.codec);
  const payload = new Uint8Array(headerSizeBytes + unit.data.length);
  writeViewerHeader(payload, 0, track, unit.isRandomAccess, compositionTimeMs);
  payload.set(unit.data, headerSizeBytes);
  return { kind: unit.kind, timestampMs, payload };
}

/**
 * One access unit as an FLV tag for viewers: `flvTag(unitMessage(...))` with one allocation and one copy of
 * the data, because every unit of every FLV stream goes through here.
 */
export function unitTag(unit: AccessUnit, track: Track, offsetMs: number): Uint8Array {
  const { timestampMs, compositionTimeMs } = viewerTimes(unit, track, offsetMs);
  const headerSizeBytes = viewerHeaderSizeBytes(track.codec);
  const tag = allocateTag(unit.kind, headerSizeBytes + unit.data.length, timestampMs);
  writeViewerHeader(tag, TAG_HEADER_SIZE_BYTES, track, unit.isRandomAccess, compositionTimeMs);
  tag.set(unit.data, TAG_HEADER_SIZE_BYTES + headerSizeBytes);
  return tag;
}

/** A message whose payload lies in several pieces. */
export interface FlvMessageParts extends Omit<FlvMessage, 'payload'> {
  readonly parts: readonly Uint8Array[];
}

/**
 * Encodes a stream for another of our nodes: Enhanced RTMP with exact times, and the data messages of
 * docs/formats/cue.md. `FlvDemuxer` inverts it.
 */
export class LinkMuxer {
  /** By {@link trackIndex}. */
  readonly #tracks = new Map<number, Track>();
  /** Data messages without a time of their own carry the last one sent, so that time never runs back. */
  #lastTimestampMs = 0;

  /** @throws Error when a unit has no track, or a composition offset that the link cannot carry */
  encode(event: StreamEvent): FlvMessage[] {
    return this.encodeParts(event).map(({ kind, timestampMs, parts }) => ({
      kind,
      timestampMs,
      payload: parts.length === 1 && parts[0] !== undefined ? parts[0] : concatBytes(parts),
    }));
  }

  /** The same, with payloads in pieces: the data of a unit is not copied. */
  encodeParts(event: StreamEvent): FlvMessageParts[] {
    switch (event.type) {
      case 'timeline':
        return [this.#dataMessage(encodeLinkMessage(event))];
      case 'track': {
        const { track } = event;
        this.#tracks.set(trackIndex(track), track);
        return [
          this.#dataMessage(encodeLinkMessage(announcementOf(track))),
          {
            kind: track.kind,
            timestampMs: this.#lastTimestampMs,
            parts: [enhancedSequenceStart(track)],
          },
        ];
      }
      case 'cue':
        this.#lastTimestampMs = Math.floor(event.cue.startTicks / TICKS_PER_MS) >>> 0;
        return [this.#dataMessage(encodeLinkMessage(event))];
      case 'unit':
        return [this.#unitMessage(event.unit)];
    }
  }

  #dataMessage(payload: Uint8Array): FlvMessageParts {
    return { kind: 'data', timestampMs: this.#lastTimestampMs, parts: [payload] };
  }

  #unitMessage(unit: AccessUnit): FlvMessageParts {
    const track = this.#tracks.get(trackIndex(unit));
    if (track === undefined) throw new Error(`a unit of ${unit.kind} ${unit.trackId} came before its track`);
    const { ms, nanos } = nanoFromTicks(unit.dtsTicks, timescaleHz(track));
    this.#lastTimestampMs = ms >>> 0;
    const header = enhancedCodedFramesHeader(unit.kind, {
      trackId: unit.trackId,
      codec: track.codec,
      isRandomAccess: unit.isRandomAccess,
      compositionTimeMs: linkCompositionTimeMs(unit, track),
      offsetNanos: nanos,
    });
    return { kind: unit.kind, timestampMs: this.#lastTimestampMs, parts: [header, unit.data] };
  }
}

/** What the sequence header of a track does not say. */
function announcementOf(track: Track): LinkMessage {
  const { kind, trackId } = track;
  if (kind === 'audio') return { type: 'track', kind, trackId, language: track.language };
  const { frameDurationTicks, widthPx, heightPx } = track;
  return { type: 'track', kind, trackId, frameDurationTicks, widthPx, heightPx };
}

/** The composition time in whole milliseconds, from which the receiver can tell the exact offset. */
function linkCompositionTimeMs(unit: AccessUnit, track: Track): number {
  const offsetTicks = unit.ptsTicks - unit.dtsTicks;
  if (offsetTicks === 0) return 0;
  const stepTicks =
    track.kind === 'video' && hasCompositionTime(track.codec)
      ? (track.frameDurationTicks ?? TICKS_PER_MS)
      : Number.POSITIVE_INFINITY;
  if (offsetTicks % stepTicks !== 0) {
    throw new Error(`a ${unit.kind} unit's PTS is ${offsetTicks} ticks after its DTS, not n x ${stepTicks}`);
  }
  return Math.round(offsetTicks / TICKS_PER_MS);
}
