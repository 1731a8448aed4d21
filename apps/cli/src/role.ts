/** `starling frontend`, `backend`, `coordinator` and `balancer`: one role in this process, from a configuration file. */
import { dirname, resolve } from 'node:path';
import { startBackend } from '@starling/backend/main';
import { startCoordinator } from '@starling/coordinator/main';
import type { OidcSettings } from '@starling/coordinator/oidc';
import { startFrontend } from '@starling/frontend/main';
import { type FrontendSection, type OidcSection, StarlingConfig } from '@starling/model/config';
import { listenHttp, type RequestHandler } from '@starling/net/http-server';
import type { Logger } from 'pino';
import type { Registry } from 'prom-client';
import { reportOnBalancer, startBalancerRole } from './balancer.ts';
import { readConfig } from './config-file.ts';
import { LogShipper } from './log-shipper.ts';
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
import { startTracing } from './tracing.ts';
import type { FrontendSettings } from './worker-messages.ts';
import { WorkerPortError, Workers } from './workers.ts';

export const roles = ['frontend', 'backend', 'coordinator', 'balancer'] as const;
export type Role = (typeof roles)[number];

const MAX_PORT = 65_535;

interface RunningRole {
  /** What to tell the operator. */
  readonly says: string;
  /** Who hears how this process is; nobody when undefined. */
  readonly coordinator: { readonly baseUrl: string; readonly token: string } | undefined;
  close(): Promise<void>;
}

export interface RoleFlags {
  /** Instead of what the configuration says. */
  readonly workers: number | undefined;
}

/**
 * Runs one role until SIGINT or SIGTERM.
 * @throws StartError when it cannot start
 */
export async function runRole(role: Role, configPath: string, flags: RoleFlags): Promise<void> {
  const { config, readSecret } = readConfig(configPath);
  const section = config[role];
  if (section === undefined) throw new StartError(`${configPath} has no section "${role}".`);
  const endTracing = await startTracing(`starling-${role}`, process.env);
  const logShipper = new LogShipper();
  const logger = openLog(logShipper).child({ role });
  const registry = openRegistry();
  const resolvePath = (path: string) => resolve(dirname(configPath), path);
  const readAgain = () => readConfig(configPath).config;
  const running = await starters[role](config, {
    ...{ logger, registry, readSecret, resolvePath, flags, readAgain },
  });
  process.stdout.write(`${running.says}\n`);
  const reports =
    running.coordinator &&
    startNodeReports({
      coordinator: running.coordinator,
      registry,
      logShipper,
      ...nodeOf(role, config, resolvePath),
    });
  const close = async () => {
    if (role !== 'coordinator') await running.close();
    await reports?.close(); // the end of the others is in the log, too
    if (role === 'coordinator') await running.close();
    await endTracing?.();
  };
  await runUntilStopped(close, logger);
}

/** What a process of a role is called, and which disks it needs. */
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

/**
 * Prints the balancer's effective configuration and what is well or ill with it.
 * @returns false when something is wrong
 * @throws StartError when the configuration cannot be used
 */
export function checkBalancerRole(configPath: string, wantsJson: boolean): Promise<boolean> {
  const { config } = readConfig(configPath);
  if (config.balancer === undefined) throw new StartError(`${configPath} has no section "balancer".`);
  const resolvePath = (path: string) => resolve(dirname(configPath), path);
  return reportOnBalancer(config.balancer, { resolvePath, wantsJson });
}

interface Context {
  readonly logger: Logger;
  readonly registry: Registry;
  readonly readSecret: (path: string) => string;
  /** Of a path relative to the configuration file. */
  readonly resolvePath: (path: string) => string;
  readonly flags: RoleFlags;
  /**
   * Reads the file again.
   * @throws StartError when it is not valid any more
   */
  readonly readAgain: () => StarlingConfig;
}

const starters: Record<Role, (config: StarlingConfig, context: Context) => Promise<RunningRole>> = {
  async frontend({ frontend: section }, context) {
    if (section === undefined) throw new StartError('no section "frontend"');
    const workers = context.flags.workers ?? section.workers ?? 1;
    if (workers > 1) return startFrontendWorkers({ ...section, workers }, context);
    const { logger, registry } = context;
    const settings = frontendSettings(section, context);
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
      async close() {
        await frontend.close();
        await http.close();
      },
    };
  },

  async backend({ backend: section }, { logger, registry, readSecret, resolvePath }) {
    if (section === undefined) throw new StartError('no section "backend"');
    const coordinator = {
      baseUrl: section.coordinator.url,
      token: readSecret(section.coordinator.tokenFile),
    };
    const backend = await startBackend({
      dataDir: section.dataDir,
      coordinator,
      rtmpHost: section.rtmp.host,
      rtmpPort: section.rtmp.port,
      rtmps: section.rtmps && {
        port: section.rtmps.port,
        certificatePath: section.rtmps.certificateFile && resolvePath(section.rtmps.certificateFile),
        privateKeyPath: section.rtmps.privateKeyFile && resolvePath(section.rtmps.privateKeyFile),
      },
      frontends: section.frontends.map(({ host, port, publishTokenFile }) => ({
        host,
        port,
        publishToken: readSecret(publishTokenFile),
      })),
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
      close: () => backend.close(),
    };
  },

  async coordinator({ coordinator: section }, { logger, registry, readSecret }) {
    if (section === undefined) throw new StartError('no section "coordinator"');
    const { databaseUrlFile, redisUrlFile } = section;
    const servers = storageServers(process.env);
    const nodeToken = readSecret(section.nodeTokenFile);
    const coordinator = await startCoordinator({
      dataDir: section.dataDir,
      databaseUrl: databaseUrlFile === undefined ? servers.databaseUrl : readSecret(databaseUrlFile),
      redisUrl: redisUrlFile === undefined ? servers.redisUrl : readSecret(redisUrlFile),
      operatorToken: readSecret(section.operatorTokenFile),
      nodeToken,
      smtpUrl: section.smtpUrlFile === undefined ? servers.smtpUrl : readSecret(section.smtpUrlFile),
      oidc: section.oidc && oidcSettings(section.oidc, readSecret),
      logger,
      registry,
      webDir: findSite(),
    }).catch(explainStorage);
    const { port } = await coordinator.listen(section.http.host, section.http.port);
    const says = `coordinator: HTTP on port ${port}\n${firstAccountText(coordinator.firstAccount)}`.trimEnd();
    const here = /^(0\.0\.0\.0|::)?$/.test(section.http.host) ? '127.0.0.1' : section.http.host;
    const baseUrl = `http://${here.includes(':') ? `[${here}]` : here}:${port}`;
    return { says, coordinator: { baseUrl, token: nodeToken }, close: () => coordinator.close() };
  },

  async balancer({ balancer: section }, { logger, registry, readSecret, resolvePath, readAgain }) {
    if (section === undefined) throw new StartError('no section "balancer"');
    const running = await startBalancerRole(section, {
      ...{ logger, registry, resolvePath },
      readAgain: () => readAgain().balancer,
    });
    const coordinator = section.coordinator && {
      baseUrl: section.coordinator.url,
      token: readSecret(section.coordinator.tokenFile),
    };
    return { ...running, coordinator };
  },
};

function oidcSettings(section: OidcSection, readSecret: (path: string) => string): OidcSettings {
  const { clientSecretFile, label, roleClaim, scopes, defaultRole, ...rest } = section;
  return {
    ...rest,
    clientSecret: readSecret(clientSecretFile),
    label: label ?? new URL(section.issuer).host,
    roleClaim: roleClaim ?? 'groups',
    scopes: scopes ?? ['openid', 'profile', 'email'],
    defaultRole,
  };
}

/** A frontend in several processes; this one keeps them going. */
function frontendSettings(
  section: FrontendSection,
  { readSecret, resolvePath }: Pick<Context, 'readSecret' | 'resolvePath'>,
): FrontendSettings {
  const { rtmp, publishTokenFile, coordinator, dataDir, dvr } = section;
  return {
    rtmpHost: rtmp.host,
    rtmpPort: rtmp.port,
    publishToken: readSecret(publishTokenFile),
    coordinator: coordinator && { baseUrl: coordinator.url, token: readSecret(coordinator.tokenFile) },
    dataDir,
    dvr: dvr && { ...dvr, dir: resolvePath(dvr.dir) },
  };
}

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
    close: () => workers.close(),
  };
}
