/** Random numbers on the host: keys, and first values of parameters. The bits are those of `randomBits` on a device. */
import type { HostTensor } from "./tensor.ts";
import { OptionError } from "./errors.ts";

/** Both words of threefry2x32 with 20 rounds. Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3". */
export function threefry2x32(key: readonly [number, number], counter: readonly [number, number]): [number, number] {
  const words = [key[0], key[1], key[0] ^ key[1] ^ 0x1bd11bda];
  let [a, b] = [(counter[0] + key[0]) | 0, (counter[1] + key[1]) | 0];
  for (let round = 0; round < 20; round++) {
    const turn = rotations[round % 8];
    a = (a + b) | 0;
    b = ((b << turn) | (b >>> (32 - turn))) ^ a;
    if (round % 4 === 3) {
      const step = (round + 1) / 4;
      a = (a + words[step % 3]) | 0;
      b = (b + words[(step + 1) % 3] + step) | 0;
    }
  }
  return [a >>> 0, b >>> 0];
}

const rotations = [13, 15, 26, 6, 17, 29, 16, 24];

/**
 * The key u32[2] of a seed, an integer from 0 to 2⁵³ - 1: what random functions take, on the host or uploaded.
 *
 * @throws {OptionError} for any other seed
 *
 * @example
 * ```ts
 * import { evaluate, openDevice, randomKey, randomNormal, upload } from "@lowrank/lowrank";
 *
 * using device = await openDevice("cpu");
 * const key = upload(device, randomKey(42));
 * console.log(await evaluate(randomNormal(key, [2, 3]))); // the same six numbers on every device
 * ```
 */
export function randomKey(seed: number): HostTensor {
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw new OptionError(`a seed is a whole number from 0 to 2^53 - 1, not ${seed}`);
  }
  return { shape: [2], dtype: "u32", data: Uint32Array.of(Math.floor(seed / 2 ** 32), seed >>> 0) };
}

/** The uniform number in [0, 1) at place `index` under a key: 24 bits, as on a device. */
export function uniformAt(key: readonly [number, number], index: number): number {
  return (threefry2x32(key, [index, 0])[0] >>> 8) * 2 ** -24;
}

/** The standard normal number at place `index` under a key, by Box and Muller's transform. */
export function normalAt(key: readonly [number, number], index: number): number {
  const [a, b] = threefry2x32(key, [index, 0]);
  return Math.sqrt(-2 * Math.log(1 - (a >>> 8) * 2 ** -24)) * Math.cos(2 * Math.PI * (b >>> 8) * 2 ** -24);
}
