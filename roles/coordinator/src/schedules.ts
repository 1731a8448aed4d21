/**
 * The schedules of the channels, and the runs that follow from them. Runs are written down two weeks ahead:
 * their segment numbers are settled then, and an edit replaces only those that nobody has seen yet.
 */
import type { ScheduledItem } from '@starling/model/entities';
import { editRuns, extendRuns } from '@starling/model/runs';
import { type AssetFacts, programmeAt, type Run, runIndexAt, TIMELINE_HZ } from '@starling/model/schedule';
import { type Effective, findScheduleFault, Schedule } from '@starling/model/schedule-definition';
import { Stretches } from '@starling/model/stretches';
import type { Insertable, Kysely, Selectable } from 'kysely';
import type { Logger } from 'pino';
import { Check, Errors } from 'typebox/value';
import { readAssets, resolveAssets } from './assets.ts';
import type { Changes } from './changes.ts';
import type { Tables, Transaction } from './database.ts';
import { ApiProblem, unknownChannel } from './problem.ts';

const TICKS_PER_MS = TIMELINE_HZ / 1000;
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
/** Every backend hears of an edit within this time, and a segment that was begun is finished. */
const EDIT_LEAD_MS = 3000;
/** So far ahead runs are written down, and again when a day of that is used up. */
const HORIZON_MS = 14 * DAY_MS;
const MIN_HORIZON_MS = 13 * DAY_MS;
const EXTEND_EVERY_MS = HOUR_MS;
/** Of a channel, and at a time. A schedule that fills it sooner is looked at again within the hour. */
const MAX_RUNS_AHEAD = 5000;
/** So long what was on is remembered, for the guide of the past. */
const HISTORY_MS = 14 * DAY_MS;
const INSERT_ROWS = 500;
const MAX_PREVIEW_ITEMS = 2000;

/** A channel's schedule as it is stored, and what follows from it. */
interface Scheduled {
  readonly channel: string;
  readonly epochUnixMs: number;
  /** With assets by id. */
  readonly schedule: Schedule;
  readonly validFromTicks: number;
  readonly runs: readonly Run[];
}

export class Schedules {
  readonly #db: Kysely<Tables>;
  readonly #changes: Changes;
  readonly #logger: Logger;
  readonly #now: () => number;
  #timer: NodeJS.Timeout | undefined;

  constructor(db: Kysely<Tables>, changes: Changes, logger: Logger, now: () => number) {
    this.#db = db;
    this.#changes = changes;
    this.#logger = logger;
    this.#now = now;
  }

  /** Writes down the runs to come, now and from time to time. */
  async start(): Promise<void> {
    await this.extend();
    this.#timer = setInterval(() => {
      this.extend().catch((error: unknown) =>
        this.#logger.error(
          { err: error },
          'the schedules could not be carried on; it is tried again within the hour',
        ),
      );
    }, EXTEND_EVERY_MS);
    this.#timer.unref();
  }

  close(): void {
    clearInterval(this.#timer);
  }

  /**
   * The schedule that was set last, with assets by name where only one has the name.
   * @throws ApiProblem CHANNEL_UNKNOWN, or CHANNEL_IS_LIVE
   */
  get(channel: string): Promise<Schedule> {
    return this.#db.transaction().execute(async (transaction) => {
      const { schedule } = await readScheduled(transaction, channel);
      const { assets } = await readAssets(transaction);
      const uses = new Map<string, number>();
      for (const { name } of assets) uses.set(name, (uses.get(name) ?? 0) + 1);
      const names = new Map(assets.map(({ id, name }) => [id, uses.get(name) === 1 ? name : id]));
      return withItems(schedule, (id) => names.get(id) ?? id);
    });
  }

  /**
   * Gives a channel another schedule. What was on until it takes effect stays, segment numbers included.
   * @param schedule with assets by id or name
   * @returns when it takes effect, in milliseconds since 1970
   * @throws ApiProblem SCHEDULE_INVALID, CHANNEL_UNKNOWN, CHANNEL_IS_LIVE, ASSET_UNKNOWN, ASSET_AMBIGUOUS or
   *   ASSET_NOT_READY; it says where
   */
  async set(channel: string, schedule: unknown, effective: Effective): Promise<number> {
    const checked = checkedSchedule(schedule);
    const effectiveAtMs = await this.#changes.make(async (transaction) => {
      const before = await readScheduled(transaction, channel);
      const resolved = await resolveItems(transaction, checked);
      const { runs, effectiveTicks, validFromTicks } = editRuns({
        ...limitsFrom(this.#now(), before.epochUnixMs, await readFacts(transaction)),
        runs: before.runs,
        schedule: resolved,
        epochUnixMs: before.epochUnixMs,
        earliestTicks: ticksAt(this.#now() + EDIT_LEAD_MS, before.epochUnixMs),
        effective,
      });
      await writeRuns(transaction, before, runs);
      await transaction
        .updateTable('schedules')
        .set({
          schedule: JSON.stringify(resolved),
          asset_ids: assetIdsOf(resolved),
          valid_from_ticks: validFromTicks,
        })
        .where('channel', '=', channel)
        .execute();
      return before.epochUnixMs + effectiveTicks / TICKS_PER_MS;
    });
    const effectiveAt = new Date(effectiveAtMs).toISOString();
    this.#logger.info({ channel, effective, effectiveAt }, 'schedule changed');
    return effectiveAtMs;
  }

  /**
   * What is on in a span of time, as far ahead as you like: from the runs that are written down, and after
   * them from the schedule alone. At most 2000 items.
   * @throws ApiProblem CHANNEL_UNKNOWN, or CHANNEL_IS_LIVE
   */
  preview(channel: string, fromMs: number, hours: number): Promise<ScheduledItem[]> {
    return this.#db.transaction().execute(async (transaction) => {
      const scheduled = await readScheduled(transaction, channel);
      const { assets } = await readAssets(transaction);
      const facts = new Map(assets.map((asset) => [asset.id, asset.facts]));
      const names = new Map(assets.map((asset) => [asset.id, asset.name]));
      const at = (ticks: number) => new Date(scheduled.epochUnixMs + ticks / TICKS_PER_MS).toISOString();
      const fromTicks = ticksAt(fromMs, scheduled.epochUnixMs);
      const untilTicks = ticksAt(fromMs + hours * HOUR_MS, scheduled.epochUnixMs);
      const runs = runsBetween(scheduled, facts, fromTicks, untilTicks);
      const items: ScheduledItem[] = [];
      let ticks = Math.max(fromTicks, runs[0]?.startTicks ?? untilTicks);
      while (ticks < untilTicks && items.length < MAX_PREVIEW_ITEMS) {
        const position = programmeAt(runs, facts, ticks);
        if (position === undefined) {
          ticks = runs[runIndexAt(runs, ticks) + 1]?.startTicks ?? untilTicks;
          continue;
        }
        const { assetId, startTicks, endTicks, programme } = position;
        const assetName = names.get(assetId) ?? assetId;
        const title = programme?.title ?? assetName;
        items.push({ startsAt: at(startTicks), endsAt: at(endTicks), title, assetId, assetName });
        ticks = endTicks;
      }
      return items;
    });
  }

  /** Writes down the runs of the next two weeks where they are not yet, and forgets old ones. */
  async extend(): Promise<void> {
    const nowMs = this.#now();
    const due = await this.#db.transaction().execute(async (transaction) => {
      const facts = await readFacts(transaction);
      const rows = await transaction.selectFrom('schedules').select('channel').orderBy('channel').execute();
      const names: string[] = [];
      for (const { channel } of rows) {
        const scheduled = await readScheduled(transaction, channel);
        const endTicks = writtenUntil(scheduled, facts);
        const enoughTicks = ticksAt(nowMs + MIN_HORIZON_MS, scheduled.epochUnixMs);
        if (endTicks < enoughTicks && !hasMaxRunsAhead(scheduled, nowMs)) names.push(channel);
      }
      return names;
    });
    if (due.length === 0) return;
    await this.#changes.make(async (transaction) => {
      const facts = await readFacts(transaction);
      for (const channel of due) await extendOne(transaction, channel, facts, nowMs);
    });
    this.#logger.info({ channels: due.length }, 'schedules written down for the next two weeks');
  }
}

async function extendOne(
  transaction: Transaction,
  channel: string,
  assets: ReadonlyMap<string, AssetFacts>,
  nowMs: number,
): Promise<void> {
  const before = await readScheduled(transaction, channel);
  const { epochUnixMs, schedule, validFromTicks } = before;
  const limits = limitsFrom(nowMs, epochUnixMs, assets);
  const earliestTicks = ticksAt(nowMs + EDIT_LEAD_MS, epochUnixMs);
  let runs = [...before.runs];
  if (writtenUntil(before, assets) > earliestTicks) {
    const stretches = new Stretches({ schedule, assets, epochUnixMs, validFromTicks });
    runs = extendRuns(runs, stretches, limits);
  } else {
    // Nobody wrote anything down for two weeks. What the last run says is on, and may not be changed.
    const edited = editRuns({
      ...limits,
      runs,
      schedule,
      epochUnixMs,
      earliestTicks,
      effective: 'boundary',
    });
    runs = edited.runs;
    await transaction
      .updateTable('schedules')
      .set({ valid_from_ticks: edited.validFromTicks })
      .where('channel', '=', channel)
      .execute();
  }
  await writeRuns(transaction, before, runs);
  const oldest = runs[runIndexAt(runs, ticksAt(nowMs - HISTORY_MS, epochUnixMs))];
  if (oldest === undefined) return;
  await transaction
    .deleteFrom('runs')
    .where('channel', '=', channel)
    .where('start_ticks', '<', String(oldest.startTicks))
    .execute();
}

/** How far ahead runs are written down. */
function limitsFrom(nowMs: number, epochUnixMs: number, assets: ReadonlyMap<string, AssetFacts>) {
  return { assets, untilTicks: ticksAt(nowMs + HORIZON_MS, epochUnixMs), maxCount: MAX_RUNS_AHEAD };
}

/** A schedule that plays a list of assets again and again. */
export function loopSchedule(items: readonly string[]): Schedule {
  return { timeZone: 'UTC', filler: { items: [...items] }, programmes: [] };
}

/** Gives a new channel its schedule. @param schedule with assets by id, from {@link resolveItems} */
export async function insertSchedule(
  transaction: Transaction,
  channel: { readonly name: string; readonly epochUnixMs: number },
  schedule: Schedule,
): Promise<void> {
  const { name, epochUnixMs } = channel;
  await transaction
    .insertInto('schedules')
    .values({
      channel: name,
      schedule: JSON.stringify(schedule),
      asset_ids: assetIdsOf(schedule),
      valid_from_ticks: 0,
    })
    .execute();
  const { runs } = editRuns({
    ...limitsFrom(epochUnixMs, epochUnixMs, await readFacts(transaction)),
    runs: [],
    schedule,
    epochUnixMs,
    earliestTicks: 0,
    effective: 'now',
  });
  await writeRuns(transaction, { channel: name, runs: [] }, runs);
}

/**
 * Finds the assets that a schedule names, each by id or by name, and holds them until the transaction ends.
 * @returns the schedule with their ids
 * @throws ApiProblem ASSET_UNKNOWN, ASSET_AMBIGUOUS or ASSET_NOT_READY; it says where
 */
export async function resolveItems(transaction: Transaction, schedule: Schedule): Promise<Schedule> {
  const places = new Map<string, string>();
  const note = (where: string, items: readonly string[]) => {
    for (const [i, item] of items.entries())
      if (!places.has(item)) places.set(item, `${where}.items[${i}]: `);
  };
  note('filler', schedule.filler?.items ?? []);
  for (const [i, { items }] of schedule.programmes.entries()) note(`programmes[${i}]`, items);
  const ids = await resolveAssets(transaction, places);
  return withItems(schedule, (item) => ids.get(item) ?? item);
}

/** @throws ApiProblem SCHEDULE_INVALID; it says where */
function checkedSchedule(value: unknown): Schedule {
  const [error] = Errors(Schedule, value);
  if (!Check(Schedule, value)) {
    const where = (error?.instancePath ?? '').replace(/\/(\d+)(?=\/|$)/g, '[$1]').replace(/\//g, '.');
    const what = error?.keyword === 'boolean' ? 'is not a field that it has' : error?.message;
    throw new ApiProblem('SCHEDULE_INVALID', `${where.replace(/^\./, '') || 'The schedule'} ${what}.`);
  }
  const fault = findScheduleFault(value);
  if (fault) throw new ApiProblem('SCHEDULE_INVALID', `${fault.where}: ${fault.what}`);
  return value;
}

function withItems(schedule: Schedule, replace: (item: string) => string): Schedule {
  const { filler, programmes } = schedule;
  return {
    ...schedule,
    ...(filler && { filler: { ...filler, items: filler.items.map(replace) } }),
    programmes: programmes.map((programme) => ({ ...programme, items: programme.items.map(replace) })),
  };
}

function assetIdsOf({ filler, programmes }: Schedule): string[] {
  return [...new Set([...(filler?.items ?? []), ...programmes.flatMap(({ items }) => items)])];
}

function ticksAt(unixMs: number, epochUnixMs: number): number {
  return Math.max(0, Math.ceil(unixMs - epochUnixMs)) * TICKS_PER_MS;
}

function stretchesOf(
  { schedule, epochUnixMs, validFromTicks }: Scheduled,
  assets: ReadonlyMap<string, AssetFacts>,
): Stretches {
  return new Stretches({ schedule, epochUnixMs, validFromTicks, assets });
}

/** Where the last run ends by the schedule. */
function writtenUntil(scheduled: Scheduled, assets: ReadonlyMap<string, AssetFacts>): number {
  const last = scheduled.runs.at(-1);
  return last === undefined ? 0 : stretchesOf(scheduled, assets).at(last.startTicks).endTicks;
}

function hasMaxRunsAhead({ runs, epochUnixMs }: Scheduled, nowMs: number): boolean {
  return runs.length - runIndexAt(runs, ticksAt(nowMs, epochUnixMs)) > MAX_RUNS_AHEAD / 2;
}

/** The runs of a span of time; those that are not written down yet have no numbers that mean anything. */
function runsBetween(
  scheduled: Scheduled,
  assets: ReadonlyMap<string, AssetFacts>,
  fromTicks: number,
  untilTicks: number,
): Run[] {
  const runs = scheduled.runs.slice(Math.max(0, runIndexAt(scheduled.runs, fromTicks)));
  const stretches = stretchesOf(scheduled, assets);
  let ticks = writtenUntil(scheduled, assets);
  if (fromTicks >= ticks) {
    runs.length = 0;
    ticks = fromTicks;
  }
  while (ticks < untilTicks && runs.length < MAX_PREVIEW_ITEMS) {
    const { content, endTicks } = stretches.at(ticks);
    runs.push({ ...content, firstMediaSequenceNumber: 0, firstDiscontinuitySequence: 0 });
    ticks = endTicks;
  }
  return runs;
}

async function readFacts(transaction: Transaction): Promise<Map<string, AssetFacts>> {
  const { assets } = await readAssets(transaction);
  return new Map(assets.map(({ id, facts }) => [id, facts]));
}

/**
 * Reads a channel's schedule and holds it until the transaction ends.
 * @throws ApiProblem CHANNEL_UNKNOWN, or CHANNEL_IS_LIVE
 */
async function readScheduled(transaction: Transaction, channel: string): Promise<Scheduled> {
  const row = await transaction
    .selectFrom('channels')
    .leftJoin('schedules', 'schedules.channel', 'channels.name')
    .select(['epoch', 'schedule', 'valid_from_ticks'])
    .where('name', '=', channel)
    .forUpdate('channels')
    .executeTakeFirst();
  if (row === undefined) throw unknownChannel(channel);
  if (row.schedule === null) {
    throw new ApiProblem('CHANNEL_IS_LIVE', `Channel ${channel} is live and has no schedule.`);
  }
  const runs = await transaction
    .selectFrom('runs')
    .selectAll()
    .where('channel', '=', channel)
    .orderBy('start_ticks')
    .execute();
  return {
    channel,
    epochUnixMs: row.epoch.getTime(),
    schedule: row.schedule,
    validFromTicks: Number(row.valid_from_ticks),
    runs: runs.map(runOf),
  };
}

/** A row of the table as the model has it. */
export function runOf(row: Selectable<Tables['runs']>): Run {
  return {
    startTicks: Number(row.start_ticks),
    firstMediaSequenceNumber: Number(row.first_media_sequence_number),
    firstDiscontinuitySequence: Number(row.first_discontinuity_sequence),
    loop: row.loop,
    ...(row.origin_ticks !== null && { originTicks: Number(row.origin_ticks) }),
    ...(row.shuffle_seed !== null && { shuffleSeed: Number(row.shuffle_seed) }),
    ...(row.programme !== null && { programme: row.programme }),
    ...(row.tracks !== null && { tracks: row.tracks }),
  };
}

/** Puts down the runs from the first on that differ from those before. */
async function writeRuns(
  transaction: Transaction,
  before: Pick<Scheduled, 'channel' | 'runs'>,
  runs: readonly Run[],
): Promise<void> {
  const { channel } = before;
  const rows = runs.map((run) => rowOf(channel, run));
  const known = before.runs.map((run) => JSON.stringify(rowOf(channel, run)));
  const firstChange = rows.findIndex((row, i) => JSON.stringify(row) !== known[i]);
  const changed = firstChange < 0 ? [] : rows.slice(firstChange);
  const fromTicks = changed[0]?.start_ticks ?? before.runs[rows.length]?.startTicks;
  if (fromTicks === undefined) return;
  await transaction
    .deleteFrom('runs')
    .where('channel', '=', channel)
    .where('start_ticks', '>=', String(fromTicks))
    .execute();
  for (let i = 0; i < changed.length; i += INSERT_ROWS) {
    await transaction
      .insertInto('runs')
      .values(changed.slice(i, i + INSERT_ROWS))
      .execute();
  }
}

function rowOf(channel: string, run: Run): Insertable<Tables['runs']> & { start_ticks: number } {
  return {
    channel,
    start_ticks: run.startTicks,
    first_media_sequence_number: run.firstMediaSequenceNumber,
    first_discontinuity_sequence: run.firstDiscontinuitySequence,
    loop: run.loop,
    origin_ticks: run.originTicks ?? null,
    shuffle_seed: run.shuffleSeed ?? null,
    programme: run.programme ? JSON.stringify(run.programme) : null,
    tracks: run.tracks ? JSON.stringify(run.tracks) : null,
  };
}
