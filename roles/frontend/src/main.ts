/**
 * The frontend role: takes channels from the backends over RTMP and serves them over HTTP.
 * This file is the composition root; docs/tour/rtmp-to-hls.md walks the path of the data.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { DEFAULT_PART_TARGET_MS } from '@starling/media/hls/segmenter';
import { IngestGrid } from '@starling/media/ingest-grid';
import type { PlayHandler, RtmpPeer } from '@starling/net/rtmp-server';
import { refuseUpgrade } from '@starling/net/websocket';
import type { Logger } from 'pino';
import type { Registry } from 'prom-client';
import { CatchUp } from './catch-up.ts';
import { DvrRoutes } from './dvr-routes.ts';
import { DvrStore } from './dvr-store.ts';
import { EndlessRoutes } from './endless-routes.ts';
import { defaultFanOutLimits, type FanOutLimits } from './fan-out.ts';
import { notFound } from './hls-answers.ts';
import { HlsRoutes } from './hls-routes.ts';
import { FrontendMetrics } from './metrics.ts';
import { listenForPublishers } from './rtmp-listener.ts';
import { Stream } from './stream.ts';
import { PictureDrawer, Thumbnail } from './thumbnail.ts';
import { CHANNEL_FULL_TEXT, type Viewer, ViewerRegistry } from './viewers.ts';

export interface FrontendConfig {
  /** The address to listen on; all of them when undefined. */
  readonly rtmpHost: string | undefined;
  /** 0 takes a free port. */
  readonly rtmpPort: number;
  /** What a backend has to show to publish here. */
  readonly publishToken: string;
  readonly logger: Logger;
  readonly registry: Registry;
  readonly windowDurationMs?: number;
  readonly partTargetMs?: number;
  readonly fanOutLimits?: Partial<FanOutLimits>;
  /** Who comes when a channel has as many is refused; without a limit when undefined. */
  readonly maxViewersPerChannel?: number | undefined;
  /** Nothing is recorded for rewinding when undefined. */
  readonly dvr?: DvrConfig | undefined;
  /** FFmpeg's path, for thumbnails; found in PATH when undefined. */
  readonly ffmpegPath?: string;
}

/** Recordings behind the live edge. Several frontends on one machine may share the folder. */
export interface DvrConfig {
  readonly dir: string;
  /** How far back viewers can go. */
  readonly hours?: number | undefined;
  /** Of all channels together. */
  readonly maxBytes?: number | undefined;
}

export const DEFAULT_DVR_HOURS = 2;
/** Five channels of 4 Mb/s for two hours. */
export const DEFAULT_DVR_MAX_BYTES = 20 * 2 ** 30;

export interface Frontend {
  /** The port that backends push to. */
  readonly rtmpPort: number;
  /**
   * Answers requests for `/live/...`.
   * @returns false when the path is not the frontend's
   */
  handleRequest(request: IncomingMessage, response: ServerResponse): boolean;
  /**
   * Answers WebSocket upgrades for `/live/...`.
   * @returns false when the path is not the frontend's
   */
  handleUpgrade(request: IncomingMessage, socket: Socket, head: Uint8Array): boolean;
  /** Lets RTMP players in; for the RTMP ports of others, too. */
  readonly onPlay: PlayHandler;
  /** True when viewers of this channel get a picture at once. */
  isPlayable(channel: string): boolean;
  /** True when every channel that is being pushed here has a window to play. */
  isReady(): boolean;
  /** Everybody who watches here now. */
  viewers(): readonly Viewer[];
  /**
   * Shows a viewer out.
   * @returns false when nobody has this id
   */
  kick(viewerId: string): boolean;
  close(): Promise<void>;
}

/** A channel stays, with what it has, so long after its last publisher left. */
const STREAM_LINGER_MS = 30_000;
const MAX_CHANNELS = 1000;

interface Channel {
  readonly stream: Stream;
  readonly grid: IngestGrid;
  encoder: RtmpPeer | undefined;
  readonly hls: HlsRoutes;
  readonly catchUp: CatchUp;
  readonly endless: EndlessRoutes;
  readonly thumbnail: Thumbnail;
}

/**
 * Starts a frontend.
 * @throws the system's error when the RTMP port cannot be opened
 */
export async function startFrontend(config: FrontendConfig): Promise<Frontend> {
  const { logger } = config;
  const drawer = new PictureDrawer(config.ffmpegPath);
  const channels = new Map<string, Channel>();
  const viewers = new ViewerRegistry({ maxViewersPerChannel: config.maxViewersPerChannel });
  const recordings =
    config.dvr &&
    (await DvrStore.open({
      dir: config.dvr.dir,
      windowMs: (config.dvr.hours ?? DEFAULT_DVR_HOURS) * 3_600_000,
      maxBytes: config.dvr.maxBytes ?? DEFAULT_DVR_MAX_BYTES,
      logger,
      onDropped: (channel) => metrics.unrecordedSegments.inc({ channel }),
    }));
  const metrics = new FrontendMetrics(config.registry, {
    readStreams: () =>
      [...channels.values()].map(({ stream }) => ({
        channel: stream.channel,
        viewers: viewers.countsOf(stream.channel),
        windowBytes: stream.windowBytes,
        publishers: stream.publisherCount,
      })),
    readRecordings: () => recordings?.figures() ?? [],
  });
  const dvr =
    recordings &&
    new DvrRoutes({
      store: recordings,
      viewers,
      countBytes: (channel, sizeBytes) => metrics.bytesSent.inc({ channel, protocol: 'hls' }, sizeBytes),
    });

  const openChannel = (name: string): Channel => {
    const stream = new Stream({
      channel: name,
      partTargetMs: config.partTargetMs ?? DEFAULT_PART_TARGET_MS,
      windowDurationMs: config.windowDurationMs ?? 30_000,
      logger,
    });
    stream.listen({
      made: (rendition, event) => {
        if (event.type === 'segment') recordings?.add(name, rendition, event.segment);
      },
    });
    const bytesSent = (protocol: string) => {
      const counter = metrics.bytesSent.labels(name, protocol);
      return (sizeBytes: number) => counter.inc(sizeBytes);
    };
    const catchUp = new CatchUp(stream);
    const channel: Channel = {
      stream,
      encoder: undefined,
      grid: new IngestGrid({
        epochUnixMs: Math.floor(Date.now() / 1000) * 1000,
        programmeId: `live-${name}`,
      }),
      catchUp,
      hls: new HlsRoutes(stream, viewers, bytesSent('hls')),
      endless: new EndlessRoutes({
        stream,
        catchUp,
        viewers,
        limits: { ...defaultFanOutLimits, ...config.fanOutLimits },
        counters: (protocol) => ({
          bytesSent: bytesSent(protocol),
          skipped: () => metrics.skippedViewers.inc({ channel: name, protocol }),
          evicted: () => metrics.evictedViewers.inc({ channel: name, protocol }),
        }),
      }),
      thumbnail: new Thumbnail({ stream, catchUp, drawer, logger, bytesSent: bytesSent('thumbnail') }),
    };
    channels.set(name, channel);
    return channel;
  };

  const closeChannel = ({ stream, hls, endless, catchUp }: Channel) => {
    hls.close();
    endless.close();
    catchUp.close();
    channels.delete(stream.channel);
  };

  const onPlay: PlayHandler = ({ app, streamName }) => {
    const endless = app === 'live' ? channels.get(streamName)?.endless : undefined;
    if (!endless?.isPlayable) {
      return { code: 'NetStream.Play.StreamNotFound', description: 'There is no such channel on the air.' };
    }
    if (!viewers.hasRoom(streamName))
      return { code: 'NetStream.Play.Failed', description: CHANNEL_FULL_TEXT };
    return endless.play;
  };

  const listener = await listenForPublishers({
    host: config.rtmpHost,
    port: config.rtmpPort,
    publishToken: config.publishToken,
    logger,
    onPlay,
    openChannel: (name) =>
      channels.get(name) ?? (channels.size < MAX_CHANNELS ? openChannel(name) : undefined),
  }).catch(async (error: unknown) => {
    await recordings?.close();
    throw error;
  });

  const sweep = setInterval(() => {
    viewers.sweep();
    recordings?.trim();
    for (const channel of channels.values()) {
      const { stream } = channel;
      if (stream.publisherCount > 0 || performance.now() - stream.lastUnitAtMs < STREAM_LINGER_MS) continue;
      closeChannel(channel);
      logger.info({ channel: stream.channel }, 'channel is off the air');
    }
  }, 1000);
  sweep.unref();

  return {
    rtmpPort: listener.port,

    handleRequest(request, response) {
      const path = pathOf(request);
      if (!path.startsWith('/live/')) return false;
      const address = parsePath(path);
      if (address === undefined) {
        notFound(
          response,
          'The address has the form /live/<channel>/index.m3u8, /live/<channel>.flv or /live/<channel>.ts.',
          60,
        );
        return true;
      }
      if (request.method === 'OPTIONS') {
        response.writeHead(204, {
          'Access-Control-Allow-Origin': '*',
          'Access-Control-Allow-Methods': 'GET, HEAD',
          'Access-Control-Allow-Headers': 'Range',
          'Access-Control-Max-Age': '86400',
        });
        response.end();
        return true;
      }
      if (request.method !== 'GET' && request.method !== 'HEAD') {
        response.writeHead(405, { Allow: 'GET, HEAD, OPTIONS' });
        response.end();
        return true;
      }
      const channel = channels.get(address.channel);
      if (dvr?.handle(address.channel, address.file, channel?.stream, request, response)) return true;
      if (channel === undefined) notFound(response, 'This channel is off the air.', 1);
      else if (address.container !== undefined) channel.endless.handle(address.container, request, response);
      else if (address.file === 'thumbnail.jpg') void channel.thumbnail.handle(request, response);
      else channel.hls.handle(address.file, request, response);
      return true;
    },

    handleUpgrade(request, socket, head) {
      const path = pathOf(request);
      if (!path.startsWith('/live/')) return false;
      const address = parsePath(path);
      const channel = channels.get(address?.channel ?? '');
      if (channel === undefined || address?.container !== 'flv') refuseUpgrade(socket, '404 Not Found');
      else channel.endless.handleUpgrade(request, socket, head);
      return true;
    },

    onPlay,

    isPlayable: (name) => channels.get(name)?.stream.isPlayable ?? false,
    isReady: () => [...channels.values()].every(({ stream }) => stream.isPlayable),

    viewers: () => viewers.list(),
    kick: (viewerId) => viewers.kick(viewerId),

    async close() {
      clearInterval(sweep);
      await listener.close();
      for (const channel of channels.values()) closeChannel(channel);
      await recordings?.close();
    },
  };
}

interface Address {
  readonly channel: string;
  /** Of an endless response. */
  readonly container?: 'flv' | 'ts';
  /** Below the channel's folder; empty for an endless response. */
  readonly file: string;
}

function parsePath(path: string): Address | undefined {
  const [, channel, container, file = ''] =
    /^\/live\/([a-z0-9-]{1,63})(?:\.(flv|ts)$|\/(.+)$)/.exec(path) ?? [];
  if (channel === undefined) return undefined;
  return container === 'flv' || container === 'ts' ? { channel, container, file } : { channel, file };
}

function pathOf(request: IncomingMessage): string {
  return (request.url ?? '').split('?', 1)[0] ?? '';
}
