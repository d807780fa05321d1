/** Trees of parameters with other leaves: what is trained of the model itself, in its place. */
import { isFloat } from "../../core/dtype.ts";
import { OptionError } from "../../core/errors.ts";
import type { Value } from "../../core/ir/graph.ts";
import type { Leaf } from "../../core/model.ts";
import { asValue, constant } from "../../core/ops/constant.ts";
import { add, convert, mul } from "../../core/ops/elementwise.ts";
import { concat, pad, slice } from "../../core/ops/structure.ts";
import { reshape } from "../../core/ops/broadcast.ts";
import type { Operand } from "../../core/tensor.ts";
import { flatten } from "../../core/tree.ts";
import { outputsOf, widened } from "./effect.ts";
import type { Trainable } from "../options.ts";
import type { Adapted } from "./plan.ts";
import type { Edit } from "../saved.ts";

/** Everything that is settled of one adapter. */
export interface Plan {
  /** @ignore The weights with factors. */
  readonly adapted: readonly Adapted[];
  /** @ignore What is put in place of leaves. */
  readonly edits: readonly Edit[];
  /** The share of a branch's inputs that is dropped. */
  readonly dropout: number;
}

/** One adapter with its values. */
export interface Active {
  readonly plan: Plan;
  readonly trainable: Trainable;
  /** f32[]: multiplies the scaling. */
  readonly adapterWeight?: Operand;
}

/** Where an adapted weight is among the leaves: under the name of its use where a tied weight was split, else its own. */
export function leafOf(paths: readonly string[], { into, leafPath }: Pick<Adapted, "into" | "leafPath">): number {
  return paths.indexOf(paths.includes(into) ? into : leafPath);
}

/** The dtype that changed weights are stored in: the weight's own, or f32 where that is packed. */
export function storedType(leaf: Leaf): Value["dtype"] {
  return isFloat(leaf.dtype) ? leaf.dtype : "f32";
}

/** Row numbers as a value, i32[n]. */
export function tokenIds(tokens: readonly number[]): Value {
  return concat(tokens.map((token) => reshape(constant(token, "i32"), [1])), 0);
}

/**
 * The parameters with every leaf that is trained itself in its place, biases of low-rank branches added. As `f32`, in the
 * precision of training, and rows of tokens left to be followed; as `stored`, rounded to what the base has, rows included.
 */
export function editTree<P>(frozen: P, actives: readonly Active[], as: "f32" | "stored"): P {
  const { leaves, paths } = flatten<Leaf>(frozen);
  let tree: unknown = frozen;
  const changed = new Map<string, Leaf>();
  const now = (path: string) => changed.get(path) ?? leaves[paths.indexOf(path)];
  const put = (path: string, from: string, value: Value) => {
    const leaf = as === "f32" ? value : convert(value, storedType(leaves[paths.indexOf(from)]));
    changed.set(path, leaf);
    tree = withLeaf(tree, path.split("."), leaf);
  };
  for (const { plan: { edits } } of actives) {
    for (const { keep, from } of edits) {
      if (keep !== null && !paths.includes(keep)) tree = withLeaf(tree, keep.split("."), leaves[paths.indexOf(from)]);
    }
  }
  for (const { plan: { adapted, edits }, trainable, adapterWeight } of actives) {
    for (const { path, part, from, into, tokens } of edits) {
      if (changed.has(into) && part !== "tokens") {
        throw new OptionError(`two adapters both train ${into} itself: use one`);
      }
      const value = asValue(trainable[path][part]!);
      if (part !== "tokens") put(into, from, value);
      else if (as === "stored") put(into, from, withRows(widened(asValue(now(into))), tokens!, value));
    }
    for (const m of adapted) {
      const { biasB } = trainable[m.path];
      if (biasB === undefined) continue;
      if (as === "f32" && m.bias === null) continue; // added where the weight is used
      const bias = biasOf(m);
      put(bias, bias, add(widened(asValue(now(bias))), biasDelta(m, biasB, adapterWeight)));
    }
  }
  return tree as P;
}

/**
 * The path of the bias that a low-rank branch's own one is merged into.
 *
 * @throws {OptionError} where the module has none, as PEFT
 */
export function biasOf({ bias, path }: Adapted): string {
  if (bias !== null) return bias;
  throw new OptionError(
    `"${path}" can't be merged: it has no bias that the one of its low-rank branch could be added to`,
  );
}

/** What a low-rank branch's own bias adds to that of its module, f32[out]. */
export function biasDelta(m: Adapted, biasB: Leaf, adapterWeight: Operand = 1): Value {
  const { start, end, of } = outputsOf(m);
  return pad(mul(mul(biasB, m.match.scaling), adapterWeight), [start], [of - end]);
}

/** A matrix with other rows at some places. */
export function withRows(table: Value, places: readonly number[], rows: Value): Value {
  const order = places.map((place, i) => ({ place, i })).sort((a, b) => a.place - b.place);
  const pieces: Value[] = [];
  let from = 0;
  for (const { place, i } of order) {
    if (place > from) pieces.push(slice(table, 0, from, place));
    pieces.push(slice(rows, 0, i, i + 1));
    from = place + 1;
  }
  if (from < table.shape[0]) pieces.push(slice(table, 0, from, table.shape[0]));
  return concat(pieces, 0);
}

/** A copy of a tree with another leaf at a path, new or not, or none there (undefined); objects left empty go too. */
export function withLeaf(tree: unknown, [key, ...rest]: readonly string[], leaf: Leaf | undefined): unknown {
  const old = (tree ?? {}) as Record<string, unknown>;
  const below = rest.length === 0 ? leaf : withLeaf(old[key], rest, leaf);
  if (Array.isArray(tree)) return tree.map((x, i) => String(i) === key ? below : x);
  const copy = { ...old, [key]: below };
  if (below === undefined) delete copy[key];
  return Object.keys(copy).length === 0 ? undefined : copy;
}
