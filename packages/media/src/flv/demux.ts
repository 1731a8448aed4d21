/** FLV bytes to messages, and FLV or RTMP messages to the events of a stream. */
import type { AudioTrack, StreamEvent, Track, VideoTrack } from '../access-unit.ts';
import { equalBytes } from '../bytes.ts';
import { aacTrack } from '../codec/aac.ts';
import { avcTrack } from '../codec/avc.ts';
import { MediaError } from '../error.ts';
import { TimestampUnwrapper, ticksFromNano, VIDEO_TIMESCALE_HZ } from '../time.ts';
import { decodeLinkMessage, type LinkMessage } from './link.ts';
import { type FlvMessage, parseAudioBody, parseVideoBody, TAG_TYPE } from './tag.ts';

/** A 4K key frame at 100 Mb/s stays below 2 MiB. */
const MAX_TAG_SIZE_BYTES = 8 * 1024 * 1024;

const FILE_HEADER_SIZE_BYTES = 9;
const TAG_HEADER_SIZE_BYTES = 11;
const PREVIOUS_TAG_SIZE_BYTES = 4;
const TICKS_PER_MS = VIDEO_TIMESCALE_HZ / 1000;

/**
 * Cuts an FLV byte stream (a file, a pipe, an HTTP body) into messages.
 * Source: Adobe FLV 10.1 annex E.2 to E.4.1.
 *
 * Payloads are views of the pushed bytes where a tag lies within one push, so those bytes must not be
 * reused. At most one tag (8 MiB) is held back, in memory that grows as it comes: an announced size takes
 * none. After an error the reader is spent.
 *
 * | state   | waits for                                   | then    |
 * | ------- | ------------------------------------------- | ------- |
 * | start   | the 9 bytes of the file header              | skip    |
 * | skip    | the rest of a longer header, PreviousTagSize0 | header |
 * | header  | the 11 bytes of a tag's header              | payload |
 * | payload | the tag's data and the PreviousTagSize      | header  |
 */
export class FlvReader {
  #state: { name: 'start' | 'skip' | 'header' | 'payload'; sizeBytes: number } = {
    name: 'start',
    sizeBytes: FILE_HEADER_SIZE_BYTES,
  };
  /** The beginning of the awaited structure, where it came in several pushes. */
  #partial: Uint8Array = new Uint8Array(0);
  #partialLength = 0;
  #tag: { kind: FlvMessage['kind']; timestampMs: number } = { kind: 'data', timestampMs: 0 };

  /**
   * @returns the messages that the bytes complete
   * @throws MediaError FLV_BAD_HEADER, FLV_BAD_TAG
   */
  push(bytes: Uint8Array): FlvMessage[] {
    const messages: FlvMessage[] = [];
    let offset = 0;
    for (;;) {
      const { sizeBytes } = this.#state;
      const missing = sizeBytes - this.#partialLength;
      if (bytes.length - offset < missing) {
        this.#keep(bytes.subarray(offset), sizeBytes);
        return messages;
      }
      let structure: Uint8Array;
      if (this.#partialLength === 0) {
        structure = bytes.subarray(offset, offset + sizeBytes);
      } else {
        this.#keep(bytes.subarray(offset, offset + missing), sizeBytes);
        structure = this.#partial.subarray(0, sizeBytes);
        this.#partial = new Uint8Array(0);
        this.#partialLength = 0;
      }
      offset += missing;
      const message = this.#take(structure);
      if (message !== undefined) messages.push(message);
    }
  }

  #keep(bytes: Uint8Array, sizeBytes: number): void {
    if (bytes.length === 0) return;
    const neededBytes = this.#partialLength + bytes.length;
    if (this.#partial.length < neededBytes) {
      const grown = new Uint8Array(Math.min(sizeBytes, Math.max(neededBytes, 2 * this.#partial.length)));
      grown.set(this.#partial.subarray(0, this.#partialLength));
      this.#partial = grown;
    }
    this.#partial.set(bytes, this.#partialLength);
    this.#partialLength = neededBytes;
  }

  /** Takes the whole awaited structure and says what to wait for next. */
  #take(structure: Uint8Array): FlvMessage | undefined {
    const view = new DataView(structure.buffer, structure.byteOffset, structure.byteLength);
    switch (this.#state.name) {
      case 'start': {
        const signature = view.getUint32(0);
        const headerSizeBytes = view.getUint32(5);
        // "FLV", version 1. The flags for audio and video are not believed: live encoders get them wrong.
        if (signature !== 0x464c5601 || headerSizeBytes < FILE_HEADER_SIZE_BYTES || headerSizeBytes > 1024) {
          throw new MediaError(
            'FLV_BAD_HEADER',
            `signature 0x${signature.toString(16)}, header of ${headerSizeBytes} bytes; expected 0x464c5601, 9..1024`,
          );
        }
        this.#state = {
          name: 'skip',
          sizeBytes: headerSizeBytes - FILE_HEADER_SIZE_BYTES + PREVIOUS_TAG_SIZE_BYTES,
        };
        return undefined;
      }
      case 'skip':
        this.#state = { name: 'header', sizeBytes: TAG_HEADER_SIZE_BYTES };
        return undefined;
      case 'header': {
        const dataSizeBytes = view.getUint32(0) & 0xffffff;
        if (dataSizeBytes > MAX_TAG_SIZE_BYTES) {
          throw new MediaError('FLV_BAD_TAG', `tag of ${dataSizeBytes} bytes, at most ${MAX_TAG_SIZE_BYTES}`);
        }
        const timestampMs = ((view.getUint8(7) << 24) | (view.getUint32(4) >>> 8)) >>> 0;
        this.#tag = { kind: kindOfTag(view.getUint8(0)), timestampMs };
        this.#state = { name: 'payload', sizeBytes: dataSizeBytes + PREVIOUS_TAG_SIZE_BYTES };
        return undefined;
      }
      case 'payload': {
        this.#state = { name: 'header', sizeBytes: TAG_HEADER_SIZE_BYTES };
        // The PreviousTagSize is not checked: some writers count it wrongly, and nothing needs it.
        const payload = structure.subarray(0, structure.length - PREVIOUS_TAG_SIZE_BYTES);
        return { kind: this.#tag.kind, timestampMs: this.#tag.timestampMs, payload };
      }
    }
  }
}

/** The kind of a tag by its first byte (E.4.1), whose bit 5 says that the tag is encrypted. */
function kindOfTag(typeByte: number): FlvMessage['kind'] {
  switch (typeByte) {
    case TAG_TYPE.audio:
      return 'audio';
    case TAG_TYPE.video:
      return 'video';
    case TAG_TYPE.data:
      return 'data';
    default:
      throw new MediaError('FLV_BAD_TAG', `tag type ${typeByte}, allowed 8, 9 and 18`);
  }
}

/**
 * Turns FLV or RTMP messages into stream events.
 *
 * From our own nodes (`LinkMuxer`) it gives back exactly the events that went in, also to a reader
 * that joins at a timeline, its tracks and a cue. From any other encoder it gives `track` events when a
 * sequence header comes that differs from the last, and `unit` events with times in whole milliseconds
 * on the encoder's own clock; units before their sequence header are dropped.
 *
 * A message that is refused leaves the demuxer as it was.
 */
export class FlvDemuxer {
  /**
   * FFmpeg's FLV muxer wraps at 2^31 ms, everyone else at 2^32. The smaller modulus divides the
   * larger, so unwrapping at 2^31 follows both; a cue sets the high part.
   */
  readonly #clock = new TimestampUnwrapper(2 ** 31);
  #video: VideoTrack | undefined;
  #audio: AudioTrack | undefined;
  /** What one of our nodes said of the track whose sequence header comes next. */
  #announced: Extract<LinkMessage, { type: 'track' }> | undefined;

  /** @throws MediaError FLV_BAD_TAG, FLV_UNSUPPORTED_CODEC, AVC_BAD_CONFIG, AAC_BAD_CONFIG, LINK_BAD_MESSAGE */
  push(message: FlvMessage): StreamEvent[] {
    switch (message.kind) {
      case 'video':
        return this.#pushVideo(message);
      case 'audio':
        return this.#pushAudio(message);
      case 'data':
        return this.#pushData(message.payload);
    }
  }

  #pushVideo(message: FlvMessage): StreamEvent[] {
    const body = parseVideoBody(message.payload);
    if (body.type === 'none') return [];
    if (body.type === 'sequenceStart') {
      const announced = this.#takeAnnouncement('video');
      if (announced === undefined && isSameConfig(this.#video, body.config)) return [];
      // A copy: the view would keep the buffer of the message alive as long as the track.
      this.#video = avcTrack(new Uint8Array(body.config), announced?.frameDurationTicks);
      return [{ type: 'track', track: this.#video }];
    }
    if (this.#video === undefined) return [];
    const { frameDurationTicks } = this.#video;
    const ms = this.#clock.unwrap(message.timestampMs);
    const dtsTicks = ticksFromNano({ ms, nanos: body.offsetNanos }, VIDEO_TIMESCALE_HZ);
    const offsetTicks = body.compositionTimeMs * TICKS_PER_MS;
    // Whole milliseconds cannot say a frame of 1/30 s; the number of frames that they mean is certain.
    const ptsTicks =
      dtsTicks +
      (frameDurationTicks === undefined
        ? offsetTicks
        : Math.round(offsetTicks / frameDurationTicks) * frameDurationTicks);
    const { isRandomAccess, data } = body;
    return [{ type: 'unit', unit: { kind: 'video', dtsTicks, ptsTicks, isRandomAccess, data } }];
  }

  #pushAudio(message: FlvMessage): StreamEvent[] {
    const body = parseAudioBody(message.payload);
    if (body.type === 'none') return [];
    if (body.type === 'sequenceStart') {
      const announced = this.#takeAnnouncement('audio');
      if (announced === undefined && isSameConfig(this.#audio, body.config)) return [];
      this.#audio = aacTrack(new Uint8Array(body.config));
      return [{ type: 'track', track: this.#audio }];
    }
    if (this.#audio === undefined) return [];
    const ms = this.#clock.unwrap(message.timestampMs);
    const dtsTicks = ticksFromNano({ ms, nanos: body.offsetNanos }, this.#audio.sampleRateHz);
    const { data } = body;
    return [
      { type: 'unit', unit: { kind: 'audio', dtsTicks, ptsTicks: dtsTicks, isRandomAccess: true, data } },
    ];
  }

  #takeAnnouncement(kind: Track['kind']) {
    const announced = this.#announced;
    if (announced?.kind !== kind) return undefined;
    this.#announced = undefined;
    return announced;
  }

  #pushData(payload: Uint8Array): StreamEvent[] {
    const message = decodeLinkMessage(payload);
    switch (message?.type) {
      case undefined:
        return [];
      case 'track':
        this.#announced = message;
        return [];
      case 'cue':
        this.#clock.anchor(Math.floor(message.cue.startTicks / TICKS_PER_MS));
        return [message];
      case 'timeline':
        return [message];
    }
  }
}

function isSameConfig(track: Track | undefined, config: Uint8Array): boolean {
  return track !== undefined && equalBytes(track.config, config);
}
