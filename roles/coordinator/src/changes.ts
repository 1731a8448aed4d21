/**
 * The one way to change what backends follow. Each change commits together with the next revision
 * number, so a reader that sees a revision sees every change up to it. Changes come one after another, those of
 * several coordinators on one database too: whoever has taken the number has the others wait.
 */
import { sql } from 'kysely';
import { actorSetting } from './audit.ts';
import { meetConditions } from './conditional-requests.ts';
import { CHANGE_CHANNEL, type Database, type Transaction } from './database.ts';

export class Changes {
  readonly #database: Pick<Database, 'kysely' | 'origin'>;
  readonly #listeners: Array<() => void> = [];

  constructor(database: Pick<Database, 'kysely' | 'origin' | 'onChangeElsewhere'>) {
    this.#database = database;
    database.onChangeElsewhere(() => this.#tell());
  }

  /** Calls `listener` after each change that has been committed, here or by another coordinator. */
  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  /** Runs `change` in a transaction. What it throws undoes it, and no revision is used up. */
  async make<T>(change: (transaction: Transaction) => Promise<T>): Promise<T> {
    const { kysely, origin } = this.#database;
    const result = await kysely.transaction().execute(async (transaction) => {
      // First, for the lock on the row. The others are told at the commit; the audit log is told whose change it is.
      const { rows } = await sql<{ revision: string }>`
        update settings set value = to_jsonb(value::bigint + 1) where name = 'revision'
        returning value::text as revision,
          pg_notify(${CHANGE_CHANNEL}, ${origin}), set_config('starling.actor', ${actorSetting()}, true)
      `.execute(transaction);
      await meetConditions(transaction, Number(rows[0]?.revision));
      return change(transaction);
    });
    this.#tell();
    return result;
  }

  #tell(): void {
    for (const listener of this.#listeners) listener();
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
