/**
 * The audit log: every change that somebody asks for, written by the database itself in the transaction of the
 * change (triggers of migration `013-access`), so that no noun can forget it. What this file adds is who it was.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import type { ActorKind, AuditEntry, AuditPage } from '@starling/model/account';
import { type Kysely, type Selectable, sql } from 'kysely';
import type { Logger } from 'pino';
import { meetConditions } from './conditional-requests.ts';
import type { Tables, Transaction } from './database.ts';
import { ApiProblem } from './problem.ts';

/** Who asks for a change, and from where. */
export interface Actor {
  readonly kind: ActorKind;
  readonly name: string;
  readonly address: string | null;
  /** Method and route. */
  readonly request: string | null;
}

const MAX_PAGE = 1000;
const DEFAULT_PAGE = 100;
/** The trigger of the table lets nothing go that is younger. */
const KEEP_DAYS = 400;
const TIDY_EVERY_MS = 24 * 3600 * 1000;

const actors = new AsyncLocalStorage<Actor>();

/** Runs `work`; the changes that it makes, now or after it has waited, are `actor`'s. */
export function actAs<T>(actor: Actor, work: () => T): T {
  return actors.run(actor, work);
}

/**
 * Who is behind the changes of a transaction, as the triggers read it; empty for the network itself, whose work (a
 * schedule drawn up further, an import that gets on) is not in the log.
 */
export function actorSetting(): string {
  const actor = actors.getStore();
  return actor === undefined ? '' : JSON.stringify(actor);
}

/** A transaction whose changes are in the audit log, for what the other roles do not follow. */
export function auditedTransaction<T>(
  db: Kysely<Tables>,
  change: (transaction: Transaction) => Promise<T>,
): Promise<T> {
  return db.transaction().execute(async (transaction) => {
    await sql`select set_config('starling.actor', ${actorSetting()}, true)`.execute(transaction);
    await meetConditions(transaction);
    return change(transaction);
  });
}

export interface AuditFilter {
  readonly actor?: string | undefined;
  readonly noun?: string | undefined;
  readonly target?: string | undefined;
  readonly since?: Date | undefined;
  readonly until?: Date | undefined;
  /** From the page before. */
  readonly cursor?: string | undefined;
  readonly limit?: number | undefined;
}

export class Audit {
  readonly #db: Kysely<Tables>;
  readonly #logger: Logger;
  readonly #timer: NodeJS.Timeout;

  constructor(db: Kysely<Tables>, logger: Logger) {
    this.#db = db;
    this.#logger = logger;
    this.#timer = setInterval(() => this.#tidy(), TIDY_EVERY_MS);
    this.#timer.unref();
  }

  /** Newest first. @throws ApiProblem REQUEST_INVALID for a cursor that is none */
  async list(filter: AuditFilter): Promise<AuditPage> {
    const { actor, noun, target, since, until, cursor } = filter;
    const limit = Math.min(filter.limit ?? DEFAULT_PAGE, MAX_PAGE);
    if (cursor !== undefined && !/^\d{1,15}$/.test(cursor))
      throw new ApiProblem('REQUEST_INVALID', 'The cursor is none that a page of the audit log gave.');
    let query = this.#db.selectFrom('audit_entries').selectAll();
    if (actor !== undefined) query = query.where('actor', '=', actor);
    if (noun !== undefined) query = query.where('noun', '=', noun);
    if (target !== undefined) query = query.where('target', '=', target);
    if (since !== undefined) query = query.where('at', '>=', since);
    if (until !== undefined) query = query.where('at', '<', until);
    if (cursor !== undefined) query = query.where('number', '<', cursor);
    const rows = await query
      .orderBy('number', 'desc')
      .limit(limit + 1)
      .execute();
    const items = rows.slice(0, limit).map(entryOf);
    return { items, nextCursor: rows.length > limit ? String(items.at(-1)?.number) : null };
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #tidy(): void {
    this.#db
      .deleteFrom('audit_entries')
      .where('at', '<', sql<Date>`now() - make_interval(days => ${sql.lit(KEEP_DAYS)}) - interval '1 hour'`)
      .execute()
      .catch((error: unknown) => this.#logger.warn({ err: error }, 'old audit entries were not removed'));
  }
}

/** Writes down what is no change of a table: how a login went. */
export async function recordLogin(
  transaction: Transaction,
  verb: 'succeeded' | 'failed' | 'locked' | 'ended',
  target: string,
): Promise<void> {
  const actor = actors.getStore();
  await transaction
    .insertInto('audit_entries')
    .values({
      actor_kind: actor?.kind ?? 'anonymous',
      actor: actor?.name ?? '',
      address: actor?.address ?? null,
      request: actor?.request ?? null,
      noun: 'login',
      verb,
      target,
      before: null,
      after: null,
    })
    .execute();
}

function entryOf(row: Selectable<Tables['audit_entries']>): AuditEntry {
  return {
    number: Number(row.number),
    at: row.at.toISOString(),
    actorKind: row.actor_kind,
    actor: row.actor,
    address: row.address,
    request: row.request,
    noun: row.noun,
    verb: row.verb,
    target: row.target,
    before: row.before,
    after: row.after,
  };
}
