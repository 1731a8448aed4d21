/**
 * What a plan costs a month: a line for each thing that AWS puts on its bill, from the plan's own quantities, and
 * usage from a viewer model where one is given.
 */
import { type Plan, type Resource, resourcesOf } from '@starling/model/topology/plan';
import type { Price } from '@starling/model/topology/price';
import { type Discount, discounts, priceOf, priceRow } from './price-table.ts';
import type { Usage } from './viewers.ts';

/** What is billed together; the seed's review uses most of these words. */
export const categories = [
  ...['EC2', 'EBS', 'Fargate', 'RDS', 'Aurora', 'DynamoDB', 'ElastiCache', 'Load balancers', 'NAT gateway'],
  ...['Public IPv4', 'Data transfer', 'CloudFront', 'WAF', 'Route 53', 'Secrets and keys', 'Monitoring'],
  ...['GuardDuty', 'Storage', 'Lambda', 'API Gateway', 'MediaLive'],
] as const; // biome-ignore format: a list
export type Category = (typeof categories)[number];

export interface Line {
  /** Id of the resource in the plan; `usage` for what no resource has by itself. */
  readonly resource: string;
  readonly purpose: string;
  readonly category: Category;
  readonly key: string;
  /** Of a month. */
  readonly quantity: number;
  readonly unit: string;
  readonly monthlyUsd: number;
  readonly source: string;
  readonly verified: boolean;
  /** `plan`: it follows from the resource. `assumed`: from a month with little traffic. `viewers`: from the viewer model. */
  readonly basis: 'plan' | 'assumed' | 'viewers';
}

export interface Estimate {
  /** Dearest first within its category, in the order of the categories. */
  readonly lines: readonly Line[];
  /** The sum of `lines`. */
  readonly monthlyTotalUsd: number;
  /** The machines that carry the media of a serverless control plane, which is priced on its own; empty elsewhere. */
  readonly mediaLines: readonly Line[];
  /** The sum of `mediaLines`: comes on top of the total. */
  readonly mediaMonthlyUsd: number;
  /** Things of the plan that the table has no price for in this region. */
  readonly notPriced: readonly string[];
  /** Null without viewers. */
  readonly usdPerViewerHour: number | null;
}

export interface EstimateOptions {
  readonly usage?: Usage;
  readonly isPaused?: boolean;
  /** How much of the month it runs, 1 when left out: what is paused meanwhile is paid for as long as it runs. */
  readonly runningShare?: number;
  readonly term?: Discount['term'];
}

/** What no bill of a small deployment is without and no plan can know. */
export const neverPriced: readonly string[] = [
  'taxes and support plans',
  'the registration of the domain',
  // 4 Mb/s for 730 hours are 1,224 GB, at $0.01 each way.
  'traffic between availability zones; in a group each channel of 4 Mb/s costs $24 a month for each further host in another zone',
  'requests to KMS, S3, Secrets Manager and DNS',
  'backups beyond the size of the database',
  'surplus CPU credits of burstable instances: up to $0.05 an hour for each vCPU that encodes all day in unlimited mode',
];

/** @throws CostError COST_QUANTITY */
export function estimate(plan: Plan, options: EstimateOptions = {}): Estimate {
  const { region } = plan.deployment;
  const lines: Line[] = [];
  const media: Line[] = [];
  const notPriced = new Set<string>();
  const fromViewers = options.usage === undefined ? undefined : usageFor(plan, options.usage);
  const add = (
    resource: Pick<Resource, 'id' | 'purpose'>,
    price: Price,
    quantity: number,
    basis: Line['basis'],
  ) => {
    const row = priceRow(price.key, region);
    if (row === undefined) {
      notPriced.add(`${resource.id}: ${price.key} in ${region}`);
      return;
    }
    const line: Line = {
      resource: resource.id,
      purpose: resource.purpose,
      category: categoryOf(price.key),
      key: price.key,
      quantity,
      unit: price.key.slice(price.key.lastIndexOf('/') + 1),
      monthlyUsd: priceOf(row, quantity) * (1 - discountOf(price, options.term) / 100),
      source: row.source,
      verified: row.verified,
      basis,
    };
    (price.plane === 'media' ? media : lines).push(line);
  };
  const ofPlan: readonly [Pick<Resource, 'id' | 'purpose'> & Partial<Resource>, readonly Price[]][] = [
    ...plan.resources.map((one): [Resource, readonly Price[]] => [one, one.prices]),
    [{ id: 'usage', purpose: 'what no resource has by itself' }, plan.usage],
  ];
  for (const [resource, prices] of ofPlan) {
    for (const price of prices) {
      if (price.while === 'usage') {
        // The model speaks for the whole deployment, once.
        if (fromViewers?.has(price.key) !== true) add(resource, price, price.quantity, 'assumed');
      } else {
        add(resource, price, price.quantity * runningShareOf(resource, price, options), 'plan');
      }
    }
  }
  for (const [key, quantity] of fromViewers ?? []) {
    const price: Price = { key, quantity, while: 'usage', plane: 'all' };
    add({ id: 'viewers', purpose: 'what the viewers take' }, price, quantity, 'viewers');
  }
  const monthlyTotalUsd = sumOf(lines);
  const mediaMonthlyUsd = sumOf(media);
  const viewerHours = options.usage?.viewerHours ?? 0;
  return {
    lines: inOrder(lines),
    monthlyTotalUsd,
    mediaLines: inOrder(media),
    mediaMonthlyUsd,
    notPriced: [...notPriced],
    usdPerViewerHour: viewerHours === 0 ? null : (monthlyTotalUsd + mediaMonthlyUsd) / viewerHours,
  };
}

/** Dollars a month, by what is billed together; categories without a line are left out. */
export function byCategory(lines: readonly Line[]): ReadonlyMap<Category, number> {
  const sums = new Map<Category, number>();
  for (const line of lines) sums.set(line.category, (sums.get(line.category) ?? 0) + line.monthlyUsd);
  return sums;
}

function sumOf(lines: readonly Line[]): number {
  return lines.reduce((usd, line) => usd + line.monthlyUsd, 0);
}

function inOrder(lines: readonly Line[]): Line[] {
  return [...lines].sort(
    (a, b) => categories.indexOf(a.category) - categories.indexOf(b.category) || b.monthlyUsd - a.monthlyUsd,
  );
}

/** Only what the plan has something for: no firewall requests without a firewall. */
function usageFor(plan: Plan, usage: Usage): ReadonlyMap<string, number> {
  const hasCdn = resourcesOf(plan, 'distribution').length > 0;
  const has: Readonly<Record<string, boolean>> = {
    'alb/lcu-hour': resourcesOf(plan, 'load-balancer').some((one) => one.type === 'application'),
    'waf/million-requests': resourcesOf(plan, 'web-acl').length > 0,
  };
  return new Map([...(hasCdn ? usage.throughCdn : usage.direct)].filter(([key]) => has[key] !== false));
}

function runningShareOf(resource: Partial<Resource>, price: Price, options: EstimateOptions): number {
  const stops = resource.pause != null && resource.pause !== 'keeps-running';
  if (price.while === 'always' || !stops) return 1;
  return options.isPaused === true ? 0 : (options.runningShare ?? 1);
}

function discountOf(price: Price, term: Discount['term'] | undefined): number {
  if (term === undefined || price.while !== 'running') return 0;
  const service = price.key.slice(0, price.key.indexOf('/'));
  return discounts.find((one) => one.key === service && one.term === term)?.percent ?? 0;
}

const categoryOfService: Readonly<Record<string, Category>> = {
  ec2: 'EC2',
  ebs: 'EBS',
  fargate: 'Fargate',
  rds: 'RDS',
  aurora: 'Aurora',
  dynamodb: 'DynamoDB',
  elasticache: 'ElastiCache',
  alb: 'Load balancers',
  nlb: 'Load balancers',
  nat: 'NAT gateway',
  ipv4: 'Public IPv4',
  internet: 'Data transfer',
  cloudfront: 'CloudFront',
  waf: 'WAF',
  route53: 'Route 53',
  secret: 'Secrets and keys',
  kms: 'Secrets and keys',
  alarm: 'Monitoring',
  'detailed-monitoring': 'Monitoring',
  'container-insights': 'Monitoring',
  logs: 'Monitoring',
  guardduty: 'GuardDuty',
  s3: 'Storage',
  efs: 'Storage',
  lambda: 'Lambda',
  'http-api': 'API Gateway',
  medialive: 'MediaLive',
};

function categoryOf(key: string): Category {
  const category = categoryOfService[key.slice(0, key.indexOf('/'))];
  if (category === undefined) throw new Error(`no category for the price key ${key}`);
  return category;
}
