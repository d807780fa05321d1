/** Adapters made out of other adapters: values that `jit` computes where they are used. */
import { OptionError } from "../core/errors.ts";
import type { Value } from "../core/ir/graph.ts";
import type { Leaf } from "../core/model.ts";
import { add, mul, neg } from "../core/ops/elementwise.ts";
import { concat, pad } from "../core/ops/structure.ts";
import { flatten } from "../core/tree.ts";
import { outputsOf } from "./effect.ts";
import { type Tuned, tunedOf } from "./lora.ts";
import type { AdapterEntry, Trainable } from "./options.ts";
import type { Adapted } from "./plan.ts";

/** One adapter of a combination. */
export interface Weighted<P, I, O> {
  readonly tuned: Tuned<P, I, O>;
  readonly trainable: Trainable;
  readonly weight: number;
}

/** A pair with the scaling that is not in it. */
interface Pair {
  readonly A: Value;
  readonly B: Value;
  readonly r: number;
}

type Combine = (
  parts: readonly { readonly m: Adapted; readonly entry: AdapterEntry; readonly weight: number }[],
) => Pair;

const ways: Readonly<Record<"cat" | "linear", Combine>> = {
  cat: (parts) => ({
    A: concat(parts.map(({ m, entry, weight }) => mul(entry.A!, weight * m.match.scaling)), 0),
    B: concat(parts.map(({ entry }) => entry.B!), 1),
    r: parts.reduce((sum, { m }) => sum + m.match.r, 0),
  }),
  linear: (parts) => {
    const [{ m: { match: { r } } }] = parts;
    const other = parts.find(({ m }) => m.match.r !== r);
    if (other) {
      throw new OptionError(
        `"${other.m.path}" has the ranks ${r} and ${other.m.match.r}: "linear" adds A to A, which takes equal ranks; ` +
          `"cat" takes any`,
      );
    }
    const roots = parts.map(({ m, entry, weight }) => {
      const whole = weight * m.match.scaling;
      return { entry, root: Math.sqrt(Math.abs(whole)), sign: whole < 0 ? -1 : 1 };
    });
    const sum = (values: readonly Value[]) => values.reduce((a, b) => add(a, b));
    return {
      A: sum(roots.map(({ entry, root, sign }) => mul(entry.A!, sign * root))),
      B: sum(roots.map(({ entry, root }) => mul(entry.B!, root))),
      r,
    };
  },
};

/**
 * One plain adapter out of several, with a weight each (which may be negative), as PEFT's `add_weighted_adapter` makes them;
 * its scaling is 1. `"cat"` is exact: the ranks add up, and the change is Σ wᵢ·sᵢ·Bᵢ·Aᵢ. `"linear"` keeps the rank, which
 * must be the same: it adds √(wᵢ·sᵢ)·Aᵢ and √(wᵢ·sᵢ)·Bᵢ each, so that the change has cross terms and is not that sum.
 *
 * @throws {OptionError} for adapters of different models, or with more than A and B
 */
export function combine<P, I, O>(
  adapters: readonly Weighted<P, I, O>[],
  way: "cat" | "linear",
): Tuned<P, I, O> {
  if (adapters.length === 0) throw new OptionError("combine needs at least one adapter");
  if (!Object.hasOwn(ways, way)) {
    throw new OptionError(`combine by ${JSON.stringify(way)} is not known: "cat" and "linear" are`);
  }
  const [{ tuned }] = adapters;
  const leaves = flatten<Leaf>(tuned.frozen).leaves;
  const parts = new Map<string, { m: Adapted; entry: AdapterEntry; weight: number }[]>();
  for (const { tuned, trainable, weight } of adapters) {
    tuned.check(trainable);
    if (flatten<Leaf>(tuned.frozen).leaves.some((leaf, i) => leaf !== leaves[i])) {
      throw new OptionError("adapters that are combined must be of one model: turn PiSSA's into plain ones first");
    }
    const more = [...tuned.plan.adapted.filter((m) => m.parts.length > 2), ...tuned.plan.edits];
    if (more.length > 0) {
      throw new OptionError(
        `"${
          more[0].path
        }" trains more than A and B, of which there is no weighted sum: use together, or merge one first`,
      );
    }
    for (const m of tuned.plan.adapted) {
      parts.set(m.path, [...parts.get(m.path) ?? [], { m, entry: trainable[m.path], weight }]);
    }
  }
  const made = [...parts.values()].map((of) => ({ m: of[0].m, pair: ways[way](of) }));
  const adapted = made.map(({ m, pair }) => ranked({ ...m, match: { ...m.match, rslora: undefined } }, pair.r, 1));
  const trainable = Object.fromEntries(made.map(({ m, pair: { A, B } }) => [m.path, { A, B }]));
  return tunedOf(tuned.model, { adapted, edits: [], dropout: 0 }, trainable);
}

/** The same module with another rank, and the alpha that keeps the scaling. */
function ranked(m: Adapted, r: number, scaling: number): Adapted {
  const { start, end } = outputsOf(m);
  const alpha = scaling * (m.match.rslora ? Math.sqrt(r) : r);
  const trainable = r * (m.match.shape[m.inAxis] + end - start);
  return { ...m, match: { ...m.match, r, alpha, scaling, trainable } };
}

/**
 * A PiSSA adapter as a plain one of twice the rank, for the base as it was before: s·(B·A - B₀·A₀). What is saved for others
 * must be this, since they have no residual weights.
 *
 * @param tuned what {@link pissa} gave
 * @param trainable the trained values
 */
export function pissaToLora<P, I, O>(tuned: Tuned<P, I, O>, trainable: Trainable): Tuned<P, I, O> {
  tuned.check(trainable);
  const { adapted, edits, dropout } = tuned.plan;
  const dora = adapted.find((m) => m.match.dora);
  if (dora) throw new OptionError(`"${dora.path}" has a magnitude, which a plain adapter of the base can't: merge it`);
  const doubled = adapted.map((m) => {
    const { r, scaling } = m.match;
    return m.kind === "embedding" ? m : ranked(m, 2 * r, scaling);
  });
  const entries = Object.fromEntries(
    Object.entries(trainable).map(([path, entry]) => {
      const m = adapted.find((m) => m.path === path);
      if (m === undefined || m.kind === "embedding") return [path, entry];
      const first = tuned.trainable[path];
      return [path, { ...entry, A: concat([entry.A!, first.A!], 0), B: concat([entry.B!, neg(first.B!)], 1) }];
    }),
  );
  return tunedOf(tuned.model, { adapted: doubled, edits, dropout }, entries);
}

/**
 * The adapter with one entry for each whole module: parts of a fused projection are put below each other in A and, between
 * zeros, side by side in B. It is the same function, and what files hold.
 */
export function wholeModules<P, I, O>(tuned: Tuned<P, I, O>, trainable: Trainable): Tuned<P, I, O> {
  tuned.check(trainable);
  const { adapted, edits, dropout } = tuned.plan;
  const groups = Map.groupBy(adapted, (m) => m.match.part?.of ?? m.path);
  const entries: Record<string, AdapterEntry> = Object.fromEntries(edits.map(({ path }) => [path, trainable[path]]));
  const whole = [...groups].map(([path, parts]): Adapted => {
    const [m] = parts;
    if (m.match.part === undefined) {
      entries[path] = trainable[path];
      return m;
    }
    if (m.parts.length > 2) {
      throw new OptionError(
        `"${path}" has more than A and B for parts of its outputs, which a file of PEFT's can't say`,
      );
    }
    const alike = parts.every((p) => p.match.scaling === m.match.scaling);
    const r = parts.reduce((sum, p) => sum + p.match.r, 0);
    const pads = parts.map((p) => {
      const { start, end, of } = outputsOf(p);
      const B = pad(mul(trainable[p.path].B!, alike ? 1 : p.match.scaling / m.match.scaling), [start, 0], [
        of - end,
        0,
      ]);
      return { A: trainable[p.path].A!, B };
    });
    entries[path] = {
      ...entries[path],
      A: concat(pads.map((p) => p.A), 0),
      B: concat(pads.map((p) => p.B), 1),
    };
    const { part: _, ...match } = m.match;
    const hub = m.hub.slice(0, m.hub.lastIndexOf("["));
    return ranked({ ...m, path, hub, part: null, match: { ...match, path } }, r, match.scaling);
  });
  return tunedOf(tuned.model, { adapted: whole, edits, dropout }, entries, tuned.frozen);
}
