/** The viewing tokens: who may watch private channels. A token is shown once; what is kept says only what it was for. */
import { randomBytes } from 'node:crypto';
import type { NewViewingToken, ViewingToken, ViewingTokenWithSecret } from '@starling/model/entities';
import { coversChannel, signViewingToken, ViewingTokenVerifier } from '@starling/model/viewing-token';
import { type Kysely, type Selectable, sql } from 'kysely';
import type { Logger } from 'pino';
import type { Static } from 'typebox';
import type { Changes } from './changes.ts';
import type { Tables, Transaction } from './database.ts';
import { type Page, type PageQuery, pageOf, pageRequestOf } from './page.ts';
import { ApiProblem, unknownChannel } from './problem.ts';
import { RowCache } from './row-cache.ts';
import type { Snapshot } from './state.ts';
import type { CurrentKeys, ViewingKeys } from './viewing-keys.ts';

const ID_BYTES = 9;
/** That have not expired; frontends hear of all that are revoked. */
const MAX_TOKENS = 10_000;
/** Expired ones stay in the list so long. */
const KEEP_EXPIRED_MS = 30 * 24 * 3600 * 1000;

/** The limits and rights that are kept on frontends. */
export interface ViewingRules {
  readonly revision: number;
  readonly channels: readonly {
    readonly name: string;
    readonly isPrivate: boolean;
    readonly maxViewers: number | null;
  }[];
  readonly revokedTokenIds: readonly string[];
  /** Of tokens that have one, by id. */
  readonly maxConcurrentByToken: ReadonlyMap<string, number>;
}

/** What a caller may see beside the public channels. */
export interface ViewingRight {
  /** False: what anyone may see. */
  readonly isPersonal: boolean;
  /** Why the token that was shown opens nothing; undefined when it does, or none was shown. */
  readonly refusal: string | undefined;
  covers(channel: string): boolean;
}

/** Of who shows nothing. */
export const PUBLIC_RIGHT: ViewingRight = { isPersonal: false, refusal: undefined, covers: () => false };

export class ViewingTokens {
  readonly #db: Kysely<Tables>;
  readonly #changes: Changes;
  readonly #rows: RowCache<Selectable<Tables['viewing_tokens']>[]>;
  readonly #keys: ViewingKeys;
  readonly #rules: Snapshot<ViewingRules>;
  readonly #logger: Logger;
  readonly #now: () => number;
  readonly #verifier: ViewingTokenVerifier;
  #verifierKeys: CurrentKeys | undefined;

  constructor(
    db: Kysely<Tables>,
    changes: Changes,
    keys: ViewingKeys,
    rules: Snapshot<ViewingRules>,
    logger: Logger,
    now: () => number,
  ) {
    this.#db = db;
    this.#changes = changes;
    this.#rows = new RowCache(changes);
    this.#keys = keys;
    this.#rules = rules;
    this.#logger = logger;
    this.#now = now;
    this.#verifier = new ViewingTokenVerifier(now);
  }

  /** Newest first. @throws ApiProblem REQUEST_INVALID for a bad cursor */
  async list(query: Static<typeof PageQuery>): Promise<Page<ViewingToken>> {
    const request = pageRequestOf(query, ['created_at', 'id']);
    const { after } = request;
    const rows = await this.#rows.get(request.id, () =>
      this.#db
        .selectFrom('viewing_tokens')
        .selectAll()
        .$if(after !== undefined, (query) =>
          query.where(sql<boolean>`(created_at, id) < (${after?.[0]}::timestamptz, ${after?.[1]})`),
        )
        .orderBy('created_at', 'desc')
        .orderBy('id', 'desc')
        .limit(request.rowLimit)
        .execute(),
    );
    return pageOf(rows, request, (row) => [row.created_at.toISOString(), row.id], tokenOf);
  }

  /**
   * Makes a token.
   * @throws ApiProblem CHANNEL_UNKNOWN or TOO_MANY_VIEWING_TOKENS
   */
  async create(wanted: NewViewingToken): Promise<ViewingTokenWithSecret> {
    const { channels, maxConcurrent, name } = wanted;
    const id = randomBytes(ID_BYTES).toString('hex');
    const issuedAtUnixMs = this.#now();
    // Whole seconds, as in the token.
    const expiresAtUnixMs = (Math.floor(issuedAtUnixMs / 1000) + wanted.expiresInSeconds) * 1000;
    const { signingKey: key } = await this.#keys.read();
    // A change, because of its limit.
    const row = await this.#changes.make(async (transaction) => {
      await requireChannels(transaction, channels ?? []);
      await transaction
        .deleteFrom('viewing_tokens')
        .where('expires_at', '<', new Date(issuedAtUnixMs - KEEP_EXPIRED_MS))
        .execute();
      const { count } = await transaction
        .selectFrom('viewing_tokens')
        .select((select) => select.fn.countAll<string>().as('count'))
        .where('expires_at', '>', new Date(issuedAtUnixMs))
        .executeTakeFirstOrThrow();
      if (Number(count) >= MAX_TOKENS) {
        throw new ApiProblem('TOO_MANY_VIEWING_TOKENS', `At most ${MAX_TOKENS} that have not expired.`);
      }
      return transaction
        .insertInto('viewing_tokens')
        .values({
          id,
          key_id: key.id,
          name: name ?? null,
          channels,
          max_concurrent: maxConcurrent ?? null,
          created_at: new Date(issuedAtUnixMs),
          expires_at: new Date(expiresAtUnixMs),
          revoked_at: null,
        })
        .returningAll()
        .executeTakeFirstOrThrow();
    });
    this.#logger.info({ viewingToken: id, channels, name }, 'viewing token made');
    const claims = { id, channels: channels ?? ('all' as const), expiresAtUnixMs, maxConcurrent, name };
    const token = await signViewingToken(key, { ...claims, issuedAtUnixMs });
    return { viewingToken: tokenOf(row), token };
  }

  /**
   * Makes a token worthless; who watches with it is shown out.
   * @throws ApiProblem VIEWING_TOKEN_UNKNOWN
   */
  async revoke(id: string): Promise<void> {
    await this.#changes.make(async (transaction) => {
      const { numUpdatedRows } = await transaction
        .updateTable('viewing_tokens')
        .set((set) => ({ revoked_at: set.fn.coalesce('revoked_at', set.val(new Date(this.#now()))) }))
        .where('id', '=', id)
        .executeTakeFirst();
      if (numUpdatedRows === 0n) {
        throw new ApiProblem('VIEWING_TOKEN_UNKNOWN', `There is no viewing token ${id}.`);
      }
    });
    this.#logger.info({ viewingToken: id }, 'viewing token revoked');
  }

  /** Signs new tokens with a new key. A key is forgotten when the last of its tokens has expired. */
  async rotateKey(): Promise<void> {
    // A change, so that frontends hear of the new key.
    const keys = await this.#changes.make(async (transaction) => {
      const rows = await transaction
        .selectFrom('viewing_tokens')
        .select('key_id')
        .distinct()
        .where('expires_at', '>', new Date(this.#now()))
        .execute();
      return this.#keys.rotate(new Set(rows.map((row) => row.key_id)));
    });
    this.#logger.info({ key: keys.signingKey.id }, 'viewing tokens are signed with a new key');
  }

  /** What a token that a viewer shows is good for. */
  async rightOf(token: string | undefined): Promise<ViewingRight> {
    const none = (refusal: string | undefined) => ({ ...PUBLIC_RIGHT, refusal });
    if (token === undefined) return none(undefined);
    const keys = await this.#keys.read();
    if (keys !== this.#verifierKeys) this.#verifier.setKeys(keys.publicKeys);
    this.#verifierKeys = keys;
    const claims = await this.#verifier.verify(token);
    if (claims === 'expired') return none('The viewing token has expired. Ask for a new one.');
    if (claims === 'invalid') return none('This is no viewing token of this network.');
    const { revokedTokenIds } = await this.#rules.read();
    if (revokedTokenIds.includes(claims.id)) return none('The viewing token has been revoked.');
    return { isPersonal: true, refusal: undefined, covers: (channel) => coversChannel(claims, channel) };
  }
}

async function requireChannels(transaction: Transaction, names: readonly string[]): Promise<void> {
  if (names.length === 0) return;
  const rows = await transaction.selectFrom('channels').select('name').where('name', 'in', names).execute();
  const unknown = names.find((name) => !rows.some((row) => row.name === name));
  if (unknown !== undefined) throw unknownChannel(unknown);
}

function tokenOf(row: Selectable<Tables['viewing_tokens']>): ViewingToken {
  return {
    id: row.id,
    name: row.name,
    channels: row.channels,
    maxConcurrent: row.max_concurrent,
    createdAt: row.created_at.toISOString(),
    expiresAt: row.expires_at.toISOString(),
    revokedAt: row.revoked_at?.toISOString() ?? null,
  };
}
