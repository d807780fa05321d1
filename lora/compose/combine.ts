/** One adapter made out of several: values that `jit` computes where they are used. */
import { OptionError } from "../../core/errors.ts";
import type { Value } from "../../core/ir/graph.ts";
import type { Leaf } from "../../core/model.ts";
import { add, mul } from "../../core/ops/elementwise.ts";
import { concat } from "../../core/ops/structure.ts";
import { flatten } from "../../core/tree.ts";
import { type Tuned, tunedOf } from "../lora.ts";
import { isPair, ranked } from "../methods/lora.ts";
import type { Adapted } from "../methods/method.ts";
import type { AdapterEntry, Trainable } from "../options.ts";

/** One adapter of a combination. */
export interface Weighted<P, I, O> {
  /** What `lora` gave. */
  readonly tuned: Tuned<P, I, O>;
  /** Its values. */
  readonly trainable: Trainable;
  /** How strongly it counts; may be negative. */
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
 * @throws {OptionError} for adapters of different models, or with other values than A and B
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
    const more = [...tuned.plan.adapted.filter((m) => !isPair(m)), ...tuned.plan.edits];
    if (more.length > 0) {
      throw new OptionError(
        `"${
          more[0].path
        }" trains other values than A and B, of which there is no weighted sum: use together, or merge one first`,
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
