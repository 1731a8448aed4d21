/** A deployment in the fake AWS, strangers beside it, and connections to it. */
import { expect } from 'vitest';
import { type Aws, openAws, type Progress } from '../../src/operate/aws.ts';
import type { Cloud, Tags } from '../fake-aws/cloud.ts';
import { FakeAws } from '../fake-aws/server.ts';

export const NAME = 'demo';
export const REGION = 'eu-west-1';
export const ROLE_ARN = 'arn:aws:iam::123456789012:role/demo-scheduler';

const tags = (role: string): Tags => ({ 'starling:deployment': NAME, 'starling:role': role });

export interface World {
  readonly fake: FakeAws;
  readonly cloud: Cloud;
  /** What was reported, over all connections. */
  readonly progress: Progress[];
  connect(options?: {
    dryRun?: boolean;
    maxAttempts?: number;
    signal?: AbortSignal;
    region?: string;
  }): Promise<Aws>;
}

/** An empty account. */
export async function emptyWorld(): Promise<World> {
  const fake = await FakeAws.start();
  const progress: Progress[] = [];
  return {
    fake,
    cloud: fake.cloud(REGION),
    progress,
    connect: ({ dryRun, maxAttempts = 1, signal = new AbortController().signal, region = REGION } = {}) =>
      openAws({
        region,
        dryRun,
        signal,
        report: (one) => progress.push(one),
        clock: {
          nowMs: () => fake.cloud(REGION).nowMs,
          // In longer steps than asked for: fewer calls.
          sleep: async (ms) => fake.advance(Math.max(ms, 100_000)),
        },
        client: {
          endpoint: fake.endpoint,
          credentials: { accessKeyId: 'AKIDEXAMPLE', secretAccessKey: 'of-the-fake' },
          maxAttempts,
        },
      }),
  };
}

/** One of every kind; and of each kind one that is somebody else's, and one that is nobody's. */
export async function fullWorld(): Promise<World> {
  const world = await emptyWorld();
  const { cloud } = world;
  cloud.addInstance(tags('bastion'), { ip: 'elastic' });
  cloud.addInstance(tags('balancer'), { ip: 'lent' });
  cloud.addInstance(tags('backend'));
  cloud.addInstance(tags('frontend'));
  cloud.addInstance(tags('frontend'));
  cloud.addGroup('demo-frontends', tags('frontend'), { min: 1, desired: 2, max: 5 });
  cloud.addService('demo', 'coordinator', tags('coordinator'), 2);
  cloud.addDatabase('demo-db', tags('database'));
  cloud.addDatabase('demo-aurora', tags('database'), { kind: 'cluster' });
  cloud.addDatabase('demo-aurora-1', tags('database'), { clusterId: 'demo-aurora' });
  cloud.addCache('demo-cache', tags('cache'), 'cache.t4g.micro');
  for (const strange of [{ 'starling:deployment': 'demo2', 'starling:role': 'frontend' }, { Name: 'demo' }]) {
    cloud.addInstance(strange as unknown as Tags, { ip: 'lent' });
    cloud.addGroup(`stranger-${cloud.next()}`, strange as unknown as Tags, { min: 1, desired: 1, max: 1 });
    cloud.addService('shared', `stranger-${cloud.next()}`, strange as unknown as Tags, 1);
    cloud.addDatabase(`stranger-${cloud.next()}`, strange as unknown as Tags);
  }
  addRoleStack(cloud);
  return world;
}

/** The stack whose output says with which role the Scheduler acts. */
export function addRoleStack(cloud: Cloud): void {
  cloud.stacks.set('role', {
    id: cloud.arn('cloudformation', 'stack/starling-demo/0'),
    name: 'starling-demo',
    createdMs: cloud.nowMs,
    tags: { 'starling:deployment': NAME },
    status: 'CREATE_COMPLETE',
    template: { Resources: {}, Outputs: { SchedulerRoleArn: { Value: ROLE_ARN } } },
    parameters: {},
    isProtected: false,
    resources: new Map(),
    changeSets: new Map(),
    events: [],
  });
}

/** Everything that is named in a call that changes something, and is not the deployment's. */
export function strangersTouched({ fake, cloud }: World): string[] {
  const strange = [
    ...[...cloud.instances.values()].map(({ id, tags }) => ({ id, tags })),
    ...[...cloud.groups.values()].map(({ name: id, tags }) => ({ id, tags })),
    ...[...cloud.services.values()].map(({ name: id, tags }) => ({ id, tags })),
    ...[...cloud.databases.values()],
  ].filter((one) => one.tags['starling:deployment'] !== NAME);
  const text = JSON.stringify(fake.mutations);
  return strange.map(({ id }) => id).filter((id) => text.includes(id));
}

/**
 * Kills the client at every call, before the call has its effect and after, runs the work again, and expects what the
 * work does undisturbed.
 * @param before as it is when the work begins
 * @returns where it was interrupted, with all its calls
 */
export async function interruptAtEveryCall(
  open: () => Promise<World>,
  before: World,
  work: (world: World) => Promise<unknown>,
): Promise<World> {
  const reference = await open();
  reference.cloud.copy(before.cloud);
  await work(reference);
  const wanted = JSON.stringify(reference.cloud.snapshot());
  const world = await open();
  for (const [atCall, { call }] of reference.fake.calls.entries()) {
    // A read has no effect.
    for (const isDone of /:(Describe|Get|List)/.test(call) ? [false] : [false, true]) {
      world.fake.advance(300_000); // ends what the last turn left under way
      world.cloud.copy(before.cloud);
      world.fake.calls.length = 0;
      world.fake.cut = { atCall, isDone };
      await expect(work(world)).rejects.toMatchObject({ code: 'AWS_UNREACHABLE' });
      world.fake.cut = undefined;
      await work(world);
      expect(JSON.stringify(world.cloud.snapshot()), `cut at call ${atCall}, ${call}`).toBe(wanted);
    }
  }
  return world;
}
