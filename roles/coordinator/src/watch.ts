/**
 * The watch: backends and frontends follow their state as server-sent events. Each event is the whole state, so a
 * watcher that was slow or away needs only the last one, and no watcher has a queue.
 *
 * Source of the event format: WHATWG HTML, 9.2 Server-sent events.
 */
import type { ServerResponse } from 'node:http';
import type { Logger } from 'pino';
import { ApiProblem } from './problem.ts';

const DEFAULT_MAX_WATCHERS = 100;
const PING_INTERVAL_MS = 15_000;
/** A watcher that took nothing for so many pings is gone. */
const MAX_UNTAKEN_PINGS = 2;
const READ_RETRY_MS = 1000;

/** What is followed. */
export interface Source {
  read(): Promise<{ readonly revision: number }>;
  /** Calls `listener` whenever what `read` gives has changed. */
  onChange(listener: () => void): void;
}

interface Watcher {
  readonly response: ServerResponse;
  /** Of a node that showed its own key. */
  readonly nodeId: string | undefined;
  /** What it has already, if that is still the state. */
  readonly knownRevision: string | undefined;
  /** The number of the event that it was last sent; 0 before the first. */
  sentNumber: number;
  untakenPings: number;
}

export class Watch {
  readonly #source: Source;
  readonly #logger: Logger;
  readonly #maxWatchers: number;
  readonly #watchers = new Set<Watcher>();
  readonly #pings: NodeJS.Timeout;
  #retry: NodeJS.Timeout | undefined;
  #event: { readonly number: number; readonly revision: number; readonly text: string } | undefined;
  #isReading = false;
  #isStale = false;
  #isClosed = false;

  constructor(source: Source, logger: Logger, maxWatchers = DEFAULT_MAX_WATCHERS) {
    this.#maxWatchers = maxWatchers;
    this.#source = source;
    this.#logger = logger;
    source.onChange(() => void this.#refresh());
    this.#pings = setInterval(() => this.#ping(), PING_INTERVAL_MS);
    this.#pings.unref();
  }

  get watcherCount(): number {
    return this.#watchers.size;
  }

  /**
   * Sends the state to `response` now and at each change, until either side closes.
   * @param from.nodeId of a node that showed its own key
   * @param from.knownRevision of the state that it has: nothing is sent before there is another. For a source whose state is
   *   always the same at the same revision
   * @throws ApiProblem TOO_MANY_WATCHERS, before anything is written
   */
  attach(
    response: ServerResponse,
    from: { readonly nodeId: string | undefined; readonly knownRevision?: string | undefined },
  ): void {
    if (this.#watchers.size >= this.#maxWatchers || this.#isClosed) {
      throw new ApiProblem(
        'TOO_MANY_WATCHERS',
        `At most ${this.#maxWatchers} clients may follow the state. Try again.`,
      );
    }
    const { nodeId, knownRevision } = from;
    const watcher: Watcher = { response, nodeId, knownRevision, sentNumber: 0, untakenPings: 0 };
    this.#watchers.add(watcher);
    response.on('close', () => this.#watchers.delete(watcher));
    response.on('error', () => this.#watchers.delete(watcher));
    response.on('drain', () => {
      watcher.untakenPings = 0;
      this.#send(watcher);
    });
    response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
    response.flushHeaders();
    void this.#refresh();
  }

  /** Whether anybody follows who showed a key of its own. */
  get isFollowedByNodes(): boolean {
    return [...this.#watchers].some(({ nodeId }) => nodeId !== undefined);
  }

  /** Ends what nodes follow that may not any more. */
  end(nodeIds: ReadonlySet<string>): void {
    for (const { nodeId, response } of this.#watchers) {
      if (nodeId !== undefined && nodeIds.has(nodeId)) response.end();
    }
  }

  close(): void {
    this.#isClosed = true;
    clearInterval(this.#pings);
    clearTimeout(this.#retry);
    for (const { response } of this.#watchers) response.end();
  }

  /** Reads the state and sends it to all who have an older one. Changes meanwhile cause one more turn. */
  async #refresh(): Promise<void> {
    this.#isStale = true;
    if (this.#isReading) return;
    this.#isReading = true;
    clearTimeout(this.#retry);
    try {
      while (this.#isStale && !this.#isClosed && this.#watchers.size > 0) {
        this.#isStale = false;
        const state = await this.#source.read();
        const { revision } = state;
        const text = `id: ${revision}\ndata: ${JSON.stringify(state)}\n\n`;
        // Where something else was changed, they have it already.
        if (text !== this.#event?.text)
          this.#event = { number: (this.#event?.number ?? 0) + 1, revision, text };
        for (const watcher of this.#watchers) this.#send(watcher);
      }
    } catch (error) {
      if (this.#isClosed) return;
      this.#logger.error(
        { err: error },
        'reading the state for those who follow it failed; it is tried again',
      );
      this.#retry = setTimeout(() => void this.#refresh(), READ_RETRY_MS * (0.5 + Math.random()));
      this.#retry.unref();
    } finally {
      this.#isReading = false;
    }
  }

  #send(watcher: Watcher): void {
    if (this.#event === undefined || watcher.sentNumber >= this.#event.number) return;
    if (watcher.sentNumber === 0 && watcher.knownRevision === String(this.#event.revision)) {
      watcher.sentNumber = this.#event.number;
      watcher.response.write(': as you know\n\n');
      return;
    }
    // It gets the last state once it has taken what it was sent before.
    if (watcher.response.writableNeedDrain) return;
    watcher.sentNumber = this.#event.number;
    watcher.response.write(this.#event.text);
  }

  #ping(): void {
    for (const watcher of this.#watchers) {
      if (!watcher.response.writableNeedDrain) watcher.response.write(': ping\n\n');
      else if (++watcher.untakenPings > MAX_UNTAKEN_PINGS) watcher.response.destroy();
    }
  }
}
