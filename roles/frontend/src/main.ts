/**
 * The frontend role: takes channels from the backends over RTMP and serves them over HTTP.
 * This file is the composition root; docs/tour/rtmp-to-hls.md walks the path of the data.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { DEFAULT_PART_TARGET_MS } from '@starling/media/hls/segmenter';
import { IngestGrid } from '@starling/media/ingest-grid';
import {
  type CoordinatorAccess,
  claimedNodeId,
  identityOf,
  isProofOf,
  NodeProver,
  openCoordinator,
} from '@starling/model/node-identity';
import type { Secret } from '@starling/model/secret';
import { forwardTo } from '@starling/net/http-proxy';
import type { RequestHandler } from '@starling/net/http-server';
import type { PlayerSource, PlayHandler, Refusal, RtmpPeer } from '@starling/net/rtmp-server';
import { refuseUpgrade } from '@starling/net/websocket';
import type { Logger } from 'pino';
import type { Registry } from 'prom-client';
import { CatchUp } from './catch-up.ts';
import { CoordinatorLink } from './coordinator-link.ts';
import { DvrRoutes } from './dvr-routes.ts';
import { DvrStore } from './dvr-store.ts';
import { EndlessRoutes } from './endless-routes.ts';
import { defaultFanOutLimits, type FanOutLimits } from './fan-out.ts';
import { answerText, answerUnavailable, notFound } from './hls-answers.ts';
import { HlsRoutes } from './hls-routes.ts';
import { FrontendMetrics } from './metrics.ts';
import { type PeerFrontend, Pulls } from './pulls.ts';
import { Pushers } from './pushers.ts';
import { Relay } from './relay.ts';
import { listenForPublishers } from './rtmp-listener.ts';
import { Stream } from './stream.ts';
import { PictureDrawer, Thumbnail } from './thumbnail.ts';
import { type Viewer, ViewerRegistry } from './viewers.ts';
import {
  type Admission,
  type Pass,
  PUBLIC,
  type Refused,
  shownToken,
  ViewingAccess,
} from './viewing-access.ts';

export interface FrontendConfig {
  /** The address to listen on; all of them when undefined. */
  readonly rtmpHost: string | undefined;
  /** 0 takes a free port. */
  readonly rtmpPort: number;
  /** Who shows it may publish here. A node of the network takes backends that it knows besides, and needs none. */
  readonly publishToken: Secret | undefined;
  readonly logger: Logger;
  readonly registry: Registry;
  readonly windowDurationMs?: number;
  readonly partTargetMs?: number;
  readonly fanOutLimits?: Partial<FanOutLimits>;
  /** Who comes when a channel has as many is refused, where the coordinator says nothing else; without a limit when undefined. */
  readonly maxViewersPerChannel?: number | undefined;
  /** Whom to follow on who may watch; undefined for a frontend that stands alone and serves everything. */
  readonly coordinator?: CoordinatorAccess | undefined;
  /** Keeps what the coordinator said last; undefined to keep nothing. */
  readonly dataDir?: string | undefined;
  /** Of several frontends that share the data folder. */
  readonly workerNumber?: number | undefined;
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
  /**
   * True when it is known who may watch, every channel that is being pushed here has a window to play, and nobody asked it to
   * drain.
   */
  isReady(): boolean;
  /**
   * The other frontends, where a channel is pushed to a few of them only: what is not pushed here is pulled from
   * there while somebody watches it. None where every channel is pushed to all.
   */
  setPeers(peers: readonly PeerFrontend[]): void;
  /**
   * Takes no viewers any more; those on endless answers are sent away one after another, for they would stay for good.
   * @param endlessWithinMs until the last of them is sent away
   */
  drain(endlessWithinMs: number): void;
  /** Takes viewers again. */
  resume(): void;
  /** The channels that are being pushed here now, and whether they can be played. */
  channels(): readonly PushedChannel[];
  /** Everybody who watches here now. */
  viewers(): readonly Viewer[];
  /**
   * Shows a viewer out.
   * @returns false when nobody has this id
   */
  kick(viewerId: string): boolean;
  close(): Promise<void>;
}

export interface PushedChannel {
  readonly name: string;
  readonly isPlayable: boolean;
}

/** A channel stays, with what it has, so long after its last publisher left. */
const STREAM_LINGER_MS = 30_000;
const MAX_CHANNELS = 1000;
/** Below a channel's folder: what is recorded, and the picture of a channel that nobody watches here. */
const ONLY_AT_ORIGINS = /^(?:thumbnail\.jpg|dvr\.json|(?:[a-z0-9-]{1,16}\/)?(?:dvr|event|vod)\.m3u8)$/;
/** Tells an origin that another frontend asks, so that it answers itself (RFC 9110, 7.6.3). */
const VIA = '1.1 starling-frontend';
const DRAINING_TEXT = 'This frontend is about to end. Ask again: another one answers.';
const OFF_THE_AIR_TEXT = 'This channel is off the air.';

interface Channel {
  readonly stream: Stream;
  readonly grid: IngestGrid;
  encoder: RtmpPeer | undefined;
  pushCount: number;
  /** Hands it on to other frontends; only where they may ask for it. */
  relay: Relay | undefined;
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
  let link: CoordinatorLink | undefined;
  const identity = config.coordinator && identityOf(config.coordinator);
  const prover = identity && new NodeProver(identity);
  const pushers = new Pushers(identity?.nodeId);
  let farewells: NodeJS.Timeout[] | undefined;
  let isClosing = false;
  const access = new ViewingAccess({ isAlone: config.coordinator === undefined });
  const viewers = new ViewerRegistry({
    maxViewersOf: (channel) => access.maxViewersOf(channel) ?? config.maxViewersPerChannel,
    mayStay: (channel, pass) => access.mayStay(channel, pass),
    onStretch: (stretch) => link?.owe(stretch),
  });
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
      mediaAddress: (channel, file) => access.mediaAddress(channel, file),
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
      pushCount: 0,
      relay: undefined,
      grid: new IngestGrid({
        epochUnixMs: Math.floor(Date.now() / 1000) * 1000,
        programmeId: `live-${name}`,
      }),
      catchUp,
      hls: new HlsRoutes(stream, viewers, bytesSent('hls'), {
        mediaAddress: (file) => access.mediaAddress(name, file),
      }),
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

  const openOrFind = (name: string): Channel | undefined =>
    channels.get(name) ?? (channels.size < MAX_CHANNELS ? openChannel(name) : undefined);

  let hasPeers = false;
  /** To the peers' HTTP ports. */
  const forwards = new Map<string, RequestHandler>();
  const isPushed = (name: string) => (channels.get(name)?.pushCount ?? 0) > 0;
  const isWatched = (name: string) => viewers.countsOf(name).size > 0;
  const pulls = new Pulls({
    ...{ logger, isPushed, isWatched },
    openStream: (name) => openOrFind(name)?.stream,
    prove: async (nodeId) => (await prover?.proofFor(`pull:${nodeId}`)) ?? '',
  });
  /** The public keys of the other frontends, by node. */
  let peerKeys: ReadonlyMap<string, string> = new Map();
  const openPull = async (name: string, proof: string): Promise<PlayerSource | Refusal> => {
    const nodeId = claimedNodeId(proof) ?? '';
    const publicKey = peerKeys.get(nodeId);
    const isKnown =
      publicKey !== undefined &&
      (await isProofOf({ nodeId, publicKey }, proof, `pull:${identity?.nodeId}`, Date.now()));
    if (!isKnown) {
      return { code: 'NetStream.Play.Failed', description: 'Only frontends of this network pull from here.' };
    }
    const channel = channels.get(name);
    if (channel?.relay && isPushed(name)) return (player) => channel.relay?.serve(player);
    return { code: 'NetStream.Play.StreamNotFound', description: 'No backend pushes this channel here.' };
  };
  /** For who wants to watch: until there is something to see, or it has to do without. */
  const window = (name: string): Promise<void> | undefined => {
    const channel = channels.get(name);
    if (channel?.stream.isPlayable === true && isPushed(name)) return undefined;
    return pulls.want(name);
  };

  const closeChannel = ({ stream, hls, endless, catchUp, relay }: Channel) => {
    relay?.close();
    hls.close();
    endless.close();
    catchUp.close();
    channels.delete(stream.channel);
  };

  const spoolName = `viewer-sessions${config.workerNumber === undefined ? '' : `-${config.workerNumber}`}.spool`;
  link =
    config.coordinator &&
    (await CoordinatorLink.open({
      client: openCoordinator(config.coordinator),
      dataDir: config.dataDir,
      spoolPath: config.dataDir && join(config.dataDir, spoolName),
      viewers,
      logger,
      onState(state) {
        access.update(state);
        pushers.update(state);
        for (const { hls } of channels.values()) hls.forgetPlaylists();
        viewers.sweep();
      },
    }));

  /** Why nobody more is let in, on this frontend or on all together; undefined where there is room. */
  const whyFull = (channel: string, pass: Pass | undefined): string | undefined =>
    (farewells && DRAINING_TEXT) ?? viewers.whyFull(channel, pass) ?? link?.whyFull(channel, pass?.tokenId);

  const decidePlay = (name: string, admission: Admission): PlayerSource | Refusal => {
    const endless = channels.get(name)?.endless;
    if (!endless?.isPlayable) {
      return { code: 'NetStream.Play.StreamNotFound', description: 'There is no such channel on the air.' };
    }
    if ('status' in admission) return { code: 'NetStream.Play.Failed', description: admission.text };
    const { pass } = admission;
    const full = whyFull(name, pass);
    if (full !== undefined) return { code: 'NetStream.Play.Failed', description: full };
    return (player) => endless.play(pass, player);
  };

  const onPlay: PlayHandler = ({ app, streamName, query }) => {
    const name = app === 'live' ? streamName : '';
    const token = query.get('token');
    const admission = access.admit(name, token === undefined ? undefined : { token, isInAddress: true });
    return withWindow(name, admission, (settled) => decidePlay(name, settled));
  };

  /** Goes on when it is known whether somebody may watch, and then when there is something to see: at once where it can be. */
  const withWindow = <T>(
    name: string,
    admission: Admission | Promise<Admission>,
    goOn: (admission: Admission) => T,
  ): T | Promise<T> => {
    if (admission instanceof Promise) return admission.then((settled) => withWindow(name, settled, goOn));
    const waiting = 'status' in admission ? undefined : window(name);
    return waiting === undefined ? goOn(admission) : waiting.then(() => goOn(admission));
  };

  const serve = (
    { channel: name, container, file }: Address,
    admission: Admission,
    request: IncomingMessage,
    response: ServerResponse,
  ): void => {
    if ('status' in admission) return refuse(admission, response);
    const { pass } = admission;
    const isBeginning = container !== undefined || /^\w+\.m3u8$/.test(file);
    const full = isBeginning ? whyFull(name, pass) : undefined;
    if (full !== undefined) return answerUnavailable(response, full);
    if (dvr?.handle(name, file, pass, request, response)) return;
    const channel = channels.get(name); // as it is now, after the admission
    if (channel === undefined) return notFound(response, OFF_THE_AIR_TEXT, 1);
    if (container !== undefined) channel.endless.handle(container, request, response, pass);
    else if (file === 'thumbnail.jpg') {
      void channel.thumbnail.handle(request, response, pass === undefined ? 'public' : 'private');
    } else channel.hls.handle(file, request, response, pass);
  };

  /**
   * Has an origin of a channel answer: it has what a frontend that pulls has not.
   * @returns false where this frontend is to answer itself
   */
  const askOrigin = (name: string, request: IncomingMessage, response: ServerResponse): boolean => {
    if (!hasPeers || isPushed(name) || request.headers.via?.includes(VIA) === true) return false;
    const origin = pulls.originOf(name);
    if (origin?.httpPort === undefined) return false;
    const key = `${origin.host} ${origin.httpPort}`;
    const forward = forwards.get(key) ?? forwardTo(origin.httpPort, origin.host, VIA);
    forwards.set(key, forward);
    forward(request, response);
    return true;
  };

  const serveMedia = (
    name: string,
    file: string,
    request: IncomingMessage,
    response: ServerResponse,
  ): void => {
    const channel = channels.get(name);
    if (dvr?.handleMedia(name, file, channel?.stream, request, response)) return;
    if (hasLeft(file, channel?.stream) && askOrigin(name, request, response)) return;
    if (channel === undefined) notFound(response, OFF_THE_AIR_TEXT, 1);
    else channel.hls.handle(file, request, response);
  };

  const listener = await listenForPublishers({
    host: config.rtmpHost,
    port: config.rtmpPort,
    publishToken: config.publishToken,
    pushers,
    logger,
    onRefused: (reason) => metrics.refusedPushes.inc({ reason }),
    onPlay,
    openChannel(name) {
      const channel = openOrFind(name);
      if (hasPeers && channel !== undefined) channel.relay ??= new Relay(channel.stream);
      return channel;
    },
    openPull,
    onPushEnd(name) {
      const channel = channels.get(name);
      if (channel === undefined || isPushed(name)) return;
      channel.relay?.close(); // who pulls it goes to another origin at once
      channel.relay = undefined;
      if (isWatched(name)) void pulls.want(name);
    },
  }).catch(async (error: unknown) => {
    await link?.close();
    await recordings?.close();
    throw error;
  });

  const sweep = setInterval(() => {
    viewers.sweep();
    recordings?.trim();
    for (const channel of channels.values()) {
      const { stream } = channel;
      if (stream.publisherCount > 0 || performance.now() - stream.lastUnitAtMs < STREAM_LINGER_MS) continue;
      if (pulls.isPulling(stream.channel)) continue;
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
      if (isClosing) {
        // That its channels are gone says nothing of those of the network: a balancer asks another frontend.
        request.socket.destroy();
        return true;
      }
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
          'Access-Control-Allow-Headers': 'Range, Authorization',
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
      if (hasBody(request)) {
        response.shouldKeepAlive = false;
        answerText(response, 413, 'Send no body here.', { 'Cache-Control': 'no-store' });
        return true;
      }
      if (!hasPeers && !channels.has(address.channel) && dvr === undefined) {
        notFound(response, OFF_THE_AIR_TEXT, 1);
      } else if (ONLY_AT_ORIGINS.test(address.file) && askOrigin(address.channel, request, response)) {
        return true;
      } else if (isMediaFile(address.file)) {
        const file = access.mediaFile(address.channel, address.file);
        if (file === undefined) notFound(response, 'No such file in this channel.', 1);
        else
          void withWindow(address.channel, PUBLIC, () =>
            serveMedia(address.channel, file, request, response),
          );
      } else {
        const admission = access.admit(address.channel, shownToken(request));
        void withWindow(address.channel, admission, (settled) => serve(address, settled, request, response));
      }
      return true;
    },

    handleUpgrade(request, socket, head) {
      const path = pathOf(request);
      if (!path.startsWith('/live/')) return false;
      if (isClosing) {
        socket.destroy();
        return true;
      }
      const address = parsePath(path);
      if (address?.container !== 'flv' || (!hasPeers && !channels.has(address.channel))) {
        refuseUpgrade(socket, STATUS_LINES[404]);
        return true;
      }
      const upgrade = (admission: Admission) => {
        const channel = channels.get(address.channel); // as it is now, after the admission
        if (socket.destroyed) return;
        if (channel === undefined) return refuseUpgrade(socket, STATUS_LINES[404]);
        if ('status' in admission) return refuseUpgrade(socket, STATUS_LINES[admission.status]);
        if (whyFull(address.channel, admission.pass) !== undefined) {
          return refuseUpgrade(socket, STATUS_LINES[503]);
        }
        channel.endless.handleUpgrade(request, socket, head, admission.pass);
      };
      void withWindow(address.channel, access.admit(address.channel, shownToken(request)), upgrade);
      return true;
    },

    onPlay,

    isPlayable: (name) => channels.get(name)?.stream.isPlayable ?? false,
    isReady: () =>
      farewells === undefined &&
      access.isKnown &&
      [...channels.values()].every(({ stream, pushCount }) => pushCount === 0 || stream.isPlayable),

    setPeers(peers) {
      hasPeers = peers.length > 0;
      peerKeys = new Map(peers.map(({ nodeId, publicKey }) => [nodeId, publicKey]));
      forwards.clear();
      pulls.setPeers(peers);
      for (const channel of channels.values()) {
        if (hasPeers && channel.pushCount > 0) channel.relay ??= new Relay(channel.stream);
        else if (!hasPeers) {
          channel.relay?.close();
          channel.relay = undefined;
        }
      }
    },

    channels: () =>
      [...channels.values()]
        .filter(({ pushCount }) => pushCount > 0)
        .map(({ stream }) => ({ name: stream.channel, isPlayable: stream.isPlayable })),

    drain(endlessWithinMs) {
      if (farewells !== undefined) return;
      const endless = viewers.list().filter(({ protocol }) => protocol !== 'hls');
      farewells = endless.map(({ id }, index) =>
        setTimeout(() => viewers.kick(id), (endlessWithinMs * index) / endless.length),
      );
    },
    resume() {
      for (const farewell of farewells ?? []) clearTimeout(farewell);
      farewells = undefined;
    },

    viewers: () => viewers.list(),
    kick: (viewerId) => viewers.kick(viewerId),

    async close() {
      isClosing = true;
      clearInterval(sweep);
      for (const farewell of farewells ?? []) clearTimeout(farewell);
      pulls.close();
      await listener.close();
      for (const channel of channels.values()) closeChannel(channel);
      viewers.closeAll();
      await link?.close();
      await recordings?.close();
    },
  };
}

const STATUS_LINES = {
  401: '401 Unauthorized',
  403: '403 Forbidden',
  404: '404 Not Found',
  503: '503 Service Unavailable',
} as const;

function refuse({ status, text }: Refused, response: ServerResponse): void {
  if (status === 404) return notFound(response, text, 1);
  if (status === 503) return answerUnavailable(response, text);
  answerText(response, status, text, {
    'Cache-Control': 'no-store',
    // RFC 6750, section 3.
    ...(status === 401 ? { 'WWW-Authenticate': 'Bearer realm="starling"' } : {}),
  });
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

/** Whether a media file is older than the live window, so that only a recording may have it. */
function hasLeft(file: string, stream: Stream | undefined): boolean {
  const [, rendition = '', number, initId] =
    /^([a-z0-9-]{1,16})\/(?:(\d{1,15})\.m4s|init-([0-9a-f]{16})\.mp4)$/.exec(file) ?? [];
  const window = stream?.rendition(rendition)?.window;
  if (initId !== undefined) return window?.init(initId) === undefined;
  if (number === undefined) return false;
  const oldest = window?.segments[0]?.cue.mediaSequenceNumber;
  return oldest === undefined || Number(number) < oldest;
}

function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0;
}

/** Of HLS: protected by its name, not by a token. */
const isMediaFile = (file: string): boolean => /\.(?:m4s|mp4)$/.test(file);

function pathOf(request: IncomingMessage): string {
  return (request.url ?? '').split('?', 1)[0] ?? '';
}
