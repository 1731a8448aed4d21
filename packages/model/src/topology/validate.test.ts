import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { deploymentJsonSchema, profiles, readDeployment, regions } from './deployment.ts';
import { drawPlan } from './draw-plan.ts';
import type { TopologyError, TopologyErrorCode } from './error.ts';
import { type Kind, type Plan, type ResourceOf, ref, templateParts } from './plan.ts';
import { validatePlan } from './validate.ts';

const everything = {
  operatorAddress: '203.0.113.7/32',
  alarmEmail: 'operator@example.org',
  budgetUsd: 200,
  ci: { repository: 'example/tv' },
  schedule: { timeZone: 'Europe/Paris', start: '18:00', stop: '02:00', days: ['FRI', 'SAT'] },
};

describe('plans', () => {
  it.each(profiles.flatMap((profile) => regions.map((region) => [profile, region] as const)))(
    '%s in %s: nothing that AWS would refuse, with the defaults and with everything on',
    (profile, region) => {
      const only = drawPlan({ profile, region });
      expect(validatePlan(only).filter(({ isWarning }) => !isWarning)).toEqual([]);
      expect(validatePlan(drawPlan({ profile, region, ...everything }))).toEqual([]);
      expect(
        validatePlan(
          drawPlan({
            profile,
            region,
            ...everything,
            ssm: true,
            multiAz: true,
            flowLogs: true,
            guardDuty: true,
          }),
        ),
      ).toEqual([]);
    },
  );

  it.each([
    ['beta', { natGateway: true }],
    ['gamma', { natGateway: true, cloudFront: true, dnssec: true }],
    ['production', { natGateway: true }],
    ['production', { cloudFront: false, dnssec: false }],
    ['production-containers', { natGateway: true }],
    ['production-serverless', { mediaLive: true, aurora: { minAcu: 0 } }],
    ['production-serverless', { cloudFront: false }],
    ['classic-iptv', { multiAz: true, frontends: 5, backends: 3, ingestFrom: ['198.51.100.0/24'] }],
  ] as const)('%s %o: nothing that AWS would refuse', (profile, settings) => {
    expect(validatePlan(drawPlan({ profile, region: 'eu-west-1', ...everything, ...settings }))).toEqual([]);
  });

  it('are the same each time, and plain data', () => {
    for (const profile of profiles) {
      const plan = drawPlan({ profile, region: 'us-east-1', ...everything });
      expect(drawPlan({ profile, region: 'us-east-1', ...everything })).toEqual(plan);
      expect(JSON.parse(JSON.stringify(plan))).toEqual(plan);
    }
  });

  it('tag everything as the deployment’s', () => {
    const plan = drawPlan({ profile: 'production', region: 'us-east-1', name: 'channel-1' });
    expect(plan.resources.filter(({ tags }) => tags['starling:deployment'] !== 'channel-1')).toEqual([]);
  });
});

describe('what AWS would refuse', () => {
  const classic = drawPlan({ profile: 'classic-iptv', region: 'us-east-1', ...everything });
  const beta = drawPlan({ profile: 'beta', region: 'us-east-1', ...everything });

  it.each<[TopologyErrorCode, string, unknown]>([
    ['PLAN_INTERFACE_LIMIT', 'three interfaces on a t3.micro', { instanceTypes: { bastion: 't3.micro' } }],
    ['PLAN_INSTANCE_TYPE', 'a type that nobody has', { instanceTypes: { frontend: 't9.giant' } }],
    ['PLAN_INSTANCE_TYPE', 'a Xen type as the bastion', { instanceTypes: { bastion: 't2.small' } }],
    ['PLAN_ARCHITECTURE', 'an ARM type with the x86 image', { instanceTypes: { backend: 't4g.small' } }],
    ['PLAN_QUOTA', 'more hosts than a new account has', { frontends: 20, backends: 20 }],
  ])('%s: %s', (code, _, settings) => {
    const plan = drawPlan({
      profile: 'classic-iptv',
      region: 'us-east-1',
      ...everything,
      ...(settings as object),
    });
    expect(validatePlan(plan).map((one) => one.code)).toContain(code);
  });

  it.each<[TopologyErrorCode, string, Plan]>([
    [
      'PLAN_DUPLICATE',
      'an id twice',
      { ...classic, resources: [...classic.resources, ...classic.resources.slice(0, 1)] },
    ],
    [
      'PLAN_DANGLING',
      'a subnet of a VPC that is not there',
      { ...classic, resources: classic.resources.slice(1) },
    ],
    ['PLAN_DANGLING', 'a text about a database that is not there', without(beta, 'Database')],
    [
      'PLAN_SUBNET_RANGE',
      'subnets that overlap',
      changed(classic, 'subnet', 'BackendsSubnetA', { cidr: '10.0.128.0/17' }),
    ],
    [
      'PLAN_SUBNET_RANGE',
      'a subnet outside the VPC',
      changed(classic, 'subnet', 'BackendsSubnetA', { cidr: '10.1.0.0/18' }),
    ],
    [
      'PLAN_ADDRESS',
      'an address that AWS keeps',
      changed(classic, 'interface', 'BalancerInterface', { privateIp: '10.0.0.3' }),
    ],
    [
      'PLAN_ADDRESS',
      'an address of another subnet',
      changed(classic, 'interface', 'BalancerInterface', { privateIp: '10.0.128.20' }),
    ],
    [
      'PLAN_ADDRESS',
      'an address twice',
      changed(classic, 'interface', 'BalancerInterface', { privateIp: '10.0.0.10' }),
    ],
    [
      'PLAN_ROUTE',
      'NAT through an interface that drops',
      changed(classic, 'interface', 'BastionPrivate1InterfaceA', { sourceDestCheck: true }),
    ],
    [
      'PLAN_NO_ROUTE_OUT',
      'hosts without a way out',
      changed(classic, 'route-table', 'FrontendsRoutesA', { routes: [] }),
    ],
    [
      'PLAN_ZONE',
      'a host and its interface in different zones',
      changed(classic, 'instance', 'Balancer', { zone: 'us-east-1b' }),
    ],
    [
      'PLAN_ZONE_COUNT',
      'a database in one zone',
      changed(beta, 'subnet-group', 'DatabaseSubnets', { subnets: ['DataSubnetA'] }),
    ],
    [
      'PLAN_ZONE_COUNT',
      'a load balancer in one zone',
      changed(beta, 'load-balancer', 'HttpBalancer', { subnets: ['PublicSubnetA'] }),
    ],
    [
      'PLAN_NAME',
      'a name that is too long',
      changed(beta, 'load-balancer', 'HttpBalancer', { name: 'x'.repeat(33) }),
    ],
    [
      'PLAN_TEMPLATE',
      'an attribute that nothing has',
      changed(beta, 'bucket', 'Storage', { name: `$${'{Vpc.colour}'}` }),
    ],
  ])('%s: %s', (code, _, plan) => {
    expect(validatePlan(plan).map((one) => one.code)).toContain(code);
  });

  it('PLAN_RULE: a rule twice, and ports that are no range', () => {
    const [group] = classic.resources.filter(
      (one) => one.kind === 'security-group' && one.id === 'FrontendGroup',
    ) as [ResourceOf<'security-group'>];
    const [rule] = group.ingress as [ResourceOf<'security-group'>['ingress'][number]];
    const twice = changed(classic, 'security-group', group.id, { ingress: [rule, { ...rule, id: 'Again' }] });
    const odd = changed(classic, 'security-group', group.id, { ingress: [{ ...rule, toPort: 70_000 }] });
    for (const plan of [twice, odd]) expect(validatePlan(plan).map((one) => one.code)).toContain('PLAN_RULE');
  });

  it('PLAN_CAPACITY and PLAN_FARGATE_SIZE', () => {
    const plan = drawPlan({ profile: 'production-containers', region: 'us-east-1' });
    const codes = (of: Plan) => validatePlan(of).map((one) => one.code);
    expect(codes(changed(plan, 'container-service', 'Service', { desired: 9 }))).toContain('PLAN_CAPACITY');
    expect(codes(changed(plan, 'task-definition', 'Task', { memoryMb: 512 }))).toContain('PLAN_FARGATE_SIZE');
  });

  it('PLAN_NOBODY_GETS_IN is a warning', () => {
    expect(validatePlan(drawPlan({ profile: 'beta', region: 'us-east-1' }))).toMatchObject([
      { code: 'PLAN_NOBODY_GETS_IN', isWarning: true },
    ]);
  });
});

describe('deployment files', () => {
  const minimal = { profile: 'classic-iptv', region: 'us-east-1' };
  it.each<[TopologyErrorCode, RegExp, object]>([
    ['DEPLOY_INVALID', /region/, { profile: 'beta' }],
    ['DEPLOY_INVALID', /colour/, { ...minimal, colour: 'red' }],
    ['DEPLOY_INVALID', /Keep one/, { ...minimal, frontends: 2, nombre_instance_front: 3 }],
    [
      'DEPLOY_NOT_IN_PROFILE',
      /frontends.*classic-iptv/,
      { profile: 'beta', region: 'us-east-1', frontends: 2 },
    ],
    ['DEPLOY_CIDR', /10\.0\.0\.1\/16/, { ...minimal, vpcCidr: '10.0.0.1/16' }],
    ['DEPLOY_CIDR', /\/16/, { ...minimal, vpcCidr: '10.0.0.0/20' }],
    ['DEPLOY_CIDR', /300/, { ...minimal, ingestFrom: ['300.1.1.1/32'] }],
    ['DEPLOY_SSH_OPEN', /everybody/, { ...minimal, operatorAddress: '0.0.0.0/0' }],
    ['DEPLOY_KEY', /ssh-ed25519/, { ...minimal, keys: { bastion: 'ssh-rsa AAAAB3Nza' } }],
  ])('%s %s', (code, says, file) => {
    const attempt = () => readDeployment(file);
    expect(attempt).toThrow(says);
    expect(attempt).toThrow(
      expect.objectContaining({ name: 'TopologyError', code } satisfies Partial<TopologyError>),
    );
  });

  it('takes the seed’s own names for the counts', () => {
    expect(readDeployment({ ...minimal, nombre_instance_front: 3, nombre_instance_back: 2 })).toMatchObject({
      frontends: 3,
      backends: 2,
    });
  });

  it('have a published schema, docs/deploy.schema.json, which is this one', () => {
    const path = join(import.meta.dirname, '../../../../docs/deploy.schema.json');
    if (process.env.UPDATE_SCHEMA !== undefined) writeFileSync(path, deploymentJsonSchema());
    expect(readFileSync(path, 'utf8')).toBe(deploymentJsonSchema());
  });
});

it('templates are taken apart', () => {
  expect(templateParts(`a ${ref('Vpc', 'id')} and $$${'{x}'} b`)).toEqual([
    'a ',
    { id: 'Vpc', attribute: 'id' },
    ` and $${'{x}'} b`,
  ]);
});

function changed<K extends Kind>(plan: Plan, kind: K, id: string, change: Partial<ResourceOf<K>>): Plan {
  const resources = plan.resources.map((one) =>
    one.kind === kind && one.id === id ? { ...one, ...change } : one,
  );
  return { ...plan, resources: resources as Plan['resources'] };
}

function without(plan: Plan, id: string): Plan {
  return { ...plan, resources: plan.resources.filter((one) => one.id !== id) };
}
