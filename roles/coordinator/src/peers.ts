/**
 * The other coordinators on the same database, through Redis: they hear at once what is true for seconds only, and
 * requests are counted for all of them together. What lasts is in the database, and `changes.ts` tells of it.
 *
 * Nothing waits for Redis. While it is away each coordinator knows what it was told itself, which the next reports bring
 * up to date again.
 */
import { randomBytes } from 'node:crypto';
import { createClient } from '@redis/client';
import type { Logger } from 'pino';
import type { Count } from './counters.ts';
import { DatabaseUnavailable } from './database.ts';

const CONNECT_DEADLINE_MS = 3000;
const PING_INTERVAL_MS = 2000;
/** Neither an answer to a ping nor anything else. */
const SILENCE_DEADLINE_MS = 5000;
const FIRST_RETRY_MS = 100;
const MAX_RETRY_MS = 5000;
const MAX_QUEUED_COMMANDS = 1000;
const MAX_MESSAGE_CHARS = 4 * 1024 * 1024;

export type Topic =
  | 'backend-report'
  | 'node-report'
  | 'frontend-report'
  | 'frontend-unknown'
  | 'viewers-ended'
  | 'import-progress'
  | 'node-health';

export interface Peers {
  /** Tells the others, without waiting. Where they cannot be reached it is lost. */
  send(topic: Topic, message: unknown): void;
  /** @param listener has to check the message: it came over the network */
  onMessage(topic: Topic, listener: (message: unknown) => void): void;
  /**
   * Adds one to a count that all coordinators share, which begins anew `windowMs` after its first.
   * @returns undefined when it cannot be known
   */
  count(key: string, windowMs: number): Promise<Count | undefined>;
  close(): Promise<void>;
}

/** Of a coordinator that is alone. */
export const noPeers: Peers = {
  send() {},
  onMessage() {},
  count: async () => undefined,
  async close() {},
};

/**
 * Connects in the background, again and again.
 * @param url `redis://USER:PASSWORD@HOST:PORT`, or `rediss://` for TLS; it is never logged
 * @param network tells networks apart that use one Redis
 * @throws DatabaseUnavailable when the address is none
 */
export function connectPeers(url: string, network: string, logger: Logger): Peers {
  // The error of a bad address has the address in it.
  if (!URL.canParse(url) || !/^rediss?:$/.test(new URL(url).protocol))
    throw new DatabaseUnavailable('REDIS_URL is not of the form redis://USER:PASSWORD@HOST:PORT.');
  return new RedisPeers(url, network, logger);
}

function newClient(url: string) {
  return createClient({
    url,
    disableOfflineQueue: true,
    commandsQueueMaxLength: MAX_QUEUED_COMMANDS,
    pingInterval: PING_INTERVAL_MS,
    socket: {
      connectTimeout: CONNECT_DEADLINE_MS,
      socketTimeout: SILENCE_DEADLINE_MS,
      reconnectStrategy: (retries) =>
        Math.min(MAX_RETRY_MS, FIRST_RETRY_MS * 2 ** Math.min(retries, 10)) * (0.5 + Math.random() / 2),
    },
  });
}

class RedisPeers implements Peers {
  readonly #prefix: string;
  readonly #origin = randomBytes(9).toString('base64url');
  readonly #logger: Logger;
  readonly #sender: ReturnType<typeof newClient>;
  readonly #receiver: ReturnType<typeof newClient>;
  readonly #listeners = new Map<string, (message: unknown) => void>();
  #isUp: boolean | undefined;

  constructor(url: string, network: string, logger: Logger) {
    this.#prefix = `starling:${network}:`;
    this.#logger = logger;
    this.#sender = newClient(url);
    this.#receiver = newClient(url);
    this.#sender.on('ready', () => this.#report(true));
    this.#sender.on('error', (error: Error) => this.#report(false, error.message));
    this.#receiver.on('error', () => {}); // the sender's says it
    this.#sender.connect().catch(() => {});
    // Subscribed again by the client after each reconnection.
    this.#receiver
      .connect()
      .then((client) =>
        client.pSubscribe(`${this.#prefix}*`, (text, channel) => this.#receive(channel, text)),
      )
      .catch(() => {}); // closed before it was there
  }

  send(topic: Topic, message: unknown): void {
    if (!this.#sender.isReady) return;
    this.#sender
      .publish(`${this.#prefix}${topic}`, JSON.stringify({ origin: this.#origin, message }))
      .catch(() => {});
  }

  onMessage(topic: Topic, listener: (message: unknown) => void): void {
    this.#listeners.set(`${this.#prefix}${topic}`, listener);
  }

  async count(key: string, windowMs: number): Promise<Count | undefined> {
    if (!this.#sender.isReady) return undefined;
    const name = `${this.#prefix}count:${key}`;
    try {
      const [count, , resetsInMs] = await this.#sender
        .multi()
        .incr(name)
        .pExpire(name, windowMs, 'NX')
        .pTTL(name)
        .execTyped();
      return { count, resetsInMs };
    } catch {
      return undefined;
    }
  }

  async close(): Promise<void> {
    for (const client of [this.#sender, this.#receiver]) if (client.isOpen) client.destroy();
  }

  #receive(channel: string, text: string): void {
    const listener = this.#listeners.get(channel);
    if (listener === undefined || text.length > MAX_MESSAGE_CHARS) return;
    let parsed: unknown;
    try {
      parsed = JSON.parse(text);
    } catch {
      return; // not one of us
    }
    if (typeof parsed !== 'object' || parsed === null || !('origin' in parsed) || !('message' in parsed))
      return;
    if (parsed.origin !== this.#origin) listener(parsed.message);
  }

  #report(isUp: boolean, reason?: string): void {
    if (this.#isUp === isUp) return;
    this.#isUp = isUp;
    if (isUp) this.#logger.info('Redis answers');
    else this.#logger.error({ reason }, 'Redis does not answer; each coordinator goes on by itself');
  }
}
