/**
 * What a running system shows to somebody who comes from outside: redirects, TLS, headers, an API that wants a token.
 * It asks a few questions over HTTP and changes nothing.
 */
import { request as httpRequest, type IncomingHttpHeaders } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { connect as connectTls, type SecureVersion } from 'node:tls';
import type { Finding, Rule } from './finding.ts';

const TIMEOUT_MS = 10_000;
/** What anybody may send back to us. */
const MAX_BODY_BYTES = 64 * 1024;

const rule = (
  id: string,
  severity: Rule['severity'],
  title: string,
  remedy: string,
  ...controls: string[]
): Rule => ({ id, severity, title, remedy, controls });

const rules = {
  unreachable: rule(
    'LIVE_UNREACHABLE',
    'high',
    'The address does not answer',
    'Look whether it runs: starling status.',
  ),
  plaintext: rule(
    'LIVE_NO_REDIRECT',
    'high',
    'HTTP is not redirected to HTTPS',
    'Put a balancer before it.',
    'FSBP ELB.1',
  ),
  oldTls: rule(
    'LIVE_OLD_TLS',
    'high',
    'TLS below 1.2 is taken',
    'Let the balancer take TLS 1.2 and 1.3 only.',
    'FSBP ELB.17',
  ),
  hsts: rule('LIVE_NO_HSTS', 'medium', 'Browsers may come back without TLS', 'Set hstsSeconds.'),
  csp: rule(
    'LIVE_NO_CSP',
    'medium',
    'Pages have no content security policy, or one with inline scripts',
    'Serve the site with the coordinator.',
  ),
  sniff: rule(
    'LIVE_SNIFF',
    'low',
    'Browsers may guess the type of an answer',
    'Serve the site with the coordinator.',
  ),
  api: rule(
    'LIVE_API_OPEN',
    'critical',
    'The API answers without a token',
    'Nothing but the coordinator may answer /api/v1.',
  ),
  limits: rule(
    'LIVE_NO_LIMITS',
    'medium',
    'The API says nothing of a rate limit',
    'Nothing but the coordinator may answer /api/v1.',
  ),
  version: rule('LIVE_SERVER_VERSION', 'low', 'The server tells its version', 'server_tokens off.'),
  metrics: rule(
    'LIVE_METRICS_OPEN',
    'low',
    'Everybody can read the metrics',
    'Let only the collector reach /metrics.',
  ),
} as const;

export const runningRules: readonly Rule[] = Object.values(rules);

/**
 * @param address `https://watch.example.org`
 * @param isTrustedCertificate false lets a certificate of no known authority pass, as the balancer has before its first
 */
export async function auditRunning(
  address: URL,
  isTrustedCertificate = true,
): Promise<Omit<Finding, 'accepted'>[]> {
  const findings: Omit<Finding, 'accepted'>[] = [];
  const found = (which: keyof typeof rules, path: string, message: string) =>
    findings.push({ rule: rules[which], resource: new URL(path, address).href, message });
  const ask = (path: string, protocol = address.protocol) => {
    const url = new URL(path, address);
    url.protocol = protocol;
    if (protocol === 'http:' && address.protocol === 'https:') url.port = '80';
    return answerOf(url, isTrustedCertificate);
  };

  const site = await ask('/');
  if (typeof site === 'string') {
    found('unreachable', '/', site);
    return findings;
  }
  if (address.protocol === 'http:') {
    found('plaintext', '/', 'the address itself is http');
  } else {
    const plain = await ask('/', 'http:');
    if (
      typeof plain !== 'string' &&
      !(plain.status >= 301 && plain.status <= 308 && /^https:/.test(plain.headers.location ?? ''))
    ) {
      found('plaintext', '/', `port 80 answers ${plain.status}`);
    }
    for (const version of ['TLSv1', 'TLSv1.1'] as const) {
      if (await takesTls(address, version)) found('oldTls', '/', `takes ${version}`);
    }
    if (!/max-age=[1-9]\d{6,}/.test(site.headers['strict-transport-security'] ?? '')) {
      found('hsts', '/', 'has no Strict-Transport-Security of at least 12 days');
    }
  }
  const csp = String(site.headers['content-security-policy'] ?? '');
  if (csp === '' || /script-src[^;]*'unsafe-inline'/.test(csp))
    found('csp', '/', csp === '' ? 'has none' : csp.slice(0, 100));
  if (site.headers['x-content-type-options'] !== 'nosniff')
    found('sniff', '/', 'has no X-Content-Type-Options: nosniff');
  if (/\d/.test(String(site.headers.server ?? ''))) found('version', '/', `says ${site.headers.server}`);

  const api = await ask('/api/v1/accounts');
  if (typeof api !== 'string') {
    if (api.status !== 401 && api.status !== 403 && api.status !== 404)
      found('api', '/api/v1/accounts', `answers ${api.status}`);
    if (!Object.keys(api.headers).some((name) => /^(x-)?ratelimit/.test(name))) {
      found('limits', '/api/v1/accounts', 'has no RateLimit header');
    }
  }
  const metrics = await ask('/metrics');
  if (typeof metrics !== 'string' && metrics.status === 200 && /^# (HELP|TYPE) /m.test(metrics.body)) {
    found('metrics', '/metrics', 'answers with metrics');
  }
  return findings;
}

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

/** @returns what went wrong, in words, when there is no answer */
function answerOf(url: URL, isTrustedCertificate: boolean): Promise<Answer | string> {
  return new Promise((resolve) => {
    const send = url.protocol === 'https:' ? httpsRequest : httpRequest;
    const request = send(url, {
      timeout: TIMEOUT_MS,
      rejectUnauthorized: isTrustedCertificate,
      headers: { accept: 'text/html, application/json', 'user-agent': 'starling-audit' },
    });
    request.on('timeout', () => request.destroy(new Error(`no answer in ${TIMEOUT_MS / 1000} s`)));
    request.on('error', (error) => resolve(error.message));
    request.on('response', (response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        body += chunk;
        if (body.length > MAX_BODY_BYTES) response.destroy();
      });
      response.on('error', () => {});
      response.on('close', () =>
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body }),
      );
    });
    request.end();
  });
}

function takesTls(address: URL, version: SecureVersion): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connectTls({
      host: address.hostname,
      port: Number(address.port || 443),
      servername: address.hostname,
      minVersion: version,
      maxVersion: version,
      // OpenSSL's default level refuses them on our side; it is the other side that is asked.
      ciphers: 'DEFAULT@SECLEVEL=0',
      rejectUnauthorized: false,
      timeout: TIMEOUT_MS,
    });
    const end = (isTaken: boolean) => {
      socket.destroy();
      resolve(isTaken);
    };
    socket.on('secureConnect', () => end(true));
    socket.on('error', () => end(false));
    socket.on('timeout', () => end(false));
  });
}
