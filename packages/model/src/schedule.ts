/**
 * What is on at a time: a pure function of the channel's runs, for the backend's playout, the
 * guide and the site alike.
 *
 * Times are ticks of 1/90000 s on the channel's timeline. A *run* is a stretch of the timeline
 * with one looping list of assets, and lasts until the next run. Each carries the media sequence number
 * and discontinuity sequence that it starts with, so any segment's number follows from the runs
 * alone. Runs are only ever appended, and replaced where nobody has seen them yet: `runs.ts` makes them
 * from what the operator wrote.
 */
import { type Static, Type } from 'typebox';
import { passOrder } from './shuffle.ts';
import {
  AssetAudioTrack,
  AssetVideoTrack,
  isSameTrackSet,
  Language,
  TrackSet,
  trackSetOf,
} from './track-set.ts';

/** Ticks per second of the timeline. */
export const TIMELINE_HZ = 90_000;

/** Text of the source's, as WebVTT. */
export const AssetSubtitles = Type.Object({
  language: Type.Union([Language, Type.Null()]),
  title: Type.Union([Type.String(), Type.Null()]),
  /** A file of the asset. */
  fileName: Type.String(),
});
export type AssetSubtitles = Static<typeof AssetSubtitles>;

/** What the schedule, the guide and the operator need to know of an asset. */
export const AssetFacts = Type.Object({
  /** SHA-256 of the source bytes, the house settings and the encoders: the name of the folder in the store. */
  contentHash: Type.String({ pattern: '^[0-9a-f]{64}$' }),
  /** SHA-256 of the codec configurations; where it changes from one item to the next, a discontinuity is due. */
  configHash: Type.String({ pattern: '^[0-9a-f]{64}$' }),
  durationTicks: Type.Integer({ minimum: 1 }),
  segmentCount: Type.Integer({ minimum: 1 }),
  sizeBytes: Type.Integer({ minimum: 1 }),
  /** Of video track 0, the tallest. */
  widthPx: Type.Integer({ minimum: 1 }),
  heightPx: Type.Integer({ minimum: 1 }),
  frameRate: Type.Integer({ minimum: 1 }),
  /** By track id. */
  videoTracks: Type.Array(AssetVideoTrack, { minItems: 1 }),
  /** By track id. */
  audioTracks: Type.Array(AssetAudioTrack, { minItems: 1 }),
  subtitles: Type.Array(AssetSubtitles),
  /** Whether it has a poster and thumbnails. */
  hasPictures: Type.Boolean(),
});
export type AssetFacts = Static<typeof AssetFacts>;

/** What the guide says of a programme, where the schedule says more than the names of its assets. */
export const ProgrammeInfo = Type.Object({
  title: Type.Optional(Type.String({ minLength: 1, maxLength: 200 })),
  description: Type.Optional(Type.String({ minLength: 1, maxLength: 2000 })),
  category: Type.Optional(Type.String({ minLength: 1, maxLength: 100 })),
});
export type ProgrammeInfo = Static<typeof ProgrammeInfo>;

/** What is played from some time on. */
export const RunContent = Type.Object({
  startTicks: Type.Integer({ minimum: 0 }),
  /** Asset ids, played in order and again from the first. Empty: nothing is on. */
  loop: Type.Array(Type.String(), { maxItems: 10_000 }),
  /**
   * Where the first pass of the loop begins, if that is before `startTicks`: the run joins the loop in
   * progress, at the start of a segment.
   */
  originTicks: Type.Optional(Type.Integer()),
  /** Shuffles each pass of the loop anew (see {@link passOrder}). */
  shuffleSeed: Type.Optional(Type.Integer({ minimum: 0, maximum: 2 ** 32 - 1 })),
  /** Makes the whole run one programme of the guide; without it each item is one. */
  programme: Type.Optional(ProgrammeInfo),
});
export type RunContent = Static<typeof RunContent>;

export const Run = Type.Object({
  ...RunContent.properties,
  firstMediaSequenceNumber: Type.Integer({ minimum: 0 }),
  firstDiscontinuitySequence: Type.Integer({ minimum: 0 }),
  /** What the channel sends in this run; the tracks of the assets in its loop where nothing is said. */
  tracks: Type.Optional(TrackSet),
});
export type Run = Static<typeof Run>;

/** Segments of an asset start every 2 s; only where the last one starts depends on its length. */
export const SEGMENT_TICKS = 2 * TIMELINE_HZ;
/**
 * What is left of a segment that is cut off by the next programme joins the segment before it when it
 * is shorter than this: players stumble over tiny segments. Half a second more still rounds to the
 * target duration.
 */
export const MIN_CUT_SEGMENT_TICKS = TIMELINE_HZ / 2;

/** One item of a run on the timeline. */
export interface ProgrammePosition {
  readonly assetId: string;
  /** Place in this pass of the loop. */
  readonly itemIndex: number;
  /** How many times the loop was played in full before. */
  readonly loopIndex: number;
  readonly startTicks: number;
  /** Where the next item starts: after the asset's duration, or earlier where the next run cuts it. */
  readonly endTicks: number;
  /** Where the asset's time 0 lies: before `startTicks` when the item is joined in progress. */
  readonly originTicks: number;
  /** The segment of the asset that starts at `startTicks`. */
  readonly firstSegmentIndex: number;
  /** How many segments the item has here. What the asset has beyond them belongs to the last one, up to `endTicks`. */
  readonly segmentCount: number;
  /** Media sequence number of the item's first segment. */
  readonly firstMediaSequenceNumber: number;
  readonly discontinuitySequence: number;
  /** Names this airing and no other of the channel: `r<start of the run>`, and for a single item `-l<loop>-i<item>`. */
  readonly programmeId: string;
  readonly programme: ProgrammeInfo | undefined;
  /** What the channel sends; it changes only where the discontinuity sequence does. */
  readonly tracks: TrackSet;
}

/**
 * What is on at a time. Costs next to nothing, however long the channel has been on; only a new pass of a shuffled
 * loop costs a walk over it.
 * @param runs by `startTicks`; each run is cut by the start of the next
 * @param assets facts by asset id; like the runs, never changed after this
 * @returns undefined before the first run, where nothing is on, and during a run that names an asset
 *   without facts
 */
export function programmeAt(
  runs: readonly Run[],
  assets: ReadonlyMap<string, AssetFacts>,
  ticks: number,
): ProgrammePosition | undefined {
  const runIndex = runIndexAt(runs, ticks);
  const run = runs[runIndex];
  const loop = run && Loop.of(run, assets);
  if (!loop) return undefined;

  const loopOriginTicks = run.originTicks ?? run.startTicks;
  const item = loop.itemAt(ticks - loopOriginTicks);
  const first = loop.itemAt(run.startTicks - loopOriginTicks);
  const segmentsSkipped =
    first.segmentsBefore +
    segmentIndexFrom(first.facts, run.startTicks - loopOriginTicks - first.offsetTicks);

  const originTicks = loopOriginTicks + item.offsetTicks;
  const startTicks = Math.max(originTicks, run.startTicks);
  const endTicks = Math.min(
    originTicks + item.facts.durationTicks,
    runs[runIndex + 1]?.startTicks ?? Number.POSITIVE_INFINITY,
  );
  const firstSegmentIndex = segmentIndexFrom(item.facts, startTicks - originTicks);
  return {
    assetId: item.assetId,
    itemIndex: item.itemIndex,
    loopIndex: item.loopIndex,
    startTicks,
    endTicks,
    originTicks,
    firstSegmentIndex,
    segmentCount: segmentEndIndex(item.facts, firstSegmentIndex, endTicks - originTicks) - firstSegmentIndex,
    firstMediaSequenceNumber:
      run.firstMediaSequenceNumber + item.segmentsBefore + firstSegmentIndex - segmentsSkipped,
    discontinuitySequence:
      run.firstDiscontinuitySequence + item.discontinuitiesBefore - first.discontinuitiesBefore,
    programmeId: run.programme
      ? `r${run.startTicks}`
      : `r${run.startTicks}-l${item.loopIndex}-i${item.itemIndex}`,
    programme: run.programme,
    tracks: run.tracks ?? loop.tracks,
  };
}

/** What comes after an item: it starts where the given one ends. */
export function programmeAfter(
  runs: readonly Run[],
  assets: ReadonlyMap<string, AssetFacts>,
  position: ProgrammePosition,
): ProgrammePosition | undefined {
  return programmeAt(runs, assets, position.endTicks);
}

/** The run that a time lies in, as an index; -1 before the first. */
export function runIndexAt(runs: readonly Run[], ticks: number): number {
  let low = 0;
  let high = runs.length;
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    if ((runs[middle]?.startTicks ?? Number.POSITIVE_INFINITY) <= ticks) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/**
 * The run that follows the last of the given ones with new content, numbered on. A discontinuity is due
 * where the codec configuration or the set of tracks changes, and after time in which nothing was on: the
 * segment before it would otherwise last until the segment after it. Tracks that the channel has sent are
 * kept, for viewers who have chosen them.
 * @throws Error when it does not start after the last run, or a run names an asset without facts
 */
export function numberedOn(
  runs: readonly Run[],
  assets: ReadonlyMap<string, AssetFacts>,
  content: RunContent,
): Run {
  const last = runs.at(-1);
  if (!last) return { ...content, firstMediaSequenceNumber: 0, firstDiscontinuitySequence: 0 };
  if (content.startTicks <= last.startTicks) {
    throw new Error(`A run at ${content.startTicks} cannot follow the one at ${last.startTicks}`);
  }
  const items = content.loop.flatMap((assetId) => assets.get(assetId) ?? []);
  const tracksBefore = last.tracks ?? Loop.of(last, assets)?.tracks;
  const tracks = trackSetOf(items, tracksBefore);
  const isSameSet = tracksBefore !== undefined && isSameTrackSet(tracks, tracksBefore);
  const setToSay = tracksBefore !== undefined && !isSameTrackSet(tracks, trackSetOf(items)) && { tracks };
  if (last.loop.length === 0) {
    const { firstMediaSequenceNumber, firstDiscontinuitySequence } = last;
    return { ...content, firstMediaSequenceNumber, firstDiscontinuitySequence, ...setToSay };
  }
  const cut = { ...content, firstMediaSequenceNumber: 0, firstDiscontinuitySequence: 0 };
  const end = programmeAt([last, cut], assets, content.startTicks - 1);
  const first = programmeAt([cut], assets, content.startTicks);
  if (!end || (!first && content.loop.length > 0)) {
    throw new Error(`A run at ${last.startTicks} or ${content.startTicks} names an asset without facts`);
  }
  const isSameConfig =
    first !== undefined &&
    isSameSet &&
    assets.get(first.assetId)?.configHash === assets.get(end.assetId)?.configHash;
  return {
    ...content,
    firstMediaSequenceNumber: end.firstMediaSequenceNumber + end.segmentCount,
    firstDiscontinuitySequence: end.discontinuitySequence + (isSameConfig ? 0 : 1),
    ...setToSay,
  };
}

/**
 * Where a segment of an asset starts, in ticks from the asset's start: every 2 s. A rest of less than
 * a second at the end shares its length with the segment before it.
 */
export function segmentStartTicks(
  facts: Pick<AssetFacts, 'durationTicks' | 'segmentCount' | 'frameRate'>,
  segmentIndex: number,
): number {
  const regularTicks = segmentIndex * SEGMENT_TICKS;
  const restTicks = facts.durationTicks - (facts.segmentCount - 1) * SEGMENT_TICKS;
  if (segmentIndex !== facts.segmentCount - 1 || segmentIndex === 0 || 2 * restTicks >= SEGMENT_TICKS) {
    return regularTicks;
  }
  const frameTicks = TIMELINE_HZ / facts.frameRate;
  const lastFrames = Math.floor((SEGMENT_TICKS + restTicks) / 2 / frameTicks);
  return facts.durationTicks - lastFrames * frameTicks;
}

/** The first segment that starts at or after an offset into the asset; the count if there is none. */
export function segmentIndexFrom(facts: AssetFacts, offsetTicks: number): number {
  const index = Math.min(Math.ceil(offsetTicks / SEGMENT_TICKS), facts.segmentCount);
  // The last one may start before its turn in the rhythm.
  const hasLastStarted = index === facts.segmentCount - 1 && segmentStartTicks(facts, index) < offsetTicks;
  return hasLastStarted ? facts.segmentCount : index;
}

/** Where the segments end that an item has when it is cut at an offset into its asset. */
function segmentEndIndex(facts: AssetFacts, firstSegmentIndex: number, endOffsetTicks: number): number {
  const endIndex = segmentIndexFrom(facts, endOffsetTicks);
  const isCut = endOffsetTicks < facts.durationTicks;
  const lastTicks = endOffsetTicks - segmentStartTicks(facts, endIndex - 1);
  return isCut && lastTicks < MIN_CUT_SEGMENT_TICKS && endIndex - 1 > firstSegmentIndex
    ? endIndex - 1
    : endIndex;
}

/** An item of a loop, found by a time from the loop's origin on. */
export interface LoopItem {
  readonly assetId: string;
  readonly facts: AssetFacts;
  readonly loopIndex: number;
  readonly itemIndex: number;
  /** Where the item starts, from the origin. */
  readonly offsetTicks: number;
  /** From the origin to the item's start. */
  readonly segmentsBefore: number;
  readonly discontinuitiesBefore: number;
}

/** Loops that were made already: the same run is asked about for every item of it. */
const loops = new WeakMap<ReadonlyMap<string, AssetFacts>, WeakMap<object, Loop>>();

/** A list of assets that is played again and again from an origin on, each pass shuffled where there is a seed. */
export class Loop {
  readonly #items: readonly { readonly assetId: string; readonly facts: AssetFacts }[];
  readonly #shuffleSeed: number | undefined;
  /** Of one pass. */
  readonly durationTicks: number;
  /** All that its assets have. */
  readonly tracks: TrackSet;
  readonly #segmentCount: number;
  readonly #discontinuityCount: number;
  /** The pass that was asked for last; without a seed all are alike. */
  #pass: { readonly index: number; readonly items: readonly LoopItem[] };

  private constructor(
    items: readonly { readonly assetId: string; readonly facts: AssetFacts }[],
    shuffleSeed: number | undefined,
  ) {
    this.#items = items;
    this.#shuffleSeed = shuffleSeed;
    this.durationTicks = items.reduce((sum, { facts }) => sum + facts.durationTicks, 0);
    this.tracks = trackSetOf(items.map(({ facts }) => facts));
    this.#segmentCount = items.reduce((sum, { facts }) => sum + facts.segmentCount, 0);
    this.#pass = { index: 0, items: this.#itemsOf(0) };
    // Any pass will do: a shuffle keeps items of one configuration together, in the same order of configurations.
    const last = this.#pass.items.at(-1);
    const isSameAgain = last?.facts.configHash === this.#pass.items[0]?.facts.configHash;
    this.#discontinuityCount = (last?.discontinuitiesBefore ?? 0) + (isSameAgain ? 0 : 1);
  }

  /**
   * @param content never changed after this
   * @returns undefined when the loop is empty, or names an asset without facts
   */
  static of(
    content: Pick<RunContent, 'loop' | 'shuffleSeed'>,
    assets: ReadonlyMap<string, AssetFacts>,
  ): Loop | undefined {
    const known = loops.get(assets) ?? new WeakMap<object, Loop>();
    loops.set(assets, known);
    let loop = known.get(content);
    if (loop) return loop;
    const items: { assetId: string; facts: AssetFacts }[] = [];
    for (const assetId of content.loop) {
      const facts = assets.get(assetId);
      if (!facts) return undefined;
      items.push({ assetId, facts });
    }
    if (items.length === 0) return undefined;
    loop = new Loop(items, content.shuffleSeed);
    known.set(content, loop);
    return loop;
  }

  /** The item at a time, in ticks from the origin. */
  itemAt(elapsedTicks: number): LoopItem {
    const loopIndex = Math.floor(elapsedTicks / this.durationTicks);
    const passTicks = loopIndex * this.durationTicks;
    if (this.#shuffleSeed !== undefined && this.#pass.index !== loopIndex) {
      this.#pass = { index: loopIndex, items: this.#itemsOf(loopIndex) };
    }
    const { items } = this.#pass;
    let low = 0;
    for (let high = items.length; high - low > 1; ) {
      const middle = Math.floor((low + high) / 2);
      if (passTicks + (items[middle]?.offsetTicks ?? 0) <= elapsedTicks) low = middle;
      else high = middle;
    }
    const item = items[low];
    if (!item) throw new Error(`No item of the loop covers tick ${elapsedTicks}`);
    return {
      ...item,
      loopIndex,
      offsetTicks: passTicks + item.offsetTicks,
      segmentsBefore: loopIndex * this.#segmentCount + item.segmentsBefore,
      discontinuitiesBefore: loopIndex * this.#discontinuityCount + item.discontinuitiesBefore,
    };
  }

  /** The items of a pass, counted from its start. */
  #itemsOf(loopIndex: number): LoopItem[] {
    const configs = this.#items.map(({ facts }) => facts.configHash);
    const order =
      this.#shuffleSeed === undefined ? configs.keys() : passOrder(configs, this.#shuffleSeed, loopIndex);
    const items: LoopItem[] = [];
    let offsetTicks = 0;
    let segmentsBefore = 0;
    let discontinuitiesBefore = 0;
    for (const i of order) {
      const item = this.#items[i];
      if (!item) continue;
      const { facts } = item;
      const last = items.at(-1);
      if (last && last.facts.configHash !== facts.configHash) discontinuitiesBefore += 1;
      items.push({
        ...item,
        loopIndex: 0,
        itemIndex: items.length,
        offsetTicks,
        segmentsBefore,
        discontinuitiesBefore,
      });
      offsetTicks += facts.durationTicks;
      segmentsBefore += facts.segmentCount;
    }
    return items;
  }
}
