import { expect, test } from 'vitest';
import { monogram } from './poster.tsx';

test.each([
  ['Demo', 'DE'],
  ['Late Cinema', 'LC'],
  ['music-box', 'MB'],
  ['Übersee und mehr', 'ÜU'],
  ['7', '7'],
  ['', ''],
])('the monogram of "%s" is "%s"', (title, letters) => {
  expect(monogram(title)).toBe(letters);
});
