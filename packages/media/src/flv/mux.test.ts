import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type AccessUnit, type StreamEvent, type Track, timescaleHz, trackIndex } from '../access-unit.ts';
import { concatBytes } from '../bytes.ts';
import { aacTrack } from '../codec/aac.ts';
import { ac3Track, eac3Track } from '../codec/ac3.ts';
import { av1Track } from '../codec/av1.ts';
import { avcTrack } from '../codec/avc.ts';
import { flacTrack } from '../codec/flac.ts';
import { hevcTrack } from '../codec/hevc.ts';
import { mp3TrackOf } from '../codec/mp3.ts';
import { opusTrack } from '../codec/opus.ts';
import { vp9Track } from '../codec/vp9.ts';
import { decodeAmf0 } from '../rtmp/amf0.ts';
import { compareTicks, rescaleTicks } from '../time.ts';
import { FlvDemuxer, FlvReader } from './demux.ts';
import {
  flvHeader,
  flvTag,
  LinkMuxer,
  metadataMessage,
  sequenceHeaderMessage,
  unitMessage,
  unitTag,
} from './mux.ts';

const hex = (text: string) => Uint8Array.from(Buffer.from(text, 'hex'));
const AVC_CONFIG = hex('0142c01effe100196742c01ed900a02ff97011000003000100000300320f162e4801000568cb83cb20');
const HEVC_CONFIG =
  '0121600000009000000000007bf000fcfdf8f800000f03a00001001840010c01ffff21600000030090000003000003007b959409a10001002b42010121600000030090000003000003007ba003c0801107cb965654a4c2f0168080000003008000000c84a2000100064401c073c189';
const video = (frameDurationTicks?: number) => avcTrack(AVC_CONFIG, frameDurationTicks);
const audio48 = aacTrack(hex('1190'));
const audio44 = aacTrack(hex('1210'));

function videoUnit(dtsTicks: number, ptsTicks: number, isRandomAccess = true): AccessUnit {
  return { kind: 'video', trackId: 0, dtsTicks, ptsTicks, isRandomAccess, data: hex('000000016588') };
}
function audioUnit(dtsTicks: number): AccessUnit {
  return { kind: 'audio', trackId: 0, dtsTicks, ptsTicks: dtsTicks, isRandomAccess: true, data: hex('2110') };
}

describe('FLV', () => {
  test('the header', () => {
    expect(flvHeader({ video: true, audio: true })).toEqual(hex('464c5601050000000900000000'));
    expect(flvHeader({ video: true, audio: false })).toEqual(hex('464c5601010000000900000000'));
    expect(flvHeader({ video: false, audio: true })).toEqual(hex('464c5601040000000900000000'));
  });

  test('a tag: type, size, the extended timestamp after the lower 24 bits, stream 0, tag size', () => {
    expect(flvTag({ kind: 'audio', timestampMs: 0xfe010203, payload: hex('af012110') })).toEqual(
      hex('08 000004 010203 fe 000000 af012110 0000000f'.replaceAll(' ', '')),
    );
    expect(
      flvTag({ kind: 'data', timestampMs: 0, payload: new Uint8Array(0x010203) }).subarray(0, 4),
    ).toEqual(hex('12010203'));
  });

  test('units: times rounded to milliseconds, offset, modulo 2^32', () => {
    // DTS 33.37 ms, PTS 100.1 ms: the milliseconds of both are kept, not those of their difference
    expect(unitMessage(videoUnit(3003, 9009), video(), 0)).toEqual({
      kind: 'video',
      timestampMs: 33,
      payload: hex('1701000043000000016588'), // 67 ms
    });
    expect(unitMessage(videoUnit(9000, 9000, false), video(), 40)).toEqual({
      kind: 'video',
      timestampMs: 60,
      payload: hex('2701000000000000016588'),
    });
    expect(unitMessage(audioUnit(1024), audio44, 0)).toEqual({
      kind: 'audio',
      timestampMs: 23,
      payload: hex('af012110'),
    });
    const beyond = 2 ** 32 + 5;
    expect(unitMessage(videoUnit(beyond * 90, beyond * 90), video(), 0).timestampMs).toBe(5);
    expect(unitMessage(audioUnit(beyond * 48), audio48, beyond - 3).timestampMs).toBe(3);
    // Just below and at half a millisecond, in a year when the number of samples has 13 digits.
    expect(unitMessage(audioUnit(48 * 1e11 - 25), audio48, 1e11 - 10).timestampMs).toBe(9);
    expect(unitMessage(audioUnit(48 * 1e11 - 24), audio48, 1e11 - 10).timestampMs).toBe(10);
  });

  test('unitTag is flvTag of unitMessage', () => {
    for (const [unit, track] of [
      [videoUnit(3003, 9009), video()],
      [videoUnit(2 ** 32 * 90 + 100, 2 ** 32 * 90 - 900, false), video()],
      [audioUnit(2 ** 31 * 48 - 7), audio48],
    ] as const) {
      expect(unitTag(unit, track, 12_345)).toEqual(flvTag(unitMessage(unit, track, 12_345)));
    }
  });

  test('metadata', () => {
    const message = metadataMessage([video(3003), audio44], 2 ** 32 + 7);
    expect(message).toMatchObject({ kind: 'data', timestampMs: 7 });
    expect(decodeAmf0(message.payload)).toEqual([
      'onMetaData',
      {
        videocodecid: 7,
        width: 640,
        height: 360,
        framerate: 90_000 / 3003,
        audiocodecid: 10,
        audiosamplerate: 44_100,
        audiosamplesize: 16,
        stereo: true,
      },
    ]);
  });
});

test('metadata of codecs without a legacy id: the FourCC as a number', () => {
  const hevc = hevcTrack(hex(HEVC_CONFIG));
  const opus = opusTrack(new Uint8Array());
  expect(decodeAmf0(metadataMessage([hevc, opus], 0).payload)[1]).toMatchObject({
    videocodecid: 0x68766331, // "hvc1"
    audiocodecid: 1_332_770_163, // "Opus", as the specification computes it
  });
  const mp3 = mp3TrackOf(44_100, 2);
  expect(decodeAmf0(metadataMessage([mp3], 0).payload)[1]).toMatchObject({ audiocodecid: 2 });
});

describe('FLV in the eyes of FFmpeg', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'flv-mux-'));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const packets = (file: string) =>
    execFileSync(
      'ffprobe',
      [
        ...['-v', 'error', '-of', 'csv', '-show_data_hash', 'md5'],
        ...['-show_entries', 'packet=codec_type,pts,dts,size,flags,data_hash', file],
      ],
      { encoding: 'utf8' },
    );

  test('a file remuxed by us has the same packets, decodes without a warning, and names its streams', () => {
    const source = join(folder, 'source.flv');
    execFileSync('ffmpeg', [
      ...['-v', 'error', '-y', '-f', 'lavfi', '-i', 'testsrc=s=160x90:r=30000/1001'],
      ...['-f', 'lavfi', '-i', 'sine=r=44100', '-t', '2', '-pix_fmt', 'yuv420p', '-preset', 'ultrafast'],
      ...['-c:v', 'libx264', '-bf', '2', '-g', '15', '-c:a', 'aac', source],
    ]);
    const demuxer = new FlvDemuxer();
    const events = new FlvReader().push(readFileSync(source)).flatMap((message) => demuxer.push(message));
    const tracks = events.flatMap((event) => (event.type === 'track' ? [event.track] : []));
    const trackOf = (unit: AccessUnit) => {
      const track = tracks.find(({ kind }) => kind === unit.kind);
      if (track === undefined) throw new Error(`no track for ${unit.kind}`);
      return track;
    };
    const units = events.flatMap((event) => (event.type === 'unit' ? [event.unit] : []));
    const ours = join(folder, 'ours.flv');
    writeFileSync(
      ours,
      Buffer.concat([
        flvHeader({ video: true, audio: true }),
        flvTag(metadataMessage(tracks, 0)),
        ...tracks.map((track) => flvTag(sequenceHeaderMessage(track, 0))),
        ...units.map((unit) => unitTag(unit, trackOf(unit), 0)),
      ]),
    );
    expect(packets(ours)).toBe(packets(source));
    expect(packets(ours).split('\n').length).toBeGreaterThan(100);
    const decoding = spawnSync('ffmpeg', ['-v', 'warning', '-i', ours, '-f', 'null', '-'], {
      encoding: 'utf8',
    });
    expect(decoding).toMatchObject({ status: 0, stderr: '' });
    const streams = execFileSync(
      'ffprobe',
      [
        '-v',
        'error',
        '-of',
        'csv=p=0',
        '-show_entries',
        'stream=codec_name,width,sample_rate,channels',
        ours,
      ],
      { encoding: 'utf8' },
    );
    expect(streams.trim().split('\n')).toEqual(['h264,160', 'aac,44100,1']);
  });
});

describe('the link between nodes', () => {
  const FRAME_DURATIONS = [undefined, 3600, 3003, 1500, 3754];
  /** Without the composition times that only H.264 and HEVC have. */
  const UNORDERED = new Set<Track['codec']>(['av1', 'vp9']);
  const size = { widthPx: 1920, heightPx: 1080 };
  const AV1 = av1Track(hex('81080c000a0b00000042abbfc3700be001'));
  if (AV1 === undefined) throw new Error('the AV1 record lacks a sequence header');
  const VIDEO_TRACKS = [video(), hevcTrack(hex(HEVC_CONFIG)), AV1, vp9Track(hex('001f820202020000'), size)];
  const AUDIO_TRACKS = [
    audio48,
    audio44,
    aacTrack(hex('2b920800')),
    opusTrack(hex('4f707573486561640102380180bb0000000000')),
    flacTrack(hex(`664c61438000002203e803e80000000007e50ac440f000000000${'00'.repeat(16)}`)),
    ac3Track(hex('103de0')),
    eac3Track(hex('0600600400')),
    mp3TrackOf(22_050, 1),
  ];

  /** Tracks of one kind, each with an id of its own. */
  const tracksOf = <T extends Track>(track: fc.Arbitrary<T>, minLength: number): fc.Arbitrary<T[]> =>
    fc
      .uniqueArray(fc.integer({ min: 0, max: 255 }), { minLength, maxLength: 3 })
      .chain((ids) => fc.tuple(...ids.map((trackId) => track.map((one) => ({ ...one, trackId })))));
  const videoTracks = tracksOf(
    fc
      .tuple(fc.constantFrom(...VIDEO_TRACKS), fc.constantFrom(...FRAME_DURATIONS))
      .map(([track, frameDurationTicks]) => ({ ...track, frameDurationTicks })),
    1,
  );
  const audioTracks = tracksOf(
    fc
      .tuple(fc.constantFrom(...AUDIO_TRACKS), fc.constantFrom(undefined, 'de', 'pt-BR'))
      .map(([track, language]) => ({ ...track, language })),
    0,
  );

  /** A stream in contract order: timeline, tracks, then segments of a cue and units sorted by DTS and track. */
  const stream: fc.Arbitrary<StreamEvent[]> = fc
    .record({
      videos: videoTracks,
      audios: audioTracks,
      startMs: fc.oneof(
        fc.constantFrom(0, 2 ** 31 - 1500, 2 ** 32 - 1500, 3 * 2 ** 32 - 700),
        fc.integer({ min: 0, max: 400_000_000_000 }), // 12 years
      ),
      startTick: fc.integer({ min: 0, max: 89 }),
      epochUnixMs: fc.integer({ min: 0, max: 4e12 }),
      segments: fc.array(
        fc.record({
          frames: fc.array(
            fc.record({
              stepTicks: fc.integer({ min: 1, max: 9000 }),
              offset: fc.integer({ min: -3, max: 16 }),
              size: fc.integer({ min: 1, max: 3 }),
            }),
            { minLength: 1, maxLength: 8 },
          ),
          audioCount: fc.integer({ min: 0, max: 12 }),
          isIndependent: fc.boolean(),
          programmeId: fc.string(),
        }),
        { minLength: 1, maxLength: 4 },
      ),
    })
    .map(({ videos, audios, startMs, startTick, epochUnixMs, segments }) => {
      const tracks = [...videos, ...audios];
      const rates = new Map(tracks.map((track) => [trackIndex(track), timescaleHz(track)]));
      const hz = (unit: AccessUnit) => rates.get(trackIndex(unit)) ?? Number.NaN;
      const events: StreamEvent[] = [
        { type: 'timeline', epochUnixMs },
        ...tracks.map((track): StreamEvent => ({ type: 'track', track })),
      ];
      let startTicks = startMs * 90 + startTick;
      const samples = audios.map(({ sampleRateHz }) => rescaleTicks(startTicks, 90_000, sampleRateHz) + 1);
      segments.forEach((segment, index) => {
        events.push({
          type: 'cue',
          cue: {
            mediaSequenceNumber: index,
            discontinuitySequence: 3,
            startTicks,
            programDateTimeUnixMs: epochUnixMs + Math.floor(startTicks / 90),
            programmeId: segment.programmeId,
            targetDurationMs: 2000,
            isIndependent: segment.isIndependent,
          },
        });
        let endTicks = startTicks;
        const units = videos.flatMap((track) => {
          let ticks = startTicks;
          const { trackId, frameDurationTicks, codec } = track;
          return segment.frames.map(({ stepTicks, offset, size }, i): AccessUnit => {
            const dtsTicks = ticks;
            ticks += frameDurationTicks ?? stepTicks;
            endTicks = Math.max(endTicks, ticks);
            const offsetTicks = UNORDERED.has(codec) ? 0 : offset * (frameDurationTicks ?? 7 * 90);
            const ptsTicks = dtsTicks + offsetTicks;
            const data = new Uint8Array(size).fill(size);
            return { kind: 'video', trackId, dtsTicks, ptsTicks, isRandomAccess: i === 0, data };
          });
        });
        audios.forEach((track, i) => {
          for (let n = 0; n < segment.audioCount; n++) {
            const dtsTicks = samples[i] ?? 0;
            if (compareTicks(dtsTicks, track.sampleRateHz, endTicks, 90_000) < 0) {
              units.push({ ...audioUnit(dtsTicks), trackId: track.trackId });
            }
            samples[i] = dtsTicks + 1024;
          }
        });
        units.sort(
          (a, b) => compareTicks(a.dtsTicks, hz(a), b.dtsTicks, hz(b)) || trackIndex(a) - trackIndex(b),
        );
        for (const unit of units) events.push({ type: 'unit', unit });
        startTicks = endTicks;
      });
      return events;
    });

  /** Over the wire: as messages and as the bytes of FLV tags, whose timestamps have 32 bits. */
  function transfer(events: readonly StreamEvent[], muxer = new LinkMuxer()) {
    return events.map((event) => muxer.encode(event));
  }
  function receive(messages: ReturnType<typeof transfer>): StreamEvent[] {
    const demuxer = new FlvDemuxer();
    const tags = messages.flat().map((message) => flvTag(message));
    const bytes = concatBytes([flvHeader({ video: true, audio: true }), ...tags]);
    return new FlvReader().push(bytes).flatMap((message) => demuxer.push(message));
  }

  test('gives back exactly what went in', () => {
    fc.assert(
      fc.property(stream, (events) => {
        expect(receive(transfer(events))).toEqual(events);
      }),
      { numRuns: 300 },
    );
  });

  test('gives a reader that joins at a cue exactly the rest', () => {
    fc.assert(
      fc.property(stream, fc.nat(), (events, nth) => {
        const cues = events.flatMap((event, index) => (event.type === 'cue' ? [index] : []));
        const from = cues[nth % cues.length] ?? 0;
        const header = events.slice(0, cues[0]);
        const messages = transfer(events);
        const joined = receive([...transfer(header), ...messages.slice(from)]);
        expect(joined).toEqual([...header, ...events.slice(from)]);
      }),
      { numRuns: 300 },
    );
  });

  test('carries a changed track, even one whose bytes are the same', () => {
    const events: StreamEvent[] = [
      { type: 'track', track: video(3600) },
      { type: 'track', track: video(3600) },
      { type: 'track', track: video() },
    ];
    expect(receive(transfer(events))).toEqual(events);
  });

  test('the timestamp of every message is on the clock of the units', () => {
    const muxer = new LinkMuxer();
    const cue = {
      mediaSequenceNumber: 1,
      discontinuitySequence: 0,
      startTicks: (2 ** 32 + 40) * 90 + 50,
      programDateTimeUnixMs: 0,
      programmeId: '',
      targetDurationMs: 0,
      isIndependent: true,
    };
    muxer.encode({ type: 'track', track: video() });
    expect(muxer.encode({ type: 'cue', cue })).toMatchObject([{ kind: 'data', timestampMs: 40 }]);
    expect(muxer.encode({ type: 'track', track: audio48 })).toMatchObject([
      { kind: 'data', timestampMs: 40 },
      { kind: 'audio', timestampMs: 40 },
    ]);
    // 40 ms + 50 ticks of 1/90000 s = 40 ms + 555555 ns
    expect(muxer.encode({ type: 'unit', unit: videoUnit(cue.startTicks, cue.startTicks) })).toEqual([
      { kind: 'video', timestampMs: 40, payload: hex('9702087a230161766331000000000000016588') },
    ]);
  });

  test('an access unit as docs/formats/cue.md shows it', () => {
    const muxer = new LinkMuxer();
    muxer.encode({ type: 'track', track: video() });
    const unit = videoUnit(386_547_060_770, 386_547_060_770, false);
    expect(muxer.encode({ type: 'unit', unit })).toEqual([
      { kind: 'video', timestampMs: 0x2d, payload: hex('a7020d90380161766331000000000000016588') },
    ]);
  });

  test('a track that is not the default is a multitrack message of Enhanced RTMP', () => {
    const muxer = new LinkMuxer();
    const muxed = (event: StreamEvent) => muxer.encode(event).at(-1)?.payload;
    // Multitrack (6, for audio 5); OneTrack and SequenceStart; FourCC; track id; configuration
    expect(muxed({ type: 'track', track: { ...video(), trackId: 2 } })).toEqual(
      Uint8Array.from([...hex('96 00 61766331 02'.replaceAll(' ', '')), ...AVC_CONFIG]),
    );
    expect(muxed({ type: 'track', track: { ...audio48, trackId: 255 } })).toEqual(
      hex('95 00 6d703461 ff 1190'.replaceAll(' ', '')),
    );
    // ModEx of 3 bytes: 888888 ns, then Multitrack; OneTrack and CodedFrames; FourCC; track id; SI24; data
    const late = { ...videoUnit(386_547_060_770, 386_547_060_770, false), trackId: 2 };
    expect(muxed({ type: 'unit', unit: late })).toEqual(
      hex('a7 02 0d9038 06 01 61766331 02 000000 000000016588'.replaceAll(' ', '')),
    );
    expect(muxed({ type: 'unit', unit: { ...audioUnit(0), trackId: 255 } })).toEqual(
      hex('95 01 6d703461 ff 2110'.replaceAll(' ', '')),
    );
  });

  test('an offset that cannot be carried is a fault of ours, not silently rounded', () => {
    const encode = (track: Track, unit: AccessUnit) => {
      const muxer = new LinkMuxer();
      muxer.encode({ type: 'track', track });
      return muxer.encode({ type: 'unit', unit });
    };
    expect(() => encode(video(), videoUnit(0, 91))).toThrow(/91 ticks/);
    expect(() => encode(video(3003), videoUnit(0, 3000))).toThrow(/3000 ticks/);
    expect(() => encode(audio48, { ...audioUnit(0), ptsTicks: 48 })).toThrow(/48 ticks/);
    expect(() => encode(AV1, videoUnit(0, 3600))).toThrow(/3600 ticks/);
    expect(() => new LinkMuxer().encode({ type: 'unit', unit: audioUnit(0) })).toThrow(/before its track/);
  });
});
