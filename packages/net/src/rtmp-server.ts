/**
 * An RTMP server on a TCP socket: connections, limits, deadlines and the log. What a publish or a
 * play means is the role's business (`RtmpHandlers`); the protocol is `@starling/media/rtmp/session`.
 */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer } from 'node:tls';
import { MediaError } from '@starling/media/error';
import type { FlvMessage } from '@starling/media/flv/tag';
import { type PublishTarget, RtmpServerSession, SHARED_STREAM_ID } from '@starling/media/rtmp/session';
import type { Logger } from 'pino';
import { limitKey } from './address-limits.ts';
import { RefusalLog } from './refusal-log.ts';

const HANDSHAKE_BYTES = 1528;
const STOPPING = 'this server is stopping';

/** Takes what an accepted publisher sends. */
export interface PublisherSink {
  /** @throws MediaError when the message is malformed: the connection is closed and the error logged */
  message(message: FlvMessage): void;
  /** The publisher left or was cut off; called once. */
  end(): void;
}

/** A refusal in RTMP's own words: `onStatus` with this code and description. */
export interface Refusal {
  readonly code: string;
  readonly description: string;
}

/** A player that has been accepted. */
export interface RtmpPlayer {
  /** Takes whole RTMP messages of message stream 1, cut by `SharedChunkWriter`; the writer bounds what waits in it. */
  readonly socket: Socket;
  /** Whether it said that it takes a codec of Enhanced RTMP, named by its FourCC. */
  canReceive(kind: 'video' | 'audio', fourCc: string): boolean;
  /** The bytes that tell the player that the stream is over. */
  farewell(): Uint8Array | undefined;
}

/** Serves an accepted player from now on, until its socket closes. */
export type PlayerSource = (player: RtmpPlayer) => void;

type PlayDecision = PlayerSource | Refusal;

/** Decides on a play, at once or soon: the player hears nothing before. A promise is not to be rejected. */
export type PlayHandler = (target: PublishTarget, peer: RtmpPeer) => PlayDecision | Promise<PlayDecision>;

type PublishDecision = PublisherSink | Refusal;

export interface RtmpHandlers {
  /**
   * Decides on a publish, at once or soon: the publisher hears nothing before, and who has left meanwhile has `end` called at
   * once. A promise is not to be rejected. `disconnect` closes the connection later, from outside.
   */
  onPublish(target: PublishTarget, peer: RtmpPeer): PublishDecision | Promise<PublishDecision>;
  /** Undefined where nothing can be played. */
  readonly onPlay?: PlayHandler | undefined;
}

export interface RtmpPeer {
  readonly address: string;
  disconnect(reason: string): void;
}

export interface RtmpServerOptions {
  /** The address to listen on; all of them when undefined. */
  readonly host: string | undefined;
  readonly port: number;
  /** In PEM: the port then speaks RTMPS, which is RTMP over TLS. */
  readonly tls?: { readonly certificate: string; readonly privateKey: string } | undefined;
  readonly logger: Logger;
  readonly handlers: RtmpHandlers;
  readonly limits?: Partial<RtmpLimits>;
}

export interface RtmpLimits {
  /** Open connections in all; a further one is closed at once. */
  readonly maxConnections: number;
  /** Open connections from one address; a household or an office, or a balancer that passes RTMP on, is one. */
  readonly maxConnectionsPerAddress: number;
  /** Of these, those that have not been accepted as publishers or players yet, also in the midst of a TLS handshake. */
  readonly maxPendingPerAddress: number;
  /** From the TCP connection to an accepted publish or play. */
  readonly requestDeadlineMs: number;
  /** Silence of an accepted publisher after which it is cut off. */
  readonly idleTimeoutMs: number;
  readonly maxMessageBytes: number;
  /** What may wait to be written to a peer that does not read, beside the media of a player. */
  readonly maxQueuedOutputBytes: number;
  /** From asking a peer to connect anew, when the server stops, to cutting it off. */
  readonly reconnectDeadlineMs: number;
}

const defaultLimits: RtmpLimits = {
  maxConnections: 4096,
  maxConnectionsPerAddress: 2048,
  maxPendingPerAddress: 256,
  requestDeadlineMs: 10_000,
  idleTimeoutMs: 15_000,
  maxMessageBytes: 8 * 1024 * 1024,
  maxQueuedOutputBytes: 256 * 1024,
  reconnectDeadlineMs: 1000,
};

/** A listening RTMP server. */
export class RtmpServer {
  readonly #server: Server;
  readonly #logger: Logger;
  readonly #handlers: RtmpHandlers;
  readonly #limits: RtmpLimits;
  readonly #connections = new Set<Connection>();
  /** By {@link limitKey}. */
  readonly #usageByAddress = new Map<string, Usage>();
  /** Let in at the door and not settled yet, by address and port. */
  readonly #pendingPeers = new Set<string>();
  readonly #refusals: RefusalLog;

  private constructor(options: RtmpServerOptions) {
    this.#logger = options.logger;
    this.#refusals = new RefusalLog(options.logger, 'too many RTMP connections: refused');
    this.#handlers = options.handlers;
    this.#limits = { ...defaultLimits, ...options.limits };
    const { tls } = options;
    this.#server =
      tls === undefined
        ? createServer({ noDelay: true })
        : createTlsServer({
            noDelay: true,
            cert: tls.certificate,
            key: tls.privateKey,
            minVersion: 'TLSv1.2',
            handshakeTimeout: this.#limits.requestDeadlineMs,
          }).on('tlsClientError', (_error, socket) => socket.destroy());
    this.#server.on('connection', (socket) => this.#letIn(socket));
    this.#server.on(tls === undefined ? 'connection' : 'secureConnection', (socket) => this.#accept(socket));
    // Those in the midst of the TLS handshake count, too.
    this.#server.maxConnections = this.#limits.maxConnections;
    this.#server.on('drop', (peer) => this.#refusals.add(peer?.remoteAddress ?? 'unknown'));
  }

  /**
   * Opens the port.
   * @throws the system's error, for instance EADDRINUSE
   */
  static async listen(options: RtmpServerOptions): Promise<RtmpServer> {
    const server = new RtmpServer(options);
    // Among the workers of a cluster each has a port of its own, also when it asks for any free one.
    server.#server.listen({ port: options.port, host: options.host, exclusive: true });
    await once(server.#server, 'listening');
    server.#server.on('error', (error) => options.logger.error({ err: error }, 'RTMP port failed'));
    return server;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get connectionCount(): number {
    return this.#connections.size;
  }

  /**
   * Stops listening and closes every connection. Peers that understand it are asked to connect anew, so that they
   * leave where it suits them, at a key frame: they are served until then, or until their deadline.
   */
  async close(): Promise<void> {
    if (!this.#server.listening) return;
    const closed = once(this.#server, 'close');
    this.#server.close();
    for (const connection of this.#connections) {
      if (!connection.askToReconnect()) connection.disconnect(STOPPING);
    }
    const deadline = setTimeout(() => {
      for (const connection of this.#connections) connection.disconnect(STOPPING);
    }, this.#limits.reconnectDeadlineMs);
    await closed;
    clearTimeout(deadline);
  }

  /** At the door, before any handshake: counts a connection, until it closes. */
  #letIn(socket: Socket): void {
    const { remoteAddress } = socket;
    if (remoteAddress === undefined) return void socket.destroy(); // it has closed already
    const key = limitKey(remoteAddress);
    const usage = this.#usageByAddress.get(key) ?? { connections: 0, pending: 0 };
    if (
      usage.connections >= this.#limits.maxConnectionsPerAddress ||
      usage.pending >= this.#limits.maxPendingPerAddress
    ) {
      socket.destroy();
      this.#refusals.add(remoteAddress);
      return;
    }
    usage.connections++;
    usage.pending++;
    this.#usageByAddress.set(key, usage);
    const peer = peerOf(socket);
    this.#pendingPeers.add(peer);
    socket.once('close', () => {
      this.#settle(key, peer);
      usage.connections--;
      if (usage.connections === 0) this.#usageByAddress.delete(key);
    });
  }

  /** The peer has become a publisher or a player, or has left before it did. */
  #settle(key: string, peer: string): void {
    const usage = this.#usageByAddress.get(key);
    if (this.#pendingPeers.delete(peer) && usage !== undefined) usage.pending--;
  }

  /** After the TLS handshake, where there is one. */
  #accept(socket: Socket): void {
    const peer = peerOf(socket);
    if (!this.#pendingPeers.has(peer)) return void socket.destroy(); // refused at the door, or gone
    const address = socket.remoteAddress ?? 'unknown';
    const connection = new Connection(socket, address, {
      logger: this.#logger,
      handlers: this.#handlers,
      limits: this.#limits,
      onSettled: () => this.#settle(limitKey(address), peer),
      onClosed: () => this.#connections.delete(connection),
    });
    this.#connections.add(connection);
  }
}

/** What one address has open. */
interface Usage {
  connections: number;
  pending: number;
}

/** The same for a TLS connection and the TCP connection below it. */
const peerOf = ({ remoteAddress, remotePort }: Socket): string => `${remoteAddress} ${remotePort}`;

interface ConnectionOptions {
  readonly logger: Logger;
  readonly handlers: RtmpHandlers;
  readonly limits: RtmpLimits;
  /** The connection became a publisher or a player, or closed before it did. */
  readonly onSettled: () => void;
  readonly onClosed: () => void;
}

class Connection implements RtmpPeer {
  readonly address: string;
  readonly #socket: Socket;
  readonly #options: ConnectionOptions;
  readonly #session: RtmpServerSession;
  readonly #requestDeadline: NodeJS.Timeout;
  #sink: PublisherSink | undefined;
  /** Of this connection's own words, since its socket was last empty. */
  #queuedOutputBytes = 0;
  #isSettled = false;
  #isClosed = false;

  constructor(socket: Socket, address: string, options: ConnectionOptions) {
    this.#socket = socket;
    this.address = address;
    this.#options = options;
    this.#session = new RtmpServerSession({
      handshakeRandomBytes: randomBytes(HANDSHAKE_BYTES),
      maxMessageBytes: options.limits.maxMessageBytes,
    });
    const { requestDeadlineMs, idleTimeoutMs } = options.limits;
    this.#requestDeadline = setTimeout(
      () => this.disconnect(`no publish or play within ${requestDeadlineMs / 1000} s`, 'info'),
      requestDeadlineMs,
    );
    socket.setTimeout(idleTimeoutMs, () => this.disconnect(`silent for ${idleTimeoutMs / 1000} s`));
    socket.on('data', (bytes) => this.#receive(bytes));
    socket.on('error', () => {}); // 'close' follows and cleans up; a reset by the peer is no event of note
    socket.on('close', () => this.#cleanUp());
  }

  /** @returns false where the peer does not understand, or has nothing to go on with: it is told nothing */
  askToReconnect(): boolean {
    const { phase } = this.#session.state;
    if (this.#isClosed || (phase !== 'publishing' && phase !== 'playing')) return false;
    if (!this.#session.requestReconnect()) return false;
    this.#flush();
    return true;
  }

  disconnect(reason: string, level: 'info' | 'warn' = 'warn'): void {
    if (this.#isClosed) return;
    this.#options.logger[level]({ address: this.address, reason }, 'RTMP connection closed');
    this.#socket.destroy();
    this.#cleanUp();
  }

  #receive(bytes: Uint8Array): void {
    try {
      for (const event of this.#session.receive(bytes)) {
        if (this.#isClosed) return;
        switch (event.type) {
          case 'publish':
            this.#publish(event.target);
            break;
          case 'play':
            this.#play(event.target);
            break;
          case 'message':
            this.#sink?.message(event.message);
            break;
          case 'unpublish':
            this.#endSink();
            this.#flush();
            this.#socket.end();
            return;
          case 'connect':
            break;
        }
      }
      this.#flush();
    } catch (error) {
      if (!(error instanceof MediaError)) throw error;
      this.disconnect(error.message);
    }
  }

  #publish(target: PublishTarget): void {
    const decision = this.#options.handlers.onPublish(target, this);
    if (!(decision instanceof Promise)) return this.#answerPublish(target, decision);
    this.#socket.pause(); // what the publisher says next comes after the answer
    void decision.then((decided) => {
      const hasLeft = this.#isClosed || this.#session.state.phase !== 'requested';
      if (!this.#isClosed) this.#socket.resume();
      if (!hasLeft) {
        this.#answerPublish(target, decided);
        this.#flush();
      } else if (!('code' in decided)) decided.end();
    });
  }

  #answerPublish(target: PublishTarget, decision: PublishDecision): void {
    if ('code' in decision) {
      this.#session.rejectPublish(decision.code, decision.description);
      this.#refused('publish', target, decision);
      return;
    }
    this.#sink = decision;
    this.#session.acceptPublish();
    this.#settle();
  }

  #play(target: PublishTarget): void {
    const decision = this.#decidePlay(target);
    if (!(decision instanceof Promise)) return this.#answerPlay(target, decision);
    this.#socket.pause(); // what the player says next comes after the answer
    void decision.then((decided) => {
      if (this.#isClosed) return;
      this.#socket.resume();
      if (this.#session.state.phase !== 'requested') return; // it withdrew the request
      this.#answerPlay(target, decided);
      this.#flush();
    });
  }

  #answerPlay(target: PublishTarget, decision: PlayDecision): void {
    if (typeof decision !== 'function') {
      this.#session.rejectPlay(decision.code, decision.description);
      this.#refused('play', target, decision);
      return;
    }
    this.#session.acceptPlay();
    this.#settle();
    this.#flush();
    if (this.#isClosed || this.#session.state.phase !== 'playing') return; // it withdrew the request at once
    this.#socket.setTimeout(0); // players have nothing to say; whoever writes to it has a deadline of its own
    decision({
      socket: this.#socket,
      canReceive: (kind, fourCc) => this.#session.canReceive(kind, fourCc),
      farewell: () => {
        this.#session.endPlay();
        return this.#session.takeOutput();
      },
    });
  }

  #decidePlay(target: PublishTarget): ReturnType<PlayHandler> {
    const { onPlay } = this.#options.handlers;
    if (onPlay === undefined) {
      return {
        code: 'NetStream.Play.StreamNotFound',
        description: 'This port takes publishers. Play over HTTP: see the address of the channel.',
      };
    }
    const { state } = this.#session;
    if ('request' in state && state.request.streamId !== SHARED_STREAM_ID) {
      return { code: 'NetStream.Play.Failed', description: 'Play on the first stream of a connection.' };
    }
    return onPlay(target, this);
  }

  /** After the refusal has been given to the session: sends it, logs it and ends the connection. */
  #refused(what: 'publish' | 'play', target: PublishTarget, refusal: Refusal): void {
    this.#options.logger.warn(
      // Not the name that was asked for: encoders may put the stream key in its place.
      { address: this.address, app: target.app, reason: refusal.description },
      `RTMP ${what} refused`,
    );
    this.#flush();
    this.#isClosed = true; // said already: no second line for the same end
    this.#socket.end();
    this.#socket.setTimeout(1000, () => this.#socket.destroy());
    this.#settle();
  }

  #flush(): void {
    const output = this.#session.takeOutput();
    if (output === undefined || this.#socket.destroyed) return;
    if (this.#socket.writableLength === 0) this.#queuedOutputBytes = 0;
    this.#queuedOutputBytes += output.length;
    this.#socket.write(output);
    if (this.#queuedOutputBytes > this.#options.limits.maxQueuedOutputBytes) {
      this.disconnect('the peer does not read what it is sent');
    }
  }

  #settle(): void {
    clearTimeout(this.#requestDeadline);
    if (this.#isSettled) return;
    this.#isSettled = true;
    this.#options.onSettled();
  }

  #endSink(): void {
    const sink = this.#sink;
    this.#sink = undefined;
    sink?.end();
  }

  #cleanUp(): void {
    this.#isClosed = true;
    this.#settle();
    this.#endSink();
    this.#options.onClosed();
  }
}
