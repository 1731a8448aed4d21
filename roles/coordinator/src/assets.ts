/** The assets: files that were imported, or are about to be, and how far each import is. */
import { randomBytes } from 'node:crypto';
import { posix } from 'node:path';
import {
  type Asset,
  type BackendState,
  type ImportReport,
  type NewAsset,
  TEST_CARD_SOURCE,
} from '@starling/model/entities';
import { TIMELINE_HZ } from '@starling/model/schedule';
import { type Kysely, type Selectable, sql } from 'kysely';
import type { Logger } from 'pino';
import { type Static, Type } from 'typebox';
import { Check } from 'typebox/value';
import type { Changes } from './changes.ts';
import type { Tables, Transaction } from './database.ts';
import { type Page, type PageQuery, pageOf, pageRequestOf } from './page.ts';
import type { Peers } from './peers.ts';
import { ApiProblem } from './problem.ts';
import { RowCache } from './row-cache.ts';

const ImportProgress = Type.Object({ id: Type.String({ maxLength: 64 }), progress: Type.Number() });
/** Whose progress is kept in mind. */
const MAX_IMPORTS = 10_000;

export class Assets {
  readonly #db: Kysely<Tables>;
  readonly #changes: Changes;
  readonly #peers: Peers;
  readonly #rows: RowCache<Selectable<Tables['assets']>[]>;
  readonly #logger: Logger;
  readonly #now: () => number;
  /**
   * Of imports that run, by asset id. In memory only: it changes several times a second, and after
   * a restart the backend reports it anew.
   */
  readonly #progress = new Map<string, number>();

  constructor(db: Kysely<Tables>, changes: Changes, peers: Peers, logger: Logger, now: () => number) {
    this.#db = db;
    this.#peers = peers;
    peers.onMessage('import-progress', (message) => {
      if (Check(ImportProgress, message)) this.#setProgress(message.id, message.progress);
    });
    this.#changes = changes;
    this.#rows = new RowCache(changes);
    this.#logger = logger;
    this.#now = now;
  }

  /** Oldest first. @throws ApiProblem REQUEST_INVALID for a bad cursor */
  async list(query: Static<typeof PageQuery>): Promise<Page<Asset>> {
    const request = pageRequestOf(query, ['created_at', 'id']);
    const { after } = request;
    const rows = await this.#rows.get(`page ${request.id}`, () =>
      this.#db
        .selectFrom('assets')
        .selectAll()
        .$if(after !== undefined, (query) =>
          query.where(sql<boolean>`(created_at, id) > (${after?.[0]}::timestamptz, ${after?.[1]})`),
        )
        .orderBy('created_at')
        .orderBy('id')
        .limit(request.rowLimit)
        .execute(),
    );
    const keyOf = (row: Selectable<Tables['assets']>) => [row.created_at.toISOString(), row.id];
    return pageOf(rows, request, keyOf, (row) => this.#assetOf(row));
  }

  /** @throws ApiProblem ASSET_UNKNOWN */
  async get(id: string): Promise<Asset> {
    const [row] = await this.#rows.get(`one ${id}`, () =>
      this.#db.selectFrom('assets').selectAll().where('id', '=', id).execute(),
    );
    if (row === undefined) throw unknownAsset(id);
    return this.#assetOf(row);
  }

  /** Queues an import; a backend takes it from the state. */
  async add(asset: NewAsset): Promise<Asset> {
    checkSource(asset.source);
    const row = await this.#changes.make((transaction) => insertAsset(transaction, asset, this.#now()));
    this.#logger.info({ asset: row.id, name: row.name }, 'import queued');
    return this.#assetOf(row);
  }

  /**
   * Ends an import that waits or runs; the backend learns of it from the state.
   * @throws ApiProblem ASSET_UNKNOWN or IMPORT_FINISHED
   */
  async cancel(id: string): Promise<Asset> {
    const row = await this.#changes.make((transaction) =>
      transaction
        .updateTable('assets')
        .set({ state: 'cancelled', error: null })
        .where('id', '=', id)
        .where('state', 'in', ['queued', 'importing', 'cancelled'])
        .returningAll()
        .executeTakeFirst(),
    );
    if (row === undefined) throw await this.#finished(id);
    this.#progress.delete(id);
    this.#logger.info({ asset: id }, 'import cancelled');
    return this.#assetOf(row);
  }

  /**
   * Queues an import again that failed or was cancelled.
   * @throws ApiProblem ASSET_UNKNOWN, IMPORT_FINISHED or IMPORT_NOT_ENDED
   */
  async retry(id: string): Promise<Asset> {
    const row = await this.#changes.make((transaction) =>
      transaction
        .updateTable('assets')
        .set((assets) => ({ state: 'queued', error: null, attempt: assets('attempt', '+', 1) }))
        .where('id', '=', id)
        .where('state', 'in', ['failed', 'cancelled'])
        .returningAll()
        .executeTakeFirst(),
    );
    if (row === undefined) {
      const { state } = await this.get(id);
      if (state === 'ready') throw await this.#finished(id);
      throw new ApiProblem('IMPORT_NOT_ENDED', `The import of asset ${id} has not ended: it is ${state}.`);
    }
    this.#logger.info({ asset: id }, 'import queued again');
    return this.#assetOf(row);
  }

  /** @throws ApiProblem ASSET_UNKNOWN, or ASSET_IN_USE when a channel plays it */
  async remove(id: string): Promise<void> {
    await this.#changes.make(async (transaction) => {
      const removed = await transaction.deleteFrom('assets').where('id', '=', id).executeTakeFirst();
      if (removed.numDeletedRows === 0n) throw unknownAsset(id);
      // After the row is taken: who adds a channel has to lock the row first, so none slips in between.
      // What was on in the past does not count.
      const { rows: users } = await sql<{ channel: string }>`
        select channel from schedules where asset_ids @> array[${id}]::text[]
        union
        select channel from (
          select channel, loop, lead(start_ticks) over (partition by channel order by start_ticks) as end_ticks
          from runs
        ) as lasting join channels on name = channel
        where loop @> array[${id}]::text[] and (
          end_ticks is null
          or end_ticks / ${TIMELINE_HZ} > extract(epoch from ${new Date(this.#now())}::timestamptz - epoch)
        )
        order by channel`.execute(transaction);
      if (users.length > 0) {
        const names = users.map(({ channel }) => channel).join(', ');
        throw new ApiProblem(
          'ASSET_IN_USE',
          `Asset ${id} is played by: ${names}. Take it out of the schedule, or remove the channel.`,
        );
      }
    });
    this.#progress.delete(id);
    this.#logger.info({ asset: id }, 'asset removed');
  }

  /**
   * Takes a backend's report on an import. A repeated last report is taken again without effect.
   * @throws ApiProblem ASSET_UNKNOWN when it was removed meanwhile, or IMPORT_FINISHED
   */
  async report(id: string, report: ImportReport): Promise<void> {
    if (report.state === 'importing' || report.state === 'queued') {
      const { state } = await this.get(id);
      // Progress comes several times a second; the database hears of the first report only.
      if (state !== 'importing' || report.state !== 'importing') {
        const { numUpdatedRows } = await this.#changes.make((transaction) =>
          transaction
            .updateTable('assets')
            .set({ state: report.state, error: report.state === 'queued' ? report.error : null })
            .where('id', '=', id)
            .where('state', 'in', ['queued', 'importing'])
            .executeTakeFirst(),
        );
        if (numUpdatedRows === 0n) await this.#refuseReport(id, report);
      }
      if (report.state === 'importing') {
        this.#setProgress(id, report.progress);
        this.#peers.send('import-progress', { id, progress: report.progress });
      } else this.#progress.delete(id);
      return;
    }
    const { numUpdatedRows } = await this.#changes.make((transaction) =>
      transaction
        .updateTable('assets')
        .set(
          report.state === 'ready'
            ? { state: 'ready', error: null, facts: JSON.stringify(report.facts) }
            : { state: 'failed', error: report.error },
        )
        .where('id', '=', id)
        .where('state', 'in', ['queued', 'importing'])
        .executeTakeFirst(),
    );
    if (numUpdatedRows === 0n) return this.#refuseReport(id, report);
    this.#progress.delete(id);
    if (report.state === 'ready') this.#logger.info({ asset: id }, 'import finished');
    else this.#logger.warn({ asset: id, reason: report.error }, 'import failed');
  }

  async #refuseReport(id: string, report: ImportReport): Promise<void> {
    const asset = await this.get(id);
    if (asset.state !== report.state) throw await this.#finished(id);
  }

  async #finished(id: string): Promise<ApiProblem> {
    const { state } = await this.get(id);
    return new ApiProblem('IMPORT_FINISHED', `The import of asset ${id} has ended already: it is ${state}.`);
  }

  #setProgress(id: string, progress: number): void {
    this.#progress.set(id, progress);
    // An import that a peer told of may have ended with another one.
    const [oldest] = this.#progress.keys();
    if (this.#progress.size > MAX_IMPORTS && oldest !== undefined) this.#progress.delete(oldest);
  }

  #assetOf(row: Selectable<Tables['assets']>): Asset {
    return {
      id: row.id,
      name: row.name,
      source: row.source,
      state: row.state,
      progress: row.state === 'ready' ? 1 : (this.#progress.get(row.id) ?? 0),
      error: row.error,
      facts: row.facts,
      createdAt: row.created_at.toISOString(),
    };
  }
}

/** @throws ApiProblem REQUEST_INVALID when it depends on where it is read, or holds a password */
function checkSource(source: string): void {
  if (source === TEST_CARD_SOURCE || posix.isAbsolute(source)) return;
  if (!/^https?:/i.test(source) || !URL.canParse(source)) {
    throw new ApiProblem(
      'REQUEST_INVALID',
      `The source must be an absolute path or an http or https URL, not ${source}.`,
    );
  }
  const { username, password } = new URL(source);
  if (username !== '' || password !== '') {
    throw new ApiProblem(
      'REQUEST_INVALID',
      'A URL with a name or password in it is not taken: it would be stored.',
    );
  }
}

/** What an asset is called where nobody says: the last part of its source, without its ending. */
function nameOf(source: string): string {
  const path = URL.canParse(source) ? new URL(source).pathname : source;
  const name = posix.basename(path, posix.extname(path)).slice(0, 200) || 'asset';
  try {
    return path === source ? name : decodeURIComponent(name);
  } catch {
    return name; // not UTF-8
  }
}

/** Queues one import. */
export function insertAsset(
  transaction: Transaction,
  { source, name = nameOf(source) }: NewAsset,
  nowMs: number,
): Promise<Selectable<Tables['assets']>> {
  return transaction
    .insertInto('assets')
    .values({
      id: randomBytes(8).toString('hex'),
      name,
      state: 'queued',
      error: null,
      facts: null,
      source,
      attempt: 1,
      created_at: new Date(nowMs),
    })
    .returningAll()
    .executeTakeFirstOrThrow();
}

function unknownAsset(id: string): ApiProblem {
  return new ApiProblem('ASSET_UNKNOWN', `There is no asset ${id}.`);
}

/** The part of the state that is about assets. */
export async function readAssets(
  transaction: Transaction,
): Promise<Pick<BackendState, 'assets' | 'imports'>> {
  const rows = await transaction
    .selectFrom('assets')
    .select(['id', 'name', 'state', 'facts', 'source', 'attempt'])
    .where('state', 'not in', ['failed', 'cancelled'])
    .orderBy('created_at')
    .orderBy('id')
    .execute();
  return {
    assets: rows.flatMap(({ id, name, facts }) => (facts === null ? [] : [{ id, name, facts }])),
    imports: rows.flatMap(({ id, source, attempt, state }) =>
      state === 'ready' ? [] : [{ assetId: id, source, attempt }],
    ),
  };
}

/**
 * Finds assets, each by id or by name, and holds them until the transaction ends.
 * @param wanted the ids and names, each with what a problem with it begins with
 * @returns their ids, by what was asked for
 * @throws ApiProblem ASSET_UNKNOWN, ASSET_AMBIGUOUS or ASSET_NOT_READY
 */
export async function resolveAssets(
  transaction: Transaction,
  wanted: ReadonlyMap<string, string>,
): Promise<Map<string, string>> {
  const idsOrNames = [...wanted.keys()];
  const rows = await transaction
    .selectFrom('assets')
    .select(['id', 'name', 'state'])
    .where((where) =>
      where.or([
        where('id', '=', sql<string>`any(${idsOrNames})`),
        where('name', '=', sql<string>`any(${idsOrNames})`),
      ]),
    )
    .forShare()
    .execute();
  const resolved = new Map<string, string>();
  for (const [idOrName, where] of wanted) {
    const byId = rows.filter((row) => row.id === idOrName);
    const [asset, ...others] = byId.length > 0 ? byId : rows.filter((row) => row.name === idOrName);
    if (asset === undefined) {
      throw new ApiProblem('ASSET_UNKNOWN', `${where}There is no asset ${idOrName}.`);
    }
    if (others.length > 0) {
      const ids = [asset, ...others].map(({ id }) => id).join(', ');
      throw new ApiProblem(
        'ASSET_AMBIGUOUS',
        `${where}Several assets are named ${idOrName}. Give an id instead: ${ids}.`,
      );
    }
    if (asset.state !== 'ready') {
      throw new ApiProblem(
        'ASSET_NOT_READY',
        `${where}Asset ${idOrName} is ${asset.state}. A channel plays ready assets only.`,
      );
    }
    resolved.set(idOrName, asset.id);
  }
  return resolved;
}
