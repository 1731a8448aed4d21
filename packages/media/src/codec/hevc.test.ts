import { describe, expect, test } from 'vitest';
import { hex } from '../../test/hex.ts';
import { errorCodeOf } from '../../test/media-error.ts';
import { hevcTrack, isHevcRandomAccess, parseHevcSps } from './hevc.ts';

/** HEVCDecoderConfigurationRecords that x265 wrote (through FFmpeg 5.1). Size, profile and level as ffprobe reports them. */
const MAIN_1080P =
  '0121600000009000000000007bf000fcfdf8f800000f03a00001001840010c01ffff21600000030090000003000003007b959409a10001002b42010121600000030090000003000003007ba003c0801107cb965654a4c2f0168080000003008000000c84a2000100064401c073c189';
const RECORDS = [
  {
    name: 'Main, high tier, level 4.1, 1080p: 8 lines cropped',
    record: MAIN_1080P,
    expected: { widthPx: 1920, heightPx: 1080, codecString: 'hvc1.1.6.H123.90' },
  },
  {
    name: 'range extensions, 4:2:2 10 bit, level 2',
    record:
      '0104080000009d08000000003cf000fcfefafa00000f03a00001001740010c01ffff0408000003009d0800000300003c959409a10001002b4201010408000003009d0800000300003cb00d880407247b6595952930bc05a02000000300200000030321a2000100064401c073c189',
    expected: { widthPx: 426, heightPx: 242, codecString: 'hvc1.4.10.L60.9D.8' },
  },
  {
    name: 'range extensions, 4:4:4, high tier, level 5',
    record:
      '0124080000009e080000000096f000fcfff8f800000f03a00001001740010c01ffff2408000003009e08000003000096959409a10001002c4201012408000003009e080000030000969001510080e3e3f2caca94985e02d0100000030010000003019080a2000100084401c07318301890',
    expected: { widthPx: 322, heightPx: 242, codecString: 'hvc1.4.10.H150.9E.8' },
  },
];

describe('hevcTrack', () => {
  test.each(RECORDS)('$name', ({ record, expected }) => {
    expect(hevcTrack(hex(record), 3600)).toEqual({
      kind: 'video',
      trackId: 0,
      codec: 'hevc',
      config: hex(record),
      frameDurationTicks: 3600,
      ...expected,
    });
  });

  test('marks the arrays of parameter sets as complete, as hvc1 demands, and no others', () => {
    const incomplete = hex(MAIN_1080P);
    const arrays = [0xa0, 0xa1, 0xa2].map((first) => incomplete.indexOf(first, 22));
    for (const at of arrays) incomplete[at] = (incomplete[at] ?? 0) & 0x7f;
    expect(hevcTrack(incomplete).config).toEqual(hex(MAIN_1080P));
    expect(incomplete[arrays[0] ?? 0]).toBe(0x20); // the argument is left alone
  });

  test('a profile without constraints and with a profile space', () => {
    const record = hex(MAIN_1080P);
    record[1] = 0x41; // profile space 1, main tier, profile 1
    record.fill(0, 6, 12);
    expect(hevcTrack(record).codecString).toBe('hvc1.A1.6.L123');
  });

  test('cut short anywhere it is refused with its code', () => {
    for (let length = 0; length < MAIN_1080P.length / 2; length++) {
      expect(errorCodeOf(() => hevcTrack(hex(MAIN_1080P).subarray(0, length)))).toBe('HEVC_BAD_CONFIG');
    }
  });

  test('with any one byte changed it is read or refused with a code', () => {
    for (let at = 0; at < MAIN_1080P.length / 2; at++) {
      for (const value of [0x00, 0x7f, 0xff]) {
        const damaged = hex(MAIN_1080P);
        damaged[at] = value;
        errorCodeOf(() => hevcTrack(damaged)); // throws what is not a MediaError
      }
    }
  });

  test.each([
    ['version 2', `02${MAIN_1080P.slice(2)}`, /version 2/],
    ['lengths of 3 bytes', `${MAIN_1080P.slice(0, 42)}0e${MAIN_1080P.slice(44)}`, /3 bytes/],
    ['no parameter sets', `${MAIN_1080P.slice(0, 44)}00`, /no sequence parameter set/],
  ])('refuses %s', (_, record, message) => {
    expect(() => hevcTrack(hex(record))).toThrow(message);
  });

  test('refuses another NAL unit as parameter set', () => {
    expect(() => parseHevcSps(Uint8Array.of(0x44, 1, 0xc0))).toThrow(/NAL unit type 34/);
  });
});

describe('random access', () => {
  const record = hex(MAIN_1080P);
  const nal = (type: number) => [0, 0, 0, 3, type << 1, 1, 0x80];

  test.each([
    ['IDR_W_RADL', 19, true],
    ['CRA', 21, true],
    ['BLA_W_LP', 16, true],
    ['TRAIL_R', 1, false],
    ['RASL_R', 9, false],
    ['a reserved type after the IRAP pictures', 24, false],
  ])('%s', (_, type, expected) => {
    const delimiterAndParameterSet = [...nal(35), ...nal(33)];
    expect(isHevcRandomAccess(record, Uint8Array.from([...delimiterAndParameterSet, ...nal(type)]))).toBe(
      expected,
    );
  });

  test('of nothing, and of parameter sets alone', () => {
    expect(isHevcRandomAccess(record, new Uint8Array())).toBe(false);
    expect(isHevcRandomAccess(record, Uint8Array.from(nal(33)))).toBe(false);
    expect(isHevcRandomAccess(record, Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0x46, 1))).toBe(false);
  });
});
