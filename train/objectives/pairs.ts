/** What objectives have in common whose examples are two answers to one prompt, of which one is preferred. */
import type { Value } from "../../core/ir/graph.ts";
import { logSigmoid } from "../../core/nn/activation.ts";
import { ignoredLabel, nextLabels, tokenLogProbs } from "../../core/nn/loss.ts";
import { reduceSum } from "../../core/ops/broadcast.ts";
import { add, and, convert, div, gt, max, mul, ne, neg, sign, sub } from "../../core/ops/elementwise.ts";
import { slice } from "../../core/ops/structure.ts";
import type { Operand } from "../../core/tensor.ts";
import { type Batch, type BatchColumns, type Example, padExamples } from "../../data/examples.ts";
import { type PreferenceRow, preferenceRows } from "../../data/preference_rows.ts";
import { labelledPositions } from "../labelled_positions.ts";
import type { Option } from "../options/option_table.ts";
import { causalLM } from "./causal_lm.ts";
import type { Apply, Measure, Objective } from "./objective.ts";
import { countRows, meanOf, sumKnown } from "./sums.ts";
import type { Scalar } from "../../core/tree_types.ts";
import { asValue } from "../../core/ops/constant.ts";

/** The preferred answer to a prompt, and another. */
export interface Pair extends Example {
  readonly rejected: Pick<Example, "ids" | "labels">;
  /** By how much the first is better, where the row says it. */
  readonly margin?: number;
}

/** Both sequences of a pair. */
const both = ({ rejected, ...chosen }: Pair): readonly Example[] => [chosen, rejected];

/** Of an example of a pair, and of one that is no pair (it is found wrong elsewhere). */
const sequencesOf = (example: Example) => "rejected" in example ? both(example as Pair) : [example];

/** Nothing, twice: what fills up a batch. */
const nothing: Example = { ids: [0], labels: [ignoredLabel] };

/** Everything but the name and the loss. A batch of n pairs is 2n sequences: the preferred ones first. */
export const pairs: Omit<Objective, "name" | "learner" | "sums" | "measures"> = {
  task: "CAUSAL_LM",
  unit: "rows",
  formats: [preferenceRows],
  alone: "rows of preferences are learned by themselves, and then every row needs two answers",
  notPacked: "pairs of answers are compared, and can't share a row: leave pack out.",
  notChunked: "two answers that are compared whole: take --overflow cut.",
  samples: [
    { prompt: "How? ", chosen: "so", rejected: "no way" },
    { prompt: "Why is it? ", chosen: "it is late", rejected: "x" },
    { chosen: "One or two? one", rejected: "One or two? two, or three" },
    { prompt: "Who ", chosen: "me", rejected: "us" },
    { prompt: "What is the longest? ", chosen: "this one", rejected: "that" },
  ],
  fits: (example) => "rejected" in example,
  encode({ chosen, rejected, margin }: PreferenceRow, tokenizer, options): Pair {
    const encode = (row: PreferenceRow["chosen"]) => causalLM.encode(row, tokenizer, { ...options, maskPrompt: true });
    return { ...encode(chosen), rejected: encode(rejected), ...(margin !== undefined && { margin }) };
  },
  lengthOf: (example) => Math.max(...sequencesOf(example).map(causalLM.lengthOf)),
  cut(example, start, end) {
    const [chosen, rejected] = sequencesOf(example).map((one) => causalLM.cut(one, start, end));
    return { ...example, ...chosen, rejected };
  },
  isLearnable: (example) => sequencesOf(example).every(causalLM.isLearnable),
  problem(example, bounds) {
    for (const one of sequencesOf(example)) {
      const problem = causalLM.problem(one, bounds);
      if (problem !== null) return problem;
    }
    return "rejected" in example ? null : "is one text, and not two answers of which one is preferred: give pairs.";
  },
  collate(examples, { rows, seq, padId }): Batch {
    const halves = [0, 1].map((half) =>
      Array.from({ length: rows }, (_, i) => i < examples.length ? both(examples[i] as Pair)[half] : nothing)
    );
    const { columns } = padExamples(halves.flat(), { rows: 2 * rows, seq, padId });
    const tokens = examples.flatMap(sequencesOf).reduce((sum, { ids }) => sum + ids.length, 0);
    return { columns, shape: [rows, seq], tokens };
  },
  count: countRows,
  places: labelledPositions,
  prompt: causalLM.prompt,
};

/** The preferred half of a value whose rows are pairs, and the other. */
export function halvesOf(x: Value): { readonly chosen: Value; readonly rejected: Value } {
  const n = x.shape[0] / 2;
  return { chosen: slice(x, 0, 0, n), rejected: slice(x, 0, n, 2 * n) };
}

/** 1 where a token is to be predicted, else 0; f32 like the labels. */
export const isPredicted = (labels: Operand): Value => convert(ne(nextLabels(labels), ignoredLabel), "f32");

/** Which pairs are any, bool[pairs]: those with tokens to be predicted on both sides. */
export const arePairs = ({ chosen, rejected }: ReturnType<typeof halvesOf>): Value =>
  and(gt(chosen, 0), gt(rejected, 0));

/** The log-probability of each answer, how many tokens it has, and which pairs are any (1, else 0). */
export function answersOf(apply: Apply, { labels, places, ...columns }: BatchColumns<Operand>) {
  const { inputIds, attentionMask } = columns;
  const logProbs = tokenLogProbs(apply({ inputIds, attentionMask }), labels, { places });
  const lengths = halvesOf(reduceSum(isPredicted(labels), 1));
  return {
    sums: halvesOf(reduceSum(logProbs, 1)),
    lengths: { chosen: max(lengths.chosen, 1), rejected: max(lengths.rejected, 1) },
    known: convert(arePairs(lengths), "f32"),
  };
}

/** The option of a preference's label smoothing. */
export const smoothingOption = {
  kind: "number",
  least: 0,
  most: 0.49,
  default: 0,
  help: "The part of the pairs that is taken to be the wrong way round",
} as const satisfies Option;

/** -log σ(x), a part of it for the pair turned round. */
export const smoothed = (x: Value, smoothing: number): Value =>
  neg(add(mul(logSigmoid(x), 1 - smoothing), mul(logSigmoid(neg(x)), smoothing)));

/** What preferences are measured by, f32[pairs] each, added up. */
export function rewardSums(
  known: Value,
  rewards: { readonly chosen: Value; readonly rejected: Value },
  logps: { readonly chosen: Value; readonly rejected: Value },
): Readonly<Record<string, Scalar>> {
  const sum = (x: Value) => sumKnown(known, x);
  return {
    rewardsChosen: sum(rewards.chosen),
    rewardsRejected: sum(rewards.rejected),
    // Where both are the same, as before the first step, it is as right as wrong.
    right: sum(mul(add(sign(sub(rewards.chosen, rewards.rejected)), 1), 0.5)),
    margins: sum(sub(rewards.chosen, rewards.rejected)),
    logpsChosen: sum(logps.chosen),
    logpsRejected: sum(logps.rejected),
  };
}

/** {@link rewardSums} by TRL's names. */
export const rewardMeasures: readonly Measure[] = [
  meanOf("rewards/chosen", "rewardsChosen"),
  meanOf("rewards/rejected", "rewardsRejected"),
  meanOf("rewards/accuracies", "right", true),
  meanOf("rewards/margins", "margins"),
  meanOf("logps/chosen", "logpsChosen"),
  meanOf("logps/rejected", "logpsRejected"),
];

/** A column that `collate` or `shared` gave. */
export const given = (columns: BatchColumns<Operand>, name: string): Value => asValue(columns[name]!);

/** What a step has of pairs and of the tokens of preferred answers: what a mean over these divides by. */
export function chosenTokens(columns: BatchColumns<Operand>): Readonly<Record<string, Value>> {
  const lengths = halvesOf(reduceSum(isPredicted(columns.labels), 1));
  return { pairs: reduceSum(convert(arePairs(lengths), "f32")), chosenTokens: reduceSum(lengths.chosen) };
}

/** A sum over the tokens of a step as a mean over them, for every pair: what is added to losses that are means over pairs. */
export function perPair(columns: BatchColumns<Operand>, sum: Scalar, tokens: string): Scalar {
  return div(mul(sum, given(columns, "pairs")), max(given(columns, tokens), 1)) as Scalar;
}
