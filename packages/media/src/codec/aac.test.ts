import { describe, expect, test } from 'vitest';
import { aacTrack } from './aac.ts';

const hex = (text: string) => Uint8Array.from(Buffer.from(text, 'hex'));

describe('aacTrack', () => {
  // Configurations that FFmpeg 5.1's encoder wrote; rate and channels as ffprobe reports them. They end with an SBR
  // extension that says "no SBR" (56e500).
  test.each([
    ['mono', '118856e500', 48_000, 1],
    ['stereo', '119056e500', 48_000, 2],
    ['5.1', '11b056e500', 48_000, 6],
    ['7.1', '11b856e500', 48_000, 8],
    ['2.1, by program config element', '118004c4010020000d4c61766335392e33372e31303056e500', 48_000, 3],
    ['quad, by program config element', '118004c4040021100d4c61766335392e33372e31303056e500', 48_000, 4],
    ['6.1, by program config element', '118004c848002000c4400d4c61766335392e33372e31303056e500', 48_000, 7],
    ['octagonal', '118004c848002008c8200d4c61766335392e33372e31303056e500', 48_000, 8],
    ['stereo without extension', '1210', 44_100, 2],
  ])('LC, %s', (_, config, sampleRateHz, channelCount) => {
    expect(aacTrack(hex(config))).toEqual({
      kind: 'audio',
      trackId: 0,
      language: undefined,
      codec: 'aac',
      config: hex(config),
      codecString: 'mp4a.40.2',
      sampleRateHz,
      channelCount,
    });
  });

  // ffprobe reports 44100 Hz stereo for all four: the rate after SBR, twice that of the core.
  test.each([
    // object type 5, index 7 (22.05 kHz), 2 channels, index 4 (44.1 kHz), object type 2
    ['HE-AAC, hierarchical', '2b920800', 'mp4a.40.5'],
    // object type 29, index 7, 1 channel, index 4, object type 2
    ['HE-AAC v2, hierarchical', 'eb8a0800', 'mp4a.40.29'],
    // object type 2, index 7, 2 channels; 0x2b7, object type 5, SBR present, index 4
    ['HE-AAC, backward compatible', '139056e5a0', 'mp4a.40.5'],
    // the same with 1 channel; 0x548, PS present
    ['HE-AAC v2, backward compatible', '138856e5a54880', 'mp4a.40.29'],
  ])('%s: the core rate and the channels that come out', (_, config, codecString) => {
    expect(aacTrack(hex(config))).toMatchObject({ codecString, sampleRateHz: 22_050, channelCount: 2 });
  });

  test('an explicit frequency', () => {
    // 00010 (LC) 1111 (explicit) 0x00ac44 (44100) 0010 (stereo) 000
    expect(aacTrack(hex('1780562210'))).toMatchObject({ sampleRateHz: 44_100, channelCount: 2 });
  });

  test('AAC Main', () => {
    expect(aacTrack(hex('0a10')).codecString).toBe('mp4a.40.1'); // 00001 0100 0010 000
  });

  test.each([
    ['nothing', '', /ends too early/],
    ['half', '12', /ends too early/],
    ['a cut program config element', '118004c8', /ends too early/],
    ['an escaped object type, USAC', 'f94a40', /audio object type 42/], // 11111 001010 ...
    ['960-sample units', '1214', /960/], // 00010 0100 0010 1
    ['a reserved frequency index', '1690', /index 13/], // 00010 1101 0010 000
    ['an explicit frequency of 0', '1780000010', /sampling frequency 0/],
    ['a reserved channel configuration', '1240', /channel configuration 8/], // 00010 0100 1000 000
  ])('refuses %s', (_, config, message) => {
    expect(() => aacTrack(hex(config))).toThrow(/^AAC_BAD_CONFIG/);
    expect(() => aacTrack(hex(config))).toThrow(message);
  });
});
