import type { DType } from "../dtype.ts";
import { ShapeError } from "../errors.ts";
import { bind1, type Primitive, Value } from "../ir/graph.ts";
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

/**
 * An operand as a value.
 *
 * @throws {ShapeError} when it is none
 */
export function asValue(x: Operand, dtype: DType = "f32"): Value {
  if (typeof x === "number") return constant(x, dtype);
  if (x instanceof Tensor) return tensorValue(x);
  if (x instanceof Value) return x;
  throw new ShapeError(
    `an operation takes values, tensors and numbers, but got ${kindOf(x)}: lists and host arrays become tensors by ` +
      `tensor(device, […]) and upload(device, { shape, dtype, data })`,
  );
}

/** What a thing is, in a word or two. */
export function kindOf(x: unknown): string {
  if (x === null || x === undefined || typeof x === "boolean") return String(x);
  if (typeof x !== "object") return `a ${typeof x}`;
  if (Array.isArray(x)) return "a list";
  const name = Object.getPrototypeOf(x)?.constructor?.name ?? "Object";
  return name === "Object" ? "a plain object" : `a ${name}`;
}
