/**
 * The renditions of a channel: which tracks go into which media playlist, and the segments of each.
 *
 * A channel with at most one video and one audio track is one rendition with both, `main`. Any other has
 * one for each track, `video-<id>` or `audio-<id>`, so that a player can combine them. All of them follow
 * the same cues: they have segments of the same numbers that start at the same times.
 */
import { type Cue, type StreamEvent, type Track, trackIndex } from '../access-unit.ts';
import { msToTicks, VIDEO_TIMESCALE_HZ } from '../time.ts';
import { LiveWindow } from './live-window.ts';
import { Segmenter, type SegmenterEvent } from './segmenter.ts';

/** A rendition that ended is still served so long, in lengths of the live window. */
const ENDED_RENDITION_WINDOWS = 2;

export interface Rendition {
  /** As it stands in addresses. */
  readonly name: string;
  /** Of the segment now open; video first. */
  readonly tracks: readonly Track[];
  readonly window: LiveWindow;
  /** The channel has no such tracks any more: nothing will be added. */
  readonly isEnded: boolean;
}

/** What the segmenter of a rendition has completed. */
export interface RenditionEvent {
  readonly rendition: string;
  readonly event: SegmenterEvent;
}

/**
 * Shares tracks out among renditions.
 * @param tracks of one segment, in any order
 * @returns in the order of the tracks: video by id, then audio by id
 */
export function renditionLayout(tracks: readonly Track[]): Pick<Rendition, 'name' | 'tracks'>[] {
  const sorted = tracks.toSorted((a, b) => trackIndex(a) - trackIndex(b));
  const videoCount = sorted.filter(({ kind }) => kind === 'video').length;
  if (sorted.length === 0) return [];
  if (videoCount <= 1 && sorted.length - videoCount <= 1) return [{ name: 'main', tracks: sorted }];
  return sorted.map((track) => ({ name: `${track.kind}-${track.trackId}`, tracks: [track] }));
}

interface Lane {
  readonly name: string;
  tracks: readonly Track[];
  readonly window: LiveWindow;
  isEnded: boolean;
  segmenter: Segmenter;
}

export interface RenditionsOptions {
  readonly partTargetMs: number;
  readonly windowDurationMs: number;
  /** This many segments stay listed even if they last longer. */
  readonly minSegments: number;
}

/**
 * Follows the events of one stream with all its tracks, and makes the segments of every rendition.
 *
 * It is for one timeline: a channel that was created anew wants another one. Tracks take effect with the first unit after a cue: then all of them are known. A rendition that appears
 * starts with that segment; one whose tracks are gone has ended with the segment before.
 */
export class Renditions {
  readonly #options: RenditionsOptions;
  readonly #tracks = new Map<number, Track>();
  /** Tracks have been announced that no rendition has yet. */
  #areTracksNew = false;
  /** After a discontinuity: the first track that is announced clears those from before it. */
  #replacesTracks = false;
  #cue: Cue | undefined;
  #isSegmentEmpty = true;
  #onAir: readonly Lane[] = [];
  #ended: { readonly lane: Lane; readonly endTicks: number }[] = [];
  #laneOfTrack: ReadonlyMap<number, Lane> = new Map();

  constructor(options: RenditionsOptions) {
    this.#options = options;
  }

  /** Those of the segment now open; the same array until they change. */
  get onAir(): readonly Rendition[] {
    return this.#onAir;
  }

  /** The rendition of this name, on the air or ended not long ago. */
  find(name: string): Rendition | undefined {
    const isWanted = (lane: Lane) => lane.name === name;
    return this.#onAir.find(isWanted) ?? this.#ended.findLast(({ lane }) => isWanted(lane))?.lane;
  }

  /** There is something to list of every rendition. */
  get isPlayable(): boolean {
    return this.#onAir.length > 0 && this.#onAir.every(({ window }) => window.isPlayable);
  }

  /** All bytes kept. */
  get sizeBytes(): number {
    const lanes = [...this.#onAir, ...this.#ended.map(({ lane }) => lane)];
    return lanes.reduce((sum, { window }) => sum + window.sizeBytes, 0);
  }

  /**
   * Takes the next event of the stream; its windows have what it completes.
   * @throws MediaError as {@link Segmenter.push} does
   */
  push(event: StreamEvent): RenditionEvent[] {
    switch (event.type) {
      case 'timeline':
        return [];
      case 'track':
        if (this.#replacesTracks) this.#tracks.clear();
        this.#replacesTracks = false;
        this.#tracks.set(trackIndex(event.track), event.track);
        this.#areTracksNew = true;
        return [];
      case 'cue':
        return this.#startSegment(event.cue);
      case 'unit': {
        if (this.#isSegmentEmpty && this.#areTracksNew) this.#arrange();
        this.#isSegmentEmpty = false;
        const lane = this.#laneOfTrack.get(trackIndex(event.unit));
        return lane === undefined ? [] : feed(lane, event);
      }
    }
  }

  /** Gives up the open segment, whose end is missing: it is never listed. */
  dropOpenSegment(): void {
    for (const lane of this.#onAir) {
      lane.segmenter = this.#newSegmenter();
      for (const track of lane.tracks) lane.segmenter.push({ type: 'track', track });
    }
  }

  #startSegment(cue: Cue): RenditionEvent[] {
    if (this.#cue !== undefined && cue.discontinuitySequence > this.#cue.discontinuitySequence) {
      this.#replacesTracks = true;
    }
    this.#cue = cue;
    this.#isSegmentEmpty = true;
    const keptTicks = msToTicks(ENDED_RENDITION_WINDOWS * this.#options.windowDurationMs, VIDEO_TIMESCALE_HZ);
    this.#ended = this.#ended.filter(({ endTicks }) => cue.startTicks - endTicks <= keptTicks);

    const made: RenditionEvent[] = [];
    let failure: { readonly error: unknown } | undefined;
    for (const lane of this.#onAir) {
      try {
        made.push(...feed(lane, { type: 'cue', cue }));
        lane.window.hearCue(cue);
      } catch (error) {
        failure ??= { error }; // one rendition must not keep the others from the cue
      }
    }
    if (failure !== undefined) throw failure.error;
    return made;
  }

  /** Gives the tracks that are known now to renditions, old and new, right after a cue. */
  #arrange(): void {
    const cue = this.#cue;
    if (cue === undefined) return;
    this.#areTracksNew = false;
    const before = this.#onAir;
    this.#onAir = renditionLayout([...this.#tracks.values()]).map(({ name, tracks }) => {
      const known = before.find((lane) => lane.name === name);
      const lane = known ?? this.#newLane(name);
      lane.tracks = tracks;
      for (const track of tracks) lane.segmenter.push({ type: 'track', track });
      if (known === undefined) lane.segmenter.push({ type: 'cue', cue });
      return lane;
    });
    for (const lane of before) {
      if (this.#onAir.includes(lane)) continue;
      lane.isEnded = true;
      this.#ended.push({ lane, endTicks: cue.startTicks });
    }
    this.#laneOfTrack = new Map(
      this.#onAir.flatMap((lane) => lane.tracks.map((track) => [trackIndex(track), lane])),
    );
  }

  #newLane(name: string): Lane {
    const { windowDurationMs, minSegments } = this.#options;
    const window = new LiveWindow({ windowDurationMs, minSegments });
    return { name, tracks: [], window, isEnded: false, segmenter: this.#newSegmenter() };
  }

  #newSegmenter(): Segmenter {
    return new Segmenter({ partTargetMs: this.#options.partTargetMs });
  }
}

function feed({ name, segmenter, window }: Lane, event: StreamEvent): RenditionEvent[] {
  const made = segmenter.push(event);
  for (const one of made) window.add(one);
  return made.map((one) => ({ rendition: name, event: one }));
}
