/** A coordinator on a database of its own, as the tests of this folder use it. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CoordinatorClient } from '@starling/model/client';
import type { AssetFacts } from '@starling/model/schedule';
import { pino } from 'pino';
import { type Coordinator, startCoordinator } from '../src/main.ts';

export const operatorToken = 'operator-token-of-the-tests';
export const nodeToken = 'node-token-of-the-tests';

export interface Lab {
  readonly dataDir: string;
  readonly url: string;
  readonly coordinator: Coordinator;
  readonly operator: CoordinatorClient;
  readonly node: CoordinatorClient;
  /** What was logged, as JSON lines. */
  readonly log: string[];
  /** Milliseconds since 1970, as the coordinator sees it. */
  nowMs: number;
  /** Asks with a token, or without one, and does not care what comes back. */
  request(method: string, path: string, options?: { token?: string; body?: unknown }): Promise<Response>;
  /** Stops the coordinator and starts another one on the same folder. */
  restart(): Promise<Lab>;
  close(): Promise<void>;
}

export async function startLab(
  options: { dataDir?: string; webDir?: string; nowMs?: number } = {},
): Promise<Lab> {
  const dataDir = options.dataDir ?? mkdtempSync(join(tmpdir(), 'starling-coordinator-'));
  const log: string[] = [];
  const clock = { nowMs: options.nowMs ?? Date.UTC(2026, 10, 22, 12, 0, 0, 640) };
  const coordinator = await startCoordinator({
    dataDir,
    operatorToken,
    nodeToken,
    webDir: options.webDir,
    logger: pino({ level: 'trace' }, { write: (line: string) => log.push(line) }),
    now: () => clock.nowMs,
  });
  const { port } = await coordinator.listen('127.0.0.1', 0);
  const url = `http://127.0.0.1:${port}`;
  return {
    dataDir,
    url,
    coordinator,
    log,
    operator: new CoordinatorClient({ baseUrl: url, token: operatorToken }),
    node: new CoordinatorClient({ baseUrl: url, token: nodeToken }),
    get nowMs() {
      return clock.nowMs;
    },
    set nowMs(value) {
      clock.nowMs = value;
    },
    request: (method, path, { token, body } = {}) =>
      fetch(`${url}${path}`, {
        method,
        headers: {
          ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
          ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      }),
    async restart() {
      await coordinator.close();
      return startLab({ ...options, dataDir, nowMs: clock.nowMs });
    },
    async close() {
      await coordinator.close();
      rmSync(dataDir, { recursive: true, force: true });
    },
  };
}

/** Facts of an asset that lasts `seconds`, in segments of 2 s. */
export function factsOf(seconds: number, overrides: Partial<AssetFacts> = {}): AssetFacts {
  return {
    contentHash: 'a'.repeat(64),
    configHash: 'b'.repeat(64),
    durationTicks: seconds * 90_000,
    segmentCount: seconds / 2,
    sizeBytes: 1_000_000,
    widthPx: 1280,
    heightPx: 720,
    frameRate: 25,
    videoTracks: [{ widthPx: 1280, heightPx: 720, bitrateBps: 2_000_000 }],
    audioTracks: [{ language: null, loudnessLufs: -20, gainDb: -3 }],
    subtitles: [],
    hasPictures: true,
    ...overrides,
  };
}

/** Adds an asset and reports it ready, as a backend does. */
export async function addReadyAsset(lab: Lab, name: string, seconds: number): Promise<string> {
  const { id } = await lab.operator.assets.create({ source: `/videos/${name}.mp4` });
  await lab.node.reportImport(id, { state: 'ready', facts: factsOf(seconds) });
  return id;
}
