import { type Aval, formatAval } from "../aval.ts";
import type { DType } from "../dtype.ts";
import { ShapeError } from "../errors.ts";
import { bind, bind1, type Primitive, type Value } from "../ir/graph.ts";
import type { Operand } from "../tensor.ts";
import { isPacked } from "../packed/blocks.ts";
import { areWhole, axesOf, axisOf, shapeOf, showArgument } from "./arguments.ts";
import { broadcastTo, full } from "./broadcast.ts";
import { asValue } from "./constant.ts";

/** Axis i of the output is axis `permutation[i]` of the input. */
export const transposePrim: Primitive<{ permutation: readonly number[] }> = {
  name: "transpose",
  infer: ([x], { permutation }) => {
    if (axesOf("transpose", x, permutation).length !== x.shape.length) {
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
  const swapped = () => [...value.shape.keys().take(axisOf("transpose", value.aval, -2)), rank - 1, rank - 2];
  const order = permutation === undefined ? swapped() : axesOf("transpose", value.aval, permutation);
  return order.length === rank && order.every((d, i) => d === i)
    ? value
    : bind1(transposePrim, [value], { permutation: order });
}

/** Elements start ≤ i < start + size of every axis. */
export const slicePrim: Primitive<{ start: readonly number[]; size: readonly number[] }> = {
  name: "slice",
  infer: ([x], { start, size }) => {
    const whole = areWhole(start) && areWhole(size) && start.length === x.shape.length && size.length === start.length;
    if (!whole || start.some((s, i) => s + size[i] > x.shape[i])) {
      throw new ShapeError(
        `Cannot slice ${
          formatAval(x)
        } from [${start}] by [${size}]: starts and sizes are whole numbers from 0, within it`,
      );
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
  const at = axisOf("slice", value.aval, axis);
  if (!areWhole([start, end])) {
    throw new ShapeError(
      `Cannot slice ${formatAval(value.aval)} from ${showArgument(start)} to ${
        showArgument(end)
      }: they are whole numbers`,
    );
  }
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
    const whole = areWhole(low) && areWhole(high);
    if (!whole || low.length !== x.shape.length || high.length !== x.shape.length || isPacked(x.dtype)) {
      throw new ShapeError(
        `Cannot pad ${formatAval(x)} by ${showArgument(low)} and ${
          showArgument(high)
        }: it takes a whole number from 0 per axis, and nothing packed`,
      );
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
  const rank = value.shape.length;
  const none = [low, high].every((list) => areWhole(list) && list.length === rank && list.every((n) => n === 0));
  if (none) return value;
  return bind1(padPrim, [value], { low, high });
}

/** The inputs laid side by side along one axis. */
export const concatPrim: Primitive<{ axis: number }> = {
  name: "concat",
  infer: (inputs, { axis }) => {
    const [first] = inputs;
    if (first === undefined) throw new ShapeError("Cannot concat nothing: give at least one value");
    axisOf("concat", first, axis);
    for (const x of inputs) {
      if (
        isPacked(x.dtype) || x.dtype !== first.dtype || x.shape.length !== first.shape.length ||
        x.shape.some((d, i) => i !== axis && d !== first.shape[i])
      ) {
        throw new ShapeError(
          `Cannot concat ${
            inputs.map(formatAval).join(", ")
          } along axis ${axis}: dtypes and the other sizes must be equal, ` +
            `and none packed`,
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
  if (!Array.isArray(values)) throw new ShapeError(`Cannot concat ${showArgument(values)}: give a list of values`);
  const all = (values as readonly Operand[]).map((v) => asValue(v, "f32", "concat"));
  const at = all.length === 0 ? 0 : axisOf("concat", all[0].aval, axis);
  return all.length === 1 ? all[0] : bind1(concatPrim, all, { axis: at });
}

/** One output per piece of an axis. */
export const splitPrim: Primitive<{ axis: number; sizes: readonly number[] }> = {
  name: "split",
  infer: ([x], { axis, sizes }) => {
    axisOf("split", x, axis);
    if (!areWhole(sizes) || sizes.reduce((a, b) => a + b, 0) !== x.shape[axis]) {
      throw new ShapeError(
        `Cannot split ${formatAval(x)} along axis ${axis} into ${showArgument(sizes)}: whole numbers must add up to it`,
      );
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
  const at = axisOf("split", value.aval, axis);
  const length = value.shape[at];
  if (typeof sizes === "number" && !(Number.isSafeInteger(sizes) && sizes > 0 && length % sizes === 0)) {
    throw new ShapeError(`Cannot split ${formatAval(value.aval)} along axis ${axis} into ${sizes} equal pieces`);
  }
  const pieces = typeof sizes === "number" ? Array<number>(sizes).fill(length / sizes) : sizes;
  return [...bind(splitPrim, [value], { axis: at, sizes: pieces })];
}

/** The counter along `axis`, the same in every other place. */
export const iotaPrim: Primitive<{ shape: readonly number[]; axis: number; dtype: DType }> = {
  name: "iota",
  infer: (_, { shape, axis, dtype }): Aval[] => {
    axisOf("count", { shape, dtype }, axis);
    if (dtype !== "f32" && dtype !== "i32" && dtype !== "u32") {
      throw new ShapeError(`Cannot count in ${showArgument(dtype)}: counters are f32, i32 or u32`);
    }
    return [{ shape, dtype }];
  },
  vjp: "nondifferentiable",
  batch: "expand",
  lowering: { kind: "iota", axis: (p) => p.axis },
};

/** 0, 1, 2, … along `axis` of `shape`. */
export function iota(shape: readonly number[], axis = -1, dtype: DType = "i32"): Value {
  return bind1(iotaPrim, [], { shape, axis: axisOf("count", { shape: shapeOf("count", shape), dtype }, axis), dtype });
}

/** Moves an axis to another place. */
export function moveAxis(x: Operand, from: number, to: number): Value {
  const value = asValue(x);
  const order = value.shape.map((_, i) => i).filter((i) => i !== from);
  order.splice(to, 0, from);
  return transpose(value, order);
}
