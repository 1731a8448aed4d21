/**
 * Segments that were recorded, and playlists of them: what a viewer rewinds into.
 *
 * A recorded segment is all that a playlist says of it, without its bytes. A recording may have holes, where a
 * process was down or a disk was full, and may span breaks, after which numbers or discontinuity sequences do not
 * follow from those before.
 */
import { VIDEO_TIMESCALE_HZ } from '../time.ts';
import type { MediaNames, MediaPlaylist, MediaPlaylistSegment } from './playlist.ts';
import type { Segment } from './segmenter.ts';

export interface RecordedSegment {
  readonly mediaSequenceNumber: number;
  readonly discontinuitySequence: number;
  /** On the channel's timeline, in ticks of 1/90000 s. */
  readonly startTicks: number;
  /** Ticks of 1/90000 s. */
  readonly durationTicks: number;
  /** Wall-clock time of its start. */
  readonly programDateTimeUnixMs: number;
  /** EXT-X-TARGETDURATION; 0 where it was not known yet. */
  readonly targetDurationMs: number;
  /** A decoder can start at it. */
  readonly isIndependent: boolean;
  readonly initId: string;
  readonly sizeBytes: number;
}

/** What a recording keeps of a segment beside its bytes. */
export function recordedSegment({ cue, init, parts, durationTicks, sizeBytes }: Segment): RecordedSegment {
  return {
    mediaSequenceNumber: cue.mediaSequenceNumber,
    discontinuitySequence: cue.discontinuitySequence,
    startTicks: cue.startTicks,
    durationTicks,
    programDateTimeUnixMs: cue.programDateTimeUnixMs,
    targetDurationMs: cue.targetDurationMs,
    isIndependent: cue.isIndependent && parts[0]?.isIndependent === true,
    initId: init.id,
    sizeBytes,
  };
}

const TICKS_PER_MS = VIDEO_TIMESCALE_HZ / 1000;

/** Wall-clock time of a segment's end, in milliseconds since 1970. */
export function endUnixMs({ programDateTimeUnixMs, durationTicks }: RecordedSegment): number {
  return programDateTimeUnixMs + durationTicks / TICKS_PER_MS;
}

/** Wall-clock time of tick 0: a channel that was created anew has another one, and uses its numbers again. */
export function epochUnixMs({ programDateTimeUnixMs, startTicks }: RecordedSegment): number {
  return programDateTimeUnixMs - Math.floor(startTicks / TICKS_PER_MS);
}

/** One comes right after the other. */
export function isNext(before: RecordedSegment, after: RecordedSegment): boolean {
  return (
    after.mediaSequenceNumber === before.mediaSequenceNumber + 1 &&
    epochUnixMs(after) === epochUnixMs(before) &&
    after.programDateTimeUnixMs > before.programDateTimeUnixMs
  );
}

/** More segments in a row than can be missing from any window: then it is no hole. */
const MAX_HOLE_SEGMENTS = 50_000;

/**
 * How many segments are missing between two, where a playlist can say so by as many EXT-X-GAP: each of them has a
 * length that the target duration allows, and all discontinuities in between find a place.
 * @returns undefined for a break
 */
function missingSegments(before: RecordedSegment, after: RecordedSegment): number | undefined {
  const missing = after.mediaSequenceNumber - before.mediaSequenceNumber - 1;
  const discontinuities = after.discontinuitySequence - before.discontinuitySequence;
  const [a, b] = [before.targetDurationMs, after.targetDurationMs];
  const continues =
    missing >= 0 &&
    missing <= MAX_HOLE_SEGMENTS &&
    discontinuities >= 0 &&
    discontinuities <= missing + 1 &&
    epochUnixMs(after) === epochUnixMs(before) &&
    after.startTicks > before.startTicks &&
    (a === 0 || b === 0 || a === b);
  if (!continues) return undefined;
  if (missing === 0) return 0;
  const gapTicks = (after.startTicks - before.startTicks - before.durationTicks) / missing;
  const maxTicks = (b || a) * TICKS_PER_MS + VIDEO_TIMESCALE_HZ / 2;
  return gapTicks > 0 && gapTicks < maxTicks ? missing : undefined;
}

/** What a playlist of recorded segments is to be. */
export interface RecordedPlaylistKind {
  /** `EVENT` grows and `VOD` does not change; undefined: old segments go as new ones come. */
  readonly type: 'EVENT' | 'VOD' | undefined;
  readonly isEnded: boolean;
  /** Where playback is to start, in milliseconds since 1970; the player decides when undefined. */
  readonly startUnixMs: number | undefined;
}

/** As {@link MediaNames}, where `segment` may tell the epoch: numbers repeat in a channel that was created anew. */
export interface RecordedNames extends Pick<MediaNames, 'init'> {
  /** @param epochUnixMs undefined for the newest epoch */
  segment(mediaSequenceNumber: number, epochUnixMs: number | undefined): string;
}

/**
 * The playlist of recorded segments of one rendition.
 *
 * Holes are filled with EXT-X-GAP, so that numbers count on (rfc8216bis, 4.4.4.7). A break is an EXT-X-DISCONTINUITY.
 * The numbers are those of the segments after the last break, and count backwards from there: they do not
 * change when old segments go or new ones come, unless there is another break.
 *
 * @param segments oldest first, at least one
 * @param newestEpochUnixMs of the channel: segments of other epochs are named with theirs
 */
export function recordedPlaylist(
  segments: readonly RecordedSegment[],
  names: RecordedNames,
  newestEpochUnixMs: number,
  { type, isEnded, startUnixMs }: RecordedPlaylistKind,
): MediaPlaylist {
  const [first] = segments;
  if (first === undefined) throw new Error('a playlist of no recorded segments');
  const listed: MediaPlaylistSegment[] = [];
  let discontinuityCount = 0;
  /** The first segment after the last break, with its place in the list and the discontinuities up to it. */
  let anchor = { segment: first, index: 0, discontinuityCount: 0 };
  let before: RecordedSegment | undefined;
  const push = (segment: RecordedSegment, isDiscontinuous: boolean, isGap: boolean) => {
    if (isDiscontinuous) discontinuityCount++;
    const epoch = epochUnixMs(segment);
    listed.push({
      initUri: names.init(segment.initId),
      isDiscontinuous,
      programDateTimeUnixMs: segment.programDateTimeUnixMs,
      parts: [],
      uri: names.segment(segment.mediaSequenceNumber, epoch === newestEpochUnixMs ? undefined : epoch),
      durationTicks: segment.durationTicks,
      isGap,
    });
  };
  for (const segment of segments) {
    if (before === undefined) push(segment, false, false);
    else {
      const missing = missingSegments(before, segment);
      if (missing === undefined) {
        push(segment, true, false);
        anchor = { segment, index: listed.length - 1, discontinuityCount };
      } else {
        // Which of the missing ones had a discontinuity is not known: the last ones are taken for it.
        const discontinuities = segment.discontinuitySequence - before.discontinuitySequence;
        const gaps = gapSegments(before, segment, missing);
        gaps.forEach((gap, index) => {
          push(gap, missing - index < discontinuities, true);
        });
        push(segment, discontinuities > 0, false);
      }
    }
    before = segment;
  }
  return {
    type,
    targetDurationSeconds: targetDurationSeconds(segments),
    mediaSequenceNumber: Math.max(0, anchor.segment.mediaSequenceNumber - anchor.index),
    discontinuitySequence: Math.max(0, anchor.segment.discontinuitySequence - anchor.discontinuityCount),
    isIndependentSegments: segments.every(({ isIndependent }) => isIndependent),
    startOffsetSeconds:
      startUnixMs === undefined ? undefined : Math.max(0, startUnixMs - first.programDateTimeUnixMs) / 1000,
    programmes: [],
    segments: listed,
    offersDeltaUpdates: !isEnded,
    lowLatency: undefined,
    isEnded,
  };
}

/** Stand-ins for the segments missing between two, all of one length. */
function gapSegments(before: RecordedSegment, after: RecordedSegment, count: number): RecordedSegment[] {
  const startTicks = before.startTicks + before.durationTicks;
  const boundaryTicks = (index: number) =>
    startTicks + Math.floor(((after.startTicks - startTicks) * index) / count);
  return Array.from({ length: count }, (_, index) => ({
    ...before,
    mediaSequenceNumber: before.mediaSequenceNumber + 1 + index,
    startTicks: boundaryTicks(index),
    durationTicks: boundaryTicks(index + 1) - boundaryTicks(index),
    programDateTimeUnixMs: epochUnixMs(before) + Math.floor(boundaryTicks(index) / TICKS_PER_MS),
  }));
}

/** The largest that any of them states, and at least what their lengths round to (RFC 8216, 4.3.3.1). */
function targetDurationSeconds(segments: readonly RecordedSegment[]): number {
  let seconds = 1;
  for (const { targetDurationMs, durationTicks } of segments) {
    seconds = Math.max(
      seconds,
      Math.ceil(targetDurationMs / 1000),
      Math.round(durationTicks / VIDEO_TIMESCALE_HZ),
    );
  }
  return seconds;
}
