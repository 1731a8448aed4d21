import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { encodeFragmentedMp4, ffmpeg, withTemporaryFolder } from '../../test/ffmpeg.ts';
import { hex, toHex } from '../../test/hex.ts';
import { errorCodeOf } from '../../test/media-error.ts';
import type { AudioTrack, VideoTrack } from '../access-unit.ts';
import { initSegment, parseInitSegment } from './init-segment.ts';

const fromFfmpeg = encodeFragmentedMp4({ durationSeconds: 1, sampleRateHz: 44_100 });
const [video, audio] = parseInitSegment(fromFfmpeg);
if (video?.kind !== 'video' || audio?.kind !== 'audio') throw new Error('FFmpeg wrote other tracks');

/** FFmpeg's `ftyp` and `moov` alone. */
const initFromFfmpeg = fromFfmpeg.subarray(0, indexOfAscii(fromFfmpeg, 'moof') - 4);

const plainAudio: AudioTrack = {
  kind: 'audio',
  trackId: 0,
  language: undefined,
  codec: 'aac',
  config: Uint8Array.of(0x11, 0x90), // AAC-LC, 48 kHz, stereo
  codecString: 'mp4a.40.2',
  sampleRateHz: 48_000,
  channelCount: 2,
};

describe('the init segment', () => {
  test('of FFmpeg gives its tracks', () => {
    expect(video).toMatchObject({ codecString: 'avc1.64000b', widthPx: 160, heightPx: 90 });
    expect(audio).toMatchObject({ codecString: 'mp4a.40.2', sampleRateHz: 44_100, channelCount: 1 });
  });

  test('comes back as it was written, the frame duration too', () => {
    const constantRate: VideoTrack = { ...video, frameDurationTicks: 3600 };
    expect(parseInitSegment(initSegment([video, audio]))).toEqual([video, audio]);
    expect(parseInitSegment(initSegment([constantRate, audio]))).toEqual([constantRate, audio]);
    expect(parseInitSegment(initSegment([audio]))).toEqual([audio]);
    expect(parseInitSegment(initSegment([video]))).toEqual([video]);
  });

  test('is understood by ffprobe', () => {
    withTemporaryFolder((folder) => {
      const path = join(folder, 'init.mp4');
      writeFileSync(path, initSegment([video, audio]));
      const args = [
        '-v',
        'warning',
        '-show_streams',
        '-show_data',
        '-show_data_hash',
        'md5',
        '-of',
        'json',
        path,
      ];
      const ours = JSON.parse(execFileSync('ffprobe', args, { encoding: 'utf8', stdio: 'pipe' }));
      writeFileSync(path, initFromFfmpeg);
      const theirs = JSON.parse(execFileSync('ffprobe', args, { encoding: 'utf8', stdio: 'pipe' }));
      const told = ({ streams }: { streams: Record<string, unknown>[] }) =>
        streams.map((stream) => ({
          id: stream.id,
          codec: stream.codec_name,
          tag: stream.codec_tag_string,
          profile: stream.profile,
          width: stream.width,
          height: stream.height,
          sampleRate: stream.sample_rate,
          channels: stream.channels,
          timeBase: stream.time_base,
          extradata: stream.extradata_hash,
        }));
      expect(told(ours)).toEqual(told(theirs));
      expect(told(ours)).toMatchObject([
        { id: '0x1', codec: 'h264', width: 160, height: 90, timeBase: '1/90000' },
        { id: '0x2', codec: 'aac', sampleRate: '44100', channels: 1, timeBase: '1/44100' },
      ]);
    });
  });

  test('has the sample entry of ISO/IEC 14496-14 for AAC', () => {
    const expected = hex(`
      0000004b          size
      6d703461          'mp4a'
      000000000000      reserved
      0001              data_reference_index
      0000000000000000  reserved
      0002              channelcount
      0010              samplesize
      00000000          pre_defined, reserved
      bb800000          samplerate 48000.0
        00000027          size
        65736473          'esds'
        00000000          version, flags
          03 tag ES_Descriptor
          19 size
          0000  ES_ID
          00    flags
            04  tag DecoderConfigDescriptor
            11  size
            40  objectTypeIndication
            15  streamType, upStream, reserved
            000000    bufferSizeDB
            00000000  maxBitrate
            00000000  avgBitrate
              05  tag DecoderSpecificInfo
              02  size
              1190
            06  tag SLConfigDescriptor
            01  size
            02  predefined
    `);
    expect(toHex(initSegment([plainAudio]))).toContain(toHex(expected));
  });

  test('depends on the tracks alone', () => {
    const again = { ...audio, config: audio.config.slice() };
    expect(initSegment([video, again])).toEqual(initSegment([video, audio]));
  });

  test.each([
    ['ours', initSegment([video, audio])],
    ['of FFmpeg', initFromFfmpeg],
  ])('cut short at any byte is refused (%s)', (_, bytes) => {
    for (let length = 0; length < bytes.length; length++) {
      expect(errorCodeOf(() => parseInitSegment(bytes.subarray(0, length)))).toMatch(
        /^(BYTES_TRUNCATED|MP4_MISSING_BOX)$/,
      );
    }
  });

  test('with any one byte changed is read or refused with a code', () => {
    const bytes = initSegment([video, audio]);
    for (let at = 0; at < bytes.length; at++) {
      for (const value of [0x00, 0x7f, 0xff]) {
        const damaged = bytes.slice();
        damaged[at] = value;
        errorCodeOf(() => parseInitSegment(damaged)); // throws what is not a MediaError
      }
    }
  });

  test('of another codec or another timescale is refused', () => {
    const vvc = initSegment([video]);
    vvc.set(hex('76766331'), indexOfAscii(vvc, 'avc1'));
    expect(errorCodeOf(() => parseInitSegment(vvc))).toBe('MP4_UNSUPPORTED_CODEC');

    const defaultTimescale = ffmpeg(
      '-f lavfi -i testsrc2=size=160x90:rate=25:duration=0.2 -c:v libx264 -preset ultrafast',
      '-movflags +frag_keyframe+empty_moov+default_base_moof -f mp4 -',
    );
    expect(errorCodeOf(() => parseInitSegment(defaultTimescale))).toBe('MP4_BAD_BOX');
  });

  test('with track ids that do not count from 1 is refused', () => {
    const bytes = initSegment([plainAudio]);
    bytes[indexOfAscii(bytes, 'tkhd') + 4 + 4 + 8 + 3] = 2; // type, version and flags, dates
    expect(errorCodeOf(() => parseInitSegment(bytes))).toBe('MP4_BAD_BOX');
  });
});

function indexOfAscii(bytes: Uint8Array, text: string): number {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).indexOf(text, 0, 'latin1');
}
