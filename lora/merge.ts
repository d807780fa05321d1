import type { Value } from "../core/ir/graph.ts";
import type { Leaf } from "../core/model.ts";
import { asValue } from "../core/ops/constant.ts";
import { dot } from "../core/ops/contract.ts";
import { add, convert, mul, sub } from "../core/ops/elementwise.ts";
import { flatten } from "../core/tree.ts";
import type { LoraPair } from "./init.ts";

/** Where and how an adapter's change goes into its weight. */
export interface Placement {
  readonly scaling: number;
  /** 0: the weight is [in, out], 1: [out, in]. */
  readonly inAxis: 0 | 1;
  /** The path of the weight that is adapted. */
  readonly leafPath: string;
  /** Where only one use of a tied weight is adapted: the path at which the other name gets a leaf of its own. */
  readonly split: string | null;
  /** Which of the two paths this change belongs to. */
  readonly into: string;
}

/** The adapters of a model with where they belong. */
export type Placed = readonly (readonly [LoraPair, Placement])[];

/** s·B·A in the layout of the weight, f32. */
export function deltaOf({ A, B }: LoraPair, { scaling, inAxis }: Pick<Placement, "scaling" | "inAxis">): Value {
  const product = inAxis === 0
    ? dot(A, B, { contract: [[0], [1]], batch: [[], []] })
    : dot(B, A, { contract: [[1], [0]], batch: [[], []] });
  return mul(product, scaling);
}

/** weight ± Σ deltas: added in f32, rounded once to the dtype of the weight. */
function shift(weight: Leaf, deltas: readonly Value[], by: typeof add): Leaf {
  if (deltas.length === 0) return weight;
  const value = asValue(weight);
  return convert(by(convert(value, "f32"), deltas.reduce((a, b) => add(a, b))), value.dtype);
}

/** The changes of each weight, by path. With `split`, both names of a tied weight are listed, changed or not. */
function changes(adapters: Placed, split: boolean): Map<string, { from: string; deltas: Value[] }> {
  const found = new Map<string, { from: string; deltas: Value[] }>();
  for (const [pair, placement] of adapters) {
    const apart = split && placement.split !== null;
    for (const path of apart ? [placement.leafPath, placement.split!] : [placement.leafPath]) {
      if (!found.has(path)) found.set(path, { from: placement.leafPath, deltas: [] });
    }
    found.get(apart ? placement.into : placement.leafPath)!.deltas.push(deltaOf(pair, placement));
  }
  return found;
}

/** The parameters with every change added. Leaves without one stay the same objects. */
export function mergeInto<P>(frozen: P, adapters: Placed, split: boolean): P {
  const { leaves, paths } = flatten<Leaf>(frozen);
  let merged: unknown = frozen;
  for (const [path, { from, deltas }] of changes(adapters, split)) {
    merged = withLeaf(merged, path.split("."), shift(leaves[paths.indexOf(from)], deltas, add));
  }
  return merged as P;
}

/** The parameters with every change taken away again; a weight that merging split off becomes tied again. */
export function unmergeFrom<P>(merged: P, adapters: Placed): P {
  const { leaves, paths } = flatten<Leaf>(merged);
  const leafAt = (path: string) => leaves[paths.indexOf(path)];
  const split = adapters.some(([, placement]) => placement.split !== null && paths.includes(placement.split));
  const all = changes(adapters, split);
  const splits = new Set(adapters.map(([, placement]) => placement.split));
  let base: unknown = merged;
  for (const [path, { from, deltas }] of all) {
    if (split && splits.has(path)) {
      base = withLeaf(base, path.split("."), undefined);
      // The name that was not adapted holds the weight as it was.
      if (deltas.length === 0) base = withLeaf(base, from.split("."), leafAt(path));
    } else if (!(split && [...all].some(([p, x]) => p !== path && x.from === from && x.deltas.length === 0))) {
      base = withLeaf(base, path.split("."), shift(leafAt(path), deltas, sub));
    }
  }
  return base as P;
}

/** A copy of a tree with another leaf at a path, new or not, or none there (undefined); objects left empty go too. */
function withLeaf(tree: unknown, [key, ...rest]: readonly string[], leaf: Leaf | undefined): unknown {
  const old = (tree ?? {}) as Record<string, unknown>;
  const below = rest.length === 0 ? leaf : withLeaf(old[key], rest, leaf);
  if (Array.isArray(tree)) return tree.map((x, i) => String(i) === key ? below : x);
  const copy = { ...old, [key]: below };
  if (below === undefined) delete copy[key];
  return Object.keys(copy).length === 0 ? undefined : copy;
}
