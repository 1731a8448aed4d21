/**
 * What the StreamrP2P review said its stages cost, beside what their plan comes to, and where the difference lies.
 * The review counts $ a month in eu-west-1.
 */
import type { ProfileName } from '@starling/model/topology/deployment';
import { byCategory, type Category, type Estimate } from './estimate.ts';

interface SeedItem {
  readonly what: string;
  readonly usd: number;
  /** What of ours it stands for. */
  readonly categories: readonly Category[];
  /** Why ours differs. */
  readonly why: string;
}

interface SeedStage {
  /** The total that the review gives. */
  readonly claimedUsd: number;
  readonly pausedUsd: number | null;
  readonly items: readonly SeedItem[];
  /** What the review left out, by category, and why it is there. */
  readonly leftOut: Partial<Record<Category, string>>;
  /** What is wrong with its own sum; empty when it adds up. */
  readonly sum: string;
}

const CACHE = 'The review has half of what one cache.t4g.micro costs.';
const ADDRESSES = 'AWS bills each public IPv4 address since February 2024, those of load balancers too.';
const DISK = 'The disk of a machine is not in its hourly price.';
const leftOut: SeedStage['leftOut'] = {
  EBS: DISK,
  'Public IPv4': ADDRESSES,
  'Secrets and keys': 'The password of the database, and keys, are $0.40 and $1.00 each.',
  Monitoring: 'Logs, alarms and detailed metrics.',
  'Route 53': 'A hosted zone.',
  WAF: 'The firewall with its rules and requests.',
  GuardDuty: 'Threat detection, which the review recommends without a price.',
  CloudFront: 'The first terabyte a month is free.',
  Storage: 'Buckets and file systems.',
  EC2: 'The review has no machine for RTMP to come in: neither Fargate behind an HTTP load balancer nor Lambda takes it.',
  'Data transfer': 'The first 100 GB a month are free.',
};

export const seedStages: Partial<Record<ProfileName, SeedStage>> = {
  beta: {
    claimedUsd: 45,
    pausedUsd: 36,
    items: [
      {
        what: 'EC2 t3.micro',
        usd: 8.5,
        categories: ['EC2'],
        why: '730 hours at the list price; the disk is apart.',
      },
      {
        what: 'RDS db.t3.micro',
        usd: 13,
        categories: ['RDS'],
        why: 'With its 20 GB of storage, which the review left out.',
      },
      { what: 'ElastiCache', usd: 5.5, categories: ['ElastiCache'], why: CACHE },
      {
        what: 'ALB',
        usd: 16.2,
        categories: ['Load balancers'],
        why: 'The review has 720 hours in us-east-1 and no capacity units.',
      },
      {
        what: 'Data transfer',
        usd: 1.8,
        categories: ['Data transfer'],
        why: 'The first 100 GB a month are free.',
      },
    ],
    leftOut,
    sum: '',
  },
  gamma: {
    claimedUsd: 65,
    pausedUsd: null,
    items: [
      {
        what: 'EC2 t3.small',
        usd: 17,
        categories: ['EC2'],
        why: '730 hours at the list price; the disk is apart.',
      },
      { what: 'RDS db.t3.micro', usd: 13, categories: ['RDS'], why: 'With its 20 GB of storage.' },
      { what: 'ElastiCache', usd: 5.5, categories: ['ElastiCache'], why: CACHE },
      {
        what: 'ALB',
        usd: 16.2,
        categories: ['Load balancers'],
        why: 'Hours of us-east-1, and no capacity units.',
      },
      {
        what: 'Data transfer',
        usd: 1.8,
        categories: ['Data transfer'],
        why: 'The first 100 GB a month are free.',
      },
      { what: 'Route 53', usd: 0.5, categories: ['Route 53'], why: '' },
      { what: 'Enhanced monitoring', usd: 2, categories: ['Monitoring'], why: 'With alarms and flow logs.' },
    ],
    leftOut,
    sum: 'The items add up to $56.00 (+24 %), not to $65 (+44 %): $9.00 stand for nothing.',
  },
  production: {
    claimedUsd: 98,
    pausedUsd: null,
    items: [
      {
        what: 'EC2 t3.medium',
        usd: 33,
        categories: ['EC2'],
        why: '730 hours at the list price, one machine of the group.',
      },
      {
        what: 'RDS Multi-AZ',
        usd: 26,
        categories: ['RDS'],
        why: 'With 40 GB in two zones; backups of the same size are free.',
      },
      {
        what: 'ElastiCache cluster',
        usd: 11,
        categories: ['ElastiCache'],
        why: 'Two nodes, each twice the price that the review has.',
      },
      {
        what: 'ALB + WAF',
        usd: 20,
        categories: ['Load balancers', 'WAF'],
        why: 'More traffic, so more capacity units; the firewall alone is $8.80 with three rules.',
      },
      {
        what: 'CloudWatch',
        usd: 5,
        categories: ['Monitoring'],
        why: 'Logs, alarms and detailed metrics, counted one by one.',
      },
      {
        what: 'Backup storage',
        usd: 3,
        categories: ['Storage'],
        why: 'Backups up to the size of the database are free.',
      },
    ],
    leftOut,
    sum: '',
  },
  'production-containers': {
    claimedUsd: 115,
    pausedUsd: null,
    items: [
      { what: 'ECS Fargate', usd: 45, categories: ['Fargate'], why: 'Two tasks of half a vCPU and 1 GB.' },
      { what: 'RDS Multi-AZ', usd: 26, categories: ['RDS'], why: 'With 40 GB in two zones.' },
      {
        what: 'ElastiCache',
        usd: 11,
        categories: ['ElastiCache'],
        why: 'Two nodes, each twice the price that the review has.',
      },
      {
        what: 'ALB + CloudFront',
        usd: 25,
        categories: ['Load balancers', 'CloudFront'],
        why: 'RTMP needs a network load balancer beside it, which the review has not.',
      },
      {
        what: 'Monitoring',
        usd: 8,
        categories: ['Monitoring'],
        why: 'Logs, alarms and Container Insights, counted one by one.',
      },
    ],
    leftOut,
    sum: '',
  },
  'production-serverless': {
    claimedUsd: 50,
    pausedUsd: null,
    items: [
      {
        what: 'Lambda',
        usd: 5,
        categories: ['Lambda'],
        why: 'Five million requests of 100 ms with 256 MB come to less.',
      },
      {
        what: 'Aurora Serverless',
        usd: 15,
        categories: ['Aurora'],
        why: 'With the minimum of 0.5 capacity units that the review sets it never stops; $15 is what 8 hours a day cost with a minimum of 0.',
      },
      {
        what: 'DynamoDB',
        usd: 10,
        categories: ['DynamoDB'],
        why: 'On-demand prices were halved in November 2024.',
      },
      {
        what: 'API Gateway',
        usd: 8,
        categories: ['API Gateway'],
        why: 'Eight million requests; $1 a million in us-east-1, more elsewhere.',
      },
      {
        what: 'CloudFront',
        usd: 12,
        categories: ['CloudFront'],
        why: 'For 1.14 TB, of which the first is free.',
      },
    ],
    leftOut,
    sum: 'The control plane only: nothing in it takes RTMP in or makes a channel.',
  },
};

export interface SeedRow {
  readonly what: string;
  /** 0 for what the review left out. */
  readonly seedUsd: number;
  readonly oursUsd: number;
  readonly why: string;
}

/** Line by line; the rows of ours add up to the estimate's total. Empty for a profile that the review has not. */
export function besideSeed(profile: ProfileName, ours: Estimate): SeedRow[] {
  const stage = seedStages[profile];
  if (stage === undefined) return [];
  const rest = new Map(byCategory(ours.lines));
  const take = (category: Category) => {
    const usd = rest.get(category) ?? 0;
    rest.delete(category);
    return usd;
  };
  const rows = stage.items.map(({ what, usd, categories, why }) => ({
    what,
    seedUsd: usd,
    oursUsd: categories.map(take).reduce((sum, one) => sum + one, 0),
    why,
  }));
  for (const [category, usd] of rest) {
    if (usd === 0) continue;
    const why = stage.leftOut[category] ?? 'The review left it out.';
    rows.push({ what: category, seedUsd: 0, oursUsd: usd, why });
  }
  return rows;
}

/** Other figures of the review, checked. */
export const seedClaims: readonly { readonly claim: string; readonly check: string }[] = [
  {
    claim: 'Reserved instances: $540 (EC2) + $156 (RDS) = $696 a year, $209 saved',
    check:
      '$540 is the whole stack (12 x $45), so RDS is counted twice. EC2 and RDS are $258 a year; 30 % of that is $77.',
  },
  {
    claim: '8 hours a day: $38.53 a month, $77.64 a year saved',
    check:
      'A third of $8.50 for EC2 leaves $39.33, $68 a year. With RDS stopped as well it is $14.79 less a month.',
  },
  {
    claim: 'Paused: $36, $108 a year saved',
    check: '$45.00 - $8.50 is $36.50: $102. RDS can be stopped, too: $22 a month in all.',
  },
  {
    claim: 'No NAT gateway saves $45 a month',
    check: '$32.85 in us-east-1, $35.04 in eu-west-1, and $0.045 to $0.048 a GB.',
  },
  {
    claim: 'us-east-1 is 15 % cheaper, Mumbai 20 %',
    check: 'us-east-1: T3 8.8 %, ALB 10.7 %, Fargate nothing. Mumbai: T3 as in us-east-1 or dearer.',
  },
  {
    claim: 'Aurora Serverless is $15 and scales to zero with MinCapacity 0.5',
    check:
      '0.5 is a floor of $43.80 (us-east-1) or $51.10 a month. Only MinCapacity 0 stops; $14.60 when it does 16 hours a day.',
  },
  {
    claim: 'CloudFront saves 50 to 80 % of data transfer',
    check:
      'Of 1 TB a month all ($83); of 10 TB 14 % ($913 against $783), since both are tiered and begin alike.',
  },
  {
    claim: 'MediaLive + MediaStore',
    check:
      'MediaStore was shut down on 2025-11-13. MediaLive is $2,270 a month for one channel around the clock.',
  },
  {
    claim: 'Spot at 50 to 90 % off, with InstanceMarketOptions in AWS::EC2::Instance',
    check: 'The property exists in a launch template only; AWS refuses the template.',
  },
];
