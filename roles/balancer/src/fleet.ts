/** Who the balancer stands in front of, from whoever knows. */

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

/** The fleet that the configuration file lists. */
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

  /** The file was read again. */
  replace(fleet: Fleet): void {
    this.#fleet = fleet;
    for (const listener of this.#listeners) listener(fleet);
  }
}
