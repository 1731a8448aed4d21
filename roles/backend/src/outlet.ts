/** One connection to a destination, whatever its protocol. It is used once. */
import type { AccessUnit, Track } from '@starling/media/access-unit';

/** A unit of a default track, and what is needed to decode it. */
export interface OutgoingUnit {
  readonly unit: AccessUnit;
  readonly track: Track;
  /** All that are sent; the same array until they change. */
  readonly tracks: readonly Track[];
}

export interface OutletListener {
  /** Units may be sent. */
  onReady(): void;
  /** It is no longer full. */
  onDrain(): void;
  /** The other side wants the stream on another connection, from the next random access point on. */
  onMove(open: OpenOutlet): void;
  /** Called once, and not after `close`. @param reason may hold secrets */
  onEnd(reason: string): void;
}

export type OpenOutlet = (listener: OutletListener) => Outlet;

export interface Outlet {
  /** What was sent waits; `onDrain` follows. */
  readonly isFull: boolean;
  /** What the system has taken over so far. */
  readonly sentBytes: number;
  /** In order, from a random access point on. Call it between `onReady` and the end only. */
  send(units: readonly OutgoingUnit[]): void;
  /** Ends it; idempotent. */
  close(): void;
}
