/** Runs the imports that the coordinator has queued, one at a time, and reports on each. */
import type { CoordinatorClient } from '@starling/model/client';
import { type BackendState, type ImportReport, TEST_CARD_SOURCE } from '@starling/model/entities';
import type { Logger } from 'pino';
import { importTestCard } from './demo-asset.ts';
import type { Library } from './library.ts';

type QueuedImport = BackendState['imports'][number];

const REPORT_EVERY_MS = 500;
const REPORT_ATTEMPTS = 20;

export class Imports {
  readonly #library: Library;
  readonly #coordinator: CoordinatorClient;
  readonly #logger: Logger;
  readonly #stop = new AbortController();
  #queue: readonly QueuedImport[] = [];
  /** Reported as ended; the coordinator's next word may still name them. */
  readonly #ended = new Set<string>();
  #current:
    | { readonly assetId: string; readonly cancel: AbortController; readonly done: Promise<void> }
    | undefined;

  constructor(options: { library: Library; coordinator: CoordinatorClient; logger: Logger }) {
    this.#library = options.library;
    this.#coordinator = options.coordinator;
    this.#logger = options.logger;
  }

  /** Takes over the queue; an import that is no longer in it is cancelled. */
  setQueue(queue: readonly QueuedImport[]): void {
    this.#queue = queue;
    for (const assetId of this.#ended)
      if (!queue.some((one) => one.assetId === assetId)) this.#ended.delete(assetId);
    const { assetId, cancel } = this.#current ?? {};
    if (assetId !== undefined && !queue.some((one) => one.assetId === assetId)) cancel?.abort();
    this.#next();
  }

  async close(): Promise<void> {
    this.#stop.abort();
    this.#current?.cancel.abort();
    await this.#current?.done;
  }

  #next(): void {
    if (this.#current !== undefined || this.#stop.signal.aborted) return;
    const queued = this.#queue.find((one) => !this.#ended.has(one.assetId));
    if (queued === undefined) return;
    const cancel = new AbortController();
    const done = this.#run(queued, cancel.signal).finally(() => {
      this.#current = undefined;
      this.#next();
    });
    this.#current = { assetId: queued.assetId, cancel, done };
  }

  async #run(queued: QueuedImport, signal: AbortSignal): Promise<void> {
    const { assetId, sourcePath } = queued;
    let lastReportMs = 0;
    const onProgress = (progress: number) => {
      if (performance.now() - lastReportMs < REPORT_EVERY_MS) return;
      lastReportMs = performance.now();
      // One report lost is no loss: the next follows.
      this.#coordinator.reportImport(assetId, { state: 'importing', progress }).catch(() => {});
    };
    this.#logger.info({ asset: assetId, sourcePath }, 'import started');
    let report: ImportReport;
    try {
      const facts =
        sourcePath === TEST_CARD_SOURCE
          ? await importTestCard(this.#library, { signal, onProgress })
          : await this.#library.import(sourcePath, { signal, onProgress });
      this.#logger.info({ asset: assetId }, 'import finished');
      report = { state: 'ready', facts };
    } catch (error) {
      if (signal.aborted) return; // cancelled, or to be done again after a restart
      const sentence = error instanceof Error ? error.message : String(error);
      this.#logger.warn({ asset: assetId, sourcePath, reason: sentence }, 'import failed');
      report = { state: 'failed', error: sentence };
    }
    this.#ended.add(assetId);
    await this.#deliver(assetId, report);
  }

  /** The outcome is worth some patience: the coordinator may be restarting. */
  async #deliver(assetId: string, report: ImportReport): Promise<void> {
    for (let attempt = 1; attempt <= REPORT_ATTEMPTS; attempt++) {
      try {
        await this.#coordinator.reportImport(assetId, report);
        return;
      } catch (error) {
        if (this.#stop.signal.aborted) return;
        this.#logger.warn(
          { asset: assetId, err: error },
          'the coordinator did not take the outcome of an import',
        );
        const waitMs = Math.min(10_000, 200 * 2 ** attempt) * (0.5 + Math.random() / 2);
        await new Promise((resolve) => setTimeout(resolve, waitMs));
      }
    }
    this.#ended.delete(assetId); // it runs again: its result is in the store, so that costs little
  }
}
