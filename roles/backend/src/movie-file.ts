/**
 * A movie file on the disk (packages/media/src/fmp4/movie.ts): appended to fragment by fragment, so that it is
 * whole up to its last fragment whatever happens to the process.
 */
import { type FileHandle, open, rm } from 'node:fs/promises';
import { type Track, timescaleHz } from '@starling/media/access-unit';
import { MediaError } from '@starling/media/error';
import { parseInitSegment } from '@starling/media/fmp4/init-segment';
import {
  type FragmentEntry,
  INDEX_SIZE_BYTES,
  movieIndex,
  readBoxHeader,
  readFragmentEntry,
} from '@starling/media/fmp4/movie';
import { ticksToMs } from '@starling/media/time';

/** Of a fragment's `moof` or of the file's `moov`: both are a few kilobytes long. */
const MAX_METADATA_BYTES = 16 * 1024 * 1024;

export interface MovieFileSize {
  readonly sizeBytes: number;
  readonly durationMs: number;
}

export class MovieFile {
  readonly #file: FileHandle;
  readonly #tracks: readonly Track[];
  readonly #indexAtBytes: number;
  readonly #entries: FragmentEntry[];
  #sizeBytes: number;

  private constructor(
    file: FileHandle,
    tracks: readonly Track[],
    headSizeBytes: number,
    entries: FragmentEntry[],
    sizeBytes: number,
  ) {
    this.#file = file;
    this.#tracks = tracks;
    this.#indexAtBytes = headSizeBytes - INDEX_SIZE_BYTES;
    this.#entries = entries;
    this.#sizeBytes = sizeBytes;
  }

  /**
   * Begins a file.
   * @param head with the room for the index at its end
   * @throws the system's error
   */
  static async create(path: string, head: Uint8Array, tracks: readonly Track[]): Promise<MovieFile> {
    const file = await open(path, 'wx', 0o600);
    try {
      await writeAll(file, head, 0);
    } catch (error) {
      await file.close();
      await rm(path, { force: true });
      throw error;
    }
    return new MovieFile(file, tracks, head.length, [], head.length);
  }

  /** Whole fragments only. */
  get size(): MovieFileSize {
    const [track] = this.#tracks;
    const endTicks = this.#entries.at(-1)?.endTicks ?? 0;
    return {
      sizeBytes: this.#sizeBytes,
      durationMs: track === undefined ? 0 : Math.round(ticksToMs(endTicks, timescaleHz(track))),
    };
  }

  /** @throws the system's error; the file then ends with the fragment before */
  async append(bytes: Uint8Array, entry: FragmentEntry): Promise<void> {
    await writeAll(this.#file, bytes, this.#sizeBytes);
    this.#sizeBytes += bytes.length;
    this.#entries.push(entry);
  }

  /** Has all that was written on the disk. */
  async sync(): Promise<void> {
    await this.#file.datasync();
  }

  /**
   * Writes the index and closes the file.
   * @throws the system's error; the file is closed all the same, and plays
   */
  async finish(): Promise<void> {
    try {
      await this.#file.truncate(this.#sizeBytes);
      await writeAll(this.#file, movieIndex(this.#tracks, this.#entries), this.#indexAtBytes);
      await this.#file.sync();
    } finally {
      await this.#file.close();
    }
  }

  /**
   * Finishes a file whose writer was killed: cuts off the fragment that was being written, and writes the index.
   * Reads no media. A file that is finished already is left as it is.
   *
   * @returns undefined where it has no whole fragment; the file is removed then
   * @throws the system's error
   */
  static async recover(path: string): Promise<MovieFileSize | undefined> {
    const file = await open(path, 'r+');
    let found: MovieFile | undefined;
    try {
      found = await MovieFile.#scan(file);
    } catch (error) {
      await file.close();
      throw error;
    }
    if (found === undefined) {
      await file.close();
      await rm(path);
      return undefined;
    }
    await found.finish();
    return found.size;
  }

  /** @returns the file with its whole fragments; undefined where there is none */
  static async #scan(file: FileHandle): Promise<MovieFile | undefined> {
    const { size: fileSizeBytes } = await file.stat();
    const entries: FragmentEntry[] = [];
    let tracks: readonly Track[] | undefined;
    let headSizeBytes = 0;
    let moof: { readonly content: Uint8Array; readonly atBytes: number } | undefined;
    let atBytes = 0;
    try {
      for (;;) {
        const header = readBoxHeader(await readUpTo(file, atBytes, 16));
        // What ends beyond the file was being written.
        if (header === undefined || atBytes + header.sizeBytes > fileSizeBytes) break;
        const { type, sizeBytes, headerSizeBytes } = header;
        if ((type === 'moof' || type === 'moov') && sizeBytes > MAX_METADATA_BYTES) break;
        if (type === 'moov') tracks = parseInitSegment(await readUpTo(file, atBytes, sizeBytes));
        if (type === 'moof') {
          if (entries.length === 0) headSizeBytes = atBytes;
          const content = await readUpTo(file, atBytes + headerSizeBytes, sizeBytes - headerSizeBytes);
          moof = { content, atBytes };
        }
        atBytes += sizeBytes;
        if (type === 'mdat' && moof !== undefined) {
          const endTicks = entries.at(-1)?.endTicks ?? 0;
          entries.push(readFragmentEntry(moof.content, atBytes - moof.atBytes, endTicks));
          moof = undefined;
        }
      }
    } catch (error) {
      // After a power cut the end may be anything.
      if (!(error instanceof MediaError)) throw error;
    }
    if (tracks === undefined || entries.length === 0) return undefined;
    const wholeSizeBytes = entries.reduce((sum, { sizeBytes }) => sum + sizeBytes, headSizeBytes);
    return new MovieFile(file, tracks, headSizeBytes, entries, wholeSizeBytes);
  }
}

async function writeAll(file: FileHandle, bytes: Uint8Array, atBytes: number): Promise<void> {
  let written = 0;
  while (written < bytes.length) {
    const { bytesWritten } = await file.write(bytes, written, bytes.length - written, atBytes + written);
    written += bytesWritten;
  }
}

/** Fewer bytes at the end of the file. */
async function readUpTo(file: FileHandle, atBytes: number, sizeBytes: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(sizeBytes);
  let read = 0;
  while (read < sizeBytes) {
    const { bytesRead } = await file.read(bytes, read, sizeBytes - read, atBytes + read);
    if (bytesRead === 0) break;
    read += bytesRead;
  }
  return bytes.subarray(0, read);
}
