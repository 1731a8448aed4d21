/**
 * `starling up --frontends N --backends M --balancer`: a whole fleet on this machine, each role in a process of its own that is
 * kept going. They start from configuration files and join by invitation, as on machines of their own.
 */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { hostname, networkInterfaces, userInfo } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CoordinatorClient } from '@starling/model/client';
import type { Logger } from 'pino';
import { findNginx } from './balancer.ts';
import { keepOperatorToken, makeDemo, prepareDataDir, requireFfmpeg } from './first-start.ts';
import { openLog, openLogSink, runUntilStopped, StartError } from './process.ts';
import type { Role } from './role.ts';
import { Supervisor } from './supervisor.ts';

export interface FleetOptions {
  readonly dataDir: string;
  readonly frontends: number;
  readonly backends: number;
  readonly hasBalancer: boolean;
  /** Of the site: the balancer's redirect, or the coordinator where there is none; 0 takes free ports for everything. */
  readonly httpPort: number;
  /** Of the balancer. */
  readonly httpsPort: number;
  /** Where encoders publish. */
  readonly rtmpPort: number;
  /** The address to listen on; all of them when undefined. */
  readonly host: string | undefined;
  readonly dvrHours: number;
  /** Whether every channel goes to every frontend. */
  readonly distribution: 'all' | 'on-demand';
}

/** The ports of the processes follow those that the operator chose: frontend 1 has HTTP port 8091 with 8080. */
const COORDINATOR_OFFSET = 1;
const BALANCER_HEALTH_OFFSET = 2;
const FRONTEND_OFFSET = 10;
const BACKEND_OFFSET = 10;
const PUSH_OFFSET = 50;
/** The nodes join at once. */
const INVITATION_SECONDS = 300;

interface Member {
  readonly name: string;
  readonly role: Role;
  /** Of its configuration file. */
  readonly section: object;
  readonly ports: string;
}

/**
 * Runs the fleet until SIGINT or SIGTERM.
 * @throws StartError when it cannot start
 */
export async function runFleet(options: FleetOptions): Promise<void> {
  const dataDir = resolve(options.dataDir);
  const sink = openLogSink();
  const logger = openLog(undefined, sink);
  prepareDataDir(dataDir);
  requireFfmpeg();
  if (options.hasBalancer && findNginx() === undefined) {
    throw new StartError(
      'nginx is missing, which --balancer needs. Install it, on Debian with: apt-get install nginx libnginx-mod-stream',
    );
  }
  const supervisor = new Supervisor({
    logger,
    // What a process says about itself, with its name.
    onLogLine: (name, line) =>
      sink.write(line.startsWith('{') ? `{"node":"${name}",${line.slice(1)}\n` : `${name}: ${line}\n`),
    onOutput: (_name, line) => process.stdout.write(`${line}\n`),
  });
  try {
    await startFleet({ ...options, dataDir }, supervisor, logger);
  } catch (error) {
    await supervisor.close();
    throw error instanceof StartError
      ? error
      : new StartError(error instanceof Error ? error.message : String(error), { cause: error });
  }
  await runUntilStopped(() => supervisor.close(), logger, new Promise<never>(() => {}));
}

async function startFleet(options: FleetOptions, supervisor: Supervisor, logger: Logger): Promise<void> {
  const { dataDir } = options;
  const fleetDir = join(dataDir, 'fleet');
  mkdirSync(fleetDir, { recursive: true, mode: 0o700 });
  const operatorToken = keepOperatorToken(dataDir);
  keepSecret(join(fleetDir, 'node.token'));
  const plan = await planFleet(options, fleetDir);

  const program = fileURLToPath(new URL('starling.js', import.meta.url));
  const start = async (
    { name, role, section, ports }: Member,
    env: Readonly<Record<string, string>> = {},
  ) => {
    const path = join(fleetDir, `${name}.yaml`);
    writeFileSync(path, `${JSON.stringify({ [role]: section }, null, 2)}\n`, { mode: 0o600 });
    const { pid } = await supervisor.start({
      ...{ name, env, command: process.execPath },
      args: [program, role, '--config', path],
    });
    process.stdout.write(`  ${name.padEnd(14)}${ports.padEnd(40)}process ${pid}\n`);
  };
  process.stdout.write('\n');
  await start(plan.coordinator);
  const { apiUrl, rtmpUrl, site } = plan.addresses;
  const client = new CoordinatorClient({ baseUrl: apiUrl, token: operatorToken });
  const startNode = async (member: Member) => {
    const { name, role } = member;
    const hasJoined = existsSync(join(fleetDir, name, 'node.json'));
    if (hasJoined || role === 'coordinator') return start(member);
    const { token } = await client.nodes.invite({ name, role, expiresInSeconds: INVITATION_SECONDS });
    await start(member, { STARLING_JOIN_TOKEN: token });
  };
  await removeOthers(client, fleetDir, plan);
  await Promise.all([...plan.backends, ...plan.frontends].map(startNode));
  if (plan.balancer !== undefined) await startNode(plan.balancer); // it looks whether the others are ready
  void makeDemo(client, dataDir, logger).then(
    () =>
      process.stdout.write(`
The fleet is on the air.

  Watch         ${site}${options.hasBalancer ? '/watch/demo' : '/live/demo/index.m3u8'}
  Log in        ${options.hasBalancer ? site : apiUrl}/login
  Publish       ${rtmpUrl}/<stream>?key=<key>   (npx starling stream add NAME)
  Data          ${dataDir}

`),
    (error: unknown) => logger.error({ err: error }, 'the demo channel could not be made'),
  );
}

/** Of an earlier start with more of them. */
async function removeOthers(client: CoordinatorClient, fleetDir: string, plan: FleetPlan): Promise<void> {
  const wanted = new Set([...plan.frontends, ...plan.backends, plan.balancer].map((member) => member?.name));
  for (const { name } of await client.nodes.list()) {
    if (wanted.has(name) || !/^(?:frontend|backend)-\d+$|^balancer$/.test(name)) continue;
    await client.nodes.remove(name);
    rmSync(join(fleetDir, name, 'node.json'), { force: true });
  }
}

interface FleetPlan {
  readonly coordinator: Member;
  readonly frontends: readonly Member[];
  readonly backends: readonly Member[];
  readonly balancer: Member | undefined;
  readonly addresses: {
    readonly apiUrl: string;
    readonly rtmpUrl: string;
    /** Where viewers begin. */
    readonly site: string;
  };
}

/** Which process has which ports, and what it is told of the others. */
async function planFleet(options: FleetOptions, fleetDir: string): Promise<FleetPlan> {
  const { dataDir, host, httpPort, rtmpPort, hasBalancer, dvrHours } = options;
  const takePort = async (base: number, offset: number) => (base === 0 ? await freePort() : base + offset);
  const numbers = (count: number) => Array.from({ length: count }, (_, index) => index + 1);
  const loopback = '127.0.0.1';
  const nodeHost = hasBalancer ? loopback : host;
  const apiPort = await takePort(httpPort, hasBalancer ? COORDINATOR_OFFSET : 0);
  const apiUrl = `http://${loopback}:${apiPort}`;
  const coordinator = { url: apiUrl, advertise: loopback };

  const frontends = await Promise.all(
    numbers(options.frontends).map(async (number) => ({
      name: `frontend-${number}`,
      http: await takePort(httpPort, FRONTEND_OFFSET + number),
      push: await takePort(rtmpPort, PUSH_OFFSET + number),
    })),
  );
  const backends = await Promise.all(
    numbers(options.backends).map(async (number) => ({
      name: `backend-${number}`,
      rtmp: await takePort(rtmpPort, hasBalancer ? BACKEND_OFFSET + number : number - 1),
    })),
  );
  const https = options.httpsPort === 0 ? await freePort() : options.httpsPort;
  const redirect = await takePort(httpPort, 0);
  const encoders = hasBalancer ? await takePort(rtmpPort, 0) : (backends[0]?.rtmp ?? 0);
  return {
    coordinator: {
      name: 'coordinator',
      role: 'coordinator',
      ports: `HTTP ${apiPort}`,
      section: {
        dataDir,
        http: { host: hasBalancer ? loopback : (host ?? '0.0.0.0'), port: apiPort },
        operatorTokenFile: join(dataDir, 'operator.token'),
        nodeTokenFile: join(fleetDir, 'node.token'),
        rtmpUrl: `rtmp://localhost:${encoders}/live`,
        ...(options.distribution === 'on-demand' ? { distribution: 'on-demand' } : {}),
      },
    },
    frontends: frontends.map(({ name, http, push }) => ({
      name,
      role: 'frontend',
      ports: `HTTP ${http}, pushes ${push}`,
      section: {
        http: { host: nodeHost, port: http },
        rtmp: { host: loopback, port: push },
        ...{ coordinator, dataDir: join(fleetDir, name) },
        ...(dvrHours > 0 ? { dvr: { dir: join(dataDir, 'dvr'), hours: dvrHours } } : {}),
      },
    })),
    backends: backends.map(({ name, rtmp }) => ({
      name,
      role: 'backend',
      ports: `RTMP ${rtmp}`,
      section: {
        dataDir: join(fleetDir, name),
        mediaDir: join(dataDir, 'media'),
        rtmp: { host: nodeHost, port: rtmp },
        coordinator,
      },
    })),
    balancer: hasBalancer
      ? {
          name: 'balancer',
          role: 'balancer',
          ports: `HTTPS ${https}, HTTP ${redirect}, RTMP ${encoders}`,
          section: {
            dataDir: join(fleetDir, 'balancer'),
            names: namesOfThisMachine(),
            http: { host, port: redirect },
            https: { host, port: https },
            rtmp: { host, port: encoders },
            coordinator,
            site: { host: loopback, port: apiPort },
            // The data folder is for this account alone, so that nginx's workers have to be of it, too.
            nginx: { user: userInfo().username },
            health: { host: loopback, port: await takePort(httpPort, BALANCER_HEALTH_OFFSET) },
          },
        }
      : undefined,
    addresses: {
      apiUrl,
      rtmpUrl: `rtmp://localhost:${encoders}/live`,
      site: hasBalancer ? `https://localhost:${https}` : `http://localhost:${frontends[0]?.http}`,
    },
  };
}

/** What people on this machine and beside it may call it; a balancer refuses other names. */
function namesOfThisMachine(): string[] {
  const addresses = Object.values(networkInterfaces())
    .flatMap((of) => of ?? [])
    .flatMap(({ family, address }) => (family === 'IPv4' ? [address] : []));
  return [...new Set(['localhost', '127.0.0.1', hostname().toLowerCase(), ...addresses])];
}

/** A secret that is made once; readable by this account alone. */
function keepSecret(path: string): void {
  if (!existsSync(path)) writeFileSync(path, `${randomBytes(32).toString('base64url')}\n`, { mode: 0o600 });
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
