/**
 * What happened that others may want to be told: kept until the coordinator has taken it, up to a bound. A
 * publisher that is back within its grace period has not left.
 */
import { randomUUID } from 'node:crypto';
import type { DestinationSettings } from '@starling/model/destination';
import type { NetworkEvent } from '@starling/model/webhook';
import type { SourceChange } from './live-channel.ts';
import { DEFAULT_TIMING } from './source-chain.ts';

/** What waits while the coordinator is away; a further event drives out the oldest. */
const MAX_PENDING = 256;

export interface EventLogOptions {
  readonly nowUnixMs: () => number;
  /** Something happened. */
  onEvent(): void;
}

export class EventLog {
  readonly #options: EventLogOptions;
  #pending: NetworkEvent[] = [];
  /** Streams whose publisher left, until that is taken as the end. */
  readonly #leaving = new Map<string, NodeJS.Timeout>();

  constructor(options: EventLogOptions) {
    this.#options = options;
  }

  /** Oldest first. */
  get pending(): readonly NetworkEvent[] {
    return this.#pending;
  }

  /** The coordinator has them. */
  taken(events: readonly NetworkEvent[]): void {
    const ids = new Set(events.map(({ id }) => id));
    this.#pending = this.#pending.filter(({ id }) => !ids.has(id));
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

  close(): void {
    for (const timer of this.#leaving.values()) clearTimeout(timer);
    this.#leaving.clear();
  }

  #head(): Pick<NetworkEvent, 'id' | 'at'> {
    return { id: randomUUID(), at: new Date(this.#options.nowUnixMs()).toISOString() };
  }

  #add(event: NetworkEvent): void {
    this.#pending.push(event);
    if (this.#pending.length > MAX_PENDING) this.#pending.shift();
    this.#options.onEvent();
  }
}
