/** The routes about recordings: what is recorded, and the files of it. */
import fastifyStatic from '@fastify/static';
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox';
import { Asset } from '@starling/model/entities';
import { NewRecording, Recording, RecordingId, RecordingReport } from '@starling/model/recording';
import { Type } from 'typebox';
import type { Recordings } from './recordings.ts';

const ById = Type.Object({ id: RecordingId });
const Done = Type.Null({ description: 'Done.' });

export function recordingRoutes(recordings: Recordings): FastifyPluginAsyncTypebox {
  return async (app) => {
    app.get(
      '/recordings',
      {
        config: { access: 'recordings:read' },
        schema: {
          tags: ['recordings'],
          summary: 'All recordings, newest first',
          response: { 200: Type.Object({ items: Type.Array(Recording) }) },
        },
      },
      async () => ({ items: await recordings.list() }),
    );
    app.post(
      '/recordings',
      {
        config: { access: 'recordings:write' },
        schema: {
          tags: ['recordings'],
          summary: 'Record a channel, or a stream as it comes in, until it is stopped',
          body: NewRecording,
          response: { 201: Recording },
        },
      },
      async (request, reply) => {
        const recording = await recordings.start(request.body);
        return reply.code(201).header('location', `/api/v1/recordings/${recording.id}`).send(recording);
      },
    );
    app.get(
      '/recordings/:id',
      {
        config: { access: 'recordings:read' },
        schema: {
          tags: ['recordings'],
          summary: 'One recording',
          params: ById,
          response: { 200: Recording },
        },
      },
      (request) => recordings.get(request.params.id),
    );
    app.post(
      '/recordings/:id/stop',
      {
        config: { access: 'recordings:write' },
        schema: {
          tags: ['recordings'],
          summary: 'End a recording',
          params: ById,
          response: { 200: Recording },
        },
      },
      (request) => recordings.stop(request.params.id),
    );
    app.delete(
      '/recordings/:id',
      {
        config: { access: 'recordings:write' },
        schema: {
          tags: ['recordings'],
          summary: 'Delete a recording; one that goes on is ended',
          params: ById,
          response: { 204: Done },
        },
      },
      async (request, reply) => {
        await recordings.remove(request.params.id);
        return reply.code(204).send(null);
      },
    );
    app.post(
      '/recordings/:id/import',
      {
        config: { access: 'recordings:write' },
        schema: {
          tags: ['recordings'],
          summary: 'Queue the import of each file of a recording',
          params: ById,
          body: Type.Object(
            { name: Type.Optional(Type.String({ minLength: 1, maxLength: 190 })) },
            { additionalProperties: false },
          ),
          response: { 202: Type.Object({ items: Type.Array(Asset) }) },
        },
      },
      async (request, reply) => {
        const items = await recordings.import(request.params.id, request.body.name);
        return reply.code(202).send({ items });
      },
    );

    await app.register(fastifyStatic, { root: recordings.dir, serve: false });
    app.get(
      '/recordings/:id/file',
      {
        config: { access: 'recordings:read' },
        schema: {
          tags: ['recordings'],
          summary: 'A file of a recording, also while it grows; byte ranges are answered',
          params: ById,
          querystring: Type.Object({
            /** The first where nothing is said. */
            part: Type.Optional(Type.String({ pattern: '^[1-9]\\d{0,3}$' })),
          }),
          response: {
            200: { description: 'Fragmented MP4.', content: { 'video/mp4': { schema: Type.Unknown() } } },
          },
        },
      },
      async (request, reply) => {
        const { root, file } = await recordings.fileOf(request.params.id, Number(request.query.part ?? '1'));
        return reply.sendFile(file, root, { cacheControl: false });
      },
    );

    app.post(
      '/backend/recordings',
      {
        config: { access: 'backend' },
        schema: {
          tags: ['backend'],
          summary: 'Report what is recorded; at each change and every 5 s',
          body: RecordingReport,
          response: { 204: Done },
        },
      },
      async (request, reply) => {
        await recordings.report(request.body);
        return reply.code(204).send(null);
      },
    );
  };
}
