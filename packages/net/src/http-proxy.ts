/**
 * Hands HTTP requests on to another server of ours, as they come: for a process that answers some paths itself and
 * leaves the rest to its main process, or to another node.
 */
import {
  Agent,
  type ClientRequest,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type OutgoingHttpHeaders,
  request as openRequest,
  type ServerResponse,
} from 'node:http';
import { BlockList, isIPv6 } from 'node:net';
import { pipeline } from 'node:stream';
import type { RequestHandler } from './http-server.ts';

/** Requests under way; more wait, each within the deadline of its client's connection. */
const MAX_REQUESTS = 256;
const MAX_IDLE_CONNECTIONS = 16;
/** Shorter than the other side's, so that no connection is closed there just as it is used again here. */
const IDLE_CONNECTION_MS = 5000;
/** Silence of the other side after which it is given up. Server-sent events have a ping every 15 s. */
const SILENCE_DEADLINE_MS = 35_000;

/** For one connection only, not for the next (RFC 9110, 7.6.1). The server here answers `Expect` itself. */
const HOP_BY_HOP = new Set([
  ...['connection', 'keep-alive', 'proxy-connection', 'te', 'trailer', 'transfer-encoding', 'upgrade'],
  'expect',
]);

/** Who may be a proxy of ours: this machine, and others of a private network. */
const neighbours = new BlockList();
for (const [network, prefix] of [
  ['127.0.0.0', 8],
  ['10.0.0.0', 8],
  ['172.16.0.0', 12],
  ['192.168.0.0', 16],
  ['169.254.0.0', 16],
] as const) {
  neighbours.addSubnet(network, prefix, 'ipv4');
}
neighbours.addAddress('::1', 'ipv6');
neighbours.addSubnet('fc00::', 7, 'ipv6');
neighbours.addSubnet('fe80::', 10, 'ipv6');

/**
 * A handler that lets another HTTP server answer. Nothing is kept here: bodies pass both ways at the speed of the
 * slower side.
 * @param via added to the header of that name, so that the other side knows that the request has been handed on
 */
export function forwardTo(port: number, host = '127.0.0.1', via?: string): RequestHandler {
  const agent = new Agent({
    keepAlive: true,
    maxSockets: MAX_REQUESTS,
    maxFreeSockets: MAX_IDLE_CONNECTIONS,
    timeout: IDLE_CONNECTION_MS,
  });
  return (request, response) => {
    const { method, url: path } = request;
    const headers = forwardedHeaders(request.headers, request.socket.remoteAddress);
    if (via !== undefined) headers.via = [request.headers.via, via].filter(Boolean).join(', ');
    forward(openRequest({ agent, host, port, method, path, headers }), request, response);
  };
}

function forward(onward: ClientRequest, request: IncomingMessage, response: ServerResponse): void {
  let isAnswered = false;
  onward.setTimeout(SILENCE_DEADLINE_MS, () => onward.destroy());
  onward.on('response', (answer) => {
    isAnswered = true;
    response.writeHead(answer.statusCode ?? 502, answer.statusMessage, endToEnd(answer.headers));
    response.flushHeaders(); // an event stream may be silent for a while
    pipeline(answer, response, (error) => {
      if (error) response.destroy();
    });
  });
  onward.on('error', () => {
    if (isAnswered) return; // the answer tells whether it is whole
    response.writeHead(503, { 'Content-Type': 'text/plain; charset=utf-8', 'Retry-After': '1' });
    response.end('Starling is starting or stopping. Try again in a moment.\n');
  });
  response.on('close', () => {
    if (!response.writableFinished) onward.destroy();
  });
  request.pipe(onward);
}

/**
 * The headers of a request as the next server gets them. What a stranger says about where it comes from is
 * left out; what a proxy of ours says is kept, and its own address added.
 */
export function forwardedHeaders(
  headers: IncomingHttpHeaders,
  remoteAddress: string | undefined,
): OutgoingHttpHeaders {
  const forwarded = endToEnd(headers);
  if (!isNeighbour(remoteAddress)) {
    for (const name of Object.keys(forwarded)) {
      if (name === 'forwarded' || name.startsWith('x-forwarded-')) delete forwarded[name];
    }
  }
  const addresses = [forwarded['x-forwarded-for'], remoteAddress].filter((address) => address !== undefined);
  forwarded['x-forwarded-for'] = addresses.join(', ');
  // Without it, the body of a request whose method has none as a rule would be sent without its length.
  if (headers['transfer-encoding'] !== undefined) forwarded['transfer-encoding'] = 'chunked';
  return forwarded;
}

function isNeighbour(address = ''): boolean {
  return neighbours.check(address, isIPv6(address) ? 'ipv6' : 'ipv4');
}

function endToEnd(headers: IncomingHttpHeaders): OutgoingHttpHeaders {
  const named = new Set((headers.connection ?? '').split(',').map((name) => name.trim().toLowerCase()));
  named.delete('content-length'); // else what is a body here would be a request there
  return Object.fromEntries(
    Object.entries(headers).filter(([name]) => !HOP_BY_HOP.has(name) && !named.has(name)),
  );
}
