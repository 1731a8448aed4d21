/**
 * What an operator writes: programmes with start times on the clock of a time zone, and filler for the
 * time between (docs/formats/schedule.md). What follows from it at a time is in `stretches.ts`.
 */
import { type Static, Type } from 'typebox';
import { ProgrammeInfo } from './schedule.ts';

export const weekdays = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'] as const;
export type Weekday = (typeof weekdays)[number];

const Items = Type.Array(Type.String({ minLength: 1, maxLength: 200 }), { minItems: 1, maxItems: 10_000 });

const Order = Type.Union([Type.Literal('sequence'), Type.Literal('shuffle')]);

export const ScheduleProgramme = Type.Object(
  {
    /** Local date and time of the first airing. */
    start: Type.String({
      pattern: '^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d(:\\d\\d)?$',
      examples: ['2026-11-22T20:15'],
    }),
    /** Once where nothing is said. */
    repeat: Type.Optional(Type.Union([Type.Literal('daily'), Type.Literal('weekly')])),
    /** With `repeat: weekly`, the days; without them the weekday of `start`. */
    days: Type.Optional(Type.Array(Type.Enum(weekdays), { minItems: 1, maxItems: 7, uniqueItems: true })),
    /** The last day of a repetition. */
    until: Type.Optional(Type.String({ pattern: '^\\d{4}-\\d\\d-\\d\\d$', examples: ['2026-12-31'] })),
    /** Assets, by id or name. */
    items: Items,
    /** Shuffled anew at each airing; `sequence` where nothing is said. */
    order: Type.Optional(Order),
    /** Plays the items again and again, until the duration is over or another programme begins. */
    loop: Type.Optional(Type.Boolean()),
    /** `hours:minutes:seconds`; cuts what lasts longer. Without it the items play to their end. */
    duration: Type.Optional(Type.String({ pattern: '^\\d{1,3}:[0-5]\\d:[0-5]\\d$', examples: ['1:30:00'] })),
    /** Of two programmes at a time the one with more is on; 0 where nothing is said. */
    priority: Type.Optional(Type.Integer({ minimum: -100, maximum: 100 })),
    ...ProgrammeInfo.properties,
  },
  { additionalProperties: false },
);
export type ScheduleProgramme = Static<typeof ScheduleProgramme>;

export const Schedule = Type.Object(
  {
    /** A name of the IANA time zone database. */
    timeZone: Type.String({ minLength: 1, maxLength: 100, examples: ['Europe/Berlin'] }),
    /** What all shuffles follow from; 0 where nothing is said. */
    seed: Type.Optional(Type.Integer({ minimum: 0, maximum: 2 ** 32 - 1 })),
    /** Plays where no programme does; without it nothing is on then. */
    filler: Type.Optional(
      Type.Object({ items: Items, order: Type.Optional(Order) }, { additionalProperties: false }),
    ),
    programmes: Type.Array(ScheduleProgramme, { maxItems: 1000 }),
  },
  { additionalProperties: false },
);
export type Schedule = Static<typeof Schedule>;

/** When a change takes effect: after the programme that is on, or as soon as it can. */
export const Effective = Type.Enum(['boundary', 'now']);
export type Effective = Static<typeof Effective>;

/** A place in a schedule that is wrong, and why. */
export interface ScheduleFault {
  /** For instance `programmes[3].start`. */
  readonly where: string;
  readonly what: string;
}

/**
 * Checks what the schema cannot: that times exist and fields go together.
 * @returns the first fault; undefined when there is none
 */
export function findScheduleFault(schedule: Schedule): ScheduleFault | undefined {
  if (!isTimeZone(schedule.timeZone)) {
    return {
      where: 'timeZone',
      what: `${schedule.timeZone} is not a time zone. Write one such as Europe/Berlin or UTC.`,
    };
  }
  for (const [index, programme] of schedule.programmes.entries()) {
    const fault = findProgrammeFault(programme);
    if (fault) return { where: `programmes[${index}].${fault.where}`, what: fault.what };
  }
  return undefined;
}

function findProgrammeFault(programme: ScheduleProgramme): ScheduleFault | undefined {
  const { start, repeat, days, until, duration } = programme;
  if (parseLocalTime(start) === undefined) {
    return { where: 'start', what: `${start} is not a date and time of the calendar.` };
  }
  if (days !== undefined && repeat !== 'weekly') {
    return { where: 'days', what: 'Days go with repeat: weekly only.' };
  }
  if (until !== undefined && repeat === undefined) {
    return { where: 'until', what: 'Only what is repeated has a last day.' };
  }
  if (until !== undefined && parseLocalTime(`${until}T00:00`) === undefined) {
    return { where: 'until', what: `${until} is not a date of the calendar.` };
  }
  if (until !== undefined && until < start.slice(0, until.length)) {
    return { where: 'until', what: `${until} is before the start, ${start}.` };
  }
  if (duration !== undefined && durationSeconds(duration) === 0) {
    return { where: 'duration', what: 'A programme lasts at least a second.' };
  }
  return undefined;
}

/** A time on a wall, in no particular place. */
export interface LocalTime {
  /** Days since 1970-01-01. */
  readonly day: number;
  /** Since midnight. */
  readonly seconds: number;
}

const SECONDS_PER_DAY = 86_400;

/** @returns undefined for what the calendar does not have, such as February 30 */
export function parseLocalTime(text: string): LocalTime | undefined {
  const withSeconds = text.length === 'YYYY-MM-DDTHH:MM'.length ? `${text}:00` : text;
  const unixMs = Date.parse(`${withSeconds}Z`);
  // Date.parse takes some dates that do not exist, and 24:00.
  if (Number.isNaN(unixMs) || new Date(unixMs).toISOString() !== `${withSeconds}.000Z`) return undefined;
  const day = Math.floor(unixMs / (SECONDS_PER_DAY * 1000));
  return { day, seconds: unixMs / 1000 - day * SECONDS_PER_DAY };
}

/** @param text as {@link ScheduleProgramme} has it */
export function durationSeconds(text: string): number {
  const [hours = 0, minutes = 0, seconds = 0] = text.split(':').map(Number);
  return (hours * 60 + minutes) * 60 + seconds;
}

function isTimeZone(name: string): boolean {
  try {
    new Intl.DateTimeFormat('en', { timeZone: name });
    return true;
  } catch {
    return false;
  }
}
