/**
 * The recordings: which are wanted, and what the backends have of each. The files lie on the backends' machines;
 * a backend's own list of them counts, so that none is lost with the database.
 */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import type { Asset } from '@starling/model/entities';
import type {
  NewRecording,
  Recording,
  RecordingOrders,
  RecordingReport,
  ReportedRecording,
} from '@starling/model/recording';
import { type Kysely, type Selectable, sql } from 'kysely';
import type { Logger } from 'pino';
import type { Assets } from './assets.ts';
import type { Changes } from './changes.ts';
import type { StoredPart, Tables, Transaction } from './database.ts';
import { ApiProblem, unknownChannel } from './problem.ts';

type Row = Selectable<Tables['recordings']>;

/** A backend reports what it records every 5 s; after three missed reports it is not taken to record any more. */
const STALE_AFTER_MS = 15_000;

export interface RecordingsOptions {
  readonly db: Kysely<Tables>;
  readonly changes: Changes;
  readonly assets: Assets;
  /** Where a backend on this machine keeps its recordings. */
  readonly dir: string;
  readonly logger: Logger;
  readonly now: () => number;
}

/** What a backend is recording now. In memory: it grows all the time, and is reported anew after a restart. */
interface Growing {
  readonly report: ReportedRecording;
  readonly atMs: number;
}

export class Recordings {
  readonly #options: RecordingsOptions;
  /** By the id of the recording, then by the node. */
  readonly #growing = new Map<string, Map<string, Growing>>();

  constructor(options: RecordingsOptions) {
    this.#options = options;
  }

  /** Where a backend on this machine keeps its recordings. */
  get dir(): string {
    return this.#options.dir;
  }

  /** All recordings, newest first. */
  async list(): Promise<Recording[]> {
    const rows = await this.#options.db
      .selectFrom('recordings')
      .selectAll()
      .where('removed_at', 'is', null)
      .orderBy('created_at', 'desc')
      .orderBy('id')
      .execute();
    return rows.map((row) => this.#recordingOf(row));
  }

  /** @throws ApiProblem RECORDING_UNKNOWN */
  async get(id: string): Promise<Recording> {
    const row = await this.#options.db
      .selectFrom('recordings')
      .selectAll()
      .where('id', '=', id)
      .where('removed_at', 'is', null)
      .executeTakeFirst();
    if (row === undefined) throw unknownRecording(id);
    return this.#recordingOf(row);
  }

  /**
   * Asks the backends for a recording.
   * @throws ApiProblem REQUEST_INVALID, CHANNEL_UNKNOWN or STREAM_UNKNOWN
   */
  async start({ name, ...source }: NewRecording): Promise<Recording> {
    const { channel, stream } = { channel: null, stream: null, ...source };
    if ((channel === null) === (stream === null)) {
      throw new ApiProblem('REQUEST_INVALID', 'Say which channel or which stream to record, and only one.');
    }
    const { changes, logger, now } = this.#options;
    const createdAt = new Date(now());
    const row = await changes.make(async (transaction) => {
      await requireSource(transaction, channel, stream);
      return transaction
        .insertInto('recordings')
        .values({
          id: randomBytes(8).toString('hex'),
          name: name ?? `${channel ?? stream} ${createdAt.toISOString()}`,
          channel,
          stream,
          is_automatic: false,
          is_wanted: true,
          created_at: createdAt,
        })
        .returningAll()
        .executeTakeFirstOrThrow();
    });
    logger.info({ recording: row.id, channel, stream }, 'recording asked for');
    return this.#recordingOf(row);
  }

  /**
   * Ends a recording that was asked for; one that has ended stays as it is.
   * @throws ApiProblem RECORDING_UNKNOWN, or REQUEST_INVALID for one of a channel that is always recorded
   */
  async stop(id: string): Promise<Recording> {
    const { changes, logger, now } = this.#options;
    const row = await changes.make(async (transaction) => {
      const known = await transaction
        .selectFrom('recordings')
        .selectAll()
        .where('id', '=', id)
        .where('removed_at', 'is', null)
        .forUpdate()
        .executeTakeFirst();
      if (known === undefined) throw unknownRecording(id);
      if (known.end_reason !== null) return known;
      if (known.is_automatic) {
        throw new ApiProblem(
          'REQUEST_INVALID',
          `Channel ${known.channel} is always recorded. Change that with the channel's setting.`,
        );
      }
      return transaction
        .updateTable('recordings')
        .set({ is_wanted: false, end_reason: 'stopped', ended_at: new Date(now()) })
        .where('id', '=', id)
        .returningAll()
        .executeTakeFirstOrThrow();
    });
    logger.info({ recording: id }, 'recording stopped');
    return this.#recordingOf(row);
  }

  /**
   * Ends a recording if need be, and has its files deleted.
   * @throws ApiProblem RECORDING_UNKNOWN
   */
  async remove(id: string): Promise<void> {
    const { changes, logger, now } = this.#options;
    const at = new Date(now());
    await changes.make(async (transaction) => {
      const { numUpdatedRows } = await transaction
        .updateTable('recordings')
        .set({
          is_wanted: false,
          removed_at: at,
          end_reason: sql`coalesce(end_reason, 'stopped')`,
          ended_at: sql`coalesce(ended_at, ${at})`,
        })
        .where('id', '=', id)
        .where('removed_at', 'is', null)
        .executeTakeFirst();
      if (numUpdatedRows === 0n) throw unknownRecording(id);
    });
    logger.info({ recording: id }, 'recording removed');
  }

  /**
   * Queues the import of each file of a recording that has ended.
   * @param name of the asset; the recording's where undefined
   * @throws ApiProblem RECORDING_UNKNOWN, RECORDING_NOT_ENDED or RECORDING_EMPTY
   */
  async import(id: string, name: string | undefined): Promise<Asset[]> {
    const recording = await this.get(id);
    if (recording.state !== 'ended') {
      throw new ApiProblem('RECORDING_NOT_ENDED', `Recording ${id} goes on. Stop it first.`);
    }
    const { parts } = recording;
    if (parts.length === 0) throw emptyRecording(id);
    const assets: Asset[] = [];
    for (const { number, path } of parts) {
      const assetName = (name ?? recording.name) + (parts.length > 1 ? ` (${number})` : '');
      assets.push(await this.#options.assets.add({ source: path, name: assetName }));
    }
    return assets;
  }

  /**
   * Where a file of a recording lies in the folder of recordings of this machine.
   * @param number of the part
   * @throws ApiProblem RECORDING_UNKNOWN, RECORDING_EMPTY, or RECORDING_ELSEWHERE
   */
  async fileOf(id: string, number: number): Promise<{ readonly root: string; readonly file: string }> {
    const { parts } = await this.get(id);
    const part = parts[number - 1];
    if (part === undefined) throw emptyRecording(id);
    const [, file = ''] = /\/(part-\d+\.mp4)$/.exec(part.path) ?? [];
    const { dir } = this.#options;
    // Only what this coordinator itself knows the place of: a node's word opens no other file.
    const root = [join(dir, id), join(dir, part.backend, id)].find((one) => join(one, file) === part.path);
    if (file === '' || root === undefined) {
      throw new ApiProblem(
        'RECORDING_ELSEWHERE',
        `The file is ${part.path} on the machine of backend ${part.backend}. Fetch it from there.`,
      );
    }
    return { root, file };
  }

  /** Takes a backend's report. What it has and nobody here knows is taken in. */
  async report({ nodeId, recordings, removedIds }: RecordingReport): Promise<void> {
    for (const { id, channel, stream } of recordings) {
      if ((channel === null) === (stream === null))
        throw new ApiProblem(
          'REQUEST_INVALID',
          `Recording ${id} is of a channel or of a stream, one of them.`,
        );
    }
    for (const report of recordings) await this.#reportOne(nodeId, report);
    for (const id of removedIds) await this.#reportRemoved(nodeId, id);
  }

  async #reportOne(nodeId: string, report: ReportedRecording): Promise<void> {
    const { id, isRecording } = report;
    const { db, changes, now } = this.#options;
    const growing = this.#growing.get(id) ?? new Map<string, Growing>();
    const before = growing.get(nodeId)?.report;
    if (isRecording) {
      this.#growing.set(id, growing.set(nodeId, { report, atMs: now() }));
      // Only its size and length have changed: that is not worth a write.
      if (before !== undefined && before.parts.length === report.parts.length) return;
    } else if (growing.delete(nodeId) && growing.size === 0) {
      this.#growing.delete(id);
    }
    const store = async (transaction: Transaction) => {
      await transaction
        .insertInto('recordings')
        .values({
          id,
          name: report.name,
          channel: report.channel,
          stream: report.stream,
          is_automatic: report.isAutomatic,
          is_wanted: false,
          created_at: new Date(report.createdAt),
        })
        .onConflict((conflict) => conflict.column('id').doNothing())
        .execute();
      const known = await transaction
        .selectFrom('recordings')
        .select(['parts', 'end_reason', 'is_wanted'])
        .where('id', '=', id)
        .forUpdate()
        .executeTakeFirstOrThrow();
      const others = known.parts.filter((part) => part.nodeId !== nodeId);
      const parts: StoredPart[] = [...others, ...report.parts.map((part) => ({ ...part, nodeId }))];
      // A recording that is wanted is ended by a fault on the disk, not by a backend that comes back.
      const end = known.end_reason === null ? report.end : null;
      const ends = end !== null && (!known.is_wanted || end.reason !== 'interrupted');
      await transaction
        .updateTable('recordings')
        .set({
          parts: JSON.stringify(parts),
          ...(ends && { end_reason: end.reason, ended_at: new Date(end.at), is_wanted: false }),
        })
        .where('id', '=', id)
        .execute();
      return ends && known.is_wanted;
    };
    const isOrder = await db.transaction().execute(store);
    // The backends are to know that it is not wanted any more.
    if (isOrder) await changes.make(async () => {});
  }

  async #reportRemoved(nodeId: string, id: string): Promise<void> {
    this.#growing.get(id)?.delete(nodeId);
    const { db, changes } = this.#options;
    const row = await db
      .selectFrom('recordings')
      .select(['parts', 'is_automatic', 'removed_at'])
      .where('id', '=', id)
      .executeTakeFirst();
    if (row === undefined) return;
    const parts = row.parts.filter((part) => part.nodeId !== nodeId);
    const isGone = parts.length === 0 && (row.is_automatic || row.removed_at !== null);
    if (!isGone) {
      await db
        .updateTable('recordings')
        .set({ parts: JSON.stringify(parts) })
        .where('id', '=', id)
        .execute();
      return;
    }
    const erase = (transaction: Transaction) =>
      transaction.deleteFrom('recordings').where('id', '=', id).execute();
    // The backends follow what is to be removed, not what they removed by themselves.
    if (row.removed_at === null) await db.transaction().execute(erase);
    else await changes.make(erase);
  }

  #recordingOf(row: Row): Recording {
    const growing = [...(this.#growing.get(row.id) ?? [])].filter(
      ([, { atMs }]) => this.#options.now() - atMs <= STALE_AFTER_MS,
    );
    const fresh = new Set(growing.map(([nodeId]) => nodeId));
    const parts = [
      ...row.parts.filter(({ nodeId }) => !fresh.has(nodeId)),
      ...growing.flatMap(([nodeId, { report }]) => report.parts.map((part) => ({ ...part, nodeId }))),
    ].sort((a, b) => Date.parse(a.startedAt) - Date.parse(b.startedAt));
    const isGrowing = growing.length > 0;
    const isOver = row.end_reason !== null;
    return {
      id: row.id,
      name: row.name,
      channel: row.channel,
      stream: row.stream,
      isAutomatic: row.is_automatic,
      state: isGrowing ? (isOver ? 'stopping' : 'recording') : isOver ? 'ended' : 'waiting',
      endReason: row.end_reason,
      createdAt: row.created_at.toISOString(),
      startedAt: parts[0]?.startedAt ?? null,
      endedAt: row.ended_at?.toISOString() ?? null,
      durationMs: parts.reduce((sum, { durationMs }) => sum + durationMs, 0),
      sizeBytes: parts.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
      parts: parts.map(({ nodeId, startedAt, durationMs, sizeBytes, path }, index) => ({
        number: index + 1,
        backend: nodeId,
        startedAt,
        durationMs,
        sizeBytes,
        path,
      })),
    };
  }
}

async function requireSource(
  transaction: Transaction,
  channel: string | null,
  stream: string | null,
): Promise<void> {
  const table = channel === null ? 'streams' : 'channels';
  const found = await transaction
    .selectFrom(table)
    .select('name')
    .where('name', '=', channel ?? stream ?? '')
    .forShare()
    .executeTakeFirst();
  if (found !== undefined) return;
  if (channel !== null) throw unknownChannel(channel);
  throw new ApiProblem('STREAM_UNKNOWN', `There is no stream ${stream}.`);
}

function unknownRecording(id: string): ApiProblem {
  return new ApiProblem('RECORDING_UNKNOWN', `There is no recording ${id}.`);
}

function emptyRecording(id: string): ApiProblem {
  return new ApiProblem('RECORDING_EMPTY', `Recording ${id} has no such file: nothing came while it ran.`);
}

/** Ends what is recorded of a channel or stream that is being removed. The files stay. */
export async function endRecordingsOf(
  transaction: Transaction,
  source: { readonly channel?: string; readonly stream?: string },
  nowMs: number,
): Promise<void> {
  const { channel = '', stream = '' } = source;
  await transaction
    .updateTable('recordings')
    .set({ is_wanted: false, end_reason: 'source-removed', ended_at: new Date(nowMs) })
    .where('is_wanted', '=', true)
    .where((where) => where.or([where('channel', '=', channel), where('stream', '=', stream)]))
    .execute();
}

/** The part of the state that is about recordings. */
export async function readRecordingOrders(transaction: Transaction): Promise<RecordingOrders> {
  const rows = await transaction
    .selectFrom('recordings')
    .select(['id', 'name', 'channel', 'stream', 'created_at', 'removed_at'])
    .where((where) => where.or([where('is_wanted', '=', true), where('removed_at', 'is not', null)]))
    .orderBy('created_at')
    .orderBy('id')
    .execute();
  return {
    wanted: rows.flatMap(({ id, name, channel, stream, created_at, removed_at }) =>
      removed_at === null ? [{ id, name, channel, stream, createdAt: created_at.toISOString() }] : [],
    ),
    removedIds: rows.flatMap(({ id, removed_at }) => (removed_at === null ? [] : [id])),
  };
}
