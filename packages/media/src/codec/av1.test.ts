import { describe, expect, test } from 'vitest';
import { hex } from '../../test/hex.ts';
import { errorCodeOf } from '../../test/media-error.ts';
import { av1ConfigOf, av1Track, isAv1RandomAccess, withoutTemporalDelimiter } from './av1.ts';

/** Configuration records that SVT-AV1 wrote (through FFmpeg 5.1). Size, profile and level as ffprobe reports them. */
const SVT_1080P = '81080c000a0b00000042abbfc3700be001';
const SVT_HDR = '81014c000a0e0000000cc4ff6700be1424402410';

describe('av1Track', () => {
  test.each([
    ['Main, level 4.0', SVT_1080P, { widthPx: 1920, heightPx: 1080, codecString: 'av01.0.08M.08' }],
    // colour primaries 9 (BT.2020), transfer 16 (PQ), matrix 9
    ['10 bit, HDR', SVT_HDR, { widthPx: 640, heightPx: 360, codecString: 'av01.0.01M.10.0.110.09.16.09.0' }],
  ])('%s', (_, record, expected) => {
    expect(av1Track(hex(record), 3600)).toEqual({
      kind: 'video',
      trackId: 0,
      codec: 'av1',
      config: hex(record),
      frameDurationTicks: 3600,
      ...expected,
    });
  });

  test('a record without a sequence header leaves the rest to the first key frame', () => {
    expect(av1Track(new Uint8Array())).toBeUndefined();
    expect(av1Track(hex('81080c00'))).toBeUndefined();
  });

  test('cut short anywhere it is refused with its code', () => {
    for (let length = 5; length < SVT_1080P.length / 2; length++) {
      expect(errorCodeOf(() => av1Track(hex(SVT_1080P).subarray(0, length)))).toBe('AV1_BAD_CONFIG');
    }
  });

  test('with any one byte changed it is read or refused with a code', () => {
    for (let at = 0; at < SVT_1080P.length / 2; at++) {
      for (const value of [0x00, 0x7f, 0xff]) {
        const damaged = hex(SVT_1080P);
        damaged[at] = value;
        errorCodeOf(() => av1Track(damaged)); // throws what is not a MediaError
      }
    }
  });

  test('refuses another version', () => {
    expect(() => av1Track(hex('82080c000a0b00000042abbfc3700be001'))).toThrow(/^AV1_BAD_CONFIG.*130/);
  });
});

describe('the configuration of a stream that begins with a key frame', () => {
  // Temporal delimiter, sequence header and the start of a frame that libaom wrote. The first four bytes
  // by AV1-ISOBMFF section 2.3: marker and version 0x81; profile, level; tier, high_bitdepth, twelve_bit,
  // monochrome, subsampling x and y, chroma sample position; no presentation delay.
  test.each([
    [
      'High, 4:4:4',
      '12000a0a200000043ea7c4daf90232021085',
      '8120 0000',
      'av01.1.00M.08.0.000.02.02.02.0',
      426,
    ],
    ['Main, 4K, level 5.0', '12000a0c00000062efbfe1bddaf9004032021085', '810c 0c00', 'av01.0.12M.08', 3840],
    [
      'grey, full range',
      '12000a0b0000000cc4ff6736be4a8032021085',
      '8101 1c00',
      'av01.0.01M.08.1.110.02.02.02.1',
      640,
    ],
    [
      'Professional, 4:2:2 12 bit',
      '12000a0b4000000cc4ff6736be588832021086',
      '8141 6800',
      'av01.2.01M.12.0.100.02.02.02.0',
      640,
    ],
  ])('%s', (_, unit, fields, codecString, widthPx) => {
    const config = av1ConfigOf(hex(unit)) ?? new Uint8Array();
    expect(config.subarray(0, 4)).toEqual(hex(fields.replace(' ', '')));
    const headerSizeBytes = 2 + (hex(unit)[3] ?? 0);
    expect(config.subarray(4)).toEqual(hex(unit).subarray(2, 2 + headerSizeBytes));
    expect(av1Track(config)).toMatchObject({ codecString, widthPx });
  });

  test('is unknown where the unit has no sequence header', () => {
    expect(av1ConfigOf(hex('12003202108500'.slice(0, 12)))).toBeUndefined();
  });
});

describe('random access', () => {
  // OBU_FRAME (6) of one byte: show_existing_frame, frame_type (2 bits), show_frame
  test.each([
    ['a shown key frame', '320110', true],
    ['a forward key frame, not shown', '320100', false],
    ['an inter frame', '320130', false],
    ['an intra-only frame', '320150', false],
    ['an existing frame shown again', '320180', false],
    ['a frame header OBU of a key frame, with extension', '1e000110', true],
    ['a key frame after an inter frame that is not shown', '320120320110', false],
    ['nothing', '', false],
    ['only a delimiter', '1200', false],
  ])('%s', (_, unit, expected) => {
    expect(isAv1RandomAccess(hex(unit))).toBe(expected);
  });

  test('OBUs that do not fit are refused', () => {
    expect(errorCodeOf(() => isAv1RandomAccess(hex('320510')))).toBe('AV1_BAD_CONFIG');
    expect(errorCodeOf(() => isAv1RandomAccess(hex('32ffffffffffffffffff')))).toBe('AV1_BAD_CONFIG');
    expect(errorCodeOf(() => isAv1RandomAccess(hex('b20110')))).toBe('AV1_BAD_CONFIG');
    expect(errorCodeOf(() => isAv1RandomAccess(hex('36')))).toBe('AV1_BAD_CONFIG');
  });
});

test('the temporal delimiter is taken off, and nothing else', () => {
  expect(withoutTemporalDelimiter(hex('1200320110'))).toEqual(hex('320110'));
  expect(withoutTemporalDelimiter(hex('320110'))).toEqual(hex('320110'));
});
