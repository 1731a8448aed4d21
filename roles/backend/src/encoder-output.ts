/** Reads the fragmented MP4 that FFmpeg writes to a pipe, as it comes. */
import type { StreamEvent, Track } from '@starling/media/access-unit';
import { concatBytes } from '@starling/media/bytes';
import { parseFragment } from '@starling/media/fmp4/fragment';
import { parseInitSegment } from '@starling/media/fmp4/init-segment';

const BOX_HEADER_SIZE_BYTES = 8;
/** Two seconds of every track at the highest rates there are take a tenth of it. */
const MAX_BOX_SIZE_BYTES = 64 * 1024 * 1024;

export class EncoderOutput {
  #chunks: Uint8Array[] = [];
  #size = 0;
  #tracks: readonly Track[] | undefined;
  /** Waits for its `mdat`. */
  #moof: Uint8Array | undefined;

  /**
   * @returns what became whole: the tracks, numbered by kind in the order of the file, then units
   * @throws MediaError, or Error when it is no fragmented MP4 of a sensible size
   */
  push(chunk: Uint8Array): StreamEvent[] {
    this.#chunks.push(chunk);
    this.#size += chunk.length;
    const events: StreamEvent[] = [];
    for (;;) {
      const box = this.#takeBox();
      if (!box) return events;
      events.push(...this.#read(box.type, box.bytes));
    }
  }

  #takeBox(): { readonly type: string; readonly bytes: Uint8Array } | undefined {
    if (this.#size < BOX_HEADER_SIZE_BYTES) return undefined;
    if ((this.#chunks[0]?.length ?? 0) < BOX_HEADER_SIZE_BYTES) this.#chunks = [concatBytes(this.#chunks)];
    const [head = new Uint8Array()] = this.#chunks;
    const view = new DataView(head.buffer, head.byteOffset, BOX_HEADER_SIZE_BYTES);
    const sizeBytes = view.getUint32(0);
    if (sizeBytes < BOX_HEADER_SIZE_BYTES || sizeBytes > MAX_BOX_SIZE_BYTES) {
      throw new Error(`a box of ${sizeBytes} bytes`);
    }
    if (this.#size < sizeBytes) return undefined;
    const all = this.#chunks.length === 1 ? head : concatBytes(this.#chunks);
    this.#size -= sizeBytes;
    this.#chunks = this.#size > 0 ? [all.subarray(sizeBytes)] : [];
    return { type: String.fromCharCode(...head.subarray(4, 8)), bytes: all.subarray(0, sizeBytes) };
  }

  #read(type: string, bytes: Uint8Array): StreamEvent[] {
    switch (type) {
      case 'moov': {
        this.#tracks = withTrackIds(parseInitSegment(bytes));
        return this.#tracks.map((track) => ({ type: 'track', track }));
      }
      case 'moof':
        this.#moof = bytes;
        return [];
      case 'mdat': {
        if (!this.#tracks || !this.#moof) throw new Error('a fragment without its description');
        const units = parseFragment(concatBytes([this.#moof, bytes]), this.#tracks);
        this.#moof = undefined;
        return units.map((unit) => ({ type: 'unit', unit }));
      }
      default:
        return [];
    }
  }
}

/** Numbers the tracks of a file: each kind by itself, in the order of the file. */
export function withTrackIds(tracks: readonly Track[]): Track[] {
  const counts = { video: 0, audio: 0 };
  return tracks.map((track) => ({ ...track, trackId: counts[track.kind]++ }));
}
