/** Small choices that this browser remembers. Storage may be full or forbidden; then nothing is kept. */

export type RememberedKey =
  | 'theme'
  | 'protocol'
  | 'volume'
  | 'isMuted'
  | 'hasShortcuts'
  | 'showsStats'
  | 'hasSession';

export function recall(key: RememberedKey): string | undefined {
  try {
    return localStorage.getItem(`starling.${key}`) ?? undefined;
  } catch {
    return undefined;
  }
}

/** @param value undefined forgets the choice */
export function remember(key: RememberedKey, value: string | undefined): void {
  try {
    if (value === undefined) localStorage.removeItem(`starling.${key}`);
    else localStorage.setItem(`starling.${key}`, value);
  } catch {
    // The choice still holds for this page.
  }
}
