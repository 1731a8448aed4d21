import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  decodeWarnings,
  encodeFragmentedMp4,
  ffmpeg,
  frameHashes,
  probePackets,
  withTemporaryFolder,
} from '../../test/ffmpeg.ts';
import { hex, toHex } from '../../test/hex.ts';
import { type AccessUnit, type Track, timescaleHz } from '../access-unit.ts';
import { concatBytes } from '../bytes.ts';
import { aacTrack, adtsHeaders } from '../codec/aac.ts';
import { avcTrack } from '../codec/avc.ts';
import { FlvDemuxer, FlvReader } from '../flv/demux.ts';
import { compareTicks } from '../time.ts';
import { canCarryInTs, TS_PACKET_SIZE_BYTES, TsMuxer } from './mux.ts';

const SPS = '6742c01ed900a02ff97011000003000100000300320f162e48';
const PPS = '68cb83cb20';
const video = avcTrack(hex(`0142c01effe10019${SPS}010005${PPS}`));
const audio = aacTrack(hex('1190'));

function picture(
  dtsTicks: number,
  ptsTicks = dtsTicks,
  isRandomAccess = true,
  data = hex('000000026588'),
): AccessUnit {
  return { kind: 'video', trackId: 0, dtsTicks, ptsTicks, isRandomAccess, data };
}
function sound(dtsTicks: number, data = hex('2110')): AccessUnit {
  return { kind: 'audio', trackId: 0, dtsTicks, ptsTicks: dtsTicks, isRandomAccess: true, data };
}
function muxerOf(...tracks: Track[]): TsMuxer {
  const muxer = new TsMuxer();
  muxer.setTracks(tracks);
  return muxer;
}

interface Packet {
  readonly pid: number;
  readonly isStart: boolean;
  readonly counter: number;
  readonly adaptation: Uint8Array;
  readonly payload: Uint8Array;
}

/** Takes packets apart by ISO/IEC 13818-1, 2.4.3.2. */
function packetsOf(bytes: Uint8Array): Packet[] {
  expect(bytes.length % TS_PACKET_SIZE_BYTES).toBe(0);
  return Array.from({ length: bytes.length / TS_PACKET_SIZE_BYTES }, (_, index) => {
    const packet = bytes.subarray(index * TS_PACKET_SIZE_BYTES, (index + 1) * TS_PACKET_SIZE_BYTES);
    const [sync = 0, first = 0, second = 0, control = 0, length = 0] = packet;
    expect(sync).toBe(0x47);
    const fieldBytes = control & 0x20 ? 1 + length : 0;
    return {
      pid: ((first & 0x1f) << 8) | second,
      isStart: (first & 0x40) !== 0,
      counter: control & 0x0f,
      adaptation: packet.subarray(4, 4 + fieldBytes),
      payload: control & 0x10 ? packet.subarray(4 + fieldBytes) : new Uint8Array(0),
    };
  });
}
const ofPid = (bytes: Uint8Array, pid: number) => packetsOf(bytes).filter((packet) => packet.pid === pid);
const payloadOf = (bytes: Uint8Array, pid: number) =>
  concatBytes(ofPid(bytes, pid).map(({ payload }) => payload));

describe('the tables', () => {
  test('PAT: one programme; its checksum is the one that every transport stream of this form has', () => {
    const [pat] = ofPid(muxerOf(video, audio).unit(picture(0)), 0);
    // FFmpeg 5.1 writes the same section: transport stream 1, programme 1 at PID 0x1000.
    expect(toHex(pat?.payload.subarray(0, 17) ?? new Uint8Array())).toBe(
      '0000b00d0001c100000001f0002ab104b2',
    );
    expect(pat?.payload.subarray(17).every((byte) => byte === 0xff)).toBe(true);
  });

  test('PMT: clock on the video, H.264 and AAC in ADTS', () => {
    const [pmt] = ofPid(muxerOf(video, audio).unit(picture(0)), 0x1000);
    const section = hex(`
      00        pointer_field
      02        table_id
      b017      section_syntax_indicator, section_length 23
      0001      program_number
      c1 
      0000      section 0 of 0
      e100      PCR_PID 0x100
      f000      no descriptors
      1be100f000  H.264 at 0x100
      0fe101f000  AAC in ADTS at 0x101
    `);
    expect(pmt?.payload.subarray(0, section.length)).toEqual(section);
  });

  test('precede each random access point, each segment, and come at least every 0.4 s of media', () => {
    const muxer = muxerOf(video, audio);
    const hasTables = (bytes: Uint8Array) =>
      ofPid(bytes, 0).length === 1 && ofPid(bytes, 0x1000).length === 1;
    expect(hasTables(muxer.unit(picture(0)))).toBe(true);
    expect(hasTables(muxer.unit(picture(3600, 3600, false)))).toBe(false);
    expect(hasTables(muxer.unit(picture(7200)))).toBe(true);
    expect(hasTables(muxer.unit(sound(24 * 1024)))).toBe(true); // 0.512 s
    expect(hasTables(muxer.unit(sound(25 * 1024)))).toBe(false);
    muxer.startSegment();
    expect(hasTables(muxer.unit(sound(26 * 1024)))).toBe(true);
  });

  test('the version rises when a track comes or goes', () => {
    const muxer = muxerOf(video, audio);
    const version = () => ((ofPid(muxer.unit(picture(0)), 0x1000)[0]?.payload[6] ?? 0) >> 1) & 0x1f;
    expect(version()).toBe(0);
    muxer.setTracks([video, aacTrack(hex('1210'))]);
    expect(version()).toBe(0);
    muxer.setTracks([video]);
    expect(version()).toBe(1);
  });
});

describe('a picture', () => {
  test('PES header, access unit delimiter, parameter sets, NAL units with start codes', () => {
    const bytes = muxerOf(video).unit(picture(0x1_2345_6789, 0x1_2345_6789 + 3600));
    expect(toHex(payloadOf(bytes, 0x100))).toBe(
      [
        '000001e0', // packet_start_code_prefix, stream_id
        '003f', // PES_packet_length: 63
        '84c00a', // aligned; PTS and DTS; 10 bytes of them
        // PTS 0x123457599: bits 32..30 are 100, 29..15 are 100011010001010 (0x468a), 14..0 are 0x7599
        '39',
        '8d15',
        'eb33',
        // DTS 0x123456789: 14..0 are 0x6789
        '19',
        '8d15',
        'cf13',
        '0000000109f0', // access unit delimiter: any slices
        `00000001${SPS}`,
        `00000001${PPS}`,
        '000000016588',
      ].join(''),
    );
  });

  test('has no parameter sets where no decoder starts, nor twice where it brings its own', () => {
    const muxer = muxerOf(video);
    muxer.unit(picture(0));
    const plain = muxer.unit(picture(3600, 3600, false, hex('00000002419a')));
    expect(toHex(payloadOf(plain, 0x100).subarray(14))).toBe('0000000109f000000001419a');
    const own = muxer.unit(
      picture(7200, 7200, true, hex(`00000002 \n 09f0 \n 00000004 \n 6742c01e \n 000000026588`)),
    );
    expect(toHex(payloadOf(own, 0x100).subarray(14))).toBe('0000000109f0000000016742c01e000000016588');
  });

  test('with NAL units that do not fit keeps what comes before the fault', () => {
    const bytes = muxerOf(video).unit(picture(0, 0, false, hex('00000002419a00ffffff41')));
    expect(toHex(payloadOf(bytes, 0x100).subarray(14))).toBe('0000000109f000000001419a');
  });

  test('of any size fills its packets exactly', () => {
    for (let size = 300; size < 300 + TS_PACKET_SIZE_BYTES; size++) {
      const data = concatBytes([hex('00000001'), new Uint8Array(size)]);
      new DataView(data.buffer).setUint32(0, size);
      data.fill(0x41, 4);
      const packets = ofPid(muxerOf(video, audio).unit(picture(0, 0, false, data)), 0x100);
      const payload = concatBytes(packets.map((packet) => packet.payload));
      expect(payload.subarray(14 + 6 + 4)).toEqual(data.subarray(4));
      expect(packets.map((packet) => packet.isStart)).toEqual(packets.map((_, index) => index === 0));
      expect(packets.map((packet) => packet.counter)).toEqual(packets.map((_, index) => index));
    }
  });
});

describe('the clock', () => {
  const clockOf = ({ adaptation }: Packet): bigint | undefined => {
    if (((adaptation[1] ?? 0) & 0x10) === 0) return undefined;
    const digits = toHex(adaptation.subarray(2, 8));
    const value = BigInt(`0x${digits}`);
    expect((value >> 9n) & 0x3fn).toBe(0x3fn); // reserved bits
    expect(value & 0x1ffn).toBe(0n); // extension
    return value >> 15n;
  };

  test('runs 0.2 s behind the decoding times, through the wrap of 33 bits', () => {
    const muxer = muxerOf(video);
    for (const dtsTicks of [18_000, 2 ** 33 - 1800, 2 ** 33 + 1800, 2 ** 33 + 18_000, 5 * 2 ** 33 + 17_999]) {
      const [packet] = ofPid(muxer.unit(picture(dtsTicks, dtsTicks + 7200)), 0x100);
      if (packet === undefined) throw new Error('no video packet');
      expect(clockOf(packet)).toBe(BigInt.asUintN(33, BigInt(dtsTicks - 18_000)));
      const payload = packet.payload;
      const stamp = (at: number) => {
        const bits = BigInt(`0x${toHex(payload.subarray(at, at + 5))}`);
        return (
          ((bits >> 33n) & 7n) * 2n ** 30n + ((bits >> 17n) & 0x7fffn) * 2n ** 15n + ((bits >> 1n) & 0x7fffn)
        );
      };
      expect(stamp(9)).toBe(BigInt.asUintN(33, BigInt(dtsTicks + 7200)));
      expect(stamp(14)).toBe(BigInt.asUintN(33, BigInt(dtsTicks)));
    }
  });

  test('comes in a packet of its own when pictures are rare, without counting', () => {
    const muxer = muxerOf(video, audio);
    const counterBefore = ofPid(muxer.unit(picture(0)), 0x100).at(-1)?.counter;
    const [lone] = ofPid(muxer.unit(sound(48 * 101)), 0x100); // 101 ms
    expect(lone && clockOf(lone)).toBe(BigInt.asUintN(33, BigInt(101 * 90 - 18_000)));
    expect(lone?.payload.length).toBe(0);
    expect(lone?.counter).toBe(counterBefore);
  });

  test('is on the audio where there is no picture', () => {
    const bytes = muxerOf(audio).unit(sound(48_000));
    expect(toHex(ofPid(bytes, 0x1000)[0]?.payload.subarray(9, 11) ?? new Uint8Array())).toBe('e101');
    expect(ofPid(bytes, 0x101).map(clockOf)).toEqual([BigInt(90_000 - 18_000)]);
  });
});

describe('sound', () => {
  test('an ADTS header before each frame', () => {
    const bytes = muxerOf(audio).unit(sound(0));
    // MPEG-4 AAC-LC, index 3 (48 kHz), 2 channels, 9 bytes, variable rate
    expect(toHex(payloadOf(bytes, 0x101).subarray(14))).toBe('fff14c80013ffc2110');
  });

  test.each([
    ['5.1 at 44.1 kHz', '1230', 'fff1518001 3ffc'],
    ['HE-AAC at 24/48 kHz, by its core', '2b118800', 'fff158'],
  ])('%s', (_, config, expected) => {
    expect(toHex(adtsHeaders(hex(config))?.(2) ?? new Uint8Array())).toContain(expected.replace(' ', ''));
  });

  test('what ADTS cannot express is left out', () => {
    // explicit frequency of 47000 Hz: 00010 1111 000000001011011110011000 0010 000
    const odd = aacTrack(hex('17805bcc10'));
    expect(odd.sampleRateHz).toBe(47_000);
    expect(canCarryInTs(odd)).toBe(false);
    expect(muxerOf(video, odd).unit(sound(0))).toHaveLength(0);
    expect(adtsHeaders(hex('1190'))?.(8185)).toHaveLength(0); // 13 bits hold 8191, of which 7 are the header
  });
});

/** FFmpeg's own stream, as events would carry it. */
function unitsFromFfmpeg(): { tracks: Track[]; units: AccessUnit[] } {
  const tracks: Track[] = [];
  const units: AccessUnit[] = [];
  const demuxer = new FlvDemuxer();
  const flv = withTemporaryFolder((folder) => {
    const path = join(folder, 'source.mp4');
    writeFileSync(path, encodeFragmentedMp4({ durationSeconds: 6, sampleRateHz: 48_000 }));
    return ffmpeg(`-i ${path} -c copy -f flv -`);
  });
  for (const message of new FlvReader().push(flv)) {
    for (const event of demuxer.push(message)) {
      if (event.type === 'track') tracks.push(event.track);
      if (event.type === 'unit') units.push(event.unit);
    }
  }
  const hz = (unit: AccessUnit) => timescaleHz(tracks.find(({ kind }) => kind === unit.kind) ?? video);
  units.sort((a, b) => compareTicks(a.dtsTicks, hz(a), b.dtsTicks, hz(b)));
  return { tracks, units };
}

describe('in FFmpeg', () => {
  const { tracks, units } = unitsFromFfmpeg();

  test('decodes without a warning to the same pictures and sound, with the same times', () => {
    withTemporaryFolder((folder) => {
      const muxer = muxerOf(...tracks);
      const path = join(folder, 'ours.ts');
      writeFileSync(path, concatBytes(units.map((unit) => muxer.unit(unit))));
      expect(decodeWarnings(path)).toBe('');
      const packets = probePackets(path);
      for (const kind of ['video', 'audio'] as const) {
        const sent = units.filter((unit) => unit.kind === kind);
        const scale = kind === 'video' ? 1 : 90 / 48;
        expect(packets[kind].map(({ dts }) => dts)).toEqual(
          sent.map((unit) => Math.round(unit.dtsTicks * scale)),
        );
        expect(packets[kind].map(({ pts }) => pts)).toEqual(
          sent.map((unit) => Math.round(unit.ptsTicks * scale)),
        );
        expect(packets[kind].map(({ flags }) => flags.startsWith('K'))).toEqual(
          sent.map((unit) => unit.isRandomAccess),
        );
      }
      const reference = join(folder, 'reference.ts');
      const source = join(folder, 'source.mp4');
      writeFileSync(source, encodeFragmentedMp4({ durationSeconds: 6, sampleRateHz: 48_000 }));
      writeFileSync(reference, ffmpeg(`-i ${source} -c copy -f mpegts -`));
      const hashes = (of: string) =>
        frameHashes(of)
          .map((line) => line.split(',').at(-1)?.trim())
          .sort();
      expect(hashes(path)).toEqual(hashes(reference));
    });
  });

  test('plays through the wrap without a warning', () => {
    withTemporaryFolder((folder) => {
      const muxer = muxerOf(...tracks);
      const path = join(folder, 'wrap.ts');
      const offset = { video: 2 ** 33 - 3 * 90_000, audio: Math.round((2 ** 33 / 90_000 - 3) * 48_000) };
      const moved = units.map((unit) => ({
        ...unit,
        dtsTicks: unit.dtsTicks + offset[unit.kind],
        ptsTicks: unit.ptsTicks + offset[unit.kind],
      }));
      writeFileSync(path, concatBytes(moved.map((unit) => muxer.unit(unit))));
      expect(decodeWarnings(path)).toBe('');
      const dts = probePackets(path).video.map((packet) => packet.dts);
      expect(new Set(dts.slice(1).map((value, index) => value - (dts[index] ?? 0)))).toEqual(new Set([3600]));
    });
  });

  test('and in GStreamer', () => {
    withTemporaryFolder((folder) => {
      const muxer = muxerOf(...tracks);
      const path = join(folder, 'gst.ts');
      writeFileSync(path, concatBytes(units.map((unit) => muxer.unit(unit))));
      const pipeline = `filesrc location=${path} ! tsdemux name=d d. ! queue ! h264parse ! avdec_h264 ! fakesink d. ! queue ! aacparse ! fakesink`;
      const played = spawnSync('gst-launch-1.0', pipeline.split(' '), { encoding: 'utf8', timeout: 60_000 });
      expect(played.stderr).toBe('');
      expect(played.status).toBe(0);
    });
  });
});
