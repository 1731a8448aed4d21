import { programmeAt, type Run, TIMELINE_HZ } from '@starling/model/schedule';
import type { Schedule } from '@starling/model/schedule-definition';
import fc from 'fast-check';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { parseCsv, parseYaml, toCsv, toYaml } from '../src/schedule-files.ts';
import { addReadyAsset, factsOf, type Lab, operatorToken, startLab } from './support.ts';

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;
const START_MS = Date.UTC(2026, 10, 22, 12, 0, 0);

let lab: Lab;
const ids: Record<string, string> = {};
beforeAll(async () => {
  lab = await startLab();
  for (const [name, seconds] of [
    ['film', 3600],
    ['news', 600],
    ['clip', 30],
    ['spot', 10],
  ] as const) {
    ids[name] = await addReadyAsset(lab, name, seconds);
  }
}, 60_000);
afterAll(() => lab.close());

let channelCount = 0;
let channel = '';
beforeEach(async () => {
  lab.nowMs = START_MS;
  channel = `channel-${++channelCount}`;
  await lab.operator.channels.create({ name: channel, loop: ['clip', 'spot'] });
});

const assets = () => new Map(Object.entries(ids).map(([name, id]) => [id, factsOf(seconds(name))]));
const seconds = (name: string) => ({ film: 3600, news: 600, clip: 30, spot: 10 })[name] ?? 0;

const evening: Schedule = {
  timeZone: 'Europe/Berlin',
  seed: 5,
  filler: { items: ['clip', 'spot'], order: 'shuffle' },
  programmes: [
    { start: '2026-11-22T20:00', repeat: 'daily', items: ['news'], title: 'The news' },
    {
      start: '2026-11-22T20:15:30',
      repeat: 'weekly',
      days: ['sun', 'wed'],
      until: '2027-01-31',
      items: ['film'],
    },
  ],
};

async function runsOf(name = channel): Promise<Run[]> {
  return (await lab.operator.channels.get(name)).runs;
}

/** Start of each run on the clock, with the name of its first asset. */
async function timesOf(): Promise<string[]> {
  const { epochUnixMs, runs } = await lab.operator.channels.get(channel);
  const nameOf = (id: string | undefined) => Object.keys(ids).find((name) => ids[name] === id) ?? '-';
  return runs.map(
    ({ startTicks, loop }) =>
      `${new Date(epochUnixMs + startTicks / 90).toISOString().slice(5, 19)} ${nameOf(loop[0])}`,
  );
}

describe('a schedule', { timeout: 60_000 }, () => {
  it('of a channel that loops is nothing but filler', async () => {
    expect(await lab.operator.schedules.get(channel)).toEqual({
      timeZone: 'UTC',
      filler: { items: ['clip', 'spot'] },
      programmes: [],
    });
  });

  it('is given back as it was set, and takes effect after the item that is on', async () => {
    const { effectiveAt } = await lab.operator.schedules.set(channel, evening);
    // The timeline began 30 s before; with the lead of 3 s, the second item is on until 10 s from now.
    expect(effectiveAt).toBe('2026-11-22T12:00:10.000Z');
    expect(await lab.operator.schedules.get(channel)).toEqual(evening);
    const times = await timesOf();
    expect(times.slice(0, 6)).toEqual([
      '11-22T11:59:30 clip',
      '11-22T12:00:10 clip',
      '11-22T19:00:00 news',
      '11-22T19:10:00 clip',
      '11-22T19:15:30 film',
      '11-22T20:15:30 clip',
    ]);
    // Two weeks, and the last run until after that.
    const last = (await runsOf()).at(-1);
    expect((last?.startTicks ?? 0) / 90).toBeGreaterThan(13 * DAY_MS);
  });

  it('takes effect at once where it is asked to, between two segments, with numbers that go on', async () => {
    await lab.operator.schedules.set(channel, {
      timeZone: 'UTC',
      filler: { items: ['film'] },
      programmes: [],
    });
    lab.nowMs += 20 * MINUTE_MS + 500;
    const before = await runsOf();
    const { effectiveAt } = await lab.operator.schedules.set(channel, evening, 'now');
    expect(effectiveAt).toBe('2026-11-22T12:20:04.000Z');
    const after = await runsOf();
    expect(after.slice(0, 2)).toEqual(before.slice(0, 2));
    const { epochUnixMs } = await lab.operator.channels.get(channel);
    const ticks = (Date.parse(effectiveAt) - epochUnixMs) * 90;
    const last = programmeAt(after, assets(), ticks - 1);
    expect(programmeAt(after, assets(), ticks)).toMatchObject({
      startTicks: ticks,
      firstMediaSequenceNumber: (last?.firstMediaSequenceNumber ?? 0) + (last?.segmentCount ?? 0),
      discontinuitySequence: last?.discontinuitySequence,
    });
  });

  it('replaces one that has not begun yet', async () => {
    await lab.operator.schedules.set(channel, {
      timeZone: 'UTC',
      filler: { items: ['film'] },
      programmes: [],
    });
    await lab.operator.schedules.set(channel, {
      timeZone: 'UTC',
      filler: { items: ['news'] },
      programmes: [],
    });
    expect(await timesOf()).toEqual(['11-22T11:59:30 clip', '11-22T12:00:10 news']);
  });

  it('keeps names apart from ids', async () => {
    const twin = await addReadyAsset(lab, 'twin', 10);
    await addReadyAsset(lab, 'twin', 10);
    await lab.operator.schedules.set(channel, {
      timeZone: 'UTC',
      filler: { items: [twin, ids.spot ?? ''] },
      programmes: [],
    });
    expect((await lab.operator.schedules.get(channel)).filler?.items).toEqual([twin, 'spot']);
  });

  it('is carried on as time goes by, without a change to what is written down', async () => {
    await lab.operator.schedules.set(channel, evening);
    const before = await runsOf();
    lab.nowMs += 5 * DAY_MS;
    lab = await lab.restart();
    const after = await runsOf();
    expect(after.length).toBeGreaterThan(before.length + 10);
    expect(after.slice(0, before.length)).toEqual(before);
    // What is over for two weeks is forgotten.
    lab.nowMs += 12 * DAY_MS;
    lab = await lab.restart();
    const later = await runsOf();
    expect(after).toEqual(expect.arrayContaining(later.slice(0, 10)));
    expect(later[0]?.startTicks).toBeGreaterThan(2 * DAY_MS * 90);
    expect(later[1]?.startTicks).toBeGreaterThan(3 * DAY_MS * 90 - 30_000 * 90);
  });

  it('goes on with the present after nobody wrote anything down for two months', async () => {
    await lab.operator.schedules.set(channel, evening);
    const last = (await runsOf()).at(-1);
    lab.nowMs += 61 * DAY_MS;
    lab = await lab.restart();
    const runs = await runsOf();
    expect(runs[0]).toEqual(last);
    // The last run was on all the while, and its numbers are with the viewers.
    const { epochUnixMs } = await lab.operator.channels.get(channel);
    expect(runs[1]?.startTicks).toBeGreaterThan((lab.nowMs - epochUnixMs) * 90);
    expect(runs[1]?.startTicks).toBeLessThan((lab.nowMs + MINUTE_MS - epochUnixMs) * 90);
    expect(runs.length).toBeGreaterThan(30);
  });

  it('holds its assets, and gives up those that were on in the past', async () => {
    const once = await addReadyAsset(lab, 'once', 10);
    await lab.operator.schedules.set(channel, {
      timeZone: 'UTC',
      filler: { items: ['spot'] },
      programmes: [{ start: '2026-11-22T13:00', items: ['once'] }],
    });
    await expect(lab.operator.assets.remove(once)).rejects.toMatchObject({
      code: 'ASSET_IN_USE',
      detail: expect.stringContaining(channel),
    });
    lab.nowMs += HOUR_MS;
    await lab.operator.schedules.set(channel, {
      timeZone: 'UTC',
      filler: { items: ['spot'] },
      programmes: [],
    });
    // It has only begun.
    await expect(lab.operator.assets.remove(once)).rejects.toMatchObject({ code: 'ASSET_IN_USE' });
    lab.nowMs += MINUTE_MS;
    await lab.operator.assets.remove(once);
    expect((await lab.operator.publicChannels.list()).length).toBeGreaterThan(0);
  });
});

describe('a schedule that is wrong', () => {
  const put = (schedule: unknown, query = '') =>
    lab.request('PUT', `/api/v1/channels/${channel}/schedule${query}`, {
      token: operatorToken,
      body: schedule,
    });
  const programme = evening.programmes[0];

  it.each([
    ['no time zone', { programmes: [] }, /timeZone/],
    ['another time zone', { timeZone: 'Berlin', programmes: [] }, /^timeZone: Berlin is not a time zone/],
    ['a misspelt field', { ...evening, fillers: [] }, /^fillers is not a field/],
    [
      'a day that does not exist',
      { ...evening, programmes: [programme, { ...programme, start: '2026-02-29T20:00' }] },
      /^programmes\[1\]\.start: 2026-02-29T20:00 is not a date/,
    ],
    [
      'a time in another form',
      { ...evening, programmes: [programme, { ...programme, start: '8 pm' }] },
      /^programmes\[1\]\.start must match/,
    ],
    [
      'a day of no week',
      { ...evening, programmes: [{ ...programme, repeat: 'weekly', days: ['so'] }] },
      /^programmes\[0\]\.days\[0\]/,
    ],
    ['no items', { ...evening, filler: { items: [] } }, /^filler\.items must not have fewer than 1/],
  ])('says where: %s', async (_name, schedule, detail) => {
    const response = await put(schedule);
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({
      code: 'SCHEDULE_INVALID',
      detail: expect.stringMatching(detail),
    });
    expect(await runsOf()).toHaveLength(1);
  });

  it.each([
    [
      'ASSET_UNKNOWN',
      404,
      { ...evening, programmes: [programme, { ...programme, items: ['news', 'lost'] }] },
    ],
  ])('names the asset and where it stands: %s', async (code, status, schedule) => {
    const response = await put(schedule);
    expect(response.status).toBe(status);
    expect(await response.json()).toMatchObject({
      code,
      detail: 'programmes[1].items[1]: There is no asset lost.',
    });
  });

  it('refuses other channels, and words for when', async () => {
    expect((await put(evening, '?effective=soon')).status).toBe(400);
    await lab.operator.streams.create({ name: 'cam' });
    await expect(lab.operator.schedules.set('cam', evening)).rejects.toMatchObject({
      code: 'CHANNEL_IS_LIVE',
    });
    await expect(lab.operator.schedules.get('nothing')).rejects.toMatchObject({ code: 'CHANNEL_UNKNOWN' });
    await lab.operator.streams.remove('cam');
  });
});

describe('the preview', { timeout: 60_000 }, () => {
  it('goes from what is written down to years ahead', async () => {
    await lab.operator.schedules.set(channel, evening);
    const soon = await lab.operator.schedules.preview(channel, 2, Date.parse('2026-11-22T18:59:50Z'));
    expect(soon.find(({ title }) => title === 'The news')).toEqual({
      startsAt: '2026-11-22T19:00:00.000Z',
      endsAt: '2026-11-22T19:10:00.000Z',
      title: 'The news',
      assetId: ids.news,
      assetName: 'news',
    });
    for (const [i, item] of soon.slice(1).entries()) expect(item.startsAt).toBe(soon[i]?.endsAt);
    // In summer 20:00 in Berlin is 18:00 UTC; the film was on for the last time in January.
    const later = await lab.operator.schedules.preview(channel, 3, Date.parse('2031-07-06T17:30:00Z'));
    expect(later.filter(({ assetName }) => assetName !== 'clip' && assetName !== 'spot')).toMatchObject([
      { startsAt: '2031-07-06T18:00:00.000Z', endsAt: '2031-07-06T18:10:00.000Z', title: 'The news' },
    ]);
    // The same from the runs and from the schedule alone.
    const day = Date.parse('2026-12-10T18:00:00Z');
    const beyond = await lab.operator.schedules.preview(channel, 4, day);
    lab.nowMs += 10 * DAY_MS;
    lab = await lab.restart();
    const written = await lab.operator.schedules.preview(channel, 4, day);
    expect(written).toEqual(beyond);
  });

  it('leaves out the time in which nothing is on', async () => {
    await lab.operator.schedules.set(channel, {
      timeZone: 'UTC',
      programmes: [{ start: '2026-11-22T14:00', repeat: 'daily', items: ['news'] }],
    });
    const items = await lab.operator.schedules.preview(channel, 48, START_MS + HOUR_MS);
    expect(items.map(({ startsAt, endsAt }) => [startsAt.slice(5, 16), endsAt.slice(5, 16)])).toEqual([
      ['11-22T14:00', '11-22T14:10'],
      ['11-23T14:00', '11-23T14:10'],
    ]);
  });

  it('ends after 2000 items', async () => {
    expect(await lab.operator.schedules.preview(channel, 700)).toHaveLength(2000);
  });
});

describe('files', { timeout: 60_000 }, () => {
  it.each(['yaml', 'csv'] as const)('come out as %s and go in again', async (format) => {
    const full: Schedule = {
      ...evening,
      programmes: [
        ...evening.programmes,
        {
          start: '2026-12-24T18:00',
          items: ['film', 'news'],
          order: 'shuffle',
          loop: true,
          duration: '3:30:00',
          priority: -2,
          title: 'Christmas, "eve"',
          description: 'Two lines\nand; a semicolon',
          category: 'Film',
        },
      ],
    };
    await lab.operator.schedules.set(channel, full);
    const text = await lab.operator.schedules.export(channel, format);
    await lab.operator.schedules.set(channel, {
      timeZone: 'UTC',
      filler: { items: ['spot'] },
      programmes: [],
    });
    await lab.operator.schedules.import(channel, text, format, 'now');
    expect(await lab.operator.schedules.get(channel)).toEqual(full);
  });

  it('are what a spreadsheet would write', async () => {
    const csv = [
      '\uFEFFkind,start,repeat,items,title,timeZone',
      'schedule,,,,,Europe/Berlin',
      'filler,,,clip; spot,,',
      'programme,2026-11-22T20:00,daily,"news","He said ""hello""",',
      ',2026-11-22T21:00,,film,,',
      ',,,,,',
      '',
    ].join('\r\n');
    await lab.operator.schedules.import(channel, csv, 'csv');
    expect(await lab.operator.schedules.get(channel)).toEqual({
      timeZone: 'Europe/Berlin',
      filler: { items: ['clip', 'spot'] },
      programmes: [
        { start: '2026-11-22T20:00', repeat: 'daily', items: ['news'], title: 'He said "hello"' },
        { start: '2026-11-22T21:00', items: ['film'] },
      ],
    });
  });

  it.each([
    ['yaml', 'timeZone: UTC\nprogrammes: [', /^The YAML cannot be read: .*line 2/],
    ['yaml', 'a: &a [1]\nb: *a\n', /alias/],
    ['yaml', 'timeZone: UTC\nprogrammes:\n  - start: 5\n    items: [film]\n', /^programmes\[0\]\.start/],
    ['csv', 'kind,when\n', /^Row 1 of the CSV: there is no column "when"/],
    ['csv', 'kind,start\nfiller,a,b\n', /^Row 2 of the CSV: it has more cells/],
    ['csv', 'kind,start\nfilm,a\n', /^Row 2 of the CSV: "film" is no kind of row/],
    ['csv', 'kind,timeZone\nschedule,"UTC\n', /^Row 2 of the CSV: the quotes/],
    [
      'csv',
      'kind,timeZone,start,items,priority\nschedule,UTC\nprogramme,,2026-01-01T10:00,film,high\n',
      /^programmes\[0\]\.priority/,
    ],
  ] as const)('that are wrong are refused: %s %j', async (format, text, detail) => {
    await expect(lab.operator.schedules.import(channel, text, format)).rejects.toMatchObject({
      code: 'SCHEDULE_INVALID',
      detail: expect.stringMatching(detail),
    });
  });

  const text = fc
    .string({ unit: 'grapheme', minLength: 1, maxLength: 20 })
    .filter((one) => one.trim() !== '');
  const optional = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: undefined });
  const anySchedule = fc.record({
    timeZone: fc.constantFrom('UTC', 'America/New_York'),
    seed: optional(fc.nat()),
    filler: optional(
      fc.record({ items: fc.array(text, { minLength: 1 }), order: optional(fc.constant('shuffle')) }),
    ),
    programmes: fc.array(
      fc.record({
        start: fc.constantFrom('2026-01-01T10:00', '2026-01-01T10:00:30'),
        repeat: optional(fc.constantFrom('daily', 'weekly')),
        days: optional(fc.constant(['mon', 'sun'])),
        items: fc.array(text, { minLength: 1 }),
        loop: optional(fc.boolean()),
        priority: optional(fc.integer({ min: -100, max: 100 })),
        title: optional(text),
        description: optional(text),
      }),
    ),
  });

  it('say the same as the schedule, whatever is in it', () => {
    fc.assert(
      fc.property(anySchedule, (some) => {
        const schedule: Schedule = JSON.parse(JSON.stringify(some));
        expect(parseYaml(toYaml(schedule))).toEqual(schedule);
        expect(parseCsv(toCsv(schedule))).toEqual(schedule);
      }),
    );
  });
});

it('numbers segments for as long as a channel lasts', async () => {
  await lab.operator.schedules.set(channel, evening);
  const runs = await runsOf();
  const facts = assets();
  let expected: number | undefined;
  for (let ticks = 0; ticks < 13 * 86_400 * TIMELINE_HZ; ) {
    const position = programmeAt(runs, facts, ticks);
    if (position === undefined) throw new Error(`nothing is on at ${ticks}`);
    if (expected !== undefined) expect(position.firstMediaSequenceNumber).toBe(expected);
    expected = position.firstMediaSequenceNumber + position.segmentCount;
    ticks = position.endTicks;
  }
});
