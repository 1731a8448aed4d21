/**
 * A coordinator on a database of its own, as the tests of this folder use it. They run twice: on the embedded database,
 * and (Vitest's project `postgres`) on a PostgreSQL server.
 */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CoordinatorClient } from '@starling/model/client';
import type { Node, NodeReport, NodeRole } from '@starling/model/node';
import { type NodeIdentity, NodeProver, newNodeIdentity } from '@starling/model/node-identity';
import type { AssetFacts } from '@starling/model/schedule';
import { Client } from 'pg';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { inject } from 'vitest';
import { type Coordinator, startCoordinator } from '../src/main.ts';
import type { OidcSettings } from '../src/oidc.ts';
import { TEMPLATE } from './postgres/setup.ts';

export const operatorToken = 'operator-token-of-the-tests';
export const nodeToken = 'node-token-of-the-tests';

export interface Lab {
  readonly dataDir: string;
  /** Undefined where the database is embedded. */
  readonly databaseUrl: string | undefined;
  readonly url: string;
  readonly coordinator: Coordinator;
  readonly operator: CoordinatorClient;
  readonly node: CoordinatorClient;
  /** What was logged, as JSON lines. */
  readonly log: string[];
  /** Milliseconds since 1970, as the coordinator sees it. */
  nowMs: number;
  /** What the coordinator counts, as Prometheus reads it. */
  readonly registry: Registry;
  /** Asks with a token, or without one, and does not care what comes back. */
  request(
    method: string,
    path: string,
    options?: { token?: string; body?: unknown; headers?: Record<string, string> },
  ): Promise<Response>;
  /** Stops the coordinator and starts another one on the same folder. */
  restart(): Promise<Lab>;
  close(): Promise<void>;
}

/**
 * A new database on the server of the tests.
 * @param template what it is a copy of
 * @returns undefined where the tests run on embedded databases
 */
export async function createServerDatabase(template: string = TEMPLATE): Promise<string | undefined> {
  const serverUrl = inject('postgresUrl');
  if (serverUrl === undefined) return undefined;
  const name = `test_${randomBytes(6).toString('hex')}`;
  const client = new Client({ connectionString: serverUrl.replace(/DATABASE$/, 'postgres') });
  await client.connect();
  await client.query(`create database ${name} template ${template}`);
  await client.end();
  return serverUrl.replace(/DATABASE$/, name);
}

/** All that a coordinator has written: its files, and the rows of a database on the server. */
export async function writtenBytes({ dataDir, databaseUrl }: Lab): Promise<Buffer> {
  const files = readdirSync(dataDir, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => readFileSync(join(entry.parentPath, entry.name)));
  if (databaseUrl === undefined) return Buffer.concat(files);
  const client = new Client({ connectionString: databaseUrl });
  await client.connect();
  const { rows } = await client.query("select database_to_xml(true, false, '') as text");
  await client.end();
  return Buffer.concat([...files, Buffer.from(String(rows[0]?.text))]);
}

export async function startLab(
  options: {
    dataDir?: string;
    databaseUrl?: string | undefined;
    redisUrl?: string;
    smtpUrl?: string;
    webDir?: string;
    oidc?: OidcSettings;
    isOfGroup?: boolean;
    nowMs?: number;
  } = {},
): Promise<Lab> {
  const dataDir = options.dataDir ?? mkdtempSync(join(tmpdir(), 'starling-coordinator-'));
  const databaseUrl = options.databaseUrl ?? (await createServerDatabase());
  const log: string[] = [];
  const clock = { nowMs: options.nowMs ?? Date.UTC(2026, 10, 22, 12, 0, 0, 640) };
  const registry = new Registry();
  const coordinator = await startCoordinator({
    registry,
    dataDir,
    databaseUrl,
    redisUrl: options.redisUrl,
    smtpUrl: options.smtpUrl,
    operatorToken,
    nodeToken,
    webDir: options.webDir,
    oidc: options.oidc,
    isOfGroup: options.isOfGroup ?? false,
    logger: pino({ level: 'trace' }, { write: (line: string) => log.push(line) }),
    now: () => clock.nowMs,
  });
  const { port } = await coordinator.listen('127.0.0.1', 0);
  const url = `http://127.0.0.1:${port}`;
  return {
    dataDir,
    databaseUrl,
    url,
    coordinator,
    registry,
    log,
    operator: new CoordinatorClient({ baseUrl: url, token: operatorToken }),
    node: new CoordinatorClient({ baseUrl: url, token: nodeToken }),
    get nowMs() {
      return clock.nowMs;
    },
    set nowMs(value) {
      clock.nowMs = value;
    },
    request: (method, path, { token, body, headers = {} } = {}) =>
      fetch(`${url}${path}`, {
        method,
        redirect: 'manual',
        headers: {
          ...headers,
          ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
          ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      }),
    async restart() {
      await coordinator.close();
      return startLab({ ...options, dataDir, databaseUrl, nowMs: clock.nowMs });
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

/** Logs in as a browser does. @returns the headers of a request from a page of the site */
export async function logIn(
  lab: Lab,
  name: string,
  password: string,
  code?: string,
): Promise<Record<string, string>> {
  const response = await lab.request('POST', '/api/v1/login', {
    body: { name, password, ...(code === undefined ? {} : { code }) },
  });
  if (response.status !== 200) throw new Error(`login answered ${response.status}: ${await response.text()}`);
  const cookie = response.headers.get('set-cookie')?.split(';')[0] ?? '';
  return { cookie, 'sec-fetch-site': 'same-origin' };
}

export interface JoinedNode {
  readonly identity: NodeIdentity;
  readonly prover: NodeProver;
  readonly node: Node;
  /** Asks with the node's own key. */
  readonly client: CoordinatorClient;
}

/** Invites a node and joins as it. */
export async function joinNode(
  lab: Lab,
  role: NodeRole,
  name = 'node',
  known?: NodeIdentity,
): Promise<JoinedNode> {
  const identity = known ?? (await newNodeIdentity());
  const prover = new NodeProver(identity, () => lab.nowMs);
  const { token } = await lab.operator.nodes.invite({ role, expiresInSeconds: 600 });
  const { nodeId, publicKey } = identity;
  const proof = await prover.proofFor('join');
  const anyone = new CoordinatorClient({ baseUrl: lab.url });
  const node = await anyone.nodes.join({ token, role, nodeId, name, publicKey, proof });
  const client = new CoordinatorClient({ baseUrl: lab.url, token: () => prover.proofFor('coordinator') });
  return { identity, prover, node, client };
}

/** What a node reports that does well. */
export const nodeReport = (change: Partial<NodeReport> = {}): NodeReport => ({
  bootId: '0123456789abcdef',
  version: '0.1.0',
  addresses: { host: '192.0.2.7', httpPort: 8080, pushPorts: [1937] },
  isReady: true,
  isIdle: false,
  cpuCores: 0.1,
  memoryBytes: 100_000_000,
  channelCount: 1,
  viewerCount: 0,
  ...change,
});
