/** What `starling doctor --config` looks at: the node of a configuration file, and every peer that it needs. */
import { X509Certificate } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join, resolve } from 'node:path';
import { connect as connectTls, createSecureContext } from 'node:tls';
import { balancedFleet } from '@starling/balancer/fleet';
import type { NodeCoordinator } from '@starling/model/config';
import type { Fleet } from '@starling/model/node';
import { NodeProver } from '@starling/model/node-identity';
import { type ReadSettings, readSettings } from './config-file.ts';
import { readIdentity } from './joining.ts';
import {
  checkClock,
  checkDataFolder,
  checkDisk,
  checkFfmpeg,
  checkNode,
  errorOfListening,
  type Finding,
  outputOf,
} from './machine-checks.ts';
import { pushTargets, readKeptFleet } from './node-agent.ts';
import { StartError } from './process.ts';

const DEADLINE_MS = 3000;
/** A `Date` header is to the second. */
const SKEW_WARN_MS = 2000;
/** Signed times are refused by then. */
const SKEW_FAIL_MS = 30_000;
const DAY_MS = 24 * 3600 * 1000;
const EXPIRES_SOON_DAYS = 14;
const DEBIAN_NGINX = '/usr/sbin/nginx';

interface Address {
  readonly host: string;
  readonly port: number;
}

/** @throws StartError when the file cannot be used */
export async function examineNode(
  configPath: string,
  env: Readonly<Record<string, string | undefined>>,
): Promise<Finding[]> {
  const context: Context = { ...readSettings({ path: configPath }), env };
  const { config } = context;
  const needsFfmpeg = config.backend !== undefined || config.frontend !== undefined;
  const groups = await Promise.all([
    [checkNode()],
    needsFfmpeg ? checkFfmpeg() : [],
    checkClock().then((finding) => [finding]),
    ...[checkFrontend, checkBackend, checkCoordinator, checkBalancer].map((check) => check(context)),
  ]);
  const findings = groups.flat();
  // Several roles of one file share what they share.
  return findings.filter(
    ({ check, message }, index) =>
      findings.findIndex((one) => one.check === check && one.message === message) === index,
  );
}

interface Context extends ReadSettings {
  readonly env: Readonly<Record<string, string | undefined>>;
}

async function checkFrontend({ config, ...context }: Context): Promise<Finding[]> {
  const { frontend } = config;
  if (frontend === undefined) return [];
  const { http, rtmp, workers = 1, dataDir, dvr, coordinator, publishTokenFile } = frontend;
  const rtmpPorts = rtmp.port === 0 ? [] : Array.from({ length: workers }, (_, n) => rtmp.port + n);
  return [
    await checkOwnPort('http', { host: http.host, port: http.port }, 'http.port', answersHealth),
    ...(await Promise.all(
      rtmpPorts.map((port) => checkOwnPort('rtmp', { host: rtmp.host, port }, 'rtmp.port', answersRtmp)),
    )),
    ...(await checkFolders([dataDir, dvr && context.resolvePath(dvr.dir)])),
    ...(publishTokenFile === undefined ? [] : checkSecret('publish token', publishTokenFile, context)),
    ...(coordinator === undefined
      ? []
      : await checkCoordinatorOf('frontend', coordinator, dataDir && resolve(dataDir), context)),
  ];
}

async function checkBackend({ config, ...context }: Context): Promise<Finding[]> {
  const { backend } = config;
  if (backend === undefined) return [];
  const { rtmp, rtmps, dataDir, coordinator, frontends = [] } = backend;
  const known = await keptFleet(coordinator, resolve(dataDir));
  const addresses = new Map(
    [...frontends, ...pushTargets(known)].map(({ host, port }) => [`${host} ${port}`, { host, port }]),
  );
  const files = rtmps && {
    certificate: rtmps.certificateFile && context.resolvePath(rtmps.certificateFile),
    privateKey: rtmps.privateKeyFile && context.resolvePath(rtmps.privateKeyFile),
  };
  const own = join(dataDir, 'tls', 'rtmps.crt');
  return [
    await checkOwnPort('rtmp', { host: rtmp.host, port: rtmp.port }, 'rtmp.port', answersRtmp),
    ...(rtmps === undefined
      ? []
      : [await checkOwnPort('rtmps', { host: rtmp.host, port: rtmps.port }, 'rtmps.port', answersTls)]),
    ...(files?.certificate !== undefined
      ? [checkCertificateFiles('RTMPS', files.certificate, files.privateKey)]
      : rtmps !== undefined && existsSync(own)
        ? [checkCertificateFiles('RTMPS', own, join(dataDir, 'tls', 'rtmps.key'))]
        : []),
    ...(await checkFolders([dataDir])),
    ...(await checkCoordinatorOf('backend', coordinator, resolve(dataDir), context)),
    ...(await Promise.all(
      [...addresses.values()].map((address) => checkPeer('frontend', address, answersRtmp)),
    )),
    ...frontends.flatMap(({ publishTokenFile }) => checkSecret('publish token', publishTokenFile, context)),
  ];
}

async function checkCoordinator({ config, env, ...context }: Context): Promise<Finding[]> {
  const { coordinator } = config;
  if (coordinator === undefined) return [];
  const { http, dataDir, operatorTokenFile, nodeTokenFile } = coordinator;
  const servers: [name: string, file: string | undefined, variable: string, port: number][] = [
    ['PostgreSQL', coordinator.databaseUrlFile, 'DATABASE_URL', 5432],
    ['Redis', coordinator.redisUrlFile, 'REDIS_URL', 6379],
    ['SMTP', coordinator.smtpUrlFile, 'SMTP_URL', 587],
  ];
  const found = servers.map(async ([name, file, variable, defaultPort]): Promise<Finding[]> => {
    const secret = file === undefined ? [] : checkSecret(name, file, context);
    if (secret.some(({ result }) => result === 'fail')) return secret;
    const url = file === undefined ? env[variable] : context.readSecret(file);
    if (url === undefined || url === '') return [];
    if (!URL.canParse(url)) {
      const message = `the address of ${name} is none`;
      return [{ check: name, result: 'fail', message, advice: `Correct ${file ?? `$${variable}`}.` }];
    }
    const { hostname, port, protocol } = new URL(url);
    const address = {
      host: hostname.replace(/^\[|\]$/g, ''),
      port: Number(port) || (protocol === 'smtps:' ? 465 : defaultPort),
    };
    return [await checkPeer(name, address, answersTcp)];
  });
  return [
    await checkOwnPort('http', { host: http.host, port: http.port }, 'http.port', answersHealth),
    ...(await checkFolders([dataDir])),
    ...checkSecret('operator token', operatorTokenFile, context),
    ...checkSecret('node token', nodeTokenFile, context),
    ...(await Promise.all(found)).flat(),
  ];
}

async function checkBalancer({ config, ...context }: Context): Promise<Finding[]> {
  const { balancer } = config;
  if (balancer === undefined) return [];
  const { names, dataDir, site, certificate, coordinator, nginx } = balancer;
  const listed = { frontends: balancer.frontends ?? [], backends: balancer.backends ?? [] };
  const known = coordinator && (await keptFleet(coordinator, context.resolvePath(dataDir)));
  const { frontends, backends } = known === undefined ? listed : balancedFleet(known, listed);
  const http = { host: balancer.http?.host, port: balancer.http?.port ?? 80 };
  const https = { host: balancer.https?.host, port: balancer.https?.port ?? 443 };
  const program = nginx?.program ?? (existsSync(DEBIAN_NGINX) ? DEBIAN_NGINX : 'nginx');
  const hasNginx = (await outputOf(program, ['-v'])) !== undefined;
  return [
    hasNginx
      ? { check: 'nginx', result: 'ok', message: `${program} runs` }
      : {
          ...{ check: 'nginx', result: 'fail', message: `${program} does not run` },
          advice: 'Install it, on Debian with: apt-get install nginx libnginx-mod-stream',
        },
    await checkOwnPort('http', http, 'http.port', answersTcp),
    await checkOwnPort('https', https, 'https.port', answersTls),
    ...(certificate === undefined
      ? await checkServedCertificate({ ...https, host: https.host ?? '127.0.0.1' }, names[0] ?? '')
      : [
          checkCertificateFiles(
            'HTTPS',
            context.resolvePath(certificate.certificateFile),
            context.resolvePath(certificate.privateKeyFile),
          ),
        ]),
    ...(await checkFolders([context.resolvePath(dataDir)])),
    ...(await Promise.all([
      ...frontends.map((address) => checkPeer('frontend', address, answersReady)),
      ...backends.flatMap(({ host, rtmpPort, rtmpsPort }) => [
        ...(rtmpPort === undefined ? [] : [checkPeer('backend', { host, port: rtmpPort }, answersRtmp)]),
        ...(rtmpsPort === undefined ? [] : [checkPeer('backend', { host, port: rtmpsPort }, answersTls)]),
      ]),
      ...(site === undefined ? [] : [checkPeer('site', site, answersHealth)]),
    ])),
    ...(coordinator === undefined
      ? []
      : await checkCoordinatorOf('balancer', coordinator, context.resolvePath(dataDir), context)),
  ];
}

async function checkFolders(folders: readonly (string | undefined)[]): Promise<Finding[]> {
  const known = folders.filter((folder) => folder !== undefined);
  return (
    await Promise.all(known.map(async (folder) => [checkDataFolder(folder), await checkDisk(folder)]))
  ).flat();
}

function checkSecret(what: string, file: string, { readSecret }: Pick<Context, 'readSecret'>): Finding[] {
  const check = what;
  try {
    if (readSecret(file) !== '') return [{ check, result: 'ok', message: `${file} is there` }];
    return [{ check, result: 'fail', message: `${file} is empty`, advice: 'Put the secret into it.' }];
  } catch (error) {
    if (!(error instanceof StartError)) throw error;
    return [
      { check, result: 'fail', message: error.message, advice: 'Make the file, readable by this user.' },
    ];
  }
}

/** The peers of a node of the registry, as it last heard of them. */
async function keptFleet({ tokenFile }: NodeCoordinator, dataDir: string): Promise<Fleet> {
  const nothing: Fleet = { revision: 0, nodes: [] };
  if (tokenFile !== undefined) return nothing;
  return (await readKeptFleet(dataDir).catch(() => undefined)) ?? nothing;
}

/** What the node shows to the coordinator, or what is wrong with it. */
async function credentialOf(
  role: 'frontend' | 'backend' | 'balancer',
  { tokenFile }: NodeCoordinator,
  dataDir: string | undefined,
  context: Pick<Context, 'readSecret'>,
): Promise<{ readonly token: string } | { readonly problems: Finding[] }> {
  if (tokenFile !== undefined) {
    const secret = checkSecret('node token', tokenFile, context);
    if (secret.some(({ result }) => result === 'fail')) return { problems: secret };
    return { token: context.readSecret(tokenFile) };
  }
  const fail = (message: string, advice: string) => ({
    problems: [{ check: 'node key', result: 'fail' as const, message, advice }],
  });
  if (dataDir === undefined)
    return fail('there is no dataDir, which keeps it', `Set ${role}.dataDir, or coordinator.tokenFile.`);
  try {
    const identity = await readIdentity(dataDir);
    if (identity !== undefined) return { token: await new NodeProver(identity).proofFor('coordinator') };
    return fail(
      'this node has not joined yet',
      `On the coordinator run: starling node invite --role ${role}. Then start this node with STARLING_JOIN_TOKEN set.`,
    );
  } catch (error) {
    if (!(error instanceof StartError)) throw error;
    return fail(error.message, 'Let this user read it, or join again.');
  }
}

/** Whether the coordinator is there, takes what we show, and has our time. */
async function checkCoordinatorOf(
  role: 'frontend' | 'backend' | 'balancer',
  coordinator: NodeCoordinator,
  dataDir: string | undefined,
  context: Pick<Context, 'readSecret'>,
): Promise<Finding[]> {
  const { url, tokenFile } = coordinator;
  const credential = await credentialOf(role, coordinator, dataDir, context);
  if ('problems' in credential) return credential.problems;
  const shown = tokenFile === undefined ? 'key' : 'token';
  const check = 'coordinator';
  const abort = AbortSignal.timeout(DEADLINE_MS);
  try {
    const sentAtMs = Date.now();
    // Every node may ask for it, and it asks for nothing but the token.
    const path = '/api/v1/node/watch';
    const stop = new AbortController();
    const response = await fetch(`${url.replace(/\/$/, '')}${path}`, {
      headers: { authorization: `Bearer ${credential.token}` },
      signal: AbortSignal.any([abort, stop.signal]),
    });
    const answeredAtMs = Date.now();
    const date = Date.parse(response.headers.get('date') ?? '');
    stop.abort();
    const skew = checkSkew(date, sentAtMs, answeredAtMs);
    if (response.status === 200)
      return [{ check, result: 'ok', message: `${url} answers, and takes the ${shown}` }, ...skew];
    const isToken = response.status === 401 || response.status === 403;
    return [
      {
        ...{ check, result: 'fail', message: `${url} answers ${response.status}` },
        advice: !isToken
          ? 'See the log of the coordinator; is it of this version?'
          : tokenFile === undefined
            ? `Was this node removed? Invite it again: starling node invite --role ${role}. Do both clocks agree?`
            : `Put the coordinator's node token into ${tokenFile}.`,
      },
      ...skew,
    ];
  } catch (error) {
    const advice = 'Start the coordinator, and let this machine reach it.';
    return [{ check, result: 'fail', message: `${url} does not answer (${reasonOf(error)})`, advice }];
  }
}

/** @param dateUnixMs as the coordinator said, cut to the second; NaN where it did not */
export function checkSkew(dateUnixMs: number, sentAtMs: number, answeredAtMs: number): Finding[] {
  if (Number.isNaN(dateUnixMs)) return [];
  // It was made somewhere between, and up to a second after what it says.
  const aheadMs = Math.max(0, sentAtMs - (dateUnixMs + 1000));
  const behindMs = Math.max(0, dateUnixMs - answeredAtMs);
  const skewMs = Math.max(aheadMs, behindMs);
  const check = 'clock skew';
  if (skewMs < SKEW_WARN_MS)
    return [{ check, result: 'ok', message: "this clock agrees with the coordinator's" }];
  const message = `this clock is ${(skewMs / 1000).toFixed(0)} s ${aheadMs > 0 ? 'ahead of' : 'behind'} the coordinator's`;
  const advice = 'Let a time service set both, on Debian: apt-get install systemd-timesyncd.';
  return [{ check, result: skewMs < SKEW_FAIL_MS ? 'warn' : 'fail', message, advice }];
}

type Probe = (address: Address) => Promise<string | undefined>;

/** A port of the node's own: free, or held by what should hold it. */
async function checkOwnPort(
  what: string,
  { host, port }: { readonly host: string | undefined; readonly port: number },
  setting: string,
  probe: Probe,
): Promise<Finding> {
  const check = `port ${what}`;
  if (port === 0) return { check, result: 'ok', message: 'a free one is taken' };
  const code = await errorOfListening(port, host);
  if (code === undefined) return { check, result: 'ok', message: `${port} is free` };
  if (code === 'EACCES') {
    const advice = `Choose a port above 1023 with ${setting}, or give this user CAP_NET_BIND_SERVICE.`;
    return { check, result: 'fail', message: `${port} may not be opened by this user`, advice };
  }
  const here = host === undefined || /^(0\.0\.0\.0|::)$/.test(host) ? '127.0.0.1' : host;
  if (code === 'EADDRINUSE' && (await probe({ host: here, port })) === undefined)
    return { check, result: 'ok', message: `${port} is in use, by what answers like this node` };
  const advice = `Stop the program that uses it, or choose another port with ${setting}.`;
  return { check, result: 'fail', message: `${port} cannot be opened (${code})`, advice };
}

async function checkPeer(what: string, address: Address, probe: Probe): Promise<Finding> {
  const shown = `${address.host}:${address.port}`;
  const check = what;
  const problem = await probe(address);
  if (problem === undefined) return { check, result: 'ok', message: `${shown} answers` };
  const advice = 'Start it there, and let this machine reach it: name, firewall, port.';
  return { check, result: 'fail', message: `${shown} ${problem}`, advice };
}

const urlOf = ({ host, port }: Address, path: string) =>
  `http://${host.includes(':') ? `[${host}]` : host}:${port}${path}`;

/** Whether HTTP answers as a role of ours does. @returns what is wrong */
async function answersHealth(address: Address): Promise<string | undefined> {
  try {
    const response = await fetch(urlOf(address, '/healthz'), { signal: AbortSignal.timeout(DEADLINE_MS) });
    const text = await response.text();
    return text.startsWith('alive') ? undefined : `answers /healthz with ${response.status}`;
  } catch (error) {
    return `does not answer (${reasonOf(error)})`;
  }
}

async function answersReady(address: Address): Promise<string | undefined> {
  try {
    const { status } = await fetch(urlOf(address, '/readyz'), { signal: AbortSignal.timeout(DEADLINE_MS) });
    return status === 200 ? undefined : `is not ready (${status})`;
  } catch (error) {
    return `does not answer (${reasonOf(error)})`;
  }
}

/** C0 and C1, answered by S0 with the same version. Source: Adobe's RTMP specification, 5.2. */
function answersRtmp(address: Address): Promise<string | undefined> {
  const VERSION = 3;
  return probeSocket(address, (socket, done) => {
    socket.write(Buffer.concat([Buffer.from([VERSION]), Buffer.alloc(1536)]));
    socket.once('data', (data) => done(data[0] === VERSION ? undefined : 'does not speak RTMP'));
  });
}

const answersTcp: Probe = (address) => probeSocket(address, (_socket, done) => done(undefined));

function probeSocket(
  { host, port }: Address,
  onConnect: (socket: ReturnType<typeof connect>, done: (problem: string | undefined) => void) => void,
): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ host, port });
    const done = (problem: string | undefined) => {
      socket.destroy();
      resolve(problem);
    };
    socket.setTimeout(DEADLINE_MS, () => done(`does not answer within ${DEADLINE_MS / 1000} s`));
    socket.once('error', (error) => done(`does not answer (${reasonOf(error)})`));
    socket.once('close', () => done('closes the connection'));
    socket.once('connect', () => onConnect(socket, done));
  });
}

async function answersTls(address: Address): Promise<string | undefined> {
  const certificate = await servedCertificate(address, undefined);
  return typeof certificate === 'string' ? certificate : undefined;
}

/** @returns what is wrong, where there is none */
function servedCertificate(
  { host, port }: Address,
  servername: string | undefined,
): Promise<X509Certificate | string> {
  return new Promise((resolve) => {
    // It is looked at, not trusted.
    const socket = connectTls({ host, port, rejectUnauthorized: false, ...(servername && { servername }) });
    const done = (result: X509Certificate | string) => {
      socket.destroy();
      resolve(result);
    };
    socket.setTimeout(DEADLINE_MS, () => done(`does not answer within ${DEADLINE_MS / 1000} s`));
    socket.once('error', (error) => done(`does not speak TLS (${reasonOf(error)})`));
    socket.once('secureConnect', () => done(socket.getPeerX509Certificate() ?? 'shows no certificate'));
  });
}

async function checkServedCertificate(address: Address, name: string): Promise<Finding[]> {
  const certificate = await servedCertificate(address, name);
  // Not running: there is nothing to look at yet.
  return typeof certificate === 'string' ? [] : [judge('HTTPS', certificate)];
}

function checkCertificateFiles(what: string, path: string, keyPath: string | undefined): Finding {
  const check = `certificate ${what}`;
  try {
    const pem = readFileSync(path, 'utf8');
    const certificate = new X509Certificate(pem);
    // Throws where the two do not belong together.
    if (keyPath !== undefined) createSecureContext({ cert: pem, key: readFileSync(keyPath, 'utf8') });
    return judge(what, certificate);
  } catch (error) {
    const advice = `Put a certificate and its private key in PEM at ${path} and ${keyPath ?? 'privateKeyFile'}.`;
    return { check, result: 'fail', message: `${path} cannot be used (${reasonOf(error)})`, advice };
  }
}

function judge(what: string, certificate: X509Certificate): Finding {
  const check = `certificate ${what}`;
  const daysLeft = (Date.parse(certificate.validTo) - Date.now()) / DAY_MS;
  const message = `ends ${new Date(certificate.validTo).toISOString()}`;
  const advice = 'Renew it.';
  if (daysLeft < 0) return { check, result: 'fail', message: message.replace('ends', 'ended'), advice };
  if (daysLeft < EXPIRES_SOON_DAYS) return { check, result: 'warn', message, advice };
  return { check, result: 'ok', message };
}

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause = error.cause instanceof Error ? error.cause : error;
  return 'code' in cause && typeof cause.code === 'string' ? cause.code : cause.message;
}
