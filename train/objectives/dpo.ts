/** Direct preference optimisation: preferred answers become likelier than others, by comparison with a reference. */
import type { Value } from "../../core/ir/graph.ts";
import { logSigmoid, sigmoid } from "../../core/nn/activation.ts";
import { add, div, max, mul, neg, sub } from "../../core/ops/elementwise.ts";
import { reduceSum, reshape } from "../../core/ops/broadcast.ts";
import { concat, slice } from "../../core/ops/structure.ts";
import { referenceColumn } from "../../data/examples.ts";
import { OptionError } from "../../core/errors.ts";
import { resolveOptions, type TableOf } from "../options/option_table.ts";
import { kindOf, type ObjectiveKind } from "./kind.ts";
import type { Objective } from "./objective.ts";
import {
  answersOf,
  chosenTokens,
  given,
  pairs,
  perPair,
  rewardMeasures,
  rewardSums,
  smoothed,
  smoothingOption,
} from "./pairs.ts";
import { sumKnown } from "./sums.ts";
import { checkOptions } from "../../core/options.ts";

/** What the losses are made of, f32[pairs] each: by how much either answer is likelier than the reference has it. */
interface Ratios {
  readonly chosen: Value;
  readonly rejected: Value;
  /** The same, divided by the answers' lengths. */
  readonly mean: { readonly chosen: Value; readonly rejected: Value };
  readonly beta: number;
  readonly smoothing: number;
}

const square = (x: Value) => mul(x, x);
/** β times the difference of both. */
const difference = ({ chosen, rejected, beta }: Ratios) => mul(sub(chosen, rejected), beta);
/** log σ(x), and log σ(-x), which is that of the pair turned round. */
const turned = (x: Value) => [logSigmoid(x), logSigmoid(neg(x))] as const;

/** The losses by TRL's names; `ipo` divides by lengths as TRL does, `ipo_sum` does not, as the paper has it. */
const losses = {
  /** Rafailov et al. 2023; with label smoothing, Mitchell 2023 (cDPO). */
  sigmoid: (r: Ratios) => smoothed(difference(r), r.smoothing),
  /** Chowdhury et al. 2024. */
  robust: (r: Ratios) => {
    const [yes, no] = turned(difference(r));
    return div(sub(mul(no, r.smoothing), mul(yes, 1 - r.smoothing)), 1 - 2 * r.smoothing);
  },
  /** Zhao et al. 2023 (SLiC). */
  hinge: (r: Ratios) => max(sub(1, difference(r)), 0),
  /** Azar et al. 2023. */
  ipo: ({ mean, beta }: Ratios) => square(sub(sub(mean.chosen, mean.rejected), 1 / (2 * beta))),
  ipo_sum: ({ chosen, rejected, beta }: Ratios) => square(sub(sub(chosen, rejected), 1 / (2 * beta))),
  /** DPO over log-probabilities a token. */
  sigmoid_norm: ({ mean, beta }: Ratios) => neg(logSigmoid(mul(sub(mean.chosen, mean.rejected), beta))),
  /** D'Oosterlinck et al. 2024, APO: the preferred answer likelier, the other less likely; */
  apo_zero: ({ chosen, rejected, beta }: Ratios) => add(sigmoid(neg(mul(chosen, beta))), sigmoid(mul(rejected, beta))),
  /** both less likely, the other more so. */
  apo_down: (r: Ratios) => add(sigmoid(mul(r.chosen, r.beta)), sigmoid(neg(difference(r)))),
  /** Ji et al. 2024 (EXO); a smoothing of 0 is 1e-3 there. */
  exo_pair: (r: Ratios) => {
    const [yes, no] = turned(difference(r)), smoothing = r.smoothing || 1e-3;
    const d = difference(r);
    return add(mul(sigmoid(d), sub(yes, Math.log1p(-smoothing))), mul(sigmoid(neg(d)), sub(no, Math.log(smoothing))));
  },
  /** Chen et al. 2024 (NCA). */
  nca_pair: ({ chosen, rejected, beta }: Ratios) => {
    const [first, turnedFirst] = turned(mul(chosen, beta));
    return neg(add(first, mul(add(turnedFirst, logSigmoid(neg(mul(rejected, beta)))), 0.5)));
  },
  /** Wu et al. 2024 (SPPO). */
  sppo_hard: ({ chosen, rejected, beta }: Ratios) =>
    add(square(sub(chosen, 0.5 / beta)), square(add(rejected, 0.5 / beta))),
} satisfies Record<NonNullable<DpoOptions["loss"]>, (ratios: Ratios) => Value>;

/** How {@link dpo} learns. */
export interface DpoOptions {
  /** The loss of a pair, by TRL's name; `ipo_sum` is the paper's, not divided by lengths. `sigmoid` by default. */
  readonly loss?:
    | "sigmoid"
    | "robust"
    | "hinge"
    | "ipo"
    | "ipo_sum"
    | "sigmoid_norm"
    | "apo_zero"
    | "apo_down"
    | "exo_pair"
    | "nca_pair"
    | "sppo_hard";
  /** How closely the model keeps to the reference. 0.1 by default. */
  readonly beta?: number;
  /** The part of the pairs that is taken to be the wrong way round. 0 by default. */
  readonly labelSmoothing?: number;
  /** The weight of the loss of predicting the preferred answers, added to it (RPO). 0 by default. */
  readonly sftWeight?: number;
}

/** The settings of {@link dpo}. */
const dpoOptions = {
  loss: {
    kind: "text",
    choices: Object.keys(losses) as (keyof typeof losses)[],
    default: "sigmoid",
    help: "The loss of a pair, by TRL's name",
  },
  beta: { kind: "number", above: 0, default: 0.1, help: "How closely the model keeps to the reference" },
  labelSmoothing: smoothingOption,
  sftWeight: {
    kind: "number",
    least: 0,
    default: 0,
    help: "The weight of the loss of predicting the preferred answers, added to it (RPO)",
  },
} as const satisfies TableOf<DpoOptions>;

/**
 * Direct preference optimisation. Rows have a `prompt`, a `chosen` answer and a `rejected` one. The reference is the model
 * without its adapter (with `wholeModel`, as it was): no second model is held, and its log-probabilities are computed once.
 *
 * Source: Rafailov et al. 2023, "Direct Preference Optimization: Your Language Model is Secretly a Reward Model".
 */
export function dpo(options: DpoOptions = {}): Objective {
  checkOptions("dpo", options, dpoOptions);
  const { loss, beta, labelSmoothing: smoothing, sftWeight } = resolveOptions(dpoOptions, options);
  if (!Object.hasOwn(losses, loss)) {
    throw new OptionError(`the loss of dpo is ${loss}: give one of ${Object.keys(losses).join(", ")}`);
  }
  if (!(beta > 0)) throw new OptionError(`beta is ${beta}: give a number above 0`);
  return {
    ...pairs,
    name: "dpo",
    learner: "preference learning (dpo)",
    collate(examples, size) {
      const { columns, ...batch } = pairs.collate(examples, size);
      return { ...batch, columns: { ...columns, reference: referenceColumn(examples, "reference", size.rows, [2]) } };
    },
    reference: {
      columns: { reference: [2] },
      of(apply, columns) {
        const { sums: { chosen, rejected } } = answersOf(apply, columns);
        const column = (x: Value) => reshape(x, [-1, 1]);
        return { reference: concat([column(chosen), column(rejected)], 1) };
      },
    },
    shared: sftWeight === 0 ? undefined : (_, columns) => chosenTokens(columns),
    sums(apply, columns) {
      const { sums, lengths, known } = answersOf(apply, columns);
      const before = given(columns, "reference");
      const reference = (side: number) => reshape(slice(before, 1, side, side + 1), [-1]);
      const chosen = sub(sums.chosen, reference(0)), rejected = sub(sums.rejected, reference(1));
      const mean = { chosen: div(chosen, lengths.chosen), rejected: div(rejected, lengths.rejected) };
      let total = sumKnown(known, losses[loss]({ chosen, rejected, mean, beta, smoothing }));
      if (sftWeight > 0) {
        const nll = perPair(columns, neg(reduceSum(sums.chosen)), "chosenTokens");
        total = add(total, mul(nll, sftWeight)) as typeof total;
      }
      const rewards = { chosen: mul(chosen, beta), rejected: mul(rejected, beta) };
      return { loss: total, ...rewardSums(known, rewards, sums) };
    },
    measures: rewardMeasures,
  };
}

/** DPO by its name. */
export const dpoKind: ObjectiveKind = kindOf(
  "answers that are preferred become likelier than others, beside the model as it was (DPO)",
  dpoOptions,
  dpo,
);
