/** `starling balancer`: from its section of the configuration file to a running nginx, or to a report on it. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { CertificateError } from '@starling/balancer/certificates';
import { balancedFleet, type Fleet, ListedFleet } from '@starling/balancer/fleet';
import type { Finding } from '@starling/balancer/grade';
import { type BalancerConfig, checkBalancer, startBalancer } from '@starling/balancer/main';
import { NginxError } from '@starling/balancer/nginx';
import type { BalancerSection } from '@starling/model/config';
import type { Fleet as KnownFleet } from '@starling/model/node';
import { listenHttp } from '@starling/net/http-server';
import type { Logger } from 'pino';
import type { Registry } from 'prom-client';
import type { NodePart } from './node-agent.ts';
import { answerHealth, asStartError, StartError } from './process.ts';

/** Not in the PATH of accounts other than root. */
const DEBIAN_NGINX = '/usr/sbin/nginx';

/** Undefined where it is not installed. */
export function findNginx(): string | undefined {
  if (existsSync(DEBIAN_NGINX)) return DEBIAN_NGINX;
  return spawnSync('nginx', ['-v'], { stdio: 'ignore', timeout: 10_000 }).status === 0 ? 'nginx' : undefined;
}

interface BalancerContext {
  readonly logger: Logger;
  readonly registry: Registry;
  /** Of a path relative to the configuration file. */
  readonly resolvePath: (path: string) => string;
  /** The section as the file has it now. */
  readonly readAgain: () => BalancerSection | undefined;
}

/** Starts the role; SIGHUP has it read its section again. */
export async function startBalancerRole(
  section: BalancerSection,
  { logger, registry, resolvePath, readAgain }: BalancerContext,
): Promise<{ says: string; node: NodePart; close(): Promise<void> }> {
  let listed = fleetOf(section);
  let known: KnownFleet = { revision: 0, nodes: [] };
  const fleet = new ListedFleet(listed);
  const refit = () => fleet.replace(balancedFleet(known, listed));
  const config = configOf(section, resolvePath);
  const balancer = await startBalancer(config, { fleet, logger, registry }).catch(failAsStartError);
  const readiness = { isReady: () => balancer.isReady(), metrics: () => registry.metrics() };
  const health =
    section.health &&
    (await listenHttp(
      section.health,
      logger,
      (request, response) => {
        if (!answerHealth(request, response, readiness)) response.writeHead(404).end('Not here.\n');
      },
      () => false,
    ).catch(async (error: unknown) => {
      await balancer.close();
      throw asStartError(error, section.health?.port ?? 0, 'health.port');
    }));
  const reload = () => {
    try {
      const changed = readAgain();
      if (changed === undefined) throw new StartError('The section "balancer" is gone.');
      balancer.reconfigure(configOf(changed, resolvePath));
      listed = fleetOf(changed);
      refit();
      logger.info('configuration read again');
    } catch (error) {
      logger.error({ err: error }, 'the configuration is not valid; what was before stays');
    }
  };
  process.on('SIGHUP', reload);
  return {
    says: `balancer: HTTPS on port ${config.https.port}, HTTP on port ${config.http.port}`,
    node: {
      ports: () => ({ httpPort: config.https.port }),
      isReady: () => balancer.isReady(),
      // Nobody's connections can be moved to another balancer from here: that is DNS's business.
      isIdle: () => true,
      channelCount: () => 0,
      viewerCount: () => 0,
      onFleet(next) {
        known = next;
        refit();
      },
      drain() {},
      resume() {},
    },
    async close() {
      process.off('SIGHUP', reload);
      await health?.close();
      await balancer.close();
    },
  };
}

/**
 * Prints nginx's configuration and grades it.
 * @returns false when a rule failed
 */
export async function reportOnBalancer(
  section: BalancerSection,
  { resolvePath, wantsJson }: Pick<BalancerContext, 'resolvePath'> & { readonly wantsJson: boolean },
): Promise<boolean> {
  const config = configOf(section, resolvePath);
  const { text, findings } = await checkBalancer(config, fleetOf(section)).catch(failAsStartError);
  process.stdout.write(
    wantsJson
      ? `${JSON.stringify({ configuration: text, findings }, null, 2)}\n`
      : `${text}\n${findings.map(lineOf).join('')}${summaryOf(findings)}\n`,
  );
  return findings.every(({ grade }) => grade !== 'fail');
}

const lineOf = ({ rule, grade, why }: Finding): string => `${grade}  ${rule.padEnd(28)}  ${why}\n`;

function summaryOf(findings: readonly Finding[]): string {
  const count = (grade: Finding['grade']) => findings.filter((one) => one.grade === grade).length;
  return `${count('pass')} passed, ${count('warn')} with a warning, ${count('fail')} failed`;
}

const fleetOf = ({ frontends = [], backends = [] }: BalancerSection): Fleet => ({ frontends, backends });

function configOf(section: BalancerSection, resolvePath: (path: string) => string): BalancerConfig {
  const { names, rtmp, rtmps, site, acme, certificate, nginx } = section;
  const wildcard = names.find((name) => name.startsWith('*.'));
  if (wildcard !== undefined && acme !== undefined && acme.route53 === undefined && certificate === undefined)
    throw new StartError(
      `${wildcard} cannot be proven over HTTP. Set acme.route53, or name a certificate of your own.`,
    );
  const readPem = (path: string) => {
    try {
      return readFileSync(resolvePath(path), 'utf8');
    } catch (error) {
      throw new StartError(`${path} cannot be read (${error instanceof Error ? error.message : error}).`);
    }
  };
  return {
    ...{ names, rtmp, rtmps, site },
    dataDir: resolvePath(section.dataDir),
    http: section.http ?? { port: 80 },
    https: section.https ?? { port: 443 },
    balance: section.balance ?? 'least-connections',
    acme: acme && {
      directoryUrl: acme.directoryUrl,
      email: acme.email,
      directoryCa: acme.directoryCaFile && readPem(acme.directoryCaFile),
      route53: acme.route53,
    },
    certificate: certificate && {
      certificatePath: resolvePath(certificate.certificateFile),
      privateKeyPath: resolvePath(certificate.privateKeyFile),
    },
    hstsSeconds: section.hstsSeconds ?? 63_072_000,
    trustedProxies: section.trustedProxies ?? [],
    maxConnectionsPerAddress: section.maxConnectionsPerAddress ?? 1000,
    maxRequestsPerSecondPerAddress: section.maxRequestsPerSecondPerAddress ?? 1000,
    cacheMaxBytes: section.cacheMaxBytes ?? 1_073_741_824,
    nginxProgram: nginx?.program ?? findNginx() ?? 'nginx',
    nginxUser: nginx?.user ?? 'www-data',
  };
}

function failAsStartError(error: unknown): never {
  if (error instanceof NginxError || error instanceof CertificateError || error instanceof RangeError) {
    throw new StartError(error.message);
  }
  throw error;
}
