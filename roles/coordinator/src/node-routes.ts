/** The routes of nodes: for operators, for those who want to join, and for the nodes themselves. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox';
import { Name } from '@starling/model/entities';
import {
  Fleet,
  JoinRequest,
  NewNodeInvitation,
  Node,
  NodeInvitation,
  NodeInvitationWithToken,
  NodeReport,
} from '@starling/model/node';
import { Type } from 'typebox';
import { nodeIdOf } from './access.ts';
import type { Nodes } from './nodes.ts';
import { Page, PageQuery } from './page.ts';
import { ApiProblem } from './problem.ts';
import type { Watch } from './watch.ts';

const ByName = Type.Object({ name: Name });
const Done = Type.Null({ description: 'Done.' });
const tags = ['nodes'];
/** Per address: a whole fleet may come at once, but nobody guesses. */
const JOIN_LIMIT = { max: 300, windowMs: 60_000 };

export function nodeRoutes(nodes: Nodes, fleetWatch: Watch): FastifyPluginAsyncTypebox {
  return async (app) => {
    app.get(
      '/nodes',
      {
        config: { access: 'nodes:read' },
        schema: {
          tags,
          summary: 'The nodes by name: where they are, what they are to do, how they are',
          querystring: PageQuery,
          response: { 200: Page(Node) },
        },
      },
      (request) => nodes.list(request.query),
    );
    app.get(
      '/nodes/:name',
      {
        config: { access: 'nodes:read' },
        schema: { tags, summary: 'One node', params: ByName, response: { 200: Node } },
      },
      (request) => nodes.get(request.params.name),
    );
    app.delete(
      '/nodes/:name',
      {
        config: { access: 'nodes:write' },
        schema: {
          tags,
          summary: 'Remove a node: its key is refused everywhere',
          params: ByName,
          response: { 204: Done },
        },
      },
      async (request, reply) => {
        await nodes.remove(request.params.name);
        return reply.code(204).send(null);
      },
    );
    const orders = {
      cordon: [
        'Give a node nothing new; it goes on with what it has',
        (name: string) => nodes.setState(name, 'cordoned'),
      ],
      uncordon: ['Have a node work again', (name: string) => nodes.setState(name, 'joined')],
      drain: [
        'Give a node nothing new, and what it has to the others',
        (name: string) => nodes.setState(name, 'draining'),
      ],
      restart: [
        'Drain a node and end it, for its supervisor to start it again; then it works again',
        (name: string) => nodes.restart(name),
      ],
    } as const;
    for (const [verb, [summary, order]] of Object.entries(orders)) {
      app.post(
        `/nodes/:name/${verb}`,
        {
          config: { access: 'nodes:write' },
          schema: { tags, summary, params: ByName, response: { 200: Node } },
        },
        (request) => order(request.params.name),
      );
    }

    app.get(
      '/node-invitations',
      {
        config: { access: 'nodes:read' },
        schema: {
          tags,
          summary: 'The invitations, newest first',
          querystring: PageQuery,
          response: { 200: Page(NodeInvitation) },
        },
      },
      (request) => nodes.invitations(request.query),
    );
    app.post(
      '/node-invitations',
      {
        config: { access: 'nodes:write' },
        schema: {
          tags,
          summary: 'Invite a node; the answer alone holds the token, which is good for one node',
          body: NewNodeInvitation,
          response: { 201: NodeInvitationWithToken },
        },
      },
      async (request, reply) => reply.code(201).send(await nodes.invite(request.body)),
    );
    app.delete(
      '/node-invitations/:id',
      {
        config: { access: 'nodes:write' },
        schema: {
          tags,
          summary: 'Withdraw an invitation',
          params: Type.Object({ id: Type.String({ minLength: 1, maxLength: 64 }) }),
          response: { 204: Done },
        },
      },
      async (request, reply) => {
        await nodes.withdraw(request.params.id);
        return reply.code(204).send(null);
      },
    );

    app.post(
      '/node/join',
      {
        config: { access: 'public', limit: JOIN_LIMIT },
        schema: {
          tags: ['node'],
          summary: 'Join the network with the token of an invitation; from then on the key says who it is',
          body: JoinRequest,
          response: { 200: Node },
        },
      },
      (request) => nodes.join(request.body),
    );
    app.get(
      '/node/watch',
      {
        config: { access: 'node' },
        exposeHeadRoute: false,
        schema: {
          tags: ['node'],
          summary:
            'Follow the fleet: server-sent events, each with all nodes. The first comes at once, unless Last-Event-ID names its revision',
          response: {
            200: {
              description: 'Events whose data is the fleet as JSON, and whose id is its revision.',
              content: { 'text/event-stream': { schema: Fleet } },
            },
          },
        },
      },
      (request, reply) => {
        const lastEventId = request.headers['last-event-id'];
        fleetWatch.attach(reply.raw, {
          nodeId: nodeIdOf(request),
          knownRevision: typeof lastEventId === 'string' ? lastEventId : undefined,
        });
        reply.hijack();
      },
    );
    app.post(
      '/node/report',
      {
        config: { access: 'node' },
        schema: {
          tags: ['node'],
          summary: 'Report how the node is and where; at each change and every 5 s',
          body: NodeReport,
          response: { 204: Done },
        },
      },
      async (request, reply) => {
        const nodeId = nodeIdOf(request);
        if (nodeId === undefined)
          throw new ApiProblem('NODE_NOT_ITSELF', 'Only a node that has joined reports, with its own key.');
        await nodes.report(nodeId, request.body);
        return reply.code(204).send(null);
      },
    );
  };
}
