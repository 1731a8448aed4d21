/** Where channels are pushed to. The addresses hold stream keys: the backends get them, and nobody else. */
import {
  type Destination,
  DestinationUrlError,
  type NewDestination,
  parseDestinationUrl,
  shownDestinationUrl,
} from '@starling/model/destination';
import type { BackendState } from '@starling/model/entities';
import type { Kysely, Selectable } from 'kysely';
import type { Logger } from 'pino';
import type { BackendPresence } from './backend-presence.ts';
import type { Changes } from './changes.ts';
import type { Tables, Transaction } from './database.ts';
import { ApiProblem, unknownChannel } from './problem.ts';

/** The backend keeps a connection, and for SRT a process, for each. */
const MAX_DESTINATIONS = 500;

export interface DestinationsOptions {
  readonly db: Kysely<Tables>;
  readonly changes: Changes;
  readonly presence: BackendPresence;
  readonly logger: Logger;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

export class Destinations {
  readonly #options: DestinationsOptions;

  constructor(options: DestinationsOptions) {
    this.#options = options;
  }

  /** All destinations by name. */
  async list(): Promise<Destination[]> {
    const rows = await this.#options.db.selectFrom('destinations').selectAll().orderBy('name').execute();
    return rows.map((row) => this.#destinationOf(row));
  }

  /** @throws ApiProblem DESTINATION_UNKNOWN */
  async get(name: string): Promise<Destination> {
    const row = await this.#options.db
      .selectFrom('destinations')
      .selectAll()
      .where('name', '=', name)
      .executeTakeFirst();
    if (row === undefined) throw unknownDestination(name);
    return this.#destinationOf(row);
  }

  /**
   * From now on the channel is pushed there.
   * @throws ApiProblem REQUEST_INVALID for an address that cannot be pushed to, CHANNEL_UNKNOWN,
   *   DESTINATION_EXISTS or TOO_MANY_DESTINATIONS
   */
  async add(destination: NewDestination): Promise<Destination> {
    const { name, channel, url } = destination;
    const { isEnabled = true, takesEnhancedCodecs = false, acceptsAnyCertificate = false } = destination;
    try {
      parseDestinationUrl(url);
    } catch (error) {
      if (!(error instanceof DestinationUrlError)) throw error;
      throw new ApiProblem('REQUEST_INVALID', error.message);
    }
    const row = await this.#options.changes.make(async (transaction) => {
      const known = await transaction
        .selectFrom('channels')
        .select('name')
        .where('name', '=', channel)
        .executeTakeFirst();
      if (known === undefined) throw unknownChannel(channel);
      const names = await transaction.selectFrom('destinations').select('name').execute();
      if (names.some((one) => one.name === name)) {
        throw new ApiProblem(
          'DESTINATION_EXISTS',
          `There is a destination ${name} already. Choose another name.`,
        );
      }
      if (names.length >= MAX_DESTINATIONS) {
        const detail = `There are ${MAX_DESTINATIONS} destinations already. Remove one.`;
        throw new ApiProblem('TOO_MANY_DESTINATIONS', detail);
      }
      return transaction
        .insertInto('destinations')
        .values({
          name,
          channel,
          url,
          is_enabled: isEnabled,
          takes_enhanced_codecs: takesEnhancedCodecs,
          accepts_any_certificate: acceptsAnyCertificate,
          created_at: new Date(this.#options.now()),
        })
        .returningAll()
        .executeTakeFirstOrThrow();
    });
    this.#options.logger.info(
      { destination: name, channel, address: shownDestinationUrl(url) },
      'destination added',
    );
    return this.#destinationOf(row);
  }

  /** @throws ApiProblem DESTINATION_UNKNOWN */
  async setEnabled(name: string, isEnabled: boolean): Promise<Destination> {
    const row = await this.#options.changes.make(async (transaction) => {
      const changed = await transaction
        .updateTable('destinations')
        .set({ is_enabled: isEnabled })
        .where('name', '=', name)
        .returningAll()
        .executeTakeFirst();
      if (changed === undefined) throw unknownDestination(name);
      return changed;
    });
    this.#options.logger.info({ destination: name, isEnabled }, 'destination changed');
    return this.#destinationOf(row);
  }

  /** @throws ApiProblem DESTINATION_UNKNOWN */
  async remove(name: string): Promise<void> {
    await this.#options.changes.make(async (transaction) => {
      const { numDeletedRows } = await transaction
        .deleteFrom('destinations')
        .where('name', '=', name)
        .executeTakeFirst();
      if (numDeletedRows === 0n) throw unknownDestination(name);
    });
    this.#options.logger.info({ destination: name }, 'destination removed');
  }

  #destinationOf(row: Selectable<Tables['destinations']>): Destination {
    return {
      name: row.name,
      channel: row.channel,
      address: shownDestinationUrl(row.url),
      isEnabled: row.is_enabled,
      takesEnhancedCodecs: row.takes_enhanced_codecs,
      acceptsAnyCertificate: row.accepts_any_certificate,
      createdAt: row.created_at.toISOString(),
      status: (row.is_enabled ? this.#options.presence.destination(row.name) : undefined) ?? null,
    };
  }
}

function unknownDestination(name: string): ApiProblem {
  return new ApiProblem('DESTINATION_UNKNOWN', `There is no destination ${name}.`);
}

/** The part of the state that is about destinations. */
export async function readDestinations(
  transaction: Transaction,
): Promise<Pick<BackendState, 'destinations'>> {
  const rows = await transaction
    .selectFrom('destinations')
    .selectAll()
    .where('is_enabled', '=', true)
    .orderBy('name')
    .execute();
  return {
    destinations: rows.map((row) => ({
      name: row.name,
      channel: row.channel,
      url: row.url,
      takesEnhancedCodecs: row.takes_enhanced_codecs,
      acceptsAnyCertificate: row.accepts_any_certificate,
    })),
  };
}
