/** A few words to say kernels in, and their inputs. */
import { isPacked } from "../../core/packed/blocks.ts";
import { randomPacked } from "../packed_reference.ts";
import { type DType, type HostArray, hostArray, toBf16, toF16 } from "../../core/dtype.ts";
import type { Expr, Index, Store } from "../../kernels/ir/expr.ts";
import type { Kernel, Operand, ScalarOp } from "../../kernels/ir/kernel.ts";

/** A kernel with its inputs; write operands are given as they are before the run. */
export interface KernelCase {
  readonly name: string;
  readonly kernel: Kernel;
  readonly buffers: readonly HostArray[];
  /** Worst relative error, against the largest term, in units of 2^-24: the length of the sums, or a table's ulp. */
  readonly ulp: number;
}

/** Deterministic numbers in [-1, 1). */
function noise(seed: number): () => number {
  let state = seed * 2654435761 >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 31 - 1;
  };
}

/** `size` random elements of a dtype: floats in [-scale, scale), integers in [0, scale). */
function randomArray(dtype: DType, size: number, seed: number, scale = dtype === "f32" ? 1 : 2): HostArray {
  if (isPacked(dtype)) return randomPacked(dtype, size, seed);
  const next = noise(seed);
  const array = hostArray(dtype, size);
  for (let i = 0; i < size; i++) {
    const x = next();
    if (dtype === "f16") array[i] = toF16(x);
    else if (dtype === "bf16") array[i] = toBf16(x);
    else array[i] = dtype === "f32" ? x * scale : Math.floor((x + 1) / 2 * scale);
  }
  return array;
}

/** Operands of a size. */
export const read = (size: number, dtype: DType = "f32"): Operand => ({ dtype, size, access: "read" });
export const write = (size: number, dtype: DType = "f32"): Operand => ({ dtype, size, access: "write" });
export const inout = (size: number, dtype: DType = "f32"): Operand => ({ dtype, size, access: "inout" });
/** Expressions, indices and stores, in short. */
export const at = (strides: readonly number[], offset = 0): Index => ({ offset, strides });
export const load = (operand: number, index: Index, type: Expr["type"] = "f32"): Expr =>
  ({ kind: "load", type, operand, index }) as Expr;
export const op = (name: ScalarOp, type: Expr["type"], ...args: Expr[]): Expr =>
  ({ kind: "op", type, op: name, args }) as Expr;
export const number = (value: number, type: Expr["type"] = "f32"): Expr => ({ kind: "const", type, value }) as Expr;
export const axis = (i: number): Expr => ({ kind: "axis", type: "i32", axis: i });
export const result = (phase: number, type: Expr["type"] = "f32"): Expr => ({ kind: "result", type, phase }) as Expr;
export const put = (operand: number, index: Index, value: Expr): Store => ({ operand, index, value });

/** The inputs of a kernel: random reads, writes filled with a value that must not survive. */
function fill(kernel: Kernel, seed: number, given: Record<number, HostArray> = {}): HostArray[] {
  return kernel.operands.map(({ dtype, size, access }, i) =>
    given[i] ?? (access === "write" ? hostArray(dtype, size).fill(99) : randomArray(dtype, size, seed * 31 + i + 1))
  );
}

/** A case over random inputs, but for those given. */
export function makeCase(name: string, kernel: Kernel, ulp: number, given: Record<number, HostArray> = {}): KernelCase {
  return { name, kernel, ulp, buffers: fill(kernel, name.length + kernel.operands.length, given) };
}

/** An elementwise function of one operand over given inputs. */
export function unary(
  name: string,
  inputs: readonly number[],
  ulp: number,
  type: Expr["type"],
  make: (x: Expr) => Expr,
) {
  const size = inputs.length;
  const value = make(load(0, at([1]), type));
  const kernel: Kernel = {
    kind: "map",
    operands: [read(size, type), write(size, value.type)],
    shape: [size],
    stores: [put(1, at([1]), value)],
  };
  return makeCase(name, kernel, ulp, { 0: hostArray(type, size).map((_, i) => inputs[i]) as HostArray });
}

/** `count` numbers from one to another, evenly. */
export const range = (from: number, to: number, count: number) =>
  Array.from({ length: count }, (_, i) => from + (to - from) * i / (count - 1));
