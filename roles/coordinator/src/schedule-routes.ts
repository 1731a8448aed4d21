/** The routes of a channel's schedule. A schedule goes in and out as JSON, YAML or CSV. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox';
import { Name, ScheduleChange, ScheduledItem } from '@starling/model/entities';
import { Effective, Schedule } from '@starling/model/schedule-definition';
import { Type } from 'typebox';
import { ApiProblem } from './problem.ts';
import { parseCsv, parseYaml, toCsv, toYaml } from './schedule-files.ts';
import type { Schedules } from './schedules.ts';

const MAX_PREVIEW_HOURS = 31 * 24;
const ByName = Type.Object({ name: Name });

const YAML = 'application/yaml';
const CSV = 'text/csv';
const asText = { schema: Type.String() };

/** @param now milliseconds since 1970 */
export function scheduleRoutes(schedules: Schedules, now: () => number): FastifyPluginAsyncTypebox {
  return async (app) => {
    app.addContentTypeParser(YAML, { parseAs: 'string' }, async (_request: unknown, body: string) =>
      parseYaml(body),
    );
    app.addContentTypeParser(CSV, { parseAs: 'string' }, async (_request: unknown, body: string) =>
      parseCsv(body),
    );

    app.get(
      '/channels/:name/schedule',
      {
        config: { access: 'schedules:read' },
        schema: {
          tags: ['schedules'],
          summary: "A channel's schedule, in the form that Accept asks for",
          params: ByName,
          response: {
            200: {
              description: 'The schedule that was set last.',
              content: { 'application/json': { schema: Schedule }, [YAML]: asText, [CSV]: asText },
            },
          },
        },
      },
      async (request, reply) => {
        const schedule = await schedules.get(request.params.name);
        const accept = request.headers.accept ?? '';
        if (accept.includes(CSV)) return reply.type(`${CSV}; charset=utf-8`).send(toCsv(schedule));
        if (accept.includes(YAML)) return reply.type(`${YAML}; charset=utf-8`).send(toYaml(schedule));
        return reply.type('application/json; charset=utf-8').send(schedule);
      },
    );
    app.put(
      '/channels/:name/schedule',
      {
        config: { access: 'schedules:write' },
        schema: {
          tags: ['schedules'],
          summary: 'Give a channel another schedule, as JSON, YAML or CSV, while it is on the air or not',
          params: ByName,
          querystring: Type.Object({ effective: Type.Optional(Effective) }, { additionalProperties: false }),
          body: Schedule,
          response: { 200: ScheduleChange },
        },
        attachValidation: true,
      },
      async (request) => {
        // `Schedules` checks the body too, and says better where it is wrong.
        const { validationError } = request;
        if (validationError && validationError.validationContext !== 'body') throw validationError;
        const { effective = 'boundary' } = request.query;
        const effectiveAtMs = await schedules.set(request.params.name, request.body, effective);
        return { effectiveAt: new Date(effectiveAtMs).toISOString() };
      },
    );
    app.get(
      '/channels/:name/schedule/preview',
      {
        config: { access: 'schedules:read' },
        schema: {
          tags: ['schedules'],
          summary: 'What is on in a span of time, at most 2000 items',
          params: ByName,
          querystring: Type.Object(
            {
              from: Type.Optional(Type.String({ format: 'date-time' })),
              hours: Type.Optional(Type.String({ pattern: '^\\d{1,3}$' })),
            },
            { additionalProperties: false },
          ),
          response: { 200: Type.Object({ items: Type.Array(ScheduledItem) }) },
        },
      },
      async (request) => {
        const { from, hours = '24' } = request.query;
        const fromMs = unixMsOf(from, now());
        return {
          items: await schedules.preview(
            request.params.name,
            fromMs,
            Math.min(Number(hours), MAX_PREVIEW_HOURS),
          ),
        };
      },
    );
  };
}

/**
 * A time of a query, or the present where it is left out.
 * @throws ApiProblem REQUEST_INVALID for a leap second, which the schema's form allows and the clocks here do not have
 */
export function unixMsOf(text: string | undefined, nowMs: number): number {
  const unixMs = text === undefined ? nowMs : Date.parse(text);
  if (Number.isNaN(unixMs)) throw new ApiProblem('REQUEST_INVALID', `There is no time ${text}.`);
  return unixMs;
}
