/** Small models that use their weights in every way LoRA knows, over the oracle's tensors. */
import { bind1, newInput, type Value } from "../core/ir/graph.ts";
import type { Leaf, Model } from "../core/model.ts";
import { defineComposite } from "../core/ir/composite.ts";
import { broadcastTo, reduceSum, reshape } from "../core/ops/broadcast.ts";
import { asValue } from "../core/ops/constant.ts";
import { dot, matmul } from "../core/ops/contract.ts";
import { add, convert, tanh } from "../core/ops/elementwise.ts";
import { gather } from "../core/ops/indexing.ts";
import { slice, split, transpose } from "../core/ops/structure.ts";
import { mapTree } from "../core/tree.ts";
import { checkpoint } from "../core/transforms/checkpoint.ts";
import { sumOver } from "../core/transforms/sum_over.ts";
import { vmap } from "../core/transforms/vmap.ts";
import { oracleTensor } from "./oracle.ts";

/** Repeatable numbers in [-1, 1). */
export function noise(seed: number): () => number {
  let state = (seed * 2654435761 + 12345) >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 31 - 1;
  };
}

/** A tensor on the oracle with random contents, which f32 holds exactly. */
export function randomTensor(shape: readonly number[], seed: number, scale = 1) {
  const next = noise(seed);
  return oracleTensor(
    shape,
    Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => Math.fround(scale * next())),
  );
}

/** The same tree with new random contents of the same shapes: for adapters whose B is not zero. */
export function randomised<T>(tree: T, seed: number, scale = 1): T {
  return mapTree(tree, (leaf: Leaf, path) => {
    let hash = seed;
    for (const c of path) hash = (hash * 31 + c.charCodeAt(0)) >>> 0;
    return randomTensor(leaf.shape, hash, scale);
  }) as T;
}

/** A model out of a function of parameters and one input x. */
export function toyModel<P>(
  params: P,
  apply: (params: P, x: Value) => Value,
  sample: { readonly shape: readonly number[]; readonly dtype: "f32" | "i32" } = { shape: [3, 4], dtype: "f32" },
  tied: Record<string, string> = {},
): Model<P, Value, Value> {
  return {
    architecture: "toy",
    params,
    apply,
    sample: newInput(sample, "x"),
    tied,
    hubName: (path) => `model.${path}`,
  };
}

type Linear = { weight: Leaf };
const linear = (shape: readonly number[], seed: number): Linear => ({ weight: randomTensor(shape, seed) });

/** A product as a composite, without any rule of its own. */
const linearComposite = defineComposite<null>({ name: "linear", define: ([x, w]) => [matmul(x, w)] });

/** Models with one weight `w` [4, 6] or [6, 4], each used through another way; x is f32[3,4]. */
export const waysOfUse: Record<string, Model<{ w: Linear }, Value, Value>> = {
  "in,out": toyModel({ w: linear([4, 6], 1) }, (p, x) => matmul(x, p.w.weight)),
  "out,in": toyModel({ w: linear([6, 4], 2) }, (p, x) => matmul(x, p.w.weight, { transposeB: true })),
  "the weight on the left": toyModel(
    { w: linear([6, 4], 3) },
    (p, x) => dot(p.w.weight, x, { contract: [[1], [1]], batch: [[], []] }),
  ),
  "transposed": toyModel({ w: linear([6, 4], 4) }, (p, x) => matmul(x, transpose(p.w.weight))),
  "converted": toyModel({ w: linear([4, 6], 5) }, (p, x) => matmul(x, convert(convert(p.w.weight, "bf16"), "f32"))),
  "used twice": toyModel({ w: linear([4, 4], 6) }, (p, x) => matmul(tanh(matmul(x, p.w.weight)), p.w.weight)),
  "used both ways round": toyModel(
    { w: linear([4, 6], 7) },
    (p, x) => matmul(tanh(matmul(x, p.w.weight)), p.w.weight, { transposeB: true }),
  ),
  "split into parts": toyModel({ w: linear([4, 6], 8) }, (p, x) => {
    const [q, k] = split(p.w.weight, 1, 2);
    return add(tanh(matmul(x, q)), matmul(x, k));
  }),
  "split along its input": toyModel({ w: linear([4, 6], 9) }, (p, x) => {
    const [top, bottom] = split(p.w.weight, 0, 2);
    const [left, right] = split(x, 1, 2);
    return add(matmul(left, top), tanh(matmul(right, bottom)));
  }),
  "a slice": toyModel({ w: linear([4, 6], 10) }, (p, x) => matmul(x, slice(p.w.weight, 1, 1, 4))),
  "reshaped to heads": toyModel({ w: linear([4, 6], 11) }, (p, x) => {
    const heads = reshape(p.w.weight, [4, 2, 3]);
    return dot(x, heads, { contract: [[1], [0]], batch: [[], []] });
  }),
  "heads as a batch": toyModel({ w: linear([4, 6], 12) }, (p, x) => {
    const heads = transpose(reshape(p.w.weight, [4, 2, 3]), [1, 2, 0]);
    const each = vmap((h: Value) => dot(h, x, { contract: [[1], [1]], batch: [[], []] }));
    return each(heads);
  }),
  "behind a checkpoint": toyModel(
    { w: linear([4, 6], 13) },
    (p, x) => checkpoint((w: Leaf, x: Value) => tanh(matmul(x, w)))(p.w.weight, x),
  ),
  "captured by a checkpoint": toyModel(
    { w: linear([4, 6], 14) },
    (p, x) => checkpoint((x: Value) => tanh(matmul(x, p.w.weight)))(x),
  ),
  "inside a composite": toyModel(
    { w: linear([4, 6], 17) },
    (p, x) => bind1(linearComposite, [x, asValue(p.w.weight)], null),
  ),
  "in a sum over chunks": toyModel(
    { w: linear([4, 6], 18) },
    (p, x) =>
      sumOver((rows: Value, w: Value) => reduceSum(tanh(matmul(rows, w))), x, asValue(p.w.weight), { chunk: 2 })[0],
  ),
  "broadcast over a batch": toyModel({ w: linear([4, 6], 19) }, (p, x) => {
    const each = broadcastTo(asValue(p.w.weight), [3, 4, 6]);
    return dot(x, each, { contract: [[1], [1]], batch: [[0], [0]] });
  }),
  "mapped over": toyModel({ w: linear([4, 6], 15) }, (p, x) => vmap((row: Value) => matmul(row, p.w.weight))(x)),
  "looked up": toyModel({ w: linear([6, 4], 16) }, (p, x) => gather(p.w.weight, convert(add(x, 2), "i32"))),
};
