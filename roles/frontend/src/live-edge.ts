/** Where a low-latency player is, as its blocking reloads tell. */
import type { LiveWindow } from '@starling/media/hls/live-window';
import { ticksToMs, VIDEO_TIMESCALE_HZ } from '@starling/media/time';

/**
 * How far the start of what a player asks for next is behind the newest part, in milliseconds; undefined
 * when it is not known. What does not exist yet is 0 behind.
 * @param partIndex undefined for the whole segment
 */
export function behindLiveEdgeMs(
  window: LiveWindow,
  mediaSequenceNumber: number,
  partIndex: number | undefined,
): number | undefined {
  const newest = window.openSegment ?? window.segments.at(-1);
  if (newest === undefined) return undefined;
  const endTicks = startOfPart(newest, newest.parts.length);
  if (mediaSequenceNumber > newest.cue.mediaSequenceNumber) return 0;
  const asked =
    mediaSequenceNumber === newest.cue.mediaSequenceNumber ? newest : window.segment(mediaSequenceNumber);
  if (asked === undefined) return undefined;
  const behindTicks = Math.max(0, endTicks - startOfPart(asked, partIndex ?? 0));
  return Math.round(ticksToMs(behindTicks, VIDEO_TIMESCALE_HZ));
}

function startOfPart({ cue, parts }: NonNullable<LiveWindow['openSegment']>, partIndex: number): number {
  return parts.slice(0, partIndex).reduce((ticks, part) => ticks + part.durationTicks, cue.startTicks);
}
