import { expect, it } from 'vitest';
import { mergeViewers } from '../src/merge-viewers.ts';
import type { Viewer } from '../src/viewers.ts';

function viewer(id: string, startedAtUnixMs: number, sentBytes: number): Viewer {
  return {
    ...{ id, channel: 'demo', protocol: 'hls', address: '192.0.2.1', userAgent: 'player/1' },
    ...{ startedAtUnixMs, sentBytes },
  };
}

it('counts who is on several frontends once, there since it first came, with all its bytes', () => {
  const lists = [
    [viewer('both', 2000, 10), viewer('only-here', 3000, 1)],
    [viewer('only-there', 1000, 5), viewer('both', 1500, 20)],
    [],
  ];
  const before = structuredClone(lists);
  expect(mergeViewers(lists)).toEqual([
    viewer('only-there', 1000, 5),
    viewer('both', 1500, 30),
    viewer('only-here', 3000, 1),
  ]);
  expect(lists).toEqual(before);
});
