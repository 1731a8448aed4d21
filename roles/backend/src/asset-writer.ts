/** Writes an asset into a folder, from the access units that the encoder hands out one by one. */
import { createHash } from 'node:crypto';
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import {
  AAC_SAMPLES_PER_UNIT,
  type AccessUnit,
  type AudioTrack,
  type StreamEvent,
  type VideoTrack,
} from '@starling/media/access-unit';
import { avcTrack } from '@starling/media/codec/avc';
import { fragment } from '@starling/media/fmp4/fragment';
import { initSegment } from '@starling/media/fmp4/init-segment';
import { rescaleTicks, VIDEO_TIMESCALE_HZ } from '@starling/media/time';
import { ASSET_INDEX_NAME, ASSET_MEDIA_NAME, type AssetIndex } from './asset-file.ts';
import {
  HOUSE_HEIGHT_PX,
  HOUSE_SAMPLE_RATE_HZ,
  HOUSE_WIDTH_PX,
  type HousePlan,
  withoutVuiTiming,
} from './house-format.ts';

const TICKS_PER_AUDIO_UNIT = rescaleTicks(AAC_SAMPLES_PER_UNIT, HOUSE_SAMPLE_RATE_HZ, VIDEO_TIMESCALE_HZ);

/** Half a minute of both streams at 60 fps: far more than FFmpeg's interleaving ever spreads them. */
const MAX_PENDING_UNITS = 3200;

/**
 * Puts the encoder's units on the asset's grids by counting, for FLV has whole milliseconds only, and
 * writes one fragment per GOP.
 */
export class AssetWriter {
  readonly #folder: string;
  readonly #plan: HousePlan;
  readonly #media: FileHandle;
  #videoTrack: VideoTrack | undefined;
  #audioTrack: AudioTrack | undefined;
  /** Units of GOPs that are not written yet. Bounded by `MAX_PENDING_UNITS`. */
  #video: AccessUnit[] = [];
  #audio: AccessUnit[] = [];
  #frameCount = 0;
  #gopsBegun = 0;
  #audioUnitCount = 0;
  #firstAudioDtsTicks: number | undefined;
  #offsetBytes = 0;
  #initSizeBytes = 0;
  readonly #segments: AssetIndex['segments'] = [];

  private constructor(folder: string, plan: HousePlan, media: FileHandle) {
    this.#folder = folder;
    this.#plan = plan;
    this.#media = media;
  }

  /** Begins an asset in an empty folder. */
  static async create(folder: string, plan: HousePlan): Promise<AssetWriter> {
    return new AssetWriter(folder, plan, await open(join(folder, ASSET_MEDIA_NAME), 'wx'));
  }

  /** Frames taken so far over the frames of the plan. */
  get fractionDone(): number {
    return this.#frameCount / this.#plan.frameCount;
  }

  /**
   * Takes events of the encoder's FLV.
   * @throws Error when they do not keep to the plan, and the system's error when a write fails
   */
  async push(events: readonly StreamEvent[]): Promise<void> {
    for (const event of events) {
      if (event.type === 'track') this.#setTrack(event.track);
      if (event.type !== 'unit') continue;
      if (event.unit.kind === 'video') this.#addVideo(event.unit);
      else this.#addAudio(event.unit);
      if (this.#video.length + this.#audio.length > MAX_PENDING_UNITS) {
        throw new Error('picture and sound lie too far apart');
      }
      if (this.#isGopComplete()) await this.#writeGop();
    }
  }

  #setTrack(track: VideoTrack | AudioTrack): void {
    if (this.#segments.length > 0) throw new Error(`the ${track.kind} configuration changes in mid-file`);
    if (track.kind === 'video') {
      if (track.widthPx !== HOUSE_WIDTH_PX || track.heightPx !== HOUSE_HEIGHT_PX) {
        throw new Error(`the picture is ${track.widthPx}x${track.heightPx}`);
      }
      this.#videoTrack = avcTrack(withoutVuiTiming(track.config), this.#plan.frameDurationTicks);
    } else {
      if (track.sampleRateHz !== HOUSE_SAMPLE_RATE_HZ)
        throw new Error(`the sound has ${track.sampleRateHz} Hz`);
      this.#audioTrack = track;
    }
  }

  #addVideo(unit: AccessUnit): void {
    const frame = this.#frameCount++;
    if (unit.ptsTicks !== unit.dtsTicks) throw new Error(`frame ${frame} is reordered`);
    if (frame === this.#plan.gopStartFrames[this.#gopsBegun]) {
      if (!unit.isRandomAccess) throw new Error(`frame ${frame} is not a key frame`);
      this.#gopsBegun += 1;
    }
    const dtsTicks = frame * this.#plan.frameDurationTicks;
    this.#video.push({ ...unit, dtsTicks, ptsTicks: dtsTicks });
  }

  /**
   * The encoder's first unit holds its priming, no content. A unit's slot follows from its timestamp,
   * to the nearest: so a change of the source's sound format, where FFmpeg loses a few milliseconds,
   * does not shift all that comes after. A hole repeats the unit before it.
   */
  #addAudio(unit: AccessUnit): void {
    this.#firstAudioDtsTicks ??= unit.dtsTicks;
    const slot = Math.round((unit.dtsTicks - this.#firstAudioDtsTicks) / AAC_SAMPLES_PER_UNIT) - 1;
    const endSlot = Math.min(slot + 1, this.#plan.audioUnitCount);
    while (this.#audioUnitCount < endSlot) {
      const dtsTicks = this.#audioUnitCount++ * AAC_SAMPLES_PER_UNIT;
      this.#audio.push({ ...unit, dtsTicks, ptsTicks: dtsTicks });
    }
  }

  #gopEndFrame(): number {
    return this.#plan.gopStartFrames[this.#segments.length + 1] ?? this.#plan.frameCount;
  }

  /** The audio units that start before the GOP's end belong to it. */
  #gopEndAudioUnit(): number {
    return Math.ceil((this.#gopEndFrame() * this.#plan.frameDurationTicks) / TICKS_PER_AUDIO_UNIT);
  }

  #isGopComplete(): boolean {
    return (
      this.#segments.length < this.#plan.gopStartFrames.length &&
      this.#frameCount >= this.#gopEndFrame() &&
      this.#audioUnitCount >= this.#gopEndAudioUnit()
    );
  }

  async #writeGop(): Promise<void> {
    const tracks = this.#tracks();
    if (this.#segments.length === 0) {
      const init = initSegment([tracks.video, tracks.audio]);
      await this.#write(init);
      this.#initSizeBytes = init.length;
    }
    const startFrame = this.#plan.gopStartFrames[this.#segments.length] ?? 0;
    const endFrame = this.#gopEndFrame();
    const endAudioUnit = this.#gopEndAudioUnit();
    const video = this.#video.splice(0, endFrame - startFrame);
    const audio = this.#audio.splice(0, endAudioUnit - (this.#audioUnitCount - this.#audio.length));
    const bytes = fragment({
      sequenceNumber: this.#segments.length + 1,
      tracks: [
        { track: tracks.video, units: video, endTicks: endFrame * this.#plan.frameDurationTicks },
        { track: tracks.audio, units: audio, endTicks: endAudioUnit * AAC_SAMPLES_PER_UNIT },
      ],
    });
    this.#segments.push({
      startTicks: startFrame * this.#plan.frameDurationTicks,
      offsetBytes: this.#offsetBytes,
      sizeBytes: bytes.length,
    });
    await this.#write(bytes);
  }

  async #write(bytes: Uint8Array): Promise<void> {
    await this.#media.writeFile(bytes); // goes on where the last write ended
    this.#offsetBytes += bytes.length;
  }

  #tracks(): { video: VideoTrack; audio: AudioTrack } {
    if (!this.#videoTrack || !this.#audioTrack) throw new Error('the encoder announced no tracks');
    return { video: this.#videoTrack, audio: this.#audioTrack };
  }

  /**
   * Ends the asset and makes it safe on the disk.
   * @throws Error when the encoder gave less than the plan says
   */
  async finish(contentHash: string): Promise<AssetIndex> {
    const plan = this.#plan;
    if (this.#frameCount !== plan.frameCount || this.#segments.length !== plan.gopStartFrames.length) {
      throw new Error(
        `${this.#frameCount} of ${plan.frameCount} frames and ${this.#audioUnitCount} of ${plan.audioUnitCount} audio units came`,
      );
    }
    const { video, audio } = this.#tracks();
    const index: AssetIndex = {
      facts: {
        contentHash,
        configHash: createHash('sha256').update(video.config).update(audio.config).digest('hex'),
        durationTicks: plan.durationTicks,
        segmentCount: this.#segments.length,
        sizeBytes: this.#offsetBytes,
        widthPx: video.widthPx,
        heightPx: video.heightPx,
        frameRate: plan.frameRate,
      },
      initSizeBytes: this.#initSizeBytes,
      segments: this.#segments,
    };
    await this.#media.sync();
    const indexFile = await open(join(this.#folder, ASSET_INDEX_NAME), 'wx');
    try {
      await indexFile.writeFile(JSON.stringify(index));
      await indexFile.sync();
    } finally {
      await indexFile.close();
    }
    return index;
  }

  async close(): Promise<void> {
    await this.#media.close();
  }
}
