/** The live inputs and their keys. A key is handed out once; only its digest is kept. */
import { createHash, randomBytes } from 'node:crypto';
import type {
  BackendState,
  NewStream,
  Rotation,
  Stream,
  StreamUpdate,
  StreamWithKey,
} from '@starling/model/entities';
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
import { unknownAccount } from './accounts.ts';
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

  /**
   * By name.
   * @param owner those of one account; all when undefined
   * @throws ApiProblem REQUEST_INVALID for a bad cursor
   */
  async list(query: Static<typeof PageQuery>, owner?: string): Promise<Page<Stream>> {
    const request = pageRequestOf(query, ['name']);
    const after = request.after?.[0];
    const rows = await this.#rows.get(`${owner ?? ''} ${request.id}`, () =>
      this.#db
        .selectFrom('streams')
        .selectAll()
        .$if(after !== undefined, (query) => query.where('name', '>', after ?? ''))
        .$if(owner !== undefined, (query) => query.where('owner', '=', owner ?? ''))
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
   * @param adder whose it is to be, where the caller may have streams of its own only
   * @throws ApiProblem CHANNEL_EXISTS; REQUEST_INVALID for an address that cannot be pulled; ACCOUNT_UNKNOWN;
   *   TOKEN_NOT_ALLOWED for what only an operator may add
   */
  async add(
    { name, title = name, isPrivate, input = { type: 'rtmp' }, transcode, owner }: NewStream,
    adder?: string,
  ): Promise<StreamWithKey> {
    if (adder !== undefined) refuseWhatCostsOthers(adder, { input, transcode, owner });
    const key = newKey();
    const nowMs = this.#now();
    const row = await this.#changes.make(async (transaction) => {
      if (owner !== undefined) await requireAccount(transaction, owner);
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
          owner: owner ?? adder ?? null,
        })
        .returningAll()
        .executeTakeFirstOrThrow();
    });
    this.#logger.info({ stream: name }, 'stream added');
    return { stream: this.#streamOf(row), key: input.type === 'pull' ? null : key };
  }

  /**
   * Gives the stream a new key; the old one is refused from now on.
   * @param owner whose it has to be; anybody's when undefined
   * @param rotation for how long the old key does as well; a passphrase of SRT is always replaced at once
   * @throws ApiProblem STREAM_UNKNOWN, or STREAM_HAS_NO_KEY for one that is pulled
   */
  async rotateKey(name: string, { overlapSeconds = 0 }: Rotation, owner?: string): Promise<StreamWithKey> {
    const key = newKey();
    const nowMs = this.#now();
    const row = await this.#changes.make(async (transaction) => {
      const known = await transaction
        .selectFrom('streams')
        .select('input')
        .where('name', '=', name)
        .$if(owner !== undefined, (query) => query.where('owner', '=', owner ?? ''))
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
        .set(({ ref }) => ({
          key_sha256: sha256Hex(key),
          key_rotated_at: new Date(nowMs),
          old_key_sha256: overlapSeconds > 0 ? ref('key_sha256') : null,
          old_key_until: overlapSeconds > 0 ? new Date(nowMs + overlapSeconds * 1000) : null,
          input: JSON.stringify(keptInput(known.input, key)),
        }))
        .where('name', '=', name)
        .returningAll()
        .executeTakeFirstOrThrow();
    });
    this.#logger.info({ stream: name, overlapSeconds }, 'stream key rotated');
    return { stream: this.#streamOf(row), key };
  }

  /**
   * Gives the stream to an account.
   * @param owner whose it has to be; anybody's when undefined
   * @throws ApiProblem STREAM_UNKNOWN, ACCOUNT_UNKNOWN, or TOKEN_NOT_ALLOWED for who may not give it away
   */
  async update(name: string, { owner: newOwner }: StreamUpdate, owner?: string): Promise<Stream> {
    const row = await this.#changes.make(async (transaction) => {
      if (owner !== undefined) {
        await requireOwnStream(transaction, name, owner);
        throw new ApiProblem('TOKEN_NOT_ALLOWED', 'Only an operator gives streams to accounts.');
      }
      if (newOwner !== null) await requireAccount(transaction, newOwner);
      return transaction
        .updateTable('streams')
        .set({ owner: newOwner })
        .where('name', '=', name)
        .returningAll()
        .executeTakeFirst();
    });
    if (row === undefined) throw unknownStream(name);
    this.#logger.info({ stream: name, owner: newOwner }, 'stream given to an account');
    return this.#streamOf(row);
  }

  /**
   * Removes the stream and its channel.
   * @param owner whose it has to be; anybody's when undefined
   * @throws ApiProblem STREAM_UNKNOWN
   */
  async remove(name: string, owner?: string): Promise<void> {
    await this.#changes.make(async (transaction) => {
      if (owner !== undefined) await requireOwnStream(transaction, name, owner);
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
      owner: row.owner,
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

/** Another account's stream is not there. @throws ApiProblem STREAM_UNKNOWN */
async function requireOwnStream(transaction: Transaction, name: string, owner: string): Promise<void> {
  const known = await transaction
    .selectFrom('streams')
    .select('name')
    .where('name', '=', name)
    .where('owner', '=', owner)
    .executeTakeFirst();
  if (known === undefined) throw unknownStream(name);
}

async function requireAccount(transaction: Transaction, name: string): Promise<void> {
  const known = await transaction
    .selectFrom('accounts')
    .select('name')
    .where('name', '=', name)
    .executeTakeFirst();
  if (known === undefined) throw unknownAccount(name);
}

/**
 * A streamer publishes. Addresses that the backends fetch, ports that they open and encoders that they run are the
 * operator's.
 */
function refuseWhatCostsOthers(
  adder: string,
  {
    input,
    transcode,
    owner,
  }: { readonly input: NewStreamInput; readonly transcode: unknown; readonly owner: string | undefined },
): void {
  const isOwn = owner === undefined || owner === adder;
  if (isOwn && input.type === 'rtmp' && transcode === undefined) return;
  throw new ApiProblem(
    'TOKEN_NOT_ALLOWED',
    'Streamers add RTMP streams of their own, as they are. Ask an operator for others.',
  );
}

/** The part of the state that is about streams. */
export async function readStreams(transaction: Transaction): Promise<Pick<BackendState, 'streams'>> {
  const rows = await transaction
    .selectFrom('streams')
    .select(['name', 'key_sha256', 'old_key_sha256', 'old_key_until', 'input', 'transcode'])
    .orderBy('name')
    .execute();
  return {
    streams: rows.map((row) => ({
      name: row.name,
      keySha256: row.key_sha256,
      ...(row.old_key_sha256 !== null &&
        row.old_key_until !== null && {
          oldKey: { sha256: row.old_key_sha256, untilUnixMs: row.old_key_until.getTime() },
        }),
      input: row.input,
      transcode: row.transcode,
    })),
  };
}
