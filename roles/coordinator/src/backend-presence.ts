/**
 * What the backend last said that it has on the air. In memory: it is true for seconds only, and
 * after a restart the next report brings it back.
 */
import { type ActiveSource, BackendReport } from '@starling/model/entities';
import { Check } from 'typebox/value';
import type { Peers } from './peers.ts';

/** A backend reports every 5 s; after three missed reports nothing is taken to be on the air. */
const STALE_AFTER_MS = 15_000;

export class BackendPresence {
  readonly #peers: Peers;
  readonly #now: () => number;
  #last: { readonly report: BackendReport; readonly atMs: number } | undefined;

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
    this.#last = { report, atMs: this.#now() };
  }

  /** When the last report came, in milliseconds since 1970. */
  get reportedAtMs(): number | undefined {
    return this.#last?.atMs;
  }

  onAirChannels(): readonly string[] {
    return this.#fresh()?.onAirChannels ?? [];
  }

  publishingStreams(): readonly string[] {
    return this.#fresh()?.publishingStreams ?? [];
  }

  /** What is on the air of a channel with live sources. */
  activeSource(channel: string): ActiveSource | undefined {
    const found = this.#fresh()?.activeSources.find((one) => one.channel === channel);
    return found && { source: found.source, since: found.since, reason: found.reason };
  }

  /** Why nothing comes of a stream that the backend has to fetch. */
  inputProblem(stream: string): string | undefined {
    return this.#fresh()?.inputProblems.find((one) => one.stream === stream)?.problem;
  }

  #fresh(): BackendReport | undefined {
    if (this.#last === undefined || this.#now() - this.#last.atMs > STALE_AFTER_MS) return undefined;
    return this.#last.report;
  }
}
