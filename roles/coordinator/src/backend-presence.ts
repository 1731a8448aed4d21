/**
 * What the backends last said that they have on the air. In memory: it is true for seconds only, and
 * after a restart the next reports bring it back.
 */
import type { DestinationStatus } from '@starling/model/destination';
import { type ActiveSource, BackendReport } from '@starling/model/entities';
import { Check } from 'typebox/value';
import type { Peers } from './peers.ts';

/** A backend reports every 5 s; after three missed reports nothing is taken to be on the air. */
const STALE_AFTER_MS = 15_000;

export class BackendPresence {
  readonly #peers: Peers;
  readonly #now: () => number;
  /** By node, the last that reported at the end. */
  readonly #last = new Map<string, { readonly report: BackendReport; readonly atMs: number }>();

  constructor(peers: Peers, now: () => number) {
    this.#peers = peers;
    this.#now = now;
    peers.onMessage('backend-report', (message) => {
      if (Check(BackendReport, message)) this.#take(message);
    });
  }

  report(report: BackendReport): void {
    this.#take(report);
    // Its events are for whoever got the report: they go to the database.
    this.#peers.send('backend-report', { ...report, events: [] });
  }

  #take(report: BackendReport): void {
    const atMs = this.#now();
    for (const [nodeId, last] of this.#last) {
      if (nodeId === report.nodeId || atMs - last.atMs > STALE_AFTER_MS) this.#last.delete(nodeId);
    }
    this.#last.set(report.nodeId, { report, atMs });
  }

  /** When the last report came, in milliseconds since 1970. */
  get reportedAtMs(): number | undefined {
    return [...this.#last.values()].at(-1)?.atMs;
  }

  /** Backends that report. */
  get backendCount(): number {
    return this.#fresh().length;
  }

  onAirChannels(): readonly string[] {
    return [...new Set(this.#fresh().flatMap(({ onAirChannels }) => onAirChannels))];
  }

  publishingStreams(): readonly string[] {
    return [...new Set(this.#fresh().flatMap(({ publishingStreams }) => publishingStreams))];
  }

  /** What is on the air of a channel with live sources. */
  activeSource(channel: string): ActiveSource | undefined {
    const found = this.#fresh()
      .flatMap(({ activeSources }) => activeSources)
      .find((one) => one.channel === channel);
    return found && { source: found.source, since: found.since, reason: found.reason };
  }

  /** Of all channels with live sources, by channel. */
  activeSources(): ReadonlyMap<string, ActiveSource> {
    // The newest report counts, and comes first.
    const oldestFirst = this.#fresh().reverse();
    return new Map(
      oldestFirst.flatMap(({ activeSources }) => activeSources.map((one) => [one.channel, one] as const)),
    );
  }

  /** Why nothing comes of a stream that a backend has to fetch. */
  inputProblem(stream: string): string | undefined {
    return this.#fresh()
      .flatMap(({ inputProblems }) => inputProblems)
      .find((one) => one.stream === stream)?.problem;
  }

  /** What happens at a destination. */
  destination(name: string): DestinationStatus | undefined {
    return this.#fresh()
      .flatMap(({ destinations }) => destinations)
      .find((one) => one.name === name);
  }

  /** The newest first. */
  #fresh(): BackendReport[] {
    const nowMs = this.#now();
    return [...this.#last.values()]
      .filter(({ atMs }) => nowMs - atMs <= STALE_AFTER_MS)
      .map(({ report }) => report)
      .reverse();
  }
}
