/** An HTTP server that faces the world: deadlines, bounds, the log. */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, ServerResponse } from 'node:http';
import { type AddressInfo, Socket } from 'node:net';
import type { Logger } from 'pino';
import { isWebSocketRequest, refuseUpgrade } from './websocket.ts';

type RequestHandler = (request: IncomingMessage, response: ServerResponse) => void;
/** @returns false when the path is not the handler's */
type UpgradeHandler = (request: IncomingMessage, socket: Socket, head: Uint8Array) => boolean;

export interface HttpListener {
  readonly port: number;
  readonly server: Server;
  /** Stops listening and cuts off what is open. */
  close(): Promise<void>;
}

/**
 * Opens a port for HTTP.
 * @param address all addresses when `host` is undefined; a free port when `port` is 0
 * @throws the system's error, for instance EADDRINUSE
 */
export async function listenHttp(
  address: { readonly host?: string | undefined; readonly port: number },
  logger: Logger,
  handle: RequestHandler,
  handleUpgrade: UpgradeHandler,
): Promise<HttpListener> {
  const server = createServer({ connectionsCheckingInterval: 5000, highWaterMark: 1 << 20 }, handle);
  harden(server, logger);
  server.on('upgrade', (request, socket, head) => {
    if (!(socket instanceof Socket)) return void socket.destroy();
    socket.on('error', () => socket.destroy());
    if (!isWebSocketRequest(request)) return answerWithoutUpgrade(request, socket, handle);
    if (!handleUpgrade(request, socket, head)) refuseUpgrade(socket, '404 Not Found');
  });
  server.listen(address.port, address.host);
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    server,
    async close() {
      server.close();
      server.closeAllConnections();
    },
  };
}

/** A client that offers another protocol (curl --http2 does) gets the ordinary answer: an offer binds nobody (RFC 9110, 7.8). */
function answerWithoutUpgrade(request: IncomingMessage, socket: Socket, handle: RequestHandler): void {
  const response = new ServerResponse(request);
  response.shouldKeepAlive = false;
  response.assignSocket(socket);
  response.on('finish', () => socket.end());
  handle(request, response);
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
    if (error.code !== 'ECONNRESET') {
      const address = 'remoteAddress' in socket ? socket.remoteAddress : undefined;
      const isLate = error.code === 'ERR_HTTP_REQUEST_TIMEOUT';
      logger.warn(
        { address, code: error.code },
        isLate ? 'HTTP connection closed: no request in time' : 'HTTP connection closed: not a request',
      );
    }
    const status = error.code === 'ERR_HTTP_REQUEST_TIMEOUT' ? '408 Request Timeout' : '400 Bad Request';
    socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\n\r\n`);
  });
}
