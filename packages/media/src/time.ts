/**
 * Ticks and timescales: the only place that rescales.
 *
 * A time is a whole number of ticks on the channel's timeline, counted from the channel's epoch.
 * Video ticks are 1/90000 s; audio ticks are one sample. A decade at 48 kHz is 1.5e13 ticks, so a
 * double holds every time exactly, but a product of a time and a timescale would not fit: the
 * functions here split whole seconds from the remainder first.
 */

/** Ticks per second of every video track and of the timeline itself (ISO/IEC 13818-1, 2.4.2). */
export const VIDEO_TIMESCALE_HZ = 90_000;

const NS_PER_SECOND = 1_000_000_000;
const NS_PER_MS = 1_000_000;

/**
 * Converts ticks of one timescale to another, to the nearest tick (halves round up).
 * Exact for every time that a channel can reach.
 */
export function rescaleTicks(ticks: number, fromHz: number, toHz: number): number {
  if (fromHz === toHz) return ticks;
  const wholeSeconds = Math.floor(ticks / fromHz);
  const remainderTicks = ticks - wholeSeconds * fromHz;
  return wholeSeconds * toHz + Math.floor((remainderTicks * toHz) / fromHz + 0.5);
}

/**
 * Orders two times of different timescales exactly.
 * @returns a negative number, zero or a positive number, as for `Array.prototype.sort`
 */
export function compareTicks(aTicks: number, aHz: number, bTicks: number, bHz: number): number {
  const aSeconds = Math.floor(aTicks / aHz);
  const bSeconds = Math.floor(bTicks / bHz);
  if (aSeconds !== bSeconds) return aSeconds - bSeconds;
  return (aTicks - aSeconds * aHz) * bHz - (bTicks - bSeconds * bHz) * aHz;
}

/** Milliseconds (fractional) of a time in ticks. For clocks and logs; not for media arithmetic. */
export function ticksToMs(ticks: number, timescaleHz: number): number {
  const wholeSeconds = Math.floor(ticks / timescaleHz);
  return wholeSeconds * 1000 + ((ticks - wholeSeconds * timescaleHz) * 1000) / timescaleHz;
}

/** The nearest tick to a time in milliseconds. */
export function msToTicks(ms: number, timescaleHz: number): number {
  return Math.round((ms * timescaleHz) / 1000);
}

/** A time as Enhanced RTMP carries it: whole milliseconds and the rest in nanoseconds. */
export interface NanoTimestamp {
  readonly ms: number;
  /** 0..999999 */
  readonly nanos: number;
}

/** Splits a time into whole milliseconds and nanoseconds (rounded down, so `ticksFromNano` inverts it). */
export function nanoFromTicks(ticks: number, timescaleHz: number): NanoTimestamp {
  const wholeSeconds = Math.floor(ticks / timescaleHz);
  const ns = Math.floor(((ticks - wholeSeconds * timescaleHz) * NS_PER_SECOND) / timescaleHz);
  const ms = Math.floor(ns / NS_PER_MS);
  return { ms: wholeSeconds * 1000 + ms, nanos: ns - ms * NS_PER_MS };
}

/** The tick nearest to a time in milliseconds and nanoseconds: the inverse of {@link nanoFromTicks}. */
export function ticksFromNano(time: NanoTimestamp, timescaleHz: number): number {
  const wholeSeconds = Math.floor(time.ms / 1000);
  const ns = (time.ms - wholeSeconds * 1000) * NS_PER_MS + time.nanos;
  return wholeSeconds * timescaleHz + Math.round((ns * timescaleHz) / NS_PER_SECOND);
}

/**
 * Follows a timestamp that wraps at `modulus` and gives it back without the wraps.
 * Each value is taken as the one nearest to the last, so a step back is kept as a step back.
 */
export class TimestampUnwrapper {
  readonly #modulus: number;
  #last: number | undefined;

  constructor(modulus: number) {
    this.#modulus = modulus;
  }

  /** Says what the next value is close to: sets the high part that the wire does not carry. */
  anchor(absolute: number): void {
    this.#last = absolute;
  }

  unwrap(wrapped: number): number {
    if (this.#last === undefined) {
      this.#last = wrapped;
      return wrapped;
    }
    const turns = Math.round((this.#last - wrapped) / this.#modulus);
    this.#last = wrapped + turns * this.#modulus;
    return this.#last;
  }
}
