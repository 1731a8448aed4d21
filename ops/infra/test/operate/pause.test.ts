/** Pause and resume against the fake AWS, through the SDK. */
import { afterEach, describe, expect, it } from 'vitest';
import { OperateError } from '../../src/operate/error.ts';
import { pauseDeployment, readState, resumeDeployment } from '../../src/operate/pause.ts';
import { RESTART_MS } from '../fake-aws/cloud.ts';
import { fullWorld, interruptAtEveryCall, NAME, strangersTouched, type World } from './world.ts';

const worlds: World[] = [];

async function open(): Promise<World> {
  const world = await fullWorld();
  worlds.push(world);
  return world;
}

afterEach(async () => {
  for (const { fake } of worlds.splice(0)) await fake.close();
});

const states = ({ cloud }: World) => ({
  instances: [...cloud.instances.values()]
    .filter(
      ({ tags }) => tags['starling:deployment'] === NAME && tags['aws:autoscaling:groupName'] === undefined,
    )
    .map(({ tags, state }) => `${tags['starling:role']} ${state}`),
  group: cloud.groups.get('demo-frontends'),
  service: cloud.services.get('demo/coordinator'),
  databases: [...cloud.databases.values()]
    .filter(({ tags, clusterId }) => tags['starling:deployment'] === NAME && clusterId === undefined)
    .map(({ id, state }) => `${id} ${state}`),
});

describe('pause', () => {
  it('reads lists to their end', async () => {
    const world = await open();
    world.cloud.pageSize = 1;
    expect((await pauseDeployment(await world.connect(), NAME)).condition).toBe('paused');
    expect(strangersTouched(world)).toEqual([]);
  });

  it('stops machines in order, groups and services by their size, databases by instance and by cluster', async () => {
    const world = await open();
    const state = await pauseDeployment(await world.connect(), NAME);
    expect(state.condition).toBe('paused');
    const now = states(world);
    expect(now.instances).toEqual([
      'bastion stopped',
      'balancer stopped',
      'backend stopped',
      'frontend stopped',
      'frontend stopped',
    ]);
    expect(now.group).toMatchObject({ min: 0, desired: 0, max: 5 });
    expect(now.group?.members.size).toBe(0);
    expect(now.group?.tags).toMatchObject({ 'starling:running-min': '1', 'starling:running-desired': '2' });
    expect(now.service).toMatchObject({ desired: 0, running: 0, tags: { 'starling:running-desired': '2' } });
    expect(now.databases).toEqual(['demo-db stopped', 'demo-aurora stopped']);
    const role = (id: unknown) => world.cloud.instances.get(String(id))?.tags['starling:role'];
    const order = world.fake.mutations.map(({ call, input }) => {
      const [id] = (input.InstanceIds as string[] | undefined) ?? [];
      return id === undefined ? call.split(':')[0] : role(id);
    });
    expect([...new Set(order)]).toEqual([
      'backend',
      'frontend',
      'autoscaling',
      'ecs',
      'balancer',
      'rds',
      'bastion',
      'scheduler',
    ]);
    expect(strangersTouched(world)).toEqual([]);
  });

  it('never stops a member of a group, which would be replaced', async () => {
    const world = await open();
    await pauseDeployment(await world.connect(), NAME);
    const stopped = world.fake.mutations.flatMap(({ call, input }) =>
      call === 'ec2:StopInstances' ? (input.InstanceIds as string[]) : [],
    );
    const members = stopped.filter((id) => world.cloud.instances.get(id)?.tags['aws:autoscaling:groupName']);
    expect(members).toEqual([]);
    world.fake.advance(24 * 3_600_000);
    expect(states(world).group?.members.size).toBe(0);
  });

  it('says what goes on costing, and what changes', async () => {
    const world = await open();
    const before = await readState(await world.connect(), NAME);
    expect(before.notes.join('\n')).toMatch(/has a public address, 203\.0\.113\.\d+, that it loses/);
    const { notes } = await pauseDeployment(await world.connect(), NAME);
    expect(notes.join('\n')).toContain('demo-cache goes on running, for about $12.41 a month');
    expect(notes.join('\n')).toContain('AWS would start demo-db, demo-aurora by itself after seven days');
  });

  it('is resumed, in the order turned round, to the sizes that there were', async () => {
    const world = await open();
    await pauseDeployment(await world.connect(), NAME);
    world.fake.calls.length = 0;
    const state = await resumeDeployment(await world.connect(), NAME);
    expect(state.condition).toBe('running');
    const now = states(world);
    expect(now.instances.every((one) => one.endsWith('running'))).toBe(true);
    expect(now.group).toMatchObject({ min: 1, desired: 2 });
    expect([...(now.group?.members.values() ?? [])]).toEqual(['InService', 'InService']);
    expect(now.service).toMatchObject({ desired: 2, running: 2 });
    expect(now.databases).toEqual(['demo-db available', 'demo-aurora available']);
    const roles = world.fake.mutations.flatMap(({ call, input }) =>
      call === 'ec2:StartInstances'
        ? [world.cloud.instances.get((input.InstanceIds as string[])[0] ?? '')?.tags['starling:role']]
        : [],
    );
    expect(roles).toEqual(['bastion', 'balancer', 'frontend', 'frontend', 'backend']);
    expect(strangersTouched(world)).toEqual([]);
  });

  it('changes nothing when it is done already', async () => {
    const world = await open();
    await resumeDeployment(await world.connect(), NAME);
    expect(world.fake.mutations).toEqual([]);
    await pauseDeployment(await world.connect(), NAME);
    world.fake.calls.length = 0;
    await pauseDeployment(await world.connect(), NAME);
    expect(world.fake.mutations).toEqual([]);
  });

  it('prints in a dry run the calls that it would make, and makes none', async () => {
    const world = await open();
    const before = JSON.stringify(world.cloud.snapshot());
    await pauseDeployment(await world.connect({ dryRun: true }), NAME);
    expect(world.fake.mutations).toEqual([]);
    expect(JSON.stringify(world.cloud.snapshot())).toBe(before);
    const dry = world.progress.flatMap((one) => (one.kind === 'call' ? [one.call] : []));
    await pauseDeployment(await world.connect(), NAME);
    expect(dry).toEqual(world.fake.mutations.map(({ call }) => call.split(':')[1]));
  });
});

describe('seven days later', () => {
  it('a paused database is stopped again within the hour', async () => {
    const world = await open();
    await pauseDeployment(await world.connect(), NAME);
    // AWS starts both; the hourly schedule stops them again.
    world.fake.advance(RESTART_MS + 2 * 3_600_000);
    expect(states(world).databases).toEqual(['demo-db stopped', 'demo-aurora stopped']);
    expect(world.cloud.databases.get('db demo-db')?.restartsAtMs).toBeGreaterThan(world.cloud.nowMs);
  });

  it('a resumed one is left running', async () => {
    const world = await open();
    await pauseDeployment(await world.connect(), NAME);
    await resumeDeployment(await world.connect(), NAME);
    world.fake.advance(2 * 24 * 3_600_000);
    expect(states(world).databases).toEqual(['demo-db available', 'demo-aurora available']);
  });

  it('without a role for schedules AWS starts it, status says so, and pause stops it again', async () => {
    const world = await open();
    world.cloud.stacks.clear();
    const { notes } = await pauseDeployment(await world.connect(), NAME);
    expect(notes.join('\n')).toContain('run `starling pause` again then');
    const { units } = await readState(await world.connect(), NAME);
    expect(units.find(({ id }) => id === 'demo-db')?.state).toMatch(
      /stopped; AWS would start it on 2026-11-09 12:\d\d UTC/,
    );
    world.fake.advance(RESTART_MS + 3_600_000);
    expect(states(world).databases).toEqual(['demo-db available', 'demo-aurora available']);
    expect((await readState(await world.connect(), NAME)).condition).toBe('mixed');
    await pauseDeployment(await world.connect(), NAME);
    expect(states(world).databases).toEqual(['demo-db stopped', 'demo-aurora stopped']);
  });
});

describe.each([
  ['pause', pauseDeployment, async () => {}],
  [
    'resume',
    resumeDeployment,
    async (world: World) => void (await pauseDeployment(await world.connect(), NAME)),
  ],
] as const)('%s, interrupted at every call', (_verb, operate, prepare) => {
  it('and run again ends in the same state', async () => {
    const before = await open();
    await prepare(before);
    const world = await interruptAtEveryCall(open, before, async (one) => operate(await one.connect(), NAME));
    expect(strangersTouched(world)).toEqual([]);
  }, 300_000);
});

describe('when AWS does not play along', () => {
  const messageOf = async (work: Promise<unknown>) => {
    const error = await work.then(
      () => expect.unreachable('it went through'),
      (reason: unknown) => reason,
    );
    if (!(error instanceof OperateError)) throw error;
    // One sentence for a person: one line, no stack, ends with a full stop or with AWS's own words.
    expect(error.message).not.toMatch(/\n| at .*:\d+:\d+/);
    return `${error.code} ${error.message}`;
  };

  it('a call that is throttled now and then is made again', async () => {
    const world = await open();
    for (const call of ['ec2:DescribeInstances', 'rds:StopDBInstance', 'tagging:GetResources'])
      world.fake.throttled.set(call, 1);
    const state = await pauseDeployment(await world.connect({ maxAttempts: 3 }), NAME);
    expect(state.condition).toBe('paused');
  });

  it.each([
    'ec2:DescribeInstances',
    'ec2:StopInstances',
    'autoscaling:UpdateAutoScalingGroup',
    'ecs:UpdateService',
    'rds:StopDBCluster',
    'tagging:GetResources',
    'scheduler:CreateSchedule',
    'elasticache:DescribeCacheClusters',
  ])('%s throttled for good, then not allowed: each is said in one sentence', async (call) => {
    const world = await open();
    world.fake.throttled.set(call, 1000);
    const name = `${call.split(':')[1]}`;
    const throttled = await messageOf(pauseDeployment(await world.connect(), NAME));
    expect(throttled).toMatch(
      new RegExp(`^AWS_THROTTLED AWS gets too many requests.*:${name} .*goes on from here\\.$`),
    );
    world.fake.throttled.clear();
    world.fake.denied.add(call);
    const denied = await messageOf(pauseDeployment(await world.connect(), NAME));
    expect(denied).toMatch(
      new RegExp(`^AWS_DENIED These AWS credentials may not call .*:${name} .*docs/deploy\\.md`),
    );
    world.fake.denied.clear();
    expect((await pauseDeployment(await world.connect(), NAME)).condition).toBe('paused');
  });

  it('what is gone, but still listed under the tag, is left out and said', async () => {
    const world = await open();
    const listed = { 'starling:deployment': NAME };
    for (const arn of [
      world.cloud.arn('rds', 'db:gone-db'),
      world.cloud.arn('rds', 'cluster:gone-aurora'),
      world.cloud.arn('ecs', 'service/demo/gone'),
      world.cloud.arn('ecs', 'service/gone-cluster/gone'),
      world.cloud.arn('elasticache', 'cluster:gone-cache'),
    ])
      world.cloud.staleArns.push({ arn, tags: listed });
    const backend = [...world.cloud.instances.values()].find(
      ({ tags }) => tags['starling:role'] === 'backend',
    );
    if (backend !== undefined) backend.state = 'terminated';
    const { condition, notes } = await pauseDeployment(await world.connect(), NAME);
    expect(condition).toBe('paused');
    for (const gone of [
      'db:gone-db',
      'cluster:gone-aurora',
      'service/demo/gone',
      'service/gone-cluster/gone',
    ])
      expect(notes).toContain(
        `${gone} is still listed under the tag, but does not exist any more: it is left out.`,
      );
    expect(notes).toContain(
      `The backend ${backend?.id} was terminated: \`starling infra deploy\` makes another.`,
    );
  });

  it('what the index lists but is tagged otherwise by now is left alone', async () => {
    const world = await open();
    const stranger = world.cloud.addDatabase('taken-away', { 'starling:deployment': 'demo2' });
    world.cloud.staleArns.push({
      arn: world.cloud.arn('rds', 'db:taken-away'),
      tags: { 'starling:deployment': NAME },
    });
    const { notes } = await pauseDeployment(await world.connect(), NAME);
    expect(stranger.state).toBe('available');
    expect(notes).toContain(
      'taken-away no longer carries the tag starling:deployment=demo: it is left alone.',
    );
  });

  it('a schedule group of the same name that is not ours is left alone', async () => {
    const world = await open();
    world.cloud.scheduleGroups.set('starling-demo', {
      name: 'starling-demo',
      tags: {},
      schedules: new Map(),
    });
    const message = await messageOf(pauseDeployment(await world.connect(), NAME));
    expect(message).toContain('DEPLOYMENT_NOT_OURS The schedule group starling-demo is not tagged');
    expect(world.cloud.scheduleGroups.get('starling-demo')?.schedules.size).toBe(0);
  });

  it('a broken database does not keep the rest from being paused', async () => {
    const world = await open();
    const database = world.cloud.databases.get('db demo-db');
    if (database !== undefined) database.state = 'storage-full';
    const message = await messageOf(pauseDeployment(await world.connect(), NAME));
    expect(message).toBe(
      'DEPLOYMENT_BROKEN All the rest is done, but this needs mending in the AWS console first: demo-db is storage-full.',
    );
    expect(states(world).instances.every((one) => one.endsWith('stopped'))).toBe(true);
  });

  it('a database that is being backed up is waited for', async () => {
    const world = await open();
    const database = world.cloud.databases.get('db demo-db');
    if (database === undefined) return expect.unreachable();
    database.state = 'backing-up';
    world.cloud.after(8 * 60_000, () => {
      database.state = 'available';
    });
    expect((await pauseDeployment(await world.connect(), NAME)).condition).toBe('paused');
    expect(database.state).toBe('stopped');
  });

  it('a group whose machines never get healthy ends at the deadline', async () => {
    const world = await open();
    await pauseDeployment(await world.connect(), NAME);
    const group = world.cloud.groups.get('demo-frontends');
    if (group !== undefined) group.isUnhealthy = true;
    const message = await messageOf(resumeDeployment(await world.connect(), NAME));
    expect(message).toBe(
      'DEADLINE After 15 minutes AWS is not there yet (demo-frontends: 0 of 2 in service (1 to 5)). Run the same command again: it goes on from here.',
    );
    // And what never comes up can be paused at once.
    expect((await pauseDeployment(await world.connect(), NAME)).condition).toBe('paused');
  });

  it('an interruption is noticed before the next call', async () => {
    const world = await open();
    const stop = new AbortController();
    const aws = await world.connect({ signal: stop.signal });
    const pausing = messageOf(pauseDeployment(aws, NAME));
    stop.abort();
    expect(await pausing).toContain('INTERRUPTED Stopped half-way.');
  });

  it('a name that nothing is tagged with is said to be wrong', async () => {
    const world = await open();
    expect(await messageOf(pauseDeployment(await world.connect(), 'dmeo'))).toBe(
      'DEPLOYMENT_NOT_FOUND Nothing in eu-west-1 is tagged starling:deployment=dmeo: check the name and the region.',
    );
    expect(await messageOf(pauseDeployment(await world.connect(), 'de mo'))).toContain('DEPLOYMENT_BAD_NAME');
    expect(world.fake.mutations).toEqual([]);
  });
});
