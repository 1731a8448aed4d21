/** What `starling doctor` looks at on any machine. */
import { execFile } from 'node:child_process';
import { accessSync, constants, existsSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { createServer } from 'node:net';
import { dirname } from 'node:path';
import { formatBytes } from './output.ts';

/** One thing that was looked at. `advice` is there unless all is well. */
export interface Finding {
  readonly check: string;
  readonly result: 'ok' | 'warn' | 'fail';
  readonly message: string;
  readonly advice?: string;
}

const NEEDED_ENCODERS = ['libx264', 'aac'];
/** What encoders send, and files hold most often. */
const NEEDED_DECODERS = ['h264', 'hevc', 'aac', 'mp3', 'ac3'];
/** What the import and the test card need of FFmpeg. */
const NEEDED_FILTERS = [
  ...['drawtext', 'tpad', 'trim', 'fps', 'scale', 'pad', 'format', 'setsar', 'yadif'],
  ...['aresample', 'aformat', 'afade', 'apad', 'atrim', 'anullsrc', 'sine'],
];
/** HDR sources need them; others do not. */
const HDR_FILTERS = ['zscale', 'tonemap'];
const OLDEST_FFMPEG = 5;
const PROGRAM_TIMEOUT_MS = 10_000;
const LITTLE_DISK_BYTES = 5e9;
const TOO_LITTLE_DISK_BYTES = 5e8;
/** No clock that was ever set is behind the first release. */
const EARLIEST_CLOCK_MS = Date.UTC(2026, 0, 1);

export function checkNode(): Finding {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const isNewEnough = major > 20 || (major === 20 && minor >= 19);
  const message = `Node ${process.versions.node}`;
  if (isNewEnough) return { check: 'node', result: 'ok', message };
  return { check: 'node', result: 'fail', message, advice: 'Install Node 20.19 or newer.' };
}

export async function checkFfmpeg(): Promise<Finding[]> {
  const advice = 'Install FFmpeg, on Debian with: apt-get install ffmpeg';
  const findings: Finding[] = [];
  for (const program of ['ffmpeg', 'ffprobe']) {
    const version = /version (\S+)/.exec((await outputOf(program, ['-version'])) ?? '')?.[1];
    const major = /^n?(\d+)\./.exec(version ?? '')?.[1];
    const message = `${program} ${version}`;
    if (version === undefined)
      findings.push({ check: program, result: 'fail', message: `${program} does not run`, advice });
    else if (major !== undefined && Number(major) < OLDEST_FFMPEG)
      findings.push({
        check: program,
        result: 'warn',
        message,
        advice: `Tested is ${OLDEST_FFMPEG}.1 and newer.`,
      });
    else findings.push({ check: program, result: 'ok', message });
  }
  if (findings[0]?.result === 'fail') return findings;

  const encoders = namesIn(await outputOf('ffmpeg', ['-hide_banner', '-encoders']));
  const decoders = namesIn(await outputOf('ffmpeg', ['-hide_banner', '-decoders']));
  const filters = namesIn(await outputOf('ffmpeg', ['-hide_banner', '-filters']));
  const missing = [
    ...NEEDED_ENCODERS.filter((name) => !encoders.has(name)),
    ...NEEDED_DECODERS.filter((name) => !decoders.has(name)),
    ...NEEDED_FILTERS.filter((name) => !filters.has(name)),
  ];
  const missingForHdr = HDR_FILTERS.filter((name) => !filters.has(name));
  const check = 'ffmpeg parts';
  if (missing.length > 0) {
    findings.push({
      check,
      result: 'fail',
      message: `FFmpeg lacks ${missing.join(', ')}`,
      advice:
        'Install an FFmpeg that was built with them; the one of Debian, Fedora (RPM Fusion) or Homebrew was.',
    });
  } else if (missingForHdr.length > 0) {
    findings.push({
      check,
      result: 'warn',
      message: `FFmpeg lacks ${missingForHdr.join(', ')}`,
      advice: 'Only HDR files need them: their import will fail.',
    });
  } else {
    findings.push({ check, result: 'ok', message: 'FFmpeg has all codecs and filters that are needed' });
  }
  return findings;
}

/** The names in a list that FFmpeg prints: the second word of each line. */
function namesIn(list: string | undefined): Set<string> {
  return new Set((list ?? '').split('\n').flatMap((line) => line.trim().split(/\s+/)[1] ?? []));
}

/** @returns undefined when the program is missing or fails */
export function outputOf(program: string, args: readonly string[]): Promise<string | undefined> {
  return new Promise((done) => {
    execFile(program, args, { timeout: PROGRAM_TIMEOUT_MS, maxBuffer: 4 * 1024 * 1024 }, (error, stdout) =>
      done(error === null ? stdout : undefined),
    );
  });
}

/** The folder, or the nearest one above it that is there. */
function existingPart(folder: string): string {
  return existsSync(folder) || dirname(folder) === folder ? folder : existingPart(dirname(folder));
}

export function checkDataFolder(dataDir: string): Finding {
  const check = 'data folder';
  const folder = existingPart(dataDir);
  try {
    accessSync(folder, constants.W_OK | constants.X_OK);
  } catch {
    const advice = 'Choose another folder with --data DIR, or give this user the right to write there.';
    return { check, result: 'fail', message: `${folder} is not writable`, advice };
  }
  const message = folder === dataDir ? dataDir : `${dataDir} (will be created)`;
  return { check, result: 'ok', message };
}

export async function checkDisk(dataDir: string): Promise<Finding> {
  const check = 'disk';
  const { bavail, bsize } = await statfs(existingPart(dataDir));
  const freeBytes = bavail * bsize;
  const message = `${formatBytes(freeBytes)} free`;
  const advice =
    'Make room, or choose a folder on another disk with --data DIR. An hour of video takes about 2 GB.';
  if (freeBytes < TOO_LITTLE_DISK_BYTES) return { check, result: 'fail', message, advice };
  if (freeBytes < LITTLE_DISK_BYTES) return { check, result: 'warn', message, advice };
  return { check, result: 'ok', message };
}

export async function checkPort(
  check: string,
  port: string,
  flag: string,
  ours: readonly string[],
): Promise<Finding> {
  if (ours.includes(port)) return { check, result: 'ok', message: `${port} is used by this Starling` };
  const code = await errorOfListening(Number(port));
  if (code === undefined) return { check, result: 'ok', message: `${port} is free` };
  if (code === 'EACCES') {
    const advice = `Choose a port above 1023 with ${flag} PORT.`;
    return { check, result: 'fail', message: `${port} may not be opened by this user`, advice };
  }
  const advice = `Stop the program that uses it, or choose another port with ${flag} PORT.`;
  return { check, result: 'fail', message: `${port} is in use by another program (${code})`, advice };
}

export function errorOfListening(port: number, host?: string): Promise<string | undefined> {
  return new Promise((done) => {
    const server = createServer();
    server.once('error', (error: NodeJS.ErrnoException) => done(error.code ?? error.message));
    server.listen(port, host, () => server.close(() => done(undefined)));
  });
}

export async function checkClock(): Promise<Finding> {
  const check = 'clock';
  const message = new Date().toISOString();
  const advice =
    'Let a time service set it, on Debian: apt-get install systemd-timesyncd. Schedules follow the clock.';
  if (Date.now() < EARLIEST_CLOCK_MS)
    return { check, result: 'fail', message: `${message} is wrong`, advice };
  const isSynchronised = await outputOf('timedatectl', ['show', '--property=NTPSynchronized', '--value']);
  if (isSynchronised?.trim() === 'no') {
    return { check, result: 'warn', message: `${message}, set by no time service`, advice };
  }
  return { check, result: 'ok', message };
}
