/**
 * nginx as a process: started, given a new configuration without a dropped connection, kept alive.
 *
 * It runs on by itself when this process is killed, and the next one takes it over by its pid file: the data
 * plane does not depend on the agent.
 *
 * A new configuration goes through these steps; after a failed one the last good one stays or comes back:
 *
 *   write next.conf -> nginx -t -> rename to nginx.conf -> SIGHUP -> it tells the new revision on its control socket
 */
import { execFile, spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { get } from 'node:http';
import { join } from 'node:path';
import type { Logger } from 'pino';

/** nginx refused a configuration, or did not take it; in nginx's words. */
export class NginxError extends Error {
  override readonly name = 'NginxError';
}

export interface NginxBuild {
  readonly version: string;
  /** The stream module: built in, in a file, or not there. */
  readonly streamModule: 'built-in' | { readonly path: string } | undefined;
}

export interface NginxConfigFile {
  readonly text: string;
  /** What nginx tells on `/revision` once it runs this. */
  readonly revision: string;
}

const TEST_TIMEOUT_MS = 10_000;
/** From the signal until the new workers answer. */
const TAKE_OVER_TIMEOUT_MS = 3000;
const POLL_MS = 20;
const CONTROL_TIMEOUT_MS = 1000;
/** Endless responses never end by themselves; who stops the balancer does not want to wait for them. */
const QUIT_TIMEOUT_MS = 2000;
const TERM_TIMEOUT_MS = 1000;
const MAX_CONTROL_BYTES = 64 * 1024;

/**
 * Asks nginx what it was built with.
 * @throws NginxError when it cannot be started
 */
export async function describeNginx(program: string): Promise<NginxBuild> {
  const { stderr } = await runNginx(program, ['-V']).catch((error: unknown) => {
    throw new NginxError(
      `${program} cannot be started (${error instanceof Error ? error.message : error}). Install nginx.`,
    );
  });
  const [, version = 'unknown'] = /nginx\/(\S+)/.exec(stderr) ?? [];
  if (/--with-stream(?:\s|$)/.test(stderr)) return { version, streamModule: 'built-in' };
  const [, folder = '/usr/lib/nginx/modules'] = /--modules-path=(\S+)/.exec(stderr) ?? [];
  const files: string[] = await readdir(folder).catch(() => []);
  const name = 'ngx_stream_module.so';
  return { version, streamModule: files.includes(name) ? { path: join(folder, name) } : undefined };
}

/**
 * Has nginx check a configuration.
 * @throws NginxError with what nginx says of it
 */
export async function testConfig(program: string, dir: string, path: string): Promise<void> {
  const { exitCode, stderr } = await runNginx(program, ['-t', '-q', '-e', 'stderr', '-p', dir, '-c', path]);
  if (exitCode !== 0) throw new NginxError(stderr.trim() || `nginx -t ended with ${exitCode}`);
}

export class Nginx {
  readonly #program: string;
  readonly #dir: string;
  readonly #logger: Logger;
  readonly #configPath: string;
  readonly #pidPath: string;
  readonly controlSocketPath: string;
  #running: NginxConfigFile | undefined;

  /** @param dir nginx's own, which exists */
  constructor({ program, dir, logger }: { program: string; dir: string; logger: Logger }) {
    this.#program = program;
    this.#dir = dir;
    this.#logger = logger;
    this.#configPath = join(dir, 'nginx.conf');
    this.#pidPath = join(dir, 'nginx.pid');
    this.controlSocketPath = join(dir, 'control.sock');
  }

  /** What it runs now, as far as this process knows. */
  get running(): NginxConfigFile | undefined {
    return this.#running;
  }

  /**
   * Makes nginx run a configuration; starts it where it does not run.
   * @throws NginxError when it does not take it; then it runs what it ran before
   */
  async apply(config: NginxConfigFile): Promise<void> {
    await mkdir(this.#dir, { recursive: true });
    const nextPath = join(this.#dir, 'next.conf');
    await writeFile(nextPath, config.text, { mode: 0o600 });
    await testConfig(this.#program, this.#dir, nextPath);
    const before = this.#running;
    await rename(nextPath, this.#configPath);
    try {
      await this.#takeOver(config.revision);
    } catch (error) {
      if (before !== undefined) {
        await writeFile(nextPath, before.text, { mode: 0o600 });
        await rename(nextPath, this.#configPath);
        await this.#takeOver(before.revision);
      }
      throw error;
    }
    this.#running = config;
  }

  /** Starts it again where it has ended, with what it ran. */
  async keepAlive(): Promise<void> {
    if (this.#running === undefined || (await this.#pid()) !== undefined) return;
    this.#logger.error('nginx has ended: starting it again');
    await this.#takeOver(this.#running.revision);
  }

  /** Of nginx's own counters, its answer to `stub_status`; undefined when it does not answer. */
  async status(): Promise<string | undefined> {
    return this.#ask('/status');
  }

  /** Has it open its log files anew. */
  async reopenLogs(): Promise<void> {
    const pid = await this.#pid();
    if (pid !== undefined) process.kill(pid, 'SIGUSR1');
  }

  /** Ends it: answers that are under way may finish, for a moment. */
  async stop(): Promise<void> {
    this.#running = undefined;
    for (const [signal, timeoutMs] of [
      ['SIGQUIT', QUIT_TIMEOUT_MS],
      ['SIGTERM', TERM_TIMEOUT_MS],
      ['SIGKILL', TERM_TIMEOUT_MS],
    ] as const) {
      const pid = await this.#pid();
      if (pid === undefined) break;
      process.kill(pid, signal);
      await until(timeoutMs, async () => (await this.#pid()) === undefined);
    }
    await this.#endOrphans();
  }

  /** Brings nginx to the configuration that lies on disk. */
  async #takeOver(revision: string): Promise<void> {
    const pid = await this.#pid();
    if (pid === undefined) await this.#start();
    else process.kill(pid, 'SIGHUP');
    const hasTaken = async () => (await this.#ask('/revision')) === revision;
    if (await until(TAKE_OVER_TIMEOUT_MS, hasTaken)) return;
    const said = pid === undefined ? await readFile(this.#stderrPath, 'utf8').catch(() => '') : '';
    if (pid === undefined) await this.stop();
    throw new NginxError(
      said.trim() || `nginx did not take its configuration in ${TAKE_OVER_TIMEOUT_MS} ms.`,
    );
  }

  get #stderrPath(): string {
    return join(this.#dir, 'start.log');
  }

  async #start(): Promise<void> {
    await this.#endOrphans();
    await rm(this.controlSocketPath, { force: true });
    const stderr = openSync(this.#stderrPath, 'w', 0o600);
    // A session of its own: it outlives this process, and its workers can be told by it.
    const child = spawn(
      this.#program,
      ['-e', 'stderr', '-p', this.#dir, '-c', this.#configPath, '-g', 'daemon off;'],
      { detached: true, stdio: ['ignore', 'ignore', stderr] },
    );
    closeSync(stderr);
    child.on('error', (error) => this.#logger.error({ err: error }, 'nginx cannot be started'));
    child.unref();
  }

  /** The master process; undefined when none lives. */
  async #pid(): Promise<number | undefined> {
    const pid = Number(await readFile(this.#pidPath, 'utf8').catch(() => ''));
    if (!Number.isInteger(pid) || pid <= 0) return undefined;
    return (await processInfo(pid))?.name === 'nginx' ? pid : undefined;
  }

  /** Workers of a master that was killed serve on, and hold the ports. */
  async #endOrphans(): Promise<void> {
    const masterPid = Number(await readFile(this.#pidPath, 'utf8').catch(() => ''));
    if (!Number.isInteger(masterPid) || masterPid <= 0 || (await this.#pid()) !== undefined) return;
    const isOrphan = async (pid: number) => {
      const info = await processInfo(pid);
      return info?.name === 'nginx' && info.sessionId === masterPid;
    };
    const pids = (await readdir('/proc').catch(() => [])).filter((name) => /^\d+$/.test(name)).map(Number);
    for (const pid of pids) {
      if (!(await isOrphan(pid))) continue;
      process.kill(pid, 'SIGKILL');
      await until(TERM_TIMEOUT_MS, async () => !(await isOrphan(pid)));
    }
    await rm(this.#pidPath, { force: true });
  }

  #ask(path: string): Promise<string | undefined> {
    return new Promise((resolve) => {
      const request = get(
        { socketPath: this.controlSocketPath, path, agent: false, timeout: CONTROL_TIMEOUT_MS },
        (response) => {
          let text = '';
          response.setEncoding('utf8').on('data', (chunk: string) => {
            text += chunk;
            if (text.length > MAX_CONTROL_BYTES) request.destroy();
          });
          response.on('end', () => resolve(response.statusCode === 200 ? text : undefined));
          response.on('close', () => resolve(undefined));
        },
      );
      request.on('timeout', () => request.destroy());
      request.on('error', () => resolve(undefined));
    });
  }
}

/** @returns undefined for a process that has ended */
async function processInfo(pid: number): Promise<{ name: string; sessionId: number } | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  // pid (name) state ppid pgrp session; the name may hold spaces and brackets (proc(5)).
  const [, name, rest = ''] = /^\d+ \((.*)\) (.*)$/s.exec(stat) ?? [];
  const [state, , , sessionId] = rest.split(' ');
  if (name === undefined || state === 'Z') return undefined;
  return { name, sessionId: Number(sessionId) };
}

async function until(timeoutMs: number, isDone: () => Promise<boolean>): Promise<boolean> {
  const deadlineMs = performance.now() + timeoutMs;
  for (;;) {
    if (await isDone()) return true;
    if (performance.now() > deadlineMs) return false;
    await new Promise((wake) => setTimeout(wake, POLL_MS));
  }
}

function runNginx(program: string, args: readonly string[]): Promise<{ exitCode: number; stderr: string }> {
  return new Promise((resolve, reject) => {
    execFile(program, args, { timeout: TEST_TIMEOUT_MS, killSignal: 'SIGKILL' }, (error, _stdout, stderr) => {
      if (error === null) resolve({ exitCode: 0, stderr });
      else if (typeof error.code === 'number') resolve({ exitCode: error.code, stderr });
      else reject(error);
    });
  });
}
