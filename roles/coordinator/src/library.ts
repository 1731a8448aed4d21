/** How files become assets: the settings of the library, and the folders that it watches. */
import { randomBytes } from 'node:crypto';
import { posix } from 'node:path';
import type { BackendState } from '@starling/model/entities';
import {
  defaultLibrarySettings,
  type FolderReport,
  LibrarySettings,
  type LibrarySettingsChange,
  type NewWatchedFolder,
  type WatchedFolder,
} from '@starling/model/library';
import type { Kysely, Selectable } from 'kysely';
import type { Logger } from 'pino';
import type { Static } from 'typebox';
import { Check } from 'typebox/value';
import { insertAsset } from './assets.ts';
import type { Changes } from './changes.ts';
import type { Tables, Transaction } from './database.ts';
import { type Page, type PageQuery, pageOf, pageRequestOf } from './page.ts';
import { ApiProblem } from './problem.ts';
import { RowCache } from './row-cache.ts';

const SETTINGS_NAME = 'library';

export class Library {
  readonly #db: Kysely<Tables>;
  readonly #changes: Changes;
  readonly #rows: RowCache<Selectable<Tables['watched_folders']>[]>;
  readonly #logger: Logger;
  readonly #now: () => number;

  constructor(db: Kysely<Tables>, changes: Changes, logger: Logger, now: () => number) {
    this.#db = db;
    this.#changes = changes;
    this.#rows = new RowCache(changes);
    this.#logger = logger;
    this.#now = now;
  }

  settings(): Promise<LibrarySettings> {
    return this.#db.transaction().execute(readSettings);
  }

  /** Changes the settings that are given; they hold for imports that start from now on. */
  async changeSettings(changed: LibrarySettingsChange): Promise<LibrarySettings> {
    const settings = await this.#changes.make(async (transaction) => {
      const next = { ...(await readSettings(transaction)), ...changed };
      const value = JSON.stringify(next);
      await transaction
        .insertInto('settings')
        .values({ name: SETTINGS_NAME, value })
        .onConflict((conflict) => conflict.column('name').doUpdateSet({ value }))
        .execute();
      return next;
    });
    this.#logger.info({ changed }, 'settings of the library changed');
    return settings;
  }

  /** By path. @throws ApiProblem REQUEST_INVALID for a bad cursor */
  async folders(query: Static<typeof PageQuery>): Promise<Page<WatchedFolder>> {
    const request = pageRequestOf(query, ['path']);
    const after = request.after?.[0];
    const rows = await this.#rows.get(request.id, () =>
      this.#db
        .selectFrom('watched_folders')
        .selectAll()
        .$if(after !== undefined, (query) => query.where('path', '>', after ?? ''))
        .orderBy('path')
        .limit(request.rowLimit)
        .execute(),
    );
    return pageOf(rows, request, ({ path }) => [path], folderOf);
  }

  /** @throws ApiProblem REQUEST_INVALID or FOLDER_EXISTS */
  async watch({ path: givenPath, isRecursive = false }: NewWatchedFolder): Promise<WatchedFolder> {
    if (!posix.isAbsolute(givenPath)) {
      throw new ApiProblem('REQUEST_INVALID', `The folder must be an absolute path, not ${givenPath}.`);
    }
    const path = posix.resolve(givenPath);
    const row = await this.#changes.make((transaction) =>
      transaction
        .insertInto('watched_folders')
        .values({
          id: randomBytes(8).toString('hex'),
          path,
          is_recursive: isRecursive,
          created_at: new Date(this.#now()),
        })
        .onConflict((conflict) => conflict.column('path').doNothing())
        .returningAll()
        .executeTakeFirst(),
    );
    if (row === undefined) throw new ApiProblem('FOLDER_EXISTS', `The folder ${path} is watched already.`);
    this.#logger.info({ folder: path }, 'folder watched');
    return folderOf(row);
  }

  /**
   * Stops watching; the assets stay.
   * @throws ApiProblem FOLDER_UNKNOWN
   */
  async unwatch(id: string): Promise<void> {
    await this.#changes.make(async (transaction) => {
      const { numDeletedRows } = await transaction
        .deleteFrom('watched_folders')
        .where('id', '=', id)
        .executeTakeFirst();
      if (numDeletedRows === 0n) throw unknownFolder(id);
    });
    this.#logger.info({ folder: id }, 'folder not watched any more');
  }

  /**
   * Takes a backend's report on a folder, and queues the import of each file that is new or was replaced. A
   * repeated report has no effect: what was imported once, and perhaps removed since, stays as it is.
   * @throws ApiProblem FOLDER_UNKNOWN
   */
  async report(folderId: string, { files }: FolderReport): Promise<void> {
    const isNews = await this.#db.transaction().execute(async (transaction) => {
      const known = new Map(
        (
          await transaction.selectFrom('watched_files').selectAll().where('folder', '=', folderId).execute()
        ).map(({ path, version }) => [path, version]),
      );
      return files.some(({ path, version }) => known.get(path) !== version);
    });
    if (!isNews) return;
    const queued = await this.#changes.make(async (transaction) => {
      const folder = await transaction
        .selectFrom('watched_folders')
        .select('id')
        .where('id', '=', folderId)
        .forShare()
        .executeTakeFirst();
      if (folder === undefined) throw unknownFolder(folderId);
      let count = 0;
      for (const { path, version } of files) {
        const { numInsertedOrUpdatedRows } = await transaction
          .insertInto('watched_files')
          .values({ folder: folderId, path, version })
          .onConflict((conflict) =>
            conflict
              .columns(['folder', 'path'])
              .doUpdateSet({ version })
              .where('watched_files.version', '!=', version),
          )
          .executeTakeFirstOrThrow();
        if (numInsertedOrUpdatedRows === 0n) continue;
        // A millisecond apart, so that they are imported in this order.
        await insertAsset(transaction, { source: path }, this.#now() + count);
        count += 1;
      }
      return count;
    });
    this.#logger.info({ folder: folderId, count: queued }, 'imports of a watched folder queued');
  }
}

function unknownFolder(id: string): ApiProblem {
  return new ApiProblem('FOLDER_UNKNOWN', `There is no watched folder ${id}.`);
}

function folderOf(row: Selectable<Tables['watched_folders']>): WatchedFolder {
  return {
    id: row.id,
    path: row.path,
    isRecursive: row.is_recursive,
    createdAt: row.created_at.toISOString(),
  };
}

async function readSettings(transaction: Transaction): Promise<LibrarySettings> {
  const row = await transaction
    .selectFrom('settings')
    .select('value')
    .where('name', '=', SETTINGS_NAME)
    .executeTakeFirst();
  const stored = typeof row?.value === 'object' ? row.value : null;
  const settings: unknown = { ...defaultLibrarySettings, ...stored };
  if (Check(LibrarySettings, settings)) return settings;
  throw new Error('the stored settings of the library do not have their form');
}

async function readFolders(transaction: Transaction): Promise<WatchedFolder[]> {
  const rows = await transaction.selectFrom('watched_folders').selectAll().orderBy('path').execute();
  return rows.map(folderOf);
}

/** The part of the state that is about the library. */
export async function readLibrary(
  transaction: Transaction,
): Promise<Pick<BackendState, 'library' | 'folders'>> {
  return { library: await readSettings(transaction), folders: await readFolders(transaction) };
}
