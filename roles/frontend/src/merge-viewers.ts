/** One list of viewers from those of several frontends that stand for one. */
import type { Viewer } from './viewers.ts';

/**
 * Merges lists of viewers by id. A player of HLS whose requests come over several connections may be on
 * several frontends, with one session: it counts once, there since it first came, with all its bytes.
 * @returns those first who came first
 */
export function mergeViewers(lists: Iterable<readonly Viewer[]>): Viewer[] {
  const merged = new Map<string, Viewer>();
  for (const list of lists) {
    for (const viewer of list) {
      const known = merged.get(viewer.id);
      const startedAtUnixMs = Math.min(viewer.startedAtUnixMs, known?.startedAtUnixMs ?? Infinity);
      const sentBytes = viewer.sentBytes + (known?.sentBytes ?? 0);
      merged.set(viewer.id, { ...viewer, startedAtUnixMs, sentBytes });
    }
  }
  return [...merged.values()].sort((a, b) => a.startedAtUnixMs - b.startedAtUnixMs);
}
