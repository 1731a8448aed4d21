/**
 * From a schedule to the runs of a channel. Runs are written down ahead of time, because a segment's
 * number depends on all that was played before it; what is written down and near does not change any more.
 */
import {
  type AssetFacts,
  Loop,
  numberedOn,
  type ProgrammePosition,
  programmeAt,
  type Run,
  runIndexAt,
  segmentStartTicks,
} from './schedule.ts';
import type { Effective, Schedule } from './schedule-definition.ts';
import { type Stretch, Stretches } from './stretches.ts';

export interface ExtendOptions {
  readonly assets: ReadonlyMap<string, AssetFacts>;
  /** The last run lasts at least until then. */
  readonly untilTicks: number;
  /** No more runs than so many are appended. */
  readonly maxCount: number;
}

/**
 * Appends what the schedule says comes next.
 * @param runs at least one, the last of which is a stretch of the schedule
 */
export function extendRuns(runs: readonly Run[], stretches: Stretches, options: ExtendOptions): Run[] {
  const { assets, untilTicks, maxCount } = options;
  const extended = [...runs];
  const last = extended.at(-1);
  if (!last) throw new Error('A channel without runs cannot be extended');
  let { endTicks } = stretches.at(last.startTicks);
  while (endTicks < untilTicks && extended.length < runs.length + maxCount) {
    const stretch = stretches.at(endTicks);
    extended.push(numberedOn(extended.slice(-1), assets, stretch.content));
    endTicks = stretch.endTicks;
  }
  return extended;
}

export interface EditOptions extends ExtendOptions {
  readonly runs: readonly Run[];
  readonly schedule: Schedule;
  readonly epochUnixMs: number;
  /** Nothing before it is changed: far enough ahead that every backend hears of the edit in time. */
  readonly earliestTicks: number;
  readonly effective: Effective;
}

export interface EditedRuns {
  readonly runs: Run[];
  /** Where the first change is. */
  readonly effectiveTicks: number;
  /** Of the schedule: see {@link Stretches}. */
  readonly validFromTicks: number;
}

/**
 * Gives a channel that may be on the air another schedule. All that was on before the edit takes effect
 * stays as it is, numbers included. What both schedules agree on is not interrupted.
 */
export function editRuns(options: EditOptions): EditedRuns {
  const { runs, schedule, assets, epochUnixMs } = options;
  const effectiveTicks = effectiveFrom(options);
  const kept = runs.filter((run) => run.startTicks < effectiveTicks);
  const last = kept.at(-1);
  const stretchesFrom = (validFromTicks: number) =>
    new Stretches({ schedule, assets, epochUnixMs, validFromTicks });

  if (last) {
    const stretches = stretchesFrom(last.startTicks);
    const stretch = stretches.at(effectiveTicks);
    if (isSameContent(last, stretch)) {
      const { programme: _, ...rest } = last;
      kept[kept.length - 1] = {
        ...rest,
        ...(stretch.content.programme && { programme: stretch.content.programme }),
      };
      return { runs: extendRuns(kept, stretches, options), effectiveTicks, validFromTicks: last.startTicks };
    }
  }
  const stretches = stretchesFrom(effectiveTicks);
  kept.push(numberedOn(kept.slice(-1), assets, stretches.at(effectiveTicks).content));
  return { runs: extendRuns(kept, stretches, options), effectiveTicks, validFromTicks: effectiveTicks };
}

function effectiveFrom(options: EditOptions): number {
  const { runs, assets, earliestTicks, effective } = options;
  const position = programmeAt(runs, assets, earliestTicks);
  const facts = position && assets.get(position.assetId);
  if (!position || !facts) return earliestTicks;
  if (effective === 'boundary') return programmeEndTicks(options, position);
  // Between two segments, so that none is cut.
  for (let i = position.firstSegmentIndex; i < position.firstSegmentIndex + position.segmentCount; i++) {
    const startTicks = position.originTicks + segmentStartTicks(facts, i);
    if (startTicks >= earliestTicks) return startTicks;
  }
  return position.endTicks;
}

/** Of a programme of several items all have to end; of a loop, the one that is on. */
function programmeEndTicks({ runs, assets }: EditOptions, position: ProgrammePosition): number {
  const index = runIndexAt(runs, position.startTicks);
  const run = runs[index];
  const endTicks = runs[index + 1]?.startTicks;
  const loop = run && Loop.of(run, assets);
  if (!loop || endTicks === undefined || position.programme === undefined) return position.endTicks;
  const isLooping = endTicks - (run.originTicks ?? run.startTicks) > loop.durationTicks;
  return isLooping ? position.endTicks : endTicks;
}

function isSameContent(run: Run, { content }: Stretch): boolean {
  return (
    content.startTicks === run.startTicks &&
    content.originTicks === run.originTicks &&
    content.shuffleSeed === run.shuffleSeed &&
    content.loop.length === run.loop.length &&
    content.loop.every((assetId, i) => assetId === run.loop[i])
  );
}
