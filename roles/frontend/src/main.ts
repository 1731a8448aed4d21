/**
 * The frontend role: takes channels from the backends over RTMP and serves them over HTTP.
 * This file is the composition root; docs/tour/rtmp-to-hls.md walks the path of the data.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { DEFAULT_PART_TARGET_MS } from '@starling/media/hls/segmenter';
import type { Logger } from 'pino';
import type { Registry } from 'prom-client';
import { defaultFlvLimits, FlvFanOut, type FlvLimits } from './flv-fan-out.ts';
import { HlsRoutes, notFound } from './hls-routes.ts';
import { FrontendMetrics } from './metrics.ts';
import { listenForPublishers } from './rtmp-listener.ts';
import { Stream } from './stream.ts';

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
  readonly flvLimits?: Partial<FlvLimits>;
}

export interface Frontend {
  /** The port that backends push to. */
  readonly rtmpPort: number;
  /**
   * Answers requests for `/live/...`.
   * @returns false when the path is not the frontend's
   */
  handleRequest(request: IncomingMessage, response: ServerResponse): boolean;
  /** True when viewers of this channel get a picture at once. */
  isPlayable(channel: string): boolean;
  /** True when every channel that is being pushed here has a window to play. */
  isReady(): boolean;
  close(): Promise<void>;
}

/** A channel stays, with what it has, so long after its last publisher left. */
const STREAM_LINGER_MS = 30_000;
const MAX_CHANNELS = 1000;

interface Channel {
  readonly stream: Stream;
  readonly hls: HlsRoutes;
  readonly flv: FlvFanOut;
}

/**
 * Starts a frontend.
 * @throws the system's error when the RTMP port cannot be opened
 */
export async function startFrontend(config: FrontendConfig): Promise<Frontend> {
  const { logger } = config;
  const channels = new Map<string, Channel>();
  const metrics = new FrontendMetrics(config.registry, () =>
    [...channels.values()].map(({ stream, flv }) => ({
      channel: stream.channel,
      flvViewers: flv.viewerCount,
      windowBytes: stream.window.sizeBytes,
      publishers: stream.publisherCount,
    })),
  );

  const openChannel = (name: string): Channel => {
    const stream = new Stream({
      channel: name,
      partTargetMs: config.partTargetMs ?? DEFAULT_PART_TARGET_MS,
      windowDurationMs: config.windowDurationMs ?? 30_000,
      logger,
    });
    const bytesSent = (protocol: string) => {
      const counter = metrics.bytesSent.labels(name, protocol);
      return (sizeBytes: number) => counter.inc(sizeBytes);
    };
    const channel = {
      stream,
      hls: new HlsRoutes(stream, bytesSent('hls')),
      flv: new FlvFanOut(
        stream,
        { ...defaultFlvLimits, ...config.flvLimits },
        {
          bytesSent: bytesSent('flv'),
          skipped: () => metrics.skippedViewers.inc({ channel: name }),
          evicted: () => metrics.evictedViewers.inc({ channel: name }),
        },
      ),
    };
    channels.set(name, channel);
    return channel;
  };

  const listener = await listenForPublishers({
    host: config.rtmpHost,
    port: config.rtmpPort,
    publishToken: config.publishToken,
    logger,
    openStream: (name) => {
      const known = channels.get(name);
      if (known !== undefined) return known.stream;
      return channels.size < MAX_CHANNELS ? openChannel(name).stream : undefined;
    },
  });

  const sweep = setInterval(() => {
    for (const [name, { stream, hls, flv }] of channels) {
      if (stream.publisherCount > 0 || performance.now() - stream.lastUnitAtMs < STREAM_LINGER_MS) continue;
      hls.close();
      flv.close();
      channels.delete(name);
      logger.info({ channel: name }, 'channel is off the air');
    }
  }, 1000);
  sweep.unref();

  return {
    rtmpPort: listener.port,

    handleRequest(request, response) {
      const path = (request.url ?? '').split('?', 1)[0] ?? '';
      const match = /^\/live\/([a-z0-9-]{1,63})(?:\.(flv)$|\/(.+)$)/.exec(path);
      if (match === null) {
        if (!path.startsWith('/live/')) return false;
        notFound(response, 'The address has the form /live/<channel>/index.m3u8 or /live/<channel>.flv.', 60);
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
      const channel = channels.get(match[1] ?? '');
      if (channel === undefined) notFound(response, 'This channel is off the air.', 1);
      else if (match[2] === undefined) channel.hls.handle(match[3] ?? '', request, response);
      else serveFlv(channel.flv, request, response);
      return true;
    },

    isPlayable: (name) => channels.get(name)?.stream.window.isPlayable ?? false,
    isReady: () => [...channels.values()].every(({ stream }) => stream.window.isPlayable),

    async close() {
      clearInterval(sweep);
      await listener.close();
      for (const { hls, flv } of channels.values()) {
        hls.close();
        flv.close();
      }
      channels.clear();
    },
  };
}

function serveFlv(flv: FlvFanOut, request: IncomingMessage, response: ServerResponse): void {
  if (!flv.isPlayable) return notFound(response, 'This channel has just started. Try again in a moment.', 1);
  // No chunking and no keep-alive: the socket carries nothing but FLV from here on, so that one
  // buffer can be written to all viewers as it is.
  response.shouldKeepAlive = false;
  response.useChunkedEncodingByDefault = false;
  response.writeHead(200, {
    'Access-Control-Allow-Origin': '*',
    'Content-Type': 'video/x-flv',
    'Cache-Control': 'no-store',
    'X-Accel-Buffering': 'no',
  });
  if (request.method === 'HEAD') {
    response.end();
    return;
  }
  response.flushHeaders();
  request.socket.setTimeout(0); // the fan-out has its own deadline
  flv.add(request.socket, performance.now());
}
