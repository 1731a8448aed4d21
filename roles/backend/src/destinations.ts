/** All destinations of the backend's channels, and what is measured of them. */
import type { DestinationSettings, DestinationStatus } from '@starling/model/destination';
import type { Channel } from '@starling/net/channel';
import type { Logger } from 'pino';
import { Counter, Gauge, type Registry } from 'prom-client';
import { Destination } from './destination.ts';

export interface DestinationsOptions {
  readonly logger: Logger;
  readonly registry: Registry;
  /** Milliseconds since 1970. */
  readonly nowUnixMs: () => number;
  /** The state of one has changed. */
  onChange(): void;
  onFailed(destination: DestinationSettings, reason: string): void;
  onRestored(destination: DestinationSettings): void;
}

const labelNames = ['channel', 'destination'] as const;

/** What is measured of each destination, by the name of the metric. */
const METRICS = [
  {
    name: 'up',
    help: '1 while the destination is sent to',
    isCounter: false,
    of: ({ state }: DestinationStatus) => Number(state === 'sending'),
  },
  {
    name: 'bitrate_bps',
    help: 'Bits per second that the network took',
    isCounter: false,
    of: ({ bitrateBps }: DestinationStatus) => bitrateBps,
  },
  {
    name: 'sent_bytes_total',
    help: 'Bytes that the network took',
    isCounter: true,
    of: ({ sentBytes }: DestinationStatus) => sentBytes,
  },
  {
    name: 'dropped_units_total',
    help: 'Access units left out, because the destination took them too slowly',
    isCounter: true,
    of: ({ droppedUnits }: DestinationStatus) => droppedUnits,
  },
  {
    name: 'failures_total',
    help: 'Connections that broke off or did not come about',
    isCounter: true,
    of: ({ failures }: DestinationStatus) => failures,
  },
] as const;

export class Destinations {
  readonly #options: DestinationsOptions;
  readonly #destinations = new Map<string, Destination>();
  /** By name. */
  readonly #onAir = new Map<string, Channel>();

  constructor(options: DestinationsOptions) {
    this.#options = options;
    const destinations = this.#destinations;
    for (const { name, help, isCounter, of } of METRICS) {
      const settings = {
        name: `starling_backend_destination_${name}`,
        help,
        labelNames,
        registers: [options.registry],
        collect(this: Counter<(typeof labelNames)[number]> | Gauge<(typeof labelNames)[number]>) {
          this.reset();
          for (const { settings, status } of destinations.values()) {
            this.inc({ channel: settings.channel, destination: settings.name }, of(status));
          }
        },
      };
      if (isCounter) new Counter(settings);
      else new Gauge(settings);
    }
  }

  get statuses(): ({ name: string } & DestinationStatus)[] {
    return [...this.#destinations.values()].map(({ settings: { name }, status }) => ({ name, ...status }));
  }

  /** Takes over the list; those that are gone or changed are ended. */
  setDestinations(all: readonly DestinationSettings[]): void {
    const wanted = new Map(all.map((settings) => [settings.name, settings]));
    for (const [name, destination] of this.#destinations) {
      if (JSON.stringify(destination.settings) === JSON.stringify(wanted.get(name))) continue;
      destination.close();
      this.#destinations.delete(name);
    }
    const { logger, nowUnixMs, onChange, onFailed, onRestored } = this.#options;
    for (const settings of all) {
      if (this.#destinations.has(settings.name)) continue;
      const destination = new Destination({
        settings,
        logger,
        nowUnixMs,
        onChange,
        onFailed: (reason) => onFailed(settings, reason),
        onRestored: () => onRestored(settings),
      });
      this.#destinations.set(settings.name, destination);
      const channel = this.#onAir.get(settings.channel);
      if (channel !== undefined) destination.attach(channel);
    }
  }

  /** The channel is on the air from now on. */
  setOnAir(channel: Channel): void {
    if (this.#onAir.get(channel.name) === channel) return;
    this.#onAir.set(channel.name, channel);
    for (const destination of this.#of(channel.name)) destination.attach(channel);
  }

  setOffAir(channel: Channel): void {
    if (this.#onAir.get(channel.name) !== channel) return;
    this.#onAir.delete(channel.name);
    for (const destination of this.#of(channel.name)) destination.detach();
  }

  close(): void {
    for (const destination of this.#destinations.values()) destination.close();
    this.#destinations.clear();
  }

  #of(channel: string): Destination[] {
    return [...this.#destinations.values()].filter(({ settings }) => settings.channel === channel);
  }
}
