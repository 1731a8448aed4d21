/**
 * The frontend's side of the coordinator: it follows who may watch, and reports who does. When the coordinator is
 * gone, what it said last goes on to hold; with a data folder also after a restart.
 */
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { CoordinatorClient } from '@starling/model/client';
import {
  FrontendState,
  MAX_REPORTED_STRETCHES,
  type OwedStretches,
  ViewerStretch,
} from '@starling/model/entities';
import { Spool } from '@starling/model/spool';
import type { Logger } from 'pino';
import { Check } from 'typebox/value';
import { ViewerReports } from './viewer-reports.ts';
import { CHANNEL_FULL_TEXT, TOKEN_FULL_TEXT, type ViewerRegistry } from './viewers.ts';

const FILE = 'frontend-state.json';
const REPORT_EVERY_MS = 2000;
/** After a change; others that follow soon go into the same report. */
const REPORT_CHANGE_AFTER_MS = 500;
const LOOK_EVERY_MS = 100;
/** What the coordinator says of all frontends together is forgotten when it says nothing for so long. */
const FULLNESS_LIFETIME_MS = 10_000;
/** Stretches of sessions that wait for the coordinator; a further one drives out the oldest. */
const MAX_OWED = 50_000;
/** For the last report, when the frontend ends. */
const FAREWELL_MS = 500;

export interface CoordinatorLinkOptions {
  readonly client: CoordinatorClient;
  /** Keeps the last state; undefined to keep none. */
  readonly dataDir: string | undefined;
  /** Keeps what is owed; in memory alone when undefined. */
  readonly spoolPath: string | undefined;
  readonly viewers: ViewerRegistry;
  readonly logger: Logger;
  readonly onState: (state: FrontendState) => void;
}

export class CoordinatorLink {
  readonly #options: CoordinatorLinkOptions;
  readonly #reports: ViewerReports;
  readonly #spool: Spool<typeof ViewerStretch>;
  readonly #abort = new AbortController();
  readonly #watching: Promise<void>;
  readonly #timer: NodeJS.Timeout;
  #saving: Promise<void> = Promise.resolve();
  #unsaved: FrontendState | undefined;
  #isReporting = false;
  #owesMore = false;
  #reportedRevision = -1;
  #reportedAtMs = Number.NEGATIVE_INFINITY;
  #full: { readonly channels: ReadonlySet<string>; readonly tokenIds: ReadonlySet<string> } | undefined;

  private constructor(options: CoordinatorLinkOptions) {
    this.#options = options;
    this.#reports = new ViewerReports(options.viewers);
    this.#spool = new Spool({
      path: options.spoolPath,
      schema: ViewerStretch,
      maxEntries: MAX_OWED,
      onError: (error) =>
        options.logger.error({ err: error }, 'sessions of viewers cannot be kept on disk, only in memory'),
    });
    this.#watching = options.client.watchFrontendState(
      (state) => this.#take(state),
      this.#abort.signal,
      (error, delayMs) =>
        options.logger.debug(
          { err: error, delayMs },
          'the coordinator cannot be followed; it is tried again',
        ),
    );
    this.#timer = setInterval(() => this.#look(), LOOK_EVERY_MS);
    this.#timer.unref();
  }

  /** Takes up what was known at the last end, then follows. Does not wait for the coordinator. */
  static async open(options: CoordinatorLinkOptions): Promise<CoordinatorLink> {
    const saved = await loadState(options);
    if (saved !== undefined) options.onState(saved);
    return new CoordinatorLink(options);
  }

  /**
   * Why there is no room for one more viewer on all frontends together, as last heard.
   * @returns a sentence for the viewer; undefined when there is room
   */
  whyFull(channel: string, tokenId: string | undefined): string | undefined {
    if (performance.now() - this.#reportedAtMs > FULLNESS_LIFETIME_MS) return undefined;
    if (this.#full?.channels.has(channel)) return CHANNEL_FULL_TEXT;
    return tokenId !== undefined && this.#full?.tokenIds.has(tokenId) ? TOKEN_FULL_TEXT : undefined;
  }

  /** A stretch of a session is over: the coordinator is told, once, when it can be. */
  owe(stretch: ViewerStretch): void {
    this.#spool.add(stretch);
  }

  get #owed(): OwedStretches {
    return { spoolId: this.#spool.id, entries: [...this.#spool.pending(MAX_REPORTED_STRETCHES)] };
  }

  /** Ends both, and tells the coordinator that nobody watches here any more, if it listens. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    this.#abort.abort();
    await this.#spool.flushed();
    const farewell = this.#options.client
      .reportFrontend({ ...this.#reports.last(), owed: this.#owed })
      .then(({ takenSequence = 0 }) => this.#spool.taken(takenSequence));
    let deadline: NodeJS.Timeout | undefined;
    const enough = new Promise((resolve) => {
      deadline = setTimeout(resolve, FAREWELL_MS);
    });
    await Promise.race([farewell.catch(() => undefined), enough]);
    clearTimeout(deadline);
    await Promise.all([this.#watching, this.#saving]);
    await this.#spool.close();
  }

  #take(state: FrontendState): void {
    const { viewers, onState } = this.#options;
    onState(state);
    for (const id of state.endedViewerIds) {
      if (!viewers.isKicked(id)) viewers.kick(id);
    }
    if (this.#options.dataDir === undefined) return;
    if (this.#unsaved === undefined) this.#saving = this.#saving.then(() => this.#save());
    this.#unsaved = state;
  }

  /** Beside its place first, so that a kill half-way leaves the state before. */
  async #save(): Promise<void> {
    const { dataDir = '', logger } = this.#options;
    const state = this.#unsaved;
    this.#unsaved = undefined;
    const path = join(dataDir, FILE);
    const newPath = `${path}.${process.pid}`;
    try {
      await mkdir(dataDir, { recursive: true, mode: 0o700 });
      // It holds what the names of private segments are made with.
      await writeFile(newPath, JSON.stringify(state), { mode: 0o600 });
      await rename(newPath, path);
    } catch (error) {
      logger.error({ err: error, path }, 'the last state of the coordinator cannot be kept');
    }
  }

  #look(): void {
    if (this.#isReporting) return;
    const sinceMs = performance.now() - this.#reportedAtMs;
    const isChanged = this.#options.viewers.revision !== this.#reportedRevision;
    const isDue =
      sinceMs >= REPORT_EVERY_MS ||
      (isChanged && sinceMs >= REPORT_CHANGE_AFTER_MS) ||
      this.#owesMore ||
      this.#reports.isBehind;
    if (isDue) void this.#report();
  }

  async #report(): Promise<void> {
    const { client, viewers, logger } = this.#options;
    this.#isReporting = true;
    this.#reportedRevision = viewers.revision;
    try {
      const report = { ...this.#reports.next(), owed: this.#owed };
      const { isKnown, fullChannels, fullTokenIds, takenSequence } = await client.reportFrontend(report);
      if (takenSequence !== undefined) this.#spool.taken(takenSequence);
      this.#owesMore = takenSequence !== undefined && this.#spool.size > 0;
      if (!isKnown) this.#reports.startAnew();
      this.#full = { channels: new Set(fullChannels), tokenIds: new Set(fullTokenIds) };
      this.#reportedAtMs = performance.now();
    } catch (error) {
      logger.debug({ err: error }, 'the coordinator did not take the report; the next one follows');
      this.#reports.startAnew();
      this.#reportedRevision = -1;
      await new Promise((wake) => setTimeout(wake, REPORT_EVERY_MS * (0.5 + Math.random())).unref());
    } finally {
      this.#isReporting = false;
    }
  }
}

async function loadState({ dataDir, logger }: CoordinatorLinkOptions): Promise<FrontendState | undefined> {
  if (dataDir === undefined) return undefined;
  const path = join(dataDir, FILE);
  try {
    const state: unknown = JSON.parse(await readFile(path, 'utf8'));
    if (Check(FrontendState, state)) return state;
    logger.warn(
      { path },
      'the kept state is of another version; nothing is served until the coordinator answers',
    );
  } catch (error) {
    const isFirstStart = error instanceof Error && 'code' in error && error.code === 'ENOENT';
    if (!isFirstStart) {
      logger.warn(
        { err: error, path },
        'the kept state cannot be read; nothing is served until the coordinator answers',
      );
    }
  }
  return undefined;
}
