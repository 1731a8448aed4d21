/** The loop: makes inputs, runs a target on them, keeps those that do something new. */
import { getHeapStatistics } from 'node:v8';
import { concatBytes } from '@starling/media/bytes';
import type { Coverage } from './coverage.ts';
import { mutate } from './mutate.ts';
import { Random } from './random.ts';
import type { Target } from './target.ts';

/** A run that takes longer, three times in a row, is a crash. */
const DEADLINE_MS = 1000;
/**
 * Memory that a run may take: a fixed part for the sessions and timelines that it sets up, and a part in
 * proportion to the input. An input is run up to four times over (split, whole, written, read again), and
 * the smallest AMF0 object or RTMP message has a few bytes where its object has a few hundred. Buffers are
 * counted apart: a length that is believed before its bytes have come shows there.
 */
const ALLOWED_BYTES = {
  heap: { free: 48 * 2 ** 20, perInputByte: 2048 },
  buffers: { free: 2 * 2 ** 20, perInputByte: 128 },
};
const BATCH_INPUTS = 512;
const MAX_MINIMISE_RUNS = 400;
const MAX_TRUNCATIONS = 96;

export interface Crash {
  readonly input: Uint8Array;
  readonly error: Error;
}

export interface FuzzReport {
  readonly runs: number;
  readonly elapsedMs: number;
  /** Inputs that reached a new signature or new code, minimised. */
  readonly finds: readonly Uint8Array[];
  /** One for each kind of failure, minimised. */
  readonly crashes: readonly Crash[];
}

export interface FuzzOptions {
  readonly seed: number;
  readonly corpus: readonly Uint8Array[];
  /** Whichever comes first. */
  readonly maxRuns: number;
  readonly maxMs: number;
  /** Undefined: only signatures tell what is new. */
  readonly coverage?: Coverage | undefined;
  /** Hears of every input before it runs, for a watchdog. */
  readonly onRun?: (input: Uint8Array) => void;
}

/** Runs a target on one input under all oracles. @returns the signature, or what went wrong */
export function judge(target: Target, input: Uint8Array): string | Error {
  // A copy: whatever keeps or changes its input must not spoil the corpus.
  for (let tries = 1; ; tries++) {
    const before = getHeapStatistics();
    const startUsage = process.cpuUsage();
    let signature: string;
    try {
      signature = target.run(input.slice());
    } catch (error) {
      return error instanceof Error ? error : new Error(`threw ${String(error)}`);
    }
    // The processor's time: on a busy machine the wall clock says nothing of the input.
    const { user, system } = process.cpuUsage(startUsage);
    const tookMs = (user + system) / 1000;
    const after = getHeapStatistics();
    const heapBytes = after.used_heap_size - before.used_heap_size;
    const bufferBytes = after.external_memory - before.external_memory;
    const isSlow = tookMs > DEADLINE_MS;
    const isGreedy =
      heapBytes > ALLOWED_BYTES.heap.free + ALLOWED_BYTES.heap.perInputByte * input.length ||
      bufferBytes > ALLOWED_BYTES.buffers.free + ALLOWED_BYTES.buffers.perInputByte * input.length;
    if (!isSlow && !isGreedy) return signature;
    // Others use this machine and the collector runs when it likes: only a repeated offence counts.
    if (tries < 3) continue;
    return isSlow
      ? new Error(`an input of ${input.length} bytes took ${Math.round(tookMs)} ms of CPU time`)
      : new Error(`an input of ${input.length} bytes took ${heapBytes} + ${bufferBytes} bytes of memory`);
  }
}

/** The failures that are found here and not in the target: of time and memory. */
function isOutOfBounds(error: Error): boolean {
  return / bytes took /.test(error.message);
}

/** Two failures with the same text, numbers aside, thrown at the same place, are one. */
export function failureKind(error: Error): string {
  const place = isOutOfBounds(error) ? '' : (/at (.+?) \(/.exec(error.stack ?? '')?.[1] ?? '');
  return `${error.name}: ${error.message.slice(0, 200).replace(/\d+/g, 'N')} at ${place}`;
}

/** Fuzzes one target. What happens follows from the options alone, the clock aside. */
export async function fuzz(target: Target, options: FuzzOptions): Promise<FuzzReport> {
  const { coverage } = options;
  const random = new Random(options.seed, target.name);
  const corpus: Uint8Array[] = [];
  const signatures = new Set<string>();
  const finds: Uint8Array[] = [];
  const crashes = new Map<string, Crash>();
  const startMs = performance.now();
  let runs = 0;

  const runOne = (input: Uint8Array): string | Error => {
    options.onRun?.(input);
    runs++;
    return judge(target, input);
  };
  const record = (input: Uint8Array, error: Error) => {
    const kind = failureKind(error);
    if (crashes.has(kind)) return;
    const fails = (smaller: Uint8Array) => {
      const result = runOne(smaller);
      return result instanceof Error && failureKind(result) === kind;
    };
    crashes.set(kind, { input: isOutOfBounds(error) ? input : minimise(input, fails), error });
  };
  /** @returns true when the outcome was of a kind not seen before */
  const isNews = (input: Uint8Array, result: string | Error): boolean => {
    if (result instanceof Error) {
      record(input, result);
      return false;
    }
    if (signatures.has(result)) return false;
    signatures.add(result);
    return true;
  };
  const keep = (input: Uint8Array, wanted: string) => {
    const minimal = minimise(input, (smaller) => runOne(smaller) === wanted);
    corpus.push(minimal);
    finds.push(minimal);
  };

  for (const input of options.corpus) {
    isNews(input, runOne(input));
    corpus.push(input);
  }
  for (const input of options.corpus) {
    const step = Math.max(1, Math.ceil(input.length / MAX_TRUNCATIONS));
    for (let length = 0; length < input.length && runs < options.maxRuns; length += step) {
      const cut = input.subarray(0, length);
      const result = runOne(cut);
      if (result instanceof Error) record(cut, result);
    }
  }
  coverage?.takeNew(true);

  const isOver = () => runs >= options.maxRuns || performance.now() - startMs >= options.maxMs;
  const pick = () => corpus[random.below(corpus.length)] ?? new Uint8Array(0);
  const next = (): Uint8Array => {
    const isFresh = corpus.length === 0 || random.oneIn(4);
    const input = isFresh ? target.generate(random) : pick();
    if (isFresh && random.oneIn(3)) return input;
    if (target.mutate !== undefined && random.oneIn(2)) {
      const damaged = target.mutate(random, input);
      if (random.oneIn(2)) return damaged;
      return mutate(random, damaged, pick(), target.maxInputBytes, target.split);
    }
    return mutate(random, input, pick(), target.maxInputBytes, target.split);
  };

  /** Those of a batch that reach new code, by running halves of it again. */
  const findNewCode = (batch: readonly Uint8Array[]): Uint8Array[] => {
    coverage?.reset();
    for (const input of batch) runOne(input);
    if (batch.length === 0 || coverage?.takeNew(batch.length === 1) !== true) return [];
    if (batch.length === 1) return [...batch];
    const half = batch.length >> 1;
    return [...findNewCode(batch.slice(0, half)), ...findNewCode(batch.slice(half))];
  };

  while (!isOver()) {
    const batch: Uint8Array[] = [];
    for (let i = 0; i < BATCH_INPUTS && !isOver(); i++) {
      const input = next();
      const result = runOne(input);
      if (isNews(input, result) && typeof result === 'string') keep(input, result);
      else if (typeof result === 'string') batch.push(input);
    }
    await turnOfEvents();
    if (coverage?.takeNew(false) !== true) continue;
    // One of the batch, or a step of minimising, reached new code.
    for (const input of findNewCode(batch)) {
      corpus.push(input);
      finds.push(input);
    }
    coverage.takeNew(true);
  }
  return { runs, elapsedMs: performance.now() - startMs, finds, crashes: [...crashes.values()] };
}

/** Lets what the inputs have left to do later be done: sockets close, ticks throw. */
function turnOfEvents(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** Takes out what an input does not need, in halves, quarters and so on, then sets bytes to 0. */
export function minimise(input: Uint8Array, isStillWanted: (input: Uint8Array) => boolean): Uint8Array {
  let best = input;
  let runsLeft = MAX_MINIMISE_RUNS;
  const tryOne = (candidate: Uint8Array): boolean => {
    if (runsLeft-- <= 0 || !isStillWanted(candidate)) return false;
    best = candidate;
    return true;
  };
  for (let size = best.length >> 1; size > 0 && runsLeft > 0; size >>= 1) {
    for (let at = 0; at < best.length && runsLeft > 0; ) {
      const without = concatBytes([best.subarray(0, at), best.subarray(at + size)]);
      if (!tryOne(without)) at += size;
    }
  }
  for (let at = 0; at < best.length && runsLeft > 0; at++) {
    if (best[at] === 0) continue;
    const zeroed = best.slice();
    zeroed[at] = 0;
    tryOne(zeroed);
  }
  return best;
}
