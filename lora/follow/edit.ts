/** Trees of parameters with other leaves: what is trained of the model itself, in its place. */
import { isFloat } from "../../core/dtype.ts";
import { OptionError } from "../../core/errors.ts";
import type { Value } from "../../core/ir/graph.ts";
import type { Leaf } from "../../core/model.ts";
import { asValue } from "../../core/ops/constant.ts";
import { add, convert, div, mul, sub } from "../../core/ops/elementwise.ts";
import type { Operand } from "../../core/tensor.ts";
import { flatten } from "../../core/tree.ts";
import { widened } from "./effect.ts";
import type { Adapted, BiasEffect, Edit, Site } from "../methods/method.ts";
import type { Trainable } from "../options.ts";

/** Everything that is settled of one adapter. */
export interface Plan {
  /** @ignore The modules that are adapted. */
  readonly adapted: readonly Adapted[];
  /** @ignore What is trained of the model itself. */
  readonly edits: readonly Edit[];
  /** The fraction of a branch's inputs that is dropped. */
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
export function leafOf(paths: readonly string[], { into, leafPath }: Pick<Site, "into" | "leafPath">): number {
  return paths.indexOf(paths.includes(into) ? into : leafPath);
}

/** The dtype that changed weights are stored in: the weight's own, or f32 where that is packed. */
export function storedType(leaf: Leaf): Value["dtype"] {
  return isFloat(leaf.dtype) ? leaf.dtype : "f32";
}

/** The path at which the other name of a tied weight keeps the base's, or null. */
export function keptAt({ split, into }: Site): string | null {
  return split === into ? null : split;
}

/**
 * The parameters with every leaf that is replaced in its place, and the biases of adapted modules as they become. As `f32`,
 * in the precision of training, and without what can be followed; as `stored`, rounded to what the base has, all of it.
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
    for (const site of edits) {
      const keep = keptAt(site);
      if (keep !== null && !paths.includes(keep)) {
        tree = withLeaf(tree, keep.split("."), leaves[paths.indexOf(site.leafPath)]);
      }
    }
  }
  for (const { plan: { adapted, edits }, trainable, adapterWeight } of actives) {
    for (const site of [...adapted, ...edits]) {
      const { method, path, leafPath, into } = site;
      if (method.replace === undefined || (as === "f32" && method.effect !== undefined)) continue;
      if (changed.has(into) && method.effect === undefined) {
        throw new OptionError(`two adapters both train ${into} itself: use one`);
      }
      const base = changed.get(into) ?? leaves[paths.indexOf(leafPath)];
      put(into, leafPath, method.replace(site, trainable[path], base));
    }
    for (const site of adapted) {
      const effect = site.method.bias?.(site, trainable[site.path], { adapterWeight });
      if (!effect) continue;
      // Without a bias, what is added is added where the weight is used.
      if (site.bias === null && (as === "f32" || effect.add === undefined)) continue;
      const bias = biasOf(site);
      put(bias, bias, biased(widened(asValue(now(bias))), effect));
    }
  }
  return tree as P;
}

/** A bias as it becomes. */
function biased(bias: Value, { scale, add: more }: BiasEffect): Value {
  const scaled = scale === undefined ? bias : mul(bias, scale);
  return more === undefined ? scaled : add(scaled, more);
}

/** A bias as it was. */
export function unbiased(bias: Value, { scale, add: more }: BiasEffect): Value {
  const less = more === undefined ? bias : sub(bias, more);
  return scale === undefined ? less : div(less, scale);
}

/** @throws {OptionError} where what an adapter does is no change of the parameters */
export function refuseUnmergeable(actives: readonly Pick<Active, "plan">[]): void {
  for (const { plan: { adapted } } of actives) {
    for (const { path, method: { name, unmergeable } } of adapted) {
      if (unmergeable === undefined) continue;
      throw new OptionError(`${name} on "${path}" can't be merged: ${unmergeable}; use the adapter beside its base`);
    }
  }
}

/**
 * The path of the bias that what a method adds to a module's result is merged into.
 *
 * @throws {OptionError} where the module has none, as PEFT
 */
export function biasOf({ bias, path }: Adapted): string {
  if (bias !== null) return bias;
  throw new OptionError(
    `"${path}" can't be merged: it has no bias that the one of its low-rank branch could be added to`,
  );
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
