/**
 * What every node does beside its role: it follows the fleet, reports on itself, and does what it is told: drain, work again,
 * restart. With the coordinator gone the fleet stays as it was last heard of, also over a restart.
 *
 * | told to be   | then                                                                                |
 * | ------------ | ----------------------------------------------------------------------------------- |
 * | `joined`     | it works                                                                            |
 * | `cordoned`   | it works on; the others give it nothing new                                         |
 * | `draining`   | it hands over what it has, and is idle when that is done, after 30 s at the latest  |
 * | the same, and to restart | it then ends with code 75                                               |
 * | `removed`    | it ends with code 1                                                                 |
 *
 * Where its host ends for good, as a host of a group does, a node asks to be drained, and then to be removed.
 */
import { randomBytes } from 'node:crypto';
import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { PeerFrontend } from '@starling/frontend/pulls';
import { ApiError } from '@starling/model/client';
import { Fleet, type NodeAddresses, type NodeReport } from '@starling/model/node';
import { openCoordinator } from '@starling/model/node-identity';
import type { Logger } from 'pino';
import { Gauge, type Registry } from 'prom-client';
import { Check } from 'typebox/value';
import type { Membership } from './joining.ts';

const FILE = 'fleet.json';
const REPORT_EVERY_MS = 5000;
const LOOK_EVERY_MS = 100;
const FIRST_RETRY_MS = 500;
/** What a node that drains may take to hand over what it has. */
const DRAIN_WITHIN_MS = 30_000;
/**
 * The same for one whose host ends for good: systemd and Amazon ECS kill 30 s after they asked, and closing takes some of them.
 */
const LEAVE_WITHIN_MS = 15_000;
/** Until the coordinator has taken the last report. */
const LEAVE_DEADLINE_MS = LEAVE_WITHIN_MS + 3000;
/** Of it, until the last viewer on an endless answer is sent away; players of HLS leave by themselves, with a balancer. */
export const ENDLESS_WITHIN_MS = DRAIN_WITHIN_MS / 3;

/** What a role shows of itself, and how it is told what to do. */
export interface NodePart {
  /** Without the host. */
  ports(): Omit<NodeAddresses, 'host'>;
  isReady(): boolean;
  /** Nobody relies on it. */
  isIdle(): boolean;
  channelCount(): number;
  viewerCount(): number;
  /** Another fleet from now on. */
  onFleet(fleet: Fleet): void;
  drain(): void;
  /** Works again. */
  resume(): void;
}

export interface NodeAgentOptions {
  readonly membership: Membership;
  readonly part: NodePart;
  readonly version: string;
  readonly logger: Logger;
  readonly registry: Registry;
  /** The process is to end: to be started again, or for good. */
  readonly onEnd: (why: 'restart' | 'removed') => void;
}

export class NodeAgent {
  readonly #options: NodeAgentOptions;
  readonly #client: ReturnType<typeof openCoordinator>;
  readonly #bootId = randomBytes(8).toString('hex');
  readonly #abort = new AbortController();
  #watching: Promise<void> = Promise.resolve();
  #saving: Promise<void> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;
  #fleet: Fleet | undefined;
  #isConnected = false;
  #drainedByMs: number | undefined;
  #isEnding = false;
  #isLeaving = false;
  #onEnded = () => {};
  #isReporting = false;
  #reported = '';
  #reportDueAtMs = 0;
  #failures = 0;
  #cpu = { usage: process.cpuUsage(), atMs: performance.now(), cores: 0 };

  private constructor(options: NodeAgentOptions) {
    this.#options = options;
    const { identity, coordinatorUrl } = options.membership;
    this.#client = openCoordinator({ baseUrl: coordinatorUrl, token: identity });
    const gauge = (name: string, help: string, value: () => number) =>
      new Gauge({
        ...{ name, help, registers: [options.registry] },
        collect() {
          this.set(value());
        },
      });
    gauge('starling_node_coordinator_up', '1 while the node follows the fleet', () =>
      Number(this.#isConnected),
    );
    gauge(
      'starling_node_fleet_revision',
      'Of the fleet as the node knows it',
      () => this.#fleet?.revision ?? 0,
    );
    gauge(
      'starling_node_fleet_nodes',
      'Nodes of the fleet as the node knows it',
      () => this.#fleet?.nodes.length ?? 0,
    );
  }

  /** Takes up the fleet of the last end, then follows. Does not wait for the coordinator. */
  static async open(options: NodeAgentOptions): Promise<NodeAgent> {
    const agent = new NodeAgent(options);
    await agent.#load();
    agent.#watching = agent.#client.watchFleet(
      agent.#fleet?.revision,
      (fleet) => agent.#take(fleet),
      agent.#abort.signal,
      (error) => agent.#lost(error),
    );
    agent.#timer = setInterval(() => agent.#look(), LOOK_EVERY_MS);
    agent.#look(); // the others wait to hear where it is
    return agent;
  }

  /** Hands over what it has, and has itself removed. Resolves when that is done, or cannot be done in time; never rejects. */
  async leave(): Promise<void> {
    if (this.#isEnding) return;
    this.#options.logger.info('leaving the network');
    this.#isLeaving = true;
    this.#reportDueAtMs = 0;
    let deadline: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve) => {
      this.#onEnded = resolve;
      deadline = setTimeout(resolve, LEAVE_DEADLINE_MS);
      this.#look();
    });
    clearTimeout(deadline);
    if (!this.#isEnding)
      this.#options.logger.warn('could not leave in time; the coordinator will find it lost');
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    this.#abort.abort();
    await Promise.all([this.#watching, this.#saving]);
  }

  #take(fleet: Fleet): void {
    this.#isConnected = true;
    this.#fleet = fleet;
    this.#saving = this.#saving.then(() => this.#save(fleet));
    this.#apply(fleet);
  }

  #apply(fleet: Fleet): void {
    const { part, membership, logger } = this.#options;
    part.onFleet(fleet);
    const own = fleet.nodes.find(({ id }) => id === membership.identity.nodeId);
    const isToDrain = own?.state === 'draining';
    if (isToDrain && this.#drainedByMs === undefined) {
      logger.info({ isToRestart: own.restartBootId === this.#bootId }, 'draining');
      this.#drainedByMs = performance.now() + (this.#isLeaving ? LEAVE_WITHIN_MS : DRAIN_WITHIN_MS);
      part.drain();
    } else if (!isToDrain && this.#drainedByMs !== undefined) {
      logger.info('working again');
      this.#drainedByMs = undefined;
      part.resume();
    }
  }

  #lost(error: unknown): void {
    const { logger } = this.#options;
    if (error instanceof ApiError && error.code === 'NODE_REMOVED')
      return this.#end('removed', error.message);
    if (error instanceof ApiError && error.status === 401)
      logger.error('the coordinator does not know this node, or the clocks differ by more than a minute');
    else if (this.#isConnected) logger.warn({ err: error }, 'the coordinator is away; all goes on as it was');
    this.#isConnected = false;
  }

  #end(why: 'restart' | 'removed', reason: string): void {
    if (this.#isEnding) return;
    this.#isEnding = true;
    const isWrong = why === 'removed' && !this.#isLeaving;
    this.#options.logger[isWrong ? 'error' : 'info']({ reason }, 'this node ends');
    this.#options.onEnd(why);
    this.#onEnded();
  }

  get #isIdle(): boolean {
    if (this.#drainedByMs === undefined) return this.#options.part.isIdle();
    return this.#options.part.isIdle() || performance.now() > this.#drainedByMs;
  }

  #look(): void {
    const { membership } = this.#options;
    const own = this.#fleet?.nodes.find(({ id }) => id === membership.identity.nodeId);
    const isToRestart = this.#drainedByMs !== undefined && own?.restartBootId === this.#bootId;
    if (isToRestart && this.#isIdle) return this.#end('restart', 'it was told to restart');
    if (this.#isReporting || this.#isEnding) return;
    const { part } = this.#options;
    const addresses = { host: membership.host, ...part.ports() };
    const standing = [this.#drainedByMs !== undefined, this.#isLeaving];
    const state = JSON.stringify([addresses, part.isReady(), this.#isIdle, part.channelCount(), standing]);
    const nowMs = performance.now();
    if (nowMs < this.#reportDueAtMs && (state === this.#reported || this.#failures > 0)) return;
    this.#isReporting = true;
    this.#report(addresses).then(
      () => {
        this.#reported = state;
        this.#failures = 0;
        this.#reportDueAtMs = performance.now() + REPORT_EVERY_MS;
        this.#isReporting = false;
      },
      (error: unknown) => {
        if (error instanceof ApiError && error.code === 'NODE_REMOVED') this.#end('removed', error.message);
        this.#options.logger.debug({ err: error }, 'the coordinator did not take the report');
        const delayMs = Math.min(REPORT_EVERY_MS, FIRST_RETRY_MS * 2 ** Math.min(this.#failures++, 10));
        this.#reportDueAtMs = performance.now() + delayMs * (0.5 + Math.random() / 2);
        this.#isReporting = false;
      },
    );
  }

  #report(addresses: NodeAddresses): Promise<void> {
    const { part, version } = this.#options;
    const report: NodeReport = {
      ...{ bootId: this.#bootId, version, addresses },
      isReady: part.isReady(),
      isIdle: this.#isIdle,
      ...(this.#isLeaving ? { isLeaving: true } : {}),
      cpuCores: this.#cpuCores(),
      memoryBytes: process.memoryUsage.rss(),
      channelCount: part.channelCount(),
      viewerCount: part.viewerCount(),
    };
    return this.#client.reportNode(report);
  }

  /** Over the last seconds. */
  #cpuCores(): number {
    const { usage, atMs, cores } = this.#cpu;
    const nowMs = performance.now();
    if (nowMs - atMs < 1000) return cores;
    const { user, system } = process.cpuUsage(usage);
    const used = Math.round((user + system) / (nowMs - atMs)) / 1000;
    this.#cpu = { usage: process.cpuUsage(), atMs: nowMs, cores: used };
    return used;
  }

  async #load(): Promise<void> {
    const { dataDir } = this.#options.membership;
    try {
      const fleet = await readKeptFleet(dataDir);
      if (fleet === undefined) return;
      this.#fleet = fleet;
      this.#options.part.onFleet(fleet);
    } catch (error) {
      this.#options.logger.warn({ err: error, dataDir }, 'the kept fleet cannot be read');
    }
  }

  /** Beside its place first, so that a kill half-way leaves the fleet before. */
  async #save(fleet: Fleet): Promise<void> {
    if (fleet !== this.#fleet) return; // there is a later one
    const path = join(this.#options.membership.dataDir, FILE);
    try {
      await writeFile(`${path}.new`, JSON.stringify(fleet), { mode: 0o600 });
      await rename(`${path}.new`, path);
    } catch (error) {
      this.#options.logger.error({ err: error, path }, 'the fleet cannot be kept');
    }
  }
}

/**
 * The fleet as the node of this data folder last heard of it; undefined before it did.
 * @throws the system's error, or of JSON, when it cannot be read
 */
export async function readKeptFleet(dataDir: string): Promise<Fleet | undefined> {
  let text: string;
  try {
    text = await readFile(join(dataDir, FILE), 'utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
  const fleet: unknown = JSON.parse(text);
  return Check(Fleet, fleet) ? fleet : undefined;
}

/**
 * Where a backend pushes to: every port of every frontend of the network. Also of those that drain: somebody watches there. Only
 * with distribution on demand they need nothing, for they pull what is watched.
 */
export function pushTargets({
  nodes,
  distribution,
}: Fleet): { host: string; port: number; nodeId: string }[] {
  return nodes.flatMap(({ id, role, state, addresses }) =>
    role !== 'frontend' || addresses === null || (distribution?.mode === 'on-demand' && state !== 'joined')
      ? []
      : (addresses.pushPorts ?? []).map((port) => ({ host: addresses.host, port, nodeId: id })),
  );
}

/** Whom a frontend pulls from what backends do not push to it: nobody where every channel is pushed to all. */
export function peersOf({ nodes, distribution }: Fleet, ownNodeId: string | undefined): PeerFrontend[] {
  if (distribution?.mode !== 'on-demand') return [];
  return nodes.flatMap(({ id, role, state, addresses, publicKey }) => {
    if (role !== 'frontend' || id === ownNodeId || state !== 'joined' || addresses === null) return [];
    const { host, httpPort, pushPorts = [] } = addresses;
    return pushPorts.map((rtmpPort) => ({ nodeId: id, publicKey, host, rtmpPort, httpPort }));
  });
}

/** Where encoders come in at each backend, by node. */
export function ingestAddresses({ nodes }: Fleet): Map<string, { host: string; port: number }> {
  return new Map(
    nodes.flatMap(({ id, role, addresses }) =>
      role === 'backend' && addresses?.rtmpPort !== undefined
        ? [[id, { host: addresses.host, port: addresses.rtmpPort }]]
        : [],
    ),
  );
}

/** Frontends believe the network's balancers whose viewers they bring. */
export function balancerAddresses({ nodes }: Fleet): string[] {
  return nodes.flatMap(({ role, addresses }) =>
    role === 'balancer' && addresses !== null ? [addresses.host] : [],
  );
}
