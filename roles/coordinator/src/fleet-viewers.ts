/**
 * Who watches, on all frontends together, from their reports. A player of HLS may ask several frontends
 * under one session id; it is one viewer. In memory: it is true for seconds only, and after a restart the
 * next reports bring it back.
 */
import {
  FrontendReport,
  type FrontendReportAnswer,
  MAX_REPORTED_VIEWERS,
  type ReportedViewer,
  type Viewer,
  type ViewerList,
} from '@starling/model/entities';
import type { Logger } from 'pino';
import { Type } from 'typebox';
import { Check } from 'typebox/value';
import type { Peers } from './peers.ts';
import { ApiProblem } from './problem.ts';
import type { Snapshot } from './state.ts';
import type { ViewingRules } from './viewing-tokens.ts';

/** A frontend reports every 2 s; after two missed reports its viewers are taken to be gone. */
const STALE_AFTER_MS = 6000;
const MAX_FRONTENDS = 1000;
/** Frontends that were away hear of so many that were shown out; they remember more themselves. */
const MAX_ENDED_IDS = 1000;
const MAX_LISTED = 10_000;

const ViewerIds = Type.Array(Type.String({ maxLength: 64 }));

interface FrontendViewers {
  reportedAtMs: number;
  readonly viewers: Map<string, ReportedViewer>;
}

export class FleetViewers {
  readonly #rules: Snapshot<ViewingRules>;
  readonly #logger: Logger;
  readonly #now: () => number;
  readonly #frontends = new Map<string, FrontendViewers>();
  readonly #endedIds = new Set<string>();
  readonly #listeners: (() => void)[] = [];
  readonly #peers: Peers;
  #merged: ReadonlyMap<string, ReportedViewer> | undefined;

  constructor(rules: Snapshot<ViewingRules>, peers: Peers, logger: Logger, now: () => number) {
    this.#rules = rules;
    this.#peers = peers;
    this.#logger = logger;
    this.#now = now;
    peers.onMessage('frontend-report', (message) => {
      if (Check(FrontendReport, message)) this.#takeFromPeer(message);
    });
    peers.onMessage('frontend-unknown', (message) => {
      if (typeof message === 'string') this.#tellPeersAll(message);
    });
    peers.onMessage('viewers-ended', (message) => {
      if (Check(ViewerIds, message)) this.#addEnded(message);
    });
  }

  /** Takes a frontend's report, and shows out who is one too many for a channel or a token: who came last. */
  async report(report: FrontendReport): Promise<FrontendReportAnswer> {
    const rules = await this.#rules.read();
    const isKnown = this.#frontends.has(report.frontendId);
    this.#apply(report);
    this.#peers.send('frontend-report', report);
    return { isKnown: isKnown || report.isFresh, ...this.#keepLimits(rules) };
  }

  #apply(report: FrontendReport): void {
    const known = this.#frontends.get(report.frontendId);
    const frontend = known ?? { reportedAtMs: 0, viewers: new Map() };
    if (known === undefined) this.#add(report.frontendId, frontend);
    frontend.reportedAtMs = this.#now();
    if (report.isFresh) frontend.viewers.clear();
    for (const id of report.leftIds) frontend.viewers.delete(id);
    for (const viewer of report.viewers) frontend.viewers.set(viewer.id, viewer);
    this.#merged = undefined;
  }

  /** A report says what has changed: without what it said before it is worth nothing. */
  #takeFromPeer(report: FrontendReport): void {
    if (report.isFresh || this.#frontends.has(report.frontendId)) this.#apply(report);
    else this.#peers.send('frontend-unknown', report.frontendId);
  }

  #tellPeersAll(frontendId: string): void {
    const frontend = this.#frontends.get(frontendId);
    if (frontend === undefined) return;
    const report: FrontendReport = { frontendId, isFresh: true, leftIds: [], viewers: [] };
    const viewers = [...frontend.viewers.values()];
    for (let first = 0; first === 0 || first < viewers.length; first += MAX_REPORTED_VIEWERS) {
      const some = viewers.slice(first, first + MAX_REPORTED_VIEWERS);
      this.#peers.send('frontend-report', { ...report, isFresh: first === 0, viewers: some });
    }
  }

  /**
   * Who watches now.
   * @param channel all channels when undefined
   */
  list(channel: string | undefined): ViewerList {
    const viewers = [...this.#all().values()].filter(
      (one) => channel === undefined || one.channel === channel,
    );
    const counts = new Map<string, number>();
    for (const viewer of viewers) counts.set(viewer.channel, (counts.get(viewer.channel) ?? 0) + 1);
    return {
      items: viewers.sort(byArrival).reverse().slice(0, MAX_LISTED).map(viewerOf),
      totals: [...counts].sort().map(([name, viewerCount]) => ({ channel: name, viewerCount })),
    };
  }

  /** The number of viewers of each channel that has any. */
  counts(): ReadonlyMap<string, number> {
    return new Map(this.list(undefined).totals.map(({ channel, viewerCount }) => [channel, viewerCount]));
  }

  /**
   * Shows a viewer out, on all frontends.
   * @throws ApiProblem VIEWER_UNKNOWN
   */
  kick(id: string): void {
    const viewer = this.#all().get(id);
    if (viewer === undefined) throw new ApiProblem('VIEWER_UNKNOWN', `No viewer ${id} watches now.`);
    this.#logger.info({ viewer: id, channel: viewer.channel }, 'viewer shown out');
    this.#end([viewer]);
  }

  /** Of those who were shown out last. */
  get endedIds(): string[] {
    return [...this.#endedIds];
  }

  /** Calls `listener` after each change of {@link endedIds}. */
  onEnded(listener: () => void): void {
    this.#listeners.push(listener);
  }

  #add(frontendId: string, frontend: FrontendViewers): void {
    this.#frontends.set(frontendId, frontend);
    const [oldest] = this.#frontends.keys();
    if (this.#frontends.size > MAX_FRONTENDS && oldest !== undefined) this.#frontends.delete(oldest);
  }

  #keepLimits(rules: ViewingRules): Pick<FrontendReportAnswer, 'fullChannels' | 'fullTokenIds'> {
    const maxViewers = new Map(
      rules.channels.flatMap(({ name, maxViewers: max }) => (max === null ? [] : [[name, max]])),
    );
    const byChannel = this.#full(maxViewers, (viewer) => viewer.channel);
    const byToken = this.#full(rules.maxConcurrentByToken, (viewer) => viewer.tokenId);
    const excess = [...byChannel.excess, ...byToken.excess];
    if (excess.length > 0) {
      this.#logger.info({ viewers: excess.length }, 'viewers shown out: too many for a channel or a token');
      this.#end(excess);
    }
    return { fullChannels: byChannel.full, fullTokenIds: byToken.full };
  }

  #full(limits: ReadonlyMap<string, number>, groupOf: (viewer: ReportedViewer) => string | null) {
    const full: string[] = [];
    const excess: ReportedViewer[] = [];
    if (limits.size === 0) return { full, excess };
    const groups = new Map<string, ReportedViewer[]>();
    for (const viewer of this.#all().values()) {
      const group = groupOf(viewer);
      if (group === null || !limits.has(group)) continue;
      const others = groups.get(group);
      if (others === undefined) groups.set(group, [viewer]);
      else others.push(viewer);
    }
    for (const [group, viewers] of groups) {
      const limit = limits.get(group) ?? Number.POSITIVE_INFINITY;
      if (viewers.length >= limit) full.push(group);
      if (viewers.length > limit) excess.push(...viewers.sort(byArrival).slice(limit));
    }
    return { full, excess };
  }

  #end(viewers: readonly ReportedViewer[]): void {
    const ids = viewers.map(({ id }) => id);
    this.#peers.send('viewers-ended', ids);
    this.#addEnded(ids);
  }

  #addEnded(ids: readonly string[]): void {
    for (const id of ids) this.#endedIds.add(id);
    for (const id of this.#endedIds) {
      if (this.#endedIds.size <= MAX_ENDED_IDS) break;
      this.#endedIds.delete(id);
    }
    this.#merged = undefined;
    for (const listener of this.#listeners) listener();
  }

  /** Each viewer once, without those who have been shown out. */
  #all(): ReadonlyMap<string, ReportedViewer> {
    const staleBeforeMs = this.#now() - STALE_AFTER_MS;
    for (const [id, { reportedAtMs }] of this.#frontends) {
      if (reportedAtMs >= staleBeforeMs) continue;
      this.#frontends.delete(id);
      this.#merged = undefined;
    }
    if (this.#merged !== undefined) return this.#merged;
    const merged = new Map<string, ReportedViewer>();
    for (const { viewers } of this.#frontends.values()) {
      for (const viewer of viewers.values()) {
        if (this.#endedIds.has(viewer.id)) continue;
        const known = merged.get(viewer.id);
        merged.set(viewer.id, known === undefined ? viewer : mergedViewer(known, viewer));
      }
    }
    this.#merged = merged;
    return merged;
  }
}

/** What two frontends say of one viewer. */
function mergedViewer(one: ReportedViewer, other: ReportedViewer): ReportedViewer {
  const [first, last] = one.startedAtUnixMs <= other.startedAtUnixMs ? [one, other] : [other, one];
  return {
    ...last,
    startedAtUnixMs: first.startedAtUnixMs,
    sentBytes: one.sentBytes + other.sentBytes,
  };
}

/** Who came first comes first; among those of one millisecond every coordinator agrees. */
function byArrival(one: ReportedViewer, other: ReportedViewer): number {
  return one.startedAtUnixMs - other.startedAtUnixMs || (one.id < other.id ? -1 : 1);
}

function viewerOf({ startedAtUnixMs, ...viewer }: ReportedViewer): Viewer {
  return { ...viewer, startedAt: new Date(startedAtUnixMs).toISOString() };
}
