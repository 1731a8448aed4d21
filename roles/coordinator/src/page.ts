/**
 * Pages of long lists. A page begins after a row and not after a number of rows, so that it costs the same wherever it is,
 * and what is added or removed meanwhile neither repeats nor hides another item.
 */
import { type Static, type TSchema, Type } from 'typebox';
import { Check } from 'typebox/value';
import { ApiProblem } from './problem.ts';

const DEFAULT_LIMIT = 100;

export const PageQuery = Type.Object({
  limit: Type.Optional(
    Type.String({
      pattern: '^([1-9]\\d{0,2}|1000)$',
      description: `Items in the page, at most 1000; ${DEFAULT_LIMIT} when left out.`,
      examples: ['100'],
    }),
  ),
  cursor: Type.Optional(
    Type.String({
      maxLength: 1000,
      description: 'The `nextCursor` of the page before; left out for the first.',
    }),
  ),
});

export const Page = <T extends TSchema>(item: T) =>
  Type.Object({
    items: Type.Array(item),
    nextCursor: Type.Union([Type.String(), Type.Null()], { description: 'Null on the last page.' }),
  });

export interface Page<T> {
  items: T[];
  nextCursor: string | null;
}

/** What a page of rows is read with. */
export interface PageRequest {
  /** One more than the page has tells whether there is another. */
  readonly rowLimit: number;
  /** The key of the row that the page begins after; undefined for the first page. */
  readonly after: readonly string[] | undefined;
  /** Names the page. */
  readonly id: string;
}

const Key = Type.Array(Type.String());

/**
 * @param keyNames what the cursor is made of; times in ISO 8601 end in `_at`
 * @throws ApiProblem REQUEST_INVALID for a cursor that is of no page
 */
export function pageRequestOf(query: Static<typeof PageQuery>, keyNames: readonly string[]): PageRequest {
  const { limit = String(DEFAULT_LIMIT), cursor } = query;
  const request = { rowLimit: Number(limit) + 1, id: `${limit} ${cursor ?? ''}` };
  if (cursor === undefined) return { ...request, after: undefined };
  const after = decoded(cursor);
  const isKey =
    Check(Key, after) &&
    after.length === keyNames.length &&
    after.every((value, index) => !keyNames[index]?.endsWith('_at') || !Number.isNaN(Date.parse(value)));
  if (!isKey)
    throw new ApiProblem('REQUEST_INVALID', 'The cursor is not the nextCursor of a page of this list.');
  return { ...request, after };
}

/** @param keyOf of the row that the next page begins after */
export function pageOf<Row, Item>(
  rows: readonly Row[],
  { rowLimit }: PageRequest,
  keyOf: (row: Row) => readonly string[],
  itemOf: (row: Row) => Item,
): Page<Item> {
  const shown = rows.slice(0, rowLimit - 1);
  const last = shown.at(-1);
  const hasMore = rows.length >= rowLimit && last !== undefined;
  return {
    items: shown.map(itemOf),
    nextCursor: hasMore ? Buffer.from(JSON.stringify(keyOf(last))).toString('base64url') : null,
  };
}

function decoded(cursor: string): unknown {
  try {
    return JSON.parse(Buffer.from(cursor, 'base64url').toString());
  } catch {
    return undefined;
  }
}
