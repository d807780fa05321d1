/** Contrastive preference optimisation and SimPO: preferred answers become likelier than others, without a reference. */
import { OptionError } from "../../core/errors.ts";
import type { Value } from "../../core/ir/graph.ts";
import { reduceSum } from "../../core/ops/broadcast.ts";
import { add, div, max, mul, neg, sub } from "../../core/ops/elementwise.ts";
import type { Scalar } from "../../core/tree_types.ts";
import { resolveOptions, type TableOf } from "../options/option_table.ts";
import { kindOf, type ObjectiveKind } from "./kind.ts";
import type { Objective } from "./objective.ts";
import {
  answersOf,
  chosenTokens,
  pairs,
  perPair,
  rewardMeasures,
  rewardSums,
  smoothed,
  smoothingOption,
} from "./pairs.ts";
import { meanOf, sumKnown } from "./sums.ts";
import { checkOptions } from "../../core/options.ts";

/** How {@link cpo} learns. */
export interface CpoOptions {
  /** The loss of a pair, by TRL's name. `sigmoid` by default. */
  readonly loss?: "sigmoid" | "hinge" | "ipo";
  /** The scale of the difference of two log-probabilities. 0.1 by default. */
  readonly beta?: number;
  /** The weight of the loss of predicting the preferred answers (TRL's `cpo_alpha`). 1 by default. */
  readonly nllWeight?: number;
  /** The part of the pairs that is taken to be the wrong way round. 0 by default. */
  readonly labelSmoothing?: number;
}

/** The settings of {@link cpo}. */
const cpoOptions = {
  loss: {
    kind: "text",
    choices: ["sigmoid", "hinge", "ipo"],
    default: "sigmoid",
    help: "The loss of a pair, by TRL's name",
  },
  beta: { kind: "number", above: 0, default: 0.1, help: "The scale of the difference of two log-probabilities" },
  nllWeight: {
    kind: "number",
    least: 0,
    default: 1,
    help: "The weight of the loss of predicting the preferred answers (TRL's cpo_alpha)",
  },
  labelSmoothing: smoothingOption,
} as const satisfies TableOf<CpoOptions>;

/** How {@link simpo} learns. */
export interface SimpoOptions {
  /** The scale of the difference of two mean log-probabilities. 2 by default. */
  readonly beta?: number;
  /** The margin by which a preferred answer is to be ahead. 0.5 by default. */
  readonly gamma?: number;
  /** The weight of the loss of predicting the preferred answers. 0 by default. */
  readonly nllWeight?: number;
  /** The part of the pairs that is taken to be the wrong way round. 0 by default. */
  readonly labelSmoothing?: number;
}

/** The settings of {@link simpo}. */
const simpoOptions = {
  beta: { ...cpoOptions.beta, default: 2, help: "The scale of the difference of two mean log-probabilities" },
  gamma: { kind: "number", least: 0, default: 0.5, help: "The margin by which a preferred answer is to be ahead" },
  nllWeight: { ...cpoOptions.nllWeight, default: 0 },
  labelSmoothing: smoothingOption,
} as const satisfies TableOf<SimpoOptions>;

/** What both have in common; `mean` divides log-probabilities by the answers' lengths. */
function contrastive(
  name: string,
  { beta, nllWeight, mean, lossOf }: {
    readonly beta: number;
    readonly nllWeight: number;
    readonly mean: boolean;
    /** The loss of a pair by the difference of its log-probabilities. */
    readonly lossOf: (difference: Value) => Value;
  },
): Objective {
  if (!(beta > 0)) throw new OptionError(`beta is ${beta}: give a number above 0`);
  return {
    ...pairs,
    name,
    learner: `preference learning (${name})`,
    shared: nllWeight > 0 ? (_, columns) => chosenTokens(columns) : undefined,
    sums(apply, columns) {
      const { sums, lengths, known } = answersOf(apply, columns);
      const logps = mean
        ? { chosen: div(sums.chosen, lengths.chosen), rejected: div(sums.rejected, lengths.rejected) }
        : sums;
      const loss = sumKnown(known, lossOf(sub(logps.chosen, logps.rejected)));
      const rewards = { chosen: mul(logps.chosen, beta), rejected: mul(logps.rejected, beta) };
      const measured = rewardSums(known, rewards, logps);
      const nll = nllWeight > 0
        ? perPair(columns, neg(reduceSum(sums.chosen)) as Scalar, "chosenTokens")
        : mul(loss, 0) as Scalar;
      return { loss: nllWeight > 0 ? add(loss, mul(nll, nllWeight)) as Scalar : loss, ...measured, nll };
    },
    measures: [...rewardMeasures, meanOf("nll_loss", "nll")],
  };
}

/**
 * Contrastive preference optimisation: DPO's loss without a reference, and that of predicting the preferred answers.
 *
 * Source: Xu et al. 2024, "Contrastive Preference Optimization".
 */
export function cpo(options: CpoOptions = {}): Objective {
  checkOptions("cpo", options, cpoOptions);
  const { loss, beta, nllWeight, labelSmoothing } = resolveOptions(cpoOptions, options);
  const losses: Readonly<Record<string, (d: Value) => Value>> = {
    sigmoid: (d) => smoothed(mul(d, beta), labelSmoothing),
    hinge: (d) => max(sub(1, mul(d, beta)), 0),
    ipo: (d) => mul(sub(d, 1 / (2 * beta)), sub(d, 1 / (2 * beta))),
  };
  // Azar et al. compare means, as TRL does.
  return contrastive("cpo", { beta, nllWeight, mean: loss === "ipo", lossOf: losses[loss] });
}

/**
 * SimPO: log-probabilities a token on average, and a margin; no reference.
 *
 * Source: Meng et al. 2024, "SimPO: Simple Preference Optimization with a Reference-Free Reward".
 */
export function simpo(options: SimpoOptions = {}): Objective {
  checkOptions("simpo", options, simpoOptions);
  const { beta, gamma, nllWeight, labelSmoothing } = resolveOptions(simpoOptions, options);
  const lossOf = (d: Value) => smoothed(sub(mul(d, beta), gamma), labelSmoothing);
  return contrastive("simpo", { beta, nllWeight, mean: true, lossOf });
}

/** CPO by its name. */
export const cpoKind: ObjectiveKind = kindOf(
  "preferred answers become likelier than others and are learned, without a reference (CPO)",
  cpoOptions,
  cpo,
);

/** SimPO by its name. */
export const simpoKind: ObjectiveKind = kindOf(
  "preferred answers become likelier than others a token, by a margin, without a reference (SimPO)",
  simpoOptions,
  simpo,
);
