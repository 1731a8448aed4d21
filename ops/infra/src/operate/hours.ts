/**
 * Opening hours: on which days, from when to when, in which time zone a deployment runs. Pure.
 *
 * Kept as one tag per period, `starling:hours:NAME` = `MON TUE 09:00-17:00 Europe/Dublin`, since AWS allows neither
 * commas nor braces in a tag.
 */
import { Temporal } from 'temporal-polyfill';
import { OperateError } from './error.ts';

const DAYS = ['MON', 'TUE', 'WED', 'THU', 'FRI', 'SAT', 'SUN'] as const;
const DAY_MINUTES = 24 * 60;
const WEEK_MINUTES = 7 * DAY_MINUTES;
/** A database takes minutes to start and minutes to stop. */
const MIN_SPAN_MINUTES = 30;

export interface Period {
  readonly name: string;
  /** Indices of the days on which it opens, 0 for Monday; ascending. */
  readonly days: readonly number[];
  /** After midnight, local time. */
  readonly fromMinute: number;
  /** Before or at `fromMinute`: on the next day. */
  readonly toMinute: number;
  /** IANA name. */
  readonly zone: string;
}

/**
 * @param days `mon-fri`, `mon,wed,sat`, `daily`
 * @param from as `09:00`
 * @param to as `17:00`; not after `from`: on the next day
 * @throws OperateError SCHEDULE_BAD
 */
export function makePeriod(name: string, days: string, from: string, to: string, zone: string): Period {
  if (!/^[a-z0-9-]{1,20}$/.test(name))
    throw bad(`"${name}" cannot name opening hours: use small letters, digits and hyphens, at most 20.`);
  const period = {
    name,
    days: parseDays(days),
    fromMinute: parseTime(from),
    toMinute: parseTime(to),
    zone: parseZone(zone),
  };
  checkPeriods([period]);
  return period;
}

/** @throws OperateError SCHEDULE_BAD when they overlap, or leave less than half an hour for stopping and starting */
export function checkPeriods(periods: readonly Period[]): void {
  const zones = new Set(periods.map((period) => period.zone));
  if (zones.size > 1)
    throw bad(`All opening hours of a deployment are in one time zone, not in ${[...zones].join(' and ')}.`);
  const spans = periods
    .flatMap((period) =>
      period.days.map((day) => ({
        name: period.name,
        from: day * DAY_MINUTES + period.fromMinute,
        minutes: minutesOf(period),
      })),
    )
    .sort((a, b) => a.from - b.from);
  spans.forEach((span, index) => {
    if (span.minutes < MIN_SPAN_MINUTES)
      throw bad(
        `Opening hours last at least ${MIN_SPAN_MINUTES} minutes: ${span.name} lasts ${span.minutes}.`,
      );
    const next = spans[(index + 1) % spans.length] ?? span;
    const gap = ((next.from - span.from + WEEK_MINUTES - 1) % WEEK_MINUTES) + 1 - span.minutes;
    if (gap < MIN_SPAN_MINUTES) {
      throw bad(
        `Between opening hours there are at least ${MIN_SPAN_MINUTES} minutes, as stopping and starting take their time: ${span.name} and ${next.name} are ${gap < 0 ? 'one in the other' : `${gap} apart`}.`,
      );
    }
  });
}

const minutesOf = ({ fromMinute, toMinute }: Period) =>
  ((toMinute - fromMinute + DAY_MINUTES - 1) % DAY_MINUTES) + 1;

export function periodToTag({ days, fromMinute, toMinute, zone }: Period): string {
  return `${days.map((day) => DAYS[day]).join(' ')} ${clockTime(fromMinute)}-${clockTime(toMinute)} ${zone}`;
}

/** @throws OperateError SCHEDULE_BAD when somebody else wrote the tag */
export function periodFromTag(name: string, tag: string): Period {
  const [, days = '', from = '', to = '', zone = ''] = /^(.+) ([\d:]+)-([\d:]+) (\S+)$/.exec(tag) ?? [];
  return makePeriod(name, days.replaceAll(' ', ',').toLowerCase(), from, to, zone);
}

/**
 * @param delayMinutes after the opening (or the closing)
 * @returns an expression of EventBridge Scheduler: minute, hour, day, month, days of the week, year
 */
export function cronOf(period: Period, edge: 'open' | 'close', delayMinutes: number): string {
  const opensAt = period.fromMinute + delayMinutes;
  const minute = edge === 'open' ? opensAt : opensAt + minutesOf(period);
  const shift = Math.floor(minute / DAY_MINUTES);
  const days = period.days.map((day) => DAYS[(day + shift) % 7]).join(',');
  return `cron(${minute % 60} ${Math.floor(minute / 60) % 24} ? * ${days} *)`;
}

export function isOpenAt(periods: readonly Period[], at: Temporal.Instant): boolean {
  return periods.some((period) => {
    const local = at.toZonedDateTimeISO(period.zone);
    const now = (local.dayOfWeek - 1) * DAY_MINUTES + local.hour * 60 + local.minute;
    return period.days.some((day) => {
      const since = (now - day * DAY_MINUTES - period.fromMinute + 2 * WEEK_MINUTES) % WEEK_MINUTES;
      return since < minutesOf(period);
    });
  });
}

/**
 * @param text `22:00` (the next time that it is), `2026-12-24T22:00`, both in `zone`, or with an offset or Z
 * @throws OperateError SCHEDULE_BAD also when it is not in the future
 */
export function parseUntil(text: string, zone: string, now: Temporal.Instant): Temporal.Instant {
  const read = (): Temporal.Instant => {
    if (/^\d{1,2}:\d{2}$/.test(text)) {
      const minute = parseTime(text);
      const time = {
        hour: Math.floor(minute / 60),
        minute: minute % 60,
        second: 0,
        millisecond: 0,
        microsecond: 0,
        nanosecond: 0,
      };
      const today = now.toZonedDateTimeISO(zone).with(time);
      const isPast = Temporal.Instant.compare(today.toInstant(), now) <= 0;
      return (isPast ? today.add({ days: 1 }) : today).toInstant();
    }
    if (/(Z|[+-]\d{2}:?\d{2})$/.test(text) && text.includes('T')) return Temporal.Instant.from(text);
    return Temporal.PlainDateTime.from(text).toZonedDateTime(zone).toInstant();
  };
  let until: Temporal.Instant;
  try {
    until = read();
  } catch (error) {
    if (error instanceof OperateError) throw error;
    throw bad(`"${text}" is not a time: write 22:00, 2026-12-24T22:00 or 2026-12-24T22:00Z.`);
  }
  // One-time schedules need a moment to be set, and go by the minute.
  const soonest = now.add({ minutes: 5 });
  if (Temporal.Instant.compare(until, soonest) < 0)
    throw bad(`An override lasts at least five minutes: ${until.toString()} is too soon.`);
  return until;
}

export function describePeriod({ days, fromMinute, toMinute, zone }: Period): string {
  const names = days.map((day) => DAYS[day] ?? '');
  const isRun = days.length > 2 && days.every((day, index) => day === (days[0] ?? 0) + index);
  const text = days.length === 7 ? 'daily' : isRun ? `${names[0]}-${names.at(-1)}` : names.join(',');
  return `${text.toLowerCase()} ${clockTime(fromMinute)}-${clockTime(toMinute)} ${zone}`;
}

function parseDays(text: string): number[] {
  const days = new Set<number>();
  for (const part of text.toLowerCase().split(',')) {
    const [first = '', last = first] = part.trim() === 'daily' ? ['mon', 'sun'] : part.trim().split('-');
    const [from, to] = [first, last].map((day) => DAYS.findIndex((known) => known.toLowerCase() === day));
    if (from === undefined || to === undefined || from < 0 || to < 0)
      throw bad(`"${text}" are not days: write mon-fri, or mon,wed,sat, or daily.`);
    for (let day = from; ; day = (day + 1) % 7) {
      days.add(day);
      if (day === to) break;
    }
  }
  return [...days].sort((a, b) => a - b);
}

function parseTime(text: string): number {
  const [, hours, minutes] = /^(\d{1,2}):(\d{2})$/.exec(text) ?? [];
  if (hours === undefined || Number(hours) > 23 || Number(minutes) > 59)
    throw bad(`"${text}" is not a time of day: write 09:00, or 17:30.`);
  return Number(hours) * 60 + Number(minutes);
}

function parseZone(zone: string): string {
  try {
    Temporal.Now.zonedDateTimeISO(zone);
  } catch {
    throw bad(`"${zone}" is not a time zone: write one such as Europe/Dublin.`);
  }
  // "+01:00" is one to Temporal, but not to EventBridge Scheduler.
  if (!/^[A-Za-z]/.test(zone)) throw bad(`Name the time zone, such as Europe/Dublin, in place of "${zone}".`);
  return zone;
}

const clockTime = (minute: number) =>
  `${String(Math.floor(minute / 60)).padStart(2, '0')}:${String(minute % 60).padStart(2, '0')}`;

function bad(message: string): OperateError {
  return new OperateError('SCHEDULE_BAD', message);
}
