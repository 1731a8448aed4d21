/** Writes an asset into a folder, from the access units that the encoders hand out one by one. */
import { createHash } from 'node:crypto';
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import {
  AAC_SAMPLES_PER_UNIT,
  type AccessUnit,
  type AudioTrack,
  type StreamEvent,
  type Track,
  type VideoTrack,
} from '@starling/media/access-unit';
import { avcTrack } from '@starling/media/codec/avc';
import { type FragmentTrack, fragment } from '@starling/media/fmp4/fragment';
import { initSegment } from '@starling/media/fmp4/init-segment';
import { rescaleTicks, VIDEO_TIMESCALE_HZ } from '@starling/media/time';
import type { AssetFacts } from '@starling/model/schedule';
import { ASSET_INDEX_NAME, ASSET_MEDIA_NAME, type AssetIndex } from './asset-file.ts';
import { HOUSE_SAMPLE_RATE_HZ, type HousePlan, type Rung, withoutVuiTiming } from './house-format.ts';

const TICKS_PER_AUDIO_UNIT = rescaleTicks(AAC_SAMPLES_PER_UNIT, HOUSE_SAMPLE_RATE_HZ, VIDEO_TIMESCALE_HZ);

/** Half a minute of one track at 60 fps: far more than FFmpeg's interleaving ever spreads them. */
const MAX_PENDING_UNITS_PER_TRACK = 1800;

/** What an asset is to hold. */
export interface AssetOutline {
  readonly plan: HousePlan;
  /** By video track id. */
  readonly rungs: readonly Pick<Rung, 'widthPx' | 'heightPx'>[];
  /** By audio track id. */
  readonly audioTracks: AssetFacts['audioTracks'];
}

/** The pictures of one rung. Units wait here until their GOP is written. */
class Pictures {
  readonly #plan: HousePlan;
  readonly #rung: AssetOutline['rungs'][number];
  track: VideoTrack | undefined;
  units: AccessUnit[] = [];
  frameCount = 0;
  #gopsBegun = 0;
  sizeBytes = 0;

  constructor(plan: HousePlan, rung: AssetOutline['rungs'][number]) {
    this.#plan = plan;
    this.#rung = rung;
  }

  setTrack(track: VideoTrack): void {
    if (track.widthPx !== this.#rung.widthPx || track.heightPx !== this.#rung.heightPx) {
      throw new Error(`the picture is ${track.widthPx}x${track.heightPx}`);
    }
    const { frameDurationTicks } = this.#plan;
    this.track = {
      ...avcTrack(withoutVuiTiming(track.config), frameDurationTicks),
      trackId: track.trackId,
    };
  }

  add(unit: AccessUnit): void {
    const frame = this.frameCount++;
    if (unit.ptsTicks !== unit.dtsTicks) throw new Error(`frame ${frame} is reordered`);
    if (frame === this.#plan.gopStartFrames[this.#gopsBegun]) {
      if (!unit.isRandomAccess) throw new Error(`frame ${frame} is not a key frame`);
      this.#gopsBegun += 1;
    }
    const dtsTicks = frame * this.#plan.frameDurationTicks;
    this.units.push({ ...unit, dtsTicks, ptsTicks: dtsTicks });
    this.sizeBytes += unit.data.length;
  }

  /** Takes the frames of the next GOP out. */
  take(startFrame: number, endFrame: number): FragmentTrack {
    if (!this.track) throw new Error('the encoder announced no picture');
    return {
      track: this.track,
      units: this.units.splice(0, endFrame - startFrame),
      endTicks: endFrame * this.#plan.frameDurationTicks,
    };
  }
}

/** The sound of one track. */
class Sound {
  readonly #plan: HousePlan;
  readonly #language: string | undefined;
  track: AudioTrack | undefined;
  units: AccessUnit[] = [];
  unitCount = 0;
  #firstDtsTicks: number | undefined;

  constructor(plan: HousePlan, language: string | null) {
    this.#plan = plan;
    this.#language = language ?? undefined;
  }

  setTrack(track: AudioTrack): void {
    if (track.sampleRateHz !== HOUSE_SAMPLE_RATE_HZ) {
      throw new Error(`the sound has ${track.sampleRateHz} Hz`);
    }
    this.track = { ...track, language: this.#language };
  }

  /**
   * The encoder's first unit holds its priming, no content. A unit's slot follows from its timestamp,
   * to the nearest: so a change of the source's sound format, where FFmpeg loses a few milliseconds,
   * does not shift all that comes after. A hole repeats the unit before it.
   */
  add(unit: AccessUnit): void {
    this.#firstDtsTicks ??= unit.dtsTicks;
    const slot = Math.round((unit.dtsTicks - this.#firstDtsTicks) / AAC_SAMPLES_PER_UNIT) - 1;
    const endSlot = Math.min(slot + 1, this.#plan.audioUnitCount);
    while (this.unitCount < endSlot) {
      const dtsTicks = this.unitCount++ * AAC_SAMPLES_PER_UNIT;
      this.units.push({ ...unit, dtsTicks, ptsTicks: dtsTicks });
    }
  }

  take(endUnit: number): FragmentTrack {
    if (!this.track) throw new Error('the encoder announced no sound');
    return {
      track: this.track,
      units: this.units.splice(0, endUnit - (this.unitCount - this.units.length)),
      endTicks: endUnit * AAC_SAMPLES_PER_UNIT,
    };
  }
}

/**
 * Puts the encoders' units on the asset's grids by counting, and writes one fragment with all tracks per
 * GOP.
 */
export class AssetWriter {
  readonly #folder: string;
  readonly #outline: AssetOutline;
  readonly #media: FileHandle;
  readonly #pictures: readonly Pictures[];
  readonly #sounds: readonly Sound[];
  #offsetBytes = 0;
  #initSizeBytes = 0;
  readonly #segments: AssetIndex['segments'] = [];

  private constructor(folder: string, outline: AssetOutline, media: FileHandle) {
    this.#folder = folder;
    this.#outline = outline;
    this.#media = media;
    this.#pictures = outline.rungs.map((rung) => new Pictures(outline.plan, rung));
    this.#sounds = outline.audioTracks.map(({ language }) => new Sound(outline.plan, language));
  }

  /** Begins an asset in an empty folder. */
  static async create(folder: string, outline: AssetOutline): Promise<AssetWriter> {
    return new AssetWriter(folder, outline, await open(join(folder, ASSET_MEDIA_NAME), 'wx'));
  }

  /** Frames taken so far over the frames of the plan. */
  get fractionDone(): number {
    const frameCount = Math.min(...this.#pictures.map((pictures) => pictures.frameCount));
    return frameCount / this.#outline.plan.frameCount;
  }

  /** Of the GOPs written so far, in ticks of 1/90000 s. */
  get segmentStartsTicks(): number[] {
    return this.#segments.map(({ startTicks }) => startTicks);
  }

  /** What was written so far. */
  get sizeBytes(): number {
    return this.#offsetBytes;
  }

  /**
   * Takes events of the encoders' output.
   * @throws Error when they do not keep to the plan, and the system's error when a write fails
   */
  async push(events: readonly StreamEvent[]): Promise<void> {
    for (const event of events) {
      if (event.type === 'track') this.#setTrack(event.track);
      if (event.type === 'unit') this.#add(event.unit);
      while (this.#isGopComplete()) await this.#writeGop();
    }
  }

  #setTrack(track: Track): void {
    if (this.#segments.length > 0) throw new Error(`the ${track.kind} configuration changes in mid-file`);
    if (track.kind === 'video') this.#of(this.#pictures, track).setTrack(track);
    else this.#of(this.#sounds, track).setTrack(track);
  }

  #add(unit: AccessUnit): void {
    const track = unit.kind === 'video' ? this.#of(this.#pictures, unit) : this.#of(this.#sounds, unit);
    track.add(unit);
    if (track.units.length > MAX_PENDING_UNITS_PER_TRACK) {
      throw new Error('picture and sound lie too far apart');
    }
  }

  #of<T>(tracks: readonly T[], { kind, trackId }: Pick<Track, 'kind' | 'trackId'>): T {
    const track = tracks[trackId];
    if (!track) throw new Error(`there should be no ${kind} track ${trackId}`);
    return track;
  }

  #gopEndFrame(): number {
    const { plan } = this.#outline;
    return plan.gopStartFrames[this.#segments.length + 1] ?? plan.frameCount;
  }

  /** The audio units that start before the GOP's end belong to it. */
  #gopEndAudioUnit(): number {
    return Math.ceil((this.#gopEndFrame() * this.#outline.plan.frameDurationTicks) / TICKS_PER_AUDIO_UNIT);
  }

  #isGopComplete(): boolean {
    return (
      this.#segments.length < this.#outline.plan.gopStartFrames.length &&
      this.#pictures.every(({ frameCount }) => frameCount >= this.#gopEndFrame()) &&
      this.#sounds.every(({ unitCount }) => unitCount >= this.#gopEndAudioUnit())
    );
  }

  async #writeGop(): Promise<void> {
    const { plan } = this.#outline;
    const startFrame = plan.gopStartFrames[this.#segments.length] ?? 0;
    const endFrame = this.#gopEndFrame();
    const tracks = [
      ...this.#pictures.map((pictures) => pictures.take(startFrame, endFrame)),
      ...this.#sounds.map((sound) => sound.take(this.#gopEndAudioUnit())),
    ];
    if (this.#segments.length === 0) {
      const init = initSegment(tracks.map(({ track }) => track));
      await this.#write(init);
      this.#initSizeBytes = init.length;
    }
    const bytes = fragment({ sequenceNumber: this.#segments.length + 1, tracks });
    this.#segments.push({
      startTicks: startFrame * plan.frameDurationTicks,
      offsetBytes: this.#offsetBytes,
      sizeBytes: bytes.length,
    });
    await this.#write(bytes);
  }

  async #write(bytes: Uint8Array): Promise<void> {
    await this.#media.writeFile(bytes); // goes on where the last write ended
    this.#offsetBytes += bytes.length;
  }

  /**
   * Ends the media file and makes it safe on the disk.
   * @returns all but what is found out later
   * @throws Error when the encoders gave less than the plan says
   */
  async finish(contentHash: string): Promise<Omit<AssetFacts, 'subtitles' | 'hasPictures'>> {
    const { plan, rungs, audioTracks } = this.#outline;
    const isWhole =
      this.#segments.length === plan.gopStartFrames.length &&
      this.#pictures.every((pictures) => pictures.frameCount === plan.frameCount);
    if (!isWhole) {
      const frameCount = Math.min(...this.#pictures.map((pictures) => pictures.frameCount));
      const unitCount = Math.min(...this.#sounds.map((sound) => sound.unitCount));
      throw new Error(
        `${frameCount} of ${plan.frameCount} frames and ${unitCount} of ${plan.audioUnitCount} audio units came`,
      );
    }
    await this.#media.sync();
    const [top] = rungs;
    return {
      contentHash,
      configHash: this.#configHash(),
      durationTicks: plan.durationTicks,
      segmentCount: this.#segments.length,
      sizeBytes: this.#offsetBytes,
      widthPx: top?.widthPx ?? 0,
      heightPx: top?.heightPx ?? 0,
      frameRate: plan.frameRate,
      videoTracks: this.#pictures.map((pictures, trackId) => ({
        widthPx: rungs[trackId]?.widthPx ?? 0,
        heightPx: rungs[trackId]?.heightPx ?? 0,
        bitrateBps: Math.round((pictures.sizeBytes * 8 * VIDEO_TIMESCALE_HZ) / plan.durationTicks),
      })),
      audioTracks: [...audioTracks],
    };
  }

  /** All sounds have one configuration, so the number of languages does not matter. */
  #configHash(): string {
    const hash = createHash('sha256');
    for (const { track } of this.#pictures) if (track) hash.update(track.config);
    const configs = this.#sounds.map(({ track }) => Buffer.from(track?.config ?? []).toString('hex'));
    for (const config of new Set(configs)) hash.update(Buffer.from(config, 'hex'));
    return hash.digest('hex');
  }

  /** Writes the index, the last file of an asset, and makes it safe on the disk. */
  async writeIndex(facts: AssetFacts): Promise<void> {
    const index: AssetIndex = { facts, initSizeBytes: this.#initSizeBytes, segments: this.#segments };
    const indexFile = await open(join(this.#folder, ASSET_INDEX_NAME), 'wx');
    try {
      await indexFile.writeFile(JSON.stringify(index));
      await indexFile.sync();
    } finally {
      await indexFile.close();
    }
  }

  async close(): Promise<void> {
    await this.#media.close();
  }
}
