/**
 * Before the end-to-end tests: builds the program, and starts one network that most of them share.
 * Its data folder starts empty, so this is a newcomer's first start.
 */
import type { TestProject } from 'vitest/node';
import { ensureBuilt } from '../tools/build.mjs';
import { type Network, startNetwork } from './network.ts';

declare module 'vitest' {
  export interface ProvidedContext {
    shared: { site: string; rtmp: string; rtmps: string; dataDir: string };
  }
}

let network: Network | undefined;

export async function setup(project: TestProject): Promise<void> {
  await ensureBuilt();
  network = await startNetwork();
  project.provide('shared', {
    site: network.site,
    rtmp: network.rtmp,
    rtmps: network.rtmps,
    dataDir: network.dataDir,
  });
}

export async function teardown(): Promise<void> {
  await network?.stop();
}
