/**
 * Many viewers in a process of their own, so that what they cost is neither the server's nor the
 * publisher's. This file is the parent's side; crowd-process.ts is the other.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import type { Summary } from './distribution.ts';
import { usageOf } from './usage.ts';

export type CrowdPlan =
  /** Viewers of endless responses, who read and discard. They join one after another. */
  | {
      readonly kind: 'streams';
      readonly protocol: 'http-flv' | 'rtmp';
      readonly port: number;
      /** HTTP: the path. RTMP: `/app/name`. */
      readonly path: string;
      readonly count: number;
      readonly joinMs: number;
    }
  /** Viewers who follow a media playlist and fetch what is new in it. */
  | {
      readonly kind: 'hls';
      readonly isLowLatency: boolean;
      readonly port: number;
      /** Of the multivariant playlist. */
      readonly path: string;
      readonly count: number;
      readonly joinMs: number;
    }
  /** Connections that ask for files as fast as they get them. */
  | {
      readonly kind: 'files';
      readonly port: number;
      readonly count: number;
      /** What to ask for; a playlist of which to take what it lists, or the paths themselves. */
      readonly from: { readonly playlist: string; readonly pick: 'segments' | 'parts' } | readonly string[];
    }
  /** Viewers who wait for the next part with blocking playlist reloads, and for nothing else. */
  | {
      readonly kind: 'reloads';
      readonly port: number;
      /** Of the multivariant playlists of the channels that they share among themselves. */
      readonly paths: readonly string[];
      readonly count: number;
    };

/** What a crowd saw since it was told to begin. Figures that a kind does not have are empty. */
export interface CrowdReport {
  /** Viewers who are being served. */
  readonly openCount: number;
  readonly receivedBytes: number;
  /** Answered. */
  readonly requests: number;
  /** What went wrong: statuses other than 200, segments that were missed. */
  readonly errors: number;
  /** Between arrivals at a viewer, be they bytes or whole segments; the silence at the end counts. */
  readonly gaps: Summary;
  /** From connecting to the first random access point; of all viewers, whenever they joined. */
  readonly joins: Summary;
  /** From the publisher's sending of a picture to its arrival, as a few of the viewers saw it. */
  readonly delays: Summary;
  /** Files: from request to last byte. Reloads: from the picture that completes the part to the answer. */
  readonly answers: Summary;
}

export type CrowdMessage = 'ready' | { readonly report: CrowdReport } | { readonly failure: string };

export class Crowd {
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess) {
    this.#child = child;
  }

  /**
   * Starts the viewers.
   * @param program the built bench
   * @returns when all of them are being served
   */
  static async gather(program: string, plan: CrowdPlan): Promise<Crowd> {
    const child = fork(program, ['crowd'], { serialization: 'advanced' });
    child.send(plan);
    const crowd = new Crowd(child);
    await crowd.#hear();
    return crowd;
  }

  /** Sets the figures to nothing. */
  begin(): void {
    this.#child.send('begin');
  }

  async report(): Promise<CrowdReport> {
    this.#child.send('report');
    const message = await this.#hear();
    if (message === 'ready') throw new Error('the crowd said that it is ready, not what it saw');
    return message.report;
  }

  get cpuSeconds(): number {
    return usageOf(this.#child.pid ?? 0).cpuSeconds;
  }

  async disperse(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.kill('SIGKILL');
    await once(this.#child, 'exit');
  }

  async #hear(): Promise<Exclude<CrowdMessage, { failure: string }>> {
    const ended = new AbortController();
    const exit = once(this.#child, 'exit', { signal: ended.signal });
    const [message]: CrowdMessage[] = await Promise.race([
      once(this.#child, 'message', { signal: ended.signal }),
      exit.then(() => [{ failure: 'its process ended' }]),
    ]);
    exit.catch(() => {}); // aborted
    ended.abort();
    if (message === undefined) throw new Error('the crowd sent an empty message');
    if (typeof message === 'object' && 'failure' in message) throw new Error(`crowd: ${message.failure}`);
    return message;
  }
}
