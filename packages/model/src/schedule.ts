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

/** Ticks per second of the timeline. */
export const TIMELINE_HZ = 90_000;

/** The facts of an asset that the schedule needs. */
export const AssetFacts = Type.Object({
  /** SHA-256 of the source bytes and the house settings: the name of the folder in the store. */
  contentHash: Type.String({ pattern: '^[0-9a-f]{64}$' }),
  /** SHA-256 of the codec configurations; where it changes from one item to the next, a discontinuity is due. */
  configHash: Type.String({ pattern: '^[0-9a-f]{64}$' }),
  durationTicks: Type.Integer({ minimum: 1 }),
  segmentCount: Type.Integer({ minimum: 1 }),
  sizeBytes: Type.Integer({ minimum: 1 }),
  widthPx: Type.Integer({ minimum: 1 }),
  heightPx: Type.Integer({ minimum: 1 }),
  frameRate: Type.Integer({ minimum: 1 }),
});
export type AssetFacts = Static<typeof AssetFacts>;

export const Run = Type.Object({
  startTicks: Type.Integer({ minimum: 0 }),
  firstMediaSequenceNumber: Type.Integer({ minimum: 0 }),
  firstDiscontinuitySequence: Type.Integer({ minimum: 0 }),
  /** Asset ids, played in order and again from the first. */
  loop: Type.Array(Type.String(), { minItems: 1, maxItems: 10_000 }),
});
export type Run = Static<typeof Run>;
