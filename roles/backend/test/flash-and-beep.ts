/**
 * A clip with a white flash and a 1 kHz beep in every second, and an instrument that finds both in a
 * file as FFmpeg decodes it.
 */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const run = promisify(execFile);
const MAX_OUTPUT_BYTES = 512 * 1024 * 1024;

/** Runs FFmpeg with arguments given as words separated by spaces; an array element is one word. */
export async function ffmpeg(...parts: (string | string[])[]): Promise<Buffer> {
  const args = parts.flatMap((part) => (typeof part === 'string' ? part.split(' ') : part));
  const { stdout } = await run('ffmpeg', ['-v', 'error', '-nostdin', '-y', ...args], {
    encoding: 'buffer',
    maxBuffer: MAX_OUTPUT_BYTES,
  });
  return stdout;
}

/** What ffprobe says of one entry, line by line. */
export async function ffprobe(path: string, ...args: string[]): Promise<string[]> {
  const { stdout } = await run('ffprobe', ['-v', 'error', ...args, '-of', 'csv=p=0', path], {
    maxBuffer: MAX_OUTPUT_BYTES,
  });
  return stdout.split('\n').filter((line) => line !== '');
}

/** Flash and beep begin 0.48 s into each second; 0.48 s is a whole number of frames at 25 fps. */
export async function makeFlashAndBeep(path: string, seconds: number, sampleRateHz = 44_100): Promise<void> {
  await ffmpeg(
    `-f lavfi -i color=c=black:s=320x180:r=25:d=${seconds},drawbox=c=white:t=fill:enable='between(mod(n,25),12,13)'`,
    `-f lavfi -i aevalsrc=exprs='0.5*sin(2*PI*1000*t)*between(mod(t,1),0.48,0.56)':s=${sampleRateHz}:d=${seconds}`,
    '-c:v libx264 -preset ultrafast -c:a aac -b:a 128k',
    [path],
  );
}

export interface FlashesAndBeeps {
  /** Presentation times in seconds, as a player without knowledge of edit lists would have them. */
  readonly flashSeconds: number[];
  readonly beepSeconds: number[];
}

const LOUD = 0.1;
const SILENCE_SECONDS = 0.3;

/**
 * Decodes a file and finds the starts of flashes and beeps.
 * @param frameRate of the file, which has to be constant
 */
export async function findFlashesAndBeeps(path: string, frameRate = 25): Promise<FlashesAndBeeps> {
  const [videoStart = Number.NaN] = await startSeconds(path, 'v:0');
  const [audioStart = Number.NaN] = await startSeconds(path, 'a:0');
  const luma = await ffmpeg(
    ['-i', path],
    '-map 0:v:0 -vf scale=1:1:flags=area,format=gray -fps_mode passthrough -f rawvideo -',
  );
  const flashSeconds: number[] = [];
  luma.forEach((level, frame) => {
    if (level > 120 && (luma[frame - 1] ?? 0) <= 120) flashSeconds.push(videoStart + frame / frameRate);
  });
  const bytes = await ffmpeg(['-i', path], '-map 0:a:0 -ac 1 -ar 48000 -f f32le -');
  const samples = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  const beepSeconds: number[] = [];
  let lastLoud = Number.NEGATIVE_INFINITY;
  samples.forEach((value, at) => {
    if (Math.abs(value) < LOUD) return;
    if (at - lastLoud > SILENCE_SECONDS * 48_000) beepSeconds.push(audioStart + at / 48_000);
    lastLoud = at;
  });
  return { flashSeconds, beepSeconds };
}

async function startSeconds(path: string, stream: string): Promise<number[]> {
  const lines = await ffprobe(path, '-select_streams', stream, '-show_entries', 'stream=start_time');
  return lines.map(Number);
}
