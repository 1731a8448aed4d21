import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  decodeWarnings,
  encodeFragmentedMp4,
  frameHashes,
  probePackets,
  withTemporaryFolder,
} from '../../test/ffmpeg.ts';
import { hex, toHex } from '../../test/hex.ts';
import { errorCodeOf } from '../../test/media-error.ts';
import { type AccessUnit, type AudioTrack, timescaleHz, type VideoTrack } from '../access-unit.ts';
import { concatBytes } from '../bytes.ts';
import { fragment, parseFragment } from './fragment.ts';
import { initSegment, parseInitSegment } from './init-segment.ts';

const video: VideoTrack = {
  kind: 'video',
  trackId: 0,
  codec: 'avc',
  config: Uint8Array.of(1),
  codecString: 'avc1.64001f',
  widthPx: 1280,
  heightPx: 720,
  frameDurationTicks: undefined,
};
const audio: AudioTrack = {
  kind: 'audio',
  trackId: 0,
  language: undefined,
  codec: 'aac',
  config: Uint8Array.of(0x11, 0x90),
  codecString: 'mp4a.40.2',
  sampleRateHz: 48_000,
  channelCount: 2,
};

/** A key frame, then a frame shown earlier than the one decoded before it would allow; two audio units. */
const videoUnits: AccessUnit[] = [
  {
    kind: 'video',
    trackId: 0,
    dtsTicks: 90_000,
    ptsTicks: 97_200,
    isRandomAccess: true,
    data: Uint8Array.of(1, 2, 3),
  },
  {
    kind: 'video',
    trackId: 0,
    dtsTicks: 93_600,
    ptsTicks: 93_000,
    isRandomAccess: false,
    data: Uint8Array.of(4, 5),
  },
];
const audioUnits: AccessUnit[] = [48_000, 49_024].map((dtsTicks, index) => ({
  kind: 'audio',
  trackId: 0,
  dtsTicks,
  ptsTicks: dtsTicks,
  isRandomAccess: true,
  data: Uint8Array.of(0xa0 + index),
}));
const small = fragment({
  sequenceNumber: 7,
  tracks: [
    { track: video, units: videoUnits, endTicks: 97_200 },
    { track: audio, units: audioUnits, endTicks: 50_048 },
  ],
});

describe('a fragment', () => {
  test('has the boxes of ISO/IEC 14496-12', () => {
    const expected = hex(`
      000000c4  size
      6d6f6f66  'moof'
        00000010  size
        6d666864  'mfhd'
        00000000  version, flags
        00000007  sequence_number
        0000005c  size
        74726166  'traf'
          00000018  size
          74666864  'tfhd'
          00020028  default-base-is-moof, default duration and flags
          00000001  track_ID
          00000e10  default_sample_duration 3600
          01010000  default_sample_flags: depends on others, no sync sample
          00000014  size
          74666474  'tfdt'
          01000000  version 1
          0000000000015f90  baseMediaDecodeTime 90000
          00000028  size
          7472756e  'trun'
          01000a05  version 1: sizes, offsets; data offset, first flags
          00000002  sample_count
          000000cc  data_offset
          02000000  first_sample_flags: depends on no other
          00000003  size
          00001c20  offset 7200
          00000002  size
          fffffda8  offset -600
        00000050  size
        74726166  'traf'
          00000018  size
          74666864  'tfhd'
          00020028  default-base-is-moof, default duration and flags
          00000002  track_ID
          00000400  default_sample_duration 1024
          02000000  default_sample_flags
          00000014  size
          74666474  'tfdt'
          01000000  version 1
          000000000000bb80  baseMediaDecodeTime 48000
          0000001c  size
          7472756e  'trun'
          01000201  version 1: sizes; data offset
          00000002  sample_count
          000000d1  data_offset
          00000001
          00000001
      0000000f  size
      6d646174  'mdat'
      010203
      0405
      a0
      a1
    `);
    expect(toHex(small)).toBe(toHex(expected));
  });

  test('gives back the access units, as views', () => {
    const units = parseFragment(small, [video, audio]);
    expect(units).toEqual([...videoUnits, ...audioUnits]);
    for (const { data } of units) expect(data.buffer).toBe(small.buffer);
  });

  test('takes one allocation of little more than its size', () => {
    const payload: AccessUnit = {
      kind: 'video',
      trackId: 0,
      dtsTicks: 0,
      ptsTicks: 0,
      isRandomAccess: true,
      data: new Uint8Array(1_000_000),
    };
    const bytes = fragment({
      sequenceNumber: 1,
      tracks: [{ track: video, units: [payload], endTicks: 3600 }],
    });
    expect(bytes.length).toBeGreaterThan(1_000_000);
    expect(bytes.buffer.byteLength).toBeLessThan(1_000_200);
  });

  test('may lack the units of a track, or of all', () => {
    const withoutVideo = fragment({
      sequenceNumber: 1,
      tracks: [
        { track: video, units: [], endTicks: 0 },
        { track: audio, units: audioUnits, endTicks: 50_048 },
      ],
    });
    expect(parseFragment(withoutVideo, [video, audio])).toEqual(audioUnits);
    const empty = fragment({ sequenceNumber: 1, tracks: [{ track: video, units: [], endTicks: 0 }] });
    expect(parseFragment(empty, [video])).toEqual([]);
  });

  test('may be followed by others', () => {
    const later = audioUnits.map((unit) => ({
      ...unit,
      dtsTicks: unit.dtsTicks + 2048,
      ptsTicks: unit.ptsTicks + 2048,
    }));
    const next = fragment({ sequenceNumber: 8, tracks: [{ track: audio, units: later, endTicks: 52_096 }] });
    const first = fragment({
      sequenceNumber: 7,
      tracks: [{ track: audio, units: audioUnits, endTicks: 50_048 }],
    });
    expect(parseFragment(concatBytes([first, next]), [audio])).toEqual([...audioUnits, ...later]);
  });

  test('gives back any access units', () => {
    const units = fc
      .array(
        fc.record({
          durationTicks: fc.integer({ min: 1, max: 2 ** 20 }),
          offsetTicks: fc.integer({ min: -(2 ** 20), max: 2 ** 20 }),
          isRandomAccess: fc.boolean(),
          data: fc.uint8Array({ maxLength: 40 }),
        }),
        { minLength: 1, maxLength: 20 },
      )
      .chain((samples) =>
        // A channel that has run for a century.
        fc.integer({ min: 2 ** 20, max: 3e14 }).map((startTicks) => {
          let dtsTicks = startTicks;
          const made = samples.map(({ durationTicks, offsetTicks, isRandomAccess, data }): AccessUnit => {
            const unit = {
              kind: 'video',
              trackId: 0,
              dtsTicks,
              ptsTicks: dtsTicks + offsetTicks,
              isRandomAccess,
              data,
            } as const;
            dtsTicks += durationTicks;
            return unit;
          });
          return { made, endTicks: dtsTicks };
        }),
      );
    fc.assert(
      fc.property(units, ({ made, endTicks }) => {
        const bytes = fragment({ sequenceNumber: 1, tracks: [{ track: video, units: made, endTicks }] });
        expect(parseFragment(bytes, [video])).toEqual(made);
      }),
    );
  });

  test('cut short at any byte is refused', () => {
    for (let length = 1; length < small.length; length++) {
      expect(errorCodeOf(() => parseFragment(small.subarray(0, length), [video, audio]))).toMatch(
        /^(BYTES_TRUNCATED|MP4_MISSING_BOX)$/,
      );
    }
  });

  test('with any one byte changed is read or refused with a code', () => {
    for (let at = 0; at < small.length; at++) {
      for (const value of [0x00, 0x01, 0x7f, 0x80, 0xff]) {
        const damaged = small.slice();
        damaged[at] = value;
        errorCodeOf(() => parseFragment(damaged, [video, audio])); // throws what is not a MediaError
      }
    }
  });

  test('with millions of samples that take no byte at all is refused before it costs memory', () => {
    const bytes = hex(`
      00000058  size
      6d6f6f66  'moof'
        00000050  size
        74726166  'traf'
          0000001c  size
          74666864  'tfhd'
          00020038  default-base-is-moof, default duration, size and flags
          00000001  track_ID
          00000e10  default_sample_duration
          00000000  default_sample_size
          01010000  default_sample_flags
          00000014  size
          74666474  'tfdt'
          01000000  version 1
          0000000000000000  baseMediaDecodeTime
          00000010  size
          7472756e  'trun'
          01000000  no field for each sample
          00400000  sample_count 4194304
          00000008  size
          66726565  'free'
      00000008  size
      6d646174  'mdat'
    `);
    expect(errorCodeOf(() => parseFragment(bytes, [video]))).toBe('MP4_BAD_BOX');
    bytes.set(hex('00000003'), bytes.indexOf(0x40, 60) - 1); // sample_count 3
    expect(parseFragment(bytes, [video])).toHaveLength(3);
  });

  test.each([
    ['two thousand million samples without fields', 'trun', '00000000 7fffffff'],
    ['more rows than there are', 'trun', '01000a05 00000009'],
    ['a sample that reaches out of mdat', 'trun', '01000a05 00000002 000000cc 02000000 0000ffff'],
    ['a data offset before mdat', 'trun', '01000a05 00000002 00000010'],
    ['a track that is not in the init segment', 'tfhd', '00020028 00000003'],
    ['a data offset from the start of the file', 'tfhd', '00020029'],
    ['neither a default duration nor one for each sample', 'tfhd', '00020020'],
    ['a decode time beyond 2^53', 'tfdt', '01000000 ffffffffffffffff'],
  ])('with %s is refused', (_, type, fields) => {
    const bytes = small.slice();
    bytes.set(hex(fields.replaceAll(' ', '\n')), Buffer.from(bytes).indexOf(type) + 4);
    expect(errorCodeOf(() => parseFragment(bytes, [video, audio]))).toMatch(
      /^(MP4_BAD_BOX|BYTES_TRUNCATED)$/,
    );
  });
});

describe('judged by FFmpeg', () => {
  const source = encodeFragmentedMp4({ durationSeconds: 4, sampleRateHz: 44_100 });
  const tracks = parseInitSegment(source);
  const units = parseFragment(source, tracks);

  test('its fragments are read as ffprobe reads them', () => {
    withTemporaryFolder((folder) => {
      const path = join(folder, 'source.mp4');
      writeFileSync(path, source);
      const packets = probePackets(path);
      expect(packets.video.length).toBe(100);
      for (const kind of ['video', 'audio'] as const) {
        expect(units.filter((unit) => unit.kind === kind).map(asPacket)).toEqual(packets[kind].map(fieldsOf));
      }
      expect(units.some((unit) => unit.ptsTicks > unit.dtsTicks + 3600)).toBe(true); // there are B-frames
    });
  });

  test('our fragments hold the same packets, decode to the same frames and give no warning', () => {
    const written = tracks.map((track) => {
      const ofTrack = units.filter((unit) => unit.kind === track.kind);
      return { track, units: ofTrack, frameTicks: track.kind === 'video' ? 3600 : 1024 };
    });
    /** The units of half a file. */
    const half = (index: number) =>
      fragment({
        sequenceNumber: index + 1,
        tracks: written.map(({ track, units: all, frameTicks }) => {
          const cutTicks = 2 * timescaleHz(track);
          const some = all.filter((unit) => unit.dtsTicks < cutTicks === (index === 0));
          return { track, units: some, endTicks: (some.at(-1)?.dtsTicks ?? 0) + frameTicks };
        }),
      });
    withTemporaryFolder((folder) => {
      const sourcePath = join(folder, 'source.mp4');
      const path = join(folder, 'ours.mp4');
      writeFileSync(sourcePath, source);
      writeFileSync(path, concatBytes([initSegment(tracks), half(0), half(1)]));
      expect(decodeWarnings(path)).toBe('');
      const packets = probePackets(path);
      const sourcePackets = probePackets(sourcePath);
      expect(packets.video.map(fieldsOf)).toEqual(sourcePackets.video.map(fieldsOf));
      expect(packets.audio.map(fieldsOf)).toEqual(sourcePackets.audio.map(fieldsOf));
      expect(packets.video.every(({ duration }) => duration === 3600)).toBe(true);
      const hashes = frameHashes(path);
      expect(hashes.length).toBeGreaterThan(200);
      expect(hashes).toEqual(frameHashes(sourcePath));
    });
  });
});

interface PacketFields {
  dts: number;
  pts: number;
  size: number;
  isKey: boolean;
}

function asPacket(unit: AccessUnit): PacketFields {
  return { dts: unit.dtsTicks, pts: unit.ptsTicks, size: unit.data.length, isKey: unit.isRandomAccess };
}

function fieldsOf(packet: { dts: number; pts: number; size: string; flags: string }): PacketFields {
  return { dts: packet.dts, pts: packet.pts, size: Number(packet.size), isKey: packet.flags.startsWith('K') };
}
