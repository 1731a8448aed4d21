import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { AccessUnit, StreamEvent } from '../access-unit.ts';
import { concatBytes } from '../bytes.ts';
import { encodeAmf0 } from '../rtmp/amf0.ts';
import { FlvDemuxer, FlvReader } from './demux.ts';
import type { FlvMessage } from './tag.ts';

const hex = (text: string) => Uint8Array.from(Buffer.from(text, 'hex'));

/** What x264 and FFmpeg's AAC encoder wrote; see codec/avc.test.ts. */
const AVC_CONFIG = '0142c01effe100196742c01ed900a02ff97011000003000100000300320f162e4801000568cb83cb20';
const OTHER_AVC_CONFIG = '014d401fffe10017674d401feca06c1ef37808800001f480007530478c18cb01000568ebe3cb20';
const AAC_CONFIG = '119056e500';

const avcHeader: FlvMessage = { kind: 'video', timestampMs: 0, payload: hex(`1700000000${AVC_CONFIG}`) };
const aacHeader: FlvMessage = { kind: 'audio', timestampMs: 0, payload: hex(`af00${AAC_CONFIG}`) };
const key = (timestampMs: number): FlvMessage => ({
  kind: 'video',
  timestampMs,
  payload: hex('1701000000000000016588'),
});
const raw = (timestampMs: number): FlvMessage => ({ kind: 'audio', timestampMs, payload: hex('af012110') });

function units(events: readonly StreamEvent[]): AccessUnit[] {
  return events.flatMap((event) => (event.type === 'unit' ? [event.unit] : []));
}

describe('FlvReader', () => {
  const tags = [
    hex('464c5601050000000900000000'), // "FLV", version 1, audio and video, header of 9 bytes; PreviousTagSize0
    hex('08000004fffffe7f000000af0121100000000f'), // audio, 4 bytes, 0x7ffffffe ms, stream 0; tag of 15 bytes
    hex('090000007b0000800000000000000b'), // video, 0 bytes, 0x807b0000 ms
    hex('12000001000010000000000200000000'), // data, 1 byte, 16 ms; a wrong PreviousTagSize
  ];
  const expected: FlvMessage[] = [
    { kind: 'audio', timestampMs: 0x7ffffffe, payload: hex('af012110') },
    { kind: 'video', timestampMs: 0x807b0000, payload: hex('') },
    { kind: 'data', timestampMs: 16, payload: hex('02') },
  ];
  const bytes = concatBytes(tags);

  test('reads tags split at every byte', () => {
    for (let at = 0; at <= bytes.length; at++) {
      const reader = new FlvReader();
      const messages = [...reader.push(bytes.subarray(0, at)), ...reader.push(bytes.subarray(at))];
      expect(messages).toEqual(expected);
    }
  });

  test('reads tags that come byte by byte', () => {
    const reader = new FlvReader();
    expect(Array.from(bytes, (byte) => reader.push(Uint8Array.of(byte))).flat()).toEqual(expected);
  });

  test('takes no memory for a tag that is announced but does not come', () => {
    const announcement = concatBytes([bytes.subarray(0, 13), hex('0980000000000000000000'), hex('17')]);
    const before = process.memoryUsage().arrayBuffers;
    const readers = Array.from({ length: 20 }, () => {
      const reader = new FlvReader();
      reader.push(announcement);
      return reader;
    });
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(2 ** 20); // 8 MiB were announced to each
    expect(readers).toHaveLength(20);
  });

  test('gives a tag within one push without copying it', () => {
    const [first] = new FlvReader().push(bytes);
    expect(first?.payload.buffer).toBe(bytes.buffer);
  });

  test('skips a longer file header', () => {
    const longer = concatBytes([hex('464c5601050000000cabcdef00000000'), bytes.subarray(13)]);
    expect(new FlvReader().push(longer)).toEqual(expected);
  });

  test.each([
    ['no FLV', '474554202f20485454', /^FLV_BAD_HEADER/],
    ['version 2', '464c56020500000009', /^FLV_BAD_HEADER/],
    ['a header of 8 bytes', '464c56010500000008', /^FLV_BAD_HEADER/],
    ['a header of 4 GB', '464c560105ffffffff', /^FLV_BAD_HEADER/],
    ['tag type 7', '464c560105000000090000000007000001000000000000000000', /^FLV_BAD_TAG.*tag type 7/],
    ['an encrypted tag', '464c560105000000090000000029000001000000000000000000', /^FLV_BAD_TAG.*tag type 41/],
    ['a tag of 9 MiB', '464c560105000000090000000009900000000000000000000000', /^FLV_BAD_TAG.*9437184/],
  ])('refuses %s', (_, start, message) => {
    expect(() => new FlvReader().push(hex(start))).toThrow(message);
  });
});

describe('FlvDemuxer with third-party messages', () => {
  test('an empty sequence header of AAC, as FFmpeg sends it before the full one when it copies from MPEG-TS', () => {
    const demuxer = new FlvDemuxer();
    expect(demuxer.push({ ...aacHeader, payload: hex('af00') })).toEqual([]);
    expect(demuxer.push(raw(0))).toEqual([]);
    expect(demuxer.push(aacHeader)).toMatchObject([{ type: 'track', track: { codecString: 'mp4a.40.2' } }]);
    expect(units(demuxer.push(raw(21)))).toHaveLength(1);
  });

  test('gives tracks when their configuration changes, and units in ticks', () => {
    const demuxer = new FlvDemuxer();
    const push = (message: FlvMessage) => demuxer.push(message);
    expect(push(key(0))).toEqual([]); // no sequence header yet
    expect(push(avcHeader)).toMatchObject([
      { type: 'track', track: { codecString: 'avc1.42c01e', widthPx: 640, frameDurationTicks: undefined } },
    ]);
    expect(push(raw(0))).toEqual([]);
    expect(push(aacHeader)).toMatchObject([{ type: 'track', track: { sampleRateHz: 48_000 } }]);
    expect(push(avcHeader)).toEqual([]);
    expect(push(aacHeader)).toEqual([]);
    const video = { ...key(40), payload: hex('2701000050000000016588') }; // inter frame, 80 ms
    expect(push(video)).toEqual([
      {
        type: 'unit',
        unit: {
          kind: 'video',
          trackId: 0,
          dtsTicks: 3600,
          ptsTicks: 3600 + 7200,
          isRandomAccess: false,
          data: hex('000000016588'),
        },
      },
    ]);
    expect(push(raw(43))).toEqual([
      {
        type: 'unit',
        unit: {
          kind: 'audio',
          trackId: 0,
          dtsTicks: 2064,
          ptsTicks: 2064,
          isRandomAccess: true,
          data: hex('2110'),
        },
      },
    ]);
    expect(push({ ...avcHeader, payload: hex(`1700000000${OTHER_AVC_CONFIG}`) })).toMatchObject([
      { type: 'track', track: { widthPx: 854 } },
    ]);
  });

  test('keeps a copy of the configuration, not the buffer that it came in', () => {
    const payload = Buffer.from(avcHeader.payload); // whose slice() would be a view
    const [event] = new FlvDemuxer().push({ ...avcHeader, payload });
    payload.fill(0);
    expect(event).toMatchObject({ track: { config: hex(AVC_CONFIG) } });
  });

  test('a track message from one of our nodes counts for one sequence header', () => {
    const demuxer = new FlvDemuxer();
    const size = { widthPx: 640, heightPx: 360 };
    const values = { version: 1, kind: 'video', trackId: 0, frameDurationTicks: 3600, ...size };
    const announcement = encodeAmf0(['onStarlingTrack', values]);
    expect(demuxer.push({ kind: 'data', timestampMs: 0, payload: announcement })).toEqual([]);
    expect(demuxer.push(aacHeader)).toMatchObject([{ track: { kind: 'audio' } }]);
    expect(demuxer.push(avcHeader)).toMatchObject([{ track: { frameDurationTicks: 3600 } }]);
    expect(demuxer.push(avcHeader)).toEqual([]);
  });

  test('ignores metadata, even when it is broken', () => {
    const demuxer = new FlvDemuxer();
    const metadata = encodeAmf0(['@setDataFrame', 'onMetaData', { width: 640 }]);
    expect(demuxer.push({ kind: 'data', timestampMs: 0, payload: metadata })).toEqual([]);
    expect(
      demuxer.push({ kind: 'data', timestampMs: 0, payload: hex('02000a6f6e4d65746144617461ff') }),
    ).toEqual([]);
  });

  test('ignores silence, command frames and the end of a sequence', () => {
    const demuxer = new FlvDemuxer();
    demuxer.push(avcHeader);
    demuxer.push(aacHeader);
    expect(demuxer.push({ kind: 'audio', timestampMs: 0, payload: hex('') })).toEqual([]);
    expect(demuxer.push({ kind: 'video', timestampMs: 0, payload: hex('5700') })).toEqual([]);
    expect(demuxer.push({ kind: 'video', timestampMs: 0, payload: hex('1702000000') })).toEqual([]);
  });

  test('goes on after a message that it refused', () => {
    const demuxer = new FlvDemuxer();
    demuxer.push(avcHeader);
    expect(() => demuxer.push({ ...key(0), payload: hex('17') })).toThrow(/^FLV_BAD_TAG/);
    expect(() => demuxer.push({ ...avcHeader, payload: hex('170000000001') })).toThrow(/^AVC_BAD_CONFIG/);
    expect(units(demuxer.push(key(40)))).toHaveLength(1);
  });

  test.each([
    ['32 bits', 2 ** 32],
    ['31 bits, as FFmpeg does', 2 ** 31],
  ])('unwraps at %s, on both tracks and over and over', (_, modulus) => {
    const demuxer = new FlvDemuxer();
    demuxer.push(avcHeader);
    demuxer.push(aacHeader);
    const stepMs = 300_000_000; // 3.5 days
    for (let ms = 0; ms < 5 * modulus; ms += stepMs) {
      // Audio a little behind video, so that the tracks straddle the wrap.
      const [video] = units(demuxer.push(key((ms + 500) % modulus)));
      const [audio] = units(demuxer.push(raw(ms % modulus)));
      expect(video?.dtsTicks).toBe((ms + 500) * 90);
      expect(audio?.dtsTicks).toBe(ms * 48);
    }
  });
});

describe('FlvDemuxer with Enhanced RTMP', () => {
  const ascii = (text: string) => Buffer.from(text, 'latin1').toString('hex');
  const message = (kind: 'video' | 'audio', timestampMs: number, payload: string): FlvMessage => ({
    kind,
    timestampMs,
    payload: hex(payload.replaceAll(' ', '')),
  });
  const kinds = (events: readonly StreamEvent[]) =>
    events.map((event) => (event.type === 'unit' ? event.unit.dtsTicks : event.type));

  test('a multitrack stream gives each track of its own', () => {
    const demuxer = new FlvDemuxer();
    // Multitrack: ManyTracks, SequenceStart; tracks 1 and 0
    const size = (AVC_CONFIG.length / 2).toString(16).padStart(6, '0');
    const start = `96 10 ${ascii('avc1')} 01 ${size} ${AVC_CONFIG} 00 ${size} ${AVC_CONFIG}`;
    expect(demuxer.push(message('video', 0, start))).toMatchObject([
      { type: 'track', track: { trackId: 1, widthPx: 640 } },
      { type: 'track', track: { trackId: 0, widthPx: 640 } },
    ]);
    // OneTrack, CodedFrames
    const coded = (track: string) =>
      message('video', 40, `96 01 ${ascii('avc1')} ${track} 000000 000000016588`);
    expect(demuxer.push(coded('00'))).toMatchObject([{ unit: { trackId: 0, dtsTicks: 3600 } }]);
    expect(demuxer.push(coded('01'))).toMatchObject([{ unit: { trackId: 1, dtsTicks: 3600 } }]);
    expect(demuxer.push(coded('03'))).toEqual([]); // no sequence header
  });

  test('of more tracks than the bound it takes the first, and counts the rest', () => {
    const demuxer = new FlvDemuxer();
    const start = (track: number) =>
      message('audio', 0, `95 00 ${ascii('mp4a')} ${track.toString(16).padStart(2, '0')} 1190`);
    const counts = Array.from({ length: 20 }, (_, track) => demuxer.push(start(track)).length);
    expect(counts).toEqual([...Array(16).fill(1), 0, 0, 0, 0]);
    expect(demuxer.ignoredBodies).toBe(4);
  });

  test('VP9 is announced with its first key frame, and again when the size changes', () => {
    const demuxer = new FlvDemuxer();
    const vpcC = message('video', 0, `90 ${ascii('vp09')} 001f820202020000`);
    const inter = (ms: number) => message('video', ms, `a1 ${ascii('vp09')} 86aa`);
    const keyFrame = (ms: number, width: string) =>
      message('video', ms, `91 ${ascii('vp09')} 82498342 0 ${width} 02cf 6`);
    expect(demuxer.push(vpcC)).toEqual([]);
    expect(demuxer.push(inter(0))).toEqual([]);
    const [track, unit] = demuxer.push(keyFrame(40, '04ff'));
    expect(track).toMatchObject({ type: 'track', track: { widthPx: 1280, heightPx: 720 } });
    expect(unit).toMatchObject({ unit: { dtsTicks: 3600, isRandomAccess: true } });
    expect(demuxer.push(vpcC)).toEqual([]);
    expect(kinds(demuxer.push(inter(80)))).toEqual([7200]);
    expect(kinds(demuxer.push(keyFrame(120, '04ff')))).toEqual([10_800]);
    expect(demuxer.push(keyFrame(160, '027f'))).toMatchObject([
      { track: { widthPx: 640 } },
      { type: 'unit' },
    ]);
  });

  test('codecs without a sequence header are announced with a unit, and again when the rate changes', () => {
    const demuxer = new FlvDemuxer();
    const frame = (ms: number, start: string) => message('audio', ms, `91 ${ascii('.mp3')} ${start} 0011`);
    expect(demuxer.push(message('audio', 0, `90 ${ascii('.mp3')}`))).toEqual([]);
    expect(demuxer.push(frame(0, 'fffb9464'))).toMatchObject([
      { track: { codec: 'mp3', sampleRateHz: 48_000 } },
      { unit: { dtsTicks: 0 } },
    ]);
    expect(kinds(demuxer.push(frame(24, 'fffbb464')))).toEqual([1152]); // another bit rate
    expect(demuxer.push(frame(50, 'fffb9064'))).toMatchObject([
      { track: { codec: 'mp3', sampleRateHz: 44_100 } },
      { unit: { dtsTicks: 2205 } },
    ]);
  });

  test('a unit of another codec than the one announced is dropped', () => {
    const demuxer = new FlvDemuxer();
    demuxer.push(aacHeader);
    expect(demuxer.push(message('audio', 0, `91 ${ascii('Opus')} fc00`))).toEqual([]);
    demuxer.push(avcHeader);
    expect(demuxer.push(message('video', 0, `91 ${ascii('av01')} 320110`))).toEqual([]);
  });

  test('metadata in a video message says nothing to decode', () => {
    const demuxer = new FlvDemuxer();
    demuxer.push(avcHeader);
    expect(demuxer.push(message('video', 0, `d4 ${ascii('avc1')} 020009${ascii('colorInfo')}05`))).toEqual(
      [],
    );
  });
});

describe('FLV that FFmpeg writes', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'flv-demux-'));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test.each([
    ['B-frames at 30000/1001 and 44.1 kHz', '30000/1001', '44100', ['-bf', '2', '-g', '15']],
    ['no B-frames at 25 and 48 kHz', '25', '48000', ['-profile:v', 'baseline', '-g', '10']],
  ])('has the packets that ffprobe lists: %s', (_, rate, sampleRate, options) => {
    const file = join(folder, `${sampleRate}.flv`);
    execFileSync('ffmpeg', [
      ...['-v', 'error', '-y', '-f', 'lavfi', '-i', `testsrc=s=160x90:r=${rate}`],
      ...[
        '-f',
        'lavfi',
        '-i',
        `sine=r=${sampleRate}`,
        '-t',
        '2',
        '-pix_fmt',
        'yuv420p',
        '-preset',
        'ultrafast',
      ],
      ...['-c:v', 'libx264', ...options, '-c:a', 'aac', file],
    ]);
    const listing: unknown = JSON.parse(
      execFileSync('ffprobe', ['-v', 'error', '-of', 'json', '-show_packets', file], { encoding: 'utf8' }),
    );
    const reader = new FlvReader();
    const demuxer = new FlvDemuxer();
    const events = reader.push(readFileSync(file)).flatMap((message) => demuxer.push(message));
    const found = units(events).map((unit) => {
      const ticksPerMs = unit.kind === 'video' ? 90 : Number(sampleRate) / 1000;
      return {
        codec_type: unit.kind,
        pts: Math.round(unit.ptsTicks / ticksPerMs),
        dts: Math.round(unit.dtsTicks / ticksPerMs),
        size: String(unit.data.length),
        flags: expect.stringMatching(unit.isRandomAccess ? /^K/ : /^_/),
      };
    });
    expect(found.length).toBeGreaterThan(100);
    expect(listing).toMatchObject({ packets: found });
    expect(events.filter((event) => event.type === 'track')).toMatchObject([
      { track: { kind: 'video', widthPx: 160, heightPx: 90 } },
      { track: { kind: 'audio', sampleRateHz: Number(sampleRate), channelCount: 1 } },
    ]);
  });
});
