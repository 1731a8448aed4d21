/**
 * Watches folders for files to import. It looks again and again rather than asking the system for changes:
 * that works on network file systems too, and a file has to be looked at twice anyway before it can be
 * believed to be complete.
 */
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { CoordinatorClient } from '@starling/model/client';
import { type FolderReport, isMediaFileName, type WatchedFolder } from '@starling/model/library';
import type { Logger } from 'pino';

const MAX_FILES = 100_000;
const MAX_DEPTH = 16;
const MAX_REPORT_FILES = 500;

export interface WatchedFoldersOptions {
  readonly coordinator: Pick<CoordinatorClient, 'reportFolder'>;
  readonly logger: Logger;
  /** The store; nothing in it is a source. */
  readonly mediaDir: string;
  /** Between two looks. */
  readonly intervalMs?: number;
  /** A file whose size and time did not change for so long is complete. */
  readonly settleMs?: number;
  /** Monotonic. */
  readonly nowMs?: () => number;
}

interface SeenFile {
  readonly version: string;
  readonly sinceMs: number;
  isReported: boolean;
}

export class WatchedFolders {
  readonly #options: Required<WatchedFoldersOptions>;
  #folders: readonly WatchedFolder[] = [];
  /** By folder id, then by path. */
  readonly #seen = new Map<string, Map<string, SeenFile>>();
  readonly #unreadable = new Set<string>();
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> | undefined;
  #isClosed = false;

  constructor(options: WatchedFoldersOptions) {
    this.#options = { intervalMs: 5000, settleMs: 10_000, nowMs: () => performance.now(), ...options };
  }

  setFolders(folders: readonly WatchedFolder[]): void {
    this.#folders = folders;
    for (const id of this.#seen.keys()) {
      if (!folders.some((folder) => folder.id === id)) this.#seen.delete(id);
    }
    if (folders.length > 0 && this.#timer === undefined && !this.#isClosed) this.#schedule();
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    await this.#looking;
  }

  #schedule(): void {
    this.#timer = setTimeout(() => {
      this.#looking = this.look().finally(() => {
        this.#timer = undefined;
        if (this.#folders.length > 0 && !this.#isClosed) this.#schedule();
      });
    }, this.#options.intervalMs);
  }

  /** Looks once into every folder. Never rejects: what cannot be read is logged. */
  async look(): Promise<void> {
    for (const folder of this.#folders) {
      try {
        await this.#lookInto(folder);
        this.#unreadable.delete(folder.id);
      } catch (error) {
        if (this.#unreadable.has(folder.id)) continue;
        this.#unreadable.add(folder.id);
        this.#options.logger.warn({ folder: folder.path, err: error }, 'a watched folder cannot be read');
      }
    }
  }

  async #lookInto(folder: WatchedFolder): Promise<void> {
    const { nowMs, settleMs } = this.#options;
    const before = this.#seen.get(folder.id);
    const seen = new Map<string, SeenFile>();
    for await (const path of this.#mediaFiles(folder.path, folder.isRecursive ? MAX_DEPTH : 1)) {
      if (seen.size >= MAX_FILES) break;
      try {
        const { size, mtimeMs } = await stat(path);
        const version = `${size}-${Math.round(mtimeMs)}`;
        const known = before?.get(path);
        seen.set(path, known?.version === version ? known : { version, sinceMs: nowMs(), isReported: false });
      } catch {
        // It has just gone.
      }
    }
    this.#seen.set(folder.id, seen);
    const complete = [...seen].filter(([, file]) => !file.isReported && nowMs() - file.sinceMs >= settleMs);
    for (let i = 0; i < complete.length && !this.#isClosed; i += MAX_REPORT_FILES) {
      const batch = complete.slice(i, i + MAX_REPORT_FILES);
      const files: FolderReport['files'] = batch.map(([path, { version }]) => ({ path, version }));
      await this.#options.coordinator.reportFolder(folder.id, { files });
      for (const [, file] of batch) file.isReported = true;
    }
  }

  async *#mediaFiles(path: string, depth: number): AsyncGenerator<string> {
    const entries = await readdir(path, { withFileTypes: true });
    entries.sort((a, b) => (a.name < b.name ? -1 : 1));
    for (const entry of entries) {
      const entryPath = join(path, entry.name);
      if (entry.isFile() && isMediaFileName(entry.name)) yield entryPath;
      const isBelow = entry.isDirectory() && depth > 1 && !entry.name.startsWith('.');
      if (isBelow && entryPath !== this.#options.mediaDir) yield* this.#mediaFiles(entryPath, depth - 1);
    }
  }
}
