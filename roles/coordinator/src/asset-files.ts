/**
 * The small files of assets: posters, thumbnails, subtitles. They are read from the media store, so the
 * coordinator has them where it shares its data folder, or the library, with a backend.
 */
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import type { Asset } from '@starling/model/entities';
import { ApiProblem } from './problem.ts';

const TYPES: readonly (readonly [name: RegExp, type: string])[] = [
  [/^(poster|thumbnails-\d{1,3})\.jpg$/, 'image/jpeg'],
  [/^(thumbnails|subtitles-\d{1,2})\.vtt$/, 'text/vtt; charset=utf-8'],
];
const MAX_SIZE_BYTES = 16 * 1024 * 1024;

export interface AssetFileContent {
  readonly type: string;
  readonly bytes: Uint8Array;
}

export class AssetFiles {
  readonly #mediaDir: string;

  constructor(mediaDir: string) {
    this.#mediaDir = mediaDir;
  }

  /** @throws ApiProblem ASSET_NOT_READY or ASSET_FILE_UNKNOWN */
  async read({ id, state, facts }: Asset, fileName: string): Promise<AssetFileContent> {
    if (facts === null) throw new ApiProblem('ASSET_NOT_READY', `Asset ${id} is ${state}.`);
    const unknown = new ApiProblem('ASSET_FILE_UNKNOWN', `Asset ${id} has no file ${fileName} here.`);
    const type = TYPES.find(([name]) => name.test(fileName))?.[1];
    if (type === undefined) throw unknown;
    const file = await open(join(this.#mediaDir, facts.contentHash, fileName)).catch(() => undefined);
    if (file === undefined) throw unknown;
    try {
      const { size } = await file.stat();
      if (size > MAX_SIZE_BYTES) throw unknown;
      return { type, bytes: await file.readFile() };
    } finally {
      await file.close();
    }
  }
}
