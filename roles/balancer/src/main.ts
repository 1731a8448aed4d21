/**
 * The balancer role: an agent that keeps nginx in step with the fleet. This file is the composition root:
 *
 *   FleetSource -> HealthChecks -> Admission -> renderNginxConfig -> Nginx
 *   Certificates <- AcmeClient ----------------^
 */
import { existsSync } from 'node:fs';
import { chmod, mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from 'pino';
import type { Registry } from 'prom-client';
import { AcmeClient, type AcmeSettings } from './acme.ts';
import { Admission, type CheckResult } from './admission.ts';
import { type CertificateFiles, type CertificateInUse, Certificates, renewalUnixMs } from './certificates.ts';
import type { Fleet, FleetBackend, FleetSource } from './fleet.ts';
import { type Finding, gradeConfig } from './grade.ts';
import { askForConnection, askReadiness, HealthChecks, type Target } from './health-checks.ts';
import { BalancerMetrics } from './metrics.ts';
import { describeNginx, Nginx, type NginxBuild, NginxError, testConfig } from './nginx.ts';
import {
  FULL_WEIGHT,
  type ListenAddress,
  type NginxConfigInput,
  renderNginxConfig,
  type Server,
} from './nginx-config.ts';
import { openNginxLog } from './nginx-log.ts';

export interface BalancerConfig {
  readonly dataDir: string;
  readonly names: readonly string[];
  readonly http: ListenAddress;
  readonly https: ListenAddress;
  readonly rtmp: ListenAddress | undefined;
  readonly rtmps: ListenAddress | undefined;
  readonly site: Target | undefined;
  readonly balance: NginxConfigInput['balance'];
  /** Self-signed when undefined and `certificate`, too. */
  readonly acme: AcmeSettings | undefined;
  readonly certificate: CertificateFiles | undefined;
  readonly hstsSeconds: number;
  readonly trustedProxies: readonly string[];
  readonly maxConnectionsPerAddress: number;
  readonly maxRequestsPerSecondPerAddress: number;
  readonly cacheMaxBytes: number;
  readonly nginxProgram: string;
  /** Of nginx's workers, when this process is root. */
  readonly nginxUser: string;
}

export interface BalancerParts {
  readonly fleet: FleetSource;
  readonly logger: Logger;
  readonly registry: Registry;
}

export interface Balancer {
  /** True while nginx runs and a frontend has viewers sent to it. */
  isReady(): boolean;
  /** Takes changed settings over; of `dataDir`, `acme`, `certificate` and nginx itself at the next start only. */
  reconfigure(config: BalancerConfig): void;
  /** Ends nginx, too. */
  close(): Promise<void>;
}

/** Of what has just failed: nginx's refusal of a configuration, an order of a certificate. */
const APPLY_RETRY_MS = 5000;
const FIRST_ORDER_RETRY_MS = 60_000;
const MAX_ORDER_RETRY_MS = 3_600_000;
/** Changes that come together make one reload; each costs a generation of workers. */
const MIN_RELOAD_INTERVAL_MS = 250;
const UPKEEP_MS = 1000;
const MAX_ACCESS_LOG_BYTES = 100 * 1024 * 1024;
const KEPT_ACCESS_LOGS = 4;
const LOG_LOOK_MS = 60_000;

/**
 * Starts the balancer; resolves once nginx serves.
 * @throws NginxError, CertificateError, or the system's error when the data folder cannot be written
 */
export async function startBalancer(config: BalancerConfig, parts: BalancerParts): Promise<Balancer> {
  const { logger } = parts;
  const build = await describeNginx(config.nginxProgram);
  checkBuild(config, build);
  const paths = await makeFolders(config.dataDir);
  const log = await openNginxLog(logger);
  const nginx = new Nginx({ program: config.nginxProgram, dir: paths.nginx, logger });
  const agent = new BalancerAgent(config, parts, {
    ...{ build, paths, nginx },
    syslogPort: log.port,
    resolvers: await readResolvers(),
    maxOpenFiles: await readMaxOpenFiles(),
  });
  try {
    await agent.start();
  } catch (error) {
    agent.release();
    log.close();
    throw error;
  }
  return {
    isReady: () => agent.isReady,
    reconfigure: (changed) => agent.reconfigure(changed),
    async close() {
      await agent.close();
      log.close();
    },
  };
}

/**
 * Renders the configuration as it would be now, has nginx test it, and grades it. Starts nothing; makes the data
 * folder and a self-signed certificate where there are none, as a start would.
 * @throws NginxError, CertificateError, or the system's error, where a start would
 */
export async function checkBalancer(
  config: BalancerConfig,
  fleet: Fleet,
): Promise<{ text: string; findings: readonly Finding[] }> {
  const build = await describeNginx(config.nginxProgram);
  checkBuild(config, build);
  const paths = await makeFolders(config.dataDir);
  const certificates = new Certificates(config.dataDir);
  const certificate =
    config.certificate === undefined
      ? await certificates.open(config.names)
      : await certificates.adopt(config.certificate);
  const readiness = new Map<string, CheckResult>();
  const checks = new HealthChecks(askReadiness, (id, result) => readiness.set(id, result));
  const connections = new HealthChecks(askForConnection, () => {});
  try {
    const rtmp = fleet.backends.flatMap((one) => portTargets(one, 'rtmpPort'));
    const rtmps = fleet.backends.flatMap((one) => portTargets(one, 'rtmpsPort'));
    const others = [...rtmp, ...rtmps, ...(config.site === undefined ? [] : [config.site])];
    await checks.setTargets(new Map(fleet.frontends.map((one) => [idOf(one), one])));
    await connections.setTargets(new Map(others.map((one) => [idOf(one), one])));
    const machine = {
      ...{ build, paths, syslogPort: 9 },
      resolvers: await readResolvers(),
      maxOpenFiles: await readMaxOpenFiles(),
    };
    const { text } = renderNginxConfig({
      ...inputOf(config, machine, certificate),
      frontends: fleet.frontends.flatMap((one) => serverOf(checks, one, FULL_WEIGHT)),
      rtmpBackends: rtmp.flatMap((one) => serverOf(connections, one, FULL_WEIGHT)),
      rtmpsBackends: rtmps.flatMap((one) => serverOf(connections, one, FULL_WEIGHT)),
      site: config.site && serverOf(connections, config.site, FULL_WEIGHT),
    });
    const path = join(paths.nginx, 'check.conf');
    await writeFile(path, text, { mode: 0o600 });
    const refusal = await testConfig(config.nginxProgram, paths.nginx, path).then(
      () => undefined,
      (error: unknown) => (error instanceof NginxError ? error.message : String(error)),
    );
    await rm(path, { force: true });
    const findings = gradeConfig(text, {
      refusal,
      certificate,
      names: config.names,
      privateKeyMode: (await stat(certificate.privateKeyPath)).mode & 0o777,
      isRoot: process.getuid?.() === 0,
      firstFreePort: Number(
        await readFile('/proc/sys/net/ipv4/ip_unprivileged_port_start', 'utf8').catch(() => 1024),
      ),
      readiness: fleet.frontends.map((one) => [idOf(one), readiness.get(idOf(one)) ?? 'silent']),
      nowUnixMs: Date.now(),
    });
    return { text, findings };
  } finally {
    checks.close();
    connections.close();
  }
}

interface Paths {
  readonly nginx: string;
  readonly cache: string;
  readonly challenges: string;
  readonly accessLog: string;
  readonly streamLog: string;
}

interface Machine {
  readonly build: NginxBuild;
  readonly paths: Paths;
  readonly syslogPort: number;
  readonly resolvers: readonly string[];
  readonly maxOpenFiles: number;
}

async function makeFolders(dataDir: string): Promise<Paths> {
  const paths: Paths = {
    nginx: join(dataDir, 'nginx'),
    cache: join(dataDir, 'cache'),
    challenges: join(dataDir, 'challenges'),
    accessLog: join(dataDir, 'access.log'),
    streamLog: join(dataDir, 'rtmp-access.log'),
  };
  for (const dir of [dataDir, paths.nginx, paths.cache, paths.challenges])
    await mkdir(dir, { recursive: true });
  // The workers, who may be another account, answer challenges from there.
  await chmod(paths.challenges, 0o755);
  return paths;
}

function checkBuild({ rtmp, rtmps }: BalancerConfig, { streamModule }: NginxBuild): void {
  if (streamModule === undefined && (rtmp ?? rtmps) !== undefined) {
    throw new NginxError(
      'This nginx has no stream module, which passes RTMP on. Install libnginx-mod-stream, or leave out rtmp and rtmps.',
    );
  }
}

/** What {@link renderNginxConfig} needs beside the fleet as it is now. */
function inputOf(
  config: BalancerConfig,
  machine: Machine,
  certificate: CertificateInUse,
): Omit<NginxConfigInput, 'frontends' | 'rtmpBackends' | 'rtmpsBackends' | 'site'> {
  const { names, http, https, rtmp, rtmps, balance, hstsSeconds, trustedProxies } = config;
  const { build, paths, syslogPort, resolvers, maxOpenFiles } = machine;
  const { certificatePath, privateKeyPath, isSelfSigned, offersOcsp } = certificate;
  return {
    ...{ names, http, https, rtmp, rtmps, balance, hstsSeconds, trustedProxies, resolvers },
    maxConnectionsPerAddress: config.maxConnectionsPerAddress,
    maxRequestsPerSecondPerAddress: config.maxRequestsPerSecondPerAddress,
    cacheMaxBytes: config.cacheMaxBytes,
    certificate: { certificatePath, privateKeyPath, isTrusted: !isSelfSigned, offersOcsp },
    machine: {
      dir: paths.nginx,
      cacheDir: paths.cache,
      challengesDir: paths.challenges,
      accessLogPath: paths.accessLog,
      streamLogPath: paths.streamLog,
      controlSocketPath: join(paths.nginx, 'control.sock'),
      syslogPort,
      streamModulePath: typeof build.streamModule === 'object' ? build.streamModule.path : undefined,
      user: process.getuid?.() === 0 ? config.nginxUser : undefined,
      hasIpv6: existsSync('/proc/net/if_inet6'),
      maxOpenFiles,
    },
  };
}

class BalancerAgent {
  #config: BalancerConfig;
  readonly #parts: BalancerParts;
  readonly #machine: Machine;
  readonly #nginx: Nginx;
  readonly #metrics: BalancerMetrics;
  readonly #certificates: Certificates;
  readonly #admission = new Admission();
  readonly #frontends: HealthChecks;
  readonly #backends: HealthChecks;
  /** Backends' ports that take connections now. */
  readonly #openPorts = new Map<string, boolean>();
  readonly #stopping = new AbortController();
  readonly #timers = new Set<NodeJS.Timeout>();
  #fleet: Fleet = { frontends: [], backends: [] };
  #certificate: CertificateInUse | undefined;
  #isWanted = false;
  #applying: Promise<void> | undefined;
  #refusedRevision: string | undefined;
  #mayRetryAtMs = 0;
  #isServing = false;

  constructor(config: BalancerConfig, parts: BalancerParts, machine: Machine & { nginx: Nginx }) {
    this.#config = config;
    this.#parts = parts;
    this.#machine = machine;
    this.#nginx = machine.nginx;
    this.#certificates = new Certificates(config.dataDir);
    this.#frontends = new HealthChecks(askReadiness, (id, result) => {
      const change = this.#admission.observe(id, result, performance.now());
      if (change === undefined) return;
      if (change === 'ejected') this.#metrics.ejections.inc();
      parts.logger[change === 'ejected' ? 'warn' : 'info'](
        { frontend: id, check: result },
        `frontend ${change}`,
      );
      this.#want();
    });
    this.#backends = new HealthChecks(askForConnection, (id, result) => {
      const isOpen = result === 'ready';
      if (this.#openPorts.get(id) === isOpen) return;
      this.#openPorts.set(id, isOpen);
      this.#want();
    });
    this.#metrics = new BalancerMetrics(parts.registry, {
      admittedCount: () => this.#admission.admittedCount,
      listedCount: () => this.#fleet.frontends.length,
      certificateEndUnixMs: () => this.#certificate?.notAfterUnixMs,
      nginxStatus: () => this.#nginx.status(),
    });
  }

  get isReady(): boolean {
    return this.#isServing && this.#admission.admittedCount > 0;
  }

  async start(): Promise<void> {
    const { names, certificate, acme } = this.#config;
    this.#certificate =
      certificate === undefined
        ? await this.#certificates.open(names)
        : await this.#certificates.adopt(certificate);
    await new Promise<void>((resolve) => {
      this.#parts.fleet.follow((fleet) => void this.#follow(fleet).then(resolve), this.#stopping.signal);
    });
    await this.#nginx.apply(this.#render());
    this.#isServing = true;
    this.#want();
    this.#every(UPKEEP_MS, () => this.#keepUp());
    this.#every(LOG_LOOK_MS, () => this.#rotateLogs());
    if (acme !== undefined && certificate === undefined) void this.#keepCertificate(acme);
    if (certificate !== undefined) this.#every(LOG_LOOK_MS, () => this.#rereadCertificate(certificate));
  }

  reconfigure(config: BalancerConfig): void {
    this.#config = config;
    void this.#follow(this.#fleet);
  }

  /** Lets go of everything but nginx. */
  release(): void {
    this.#stopping.abort();
    for (const timer of this.#timers) clearInterval(timer);
    this.#frontends.close();
    this.#backends.close();
    this.#isServing = false;
  }

  async close(): Promise<void> {
    this.release();
    await this.#applying;
    await this.#nginx.stop();
  }

  #every(intervalMs: number, work: () => Promise<void>): void {
    let isBusy = false;
    const timer = setInterval(() => {
      if (isBusy) return;
      isBusy = true;
      work()
        .catch((error: unknown) => this.#parts.logger.error({ err: error }, 'upkeep failed'))
        .finally(() => {
          isBusy = false;
        });
    }, intervalMs);
    this.#timers.add(timer);
  }

  /** Takes a fleet; resolves when those who are new have been asked once. */
  async #follow(fleet: Fleet): Promise<void> {
    this.#fleet = fleet;
    const frontends = new Map(fleet.frontends.map((one) => [idOf(one), one]));
    this.#admission.setMembers([...frontends.keys()]);
    const ports = fleet.backends.flatMap((backend) => [
      ...portTargets(backend, 'rtmpPort'),
      ...portTargets(backend, 'rtmpsPort'),
    ]);
    await Promise.all([
      this.#frontends.setTargets(frontends),
      this.#backends.setTargets(
        new Map(
          [...ports, ...(this.#config.site === undefined ? [] : [this.#config.site])].map((one) => [
            idOf(one),
            one,
          ]),
        ),
      ),
    ]);
    this.#want();
  }

  #render(): { text: string; revision: string } {
    const certificate = this.#certificate;
    if (certificate === undefined) throw new Error('there is no certificate yet');
    const { backends } = this.#fleet;
    const weights = this.#admission.weights(performance.now());
    return renderNginxConfig({
      ...inputOf(this.#config, this.#machine, certificate),
      site: this.#config.site && serverOf(this.#backends, this.#config.site, FULL_WEIGHT),
      frontends: this.#fleet.frontends.flatMap((one) =>
        serverOf(this.#frontends, one, weights.get(idOf(one)) ?? 0),
      ),
      rtmpBackends: this.#backendServers(backends, 'rtmpPort'),
      rtmpsBackends: this.#backendServers(backends, 'rtmpsPort'),
    });
  }

  #backendServers(backends: readonly FleetBackend[], port: 'rtmpPort' | 'rtmpsPort'): Server[] {
    const targets = backends.flatMap((backend) => portTargets(backend, port));
    const isAnyOpen = targets.some((one) => this.#openPorts.get(idOf(one)) === true);
    return targets.flatMap((one) => {
      const isDown = isAnyOpen && this.#openPorts.get(idOf(one)) !== true;
      return serverOf(this.#backends, one, isDown ? 0 : FULL_WEIGHT);
    });
  }

  /** A change is to reach nginx; those that come together go together. */
  #want(): void {
    this.#isWanted = true;
    if (!this.#isServing || this.#applying !== undefined) return;
    this.#applying = this.#applyAll().finally(() => {
      this.#applying = undefined;
    });
  }

  async #applyAll(): Promise<void> {
    while (this.#isWanted && this.#isServing) {
      this.#isWanted = false;
      await this.#apply().catch((error: unknown) =>
        this.#parts.logger.error({ err: error }, 'no configuration for nginx can be made'),
      );
      await new Promise((wake) => setTimeout(wake, MIN_RELOAD_INTERVAL_MS));
    }
  }

  async #apply(): Promise<void> {
    const { logger } = this.#parts;
    const config = this.#render();
    if (config.revision === this.#nginx.running?.revision) return;
    const wasRefused = config.revision === this.#refusedRevision;
    if (wasRefused && performance.now() < this.#mayRetryAtMs) return;
    try {
      await this.#nginx.apply(config);
      this.#refusedRevision = undefined;
      this.#metrics.reloads.inc({ result: 'taken' });
      logger.debug({ revision: config.revision }, 'nginx reloaded');
    } catch (error) {
      this.#refusedRevision = config.revision;
      this.#mayRetryAtMs = performance.now() + APPLY_RETRY_MS;
      this.#metrics.reloads.inc({ result: 'refused' });
      logger.error(
        { err: error },
        'nginx did not take its new configuration and runs on with the last good one',
      );
    }
  }

  async #keepUp(): Promise<void> {
    if (!this.#isServing || this.#applying !== undefined) return;
    await this.#nginx.keepAlive();
    this.#want(); // shares that grow, names that lead elsewhere, what was refused
  }

  async #use(certificate: CertificateInUse): Promise<void> {
    this.#certificate = certificate;
    this.#want();
    await this.#applying;
  }

  /** Orders a certificate whenever one is due; retries with jitter, at most once an hour after a while. */
  async #keepCertificate(settings: AcmeSettings): Promise<void> {
    const { dataDir, names } = this.#config;
    const { logger } = this.#parts;
    const { signal } = this.#stopping;
    const client = new AcmeClient(settings, { dataDir, challengesDir: this.#machine.paths.challenges });
    let retryMs = FIRST_ORDER_RETRY_MS;
    while (!signal.aborted) {
      const dueMs =
        this.#certificate === undefined ? 0 : renewalUnixMs(this.#certificate, names) - Date.now();
      if (dueMs > 0) {
        await pause(Math.min(dueMs, LOG_LOOK_MS), signal);
        continue;
      }
      try {
        const certificate = await this.#certificates.install(await client.order(names));
        await this.#use(certificate);
        retryMs = FIRST_ORDER_RETRY_MS;
        this.#metrics.orders.inc({ result: 'issued' });
        const until = new Date(certificate.notAfterUnixMs).toISOString();
        logger.info({ names, until }, 'certificate issued');
      } catch (error) {
        this.#metrics.orders.inc({ result: 'failed' });
        if (signal.aborted) return;
        logger.error(
          { err: error, retrySeconds: Math.round(retryMs / 1000) },
          settings.route53 === undefined
            ? 'no certificate was issued. Do the names lead here, and does port 80 reach this machine?'
            : 'no certificate was issued. May this machine change the records of the zone?',
        );
        await pause(retryMs * (0.75 + 0.5 * Math.random()), signal);
        retryMs = Math.min(2 * retryMs, MAX_ORDER_RETRY_MS);
      }
    }
  }

  /** The operator's own may have been replaced. */
  async #rereadCertificate(files: CertificateFiles): Promise<void> {
    await this.#use(await this.#certificates.adopt(files));
  }

  async #rotateLogs(): Promise<void> {
    const { accessLog, streamLog } = this.#machine.paths;
    for (const path of [accessLog, streamLog]) {
      const { size } = await stat(path).catch(() => ({ size: 0 }));
      if (size < MAX_ACCESS_LOG_BYTES) continue;
      for (let age = KEPT_ACCESS_LOGS - 1; age >= 0; age--) {
        const from = age === 0 ? path : `${path}.${age}`;
        if (existsSync(from)) await rename(from, `${path}.${age + 1}`);
      }
      await this.#nginx.reopenLogs();
    }
  }
}

/** Nothing while its name leads nowhere. */
function serverOf(checks: HealthChecks, target: Target, weight: number): Server[] {
  const address = checks.addressOf(idOf(target));
  return address === undefined ? [] : [{ address, port: target.port, weight }];
}

const idOf = ({ host, port }: Target): string =>
  host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;

function portTargets(backend: FleetBackend, key: 'rtmpPort' | 'rtmpsPort'): Target[] {
  const port = backend[key];
  return port === undefined ? [] : [{ host: backend.host, port }];
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    if (signal.aborted) done();
    else signal.addEventListener('abort', done, { once: true });
  });
}

/** The hard limit: a process may raise its own up to there. */
async function readMaxOpenFiles(): Promise<number> {
  const text = await readFile('/proc/self/limits', 'utf8').catch(() => '');
  const [, limit = 'unlimited'] = /^Max open files\s+\S+\s+(\S+)/m.exec(text) ?? [];
  return limit === 'unlimited' ? Number.POSITIVE_INFINITY : Number(limit);
}

/** The name servers of this machine. */
async function readResolvers(): Promise<string[]> {
  const text = await readFile('/etc/resolv.conf', 'utf8').catch(() => '');
  return [...text.matchAll(/^nameserver\s+([0-9A-Fa-f.:]+)\s*$/gm)].map(([, address = '']) =>
    address.includes(':') ? `[${address}]` : address,
  );
}
