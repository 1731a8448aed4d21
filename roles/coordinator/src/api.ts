/**
 * The coordinator's HTTP side: the REST API with its documents, the addresses for IPTV players, and
 * the site. The routes themselves are in `routes.ts` and `guide.ts`.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import helmet from '@fastify/helmet';
import fastifyStatic from '@fastify/static';
import swagger from '@fastify/swagger';
import swaggerUi from '@fastify/swagger-ui';
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import { type Span, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api';
import fastify, {
  type FastifyBaseLogger,
  type FastifyError,
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
  LogController,
} from 'fastify';
import type { Kysely } from 'kysely';
import type { Logger } from 'pino';
import type { Registry } from 'prom-client';
import { Type } from 'typebox';
import { guardRoutes, type Tokens } from './access.ts';
import { type AccessNouns, accessRoutes } from './access-routes.ts';
import { guardConditions } from './conditional-requests.ts';
import { DatabaseUnavailable, SqlError, type Tables } from './database.ts';
import { guideRoutes } from './guide.ts';
import { hdhomerunRoutes } from './hdhomerun.ts';
import type { CoordinatorMetrics } from './metrics.ts';
import { withExamples } from './openapi-examples.ts';
import { ApiProblem } from './problem.ts';
import { addressGroup, type RateLimits } from './rate-limits.ts';
import { apiRoutes, type Nouns } from './routes.ts';

const BODY_LIMIT_BYTES = 1024 * 1024;
/** To receive a whole request, body included. */
const REQUEST_TIMEOUT_MS = 30_000;
const KEEP_ALIVE_TIMEOUT_MS = 72_000;
/** What counts as unusual, in numbers. */
const REFUSALS = [401, 403, 429];
/** PostgreSQL documentation, appendix A. */
const SQLSTATE_DISK_FULL = '53100';
const SQLSTATE_CLASS_DATA_EXCEPTION = '22';

const tracer = trace.getTracer('starling');

declare module 'fastify' {
  interface FastifyRequest {
    /** Of the trace. */
    span?: Span | undefined;
  }
}

export interface ApiConfig extends Tokens {
  /** The built site; undefined to serve none. */
  readonly webDir: string | undefined;
  readonly rateLimits: RateLimits;
  readonly registry: Registry;
  readonly metrics: CoordinatorMetrics;
  readonly logger: Logger;
  readonly db: Kysely<Tables>;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  /** Whether the database answers. */
  readonly isReady: () => boolean;
}

/** Builds the HTTP side. It neither listens nor owns what it is given. */
export async function createApi(config: ApiConfig, nouns: Nouns & AccessNouns): Promise<FastifyInstance> {
  const logger: FastifyBaseLogger = config.logger;
  const app = fastify({
    loggerInstance: logger,
    // Changes are logged by the nouns that they change; a line per request would drown them.
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: BODY_LIMIT_BYTES,
    requestTimeout: REQUEST_TIMEOUT_MS,
    keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS,
    // The balancer's word on address and protocol counts; a stranger's does not.
    trustProxy: ['loopback', 'linklocal', 'uniquelocal'],
    // A misspelt field is an error, and text is not silently made into a number.
    ajv: { customOptions: { removeAdditional: false, coerceTypes: false } },
    frameworkErrors: (error, _request, reply) => {
      sendProblem(reply, problemOf(error));
    },
  }).withTypeProvider<TypeBoxTypeProvider>();

  app.setErrorHandler((error: FastifyError, request, reply) => {
    const problem = problemOf(error);
    if (problem.code === 'INTERNAL')
      request.log.error({ err: error, path: pathOf(request) }, 'request failed');
    sendProblem(reply, problem);
  });

  await app.register(helmet, {
    contentSecurityPolicy: {
      useDefaults: false,
      directives: {
        defaultSrc: ["'self'"],
        baseUri: ["'self'"],
        formAction: ["'self'"],
        frameAncestors: ["'self'"],
        objectSrc: ["'none'"],
        imgSrc: ["'self'", 'data:', 'blob:'],
        // hls.js and mpegts.js feed the player from blob: addresses and work in blob: workers.
        mediaSrc: ["'self'", 'blob:'],
        workerSrc: ["'self'", 'blob:'],
        scriptSrc: ["'self'"],
        // Style attributes only: players and charts place their parts with them.
        styleSrc: ["'self'"],
        styleSrcAttr: ["'unsafe-inline'"],
      },
    },
    // The balancer owns TLS, and says so where there is TLS.
    strictTransportSecurity: false,
    // A browser ignores it without TLS, and complains.
    crossOriginOpenerPolicy: false,
  });
  await app.register(swagger, {
    transform: ({ schema, url }) => ({ schema: withExamples(schema), url }),
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Starling',
        description: 'Channels, assets and streams of a Starling network.',
        version: 'v1',
        license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
      },
      components: {
        securitySchemes: {
          token: {
            type: 'http',
            scheme: 'bearer',
            description: 'The operator token, or an API token with the scope that is named.',
          },
          session: {
            type: 'apiKey',
            in: 'cookie',
            name: '__Host-starling',
            description:
              'Set by a login, for an account whose role has the scope. Without TLS its name is `starling`.',
          },
          node: {
            type: 'http',
            scheme: 'bearer',
            description:
              'What a node has signed with its own key (docs/formats/node-proof.md), or the token that nodes share. Where a role is named, only nodes of this role.',
          },
        },
      },
    },
  });

  await app.register(async (guarded) => {
    const { sessions, apiTokens, nodes } = nouns;
    guarded.decorateRequest('span', undefined);
    guarded.addHook('onRequest', async (request, reply) => {
      const { method, routeOptions, headers } = request;
      request.span = tracer.startSpan(`${method} ${routeOptions.url}`, {
        kind: SpanKind.SERVER,
        attributes: {
          'http.request.method': method,
          'http.route': routeOptions.url,
          'user_agent.original': headers['user-agent'],
        },
      });
      reply.header('cache-control', 'no-store');
    });
    guardRoutes(guarded, { tokens: config, sessions, apiTokens, nodes, rateLimits: config.rateLimits });
    guardConditions(guarded, config.db, config.now);
    guarded.addHook('onSend', async (request, reply, payload) => {
      if (request.method !== 'GET' || reply.statusCode !== 200 || typeof payload !== 'string') return payload;
      // RFC 9110, 8.8.3 and 13.1.2.
      const tag = `"${createHash('sha1').update(payload).digest('base64url')}"`;
      reply.header('etag', tag);
      if (!isKnownTag(request.headers['if-none-match'], tag)) return payload;
      reply.code(304).removeHeader('content-length').removeHeader('content-type');
      return '';
    });
    guarded.addHook('onResponse', async (request, reply) => {
      const { method, routeOptions } = request;
      request.span?.setAttribute('http.response.status_code', reply.statusCode);
      if (reply.statusCode >= 500) request.span?.setStatus({ code: SpanStatusCode.ERROR });
      request.span?.end();
      const status = `${Math.floor(reply.statusCode / 100)}xx`;
      config.metrics.requests.inc({ method, route: routeOptions.url ?? 'unknown', status });
      // A watch has no end worth measuring.
      if (reply.sent && !reply.raw.getHeader('content-type')?.toString().startsWith('text/event-stream'))
        config.metrics.requestSeconds.observe(reply.elapsedTime / 1000);
      if (REFUSALS.includes(reply.statusCode)) nouns.alarmWatch.requestRefused(addressGroup(request.ip));
    });
    await guarded.register(apiRoutes(nouns, accessRoutes(nouns)), { prefix: '/api/v1' });
    await guarded.register(guideRoutes(nouns));
    await guarded.register(hdhomerunRoutes(nouns));
    guarded.get(
      '/metrics',
      {
        config: { access: 'status:read' },
        schema: {
          tags: ['status'],
          summary: "The coordinator's metrics, in Prometheus's form",
          security: [{ token: ['status:read'] }, { session: ['status:read'] }],
          response: { 200: { content: { 'text/plain': { schema: Type.String() } } } },
        },
      },
      async (_request, reply) =>
        reply.type(config.registry.contentType).send(await config.registry.metrics()),
    );
    guarded.get('/api/openapi.json', { schema: { hide: true }, config: { access: 'public' } }, async () =>
      app.swagger(),
    );
  });

  // Where the coordinator has a port of its own; otherwise its process answers these.
  app.get('/healthz', { schema: { hide: true } }, (_request, reply) =>
    reply.type('text/plain').send('alive\n'),
  );
  app.get('/readyz', { schema: { hide: true } }, (_request, reply) => {
    reply.type('text/plain').header('cache-control', 'no-store');
    return config.isReady() ? reply.send('ready\n') : reply.code(503).send('the database does not answer\n');
  });

  // Files for anyone: the page on the API, and the site.
  await app.register(swaggerUi, {
    routePrefix: '/api/docs',
    // Swagger UI adds a style element of its own.
    transformStaticCSP: (policy) => policy.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'"),
  });
  const { webDir } = config;
  const hasSite = webDir !== undefined && existsSync(join(webDir, 'index.html'));
  if (hasSite) {
    await app.register(fastifyStatic, {
      root: webDir,
      cacheControl: false,
      setHeaders: (reply, path) => {
        // The build names the files in assets/ after their content.
        const isNamedByContent = path.startsWith(join(webDir, 'assets'));
        reply.setHeader(
          'cache-control',
          isNamedByContent ? 'public, max-age=31536000, immutable' : 'no-cache',
        );
      },
    });
  }
  app.setNotFoundHandler((request, reply) => {
    const isPage =
      request.headers.accept?.includes('text/html') === true && !/^\/(api|live)\//.test(request.url);
    if (hasSite && isPage && (request.method === 'GET' || request.method === 'HEAD')) {
      // The site finds its page by the address.
      return reply.sendFile('index.html');
    }
    return sendProblem(
      reply,
      new ApiProblem('ROUTE_UNKNOWN', `There is no ${request.method} ${pathOf(request)}.`),
    );
  });
  await app.ready();
  return app;
}

/** Weak comparison: RFC 9110, 8.8.3.2. */
function isKnownTag(ifNoneMatch: string | undefined, tag: string): boolean {
  const known = (ifNoneMatch ?? '').split(',').map((one) => one.trim().replace(/^W\//, ''));
  return known.includes(tag) || known.includes('*');
}

/** Without the query, which may hold a viewing token. */
function pathOf(request: FastifyRequest): string {
  return request.url.replace(/\?.*$/s, '');
}

function problemOf(error: FastifyError | Error): ApiProblem {
  if (error instanceof ApiProblem) return error;
  if (error instanceof DatabaseUnavailable) return new ApiProblem('DATABASE_UNAVAILABLE', error.message);
  if (error instanceof SqlError && error.sqlState === SQLSTATE_DISK_FULL) {
    return new ApiProblem('DISK_FULL', 'The disk of the data folder is full. Make room, then try again.');
  }
  if (error instanceof SqlError && error.sqlState?.startsWith(SQLSTATE_CLASS_DATA_EXCEPTION)) {
    return new ApiProblem(
      'REQUEST_INVALID',
      'A value cannot be stored, such as a text with a zero character.',
    );
  }
  const status = 'statusCode' in error ? error.statusCode : undefined;
  if (status === 413) return new ApiProblem('BODY_TOO_LARGE', `At most ${BODY_LIMIT_BYTES} bytes are taken.`);
  if (status !== undefined && status >= 400 && status < 500)
    return new ApiProblem('REQUEST_INVALID', `${error.message}.`);
  return new ApiProblem('INTERNAL', 'The request failed. The log of the coordinator says why.');
}

function sendProblem(reply: FastifyReply, problem: ApiProblem): FastifyReply {
  const retryAfterSeconds = problem.retryAfterSeconds ?? (problem.status === 503 ? 1 : undefined);
  if (retryAfterSeconds !== undefined) reply.header('retry-after', String(retryAfterSeconds));
  return reply
    .code(problem.status)
    .header('cache-control', 'no-store')
    .type('application/problem+json')
    .send(JSON.stringify(problem.toProblem()));
}
