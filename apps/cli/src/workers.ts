/**
 * Frontends in processes of their own, to use every core: they share one HTTP port, and backends push to each.
 * This is the main process's side; `frontend-worker.ts` is theirs. Why it is built so:
 * docs/decisions/007-workers.md.
 *
 * The life of a worker: started -> takes pushes -> serves, once it has every channel that the others
 * have -> ends. One that ends unasked is replaced.
 */
import cluster, { type Worker } from 'node:cluster';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import type { PushedChannel } from '@starling/frontend/main';
import type { PeerFrontend } from '@starling/frontend/pulls';
import { LOOPBACK } from '@starling/net/address-limits';
import { type HttpListener, listenHttp, type RequestHandler } from '@starling/net/http-server';
import type { Logger } from 'pino';
import type { Registry } from 'prom-client';
import { machineMetrics } from './machine-metrics.ts';
import type { HttpSettings } from './process.ts';
import type {
  CountedViewer,
  FrontendSettings,
  ProcessMetrics,
  WorkerOrder,
  WorkerReport,
} from './worker-messages.ts';

export interface WorkersOptions {
  readonly count: number;
  /** Name of this process among the nodes. */
  readonly node: string;
  /** The file that a worker runs. */
  readonly program: string;
  /**
   * Of every worker's frontend. `rtmpPort` is the first one's; the others take the ports after it. With 0 each
   * takes a free one.
   */
  readonly frontend: FrontendSettings;
  /** Shared by all. All addresses when `host` is undefined; a free port when `port` is 0. */
  readonly http: HttpSettings;
  /** Answers, in this process, the requests that are not a frontend's. */
  readonly handleRest: RequestHandler;
  /** What this process's own frontend has, where there is one. */
  ownChannels(): readonly PushedChannel[];
  /** The ports that backends push to have changed. */
  onRtmpPortsChange(): void;
  readonly logger: Logger;
}

/** A port that a worker could not open. */
export class WorkerPortError extends Error {
  /** The system's word for it, for instance EADDRINUSE. */
  readonly code: string | undefined;
  readonly protocol: 'http' | 'rtmp';
  readonly port: number;

  constructor({ protocol, port, code, message }: Extract<WorkerReport, { type: 'failed' }>) {
    super(message);
    this.protocol = protocol;
    this.port = port;
    this.code = code;
  }
}

/** A worker that dies within this time of its start waits before it is replaced, longer each time. */
const STABLE_AFTER_MS = 10_000;
const MAX_DEATHS_AT_START = 3;
const FIRST_RETRY_MS = 100;
const LAST_RETRY_MS = 5000;
/** For a worker to get every channel; then it serves with what it has. */
const FILL_DEADLINE_MS = 5000;
/** Signs of life come every second. */
const MAX_SILENT_SECONDS = 15;
const METRICS_DEADLINE_MS = 2000;
const STOP_DEADLINE_MS = 1500;

/** A place among the workers, with the process that has it now. */
interface Slot {
  readonly workerNumber: number;
  life: Life | undefined;
  /** In a row, within {@link STABLE_AFTER_MS} of the start. */
  earlyDeaths: number;
  retryTimer: NodeJS.Timeout | undefined;
}

/** One process. */
interface Life {
  readonly worker: Worker;
  readonly bornAtMs: number;
  phase: 'starting' | 'filling' | 'opening' | 'serving';
  fillDeadline: NodeJS.Timeout | undefined;
  rtmpPort: number | undefined;
  channels: readonly PushedChannel[];
  viewers: readonly CountedViewer[];
  silentSeconds: number;
  /** Waits for the answer to the last question. */
  takeMetrics: ((metrics: ProcessMetrics | undefined) => void) | undefined;
}

export class Workers {
  readonly #options: WorkersOptions;
  readonly #slots: readonly Slot[];
  #httpPort = 0;
  #rest: HttpListener | undefined;
  #watchdog: NodeJS.Timeout | undefined;
  #whileStarting: { served(): void; failed(error: Error): void } | undefined;
  #isClosing = false;
  #isDraining = false;
  #trustedAddresses: readonly string[] = [];
  #peers: readonly PeerFrontend[] = [];

  constructor(options: WorkersOptions) {
    this.#options = options;
    this.#slots = Array.from({ length: options.count }, (_, index) => ({
      workerNumber: index + 1,
      life: undefined,
      earlyDeaths: 0,
      retryTimer: undefined,
    }));
  }

  /**
   * Starts the workers; resolves when all of them serve. `close` is to follow, also when it fails.
   * @throws RangeError when a trusted proxy is not a CIDR block; WorkerPortError, or the system's error, when a port cannot be opened
   */
  async start(): Promise<void> {
    const { http, logger, handleRest, program, count } = this.#options;
    this.#httpPort = await findPort(http);
    const trustedProxies = [...LOOPBACK, ...(http.trustedProxies ?? [])];
    const rest = { host: '127.0.0.1', port: 0 };
    this.#rest = await listenHttp(rest, logger, handleRest, () => false, { trustedProxies });
    // The kernel spreads the connections, so that none is lost with a worker that is killed.
    cluster.schedulingPolicy = cluster.SCHED_NONE;
    // JSON knows no figures that are not a number.
    cluster.setupPrimary({ exec: program, args: [], serialization: 'advanced' });
    this.#watchdog = setInterval(() => this.#endTheSilent(), 1000);
    await new Promise<void>((resolve, reject) => {
      this.#whileStarting = {
        served: () => {
          if (this.#lives.filter(({ phase }) => phase === 'serving').length === count) resolve();
        },
        failed: reject,
      };
      for (const slot of this.#slots) this.#start(slot);
    }).finally(() => {
      this.#whileStarting = undefined;
    });
  }

  /** The HTTP port that viewers come to. */
  get port(): number {
    return this.#httpPort;
  }

  /** The ports that backends push to. */
  get rtmpPorts(): readonly number[] {
    return this.#lives.flatMap(({ rtmpPort }) => rtmpPort ?? []);
  }

  /** Channels that are pushed to any of them. */
  get channelCount(): number {
    return new Set(this.#lives.flatMap(({ channels }) => channels.map(({ name }) => name))).size;
  }

  /** Each viewer once. */
  get viewerIds(): ReadonlySet<string> {
    return new Set(this.#lives.flatMap(({ viewers }) => viewers.map(({ id }) => id)));
  }

  /**
   * Has the workers take no new viewers.
   * @param endlessWithinMs until the last one with an endless answer is sent away
   */
  drain(endlessWithinMs: number): void {
    this.#isDraining = true;
    for (const life of this.#lives) tell(life, { type: 'drain', endlessWithinMs });
  }

  /** Has them take viewers again. */
  resume(): void {
    this.#isDraining = false;
    for (const life of this.#lives) tell(life, { type: 'drain', endlessWithinMs: undefined });
  }

  /** Has the workers trust these addresses of proxies, beside those of the settings. */
  trust(addresses: readonly string[]): void {
    this.#trustedAddresses = addresses;
    for (const life of this.#lives) if (life.phase === 'serving') tell(life, { type: 'trust', addresses });
  }

  /** Whom the workers pull from what is not pushed to them. */
  setPeers(peers: readonly PeerFrontend[]): void {
    this.#peers = peers;
    for (const life of this.#lives) if (life.rtmpPort !== undefined) tell(life, { type: 'peers', peers });
  }

  /** True when all workers serve, and each can play every channel that any of them is pushed. */
  isReady(): boolean {
    if (this.#isDraining) return false;
    const lives = this.#lives;
    const pushed = [this.#options.ownChannels(), ...lives.map(({ channels }) => channels)].flat();
    const names = new Set(pushed.map(({ name }) => name));
    return (
      lives.length === this.#slots.length &&
      lives.every(({ phase, channels }) => phase === 'serving' && canPlay(channels, names))
    );
  }

  /**
   * What all processes count, for Prometheus; a worker that does not answer in time is left out.
   * @param registry of this process
   * @param ownViewers on this process's own frontend
   */
  async metrics(registry: Registry, ownViewers: readonly CountedViewer[]): Promise<string> {
    const answers = await Promise.all(this.#lives.map(askForMetrics));
    const processes = [
      await registry.getMetricsAsJSON(),
      ...answers.filter((metrics) => metrics !== undefined),
    ];
    return machineMetrics(processes, [ownViewers, ...this.#lives.map(({ viewers }) => viewers)].flat());
  }

  /** Ends all workers; one that does not end in time is killed. */
  async close(): Promise<void> {
    this.#isClosing = true;
    clearInterval(this.#watchdog);
    for (const { retryTimer } of this.#slots) clearTimeout(retryTimer);
    await Promise.all(
      this.#lives.map(async (life) => {
        const ended = once(life.worker, 'exit');
        const kill = () => life.worker.process.kill('SIGKILL');
        const deadline = setTimeout(kill, STOP_DEADLINE_MS);
        if (life.phase === 'starting')
          kill(); // it may not hear yet, and has nothing to finish
        else tell(life, { type: 'stop' });
        await ended;
        clearTimeout(deadline);
      }),
    );
    await this.#rest?.close();
  }

  get #lives(): Life[] {
    return this.#slots.flatMap(({ life }) => life ?? []);
  }

  #start(slot: Slot): void {
    const life: Life = {
      worker: cluster.fork(),
      bornAtMs: performance.now(),
      phase: 'starting',
      fillDeadline: undefined,
      rtmpPort: undefined,
      channels: [],
      viewers: [],
      silentSeconds: 0,
      takeMetrics: undefined,
    };
    slot.life = life;
    const { worker } = life;
    worker.on('message', (report: WorkerReport) => this.#hear(slot, life, report));
    worker.on('exit', (exitCode, signal) => this.#bury(slot, life, signal ?? `exit ${exitCode}`));
    // Of a worker that was not started, or cannot be told something because it is ending.
    worker.on('error', (error) => {
      if (worker.process.pid === undefined) this.#bury(slot, life, error.message);
    });
  }

  #hear({ workerNumber }: Slot, life: Life, report: WorkerReport): void {
    life.silentSeconds = 0;
    switch (report.type) {
      case 'listening': {
        const { frontend, node } = this.#options;
        const rtmpPort = frontend.rtmpPort === 0 ? 0 : frontend.rtmpPort + workerNumber - 1;
        tell(life, { type: 'start', workerNumber, node, frontend: { ...frontend, rtmpPort } });
        return;
      }
      case 'started':
        life.rtmpPort = report.rtmpPort;
        if (this.#peers.length > 0) tell(life, { type: 'peers', peers: this.#peers });
        life.phase = 'filling';
        life.fillDeadline = setTimeout(() => this.#openTo(life), FILL_DEADLINE_MS);
        this.#options.onRtmpPortsChange();
        if (this.#hasWhatOthersHave(life)) this.#openTo(life);
        return;
      case 'channels':
        life.channels = report.channels;
        if (life.phase === 'filling' && this.#hasWhatOthersHave(life)) this.#openTo(life);
        return;
      case 'serving':
        life.phase = 'serving';
        tell(life, { type: 'trust', addresses: this.#trustedAddresses });
        if (this.#isDraining) tell(life, { type: 'drain', endlessWithinMs: 0 });
        this.#options.logger.debug({ worker: workerNumber }, 'worker takes viewers');
        this.#whileStarting?.served();
        return;
      case 'failed':
        this.#options.logger.error({ worker: workerNumber, reason: report.message }, 'worker has no port');
        this.#whileStarting?.failed(new WorkerPortError(report));
        return;
      case 'viewers':
        life.viewers = report.viewers;
        return;
      case 'metrics':
        life.takeMetrics?.(report.metrics);
        return;
    }
  }

  /** Viewers come to this worker from now on. */
  #openTo(life: Life): void {
    clearTimeout(life.fillDeadline);
    life.phase = 'opening';
    const http = { ...this.#options.http, port: this.#httpPort };
    tell(life, { type: 'serve', http, mainPort: this.#rest?.port ?? 0 });
  }

  #hasWhatOthersHave(life: Life): boolean {
    const others = this.#lives.filter((other) => other !== life).map(({ channels }) => channels);
    const playable = [this.#options.ownChannels(), ...others].flat().filter(({ isPlayable }) => isPlayable);
    return canPlay(life.channels, new Set(playable.map(({ name }) => name)));
  }

  #bury(slot: Slot, life: Life, how: string): void {
    if (slot.life !== life) return;
    slot.life = undefined;
    clearTimeout(life.fillDeadline);
    life.takeMetrics?.(undefined);
    if (this.#isClosing) return;
    this.#options.onRtmpPortsChange();
    const isEarly = performance.now() - life.bornAtMs < STABLE_AFTER_MS;
    slot.earlyDeaths = isEarly ? slot.earlyDeaths + 1 : 0;
    if (slot.earlyDeaths === MAX_DEATHS_AT_START)
      this.#whileStarting?.failed(new Error(`workers die: ${how}`));
    const retryMs = isEarly
      ? Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** (slot.earlyDeaths - 1)) * (0.5 + Math.random() / 2)
      : 0;
    slot.retryTimer = setTimeout(() => this.#start(slot), retryMs);
    this.#options.logger.warn(
      { worker: slot.workerNumber, how, retryMs: Math.round(retryMs) },
      'worker has died; another takes its place',
    );
  }

  /** Counts seconds of its own: when this process stood still, so did its clock. */
  #endTheSilent(): void {
    for (const { workerNumber, life } of this.#slots) {
      if (life === undefined || ++life.silentSeconds <= MAX_SILENT_SECONDS) continue;
      this.#options.logger.error({ worker: workerNumber }, 'worker does not answer; it is killed');
      life.worker.process.kill('SIGKILL');
    }
  }
}

function tell({ worker }: Life, order: WorkerOrder): void {
  if (worker.isConnected()) worker.send(order);
}

function canPlay(channels: readonly PushedChannel[], names: ReadonlySet<string>): boolean {
  const playable = new Set(channels.filter(({ isPlayable }) => isPlayable).map(({ name }) => name));
  return [...names].every((name) => playable.has(name));
}

function askForMetrics(life: Life): Promise<ProcessMetrics | undefined> {
  return new Promise((resolve) => {
    const deadline = setTimeout(() => life.takeMetrics?.(undefined), METRICS_DEADLINE_MS);
    const takeFirst = life.takeMetrics;
    life.takeMetrics = (metrics) => {
      clearTimeout(deadline);
      life.takeMetrics = undefined;
      takeFirst?.(metrics); // one answer for all who ask meanwhile
      resolve(metrics);
    };
    if (takeFirst === undefined) tell(life, { type: 'metrics' });
  });
}

/**
 * The port that the workers will share: the one asked for, found to be free, or any free one.
 * @throws the system's error, for instance EADDRINUSE
 */
async function findPort(http: WorkersOptions['http']): Promise<number> {
  const server = createServer().listen({ host: http.host, port: http.port, exclusive: true });
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
