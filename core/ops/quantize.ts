/** From packed weights to numbers. Kernels read packed words themselves: what this makes is never stored. */
import { formatAval } from "../aval.ts";
import { ShapeError } from "../errors.ts";
import { bind1, type Primitive, type Value } from "../ir/graph.ts";
import { isPacked } from "../packed/blocks.ts";
import type { Operand } from "../tensor.ts";
import { asValue } from "./constant.ts";

/** The f32 values of a packed array. Its codes have no gradient: whatever reads the values passes one to its other inputs. */
export const dequantizePrim: Primitive<null> = {
  name: "dequantize",
  infer: ([x]) => {
    if (!isPacked(x.dtype)) throw new ShapeError(`Cannot dequantize ${formatAval(x)}: it is not packed`);
    return [{ shape: x.shape, dtype: "f32" }];
  },
  vjp: "nondifferentiable",
  batch: ({ inputs: [x] }) => [dequantize(x)],
  // The same window onto the same words: each kernel's loads know how to read them.
  lowering: { kind: "view", view: (source) => source },
};

/**
 * The values of a packed array, f32 of the same shape. Products, lookups and conversions do this by themselves.
 *
 * @throws {ShapeError} when it is not packed
 */
export function dequantize(x: Operand): Value {
  return bind1(dequantizePrim, [asValue(x)], null);
}

/** An operand as a value that can be computed with: a packed one dequantised. */
export function asNumbers(x: Operand): Value {
  const value = asValue(x);
  return isPacked(value.dtype) ? dequantize(value) : value;
}
