/** Odds ratio preference optimisation: preferred answers are learned, and at the same time made likelier than others; no reference. */
import { OptionError } from "../../core/errors.ts";
import type { Value } from "../../core/ir/graph.ts";
import { logSigmoid } from "../../core/nn/activation.ts";
import { ignoredLabel, tokenLogProbs } from "../../core/nn/loss.ts";
import { reduceSum } from "../../core/ops/broadcast.ts";
import { asValue } from "../../core/ops/constant.ts";
import { convert, div, eq, exp, log, max, min, mul, select, sub } from "../../core/ops/elementwise.ts";
import type { Operand } from "../../core/tensor.ts";
import type { Scalar } from "../../core/tree_types.ts";
import type { BatchColumns } from "../../data/examples.ts";
import { resolveOptions, type TableOf } from "../options/option_table.ts";
import { kindOf, type ObjectiveKind } from "./kind.ts";
import type { Objective } from "./objective.ts";
import { arePairs, chosenTokens, halvesOf, isPredicted, pairs, perPair, rewardMeasures, rewardSums } from "./pairs.ts";
import { meanOf, sumKnown } from "./sums.ts";
import { checkOptions } from "../../core/options.ts";

/** How {@link orpo} learns. */
export interface OrpoOptions {
  /** The weight of the odds ratio (lambda in its paper). 0.1 by default. */
  readonly beta?: number;
}

/** The settings of {@link orpo}. */
const orpoOptions = {
  beta: { kind: "number", least: 0, default: 0.1, help: "The weight of the odds ratio (lambda in its paper)" },
} as const satisfies TableOf<OrpoOptions>;

/** log(1 - e^x) for x below 0, which is kept from 0 by the distance of floats there: the odds stay finite. */
function logOneMinusExp(x: Value): Value {
  const below = min(x, -(2 ** -23));
  return log(sub(1, exp(below)));
}

/** Every token of a text but the first as a label. */
function allLabels({ inputIds, attentionMask }: BatchColumns<Operand>): Value {
  return select(eq(attentionMask, 0), ignoredLabel, asValue(inputIds));
}

/**
 * Odds ratio preference optimisation: the loss of predicting the prompt and its preferred answer, and the logarithm of how much
 * greater the odds of the preferred answer are, a token on average.
 *
 * Source: Hong et al. 2024, "ORPO: Monolithic Preference Optimization without Reference Model".
 */
export function orpo(options: OrpoOptions = {}): Objective {
  checkOptions("orpo", options, orpoOptions);
  const { beta } = resolveOptions(orpoOptions, options);
  if (!(beta >= 0)) throw new OptionError(`beta is ${beta}: give a number of at least 0`);
  return {
    ...pairs,
    name: "orpo",
    learner: "preference learning (orpo)",
    // The prompt is learned, too: outputs are needed everywhere.
    places: undefined,
    shared: (_, columns) => ({
      pairs: chosenTokens(columns).pairs,
      tokens: reduceSum(halvesOf(reduceSum(isPredicted(allLabels(columns)), 1)).chosen),
    }),
    sums(apply, columns) {
      const { inputIds, attentionMask, labels } = columns;
      const everywhere = tokenLogProbs(apply({ inputIds, attentionMask }), allLabels(columns));
      const answer = isPredicted(labels);
      const lengths = halvesOf(reduceSum(answer, 1));
      const known = convert(arePairs(lengths), "f32");
      const mean = (sum: Value, length: Value) => div(sum, max(length, 1));
      const sums = halvesOf(reduceSum(mul(everywhere, answer), 1));
      const logps = { chosen: mean(sums.chosen, lengths.chosen), rejected: mean(sums.rejected, lengths.rejected) };
      // A pair that is none has a log-probability of 0, whose odds are none.
      const some = (x: Value) => select(eq(known, 0), -1, x);
      const [chosen, rejected] = [some(logps.chosen), some(logps.rejected)];
      const odds = sub(sub(chosen, rejected), sub(logOneMinusExp(chosen), logOneMinusExp(rejected)));
      const ratio = logSigmoid(odds);
      const nll = perPair(columns, sub(0, reduceSum(halvesOf(reduceSum(everywhere, 1)).chosen)) as Scalar, "tokens");
      const rewards = { chosen: mul(logps.chosen, beta), rejected: mul(logps.rejected, beta) };
      return {
        loss: sub(nll, mul(sumKnown(known, ratio), beta)) as Scalar,
        ...rewardSums(known, rewards, logps),
        nll,
        ratio: sumKnown(known, ratio),
        odds: sumKnown(known, odds),
      };
    },
    measures: [
      ...rewardMeasures,
      meanOf("nll_loss", "nll"),
      meanOf("log_odds_ratio", "ratio"),
      meanOf("log_odds_chosen", "odds"),
    ],
  };
}

/** ORPO by its name. */
export const orpoKind: ObjectiveKind = kindOf(
  "preferred answers are learned and made likelier than others at once, without a reference (ORPO)",
  orpoOptions,
  orpo,
);
