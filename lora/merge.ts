import { OptionError } from "../core/errors.ts";
import type { Value } from "../core/ir/graph.ts";
import type { Leaf } from "../core/model.ts";
import { reshape } from "../core/ops/broadcast.ts";
import { asValue } from "../core/ops/constant.ts";
import { add, convert, div, mul, sub } from "../core/ops/elementwise.ts";
import { gather } from "../core/ops/indexing.ts";
import { flatten } from "../core/tree.ts";
import {
  type Active,
  biasDelta,
  biasOf,
  editTree,
  leafOf,
  storedType,
  tokenIds,
  withLeaf,
  withRows,
} from "./follow/edit.ts";
import { deltaOf, type Effect, effectOf, normsOf, widened } from "./follow/effect.ts";
import type { Adapted } from "./follow/plan.ts";

/** What merging writes over, by path: norms of DoRA, and leaves, biases and rows that were replaced. */
export type Overwritten = Readonly<
  Record<string, { readonly norms?: Leaf; readonly weight?: Leaf; readonly bias?: Leaf; readonly tokens?: Leaf }>
>;

/** What adapters do to one leaf: where it comes from, what it is another name of, and each effect. */
interface Changes {
  readonly from: string;
  readonly of: string;
  readonly effects: { readonly m: Adapted; readonly effect: Effect }[];
}

/** A gain [out] in the layout of a weight. */
function alongOutputs(gain: Value, inAxis: 0 | 1): Value {
  return reshape(gain, inAxis === 0 ? [1, gain.shape[0]] : [gain.shape[0], 1]);
}

/** The weight with every effect on it: added in f32, rounded once. Several gains each act on the base alone. */
function changed(weight: Leaf, effects: Changes["effects"]): Leaf {
  if (effects.length === 0) return weight;
  const value = widened(asValue(weight));
  const parts = effects.map(({ m: { inAxis }, effect }) => ({
    delta: deltaOf(effect, inAxis),
    gain: effect.gain && alongOutputs(effect.gain, inAxis),
  }));
  const [{ delta, gain }] = parts;
  const sum = parts.length === 1 && gain !== null ? mul(gain, add(value, delta)) : add(
    value,
    parts.map((p) => p.gain === null ? p.delta : add(mul(sub(p.gain, 1), value), mul(p.gain, p.delta)))
      .reduce((a, b) => add(a, b)),
  );
  return convert(sum, storedType(weight));
}

/** The effects on each leaf, by path. With `split`, both names of a tied weight are listed, changed or not. */
function changesOf(
  actives: readonly Active[],
  paths: readonly string[],
  leaves: readonly Leaf[],
  split: boolean,
  norms: (m: Adapted) => Leaf | undefined = () => undefined,
): Map<string, Changes> {
  const found = new Map<string, Changes>();
  for (const { plan: { adapted }, trainable, adapterWeight } of actives) {
    for (const m of adapted) {
      const own = paths[leafOf(paths, m)];
      const apart = split && m.split !== null;
      for (const path of apart ? [m.leafPath, m.split!] : [own]) {
        const from = paths.includes(path) ? path : m.leafPath;
        if (!found.has(path)) found.set(path, { from, of: m.leafPath, effects: [] });
      }
      const weight = asValue(leaves[paths.indexOf(own)]);
      const effect = effectOf(m, trainable[m.path], weight, adapterWeight, norms(m));
      found.get(apart ? m.into : own)!.effects.push({ m, effect });
    }
  }
  return found;
}

/** The parameters with every change added. Leaves without one stay the same objects. */
export function mergeInto<P>(frozen: P, actives: readonly Active[], split: boolean): P {
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
  const put = (path: string, part: string, value: Leaf) => lost[path] = { ...lost[path], [part]: value };
  for (const m of adapted.filter((m) => m.match.dora)) {
    put(m.path, "norms", normsOf(m, trainable[m.path], asValue(leaves[leafOf(paths, m)]), adapterWeight));
  }
  for (const { path, part, from, tokens } of edits) {
    const leaf = leaves[paths.indexOf(from)];
    put(path, part, part === "tokens" ? gather(leaf, tokenIds(tokens!)) : leaf);
  }
  return lost;
}

/** A weight with its effects taken away: gains of one adapter are of different outputs, so they may be undone at once. */
function restored(weight: Leaf, effects: Changes["effects"]): Leaf {
  if (effects.length === 0) return weight;
  const straight = effects.reduce(
    (value, { m, effect: { gain } }) => gain === null ? value : div(value, alongOutputs(gain, m.inAxis)),
    widened(asValue(weight)),
  );
  const deltas = effects.map(({ m, effect }) => deltaOf(effect, m.inAxis));
  return convert(sub(straight, deltas.reduce((a, b) => add(a, b))), storedType(weight));
}

/**
 * The parameters with every change taken away again; a weight that merging split off becomes tied again.
 *
 * @throws {OptionError} when something was overwritten and `lost` does not have it
 */
export function unmergeFrom<P>(merged: P, active: Active, lost: Overwritten): P {
  const { plan: { adapted, edits }, trainable } = active;
  const { leaves, paths } = flatten<Leaf>(merged);
  const leafAt = (path: string) => leaves[paths.indexOf(path)];
  const split = adapted.some((m) => m.split !== null && paths.includes(m.split));
  const norms = (m: Adapted) => m.match.dora ? kept(lost, m.path, "norms") : undefined;
  const all = changesOf([active], paths, leaves, split, norms);
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
  for (const m of adapted.filter((m) => trainable[m.path].biasB !== undefined)) {
    const path = biasOf(m), bias = leafAt(path);
    const less = sub(widened(asValue(bias)), biasDelta(m, trainable[m.path].biasB!));
    base = withLeaf(base, path.split("."), convert(less, storedType(bias)));
  }
  for (const { path, part, from, into, keep, tokens } of edits) {
    const old = kept(lost, path, part);
    const whole = part === "tokens" ? withRows(asValue(leafIn(base, from)), tokens!, asValue(old)) : old;
    base = withLeaf(base, into.split("."), into === from ? whole : undefined);
    if (keep !== null) base = withLeaf(base, keep.split("."), undefined);
  }
  return base as P;
}

/** One thing that merging wrote over. */
function kept(lost: Overwritten, path: string, part: keyof Overwritten[string]): Leaf {
  const leaf = lost[path]?.[part];
  if (leaf !== undefined) return leaf;
  throw new OptionError(
    `"${path}" can't be taken out of merged weights: merging wrote over its ${part}; give unmerge what ` +
      `overwritten(trainable, frozen) kept, or keep the base`,
  );
}

function leafIn(tree: unknown, path: string): Leaf {
  const { leaves, paths } = flatten<Leaf>(tree);
  return leaves[paths.indexOf(path)];
}
