import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { errorCodeOf } from '../../test/media-error.ts';
import { cueAt, streamEvents } from '../../test/stream.ts';
import type { AccessUnit, AudioTrack, StreamEvent, Track, VideoTrack } from '../access-unit.ts';
import { ByteReader, concatBytes } from '../bytes.ts';
import { readBoxes, requireBox } from '../fmp4/box.ts';
import { fragment, parseFragment } from '../fmp4/fragment.ts';
import { initSegment } from '../fmp4/init-segment.ts';
import { initSegmentId, type Part, type Segment, Segmenter, type SegmenterEvent } from './segmenter.ts';

const PART_TARGET_MS = 500;
const PART_TARGET_TICKS = 45_000;

const video: VideoTrack = {
  kind: 'video',
  trackId: 0,
  codec: 'avc',
  config: Uint8Array.of(1, 0x64, 0, 0x1f),
  codecString: 'avc1.64001f',
  widthPx: 1280,
  heightPx: 720,
  frameDurationTicks: undefined,
};
const audio: AudioTrack = {
  kind: 'audio',
  trackId: 0,
  language: undefined,
  codec: 'aac',
  config: Uint8Array.of(0x12, 0x10),
  codecString: 'mp4a.40.2',
  sampleRateHz: 44_100,
  channelCount: 2,
};
const tracks: Track[] = [video, audio];

function run(events: readonly StreamEvent[], segmenter = new Segmenter({ partTargetMs: PART_TARGET_MS })) {
  const made = events.flatMap((event) => segmenter.push(event));
  return { parts: partsOf(made), segments: segmentsOf(made) };
}

function partsOf(events: readonly SegmenterEvent[]): Part[] {
  return events.flatMap((event) => (event.type === 'part' ? [event.part] : []));
}

function segmentsOf(events: readonly SegmenterEvent[]): Segment[] {
  return events.flatMap((event) => (event.type === 'segment' ? [event.segment] : []));
}

function bytesOf(segment: Segment): Uint8Array {
  return concatBytes(segment.parts.map((part) => part.bytes));
}

function videoUnit(dtsTicks: number, isRandomAccess = false): AccessUnit {
  return { kind: 'video', trackId: 0, dtsTicks, ptsTicks: dtsTicks, isRandomAccess, data: payload(dtsTicks) };
}

function audioUnit(dtsTicks: number): AccessUnit {
  return {
    kind: 'audio',
    trackId: 0,
    dtsTicks,
    ptsTicks: dtsTicks,
    isRandomAccess: true,
    data: payload(dtsTicks),
  };
}

/** A payload that tells units apart. */
function payload(dtsTicks: number): Uint8Array {
  return Uint8Array.from(String(dtsTicks), (digit) => digit.charCodeAt(0));
}

/** Video of constant frame rate with a key frame at each segment's start, and AAC on its sample counter. */
function constantRateStream(options: { frameTicks: number; framesPerSegment: number; segmentCount: number }) {
  const { frameTicks, framesPerSegment, segmentCount } = options;
  const frameCount = framesPerSegment * segmentCount;
  const units = [
    ...Array.from({ length: frameCount }, (_, i) => videoUnit(i * frameTicks, i % framesPerSegment === 0)),
    ...Array.from({ length: Math.ceil((frameCount * frameTicks * 44_100) / 90_000 / 1024) }, (_, i) =>
      audioUnit(i * 1024),
    ),
  ];
  const starts = Array.from({ length: segmentCount + 1 }, (_, i) => i * framesPerSegment * frameTicks);
  return streamEvents(tracks, units, starts);
}

describe('parts', () => {
  test('are closed before the frame that would carry them past the target', () => {
    // 25 frames per second: twelve frames last 480 ms, thirteen would last 520 ms.
    const { segments } = run(constantRateStream({ frameTicks: 3600, framesPerSegment: 50, segmentCount: 1 }));
    expect(segments[0]?.parts.map((part) => part.durationTicks / 3600)).toEqual([12, 12, 12, 12, 2]);
    expect(segments[0]?.parts.map((part) => part.isIndependent)).toEqual([true, false, false, false, false]);
    expect(segments[0]?.parts.map((part) => part.index)).toEqual([0, 1, 2, 3, 4]);
  });

  test('that reach the target exactly are closed by the frame after them', () => {
    const events = constantRateStream({ frameTicks: 3000, framesPerSegment: 60, segmentCount: 1 });
    const isFrame = (event: StreamEvent) => event.type === 'unit' && event.unit.kind === 'video';
    const sixteenthFrame = events.indexOf(events.filter(isFrame)[15] ?? { type: 'timeline', epochUnixMs: 0 });
    expect(run(events.slice(0, sixteenthFrame)).parts).toHaveLength(0);
    const { parts } = run(events.slice(0, sixteenthFrame + 1));
    expect(parts.map((part) => part.durationTicks)).toEqual([PART_TARGET_TICKS]);
  });

  test('hold the audio of their time range', () => {
    const { segments } = run(constantRateStream({ frameTicks: 3600, framesPerSegment: 50, segmentCount: 2 }));
    let startTicks = 0;
    for (const part of segments.flatMap((segment) => segment.parts)) {
      const endTicks = startTicks + part.durationTicks;
      const ofAudio = parseFragment(part.bytes, tracks).filter((unit) => unit.kind === 'audio');
      const first = Math.ceil(((startTicks / 90_000) * 44_100) / 1024);
      const end = Math.ceil(((endTicks / 90_000) * 44_100) / 1024);
      expect(ofAudio.map((unit) => unit.dtsTicks / 1024)).toEqual(
        Array.from({ length: end - first }, (_, i) => first + i),
      );
      startTicks = endTicks;
    }
  });

  test('of sound alone are as long as the target, wherever its units start, and are independent', () => {
    const units = Array.from({ length: 200 }, (_, i) => audioUnit(i * 1024));
    const { segments } = run(streamEvents([audio], units, [0, 2 * 90_000, 4 * 90_000]));
    expect(segments).toHaveLength(2);
    const parts = segments.flatMap((segment) => segment.parts);
    expect(parts.map((part) => part.durationTicks)).toEqual(Array(8).fill(PART_TARGET_TICKS));
    expect(parts.every((part) => part.isIndependent)).toBe(true);
    const read = parts.flatMap((part) => parseFragment(part.bytes, [audio]));
    expect(read).toEqual(units.filter((unit) => unit.dtsTicks < 4 * 44_100));
  });

  test('of pictures alone are dated as presented, as sound is', () => {
    const reordered = Array.from({ length: 100 }, (_, i) => {
      const unit = videoUnit(i * 3600, i % 50 === 0);
      return { ...unit, ptsTicks: unit.dtsTicks + (i % 50 === 0 ? 7200 : i % 2 === 0 ? 3600 : 10_800) };
    });
    const dates = (tracksOf: readonly Track[], units: readonly AccessUnit[]) =>
      run(streamEvents(tracksOf, units, [0, 180_000, 360_000])).segments.map(
        ({ cue }) =>
          cue.programDateTimeUnixMs - cueAt(cue.mediaSequenceNumber, cue.startTicks).programDateTimeUnixMs,
      );
    // Two frames of 40 ms between decoding and presentation of the first picture.
    expect(dates([video], reordered)).toEqual([80, 80]);
    const sound = Array.from({ length: 180 }, (_, i) => audioUnit(i * 1024));
    expect(dates([audio], sound)).toEqual([0, 0]);
    expect(dates([video, audio], [...reordered, ...sound])).toEqual([0, 0]);
  });

  test('are never empty of time, even where two units of audio share a tick', () => {
    const fast: AudioTrack = { ...audio, sampleRateHz: 96_000 };
    const units = [0, 1, 96_000].map(audioUnit);
    const { segments } = run(streamEvents([fast], units, [0, 95_000]));
    expect(segments[0]?.parts.map((part) => part.durationTicks)).toEqual([45_000, 45_000, 5000]);
  });

  test('go on at the target where a frame lasts longer', () => {
    const units = [
      videoUnit(0, true),
      videoUnit(100_000),
      ...Array.from({ length: 60 }, (_, i) => audioUnit(i * 1024)),
    ];
    const { segments } = run(streamEvents(tracks, units, [0, 110_000]));
    const parts = segments[0]?.parts ?? [];
    expect(parts.map((part) => part.durationTicks)).toEqual([45_000, 45_000, 20_000]);
    expect(parts.map((part) => part.isIndependent)).toEqual([true, false, false]);
    const frames = parts.map(
      (part) => parseFragment(part.bytes, tracks).filter((unit) => unit.kind === 'video').length,
    );
    expect(frames).toEqual([1, 0, 1]);
  });

  test('join without a gap: each starts where the samples of the one before it end', () => {
    const { parts } = run(constantRateStream({ frameTicks: 3600, framesPerSegment: 50, segmentCount: 3 }));
    const endTicks = [0, 0];
    for (const part of parts) {
      const moof = readBoxes(requireBox(readBoxes(part.bytes), 'moof', 'the part').content);
      const trafs = moof.filter((box) => box.type === 'traf').map((box) => readBoxes(box.content));
      expect(trafs).toHaveLength(2);
      trafs.forEach((traf, index) => {
        const field = (type: string, offset: number) => {
          const reader = new ByteReader(requireBox(traf, type, 'traf').content);
          reader.skip(offset);
          return reader;
        };
        const baseMediaDecodeTime = field('tfdt', 4).u64();
        const defaultSampleDuration = field('tfhd', 8).u32();
        const sampleCount = field('trun', 4).u32();
        expect(baseMediaDecodeTime).toBe(endTicks[index]);
        endTicks[index] = baseMediaDecodeTime + sampleCount * defaultSampleDuration;
      });
    }
    expect(endTicks[0]).toBe(3 * 50 * 3600);
  });

  test('have sequence numbers that follow from their names', () => {
    const numbers = (mediaSequenceNumber: number) => {
      const events: StreamEvent[] = [
        { type: 'track', track: video },
        { type: 'cue', cue: cueAt(mediaSequenceNumber, 0) },
        ...[0, 40_000, 80_000].map(
          (ticks): StreamEvent => ({ type: 'unit', unit: videoUnit(ticks, ticks === 0) }),
        ),
        { type: 'cue', cue: cueAt(mediaSequenceNumber + 1, 90_000) },
      ];
      // moof header 8, mfhd header 8, version and flags 4
      return run(events).parts.map(({ bytes }) => new DataView(bytes.buffer, bytes.byteOffset).getUint32(20));
    };
    const [first, second, third] = numbers(5);
    expect([second, third]).toEqual([(first ?? 0) + 1, (first ?? 0) + 2]);
    expect(numbers(5)).toEqual([first, second, third]);
    expect(numbers(6)[0]).toBeGreaterThan(third ?? 0);
    expect(numbers(2 ** 40 + 5)).toEqual([first, second, third]); // modulo 2^32
  });
});

describe('segments', () => {
  test('run from cue to cue, the last frame too', () => {
    const units = [videoUnit(0, true), videoUnit(3600), videoUnit(180_500, true)];
    const { segments } = run(streamEvents([video], units, [0, 10_000, 180_500]));
    expect(segments.map((segment) => segment.durationTicks)).toEqual([10_000, 170_500]);
    const [first] = segments;
    const expected = fragment({
      sequenceNumber: 1,
      tracks: [{ track: video, units: units.slice(0, 2), endTicks: 10_000 }],
    });
    expect(first && bytesOf(first)).toEqual(expected);
    expect(first?.sizeBytes).toBe(expected.length);
  });

  test('take the audio at or after the cue, compared exactly', () => {
    // 44100 Hz: the audio unit at 1024 starts at tick 2089.8.
    const units = [videoUnit(0, true), audioUnit(0), audioUnit(1024), videoUnit(2090, true), audioUnit(2048)];
    const audioOf = (startTicks: number) => {
      const { segments } = run(streamEvents(tracks, units, [0, startTicks, 10_000]));
      return segments.map((segment) =>
        parseFragment(bytesOf(segment), tracks).flatMap((unit) =>
          unit.kind === 'audio' ? [unit.dtsTicks] : [],
        ),
      );
    };
    expect(audioOf(2089)).toEqual([[0], [1024, 2048]]);
    expect(audioOf(2090)).toEqual([[0, 1024], [2048]]);
  });

  test('before the first cue are not made, and units there are dropped', () => {
    const events = streamEvents(
      [video],
      [videoUnit(0, true), videoUnit(3600), videoUnit(7200, true)],
      [7200, 9000],
    );
    const { segments } = run(events);
    expect(segments.map((segment) => parseFragment(bytesOf(segment), tracks).length)).toEqual([1]);
  });

  test('may start with a later frame than the cue says: it is in the first part', () => {
    for (const frameTicks of [3600, 60_000]) {
      const units = [videoUnit(1000, true), videoUnit(1000 + frameTicks), videoUnit(1000 + 2 * frameTicks)];
      const [segment] = run(streamEvents([video], units, [0, 1000 + 3 * frameTicks])).segments;
      expect(segment?.durationTicks).toBe(1000 + 3 * frameTicks);
      expect(segment?.parts[0]?.isIndependent).toBe(true);
      expect(parseFragment(segment?.parts[0]?.bytes ?? new Uint8Array(), [video])[0]).toEqual(units[0]);
    }
  });

  test('are dropped when the numbers jump', () => {
    const segmenter = new Segmenter({ partTargetMs: PART_TARGET_MS });
    const events = constantRateStream({ frameTicks: 3600, framesPerSegment: 50, segmentCount: 4 });
    const jumped = events.filter((event) => event.type !== 'cue' || event.cue.mediaSequenceNumber !== 2);
    const { segments } = run(jumped, segmenter);
    expect(segments.map((segment) => segment.cue.mediaSequenceNumber)).toEqual([0, 3]);
    expect(segments[1]).toEqual(run(events).segments[3]);
  });

  test('that a new publisher cuts short are dropped, and its numbers may repeat', () => {
    const events = constantRateStream({ frameTicks: 3600, framesPerSegment: 50, segmentCount: 3 });
    const segmenter = new Segmenter({ partTargetMs: PART_TARGET_MS });
    const { segments: before } = run(events.slice(0, 300), segmenter);
    const { segments: after } = run(events, segmenter);
    expect(before.map((segment) => segment.cue.mediaSequenceNumber)).toEqual([0, 1]);
    expect(after).toEqual(run(events).segments);
  });

  test('with a hole where a new publisher took over are never made', () => {
    const events = constantRateStream({ frameTicks: 3600, framesPerSegment: 50, segmentCount: 3 });
    const cueIndex = (number: number) =>
      events.findIndex((event) => event.type === 'cue' && event.cue.mediaSequenceNumber === number);
    const header = events.slice(0, 3); // timeline and tracks
    // The first publisher stops within segment 1, the second one starts with segment 2.
    const { segments } = run([...events.slice(0, cueIndex(1) + 20), ...header, ...events.slice(cueIndex(2))]);
    expect(segments.map((segment) => segment.cue.mediaSequenceNumber)).toEqual([0, 2]);
    expect(segments[1]).toEqual(run(events).segments[2]);
  });

  test('take the audio that came before their cue but belongs behind it', () => {
    const unitEvent = (unit: AccessUnit): StreamEvent => ({ type: 'unit', unit });
    const { segments } = run([
      { type: 'track', track: video },
      { type: 'track', track: audio },
      { type: 'cue', cue: cueAt(0, 0) },
      unitEvent(videoUnit(0, true)),
      unitEvent(audioUnit(0)),
      unitEvent(audioUnit(1024)), // at tick 2089.8
      { type: 'cue', cue: cueAt(1, 2000) },
      unitEvent(videoUnit(2000, true)),
      { type: 'cue', cue: cueAt(2, 9000) },
    ]);
    const timesOf = (segment: Segment) =>
      parseFragment(bytesOf(segment), tracks).map((unit) => unit.dtsTicks);
    expect(segments.map(timesOf)).toEqual([
      [0, 0],
      [2000, 1024],
    ]);
  });

  describe('before a discontinuity', () => {
    /** Of a segment from 0 with these units, when the next one comes after 5 s of nothing. */
    const durationTicks = (announced: readonly Track[], units: readonly AccessUnit[]) => {
      const discontinuity = { ...cueAt(1, 450_000), discontinuitySequence: 1 };
      const { segments } = run([
        ...announced.map((track): StreamEvent => ({ type: 'track', track })),
        { type: 'cue', cue: cueAt(0, 0) },
        ...units.map((unit): StreamEvent => ({ type: 'unit', unit })),
        { type: 'cue', cue: discontinuity },
      ]);
      return segments[0]?.durationTicks;
    };
    const audioUnits = Array.from({ length: 43 }, (_, i) => audioUnit(i * 1024));
    const audioEndTicks = Math.round((43 * 1024 * 90_000) / 44_100);

    test('end with their sound where no picture came', () => {
      expect(durationTicks(tracks, audioUnits)).toBe(audioEndTicks);
    });

    test('end with their sound where the pictures stopped early', () => {
      const pictures = [videoUnit(0, true), videoUnit(3600)];
      expect(durationTicks(tracks, [...pictures, ...audioUnits])).toBe(audioEndTicks);
    });

    test('do not take a gap before the last unit of audio for its length', () => {
      const end = 44_100 + 1024;
      expect(durationTicks([audio], [audioUnit(0), audioUnit(44_100)])).toBe(
        Math.round((end * 90_000) / 44_100),
      );
    });

    test('do not take a gap of 2 s before the last picture for its length', () => {
      expect(durationTicks([video], [videoUnit(0, true), videoUnit(180_000)])).toBe(270_000);
    });
  });

  test('that no cue closes are given up, with a code', () => {
    const segmenter = new Segmenter({ partTargetMs: PART_TARGET_MS });
    const event = (ticks: number): StreamEvent => ({ type: 'unit', unit: videoUnit(ticks, true) });
    run([{ type: 'track', track: video }, { type: 'cue', cue: cueAt(0, 0) }, event(0)], segmenter);
    expect(run([event(128 * PART_TARGET_TICKS)], segmenter).parts).toHaveLength(128);
    expect(errorCodeOf(() => segmenter.push(event(128 * PART_TARGET_TICKS + 1)))).toBe(
      'HLS_SEGMENT_TOO_LONG',
    );
    // Units are dropped until the next cue, and from there on all is as ever.
    const startTicks = 200 * PART_TARGET_TICKS;
    const rest: StreamEvent[] = [
      event(startTicks - 1),
      { type: 'cue', cue: cueAt(1, startTicks) },
      event(startTicks),
      { type: 'cue', cue: cueAt(2, startTicks + 9000) },
    ];
    expect(run(rest, segmenter).segments.map((segment) => segment.durationTicks)).toEqual([9000]);
  });

  test('that outgrow the memory bound are given up, with a code', () => {
    const segmenter = new Segmenter({ partTargetMs: PART_TARGET_MS });
    run(
      [
        { type: 'track', track: video },
        { type: 'cue', cue: cueAt(0, 0) },
      ],
      segmenter,
    );
    const data = new Uint8Array(2 ** 20);
    let pushed = 0;
    const code = errorCodeOf(() => {
      for (; pushed < 100; pushed++) segmenter.push({ type: 'unit', unit: { ...videoUnit(pushed), data } });
    });
    expect([code, pushed]).toEqual(['HLS_SEGMENT_TOO_LONG', 63]);
  });
});

describe('init segments', () => {
  test('have the FNV-1a hash as a name', () => {
    // Test vectors of draft-eastlake-fnv, appendix C.
    const ascii = (text: string) => Uint8Array.from(text, (letter) => letter.charCodeAt(0));
    expect(initSegmentId(ascii(''))).toBe('cbf29ce484222325');
    expect(initSegmentId(ascii('a'))).toBe('af63dc4c8601ec8c');
    expect(initSegmentId(ascii('foobar'))).toBe('85944171f73967e8');
  });

  test('belong to the segment, video first', () => {
    const [segment] = run(streamEvents([audio, video], [videoUnit(0, true)], [0, 3600])).segments;
    expect(segment?.init.tracks).toEqual([video, audio]);
    expect(segment?.init.bytes).toEqual(initSegment([video, audio]));
    expect(segment?.init.id).toBe(initSegmentId(initSegment([video, audio])));
  });

  test('change with the cue before a new configuration', () => {
    const changed: VideoTrack = { ...video, config: Uint8Array.of(1, 0x64, 0, 0x28) };
    const change: StreamEvent = { type: 'track', track: changed };
    const events = streamEvents(
      [video],
      [0, 3600, 7200, 10_800, 14_400, 18_000].map((ticks) => videoUnit(ticks, ticks % 7200 === 0)),
      [0, 7200, 14_400, 21_600],
    );
    const secondCue = events.findIndex(
      (event) => event.type === 'cue' && event.cue.mediaSequenceNumber === 1,
    );
    const configs = (at: number) =>
      run(events.toSpliced(at, 0, change)).segments.map((segment) => segment.init.tracks[0]?.config[3]);
    expect(configs(secondCue - 1)).toEqual([0x1f, 0x28, 0x28]); // in the first segment: from the next cue on
    expect(configs(secondCue)).toEqual([0x1f, 0x28, 0x28]);
    expect(configs(secondCue + 1)).toEqual([0x1f, 0x28, 0x28]); // right after the cue
    expect(configs(secondCue + 2)).toEqual([0x1f, 0x1f, 0x28]); // after its first unit
  });

  test('are the same object while nothing changes', () => {
    const events = constantRateStream({ frameTicks: 3600, framesPerSegment: 50, segmentCount: 2 });
    const { segments } = run(events.toSpliced(10, 0, { type: 'track', track: { ...video } }));
    expect(segments[1]?.init).toBe(segments[0]?.init);
  });
});

describe('events out of order', () => {
  const events = constantRateStream({ frameTicks: 3600, framesPerSegment: 50, segmentCount: 3 });
  const complete = run(events).segments;

  const unitEvent = (unit: AccessUnit): StreamEvent => ({ type: 'unit', unit });
  const cueEvent = (mediaSequenceNumber: number, startTicks: number): StreamEvent => ({
    type: 'cue',
    cue: cueAt(mediaSequenceNumber, startTicks),
  });

  test.each([
    ['a frame again', unitEvent(videoUnit(180_000)), 'HLS_DTS_BACKWARDS'],
    ['an earlier frame', unitEvent(videoUnit(3600)), 'HLS_DTS_BACKWARDS'],
    ['earlier audio', unitEvent(audioUnit(1024)), 'HLS_DTS_BACKWARDS'],
    ['the same cue again', cueEvent(1, 180_000), 'HLS_CUE_BACKWARDS'],
    ['a later cue with an old number', cueEvent(1, 300_000), 'HLS_CUE_BACKWARDS'],
    ['the next cue with an old time', cueEvent(2, 180_000), 'HLS_CUE_BACKWARDS'],
  ])('%s is refused and changes nothing', (_, bad, code) => {
    const segmenter = new Segmenter({ partTargetMs: PART_TARGET_MS });
    const secondCue = events.findIndex(
      (event) => event.type === 'cue' && event.cue.mediaSequenceNumber === 1,
    );
    const middle = secondCue + 30;
    const made = events.slice(0, middle).flatMap((event) => segmenter.push(event));
    expect(errorCodeOf(() => segmenter.push(bad))).toBe(code);
    made.push(...events.slice(middle).flatMap((event) => segmenter.push(event)));
    expect(segmentsOf(made)).toEqual(complete);
  });

  test('a unit or a cue before the open part is refused and changes nothing', () => {
    const segmenter = new Segmenter({ partTargetMs: PART_TARGET_MS });
    const start: StreamEvent[] = [
      { type: 'track', track: video },
      { type: 'track', track: audio },
      cueEvent(0, 0),
      ...[0, 30_000, 60_000].map((ticks) => unitEvent(videoUnit(ticks, true))),
    ];
    expect(run(start, segmenter).parts.map((part) => part.durationTicks)).toEqual([30_000]);
    expect(errorCodeOf(() => segmenter.push(unitEvent(audioUnit(14_000))))).toBe('HLS_DTS_BACKWARDS');
    expect(errorCodeOf(() => segmenter.push(cueEvent(1, 29_999)))).toBe('HLS_CUE_BACKWARDS');
    const { segments } = run([unitEvent(audioUnit(14_700)), cueEvent(1, 90_000)], segmenter);
    expect(segments.map((segment) => parseFragment(bytesOf(segment), tracks).length)).toEqual([4]);
  });
});

describe('whatever the stream', () => {
  /** Any frame durations with some longer than the part target, audio with gaps, cues at any frames. */
  const streams = fc
    .record({
      startTicks: fc.integer({ min: 0, max: 3e13 }),
      frames: fc.array(
        fc.record({
          durationTicks: fc.oneof(
            { weight: 9, arbitrary: fc.integer({ min: 1, max: 9000 }) },
            { weight: 1, arbitrary: fc.integer({ min: 9000, max: 200_000 }) },
          ),
          isRandomAccess: fc.boolean(),
          opensSegment: fc.integer({ min: 0, max: 9 }).map((n) => n === 0),
        }),
        { minLength: 20, maxLength: 120 },
      ),
      audioGaps: fc.array(fc.integer({ min: 0, max: 30 }), { maxLength: 400 }),
      sampleRateHz: fc.constantFrom(44_100, 48_000, 22_050),
      earlyAudioTicks: fc.integer({ min: 0, max: 90_000 }),
    })
    .map(({ startTicks, frames, audioGaps, sampleRateHz, earlyAudioTicks }) => {
      const units: AccessUnit[] = [];
      const starts = [startTicks];
      let ticks = startTicks;
      for (const { durationTicks, isRandomAccess, opensSegment } of frames) {
        if (opensSegment && ticks > startTicks) starts.push(ticks);
        units.push(videoUnit(ticks, isRandomAccess));
        ticks += durationTicks;
      }
      starts.push(ticks);
      let samples = Math.ceil((startTicks / 90_000) * sampleRateHz) - 3000;
      for (const gap of audioGaps) {
        if (samples >= 0) units.push(audioUnit(samples));
        samples += gap > 25 ? 1024 * gap : 1024;
      }
      const ownTracks: Track[] = [video, { ...audio, sampleRateHz }];
      return { ownTracks, units, starts, earlyAudioTicks, events: streamEvents(ownTracks, units, starts) };
    });

  test('who joins at any cue makes the same segments from there on', () => {
    fc.assert(
      fc.property(streams, ({ ownTracks, events }) => {
        const all = run(events);
        events.forEach((event, index) => {
          if (event.type !== 'cue') return;
          const joiner = run([
            ...ownTracks.map((track): StreamEvent => ({ type: 'track', track })),
            ...events.slice(index),
          ]);
          const number = event.cue.mediaSequenceNumber;
          expect(joiner.segments).toEqual(all.segments.slice(number));
          expect(joiner.parts).toEqual(all.parts.filter((part) => part.mediaSequenceNumber >= number));
        });
      }),
      { numRuns: 50 },
    );
  });

  test('no part lasts longer than the target, and together they are the segment', () => {
    fc.assert(
      fc.property(streams, ({ starts, events }) => {
        const { segments, parts } = run(events);
        expect(segments.map((segment) => segment.cue.startTicks)).toEqual(starts.slice(0, -1));
        expect(segments.flatMap((segment) => segment.parts)).toEqual(parts);
        segments.forEach((segment, index) => {
          expect(segment.durationTicks).toBe((starts[index + 1] ?? 0) - segment.cue.startTicks);
          let ticks = 0;
          for (const part of segment.parts) {
            expect(part.durationTicks).toBeGreaterThan(0);
            expect(part.durationTicks).toBeLessThanOrEqual(PART_TARGET_TICKS);
            ticks += part.durationTicks;
          }
          expect(ticks).toBe(segment.durationTicks);
        });
      }),
    );
  });

  test('every unit from the first cue to the last is in the part of its time, once', () => {
    fc.assert(
      fc.property(streams, ({ ownTracks, units, starts, events }) => {
        const { segments } = run(events);
        const sampleRateHz = ownTracks[1]?.kind === 'audio' ? ownTracks[1].sampleRateHz : 1;
        const timeOf = (unit: AccessUnit) =>
          BigInt(unit.dtsTicks) * (unit.kind === 'video' ? BigInt(sampleRateHz) : 90_000n);
        const timeAt = (ticks: number) => BigInt(ticks) * BigInt(sampleRateHz);
        const read: AccessUnit[] = [];
        for (const segment of segments) {
          let startTicks = segment.cue.startTicks;
          for (const part of segment.parts) {
            const endTicks = startTicks + part.durationTicks;
            for (const unit of parseFragment(part.bytes, ownTracks)) {
              expect(timeOf(unit) >= timeAt(startTicks) && timeOf(unit) < timeAt(endTicks)).toBe(true);
              read.push(unit);
            }
            startTicks = endTicks;
          }
        }
        const [from = 0, to = 0] = [starts[0], starts.at(-1)];
        for (const kind of ['video', 'audio'] as const) {
          expect(read.filter((unit) => unit.kind === kind)).toEqual(
            units.filter(
              (unit) => unit.kind === kind && timeOf(unit) >= timeAt(from) && timeOf(unit) < timeAt(to),
            ),
          );
        }
      }),
    );
  });

  test('audio that runs ahead of the video changes nothing', () => {
    fc.assert(
      fc.property(streams, ({ ownTracks, units, starts, earlyAudioTicks, events }) => {
        // The order of events if the audio were early, with the times as they are. What would then
        // come before the first cue is left out on both sides.
        const sampleRateHz = ownTracks[1]?.kind === 'audio' ? ownTracks[1].sampleRateHz : 1;
        const earlySamples = Math.floor((earlyAudioTicks / 90_000) * sampleRateHz);
        const firstSample = Math.ceil((((starts[0] ?? 0) + earlyAudioTicks) / 90_000) * sampleRateHz) + 1024;
        const isKept = (unit: AccessUnit) => unit.kind === 'video' || unit.dtsTicks >= firstSample;
        const early = streamEvents(
          ownTracks,
          units
            .filter(isKept)
            .map((unit) =>
              unit.kind === 'audio' ? { ...unit, dtsTicks: unit.dtsTicks - earlySamples } : unit,
            ),
          starts,
        ).map(
          (event): StreamEvent =>
            event.type === 'unit' && event.unit.kind === 'audio'
              ? { type: 'unit', unit: { ...event.unit, dtsTicks: event.unit.dtsTicks + earlySamples } }
              : event,
        );
        const inOrder = events.filter((event) => event.type !== 'unit' || isKept(event.unit));
        expect(run(early).segments).toEqual(run(inOrder).segments);
      }),
    );
  });
});
