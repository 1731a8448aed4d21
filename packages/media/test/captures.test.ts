/**
 * Captures of Enhanced RTMP publishers: their messages are laid out as the specification says, and what comes out
 * of them is fragmented MP4 that parsers of others read.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createFile, type Movie, MP4BoxBuffer } from 'mp4box';
import { afterAll, describe, expect, test } from 'vitest';
import { type StreamEvent, type Track, trackIndex } from '../src/access-unit.ts';
import { concatBytes } from '../src/bytes.ts';
import { FlvDemuxer } from '../src/flv/demux.ts';
import type { FlvMessage } from '../src/flv/tag.ts';
import { Segmenter } from '../src/hls/segmenter.ts';
import { IngestGrid } from '../src/ingest-grid.ts';
import { RtmpServerSession } from '../src/rtmp/session.ts';
import { record, recordMultitrack } from './capture.ts';
import { encode } from './encoded-stream.ts';
import { decodeWarnings } from './ffmpeg.ts';

const captures = join(dirname(fileURLToPath(import.meta.url)), '../../../fixtures/captures');
const scratch = mkdtempSync(join(tmpdir(), 'starling-captures-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

if (process.env.STARLING_RECORD === '1') {
  const stream = (codec: Parameters<typeof encode>[0], size = '160x90') =>
    encode(codec, scratch, { durationSeconds: 2, size });
  writeFileSync(join(captures, 'hevc-eac3.rtmp'), record([stream('hevc'), stream('eac3')]));
  writeFileSync(join(captures, 'av1-opus.rtmp'), record([stream('av1'), stream('opus')]));
  writeFileSync(
    join(captures, 'two-renditions.rtmp'),
    recordMultitrack([stream('hevc'), stream('hevc', '80x46'), stream('opus'), stream('opus')]),
  );
}

/** What a server hears of the media. */
function messagesOf(capture: string): FlvMessage[] {
  const session = new RtmpServerSession({
    handshakeRandomBytes: new Uint8Array(1528),
    maxMessageBytes: 1 << 20,
  });
  const messages: FlvMessage[] = [];
  for (const event of session.receive(readFileSync(join(captures, capture)))) {
    if (event.type === 'publish') session.acceptPublish();
    if (event.type === 'message' && event.message.kind !== 'data') messages.push(event.message);
  }
  return messages;
}

/** On the timeline of a channel. */
function eventsOf(messages: readonly FlvMessage[]): StreamEvent[] {
  const demuxer = new FlvDemuxer();
  const grid = new IngestGrid({ epochUnixMs: 0, programmeId: 'capture' });
  const events = messages.flatMap((message) =>
    demuxer.push(message).flatMap((event) => grid.push(event, 1000 + message.timestampMs)),
  );
  return [...events, ...grid.endOfPublisher()];
}

/** The tracks that are asked for as one MP4 file. */
function mp4Of(
  events: readonly StreamEvent[],
  isWanted: (track: Pick<Track, 'kind' | 'trackId'>) => boolean,
) {
  const segmenter = new Segmenter({ partTargetMs: 400 });
  const pieces: Uint8Array[] = [];
  for (const event of events) {
    if (event.type === 'track' && !isWanted(event.track)) continue;
    if (event.type === 'unit' && !isWanted(event.unit)) continue;
    for (const made of segmenter.push(event)) {
      if (made.type !== 'part') continue;
      if (pieces.length === 0) pieces.push(made.init.bytes);
      pieces.push(made.part.bytes);
    }
  }
  return concatBytes(pieces);
}

/** As MP4Box.js, GPAC's parser, reads it. */
function readWithMp4Box(bytes: Uint8Array): Movie {
  const file = createFile();
  let movie: Movie | undefined;
  file.onReady = (info) => {
    movie = info;
  };
  file.onError = (module, message) => {
    throw new Error(`${module}: ${message}`);
  };
  file.appendBuffer(MP4BoxBuffer.fromArrayBuffer(Uint8Array.from(bytes).buffer, 0));
  file.flush();
  if (movie === undefined) throw new Error('MP4Box.js found no moov');
  return movie;
}

function ffprobe(path: string, entries: string): string[] {
  const args = [
    '-v',
    'error',
    '-count_packets',
    '-show_entries',
    `stream=${entries}`,
    '-of',
    'csv=p=0',
    path,
  ];
  return execFileSync('ffprobe', args, { encoding: 'utf8' }).trim().split('\n');
}

const ascii = (bytes: Uint8Array) => Buffer.from(bytes).toString('latin1');

/** Walks over length-prefixed NAL units (ISO/IEC 14496-15). @returns their types (H.265 table 7-1) */
function hevcNalUnitTypes(data: Uint8Array): number[] {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const types: number[] = [];
  for (let at = 0; at < data.length; at += 4 + view.getUint32(at))
    types.push((view.getUint8(at + 4) >> 1) & 0x3f);
  return types;
}

describe('the messages of a capture', () => {
  test('HEVC: SequenceStart with the record, then CodedFrames with a composition time', () => {
    const video = messagesOf('hevc-eac3.rtmp').filter(({ kind }) => kind === 'video');
    const [start, key, inter] = video.map(({ payload }) => payload);
    // 0b1_001_0000: isExVideoHeader, key frame, SequenceStart; then the record's configurationVersion 1
    expect([start?.[0], ascii(start?.subarray(1, 5) ?? new Uint8Array()), start?.[5]]).toEqual([
      0x90,
      'hvc1',
      1,
    ]);
    expect([key?.[0], ascii(key?.subarray(1, 5) ?? new Uint8Array())]).toEqual([0x91, 'hvc1']);
    expect(inter?.[0]).toBe(0xa1);
    // SI24 composition time, then NAL units to the last byte: the first picture is an IDR or a CRA
    const types = hevcNalUnitTypes(key?.subarray(8) ?? new Uint8Array());
    expect(types.some((type) => type >= 16 && type <= 21)).toBe(true);
    expect(video).toHaveLength(1 + 50);
  });

  test('AV1: SequenceStart with the record, then CodedFrames of OBUs alone', () => {
    const video = messagesOf('av1-opus.rtmp').filter(({ kind }) => kind === 'video');
    const [start, key] = video.map(({ payload }) => payload);
    // marker 1 and version 1 (AV1 in ISOBMFF, 2.3.3)
    expect([start?.[0], ascii(start?.subarray(1, 5) ?? new Uint8Array()), start?.[5]]).toEqual([
      0x90,
      'av01',
      0x81,
    ]);
    // obu_type in bits 3 to 6 (AV1 5.3.2): a temporal delimiter or a sequence header opens a key frame
    expect(key?.[0]).toBe(0x91);
    expect([1, 2]).toContain(((key?.[5] ?? 0) >> 3) & 0x0f);
  });

  test('audio: SequenceStart and CodedFrames behind sound format 9', () => {
    const opus = messagesOf('av1-opus.rtmp').filter(({ kind }) => kind === 'audio');
    expect(ascii(opus[0]?.payload.subarray(0, 13) ?? new Uint8Array())).toBe('\x90OpusOpusHead');
    expect(ascii(opus[1]?.payload.subarray(0, 5) ?? new Uint8Array())).toBe('\x91Opus');
    const eac3 = messagesOf('hevc-eac3.rtmp').filter(({ kind }) => kind === 'audio');
    // each syncframe begins with the sync word (ETSI TS 102 366, 4.3.1)
    expect(ascii(eac3[0]?.payload.subarray(0, 7) ?? new Uint8Array())).toBe('\x91ec-3\x0b\x77');
  });

  test('multitrack: OneTrack, the FourCC, the id', () => {
    const video = messagesOf('two-renditions.rtmp').filter(({ kind }) => kind === 'video');
    const second = video.filter(({ payload }) => ((payload[0] ?? 0) & 0x0f) === 6);
    expect(second).toHaveLength(1 + 50);
    expect(ascii(second[0]?.payload.subarray(0, 7) ?? new Uint8Array())).toBe('\x96\x00hvc1\x01');
    expect(ascii(second[1]?.payload.subarray(0, 7) ?? new Uint8Array())).toBe('\x96\x01hvc1\x01');
  });
});

describe('what comes out of a capture', () => {
  test.each([
    { capture: 'hevc-eac3.rtmp', codecs: ['hevc', 'eac3'], tags: [/^hvc1\.1\.6\.L/, /^ec-3/] },
    { capture: 'av1-opus.rtmp', codecs: ['av1', 'opus'], tags: [/^av01\.0\.00M\.08/, /^Opus/] },
  ])('$capture: ffprobe, FFmpeg and MP4Box.js read the MP4', ({ capture, codecs, tags }) => {
    const messages = messagesOf(capture);
    const bytes = mp4Of(eventsOf(messages), ({ trackId }) => trackId === 0);
    const path = join(scratch, `${capture}.mp4`);
    writeFileSync(path, bytes);
    expect(ffprobe(path, 'codec_name')).toEqual(codecs.map((codec) => expect.stringContaining(codec)));
    expect(decodeWarnings(path)).toBe('');
    const { tracks, isFragmented } = readWithMp4Box(bytes);
    expect(isFragmented).toBe(true);
    expect(tracks.map(({ codec }) => codec)).toEqual(tags.map((tag) => expect.stringMatching(tag)));
    expect(tracks[0]?.video).toMatchObject({ width: 160, height: 90 });
  });

  test('two renditions: each track of its own', () => {
    const events = eventsOf(messagesOf('two-renditions.rtmp'));
    const tracks = events.flatMap((event) => (event.type === 'track' ? [event.track] : []));
    expect(tracks.map(trackIndex)).toEqual([0, 1, 256, 257]);
    for (const { trackId, heightPx } of [
      { trackId: 0, heightPx: 90 },
      { trackId: 1, heightPx: 46 },
    ]) {
      const bytes = mp4Of(events, (track) => track.kind === 'video' && track.trackId === trackId);
      const path = join(scratch, `rendition-${trackId}.mp4`);
      writeFileSync(path, bytes);
      expect(ffprobe(path, 'codec_name,height')).toEqual([`hevc,${heightPx}`]);
      expect(decodeWarnings(path)).toBe('');
      expect(readWithMp4Box(bytes).tracks[0]?.video).toMatchObject({ height: heightPx });
    }
  });
});
