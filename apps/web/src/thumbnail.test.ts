import { expect, test } from 'vitest';
import { thumbnailUrl } from './thumbnail.tsx';

test('viewers share an address for ten seconds', () => {
  const atMs = 1_800_000_000_000;
  expect(thumbnailUrl('demo', undefined, atMs)).toBe('/live/demo/thumbnail.jpg?at=180000000');
  expect(thumbnailUrl('demo', undefined, atMs + 9_999)).toBe(thumbnailUrl('demo', undefined, atMs));
  expect(thumbnailUrl('demo', undefined, atMs + 10_000)).not.toBe(thumbnailUrl('demo', undefined, atMs));
  expect(thumbnailUrl('demo', 'a.b.c', atMs)).toBe('/live/demo/thumbnail.jpg?token=a.b.c&at=180000000');
});
