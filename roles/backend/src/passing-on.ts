/**
 * An encoder that came to a backend which does not run its channel, as through a balancer that knows nothing of channels:
 * what it sends is passed on to the backend that does, message by message and unchanged.
 */
import type { PublisherSink, Refusal, RtmpPeer } from '@starling/net/rtmp-server';
import type { Logger } from 'pino';
import { RtmpPublishing } from './rtmp-publishing.ts';

export interface IngestAddress {
  readonly host: string;
  readonly port: number;
}

/** The query parameter that says so of a publish: it is taken or refused, and never passed on once more. */
export const PASSED_ON = 'passed-on';
const CONNECT_DEADLINE_MS = 4000;
/** Two seconds of 16 Mb/s: whoever takes so little for so long does not keep up. */
const MAX_WAITING_BYTES = 4 * 1024 * 1024;

/** Resolves with where messages go when the other backend has accepted, with its refusal otherwise. Never rejects. */
export function passOn(
  { stream, key }: { readonly stream: string; readonly key: string },
  { host, port }: IngestAddress,
  peer: RtmpPeer,
  logger: Logger,
): Promise<PublisherSink | Refusal> {
  const says = { stream, address: peer.address, backend: `${host}:${port}` };
  return new Promise((resolve) => {
    let isAccepted = false;
    const target = {
      ...{ host, port, tls: undefined, app: 'live' },
      streamName: `${stream}?key=${encodeURIComponent(key)}&${PASSED_ON}=1`,
      tcUrl: `rtmp://${host.includes(':') ? `[${host}]` : host}:${port}/live`,
    };
    const publishing = new RtmpPublishing(target, CONNECT_DEADLINE_MS, {
      onReady() {
        isAccepted = true;
        logger.info(says, 'encoder is passed on');
        resolve({
          message(message) {
            if (publishing.queuedBytes <= MAX_WAITING_BYTES) return publishing.send([message]);
            publishing.abandon();
            logger.warn(says, 'the backend that the encoder is passed on to does not keep up');
            peer.disconnect('the backend that runs the channel does not keep up');
          },
          end() {
            publishing.close();
            logger.info(says, 'encoder that was passed on has left');
          },
        });
      },
      onDrain() {},
      onReconnectRequest() {
        // It stops: the encoder connects anew, and is sent where the channel then runs.
        peer.disconnect('the backend that runs the channel stops');
      },
      onEnd(reason) {
        if (isAccepted) return peer.disconnect(`the backend that runs the channel: ${reason}`);
        logger.warn({ ...says, reason }, 'encoder cannot be passed on');
        resolve({
          code: 'NetStream.Publish.BadName',
          description: `Stream ${stream} cannot be published now. Try again.`,
        });
      },
    });
  });
}
