/**
 * PostgreSQL on a server, which several coordinators may share.
 *
 * One connection more than the pool has is kept open to hear of the changes of the others. It also tells whether the
 * server answers: while it does not, queries are refused at once instead of each waiting for its deadline.
 */
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  Kysely,
  type PostgresCursor,
  PostgresDialect,
  type PostgresPool,
  type PostgresPoolClient,
  type PostgresQueryResult,
} from 'kysely';
import { Client, DatabaseError, Pool, type PoolClient, type PoolConfig } from 'pg';
import type { Logger } from 'pino';
import {
  CHANGE_CHANNEL,
  type Database,
  DatabaseUnavailable,
  type Prepare,
  SqlError,
  type Tables,
} from './database.ts';
import { migrate } from './migrations.ts';

/** PostgreSQL serves one connection by one process; a server's default takes 100 in all. */
const MAX_CONNECTIONS = 10;
const MAX_WAITING = 500;
/** To open a connection, and to wait for one that is free. */
const CONNECT_DEADLINE_MS = 5000;
/** The server ends a statement that takes longer. */
const STATEMENT_DEADLINE_MS = 10_000;
/** The server has not even answered that. */
const ANSWER_DEADLINE_MS = 12_000;
const IDLE_IN_TRANSACTION_DEADLINE_MS = 30_000;
const IDLE_CONNECTION_MS = 60_000;
const PING_INTERVAL_MS = 1000;
const PING_DEADLINE_MS = 4000;
const FIRST_RETRY_MS = 100;
const MAX_RETRY_MS = 2000;
/** At the start: machines that boot together are up in any order. */
const START_DEADLINE_MS = 60_000;

/**
 * PostgreSQL documentation, appendix A: the server stops, starts, has no connection or memory left, or took too long. All
 * may be over a moment later. A full disk (53100) is not among them.
 */
const PASSING_SQLSTATES = /^(08|53[023]|57P0[1-5]|57014|25P03|55P03|40)/;

/**
 * Connects to the server, waiting up to a minute for it, and brings the tables up to date.
 * @param url `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=...`; it is never logged
 * @param prepare what to do instead of bringing the tables up to date
 * @throws DatabaseUnavailable when the server does not answer or refuses; DataFolderError when a newer
 *   Starling has used the database
 */
export async function openPostgresServer(
  url: string,
  logger: Logger,
  prepare: Prepare = migrate,
): Promise<Database> {
  refuseOtherUrls(url);
  const watcher = new ServerWatcher(url, logger);
  try {
    await watcher.start();
    await withoutDeadlines(url, watcher, logger, (kysely) => prepare(kysely, logger));
  } catch (error) {
    await watcher.close();
    throw error;
  }
  const options = {
    ...connectionOf(url),
    max: MAX_CONNECTIONS,
    idleTimeoutMillis: IDLE_CONNECTION_MS,
    statement_timeout: STATEMENT_DEADLINE_MS,
    query_timeout: ANSWER_DEADLINE_MS,
    idle_in_transaction_session_timeout: IDLE_IN_TRANSACTION_DEADLINE_MS,
  };
  const pool = new ServerPool(options, watcher, logger);
  return {
    kysely: new Kysely<Tables>({ dialect: new PostgresDialect({ pool }) }),
    origin: watcher.origin,
    isUp: () => watcher.isUp,
    onChangeElsewhere: (listener) => watcher.onChange(listener),
    async close() {
      await watcher.close();
      await pool.end();
    },
  };
}

function refuseOtherUrls(url: string): void {
  let client: Client | undefined;
  try {
    if (/^postgres(ql)?:/.test(url)) client = new Client(connectionOf(url));
  } catch {
    // Its text may hold the password.
  }
  if (client === undefined)
    throw new DatabaseUnavailable(
      'DATABASE_URL is not of the form postgres://USER:PASSWORD@HOST:PORT/DATABASE.',
    );
}

/** A migration may take longer than any query, and so may the wait for another coordinator's. */
async function withoutDeadlines(
  url: string,
  watcher: ServerWatcher,
  logger: Logger,
  work: (kysely: Kysely<Tables>) => Promise<void>,
): Promise<void> {
  const pool = new ServerPool({ ...connectionOf(url), max: 1 }, watcher, logger);
  try {
    await work(new Kysely<Tables>({ dialect: new PostgresDialect({ pool }) }));
  } finally {
    await pool.end();
  }
}

function connectionOf(connectionString: string): PoolConfig {
  return {
    connectionString,
    application_name: 'starling',
    keepAlive: true,
    connectionTimeoutMillis: CONNECT_DEADLINE_MS,
  };
}

class ServerPool implements PostgresPool {
  readonly #pool: Pool;
  readonly #watcher: ServerWatcher;

  constructor(options: PoolConfig, watcher: ServerWatcher, logger: Logger) {
    this.#watcher = watcher;
    this.#pool = new Pool(options);
    // A connection that nobody uses was cut. The error refers to the client with all its settings: its text will do.
    this.#pool.on('error', ({ message }) =>
      logger.debug({ reason: message }, 'idle database connection lost'),
    );
  }

  async connect(): Promise<PostgresPoolClient> {
    if (!this.#watcher.isUp) throw new DatabaseUnavailable('The database server does not answer.');
    if (this.#pool.waitingCount >= MAX_WAITING)
      throw new DatabaseUnavailable('The database has too much to do.');
    try {
      return new ServerConnection(await this.#pool.connect());
    } catch (error) {
      throw asOurs(error);
    }
  }

  end(): Promise<void> {
    return this.#pool.end();
  }
}

class ServerConnection implements PostgresPoolClient {
  readonly #client: PoolClient;
  #isBroken = false;
  readonly #onError = () => {
    this.#isBroken = true;
  };

  constructor(client: PoolClient) {
    this.#client = client;
    // Cut between two queries: the next one fails, and without a listener the process would end.
    client.on('error', this.#onError);
  }

  query<R>(sql: string, parameters: ReadonlyArray<unknown>): Promise<PostgresQueryResult<R>>;
  query<R>(cursor: PostgresCursor<R>): PostgresCursor<R>;
  query<R>(
    sql: string | PostgresCursor<R>,
    parameters: ReadonlyArray<unknown> = [],
  ): Promise<PostgresQueryResult<R>> | PostgresCursor<R> {
    if (typeof sql !== 'string') throw new Error('Cursors are not used.');
    return this.#query(sql, parameters);
  }

  async #query<R>(sql: string, parameters: ReadonlyArray<unknown>): Promise<PostgresQueryResult<R>> {
    try {
      const { command, rowCount, rows } = await this.#client.query(sql, [...parameters]);
      if (!isCommand(command)) return { command: 'SELECT', rowCount: rowCount ?? 0, rows };
      return { command, rowCount: rowCount ?? 0, rows };
    } catch (error) {
      const ours = asOurs(error);
      // What state the connection is in is anybody's guess.
      if (ours instanceof DatabaseUnavailable) this.#isBroken = true;
      throw ours;
    }
  }

  release(): void {
    this.#client.off('error', this.#onError);
    this.#client.release(this.#isBroken);
  }
}

type PostgresCommand = PostgresQueryResult<unknown>['command'];
const commands: readonly string[] = [
  'UPDATE',
  'DELETE',
  'INSERT',
  'SELECT',
  'MERGE',
] satisfies PostgresCommand[];

function isCommand(command: string): command is PostgresCommand {
  return commands.includes(command);
}

/** Whatever is not PostgreSQL's word is of the socket, or a deadline of `pg`: it was no answer to the query. */
function asOurs(error: unknown): SqlError | DatabaseUnavailable {
  if (!(error instanceof DatabaseError)) {
    const reason = error instanceof Error ? error.message : String(error);
    return new DatabaseUnavailable(`The database server does not answer: ${reason}.`);
  }
  const { message, code = '', constraint } = error;
  return PASSING_SQLSTATES.test(code)
    ? new DatabaseUnavailable(`The database server cannot answer now: ${message}.`)
    : new SqlError(message, code, constraint);
}

/** The connection that listens. It comes back by itself. */
class ServerWatcher {
  /** Tells our own changes from those of others. */
  readonly origin = randomBytes(9).toString('base64url');
  readonly #url: string;
  readonly #logger: Logger;
  readonly #listeners: (() => void)[] = [];
  readonly #stop = new AbortController();
  #running: Promise<void> | undefined;
  #isUp = false;

  constructor(url: string, logger: Logger) {
    this.#url = url;
    this.#logger = logger;
  }

  get isUp(): boolean {
    return this.#isUp;
  }

  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  /** @throws DatabaseUnavailable when it does not come up in a minute, or refuses us */
  async start(): Promise<void> {
    const giveUpAtMs = Date.now() + START_DEADLINE_MS;
    for (let attempt = 0; ; attempt++) {
      try {
        const client = await this.#connect();
        this.#running = this.#run(client);
        return;
      } catch (error) {
        const ours = asOurs(error);
        if (!(ours instanceof DatabaseUnavailable) || Date.now() > giveUpAtMs) {
          throw new DatabaseUnavailable(`The database server cannot be used: ${ours.message}`);
        }
        if (attempt === 0) this.#logger.warn({ reason: ours.message }, 'waiting for the database server');
        await this.#pause(attempt);
      }
    }
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #run(first: Client): Promise<void> {
    let client: Client | undefined = first;
    let attempt = 0;
    while (!this.#stop.signal.aborted) {
      try {
        client ??= await this.#connect();
        if (attempt > 0) {
          this.#logger.info('the database server answers again');
          attempt = 0;
          this.#tell(); // of what was changed meanwhile
        }
        await this.#pingUntilItFails(client);
      } catch (error) {
        this.#isUp = false;
        if (this.#stop.signal.aborted) break;
        if (attempt === 0) {
          const reason = error instanceof Error ? error.message : String(error);
          this.#logger.error({ reason }, 'the database server does not answer; it is tried again');
        }
        await this.#pause(attempt++);
      } finally {
        // A server that does not answer does not say goodbye either.
        client?.connection.stream.destroy();
        client = undefined;
      }
    }
    this.#isUp = false;
  }

  async #connect(): Promise<Client> {
    const client = new Client({
      ...connectionOf(this.#url),
      query_timeout: PING_DEADLINE_MS,
    });
    client.on('error', () => {}); // the ping fails then
    client.on('notification', ({ payload }) => {
      if (payload !== this.origin) this.#tell();
    });
    try {
      await client.connect();
      await client.query(`listen ${CHANGE_CHANNEL}`);
    } catch (error) {
      client.connection.stream.destroy();
      throw error;
    }
    this.#isUp = true;
    return client;
  }

  async #pingUntilItFails(client: Client): Promise<void> {
    const ended = new Promise<never>((_, reject) =>
      client.once('end', () => reject(new Error('the connection was closed'))),
    );
    ended.catch(() => {}); // it may come after the loop
    while (!this.#stop.signal.aborted) {
      await Promise.race([
        sleep(PING_INTERVAL_MS, undefined, { signal: this.#stop.signal, ref: false }),
        ended,
      ]);
      await client.query('select 1');
    }
  }

  async #pause(attempt: number): Promise<void> {
    const capMs = Math.min(MAX_RETRY_MS, FIRST_RETRY_MS * 2 ** Math.min(attempt, 10));
    await sleep(capMs * (0.5 + Math.random() / 2), undefined, { signal: this.#stop.signal }).catch(() => {});
  }

  #tell(): void {
    for (const listener of this.#listeners) listener();
  }
}
