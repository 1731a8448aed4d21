/** What the coordinator is told of the viewers: those who came and left at once, the others in turn. */
import { randomBytes } from 'node:crypto';
import { type FrontendReport, MAX_REPORTED_VIEWERS, type ReportedViewer } from '@starling/model/entities';
import type { Viewer, ViewerRegistry } from './viewers.ts';

const MAX_LEFT_IDS = 10 * MAX_REPORTED_VIEWERS;

export class ViewerReports {
  readonly #viewers: ViewerRegistry;
  readonly #frontendId = randomBytes(12).toString('base64url');
  /** Those whose last report is the oldest come first. */
  #reportedIds = new Set<string>();
  #isFresh = true;
  #isBehind = false;

  constructor(viewers: ViewerRegistry) {
    this.#viewers = viewers;
  }

  /** More had come or left than the last report holds. */
  get isBehind(): boolean {
    return this.#isBehind;
  }

  /** Starts from nothing, where a report did not arrive or the coordinator has forgotten all. */
  startAnew(): void {
    this.#reportedIds = new Set();
    this.#isFresh = true;
  }

  /** The next report. It is taken to arrive, unless {@link startAnew} is called. */
  next(): FrontendReport {
    const present = new Map(this.#viewers.list().map((viewer) => [viewer.id, viewer]));
    const gone = [...this.#reportedIds].filter((id) => !present.has(id));
    const leftIds = gone.slice(0, MAX_LEFT_IDS);
    const come = [...present.keys()].filter((id) => !this.#reportedIds.has(id));
    const stayed = [...this.#reportedIds].filter((id) => present.has(id));
    const ids = [...come, ...stayed].slice(0, MAX_REPORTED_VIEWERS);
    for (const id of leftIds) this.#reportedIds.delete(id);
    for (const id of ids) {
      this.#reportedIds.delete(id);
      this.#reportedIds.add(id);
    }
    const isFresh = this.#isFresh;
    this.#isFresh = false;
    this.#isBehind = come.length > MAX_REPORTED_VIEWERS || gone.length > MAX_LEFT_IDS;
    return {
      frontendId: this.#frontendId,
      isFresh,
      leftIds,
      viewers: ids.flatMap((id) => {
        const viewer = present.get(id);
        return viewer === undefined ? [] : [reported(viewer)];
      }),
    };
  }

  /** The report of a frontend that ends: nobody watches any more. */
  last(): FrontendReport {
    return { frontendId: this.#frontendId, isFresh: true, leftIds: [], viewers: [] };
  }
}

function reported(viewer: Viewer): ReportedViewer {
  const { id, channel, protocol, address, startedAtUnixMs, sentBytes } = viewer;
  return {
    ...{ id, channel, protocol, address, startedAtUnixMs, sentBytes },
    rendition: viewer.rendition ?? null,
    userAgent: viewer.userAgent ?? null,
    latencyMs: viewer.latencyMs ?? null,
    tokenId: viewer.pass?.tokenId ?? null,
  };
}
