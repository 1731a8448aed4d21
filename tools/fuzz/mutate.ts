/** What may happen to an input: damage that knows nothing of formats, and damage that knows records. */
import { concatBytes } from '@starling/media/bytes';
import type { Random } from './random.ts';

/** Cuts an input into the records of its format: tags, boxes. What does not parse is one last record. */
export type RecordSplitter = (input: Uint8Array) => Uint8Array[];

/** A run is repeated at most up to this size: enough for a quadratic parser to be seen. */
const MAX_REPEATED_BYTES = 192 * 1024;

const SEPARATORS = '/?&=%.:-+ ,;\t\0';

const INTEGER_EXTREMES = [
  0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7f_ffff, 0x80_0000, 0xff_fffe, 0xff_ffff, 0x7fff_ffff,
  0x8000_0000, 0xffff_fffe, 0xffff_ffff,
] as const; // prettier-ignore

/**
 * Damages an input, one to four times over.
 * @param other a second input to splice with
 */
export function mutate(
  random: Random,
  input: Uint8Array,
  other: Uint8Array,
  maxSizeBytes: number,
  split?: RecordSplitter,
): Uint8Array {
  let bytes = input;
  for (let times = random.between(1, 4); times > 0; times--) {
    bytes =
      split !== undefined && random.oneIn(2)
        ? mutateRecords(random, bytes, other, split)
        : mutateBytes(random, bytes, other);
  }
  if (random.oneIn(500)) return repeatMany(random, bytes);
  return bytes.length > maxSizeBytes ? bytes.slice(0, maxSizeBytes) : bytes;
}

function mutateBytes(random: Random, input: Uint8Array, other: Uint8Array): Uint8Array {
  const at = random.below(input.length);
  const length = Math.min(input.length - at, 2 ** random.between(0, 6));
  switch (random.below(9)) {
    case 0: {
      const bytes = input.slice();
      if (bytes.length > 0) bytes[at] = (bytes[at] ?? 0) ^ (1 << random.below(8));
      return bytes;
    }
    case 1: {
      const bytes = input.slice();
      if (bytes.length > 0) bytes[at] = random.u32() & 0xff;
      return bytes;
    }
    case 2:
      return splice(input, at, 0, random.bytes(2 ** random.between(0, 4)));
    case 3:
      return splice(input, at, length, new Uint8Array(0));
    case 4:
      return splice(input, at, 0, input.subarray(at, at + length));
    case 5:
    case 6:
      return writeInteger(random, input);
    case 7: {
      const from = random.below(other.length);
      const take = random.below(other.length - from + 1);
      return splice(
        input,
        at,
        random.oneIn(2) ? length : input.length - at,
        other.subarray(from, from + take),
      );
    }
    default:
      return input.slice(0, random.below(input.length + 1));
  }
}

/** Sets an integer to an extreme or moves it by one: mostly one that looks like a length. */
function writeInteger(random: Random, input: Uint8Array): Uint8Array {
  const sizeBytes = random.pick([1, 2, 3, 4, 4, 8]);
  if (input.length < sizeBytes) return input;
  const bytes = input.slice();
  let at = random.below(bytes.length - sizeBytes + 1);
  for (let tries = 0; tries < 16 && !isLikeLength(bytes, at, sizeBytes); tries++) {
    at = random.below(bytes.length - sizeBytes + 1);
  }
  let value = random.oneIn(3)
    ? readInteger(bytes, at, sizeBytes) + random.between(-2, 2)
    : (INTEGER_EXTREMES[random.below(INTEGER_EXTREMES.length)] ?? 0);
  if (sizeBytes === 8 && random.oneIn(2)) value *= 2 ** 32;
  for (let i = sizeBytes - 1; i >= 0; i--) {
    bytes[at + i] = value % 256;
    value = Math.floor(value / 256);
  }
  return bytes;
}

function isLikeLength(bytes: Uint8Array, at: number, sizeBytes: number): boolean {
  const value = readInteger(bytes, at, sizeBytes);
  return value > 0 && value <= bytes.length - at;
}

function readInteger(bytes: Uint8Array, at: number, sizeBytes: number): number {
  let value = 0;
  for (let i = 0; i < sizeBytes; i++) value = value * 256 + (bytes[at + i] ?? 0);
  return value;
}

/** Repeats a few bytes very often: what a parser does twice for each of them is then seen. */
function repeatMany(random: Random, input: Uint8Array): Uint8Array {
  const at = random.below(input.length);
  const run = random.oneIn(2)
    ? Uint8Array.of(SEPARATORS.charCodeAt(random.below(SEPARATORS.length)))
    : input.subarray(at, at + random.between(1, 4));
  if (run.length === 0) return input;
  const count = Math.floor(random.between(1024, MAX_REPEATED_BYTES) / run.length);
  const repeated = new Uint8Array(count * run.length);
  for (let i = 0; i < count; i++) repeated.set(run, i * run.length);
  // Between letters: many a search is slow only where what it looks for does not follow.
  const letter = random.oneIn(2) ? Uint8Array.of(0x61) : new Uint8Array(0);
  return splice(input, at, 0, concatBytes([letter, repeated, letter]));
}

function mutateRecords(
  random: Random,
  input: Uint8Array,
  other: Uint8Array,
  split: RecordSplitter,
): Uint8Array {
  const records = split(input);
  const at = random.below(records.length);
  const record = records[at];
  if (record === undefined) return input;
  const to = random.below(records.length);
  switch (random.below(6)) {
    case 0:
      records.splice(at, random.between(1, 4));
      break;
    case 1:
      records.splice(to, 0, record);
      break;
    case 2:
      records.splice(at, 1);
      records.splice(to, 0, record);
      break;
    case 3: {
      const others = split(other);
      const from = random.below(others.length);
      records.splice(at, 0, ...others.slice(from, from + random.between(1, 8)));
      break;
    }
    case 4:
      records.splice(at, records.length - at, ...split(other));
      break;
    default:
      records[at] = mutateBytes(random, record, other);
  }
  return concatBytes(records);
}

function splice(input: Uint8Array, at: number, removed: number, inserted: Uint8Array): Uint8Array {
  return concatBytes([input.subarray(0, at), inserted, input.subarray(at + removed)]);
}
