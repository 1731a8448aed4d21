/** Who may call which route: tokens, sessions, and a guard that no route can forget. */
import { reachOfRole, type Scope } from '@starling/model/account';
import { isNodeProof } from '@starling/model/node-identity';
import { openSecret, type Secret } from '@starling/model/secret';
import { bearerToken } from '@starling/model/viewing-token';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { API_TOKEN_PREFIX, type ApiTokens } from './api-tokens.ts';
import { type Actor, actAs } from './audit.ts';
import type { Caller } from './callers.ts';
import type { Nodes } from './nodes.ts';
import { ApiProblem } from './problem.ts';
import { API_LIMIT, addressGroup, isFromThisMachine, type Limit, type RateLimits } from './rate-limits.ts';
import { readSessionCookie, type Sessions } from './sessions.ts';

/**
 * What a route asks for. `public`: nothing. `node`: to be a machine of the network, `frontend` and `backend`: of this
 * role; whoever has the token that nodes share is of every role. `signed-in`: to be anybody that
 * the network knows, also with a password that has to be replaced. Otherwise a scope.
 */
export type Access = 'public' | NodeAccess | 'signed-in' | Scope;
const nodeAccesses = ['node', 'frontend', 'backend'] as const;
type NodeAccess = (typeof nodeAccesses)[number];

export function isForMachines(access: Access | undefined): access is NodeAccess {
  return nodeAccesses.some((one) => one === access);
}

export interface Tokens {
  readonly operatorToken: Secret;
  readonly nodeToken: Secret;
}

declare module 'fastify' {
  interface FastifyContextConfig {
    access?: Access;
    /** How often a caller may ask for it, beside the limit of the whole API. */
    limit?: Limit;
  }
  interface FastifyRequest {
    /** Undefined where it is nobody that the network knows, for instance a viewer. */
    caller?: Caller | undefined;
  }
}

export interface Guards {
  readonly tokens: Tokens;
  readonly sessions: Sessions;
  readonly apiTokens: ApiTokens;
  readonly nodes: Nodes;
  readonly rateLimits: RateLimits;
}

const SAFE_METHODS = ['GET', 'HEAD', 'OPTIONS'];
const nobodysAccount = {
  account: null,
  channels: [],
  hasOneTimePassword: false,
  hasSecondFactor: false,
  expiresAt: null,
};
const operatorCaller: Caller = {
  ...nobodysAccount,
  kind: 'operator-token',
  id: 'operator-token',
  name: 'operator token',
  role: 'operator',
  reach: (scope) => reachOfRole('operator', scope),
};
const nodeCaller: Caller = {
  ...nobodysAccount,
  kind: 'node-token',
  id: 'node-token',
  name: 'node token',
  role: 'viewer',
  reach: () => undefined,
};

/**
 * Finds out who sends a request to the routes that are registered on `app` from now on, and refuses what the caller may not
 * do, or does too often. A route that does not say what it asks for stops the start.
 *
 * Sources: RFC 6750, section 2.1 (bearer tokens); OWASP Cross-Site Request Forgery Prevention (origin of requests).
 */
export function guardRoutes(
  app: FastifyInstance,
  { tokens, sessions, apiTokens, nodes, rateLimits }: Guards,
): void {
  const known = [
    { caller: operatorCaller, secret: openSecret(tokens.operatorToken) },
    { caller: nodeCaller, secret: openSecret(tokens.nodeToken) },
  ];
  const fixedCallerOf = (token: string): Caller | undefined =>
    known.filter(({ secret }) => secret.accepts(token))[0]?.caller;

  /** Who has a token or a session in the database. A header that says who it is counts for more than a cookie. */
  const kept = async (request: FastifyRequest, token: string | undefined): Promise<Caller | undefined> => {
    if (token !== undefined)
      return token.startsWith(API_TOKEN_PREFIX) ? apiTokens.callerOf(token) : undefined;
    const cookie = readSessionCookie(request);
    if (cookie === undefined) return undefined;
    const caller = await sessions.callerOf(cookie);
    if (caller !== undefined && !SAFE_METHODS.includes(request.method)) refuseOtherSites(request);
    return caller;
  };

  const limitRequest = async (request: FastifyRequest, reply: FastifyReply, caller: Caller | undefined) => {
    const { limit } = request.routeOptions.config;
    const address = addressGroup(request.ip);
    const isOnThisMachine = isFromThisMachine(request);
    // The command line on the machine itself, and the programs that whoever has the token's file may read.
    if (caller?.kind === 'operator-token' && isOnThisMachine) return;
    if (limit !== undefined) {
      const who = caller === undefined ? `address:${address}` : caller.id;
      await rateLimits.count(`${request.method} ${request.routeOptions.url} ${who}`, limit, reply);
    }
    if (caller !== undefined) await rateLimits.count(`api ${caller.id}`, API_LIMIT, reply);
  };

  app.addHook('onRoute', ({ config, method, url }) => {
    if (config?.access === undefined) throw new Error(`${method} ${url} does not say who may call it.`);
  });
  app.decorateRequest('caller', undefined);
  app.addHook('onRequest', async (request, reply) => {
    const wanted = request.routeOptions.config.access;
    const token = bearerToken(request.headers.authorization);
    const fixedCaller = token === undefined ? undefined : fixedCallerOf(token);
    const node =
      fixedCaller === nodeCaller
        ? nodeCaller
        : token !== undefined && isNodeProof(token)
          ? await nodes.callerOf(token)
          : undefined;
    if (node !== undefined) {
      // The fleet asks as often as it needs.
      request.caller = node;
    } else {
      // Before anything that costs more than counting.
      // By the route: an address can be written in many ways.
      const isApi = request.routeOptions.url?.startsWith('/api/') === true;
      if (isApi && !isFromThisMachine(request))
        await rateLimits.count(`api address:${addressGroup(request.ip)}`, API_LIMIT, reply);
      request.caller =
        fixedCaller ??
        (await kept(request, token).catch((error: unknown) => {
          if (wanted === 'public' && !(error instanceof ApiProblem)) return undefined;
          throw error;
        }));
      if (isApi) await limitRequest(request, reply, request.caller);
    }
    const { caller } = request;
    if (wanted === 'public' || wanted === undefined) return;
    if (caller === undefined) {
      reply.header('www-authenticate', 'Bearer realm="starling"');
      throw new ApiProblem(
        'TOKEN_MISSING',
        'Send `Authorization: Bearer <token>` with a valid token, or log in.',
      );
    }
    const isMachine = caller.kind === 'node-token' || caller.kind === 'node';
    if (wanted === 'signed-in' && !isMachine) return;
    if (caller.hasOneTimePassword) {
      throw new ApiProblem('PASSWORD_CHANGE_NEEDED', 'Replace the one-time password first.');
    }
    const forMachines = nodeAccesses.find((access) => access === wanted);
    const isAllowed =
      forMachines !== undefined
        ? isMachine && isOfRole(caller, forMachines)
        : wanted !== 'signed-in' && caller.reach(wanted as Scope);
    if (!isAllowed) {
      throw new ApiProblem(
        'TOKEN_NOT_ALLOWED',
        forMachines !== undefined || isMachine
          ? `This is for ${forMachines === undefined ? 'people and their programs' : machineWords[forMachines]} only.`
          : `This needs the scope ${wanted}, which ${caller.account ?? caller.name} does not have.`,
      );
    }
  });
  // After the body has been read: what its events start would not remember.
  app.addHook('preHandler', (request, _reply, done) => {
    const actor = actorOf(request);
    if (actor === undefined) done();
    else actAs(actor, done);
  });
}

const machineWords: Record<NodeAccess, string> = {
  node: 'machines of the network',
  frontend: 'frontends',
  backend: 'backends',
};

function isOfRole({ kind, node }: Caller, access: NodeAccess): boolean {
  return kind === 'node-token' || access === 'node' || node?.role === access;
}

/** The node that sends a request, where it shows its own key. */
export function nodeIdOf({ caller }: FastifyRequest): string | undefined {
  return caller?.node?.id;
}

/**
 * What the process that sends a request is called: a node of the registry by its name there, whatever it says; its workers
 * after it.
 */
export function processNameOf({ caller }: FastifyRequest, said: string): string {
  if (caller?.node === undefined) return said;
  const [worker = ''] = /\/worker-\d{1,4}$/.exec(said) ?? [];
  return `${caller.name}${worker}`;
}

/**
 * Has a node speak for itself only.
 * @throws ApiProblem NODE_NOT_ITSELF
 */
export function refuseOtherNodes(request: FastifyRequest, nodeId: string): void {
  const own = nodeIdOf(request);
  if (own !== undefined && own !== nodeId)
    throw new ApiProblem('NODE_NOT_ITSELF', `This node is ${own}, and does not speak for ${nodeId}.`);
}

/** Whose changes the request's are; undefined for those of the network's machines. */
function actorOf(request: FastifyRequest): Actor | undefined {
  const { caller, method, ip, routeOptions } = request;
  if (caller?.kind === 'node-token' || caller?.kind === 'node') return undefined;
  return {
    kind: caller === undefined ? 'anonymous' : caller.kind === 'session' ? 'account' : caller.kind,
    name: caller?.name ?? '',
    address: ip,
    request: `${method} ${routeOptions.url}`,
  };
}

/**
 * Refuses what another site makes a browser send.
 * @throws ApiProblem REQUEST_CROSS_SITE
 */
export function refuseOtherSites(request: FastifyRequest, { isOriginNeeded = true } = {}): void {
  const site = request.headers['sec-fetch-site'];
  const { origin } = request.headers;
  // Browsers leave Sec-Fetch-Site out without TLS, and say where a change comes from all the same.
  const isOwn =
    site !== undefined
      ? site === 'same-origin'
      : origin !== undefined
        ? URL.canParse(origin) && new URL(origin).host === request.host
        : !isOriginNeeded;
  if (!isOwn) {
    throw new ApiProblem(
      'REQUEST_CROSS_SITE',
      'A change that a browser asks for has to come from a page of this site. Programs use a token.',
    );
  }
}

/** The account whose streams alone the caller may touch; undefined for who may touch all. */
export function ownerOnly(request: FastifyRequest, scope: Scope): string | undefined {
  const { caller } = request;
  if (caller?.reach(scope) !== 'own') return undefined;
  return caller.account ?? '';
}
