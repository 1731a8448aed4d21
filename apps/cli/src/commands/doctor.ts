/** `starling doctor`: whether this machine can run the network, and what to do where it cannot. */
import { execFile } from 'node:child_process';
import { accessSync, constants, existsSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { createServer } from 'node:net';
import { dirname } from 'node:path';
import type { Command } from 'commander';
import { type CommandContext, CommandError, type TextOutput } from '../io.ts';
import { examples, formatBytes, printJson } from '../output.ts';
import { findRunning } from '../running.ts';

/** One thing that was looked at. `advice` is there unless all is well. */
interface Finding {
  readonly check: string;
  readonly result: 'ok' | 'warn' | 'fail';
  readonly message: string;
  readonly advice?: string;
}

interface DoctorOptions {
  readonly http: string;
  readonly rtmp: string;
}

const NEEDED_ENCODERS = ['libx264', 'aac'];
/** What the import and the test card need of FFmpeg. */
const NEEDED_FILTERS = [
  ...['drawtext', 'tpad', 'trim', 'fps', 'scale', 'pad', 'format', 'setsar', 'yadif'],
  ...['aresample', 'aformat', 'afade', 'apad', 'atrim', 'anullsrc', 'sine'],
];
/** HDR sources need them; others do not. */
const HDR_FILTERS = ['zscale', 'tonemap'];
const PROGRAM_TIMEOUT_MS = 10_000;
const LITTLE_DISK_BYTES = 5e9;
const TOO_LITTLE_DISK_BYTES = 5e8;
/** No clock that was ever set is behind the first release. */
const EARLIEST_CLOCK_MS = Date.UTC(2026, 0, 1);

export function addDoctorCommand(
  program: Command,
  { io, dataDir, wantsJson }: CommandContext,
  defaults: { readonly httpPort: number; readonly rtmpPort: number },
): void {
  program
    .command('doctor')
    .description('Check this machine, and say what to do where something is wrong.')
    .option('--http <port>', 'port of the site that `up` is to use', String(defaults.httpPort))
    .option('--rtmp <port>', 'port for encoders that `up` is to use', String(defaults.rtmpPort))
    .addHelpText('after', examples('starling doctor', 'starling doctor --data /srv/starling --json'))
    .action(async (options: DoctorOptions) => {
      const findings = await examine(dataDir(), options);
      if (wantsJson()) printJson(io.stdout, { findings });
      else for (const finding of findings) printFinding(io.stdout, finding);
      const failedCount = findings.filter(({ result }) => result === 'fail').length;
      if (failedCount > 0) throw new CommandError(`${failedCount} of ${findings.length} checks failed.`);
    });
}

function printFinding(output: TextOutput, { check, result, message, advice }: Finding): void {
  output.write(`${result.padEnd(4)}  ${check.padEnd(12)}  ${message}\n`);
  if (advice !== undefined) output.write(`${' '.repeat(20)}${advice}\n`);
}

async function examine(dataDir: string, options: DoctorOptions): Promise<Finding[]> {
  const running = findRunning(dataDir);
  const ours =
    running === undefined
      ? []
      : [new URL(running.apiUrl).port || '80', new URL(running.rtmpUrl).port || '1935'];
  return [
    checkNode(),
    ...(await checkFfmpeg()),
    checkDataFolder(dataDir),
    await checkDisk(dataDir),
    await checkPort('port http', options.http, '--http', ours),
    await checkPort('port rtmp', options.rtmp, '--rtmp', ours),
    await checkRunning(dataDir),
    await checkClock(),
  ];
}

function checkNode(): Finding {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const isNewEnough = major > 20 || (major === 20 && minor >= 19);
  const message = `Node ${process.versions.node}`;
  if (isNewEnough) return { check: 'node', result: 'ok', message };
  return { check: 'node', result: 'fail', message, advice: 'Install Node 20.19 or newer.' };
}

async function checkFfmpeg(): Promise<Finding[]> {
  const advice = 'Install FFmpeg, on Debian with: apt-get install ffmpeg';
  const findings: Finding[] = [];
  for (const program of ['ffmpeg', 'ffprobe']) {
    const version = /version (\S+)/.exec((await outputOf(program, ['-version'])) ?? '')?.[1];
    findings.push(
      version === undefined
        ? { check: program, result: 'fail', message: `${program} does not run`, advice }
        : { check: program, result: 'ok', message: `${program} ${version}` },
    );
  }
  if (findings[0]?.result === 'fail') return findings;

  const encoders = namesIn(await outputOf('ffmpeg', ['-hide_banner', '-encoders']));
  const filters = namesIn(await outputOf('ffmpeg', ['-hide_banner', '-filters']));
  const missing = [
    ...NEEDED_ENCODERS.filter((name) => !encoders.has(name)),
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
    findings.push({ check, result: 'ok', message: 'FFmpeg has all encoders and filters that are needed' });
  }
  return findings;
}

/** The names in a list that FFmpeg prints: the second word of each line. */
function namesIn(list: string | undefined): Set<string> {
  return new Set((list ?? '').split('\n').flatMap((line) => line.trim().split(/\s+/)[1] ?? []));
}

/** @returns undefined when the program is missing or fails */
function outputOf(program: string, args: readonly string[]): Promise<string | undefined> {
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

function checkDataFolder(dataDir: string): Finding {
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

async function checkDisk(dataDir: string): Promise<Finding> {
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

async function checkPort(
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

function errorOfListening(port: number): Promise<string | undefined> {
  return new Promise((done) => {
    const server = createServer();
    server.once('error', (error: NodeJS.ErrnoException) => done(error.code ?? error.message));
    server.listen(port, () => server.close(() => done(undefined)));
  });
}

async function checkRunning(dataDir: string): Promise<Finding> {
  const check = 'starling';
  const running = findRunning(dataDir);
  if (running === undefined) {
    return { check, result: 'ok', message: 'not running', advice: 'Start it with: npm start' };
  }
  try {
    const { onAirChannels } = await running.client.status();
    const message = `running at ${running.apiUrl}, ${onAirChannels.length} channels on the air`;
    return { check, result: 'ok', message };
  } catch {
    const message = `process ${running.pid} is there, but does not answer at ${running.apiUrl}`;
    return { check, result: 'fail', message, advice: 'Stop it and start it again. Its log says why.' };
  }
}

async function checkClock(): Promise<Finding> {
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
