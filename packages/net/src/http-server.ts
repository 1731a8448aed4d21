/** Deadlines and bounds of an HTTP server that faces the world. */
import type { Server } from 'node:http';
import type { Logger } from 'pino';

/**
 * Bounds what a stranger can hold open: connections in all, the time to send a request, the time a
 * response may stand still. A response with a deadline of its own sets its socket's timeout to 0.
 */
export function hardenHttpServer(server: Server, logger: Logger): void {
  server.maxConnections = 10_000;
  server.headersTimeout = 10_000;
  server.requestTimeout = 30_000;
  server.keepAliveTimeout = 15_000;
  server.setTimeout(30_000, (socket) => socket.destroy());
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    if (error.code !== 'ECONNRESET') {
      const address = 'remoteAddress' in socket ? socket.remoteAddress : undefined;
      logger.warn({ address, code: error.code }, 'HTTP connection closed: not a request');
    }
    if (socket.writable) socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n');
    else socket.destroy();
  });
}
