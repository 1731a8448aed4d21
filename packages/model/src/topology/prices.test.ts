/** The sums that were worked out by hand from AWS's price lists, and the plan's lines priced with the same prices. */
import { describe, expect, it } from 'vitest';
import { drawPlan } from './draw-plan.ts';
import type { Plan } from './plan.ts';
import type { Price } from './price.ts';

/** us-east-1, eu-west-1; US dollars. Free tiers count: CloudFront's first terabyte. */
const table: Record<string, readonly [number, number]> = {
  'ec2/t3.micro/hour': [0.0104, 0.0114],
  'ec2/t3.small/hour': [0.0208, 0.0228],
  'ec2/t3.medium/hour': [0.0416, 0.0456],
  'ebs/gp3/gb-month': [0.08, 0.088],
  'rds/postgres/db.t3.micro/hour': [0.018, 0.019],
  'rds/gp3/gb-month': [0.115, 0.127],
  'elasticache/redis/cache.t4g.micro/hour': [0.016, 0.017],
  'alb/hour': [0.0225, 0.0252],
  'alb/lcu-hour': [0.008, 0.008],
  'nlb/hour': [0.0225, 0.0252],
  'nat/hour': [0.045, 0.048],
  'ipv4/hour': [0.005, 0.005],
  'fargate/vcpu-hour': [0.04048, 0.04048],
  'fargate/gb-hour': [0.004445, 0.004445],
  'waf/acl-month': [5, 5],
  'waf/rule-month': [1, 1],
  'waf/million-requests': [0.6, 0.6],
  'route53/zone-month': [0.5, 0.5],
  'secret/month': [0.4, 0.4],
  'alarm/month': [0.1, 0.1],
  'detailed-monitoring/instance-month': [2.1, 2.1],
  'container-insights/metric-month': [0.3, 0.3],
  'logs/ingest-gb': [0.5, 0.57],
  'guardduty/million-events': [4, 4],
  'guardduty/log-gb': [1, 1],
  'kms/key-month': [1, 1],
  'efs/gb-month': [0.3, 0.33],
  's3/standard/gb-month': [0.023, 0.023],
  'aurora/acu-hour': [0.12, 0.14],
  'aurora/gb-month': [0.1, 0.11],
  'dynamodb/million-writes': [0.625, 0.705],
  'dynamodb/million-reads': [0.125, 0.1415],
  'lambda/million-requests': [0.2, 0.2],
  'lambda/gb-second': [0.0000166667, 0.0000166667],
  'http-api/million-requests': [1, 1.11],
  'cloudfront/out-gb': [0.085, 0.085],
  'medialive/channel-hour': [3.11, 3.11],
};
const regions = ['us-east-1', 'eu-west-1'] as const;

function sum(plan: Plan, region: number, counts: (price: Price) => boolean): number {
  const prices = [...plan.usage, ...plan.resources.flatMap((one) => one.prices)];
  return prices.filter(counts).reduce((total, { key, quantity }) => {
    const unit = table[key]?.[region];
    if (unit === undefined) throw new Error(`no price for ${key}`);
    const billed = key === 'cloudfront/out-gb' ? Math.max(0, quantity - 1024) : quantity;
    return total + billed * unit;
  }, 0);
}

describe('the sums of the profiles, US dollars a month', () => {
  it.each([
    ['classic-iptv', {}, [64.14, 69.57]],
    ['beta', {}, [64.8, 69.33]],
    ['gamma', {}, [76.49, 81.89]],
    ['production', {}, [139.22, 148.23]],
    ['production-containers', {}, [171.57, 179.47]],
    ['production-serverless', {}, [77.88, 87.41]],
    ['production-serverless', { aurora: { minAcu: 0 } }, [48.68, 53.34]],
  ] as const)('%s %o: within 1 %% of %o', (profile, settings, expected) => {
    for (const [index, region] of regions.entries()) {
      const plan = drawPlan({ profile, region, ...settings });
      const total = sum(plan, index, ({ plane }) => plane === 'all');
      expect(Math.abs(total / (expected[index] ?? 0) - 1), `${region}: ${total}`).toBeLessThan(0.01);
    }
  });

  it('beta, paused: within 1 % of 44.07 and 47.14', () => {
    for (const [index, expected] of [44.07, 47.14].entries()) {
      const plan = drawPlan({ profile: 'beta', region: regions[index] });
      const total = sum(plan, index, (price) => price.while !== 'running');
      expect(Math.abs(total / expected - 1), `${total}`).toBeLessThan(0.01);
    }
  });

  it('a NAT gateway adds its hours, and its and the second load balancer’s addresses', () => {
    const [without, with_] = [false, true].map((natGateway) =>
      sum(drawPlan({ profile: 'beta', region: 'us-east-1', natGateway }), 0, () => true),
    );
    // NAT 32.85, its address 3.65; NLB 16.425 and two addresses for it, instead of the host's own.
    expect((with_ ?? 0) - (without ?? 0)).toBeCloseTo(32.85 + 3.65 + 16.425 + 3.65, 2);
  });
});
