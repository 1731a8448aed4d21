/**
 * How often a caller may ask: per address, per account or token, and per route where the route says so.
 *
 * Headers: draft-ietf-httpapi-ratelimit-headers-06 (the fields that clients know), RFC 9110 section 10.2.3
 * (Retry-After).
 */
import { isIPv6 } from 'node:net';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Counters } from './counters.ts';
import { ApiProblem } from './problem.ts';

export interface Limit {
  readonly max: number;
  readonly windowMs: number;
}

/** The whole API, per address and per account. */
export const API_LIMIT: Limit = { max: 2000, windowMs: 300_000 };

export class RateLimits {
  readonly #counters: Counters;

  constructor(counters: Counters) {
    this.#counters = counters;
  }

  /**
   * Counts a request, and says in the headers of the answer what is left of the tightest limit so far.
   * @param key what is counted, for instance `address:203.0.113.7`
   * @throws ApiProblem RATE_LIMITED
   */
  async count(key: string, limit: Limit, reply: FastifyReply): Promise<void> {
    const { count, resetsInMs } = await this.#counters.add(key, limit.windowMs);
    const remaining = Math.max(0, limit.max - count);
    const resetSeconds = Math.ceil(resetsInMs / 1000);
    const known = reply.getHeader('ratelimit-remaining');
    if (known === undefined || remaining < Number(known)) {
      reply.header('ratelimit-limit', String(limit.max));
      reply.header('ratelimit-remaining', String(remaining));
      reply.header('ratelimit-reset', String(resetSeconds));
    }
    if (count > limit.max) {
      throw new ApiProblem(
        'RATE_LIMITED',
        `At most ${limit.max} requests in ${limit.windowMs / 1000} s. Try again in ${resetSeconds} s.`,
        { retryAfterSeconds: resetSeconds },
      );
    }
  }
}

/** Who shares a count: an IPv4 address, or the /64 network of an IPv6 address, which one household has. */
export function addressGroup(address: string): string {
  const plain = address.replace(/^::ffff:(?=\d+\.)/i, '');
  if (!isIPv6(plain)) return plain;
  const [head = '', tail] = (plain.split('%')[0] ?? plain).split('::');
  const groups = (text: string) => (text === '' ? [] : text.split(':'));
  const missing = 8 - groups(head).length - groups(tail ?? '').length;
  const all =
    tail === undefined ? groups(head) : [...groups(head), ...Array(missing).fill('0'), ...groups(tail)];
  return `${all
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(':')}::/64`;
}

/** Whether a request was made on this machine: every proxy on its way is on it too. */
export function isFromThisMachine({ ip, ips }: FastifyRequest): boolean {
  return (ips ?? [ip]).every((address) => /^(::ffff:)?127\.|^::1$/.test(address));
}
