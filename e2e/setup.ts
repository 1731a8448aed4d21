/**
 * Before the end-to-end tests: builds the program, and starts one network that most of them share.
 * Its data folder starts empty, so this is a newcomer's first start.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';
import { ensureBuilt } from '../tools/build.mjs';
import { type Network, startNetwork } from './network.ts';

declare module 'vitest' {
  export interface ProvidedContext {
    shared: { site: string; rtmp: string; rtmps: string; dataDir: string; logPath: string };
  }
}

let network: Network | undefined;
let logFolder: string | undefined;

export async function setup(project: TestProject): Promise<void> {
  await ensureBuilt();
  logFolder = mkdtempSync(join(tmpdir(), 'starling-e2e-log-'));
  const logPath = join(logFolder, 'shared.log');
  network = await startNetwork({ logPath, env: { STARLING_LOG_LEVEL: 'debug' } });
  const { site, rtmp, rtmps, dataDir } = network;
  project.provide('shared', { site, rtmp, rtmps, dataDir, logPath });
}

export async function teardown(): Promise<void> {
  await network?.stop();
  if (logFolder !== undefined) rmSync(logFolder, { recursive: true, force: true });
}
