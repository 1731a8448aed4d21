import { describe, expect, test } from 'vitest';
import type { AudioTrack, Track, VideoTrack } from '../access-unit.ts';
import {
  type CodedFrames,
  enhancedCodedFrames,
  enhancedSequenceStart,
  parseAudioBody,
  parseVideoBody,
  type SequenceStart,
  viewerHeaderSizeBytes,
  viewerSequenceStart,
  writeViewerHeader,
} from './tag.ts';

const ascii = (text: string) => [...Buffer.from(text, 'latin1')];
const CONFIG = [0x01, 0x64, 0x00, 0x28];
const DATA = [0x00, 0x00, 0x00, 0x02, 0x65, 0x88];

/** The body of the default track; its codec is that of the literals, H.264 or AAC, unless it says another. */
type Body = Partial<SequenceStart> | Partial<CodedFrames>;
const sequenceStart: Body = { type: 'sequenceStart', trackId: 0, config: Uint8Array.from(CONFIG) };
const none = undefined;
function coded(frames: Partial<CodedFrames>): Body {
  return {
    type: 'codedFrames',
    trackId: 0,
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
  readonly body: Body | undefined;
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
    expect(parseVideoBody(Uint8Array.from(bytes))).toEqual(body ? [{ codec: 'avc', ...body }] : []);
  });
  test.each(AUDIO)('audio: $name', ({ bytes, body }) => {
    expect(parseAudioBody(Uint8Array.from(bytes))).toEqual(body ? [{ codec: 'aac', ...body }] : []);
  });

  test('the data is a view, not a copy', () => {
    const payload = Uint8Array.of(0xaf, 1, 1, 2, 3);
    const [body] = parseAudioBody(payload);
    expect(body?.type === 'codedFrames' && body.data.buffer).toBe(payload.buffer);
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
    ['video', 'VVC by FourCC', [0x90, ...ascii('vvc1')], /^FLV_UNSUPPORTED_CODEC.*vvc1/],
    ['video', 'Opus, which is audio', [0x90, ...ascii('Opus')], /^FLV_UNSUPPORTED_CODEC.*Opus/],
    ['video', 'MPEG-2 TS', [0x95, ...ascii('av01'), 1], /^FLV_UNSUPPORTED_CODEC.*MPEG-2 transport/],
    ['video', 'multitrack type 3', [0x96, 0x31, ...ascii('avc1'), 0], /^FLV_BAD_TAG.*type 3/],
    ['video', 'multitrack in multitrack', [0x96, 0x06, ...ascii('avc1'), 0, 1], /^FLV_BAD_TAG/],
    ['video', 'a track longer than the body', [0x96, 0x11, ...ascii('avc1'), 0, 0, 0, 9, 1], /^FLV_BAD_TAG/],
    ['audio', 'Speex', [0xb2, 1], /^FLV_UNSUPPORTED_CODEC.*sound format 11/],
    ['audio', 'an unknown codec in the default track', [0x95, 0x01, ...ascii('abcd'), 0, 1], /abcd/],
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

/** Enhanced RTMP v2, AvMultitrackType and the loops of ExVideoTagBody and ExAudioTagBody. */
describe('multitrack', () => {
  const picture = { ...coded({}), codec: 'hevc', isRandomAccess: true } as const;

  test('one track', () => {
    const bytes = [
      ...[0x96 /* Ex, key frame, Multitrack */, 0x01 /* OneTrack, CodedFrames */, ...ascii('hvc1')],
      ...[7 /* videoTrackId */, 0x00, 0x00, 0x10 /* SI24 16 */, ...DATA],
    ];
    expect(parseVideoBody(Uint8Array.from(bytes))).toEqual([
      { ...picture, trackId: 7, compositionTimeMs: 16 },
    ]);
  });

  test('many tracks of one codec, with a nanosecond offset that counts for all', () => {
    const bytes = [
      ...[0xa7 /* inter frame, ModEx */, 2, 0, 0, 5 /* 5 ns */, 0x06 /* TimestampOffsetNano, Multitrack */],
      ...[0x13 /* ManyTracks, CodedFramesX */, ...ascii('hvc1')],
      ...[0, 0, 0, 2 /* sizeOfVideoTrack */, 0xaa, 0xbb],
      ...[1, 0, 0, 1, 0xcc],
      ...[2, 0, 0, 0],
    ];
    const body = { ...picture, isRandomAccess: false, offsetNanos: 5 };
    expect(parseVideoBody(Uint8Array.from(bytes))).toEqual([
      { ...body, data: Uint8Array.of(0xaa, 0xbb) },
      { ...body, trackId: 1, data: Uint8Array.of(0xcc) },
    ]);
  });

  test('many tracks of many codecs, one of them unknown', () => {
    const bytes = [
      ...[0x95 /* ExHeader, Multitrack */, 0x20 /* ManyTracksManyCodecs, SequenceStart */],
      ...[...ascii('Opus'), 0, 0, 0, 2, 1, 2],
      ...[...ascii('xHE?'), 1, 0, 0, 1, 9],
      ...[...ascii('mp4a'), 2, 0, 0, 1, 3],
    ];
    expect(parseAudioBody(Uint8Array.from(bytes))).toEqual([
      { type: 'sequenceStart', trackId: 0, codec: 'opus', config: Uint8Array.of(1, 2) },
      { type: 'sequenceStart', trackId: 2, codec: 'aac', config: Uint8Array.of(3) },
    ]);
  });

  test('the end of a sequence on every track', () => {
    expect(parseVideoBody(Uint8Array.from([0x96, 0x12, ...ascii('av01'), 0, 0, 0, 0, 1, 0, 0, 0]))).toEqual(
      [],
    );
  });
});

describe('serialise', () => {
  const literal = (literals: readonly Literal[], name: string) =>
    Uint8Array.from(literals.find((one) => one.name === name)?.bytes ?? []);
  const config = Uint8Array.from(CONFIG);
  const data = Uint8Array.from(DATA);

  const avc = {
    kind: 'video',
    trackId: 0,
    codec: 'avc',
    config,
    codecString: '',
    widthPx: 1,
    heightPx: 1,
  } as const;
  const videoTrack: VideoTrack = { ...avc, frameDurationTicks: undefined };
  const audioTrack: AudioTrack = {
    kind: 'audio',
    trackId: 0,
    language: undefined,
    codec: 'aac',
    config,
    codecString: '',
    sampleRateHz: 44_100,
    channelCount: 2,
  };
  function viewerHeader(track: Track, isRandomAccess: boolean, compositionTimeMs: number): Uint8Array {
    const target = new Uint8Array(3 + viewerHeaderSizeBytes(track.codec));
    writeViewerHeader(target, 3, track, isRandomAccess, compositionTimeMs);
    return target.subarray(3);
  }

  test('legacy sequence headers', () => {
    expect(viewerSequenceStart(videoTrack)).toEqual(literal(VIDEO, 'AVC sequence header'));
    expect(viewerSequenceStart(audioTrack)).toEqual(literal(AUDIO, 'AAC sequence header'));
  });

  test.each([
    ['AVC key frame presented 80 ms later', videoTrack, true, 80],
    ['AVC inter frame presented 1 ms earlier', videoTrack, false, -1],
    ['AAC raw frame', audioTrack, true, 0],
  ] as const)('legacy: %s', (name, track, isRandomAccess, compositionTimeMs) => {
    const header = viewerHeader(track, isRandomAccess, compositionTimeMs);
    const expected = literal(track.kind === 'video' ? VIDEO : AUDIO, name);
    expect(header).toEqual(expected.subarray(0, header.length));
  });

  test.each([
    // SoundFormat 2 (14 at 8 kHz), SoundRate, 16 bit, SoundType
    [44_100, 2, 0x2f],
    [48_000, 1, 0x2e],
    [22_050, 2, 0x2b],
    [11_025, 1, 0x26],
    [8_000, 1, 0xe2],
  ])('MP3 of %d Hz and %d channels', (sampleRateHz, channelCount, first) => {
    const track: AudioTrack = { ...audioTrack, codec: 'mp3', sampleRateHz, channelCount };
    expect(viewerHeader(track, true, 0)).toEqual(Uint8Array.of(first));
    expect(parseAudioBody(Uint8Array.of(first, ...DATA))).toEqual([{ codec: 'mp3', ...coded({}) }]);
    expect(viewerSequenceStart(track)).toHaveLength(0);
  });

  test('enhanced, where there is no legacy form', () => {
    const hevc: VideoTrack = { ...videoTrack, codec: 'hevc' };
    const opus: AudioTrack = { ...audioTrack, codec: 'opus' };
    expect([...viewerSequenceStart(hevc)]).toEqual([0x90, ...ascii('hvc1'), ...CONFIG]);
    expect([...viewerHeader(hevc, false, -1)]).toEqual([0xa1, ...ascii('hvc1'), 0xff, 0xff, 0xff]);
    expect([...viewerHeader({ ...hevc, codec: 'av1' }, true, 0)]).toEqual([0x91, ...ascii('av01')]);
    expect([...viewerHeader({ ...hevc, codec: 'vp9' }, false, 0)]).toEqual([0xa1, ...ascii('vp09')]);
    expect([...viewerSequenceStart(opus)]).toEqual([0x90, ...ascii('Opus'), ...CONFIG]);
    expect([...viewerHeader(opus, true, 0)]).toEqual([0x91, ...ascii('Opus')]);
    expect([...viewerHeader({ ...opus, codec: 'flac' }, true, 0)]).toEqual([0x91, ...ascii('fLaC')]);
    for (const [codec, fourCc] of [
      ['ac3', 'ac-3'],
      ['eac3', 'ec-3'],
    ] as const) {
      expect([...viewerHeader({ ...opus, codec }, true, 0)]).toEqual([0x91, ...ascii(fourCc)]);
      expect(viewerSequenceStart({ ...opus, codec })).toHaveLength(0);
    }
  });

  test('enhanced', () => {
    expect(enhancedSequenceStart(videoTrack)).toEqual(literal(VIDEO, 'Ex sequence start'));
    expect(enhancedSequenceStart(audioTrack)).toEqual(literal(AUDIO, 'Ex sequence start'));
    const frames = { trackId: 0, isRandomAccess: true, compositionTimeMs: 0, offsetNanos: 0, data };
    const picture = { ...frames, codec: 'avc' } as const;
    const sound = { ...frames, codec: 'aac' } as const;
    expect(enhancedCodedFrames('video', { ...picture, compositionTimeMs: 33 })).toEqual(
      literal(VIDEO, 'Ex coded frames with composition time'),
    );
    expect(enhancedCodedFrames('video', { ...picture, isRandomAccess: false, offsetNanos: 333_333 })).toEqual(
      literal(VIDEO, 'Ex coded frames with a nanosecond offset'),
    );
    expect(enhancedCodedFrames('audio', sound)).toEqual(literal(AUDIO, 'Ex coded frames'));
    expect(enhancedCodedFrames('audio', { ...sound, offsetNanos: 100 })).toEqual(
      literal(AUDIO, 'Ex coded frames with a nanosecond offset'),
    );
  });

  test('enhanced frames of any composition time and offset parse to themselves', () => {
    for (const codec of ['avc', 'hevc'] as const) {
      for (const compositionTimeMs of [-8_388_608, -1, 0, 1, 8_388_607]) {
        for (const offsetNanos of [0, 1, 999_999]) {
          const frames: CodedFrames = {
            type: 'codedFrames',
            trackId: 0,
            codec,
            isRandomAccess: false,
            compositionTimeMs,
            offsetNanos,
            data,
          };
          expect(parseVideoBody(enhancedCodedFrames('video', frames))).toEqual([frames]);
        }
      }
    }
  });
});
