/**
 * `starling up`: coordinator, backend and frontends on one machine, wired over loopback as they are in a
 * fleet. This is the composition root of the one-machine network.
 *
 * With one worker everything is in this process. With more, each is a process with a frontend of its own;
 * together they have the HTTP port, and hand on to this process whatever is not for a frontend. The frontend
 * in this process then serves RTMP players only: they come to the port that encoders publish to.
 */
import { randomBytes } from 'node:crypto';
import { networkInterfaces } from 'node:os';
import { join, resolve } from 'node:path';
import { startBackend } from '@starling/backend/main';
import { CertificateError } from '@starling/backend/rtmps-certificate';
import { startCoordinator } from '@starling/coordinator/main';
import { startFrontend } from '@starling/frontend/main';
import { CoordinatorClient } from '@starling/model/client';
import type { Fleet } from '@starling/model/node';
import { type HttpListener, listenHttp, type RequestHandler } from '@starling/net/http-server';
import type { Logger } from 'pino';
import packageJson from '../package.json' with { type: 'json' };
import { keepOperatorToken, makeDemo, prepareDataDir, requireFfmpeg } from './first-start.ts';
import { joinNetwork, leaveNetwork, type Membership } from './joining.ts';
import { LogShipper } from './log-shipper.ts';
import { balancerAddresses, ENDLESS_WITHIN_MS, NodeAgent, pushTargets } from './node-agent.ts';
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
import { announceRunning } from './running.ts';
import { startTracing } from './tracing.ts';
import { Workers } from './workers.ts';

export interface UpOptions {
  readonly dataDir: string;
  readonly httpPort: number;
  readonly rtmpPort: number;
  /** RTMP over TLS. */
  readonly rtmpsPort: number;
  /** In PEM; a self-signed one is made when undefined. */
  readonly tlsCertificatePath: string | undefined;
  readonly tlsPrivateKeyPath: string | undefined;
  /** The address to listen on; all of them when undefined. */
  readonly host: string | undefined;
  /** CIDR blocks of balancers in front. */
  readonly trustedProxies: readonly string[];
  /** Processes that serve viewers; 1 keeps everything in this one. */
  readonly workers: number;
  /** How far back viewers can go; 0 records nothing. */
  readonly dvrHours: number;
  /** Whether programs that look for an HDHomeRun tuner are answered. */
  readonly hdhomerun: boolean;
}

/**
 * Runs the network until SIGINT or SIGTERM, or until it is told to end as a node.
 * @returns why it ended
 * @throws StartError when it cannot start
 */
export async function runUp(options: UpOptions): Promise<'stopped' | 'restart' | 'removed'> {
  const dataDir = resolve(options.dataDir);
  const logShipper = new LogShipper();
  const logger = openLog(logShipper);
  prepareDataDir(dataDir);
  requireFfmpeg();

  let end = (_why: 'restart' | 'removed') => {};
  const ended = new Promise<'restart' | 'removed'>((resolve) => {
    end = resolve;
  });
  const endTracing = await startTracing('starling', process.env);
  const network = await startNetwork({ ...options, dataDir }, { logger, logShipper, onEnd: end });
  network.prepareDemo().then(
    () => process.stdout.write(network.welcome()),
    (error: unknown) => logger.error({ err: error }, 'the demo channel could not be made'),
  );
  const close = async () => {
    await network.close();
    await endTracing?.();
  };
  const why = await runUntilStopped(close, logger, ended);
  if (why === 'removed') await leaveNetwork(network.membership);
  return why;
}

interface Network {
  readonly membership: Membership;
  /** Makes the demo channel on the first start; resolves when every channel plays. */
  prepareDemo(): Promise<void>;
  welcome(): string;
  close(): Promise<void>;
}

interface NetworkContext {
  readonly logger: Logger;
  readonly logShipper: LogShipper;
  readonly onEnd: (why: 'restart' | 'removed') => void;
}

async function startNetwork(
  options: UpOptions,
  { logger, logShipper, onEnd }: NetworkContext,
): Promise<Network> {
  const { dataDir, host } = options;
  const registry = openRegistry();
  const operatorToken = keepOperatorToken(dataDir);
  const nodeToken = randomBytes(32).toString('base64url');
  const publishToken = randomBytes(32).toString('base64url');
  const closers: (() => Promise<void>)[] = [];
  const close = async () => {
    for (const closeOne of closers.splice(0).reverse()) await closeOne();
  };

  const explainHttpPort = (error: unknown) => {
    if (error instanceof RangeError) throw new StartError(`--trusted-proxy: ${error.message}`);
    throw asStartError(error, options.httpPort, '--http PORT');
  };
  try {
    const coordinator = await startCoordinator({
      dataDir,
      operatorToken: { file: join(dataDir, 'operator.token') },
      nodeToken,
      logger: logger.child({ role: 'coordinator' }),
      registry,
      webDir: findSite(),
      hdhomerunHttpPort: options.hdhomerun ? options.httpPort : undefined,
      catchUpHours: options.dvrHours,
      ...storageServers(process.env),
    }).catch(explainStorage);
    closers.push(() => coordinator.close());
    const { port: coordinatorPort } = await coordinator.listen('127.0.0.1', 0);
    const coordinatorUrl = `http://127.0.0.1:${coordinatorPort}`;

    const frontendSettings = {
      rtmpHost: '127.0.0.1',
      rtmpPort: 0,
      publishToken,
      coordinator: { baseUrl: coordinatorUrl, token: nodeToken },
      dataDir,
      dvr: options.dvrHours > 0 ? { dir: join(dataDir, 'dvr'), hours: options.dvrHours } : undefined,
    };
    const frontend = await startFrontend({
      ...frontendSettings,
      logger: logger.child({ role: 'frontend' }),
      registry,
    });
    let http: HttpListener | Workers | undefined;
    let listener: HttpListener | undefined;
    closers.push(async () => {
      await frontend.close(); // says goodbye to its viewers
      await http?.close();
    });

    const client = new CoordinatorClient({ baseUrl: coordinatorUrl, token: operatorToken });
    // Its backend is a node like any other, so that frontends on further machines take what it pushes.
    const membership = await joinNetwork({
      ...{ dataDir, coordinatorUrl, role: 'backend', name: 'main', logger },
      advertisedHost: addressForOthers(host),
      readJoinToken: async () => (await client.nodes.invite({ role: 'backend', expiresInSeconds: 60 })).token,
    });
    const backend = await startBackend({
      dataDir,
      coordinator: { baseUrl: coordinatorUrl, token: membership.identity },
      rtmpHost: host,
      rtmpPort: options.rtmpPort,
      rtmps: {
        port: options.rtmpsPort,
        certificatePath: options.tlsCertificatePath,
        privateKeyPath: options.tlsPrivateKeyPath,
      },
      onPlay: frontend.onPlay, // publish and play on one address
      frontends: [],
      leases: { from: 'nobody' },
      logger: logger.child({ role: 'backend' }),
      registry,
    }).catch((error: unknown) => {
      if (error instanceof CertificateError) throw new StartError(error.message, { cause: error });
      const isTlsPort = error instanceof Error && 'port' in error && error.port === options.rtmpsPort;
      throw isTlsPort
        ? asStartError(error, options.rtmpsPort, '--rtmps PORT')
        : asStartError(error, options.rtmpPort, '--rtmp PORT');
    });
    closers.push(() => backend.close());

    const node = nodeName('up', options.httpPort);
    const reports = startNodeReports({
      coordinator: { baseUrl: coordinatorUrl, token: nodeToken },
      ...{ node, registry, logShipper, folders: [dataDir] },
    });
    closers.push(() => reports.close());

    let workers: Workers | undefined;
    let fleet: Fleet = { revision: 0, nodes: [] };
    const pushToFrontends = () => {
      const rtmpPorts = [frontend.rtmpPort, ...(workers?.rtmpPorts ?? [])];
      const own = rtmpPorts.map((port) => ({ host: '127.0.0.1', port, publishToken }));
      backend.setFrontends([...own, ...pushTargets(fleet)]);
    };
    pushToFrontends();
    let isDemoDone = false;
    const isReady = () =>
      isDemoDone &&
      [coordinator, backend, frontend, workers].every((part) => part === undefined || part.isReady());
    const metrics = () =>
      workers === undefined ? registry.metrics() : workers.metrics(registry, frontend.viewers());
    const handle: RequestHandler = (request, response) => {
      if (answerHealth(request, response, { isReady, metrics })) return;
      if (!frontend.handleRequest(request, response)) coordinator.handleRequest(request, response);
    };
    const httpSettings = { host, port: options.httpPort, trustedProxies: options.trustedProxies };
    if (options.workers === 1) {
      const limits = httpOptions(registry, httpSettings);
      listener = await listenHttp(httpSettings, logger, handle, frontend.handleUpgrade, limits).catch(
        explainHttpPort,
      );
      http = listener;
    } else {
      registry.setDefaultLabels({ process: 'main' });
      workers = new Workers({
        count: options.workers,
        node,
        program: workerProgram(),
        frontend: frontendSettings,
        http: httpSettings,
        handleRest: handle,
        ownChannels: () => frontend.channels(),
        onRtmpPortsChange: pushToFrontends,
        logger,
      });
      http = workers;
      await workers.start().catch(explainHttpPort);
    }
    const { port } = http;
    const viewerCount = () =>
      new Set([...frontend.viewers().map(({ id }) => id), ...(workers?.viewerIds ?? [])]).size;

    const agent = await NodeAgent.open({
      ...{ membership, registry, version: packageJson.version },
      logger: logger.child({ role: 'backend' }),
      part: {
        ports: () => ({
          httpPort: port,
          rtmpPort: backend.rtmpPort,
          ...(backend.rtmpsPort === undefined ? {} : { rtmpsPort: backend.rtmpsPort }),
        }),
        isReady,
        isIdle: () => !backend.isBusy && viewerCount() === 0,
        channelCount: () => backend.channelCount,
        viewerCount,
        onFleet(next) {
          fleet = next;
          pushToFrontends();
          (workers ?? listener)?.trust(balancerAddresses(next));
        },
        drain() {
          for (const part of [frontend, workers]) part?.drain(ENDLESS_WITHIN_MS);
        },
        resume() {
          for (const part of [frontend, workers]) part?.resume();
        },
      },
      onEnd,
    });
    closers.push(() => agent.close());

    const withdraw = announceRunning(dataDir, {
      apiUrl: `http://127.0.0.1:${port}`,
      rtmpUrl: `rtmp://localhost:${backend.rtmpPort}/live`,
      rtmpsUrl: `rtmps://localhost:${backend.rtmpsPort}/live`,
    });
    closers.push(async () => withdraw());

    return {
      membership,
      async prepareDemo() {
        await makeDemo(client, dataDir, logger);
        isDemoDone = true;
        while (!isReady()) await new Promise((wake) => setTimeout(wake, 50));
      },
      welcome: () =>
        welcomeText(port, backend.rtmpPort, dataDir) + firstAccountText(coordinator.firstAccount),
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/**
 * Where other machines reach this one: the address that it listens on, or the first that leads off it.
 * @param host undefined where it listens on all
 */
function addressForOthers(host: string | undefined): string {
  if (host !== undefined && !/^[0.:]+$/.test(host)) return host;
  const addresses = Object.values(networkInterfaces()).flatMap((all) => all ?? []);
  return addresses.find(({ internal, family }) => !internal && family === 'IPv4')?.address ?? '127.0.0.1';
}

function welcomeText(httpPort: number, rtmpPort: number, dataDir: string): string {
  const site = `http://localhost:${httpPort}`;
  const lines = [
    ['Watch', `${site}/watch/demo`],
    ['All channels', `${site}/`],
    ['HLS', `${site}/live/demo/index.m3u8`],
    ['HTTP-FLV', `${site}/live/demo.flv`],
    ['MPEG-TS', `${site}/live/demo.ts`],
    ['RTMP', `rtmp://localhost:${rtmpPort}/live/demo`],
    ['IPTV players', `${site}/playlist.m3u`],
    ['API', `${site}/api/docs`],
    ['Log in', `${site}/login`],
    ['Publish', `rtmp://localhost:${rtmpPort}/live/<stream>?key=<key>   (npx starling stream add NAME)`],
    ['Data', dataDir],
  ];
  return `\nStarling is on the air.\n\n${lines.map(([name, value]) => `  ${name?.padEnd(14)}${value}`).join('\n')}\n\n`;
}
