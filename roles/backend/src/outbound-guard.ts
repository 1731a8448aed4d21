/**
 * Keeps what an import fetches out of private networks: a URL may come from anywhere, and must not make
 * this machine ask its neighbours, itself or the cloud's metadata service. Names are resolved here, once per
 * connection, and the address that was checked is the one that is connected to.
 *
 * Source: the IANA special-purpose address registries (RFC 6890), and OWASP on server-side request forgery.
 */
import { lookup } from 'node:dns';
import { createServer, request as httpRequest } from 'node:http';
import { BlockList, connect, isIP, type LookupFunction, type Socket } from 'node:net';

const notPublic = new BlockList();
for (const [address, prefix] of [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.0.2.0', 24],
  ['192.88.99.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['198.51.100.0', 24],
  ['203.0.113.0', 24],
  ['224.0.0.0', 3],
] as const) {
  notPublic.addSubnet(address, prefix, 'ipv4');
}
const globalIpv6 = new BlockList();
globalIpv6.addSubnet('2000::', 3, 'ipv6');
/** Special, or carriers of an IPv4 address that could be anything. */
for (const [address, prefix] of [
  ['2001::', 23],
  ['2001:db8::', 32],
  ['2002::', 16],
] as const) {
  notPublic.addSubnet(address, prefix, 'ipv6');
}

/** True for an address that anyone on the internet could be at. */
export function isPublicAddress(address: string): boolean {
  if (isIP(address) === 4) return !notPublic.check(address, 'ipv4');
  return isIP(address) === 6 && globalIpv6.check(address, 'ipv6') && !notPublic.check(address, 'ipv6');
}

/** Says which addresses may be connected to. */
export type AddressFilter = (address: string) => boolean;

/** The URL leads where imports may not go. */
export class ForbiddenAddress extends Error {
  override readonly name = 'ForbiddenAddress';
}

/** Resolves like Node does, but fails with {@link ForbiddenAddress} where one of the addresses may not be connected to. */
export function guardedLookup(allows: AddressFilter): LookupFunction {
  return (hostname, options, callback) => {
    lookup(hostname, { ...options, all: true }, (error, addresses) => {
      const [first] = addresses ?? [];
      if (error) callback(error, '');
      else if (!first || !addresses.every(({ address }) => allows(address))) {
        callback(new ForbiddenAddress(hostname), '');
      } else if (options.all === true) callback(null, addresses);
      else callback(null, first.address, first.family);
    });
  };
}

/**
 * A host that is written as an address is never looked up, so it is checked by itself.
 * @throws ForbiddenAddress
 */
export function checkHost(hostname: string, allows: AddressFilter): void {
  const address = withoutBrackets(hostname);
  if (isIP(address) !== 0 && !allows(address)) throw new ForbiddenAddress(hostname);
}

function withoutBrackets(hostname: string): string {
  return hostname.replace(/^\[(.*)\]$/, '$1');
}

const MAX_CONNECTIONS = 32;
const IDLE_MS = 60_000;

export interface GuardProxy {
  /** For `http_proxy`. */
  readonly url: string;
  close(): Promise<void>;
}

/**
 * A proxy on the loopback for FFmpeg, which resolves names by itself: all that a playlist names goes through
 * the same check.
 *
 * Source: RFC 9110, sections 9.3.6 (CONNECT) and 7.2 (absolute form).
 */
export async function openGuardProxy(allows: AddressFilter): Promise<GuardProxy> {
  const guarded = guardedLookup(allows);
  const sockets = new Set<Socket>();
  const server = createServer((request, response) => {
    const fail = () => {
      if (response.headersSent) response.destroy();
      else response.writeHead(403).end();
    };
    try {
      const url = new URL(request.url ?? '');
      if (url.protocol !== 'http:' || (request.method !== 'GET' && request.method !== 'HEAD')) return fail();
      checkHost(url.hostname, allows);
      const upstream = httpRequest(
        url,
        {
          method: request.method,
          headers: { ...request.headers, connection: 'close' },
          lookup: guarded,
        },
        (answer) => {
          response.writeHead(answer.statusCode ?? 502, answer.headers);
          answer.on('error', fail).pipe(response);
        },
      );
      upstream.setTimeout(IDLE_MS, () => upstream.destroy()).on('error', fail);
      response.on('close', () => upstream.destroy());
      upstream.end();
    } catch {
      fail();
    }
  });
  server.on('connect', (request, client: Socket, head) => {
    const refuse = () => client.end('HTTP/1.1 403 Forbidden\r\n\r\n');
    client.on('error', () => client.destroy()).setTimeout(IDLE_MS, () => client.destroy());
    try {
      const [, hostname = '', port] = /^(.+):(\d{1,5})$/.exec(request.url ?? '') ?? [];
      checkHost(hostname, allows);
      const host = withoutBrackets(hostname);
      const target = connect({ host, port: Number(port), lookup: guarded });
      let isOpen = false;
      target.on('connect', () => {
        isOpen = true;
        client.write('HTTP/1.1 200 Connection established\r\n\r\n');
        target.write(head);
        client.pipe(target).pipe(client);
      });
      target.on('error', () => (isOpen ? client.destroy() : refuse()));
      target.setTimeout(IDLE_MS, () => target.destroy());
      target.on('close', () => client.destroySoon());
      client.on('close', () => target.destroy());
    } catch {
      refuse();
    }
  });
  server.maxConnections = MAX_CONNECTIONS;
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject).listen(0, '127.0.0.1', resolve);
  });
  const address = server.address();
  if (typeof address !== 'object' || address === null) throw new Error('the proxy has no port');
  return {
    url: `http://127.0.0.1:${address.port}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      }),
  };
}
