/**
 * FFmpeg as the other implementation: it encodes what the tests start from and judges what they write.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const MAX_OUTPUT_BYTES = 64 * 2 ** 20;

/** A test card of 25 frames per second and a tone, as fragmented MP4: closed GOPs of 2 s with B-frames. */
export function encodeFragmentedMp4(options: { durationSeconds: number; sampleRateHz: number }): Uint8Array {
  const { durationSeconds, sampleRateHz } = options;
  return ffmpeg(
    `-f lavfi -i testsrc2=size=160x90:rate=25:duration=${durationSeconds}`,
    `-f lavfi -i sine=frequency=440:sample_rate=${sampleRateHz}:duration=${durationSeconds}`,
    '-c:v libx264 -preset veryfast -bf 2 -g 50 -keyint_min 50 -sc_threshold 0 -threads 1',
    '-c:a aac -video_track_timescale 90000',
    '-movflags +frag_keyframe+empty_moov+default_base_moof -f mp4 -',
  );
}

/** @returns the standard output of FFmpeg */
export function ffmpeg(...argumentGroups: string[]): Uint8Array {
  const args = argumentGroups.flatMap((group) => group.split(' '));
  return Uint8Array.from(execFileSync('ffmpeg', ['-v', 'error', ...args], { maxBuffer: MAX_OUTPUT_BYTES }));
}

/** Decodes a file or playlist. @returns what FFmpeg complains about: nothing if all is well */
export function decodeWarnings(path: string): string {
  const result = spawnSync('ffmpeg', ['-v', 'warning', '-i', path, '-f', 'null', '-'], { encoding: 'utf8' });
  return result.status === 0 ? result.stderr : `exit code ${result.status}: ${result.stderr}`;
}

/** Decodes a file. @returns one line for each decoded picture and audio frame, with its time and hash */
export function frameHashes(path: string): string[] {
  const text = execFileSync('ffmpeg', ['-v', 'error', '-i', path, '-f', 'framemd5', '-'], {
    encoding: 'utf8',
    maxBuffer: MAX_OUTPUT_BYTES,
  });
  return text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
}

export interface ProbedPacket {
  readonly codec_type: string;
  readonly pts: number;
  readonly dts: number;
  readonly duration?: number;
  readonly size: string;
  readonly flags: string;
}

/** The packets of a file, track by track. */
export function probePackets(path: string): { video: ProbedPacket[]; audio: ProbedPacket[] } {
  const entries = 'packet=codec_type,pts,dts,duration,size,flags';
  const text = execFileSync('ffprobe', ['-v', 'error', '-show_entries', entries, '-of', 'json', path], {
    encoding: 'utf8',
    maxBuffer: MAX_OUTPUT_BYTES,
  });
  const { packets }: { packets: ProbedPacket[] } = JSON.parse(text);
  return {
    video: packets.filter((packet) => packet.codec_type === 'video'),
    audio: packets.filter((packet) => packet.codec_type === 'audio'),
  };
}

/** Runs `use` with the path of a new empty folder, removed afterwards. */
export function withTemporaryFolder<T>(use: (folder: string) => T): T {
  const folder = mkdtempSync(join(tmpdir(), 'starling-media-'));
  try {
    return use(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}
