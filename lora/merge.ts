import { OptionError } from "../core/errors.ts";
import type { Leaf } from "../core/model.ts";
import { asValue } from "../core/ops/constant.ts";
import { convert } from "../core/ops/elementwise.ts";
import { flatten } from "../core/tree.ts";
import {
  type Active,
  biasOf,
  editTree,
  keptAt,
  leafOf,
  refuseUnmergeable,
  storedType,
  unbiased,
  withLeaf,
} from "./follow/edit.ts";
import { type Effected, effected, uneffected, widened } from "./follow/effect.ts";
import type { Lost, Site } from "./methods/method.ts";

/** What merging overwrites, by path: norms of DoRA, and leaves, biases and rows that were replaced. */
export type Overwritten = Readonly<Record<string, Readonly<Record<string, Leaf>>>>;

/** What adapters do to one leaf: where it comes from, what it is another name of, and each effect. */
interface Changes {
  readonly from: string;
  readonly of: string;
  readonly effects: Effected[];
}

/** The weight with every effect on it: added in f32, rounded once. */
function changed(weight: Leaf, effects: readonly Effected[]): Leaf {
  return effects.length === 0 ? weight : convert(effected(widened(asValue(weight)), effects), storedType(weight));
}

/** The weight with every effect taken away. */
function restored(weight: Leaf, effects: readonly Effected[]): Leaf {
  return effects.length === 0 ? weight : convert(uneffected(widened(asValue(weight)), effects), storedType(weight));
}

/** The effects on each leaf, by path. With `split`, both names of a tied weight are listed, changed or not. */
function changesOf(
  actives: readonly Active[],
  paths: readonly string[],
  leaves: readonly Leaf[],
  split: boolean,
  lost?: Overwritten,
): Map<string, Changes> {
  const found = new Map<string, Changes>();
  for (const { plan: { adapted }, trainable, adapterWeight } of actives) {
    for (const m of adapted) {
      if (m.method.effect === undefined) continue;
      const own = paths[leafOf(paths, m)];
      const apart = split && m.split !== null;
      for (const path of apart ? [m.leafPath, m.split!] : [own]) {
        const from = paths.includes(path) ? path : m.leafPath;
        if (!found.has(path)) found.set(path, { from, of: m.leafPath, effects: [] });
      }
      const weight = asValue(leaves[paths.indexOf(own)]);
      const effect = m.method.effect(m, trainable[m.path], weight, { adapterWeight, lost: lost && keptBy(lost, m) });
      found.get(apart ? m.into : own)!.effects.push({ inAxis: m.inAxis, effect });
    }
  }
  return found;
}

/**
 * The parameters with every change added. Leaves without one stay the same objects.
 *
 * @throws {OptionError} for an adapter that does not act everywhere
 */
export function mergeInto<P>(frozen: P, actives: readonly Active[], split: boolean): P {
  refuseUnmergeable(actives);
  const partial = actives.flatMap(({ plan }) => plan.adapted).find(({ acts }) => acts !== undefined);
  if (partial !== undefined) throw new OptionError(`"${partial.path}" can't be merged: ${partial.acts!.why}`);
  const edited = editTree(frozen, actives, "stored");
  const { leaves, paths } = flatten<Leaf>(edited);
  let merged: unknown = edited;
  for (const [path, { from, effects }] of changesOf(actives, paths, leaves, split)) {
    merged = withLeaf(merged, path.split("."), changed(leaves[paths.indexOf(from)], effects));
  }
  return merged as P;
}

/** What of the base can't be recovered from merged weights. */
export function overwrittenBy<P>(
  { plan: { adapted, edits }, trainable, adapterWeight }: Active,
  frozen: P,
): Overwritten {
  const { leaves, paths } = flatten<Leaf>(frozen);
  const lost: Record<string, Record<string, Leaf>> = {};
  for (const site of [...adapted, ...edits]) {
    const found = site.method.lost?.(site, trainable[site.path], leaves[leafOf(paths, site)], { adapterWeight });
    if (found !== undefined) lost[site.path] = { ...lost[site.path], ...found };
  }
  return lost;
}

/**
 * The parameters with every change taken away again; a weight that merging split off becomes tied again.
 *
 * @throws {OptionError} when something was overwritten and `lost` does not have it
 */
export function unmergeFrom<P>(merged: P, active: Active, lost: Overwritten): P {
  refuseUnmergeable([active]);
  const { plan: { adapted, edits }, trainable } = active;
  const { leaves, paths } = flatten<Leaf>(merged);
  const leafAt = (path: string) => leaves[paths.indexOf(path)];
  const split = adapted.some((m) => m.split !== null && paths.includes(m.split));
  const all = changesOf([active], paths, leaves, split, lost);
  const splits = new Set(adapted.map((m) => m.split));
  const replaced = new Set(edits.map((e) => e.into));
  // The name of a tied weight that was not adapted holds the weight as it was.
  const holds = (path: string, { effects }: Changes) => splits.has(path) && effects.length === 0 && !replaced.has(path);
  let base: unknown = merged;
  for (const [path, changes] of all) {
    if (split && splits.has(path)) {
      base = withLeaf(base, path.split("."), undefined);
      if (holds(path, changes)) base = withLeaf(base, changes.of.split("."), leafAt(path));
    } else if (!(split && [...all].some(([p, x]) => x.of === changes.of && holds(p, x)))) {
      base = withLeaf(base, path.split("."), restored(leafAt(path), changes.effects));
    }
  }
  for (const site of adapted) {
    const effect = site.method.bias?.(site, trainable[site.path], {});
    if (!effect || site.bias === null && effect.add === undefined) continue;
    const path = biasOf(site), bias = leafAt(path);
    base = withLeaf(base, path.split("."), convert(unbiased(widened(asValue(bias)), effect), storedType(bias)));
  }
  for (const site of [...adapted, ...edits]) {
    if (site.method.restore === undefined) continue;
    const { leafPath, into } = site, keep = keptAt(site);
    const old = site.method.restore(site, leafIn(base, leafPath), keptBy(lost, site));
    base = withLeaf(base, into.split("."), into === leafPath ? old : undefined);
    if (keep !== null) base = withLeaf(base, keep.split("."), undefined);
  }
  return base as P;
}

/** What merging wrote over at a site, by name. */
function keptBy(lost: Overwritten, { path }: Site): Lost {
  return (name) => {
    const leaf = lost[path]?.[name];
    if (leaf !== undefined) return leaf;
    throw new OptionError(
      `"${path}" can't be taken out of merged weights: merging wrote over its ${name}; give unmerge what ` +
        `overwritten(trainable, frozen) kept, or keep the base`,
    );
  };
}

function leafIn(tree: unknown, path: string): Leaf {
  const { leaves, paths } = flatten<Leaf>(tree);
  return leaves[paths.indexOf(path)];
}
