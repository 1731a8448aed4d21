/**
 * Expected values: Infracost's golden files for single resources, AWS's pricing pages for tiers, and sums that were
 * worked out by hand for each profile.
 */

import { type ProfileName, profiles } from '@starling/model/topology/deployment';
import { drawPlan } from '@starling/model/topology/draw-plan';
import { describe, expect, it } from 'vitest';
import { costDocument, documentRegions } from '../../src/cost/document.ts';
import { estimate } from '../../src/cost/estimate.ts';
import { toHtml } from '../../src/cost/html.ts';
import { priceOf, priceRow } from '../../src/cost/price-table.ts';
import prices from '../../src/cost/prices.json' with { type: 'json' };
import { scenariosOf } from '../../src/cost/scenarios.ts';
import { besideSeed, seedStages } from '../../src/cost/seed.ts';
import { usageOf } from '../../src/cost/viewers.ts';

function cost(key: string, region: string, quantity: number): number {
  const row = priceRow(key, region);
  if (row === undefined) throw new Error(`no price for ${key}`);
  return Number(priceOf(row, quantity).toFixed(2));
}

describe('the price table', () => {
  it.each([
    ['alb/hour', 730, 16.43],
    ['nat/hour', 730, 32.85],
    ['ipv4/hour', 730, 3.65],
    ['rds/postgres/db.t3.micro/hour', 730, 13.14],
    ['waf/acl-month', 1, 5],
    ['waf/million-requests', 1, 0.6],
  ])('has %s as Infracost has it', (key, quantity, usd) => {
    expect(cost(key, 'us-east-1', quantity)).toBe(usd);
  });

  it('adds up a Fargate task of one vCPU and 2 GB as Infracost does', () => {
    expect(
      cost('fargate/vcpu-hour', 'us-east-1', 730) + cost('fargate/gb-hour', 'us-east-1', 1460),
    ).toBeCloseTo(36.04, 2);
  });

  it.each([
    ['internet/out-gb', 100, 0],
    ['internet/out-gb', 1024, 83.16],
    ['internet/out-gb', 10_240, 912.6],
    ['internet/out-gb', 51_200, 4394.2],
    ['cloudfront/out-gb', 1024, 0],
    ['cloudfront/out-gb', 10_240, 783.36],
  ])('prices %s in tiers: %d GB', (key, quantity, usd) => {
    expect(cost(key, 'us-east-1', quantity)).toBe(usd);
  });

  it('has one row for each key and region, with a source', () => {
    const names = prices.rows.map((row) => `${row.region} ${row.key}`);
    expect(new Set(names).size).toBe(names.length);
    for (const row of prices.rows) expect(row.source.length, row.key).toBeGreaterThan(3);
  });

  it('refuses a quantity that is none', () => {
    expect(() => cost('alb/hour', 'us-east-1', -1)).toThrow('is not a quantity');
  });
});

// Worked out from AWS's prices and each profile's resources, apart from this program.
const sums: Readonly<Record<string, readonly [us: number, eu: number]>> = {
  'classic-iptv': [64.14, 69.57],
  beta: [64.8, 69.33],
  'beta paused': [44.07, 47.14],
  gamma: [76.49, 81.89],
  production: [139.22, 148.23],
  'production-containers': [171.57, 179.47],
  'production-serverless': [77.88, 87.41],
  'production-serverless, Aurora from 0': [48.68, 53.34],
};

describe('each profile', () => {
  for (const [name, regional] of Object.entries(sums)) {
    it.each(documentRegions.map((region, index) => [region, regional[index] ?? 0] as const))(
      `costs what ${name} comes to in %s, within 1 %%`,
      (region, usd) => {
        const profile = name.split(/[ ,]/)[0];
        const aurora = name.endsWith('from 0') ? { aurora: { minAcu: 0 } } : {};
        const ours = estimate(drawPlan({ profile, region, ...aurora }), {
          isPaused: name.endsWith('paused'),
        });
        expect(ours.monthlyTotalUsd / usd).toBeGreaterThan(0.99);
        expect(ours.monthlyTotalUsd / usd).toBeLessThan(1.01);
        expect(ours.notPriced).toEqual([]);
      },
    );
  }

  it.each(profiles)('%s: the lines add up to the total', (profile) => {
    const ours = estimate(drawPlan({ profile, region: 'eu-west-1' }));
    const sum = ours.lines.reduce((usd, line) => usd + line.monthlyUsd, 0);
    expect(ours.monthlyTotalUsd).toBeCloseTo(sum, 6);
  });

  it.each(profiles)('%s: costs less when it is paused, and a schedule lies between', (profile) => {
    const ways = scenariosOf(drawPlan({ profile, region: 'eu-west-1' }), undefined);
    const of = (name: string) => ways.find((way) => way.name === name)?.monthlyUsd ?? Number.NaN;
    expect(of('paused')).toBeLessThan(of('8 h x 5 d'));
    expect(of('8 h x 5 d')).toBeLessThan(of('8 h x 7 d'));
    expect(of('8 h x 7 d')).toBeLessThan(of('around the clock'));
    expect(of('reserved, 1 year')).toBeLessThan(of('around the clock'));
    expect(of('8 h x 5 d')).toBeCloseTo(
      of('paused') + (of('around the clock') - of('paused')) * (40 / 168),
      6,
    );
  });

  it.each(Object.keys(seedStages) as ProfileName[])(
    '%s: the rows beside the review add up to both sums, and each difference has a reason',
    (profile) => {
      const ours = estimate(drawPlan({ profile, region: 'eu-west-1' }));
      const rows = besideSeed(profile, ours);
      expect(rows.reduce((sum, row) => sum + row.oursUsd, 0)).toBeCloseTo(ours.monthlyTotalUsd, 6);
      for (const row of rows) {
        if (Math.abs(row.oursUsd - row.seedUsd) >= 0.5) expect(row.why, row.what).not.toBe('');
      }
    },
  );

  it('says what it has no price for', () => {
    const plan = drawPlan({
      profile: 'classic-iptv',
      region: 'eu-west-1',
      instanceTypes: { backend: 'm7i.large' },
    });
    const ours = estimate(plan);
    expect(ours.notPriced).toEqual([expect.stringContaining('ec2/m7i.large/hour in eu-west-1')]);
  });
});

describe('viewers', () => {
  it('are bytes, requests and capacity units', () => {
    // 100 viewers at 4 Mb/s: 0.05 GB (10^9) a second, 180 GB an hour, 167.6 of 2^30 bytes.
    const usage = usageOf({ viewers: 100, bitrateBps: 4e6, hoursPerMonth: 10, delivery: 'hls' });
    expect(usage.deliveredGb).toBeCloseTo((0.05e9 * 3600 * 10) / 2 ** 30, 6);
    expect(usage.viewerHours).toBe(1000);
    // A playlist and a segment each two seconds.
    expect(usage.requests).toBe(100 * 10 * 3600);
    expect(usage.direct.get('alb/lcu-hour')).toBeCloseTo(usage.deliveredGb, 6);
  });

  it('cost the traffic of the machines, or the tiers of the CDN', () => {
    const usage = usageOf({ viewers: 10, bitrateBps: 4e6, hoursPerMonth: 500, delivery: 'hls' });
    const price = (cloudFront: boolean) =>
      estimate(drawPlan({ profile: 'production', region: 'us-east-1', cloudFront }), { usage });
    const line = (of: ReturnType<typeof price>, key: string) =>
      of.lines.find((one) => one.key === key)?.monthlyUsd;
    // 8,382 GB: (8,382 - 100) x 0.09 and (8,382 - 1,024) x 0.085.
    expect(line(price(false), 'internet/out-gb')).toBeCloseTo((usage.deliveredGb - 100) * 0.09, 4);
    expect(line(price(false), 'cloudfront/out-gb')).toBeUndefined();
    expect(line(price(true), 'cloudfront/out-gb')).toBeCloseTo((usage.deliveredGb - 1024) * 0.085, 4);
    expect(line(price(true), 'internet/out-gb')).toBeUndefined();
    expect(price(true).usdPerViewerHour).toBeCloseTo(price(true).monthlyTotalUsd / 5000, 9);
  });

  it.each([
    { viewers: -1, bitrateBps: 4e6, hoursPerMonth: 1 },
    { viewers: 1, bitrateBps: 0, hoursPerMonth: 1 },
    { viewers: 1, bitrateBps: 4e6, hoursPerMonth: 800 },
  ])('are refused where they cannot be: %o', (model) => {
    expect(() => usageOf({ ...model, delivery: 'hls' })).toThrow(/has to be from/);
  });
});

it('the page has a bar for each service and escapes what it shows', () => {
  const plan = drawPlan({ profile: 'beta', region: 'eu-west-1' });
  const html = toHtml({
    plan,
    estimate: estimate(plan),
    scenarios: scenariosOf(plan, undefined),
    seed: null,
  });
  expect(html).toMatch(/<svg[\s\S]*RDS[\s\S]*<\/svg>/);
  expect(html).not.toMatch(/<script|https?:\/\//);
});

it('docs/cost.md says what the program says', async () => {
  const plans = new Map(
    profiles.map((profile) => [profile, documentRegions.map((region) => drawPlan({ profile, region }))]),
  );
  await expect(costDocument(plans)).toMatchFileSnapshot('../../../../docs/cost.md');
});
