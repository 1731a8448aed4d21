/**
 * The other side of distribution on demand: a channel that backends push to other frontends is pulled from one of
 * those while somebody wants it here. What comes is what a backend pushes, so bytes and names are the same.
 *
 *   idle -> connecting -> pulling -> idle            nobody has wanted it for a while, or a backend pushes it here
 *               ^           |
 *               +-----------+                        refused, broken off or silent: the next frontend is asked
 */
import { randomBytes } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import { MediaError } from '@starling/media/error';
import { FlvDemuxer } from '@starling/media/flv/demux';
import { RtmpClientSession } from '@starling/media/rtmp/session';
import { rendezvousOrder } from '@starling/model/distribution';
import type { Logger } from 'pino';
import type { Stream } from './stream.ts';

/** Another frontend, or one worker of it. */
export interface PeerFrontend {
  /** Its workers share it, and the key. */
  readonly nodeId: string;
  readonly publicKey: string;
  readonly host: string;
  readonly rtmpPort: number;
  /** Undefined where it is not known. */
  readonly httpPort: number | undefined;
}

export interface PullsOptions {
  readonly logger: Logger;
  /** Makes the proof that another frontend asks for. A promise is not to be rejected. */
  prove(nodeId: string): Promise<string>;
  /** Undefined when there are too many channels. */
  openStream(channel: string): Stream | undefined;
  /** Whether a backend pushes the channel here. */
  isPushed(channel: string): boolean;
  /** Whether somebody watches it here. */
  isWatched(channel: string): boolean;
}

/** A pull goes on for so long after it was wanted last. */
const LINGER_MS = 60_000;
/** Until a frontend has accepted. */
const CONNECT_DEADLINE_MS = 1000;
/** An origin that brings nothing new for so long is taken for a hung one; when the next one has nothing either, the channel stands still, and patience grows. */
const FIRST_PATIENCE_MS = 1500;
const LAST_PATIENCE_MS = 15_000;
/** After all have been asked. */
const FIRST_RETRY_MS = 100;
const LAST_RETRY_MS = 2000;
/** Who begins to watch waits so long for a window. */
const WINDOW_DEADLINE_MS = 4000;
/** The newest segments come in one burst: this silence is its end. */
const BURST_END_MS = 40;
const MAX_WAITERS = 5000;
const MAX_MESSAGE_BYTES = 8 * 1024 * 1024;

interface Pull {
  readonly channel: string;
  readonly stream: Stream;
  wantedAtMs: number;
  /** In the order in which the peers are asked. */
  asked: number;
  /** In a row. */
  failures: number;
  connection: PullConnection | undefined;
  retryTimer: NodeJS.Timeout | undefined;
  patienceMs: number;
  /** The stream's last unit when the connection was opened. */
  unitAtMs: number;
  /** Something came that this frontend had not; the burst of the beginning is over. */
  isCaughtUp: boolean;
  readonly waiters: Set<() => void>;
}

export class Pulls {
  readonly #options: PullsOptions;
  readonly #pulls = new Map<string, Pull>();
  #peers: ReadonlyMap<string, readonly PeerFrontend[]> = new Map();
  #waiterCount = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: PullsOptions) {
    this.#options = options;
  }

  /** The other frontends; none while every channel is pushed to all. */
  setPeers(peers: readonly PeerFrontend[]): void {
    const byId = new Map<string, PeerFrontend[]>();
    for (const peer of peers) byId.set(peer.nodeId, [...(byId.get(peer.nodeId) ?? []), peer]);
    this.#peers = byId;
    if (byId.size === 0)
      for (const pull of this.#pulls.values()) this.#end(pull, 'there is nobody to pull from');
    // Those that come from a frontend that is gone notice it by themselves.
  }

  isPulling(channel: string): boolean {
    return this.#pulls.has(channel);
  }

  /** The frontend that has a channel first of all; undefined when there is no other. */
  originOf(channel: string): PeerFrontend | undefined {
    const [first = ''] = rendezvousOrder(channel, this.#peers.keys());
    return this.#peers.get(first)?.[0];
  }

  /**
   * Somebody wants a channel: it is pulled from now on, unless a backend pushes it here.
   * @returns resolves when there is a window to play or none came in time; undefined where there is nothing to wait for
   */
  want(channel: string): Promise<void> | undefined {
    const known = this.#pulls.get(channel);
    if (known !== undefined) known.wantedAtMs = performance.now();
    if (known?.isCaughtUp === true) return undefined;
    if (this.#options.isPushed(channel)) return undefined;
    if (this.#peers.size === 0) return undefined;
    const pull = known ?? this.#begin(channel);
    if (pull === undefined || this.#waiterCount >= MAX_WAITERS) return undefined;
    return this.#window(pull);
  }

  close(): void {
    clearInterval(this.#timer);
    for (const pull of this.#pulls.values()) this.#end(pull, 'this frontend is stopping');
  }

  #begin(channel: string): Pull | undefined {
    const stream = this.#options.openStream(channel);
    if (stream === undefined) return undefined;
    const pull: Pull = {
      channel,
      stream,
      wantedAtMs: performance.now(),
      asked: 0,
      failures: 0,
      connection: undefined,
      retryTimer: undefined,
      patienceMs: FIRST_PATIENCE_MS,
      unitAtMs: 0,
      // A window that was left over is worth waiting for what has come since.
      isCaughtUp: false,
      waiters: new Set(),
    };
    this.#pulls.set(channel, pull);
    this.#timer ??= setInterval(() => this.#look(), 250).unref();
    this.#connect(pull);
    return pull;
  }

  #window(pull: Pull): Promise<void> {
    this.#waiterCount++;
    return new Promise((resolve) => {
      const settle = () => {
        if (!pull.waiters.delete(settle)) return;
        clearTimeout(deadline);
        this.#waiterCount--;
        resolve();
      };
      const deadline = setTimeout(settle, WINDOW_DEADLINE_MS);
      pull.waiters.add(settle);
    });
  }

  /** Asks the next frontend in turn: the origins come first. */
  #connect(pull: Pull): void {
    const { channel, stream } = pull;
    const order = rendezvousOrder(channel, this.#peers.keys());
    const turn = pull.asked++;
    const workers = this.#peers.get(order[turn % order.length] ?? '') ?? [];
    const peer = workers[Math.floor(turn / order.length) % workers.length];
    if (peer === undefined) return this.#end(pull, 'there is nobody to pull from');
    const demuxer = new FlvDemuxer();
    const publisher = stream.addPublisher();
    let burstTimer: NodeJS.Timeout | undefined;
    pull.unitAtMs = performance.now();
    pull.connection = new PullConnection(channel, peer, this.#options.prove(peer.nodeId), {
      message: (message) => {
        const nowMs = performance.now();
        for (const event of demuxer.push(message)) publisher.event(event, nowMs);
        if (pull.isCaughtUp || !stream.isPlayable) return;
        clearTimeout(burstTimer);
        burstTimer = setTimeout(() => {
          pull.isCaughtUp = true;
          this.#options.logger.info({ channel, from: peer.nodeId }, 'channel is being pulled');
          for (const settle of [...pull.waiters]) settle();
        }, BURST_END_MS);
      },
      end: (reason) => {
        clearTimeout(burstTimer);
        publisher.end();
        pull.connection = undefined;
        if (this.#pulls.get(channel) !== pull) return;
        const wentWell = pull.isCaughtUp && stream.lastUnitAtMs > pull.unitAtMs;
        const level = wentWell ? 'warn' : 'debug';
        this.#options.logger[level](
          { channel, from: peer.nodeId, reason },
          'pull broke off; the next one is asked',
        );
        pull.failures = wentWell ? 0 : pull.failures + 1;
        const rounds = pull.failures / order.length;
        const hasAskedAll = rounds > 0 && Number.isInteger(rounds);
        if (hasAskedAll) for (const settle of [...pull.waiters]) settle();
        const waitMs = hasAskedAll
          ? Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** rounds) * (0.5 + Math.random() / 2)
          : 0;
        pull.retryTimer = setTimeout(() => this.#connect(pull), waitMs);
      },
    });
  }

  #look(): void {
    const nowMs = performance.now();
    for (const pull of this.#pulls.values()) {
      const { channel, stream, connection } = pull;
      if (this.#options.isWatched(channel)) pull.wantedAtMs = nowMs;
      if (this.#options.isPushed(channel)) this.#end(pull, 'it is pushed here now');
      else if (nowMs - pull.wantedAtMs > LINGER_MS) this.#end(pull, 'nobody has watched it for a while');
      else if (connection?.isReady === true) {
        const silentMs = nowMs - Math.max(stream.lastUnitAtMs, pull.unitAtMs);
        if (stream.lastUnitAtMs > pull.unitAtMs && silentMs < FIRST_PATIENCE_MS) {
          pull.patienceMs = FIRST_PATIENCE_MS;
        } else if (silentMs > pull.patienceMs) {
          pull.patienceMs = Math.min(LAST_PATIENCE_MS, 2 * pull.patienceMs);
          connection.abandon('it brings nothing');
        }
      }
    }
  }

  #end(pull: Pull, reason: string): void {
    this.#options.logger.info({ channel: pull.channel, reason }, 'channel is no longer pulled');
    this.#pulls.delete(pull.channel);
    clearTimeout(pull.retryTimer);
    pull.connection?.abandon(reason);
    for (const settle of [...pull.waiters]) settle();
    if (this.#pulls.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
}

interface PullListener {
  message(message: Parameters<FlvDemuxer['push']>[0]): void;
  /** Called once. */
  end(reason: string): void;
}

/** One RTMP connection on which a channel is played with its cues. It is used once. */
class PullConnection {
  #socket: Socket | undefined;
  readonly #listener: PullListener;
  readonly #deadline: NodeJS.Timeout;
  #isReady = false;
  #hasEnded = false;

  constructor(channel: string, peer: PeerFrontend, proof: Promise<string>, listener: PullListener) {
    this.#listener = listener;
    this.#deadline = setTimeout(() => this.abandon('no answer in time'), CONNECT_DEADLINE_MS);
    void proof.then((signed) => {
      if (!this.#hasEnded) this.#connect(`${channel}?pull=${signed}`, peer);
    });
  }

  #connect(streamName: string, { host, rtmpPort }: PeerFrontend): void {
    const session = new RtmpClientSession({
      mode: 'play',
      tcUrl: `rtmp://${host.includes(':') ? `[${host}]` : host}:${rtmpPort}/live`,
      app: 'live',
      streamName,
      handshakeRandomBytes: randomBytes(1528),
      maxMessageBytes: MAX_MESSAGE_BYTES,
    });
    const socket = connect({ host, port: rtmpPort });
    socket.setNoDelay(true);
    socket.on('connect', () => flush(session, socket));
    socket.on('data', (bytes) => this.#receive(session, socket, bytes));
    socket.on('error', (error) => this.abandon(error.message));
    socket.on('close', () => this.abandon('it closed the connection'));
    this.#socket = socket;
  }

  get isReady(): boolean {
    return this.#isReady;
  }

  /** Drops the connection; `end` is called unless it was before. */
  abandon(reason: string): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    clearTimeout(this.#deadline);
    this.#socket?.destroy();
    this.#listener.end(reason);
  }

  #receive(session: RtmpClientSession, socket: Socket, bytes: Uint8Array): void {
    try {
      for (const event of session.receive(bytes)) {
        if (this.#hasEnded) return;
        if (event.type === 'ready') {
          clearTimeout(this.#deadline);
          this.#isReady = true;
        } else if (event.type === 'rejected') return this.abandon(event.description || event.code);
        else if (event.type === 'message') this.#listener.message(event.message);
      }
      flush(session, socket);
    } catch (error) {
      if (!(error instanceof MediaError)) throw error;
      this.abandon(error.message);
    }
  }
}

function flush(session: RtmpClientSession, socket: Socket): void {
  const output = session.takeOutput();
  if (output !== undefined && !socket.destroyed) socket.write(output);
}
