/** The routes of alarms, and of what nodes say of themselves. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox';
import {
  Alarm,
  AlarmKind,
  AlarmSettings,
  AlarmSettingsChange,
  AlarmState,
  AlarmTest,
} from '@starling/model/alarm';
import { NodeHealth } from '@starling/model/node-health';
import type { FastifyRequest } from 'fastify';
import { Type } from 'typebox';
import { processNameOf } from './access.ts';
import type { Alarms } from './alarms.ts';
import type { NodeHealths } from './node-healths.ts';
import { Page, PageQuery } from './page.ts';

const ById = Type.Object({ id: Type.String({ minLength: 1, maxLength: 64 }) });
const tags = ['alarms'];
/** Each goes to all addresses. */
const TEST_LIMIT = { max: 10, windowMs: 60_000 };

export function alarmRoutes(alarms: Alarms, nodeHealths: NodeHealths): FastifyPluginAsyncTypebox {
  return async (app) => {
    app.get(
      '/alarms',
      {
        config: { access: 'alarms:read' },
        schema: {
          tags,
          summary: 'Alarms, newest first',
          querystring: Type.Object({
            state: Type.Optional(
              Type.Union([AlarmState, Type.Literal('open')], {
                description: '`open`: those that are not resolved',
              }),
            ),
            kind: Type.Optional(AlarmKind),
            target: Type.Optional(Alarm.properties.target),
            ...PageQuery.properties,
          }),
          response: { 200: Page(Alarm) },
        },
      },
      (request) => alarms.list(request.query),
    );
    app.get(
      '/alarms/settings',
      {
        config: { access: 'alarms:read' },
        schema: { tags, summary: 'When there is an alarm', response: { 200: AlarmSettings } },
      },
      () => alarms.settings(),
    );
    app.patch(
      '/alarms/settings',
      {
        config: { access: 'alarms:write' },
        schema: {
          tags,
          summary: 'Change when there is an alarm; what is left out stays as it is',
          body: AlarmSettingsChange,
          response: { 200: AlarmSettings },
        },
      },
      (request) => alarms.changeSettings(request.body),
    );
    app.post(
      '/alarms/test',
      {
        config: { access: 'alarms:write', limit: TEST_LIMIT },
        schema: {
          tags,
          summary: 'Send an alarm that is none to everybody who hears of alarms',
          response: { 202: AlarmTest },
        },
      },
      async (request, reply) => reply.code(202).send(await alarms.test(nameOf(request))),
    );
    app.get(
      '/alarms/:id',
      {
        config: { access: 'alarms:read' },
        schema: { tags, summary: 'One alarm', params: ById, response: { 200: Alarm } },
      },
      (request) => alarms.get(request.params.id),
    );
    app.post(
      '/alarms/:id/acknowledge',
      {
        config: { access: 'alarms:write' },
        schema: { tags, summary: 'Say that somebody is at it', params: ById, response: { 200: Alarm } },
      },
      (request) => alarms.acknowledge(request.params.id, nameOf(request)),
    );
    app.post(
      '/alarms/:id/resolve',
      {
        config: { access: 'alarms:write' },
        schema: {
          tags,
          summary: 'Say that it is over; while it goes on, it is not raised again for ten minutes',
          params: ById,
          response: { 200: Alarm },
        },
      },
      (request) => alarms.resolve(request.params.id, nameOf(request)),
    );
    app.post(
      '/node/health',
      {
        config: { access: 'node' },
        schema: {
          tags: ['node'],
          summary: 'Report that a process is there and what it is short of; every 5 s',
          body: NodeHealth,
          response: { 204: Type.Null({ description: 'Done.' }) },
        },
      },
      async (request, reply) => {
        nodeHealths.report({ ...request.body, node: processNameOf(request, request.body.node) });
        return reply.code(204).send(null);
      },
    );
  };
}

const nameOf = ({ caller }: FastifyRequest): string => caller?.name ?? '';
