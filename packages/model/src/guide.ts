/**
 * What the guide says of a time: the one source for XMLTV, the site's guide, what is on now, and the date ranges
 * in the playlists. A pure function of the schedule, so that all of them agree.
 */
import {
  type AssetFacts,
  Loop,
  type ProgrammeInfo,
  programmeAt,
  type Run,
  runIndexAt,
  TIMELINE_HZ,
} from './schedule.ts';

const HOUR_MS = 3_600_000;
const TICKS_PER_MS = TIMELINE_HZ / 1000;
/** A list of items that last less than this on average tells nobody anything. */
const MIN_LISTED_TICKS = 60 * TIMELINE_HZ;

/** A channel, as far as its guide needs it. */
export interface GuideChannel {
  readonly title: string;
  readonly epochUnixMs: number;
  readonly runs: readonly Run[];
}

/** By asset id. */
export interface GuideAssets {
  readonly facts: ReadonlyMap<string, AssetFacts>;
  readonly names: ReadonlyMap<string, string>;
}

/** A programme of a channel, on its timeline. */
export interface GuideEntry extends ProgrammeInfo {
  readonly title: string;
  readonly startTicks: number;
  readonly endTicks: number;
}

/**
 * What is on at a time.
 * @param detail `items`: the item, or the programme that it is part of; `guide`: the same, but what is too short to
 *   be listed is the channel itself, hour by hour
 * @returns undefined where nothing is on
 */
export function guideEntryAt(
  { title, epochUnixMs, runs }: GuideChannel,
  { facts, names }: GuideAssets,
  ticks: number,
  detail: 'items' | 'guide',
): GuideEntry | undefined {
  const runIndex = runIndexAt(runs, ticks);
  const run = runs[runIndex];
  const position = programmeAt(runs, facts, ticks);
  if (run === undefined || position === undefined) return undefined;
  const runEndTicks = runs[runIndex + 1]?.startTicks ?? Number.POSITIVE_INFINITY;
  const hour = () => hourOf(ticks, run.startTicks, runEndTicks, epochUnixMs);
  const name = names.get(position.assetId) ?? title;
  if (run.programme !== undefined) {
    const isEndless = runEndTicks === Number.POSITIVE_INFINITY;
    const span = isEndless ? hour() : { startTicks: run.startTicks, endTicks: runEndTicks };
    return { title: name, ...run.programme, ...span };
  }
  const meanTicks = (Loop.of(run, facts)?.durationTicks ?? 0) / run.loop.length;
  if (detail === 'guide' && meanTicks < MIN_LISTED_TICKS) return { title, ...hour() };
  return { title: name, startTicks: position.startTicks, endTicks: position.endTicks };
}

/** The part of a span of the timeline that lies in the hour of a time. */
function hourOf(ticks: number, startTicks: number, endTicks: number, epochUnixMs: number) {
  const hourMs = Math.floor((epochUnixMs + ticks / TICKS_PER_MS) / HOUR_MS) * HOUR_MS;
  const hourTicks = (hourMs - epochUnixMs) * TICKS_PER_MS;
  return {
    startTicks: Math.max(startTicks, hourTicks),
    endTicks: Math.min(endTicks, hourTicks + HOUR_MS * TICKS_PER_MS),
  };
}
