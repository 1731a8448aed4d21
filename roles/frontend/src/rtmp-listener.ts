/**
 * Takes pushes from backends: a publish to `/live/<channel>` with the frontend's token. Encoders
 * publish to a backend, never here. Players may come here.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { FlvDemuxer } from '@starling/media/flv/demux';
import { type PlayHandler, RtmpServer } from '@starling/net/rtmp-server';
import type { Logger } from 'pino';
import type { Stream } from './stream.ts';

export interface RtmpListenerOptions {
  /** The address to listen on; all of them when undefined. */
  readonly host: string | undefined;
  readonly port: number;
  readonly publishToken: string;
  readonly logger: Logger;
  readonly onPlay: PlayHandler;
  /** The stream of a channel; undefined when there are too many. */
  openStream(channel: string): Stream | undefined;
}

const digest = (text: string) => createHash('sha256').update(text).digest();

/** @throws the system's error when the port cannot be opened */
export function listenForPublishers(options: RtmpListenerOptions): Promise<RtmpServer> {
  const { logger } = options;
  const expectedToken = digest(options.publishToken);
  return RtmpServer.listen({
    host: options.host,
    port: options.port,
    logger,
    handlers: {
      onPlay: options.onPlay,
      onPublish({ app, streamName, query }, peer) {
        if (app !== 'live' || !/^[a-z0-9-]{1,63}$/.test(streamName)) {
          return { code: 'NetStream.Publish.BadName', description: 'Publish to /live/<channel>.' };
        }
        if (!timingSafeEqual(digest(query.get('token') ?? ''), expectedToken)) {
          return {
            code: 'NetStream.Publish.Unauthorized',
            description: 'This port takes pushes from backends only. Encoders publish to a backend.',
          };
        }
        const stream = options.openStream(streamName);
        if (stream === undefined) {
          return {
            code: 'NetStream.Publish.BadName',
            description: 'This frontend has all the channels it can take.',
          };
        }
        logger.info({ channel: streamName, address: peer.address }, 'a backend pushes the channel');
        const demuxer = new FlvDemuxer();
        const publisher = stream.addPublisher();
        return {
          message(message) {
            const nowMs = performance.now();
            for (const event of demuxer.push(message)) publisher.event(event, nowMs);
          },
          end() {
            publisher.end();
            logger.info(
              { channel: streamName, address: peer.address },
              'a backend stopped pushing the channel',
            );
          },
        };
      },
    },
  });
}
