/** Kahneman-Tversky optimisation: answers that are judged alone become likelier or less likely, beside the model as it was. */
import { OptionError } from "../../core/errors.ts";
import type { Value } from "../../core/ir/graph.ts";
import { sigmoid } from "../../core/nn/activation.ts";
import { ignoredLabel, tokenLogProbs } from "../../core/nn/loss.ts";
import { broadcastTo, reduceSum, reshape } from "../../core/ops/broadcast.ts";
import { add, convert, div, gt, max, mul, neg, select, sub } from "../../core/ops/elementwise.ts";
import type { Operand } from "../../core/tensor.ts";
import type { Scalar } from "../../core/tree_types.ts";
import { type BatchColumns, type Example, numberColumn, padExamples, referenceColumn } from "../../data/examples.ts";
import { type JudgedRow, judgedRows } from "../../data/preference_rows.ts";
import { labelledPositions } from "../labelled_positions.ts";
import { resolveOptions, type TableOf } from "../options/option_table.ts";
import { causalLM } from "./causal_lm.ts";
import { kindOf, type ObjectiveKind } from "./kind.ts";
import type { Apply, Measure, Objective } from "./objective.ts";
import { oneSequence } from "./one_sequence.ts";
import { given, isPredicted } from "./pairs.ts";
import { countRows, sumKnown } from "./sums.ts";
import { checkOptions } from "../../core/options.ts";

/** An answer, whether it is wanted, and its prompt with the answer of another row, which tells how far the model is from its base. */
export interface Judged extends Example {
  readonly desirable: boolean;
  readonly other?: Pick<Example, "ids" | "labels">;
}

/** How {@link kto} learns. */
export interface KtoOptions {
  /** The loss of an answer, by TRL's name; `apo_zero_unpaired` estimates no distance to the reference. `kto` by default. */
  readonly loss?: "kto" | "apo_zero_unpaired";
  /** How closely the model keeps to the reference. 0.1 by default. */
  readonly beta?: number;
  /** The weight of answers whose label is true. 1 by default. */
  readonly desirable?: number;
  /** The weight of answers whose label is false. 1 by default. */
  readonly undesirable?: number;
}

/** The settings of {@link kto}. */
const ktoOptions = {
  loss: {
    kind: "text",
    choices: ["kto", "apo_zero_unpaired"],
    default: "kto",
    help: "The loss of an answer, by TRL's name; apo_zero_unpaired estimates no distance to the reference",
  },
  beta: { kind: "number", above: 0, default: 0.1, help: "How closely the model keeps to the reference" },
  desirable: { kind: "number", least: 0, default: 1, help: "The weight of answers whose label is true" },
  undesirable: { kind: "number", least: 0, default: 1, help: "The weight of answers whose label is false" },
} as const satisfies TableOf<KtoOptions>;

const nothing: Example = { ids: [0], labels: [ignoredLabel] };

/** The prompt of one row with the answer of another, no longer than the longer of both. */
function mismatched(example: Example, previous: Example): Pick<Example, "ids" | "labels"> {
  const isAnswer = (label: number) => label !== ignoredLabel;
  const start = example.labels.findIndex(isAnswer), from = previous.labels.findIndex(isAnswer);
  const most = Math.max(example.ids.length, previous.ids.length);
  const join = (a: readonly number[], b: readonly number[]) => [...a.slice(0, start), ...b.slice(from)].slice(0, most);
  return { ids: join(example.ids, previous.ids), labels: join(example.labels, previous.labels) };
}

/** The log-probability of each row's answer, by columns of those names. */
function logProbsOf(apply: Apply, inputIds: Operand, attentionMask: Operand, labels: Operand, places?: Operand): Value {
  return reduceSum(tokenLogProbs(apply({ inputIds, attentionMask }), labels, { places }), 1);
}

const isRow = (labels: Operand) => convert(gt(reduceSum(isPredicted(labels), 1), 0), "f32");
const othersOf = (apply: Apply, columns: BatchColumns<Operand>) =>
  logProbsOf(apply, columns.otherIds!, columns.otherMask!, columns.otherLabels!);

/**
 * Kahneman-Tversky optimisation. Rows have a `prompt`, a `completion` and a `label`, true or false. How far the model is from
 * its reference is estimated on prompts with the answers of other rows, over all rows of a step.
 *
 * Source: Ethayarajh et al. 2024, "KTO: Model Alignment as Prospect Theoretic Optimization".
 */
export function kto(options: KtoOptions = {}): Objective {
  checkOptions("kto", options, ktoOptions);
  const { loss, beta, desirable, undesirable } = resolveOptions(ktoOptions, options);
  if (!(beta > 0)) throw new OptionError(`beta is ${beta}: give a number above 0`);
  const estimates = loss === "kto";
  return {
    ...oneSequence,
    name: "kto",
    learner: "learning from judged answers (kto)",
    task: "CAUSAL_LM",
    unit: "rows",
    formats: [judgedRows],
    alone: "answers with a label are learned by themselves, and then every row needs one that is true or false",
    notPacked: "judged answers are weighed row by row, and can't share one: leave pack out.",
    notChunked: "one label, so it can't become several rows: take --overflow cut.",
    samples: [
      { prompt: "How? ", completion: "so", label: true },
      { prompt: "Why is it? ", completion: "it is late", label: false },
      { prompt: "One or two? ", completion: "one", label: true },
      { prompt: "Who ", completion: "me and you", label: true },
      { prompt: "What is the longest? ", completion: "that", label: false },
    ],
    fits: (example) => "desirable" in example,
    encode: ({ answer, desirable }: JudgedRow, tokenizer, options): Judged => ({
      ...causalLM.encode(answer, tokenizer, { ...options, maskPrompt: true }),
      desirable,
    }),
    lengthOf: (example) => Math.max(oneSequence.lengthOf(example), (example as Judged).other?.ids.length ?? 0),
    cut(example, start, end) {
      const { other, ...own } = example as Judged;
      const cut = oneSequence.cut(own as Example, start, end);
      return other ? { ...cut, other: oneSequence.cut(other, start, end) } as Judged : cut;
    },
    isLearnable: causalLM.isLearnable,
    problem: (example, bounds) =>
      causalLM.problem(example, bounds) ??
        ("desirable" in example ? null : "has no label that is true or false: give each answer one."),
    related: estimates
      ? (example, previous) => ({ ...example, other: mismatched(example, previous) }) as Example
      : undefined,
    collate(examples, size) {
      const { columns, ...batch } = padExamples(examples, size);
      const desirable = numberColumn(examples as readonly Judged[], size.rows, (example) => example.desirable ? 1 : 0);
      const reference = referenceColumn(examples, "reference", size.rows, []);
      const own = { ...columns, desirable, reference };
      if (!estimates) return { ...batch, columns: own };
      const others = padExamples(examples.map((example) => (example as Judged).other ?? nothing), size).columns;
      const { inputIds: otherIds, attentionMask: otherMask, labels: otherLabels } = others;
      const otherReference = referenceColumn(examples, "otherReference", size.rows, []);
      return { ...batch, columns: { ...own, otherIds, otherMask, otherLabels, otherReference } };
    },
    count: countRows,
    places: labelledPositions,
    prompt: causalLM.prompt,
    reference: {
      columns: { reference: [], ...(estimates && { otherReference: [] }) },
      of: (apply, columns) => {
        const { inputIds, attentionMask, labels, places } = columns;
        return {
          reference: logProbsOf(apply, inputIds, attentionMask, labels, places),
          ...(estimates && { otherReference: othersOf(apply, columns) }),
        };
      },
    },
    shared: estimates
      ? (apply, columns) => {
        const others = isRow(columns.otherLabels!);
        const away = sumKnown(others, sub(othersOf(apply, columns), given(columns, "otherReference")));
        return { away, others: reduceSum(others) };
      }
      : undefined,
    sums(apply, columns) {
      const { inputIds, attentionMask, labels, places } = columns;
      const logps = logProbsOf(apply, inputIds, attentionMask, labels, places);
      const ratio = sub(logps, given(columns, "reference"));
      const known = isRow(labels), good = given(columns, "desirable"), bad = sub(1, good);
      const distance = estimates
        ? max(div(given(columns, "away"), max(given(columns, "others"), 1)), 0)
        : mul(reduceSum(known), 0);
      const zero = broadcastTo(reshape(distance, [1]), ratio.shape);
      const gain = mul(sub(ratio, zero), beta);
      // Of an answer that is wanted 1 - σ(gain), of another 1 - σ(-gain).
      const isGood = gt(good, 0.5);
      const weight = add(mul(good, desirable), mul(bad, undesirable));
      const rewards = mul(ratio, beta);
      const [goodKnown, badKnown] = [mul(known, good), mul(known, bad)];
      return {
        loss: sumKnown(known, mul(weight, sigmoid(select(isGood, neg(gain), gain)))),
        kl: mul(reduceSum(known), distance) as Scalar,
        good: reduceSum(goodKnown),
        rewardsGood: sumKnown(goodKnown, rewards),
        rewardsBad: sumKnown(badKnown, rewards),
        logpsGood: sumKnown(goodKnown, logps),
        logpsBad: sumKnown(badKnown, logps),
      };
    },
    measures: judgedMeasures,
  };
}

type Sums = Readonly<Record<string, number>>;
/** A mean over the rows of one label; 0 where there are none. */
const over = (sum: number, rows: number) => rows === 0 ? 0 : sum / rows;
const chosen = ({ rewardsGood, good }: Sums) => over(rewardsGood, good);
const rejected = ({ rewardsBad, good, count }: Sums) => over(rewardsBad, count - good);

const judgedMeasures: readonly Measure[] = [
  { name: "kl", of: ({ kl, count }) => kl / count },
  { name: "rewards/chosen", of: chosen },
  { name: "rewards/rejected", of: rejected },
  { name: "rewards/margins", of: (sums) => chosen(sums) - rejected(sums) },
  { name: "logps/chosen", of: ({ logpsGood, good }) => over(logpsGood, good) },
  { name: "logps/rejected", of: ({ logpsBad, good, count }) => over(logpsBad, count - good) },
];

/** KTO by its name. */
export const ktoKind: ObjectiveKind = kindOf(
  "answers that are judged alone, as good or bad, become likelier or less likely (KTO)",
  ktoOptions,
  kto,
);
