/** The routes on who may watch and who does: viewing tokens, viewers, and what frontends follow and report. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox';
import {
  FrontendReport,
  FrontendReportAnswer,
  FrontendState,
  Name,
  NewViewingToken,
  ViewerList,
  ViewerSession,
  ViewingToken,
  ViewingTokenWithSecret,
} from '@starling/model/entities';
import { bearerToken } from '@starling/model/viewing-token';
import type { FastifyRequest } from 'fastify';
import { Type } from 'typebox';
import { nodeIdOf } from './access.ts';
import { DatabaseUnavailable } from './database.ts';
import type { FleetViewers } from './fleet-viewers.ts';
import { Page, PageQuery } from './page.ts';
import type { ViewerSessions } from './viewer-sessions.ts';
import type { ViewingRight, ViewingTokens } from './viewing-tokens.ts';
import type { Watch } from './watch.ts';

export interface ViewingNouns {
  readonly viewingTokens: ViewingTokens;
  readonly viewers: FleetViewers;
  readonly viewerSessions: ViewerSessions;
  readonly frontendWatch: Watch;
}

const ById = Type.Object({ id: Type.String({ minLength: 1, maxLength: 64 }) });
const Done = Type.Null({ description: 'Done.' });

/** What viewers may add to an address. Apps add parameters of their own, so others are let pass. */
export const WithViewingToken = Type.Object({
  token: Type.Optional(
    Type.String({ description: 'A viewing token; `Authorization: Bearer` does as well.' }),
  ),
});

export function viewingRoutes(nouns: ViewingNouns): FastifyPluginAsyncTypebox {
  const { viewingTokens, viewers, viewerSessions, frontendWatch } = nouns;
  return async (app) => {
    app.get(
      '/viewing-tokens',
      {
        config: { access: 'viewing-tokens:read' },
        schema: {
          tags: ['viewing tokens'],
          summary: 'The viewing tokens, newest first; expired ones for 30 days',
          querystring: PageQuery,
          response: { 200: Page(ViewingToken) },
        },
      },
      (request) => viewingTokens.list(request.query),
    );
    app.post(
      '/viewing-tokens',
      {
        config: { access: 'viewing-tokens:write' },
        schema: {
          tags: ['viewing tokens'],
          summary: 'Make a token that opens private channels; the answer alone holds it',
          body: NewViewingToken,
          response: { 201: ViewingTokenWithSecret },
        },
      },
      async (request, reply) => reply.code(201).send(await viewingTokens.create(request.body)),
    );
    app.delete(
      '/viewing-tokens/:id',
      {
        config: { access: 'viewing-tokens:write' },
        schema: {
          tags: ['viewing tokens'],
          summary: 'Revoke a token; who watches with it is shown out',
          params: ById,
          response: { 204: Done },
        },
      },
      async (request, reply) => {
        await viewingTokens.revoke(request.params.id);
        return reply.code(204).send(null);
      },
    );
    app.post(
      '/viewing-tokens/rotate-key',
      {
        config: { access: 'viewing-tokens:write' },
        schema: {
          tags: ['viewing tokens'],
          summary: 'Sign new tokens with a new key; those that are out stay valid',
          response: { 204: Done },
        },
      },
      async (_request, reply) => {
        await viewingTokens.rotateKey();
        return reply.code(204).send(null);
      },
    );

    app.get(
      '/viewers',
      {
        config: { access: 'viewers:read' },
        schema: {
          tags: ['viewers'],
          summary: 'Who watches now, on all frontends',
          querystring: Type.Object({ channel: Type.Optional(Name) }, { additionalProperties: false }),
          response: { 200: ViewerList },
        },
      },
      async (request) => viewers.list(request.query.channel),
    );
    app.get(
      '/viewer-sessions',
      {
        config: { access: 'viewers:read' },
        schema: {
          tags: ['viewers'],
          summary: 'Who watched, those that began last first; for 90 days',
          querystring: Type.Object({ channel: Type.Optional(Name), ...PageQuery.properties }),
          response: { 200: Page(ViewerSession) },
        },
      },
      (request) => viewerSessions.list(request.query),
    );
    app.delete(
      '/viewers/:id',
      {
        config: { access: 'viewers:write' },
        schema: { tags: ['viewers'], summary: 'Show a viewer out', params: ById, response: { 204: Done } },
      },
      async (request, reply) => {
        viewers.kick(request.params.id);
        return reply.code(204).send(null);
      },
    );

    app.get(
      '/frontend/watch',
      {
        config: { access: 'frontend' },
        exposeHeadRoute: false,
        schema: {
          tags: ['frontend'],
          summary: 'Follow who may watch: server-sent events, each with the whole state, the first at once',
          response: {
            200: {
              description: 'Events whose data is the state as JSON.',
              content: { 'text/event-stream': { schema: FrontendState } },
            },
          },
        },
      },
      (request, reply) => {
        frontendWatch.attach(reply.raw, { nodeId: nodeIdOf(request) });
        reply.hijack();
      },
    );
    app.post(
      '/frontend/report',
      {
        config: { access: 'frontend' },
        schema: {
          tags: ['frontend'],
          summary: 'Report who watches; at each change and every 2 s',
          body: FrontendReport,
          response: { 200: FrontendReportAnswer },
        },
      },
      async (request) => {
        const { owed } = request.body;
        const answer = await viewers.report(request.body);
        if (owed === undefined || owed.entries.length === 0) return answer;
        try {
          return { ...answer, takenSequence: await viewerSessions.take(owed) };
        } catch (error) {
          if (error instanceof DatabaseUnavailable) return answer; // it is offered again
          throw error;
        }
      },
    );
  };
}

/** The viewing token of a request, from `?token=` or its `Authorization` header, which programs use too. */
export function viewingTokenOf(request: FastifyRequest): string | undefined {
  const { query } = request;
  const inQuery = typeof query === 'object' && query !== null && 'token' in query ? query.token : undefined;
  if (typeof inQuery === 'string') return inQuery;
  const token = bearerToken(request.headers.authorization);
  return request.caller === undefined || request.caller.kind === 'session' ? token : undefined;
}

/**
 * What whoever sent a request may watch: who makes the channels everything, others what their account was given and what
 * their token opens.
 */
export async function viewingRightOf(
  request: FastifyRequest,
  viewingTokens: ViewingTokens,
): Promise<ViewingRight> {
  const { caller } = request;
  const seesAll = caller?.kind === 'node-token' || caller?.reach('channels:read') === 'all';
  if (seesAll && caller?.hasOneTimePassword === false)
    return { isPersonal: true, refusal: undefined, covers: () => true };
  const right = await viewingTokens.rightOf(viewingTokenOf(request));
  if (caller === undefined || caller.hasOneTimePassword) return right;
  return {
    isPersonal: true,
    refusal: right.refusal,
    covers: (channel) => caller.channels.includes(channel) || right.covers(channel),
  };
}
