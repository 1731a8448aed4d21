import { describe, expect, test } from 'vitest';
import { cueAt } from '../../test/stream.ts';
import type { Cue } from '../access-unit.ts';
import { LiveWindow } from './live-window.ts';
import type { InitSegment, Part, Segment, SegmenterEvent } from './segmenter.ts';

const init: InitSegment = { id: '0123456789abcdef', bytes: Uint8Array.of(1), tracks: [] };
const SEGMENT_TICKS = 180_000;

function partOf(mediaSequenceNumber: number, index: number): Part {
  return {
    mediaSequenceNumber,
    index,
    durationTicks: SEGMENT_TICKS / 2,
    isIndependent: index === 0,
    bytes: new Uint8Array(500),
  };
}

function partEvent(mediaSequenceNumber: number, index: number, ofInit = init): SegmenterEvent {
  return {
    type: 'part',
    part: partOf(mediaSequenceNumber, index),
    init: ofInit,
    cue: cueAt(mediaSequenceNumber, mediaSequenceNumber * SEGMENT_TICKS),
  };
}

function segmentEvent(
  mediaSequenceNumber: number,
  changes: Partial<Cue> = {},
  ofSegment: Partial<Segment> = {},
): SegmenterEvent & { type: 'segment' } {
  return {
    type: 'segment',
    segment: {
      cue: { ...cueAt(mediaSequenceNumber, mediaSequenceNumber * SEGMENT_TICKS), ...changes },
      init,
      parts: [],
      durationTicks: SEGMENT_TICKS,
      sizeBytes: 1000,
      ...ofSegment,
    },
  };
}

/** A window of three segments of two seconds with the segments `from` to `to`. */
function windowOf(from: number, to: number): LiveWindow {
  const window = new LiveWindow({ windowDurationMs: 7000, minSegments: 2 });
  for (let number = from; number <= to; number++) window.add(segmentEvent(number));
  return window;
}

function listed(window: LiveWindow): number[] {
  return window.segments.map((segment) => segment.cue.mediaSequenceNumber);
}

describe('the live window', () => {
  test('lists the newest segments that fit into its duration', () => {
    expect(listed(windowOf(5, 6))).toEqual([5, 6]);
    expect(listed(windowOf(5, 20))).toEqual([18, 19, 20]);
    expect(windowOf(5, 20).firstMediaSequenceNumber).toBe(18);
  });

  test('may be exactly as long as its duration', () => {
    const window = new LiveWindow({ windowDurationMs: 6000, minSegments: 1 });
    for (const number of [0, 1, 2, 3]) window.add(segmentEvent(number));
    expect(listed(window)).toEqual([1, 2, 3]);
  });

  test('lists the fewest allowed even where they last longer', () => {
    const window = new LiveWindow({ windowDurationMs: 7000, minSegments: 2 });
    for (const number of [0, 1, 2]) window.add(segmentEvent(number, {}, { durationTicks: 900_000 }));
    expect(listed(window)).toEqual([1, 2]);
  });

  test('keeps a removed segment for its duration and that of the longest playlist with it', () => {
    // 2 s and 6 s, so for the four segments after the one that pushed it out.
    for (let newest = 3; newest <= 6; newest++)
      expect(windowOf(0, newest).segment(0)?.cue.mediaSequenceNumber).toBe(0);
    expect(windowOf(0, 7).segment(0)).toBeUndefined();
    expect(windowOf(0, 7).segment(1)).toBeDefined();
    expect(windowOf(0, 7).segment(8)).toBeUndefined();
  });

  test('is bounded however long it runs', () => {
    expect(windowOf(0, 1000).sizeBytes).toBe(7000);
    const jumping = windowOf(0, 0);
    for (let number = 0; number < 1000; number++) jumping.add(segmentEvent(2 * number));
    expect(jumping.sizeBytes).toBeLessThanOrEqual(3000);
  });

  test('starts anew where the numbers jump', () => {
    const window = windowOf(0, 4);
    window.add(segmentEvent(7));
    expect(listed(window)).toEqual([7]);
    expect(window.segment(4)).toBeDefined(); // removed, but players may be on their way to it
  });

  test('starts anew where the numbers fall while time goes on', () => {
    const window = windowOf(10, 14);
    const later = cueAt(0, 100 * SEGMENT_TICKS).programDateTimeUnixMs;
    const restarted = segmentEvent(12, { programDateTimeUnixMs: later });
    window.add(restarted);
    expect(listed(window)).toEqual([12]);
    expect(window.segment(12)).toBe(restarted.segment);
  });

  test('ignores what it has already', () => {
    const window = windowOf(0, 4);
    const before = window.segments;
    window.add(partEvent(3, 0));
    window.add(segmentEvent(3));
    window.add(segmentEvent(4));
    expect(window.segments).toEqual(before);
    expect(window.sizeBytes).toBe(5000);
    window.add(segmentEvent(5));
    expect(listed(window)).toEqual([3, 4, 5]);
  });

  test('goes on over a discontinuity, and starts anew where a tag cannot express it', () => {
    const window = windowOf(0, 1);
    window.add(segmentEvent(2, { discontinuitySequence: 1 }));
    expect(listed(window)).toEqual([0, 1, 2]);
    expect(window.discontinuitySequence).toBe(0);
    window.add(segmentEvent(3, { discontinuitySequence: 3 }));
    expect(listed(window)).toEqual([3]);
    expect(window.discontinuitySequence).toBe(3);
    window.add(segmentEvent(4, { discontinuitySequence: 2 }));
    expect(listed(window)).toEqual([4]);
  });

  test('is playable once the target duration is known, which is then constant', () => {
    const window = new LiveWindow({ windowDurationMs: 7000, minSegments: 2 });
    expect(window.isPlayable).toBe(false);
    window.add(segmentEvent(0, { targetDurationMs: 0 }));
    expect([window.isPlayable, window.targetDurationMs]).toEqual([false, 0]);
    window.hearCue(segmentEvent(1, { targetDurationMs: 4000 }).segment.cue);
    expect([window.isPlayable, window.targetDurationMs]).toEqual([true, 4000]);
    window.add(segmentEvent(1, { targetDurationMs: 4000 }));
    expect([window.isPlayable, window.targetDurationMs]).toEqual([true, 4000]);
    expect(listed(window)).toEqual([0, 1]);
    window.add(segmentEvent(2, { targetDurationMs: 6000 }));
    expect(window.targetDurationMs).toBe(4000);
    window.add(segmentEvent(9, { targetDurationMs: 6000 }));
    expect(window.targetDurationMs).toBe(6000);
    window.add(segmentEvent(19, { targetDurationMs: 0 }));
    expect([window.isPlayable, window.targetDurationMs]).toEqual([true, 6000]);
  });

  test('shows the parts of the segment after the last listed one', () => {
    const window = windowOf(0, 1);
    window.add(partEvent(2, 0));
    window.add(partEvent(2, 1));
    expect(window.openSegment?.parts.map((part) => [part.mediaSequenceNumber, part.index])).toEqual([
      [2, 0],
      [2, 1],
    ]);
    expect(window.sizeBytes).toBe(3000);
    window.add(segmentEvent(2));
    expect(window.openSegment).toBeUndefined();
    window.add(partEvent(3, 1)); // its first part was never seen
    expect(window.openSegment).toBeUndefined();
    window.add(partEvent(8, 0)); // a jump: not after the list as it is
    expect(window.openSegment).toBeUndefined();
    expect(listed(window)).toEqual([0, 1, 2]);
  });

  test('has the parts of the open segment and of all segments that it keeps', () => {
    const window = windowOf(0, 1);
    const withParts = segmentEvent(2, {}, { parts: [0, 1].map((index) => partOf(2, index)) });
    window.add(partEvent(2, 0));
    expect(window.part(2, 0)?.index).toBe(0);
    expect(window.part(2, 1)).toBeUndefined();
    window.add(withParts);
    expect(window.part(2, 1)?.index).toBe(1);
    for (let number = 3; number <= 6; number++) window.add(segmentEvent(number));
    expect(listed(window)).not.toContain(2);
    expect(window.part(2, 1)?.index).toBe(1);
    expect(window.part(9, 0)).toBeUndefined();
  });

  test('says how far away something is, by the rules of blocking reload', () => {
    const window = windowOf(0, 4);
    window.add(segmentEvent(5, {}, { parts: [0, 1].map((index) => partOf(5, index)) }));
    const reach = (number: number, part?: number) => window.reach(number, part, 3);
    expect([reach(0), reach(5), reach(5, 1)]).toEqual(['listed', 'listed', 'listed']);
    expect([reach(6), reach(7), reach(8)]).toEqual(['expected', 'expected', 'too-far']);
    // Part 0 is one beyond the newest part, part 2 three.
    expect([reach(6, 0), reach(6, 2), reach(6, 3)]).toEqual(['expected', 'expected', 'too-far']);
    expect(reach(5, 2)).toBe('expected'); // part 0 of segment 6
    window.add(partEvent(6, 0));
    expect(reach(5, 2)).toBe('listed');
    expect([reach(6, 0), reach(6, 3), reach(6, 4)]).toEqual(['listed', 'expected', 'too-far']);
    expect([reach(7, 2), reach(7, 3), reach(8, 0)]).toEqual(['expected', 'too-far', 'too-far']);
    expect(new LiveWindow({ windowDurationMs: 1, minSegments: 1 }).reach(0, undefined, 3)).toBe('too-far');
  });

  test('has a new revision for every part and segment, and none for a repeat', () => {
    const window = windowOf(0, 1);
    const revisions = [window.revision];
    for (const event of [partEvent(2, 0), segmentEvent(2), segmentEvent(2), partEvent(2, 0)]) {
      window.add(event);
      revisions.push(window.revision);
    }
    expect(revisions.map((revision) => revision - (revisions[0] ?? 0))).toEqual([0, 1, 2, 2, 2]);
  });

  test('knows the init segments of all it keeps', () => {
    const newInit: InitSegment = { ...init, id: 'fedcba9876543210' };
    const window = new LiveWindow({ windowDurationMs: 2000, minSegments: 1 });
    window.add(segmentEvent(0));
    window.add(partEvent(1, 0, newInit));
    expect(window.init(newInit.id)).toBe(newInit);
    for (let number = 1; number <= 2; number++) window.add(segmentEvent(number, {}, { init: newInit }));
    expect(window.init(init.id)).toBe(init); // of a segment that was removed
    for (let number = 3; number <= 9; number++) window.add(segmentEvent(number, {}, { init: newInit }));
    expect(window.init(init.id)).toBeUndefined();
    expect(window.init(newInit.id)).toBe(newInit);
  });
});
