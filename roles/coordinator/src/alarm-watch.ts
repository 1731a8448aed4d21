/**
 * Looks over the network again and again, and raises and ends the alarms (`alarms.ts`). What it looks at is what nodes report and what the
 * coordinator itself sees; `alarm-conditions.ts` says when that is an alarm.
 */
import type { Alarm, AlarmKind, AlarmSettings } from '@starling/model/alarm';
import type { BackendState, Channel } from '@starling/model/entities';
import type { NodeHealth } from '@starling/model/node-health';
import type { NetworkEvent } from '@starling/model/webhook';
import type { Logger } from 'pino';
import { Conditions, type ConditionTiming, Surges } from './alarm-conditions.ts';
import { type Alarms, alarmKey, MAX_OPEN, type NewAlarm } from './alarms.ts';
import type { BackendPresence } from './backend-presence.ts';
import { DatabaseUnavailable } from './database.ts';
import type { NodeSighting } from './node-healths.ts';

const LOOK_EVERY_MS = 1000;
/** After something was reported; what comes meanwhile is looked at with it. */
const LOOK_SOON_MS = 100;
const CONNECTIONS_EVERY_MS = 10_000;
/** Of what is counted: logins, requests, publishes, faults. */
const WINDOW_MS = 600_000;
/** An open alarm is marked as still so. */
const TOUCH_EVERY_MS = 60_000;
/** After somebody has resolved what goes on, there is no new alarm about it for so long. */
const SETTLED_MS = 600_000;
/** Reports come every 5 s; before that a new coordinator knows nothing. */
const SILENT_AFTER_START_MS = 15_000;
const DAY_MS = 24 * 3600 * 1000;

export interface DatabaseConnections {
  readonly used: number;
  readonly max: number;
}

export interface AlarmWatchOptions {
  readonly alarms: Alarms;
  readonly readState: () => Promise<BackendState>;
  readonly presence: BackendPresence;
  readonly nodes: {
    /** Processes that have not said that they end. */
    sightings(): readonly NodeSighting[];
    all(): readonly NodeHealth[];
    onReport(listener: (health: NodeHealth, before: NodeHealth | undefined) => void): void;
  };
  /** The nodes that have joined; others are known by what they report only. */
  readonly registry: {
    sightings(): Promise<readonly (NodeSighting & { readonly isMissed: boolean })[]>;
  };
  /** Undefined where the database is in the process, and nobody else connects to it. */
  readonly connections: (() => Promise<DatabaseConnections | undefined>) | undefined;
  readonly logger: Logger;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

interface Observation extends NewAlarm, ConditionTiming {
  /** Undefined between the bound where it begins and the one where it ends. */
  readonly isBad: boolean | undefined;
}

type SurgeKind = Extract<
  AlarmKind,
  'failed-logins' | 'unusual-api-use' | 'unauthorised-publishes' | 'recording-failing'
>;

const atOnce = { raiseAfterMs: 0, clearAfterMs: 10_000 };

export class AlarmWatch {
  readonly #options: AlarmWatchOptions;
  readonly #conditions = new Conditions();
  readonly #surges = new Surges(WINDOW_MS);
  readonly #startedAtMs: number;
  #timer: NodeJS.Timeout;
  #isLookingSoon = false;
  /** Channels without a fallback that lost their last source against the operator's will. */
  readonly #lostChannels = new Set<string>();
  /** By destination, why it fails; undefined once it is restored. */
  readonly #failedDestinations = new Map<string, string | undefined>();
  /** Nodes that said that they end, and have not come back. */
  readonly #leftNodes = new Set<string>();
  /** Open at the last look, by key. */
  #open = new Map<string, Alarm>();
  #touchedAtMs = 0;
  #connections: { readonly value: DatabaseConnections | undefined; readonly atMs: number } | undefined;
  #looking: Promise<void> | undefined;
  #isClosed = false;

  constructor(options: AlarmWatchOptions) {
    this.#options = options;
    this.#startedAtMs = options.now();
    options.nodes.onReport((health, before) => this.#takeHealth(health, before));
    this.#timer = this.#plan(LOOK_EVERY_MS);
  }

  /** How many are open, by kind, as of the last look. */
  openCounts(): Map<AlarmKind, number> {
    const counts = new Map<AlarmKind, number>();
    for (const { kind } of this.#open.values()) counts.set(kind, (counts.get(kind) ?? 0) + 1);
    return counts;
  }

  /** What backends say that happened. */
  takeEvents(events: readonly NetworkEvent[]): void {
    this.#lookSoon();
    for (const event of events) {
      if (event.type === 'destination.failed') this.#failedDestinations.set(event.destination, event.reason);
      if (event.type === 'destination.restored') this.#failedDestinations.set(event.destination, undefined);
      if (event.type !== 'failover') continue;
      const isMeant = event.reason === 'left' || event.reason === 'manual';
      if (event.to === null && !isMeant) this.#lostChannels.add(event.channel);
      else this.#lostChannels.delete(event.channel);
    }
  }

  /** @param account undefined where the name is nobody's */
  loginFailed(account: string | undefined, address: string): void {
    if (account !== undefined) this.#count('failed-logins', `account ${account}`, 1);
    this.#count('failed-logins', `address ${address}`, 1);
  }

  /** Of a request that was answered 401, 403 or 429. */
  requestRefused(address: string): void {
    this.#count('unusual-api-use', `address ${address}`, 1);
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    await this.#looking;
  }

  #takeHealth(health: NodeHealth, before: NodeHealth | undefined): void {
    this.#lookSoon();
    if (health.isLeaving) this.#leftNodes.add(health.node);
    else this.#leftNodes.delete(health.node);
    const grown = (count: number, last: number | undefined) =>
      // The first that is heard of may be old news; after a restart the count begins anew.
      last === undefined ? 0 : count >= last ? count - last : count;
    this.#count(
      'unauthorised-publishes',
      health.node,
      grown(health.refusedPublishCount, before?.refusedPublishCount),
    );
    this.#count(
      'recording-failing',
      health.node,
      grown(health.recordingFaultCount, before?.recordingFaultCount),
    );
  }

  #count(kind: SurgeKind, target: string, count: number): void {
    if (count > 0) this.#lookSoon();
    this.#surges.add(alarmKey({ kind, target }), count, this.#options.now());
  }

  /** Something was reported. */
  #lookSoon(): void {
    if (this.#isLookingSoon || this.#isClosed) return;
    this.#isLookingSoon = true;
    if (this.#looking !== undefined) return; // it plans the next one
    clearTimeout(this.#timer);
    this.#timer = this.#plan(LOOK_SOON_MS);
  }

  #plan(afterMs: number): NodeJS.Timeout {
    return setTimeout(() => this.#lookNow(), afterMs).unref();
  }

  #lookNow(): void {
    this.#isLookingSoon = false;
    this.#looking = this.#look()
      .catch((error: unknown) => {
        // The next look finds the same. Where the database is away, everybody says so.
        if (!(error instanceof DatabaseUnavailable))
          this.#options.logger.error({ err: error }, 'the alarms could not be looked after');
      })
      .finally(() => {
        this.#looking = undefined;
        if (!this.#isClosed) this.#timer = this.#plan(this.#isLookingSoon ? LOOK_SOON_MS : LOOK_EVERY_MS);
      });
  }

  async #look(): Promise<void> {
    const { alarms, now } = this.#options;
    const nowMs = now();
    const settings = await alarms.settings();
    const open = await alarms.open();
    for (const [key, alarm] of this.#open) {
      if (open.has(key)) continue;
      // It is not open any more, and it was not this coordinator that ended it.
      this.#conditions.settle(key, nowMs + SETTLED_MS);
      this.#surges.forget(key);
      if (alarm.kind === 'destination-failing') this.#failedDestinations.delete(alarm.target);
    }
    const observations = await this.#observe(settings, open, nowMs);
    const isTouching = nowMs - this.#touchedAtMs >= TOUCH_EVERY_MS;
    if (isTouching) this.#touchedAtMs = nowMs;
    const keys = new Set<string>();
    for (const observation of observations) {
      const { kind, target, severity, message, isBad } = observation;
      const key = alarmKey(observation);
      keys.add(key);
      const known = open.get(key);
      const isMuted = settings.mutedKinds.includes(kind);
      const isRaised = this.#conditions.observe(key, isBad, nowMs, observation, known !== undefined);
      if (isRaised && known === undefined && !isMuted && open.size < MAX_OPEN) {
        const raised = await alarms.raise({ kind, target, severity, message });
        if (raised !== undefined) open.set(key, raised);
      } else if (known !== undefined && (!isRaised || isMuted)) {
        await alarms.clear(known.id);
        open.delete(key);
      } else if (known !== undefined && isTouching && isBad === true) {
        await alarms.touch(known.id, message);
      }
    }
    this.#conditions.retain(keys);
    this.#open = open;
  }

  async #observe(
    settings: AlarmSettings,
    open: ReadonlyMap<string, Alarm>,
    nowMs: number,
  ): Promise<Observation[]> {
    const state = await this.#options.readState();
    const registered = new Map(
      (await this.#options.registry.sightings()).map((sighting) => [sighting.node, sighting]),
    );
    const isSettled = nowMs - this.#startedAtMs >= SILENT_AFTER_START_MS;
    const openTargets = (kind: AlarmKind) =>
      [...open.values()].filter((alarm) => alarm.kind === kind).map(({ target }) => target);
    return [
      ...(isSettled ? this.#channels(state, settings, openTargets, nowMs) : []),
      ...(isSettled ? this.#nodes(registered, settings, openTargets, nowMs) : []),
      ...this.#destinations(state, openTargets),
      ...this.#healths(registered, settings, openTargets, nowMs),
      ...(await this.#databaseConnections(settings, nowMs)),
      ...this.#counted(settings, open, nowMs),
    ];
  }

  *#channels(
    state: BackendState,
    settings: AlarmSettings,
    openTargets: (kind: AlarmKind) => string[],
    nowMs: number,
  ): Generator<Observation> {
    const { presence } = this.#options;
    const onAir = new Set(presence.onAirChannels());
    const activeSources = presence.activeSources();
    const names = new Set(state.channels.map(({ name }) => name));
    for (const name of this.#lostChannels) {
      if (!names.has(name) || onAir.has(name)) this.#lostChannels.delete(name);
    }
    const dark = (target: string, isBad: boolean): Observation => ({
      ...{ kind: 'channel-dark', target, severity: 'critical', isBad },
      message: `Channel ${target} has no picture. \`starling channel show ${target}\` says what its sources do.`,
      raiseAfterMs: settings.channelDarkSeconds * 1000,
      clearAfterMs: 5000,
    });
    const failover = (target: string, isBad: boolean | undefined, why: string): Observation => ({
      ...{ kind: 'failover', target, severity: 'warning', isBad, ...atOnce },
      message: `Channel ${target} ${why}`,
    });
    for (const channel of state.channels) {
      const { name } = channel;
      const isWanted = isAlwaysOn(channel, nowMs) || this.#lostChannels.has(name);
      yield dark(name, isWanted && !onAir.has(name));
      const active = activeSources.get(name);
      const isLost = active === undefined ? undefined : isFailover(active);
      yield failover(
        name,
        isLost,
        `went over to ${active?.source}: the source before it is ${active?.reason}.`,
      );
    }
    // What has been removed since.
    for (const target of openTargets('channel-dark')) if (!names.has(target)) yield dark(target, false);
    for (const target of openTargets('failover')) if (!names.has(target)) yield failover(target, false, '');
  }

  *#nodes(
    registered: ReadonlyMap<string, { readonly isMissed: boolean } & NodeSighting>,
    { nodeLostSeconds }: AlarmSettings,
    openTargets: (kind: AlarmKind) => string[],
    nowMs: number,
  ): Generator<Observation> {
    const lost = (target: string, isBad: boolean, message: string): Observation => ({
      ...{ kind: 'node-lost', target, severity: 'critical', isBad, message, ...atOnce },
    });
    const known = new Set<string>();
    const sightings = [
      ...this.#options.nodes
        .sightings()
        .filter(({ node }) => !isOfRegistry(node))
        .map((sighting) => ({ ...sighting, isMissed: true })),
      ...registered.values(),
    ];
    for (const { node, lastSeenAtMs, isMissed } of sightings) {
      known.add(node);
      const silentMs = nowMs - lastSeenAtMs;
      const since = new Date(lastSeenAtMs).toISOString();
      yield lost(
        node,
        isMissed && silentMs > nodeLostSeconds * 1000,
        `Nothing was heard of ${node} since ${since}. Start it again, or see \`starling logs --node ${node}\`.`,
      );
    }
    for (const { node, balancedFrontends } of this.#reporting(registered)) {
      if (balancedFrontends === null) continue;
      const { listed, admitted } = balancedFrontends;
      const target = `frontends of ${node}`;
      known.add(target);
      yield lost(
        target,
        admitted < listed,
        `${listed - admitted} of ${listed} frontends get no viewers from ${node}: they do not answer /readyz.`,
      );
    }
    // After a restart of the coordinator, a node that does not come back is for the operator to resolve.
    for (const target of openTargets('node-lost')) {
      if (!known.has(target) && this.#hasLeft(target.replace(/^frontends of /, ''), registered))
        yield lost(target, false, '');
    }
  }

  /** What processes say of themselves, without those of nodes that were removed. */
  #reporting(registered: ReadonlyMap<string, unknown>): NodeHealth[] {
    return this.#options.nodes
      .all()
      .filter(({ node }) => !isOfRegistry(node) || registered.has(nodeOf(node)));
  }

  /** Whether a process has said that it ends, or its node was removed. */
  #hasLeft(node: string, registered: ReadonlyMap<string, unknown>): boolean {
    return this.#leftNodes.has(node) || (isOfRegistry(node) && !registered.has(nodeOf(node)));
  }

  *#destinations(state: BackendState, openTargets: (kind: AlarmKind) => string[]): Generator<Observation> {
    const enabled = new Set(state.destinations.map(({ name }) => name));
    for (const name of this.#failedDestinations.keys()) {
      if (!enabled.has(name)) this.#failedDestinations.delete(name);
    }
    for (const target of new Set([
      ...this.#failedDestinations.keys(),
      ...openTargets('destination-failing'),
    ])) {
      const reason = this.#failedDestinations.get(target);
      const { state: status } = this.#options.presence.destination(target) ?? {};
      const isWell = status === 'sending' || status === 'off' || !enabled.has(target);
      const isBad = this.#failedDestinations.has(target)
        ? reason !== undefined
        : // After a restart what the backend says has to do.
          isWell
          ? false
          : undefined;
      yield {
        ...{ kind: 'destination-failing', target, severity: 'warning', isBad, ...atOnce },
        message: `Destination ${target} does not take its channel: ${reason ?? 'it is tried again'}.`,
      };
    }
  }

  *#healths(
    registered: ReadonlyMap<string, unknown>,
    settings: AlarmSettings,
    openTargets: (kind: AlarmKind) => string[],
    nowMs: number,
  ): Generator<Observation> {
    const observed = new Set<string>();
    const reporting = this.#reporting(registered);
    for (const observation of this.#disksAndCertificates(reporting, settings, nowMs)) {
      observed.add(alarmKey(observation));
      yield observation;
    }
    const knownNodes = new Set(reporting.map(({ node }) => node));
    for (const kind of ['disk-filling', 'certificate-expiring'] as const) {
      for (const target of openTargets(kind)) {
        const [node = ''] = target.split(' ');
        if (observed.has(alarmKey({ kind, target }))) continue;
        // It has other disks now, or has said goodbye.
        if (knownNodes.has(node) || this.#hasLeft(node, registered))
          yield { kind, target, severity: 'warning', message: '', isBad: false, ...atOnce };
      }
    }
  }

  *#disksAndCertificates(
    reporting: readonly NodeHealth[],
    settings: AlarmSettings,
    nowMs: number,
  ): Generator<Observation> {
    for (const { node, disks, certificates } of reporting) {
      for (const { path, freeBytes, sizeBytes } of disks) {
        const freePercent = sizeBytes === 0 ? 100 : (freeBytes / sizeBytes) * 100;
        const isBad =
          freePercent < settings.diskFreePercent
            ? true
            : freePercent > settings.diskFreePercent * 1.2
              ? false
              : undefined;
        yield {
          ...{ kind: 'disk-filling', target: `${node} ${path}`.slice(0, 200), isBad, ...atOnce },
          severity: freePercent < settings.diskFreePercent / 4 ? 'critical' : 'warning',
          message: `${freePercent.toFixed(1)} % are free where ${node} keeps ${path}. Make room: recordings and imports stop when it is full.`,
        };
      }
      for (const { name, endsAt } of certificates) {
        const daysLeft = (Date.parse(endsAt) - nowMs) / DAY_MS;
        yield {
          ...{ kind: 'certificate-expiring', target: `${node} ${name}`, ...atOnce },
          isBad: daysLeft < settings.certificateDays,
          severity: daysLeft < 2 ? 'critical' : 'warning',
          message: `The certificate ${name} of ${node} ends at ${endsAt}. Renew it; its log says why that failed, if it should do so itself.`,
        };
      }
    }
  }

  async #databaseConnections(
    { databaseConnectionsPercent: percent }: AlarmSettings,
    nowMs: number,
  ): Promise<Observation[]> {
    const { connections } = this.#options;
    if (connections === undefined) return [];
    if (this.#connections === undefined || nowMs - this.#connections.atMs >= CONNECTIONS_EVERY_MS)
      this.#connections = { value: await connections(), atMs: nowMs };
    const { value } = this.#connections;
    if (value === undefined) return [];
    const usedPercent = (value.used / value.max) * 100;
    return [
      {
        ...{ kind: 'database-connections-high', target: 'PostgreSQL', severity: 'warning' },
        isBad: usedPercent >= percent ? true : usedPercent < percent * 0.9 ? false : undefined,
        ...{ raiseAfterMs: 0, clearAfterMs: 30_000 },
        message: `${value.used} of the ${value.max} connections of PostgreSQL are in use. See pg_stat_activity for whose, or raise max_connections.`,
      },
    ];
  }

  *#counted(
    settings: AlarmSettings,
    open: ReadonlyMap<string, Alarm>,
    nowMs: number,
  ): Generator<Observation> {
    const rules: Record<
      SurgeKind,
      { readonly bound: number; readonly message: (n: number, target: string) => string }
    > = {
      'failed-logins': {
        bound: settings.failedLogins,
        message: (n, target) =>
          `${n} logins failed within ten minutes (${target}). \`starling audit-log --noun login\` says which.`,
      },
      'unusual-api-use': {
        bound: settings.refusedRequests,
        message: (n, target) =>
          `${n} requests to the API were refused within ten minutes (${target}). Is a token wrong, or does somebody try?`,
      },
      'unauthorised-publishes': {
        bound: settings.refusedPublishes,
        message: (n, target) =>
          `${n} publishes without the right key were refused by ${target} within ten minutes. \`starling logs --node ${target} --level warn\` says from where.`,
      },
      'recording-failing': {
        bound: 1,
        message: (n, target) =>
          `${n} recordings of ${target} broke off within ten minutes. \`starling recording ls\` says why.`,
      },
    };
    const totals = this.#surges.totals(nowMs);
    for (const [kind, { bound, message }] of Object.entries(rules) as [
      SurgeKind,
      (typeof rules)[SurgeKind],
    ][]) {
      const prefix = `${kind} `;
      const counted = [...totals].filter(([key]) => key.startsWith(prefix));
      const quiet = [...open.values()].filter(
        (alarm) =>
          alarm.kind === kind &&
          !totals.has(alarmKey(alarm)) &&
          // Another coordinator may see it go on.
          nowMs - Date.parse(alarm.lastSeenAt) > 2 * TOUCH_EVERY_MS,
      );
      for (const [key, count] of [...counted, ...quiet.map((alarm) => [alarmKey(alarm), 0] as const)]) {
        const target = key.slice(prefix.length);
        yield {
          ...{ kind, target, severity: 'warning', raiseAfterMs: 0, clearAfterMs: 0 },
          isBad: count >= bound ? true : count < bound / 2 ? false : undefined,
          message: message(count, target),
        };
      }
    }
  }
}

/** Names of processes that have not joined say their role: `frontend@studio-2:8080`. */
const isOfRegistry = (node: string) => !node.includes('@');

/** `frontend-1` of its process `frontend-1/worker-2`. */
const nodeOf = (process: string) => process.split('/')[0] ?? process;

/** Whether a channel is to have a picture at any time: its schedule or its slate sees to it. */
function isAlwaysOn({ sources, runs, epochUnixMs }: Channel, nowMs: number): boolean {
  if (sources !== null) return sources.fallback !== 'none';
  return runs.length > 0 && epochUnixMs <= nowMs;
}

function isFailover({ source, reason }: { readonly source: string; readonly reason: string }): boolean {
  return source !== 'primary' && !['healthy', 'manual', 'start'].includes(reason);
}
