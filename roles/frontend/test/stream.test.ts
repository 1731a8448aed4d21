import type { StreamEvent, Track } from '@starling/media/access-unit';
import { concatBytes } from '@starling/media/bytes';
import { FlvDemuxer } from '@starling/media/flv/demux';
import { LinkMuxer } from '@starling/media/flv/mux';
import fc from 'fast-check';
import { pino } from 'pino';
import { describe, expect, it } from 'vitest';
import { Stream } from '../src/stream.ts';
import {
  audioTrack,
  head,
  ladder,
  ladderHead,
  ladderSegment,
  segment,
  videoTrack,
} from './synthetic-channel.ts';

function newStream() {
  const stream = new Stream({
    channel: 'test',
    partTargetMs: 500,
    windowDurationMs: 60_000,
    logger: pino({ level: 'silent' }),
  });
  const seen: StreamEvent[] = [];
  stream.listen({ event: (event) => seen.push(event), reset: () => seen.splice(0) });
  const publisher = () => {
    const { event, end } = stream.addPublisher();
    const push = (events: readonly StreamEvent[]) => {
      for (const one of events) event(one, 1);
    };
    return { end, push };
  };
  return { stream, seen, publisher };
}

const main = (stream: Stream) => stream.rendition('main')?.window;
const listed = (stream: Stream) => main(stream)?.segments.map((one) => one.cue.mediaSequenceNumber);

const segmentBytes = (stream: Stream, number: number) =>
  Buffer.concat(
    main(stream)
      ?.segment(number)
      ?.parts.map((part) => part.bytes) ?? [],
  );

describe('a stream with several publishers', () => {
  it('passes each unit on once, in order, whichever publisher brings it first', () => {
    const { stream, seen, publisher } = newStream();
    const [a, b] = [publisher(), publisher()];
    a.push(head);
    b.push(head);
    const events = [5, 6, 7].flatMap((number) => segment(number));
    // The two run in turns, each now ahead, now behind.
    let [atA, atB] = [0, 0];
    for (let turn = 0; atA < events.length || atB < events.length; turn++) {
      const step = 1 + ((turn * 7) % 13);
      if (turn % 3 === 0) {
        a.push(events.slice(atA, atA + step));
        atA += step;
      } else {
        b.push(events.slice(atB, atB + step));
        atB += step;
      }
    }
    expect(seen.filter((event) => event.type === 'unit')).toEqual(
      events.filter((event) => event.type === 'unit'),
    );
    expect(seen.filter((event) => event.type === 'cue')).toHaveLength(3);
    expect(listed(stream)).toEqual([5, 6]);
  });

  it('loses no unit when the one that leads is cut off in mid-segment', () => {
    const { stream, publisher } = newStream();
    const [a, b] = [publisher(), publisher()];
    a.push(head);
    b.push(head);
    a.push(segment(5).slice(0, 40));
    b.push(segment(5).slice(0, 30));
    a.end();
    b.push(segment(5).slice(30));
    b.push(segment(6));
    const alone = newStream();
    const only = alone.publisher();
    only.push([...head, ...segment(5), ...segment(6)]);
    expect(segmentBytes(stream, 5)).toEqual(segmentBytes(alone.stream, 5));
  });

  it('completes the open segment from the backlog of a publisher that comes back', () => {
    const { stream, publisher } = newStream();
    const a = publisher();
    a.push([...head, ...segment(4), ...segment(5).slice(0, 40)]);
    a.end();
    publisher().push([...head, ...segment(4), ...segment(5), ...segment(6)]);
    expect(listed(stream)).toEqual([4, 5]);
  });

  it('never lists a segment whose end nobody brought', () => {
    const { stream, publisher } = newStream();
    const a = publisher();
    a.push([...head, ...segment(4), ...segment(5).slice(0, 40)]);
    a.end();
    publisher().push([...head, ...segment(6), ...segment(7)]);
    expect(main(stream)?.segment(5)).toBeUndefined();
    expect(listed(stream)).toEqual([6]);
  });

  it('ignores units before the first cue of a publisher', () => {
    const { stream, seen, publisher } = newStream();
    publisher().push([...head, ...segment(5).slice(20), ...segment(6), ...segment(7).slice(0, 1)]);
    expect(seen.filter((event) => event.type === 'unit')).toHaveLength(segment(6).length - 1);
    expect(listed(stream)).toEqual([6]);
  });

  it('starts afresh when the channel was created anew', () => {
    const { stream, publisher } = newStream();
    const a = publisher();
    a.push([...head, ...segment(500), ...segment(501)]);
    publisher().push([
      { type: 'timeline', epochUnixMs: 1_800_000_000_000 },
      ...head.slice(1),
      ...segment(3),
      ...segment(4),
    ]);
    expect(listed(stream)).toEqual([3]);
  });
});

describe('a stream with several tracks', () => {
  it('keeps the first copy of each unit of each track', () => {
    const { stream, seen, publisher } = newStream();
    const [a, b] = [publisher(), publisher()];
    a.push(ladderHead);
    b.push(ladderHead);
    for (const event of [...ladderSegment(5), ...ladderSegment(6)]) {
      a.push([event]);
      b.push([event]);
    }
    expect(seen.filter((event) => event.type === 'unit')).toEqual(
      [...ladderSegment(5), ...ladderSegment(6)].filter((event) => event.type === 'unit'),
    );
    expect(stream.renditions.map(({ name }) => name)).toEqual(['video-0', 'video-1', 'audio-0', 'audio-4']);
    expect(stream.tracks).toEqual(ladder);
  });

  it('takes no unit of a publisher whose tracks are others, in mid-segment', () => {
    const { stream, publisher } = newStream();
    const [a, b] = [publisher(), publisher()];
    a.push([...ladderHead, ...ladderSegment(5).slice(0, 40)]);
    b.push([...head, ...segment(5)]);
    a.push([...ladderSegment(5).slice(40), ...ladderSegment(6)]);
    expect(stream.renditions).toHaveLength(4);
    const alone = newStream();
    alone.publisher().push([...ladderHead, ...ladderSegment(5), ...ladderSegment(6)]);
    const bytes = (one: Stream, name: string) => one.rendition(name)?.window.segment(5);
    for (const { name } of stream.renditions) expect(bytes(stream, name)).toEqual(bytes(alone.stream, name));
  });

  it('tells what each rendition has made, each once', () => {
    const { stream, publisher } = newStream();
    const made: string[] = [];
    stream.listen({
      made: (rendition, event) => {
        if (event.type === 'segment') made.push(`${rendition}/${event.segment.cue.mediaSequenceNumber}`);
      },
      reset: () => made.push('reset'),
    });
    publisher().push([...ladderHead, ...ladderSegment(5), ...ladderSegment(6)]);
    expect(made).toEqual(['video-0/5', 'video-1/5', 'audio-0/5', 'audio-4/5']);
    publisher().push([{ type: 'timeline', epochUnixMs: 0 }]);
    expect(made.at(-1)).toBe('reset');
    expect(stream.renditions).toEqual([]);
  });

  it('goes on where the sample rate falls at a discontinuity, and the ticks with it', () => {
    const { stream, seen, publisher } = newStream();
    const a = publisher();
    a.push([...head, ...segment(500)]);
    const slow: Track = { ...audioTrack, config: Uint8Array.of(0x12, 0x10), sampleRateHz: 44_100 };
    const [cue, ...units] = segment(501);
    if (cue?.type !== 'cue') throw new Error('a segment begins with its cue');
    a.push([
      { type: 'cue', cue: { ...cue.cue, discontinuitySequence: 1 } },
      { type: 'track', track: videoTrack },
      { type: 'track', track: slow },
      ...units.map((event): StreamEvent => {
        if (event.type !== 'unit' || event.unit.kind === 'video') return event;
        const dtsTicks = Math.round((event.unit.dtsTicks * 44_100) / 48_000);
        return { type: 'unit', unit: { ...event.unit, dtsTicks, ptsTicks: dtsTicks } };
      }),
    ]);
    expect(seen.filter((event) => event.type === 'unit')).toHaveLength(
      [...segment(500), ...units].filter((event) => event.type === 'unit').length,
    );
    expect(stream.tracks).toEqual([videoTrack, slow]);
  });

  it('makes the same segments on every frontend, whoever brings what, and whenever', () => {
    /** Long after the start, where the link's timestamps wrap at 2^32 ms. */
    const FIRST = Math.floor(2 ** 32 / 2000) - 3;
    const COUNT = 8;
    const segments = fc.record({
      /** Of the ladder: which tracks there are. */
      tracks: fc.subarray([...ladder], { minLength: 1 }),
      /** Units left out, here and there, on every link: a source that skips. */
      skips: fc.array(fc.nat(2000), { maxLength: 30 }),
      /** Each publisher: the segment that it starts at, and how many messages it brings before it is cut off. */
      publishers: fc.array(
        fc.record({ first: fc.nat(COUNT - 1), length: fc.integer({ min: 1, max: 3000 }) }),
        { minLength: 1, maxLength: 3 },
      ),
      /** Who goes on, and how far, turn by turn. */
      turns: fc.array(fc.tuple(fc.nat(3), fc.integer({ min: 1, max: 300 })), { maxLength: 40 }),
    });
    fc.assert(
      fc.property(segments, ({ tracks, skips, publishers, turns }) => {
        const skipped = new Set(skips);
        const media = Array.from({ length: COUNT }, (_, i) => ladderSegment(FIRST + i, tracks))
          .flat()
          .filter((event, i) => event.type === 'cue' || !skipped.has(i));
        const trackEvents = tracks.map((track): StreamEvent => ({ type: 'track', track }));
        const opening: StreamEvent[] = [{ type: 'timeline', epochUnixMs: 0 }, ...trackEvents];
        const madeBy = (links: readonly StreamEvent[][], order: readonly (readonly [number, number])[]) => {
          const { stream, publisher } = newStream();
          const made = new Map<string, string>();
          stream.listen({
            made: (rendition, event) => {
              const { cue, init } = event.type === 'part' ? event : event.segment;
              const parts = event.type === 'part' ? [event.part] : event.segment.parts;
              const index = event.type === 'part' ? event.part.index : 'whole';
              const bytes = concatBytes([init.bytes, ...parts.map((part) => part.bytes)]);
              const text = `${Buffer.from(bytes).toString('base64')} ${JSON.stringify(cue)}`;
              made.set(`${rendition}/${cue.mediaSequenceNumber}.${index}`, text);
            },
            reset: () => made.clear(),
          });
          const receivers = links.map((events) => {
            const muxer = new LinkMuxer();
            const demuxer = new FlvDemuxer();
            const messages = events.flatMap((event) => muxer.encode(event));
            const { push } = publisher();
            let at = 0;
            return (count: number) => {
              for (const message of messages.slice(at, at + count)) push(demuxer.push(message));
              at += count;
            };
          });
          for (const [which, count] of order) receivers[which % receivers.length]?.(count);
          for (const receive of receivers) receive(Number.POSITIVE_INFINITY);
          return made;
        };
        const reference = madeBy([[...opening, ...media]], []);
        const cueAt = media.flatMap((event, i) => (event.type === 'cue' ? [i] : []));
        const links = publishers.map(({ first, length }) => [
          ...opening,
          ...media.slice(cueAt[first], (cueAt[first] ?? 0) + length),
        ]);
        for (const [name, text] of madeBy(links, turns)) expect(reference.get(name), name).toBe(text);
        // One that brings all of it makes sure that nothing is missing.
        const whole = madeBy([[...opening, ...media], ...links.slice(1)], []);
        expect([...whole.keys()].sort()).toEqual([...reference.keys()].sort());
      }),
      { numRuns: 40 },
    );
  }, 60_000);
});
