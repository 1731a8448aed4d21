/** The channels. What they play is in `schedules.ts`. */
import type {
  Channel,
  ChannelUpdate,
  NewChannel,
  NewChannelSources,
  SourceChoice,
} from '@starling/model/entities';
import type { Run } from '@starling/model/schedule';
import { type Kysely, sql } from 'kysely';
import type { Logger } from 'pino';
import type { Static } from 'typebox';
import type { Changes } from './changes.ts';
import type { Tables, Transaction } from './database.ts';
import { type Page, type PageQuery, pageOf, pageRequestOf } from './page.ts';
import { ApiProblem, unknownChannel } from './problem.ts';
import { endRecordingsOf } from './recordings.ts';
import { RowCache } from './row-cache.ts';
import { insertSchedule, loopSchedule, resolveItems, runOf } from './schedules.ts';

/** A timeline begins so long before its channel was made, so that the first viewer finds a full window. */
const HISTORY_MS = 30_000;
/** A black, still picture is to be replaced within a second, unless the operator says otherwise. */
const DEFAULT_DARK_AFTER_MS = 1000;

export class Channels {
  readonly #db: Kysely<Tables>;
  readonly #changes: Changes;
  readonly #rows: RowCache<Channel[]>;
  readonly #logger: Logger;
  readonly #now: () => number;

  constructor(db: Kysely<Tables>, changes: Changes, logger: Logger, now: () => number) {
    this.#db = db;
    this.#changes = changes;
    this.#rows = new RowCache(changes);
    this.#logger = logger;
    this.#now = now;
  }

  /** By name. @throws ApiProblem REQUEST_INVALID for a bad cursor */
  async list(query: Static<typeof PageQuery>): Promise<Page<Channel>> {
    const request = pageRequestOf(query, ['name']);
    const { rowLimit, after } = request;
    const channels = await this.#rows.get(`page ${request.id}`, () =>
      this.#db
        .transaction()
        .execute((transaction) => readChannels(transaction, { rowLimit, after: after?.[0] })),
    );
    return pageOf(
      channels,
      request,
      ({ name }) => [name],
      (channel) => channel,
    );
  }

  /** @throws ApiProblem CHANNEL_UNKNOWN */
  async get(name: string): Promise<Channel> {
    const [channel] = await this.#rows.get(`one ${name}`, () =>
      this.#db.transaction().execute((transaction) => readChannels(transaction, name)),
    );
    if (channel === undefined) throw unknownChannel(name);
    return channel;
  }

  /**
   * Adds a playout channel. Its timeline starts at the present whole second.
   * @throws ApiProblem CHANNEL_EXISTS, ASSET_UNKNOWN, ASSET_AMBIGUOUS or ASSET_NOT_READY
   */
  async add({ name, title = name, loop, isPrivate, maxViewers }: NewChannel): Promise<Channel> {
    await this.#changes.make(async (transaction) => {
      const epochUnixMs = await insertChannel(transaction, {
        name,
        title,
        kind: 'playout',
        nowMs: this.#now(),
        isPrivate,
        maxViewers,
      });
      const schedule = await resolveItems(transaction, loopSchedule(loop));
      await insertSchedule(transaction, { name, epochUnixMs }, schedule);
    });
    this.#logger.info({ channel: name }, 'channel added');
    return this.get(name);
  }

  /**
   * Changes a channel. Viewers who may no longer watch it are shown out.
   * @throws ApiProblem CHANNEL_UNKNOWN or CHANNEL_NUMBER_TAKEN
   */
  async update(name: string, update: ChannelUpdate): Promise<Channel> {
    const { title, number, logo, group, isPrivate, maxViewers, record, redundancy } = update;
    await this.#changes.make(async (transaction) => {
      if (number !== undefined) await refuseTakenNumber(transaction, name, number);
      if (redundancy === 2) await refuseLiveRedundancy(transaction, name);
      const { numUpdatedRows } = await transaction
        .updateTable('channels')
        .set({
          ...(title !== undefined && { title }),
          ...(number !== undefined && { number }),
          ...(logo !== undefined && { logo }),
          ...(group !== undefined && { group_title: group }),
          ...(isPrivate !== undefined && { is_private: isPrivate }),
          ...(maxViewers !== undefined && { max_viewers: maxViewers }),
          ...(record !== undefined && { record: record && JSON.stringify(record) }),
          ...(redundancy !== undefined && { redundancy }),
        })
        .where('name', '=', name)
        .executeTakeFirst();
      if (numUpdatedRows === 0n) throw unknownChannel(name);
    });
    this.#logger.info({ channel: name, isPrivate, maxViewers }, 'channel changed');
    return this.get(name);
  }

  /**
   * Sets where the channel's pictures come from. From then on they come through the source chain, also
   * when no live stream is left: the segments of a schedule alone are numbered in another way.
   * @throws ApiProblem CHANNEL_UNKNOWN, STREAM_UNKNOWN, or SOURCES_INVALID
   */
  async setSources(name: string, sources: NewChannelSources): Promise<Channel> {
    const { primary, backup, fallback, darkAfterMs = DEFAULT_DARK_AFTER_MS } = sources;
    if (primary !== null && primary === backup) {
      throw new ApiProblem(
        'SOURCES_INVALID',
        `The backup of ${name} is the primary stream itself. Choose another.`,
      );
    }
    const [channel] = await this.#changes.make(async (transaction) => {
      const [known] = await readChannels(transaction, name);
      if (known === undefined) throw unknownChannel(name);
      for (const stream of [primary, backup]) {
        if (stream === null) continue;
        const found = await transaction
          .selectFrom('streams')
          .select('name')
          .where('name', '=', stream)
          .executeTakeFirst();
        if (found === undefined) throw new ApiProblem('STREAM_UNKNOWN', `There is no stream ${stream}.`);
      }
      if (fallback === 'playout' && known.runs.length === 0) {
        throw new ApiProblem(
          'SOURCES_INVALID',
          `Channel ${name} has no programme to fall back to. Use the slate, or a channel that plays assets.`,
        );
      }
      await transaction
        .updateTable('channels')
        .set({
          has_sources: true,
          primary_stream: primary,
          backup_stream: backup,
          fallback,
          dark_after_ms: darkAfterMs,
          redundancy: 1, // what comes in live comes to one backend
        })
        .where('name', '=', name)
        .execute();
      return readChannels(transaction, name);
    });
    if (channel === undefined) throw unknownChannel(name);
    this.#logger.info({ channel: name, ...sources }, 'sources set');
    return channel;
  }

  /**
   * Puts a source first, or gives the choice back to the chain.
   * @throws ApiProblem CHANNEL_UNKNOWN, or SOURCES_INVALID when the channel has no such source
   */
  async chooseSource(name: string, choice: SourceChoice): Promise<void> {
    await this.#changes.make(async (transaction) => {
      const [channel] = await readChannels(transaction, name);
      if (channel === undefined) throw unknownChannel(name);
      const { primary = null, backup = null, fallback = 'none' } = channel.sources ?? {};
      const has = {
        auto: channel.sources !== null,
        primary: primary !== null,
        backup: backup !== null,
        playout: fallback === 'playout',
        slate: fallback !== 'none',
      };
      if (!has[choice]) {
        throw new ApiProblem(
          'SOURCES_INVALID',
          `Channel ${name} has no source "${choice}". Set its sources first.`,
        );
      }
      await transaction
        .updateTable('channels')
        .set({ source_choice: choice })
        .where('name', '=', name)
        .execute();
    });
    this.#logger.info({ channel: name, choice }, 'source chosen');
  }

  /** @throws ApiProblem CHANNEL_UNKNOWN, or CHANNEL_IS_LIVE when it belongs to a stream */
  async remove(name: string): Promise<void> {
    await this.#changes.make(async (transaction) => {
      const removed = await transaction
        .deleteFrom('channels')
        .where('name', '=', name)
        .returning('kind')
        .executeTakeFirst();
      if (removed === undefined) throw unknownChannel(name);
      await endRecordingsOf(transaction, { channel: name }, this.#now());
      if (removed.kind === 'live') {
        throw new ApiProblem(
          'CHANNEL_IS_LIVE',
          `Channel ${name} belongs to the stream ${name}. Remove the stream.`,
        );
      }
    });
    this.#logger.info({ channel: name }, 'channel removed');
  }
}

/** Two backends make the same of a schedule, and of nothing else. */
async function refuseLiveRedundancy(transaction: Transaction, name: string): Promise<void> {
  const channel = await transaction
    .selectFrom('channels')
    .select('has_sources')
    .where('name', '=', name)
    .executeTakeFirst();
  if (channel?.has_sources !== true) return;
  throw new ApiProblem(
    'SOURCES_INVALID',
    `Channel ${name} has live sources, which come to one backend. Only a channel of its schedule alone can be made by two.`,
  );
}

async function refuseTakenNumber(transaction: Transaction, name: string, number: number): Promise<void> {
  const other = await transaction
    .selectFrom('channels')
    .select('name')
    .where('number', '=', number)
    .where('name', '!=', name)
    .executeTakeFirst();
  if (other === undefined) return;
  throw new ApiProblem(
    'CHANNEL_NUMBER_TAKEN',
    `Channel ${other.name} has the number ${number}. Give it another one first.`,
  );
}

/**
 * @returns the epoch of its timeline, in milliseconds since 1970
 * @throws ApiProblem CHANNEL_EXISTS
 */
export async function insertChannel(
  transaction: Transaction,
  channel: Pick<Channel, 'name' | 'title' | 'kind'> & {
    readonly nowMs: number;
    /** False when undefined. */
    readonly isPrivate: boolean | undefined;
    readonly maxViewers?: number | null | undefined;
  },
): Promise<number> {
  const { name, title, kind, nowMs, isPrivate, maxViewers = null } = channel;
  // A whole second, so that segments and guide entries start on whole seconds too.
  const epochUnixMs = Math.floor(nowMs / 1000) * 1000 - HISTORY_MS;
  const { numInsertedOrUpdatedRows } = await transaction
    .insertInto('channels')
    .values({
      name,
      title,
      kind,
      number: lowestFreeNumber,
      logo: null,
      group_title: null,
      epoch: new Date(epochUnixMs),
      created_at: new Date(nowMs),
      is_private: isPrivate,
      max_viewers: maxViewers,
      // The channel of a stream shows that stream.
      has_sources: kind === 'live',
      primary_stream: kind === 'live' ? name : null,
    })
    .onConflict((conflict) => conflict.column('name').doNothing())
    .executeTakeFirstOrThrow();
  if (numInsertedOrUpdatedRows === 0n) {
    throw new ApiProblem('CHANNEL_EXISTS', `There is a channel ${name} already. Choose another name.`);
  }
  return epochUnixMs;
}

const lowestFreeNumber = sql<number>`(
  select min(candidate) from (select 1 as candidate union select number + 1 from channels) as candidates
  where candidate not in (select number from channels))`;

/**
 * Channels with their runs, by name.
 * @param which the one of a name, or a page; all when undefined
 */
export async function readChannels(
  transaction: Transaction,
  which?: string | { readonly rowLimit: number; readonly after: string | undefined },
): Promise<Channel[]> {
  const page = typeof which === 'object' ? which : undefined;
  const channels = await transaction
    .selectFrom('channels')
    .selectAll()
    .$if(typeof which === 'string', (query) => query.where('name', '=', String(which)))
    .$if(page?.after !== undefined, (query) => query.where('name', '>', page?.after ?? ''))
    .$if(page !== undefined, (query) => query.limit(page?.rowLimit ?? 0))
    .orderBy('name')
    .execute();
  // A page has no gap, so its runs are those of a range: an index gives them.
  const [first = '', last = ''] = [channels[0]?.name, channels.at(-1)?.name];
  const runs = await transaction
    .selectFrom('runs')
    .selectAll()
    .$if(which !== undefined, (query) => query.where('channel', '>=', first).where('channel', '<=', last))
    .orderBy('start_ticks')
    .execute();
  const runsByChannel = new Map<string, Run[]>(channels.map((channel) => [channel.name, []]));
  for (const run of runs) {
    runsByChannel.get(run.channel)?.push(runOf(run));
  }
  return channels.map((channel) => ({
    name: channel.name,
    title: channel.title,
    number: channel.number,
    logo: channel.logo,
    group: channel.group_title,
    kind: channel.kind,
    epochUnixMs: channel.epoch.getTime(),
    runs: runsByChannel.get(channel.name) ?? [],
    isPrivate: channel.is_private,
    maxViewers: channel.max_viewers,
    sources: channel.has_sources
      ? {
          primary: channel.primary_stream,
          backup: channel.backup_stream,
          fallback: channel.fallback,
          darkAfterMs: channel.dark_after_ms,
        }
      : null,
    sourceChoice: channel.source_choice,
    record: channel.record,
    redundancy: channel.redundancy,
    createdAt: channel.created_at.toISOString(),
  }));
}
