/** `starling frontend`, `backend`, `coordinator` and `balancer`: one role in this process, from a configuration file. */
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { type FrontendSection, StarlingConfig } from '@starling/model/config';
import { listenHttp, type RequestHandler } from '@starling/net/http-server';
import type { Logger } from 'pino';
import type { Registry } from 'prom-client';
import { Value } from 'typebox/value';
import { parse as parseYaml } from 'yaml';
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
import type { FrontendSettings } from './worker-messages.ts';
import { WorkerPortError, Workers } from './workers.ts';

export const roles = ['frontend', 'backend', 'coordinator', 'balancer'] as const;
export type Role = (typeof roles)[number];

const MAX_PORT = 65_535;

interface RunningRole {
  /** What to tell the operator. */
  readonly says: string;
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
  const logger = openLog().child({ role });
  const registry = openRegistry();
  const resolvePath = (path: string) => resolve(dirname(configPath), path);
  const readAgain = () => readConfig(configPath).config;
  const running = await starters[role](config, {
    ...{ logger, registry, readSecret, resolvePath, flags, readAgain },
  });
  process.stdout.write(`${running.says}\n`);
  await runUntilStopped(() => running.close(), logger);
}

/**
 * Prints the balancer's effective configuration and what is well or ill with it.
 * @returns false when something is wrong
 * @throws StartError when the configuration cannot be used
 */
export async function checkBalancerRole(configPath: string, wantsJson: boolean): Promise<boolean> {
  const { config } = readConfig(configPath);
  if (config.balancer === undefined) throw new StartError(`${configPath} has no section "balancer".`);
  const { reportOnBalancer } = await import('./balancer.ts');
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
    const { startFrontend } = await import('@starling/frontend/main');
    const frontend = await startFrontend({ ...frontendSettings(section, context), logger, registry });
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
      async close() {
        await frontend.close();
        await http.close();
      },
    };
  },

  async backend({ backend: section }, { logger, registry, readSecret, resolvePath }) {
    if (section === undefined) throw new StartError('no section "backend"');
    const { startBackend } = await import('@starling/backend/main');
    const backend = await startBackend({
      dataDir: section.dataDir,
      coordinator: { baseUrl: section.coordinator.url, token: readSecret(section.coordinator.tokenFile) },
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
    return { says: `backend: RTMP on port ${backend.rtmpPort}`, close: () => backend.close() };
  },

  async coordinator({ coordinator: section }, { logger, readSecret }) {
    if (section === undefined) throw new StartError('no section "coordinator"');
    const { databaseUrlFile, redisUrlFile } = section;
    const { startCoordinator } = await import('@starling/coordinator/main');
    const servers = storageServers(process.env);
    const coordinator = await startCoordinator({
      dataDir: section.dataDir,
      databaseUrl: databaseUrlFile === undefined ? servers.databaseUrl : readSecret(databaseUrlFile),
      redisUrl: redisUrlFile === undefined ? servers.redisUrl : readSecret(redisUrlFile),
      operatorToken: readSecret(section.operatorTokenFile),
      nodeToken: readSecret(section.nodeTokenFile),
      logger,
      webDir: findSite(),
    }).catch(explainStorage);
    const { port } = await coordinator.listen(section.http.host, section.http.port);
    const says = `coordinator: HTTP on port ${port}\n${firstAccountText(coordinator.firstAccount)}`.trimEnd();
    return { says, close: () => coordinator.close() };
  },

  async balancer({ balancer: section }, { logger, registry, resolvePath, readAgain }) {
    if (section === undefined) throw new StartError('no section "balancer"');
    const { startBalancerRole } = await import('./balancer.ts');
    return startBalancerRole(section, {
      ...{ logger, registry, resolvePath },
      readAgain: () => readAgain().balancer,
    });
  },
};

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
  const workers = new Workers({
    count,
    program: workerProgram(),
    frontend: frontendSettings(section, context),
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
    close: () => workers.close(),
  };
}

/** Reads and checks the file; paths in it are relative to it. */
function readConfig(path: string): { config: StarlingConfig; readSecret: (file: string) => string } {
  let parsed: unknown;
  try {
    parsed = parseYaml(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new StartError(`${path} cannot be read: ${error instanceof Error ? error.message : String(error)}`);
  }
  if (!Value.Check(StarlingConfig, parsed)) {
    const [first] = Value.Errors(StarlingConfig, parsed);
    throw new StartError(
      `${path}: ${first?.instancePath || 'the file'} ${first?.message ?? 'is not valid'}.`,
    );
  }
  const readSecret = (file: string) => {
    try {
      return readFileSync(resolve(dirname(path), file), 'utf8').trim();
    } catch (error) {
      throw new StartError(
        `${path} names ${file}, which cannot be read (${error instanceof Error ? error.message : error}).`,
      );
    }
  };
  return { config: parsed, readSecret };
}
