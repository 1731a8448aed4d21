/** Viewers who follow a media playlist and fetch what is new in it, as a player does. */
import { setTimeout as sleep } from 'node:timers/promises';
import { monotonicMs } from './clock.ts';
import type { CrowdPlan, CrowdReport } from './crowd.ts';
import { Distribution } from './distribution.ts';
import { type ListedFiles, listedIn, mediaPlaylistPath } from './hls-playlist.ts';
import { HttpConnection } from './http-connection.ts';
import { StampReader } from './stamp.ts';

type HlsPlan = Extract<CrowdPlan, { kind: 'hls' }>;

/** Viewers who look for stamps. */
const OBSERVERS = 3;

interface Viewer {
  readonly connection: HttpConnection;
  readonly isObserver: boolean;
  lastArrivalAtMs: number;
}

export class HlsViewers {
  readonly #plan: HlsPlan;
  readonly #viewers: Viewer[] = [];
  readonly #joins = new Distribution();
  #gaps = new Distribution();
  #delays = new Distribution();
  #answers = new Distribution();
  #receivedBytes = 0;
  #requests = 0;
  #errors = 0;
  #openCount = 0;

  constructor(plan: HlsPlan) {
    this.#plan = plan;
  }

  async join(): Promise<void> {
    const { count, joinMs, port } = this.#plan;
    const joined = Array.from({ length: count }, async (_, i) => {
      await sleep((i * joinMs) / count);
      const connectedAtMs = monotonicMs();
      const viewer = {
        connection: new HttpConnection(port),
        isObserver: i < OBSERVERS,
        lastArrivalAtMs: connectedAtMs,
      };
      this.#viewers.push(viewer);
      await new Promise<void>((resolve, reject) => {
        this.#watch(viewer, resolve).catch(reject);
      });
      this.#joins.add(monotonicMs() - connectedAtMs);
    });
    await Promise.all(joined);
  }

  begin(): void {
    this.#gaps = new Distribution();
    this.#delays = new Distribution();
    this.#answers = new Distribution();
    this.#receivedBytes = 0;
    this.#requests = 0;
    this.#errors = 0;
  }

  report(): CrowdReport {
    const nowMs = monotonicMs();
    for (const { lastArrivalAtMs } of this.#viewers) this.#gaps.add(nowMs - lastArrivalAtMs);
    return {
      openCount: this.#openCount,
      receivedBytes: this.#receivedBytes,
      requests: this.#requests,
      errors: this.#errors,
      gaps: this.#gaps.summary(),
      joins: this.#joins.summary(),
      delays: this.#delays.summary(),
      answers: this.#answers.summary(),
    };
  }

  /** @param onMedia called whenever a file has come */
  async #watch(viewer: Viewer, onMedia: () => void): Promise<void> {
    const { path, isLowLatency } = this.#plan;
    const multivariant = await viewer.connection.get(path, { keepsBody: true });
    const mediaPath = mediaPlaylistPath(multivariant.body.toString(), path);
    let listed = await this.#reload(viewer, mediaPath);
    const pick = (files: ListedFiles) => (isLowLatency ? files.parts : files.segments);
    // Segments may be started anywhere; of the parts the first of the newest whole segment.
    let next = Math.max(0, pick(listed).length - (isLowLatency ? listed.next.partIndex : 1));
    this.#openCount++;
    try {
      for (;;) {
        for (const file of pick(listed).slice(next)) {
          await this.#fetch(viewer, file);
          onMedia();
        }
        const newest = pick(listed).at(-1) ?? '';
        const { mediaSequenceNumber, partIndex } = listed.next;
        if (isLowLatency) {
          const directives = `_HLS_msn=${mediaSequenceNumber}&_HLS_part=${partIndex}`;
          listed = await this.#reload(viewer, `${mediaPath}&${directives}`);
        } else {
          await sleep(listed.targetDurationMs / 2);
          listed = await this.#reload(viewer, mediaPath);
        }
        next = pick(listed).indexOf(newest) + 1;
        if (next === 0) this.#errors++; // it has fallen behind the window
      }
    } finally {
      this.#openCount--;
    }
  }

  async #reload(viewer: Viewer, path: string): Promise<ListedFiles> {
    const answer = await viewer.connection.get(path, { keepsBody: true });
    if (answer.status !== 200) throw new Error(`${path} was answered with ${answer.status}`);
    this.#receivedBytes += answer.bodySizeBytes;
    return listedIn(answer.body.toString(), path);
  }

  async #fetch(viewer: Viewer, path: string): Promise<void> {
    const askedAtMs = monotonicMs();
    const answer = await viewer.connection.get(path, { keepsBody: viewer.isObserver });
    if (answer.status !== 200) this.#errors++;
    this.#requests++;
    this.#receivedBytes += answer.bodySizeBytes;
    this.#answers.add(answer.endedAtMs - askedAtMs);
    this.#gaps.add(answer.endedAtMs - viewer.lastArrivalAtMs);
    viewer.lastArrivalAtMs = answer.endedAtMs;
    if (!viewer.isObserver) return;
    for (const { sentAtMs } of new StampReader().push(answer.body)) {
      this.#delays.add(answer.endedAtMs - sentAtMs);
    }
  }
}
