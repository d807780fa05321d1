/** A stream of pseudo-random numbers on the host: for drawing and shuffling data, not for anything a graph computes. */
export interface Rng {
  /** The next number in [0, 1). */
  next(): number;
  /** The next integer in [0, bound). */
  below(bound: number): number;
  /** One of the items. */
  pick<T>(items: readonly T[]): T;
}

/**
 * The stream that belongs to a list of integers (a seed; a seed and a step; …): the same integers give the same stream on
 * every machine. Generator: sfc32, seeded by a multiply-and-shift hash.
 */
export function rngFrom(...seeds: number[]): Rng {
  let [a, b, c, d] = [0x9e3779b9, 0x243f6a88, 0xb7e15162, 1];
  const next = () => {
    const t = (((a + b) | 0) + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (c << 21) | (c >>> 11);
    c = (c + t) | 0;
    return (t >>> 0) / 0x1_0000_0000;
  };
  for (const seed of seeds) {
    a ^= Math.imul(seed | 0, 0x85ebca6b);
    b ^= Math.imul(Math.floor(seed / 0x1_0000_0000), 0xc2b2ae35);
    for (let i = 0; i < 12; i++) next();
  }
  const below = (bound: number) => Math.floor(next() * bound);
  return { next, below, pick: (items) => items[below(items.length)] };
}

/** The integers [0, count) in an order drawn from `rng` (Fisher and Yates). */
export function shuffledIndices(count: number, rng: Rng): number[] {
  const order = Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = rng.below(i + 1);
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}
