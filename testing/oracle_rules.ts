/** What each primitive computes, one plain loop each, by the primitive's name. */
import { type Aval, sizeOf, stridesOf } from "../core/aval.ts";
import type { OracleTensor } from "./oracle_tensor.ts";
import { binary, bitcastTo, convertTo, threefry, unary, wrap } from "./oracle_scalar.ts";

type Rule = (inputs: readonly OracleTensor[], params: any, outs: readonly Aval[]) => Float64Array[];

/** Calls `visit(position, flat)` for every index of a shape, in row-major order. The position is one array, reused. */
function each(shape: readonly number[], visit: (at: number[], flat: number) => void): void {
  const at = shape.map(() => 0);
  const size = sizeOf(shape);
  for (let flat = 0; flat < size; flat++) {
    visit(at, flat);
    for (let axis = shape.length - 1; axis >= 0 && ++at[axis] === shape[axis]; axis--) at[axis] = 0;
  }
}

/** out[i…] = x[offset + Σ i·stride]. */
function pick(x: OracleTensor, shape: readonly number[], strides: readonly number[], offset = 0): Float64Array {
  const out = new Float64Array(sizeOf(shape));
  each(shape, (at, flat) => {
    let from = offset;
    for (let i = 0; i < at.length; i++) from += at[i] * strides[i];
    out[flat] = x.data[from];
  });
  return out;
}

/** The flat offsets of every index over some axes of a shape. */
function offsets(shape: readonly number[], axes: readonly number[]): Int32Array {
  const strides = stridesOf(shape);
  const out = new Int32Array(sizeOf(axes.map((a) => shape[a])));
  each(axes.map((a) => shape[a]), (at, flat) => {
    for (let i = 0; i < axes.length; i++) out[flat] += at[i] * strides[axes[i]];
  });
  return out;
}

const others = (rank: number, taken: readonly number[]) => [...Array(rank).keys()].filter((i) => !taken.includes(i));
const clampTo = (x: number, high: number) => Math.min(high, Math.max(0, x));

function reduce(start: number, step: (sum: number, x: number) => number): Rule {
  return ([x], { axes }) => {
    const inner = offsets(x.shape, axes);
    const outer = offsets(x.shape, others(x.shape.length, axes));
    const over = (o: number) => inner.reduce((sum, i) => wrap(step(sum, x.data[o + i]), x.dtype), start);
    return [Float64Array.from(outer, over)];
  };
}

const dot: Rule = ([a, b], { contract: [ac, bc], batch: [ab, bb] }) => {
  const [ka, kb] = [offsets(a.shape, ac), offsets(b.shape, bc)];
  const [fa, fb] = [
    offsets(a.shape, others(a.shape.length, [...ac, ...ab])),
    offsets(b.shape, others(b.shape.length, [...bc, ...bb])),
  ];
  const [na, nb] = [offsets(a.shape, ab), offsets(b.shape, bb)];
  const out = new Float64Array(na.length * fa.length * fb.length);
  let flat = 0;
  for (let n = 0; n < na.length; n++) {
    for (const m of fa) {
      for (const f of fb) {
        let sum = 0;
        for (let k = 0; k < ka.length; k++) sum += a.data[na[n] + m + ka[k]] * b.data[nb[n] + f + kb[k]];
        out[flat++] = sum;
      }
    }
  }
  return [out];
};

const concat: Rule = (inputs, { axis }, [out]) => {
  const data = new Float64Array(sizeOf(out.shape));
  const strides = stridesOf(out.shape);
  let start = 0;
  for (const x of inputs) {
    each(
      x.shape,
      (at, flat) => data[at.reduce((sum, i, a) => sum + i * strides[a], start * strides[axis])] = x.data[flat],
    );
    start += x.shape[axis];
  }
  return [data];
};

const split: Rule = ([x], { axis }, outs) => {
  const strides = stridesOf(x.shape);
  let start = 0;
  return outs.map(({ shape }) => {
    const piece = pick(x, shape, strides, start * strides[axis]);
    start += shape[axis];
    return piece;
  });
};

const pad: Rule = ([x], { low }, [out]) => {
  const data = new Float64Array(sizeOf(out.shape));
  const strides = stridesOf(out.shape);
  each(x.shape, (at, flat) => data[at.reduce((sum, i, a) => sum + (i + low[a]) * strides[a], 0)] = x.data[flat]);
  return [data];
};

const gather: Rule = ([table, indices]) => {
  const width = sizeOf(table.shape.slice(1));
  const out = new Float64Array(indices.data.length * width);
  indices.data.forEach((index, i) => {
    const row = clampTo(index, table.shape[0] - 1) * width;
    for (let j = 0; j < width; j++) out[i * width + j] = table.data[row + j];
  });
  return [out];
};

const scatterAdd: Rule = ([indices, updates], { targets }, [out]) => {
  const width = sizeOf(out.shape.slice(1));
  const data = new Float64Array(targets * width);
  indices.data.forEach((index, i) => {
    if (index < 0 || index >= targets) return;
    const row = index * width;
    for (let j = 0; j < width; j++) data[row + j] += updates.data[i * width + j];
  });
  return [data];
};

/** Where a window of `size` really starts: the asked-for place, moved so that it lies inside. */
const windowStart = (x: OracleTensor, size: readonly number[], starts: readonly OracleTensor[]) =>
  x.shape.map((d, i) => clampTo(starts[i].data[0], d - size[i]));

const dynamicSlice: Rule = ([x, ...starts], { sizes }) => {
  const strides = stridesOf(x.shape);
  const offset = windowStart(x, sizes, starts).reduce((sum, s, i) => sum + s * strides[i], 0);
  return [pick(x, sizes, strides, offset)];
};

const dynamicUpdateSlice: Rule = ([x, update, ...starts]) => {
  const strides = stridesOf(x.shape);
  const start = windowStart(x, update.shape, starts);
  const data = x.data.slice();
  each(update.shape, (at, flat) => {
    data[at.reduce((sum, i, a) => sum + (start[a] + i) * strides[a], 0)] = update.data[flat];
  });
  return [data];
};

const argmax: Rule = ([x], { axis }) => {
  const stride = stridesOf(x.shape)[axis];
  return [Float64Array.from(offsets(x.shape, others(x.shape.length, [axis])), (from) => {
    let best = 0, most = -Infinity;
    for (let i = 0; i < x.shape[axis]; i++) {
      const here = x.data[from + i * stride];
      if (here > most) [best, most] = [i, here];
    }
    return best;
  })];
};

const broadcast: Rule = ([x], { shape, dims }) => {
  const from = stridesOf(x.shape);
  const strides = (shape as number[]).map((_, axis) => {
    const i = dims.indexOf(axis);
    return i < 0 || x.shape[i] === 1 ? 0 : from[i];
  });
  return [pick(x, shape, strides)];
};

const select: Rule = ([c, a, b]) => [c.data.map((test, i) => test ? a.data[i] : b.data[i])];
const same: Rule = (inputs, _, outs) => outs.map((_, i) => inputs[i].data);

export const rules: Record<string, Rule> = {
  constant: (_, { value }) => [Float64Array.of(value)],
  iota: (_, { shape, axis }) => {
    const out = new Float64Array(sizeOf(shape));
    each(shape, (at, flat) => out[flat] = at[axis]);
    return [out];
  },
  convert: ([x], { dtype }) => [x.data.map((v) => convertTo(v, dtype, x.dtype))],
  bitcast: ([x], { dtype }) => [x.data.map((v) => bitcastTo(v, dtype, x.dtype))],
  select,
  broadcast,
  reshape: same,
  transpose: ([x], { permutation }, [out]) => {
    const strides = stridesOf(x.shape);
    return [pick(x, out.shape, permutation.map((d: number) => strides[d]))];
  },
  slice: ([x], { start, size }) => {
    const strides = stridesOf(x.shape);
    return [pick(x, size, strides, start.reduce((sum: number, s: number, i: number) => sum + s * strides[i], 0))];
  },
  pad,
  concat,
  split,
  reduceSum: reduce(0, (sum, x) => sum + x),
  reduceMax: reduce(-Infinity, (most, x) => Math.max(most, x)),
  argmax,
  dot,
  gather,
  scatterAdd,
  dynamicSlice,
  dynamicUpdateSlice,
  randomBits: ([key], { shape }) => [Float64Array.from({ length: sizeOf(shape) }, (_, i) => threefry(key.data, i)[0])],
  dequantize: same,
  stopGradient: same,
  barrier: same,
};
for (const [name, f] of Object.entries(unary)) {
  rules[name] = ([x], _, [out]) => [x.data.map((v) => wrap(f(v, x.dtype), out.dtype))];
}
for (const [name, f] of Object.entries(binary)) {
  rules[name] = ([a, b], _, [out]) => [a.data.map((v, i) => wrap(f(v, b.data[i], a.dtype), out.dtype))];
}

type TermRule = (
  values: readonly OracleTensor[],
  terms: readonly OracleTensor[],
  params: any,
  outs: readonly Aval[],
) => Float64Array[];
const moved = (rule: Rule): TermRule => (_, terms, params, outs) => rule(terms, params, outs);

/** How Σ|terms| passes through the operations that add, multiply or move; the rest start again. */
export const termRules: Record<string, TermRule> = {
  neg: moved(same),
  abs: moved(same),
  add: moved(rules.add),
  sub: moved(rules.add),
  mul: moved(rules.mul),
  div: ([, b], [a]) => [a.data.map((t, i) => t / Math.abs(b.data[i]))],
  select: ([c], [, a, b]) => [c.data.map((test, i) => test ? a.data[i] : b.data[i])],
  dynamicSlice: ([, ...starts], [x], params, outs) => rules.dynamicSlice([x, ...starts], params, outs),
  dynamicUpdateSlice: ([, , ...starts], [x, update], params, outs) =>
    rules.dynamicUpdateSlice([x, update, ...starts], params, outs),
  gather: ([, indices], [table], params, outs) => rules.gather([table, indices], params, outs),
  scatterAdd: ([indices], [, updates], params, outs) => rules.scatterAdd([indices, updates], params, outs),
  ...Object.fromEntries(
    [
      "broadcast",
      "reshape",
      "transpose",
      "slice",
      "pad",
      "concat",
      "split",
      "reduceSum",
      "dot",
      "dequantize",
      "stopGradient",
    ]
      .map((name) => [name, moved(rules[name])]),
  ),
};
