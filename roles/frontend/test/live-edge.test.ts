import { LiveWindow } from '@starling/media/hls/live-window';
import { pino } from 'pino';
import { expect, it } from 'vitest';
import { behindLiveEdgeMs } from '../src/live-edge.ts';
import { Stream } from '../src/stream.ts';
import { head, segment } from './synthetic-channel.ts';

it('says how far what a player asks for is behind the newest part', () => {
  const logger = pino({ level: 'silent' });
  const stream = new Stream({ channel: 'c', partTargetMs: 400, windowDurationMs: 30_000, logger });
  const empty = new LiveWindow({ windowDurationMs: 30_000, minSegments: 4 });
  expect(behindLiveEdgeMs(empty, 1, 0)).toBeUndefined();
  const publisher = stream.addPublisher();
  // Segments of 2 s; of the third the first 30 of 50 pictures: parts of 10, the third of which is not over yet.
  const pictures = (count: number) => {
    let seen = 0;
    return segment(12).filter(({ type, ...rest }) => {
      if (type !== 'unit' || !('unit' in rest) || rest.unit.kind !== 'video') return seen <= count;
      return ++seen <= count;
    });
  };
  for (const event of [...head, ...segment(10), ...segment(11), ...pictures(30)]) publisher.event(event, 1);
  const window = stream.rendition('main')?.window ?? empty;
  const { openSegment } = window;
  expect(openSegment?.parts).toHaveLength(2);
  expect(behindLiveEdgeMs(window, 12, 2)).toBe(0);
  expect(behindLiveEdgeMs(window, 12, 1)).toBe(400);
  expect(behindLiveEdgeMs(window, 12, undefined)).toBe(800);
  expect(behindLiveEdgeMs(window, 11, 4)).toBe(1200);
  expect(behindLiveEdgeMs(window, 10, 0)).toBe(4800);
  expect(behindLiveEdgeMs(window, 13, 0)).toBe(0);
  expect(behindLiveEdgeMs(window, 3, 0)).toBeUndefined();
});
