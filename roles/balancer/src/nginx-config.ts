/**
 * The configuration of nginx as a pure function of the fleet and the settings: no clock, no files, no state. What
 * each part is for stands beside it; why it is so, in docs/decisions/017-balancer.md.
 *
 *   viewers --https--> TLS, limits --> /live/<channel>.flv, .ts     passed on as it comes
 *                                      /live/.../*.m4s, *.mp4       micro-cache, one request for all
 *                                      /live/.../*.m3u8             passed on: it says who watches
 *                                      the rest                     to the site
 *   viewers --http---> redirect; ACME's challenges
 *   encoders --rtmp(s)--> TCP to the backends
 */
import { createHash } from 'node:crypto';
import { block, type Directive, directive, serialiseDirectives } from './directives.ts';

/** An IP address, not a name: nginx looks names up once, and refuses to load when that fails. */
export interface Server {
  readonly address: string;
  readonly port: number;
  /** Its share beside the others; 0 for one that gets nothing. */
  readonly weight: number;
}

export interface ListenAddress {
  /** All addresses, IPv6 too where the machine has it, when undefined. */
  readonly host?: string | undefined;
  readonly port: number;
}

export interface NginxConfigInput {
  /** Hosts that are served; others are refused. */
  readonly names: readonly string[];
  readonly http: ListenAddress;
  readonly https: ListenAddress;
  /** Ports of the pass-through to backends; none when undefined. */
  readonly rtmp?: ListenAddress | undefined;
  readonly rtmps?: ListenAddress | undefined;
  readonly frontends: readonly Server[];
  readonly rtmpBackends: readonly Server[];
  readonly rtmpsBackends: readonly Server[];
  /** Site and API; 404 for what is not media when undefined. */
  readonly site: readonly Server[] | undefined;
  readonly balance: 'least-connections' | 'round-robin';
  readonly certificate: {
    /** The certificate and its chain, PEM. */
    readonly certificatePath: string;
    readonly privateKeyPath: string;
    /** Browsers trust it, so that HSTS helps and does not lock them out. */
    readonly isTrusted: boolean;
    /** It names an OCSP responder. */
    readonly offersOcsp: boolean;
  };
  /** For OCSP responders' names. */
  readonly resolvers: readonly string[];
  readonly hstsSeconds: number;
  /** CIDR blocks of proxies in front of this one, whose X-Forwarded-For is believed. */
  readonly trustedProxies: readonly string[];
  readonly maxConnectionsPerAddress: number;
  readonly maxRequestsPerSecondPerAddress: number;
  readonly cacheMaxBytes: number;
  readonly machine: {
    /** nginx's own folder: pid, socket and temporary files. */
    readonly dir: string;
    readonly cacheDir: string;
    readonly challengesDir: string;
    readonly accessLogPath: string;
    /** Of the pass-through of RTMP. */
    readonly streamLogPath: string;
    readonly controlSocketPath: string;
    /** Where the agent takes nginx's messages, on loopback. */
    readonly syslogPort: number;
    /** The stream module where it is a file of its own. */
    readonly streamModulePath: string | undefined;
    /** Of the workers; only root can choose. */
    readonly user: string | undefined;
    readonly hasIpv6: boolean;
    /** That a process may open, at most. */
    readonly maxOpenFiles: number;
  };
}

/** Of one worker. */
const MAX_OPEN_FILES = 65_536;
/** A viewer's socket, the frontend's, a file of the cache. */
const FILES_PER_CONNECTION = 3;
/** Weight of a server that gets its full share. */
export const FULL_WEIGHT = 10;

/** Mozilla's intermediate profile, guidelines 5.7 (https://ssl-config.mozilla.org), without DHE: our keys are ECDSA. */
const CIPHERS = [
  'ECDHE-ECDSA-AES128-GCM-SHA256',
  'ECDHE-RSA-AES128-GCM-SHA256',
  'ECDHE-ECDSA-AES256-GCM-SHA384',
  'ECDHE-RSA-AES256-GCM-SHA384',
  'ECDHE-ECDSA-CHACHA20-POLY1305',
  'ECDHE-RSA-CHACHA20-POLY1305',
];

/**
 * A frontend that is silent so long is hung: who waits on it is sent to another. Parts, and playlists that wait for
 * one, come after one part target at most; whole segments take their time.
 */
const PART_SILENCE = '1s';
const SEGMENT_SILENCE = '4s';
/** Of a stream that has no end; something comes every 350 ms. Its player has to connect anew. */
const ENDLESS_SILENCE = '1200ms';
/**
 * Who asks for what another has just asked for waits so long for it, then asks a frontend too. nginx looks again at the
 * end of this time, and in between only every 500 ms (ngx_http_file_cache_lock), so it is also what a waiter
 * loses: it has to be short beside a part.
 */
const COALESCING_WAIT = '40ms';
/** Old workers, which keep the endless responses of their viewers after a reload, end then. */
const OLD_WORKERS_LAST = '1h';

/**
 * Renders `nginx.conf`.
 * @returns the text, and the revision that nginx tells on its control socket once it runs it
 * @throws RangeError when a path or name holds what nginx cannot take
 */
export function renderNginxConfig(input: NginxConfigInput): { text: string; revision: string } {
  const render = (revision: string) => serialiseDirectives(nginxConfig(input, revision));
  const revision = createHash('sha256').update(render('')).digest('hex').slice(0, 16);
  return { text: `# Written by starling balancer; changes are lost.\n${render(revision)}`, revision };
}

function nginxConfig(input: NginxConfigInput, revision: string): Directive[] {
  const { machine, rtmp, rtmps } = input;
  const { user, streamModulePath } = machine;
  const maxOpenFiles = Math.min(machine.maxOpenFiles, MAX_OPEN_FILES);
  const hasStreams = rtmp !== undefined || rtmps !== undefined;
  return [
    ...(user === undefined ? [] : [directive('user', user)]),
    directive('worker_rlimit_nofile', maxOpenFiles),
    directive('worker_processes', 'auto'),
    directive('worker_shutdown_timeout', OLD_WORKERS_LAST),
    directive('pid', `${machine.dir}/nginx.pid`),
    // Not a file: nginx writes whole request lines, tokens too, and the agent takes those out.
    directive('error_log', `syslog:server=127.0.0.1:${machine.syslogPort},nohostname,tag=nginx`, 'warn'),
    ...(hasStreams && streamModulePath !== undefined ? [directive('load_module', streamModulePath)] : []),
    block('events', [], directive('worker_connections', Math.floor(maxOpenFiles / FILES_PER_CONNECTION))),
    httpBlock(input, revision),
    ...(hasStreams ? [streamBlock(input)] : []),
  ];
}

function httpBlock(input: NginxConfigInput, revision: string): Directive {
  const { machine, certificate, trustedProxies } = input;
  // The guide's addresses are made from it.
  const host = `$host${portSuffix(input.https)}`;
  const temporary = (name: string) => `${machine.dir}/${name}`;
  return block(
    'http',
    [],
    directive('server_tokens', 'off'),
    directive('server_names_hash_bucket_size', 512), // a name may have 253 characters
    directive('default_type', 'application/octet-stream'),
    directive('tcp_nopush', 'on'),
    directive('reset_timedout_connection', 'on'),
    // Deadlines and bounds for what a stranger sends and does not read.
    directive('client_header_timeout', '10s'),
    directive('client_body_timeout', '10s'),
    directive('send_timeout', '30s'),
    directive('keepalive_timeout', '30s'),
    directive('keepalive_requests', 10_000),
    directive('client_header_buffer_size', '2k'),
    directive('large_client_header_buffers', 4, '8k'),
    directive('client_max_body_size', '1m'),
    directive('http2_max_concurrent_streams', 128),
    directive('client_body_temp_path', temporary('body')),
    directive('proxy_temp_path', temporary('proxy')),
    directive('fastcgi_temp_path', temporary('fastcgi')),
    directive('uwsgi_temp_path', temporary('uwsgi')),
    directive('scgi_temp_path', temporary('scgi')),
    trustedProxies.map((cidr) => directive('set_real_ip_from', cidr)),
    trustedProxies.length > 0 && [
      directive('real_ip_header', 'X-Forwarded-For'),
      directive('real_ip_recursive', 'on'),
    ],

    // One household of IPv6 has a /64, as it has one address of IPv4.
    block(
      'map',
      ['$binary_remote_addr', '$limited_address'],
      directive('default', '$binary_remote_addr'),
      directive('~(?s)^(?<ipv6_network>.{8}).{8}$', '$ipv6_network'),
    ),
    directive('limit_conn_zone', '$limited_address', 'zone=connections:10m'),
    directive(
      'limit_req_zone',
      '$limited_address',
      'zone=requests:10m',
      `rate=${input.maxRequestsPerSecondPerAddress}r/s`,
    ),
    directive('limit_conn_status', 429),
    directive('limit_req_status', 429),
    directive('limit_conn_log_level', 'info'),
    directive('limit_req_log_level', 'info'),

    accessLog(machine.accessLogPath),
    tls(certificate, input.resolvers),

    // A WebSocket is passed on; no other upgrade is, h2c least of all: it would open a way past these rules.
    block(
      'map',
      ['$http_upgrade', '$passed_upgrade'],
      directive('default', ''),
      directive('websocket', 'websocket'),
    ),
    // A playlist with a whole segment that is yet to come, not with a part.
    block(
      'map',
      ['$arg__HLS_msn:$arg__HLS_part', '$waits_for_segment'],
      directive('default', 0),
      directive('~^\\d+:$', 1),
    ),
    block(
      'map',
      ['$passed_upgrade', '$passed_connection'],
      directive('default', ''),
      directive('websocket', 'upgrade'),
    ),
    directive('proxy_http_version', '1.1'),
    // What the client says of where it comes from goes no further.
    directive('proxy_set_header', 'Host', host),
    directive('proxy_set_header', 'Connection', '$passed_connection'),
    directive('proxy_set_header', 'Upgrade', '$passed_upgrade'),
    directive('proxy_set_header', 'X-Forwarded-For', '$remote_addr'),
    directive('proxy_set_header', 'X-Forwarded-Proto', '$scheme'),
    directive('proxy_set_header', 'X-Forwarded-Host', host),
    directive('proxy_set_header', 'Forwarded', ''),
    directive('proxy_connect_timeout', '500ms'),
    directive('proxy_next_upstream', 'error', 'timeout'),
    directive('proxy_next_upstream_tries', 3),
    directive('proxy_next_upstream_timeout', '10s'),
    directive('proxy_buffer_size', '16k'),
    directive('proxy_buffers', 16, '32k'),
    directive('proxy_busy_buffers_size', '64k'),

    cache(machine.cacheDir, input.cacheMaxBytes),
    upstream('frontends', input.frontends, input.balance, 64),
    input.site !== undefined && upstream('site', input.site, 'round-robin', 8),
    controlServer(machine.controlSocketPath, revision),
    httpServers(input),
    httpsServers(input),
  );
}

/**
 * One line of JSON a request. Queries hold viewing tokens, and the folder of a private channel's segments is what
 * keeps them private, so neither is written.
 */
function accessLog(path: string): Directive[] {
  const fields = [
    ['time', '$time_iso8601'],
    ['address', '$remote_addr'],
    ['method', '$request_method'],
    ['host', '$host'],
    ['path', '$logged_path'],
    ['protocol', '$server_protocol'],
    ['tls', '$ssl_protocol'],
    ['cipher', '$ssl_cipher'],
    ['status', '$status'],
    ['sentBytes', '$bytes_sent'],
    ['seconds', '$request_time'],
    ['cache', '$upstream_cache_status'],
    ['upstream', '$upstream_addr'],
    ['upstreamSeconds', '$upstream_response_time'],
    ['referer', '$logged_referer'],
    ['userAgent', '$http_user_agent'],
  ];
  const line = `{${fields.map(([name, value]) => `"${name}":"${value}"`).join(',')}}`;
  return [
    block(
      'map',
      ['$request_uri', '$logged_path'],
      directive(
        '~^(?<logged_folder>/live/[^/?]+/[^/?]+/)[^/?]+(?<logged_file>/[^?]*)',
        '$logged_folder*$logged_file',
      ),
      directive('~^(?<logged_rest>[^?]*)', '$logged_rest'),
    ),
    block('map', ['$http_referer', '$logged_referer'], directive('~^(?<logged_page>[^?#]*)', '$logged_page')),
    directive('log_format', 'json', 'escape=json', line),
    directive('access_log', path, 'json', 'buffer=64k', 'flush=1s'),
    directive('log_not_found', 'off'),
  ];
}

function tls(
  { certificatePath, privateKeyPath, offersOcsp }: NginxConfigInput['certificate'],
  resolvers: readonly string[],
): Directive[] {
  const staples = offersOcsp && resolvers.length > 0;
  return [
    directive('ssl_certificate', certificatePath),
    directive('ssl_certificate_key', privateKeyPath),
    directive('ssl_protocols', 'TLSv1.2', 'TLSv1.3'),
    directive('ssl_ciphers', CIPHERS.join(':')),
    directive('ssl_prefer_server_ciphers', 'off'), // the client knows whether it has AES in hardware
    directive('ssl_ecdh_curve', 'X25519:prime256v1:secp384r1'),
    directive('ssl_session_cache', 'shared:tls:10m'),
    directive('ssl_session_timeout', '1d'),
    directive('ssl_session_tickets', 'off'), // nginx 1.22 does not change their key
    ...(staples
      ? [
          directive('ssl_stapling', 'on'),
          directive('resolver', ...resolvers, 'valid=300s'),
          directive('resolver_timeout', '5s'),
        ]
      : []),
  ];
}

function cache(dir: string, maxBytes: number): Directive[] {
  return [
    directive(
      'proxy_cache_path',
      dir,
      'levels=1:2',
      'keys_zone=media:16m',
      `max_size=${Math.ceil(maxBytes / 1024)}k`,
      'inactive=2m',
      'use_temp_path=off',
    ),
    // As it was sent, so that no two ways to write a path meet in one entry. Media does not depend on the query.
    block('map', ['$request_uri', '$path_as_sent'], directive('~^(?<sent_path>[^?]*)', '$sent_path')),
    // A frontend that lacks a segment lets caches keep its 404, but another may have it.
    block('map', ['$upstream_status', '$is_not_kept'], directive('default', 1), directive('200', 0)),
  ];
}

function upstream(
  name: string,
  servers: readonly Server[],
  balance: NginxConfigInput['balance'],
  keptConnections: number,
): Directive {
  return block(
    'upstream',
    [name],
    directive('zone', name, '256k'),
    balance === 'least-connections' && directive('least_conn'),
    serverList(servers),
    directive('keepalive', keptConnections),
    directive('keepalive_timeout', '10s'), // the frontends' is 15 s: the balancer lets go first
  );
}

/**
 * No passive marks (`max_fails`): they would blame a frontend for a channel whose source stands still. The
 * agent asks each frontend itself.
 */
function serverList(servers: readonly Server[]): Directive[] {
  // nginx wants one; this one is never asked.
  if (servers.length === 0) return [directive('server', '127.0.0.1:9', 'down')];
  return servers.map(({ address, port, weight }) => {
    const where = `${address.includes(':') ? `[${address}]` : address}:${port}`;
    if (weight === 0) return directive('server', where, 'max_fails=0', 'down');
    return directive('server', where, 'max_fails=0', `weight=${weight}`);
  });
}

/** For the agent: which revision runs, and nginx's counters. */
function controlServer(socketPath: string, revision: string): Directive {
  return block(
    'server',
    [],
    directive('listen', `unix:${socketPath}`),
    directive('access_log', 'off'),
    block('location', ['=', '/revision'], directive('return', 200, revision)),
    block('location', ['=', '/status'], directive('stub_status')),
  );
}

function listens(
  { host, port }: ListenAddress,
  hasIpv6: boolean,
  ...parameters: readonly string[]
): Directive[] {
  if (host !== undefined) {
    return [directive('listen', `${host.includes(':') ? `[${host}]` : host}:${port}`, ...parameters)];
  }
  return [
    directive('listen', port, ...parameters),
    ...(hasIpv6 ? [directive('listen', `[::]:${port}`, ...parameters)] : []),
  ];
}

function limits({ maxConnectionsPerAddress, maxRequestsPerSecondPerAddress }: NginxConfigInput): Directive[] {
  return [
    directive('limit_conn', 'connections', maxConnectionsPerAddress),
    // A burst is answered at once, not slowed down: a player that waits is a player that stalls.
    directive('limit_req', 'zone=requests', `burst=${3 * maxRequestsPerSecondPerAddress}`, 'nodelay'),
  ];
}

/** As addresses of HTTPS have it. */
const portSuffix = ({ port }: ListenAddress): string => (port === 443 ? '' : `:${port}`);

function httpServers(input: NginxConfigInput): Directive[] {
  const { http, https, names, machine } = input;
  return [
    block(
      'server',
      [],
      listens(http, machine.hasIpv6, 'default_server'),
      directive('server_name', ''),
      directive('return', 421),
    ),
    block(
      'server',
      [],
      listens(http, machine.hasIpv6),
      directive('server_name', ...names),
      limits(input),
      block(
        'location',
        ['^~', '/.well-known/acme-challenge/'],
        directive('alias', `${machine.challengesDir}/`),
        directive('default_type', 'text/plain'),
      ),
      block('location', ['/'], directive('return', 301, `https://$host${portSuffix(https)}$request_uri`)),
    ),
  ];
}

function httpsServers(input: NginxConfigInput): Directive[] {
  const { https, names, machine, certificate, hstsSeconds, site } = input;
  return [
    // Another name than ours: no handshake; nor an answer, where the handshake was for one of ours.
    block(
      'server',
      [],
      listens(https, machine.hasIpv6, 'ssl', 'http2', 'default_server'),
      directive('server_name', ''),
      directive('ssl_reject_handshake', 'on'),
      directive('return', 421),
    ),
    block(
      'server',
      [],
      listens(https, machine.hasIpv6, 'ssl', 'http2'),
      directive('server_name', ...names),
      limits(input),
      certificate.isTrusted &&
        hstsSeconds > 0 &&
        directive('add_header', 'Strict-Transport-Security', `max-age=${hstsSeconds}`, 'always'),
      block(
        'location',
        ['=', '/healthz'],
        directive('access_log', 'off'),
        directive('default_type', 'text/plain'),
        directive('return', 200, 'alive'),
      ),
      // Of the nodes, for the fleet's own eyes.
      block('location', ['~', '^/(?:readyz|metrics)$'], directive('return', 404)),
      mediaLocations(),
      block(
        'location',
        ['/'],
        ...(site === undefined
          ? [directive('return', 404)]
          : [
              directive('proxy_buffering', 'off'), // server-sent events
              directive('proxy_read_timeout', '60s'),
              directive('proxy_pass', 'http://site'),
            ]),
      ),
    ),
  ];
}

/** What comes from the frontends. None of it takes a body. */
function mediaLocations(): Directive[] {
  const bodyless: Directive[] = [
    block('if', ['($request_method', '!~', '^(?:GET|HEAD|OPTIONS)$)'], directive('return', 405)),
    directive('client_max_body_size', 1),
  ];
  const toFrontends = directive('proxy_pass', 'http://frontends');
  const cached = [
    directive('proxy_cache', 'media'),
    directive('proxy_cache_key', '$path_as_sent'),
    directive('proxy_no_cache', '$is_not_kept'),
    directive('proxy_cache_lock', 'on'),
    directive('proxy_cache_lock_timeout', COALESCING_WAIT),
    // One that joins may lack the oldest segments; they are the same elsewhere.
    directive('proxy_next_upstream', 'error', 'timeout', 'http_404'),
  ];
  return [
    block(
      'location',
      ['~', '^/live/[a-z0-9-]+\\.(?:flv|ts)$'],
      bodyless,
      directive('proxy_buffering', 'off'),
      directive('proxy_read_timeout', ENDLESS_SILENCE),
      directive('proxy_send_timeout', '30s'),
      toFrontends,
    ),
    block(
      'location',
      ['~', '^/live/.+/\\d+\\.\\d+\\.m4s$'],
      bodyless,
      cached,
      directive('proxy_read_timeout', PART_SILENCE),
      toFrontends,
    ),
    block(
      'location',
      ['~', '^/live/.+\\.(?:m4s|mp4)$'],
      bodyless,
      cached,
      directive('proxy_read_timeout', SEGMENT_SILENCE),
      toFrontends,
    ),
    // Who asks for a whole segment's playlist waits longer than who asks for a part's. Its address has to stay
    // as it came, so the wait is chosen by a name for the place, not by a rewritten path.
    block(
      'location',
      ['~', '^/live/.+\\.m3u8$'],
      bodyless,
      directive('error_page', 418, '=', '@segment_playlist'),
      directive('recursive_error_pages', 'off'),
      block('if', ['($waits_for_segment)'], directive('return', 418)),
      directive('proxy_read_timeout', PART_SILENCE),
      toFrontends,
    ),
    block(
      'location',
      ['@segment_playlist'],
      bodyless,
      directive('proxy_read_timeout', SEGMENT_SILENCE),
      toFrontends,
    ),
    block('location', ['/live/'], bodyless, directive('proxy_read_timeout', SEGMENT_SILENCE), toFrontends),
  ];
}

/** Encoders and RTMP players, to the backends; TLS too is the backends' own. */
function streamBlock({ rtmp, rtmps, rtmpBackends, rtmpsBackends, machine }: NginxConfigInput): Directive {
  const passThrough = (name: string, listen: ListenAddress | undefined, servers: readonly Server[]) =>
    listen === undefined
      ? []
      : [
          block(
            'upstream',
            [name],
            directive('zone', name, '64k'),
            directive('least_conn'),
            serverList(servers),
          ),
          block(
            'server',
            [],
            listens(listen, machine.hasIpv6, 'so_keepalive=on'),
            directive('limit_conn', 'encoders', 64),
            directive('tcp_nodelay', 'on'),
            directive('proxy_connect_timeout', '1s'),
            directive('proxy_timeout', '60s'),
            directive('proxy_pass', name),
          ),
        ];
  const fields = [
    ['time', '$time_iso8601'],
    ['address', '$remote_addr'],
    ['port', '$server_port'],
    ['status', '$status'],
    ['sentBytes', '$bytes_sent'],
    ['receivedBytes', '$bytes_received'],
    ['seconds', '$session_time'],
    ['upstream', '$upstream_addr'],
  ];
  const line = `{${fields.map(([name, value]) => `"${name}":"${value}"`).join(',')}}`;
  return block(
    'stream',
    [],
    directive('limit_conn_zone', '$binary_remote_addr', 'zone=encoders:1m'),
    directive('limit_conn_log_level', 'info'),
    directive('log_format', 'json', 'escape=json', line),
    directive('access_log', machine.streamLogPath, 'json', 'buffer=4k', 'flush=1s'),
    passThrough('rtmp', rtmp, rtmpBackends),
    passThrough('rtmps', rtmps, rtmpsBackends),
  );
}
