/**
 * LoHa: W + s·(W₁ₐ·W₁ᵦ) ⊙ (W₂ₐ·W₂ᵦ). The elementwise product of two changes of rank r is one of rank r², and is followed as
 * that pair.
 * Source: Hyeon-Woo, Ye-Bin and Oh 2022, "FedPara: Low-Rank Hadamard Product for Communication-Efficient Federated Learning".
 */
import type { Value } from "../../core/ir/graph.ts";
import type { Leaf } from "../../core/model.ts";
import { reshape } from "../../core/ops/broadcast.ts";
import { mul } from "../../core/ops/elementwise.ts";
import { refuseParts } from "../follow/plan.ts";
import type { LoraOptions, TuneOptions } from "../options.ts";
import { firstDraws, kaiming } from "./first_draws.ts";
import { method as lora, pairConfig, rankSites, scalingOf } from "./lora.ts";
import type { Adapted, Method } from "./method.ts";

/** What to adapt with two products of rank r. */
export interface LohaOptions<P = unknown>
  extends TuneOptions<P>, Pick<LoraOptions<P>, "r" | "alpha" | "rankPattern" | "alphaPattern" | "seed"> {
  /** The first values: `true` (the default) leaves the function as it is; `false` draws all four matrices, for tests. */
  readonly init?: boolean;
}

/** All products of a column of a [n, r] and one of b [n, r]: [n, r²]. */
function columns(a: Leaf, b: Leaf): Value {
  const [n, r] = a.shape;
  return reshape(mul(reshape(a, [n, r, 1]), reshape(b, [n, 1, r])), [n, r * r]);
}

/** All products of a row of a [r, n] and one of b [r, n]: [r², n]. */
function rows(a: Leaf, b: Leaf): Value {
  const [r, n] = a.shape;
  return reshape(mul(reshape(a, [r, 1, n]), reshape(b, [1, r, n])), [r * r, n]);
}

const { r, rankPattern, alphaPattern, seed } = lora.options;

export const method: Method<Adapted, LohaOptions<any>> = {
  name: "loha",
  peftType: "LOHA",
  options: {
    ...{ r, rankPattern, seed },
    alpha: { peft: "alpha", file: { is: "a number", default: 8 } },
    alphaPattern: { ...alphaPattern, patternOf: "alpha" },
    init: { peft: "init_weights" },
  },
  keys: ["w1_a", "w1_b", "w2_a", "w2_b"].map((leaf) => ({ leaf, ending: `.hada_${leaf}` })),
  // A file's values are what they are; the others are about convolutions, and about what training drops.
  silent: ["init_weights", "use_effective_conv2d", "rank_dropout", "module_dropout"],
  sites: (outline, options) =>
    rankSites(method, outline, options, (m, { r, in: inputs, out }) => {
      refuseParts(method, m);
      return { w1_a: [out, r], w1_b: [r, inputs], w2_a: [out, r], w2_b: [r, inputs] };
    }),
  first: (site, weight, { index, options: { seed, init = true } }) => {
    // As PEFT: one of the four is zero.
    const drawn = Object.entries(site.trained).filter(([name]) => !(init && name === "w2_b"));
    const fills = Object.fromEntries(drawn.map(([name, shape]) => [name, kaiming(shape[1])]));
    return firstDraws(site, weight, { index, seed, fills });
  },
  effect: (site, { w1_a, w1_b, w2_a, w2_b }, _weight, { adapterWeight }) => ({
    pair: { A: rows(w1_b!, w2_b!), B: columns(w1_a!, w2_a!), scaling: scalingOf(site, adapterWeight) },
  }),
  config: (sites) => {
    const modules = sites.map(({ hub, match: { r, alpha } }) => ({ name: hub, r, alpha }));
    const { r, lora_alpha: alpha, rank_pattern, alpha_pattern } = pairConfig(modules);
    return { r, alpha, rank_pattern, alpha_pattern, init_weights: true, modules_to_save: null };
  },
};
