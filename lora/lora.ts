import { OptionError } from "../core/errors.ts";
import type { Value } from "../core/ir/graph.ts";
import type { Leaf, Model } from "../core/model.ts";
import { reshape } from "../core/ops/broadcast.ts";
import { asValue } from "../core/ops/constant.ts";
import { foldIn, randomBits } from "../core/ops/random.ts";
import { slice } from "../core/ops/structure.ts";
import type { Operand } from "../core/tensor.ts";
import { leafValues, trace } from "../core/trace.ts";
import { flatten } from "../core/tree.ts";
import { analyse, side } from "./analyse.ts";
import { mergeError } from "./bound.ts";
import { initialPair, type LoraPair } from "./init.ts";
import { mergeInto, type Placed, unmergeFrom } from "./merge.ts";
import type { LoraOptions, Match, Trainable } from "./options.ts";
import { type Adapted, checkTrainable, plan } from "./plan.ts";
import { type Followed, rewriteGraph } from "./rewrite.ts";

/** A model with low-rank adapters beside some of its weights. */
export interface Tuned<P, I, O> {
  /** The first adapter: the function it gives is the model's own. */
  readonly trainable: Trainable;
  /** The model's parameters, the same objects. */
  readonly frozen: P;
  /** What was adapted, in the order of the parameters. */
  readonly matched: readonly Match[];
  /** Names that `merge` gives a weight of their own, because only one use of a tied weight is adapted. */
  readonly unties: readonly { readonly module: string; readonly from: string }[];
  /** The adapted function. Without a key nothing is dropped. */
  apply(trainable: Trainable, frozen: P, inputs: I, options?: { readonly key?: Operand }): O;
  /**
   * Parameters with which the model's own `apply` is the same function: W + s·B·A, added in f32 and rounded once. A tied
   * weight of which one use is adapted is split (see `unties`), or with `tied: "peft"` changed for both uses, as PEFT does.
   */
  merge(trainable: Trainable, frozen: P, options?: { readonly tied?: "split" | "peft" }): P;
  /** Takes the same adapter out of merged parameters again, up to rounding. Keep the base where it must be exact. */
  unmerge(trainable: Trainable, merged: P): P;
  /**
   * How well merged weights keep the adapted function, by module: the greatest |adapted - merged| over random inputs, as a
   * share of the bound that rounding allows, f32[]. At most 1 for what {@link merge} gives.
   *
   * @param key u32[2], what the inputs are drawn from
   */
  mergeErrors(trainable: Trainable, frozen: P, merged: P, key: Operand): Record<string, Value>;
}

/**
 * Adapts some weights of a model: y = x·W becomes y + s·(x·A)·B with W untouched and A, B trainable. The model is traced
 * once, and each target's weight is followed to its uses; nothing of it is computed here.
 *
 * Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models".
 *
 * @throws {OptionError} for an r, alpha or dropout that can't be used, a target that matches nothing, or a weight that goes
 * into an operation without a low-rank form
 *
 * @example
 * ```ts
 * import { evaluate, lora, matmul, newInput, openDevice, type Operand, tanh, tensor } from "@lowrank/lowrank";
 *
 * using device = await openDevice("cpu");
 * const params = { up: { weight: tensor(device, [[1, 2, 3], [4, 5, 6]]) }, down: { weight: tensor(device, [[1], [2], [3]]) } };
 * const tuned = lora({
 *   params,
 *   sample: newInput({ shape: [1, 2], dtype: "f32" }),
 *   apply: (p, x: Operand) => matmul(tanh(matmul(x, p.up.weight)), p.down.weight),
 * }, { r: 1, alpha: 2, targets: ["up"] });
 * console.log(tuned.matched); // [{ path: "up", r: 1, alpha: 2, scaling: 2, shape: [2, 3], layout: "in,out", trainable: 5, … }]
 * const x = tensor(device, [[0.5, -0.5]]);
 * console.log(await evaluate(tuned.apply(tuned.trainable, tuned.frozen, x))); // what the model gives: B is still zero
 * ```
 */
export function lora<P, I, O>(model: Model<P, I, O>, options: LoraOptions<P>): Tuned<P, I, O> {
  const { dropout = 0, seed = 0 } = options;
  if (!(dropout >= 0 && dropout < 1)) throw new OptionError(`dropout is a share from 0 to less than 1, not ${dropout}`);
  const params = flatten<Leaf>(model.params);
  const adapted = plan(analyse(model), options);
  const trainable = Object.fromEntries(adapted.map((m, i) => {
    const { shape } = m.match;
    const sizes = { r: m.match.r, in: shape[m.inAxis], out: shape[1 - m.inAxis] };
    return [m.path, initialPair(params.leaves[m.leaf], sizes, m.kind, seed, i)];
  }));
  const placed = (given: Trainable): Placed => {
    checkTrainable(given, trainable);
    return adapted.map((m) => [given[m.path] as LoraPair, m]);
  };

  const apply = (given: Trainable, frozen: P, inputs: I, { key }: { readonly key?: Operand } = {}): O => {
    const traced = trace((p: P, x: I) => model.apply(p, x), [frozen, inputs]);
    const dropping = dropout > 0 && key !== undefined;
    // One draw gives every module its key.
    const keys = dropping ? randomBits(key, [adapted.length, 2]) : null;
    const weights = new Map<number, Followed[]>();
    placed(given).forEach(([pair], i) => {
      const m = adapted[i];
      const drop = keys && m.kind === "linear" ? { keys, index: i, rate: dropout } : null;
      weights.set(m.leaf, [...weights.get(m.leaf) ?? [], follow(m, pair, drop)]);
    });
    const outputs = rewriteGraph(traced.graph, leafValues([frozen, inputs]), weights);
    return traced.unflatten(outputs) as O;
  };

  return {
    trainable,
    frozen: model.params,
    matched: adapted.map((m) => m.match),
    unties: [...new Map(adapted.filter((m) => m.split !== null).map((m) => [m.split!, m])).values()].map((m) => ({
      module: m.split!.replace(/\.weight$/, ""),
      from: m.leafPath.replace(/\.weight$/, ""),
    })),
    apply,
    merge: (given, frozen, { tied = "split" } = {}) => mergeInto(frozen, placed(given), tied === "split"),
    unmerge: (given, merged) => unmergeFrom(merged, placed(given)),
    mergeErrors: (given, frozen, merged, key) => {
      const [before, after] = [flatten<Leaf>(frozen), flatten<Leaf>(merged)];
      return Object.fromEntries(adapted.map((m, i) => {
        const at = after.paths.indexOf(after.paths.includes(m.into) ? m.into : m.leafPath);
        const own = foldIn(key, i);
        return [m.path, mergeError(given[m.path] as LoraPair, m, before.leaves[m.leaf], after.leaves[at], own, 8)];
      }));
    },
  };
}

/** How one adapter enters the graph. */
function follow(
  m: Adapted,
  pair: LoraPair,
  drop: { readonly keys: Value; readonly index: number; readonly rate: number } | null,
): Followed {
  const [a, b] = [side(asValue(pair.A), "first", m.inAxis), side(asValue(pair.B), "last", 1 - m.inAxis)];
  let uses = 0;
  return {
    factors: m.inAxis === 0 ? [a, b] : [b, a],
    use: (kind, inside) => {
      if (m.only !== null && kind !== m.only) return null;
      const { scaling } = m.match;
      if (drop === null) return { scaling };
      if (inside) {
        throw new OptionError(
          `dropout on "${m.path}" is not known inside a sum over chunks, where each chunk would drop the same places: ` +
            `leave it out of the targets or set dropout to 0`,
        );
      }
      const key = reshape(slice(drop.keys, 0, drop.index, drop.index + 1), [2]);
      return { scaling, drop: { key: uses++ === 0 ? key : foldIn(key, uses), rate: drop.rate } };
    },
    refuse: (primitive) => {
      throw new OptionError(
        `"${m.path}" can't be adapted with these inputs: ${m.leafPath} goes into ${primitive}, where the low-rank form is ` +
          `not known`,
      );
    },
  };
}
