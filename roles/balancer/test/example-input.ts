/** An input for tests of what is rendered and graded. */
import type { NginxConfigInput } from '../src/nginx-config.ts';

export const exampleInput: NginxConfigInput = {
  names: ['tv.example.org', 'www.example.org'],
  http: { port: 80 },
  https: { port: 443 },
  rtmp: { port: 1935 },
  rtmps: { port: 1936 },
  frontends: [
    { address: '10.0.0.1', port: 8080, weight: 10 },
    { address: '10.0.0.2', port: 8080, weight: 10 },
  ],
  rtmpBackends: [{ address: '10.0.1.1', port: 1935, weight: 10 }],
  rtmpsBackends: [{ address: '10.0.1.1', port: 1936, weight: 10 }],
  site: [{ address: '10.0.2.1', port: 9000, weight: 10 }],
  balance: 'least-connections',
  certificate: {
    certificatePath: '/srv/certificate.pem',
    privateKeyPath: '/srv/private-key.pem',
    isTrusted: true,
    offersOcsp: false,
  },
  resolvers: ['10.0.0.53'],
  hstsSeconds: 63_072_000,
  trustedProxies: [],
  maxConnectionsPerAddress: 1000,
  maxRequestsPerSecondPerAddress: 1000,
  cacheMaxBytes: 2 ** 30,
  machine: {
    dir: '/srv/nginx',
    cacheDir: '/srv/cache',
    challengesDir: '/srv/challenges',
    accessLogPath: '/srv/access.log',
    streamLogPath: '/srv/rtmp-access.log',
    controlSocketPath: '/srv/nginx/control.sock',
    syslogPort: 5140,
    streamModulePath: '/usr/lib/nginx/modules/ngx_stream_module.so',
    user: 'www-data',
    hasIpv6: true,
    maxOpenFiles: 1_048_576,
  },
};
