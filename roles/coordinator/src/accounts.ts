/** The accounts: who may log in, and as what. */
import type { Account, AccountUpdate, AccountWithPassword, NewAccount } from '@starling/model/account';
import type { Kysely, Selectable } from 'kysely';
import type { Logger } from 'pino';
import type { Static } from 'typebox';
import { actAs } from './audit.ts';
import type { Changes } from './changes.ts';
import type { Tables, Transaction } from './database.ts';
import { type Page, type PageQuery, pageOf, pageRequestOf } from './page.ts';
import { hashPassword, newPassword } from './passwords.ts';
import { ApiProblem } from './problem.ts';
import { checkCode, newRecoveryCodes, newSecret, secretUri } from './second-factor.ts';

const FIRST_ACCOUNT = 'operator';
const system = { kind: 'system', name: 'starling', address: null, request: null } as const;

export class Accounts {
  readonly #db: Kysely<Tables>;
  readonly #changes: Changes;
  readonly #logger: Logger;
  readonly #now: () => number;

  constructor(db: Kysely<Tables>, changes: Changes, logger: Logger, now: () => number) {
    this.#db = db;
    this.#changes = changes;
    this.#logger = logger;
    this.#now = now;
  }

  /**
   * Makes the first account where there is none.
   * @returns its password, which can be used once; undefined when there are accounts
   */
  async makeFirst(): Promise<{ readonly name: string; readonly password: string } | undefined> {
    const known = await this.#db.selectFrom('accounts').select('name').limit(1).executeTakeFirst();
    if (known !== undefined) return undefined;
    const wanted: NewAccount = { name: FIRST_ACCOUNT, role: 'operator' };
    try {
      const { password } = await actAs(system, () => this.add(wanted));
      return password === null ? undefined : { name: FIRST_ACCOUNT, password };
    } catch (error) {
      // Another coordinator on the same database was quicker.
      if (error instanceof ApiProblem && error.code === 'ACCOUNT_EXISTS') return undefined;
      throw error;
    }
  }

  /** By name. @throws ApiProblem REQUEST_INVALID for a bad cursor */
  async list(query: Static<typeof PageQuery>): Promise<Page<Account>> {
    const request = pageRequestOf(query, ['name']);
    const after = request.after?.[0];
    const rows = await this.#db
      .selectFrom('accounts')
      .selectAll()
      .$if(after !== undefined, (query) => query.where('name', '>', after ?? ''))
      .orderBy('name')
      .limit(request.rowLimit)
      .execute();
    return pageOf(rows, request, ({ name }) => [name], accountOf);
  }

  /** @throws ApiProblem ACCOUNT_UNKNOWN */
  async get(name: string): Promise<Account> {
    const row = await this.#db.selectFrom('accounts').selectAll().where('name', '=', name).executeTakeFirst();
    if (row === undefined) throw unknownAccount(name);
    return accountOf(row);
  }

  /** @throws ApiProblem ACCOUNT_EXISTS */
  async add({ name, role, password, channels = [] }: NewAccount): Promise<AccountWithPassword> {
    const made = password === undefined ? newPassword() : null;
    const passwordHash = await hashPassword(password ?? made ?? '');
    const row = await this.#changes.make((transaction) =>
      transaction
        .insertInto('accounts')
        .values({
          name,
          role,
          password_hash: passwordHash,
          has_one_time_password: made !== null,
          channels,
          totp_secret: null,
          created_at: new Date(this.#now()),
        })
        .onConflict((conflict) => conflict.column('name').doNothing())
        .returningAll()
        .executeTakeFirst(),
    );
    if (row === undefined) {
      throw new ApiProblem('ACCOUNT_EXISTS', `There is an account ${name} already. Choose another name.`);
    }
    this.#logger.info({ account: name, role }, 'account added');
    return { account: accountOf(row), password: made };
  }

  /** @throws ApiProblem ACCOUNT_UNKNOWN or ACCOUNT_IS_LAST_OPERATOR */
  async update(name: string, update: AccountUpdate): Promise<Account> {
    const { role, isDisabled, channels, hasSecondFactor } = update;
    const row = await this.#changes.make(async (transaction) => {
      if ((role !== undefined && role !== 'operator') || isDisabled === true)
        await refuseLastOperator(transaction, name);
      return transaction
        .updateTable('accounts')
        .set(({ ref }) => ({
          role: role ?? ref('role'),
          ...(isDisabled !== undefined && { is_disabled: isDisabled }),
          ...(channels !== undefined && { channels }),
          ...(hasSecondFactor === false && noSecondFactor),
        }))
        .where('name', '=', name)
        .returningAll()
        .executeTakeFirst();
    });
    if (row === undefined) throw unknownAccount(name);
    this.#logger.info({ account: name, role, isDisabled }, 'account changed');
    return accountOf(row);
  }

  /**
   * Removes an account with its sessions and tokens. Its streams stay, and belong to nobody.
   * @throws ApiProblem ACCOUNT_UNKNOWN or ACCOUNT_IS_LAST_OPERATOR
   */
  async remove(name: string): Promise<void> {
    await this.#changes.make(async (transaction) => {
      await refuseLastOperator(transaction, name);
      const { numDeletedRows } = await transaction
        .deleteFrom('accounts')
        .where('name', '=', name)
        .executeTakeFirst();
      if (numDeletedRows === 0n) throw unknownAccount(name);
    });
    this.#logger.info({ account: name }, 'account removed');
  }

  /**
   * Sets a password for somebody, and ends all sessions of the account and its lock.
   * @param password one that can be used once is made when undefined
   * @throws ApiProblem ACCOUNT_UNKNOWN
   */
  async resetPassword(name: string, password: string | undefined): Promise<AccountWithPassword> {
    const made = password === undefined ? newPassword() : null;
    const account = await this.#setPassword(name, password ?? made ?? '', made !== null);
    return { account, password: made };
  }

  /** The password that the account chose itself. All its sessions end. */
  async choosePassword(name: string, password: string): Promise<Account> {
    return this.#setPassword(name, password, false);
  }

  /**
   * Begins to set up a second factor; it is on once a code has shown that the device knows the secret.
   * @throws ApiProblem ACCOUNT_UNKNOWN or SECOND_FACTOR_IS_ON
   */
  async beginSecondFactor(name: string): Promise<{ secret: string; uri: string }> {
    const secret = newSecret();
    await this.#changes.make(async (transaction) => {
      const row = await secondFactorOf(transaction, name);
      if (row.is_totp_on) {
        throw new ApiProblem('SECOND_FACTOR_IS_ON', `${name} has one. Take it away first.`);
      }
      await transaction
        .updateTable('accounts')
        .set({ totp_secret: secret })
        .where('name', '=', name)
        .execute();
    });
    return { secret, uri: secretUri(secret, name) };
  }

  /**
   * @returns the recovery codes
   * @throws ApiProblem ACCOUNT_UNKNOWN, SECOND_FACTOR_IS_ON, SECOND_FACTOR_IS_OFF or PASSWORD_WRONG
   */
  async confirmSecondFactor(name: string, code: string): Promise<string[]> {
    const { codes, sha256s } = newRecoveryCodes();
    await this.#changes.make(async (transaction) => {
      const row = await secondFactorOf(transaction, name);
      if (row.is_totp_on) throw new ApiProblem('SECOND_FACTOR_IS_ON', `${name} has one already.`);
      if (row.totp_secret === null) throw new ApiProblem('SECOND_FACTOR_IS_OFF', 'Ask for a secret first.');
      const factor = { secret: row.totp_secret, lastCounter: 0, recoverySha256s: [] };
      const spent = checkCode(factor, code, this.#now());
      if (spent === undefined || !('lastCounter' in spent))
        throw new ApiProblem('PASSWORD_WRONG', "This is not the code of now. Is the device's clock right?");
      await transaction
        .updateTable('accounts')
        .set({ is_totp_on: true, totp_last_counter: spent.lastCounter, recovery_sha256s: sha256s })
        .where('name', '=', name)
        .execute();
    });
    this.#logger.info({ account: name }, 'second factor on');
    return codes;
  }

  async #setPassword(name: string, password: string, isOneTime: boolean): Promise<Account> {
    const passwordHash = await hashPassword(password);
    const row = await this.#changes.make(async (transaction) => {
      await transaction.deleteFrom('sessions').where('account', '=', name).execute();
      await transaction.deleteFrom('login_failures').where('key', '=', `account:${name}`).execute();
      return transaction
        .updateTable('accounts')
        .set({ password_hash: passwordHash, has_one_time_password: isOneTime })
        .where('name', '=', name)
        .returningAll()
        .executeTakeFirst();
    });
    if (row === undefined) throw unknownAccount(name);
    this.#logger.info({ account: name }, 'password changed');
    return accountOf(row);
  }
}

const noSecondFactor = { totp_secret: null, is_totp_on: false, recovery_sha256s: [] };

async function secondFactorOf(transaction: Transaction, name: string) {
  const row = await transaction
    .selectFrom('accounts')
    .select(['totp_secret', 'is_totp_on'])
    .where('name', '=', name)
    .executeTakeFirst();
  if (row === undefined) throw unknownAccount(name);
  return row;
}

/** Somebody has to be able to let others in. */
async function refuseLastOperator(transaction: Transaction, name: string): Promise<void> {
  const operators = await transaction
    .selectFrom('accounts')
    .select('name')
    .where('role', '=', 'operator')
    .where('is_disabled', '=', false)
    .execute();
  if (operators.length === 1 && operators[0]?.name === name) {
    throw new ApiProblem('ACCOUNT_IS_LAST_OPERATOR', `${name} is the last operator. Make another one first.`);
  }
}

export function unknownAccount(name: string): ApiProblem {
  return new ApiProblem('ACCOUNT_UNKNOWN', `There is no account ${name}.`);
}

function accountOf(row: Selectable<Tables['accounts']>): Account {
  return {
    name: row.name,
    role: row.role,
    isDisabled: row.is_disabled,
    channels: row.channels,
    hasOneTimePassword: row.has_one_time_password,
    hasSecondFactor: row.is_totp_on,
    createdAt: row.created_at.toISOString(),
  };
}
