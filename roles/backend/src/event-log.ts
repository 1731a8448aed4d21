/**
 * What happened that others may want to be told: kept until the coordinator has taken it, up to a bound, also over a
 * restart. A publisher that is back within its grace period has not left.
 */
import { randomUUID } from 'node:crypto';
import type { DestinationSettings } from '@starling/model/destination';
import { type BackendReport, MAX_REPORTED_EVENTS } from '@starling/model/entities';
import { Spool } from '@starling/model/spool';
import { NetworkEvent } from '@starling/model/webhook';
import type { SourceChange } from './live-channel.ts';
import { DEFAULT_TIMING } from './source-chain.ts';

/** What waits while the coordinator is away; a further event drives out the oldest. */
const MAX_PENDING = 10_000;

export interface EventLogOptions {
  readonly nowUnixMs: () => number;
  /** Where what waits is kept. */
  readonly path: string;
  /** Something happened. */
  onEvent(): void;
  /** The disk does not take it; it is kept in memory. */
  onSpoolError(error: unknown): void;
}

export class EventLog {
  readonly #options: EventLogOptions;
  readonly #spool: Spool<typeof NetworkEvent>;
  /** Streams whose publisher left, until that is taken as the end. */
  readonly #leaving = new Map<string, NodeJS.Timeout>();

  constructor(options: EventLogOptions) {
    this.#options = options;
    this.#spool = new Spool({
      path: options.path,
      schema: NetworkEvent,
      maxEntries: MAX_PENDING,
      onError: options.onSpoolError,
    });
  }

  /** The oldest of what waits, as a report has it. */
  get pending(): Required<Pick<BackendReport, 'events' | 'eventSpool'>> {
    const entries = this.#spool.pending(MAX_REPORTED_EVENTS);
    return {
      events: entries.map(({ value }) => value),
      eventSpool: { spoolId: this.#spool.id, sequences: entries.map(({ sequence }) => sequence) },
    };
  }

  /** The coordinator has them. @returns true where more waits */
  taken({ eventSpool }: Required<Pick<BackendReport, 'eventSpool'>>): boolean {
    this.#spool.taken(eventSpool.sequences.at(-1) ?? 0);
    return this.#spool.size > 0;
  }

  publishChanged(stream: string, isPublishing: boolean): void {
    const timer = this.#leaving.get(stream);
    clearTimeout(timer);
    this.#leaving.delete(stream);
    if (isPublishing) {
      if (timer === undefined) this.#add({ ...this.#head(), type: 'publish', stream });
      return;
    }
    const head = this.#head();
    const leave = () => {
      this.#leaving.delete(stream);
      this.#add({ ...head, type: 'unpublish', stream });
    };
    this.#leaving.set(stream, setTimeout(leave, DEFAULT_TIMING.graceMs));
  }

  /** The first source of a channel that came on the air is no failover. */
  sourceChanged(channel: string, { from, to, reason }: SourceChange): void {
    if (from === undefined && reason === 'start') return;
    const sources = { from: from ?? null, to: to ?? null };
    this.#add({ ...this.#head(), type: 'failover', channel, ...sources, reason });
  }

  destinationFailed({ name, channel }: DestinationSettings, reason: string): void {
    this.#add({ ...this.#head(), type: 'destination.failed', channel, destination: name, reason });
  }

  destinationRestored({ name, channel }: DestinationSettings): void {
    this.#add({ ...this.#head(), type: 'destination.restored', channel, destination: name });
  }

  async close(): Promise<void> {
    for (const timer of this.#leaving.values()) clearTimeout(timer);
    this.#leaving.clear();
    await this.#spool.close();
  }

  #head(): Pick<NetworkEvent, 'id' | 'at'> {
    return { id: randomUUID(), at: new Date(this.#options.nowUnixMs()).toISOString() };
  }

  #add(event: NetworkEvent): void {
    this.#spool.add(event);
    void this.#spool.flushed().then(() => this.#options.onEvent());
  }
}
