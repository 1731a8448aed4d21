/** The routes about leases: backends renew theirs about every second. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox';
import { HeldLease, LeaseGrants, LeaseWishes, NodeId } from '@starling/model/lease';
import { Type } from 'typebox';
import { refuseOtherNodes } from './access.ts';
import type { Leases } from './lease-table.ts';
import type { Nodes } from './nodes.ts';

const ByNode = Type.Object({ nodeId: NodeId });

export function leaseRoutes(leases: Leases, nodes: Nodes): FastifyPluginAsyncTypebox {
  return async (app) => {
    app.get(
      '/leases',
      {
        config: { access: 'status:read' },
        schema: {
          tags: ['leases'],
          summary: 'Which backends run what',
          response: { 200: Type.Object({ items: Type.Array(HeldLease) }) },
        },
      },
      async () => ({ items: await leases.list() }),
    );
    app.put(
      '/leases/:nodeId',
      {
        config: { access: 'backend' },
        schema: {
          tags: ['leases'],
          summary: 'Renew the leases of a node, take those that are free, release those that are not named',
          params: ByNode,
          body: LeaseWishes,
          response: { 200: LeaseGrants },
        },
      },
      async (request) => {
        const { nodeId } = request.params;
        refuseOtherNodes(request, nodeId);
        return leases.renew(nodeId, request.body.leases, await nodes.standings());
      },
    );
    app.delete(
      '/leases/:nodeId',
      {
        config: { access: 'backend' },
        schema: {
          tags: ['leases'],
          summary: 'Release all leases of a node',
          params: ByNode,
          response: { 204: Type.Null({ description: 'Done.' }) },
        },
      },
      async (request, reply) => {
        refuseOtherNodes(request, request.params.nodeId);
        await leases.release(request.params.nodeId);
        return reply.code(204).send(null);
      },
    );
  };
}
