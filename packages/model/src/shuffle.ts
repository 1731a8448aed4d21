/**
 * Shuffles that every process and every version computes alike: the order of a pass follows from a
 * seed and the number of the pass alone.
 */

/**
 * The order in which one pass of a shuffled loop plays its items.
 *
 * Items of one codec configuration stay together, and the configurations keep the order of the list: so
 * each pass has as many discontinuities as any other. A pass of three items or more does not begin with the
 * item that ended the pass before.
 * @param configs the configuration of each item
 * @returns indexes of the items
 */
export function passOrder(configs: readonly string[], seed: number, passIndex: number): number[] {
  const kinds = [...new Set(configs)];
  const shuffle = (index: number) => {
    const random = randomUint32(seed, index);
    return kinds.flatMap((kind) =>
      shuffled(
        configs.flatMap((config, i) => (config === kind ? [i] : [])),
        random,
      ),
    );
  };
  const order = shuffle(passIndex);
  const [first, second] = order;
  // Its last item is not moved, so that the next pass can tell what it is without looking further back.
  if (
    kinds.length === 1 &&
    order.length > 2 &&
    passIndex > 0 &&
    first !== undefined &&
    second !== undefined
  ) {
    if (shuffle(passIndex - 1).at(-1) === first) order.splice(0, 2, second, first);
  }
  return order;
}

/** A seed of its own for something that begins at a time, derived from a seed for all. */
export function seedAt(seed: number, ticks: number): number {
  return mix(mix(seed, Math.floor(ticks / 2 ** 32)), ticks % 2 ** 32);
}

/** Fisher-Yates. */
function shuffled(items: readonly number[], random: () => number): number[] {
  const result = [...items];
  for (let i = result.length - 1; i > 0; i--) {
    const j = random() % (i + 1);
    const moved = result[i] ?? 0;
    result[i] = result[j] ?? 0;
    result[j] = moved;
  }
  return result;
}

/** SplitMix32: a counter, mixed. */
function randomUint32(seed: number, stream: number): () => number {
  const state = mix(seed, stream);
  let counter = 0;
  return () => mix(state, counter++);
}

/** Two words into one, by the finaliser of MurmurHash3 (public domain, Austin Appleby). */
function mix(a: number, b: number): number {
  let hash = (Math.imul(a, 0x9e3779b1) ^ (b + 0x9e3779b9)) >>> 0;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
