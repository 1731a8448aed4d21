/** Opening hours kept by the fake's EventBridge Scheduler, which makes the calls; and scaling, which they follow. */
import { afterEach, describe, expect, it } from 'vitest';
import { makePeriod } from '../../src/operate/hours.ts';
import { pauseDeployment, readState, resumeDeployment } from '../../src/operate/pause.ts';
import { scaleDeployment } from '../../src/operate/scale.ts';
import {
  overrideHours,
  readSchedules,
  removeHours,
  setHours,
  syncSchedules,
} from '../../src/operate/schedules.ts';
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

const office = makePeriod('office', 'mon-fri', '09:00', '17:00', 'Europe/Dublin');

/** Lets time pass until then. The world begins on Monday, 2026-11-02, at 12:00 UTC, which is noon in Dublin. */
function goTo({ fake, cloud }: World, time: string): void {
  const ms = Date.parse(time) - cloud.nowMs;
  expect(ms).toBeGreaterThan(0);
  fake.advance(ms);
}

const condition = async (world: World) => (await readState(await world.connect(), NAME)).condition;

describe('opening hours', () => {
  it('pause and resume the deployment at their times, with nobody there', async () => {
    const world = await open();
    await setHours(await world.connect(), NAME, office);
    goTo(world, '2026-11-02T16:59:00Z');
    expect(await condition(world)).toBe('running');
    goTo(world, '2026-11-02T17:15:00Z');
    expect(await condition(world)).toBe('paused');
    goTo(world, '2026-11-03T08:59:00Z');
    expect(await condition(world)).toBe('paused');
    goTo(world, '2026-11-03T09:15:00Z');
    expect(await condition(world)).toBe('running');
    expect(world.cloud.groups.get('demo-frontends')).toMatchObject({ min: 1, desired: 2 });
    // Over the weekend, and with no day on which AWS would start the databases.
    goTo(world, '2026-11-08T12:00:00Z');
    expect(await condition(world)).toBe('paused');
  });

  it('follow summer time, in which 09:00 in Dublin is 08:00 UTC', async () => {
    const world = await open();
    // The clocks go forward on the night to Sunday, 28 March.
    world.cloud.startAt('2027-03-26T12:00:00Z');
    await setHours(await world.connect(), NAME, office);
    goTo(world, '2027-03-29T07:59:00Z');
    expect(await condition(world)).toBe('paused');
    goTo(world, '2027-03-29T08:15:00Z');
    expect(await condition(world)).toBe('running');
    expect(strangersTouched(world)).toEqual([]);
  });

  it('are kept in the order of pausing, a minute between stages', async () => {
    const world = await open();
    await setHours(await world.connect(), NAME, office);
    const schedules = [...(world.cloud.scheduleGroups.get('starling-demo')?.schedules.values() ?? [])];
    const times = (edge: string) =>
      schedules
        .filter(({ name }) => name.includes(`.${edge}.`))
        .map(
          ({ input }) =>
            `${String(input.ScheduleExpression).slice(5, 9)} ${String(input.Description).slice(10)}`,
        )
        .sort();
    expect(times('close').map((line) => line.replace(/ i-\w+/, ''))).toEqual([
      '0 17 pause instance',
      '1 17 pause group demo-frontends',
      '1 17 pause instance',
      '1 17 pause instance',
      '2 17 pause service demo/coordinator',
      '3 17 pause instance',
      '4 17 pause database demo-db',
      '4 17 pause database-cluster demo-aurora',
      '5 17 pause instance',
    ]);
    expect(times('open')[0]).toContain('resume instance i-0000000000000000'); // the bastion
    expect(times('open').at(-1)).toMatch(/^5 9 .*resume instance/);
  });

  it('are set again without a change when nothing changed, and are moved when they did', async () => {
    const world = await open();
    await setHours(await world.connect(), NAME, office);
    world.fake.calls.length = 0;
    await syncSchedules(await world.connect(), NAME);
    expect(world.fake.mutations).toEqual([]);
    await setHours(
      await world.connect(),
      NAME,
      makePeriod('office', 'mon-fri', '09:00', '18:00', 'Europe/Dublin'),
    );
    const calls = new Set(world.fake.mutations.map(({ call }) => call));
    expect([...calls].sort()).toEqual(['scheduler:TagResource', 'scheduler:UpdateSchedule']);
    goTo(world, '2026-11-02T17:30:00Z');
    expect(await condition(world)).toBe('running');
  });

  it('interrupted at every call and set again are the same', async () => {
    await interruptAtEveryCall(open, await open(), async (world) =>
      setHours(await world.connect(), NAME, office),
    );
  }, 300_000);

  it('an override holds what is, and hands back at its end', async () => {
    const world = await open();
    await setHours(await world.connect(), NAME, office);
    const { overrideUntil } = await overrideHours(await world.connect(), NAME, '22:00');
    expect(overrideUntil?.toString()).toBe('2026-11-02T22:00:00Z');
    goTo(world, '2026-11-02T21:59:00Z');
    expect(await condition(world)).toBe('running');
    // Closed at that time of the day: it is paused then, and not only at the next closing.
    goTo(world, '2026-11-02T22:20:00Z');
    expect(await condition(world)).toBe('paused');
    goTo(world, '2026-11-03T09:20:00Z');
    expect(await condition(world)).toBe('running');
    expect((await readSchedules(await world.connect(), NAME)).overrideUntil).toBeUndefined();
  });

  it('over a holiday of two weeks nothing starts, no database either', async () => {
    const world = await open();
    await setHours(await world.connect(), NAME, office);
    await overrideHours(await world.connect(), NAME, '2026-11-17T09:30');
    await pauseDeployment(await world.connect(), NAME);
    goTo(world, '2026-11-16T23:00:00Z');
    expect(await condition(world)).toBe('paused');
    const { notes } = await readState(await world.connect(), NAME);
    expect(notes).toContain('The opening hours are overridden until 2026-11-17T09:30:00Z.');
    goTo(world, '2026-11-17T10:00:00Z');
    expect(await condition(world)).toBe('running');
    goTo(world, '2026-11-17T12:00:00Z');
    expect(await condition(world)).toBe('running');
  });

  it('an override that is ended leaves the hours as they were', async () => {
    const world = await open();
    await setHours(await world.connect(), NAME, office);
    const before = JSON.stringify(world.cloud.snapshot());
    await overrideHours(await world.connect(), NAME, '22:00');
    expect(JSON.stringify(world.cloud.snapshot())).not.toBe(before);
    await overrideHours(await world.connect(), NAME, undefined);
    expect(JSON.stringify(world.cloud.snapshot())).toBe(before);
  });

  it('are removed one by one, and then nothing happens any more', async () => {
    const world = await open();
    await setHours(await world.connect(), NAME, office);
    await setHours(await world.connect(), NAME, makePeriod('sale', 'sat', '10:00', '14:00', 'Europe/Dublin'));
    expect((await readSchedules(await world.connect(), NAME)).periods.map(({ name }) => name)).toEqual([
      'office',
      'sale',
    ]);
    await removeHours(await world.connect(), NAME, 'sale');
    await removeHours(await world.connect(), NAME, 'office');
    await expect(removeHours(await world.connect(), NAME, 'office')).rejects.toMatchObject({
      code: 'SCHEDULE_NOT_FOUND',
    });
    expect(world.cloud.scheduleGroups.get('starling-demo')?.schedules.size).toBe(0);
    goTo(world, '2026-11-05T03:00:00Z');
    expect(await condition(world)).toBe('running');
  });

  it('removed while it is closed, databases stay stopped for good', async () => {
    const world = await open();
    await setHours(await world.connect(), NAME, office);
    goTo(world, '2026-11-02T20:00:00Z');
    await removeHours(await world.connect(), NAME, 'office');
    goTo(world, '2026-11-20T20:00:00Z');
    expect(await condition(world)).toBe('paused');
    // What the schedules paused is resumed to the sizes that there were.
    expect((await resumeDeployment(await world.connect(), NAME)).condition).toBe('running');
    expect(world.cloud.groups.get('demo-frontends')).toMatchObject({ min: 1, desired: 2 });
  });

  it('are refused beside those of the deployment file', async () => {
    const world = await open();
    const aws = await world.connect();
    await aws.scheduler.createSchedule({
      Name: `${NAME}-pause-Machine`,
      ScheduleExpression: 'cron(0 17 ? * * *)',
      FlexibleTimeWindow: { Mode: 'OFF' },
      Target: {
        Arn: 'arn:aws:scheduler:::aws-sdk:ec2:stopInstances',
        Input: '{}',
        RoleArn: 'arn:aws:iam::123456789012:role/schedule',
      },
    });
    await expect(setHours(aws, NAME, office)).rejects.toMatchObject({
      code: 'SCHEDULE_IN_FILE',
      message: expect.stringContaining('starling infra deploy'),
    });
    expect((await readSchedules(aws, NAME)).periods).toEqual([]);
  });

  it('need a role, and say where it comes from', async () => {
    const world = await open();
    world.cloud.stacks.clear();
    await expect(setHours(await world.connect(), NAME, office)).rejects.toMatchObject({
      code: 'SCHEDULE_NO_ROLE',
      message: expect.stringContaining('output SchedulerRoleArn'),
    });
    expect(world.fake.mutations).toEqual([]);
  });

  it('status says when they do not fit any more, and sync mends it', async () => {
    const world = await open();
    await setHours(await world.connect(), NAME, office);
    const stale = 'The schedules do not fit what is deployed any more: run `starling schedule sync`.';
    expect((await readState(await world.connect(), NAME)).notes).not.toContain(stale);
    world.cloud.addInstance({ 'starling:deployment': NAME, 'starling:role': 'frontend' });
    expect((await readState(await world.connect(), NAME)).notes).toContain(stale);
    await syncSchedules(await world.connect(), NAME);
    expect((await readState(await world.connect(), NAME)).notes).not.toContain(stale);
  });
});

describe('scale', () => {
  const counts = (entries: Record<string, number>) => new Map(Object.entries(entries));

  it('sets a group and a service, and the opening hours follow', async () => {
    const world = await open();
    await setHours(await world.connect(), NAME, office);
    const done = await scaleDeployment(
      await world.connect(),
      NAME,
      counts({ 'demo-frontends': 4, coordinator: 3 }),
    );
    expect(done[0]).toBe('demo-frontends: at least 4 from now on, and up to 5 under load.');
    expect(world.cloud.groups.get('demo-frontends')).toMatchObject({ min: 4, desired: 4 });
    expect(world.cloud.services.get('demo/coordinator')).toMatchObject({ desired: 3 });
    goTo(world, '2026-11-03T03:00:00Z');
    expect(world.cloud.groups.get('demo-frontends')).toMatchObject({ min: 0, desired: 0 });
    goTo(world, '2026-11-03T09:30:00Z');
    expect(world.cloud.groups.get('demo-frontends')).toMatchObject({ min: 4, desired: 4 });
    expect(world.cloud.services.get('demo/coordinator')).toMatchObject({ desired: 3, running: 3 });
    expect(strangersTouched(world)).toEqual([]);
  });

  it('of what is paused takes effect when it is resumed', async () => {
    const world = await open();
    await pauseDeployment(await world.connect(), NAME);
    const done = await scaleDeployment(await world.connect(), NAME, counts({ 'demo-frontends': 3 }));
    expect(done).toEqual(['demo-frontends is paused; it will be 3 when it is resumed.']);
    expect(world.cloud.groups.get('demo-frontends')?.desired).toBe(0);
    await resumeDeployment(await world.connect(), NAME);
    expect(world.cloud.groups.get('demo-frontends')?.desired).toBe(3);
  });

  it('refuses more than the group allows, what is no group, and what is not there, before anything is changed', async () => {
    const world = await open();
    const scale = async (entries: Record<string, number>) =>
      scaleDeployment(await world.connect(), NAME, counts(entries));
    await expect(scale({ 'demo-frontends': 6 })).rejects.toMatchObject({
      code: 'SCALE_LIMIT',
      message:
        'demo-frontends may have at most 5 machines: raise that in the deployment file and deploy again.',
    });
    await expect(scale({ coordinator: 4, backend: 2 })).rejects.toMatchObject({
      code: 'SCALE_FIXED',
      message: expect.stringContaining('change its number in deploy.yaml'),
    });
    await expect(scale({ relay: 2 })).rejects.toThrow(
      'The role relay is no group and no service of this deployment.',
    );
    expect(world.fake.mutations).toEqual([]);
  });

  it('interrupted at every call and run again is the same', async () => {
    const before = await open();
    await setHours(await before.connect(), NAME, office);
    await interruptAtEveryCall(open, before, async (world) =>
      scaleDeployment(await world.connect(), NAME, counts({ 'demo-frontends': 4 })),
    );
  }, 300_000);
});
