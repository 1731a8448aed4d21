/** `docs/cost.md`: what each profile costs, beside what the seeds said. A test holds the file against this. */
import type { ProfileName } from '@starling/model/topology/deployment';
import type { Plan } from '@starling/model/topology/plan';
import { estimate, neverPriced } from './estimate.ts';
import { usd } from './html.ts';
import { collectedOn } from './price-table.ts';
import { besideSeed, seedClaims, seedStages } from './seed.ts';

/** The regions that the document shows. */
export const documentRegions = ['us-east-1', 'eu-west-1'] as const;

/** @param plans of each profile, in each of {@link documentRegions} */
export function costDocument(plans: ReadonlyMap<ProfileName, readonly Plan[]>): string {
  const rows = [...plans].map(([profile, regional]) => {
    const prices = regional.flatMap((plan) => [
      estimate(plan).monthlyTotalUsd,
      estimate(plan, { isPaused: true }).monthlyTotalUsd,
    ]);
    const media = regional.map((plan) => estimate(plan).mediaMonthlyUsd);
    const claimed = seedStages[profile]?.claimedUsd;
    return tableRow([
      `\`${profile}\``,
      ...prices.map((price) => usd(price)),
      media[0] === 0 ? '' : media.map((price) => usd(price)).join(' / '),
      claimed === undefined ? '' : usd(claimed, 0),
    ]);
  });
  const stages = [...plans].flatMap(([profile, regional]) => {
    const stage = seedStages[profile];
    const plan = regional.find((one) => one.deployment.region === 'eu-west-1');
    if (stage === undefined || plan === undefined) return [];
    const ours = estimate(plan);
    const seedRows = besideSeed(profile, ours);
    const seedSum = seedRows.reduce((sum, row) => sum + row.seedUsd, 0);
    return [
      `### ${profile}`,
      '',
      ...(stage.sum === '' ? [] : [stage.sum, '']),
      '| what | review | plan, eu-west-1 | difference | why |',
      '| --- | ---: | ---: | ---: | --- |',
      ...seedRows.map((row) =>
        tableRow([row.what, usd(row.seedUsd), usd(row.oursUsd), usd(row.oursUsd - row.seedUsd), row.why]),
      ),
      tableRow([
        '**sum**',
        usd(seedSum),
        usd(ours.monthlyTotalUsd),
        usd(ours.monthlyTotalUsd - seedSum),
        seedSum === stage.claimedUsd ? '' : `The review gives ${usd(stage.claimedUsd)}.`,
      ]),
      '',
    ];
  });
  return `${[
    '# What it costs',
    '',
    `Dollars a month for each profile with its defaults, without viewers, from the plan and the price table of ${collectedOn}.`,
    'Nobody has compared it with an invoice. `npx starling cost --profile beta --region eu-west-1` prints every line with its',
    'source and says which prices have not been checked (`*`); `--viewers 100 --bitrate 4M --hours 120` adds what viewers take.',
    '',
    '| profile | us-east-1 | paused | eu-west-1 | paused | media machines, on top | the review |',
    '| --- | ---: | ---: | ---: | ---: | ---: | ---: |',
    ...rows,
    '',
    'The serverless profile is priced as the review describes it, the control plane alone; the machines without which it',
    'would take no RTMP and send no video come on top. Paused means what `starling pause` stops.',
    '',
    'Not in any sum:',
    '',
    ...neverPriced.map((text) => `- ${text}`),
    '',
    "## Beside the review's figures",
    '',
    ...stages,
    '## Other sums of the review',
    '',
    '| the review says | in truth |',
    '| --- | --- |',
    ...seedClaims.map(({ claim, check }) => tableRow([claim, check])),
  ].join('\n')}\n`;
}

function tableRow(cells: readonly string[]): string {
  return `| ${cells.join(' | ')} |`;
}
