import { checkHolds, type DType, fromBf16, fromF16, toBf16, toF16 } from "../dtype.ts";
import { ShapeError } from "../errors.ts";
import { bind1, type Primitive, Value } from "../ir/graph.ts";
import { isPacked } from "../packed/blocks.ts";
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
  return constantFor("make a constant", value, dtype);
}

/** A constant for an operation that `name` says. f16 and bf16 constants are the nearest that these have. */
function constantFor(name: string, value: number | boolean, dtype: DType): Value {
  const number = typeof value === "boolean" ? Number(value) : value;
  if (isPacked(dtype)) throw new ShapeError(`Cannot ${name} of ${dtype}: a packed array is made by quantize`);
  checkHolds(`Cannot ${name}`, dtype, number);
  const held = dtype === "f16" ? fromF16(toF16(number)) : dtype === "bf16" ? fromBf16(toBf16(number)) : number;
  return bind1(constantPrim, [], { value: held, dtype });
}

/**
 * An operand as a value; a number as a constant of `dtype`, for an operation that `name` says.
 *
 * @throws {ShapeError} when it is not an operand, or a number that the dtype can't represent
 */
export function asValue(x: Operand, dtype: DType = "f32", name: string = "make a constant"): Value {
  if (typeof x === "number") return constantFor(name, x, dtype);
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
