/** Stacks through change sets, against the fake CloudFormation. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { drawPlan } from '@starling/model/topology/draw-plan';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { writeAssembly } from '../../src/cloudformation/synthesize.ts';
import { makePeriod } from '../../src/operate/hours.ts';
import { pauseDeployment, readState, resumeDeployment } from '../../src/operate/pause.ts';
import { setHours } from '../../src/operate/schedules.ts';
import { deployStacks, destroyStacks, diffStacks } from '../../src/operate/stack.ts';
import { addRoleStack, emptyWorld, interruptAtEveryCall, NAME, REGION, type World } from './world.ts';

const worlds: World[] = [];
let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'starling-stack-'));
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

afterEach(async () => {
  for (const { fake } of worlds.splice(0)) await fake.close();
});

async function open(): Promise<World> {
  const world = await emptyWorld();
  worlds.push(world);
  return world;
}

type Resources = Record<string, { Type: string; Properties?: object; DeletionPolicy?: string }>;

const role = (value: string) => [{ Key: 'starling:role', Value: value }];

const resources: Resources = {
  Bastion: { Type: 'AWS::EC2::Instance', Properties: { ImageId: 'ami-1', Tags: role('bastion') } },
  Frontends: {
    Type: 'AWS::AutoScaling::AutoScalingGroup',
    Properties: { MinSize: '1', DesiredCapacity: '2', MaxSize: '5', Tags: role('frontend') },
  },
  Database: { Type: 'AWS::RDS::DBInstance', DeletionPolicy: 'Snapshot' },
  Recordings: { Type: 'AWS::S3::Bucket', DeletionPolicy: 'Retain' },
  SchedulerRole: { Type: 'AWS::IAM::Role' },
};

function template(name: string, of: Resources, more: object = {}): string {
  const path = join(folder, name);
  const outputs = { Outputs: { SchedulerRoleArn: { Value: { Ref: 'SchedulerRole' } } } };
  writeFileSync(path, JSON.stringify({ ...outputs, Resources: of, ...more }));
  return path;
}

const deploy = async (world: World, path: string, parameters: Record<string, string> = {}) =>
  deployStacks(
    await world.connect(),
    NAME,
    { path, parameters: new Map(Object.entries(parameters)) },
    async () => true,
  );

const destroy = async (world: World, removeProtection = false) =>
  destroyStacks(await world.connect(), NAME, { removeProtection }, async () => true);

describe('deploy', () => {
  it('makes the stack, tags it and what it makes, and tells the outputs; again it changes nothing', async () => {
    const world = await open();
    const path = template('one.json', resources);
    const [first] = await deploy(world, path);
    expect(first).toMatchObject({
      stack: 'starling-demo',
      isNew: true,
      outputs: { SchedulerRoleArn: 'arn:aws:iam::123456789012:role/starling-demo-schedulerrole' },
    });
    expect(first?.changes.map(({ action, resource }) => `${action} ${resource}`)).toEqual(
      Object.keys(resources).map((resource) => `Add ${resource}`),
    );
    const { condition, units } = await readState(await world.connect(), NAME);
    expect(condition).toBe('running');
    expect(units.map(({ kind, role: own }) => `${kind} ${own}`)).toEqual([
      'instance bastion',
      'group frontend',
      'database database',
    ]);
    const before = JSON.stringify(world.cloud.snapshot());
    const [second] = await deploy(world, path);
    expect(second).toMatchObject({ isNew: false, changes: [], outputs: first?.outputs });
    expect(JSON.stringify(world.cloud.snapshot())).toBe(before);
  });

  it('interrupted at every call of the first time and run again makes one stack', async () => {
    const path = template('one.json', resources);
    const reference = await open();
    await deploy(reference, path);
    const withoutIds = (world: World) =>
      JSON.stringify(world.cloud.snapshot()).replace(/i-[0-9a-f]{17}/g, 'i');
    const { calls } = reference.fake;
    for (let atCall = 0; atCall < calls.length; atCall++) {
      const isRead = /:(Describe|Get|List)/.test(calls[atCall]?.call ?? '');
      for (const isDone of isRead ? [false] : [false, true]) {
        const world = await open();
        world.fake.cut = { atCall, isDone };
        await expect(deploy(world, path)).rejects.toMatchObject({ code: 'AWS_UNREACHABLE' });
        world.fake.cut = undefined;
        await deploy(world, path);
        expect(withoutIds(world), `cut at call ${atCall}`).toBe(withoutIds(reference));
      }
    }
  }, 300_000);

  it('takes a template of which only the outputs changed', async () => {
    const world = await open();
    await deploy(world, template('one.json', resources));
    const [{ changes, isEmpty, outputs } = expect.unreachable()] = await deploy(
      world,
      template('one.json', resources, { Outputs: { Site: { Value: 'https://example.org' } } }),
    );
    expect({ changes, isEmpty, outputs }).toEqual({
      changes: [],
      isEmpty: false,
      outputs: { Site: 'https://example.org' },
    });
  });

  it('asks, and changes nothing when the answer is no', async () => {
    const world = await open();
    const options = { path: template('one.json', resources), parameters: new Map<string, string>() };
    const asked: string[] = [];
    await expect(
      deployStacks(await world.connect(), NAME, options, async ({ changes }) => {
        asked.push(...changes.map(({ resource }) => resource));
        return false;
      }),
    ).rejects.toMatchObject({ code: 'NOT_CONFIRMED' });
    expect(asked).toEqual(Object.keys(resources));
    world.fake.advance(60_000);
    expect(world.cloud.snapshot()).toMatchObject({ stacks: [], instances: [] });
  });

  it('diff tells what would be made anew, and leaves nothing behind', async () => {
    const world = await open();
    const path = template('one.json', resources);
    const options = { path, parameters: new Map<string, string>() };
    expect(await diffStacks(await world.connect(), NAME, options)).toMatchObject([{ isNew: true }]);
    world.fake.advance(60_000);
    expect(world.cloud.snapshot()).toMatchObject({ stacks: [] });
    await deploy(world, path);
    const before = JSON.stringify(world.cloud.snapshot());
    const { Database: _, ...rest } = resources;
    template('one.json', {
      ...rest,
      Bastion: { Type: 'AWS::EC2::Instance', Properties: { ImageId: 'ami-2', Tags: role('bastion') } },
      Alarm: { Type: 'AWS::CloudWatch::Alarm' },
    });
    const [{ changes = [] } = {}] = await diffStacks(await world.connect(), NAME, options);
    expect(changes.map(({ action, resource, replacement }) => [action, resource, replacement])).toEqual([
      ['Modify', 'Bastion', 'True'],
      ['Add', 'Alarm', undefined],
      ['Remove', 'Database', undefined],
    ]);
    expect(JSON.stringify(world.cloud.snapshot())).toBe(before);
  });

  it('interrupted at every call and run again ends in the same state, and opening hours follow the machines', async () => {
    const path = template('one.json', resources);
    const before = await open();
    await deploy(before, path);
    const hours = makePeriod('office', 'mon-fri', '09:00', '17:00', 'UTC');
    await setHours(await before.connect(), NAME, hours);
    template('one.json', {
      ...resources,
      Bastion: { Type: 'AWS::EC2::Instance', Properties: { ImageId: 'ami-2', Tags: role('bastion') } },
    });
    const reference = await open();
    reference.cloud.copy(before.cloud);
    await deploy(reference, path);
    const bastions = [...reference.cloud.instances.values()].filter(
      ({ tags }) => tags['starling:role'] === 'bastion',
    );
    expect(bastions.map(({ state }) => state)).toEqual(['terminated', 'running']);
    const schedules = JSON.stringify([
      ...(reference.cloud.scheduleGroups.get('starling-demo')?.schedules.values() ?? []),
    ]);
    expect(schedules).toContain(bastions[1]?.id);
    expect(schedules).not.toContain(bastions[0]?.id);
    await interruptAtEveryCall(open, before, (world) => deploy(world, path));
  }, 300_000);

  it('says why a stack failed, and starts afresh where the first deployment did', async () => {
    const world = await open();
    const broken = {
      ...resources,
      Zone: { Type: 'AWS::Route53::HostedZone', Properties: { Fails: 'example is reserved by AWS!' } },
    };
    const path = template('broken.json', broken);
    await expect(deploy(world, path)).rejects.toMatchObject({
      code: 'STACK_FAILED',
      message:
        'The stack starling-demo was rolled back: Zone (AWS::Route53::HostedZone): example is reserved by AWS!',
    });
    expect(world.cloud.snapshot()).toMatchObject({ stacks: [{ status: 'ROLLBACK_COMPLETE' }] });
    template('broken.json', resources);
    await deploy(world, path);
    expect(world.cloud.snapshot()).toMatchObject({ stacks: [{ status: 'CREATE_COMPLETE' }] });
  });

  it('takes a cloud assembly: stacks in order, in their regions, protected as it says, parameters kept', async () => {
    const world = await open();
    const path = mkdtempSync(join(folder, 'assembly-'));
    const write = (name: string, content: object) => writeFileSync(join(path, name), JSON.stringify(content));
    const stack = (stackName: string, region: string, dependencies: string[]) => ({
      type: 'aws:cloudformation:stack',
      environment: `aws://unknown-account/${region}`,
      dependencies,
      properties: {
        templateFile: `${stackName}.template.json`,
        stackName,
        terminationProtection: stackName === 'demo-main',
      },
    });
    write('manifest.json', {
      artifacts: {
        Main: stack('demo-main', 'unknown-region', ['Edge', 'Main.assets']),
        'Main.assets': { type: 'cdk:asset-manifest' },
        Edge: stack('demo-edge', 'us-east-1', []),
      },
    });
    write('demo-main.template.json', {
      Parameters: { DomainName: {} },
      Resources: { Bastion: { Type: 'AWS::EC2::Instance' } },
    });
    write('demo-edge.template.json', { Resources: { Acl: { Type: 'AWS::WAFv2::WebACL' } } });
    await expect(deploy(world, path, { Domain: 'example.org' })).rejects.toThrow('has a parameter "Domain"');
    await expect(deploy(world, path)).rejects.toThrow('Parameters: [DomainName] must have values');
    const done = await deploy(world, path, { DomainName: 'example.org' });
    expect(done.map(({ stack: name, region }) => `${name} ${region}`)).toEqual([
      'demo-edge us-east-1',
      'demo-main eu-west-1',
    ]);
    expect(
      [...world.cloud.stacks.values()].map(({ name, isProtected, parameters }) => [
        name,
        isProtected,
        parameters,
      ]),
    ).toEqual([['demo-main', true, { DomainName: 'example.org' }]]);
    write('demo-main.template.json', {
      Parameters: { DomainName: {} },
      Resources: { Bastion: { Type: 'AWS::EC2::Instance' }, Alarm: { Type: 'AWS::CloudWatch::Alarm' } },
    });
    const [, main] = await deploy(world, path);
    expect(main?.changes).toMatchObject([{ action: 'Add', resource: 'Alarm' }]);
    await expect(destroy(world)).rejects.toMatchObject({
      code: 'STACK_PROTECTED',
      message:
        'demo-main is protected from deletion, or has resources that are: add --remove-protection if you mean it.',
    });
    expect([...(await destroy(world, true)).stacks].sort()).toEqual(['demo-edge', 'demo-main']);
  });

  it('leaves a stack of that name alone that is not tagged as the deployment', async () => {
    const world = await open();
    addRoleStack(world.cloud);
    for (const stack of world.cloud.stacks.values()) stack.tags = {};
    await expect(deploy(world, template('one.json', resources))).rejects.toMatchObject({
      code: 'DEPLOYMENT_NOT_OURS',
    });
    await expect(destroy(world)).rejects.toMatchObject({ code: 'DEPLOYMENT_NOT_FOUND' });
    expect(world.fake.mutations).toEqual([]);
  });

  it.each([
    ['missing.json', undefined, /missing\.json cannot be read/],
    ['text.json', 'Resources:', /text\.json is not JSON/],
    ['empty.json', '{}', /is no template of CloudFormation/],
    [
      'long.json',
      JSON.stringify({ Resources: { A: { Type: 'x'.repeat(60_000) } } }),
      /is 60\d+ bytes, and CloudFormation takes 51200 in a call: add --bucket/,
    ],
    [
      'endless.json',
      JSON.stringify({ Resources: { A: { Type: 'x'.repeat(1_000_000) } } }),
      /is 1000\d+ bytes, and CloudFormation takes 1000000 at most/,
    ],
  ])('%s is refused before AWS is asked', async (name, content, message) => {
    const world = await open();
    if (content !== undefined) writeFileSync(join(folder, name), content);
    await expect(deploy(world, join(folder, name))).rejects.toThrow(message);
    expect(world.fake.calls).toEqual([]);
  });
});

describe('what synth writes', () => {
  let path: string;

  beforeAll(() => {
    path = join(folder, 'production');
    writeAssembly(
      drawPlan({ profile: 'production', region: REGION, name: NAME, domain: 'example.org' }),
      path,
    );
  }, 60_000);

  const BUCKET = 'example-templates';
  const key = `ssh-ed25519 ${'A'.repeat(68)}`;
  const options = (more: object = {}) => ({
    path,
    parameters: new Map([['InstancesKeyPublicKey', key]]),
    bucket: BUCKET,
    ...more,
  });

  it('is too long for a call: says so, puts it into a bucket, and gives the second stack what the first one has', async () => {
    const world = await open();
    await expect(
      deployStacks(await world.connect(), NAME, options({ bucket: undefined }), async () => true),
    ).rejects.toMatchObject({
      code: 'STACK_NEEDS_BUCKET',
      message: expect.stringMatching(/^The template of demo-main is \d+ bytes, .* add --bucket/),
    });
    expect(world.fake.calls).toEqual([]);
    await expect(deployStacks(await world.connect(), NAME, options(), async () => true)).rejects.toThrow(
      'AWS refused s3:PutObject: The specified bucket does not exist (NoSuchBucket).',
    );
    world.fake.buckets.set(BUCKET, { region: 'us-west-2', objects: new Map() });
    await expect(
      deployStacks(await world.connect(), NAME, options(), async () => true),
    ).rejects.toMatchObject({ code: 'AWS_REFUSED' });
    const objects = new Map<string, string>();
    world.fake.buckets.set(BUCKET, { region: REGION, objects });

    const made = await deployStacks(await world.connect(), NAME, options(), async () => true);
    expect(made.map(({ stack, region, isNew, isEmpty }) => [stack, region, isNew, isEmpty])).toEqual([
      ['demo-edge', 'us-east-1', false, true],
      ['demo-main', 'eu-west-1', true, false],
    ]);
    // Only what is too long is put there, as it was written.
    const written = JSON.parse(readFileSync(join(path, 'demo-main.template.json'), 'utf8'));
    expect([...objects.keys()]).toEqual([
      expect.stringMatching(/^starling\/demo\/demo-main-[0-9a-f]{64}\.template\.json$/),
    ]);
    expect(JSON.parse([...objects.values()][0] ?? '')).toEqual(written);
    const main = [...world.cloud.stacks.values()].find(({ name }) => name === 'demo-main');
    const edge = [...world.fake.cloud('us-east-1').stacks.values()][0];
    expect(main?.template).toEqual(written);
    expect(main?.parameters).toEqual({
      InstancesKeyPublicKey: key,
      ZoneId: edge?.resources.get('Zone')?.physicalId,
      FirewallArn: made[0]?.outputs.FirewallArn,
      ViewerCertificateArn: edge?.resources.get('ViewerCertificate')?.physicalId,
    });
    expect(made[0]?.outputs.FirewallArn).toContain('demo-edge-firewall');
    // Pausing the database for more than seven days takes the role that the template makes.
    expect(made[1]?.outputs.SchedulerRoleArn).toMatch(/demo-main-schedulerole$/);
    await pauseDeployment(await world.connect(), NAME);
    expect([...world.cloud.scheduleGroups.keys()]).toEqual(['default', 'starling-demo']);
    await resumeDeployment(await world.connect(), NAME);

    const before = JSON.stringify([world.cloud.snapshot(), world.fake.cloud('us-east-1').snapshot()]);
    const again = await deployStacks(await world.connect(), NAME, options(), async () =>
      expect.unreachable('nothing is to be confirmed'),
    );
    expect(again.map(({ isEmpty }) => isEmpty)).toEqual([true, true]);
    expect(await diffStacks(await world.connect(), NAME, options())).toMatchObject([
      { stack: 'demo-edge', isEmpty: true },
      { stack: 'demo-main', isEmpty: true },
    ]);
    expect(JSON.stringify([world.cloud.snapshot(), world.fake.cloud('us-east-1').snapshot()])).toBe(before);
    expect(objects.size).toBe(1);

    const destroyWith = async (how: { removeProtection: boolean; bucket?: string }) =>
      destroyStacks(await world.connect(), NAME, how, async () => true);
    await expect(destroyWith({ removeProtection: false })).rejects.toMatchObject({ code: 'STACK_PROTECTED' });
    await expect(destroyWith({ removeProtection: true })).rejects.toMatchObject({
      code: 'STACK_NEEDS_BUCKET',
    });
    const { stacks, kept } = await destroyWith({ removeProtection: true, bucket: BUCKET });
    expect(stacks).toEqual(['demo-main', 'demo-edge']);
    expect(kept.map(({ type }) => type).sort()).toEqual([
      'AWS::RDS::DBInstance',
      'AWS::S3::Bucket',
      'AWS::S3::Bucket',
    ]);
    expect(world.cloud.snapshot()).toMatchObject({ stacks: [], groups: [], databases: [] });
    expect(world.fake.cloud('us-east-1').snapshot()).toMatchObject({ stacks: [] });
  }, 60_000);

  it('what is put into a bucket is read back', async () => {
    const world = await open();
    world.fake.buckets.set(BUCKET, { region: REGION, objects: new Map() });
    const s3 = await (await world.connect()).s3();
    await s3.putObject({ Bucket: BUCKET, Key: 'a/b c.json', Body: '{"a":"ä"}' });
    const { Body } = await s3.getObject({ Bucket: BUCKET, Key: 'a/b c.json' });
    expect(await Body?.transformToString()).toBe('{"a":"ä"}');
    await expect(s3.getObject({ Bucket: BUCKET, Key: 'b' })).rejects.toThrow('does not exist');
  });
});

describe('destroy', () => {
  it('removes stack and schedules, and says what stays', async () => {
    const world = await open();
    await deploy(world, template('one.json', resources));
    await pauseDeployment(await world.connect(), NAME);
    expect(world.cloud.scheduleGroups.has('starling-demo')).toBe(true);
    const { kept } = await destroy(world);
    expect(kept).toEqual([
      { id: 'starling-demo-database', type: 'AWS::RDS::DBInstance', policy: 'Snapshot' },
      { id: 'starling-demo-recordings', type: 'AWS::S3::Bucket', policy: 'Retain' },
    ]);
    expect(world.cloud.snapshot()).toMatchObject({
      stacks: [],
      scheduleGroups: [{ name: 'default' }],
      groups: [],
      databases: [],
    });
  });

  it('interrupted at every call and run again ends in the same state', async () => {
    const before = await open();
    const Database = {
      ...resources.Database,
      Type: 'AWS::RDS::DBInstance',
      Properties: { DeletionProtection: true },
    };
    await deploy(before, template('one.json', { ...resources, Database }));
    for (const stack of before.cloud.stacks.values()) stack.isProtected = true;
    await interruptAtEveryCall(open, before, async (world) => {
      // What was done, but for the answer, is not found any more.
      const isGone = [...world.cloud.stacks.values()].every(({ status }) => status === 'DELETE_COMPLETE');
      if (isGone) await expect(destroy(world, true)).rejects.toMatchObject({ code: 'DEPLOYMENT_NOT_FOUND' });
      else await destroy(world, true);
    });
  }, 300_000);

  it('says what could not be removed, and asks before it begins', async () => {
    const world = await open();
    const full = {
      Logs: {
        Type: 'AWS::S3::Bucket',
        Properties: { CannotGo: 'The bucket you tried to delete is not empty' },
      },
    };
    await deploy(world, template('full.json', { ...resources, ...full }));
    const options = { removeProtection: false };
    await expect(
      destroyStacks(await world.connect(), NAME, options, async () => false),
    ).rejects.toMatchObject({
      code: 'NOT_CONFIRMED',
    });
    await expect(destroy(world)).rejects.toMatchObject({
      code: 'STACK_FAILED',
      message:
        'The stack starling-demo could not be removed: Logs (AWS::S3::Bucket): The bucket you tried to delete is not empty',
    });
  });
});
