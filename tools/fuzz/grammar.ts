/**
 * Inputs made of what real peers send, with every field sometimes wrong: AMF0 values, RTMP chunks and
 * commands, FLV tags, the behaviour of an encoder, MP4 boxes.
 */
import type {
  AccessUnit,
  AudioTrack,
  Cue,
  StreamEvent,
  Track,
  VideoTrack,
} from '@starling/media/access-unit';
import { ByteWriter, concatBytes } from '@starling/media/bytes';
import { encodeLinkMessage } from '@starling/media/flv/link';
import { flvTag, LinkMuxer } from '@starling/media/flv/mux';
import {
  enhancedCodedFrames,
  enhancedSequenceStart,
  type FlvMessage,
  viewerSequenceStart,
  writeViewerHeader,
} from '@starling/media/flv/tag';
import { fragment } from '@starling/media/fmp4/fragment';
import { initSegment } from '@starling/media/fmp4/init-segment';
import { Amf0EcmaArray, type Amf0Object, type Amf0Value, encodeAmf0 } from '@starling/media/rtmp/amf0';
import type { RtmpMessage } from '@starling/media/rtmp/message';
import { rescaleTicks, VIDEO_TIMESCALE_HZ } from '@starling/media/time';
import type { Random } from './random.ts';

const hex = (digits: string) => Uint8Array.from(Buffer.from(digits, 'hex'));

/** AVCDecoderConfigurationRecords: 160x96 baseline; the same at level 1.1; 160x90 with VUI, from x264. */
export const AVC_CONFIGS: readonly [Uint8Array, ...Uint8Array[]] = [
  hex('0142c00affe100096742c00ada0282c68001000468ce3c80'),
  hex('0142c00bffe100096742c00bda0282c68001000468ce3c80'),
  hex('0164000affe1001a6764000aacd9428df9610000030001000003003283c489658001000668ebe3cb22c0'),
];
/** AudioSpecificConfigs: LC 48 kHz stereo, LC 44.1 kHz mono, HE-AAC by explicit signalling, 7.35 kHz. */
export const AAC_CONFIGS: readonly [Uint8Array, ...Uint8Array[]] = [
  hex('1190'),
  hex('1208'),
  hex('2b118800'),
  hex('1610'),
];

const TEXTS = [
  '',
  'live',
  'cam',
  'cam?key=K',
  '/live/',
  'live/cam?a=1&b=2&a=3',
  'a=%41%zz&&=x',
  'rtmp://host/live',
  'rtmp://host:1935/live/x?key=k',
  'é€😀',
  '\u0000',
  '__proto__',
  'constructor',
  '//////////',
  '@setDataFrame',
  'onMetaData',
  'NetStream.Publish.Start',
  'NetStream.Play.Start',
  'status',
  'error',
] as const; // prettier-ignore
const NUMBERS = [
  0,
  1,
  -1,
  2,
  3,
  0.5,
  1e9,
  2 ** 31,
  2 ** 32,
  2 ** 53 - 1,
  2 ** 53,
  1e300,
  -0,
  Number.NaN,
  Number.POSITIVE_INFINITY,
] as const; // prettier-ignore

export function anyText(random: Random): string {
  if (random.oneIn(40)) return 'x'.repeat(random.between(1, 70_000));
  return TEXTS[random.below(TEXTS.length)] ?? '';
}

export function anyNumber(random: Random): number {
  return random.oneIn(3) ? random.between(-10, 100_000) : (NUMBERS[random.below(NUMBERS.length)] ?? 0);
}

export function anyAmfValue(random: Random, depth = 0): Amf0Value {
  switch (random.below(depth > 3 ? 6 : 9)) {
    case 0:
    case 1:
      return anyNumber(random);
    case 2:
      return random.oneIn(2);
    case 3:
      return anyText(random);
    case 4:
      return random.oneIn(2) ? null : undefined;
    case 5:
      return new Date(anyNumber(random));
    case 6:
      return Array.from({ length: random.below(4) }, () => anyAmfValue(random, depth + 1));
    default: {
      const object: Amf0Object = Object.create(null); // so that __proto__ is a name like any other
      for (let i = random.below(4); i > 0; i--) {
        object[anyText(random).slice(0, 100)] = anyAmfValue(random, depth + 1);
      }
      return object;
    }
  }
}

/** AMF0 with the markers that an encoder of ours never writes. */
export function amfBytes(random: Random): Uint8Array {
  const parts: Uint8Array[] = [];
  for (let i = random.between(1, 5); i > 0; i--) {
    switch (random.below(6)) {
      case 0:
        parts.push(concatBytes([hex('0700010d0e'), random.bytes(3)]));
        break;
      case 1: // AMF3 scalars behind the avmplus marker
        parts.push(concatBytes([Uint8Array.of(0x11, random.below(8)), random.bytes(random.below(10))]));
        break;
      case 2: // a typed object
        parts.push(concatBytes([hex('10000141'), encodeAmf0([{ a: anyAmfValue(random) }]).subarray(1)]));
        break;
      case 3:
        parts.push(encodeAmf0([new Amf0EcmaArray({ [`${random.below(3)}`]: anyAmfValue(random) })]));
        break;
      case 4: {
        const depth = random.between(1, 40);
        parts.push(concatBytes([...Array.from({ length: depth }, () => hex('0a00000001')), hex('05')]));
        break;
      }
      default:
        parts.push(encodeAmf0([anyAmfValue(random)]));
    }
  }
  return concatBytes(parts);
}

// RTMP

/** C0, C1 and C2, or S0, S1 and S2. */
export function handshakeBytes(): Uint8Array {
  const bytes = new Uint8Array(1 + 2 * 1536);
  bytes[0] = 3;
  return bytes;
}

const CHUNK_STREAM_IDS = [2, 3, 4, 5, 6, 7, 8, 63, 64, 319, 320, 65_599] as const;

/** Cuts messages into chunks with headers of every format, as a careless or hostile peer would. */
export function chunkBytes(random: Random, messages: readonly RtmpMessage[]): Uint8Array {
  const out = new ByteWriter(1024);
  const last = new Map<number, RtmpMessage & { delta: number }>();
  let chunkSizeBytes = 128;
  const writeHeader = (format: number, chunkStreamId: number) => {
    if (chunkStreamId < 64) out.u8((format << 6) | chunkStreamId);
    else if (chunkStreamId < 320) out.u8(format << 6).u8(chunkStreamId - 64);
    else
      out
        .u8((format << 6) | 1)
        .u8((chunkStreamId - 64) & 0xff)
        .u8((chunkStreamId - 64) >> 8);
  };
  const write = (message: RtmpMessage, chunkStreamId: number) => {
    const before = last.get(chunkStreamId);
    const delta = before === undefined ? 0 : (message.timestampMs - before.timestampMs) >>> 0;
    const isSame = before?.payload.length === message.payload.length && before.typeId === message.typeId;
    let format = before === undefined || before.streamId !== message.streamId ? 0 : 1;
    if (format === 1 && isSame)
      format = delta === before?.delta ? random.between(1, 3) : random.between(1, 2);
    if (random.oneIn(10)) format = random.below(4);
    const time = format === 0 ? message.timestampMs : delta;
    const isExtended = time >= 0xff_ffff || random.oneIn(40);
    writeHeader(format, chunkStreamId);
    if (format <= 2) out.u24(isExtended ? 0xff_ffff : time);
    const lengthBytes = random.oneIn(40) ? random.below(2 ** 24) : message.payload.length;
    if (format <= 1) out.u24(lengthBytes).u8(message.typeId);
    if (format === 0)
      out.bytes(Uint8Array.of(message.streamId, message.streamId >> 8, message.streamId >> 16, 0));
    if (isExtended && format <= 2) out.u32(time);
    let at = 0;
    do {
      if (at > 0) {
        writeHeader(random.oneIn(60) ? random.below(4) : 3, chunkStreamId);
        if (isExtended && !random.oneIn(4)) out.u32(time);
      }
      out.bytes(message.payload.subarray(at, at + chunkSizeBytes));
      at += chunkSizeBytes;
      if (at < message.payload.length && random.oneIn(10)) {
        write(controlMessage(random), random.oneIn(4) ? chunkStreamId : 2); // between the chunks of another
      }
    } while (at < message.payload.length);
    last.set(chunkStreamId, { ...message, delta });
    if (message.typeId === 1 && message.payload.length >= 4) {
      const announced = new DataView(message.payload.slice().buffer).getUint32(0);
      if (announced > 0 && announced < 2 ** 31) chunkSizeBytes = announced;
    }
  };
  for (const message of messages) {
    const usual = message.typeId < 7 ? 2 : message.typeId === 20 ? 3 : message.typeId === 8 ? 4 : 6;
    write(message, random.oneIn(8) ? (CHUNK_STREAM_IDS[random.below(12)] ?? 3) : usual);
  }
  return out.finish().slice();
}

export function controlMessage(random: Random): RtmpMessage {
  const typeId = random.between(1, 6);
  const writer = new ByteWriter(8);
  if (typeId === 4) writer.u16(random.below(32)).bytes(random.bytes(random.pick([0, 2, 4, 8, 12])));
  else
    writer.u32(
      random.pick([0, 1, 2, 4, 64, 128, 4096, 60_000, 2_500_000, 0xff_ffff, 0x7fff_ffff, 0xffff_ffff]),
    );
  if (typeId === 6) writer.u8(random.below(4));
  const payload = writer.finish().slice(0, random.oneIn(20) ? random.below(writer.length) : undefined);
  return { typeId, streamId: 0, timestampMs: 0, payload };
}

function command(random: Random, streamId: number, ...values: Amf0Value[]): RtmpMessage {
  const some = values.map((value) => (random.oneIn(25) ? anyAmfValue(random) : value));
  let payload = encodeAmf0(some);
  if (random.oneIn(15)) payload = concatBytes([payload, amfBytes(random)]);
  if (random.oneIn(15)) {
    return { typeId: 17, streamId, timestampMs: 0, payload: concatBytes([Uint8Array.of(0), payload]) };
  }
  return { typeId: 20, streamId, timestampMs: 0, payload };
}

function mediaMessages(random: Random, streamId: number): RtmpMessage[] {
  return encoderMessages(random, random.between(1, 12)).map(({ message }) => ({
    typeId: message.kind === 'audio' ? 8 : message.kind === 'video' ? 9 : random.pick([15, 18]),
    streamId: random.oneIn(10) ? 0 : streamId,
    timestampMs: message.timestampMs,
    payload: message.payload,
  }));
}

/** Messages in one aggregate (RTMP 1.0, 7.1.6). */
function aggregate(random: Random, messages: readonly RtmpMessage[]): RtmpMessage {
  const writer = new ByteWriter(256);
  for (const { typeId, timestampMs, payload } of messages) {
    writer.u8(typeId).u24(random.oneIn(20) ? random.below(2 ** 24) : payload.length);
    writer
      .u24(timestampMs & 0xff_ffff)
      .u8(timestampMs >>> 24)
      .u24(0);
    writer.bytes(payload).u32(payload.length + 11);
  }
  return {
    typeId: 22,
    streamId: 1,
    timestampMs: messages[0]?.timestampMs ?? 0,
    payload: writer.finish().slice(),
  };
}

/** What a publisher or a player sends to a server. */
export function clientToServerMessages(random: Random): RtmpMessage[] {
  const connect: Amf0Object = { app: random.oneIn(4) ? anyText(random) : 'live', tcUrl: 'rtmp://host/live' };
  if (random.oneIn(3))
    Object.assign(connect, { objectEncoding: random.pick([0, 3]), tcUrl: anyText(random) });
  if (random.oneIn(3)) connect.fourCcList = random.oneIn(2) ? ['avc1', '*'] : anyAmfValue(random);
  if (random.oneIn(4)) connect.videoFourCcInfoMap = random.oneIn(2) ? { hvc1: 7 } : anyAmfValue(random);
  const name = random.oneIn(3) ? anyText(random) : 'cam?key=K';
  const verb = random.pick(['publish', 'publish', 'play']);
  const script: RtmpMessage[][] = [
    [controlMessage(random)],
    [command(random, 0, 'connect', 1, connect)],
    [command(random, 0, 'releaseStream', 2, null, name), command(random, 0, 'FCPublish', 3, null, name)],
    [command(random, 0, 'createStream', 4, null)],
    [command(random, 1, verb, 5, null, name, 'live')],
    mediaMessages(random, 1),
    [aggregate(random, mediaMessages(random, 1))],
    [controlMessage(random)],
    [
      command(
        random,
        0,
        random.pick(['FCUnpublish', 'deleteStream', 'closeStream', 'getStreamLength']),
        6,
        null,
        1,
      ),
    ],
    [
      command(
        random,
        1,
        random.pick(['publish', 'play', 'connect', 'nonsense', '_result', '_checkbw']),
        7,
        null,
        name,
      ),
    ],
    mediaMessages(random, 1),
  ];
  return disturbed(random, script).flat();
}

/** What a server sends to a client. */
export function serverToClientMessages(random: Random): RtmpMessage[] {
  const status = (code: string, level: string): Amf0Object => ({ level, code, description: 'words' });
  const started = random.pick(['NetStream.Publish.Start', 'NetStream.Play.Start']);
  const script: RtmpMessage[][] = [
    [controlMessage(random), controlMessage(random)],
    [
      command(
        random,
        0,
        random.oneIn(8) ? '_error' : '_result',
        1,
        {},
        status('NetConnection.Connect.Success', 'status'),
      ),
    ],
    [command(random, 0, 'onBWDone', 0, null)],
    [
      command(
        random,
        0,
        random.oneIn(8) ? '_error' : '_result',
        4,
        null,
        random.oneIn(6) ? anyNumber(random) : 1,
      ),
    ],
    [command(random, 1, 'onStatus', 0, null, status(started, 'status'))],
    mediaMessages(random, 1),
    [aggregate(random, mediaMessages(random, 1))],
    [
      command(random, 0, 'onStatus', 0, null, {
        ...status('NetConnection.Connect.ReconnectRequest', 'status'),
        tcUrl: anyAmfValue(random),
      }),
    ],
    [command(random, 1, 'onStatus', 0, null, status('NetStream.Failed', 'error'))],
  ];
  return disturbed(random, script).flat();
}

/** A script with steps sometimes left out, repeated or swapped. */
function disturbed<T>(random: Random, script: readonly T[]): T[] {
  const steps = [...script];
  while (random.oneIn(2)) {
    const at = random.below(steps.length);
    const [step] = steps.splice(at, 1);
    if (step === undefined) break;
    if (random.oneIn(2)) steps.splice(random.below(steps.length), 0, step);
    if (random.oneIn(3)) steps.splice(random.below(steps.length), 0, step);
  }
  return steps;
}

// FLV

export interface TimedMessage {
  readonly message: FlvMessage;
  /** Wall-clock time since the message before; stands in the tag's stream id, which FLV leaves 0. */
  readonly elapsedMs: number;
}

/** Tags, with the arrival times in their stream ids. */
export function flvTags(messages: readonly TimedMessage[]): Uint8Array {
  return concatBytes(
    messages.map(({ message, elapsedMs }) => {
      const tag = flvTag(message);
      tag[8] = elapsedMs >> 16;
      tag[9] = elapsedMs >> 8;
      tag[10] = elapsedMs;
      return tag;
    }),
  );
}

/** Reads what {@link flvTags} wrote, whatever has become of it: every input is some sequence of tags. */
export function readFlvTags(input: Uint8Array): { isEnd: boolean; timed: TimedMessage }[] {
  return splitFlvTags(input)
    .filter((tag) => tag.length >= 15)
    .map((tag) => {
      const view = new DataView(tag.buffer, tag.byteOffset, tag.byteLength);
      const kind = tag[0] === 8 ? 'audio' : tag[0] === 9 ? 'video' : 'data';
      const timestampMs = ((view.getUint8(7) << 24) | (view.getUint32(4) >>> 8)) >>> 0;
      const message: FlvMessage = { kind, timestampMs, payload: tag.subarray(11, tag.length - 4) };
      return { isEnd: tag[0] === 0, timed: { message, elapsedMs: view.getUint32(7) & 0xff_ffff } };
    });
}

export function splitFlvTags(input: Uint8Array): Uint8Array[] {
  const tags: Uint8Array[] = [];
  for (let at = 0; at < input.length; ) {
    const bodySizeBytes = ((input[at + 1] ?? 0) << 16) | ((input[at + 2] ?? 0) << 8) | (input[at + 3] ?? 0);
    tags.push(input.subarray(at, at + 15 + bodySizeBytes));
    at += 15 + bodySizeBytes;
  }
  return tags;
}

/** A track of which only the codec and the configuration count: what is in it may be nonsense. */
function videoTrackOf(config: Uint8Array): VideoTrack {
  return {
    kind: 'video',
    trackId: 0,
    codec: 'avc',
    config,
    codecString: '',
    widthPx: 0,
    heightPx: 0,
    frameDurationTicks: undefined,
  };
}

function audioTrackOf(config: Uint8Array): AudioTrack {
  return {
    kind: 'audio',
    trackId: 0,
    language: undefined,
    codec: 'aac',
    config,
    codecString: '',
    sampleRateHz: 48_000,
    channelCount: 2,
  };
}

export function videoBody(
  random: Random,
  isRandomAccess: boolean,
  compositionTimeMs: number,
  data: Uint8Array,
): Uint8Array {
  if (random.oneIn(4)) {
    const offsetNanos = random.oneIn(2) ? 0 : random.below(1_000_000);
    return enhancedCodedFrames('video', {
      trackId: random.oneIn(4) ? random.below(256) : 0,
      codec: 'avc',
      isRandomAccess,
      compositionTimeMs,
      offsetNanos,
      data,
    });
  }
  const body = new Uint8Array(5 + data.length);
  writeViewerHeader(body, 0, videoTrackOf(new Uint8Array(0)), isRandomAccess, compositionTimeMs);
  body.set(data, 5);
  return body;
}

function audioBody(random: Random, data: Uint8Array): Uint8Array {
  if (random.oneIn(4)) {
    return enhancedCodedFrames('audio', {
      trackId: random.oneIn(4) ? random.below(256) : 0,
      codec: 'aac',
      isRandomAccess: true,
      compositionTimeMs: 0,
      offsetNanos: 0,
      data,
    });
  }
  const body = new Uint8Array(2 + data.length);
  writeViewerHeader(body, 0, audioTrackOf(new Uint8Array(0)), true, 0);
  body.set(data, 2);
  return body;
}

/** Bodies that hardly anybody sends: command frames, ModEx chains, multitrack, other codecs. */
function oddBody(random: Random): FlvMessage['payload'] {
  const first = random.pick([
    0x57,
    0xd4,
    0x97,
    0x95,
    0x86,
    0x87,
    0x90,
    0x94,
    0xa7,
    0x22,
    0x2f,
    0x17,
    0xaf,
    0x90 | 5,
  ]);
  const middle = random.pick([
    hex(''),
    hex('0200000001'),
    hex('02ffffff0061766331'),
    hex('ff0000aa016d703461'),
    hex('0061766331'),
    hex('68766331'),
    hex('6d703461'),
    hex('00020000030707'),
  ]);
  return concatBytes([Uint8Array.of(first), middle, random.bytes(random.below(6))]);
}

/** An encoder's stream: sequence headers, pictures and sound, with every kind of bad clock. */
export function encoderMessages(random: Random, unitCount: number): TimedMessage[] {
  const frameMs = random.pick([40, 33, 17, 20, 100, 500, 1]);
  const gopFrames = random.pick([1, 5, 25, 50, 250]);
  const hasVideo = !random.oneIn(6);
  const hasAudio = !random.oneIn(6);
  /** A second picture and a second sound, at the same times. */
  const secondId = random.oneIn(4) ? random.between(1, 255) : undefined;
  const audioUnitMs = random.pick([21.333, 23.22, 46.44, 139.32]);
  let clockMs = random.pick([0, 0, 5000, 0x7fff_ff00, 0xffff_ff00, 0xff_fff0]);
  let videoMs = clockMs;
  let audioMs = clockMs;
  const messages: TimedMessage[] = [];
  const push = (kind: FlvMessage['kind'], timeMs: number, payload: Uint8Array) => {
    const elapsedMs = random.oneIn(60) ? random.between(0, 20_000) : random.oneIn(3) ? frameMs : 0;
    messages.push({ message: { kind, timestampMs: Math.round(timeMs) >>> 0, payload }, elapsedMs });
  };
  const announce = () => {
    const video = random.pick(AVC_CONFIGS);
    const audio = random.oneIn(4) ? random.pick(AAC_CONFIGS) : AAC_CONFIGS[0];
    if (random.oneIn(3)) push('data', clockMs, encodeAmf0(['onMetaData', new Amf0EcmaArray({ width: 160 })]));
    const start = random.oneIn(4) ? enhancedSequenceStart : viewerSequenceStart;
    if (hasVideo) push('video', clockMs, start(videoTrackOf(video)));
    if (hasAudio) push('audio', clockMs, start(audioTrackOf(audio)));
    if (secondId === undefined) return;
    const second = [...(hasVideo ? [videoTrackOf(video)] : []), ...(hasAudio ? [audioTrackOf(audio)] : [])];
    for (const track of second) {
      push(track.kind, clockMs, enhancedSequenceStart({ ...track, trackId: secondId }));
    }
  };
  const pushSecond = (kind: 'video' | 'audio', timeMs: number, isRandomAccess: boolean, data: Uint8Array) => {
    if (secondId === undefined) return;
    const codec = kind === 'video' ? 'avc' : 'aac';
    const frames = {
      codec,
      trackId: secondId,
      isRandomAccess,
      compositionTimeMs: 0,
      offsetNanos: 0,
      data,
    } as const;
    push(kind, timeMs, enhancedCodedFrames(kind, frames));
  };
  announce();
  let frame = 0;
  for (let i = 0; i < unitCount; i++) {
    if (random.oneIn(150)) {
      const jumpMs = random.pick([-5, -200, -100_000, 150, 700, 3000, 9000, 11_000, 1_000_000, 2 ** 31]);
      videoMs += jumpMs;
      audioMs += random.oneIn(3) ? 0 : jumpMs;
    }
    if (random.oneIn(150)) announce();
    if (random.oneIn(100)) push(random.pick(['video', 'audio']), videoMs, oddBody(random));
    const data = random.bytes(random.between(0, 3));
    if (hasVideo && (!hasAudio || videoMs <= audioMs)) {
      const isKey = frame++ % gopFrames === 0 || random.oneIn(100);
      push('video', videoMs, videoBody(random, isKey, random.pick([0, 0, 40, 80, -40, 8_388_607]), data));
      pushSecond('video', videoMs, isKey, data);
      videoMs += frameMs + (random.oneIn(10) ? random.between(-3, 3) : 0);
      clockMs = videoMs;
    } else if (hasAudio) {
      push('audio', audioMs, audioBody(random, data));
      pushSecond('audio', audioMs, true, data);
      audioMs += audioUnitMs;
      clockMs = audioMs;
    }
  }
  return messages;
}

// Our own links

export const VIDEO_TRACK: VideoTrack = {
  kind: 'video',
  trackId: 0,
  codec: 'avc',
  config: AVC_CONFIGS[0],
  codecString: 'avc1.42c00a',
  widthPx: 160,
  heightPx: 96,
  frameDurationTicks: 3600,
};

export const AUDIO_TRACK: AudioTrack = {
  kind: 'audio',
  trackId: 0,
  language: undefined,
  codec: 'aac',
  config: AAC_CONFIGS[0],
  codecString: 'mp4a.40.2',
  sampleRateHz: 48_000,
  channelCount: 2,
};

const STARTS_TICKS = [0, 180_000, 90_000 * 86_400 * 365, 2 ** 31 * 90 - 90_000, 2 ** 53 - 2] as const;

/** A channel as a backend pushes it, with fields of its cues sometimes out of the ordinary. */
export function linkMessages(random: Random): TimedMessage[] {
  const segmentFrames = random.pick([1, 12, 25, 50]);
  const frameTicks = random.pick([3600, 3600, 3000, 1500]);
  const defaults: Track[] = [{ ...VIDEO_TRACK, frameDurationTicks: frameTicks }, AUDIO_TRACK].filter(
    () => !random.oneIn(8),
  );
  // Sometimes several of a kind.
  const others = defaults.flatMap((track) =>
    random.oneIn(4) ? [{ ...track, trackId: random.below(256) }] : [],
  );
  const tracks = [...defaults, ...others];
  const segmentTicks = segmentFrames * frameTicks;
  let startTicks = random.oneIn(4) ? (STARTS_TICKS[random.below(5)] ?? 0) : 180_000 * random.below(1000);
  let mediaSequenceNumber = random.oneIn(8) ? 2 ** 53 - random.between(1, 5) : random.below(1000);
  let discontinuitySequence = random.below(3);
  const muxer = new LinkMuxer();
  const messages: TimedMessage[] = [];
  const push = (message: FlvMessage) => messages.push({ message, elapsedMs: 0 });
  const send = (event: StreamEvent) => {
    for (const message of muxer.encode(event)) if (!random.oneIn(200)) push(message);
  };
  send({ type: 'timeline', epochUnixMs: random.oneIn(10) ? anyNumber(random) : 1_700_000_000_000 });
  for (const track of tracks) send({ type: 'track', track });
  let audioTicks = Math.ceil(rescaleTicks(startTicks, VIDEO_TIMESCALE_HZ, 48_000));
  for (let segments = random.between(1, 8); segments > 0; segments--) {
    const cue: Cue = {
      mediaSequenceNumber,
      discontinuitySequence,
      startTicks,
      programDateTimeUnixMs: 1_700_000_000_000 + Math.floor(startTicks / 90),
      programmeId: 'p',
      targetDurationMs: random.oneIn(10) ? random.pick([0, 1, 999, 1e9]) : 2000,
      isIndependent: !random.oneIn(10),
      ...(random.oneIn(3) && {
        programme: {
          title: random.pick(['', 'News', 'a "b", c', '\u0000\r\n#EXTINF:1,\nx.m4s', 'u\u0308']),
          startUnixMs: random.below(1000),
          endUnixMs: 1000 + random.below(10 ** 13),
        },
      }),
    };
    const odd = random.oneIn(12) ? anyCueChange(random) : {};
    for (const message of muxer.encode({ type: 'cue', cue })) {
      push({ ...message, payload: encodeLinkMessage({ type: 'cue', cue: { ...cue, ...odd } }) });
    }
    for (let frame = 0; frame < segmentFrames; frame++) {
      const dtsTicks = startTicks + frame * frameTicks;
      const data = random.bytes(random.below(3) + 1);
      const ptsTicks = dtsTicks + (random.oneIn(8) ? frameTicks : 0);
      for (const { trackId } of tracks.filter(({ kind }) => kind === 'video')) {
        send({
          type: 'unit',
          unit: { kind: 'video', trackId, dtsTicks, ptsTicks, isRandomAccess: frame === 0, data },
        });
      }
      while (tracks.some(({ kind }) => kind === 'audio') && audioTicks * 1.875 < dtsTicks + frameTicks) {
        for (const { trackId } of tracks.filter(({ kind }) => kind === 'audio')) {
          send({
            type: 'unit',
            unit: {
              kind: 'audio',
              trackId,
              dtsTicks: audioTicks,
              ptsTicks: audioTicks,
              isRandomAccess: true,
              data,
            },
          });
        }
        audioTicks += 1024;
      }
    }
    startTicks += segmentTicks;
    mediaSequenceNumber++;
    if (random.oneIn(6)) {
      startTicks += random.pick([0, 90_000, 900_000]);
      mediaSequenceNumber += random.pick([0, 0, 1]);
      discontinuitySequence += random.pick([0, 1, 1, 2]);
      audioTicks = Math.ceil(rescaleTicks(startTicks, VIDEO_TIMESCALE_HZ, 48_000));
      const config = random.pick(AAC_CONFIGS);
      if (random.oneIn(2)) for (const track of tracks) send({ type: 'track', track });
      if (random.oneIn(4)) send({ type: 'track', track: { ...AUDIO_TRACK, config } });
    }
  }
  return messages;
}

function anyCueChange(random: Random): Partial<Cue> {
  const key = random.pick([
    'mediaSequenceNumber',
    'discontinuitySequence',
    'startTicks',
    'programDateTimeUnixMs',
    'targetDurationMs',
  ]); // prettier-ignore
  return { [key]: anyNumber(random) };
}

// MP4

export function initSegmentBytes(random: Random): Uint8Array {
  const video = {
    ...VIDEO_TRACK,
    config: random.pick(AVC_CONFIGS),
    frameDurationTicks: random.pick([undefined, 1, 3600]),
  };
  const audio = {
    ...AUDIO_TRACK,
    config: random.pick(AAC_CONFIGS),
    sampleRateHz: random.pick([48_000, 44_100]),
  };
  return initSegment([video, audio].filter(() => !random.oneIn(5)));
}

export function fragmentBytes(random: Random): Uint8Array {
  const units = (kind: AccessUnit['kind'], stepTicks: number): AccessUnit[] => {
    let dtsTicks = random.pick([0, 1000, 2 ** 33]);
    return Array.from({ length: random.below(6) }, (_, index) => {
      dtsTicks += random.oneIn(5) ? random.below(5000) : stepTicks;
      const ptsTicks = dtsTicks + (kind === 'video' && random.oneIn(3) ? random.between(-3600, 7200) : 0);
      const isRandomAccess = kind === 'audio' || index === 0 || random.oneIn(8);
      return { kind, trackId: 0, dtsTicks, ptsTicks, isRandomAccess, data: random.bytes(random.below(5)) };
    });
  };
  const video = units('video', 3600);
  const audio = units('audio', 1024);
  return fragment({
    sequenceNumber: random.u32(),
    tracks: [
      { track: VIDEO_TRACK, units: video, endTicks: (video.at(-1)?.dtsTicks ?? 0) + 3600 },
      { track: AUDIO_TRACK, units: audio, endTicks: (audio.at(-1)?.dtsTicks ?? 0) + 1024 },
    ],
  });
}

const CONTAINER_TYPES = new Set(['moov', 'trak', 'mdia', 'minf', 'stbl', 'mvex', 'moof', 'traf', 'dinf']);

/** Damages one box somewhere in the tree and mends the sizes of the boxes around it. */
export function mutateBoxes(random: Random, bytes: Uint8Array): Uint8Array {
  const boxes = splitBoxes(bytes);
  const at = random.below(boxes.length);
  const box = boxes[at];
  if (box === undefined) return bytes;
  const type = String.fromCharCode(...box.subarray(4, 8));
  if (CONTAINER_TYPES.has(type) && !random.oneIn(6)) {
    const content = mutateBoxes(random, box.subarray(8));
    boxes[at] = concatBytes([
      new ByteWriter(8)
        .u32(content.length + 8)
        .ascii(type)
        .finish(),
      content,
    ]);
  } else {
    const other = boxes[random.below(boxes.length)] ?? box;
    switch (random.below(5)) {
      case 0:
        boxes.splice(at, 1);
        break;
      case 1:
        boxes.splice(random.below(boxes.length), 0, box);
        break;
      case 2:
        boxes[at] = other;
        break;
      case 3: {
        const content = concatBytes([box.subarray(8), random.bytes(random.between(1, 8))]);
        boxes[at] = concatBytes([
          new ByteWriter(8)
            .u32(content.length + 8)
            .ascii(type)
            .finish(),
          content,
        ]);
        break;
      }
      default: {
        const changed = box.slice();
        const index = 8 + random.below(changed.length - 8);
        changed[index] = random.pick([0, 1, 2, 4, 8, 0x7f, 0x80, 0xff]);
        boxes[at] = changed;
      }
    }
  }
  return concatBytes(boxes);
}

function splitBoxes(bytes: Uint8Array): Uint8Array[] {
  const boxes: Uint8Array[] = [];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at < bytes.length; ) {
    const announced = at + 8 <= bytes.length ? view.getUint32(at) : 0;
    const sizeBytes = announced < 8 ? bytes.length - at : announced;
    boxes.push(bytes.subarray(at, at + sizeBytes));
    at += sizeBytes;
  }
  return boxes;
}
