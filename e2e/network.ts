/** A `starling up` of its own: a real process on free ports with a temporary data folder. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, cpSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
export const program = join(root, 'dist', 'starling.js');

export interface Network {
  readonly site: string;
  readonly rtmp: string;
  readonly rtmps: string;
  readonly dataDir: string;
  readonly process: ChildProcess;
  /** What the program has written to standard error so far. */
  log(): string;
  /** Ends it with SIGTERM and removes its folder. */
  stop(): Promise<void>;
}

export interface NetworkOptions {
  /** An existing data folder; it is kept at the end. */
  readonly dataDir?: string;
  /** A folder whose media store is copied first, so that the test card need not be drawn again. */
  readonly mediaFrom?: string;
  readonly env?: Record<string, string>;
  /** Processes that serve viewers; two if it does not matter, whatever machine this is. */
  readonly workers?: number;
  /** Where the log goes beside {@link Network.log}. */
  readonly logPath?: string;
}

/** Starts the program; resolves when `/readyz` answers 200. */
export async function startNetwork(options: NetworkOptions = {}): Promise<Network> {
  const dataDir = options.dataDir ?? mkdtempSync(join(tmpdir(), 'starling-e2e-'));
  if (options.mediaFrom !== undefined) {
    cpSync(join(options.mediaFrom, 'media'), join(dataDir, 'media'), { recursive: true });
  }
  const child = spawn(
    process.execPath,
    [
      ...[
        program,
        'up',
        '--data',
        dataDir,
        '--http',
        '0',
        '--rtmp',
        '0',
        '--rtmps',
        '0',
        '--host',
        '127.0.0.1',
      ],
      ...['--workers', String(options.workers ?? 2)],
    ],
    { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...options.env } },
  );
  let log = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    log += text;
    if (options.logPath !== undefined) appendFileSync(options.logPath, text);
  });
  child.stdout.resume();
  const upPath = join(dataDir, 'up.json');
  const addresses = await until('the program to start', 120_000, () => {
    if (child.exitCode !== null) throw new Error(`starling up ended with ${child.exitCode}:\n${log}`);
    if (!existsSync(upPath)) return undefined;
    const text = readFileSync(upPath, 'utf8');
    const parsed =
      text === ''
        ? undefined
        : (JSON.parse(text) as { pid: number; apiUrl: string; rtmpUrl: string; rtmpsUrl: string });
    return parsed?.pid === child.pid ? parsed : undefined;
  });
  const site = addresses.apiUrl;
  await until('readiness', 90_000, async () => {
    if (child.exitCode !== null) throw new Error(`starling up ended with ${child.exitCode}:\n${log}`);
    return (await fetch(`${site}/readyz`)).ok ? true : undefined;
  });
  return {
    site,
    rtmp: addresses.rtmpUrl.replace('localhost', '127.0.0.1'),
    rtmps: addresses.rtmpsUrl.replace('localhost', '127.0.0.1'),
    dataDir,
    process: child,
    log: () => log,
    async stop() {
      if (child.exitCode === null && child.signalCode === null) {
        child.kill('SIGTERM');
        await once(child, 'exit');
      }
      if (options.dataDir === undefined) rmSync(dataDir, { recursive: true, force: true });
    },
  };
}

/** Asks again and again until the answer is there. */
export async function until<T>(
  what: string,
  timeoutMs: number,
  ask: () => T | undefined | Promise<T | undefined>,
  everyMs = 100,
): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (performance.now() > deadline) throw new Error(`gave up waiting for ${what} after ${timeoutMs} ms`);
    await new Promise((wake) => setTimeout(wake, everyMs));
  }
}

export interface Finished {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end; never throws for a non-zero exit. */
export function run(
  command: string,
  args: readonly string[],
  options: { timeoutMs?: number; env?: Record<string, string>; cwd?: string } = {},
): Promise<Finished> {
  return new Promise((resolve, reject) => {
    execFile(
      command,
      args,
      {
        timeout: options.timeoutMs ?? 60_000,
        killSignal: 'SIGKILL',
        maxBuffer: 64 * 1024 * 1024,
        env: { ...process.env, ...options.env },
        cwd: options.cwd,
      },
      (error, stdout, stderr) => {
        if (error !== null && typeof error.code !== 'number') {
          reject(new Error(`${command} ${args.join(' ')}: ${error.message}\n${stderr}`, { cause: error }));
        } else {
          resolve({ exitCode: typeof error?.code === 'number' ? error.code : 0, stdout, stderr });
        }
      },
    );
  });
}

/**
 * What FFmpeg and mpv say at warning level when they play a URL for so many seconds, without one
 * line: at each reload of a live playlist FFmpeg reads the init segment again, also of playlists
 * that it wrote itself, and then says that it found a second moov (libavformat/hls.c,
 * update_init_section; libavformat/mov.c, mov_read_moov). No server of live fMP4 can prevent it.
 */
export async function ffmpegComplaints(
  url: string,
  seconds: number,
  outputOptions: readonly string[] = [],
): Promise<string> {
  const played = await run(
    'ffmpeg',
    ['-v', 'warning', '-i', url, '-t', String(seconds), ...outputOptions, '-f', 'null', '-'],
    {
      timeoutMs: (seconds + 30) * 1000,
    },
  );
  return (played.exitCode === 0 ? '' : `exit ${played.exitCode}\n`) + withoutSecondMoov(played.stderr);
}

export function withoutSecondMoov(text: string): string {
  return text.replace(
    /^.*Found duplicated MOOV Atom\. Skipped it\n(?: *Last message repeated \d+ times\n)?/gm,
    '',
  );
}

/** Runs the `starling` command line against a network's data folder. */
export function starling(dataDir: string, args: readonly string[]): Promise<Finished> {
  return run(process.execPath, [program, ...args, '--data', dataDir]);
}
