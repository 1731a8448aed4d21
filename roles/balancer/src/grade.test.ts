import { describe, expect, it } from 'vitest';
import { exampleInput } from '../test/example-input.ts';
import { type GradeFacts, gradeConfig } from './grade.ts';
import { renderNginxConfig } from './nginx-config.ts';

const nowUnixMs = Date.UTC(2026, 10, 22);
const DAY_MS = 86_400_000;
const facts: GradeFacts = {
  refusal: undefined,
  certificate: {
    certificatePath: '/srv/certificate.pem',
    privateKeyPath: '/srv/private-key.pem',
    names: ['tv.example.org', '*.example.org'],
    notBeforeUnixMs: nowUnixMs - 10 * DAY_MS,
    notAfterUnixMs: nowUnixMs + 80 * DAY_MS,
    isSelfSigned: false,
    offersOcsp: false,
  },
  names: exampleInput.names,
  privateKeyMode: 0o600,
  isRoot: true,
  firstFreePort: 1024,
  readiness: [
    ['10.0.0.1:8080', 'ready'],
    ['10.0.0.2:8080', 'ready'],
  ],
  nowUnixMs,
};
const { text } = renderNginxConfig(exampleInput);
const { certificate } = facts;

const gradeOf = (rule: string, changedText: string, changedFacts: Partial<GradeFacts> = {}) =>
  gradeConfig(changedText, { ...facts, ...changedFacts }).find((one) => one.rule === rule)?.grade;

describe('the grades of a configuration', () => {
  it('are all good for our own', () => {
    expect(gradeConfig(text, facts).filter(({ grade }) => grade !== 'pass')).toEqual([]);
  });

  it.each([
    ['TLS 1.2 and 1.3 only', 'ssl_protocols TLSv1.2', 'ssl_protocols TLSv1 TLSv1.2', 'fail'],
    ['TLS 1.2 and 1.3 only', 'ssl_protocols TLSv1.2 TLSv1.3;', '', 'fail'],
    ['modern ciphers', ':ECDHE-RSA-AES256-GCM-SHA384', ':AES256-SHA', 'fail'],
    ['HTTP/2', 'ssl http2', 'ssl', 'warn'],
    ['redirect', 'return 301 https://$host$request_uri', 'proxy_pass http://site', 'fail'],
    ['HSTS', 'max-age=63072000', 'max-age=60', 'warn'],
    ['unknown hosts', 'ssl_reject_handshake on', 'return 444', 'fail'],
    ['limits for each address', 'limit_req zone=requests burst=3000 nodelay;', '', 'fail'],
    ['deadlines', 'client_header_timeout 10s', 'client_header_timeout 10m', 'fail'],
    ['deadlines', 'send_timeout 30s;', '', 'fail'],
    ['bodies are bounded', 'client_max_body_size 1m', 'client_max_body_size 0', 'fail'],
    ['requests are read strictly', 'Upgrade $passed_upgrade', 'Upgrade $http_upgrade', 'fail'],
    [
      "clients' addresses",
      'X-Forwarded-For $remote_addr',
      'X-Forwarded-For $proxy_add_x_forwarded_for',
      'fail',
    ],
    ['no tokens in the log', '$logged_path\\"', '$request_uri\\"', 'fail'],
    [
      'no tokens in the log',
      'error_log syslog:server=127.0.0.1:5140,nohostname,tag=nginx',
      'error_log /srv/e.log',
      'fail',
    ],
    [
      'private answers are not kept',
      'proxy_cache media;',
      'proxy_cache media; proxy_cache_valid any 1m;',
      'fail',
    ],
    ['version is hidden', 'server_tokens off;', '', 'warn'],
    ['workers are unprivileged', 'user www-data;', '', 'fail'],
    ['open files', 'worker_rlimit_nofile 65536', 'worker_rlimit_nofile 1024', 'warn'],
    ['backends', 'server 10.0.1.1:1936 max_fails=0 weight=10', 'server 127.0.0.1:9 down', 'fail'],
  ])('%s: %j replaced by %j', (rule, ours, other, grade) => {
    expect(text).toContain(ours);
    expect(gradeOf(rule, text.replaceAll(ours, other))).toBe(grade);
  });

  it.each<[string, Partial<GradeFacts>, string]>([
    ['nginx takes it', { refusal: 'unknown directive' }, 'fail'],
    ['HSTS', { certificate: { ...certificate, isSelfSigned: true } }, 'fail'],
    ['certificate is trusted', { certificate: { ...certificate, isSelfSigned: true } }, 'warn'],
    ['certificate has the names', { names: ['tv.example.com'] }, 'fail'],
    ['certificate has the names', { names: ['a.b.example.org'] }, 'fail'],
    ['certificate is valid', { nowUnixMs: certificate.notAfterUnixMs + 1 }, 'fail'],
    ['certificate is valid', { nowUnixMs: certificate.notBeforeUnixMs - 1 }, 'fail'],
    ['certificate is valid', { nowUnixMs: certificate.notAfterUnixMs - DAY_MS }, 'warn'],
    ['OCSP stapling', { certificate: { ...certificate, offersOcsp: true } }, 'warn'],
    ['private key', { privateKeyMode: 0o640 }, 'fail'],
    ['ports can be opened', { isRoot: false }, 'warn'],
    ['frontends', { readiness: [] }, 'fail'],
    ['frontends', { readiness: [['10.0.0.1:8080', 'ready']] }, 'warn'],
    [
      'frontends',
      {
        readiness: [
          ['10.0.0.1:8080', 'ready'],
          ['10.0.0.2:8080', 'silent'],
        ],
      },
      'warn',
    ],
  ])('%s, where %j', (rule, change, grade) => {
    expect(gradeOf(rule, text, change)).toBe(grade);
  });
});
