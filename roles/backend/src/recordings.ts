/**
 * The recordings that this backend makes and keeps: those that the operator asked for, and an hour after the
 * other of each channel that is always recorded.
 *
 * The way of a unit: a channel or stream -> {@link MovieWriter} (files and fragments) -> one queue to the disk ->
 * {@link RecordingFolder}. The live path only hands events over: a disk that is slow, full or gone costs
 * recordings, never the channel.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, statfs } from 'node:fs/promises';
import type { StreamEvent, Track } from '@starling/media/access-unit';
import { type MovieEvent, MovieWriter } from '@starling/media/fmp4/movie';
import { IngestGrid } from '@starling/media/ingest-grid';
import type { CoordinatorClient } from '@starling/model/client';
import {
  type AlwaysRecord,
  MAX_PARTS,
  MAX_REPORTED_PARTS,
  MAX_REPORTED_RECORDINGS,
  type RecordingEnd,
  type RecordingOrders,
  type ReportedRecording,
} from '@starling/model/recording';
import type { Logger } from 'pino';
import { Counter, Gauge, type Registry } from 'prom-client';
import { systemErrorCode } from './error.ts';
import { type RecordingFacts, RecordingFolder } from './recording-folder.ts';

export interface RecordingsOptions {
  readonly dir: string;
  readonly nodeId: string;
  readonly coordinator: Pick<CoordinatorClient, 'reportRecordings'>;
  readonly logger: Logger;
  readonly registry: Registry;
  readonly nowUnixMs: () => number;
  /** What an encoder of a stream has announced; nothing while none publishes. */
  tracksOf(stream: string): readonly Track[];
  /** Recordings end before less is left: the coordinator's database may be on the same disk. */
  readonly minFreeBytes?: number;
  /** What waits for the disk, of all recordings; more pauses the recording that brings it. */
  readonly maxQueuedBytes?: number;
}

/** A channel on the air here, as far as recordings go. */
export interface RecordableChannel {
  readonly record: AlwaysRecord | null;
  /** Where its events come from; undefined while this backend is not the one to record it. */
  readonly source: EventSource | undefined;
}

export interface EventSource {
  /** The listener hears the tracks at once, then every event. @returns ends that */
  tap(listener: (events: readonly StreamEvent[]) => void): () => void;
}

const MIN_FREE_BYTES = 256 * 1024 * 1024;
const MAX_QUEUED_BYTES = 128 * 1024 * 1024;
const AUTOMATIC_MS = 3_600_000;
/** The bounds of a channel that is always recorded are kept to a quarter. */
const FILES_WITHIN_BOUND = 4;
const TICK_MS = 1000;
const REPORT_EVERY_MS = 5000;
/** What was held back for the next fragment is written when nothing followed for so long. */
const IDLE_MS = 10_000;
/** A channel that is always recorded is tried again so long after the disk failed. */
const RETRY_AFTER_FAULT_MS = 60_000;
const CLOSE_WAIT_MS = 5000;

/** What takes the events of one source into recordings. */
interface Recorder {
  readonly key: string;
  /** Undefined for a channel that is always recorded: each of its files is a recording of its own. */
  readonly order: RecordingOrders['wanted'][number] | undefined;
  readonly channel: string | null;
  readonly bounds: AlwaysRecord | undefined;
  /** A channel, or the name of a stream. */
  readonly source: EventSource | string;
  writer: MovieWriter;
  /** Of the file that is being written. */
  fileBytes: number;
  /** Puts a stream on a timeline of its own. */
  grid: IngestGrid | undefined;
  /** Undefined while it is paused. */
  leave: (() => void) | undefined;
  /** What it writes to: changed by the disk queue alone. */
  folder: RecordingFolder | undefined;
  /** Infinity when nothing is held back. */
  lastEventAtMs: number;
  hasFailed: boolean;
}

type Wanted = Pick<Recorder, 'key' | 'order' | 'channel' | 'bounds' | 'source'>;

/** The disk has less room left than it must. */
class DiskFull extends Error {}
/** A recording has as many files as it may. */
class TooManyParts extends Error {}

export class Recordings {
  readonly #options: RecordingsOptions;
  readonly #folders = new Map<string, RecordingFolder>();
  readonly #recorders = new Map<string, Recorder>();
  #orders: RecordingOrders | undefined;
  #channels: ReadonlyMap<string, RecordableChannel> = new Map();
  #isLoaded = false;
  #isClosed = false;
  /** Orders that a fault ended here, until the coordinator has taken them back. */
  readonly #failedOrders = new Map<string, ReportedRecording>();
  readonly #retryAtMs = new Map<string, number>();
  /** The disk has one task at a time, so that never more than one thread of the pool waits for it. */
  #disk: Promise<void> = Promise.resolve();
  #queuedBytes = 0;
  readonly #unsynced = new Set<RecordingFolder>();
  #isSyncing = false;
  readonly #unreported = new Set<string>();
  readonly #unreportedRemovals = new Set<string>();
  #isReporting = false;
  #ticks = 0;
  readonly #timer: NodeJS.Timeout;
  readonly #faults: Counter<'reason'>;
  readonly #written: Counter;

  /** What lies in the folder is looked through first; nothing is recorded meanwhile. */
  constructor(options: RecordingsOptions) {
    this.#options = options;
    const { registry, logger, dir } = options;
    this.#faults = new Counter({
      name: 'starling_backend_recording_faults_total',
      help: 'Recordings that a fault ended or interrupted, by reason',
      labelNames: ['reason'],
      registers: [registry],
    });
    this.#written = new Counter({
      name: 'starling_backend_recording_written_bytes_total',
      help: 'Bytes of media that were written to recordings',
      registers: [registry],
    });
    const recordings = this.#recorders;
    const folders = this.#folders;
    new Gauge({
      name: 'starling_backend_recordings',
      help: 'Recordings that are being made',
      registers: [registry],
      collect() {
        this.set([...recordings.values()].filter(({ folder }) => folder !== undefined).length);
      },
    });
    new Gauge({
      name: 'starling_backend_recording_stored_bytes',
      help: 'Size of all recordings that are kept',
      registers: [registry],
      collect() {
        this.set([...folders.values()].reduce((sum, { sizeBytes }) => sum + sizeBytes, 0));
      },
    });
    this.#enqueue(0, async () => {
      try {
        await this.#load();
      } catch (error) {
        logger.error({ err: error, dir }, 'the folder of recordings cannot be read');
      }
      this.#isLoaded = true;
      this.#apply();
    });
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
  }

  /**
   * Takes over what is to be recorded, and the channels of which it may be.
   * @param channels all that there are, by name
   */
  update(orders: RecordingOrders, channels: ReadonlyMap<string, RecordableChannel>): void {
    this.#orders = orders;
    this.#channels = channels;
    this.#apply();
  }

  /** Takes what comes in of a stream, on its encoder's clock. */
  streamEvent(stream: string, event: StreamEvent): void {
    for (const recorder of this.#recorders.values()) {
      if (recorder.source !== stream || recorder.grid === undefined) continue;
      this.#take(recorder, recorder.grid.push(event, this.#options.nowUnixMs()));
    }
  }

  /** The publisher of the stream left. */
  streamEnded(stream: string): void {
    for (const recorder of this.#recorders.values()) {
      if (recorder.source !== stream || recorder.grid === undefined) continue;
      this.#take(recorder, recorder.grid.endOfPublisher());
    }
  }

  /** Finishes the open files. What the operator wants goes on after the next start. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    clearInterval(this.#timer);
    for (const recorder of [...this.#recorders.values()]) {
      this.#stop(recorder, recorder.order === undefined ? 'interrupted' : undefined);
    }
    await atMost(CLOSE_WAIT_MS, this.#disk);
    await atMost(TICK_MS, this.#report());
  }

  async #load(): Promise<void> {
    const { dir, logger } = this.#options;
    await mkdir(dir, { recursive: true, mode: 0o700 });
    for (const id of await RecordingFolder.list(dir)) {
      try {
        const folder = await RecordingFolder.open(dir, id);
        if (folder === undefined) continue;
        this.#folders.set(id, folder);
        this.#unreported.add(id);
      } catch (error) {
        logger.error({ err: error, recording: id }, 'a recording cannot be read; it is left as it is');
      }
    }
  }

  /** Starts and stops recorders until they are those that are wanted. */
  #apply(): void {
    const orders = this.#orders;
    if (orders === undefined || !this.#isLoaded || this.#isClosed) return;
    const orderIds = new Set(orders.wanted.map(({ id }) => id));
    for (const id of this.#failedOrders.keys()) if (!orderIds.has(id)) this.#failedOrders.delete(id);
    const wanted = this.#wanted(orders);
    for (const recorder of [...this.#recorders.values()]) {
      if (wanted.get(recorder.key)?.source === recorder.source) continue;
      this.#stop(recorder, this.#reasonToStop(recorder, orderIds));
    }
    for (const one of wanted.values()) if (!this.#recorders.has(one.key)) this.#start(one);

    for (const id of orders.removedIds) {
      this.#enqueue(0, () => this.#remove(id));
    }
    // Of a process before this one, which ended in their midst.
    this.#enqueue(0, async () => {
      for (const folder of this.#folders.values()) {
        const isOpen = orderIds.has(folder.facts.id) || this.#recorderOf(folder) !== undefined;
        if (folder.end === null && !isOpen) await this.#end(folder, 'interrupted', folder.endUnixMs);
      }
    });
  }

  #wanted({ wanted: orders }: RecordingOrders): Map<string, Wanted> {
    const wanted = new Map<string, Wanted>();
    for (const order of orders) {
      const { id, channel, stream } = order;
      const source = channel === null ? stream : this.#channels.get(channel)?.source;
      if (source === null || source === undefined || this.#failedOrders.has(id)) continue;
      wanted.set(id, { key: id, order, channel, bounds: undefined, source });
    }
    for (const [channel, { record, source }] of this.#channels) {
      if (record === null || source === undefined) continue;
      if ((this.#retryAtMs.get(channel) ?? 0) > performance.now()) continue;
      // The bounds are a part of the key: a recorder goes by those that it started with.
      const key = `${channel} ${JSON.stringify(record)}`;
      wanted.set(key, { key, order: undefined, channel, bounds: record, source });
    }
    return wanted;
  }

  /** Undefined where the recording may go on later. */
  #reasonToStop({ order, channel }: Recorder, orderIds: ReadonlySet<string>): RecordingEnd | undefined {
    if (order !== undefined) return orderIds.has(order.id) ? undefined : 'stopped';
    const known = this.#channels.get(channel ?? '');
    if (known === undefined) return 'source-removed';
    if (known.record === null) return 'stopped';
    return known.source === undefined ? 'interrupted' : 'complete';
  }

  #start(wanted: Wanted): void {
    const recorder: Recorder = {
      ...wanted,
      writer: newWriter(wanted.bounds),
      fileBytes: 0,
      grid: undefined,
      leave: undefined,
      folder: undefined,
      lastEventAtMs: Number.POSITIVE_INFINITY,
      hasFailed: false,
    };
    this.#recorders.set(recorder.key, recorder);
    this.#listen(recorder);
  }

  #listen(recorder: Recorder): void {
    const { source } = recorder;
    if (typeof source !== 'string') {
      recorder.leave = source.tap((events) => this.#take(recorder, events));
      return;
    }
    const nowUnixMs = this.#options.nowUnixMs();
    const grid = new IngestGrid({
      epochUnixMs: Math.floor(nowUnixMs / 1000) * 1000,
      programmeId: 'recording',
    });
    recorder.grid = grid;
    recorder.leave = () => {
      recorder.grid = undefined;
    };
    for (const track of this.#options.tracksOf(source)) {
      this.#take(recorder, grid.push({ type: 'track', track }, nowUnixMs));
    }
  }

  #take(recorder: Recorder, events: readonly StreamEvent[]): void {
    if (events.length === 0) return;
    recorder.lastEventAtMs = performance.now();
    this.#write(
      recorder,
      events.flatMap((event) => recorder.writer.push(event)),
    );
    if (this.#queuedBytes <= (this.#options.maxQueuedBytes ?? MAX_QUEUED_BYTES)) return;
    this.#options.logger.error({ ...nameOf(recorder) }, 'recording paused: the disk is too slow');
    this.#faults.inc({ reason: 'disk-slow' });
    this.#pause(recorder);
  }

  /** What comes meanwhile is not recorded; it goes on with a file of its own. */
  #pause(recorder: Recorder): void {
    recorder.leave?.();
    recorder.leave = undefined;
    this.#write(recorder, recorder.writer.end());
    recorder.writer = newWriter(recorder.bounds);
    recorder.lastEventAtMs = Number.POSITIVE_INFINITY;
  }

  /** @param reason undefined where the recording may go on later */
  #stop(recorder: Recorder, reason: RecordingEnd | undefined): void {
    this.#pause(recorder);
    this.#recorders.delete(recorder.key);
    this.#enqueue(0, async () => {
      const { folder = this.#folders.get(recorder.order?.id ?? '') } = recorder;
      recorder.folder = undefined;
      if (folder === undefined || folder.end !== null) return;
      if (reason !== undefined) await this.#end(folder, reason, this.#options.nowUnixMs());
      else await folder.finishPart();
      this.#changed(folder);
    });
  }

  #write(recorder: Recorder, made: readonly MovieEvent[]): void {
    const maxFileBytes = (recorder.bounds?.maxBytes ?? Number.POSITIVE_INFINITY) / FILES_WITHIN_BOUND;
    for (const event of made) {
      const { length } = event.type === 'file' ? event.head : event.bytes;
      recorder.fileBytes = event.type === 'file' ? length : recorder.fileBytes + length;
      if (recorder.fileBytes > maxFileBytes) recorder.writer.beginFile();
      this.#enqueue(length, async () => {
        if (recorder.hasFailed) return;
        try {
          if (event.type === 'file') recorder.folder = await this.#folderFor(recorder, event.startUnixMs);
          const { folder } = recorder;
          if (folder === undefined) return;
          await folder.write(event);
          this.#written.inc(length);
          if (event.type === 'file') {
            this.#changed(folder);
            void this.#report();
          }
          this.#sync(folder);
        } catch (error) {
          await this.#fail(recorder, error);
        }
      });
    }
  }

  /** The folder that a new file goes to. */
  async #folderFor(recorder: Recorder, startUnixMs: number): Promise<RecordingFolder> {
    const { dir, logger } = this.#options;
    if (await this.#isDiskFull()) throw new DiskFull();
    const { order, channel, folder: before } = recorder;
    if (order !== undefined) {
      const known = before ?? this.#folders.get(order.id);
      if (known !== undefined && known.partCount >= MAX_PARTS) throw new TooManyParts();
      if (known !== undefined) return known;
    } else if (before !== undefined) {
      await this.#end(before, 'complete', before.endUnixMs);
      await this.#retain();
    }
    const startedAt = new Date(startUnixMs).toISOString();
    const facts: RecordingFacts = {
      id: order?.id ?? randomBytes(8).toString('hex'),
      name: order?.name ?? `${channel} ${startedAt}`,
      channel,
      stream: order?.stream ?? null,
      isAutomatic: order === undefined,
      createdAt: order?.createdAt ?? startedAt,
    };
    const folder = await RecordingFolder.create(dir, facts);
    this.#folders.set(facts.id, folder);
    logger.info({ recording: facts.id, ...nameOf(recorder) }, 'recording started');
    return folder;
  }

  /** A fault of the disk ends the recording; the channel does not notice. */
  async #fail(recorder: Recorder, error: unknown): Promise<void> {
    if (recorder.hasFailed) return;
    const reason = reasonOf(error);
    const { folder, order } = recorder;
    this.#options.logger.error(
      { recording: folder?.facts.id, ...nameOf(recorder), reason, err: error },
      'recording ended',
    );
    this.#faults.inc({ reason });
    recorder.hasFailed = true;
    recorder.folder = undefined;
    recorder.leave?.();
    this.#recorders.delete(recorder.key);
    const end = { reason, at: new Date(this.#options.nowUnixMs()).toISOString() };
    if (folder !== undefined) await this.#end(folder, reason, Date.parse(end.at));
    if (order === undefined) {
      this.#retryAtMs.set(recorder.channel ?? '', performance.now() + RETRY_AFTER_FAULT_MS);
    } else {
      const { name, channel, stream, id, createdAt } = order;
      const told = { id, name, channel, stream, createdAt, isAutomatic: false, isRecording: false, end };
      this.#failedOrders.set(id, { ...told, parts: folder?.report(false).parts ?? [] });
      this.#unreported.add(id);
    }
    void this.#report();
  }

  /** What cannot be written of the end is made up for at the next start. */
  async #end(folder: RecordingFolder, reason: RecordingEnd, atUnixMs: number): Promise<void> {
    await folder.close(reason, atUnixMs).catch((error: unknown) => {
      this.#options.logger.warn(
        { recording: folder.facts.id, err: error },
        'the end of a recording was not written',
      );
    });
    this.#changed(folder);
  }

  async #remove(id: string): Promise<void> {
    try {
      await this.#folders.get(id)?.remove();
      if (this.#folders.delete(id)) this.#options.logger.info({ recording: id }, 'recording removed');
      this.#unreported.delete(id);
      this.#unreportedRemovals.add(id);
      void this.#report();
    } catch (error) {
      this.#options.logger.error({ recording: id, err: error }, 'a recording cannot be removed');
    }
  }

  /** Keeps the bounds of the channels that are always recorded. */
  async #retain(): Promise<void> {
    for (const [channel, { record }] of this.#channels) {
      if (record === null) continue;
      const ofChannel = [...this.#folders.values()]
        .filter(({ facts }) => facts.isAutomatic && facts.channel === channel)
        .sort((a, b) => a.endUnixMs - b.endUnixMs);
      const { maxHours, maxBytes } = record;
      const oldestUnixMs = maxHours === null ? 0 : this.#options.nowUnixMs() - maxHours * 3_600_000;
      let totalBytes = ofChannel.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
      for (const folder of ofChannel) {
        if (folder.end === null) continue;
        const isTooMuch = maxBytes !== null && totalBytes > maxBytes;
        if (folder.endUnixMs >= oldestUnixMs && !isTooMuch) break;
        totalBytes -= folder.sizeBytes;
        await this.#remove(folder.facts.id);
      }
    }
  }

  #tick(): void {
    const nowMs = performance.now();
    this.#ticks++;
    for (const recorder of this.#recorders.values()) {
      if (nowMs - recorder.lastEventAtMs > IDLE_MS) this.#finishIdle(recorder);
      const isDiskReady = this.#queuedBytes < (this.#options.maxQueuedBytes ?? MAX_QUEUED_BYTES) / 2;
      if (recorder.leave === undefined && isDiskReady) this.#listen(recorder);
    }
    if (this.#ticks % (REPORT_EVERY_MS / TICK_MS) !== 0) return;
    for (const { folder } of this.#recorders.values()) if (folder !== undefined) this.#changed(folder);
    void this.#report();
    this.#enqueue(0, async () => {
      if (this.#recorders.size > 0 && (await this.#isDiskFull())) {
        for (const recorder of [...this.#recorders.values()]) {
          if (recorder.folder !== undefined) await this.#fail(recorder, new DiskFull());
        }
      }
      await this.#retain();
      this.#apply();
    });
  }

  /** Nothing comes any more: what was held back is written, and the file finished. */
  #finishIdle(recorder: Recorder): void {
    recorder.lastEventAtMs = Number.POSITIVE_INFINITY;
    this.#write(recorder, recorder.writer.end());
    this.#enqueue(0, async () => {
      await recorder.folder?.finishPart();
    });
  }

  async #isDiskFull(): Promise<boolean> {
    const { dir, minFreeBytes = MIN_FREE_BYTES } = this.#options;
    const { bavail, bsize } = await statfs(dir);
    return bavail * bsize < minFreeBytes;
  }

  #enqueue(sizeBytes: number, task: () => Promise<void>): void {
    this.#queuedBytes += sizeBytes;
    this.#disk = this.#disk
      .then(task)
      .catch((error: unknown) => {
        this.#options.logger.error({ err: error }, 'a recording could not be kept in order');
      })
      .finally(() => {
        this.#queuedBytes -= sizeBytes;
      });
  }

  /** Brings what was written to the disk itself, one recording at a time, beside the queue. */
  #sync(folder: RecordingFolder): void {
    this.#unsynced.add(folder);
    if (this.#isSyncing) return;
    this.#isSyncing = true;
    const syncAll = async () => {
      for (const next of this.#unsynced) {
        this.#unsynced.delete(next);
        await next.sync().catch((error: unknown) => {
          const recorder = this.#recorderOf(next);
          if (recorder !== undefined) this.#enqueue(0, () => this.#fail(recorder, error));
        });
      }
      this.#isSyncing = false;
    };
    void syncAll();
  }

  #recorderOf(folder: RecordingFolder): Recorder | undefined {
    return [...this.#recorders.values()].find((recorder) => recorder.folder === folder);
  }

  #changed(folder: RecordingFolder): void {
    this.#unreported.add(folder.facts.id);
    if (folder.end !== null) void this.#report();
  }

  /** Tells the coordinator what has changed; what it does not take is told again. */
  async #report(): Promise<void> {
    if (this.#isReporting) return;
    this.#isReporting = true;
    try {
      while (this.#unreported.size > 0 || this.#unreportedRemovals.size > 0) {
        const recordings = this.#takeUnreported();
        const removedIds = [...this.#unreportedRemovals];
        this.#unreportedRemovals.clear();
        try {
          const { nodeId, coordinator } = this.#options;
          await coordinator.reportRecordings({ nodeId, recordings, removedIds });
        } catch (error) {
          for (const { id } of recordings) this.#unreported.add(id);
          for (const id of removedIds) this.#unreportedRemovals.add(id);
          this.#options.logger.debug({ err: error }, 'the coordinator did not take the report on recordings');
          return;
        }
      }
    } finally {
      this.#isReporting = false;
    }
  }

  /** As much as fits into one report. */
  #takeUnreported(): ReportedRecording[] {
    const taken: ReportedRecording[] = [];
    let partCount = 0;
    for (const id of this.#unreported) {
      const folder = this.#folders.get(id);
      const report = this.#failedOrders.get(id) ?? folder?.report(this.#recorderOf(folder) !== undefined);
      partCount += report?.parts.length ?? 0;
      if (taken.length >= MAX_REPORTED_RECORDINGS || (partCount > MAX_REPORTED_PARTS && taken.length > 0))
        break;
      this.#unreported.delete(id);
      if (report !== undefined) taken.push(report);
    }
    return taken;
  }
}

function newWriter(bounds: AlwaysRecord | undefined): MovieWriter {
  if (bounds === undefined) return new MovieWriter();
  const boundMs = (bounds.maxHours ?? Number.POSITIVE_INFINITY) * 3_600_000;
  return new MovieWriter({ fileDurationMs: Math.min(AUTOMATIC_MS, boundMs / FILES_WITHIN_BOUND) });
}

function nameOf({ order, channel }: Recorder): { channel: string } | { stream: string | null } {
  return channel === null ? { stream: order?.stream ?? null } : { channel };
}

function reasonOf(error: unknown): RecordingEnd {
  if (error instanceof TooManyParts) return 'too-many-parts';
  const code = systemErrorCode(error);
  return error instanceof DiskFull || code === 'ENOSPC' || code === 'EDQUOT' ? 'disk-full' : 'disk-failed';
}

async function atMost(ms: number, work: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const deadline = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms);
  });
  await Promise.race([work, deadline]);
  clearTimeout(timer);
}
