/** Viewers who wait for the next part with blocking playlist reloads, and ask again when they are answered. */
import { gunzipSync } from 'node:zlib';
import type { CrowdPlan, CrowdReport } from './crowd.ts';
import { Distribution } from './distribution.ts';
import { type ListedFiles, listedIn, mediaPlaylistPath } from './hls-playlist.ts';
import { HttpConnection } from './http-connection.ts';
import { StampReader } from './stamp.ts';

type ReloadsPlan = Extract<CrowdPlan, { kind: 'reloads' }>;

/** So many parts are waited for until all answers to one are in. */
const LATEST_PARTS = 4;
/** Connections that are opened at the same time. */
const CONCURRENT_JOINS = 100;

export class ReloadWaiters {
  readonly #plan: ReloadsPlan;
  /** What the answer that lists a part asks for next. All waiters get the same answer, so it is read once. */
  readonly #nextOf = new Map<string, string>();
  /** When a part was answered, until it is known when it was complete. */
  readonly #answeredAtMs = new Map<string, number[]>();
  #answers = new Distribution();
  #receivedBytes = 0;
  #requests = 0;
  #errors = 0;
  #openCount = 0;

  constructor(plan: ReloadsPlan) {
    this.#plan = plan;
  }

  async join(): Promise<void> {
    const { port, paths, count } = this.#plan;
    let opened = 0;
    const open = async () => {
      while (opened < count) {
        const path = paths[opened++ % paths.length] ?? '';
        const connection = new HttpConnection(port);
        const multivariant = await connection.get(path, { keepsBody: true });
        const mediaPath = mediaPlaylistPath(multivariant.body.toString(), path);
        const now = await connection.get(mediaPath, { keepsBody: true });
        void this.#waitForEver(connection, path, mediaPath, listedIn(now.body.toString(), path));
      }
    };
    await Promise.all(Array.from({ length: CONCURRENT_JOINS }, open));
    for (const path of paths) void this.#followParts(path);
  }

  begin(): void {
    this.#answers = new Distribution();
    this.#receivedBytes = 0;
    this.#requests = 0;
    this.#errors = 0;
  }

  report(): CrowdReport {
    const none = new Distribution().summary();
    return {
      openCount: this.#openCount,
      receivedBytes: this.#receivedBytes,
      requests: this.#requests,
      errors: this.#errors,
      gaps: none,
      joins: none,
      delays: none,
      answers: this.#answers.summary(),
    };
  }

  async #waitForEver(
    connection: HttpConnection,
    path: string,
    mediaPath: string,
    listed: ListedFiles,
  ): Promise<void> {
    let directives = directivesFor(listed);
    this.#openCount++;
    try {
      for (;;) {
        const answer = await connection.get(`${mediaPath}&${directives}`, {
          keepsBody: true,
          headers: 'Accept-Encoding: gzip\r\n',
        });
        this.#requests++;
        this.#receivedBytes += answer.bodySizeBytes;
        if (answer.status !== 200) {
          this.#errors++;
          continue;
        }
        const key = partKey(path, directives);
        const times = this.#answeredAtMs.get(key);
        if (times === undefined) this.#answeredAtMs.set(key, [answer.endedAtMs]);
        else times.push(answer.endedAtMs);
        let next = this.#nextOf.get(key);
        if (next === undefined) {
          next = directivesFor(listedIn(gunzipSync(answer.body).toString(), mediaPath));
          this.#nextOf.set(key, next);
        }
        directives = next;
      }
    } finally {
      this.#openCount--;
    }
  }

  /** A part is complete when the picture that opens the next one is there: its stamp says when that was sent. */
  async #followParts(path: string): Promise<void> {
    const { port } = this.#plan;
    const connection = new HttpConnection(port);
    const multivariant = await connection.get(path, { keepsBody: true });
    const mediaPath = mediaPlaylistPath(multivariant.body.toString(), path);
    const first = await connection.get(mediaPath, { keepsBody: true });
    let listed = listedIn(first.body.toString(), mediaPath);
    const parts: { key: string; completedAtMs: number | undefined }[] = [];
    for (;;) {
      const directives = directivesFor(listed);
      const reload = await connection.get(`${mediaPath}&${directives}`, { keepsBody: true });
      listed = listedIn(reload.body.toString(), mediaPath);
      const part = await connection.get(listed.parts.at(-1) ?? '', { keepsBody: true });
      const [opening] = new StampReader().push(part.body);
      const last = parts.at(-1);
      if (last !== undefined) last.completedAtMs = opening?.sentAtMs;
      parts.push({ key: partKey(path, directives), completedAtMs: undefined });
      if (parts.length > LATEST_PARTS) this.#settle(parts.shift());
    }
  }

  #settle(part: { key: string; completedAtMs: number | undefined } | undefined): void {
    if (part === undefined) return;
    if (part.completedAtMs !== undefined) {
      for (const answeredAtMs of this.#answeredAtMs.get(part.key) ?? []) {
        this.#answers.add(answeredAtMs - part.completedAtMs);
      }
    }
    this.#answeredAtMs.delete(part.key);
    this.#nextOf.delete(part.key);
  }
}

const partKey = (path: string, directives: string) => `${path} ${directives}`;

function directivesFor({ next }: ListedFiles): string {
  return `_HLS_msn=${next.mediaSequenceNumber}&_HLS_part=${next.partIndex}`;
}
