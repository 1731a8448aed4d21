/** FLV bytes to messages, and FLV or RTMP messages to the events of a stream. */
import {
  type AudioTrack,
  isSameTrack,
  type StreamEvent,
  type Track,
  type VideoTrack,
} from '../access-unit.ts';
import { aacTrack } from '../codec/aac.ts';
import { ac3Track, ac3TrackOf, eac3Track, eac3TrackOf } from '../codec/ac3.ts';
import { av1ConfigOf, av1Track, isAv1RandomAccess, withoutTemporalDelimiter } from '../codec/av1.ts';
import { avcTrack } from '../codec/avc.ts';
import { flacTrack } from '../codec/flac.ts';
import { hevcTrack, isHevcRandomAccess } from '../codec/hevc.ts';
import { mp3Track } from '../codec/mp3.ts';
import { opusTrack } from '../codec/opus.ts';
import { vp9KeyFrameSize, vp9Track } from '../codec/vp9.ts';
import { MediaError } from '../error.ts';
import { TimestampUnwrapper, ticksFromNano, VIDEO_TIMESCALE_HZ } from '../time.ts';
import { decodeLinkMessage, type LinkMessage } from './link.ts';
import {
  type CodedFrames,
  type FlvMessage,
  type MediaBody,
  parseAudioBody,
  parseVideoBody,
  type SequenceStart,
  TAG_TYPE,
} from './tag.ts';

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

/** Of each kind: a ladder, or a dozen languages. */
const MAX_TRACKS_PER_KIND = 16;

/** One track as far as it is known. */
interface TrackState<T extends Track> {
  readonly trackId: number;
  track: T | undefined;
  /** By one of our nodes, which has looked into the units already. */
  isAnnounced: boolean;
  /** A configuration that only the next key frame completes. */
  incomplete: { readonly codec: SequenceStart['codec']; readonly config: Uint8Array } | undefined;
}

type TrackAnnouncement = Extract<LinkMessage, { type: 'track' }>;

/**
 * Turns FLV or RTMP messages into stream events.
 *
 * From our own nodes (`LinkMuxer`) it gives back exactly the events that went in, also to a reader
 * that joins at a timeline, its tracks and a cue. From any other encoder it gives `track` events when the
 * configuration differs from the last, and `unit` events with times in whole milliseconds on the
 * encoder's own clock; units before their configuration is known are dropped. It is known with the sequence
 * header, for VP9 and some encoders' AV1 with the first key frame after it, and for AC-3, E-AC-3 and MP3,
 * which have no sequence header, with any unit.
 *
 * Of a multitrack stream it takes the first tracks of each kind that come, up to a bound, and counts what it
 * leaves.
 *
 * A message that is refused leaves the demuxer as it was.
 */
export class FlvDemuxer {
  /**
   * FFmpeg's FLV muxer wraps at 2^31 ms, everyone else at 2^32. The smaller modulus divides the
   * larger, so unwrapping at 2^31 follows both; a cue sets the high part.
   */
  readonly #clock = new TimestampUnwrapper(2 ** 31);
  readonly #video = new Map<number, TrackState<VideoTrack>>();
  readonly #audio = new Map<number, TrackState<AudioTrack>>();
  /** What one of our nodes said of the track whose sequence header comes next. */
  #announced: TrackAnnouncement | undefined;
  #ignoredBodies = 0;

  /** Sequence headers and units of tracks beyond the bound. */
  get ignoredBodies(): number {
    return this.#ignoredBodies;
  }

  /** @throws MediaError FLV_BAD_TAG, FLV_UNSUPPORTED_CODEC, LINK_BAD_MESSAGE, or the code of the codec */
  push(message: FlvMessage): StreamEvent[] {
    const { kind, payload, timestampMs } = message;
    if (kind === 'data') return this.#pushData(payload);
    const events: StreamEvent[] = [];
    for (const body of kind === 'video' ? parseVideoBody(payload) : parseAudioBody(payload)) {
      events.push(
        ...(kind === 'video' ? this.#pushVideo(body, timestampMs) : this.#pushAudio(body, timestampMs)),
      );
    }
    return events;
  }

  #pushVideo(body: MediaBody, timestampMs: number): StreamEvent[] {
    const state = this.#stateOf(this.#video, body.trackId);
    if (state === undefined) return [];
    if (body.type === 'sequenceStart') return this.#startVideo(state, body);
    return this.#takeVideo(state, body, timestampMs);
  }

  #pushAudio(body: MediaBody, timestampMs: number): StreamEvent[] {
    const state = this.#stateOf(this.#audio, body.trackId);
    if (state === undefined) return [];
    if (body.type === 'sequenceStart') return this.#startAudio(state, body);
    return this.#takeAudio(state, body, timestampMs);
  }

  /** @returns undefined where the stream has as many tracks of the kind as it may have */
  #stateOf<T extends Track>(states: Map<number, TrackState<T>>, trackId: number): TrackState<T> | undefined {
    const known = states.get(trackId);
    if (known !== undefined) return known;
    if (states.size >= MAX_TRACKS_PER_KIND) {
      this.#ignoredBodies++;
      return undefined;
    }
    const state = { trackId, track: undefined, isAnnounced: false, incomplete: undefined };
    states.set(trackId, state);
    return state;
  }

  #startVideo(state: TrackState<VideoTrack>, { codec, config: view }: SequenceStart): StreamEvent[] {
    const announced = this.#takeAnnouncement('video', state.trackId);
    // A copy: the view would keep the buffer of the message alive as long as the track.
    const config = new Uint8Array(view);
    const track = videoTrackOf(codec, config, announced);
    if (track !== undefined) return setTrack(state, track, announced !== undefined);
    // Sent again while the stream goes on: the key frames show if anything has changed.
    state.incomplete = { codec, config };
    if (state.track?.codec !== codec) state.track = undefined;
    return [];
  }

  #takeVideo(state: TrackState<VideoTrack>, body: CodedFrames, timestampMs: number): StreamEvent[] {
    if (state.track !== undefined && state.isAnnounced) {
      return [this.#videoUnit(body, state.track, timestampMs, body.isRandomAccess, body.data)];
    }
    const isRandomAccess = isVideoRandomAccess(body, state.track);
    const events = isRandomAccess ? readKeyFrame(state, body) : [];
    const { track } = state;
    if (track === undefined || track.codec !== body.codec) return events;
    const data = body.codec === 'av1' ? withoutTemporalDelimiter(body.data) : body.data;
    if (data.length === 0) return events;
    events.push(this.#videoUnit(body, track, timestampMs, isRandomAccess, data));
    return events;
  }

  #videoUnit(
    body: CodedFrames,
    track: VideoTrack,
    timestampMs: number,
    isRandomAccess: boolean,
    data: Uint8Array,
  ): StreamEvent {
    const { frameDurationTicks } = track;
    const ms = this.#clock.unwrap(timestampMs);
    const dtsTicks = ticksFromNano({ ms, nanos: body.offsetNanos }, VIDEO_TIMESCALE_HZ);
    const offsetTicks = body.compositionTimeMs * TICKS_PER_MS;
    // Whole milliseconds cannot say a frame of 1/30 s; the number of frames that they mean is certain.
    const ptsTicks =
      dtsTicks +
      (frameDurationTicks === undefined
        ? offsetTicks
        : Math.round(offsetTicks / frameDurationTicks) * frameDurationTicks);
    const { trackId } = body;
    return { type: 'unit', unit: { kind: 'video', trackId, dtsTicks, ptsTicks, isRandomAccess, data } };
  }

  #startAudio(state: TrackState<AudioTrack>, { codec, config }: SequenceStart): StreamEvent[] {
    const announced = this.#takeAnnouncement('audio', state.trackId);
    const track = audioTrackOf(codec, new Uint8Array(config));
    if (track === undefined) return [];
    return setTrack(state, { ...track, language: announced?.language }, announced !== undefined);
  }

  #takeAudio(state: TrackState<AudioTrack>, body: CodedFrames, timestampMs: number): StreamEvent[] {
    const events: StreamEvent[] = [];
    if (!state.isAnnounced) {
      const described = selfDescribedTrackOf(body);
      if (described !== undefined && !isSimilar(described, state.track)) {
        events.push(...setTrack(state, described, false));
      }
    }
    const { track } = state;
    if (track === undefined || track.codec !== body.codec) return events;
    const ms = this.#clock.unwrap(timestampMs);
    const dtsTicks = ticksFromNano({ ms, nanos: body.offsetNanos }, track.sampleRateHz);
    const { trackId, data } = body;
    events.push({
      type: 'unit',
      unit: { kind: 'audio', trackId, dtsTicks, ptsTicks: dtsTicks, isRandomAccess: true, data },
    });
    return events;
  }

  #takeAnnouncement<Kind extends Track['kind']>(
    kind: Kind,
    trackId: number,
  ): Extract<TrackAnnouncement, { kind: Kind }> | undefined {
    const announced = this.#announced;
    if (!isOfKind(announced, kind) || announced.trackId !== trackId) return undefined;
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

/** Takes over what was found out about a track; its event, if it is news. */
function setTrack<T extends Track>(state: TrackState<T>, found: T, isAnnounced: boolean): StreamEvent[] {
  const known = state.track;
  state.incomplete = undefined;
  if (!isAnnounced && known !== undefined && isSameTrack(known, found)) return [];
  const track = { ...found, trackId: state.trackId };
  state.track = track;
  state.isAnnounced = isAnnounced;
  return [{ type: 'track', track }];
}

/** Takes from a key frame what the sequence header did not say. */
function readKeyFrame(state: TrackState<VideoTrack>, { codec, data }: CodedFrames): StreamEvent[] {
  const config = state.incomplete?.config ?? state.track?.config;
  if (codec === 'vp9' && config !== undefined) {
    const size = vp9KeyFrameSize(data);
    return size === undefined ? [] : setTrack(state, vp9Track(config, size), false);
  }
  if (codec === 'av1' && state.incomplete !== undefined) {
    const track = av1Track(av1ConfigOf(data) ?? state.incomplete.config);
    return track === undefined ? [] : setTrack(state, track, false);
  }
  return [];
}

function isOfKind<Kind extends Track['kind']>(
  announced: TrackAnnouncement | undefined,
  kind: Kind,
): announced is Extract<TrackAnnouncement, { kind: Kind }> {
  return announced?.kind === kind;
}

/** @returns undefined where only a key frame can say the rest */
function videoTrackOf(
  codec: SequenceStart['codec'],
  config: Uint8Array,
  announced: Extract<TrackAnnouncement, { kind: 'video' }> | undefined,
): VideoTrack | undefined {
  const frameDurationTicks = announced?.frameDurationTicks;
  switch (codec) {
    case 'hevc':
      return hevcTrack(config, frameDurationTicks);
    case 'av1':
      return av1Track(config, frameDurationTicks);
    case 'vp9':
      return announced && vp9Track(config, announced, frameDurationTicks);
    default:
      return avcTrack(config, frameDurationTicks);
  }
}

/** The judgement of the bitstream where encoders are known to differ, else the frame type. */
function isVideoRandomAccess(body: CodedFrames, track: VideoTrack | undefined): boolean {
  switch (body.codec) {
    case 'hevc':
      return track?.codec === 'hevc' && isHevcRandomAccess(track.config, body.data);
    case 'av1':
      return isAv1RandomAccess(body.data);
    case 'vp9':
      return vp9KeyFrameSize(body.data) !== undefined;
    default:
      return body.isRandomAccess;
  }
}

/**
 * @returns undefined for an empty sequence header: of a codec that has none, or of AAC that FFmpeg copies from
 *   MPEG-TS, which sends the full one after its first unit
 */
function audioTrackOf(codec: SequenceStart['codec'], config: Uint8Array): AudioTrack | undefined {
  switch (codec) {
    case 'opus':
      return opusTrack(config);
    case 'flac':
      return flacTrack(config);
    case 'ac3':
      return config.length === 0 ? undefined : ac3Track(config);
    case 'eac3':
      return config.length === 0 ? undefined : eac3Track(config);
    case 'mp3':
      return config.length === 0 ? undefined : mp3Track(config);
    default:
      return config.length === 0 ? undefined : aacTrack(config);
  }
}

/** The track that a unit describes, in codecs whose units do. */
function selfDescribedTrackOf({ codec, data }: CodedFrames): AudioTrack | undefined {
  switch (codec) {
    case 'ac3':
      return ac3TrackOf(data);
    case 'eac3':
      return eac3TrackOf(data);
    case 'mp3':
      return mp3Track(data);
    default:
      return undefined;
  }
}

/** The same but for the bit rate, which may change from unit to unit. */
function isSimilar(a: AudioTrack, b: AudioTrack | undefined): boolean {
  return a.codec === b?.codec && a.sampleRateHz === b.sampleRateHz && a.channelCount === b.channelCount;
}
