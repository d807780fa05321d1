/** Classification: which of some labels a text has. */
import { OptionError } from "../../core/errors.ts";
import { classificationLoss, crossEntropyRows, ignoredLabel } from "../../core/nn/loss.ts";
import { reduceSum } from "../../core/ops/broadcast.ts";
import { asValue } from "../../core/ops/constant.ts";
import { and, convert, eq, mul, ne } from "../../core/ops/elementwise.ts";
import { argmax } from "../../core/ops/reduce.ts";
import { type Example, numberColumn, padExamples } from "../../data/examples.ts";
import type { Row, RowFormat } from "../../data/rows.ts";
import { resolveOptions, type TableOf } from "../options/option_table.ts";
import { classOf } from "./class_of.ts";
import { kindOf, type ObjectiveKind } from "./kind.ts";
import type { Objective } from "./objective.ts";
import { labelProblem, oneSequence } from "./one_sequence.ts";
import { countLabels } from "./sums.ts";
import { checkOptions } from "../../core/options.ts";

type LabelledText = Row & { readonly label: string };

const labelledRows: RowFormat = {
  kind: "text and label",
  form: '{"text": …, "label": …}',
  keys: ["text", "label"],
  fits: ({ text, label }) => typeof text === "string" && (typeof label === "string" || Number.isInteger(label)),
  take: ({ text, label }) => ({ text, label: String(label) }),
};

/** How {@link classify} learns. */
export interface ClassificationOptions {
  /** How much a row counts by its label, as `label=weight`; 1 where a label is not named. */
  readonly classWeights?: readonly string[];
}

const classificationOptions = {
  classWeights: {
    kind: "list",
    default: [],
    help: "How much a row counts by its label, as label=weight; 1 where a label is not named",
  },
} as const satisfies TableOf<ClassificationOptions>;

/** A text with its label and how much it counts. */
interface Weighted extends Example {
  readonly weight: number;
}

/** `rare=5` as a label and its weight. */
function weightOf(entry: string): readonly [label: string, weight: number] {
  const at = entry.lastIndexOf("="), weight = Number(entry.slice(at + 1));
  if (at > 0 && entry.slice(at + 1).trim() !== "" && weight >= 0 && weight < Infinity) {
    return [entry.slice(0, at), weight];
  }
  throw new OptionError(`classWeights has ${JSON.stringify(entry)}: give each as label=weight, such as spam=2.5`);
}

const sumOf = (data: ArrayLike<number>) => Array.from(data).reduce((sum, x) => sum + x, 0);

/**
 * A text and its label; the model has an output for each. With weights, the loss is the mean over rows that count as much as
 * their labels do, as PyTorch's cross-entropy has it.
 */
export function classify(options: ClassificationOptions = {}): Objective {
  checkOptions("classify", options, classificationOptions);
  const weights = new Map(resolveOptions(classificationOptions, options).classWeights.map(weightOf));
  return {
    ...oneSequence,
    name: "classification",
    learner: "a classifier",
    task: "SEQ_CLS",
    unit: "rows",
    formats: [labelledRows],
    alone: "rows with a label teach a classifier, and then every row needs one",
    notPacked: "rows with a label can't share a row, which has one class: leave pack out.",
    notChunked: "one label, so it can't become several rows: take --overflow cut.",
    samples: [
      { text: "a kind word", label: "good" },
      { text: "no", label: "bad" },
      { text: "the best of all", label: "good" },
      { text: "broken", label: "bad" },
      { text: "it works", label: "good" },
    ],
    fits: ({ label }) => label !== undefined,
    classNames: ({ label }: LabelledText) => [label],
    // A classifier reads a text as its tokenizer frames it.
    encode: ({ text, label }: LabelledText & { readonly text: string }, tokenizer, { classes = [] } = {}) => {
      const at = classOf(label, classes);
      const missing = [...weights.keys()].find((name) => !classes.includes(name));
      if (missing !== undefined) {
        throw new OptionError(
          `classWeights has the label ${JSON.stringify(missing)}, and the model's are ${classes.join(", ")}`,
        );
      }
      const own = weights.size > 0 ? { weight: weights.get(classes[at]) ?? 1 } : {};
      return { ids: tokenizer.encode(text), labels: [], label: at, ...own };
    },
    isLearnable: ({ ids }) => ids.length > 0,
    problem: ({ ids, labels, label }, bounds) => labelProblem(ids, label === undefined ? labels : [label], bounds),
    collate(examples, size) {
      const { columns, ...batch } = padExamples(examples, size);
      const data = Int32Array.from({ length: size.rows }, (_, row) => examples[row]?.label ?? ignoredLabel);
      const labels = { shape: [size.rows], dtype: "i32", data } as const;
      if (weights.size === 0) return { ...batch, columns: { ...columns, labels } };
      const own = numberColumn(examples as readonly Weighted[], size.rows, ({ weight }) => weight ?? 0);
      return { ...batch, columns: { ...columns, labels, weights: own } };
    },
    count: (batch) => batch.columns.weights ? sumOf(batch.columns.weights.data) : countLabels(batch),
    sums(apply, { labels, weights, ...inputs }) {
      const logits = apply(inputs);
      const known = ne(labels, ignoredLabel);
      const loss = weights === undefined
        ? classificationLoss(logits, labels, { reduction: "sum" })
        : reduceSum(mul(crossEntropyRows(logits, labels), asValue(weights)));
      const right = convert(and(known, eq(argmax(logits, 1), labels)), "f32");
      return { loss, right: reduceSum(right), ...(weights && { rows: reduceSum(convert(known, "f32")) }) };
    },
    measures: [{ name: "accuracy", percent: true, of: ({ right, rows, count }) => right / (rows ?? count) }],
  };
}

/** {@link classify} with all labels alike. */
export const classification: Objective = classify();

/** Classification by its name. */
export const classificationKind: ObjectiveKind = kindOf(
  "which of some labels a text has",
  classificationOptions,
  classify,
);
