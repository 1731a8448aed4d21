/** The keys of the watch page. */

export type PlayerAction =
  | 'toggle-play'
  | 'toggle-mute'
  | 'toggle-fullscreen'
  | 'toggle-picture-in-picture'
  | 'toggle-stats'
  | 'toggle-help'
  | 'volume-up'
  | 'volume-down'
  | 'go-live'
  | 'seek-back'
  | 'seek-forward'
  | 'start-over';

/** Every key with what it does, in the order of the help dialog. */
export const shortcuts: readonly {
  readonly action: PlayerAction;
  /** Values of `KeyboardEvent.key`, letters in lower case. */
  readonly keys: readonly string[];
  readonly label: string;
}[] = [
  { action: 'toggle-play', keys: [' ', 'k'], label: 'Play or pause' },
  { action: 'toggle-mute', keys: ['m'], label: 'Sound on or off' },
  { action: 'volume-up', keys: ['ArrowUp'], label: 'Louder' },
  { action: 'volume-down', keys: ['ArrowDown'], label: 'Quieter' },
  { action: 'seek-back', keys: ['ArrowLeft'], label: '10 seconds back' },
  { action: 'seek-forward', keys: ['ArrowRight'], label: '10 seconds forward' },
  { action: 'start-over', keys: ['s'], label: 'Start the programme over' },
  { action: 'go-live', keys: ['l', 'End'], label: 'Jump to live' },
  { action: 'toggle-fullscreen', keys: ['f'], label: 'Full screen' },
  { action: 'toggle-picture-in-picture', keys: ['p'], label: 'Picture in picture' },
  { action: 'toggle-stats', keys: ['i'], label: 'Stream details' },
  { action: 'toggle-help', keys: ['?'], label: 'This list of keys' },
];

/** Actions that go on while their key is held. */
const repeating: ReadonlySet<PlayerAction> = new Set([
  'volume-up',
  'volume-down',
  'seek-back',
  'seek-forward',
]);

/** How a key is written on a keyboard. */
export function keyName(key: string): string {
  const names: Record<string, string> = {
    ' ': 'Space',
    ArrowUp: '↑',
    ArrowDown: '↓',
    ArrowLeft: '←',
    ArrowRight: '→',
  };
  return names[key] ?? (key.length === 1 ? key.toUpperCase() : key);
}

export interface KeyPress {
  readonly key: string;
  readonly ctrlKey: boolean;
  readonly altKey: boolean;
  readonly metaKey: boolean;
  readonly repeat: boolean;
}

/** What the element that has the focus does with keys itself. */
export interface KeyFocus {
  readonly takesText: boolean;
  /** A button or a link: Space activates it. */
  readonly takesSpace: boolean;
  /** A slider, or a place on the page where these keys scroll. */
  readonly takesArrows: boolean;
}

/** The action of a key press, unless the key belongs to the browser or to the focused element. */
export function actionForKey(press: KeyPress, focus: KeyFocus): PlayerAction | undefined {
  if (press.ctrlKey || press.altKey || press.metaKey || focus.takesText) return undefined;
  const key = press.key.length === 1 ? press.key.toLowerCase() : press.key;
  if (key === ' ' && focus.takesSpace) return undefined;
  if (key.length > 1 && focus.takesArrows) return undefined;
  const action = shortcuts.find(({ keys }) => keys.includes(key))?.action;
  return press.repeat && (action === undefined || !repeating.has(action)) ? undefined : action;
}

/** @param playerRoot the element around video and controls; elsewhere the arrow keys scroll the page */
export function describeFocus(focused: Element | null, playerRoot: Element): KeyFocus {
  const none = { takesText: false, takesSpace: false, takesArrows: false };
  if (focused === null || focused.matches('body, main, h1')) return none;
  if (focused.matches('input[type="range"], input[type="radio"]')) {
    return { takesText: false, takesSpace: true, takesArrows: true };
  }
  if (focused.matches('input, textarea, select, [contenteditable]')) return { ...none, takesText: true };
  return {
    takesText: false,
    takesSpace: focused.matches('a, button, summary'),
    takesArrows: !playerRoot.contains(focused),
  };
}
