/**
 * Elementary streams that FFmpeg encoded, taken apart with ffprobe alone, and put into Enhanced RTMP
 * messages as the specification lays them out: nothing here is our parser's or our muxer's opinion.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { FlvMessage } from '../src/flv/tag.ts';

export interface EncodedStream {
  readonly path: string;
  readonly kind: 'video' | 'audio';
  readonly fourCc: string;
  /** What a SequenceStart would carry; undefined where the codec has none. */
  readonly config: Uint8Array | undefined;
  readonly packets: readonly EncodedPacket[];
}

export interface EncodedPacket {
  /** From the first packet's DTS, in seconds. */
  readonly dtsSeconds: number;
  readonly ptsSeconds: number;
  readonly isKey: boolean;
  readonly data: Uint8Array;
}

interface Encoding {
  readonly kind: 'video' | 'audio';
  readonly fourCc: string;
  readonly extension: string;
  readonly args: string;
  /** The box of the sample entry that holds the configuration, and what to put before its content. */
  readonly box?: { readonly type: string; readonly skipBytes: number; readonly prefix: string };
}

const FRAGMENTED =
  '-movflags +frag_keyframe+empty_moov+default_base_moof+delay_moov -video_track_timescale 90000';

/** Every codec, at its plainest; 25 frames per second, a key frame each second. */
export const ENCODINGS = {
  avc: {
    kind: 'video',
    fourCc: 'avc1',
    extension: 'mp4',
    args: `-c:v libx264 -preset veryfast -bf 2 -g 25 -sc_threshold 0 ${FRAGMENTED}`,
    box: { type: 'avcC', skipBytes: 0, prefix: '' },
  },
  hevc: {
    kind: 'video',
    fourCc: 'hvc1',
    extension: 'mp4',
    args: `-c:v libx265 -preset ultrafast -x265-params log-level=none:keyint=25:min-keyint=25:bframes=2:scenecut=0:open-gop=1 -tag:v hvc1 ${FRAGMENTED}`,
    box: { type: 'hvcC', skipBytes: 0, prefix: '' },
  },
  av1: {
    kind: 'video',
    fourCc: 'av01',
    extension: 'mp4',
    args: `-c:v libsvtav1 -preset 12 -g 25 -svtav1-params pred-struct=1 ${FRAGMENTED}`,
    box: { type: 'av1C', skipBytes: 0, prefix: '' },
  },
  /** As FFmpeg 8 sends libsvtav1's output: an empty SequenceStart, and temporal delimiters in the units. */
  av1WithoutConfig: {
    kind: 'video',
    fourCc: 'av01',
    extension: 'ivf',
    args: '-c:v libaom-av1 -cpu-used 8 -usage realtime -g 25 -keyint_min 25',
  },
  vp9: {
    kind: 'video',
    fourCc: 'vp09',
    extension: 'mp4',
    args: `-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 25 -keyint_min 25 ${FRAGMENTED}`,
    box: { type: 'vpcC', skipBytes: 4, prefix: '' },
  },
  opus: {
    kind: 'audio',
    fourCc: 'Opus',
    extension: 'mp4',
    args: `-c:a libopus -frame_duration 40 ${FRAGMENTED}`,
  },
  flac: {
    kind: 'audio',
    fourCc: 'fLaC',
    extension: 'mp4',
    args: `-c:a flac -strict -2 ${FRAGMENTED}`,
    box: { type: 'dfLa', skipBytes: 4, prefix: 'fLaC' },
  },
  ac3: { kind: 'audio', fourCc: 'ac-3', extension: 'ac3', args: '-c:a ac3' },
  eac3: { kind: 'audio', fourCc: 'ec-3', extension: 'eac3', args: '-c:a eac3' },
  mp3: {
    kind: 'audio',
    fourCc: '.mp3',
    extension: 'mp3',
    args: '-c:a libmp3lame -write_xing 0 -id3v2_version 0',
  },
} as const satisfies Record<string, Encoding>;

export type EncodingName = keyof typeof ENCODINGS;

/** Encodes a test card or a tone. */
export function encode(
  name: EncodingName,
  folder: string,
  options: { durationSeconds: number; sampleRateHz?: number; channelLayout?: string; size?: string },
): EncodedStream {
  const encoding: Encoding = ENCODINGS[name];
  const { durationSeconds, sampleRateHz = 48_000, channelLayout = 'stereo', size = '160x90' } = options;
  const path = join(folder, `${name}.${encoding.extension}`);
  const source =
    encoding.kind === 'video'
      ? `-f lavfi -i testsrc2=size=${size}:rate=25:duration=${durationSeconds} -pix_fmt yuv420p`
      : `-f lavfi -i aevalsrc=0.3*sin(440*2*PI*t):s=${sampleRateHz}:d=${durationSeconds} -af aformat=channel_layouts=${channelLayout}`;
  execFileSync('ffmpeg', ['-v', 'error', '-y', ...source.split(' '), ...encoding.args.split(' '), path], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const file = readFileSync(path);
  const listing: {
    packets: { pts_time: string; dts_time: string; size: string; pos: string; flags: string }[];
  } = JSON.parse(
    execFileSync(
      'ffprobe',
      ['-v', 'error', '-of', 'json', '-show_entries', 'packet=pts_time,dts_time,size,pos,flags', path],
      { encoding: 'utf8', maxBuffer: 2 ** 26 },
    ),
  );
  const firstDts = Number(listing.packets[0]?.dts_time);
  // Of IVF, ffprobe gives the place of the frame's header.
  const headerSizeBytes = encoding.extension === 'ivf' ? 12 : 0;
  return {
    path,
    kind: encoding.kind,
    fourCc: encoding.fourCc,
    config:
      name === 'opus'
        ? opusHead(file)
        : name === 'av1WithoutConfig'
          ? new Uint8Array(0)
          : configOf(file, encoding),
    packets: listing.packets.map((packet) => {
      const at = Number(packet.pos) + headerSizeBytes;
      return {
        dtsSeconds: Number(packet.dts_time) - firstDts,
        ptsSeconds: Number(packet.pts_time) - firstDts,
        isKey: packet.flags.startsWith('K'),
        data: new Uint8Array(file.subarray(at, at + Number(packet.size))),
      };
    }),
  };
}

function boxContent(file: Buffer, type: string): Buffer {
  const at = file.indexOf(type, 0, 'latin1');
  return file.subarray(at + 4, at - 4 + file.readUInt32BE(at - 4));
}

function configOf(file: Buffer, { box }: Encoding): Uint8Array | undefined {
  if (box === undefined) return undefined;
  const record = boxContent(file, box.type).subarray(box.skipBytes);
  return new Uint8Array(Buffer.concat([Buffer.from(box.prefix, 'latin1'), record]));
}

/** RFC 7845 section 5.1, from the box `dOps`, which has the same fields big-endian and version 0. */
function opusHead(file: Buffer): Uint8Array {
  const dOps = boxContent(file, 'dOps');
  const head = Buffer.alloc(19);
  head.write('OpusHead', 'latin1');
  head[8] = 1; // version
  head[9] = dOps.readUInt8(1); // channel count
  head.writeUInt16LE(dOps.readUInt16BE(2), 10); // pre-skip
  head.writeUInt32LE(dOps.readUInt32BE(4), 12); // input sample rate
  head.writeInt16LE(dOps.readInt16BE(8), 16); // output gain
  return new Uint8Array(head);
}

/** A stream as Enhanced RTMP v2 messages with whole milliseconds, as an encoder sends them. */
export function enhancedMessages(stream: EncodedStream): FlvMessage[] {
  const { kind, fourCc, config, packets } = stream;
  const fourCcBytes = Buffer.from(fourCc, 'latin1');
  const message = (timestampMs: number, ...parts: Uint8Array[]): FlvMessage => ({
    kind,
    timestampMs,
    payload: new Uint8Array(Buffer.concat(parts)),
  });
  const start = config === undefined ? [] : [message(0, Uint8Array.of(0x90), fourCcBytes, config)];
  return [
    ...start,
    ...packets.map(({ dtsSeconds, ptsSeconds, isKey, data }) => {
      const dtsMs = Math.round(dtsSeconds * 1000);
      // isExVideoHeader 1, key 1 or inter 2, CodedFrames 1; audio: ExHeader 9, CodedFrames 1
      const first = kind === 'audio' ? 0x91 : isKey ? 0x91 : 0xa1;
      const compositionTimeMs = Math.round(ptsSeconds * 1000) - dtsMs;
      const hasCompositionTime = fourCc === 'avc1' || fourCc === 'hvc1';
      const si24 = [compositionTimeMs >> 16, compositionTimeMs >> 8, compositionTimeMs].map((b) => b & 0xff);
      return message(
        dtsMs,
        Uint8Array.of(first),
        fourCcBytes,
        Uint8Array.from(hasCompositionTime ? si24 : []),
        data,
      );
    }),
  ];
}
