import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { Check } from 'typebox/value';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { editRuns, extendRuns } from './runs.ts';
import {
  type AssetFacts,
  numberedOn,
  type ProgrammePosition,
  programmeAt,
  type Run,
  runIndexAt,
} from './schedule.ts';
import { findScheduleFault, Schedule, ScheduleProgramme } from './schedule-definition.ts';
import { passOrder, seedAt } from './shuffle.ts';
import { Stretches } from './stretches.ts';

const SECOND = 90_000;
const HOUR = 3600 * SECOND;
const DAY = 24 * HOUR;

function facts(seconds: number, config = 'a'): AssetFacts {
  return {
    contentHash: '0'.repeat(64),
    configHash: config.repeat(64),
    durationTicks: seconds * SECOND,
    segmentCount: Math.ceil(seconds / 2),
    sizeBytes: 1,
    widthPx: 1280,
    heightPx: 720,
    frameRate: 24,
    videoTracks: [{ widthPx: 1280, heightPx: 720, bitrateBps: 2_000_000 }],
    audioTracks: [{ language: null, loudnessLufs: -20, gainDb: -3 }],
    subtitles: [],
    hasPictures: true,
  };
}

/** Lengths that give every kind of last segment, from seconds to an hour. */
const assets = new Map<string, AssetFacts>([
  ['film', facts(3600)],
  ['show', facts(1504.5)],
  ['news', facts(601.5)],
  ['clip', facts(212.5)],
  ['foreign', facts(95, 'b')],
  ['spot', facts(30.5)],
  ['ident', facts(4.5)],
]);

function stretchesOf(schedule: Schedule, epochUnixMs: number, validFromTicks = 0): Stretches {
  return new Stretches({ schedule, assets, epochUnixMs, validFromTicks });
}

/** The runs from where the schedule takes effect. */
function runsOf(schedule: Schedule, epochUnixMs: number, untilTicks: number, validFromTicks = 0): Run[] {
  const stretches = stretchesOf(schedule, epochUnixMs, validFromTicks);
  const first = numberedOn([], assets, stretches.at(validFromTicks).content);
  return extendRuns([first], stretches, { assets, untilTicks, maxCount: 100_000 });
}

/** Starts of a schedule's stretches as UTC times, with what plays first. */
function starts(schedule: Schedule, from: string, hours: number): string[] {
  const epochUnixMs = Date.parse(from);
  return runsOf(schedule, epochUnixMs, hours * HOUR).map(
    (run) =>
      `${new Date(epochUnixMs + run.startTicks / 90).toISOString().slice(0, 19)} ${run.loop[0] ?? '-'}`,
  );
}

const daily = (start: string, ...items: string[]): ScheduleProgramme => ({ start, repeat: 'daily', items });

describe('start times', () => {
  it('are wall-clock times of the zone, fill between them', () => {
    const schedule: Schedule = {
      timeZone: 'Europe/Berlin',
      filler: { items: ['spot'] },
      programmes: [daily('2026-01-01T20:15', 'film'), daily('2026-01-01T20:00', 'news')],
    };
    expect(starts(schedule, '2026-11-22T12:00:00Z', 10)).toEqual([
      '2026-11-22T12:00:00 spot',
      '2026-11-22T19:00:00 news',
      '2026-11-22T19:10:01 spot',
      '2026-11-22T19:15:00 film',
      '2026-11-22T20:15:00 spot',
    ]);
  });

  it('leave nothing on where there is no filler', () => {
    const schedule: Schedule = { timeZone: 'UTC', programmes: [daily('2026-01-01T20:00', 'film')] };
    expect(starts(schedule, '2026-11-22T19:30:00Z', 3)).toEqual([
      '2026-11-22T19:30:00 -',
      '2026-11-22T20:00:00 film',
      '2026-11-22T21:00:00 -',
    ]);
  });

  it('repeat on the days of the week until the last day', () => {
    const schedule: Schedule = {
      timeZone: 'UTC',
      filler: { items: ['spot'] },
      programmes: [
        { start: '2026-11-23T10:00', repeat: 'weekly', items: ['film'] },
        {
          start: '2026-11-23T12:00',
          repeat: 'weekly',
          days: ['wed', 'sun'],
          until: '2026-11-30',
          items: ['show'],
        },
        { start: '2026-11-24T14:00', items: ['news'] },
      ],
    };
    // 2026-11-22 is a Sunday: before the first airing of all of them.
    expect(
      starts(schedule, '2026-11-22T00:00:00Z', 24 * 17).filter((line) => !line.endsWith('spot')),
    ).toEqual([
      '2026-11-23T10:00:00 film',
      '2026-11-24T14:00:00 news',
      '2026-11-25T12:00:00 show',
      '2026-11-29T12:00:00 show',
      '2026-11-30T10:00:00 film',
      '2026-12-07T10:00:00 film',
    ]);
  });

  // Expected: the rules of the IANA time zone database for 2026, worked out by hand.
  it.each([
    ['Europe/Berlin', '02:30', '2026-03-28T12:00:00Z', ['2026-03-29T01:30:00', '2026-03-30T00:30:00']],
    ['Europe/Berlin', '02:30', '2026-10-24T12:00:00Z', ['2026-10-25T00:30:00', '2026-10-26T01:30:00']],
    ['America/New_York', '02:30', '2026-03-07T12:00:00Z', ['2026-03-08T07:30:00', '2026-03-09T06:30:00']],
    ['America/New_York', '01:30', '2026-10-31T12:00:00Z', ['2026-11-01T05:30:00', '2026-11-02T06:30:00']],
    // Half an hour: at 2:00 the clocks go to 1:30 in April, and to 2:30 in October.
    ['Australia/Lord_Howe', '01:45', '2026-04-04T00:00:00Z', ['2026-04-04T14:45:00', '2026-04-05T15:15:00']],
    ['Australia/Lord_Howe', '02:15', '2026-10-03T00:00:00Z', ['2026-10-03T15:45:00', '2026-10-04T15:15:00']],
    ['Asia/Kolkata', '02:30', '2026-03-28T12:00:00Z', ['2026-03-28T21:00:00', '2026-03-29T21:00:00']],
  ])('in %s at %s, on days when the clocks change', (timeZone, time, from, expected) => {
    const schedule: Schedule = {
      timeZone,
      filler: { items: ['spot'] },
      programmes: [daily(`2026-01-01T${time}`, 'news')],
    };
    expect(starts(schedule, from, 46).filter((line) => line.endsWith('news'))).toEqual(
      expected.map((time) => `${time} news`),
    );
  });
});

describe('programmes that overlap', () => {
  const base = { timeZone: 'UTC', filler: { items: ['spot'] } };

  it('end for good where one of the same priority begins', () => {
    const schedule = {
      ...base,
      programmes: [daily('2026-01-01T10:00', 'film'), daily('2026-01-01T10:20', 'news')],
    };
    expect(starts(schedule, '2026-11-22T09:50:00Z', 2)).toEqual([
      '2026-11-22T09:50:00 spot',
      '2026-11-22T10:00:00 film',
      '2026-11-22T10:20:00 news',
      '2026-11-22T10:30:01 spot',
    ]);
  });

  it('of two that start together the one further down the list is on', () => {
    const schedule = {
      ...base,
      programmes: [daily('2026-01-01T10:00', 'film'), daily('2026-01-01T10:00', 'news')],
    };
    expect(starts(schedule, '2026-11-22T10:00:00Z', 1)[0]).toBe('2026-11-22T10:00:00 news');
  });

  it('come back after one of a higher priority: to the segment where they would be by then', () => {
    const schedule: Schedule = {
      ...base,
      programmes: [{ ...daily('2026-01-01T10:20', 'clip'), priority: 5 }, daily('2026-01-01T10:00', 'film')],
    };
    const epochUnixMs = Date.parse('2026-11-22T10:00:00Z');
    const runs = runsOf(schedule, epochUnixMs, 2 * HOUR);
    expect(runs.map((run) => [run.startTicks / SECOND, run.loop[0]])).toEqual([
      [0, 'film'],
      [1200, 'clip'],
      [1412.5, 'film'],
      [3600, 'spot'],
    ]);
    expect(programmeAt(runs, assets, 1413 * SECOND)).toMatchObject({
      assetId: 'film',
      startTicks: 1412.5 * SECOND,
      originTicks: 0.5 * SECOND, // the segment that began at 1412
      endTicks: 3600 * SECOND,
      firstSegmentIndex: 706,
    });
  });

  it('a loop comes back with the item after the one that would be on', () => {
    const schedule: Schedule = {
      ...base,
      programmes: [
        { ...daily('2026-01-01T10:00', 'show', 'news', 'clip'), loop: true, duration: '3:00:00' },
        { ...daily('2026-01-01T11:00', 'spot'), priority: 1 },
      ],
    };
    const runs = runsOf(schedule, Date.parse('2026-11-22T10:00:00Z'), 4 * HOUR);
    // A pass lasts 2318.5 s; an hour is 1281.5 s into the second one: the show.
    expect(programmeAt(runs, assets, 3600 * SECOND - 1)?.assetId).toBe('show');
    expect(programmeAt(runs, assets, 3630.5 * SECOND)).toMatchObject({
      assetId: 'news',
      startTicks: 3630.5 * SECOND,
      originTicks: 3630.5 * SECOND,
    });
    expect(runs.at(-1)).toMatchObject({ startTicks: 3 * HOUR, loop: ['spot'] });
  });

  it('are cut by their duration', () => {
    const schedule: Schedule = {
      ...base,
      programmes: [{ ...daily('2026-01-01T10:00', 'film'), duration: '0:30:00' }],
    };
    expect(starts(schedule, '2026-11-22T10:00:00Z', 1)).toEqual([
      '2026-11-22T10:00:00 film',
      '2026-11-22T10:30:00 spot',
    ]);
  });
});

it('the example of the documentation is a schedule', () => {
  const page = readFileSync(join(import.meta.dirname, '../../../docs/formats/schedule.md'), 'utf8');
  const example: unknown = parse(/```yaml\n([\s\S]*?)```/.exec(page)?.[1] ?? '');
  if (!Check(Schedule, example)) throw new Error('it does not have the form');
  expect(findScheduleFault(example)).toBeUndefined();
  expect(example.programmes).toHaveLength(4);
  const rows = page
    .match(/^\| `(\w+)`(?:, `(\w+)`, `(\w+)`)? \|/gm)
    ?.flatMap((row) => row.match(/\w+/g) ?? []);
  expect(rows).toEqual(expect.arrayContaining(Object.keys(ScheduleProgramme.properties)));
});

describe('findScheduleFault', () => {
  const faultOf = (change: Partial<ScheduleProgramme>, timeZone = 'UTC') =>
    findScheduleFault({
      timeZone,
      programmes: [daily('2026-01-01T10:00', 'film'), { ...daily('2026-01-01T10:00', 'film'), ...change }],
    })?.where;

  it('says where', () => {
    expect(faultOf({})).toBeUndefined();
    expect(faultOf({}, 'Mars/Olympus')).toBe('timeZone');
    expect(faultOf({ start: '2026-02-30T10:00' })).toBe('programmes[1].start');
    expect(faultOf({ start: '2026-02-03T24:00' })).toBe('programmes[1].start');
    expect(faultOf({ days: ['mon'] })).toBe('programmes[1].days');
    expect(faultOf({ until: '2026-13-01' })).toBe('programmes[1].until');
    expect(faultOf({ until: '2025-12-31' })).toBe('programmes[1].until');
    expect(faultOf({ until: '2026-01-01' })).toBeUndefined();
    expect(faultOf({ duration: '0:00:00' })).toBe('programmes[1].duration');
    expect(
      findScheduleFault({
        timeZone: 'UTC',
        programmes: [{ start: '2026-01-01T10:00', until: '2026-01-01', items: ['film'] }],
      })?.where,
    ).toBe('programmes[0].until');
  });
});

/** One item on the air, as both implementations tell it. */
type Airing = Pick<
  ProgrammePosition,
  | 'assetId'
  | 'startTicks'
  | 'endTicks'
  | 'originTicks'
  | 'segmentCount'
  | 'firstMediaSequenceNumber'
  | 'discontinuitySequence'
>;

/** Walks over runs, item by item. */
function airingsOf(runs: readonly Run[], fromTicks: number, untilTicks: number): Airing[] {
  const airings: Airing[] = [];
  for (let ticks = fromTicks; ticks < untilTicks; ) {
    const position = programmeAt(runs, assets, ticks);
    if (!position) {
      ticks = runs.find((run) => run.startTicks > ticks)?.startTicks ?? untilTicks;
      continue;
    }
    const {
      assetId,
      startTicks,
      originTicks,
      segmentCount,
      firstMediaSequenceNumber,
      discontinuitySequence,
    } = position;
    airings.push({
      assetId,
      startTicks,
      endTicks: Math.min(position.endTicks, untilTicks),
      originTicks,
      segmentCount,
      firstMediaSequenceNumber,
      discontinuitySequence,
    });
    ticks = position.endTicks;
  }
  return airings;
}

/**
 * The same rules over again, as simply as can be: a clock that ticks twice a second from the start, and what is
 * on in memory.
 */
function simulate(schedule: Schedule, epochUnixMs: number, untilTicks: number): Airing[] {
  const STEP = SECOND / 2;
  const events = schedule.programmes
    .flatMap((programme, index) =>
      airingTimes(programme, schedule.timeZone, epochUnixMs, untilTicks).map((ticks) => ({
        ticks,
        programme,
        index,
      })),
    )
    .sort((a, b) => a.ticks - b.ticks || a.index - b.index);
  const onByPriority = new Map<number, (typeof events)[number]>();
  const airings: ({ -readonly [K in keyof Airing]: Airing[K] } & { segmentStarts: number[] })[] = [];
  let piece: unknown;
  let queue: Iterator<{ assetId: string; fromTicks: number }> | undefined;
  let wasEmpty = false;

  const segmentStartsOf = (assetId: string) => {
    const asset = assets.get(assetId);
    const found: number[] = [];
    const frames = ((asset?.durationTicks ?? 0) / SECOND) * 24;
    for (let frame = 0; frame < frames; frame += 48) found.push(frame);
    if (frames % 48 > 0 && frames % 48 < 24)
      found[found.length - 1] = frames - Math.floor((48 + (frames % 48)) / 2);
    return found.map((frame) => (frame * SECOND) / 24);
  };
  const open = (ticks: number) => {
    const next = queue?.next();
    if (!next || next.done === true) return;
    const { assetId, fromTicks } = next.value;
    const last = airings.at(-1);
    const isSame = assets.get(last?.assetId ?? '')?.configHash === assets.get(assetId)?.configHash;
    airings.push({
      assetId,
      startTicks: ticks,
      endTicks: ticks,
      originTicks: ticks - fromTicks,
      segmentCount: 0,
      segmentStarts: segmentStartsOf(assetId).filter((start) => start >= fromTicks),
      firstMediaSequenceNumber: last ? last.firstMediaSequenceNumber + last.segmentCount : 0,
      discontinuitySequence: last ? last.discontinuitySequence + (isSame && !wasEmpty ? 0 : 1) : 0,
    });
    wasEmpty = false;
  };
  const close = (ticks: number) => {
    const airing = airings.at(-1);
    if (!airing || wasEmpty || piece === undefined) return;
    airing.endTicks = ticks;
    const playedTicks = ticks - airing.originTicks;
    const begun = airing.segmentStarts.filter((start) => start < playedTicks);
    const isCut = playedTicks < (assets.get(airing.assetId)?.durationTicks ?? 0);
    const restTicks = playedTicks - (begun.at(-1) ?? 0);
    airing.segmentCount = begun.length - (isCut && begun.length > 1 && restTicks < STEP ? 1 : 0);
  };
  function* passes(items: readonly string[], shuffleSeed: number | undefined) {
    for (let pass = 0; ; pass++) {
      const configs = items.map((assetId) => assets.get(assetId)?.configHash ?? '');
      const order = shuffleSeed === undefined ? items.keys() : passOrder(configs, shuffleSeed, pass);
      for (const i of order) yield { assetId: items[i] ?? '', fromTicks: 0 };
    }
  }
  function* resumed(
    items: readonly string[],
    shuffleSeed: number | undefined,
    elapsedTicks: number,
    isLoop: boolean,
  ) {
    let offsetTicks = 0;
    for (const item of passes(items, shuffleSeed)) {
      const { durationTicks = 0 } = assets.get(item.assetId) ?? {};
      if (offsetTicks >= elapsedTicks) yield item;
      else if (offsetTicks + durationTicks > elapsedTicks && !isLoop) {
        const fromTicks = segmentStartsOf(item.assetId).findLast(
          (start) => start <= elapsedTicks - offsetTicks,
        );
        yield { ...item, fromTicks: fromTicks ?? 0 };
      }
      offsetTicks += durationTicks;
    }
  }

  for (let ticks = 0; ticks <= untilTicks; ticks += STEP) {
    while ((events[0]?.ticks ?? Number.POSITIVE_INFINITY) <= ticks) {
      const event = events.shift();
      if (event) onByPriority.set(event.programme.priority ?? 0, event);
    }
    const winner = [...onByPriority]
      .filter(([, { ticks: startTicks, programme }]) => ticks < startTicks + lengthTicks(programme))
      .sort(([a], [b]) => b - a)[0]?.[1];
    const nowOn = winner ?? schedule.filler;
    const airing = airings.at(-1);
    if (ticks === untilTicks) {
      close(ticks);
    } else if (ticks === 0 || nowOn !== piece) {
      close(ticks);
      piece = nowOn;
      const seed = (at: number) => seedAt(schedule.seed ?? 0, at);
      if (winner) {
        const { programme, ticks: startTicks } = winner;
        const shuffleSeed = programme.order === 'shuffle' ? seed(startTicks) : undefined;
        queue = resumed(programme.items, shuffleSeed, ticks - startTicks, programme.loop === true);
        open(ticks);
      } else if (schedule.filler) {
        queue = passes(schedule.filler.items, schedule.filler.order === 'shuffle' ? seed(ticks) : undefined);
        open(ticks);
      } else {
        queue = undefined;
        wasEmpty = airings.length > 0;
      }
    } else if (
      queue &&
      airing &&
      ticks - airing.originTicks >= (assets.get(airing.assetId)?.durationTicks ?? 0)
    ) {
      close(ticks);
      open(ticks);
    }
  }
  return airings.map(({ segmentStarts: _, ...airing }) => airing);
}

function lengthTicks({ items, loop, duration }: ScheduleProgramme): number {
  const [hours = 0, minutes = 0, seconds = 0] = (duration ?? '9999:00:00').split(':').map(Number);
  const limitTicks = (hours * 3600 + minutes * 60 + seconds) * SECOND;
  const ownTicks = items.reduce((sum, assetId) => sum + (assets.get(assetId)?.durationTicks ?? 0), 0);
  return loop === true ? limitTicks : Math.min(limitTicks, ownTicks);
}

/** Every start from eight days before, found with Intl alone. */
function airingTimes(
  { start, repeat, days, until }: ScheduleProgramme,
  timeZone: string,
  epochUnixMs: number,
  untilTicks: number,
): number[] {
  const format = new Intl.DateTimeFormat('sv-SE', { timeZone, dateStyle: 'short', timeStyle: 'medium' });
  const read = (unixMs: number) => Date.parse(`${format.format(unixMs).replace(' ', 'T')}Z`);
  const [firstDate = '', time = ''] = start.split('T');
  const found: number[] = [];
  const firstDay = Date.parse(`${firstDate}T00:00Z`);
  for (let day = firstDay; day <= epochUnixMs + untilTicks / 90 + 2 * 86_400_000; day += 86_400_000) {
    const date = new Date(day).toISOString().slice(0, 10);
    const weekday = new Date(day).toUTCString().slice(0, 3).toLowerCase();
    const isDay =
      repeat === undefined
        ? day === firstDay
        : repeat === 'daily' ||
          (days === undefined
            ? (day - firstDay) % (7 * 86_400_000) === 0
            : days.some((one) => one === weekday));
    if (!isDay || (until !== undefined && date > until)) continue;
    const wall = Date.parse(`${date}T${time}Z`);
    const before = read(wall - 86_400_000) - (wall - 86_400_000);
    const after = read(wall + 86_400_000) - (wall + 86_400_000);
    const matching = [wall - before, wall - after].filter((unixMs) => read(unixMs) === wall);
    // In the gap: by the clock that was right before it.
    const unixMs = matching.length > 0 ? Math.min(...matching) : wall - before;
    found.push((unixMs - epochUnixMs) * 90);
  }
  return found;
}

/** Days when the clocks change, in the morning UTC of the day before. */
const mornings = [
  ['Europe/Berlin', '2026-03-28T22:00:00Z'],
  ['Europe/Berlin', '2026-10-24T22:00:00Z'],
  ['America/New_York', '2026-03-08T05:00:00Z'],
  ['America/New_York', '2026-11-01T04:00:00Z'],
  ['Australia/Lord_Howe', '2026-04-04T13:00:00Z'],
  ['Australia/Lord_Howe', '2026-10-03T14:00:00Z'],
  ['Asia/Kolkata', '2026-10-24T22:00:00Z'],
  ['UTC', '2026-11-22T00:00:00Z'],
] as const;

const someItems = fc.array(fc.constantFrom(...assets.keys()), { minLength: 1, maxLength: 5 });
const order = fc.option(fc.constantFrom('sequence' as const, 'shuffle' as const), { nil: undefined });
const optional = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: undefined });

function anyProgramme(aroundUnixMs: number): fc.Arbitrary<ScheduleProgramme> {
  return fc
    .record({
      minute: fc.integer({ min: -60 * 30, max: 60 * 30 }),
      daysBefore: fc.integer({ min: 0, max: 10 }),
      repeat: optional(fc.constantFrom('daily' as const, 'weekly' as const)),
      days: optional(
        fc.uniqueArray(fc.constantFrom('mon', 'wed', 'sat', 'sun'), { minLength: 1, maxLength: 3 }),
      ),
      items: someItems,
      order,
      loop: optional(fc.boolean()),
      duration: optional(fc.constantFrom('0:00:07', '0:09:59', '0:30:00', '2:00:00')),
      priority: optional(fc.integer({ min: -1, max: 1 })),
      title: optional(fc.constantFrom('A', 'B')),
    })
    .map(({ minute, daysBefore, days, ...rest }) => {
      const unixMs =
        aroundUnixMs + minute * 60_000 - (rest.repeat === undefined ? 0 : daysBefore * 86_400_000);
      const start = new Date(unixMs).toISOString().slice(0, 16);
      const withDays = rest.repeat === 'weekly' ? { ...rest, days } : rest;
      return JSON.parse(JSON.stringify({ ...withDays, start }));
    });
}

const anySchedule = fc.constantFrom(...mornings).chain(([timeZone, from]) =>
  fc
    .record({
      seed: fc.integer({ min: 0, max: 1000 }),
      filler: optional(fc.record({ items: someItems, order: fc.constantFrom('sequence', 'shuffle') })),
      programmes: fc.array(anyProgramme(Date.parse(from)), { maxLength: 8 }),
    })
    .map((schedule) => ({
      epochUnixMs: Date.parse(from),
      schedule: JSON.parse(JSON.stringify({ timeZone, ...schedule })) as Schedule,
    })),
);

describe('any schedule', { timeout: 120_000 }, () => {
  it('plays what a simulation from the start plays, with the same numbers', () => {
    fc.assert(
      fc.property(anySchedule, ({ schedule, epochUnixMs }) => {
        const untilTicks = 8 * HOUR;
        const runs = runsOf(schedule, epochUnixMs, untilTicks);
        const cut = [...runs.filter((run) => run.startTicks < untilTicks)];
        cut.push(numberedOn(cut.slice(-1), assets, { startTicks: untilTicks, loop: [] }));
        expect(airingsOf(cut, 0, untilTicks)).toEqual(simulate(schedule, epochUnixMs, untilTicks));
      }),
      { numRuns: 80 },
    );
  });

  it('has one answer for every time, the same for the horizon of a day, a week, or none', () => {
    fc.assert(
      fc.property(anySchedule, fc.integer({ min: 0, max: 7 * DAY }), ({ schedule, epochUnixMs }, ticks) => {
        const stretches = stretchesOf(schedule, epochUnixMs);
        const week = runsOf(schedule, epochUnixMs, 7 * DAY);
        const day = runsOf(schedule, epochUnixMs, DAY);
        expect(week.slice(0, day.length)).toEqual(day);
        expect(extendRuns(day, stretches, { assets, untilTicks: 7 * DAY, maxCount: 1e6 })).toEqual(week);
        // Without the runs before: the same but for the numbers, and for what the channel has sent until then.
        const { content, endTicks } = stretches.at(ticks);
        const run = week[runIndexAt(week, ticks)];
        if (!run) throw new Error('no run');
        const { firstMediaSequenceNumber: _m, firstDiscontinuitySequence: _d, tracks: _t, ...written } = run;
        expect(content).toEqual(written);
        expect(endTicks).toBeGreaterThan(ticks);
      }),
      { numRuns: 80 },
    );
  });
});

describe('an edit', { timeout: 120_000 }, () => {
  const horizon = { assets, untilTicks: 10 * HOUR, maxCount: 100_000 };

  it('never changes what was on before, and goes on with the numbers', () => {
    fc.assert(
      fc.property(
        anySchedule,
        anySchedule,
        fc.array(
          fc.record({
            earliestTicks: fc.integer({ min: 0, max: 6 * HOUR }),
            effective: fc.constantFrom('now' as const, 'boundary' as const),
          }),
          { minLength: 1, maxLength: 4 },
        ),
        ({ schedule, epochUnixMs }, other, edits) => {
          const schedules = [{ ...other.schedule, timeZone: schedule.timeZone }, schedule];
          let runs = runsOf(schedule, epochUnixMs, 10 * HOUR);
          for (const { earliestTicks, effective } of edits.sort(
            (a, b) => a.earliestTicks - b.earliestTicks,
          )) {
            const next = schedules[0] ?? schedule;
            schedules.reverse();
            const edited = editRuns({
              ...horizon,
              runs,
              schedule: next,
              epochUnixMs,
              earliestTicks,
              effective,
            });
            const from = edited.effectiveTicks;
            expect(from).toBeGreaterThanOrEqual(earliestTicks);
            const beforeEdit = airingsOf(runs, 0, from);
            const afterEdit = airingsOf(edited.runs, 0, from);
            // The item that is on where the edit begins may be cut, and lose segments that lie behind the cut.
            expect(afterEdit.map((one) => ({ ...one, segmentCount: 0 }))).toEqual(
              beforeEdit.map((one) => ({ ...one, segmentCount: 0 })),
            );
            expect(afterEdit.slice(0, -1)).toEqual(beforeEdit.slice(0, -1));
            runs = edited.runs;
            const stretch = new Stretches({
              schedule: next,
              assets,
              epochUnixMs,
              validFromTicks: edited.validFromTicks,
            }).at(Math.max(from, 9 * HOUR));
            expect(runs.findLast((run) => run.startTicks <= Math.max(from, 9 * HOUR))).toMatchObject(
              stretch.content,
            );
          }
          const airings = airingsOf(runs, 0, 10 * HOUR);
          for (const [i, airing] of airings.slice(1).entries()) {
            const before = airings[i];
            expect(airing.firstMediaSequenceNumber).toBe(
              (before?.firstMediaSequenceNumber ?? 0) + (before?.segmentCount ?? 0),
            );
            expect(airing.segmentCount).toBeGreaterThan(0);
            expect(airing.discontinuitySequence - (before?.discontinuitySequence ?? 0)).toBeLessThanOrEqual(
              1,
            );
          }
        },
      ),
      { numRuns: 80 },
    );
  });

  it('interrupts nothing that both schedules agree on', () => {
    const schedule: Schedule = { timeZone: 'UTC', filler: { items: ['clip', 'show'] }, programmes: [] };
    const epochUnixMs = Date.parse('2026-11-22T00:00:00Z');
    const runs = runsOf(schedule, epochUnixMs, 10 * HOUR);
    const edited = editRuns({
      ...horizon,
      runs,
      schedule: { ...schedule, programmes: [{ start: '2026-11-22T05:00', items: ['film'] }] },
      epochUnixMs,
      earliestTicks: 1000 * SECOND,
      effective: 'now',
    });
    expect(edited.runs.map((run) => [run.startTicks / HOUR, run.loop[0]])).toEqual([
      [0, 'clip'],
      [5, 'film'],
      [6, 'clip'],
    ]);
  });

  it('at once joins the new programme where it would be by now, between two segments of the old one', () => {
    const epochUnixMs = Date.parse('2026-11-22T10:00:00Z');
    const at = (...items: string[]): Schedule => ({
      timeZone: 'UTC',
      filler: { items: ['spot'] },
      programmes: [{ start: '2026-11-22T10:00', items }],
    });
    const runs = runsOf(at('show'), epochUnixMs, 10 * HOUR);
    const edited = editRuns({
      ...horizon,
      runs,
      schedule: at('film'),
      epochUnixMs,
      earliestTicks: 100.5 * SECOND,
      effective: 'now',
    });
    expect(edited.effectiveTicks).toBe(102 * SECOND);
    expect(programmeAt(edited.runs, assets, 102 * SECOND)).toMatchObject({
      assetId: 'film',
      startTicks: 102 * SECOND,
      originTicks: 0,
      firstSegmentIndex: 51,
      firstMediaSequenceNumber: 51,
    });
    const later = editRuns({
      ...horizon,
      runs,
      schedule: at('film'),
      epochUnixMs,
      earliestTicks: 100.5 * SECOND,
      effective: 'boundary',
    });
    expect(later.effectiveTicks).toBe(1504.5 * SECOND);
  });
});
