/** Random numbers that follow from a seed alone, so that every run can be repeated. */
export class Random {
  #state: Uint32Array;

  /** @param label runs with the same seed and different labels are unrelated */
  constructor(seed: number, label = '') {
    let hash = 2166136261 ^ seed;
    for (let i = 0; i < label.length; i++) hash = Math.imul(hash ^ label.charCodeAt(i), 16777619);
    this.#state = Uint32Array.of(hash, hash ^ 0x9e3779b9, seed, 1);
    for (let i = 0; i < 16; i++) this.u32();
  }

  /** sfc32 (Chris Doty-Humphrey, PractRand). */
  u32(): number {
    const state = this.#state;
    const [a = 0, b = 0, c = 0, counter = 0] = state;
    const result = (a + b + counter) >>> 0;
    state[3] = counter + 1;
    state[0] = b ^ (b >>> 9);
    state[1] = c + (c << 3);
    state[2] = ((c << 21) | (c >>> 11)) + result;
    return result;
  }

  /** A whole number from 0 to `bound` - 1; 0 when there is none. */
  below(bound: number): number {
    return bound < 1 ? 0 : Math.floor((this.u32() / 2 ** 32) * bound);
  }

  /** A whole number from `low` to `high`, both included. */
  between(low: number, high: number): number {
    return low + this.below(high - low + 1);
  }

  /** True once in `n` times. */
  oneIn(n: number): boolean {
    return this.below(n) === 0;
  }

  pick<T>(choices: readonly [T, ...T[]]): T {
    return choices[this.below(choices.length)] ?? choices[0];
  }

  bytes(sizeBytes: number): Uint8Array {
    return Uint8Array.from({ length: sizeBytes }, () => this.u32() & 0xff);
  }
}
