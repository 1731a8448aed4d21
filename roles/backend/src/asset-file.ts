/**
 * A stored asset: `video.mp4`, a fragmented MP4 with one fragment per GOP that holds all tracks, and
 * `asset.json`, which says where each fragment lies (docs/formats/house-format.md).
 */
import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { AccessUnit, Track } from '@starling/media/access-unit';
import { parseFragment } from '@starling/media/fmp4/fragment';
import { parseInitSegment } from '@starling/media/fmp4/init-segment';
import { VIDEO_TIMESCALE_HZ } from '@starling/media/time';
import { AssetFacts } from '@starling/model/schedule';
import { type Static, Type } from 'typebox';
import { Value } from 'typebox/value';
import { withTrackIds } from './encoder-output.ts';
import { BackendError, systemErrorCode } from './error.ts';

export const ASSET_INDEX_NAME = 'asset.json';
export const ASSET_MEDIA_NAME = 'video.mp4';

/** What `asset.json` holds. */
export const AssetIndex = Type.Object({
  facts: AssetFacts,
  initSizeBytes: Type.Integer({ minimum: 1 }),
  /** One entry per GOP, which is one segment and one fragment. */
  segments: Type.Array(
    Type.Object({
      /** Start in ticks of 1/90000 s from the start of the asset. */
      startTicks: Type.Integer({ minimum: 0 }),
      offsetBytes: Type.Integer({ minimum: 1 }),
      sizeBytes: Type.Integer({ minimum: 1, maximum: 64 * 1024 * 1024 }),
    }),
    { minItems: 1 },
  ),
});
export type AssetIndex = Static<typeof AssetIndex>;

const OldAssetIndex = Type.Object({
  ...AssetIndex.properties,
  facts: Type.Object(
    {
      ...Type.Omit(AssetFacts, ['videoTracks', 'audioTracks', 'subtitles', 'hasPictures']).properties,
    },
    { additionalProperties: false },
  ),
});

/**
 * Reads a stored asset. Keeps its index in memory but no file open, so any number of them can be kept.
 */
export class AssetFile {
  readonly index: AssetIndex;
  /** Pictures by track id, then sounds by track id. */
  readonly tracks: readonly Track[];
  readonly #mediaPath: string;

  private constructor(mediaPath: string, index: AssetIndex, tracks: readonly Track[]) {
    this.#mediaPath = mediaPath;
    this.index = index;
    this.tracks = tracks;
  }

  /** @throws BackendError ASSET_MISSING, ASSET_DAMAGED or ASSET_UNREADABLE */
  static async open(folder: string): Promise<AssetFile> {
    const mediaPath = join(folder, ASSET_MEDIA_NAME);
    try {
      const index = completed(JSON.parse(await readFile(join(folder, ASSET_INDEX_NAME), 'utf8')));
      if (!Value.Check(AssetIndex, index) || index.segments.length !== index.facts.segmentCount) {
        throw new Error(`${ASSET_INDEX_NAME} does not have its form`);
      }
      const { videoTracks, audioTracks } = index.facts;
      const tracks = withTrackIds(parseInitSegment(await readRange(mediaPath, 0, index.initSizeBytes))).map(
        (track): Track =>
          track.kind === 'video'
            ? track
            : { ...track, language: audioTracks[track.trackId]?.language ?? undefined },
      );
      if (tracks.length !== videoTracks.length + audioTracks.length) {
        throw new Error(`it has ${tracks.length} tracks`);
      }
      return new AssetFile(mediaPath, index, tracks);
    } catch (error) {
      throw assetError(error, folder);
    }
  }

  /** Ticks of 1/90000 s from the start of the asset, where the segment ends. */
  segmentEndTicks(segmentIndex: number): number {
    return this.index.segments[segmentIndex + 1]?.startTicks ?? this.index.facts.durationTicks;
  }

  /**
   * The access units of one segment, track by track. Times count from the start of the asset.
   * @throws BackendError ASSET_MISSING, ASSET_DAMAGED or ASSET_UNREADABLE
   */
  async readSegment(segmentIndex: number): Promise<AccessUnit[]> {
    const segment = this.index.segments[segmentIndex];
    if (!segment) throw new RangeError(`Segment ${segmentIndex} of ${this.index.segments.length}`);
    try {
      return parseFragment(
        await readRange(
          this.#mediaPath,
          segment.offsetBytes,
          segment.sizeBytes,
          memory.take(segment.sizeBytes),
        ),
        this.tracks,
      );
    } catch (error) {
      throw assetError(error, this.#mediaPath);
    }
  }

  /** Nobody reads the data of these units of a segment any more: its memory is used for another one. */
  recycle(units: readonly AccessUnit[]): void {
    const buffer = units[0]?.data.buffer;
    if (buffer instanceof ArrayBuffer) memory.giveBack(buffer);
  }
}

/** The index of an asset from before there were ladders: it has one picture and one sound, and does not say so. */
function completed(index: unknown): unknown {
  if (!Value.Check(OldAssetIndex, index)) return index;
  const { widthPx, heightPx, sizeBytes, durationTicks } = index.facts;
  const bitrateBps = Math.round((sizeBytes * 8 * VIDEO_TIMESCALE_HZ) / durationTicks);
  const tracks: Pick<AssetFacts, 'videoTracks' | 'audioTracks' | 'subtitles' | 'hasPictures'> = {
    videoTracks: [{ widthPx, heightPx, bitrateBps }],
    audioTracks: [{ language: null, loudnessLufs: null, gainDb: 0 }],
    subtitles: [],
    hasPictures: false,
  };
  return { ...index, facts: { ...index.facts, ...tracks } };
}

/**
 * Memory for segments. What many channels read is some 50 MB a second: new memory for it has the system clear as many
 * pages, and the collector mark the whole heap every second.
 */
class SegmentMemory {
  /** By their size, a multiple of the step. */
  readonly #free = new Map<number, ArrayBuffer[]>();
  #freeBytes = 0;

  /** @returns so many bytes of which nothing is known */
  take(sizeBytes: number): Uint8Array<ArrayBuffer> {
    const leastBytes = Math.ceil(sizeBytes / MEMORY_STEP_BYTES) * MEMORY_STEP_BYTES;
    for (let size = leastBytes; size <= leastBytes * MAX_MEMORY_WASTE; size += MEMORY_STEP_BYTES) {
      const buffer = this.#free.get(size)?.pop();
      if (buffer === undefined) continue;
      this.#freeBytes -= size;
      return new Uint8Array(buffer, 0, sizeBytes);
    }
    return new Uint8Array(Buffer.allocUnsafeSlow(leastBytes).buffer, 0, sizeBytes);
  }

  giveBack(buffer: ArrayBuffer): void {
    const size = buffer.byteLength;
    if (size % MEMORY_STEP_BYTES !== 0 || this.#freeBytes + size > MAX_FREE_MEMORY_BYTES) return;
    this.#freeBytes += size;
    const free = this.#free.get(size);
    if (free === undefined) this.#free.set(size, [buffer]);
    else free.push(buffer);
  }
}

const MEMORY_STEP_BYTES = 64 * 1024;
/** A segment may lie in memory that is so many times as large as it has to be. */
const MAX_MEMORY_WASTE = 1.25;
const MAX_FREE_MEMORY_BYTES = 32 * 1024 * 1024;
const memory = new SegmentMemory();

async function readRange(
  path: string,
  offsetBytes: number,
  sizeBytes: number,
  bytes = new Uint8Array(sizeBytes),
): Promise<Uint8Array> {
  const file = await open(path);
  try {
    let filledBytes = 0;
    while (filledBytes < sizeBytes) {
      const { bytesRead } = await file.read(
        bytes,
        filledBytes,
        sizeBytes - filledBytes,
        offsetBytes + filledBytes,
      );
      if (bytesRead === 0) {
        throw new Error(`it ends at byte ${offsetBytes + filledBytes} of ${offsetBytes + sizeBytes}`);
      }
      filledBytes += bytesRead;
    }
    return bytes;
  } finally {
    await file.close();
  }
}

/** Any failure of reading, with its code. */
function assetError(error: unknown, path: string): BackendError {
  if (error instanceof BackendError) return error;
  const cause = error;
  const reason = error instanceof Error ? error.message : String(error);
  switch (systemErrorCode(error)) {
    case 'ENOENT':
    case 'ENOTDIR':
      return new BackendError('ASSET_MISSING', `The asset at ${path} is not there.`, { cause });
    case undefined:
      return new BackendError('ASSET_DAMAGED', `The asset at ${path} is damaged: ${reason}`, { cause });
    default:
      return new BackendError('ASSET_UNREADABLE', `The asset at ${path} cannot be read: ${reason}`, {
        cause,
      });
  }
}
