/** Connections that ask for files as fast as they get them. */
import { monotonicMs } from './clock.ts';
import type { CrowdPlan, CrowdReport } from './crowd.ts';
import { Distribution } from './distribution.ts';
import { listedIn } from './hls-playlist.ts';
import { HttpConnection } from './http-connection.ts';

type FilesPlan = Extract<CrowdPlan, { kind: 'files' }>;

/** Of a playlist: the newest, so that none of them falls out of the window meanwhile. */
const NEWEST_FILES = 6;
const REFRESH_MS = 500;

export class FileFetchers {
  readonly #plan: FilesPlan;
  #paths: readonly string[] = [];
  #answers = new Distribution();
  #receivedBytes = 0;
  #requests = 0;
  #errors = 0;
  #openCount = 0;

  constructor(plan: FilesPlan) {
    this.#plan = plan;
  }

  async join(): Promise<void> {
    const { from, port, count } = this.#plan;
    if ('playlist' in from) {
      const connection = new HttpConnection(port);
      const refresh = async () => {
        const { body } = await connection.get(from.playlist, { keepsBody: true });
        this.#paths = listedIn(body.toString(), from.playlist)[from.pick].slice(-NEWEST_FILES);
        setTimeout(refresh, REFRESH_MS);
      };
      await refresh();
    } else {
      this.#paths = from;
    }
    if (this.#paths.length === 0) throw new Error('there are no files to ask for');
    for (let i = 0; i < count; i++) void this.#fetchForEver(new HttpConnection(port), i);
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

  async #fetchForEver(connection: HttpConnection, first: number): Promise<void> {
    this.#openCount++;
    try {
      for (let i = first; ; i++) {
        const askedAtMs = monotonicMs();
        const answer = await connection.get(this.#paths[i % this.#paths.length] ?? '');
        this.#answers.add(answer.endedAtMs - askedAtMs);
        this.#receivedBytes += answer.bodySizeBytes;
        this.#requests++;
        if (answer.status !== 200) this.#errors++;
      }
    } catch {
      this.#openCount--;
    }
  }
}
