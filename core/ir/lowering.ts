/** How a primitive becomes (part of) a kernel. A closed union: partition and lower dispatch on `kind`, never on a name. */
import type { Aval } from "../aval.ts";

/** A strided window on a buffer: element (i…) of `shape` lies at offset + Σ i·strides. */
export interface View {
  readonly shape: readonly number[];
  readonly offset: number;
  readonly strides: readonly number[];
}

export type Lowering<P = any> =
  /** An input or a tensor: nothing to compute. */
  | { readonly kind: "leaf" }
  /** A constant of rank 0. */
  | { readonly kind: "constant"; readonly value: (params: P) => number }
  /** One scalar operation (`ScalarOp` of `core/ops/elementwise.ts`) per element, inputs and output of one shape. */
  | { readonly kind: "scalar"; readonly op: string }
  /** The counter along one axis. */
  | { readonly kind: "iota"; readonly axis: (params: P) => number }
  /** Threefry bits of (key, flat index). */
  | { readonly kind: "random" }
  /** The first input through another window, one per output; null where no strides say it and a copy must be made. */
  | {
    readonly kind: "view";
    readonly view: (source: View, params: P, out: Aval, index: number) => View | null;
  }
  /** The inputs as they are: outputs i is input i (a barrier, a stopped gradient). */
  | { readonly kind: "alias" }
  /** Inputs laid side by side along an axis. */
  | { readonly kind: "concat"; readonly axis: (params: P) => number }
  /** The input with zeros around it. */
  | { readonly kind: "pad"; readonly low: (params: P) => readonly number[] }
  /** A reduction over some axes. */
  | {
    readonly kind: "reduce";
    readonly op: "sum" | "max" | "argmax";
    readonly axes: (params: P) => readonly number[];
  }
  /** A dot with dimension numbers. */
  | { readonly kind: "contract" }
  /** Rows of a table picked by an index. */
  | { readonly kind: "gather" }
  /** Rows added into a zero table by an index. */
  | { readonly kind: "scatter" }
  /** A window of the first input that starts where the other inputs say. */
  | { readonly kind: "dynamicSlice" }
  /** The first input with the second written over it where the other inputs say. */
  | { readonly kind: "dynamicUpdate" }
  /** A composite whose definition is lowered as one row kernel. */
  | { readonly kind: "row" }
  /** What a product may do to its rows as it reads them, on devices that can; elsewhere replaced by its definition. */
  | { readonly kind: "rounded" }
  /** Attention, one of its three passes. */
  | { readonly kind: "attention"; readonly pass: "forward" | "backward-q" | "backward-kv" }
  /** Replaced by its definition before partitioning. */
  | { readonly kind: "expand" };
