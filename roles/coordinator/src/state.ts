/** The state as backends follow it, read once after each change. */
import type { BackendState } from '@starling/model/entities';
import type { Kysely } from 'kysely';
import { readAssets } from './assets.ts';
import { type Changes, readRevision } from './changes.ts';
import { readChannels } from './channels.ts';
import type { Tables } from './database.ts';
import { readLibrary } from './library.ts';
import { readStreams } from './streams.ts';

export class State {
  readonly #db: Kysely<Tables>;
  #current: Promise<BackendState> | undefined;

  constructor(db: Kysely<Tables>, changes: Changes) {
    this.#db = db;
    changes.onChange(() => {
      this.#current = undefined;
    });
  }

  /** The whole state, no older than the last change that was committed before the call. */
  read(): Promise<BackendState> {
    if (this.#current === undefined) {
      const reading = this.#readAll();
      this.#current = reading;
      reading.catch(() => {
        if (this.#current === reading) this.#current = undefined;
      });
    }
    return this.#current;
  }

  #readAll(): Promise<BackendState> {
    return this.#db
      .transaction()
      .setIsolationLevel('repeatable read')
      .execute(async (transaction) => ({
        revision: await readRevision(transaction),
        channels: await readChannels(transaction),
        ...(await readStreams(transaction)),
        ...(await readAssets(transaction)),
        ...(await readLibrary(transaction)),
      }));
  }
}
