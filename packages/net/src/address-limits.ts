/**
 * What one address may hold and ask for over HTTP, and whose address a request comes from when proxies
 * stand between.
 */
import { BlockList, isIP, isIPv6 } from 'node:net';

export interface HttpLimits {
  /** Open at the same time. */
  readonly maxConnectionsPerAddress: number;
  /** In the long run. */
  readonly maxRequestsPerSecondPerAddress: number;
  /** At once, after a pause. */
  readonly maxRequestBurstPerAddress: number;
}

/**
 * An office or a household is one address. A low-latency HLS player sends 5 requests a second for each
 * rendition that it plays, and a browser opens at most six connections; so a hundred of them fit.
 */
export const defaultHttpLimits: HttpLimits = {
  maxConnectionsPerAddress: 1000,
  maxRequestsPerSecondPerAddress: 1000,
  maxRequestBurstPerAddress: 3000,
};

/** Trusted without being told: a proxy on the same machine. */
export const LOOPBACK = ['127.0.0.0/8', '::1/128'] as const;

/** Addresses that are remembered; the longest known make room. */
const MAX_ADDRESSES = 65_536;
const MAX_VERDICTS = 4096;

interface Usage {
  connections: number;
  /** Requests that may come now, as of `countedAtMs`. */
  requests: number;
  countedAtMs: number;
}

export class AddressLimits {
  readonly #limits: HttpLimits;
  readonly #trusted = new BlockList();
  #trustedForNow: ReadonlySet<string> = new Set();
  /** What the list said of an address: asking it costs more than all the rest of a request's count. */
  readonly #verdicts = new Map<string, boolean>();
  readonly #usage = new Map<string, Usage>();

  /**
   * @param trustedProxies CIDR blocks whose word on the client's address counts; they have no limits themselves
   * @throws RangeError when one is not a CIDR block
   */
  constructor(limits: HttpLimits, trustedProxies: readonly string[]) {
    this.#limits = limits;
    for (const block of trustedProxies) {
      const [, address = '', prefix = ''] = /^([^/]+)(?:\/(\d{1,3}))?$/.exec(block) ?? [];
      const bits = isIPv6(address) ? 128 : 32;
      if (isIP(address) === 0 || Number(prefix) > bits) {
        throw new RangeError(`${block} is not an address or a CIDR block such as 10.0.0.0/8.`);
      }
      this.#trusted.addSubnet(address, prefix === '' ? bits : Number(prefix), familyOf(address));
    }
  }

  /** Trusts these addresses too, and those of the last call no longer. */
  trust(addresses: readonly string[]): void {
    this.#trustedForNow = new Set(addresses.map(normalised));
    this.#verdicts.clear();
  }

  isTrusted(address: string): boolean {
    const known = this.#verdicts.get(address);
    if (known !== undefined) return known;
    const verdict =
      isIP(address) !== 0 &&
      (this.#trusted.check(address, familyOf(address)) || this.#trustedForNow.has(normalised(address)));
    if (this.#verdicts.size >= MAX_VERDICTS) this.#verdicts.clear();
    this.#verdicts.set(address, verdict);
    return verdict;
  }

  /**
   * The client's address: the peer's, or what a trusted peer says in X-Forwarded-For. Each proxy adds its
   * peer at the right, so the right-most address that is not a trusted proxy's is the last one to believe.
   */
  clientAddress(peerAddress: string | undefined, forwardedFor: string | undefined): string {
    let client = normalised(peerAddress ?? 'unknown');
    if (forwardedFor === undefined) return client;
    for (const entry of forwardedFor.split(',').reverse()) {
      if (!this.isTrusted(client)) break;
      const address = normalised(withoutPort(entry.trim()));
      if (isIP(address) === 0) break;
      client = address;
    }
    return client;
  }

  /**
   * Counts a connection in; `closed` is to follow, whatever the answer.
   * @returns `refuse` when it is one too many; `drop` when as many again wait to be told so
   */
  opened(peerAddress: string): 'accept' | 'refuse' | 'drop' {
    if (this.isTrusted(peerAddress)) return 'accept';
    const usage = this.#usageOf(peerAddress);
    usage.connections++;
    const { maxConnectionsPerAddress } = this.#limits;
    if (usage.connections <= maxConnectionsPerAddress) return 'accept';
    return usage.connections <= 2 * maxConnectionsPerAddress ? 'refuse' : 'drop';
  }

  closed(peerAddress: string): void {
    const usage = this.#usage.get(limitKey(peerAddress));
    if (usage !== undefined && usage.connections > 0) usage.connections--;
  }

  /**
   * Counts a request: a token bucket.
   * @returns undefined when it may be answered, else in how many seconds there is room for one
   */
  request(clientAddress: string, nowMs: number): number | undefined {
    if (this.isTrusted(clientAddress)) return undefined;
    const { maxRequestsPerSecondPerAddress: perSecond, maxRequestBurstPerAddress: burst } = this.#limits;
    const usage = this.#usageOf(clientAddress);
    const earned = Math.max(0, ((nowMs - usage.countedAtMs) / 1000) * perSecond);
    usage.requests = Math.min(burst, usage.requests + earned);
    usage.countedAtMs = nowMs;
    if (usage.requests < 1) return Math.ceil((1 - usage.requests) / perSecond);
    usage.requests--;
    return undefined;
  }

  /** Forgets who holds nothing and has its whole burst again; to be called every few seconds. */
  sweep(nowMs: number): void {
    const { maxRequestsPerSecondPerAddress: perSecond, maxRequestBurstPerAddress: burst } = this.#limits;
    for (const [key, { connections, requests, countedAtMs }] of this.#usage) {
      const isWhole = requests + ((nowMs - countedAtMs) / 1000) * perSecond >= burst;
      if (connections === 0 && isWhole) this.#usage.delete(key);
    }
  }

  /** Addresses that are remembered now. */
  get addressCount(): number {
    return this.#usage.size;
  }

  #usageOf(address: string): Usage {
    const key = limitKey(address);
    const known = this.#usage.get(key);
    if (known !== undefined) return known;
    if (this.#usage.size >= MAX_ADDRESSES) this.#forgetOne();
    const usage = {
      connections: 0,
      requests: this.#limits.maxRequestBurstPerAddress,
      countedAtMs: Number.NEGATIVE_INFINITY,
    };
    this.#usage.set(key, usage);
    return usage;
  }

  /** Open connections are far fewer than what is remembered, so one without is soon found. */
  #forgetOne(): void {
    for (const [key, { connections }] of this.#usage) {
      if (connections > 0) continue;
      this.#usage.delete(key);
      return;
    }
  }
}

function familyOf(address: string): 'ipv4' | 'ipv6' {
  return isIPv6(address) ? 'ipv6' : 'ipv4';
}

/** IPv4 as IPv4 where a socket for both shows it as ::ffff:192.0.2.1; without the zone of a link-local address. */
function normalised(address: string): string {
  return address.replace(/^::ffff:(?=\d+\.)/i, '').replace(/%.*$/, '');
}

/** Some proxies write `192.0.2.1:50000` and `[2001:db8::1]:50000`. */
function withoutPort(entry: string): string {
  return /^\[([^\]]+)\](?::\d+)?$/.exec(entry)?.[1] ?? /^([\d.]+):\d+$/.exec(entry)?.[1] ?? entry;
}

/** Whom the limits count as one: an IPv4 address, or a network of IPv6, since a subscriber gets at least a /64. */
export function limitKey(address: string): string {
  const plain = normalised(address);
  if (!isIPv6(plain)) return plain;
  const [head = '', tail] = plain.split('::');
  const groups = (text: string) => (text === '' ? [] : text.split(':'));
  const before = groups(head);
  const after = groups(tail ?? '');
  const zeros = Array.from({ length: Math.max(0, 8 - before.length - after.length) }, () => '0');
  return [...before, ...zeros, ...after]
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(':');
}
