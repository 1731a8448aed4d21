/** `starling cost`: what a deployment costs a month, line by line, before anything is deployed. */
import { writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { CostError } from '@starling/infra/cost/error';
import { byCategory, type Estimate, estimate, neverPriced } from '@starling/infra/cost/estimate';
import { formatQuantity, toHtml, usd } from '@starling/infra/cost/html';
import { collectedOn } from '@starling/infra/cost/price-table';
import { type Scenario, scenariosOf } from '@starling/infra/cost/scenarios';
import { besideSeed, seedStages } from '@starling/infra/cost/seed';
import { type Delivery, deliveries, type Usage, usageOf } from '@starling/infra/cost/viewers';
import { profiles } from '@starling/model/topology/deployment';
import type { Plan } from '@starling/model/topology/plan';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { addDeploymentOptions, type DeploymentOptions, planOfOptions } from '../deployment-options.ts';
import { type CommandContext, CommandError, type TextOutput } from '../io.ts';
import { examples, printJson, printTable } from '../output.ts';

interface CostOptions extends DeploymentOptions {
  readonly viewers?: number;
  readonly bitrate: number;
  readonly hours: number;
  readonly delivery: Delivery;
  readonly cdn?: boolean;
  readonly paused?: true;
  readonly compare?: string;
  readonly budget?: number;
  readonly html?: string;
}

interface Priced {
  readonly plan: Plan;
  readonly estimate: Estimate;
  readonly scenarios: readonly Scenario[];
}

export function addCostCommand(program: Command, { io, wantsJson }: CommandContext): void {
  addDeploymentOptions(program.command('cost'))
    .description('What a deployment costs a month, line by line.')
    .option('--viewers <count>', 'who watch at the same time, on average over the hours', parseNumber)
    .option('--bitrate <bits/s>', 'of what one viewer gets: 4M, 800k, 2500000', parseBitrate, 4_000_000)
    .option('--hours <hours>', 'of a month in which they watch, 744 at most', parseNumber, 730)
    .addOption(
      new Option('--delivery <protocol>', 'decides how many requests they make')
        .choices(deliveries)
        .default('hls'),
    )
    .option('--cdn', 'with CloudFront, whatever the profile says')
    .option('--no-cdn', 'without it')
    .option('--paused', 'while it is paused')
    .addOption(new Option('--compare <profile>', 'another profile beside it').choices(profiles))
    .option('--budget <usd>', 'exit with 1 when it costs more', parseNumber)
    .option('--html <file>', 'write a page with a chart')
    .addHelpText(
      'after',
      examples(
        'starling cost --profile beta --region eu-west-1',
        'starling cost --profile production --viewers 200 --bitrate 4M --hours 120 --compare production-containers',
        'starling cost --file deploy.yaml --budget 100 --html cost.html',
      ),
    )
    .action((options: CostOptions) => {
      try {
        priceIt(options);
      } catch (error) {
        if (error instanceof CostError) throw new CommandError(error.message);
        throw error;
      }
    });

  function priceIt(options: CostOptions): void {
    const changes = options.cdn === undefined ? {} : { cloudFront: options.cdn };
    const usage =
      options.viewers === undefined
        ? undefined
        : usageOf({
            viewers: options.viewers,
            bitrateBps: options.bitrate,
            hoursPerMonth: options.hours,
            delivery: options.delivery,
          });
    const priced = price(planOfOptions(io, options, changes), usage, options.paused === true);
    const other =
      options.compare === undefined
        ? undefined
        : price(
            planOfOptions(io, { profile: options.compare, region: priced.plan.deployment.region }),
            usage,
            options.paused === true,
          );
    const { profile } = priced.plan.deployment;
    const stage = seedStages[profile];
    const seed =
      stage === undefined || usage !== undefined || options.paused === true
        ? null
        : { claimedUsd: stage.claimedUsd, rows: besideSeed(profile, priced.estimate) };
    if (options.html !== undefined) {
      writeFileSync(resolve(io.cwd, options.html), toHtml({ ...priced, seed }));
    }
    if (wantsJson()) {
      printJson(io.stdout, { ...asJson(priced), seed, compare: other === undefined ? null : asJson(other) });
    } else {
      print(io.stdout, priced);
      if (seed !== null) {
        io.stdout.write(`\nBeside the review's figure, ${usd(seed.claimedUsd)}:\n`);
        printTable(
          io.stdout,
          ['WHAT', 'REVIEW', 'PLAN', 'DIFFERENCE', 'WHY'],
          seed.rows.map((row) => [
            row.what,
            usd(row.seedUsd),
            usd(row.oursUsd),
            usd(row.oursUsd - row.seedUsd),
            row.why,
          ]),
          '',
        );
      }
      if (other !== undefined) printComparison(io.stdout, priced, other);
    }
    const total = totalOf(priced);
    if (options.budget !== undefined && total > options.budget) {
      throw new CommandError(
        `${usd(total)} a month is ${usd(total - options.budget)} over the budget of ${usd(options.budget)}.`,
      );
    }
  }
}

function price(plan: Plan, usage: Usage | undefined, isPaused: boolean): Priced {
  return {
    plan,
    estimate: estimate(plan, { isPaused, ...(usage === undefined ? {} : { usage }) }),
    scenarios: scenariosOf(plan, usage),
  };
}

/** With the machines that carry the media. */
function totalOf({ estimate: { monthlyTotalUsd, mediaMonthlyUsd } }: Priced): number {
  return monthlyTotalUsd + mediaMonthlyUsd;
}

function asJson({ plan, estimate: ours, scenarios }: Priced) {
  const { profile, region } = plan.deployment;
  return { profile, region, pricesOf: collectedOn, ...ours, scenarios, notInTheSum: neverPriced };
}

function print(output: TextOutput, priced: Priced): void {
  const { plan, estimate: ours, scenarios } = priced;
  const { profile, region } = plan.deployment;
  output.write(`${profile} in ${region}, prices of ${collectedOn}\n\n`);
  printLines(output, ours.lines);
  output.write(`\n${usd(ours.monthlyTotalUsd)} a month\n`);
  if (ours.mediaLines.length > 0) {
    output.write('\nThe machines that carry the media, on top:\n');
    printLines(output, ours.mediaLines);
    output.write(`\n${usd(totalOf(priced))} a month in all\n`);
  }
  if (ours.usdPerViewerHour !== null) {
    output.write(`${usd(ours.usdPerViewerHour, 5)} for each hour that somebody watches\n`);
  }
  output.write('\nPaid for in other ways:\n');
  printTable(
    output,
    ['WAY', 'A MONTH', 'NOTE'],
    scenarios.map(({ name, monthlyUsd, note }) => [name, usd(monthlyUsd), note]),
    '',
  );
  output.write('\nNot in the sum:\n');
  for (const text of [...ours.notPriced, ...neverPriced]) output.write(`  - ${text}\n`);
  if ([...ours.lines, ...ours.mediaLines].some((line) => !line.verified)) {
    output.write('\n* has not been checked against a source; --json says where each price is from.\n');
  }
}

function printLines(output: TextOutput, lines: Estimate['lines']): void {
  printTable(
    output,
    ['SERVICE', 'RESOURCE', 'WHAT', 'QUANTITY', 'A MONTH'],
    lines.map((line) => [
      line.category,
      line.resource,
      line.key,
      `${formatQuantity(line.quantity)}${line.basis === 'assumed' ? ' (assumed)' : ''}`,
      `${usd(line.monthlyUsd)}${line.verified ? '' : ' *'}`,
    ]),
    'Nothing of it costs anything.',
  );
}

function printComparison(output: TextOutput, one: Priced, other: Priced): void {
  const [ours, theirs] = [one, other].map(({ estimate: { lines, mediaLines } }) =>
    byCategory([...lines, ...mediaLines]),
  );
  const names = [...new Set([...(ours?.keys() ?? []), ...(theirs?.keys() ?? [])])];
  output.write('\n');
  printTable(
    output,
    ['SERVICE', one.plan.deployment.profile, other.plan.deployment.profile, 'DIFFERENCE'],
    [
      ...names.map((name) => [name, ours?.get(name) ?? 0, theirs?.get(name) ?? 0] as const),
      ['in all', totalOf(one), totalOf(other)] as const,
    ].map(([name, left, right]) => [name, usd(left), usd(right), usd(right - left)]),
    '',
  );
}

function parseNumber(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value) || value < 0) {
    throw new InvalidArgumentError('It has to be a number that is not negative.');
  }
  return value;
}

/** `4M`, `800k` or bits a second. */
function parseBitrate(text: string): number {
  const [, digits, unit] = /^(\d+(?:\.\d+)?)([kM]?)$/.exec(text) ?? [];
  if (digits === undefined) throw new InvalidArgumentError('It has to be bits a second, such as 4M or 800k.');
  return Number(digits) * { k: 1e3, M: 1e6, '': 1 }[unit as 'k' | 'M' | ''];
}
