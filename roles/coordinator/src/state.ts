/** What the other roles follow, read once after each change. */
import type { BackendState } from '@starling/model/entities';
import { runIndexAt, TIMELINE_HZ } from '@starling/model/schedule';
import type { Kysely } from 'kysely';
import { readAssets } from './assets.ts';
import { type Changes, readRevision } from './changes.ts';
import { readChannels } from './channels.ts';
import { DatabaseUnavailable, type Tables, type Transaction } from './database.ts';
import { readDestinations } from './destinations.ts';
import { readLibrary } from './library.ts';
import { readRecordingOrders } from './recordings.ts';
import { readStreams } from './streams.ts';

/** A backend that was slow to hear of a change looks so far back at most. */
const BACKEND_HISTORY_MS = 3_600_000;

/** Something that is read from the database as a whole, and kept until the next change. */
export class Snapshot<T> {
  readonly #db: Kysely<Tables>;
  readonly #changes: Changes;
  readonly #readAll: (transaction: Transaction) => Promise<T>;
  #current: Promise<T> | undefined;
  /** What was read last. */
  #last: { readonly value: T } | undefined;

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

  /**
   * No older than the last change that was committed here before the call. While the database cannot answer it is what was
   * read last.
   */
  read(): Promise<T> {
    this.#current ??= this.#readNow();
    return this.#current;
  }

  #readNow(): Promise<T> {
    const reading = this.#db
      .transaction()
      .setIsolationLevel('repeatable read')
      .execute(this.#readAll)
      .then(
        (value) => {
          this.#last = { value };
          return value;
        },
        (error: unknown) => {
          if (this.#current === reading) this.#current = undefined;
          if (error instanceof DatabaseUnavailable && this.#last !== undefined) return this.#last.value;
          throw error;
        },
      );
    return reading;
  }
}

/** The state as backends follow it. */
export type State = Snapshot<BackendState>;

export async function readBackendState(transaction: Transaction): Promise<BackendState> {
  return {
    revision: await readRevision(transaction),
    channels: await readChannels(transaction),
    ...(await readStreams(transaction)),
    ...(await readDestinations(transaction)),
    ...(await readAssets(transaction)),
    ...(await readLibrary(transaction)),
    recordings: await readRecordingOrders(transaction),
  };
}

/** Without the runs that are over, which only the guide needs. */
export function withoutPast(state: BackendState, nowMs: number): BackendState {
  return {
    ...state,
    channels: state.channels.map((channel) => {
      const ticks = ((nowMs - BACKEND_HISTORY_MS - channel.epochUnixMs) * TIMELINE_HZ) / 1000;
      return { ...channel, runs: channel.runs.slice(Math.max(0, runIndexAt(channel.runs, ticks))) };
    }),
  };
}
