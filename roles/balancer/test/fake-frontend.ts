/** A frontend that says what it was asked: for tests of what nginx makes of requests. */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export type Answer = (request: IncomingMessage, response: ServerResponse) => void;

export class FakeFrontend {
  readonly requests: IncomingMessage[] = [];
  readonly port: number;
  isReady = true;
  answer: Answer = (request, response) => {
    response.setHeader('Cache-Control', 'public, max-age=12');
    response.end(`${this.port} ${request.url}`);
  };
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
    this.port = (server.address() as AddressInfo).port;
    server.on('request', (request: IncomingMessage, response: ServerResponse) => {
      if (request.url === '/readyz') {
        response.writeHead(this.isReady ? 200 : 503).end();
        return;
      }
      this.requests.push(request);
      this.answer(request, response);
    });
  }

  static async start(port = 0): Promise<FakeFrontend> {
    const server = createServer();
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
    return new FakeFrontend(server);
  }

  /** The requests whose path begins so. */
  asked(path: string): IncomingMessage[] {
    return this.requests.filter(({ url }) => url?.startsWith(path));
  }

  /** As if it were killed: nobody listens, what is open breaks. */
  async stop(): Promise<void> {
    this.#server.close();
    this.#server.closeAllConnections();
    await once(this.#server, 'close').catch(() => {});
  }
}
