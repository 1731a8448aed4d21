/**
 * The names of a private channel's segments. Each lies in a folder that nobody can guess, and that only
 * playlists tell, which are for those who may watch. So a segment needs no token, its address is the same for all
 * viewers and on all frontends, and caches keep it as they keep any other (docs/decisions/006-private-channels.md).
 */
import { createHmac, timingSafeEqual } from 'node:crypto';

/** 128 bits: beyond guessing. */
const FOLDER_BYTES = 16;
const IN_FOLDER = /^(.*\/)?([A-Za-z0-9_-]{22})\/([^/]+)$/;
/** Folders that are remembered: a day of segments of 2 s. */
const MAX_REMEMBERED = 50_000;

export class SegmentNames {
  readonly key: string;
  readonly #folders = new Map<string, string>();

  /** @param key the channel's, in base64url; the same on all frontends */
  constructor(key: string) {
    this.key = key;
  }

  /** The address of a file relative to the media playlist that lists it: `1234.0.m4s` becomes `<folder>/1234.0.m4s`. */
  inFolder(name: string): string {
    return `${this.#folderOf(name)}/${name}`;
  }

  /**
   * The path without the folder.
   * @returns undefined when it is not the right one, or there is none
   */
  withoutFolder(path: string): string | undefined {
    const [, before = '', folder, name] = IN_FOLDER.exec(path) ?? [];
    if (folder === undefined || name === undefined) return undefined;
    const expected = this.#folderOf(name);
    return timingSafeEqual(Buffer.from(folder), Buffer.from(expected)) ? before + name : undefined;
  }

  /** The parts of a segment share its folder. */
  #folderOf(name: string): string {
    const [subject = ''] = name.split('.', 1);
    const known = this.#folders.get(subject);
    if (known !== undefined) return known;
    const digest = createHmac('sha256', this.key).update(subject).digest();
    const folder = digest.subarray(0, FOLDER_BYTES).toString('base64url');
    this.#folders.set(subject, folder);
    const [oldest] = this.#folders.keys();
    if (this.#folders.size > MAX_REMEMBERED && oldest !== undefined) this.#folders.delete(oldest);
    return folder;
  }
}
