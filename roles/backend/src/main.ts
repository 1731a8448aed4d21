/**
 * The backend role: makes channels from files and live inputs, and pushes them to every frontend.
 * This file is the composition root.
 *
 * It learns what to do from the coordinator, and goes on with what it last heard when the
 * coordinator is gone.
 */
import { join } from 'node:path';
import type { StreamEvent } from '@starling/media/access-unit';
import { msToTicks, VIDEO_TIMESCALE_HZ } from '@starling/media/time';
import { CoordinatorClient } from '@starling/model/client';
import type { BackendState, Channel as ChannelModel } from '@starling/model/entities';
import type { PlayHandler } from '@starling/net/rtmp-server';
import type { Logger } from 'pino';
import { Gauge, type Registry } from 'prom-client';
import { Channel } from './channel.ts';
import { WallClock } from './clock.ts';
import { Imports } from './imports.ts';
import { Ingest } from './ingest.ts';
import { Library } from './library.ts';
import { Playout, type PlayoutProgramme } from './playout.ts';
import { type FrontendAddress, FrontendLeg } from './publisher.ts';

export interface BackendConfig {
  readonly dataDir: string;
  readonly coordinator: { readonly baseUrl: string; readonly token: string };
  /** The address to listen on; all of them when undefined. */
  readonly rtmpHost: string | undefined;
  /** Where encoders publish; 0 takes a free port. */
  readonly rtmpPort: number;
  /** Where a frontend runs in the same process: serves RTMP players on this port, too. */
  readonly onPlay?: PlayHandler;
  readonly frontends: readonly FrontendAddress[];
  readonly logger: Logger;
  readonly registry: Registry;
}

export interface Backend {
  readonly rtmpPort: number;
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
/** A live channel stays open on the frontends so long after its encoder left. */
const LIVE_LINGER_MS = 20_000;
const REPORT_EVERY_MS = 5000;

/** A channel's legs, one for each frontend, by {@link byKey}. */
type Legs = Map<string, FrontendLeg>;

/** A channel that is on the air, with its legs and, for scheduled ones, its playout. */
interface OnAir {
  readonly channel: Channel;
  readonly epochUnixMs: number;
  /** Undefined while the channel is not pushed. */
  legs: Legs | undefined;
  playout: Playout | undefined;
  lingerTimer: NodeJS.Timeout | undefined;
}

/**
 * Starts a backend.
 * @throws the system's error when the RTMP port or the media folder cannot be opened
 */
export async function startBackend(config: BackendConfig): Promise<Backend> {
  const { logger } = config;
  const clock = new WallClock();
  const library = new Library({ mediaDir: join(config.dataDir, 'media'), logger });
  await library.open();
  const coordinator = new CoordinatorClient(config.coordinator);
  const imports = new Imports({ library, coordinator, logger });
  const onAir = new Map<string, OnAir>();
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

  const ingest = await Ingest.listen({
    host: config.rtmpHost,
    port: config.rtmpPort,
    clock,
    logger,
    onPlay: config.onPlay,
    onEvents: (name, events) => onAir.get(name)?.channel.push(events),
    onPublishChange: (name, isPublishing) => {
      const live = onAir.get(name);
      if (live !== undefined) {
        clearTimeout(live.lingerTimer);
        if (isPublishing) live.legs ??= fitLegs(live.channel, new Map());
        if (!isPublishing) live.lingerTimer = setTimeout(() => closeLegs(live), LIVE_LINGER_MS);
      }
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
    onAir.delete(name);
  };

  const putOn = (model: ChannelModel, programme: PlayoutProgramme): OnAir => {
    const channel = new Channel(model.name);
    if (model.kind === 'live') {
      return {
        channel,
        epochUnixMs: model.epochUnixMs,
        legs: undefined,
        playout: undefined,
        lingerTimer: undefined,
      };
    }
    const startUnixMs = Math.max(model.epochUnixMs, clock.nowUnixMs() - PLAYOUT_HISTORY_MS);
    const playout = new Playout({
      programme,
      openAsset: (contentHash) => library.openAsset(contentHash),
      startTicks: msToTicks(startUnixMs - model.epochUnixMs, VIDEO_TIMESCALE_HZ),
      logger: logger.child({ channel: model.name }),
    });
    return {
      channel,
      epochUnixMs: model.epochUnixMs,
      legs: fitLegs(channel, new Map()),
      playout,
      lingerTimer: undefined,
    };
  };

  const takeState = (next: BackendState) => {
    state = next;
    const models = new Map(next.channels.map((model) => [model.name, model]));
    for (const [name, one] of onAir) {
      const model = models.get(name);
      const isSame =
        model?.epochUnixMs === one.epochUnixMs && (model.kind === 'live') === (one.playout === undefined);
      if (!isSame) takeOff(name, one);
    }
    const assets = new Map(next.assets.map((asset) => [asset.id, asset.facts]));
    for (const model of next.channels) {
      const programme = { runs: model.runs, assets, epochUnixMs: model.epochUnixMs };
      const known = onAir.get(model.name);
      if (known === undefined) onAir.set(model.name, putOn(model, programme));
      else known.playout?.update(programme);
    }
    ingest.setStreams(
      next.streams.flatMap((stream) => {
        const epochUnixMs = models.get(stream.name)?.epochUnixMs;
        return epochUnixMs === undefined ? [] : [{ ...stream, epochUnixMs }];
      }),
    );
    imports.setQueue(next.imports);
    void library.retain(next.assets.map((asset) => asset.facts.contentHash));
    void report();
  };

  const playoutTimer = setInterval(() => {
    const nowUnixMs = clock.nowUnixMs();
    for (const one of onAir.values()) {
      if (one.playout === undefined) continue;
      const dueTicks = msToTicks(nowUnixMs - one.epochUnixMs, VIDEO_TIMESCALE_HZ);
      const events: readonly StreamEvent[] = one.playout.eventsUntil(dueTicks);
      one.channel.push(events);
      void one.playout.readAhead();
    }
  }, PLAYOUT_TICK_MS);

  const report = async () => {
    const publishing = ingest.publishingStreams;
    const playing = [...onAir].filter(([, one]) => one.playout !== undefined).map(([name]) => name);
    try {
      await coordinator.reportBackend({
        onAirChannels: [...playing, ...publishing],
        publishingStreams: publishing,
      });
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
      this.set({ kind: 'live' }, ingest.publishingStreams.length);
    },
  });

  return {
    rtmpPort: ingest.port,

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
      await Promise.all([ingest.close(), imports.close(), watching]);
      for (const [name, one] of onAir) takeOff(name, one);
      await library.close();
    },
  };
}

/** Frontends by all that makes them what they are: one that changes its token is another one. */
function byKey(frontends: readonly FrontendAddress[]): Map<string, FrontendAddress> {
  return new Map(
    frontends.map((frontend) => [`${frontend.host} ${frontend.port} ${frontend.publishToken}`, frontend]),
  );
}
