/**
 * Notices that the picture of a live source is black and does not move.
 *
 * What an encoder sends is not decoded here all the time: that would cost as much as the encoding saved.
 * But a picture that is the same as the one before is coded in a few bytes. So {@link StillnessGate} counts
 * bytes, and only when all pictures of a while were that small, FFmpeg decodes them once and says whether
 * they are black and the same. When they have been so for long enough, the picture is dark
 * (docs/decisions/011-black-and-frozen.md).
 */
import { spawn } from 'node:child_process';
import {
  type AccessUnit,
  isDefaultTrack,
  type StreamEvent,
  type Track,
  type VideoTrack,
} from '@starling/media/access-unit';
import { concatBytes } from '@starling/media/bytes';
import { fragment } from '@starling/media/fmp4/fragment';
import { initSegment } from '@starling/media/fmp4/init-segment';
import type { Logger } from 'pino';

/** What has been still for so long is looked at: early, so that the answer is there when it is needed. */
const LOOK_AFTER_MS = 400;
/** What is still, but not black, is looked at again after this. */
const LOOK_AGAIN_MS = 5000;
/** What was found moving after all: a fade may be coded in as few bytes as no change. */
const LOOK_AGAIN_AT_MOVEMENT_MS = 400;
/**
 * The change of source takes one distance of two pictures until the first that is the same, one more until
 * the time is over, and one tick of the backend: so much sooner is the picture dark.
 */
const REACTION_MS = 150;

/** A picture without change takes a few bytes for itself, and at the most this share of a byte for each macroblock. */
const STILL_PICTURE_BYTES = 100;
const STILL_BYTES_PER_MACROBLOCK = 1 / 16;
/** The same for a whole picture that is black: the plainest coding has a few bits for each macroblock. */
const BLACK_PICTURE_BYTES = 1500;
const BLACK_BYTES_PER_MACROBLOCK = 1;

/** The decoded pictures are looked at in this size. */
const WIDTH_PX = 32;
const HEIGHT_PX = 18;
const PICTURE_BYTES = WIDTH_PX * HEIGHT_PX;
/** As FFmpeg's filter blackdetect has it: luma up to a tenth of the range, in 98 of 100 pixels. */
const BLACK_LUMA = 38;
const BLACK_SHARE = 0.98;
const SAME_LUMA = 2;
/** Compared with the last: a slow fade changes too little from one picture to the next. */
const PICTURES_BACK = 8;

const DEADLINE_MS = 3000;
/** So many at a time, for all channels. */
const MAX_CONCURRENT_LOOKS = 2;
const MAX_GOP_UNITS = 1024;
const MAX_GOP_BYTES = 8 * 1024 * 1024;

/** Counts how long pictures have been too small to hold a change. */
export class StillnessGate {
  #stillSinceMs: number | undefined;
  #wasRandomAccess = false;

  /** @returns for how long nothing has moved so far; undefined when something just did */
  picture(track: VideoTrack, unit: AccessUnit, nowMs: number): number | undefined {
    const macroblocks = (track.widthPx * track.heightPx) / 256;
    const limitBytes = unit.isRandomAccess
      ? BLACK_PICTURE_BYTES + macroblocks * BLACK_BYTES_PER_MACROBLOCK
      : STILL_PICTURE_BYTES + macroblocks * STILL_BYTES_PER_MACROBLOCK;
    // A random access point codes the whole picture: it says nothing about change. Where there is nothing else, a
    // picture that may be black is taken for one that has not changed.
    const says = !unit.isRandomAccess || this.#wasRandomAccess;
    this.#wasRandomAccess = unit.isRandomAccess;
    if (says && codedBytes(track, unit.data) > limitBytes) this.#stillSinceMs = undefined;
    else this.#stillSinceMs ??= nowMs;
    return this.#stillSinceMs === undefined ? undefined : nowMs - this.#stillSinceMs;
  }
}

/** Without the NAL units that only fill up a constant bit rate. */
function codedBytes(track: VideoTrack, data: Uint8Array): number {
  if (track.codec !== 'avc' && track.codec !== 'hevc') return data.length;
  let bytes = 0;
  for (let at = 0; at + 5 <= data.length; ) {
    const view = new DataView(data.buffer, data.byteOffset + at);
    const size = view.getUint32(0);
    const header = view.getUint8(4);
    // ISO/IEC 14496-10 table 7-1 and ISO/IEC 23008-2 table 7-1: filler data
    const isFiller = track.codec === 'avc' ? (header & 0x1f) === 12 : ((header >> 1) & 0x3f) === 38;
    if (!isFiller) bytes += size;
    at += 4 + size;
  }
  return bytes;
}

export interface DarkWatchOptions {
  readonly logger: Logger;
  /** A picture that is black and does not move is to be replaced after so long; null for never. */
  afterMs(): number | null;
  readonly ffmpegPath?: string;
  onChange(isDark: boolean): void;
}

/** Watches one source. */
export class DarkWatch {
  readonly #options: DarkWatchOptions;
  #track: VideoTrack | undefined;
  #gate = new StillnessGate();
  /** From the last random access point on. */
  #gop: AccessUnit[] = [];
  #gopBytes = 0;
  /** Of what has not moved since; undefined where that has not been looked at. */
  #seen: { readonly what: Look; readonly atMs: number } | undefined;
  /** Counts the movements: what is seen of pictures from before the last one is of no use. */
  #movements = 0;
  #look: Promise<void> | undefined;
  #isDark = false;
  static #looks = 0;

  constructor(options: DarkWatchOptions) {
    this.#options = options;
  }

  /** Settles when the look that is being taken is; undefined while none is. */
  get looked(): Promise<void> | undefined {
    return this.#look;
  }

  /** Takes an event of the source. */
  push(event: StreamEvent, nowMs: number): void {
    if (event.type === 'track' && isDefaultTrack(event.track)) this.#takeTrack(event.track);
    if (event.type !== 'unit' || event.unit.kind !== 'video' || !isDefaultTrack(event.unit)) return;
    if (this.#track !== undefined) this.#takePicture(this.#track, event.unit, nowMs);
  }

  #takeTrack(track: Track): void {
    if (track.kind !== 'video') return;
    this.#track = track;
    this.#gate = new StillnessGate();
    this.#gop = [];
    this.#noteMovement();
  }

  #takePicture(track: VideoTrack, unit: AccessUnit, nowMs: number): void {
    if (unit.isRandomAccess) {
      this.#gop = [];
      this.#gopBytes = 0;
    } else if (this.#gop.length === 0) {
      return;
    }
    this.#gop.push(unit);
    this.#gopBytes += unit.data.length;
    if (this.#gop.length > MAX_GOP_UNITS || this.#gopBytes > MAX_GOP_BYTES) this.#gop = [];
    const stillMs = this.#gate.picture(track, unit, nowMs);
    const afterMs = this.#options.afterMs();
    if (stillMs === undefined || afterMs === null) {
      this.#noteMovement();
      return;
    }
    const seen = this.#seen;
    if (seen?.what === 'black') {
      if (stillMs >= afterMs - REACTION_MS) this.#setDark(true);
      return;
    }
    const againMs = seen?.what === 'moving' ? LOOK_AGAIN_AT_MOVEMENT_MS : LOOK_AGAIN_MS;
    const isDue = seen === undefined ? stillMs >= LOOK_AFTER_MS : nowMs - seen.atMs >= againMs;
    if (!isDue || this.#look !== undefined || DarkWatch.#looks >= MAX_CONCURRENT_LOOKS) return;
    const movements = this.#movements;
    this.#look = this.#lookAt(track, this.#gop).then((what) => {
      this.#look = undefined;
      if (movements === this.#movements) this.#seen = { what, atMs: nowMs };
    });
  }

  #noteMovement(): void {
    this.#movements++;
    this.#seen = undefined;
    this.#setDark(false);
  }

  async #lookAt(track: VideoTrack, gop: readonly AccessUnit[]): Promise<Look> {
    DarkWatch.#looks++;
    const { ffmpegPath = 'ffmpeg', logger } = this.#options;
    try {
      const last = gop.at(-1);
      if (last === undefined) return 'still';
      const part = { sequenceNumber: 1, tracks: [{ track, units: gop, endTicks: last.dtsTicks + 1 }] };
      return judge(await decode(ffmpegPath, concatBytes([initSegment([track]), fragment(part)])));
    } catch (error) {
      logger.warn({ err: error }, 'a still picture could not be looked at');
      return 'still';
    } finally {
      DarkWatch.#looks--;
    }
  }

  #setDark(isDark: boolean): void {
    if (isDark === this.#isDark) return;
    this.#isDark = isDark;
    this.#options.onChange(isDark);
  }
}

/** What the decoded pictures show. */
type Look = 'black' | 'still' | 'moving';

/**
 * Whether the last picture is the same as one shortly before it, and if so, whether it is black.
 * @param pictures luma, `WIDTH_PX` by `HEIGHT_PX` bytes each, one after another
 */
function judge(pictures: Uint8Array): Look {
  const count = Math.floor(pictures.length / PICTURE_BYTES);
  if (count === 0) return 'still';
  const last = pictures.subarray((count - 1) * PICTURE_BYTES, count * PICTURE_BYTES);
  const before = pictures.subarray(Math.max(0, count - 1 - PICTURES_BACK) * PICTURE_BYTES);
  if (!last.every((luma, i) => Math.abs(luma - (before[i] ?? 0)) <= SAME_LUMA)) return 'moving';
  const blackPixels = last.filter((luma) => luma <= BLACK_LUMA).length;
  return blackPixels >= BLACK_SHARE * PICTURE_BYTES ? 'black' : 'still';
}

/** @returns the luma of all pictures in small, limited range */
function decode(program: string, fmp4: Uint8Array): Promise<Uint8Array> {
  const filters = `scale=${WIDTH_PX}:${HEIGHT_PX}:flags=area:out_range=tv,format=gray`;
  const args = ['-v', 'error', '-threads', '1', '-f', 'mp4', '-i', 'pipe:0', '-vf', filters];
  return new Promise((resolve, reject) => {
    const child = spawn(program, [...args, '-fps_mode', 'passthrough', '-f', 'rawvideo', 'pipe:1'], {
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    const deadline = setTimeout(() => child.kill('SIGKILL'), DEADLINE_MS);
    const chunks: Uint8Array[] = [];
    child.stdout.on('data', (chunk: Uint8Array) => chunks.push(chunk));
    child.once('error', (error) => {
      clearTimeout(deadline);
      reject(error);
    });
    child.once('close', () => {
      clearTimeout(deadline);
      resolve(concatBytes(chunks));
    });
    child.stdin.on('error', () => {}); // it closed its input early; 'close' follows
    child.stdin.end(fmp4);
  });
}
