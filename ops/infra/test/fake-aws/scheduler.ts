/** EventBridge Scheduler: keeps schedules, and makes their calls when their time has come. */
import { Temporal } from 'temporal-polyfill';
import { type Cloud, type FakeSchedule, found, fromTagList, toTagList } from './cloud.ts';
import type { Handlers } from './services.ts';
import { AwsError, type Wire } from './wire.ts';

interface ScheduleInput {
  Name: string;
  GroupName?: string;
  ScheduleExpression: string;
  ScheduleExpressionTimezone?: string;
  StartDate?: number;
  EndDate?: number;
  State?: string;
  ActionAfterCompletion?: string;
  Target: { Arn: string; RoleArn: string; Input?: string };
}

/** A service that schedules can call: its operations, and the description of their input. */
export interface Callable {
  readonly wire: Wire;
  readonly handlers: Handlers;
}

/** @param services by the name that a target's ARN has */
export function scheduler(cloud: Cloud, services: Readonly<Record<string, Callable>>): Handlers {
  const arnOf = (group: string) => cloud.arn('scheduler', `schedule-group/${group}`);
  const groupNamed = (name: string) =>
    found(
      cloud.scheduleGroups.get(name),
      'ResourceNotFoundException',
      `Schedule group ${name} does not exist.`,
      404,
    );
  const groupAt = (arn: string) => groupNamed(arn.split('/').at(-1) ?? '');
  const scheduleNamed = (group: string, name: string) =>
    found(
      groupNamed(group).schedules.get(name),
      'ResourceNotFoundException',
      `Schedule ${name} does not exist.`,
      404,
    );
  const check = ({ StartDate, Target }: ScheduleInput) => {
    if (StartDate !== undefined && StartDate * 1000 < cloud.nowMs - 300_000)
      throw new AwsError('ValidationException', 'StartDate is in the past.');
    if (!/^arn:aws:iam::\d{12}:role\//.test(Target.RoleArn))
      throw new AwsError('ValidationException', 'The execution role must be one.');
  };

  cloud.onMinute = (nowMs) => {
    // Once for all: working out local time is slow, and there are half a million minutes in a year.
    const byZone = new Map<string, Temporal.ZonedDateTime>();
    const localTime = (zone: string) => {
      const local =
        byZone.get(zone) ?? Temporal.Instant.fromEpochMilliseconds(nowMs).toZonedDateTimeISO(zone);
      byZone.set(zone, local);
      return local;
    };
    for (const group of cloud.scheduleGroups.values()) {
      for (const schedule of [...group.schedules.values()]) {
        const input = schedule.input as unknown as ScheduleInput;
        const isOver = input.EndDate !== undefined && nowMs >= input.EndDate * 1000;
        if (!isOver && isDue(schedule, nowMs, localTime)) {
          schedule.lastMs = nowMs;
          invoke(input, services);
        }
        const isOnce = input.ScheduleExpression.startsWith('at(') && schedule.lastMs > 0;
        if ((isOver || isOnce) && input.ActionAfterCompletion === 'DELETE')
          group.schedules.delete(schedule.name);
      }
    }
  };

  return {
    CreateScheduleGroup({ Name, Tags }: { Name: string; Tags?: { Key: string; Value: string }[] }) {
      if (cloud.scheduleGroups.has(Name)) throw new AwsError('ConflictException', `${Name} exists.`, 409);
      cloud.scheduleGroups.set(Name, { name: Name, tags: fromTagList(Tags), schedules: new Map() });
      return { ScheduleGroupArn: arnOf(Name) };
    },
    GetScheduleGroup({ Name }: { Name: string }) {
      return { Name: groupNamed(Name).name, Arn: arnOf(Name), State: 'ACTIVE' };
    },
    DeleteScheduleGroup({ Name }: { Name: string }) {
      groupNamed(Name);
      cloud.scheduleGroups.delete(Name);
      return {};
    },
    ListTagsForResource: ({ ResourceArn }: { ResourceArn: string }) => ({
      Tags: toTagList(groupAt(ResourceArn).tags),
    }),
    TagResource({ ResourceArn, Tags }: { ResourceArn: string; Tags: { Key: string; Value: string }[] }) {
      for (const { Value } of Tags) {
        if (!/^[\p{L}\p{Z}\p{N}_.:/=+\-@]{1,256}$/u.test(Value))
          throw new AwsError('ValidationException', `"${Value}" cannot be a tag.`);
      }
      Object.assign(groupAt(ResourceArn).tags, fromTagList(Tags));
      return {};
    },
    UntagResource({ ResourceArn, TagKeys }: { ResourceArn: string; TagKeys: string[] }) {
      for (const key of TagKeys) delete groupAt(ResourceArn).tags[key];
      return {};
    },
    ListSchedules(input: { GroupName?: string; NamePrefix?: string; NextToken?: string }) {
      const { GroupName, NamePrefix = '', NextToken } = input;
      const groups = GroupName === undefined ? [...cloud.scheduleGroups.values()] : [groupNamed(GroupName)];
      const { items, next } = cloud.page(
        groups
          .flatMap((group) => [...group.schedules.values()])
          .filter(({ name }) => name.startsWith(NamePrefix)),
        NextToken,
      );
      return {
        NextToken: next,
        Schedules: items.map(({ name, group, input }) => ({
          Name: name,
          GroupName: group,
          State: 'ENABLED',
          Target: { Arn: (input.Target as { Arn: string }).Arn },
        })),
      };
    },
    GetSchedule({ GroupName = 'default', Name }: { GroupName?: string; Name: string }) {
      const {
        StartDate,
        EndDate,
        ClientToken: _,
        ...input
      } = scheduleNamed(GroupName, Name).input as unknown as ScheduleInput & { ClientToken?: string };
      const date = (seconds: number | undefined) =>
        seconds === undefined ? undefined : new Date(seconds * 1000);
      return { State: 'ENABLED', ...input, StartDate: date(StartDate), EndDate: date(EndDate) };
    },
    CreateSchedule(input: ScheduleInput) {
      const { Name, GroupName = 'default' } = input;
      const { schedules } = groupNamed(GroupName);
      if (schedules.has(Name)) throw new AwsError('ConflictException', `${Name} exists.`, 409);
      check(input);
      schedules.set(Name, { name: Name, group: GroupName, input: { ...input }, lastMs: 0 });
      return { ScheduleArn: cloud.arn('scheduler', `schedule/${GroupName}/${Name}`) };
    },
    UpdateSchedule(input: ScheduleInput) {
      const schedule = scheduleNamed(input.GroupName ?? 'default', input.Name);
      check(input);
      schedule.input = { ...input };
      return { ScheduleArn: cloud.arn('scheduler', `schedule/${schedule.group}/${schedule.name}`) };
    },
    DeleteSchedule({ GroupName = 'default', Name }: { GroupName?: string; Name: string }) {
      scheduleNamed(GroupName, Name);
      groupNamed(GroupName).schedules.delete(Name);
      return {};
    },
  };
}

function isDue(
  { input, lastMs }: FakeSchedule,
  nowMs: number,
  localTime: (zone: string) => Temporal.ZonedDateTime,
): boolean {
  const {
    ScheduleExpression,
    ScheduleExpressionTimezone = 'UTC',
    StartDate,
  } = input as unknown as ScheduleInput;
  const [, once] = /^at\((.+)\)$/.exec(ScheduleExpression) ?? [];
  // One that is in the past when it is made acts at once.
  if (once !== undefined) {
    const now = localTime(ScheduleExpressionTimezone).toPlainDateTime();
    return lastMs === 0 && Temporal.PlainDateTime.compare(now, Temporal.PlainDateTime.from(once)) >= 0;
  }
  if (StartDate !== undefined && nowMs < StartDate * 1000) return false;
  if (ScheduleExpression === 'rate(1 hour)') return nowMs - lastMs >= 3_600_000;
  const [, minute, hour, days = ''] =
    /^cron\((\d+) (\d+) \? \* ([A-Z,]+) \*\)$/.exec(ScheduleExpression) ?? [];
  if (minute === undefined) throw new Error(`no such expression: ${ScheduleExpression}`);
  const local = localTime(ScheduleExpressionTimezone);
  if (Number(minute) !== local.minute || Number(hour) !== local.hour) return false;
  const day = ['MON', 'TUE', 'WED', 'THU', 'FRI', 'SAT', 'SUN'][local.dayOfWeek - 1] ?? '';
  return days.split(',').includes(day);
}

/**
 * The input of a target is spelled as in the SDK for Java: `DbInstanceIdentifier` for RDS's `DBInstanceIdentifier`,
 * `DesiredCount` for the `desiredCount` of ECS.
 */
function invoke({ Target }: ScheduleInput, services: Readonly<Record<string, Callable>>): void {
  const [, service = '', action = ''] = /^arn:aws:scheduler:::aws-sdk:(\w+):(\w+)$/.exec(Target.Arn) ?? [];
  const operation = action.slice(0, 1).toUpperCase() + action.slice(1);
  const { wire, handlers } = found(services[service], 'ValidationException', `no service ${service}`);
  const handler = found(handlers[operation], 'ValidationException', `no operation ${operation}`);
  const own = new Map(
    wire
      .inputNames(operation)
      .map((name) => [name.slice(0, 1).toUpperCase() + name.slice(1).replace(/^B(?=[A-Z])/, 'b'), name]),
  );
  const input = Object.entries(JSON.parse(Target.Input ?? '{}') as object).map(([key, value]) => [
    found(own.get(key), 'ValidationException', `${operation} has no ${key}`),
    value,
  ]);
  try {
    handler(Object.fromEntries(input) as never);
  } catch (error) {
    // A refused call ends there. That AWS tries again is not modelled.
    if (!(error instanceof AwsError)) throw error;
  }
}
