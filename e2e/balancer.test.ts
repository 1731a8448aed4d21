/**
 * A fleet behind the balancer: coordinator, backend and two frontends, a certificate that Pebble issues over real
 * ACME, and viewers who see nothing of what happens behind it.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, type PeerCertificate } from 'node:tls';
import { CoordinatorClient } from '@starling/model/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { freePort } from '../tools/free-port.ts';
import { launchChromium } from './browser.ts';
import { FlvViewer, HlsViewer, type LightViewer } from './light-viewers.ts';
import { program, run, until } from './network.ts';
import { startRole } from './role-processes.ts';

/** Of each certificate; it is renewed after two thirds of them. */
const CERTIFICATE_SECONDS = 24;
/** The goal is two seconds; a machine that is busy with other tests is given more. */
const MAX_STALL_MS = process.env.STARLING_SOAK === undefined ? 6000 : 2000;
let configCount = 0;

const folder = mkdtempSync(join(tmpdir(), 'starling-balanced-'));
const children: ChildProcess[] = [];
const viewers: LightViewer[] = [];
const frontends: ChildProcess[] = [];
let frontendConfigs: object[];
let balancer: ChildProcess;
let site: string;
let httpPort: number;
let httpsPort: number;
let healthPort: number;
let balancerConfig: string;
/** Of the authority that Pebble made up. */
let root: string;

function start(command: string, args: readonly string[], env: Record<string, string> = {}): ChildProcess {
  const child = spawn(command, args, { cwd: folder, stdio: 'ignore', env: { ...process.env, ...env } });
  children.push(child);
  return child;
}

async function startRoleFrom(role: string, config: object): Promise<ChildProcess> {
  const path = join(folder, `${role}-${++configCount}.yaml`);
  writeFileSync(path, JSON.stringify({ [role]: config }));
  const { process: child } = await startRole(role, path);
  children.push(child);
  return child;
}

/** Pebble, and a name server that says 127.0.0.1 to all names. */
async function startAuthority(): Promise<{ directoryUrl: string; rootsUrl: string }> {
  const [api, management, dns, dnsManagement] = [
    await freePort(),
    await freePort(),
    await freePort(),
    await freePort(),
  ];
  const certificate = [
    '-out',
    'authority.pem',
    '-keyout',
    'authority.key',
    '-addext',
    'subjectAltName=DNS:localhost',
  ];
  const made = await run(
    'openssl',
    [
      'req',
      '-x509',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-256',
      '-nodes',
      '-subj',
      '/CN=x',
      ...certificate,
    ],
    { cwd: folder },
  );
  expect(made.exitCode, made.stderr).toBe(0);
  const pebble = {
    listenAddress: `127.0.0.1:${api}`,
    managementListenAddress: `127.0.0.1:${management}`,
    ...{ certificate: 'authority.pem', privateKey: 'authority.key', httpPort, tlsPort: httpsPort },
    certificateValidityPeriod: CERTIFICATE_SECONDS,
  };
  writeFileSync(join(folder, 'pebble.json'), JSON.stringify({ pebble }));
  const none = ['-http01', '', '-https01', '', '-tlsalpn01', ''];
  start('pebble-challtestsrv', [
    ...none,
    ...['-dns01', `127.0.0.1:${dns}`, '-management', `127.0.0.1:${dnsManagement}`, '-defaultIPv6', ''],
  ]);
  start('pebble', ['-config', 'pebble.json', '-dnsserver', `127.0.0.1:${dns}`, '-strict'], {
    PEBBLE_VA_NOSLEEP: '1',
  });
  return {
    directoryUrl: `https://localhost:${api}/dir`,
    rootsUrl: `https://localhost:${management}/roots/0`,
  };
}

/** What the balancer shows in a handshake; undefined when it is not what Pebble issued for its names. */
function shownCertificate(): Promise<PeerCertificate | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port: httpsPort, servername: 'localhost', ca: root }, () => {
      resolve(socket.getPeerCertificate());
      socket.destroy();
    });
    socket.on('error', () => resolve(undefined));
  });
}

async function metric(name: string): Promise<number> {
  const text = await (await fetch(`http://127.0.0.1:${healthPort}/metrics`)).text();
  return Number(
    text
      .split('\n')
      .find((line) => line.startsWith(`${name} `))
      ?.split(' ')[1],
  );
}

const framesIn = async (url: string): Promise<number> => {
  const probed = await run('ffprobe', [
    ...['-v', 'error', '-select_streams', 'v', '-count_packets', '-read_intervals', '%+3', '-of', 'csv=p=0'],
    ...['-show_entries', 'stream=nb_read_packets', url],
  ]);
  expect(probed.stderr.replace(/^.*Found duplicated MOOV.*\n(?: *Last message.*\n)?/gm, '')).toBe('');
  return Number(/^\d+/m.exec(probed.stdout)?.[0]);
};

beforeAll(async () => {
  chmodSync(folder, 0o755); // nginx's workers are another account when this is root
  [httpPort, httpsPort, healthPort] = [await freePort(), await freePort(), await freePort()];
  const [api, ingest, rtmp] = [await freePort(), await freePort(), await freePort()];
  site = `https://localhost:${httpsPort}`;
  for (const name of ['operator', 'node', 'publish'])
    writeFileSync(join(folder, `${name}.token`), `${name}-secret\n`);
  const authority = await startAuthority();
  const coordinator = { url: `http://127.0.0.1:${api}`, tokenFile: 'node.token' };
  await startRoleFrom('coordinator', {
    dataDir: join(folder, 'data'),
    http: { host: '127.0.0.1', port: api },
    ...{ operatorTokenFile: 'operator.token', nodeTokenFile: 'node.token' },
  });
  const client = new CoordinatorClient({ baseUrl: coordinator.url, token: 'operator-secret' });
  const { key } = await client.streams.create({ name: 'cam' });
  const ports = [
    { http: await freePort(), rtmp: await freePort() },
    { http: await freePort(), rtmp: await freePort() },
  ];
  frontendConfigs = ports.map((port) => ({
    http: { host: '127.0.0.1', port: port.http },
    rtmp: { host: '127.0.0.1', port: port.rtmp },
    ...{ publishTokenFile: 'publish.token', coordinator },
  }));
  const backend = {
    dataDir: join(folder, 'data'),
    rtmp: { host: '127.0.0.1', port: ingest },
    coordinator,
    frontends: ports.map((port) => ({
      host: '127.0.0.1',
      port: port.rtmp,
      publishTokenFile: 'publish.token',
    })),
  };
  const [, ...started] = await Promise.all([
    startRoleFrom('backend', backend),
    ...frontendConfigs.map((one) => startRoleFrom('frontend', one)),
  ]);
  frontends.push(...started);
  const config = {
    dataDir: join(folder, 'balancer'),
    names: ['localhost', 'tv.starling.test'],
    http: { host: '127.0.0.1', port: httpPort },
    https: { host: '127.0.0.1', port: httpsPort },
    rtmp: { host: '127.0.0.1', port: rtmp },
    health: { host: '127.0.0.1', port: healthPort },
    frontends: ports.map((port) => ({ host: '127.0.0.1', port: port.http })),
    backends: [{ host: '127.0.0.1', rtmpPort: ingest }],
    site: { host: '127.0.0.1', port: api },
    balance: 'round-robin',
    acme: { directoryUrl: authority.directoryUrl, directoryCaFile: 'authority.pem' },
  };
  balancerConfig = join(folder, 'balancer.yaml');
  writeFileSync(balancerConfig, JSON.stringify({ balancer: config }));
  balancer = (await startRole('balancer', balancerConfig)).process;
  children.push(balancer);
  await until('a backend that takes the encoder', 15_000, async () =>
    (await client.leases()).some(({ holders }) => holders.length > 0) ? true : undefined,
  );
  const encoder = `-v error -re -f lavfi -i testsrc2=s=320x180:r=25 -f lavfi -i sine=r=48000 -t 300 -c:v libx264 -preset ultrafast -g 50 -pix_fmt yuv420p -c:a aac -f flv rtmp://127.0.0.1:${rtmp}/live/cam?key=${key}`;
  start('ffmpeg', encoder.split(' '));
  root = (await run('curl', ['-s', '--cacert', join(folder, 'authority.pem'), authority.rootsUrl])).stdout;
  expect(root).toContain('BEGIN CERTIFICATE');
}, 60_000);

afterAll(async () => {
  for (const viewer of viewers) viewer.leave();
  if (balancer.exitCode === null) {
    balancer.kill('SIGTERM'); // and nginx with it
    await once(balancer, 'exit');
  }
  for (const child of children) child.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

describe('behind the balancer', () => {
  it('a fleet is one site, under a certificate that was issued over ACME', async () => {
    const { subjectaltname } = await until('the certificate', 30_000, shownCertificate);
    expect(subjectaltname?.split(', ').sort()).toEqual(['DNS:localhost', 'DNS:tv.starling.test']);
    const redirect = await run('curl', ['-si', `http://localhost:${httpPort}/watch/cam`]);
    expect(redirect.stdout).toMatch(new RegExp(`^HTTP/1.1 301 [^]*\r\nLocation: ${site}/watch/cam\r\n`));
    await until('the channel on both frontends', 30_000, async () =>
      (await metric('starling_balancer_frontends{state="in"}')) === 2 &&
      (await run('curl', ['-skf', `${site}/live/cam/index.m3u8`])).exitCode === 0
        ? true
        : undefined,
    );
  });

  it('FFmpeg plays HLS and HTTP-FLV, and Chromium the site', async () => {
    expect(await framesIn(`${site}/live/cam/index.m3u8`)).toBeGreaterThan(60);
    expect(await framesIn(`${site}/live/cam.flv`)).toBeGreaterThan(60);
    const browser = await launchChromium('--ignore-certificate-errors');
    try {
      const page = await browser.newPage({ ignoreHTTPSErrors: true });
      await page.goto(`${site}/watch/cam`);
      const position = () =>
        page.evaluate('document.querySelector("video")?.currentTime ?? 0') as Promise<number>;
      const first = await until('the picture', 20_000, async () => (await position()) || undefined);
      await until('more of it', 20_000, async () => ((await position()) > first + 2 ? true : undefined));
      const firstMessage = page.evaluate(`new Promise((resolve, reject) => {
        const socket = new WebSocket('/live/cam.flv'.replace(/^/, location.origin.replace('https:', 'wss:')));
        socket.binaryType = 'arraybuffer';
        socket.onmessage = ({ data }) => resolve(String.fromCharCode(...new Uint8Array(data).slice(0, 3)));
        socket.onerror = () => reject(new Error('no WebSocket'));
      })`);
      expect(await firstMessage).toBe('FLV');
    } finally {
      await browser.close();
    }
  });

  const longestStallMs = () => Math.round(Math.max(...viewers.map((viewer) => viewer.longestStallMs())));
  const inCount = () => metric('starling_balancer_frontends{state="in"}');
  const forgetStalls = () => {
    for (const viewer of viewers) viewer.forgetStalls();
  };

  /** Does something to a frontend; how long until it is out, and how long nobody had anything to play at most. */
  async function without(signal: 'SIGKILL' | 'SIGSTOP', frontend: ChildProcess | undefined): Promise<void> {
    forgetStalls();
    frontend?.kill(signal);
    const startedAtMs = performance.now();
    await until('the ejection', 10_000, async () => ((await inCount()) === 1 ? true : undefined), 20);
    const ejectedAfterMs = Math.round(performance.now() - startedAtMs);
    await new Promise((wake) => setTimeout(wake, 2500));
    process.stdout.write(
      `${signal} to a frontend: out after ${ejectedAfterMs} ms, longest stall ${longestStallMs()} ms\n`,
    );
    expect(viewers.flatMap(({ missing }) => missing)).toEqual([]);
    expect(longestStallMs()).toBeLessThan(MAX_STALL_MS);
  }

  it('viewers go on when a frontend is killed, comes back, and another one hangs', async () => {
    for (let i = 0; i < 5; i++)
      viewers.push(new FlvViewer(site, '/live/cam.flv'), new HlsViewer(site, 'cam'));
    await until('media for all', 30_000, () =>
      viewers.every(({ positionMs }) => positionMs > 0) ? true : undefined,
    );
    await new Promise((wake) => setTimeout(wake, 1000));
    await without('SIGKILL', frontends[0]);
    forgetStalls();
    await startRoleFrom('frontend', frontendConfigs[0] ?? {});
    await until('its return', 15_000, async () => ((await inCount()) === 2 ? true : undefined));
    await new Promise((wake) => setTimeout(wake, 1000));
    expect(viewers.flatMap(({ missing }) => missing)).toEqual([]);
    expect(longestStallMs()).toBeLessThan(MAX_STALL_MS);
    await without('SIGSTOP', frontends[1]);
    frontends[1]?.kill('SIGCONT');
    await until('its return', 15_000, async () => ((await inCount()) === 2 ? true : undefined));
  });

  it('the certificate is renewed without a connection lost, and TLS is graded well meanwhile', async () => {
    const before = await shownCertificate();
    const broken = () =>
      viewers.filter((viewer) => viewer instanceof FlvViewer).map(({ brokenCount }) => brokenCount);
    const brokenBefore = broken();
    const graded = run(
      'testssl',
      [
        ...['--quiet', '--warnings', 'off', '--color', '0', '--ip', '127.0.0.1', '-p', '-s', '-h'],
        ...['--jsonfile', join(folder, 'grades.json'), `localhost:${httpsPort}`],
      ],
      { timeoutMs: 90_000 },
    );
    await until('another certificate', (CERTIFICATE_SECONDS + 20) * 1000, async () => {
      const now = await shownCertificate();
      return now !== undefined && now.serialNumber !== before?.serialNumber ? true : undefined;
    });
    await new Promise((wake) => setTimeout(wake, 1500));
    expect(broken()).toEqual(brokenBefore);
    expect(viewers.flatMap(({ missing }) => missing)).toEqual([]);

    await graded;
    const grades: { id: string; severity: string; finding: string }[] = JSON.parse(
      readFileSync(join(folder, 'grades.json'), 'utf8'),
    );
    const of = (id: string) => grades.find((one) => one.id === id)?.finding;
    for (const old of ['SSLv2', 'SSLv3', 'TLS1', 'TLS1_1']) expect(of(old)).toMatch(/not offered/);
    for (const good of ['TLS1_2', 'TLS1_3', 'ALPN_HTTP2']) expect(of(good)).toMatch(/^(?:offered|h2)/);
    expect(of('HSTS_time')).toMatch(/730 days/);
    expect(grades.filter(({ severity }) => /LOW|MEDIUM|HIGH|CRITICAL/.test(severity))).toEqual([]);
  });

  it('`starling balancer --check` finds nothing that fails', async () => {
    const checked = await run(process.execPath, [
      program,
      '--json',
      'balancer',
      '--config',
      balancerConfig,
      '--check',
    ]);
    expect(checked.exitCode, checked.stderr).toBe(0);
    const { configuration, findings } = JSON.parse(checked.stdout) as {
      configuration: string;
      findings: { rule: string; grade: string; why: string }[];
    };
    expect(configuration).toContain('ssl_protocols TLSv1.2 TLSv1.3;');
    expect(findings.filter(({ grade }) => grade === 'fail')).toEqual([]);
    expect(findings.find(({ rule }) => rule === 'frontends')).toMatchObject({ why: '2 are ready.' });
  });
});
