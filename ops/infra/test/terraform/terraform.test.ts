/**
 * The Terraform JSON of the IPTV seed's architecture, judged by a checker of our own on the provider's schema, and by
 * the real terraform, where it is installed, against a provider that serves that schema.
 */
import { execFile, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { drawPlan } from '@starling/model/topology/draw-plan';
import type { Plan } from '@starling/model/topology/plan';
import { type Cell, reachabilityTable, viewOfPlan } from '@starling/model/topology/reachability';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ansibleInventory, sshConfig } from '../../src/ansible/inventory.ts';
import { TerraformError, terraformConfiguration, terraformName } from '../../src/terraform/terraform.ts';
import { awsProvider, localProvider } from './provider-schema.ts';
import { checkConfiguration } from './schema-checker.ts';
import { type StubProvider, startStubProvider } from './stub-provider.ts';
import { type ShownState, viewOfState } from './view.ts';

const execFileAsync = promisify(execFile);
// The form of RFC 8709; nobody's keys.
const key = (letter: string) => `ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI${letter.repeat(43)} test`;
const settings = {
  profile: 'classic-iptv',
  region: 'us-east-1',
  operatorAddress: '203.0.113.7/32',
  keys: { bastion: key('A'), instances: key('B') },
};
const plan = drawPlan(settings);
const emit = (of: Plan) =>
  terraformConfiguration(of, { 'inventory.yaml': ansibleInventory(of), ssh_config: sshConfig(of) });
type Loose = { resource: Record<string, Record<string, Record<string, unknown>>> } & Omit<
  ReturnType<typeof emit>,
  'resource'
>;
const copy = () => structuredClone(emit(plan)) as unknown as Loose;
const one = (configuration: Loose, type: string, name: string) => configuration.resource[type]?.[name] ?? {};

/** One fault each: terraform leaves out what is downstream of another one. */
const defects: [string, RegExp, (configuration: Loose) => void][] = [
  [
    'an argument that is misspelt',
    /cidr_blok/,
    (it) => Object.assign(one(it, 'aws_vpc', 'vpc'), { cidr_blok: '10.0.0.0/16' }),
  ],
  [
    'an argument that is missing',
    /subnet_id/,
    (it) => delete one(it, 'aws_network_interface', 'balancer_interface').subnet_id,
  ],
  [
    'a value of the wrong type',
    /private_ips/,
    (it) =>
      Object.assign(one(it, 'aws_network_interface', 'balancer_interface'), { private_ips: '10.0.0.20' }),
  ],
  [
    'a reference to nothing',
    /frontends_subnet_z/,
    (it) =>
      Object.assign(one(it, 'aws_network_interface', 'frontend0_interface'), {
        subnet_id: `$${'{aws_subnet.frontends_subnet_z.id}'}`,
      }),
  ],
  [
    'an attribute that the resource has not',
    /colour/,
    (it) =>
      Object.assign(one(it, 'aws_route', 'public_default_route'), {
        gateway_id: `$${'{aws_internet_gateway.internet_gateway.colour}'}`,
      }),
  ],
  [
    'a block too many',
    /metadata_options/,
    (it) => {
      const instance = one(it, 'aws_instance', 'backend0');
      instance.metadata_options = [
        ...(instance.metadata_options as object[]),
        ...(instance.metadata_options as object[]),
      ];
    },
  ],
];

describe('Terraform JSON, by the schema checker', () => {
  it.each([
    {},
    { ssm: true },
    { multiAz: true, frontends: 5, backends: 3, ingestFrom: ['0.0.0.0/0'] },
    { schedule: { timeZone: 'Europe/Paris', start: '18:00', stop: '02:00' } },
  ])('%o: the schema has all of it', (more) => {
    expect(
      checkConfiguration(emit(drawPlan({ ...settings, ...more })), [awsProvider, localProvider]),
    ).toEqual([]);
  });

  it.each(defects)('finds %s', (_, says, break_) => {
    const configuration = copy();
    break_(configuration);
    const faults = checkConfiguration(configuration, [awsProvider, localProvider]);
    expect(faults).toHaveLength(1);
    expect(faults[0]).toMatch(says);
  });

  it('has the seed’s variables and outputs', () => {
    const { variable, output } = emit(plan);
    for (const name of [
      'vpc_name',
      'nombre_instance_front',
      'nombre_instance_back',
      'region',
      'domain',
      'instance_type_bastion',
      'operator_address',
    ]) {
      expect(Object.keys(variable)).toContain(name);
    }
    expect(Object.keys(output)).toEqual(
      expect.arrayContaining([
        'bastion_public_ip',
        'balancer_public_ip',
        'frontend_private_ips',
        'backend_private_ips',
        'watch_url',
      ]),
    );
  });

  it('holds no private key, and takes the public ones as variables when the plan has none', () => {
    const without = emit(drawPlan({ profile: 'classic-iptv', region: 'us-east-1' }));
    expect(without.variable.bastion_public_key).not.toHaveProperty('default');
    expect(JSON.stringify(emit(plan))).not.toMatch(/PRIVATE KEY|tls_private_key/);
  });

  it('is the same each time', () => {
    expect(JSON.stringify(emit(drawPlan(settings)))).toBe(JSON.stringify(emit(plan)));
  });

  it('says so for the profiles that it is not for', () => {
    expect(() => emit(drawPlan({ profile: 'beta', region: 'us-east-1' }))).toThrow(TerraformError);
  });
});

const hasTerraform = spawnSync('terraform', ['version'], { stdio: 'ignore' }).status === 0;
if (!hasTerraform) {
  process.stderr.write(
    '\nNOT RUN: terraform is not installed, so nothing of its init, validate, plan and apply was tried. The schema checker was.\n\n',
  );
}

describe.skipIf(!hasTerraform)('Terraform JSON, by the real terraform', () => {
  let folder = '';
  let providers: StubProvider[] = [];
  const terraform = async (...args: string[]): Promise<{ code: number; out: string }> => {
    const env = {
      ...process.env,
      ...{
        TF_REATTACH_PROVIDERS: JSON.stringify(
          Object.assign({}, ...providers.map(({ reattach }) => reattach)),
        ),
      },
      ...{ TF_IN_AUTOMATION: '1', CHECKPOINT_DISABLE: '1', TF_CLI_CONFIG_FILE: join(folder, 'none.tfrc') },
    };
    try {
      const { stdout, stderr } = await execFileAsync('terraform', args, {
        cwd: folder,
        env,
        maxBuffer: 1 << 26,
      });
      return { code: 0, out: stdout + stderr };
    } catch (error) {
      const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string };
      return { code, out: stdout + stderr };
    }
  };
  const write = (configuration: object) =>
    writeFileSync(join(folder, 'main.tf.json'), JSON.stringify(configuration));

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'starling-terraform-'));
    writeFileSync(join(folder, 'none.tfrc'), '');
    providers = await Promise.all([
      startStubProvider('aws', awsProvider, folder),
      startStubProvider('local', localProvider, folder),
    ]);
    write(emit(plan));
    const { code, out } = await terraform('init', '-no-color', '-backend=false');
    expect(code, out).toBe(0);
  }, 60_000);
  afterAll(() => {
    for (const provider of providers) provider.close();
    rmSync(folder, { recursive: true, force: true });
  });

  it('validates, plans, applies, and plans nothing more; what it then has says the same about who reaches whom', async () => {
    write(emit(plan));
    const validated = await terraform('validate', '-no-color');
    expect(validated.code, validated.out).toBe(0);
    const planned = await terraform('plan', '-no-color', '-detailed-exitcode');
    expect(planned.code, planned.out).toBe(2);
    const applied = await terraform('apply', '-no-color', '-auto-approve');
    expect(applied.code, applied.out).toBe(0);
    const again = await terraform('plan', '-no-color', '-detailed-exitcode');
    expect(again.code, again.out).toBe(0);

    expect(readFileSync(join(folder, 'ssh_config'), 'utf8')).toMatch(
      /Host bastion\n {2}HostName 203\.0\.113\.\d+\n/,
    );
    const state = JSON.parse((await terraform('show', '-json')).out) as ShownState;
    const asTerraform = (cells: Cell[]) =>
      cells.map(({ from, to, port, reaches }) => `${named(from)} ${named(to)} ${port} ${reaches}`).sort();
    const expected = asTerraform(reachabilityTable(viewOfPlan(plan)));
    expect(asTerraform(reachabilityTable(viewOfState(state)))).toEqual(expected);

    // A rule that is another one in Terraform alone is noticed.
    const rules = state.values.root_module.resources.filter(
      ({ type }) => type === 'aws_vpc_security_group_ingress_rule',
    );
    fc.assert(
      fc.property(fc.constantFrom(...rules), (rule) => {
        const resources = state.values.root_module.resources.map((each) =>
          each === rule
            ? { ...each, values: { ...each.values, ip_protocol: 'tcp', from_port: 4321, to_port: 4321 } }
            : each,
        );
        expect(
          asTerraform(reachabilityTable(viewOfState({ values: { root_module: { resources } } }))),
        ).not.toEqual(expected);
      }),
      { numRuns: 20 },
    );
    const destroyed = await terraform('destroy', '-no-color', '-auto-approve');
    expect(destroyed.code, destroyed.out).toBe(0);
  }, 120_000);

  it.each(defects)(
    'refuses %s',
    async (_, says, break_) => {
      const configuration = copy();
      break_(configuration);
      write(configuration);
      const { code, out } = await terraform('validate', '-no-color');
      expect(code).toBe(1);
      expect(out).toMatch(says);
    },
    30_000,
  );

  it('refuses a variable that would ask for another plan, and says what to do', async () => {
    write(emit(plan));
    const { code, out } = await terraform('plan', '-no-color', '-var', 'nombre_instance_front=3');
    expect(code).toBe(1);
    expect(out.replace(/\s*│?\s*\n\s*│?\s*/g, ' ')).toMatch(/Set frontends in deploy\.yaml/);
  }, 30_000);
});

const named = (id: string) => (id === 'internet' ? id : /^[A-Z]/.test(id) ? terraformName(id) : id);
