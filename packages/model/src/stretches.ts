/**
 * What a schedule says of a time: the stretch of the timeline that the time lies in, and what plays there.
 * A pure function of the schedule, of where it takes effect and of the assets, for any time, however far ahead.
 *
 * The rules:
 * - A start is a time on the wall. One that the clocks skip is as much later as they skip; of one that comes
 *   twice the first counts. Durations are real time.
 * - Of several programmes the one with the highest priority is on. Among equals the one that started last
 *   is, and ends the other for good (of two that start together the one further down the list).
 * - A programme with less priority that is interrupted comes back: a loop with the item after the one that
 *   would be on, anything else where it would be by then, to the segment. What lies before the schedule takes
 *   effect counts as an interruption.
 * - Where no programme is on there is filler, from its first item on, cut where the next programme begins.
 */
import { Temporal } from 'temporal-polyfill';
import {
  type AssetFacts,
  Loop,
  type LoopItem,
  type ProgrammeInfo,
  type RunContent,
  segmentIndexFrom,
  segmentStartTicks,
  TIMELINE_HZ,
} from './schedule.ts';
import {
  durationSeconds,
  type LocalTime,
  parseLocalTime,
  type Schedule,
  type ScheduleProgramme,
  weekdays,
} from './schedule-definition.ts';
import { seedAt } from './shuffle.ts';

const TICKS_PER_MS = TIMELINE_HZ / 1000;
const MS_PER_DAY = 86_400_000;
const DAYS_PER_WEEK = 7;
/** 1970-01-01 was a Thursday. */
const FIRST_WEEKDAY = weekdays.indexOf('thu');

/** A stretch of the timeline in which nothing else begins. */
export interface Stretch {
  /** `startTicks` is the start of the stretch. */
  readonly content: RunContent;
  readonly kind: 'programme' | 'filler' | 'empty';
  /** Infinity when nothing ever follows. */
  readonly endTicks: number;
}

export interface StretchesOptions {
  /** With assets by id. */
  readonly schedule: Schedule;
  readonly assets: ReadonlyMap<string, AssetFacts>;
  /** Wall-clock time of tick 0, in milliseconds since 1970. */
  readonly epochUnixMs: number;
  /** Where the schedule takes effect. */
  readonly validFromTicks: number;
}

/** A programme of the schedule, made ready. */
interface Entry {
  readonly programme: ScheduleProgramme;
  readonly start: LocalTime;
  /** The last day that an airing starts on. */
  readonly lastDay: number;
  readonly loop: Loop;
  /** The length of an airing that nothing interrupts. */
  readonly durationTicks: number;
  /** Starts in ticks by local day; undefined on a day without one. */
  readonly startsByDay: Map<number, number | undefined>;
}

interface Airing {
  readonly entry: Entry;
  readonly startTicks: number;
  /** Unless another of its priority begins before that. */
  readonly endTicks: number;
}

export class Stretches {
  readonly #options: StretchesOptions;
  /** By priority, the highest first. */
  readonly #levels: readonly (readonly Entry[])[];

  /** @throws Error when the schedule has a fault, or names an asset without facts */
  constructor(options: StretchesOptions) {
    this.#options = options;
    const levels = new Map<number, Entry[]>();
    for (const programme of options.schedule.programmes) {
      const { priority = 0 } = programme;
      const level = levels.get(priority) ?? [];
      level.push(this.#entryOf(programme));
      levels.set(priority, level);
    }
    this.#levels = [...levels].sort(([a], [b]) => b - a).map(([, level]) => level);
  }

  #entryOf(programme: ScheduleProgramme): Entry {
    const start = parseLocalTime(programme.start);
    const loop = Loop.of({ loop: programme.items }, this.#options.assets);
    if (!start || !loop) throw new Error(`The programme at ${programme.start} cannot be played`);
    const { repeat, until, duration } = programme;
    const lastDay = until === undefined ? undefined : parseLocalTime(`${until}T00:00`)?.day;
    const contentTicks = programme.loop === true ? Number.POSITIVE_INFINITY : loop.durationTicks;
    const limitTicks =
      duration === undefined ? Number.POSITIVE_INFINITY : durationSeconds(duration) * TIMELINE_HZ;
    return {
      programme,
      start,
      lastDay: repeat === undefined ? start.day : (lastDay ?? Number.POSITIVE_INFINITY),
      loop,
      durationTicks: Math.min(contentTicks, limitTicks),
      startsByDay: new Map(),
    };
  }

  /** The stretch that a time lies in. @param ticks at or after where the schedule takes effect */
  at(ticks: number): Stretch {
    const day = this.#dayOf(ticks);
    let endTicks = Number.POSITIVE_INFINITY;
    let interruptedUntilTicks = this.#options.validFromTicks;
    for (const level of this.#levels) {
      const airing = latestOf(level.map((entry) => this.#lastAiring(entry, day, ticks)));
      for (const entry of level) endTicks = Math.min(endTicks, this.#nextStartTicks(entry, day, ticks));
      if (!airing) continue;
      if (airing.endTicks > ticks) {
        return {
          content: this.#airingContent(airing, Math.max(airing.startTicks, interruptedUntilTicks)),
          kind: 'programme',
          endTicks: Math.min(endTicks, airing.endTicks),
        };
      }
      interruptedUntilTicks = Math.max(interruptedUntilTicks, airing.endTicks);
    }
    return { ...this.#fillerFrom(interruptedUntilTicks), endTicks };
  }

  #fillerFrom(startTicks: number): Pick<Stretch, 'content' | 'kind'> {
    const { filler, seed = 0 } = this.#options.schedule;
    if (!filler) return { kind: 'empty', content: { startTicks, loop: [] } };
    return {
      kind: 'filler',
      content: {
        startTicks,
        loop: filler.items,
        ...(filler.order === 'shuffle' && { shuffleSeed: seedAt(seed, startTicks) }),
      },
    };
  }

  /** @param startTicks the start of the airing, or where it comes back */
  #airingContent({ entry, startTicks: airingTicks }: Airing, startTicks: number): RunContent {
    const { programme } = entry;
    const { title, description, category, items } = programme;
    const info: ProgrammeInfo = {
      ...(title !== undefined && { title }),
      ...(description !== undefined && { description }),
      ...(category !== undefined && { category }),
    };
    const content: RunContent = {
      startTicks,
      loop: items,
      ...(programme.order === 'shuffle' && {
        shuffleSeed: seedAt(this.#options.schedule.seed ?? 0, airingTicks),
      }),
      ...(Object.keys(info).length > 0 && { programme: info }),
    };
    if (startTicks === airingTicks) return content;
    const loop = Loop.of(content, this.#options.assets) ?? entry.loop;
    const elapsedTicks = startTicks - airingTicks;
    const skippedTicks =
      programme.loop === true
        ? nextItemTicks(loop.itemAt(elapsedTicks), elapsedTicks)
        : segmentTicks(loop.itemAt(elapsedTicks), elapsedTicks);
    return { ...content, originTicks: startTicks - skippedTicks };
  }

  /** The airing that started last, at or before a time on a day. */
  #lastAiring(entry: Entry, day: number, ticks: number): Airing | undefined {
    const toDay = Math.min(day + 1, entry.lastDay);
    for (let d = toDay; d >= Math.max(entry.start.day, toDay - DAYS_PER_WEEK - 1); d--) {
      const startTicks = this.#startTicks(entry, d);
      if (startTicks !== undefined && startTicks <= ticks) {
        return { entry, startTicks, endTicks: startTicks + entry.durationTicks };
      }
    }
    return undefined;
  }

  #nextStartTicks(entry: Entry, day: number, ticks: number): number {
    const fromDay = Math.max(day - 1, entry.start.day);
    for (let d = fromDay; d <= Math.min(entry.lastDay, fromDay + DAYS_PER_WEEK + 2); d++) {
      const startTicks = this.#startTicks(entry, d);
      if (startTicks !== undefined && startTicks > ticks) return startTicks;
    }
    return Number.POSITIVE_INFINITY;
  }

  /** When the airing of a day starts; undefined when there is none on that day. */
  #startTicks(entry: Entry, day: number): number | undefined {
    if (!entry.startsByDay.has(day)) {
      entry.startsByDay.set(day, isOn(entry, day) ? this.#ticksOf(day, entry.start.seconds) : undefined);
    }
    return entry.startsByDay.get(day);
  }

  #ticksOf(day: number, seconds: number): number {
    const { schedule, epochUnixMs } = this.#options;
    // As if the place were in UTC; then the same reading of the clock in its own time zone.
    const reading = new Date(day * MS_PER_DAY + seconds * 1000).toISOString().slice(0, -1);
    const { epochMilliseconds } = Temporal.PlainDateTime.from(reading).toZonedDateTime(schedule.timeZone, {
      disambiguation: 'compatible',
    });
    return (epochMilliseconds - epochUnixMs) * TICKS_PER_MS;
  }

  /** The day that it is in the time zone, in days since 1970-01-01. */
  #dayOf(ticks: number): number {
    const { schedule, epochUnixMs } = this.#options;
    const unixMs = Math.floor(epochUnixMs + ticks / TICKS_PER_MS);
    const date = Temporal.Instant.fromEpochMilliseconds(unixMs)
      .toZonedDateTimeISO(schedule.timeZone)
      .toPlainDate();
    return Date.UTC(date.year, date.month - 1, date.day) / MS_PER_DAY;
  }
}

function isOn({ programme, start, lastDay }: Entry, day: number): boolean {
  if (day < start.day || day > lastDay) return false;
  if (programme.repeat !== 'weekly') return true; // once: the first day is the last
  const weekday = weekdays[weekdayOf(day)];
  return weekday !== undefined && programme.days !== undefined
    ? programme.days.includes(weekday)
    : weekdayOf(day) === weekdayOf(start.day);
}

function weekdayOf(day: number): number {
  return (((day + FIRST_WEEKDAY) % DAYS_PER_WEEK) + DAYS_PER_WEEK) % DAYS_PER_WEEK;
}

/** Of several that start together the last in the list. */
function latestOf(airings: readonly (Airing | undefined)[]): Airing | undefined {
  let latest: Airing | undefined;
  for (const airing of airings) {
    if (airing && airing.startTicks >= (latest?.startTicks ?? Number.NEGATIVE_INFINITY)) latest = airing;
  }
  return latest;
}

/** From the origin of the loop to the next item's start. */
function nextItemTicks({ offsetTicks, facts }: LoopItem, elapsedTicks: number): number {
  return offsetTicks === elapsedTicks ? elapsedTicks : offsetTicks + facts.durationTicks;
}

/** From the origin of the loop to the start of the segment that is on. */
function segmentTicks({ offsetTicks, facts }: LoopItem, elapsedTicks: number): number {
  const next = segmentIndexFrom(facts, elapsedTicks - offsetTicks + 1);
  return offsetTicks + segmentStartTicks(facts, next - 1);
}
