/** The routes of the REST API below `/api/v1`: each with its schema and who may call it. */
import type { Readable } from 'node:stream';
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox';
import {
  Asset,
  BackendReport,
  BackendState,
  Channel,
  ChannelGuide,
  ChannelUpdate,
  ChannelWithStatus,
  CoordinatorStatus,
  ImportReport,
  Name,
  NewAsset,
  NewChannel,
  NewChannelSources,
  NewStream,
  Problem,
  PublicChannel,
  Rotation,
  SourceChoice,
  Stream,
  StreamUpdate,
  StreamWithKey,
} from '@starling/model/entities';
import {
  FolderReport,
  LibrarySettings,
  LibrarySettingsChange,
  NewWatchedFolder,
  WatchedFolder,
} from '@starling/model/library';
import { NewWebhook, Webhook, WebhookDelivery, WebhookWithSecret } from '@starling/model/webhook';
import type { RouteOptions } from 'fastify';
import { type TSchema, Type } from 'typebox';
import { type Access, isForMachines, nodeIdOf, ownerOnly, refuseOtherNodes } from './access.ts';
import { alarmRoutes } from './alarm-routes.ts';
import type { AlarmWatch } from './alarm-watch.ts';
import type { Alarms } from './alarms.ts';
import type { AssetFiles } from './asset-files.ts';
import type { Assets } from './assets.ts';
import type { BackendPresence } from './backend-presence.ts';
import type { Channels } from './channels.ts';
import { IdempotencyKey, IfMatch } from './conditional-requests.ts';
import { destinationRoutes } from './destination-routes.ts';
import type { Destinations } from './destinations.ts';
import { leaseRoutes } from './lease-routes.ts';
import type { Leases } from './lease-table.ts';
import type { Library } from './library.ts';
import { logRoutes } from './log-routes.ts';
import type { Logs } from './logs.ts';
import type { NodeHealths } from './node-healths.ts';
import { nodeRoutes } from './node-routes.ts';
import type { Nodes } from './nodes.ts';
import { Page, PageQuery } from './page.ts';
import type { PublicChannels } from './public-channels.ts';
import { recordingRoutes } from './recording-routes.ts';
import type { Recordings } from './recordings.ts';
import { scheduleRoutes, unixMsOf } from './schedule-routes.ts';
import type { Schedules } from './schedules.ts';
import type { State } from './state.ts';
import type { Streams } from './streams.ts';
import { type ViewingNouns, viewingRightOf, viewingRoutes, WithViewingToken } from './viewing-routes.ts';
import type { Watch } from './watch.ts';
import type { Webhooks } from './webhooks.ts';

/** What the routes speak to. */
export interface Nouns extends ViewingNouns {
  readonly assets: Assets;
  readonly assetFiles: AssetFiles;
  readonly library: Library;
  readonly channels: Channels;
  readonly schedules: Schedules;
  readonly streams: Streams;
  readonly publicChannels: PublicChannels;
  readonly destinations: Destinations;
  readonly recordings: Recordings;
  readonly leases: Leases;
  readonly nodes: Nodes;
  readonly fleetWatch: Watch;
  readonly webhooks: Webhooks;
  readonly alarms: Alarms;
  readonly alarmWatch: AlarmWatch;
  readonly nodeHealths: NodeHealths;
  readonly logs: Logs;
  readonly presence: BackendPresence;
  readonly watch: Watch;
  readonly state: State;
  /** This network as an HDHomeRun tuner. */
  readonly deviceId: string;
  /** All that the coordinator keeps, compressed. */
  readonly openBackup: () => Promise<Readable>;
  /** How far back the recordings of the channels go; 0 when there are none. */
  readonly catchUpHours: number;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

/** Per caller: each is a key, a channel and a row for good. */
const NEW_STREAMS_LIMIT = { max: 10, windowMs: 60_000 };
const NEW_VIEWING_TOKENS_LIMIT = { max: 10, windowMs: 60_000 };
/** Tokens go into addresses, and so may not get long. */
const MAX_CHANNELS_PER_TOKEN = 32;
const SECONDS_OF_A_SESSION = 12 * 3600;
const Items = <T extends TSchema>(item: T) => Type.Object({ items: Type.Array(item) });
const AssetId = Type.Object({ id: Type.String({ minLength: 1, maxLength: 64 }) });
const AssetIdOfImport = Type.Object({ assetId: AssetId.properties.id });
const AssetFileName = Type.Object({
  ...AssetId.properties,
  fileName: Type.String({ minLength: 1, maxLength: 64, examples: ['poster.jpg'] }),
});
const ById = Type.Object({ id: Type.String({ minLength: 1, maxLength: 64 }) });
const ByName = Type.Object({ name: Name });
/** No body is as good as an empty one. */
const MaybeRotation = Type.Union([Rotation, Type.Null()]);
const Done = Type.Null({ description: 'Done.' });
const problems = {
  description: 'RFC 9457 problem details with a code.',
  content: { 'application/problem+json': { schema: Problem } },
};

/** @param more routes that are part of the same API */
export function apiRoutes(nouns: Nouns, more: FastifyPluginAsyncTypebox): FastifyPluginAsyncTypebox {
  const { assets, assetFiles, library, channels, streams, publicChannels, webhooks, presence } = nouns;
  const { state, watch, viewingTokens } = nouns;
  const startedAt = new Date(nouns.now()).toISOString();
  return async (app) => {
    app.addHook('onRoute', (route) => {
      const access = route.config?.access;
      const response: unknown = route.schema?.response;
      route.schema = {
        ...conditionsOf(route),
        ...route.schema,
        security: securityOf(access),
        response: { ...(typeof response === 'object' ? response : {}), '4xx': problems, '5xx': problems },
      };
    });

    app.get(
      '/assets',
      {
        config: { access: 'assets:read' },
        schema: {
          tags: ['assets'],
          summary: 'The assets, oldest first',
          querystring: PageQuery,
          response: { 200: Page(Asset) },
        },
      },
      (request) => assets.list(request.query),
    );
    app.post(
      '/assets',
      {
        config: { access: 'assets:write' },
        schema: {
          tags: ['assets'],
          summary: 'Queue the import of a file or URL',
          body: NewAsset,
          response: { 202: Asset },
        },
      },
      async (request, reply) => {
        const asset = await assets.add(request.body);
        return reply.code(202).header('location', `/api/v1/assets/${asset.id}`).send(asset);
      },
    );
    app.get(
      '/assets/:id',
      {
        config: { access: 'assets:read' },
        schema: { tags: ['assets'], summary: 'One asset', params: AssetId, response: { 200: Asset } },
      },
      (request) => assets.get(request.params.id),
    );
    app.delete(
      '/assets/:id',
      {
        config: { access: 'assets:write' },
        schema: {
          tags: ['assets'],
          summary: 'Remove an asset that no channel plays; an import that runs is stopped',
          params: AssetId,
          response: { 204: Done },
        },
      },
      async (request, reply) => {
        await assets.remove(request.params.id);
        return reply.code(204).send(null);
      },
    );

    app.post(
      '/assets/:id/cancel',
      {
        config: { access: 'assets:write' },
        schema: {
          tags: ['assets'],
          summary: 'End an import that waits or runs',
          params: AssetId,
          response: { 200: Asset },
        },
      },
      (request) => assets.cancel(request.params.id),
    );
    app.post(
      '/assets/:id/retry',
      {
        config: { access: 'assets:write' },
        schema: {
          tags: ['assets'],
          summary: 'Queue an import again that failed or was cancelled',
          params: AssetId,
          response: { 200: Asset },
        },
      },
      (request) => assets.retry(request.params.id),
    );
    app.get(
      '/assets/:id/files/:fileName',
      {
        config: { access: 'assets:read' },
        schema: {
          tags: ['assets'],
          summary:
            'A small file of an asset: poster.jpg; thumbnails.vtt, which maps times to places on thumbnails-1.jpg ' +
            'and so on; subtitles-1.vtt and so on, as its facts name them',
          params: AssetFileName,
          response: {
            200: {
              description: 'The file.',
              content: {
                'image/jpeg': { schema: Type.Any() },
                'text/vtt': { schema: Type.String() },
              },
            },
          },
        },
      },
      async (request, reply) => {
        const { id, fileName } = request.params;
        const { type, bytes } = await assetFiles.read(await assets.get(id), fileName);
        return reply.type(type).send(bytes);
      },
    );

    app.get(
      '/library/settings',
      {
        config: { access: 'library:read' },
        schema: {
          tags: ['library'],
          summary: 'How imports are done',
          response: { 200: LibrarySettings },
        },
      },
      () => library.settings(),
    );
    app.patch(
      '/library/settings',
      {
        config: { access: 'library:write' },
        schema: {
          tags: ['library'],
          summary: 'Change how imports are done from now on; what is left out stays as it is',
          body: LibrarySettingsChange,
          response: { 200: LibrarySettings },
        },
      },
      (request) => library.changeSettings(request.body),
    );
    app.get(
      '/library/folders',
      {
        config: { access: 'library:read' },
        schema: {
          tags: ['library'],
          summary: 'The watched folders by path',
          querystring: PageQuery,
          response: { 200: Page(WatchedFolder) },
        },
      },
      (request) => library.folders(request.query),
    );
    app.post(
      '/library/folders',
      {
        config: { access: 'library:write' },
        schema: {
          tags: ['library'],
          summary: 'Watch a folder: what is in it and what is put into it is imported',
          body: NewWatchedFolder,
          response: { 201: WatchedFolder },
        },
      },
      async (request, reply) => reply.code(201).send(await library.watch(request.body)),
    );
    app.delete(
      '/library/folders/:id',
      {
        config: { access: 'library:write' },
        schema: {
          tags: ['library'],
          summary: 'Stop watching a folder; its assets stay',
          params: ById,
          response: { 204: Done },
        },
      },
      async (request, reply) => {
        await library.unwatch(request.params.id);
        return reply.code(204).send(null);
      },
    );

    app.get(
      '/channels',
      {
        config: { access: 'channels:read' },
        schema: {
          tags: ['channels'],
          summary: 'The channels by name',
          querystring: PageQuery,
          response: { 200: Page(Channel) },
        },
      },
      (request) => channels.list(request.query),
    );
    app.post(
      '/channels',
      {
        config: { access: 'channels:write' },
        schema: {
          tags: ['channels'],
          summary: 'Add a channel that loops over assets',
          body: NewChannel,
          response: { 201: Channel },
        },
      },
      async (request, reply) => {
        const channel = await channels.add(request.body);
        return reply.code(201).header('location', `/api/v1/channels/${channel.name}`).send(channel);
      },
    );
    const withStatus = (channel: Channel) => ({
      ...channel,
      activeSource: presence.activeSource(channel.name) ?? null,
    });
    app.get(
      '/channels/:name',
      {
        config: { access: 'channels:read' },
        schema: {
          tags: ['channels'],
          summary: 'One channel, and which of its sources is on the air',
          params: ByName,
          response: { 200: ChannelWithStatus },
        },
      },
      async (request) => withStatus(await channels.get(request.params.name)),
    );
    app.put(
      '/channels/:name/sources',
      {
        config: { access: 'channels:write' },
        schema: {
          tags: ['channels'],
          summary: 'Set the chain of sources: primary and backup stream, and what comes after them',
          params: ByName,
          body: NewChannelSources,
          response: { 200: ChannelWithStatus },
        },
      },
      async (request) => withStatus(await channels.setSources(request.params.name, request.body)),
    );
    app.post(
      '/channels/:name/source',
      {
        config: { access: 'channels:write' },
        schema: {
          tags: ['channels'],
          summary: 'Put a source of the chain first, or leave the choice to the chain',
          params: ByName,
          body: Type.Object({ source: SourceChoice }, { additionalProperties: false }),
          response: { 204: Done },
        },
      },
      async (request, reply) => {
        await channels.chooseSource(request.params.name, request.body.source);
        return reply.code(204).send(null);
      },
    );
    app.patch(
      '/channels/:name',
      {
        config: { access: 'channels:write' },
        schema: {
          tags: ['channels'],
          summary: 'Change a channel',
          params: ByName,
          body: ChannelUpdate,
          response: { 200: Channel },
        },
      },
      (request) => channels.update(request.params.name, request.body),
    );
    await app.register(scheduleRoutes(nouns.schedules, nouns.now));
    app.delete(
      '/channels/:name',
      {
        config: { access: 'channels:write' },
        schema: {
          tags: ['channels'],
          summary: 'Remove a playout channel',
          params: ByName,
          response: { 204: Done },
        },
      },
      async (request, reply) => {
        await channels.remove(request.params.name);
        return reply.code(204).send(null);
      },
    );

    app.get(
      '/streams',
      {
        config: { access: 'streams:read' },
        schema: {
          tags: ['streams'],
          summary: 'The streams by name',
          querystring: PageQuery,
          response: { 200: Page(Stream) },
        },
      },
      (request) => streams.list(request.query, ownerOnly(request, 'streams:read')),
    );
    app.post(
      '/streams',
      {
        config: { access: 'streams:write', limit: NEW_STREAMS_LIMIT },
        schema: {
          tags: ['streams'],
          summary: 'Add a stream and its channel; the answer alone holds the key',
          body: NewStream,
          response: { 201: StreamWithKey },
        },
      },
      async (request, reply) =>
        reply.code(201).send(await streams.add(request.body, ownerOnly(request, 'streams:write'))),
    );
    app.patch(
      '/streams/:name',
      {
        config: { access: 'streams:write' },
        schema: {
          tags: ['streams'],
          summary: 'Give a stream to an account, or take it back',
          params: ByName,
          body: StreamUpdate,
          response: { 200: Stream },
        },
      },
      (request) => streams.update(request.params.name, request.body, ownerOnly(request, 'streams:write')),
    );
    app.delete(
      '/streams/:name',
      {
        config: { access: 'streams:write' },
        schema: {
          tags: ['streams'],
          summary: 'Remove a stream and its channel',
          params: ByName,
          response: { 204: Done },
        },
      },
      async (request, reply) => {
        await streams.remove(request.params.name, ownerOnly(request, 'streams:write'));
        return reply.code(204).send(null);
      },
    );
    app.post(
      '/streams/:name/rotate-key',
      {
        config: { access: 'streams:write' },
        schema: {
          tags: ['streams'],
          summary:
            'Give a stream a new key, beside which the old one may do for a time; the answer alone holds it',
          params: ByName,
          body: MaybeRotation,
          response: { 200: StreamWithKey },
        },
      },
      (request) =>
        streams.rotateKey(request.params.name, request.body ?? {}, ownerOnly(request, 'streams:write')),
    );

    await app.register(destinationRoutes(nouns.destinations));

    app.get(
      '/webhooks',
      {
        config: { access: 'webhooks:read' },
        schema: {
          tags: ['webhooks'],
          summary: 'All webhooks, oldest first',
          response: { 200: Items(Webhook) },
        },
      },
      async () => ({ items: await webhooks.list() }),
    );
    app.post(
      '/webhooks',
      {
        config: { access: 'webhooks:write' },
        schema: {
          tags: ['webhooks'],
          summary: 'Send events to an address; the answer alone holds the secret that signs them',
          body: NewWebhook,
          response: { 201: WebhookWithSecret },
        },
      },
      async (request, reply) => reply.code(201).send(await webhooks.add(request.body)),
    );
    app.delete(
      '/webhooks/:id',
      {
        config: { access: 'webhooks:write' },
        schema: {
          tags: ['webhooks'],
          summary: 'Remove a webhook, and what waits for it',
          params: ById,
          response: { 204: Done },
        },
      },
      async (request, reply) => {
        await webhooks.remove(request.params.id);
        return reply.code(204).send(null);
      },
    );
    app.post(
      '/webhooks/:id/rotate-secret',
      {
        config: { access: 'webhooks:write' },
        schema: {
          tags: ['webhooks'],
          summary: 'Sign with a new secret, and for a time with the old one too; the answer alone holds it',
          params: ById,
          body: MaybeRotation,
          response: { 200: WebhookWithSecret },
        },
      },
      (request) => webhooks.rotateSecret(request.params.id, request.body ?? {}),
    );
    app.get(
      '/webhooks/:id/deliveries',
      {
        config: { access: 'webhooks:read' },
        schema: {
          tags: ['webhooks'],
          summary: 'What was sent to a webhook and what waits for it, newest first',
          params: ById,
          response: { 200: Items(WebhookDelivery) },
        },
      },
      async (request) => ({ items: await webhooks.deliveries(request.params.id) }),
    );

    app.get(
      '/status',
      {
        config: { access: 'status:read' },
        schema: {
          tags: ['status'],
          summary: 'What the coordinator says of itself',
          response: { 200: CoordinatorStatus },
        },
      },
      async () => ({
        startedAt,
        revision: (await state.read()).revision,
        watcherCount: watch.watcherCount,
        backendReportedAt:
          presence.reportedAtMs === undefined ? null : new Date(presence.reportedAtMs).toISOString(),
        onAirChannels: [...presence.onAirChannels()],
        publishingStreams: [...presence.publishingStreams()],
      }),
    );

    app.get(
      '/backup',
      {
        config: { access: 'backup:read' },
        schema: {
          tags: ['status'],
          summary: 'All that the coordinator keeps, to restore it from; there are secrets in it',
          response: { 200: { content: { 'application/gzip': { schema: Type.Any() } } } },
        },
      },
      async (_request, reply) => reply.type('application/gzip').send(await nouns.openBackup()),
    );

    app.get(
      '/public/channels',
      {
        config: { access: 'public' },
        schema: {
          tags: ['public'],
          summary: 'Public channels by name, and private ones that the viewing token opens, with what is on',
          querystring: WithViewingToken,
          response: { 200: Items(PublicChannel) },
        },
      },
      async (request) => ({
        items: await publicChannels.list(await viewingRightOf(request, viewingTokens)),
      }),
    );
    app.get(
      '/public/channels/:name',
      {
        config: { access: 'public' },
        schema: {
          tags: ['public'],
          summary: 'One channel, with what is on',
          params: ByName,
          querystring: WithViewingToken,
          response: { 200: PublicChannel },
        },
      },
      async (request) =>
        publicChannels.get(request.params.name, await viewingRightOf(request, viewingTokens)),
    );
    app.post(
      '/me/viewing-token',
      {
        config: { access: 'signed-in', limit: NEW_VIEWING_TOKENS_LIMIT },
        schema: {
          tags: ['login'],
          summary:
            'A viewing token for the private channels that the account may watch; null when there are none',
          response: { 200: Type.Object({ token: Type.Union([Type.String(), Type.Null()]) }) },
        },
      },
      async (request) => {
        const right = await viewingRightOf(request, viewingTokens);
        const watchable = await publicChannels.list(right);
        const channels = watchable.filter(({ isPrivate }) => isPrivate).map(({ name }) => name);
        if (channels.length === 0) return { token: null };
        const { token } = await viewingTokens.create({
          channels: channels.slice(0, MAX_CHANNELS_PER_TOKEN),
          expiresInSeconds: SECONDS_OF_A_SESSION,
          name: request.caller?.name.slice(0, 100) ?? '',
        });
        return { token };
      },
    );
    await app.register(viewingRoutes(nouns));
    await app.register(recordingRoutes(nouns.recordings));
    await app.register(leaseRoutes(nouns.leases, nouns.nodes));
    await app.register(nodeRoutes(nouns.nodes, nouns.fleetWatch));
    await app.register(alarmRoutes(nouns.alarms, nouns.nodeHealths));
    await app.register(logRoutes(nouns.logs));
    await app.register(more);
    app.get(
      '/public/guide',
      {
        config: { access: 'public' },
        schema: {
          tags: ['public'],
          summary: 'The programmes of all channels in a span of time',
          querystring: Type.Object({
            from: Type.Optional(Type.String({ format: 'date-time' })),
            /** 24 where nothing is said; at most 48. */
            hours: Type.Optional(Type.String({ pattern: '^([1-9]|[1-3]\\d|4[0-8])$' })),
            ...WithViewingToken.properties,
          }),
          response: { 200: Items(ChannelGuide) },
        },
      },
      async (request) => {
        const { from, hours = '24' } = request.query;
        const right = await viewingRightOf(request, viewingTokens);
        return { items: await publicChannels.guide(right, unixMsOf(from, nouns.now()), Number(hours)) };
      },
    );

    app.get(
      '/backend/watch',
      {
        config: { access: 'backend' },
        exposeHeadRoute: false,
        schema: {
          tags: ['backend'],
          summary: 'Follow the state: server-sent events, each with the whole state, the first at once',
          response: {
            200: {
              description: 'Events whose data is the state as JSON.',
              content: { 'text/event-stream': { schema: BackendState } },
            },
          },
        },
      },
      (request, reply) => {
        watch.attach(reply.raw, { nodeId: nodeIdOf(request) });
        reply.hijack();
      },
    );
    app.post(
      '/backend/imports/:assetId',
      {
        config: { access: 'backend' },
        schema: {
          tags: ['backend'],
          summary: 'Report how far an import is',
          params: AssetIdOfImport,
          body: ImportReport,
          response: { 204: Done },
        },
      },
      async (request, reply) => {
        await assets.report(request.params.assetId, request.body);
        return reply.code(204).send(null);
      },
    );
    app.post(
      '/backend/folders/:id',
      {
        config: { access: 'backend' },
        schema: {
          tags: ['backend'],
          summary: 'Report complete files of a watched folder',
          params: ById,
          body: FolderReport,
          response: { 204: Done },
        },
      },
      async (request, reply) => {
        await library.report(request.params.id, request.body);
        return reply.code(204).send(null);
      },
    );
    app.post(
      '/backend/report',
      {
        config: { access: 'backend' },
        schema: {
          tags: ['backend'],
          summary: 'Report what is on the air; at each change and every 5 s',
          body: BackendReport,
          response: { 204: Done },
        },
      },
      async (request, reply) => {
        refuseOtherNodes(request, request.body.nodeId);
        presence.report(request.body);
        const fresh = await webhooks.take(request.body.events, request.body.eventSpool);
        nouns.alarmWatch.takeEvents(fresh);
        return reply.code(204).send(null);
      },
    );
  };
}

/** The conditions that a request may be done on. */
function conditionsOf({ method, config }: RouteOptions): { headers?: TSchema } {
  // The network's machines report again what they have reported.
  if (config?.access === 'public' || isForMachines(config?.access)) return {};
  if (method === 'POST') return { headers: IdempotencyKey };
  return method === 'GET' || method === 'HEAD' ? {} : { headers: IfMatch };
}

/** What a route asks for, as OpenAPI says it. */
function securityOf(access: Access | undefined): Record<string, string[]>[] {
  if (access === undefined || access === 'public') return [];
  if (access === 'node') return [{ node: [] }];
  if (access === 'frontend' || access === 'backend') return [{ node: [access] }];
  const scopes = access === 'signed-in' ? [] : [access];
  return [{ token: scopes }, { session: scopes }];
}
