/**
 * Backup and restore: the whole database and the keys beside it as lines of text, the same from and to the embedded
 * database and a server. The format is in `docs/formats/backup.md`.
 */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createReadStream, createWriteStream, existsSync } from 'node:fs';
import { mkdir, open, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createGzip } from 'node:zlib';
import { type Kysely, sql, type Transaction } from 'kysely';
import type { Logger } from 'pino';
import { type Static, type TSchema, Type } from 'typebox';
import { Check } from 'typebox/value';
import { BackupError } from './backup-error.ts';
import { lockDataFolder } from './data-folder-lock.ts';
import { type Database, type Prepare, SqlError, type Tables } from './database.ts';
import { openEmbeddedPostgres } from './embedded-postgres.ts';
import { migrate, migrationNames } from './migrations.ts';
import { openPostgresServer } from './postgres-server.ts';
import { VIEWING_KEYS_FILE } from './viewing-keys.ts';

const FETCH_ROWS = 500;
const INSERT_CHARS = 1_000_000;
const MAX_LINE_CHARS = 64 * 1024 * 1024;

const Header = Type.Object({
  format: Type.Literal('starling-backup'),
  version: Type.Literal(1),
  createdAt: Type.String(),
  /** The last one that the tables have gone through. */
  migration: Type.String(),
});
const TableHeading = Type.Object({ table: Type.String(), rowCount: Type.Integer({ minimum: 0 }) });
const FileLine = Type.Object({ file: Type.Literal(VIEWING_KEYS_FILE), text: Type.String() });
const End = Type.Object({ end: Type.Literal(true) });

/** Where a coordinator keeps its things. */
export interface Storage {
  readonly dataDir: string;
  /** Of a PostgreSQL server; the database is in the folder when undefined. */
  readonly databaseUrl: string | undefined;
}

/**
 * Writes a backup, of a coordinator that runs on a server or of one that has stopped.
 * @param path is replaced when it is complete; readable by this account alone, since there are secrets in it
 * @throws DataFolderError, DatabaseUnavailable or BackupError, all in one sentence
 */
export async function writeBackup(storage: Storage, path: string, logger: Logger): Promise<void> {
  const source = await openSource(storage, logger);
  try {
    await writeBackupFile(source.kysely, storage.dataDir, path);
  } finally {
    await source.close();
  }
}

/** The same of a database that is open. */
export async function writeBackupFile(kysely: Kysely<Tables>, dataDir: string, path: string): Promise<void> {
  const unfinished = `${path}.new`;
  try {
    const lines = Readable.from(backupLines(kysely, dataDir));
    await pipeline(lines, createGzip(), createWriteStream(unfinished, { mode: 0o600 }));
    const file = await open(unfinished, 'r+');
    await file.sync();
    await file.close();
    await rename(unfinished, path);
  } finally {
    await rm(unfinished, { force: true });
  }
}

/** A backup as a stream. It is complete before it begins, so that a slow reader does not hold up the database. */
export async function openBackup(kysely: Kysely<Tables>, dataDir: string): Promise<Readable> {
  const path = join(dataDir, `backup-${randomBytes(8).toString('hex')}`);
  await writeBackupFile(kysely, dataDir, path);
  const file = await open(path);
  await rm(path);
  return file.createReadStream();
}

/**
 * Fills an empty database from a backup; a failure leaves it empty.
 * @throws BackupError when the file is none, or damaged, or of a newer Starling, or when the database is not empty;
 *   DataFolderError; DatabaseUnavailable
 */
export async function restoreBackup(storage: Storage, path: string, logger: Logger): Promise<void> {
  const input = createReadStream(path);
  await once(input, 'open').catch((error: Error) => {
    throw new BackupError(`${path} cannot be read: ${error.message}.`);
  });
  const text = input.pipe(createGunzip()).setEncoding('utf8');
  input.on('error', (error) => text.destroy(error));
  try {
    await restoreLines(storage, splitLines(text), logger);
  } catch (error) {
    // Of zlib: not a gzip file, or the end is missing.
    const isDamaged = error instanceof Error && 'code' in error && String(error.code).startsWith('Z_');
    throw isDamaged ? new BackupError(`${path} is not a whole backup: ${error.message}.`) : error;
  } finally {
    input.destroy();
  }
}

/**
 * Copies the database of a data folder, whose Starling has stopped, to an empty one on a server.
 * @throws as {@link restoreBackup}
 */
export async function copyToServer(fromDataDir: string, to: Storage, logger: Logger): Promise<void> {
  if (!existsSync(join(fromDataDir, 'db', 'PG_VERSION')))
    throw new BackupError(`There is no database in ${fromDataDir}. Name the data folder of the network.`);
  const source = await openSource({ dataDir: fromDataDir, databaseUrl: undefined }, logger);
  try {
    await restoreLines(to, splitLines(backupLines(source.kysely, fromDataDir)), logger);
  } finally {
    await source.close();
  }
}

async function openSource(
  { dataDir, databaseUrl }: Storage,
  logger: Logger,
): Promise<{ kysely: Kysely<Tables>; close(): Promise<void> }> {
  if (databaseUrl !== undefined) {
    return openPostgresServer(databaseUrl, logger, async (kysely) => {
      const { rows } = await sql<{ isOurs: boolean }>`
        select to_regclass('kysely_migration') is not null as "isOurs"`.execute(kysely);
      if (rows[0]?.isOurs !== true) throw new BackupError('Starling has not used this database yet.');
    });
  }
  if (!existsSync(join(dataDir, 'db', 'PG_VERSION')))
    throw new BackupError(`There is no database in ${dataDir}. Name the data folder of the network.`);
  const lock = await lockDataFolder(dataDir);
  const database = await openEmbeddedPostgres(join(dataDir, 'db'), logger, async () => {}).catch(
    async (error: unknown) => {
      await lock.release();
      throw error;
    },
  );
  return {
    kysely: database.kysely,
    async close() {
      await database.close();
      await lock.release();
    },
  };
}

/** All that a backup holds, as of one moment. */
async function* backupLines(kysely: Kysely<Tables>, dataDir: string): AsyncGenerator<string> {
  const transaction = await kysely
    .startTransaction()
    .setIsolationLevel('repeatable read')
    .setAccessMode('read only')
    .execute();
  try {
    const { rows } = await sql<{ migration: string | null }>`
      select max(name) as migration from kysely_migration`.execute(transaction);
    const header: Static<typeof Header> = {
      format: 'starling-backup',
      version: 1,
      createdAt: new Date().toISOString(),
      migration: rows[0]?.migration ?? '',
    };
    yield `${JSON.stringify(header)}\n`;
    for (const table of await tablesOf(transaction)) yield* tableLines(transaction, table);
    await transaction.commit().execute();
  } finally {
    if (!transaction.isCommitted) await transaction.rollback().execute();
  }
  const keys = await readIfPresent(join(dataDir, VIEWING_KEYS_FILE));
  if (keys !== undefined) yield `${JSON.stringify({ file: VIEWING_KEYS_FILE, text: keys })}\n`;
  yield `${JSON.stringify({ end: true })}\n`;
}

/** Rows stay text from one PostgreSQL to the other: JavaScript's numbers would not hold all of theirs. */
async function* tableLines(transaction: Transaction<Tables>, table: string): AsyncGenerator<string> {
  const counted = await sql<{ count: number }>`
    select count(*)::int4 as count from ${sql.table(table)}`.execute(transaction);
  yield `${JSON.stringify({ table, rowCount: counted.rows[0]?.count ?? 0 })}\n`;
  await sql`declare rows_of_table no scroll cursor for
    select row_to_json(one)::text as line from ${sql.table(table)} as one`.execute(transaction);
  for (;;) {
    const { rows } = await sql<{ line: string }>`
      fetch ${sql.lit(FETCH_ROWS)} from rows_of_table`.execute(transaction);
    if (rows.length === 0) break;
    yield rows.map(({ line }) => `${line}\n`).join('');
  }
  await sql`close rows_of_table`.execute(transaction);
}

/** In an order in which each comes after those that it refers to. */
async function tablesOf(kysely: Kysely<Tables>): Promise<string[]> {
  const { rows: tables } = await sql<{ name: string; needs: string[] }>`
    select relname as name, array(
      select target.relname::text from pg_constraint join pg_class target on target.oid = confrelid
      where contype = 'f' and conrelid = pg_class.oid and confrelid != conrelid
    ) as needs
    from pg_class
    where relkind = 'r' and relnamespace = current_schema()::regnamespace and relname not like 'kysely\\_%'
    order by relname`.execute(kysely);
  const ordered: string[] = [];
  while (ordered.length < tables.length) {
    const next = tables.find(
      ({ name, needs }) => !ordered.includes(name) && needs.every((needed) => ordered.includes(needed)),
    );
    if (next === undefined) throw new Error('tables that refer to each other cannot be put in order');
    ordered.push(next.name);
  }
  return ordered;
}

async function restoreLines(storage: Storage, lines: AsyncGenerator<string>, logger: Logger): Promise<void> {
  try {
    await restoreFrom(storage, lines, logger);
  } finally {
    // Where they come from a database, its transaction ends with them.
    await lines.return(undefined);
  }
}

async function restoreFrom(storage: Storage, iterator: AsyncIterator<string>, logger: Logger): Promise<void> {
  const header = parsedLine(Header, await iterator.next());
  if (header === undefined)
    throw new BackupError('This is no backup of Starling, or one that only a newer Starling reads.');
  if (!migrationNames.includes(header.migration))
    throw new BackupError(`The backup was made by a newer Starling (${header.migration}). Update Starling.`);

  const target = await openTarget(storage, header.migration, logger);
  try {
    const keys = await fillTables(target.kysely, iterator);
    await migrate(target.kysely, logger);
    const keysPath = join(storage.dataDir, VIEWING_KEYS_FILE);
    // Those of a coordinator that has been started already are in use.
    if (keys !== undefined && !existsSync(keysPath)) await writeFile(keysPath, keys, { mode: 0o600 });
    await target.keep();
  } catch (error) {
    await target.discard();
    throw error instanceof SqlError
      ? new BackupError(`The backup is damaged: ${error.message}.`, { cause: error })
      : error;
  }
}

/** An empty database with the tables of a migration. */
interface Target {
  readonly kysely: Kysely<Tables>;
  keep(): Promise<void>;
  discard(): Promise<void>;
}

async function openTarget(
  { dataDir, databaseUrl }: Storage,
  migration: string,
  logger: Logger,
): Promise<Target> {
  await mkdir(dataDir, { recursive: true, mode: 0o700 });
  const prepare: Prepare = (kysely) => migrate(kysely, logger, migration);
  if (databaseUrl !== undefined) {
    const database = await openPostgresServer(databaseUrl, logger, async (kysely) => {
      const { rows } = await sql`
        select from pg_class where relkind = 'r' and relnamespace = current_schema()::regnamespace limit 1
      `.execute(kysely);
      if (rows.length > 0)
        throw new BackupError('The database is not empty. Create an empty one, and set DATABASE_URL to it.');
      await prepare(kysely, logger);
    });
    return {
      kysely: database.kysely,
      keep: () => database.close(),
      async discard() {
        await dropTables(database);
        await database.close();
      },
    };
  }
  const folder = join(dataDir, 'db');
  if (existsSync(folder))
    throw new BackupError(`There is a database in ${dataDir} already. Move ${folder} away, then try again.`);
  const lock = await lockDataFolder(dataDir);
  const unfinished = join(dataDir, 'db.restoring');
  try {
    await rm(unfinished, { recursive: true, force: true });
    const database = await openEmbeddedPostgres(unfinished, logger, prepare);
    return {
      kysely: database.kysely,
      async keep() {
        await database.close();
        await rename(unfinished, folder);
        await lock.release();
      },
      async discard() {
        await database.close();
        await rm(unfinished, { recursive: true, force: true });
        await lock.release();
      },
    };
  } catch (error) {
    await lock.release();
    throw error;
  }
}

async function dropTables({ kysely }: Database): Promise<void> {
  const tables = await tablesOf(kysely);
  for (const table of [...tables, 'kysely_migration', 'kysely_migration_lock'])
    await sql`drop table if exists ${sql.table(table)} cascade`.execute(kysely);
}

/** @returns the file with the keys, if the backup has it */
async function fillTables(kysely: Kysely<Tables>, lines: AsyncIterator<string>): Promise<string | undefined> {
  return kysely.transaction().execute(async (transaction) => {
    const known = await tablesOf(transaction);
    // A new database has settings of its own.
    for (const table of known.toReversed()) await sql`delete from ${sql.table(table)}`.execute(transaction);
    let keys: string | undefined;
    for (;;) {
      const line = await lines.next();
      const heading = parsedLine(TableHeading, line);
      if (heading !== undefined && known.includes(heading.table)) {
        await fillTable(transaction, heading, lines);
        continue;
      }
      const file = parsedLine(FileLine, line);
      if (file !== undefined) keys = file.text;
      else if (parsedLine(End, line) !== undefined) return keys;
      else throw new BackupError('The backup is damaged: a line is not of its form, or the end is missing.');
    }
  });
}

async function fillTable(
  transaction: Transaction<Tables>,
  { table, rowCount }: Static<typeof TableHeading>,
  lines: AsyncIterator<string>,
): Promise<void> {
  let batch: string[] = [];
  let batchChars = 0;
  const insert = async () => {
    await sql`
      insert into ${sql.table(table)}
      select * from json_populate_recordset(null::${sql.table(table)}, ${`[${batch.join(',')}]`}::json)
    `.execute(transaction);
    batch = [];
    batchChars = 0;
  };
  for (let count = 0; count < rowCount; count++) {
    const line = await lines.next();
    if (line.done === true) throw new BackupError(`The backup ends within the table ${table}.`);
    batch.push(line.value);
    batchChars += line.value.length;
    if (batchChars > INSERT_CHARS) await insert();
  }
  if (batch.length > 0) await insert();
  // Numbers that are given out go on after the highest one.
  const { rows: columns } = await sql<{ name: string; sequence: string }>`
    select attname as name, pg_get_serial_sequence(${table}, attname) as sequence
    from pg_attribute where attrelid = ${table}::regclass and attnum > 0 and not attisdropped
      and pg_get_serial_sequence(${table}, attname) is not null`.execute(transaction);
  for (const { name, sequence } of columns) {
    await sql`
      select setval(${sequence}, (select coalesce(max(${sql.ref(name)}), 0) + 1 from ${sql.table(table)}), false)
    `.execute(transaction);
  }
}

function parsedLine<T extends TSchema>(
  schema: T,
  { value, done }: IteratorResult<string>,
): Static<T> | undefined {
  if (done === true) return undefined;
  try {
    const parsed: unknown = JSON.parse(value);
    return Check(schema, parsed) ? parsed : undefined;
  } catch {
    return undefined;
  }
}

/** Only a line feed ends a line: Node's readline takes U+2028 for an end, too, which JSON leaves as it is. */
async function* splitLines(chunks: AsyncIterable<string>): AsyncGenerator<string> {
  let rest = '';
  for await (const chunk of chunks) {
    const lines = `${rest}${chunk}`.split('\n');
    rest = lines.pop() ?? '';
    if (rest.length > MAX_LINE_CHARS) throw new BackupError('The backup is damaged: a line has no end.');
    yield* lines;
  }
}

async function readIfPresent(path: string): Promise<string | undefined> {
  return readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
}
