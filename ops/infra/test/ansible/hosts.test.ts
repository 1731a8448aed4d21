/** What is put onto hosts, judged by the programs that will read it: Ansible, ssh, nft, systemd, nginx. */
import { execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { type NginxConfigInput, renderNginxConfig } from '@starling/balancer/nginx-config';
import { StarlingConfig } from '@starling/model/config';
import { drawPlan } from '@starling/model/topology/draw-plan';
import { type Host, type Plan, resourcesOf } from '@starling/model/topology/plan';
import { Value } from 'typebox/value';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { ansibleFiles } from '../../src/ansible/inventory.ts';
import { forgetOldKeys, KeysError, makeKeys, readPublicKeys } from '../../src/keys.ts';

const playbook = join(import.meta.dirname, '../../../ansible/site.yaml');
const classic = drawPlan({
  profile: 'classic-iptv',
  region: 'us-east-1',
  operatorAddress: '203.0.113.7/32',
  multiAz: true,
  ingestFrom: ['0.0.0.0/0'],
});
const plans: [string, Plan][] = [
  [
    'classic-iptv',
    drawPlan({ profile: 'classic-iptv', region: 'us-east-1', operatorAddress: '203.0.113.7/32' }),
  ],
  ['classic-iptv over two zones, with ingest', classic],
  ['beta', drawPlan({ profile: 'beta', region: 'eu-west-1' })],
  ['production', drawPlan({ profile: 'production', region: 'eu-west-1' })],
  ['production-serverless', drawPlan({ profile: 'production-serverless', region: 'us-east-1' })],
];
const hostsOf = (plan: Plan): Host[] =>
  [...resourcesOf(plan, 'instance'), ...resourcesOf(plan, 'launch-template')].map(({ host }) => host);
const hosts = plans.flatMap(([name, plan]) =>
  hostsOf(plan).map((host) => [name, host.hostname, host] as const),
);

let folder = '';
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'starling-hosts-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function run(program: string, args: readonly string[]): { status: number | null; output: string } {
  const { status, stdout, stderr } = spawnSync(program, args, {
    encoding: 'utf8',
    timeout: 60_000,
    env: { ...process.env, ANSIBLE_NOCOLOR: '1', ANSIBLE_LOCALHOST_WARNING: 'False' },
  });
  return { status, output: stdout + stderr };
}

describe('Ansible', () => {
  const dir = () => join(folder, 'ansible');
  beforeAll(() => {
    for (const [name, content] of Object.entries(ansibleFiles(classic))) {
      const path = join(dir(), name);
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, content);
    }
  });

  it('reads the inventory, without a warning: every host in its group, with what the plan puts onto it', () => {
    const { status, output } = run('ansible-inventory', ['-i', join(dir(), 'inventory.yaml'), '--list']);
    expect(status, output).toBe(0);
    expect(output).not.toContain('WARNING');
    const listed = JSON.parse(output) as Record<string, { hosts: string[] }> & {
      _meta: { hostvars: Record<string, Record<string, unknown>> };
    };
    expect(listed.bastions?.hosts).toEqual(['bastion-a', 'bastion-b']);
    expect(listed.frontends?.hosts).toEqual(['frontend-0', 'frontend-1']);
    expect(listed.backends?.hosts).toEqual(['backend-0']);
    for (const host of hostsOf(classic)) {
      expect(listed._meta.hostvars[host.hostname]).toMatchObject({
        starling_files: host.files,
        starling_units: host.units,
      });
    }
  });

  it('takes the playbook', () => {
    const { status, output } = run('ansible-playbook', [
      '-i',
      join(dir(), 'inventory.yaml'),
      playbook,
      '--syntax-check',
      '-e',
      'starling_release=/dev/null',
    ]);
    expect(status, output).toBe(0);
    expect(output).not.toContain('WARNING');
  });

  it('runs only in the folder of the inventory, where ssh finds the keys', () => {
    const started = (cwd: string) =>
      spawnSync('ansible-playbook', ['-i', join(dir(), 'inventory.yaml'), playbook, '--tags', 'place'], {
        cwd,
        env: { ...process.env, PWD: cwd },
        encoding: 'utf8',
      });
    expect(started(dir()).status).toBe(0);
    const elsewhere = started(folder);
    expect(elsewhere.status).not.toBe(0);
    expect(elsewhere.stdout).toContain(`Run this in ${dir()}`);
  });

  it('ssh jumps over the bastion of the zone, with the key of each', () => {
    const resolved = (host: string) => run('ssh', ['-G', '-F', join(dir(), 'ssh_config'), host]).output;
    expect(resolved('backend-0')).toMatch(/^proxyjump bastion-a$/m);
    expect(resolved('frontend-1')).toMatch(/^proxyjump bastion-b$/m);
    expect(resolved('frontend-1')).toMatch(/^identityfile keys\/instances$/m);
    expect(resolved('bastion-a')).toMatch(/^identityfile keys\/bastion$/m);
    expect(resolved('bastion-a')).not.toMatch(/^proxyjump/m);
  });
});

describe('files of hosts', () => {
  const written = (host: Host, path: string) => {
    const content = host.files.find((file) => file.path === path)?.content ?? '';
    const target = join(folder, 'check', path);
    mkdirSync(dirname(target), { recursive: true });
    writeFileSync(target, content);
    return target;
  };

  it.each(hosts)('%s, %s: nft takes the packet filter', (_, __, host) => {
    const path = written(host, '/etc/nftables.conf');
    // Without the rights to a network of its own nft cannot even look.
    const { status, output } = run('unshare', [
      '--user',
      '--map-root-user',
      '--net',
      'nft',
      '-c',
      '-f',
      path,
    ]);
    expect(status, output).toBe(0);
  });

  it.each(hosts)('%s, %s: systemd takes the units, without a word', (_, __, host) => {
    const units = host.files.filter(({ path }) => /\.(service|timer|mount)$/.test(path));
    const paths = units.map(({ path, content }) => {
      const target = join(folder, 'units', path.replace('@.', '@frontend.'));
      mkdirSync(dirname(target), { recursive: true });
      // The programs are not on this machine; what else the units say is checked as it is.
      writeFileSync(
        target,
        content.replaceAll(/^ExecStart=\S+/gm, 'ExecStart=/bin/true').replaceAll(/\$\{[^}]*\}/g, 'fs-1'),
      );
      return target;
    });
    if (paths.length === 0) return;
    const { status, output } = run('systemd-analyze', ['verify', '--man=no', ...paths]);
    const ours = output.split('\n').filter((line) => line.includes(folder) || line.includes('starling'));
    expect(ours, output).toEqual([]);
    expect(status, output).toBe(0);
  });

  it.each(hosts)('%s, %s: the configuration is a valid one, and its scripts are sound', (_, __, host) => {
    if (host.config !== null) {
      const text = host.files.find(({ path }) => path === '/etc/starling/starling.yaml')?.content ?? '';
      expect(parse(text)).toEqual(host.config);
      expect([...Value.Errors(StarlingConfig, host.config)]).toEqual([]);
    }
    for (const { path, content } of host.files.filter(({ content }) => content.startsWith('#!/bin/bash'))) {
      const { status, output } = run('bash', ['-n', written(host, path)]);
      expect(status, `${path}: ${content}${output}`).toBe(0);
    }
  });

  it.each(hosts.filter(([, , host]) => host.roles.includes('balancer')))(
    '%s, %s: nginx takes what the balancer makes of it',
    (_, __, host) => {
      const section = host.config?.balancer;
      if (section === undefined) throw new Error('no balancer');
      const dir = mkdtempSync(join(folder, 'nginx-'));
      for (const name of ['cache', 'challenges']) mkdirSync(join(dir, name));
      const input: NginxConfigInput = {
        names: section.names,
        http: { port: 80 },
        https: { port: 443 },
        rtmp: section.rtmp,
        rtmps: section.rtmps,
        frontends: (section.frontends ?? []).map(({ host: address, port }) => ({ address, port, weight: 1 })),
        rtmpBackends: (section.backends ?? []).map(({ host: address, rtmpPort }) => ({
          address,
          port: rtmpPort ?? 0,
          weight: 1,
        })),
        rtmpsBackends: (section.backends ?? []).map(({ host: address, rtmpsPort }) => ({
          address,
          port: rtmpsPort ?? 0,
          weight: 1,
        })),
        site:
          section.site === undefined
            ? undefined
            : [{ address: section.site.host, port: section.site.port, weight: 1 }],
        balance: section.balance ?? 'least-connections',
        certificate: {
          certificatePath: join(dir, 'cert.pem'),
          privateKeyPath: join(dir, 'key.pem'),
          isTrusted: false,
          offersOcsp: false,
        },
        resolvers: [],
        hstsSeconds: 0,
        trustedProxies: [],
        maxConnectionsPerAddress: 100,
        maxRequestsPerSecondPerAddress: 100,
        cacheMaxBytes: 2 ** 20,
        machine: {
          dir,
          cacheDir: join(dir, 'cache'),
          challengesDir: join(dir, 'challenges'),
          accessLogPath: join(dir, 'access.log'),
          streamLogPath: join(dir, 'stream.log'),
          controlSocketPath: join(dir, 'control.sock'),
          syslogPort: 5140,
          streamModulePath: '/usr/lib/nginx/modules/ngx_stream_module.so',
          user: undefined,
          hasIpv6: false,
          maxOpenFiles: 1024,
        },
      };
      execFileSync(
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
          '/CN=test',
          '-keyout',
          join(dir, 'key.pem'),
          '-out',
          join(dir, 'cert.pem'),
        ],
        { stdio: 'ignore' },
      );
      writeFileSync(join(dir, 'nginx.conf'), renderNginxConfig(input).text);
      const { status, output } = run('nginx', ['-t', '-p', dir, '-c', join(dir, 'nginx.conf')]);
      expect(status, output).toBe(0);
    },
  );
});

describe('keys', () => {
  const modeOf = (path: string) => (statSync(path).mode & 0o777).toString(8);

  it('are two pairs and three tokens, for their owner alone, and stay when they are asked for again', async () => {
    const dir = join(folder, 'keys');
    const { made, publicKeys } = await makeKeys(dir, { rotate: false });
    expect(made).toHaveLength(7);
    expect([dir, join(dir, 'secrets')].map(modeOf)).toEqual(['700', '700']);
    for (const name of [
      'bastion',
      'instances',
      'secrets/operator.token',
      'secrets/node.token',
      'secrets/publish.token',
    ]) {
      expect(modeOf(join(dir, name)), name).toBe('400');
    }
    expect(publicKeys.bastion).not.toBe(publicKeys.instances);
    for (const name of ['bastion', 'instances'] as const) {
      // What ssh-keygen says the public half of the private file is.
      const derived = execFileSync('ssh-keygen', ['-y', '-f', join(dir, name)], { encoding: 'utf8' }).trim();
      expect(derived).toBe(publicKeys[name]);
      expect(() =>
        drawPlan({ profile: 'classic-iptv', region: 'us-east-1', keys: publicKeys }),
      ).not.toThrow();
    }
    expect(await makeKeys(dir, { rotate: false })).toEqual({ made: [], publicKeys });

    const rotated = await makeKeys(dir, { rotate: true });
    expect(rotated.publicKeys.bastion).not.toBe(publicKeys.bastion);
    expect(readFileSync(join(dir, 'bastion.old.pub'), 'utf8').trim()).toBe(publicKeys.bastion);
    await expect(makeKeys(dir, { rotate: true })).rejects.toThrow(/forget-old/);
    expect(forgetOldKeys(dir)).toHaveLength(4);
    expect(existsSync(join(dir, 'bastion.old'))).toBe(false);
    expect(readPublicKeys(dir)).toEqual(rotated.publicKeys);
  });

  it('are not made in a folder that others can read', async () => {
    const dir = join(folder, 'open');
    mkdirSync(dir);
    chmodSync(dir, 0o755);
    await expect(makeKeys(dir, { rotate: false })).rejects.toThrow(KeysError);
  });

  it('are never part of what is emitted', async () => {
    const dir = join(folder, 'keys');
    const secrets = ['bastion', 'secrets/node.token'].map((name) => readFileSync(join(dir, name), 'utf8'));
    const everything = JSON.stringify([classic, ansibleFiles(classic)]);
    for (const secret of secrets) expect(everything).not.toContain(secret.trim().slice(40, 60));
  });
});
