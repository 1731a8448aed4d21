/**
 * How often one address may ask, on all coordinators together. Each counts for itself and is told the sum of all (`peers.ts`)
 * a moment later, so that no request waits for the count of another machine.
 */
import { BlockList, isIP, isIPv6 } from 'node:net';
import type { FastifyInstance } from 'fastify';
import type { Peers } from './peers.ts';
import { ApiProblem } from './problem.ts';

const API_RULE: Rule = { name: 'api', maxRequests: 2000, windowMs: 300_000 };
const MINUTE_MS = 60_000;
/** That are remembered; the longest known make room. */
const MAX_ENTRIES = 65_536;

declare module 'fastify' {
  interface FastifyContextConfig {
    /** From one address; beside what holds for the whole API. */
    maxPerMinute?: number;
  }
}

interface Rule {
  readonly name: string;
  readonly maxRequests: number;
  readonly windowMs: number;
}

interface Entry {
  windowNumber: number;
  /** As far as is known here. */
  count: number;
}

const loopback = new BlockList();
loopback.addSubnet('127.0.0.0', 8, 'ipv4');
loopback.addAddress('::1', 'ipv6');

export class RateLimits {
  readonly #peers: Peers;
  readonly #now: () => number;
  readonly #entries = new Map<string, Entry>();

  constructor(peers: Peers, now: () => number) {
    this.#peers = peers;
    this.#now = now;
  }

  /**
   * Counts a request.
   * @returns how many the address has left in the window, below zero when it is one too many, and when the next begins
   */
  take(rule: Rule, address: string): { remaining: number; resetSeconds: number } {
    const key = `${rule.name}:${groupOf(address)}`;
    const windowNumber = Math.floor(this.#now() / rule.windowMs);
    let entry = this.#entries.get(key);
    if (entry === undefined) {
      entry = { windowNumber, count: 0 };
      this.#entries.set(key, entry);
      const [oldest] = this.#entries.keys();
      if (this.#entries.size > MAX_ENTRIES && oldest !== undefined) this.#entries.delete(oldest);
    }
    if (entry.windowNumber !== windowNumber) Object.assign(entry, { windowNumber, count: 0 });
    entry.count += 1;
    void this.#learnSum(entry, key, windowNumber, rule.windowMs);
    return {
      remaining: rule.maxRequests - entry.count,
      resetSeconds: Math.ceil(((windowNumber + 1) * rule.windowMs - this.#now()) / 1000),
    };
  }

  async #learnSum(entry: Entry, key: string, windowNumber: number, windowMs: number): Promise<void> {
    const sum = await this.#peers.count(key, windowNumber, windowMs);
    if (sum !== undefined && entry.windowNumber === windowNumber) entry.count = Math.max(entry.count, sum);
  }
}

/** A host has a whole network of IPv6 to itself, of 64 bits. */
function groupOf(address: string): string {
  if (!isIPv6(address)) return address;
  const [head = '', tail = ''] = address.split('::');
  const groups = (text: string) => text.split(':').filter((group) => group !== '');
  const known = [groups(head), groups(tail)] as const;
  const zeros = Math.max(0, 8 - known[0].length - known[1].length);
  return [...known[0], ...Array<string>(zeros).fill('0'), ...known[1]]
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16))
    .join(':');
}

/**
 * Counts the requests to the routes that are registered on `app` from now on, once it is known who calls. The network's own
 * machines and programs on this one are not counted.
 */
export function limitRoutes(app: FastifyInstance, limits: RateLimits): void {
  app.addHook('onRequest', async (request, reply) => {
    const { caller, routeOptions } = request;
    // A socket of both families gives IPv4 as `::ffff:192.0.2.1`.
    const ip = request.ip.replace(/^::ffff:(?=\d+\.)/i, '');
    if (!routeOptions.url?.startsWith('/api/')) return;
    if (caller === 'node' || isIP(ip) === 0 || loopback.check(ip, isIPv6(ip) ? 'ipv6' : 'ipv4')) return;
    const { maxPerMinute } = routeOptions.config;
    const rules = [API_RULE];
    if (maxPerMinute !== undefined) {
      const name = `${request.method} ${routeOptions.url}`;
      rules.push({ name, maxRequests: maxPerMinute, windowMs: MINUTE_MS });
    }
    for (const rule of rules) {
      const { remaining, resetSeconds } = limits.take(rule, ip);
      reply.headers({
        'ratelimit-limit': rule.maxRequests,
        'ratelimit-remaining': Math.max(0, remaining),
        'ratelimit-reset': resetSeconds,
      });
      if (remaining >= 0) continue;
      reply.header('retry-after', resetSeconds);
      throw new ApiProblem('TOO_MANY_REQUESTS', `Too many requests. Try again in ${resetSeconds} s.`);
    }
  });
}
