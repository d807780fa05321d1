import { type Aval, formatAval } from "../aval.ts";
import type { DType } from "../dtype.ts";
import { ShapeError } from "../errors.ts";
import { bind, bind1, type Primitive, type Value } from "../ir/graph.ts";
import type { Operand } from "../tensor.ts";
import { broadcastTo, full } from "./broadcast.ts";
import { asValue } from "./constant.ts";

/** Axis i of the output is axis `permutation[i]` of the input. */
export const transposePrim: Primitive<{ permutation: readonly number[] }> = {
  name: "transpose",
  infer: ([x], { permutation }) => {
    if ([...permutation].sort((a, b) => a - b).some((d, i) => d !== i) || permutation.length !== x.shape.length) {
      throw new ShapeError(`Cannot transpose ${formatAval(x)} by [${permutation}]: each axis must be named once`);
    }
    return [{ shape: permutation.map((d) => x.shape[d]), dtype: x.dtype }];
  },
  vjp: ({ cts: [ct], params: { permutation } }) => [
    ct && transpose(ct, permutation.map((_, i) => permutation.indexOf(i))),
  ],
  batch: ({ inputs: [x], params }) => [transpose(x, [0, ...params.permutation.map((d) => d + 1)])],
  lowering: {
    kind: "view",
    view: (source, { permutation }) => ({
      shape: permutation.map((d) => source.shape[d]),
      offset: source.offset,
      strides: permutation.map((d) => source.strides[d]),
    }),
  },
};

/** The axes in another order; by default the last two are swapped. */
export function transpose(x: Operand, permutation?: readonly number[]): Value {
  const value = asValue(x);
  const rank = value.shape.length;
  const order = permutation ?? [...value.shape.keys().take(rank - 2), rank - 1, rank - 2];
  return order.every((d, i) => d === i) ? value : bind1(transposePrim, [value], { permutation: order });
}

/** Elements start ≤ i < start + size of every axis. */
export const slicePrim: Primitive<{ start: readonly number[]; size: readonly number[] }> = {
  name: "slice",
  infer: ([x], { start, size }) => {
    if (start.length !== x.shape.length || start.some((s, i) => s < 0 || size[i] < 0 || s + size[i] > x.shape[i])) {
      throw new ShapeError(`Cannot slice ${formatAval(x)} from [${start}] by [${size}]: it reaches outside`);
    }
    return [{ shape: size, dtype: x.dtype }];
  },
  vjp: ({ cts: [ct], inputs: [x], params: { start, size } }) => [
    ct && pad(ct, start, x.shape.map((d, i) => d - start[i] - size[i])),
  ],
  batch: ({ inputs: [x], params: { start, size }, size: n }) => [
    bind1(slicePrim, [x], { start: [0, ...start], size: [n, ...size] }),
  ],
  lowering: {
    kind: "view",
    view: (source, { start, size }) => ({
      shape: size,
      offset: source.offset + start.reduce((sum, s, i) => sum + s * source.strides[i], 0),
      strides: source.strides,
    }),
  },
};

/** A window along one axis: elements `start` to `end`, exclusive. */
export function slice(x: Operand, axis: number, start: number, end: number): Value {
  const value = asValue(x);
  const at = axis < 0 ? axis + value.shape.length : axis;
  if (start === 0 && end === value.shape[at]) return value;
  return bind1(slicePrim, [value], {
    start: value.shape.map((_, i) => i === at ? start : 0),
    size: value.shape.map((d, i) => i === at ? end - start : d),
  });
}

/** Zeros around the input: `low[i]` before and `high[i]` after it on axis i. */
export const padPrim: Primitive<{ low: readonly number[]; high: readonly number[] }> = {
  name: "pad",
  infer: ([x], { low, high }) => {
    if (low.length !== x.shape.length || high.length !== x.shape.length || [...low, ...high].some((n) => n < 0)) {
      throw new ShapeError(`Cannot pad ${formatAval(x)} by [${low}] and [${high}]: one size of at least 0 per axis`);
    }
    return [{ shape: x.shape.map((d, i) => d + low[i] + high[i]), dtype: x.dtype }];
  },
  vjp: ({ cts: [ct], inputs: [x], params: { low } }) => [
    ct && bind1(slicePrim, [ct], { start: low, size: x.shape }),
  ],
  batch: ({ inputs: [x], params: { low, high } }) => [pad(x, [0, ...low], [0, ...high])],
  lowering: { kind: "pad", low: (p) => p.low },
};

/** `x` with `low[i]` zeros before and `high[i]` after it along axis i. */
export function pad(x: Operand, low: readonly number[], high: readonly number[]): Value {
  const value = asValue(x);
  if (low.every((n) => n === 0) && high.every((n) => n === 0)) return value;
  return bind1(padPrim, [value], { low, high });
}

/** The inputs laid side by side along one axis. */
export const concatPrim: Primitive<{ axis: number }> = {
  name: "concat",
  infer: (inputs, { axis }) => {
    const [first] = inputs;
    for (const x of inputs) {
      if (
        x.dtype !== first.dtype || x.shape.length !== first.shape.length ||
        x.shape.some((d, i) => i !== axis && d !== first.shape[i])
      ) {
        throw new ShapeError(
          `Cannot concat ${inputs.map(formatAval).join(", ")} along axis ${axis}: the other sizes must be equal`,
        );
      }
    }
    const total = inputs.reduce((n, x) => n + x.shape[axis], 0);
    return [{ shape: first.shape.map((d, i) => i === axis ? total : d), dtype: first.dtype }];
  },
  vjp: ({ cts: [ct], inputs, params: { axis } }) => {
    if (!ct) return inputs.map(() => null);
    return [...bind(splitPrim, [ct], { axis, sizes: inputs.map((x) => x.shape[axis]) })];
  },
  batch: ({ inputs, batched, params: { axis }, size }) => [
    bind1(
      concatPrim,
      inputs.map((x, i) => batched[i] ? x : broadcastTo(x, [size, ...x.shape], { leading: true })),
      { axis: axis + 1 },
    ),
  ],
  lowering: { kind: "concat", axis: (p) => p.axis },
};

/** Values laid side by side along an axis. */
export function concat(values: readonly Operand[], axis: number): Value {
  const all = values.map((v) => asValue(v));
  if (all.length === 0) throw new ShapeError(`Cannot concat nothing along axis ${axis}: it takes one value at least`);
  return all.length === 1 ? all[0] : bind1(concatPrim, all, { axis: axis < 0 ? axis + all[0].shape.length : axis });
}

/** One output per piece of an axis. */
export const splitPrim: Primitive<{ axis: number; sizes: readonly number[] }> = {
  name: "split",
  infer: ([x], { axis, sizes }) => {
    if (sizes.reduce((a, b) => a + b, 0) !== x.shape[axis]) {
      throw new ShapeError(`Cannot split ${formatAval(x)} along axis ${axis} into [${sizes}]: they must add up to it`);
    }
    return sizes.map((size) => ({ shape: x.shape.map((d, i) => i === axis ? size : d), dtype: x.dtype }));
  },
  vjp: ({ cts, outs, params: { axis } }) => {
    if (cts.every((ct) => ct === null)) return [null];
    return [concat(cts.map((ct, i) => ct ?? full(outs[i].shape, 0, outs[i].dtype)), axis)];
  },
  batch: ({ inputs: [x], params: { axis, sizes } }) => [...bind(splitPrim, [x], { axis: axis + 1, sizes })],
  lowering: {
    kind: "view",
    view: (source, { axis, sizes }, out, index) => ({
      shape: out.shape,
      offset: source.offset + source.strides[axis] * sizes.slice(0, index).reduce((a, b) => a + b, 0),
      strides: source.strides,
    }),
  },
};

/** Equal or given pieces of an axis. */
export function split(x: Operand, axis: number, sizes: number | readonly number[]): Value[] {
  const value = asValue(x);
  const at = axis < 0 ? axis + value.shape.length : axis;
  const pieces = typeof sizes === "number" ? Array(sizes).fill(value.shape[at] / sizes) : sizes;
  return [...bind(splitPrim, [value], { axis: at, sizes: pieces })];
}

/** The counter along `axis`, the same in every other place. */
export const iotaPrim: Primitive<{ shape: readonly number[]; axis: number; dtype: DType }> = {
  name: "iota",
  infer: (_, { shape, dtype }): Aval[] => [{ shape, dtype }],
  vjp: "nondifferentiable",
  batch: "expand",
  lowering: { kind: "iota", axis: (p) => p.axis },
};

/** 0, 1, 2, … along `axis` of `shape`. */
export function iota(shape: readonly number[], axis = shape.length - 1, dtype: DType = "i32"): Value {
  return bind1(iotaPrim, [], { shape, axis, dtype });
}

/** Moves an axis to another place. */
export function moveAxis(x: Operand, from: number, to: number): Value {
  const value = asValue(x);
  const order = value.shape.map((_, i) => i).filter((i) => i !== from);
  order.splice(to, 0, from);
  return transpose(value, order);
}
