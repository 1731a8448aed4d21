/**
 * What a price table can price: a key and how much of it a month has. The table (by region) and the engine are the
 * cost command's; the plan says only what there is.
 */

/** Hours of a month, as AWS counts: 365 x 24 / 12. */
export const HOURS_PER_MONTH = 730;

export interface Price {
  /**
   * What is priced, with its unit at the end: `ec2/t3.micro/hour`, `ebs/gp3/gb-month`, `rds/postgres/db.t3.micro/hour`,
   * `rds/gp3/gb-month`, `elasticache/redis/cache.t4g.micro/hour`, `alb/hour`, `alb/lcu-hour`, `nlb/hour`,
   * `nlb/lcu-hour`, `nat/hour`, `ipv4/hour`, `fargate/vcpu-hour`, `fargate/gb-hour`, `waf/acl-month`,
   * `waf/rule-month`, `waf/million-requests`, `route53/zone-month`, `secret/month`, `alarm/month`,
   * `detailed-monitoring/instance-month`, `container-insights/metric-month`, `logs/ingest-gb`,
   * `guardduty/million-events`, `guardduty/log-gb`, `kms/key-month`, `efs/gb-month`, `s3/standard/gb-month`,
   * `aurora/acu-hour`, `aurora/gb-month`, `dynamodb/million-writes`, `dynamodb/million-reads`,
   * `lambda/million-requests`, `lambda/gb-second`, `http-api/million-requests`, `cloudfront/out-gb`,
   * `medialive/channel-hour`.
   */
  readonly key: string;
  /** A month, running all the time, in the unit of the key. */
  readonly quantity: number;
  /**
   * `running`: gone while its resource is paused. `always`: paid while paused, too.
   * `usage`: an assumption that a viewer model replaces.
   */
  readonly while: 'running' | 'always' | 'usage';
  /**
   * The review prices its serverless stage without what carries media: the host, its address, MediaLive and the
   * firewall before it are `media`.
   */
  readonly plane: 'all' | 'media';
}

/** Paid by the hour while it runs. */
export function perHour(key: string, count = 1): Price {
  return { key, quantity: count * HOURS_PER_MONTH, while: 'running', plane: 'all' };
}

/** Paid whether it runs or not. */
export function always(key: string, quantity: number): Price {
  return { key, quantity, while: 'always', plane: 'all' };
}

/** Assumed for a month without viewers' traffic. */
export function assumed(key: string, quantity: number): Price {
  return { key, quantity, while: 'usage', plane: 'all' };
}
