/** As much of a media playlist as the crowds need. */

export interface ListedFiles {
  /** Paths, oldest first. */
  readonly segments: readonly string[];
  /** Of all segments that list theirs, the open one included. */
  readonly parts: readonly string[];
  readonly targetDurationMs: number;
  /** The part that will come next, as a blocking reload names it. */
  readonly next: { readonly mediaSequenceNumber: number; readonly partIndex: number };
}

/** @param path of the playlist itself, to which its addresses are relative */
export function listedIn(text: string, path: string): ListedFiles {
  const resolve = (uri: string) => new URL(uri, `http://localhost${path}`).pathname;
  const number = (tag: string) => Number(new RegExp(`^#${tag}:(\\d+)`, 'm').exec(text)?.[1] ?? 0);
  const segments: string[] = [];
  const parts: string[] = [];
  let openParts = 0;
  for (const line of text.split('\n')) {
    const part = /^#EXT-X-PART:.*URI="([^"]+)"/.exec(line)?.[1];
    if (part !== undefined) {
      parts.push(resolve(part));
      openParts++;
    } else if (line !== '' && !line.startsWith('#')) {
      segments.push(resolve(line));
      openParts = 0;
    }
  }
  return {
    segments,
    parts,
    targetDurationMs: number('EXT-X-TARGETDURATION') * 1000,
    next: {
      mediaSequenceNumber: number('EXT-X-MEDIA-SEQUENCE') + segments.length,
      partIndex: openParts,
    },
  };
}

/** The path, with query, of the first media playlist of a multivariant one. */
export function mediaPlaylistPath(text: string, path: string): string {
  const uri = text.split('\n').find((line) => line !== '' && !line.startsWith('#'));
  if (uri === undefined) throw new Error(`no media playlist in ${path}`);
  const { pathname, search } = new URL(uri, `http://localhost${path}`);
  return pathname + search;
}
