/** `starling frontend`, `backend` and `coordinator`: one role in this process, from a configuration file. */
import { readFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { dirname, resolve } from 'node:path';
import { startBackend } from '@starling/backend/main';
import { startCoordinator } from '@starling/coordinator/main';
import { startFrontend } from '@starling/frontend/main';
import { StarlingConfig } from '@starling/model/config';
import { listenHttp } from '@starling/net/http-server';
import type { Logger } from 'pino';
import type { Registry } from 'prom-client';
import { Value } from 'typebox/value';
import { parse as parseYaml } from 'yaml';
import { answerHealth, findSite, openLog, openRegistry, runUntilStopped, StartError } from './process.ts';

export const roles = ['frontend', 'backend', 'coordinator'] as const;
export type Role = (typeof roles)[number];

interface RunningRole {
  /** What to tell the operator. */
  readonly says: string;
  close(): Promise<void>;
}

/**
 * Runs one role until SIGINT or SIGTERM.
 * @throws StartError when it cannot start
 */
export async function runRole(role: Role, configPath: string): Promise<void> {
  const { config, readSecret, pathOf } = readConfig(configPath);
  const section = config[role];
  if (section === undefined) throw new StartError(`${configPath} has no section "${role}".`);
  const logger = openLog().child({ role });
  const registry = openRegistry();
  const running = await starters[role](config, { logger, registry, readSecret, pathOf });
  process.stdout.write(`${running.says}\n`);
  await runUntilStopped(() => running.close(), logger);
}

interface Context {
  readonly logger: Logger;
  readonly registry: Registry;
  readonly readSecret: (path: string) => string;
  /** A path as the configuration file means it. */
  readonly pathOf: (file: string) => string;
}

const starters: Record<Role, (config: StarlingConfig, context: Context) => Promise<RunningRole>> = {
  async frontend({ frontend: section }, { logger, registry, readSecret }) {
    if (section === undefined) throw new StartError('no section "frontend"');
    const frontend = await startFrontend({
      rtmpHost: section.rtmp.host,
      rtmpPort: section.rtmp.port,
      publishToken: readSecret(section.publishTokenFile),
      logger,
      registry,
    });
    const handle = (request: IncomingMessage, response: ServerResponse) => {
      if (answerHealth(request, response, { isReady: () => frontend.isReady(), registry })) return;
      if (!frontend.handleRequest(request, response)) response.writeHead(404).end('Not here.\n');
    };
    const http = await listenHttp(section.http, logger, handle, frontend.handleUpgrade);
    return {
      says: `frontend: HTTP on port ${http.port}, RTMP on port ${frontend.rtmpPort}`,
      async close() {
        await frontend.close();
        await http.close();
      },
    };
  },

  async backend({ backend: section }, { logger, registry, readSecret, pathOf }) {
    if (section === undefined) throw new StartError('no section "backend"');
    const backend = await startBackend({
      dataDir: section.dataDir,
      coordinator: { baseUrl: section.coordinator.url, token: readSecret(section.coordinator.tokenFile) },
      rtmpHost: section.rtmp.host,
      rtmpPort: section.rtmp.port,
      rtmps: section.rtmps && {
        port: section.rtmps.port,
        certificatePath: section.rtmps.certificateFile && pathOf(section.rtmps.certificateFile),
        privateKeyPath: section.rtmps.privateKeyFile && pathOf(section.rtmps.privateKeyFile),
      },
      frontends: section.frontends.map(({ host, port, publishTokenFile }) => ({
        host,
        port,
        publishToken: readSecret(publishTokenFile),
      })),
      logger,
      registry,
    });
    return { says: `backend: RTMP on port ${backend.rtmpPort}`, close: () => backend.close() };
  },

  async coordinator({ coordinator: section }, { logger, readSecret }) {
    if (section === undefined) throw new StartError('no section "coordinator"');
    const coordinator = await startCoordinator({
      dataDir: section.dataDir,
      operatorToken: readSecret(section.operatorTokenFile),
      nodeToken: readSecret(section.nodeTokenFile),
      logger,
      webDir: findSite(),
    });
    const { port } = await coordinator.listen(section.http.host, section.http.port);
    return { says: `coordinator: HTTP on port ${port}`, close: () => coordinator.close() };
  },
};

/** Reads and checks the file; paths in it are relative to it. */
function readConfig(path: string): { config: StarlingConfig } & Pick<Context, 'readSecret' | 'pathOf'> {
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
  const pathOf = (file: string) => resolve(dirname(path), file);
  const readSecret = (file: string) => {
    try {
      return readFileSync(pathOf(file), 'utf8').trim();
    } catch (error) {
      throw new StartError(
        `${path} names ${file}, which cannot be read (${error instanceof Error ? error.message : error}).`,
      );
    }
  };
  return { config: parsed, readSecret, pathOf };
}
