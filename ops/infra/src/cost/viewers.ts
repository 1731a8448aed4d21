/**
 * From viewers to what AWS counts: gigabytes, requests, load-balancer capacity units.
 *
 * A gigabyte on an AWS bill is 2^30 bytes. An application load balancer's capacity unit (LCU) is, by the hour, the
 * largest of 25 new connections a second, 3,000 open ones, 1 GB processed, 1,000 rule evaluations a second; of a
 * network load balancer (TCP), 800 new flows a second, 100,000 open ones, 1 GB.
 * Source: aws.amazon.com/elasticloadbalancing/pricing.
 */
import { CostError } from './error.ts';

export interface ViewerModel {
  /** Watching at the same time, on average over the hours. */
  readonly viewers: number;
  /** Of what one viewer gets. */
  readonly bitrateBps: number;
  /** Of a month in which they watch, 744 at most. */
  readonly hoursPerMonth: number;
  readonly delivery: Delivery;
}
/** `hls`: segments of 2 s. `ll-hls`: parts of 0.4 s, a playlist with each. `flv`: one response without end. */
export const deliveries = ['hls', 'll-hls', 'flv'] as const;
export type Delivery = (typeof deliveries)[number];

export interface Usage {
  readonly viewerHours: number;
  /** What viewers get. */
  readonly deliveredGb: number;
  readonly requests: number;
  /** By price key, for a deployment whose viewers come to the load balancer or host itself. */
  readonly direct: ReadonlyMap<string, number>;
  /** The same with a CDN before it. */
  readonly throughCdn: ReadonlyMap<string, number>;
}

const GB_BYTES = 2 ** 30;
const MAX_HOURS = 744;
/** One media playlist and one segment each 2 s; one of each every 0.4 s; one request an hour, for those who come and go. */
const REQUESTS_PER_HOUR: Readonly<Record<Delivery, number>> = { hls: 3600, 'll-hls': 18_000, flv: 1 };
/** Edges ask through regional caches; two of them carry most of one region's viewers. */
const CDN_CACHES = 2;

/** @throws CostError COST_VIEWERS */
export function usageOf(model: ViewerModel): Usage {
  const { viewers, bitrateBps, hoursPerMonth, delivery } = model;
  check('viewers', viewers, 0, 10_000_000);
  check('bitrate', bitrateBps, 1000, 200_000_000);
  check('hours', hoursPerMonth, 0, MAX_HOURS);
  const viewerHours = viewers * hoursPerMonth;
  const gbPerViewerHour = ((bitrateBps / 8) * 3600) / GB_BYTES;
  const deliveredGb = viewerHours * gbPerViewerHour;
  const requests = viewerHours * REQUESTS_PER_HOUR[delivery];
  // Connections live for a whole programme; what is processed is what decides.
  const lcuHours = (gbPerHour: number, connections: number) =>
    hoursPerMonth * Math.max(gbPerHour, connections / 3000);
  const originViewers = Math.min(viewers, CDN_CACHES);
  const originGbPerHour = originViewers * gbPerViewerHour;
  return {
    viewerHours,
    deliveredGb,
    requests,
    direct: new Map([
      ['internet/out-gb', deliveredGb],
      ['alb/lcu-hour', lcuHours(viewers * gbPerViewerHour, viewers)],
      ['waf/million-requests', requests / 1e6],
    ]),
    throughCdn: new Map([
      ['cloudfront/out-gb', deliveredGb],
      ['cloudfront/10k-requests', requests / 1e4],
      ['alb/lcu-hour', lcuHours(originGbPerHour, originViewers)],
      ['waf/million-requests', requests / 1e6],
    ]),
  };
}

function check(what: string, value: number, least: number, most: number): void {
  if (Number.isFinite(value) && value >= least && value <= most) return;
  throw new CostError('COST_VIEWERS', `${what}: ${value} has to be from ${least} to ${most}.`);
}
