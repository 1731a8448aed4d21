/**
 * The store of assets: imports files into the house format and hands them out.
 *
 * An asset is a folder named by its content hash. It is made under a temporary name and renamed when
 * it is whole and on the disk, so a folder with an asset's name is always complete.
 */
import { createHash, randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { access, constants, mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { FlvDemuxer, FlvReader } from '@starling/media/flv/demux';
import type { AssetFacts } from '@starling/model/schedule';
import type { Logger } from 'pino';
import { AssetFile } from './asset-file.ts';
import { AssetWriter } from './asset-writer.ts';
import { BackendError, systemErrorCode } from './error.ts';
import { runFfmpeg } from './ffmpeg.ts';
import {
  encodeArguments,
  HOUSE_HEIGHT_PX,
  HOUSE_SETTINGS_TEXT,
  HOUSE_WIDTH_PX,
  houseFrameRate,
  planAsset,
  type Source,
} from './house-format.ts';
import { chooseStreams, measureSource } from './source-probe.ts';

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

/** A source that FFmpeg makes itself: one input with a 1280x720 picture at 25 fps, then sound. */
export interface GeneratedSource {
  /** FFmpeg's input options and the input. */
  readonly args: readonly string[];
  /** Stands for the source in the content hash: names everything that the result depends on. */
  readonly identity: string;
  readonly durationMs: number;
}

/** Share of the progress for reading the source before FFmpeg starts. */
const HASH_SHARE = 0.05;
/** What FFmpeg writes when it cannot decode a packet. */
const DECODING_ERROR = 'Error while decoding stream';
const TEMP_PREFIX = 'tmp-';
const CONTENT_HASH = /^[0-9a-f]{64}$/;
/** Indexes kept in memory, 1 MB at the very most for a day-long asset. */
const MAX_OPEN_ASSETS = 256;

export class Library {
  readonly #mediaDir: string;
  readonly #logger: Logger;
  readonly #ffmpegPath: string;
  readonly #ffprobePath: string;
  readonly #closing = new AbortController();
  readonly #imports = new Set<Promise<AssetFacts>>();
  /** Imported here and not yet named by {@link retain}: its owner may not know of it yet. */
  readonly #fresh = new Set<string>();
  /** Least recently used first. */
  readonly #assets = new Map<string, Promise<AssetFile>>();

  constructor(options: LibraryOptions) {
    this.#mediaDir = resolve(options.mediaDir);
    this.#logger = options.logger;
    this.#ffmpegPath = options.ffmpegPath ?? 'ffmpeg';
    this.#ffprobePath = options.ffprobePath ?? 'ffprobe';
  }

  /**
   * Makes the folder and removes what an interrupted import or removal left behind.
   * @throws BackendError IMPORT_STORE_FAILED
   */
  async open(): Promise<void> {
    try {
      await mkdir(this.#mediaDir, { recursive: true });
      for (const name of await readdir(this.#mediaDir)) {
        if (name.startsWith(TEMP_PREFIX)) await rm(join(this.#mediaDir, name), { recursive: true });
      }
    } catch (error) {
      throw this.#storeError(error);
    }
  }

  /**
   * Normalises a file into the house format, or finds that it was done before.
   * @param sourcePath a local file
   * @throws BackendError IMPORT_...: its message is one sentence for the operator
   */
  import(sourcePath: string, options: ImportOptions): Promise<AssetFacts> {
    const path = resolve(sourcePath);
    return this.#track(options.signal, async (signal) => {
      const sizeBytes = await readableSize(path);
      const probe = { ffprobePath: this.#ffprobePath, path, signal };
      const choice = await chooseStreams(probe);
      const contentHash = await hashFile(path, signal, (readBytes) =>
        options.onProgress((readBytes / sizeBytes) * HASH_SHARE),
      );
      const known = await this.#find(contentHash);
      if (known) return known;
      const source = await measureSource(probe, choice);
      return this.#encode(contentHash, path, source, signal, options.onProgress);
    });
  }

  /** Makes an asset of a source that FFmpeg generates, or finds that it was done before. */
  importFrom(generated: GeneratedSource, options: ImportOptions): Promise<AssetFacts> {
    return this.#track(options.signal, async (signal) => {
      const contentHash = createHash('sha256')
        .update(generated.identity)
        .update(HOUSE_SETTINGS_TEXT)
        .digest('hex');
      const known = await this.#find(contentHash);
      if (known) return known;
      const contentSeconds = generated.durationMs / 1000;
      const source = {
        inputArguments: generated.args,
        inputCount: 1,
        startSeconds: 0,
        picture: {
          streamIndex: 0,
          widthPx: HOUSE_WIDTH_PX,
          heightPx: HOUSE_HEIGHT_PX,
          pixelAspect: 1,
          isInterlaced: false,
          isMatrixUntagged: true,
          isHdr: false,
        },
        sound: { streamIndex: 1, offsetSeconds: 0, endSeconds: contentSeconds },
        contentSeconds,
        frameRate: undefined,
      };
      return this.#encode(contentHash, generated.identity, source, signal, options.onProgress);
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
    const condemned = this.#tempPath();
    try {
      // Renamed first: an asset that is only half removed must not be seen.
      await rename(join(this.#mediaDir, contentHash), condemned);
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

  async #encode(
    contentHash: string,
    subject: string,
    source: Source & { readonly contentSeconds: number; readonly frameRate: number | undefined },
    signal: AbortSignal,
    onProgress: (fraction: number) => void,
  ): Promise<AssetFacts> {
    const plan = planAsset(source.contentSeconds, houseFrameRate(source.frameRate));
    const folder = this.#tempPath();
    let writer: AssetWriter | undefined;
    try {
      await mkdir(folder);
      const asset = await AssetWriter.create(folder, plan);
      writer = asset;
      const reader = new FlvReader();
      const demuxer = new FlvDemuxer();
      const { isSuccess, reason, stderr } = await runFfmpeg({
        program: this.#ffmpegPath,
        args: encodeArguments(source, plan),
        subject,
        signal,
        async onOutput(chunk) {
          for (const message of reader.push(chunk)) await asset.push(demuxer.push(message));
          onProgress(HASH_SHARE + asset.fractionDone * (1 - HASH_SHARE));
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
      const { facts } = await asset.finish(contentHash);
      await syncFolder(folder);
      await this.#publish(folder, contentHash);
      return facts;
    } catch (error) {
      if (error instanceof BackendError) throw error;
      if (systemErrorCode(error) !== undefined) throw this.#storeError(error);
      const reason = error instanceof Error ? error.message : String(error);
      const sentence = `FFmpeg's output for ${subject} is not as it should be: ${reason}.`;
      throw new BackendError('IMPORT_FFMPEG_FAILED', sentence, { cause: error });
    } finally {
      await writer?.close();
      await rm(folder, { recursive: true, force: true });
    }
  }

  /** Gives a finished asset its name. The same content may have been imported at the same time. */
  async #publish(folder: string, contentHash: string): Promise<void> {
    try {
      await rename(folder, join(this.#mediaDir, contentHash));
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

/** @returns the size in bytes of a regular file that can be read and is not empty */
async function readableSize(path: string): Promise<number> {
  try {
    const found = await stat(path);
    if (!found.isFile()) throw new BackendError('IMPORT_FILE_UNREADABLE', `${path} is not a regular file.`);
    await access(path, constants.R_OK);
    if (found.size === 0) throw new BackendError('IMPORT_FILE_EMPTY', `${path} is empty (0 bytes).`);
    return found.size;
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

/** The content hash of a file: SHA-256 of its bytes and the house settings. */
async function hashFile(
  path: string,
  signal: AbortSignal,
  onRead: (readBytes: number) => void,
): Promise<string> {
  const hash = createHash('sha256');
  let readBytes = 0;
  try {
    for await (const chunk of createReadStream(path, { highWaterMark: 1024 * 1024, signal })) {
      hash.update(chunk);
      readBytes += chunk.length;
      onRead(readBytes);
    }
  } catch (error) {
    if (signal.aborted) throw new BackendError('IMPORT_CANCELLED', `The import of ${path} was cancelled.`);
    const reason = error instanceof Error ? error.message : String(error);
    throw new BackendError('IMPORT_FILE_UNREADABLE', `${path} cannot be read: ${reason}.`, { cause: error });
  }
  return hash.update(HOUSE_SETTINGS_TEXT).digest('hex');
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path);
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
