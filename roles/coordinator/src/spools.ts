/** What nodes owe and send again until they hear that it was taken (`spool.ts` of the model): each entry counts once. */
import type { Transaction } from './database.ts';

/**
 * Of what a spool offers, what was not taken before. It counts as taken when the transaction is committed.
 * @param entries in the order of their numbers
 */
export async function takeOnce<T>(
  transaction: Transaction,
  spoolId: string,
  entries: readonly { readonly sequence: number; readonly value: T }[],
  now: Date,
): Promise<T[]> {
  const last = entries.at(-1);
  if (last === undefined) return [];
  await transaction
    .insertInto('spools')
    .values({ id: spoolId, last_sequence: 0, last_at: now })
    .onConflict((conflict) => conflict.column('id').doNothing())
    .execute();
  const { last_sequence } = await transaction
    .selectFrom('spools')
    .select('last_sequence')
    .where('id', '=', spoolId)
    .forUpdate()
    .executeTakeFirstOrThrow();
  const taken = Number(last_sequence);
  if (last.sequence > taken) {
    await transaction
      .updateTable('spools')
      .set({ last_sequence: last.sequence, last_at: now })
      .where('id', '=', spoolId)
      .execute();
  }
  return entries.filter(({ sequence }) => sequence > taken).map(({ value }) => value);
}
