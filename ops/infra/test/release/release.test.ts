/** What is released, and by whom: the image against the task definition, the pipeline against the role's trust. */
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { drawPlan } from '@starling/model/topology/draw-plan';
import type { Plan } from '@starling/model/topology/plan';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parse } from 'yaml';

const root = join(import.meta.dirname, '../../../..');
const ci = { repository: 'example/starling', branch: 'main' };
const plan = drawPlan({ profile: 'production-containers', region: 'eu-west-1', ci });
const containers = of(plan, 'task-definition').containers;

function of<K extends Plan['resources'][number]['kind']>({ resources }: Plan, kind: K) {
  const found = resources.find((one) => one.kind === kind);
  if (found === undefined) throw new Error(`the plan has no ${kind}`);
  return found as Extract<Plan['resources'][number], { kind: K }>;
}

interface Instruction {
  readonly name: string;
  readonly argument: string;
}

/** Instructions by stage; continued lines joined, comments left out. @throws Error for one that Docker does not know */
function readDockerfile(text: string): Instruction[][] {
  const known =
    /^(ADD|ARG|CMD|COPY|ENTRYPOINT|ENV|EXPOSE|FROM|HEALTHCHECK|LABEL|RUN|SHELL|STOPSIGNAL|USER|VOLUME|WORKDIR)$/;
  const lines = text
    .split('\n')
    .filter((line) => !/^\s*#/.test(line))
    .join('\n')
    .replace(/\\\n/g, ' ')
    .split('\n')
    .filter((line) => line.trim() !== '');
  const stages: Instruction[][] = [[]];
  for (const line of lines) {
    const [, name = '', argument = ''] = /^([A-Z]+)\s+(.*)$/.exec(line) ?? [];
    if (!known.test(name)) throw new Error(`no instruction: ${line}`);
    if (name === 'FROM') stages.push([]);
    stages.at(-1)?.push({ name, argument: argument.replace(/\s+/g, ' ').trim() });
  }
  return stages;
}

const [globals = [], ...stages] = readDockerfile(
  readFileSync(join(root, 'ops/container/Dockerfile'), 'utf8'),
);
const final = stages.at(-1) ?? [];
const argumentsOf = (name: string, stage = final) =>
  stage.filter((one) => one.name === name).map(({ argument }) => argument);

describe('the image', () => {
  it('is what the task definition runs: user, ports, folders, health, roles', () => {
    expect(new Set(containers.map(({ user }) => user))).toEqual(new Set(argumentsOf('USER')));
    const ports = containers.flatMap(({ ports: own }) => own.map(String));
    expect(argumentsOf('EXPOSE').join(' ').split(' ').sort()).toEqual(ports.sort());
    const volumes: string[] = JSON.parse(argumentsOf('VOLUME')[0] ?? '[]');
    const written = new Set(
      containers.flatMap(({ scratch, mounts }) => [...scratch, ...mounts.map(({ path }) => path)]),
    );
    expect(new Set(volumes)).toEqual(written);
    const [made = ''] = argumentsOf('RUN');
    for (const path of written) if (path !== '/tmp') expect(made).toContain(path);
    const [uid = ''] = (containers[0]?.user ?? '').split(':');
    expect(made).toContain(`--uid ${uid} `);
    for (const { healthCommand, command } of containers) {
      if (healthCommand !== null) {
        expect(healthCommand[1]).toBe('/opt/starling/bin/starling-health');
        expect(healthCommand[2]).toMatch(/\/healthz$/);
      }
      expect(command).toHaveLength(1);
    }
    const frontend = containers.find(({ name }) => name === 'frontend');
    expect(argumentsOf('HEALTHCHECK')[0]).toContain(
      JSON.stringify(frontend?.healthCommand?.slice(1)).replace(',', ', '),
    );
    expect(JSON.parse(argumentsOf('CMD')[0] ?? '')).toEqual(frontend?.command);
    for (const path of JSON.parse(argumentsOf('ENTRYPOINT')[0] ?? '[]') as string[])
      expect(path).toMatch(/^\/opt\/starling\/bin\/(node|starling-container\.mjs)$/);
  });

  it('is hardened: base by digest, security updates, not root, nothing secret, and no tools of the build', () => {
    expect(globals).toEqual([
      { name: 'ARG', argument: 'BUILD_IMAGE' },
      { name: 'ARG', argument: 'RUN_IMAGE' },
    ]);
    expect(stages.map(([from]) => from?.argument.split(' ')[0])).toEqual([
      `\${BUILD_IMAGE}`,
      `\${RUN_IMAGE}`,
    ]);
    expect(argumentsOf('RUN')[0]).toMatch(/apt-get update && apt-get -y upgrade && /);
    expect(argumentsOf('RUN').join(' ')).not.toMatch(/curl|sudo|chmod [0-7]*777|npm/);
    const after = final.slice(final.findIndex(({ name }) => name === 'USER') + 1);
    expect(after.map(({ name }) => name)).not.toContain('RUN');
    expect(JSON.stringify([globals, ...stages])).not.toMatch(/password|token|AKIA|BEGIN/i);
    for (const { readonlyRootFilesystem, dropCapabilities, user } of containers) {
      expect(readonlyRootFilesystem).toBe(true);
      expect(dropCapabilities).toEqual(['ALL']);
      expect(user).not.toMatch(/^(0|root)\b/);
    }
    const ignored = readFileSync(join(root, 'ops/container/Dockerfile.dockerignore'), 'utf8').split('\n');
    expect(ignored[0]).toBe('**');
    for (const never of ['**/keys', '**/*.pem', '**/node_modules']) expect(ignored).toContain(never);
  });

  it('the parser takes no instruction that Docker does not know', () => {
    expect(() => readDockerfile('FROM a\nRUNS b\n')).toThrow('no instruction: RUNS b');
  });
});

describe('the first process of a container', () => {
  let folder: string;
  let secrets: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'starling-container-'));
    secrets = join(folder, 'secrets');
    for (const name of ['bin', 'dist', 'secrets', 'node_modules']) mkdirSync(join(folder, name));
    cpSync(join(root, 'ops/container/starling-container.mjs'), join(folder, 'bin/starling-container.mjs'));
    cpSync(join(root, 'node_modules/yaml'), join(folder, 'node_modules/yaml'), { recursive: true });
    writeFileSync(
      join(folder, 'dist/starling.js'),
      `process.stdout.write(JSON.stringify({ argv: process.argv.slice(2), env: process.env }));`,
    );
    writeFileSync(join(folder, 'package.json'), '{"type":"module"}');
    chmodSync(secrets, 0o700);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const start = (name: string, change: (env: Record<string, string>) => void = () => {}) => {
    const container = containers.find((one) => one.name === name);
    const env: Record<string, string> = { ...container?.environment };
    for (const key of Object.keys(container?.secrets ?? {})) env[key] = `${key.toLowerCase()}/+@`;
    env.STARLING_CONFIG = env.STARLING_CONFIG?.replaceAll('/etc/starling/secrets', secrets) ?? '';
    env.STARLING_DATABASE_HOST = 'db.example';
    env.STARLING_CACHE_HOST = 'cache.example';
    change(env);
    const command = [join(folder, 'bin/starling-container.mjs'), ...(container?.command ?? [])];
    return JSON.parse(execFileSync(process.execPath, command, { env, encoding: 'utf8', stdio: 'pipe' }));
  };
  const read = (name: string) => readFileSync(join(secrets, name), 'utf8');

  it('writes what the role reads, for itself alone, and keeps nothing of it in the environment', () => {
    for (const turn of ['first', 'restarted']) {
      const { argv, env } = start('coordinator');
      expect(argv, turn).toEqual(['coordinator', '--config', join(secrets, 'starling.yaml')]);
      // How its nodes join, and that they leave when it stops; no secret.
      expect(Object.entries(env).filter(([key]) => key.startsWith('STARLING_'))).toEqual([
        ['STARLING_JOIN_TOKEN_FILE', join(secrets, 'node.token')],
        ['STARLING_LEAVE_AT_STOP', '1'],
      ]);
    }
    expect(read('database.url')).toBe(
      'postgres://starling_database_user%2F%2B%40:starling_database_password%2F%2B%40@db.example:5432/starling?sslmode=verify-full',
    );
    expect(read('redis.url')).toBe('rediss://:starling_secret%2F%2B%40@cache.example:6379');
    // The same as on hosts, by another implementation.
    for (const label of ['operator', 'node']) {
      const mac = ['mac', '-digest', 'SHA256', '-macopt', 'key:starling_secret/+@', '-in', '-', 'HMAC'];
      const expected = execFileSync('openssl', mac, { input: label, encoding: 'utf8' });
      expect(read(`${label}.token`)).toBe(expected.trim().toLowerCase());
    }
    expect(statSync(join(secrets, 'node.token')).mode & 0o777).toBe(0o400);
    const config = parse(read('starling.yaml'));
    for (const path of [config.coordinator.operatorTokenFile, config.coordinator.nodeTokenFile])
      expect(() => readFileSync(path)).not.toThrow();
  });

  it('has the configuration of a host of the other group, whose nodes join by themselves', () => {
    start('backend');
    const { host } = of(drawPlan({ profile: 'production', region: 'eu-west-1' }), 'launch-template');
    const text = read('starling.yaml').replaceAll(secrets, '/etc/starling/secrets');
    expect(parse(text)).toEqual(host.config);
    expect(parse(text).coordinator.group).toBe(true);
  });

  it('gives roles without a database no way to it', () => {
    rmSync(join(secrets, 'database.url'), { force: true });
    expect(start('frontend').argv[0]).toBe('frontend');
    expect(() => read('database.url')).toThrow('ENOENT');
  });

  it('says what is not set', () => {
    expect(() => start('frontend', (env) => delete env.STARLING_SECRET)).toThrow(
      'STARLING_SECRET is not set',
    );
  });
});

describe('the pipeline', () => {
  const text = readFileSync(join(root, '.github/workflows/ci.yml'), 'utf8');
  const workflow = parse(text) as {
    on: Record<string, unknown>;
    permissions: Record<string, string>;
    jobs: Record<
      string,
      {
        if?: string;
        environment?: string;
        permissions?: Record<string, string>;
        steps: { uses?: string; run?: string }[];
      }
    >;
  };
  const jobs = Object.values(workflow.jobs);

  it('no job of a pull request can have a token for AWS', () => {
    expect(Object.keys(workflow.on)).toEqual(['pull_request', 'push']);
    expect(workflow.permissions).toEqual({ contents: 'read' });
    const withToken = jobs.filter(({ permissions }) => permissions?.['id-token'] !== undefined);
    expect(withToken).toHaveLength(1);
    for (const { if: condition = '', environment } of withToken) {
      expect(condition.split(' && ').slice(0, 2)).toEqual([
        "github.event_name == 'push'",
        `github.ref == 'refs/heads/${ci.branch}'`,
      ]);
      expect(environment).toBeUndefined();
    }
    const { trusts } = plan.resources.find(({ id }) => id === 'CiRole') as unknown as {
      trusts: { conditions: Record<string, string> };
    };
    // Exact, so that `repo:example/starling:pull_request` is another subject.
    expect(trusts.conditions['token.actions.githubusercontent.com:sub']).toBe(
      'repo:example/starling:ref:refs/heads/main',
    );
  });

  it('runs no action but checkout, by its hash, and puts nothing of an event into a shell', () => {
    for (const { uses, run } of jobs.flatMap(({ steps }) => steps)) {
      if (uses !== undefined) expect(uses).toMatch(/^actions\/checkout@[0-9a-f]{40}$/);
      expect(run ?? '').not.toContain('${{');
    }
    expect(text).not.toMatch(/secrets\.|AWS_SECRET_ACCESS_KEY/);
  });

  it('asks of AWS only what its role may do', () => {
    const allowed = [plan, drawPlan({ profile: 'production', region: 'eu-west-1', ci })].flatMap(
      ({ resources }) => {
        const role = resources.find(({ id }) => id === 'CiRole') as unknown as {
          statements: { actions: string[] }[];
        };
        return role.statements.flatMap(({ actions }) => actions);
      },
    );
    const script = jobs.flatMap(({ steps }) => steps.map(({ run = '' }) => run)).join('\n');
    const calls = [...script.matchAll(/aws ([a-z0-9]+) ([a-z-]+)/g)].map(
      ([, service, call]) => `${service} ${call}`,
    );
    const needs: Record<string, string> = {
      's3 cp': 's3:PutObject',
      'autoscaling start-instance-refresh': 'autoscaling:StartInstanceRefresh',
      'ecr get-login-password': 'ecr:GetAuthorizationToken',
      'cloudformation create-change-set': 'cloudformation:CreateChangeSet',
    };
    expect(new Set(calls)).toEqual(new Set(Object.keys(needs)));
    for (const call of calls) expect(allowed).toContain(needs[call]);
    const parameters = [...script.matchAll(/ParameterKey=(\w+)/g)].map(([, key]) => key);
    expect(parameters).toEqual(['ImageDigest', 'ZoneId', 'FirewallArn', 'ViewerCertificateArn']);
  });
});
