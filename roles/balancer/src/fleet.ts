/** Who the balancer stands in front of, from whoever knows. */
import type { Fleet as KnownFleet } from '@starling/model/node';

export interface FleetMember {
  /** A name or an IP address. */
  readonly host: string;
  readonly port: number;
}

export interface FleetBackend {
  readonly host: string;
  readonly rtmpPort?: number | undefined;
  readonly rtmpsPort?: number | undefined;
}

export interface Fleet {
  readonly frontends: readonly FleetMember[];
  readonly backends: readonly FleetBackend[];
}

/** Knows the nodes: the configuration file, or a registry of them. */
export interface FleetSource {
  /**
   * Tells the fleet, at once or soon, and again whenever it changes.
   * @param signal ends it
   */
  follow(onFleet: (fleet: Fleet) => void, signal: AbortSignal): void;
}

/** The fleet that whoever made it lists: from the configuration file, and from the registry of nodes. */
export class ListedFleet implements FleetSource {
  #fleet: Fleet;
  readonly #listeners = new Set<(fleet: Fleet) => void>();

  constructor(fleet: Fleet) {
    this.#fleet = fleet;
  }

  follow(onFleet: (fleet: Fleet) => void, signal: AbortSignal): void {
    this.#listeners.add(onFleet);
    signal.addEventListener('abort', () => this.#listeners.delete(onFleet), { once: true });
    onFleet(this.#fleet);
  }

  /** Another one from now on. */
  replace(fleet: Fleet): void {
    this.#fleet = fleet;
    for (const listener of this.#listeners) listener(fleet);
  }
}

/**
 * What a balancer makes of the nodes of the network, beside those that are listed. Who is cordoned or drains gets nobody any
 * more.
 */
export function balancedFleet({ nodes }: KnownFleet, listed: Fleet): Fleet {
  const working = nodes.filter(({ state }) => state === 'joined');
  return {
    frontends: [
      ...listed.frontends,
      ...working.flatMap(({ role, addresses }) => {
        const { host, httpPort } = addresses ?? {};
        const servesViewers = role !== 'balancer' && host !== undefined && httpPort !== undefined;
        return servesViewers ? [{ host, port: httpPort }] : [];
      }),
    ],
    backends: [
      ...listed.backends,
      ...working.flatMap(({ role, addresses }) => {
        if (role !== 'backend' || addresses === null) return [];
        const { host, rtmpPort, rtmpsPort } = addresses;
        return [{ host, rtmpPort, rtmpsPort }];
      }),
    ],
  };
}
