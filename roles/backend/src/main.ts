/**
 * The backend role: makes channels from files and live inputs, and pushes them to every frontend.
 * This file is the composition root.
 *
 * It learns what to do from the coordinator, and goes on with what it last heard when the
 * coordinator is gone.
 */
import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';
import { msToTicks, VIDEO_TIMESCALE_HZ } from '@starling/media/time';
import { CoordinatorClient } from '@starling/model/client';
import type { BackendState, Channel as ChannelModel } from '@starling/model/entities';
import { programmeAt } from '@starling/model/schedule';
import type { PlayHandler } from '@starling/net/rtmp-server';
import type { Logger } from 'pino';
import { Gauge, type Registry } from 'prom-client';
import { Channel } from './channel.ts';
import { WallClock } from './clock.ts';
import { EventLog } from './event-log.ts';
import { ladderRungs, RUNGS, type Rung } from './house-format.ts';
import { Imports } from './imports.ts';
import { Inputs } from './inputs.ts';
import { Library } from './library.ts';
import { LiveChannel } from './live-channel.ts';
import { Playout, type PlayoutProgramme } from './playout.ts';
import { type FrontendAddress, FrontendLeg } from './publisher.ts';
import { type RtmpsConfig, readCertificate } from './rtmps-certificate.ts';
import { Slates } from './slate.ts';
import { WatchedFolders } from './watched-folders.ts';

export interface BackendConfig {
  readonly dataDir: string;
  readonly coordinator: { readonly baseUrl: string; readonly token: string };
  /** The address to listen on; all of them when undefined. */
  readonly rtmpHost: string | undefined;
  /** Where encoders publish; 0 takes a free port. */
  readonly rtmpPort: number;
  /** Where encoders publish over TLS, with which certificate; without RTMPS when undefined. */
  readonly rtmps?: RtmpsConfig | undefined;
  /** Where a frontend runs in the same process: serves RTMP players on this port, too. */
  readonly onPlay?: PlayHandler;
  readonly frontends: readonly FrontendAddress[];
  readonly logger: Logger;
  readonly registry: Registry;
}

export interface Backend {
  readonly rtmpPort: number;
  /** Undefined without RTMPS. */
  readonly rtmpsPort: number | undefined;
  /** From now on channels are pushed to these frontends: a new one gets its legs at once, one that is gone loses them. */
  setFrontends(frontends: readonly FrontendAddress[]): void;
  /** True when the coordinator's word has come and every playout channel reaches a frontend. */
  isReady(): boolean;
  close(): Promise<void>;
}

/** How often playout looks what is due: one frame at 25 Hz. */
const PLAYOUT_TICK_MS = 40;
/** A playout starts so far in the past, to fill the frontends' windows at once. */
const PLAYOUT_HISTORY_MS = 12_000;
/** A channel stays open on the frontends so long after its last source was lost. */
const LIVE_LINGER_MS = 20_000;
const REPORT_EVERY_MS = 5000;
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
  const mediaDir = resolve(config.dataDir, 'media');
  const library = new Library({ mediaDir, logger });
  await library.open();
  const slates = await Slates.open({ mediaDir: join(config.dataDir, 'slates'), logger });
  const coordinator = new CoordinatorClient(config.coordinator);
  const parallelism = Math.min(availableParallelism(), MAX_PARALLEL_IMPORTS);
  const imports = new Imports({ library, coordinator, logger, parallelism });
  const folders = new WatchedFolders({ coordinator, logger, mediaDir });
  const onAir = new Map<string, OnAir>();
  /** The channels that take each stream. */
  const byStream = new Map<string, OnAir[]>();
  const events = new EventLog({ nowUnixMs: () => clock.nowUnixMs(), onEvent: () => void report() });
  let state: BackendState | undefined;

  let frontends = byKey(config.frontends);
  /** Gives the channel a leg to each frontend, and to no other. */
  const fitLegs = (channel: Channel, legs: Legs): Legs => {
    for (const [key, leg] of legs) {
      if (frontends.has(key)) continue;
      leg.close();
      legs.delete(key);
    }
    for (const [key, frontend] of frontends) {
      if (!legs.has(key)) legs.set(key, new FrontendLeg(channel, frontend, logger));
    }
    return legs;
  };

  const inputs = await Inputs.open({
    host: config.rtmpHost,
    port: config.rtmpPort,
    rtmps: config.rtmps && {
      port: config.rtmps.port,
      ...(await readCertificate(config.rtmps, config.dataDir, logger)),
    },
    logger,
    onPlay: config.onPlay,
    onEvent: (name, event) => {
      const nowUnixMs = clock.nowUnixMs();
      for (const { channel, live } of byStream.get(name) ?? []) {
        if (live !== undefined) channel.push(live.push(name, event, nowUnixMs));
      }
    },
    onPublishChange: (name, isPublishing) => {
      for (const { live } of byStream.get(name) ?? []) live?.setPublishing(name, isPublishing);
      events.publishChanged(name, isPublishing);
      void report();
    },
  });

  const closeLegs = (one: OnAir) => {
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
    const channel = new Channel(model.name);
    const { epochUnixMs, sources } = model;
    const openAsset = (contentHash: string) => library.openAsset(contentHash);
    const nowUnixMs = clock.nowUnixMs();
    const channelLogger = logger.child({ channel: model.name });
    const idle = { channel, epochUnixMs, legs: undefined, playout: undefined, lingerTimer: undefined };
    if (sources !== null) {
      const tracksOf = (stream: string) => inputs.tracksOf(stream);
      const parts = { slates, openAsset, tracksOf, logger: channelLogger };
      const live = new LiveChannel({ model, sources, programme, nowUnixMs, ...parts });
      return { ...idle, live };
    }
    const startUnixMs = Math.max(epochUnixMs, nowUnixMs - PLAYOUT_HISTORY_MS);
    const playout = new Playout({
      programme,
      openAsset,
      startTicks: msToTicks(startUnixMs - epochUnixMs, VIDEO_TIMESCALE_HZ),
      logger: channelLogger,
    });
    return { ...idle, live: undefined, legs: fitLegs(channel, new Map()), playout };
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
    else one.legs ??= fitLegs(one.channel, new Map());
    void report();
  };

  const takeState = (next: BackendState) => {
    state = next;
    const models = new Map(next.channels.map((model) => [model.name, model]));
    for (const [name, one] of onAir) {
      const model = models.get(name);
      const isSame =
        model?.epochUnixMs === one.epochUnixMs && (model.sources === null) === (one.live === undefined);
      if (!isSame) takeOff(name, one);
    }
    const assets = new Map(next.assets.map((asset) => [asset.id, asset.facts]));
    const assetNames = new Map(next.assets.map((asset) => [asset.id, asset.name]));
    for (const model of next.channels) {
      const { title, runs, epochUnixMs } = model;
      const programme = { runs, assets, epochUnixMs, guide: { title, assetNames } };
      const known = onAir.get(model.name);
      if (known === undefined) onAir.set(model.name, putOn(model, programme));
      else known.playout?.update(programme);
      if (model.sources !== null) known?.live?.update(model, model.sources, programme);
    }
    byStream.clear();
    for (const one of onAir.values()) {
      for (const name of one.live?.streams ?? []) byStream.set(name, [...(byStream.get(name) ?? []), one]);
    }
    inputs.setStreams(next.streams, (stream) => rungsFor(stream, next, assets, clock.nowUnixMs()));
    const withSlate = next.channels.filter(({ sources }) => sources !== null && sources.fallback !== 'none');
    void slates.retain(withSlate.map(({ title }) => title));
    imports.setQueue(next.imports, next.library);
    folders.setFolders(next.folders);
    void library.retain(next.assets.map((asset) => asset.facts.contentHash));
    void report();
  };

  const playoutTimer = setInterval(() => {
    const nowUnixMs = clock.nowUnixMs();
    for (const [name, one] of onAir) {
      const { channel, playout, live, epochUnixMs } = one;
      if (live !== undefined) {
        channel.push(live.tick(nowUnixMs));
        follow(name, one, live);
      }
      if (playout !== undefined) {
        channel.push(playout.eventsUntil(msToTicks(nowUnixMs - epochUnixMs, VIDEO_TIMESCALE_HZ)));
        void playout.readAhead();
      }
    }
  }, PLAYOUT_TICK_MS);

  const report = async () => {
    const activeSources = [...onAir].flatMap(([channel, { live }]) => {
      const { source, sinceUnixMs, reason } = live?.active ?? {};
      if (source === undefined || sinceUnixMs === undefined || reason === undefined) return [];
      return [{ channel, source, since: new Date(sinceUnixMs).toISOString(), reason }];
    });
    const { pending } = events;
    const playing = [...onAir].filter(([, one]) => one.playout !== undefined).map(([name]) => name);
    try {
      await coordinator.reportBackend({
        onAirChannels: [...playing, ...activeSources.map(({ channel }) => channel)],
        publishingStreams: inputs.publishingStreams,
        activeSources,
        inputProblems: inputs.problems,
        events: [...pending],
      });
      events.taken(pending);
    } catch (error) {
      logger.debug({ err: error }, 'the coordinator did not take the report; the next one follows');
    }
  };
  const reportTimer = setInterval(() => void report(), REPORT_EVERY_MS);

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

    isReady: () =>
      state !== undefined &&
      [...onAir.values()].every(
        (one) => one.playout === undefined || [...(one.legs?.values() ?? [])].some((leg) => leg.isPushing),
      ),

    setFrontends(next) {
      frontends = byKey(next);
      for (const { channel, legs } of onAir.values()) {
        if (legs !== undefined) fitLegs(channel, legs);
      }
    },

    async close() {
      clearInterval(playoutTimer);
      clearInterval(reportTimer);
      watch.abort();
      events.close();
      await Promise.all([inputs.close(), imports.close(), folders.close(), watching]);
      for (const [name, one] of onAir) takeOff(name, one);
      await Promise.all([library.close(), slates.close()]);
    },
  };
}

/** Frontends by all that makes them what they are: one that changes its token is another one. */
function byKey(frontends: readonly FrontendAddress[]): Map<string, FrontendAddress> {
  return new Map(
    frontends.map((frontend) => [`${frontend.host} ${frontend.port} ${frontend.publishToken}`, frontend]),
  );
}
