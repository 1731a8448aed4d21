/**
 * Takes pushes: a publish to `/live/<channel>` with the proof of a backend that the network knows, or with the frontend's
 * token. In a network they come from backends, with cues. A frontend that stands alone may be given an encoder's stream as well;
 * it has none, so the frontend itself puts it on a timeline and writes them. Players may come here too.
 */
import type { StreamEvent } from '@starling/media/access-unit';
import { FlvDemuxer } from '@starling/media/flv/demux';
import type { IngestGrid } from '@starling/media/ingest-grid';
import { openSecret, type Secret } from '@starling/model/secret';
import {
  type PlayerSource,
  type PlayHandler,
  type PublisherSink,
  type Refusal,
  type RtmpPeer,
  RtmpServer,
} from '@starling/net/rtmp-server';
import type { Logger } from 'pino';
import type { Pushers } from './pushers.ts';
import type { Stream } from './stream.ts';

export interface RtmpListenerOptions {
  /** The address to listen on; all of them when undefined. */
  readonly host: string | undefined;
  readonly port: number;
  /** Who shows it may publish; nobody by a token when undefined. */
  readonly publishToken: Secret | undefined;
  /** Which backends may push. */
  readonly pushers: Pushers;
  readonly logger: Logger;
  readonly onPlay: PlayHandler;
  /** The channel to push to; undefined when there are too many. */
  openChannel(channel: string): PushTarget | undefined;
  /** What a frontend gets that pulls a channel from here and shows a proof of who it is. */
  openPull(channel: string, proof: string): Promise<PlayerSource | Refusal>;
  /** A publisher has left. */
  onPushEnd(channel: string): void;
  /** A push was refused. */
  onRefused(reason: 'proof' | 'token' | 'address' | 'full'): void;
}

export interface PushTarget {
  readonly stream: Stream;
  /** For an encoder that sends no cues; there can be one at a time. */
  readonly grid: IngestGrid;
  encoder: RtmpPeer | undefined;
  /** Publishers on this frontend's own port, not those that it pulls from. */
  pushCount: number;
}

/** @throws the system's error when the port cannot be opened */
export function listenForPublishers(options: RtmpListenerOptions): Promise<RtmpServer> {
  const { logger, pushers, publishToken, onRefused } = options;
  const secret = publishToken === undefined ? undefined : openSecret(publishToken);
  const unauthorised = (reason: 'proof' | 'token') => {
    onRefused(reason);
    return {
      code: 'NetStream.Publish.Unauthorized',
      description: 'This port takes pushes from backends only. Encoders publish to a backend.',
    };
  };

  const accept = (streamName: string, peer: RtmpPeer): PublisherSink | Refusal => {
    const target = options.openChannel(streamName);
    if (target === undefined) {
      onRefused('full');
      return {
        code: 'NetStream.Publish.BadName',
        description: 'This frontend has all the channels it can take.',
      };
    }
    logger.info({ channel: streamName, address: peer.address }, 'channel is being pushed');
    const demuxer = new FlvDemuxer();
    const publisher = target.stream.addPublisher();
    target.pushCount++;
    let isBackend = false;
    const pass = (events: readonly StreamEvent[]) => {
      const nowMs = performance.now();
      for (const event of events) publisher.event(event, nowMs);
    };
    return {
      message(message) {
        for (const event of demuxer.push(message)) {
          if (event.type === 'timeline') isBackend = true; // a backend says it first of all
          if (isBackend) {
            pass([event]);
            continue;
          }
          target.encoder ??= peer;
          if (target.encoder !== peer) return peer.disconnect('another encoder publishes this channel');
          pass(target.grid.push(event, Date.now()));
        }
      },
      end() {
        if (target.encoder === peer) {
          target.encoder = undefined;
          pass(target.grid.endOfPublisher());
        }
        publisher.end();
        target.pushCount--;
        options.onPushEnd(streamName);
        logger.info({ channel: streamName, address: peer.address }, 'channel is no longer being pushed');
      },
    };
  };

  /** Of a backend: the push ends when the network does not know it any more. */
  const acceptBackend = (nodeId: string, streamName: string, peer: RtmpPeer): PublisherSink | Refusal => {
    const sink = accept(streamName, peer);
    if ('code' in sink) return sink;
    const leave = pushers.add(nodeId, peer);
    return {
      message: (message) => sink.message(message),
      end() {
        leave();
        sink.end();
      },
    };
  };
  return RtmpServer.listen({
    host: options.host,
    port: options.port,
    logger,
    handlers: {
      onPlay(target, peer) {
        const { app, streamName, query } = target;
        const proof = query.get('pull');
        if (app !== 'live' || proof === undefined) return options.onPlay(target, peer);
        return options.openPull(streamName, proof);
      },
      onPublish({ app, streamName, query }, peer) {
        if (app !== 'live' || !/^[a-z0-9-]{1,63}$/.test(streamName)) {
          onRefused('address');
          return { code: 'NetStream.Publish.BadName', description: 'Publish to /live/<channel>.' };
        }
        const proof = query.get('proof');
        if (proof !== undefined) {
          return pushers
            .nodeIdOf(proof)
            .then((nodeId) =>
              nodeId === undefined ? unauthorised('proof') : acceptBackend(nodeId, streamName, peer),
            );
        }
        if (secret?.accepts(query.get('token') ?? '') !== true) return unauthorised('token');
        return accept(streamName, peer);
      },
    },
  });
}
