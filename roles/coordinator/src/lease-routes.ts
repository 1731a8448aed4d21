/** The routes about leases: backends renew theirs about every second. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox';
import { HeldLease, LeaseGrants, LeaseWishes, NodeId } from '@starling/model/lease';
import { Type } from 'typebox';
import type { LeaseTable } from './lease-table.ts';

const ByNode = Type.Object({ nodeId: NodeId });

export function leaseRoutes(leases: LeaseTable): FastifyPluginAsyncTypebox {
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
      async () => ({ items: leases.list() }),
    );
    app.put(
      '/leases/:nodeId',
      {
        config: { access: 'node' },
        schema: {
          tags: ['leases'],
          summary: 'Renew the leases of a node, take those that are free, release those that are not named',
          params: ByNode,
          body: LeaseWishes,
          response: { 200: LeaseGrants },
        },
      },
      async (request) => leases.renew(request.params.nodeId, request.body.leases),
    );
    app.delete(
      '/leases/:nodeId',
      {
        config: { access: 'node' },
        schema: {
          tags: ['leases'],
          summary: 'Release all leases of a node',
          params: ByNode,
          response: { 204: Type.Null({ description: 'Done.' }) },
        },
      },
      async (request, reply) => {
        leases.release(request.params.nodeId);
        return reply.code(204).send(null);
      },
    );
  };
}
