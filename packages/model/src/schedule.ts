/**
 * What is on at a time: a pure function of the channel's runs, for the backend's playout, the
 * guide and the site alike.
 *
 * Times are ticks of 1/90000 s on the channel's timeline. A *run* is a stretch of the timeline
 * with one looping list of assets; an edit of the programme appends a run. Each run carries the
 * media sequence number and discontinuity sequence that it starts with, so any segment's number
 * follows from the runs alone.
 */
import { type Static, Type } from 'typebox';
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

export const Run = Type.Object({
  startTicks: Type.Integer({ minimum: 0 }),
  firstMediaSequenceNumber: Type.Integer({ minimum: 0 }),
  firstDiscontinuitySequence: Type.Integer({ minimum: 0 }),
  /** Asset ids, played in order and again from the first. */
  loop: Type.Array(Type.String(), { minItems: 1, maxItems: 10_000 }),
  /** What the channel sends in this run; the tracks of the assets in its loop where nothing is said. */
  tracks: Type.Optional(TrackSet),
});
export type Run = Static<typeof Run>;

/** One item of a run on the timeline. */
export interface ProgrammePosition {
  readonly assetId: string;
  /** Place in the run's loop. */
  readonly itemIndex: number;
  /** How many times the loop was played in full before. */
  readonly loopIndex: number;
  readonly startTicks: number;
  /** Where the next item starts: after the asset's duration, or earlier where the next run cuts it. */
  readonly endTicks: number;
  /** Media sequence number of the item's first segment. */
  readonly firstMediaSequenceNumber: number;
  readonly discontinuitySequence: number;
  /** Names this airing and no other of the channel: `r<start of the run>-l<loop>-i<item>`. */
  readonly programmeId: string;
  /** What the channel sends; it changes only where the discontinuity sequence does. */
  readonly tracks: TrackSet;
}

/**
 * What is on at a time. Costs one walk over the run's loop, however long the channel has been on.
 * @param runs by `startTicks`; each run is cut by the start of the next
 * @param assets facts by asset id
 * @returns undefined before the first run, and during a run that names an asset without facts
 */
export function programmeAt(
  runs: readonly Run[],
  assets: ReadonlyMap<string, AssetFacts>,
  ticks: number,
): ProgrammePosition | undefined {
  const runIndex = runs.findLastIndex((run) => run.startTicks <= ticks);
  const run = runs[runIndex];
  if (!run) return undefined;
  const items: AssetFacts[] = [];
  for (const assetId of run.loop) {
    const facts = assets.get(assetId);
    if (!facts) return undefined;
    items.push(facts);
  }

  let loopDurationTicks = 0;
  let loopSegments = 0;
  let loopDiscontinuities = 0;
  let previous = items.at(-1);
  for (const item of items) {
    loopDurationTicks += item.durationTicks;
    loopSegments += item.segmentCount;
    if (item.configHash !== previous?.configHash) loopDiscontinuities += 1;
    previous = item;
  }

  const loopIndex = Math.floor((ticks - run.startTicks) / loopDurationTicks);
  let startTicks = run.startTicks + loopIndex * loopDurationTicks;
  let firstMediaSequenceNumber = run.firstMediaSequenceNumber + loopIndex * loopSegments;
  let discontinuitySequence = run.firstDiscontinuitySequence + loopIndex * loopDiscontinuities;
  for (const [itemIndex, item] of items.entries()) {
    if (itemIndex > 0 && item.configHash !== items[itemIndex - 1]?.configHash) discontinuitySequence += 1;
    if (ticks < startTicks + item.durationTicks) {
      return {
        assetId: run.loop[itemIndex] ?? '',
        itemIndex,
        loopIndex,
        startTicks,
        endTicks: Math.min(
          startTicks + item.durationTicks,
          runs[runIndex + 1]?.startTicks ?? Number.POSITIVE_INFINITY,
        ),
        firstMediaSequenceNumber,
        discontinuitySequence,
        programmeId: `r${run.startTicks}-l${loopIndex}-i${itemIndex}`,
        tracks: run.tracks ?? trackSetOf(items),
      };
    }
    startTicks += item.durationTicks;
    firstMediaSequenceNumber += item.segmentCount;
  }
  throw new Error(`No item of run ${run.startTicks} covers tick ${ticks}`);
}

/** What comes after an item: it starts where the given one ends. */
export function programmeAfter(
  runs: readonly Run[],
  assets: ReadonlyMap<string, AssetFacts>,
  position: ProgrammePosition,
): ProgrammePosition | undefined {
  return programmeAt(runs, assets, position.endTicks);
}

/**
 * Edits the programme of a channel that may be on the air: the item that is on at `ticks` plays to its
 * end, then the new loop begins. Runs that would have begun after `ticks` are given up. Tracks that the
 * channel has sent are kept, for viewers who have chosen them.
 *
 * Segments up to the edit may already be with viewers, so choose `ticks` at or after the present.
 * @returns the channel's runs from now on; on a channel without programme the loop starts at `ticks`
 */
export function withLoopAfter(
  runs: readonly Run[],
  assets: ReadonlyMap<string, AssetFacts>,
  ticks: number,
  loop: readonly string[],
): Run[] {
  const kept = runs.filter((run) => run.startTicks <= ticks);
  const current = programmeAt(kept, assets, ticks);
  const last = current && assets.get(current.assetId);
  if (!current || !last) {
    return [
      ...kept,
      { startTicks: ticks, firstMediaSequenceNumber: 0, firstDiscontinuitySequence: 0, loop: [...loop] },
    ];
  }
  const next = assets.get(loop[0] ?? '');
  const items = loop.flatMap((assetId) => assets.get(assetId) ?? []);
  const tracks = trackSetOf(items, current.tracks);
  const isSameConfig = next?.configHash === last.configHash && isSameTrackSet(tracks, current.tracks);
  return [
    ...kept,
    {
      startTicks: current.endTicks,
      firstMediaSequenceNumber: current.firstMediaSequenceNumber + last.segmentCount,
      firstDiscontinuitySequence: current.discontinuitySequence + (isSameConfig ? 0 : 1),
      loop: [...loop],
      ...(!isSameTrackSet(tracks, trackSetOf(items)) && { tracks }),
    },
  ];
}
