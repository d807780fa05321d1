/** The numbers that torch's generator on the CPU draws, bit for bit: for what files leave out because it can be drawn again. */

/** Source: Matsumoto and Nishimura 1998, "Mersenne Twister", with their initialisation of 2002. */
function mersenneTwister(seed: number): () => number {
  const state = new Uint32Array(624);
  state[0] = seed;
  for (let i = 1; i < 624; i++) {
    const before = state[i - 1] ^ (state[i - 1] >>> 30);
    state[i] = Math.imul(1812433253, before) + i;
  }
  let at = 624;
  const turn = () => {
    for (let i = 0; i < 624; i++) {
      const y = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7fffffff);
      state[i] = state[(i + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    at = 0;
  };
  return () => {
    if (at === 624) turn();
    let y = state[at++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  };
}

/** `torch.Generator().manual_seed(seed)`: what `uniform_(-bound, bound, generator=…)` fills f32 tensors with, one after another. */
export function torchUniform(seed: number): (count: number, bound: number) => Float32Array {
  const next = mersenneTwister(Number(BigInt.asUintN(32, BigInt(seed))));
  return (count, bound) => {
    const from = Math.fround(-bound), range = Math.fround(Math.fround(bound) - from);
    // Multiplied and added with one rounding, as torch's own build does.
    return Float32Array.from({ length: count }, () => (next() & 0xffffff) * 2 ** -24 * range + from);
  };
}
