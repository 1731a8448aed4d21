/** Opus, FLAC, AC-3, E-AC-3 and MP3: one table each of what FFmpeg 5.1's encoders wrote and ffprobe reports. */
import { describe, expect, test } from 'vitest';
import { hex } from '../../test/hex.ts';
import { errorCodeOf } from '../../test/media-error.ts';
import type { AudioTrack } from '../access-unit.ts';
import { ac3Track, ac3TrackOf, eac3Track, eac3TrackOf, eac3UnitSamples } from './ac3.ts';
import { flacFrameSamples, flacTrack, parseFlacStreamInfo } from './flac.ts';
import { mp3SamplesPerUnit, mp3Track, mp3TrackOf } from './mp3.ts';
import { opusPacketSamples, opusTrack } from './opus.ts';
import { samplesInUnit } from './samples.ts';

function facts(track: AudioTrack) {
  return [track.codec, track.codecString, track.sampleRateHz, track.channelCount];
}

describe('Opus', () => {
  const STEREO = '4f70757348656164 01 02 3801 80bb0000 0000 00'.replaceAll(' ', '');
  const SURROUND = '4f7075734865616401 06 3801 80bb0000 0000 01 0402 000401020305'.replaceAll(' ', '');

  test('ID headers', () => {
    expect(facts(opusTrack(hex(STEREO)))).toEqual(['opus', 'Opus', 48_000, 2]);
    expect(facts(opusTrack(hex(SURROUND)))).toEqual(['opus', 'Opus', 48_000, 6]);
    expect(opusTrack(hex(SURROUND)).config).toEqual(hex(SURROUND));
    // The input's rate is not that of the samples (RFC 7845, 5.1).
    expect(opusTrack(hex(STEREO.replace('80bb0000', '44ac0000'))).sampleRateHz).toBe(48_000);
  });

  test('an empty ID header means stereo', () => {
    expect(facts(opusTrack(new Uint8Array()))).toEqual(['opus', 'Opus', 48_000, 2]);
  });

  test.each([
    ['another magic', STEREO.replace('4f70', '4f71')],
    ['version 16', STEREO.replace('6401', '6410')],
    ['no channels', STEREO.replace('640102', '640100')],
    ['3 channels without a mapping', STEREO.replace('640102', '640103')],
    ['a mapping cut short', SURROUND.slice(0, -2)],
    ['a header cut short', STEREO.slice(0, -2)],
  ])('refuses %s', (_, header) => {
    expect(errorCodeOf(() => opusTrack(Uint8Array.from(Buffer.from(header, 'hex'))))).toBe('OPUS_BAD_CONFIG');
  });

  // RFC 6716 table 2; the low two bits of the first byte are the frame count code.
  test.each([
    ['SILK, 10 ms', [0 << 3], 480],
    ['SILK, 60 ms, two frames of the same size', [(3 << 3) | 1], 5760],
    ['hybrid, 20 ms', [13 << 3], 960],
    ['CELT, 2.5 ms', [16 << 3], 120],
    ['CELT, 20 ms, two frames of different sizes', [(31 << 3) | 2], 1920],
    ['CELT, 20 ms, six frames with padding', [(31 << 3) | 3, 0x46], 5760],
    ['a frame count of 0, which is not allowed', [(31 << 3) | 3, 0], 960],
    ['an empty packet', [], 960],
  ])('a packet of %s', (_, bytes, samples) => {
    expect(opusPacketSamples(Uint8Array.from(bytes))).toBe(samples);
  });
});

describe('FLAC', () => {
  const header = (streamInfo: string) => hex(`664c614380000022${streamInfo}${'00'.repeat(16)}`);

  test.each([
    ['48 kHz stereo', '12001200000000004a580bb802f000000000', ['flac', 'fLaC', 48_000, 2], 4608, 16],
    ['44.1 kHz mono', '03e803e80000000007e50ac440f000000000', ['flac', 'fLaC', 44_100, 1], 1000, 16],
    ['96 kHz 5.1', '00c000c0000000000daa17700b7000000000', ['flac', 'fLaC', 96_000, 6], 192, 24],
    ['192 kHz stereo', '00c800c80000000003512ee002f000000000', ['flac', 'fLaC', 192_000, 2], 200, 16],
  ])('%s', (_, streamInfo, expected, maxBlockSamples, bitsPerSample) => {
    const track = flacTrack(header(streamInfo));
    expect(facts(track)).toEqual(expected);
    expect(track.config).toEqual(header(streamInfo));
    expect(parseFlacStreamInfo(track.config)).toMatchObject({ maxBlockSamples, bitsPerSample });
  });

  test('other metadata blocks are left out', () => {
    const streamInfo = '12001200000000004a580bb802f000000000';
    const withComment = Buffer.concat([header(streamInfo), hex('8400000401020304')]);
    withComment[4] = 0x00; // STREAMINFO is not the last block
    expect(flacTrack(new Uint8Array(withComment)).config).toEqual(header(streamInfo));
  });

  test.each([
    ['no magic', hex(`${'00'.repeat(42)}`)],
    ['another first block', hex(`664c614384000022${'00'.repeat(34)}`)],
    ['a rate of 0', header('12001200000000004a580000000000000000')],
    ['too few bytes', hex('664c614380000022')],
  ])('refuses %s', (_, bytes) => {
    expect(errorCodeOf(() => flacTrack(bytes))).toBe('FLAC_BAD_CONFIG');
  });

  // RFC 9639 section 9.1.1: sync code, block size and rate, channels and depth, coded number, uncommon size.
  test.each([
    ['192', 'fff8 1a 18 00 ff', 192],
    ['576', 'fff8 2a 18 00 ff', 576],
    ['4608', 'fff8 5a 18 00 ff', 4608],
    ['256', 'fff8 8a 18 00 ff', 256],
    ['32768', 'fff8 fa 18 00 ff', 32_768],
    ['one byte after a coded number of one', 'fff8 6a 18 05 c7 ff', 200],
    ['two bytes after a coded number of three', 'fff8 7a 18 e08080 03e7 ff', 1000],
    ['two bytes after the longest coded number', 'fff9 7a 18 fe808080808080 03e7', 1000],
    ['no sync code', 'fff0 5a 18 00', undefined],
    ['a reserved size', 'fff8 0a 18 00', undefined],
    ['a header cut short', 'fff8 7a 18 00 03', undefined],
    ['nothing', '', undefined],
  ])('a frame of %s', (_, frame, samples) => {
    expect(flacFrameSamples(hex(frame.replaceAll(' ', '')))).toBe(samples);
  });

  test('a frame whose header is malformed lasts as long as the longest', () => {
    const track = flacTrack(header('12001200000000004a580bb802f000000000'));
    expect(samplesInUnit(track, hex('0000'))).toBe(4608);
  });
});

describe('AC-3', () => {
  // dac3 (ETSI TS 102 366 section F.4): fscod, bsid, bsmod, acmod, lfeon, bit_rate_code, reserved
  test.each([
    // 00 01000 000 111 1 01111 00000; bit rate code 15 is 448 kb/s
    ['48 kHz 5.1', '0b77b50b1e40ebf8403e', ['ac3', 'ac-3', 48_000, 6], '103de0'],
    // 01 01000 000 001 0 00110 00000; 96 kb/s
    ['44.1 kHz mono', '0b771ef84c402f842be1', ['ac3', 'ac-3', 44_100, 1], '5008c0'],
    // 10 01000 000 010 0 01010 00000; 192 kb/s
    ['32 kHz stereo', '0b7795cd944043e106bf', ['ac3', 'ac-3', 32_000, 2], '901140'],
  ])('%s', (_, frame, expected, dac3) => {
    const track = ac3TrackOf(hex(frame));
    expect(facts(track)).toEqual(expected);
    expect(track.config).toEqual(hex(dac3));
    expect(ac3Track(track.config)).toEqual(track);
    expect(samplesInUnit(track, hex(frame))).toBe(1536);
  });

  test.each([
    ['no sync word', '0b78b50b1e40ebf8'],
    ['a reserved rate', '0b77b50bde40ebf8'],
    ['a frame size code of 38', '0b77b50b2640ebf8'],
    ['E-AC-3', '0b77037f3f87c000'],
    ['a few bytes', '0b77b5'],
  ])('refuses %s', (_, frame) => {
    expect(errorCodeOf(() => ac3TrackOf(hex(frame)))).toBe('AC3_BAD_FRAME');
  });
});

describe('E-AC-3', () => {
  /** A frame of these first bytes, filled up to the size that they say. */
  const frame = (start: string, sizeBytes: number) =>
    new Uint8Array(Buffer.concat([hex(start), Buffer.alloc(sizeBytes - start.length / 2)]));
  const SURROUND = frame('0b77037f3f87c00020f8', 1792);

  // dec3 (section F.6): data_rate, num_ind_sub; fscod, bsid, reserved, asvc, bsmod, acmod, lfeon, reserved,
  // num_dep_sub, reserved
  test.each([
    // 448 kb/s: 0000111000000 000, 00 10000 0 0 000 111 1 000 0000 0
    ['48 kHz 5.1', SURROUND, ['eac3', 'ec-3', 48_000, 6], '0e00200f00'],
    // 834 bytes in 1536 samples: 191.5, so 192 kb/s: 0000011000000 000, 01 10000 0 0 000 010 0 000 0000 0
    ['44.1 kHz stereo', frame('0b7701a07487c0002084', 834), ['eac3', 'ec-3', 44_100, 2], '0600600400'],
  ])('%s', (_, unit, expected, dec3) => {
    const track = eac3TrackOf(unit);
    expect(facts(track)).toEqual(expected);
    expect(track.config).toEqual(hex(dec3));
    expect(eac3Track(track.config)).toEqual(track);
    expect(samplesInUnit(track, unit)).toBe(1536);
  });

  test('7.1: an independent 5.1 and a dependent substream with Lrs and Rrs', () => {
    // strmtyp 01, substreamid 000, frmsiz 31 (64 bytes), fscod 00, numblkscod 11, acmod 2, lfeon 0, bsid 16,
    // dialnorm 0, compre 0, chanmape 1, chanmap bit 6
    // 01 000 00000011111 00 11 010 0 10000 00000 0 1 0000001000000000
    const bits = '01000000000111110011010010000000000100000010000000000000';
    const start = Buffer.from([
      0x0b,
      0x77,
      ...(bits.match(/.{8}/g) ?? []).map((byte) => Number.parseInt(byte, 2)),
    ]);
    const dependent = frame(start.toString('hex'), 64);
    const track = eac3TrackOf(new Uint8Array(Buffer.concat([SURROUND, dependent])));
    expect(track.channelCount).toBe(8);
    // data_rate 464; num_dep_sub 1, chan_loc bit 1: 0000111010000 000, 00 10000 0 0 000 111 1 000 0001 000000010
    expect(track.config).toEqual(hex('0e80200f0202'));
  });

  test.each([
    [0, 256],
    [1, 512],
    [2, 768],
    [3, 1536],
  ])('numblkscod %d', (code, samples) => {
    expect(eac3UnitSamples(Uint8Array.of(0x0b, 0x77, 3, 0x7f, 0x0f | (code << 4)))).toBe(samples);
  });

  test.each([
    ['AC-3', hex('0b77b50b1e40ebf8403e')],
    ['a dependent substream alone', frame('0b77437f3f87c00020f8', 1792)],
    ['garbage after the frame', new Uint8Array(Buffer.concat([SURROUND, hex('0102')]))],
    ['half the rate', frame('0b77037fff87c00020f8', 1792)],
    ['nothing', new Uint8Array()],
  ])('refuses %s', (_, unit) => {
    expect(errorCodeOf(() => eac3TrackOf(unit))).toBe('AC3_BAD_FRAME');
  });
});

describe('MP3', () => {
  test.each([
    ['48 kHz stereo', 'fffb9464', ['mp3', 'mp4a.6b', 48_000, 2], 1152],
    ['44.1 kHz joint stereo', 'fffb9064', ['mp3', 'mp4a.6b', 44_100, 2], 1152],
    ['22.05 kHz mono', 'fff340c4', ['mp3', 'mp4a.69', 22_050, 1], 576],
    ['8 kHz mono', 'ffe318c4', ['mp3', 'mp4a.69', 8_000, 1], 576],
  ])('%s', (_, frame, expected, samples) => {
    const track = mp3Track(hex(frame));
    expect(facts(track)).toEqual(expected);
    expect(mp3SamplesPerUnit(track.config)).toBe(samples);
    expect(mp3Track(track.config)).toEqual(track);
    expect(mp3TrackOf(track.sampleRateHz, track.channelCount)).toEqual(track);
  });

  test('frames that differ in bit rate, padding and stereo mode belong to one track', () => {
    expect(mp3Track(hex('fffbb264'))).toEqual(mp3Track(hex('fffa9004')));
  });

  test.each([
    ['layer II', 'fffd9464'],
    ['a reserved version', 'ffeb9464'],
    ['a reserved rate', 'fffb9c64'],
    ['no sync', 'fe7b9464'],
    ['three bytes', 'fffb94'],
  ])('refuses %s', (_, frame) => {
    expect(errorCodeOf(() => mp3Track(hex(frame)))).toBe('MP3_BAD_FRAME');
  });
  test('refuses a rate that MP3 does not have', () => {
    expect(errorCodeOf(() => mp3TrackOf(96_000, 2))).toBe('MP3_BAD_FRAME');
  });
});
