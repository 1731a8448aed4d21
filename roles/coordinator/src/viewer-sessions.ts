/**
 * The sessions of viewers, put together from what the frontends saw of them: a player of HLS asks several frontends under
 * one id, and is one session.
 */
import type { OwedStretches, ViewerSession, ViewerStretch } from '@starling/model/entities';
import { type Kysely, type Selectable, sql } from 'kysely';
import type { Logger } from 'pino';
import type { Static } from 'typebox';
import type { Tables, Transaction } from './database.ts';
import { type Page, type PageQuery, pageOf, pageRequestOf } from './page.ts';
import { takeOnce } from './spools.ts';

/** Stretches of one viewer that lie further apart are two sessions: ids of players without a session id come again. */
const MAX_GAP_MS = 60_000;
const KEEP_DAYS = 90;
const TIDY_EVERY_MS = 3600 * 1000;

export class ViewerSessions {
  readonly #db: Kysely<Tables>;
  readonly #logger: Logger;
  readonly #now: () => number;
  readonly #timer: NodeJS.Timeout;

  constructor(db: Kysely<Tables>, logger: Logger, now: () => number) {
    this.#db = db;
    this.#logger = logger;
    this.#now = now;
    this.#timer = setInterval(() => this.#tidy(), TIDY_EVERY_MS).unref();
  }

  /** @returns the number up to which the frontend owes nothing any more */
  async take({ spoolId, entries }: OwedStretches): Promise<number> {
    const last = entries.at(-1)?.sequence ?? 0;
    await this.#db.transaction().execute(async (transaction) => {
      const stretches = await takeOnce(transaction, spoolId, entries, new Date(this.#now()));
      for (const stretch of stretches) await add(transaction, stretch);
    });
    return last;
  }

  /**
   * Those that began last come first.
   * @param channel all channels when undefined
   * @throws ApiProblem REQUEST_INVALID for a cursor that is none
   */
  async list(
    query: Static<typeof PageQuery> & { readonly channel?: string | undefined },
  ): Promise<Page<ViewerSession>> {
    const { channel } = query;
    const request = pageRequestOf(query, ['started_at', 'number']);
    const { after } = request;
    const rows = await this.#db
      .selectFrom('viewer_sessions')
      .selectAll()
      .$if(channel !== undefined, (some) => some.where('channel', '=', channel ?? ''))
      .$if(after !== undefined, (some) =>
        some.where(sql<boolean>`(started_at, number) < (${after?.[0]}::timestamptz, ${after?.[1]}::int8)`),
      )
      .orderBy('started_at', 'desc')
      .orderBy('number', 'desc')
      .limit(request.rowLimit)
      .execute();
    return pageOf(rows, request, (row) => [row.started_at.toISOString(), row.number], sessionOf);
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #tidy(): void {
    const before = new Date(this.#now() - KEEP_DAYS * 24 * 3600 * 1000);
    const old = [
      this.#db.deleteFrom('viewer_sessions').where('started_at', '<', before).execute(),
      this.#db.deleteFrom('spools').where('last_at', '<', before).execute(),
    ];
    Promise.all(old).catch((error: unknown) =>
      this.#logger.warn({ err: error }, 'old sessions of viewers were not removed'),
    );
  }
}

/** Joins a stretch to the session that it is of, or makes it one. */
async function add(transaction: Transaction, stretch: ViewerStretch): Promise<void> {
  const from = new Date(stretch.fromUnixMs);
  const to = new Date(Math.max(stretch.fromUnixMs, stretch.toUnixMs));
  const known = await transaction
    .selectFrom('viewer_sessions')
    .select('number')
    .where('viewer_id', '=', stretch.viewerId)
    .where('channel', '=', stretch.channel)
    .where('ended_at', '>=', new Date(from.getTime() - MAX_GAP_MS))
    .where('started_at', '<=', new Date(to.getTime() + MAX_GAP_MS))
    .orderBy('number')
    .limit(1)
    .forUpdate()
    .executeTakeFirst();
  if (known === undefined) {
    await transaction
      .insertInto('viewer_sessions')
      .values({
        viewer_id: stretch.viewerId,
        channel: stretch.channel,
        protocol: stretch.protocol,
        token_id: stretch.tokenId,
        started_at: from,
        ended_at: to,
        sent_bytes: stretch.sentBytes,
      })
      .execute();
    return;
  }
  await transaction
    .updateTable('viewer_sessions')
    .set({
      started_at: sql`least(started_at, ${from})`,
      ended_at: sql`greatest(ended_at, ${to})`,
      sent_bytes: sql`sent_bytes + ${stretch.sentBytes}`,
    })
    .where('number', '=', known.number)
    .execute();
}

function sessionOf(row: Selectable<Tables['viewer_sessions']>): ViewerSession {
  return {
    viewerId: row.viewer_id,
    channel: row.channel,
    protocol: row.protocol,
    tokenId: row.token_id,
    startedAt: row.started_at.toISOString(),
    endedAt: row.ended_at.toISOString(),
    sentBytes: Number(row.sent_bytes),
  };
}
