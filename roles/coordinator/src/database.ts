/**
 * The coordinator's database: Kysely over the embedded PostgreSQL, which runs in a worker thread
 * (`database-worker.mjs`) and keeps its files in one folder.
 *
 * The folder must belong to one process only: take the lock of `data-folder-lock.ts` first.
 */
import { existsSync } from 'node:fs';
import { rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import type { AssetState, ChannelKind, Fallback, SourceChoice } from '@starling/model/entities';
import type { AlwaysRecord, RecordingEnd, ReportedRecording } from '@starling/model/recording';
import type { AssetFacts, ProgrammeInfo } from '@starling/model/schedule';
import type { Schedule } from '@starling/model/schedule-definition';
import type { StreamInput, Transcode } from '@starling/model/stream-input';
import type { TrackSet } from '@starling/model/track-set';
import type { NetworkEvent, WebhookDelivery, WebhookEventType } from '@starling/model/webhook';
import {
  type ColumnType,
  type Generated,
  Kysely,
  type Transaction as KyselyTransaction,
  type PostgresCursor,
  PostgresDialect,
  type PostgresPool,
  type PostgresPoolClient,
  type PostgresQueryResult,
} from 'kysely';
import type { Logger } from 'pino';
import { migrate } from './migrations.ts';

/** Written once, never changed. */
type Fixed<T> = ColumnType<T, T, never>;
/** 64 bits: read as text, as `pg` reads it. */
type Int8 = ColumnType<string, number, number>;
type NullableInt8 = ColumnType<string | null, number | null, number | null>;

/** A file of a recording, as the backend that has it last said. */
export type StoredPart = ReportedRecording['parts'][number] & { readonly nodeId: string };

export interface Tables {
  assets: {
    id: Fixed<string>;
    name: string;
    state: AssetState;
    error: string | null;
    /** JSON. */
    facts: ColumnType<AssetFacts | null, string | null, string | null>;
    source: Fixed<string>;
    attempt: number;
    created_at: Fixed<Date>;
  };
  channels: {
    name: Fixed<string>;
    title: string;
    kind: Fixed<ChannelKind>;
    number: number;
    logo: string | null;
    group_title: string | null;
    epoch: Fixed<Date>;
    created_at: Fixed<Date>;
    is_private: ColumnType<boolean, boolean | undefined, boolean>;
    max_viewers: number | null;
    /** False: the schedule alone makes the channel, and the columns that follow mean nothing. */
    has_sources: Generated<boolean>;
    primary_stream: string | null;
    backup_stream: string | null;
    fallback: Generated<Fallback>;
    /** Null: never. */
    dark_after_ms: Generated<number | null>;
    source_choice: Generated<SourceChoice>;
    /** JSON. */
    record: ColumnType<AlwaysRecord | null, string | null | undefined, string | null>;
    redundancy: Generated<number>;
  };
  runs: {
    channel: Fixed<string>;
    start_ticks: Int8;
    first_media_sequence_number: Int8;
    first_discontinuity_sequence: Int8;
    loop: string[];
    /** JSON. */
    tracks: ColumnType<TrackSet | null, string | null, string | null>;
    origin_ticks: NullableInt8;
    shuffle_seed: NullableInt8;
    /** JSON. */
    programme: ColumnType<ProgrammeInfo | null, string | null, string | null>;
  };
  schedules: {
    channel: Fixed<string>;
    /** JSON, with assets by id. */
    schedule: ColumnType<Schedule, string, string>;
    /** All that it names. */
    asset_ids: string[];
    valid_from_ticks: Int8;
  };
  streams: {
    name: Fixed<string>;
    key_sha256: string;
    key_rotated_at: Date;
    created_at: Fixed<Date>;
    /** JSON, with the secrets in it. */
    input: ColumnType<StreamInput, string, string>;
    /** JSON. */
    transcode: ColumnType<Transcode | null, string | null, never>;
  };
  destinations: {
    name: Fixed<string>;
    channel: Fixed<string>;
    /** In clear, with the stream key in it: the backend needs it. */
    url: Fixed<string>;
    is_enabled: boolean;
    takes_enhanced_codecs: Fixed<boolean>;
    accepts_any_certificate: Fixed<boolean>;
    created_at: Fixed<Date>;
  };
  webhooks: {
    id: Fixed<string>;
    /** May hold a password. */
    url: Fixed<string>;
    events: WebhookEventType[];
    /** In clear: deliveries are signed with it. */
    secret: Fixed<string>;
    created_at: Fixed<Date>;
  };
  webhook_deliveries: {
    id: Fixed<string>;
    /** The order in which they were queued. */
    number: Generated<string>;
    webhook_id: Fixed<string>;
    /** JSON. */
    event: ColumnType<NetworkEvent, string, never>;
    state: WebhookDelivery['state'];
    attempts: number;
    outcome: string | null;
    next_attempt_at: Date | null;
  };
  watched_folders: {
    id: Fixed<string>;
    path: Fixed<string>;
    is_recursive: Fixed<boolean>;
    created_at: Fixed<Date>;
  };
  /** What was reported of the folders: it is not imported again. */
  watched_files: {
    folder: Fixed<string>;
    path: Fixed<string>;
    version: string;
  };
  recordings: {
    id: Fixed<string>;
    name: Fixed<string>;
    channel: Fixed<string | null>;
    stream: Fixed<string | null>;
    is_automatic: Fixed<boolean>;
    /** The backends are to make it. */
    is_wanted: boolean;
    end_reason: RecordingEnd | null;
    ended_at: Date | null;
    /** JSON. */
    parts: ColumnType<StoredPart[], string | undefined, string>;
    created_at: Fixed<Date>;
    /** The backends are to delete its files; the row goes when they have. */
    removed_at: Date | null;
  };
  viewing_tokens: {
    /** The `jti`. The token itself is not kept. */
    id: Fixed<string>;
    key_id: Fixed<string>;
    name: Fixed<string | null>;
    /** Null: all. */
    channels: Fixed<string[] | null>;
    max_concurrent: Fixed<number | null>;
    created_at: Fixed<Date>;
    expires_at: Fixed<Date>;
    revoked_at: Date | null;
  };
  settings: {
    name: Fixed<string>;
    /** JSON. */
    value: ColumnType<unknown, string, string>;
  };
}

export type Transaction = KyselyTransaction<Tables>;

/** The database cannot be asked: it is stopping, has failed, or has too much to do. */
export class DatabaseUnavailable extends Error {
  override readonly name = 'DatabaseUnavailable';
}

/** An error that PostgreSQL answered with. */
export class SqlError extends Error {
  override readonly name = 'SqlError';
  /** PostgreSQL documentation, appendix A: for instance `23505`, unique violation. */
  readonly sqlState: string | undefined;
  readonly constraint: string | undefined;

  constructor(message: string, sqlState: string | undefined, constraint: string | undefined) {
    super(message);
    this.sqlState = sqlState;
    this.constraint = constraint;
  }
}

export interface Database {
  readonly kysely: Kysely<Tables>;
  /** Whether the engine runs. A failed one is started again. */
  readonly isUp: () => boolean;
  readonly close: () => Promise<void>;
}

/**
 * Opens the database in `folder`, creates it when there is none, and brings its tables up to date.
 * @throws Error in one sentence when the files cannot be created or opened
 */
export async function openDatabase(folder: string, logger: Logger): Promise<Database> {
  if (!existsSync(join(folder, 'PG_VERSION'))) await createFiles(folder);
  const pool = new EmbeddedPostgres(folder, logger);
  const kysely = new Kysely<Tables>({ dialect: new PostgresDialect({ pool }) });
  try {
    await migrate(kysely, logger);
  } catch (error) {
    await pool.end();
    throw error;
  }
  return { kysely, isUp: () => pool.isUp, close: () => pool.end() };
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
