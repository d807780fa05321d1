/** How a value is represented while kernels are being made: a strided window on a buffer, on the counters, or on a constant. */
import { type Aval, sizeOf } from "../../core/aval.ts";
import { arithmeticType, type DType } from "../../core/dtype.ts";
import type { View } from "../../core/ir/lowering.ts";
import { constOf, type Expr } from "../ir/expr.ts";

/** Memory that a plan will place: an argument, an output, or (by default) a slice of the arena. */
export interface Buffer {
  readonly id: number;
  readonly dtype: DType;
  readonly size: number;
  readonly argument?: number;
}

/** What an expression loads from. Element i of the counter is i. */
export type Memory = Buffer | "counter";

/** What a window looks onto. */
export type Base = Memory | { readonly constant: number };

export interface Repr {
  readonly base: Base;
  readonly view: View;
  readonly dtype: DType;
}

export function isBuffer(base: Base): base is Buffer {
  return typeof base === "object" && "id" in base;
}

/** The expression of a window whose axes are the kernel's. */
export function exprOf({ base, view, dtype }: Repr, strides: readonly number[] = view.strides): Expr<Memory> {
  const type = arithmeticType[dtype];
  if (typeof base === "object" && "constant" in base) return constOf(type, base.constant);
  return { kind: "load", type, operand: base, index: { offset: view.offset, strides } };
}

/** Whether a window is its buffer, whole and in row-major order. */
export function isWhole(repr: Repr, aval: Aval): boolean {
  if (!isBuffer(repr.base) || repr.view.offset !== 0 || repr.base.size !== sizeOf(aval.shape)) return false;
  let step = 1;
  for (let i = aval.shape.length - 1; i >= 0; i--) {
    if (aval.shape[i] !== 1 && repr.view.strides[i] !== step) return false;
    step *= aval.shape[i];
  }
  return true;
}
