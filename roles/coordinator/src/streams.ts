/** The live inputs and their keys. A key is handed out once; only its digest is kept. */
import { createHash, randomBytes } from 'node:crypto';
import type { BackendState, NewStream, Stream, StreamWithKey } from '@starling/model/entities';
import {
  type NewStreamInput,
  PULL_SCHEMES,
  parsePullUrl,
  type StreamInput,
  withoutSecrets,
} from '@starling/model/stream-input';
import { type Kysely, type Selectable, sql } from 'kysely';
import type { Logger } from 'pino';
import type { Static } from 'typebox';
import type { BackendPresence } from './backend-presence.ts';
import type { Changes } from './changes.ts';
import { insertChannel } from './channels.ts';
import type { Tables, Transaction } from './database.ts';
import { type Page, type PageQuery, pageOf, pageRequestOf } from './page.ts';
import { ApiProblem } from './problem.ts';
import { endRecordingsOf } from './recordings.ts';
import { RowCache } from './row-cache.ts';

/** 160 bits: beyond guessing, so a fast digest protects the stored key well enough. */
const KEY_BYTES = 20;

const sha256Hex = (text: string) => createHash('sha256').update(text).digest('hex');
const newKey = () => `sk_${randomBytes(KEY_BYTES).toString('base64url')}`;

export class Streams {
  readonly #db: Kysely<Tables>;
  readonly #changes: Changes;
  readonly #rows: RowCache<Selectable<Tables['streams']>[]>;
  readonly #presence: BackendPresence;
  readonly #logger: Logger;
  readonly #now: () => number;

  constructor(
    db: Kysely<Tables>,
    changes: Changes,
    presence: BackendPresence,
    logger: Logger,
    now: () => number,
  ) {
    this.#db = db;
    this.#changes = changes;
    this.#rows = new RowCache(changes);
    this.#presence = presence;
    this.#logger = logger;
    this.#now = now;
  }

  /** By name. @throws ApiProblem REQUEST_INVALID for a bad cursor */
  async list(query: Static<typeof PageQuery>): Promise<Page<Stream>> {
    const request = pageRequestOf(query, ['name']);
    const after = request.after?.[0];
    const rows = await this.#rows.get(request.id, () =>
      this.#db
        .selectFrom('streams')
        .selectAll()
        .$if(after !== undefined, (query) => query.where('name', '>', after ?? ''))
        .orderBy('name')
        .limit(request.rowLimit)
        .execute(),
    );
    return pageOf(
      rows,
      request,
      ({ name }) => [name],
      (row) => this.#streamOf(row),
    );
  }

  /**
   * Adds a stream and the live channel of the same name.
   * @throws ApiProblem CHANNEL_EXISTS, or REQUEST_INVALID for an address that cannot be pulled
   */
  async add({
    name,
    title = name,
    isPrivate,
    input = { type: 'rtmp' },
    transcode,
  }: NewStream): Promise<StreamWithKey> {
    const key = newKey();
    const nowMs = this.#now();
    const row = await this.#changes.make(async (transaction) => {
      await insertChannel(transaction, { name, title, kind: 'live', nowMs, isPrivate });
      return transaction
        .insertInto('streams')
        .values({
          name,
          key_sha256: sha256Hex(key),
          key_rotated_at: new Date(nowMs),
          created_at: new Date(nowMs),
          input: JSON.stringify(keptInput(input, key)),
          transcode: transcode === undefined ? null : JSON.stringify(transcode),
        })
        .returningAll()
        .executeTakeFirstOrThrow();
    });
    this.#logger.info({ stream: name }, 'stream added');
    return { stream: this.#streamOf(row), key: input.type === 'pull' ? null : key };
  }

  /**
   * Gives the stream a new key; the old one is refused from now on.
   * @throws ApiProblem STREAM_UNKNOWN, or STREAM_HAS_NO_KEY for one that is pulled
   */
  async rotateKey(name: string): Promise<StreamWithKey> {
    const key = newKey();
    const row = await this.#changes.make(async (transaction) => {
      const known = await transaction
        .selectFrom('streams')
        .select('input')
        .where('name', '=', name)
        .executeTakeFirst();
      if (known === undefined) throw unknownStream(name);
      if (known.input.type === 'pull') {
        throw new ApiProblem(
          'STREAM_HAS_NO_KEY',
          `Stream ${name} is pulled from an address; nobody publishes to it.`,
        );
      }
      return transaction
        .updateTable('streams')
        .set({
          key_sha256: sha256Hex(key),
          key_rotated_at: new Date(this.#now()),
          input: JSON.stringify(keptInput(known.input, key)),
        })
        .where('name', '=', name)
        .returningAll()
        .executeTakeFirstOrThrow();
    });
    this.#logger.info({ stream: name }, 'stream key rotated');
    return { stream: this.#streamOf(row), key };
  }

  /**
   * Removes the stream and its channel.
   * @throws ApiProblem STREAM_UNKNOWN
   */
  async remove(name: string): Promise<void> {
    await this.#changes.make(async (transaction) => {
      const { numDeletedRows } = await transaction
        .deleteFrom('channels')
        .where('name', '=', name)
        .where('kind', '=', 'live')
        .executeTakeFirst();
      if (numDeletedRows === 0n) throw unknownStream(name);
      await endRecordingsOf(transaction, { channel: name, stream: name }, this.#now());
      await transaction
        .updateTable('channels')
        .set({
          primary_stream: sql`nullif(primary_stream, ${name})`,
          backup_stream: sql`nullif(backup_stream, ${name})`,
        })
        .where(({ eb, or }) => or([eb('primary_stream', '=', name), eb('backup_stream', '=', name)]))
        .execute();
    });
    this.#logger.info({ stream: name }, 'stream removed');
  }

  #streamOf(row: Selectable<Tables['streams']>): Stream {
    return {
      name: row.name,
      input: withoutSecrets(row.input),
      transcode: row.transcode,
      createdAt: row.created_at.toISOString(),
      keyRotatedAt: row.key_rotated_at.toISOString(),
      isPublishing: this.#presence.publishingStreams().includes(row.name),
      problem: this.#presence.inputProblem(row.name) ?? null,
    };
  }
}

/**
 * The input as it is kept. The key of an SRT listener is its passphrase, which both sides have to know.
 * @throws ApiProblem REQUEST_INVALID
 */
function keptInput(input: NewStreamInput, key: string): StreamInput {
  if (input.type === 'srt-listener') return { type: 'srt-listener', port: input.port, passphrase: key };
  if (input.type === 'pull' && parsePullUrl(input.url) === undefined) {
    throw new ApiProblem(
      'REQUEST_INVALID',
      `The address of the input has to begin with one of ${PULL_SCHEMES.map((scheme) => `${scheme}://`).join(', ')} and a host.`,
    );
  }
  return input;
}

function unknownStream(name: string): ApiProblem {
  return new ApiProblem('STREAM_UNKNOWN', `There is no stream ${name}.`);
}

/** The part of the state that is about streams. */
export async function readStreams(transaction: Transaction): Promise<Pick<BackendState, 'streams'>> {
  const rows = await transaction
    .selectFrom('streams')
    .select(['name', 'key_sha256', 'input', 'transcode'])
    .orderBy('name')
    .execute();
  return {
    streams: rows.map((row) => ({
      name: row.name,
      keySha256: row.key_sha256,
      input: row.input,
      transcode: row.transcode,
    })),
  };
}
