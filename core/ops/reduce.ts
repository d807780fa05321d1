import { type Aval, formatAval } from "../aval.ts";
import { ShapeError } from "../errors.ts";
import { bind1, type Primitive, type Value } from "../ir/graph.ts";
import { isPacked } from "../packed/blocks.ts";
import type { Operand } from "../tensor.ts";
import type { Scalar } from "../tree_types.ts";
import {
  type Axes,
  broadcastTo,
  dropAxes,
  inferReduce,
  reduceSum,
  reduceWith,
  reshape,
  unreduce,
} from "./broadcast.ts";
import { axesOf, axisOf } from "./arguments.ts";
import { asValue } from "./constant.ts";
import { div, eq, le, mul, select } from "./elementwise.ts";
import { iota } from "./structure.ts";
import { checkOptions } from "../options.ts";

/** What of nothing is not a number: the greatest, the mean. */
function requireElements(name: string, x: Aval, axes: readonly number[]): void {
  const empty = axes.find((a) => x.shape[a] === 0);
  if (empty === undefined) return;
  throw new ShapeError(
    `Cannot ${name} ${formatAval(x)} over axis ${empty}: it has no elements`,
  );
}

/** Where several elements are the greatest they share the gradient, each an equal part. */
export const reduceMaxPrim: Primitive<Axes> = {
  name: "reduceMax",
  infer: ([x], params) => {
    const outs = inferReduce("reduceMax")([x], params);
    requireElements("reduceMax", x, params.axes);
    return outs;
  },
  vjp: ({ cts: [ct], inputs: [x], outs: [y], params: { axes } }) => {
    if (!ct) return [null];
    const hit = select(eq(x, unreduce(y, x.shape, axes)), 1, 0);
    return [mul(hit, unreduce(div(ct, reduceSum(hit, axes)), x.shape, axes))];
  },
  batch: ({ inputs: [x], params: { axes } }) => [reduceMax(x, axes.map((a) => a + 1))],
  lowering: { kind: "reduce", op: "max", axes: (p) => p.axes },
};

export const argmaxPrim: Primitive<{ axis: number }> = {
  name: "argmax",
  infer: ([x], { axis }) => {
    if (x.dtype === "bool" || isPacked(x.dtype)) {
      throw new ShapeError(`Cannot argmax ${formatAval(x)}: it takes numbers; convert(x, "f32") first`);
    }
    axisOf("argmax", x, axis);
    requireElements("argmax", x, [axis]);
    return [{ shape: dropAxes(x.shape, [axis]), dtype: "i32" }];
  },
  vjp: "nondifferentiable",
  batch: ({ inputs: [x], params: { axis } }) => [bind1(argmaxPrim, [x], { axis: axis + 1 })],
  lowering: { kind: "reduce", op: "argmax", axes: (p) => [p.axis] },
};

/** The greatest over some axes, or all. */
export function reduceMax(x: Operand): Scalar;
/** {@link reduceMax} over some axes. */
export function reduceMax(x: Operand, axes?: number | readonly number[], options?: { keep?: boolean }): Value;
export function reduceMax(x: Operand, axes?: number | readonly number[], options: { keep?: boolean } = {}): Value {
  return reduceWith(reduceMaxPrim, x, axes, options);
}

/** The mean over some axes, or all. */
export function mean(x: Operand): Scalar;
/** {@link mean} over some axes. */
export function mean(x: Operand, axes?: number | readonly number[], options?: { keep?: boolean }): Value;
export function mean(x: Operand, axes?: number | readonly number[], options: { keep?: boolean } = {}): Value {
  checkOptions("mean", options, { keep: true });
  const value = asValue(x);
  const list = axesOf("mean", value.aval, axes);
  if (value.dtype !== "f32") {
    throw new ShapeError(`Cannot mean ${formatAval(value.aval)}: it takes f32; convert(x, "f32") first`);
  }
  requireElements("mean", value.aval, list);
  const count = list.reduce((n, a) => n * value.shape[a], 1);
  return mul(reduceSum(value, axes, options), 1 / count);
}

/** The i32 position of the first greatest element along an axis; NaN is passed over. */
export function argmax(x: Operand, axis = -1): Value {
  const value = asValue(x);
  return bind1(argmaxPrim, [value], { axis: axisOf("argmax", value.aval, axis) });
}

/** Cumulative sums along the last axis. O(n²) work in one kernel that stores no n x n array: meant for masks, n ≤ 8192. */
export function cumsum(x: Operand): Value {
  const value = asValue(x);
  const n = value.shape[axisOf("cumsum", value.aval, -1)];
  const shape = [...value.shape, n];
  const seen = le(iota(shape, shape.length - 1), iota(shape, shape.length - 2));
  const repeated = broadcastTo(reshape(value, [...value.shape.slice(0, -1), 1, n]), shape);
  return reduceSum(select(seen, repeated, 0), -1);
}
