/**
 * One POST to an address that the operator named. It follows no redirect, takes no more of the answer than
 * its status, and goes nowhere that only machines of a cloud have reason to ask: see {@link isForbidden}.
 */
import { type LookupAddress, lookup as lookupName } from 'node:dns';
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { BlockList, isIP, type LookupFunction } from 'node:net';

const TIMEOUT_MS = 10_000;

const forbidden = new BlockList();
// Link-local addresses: cloud providers answer there with the credentials of the machine.
forbidden.addSubnet('169.254.0.0', 16, 'ipv4');
forbidden.addSubnet('fe80::', 10, 'ipv6');
forbidden.addAddress('fd00:ec2::254', 'ipv6');
// "This host", multicast and broadcast are no addresses of a server.
forbidden.addSubnet('0.0.0.0', 8, 'ipv4');
forbidden.addSubnet('224.0.0.0', 3, 'ipv4');
forbidden.addAddress('::', 'ipv6');
forbidden.addSubnet('ff00::', 8, 'ipv6');

/**
 * Whether nothing is ever sent to an IP address. Private and loopback addresses are allowed: a home has its
 * receivers there, and only the operator can name an address.
 */
export function isForbidden(address: string): boolean {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1];
  if (mapped !== undefined) return isForbidden(mapped);
  const family = isIP(address);
  return family === 0 || forbidden.check(address, family === 6 ? 'ipv6' : 'ipv4');
}

/** Looks a name up; asked at the moment of the connection, so that no second answer can be another one. */
const guardedLookup: LookupFunction = (hostname, options, callback) => {
  lookupName(hostname, { ...options, all: true }, (error, addresses: LookupAddress[]) => {
    if (error !== null) return callback(error, '', 0);
    const allowed = addresses.filter(({ address }) => !isForbidden(address));
    const [first] = allowed;
    if (first === undefined) return callback(new Error('the address is not allowed'), '', 0);
    if (options.all === true) callback(null, allowed);
    else callback(null, first.address, first.family);
  });
};

export interface PostResult {
  /** Undefined where there was no answer. */
  readonly status: number | undefined;
  /** For people: the status, or why there is none. */
  readonly outcome: string;
}

/** Posts a text. Never rejects. */
export function post(
  url: string,
  body: string,
  options: { headers: Record<string, string>; signal: AbortSignal },
): Promise<PostResult> {
  const { protocol, hostname } = new URL(url);
  const host = hostname.replace(/^\[|\]$/g, '');
  if (isIP(host) !== 0 && isForbidden(host)) {
    return Promise.resolve({ status: undefined, outcome: 'the address is not allowed' });
  }
  return new Promise((resolve) => {
    const signal = AbortSignal.any([options.signal, AbortSignal.timeout(TIMEOUT_MS)]);
    const request = (protocol === 'https:' ? httpsRequest : httpRequest)(
      url,
      {
        method: 'POST',
        agent: false,
        lookup: guardedLookup,
        signal,
        headers: { ...options.headers, 'content-length': Buffer.byteLength(body), connection: 'close' },
      },
      (response) => {
        const status = response.statusCode;
        resolve({ status, outcome: `HTTP ${status}` });
        response.destroy();
      },
    );
    request.on('error', (error: NodeJS.ErrnoException) => {
      const isLate = signal.aborted && !options.signal.aborted;
      resolve({
        status: undefined,
        outcome: isLate ? `no answer within ${TIMEOUT_MS / 1000} s` : (error.code ?? error.message),
      });
    });
    request.end(body);
  });
}
