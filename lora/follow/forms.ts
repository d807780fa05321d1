/**
 * What may become of a weight that no plain pair of factors says: small arrays with named axes, a turn of its inputs, single
 * numbers at places. Each acts on inputs without anything of the weight's size, and is a matrix only where it is merged.
 */
import { sizeOf } from "../../core/aval.ts";
import { newInput, rebuild, type Value } from "../../core/ir/graph.ts";
import { reduceSum, reshape } from "../../core/ops/broadcast.ts";
import { dot } from "../../core/ops/contract.ts";
import { abs, add, convert, mul } from "../../core/ops/elementwise.ts";
import { gather, scatterAdd } from "../../core/ops/indexing.ts";
import { asNumbers } from "../../core/ops/quantize.ts";
import { concat, pad, slice, transpose } from "../../core/ops/structure.ts";
import { checkpoint } from "../../core/transforms/checkpoint.ts";
import { vjp } from "../../core/transforms/grad.ts";
import { vmap } from "../../core/transforms/vmap.ts";
import type { Operand } from "../../core/tensor.ts";
import { arrange, type Named, product, type Side } from "./named.ts";

/**
 * A change that is a product of small arrays whose axes have names: what two of them share is summed over, and along an axis
 * of the weight that none of them has they are repeated.
 */
export interface Product {
  /** The arrays, in the order in which inputs go through them; each has as many axes as names. */
  readonly factors: readonly { readonly value: Value; readonly axes: readonly string[] }[];
  /** The weight's inputs as axes, the slowest first; where those hold more, the last places are of no input. */
  readonly in: readonly (readonly [name: string, size: number])[];
  /** Its outputs, likewise. */
  readonly out: readonly (readonly [name: string, size: number])[];
  /** f32[]: what it is multiplied by. */
  readonly scaling: Operand;
}

/** A change of single numbers, f32[n], at outputs `rows` and inputs `columns`, i32[n]. */
export interface Sparse {
  /** f32[n]: what is added. */
  readonly values: Value;
  /** i32[n]: at which outputs. */
  readonly rows: Value;
  /** i32[n]: at which inputs. */
  readonly columns: Value;
}

/** What no pair says: W·Rᵀ + Δ, where inputs x are turned to x·R. */
export interface Form {
  /** A part of Δ. */
  readonly product?: Product;
  /** Another part of Δ. */
  readonly sparse?: Sparse;
  /**
   * R as its square blocks f32[groups, blocks, size, size]: one for all inputs or for each part of them, and one for all
   * outputs or for each group of them.
   */
  readonly turn?: Value;
}

const names = (axes: Product["in"]) => axes.map(([name]) => name);
const sizes = (axes: Product["in"]) => axes.map(([, size]) => size);

/** The product's factors one after the other, each met by what was there before, and only names in `keep` left at the end. */
function through(first: Named, factors: Product["factors"], keep: readonly string[]): Named {
  return factors.reduce((met, factor, i) => {
    const later = factors.slice(i + 1).flatMap(({ axes }) => axes);
    return product(met, factor, new Set([...keep, ...later]), false);
  }, first);
}

/** x·Δ of a product: x f32[rows, in] → f32[rows, out]. */
function byProduct(x: Value, { factors, in: inputs, out, scaling }: Product, outputs: number): Value {
  const [rows, width] = x.shape, all = sizeOf(sizes(inputs));
  const whole = reshape(pad(x, [0, 0], [0, all - width]), [rows, ...sizes(inputs)]);
  const known = new Set(factors.flatMap(({ axes }) => axes));
  const ones = names(inputs).flatMap((name, i) => known.has(name) ? [] : [i + 1]);
  const sums = { value: reduceSum(whole, ones), axes: ["rows", ...names(inputs).filter((name) => known.has(name))] };
  const met = through(sums, factors, ["rows", ...names(out)]);
  const wide = arrange(met, ["rows", ...names(out)], [rows, ...sizes(out)]);
  return mul(slice(reshape(wide, [rows, sizeOf(sizes(out))]), 1, 0, outputs), scaling);
}

/** Δ of a product: f32[out, in]. */
function matrixOf({ factors: [first, ...others], in: inputs, out, scaling }: Product, shape: Shape): Value {
  const order = [...names(out), ...names(inputs)];
  const wide = arrange(through(first, others, order), order, [...sizes(out), ...sizes(inputs)]);
  const matrix = reshape(wide, [sizeOf(sizes(out)), sizeOf(sizes(inputs))]);
  return mul(slice(slice(matrix, 0, 0, shape.out), 1, 0, shape.in), scaling);
}

/** The blocks of a turn as the axes that they have more than one of. */
function blocksOf(turn: Value, axes: readonly string[]): Named {
  const kept = axes.filter((_, i) => i > 1 || turn.shape[i] > 1);
  return { value: reshape(turn, turn.shape.filter((size, i) => i > 1 || size > 1)), axes: kept };
}

/** x·R: x f32[rows, in]. */
function byTurn(x: Value, turn: Value): Value {
  const [rows, width] = x.shape, b = turn.shape[3];
  const split = { value: reshape(x, [rows, width / b, b]), axes: ["rows", "block", "from"] };
  const turned = product(split, blocksOf(turn, ["group", "block", "from", "to"]), new Set(["block"]), false);
  return reshape(arrange(turned, ["rows", "block", "to"], [rows, width / b, b]), [rows, width]);
}

/** W·Rᵀ, each group of outputs by its own: f32[out, in]. */
function turnedRows(rows: Value, turn: Value): Value {
  const [outputs, width] = rows.shape, [groups, , b] = turn.shape;
  const shape = [groups, outputs / groups, width / b, b];
  const split = { value: reshape(rows, shape), axes: ["group", "row", "block", "to"] };
  const blocks = blocksOf(turn, ["group", "block", "from", "to"]);
  const turned = product(split, blocks, new Set(["group", "block"]), false);
  return reshape(arrange(turned, ["group", "row", "block", "from"], shape), [outputs, width]);
}

/** At most so many parts of a weight are turned one after the other. */
const mostParts = 4;

/** x·(W·Rᵀ)ᵀ where groups of outputs have turns of their own: a part of the weight at a time, made again on the way back. */
function byGroups(x: Value, weight: Value, turn: Value): Value {
  const [groups] = turn.shape, size = weight.shape[0] / groups, each = Math.ceil(groups / mostParts);
  const parts: Value[] = [];
  for (let i = 0; i < groups; i += each) {
    const end = Math.min(groups, i + each);
    const part = checkpoint((x: Value, rows: Value, turn: Value) =>
      dot(x, turnedRows(convert(asNumbers(rows), "f32"), turn), { contract: [[1], [1]], batch: [[], []] })
    );
    parts.push(part(x, slice(weight, 0, i * size, end * size), slice(turn, 0, i, end)));
  }
  return concat(parts, 1);
}

/** x·Δ of single numbers. */
function bySparse(x: Value, { values, rows, columns }: Sparse, outputs: number): Value {
  const met = mul(gather(transpose(x, [1, 0]), columns), reshape(values, [values.shape[0], 1]));
  return transpose(scatterAdd(rows, met, outputs), [1, 0]);
}

/** The length of a weight's sides. */
interface Shape {
  readonly out: number;
  readonly in: number;
}

/** A sum of what is there, or null. */
function sum(values: readonly (Value | undefined)[]): Value | null {
  const there = values.filter((v) => v !== undefined);
  return there.length === 0 ? null : there.reduce((a, b) => add(a, b));
}

/** A matrix [out, in] in the layout of a weight whose inputs are that axis, or the other way round. */
export function laid(matrix: Value, inAxis: number): Value {
  return inAxis === 1 ? matrix : transpose(matrix, [1, 0]);
}

/** What is added to a weight [out, in], or null. */
export function addedBy({ product, sparse }: Form, shape: Shape): Value | null {
  const flat = (s: Sparse) => scatterAdd(add(mul(s.rows, shape.in), s.columns), s.values, shape.out * shape.in);
  return sum([product && matrixOf(product, shape), sparse && reshape(flat(sparse), [shape.out, shape.in])]);
}

/** A weight [out, in] after its inputs were turned. */
export function turnedBy({ turn }: Form, weight: Value): Value {
  return turn === undefined ? weight : turnedRows(weight, turn);
}

/** x·W' of rows of inputs, from x·W of others; null of the weight where that is all that is known of it. */
export function applied(
  { product, sparse, turn }: Form,
  x: Value,
  { outputs, base, weight, dropped = x }: {
    readonly outputs: number;
    readonly base: (x: Value) => Value;
    /** f32[out, in]. */
    readonly weight: Value | null;
    readonly dropped?: Value;
  },
): { readonly delta: Value | null; readonly whole: Value | null } | null {
  const delta = sum([product && byProduct(dropped, product, outputs), sparse && bySparse(dropped, sparse, outputs)]);
  if (turn === undefined) return { delta, whole: null };
  if (turn.shape[0] > 1 && weight === null) return null;
  return { delta, whole: turn.shape[0] > 1 ? byGroups(x, weight!, turn) : base(byTurn(x, turn)) };
}

/** The most numbers that are added up one after the other where a form meets inputs, beyond those that the weight has. */
export function lengthOf({ product, turn }: Form): number {
  const all = product === undefined
    ? []
    : [...sizes(product.in), ...product.factors.flatMap(({ value }) => value.shape)];
  return all.reduce((sum, size) => sum + size, 0) + (turn?.shape[3] ?? 0);
}

/** The sizes of what a form is made of. */
export function sized({ product, sparse, turn }: Form): Form {
  return {
    ...(product && {
      product: {
        ...product,
        factors: product.factors.map(({ value, axes }) => ({ value: abs(value), axes })),
        scaling: abs(product.scaling),
      },
    }),
    ...(sparse && { sparse: { ...sparse, values: abs(sparse.values) } }),
    ...(turn && { turn: abs(turn) }),
  };
}

/** A form, and where views have brought the axes of the weight that it is of. */
export interface FollowedForm {
  readonly of: Form;
  /** One row of the weight's inputs, and of its outputs, and what became of them. */
  readonly in: Side;
  readonly out: Side;
  readonly places: { readonly in: Value; readonly out: Value };
}

/** A form at a weight that is followed. */
export function followedForm(of: Form, shape: readonly number[], inAxis: 0 | 1): FollowedForm {
  const place = (axis: number) => newInput({ shape: [1, shape[axis]], dtype: "f32" });
  const places = { in: place(inAxis), out: place(1 - inAxis) };
  const side = (value: Value, axis: number): Side => ({ value, r: "first", axes: [axis] });
  return { of, places, in: side(places.in, inAxis), out: side(places.out, 1 - inAxis) };
}

/** Rows of the weight's own axis, f32[rows, n], as the views bring it: f32[rows, …]. */
function brought({ value }: Side, place: Value, rows: Value): Value {
  if (value === place) return rows;
  const view = (row: Value) => rebuild({ inputs: [place], outputs: [value] }, [reshape(row, place.shape)])[0];
  return reshape(vmap(view)(rows), [rows.shape[0], ...value.shape.slice(1)]);
}

/** Rows of what the views brought, as the weight's own axis has them: zeros where a view has left something out. */
function broughtBack({ value }: Side, place: Value, rows: Value): Value {
  if (value === place) return rows;
  const graph = { inputs: [place], outputs: [value] };
  const back = (row: Value) => vjp(graph, [place], () => [reshape(row, value.shape)]).grads[0]!;
  return reshape(vmap(back)(rows), [rows.shape[0], place.shape[1]]);
}

/** A product with a weight that has a form: the weight's axes by name, the other operand, and what the result is. */
export interface FormUse {
  readonly axes: readonly string[];
  readonly weight: Value;
  readonly input: Named;
  readonly dropped: Value;
  readonly result: readonly string[];
  readonly shape: readonly number[];
  readonly base: (x: Value) => Value;
}

/** What a product becomes: what is added to it, or all of it; null where that is not known. */
export function withForm(
  { of, places, ...sides }: FollowedForm,
  { axes, weight, input, dropped, result, shape, base }: FormUse,
): { readonly delta: Value } | { readonly whole: Value } | null {
  const [ins, outs] = [sides.in, sides.out].map((side) => side.axes.map((axis) => axes[axis]));
  const summed = axes.filter((name) => name.startsWith("c"));
  // What is contracted must be the inputs, all of them, and the outputs free.
  if (summed.length !== ins.length || !ins.every((name) => summed.includes(name))) return null;
  if (!outs.every((name) => name.includes(":"))) return null;
  const inShape = sides.in.value.shape.slice(1), [inputs, outputs] = [places.in.shape[1], places.out.shape[1]];
  if (of.turn !== undefined && sizeOf(inShape) !== inputs) return null;
  const free = input.axes.filter((name) => !ins.includes(name));
  const order = [...free, ...ins].map((name) => input.axes.indexOf(name));
  const moved = order.map((axis) => input.value.shape[axis]);
  const count = sizeOf(moved.slice(0, free.length));
  const flat = (x: Value) =>
    broughtBack(sides.in, places.in, reshape(convert(transpose(x, order), "f32"), [count, ...inShape]));
  const put = (y: Value): Value => {
    const outShape = sides.out.value.shape.slice(1);
    const value = reshape(brought(sides.out, places.out, y), [...moved.slice(0, free.length), ...outShape]);
    return arrange({ value, axes: [...free, ...outs] }, result, shape);
  };
  const plain = sides.in.value === places.in && sides.out.value === places.out && axes.length === 2;
  const change = applied(of, flat(input.value), {
    outputs,
    base: (x) => {
      const viewed = reshape(brought(sides.in, places.in, x), moved);
      return base(convert(transpose(viewed, order.map((_, axis) => order.indexOf(axis))), input.value.dtype));
    },
    weight: plain ? laid(weight, sides.in.axes[0]) : null,
    dropped: flat(dropped),
  });
  if (change === null) return null;
  const { delta, whole } = change;
  if (whole === null) return { delta: put(delta!) };
  const turned = of.turn!.shape[0] > 1 ? put(whole) : convert(whole, "f32");
  return { whole: delta === null ? turned : add(turned, put(delta)) };
}
