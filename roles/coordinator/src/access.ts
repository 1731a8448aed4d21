/** Who may call which route: bearer tokens, and a guard that no route can forget. */
import { createHash, timingSafeEqual } from 'node:crypto';
import { bearerToken } from '@starling/model/viewing-token';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { ApiProblem } from './problem.ts';

/** `public`: anyone. `operator`: who manages the network. `node`: a backend or another machine of it. */
export type Access = 'public' | 'operator' | 'node';

export interface Tokens {
  readonly operatorToken: string;
  readonly nodeToken: string;
}

declare module 'fastify' {
  interface FastifyContextConfig {
    access?: Access;
  }
  interface FastifyRequest {
    /** Whose token the request carries; undefined where it is nobody's, for instance a viewer's. */
    caller?: Exclude<Access, 'public'> | undefined;
  }
}

const sha256 = (text: string) => createHash('sha256').update(text).digest();

/**
 * Checks the token (RFC 6750, section 2.1) of every request to the routes that are registered on
 * `app` from now on. A route that does not say who may call it stops the start.
 */
export function guardRoutes(app: FastifyInstance, tokens: Tokens): void {
  const digests = [
    { access: 'operator', digest: sha256(tokens.operatorToken) },
    { access: 'node', digest: sha256(tokens.nodeToken) },
  ] as const;

  /** Digests are of equal length, so that the comparison takes the same time for any token. */
  const callerOf = (request: FastifyRequest): FastifyRequest['caller'] => {
    const token = bearerToken(request.headers.authorization);
    if (token === undefined) return undefined;
    const digest = sha256(token);
    return digests.filter((known) => timingSafeEqual(known.digest, digest))[0]?.access;
  };

  app.addHook('onRoute', ({ config, method, url }) => {
    if (config?.access === undefined) throw new Error(`${method} ${url} does not say who may call it.`);
  });
  app.decorateRequest('caller', undefined);
  app.addHook('onRequest', async (request, reply) => {
    const wanted = request.routeOptions.config.access;
    const caller = callerOf(request);
    request.caller = caller;
    if (wanted === 'public') return;
    if (caller === undefined) {
      reply.header('www-authenticate', 'Bearer realm="starling"');
      throw new ApiProblem('TOKEN_MISSING', 'Send `Authorization: Bearer <token>` with a valid token.');
    }
    if (caller !== wanted) {
      throw new ApiProblem(
        'TOKEN_NOT_ALLOWED',
        `This needs the ${wanted} token; the request carries the ${caller} token.`,
      );
    }
  });
}
