/** Runs the imports that the coordinator has queued, a few at a time, and reports on each. */
import { SpanStatusCode, trace } from '@opentelemetry/api';
import type { CoordinatorClient } from '@starling/model/client';
import { type BackendState, type ImportReport, TEST_CARD_SOURCE } from '@starling/model/entities';
import { defaultLibrarySettings, type LibrarySettings } from '@starling/model/library';
import type { AssetFacts } from '@starling/model/schedule';
import type { Logger } from 'pino';
import { importTestCard } from './demo-asset.ts';
import { BackendError, type BackendErrorCode } from './error.ts';
import { type ImportOptions, isUrl, type Library } from './library.ts';
import { displayUrl } from './source-download.ts';

const tracer = trace.getTracer('starling');

type QueuedImport = BackendState['imports'][number];

const REPORT_EVERY_MS = 500;
const REPORT_ATTEMPTS = 20;

/** Failures whose cause may pass by itself. */
const TRANSIENT_CODES: ReadonlySet<BackendErrorCode> = new Set([
  'IMPORT_FILE_CHANGED',
  'IMPORT_STALLED',
  'IMPORT_URL_FAILED',
]);
/** A source gets so many tries, with waits of about these lengths between them. */
const RETRY_WAITS_MS = [5000, 30_000, 120_000] as const;

/** An import between its start and its last report. */
interface RunningImport {
  readonly cancel: AbortController;
  readonly done: Promise<void>;
}

export interface ImportsOptions {
  readonly library: Pick<Library, 'import' | 'importFrom'>;
  readonly coordinator: Pick<CoordinatorClient, 'reportImport'>;
  readonly logger: Logger;
  /** How many run at once: encoders use one core each. */
  readonly parallelism: number;
  readonly retryWaitsMs?: readonly number[];
}

export class Imports {
  readonly #library: ImportsOptions['library'];
  readonly #coordinator: ImportsOptions['coordinator'];
  readonly #logger: Logger;
  readonly #parallelism: number;
  readonly #retryWaitsMs: readonly number[];
  #isClosed = false;
  #settings: LibrarySettings = defaultLibrarySettings;
  #queue: readonly QueuedImport[] = [];
  /** By {@link keyOf}. One that waits to be tried again gives its turn to others. */
  readonly #running = new Map<string, RunningImport>();
  readonly #waiting = new Map<string, NodeJS.Timeout>();
  /** How often each has failed for a reason that may pass. */
  readonly #tries = new Map<string, number>();
  /** Reported as ended; the coordinator's next word may still name them. */
  readonly #ended = new Set<string>();

  constructor(options: ImportsOptions) {
    this.#library = options.library;
    this.#coordinator = options.coordinator;
    this.#logger = options.logger;
    this.#parallelism = options.parallelism;
    this.#retryWaitsMs = options.retryWaitsMs ?? RETRY_WAITS_MS;
  }

  /** Takes over the queue; an import that is no longer in it is cancelled. */
  setQueue(queue: readonly QueuedImport[], settings: LibrarySettings): void {
    this.#queue = queue;
    this.#settings = settings;
    const keys = new Set(queue.map(keyOf));
    for (const key of this.#ended) if (!keys.has(key)) this.#ended.delete(key);
    for (const key of this.#tries.keys()) if (!keys.has(key)) this.#tries.delete(key);
    for (const [key, { cancel }] of this.#running) if (!keys.has(key)) cancel.abort();
    for (const [key, timer] of this.#waiting) {
      if (keys.has(key)) continue;
      clearTimeout(timer);
      this.#waiting.delete(key);
    }
    this.#next();
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    for (const timer of this.#waiting.values()) clearTimeout(timer);
    this.#waiting.clear();
    for (const { cancel } of this.#running.values()) cancel.abort();
    await Promise.all([...this.#running.values()].map(({ done }) => done));
  }

  #next(): void {
    for (const queued of this.#queue) {
      if (this.#isClosed || this.#running.size >= this.#parallelism) return;
      const key = keyOf(queued);
      if (this.#running.has(key) || this.#waiting.has(key) || this.#ended.has(key)) continue;
      const cancel = new AbortController();
      const done = this.#run(queued, cancel.signal).finally(() => {
        this.#running.delete(key);
        this.#next();
      });
      this.#running.set(key, { cancel, done });
    }
  }

  async #run(queued: QueuedImport, signal: AbortSignal): Promise<void> {
    const { assetId, source } = queued;
    const key = keyOf(queued);
    const shown = isUrl(source) ? displayUrl(source) : source;
    let lastReportMs = Number.NEGATIVE_INFINITY;
    const onProgress = (progress: number) => {
      if (performance.now() - lastReportMs < REPORT_EVERY_MS) return;
      lastReportMs = performance.now();
      // One report lost is no loss: the next follows.
      this.#coordinator.reportImport(assetId, { state: 'importing', progress }).catch(() => {});
    };
    this.#logger.info({ asset: assetId, source: shown }, 'import started');
    const span = tracer.startSpan('import', { attributes: { 'starling.asset': assetId } });
    let report: ImportReport;
    try {
      const facts = await this.#import(source, { signal, onProgress });
      span.end();
      this.#logger.info({ asset: assetId }, 'import finished');
      report = { state: 'ready', facts };
    } catch (error) {
      const sentence = error instanceof Error ? error.message : String(error);
      span.setStatus({ code: SpanStatusCode.ERROR, message: signal.aborted ? 'cancelled' : sentence }).end();
      if (signal.aborted) return; // cancelled, or to be done again after a restart
      this.#logger.warn({ asset: assetId, source: shown, reason: sentence }, 'import failed');
      if (error instanceof BackendError && TRANSIENT_CODES.has(error.code)) {
        const tries = this.#tries.get(key) ?? 0;
        this.#tries.set(key, tries + 1);
        const waitMs = this.#retryWaitsMs[tries];
        if (waitMs !== undefined) {
          this.#wait(key, waitMs);
          this.#coordinator.reportImport(assetId, { state: 'queued', error: sentence }).catch(() => {});
          return;
        }
      }
      report = { state: 'failed', error: sentence };
    }
    this.#ended.add(key);
    await this.#deliver(assetId, key, report, signal);
  }

  #import(source: string, options: ImportOptions): Promise<AssetFacts> {
    return source === TEST_CARD_SOURCE
      ? importTestCard(this.#library, options)
      : this.#library.import(source, this.#settings, options);
  }

  #wait(key: string, waitMs: number): void {
    const resume = () => {
      this.#waiting.delete(key);
      this.#next();
    };
    this.#waiting.set(key, setTimeout(resume, waitMs * (0.75 + Math.random() / 2)));
  }

  /** The outcome is worth some patience: the coordinator may be restarting. */
  async #deliver(assetId: string, key: string, report: ImportReport, signal: AbortSignal): Promise<void> {
    for (let attempt = 1; attempt <= REPORT_ATTEMPTS; attempt++) {
      try {
        await this.#coordinator.reportImport(assetId, report);
        return;
      } catch (error) {
        if (signal.aborted) return;
        this.#logger.warn(
          { asset: assetId, err: error },
          'the coordinator did not take the outcome of an import',
        );
        const waitMs = Math.min(10_000, 200 * 2 ** attempt) * (0.5 + Math.random() / 2);
        await new Promise((resolve) => setTimeout(resolve, waitMs));
      }
    }
    this.#ended.delete(key); // it runs again: its result is in the store, so that costs little
  }
}

/** An import that the operator asked for again is another one. */
function keyOf({ assetId, attempt }: QueuedImport): string {
  return `${assetId} ${attempt}`;
}
