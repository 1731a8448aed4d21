/** Each rule is broken once, and fires; as they come, the profiles break none that is severe. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type RequestListener } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { profiles } from '@starling/model/topology/deployment';
import { drawPlan } from '@starling/model/topology/draw-plan';
import { type Kind, type Plan, type Resource, ref, resourcesOf } from '@starling/model/topology/plan';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { accept, inOrder } from '../../src/audit/finding.ts';
import { auditPlan, planRules } from '../../src/audit/plan-rules.ts';
import { type AuditReport, failing, toJunit, toMarkdown, toSarif } from '../../src/audit/report.ts';
import { reviewDocument, reviewItems } from '../../src/audit/review-items.ts';
import { auditRunning, runningRules } from '../../src/audit/running-rules.ts';
import { auditTemplate, templateRules } from '../../src/audit/template-rules.ts';
import { type CloudFormationTemplate, synthesize } from '../../src/cloudformation/synthesize.ts';

const root = resolve(import.meta.dirname, '../../../..');
const SYNTHESIS_TIMEOUT_MS = 120_000;
/** With everything that an operator is advised to set. */
const wellSet = {
  region: 'eu-west-1',
  alarmEmail: 'ops@example.org',
  budgetUsd: 200,
  ingestFrom: ['203.0.113.0/24'],
};
const planOf = (profile: string, changes: object = {}) => drawPlan({ profile, ...wellSet, ...changes });
const idsOf = (findings: readonly { readonly rule: { readonly id: string } }[]) => [
  ...new Set(findings.map(({ rule }) => rule.id)),
];

/** The plan with each resource of a kind changed. */
function changed(plan: Plan, kind: Kind, change: (one: never) => object): Plan {
  return {
    ...plan,
    resources: plan.resources.map((one) =>
      one.kind === kind ? ({ ...one, ...change(one as never) } as Resource) : one,
    ),
  };
}
const without = (plan: Plan, ...kinds: Kind[]): Plan => ({
  ...plan,
  resources: plan.resources.filter(({ kind }) => !kinds.includes(kind)),
});

it.each(profiles)('%s, well set, breaks no rule', (profile) => {
  expect(
    auditPlan(planOf(profile)).map(({ rule, resource, message }) => `${rule.id} ${resource} ${message}`),
  ).toEqual([]);
});

it.each(profiles)('%s, as it comes, breaks none that is severe', (profile) => {
  const severe = auditPlan(drawPlan({ profile, region: 'us-east-1' })).filter(({ rule }) =>
    ['critical', 'high'].includes(rule.severity),
  );
  expect(severe).toEqual([]);
});

const open = { peer: { cidr: '0.0.0.0/0' } };
const ingress =
  (rule: object) =>
  ({ ingress }: { ingress: object[] }) => ({
    ingress: [...ingress, { id: 'X', protocol: 'tcp', description: '', ...open, ...rule }],
  });
const containers = planOf('production-containers');
const production = planOf('production');

const defects: Readonly<Record<string, Plan>> = {
  SSH_OPEN: changed(production, 'security-group', ingress({ fromPort: 22, toPort: 22 })),
  PORT_OPEN: changed(production, 'security-group', ingress({ fromPort: 8080, toPort: 8080 })),
  INGEST_PLAINTEXT_OPEN: changed(production, 'security-group', ingress({ fromPort: 1935, toPort: 1935 })),
  DATA_PORT_BROAD: changed(
    production,
    'security-group',
    ingress({ fromPort: 5432, toPort: 5432, peer: { cidr: '10.0.0.0/16' } }),
  ),
  DATA_SUBNET_PUBLIC: changed(production, 'subnet-group', () => ({
    subnets: ['PublicSubnetA', 'PublicSubnetB'],
  })),
  DATABASE_PUBLIC: changed(production, 'database', () => ({ isPublic: true })),
  DATABASE_UNENCRYPTED: changed(production, 'database', () => ({ encrypted: false })),
  DATABASE_TLS_OPTIONAL: changed(production, 'parameter-group', () => ({ parameters: {} })),
  BACKUPS_SHORT: changed(production, 'database', () => ({ backupDays: 7 })),
  DATABASE_UNPROTECTED: changed(production, 'database', () => ({ deletionProtection: false })),
  DATABASE_ONE_ZONE: changed(production, 'database', () => ({ multiAz: false })),
  CACHE_UNENCRYPTED: changed(production, 'cache', () => ({ encryptedInTransit: false })),
  CACHE_NO_PASSWORD: changed(production, 'cache', () => ({ password: null })),
  CACHE_ONE_NODE: changed(production, 'cache', () => ({ nodes: 1 })),
  IMDS_V1: changed(production, 'launch-template', () => ({
    metadata: { httpTokens: 'optional', hopLimit: 1 },
  })),
  DISK_UNENCRYPTED: changed(production, 'file-system', () => ({ encrypted: false })),
  KEY_SHARED: changed(planOf('classic-iptv'), 'key-pair', () => ({ publicKey: 'ssh-ed25519 same' })),
  LISTENER_PLAINTEXT: changed(planOf('beta'), 'listener', () => ({
    protocol: 'HTTP',
    action: { kind: 'forward', targetGroup: 'X' },
  })),
  TLS_OLD: changed(production, 'listener', () => ({
    protocol: 'HTTPS',
    certificate: 'X',
    tlsPolicy: 'ELBSecurityPolicy-2016-08',
  })),
  BALANCER_LAX: changed(production, 'load-balancer', () => ({ dropInvalidHeaders: false })),
  BALANCER_NO_LOG: changed(production, 'load-balancer', () => ({ accessLogs: null })),
  CDN_LAX: changed(production, 'distribution', ({ origin }: { origin: object }) => ({
    origin: { ...origin, protocol: 'http-only' },
  })),
  CDN_PLAYLISTS_STALE: changed(production, 'cache-policy', () => ({ maxTtlSeconds: 86_400 })),
  ACL_NO_REPLIES: changed(production, 'network-acl', ({ entries }: { entries: { direction: string }[] }) => ({
    entries: entries.filter(({ direction }) => direction === 'ingress'),
  })),
  ACL_ADMIN_OPEN: changed(production, 'network-acl', ({ entries }: { entries: object[] }) => ({
    entries: [
      ...entries,
      {
        ...open.peer,
        ruleNumber: 999,
        direction: 'ingress',
        action: 'allow',
        protocol: 'tcp',
        fromPort: 22,
        toPort: 22,
      },
    ],
  })),
  LOG_FOREVER: changed(production, 'log-group', () => ({ retentionDays: 1 })),
  BUCKET_LIFECYCLE: changed(production, 'bucket', () => ({ transitions: [], expireDays: null })),
  POLICY_WILDCARD: changed(production, 'role', () => ({
    statements: [{ sid: 'All', actions: ['s3:*'], resources: ['*'], conditions: {} }],
  })),
  CI_TRUSTS_PULL_REQUESTS: changed(
    planOf('production', { ci: { repository: 'example/tv' } }),
    'role',
    () => ({
      trusts: {
        oidcProvider: 'X',
        conditions: { 'token.actions.githubusercontent.com:sub': 'repo:example/tv:*' },
      },
    }),
  ),
  CONTAINER_SOFT: changed(
    containers,
    'task-definition',
    ({ containers: list }: { containers: object[] }) => ({
      containers: list.map((one) => ({ ...one, user: 'root' })),
    }),
  ),
  CONTAINER_SECRET_PLAIN: changed(
    containers,
    'task-definition',
    ({ containers: list }: { containers: object[] }) => ({
      containers: list.map((one) => ({ ...one, environment: { DATABASE_URL: 'postgres://' } })),
    }),
  ),
  GROUP_ONE_ZONE: changed(production, 'scaling-group', ({ subnets }: { subnets: string[] }) => ({
    subnets: subnets.slice(1),
  })),
  SCALING_TARGET: changed(production, 'scaling-group', () => ({ targetCpuPercent: 95 })),
  ADDRESS_CHANGES: changed(planOf('classic-iptv'), 'record', () => ({
    target: { kind: 'values', values: [ref('Balancer', 'publicIp')] },
  })),
  NO_HTTPS: without(production, 'distribution', 'listener', 'certificate'),
  NO_REDIRECT: without(planOf('beta'), 'listener'),
  NO_STABLE_NAMES: without(production, 'record'),
  NO_DNSSEC: without(production, 'zone-signing'),
  NO_WAF: without(production, 'web-acl'),
  NO_FLOW_LOGS: without(production, 'flow-log'),
  NO_ACLS: without(production, 'network-acl'),
  NO_ROTATION: without(production, 'rotation'),
  NO_DATABASE: without(production, 'database'),
  NO_CACHE: without(production, 'cache'),
  NO_SECURITY_ALARMS: without(production, 'alarm'),
  ALARMS_UNHEARD: changed(production, 'topic', () => ({ email: null })),
  NO_GUARDDUTY: without(production, 'threat-detector'),
  NO_CDN: without(production, 'distribution'),
  NO_SCALING: without(production, 'scaling-group'),
  NO_STORAGE: without(production, 'bucket'),
  NO_LOG: without(production, 'log-group'),
  NO_BUDGET: without(production, 'budget'),
};

describe('rules over the plan', () => {
  it('have a defect each', () => {
    expect(Object.keys(defects).sort()).toEqual(planRules.map(({ id }) => id).sort());
  });
  it.each(Object.entries(defects))('%s fires', (rule, plan) => {
    expect(idsOf(auditPlan(plan))).toContain(rule);
  });
});

describe('rules over the template', () => {
  const templates = new Map<string, CloudFormationTemplate>();
  beforeAll(() => {
    for (const profile of ['production', 'production-containers']) {
      for (const { name, template } of synthesize(planOf(profile)))
        templates.set(`${profile} ${name}`, template);
    }
  }, SYNTHESIS_TIMEOUT_MS);

  it('find nothing as it comes', () => {
    for (const template of templates.values()) expect(auditTemplate(template, template)).toEqual([]);
  });

  it('miss any one resource that is removed', () => {
    for (const template of templates.values()) {
      for (const id of Object.keys(template.Resources)) {
        const { [id]: _removed, ...Resources } = template.Resources;
        expect(
          auditTemplate({ ...template, Resources }, template).map(({ resource }) => resource),
          id,
        ).toContain(id);
      }
    }
  });

  const set = (properties: object) => (before: object) => ({ ...before, ...properties });
  it.each([
    ['TEMPLATE_DATABASE', 'AWS::RDS::DBInstance', set({ PubliclyAccessible: true })],
    ['TEMPLATE_DATABASE', 'AWS::RDS::DBInstance', set({ MasterUserPassword: 'x' })],
    ['TEMPLATE_METADATA_GROUP', 'AWS::EC2::LaunchTemplate', set({ LaunchTemplateData: {} })],
    ['TEMPLATE_BUCKET', 'AWS::S3::Bucket', set({ PublicAccessBlockConfiguration: {} })],
    ['TEMPLATE_BUCKET', 'AWS::S3::BucketPolicy', set({ PolicyDocument: { Statement: [] } })],
    [
      'TEMPLATE_GROUP',
      'AWS::EC2::SecurityGroup',
      set({ SecurityGroupIngress: [{ IpProtocol: '-1', CidrIp: '0.0.0.0/0' }] }),
    ],
    [
      'TEMPLATE_LISTENER',
      'AWS::ElasticLoadBalancingV2::Listener',
      set({ Protocol: 'HTTP', DefaultActions: [{ Type: 'forward' }] }),
    ],
    ['TEMPLATE_SECRET', 'AWS::SecretsManager::Secret', set({ SecretString: 'x' })],
    [
      'TEMPLATE_TASK',
      'AWS::ECS::TaskDefinition',
      set({ ContainerDefinitions: [{ Name: 'x', ReadonlyRootFilesystem: false }] }),
    ],
  ])('%s fires on a changed %s', (rule, type, change) => {
    const found = [...templates.values()].flatMap((template) =>
      auditTemplate(
        {
          ...template,
          Resources: Object.fromEntries(
            Object.entries(template.Resources).map(([id, one]) => [
              id,
              one.Type === type ? { ...one, Properties: change(one.Properties ?? {}) } : one,
            ]),
          ),
        },
        template,
      ),
    );
    expect(idsOf(found)).toContain(rule);
  });
});

describe('rules over a running system', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'starling-audit-'));
    const files = ['-keyout', join(folder, 'key.pem'), '-out', join(folder, 'certificate.pem')];
    execFileSync(
      'openssl',
      ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=localhost', ...files],
      {
        stdio: 'ignore',
      },
    );
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  async function auditOf(listener: RequestListener, tls?: 'TLSv1' | 'TLSv1.2'): Promise<string[]> {
    const server =
      tls === undefined
        ? createServer(listener)
        : createTlsServer(
            {
              key: readFileSync(join(folder, 'key.pem')),
              cert: readFileSync(join(folder, 'certificate.pem')),
              minVersion: tls,
              ciphers: tls === 'TLSv1' ? 'DEFAULT@SECLEVEL=0' : 'DEFAULT',
            },
            listener,
          );
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    try {
      return idsOf(
        await auditRunning(new URL(`${tls === undefined ? 'http' : 'https'}://127.0.0.1:${port}`), false),
      );
    } finally {
      server.closeAllConnections();
      server.close();
    }
  }

  it('find all that a careless server shows', async () => {
    const careless: RequestListener = (_request, response) => {
      response.writeHead(200, { server: 'nginx/1.22.1' });
      response.end('# HELP x\n');
    };
    const live = [
      'LIVE_API_OPEN',
      'LIVE_METRICS_OPEN',
      'LIVE_NO_CSP',
      'LIVE_NO_LIMITS',
      'LIVE_SERVER_VERSION',
      'LIVE_SNIFF',
    ];
    expect((await auditOf(careless)).sort()).toEqual([...live, 'LIVE_NO_REDIRECT'].sort());
    expect((await auditOf(careless, 'TLSv1')).sort()).toEqual(
      [...live, 'LIVE_NO_HSTS', 'LIVE_OLD_TLS'].sort(),
    );
  });

  it('find nothing in a careful one', async () => {
    const careful: RequestListener = (request, response) => {
      response.setHeader('strict-transport-security', 'max-age=63072000');
      response.setHeader('content-security-policy', "default-src 'self'");
      response.setHeader('x-content-type-options', 'nosniff');
      response.setHeader('ratelimit-limit', '2000');
      response.writeHead(request.url === '/' ? 200 : request.url === '/metrics' ? 403 : 401);
      response.end();
    };
    expect(await auditOf(careful, 'TLSv1.2')).toEqual([]);
  });

  it('say so when nobody answers', async () => {
    expect(idsOf(await auditRunning(new URL('http://127.0.0.1:9')))).toEqual(['LIVE_UNREACHABLE']);
  });
});

describe('a report', () => {
  const findings = auditPlan(defects.SSH_OPEN as Plan);
  const report = (acceptances: Parameters<typeof accept>[1]): AuditReport => ({
    subject: 'production in eu-west-1',
    date: '2026-11-30',
    rules: planRules,
    findings: inOrder(accept(findings, acceptances, '2026-11-30')),
  });

  it('fails on what is severe and not accepted, until the acceptance ends', () => {
    const reason = 'a test that somebody has looked at';
    expect(failing(report([]), 'high').length).toBeGreaterThan(0);
    const all = { rule: 'SSH_OPEN', resource: '*', reason };
    const rest = (until: string) => failing(report([{ ...all, until }]), 'critical');
    expect(rest('2026-11-30')).toEqual([]);
    expect(rest('2026-11-29').length).toBeGreaterThan(0);
  });

  it('is Markdown, SARIF and JUnit', () => {
    expect(toMarkdown(report([]))).toMatch(/## Critical[\s\S]*SSH_OPEN[\s\S]*FSBP EC2\.13[\s\S]*## Kept/);
    const sarif = toSarif(report([])) as {
      runs: [
        { tool: { driver: { rules: { id: string }[] } }; results: { ruleId: string; ruleIndex: number }[] },
      ];
    };
    const [{ tool, results }] = sarif.runs;
    for (const { ruleId, ruleIndex } of results) expect(tool.driver.rules[ruleIndex]?.id).toBe(ruleId);
    const folder = mkdtempSync(join(tmpdir(), 'starling-junit-'));
    const path = join(folder, 'junit.xml');
    writeFileSync(path, toJunit(report([])));
    const count = execFileSync('xmllint', ['--xpath', 'count(//testcase[failure])', path]).toString().trim();
    rmSync(folder, { recursive: true });
    expect(Number(count)).toBe(idsOf(findings).length);
  });
});

describe("the review's items", () => {
  const known = new Set([...planRules, ...templateRules, ...runningRules].map(({ id }) => id));
  const everything = profiles.flatMap(
    (profile) =>
      planOf(profile, {
        ci: { repository: 'example/tv' },
        schedule: { timeZone: 'Europe/Paris', start: '18:00', stop: '02:00' },
      }).resources,
  );
  it.each(reviewItems.map((one) => [one.item, one] as const))(
    '%s: rules, resources and test are there',
    (_item, one) => {
      for (const rule of one.rules) expect(known, rule).toContain(rule);
      for (const kind of one.resources)
        expect(
          everything.some((resource) => resource.kind === kind),
          kind,
        ).toBe(true);
      expect(existsSync(join(root, one.test)), one.test).toBe(true);
      expect(one.rules.length + one.resources.length).toBeGreaterThan(0);
    },
  );

  it('docs/security-review.md lists them', async () => {
    await expect(reviewDocument()).toMatchFileSnapshot('../../../../docs/security-review.md');
  });
});

it('resourcesOf finds what the defects change', () => {
  for (const kind of ['database', 'cache', 'scaling-group', 'distribution'] as const) {
    expect(resourcesOf(production, kind).length).toBeGreaterThan(0);
  }
});
