/** An estimate as a page of its own: a chart, the lines, the scenarios. Nothing is loaded from elsewhere. */
import type { Plan } from '@starling/model/topology/plan';
import { byCategory, type Estimate, type Line, neverPriced } from './estimate.ts';
import { collectedOn } from './price-table.ts';
import type { Scenario } from './scenarios.ts';
import type { SeedRow } from './seed.ts';

export interface CostReport {
  readonly plan: Plan;
  readonly estimate: Estimate;
  readonly scenarios: readonly Scenario[];
  readonly seed: { readonly claimedUsd: number; readonly rows: readonly SeedRow[] } | null;
}

const BAR_HEIGHT_PX = 22;
const BAR_WIDTH_PX = 420;

export function toHtml({ plan, estimate, scenarios, seed }: CostReport): string {
  const { profile, region } = plan.deployment;
  const title = `What ${profile} costs in ${region}`;
  const total = estimate.monthlyTotalUsd + estimate.mediaMonthlyUsd;
  const perHour = estimate.usdPerViewerHour;
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>${escapeHtml(title)}</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 64rem; padding: 0 1rem; color: #1d2433; background: #fff }
  table { border-collapse: collapse; width: 100%; margin: 1rem 0 2rem }
  th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #dde; vertical-align: top }
  .number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
  .unverified::after { content: " *"; color: #b45309 }
  @media (prefers-color-scheme: dark) { body { color: #e6e9f2; background: #12151d } th, td { border-color: #2c3242 } svg text { fill: #e6e9f2 } }
</style>
<h1>${escapeHtml(title)}</h1>
<p><strong>${usd(total)}</strong> a month. Prices of ${collectedOn}; * has not been checked against its source.${
    perHour === null ? '' : ` ${usd(perHour, 5)} for each hour that somebody watches.`
  }</p>
${chart(byCategory([...estimate.lines, ...estimate.mediaLines]))}
<h2>Line by line</h2>
${linesTable(estimate.lines)}
${estimate.mediaLines.length === 0 ? '' : `<h2>The machines that carry the media</h2>\n${linesTable(estimate.mediaLines)}`}
<h2>Paid for in other ways</h2>
<table><tr><th>Way<th class="number">A month<th>Note</tr>
${scenarios.map(({ name, monthlyUsd, note }) => `<tr><td>${escapeHtml(name)}<td class="number">${usd(monthlyUsd)}<td>${escapeHtml(note)}</tr>`).join('\n')}
</table>
${seed === null ? '' : seedTable(seed, estimate.monthlyTotalUsd)}
<h2>Not in the sum</h2>
<ul>${[...estimate.notPriced, ...neverPriced].map((text) => `<li>${escapeHtml(text)}`).join('')}</ul>
</html>
`;
}

/** Dollars with so many decimals: `$64.14`. */
export function usd(amount: number, decimals = 2): string {
  return `${amount < 0 ? '-' : ''}$${Math.abs(amount).toFixed(decimals)}`;
}

function chart(sums: ReadonlyMap<string, number>): string {
  const bars = [...sums].filter(([, amount]) => amount > 0).sort((a, b) => b[1] - a[1]);
  const most = Math.max(...bars.map(([, amount]) => amount), 0.01);
  const rows = bars.map(([name, amount], index) => {
    const y = index * (BAR_HEIGHT_PX + 6);
    const width = Math.max(1, Math.round((amount / most) * BAR_WIDTH_PX));
    return `<text x="130" y="${y + 16}" text-anchor="end">${escapeHtml(name)}</text><rect x="140" y="${y}" width="${width}" height="${BAR_HEIGHT_PX}" rx="3" fill="#3b6fd4"/><text x="${148 + width}" y="${y + 16}">${usd(amount)}</text>`;
  });
  const height = bars.length * (BAR_HEIGHT_PX + 6);
  return `<svg role="img" aria-label="Dollars a month by service" viewBox="0 0 680 ${height}" width="680" style="max-width:100%;font-size:13px">${rows.join('')}</svg>`;
}

function linesTable(lines: readonly Line[]): string {
  const rows = lines.map(
    (line) =>
      `<tr><td>${line.category}<td>${escapeHtml(line.resource)}<td>${escapeHtml(line.purpose)}<td class="number">${formatQuantity(line.quantity)}<td>${escapeHtml(line.unit)}<td class="number${line.verified ? '' : ' unverified'}" title="${escapeHtml(line.source)}">${usd(line.monthlyUsd)}</tr>`,
  );
  return `<table><tr><th>Service<th>Resource<th>For<th class="number">Quantity<th>Unit<th class="number">A month</tr>\n${rows.join('\n')}\n</table>`;
}

function seedTable({ claimedUsd, rows }: NonNullable<CostReport['seed']>, oursUsd: number): string {
  const cells = rows.map(
    (row) =>
      `<tr><td>${escapeHtml(row.what)}<td class="number">${usd(row.seedUsd)}<td class="number">${usd(row.oursUsd)}<td class="number">${usd(row.oursUsd - row.seedUsd)}<td>${escapeHtml(row.why)}</tr>`,
  );
  return `<h2>Beside the review's figure</h2>
<p>The review says ${usd(claimedUsd)}; this plan is ${usd(oursUsd)}.</p>
<table><tr><th>What<th class="number">Review<th class="number">Plan<th class="number">Difference<th>Why</tr>
${cells.join('\n')}
</table>`;
}

/** At most three decimals, and no zeros at the end. */
export function formatQuantity(quantity: number): string {
  return String(Number(quantity.toFixed(3)));
}

function escapeHtml(text: string): string {
  return text.replace(
    /[&<>"]/g,
    (char) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[char] ?? char,
  );
}
