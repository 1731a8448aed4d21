/** What the other roles follow, read once after each change. */
import type { BackendState } from '@starling/model/entities';
import type { Kysely } from 'kysely';
import { readAssets } from './assets.ts';
import { type Changes, readRevision } from './changes.ts';
import { readChannels } from './channels.ts';
import type { Tables, Transaction } from './database.ts';
import { readStreams } from './streams.ts';

/** Something that is read from the database as a whole, and kept until the next change. */
export class Snapshot<T> {
  readonly #db: Kysely<Tables>;
  readonly #changes: Changes;
  readonly #readAll: (transaction: Transaction) => Promise<T>;
  #current: Promise<T> | undefined;

  constructor(db: Kysely<Tables>, changes: Changes, readAll: (transaction: Transaction) => Promise<T>) {
    this.#db = db;
    this.#changes = changes;
    this.#readAll = readAll;
    changes.onChange(() => {
      this.#current = undefined;
    });
  }

  /** Calls `listener` after each change. */
  onChange(listener: () => void): void {
    this.#changes.onChange(listener);
  }

  /** No older than the last change that was committed before the call. */
  read(): Promise<T> {
    if (this.#current === undefined) {
      const reading = this.#db.transaction().setIsolationLevel('repeatable read').execute(this.#readAll);
      this.#current = reading;
      reading.catch(() => {
        if (this.#current === reading) this.#current = undefined;
      });
    }
    return this.#current;
  }
}

/** The state as backends follow it. */
export type State = Snapshot<BackendState>;

export async function readBackendState(transaction: Transaction): Promise<BackendState> {
  return {
    revision: await readRevision(transaction),
    channels: await readChannels(transaction),
    ...(await readStreams(transaction)),
    ...(await readAssets(transaction)),
  };
}
