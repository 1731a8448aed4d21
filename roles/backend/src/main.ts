/**
 * The backend role: makes channels from files and live inputs, and pushes them to every frontend.
 * This file is the composition root.
 *
 * It learns what to do from the coordinator, and goes on with what it last heard when the
 * coordinator is gone.
 */
import { X509Certificate } from 'node:crypto';
import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';
import { msToTicks, VIDEO_TIMESCALE_HZ } from '@starling/media/time';
import type { CoordinatorClient } from '@starling/model/client';
import { type Distribution, rendezvousOrder } from '@starling/model/distribution';
import type { BackendState, Channel as ChannelModel } from '@starling/model/entities';
import {
  type CoordinatorAccess,
  identityOf,
  NodeProver,
  openCoordinator,
} from '@starling/model/node-identity';
import { programmeAt } from '@starling/model/schedule';
import { Channel } from '@starling/net/channel';
import type { PlayHandler } from '@starling/net/rtmp-server';
import type { Logger } from 'pino';
import { Counter, Gauge, type Registry } from 'prom-client';
import { LIBRARY_LEASE, leaseNames, wantedLeases } from './channel-leases.ts';
import { WallClock } from './clock.ts';
import { Destinations } from './destinations.ts';
import { EventLog } from './event-log.ts';
import { FileLeases } from './file-leases.ts';
import { ladderRungs, RUNGS, type Rung } from './house-format.ts';
import { Imports } from './imports.ts';
import { Inputs } from './inputs.ts';
import { CoordinatorLeases, type HeldLease, type Leases, RenewedLeases, SoleHolder } from './leases.ts';
import { Library } from './library.ts';
import { LiveChannel } from './live-channel.ts';
import { readNodeId } from './node-id.ts';
import type { IngestAddress } from './passing-on.ts';
import { Playout, type PlayoutProgramme } from './playout.ts';
import { PlayoutHistory } from './playout-history.ts';
import { type FrontendAddress, FrontendLeg, type ProvePush } from './publisher.ts';
import { Recordings } from './recordings.ts';
import { RememberedState } from './remembered-state.ts';
import { type RtmpsConfig, readCertificate } from './rtmps-certificate.ts';
import { Slates } from './slate.ts';
import { WatchedFolders } from './watched-folders.ts';

export interface BackendConfig {
  readonly dataDir: string;
  /** The library, which the backends of a network share; in the data folder when undefined. */
  readonly mediaDir?: string | undefined;
  /** Of the backends that share it each has a folder in it; in the data folder when undefined. */
  readonly recordingsDir?: string | undefined;
  readonly coordinator: CoordinatorAccess;
  /** The address to listen on; all of them when undefined. */
  readonly rtmpHost: string | undefined;
  /** Where encoders publish; 0 takes a free port. */
  readonly rtmpPort: number;
  /** Where encoders publish over TLS, with which certificate; without RTMPS when undefined. */
  readonly rtmps?: RtmpsConfig | undefined;
  /** Where a frontend runs in the same process: serves RTMP players on this port, too. */
  readonly onPlay?: PlayHandler;
  readonly frontends: readonly FrontendAddress[];
  /** Who says which channels run here: nobody where this is the only backend. */
  readonly leases:
    | { readonly from: 'nobody' | 'coordinator' }
    | { readonly from: 'folder'; readonly dir: string };
  readonly logger: Logger;
  readonly registry: Registry;
}

export interface Backend {
  readonly rtmpPort: number;
  /** Undefined without RTMPS. */
  readonly rtmpsPort: number | undefined;
  /** From now on channels are pushed to these frontends: a new one gets its legs at once, one that is gone loses them. */
  setFrontends(frontends: readonly FrontendAddress[], distribution?: Distribution): void;
  /** Where the encoders of channels come in that other backends run, by node. */
  setOtherBackends(addresses: ReadonlyMap<string, IngestAddress>): void;
  /** How many channels run here. */
  readonly channelCount: number;
  /** Whether it holds leases, or encoders are connected to it: others then rely on it. */
  readonly isBusy: boolean;
  /** True when the coordinator's word has come and every playout channel reaches a frontend. */
  isReady(): boolean;
  close(): Promise<void>;
}

/** How often live channels look what is due: one frame at 25 Hz. */
const TICK_MS = 40;
/** Channels that their schedule alone makes take turns: each is pushed so often, for every write has its price. */
const TICKS_PER_PLAYOUT_PUSH = 3;
/** They are pushed ahead of their time, so that nothing comes later than it would at every tick. */
const PLAYOUT_LEAD_MS = TICK_MS * (TICKS_PER_PLAYOUT_PUSH - 1);
/** A channel stays open on the frontends so long after its last source was lost. */
const LIVE_LINGER_MS = 20_000;
const REPORT_EVERY_MS = 5000;
/** Of distribution on demand: whether one is gone and the next has to take its place. */
const LOOK_AT_ORIGINS_EVERY_MS = 1000;
/** What changes in many places at once is told once. */
const REPORT_SOON_MS = 100;
const MAX_PARALLEL_IMPORTS = 8;

/** A channel's legs, one for each frontend, by {@link byKey}. */
type Legs = Map<string, FrontendLeg>;

/** A channel with its legs, and with what makes its pictures: either the schedule alone, or live sources. */
interface OnAir {
  readonly channel: Channel;
  readonly epochUnixMs: number;
  /** Undefined while the channel is not pushed. */
  legs: Legs | undefined;
  readonly playout: Playout | undefined;
  /** Of the playout. */
  readonly history: PlayoutHistory | undefined;
  readonly live: LiveChannel | undefined;
  lingerTimer: NodeJS.Timeout | undefined;
}

/**
 * What a stream is transcoded to: the qualities that its channel sends while the schedule is on, so that a
 * change between the two is none for a player; the network's ladder where there is no schedule.
 */
function rungsFor(
  stream: string,
  { channels, library }: BackendState,
  assets: PlayoutProgramme['assets'],
  nowUnixMs: number,
): Rung[] {
  const channel = channels.find(
    ({ sources }) =>
      sources?.fallback === 'playout' && (sources.primary === stream || sources.backup === stream),
  );
  if (!channel) return ladderRungs(library.ladder);
  const nowTicks = msToTicks(nowUnixMs - channel.epochUnixMs, VIDEO_TIMESCALE_HZ);
  const position = programmeAt(channel.runs, assets, nowTicks);
  const rungs = Object.values(RUNGS).filter(({ heightPx }) => position?.tracks.heightsPx.includes(heightPx));
  return rungs.length > 0 ? rungs : ladderRungs(library.ladder);
}

/**
 * Starts a backend.
 * @throws the system's error when the RTMP port or the media folder cannot be opened
 */
export async function startBackend(config: BackendConfig): Promise<Backend> {
  const { logger } = config;
  const clock = new WallClock();
  const mediaDir = resolve(config.mediaDir ?? join(config.dataDir, 'media'));
  const library = new Library({ mediaDir, logger });
  await library.open();
  const slates = await Slates.open({ mediaDir: join(config.dataDir, 'slates'), logger });
  const coordinator = openCoordinator(config.coordinator);
  const identity = identityOf(config.coordinator);
  const prover = identity && new NodeProver(identity);
  const provePush: ProvePush = async (frontendNodeId) =>
    (await prover?.proofFor(`push:${frontendNodeId}`)) ?? '';
  const parallelism = Math.min(availableParallelism(), MAX_PARALLEL_IMPORTS);
  const imports = new Imports({ library, coordinator, logger, parallelism });
  const folders = new WatchedFolders({ coordinator, logger, mediaDir });
  const nodeId = await readNodeId(config.dataDir);
  const onAir = new Map<string, OnAir>();
  /** The channels that take each stream. */
  const byStream = new Map<string, OnAir[]>();
  const events = new EventLog({
    nowUnixMs: () => clock.nowUnixMs(),
    path: join(config.dataDir, 'events.spool'),
    onEvent: () => void report(),
    onSpoolError: (error) => logger.error({ err: error }, 'events cannot be kept on disk, only in memory'),
  });
  const destinations = new Destinations({
    logger,
    registry: config.registry,
    nowUnixMs: () => clock.nowUnixMs(),
    onChange: () => {
      reportSoonTimer ??= setTimeout(() => void report(), REPORT_SOON_MS);
    },
    onFailed: (destination, reason) => events.destinationFailed(destination, reason),
    onRestored: (destination) => events.destinationRestored(destination),
  });
  let state: BackendState | undefined;
  const memory = new RememberedState(config.dataDir, logger);

  let otherBackends: ReadonlyMap<string, IngestAddress> = new Map();
  let frontends = byKey(config.frontends);
  let distribution: Distribution = { mode: 'all' };
  /** The frontends that the channel is pushed to, by key. */
  const targetsOf = (channel: Channel, legs: Legs): ReadonlyMap<string, FrontendAddress> => {
    if (distribution.mode === 'all') return frontends;
    const nodes = [...frontends].flatMap(([key, one]) =>
      'nodeId' in one ? [{ key, nodeId: one.nodeId }] : [],
    );
    const order = rendezvousOrder(channel.name, new Set(nodes.map(({ nodeId }) => nodeId)));
    // In place of one that is gone, the next comes; when it is back, it has its place again.
    const isLost = (id: string) =>
      nodes.some(({ key, nodeId }) => nodeId === id && legs.get(key)?.isLost === true);
    let left = distribution.originCount;
    const origins = new Set(order.filter((id) => left > 0 && (isLost(id) || left-- > 0)));
    return new Map([...frontends].filter(([, one]) => !('nodeId' in one) || origins.has(one.nodeId)));
  };
  /** Gives the channel a leg to each frontend that is to have it, and to no other. */
  const fitLegs = (channel: Channel, legs: Legs): Legs => {
    const targets = targetsOf(channel, legs);
    for (const [key, leg] of legs) {
      if (targets.has(key)) continue;
      leg.close();
      legs.delete(key);
    }
    for (const [key, frontend] of targets) {
      if (!legs.has(key)) legs.set(key, new FrontendLeg(channel, frontend, provePush, logger));
    }
    return legs;
  };

  const refusedPublishes = new Counter({
    name: 'starling_backend_refused_publishes_total',
    help: 'Publishes with a wrong stream name or stream key',
    registers: [config.registry],
  });
  const certificate = config.rtmps && (await readCertificate(config.rtmps, config.dataDir, logger));
  if (certificate !== undefined) {
    new Gauge({
      name: 'starling_backend_certificate_end_timestamp_seconds',
      help: 'When the certificate of RTMPS ends',
      registers: [config.registry],
    }).set(endUnixSeconds(certificate.certificate));
  }
  const inputs = await Inputs.open({
    host: config.rtmpHost,
    port: config.rtmpPort,
    rtmps: config.rtmps && certificate && { port: config.rtmps.port, ...certificate },
    onRefused: () => refusedPublishes.inc(),
    logger,
    onPlay: config.onPlay,
    addressElsewhere: (stream) => {
      const leaseOf = leaseNames(state?.channels ?? []);
      return otherBackends.get(leases.holderOf(leaseOf(stream)) ?? '');
    },
    onEvent: (name, event) => {
      const nowUnixMs = clock.nowUnixMs();
      for (const { channel, live } of byStream.get(name) ?? []) {
        if (live !== undefined) channel.push(live.push(name, event, nowUnixMs));
      }
      recordings.streamEvent(name, event);
    },
    onPublishChange: (name, isPublishing) => {
      for (const { live } of byStream.get(name) ?? []) live?.setPublishing(name, isPublishing);
      if (!isPublishing) recordings.streamEnded(name);
      events.publishChanged(name, isPublishing);
      void report();
    },
  });

  const recordings = new Recordings({
    dir:
      config.recordingsDir === undefined
        ? resolve(config.dataDir, 'recordings')
        : resolve(config.recordingsDir, nodeId),
    nodeId,
    coordinator,
    logger,
    registry: config.registry,
    nowUnixMs: () => clock.nowUnixMs(),
    tracksOf: (stream) => inputs.tracksOf(stream),
  });

  const closeLegs = (one: OnAir) => {
    destinations.setOffAir(one.channel);
    for (const leg of one.legs?.values() ?? []) leg.close();
    one.legs = undefined;
  };

  const takeOff = (name: string, one: OnAir) => {
    clearTimeout(one.lingerTimer);
    closeLegs(one);
    void one.playout?.close();
    one.live?.close();
    onAir.delete(name);
  };

  const putOn = (model: ChannelModel, programme: PlayoutProgramme): OnAir => {
    const { epochUnixMs, sources } = model;
    const openAsset = (contentHash: string) => library.openAsset(contentHash);
    const nowUnixMs = clock.nowUnixMs();
    const channelLogger = logger.child({ channel: model.name });
    const idle = { epochUnixMs, legs: undefined, lingerTimer: undefined };
    if (sources !== null) {
      const tracksOf = (stream: string) => inputs.tracksOf(stream);
      const parts = { slates, openAsset, tracksOf, logger: channelLogger };
      const live = new LiveChannel({ model, sources, programme, nowUnixMs, ...parts });
      const channel = new Channel(model.name);
      return { ...idle, channel, live, playout: undefined, history: undefined };
    }
    const startTicks = msToTicks(Math.max(0, nowUnixMs - epochUnixMs), VIDEO_TIMESCALE_HZ);
    const parts = { programme, openAsset, logger: channelLogger };
    const playout = new Playout({ ...parts, startTicks });
    const history = new PlayoutHistory({ ...parts, pushedTicks: startTicks });
    const channel = new Channel(model.name, history);
    destinations.setOnAir(channel);
    return { ...idle, channel, live: undefined, legs: fitLegs(channel, new Map()), playout, history };
  };

  /** Notes what is on the air of a channel with live sources, and opens it on the frontends while anything is. */
  const follow = (name: string, one: OnAir, live: LiveChannel) => {
    const change = live.takeChange();
    if (change === undefined) return;
    const { from, to, reason } = change;
    logger.info({ channel: name, from, to, reason }, 'source changed');
    events.sourceChanged(name, change);
    clearTimeout(one.lingerTimer);
    if (to === undefined) one.lingerTimer = setTimeout(() => closeLegs(one), LIVE_LINGER_MS);
    else {
      one.legs ??= fitLegs(one.channel, new Map());
      destinations.setOnAir(one.channel);
    }
    void report();
  };

  const takeState = (next: BackendState) => {
    state = next;
    leases.want(wantedLeases(next.channels));
    arrange(next);
  };

  /** Runs the channels whose leases are held, and no others. */
  const arrange = (next: BackendState) => {
    memory.keep(next, leases.toRemember);
    const leaseOf = leaseNames(next.channels);
    const held = next.channels.filter(({ name }) => leases.held.has(leaseOf(name)));
    const models = new Map(held.map((model) => [model.name, model]));
    for (const [name, one] of onAir) {
      const model = models.get(name);
      const isSame =
        model?.epochUnixMs === one.epochUnixMs && (model.sources === null) === (one.live === undefined);
      if (!isSame) takeOff(name, one);
    }
    const assets = new Map(next.assets.map((asset) => [asset.id, asset.facts]));
    const assetNames = new Map(next.assets.map((asset) => [asset.id, asset.name]));
    for (const model of held) {
      const { title, runs, epochUnixMs } = model;
      const programme = { runs, assets, epochUnixMs, guide: { title, assetNames } };
      const known = onAir.get(model.name);
      if (known === undefined) onAir.set(model.name, putOn(model, programme));
      else {
        known.playout?.update(programme);
        known.history?.update(programme);
      }
      if (model.sources !== null) known?.live?.update(model, model.sources, programme);
    }
    byStream.clear();
    for (const one of onAir.values()) {
      for (const name of one.live?.streams ?? []) byStream.set(name, [...(byStream.get(name) ?? []), one]);
    }
    // An encoder that comes here although its channel runs elsewhere is passed on.
    const isHere = ({ name }: BackendState['streams'][number]) => leases.held.has(leaseOf(name));
    const elsewhere = next.streams.filter((stream) => !isHere(stream));
    inputs.setStreams(next.streams.filter(isHere), elsewhere, (stream) =>
      rungsFor(stream, next, assets, clock.nowUnixMs()),
    );
    const isFirst = (channel: string) => leases.held.get(leaseOf(channel))?.isFirst === true;
    destinations.setDestinations(next.destinations.filter(({ channel }) => isFirst(channel)));
    const withSlate = next.channels.filter(({ sources }) => sources !== null && sources.fallback !== 'none');
    void slates.retain(withSlate.map(({ title }) => title));
    void keepLibrary(next);
    recordings.update(
      next.recordings,
      new Map(
        next.channels.map(({ name, record }) => {
          return [name, { record, source: isFirst(name) ? onAir.get(name)?.channel : undefined }];
        }),
      ),
    );
    void report();
  };

  /** Pending or done while the lease of the library is held. */
  let takingOver: Promise<void> | undefined;
  /** Imports and tidies where the lease says so. */
  const keepLibrary = async (next: BackendState) => {
    if (!leases.held.has(LIBRARY_LEASE)) {
      takingOver = undefined;
      imports.setQueue([], next.library);
      folders.setFolders([]);
      return;
    }
    takingOver ??= library
      .takeOver()
      .catch((error: unknown) => logger.warn({ err: error }, 'the media folder could not be looked through'));
    await takingOver;
    if (next !== state || takingOver === undefined) return; // a later word has come
    imports.setQueue(next.imports, next.library);
    folders.setFolders(next.folders);
    await library.retain(next.assets.map((asset) => asset.facts.contentHash));
  };

  let turn = 0;
  const playoutTimer = setInterval(() => {
    const nowUnixMs = clock.nowUnixMs();
    turn++;
    let index = 0;
    for (const [name, one] of onAir) {
      const { channel, playout, history, live, epochUnixMs } = one;
      if (live !== undefined) {
        channel.push(live.tick(nowUnixMs));
        follow(name, one, live);
      }
      const isItsTurn = (turn + index++) % TICKS_PER_PLAYOUT_PUSH === 0;
      if (playout !== undefined && isItsTurn) {
        const dueTicks = msToTicks(nowUnixMs + PLAYOUT_LEAD_MS - epochUnixMs, VIDEO_TIMESCALE_HZ);
        channel.push(playout.eventsUntil(dueTicks, channel.isTapped ? 'kept' : 'copied'));
        history?.advance(dueTicks);
        void playout.readAhead();
      }
    }
  }, TICK_MS);

  let reportSoonTimer: NodeJS.Timeout | undefined;
  const report = async () => {
    clearTimeout(reportSoonTimer);
    reportSoonTimer = undefined;
    const activeSources = [...onAir].flatMap(([channel, { live }]) => {
      const { source, sinceUnixMs, reason } = live?.active ?? {};
      if (source === undefined || sinceUnixMs === undefined || reason === undefined) return [];
      return [{ channel, source, since: new Date(sinceUnixMs).toISOString(), reason }];
    });
    const { pending } = events;
    const playing = [...onAir].filter(([, one]) => one.playout !== undefined).map(([name]) => name);
    try {
      await coordinator.reportBackend({
        nodeId,
        onAirChannels: [...playing, ...activeSources.map(({ channel }) => channel)],
        publishingStreams: inputs.publishingStreams,
        activeSources,
        inputProblems: inputs.problems,
        destinations: destinations.statuses,
        ...pending,
      });
      if (events.taken(pending)) reportSoonTimer ??= setTimeout(() => void report(), REPORT_SOON_MS);
    } catch (error) {
      logger.debug({ err: error }, 'the coordinator did not take the report; the next one follows');
    }
  };
  const reportTimer = setInterval(() => void report(), REPORT_EVERY_MS);
  const originTimer = setInterval(() => {
    if (distribution.mode === 'all') return;
    for (const { channel, legs } of onAir.values()) if (legs !== undefined) fitLegs(channel, legs);
  }, LOOK_AT_ORIGINS_EVERY_MS);

  const remembered = await memory.load();
  const leases = openLeases(config.leases, {
    ...{ coordinator, nodeId, logger },
    heldBefore: remembered?.held ?? new Map(),
    onChange: () => {
      if (state !== undefined) arrange(state);
    },
  });
  if (remembered !== undefined) takeState(remembered.state);
  const watch = new AbortController();
  const watching = coordinator.watchBackendState(takeState, watch.signal);

  new Gauge({
    name: 'starling_backend_channels',
    help: 'Channels on the air, by kind',
    labelNames: ['kind'],
    registers: [config.registry],
    collect() {
      this.set({ kind: 'playout' }, [...onAir.values()].filter((one) => one.playout !== undefined).length);
      this.set({ kind: 'live' }, [...onAir.values()].filter((one) => one.live?.active !== undefined).length);
    },
  });

  return {
    rtmpPort: inputs.rtmpPort,
    rtmpsPort: inputs.rtmpsPort,

    get channelCount() {
      return onAir.size;
    },
    get isBusy() {
      return leases.held.size > 0 || inputs.publishingStreams.length > 0;
    },

    isReady: () =>
      state !== undefined &&
      [...onAir.values()].every(
        (one) => one.playout === undefined || [...(one.legs?.values() ?? [])].some((leg) => leg.isPushing),
      ),

    setFrontends(next, nextDistribution = { mode: 'all' }) {
      frontends = byKey(next);
      distribution = nextDistribution;
      for (const { channel, legs } of onAir.values()) {
        if (legs !== undefined) fitLegs(channel, legs);
      }
    },

    setOtherBackends(addresses) {
      otherBackends = addresses;
    },

    async close() {
      clearInterval(playoutTimer);
      clearInterval(reportTimer);
      clearInterval(originTimer);
      clearTimeout(reportSoonTimer);
      watch.abort();
      destinations.close();
      await Promise.all([inputs.close(), imports.close(), folders.close(), watching]);
      await recordings.close();
      for (const [name, one] of onAir) takeOff(name, one);
      await leases.close();
      await Promise.all([library.close(), slates.close(), events.close(), memory.close()]);
    },
  };
}

/** @returns 0 for what is no certificate: opening the port says so */
function endUnixSeconds(pem: string): number {
  try {
    return Date.parse(new X509Certificate(pem).validTo) / 1000;
  } catch {
    return 0;
  }
}

function openLeases(
  from: BackendConfig['leases'],
  options: {
    readonly coordinator: CoordinatorClient;
    readonly nodeId: string;
    readonly logger: Logger;
    readonly heldBefore: ReadonlyMap<string, HeldLease>;
    readonly onChange: () => void;
  },
): Leases {
  const { coordinator, nodeId } = options;
  switch (from.from) {
    case 'nobody':
      return new SoleHolder();
    case 'coordinator':
      return new RenewedLeases({ ...options, authority: new CoordinatorLeases(coordinator, nodeId) });
    case 'folder':
      return new RenewedLeases({ ...options, authority: new FileLeases(from.dir, nodeId) });
  }
}

/** Frontends by all that makes them what they are: one that changes its token is another one. */
function byKey(frontends: readonly FrontendAddress[]): Map<string, FrontendAddress> {
  return new Map(
    frontends.map((frontend) => {
      const credential =
        'publishToken' in frontend
          ? `token ${JSON.stringify(frontend.publishToken)}`
          : `node ${frontend.nodeId}`;
      return [`${frontend.host} ${frontend.port} ${credential}`, frontend];
    }),
  );
}
