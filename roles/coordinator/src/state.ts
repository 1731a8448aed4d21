/** The state as backends follow it, read once after each change. */
import type { BackendState } from '@starling/model/entities';
import { runIndexAt, TIMELINE_HZ } from '@starling/model/schedule';
import type { Kysely } from 'kysely';
import { readAssets } from './assets.ts';
import { type Changes, readRevision } from './changes.ts';
import { readChannels } from './channels.ts';
import type { Tables } from './database.ts';
import { readStreams } from './streams.ts';

/** A backend that was slow to hear of a change looks so far back at most. */
const BACKEND_HISTORY_MS = 3_600_000;

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
      }));
  }
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
