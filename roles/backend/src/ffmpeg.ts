/** Runs FFmpeg's programs as child processes that are watched and never left behind. */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { setPriority } from 'node:os';
import { BackendError, systemErrorCode } from './error.ts';

const STALL_MS = 60_000;
const MAX_STDERR_CHARS = 16_384;
/** Imports have time; what is on the air has not. */
const IMPORT_NICENESS = 10;

export interface FfmpegRun {
  /** `ffmpeg` or `ffprobe`: a path, or a name to be found in PATH. */
  readonly program: string;
  readonly args: readonly string[];
  /** What is being worked on, for the sentence of an error. */
  readonly subject: string;
  readonly signal: AbortSignal;
  /** Somebody waits for it, and nothing is on the air yet. */
  readonly isUrgent?: boolean;
  /** Added to the environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** Takes the standard output. FFmpeg waits while a promise is pending. */
  onOutput(chunk: Uint8Array): void | Promise<void>;
}

/** How the program ended of itself. */
export interface FfmpegExit {
  readonly isSuccess: boolean;
  /** The last line of its standard error that says something. */
  readonly reason: string;
  readonly stderr: string;
}

/**
 * Runs one program to its end. It is killed, and its end awaited, when the signal aborts, when
 * `onOutput` fails, and when it writes nothing for a minute.
 * @throws BackendError IMPORT_FFMPEG_MISSING, IMPORT_STALLED, IMPORT_CANCELLED; whatever `onOutput` throws
 */
export async function runFfmpeg(run: FfmpegRun): Promise<FfmpegExit> {
  const { program, args, subject, signal } = run;
  if (signal.aborted) throw cancelled(subject);
  // Its own process group: a Ctrl-C on the terminal is for us, and a kill reaches all of it.
  const child = spawn(program, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
    env: { ...process.env, ...run.env },
  });
  const ended = new Promise<{ exitCode: number | null; signalName: string | null }>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (exitCode, signalName) => resolve({ exitCode, signalName }));
  });
  ended.catch(() => {}); // awaited below, after the output
  if (child.pid !== undefined && run.isUrgent !== true) beNice(child.pid);

  let failure: unknown;
  const stop = (error: unknown) => {
    failure ??= error;
    if (child.pid === undefined) return;
    try {
      process.kill(-child.pid, 'SIGKILL'); // it writes to a pipe only: nothing to be finished
    } catch {
      // It ended by itself meanwhile.
    }
  };
  const onAbort = () => stop(cancelled(subject));
  signal.addEventListener('abort', onAbort, { once: true });
  const armStallTimer = () =>
    setTimeout(() => {
      const sentence = `FFmpeg made no progress on ${subject} for ${STALL_MS / 1000} s and was stopped.`;
      stop(new BackendError('IMPORT_STALLED', sentence));
    }, STALL_MS);
  let stallTimer = armStallTimer();

  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr = (stderr + text).slice(-MAX_STDERR_CHARS);
  });
  try {
    for await (const chunk of child.stdout) {
      clearTimeout(stallTimer);
      await run.onOutput(chunk);
      stallTimer = armStallTimer();
    }
  } catch (error) {
    stop(error);
    child.stdout.resume();
  }
  try {
    const { exitCode, signalName } = await ended;
    if (failure !== undefined) throw failure;
    const end = signalName === null ? `it ended with code ${exitCode}` : `it was ended by ${signalName}`;
    return { isSuccess: exitCode === 0, reason: lastReason(stderr) ?? end, stderr };
  } catch (error) {
    if (child.pid === undefined) {
      const code = systemErrorCode(error);
      const sentence =
        code === 'ENOENT'
          ? `${program} was not found: install FFmpeg, for instance with 'apt-get install ffmpeg'.`
          : `${program} cannot be started (${code}): check the installation of FFmpeg.`;
      throw new BackendError('IMPORT_FFMPEG_MISSING', sentence, { cause: error });
    }
    throw error;
  } finally {
    clearTimeout(stallTimer);
    signal.removeEventListener('abort', onAbort);
  }
}

function beNice(pid: number): void {
  try {
    setPriority(pid, IMPORT_NICENESS);
  } catch {
    // It has ended already, or the system has no priorities.
  }
}

/**
 * Names the encoders: their versions and builds, as far as they could make other bytes of the same source.
 * @returns SHA-256 in hex
 * @throws BackendError IMPORT_FFMPEG_MISSING, IMPORT_FFMPEG_FAILED, IMPORT_CANCELLED or IMPORT_STALLED
 */
export async function identifyEncoders(program: string, signal: AbortSignal): Promise<string> {
  const hash = createHash('sha256');
  const versions = ['-hide_banner', '-version'];
  // x264 is a library of its own, and tells its build only in the SEI of what it encodes.
  const oneFrame =
    '-nostdin -v error -f lavfi -i color=s=64x64 -frames:v 1 -c:v libx264 -threads 1 -f h264 pipe:1'.split(
      ' ',
    );
  for (const args of [versions, oneFrame]) {
    const { isSuccess, reason } = await runFfmpeg({
      program,
      args,
      subject: 'a test picture',
      signal,
      onOutput: (chunk) => void hash.update(chunk),
    });
    if (!isSuccess) {
      throw new BackendError('IMPORT_FFMPEG_FAILED', `FFmpeg cannot encode H.264 with x264: ${reason}.`);
    }
  }
  return hash.digest('hex');
}

function cancelled(subject: string): BackendError {
  return new BackendError('IMPORT_CANCELLED', `The import of ${subject} was cancelled.`);
}

/** What FFmpeg says after every failure, whatever the cause. */
const EMPTY_PHRASES =
  /^(Conversion failed!|Last message repeated|Error (marking filters|while (processing|filtering))|.*: (Invalid data found when processing input|Invalid argument)$)/;

/** The last line that names a cause, without the name and address of FFmpeg's part. */
function lastReason(stderr: string): string | undefined {
  const lines = stderr
    .split('\n')
    .map((line) => line.replace(/^\s*(\[[^\]]* @ 0x[0-9a-f]+\] ?)+/, '').trim())
    .filter((line) => line !== '');
  const telling = lines.filter((line) => !EMPTY_PHRASES.test(line));
  return (telling.at(-1) ?? lines.at(-1))?.replace(/^.*: /, '').replace(/\.$/, '');
}
