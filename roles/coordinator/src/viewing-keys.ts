/**
 * The secrets behind private channels: the keys that sign viewing tokens, and what the names of
 * segments are made with. They lie in one file that this account alone may read: encrypted in the
 * database they would need a key of their own, which would lie in a file again (docs/decisions/006). Hosts of a group, which
 * have no file that stays and one secret in common, keep them there all the same (docs/decisions/047).
 */
import { createCipheriv, createDecipheriv, createHmac, hkdfSync, randomBytes } from 'node:crypto';
import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ViewingTokenKey } from '@starling/model/entities';
import type { OpenSecret } from '@starling/model/secret';
import { newSigningKey, SigningKey } from '@starling/model/viewing-token';
import type { Kysely } from 'kysely';
import { type Static, Type } from 'typebox';
import { Check } from 'typebox/value';
import type { Changes } from './changes.ts';
import { DataFolderError } from './data-folder-lock.ts';
import type { Tables } from './database.ts';
import { Snapshot } from './state.ts';

/** In the data folder. */
export const VIEWING_KEYS_FILE = 'viewing-keys.json';
const NAME_SECRET_BYTES = 32;
/** In the table of settings. */
const SETTING = 'viewing-keys';
/** Of AES-256-GCM (NIST SP 800-38D, 8.2.1). */
const IV_BYTES = 12;
const TAG_BYTES = 16;

const ViewingKeysFile = Type.Object({
  /** In base64url. */
  nameSecret: Type.String({ minLength: 43 }),
  /** The first one signs; the others are kept for tokens that are out. */
  signingKeys: Type.Array(SigningKey, { minItems: 1 }),
});
type ViewingKeysFile = Static<typeof ViewingKeysFile>;

/** The keys as they are now. */
export class CurrentKeys {
  readonly #file: ViewingKeysFile;

  constructor(file: ViewingKeysFile) {
    this.#file = file;
  }

  /** New tokens are signed with it. */
  get signingKey(): SigningKey {
    const [newest] = this.#file.signingKeys;
    if (newest === undefined) throw new Error('no key to sign viewing tokens with');
    return newest;
  }

  get publicKeys(): ViewingTokenKey[] {
    return this.#file.signingKeys.map(({ id, x }) => ({ id, x }));
  }

  /** What the names of a channel's segments are made with while it is private. */
  nameKeyOf(channel: string): string {
    return createHmac('sha256', this.#file.nameSecret).update(channel).digest('base64url');
  }
}

/** Where the keys are kept. */
interface Keeper {
  read(): Promise<ViewingKeysFile>;
  write(file: ViewingKeysFile): Promise<void>;
}

export class ViewingKeys {
  readonly #keeper: Keeper;
  #current: { readonly file: ViewingKeysFile; readonly keys: CurrentKeys } | undefined;

  private constructor(keeper: Keeper) {
    this.#keeper = keeper;
  }

  /**
   * Reads the file in the data folder; the first time makes it.
   * @throws DataFolderError when it is damaged; the system's error when it cannot be read or written
   */
  static async open(dataDir: string): Promise<ViewingKeys> {
    const path = join(dataDir, VIEWING_KEYS_FILE);
    const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return undefined;
      throw error;
    });
    const file: unknown = text === undefined ? await newFile() : parsed(text);
    if (!Check(ViewingKeysFile, file)) {
      throw new DataFolderError(
        `${path} is damaged. Restore it from a backup, or remove it: all viewing tokens are void then.`,
      );
    }
    const keeper = new FileKeeper(path, file);
    if (text === undefined) await keeper.write(file);
    return new ViewingKeys(keeper);
  }

  /**
   * Those of coordinators that come and go together: in the database, sealed with a secret that all of them have in a file.
   * The first of them makes them.
   * @throws DataFolderError when they were sealed with another secret
   */
  static async openShared(db: Kysely<Tables>, changes: Changes, secret: OpenSecret): Promise<ViewingKeys> {
    const keeper = new DatabaseKeeper(db, changes, secret);
    await keeper.makeFirst();
    await keeper.read();
    return new ViewingKeys(keeper);
  }

  /** No older than the last change that was committed before the call; the same object until they change. */
  async read(): Promise<CurrentKeys> {
    const file = await this.#keeper.read();
    if (this.#current?.file !== file) this.#current = { file, keys: new CurrentKeys(file) };
    return this.#current.keys;
  }

  /**
   * Signs with a new key from now on.
   * @param idsInUse older keys that are kept, for the tokens that they signed
   */
  async rotate(idsInUse: ReadonlySet<string>): Promise<CurrentKeys> {
    const before = await this.#keeper.read();
    const kept = before.signingKeys.filter(({ id }) => idsInUse.has(id));
    const file = { ...before, signingKeys: [await newSigningKey(), ...kept] };
    await this.#keeper.write(file);
    return new CurrentKeys(file);
  }
}

class FileKeeper implements Keeper {
  readonly #path: string;
  #file: ViewingKeysFile;

  constructor(path: string, file: ViewingKeysFile) {
    this.#path = path;
    this.#file = file;
  }

  async read(): Promise<ViewingKeysFile> {
    return this.#file;
  }

  /** Beside its place first, so that a kill half-way leaves the old file. */
  async write(file: ViewingKeysFile): Promise<void> {
    await writeFile(`${this.#path}.new`, `${JSON.stringify(file, null, 2)}\n`, { mode: 0o600 });
    await rename(`${this.#path}.new`, this.#path);
    this.#file = file;
  }
}

class DatabaseKeeper implements Keeper {
  readonly #db: Kysely<Tables>;
  readonly #secret: OpenSecret;
  readonly #current: Snapshot<ViewingKeysFile>;
  #opened: { readonly value: unknown; readonly file: ViewingKeysFile; readonly secret: string } | undefined;

  constructor(db: Kysely<Tables>, changes: Changes, secret: OpenSecret) {
    this.#db = db;
    this.#secret = secret;
    this.#current = new Snapshot(db, changes, async (transaction) => {
      const { value } = await transaction
        .selectFrom('settings')
        .select('value')
        .where('name', '=', SETTING)
        .executeTakeFirstOrThrow();
      return this.#open(value);
    });
  }

  /** Of coordinators that start at once one makes them. */
  async makeFirst(): Promise<void> {
    const value = JSON.stringify(seal(await newFile(), this.#secret.current()));
    await this.#db
      .insertInto('settings')
      .values({ name: SETTING, value })
      .onConflict((conflict) => conflict.column('name').doNothing())
      .execute();
  }

  async read(): Promise<ViewingKeysFile> {
    const file = await this.#current.read();
    // The secret was replaced meanwhile: the old one is known for the time of its overlap only.
    if (this.#opened !== undefined && this.#opened.secret !== this.#secret.current())
      await this.write(file).catch(() => {}); // the next to read does it
    return file;
  }

  /** To be followed by a change, by which all coordinators hear of it, where the keys are others. */
  async write(file: ViewingKeysFile): Promise<void> {
    const secret = this.#secret.current();
    const value = seal(file, secret);
    await this.#db
      .updateTable('settings')
      .set({ value: JSON.stringify(value) })
      .where('name', '=', SETTING)
      .execute();
    this.#opened = { value, file, secret };
  }

  #open(value: unknown): ViewingKeysFile {
    if (this.#opened !== undefined && this.#opened.value === value) return this.#opened.file;
    for (const secret of this.#secret.accepted()) {
      const file = unsealed(value, secret);
      if (file === undefined) continue;
      this.#opened = { value, file, secret };
      return file;
    }
    // Sealed anew by a coordinator whose secret has been replaced already; here it will be.
    if (this.#opened !== undefined) return this.#opened.file;
    throw new DataFolderError(
      'The keys of viewing tokens in the database were sealed with another node token. Give this coordinator the node token of the others.',
    );
  }
}

const keyFrom = (secret: string) => Buffer.from(hkdfSync('sha256', secret, '', 'starling viewing keys', 32));

function seal(file: ViewingKeysFile, secret: string): string {
  const iv = randomBytes(IV_BYTES);
  const cipher = createCipheriv('aes-256-gcm', keyFrom(secret), iv);
  const sealed = Buffer.concat([cipher.update(JSON.stringify(file)), cipher.final()]);
  return Buffer.concat([iv, cipher.getAuthTag(), sealed]).toString('base64url');
}

/** @returns undefined where it was sealed with another secret */
function unsealed(value: unknown, secret: string): ViewingKeysFile | undefined {
  const bytes = Buffer.from(String(value), 'base64url');
  try {
    const decipher = createDecipheriv('aes-256-gcm', keyFrom(secret), bytes.subarray(0, IV_BYTES));
    decipher.setAuthTag(bytes.subarray(IV_BYTES, IV_BYTES + TAG_BYTES));
    const opened = Buffer.concat([decipher.update(bytes.subarray(IV_BYTES + TAG_BYTES)), decipher.final()]);
    const file = parsed(opened.toString());
    return Check(ViewingKeysFile, file) ? file : undefined;
  } catch {
    return undefined;
  }
}

async function newFile(): Promise<ViewingKeysFile> {
  const nameSecret = randomBytes(NAME_SECRET_BYTES).toString('base64url');
  return { nameSecret, signingKeys: [await newSigningKey()] };
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
