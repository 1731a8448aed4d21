/** Bearer tokens for programs: scopes, an end, and maybe an account. A token is shown once; its digest is kept. */
import { createHash, randomBytes } from 'node:crypto';
import {
  type ApiToken,
  type ApiTokenWithSecret,
  type NewApiToken,
  reachOfRole,
} from '@starling/model/account';
import type { Kysely, Selectable } from 'kysely';
import type { Logger } from 'pino';
import { unknownAccount } from './accounts.ts';
import { type Caller, CallerCache } from './callers.ts';
import type { Changes } from './changes.ts';
import type { Tables } from './database.ts';
import { ApiProblem } from './problem.ts';
import { watchableChannels } from './sessions.ts';

/** Viewers' tokens come in the same header, and are not looked for here. */
export const API_TOKEN_PREFIX = 'sat_';
/** 256 bits: beyond guessing, so a fast digest protects the stored token well enough. */
const TOKEN_BYTES = 32;
const ID_BYTES = 8;
/** That are good for something. */
const MAX_TOKENS = 1000;
/** Those that are not any more stay in the list so long. */
const KEEP_ENDED_MS = 30 * 24 * 3600 * 1000;

const sha256Hex = (text: string) => createHash('sha256').update(text).digest('hex');

export class ApiTokens {
  readonly #db: Kysely<Tables>;
  readonly #changes: Changes;
  readonly #logger: Logger;
  readonly #now: () => number;
  readonly #callers: CallerCache;

  constructor(db: Kysely<Tables>, changes: Changes, logger: Logger, now: () => number) {
    this.#db = db;
    this.#changes = changes;
    this.#logger = logger;
    this.#now = now;
    this.#callers = new CallerCache(changes, now);
  }

  /** All tokens, newest first. */
  async list(): Promise<ApiToken[]> {
    const rows = await this.#db
      .selectFrom('api_tokens')
      .selectAll()
      .orderBy('created_at', 'desc')
      .orderBy('id')
      .execute();
    return rows.map(apiTokenOf);
  }

  /**
   * Makes a token. It belongs to the account that is named, or to the caller's.
   * @param creator gives away no more than it has itself
   * @throws ApiProblem SCOPE_NOT_HELD, ACCOUNT_UNKNOWN or TOO_MANY_API_TOKENS
   */
  async create(wanted: NewApiToken, creator: Caller): Promise<ApiTokenWithSecret> {
    const { name, scopes, expiresInSeconds, account = creator.account } = wanted;
    const missing = scopes.find((scope) => creator.reach(scope) !== 'all');
    if (missing !== undefined)
      throw new ApiProblem('SCOPE_NOT_HELD', `You do not have the scope ${missing}.`);
    const token = `${API_TOKEN_PREFIX}${randomBytes(TOKEN_BYTES).toString('base64url')}`;
    const nowMs = this.#now();
    const now = new Date(nowMs);
    const row = await this.#changes.make(async (transaction) => {
      if (account !== null) {
        const owner = await transaction
          .selectFrom('accounts')
          .select('role')
          .where('name', '=', account)
          .executeTakeFirst();
        if (owner === undefined) throw unknownAccount(account);
        const { role } = owner;
        const beyond = scopes.find((scope) => reachOfRole(role, scope) === undefined);
        if (beyond !== undefined) {
          throw new ApiProblem(
            'SCOPE_NOT_HELD',
            `${account} is ${role === 'editor' || role === 'operator' ? 'an' : 'a'} ${role} and has no scope ${beyond}.`,
          );
        }
      }
      const longAgo = new Date(nowMs - KEEP_ENDED_MS);
      await transaction
        .deleteFrom('api_tokens')
        .where(({ eb, or }) => or([eb('expires_at', '<', longAgo), eb('revoked_at', '<', longAgo)]))
        .execute();
      const { count } = await transaction
        .selectFrom('api_tokens')
        .select(({ fn }) => fn.countAll<string>().as('count'))
        .where('expires_at', '>', now)
        .where('revoked_at', 'is', null)
        .executeTakeFirstOrThrow();
      if (Number(count) >= MAX_TOKENS) {
        throw new ApiProblem('TOO_MANY_API_TOKENS', `There are ${MAX_TOKENS} already. Revoke one.`);
      }
      return transaction
        .insertInto('api_tokens')
        .values({
          id: randomBytes(ID_BYTES).toString('hex'),
          name,
          token_sha256: sha256Hex(token),
          account,
          scopes,
          created_at: now,
          expires_at: new Date(nowMs + expiresInSeconds * 1000),
        })
        .returningAll()
        .executeTakeFirstOrThrow();
    });
    this.#logger.info({ apiToken: row.id, name, scopes, account }, 'API token made');
    return { apiToken: apiTokenOf(row), token };
  }

  /**
   * Makes a token worthless at once.
   * @throws ApiProblem API_TOKEN_UNKNOWN
   */
  async revoke(id: string): Promise<void> {
    await this.#changes.make(async (transaction) => {
      const { numUpdatedRows } = await transaction
        .updateTable('api_tokens')
        .set((set) => ({ revoked_at: set.fn.coalesce('revoked_at', set.val(new Date(this.#now()))) }))
        .where('id', '=', id)
        .executeTakeFirst();
      if (numUpdatedRows === 0n) throw new ApiProblem('API_TOKEN_UNKNOWN', `There is no API token ${id}.`);
    });
    this.#logger.info({ apiToken: id }, 'API token revoked');
  }

  /** @returns undefined when the token is none, or has ended */
  async callerOf(token: string): Promise<Caller | undefined> {
    const digest = sha256Hex(token);
    return this.#callers.get(digest, () => this.#read(digest));
  }

  async #read(digest: string): Promise<Caller | undefined> {
    const row = await this.#db
      .selectFrom('api_tokens')
      .leftJoin('accounts', 'accounts.name', 'api_tokens.account')
      .select(['id', 'api_tokens.name', 'account', 'scopes', 'expires_at', 'role'])
      .select(watchableChannels)
      .where('token_sha256', '=', digest)
      .where('revoked_at', 'is', null)
      .where('expires_at', '>', new Date(this.#now()))
      .where(({ eb, or }) => or([eb('account', 'is', null), eb('is_disabled', '=', false)]))
      .executeTakeFirst();
    if (row === undefined) return undefined;
    const { id, name, account, scopes } = row;
    const role = row.role ?? 'operator';
    return {
      kind: 'api-token',
      id: account === null ? `api-token:${id}` : `account:${account}`,
      name: account === null ? `${name} (${id})` : `${account}, ${name} (${id})`,
      account,
      role,
      channels: account === null ? [] : row.channels,
      hasOneTimePassword: false,
      hasSecondFactor: false,
      expiresAt: row.expires_at,
      reach: (scope) => (scopes.includes(scope) ? reachOfRole(role, scope) : undefined),
    };
  }
}

function apiTokenOf(row: Selectable<Tables['api_tokens']>): ApiToken {
  return {
    id: row.id,
    name: row.name,
    account: row.account,
    scopes: row.scopes,
    createdAt: row.created_at.toISOString(),
    expiresAt: row.expires_at.toISOString(),
    revokedAt: row.revoked_at?.toISOString() ?? null,
  };
}
