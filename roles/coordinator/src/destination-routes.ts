/** The routes of destinations: where channels are pushed to, and what happens there. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox';
import { Destination, DestinationUpdate, NewDestination } from '@starling/model/destination';
import { Name } from '@starling/model/entities';
import { Type } from 'typebox';
import type { Destinations } from './destinations.ts';

const ByName = Type.Object({ name: Name });
const tags = ['destinations'];

export function destinationRoutes(destinations: Destinations): FastifyPluginAsyncTypebox {
  return async (app) => {
    app.get(
      '/destinations',
      {
        config: { access: 'destinations:read' },
        schema: {
          tags,
          summary: 'All destinations by name, and what happens at each',
          response: { 200: Type.Object({ items: Type.Array(Destination) }) },
        },
      },
      async () => ({ items: await destinations.list() }),
    );
    app.post(
      '/destinations',
      {
        config: { access: 'destinations:write' },
        schema: {
          tags,
          summary: 'Push a channel to an RTMP, RTMPS or SRT address; no answer shows its key',
          body: NewDestination,
          response: { 201: Destination },
        },
      },
      async (request, reply) => {
        const destination = await destinations.add(request.body);
        return reply
          .code(201)
          .header('location', `/api/v1/destinations/${destination.name}`)
          .send(destination);
      },
    );
    app.get(
      '/destinations/:name',
      {
        config: { access: 'destinations:read' },
        schema: { tags, summary: 'One destination', params: ByName, response: { 200: Destination } },
      },
      (request) => destinations.get(request.params.name),
    );
    app.patch(
      '/destinations/:name',
      {
        config: { access: 'destinations:write' },
        schema: {
          tags,
          summary: 'Turn a destination on or off',
          params: ByName,
          body: DestinationUpdate,
          response: { 200: Destination },
        },
      },
      (request) => destinations.setEnabled(request.params.name, request.body.isEnabled),
    );
    app.delete(
      '/destinations/:name',
      {
        config: { access: 'destinations:write' },
        schema: {
          tags,
          summary: 'Remove a destination',
          params: ByName,
          response: { 204: Type.Null({ description: 'Done.' }) },
        },
      },
      async (request, reply) => {
        await destinations.remove(request.params.name);
        return reply.code(204).send(null);
      },
    );
  };
}
