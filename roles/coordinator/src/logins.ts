/**
 * Logging in: password, second factor, and what keeps guessing slow. Wrong attempts lock the account and the address, each
 * for longer than the last; a name that nobody has is locked in the same way, so that the answer tells nothing of it.
 *
 * Source: OWASP ASVS 4.0, 2.2.1 (anti-automation).
 */
import type { LoginRequest } from '@starling/model/account';
import { type Kysely, type Selectable, sql } from 'kysely';
import type { Logger } from 'pino';
import { actAs, auditedTransaction, recordLogin } from './audit.ts';
import type { Tables } from './database.ts';
import { isPassword, Turnstile } from './passwords.ts';
import { ApiProblem } from './problem.ts';
import { addressGroup } from './rate-limits.ts';
import { checkCode, type Spent } from './second-factor.ts';
import type { Session, Sessions } from './sessions.ts';

/** So many wrong attempts are free; an address may be that of a whole office. */
const FREE_ATTEMPTS = { account: 5, address: 20 };
const FIRST_LOCK_MS = 30_000;
const MAX_LOCK_MS = 3600 * 1000;
/** Then wrong attempts are forgotten. */
const FORGET_AFTER_MS = 24 * 3600 * 1000;
/** Names and addresses with wrong attempts; the oldest are forgotten when there are more. */
const MAX_FAILURES = 100_000;
/** How many attempts go by between two looks at that. */
const TRIM_EVERY = 1000;

type AccountRow = Selectable<Tables['accounts']>;

export class Logins {
  readonly #db: Kysely<Tables>;
  readonly #sessions: Sessions;
  readonly #onFailure: (account: string | undefined, address: string) => void;
  readonly #logger: Logger;
  readonly #now: () => number;
  readonly #turnstile = new Turnstile();
  #untilTrim = TRIM_EVERY;

  /** @param onFailure hears of each wrong attempt; the account is undefined where there is none of the name */
  constructor(
    db: Kysely<Tables>,
    sessions: Sessions,
    onFailure: (account: string | undefined, address: string) => void,
    logger: Logger,
    now: () => number,
  ) {
    this.#db = db;
    this.#sessions = sessions;
    this.#onFailure = onFailure;
    this.#logger = logger;
    this.#now = now;
  }

  /**
   * @param address where the request comes from
   * @throws ApiProblem LOGIN_FAILED, CODE_NEEDED, LOGIN_LOCKED or TOO_MANY_LOGINS
   */
  async login({ name, password, code }: LoginRequest, address: string): Promise<Session> {
    const wrong = new ApiProblem('LOGIN_FAILED', 'Check the name, the password and the code.');
    const { account, spent } = await this.#prove(name, password, { code }, address, wrong);
    const actor = { kind: 'account', name, address, request: 'POST /api/v1/login' } as const;
    const session = await actAs(actor, () =>
      auditedTransaction(this.#db, async (transaction) => {
        if (spent !== undefined) {
          // At the same time, the same code might have come twice.
          const { numUpdatedRows } = await transaction
            .updateTable('accounts')
            .set(
              'lastCounter' in spent
                ? { totp_last_counter: spent.lastCounter }
                : { recovery_sha256s: [...spent.recoverySha256s] },
            )
            .where('name', '=', name)
            .where('totp_last_counter', '=', account.totp_last_counter)
            .where(sql`cardinality(recovery_sha256s)`, '=', account.recovery_sha256s.length)
            .executeTakeFirst();
          if (numUpdatedRows === 0n) throw wrong;
        }
        await transaction.deleteFrom('login_failures').where('key', '=', `account:${name}`).execute();
        await recordLogin(transaction, 'succeeded', name);
        return this.#sessions.begin(transaction, name);
      }),
    );
    this.#logger.info({ account: name, address }, 'logged in');
    return session;
  }

  /**
   * Has somebody who is logged in show the password once more.
   * @throws ApiProblem PASSWORD_WRONG, LOGIN_LOCKED or TOO_MANY_LOGINS
   */
  async confirm(name: string, password: string, address: string): Promise<void> {
    const wrong = new ApiProblem('PASSWORD_WRONG', 'Check the password.');
    await this.#prove(name, password, undefined, address, wrong);
  }

  /** @param second undefined where the password is enough */
  async #prove(
    name: string,
    password: string,
    second: { readonly code: string | undefined } | undefined,
    address: string,
    wrong: ApiProblem,
  ): Promise<{ readonly account: AccountRow; readonly spent: Spent | undefined }> {
    const keys = { account: `account:${name}`, address: `address:${addressGroup(address)}` };
    return this.#turnstile.pass(async () => {
      await this.#refuseLocked(Object.values(keys));
      const account = await this.#db
        .selectFrom('accounts')
        .selectAll()
        .where('name', '=', name)
        .executeTakeFirst();
      const isRight = await isPassword(password, account?.password_hash);
      if (account !== undefined && isRight && !account.is_disabled) {
        const { totp_secret: secret } = account;
        if (!account.is_totp_on || secret === null || second === undefined)
          return { account, spent: undefined };
        if (second.code === undefined) {
          throw new ApiProblem('CODE_NEEDED', 'Send the code of the second factor too.');
        }
        const factor = {
          secret,
          lastCounter: Number(account.totp_last_counter),
          recoverySha256s: account.recovery_sha256s,
        };
        const spent = checkCode(factor, second.code, this.#now());
        if (spent !== undefined) return { account, spent };
      }
      this.#onFailure(account?.name, addressGroup(address));
      // What was typed as a name may be a password.
      await this.#countFailure(keys, account === undefined ? '(unknown)' : name, address);
      throw wrong;
    });
  }

  async #refuseLocked(keys: readonly string[]): Promise<void> {
    const nowMs = this.#now();
    const locks = await this.#db
      .selectFrom('login_failures')
      .select('locked_until')
      .where('key', 'in', keys)
      .where('locked_until', '>', new Date(nowMs))
      .execute();
    if (locks.length === 0) return;
    const untilMs = Math.max(...locks.map((lock) => lock.locked_until.getTime()));
    const retryAfterSeconds = Math.ceil((untilMs - nowMs) / 1000);
    throw new ApiProblem('LOGIN_LOCKED', `Try again in ${retryAfterSeconds} s.`, { retryAfterSeconds });
  }

  async #countFailure(
    keys: Readonly<Record<keyof typeof FREE_ATTEMPTS, string>>,
    name: string,
    address: string,
  ): Promise<void> {
    const nowMs = this.#now();
    const now = new Date(nowMs);
    let isLocked = false;
    await this.#db.transaction().execute(async (transaction) => {
      await transaction
        .deleteFrom('login_failures')
        .where('last_at', '<', new Date(nowMs - FORGET_AFTER_MS))
        .execute();
      if (--this.#untilTrim <= 0) {
        this.#untilTrim = TRIM_EVERY;
        const tooMany = transaction
          .selectFrom('login_failures')
          .select('key')
          .orderBy('last_at', 'desc')
          .offset(MAX_FAILURES);
        await transaction.deleteFrom('login_failures').where('key', 'in', tooMany).execute();
      }
      for (const of of ['account', 'address'] as const) {
        const { count } = await transaction
          .insertInto('login_failures')
          .values({ key: keys[of], count: 1, last_at: now, locked_until: now })
          .onConflict((conflict) =>
            conflict
              .column('key')
              .doUpdateSet(({ eb }) => ({ count: eb('login_failures.count', '+', 1), last_at: now })),
          )
          .returning('count')
          .executeTakeFirstOrThrow();
        const excess = count - FREE_ATTEMPTS[of];
        if (excess < 0) continue;
        isLocked = true;
        const lockMs = Math.min(MAX_LOCK_MS, FIRST_LOCK_MS * 2 ** excess);
        await transaction
          .updateTable('login_failures')
          .set({ locked_until: new Date(nowMs + lockMs) })
          .where('key', '=', keys[of])
          .execute();
      }
      await recordLogin(transaction, isLocked ? 'locked' : 'failed', name);
    });
    this.#logger.warn({ account: name, address, isLocked }, 'a login failed');
  }
}
