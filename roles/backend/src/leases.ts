/**
 * Leases: which of several backends run what. A lease is held for seconds and renewed all the time; when its holder
 * dies, another backend takes it. A lease may have several holders, so that a channel can be made twice.
 *
 * Who cannot ask goes on as it was: holding too long does no harm, for two backends make the same of a channel and
 * the frontends take each access unit once. Going dark would.
 */
import type { CoordinatorClient } from '@starling/model/client';
import type { LeaseGrant, LeaseWish } from '@starling/model/lease';
import type { Logger } from 'pino';

export interface HeldLease {
  /** Higher than that of any holder before: tells a new holder from one that was thought dead. */
  readonly fencingToken: number;
  /** Of several holders, the one that has held it longest: it does what is to be done once. */
  readonly isFirst: boolean;
}

export interface Leases {
  /** What is held now, by name. */
  readonly held: ReadonlyMap<string, HeldLease>;
  /** What to take up at the next start, if nobody can be asked then. */
  readonly toRemember: ReadonlyMap<string, HeldLease>;
  /** Which other backend holds a lease that is refused here; undefined where that is not known. */
  holderOf(name: string): string | undefined;
  /** Says what is wanted from now on: by name, with the number of backends that may hold it. The rest is released. */
  want(wanted: ReadonlyMap<string, number>): void;
  /** Releases all. */
  close(): Promise<void>;
}

/** Who grants leases. */
export interface LeaseAuthority {
  /**
   * Renews what is held, takes what is free, and releases what is not named.
   * @returns a grant for each wish
   * @throws when it cannot be asked
   */
  renew(wishes: readonly LeaseWish[]): Promise<readonly LeaseGrant[]>;
  /** @throws when it cannot be asked; the leases then run out */
  releaseAll(): Promise<void>;
}

/** For a backend that is the only one: it holds whatever it wants. */
export class SoleHolder implements Leases {
  #held: ReadonlyMap<string, HeldLease> = new Map();

  get held(): ReadonlyMap<string, HeldLease> {
    return this.#held;
  }

  get toRemember(): ReadonlyMap<string, HeldLease> {
    return this.#held;
  }

  want(wanted: ReadonlyMap<string, number>): void {
    this.#held = new Map([...wanted.keys()].map((name) => [name, { fencingToken: 1, isFirst: true }]));
  }

  holderOf(): undefined {}

  async close(): Promise<void> {
    this.#held = new Map();
  }
}

/** Leases that the coordinator grants. */
export class CoordinatorLeases implements LeaseAuthority {
  readonly #coordinator: Pick<CoordinatorClient, 'renewLeases' | 'releaseLeases'>;
  readonly #nodeId: string;

  constructor(coordinator: Pick<CoordinatorClient, 'renewLeases' | 'releaseLeases'>, nodeId: string) {
    this.#coordinator = coordinator;
    this.#nodeId = nodeId;
  }

  async renew(wishes: readonly LeaseWish[]): Promise<readonly LeaseGrant[]> {
    return (await this.#coordinator.renewLeases(this.#nodeId, wishes)).leases;
  }

  releaseAll(): Promise<void> {
    return this.#coordinator.releaseLeases(this.#nodeId);
  }
}

/** Of a lease of 2.5 or 3 s: two renewals may be lost. */
const RENEW_EVERY_MS = 800;
/**
 * Who starts and reaches nobody takes up what it held at its last end. Not at once: whoever grants leases may start at the same
 * time, and says who has them meanwhile.
 */
const TAKE_UP_AFTER_MS = 3000;
/** Several that wait for one lease do not all ask at once. */
const JITTER_MS = 40;
const RETRY_MS = 400;

/** Leases that an authority grants, kept by renewing them. */
export class RenewedLeases implements Leases {
  readonly #authority: LeaseAuthority;
  readonly #onChange: () => void;
  readonly #logger: Logger;
  #wanted: ReadonlyMap<string, number> = new Map();
  readonly #held = new Map<string, HeldLease>();
  /** Of those that are refused. */
  #holders: ReadonlyMap<string, string> = new Map();
  #timer: NodeJS.Timeout | undefined;
  #renewing: Promise<void> | undefined;
  #isStale = false;
  #isClosed = false;
  #isUnreachable = false;
  /** Until somebody could be asked for the first time. */
  #heldBefore: ReadonlyMap<string, HeldLease> | undefined;
  readonly #takeUpAtMs = performance.now() + TAKE_UP_AFTER_MS;

  /**
   * @param options.heldBefore at the last end
   * @param options.onChange something was taken or lost
   */
  constructor(options: {
    authority: LeaseAuthority;
    heldBefore?: ReadonlyMap<string, HeldLease>;
    onChange: () => void;
    logger: Logger;
  }) {
    this.#heldBefore = options.heldBefore;
    this.#authority = options.authority;
    this.#onChange = options.onChange;
    this.#logger = options.logger;
  }

  get held(): ReadonlyMap<string, HeldLease> {
    return this.#held;
  }

  get toRemember(): ReadonlyMap<string, HeldLease> {
    return this.#heldBefore ?? this.#held;
  }

  holderOf(name: string): string | undefined {
    return this.#holders.get(name);
  }

  want(wanted: ReadonlyMap<string, number>): void {
    this.#wanted = wanted;
    for (const name of this.#held.keys()) if (!wanted.has(name)) this.#held.delete(name);
    this.#renewNow();
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    await this.#renewing;
    this.#held.clear();
    await this.#authority.releaseAll().catch(() => {}); // they run out
  }

  #renewNow(): void {
    if (this.#isClosed) return;
    this.#isStale = true;
    if (this.#renewing !== undefined) return;
    clearTimeout(this.#timer);
    this.#renewing = this.#renew().finally(() => {
      this.#renewing = undefined;
    });
  }

  async #renew(): Promise<void> {
    let waitMs = RENEW_EVERY_MS;
    while (this.#isStale && !this.#isClosed) {
      this.#isStale = false;
      const wishes = [...this.#wanted].map(([name, maxHolders]) => {
        const fencingToken = this.#held.get(name)?.fencingToken ?? null;
        return { name, maxHolders, fencingToken };
      });
      try {
        const grants = await this.#authority.renew(wishes);
        this.#heldBefore = undefined;
        if (this.#isClosed) return;
        waitMs = this.#take(grants);
        if (this.#isUnreachable) this.#logger.info('leases are renewed again');
        this.#isUnreachable = false;
      } catch (error) {
        if (!this.#isUnreachable) this.#logger.warn({ err: error }, 'leases cannot be renewed; all goes on');
        this.#isUnreachable = true;
        waitMs = RETRY_MS;
        this.#takeUp();
      }
    }
    this.#timer = setTimeout(() => this.#renewNow(), waitMs + Math.random() * JITTER_MS);
  }

  #takeUp(): void {
    if (this.#heldBefore === undefined || performance.now() < this.#takeUpAtMs || this.#isClosed) return;
    const before = [...this.#heldBefore].filter(([name]) => this.#wanted.has(name));
    this.#heldBefore = undefined;
    for (const [name, lease] of before) this.#held.set(name, lease);
    if (before.length === 0) return;
    this.#logger.warn(
      { leases: before.length },
      'nobody says who runs what; what ran here before runs again',
    );
    this.#onChange();
  }

  /** @returns how long to wait until the next renewal: a lease is taken as soon as it has run out */
  #take(grants: readonly LeaseGrant[]): number {
    let waitMs = RENEW_EVERY_MS;
    let hasChanged = false;
    this.#holders = new Map(
      grants.flatMap(({ name, holderIds: [holder] = [] }) => (holder === undefined ? [] : [[name, holder]])),
    );
    for (const { name, fencingToken, isFirst, retryInMs } of grants) {
      if (!this.#wanted.has(name)) continue;
      const before = this.#held.get(name);
      if (fencingToken === null) {
        waitMs = Math.min(waitMs, retryInMs);
        if (!this.#held.delete(name)) continue;
        this.#logger.warn({ lease: name }, 'lease lost to another backend');
        hasChanged = true;
      } else if (before?.fencingToken !== fencingToken || before.isFirst !== isFirst) {
        if (before === undefined) this.#logger.info({ lease: name, fencingToken }, 'lease taken');
        this.#held.set(name, { fencingToken, isFirst });
        hasChanged = true;
      }
    }
    if (hasChanged) this.#onChange();
    return waitMs;
  }
}
