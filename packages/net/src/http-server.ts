/** An HTTP server that faces the world: deadlines, bounds, limits for each address, the log. */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, ServerResponse } from 'node:http';
import { type AddressInfo, Socket } from 'node:net';
import type { Logger } from 'pino';
import { AddressLimits, defaultHttpLimits, type HttpLimits, LOOPBACK } from './address-limits.ts';
import { RefusalLog } from './refusal-log.ts';
import { isWebSocketRequest, refuseUpgrade } from './websocket.ts';

export type RequestHandler = (request: IncomingMessage, response: ServerResponse) => void;
/** @returns false when the path is not the handler's */
type UpgradeHandler = (request: IncomingMessage, socket: Socket, head: Uint8Array) => boolean;

export interface HttpListener {
  readonly port: number;
  readonly server: Server;
  /** Trusts these addresses of proxies, beside those that it was opened with, and those of the last call no longer. */
  trust(addresses: readonly string[]): void;
  /** Stops listening and cuts off what is open. */
  close(): Promise<void>;
}

/** What one address had too many of. */
export type HttpRefusal = 'connections' | 'requests';

export interface HttpOptions {
  readonly limits?: Partial<HttpLimits>;
  /** CIDR blocks of proxies: no limits for themselves, and they say whose requests they bring. Loopback when undefined. */
  readonly trustedProxies?: readonly string[] | undefined;
  /** Hears of each connection or request that the limits refuse. */
  readonly onRefused?: ((reason: HttpRefusal) => void) | undefined;
}

/**
 * Up to here a socket's queue counts as drained: what is written to it at once, a batch of a stream or a
 * segment, is mostly below, and costs no `drain` event.
 */
const HIGH_WATER_MARK_BYTES = 1024 * 1024;

/** Of the request line and the headers together; a longer one is answered 431. */
export const MAX_HEAD_BYTES = 16 * 1024;
/** That a request may announce; a longer one is answered 413 unread. */
export const MAX_BODY_BYTES = 1024 * 1024;
/** Who is refused its connection has so long to hear it. */
const REFUSED_CONNECTION_MS = 2000;
const SWEEP_MS = 10_000;

/**
 * Opens a port for HTTP.
 * @param address all addresses when `host` is undefined; a free port when `port` is 0
 * @throws the system's error, for instance EADDRINUSE; RangeError when a trusted proxy is not a CIDR block
 */
export async function listenHttp(
  address: { readonly host?: string | undefined; readonly port: number },
  logger: Logger,
  handle: RequestHandler,
  handleUpgrade: UpgradeHandler,
  options: HttpOptions = {},
): Promise<HttpListener> {
  const gate = new Gate(logger, options);
  const server = createServer(
    {
      connectionsCheckingInterval: 5000,
      maxHeaderSize: MAX_HEAD_BYTES,
      highWaterMark: HIGH_WATER_MARK_BYTES,
    },
    (request, response) => {
      if (gate.letIn(request, response)) handle(request, response);
    },
  );
  harden(server, logger);
  server.on('connection', (socket) => gate.count(socket));
  server.on('upgrade', (request, socket, head) => {
    if (!(socket instanceof Socket)) return void socket.destroy();
    socket.on('error', () => socket.destroy());
    if (!isWebSocketRequest(request)) return answerWithoutUpgrade(request, socket, gate, handle);
    const retryAfterSeconds = gate.take(request);
    if (retryAfterSeconds !== undefined) {
      return refuseUpgrade(socket, '429 Too Many Requests', { 'Retry-After': String(retryAfterSeconds) });
    }
    if (!handleUpgrade(request, socket, head)) refuseUpgrade(socket, '404 Not Found');
  });
  server.listen(address.port, address.host);
  await once(server, 'listening');
  const sweep = setInterval(() => gate.sweep(), SWEEP_MS);
  sweep.unref();
  return {
    port: (server.address() as AddressInfo).port,
    server,
    trust: (addresses) => gate.trust(addresses),
    async close() {
      clearInterval(sweep);
      server.close();
      server.closeAllConnections();
    },
  };
}

const forwardedAddresses = new WeakMap<IncomingMessage, string>();

/** The address of the client that sent a request: behind a trusted proxy, as the proxy says. */
export function clientAddress(request: IncomingMessage): string {
  return forwardedAddresses.get(request) ?? request.socket.remoteAddress ?? 'unknown';
}

/** Keeps the limits of a port. */
class Gate {
  readonly #addresses: AddressLimits;
  readonly #onRefused: (reason: HttpRefusal) => void;
  readonly #logs: Readonly<Record<HttpRefusal, RefusalLog>>;
  /** Of connections that are one too many for their address. */
  readonly #refused = new WeakSet<Socket>();

  constructor(logger: Logger, { limits, trustedProxies = LOOPBACK, onRefused = () => {} }: HttpOptions) {
    this.#addresses = new AddressLimits({ ...defaultHttpLimits, ...limits }, trustedProxies);
    this.#onRefused = onRefused;
    this.#logs = {
      connections: new RefusalLog(logger, 'too many HTTP connections from one address: refused'),
      requests: new RefusalLog(logger, 'too many HTTP requests from one address: refused'),
    };
  }

  trust(addresses: readonly string[]): void {
    this.#addresses.trust(addresses);
  }

  /** Counts a connection, until it closes. */
  count(socket: Socket): void {
    const address = socket.remoteAddress;
    if (address === undefined) return; // it has closed already
    const verdict = this.#addresses.opened(address);
    socket.once('close', () => this.#addresses.closed(address));
    if (verdict === 'accept') return;
    this.#refuse('connections', address);
    if (verdict === 'drop') return void socket.destroy();
    this.#refused.add(socket);
    setTimeout(() => socket.destroy(), REFUSED_CONNECTION_MS).unref();
  }

  /** @returns false when the request has been answered: it is too large, or one too many */
  letIn(request: IncomingMessage, response: ServerResponse): boolean {
    const retryAfterSeconds = this.take(request);
    if (retryAfterSeconds !== undefined) {
      if (this.#refused.has(request.socket)) response.shouldKeepAlive = false;
      answer(response, 429, 'Too many requests from this address. Try again later.', {
        'Retry-After': retryAfterSeconds,
      });
      return false;
    }
    if (Number(request.headers['content-length'] ?? 0) > MAX_BODY_BYTES) {
      response.shouldKeepAlive = false; // or the body would have to be read
      answer(response, 413, `At most ${MAX_BODY_BYTES} bytes are taken.`);
      return false;
    }
    return true;
  }

  /**
   * Counts a request.
   * @returns undefined when it may be answered, else after how many seconds to try again
   */
  take(request: IncomingMessage): number | undefined {
    if (this.#refused.has(request.socket)) return 1;
    const peerAddress = request.socket.remoteAddress;
    const forwardedFor = request.headers['x-forwarded-for'];
    const address = this.#addresses.clientAddress(
      peerAddress,
      Array.isArray(forwardedFor) ? forwardedFor.join() : forwardedFor,
    );
    forwardedAddresses.set(request, address);
    const retryAfterSeconds = this.#addresses.request(address, performance.now());
    if (retryAfterSeconds !== undefined) this.#refuse('requests', address);
    return retryAfterSeconds;
  }

  sweep(): void {
    this.#addresses.sweep(performance.now());
  }

  #refuse(reason: HttpRefusal, address: string): void {
    this.#onRefused(reason);
    this.#logs[reason].add(address);
  }
}

function answer(
  response: ServerResponse,
  status: number,
  text: string,
  headers: Record<string, string | number> = {},
): void {
  response.writeHead(status, {
    // Players in pages of other sites may see why.
    'Access-Control-Allow-Origin': '*',
    'Content-Type': 'text/plain; charset=utf-8',
    'Cache-Control': 'no-store',
    ...headers,
  });
  response.end(`${text}\n`);
}

/** A client that offers another protocol (curl --http2 does) gets the ordinary answer: an offer binds nobody (RFC 9110, 7.8). */
function answerWithoutUpgrade(
  request: IncomingMessage,
  socket: Socket,
  gate: Gate,
  handle: RequestHandler,
): void {
  const response = new ServerResponse(request);
  response.shouldKeepAlive = false;
  response.assignSocket(socket);
  response.on('finish', () => socket.end());
  if (gate.letIn(request, response)) handle(request, response);
}

/**
 * Bounds what a stranger can hold open: connections in all, the time to send a request, the time a
 * response may stand still. A response with a deadline of its own sets its socket's timeout to 0.
 */
function harden(server: Server, logger: Logger): void {
  server.maxConnections = 10_000;
  server.headersTimeout = 10_000;
  server.requestTimeout = 30_000;
  server.keepAliveTimeout = 15_000;
  server.setTimeout(30_000, (socket) => socket.destroy());
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    if (!socket.writable) return void socket.destroy(); // it has had its answer and its line in the log
    const [status, why] = CLIENT_ERRORS[error.code ?? ''] ?? ['400 Bad Request', 'not a request'];
    if (error.code !== 'ECONNRESET') {
      const address = 'remoteAddress' in socket ? socket.remoteAddress : undefined;
      logger.warn({ address, code: error.code }, `HTTP connection closed: ${why}`);
    }
    socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\n\r\n`);
  });
}

/** Answer and reason for the log, by Node's code. */
const CLIENT_ERRORS: Readonly<Record<string, readonly [status: string, why: string]>> = {
  ERR_HTTP_REQUEST_TIMEOUT: ['408 Request Timeout', 'no request in time'],
  HPE_HEADER_OVERFLOW: [
    '431 Request Header Fields Too Large',
    `more than ${MAX_HEAD_BYTES} bytes of headers`,
  ],
};
