/**
 * The store of assets: imports sources into the house format and hands them out.
 *
 * An asset is a folder named by its content hash. It is made under a temporary name and renamed when
 * it is whole and on the disk, so a folder with an asset's name is always complete.
 */
import { createHash, type Hash, randomBytes } from 'node:crypto';
import { createReadStream, type Stats } from 'node:fs';
import { access, constants, mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { LibrarySettings } from '@starling/model/library';
import type { AssetFacts } from '@starling/model/schedule';
import type { Logger } from 'pino';
import { drawPictures, extractSubtitles } from './asset-extras.ts';
import { AssetFile } from './asset-file.ts';
import { AssetWriter } from './asset-writer.ts';
import { EncoderOutput } from './encoder-output.ts';
import { BackendError, systemErrorCode } from './error.ts';
import { identifyEncoders, runFfmpeg } from './ffmpeg.ts';
import {
  assetRungs,
  encodeArguments,
  houseFrameRate,
  houseSettingsText,
  type LadderSettings,
  type Loudness,
  loudnessArguments,
  loudnessGainDb,
  parseLoudness,
  planAsset,
  RUNGS,
} from './house-format.ts';
import { isPublicAddress } from './outbound-guard.ts';
import { displayUrl, downloadSource } from './source-download.ts';
import { chooseStreams, type MeasuredSource, measureSource, type SubtitleStream } from './source-probe.ts';

export interface LibraryOptions {
  readonly mediaDir: string;
  readonly logger: Logger;
  readonly ffmpegPath?: string;
  readonly ffprobePath?: string;
}

export interface ImportOptions {
  readonly signal: AbortSignal;
  /** Called with 0..1, many times a second. */
  onProgress(fraction: number): void;
}

/**
 * A source that FFmpeg makes itself: one input with a 1280x720 picture at 25 fps, then sound. It becomes an
 * asset of one rung, as it is.
 */
export interface GeneratedSource {
  /** FFmpeg's input options and the input. */
  readonly args: readonly string[];
  /** Stands for the source in the content hash: names everything that the result depends on. */
  readonly identity: string;
  readonly durationMs: number;
}

/** What is imported, once it is known. */
interface Job {
  readonly contentHash: string;
  /** For sentences. */
  readonly subject: string;
  readonly source: MeasuredSource;
  readonly settings: LadderSettings;
  /** By sound; undefined where it is silent. */
  readonly loudness: readonly (Loudness | undefined)[];
  readonly subtitles: readonly SubtitleStream[];
  readonly hasPictures: boolean;
  readonly isUrgent?: boolean;
  /** Throws when the source is not what it was when it was hashed. */
  checkSource?(): Promise<void>;
}

/** Where the stages of an import end, as parts of its progress. */
const PROGRESS = { hashed: 0.05, measured: 0.15, encoded: 0.97 } as const;
/** A download comes before all that. */
const DOWNLOAD_SHARE = 0.2;
/** What FFmpeg writes when it cannot decode a packet. */
const DECODING_ERROR = 'Error while decoding stream';
const TEMP_PREFIX = 'tmp-';
const CONTENT_HASH = /^[0-9a-f]{64}$/;
/** Indexes kept in memory, 1 MB at the very most for a day-long asset. */
const MAX_OPEN_ASSETS = 256;

const GENERATED_SETTINGS: LadderSettings = { ladder: ['720p'], scalesUp: true, languages: [] };

export class Library {
  readonly #mediaDir: string;
  readonly #logger: Logger;
  readonly #ffmpegPath: string;
  readonly #ffprobePath: string;
  readonly #closing = new AbortController();
  readonly #imports = new Set<Promise<AssetFacts>>();
  #encoders: Promise<string> | undefined;
  /** Imported here and not yet named by {@link retain}: its owner may not know of it yet. */
  readonly #fresh = new Set<string>();
  /** Least recently used first. */
  readonly #assets = new Map<string, Promise<AssetFile>>();
  /** Of each folder, those that are being written included. */
  readonly #sizes = new Map<string, number>();

  constructor(options: LibraryOptions) {
    this.#mediaDir = resolve(options.mediaDir);
    this.#logger = options.logger;
    this.#ffmpegPath = options.ffmpegPath ?? 'ffmpeg';
    this.#ffprobePath = options.ffprobePath ?? 'ffprobe';
  }

  /**
   * Makes the folder.
   * @throws BackendError IMPORT_STORE_FAILED
   */
  async open(): Promise<void> {
    try {
      await mkdir(this.#mediaDir, { recursive: true });
    } catch (error) {
      throw this.#storeError(error);
    }
  }

  /**
   * Nobody else imports into the folder or removes from it from now on: looks what is there, and removes what an
   * interrupted import or removal left behind.
   * @throws BackendError IMPORT_STORE_FAILED
   */
  async takeOver(): Promise<void> {
    try {
      for (const name of await readdir(this.#mediaDir)) {
        const folder = join(this.#mediaDir, name);
        if (name.startsWith(TEMP_PREFIX)) await rm(folder, { recursive: true });
        else if (CONTENT_HASH.test(name)) this.#sizes.set(folder, await folderSizeBytes(folder));
      }
    } catch (error) {
      throw this.#storeError(error);
    }
  }

  /**
   * Normalises a source into the house format, or finds that it was done before.
   * @param location a local file, or an http or https URL
   * @throws BackendError IMPORT_...: its message is one sentence for the operator
   */
  import(location: string, settings: LibrarySettings, options: ImportOptions): Promise<AssetFacts> {
    return this.#track(options.signal, (signal) =>
      isUrl(location)
        ? this.#importUrl(location, settings, { ...options, signal })
        : this.#importFile(resolve(location), resolve(location), settings, { ...options, signal }),
    );
  }

  async #importUrl(url: string, settings: LibrarySettings, options: ImportOptions): Promise<AssetFacts> {
    const { signal, onProgress } = options;
    const folder = this.#tempPath();
    const path = join(folder, 'source');
    try {
      await mkdir(folder);
      let sizeBytes = 0;
      await downloadSource(url, path, {
        ffmpegPath: this.#ffmpegPath,
        ffprobePath: this.#ffprobePath,
        signal,
        allows: (address) => settings.allowsPrivateUrls || isPublicAddress(address),
        onBytes: (count) => {
          sizeBytes += count;
          this.#setSize(folder, sizeBytes, settings.maxStoreBytes);
        },
        onProgress: (fraction) => onProgress(fraction * DOWNLOAD_SHARE),
      });
      return await this.#importFile(path, displayUrl(url), settings, {
        signal,
        onProgress: (fraction) => onProgress(DOWNLOAD_SHARE + fraction * (1 - DOWNLOAD_SHARE)),
      });
    } catch (error) {
      throw this.#importError(error, displayUrl(url));
    } finally {
      await this.#removeTemp(folder);
    }
  }

  /** @param subject names the source in sentences */
  async #importFile(
    path: string,
    subject: string,
    settings: LibrarySettings,
    { signal, onProgress }: ImportOptions,
  ): Promise<AssetFacts> {
    const before = await readableFile(path, subject);
    const probe = { ffprobePath: this.#ffprobePath, path, subject, signal };
    const choice = await chooseStreams(probe, settings.languages);
    const sourceHash = await hashFile(path, subject, signal, (readBytes) =>
      onProgress((readBytes / before.size) * PROGRESS.hashed),
    );
    const contentHash = sourceHash
      .update(houseSettingsText(settings))
      .update(await this.#identifyEncoders())
      .digest('hex');
    const known = await this.#find(contentHash);
    if (known) return known;
    this.#refuseWhenFull(settings.maxStoreBytes);
    const source = await measureSource(probe, choice);
    const maxSeconds = settings.maxSourceHours * 3600;
    if (source.contentSeconds > maxSeconds) {
      throw new BackendError(
        'IMPORT_TOO_LONG',
        `${subject} is ${hours(source.contentSeconds)} long; at most ${hours(maxSeconds)} are imported. ` +
          'Cut it, or allow more with: starling media settings --max-hours HOURS',
      );
    }
    const loudness = await this.#measureLoudness(source, subject, signal, (fraction) =>
      onProgress(PROGRESS.hashed + fraction * (PROGRESS.measured - PROGRESS.hashed)),
    );
    const { subtitles } = choice;
    const hasPictures = source.picture !== undefined;
    const checkSource = async () => {
      const after = await stat(path).catch(() => undefined);
      // One that is gone was whole until then, or FFmpeg had complained.
      if (!after || (after.size === before.size && after.mtimeMs === before.mtimeMs)) return;
      throw new BackendError('IMPORT_FILE_CHANGED', `${subject} was written to while it was imported.`);
    };
    const job = { contentHash, subject, source, settings, loudness, subtitles, hasPictures, checkSource };
    return this.#make(job, settings.maxStoreBytes, signal, onProgress);
  }

  /** Makes an asset of a source that FFmpeg generates, or finds that it was done before. */
  importFrom(generated: GeneratedSource, options: ImportOptions): Promise<AssetFacts> {
    return this.#track(options.signal, async (signal) => {
      const contentHash = createHash('sha256')
        .update(generated.identity)
        .update(houseSettingsText(GENERATED_SETTINGS))
        .update(await this.#identifyEncoders())
        .digest('hex');
      const known = await this.#find(contentHash);
      if (known) return known;
      const contentSeconds = generated.durationMs / 1000;
      const { widthPx, heightPx } = RUNGS['720p'];
      const source = {
        inputArguments: generated.args,
        inputCount: 1,
        startSeconds: 0,
        picture: {
          streamIndex: 0,
          widthPx,
          heightPx,
          pixelAspect: 1,
          isInterlaced: false,
          isMatrixUntagged: true,
          isHdr: false,
        },
        sounds: [{ streamIndex: 1, language: null, offsetSeconds: 0, endSeconds: contentSeconds }],
        contentSeconds,
        frameRate: undefined,
      };
      const job: Job = {
        contentHash,
        subject: generated.identity,
        source,
        settings: GENERATED_SETTINGS,
        loudness: [],
        subtitles: [],
        // It is drawn at the very first start, which should be short.
        hasPictures: false,
        isUrgent: true,
      };
      return this.#make(job, null, signal, options.onProgress);
    });
  }

  /** @throws BackendError ASSET_MISSING, ASSET_DAMAGED or ASSET_UNREADABLE */
  openAsset(contentHash: string): Promise<AssetFile> {
    const opening = this.#assets.get(contentHash) ?? AssetFile.open(join(this.#mediaDir, contentHash));
    this.#assets.delete(contentHash);
    this.#assets.set(contentHash, opening);
    opening.catch(() => this.#assets.delete(contentHash));
    for (const oldest of this.#assets.keys()) {
      if (this.#assets.size <= MAX_OPEN_ASSETS) break;
      this.#assets.delete(oldest);
    }
    return opening;
  }

  /** Removes an asset; does nothing when it is not there. */
  async remove(contentHash: string): Promise<void> {
    if (!CONTENT_HASH.test(contentHash)) throw new RangeError(`'${contentHash}' is no content hash`);
    this.#assets.delete(contentHash);
    this.#fresh.delete(contentHash);
    const folder = join(this.#mediaDir, contentHash);
    const condemned = this.#tempPath();
    try {
      // Renamed first: an asset that is only half removed must not be seen.
      await rename(folder, condemned);
      this.#sizes.delete(folder);
      await rm(condemned, { recursive: true });
    } catch (error) {
      if (systemErrorCode(error) !== 'ENOENT') throw this.#storeError(error);
    }
  }

  /**
   * Removes every asset that is not named, but for those imported since they could have been. Logs what
   * it cannot remove.
   */
  async retain(contentHashes: readonly string[]): Promise<void> {
    const retained = new Set(contentHashes);
    for (const contentHash of retained) this.#fresh.delete(contentHash);
    try {
      for (const name of await readdir(this.#mediaDir)) {
        if (!CONTENT_HASH.test(name) || retained.has(name) || this.#fresh.has(name)) continue;
        await this.remove(name);
        this.#logger.info({ contentHash: name }, 'removed an asset that nothing uses any more');
      }
    } catch (error) {
      this.#logger.warn({ err: error }, 'the media folder could not be tidied');
    }
  }

  /** Cancels running imports and waits for the end of their FFmpeg. */
  async close(): Promise<void> {
    this.#closing.abort();
    await Promise.allSettled(this.#imports);
    this.#assets.clear();
  }

  #track(signal: AbortSignal, run: (signal: AbortSignal) => Promise<AssetFacts>): Promise<AssetFacts> {
    const running = run(AbortSignal.any([signal, this.#closing.signal]));
    this.#imports.add(running);
    const forget = () => this.#imports.delete(running);
    running.then(forget, forget);
    return running;
  }

  async #find(contentHash: string): Promise<AssetFacts | undefined> {
    this.#fresh.add(contentHash);
    try {
      return (await this.openAsset(contentHash)).index.facts;
    } catch (error) {
      if (!(error instanceof BackendError && error.code === 'ASSET_MISSING')) {
        this.#logger.warn({ err: error }, 'a stored asset is unusable and is made again');
        await this.remove(contentHash);
        this.#fresh.add(contentHash);
      }
      return undefined;
    }
  }

  /** Once; what is cancelled meanwhile ends with the next program that it runs. */
  #identifyEncoders(): Promise<string> {
    this.#encoders ??= identifyEncoders(this.#ffmpegPath, this.#closing.signal).catch((error: unknown) => {
      this.#encoders = undefined;
      throw error;
    });
    return this.#encoders;
  }

  async #measureLoudness(
    source: MeasuredSource,
    subject: string,
    signal: AbortSignal,
    onProgress: (fraction: number) => void,
  ): Promise<(Loudness | undefined)[]> {
    if (source.sounds.length === 0) return [];
    const { stderr } = await runFfmpeg({
      program: this.#ffmpegPath,
      args: loudnessArguments(source),
      subject,
      signal,
      onOutput(chunk) {
        const told = /out_time_us=(\d+)/.exec(Buffer.from(chunk).toString('latin1'))?.[1];
        if (told !== undefined) onProgress(Math.min(1, Number(told) / 1e6 / source.contentSeconds));
      },
    });
    // Sound that cannot be decoded at all is found out by the encoding, which says so.
    return source.sounds.map((_, trackId) => parseLoudness(stderr, trackId));
  }

  /** Encodes an asset under a temporary name, adds what belongs to it, and gives it its name. */
  async #make(
    job: Job,
    maxStoreBytes: number | null,
    signal: AbortSignal,
    onProgress: (fraction: number) => void,
  ): Promise<AssetFacts> {
    const { contentHash, subject, source, loudness } = job;
    const folder = this.#tempPath();
    let writer: AssetWriter | undefined;
    try {
      await mkdir(folder);
      const plan = planAsset(source.contentSeconds, houseFrameRate(source.frameRate));
      const rungs = assetRungs(job.settings, source.picture);
      const sounds = source.sounds.length > 0 ? source.sounds : [{ language: null }];
      const audioTracks = sounds.map(({ language }, trackId) => {
        const measured = loudness[trackId];
        return {
          language,
          loudnessLufs: measured?.integratedLufs ?? null,
          gainDb: measured === undefined ? 0 : loudnessGainDb(measured),
        };
      });
      const asset = await AssetWriter.create(folder, { plan, rungs, audioTracks });
      writer = asset;
      const output = new EncoderOutput();
      const { isSuccess, reason, stderr } = await runFfmpeg({
        program: this.#ffmpegPath,
        args: encodeArguments(source, { plan, rungs, gainsDb: audioTracks.map(({ gainDb }) => gainDb) }),
        subject,
        signal,
        isUrgent: job.isUrgent ?? false,
        onOutput: async (chunk) => {
          await asset.push(output.push(chunk));
          this.#setSize(folder, asset.sizeBytes, maxStoreBytes);
          onProgress(PROGRESS.measured + asset.fractionDone * (PROGRESS.encoded - PROGRESS.measured));
        },
      });
      if (!isSuccess) {
        throw stderr.includes(DECODING_ERROR)
          ? new BackendError(
              'IMPORT_NOT_MEDIA',
              `${subject} is damaged: FFmpeg cannot decode it (${reason}).`,
            )
          : new BackendError('IMPORT_FFMPEG_FAILED', `FFmpeg could not convert ${subject}: ${reason}.`);
      }
      const media = await asset.finish(contentHash);
      const run = { ffmpegPath: this.#ffmpegPath, folder, subject, signal };
      if (job.hasPictures) await drawPictures(run, media, asset.segmentStartsTicks);
      const subtitles = await this.#extractSubtitles(run, job);
      const facts: AssetFacts = {
        ...media,
        sizeBytes: await folderSizeBytes(folder),
        subtitles,
        hasPictures: job.hasPictures,
      };
      await job.checkSource?.();
      await asset.writeIndex(facts);
      await syncFolder(folder);
      await this.#publish(folder, contentHash, facts.sizeBytes);
      onProgress(1);
      return facts;
    } catch (error) {
      throw this.#importError(error, subject);
    } finally {
      await writer?.close();
      await this.#removeTemp(folder);
    }
  }

  /** A film with broken subtitles is better than no film. */
  async #extractSubtitles(run: Parameters<typeof extractSubtitles>[0], { source, subtitles }: Job) {
    try {
      return await extractSubtitles(run, source.inputArguments, source.startSeconds, subtitles);
    } catch (error) {
      if (!(error instanceof BackendError) || error.code !== 'IMPORT_FFMPEG_FAILED') throw error;
      this.#logger.warn({ err: error }, 'an asset is made without its subtitles');
      return [];
    }
  }

  /** @throws BackendError IMPORT_STORE_FULL */
  #refuseWhenFull(maxStoreBytes: number | null): void {
    if (maxStoreBytes === null) return;
    const usedBytes = [...this.#sizes.values()].reduce((sum, sizeBytes) => sum + sizeBytes, 0);
    if (usedBytes < maxStoreBytes) return;
    const inGigabytes = (bytes: number) => `${(bytes / 1e9).toFixed(2)} GB`;
    throw new BackendError(
      'IMPORT_STORE_FULL',
      `The library is full: ${inGigabytes(usedBytes)} of the ${inGigabytes(maxStoreBytes)} that are allowed. ` +
        'Remove assets with `starling media rm`, or allow more with: starling media settings --max-size SIZE',
    );
  }

  #setSize(folder: string, sizeBytes: number, maxStoreBytes: number | null): void {
    this.#sizes.set(folder, sizeBytes);
    this.#refuseWhenFull(maxStoreBytes);
  }

  async #removeTemp(folder: string): Promise<void> {
    await rm(folder, { recursive: true, force: true });
    this.#sizes.delete(folder);
  }

  /** Any failure of an import, with its code. */
  #importError(error: unknown, subject: string): BackendError {
    if (error instanceof BackendError) return error;
    if (systemErrorCode(error) !== undefined) return this.#storeError(error);
    const reason = error instanceof Error ? error.message : String(error);
    const sentence = `FFmpeg's output for ${subject} is not as it should be: ${reason}.`;
    return new BackendError('IMPORT_FFMPEG_FAILED', sentence, { cause: error });
  }

  /** Gives a finished asset its name. The same content may have been imported at the same time. */
  async #publish(folder: string, contentHash: string, sizeBytes: number): Promise<void> {
    const published = join(this.#mediaDir, contentHash);
    try {
      await rename(folder, published);
      this.#sizes.set(published, sizeBytes);
    } catch (error) {
      const code = systemErrorCode(error);
      if (code !== 'ENOTEMPTY' && code !== 'EEXIST') throw error;
    }
    await syncFolder(this.#mediaDir);
  }

  #tempPath(): string {
    return join(this.#mediaDir, `${TEMP_PREFIX}${randomBytes(8).toString('hex')}`);
  }

  #storeError(error: unknown): BackendError {
    const code = systemErrorCode(error);
    const cause = error;
    if (code === 'ENOSPC' || code === 'EDQUOT') {
      const sentence = `The disk of ${this.#mediaDir} is full: free some space and import again.`;
      return new BackendError('IMPORT_DISK_FULL', sentence, { cause });
    }
    const reason = error instanceof Error ? error.message : String(error);
    return new BackendError('IMPORT_STORE_FAILED', `${this.#mediaDir} cannot be written to: ${reason}.`, {
      cause,
    });
  }
}

/** True for what is fetched rather than read from a disk. */
export function isUrl(location: string): boolean {
  return /^https?:\/\//i.test(location);
}

function hours(seconds: number): string {
  return `${Math.round(seconds / 360) / 10} h`;
}

async function folderSizeBytes(folder: string): Promise<number> {
  let sizeBytes = 0;
  for (const name of await readdir(folder)) sizeBytes += (await stat(join(folder, name))).size;
  return sizeBytes;
}

/** @returns what the system says of a regular file that can be read and is not empty */
async function readableFile(path: string, subject: string): Promise<Stats> {
  try {
    const found = await stat(path);
    if (!found.isFile()) throw new BackendError('IMPORT_FILE_UNREADABLE', `${path} is not a regular file.`);
    await access(path, constants.R_OK);
    if (found.size === 0) throw new BackendError('IMPORT_FILE_EMPTY', `${subject} is empty (0 bytes).`);
    return found;
  } catch (error) {
    if (error instanceof BackendError) throw error;
    const code = systemErrorCode(error);
    if (code === 'ENOENT' || code === 'ENOTDIR') {
      throw new BackendError('IMPORT_FILE_MISSING', `${path} does not exist: check the path.`, {
        cause: error,
      });
    }
    const reason =
      code === 'EACCES' ? 'permission denied' : error instanceof Error ? error.message : String(error);
    throw new BackendError('IMPORT_FILE_UNREADABLE', `${path} cannot be read: ${reason}.`, { cause: error });
  }
}

/** SHA-256 of a file's bytes, open for more. */
async function hashFile(
  path: string,
  subject: string,
  signal: AbortSignal,
  onRead: (readBytes: number) => void,
): Promise<Hash> {
  const hash = createHash('sha256');
  let readBytes = 0;
  try {
    for await (const chunk of createReadStream(path, { highWaterMark: 1024 * 1024, signal })) {
      hash.update(chunk);
      readBytes += chunk.length;
      onRead(readBytes);
    }
  } catch (error) {
    if (signal.aborted) throw new BackendError('IMPORT_CANCELLED', `The import of ${subject} was cancelled.`);
    const reason = error instanceof Error ? error.message : String(error);
    throw new BackendError('IMPORT_FILE_UNREADABLE', `${subject} cannot be read: ${reason}.`, {
      cause: error,
    });
  }
  return hash;
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path);
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
