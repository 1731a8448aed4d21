/**
 * Notices that the picture of a live source is black and does not move.
 *
 * What an encoder sends is not decoded here all the time: that would cost as much as the encoding saved.
 * But a picture that is the same as the one before is coded in a few bytes. So {@link StillnessGate} counts
 * bytes, and only when all pictures of a while were that small, FFmpeg decodes them once and says whether
 * they are black and the same (docs/decisions/011-black-and-frozen.md).
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

/** Black, still and without sound for so long is a fault: with the decoding, noticed within a second. */
const SOUNDLESS_MS = 500;
/** With sound it may be meant: a title, the pause between two scenes. */
const WITH_SOUND_MS = 3000;
/** What is still, but not black, is looked at again after this. */
const LOOK_AGAIN_MS = 5000;

/** A picture without change takes a few bytes for itself, and at the most this share of a byte for each macroblock. */
const STILL_PICTURE_BYTES = 100;
const STILL_BYTES_PER_MACROBLOCK = 1 / 16;
/** A unit of AAC that holds silence. */
const SILENT_UNIT_BYTES = 32;

/** The decoded pictures are looked at in this size. */
const WIDTH_PX = 32;
const HEIGHT_PX = 18;
const PICTURE_BYTES = WIDTH_PX * HEIGHT_PX;
/** As FFmpeg's filter blackdetect has it: luma up to a tenth of the range, in 98 of 100 pixels. */
const BLACK_LUMA = 38;
const BLACK_SHARE = 0.98;
const SAME_LUMA = 2;

const DEADLINE_MS = 3000;
/** So many at a time, for all channels. */
const MAX_CONCURRENT_LOOKS = 2;
const MAX_GOP_UNITS = 1024;
const MAX_GOP_BYTES = 8 * 1024 * 1024;

/** Counts how long pictures have been too small to hold a change, and sound too small to hold any. */
export class StillnessGate {
  #stillSinceMs: number | undefined;
  #silentSinceMs: number | undefined;
  #hasSound = false;

  /** @returns for how long nothing has moved so far; 0 when something just did */
  picture(track: VideoTrack, unit: AccessUnit, nowMs: number): number {
    const macroblocks = (track.widthPx * track.heightPx) / 256;
    const limitBytes = STILL_PICTURE_BYTES + macroblocks * STILL_BYTES_PER_MACROBLOCK;
    // A random access point codes the whole picture: it says nothing about change.
    if (!unit.isRandomAccess && codedBytes(track, unit.data) > limitBytes) this.#stillSinceMs = undefined;
    else this.#stillSinceMs ??= nowMs;
    return this.#stillSinceMs === undefined ? 0 : nowMs - this.#stillSinceMs;
  }

  sound(unit: AccessUnit, nowMs: number): void {
    this.#hasSound = true;
    if (unit.data.length > SILENT_UNIT_BYTES) this.#silentSinceMs = undefined;
    else this.#silentSinceMs ??= nowMs;
  }

  /** How long black has to last to be a fault. */
  holdMs(nowMs: number): number {
    if (!this.#hasSound) return SOUNDLESS_MS;
    const silentMs = this.#silentSinceMs === undefined ? 0 : nowMs - this.#silentSinceMs;
    return silentMs >= SOUNDLESS_MS ? SOUNDLESS_MS : WITH_SOUND_MS;
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
  #lookedAtMs = Number.NEGATIVE_INFINITY;
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
    if (event.type !== 'unit' || !isDefaultTrack(event.unit)) return;
    const { unit } = event;
    if (unit.kind === 'audio') this.#gate.sound(unit, nowMs);
    else if (this.#track !== undefined) this.#takePicture(this.#track, unit, nowMs);
  }

  #takeTrack(track: Track): void {
    if (track.kind !== 'video') return;
    this.#track = track;
    this.#gate = new StillnessGate();
    this.#gop = [];
    this.#setDark(false);
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
    if (stillMs === 0) {
      this.#lookedAtMs = Number.NEGATIVE_INFINITY;
      this.#setDark(false);
      return;
    }
    const holdMs = this.#gate.holdMs(nowMs);
    const isDue = stillMs >= holdMs && nowMs - this.#lookedAtMs >= LOOK_AGAIN_MS;
    if (this.#isDark || this.#look !== undefined || !isDue || DarkWatch.#looks >= MAX_CONCURRENT_LOOKS)
      return;
    this.#lookedAtMs = nowMs;
    this.#look = this.#lookAt(track, this.#gop).finally(() => {
      this.#look = undefined;
    });
  }

  async #lookAt(track: VideoTrack, gop: readonly AccessUnit[]): Promise<void> {
    DarkWatch.#looks++;
    const { ffmpegPath = 'ffmpeg', logger } = this.#options;
    try {
      const last = gop.at(-1);
      if (last === undefined) return;
      const part = { sequenceNumber: 1, tracks: [{ track, units: gop, endTicks: last.dtsTicks + 1 }] };
      const pictures = await decode(ffmpegPath, concatBytes([initSegment([track]), fragment(part)]));
      // What has moved meanwhile has opened the gate again, and reset the time.
      if (isBlackAndStill(pictures) && this.#lookedAtMs !== Number.NEGATIVE_INFINITY) this.#setDark(true);
    } catch (error) {
      logger.warn({ err: error }, 'a still picture could not be looked at');
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

/**
 * Whether the last picture is black, and the one before it the same.
 * @param pictures luma, `WIDTH_PX` by `HEIGHT_PX` bytes each, one after another
 */
export function isBlackAndStill(pictures: Uint8Array): boolean {
  const count = Math.floor(pictures.length / PICTURE_BYTES);
  if (count === 0) return false;
  const last = pictures.subarray((count - 1) * PICTURE_BYTES, count * PICTURE_BYTES);
  const before = pictures.subarray(Math.max(0, count - 2) * PICTURE_BYTES);
  const blackPixels = last.filter((luma) => luma <= BLACK_LUMA).length;
  const isSame = last.every((luma, i) => Math.abs(luma - (before[i] ?? 0)) <= SAME_LUMA);
  return blackPixels >= BLACK_SHARE * PICTURE_BYTES && isSame;
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
