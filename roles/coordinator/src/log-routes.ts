/** The routes of the gathered logs. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox';
import { LogBatch, LogLine, LogQuery } from '@starling/model/log';
import { Type } from 'typebox';
import { processNameOf } from './access.ts';
import type { Logs } from './logs.ts';

export function logRoutes(logs: Logs): FastifyPluginAsyncTypebox {
  return async (app) => {
    app.get(
      '/logs',
      {
        config: { access: 'logs:read' },
        exposeHeadRoute: false,
        schema: {
          tags: ['logs'],
          summary:
            'Lines of the logs of all nodes, oldest first. With `Accept: text/event-stream` they are followed: each event is a line, and ' +
            '`Last-Event-ID` resumes after one',
          querystring: LogQuery,
          response: {
            200: {
              content: {
                'application/json': { schema: Type.Object({ items: Type.Array(LogLine) }) },
                'text/event-stream': { schema: LogLine },
              },
            },
          },
        },
      },
      async (request, reply) => {
        if (request.headers.accept?.includes('text/event-stream') !== true)
          return { items: logs.list(request.query) };
        const lastId = request.headers['last-event-id'];
        const afterId = typeof lastId === 'string' && /^\d{1,16}$/.test(lastId) ? Number(lastId) : undefined;
        logs.follow(reply.raw, request.query, afterId);
        reply.hijack();
        return undefined;
      },
    );
    app.post(
      '/node/logs',
      {
        config: { access: 'node' },
        schema: {
          tags: ['node'],
          summary: 'Ship lines of the log of a process',
          body: LogBatch,
          response: { 204: Type.Null({ description: 'Done.' }) },
        },
      },
      async (request, reply) => {
        logs.take({ ...request.body, node: processNameOf(request, request.body.node) });
        return reply.code(204).send(null);
      },
    );
  };
}
