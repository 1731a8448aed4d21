import { expect, test } from 'vitest';
import { actionForKey, type KeyFocus, type KeyPress, keyName } from './keyboard.ts';

const nowhere: KeyFocus = { takesText: false, takesSpace: false, takesArrows: false };
const press = (key: string, more: Partial<KeyPress> = {}): KeyPress => ({
  key,
  ctrlKey: false,
  altKey: false,
  metaKey: false,
  repeat: false,
  ...more,
});

test.each([
  [' ', 'toggle-play'],
  ['k', 'toggle-play'],
  ['K', 'toggle-play'],
  ['m', 'toggle-mute'],
  ['f', 'toggle-fullscreen'],
  ['p', 'toggle-picture-in-picture'],
  ['i', 'toggle-stats'],
  ['l', 'go-live'],
  ['End', 'go-live'],
  ['ArrowUp', 'volume-up'],
  ['ArrowDown', 'volume-down'],
  ['ArrowLeft', 'seek-back'],
  ['ArrowRight', 'seek-forward'],
  ['s', 'start-over'],
  ['?', 'toggle-help'],
  ['x', undefined],
  ['Enter', undefined],
])('"%s" means %s', (key, action) => {
  expect(actionForKey(press(key), nowhere)).toBe(action);
});

test('shortcuts of the browser stay the browser’s', () => {
  expect(actionForKey(press('l', { ctrlKey: true }), nowhere)).toBeUndefined();
  expect(actionForKey(press('p', { metaKey: true }), nowhere)).toBeUndefined();
  expect(actionForKey(press('f', { altKey: true }), nowhere)).toBeUndefined();
});

test('a focused element keeps the keys that it uses itself', () => {
  const button = { ...nowhere, takesSpace: true };
  const slider = { ...nowhere, takesArrows: true };
  const field = { ...nowhere, takesText: true };
  expect(actionForKey(press(' '), button)).toBeUndefined();
  expect(actionForKey(press('k'), button)).toBe('toggle-play');
  expect(actionForKey(press('ArrowUp'), slider)).toBeUndefined();
  expect(actionForKey(press('End'), slider)).toBeUndefined();
  expect(actionForKey(press('m'), slider)).toBe('toggle-mute');
  expect(actionForKey(press('k'), field)).toBeUndefined();
});

test('a key held down only changes the volume or the time again', () => {
  expect(actionForKey(press('k', { repeat: true }), nowhere)).toBeUndefined();
  expect(actionForKey(press('ArrowUp', { repeat: true }), nowhere)).toBe('volume-up');
  expect(actionForKey(press('ArrowLeft', { repeat: true }), nowhere)).toBe('seek-back');
});

test('keys are written as on a keyboard', () => {
  expect([' ', 'k', 'ArrowUp', 'End', '?'].map(keyName)).toEqual(['Space', 'K', '↑', 'End', '?']);
});
