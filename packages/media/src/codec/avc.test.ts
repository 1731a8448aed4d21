import { describe, expect, test } from 'vitest';
import { MediaError } from '../error.ts';
import { avcTrack, parseAvcConfig, parseAvcSps } from './avc.ts';

const hex = (text: string) => Uint8Array.from(Buffer.from(text, 'hex'));

/**
 * AVCDecoderConfigurationRecords that x264 wrote (through FFmpeg 5.1's FLV muxer). Width, height and field
 * order as ffprobe reports them, timing as its trace_headers filter does.
 */
const X264_CONFIGS = [
  {
    name: 'High, 1080p: 8 lines cropped',
    config:
      '01640028ffe1001b67640028acd940780227e5c044000003000400000300f23c60c65801000668ebe3cb22c0fdf8f800',
    expected: { widthPx: 1920, heightPx: 1080, isProgressive: true, rate: [60, 2], codec: 'avc1.640028' },
  },
  {
    name: 'Constrained Baseline, 360p: no cropping, timing that is not fixed',
    config: '0142c01effe100196742c01ed900a02ff97011000003000100000300320f162e4801000568cb83cb20',
    expected: { widthPx: 640, heightPx: 360, isProgressive: true, rate: undefined, codec: 'avc1.42c01e' },
  },
  {
    name: 'Main, 854 x 480: 10 columns cropped, NTSC rate',
    config: '014d401fffe10017674d401feca06c1ef37808800001f480007530478c18cb01000568ebe3cb20',
    expected: {
      widthPx: 854,
      heightPx: 480,
      isProgressive: true,
      rate: [60_000, 2002],
      codec: 'avc1.4d401f',
    },
  },
  {
    name: 'High, 1080i: map units are pairs of macroblocks',
    config: '01640028ffe1001a67640028acd94078044fde0220000003002000000653e2c5b2c001000668fba3cb22c0fdf8f800',
    expected: { widthPx: 1920, heightPx: 1080, isProgressive: false, rate: [50, 2], codec: 'avc1.640028' },
  },
  {
    name: 'High, 576i: extended sample aspect ratio and colour description before the timing',
    config:
      '0164001effe100216764001eacd940b424dff80080007b50505054000003000400000300ca7c50a65801000668fba3cb22c0fdf8f800',
    expected: { widthPx: 720, heightPx: 576, isProgressive: false, rate: [50, 2], codec: 'avc1.64001e' },
  },
  {
    name: 'High 4:2:2 10 bit: chroma is full height when cropping',
    config:
      '017a0020ffe1001b677a0020b6cd9405005bf9f011000003000100000300648f18319601000668ebe3cb22c0fefafa00',
    expected: { widthPx: 1280, heightPx: 714, isProgressive: true, rate: [100, 2], codec: 'avc1.7a0020' },
  },
  {
    name: 'High 4:4:4: cropping in single samples',
    config: '01f40016ffe1001a67f40016919b282a10f1f1f80880000003008000003c478b16cb01000668ebe3c44844fff8f800',
    expected: { widthPx: 322, heightPx: 242, isProgressive: true, rate: [120, 2], codec: 'avc1.f40016' },
  },
  {
    name: 'High, 2160p: 16 bit dimensions',
    config: '01640033ffe1001a67640033acd9403c0043ec0440000003004000000c23c60c658001000668ebe3cb22c0fdf8f800',
    expected: { widthPx: 3840, heightPx: 2160, isProgressive: true, rate: [48, 2], codec: 'avc1.640033' },
  },
  {
    name: 'chroma location in the VUI',
    config:
      '01640015ffe1001a67640015acd941b1fe4f012940000003004000000c23c58b658001000768ebe3cb3002c0fdf8f800',
    expected: { widthPx: 426, heightPx: 240, isProgressive: true, rate: [48, 2], codec: 'avc1.640015' },
  },
];

describe('avcTrack', () => {
  test.each(X264_CONFIGS)('$name', ({ config, expected }) => {
    const track = avcTrack(hex(config));
    expect(track).toMatchObject({ kind: 'video', trackId: 0, codec: 'avc', frameDurationTicks: undefined });
    expect(track.codecString).toBe(expected.codec);
    expect([track.widthPx, track.heightPx]).toEqual([expected.widthPx, expected.heightPx]);

    const [sps] = parseAvcConfig(hex(config)).sequenceParameterSets;
    const { isProgressive, frameRate } = parseAvcSps(sps ?? new Uint8Array());
    expect(isProgressive).toBe(expected.isProgressive);
    expect(frameRate && [frameRate.numerator, frameRate.denominator]).toEqual(expected.rate);
  });

  test('takes the frame duration from the caller only', () => {
    const config = hex(X264_CONFIGS[0]?.config ?? '');
    expect(avcTrack(config, 3000).frameDurationTicks).toBe(3000);
    expect(avcTrack(config).frameDurationTicks).toBeUndefined();
  });

  test('reports a configuration that is cut anywhere', () => {
    const config = hex(X264_CONFIGS[0]?.config ?? '');
    const used = config.length - 4; // the chroma extension at the end is not read
    for (let length = 0; length < used; length++) {
      expect(() => avcTrack(config.subarray(0, length))).toThrow(/^AVC_BAD_CONFIG/);
    }
    expect(() => avcTrack(config.subarray(0, used))).not.toThrow();
  });

  test.each([
    ['version 2', '02640028ffe100'],
    ['a NAL length of 3 bytes', '01640028fee100'],
    ['no sequence parameter set', '01640028ffe000'],
    ['a parameter set of another type', '01640028ffe1000468ebe3cb00'],
  ])('refuses %s', (_, config) => {
    expect(() => avcTrack(hex(config))).toThrow(MediaError);
    expect(() => avcTrack(hex(config))).toThrow(/^AVC_BAD_CONFIG/);
  });
});

describe('parseAvcSps', () => {
  test('skips scaling lists, a picture order count cycle and emulation prevention', () => {
    // Written by hand; FFmpeg's trace_headers filter reads: lists 0, 2 and 6 present, pic_order_cnt_type 1 with a
    // cycle of 1, -5, 100, 25 x 19 macroblocks, cropped by 1, 2, 0 and 2 chroma samples, no VUI.
    const sps = hex('67640028ad845080211255555555555555555555555555555555429888580c840c84fa7680');
    expect(parseAvcSps(sps)).toEqual({
      widthPx: 25 * 16 - (1 + 2) * 2,
      heightPx: 19 * 16 - (0 + 2) * 2,
      isProgressive: true,
      frameRate: undefined,
    });
  });

  test('refuses a picture cropped away or absurdly large', () => {
    // profile 66, level 10, ids 0, poc type 2, 1 reference, 1 x 1 macroblocks, progressive, cropped by 8 pairs
    const bits = (text: string) => {
      const joined = text.replaceAll(' ', '');
      const padded = joined.padEnd(Math.ceil(joined.length / 8) * 8, '0');
      return Uint8Array.from(padded.match(/.{8}/g) ?? [], (byte) => Number.parseInt(byte, 2));
    };
    const head = '01100111 01000010 00000000 00001010 1 1 011 010 0';
    expect(() => parseAvcSps(bits(`${head} 1 1 1 1 1 1 0001001 1 1 0 1`))).toThrow(/picture of 0 x 16/);
    expect(parseAvcSps(bits(`${head} 1 1 1 1 0 0 1`))).toMatchObject({ widthPx: 16, heightPx: 16 });
    // pic_width_in_mbs_minus1 = 1024
    expect(() => parseAvcSps(bits(`${head} 000000000010000000001 1 1 1 0 0 1`))).toThrow(/16400 x 16/);
  });
});
