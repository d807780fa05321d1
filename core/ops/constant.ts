import type { DType } from "../dtype.ts";
import { bind1, type Primitive, type Value } from "../ir/graph.ts";
import { type Operand, Tensor, tensorValue } from "../tensor.ts";

/** A constant of rank 0. */
export const constantPrim: Primitive<{ value: number; dtype: DType }> = {
  name: "constant",
  infer: (_, { dtype }) => [{ shape: [], dtype }],
  vjp: "nondifferentiable",
  batch: "expand",
  lowering: { kind: "constant", value: (p) => p.value },
};

/** A rank-0 constant: `constant(0.5)` is f32[]. */
export function constant(value: number | boolean, dtype: DType = "f32"): Value {
  return bind1(constantPrim, [], { value: Number(value), dtype });
}

/** An operand as a value. */
export function asValue(x: Operand, dtype: DType = "f32"): Value {
  if (typeof x === "number") return constant(x, dtype);
  return x instanceof Tensor ? tensorValue(x) : x;
}
