/**
 * Sessions of people who logged in: a cookie whose digest is kept. A session ends when it is not used, and at the latest
 * half a day after the login.
 *
 * Sources: RFC 6265bis, 4.1.3.2 (`__Host-`); OWASP Session Management Cheat Sheet.
 */
import { createHash, randomBytes } from 'node:crypto';
import { type LoginSession, reachOfRole } from '@starling/model/account';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { type Kysely, sql } from 'kysely';
import type { Logger } from 'pino';
import { recordLogin } from './audit.ts';
import { type Caller, CallerCache } from './callers.ts';
import type { Changes } from './changes.ts';
import type { Tables, Transaction } from './database.ts';
import { ApiProblem } from './problem.ts';

const TOKEN_BYTES = 32;
const IDLE_MS = 3600 * 1000;
const ABSOLUTE_MS = 12 * 3600 * 1000;
/** How exactly it is known when a session was used last. */
const TOUCH_EVERY_MS = 60_000;
/** The one that was used least recently makes room. */
const MAX_PER_ACCOUNT = 50;
const COOKIE = 'starling';
/** Of the digest: enough to tell them apart, and of no use to who wants to be somebody. */
const ID_CHARS = 16;

export interface Session {
  /** Goes into the cookie; only its digest is kept. */
  readonly token: string;
  readonly expiresAt: Date;
}

const sha256Hex = (text: string) => createHash('sha256').update(text).digest('hex');

export class Sessions {
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

  /** Begins a session in the transaction of the login. */
  async begin(transaction: Transaction, account: string): Promise<Session> {
    const token = randomBytes(TOKEN_BYTES).toString('base64url');
    const now = new Date(this.#now());
    const expiresAt = new Date(now.getTime() + ABSOLUTE_MS);
    await transaction.deleteFrom('sessions').where('expires_at', '<', now).execute();
    const tooMany = transaction
      .selectFrom('sessions')
      .select('token_sha256')
      .where('account', '=', account)
      .orderBy('last_used_at', 'desc')
      .offset(MAX_PER_ACCOUNT - 1);
    await transaction.deleteFrom('sessions').where('token_sha256', 'in', tooMany).execute();
    await transaction
      .insertInto('sessions')
      .values({
        token_sha256: sha256Hex(token),
        account,
        created_at: now,
        last_used_at: now,
        expires_at: expiresAt,
      })
      .execute();
    return { token, expiresAt };
  }

  /** @returns undefined when there is no such session, or it has ended */
  async callerOf(token: string): Promise<Caller | undefined> {
    const digest = sha256Hex(token);
    return this.#callers.get(digest, () => this.#read(digest));
  }

  /**
   * Those of an account that have not ended, newest first.
   * @param own token of the session that asks
   */
  async list(account: string, own: string | undefined): Promise<LoginSession[]> {
    const nowMs = this.#now();
    const rows = await this.#db
      .selectFrom('sessions')
      .selectAll()
      .where('account', '=', account)
      .where('expires_at', '>', new Date(nowMs))
      .where('last_used_at', '>', new Date(nowMs - IDLE_MS))
      .orderBy('created_at', 'desc')
      .orderBy('token_sha256')
      .execute();
    const ownDigest = own === undefined ? undefined : sha256Hex(own);
    return rows.map((row) => ({
      id: row.token_sha256.slice(0, ID_CHARS),
      createdAt: row.created_at.toISOString(),
      lastUsedAt: row.last_used_at.toISOString(),
      expiresAt: row.expires_at.toISOString(),
      isThisOne: row.token_sha256 === ownDigest,
    }));
  }

  /**
   * Ends one session of an account, or all, at once and on every coordinator.
   * @throws ApiProblem SESSION_UNKNOWN where there is none of this id
   */
  async endOf(account: string, id?: string): Promise<void> {
    await this.#changes.make(async (transaction) => {
      const ended = await transaction
        .deleteFrom('sessions')
        .where('account', '=', account)
        .$if(id !== undefined, (query) =>
          query.where(({ eb, fn, val }) => eb(fn('left', ['token_sha256', val(ID_CHARS)]), '=', id ?? '')),
        )
        .returning('account')
        .execute();
      if (id !== undefined && ended.length === 0)
        throw new ApiProblem('SESSION_UNKNOWN', `There is no session ${id} of ${account}.`);
      for (const one of ended) await recordLogin(transaction, 'ended', one.account);
    });
  }

  /** Ends a session at once, on every coordinator. */
  async end(token: string): Promise<void> {
    await this.#changes.make(async (transaction) => {
      const ended = await transaction
        .deleteFrom('sessions')
        .where('token_sha256', '=', sha256Hex(token))
        .returning('account')
        .executeTakeFirst();
      if (ended !== undefined) await recordLogin(transaction, 'ended', ended.account);
    });
  }

  async #read(digest: string): Promise<Caller | undefined> {
    const nowMs = this.#now();
    const row = await this.#db
      .selectFrom('sessions')
      .innerJoin('accounts', 'accounts.name', 'sessions.account')
      .select(['role', 'is_totp_on', 'has_one_time_password', 'expires_at', 'last_used_at', 'account'])
      .select(watchableChannels)
      .where('token_sha256', '=', digest)
      .where('is_disabled', '=', false)
      .executeTakeFirst();
    if (row === undefined) return undefined;
    const lastUsedMs = row.last_used_at.getTime();
    if (nowMs >= row.expires_at.getTime() || nowMs >= lastUsedMs + IDLE_MS) return undefined;
    if (nowMs >= lastUsedMs + TOUCH_EVERY_MS) {
      await this.#db
        .updateTable('sessions')
        .set({ last_used_at: new Date(nowMs) })
        .where('token_sha256', '=', digest)
        .execute()
        .catch((error: unknown) => this.#logger.warn({ err: error }, 'the use of a session was not kept'));
    }
    return {
      kind: 'session',
      id: `account:${row.account}`,
      name: row.account,
      account: row.account,
      role: row.role,
      channels: row.channels,
      hasOneTimePassword: row.has_one_time_password,
      hasSecondFactor: row.is_totp_on,
      expiresAt: row.expires_at,
      reach: (scope) => reachOfRole(row.role, scope),
    };
  }
}

/** The private channels that an account was given, and those of its streams. */
export const watchableChannels = sql<string[]>`
  accounts.channels || array(select streams.name from streams where streams.owner = accounts.name)`.as(
  'channels',
);

/** A host cookie where there is TLS: no other name below the domain, and no page without TLS, can set one. */
function cookieName(request: FastifyRequest): string {
  return request.protocol === 'https' ? `__Host-${COOKIE}` : COOKIE;
}

export function readSessionCookie(request: FastifyRequest): string | undefined {
  const prefix = `${cookieName(request)}=`;
  const pairs = request.headers.cookie?.split(';').map((pair) => pair.trim());
  const value = pairs?.find((pair) => pair.startsWith(prefix))?.slice(prefix.length);
  return value !== undefined && /^[\w-]{20,100}$/.test(value) ? value : undefined;
}

/** @param token undefined takes the cookie away */
export function setSessionCookie(
  request: FastifyRequest,
  reply: FastifyReply,
  token: string | undefined,
): void {
  const attributes = [
    'Path=/',
    'HttpOnly',
    'SameSite=Strict',
    `Max-Age=${token === undefined ? 0 : ABSOLUTE_MS / 1000}`,
  ];
  if (request.protocol === 'https') attributes.push('Secure');
  reply.header('set-cookie', [`${cookieName(request)}=${token ?? ''}`, ...attributes].join('; '));
}
