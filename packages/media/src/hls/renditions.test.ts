import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { streamEvents } from '../../test/stream.ts';
import type { AccessUnit, AudioTrack, Cue, StreamEvent, Track, VideoTrack } from '../access-unit.ts';
import { timescaleHz, trackIndex } from '../access-unit.ts';
import { concatBytes } from '../bytes.ts';
import { parseFragment } from '../fmp4/fragment.ts';
import { type RenditionEvent, Renditions, renditionLayout } from './renditions.ts';
import { type Segment, Segmenter } from './segmenter.ts';

const OPTIONS = { partTargetMs: 500, windowDurationMs: 20_000, minSegments: 3 };

function videoTrack(trackId: number): VideoTrack {
  return {
    kind: 'video',
    trackId,
    codec: 'avc',
    config: Uint8Array.of(1, 0x64, 0, 0x1f, trackId),
    codecString: 'avc1.64001f',
    widthPx: 1280,
    heightPx: 720,
    frameDurationTicks: undefined,
  };
}

function audioTrack(trackId: number, sampleRateHz = 48_000): AudioTrack {
  return {
    kind: 'audio',
    trackId,
    language: undefined,
    codec: 'aac',
    config: Uint8Array.of(0x12, 0x10),
    codecString: 'mp4a.40.2',
    sampleRateHz,
    channelCount: 2,
  };
}

/** A unit with bytes of its own. */
function unitOf(track: Track, dtsTicks: number, isRandomAccess: boolean): AccessUnit {
  const { kind, trackId } = track;
  const data = new TextEncoder().encode(`${kind}-${trackId}@${dtsTicks}`);
  return { kind, trackId, dtsTicks, ptsTicks: dtsTicks, isRandomAccess, data };
}

/** Units of `seconds`, with a key frame at each whole second. */
function unitsOf(track: Track, fromSeconds: number, toSeconds: number): AccessUnit[] {
  const step = track.kind === 'video' ? 3600 : 1024;
  const hz = timescaleHz(track);
  const units: AccessUnit[] = [];
  for (let n = Math.ceil((fromSeconds * hz) / step); n * step < toSeconds * hz; n++) {
    units.push(unitOf(track, n * step, track.kind === 'audio' || n % 25 === 0));
  }
  return units;
}

const ladder: Track[] = [videoTrack(0), videoTrack(1), videoTrack(7), audioTrack(0), audioTrack(3, 44_100)];

function eventsOf(tracks: readonly Track[], segmentCount: number): StreamEvent[] {
  const starts = Array.from({ length: segmentCount }, (_, i) => i * 180_000);
  return streamEvents(
    tracks,
    tracks.flatMap((track) => unitsOf(track, 0, 2 * (segmentCount - 1) + 0.1)),
    starts,
  );
}

function run(events: readonly StreamEvent[], renditions = new Renditions(OPTIONS)): RenditionEvent[] {
  return events.flatMap((event) => renditions.push(event));
}

/** By rendition and number. */
function segmentsOf(made: readonly RenditionEvent[]): Map<string, Segment> {
  return new Map(
    made.flatMap(({ rendition, event }) =>
      event.type === 'segment'
        ? [[`${rendition}/${event.segment.cue.mediaSequenceNumber}`, event.segment]]
        : [],
    ),
  );
}

const bytesOf = ({ parts, init }: Segment) =>
  Buffer.from(concatBytes([init.bytes, ...parts.map((part) => part.bytes)]));

describe('the layout', () => {
  const names = (tracks: readonly Track[]) => renditionLayout(tracks).map(({ name }) => name);

  test('is one rendition where there is nothing to choose', () => {
    expect(renditionLayout([audioTrack(0), videoTrack(0)])).toEqual([
      { name: 'main', tracks: [videoTrack(0), audioTrack(0)] },
    ]);
    expect(names([videoTrack(0)])).toEqual(['main']);
    expect(names([audioTrack(0)])).toEqual(['main']);
    expect(names([])).toEqual([]);
  });

  test('is one for each track otherwise', () => {
    expect(names([...ladder].reverse())).toEqual(['video-0', 'video-1', 'video-7', 'audio-0', 'audio-3']);
    expect(names([videoTrack(0), audioTrack(0), audioTrack(1)])).toEqual(['video-0', 'audio-0', 'audio-1']);
    expect(names([videoTrack(0), videoTrack(1)])).toEqual(['video-0', 'video-1']);
    expect(names([audioTrack(0), audioTrack(1)])).toEqual(['audio-0', 'audio-1']);
  });
});

describe('renditions', () => {
  test('have the same numbers, starts and lengths, and each its own units, all of them', () => {
    const renditions = new Renditions(OPTIONS);
    const events = eventsOf(ladder, 4);
    const segments = segmentsOf(run(events, renditions));
    expect(renditions.isPlayable).toBe(true);
    for (const track of ladder) {
      const name = `${track.kind}-${track.trackId}`;
      const own = [0, 1, 2].map((number) => segments.get(`${name}/${number}`));
      expect(own.map((one) => [one?.cue.startTicks, one?.durationTicks])).toEqual([
        [0, 180_000],
        [180_000, 180_000],
        [360_000, 180_000],
      ]);
      expect(own.map((one) => one?.parts.map((part) => part.durationTicks))).toEqual(
        Array(3).fill(
          track.kind === 'audio' ? Array(4).fill(45_000) : [43_200, 43_200, 43_200, 43_200, 7200],
        ),
      );
      const read = own.flatMap(
        (one) => one?.parts.flatMap((part) => parseFragment(part.bytes, [track])) ?? [],
      );
      expect(read).toEqual(unitsOf(track, 0, 6));
    }
    expect(segments.size).toBe(15);
  });

  test('that are one have the very bytes of a segmenter', () => {
    const events = eventsOf([videoTrack(0), audioTrack(0)], 4);
    const segmenter = new Segmenter(OPTIONS);
    const expected = events.flatMap((event) => segmenter.push(event));
    expect(run(events)).toEqual(expected.map((event) => ({ rendition: 'main', event })));
  });

  test('are playable when each has a segment', () => {
    const renditions = new Renditions(OPTIONS);
    expect(renditions.isPlayable).toBe(false);
    const events = eventsOf(ladder, 2);
    const secondCue = events.findLastIndex((event) => event.type === 'cue');
    run(events.slice(0, secondCue), renditions);
    expect([renditions.onAir.length, renditions.isPlayable]).toEqual([5, false]);
    run(events.slice(secondCue), renditions);
    expect(renditions.isPlayable).toBe(true);
    expect(renditions.sizeBytes).toBe(
      renditions.onAir.reduce((sum, { window }) => sum + window.sizeBytes, 0),
    );
  });

  test('whose segment is given up lack it, all of them', () => {
    const renditions = new Renditions(OPTIONS);
    const events = eventsOf(ladder, 5);
    const cues = events.flatMap((event, at) => (event.type === 'cue' ? [at] : []));
    const made = run(events.slice(0, cues[2]), renditions);
    renditions.dropOpenSegment();
    made.push(...run(events.slice(cues[2]), renditions));
    const numbers = [...segmentsOf(made).keys()].filter((name) => name.startsWith('audio-3/'));
    expect(numbers).toEqual(['audio-3/0', 'audio-3/2', 'audio-3/3']);
    expect(segmentsOf(made).size).toBe(15);
  });
});

describe('where the tracks change', () => {
  /** Segments 0 to 2 with some tracks, from 3 on with others. */
  function changed(before: readonly Track[], after: readonly Track[], lastNumber: number): StreamEvent[] {
    const cueOf = (number: number, discontinuitySequence: number): StreamEvent => {
      const cue: Cue = {
        mediaSequenceNumber: number,
        discontinuitySequence,
        startTicks: number * 180_000,
        programDateTimeUnixMs: number * 2000,
        programmeId: 'p',
        targetDurationMs: 2000,
        isIndependent: true,
      };
      return { type: 'cue', cue };
    };
    const announced = (tracks: readonly Track[]) =>
      tracks.map((track): StreamEvent => ({ type: 'track', track }));
    const unitEvents = (tracks: readonly Track[], number: number) =>
      tracks
        .flatMap((track) =>
          unitsOf(track, 2 * number, 2 * number + 2).map((unit) => ({ unit, hz: timescaleHz(track) })),
        )
        .sort(
          (a, b) =>
            a.unit.dtsTicks / a.hz - b.unit.dtsTicks / b.hz || trackIndex(a.unit) - trackIndex(b.unit),
        )
        .map(({ unit }): StreamEvent => ({ type: 'unit', unit }));
    const events: StreamEvent[] = [...announced(before)];
    for (let number = 0; number <= lastNumber; number++) {
      events.push(cueOf(number, number < 3 ? 0 : 1));
      if (number === 3) events.push(...announced(after));
      events.push(...unitEvents(number < 3 ? before : after, number));
    }
    return events;
  }

  test('new renditions start, and those that are gone have ended', () => {
    const renditions = new Renditions(OPTIONS);
    const single = [videoTrack(0), audioTrack(0)];
    const made = run(changed(single, ladder, 5), renditions);
    expect(renditions.onAir.map(({ name }) => name)).toEqual([
      'video-0',
      'video-1',
      'video-7',
      'audio-0',
      'audio-3',
    ]);
    const main = renditions.find('main');
    expect(main?.isEnded).toBe(true);
    expect(main?.window.segments.map(({ cue }) => cue.mediaSequenceNumber)).toEqual([0, 1, 2]);
    for (const { isEnded, window } of renditions.onAir) {
      expect(isEnded).toBe(false);
      expect(window.segments.map(({ cue }) => cue.mediaSequenceNumber)).toEqual([3, 4]);
      expect(window.discontinuitySequence).toBe(1);
    }
    expect(segmentsOf(made).size).toBe(3 + 2 * 5);
  });

  test('a rendition that stays goes on, with a discontinuity', () => {
    const renditions = new Renditions(OPTIONS);
    run(changed(ladder, ladder.slice(0, 4), 5), renditions);
    const stays = renditions.find('video-1');
    expect(stays?.window.segments.map(({ cue }) => cue.mediaSequenceNumber)).toEqual([0, 1, 2, 3, 4]);
    expect(renditions.find('audio-3')?.isEnded).toBe(true);
  });

  test('what has ended is forgotten after two lengths of the window', () => {
    const renditions = new Renditions(OPTIONS);
    const events = changed([videoTrack(0), audioTrack(0)], ladder, 24);
    const late = events.findIndex((event) => event.type === 'cue' && event.cue.mediaSequenceNumber === 24);
    run(events.slice(0, late), renditions); // to 46 s; main ended at 6 s
    expect(renditions.find('main')).toBeDefined();
    run(events.slice(late), renditions);
    expect(renditions.find('main')).toBeUndefined();
  });
});

test('whoever joins at any cue makes the same segments, whatever the tracks and units', () => {
  const trackArbitrary = fc
    .uniqueArray(fc.integer({ min: 0, max: 20 }), { minLength: 1, maxLength: 6 })
    .map((ids) =>
      ids.map((id) => (id % 3 === 2 ? audioTrack(id, id % 2 === 0 ? 48_000 : 44_100) : videoTrack(id))),
    );
  const scenario = trackArbitrary.chain((tracks) =>
    fc.record({
      tracks: fc.constant(tracks),
      // Distances of units in milliseconds, for each track.
      gapsMs: fc.tuple(...tracks.map(() => fc.array(fc.integer({ min: 1, max: 900 }), { maxLength: 40 }))),
      segmentsMs: fc.array(fc.integer({ min: 200, max: 3000 }), { minLength: 2, maxLength: 8 }),
      startMs: fc.constantFrom(0, 2 ** 31 - 3000, 2 ** 32 - 3000),
      joinAt: fc.nat(7),
    }),
  );
  fc.assert(
    fc.property(scenario, ({ tracks, gapsMs, segmentsMs, startMs, joinAt }) => {
      const units = tracks.flatMap((track, i) => {
        let ms = startMs;
        return (gapsMs[i] ?? []).map((gapMs) => {
          ms += gapMs;
          return unitOf(track, Math.floor((ms * timescaleHz(track)) / 1000), gapMs % 2 === 0);
        });
      });
      const starts = segmentsMs.map(
        (_, i) => (startMs + segmentsMs.slice(0, i).reduce((a, b) => a + b, 0)) * 90,
      );
      const events = streamEvents(tracks, units, starts);
      const cues = events.flatMap((event, at) => (event.type === 'cue' ? [at] : []));
      const first = cues[joinAt % cues.length] ?? 0;
      const whole = segmentsOf(run(events));
      const head = tracks.map((track): StreamEvent => ({ type: 'track', track }));
      const joined = segmentsOf(run([...head, ...events.slice(first)]));
      for (const [name, segment] of joined) {
        const known = whole.get(name);
        expect(known === undefined ? undefined : bytesOf(known)).toEqual(bytesOf(segment));
        expect(segment.cue).toEqual(known?.cue);
      }
      // Renditions start and end their segments together.
      for (const [name, { cue, durationTicks }] of whole) {
        const others = [...whole].filter(([other]) => other.split('/')[1] === name.split('/')[1]);
        for (const [, other] of others) {
          expect([other.cue.startTicks, other.durationTicks]).toEqual([cue.startTicks, durationTicks]);
        }
      }
    }),
    { numRuns: 150 },
  );
});
