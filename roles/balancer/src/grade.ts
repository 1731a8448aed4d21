/**
 * Grades a configuration of nginx: the text that nginx gets, not what we meant. Each rule says what is well or ill
 * and why it matters.
 */
import type { CheckResult } from './admission.ts';
import { type CertificateInUse, coversNames } from './certificates.ts';
import { type Directive, findDirectives, parseDirectives } from './directives.ts';

export type Grade = 'pass' | 'warn' | 'fail';

export interface Finding {
  readonly rule: string;
  readonly grade: Grade;
  readonly why: string;
}

/** What is not in the text. */
export interface GradeFacts {
  /** What nginx itself says against it; undefined when it takes it. */
  readonly refusal: string | undefined;
  readonly certificate: CertificateInUse;
  readonly names: readonly string[];
  readonly privateKeyMode: number;
  readonly isRoot: boolean;
  /** Ports from here on need no privilege. */
  readonly firstFreePort: number;
  readonly readiness: readonly (readonly [frontend: string, result: CheckResult])[];
  readonly nowUnixMs: number;
}

const DAY_MS = 86_400_000;
/** What preload lists and testssl.sh ask for: half a year. */
const MIN_HSTS_SECONDS = 180 * 86_400;
const MAX_DEADLINE_SECONDS = 60;
const MIN_OPEN_FILES = 16_384;
/** They hold queries, and so tokens. */
const SECRET_VARIABLES =
  /\$(?:request|request_uri|args|query_string|http_referer|http_authorization|http_cookie|is_args|arg_\w+)\b/;

type Verdict = readonly [grade: Grade, why: string];
type Rule = (config: readonly Directive[], facts: GradeFacts) => Verdict;

const verdict = (isWell: boolean, well: string, ill: string, illGrade: Grade = 'fail'): Verdict =>
  isWell ? ['pass', well] : [illGrade, ill];

const rules: Readonly<Record<string, Rule>> = {
  'nginx takes it': (_, { refusal }) =>
    verdict(refusal === undefined, 'nginx -t has no objection.', `nginx -t: ${refusal}`),

  'TLS 1.2 and 1.3 only': (config) => {
    const versions = argsOf(config, 'ssl_protocols');
    const old = versions.filter((version) => !['TLSv1.2', 'TLSv1.3'].includes(version));
    return verdict(
      versions.length > 0 && old.length === 0,
      `${versions.join(' and ')}.`,
      `${old.join(', ') || 'nginx 1.22 by itself'} lets TLS 1.0 and 1.1 in, which RFC 8996 forbids.`,
    );
  },

  'modern ciphers': (config) => {
    const ciphers = argsOf(config, 'ssl_ciphers').flatMap((list) => list.split(':'));
    const weak = ciphers.filter(
      (cipher) => !/^(?:EC)?DHE-(?:ECDSA|RSA)-(?:AES\d+-GCM|CHACHA20)/.test(cipher),
    );
    return verdict(
      ciphers.length > 0 && weak.length === 0,
      'Forward secrecy and authenticated encryption only.',
      `${weak.join(', ') || "OpenSSL's defaults"}: no forward secrecy, or no authenticated encryption.`,
    );
  },

  'HTTP/2': (config) =>
    verdict(
      tlsListens(config).length > 0 && tlsListens(config).every(({ args }) => args.includes('http2')),
      'Every TLS port offers it.',
      'A TLS port does not offer it: browsers then open six connections a viewer.',
      'warn',
    ),

  redirect: (config) => {
    const plain = servers(config).filter((server) => isTcp(server) && !isTls(server));
    const leaking = plain.filter(
      ({ body = [] }) =>
        !findDirectives(body, 'return').some(
          ({ args }) =>
            args[0] === '421' || (/^30[18]$/.test(args[0] ?? '') && args[1]?.startsWith('https://')),
        ) || findDirectives(body, 'proxy_pass').length > 0,
    );
    return verdict(
      plain.length > 0 && leaking.length === 0,
      'Plain HTTP answers with a redirect, and to the authority of the certificate.',
      'Something is served over plain HTTP, or nothing redirects.',
    );
  },

  HSTS: (config, { certificate }) => {
    const header = findDirectives(config, 'add_header').find(
      ({ args }) => args[0] === 'Strict-Transport-Security',
    );
    const seconds = Number(/max-age=(\d+)/.exec(header?.args[1] ?? '')?.[1] ?? 0);
    if (certificate.isSelfSigned) {
      return verdict(
        header === undefined,
        'Sent once an authority has issued the certificate; until then it would lock browsers out.',
        'Sent with a self-signed certificate: browsers that saw it let nobody pass.',
      );
    }
    return verdict(
      seconds >= MIN_HSTS_SECONDS && (header?.args.includes('always') ?? false),
      `Browsers stay on HTTPS for ${Math.floor(seconds / 86_400)} days.`,
      `max-age is ${seconds} s; below ${MIN_HSTS_SECONDS} s a first visit over HTTP can be taken over often.`,
      'warn',
    );
  },

  'certificate is trusted': (_, { certificate }) =>
    verdict(
      !certificate.isSelfSigned,
      'An authority has issued it.',
      'It is self-signed: browsers warn of it. Configure acme, or certificate.',
      'warn',
    ),

  'certificate has the names': (_, { certificate, names }) =>
    verdict(
      coversNames(certificate, names),
      names.join(', '),
      `It is for ${certificate.names.join(', ') || 'no name'}, not for all of ${names.join(', ')}.`,
    ),

  'certificate is valid': (_, { certificate, nowUnixMs }) => {
    const { notBeforeUnixMs, notAfterUnixMs } = certificate;
    const leftMs = notAfterUnixMs - nowUnixMs;
    const until = new Date(notAfterUnixMs).toISOString();
    if (leftMs <= 0 || nowUnixMs < notBeforeUnixMs) return ['fail', `It is not valid now (until ${until}).`];
    const isLate = leftMs < (notAfterUnixMs - notBeforeUnixMs) / 6;
    return verdict(
      !isLate,
      `Until ${until}.`,
      `It ends in ${(leftMs / DAY_MS).toFixed(1)} days and is not renewed.`,
      'warn',
    );
  },

  'OCSP stapling': (config, { certificate }) => {
    if (!certificate.offersOcsp) return ['pass', 'The certificate names no OCSP responder.'];
    return verdict(
      argsOf(config, 'ssl_stapling')[0] === 'on',
      'On.',
      'The certificate names a responder, and it is off: browsers ask the authority about each viewer.',
      'warn',
    );
  },

  'private key': (_, { privateKeyMode }) =>
    verdict(
      (privateKeyMode & 0o077) === 0,
      'Its file is for its owner alone.',
      `Its file has mode ${privateKeyMode.toString(8)}: others can read it.`,
    ),

  'unknown hosts': (config) => {
    const defaults = servers(config).filter(
      (server) => isTls(server) && listensOf(server).some(({ args }) => args.includes('default_server')),
    );
    return verdict(
      defaults.length > 0 &&
        defaults.every(({ body = [] }) => argsOf(body, 'ssl_reject_handshake')[0] === 'on'),
      'Whoever asks for another name gets no handshake.',
      'A request for another name is served: pages of others can be pointed here.',
    );
  },

  'limits for each address': (config) => {
    const open = namedServers(config).filter(
      ({ body = [] }) =>
        findDirectives(body, 'limit_conn').length === 0 || findDirectives(body, 'limit_req').length === 0,
    );
    return verdict(
      namedServers(config).length > 0 && open.length === 0,
      'Connections and requests are bounded.',
      'A server has no limit_conn or no limit_req: one address can take all there is.',
    );
  },

  deadlines: (config) => {
    const names = ['client_header_timeout', 'client_body_timeout', 'send_timeout'];
    const long = names.filter((name) => !(secondsOf(argsOf(config, name)[0]) <= MAX_DEADLINE_SECONDS));
    return verdict(
      long.length === 0,
      'Who sends or reads too slowly is cut off.',
      `${long.join(', ')}: longer than ${MAX_DEADLINE_SECONDS} s, or not set.`,
    );
  },

  'bodies are bounded': (config) =>
    verdict(
      argsOf(config, 'client_max_body_size').length > 0 &&
        findDirectives(config, 'client_max_body_size').every(({ args }) => args[0] !== '0'),
      'client_max_body_size is set everywhere.',
      'client_max_body_size 0 takes bodies of any size.',
    ),

  'requests are read strictly': (config) => {
    const loose = [
      ...findDirectives(config, 'underscores_in_headers').filter(({ args }) => args[0] === 'on'),
      ...findDirectives(config, 'ignore_invalid_headers').filter(({ args }) => args[0] === 'off'),
      ...findDirectives(config, 'proxy_request_buffering').filter(({ args }) => args[0] === 'off'),
      ...findDirectives(config, 'proxy_set_header').filter(
        ({ args }) => args[0] === 'Upgrade' && args[1] === '$http_upgrade',
      ),
    ];
    return verdict(
      loose.length === 0,
      'Invalid headers are dropped, bodies are read before they are passed on, and of upgrades only WebSocket is.',
      `${loose.map(({ name, args }) => `${name} ${args.join(' ')}`).join(', ')}: room for request smuggling.`,
    );
  },

  "clients' addresses": (config) => {
    const headers = findDirectives(config, 'proxy_set_header').filter(
      ({ args }) => args[0] === 'X-Forwarded-For',
    );
    return verdict(
      headers.length > 0 && headers.every(({ args }) => args[1] === '$remote_addr'),
      'Frontends hear the address that nginx sees, not what a client claims.',
      'X-Forwarded-For carries what clients claim, or nothing: limits and bans can be evaded.',
    );
  },

  'no tokens in the log': (config) => {
    const formats = findDirectives(config, 'log_format').filter(({ args }) =>
      SECRET_VARIABLES.test(args.join(' ')),
    );
    const errorLogs = findDirectives(config, 'error_log').filter(
      ({ args }) => !args[0]?.startsWith('syslog:server=127.0.0.1:'),
    );
    const combined = findDirectives(config, 'access_log').filter(
      ({ args }) => args[0] !== 'off' && args[1] !== 'json',
    );
    return verdict(
      formats.length + errorLogs.length + combined.length === 0,
      'Queries and the folders of private segments are left out.',
      'A log gets whole request lines, and with them viewing tokens.',
    );
  },

  'private answers are not kept': (config) => {
    const blind = findDirectives(config, 'proxy_ignore_headers').filter(({ args }) =>
      args.includes('Cache-Control'),
    );
    const forced = findDirectives(config, 'proxy_cache_valid');
    return verdict(
      blind.length + forced.length === 0,
      'The cache keeps what the frontends mark public, as long as they say.',
      'The cache keeps answers whatever they say of themselves: what is private can reach others.',
    );
  },

  'version is hidden': (config) =>
    verdict(
      argsOf(config, 'server_tokens')[0] === 'off',
      'server_tokens is off.',
      'Answers tell the version of nginx.',
      'warn',
    ),

  'workers are unprivileged': (config, { isRoot }) =>
    verdict(
      !isRoot || !['root', undefined].includes(argsOf(config, 'user')[0]),
      isRoot ? `They run as ${argsOf(config, 'user')[0]}.` : 'All of nginx runs as this account.',
      'They run as root.',
    ),

  'ports can be opened': (config, { isRoot, firstFreePort }) => {
    const low = listenPorts(config).filter((port) => port < firstFreePort);
    return verdict(
      isRoot || low.length === 0,
      'None needs a privilege that is missing.',
      `Ports ${low.join(', ')} need root, or CAP_NET_BIND_SERVICE.`,
      'warn',
    );
  },

  'open files': (config) => {
    const files = Number(argsOf(config, 'worker_rlimit_nofile')[0] ?? 1024);
    return verdict(
      files >= MIN_OPEN_FILES,
      `${files} for each worker.`,
      `${files} for each worker: a few thousand viewers fill them. Raise the hard limit of "ulimit -n".`,
      'warn',
    );
  },

  frontends: (_, { readiness }) => {
    const away = readiness.filter(([, result]) => result !== 'ready');
    if (readiness.length === 0) return ['fail', 'None is listed: there is nothing to serve.'];
    if (away.length === readiness.length) return ['warn', 'None is ready now.'];
    if (away.length > 0)
      return ['warn', `Not ready now: ${away.map(([id, result]) => `${id} (${result})`).join(', ')}.`];
    return verdict(
      readiness.length > 1,
      `${readiness.length} are ready.`,
      'Only one is listed: when it ends, all is dark.',
      'warn',
    );
  },

  backends: (config) => {
    const streams = findDirectives(config, 'stream').flatMap(({ body = [] }) =>
      findDirectives(body, 'upstream'),
    );
    if (streams.length === 0) return ['pass', 'RTMP is not passed on.'];
    const empty = streams.filter(({ body = [] }) =>
      findDirectives(body, 'server').every(({ args }) => args.includes('down')),
    );
    return verdict(
      empty.length === 0,
      'Each RTMP port leads to one.',
      `${empty.map(({ args }) => args[0]).join(', ')}: no backend is listed for it.`,
    );
  },
};

/**
 * Grades a configuration by all rules.
 * @param text as nginx gets it
 */
export function gradeConfig(text: string, facts: GradeFacts): Finding[] {
  const config = parseDirectives(text);
  return Object.entries(rules).map(([rule, judge]) => {
    const [grade, why] = judge(config, facts);
    return { rule, grade, why };
  });
}

/** Of the first directive of this name. */
const argsOf = (config: readonly Directive[], name: string): readonly string[] =>
  findDirectives(config, name)[0]?.args ?? [];

const servers = (config: readonly Directive[]): Directive[] =>
  findDirectives(config, 'http').flatMap(({ body = [] }) => body.filter(({ name }) => name === 'server'));

const listensOf = ({ body = [] }: Directive): Directive[] => body.filter(({ name }) => name === 'listen');

const isTls = (server: Directive): boolean => listensOf(server).some(({ args }) => args.includes('ssl'));

const isTcp = (server: Directive): boolean =>
  listensOf(server).some(({ args }) => !args[0]?.startsWith('unix:'));

const tlsListens = (config: readonly Directive[]): Directive[] =>
  servers(config)
    .flatMap(listensOf)
    .filter(({ args }) => args.includes('ssl'));

const namedServers = (config: readonly Directive[]): Directive[] =>
  servers(config).filter(({ body = [] }) =>
    body.some(({ name, args }) => name === 'server_name' && args[0] !== ''),
  );

const listenPorts = (config: readonly Directive[]): number[] =>
  findDirectives(config, 'listen').flatMap(({ args: [where = ''] }) => {
    const port = Number(/(\d+)$/.exec(where)?.[1]);
    return where.startsWith('unix:') || Number.isNaN(port) ? [] : [port];
  });

const UNIT_SECONDS = new Map([
  ['ms', 0.001],
  ['s', 1],
  ['m', 60],
  ['h', 3600],
]);

/** @returns NaN for what is no time */
function secondsOf(time: string | undefined): number {
  const [, number, unit = 's'] = /^(\d+)(ms|s|m|h)?$/.exec(time ?? '') ?? [];
  return Number(number) * (UNIT_SECONDS.get(unit) ?? Number.NaN);
}
