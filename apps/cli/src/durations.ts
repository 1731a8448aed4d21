/** Times as people write them in arguments. */
import { InvalidArgumentError } from 'commander';

const UNIT_SECONDS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400 };

/** Of `90m`, `24h` or `30d`. @returns seconds */
export function parseDuration(text: string): number {
  const [, count, unit = ''] = /^(\d{1,9})([smhd])$/.exec(text) ?? [];
  const seconds = Number(count) * (UNIT_SECONDS[unit] ?? Number.NaN);
  if (!(seconds > 0)) throw new InvalidArgumentError('Give a time such as 90m, 24h or 30d.');
  return seconds;
}
