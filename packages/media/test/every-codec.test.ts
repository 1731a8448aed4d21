/**
 * Every codec from an encoder's Enhanced RTMP messages to fragmented MP4, on the way that a channel takes:
 * demuxer, ingest grid, link between nodes, segmenter. FFmpeg made the streams and judges what comes out.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type AccessUnit, type StreamEvent, type Track, timescaleHz } from '../src/access-unit.ts';
import { concatBytes } from '../src/bytes.ts';
import { samplesInUnit } from '../src/codec/samples.ts';
import { FlvDemuxer, FlvReader } from '../src/flv/demux.ts';
import { flvHeader, flvTag, LinkMuxer, sequenceHeaderMessage, unitTag } from '../src/flv/mux.ts';
import type { FlvMessage } from '../src/flv/tag.ts';
import { parseFragment } from '../src/fmp4/fragment.ts';
import { initSegment, parseInitSegment } from '../src/fmp4/init-segment.ts';
import { Segmenter } from '../src/hls/segmenter.ts';
import { IngestGrid } from '../src/ingest-grid.ts';
import { ticksToMs } from '../src/time.ts';
import { type EncodedStream, type EncodingName, encode, enhancedMessages } from './encoded-stream.ts';
import { decodeWarnings, frameHashes } from './ffmpeg.ts';

const DURATION_SECONDS = 4;

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'every-codec-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Expected {
  readonly name: EncodingName;
  readonly codecString: RegExp;
  /** As ffprobe names it. */
  readonly codec: string;
  readonly tag: string;
  readonly profile?: string;
}

const VIDEO: readonly Expected[] = [
  { name: 'avc', codecString: /^avc1\.64000b$/, codec: 'h264', tag: 'avc1', profile: 'High' },
  // profile 1, compatible with 1 and 2 (bits 1 and 2, reversed), Main tier; constraints 0x90 as x265 writes
  { name: 'hevc', codecString: /^hvc1\.1\.6\.L\d+\.90$/, codec: 'hevc', tag: 'hvc1', profile: 'Main' },
  { name: 'av1', codecString: /^av01\.0\.\d\dM\.08$/, codec: 'av1', tag: 'av01', profile: 'Main' },
  {
    name: 'av1WithoutConfig',
    codecString: /^av01\.0\.\d\dM\.08$/,
    codec: 'av1',
    tag: 'av01',
    profile: 'Main',
  },
  { name: 'vp9', codecString: /^vp09\.00\.10\.08$/, codec: 'vp9', tag: 'vp09', profile: 'Profile 0' },
];

const AUDIO: readonly (Expected & { readonly samplesPerUnit: number })[] = [
  { name: 'opus', codecString: /^Opus$/, codec: 'opus', tag: 'Opus', samplesPerUnit: 1920 },
  { name: 'flac', codecString: /^fLaC$/, codec: 'flac', tag: 'fLaC', samplesPerUnit: 4608 },
  { name: 'ac3', codecString: /^ac-3$/, codec: 'ac3', tag: 'ac-3', samplesPerUnit: 1536 },
  { name: 'eac3', codecString: /^ec-3$/, codec: 'eac3', tag: 'ec-3', samplesPerUnit: 1536 },
  { name: 'mp3', codecString: /^mp4a\.6b$/, codec: 'mp3', tag: 'mp4a', samplesPerUnit: 1152 },
];

/** Messages of several streams in the order of their timestamps. */
function interleaved(streams: readonly EncodedStream[]): FlvMessage[] {
  return streams.flatMap(enhancedMessages).toSorted((a, b) => a.timestampMs - b.timestampMs);
}

/** What a backend makes of an encoder's messages. */
function ingest(messages: readonly FlvMessage[]): StreamEvent[] {
  const demuxer = new FlvDemuxer();
  const grid = new IngestGrid({ epochUnixMs: 0, programmeId: 'test' });
  const events = messages.flatMap((message) =>
    demuxer.push(message).flatMap((event) => grid.push(event, 1000 + message.timestampMs)),
  );
  return [...events, ...grid.endOfPublisher()];
}

/** Over the bytes of a link to another node. */
function overLink(events: readonly StreamEvent[]): StreamEvent[] {
  const muxer = new LinkMuxer();
  const demuxer = new FlvDemuxer();
  const tags = events.flatMap((event) => muxer.encode(event)).map(flvTag);
  const bytes = concatBytes([flvHeader({ video: true, audio: true }), ...tags]);
  return new FlvReader().push(bytes).flatMap((message) => demuxer.push(message));
}

/** What a frontend makes of them; a last cue closes the last segment. */
function segmented(events: readonly StreamEvent[]): {
  tracks: readonly Track[];
  file: Uint8Array;
  parts: number;
} {
  const segmenter = new Segmenter({ partTargetMs: 500 });
  const cues = events.flatMap((event) => (event.type === 'cue' ? [event.cue] : []));
  const last = cues.at(-1);
  if (last === undefined) throw new Error('no cue');
  const end: StreamEvent = {
    type: 'cue',
    cue: {
      ...last,
      mediaSequenceNumber: last.mediaSequenceNumber + 1,
      startTicks: (1 + DURATION_SECONDS + 1) * 90_000,
    },
  };
  const made = [...events, end].flatMap((event) => segmenter.push(event));
  const segments = made.flatMap((event) => (event.type === 'segment' ? [event.segment] : []));
  const [first] = segments;
  if (first === undefined) throw new Error('no segment');
  const parts = segments.flatMap((segment) => segment.parts);
  return {
    tracks: first.init.tracks,
    file: concatBytes([first.init.bytes, ...parts.map((part) => part.bytes)]),
    parts: parts.length,
  };
}

interface ProbedStream {
  readonly codec_name: string;
  readonly codec_tag_string: string;
  readonly profile?: string;
  readonly width?: number;
  readonly height?: number;
  readonly sample_rate?: string;
  readonly channels?: number;
}

function probe(path: string): {
  stream: ProbedStream;
  packets: { pts: number; dts: number; size: string }[];
} {
  const entries =
    'stream=codec_name,codec_tag_string,profile,width,height,sample_rate,channels:packet=pts,dts,size';
  const json = execFileSync('ffprobe', ['-v', 'error', '-of', 'json', '-show_entries', entries, path], {
    encoding: 'utf8',
    maxBuffer: 2 ** 26,
  });
  const { streams, packets } = JSON.parse(json);
  const { side_data_list: _, ...stream } = streams[0];
  return { stream, packets };
}

/** Hashes of the decoded pictures or of all decoded samples, and what FFmpeg complained about. */
function decoded(path: string, kind: 'video' | 'audio'): { hashes: string[]; warnings: string } {
  if (kind === 'video') {
    const hashes = frameHashes(path).map((line) => line.split(',').at(-1)?.trim() ?? '');
    return { hashes, warnings: decodeWarnings(path) };
  }
  // The edit list of a file cuts off what the encoder was primed with; a live stream has none.
  const input = [...(path.endsWith('.mp4') ? ['-ignore_editlist', '1'] : []), '-i', path];
  const args = ['-v', 'warning', ...input, '-f', 'md5', '-'];
  const { stdout, stderr } = spawnSync('ffmpeg', args, { encoding: 'utf8' });
  return { hashes: [stdout], warnings: stderr };
}

function unitsOf(events: readonly StreamEvent[]): AccessUnit[] {
  return events.flatMap((event) => (event.type === 'unit' ? [event.unit] : []));
}

describe.each([...VIDEO, ...AUDIO])('$name', ({ name, codecString, codec, tag, profile, ...rest }) => {
  let source: EncodedStream;
  let events: StreamEvent[];
  let result: ReturnType<typeof segmented>;
  let path: string;
  beforeAll(() => {
    source = encode(name, folder, { durationSeconds: DURATION_SECONDS });
    events = ingest(interleaved([source]));
    result = segmented(overLink(events));
    path = join(folder, `${name}-ours.mp4`);
    writeFileSync(path, result.file);
  });

  test('the link between nodes gives back exactly what went in', () => {
    expect(overLink(events)).toEqual(events);
  });

  test('comes out as the packets that went in, in fragmented MP4 that ffprobe understands', () => {
    const [track] = result.tracks;
    if (track === undefined) throw new Error('no track');
    expect(track.codecString).toMatch(codecString);
    const { stream, packets } = probe(path);
    const theirs = probe(source.path).stream;
    expect(stream).toEqual({ ...theirs, codec_tag_string: tag });
    expect(stream).toMatchObject({ codec_name: codec, ...(profile === undefined ? {} : { profile }) });
    const hz = timescaleHz(track);
    const delimiterSizeBytes = name === 'av1WithoutConfig' ? 2 : 0;
    expect(packets.map(({ pts, dts, size }) => [pts - hz, dts - hz, Number(size)])).toEqual(
      source.packets.map((packet) => [
        Math.round(packet.ptsSeconds * hz),
        Math.round(packet.dtsSeconds * hz),
        packet.data.length - delimiterSizeBytes,
      ]),
    );
    expect(result.parts).toBeGreaterThan(6);
  });

  test('decodes to what its source decodes to, without a warning', () => {
    const { hashes } = decoded(source.path, source.kind);
    expect(decoded(path, source.kind)).toEqual({ hashes, warnings: '' });
    expect(hashes.join('')).not.toBe('');
  });

  test('is read back by our own parser', () => {
    const tracks = parseInitSegment(result.file.subarray(0, Buffer.from(result.file).indexOf('moof') - 4));
    expect(tracks).toEqual(result.tracks);
    expect(parseInitSegment(initSegment(tracks))).toEqual(tracks);
    expect(parseFragment(result.file, tracks)).toEqual(unitsOf(events));
  });

  test('has its random access points where FFmpeg sees key frames', () => {
    expect(unitsOf(events).map((unit) => unit.isRandomAccess)).toEqual(
      source.packets.map(({ isKey }) => isKey),
    );
    const lying = interleaved([source]).map((message) => {
      const payload = message.payload.slice();
      if (name !== 'avc' && payload[0] === 0xa1) payload[0] = 0x91; // every frame is called a key frame
      return { ...message, payload };
    });
    expect(unitsOf(ingest(lying))).toEqual(unitsOf(events));
  });

  test('goes to viewers of FLV and comes back', () => {
    const tracks = events.flatMap((event) => (event.type === 'track' ? [event.track] : []));
    const [track] = tracks;
    if (track === undefined) throw new Error('no track');
    const demuxer = new FlvDemuxer();
    const tags = [
      flvTag(sequenceHeaderMessage(track, 0)),
      ...unitsOf(events).map((unit) => unitTag(unit, track, 0)),
    ];
    const bytes = concatBytes([flvHeader({ video: true, audio: true }), ...tags]);
    const back = new FlvReader().push(bytes).flatMap((message) => demuxer.push(message));
    expect(back.filter((event) => event.type === 'track')).toEqual([{ type: 'track', track }]);
    const inMs = (unit: AccessUnit) => Math.round(ticksToMs(unit.dtsTicks, timescaleHz(track)));
    expect(unitsOf(back).map((unit) => [inMs(unit), unit.isRandomAccess, unit.data])).toEqual(
      unitsOf(events).map((unit) => [inMs(unit), unit.isRandomAccess, unit.data]),
    );
  });

  if ('samplesPerUnit' in rest) {
    test('its units last as long as ffprobe says', () => {
      const [track] = result.tracks;
      if (track?.kind !== 'audio') throw new Error('no audio track');
      const units = unitsOf(events);
      const samples = units.map((unit) => samplesInUnit(track, unit.data));
      // The last FLAC block may be shorter.
      expect(new Set(samples.slice(0, -1))).toEqual(new Set([rest.samplesPerUnit]));
    });
  }
});

describe('two tracks', () => {
  test.each([
    ['hevc', 'eac3'],
    ['av1', 'opus'],
    ['vp9', 'flac'],
    ['avc', 'mp3'],
  ] as const)('%s and %s: nothing is lost, and each part decodes', (video, audio) => {
    const streams = [video, audio].map((name) => encode(name, folder, { durationSeconds: DURATION_SECONDS }));
    const events = ingest(interleaved(streams));
    expect(overLink(events)).toEqual(events);
    const units = unitsOf(events);
    for (const stream of streams) {
      expect(units.filter(({ kind }) => kind === stream.kind)).toHaveLength(stream.packets.length);
    }
    const path = join(folder, `${video}-${audio}.mp4`);
    writeFileSync(path, segmented(overLink(events)).file);
    const { status, stderr } = spawnSync('ffmpeg', ['-v', 'warning', '-i', path, '-f', 'null', '-'], {
      encoding: 'utf8',
    });
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  });
});
