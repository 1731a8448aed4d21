/**
 * Debian's awscli, which nobody here wrote, sees in the fake AWS what our commands did, and its waiters agree. It also
 * judges the fake itself: it reads every answer by AWS's own descriptions.
 */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { makePeriod } from '../../src/operate/hours.ts';
import { pauseDeployment, resumeDeployment } from '../../src/operate/pause.ts';
import { setHours } from '../../src/operate/schedules.ts';
import { fullWorld, NAME, REGION, type World } from './world.ts';

let world: World;

beforeAll(async () => {
  world = await fullWorld();
});

afterAll(() => world.fake.close());

/** Not the first `aws` in the PATH, which may be another. */
async function aws(...args: string[]): Promise<unknown> {
  const { stdout } = await promisify(execFile)(
    '/usr/bin/aws',
    [...args, '--endpoint-url', world.fake.endpoint, '--region', REGION, '--output', 'json'],
    {
      env: {
        PATH: process.env.PATH,
        AWS_ACCESS_KEY_ID: 'AKIDEXAMPLE',
        AWS_SECRET_ACCESS_KEY: 'x',
        AWS_EC2_METADATA_DISABLED: 'true',
      },
      timeout: 110_000,
    },
  );
  return stdout.trim() === '' ? undefined : JSON.parse(stdout);
}

const ours = `Name=tag:starling:deployment,Values=${NAME}`;
const machines = async () =>
  (await aws(
    'ec2',
    'describe-instances',
    '--filters',
    ours,
    '--query',
    'Reservations[].Instances[].State.Name',
  )) as string[];
const group = () =>
  aws(
    'autoscaling',
    'describe-auto-scaling-groups',
    '--filters',
    ours,
    '--query',
    'AutoScalingGroups[].[MinSize,DesiredCapacity,MaxSize,length(Instances)]',
  );
const service = () =>
  aws(
    'ecs',
    'describe-services',
    '--cluster',
    'demo',
    '--services',
    'coordinator',
    '--query',
    'services[].[desiredCount,runningCount]',
  );
const databases = async () => [
  await aws(
    'rds',
    'describe-db-instances',
    '--db-instance-identifier',
    'demo-db',
    '--query',
    'DBInstances[0].DBInstanceStatus',
  ),
  await aws(
    'rds',
    'describe-db-clusters',
    '--db-cluster-identifier',
    'demo-aurora',
    '--query',
    'DBClusters[0].Status',
  ),
];
const ids = (role: string) =>
  [...world.cloud.instances.values()]
    .filter(({ tags }) => tags['starling:role'] === role && tags['starling:deployment'] === NAME)
    .filter(({ tags }) => tags['aws:autoscaling:groupName'] === undefined)
    .map(({ id }) => id);

describe('what awscli sees', () => {
  it('of a paused deployment, and its waiter', async () => {
    await pauseDeployment(await world.connect(), NAME);
    const [instances, sizes, tasks, states] = await Promise.all([
      machines(),
      group(),
      service(),
      databases(),
    ]);
    expect(instances.filter((state) => state === 'stopped')).toHaveLength(5);
    expect(instances.filter((state) => state !== 'stopped' && state !== 'terminated')).toEqual([]);
    expect(sizes).toEqual([[0, 0, 5, 0]]);
    expect(tasks).toEqual([[0, 0]]);
    expect(states).toEqual(['stopped', 'stopped']);
    await aws('ec2', 'wait', 'instance-stopped', '--instance-ids', ...ids('frontend'), ...ids('bastion'));
  }, 120_000);

  it('a second stop is refused as AWS refuses it, and so is less than the least', async () => {
    await expect(aws('rds', 'stop-db-instance', '--db-instance-identifier', 'demo-db')).rejects.toThrow(
      'An error occurred (InvalidDBInstanceState) when calling the StopDBInstance operation',
    );
    const stranger = [...world.cloud.groups.values()].find(({ min }) => min === 1)?.name ?? '';
    await expect(
      aws(
        'autoscaling',
        'update-auto-scaling-group',
        '--auto-scaling-group-name',
        stranger,
        '--desired-capacity',
        '0',
      ),
    ).rejects.toThrow('Desired capacity:0 must be between the specified min size:1 and max size:1');
  }, 120_000);

  it('of one that is resumed, and its waiters', async () => {
    await resumeDeployment(await world.connect(), NAME);
    const [instances, sizes, tasks, states] = await Promise.all([
      machines(),
      group(),
      service(),
      databases(),
    ]);
    expect(instances.filter((state) => state === 'running')).toHaveLength(7);
    expect(sizes).toEqual([[1, 2, 5, 2]]);
    expect(tasks).toEqual([[2, 2]]);
    expect(states).toEqual(['available', 'available']);
    await Promise.all([
      aws('ec2', 'wait', 'instance-running', '--instance-ids', ...ids('backend')),
      aws('ecs', 'wait', 'services-stable', '--cluster', 'demo', '--services', 'coordinator'),
      aws('rds', 'wait', 'db-instance-available', '--db-instance-identifier', 'demo-db'),
    ]);
  }, 120_000);

  it('of opening hours, of tags and of stacks', async () => {
    await setHours(
      await world.connect(),
      NAME,
      makePeriod('office', 'mon-fri', '09:00', '17:00', 'Europe/Dublin'),
    );
    const [schedules, tagged, stacks] = await Promise.all([
      aws('scheduler', 'list-schedules', '--group-name', 'starling-demo', '--query', 'Schedules[].Name'),
      aws(
        'resourcegroupstaggingapi',
        'get-resources',
        '--resource-type-filters',
        'rds:db',
        '--tag-filters',
        `Key=starling:deployment,Values=${NAME}`,
        '--query',
        'ResourceTagMappingList[].ResourceARN',
      ),
      aws('cloudformation', 'describe-stacks', '--query', 'Stacks[].Outputs[].OutputKey'),
    ]);
    expect(schedules).toHaveLength(18);
    expect(tagged).toEqual([
      world.cloud.arn('rds', 'db:demo-db'),
      world.cloud.arn('rds', 'db:demo-aurora-1'),
    ]);
    expect(stacks).toEqual(['SchedulerRoleArn']);
    const [bastion = ''] = ids('bastion');
    const found = [...(world.cloud.scheduleGroups.get('starling-demo')?.schedules.values() ?? [])].find(
      ({ name, input }) => name.startsWith('office.close.') && JSON.stringify(input).includes(bastion),
    );
    expect(
      await aws('scheduler', 'get-schedule', '--group-name', 'starling-demo', '--name', found?.name ?? ''),
    ).toMatchObject({
      ScheduleExpression: 'cron(5 17 ? * MON,TUE,WED,THU,FRI *)',
      ScheduleExpressionTimezone: 'Europe/Dublin',
      Target: {
        Arn: 'arn:aws:scheduler:::aws-sdk:ec2:stopInstances',
        Input: `{"InstanceIds":["${bastion}"]}`,
      },
    });
    await aws('cloudformation', 'wait', 'stack-create-complete', '--stack-name', 'starling-demo');
  }, 120_000);

  it('while a machine stops its waiter waits, until it has', async () => {
    const [backend = ''] = ids('backend');
    await aws('ec2', 'stop-instances', '--instance-ids', backend);
    const waiting = aws('ec2', 'wait', 'instance-stopped', '--instance-ids', backend).then(() => 'stopped');
    // It asks first while the machine is stopping, and again after 15 seconds.
    const asked = () =>
      world.fake.calls.filter(({ call, input }) => call === 'ec2:DescribeInstances' && input.InstanceIds)
        .length;
    const before = asked();
    while (asked() === before) await new Promise((resolve) => setTimeout(resolve, 50));
    expect(world.cloud.instances.get(backend)?.state).toBe('stopping');
    world.fake.advance(60_000);
    expect(await waiting).toBe('stopped');
  }, 120_000);
});
