/**
 * The viewing token that opens private channels: from the address of the page (`?token=...`), and kept for
 * the tab, so that it goes along to the other pages.
 */
import { useEffect } from 'react';
import { useSearchParams } from 'react-router';

const KEY = 'starling.viewing-token';

/** @returns undefined when this viewer has shown none */
export function useViewingToken(): string | undefined {
  const [search] = useSearchParams();
  const inAddress = search.get('token') ?? '';
  useEffect(() => {
    if (inAddress !== '') keepViewingToken(inAddress);
  }, [inAddress]);
  return inAddress === '' ? kept() : inAddress;
}

// Not for longer than the tab: who uses this computer next shall not have it.
function kept(): string | undefined {
  try {
    return sessionStorage.getItem(KEY) ?? undefined;
  } catch {
    return undefined; // forbidden: the token is where the address has it
  }
}

/** @param token undefined forgets the one that was kept */
export function keepViewingToken(token: string | undefined): void {
  try {
    if (token === undefined) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, token);
  } catch {
    // As above.
  }
}
