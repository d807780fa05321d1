/** How a value is to be had while kernels are being made: a strided window on a buffer, on the counters, or on a constant. */
import { type Aval, sizeOf } from "../../core/aval.ts";
import { arithmeticType, type DType, type ScalarType } from "../../core/dtype.ts";
import type { View } from "../../core/ir/lowering.ts";
import type { ScalarOp } from "../ir/kernel.ts";

/** Memory that a plan will place: an argument, an output, or (by default) a slice of the arena. */
export interface Buffer {
  readonly id: number;
  readonly dtype: DType;
  readonly size: number;
  readonly argument?: number;
}

/** What a window looks onto. The counter has element i equal to i. */
export type Base = Buffer | { readonly constant: number } | "counter";

export interface Repr {
  readonly base: Base;
  readonly view: View;
  readonly dtype: DType;
}

export function isBuffer(base: Base): base is Buffer {
  return typeof base === "object" && "id" in base;
}

/** An expression while its axes may still be merged: `affine` is the integer offset + Σ strides·axes. */
export type Draft =
  | { readonly kind: "const"; readonly type: ScalarType; readonly value: number }
  | { readonly kind: "affine"; readonly type: ScalarType; readonly index: DraftIndex }
  | { readonly kind: "load"; readonly type: ScalarType; readonly buffer: Buffer; readonly index: DraftIndex }
  | { readonly kind: "op"; readonly type: ScalarType; readonly op: ScalarOp; readonly args: readonly Draft[] }
  | { readonly kind: "threefry"; readonly type: "u32"; readonly lane: 0 | 1; readonly args: readonly Draft[] }
  | { readonly kind: "result"; readonly type: ScalarType; readonly phase: number };

export interface DraftIndex {
  readonly offset: number;
  readonly strides: readonly number[];
  readonly dynamic?: readonly { readonly value: Draft; readonly stride: number }[];
}

/** A store while its axes may still be merged. */
export interface DraftStore {
  readonly buffer: Buffer;
  readonly index: DraftIndex;
  readonly value: Draft;
}

/** The expression of a window whose axes are the kernel's. */
export function draftOf(repr: Repr, strides: readonly number[] = repr.view.strides): Draft {
  const type = arithmeticType[repr.dtype];
  const { base, view } = repr;
  if (base === "counter") return { kind: "affine", type, index: { offset: view.offset, strides } };
  if (!isBuffer(base)) return { kind: "const", type, value: base.constant };
  return { kind: "load", type, buffer: base, index: { offset: view.offset, strides } };
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
