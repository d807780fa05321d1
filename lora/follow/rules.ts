/**
 * The two tables that LoRA's rewrite stands on, by the primitive's name. A weight W is followed as g ⊙ (W + s·U·V), whose
 * factors are never multiplied out: view rules carry them along, use rules end them as g ⊙ (y + s·(xU)V).
 */
import { sizeOf, stridesOf } from "../../core/aval.ts";
import type { Node, Value } from "../../core/ir/graph.ts";
import { broadcastTo, reduceSum, reshape } from "../../core/ops/broadcast.ts";
import { asValue } from "../../core/ops/constant.ts";
import { dot } from "../../core/ops/contract.ts";
import { add, mul, sub } from "../../core/ops/elementwise.ts";
import { gather } from "../../core/ops/indexing.ts";
import { dropout } from "../../core/ops/random.ts";
import { slice, transpose } from "../../core/ops/structure.ts";
import type { Operand } from "../../core/tensor.ts";
import { type FollowedForm, withForm } from "./forms.ts";
import { arrange, type Named, product, type Side } from "./named.ts";

/** A weight's change: two factors that together have every axis of the value, and what multiplies base and change. */
export interface Factors {
  readonly pair?: readonly [Side, Side];
  /** One number for each place along some axes: DoRA's magnitude over the norm. Its r axis has size 1. */
  readonly gain?: Side;
  /** What is added along the result's axes of the weight, where there is no gain. Its r axis has size 1. */
  readonly bias?: Side;
  /** A change of another form, alone. Its sides are those of one row of the matrix's inputs, and of its outputs. */
  readonly form?: FollowedForm;
}

/** How a use scales the change, and what drops its input. */
export interface UseOptions {
  readonly scaling: Operand;
  /** What multiplies the change at each place of the first two axes of what the use gives, f32[B,T]. */
  readonly acts?: Value;
  /** Zeroes some of the input of the low-rank branch. */
  readonly drop?: { readonly key: Value; readonly rate: number };
}

/** The factors of each output of a view, or null where they can't be separated any more. */
type ViewRule = (factors: Factors, node: Node) => (Factors | null)[];

/** What a use's output y becomes: gain ⊙ (y + delta), all f32 and of y's shape. */
export interface Change {
  readonly delta?: Value;
  readonly gain?: Value;
  /** What it becomes as a whole, where that is no more work than a delta. */
  readonly whole?: Value;
  /** Which of the two factors the input met; 0 where there is no pair. */
  readonly inSide: 0 | 1;
  /** What met that factor, as rows: [rows, in]. */
  readonly met?: () => Value;
}

/** The change of a use's output, or null where no low-rank form is known. */
type UseRule = (
  factors: Factors,
  operand: number,
  inputs: readonly Value[],
  node: Node,
  options: UseOptions,
) => Change | null;

const lead = (side: Side) => side.r === "first" ? 1 : 0;
const sidesOf = ({ pair, gain, bias, form }: Factors) =>
  [...pair ?? [], gain, bias, form?.in, form?.out].filter((side) => side !== undefined);
const each = ({ pair, gain, bias, form }: Factors, f: (side: Side) => Side): Factors => ({
  ...(pair && { pair: [f(pair[0]), f(pair[1])] as const }),
  ...(gain && { gain: f(gain) }),
  ...(bias && { bias: f(bias) }),
  ...(form && { form: { ...form, in: f(form.in), out: f(form.out) } }),
});
const unchanged: ViewRule = (factors) => [factors];

/** A window along one axis, cut out of the factor that has it. */
function window(factors: Factors, axis: number, start: number, end: number): Factors {
  return each(factors, (side) => {
    const at = side.axes.indexOf(axis);
    return at < 0 ? side : { ...side, value: slice(side.value, at + lead(side), start, end) };
  });
}

/** A factor with its axes in the order of the value's. */
function inOrder(side: Side): Side {
  const order = side.axes.map((_, i) => i).sort((a, b) => side.axes[a] - side.axes[b]);
  const moved = order.map((i) => i + lead(side));
  const value = transpose(side.value, side.r === "first" ? [0, ...moved] : [...moved, order.length]);
  return { ...side, value, axes: order.map((i) => side.axes[i]) };
}

/** Groups of neighbouring axes, without those of 1, that a reshape merges into or splits from each other. */
function runsOf(from: readonly number[], to: readonly number[]): { from: number[]; to: number[] }[] {
  const ends = (shape: readonly number[]) => {
    const strides = stridesOf(shape);
    return shape.map((d, axis) => ({ axis, d, stride: strides[axis] })).filter((x) => x.d !== 1);
  };
  const [a, b] = [ends(from), ends(to)];
  const runs: { from: number[]; to: number[] }[] = [];
  let open: { from: number[]; to: number[] } = { from: [], to: [] };
  for (let i = 0, j = 0; i < a.length || j < b.length;) {
    const takeA = i < a.length && (j >= b.length || a[i].stride >= b[j].stride);
    const takeB = j < b.length && (i >= a.length || b[j].stride >= a[i].stride);
    if (takeA) open.from.push(a[i++].axis);
    if (takeB) open.to.push(b[j++].axis);
    if (takeA && takeB) {
      runs.push(open);
      open = { from: [], to: [] };
    }
  }
  return runs;
}

/** A reshape that merges or splits axes of one factor only is a reshape of that factor. */
const reshapeRule: ViewRule = (factors, node) => {
  const [from, to] = [node.inputs[0].shape, node.outs[0].shape];
  const runs = runsOf(from, to);
  const apart = (run: { from: number[] }, { axes }: Side) =>
    new Set(run.from.map((axis) => axes.includes(axis))).size > 1;
  if (runs.some((run) => sidesOf(factors).some((side) => apart(run, side)))) return [null];
  const reshaped = each(factors, (side) => {
    const mine = runs.filter((run) => side.axes.includes(run.from[0]));
    const axes = mine.flatMap((run) => run.to);
    const { value } = inOrder(side);
    const dims = axes.map((axis) => to[axis]);
    const r = side.r === "first" ? value.shape[0] : value.shape.at(-1)!;
    return { ...side, axes, value: reshape(value, side.r === "first" ? [r, ...dims] : [...dims, r]) };
  });
  return [reshaped];
};

/** New axes belong to neither factor; an axis of 1 that is stretched is stretched in its factor. */
const broadcastRule: ViewRule = (factors, { params: { shape, dims } }) => [
  each(factors, (side) => {
    const axes = side.axes.map((axis) => dims[axis]);
    const target = [...side.value.shape];
    axes.forEach((axis, i) => target[i + lead(side)] = shape[axis]);
    return { ...side, axes, value: broadcastTo(side.value, target) };
  }),
];

/** Whether a node makes f32 of something that may be stored narrower. */
export function widens(node: Node): boolean {
  return node.prim.name === "convert" && node.params.dtype === "f32";
}

export const viewRules: Readonly<Record<string, ViewRule>> = {
  convert: unchanged,
  dequantize: unchanged,
  stopGradient: unchanged,
  transpose: (factors, { params: { permutation } }) => [
    each(factors, (side) => ({ ...side, axes: side.axes.map((axis) => permutation.indexOf(axis)) })),
  ],
  slice: (factors, { params: { start, size } }) => [
    (start as number[]).reduce((f, from, axis) => window(f, axis, from, from + size[axis]), factors),
  ],
  split: (factors, { params: { axis, sizes } }) => {
    let end = 0;
    return (sizes as number[]).map((size) => window(factors, axis, end, end += size));
  },
  reshape: reshapeRule,
  broadcast: broadcastRule,
};

/** A side of a followed value under the names of that value's axes, its own axis called `r`. */
function nameSide(side: Side, names: readonly string[]): Named {
  const axes = side.axes.map((axis) => names[axis]);
  return { value: side.value, axes: side.r === "first" ? ["r", ...axes] : [...axes, "r"] };
}

/** A gain or bias without its r axis, which has size 1. */
function nameVector(gain: Side, names: readonly string[]): Named {
  const named = nameSide(gain, names);
  const at = named.axes.indexOf("r");
  return {
    value: reshape(named.value, named.value.shape.filter((_, i) => i !== at)),
    axes: named.axes.filter((name) => name !== "r"),
  };
}

/**
 * x·(W + s·U·V) = x·W + s·(x·U)·V, whatever axes are contracted: the factor that has them comes first. A gain along free
 * axes multiplies the result, one along contracted axes the input.
 */
const dotRule: UseRule = (factors, operand, inputs, node, { scaling, drop }) => {
  const { contract, batch } = node.params;
  const names = inputs.map((v, side) =>
    v.shape.map((_, axis) => {
      const [c, b] = [contract[side].indexOf(axis), batch[side].indexOf(axis)];
      return c >= 0 ? `c${c}` : b >= 0 ? `b${b}` : `${side}:${axis}`;
    })
  );
  const named = factors.pair?.map((side) => nameSide(side, names[operand]));
  const contracted = names[operand].filter((n) => n.startsWith("c"));
  const met = named?.map((side) => contracted.filter((n) => side.axes.includes(n)).length) ?? [contracted.length, 0];
  if (met[0] + met[1] < contracted.length || met[0] + met[1] === 0) return null;
  const inSide = met[0] > 0 ? 0 : 1;

  const batched = names[0].filter((n) => n.startsWith("b")).sort((m, n) => Number(m.slice(1)) - Number(n.slice(1)));
  const result = [...batched, ...names.flat().filter((n) => n.includes(":"))];
  const { shape } = node.outs[0];
  const x = inputs[1 - operand];
  const dropped = drop ? dropout(x, drop.key, drop.rate) : x;
  // The factors stand where the weight stood, so that nothing has to be transposed back.
  const swap = operand === 0;
  const base = (input: Value) =>
    dot(...(swap ? [inputs[0], input] : [input, inputs[1]]) as [Value, Value], node.params);
  if (factors.form !== undefined) {
    const input = { value: x, axes: names[1 - operand] }, weight = inputs[operand];
    const changed = withForm(factors.form, { axes: names[operand], weight, input, dropped, result, shape, base });
    return changed && { ...changed, inSide };
  }
  const lowRank = named && ((input: Value) => {
    const narrow = product({ value: input, axes: names[1 - operand] }, named[inSide], new Set(batched), swap);
    const wide = product({ ...narrow, value: mul(narrow.value, scaling) }, named[1 - inSide], new Set(result), swap);
    return arrange(wide, result, shape);
  });
  if (factors.bias !== undefined) {
    const bias = nameVector(factors.bias, names[operand]);
    if (!bias.axes.every((n) => result.includes(n))) return null;
    return { delta: add(lowRank!(dropped), arrange(bias, result, shape)), inSide };
  }
  if (factors.gain === undefined) {
    const rows = () => {
      const { axes } = inOrder(factors.pair![inSide]);
      const last = axes.map((axis) => names[1 - operand].indexOf(names[operand][axis]));
      const order = [...x.shape.keys()].filter((axis) => !last.includes(axis)).concat(last);
      const width = sizeOf(last.map((axis) => x.shape[axis]));
      return reshape(transpose(x, order), [sizeOf(x.shape) / width, width]);
    };
    return { delta: lowRank!(dropped), inSide, met: rows };
  }

  const gain = nameVector(factors.gain, names[operand]);
  if (!gain.axes.some((n) => n.startsWith("c"))) {
    const over = arrange(gain, result, shape);
    if (lowRank === undefined) return { gain: over, inSide };
    if (!drop) return { delta: lowRank(x), gain: over, inSide };
    // Only what the adapter adds is dropped: y + (g - 1) ⊙ x'·W + g ⊙ s·(x'·U)·V.
    return { delta: add(mul(sub(over, 1), base(dropped)), mul(over, lowRank(dropped))), inSide };
  }
  if (gain.axes.some((n) => !names[1 - operand].includes(n))) return null;
  const over = arrange(gain, names[1 - operand], x.shape);
  if (lowRank === undefined) return { whole: base(mul(over, x)), inSide };
  return { delta: add(base(mul(sub(over, 1), dropped)), lowRank(mul(over, dropped))), inSide };
};

/** Rows of W + s·U·V: rows of U, times V. The table's first axis must be all of one factor. */
const gatherRule: UseRule = ({ pair, gain }, operand, inputs, { outs }, { scaling }) => {
  if (pair === undefined) return null;
  const inSide = pair.findIndex((side) => side.axes.length === 1 && side.axes[0] === 0);
  if (operand !== 0 || inSide < 0) return null;
  const [rows, across] = [pair[inSide], inOrder(pair[1 - inSide])];
  if (across.axes.length !== inputs[0].shape.length - 1) return null;
  const table = rows.r === "first" ? transpose(rows.value, [1, 0]) : rows.value;
  const narrow = mul(gather(table, inputs[1]), scaling);
  const rank = across.value.shape.length;
  const delta = dot(narrow, across.value, {
    contract: [[narrow.shape.length - 1], [across.r === "first" ? 0 : rank - 1]],
    batch: [[], []],
  });
  const change = { delta, inSide: inSide as 0 | 1 };
  if (gain === undefined) return change;
  const { shape } = outs[0], places = inputs[1].shape.map((_, i) => `i${i}`);
  const names = inputs[0].shape.map((_, axis) => `t${axis}`);
  const along = nameVector(gain, names);
  const looked = along.axes[0] === names[0]
    ? { value: gather(along.value, inputs[1]), axes: [...places, ...along.axes.slice(1)] }
    : along;
  if (looked.axes.includes(names[0])) return null;
  return { ...change, gain: arrange(looked, [...places, ...names.slice(1)], shape) };
};

/**
 * Σ (W + s·U·V)² over one axis of a matrix, without the product U·V: by 2s·Σ W·U·V and s²·V'·(U'·U)·V. `weight` is a matrix,
 * `inner` [r, in], `outer` [out, r].
 */
export function squaredNormChange(
  weight: Value,
  { inner, outer, scaling }: { readonly inner: Value; readonly outer: Value; readonly scaling: Operand },
  axis: number,
): Value {
  const across = dot(weight, inner, { contract: [[axis], [1]], batch: [[], []] });
  const square = dot(inner, inner, { contract: [[1], [1]], batch: [[], []] });
  const both = dot(outer, square, { contract: [[1], [0]], batch: [[], []] });
  const sum = add(mul(across, mul(2, asValue(scaling))), mul(both, mul(scaling, asValue(scaling))));
  return reduceSum(mul(sum, outer), 1);
}

/** A factor of one axis as inner [r, n], or as outer [n, r]. */
const asRows = (side: Side) => side.r === "first" ? side.value : transpose(side.value, [1, 0]);
const asColumns = (side: Side) => side.r === "last" ? side.value : transpose(side.value, [1, 0]);

/** The norms that DoRA keeps of a weight, when another adapter changes that weight too. */
const squaredNormRule: UseRule = ({ pair, gain }, _, [weight], { params: { axis } }, { scaling }) => {
  if (pair === undefined) return null;
  const inSide = pair.findIndex((side) => side.axes.length === 1 && side.axes[0] === axis);
  if (inSide < 0 || pair[1 - inSide].axes.length !== 1) return null;
  const sides = { inner: asRows(pair[inSide]), outer: asColumns(pair[1 - inSide]), scaling };
  const change = { delta: squaredNormChange(weight, sides, axis), inSide: inSide as 0 | 1 };
  if (gain === undefined) return change;
  if (gain.axes.includes(axis)) return null;
  const { value } = nameVector(gain, ["0", "1"]);
  return { ...change, gain: mul(value, value) };
};

/** How a weight is used: in a product, by looking up its rows, or only measured. */
export type UseKind = "product" | "lookup" | "norm";

export const useRules: Readonly<Record<string, { readonly kind: UseKind; readonly change: UseRule }>> = {
  dot: { kind: "product", change: dotRule },
  gather: { kind: "lookup", change: gatherRule },
  squaredNorm: { kind: "norm", change: squaredNormRule },
};
