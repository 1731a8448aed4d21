/**
 * The coordinator role: what the network is to do is kept here and told to everyone else. This file is
 * the composition root.
 *
 * The path of a change: `routes` -> a noun (`assets`, `library`, `channels`, `streams`) -> `changes` (one
 * transaction, one revision) -> `state` -> `watch` -> the backends and frontends.
 */

import { mkdir } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { join, resolve } from 'node:path';
import type { Distribution } from '@starling/model/distribution';
import { openSecret, type Secret } from '@starling/model/secret';
import { sql } from 'kysely';
import type { Logger } from 'pino';
import type { Registry } from 'prom-client';
import { Accounts } from './accounts.ts';
import { AlarmWatch, type DatabaseConnections } from './alarm-watch.ts';
import { Alarms } from './alarms.ts';
import { createApi } from './api.ts';
import { ApiTokens } from './api-tokens.ts';
import { AssetFiles } from './asset-files.ts';
import { Assets } from './assets.ts';
import { Audit } from './audit.ts';
import { BackendPresence } from './backend-presence.ts';
import { openBackup } from './backup.ts';
import { Changes } from './changes.ts';
import { Channels } from './channels.ts';
import { lockDataFolder } from './data-folder-lock.ts';
import type { Database } from './database.ts';
import { Destinations } from './destinations.ts';
import { openEmbeddedPostgres } from './embedded-postgres.ts';
import { FleetViewers } from './fleet-viewers.ts';
import { FrontendStates, readViewingRules } from './frontend-states.ts';
import { readDeviceId, TUNER_COUNT } from './hdhomerun.ts';
import { DISCOVERY_PORT, startDiscovery } from './hdhomerun-discovery.ts';
import { LeaseTable } from './lease-table.ts';
import { Library } from './library.ts';
import { Logins } from './logins.ts';
import { Logs } from './logs.ts';
import { Mail } from './mail.ts';
import { CoordinatorMetrics } from './metrics.ts';
import { NodeHealths } from './node-healths.ts';
import { Nodes } from './nodes.ts';
import { OidcLogins, type OidcSettings } from './oidc.ts';
import { connectPeers, noPeers } from './peers.ts';
import { openPostgresServer } from './postgres-server.ts';
import { PublicChannels } from './public-channels.ts';
import { RateLimits } from './rate-limits.ts';
import { Recordings } from './recordings.ts';
import { Schedules } from './schedules.ts';
import { Sessions } from './sessions.ts';
import { SharedCounters } from './shared-counters.ts';
import { SharedLeases } from './shared-leases.ts';
import { readBackendState, Snapshot, withoutPast } from './state.ts';
import { Streams } from './streams.ts';
import { ViewerSessions } from './viewer-sessions.ts';
import { ViewingKeys } from './viewing-keys.ts';
import { ViewingTokens } from './viewing-tokens.ts';
import { Watch } from './watch.ts';
import { Webhooks } from './webhooks.ts';

export interface CoordinatorConfig {
  /** Holds the embedded database, in `db`. One coordinator at a time may use it. */
  readonly dataDir: string;
  /** The backends' library, for posters and subtitles; in the data folder when undefined. */
  readonly mediaDir?: string | undefined;
  /** Where backends keep their recordings, as far as this machine sees them; in the data folder when undefined. */
  readonly recordingsDir?: string | undefined;
  /** Of a PostgreSQL server, with its password: `postgres://...`. The database is embedded when undefined. */
  readonly databaseUrl?: string | undefined;
  /** Of a Redis server, through which several coordinators share what is true for seconds. */
  readonly redisUrl?: string | undefined;
  /** Of the server that takes e-mails, with its password: see `mail.ts`. None are sent when undefined. */
  readonly smtpUrl?: string | undefined;
  /** For who manages the network. */
  readonly operatorToken: Secret;
  /** For the network's own machines. */
  readonly nodeToken: Secret;
  /**
   * Of a group of hosts that are made alike and come and go, on one database server: nodes join with the node token, those that
   * stay away are removed, and the keys of viewing tokens are in the database.
   */
  readonly isOfGroup?: boolean;
  /** Where else people log in; nowhere when undefined. */
  readonly oidc?: OidcSettings | undefined;
  readonly logger: Logger;
  readonly registry: Registry;
  /** The built site to serve; undefined to serve none. */
  readonly webDir: string | undefined;
  /** How far back the frontends' recordings of all channels go; 0 when nothing is said. */
  readonly catchUpHours?: number;
  /** The HTTP port that programs hear of which look for an HDHomeRun tuner; none are answered without it. */
  readonly hdhomerunHttpPort?: number | undefined;
  /** Which frontends of the registry get which channels; all get all when undefined. */
  readonly distribution?: Distribution | undefined;
  /** Milliseconds since 1970. */
  readonly now?: () => number;
}

export interface Coordinator {
  /** Handles one HTTP request that came in on a port of the caller's. */
  readonly handleRequest: (request: IncomingMessage, response: ServerResponse) => void;
  /** The account that this start made, and its one-time password, for the operator's eyes; undefined at later starts. */
  readonly firstAccount: { readonly name: string; readonly password: string } | undefined;
  /** Whether the database answers. */
  readonly isReady: () => boolean;
  /**
   * Opens a port of its own; 0 takes a free one.
   * @throws the system's error when the port cannot be opened
   */
  listen(host: string, port: number): Promise<{ port: number }>;
  close(): Promise<void>;
}

/** A frontend has one for each worker. */
const MAX_NODE_WATCHERS = 2000;
/** At the end, requests that run have so long to finish. */
const DRAIN_MS = 1000;

/**
 * Starts a coordinator.
 * @throws DataFolderError when another process uses the folder or a newer Starling did; the system's error
 *   when the port for HDHomeRun discovery is taken;
 *   DatabaseUnavailable when the database's files do not open or its server does not answer; the system's error when they cannot be written;
 *   MailError when the address of the SMTP server is none
 */
export async function startCoordinator(config: CoordinatorConfig): Promise<Coordinator> {
  const { dataDir, logger, registry, catchUpHours = 0, now = Date.now } = config;
  const { distribution = { mode: 'all' } } = config;
  await mkdir(dataDir, { recursive: true, mode: 0o700 });
  const closers: (() => Promise<void>)[] = [];
  const close = async () => {
    for (const closeOne of closers.splice(0).reverse()) await closeOne();
  };
  try {
    const mail = new Mail(config.smtpUrl);
    const metrics = new CoordinatorMetrics(registry);
    const lock = await lockDataFolder(dataDir);
    closers.push(() => lock.release());
    const database =
      config.databaseUrl === undefined
        ? await openEmbeddedPostgres(join(dataDir, 'db'), logger)
        : await openPostgresServer(config.databaseUrl, logger);
    closers.push(() => database.close());
    const db = database.kysely;
    const changes = new Changes(database);
    const deviceId = await readDeviceId(db);
    const peers = config.redisUrl === undefined ? noPeers : connectPeers(config.redisUrl, deviceId, logger);
    closers.push(() => peers.close());
    const presence = new BackendPresence(peers, now);
    const state = new Snapshot(db, changes, readBackendState);
    const forBackends = {
      read: async () => withoutPast(await state.read(), now()),
      onChange: (listener: () => void) => state.onChange(listener),
    };
    const watch = new Watch(forBackends, logger);
    const groupToken = config.isOfGroup === true ? openSecret(config.nodeToken, now) : undefined;
    const viewingKeys =
      groupToken === undefined
        ? await ViewingKeys.open(dataDir)
        : await ViewingKeys.openShared(db, changes, groupToken);
    const rules = new Snapshot(db, changes, (transaction) => readViewingRules(transaction, now));
    const viewers = new FleetViewers(rules, peers, logger, now);
    const nodes = new Nodes({ db, changes, peers, logger, now, distribution, groupToken });
    closers.push(async () => nodes.close());
    const frontendWatch = new Watch(
      new FrontendStates(rules, viewingKeys, viewers, nodes),
      logger,
      MAX_NODE_WATCHERS,
    );
    const fleetWatch = new Watch(nodes, logger, MAX_NODE_WATCHERS);
    const watches = [watch, frontendWatch, fleetWatch];
    nodes.onChange(() => {
      if (!watches.some(({ isFollowedByNodes }) => isFollowedByNodes)) return;
      nodes.removedIds().then(
        (removed) => {
          for (const one of watches) one.end(removed);
        },
        () => {}, // the database is away; those who ask again are refused
      );
    });
    const viewerSessions = new ViewerSessions(db, logger, now);
    closers.push(async () => viewerSessions.close());
    const schedules = new Schedules(db, changes, logger, now);
    await schedules.start();
    closers.push(async () => schedules.close());
    const webhooks = new Webhooks({ db, mail, metrics, logger, now });
    closers.push(() => webhooks.close());
    const logs = await Logs.open({ dir: join(dataDir, 'logs'), metrics, logger, startedAtUnixMs: now() });
    const nodeHealths = new NodeHealths(peers, now);
    const alarms = new Alarms({ db, webhooks, logger, now });
    const alarmWatch = new AlarmWatch({
      alarms,
      readState: () => state.read(),
      presence,
      nodes: nodeHealths,
      registry: nodes,
      connections: config.databaseUrl === undefined ? undefined : () => readConnections(database),
      logger,
      now,
    });
    closers.push(() => alarmWatch.close());
    metrics.watch(registry, {
      isDatabaseUp: () => database.isUp(),
      backendCount: () => presence.backendCount,
      nodeCount: () => nodeHealths.all().length,
      watcherCounts: () => ({ backend: watch.watcherCount, frontend: frontendWatch.watcherCount }),
      openAlarms: () => alarmWatch.openCounts(),
    });
    const onLoginFailure = (account: string | undefined, address: string) => {
      metrics.failedLogins.inc();
      alarmWatch.loginFailed(account, address);
    };
    const sessions = new Sessions(db, changes, logger, now);
    const accounts = new Accounts(db, changes, logger, now);
    const firstAccount = await accounts.makeFirst();
    const audit = new Audit(db, logger);
    closers.push(async () => audit.close());
    const rateLimits = new RateLimits(new SharedCounters(peers, now));
    const assets = new Assets(db, changes, peers, logger, now);
    const recordingsDir = resolve(config.recordingsDir ?? join(dataDir, 'recordings'));
    await mkdir(recordingsDir, { recursive: true, mode: 0o700 });
    let closing: Promise<void> | undefined;
    const isReady = () => closing === undefined && database.isUp();
    const app = await createApi(
      { ...config, db, now, isReady, rateLimits, metrics },
      {
        accounts,
        sessions,
        audit,
        oidc: config.oidc && new OidcLogins(config.oidc, { sessions, changes, logger, now }),
        logins: new Logins(db, sessions, onLoginFailure, logger, now),
        apiTokens: new ApiTokens(db, changes, logger, now),
        assets,
        library: new Library(db, changes, logger, now),
        assetFiles: new AssetFiles(config.mediaDir ?? join(dataDir, 'media')),
        leases: config.databaseUrl === undefined ? new LeaseTable(now()) : await SharedLeases.open(db),
        nodes,
        fleetWatch,
        recordings: new Recordings({ db, changes, assets, dir: recordingsDir, logger, now }),
        channels: new Channels(db, changes, logger, now),
        schedules,
        streams: new Streams(db, changes, presence, logger, now),
        publicChannels: new PublicChannels(state, presence, viewers, now),
        viewingTokens: new ViewingTokens(db, changes, viewingKeys, rules, logger, now),
        viewers,
        viewerSessions,
        frontendWatch,
        destinations: new Destinations({ db, changes, presence, logger, now }),
        webhooks,
        alarms,
        alarmWatch,
        nodeHealths,
        logs,
        presence,
        state,
        watch,
        openBackup: () => openBackup(db, dataDir),
        deviceId,
        catchUpHours,
        now,
      },
    );
    closers.push(async () => {
      const deadline = setTimeout(() => app.server.closeAllConnections(), DRAIN_MS);
      await app.close();
      clearTimeout(deadline);
    });
    if (config.hdhomerunHttpPort !== undefined) {
      const discovery = await startDiscovery({
        port: DISCOVERY_PORT,
        deviceId,
        tunerCount: TUNER_COUNT,
        httpPort: config.hdhomerunHttpPort,
        logger,
      });
      closers.push(() => discovery.close());
    }
    // First to close: the answers to watchers would otherwise never end.
    closers.push(async () => {
      for (const one of watches) one.close();
      await logs.close();
    });
    return {
      firstAccount,
      handleRequest: (request, response) => app.routing(request, response),
      isReady,
      async listen(host, listenPort) {
        await app.listen({ host, port: listenPort });
        const [address] = app.addresses();
        if (typeof address !== 'object')
          throw new Error(`The coordinator listens on ${address}, not on a port`);
        return { port: address.port };
      },
      close: () => {
        closing ??= close();
        return closing;
      },
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Of all who are connected to the server; undefined while it does not say. */
async function readConnections({ kysely }: Database): Promise<DatabaseConnections | undefined> {
  const { rows } = await sql<{ used: number; max: number }>`
    select (select count(*)::int4 from pg_stat_activity where backend_type = 'client backend') as used,
      current_setting('max_connections')::int4 as max
  `.execute(kysely);
  return rows[0];
}
