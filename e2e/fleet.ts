/**
 * A fleet for tests, as on machines of their own: coordinator on PostgreSQL and Redis, backends, frontends, and the balancer
 * with a certificate that Pebble issues over real ACME. Each is a process; each can be hurt.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, type PeerCertificate } from 'node:tls';
import { CoordinatorClient } from '@starling/model/client';
import { TEST_CARD_SOURCE } from '@starling/model/entities';
import { startRedis } from '../roles/coordinator/test/postgres/redis.ts';
import { startPostgres } from '../roles/coordinator/test/postgres/server.ts';
import { freePort } from '../tools/free-port.ts';
import { run, until } from './network.ts';
import { startRole } from './role-processes.ts';

export interface Authority {
  readonly directoryUrl: string;
  /** Of the API's own certificate, in the folder. */
  readonly caFile: string;
  /** The root of what it issues, in PEM. */
  root(): Promise<string>;
}

/** Pebble, and a name server that says 127.0.0.1 to all names. */
export async function startAuthority(
  folder: string,
  options: {
    readonly httpPort: number;
    readonly httpsPort: number;
    readonly certificateSeconds: number;
    /** Takes note of what has to be ended. */
    readonly children: ChildProcess[];
  },
): Promise<Authority> {
  const start = (command: string, args: readonly string[], env: Record<string, string> = {}) => {
    options.children.push(
      spawn(command, args, { cwd: folder, stdio: 'ignore', env: { ...process.env, ...env } }),
    );
  };
  const ports = { api: await freePort(), management: await freePort(), dns: await freePort() };
  const request =
    'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=x -out authority.pem -keyout authority.key -addext subjectAltName=DNS:localhost';
  const made = await run('openssl', request.split(' '), { cwd: folder });
  if (made.exitCode !== 0) throw new Error(made.stderr);
  const pebble = {
    listenAddress: `127.0.0.1:${ports.api}`,
    managementListenAddress: `127.0.0.1:${ports.management}`,
    ...{ certificate: 'authority.pem', privateKey: 'authority.key' },
    ...{ httpPort: options.httpPort, tlsPort: options.httpsPort },
    certificateValidityPeriod: options.certificateSeconds,
  };
  writeFileSync(join(folder, 'pebble.json'), JSON.stringify({ pebble }));
  start('pebble-challtestsrv', [
    ...['-http01', '', '-https01', '', '-tlsalpn01', '', '-defaultIPv6', ''],
    ...['-dns01', `127.0.0.1:${ports.dns}`, '-management', `127.0.0.1:${await freePort()}`],
  ]);
  start('pebble', ['-config', 'pebble.json', '-dnsserver', `127.0.0.1:${ports.dns}`, '-strict'], {
    PEBBLE_VA_NOSLEEP: '1',
  });
  const caFile = join(folder, 'authority.pem');
  return {
    directoryUrl: `https://localhost:${ports.api}/dir`,
    caFile,
    root: () =>
      until('the root of the authority', 20_000, async () => {
        const url = `https://localhost:${ports.management}/roots/0`;
        const { stdout } = await run('curl', ['-s', '--cacert', caFile, url]);
        return stdout.includes('BEGIN CERTIFICATE') ? stdout : undefined;
      }),
  };
}

/** What an HTTPS port shows in a handshake; undefined when it is not trusted or nobody answers. */
export function shownCertificate(port: number, ca: string): Promise<PeerCertificate | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port, servername: 'localhost', ca }, () => {
      resolve(socket.getPeerCertificate());
      socket.destroy();
    });
    socket.on('error', () => resolve(undefined));
  });
}

export interface TestFleet {
  readonly folder: string;
  /** The balancer's address. */
  readonly site: string;
  readonly httpsPort: number;
  readonly root: string;
  readonly client: CoordinatorClient;
  readonly postgres: Awaited<ReturnType<typeof startPostgres>>;
  readonly redis: Awaited<ReturnType<typeof startRedis>>;
  /** Of the processes that live, by name. */
  readonly processes: ReadonlyMap<string, ChildProcess>;
  /** Starts a node that has been ended again. */
  start(name: string): Promise<void>;
  /** Sends a signal; waits for the end where it is one that ends. */
  signal(name: string, signal: NodeJS.Signals): Promise<void>;
  /** One more frontend; resolves when it runs. @returns its port for viewers */
  addFrontend(): Promise<{ httpPort: number }>;
  /** Of the balancer. */
  metric(name: string): Promise<number>;
  stop(): Promise<void>;
}

export interface TestFleetOptions {
  readonly frontends: number;
  readonly backends: number;
  /** A network whose media are copied, so that the test card need not be drawn again. */
  readonly shared: { readonly site: string; readonly dataDir: string };
  /** Of each certificate; it is renewed after two thirds of them. */
  readonly certificateSeconds: number;
}

/** Starts everything, and a channel `demo` that two backends make; resolves when it plays through the balancer. */
export async function startTestFleet(options: TestFleetOptions): Promise<TestFleet> {
  const folder = mkdtempSync(join(tmpdir(), 'starling-fleet-'));
  chmodSync(folder, 0o755); // nginx's workers are another account when this is root
  const path = (...names: string[]) => join(folder, ...names);
  const host = '127.0.0.1';
  const children: ChildProcess[] = [];
  const processes = new Map<string, ChildProcess>();
  const stops: (() => unknown)[] = [];
  const stop = async () => {
    const balancer = processes.get('balancer');
    if (balancer !== undefined) {
      balancer.kill('SIGCONT');
      balancer.kill('SIGTERM'); // and nginx with it
      await once(balancer, 'exit');
    }
    for (const child of [...children, ...processes.values()]) child.kill('SIGKILL');
    for (const one of stops.reverse()) await one();
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    for (const name of ['operator', 'node', 'publish'])
      writeFileSync(path(`${name}.token`), `${name}-secret\n`);
    const [httpPort, httpsPort, healthPort, api] = [
      await freePort(),
      await freePort(),
      await freePort(),
      await freePort(),
    ];
    const [postgres, redis, authority] = await Promise.all([
      startPostgres(['fsync = off']),
      startRedis(),
      startAuthority(folder, {
        ...{ httpPort, httpsPort, children },
        certificateSeconds: options.certificateSeconds,
      }),
    ]);
    stops.push(
      () => postgres.remove(),
      () => redis.stop(),
    );
    writeFileSync(path('database.url'), postgres.url());
    writeFileSync(path('redis.url'), redis.url);

    const sections = new Map<string, { role: string; section: Record<string, unknown> }>();
    const start = async (name: string, env: Record<string, string> = {}) => {
      const { role, section } = sections.get(name) ?? { role: name, section: {} };
      writeFileSync(path(`${name}.yaml`), JSON.stringify({ [role]: section }));
      const { process: child } = await startRole(role, path(`${name}.yaml`), [], env);
      processes.set(name, child);
      child.once('exit', () => {
        if (processes.get(name) === child) processes.delete(name);
      });
    };

    const coordinator = { url: `http://${host}:${api}` };
    sections.set('coordinator', {
      role: 'coordinator',
      section: {
        dataDir: path('coordinator'),
        http: { host, port: api },
        ...{ operatorTokenFile: 'operator.token', nodeTokenFile: 'node.token' },
        ...{ databaseUrlFile: 'database.url', redisUrlFile: 'redis.url' },
      },
    });
    let frontendCount = 0;
    const planFrontend = async (): Promise<{ name: string; httpPort: number }> => {
      const ports = { http: await freePort(), push: await freePort() };
      const name = `frontend-${++frontendCount}`;
      const section = {
        http: { host, port: ports.http },
        rtmp: { host, port: ports.push },
        ...{ coordinator, dataDir: path(name) },
      };
      sections.set(name, { role: 'frontend', section });
      return { name, httpPort: ports.http };
    };
    const frontendNames: string[] = [];
    for (let count = 0; count < options.frontends; count++) frontendNames.push((await planFrontend()).name);
    const backendNames = Array.from({ length: options.backends }, (_, index) => `backend-${index + 1}`);
    for (const name of backendNames) {
      const section = {
        ...{ dataDir: path(name), mediaDir: path('media'), coordinator },
        rtmp: { host, port: await freePort() },
      };
      sections.set(name, { role: 'backend', section });
    }
    sections.set('balancer', {
      role: 'balancer',
      section: {
        dataDir: path('balancer'),
        names: ['localhost'],
        http: { host, port: httpPort },
        https: { host, port: httpsPort },
        health: { host, port: healthPort },
        coordinator,
        site: { host, port: api },
        acme: { directoryUrl: authority.directoryUrl, directoryCaFile: 'authority.pem' },
      },
    });

    mkdirSync(path('coordinator'));
    cpSync(join(options.shared.dataDir, 'media'), path('media'), { recursive: true });
    await start('coordinator');
    const client = new CoordinatorClient({ baseUrl: coordinator.url, token: 'operator-secret' });
    const asset = await client.assets.create({ source: TEST_CARD_SOURCE, name: 'card' });
    const token = readFileSync(join(options.shared.dataDir, 'operator.token'), 'utf8').trim();
    const [card] = await new CoordinatorClient({ baseUrl: options.shared.site, token }).assets.list();
    if (card === undefined || card.facts === null) throw new Error('the shared network has no test card');
    const node = new CoordinatorClient({ baseUrl: coordinator.url, token: 'node-secret' });
    await node.reportImport(asset.id, { state: 'ready', facts: card.facts });
    await client.channels.create({ name: 'demo', title: 'Demo', loop: [asset.id] });
    await client.channels.update('demo', { redundancy: Math.min(2, options.backends) });
    /** As an operator does: an invitation, and one command. */
    const joinAs = async (role: 'frontend' | 'backend' | 'balancer', name: string) => {
      const { token: joinToken } = await client.nodes.invite({ role, name, expiresInSeconds: 300 });
      await start(name, { STARLING_JOIN_TOKEN: joinToken });
    };
    await Promise.all([
      ...frontendNames.map((name) => joinAs('frontend', name)),
      ...backendNames.map((name) => joinAs('backend', name)),
    ]);
    await joinAs('balancer', 'balancer');
    const root = await authority.root();
    await until('the certificate', 100_000, () => shownCertificate(httpsPort, root));
    const site = `https://localhost:${httpsPort}`;
    await until('the channel', 30_000, async () =>
      (await run('curl', ['-skf', `${site}/live/demo/main/index.m3u8`])).exitCode === 0 ? true : undefined,
    );
    return {
      ...{ folder, site, httpsPort, root, client, postgres, redis, processes, stop },
      start: (name) => start(name),
      async signal(name, signal) {
        const child = processes.get(name);
        if (child === undefined) throw new Error(`${name} does not run`);
        child.kill(signal);
        if (signal === 'SIGKILL' || signal === 'SIGTERM') await once(child, 'exit');
      },
      async addFrontend() {
        const { name, httpPort: port } = await planFrontend();
        await joinAs('frontend', name);
        return { httpPort: port };
      },
      async metric(name) {
        const text = await (await fetch(`http://${host}:${healthPort}/metrics`)).text();
        const line = text.split('\n').find((one) => one.startsWith(`${name} `));
        return Number(line?.split(' ')[1]);
      },
    };
  } catch (error) {
    await stop();
    throw error;
  }
}
