/**
 * The secrets behind private channels: the keys that sign viewing tokens, and what the names of
 * segments are made with. They lie in one file that this account alone may read: encrypted in the
 * database they would need a key of their own, which would lie in a file again (docs/decisions/006).
 */
import { createHmac, randomBytes } from 'node:crypto';
import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ViewingTokenKey } from '@starling/model/entities';
import { newSigningKey, SigningKey } from '@starling/model/viewing-token';
import { type Static, Type } from 'typebox';
import { Check } from 'typebox/value';
import { DataFolderError } from './data-folder-lock.ts';

/** In the data folder. */
export const VIEWING_KEYS_FILE = 'viewing-keys.json';
const NAME_SECRET_BYTES = 32;

const ViewingKeysFile = Type.Object({
  /** In base64url. */
  nameSecret: Type.String({ minLength: 43 }),
  /** The first one signs; the others are kept for tokens that are out. */
  signingKeys: Type.Array(SigningKey, { minItems: 1 }),
});
type ViewingKeysFile = Static<typeof ViewingKeysFile>;

export class ViewingKeys {
  readonly #path: string;
  #file: ViewingKeysFile;

  private constructor(path: string, file: ViewingKeysFile) {
    this.#path = path;
    this.#file = file;
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
    if (text === undefined) {
      const nameSecret = randomBytes(NAME_SECRET_BYTES).toString('base64url');
      const keys = new ViewingKeys(path, { nameSecret, signingKeys: [await newSigningKey()] });
      await keys.#save(keys.#file);
      return keys;
    }
    const file: unknown = parsed(text);
    if (!Check(ViewingKeysFile, file)) {
      throw new DataFolderError(
        `${path} is damaged. Restore it from a backup, or remove it: all viewing tokens are void then.`,
      );
    }
    return new ViewingKeys(path, file);
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

  /**
   * Signs with a new key from now on.
   * @param idsInUse older keys that are kept, for the tokens that they signed
   */
  async rotate(idsInUse: ReadonlySet<string>): Promise<void> {
    const kept = this.#file.signingKeys.filter(({ id }) => idsInUse.has(id));
    await this.#save({ ...this.#file, signingKeys: [await newSigningKey(), ...kept] });
  }

  /** Beside its place first, so that a kill half-way leaves the old file. */
  async #save(file: ViewingKeysFile): Promise<void> {
    await writeFile(`${this.#path}.new`, `${JSON.stringify(file, null, 2)}\n`, { mode: 0o600 });
    await rename(`${this.#path}.new`, this.#path);
    this.#file = file;
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
