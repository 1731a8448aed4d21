/** How far back a channel can be rewound, as the server last said. */

export interface RewindExtent {
  /** The earliest picture that there is, in milliseconds since 1970 on the server's clock. */
  readonly fromUnixMs: number;
  /** The present. */
  readonly liveUnixMs: number;
}

/** Less than this is not worth a seek bar. */
const MIN_EXTENT_MS = 20_000;
/** A recording that ended so long ago is of a channel off the air. */
const MAX_RECORDING_DELAY_MS = 60_000;
/** What was heard longer ago than this is out of date. */
const MAX_AGE_MS = 60_000;

/** Between two answers of the server the window moves on by itself. This computer's clock does not matter. */
export class RewindWindow {
  readonly #nowMs: () => number;
  #heard:
    | {
        readonly atMs: number;
        readonly fromUnixMs: number;
        readonly toUnixMs: number;
        readonly nowUnixMs: number;
        readonly windowMs: number;
      }
    | undefined;

  /** @param nowMs a clock that is never set */
  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  /** Takes the server's answer (`dvr.json`), or that there is none. @throws TypeError when it has another form */
  hear(answer: unknown): void {
    this.#heard = undefined;
    if (answer === undefined) return;
    const windowSeconds = field(answer, 'windowSeconds');
    if (typeof windowSeconds !== 'number') throw new TypeError('The length of the recording is not known.');
    this.#heard = {
      atMs: this.#nowMs(),
      fromUnixMs: time(answer, 'from'),
      toUnixMs: time(answer, 'to'),
      nowUnixMs: time(answer, 'now'),
      windowMs: windowSeconds * 1000,
    };
  }

  /** Undefined where there is nothing to rewind into. */
  readonly read = (): RewindExtent | undefined => {
    if (this.#heard === undefined) return undefined;
    const { atMs, nowUnixMs, toUnixMs, windowMs } = this.#heard;
    const ageMs = this.#nowMs() - atMs;
    if (ageMs > MAX_AGE_MS || nowUnixMs - toUnixMs > MAX_RECORDING_DELAY_MS) return undefined;
    const liveUnixMs = nowUnixMs + ageMs;
    const fromUnixMs = Math.max(this.#heard.fromUnixMs, liveUnixMs - windowMs);
    return liveUnixMs - fromUnixMs < MIN_EXTENT_MS ? undefined : { fromUnixMs, liveUnixMs };
  };
}

function field(value: unknown, key: string): unknown {
  if (typeof value !== 'object' || value === null) throw new TypeError(`Expected an object with "${key}".`);
  return Object.getOwnPropertyDescriptor(value, key)?.value;
}

function time(value: unknown, key: string): number {
  const unixMs = Date.parse(String(field(value, key)));
  if (Number.isNaN(unixMs)) throw new TypeError(`"${key}" is not a time.`);
  return unixMs;
}
