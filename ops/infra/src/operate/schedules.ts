/**
 * What happens to a deployment by itself, as schedules of EventBridge Scheduler, which calls AWS in our place, in a
 * time zone, and needs no machine of ours:
 *
 * - opening hours: for each unit one schedule that resumes it and one that pauses it, a minute between stages;
 * - an override: until then none of them acts; at its end one schedule per unit does, once, what the hours ask for;
 * - while a database is paused, one schedule that stops it every hour. AWS starts a stopped database after seven days,
 *   and asks nobody; this one finds it running within the hour. Of a database that is stopped, the call is refused.
 *
 * All are in the group `starling-NAME`. What the operator wants is in the tags of the group; the schedules follow from
 * the tags and the units, and every command that changes either puts them right. So what an interruption left half
 * done, the next run ends.
 */
import { createHash } from 'node:crypto';
import type { GetScheduleOutput, Target } from '@aws-sdk/client-scheduler';
import { Temporal } from 'temporal-polyfill';
import { type Aws, isMissing } from './aws.ts';
import { OperateError } from './error.ts';
import {
  checkPeriods,
  cronOf,
  describePeriod,
  isOpenAt,
  type Period,
  parseUntil,
  periodFromTag,
  periodToTag,
} from './hours.ts';
import {
  DEPLOYMENT_TAG,
  type Deployment,
  readDeployment,
  type ScheduledCall,
  stagesOf,
  type Unit,
} from './units.ts';

const HOURS_TAG = 'starling:hours:';
const OVERRIDE_TAG = 'starling:override-until';
/** Output of the deployment's stack: the role with which EventBridge Scheduler starts and stops things. */
export const SCHEDULER_ROLE_OUTPUT = 'SchedulerRoleArn';

/** What the operator asked for. */
export interface Schedules {
  /** By name. */
  readonly periods: readonly Period[];
  /** In the future. */
  readonly overrideUntil: Temporal.Instant | undefined;
}

interface Group extends Schedules {
  readonly arn: string;
  /** Names of the schedules that there are. */
  readonly names: ReadonlySet<string>;
}

/**
 * Adds opening hours, or changes those of that name.
 * @throws OperateError SCHEDULE_BAD, SCHEDULE_IN_FILE, SCHEDULE_NO_ROLE
 */
export async function setHours(aws: Aws, name: string, period: Period): Promise<Schedules> {
  const deployment = await readDeployment(aws, name);
  await refuseBesideFile(aws, name);
  const group = await readGroup(aws, name);
  const others = (group?.periods ?? []).filter((one) => one.name !== period.name);
  const periods = [...others, period].sort((a, b) => (a.name < b.name ? -1 : 1));
  checkPeriods(periods);
  const tag = { Key: HOURS_TAG + period.name, Value: periodToTag(period) };
  return reconcile(aws, deployment, { periods, overrideUntil: group?.overrideUntil }, { tag });
}

/** @throws OperateError SCHEDULE_NOT_FOUND */
export async function removeHours(aws: Aws, name: string, periodName: string): Promise<Schedules> {
  const deployment = await readDeployment(aws, name);
  const group = await readGroup(aws, name);
  const periods = (group?.periods ?? []).filter((one) => one.name !== periodName);
  if (group === undefined || periods.length === group.periods.length) throw noHours(name, periodName);
  // Without hours there is nothing to override.
  const TagKeys = [HOURS_TAG + periodName, ...(periods.length === 0 ? [OVERRIDE_TAG] : [])];
  const overrideUntil = periods.length === 0 ? undefined : group.overrideUntil;
  // The tag goes last: it is what a second run would find.
  const schedules = await reconcile(aws, deployment, { periods, overrideUntil });
  await aws.scheduler.untagResource({ ResourceArn: group.arn, TagKeys });
  return schedules;
}

/**
 * Lets things stay as they are until then; undefined ends that.
 * @param untilText see {@link parseUntil}
 * @throws OperateError SCHEDULE_NOT_FOUND, SCHEDULE_BAD
 */
export async function overrideHours(
  aws: Aws,
  name: string,
  untilText: string | undefined,
): Promise<Schedules> {
  const deployment = await readDeployment(aws, name);
  const group = await readGroup(aws, name);
  const [first] = group?.periods ?? [];
  if (group === undefined || first === undefined) throw noHours(name);
  const { periods } = group;
  if (untilText === undefined) {
    const schedules = await reconcile(aws, deployment, { periods, overrideUntil: undefined });
    await aws.scheduler.untagResource({ ResourceArn: group.arn, TagKeys: [OVERRIDE_TAG] });
    return schedules;
  }
  // Whole minutes: one-time schedules have no finer.
  const overrideUntil = parseUntil(untilText, first.zone, nowOf(aws)).round({ smallestUnit: 'minute' });
  const tag = { Key: OVERRIDE_TAG, Value: overrideUntil.toString() };
  return reconcile(aws, deployment, { periods, overrideUntil }, { tag });
}

/** Puts the schedules right after units came, went, or changed their size. */
export async function syncSchedules(aws: Aws, name: string): Promise<Schedules> {
  const group = await readGroup(aws, name);
  if (group === undefined) return { periods: [], overrideUntil: undefined };
  return reconcile(aws, await readDeployment(aws, name), group);
}

/** @throws OperateError DEPLOYMENT_NOT_OURS */
export async function readSchedules(aws: Aws, name: string): Promise<Schedules> {
  return (await readGroup(aws, name)) ?? { periods: [], overrideUntil: undefined };
}

/** A sentence each. */
export async function describeSchedules(aws: Aws, deployment: Deployment): Promise<string[]> {
  const group = await readGroup(aws, deployment.name);
  if (group === undefined) return [];
  const notes = group.periods.map((period) => `Opening hours "${period.name}": ${describePeriod(period)}.`);
  if (group.overrideUntil !== undefined)
    notes.push(`The opening hours are overridden until ${group.overrideUntil.toString()}.`);
  const wanted = wantedSchedules(deployment, group, keptStopped(deployment, group), '');
  if (wanted.size !== group.names.size || [...wanted.keys()].some((name) => !group.names.has(name))) {
    notes.push('The schedules do not fit what is deployed any more: run `starling schedule sync`.');
  }
  return notes;
}

/**
 * Sees to it that paused databases stay so.
 * @returns what the operator should know, a sentence each
 */
export async function keepDatabasesStopped(aws: Aws, deployment: Deployment): Promise<string[]> {
  const databases = deployment.units.filter(isDatabase);
  if (databases.length === 0) return [];
  const group = await readGroup(aws, deployment.name);
  const schedules = group ?? { periods: [], overrideUntil: undefined };
  const list = databases.map((unit) => unit.id).join(', ');
  if (schedules.periods.length > 0 && schedules.overrideUntil === undefined)
    return [`The opening hours go on: at the next opening ${deployment.name} is resumed.`];
  try {
    await reconcile(aws, deployment, schedules, { keepStopped: true });
  } catch (error) {
    if (!(error instanceof OperateError) || error.code !== 'SCHEDULE_NO_ROLE') throw error;
    return [
      `AWS starts ${list} by itself after seven days, and no role is there with which a schedule could stop it again: run \`starling pause\` again then.`,
    ];
  }
  return [`AWS would start ${list} by itself after seven days: a schedule stops it again within the hour.`];
}

/** Ends {@link keepDatabasesStopped}. */
export async function letDatabasesRun(aws: Aws, deployment: Deployment): Promise<void> {
  if (!deployment.units.some(isDatabase)) return;
  const group = await readGroup(aws, deployment.name);
  if (group === undefined) return;
  for (const name of group.names)
    if (name.startsWith(KEEP_STOPPED)) await deleteSchedule(aws, deployment.name, name);
}

/** All of them. */
export async function removeSchedules(aws: Aws, name: string): Promise<void> {
  const group = await readGroup(aws, name);
  if (group !== undefined)
    await aws.scheduler.deleteScheduleGroup({ Name: groupName(name) }).catch(ignoreMissing);
}

// ---------------------------------------------------------------------------------------------------------------------

const KEEP_STOPPED = 'keep-stopped.';
const groupName = (name: string) => `starling-${name}`;
const nowOf = (aws: Aws) => Temporal.Instant.fromEpochMilliseconds(aws.clock.nowMs());
const isDatabase = (unit: Unit) => unit.kind === 'database' || unit.kind === 'database-cluster';

function noHours(name: string, period?: string): OperateError {
  const what = period === undefined ? 'no opening hours' : `no opening hours "${period}"`;
  return new OperateError(
    'SCHEDULE_NOT_FOUND',
    `${name} has ${what}: \`starling schedule ls\` lists them, \`starling schedule set\` adds some.`,
  );
}

function ignoreMissing(error: unknown): undefined {
  if (!isMissing(error)) throw error;
}

/** @throws OperateError DEPLOYMENT_NOT_OURS */
async function readGroup(aws: Aws, name: string): Promise<Group | undefined> {
  const GroupName = groupName(name);
  const group = await aws.scheduler.getScheduleGroup({ Name: GroupName }).catch(ignoreMissing);
  if (group?.Arn === undefined || group.State === 'DELETING') return undefined;
  const { Tags = [] } = await aws.scheduler.listTagsForResource({ ResourceArn: group.Arn });
  const tags = new Map(Tags.map(({ Key, Value }) => [Key ?? '', Value ?? '']));
  if (tags.get(DEPLOYMENT_TAG) !== name) {
    throw new OperateError(
      'DEPLOYMENT_NOT_OURS',
      `The schedule group ${GroupName} is not tagged ${DEPLOYMENT_TAG}=${name}: it is left alone. Rename it, or tag it, if it is this deployment's.`,
    );
  }
  const periods = [...tags]
    .filter(([key]) => key.startsWith(HOURS_TAG))
    .map(([key, value]) => periodFromTag(key.slice(HOURS_TAG.length), value))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
  const until = tags.get(OVERRIDE_TAG);
  const overrideUntil = until === undefined ? undefined : Temporal.Instant.from(until);
  const names = new Set<string>();
  let token: string | undefined;
  do {
    const page = await aws.scheduler.listSchedules({ GroupName, ...(token ? { NextToken: token } : {}) });
    for (const { Name } of page.Schedules ?? []) if (Name !== undefined) names.add(Name);
    token = page.NextToken;
  } while (token);
  const isOver = overrideUntil !== undefined && Temporal.Instant.compare(overrideUntil, nowOf(aws)) <= 0;
  return { arn: group.Arn, periods, overrideUntil: isOver ? undefined : overrideUntil, names };
}

/**
 * The `schedule` of a deployment file is made of schedules of its own, by CloudFormation (`drawSchedules` of the profiles).
 * @throws OperateError SCHEDULE_IN_FILE
 */
async function refuseBesideFile(aws: Aws, name: string): Promise<void> {
  const { Schedules = [] } = await aws.scheduler.listSchedules({
    GroupName: 'default',
    NamePrefix: `${name}-pause-`,
  });
  if (Schedules.length === 0) return;
  throw new OperateError(
    'SCHEDULE_IN_FILE',
    `${name} has opening hours from its deployment file. Change its \`schedule\` and run \`starling infra deploy\`, or take it out and deploy, and set them here.`,
  );
}

/** Whether databases are to be kept stopped: as it was, or as it looks. */
function keptStopped(deployment: Deployment, group: Group | undefined): boolean {
  const databases = deployment.units.filter(isDatabase);
  const isKept = [...(group?.names ?? [])].some((name) => name.startsWith(KEEP_STOPPED));
  return isKept || (databases.length > 0 && databases.every((unit) => unit.condition === 'paused'));
}

/**
 * Makes the schedules what they are to be, and touches none that is so already.
 * @param how `tag`: what the operator asked for, written down before it is done
 */
async function reconcile(
  aws: Aws,
  deployment: Deployment,
  schedules: Schedules,
  how: { readonly keepStopped?: boolean; readonly tag?: { Key: string; Value: string } } = {},
): Promise<Schedules> {
  const { name } = deployment;
  const before = await readGroup(aws, name);
  const isKept = how.keepStopped ?? keptStopped(deployment, before);
  const needsRole = wantedSchedules(deployment, schedules, isKept, '').size > 0;
  const role = needsRole ? await requireRole(aws, name) : '';
  const wanted = wantedSchedules(deployment, schedules, isKept, role);
  // A schedule pauses groups and services without noting their size.
  if (schedules.periods.length > 0) for (const unit of deployment.units) await unit.remember?.();
  const tags = how.tag === undefined ? [] : [how.tag];
  if (before !== undefined && how.tag !== undefined) {
    await aws.scheduler.tagResource({ ResourceArn: before.arn, Tags: tags });
  } else if (before === undefined && wanted.size > 0) {
    await aws.scheduler.createScheduleGroup({
      Name: groupName(name),
      Tags: [{ Key: DEPLOYMENT_TAG, Value: name }, ...tags],
    });
  }
  for (const [key, schedule] of wanted) {
    const input = { Name: key, GroupName: groupName(name), ...schedule };
    if (!before?.names.has(key)) {
      await aws.scheduler.createSchedule(input);
      continue;
    }
    const current = await aws.scheduler.getSchedule({ Name: key, GroupName: groupName(name) });
    if (!isSame(current, schedule)) await aws.scheduler.updateSchedule(input);
  }
  for (const key of before?.names ?? []) if (!wanted.has(key)) await deleteSchedule(aws, name, key);
  return { periods: schedules.periods, overrideUntil: schedules.overrideUntil };
}

async function deleteSchedule(aws: Aws, name: string, key: string): Promise<void> {
  await aws.scheduler.deleteSchedule({ Name: key, GroupName: groupName(name) }).catch(ignoreMissing);
}

interface Schedule {
  readonly Description: string;
  readonly ScheduleExpression: string;
  readonly ScheduleExpressionTimezone: string;
  readonly StartDate?: Date;
  readonly EndDate?: Date;
  readonly FlexibleTimeWindow: { readonly Mode: 'OFF' };
  readonly ActionAfterCompletion: 'NONE' | 'DELETE';
  readonly Target: Target;
}

/** By name. The names say what for; a hash says which unit, as ids may be longer than a name. */
function wantedSchedules(
  deployment: Deployment,
  { periods, overrideUntil }: Schedules,
  keepStopped: boolean,
  roleArn: string,
): Map<string, Schedule> {
  const wanted = new Map<string, Schedule>();
  const add = (
    prefix: string,
    unit: Unit,
    verb: 'pause' | 'resume',
    when: Pick<Schedule, 'ScheduleExpression' | 'ScheduleExpressionTimezone' | 'StartDate' | 'EndDate'>,
    retries: number,
  ) => {
    const call: ScheduledCall | undefined = unit.scheduled?.[verb];
    if (call === undefined) return;
    const hash = createHash('sha256').update(`${unit.kind} ${unit.id}`).digest('hex').slice(0, 10);
    const isOnce = when.ScheduleExpression.startsWith('at(') || when.EndDate !== undefined;
    wanted.set(`${prefix}${hash}`, {
      ...when,
      Description: `Starling: ${verb} ${unit.kind} ${unit.id}`.slice(0, 512),
      FlexibleTimeWindow: { Mode: 'OFF' },
      ActionAfterCompletion: isOnce ? 'DELETE' : 'NONE',
      Target: {
        Arn: call.arn,
        Input: JSON.stringify(call.input),
        RoleArn: roleArn,
        // A database that is just being backed up refuses; half an hour later it does not.
        RetryPolicy: { MaximumRetryAttempts: retries, MaximumEventAgeInSeconds: 3600 },
      },
    });
  };
  const stages = stagesOf(deployment.units);
  const until = overrideUntil && new Date(overrideUntil.epochMilliseconds);
  for (const period of periods) {
    const when = (edge: 'open' | 'close', delayMinutes: number) => ({
      ScheduleExpression: cronOf(period, edge, delayMinutes),
      ScheduleExpressionTimezone: period.zone,
      ...(until === undefined ? {} : { StartDate: until }),
    });
    stages.forEach((stage, index) => {
      for (const unit of stage) {
        add(`${period.name}.open.`, unit, 'resume', when('open', stages.length - 1 - index), 20);
        add(`${period.name}.close.`, unit, 'pause', when('close', index), 20);
      }
    });
  }
  if (overrideUntil !== undefined && periods.length > 0) {
    const verb = isOpenAt(periods, overrideUntil) ? 'resume' : 'pause';
    stages.forEach((stage, index) => {
      const delayMinutes = verb === 'pause' ? index : stages.length - 1 - index;
      const at = overrideUntil.add({ minutes: delayMinutes }).toString().slice(0, 19);
      for (const unit of stage)
        add(
          'override-end.',
          unit,
          verb,
          { ScheduleExpression: `at(${at})`, ScheduleExpressionTimezone: 'UTC' },
          20,
        );
    });
  }
  // While opening hours act, no database stays stopped for seven days.
  if (keepStopped && (periods.length === 0 || overrideUntil !== undefined)) {
    for (const unit of deployment.units.filter(isDatabase)) {
      const when = { ScheduleExpression: 'rate(1 hour)', ScheduleExpressionTimezone: 'UTC' };
      const end = periods.length > 0 && until !== undefined ? { EndDate: until } : {};
      // Refused while it is stopped, which is as it shall be: no second attempt.
      add(KEEP_STOPPED, unit, 'pause', { ...when, ...end }, 0);
    }
  }
  return wanted;
}

function isSame(current: GetScheduleOutput, wanted: Schedule): boolean {
  return (
    current.ScheduleExpression === wanted.ScheduleExpression &&
    current.ScheduleExpressionTimezone === wanted.ScheduleExpressionTimezone &&
    current.StartDate?.getTime() === wanted.StartDate?.getTime() &&
    current.EndDate?.getTime() === wanted.EndDate?.getTime() &&
    current.State !== 'DISABLED' &&
    current.Target?.Arn === wanted.Target.Arn &&
    current.Target?.Input === wanted.Target.Input &&
    current.Target?.RoleArn === wanted.Target.RoleArn
  );
}

/** @throws OperateError SCHEDULE_NO_ROLE */
async function requireRole(aws: Aws, name: string): Promise<string> {
  let token: string | undefined;
  do {
    const page = await aws.cloudFormation.describeStacks(token ? { NextToken: token } : {});
    for (const { Tags, Outputs } of page.Stacks ?? []) {
      if (!Tags?.some(({ Key, Value }) => Key === DEPLOYMENT_TAG && Value === name)) continue;
      const role = Outputs?.find((output) => output.OutputKey === SCHEDULER_ROLE_OUTPUT)?.OutputValue;
      if (role !== undefined) return role;
    }
    token = page.NextToken;
  } while (token);
  throw new OperateError(
    'SCHEDULE_NO_ROLE',
    `No stack of ${name} has the output ${SCHEDULER_ROLE_OUTPUT}, the role with which EventBridge Scheduler starts and stops things: deploy a template that has it, as docs/deploy.md says.`,
  );
}
