/**
 * The leases of coordinators that share a database: one table for all of them, read, changed and written back by each. The
 * server's clock counts, so that theirs need not agree (docs/decisions/047-hosts-of-a-group.md).
 */
import type { HeldLease, LeaseGrants, LeaseWish } from '@starling/model/lease';
import type { NodeState } from '@starling/model/node';
import { type Kysely, sql } from 'kysely';
import { DatabaseUnavailable, type Tables } from './database.ts';
import { type Leases, LeaseTable, type StoredLeases } from './lease-table.ts';

/** Another coordinator came between reading and writing; backends ask about once a second, so hardly ever twice. */
const MAX_TRIES = 20;

export class SharedLeases implements Leases {
  readonly #db: Kysely<Tables>;

  private constructor(db: Kysely<Tables>) {
    this.#db = db;
  }

  /** @throws DatabaseUnavailable */
  static async open(db: Kysely<Tables>): Promise<SharedLeases> {
    const leases = new SharedLeases(db);
    await leases.list(); // the first time makes the table, before anybody waits for it
    return leases;
  }

  /** @throws DatabaseUnavailable when the table cannot be read or written: holders go on as they were */
  renew(
    nodeId: string,
    wishes: readonly LeaseWish[],
    standingOf: (nodeId: string) => NodeState,
  ): Promise<LeaseGrants> {
    return this.#change((table) => table.renew(nodeId, wishes, standingOf));
  }

  async release(nodeId: string): Promise<void> {
    await this.#change((table) => table.release(nodeId));
  }

  async list(): Promise<HeldLease[]> {
    return (await this.#read()).table.list();
  }

  async #change<T>(change: (table: LeaseTable) => T): Promise<T> {
    for (let tries = 0; tries < MAX_TRIES; tries++) {
      const { table, version } = await this.#read();
      const result = change(table);
      const { numUpdatedRows } = await this.#db
        .updateTable('leases')
        .set({ table: JSON.stringify(table.stored()), version: sql`version + 1` })
        .where('version', '=', version)
        .executeTakeFirst();
      if (numUpdatedRows === 1n) return result;
    }
    throw new DatabaseUnavailable('Too many coordinators write the leases at once.');
  }

  async #read(): Promise<{ table: LeaseTable; version: string }> {
    const { rows } = await sql<{ table: StoredLeases | null; version: string | null; now_ms: string }>`
      select "table", version, floor(extract(epoch from clock_timestamp()) * 1000)::int8 as now_ms
        from (select 1) as one left join leases on true`.execute(this.#db);
    const { table = null, version = null, now_ms = '0' } = rows[0] ?? {};
    const nowMs = Number(now_ms);
    if (table !== null && version !== null) return { table: LeaseTable.restore(table, () => nowMs), version };
    // The first time, and after a crash of the server: then nothing is free until holders had time to say so.
    const first = JSON.stringify(new LeaseTable(nowMs, () => nowMs).stored());
    await this.#db
      .insertInto('leases')
      .values({ id: 1, table: first, version: 1 })
      .onConflict((conflict) => conflict.column('id').doNothing())
      .execute();
    return this.#read();
  }
}
