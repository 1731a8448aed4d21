/**
 * What the backend last heard of the coordinator, and the leases that it held: with both it starts, and makes its channels,
 * while the coordinator is gone.
 */
import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { BackendState } from '@starling/model/entities';
import type { Logger } from 'pino';
import { Type } from 'typebox';
import { Check } from 'typebox/value';
import { systemErrorCode } from './error.ts';
import type { HeldLease } from './leases.ts';

const FILE = 'backend-state.json';

const File = Type.Object({
  state: BackendState,
  leases: Type.Array(
    Type.Object({ name: Type.String(), fencingToken: Type.Integer(), isFirst: Type.Boolean() }),
  ),
});

export class RememberedState {
  readonly #path: string;
  readonly #logger: Logger;
  #next: { state: BackendState; held: ReadonlyMap<string, HeldLease> } | undefined;
  #saving: Promise<void> | undefined;

  constructor(dataDir: string, logger: Logger) {
    this.#path = join(dataDir, FILE);
    this.#logger = logger;
  }

  /** @returns undefined where nothing is remembered that can be used */
  async load(): Promise<{ state: BackendState; held: ReadonlyMap<string, HeldLease> } | undefined> {
    try {
      const file: unknown = JSON.parse(await readFile(this.#path, 'utf8'));
      if (!Check(File, file)) return undefined; // of another version
      const { state, leases } = file;
      return { state, held: new Map(leases.map(({ name, ...lease }) => [name, lease])) };
    } catch (error) {
      if (systemErrorCode(error) !== 'ENOENT')
        this.#logger.warn({ err: error, path: this.#path }, 'the kept state cannot be read');
      return undefined;
    }
  }

  /** Writes it down soon; of several at once the last. */
  keep(state: BackendState, held: ReadonlyMap<string, HeldLease>): void {
    this.#next = { state, held: new Map(held) };
    this.#saving ??= this.#save().finally(() => {
      this.#saving = undefined;
    });
  }

  async close(): Promise<void> {
    await this.#saving;
  }

  /** Beside its place first, so that a kill half-way leaves what was there. There are stream keys in it. */
  async #save(): Promise<void> {
    for (let next = this.#next; next !== undefined; next = this.#next) {
      this.#next = undefined;
      const leases = [...next.held].map(([name, lease]) => ({ name, ...lease }));
      try {
        await writeFile(`${this.#path}.new`, JSON.stringify({ state: next.state, leases }), { mode: 0o600 });
        await rename(`${this.#path}.new`, this.#path);
      } catch (error) {
        this.#logger.error({ err: error, path: this.#path }, 'the state cannot be kept');
      }
    }
  }
}
