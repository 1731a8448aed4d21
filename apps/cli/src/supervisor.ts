/** Keeps processes going: one that dies is started again, at once or, when it dies again and again, after a while. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import type { Logger } from 'pino';

export interface Program {
  /** Unique among the programs of a supervisor. */
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

export interface SupervisorOptions {
  readonly logger: Logger;
  /** A line that a program wrote to its standard error. */
  onLogLine(name: string, line: string): void;
  /** A line that it wrote to its standard output, after the first. */
  onOutput(name: string, line: string): void;
}

/** Who has lived for so long did not die of its start. */
const STABLE_AFTER_MS = 30_000;
const FIRST_RETRY_MS = 200;
const LAST_RETRY_MS = 10_000;
/** From SIGTERM to SIGKILL. */
const STOP_DEADLINE_MS = 4000;

interface Supervised {
  readonly program: Program;
  child: ChildProcess | undefined;
  bornAtMs: number;
  bornCount: number;
  /** In a row, each soon after its start. */
  earlyDeaths: number;
  retryTimer: NodeJS.Timeout | undefined;
}

export class Supervisor {
  readonly #options: SupervisorOptions;
  readonly #all: Supervised[] = [];
  #isClosing = false;

  constructor(options: SupervisorOptions) {
    this.#options = options;
  }

  /**
   * Starts a program; it is kept going from then on.
   * @returns its process id and the first line that it said on standard output, which is to mean that it runs
   * @throws Error when it ends before that
   */
  async start(program: Program): Promise<{ pid: number; says: string }> {
    const one: Supervised = {
      program,
      child: undefined,
      bornAtMs: 0,
      bornCount: 0,
      earlyDeaths: 0,
      retryTimer: undefined,
    };
    const { child, firstLine } = this.#spawn(one);
    this.#all.push(one);
    const says = await firstLine;
    if (says === undefined) throw new Error(`${program.name} ended at its start: see the log.`);
    return { pid: child.pid ?? 0, says };
  }

  /** Ends all, those that were started last first, and waits for them. Idempotent. */
  async close(): Promise<void> {
    this.#isClosing = true;
    const endings: Promise<unknown>[] = [];
    for (const one of this.#all.toReversed()) {
      clearTimeout(one.retryTimer);
      const { child } = one;
      if (child === undefined) continue;
      const deadline = setTimeout(() => child.kill('SIGKILL'), STOP_DEADLINE_MS);
      endings.push(once(child, 'exit').finally(() => clearTimeout(deadline)));
      child.kill('SIGTERM');
    }
    await Promise.all(endings);
  }

  /** The first line is undefined when the process ends before it has said one. */
  #spawn(one: Supervised): { child: ChildProcess; firstLine: Promise<string | undefined> } {
    const { name, command, args, env } = one.program;
    // A group of its own: Ctrl-C is for the supervisor, which ends the others in order. When the supervisor is killed,
    // the channel closes, and they end by themselves.
    const child = spawn(command, args, {
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      env: { ...process.env, ...env },
    });
    one.child = child;
    one.bornAtMs = performance.now();
    one.bornCount++;
    const { onLogLine, onOutput } = this.#options;
    createInterface({ input: child.stderr as Readable }).on('line', (line) => onLogLine(name, line));
    const firstLine = new Promise<string | undefined>((resolve) => {
      let hasSpoken = false;
      createInterface({ input: child.stdout as Readable }).on('line', (line) => {
        if (hasSpoken) onOutput(name, line);
        hasSpoken = true;
        resolve(line);
      });
      const bury = (how: string) => {
        this.#bury(one, hasSpoken, how);
        resolve(undefined);
      };
      child.once('exit', (code, signal) => bury(signal ?? `exit ${code}`));
      child.once('error', (error) => {
        if (child.pid === undefined) bury(error.message);
      });
    });
    return { child, firstLine };
  }

  #bury(one: Supervised, hadStarted: boolean, how: string): void {
    one.child = undefined;
    const isFirst = one.bornCount === 1;
    if (this.#isClosing || (isFirst && !hadStarted)) return;
    const isEarly = performance.now() - one.bornAtMs < STABLE_AFTER_MS;
    one.earlyDeaths = isEarly ? one.earlyDeaths + 1 : 0;
    const retryMs = isEarly
      ? Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** (one.earlyDeaths - 1)) * (0.5 + Math.random() / 2)
      : 0;
    const { name } = one.program;
    this.#options.logger.warn(
      { node: name, how, retryMs: Math.round(retryMs) },
      'process has ended; it is started again',
    );
    one.retryTimer = setTimeout(() => this.#spawn(one), retryMs);
  }
}
