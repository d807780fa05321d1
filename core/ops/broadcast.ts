/** Broadcast and sum, each the adjoint of the other, and reshape, which both need. */
import { type Aval, formatAval, sameShape, sizeOf, stridesOf } from "../aval.ts";
import type { DType } from "../dtype.ts";
import { ShapeError } from "../errors.ts";
import { bind1, type Primitive, type Value } from "../ir/graph.ts";
import type { View } from "../ir/lowering.ts";
import type { Operand } from "../tensor.ts";
import type { Scalar } from "../tree_types.ts";
import { axesOf, shapeOf } from "./arguments.ts";
import { asValue, constant } from "./constant.ts";
import { checkOptions } from "../options.ts";

/** Copies along new axes: axis i of the input is axis `dims[i]` of the output, of the same size or stretched from 1. */
export const broadcastPrim: Primitive<{ shape: readonly number[]; dims: readonly number[] }> = {
  name: "broadcast",
  infer: ([x], { shape, dims }) => {
    const fits = x.shape.every((d, i) => dims[i] in shape && (d === 1 || d === shape[dims[i]]));
    if (dims.length !== x.shape.length || !fits) {
      throw new ShapeError(`Cannot broadcast ${formatAval(x)} to [${shape}] with its axes at [${dims}]`);
    }
    return [{ shape, dtype: x.dtype }];
  },
  vjp: ({ cts: [ct], inputs: [x], params: { shape, dims } }) => {
    if (!ct) return [null];
    const summed = shape.map((_, i) => i).filter((i) => !dims.includes(i) || x.shape[dims.indexOf(i)] !== shape[i]);
    return [reshape(reduceSum(ct, summed), x.shape)];
  },
  batch: ({ inputs: [x], params: { shape, dims }, size }) => [
    bind1(broadcastPrim, [x], { shape: [size, ...shape], dims: [0, ...dims.map((d) => d + 1)] }),
  ],
  lowering: {
    kind: "view",
    view: (source, { shape, dims }) => {
      const strides = shape.map(() => 0);
      dims.forEach((d, i) => strides[d] = source.shape[i] === 1 && shape[d] !== 1 ? 0 : source.strides[i]);
      return { shape, offset: source.offset, strides };
    },
  },
};

/**
 * `x` stretched to `shape` by NumPy's rule (aligned at the end), or with `leading` by adding axes in front only.
 */
export function broadcastTo(x: Operand, shape: readonly number[], options: { leading?: boolean } = {}): Value {
  checkOptions("broadcastTo", options, { leading: true });
  const value = asValue(x);
  shapeOf("broadcast", shape);
  if (!options.leading && sameShape(value.shape, shape)) return value;
  const extra = shape.length - value.shape.length;
  return bind1(broadcastPrim, [value], { shape, dims: value.shape.map((_, i) => i + extra) });
}

/** The same elements, in row-major order, under another shape. */
export const reshapePrim: Primitive<{ shape: readonly number[] }> = {
  name: "reshape",
  infer: ([x], { shape }) => {
    if (sizeOf(shape) !== sizeOf(x.shape)) {
      throw new ShapeError(
        `Cannot reshape ${formatAval(x)} to [${shape}]: ${sizeOf(x.shape)} elements against ${sizeOf(shape)}`,
      );
    }
    return [{ shape, dtype: x.dtype }];
  },
  vjp: ({ cts: [ct], inputs: [x] }) => [ct && reshape(ct, x.shape)],
  batch: ({ inputs: [x], params, size }) => [reshape(x, [size, ...params.shape])],
  lowering: { kind: "view", view: (source, { shape }) => reshapeView(source, shape) },
};

/** A reshaped window, where strides can say it: runs of axes that are merged or split must lie evenly in memory. */
export function reshapeView(source: View, shape: readonly number[]): View | null {
  // Of no elements none is looked up.
  if (sizeOf(shape) === 0) return { shape, offset: source.offset, strides: stridesOf(shape) };
  // Drop axes of 1, then walk both shapes in runs of equal products.
  const from = source.shape.map((d, i) => ({ d, s: source.strides[i] })).filter((x) => x.d !== 1);
  const strides = new Array<number>(shape.length).fill(0);
  let i = 0, j = 0;
  while (i < from.length || j < shape.length) {
    if (j < shape.length && shape[j] === 1) {
      j++;
      continue;
    }
    if (i >= from.length) return null;
    const [i0, j0] = [i, j];
    let a = from[i++].d, b = shape[j++];
    while (a !== b) {
      if (a < b) a *= from[i++].d;
      else b *= shape[j++];
    }
    for (let k = i0; k + 1 < i; k++) if (from[k].s !== from[k + 1].s * from[k + 1].d) return null;
    let step = from[i - 1].s;
    for (let k = j - 1; k >= j0; k--) {
      strides[k] = step;
      step *= shape[k];
    }
  }
  return { shape, offset: source.offset, strides };
}

/** The same elements under another shape; one size may be -1. */
export function reshape(x: Operand, shape: readonly number[]): Value {
  const value = asValue(x);
  const open = Array.isArray(shape) ? shape.indexOf(-1) : -1;
  if (open >= 0) shapeOf(`reshape ${formatAval(value.aval)}`, shape.toSpliced(open, 1));
  const known = open >= 0 ? sizeOf(shape.toSpliced(open, 1)) : 1;
  const full = open >= 0 ? shape.with(open, sizeOf(value.shape) / known) : shape;
  if (open >= 0 && !Number.isInteger(full[open])) {
    throw new ShapeError(
      `Cannot reshape ${formatAval(value.aval)} to [${shape}]: ` +
        (known === 0 ? "beside a size of 0 any would do for -1, so give it" : `${known} does not divide its elements`),
    );
  }
  shapeOf(`reshape ${formatAval(value.aval)}`, full);
  return sameShape(full, value.shape) ? value : bind1(reshapePrim, [value], { shape: full });
}

/** A constant in every place of a shape. */
export function full(shape: readonly number[], value: number, dtype: DType = "f32"): Value {
  return broadcastTo(constant(value, dtype), shapeOf("fill", shape));
}

/** The window of a whole, contiguous buffer of `shape`. */
export function wholeView(shape: readonly number[]): View {
  return { shape, offset: 0, strides: stridesOf(shape) };
}

/** The axes that a reduction removes. */
export type Axes = { axes: readonly number[] };

/** A shape without some axes. */
export const dropAxes = (shape: readonly number[], axes: readonly number[]) =>
  shape.filter((_, i) => !axes.includes(i));

/** The shape rule of reductions. */
export function inferReduce(name: string) {
  return ([x]: readonly Aval[], { axes }: Axes): Aval[] => {
    if (x.dtype !== "f32" && x.dtype !== "i32" && x.dtype !== "u32") {
      throw new ShapeError(`Cannot ${name} ${formatAval(x)}: it takes f32, i32 or u32; convert(x, "f32") first`);
    }
    axesOf(name, x, axes);
    return [{ shape: dropAxes(x.shape, axes), dtype: x.dtype }];
  };
}

/** Undoes a reduction's shape: `y` repeated along `axes` of `shape`. */
export function unreduce(y: Value, shape: readonly number[], axes: readonly number[]): Value {
  return bind1(broadcastPrim, [y], { shape, dims: shape.map((_, i) => i).filter((i) => !axes.includes(i)) });
}

export const reduceSumPrim: Primitive<Axes> = {
  name: "reduceSum",
  infer: inferReduce("reduceSum"),
  vjp: ({ cts: [ct], inputs: [x], params: { axes } }) => [ct && unreduce(ct, x.shape, axes)],
  batch: ({ inputs: [x], params: { axes } }) => [reduceSum(x, axes.map((a) => a + 1))],
  lowering: { kind: "reduce", op: "sum", axes: (p) => p.axes },
};

/** A kernel reduces one run of neighbouring axes, so scattered ones are reduced run by run, the last first. */
function reduceRuns(prim: Primitive<Axes>, x: Value, axes: readonly number[]): Value {
  let y = x;
  for (let end = axes.length; end > 0;) {
    let start = end - 1;
    while (start > 0 && axes[start - 1] === axes[start] - 1) start--;
    y = bind1(prim, [y], { axes: axes.slice(start, end) });
    end = start;
  }
  return y;
}

/** The sum over some axes, or all. With `keep` they stay, with size 1. */
export function reduceSum(x: Operand): Scalar;
/** {@link reduceSum} over some axes. */
export function reduceSum(x: Operand, axes?: number | readonly number[], options?: { keep?: boolean }): Value;
export function reduceSum(x: Operand, axes?: number | readonly number[], options: { keep?: boolean } = {}): Value {
  return reduceWith(reduceSumPrim, x, axes, options);
}

/** A reduction by `prim`, with the axes as users write them. */
export function reduceWith(
  prim: Primitive<Axes>,
  x: Operand,
  axes: number | readonly number[] | undefined,
  options: { keep?: boolean },
): Value {
  checkOptions(prim.name, options, { keep: true });
  const value = asValue(x);
  const list = axesOf(prim.name, value.aval, axes).sort((a, b) => a - b);
  const y = reduceRuns(prim, value, list);
  return options.keep ? reshape(y, value.shape.map((d, i) => list.includes(i) ? 1 : d)) : y;
}
