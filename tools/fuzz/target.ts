/** What a target of the fuzzer is. */
import type { RecordSplitter } from './mutate.ts';
import type { Random } from './random.ts';

export interface Target {
  readonly name: string;
  /** Longer inputs are cut, but for the rare one that repeats a run of bytes very often. */
  readonly maxInputBytes: number;
  /** An input from the grammar. */
  generate(random: Random): Uint8Array;
  /** What the records of the format are, for mutators that move whole ones. */
  readonly split?: RecordSplitter;
  /** Damage that only this format knows. */
  mutate?(random: Random, input: Uint8Array): Uint8Array;
  prepare?(): Promise<void>;
  close?(): Promise<void>;
  run(input: Uint8Array): string;
}

/** A promise of ours that an input has broken. */
class BrokenPromise extends Error {
  override name = 'BrokenPromise';
}

export function check(holds: boolean, promise: string): asserts holds {
  if (!holds) throw new BrokenPromise(promise);
}
