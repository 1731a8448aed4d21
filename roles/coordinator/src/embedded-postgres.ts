/**
 * The embedded PostgreSQL: it runs in a worker thread (`database-worker.mjs`) and keeps its files in one folder.
 *
 * The folder must belong to one process only: take the lock of `data-folder-lock.ts` first.
 */
import { existsSync } from 'node:fs';
import { rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import {
  Kysely,
  type PostgresCursor,
  PostgresDialect,
  type PostgresPool,
  type PostgresPoolClient,
  type PostgresQueryResult,
} from 'kysely';
import type { Logger } from 'pino';
import { type Database, DatabaseUnavailable, type Prepare, SqlError, type Tables } from './database.ts';
import { migrate } from './migrations.ts';

/**
 * Opens the database in `folder`, creates it when there is none, and brings its tables up to date.
 * @param prepare what to do instead of that
 * @throws Error in one sentence when the files cannot be created or opened
 */
export async function openEmbeddedPostgres(
  folder: string,
  logger: Logger,
  prepare: Prepare = migrate,
): Promise<Database> {
  if (!existsSync(join(folder, 'PG_VERSION'))) await createFiles(folder);
  const pool = new EmbeddedPostgres(folder, logger);
  const kysely = new Kysely<Tables>({ dialect: new PostgresDialect({ pool }) });
  try {
    await prepare(kysely, logger);
  } catch (error) {
    await pool.end();
    throw error;
  }
  // The process has the database to itself, so nobody else changes it.
  return {
    kysely,
    origin: 'embedded',
    isUp: () => pool.isUp,
    onChangeElsewhere: () => {},
    close: () => pool.end(),
  };
}

/** Creates the files beside their final place, so that a kill half-way leaves nothing that looks whole. */
async function createFiles(folder: string): Promise<void> {
  const unfinishedFolder = `${folder}.new`;
  await rm(unfinishedFolder, { recursive: true, force: true });
  // Its thread ends with it: creation takes half a gigabyte that the running database does not need.
  const worker = startWorker(unfinishedFolder, true);
  await new Promise<void>((resolve, reject) => {
    worker.once('error', reject);
    worker.once('exit', (code) =>
      code === 0 ? resolve() : reject(new Error(`Creating the database ended with code ${code}.`)),
    );
  });
  await rename(unfinishedFolder, folder);
}

function startWorker(folder: string, isCreateOnly: boolean): Worker {
  return new Worker(new URL('./database-worker.mjs', import.meta.url), {
    workerData: { folder, isCreateOnly },
    name: 'database',
  });
}

type WorkerReply =
  | { kind: 'ready' }
  | {
      kind: 'rows';
      id: number;
      command: PostgresQueryResult<unknown>['command'];
      rowCount: number;
      rows: unknown[];
    }
  | {
      kind: 'error';
      id: number;
      error: { message: string; sqlState: string | undefined; constraint: string | undefined };
    };

interface PendingQuery {
  readonly resolve: (result: PostgresQueryResult<unknown>) => void;
  readonly reject: (error: Error) => void;
}

/** One run of the engine, from the start of its thread to the end. */
class Engine {
  readonly #worker: Worker;
  readonly #pending = new Map<number, PendingQuery>();
  readonly #exited: Promise<void>;
  #nextId = 0;
  #isUp = false;

  private constructor(folder: string, onExit: (failure: unknown) => void) {
    this.#worker = startWorker(folder, false);
    this.#worker.on('message', (reply: WorkerReply) => this.#settle(reply));
    let failure: unknown;
    this.#worker.on('error', (error) => {
      failure = error;
    });
    this.#exited = new Promise((resolve) => {
      this.#worker.once('exit', () => {
        this.#isUp = false;
        for (const query of this.#pending.values())
          query.reject(new DatabaseUnavailable('The database stopped.', { cause: failure }));
        this.#pending.clear();
        onExit(failure);
        resolve();
      });
    });
  }

  static async start(folder: string, onExit: (failure: unknown) => void): Promise<Engine> {
    const engine = new Engine(folder, onExit);
    await new Promise<void>((resolve, reject) => {
      engine.#worker.once('message', () => resolve());
      engine.#worker.on('error', (error) =>
        reject(
          new DatabaseUnavailable(`The database in ${folder} does not open: ${error.message}`, {
            cause: error,
          }),
        ),
      );
      engine.#worker.once('exit', () =>
        reject(new DatabaseUnavailable(`The database in ${folder} does not open.`)),
      );
    });
    engine.#isUp = true;
    return engine;
  }

  get isUp(): boolean {
    return this.#isUp;
  }

  query(sql: string, parameters: ReadonlyArray<unknown>): Promise<PostgresQueryResult<unknown>> {
    if (!this.#isUp) return Promise.reject(new DatabaseUnavailable('The database stopped.'));
    const id = this.#nextId++;
    const deadline = setTimeout(() => void this.#worker.terminate(), QUERY_DEADLINE_MS);
    const result = new Promise<PostgresQueryResult<unknown>>((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
      this.#worker.postMessage({ id, sql, parameters });
    });
    return result.finally(() => clearTimeout(deadline));
  }

  async stop(): Promise<void> {
    this.#worker.postMessage('close');
    const deadline = setTimeout(() => void this.#worker.terminate(), 3000);
    await this.#exited;
    clearTimeout(deadline);
  }

  #settle(reply: WorkerReply): void {
    if (reply.kind === 'ready') return;
    const query = this.#pending.get(reply.id);
    this.#pending.delete(reply.id);
    if (reply.kind === 'rows') query?.resolve(reply);
    else query?.reject(new SqlError(reply.error.message, reply.error.sqlState, reply.error.constraint));
  }
}

/** An engine that takes longer for one query has stopped for good. */
const QUERY_DEADLINE_MS = 60_000;
/** How many may wait for the one connection, and how long. */
const MAX_WAITING = 500;
const MAX_WAIT_MS = 10_000;
const REVIVE_AFTER_MS = 1000;

/**
 * A pool of one connection, in the form that Kysely's PostgreSQL dialect takes from `pg`. Who holds
 * the connection has the engine to itself, so transactions come one after another.
 */
class EmbeddedPostgres implements PostgresPool {
  readonly #folder: string;
  readonly #logger: Logger;
  readonly #waiting: Array<() => void> = [];
  #isTaken = false;
  #isEnding = false;
  #engine: Engine | undefined;

  constructor(folder: string, logger: Logger) {
    this.#folder = folder;
    this.#logger = logger;
  }

  get isUp(): boolean {
    return this.#engine?.isUp ?? false;
  }

  async connect(): Promise<PostgresPoolClient> {
    await this.#takeTurn();
    try {
      if (this.#isEnding) throw new DatabaseUnavailable('The database is closing.');
      this.#engine ??= await this.#startEngine();
    } catch (error) {
      this.#passTurn();
      throw error;
    }
    return new Connection(this.#engine, () => this.#passTurn());
  }

  /** Ends the engine once the transaction that runs has ended. */
  async end(): Promise<void> {
    if (this.#isEnding) return;
    this.#isEnding = true;
    await this.#takeTurn().catch(() => undefined);
    await this.#engine?.stop();
    this.#passTurn();
  }

  async #startEngine(): Promise<Engine> {
    return Engine.start(this.#folder, (failure) => {
      const wasUp = this.#engine !== undefined;
      this.#engine = undefined;
      if (this.#isEnding || !wasUp) return;
      this.#logger.error({ err: failure }, 'the database stopped; it is started again');
      void this.#revive();
    });
  }

  /** Starts the engine again, for as long as it takes. Who needs it meanwhile tries too. */
  async #revive(): Promise<void> {
    while (!this.#isEnding && this.#engine === undefined) {
      await sleep(REVIVE_AFTER_MS, undefined, { ref: false });
      try {
        const connection = await this.connect();
        connection.release();
      } catch (error) {
        if (!this.#isEnding) this.#logger.error({ err: error }, 'the database does not start');
      }
    }
  }

  async #takeTurn(): Promise<void> {
    if (!this.#isTaken) {
      this.#isTaken = true;
      return;
    }
    if (this.#waiting.length >= MAX_WAITING)
      throw new DatabaseUnavailable('The database has too much to do.');
    await new Promise<void>((resolve, reject) => {
      const turn = () => {
        clearTimeout(deadline);
        resolve();
      };
      const deadline = setTimeout(() => {
        this.#waiting.splice(this.#waiting.indexOf(turn), 1);
        reject(new DatabaseUnavailable(`The database was busy for ${MAX_WAIT_MS / 1000} s.`));
      }, MAX_WAIT_MS);
      this.#waiting.push(turn);
    });
  }

  #passTurn(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#isTaken = false;
    else next();
  }
}

class Connection implements PostgresPoolClient {
  readonly #engine: Engine;
  readonly #release: () => void;

  constructor(engine: Engine, release: () => void) {
    this.#engine = engine;
    this.#release = release;
  }

  query<R>(sql: string, parameters: ReadonlyArray<unknown>): Promise<PostgresQueryResult<R>>;
  query<R>(cursor: PostgresCursor<R>): PostgresCursor<R>;
  query<R>(
    sql: string | PostgresCursor<R>,
    parameters: ReadonlyArray<unknown> = [],
  ): Promise<PostgresQueryResult<R>> | PostgresCursor<R> {
    if (typeof sql !== 'string') throw new Error('The embedded database has no cursors.');
    // Kysely derives R from the table types; nothing at run time could check it.
    return this.#engine.query(sql, parameters) as Promise<PostgresQueryResult<R>>;
  }

  release(): void {
    this.#release();
  }
}
