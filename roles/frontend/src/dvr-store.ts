/**
 * The recordings of all channels on disk: what viewers rewind into (docs/formats/recording.md).
 *
 *   <dir>/<channel>/<rendition>/<time>-<number>-...-<size>.m4s     a segment
 *   <dir>/<channel>/<rendition>/init-<id>[-<language>].mp4         an init segment
 *
 * A file's name says all that a playlist says of it, so the folder is its own index. Files appear whole, by
 * renaming. Segments of one name have the same bytes whoever makes them, so several processes share a
 * folder without knowing of each other: what one of them misses, another one has.
 *
 * The live path only hands segments over. A disk that is slow, full or gone costs segments of the recording.
 */
import { randomUUID } from 'node:crypto';
import {
  access,
  type FileHandle,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rmdir,
  stat,
  unlink,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import type { Track } from '@starling/media/access-unit';
import { parseInitSegment } from '@starling/media/fmp4/init-segment';
import {
  endUnixMs,
  epochUnixMs,
  isNext,
  type RecordedSegment,
  recordedSegment,
} from '@starling/media/hls/recording';
import type { InitSegment, Segment } from '@starling/media/hls/segmenter';
import type { Logger } from 'pino';

export interface DvrStoreOptions {
  readonly dir: string;
  /** Segments older than this are not listed. */
  readonly windowMs: number;
  /** Of all channels together. The largest gives way first. */
  readonly maxBytes: number;
  readonly logger: Logger;
  readonly onDropped?: (channel: string) => void;
  /** Segments that wait for the disk; more are dropped. */
  readonly maxQueuedBytes?: number;
  /** Wall-clock time in milliseconds since 1970. */
  readonly nowUnixMs?: () => number;
}

const MAX_QUEUED_BYTES = 64 * 2 ** 20;

/** A segment that is listed no more stays this long, for whoever still has the playlist. */
export const GRACE_MS = 5 * 60_000;
/** The same for the bound in bytes: so much of it may be listed. */
const LISTED_SHARE_OF_BYTES = 0.95;
/** A channel whose newest segment is older has left the air: its window moves on with the clock. */
const OFF_AIR_AFTER_MS = 60_000;

const ALARM_INTERVAL_MS = 60_000;
/** How long `close` waits for the disk. */
const CLOSE_WAIT_MS = 2000;
/** A file that is being written is younger, whichever process writes it. */
const STALE_TEMPORARY_MS = 60_000;
/** After a power cut files may be shorter than what was written so long before it: Linux writes back after 30 s. */
const UNWRITTEN_MS = 120_000;
/** How long a start waits to know what lies in the folder. */
const LOAD_WAIT_MS = 3000;

const CHANNEL = /^[a-z0-9-]{1,63}$/;
const RENDITION = /^(?:main|(?:video|audio)-\d{1,3})$/;
const SEGMENT_FILE =
  /^(\d{1,15})-(\d{1,13})-(\d{1,13})-(\d{1,15})-(\d{1,10})-(\d{1,16})-([ik])-([0-9a-f]{16})-(\d{1,10})\.m4s$/;
const INIT_FILE = /^init-([0-9a-f]{16})(?:-([A-Za-z0-9-]{1,35}))?\.mp4$/;
const LANGUAGE = /^[A-Za-z0-9-]{1,35}$/;
const TEMPORARY_FILE = /^tmp-[0-9a-f-]{36}$/;

/** The recording of one rendition. */
interface Lane {
  readonly channel: string;
  readonly rendition: string;
  /** Oldest first. */
  segments: RecordedSegment[];
  /** Those before it are kept, but not listed. */
  firstListed: number;
  listedBytes: number;
  /** Of all segments. */
  keptBytes: number;
  /** Rises whenever the list changes. */
  revision: number;
  /** By id; undefined for tracks that are to be read from the file. */
  readonly inits: Map<string, { readonly fileName: string; tracks: readonly Track[] | undefined }>;
  /** Its files are written and removed one after another. */
  tail: Promise<void>;
  queuedCount: number;
}

export class DvrStore {
  readonly #options: DvrStoreOptions;
  readonly #nowUnixMs: () => number;
  readonly #channels = new Map<string, Map<string, Lane>>();
  /** Resolves when what lies in the folder is known. Never rejects. */
  readonly #loaded: Promise<void>;
  #queuedBytes = 0;
  #isClosed = false;
  /** Since the last line in the log. */
  #droppedCount = 0;
  #alarmedAtMs = Number.NEGATIVE_INFINITY;
  #isFailing = false;

  /**
   * Opens the folder, and makes it where it is missing. Never rejects: without a disk nothing is recorded, and
   * the log says so.
   */
  static async open(options: DvrStoreOptions): Promise<DvrStore> {
    const store = new DvrStore(options);
    await waitAtMost(LOAD_WAIT_MS, store.#loaded);
    return store;
  }

  private constructor(options: DvrStoreOptions) {
    this.#options = options;
    this.#nowUnixMs = options.nowUnixMs ?? Date.now;
    this.#loaded = this.#load().catch((error: unknown) => {
      options.logger.error({ err: error, dir: options.dir }, 'the recordings of before cannot be read');
    });
  }

  /** No segment is listed that is older. */
  get windowMs(): number {
    return this.#options.windowMs;
  }

  /**
   * Records a segment, later. One that comes again, or is older than the newest, is ignored.
   * Never throws and never waits.
   */
  add(channel: string, rendition: string, segment: Segment): void {
    if (this.#isClosed || !CHANNEL.test(channel) || !RENDITION.test(rendition)) return;
    if (this.#queuedBytes + segment.sizeBytes > (this.#options.maxQueuedBytes ?? MAX_QUEUED_BYTES)) {
      return this.#drop(channel, 'the disk is too slow');
    }
    const lane = this.#lane(channel, rendition);
    this.#queuedBytes += segment.sizeBytes;
    lane.queuedCount++;
    lane.tail = lane.tail
      .then(() => this.#record(lane, segment))
      .catch((error: unknown) => this.#drop(channel, reasonOf(error)))
      .finally(() => {
        this.#queuedBytes -= segment.sizeBytes;
        lane.queuedCount--;
      });
  }

  /** Names of the channel's renditions of which there is anything. */
  renditions(channel: string): string[] {
    const lanes = [...(this.#channels.get(channel)?.values() ?? [])];
    return lanes.filter(({ segments }) => segments.length > 0).map(({ rendition }) => rendition);
  }

  /** The segments to list, oldest first. */
  listed(channel: string, rendition: string): readonly RecordedSegment[] {
    const lane = this.#channels.get(channel)?.get(rendition);
    return lane?.segments.slice(lane.firstListed) ?? [];
  }

  /**
   * The segments in a stretch of time, oldest first, with those that it cuts. It may reach a little further back than
   * the list, so that a playlist that grows keeps its start as long as it grows.
   */
  within(channel: string, rendition: string, fromUnixMs: number, toUnixMs: number): RecordedSegment[] {
    const lane = this.#channels.get(channel)?.get(rendition);
    const listedFromUnixMs = lane?.segments[lane.firstListed]?.programDateTimeUnixMs;
    if (lane === undefined || listedFromUnixMs === undefined) return [];
    const earliestUnixMs = Math.max(fromUnixMs, listedFromUnixMs - GRACE_MS / 2);
    return lane.segments.filter(
      (segment) => endUnixMs(segment) > earliestUnixMs && segment.programDateTimeUnixMs < toUnixMs,
    );
  }

  /** Rises whenever the list of the rendition changes. */
  revision(channel: string, rendition: string): number {
    return this.#channels.get(channel)?.get(rendition)?.revision ?? 0;
  }

  /** Epoch of the channel's newest segment; undefined while there is none. */
  newestEpochUnixMs(channel: string): number | undefined {
    const newest = this.#newest(channel);
    return newest && epochUnixMs(newest);
  }

  /** Nothing has come for so long that the channel must have left the air. */
  isOffAir(channel: string): boolean {
    return this.#nowUnixMs() - (this.newestEndUnixMs(channel) ?? 0) > OFF_AIR_AFTER_MS;
  }

  /** End of the channel's newest segment; undefined while there is none. */
  newestEndUnixMs(channel: string): number | undefined {
    const newest = this.#newest(channel);
    return newest && endUnixMs(newest);
  }

  /**
   * A recorded segment.
   * @param epoch undefined for the newest
   */
  segment(channel: string, rendition: string, number: number, epoch?: number): RecordedSegment | undefined {
    const wantedEpoch = epoch ?? this.newestEpochUnixMs(channel);
    return this.#channels
      .get(channel)
      ?.get(rendition)
      ?.segments.findLast(
        (segment) => segment.mediaSequenceNumber === number && epochUnixMs(segment) === wantedEpoch,
      );
  }

  /**
   * Opens a recorded segment for reading.
   * @returns undefined when it is gone or cut short; the caller closes the file
   */
  async open(channel: string, rendition: string, segment: RecordedSegment): Promise<FileHandle | undefined> {
    try {
      const file = await open(join(this.#options.dir, channel, rendition, segmentFileName(segment)), 'r');
      if ((await file.stat()).size === segment.sizeBytes) return file;
      await file.close();
      return undefined;
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') {
        this.#alarm(channel, `recorded segments cannot be read: ${reasonOf(error)}`);
      }
      return undefined;
    }
  }

  /** The bytes of a recorded segment; undefined when it is gone. */
  async read(channel: string, rendition: string, segment: RecordedSegment): Promise<Buffer | undefined> {
    const file = await this.open(channel, rendition, segment);
    try {
      return await file?.readFile();
    } finally {
      await file?.close();
    }
  }

  /** True when there may be such an init segment. */
  hasInit(channel: string, rendition: string, id: string): boolean {
    return this.#channels.get(channel)?.get(rendition)?.inits.has(id) ?? false;
  }

  /** The bytes of an init segment; undefined when it is gone. */
  async readInit(channel: string, rendition: string, id: string): Promise<Buffer | undefined> {
    const init = this.#channels.get(channel)?.get(rendition)?.inits.get(id);
    if (init === undefined) return undefined;
    try {
      return await readFile(join(this.#options.dir, channel, rendition, init.fileName));
    } catch {
      return undefined;
    }
  }

  /** The tracks that an init segment describes; undefined when it is gone or spoilt. */
  async tracks(channel: string, rendition: string, id: string): Promise<readonly Track[] | undefined> {
    const init = this.#channels.get(channel)?.get(rendition)?.inits.get(id);
    if (init === undefined || init.tracks !== undefined) return init?.tracks;
    const bytes = await this.readInit(channel, rendition, id);
    if (bytes === undefined) return undefined;
    // What the file does not hold, its name and its folder's name do.
    const language = INIT_FILE.exec(init.fileName)?.[2];
    const trackId = Number(/-(\d+)$/.exec(rendition)?.[1] ?? 0);
    try {
      init.tracks = parseInitSegment(bytes).map((track) =>
        track.kind === 'audio' ? { ...track, trackId, language } : { ...track, trackId },
      );
    } catch (error) {
      this.#alarm(channel, `a recorded init segment cannot be read: ${reasonOf(error)}`);
    }
    return init.tracks;
  }

  /** What is on disk, for each channel. */
  figures(): { readonly channel: string; readonly sizeBytes: number; readonly listedSeconds: number }[] {
    return Array.from(this.#channels, ([channel, lanes]) => {
      const all = [...lanes.values()];
      return {
        channel,
        sizeBytes: all.reduce((sum, { keptBytes }) => sum + keptBytes, 0),
        listedSeconds: Math.max(0, ...all.map(listedSeconds)),
      };
    });
  }

  /** Lets go of what the clock makes too old; to be called every second or so. */
  trim(): void {
    for (const channel of this.#channels.keys()) this.#trimByAge(channel);
    for (const lane of this.#lanes()) if (lane.segments.length === 0) this.#dropLane(lane);
  }

  /** Waits until everything handed over so far is written or given up, and what it displaced is gone. */
  async flush(): Promise<void> {
    await this.#loaded;
    for (;;) {
      const busy = this.#lanes().filter(({ queuedCount }) => queuedCount > 0);
      if (busy.length === 0) return;
      await Promise.all(busy.map(({ tail }) => tail));
    }
  }

  /** Takes no more, and waits a moment for the disk. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await waitAtMost(CLOSE_WAIT_MS, this.flush());
  }

  #lanes(): Lane[] {
    return [...this.#channels.values()].flatMap((lanes) => [...lanes.values()]);
  }

  #lane(channel: string, rendition: string): Lane {
    const lanes = this.#channels.get(channel) ?? new Map<string, Lane>();
    this.#channels.set(channel, lanes);
    const lane = lanes.get(rendition) ?? {
      channel,
      rendition,
      segments: [],
      firstListed: 0,
      listedBytes: 0,
      keptBytes: 0,
      revision: 0,
      inits: new Map(),
      tail: this.#loaded,
      queuedCount: 0,
    };
    lanes.set(rendition, lane);
    return lane;
  }

  #newest(channel: string): RecordedSegment | undefined {
    let newest: RecordedSegment | undefined;
    for (const { segments } of this.#channels.get(channel)?.values() ?? []) {
      const last = segments.at(-1);
      if (last === undefined) continue;
      if (newest === undefined || last.programDateTimeUnixMs > newest.programDateTimeUnixMs) newest = last;
    }
    return newest;
  }

  // Writing

  async #record(lane: Lane, segment: Segment): Promise<void> {
    const recorded = recordedSegment(segment);
    const before = lane.segments.at(-1);
    if (before === undefined || !isNext(before, recorded)) await this.#adopt(lane);
    const last = lane.segments.at(-1);
    if (last !== undefined && recorded.programDateTimeUnixMs <= last.programDateTimeUnixMs) {
      if (epochUnixMs(last) === epochUnixMs(recorded)) return; // again
      throw new Error("the clock of the channel's backend was set back");
    }

    await this.#writeInit(lane, segment.init);
    await this.#writeOnce(
      lane,
      segmentFileName(recorded),
      segment.parts.map(({ bytes }) => bytes),
    );
    append(lane, recorded);
    this.#noteSuccess();
    this.#trimByAge(lane.channel);
    this.#trimBySize();
  }

  /** The init segment before the first segment that needs it; another process may have removed it since. */
  async #writeInit(lane: Lane, { id, bytes, tracks }: InitSegment): Promise<void> {
    if (lane.segments.at(-1)?.initId === id && lane.inits.has(id)) return;
    const language = tracks.find((track) => track.kind === 'audio')?.language;
    const suffix = language !== undefined && LANGUAGE.test(language) ? `-${language}` : '';
    const fileName = `init-${id}${suffix}.mp4`;
    await this.#writeOnce(lane, fileName, [bytes]);
    lane.inits.set(id, { fileName, tracks });
  }

  /** Writes a file that appears whole or not at all, unless it is there. */
  async #writeOnce(lane: Lane, fileName: string, chunks: readonly Uint8Array[]): Promise<void> {
    const folder = this.#folder(lane);
    const path = join(folder, fileName);
    if (await exists(path)) return;
    const temporary = join(folder, `tmp-${randomUUID()}`);
    const write = () => writeFile(temporary, chunks, { flag: 'wx', mode: 0o600 });
    try {
      await write().catch(async (error: unknown) => {
        if (codeOf(error) !== 'ENOENT') throw error;
        await mkdir(folder, { recursive: true, mode: 0o700 });
        await write();
      });
      await rename(temporary, path);
    } catch (error) {
      await unlink(temporary).catch(() => {});
      throw error;
    }
  }

  #folder({ channel, rendition }: Lane): string {
    return join(this.#options.dir, channel, rendition);
  }

  // Reading the folder

  async #load(): Promise<void> {
    const { dir } = this.#options;
    await mkdir(dir, { recursive: true, mode: 0o700 });
    for (const channel of await readdir(dir)) {
      if (!CHANNEL.test(channel)) continue;
      for (const rendition of await listFolder(join(dir, channel))) {
        if (!RENDITION.test(rendition)) continue;
        await this.#adopt(this.#lane(channel, rendition));
      }
      this.#trimByAge(channel);
    }
    this.#trimBySize();
  }

  /**
   * Takes over what lies in the folder and is newer than all that is known: from before the start, or recorded by another
   * process while this one was not there. What a kill left half written goes.
   */
  async #adopt(lane: Lane): Promise<void> {
    const folder = this.#folder(lane);
    const lastUnixMs = lane.segments.at(-1)?.programDateTimeUnixMs ?? Number.NEGATIVE_INFINITY;
    const known = new Set(lane.segments.map(segmentFileName));
    const found: RecordedSegment[] = [];
    const strays: RecordedSegment[] = [];
    for (const fileName of (await listFolder(folder)).sort()) {
      const initId = INIT_FILE.exec(fileName)?.[1];
      const segment = parseSegmentFileName(fileName);
      if (initId !== undefined && !lane.inits.has(initId)) {
        lane.inits.set(initId, { fileName, tracks: undefined });
      } else if (segment !== undefined && !known.has(fileName)) {
        (segment.programDateTimeUnixMs > lastUnixMs ? found : strays).push(segment);
      } else if (TEMPORARY_FILE.test(fileName)) {
        await removeIfStale(join(folder, fileName), this.#nowUnixMs());
      }
    }
    found.sort((a, b) => a.programDateTimeUnixMs - b.programDateTimeUnixMs);
    const newestUnixMs = found.at(-1)?.programDateTimeUnixMs ?? 0;
    for (const segment of found) {
      const isRecent = segment.programDateTimeUnixMs > newestUnixMs - UNWRITTEN_MS;
      if (isRecent && !(await this.#isWhole(folder, segment))) continue;
      const last = lane.segments.at(-1);
      const isLater = last === undefined || segment.programDateTimeUnixMs > last.programDateTimeUnixMs;
      if (isLater && lane.inits.has(segment.initId)) append(lane, segment);
      else strays.push(segment);
    }
    // What belongs to no list of this process may belong to another's, until it is too old for any.
    const oldestUnixMs = this.#nowUnixMs() - this.#options.windowMs - GRACE_MS - OFF_AIR_AFTER_MS;
    for (const stray of strays) {
      if (stray.programDateTimeUnixMs > oldestUnixMs) continue;
      await unlinkIfThere(join(folder, segmentFileName(stray)));
    }
  }

  /** Removes it if it is not. */
  async #isWhole(folder: string, segment: RecordedSegment): Promise<boolean> {
    const path = join(folder, segmentFileName(segment));
    const sizeBytes = await stat(path).then(
      ({ size }) => size,
      () => undefined,
    );
    if (sizeBytes === segment.sizeBytes) return true;
    await unlinkIfThere(path);
    return false;
  }

  // Bounds: a function of what is recorded, and of the clock for channels off the air

  #trimByAge(channel: string): void {
    const edgeUnixMs = this.isOffAir(channel) ? this.#nowUnixMs() : (this.newestEndUnixMs(channel) ?? 0);
    const listedFromUnixMs = edgeUnixMs - this.#options.windowMs;
    for (const lane of this.#channels.get(channel)?.values() ?? []) {
      while (startOf(lane, lane.firstListed) < listedFromUnixMs) unlist(lane);
      let count = 0;
      while (startOf(lane, count) < listedFromUnixMs - GRACE_MS) count++;
      this.#remove(lane, count);
    }
  }

  /** The oldest segment of the largest channel goes first, again and again: the shares are fair. */
  #trimBySize(): void {
    const { maxBytes } = this.#options;
    const channels = Array.from(this.#channels.values(), (lanes) => [...lanes.values()]);
    const largest = (sizeOf: (lanes: readonly Lane[]) => number) =>
      channels.reduce<readonly Lane[]>((a, b) => (sizeOf(b) > sizeOf(a) ? b : a), []);
    while (listedBytes(this.#lanes()) > LISTED_SHARE_OF_BYTES * maxBytes) {
      const lane = oldestLane(largest(listedBytes), ({ firstListed }) => firstListed);
      if (lane === undefined) break;
      unlist(lane);
    }
    while (keptBytes(this.#lanes()) > maxBytes) {
      const lane = oldestLane(largest(keptBytes), () => 0);
      if (lane === undefined) break;
      this.#remove(lane, 1);
    }
  }

  /** Removes the oldest segments, and the init segments that no other needs. */
  #remove(lane: Lane, count: number): void {
    if (count === 0) return;
    while (lane.firstListed < count) unlist(lane);
    const removed = lane.segments.splice(0, count);
    lane.firstListed -= count;
    for (const { sizeBytes } of removed) lane.keptBytes -= sizeBytes;
    const removedIds = new Set(removed.map(({ initId }) => initId));
    const folder = this.#folder(lane);
    this.#later(lane, async () => {
      for (const segment of removed) await unlinkIfThere(join(folder, segmentFileName(segment)));
      for (const id of removedIds) {
        const init = lane.inits.get(id);
        if (init === undefined || lane.segments.some(({ initId }) => initId === id)) continue;
        lane.inits.delete(id);
        await unlinkIfThere(join(folder, init.fileName));
      }
    });
  }

  /** Nothing is left of it, nor expected. */
  #dropLane(lane: Lane): void {
    if (lane.queuedCount > 0) return;
    this.#later(lane, async () => {
      for (const [id, { fileName }] of lane.inits) {
        lane.inits.delete(id);
        await unlinkIfThere(join(this.#folder(lane), fileName));
      }
      // Only where they are empty: another process, or somebody, may have something in them.
      await rmdir(this.#folder(lane)).catch(() => {});
      await rmdir(join(this.#options.dir, lane.channel)).catch(() => {});
      if (lane.queuedCount > 1) return; // the channel is back
      const lanes = this.#channels.get(lane.channel);
      lanes?.delete(lane.rendition);
      if (lanes?.size === 0) this.#channels.delete(lane.channel);
    });
  }

  /** After what is being done to the lane's files. */
  #later(lane: Lane, work: () => Promise<void>): void {
    lane.queuedCount++;
    lane.tail = lane.tail
      .then(work)
      .catch((error: unknown) => this.#alarm(lane.channel, `old segments stay: ${reasonOf(error)}`))
      .finally(() => {
        lane.queuedCount--;
      });
  }

  // The alarm

  #drop(channel: string, reason: string): void {
    this.#options.onDropped?.(channel);
    this.#droppedCount++;
    this.#isFailing = true;
    this.#alarm(channel, `segments are not recorded for rewinding: ${reason}. Live goes on`);
  }

  #alarm(channel: string, text: string): void {
    const nowMs = performance.now();
    if (nowMs - this.#alarmedAtMs < ALARM_INTERVAL_MS) return;
    this.#options.logger.error(
      { channel, dir: this.#options.dir, droppedSegments: this.#droppedCount },
      text,
    );
    this.#alarmedAtMs = nowMs;
    this.#droppedCount = 0;
  }

  #noteSuccess(): void {
    if (!this.#isFailing) return;
    this.#isFailing = false;
    this.#alarmedAtMs = Number.NEGATIVE_INFINITY;
    this.#options.logger.info({ dir: this.#options.dir }, 'segments are recorded for rewinding again');
  }
}

/** Waits for something, but not for ever. */
async function waitAtMost(timeoutMs: number, work: Promise<void>): Promise<void> {
  let giveUp: NodeJS.Timeout | undefined;
  const timeout = new Promise<void>((resolve) => {
    giveUp = setTimeout(resolve, timeoutMs);
  });
  await Promise.race([work, timeout]);
  clearTimeout(giveUp);
}

function append(lane: Lane, segment: RecordedSegment): void {
  lane.segments.push(segment);
  lane.listedBytes += segment.sizeBytes;
  lane.keptBytes += segment.sizeBytes;
  lane.revision++;
}

/** Takes the oldest listed segment off the list. */
function unlist(lane: Lane): void {
  lane.listedBytes -= lane.segments[lane.firstListed]?.sizeBytes ?? 0;
  lane.firstListed++;
  lane.revision++;
}

function listedBytes(lanes: readonly Lane[]): number {
  return lanes.reduce((sum, lane) => sum + lane.listedBytes, 0);
}

function keptBytes(lanes: readonly Lane[]): number {
  return lanes.reduce((sum, lane) => sum + lane.keptBytes, 0);
}

/** Start of a segment in milliseconds since 1970; infinite behind the last one. */
function startOf({ segments }: Lane, index: number): number {
  return segments[index]?.programDateTimeUnixMs ?? Number.POSITIVE_INFINITY;
}

/** The lane whose segment at an index of its own is the oldest; undefined when none has one there. */
function oldestLane(lanes: readonly Lane[], indexOf: (lane: Lane) => number): Lane | undefined {
  let oldest: Lane | undefined;
  for (const lane of lanes) {
    if (indexOf(lane) >= lane.segments.length) continue;
    if (oldest === undefined || startOf(lane, indexOf(lane)) < startOf(oldest, indexOf(oldest)))
      oldest = lane;
  }
  return oldest;
}

function listedSeconds({ segments, firstListed }: Lane): number {
  const [first, last] = [segments[firstListed], segments.at(-1)];
  return first === undefined || last === undefined
    ? 0
    : (endUnixMs(last) - first.programDateTimeUnixMs) / 1000;
}

/**
 * `<start in ms since 1970>-<number>-<discontinuities>-<start tick>-<ticks>-<target in ms>-<i: independent, or k>-<init id>-<bytes>.m4s`
 */
function segmentFileName(segment: RecordedSegment): string {
  const fields = [
    segment.programDateTimeUnixMs,
    segment.mediaSequenceNumber,
    segment.discontinuitySequence,
    segment.startTicks,
    segment.durationTicks,
    segment.targetDurationMs,
    segment.isIndependent ? 'i' : 'k',
    segment.initId,
    segment.sizeBytes,
  ];
  return `${fields.join('-')}.m4s`;
}

/** @returns undefined for a file that is not of this store */
function parseSegmentFileName(fileName: string): RecordedSegment | undefined {
  const match = SEGMENT_FILE.exec(fileName);
  if (match === null) return undefined;
  const number = (index: number) => Number(match[index]);
  return {
    programDateTimeUnixMs: number(1),
    mediaSequenceNumber: number(2),
    discontinuitySequence: number(3),
    startTicks: number(4),
    durationTicks: number(5),
    targetDurationMs: number(6),
    isIndependent: match[7] === 'i',
    initId: match[8] ?? '',
    sizeBytes: number(9),
  };
}

async function listFolder(path: string): Promise<string[]> {
  try {
    return await readdir(path);
  } catch (error) {
    const code = codeOf(error);
    if (code === 'ENOENT' || code === 'ENOTDIR') return [];
    throw error;
  }
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

async function unlinkIfThere(path: string): Promise<void> {
  await unlink(path).catch((error: unknown) => {
    if (codeOf(error) !== 'ENOENT') throw error;
  });
}

async function removeIfStale(path: string, nowUnixMs: number): Promise<void> {
  const writtenAtMs = await stat(path)
    .then(({ mtimeMs }) => mtimeMs)
    .catch(() => undefined);
  if (writtenAtMs !== undefined && nowUnixMs - writtenAtMs > STALE_TEMPORARY_MS) await unlinkIfThere(path);
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

/** Why a file could not be written, in words. */
function reasonOf(error: unknown): string {
  const code = codeOf(error);
  if (code === 'ENOSPC' || code === 'EDQUOT') return 'the disk is full';
  return code ?? (error instanceof Error ? error.message : String(error));
}
