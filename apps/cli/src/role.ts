/** `starling frontend`, `backend`, `coordinator` and `balancer`: one role in this process, from a configuration file. */
import { isIPv6 } from 'node:net';
import { resolve } from 'node:path';
import type { OidcSettings } from '@starling/coordinator/oidc';
import type { FrontendSection, OidcSection, StarlingConfig } from '@starling/model/config';
import { DEFAULT_ORIGIN_COUNT } from '@starling/model/distribution';
import type { CoordinatorAccess } from '@starling/model/node-identity';
import type { Secret } from '@starling/model/secret';
import { listenHttp, type RequestHandler } from '@starling/net/http-server';
import type { Logger } from 'pino';
import type { Registry } from 'prom-client';
import packageJson from '../package.json' with { type: 'json' };
import { type RoleSettings, readSettings } from './config-file.ts';
import { joinNetwork, leaveNetwork, type Membership } from './joining.ts';
import { LogShipper } from './log-shipper.ts';
import {
  balancerAddresses,
  ENDLESS_WITHIN_MS,
  ingestAddresses,
  NodeAgent,
  type NodePart,
  peersOf,
  pushTargets,
} from './node-agent.ts';
import { nodeName, startNodeReports } from './node-reports.ts';
import {
  answerHealth,
  asStartError,
  explainStorage,
  findSite,
  firstAccountText,
  httpOptions,
  openLog,
  openRegistry,
  runUntilStopped,
  StartError,
  storageServers,
  workerProgram,
} from './process.ts';
import { announceRunning } from './running.ts';
import { startTracing } from './tracing.ts';
import type { FrontendSettings } from './worker-messages.ts';
import { WorkerPortError, Workers } from './workers.ts';

export const roles = ['frontend', 'backend', 'coordinator', 'balancer'] as const;
export type Role = (typeof roles)[number];

const MAX_PORT = 65_535;
const SIGNALS_SETTLE_MS = 100;

interface RunningRole {
  /** What to tell the operator. */
  readonly says: string;
  /** Who hears how this process is; nobody when undefined. */
  readonly coordinator: CoordinatorAccess | undefined;
  /** Undefined where it is no node: a coordinator. */
  readonly node?: NodePart;
  close(): Promise<void>;
}

export interface RoleFlags {
  /** Instead of what the configuration says. */
  readonly workers: number | undefined;
  /** Asked for where the node has not joined yet. */
  readonly readJoinToken: () => Promise<string>;
}

/**
 * Runs one role until SIGINT or SIGTERM, or until the coordinator has it end.
 * @returns why it ended
 * @throws StartError when it cannot start
 */
export async function runRole(
  role: Role,
  settings: RoleSettings,
  flags: RoleFlags,
): Promise<'stopped' | 'restart' | 'removed'> {
  const { config, readSecret, followSecret, resolvePath } = readSettings(settings);
  const section = config[role];
  if (section === undefined)
    throw new StartError(
      `${'path' in settings ? settings.path : 'The configuration'} has no section "${role}".`,
    );
  const endTracing = await startTracing(`starling-${role}`, process.env);
  const logShipper = new LogShipper();
  const logger = openLog(logShipper).child({ role });
  const registry = openRegistry();
  const readAgain = () => readSettings(settings).config;
  const membership = await membershipOf(role, config, { logger, resolvePath, flags });
  const running = await starters[role](config, {
    ...{ logger, registry, readSecret, followSecret, resolvePath, flags, readAgain, membership },
  });
  let agent: NodeAgent | undefined;
  let end = (_why: 'restart' | 'removed') => {};
  const ended = new Promise<'restart' | 'removed'>((resolve) => {
    end = resolve;
  });
  if (membership !== undefined && running.node !== undefined) {
    agent = await NodeAgent.open({
      ...{ membership, logger, registry },
      part: running.node,
      version: packageJson.version,
      onEnd: end,
    });
  }
  process.stdout.write(`${running.says}\n`);
  const reports =
    running.coordinator &&
    startNodeReports({
      coordinator: running.coordinator,
      registry,
      logShipper,
      ...nodeOf(role, config, resolvePath),
    });
  // A host that ends for good says so, and one that is only started again does not.
  let isLeaving = process.env.STARLING_LEAVE_AT_STOP === '1';
  process.on('SIGUSR2', () => {
    isLeaving = true;
  });
  const leave = async () => {
    if (agent === undefined) return;
    // Of two signals the second may be heard first: each is taken by any of the process's threads.
    await new Promise((wake) => setTimeout(wake, SIGNALS_SETTLE_MS));
    if (isLeaving) await agent.leave();
  };
  const close = async () => {
    if (role !== 'coordinator') await running.close();
    await reports?.close(); // the end of the others is in the log, too
    if (role === 'coordinator') await running.close();
    await agent?.close();
    await endTracing?.();
  };
  const why = await runUntilStopped(close, logger, ended, leave);
  if (why === 'removed' && membership !== undefined) await leaveNetwork(membership);
  return isLeaving ? 'stopped' : why;
}

/** What a process of a role is called, unless it is a node with a name in the registry, and which disks it needs. */
function nodeOf(
  role: Role,
  { frontend, backend, coordinator, balancer }: StarlingConfig,
  resolvePath: (path: string) => string,
): { node: string; folders: string[] } {
  const ports: Record<Role, number | undefined> = {
    frontend: frontend?.http.port,
    backend: backend?.rtmp.port,
    coordinator: coordinator?.http.port,
    balancer: balancer?.https?.port ?? 443,
  };
  const folders: Record<Role, (string | undefined)[]> = {
    frontend: [frontend?.dataDir, frontend?.dvr && resolvePath(frontend.dvr.dir)],
    backend: [backend?.dataDir],
    coordinator: [coordinator?.dataDir],
    balancer: [balancer && resolvePath(balancer.dataDir)],
  };
  return {
    node: nodeName(role, ports[role] ?? 0),
    folders: folders[role].filter((folder) => folder !== undefined),
  };
}

/** Of a role whose section names a coordinator, but no token: it is a node with a key of its own. */
async function membershipOf(
  role: Role,
  config: StarlingConfig,
  { logger, resolvePath, flags }: Pick<Context, 'logger' | 'resolvePath' | 'flags'>,
): Promise<Membership | undefined> {
  if (role === 'coordinator') return undefined;
  const section = config[role];
  if (section?.coordinator === undefined || section.coordinator.tokenFile !== undefined) return undefined;
  if (section.dataDir === undefined)
    throw new StartError(`The section "${role}" needs a dataDir, which keeps the key of the node.`);
  const { url, name, advertise } = section.coordinator;
  return joinNetwork({
    // As each role itself takes it.
    dataDir: role === 'balancer' ? resolvePath(section.dataDir) : resolve(section.dataDir),
    ...{ coordinatorUrl: url, role, name, advertisedHost: advertise, logger },
    readJoinToken: flags.readJoinToken,
  });
}

/**
 * Prints the balancer's effective configuration and what is well or ill with it.
 * @returns false when something is wrong
 * @throws StartError when the configuration cannot be used
 */
export async function checkBalancerRole(configPath: string, wantsJson: boolean): Promise<boolean> {
  const { config, resolvePath } = readSettings({ path: configPath });
  if (config.balancer === undefined) throw new StartError(`${configPath} has no section "balancer".`);
  const { reportOnBalancer } = await import('./balancer.ts');
  return reportOnBalancer(config.balancer, { resolvePath, wantsJson });
}

interface Context {
  readonly logger: Logger;
  readonly registry: Registry;
  readonly followSecret: (path: string) => Secret;
  readonly readSecret: (path: string) => string;
  /** Of a path relative to the configuration file. */
  readonly resolvePath: (path: string) => string;
  readonly flags: RoleFlags;
  /** Where this is a node with a key of its own. */
  readonly membership: Membership | undefined;
  /**
   * Reads the file again.
   * @throws StartError when it is not valid any more
   */
  readonly readAgain: () => StarlingConfig;
}

/**
 * Each loads its role: what the others need would be in memory for months, and V8 would look through it again and
 * again.
 */
const starters: Record<Role, (config: StarlingConfig, context: Context) => Promise<RunningRole>> = {
  async frontend({ frontend: section }, context) {
    if (section === undefined) throw new StartError('no section "frontend"');
    const workers = context.flags.workers ?? section.workers ?? 1;
    if (workers > 1) return startFrontendWorkers({ ...section, workers }, context);
    const { logger, registry } = context;
    const nodeId = context.membership?.identity.nodeId;
    const settings = frontendSettings(section, context);
    const { startFrontend } = await import('@starling/frontend/main');
    const frontend = await startFrontend({ ...settings, logger, registry });
    const health = { isReady: () => frontend.isReady(), metrics: () => registry.metrics() };
    const handle: RequestHandler = (request, response) => {
      if (answerHealth(request, response, health)) return;
      if (!frontend.handleRequest(request, response)) response.writeHead(404).end('Not here.\n');
    };
    const options = httpOptions(registry, section.http);
    const listening = listenHttp(section.http, logger, handle, frontend.handleUpgrade, options);
    const http = await listening.catch(async (error: unknown) => {
      await frontend.close();
      throw error instanceof RangeError ? new StartError(`trustedProxies: ${error.message}`) : error;
    });
    return {
      says: `frontend: HTTP on port ${http.port}, RTMP on port ${frontend.rtmpPort}`,
      coordinator: settings.coordinator,
      node: {
        ports: () => ({ httpPort: http.port, pushPorts: [frontend.rtmpPort] }),
        isReady: () => frontend.isReady(),
        isIdle: () => frontend.viewers().length === 0,
        channelCount: () => frontend.channels().length,
        viewerCount: () => frontend.viewers().length,
        onFleet(fleet) {
          const others = peersOf(fleet, nodeId);
          http.trust([...balancerAddresses(fleet), ...others.map(({ host }) => host)]);
          frontend.setPeers(others);
        },
        drain: () => frontend.drain(ENDLESS_WITHIN_MS),
        resume: () => frontend.resume(),
      },
      async close() {
        await frontend.close();
        await http.close();
      },
    };
  },

  async backend({ backend: section }, context) {
    if (section === undefined) throw new StartError('no section "backend"');
    const { logger, registry, followSecret, resolvePath } = context;
    const listed = (section.frontends ?? []).map(({ host, port, publishTokenFile }) => ({
      host,
      port,
      publishToken: followSecret(publishTokenFile),
    }));
    const coordinator = accessOf(section.coordinator, context);
    const { startBackend } = await import('@starling/backend/main');
    const backend = await startBackend({
      dataDir: section.dataDir,
      mediaDir: section.mediaDir && resolvePath(section.mediaDir),
      recordingsDir: section.recordingsDir && resolvePath(section.recordingsDir),
      coordinator,
      rtmpHost: section.rtmp.host,
      rtmpPort: section.rtmp.port,
      rtmps: section.rtmps && {
        port: section.rtmps.port,
        certificatePath: section.rtmps.certificateFile && resolvePath(section.rtmps.certificateFile),
        privateKeyPath: section.rtmps.privateKeyFile && resolvePath(section.rtmps.privateKeyFile),
      },
      frontends: listed,
      leases:
        section.leaseDir === undefined
          ? { from: 'coordinator' }
          : { from: 'folder', dir: resolvePath(section.leaseDir) },
      logger,
      registry,
    });
    return {
      says: `backend: RTMP on port ${backend.rtmpPort}`,
      coordinator,
      node: {
        ports: () => ({
          rtmpPort: backend.rtmpPort,
          ...(backend.rtmpsPort === undefined ? {} : { rtmpsPort: backend.rtmpsPort }),
        }),
        isReady: () => backend.isReady(),
        isIdle: () => !backend.isBusy,
        channelCount: () => backend.channelCount,
        viewerCount: () => 0,
        onFleet(fleet) {
          backend.setFrontends([...listed, ...pushTargets(fleet)], fleet.distribution);
          backend.setOtherBackends(ingestAddresses(fleet));
        },
        // The coordinator gives its leases to others, and it lets go of each that another has.
        drain() {},
        resume() {},
      },
      close: () => backend.close(),
    };
  },

  async coordinator({ coordinator: section }, { logger, registry, readSecret, followSecret, resolvePath }) {
    if (section === undefined) throw new StartError('no section "coordinator"');
    const { databaseUrlFile, redisUrlFile } = section;
    const { startCoordinator } = await import('@starling/coordinator/main');
    const servers = storageServers(process.env);
    const databaseUrl = databaseUrlFile === undefined ? servers.databaseUrl : readSecret(databaseUrlFile);
    if (section.group === true && databaseUrl === undefined)
      throw new StartError(
        'coordinator.group needs a database server: set databaseUrlFile, or DATABASE_URL.',
      );
    const nodeToken = followSecret(section.nodeTokenFile);
    const coordinator = await startCoordinator({
      dataDir: section.dataDir,
      mediaDir: section.mediaDir && resolvePath(section.mediaDir),
      recordingsDir: section.recordingsDir && resolvePath(section.recordingsDir),
      databaseUrl,
      redisUrl: redisUrlFile === undefined ? servers.redisUrl : readSecret(redisUrlFile),
      operatorToken: followSecret(section.operatorTokenFile),
      nodeToken,
      isOfGroup: section.group === true,
      smtpUrl: section.smtpUrlFile === undefined ? servers.smtpUrl : readSecret(section.smtpUrlFile),
      oidc: section.oidc && oidcSettings(section.oidc, followSecret),
      distribution:
        section.distribution === 'on-demand'
          ? { mode: 'on-demand', originCount: section.originsPerChannel ?? DEFAULT_ORIGIN_COUNT }
          : { mode: 'all' },
      logger,
      registry,
      webDir: findSite(),
    }).catch(explainStorage);
    const { host } = section.http;
    const { port } = await coordinator.listen(host, section.http.port);
    const apiUrl = `http://${/^[0.:]+$/.test(host) ? '127.0.0.1' : isIPv6(host) ? `[${host}]` : host}:${port}`;
    const withdraw = announceRunning(section.dataDir, {
      apiUrl,
      operatorTokenPath: resolvePath(section.operatorTokenFile),
      ...(section.rtmpUrl === undefined ? {} : { rtmpUrl: section.rtmpUrl }),
    });
    const says = `coordinator: HTTP on port ${port}\n${firstAccountText(coordinator.firstAccount)}`.trimEnd();
    return {
      says,
      coordinator: { baseUrl: apiUrl, token: nodeToken },
      async close() {
        withdraw();
        await coordinator.close();
      },
    };
  },

  async balancer({ balancer: section }, context) {
    if (section === undefined) throw new StartError('no section "balancer"');
    const { logger, registry, resolvePath, readAgain } = context;
    const { startBalancerRole } = await import('./balancer.ts');
    const running = await startBalancerRole(section, {
      ...{ logger, registry, resolvePath },
      readAgain: () => readAgain().balancer,
    });
    return { ...running, coordinator: section.coordinator && accessOf(section.coordinator, context) };
  },
};

function oidcSettings(section: OidcSection, followSecret: (path: string) => Secret): OidcSettings {
  const { clientSecretFile, label, roleClaim, scopes, defaultRole, ...rest } = section;
  return {
    ...rest,
    clientSecret: followSecret(clientSecretFile),
    label: label ?? new URL(section.issuer).host,
    roleClaim: roleClaim ?? 'groups',
    scopes: scopes ?? ['openid', 'profile', 'email'],
    defaultRole,
  };
}

function accessOf(
  { url, tokenFile }: { readonly url: string; readonly tokenFile?: string },
  { membership, followSecret }: Pick<Context, 'membership' | 'followSecret'>,
): CoordinatorAccess {
  if (tokenFile !== undefined) return { baseUrl: url, token: followSecret(tokenFile) };
  if (membership === undefined) throw new StartError('coordinator: neither tokenFile nor a key');
  return { baseUrl: url, token: membership.identity };
}

function frontendSettings(
  section: FrontendSection,
  context: Pick<Context, 'followSecret' | 'resolvePath' | 'membership'>,
): FrontendSettings {
  const { rtmp, publishTokenFile, coordinator, dataDir, dvr } = section;
  const { followSecret, resolvePath } = context;
  return {
    rtmpHost: rtmp.host,
    rtmpPort: rtmp.port,
    publishToken: publishTokenFile === undefined ? undefined : followSecret(publishTokenFile),
    coordinator: coordinator && accessOf(coordinator, context),
    dataDir,
    dvr: dvr && { ...dvr, dir: resolvePath(dvr.dir) },
  };
}

/** A frontend in several processes; this one keeps them going. */
async function startFrontendWorkers(
  section: FrontendSection & { workers: number },
  context: Context,
): Promise<RunningRole> {
  const { logger, registry } = context;
  const { http, rtmp, workers: count } = section;
  if (rtmp.port + count - 1 > MAX_PORT)
    throw new StartError(`There are no ${count} ports from rtmp.port ${rtmp.port} on.`);
  registry.setDefaultLabels({ process: 'main' });
  const settings = frontendSettings(section, context);
  const workers = new Workers({
    count,
    node: nodeName('frontend', http.port),
    program: workerProgram(),
    frontend: settings,
    http,
    handleRest(request, response) {
      const health = { isReady: () => workers.isReady(), metrics: () => workers.metrics(registry, []) };
      if (!answerHealth(request, response, health)) response.writeHead(404).end('Not here.\n');
    },
    ownChannels: () => [],
    onRtmpPortsChange: () => {},
    logger,
  });
  await workers.start().catch(async (error: unknown) => {
    await workers.close();
    if (error instanceof RangeError) throw new StartError(`trustedProxies: ${error.message}`);
    const isRtmp = error instanceof WorkerPortError && error.protocol === 'rtmp';
    if (isRtmp) throw asStartError(error, error.port, 'rtmp.port; each worker has one, from there on');
    throw asStartError(error, http.port, 'http.port');
  });
  return {
    says: `frontend: HTTP on port ${workers.port}, RTMP on ports ${workers.rtmpPorts.join(', ')}`,
    coordinator: settings.coordinator,
    node: {
      ports: () => ({ httpPort: workers.port, pushPorts: [...workers.rtmpPorts] }),
      isReady: () => workers.isReady(),
      isIdle: () => workers.viewerIds.size === 0,
      channelCount: () => workers.channelCount,
      viewerCount: () => workers.viewerIds.size,
      onFleet(fleet) {
        const others = peersOf(fleet, context.membership?.identity.nodeId);
        workers.trust([...balancerAddresses(fleet), ...others.map(({ host }) => host)]);
        workers.setPeers(others);
      },
      drain: () => workers.drain(ENDLESS_WITHIN_MS),
      resume: () => workers.resume(),
    },
    close: () => workers.close(),
  };
}
