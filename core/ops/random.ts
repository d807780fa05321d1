/** Random numbers as a pure function of a key: the same bits on every device, tile and recomputation. */
import { formatAval } from "../aval.ts";
import { OptionError, ShapeError } from "../errors.ts";
import { bind1, type Primitive, type Value } from "../ir/graph.ts";
import type { Operand } from "../tensor.ts";
import { full, reshape } from "./broadcast.ts";
import { shapeOf } from "./arguments.ts";
import { asValue } from "./constant.ts";
import { bitcast, convert, cos, log, lt, max, mul, select, shr, sqrt, sub, xor } from "./elementwise.ts";
import { concat, slice } from "./structure.ts";

/**
 * u32 bits for each place of `shape`: word 0 of threefry2x32 (20 rounds) under `key` with counter (flat index, 0).
 * Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
 */
export const randomBitsPrim: Primitive<{ shape: readonly number[] }> = {
  name: "randomBits",
  infer: (_, { shape }) => [{ shape, dtype: "u32" }],
  vjp: "nondifferentiable",
  batch: ({ inputs: [keys], params: { shape }, size }) => [
    size === 0 ? full([0, ...shape], 0, "u32") : concat(
      Array.from(
        { length: size },
        (_, i) => reshape(randomBits(reshape(slice(keys, 0, i, i + 1), [2]), shape), [1, ...shape]),
      ),
      0,
    ),
  ],
  lowering: { kind: "random" },
};

/** A seed or a derived key: u32[2]. */
function checkKey(key: Value): Value {
  if (formatAval(key.aval) !== "u32[2]") {
    throw new ShapeError(`a random key is u32[2], not ${formatAval(key.aval)}: make one with randomKey(seed)`);
  }
  return key;
}

/** Bits for each place of a shape. */
export function randomBits(key: Operand, shape: readonly number[]): Value {
  return bind1(randomBitsPrim, [checkKey(asValue(key))], { shape });
}

/** Uniform f32 in [0, 1): the top 24 bits. */
export function randomUniform(key: Operand, shape: readonly number[]): Value {
  return mul(convert(bitcast(shr(randomBits(key, shape), 8), "i32"), "f32"), 2 ** -24);
}

/** Standard normal f32, by Box and Muller's transform. */
export function randomNormal(key: Operand, shape: readonly number[]): Value {
  const u = randomUniform(key, [2, ...shapeOf("draw", shape)]);
  const [a, b] = [0, 1].map((i) => reshape(slice(u, 0, i, i + 1), shape));
  return mul(sqrt(mul(log(max(sub(1, a), 2 ** -25)), -2)), cos(mul(b, 2 * Math.PI)));
}

/**
 * A new key from a key and a whole number (a step, a layer): threefry under the key's own bits, mixed with the number. Data
 * may be of any dtype: a number among a jitted function's arguments is f32, exact up to 2^24.
 *
 * @throws {OptionError} for a number that is no whole one from 0 to 2^32 - 1
 */
export function foldIn(key: Operand, data: Operand): Value {
  if (typeof data === "number" && !(Number.isInteger(data) && data >= 0 && data < 2 ** 32)) {
    throw new OptionError(`foldIn takes a whole number from 0 to 2^32 - 1, not ${data}`);
  }
  return randomBits(xor(randomBits(key, [2]), convert(asValue(data, "u32"), "u32")), [2]);
}

/** Zero with probability `rate`, else x / (1 - rate). Backward regenerates the mask instead of saving it. */
export function dropout(x: Operand, key: Operand, rate: number): Value {
  const value = asValue(x);
  if (!(rate >= 0 && rate < 1)) throw new OptionError(`a rate of dropout is from 0 to below 1, not ${rate}`);
  if (rate === 0) return value;
  return select(lt(randomUniform(key, value.shape), rate), 0, mul(value, 1 / (1 - rate)));
}
