import type { StreamEvent } from '@starling/media/access-unit';
import { pino } from 'pino';
import { describe, expect, it } from 'vitest';
import { Stream } from '../src/stream.ts';
import { head, segment } from './synthetic-channel.ts';

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
