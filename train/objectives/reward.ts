/** Reward models: a scalar for each answer, greater for the preferred one of a pair. */
import { OptionError } from "../../core/errors.ts";
import type { Value } from "../../core/ir/graph.ts";
import { logSigmoid } from "../../core/nn/activation.ts";
import { reduceSum, reshape } from "../../core/ops/broadcast.ts";
import { add, convert, eq, gt, mul, neg, select, sub } from "../../core/ops/elementwise.ts";
import { reduceMax } from "../../core/ops/reduce.ts";
import type { Scalar } from "../../core/tree_types.ts";
import { numberColumn } from "../../data/examples.ts";
import { resolveOptions, type TableOf } from "../options/option_table.ts";
import type { Objective } from "./objective.ts";
import { arePairs, given, halvesOf, isPredicted, type Pair, pairs } from "./pairs.ts";
import { meanOf, sumKnown } from "./sums.ts";
import { checkOptions } from "../../core/options.ts";

/** How {@link reward} learns. */
export interface RewardOptions {
  /** Whether as great a difference is demanded as a row's margin says. False by default. */
  readonly margin?: boolean;
  /** The weight of the squared sum of a pair's rewards, which keeps them around 0. 0 by default. */
  readonly center?: number;
}

/** The settings of {@link reward}. */
const rewardOptions = {
  margin: { kind: "switch", default: false, help: "Demand as great a difference as a row's margin says" },
  center: {
    kind: "number",
    least: 0,
    default: 0,
    help: "The weight of the squared sum of a pair's rewards, which keeps them around 0",
  },
} as const satisfies TableOf<RewardOptions>;

/** More than any reward. */
const most = 3e38;

/**
 * A reward model: rows are pairs as for {@link dpo}, and the model has one output for each text ({@link loadRewardModel}). The loss
 * is small where the preferred answer's is greater.
 *
 * Source: Ouyang et al. 2022, "Training language models to follow instructions with human feedback".
 */
export function reward(options: RewardOptions = {}): Objective {
  checkOptions("reward", options, rewardOptions);
  const { margin, center } = resolveOptions(rewardOptions, options);
  if (!(center >= 0)) throw new OptionError(`center is ${center}: give a number of at least 0`);
  return {
    ...pairs,
    name: "reward",
    learner: "a reward model",
    task: "SEQ_CLS",
    places: undefined,
    prompt: undefined,
    joins: { least: "min", greatest: "max" },
    collate(examples, size) {
      const { columns, ...batch } = pairs.collate(examples, size);
      const margin = numberColumn(examples as readonly Pair[], size.rows, ({ margin }) => margin ?? 0);
      return { ...batch, columns: { ...columns, margin } };
    },
    sums(apply, columns) {
      const { inputIds, attentionMask, labels } = columns;
      const scores = apply({ inputIds, attentionMask });
      if (scores.shape.length !== 2 || scores.shape[1] !== 1) {
        throw new OptionError(
          `a reward model has one output for each text, and this one gives [${scores.shape}]: load it by loadRewardModel`,
        );
      }
      const { chosen, rejected } = halvesOf(reshape(scores, [-1]));
      const lengths = halvesOf(reduceSum(isPredicted(labels), 1));
      const isPair = arePairs(lengths), known = convert(isPair, "f32");
      const apart = sub(chosen, rejected), both = add(chosen, rejected);
      const wanted = margin ? sub(apart, given(columns, "margin")) : apart;
      let loss: Value = neg(logSigmoid(wanted));
      if (center > 0) loss = add(loss, mul(mul(both, both), center));
      const none = eq(reduceSum(known), 0);
      const greatest = (x: Value) => reduceMax(select(isPair, x, -most));
      const ofBoth = (f: (x: Value) => Value) => select(gt(f(chosen), f(rejected)), f(chosen), f(rejected));
      return {
        loss: sumKnown(known, loss),
        right: sumKnown(known, convert(gt(chosen, rejected), "f32")),
        apart: sumKnown(known, apart),
        least: select(none, 0, neg(ofBoth((x) => greatest(neg(x))))) as Scalar,
        total: sumKnown(known, both),
        greatest: select(none, 0, ofBoth(greatest)) as Scalar,
      };
    },
    measures: [
      meanOf("accuracy", "right", true),
      meanOf("margin", "apart"),
      { name: "min_reward", of: ({ least }) => least },
      { name: "mean_reward", of: ({ total, count }) => total / (2 * count) },
      { name: "max_reward", of: ({ greatest }) => greatest },
    ],
  };
}
