/**
 * The one way to change what backends follow. Each change commits together with the next revision
 * number, so a reader that sees a revision sees every change up to it.
 */
import { type Kysely, sql } from 'kysely';
import { actorSetting } from './audit.ts';
import type { Tables, Transaction } from './database.ts';

export class Changes {
  readonly #db: Kysely<Tables>;
  readonly #listeners: Array<() => void> = [];

  constructor(db: Kysely<Tables>) {
    this.#db = db;
  }

  /** Calls `listener` after each change that has been committed. */
  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  /** Runs `change` in a transaction. What it throws undoes it, and no revision is used up. */
  async make<T>(change: (transaction: Transaction) => Promise<T>): Promise<T> {
    const result = await this.#db.transaction().execute(async (transaction) => {
      // Says in the same breath whose change it is, for the audit log.
      await sql`
        update settings set value = to_jsonb(value::bigint + 1) where name = 'revision'
        returning set_config('starling.actor', ${actorSetting()}, true)`.execute(transaction);
      return change(transaction);
    });
    for (const listener of this.#listeners) listener();
    return result;
  }
}

/** The number of the last change; it never goes back, a restart included. */
export async function readRevision(transaction: Transaction): Promise<number> {
  const { value } = await transaction
    .selectFrom('settings')
    .select('value')
    .where('name', '=', 'revision')
    .executeTakeFirstOrThrow();
  return Number(value);
}
