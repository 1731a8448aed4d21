/** Streams for tests: access units in the order of the contract, with cues before key frames. */
import type { AccessUnit, Cue, StreamEvent, Track } from '../src/access-unit.ts';
import { timescaleHz, trackIndex } from '../src/access-unit.ts';
import { compareTicks, ticksToMs, VIDEO_TIMESCALE_HZ } from '../src/time.ts';

export const EPOCH_UNIX_MS = Date.UTC(2026, 0, 1);

/**
 * Puts units in stream order and a cue before each start of a segment.
 *
 * @param segmentStartsTicks of 1/90000 s, rising
 * @param changes fields of the cue with that index
 */
export function streamEvents(
  tracks: readonly Track[],
  units: readonly AccessUnit[],
  segmentStartsTicks: readonly number[],
  changes: (index: number) => Partial<Cue> = () => ({}),
): StreamEvent[] {
  const rates = new Map(tracks.map((track) => [trackIndex(track), timescaleHz(track)]));
  const hzOf = (unit: AccessUnit) => {
    const hz = rates.get(trackIndex(unit));
    if (hz === undefined) throw new Error(`no ${unit.kind} track ${unit.trackId}`);
    return hz;
  };
  const inOrder = units.toSorted(
    (a, b) => compareTicks(a.dtsTicks, hzOf(a), b.dtsTicks, hzOf(b)) || trackIndex(a) - trackIndex(b),
  );
  const events: StreamEvent[] = [
    { type: 'timeline', epochUnixMs: EPOCH_UNIX_MS },
    ...tracks.map((track): StreamEvent => ({ type: 'track', track })),
  ];
  let index = 0;
  const addCuesUpTo = (ticks: number, hz: number) => {
    for (;;) {
      const startTicks = segmentStartsTicks[index];
      if (startTicks === undefined || compareTicks(startTicks, VIDEO_TIMESCALE_HZ, ticks, hz) > 0) return;
      events.push({ type: 'cue', cue: { ...cueAt(index, startTicks), ...changes(index) } });
      index++;
    }
  };
  for (const unit of inOrder) {
    addCuesUpTo(unit.dtsTicks, hzOf(unit));
    events.push({ type: 'unit', unit });
  }
  addCuesUpTo(Number.MAX_SAFE_INTEGER, VIDEO_TIMESCALE_HZ);
  return events;
}

export function cueAt(mediaSequenceNumber: number, startTicks: number): Cue {
  return {
    mediaSequenceNumber,
    discontinuitySequence: 0,
    startTicks,
    programDateTimeUnixMs: EPOCH_UNIX_MS + Math.round(ticksToMs(startTicks, VIDEO_TIMESCALE_HZ)),
    programmeId: 'programme',
    targetDurationMs: 2000,
    isIndependent: true,
  };
}
