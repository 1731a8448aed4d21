import { describe, expect, test } from 'vitest';
import {
  type CodedFrames,
  enhancedCodedFrames,
  enhancedSequenceStart,
  LEGACY_HEADER_SIZE_BYTES,
  legacySequenceStart,
  parseAudioBody,
  parseVideoBody,
  writeLegacyCodedHeader,
} from './tag.ts';

const ascii = (text: string) => [...Buffer.from(text, 'latin1')];
const CONFIG = [0x01, 0x64, 0x00, 0x28];
const DATA = [0x00, 0x00, 0x00, 0x02, 0x65, 0x88];

const sequenceStart = { type: 'sequenceStart', config: Uint8Array.from(CONFIG) };
const none = { type: 'none' };
function coded(frames: Partial<CodedFrames>) {
  return {
    type: 'codedFrames',
    isRandomAccess: true,
    compositionTimeMs: 0,
    offsetNanos: 0,
    data: Uint8Array.from(DATA),
    ...frames,
  };
}

interface Literal {
  readonly name: string;
  readonly bytes: readonly number[];
  readonly body: object;
}

/** Adobe FLV 10.1 E.4.3; Enhanced RTMP v2, ExVideoTagHeader. */
const VIDEO: readonly Literal[] = [
  {
    name: 'AVC sequence header',
    bytes: [0x17 /* key frame, AVC */, 0 /* sequence header */, 0, 0, 0 /* composition time */, ...CONFIG],
    body: sequenceStart,
  },
  {
    name: 'AVC key frame presented 80 ms later',
    bytes: [0x17, 1 /* NALU */, 0x00, 0x00, 0x50, ...DATA],
    body: coded({ compositionTimeMs: 80 }),
  },
  {
    name: 'AVC inter frame presented 1 ms earlier',
    bytes: [0x27, 1, 0xff, 0xff, 0xff /* SI24 -1 */, ...DATA],
    body: coded({ isRandomAccess: false, compositionTimeMs: -1 }),
  },
  {
    name: 'AVC disposable inter frame',
    bytes: [0x37, 1, 0, 0, 0, ...DATA],
    body: coded({ isRandomAccess: false }),
  },
  { name: 'AVC end of sequence', bytes: [0x17, 2, 0, 0, 0], body: none },
  { name: 'AVC NALU without data', bytes: [0x27, 1, 0, 0, 0], body: none },
  { name: 'command frame of any codec', bytes: [0x52 /* command, H.263 */, 0 /* start seek */], body: none },
  {
    name: 'Ex sequence start',
    bytes: [0x90 /* Ex, key frame, SequenceStart */, ...ascii('avc1'), ...CONFIG],
    body: sequenceStart,
  },
  {
    name: 'Ex coded frames with composition time',
    bytes: [0x91 /* Ex, key frame, CodedFrames */, ...ascii('avc1'), 0x00, 0x00, 0x21 /* SI24 33 */, ...DATA],
    body: coded({ compositionTimeMs: 33 }),
  },
  {
    name: 'Ex coded frames without composition time',
    bytes: [0xa3 /* Ex, inter frame, CodedFramesX */, ...ascii('avc1'), ...DATA],
    body: coded({ isRandomAccess: false }),
  },
  {
    name: 'Ex coded frames with a nanosecond offset',
    bytes: [
      ...[0xa7 /* Ex, inter frame, ModEx */, 2 /* modExDataSize - 1 */, 0x05, 0x16, 0x15 /* 333333 ns */],
      ...[0x01 /* TimestampOffsetNano, CodedFrames */, ...ascii('avc1'), 0, 0, 0, ...DATA],
    ],
    body: coded({ isRandomAccess: false, offsetNanos: 333_333 }),
  },
  {
    name: 'a chain of modifiers, one unknown and 300 bytes long',
    bytes: [
      ...[0x97, 0xff /* 256: the real size follows */, 0x01, 0x2b /* 300 - 1 */, ...Array(300).fill(0xee)],
      ...[0x37 /* modifier 3, ModEx again */, 3 /* 4 bytes */, 0x0f, 0x42, 0x3f /* 999999 ns */, 0xee],
      ...[0x03 /* TimestampOffsetNano, CodedFramesX */, ...ascii('avc1'), ...DATA],
    ],
    body: coded({ offsetNanos: 999_999 }),
  },
  { name: 'Ex sequence end', bytes: [0x92, ...ascii('avc1')], body: none },
  {
    name: 'Ex metadata in a command frame: the frame type does not count',
    bytes: [0xd4, ...ascii('avc1'), 0x02, 0x00, 0x09, ...ascii('colorInfo')],
    body: none,
  },
  { name: 'Ex command frame, without FourCC', bytes: [0xd1, 0 /* start seek */], body: none },
];

/** Adobe FLV 10.1 E.4.2; Enhanced RTMP v2, ExAudioTagHeader. */
const AUDIO: readonly Literal[] = [
  { name: 'silence', bytes: [], body: none },
  {
    name: 'AAC sequence header',
    bytes: [0xaf /* AAC, 44 kHz, 16 bit, stereo */, 0 /* sequence header */, ...CONFIG],
    body: sequenceStart,
  },
  { name: 'AAC raw frame', bytes: [0xaf, 1 /* raw */, ...DATA], body: coded({}) },
  { name: 'AAC raw frame of an encoder that says mono', bytes: [0xae, 1, ...DATA], body: coded({}) },
  { name: 'AAC without data', bytes: [0xaf, 1], body: none },
  {
    name: 'Ex sequence start',
    bytes: [0x90 /* ExHeader, SequenceStart */, ...ascii('mp4a'), ...CONFIG],
    body: sequenceStart,
  },
  { name: 'Ex coded frames', bytes: [0x91, ...ascii('mp4a'), ...DATA], body: coded({}) },
  {
    name: 'Ex coded frames with a nanosecond offset',
    bytes: [0x97, 2, 0x00, 0x00, 0x64 /* 100 ns */, 0x01, ...ascii('mp4a'), ...DATA],
    body: coded({ offsetNanos: 100 }),
  },
  { name: 'Ex sequence end', bytes: [0x92, ...ascii('mp4a')], body: none },
  { name: 'Ex multichannel configuration', bytes: [0x94, ...ascii('mp4a'), 1, 2, 0, 0, 0, 3], body: none },
];

describe('parse', () => {
  test.each(VIDEO)('video: $name', ({ bytes, body }) => {
    expect(parseVideoBody(Uint8Array.from(bytes))).toEqual(body);
  });
  test.each(AUDIO)('audio: $name', ({ bytes, body }) => {
    expect(parseAudioBody(Uint8Array.from(bytes))).toEqual(body);
  });

  test('the data is a view, not a copy', () => {
    const payload = Uint8Array.of(0xaf, 1, 1, 2, 3);
    const body = parseAudioBody(payload);
    expect(body.type === 'codedFrames' && body.data.buffer).toBe(payload.buffer);
  });

  test.each([
    ['video', 'frame type 0', [0x07, 1, 0, 0, 0, 1], /^FLV_BAD_TAG/],
    ['video', 'frame type 6', [0x67, 1, 0, 0, 0, 1], /^FLV_BAD_TAG/],
    ['video', 'AVC packet type 3', [0x17, 3, 0, 0, 0, 1], /^FLV_BAD_TAG/],
    ['video', 'Ex packet type 8', [0x98, ...ascii('avc1')], /^FLV_BAD_TAG/],
    [
      'video',
      'an offset of a whole millisecond',
      [0x97, 2, 0x0f, 0x42, 0x40, 1, ...ascii('avc1')],
      /1000000 ns/,
    ],
    ['video', 'an offset in 2 bytes', [0x97, 1, 0x0f, 0x42, 1, ...ascii('avc1')], /^FLV_BAD_TAG/],
    ['video', 'H.263', [0x12, 1], /^FLV_UNSUPPORTED_CODEC.*video codec id 2/],
    ['video', 'HEVC as codec id 12', [0x1c, 1], /^FLV_UNSUPPORTED_CODEC/],
    ['video', 'HEVC by FourCC', [0x90, ...ascii('hvc1')], /^FLV_UNSUPPORTED_CODEC.*hvc1/],
    ['video', 'multitrack', [0x96, 0x01, ...ascii('avc1'), 0], /^FLV_UNSUPPORTED_CODEC.*multitrack/],
    ['video', 'MPEG-2 TS', [0x95, ...ascii('av01')], /^FLV_UNSUPPORTED_CODEC.*MPEG-2 TS/],
    ['audio', 'MP3', [0x2f, 1], /^FLV_UNSUPPORTED_CODEC.*sound format 2/],
    ['audio', 'Opus by FourCC', [0x90, ...ascii('Opus')], /^FLV_UNSUPPORTED_CODEC.*Opus/],
    ['audio', 'multitrack', [0x95, 0x01], /^FLV_UNSUPPORTED_CODEC.*multitrack/],
    ['audio', 'AAC packet type 2', [0xaf, 2, 1], /^FLV_BAD_TAG/],
    ['audio', 'Ex packet type 3, which only video has', [0x93, ...ascii('mp4a'), 1], /^FLV_BAD_TAG/],
  ] as const)('refuses %s: %s', (kind, _, bytes, message) => {
    const parse = kind === 'video' ? parseVideoBody : parseAudioBody;
    expect(() => parse(Uint8Array.from(bytes))).toThrow(message);
  });

  test('a body cut inside its header is a bad tag, never another error', () => {
    for (const [literals, parse] of [
      [VIDEO, parseVideoBody],
      [AUDIO, parseAudioBody],
    ] as const) {
      for (const { bytes } of literals) {
        for (let length = 0; length < bytes.length; length++) {
          try {
            parse(Uint8Array.from(bytes.slice(0, length)));
          } catch (error) {
            expect(String(error)).toMatch(/FLV_BAD_TAG/);
          }
        }
      }
    }
    expect(() => parseVideoBody(new Uint8Array())).toThrow(/^FLV_BAD_TAG/);
  });
});

describe('serialise', () => {
  const literal = (literals: readonly Literal[], name: string) =>
    Uint8Array.from(literals.find((one) => one.name === name)?.bytes ?? []);
  const config = Uint8Array.from(CONFIG);
  const data = Uint8Array.from(DATA);

  test('legacy sequence headers', () => {
    expect(legacySequenceStart('video', config)).toEqual(literal(VIDEO, 'AVC sequence header'));
    expect(legacySequenceStart('audio', config)).toEqual(literal(AUDIO, 'AAC sequence header'));
  });

  test.each([
    ['video', 'AVC key frame presented 80 ms later', true, 80],
    ['video', 'AVC inter frame presented 1 ms earlier', false, -1],
    ['audio', 'AAC raw frame', true, 0],
  ] as const)('legacy %s: %s', (kind, name, isRandomAccess, compositionTimeMs) => {
    const headerSizeBytes = LEGACY_HEADER_SIZE_BYTES[kind];
    const target = new Uint8Array(headerSizeBytes + 3);
    writeLegacyCodedHeader(target, 3, kind, isRandomAccess, compositionTimeMs);
    const expected = literal(kind === 'video' ? VIDEO : AUDIO, name).subarray(0, headerSizeBytes);
    expect(target.subarray(3)).toEqual(expected);
  });

  test('enhanced', () => {
    expect(enhancedSequenceStart('video', config)).toEqual(literal(VIDEO, 'Ex sequence start'));
    expect(enhancedSequenceStart('audio', config)).toEqual(literal(AUDIO, 'Ex sequence start'));
    const frames = { isRandomAccess: true, compositionTimeMs: 0, offsetNanos: 0, data };
    expect(enhancedCodedFrames('video', { ...frames, compositionTimeMs: 33 })).toEqual(
      literal(VIDEO, 'Ex coded frames with composition time'),
    );
    expect(enhancedCodedFrames('video', { ...frames, isRandomAccess: false, offsetNanos: 333_333 })).toEqual(
      literal(VIDEO, 'Ex coded frames with a nanosecond offset'),
    );
    expect(enhancedCodedFrames('audio', frames)).toEqual(literal(AUDIO, 'Ex coded frames'));
    expect(enhancedCodedFrames('audio', { ...frames, offsetNanos: 100 })).toEqual(
      literal(AUDIO, 'Ex coded frames with a nanosecond offset'),
    );
  });

  test('enhanced frames of any composition time and offset parse to themselves', () => {
    for (const compositionTimeMs of [-8_388_608, -1, 0, 1, 8_388_607]) {
      for (const offsetNanos of [0, 1, 999_999]) {
        const frames: CodedFrames = {
          type: 'codedFrames',
          isRandomAccess: false,
          compositionTimeMs,
          offsetNanos,
          data,
        };
        expect(parseVideoBody(enhancedCodedFrames('video', frames))).toEqual(frames);
      }
    }
  });
});
