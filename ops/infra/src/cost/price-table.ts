/**
 * What AWS asks for a unit of something, in US dollars, by region: a dated table, each row with its source and
 * whether somebody has checked it against that source. `prices.json` is the whole of it.
 */
import { CostError } from './error.ts';
import prices from './prices.json' with { type: 'json' };

export interface PriceRow {
  /** As in the plan's `Price.key`: `ec2/t3.micro/hour`. */
  readonly key: string;
  readonly region: string;
  /** Dollars for one unit; the last one of a tiered price. */
  readonly usd: number;
  /** What a month's units cost, in order: the first up to `upTo`, the next from there; null is without end. */
  readonly tiers: readonly PriceTier[];
  readonly source: string;
  readonly verified: boolean;
}
export interface PriceTier {
  readonly upTo: number | null;
  readonly usd: number;
}

/** What a promise of a year, or taking what is spare, saves of what runs. */
export interface Discount {
  /** First part of the keys that it holds for: `ec2`. */
  readonly key: string;
  readonly term: 'reserved-1-year' | 'spot';
  readonly percent: number;
  readonly source: string;
  readonly verified: boolean;
}

/** When the prices were gathered, `2026-11-21`. */
export const collectedOn: string = prices.collectedOn;
export const discounts = prices.discounts as readonly Discount[];

const rows = new Map<string, PriceRow>();
for (const row of prices.rows as readonly (Omit<PriceRow, 'usd' | 'tiers'> & Partial<PriceRow>)[]) {
  const tiers = row.tiers ?? [{ upTo: null, usd: row.usd ?? 0 }];
  rows.set(`${row.region} ${row.key}`, { ...row, tiers, usd: tiers.at(-1)?.usd ?? 0 });
}

/** @returns undefined when the table has no price for it */
export function priceRow(key: string, region: string): PriceRow | undefined {
  return rows.get(`${region} ${key}`) ?? rows.get(`* ${key}`);
}

/**
 * What so many units of a month cost.
 * @throws CostError COST_QUANTITY for a quantity that is none
 */
export function priceOf(row: PriceRow, quantity: number): number {
  if (!Number.isFinite(quantity) || quantity < 0) {
    throw new CostError('COST_QUANTITY', `${row.key}: ${quantity} is not a quantity.`);
  }
  let usd = 0;
  let from = 0;
  for (const tier of row.tiers) {
    const upTo = Math.min(quantity, tier.upTo ?? Number.POSITIVE_INFINITY);
    if (upTo > from) usd += (upTo - from) * tier.usd;
    from = Math.max(from, upTo);
  }
  return usd;
}
