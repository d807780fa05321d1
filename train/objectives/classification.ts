/** Classification: which of some labels a text has. */
import { DataError } from "../../core/errors.ts";
import { classificationLoss, ignoredLabel } from "../../core/nn/loss.ts";
import { reduceSum } from "../../core/ops/broadcast.ts";
import { and, convert, eq, ne } from "../../core/ops/elementwise.ts";
import { argmax } from "../../core/ops/reduce.ts";
import { padExamples } from "../../data/examples.ts";
import type { Row, RowFormat } from "../../data/rows.ts";
import type { Objective } from "./objective.ts";
import { labelProblem, oneSequence } from "./one_sequence.ts";

type LabelledText = Row & { readonly label: string };

const labelledRows: RowFormat = {
  kind: "text and label",
  form: '{"text": …, "label": …}',
  keys: ["text", "label"],
  fits: ({ text, label }) => typeof text === "string" && (typeof label === "string" || Number.isInteger(label)),
  take: ({ text, label }) => ({ text, label: String(label) }),
};

/** A text and its label; the model has an output for each. */
export const classification: Objective = {
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
  className: ({ label }: LabelledText) => label,
  // A classifier reads a text as its tokenizer frames it.
  encode: ({ text, label }: LabelledText & { readonly text: string }, tokenizer, { classes = [] } = {}) => ({
    ...{ ids: tokenizer.encode(text), labels: [], label: classOf(label, classes) },
  }),
  isLearnable: ({ ids }) => ids.length > 0,
  problem: ({ ids, labels, label }, bounds) => labelProblem(ids, label === undefined ? labels : [label], bounds),
  collate(examples, size) {
    const { columns, ...batch } = padExamples(examples, size);
    const data = Int32Array.from({ length: size.rows }, (_, row) => examples[row]?.label ?? ignoredLabel);
    return { ...batch, columns: { ...columns, labels: { shape: [size.rows], dtype: "i32", data } } };
  },
  count: ({ columns: { labels } }) => Array.from(labels.data).filter((label) => label !== ignoredLabel).length,
  sums(apply, { labels, ...inputs }) {
    const logits = apply(inputs);
    const known = ne(labels, ignoredLabel);
    const loss = classificationLoss(logits, labels, { reduction: "sum" });
    return { loss, right: reduceSum(convert(and(known, eq(argmax(logits, 1), labels)), "f32")) };
  },
  measures: [{ name: "accuracy", percent: true, of: ({ right, count }) => right / count }],
};

/** The class of that name; of a number that is no class's name, the one of that place. */
function classOf(label: string, classes: readonly string[]): number {
  const at = classes.indexOf(label);
  if (at >= 0) return at;
  const isNumber = (name: string) => /^\d+$/.test(name);
  if (isNumber(label) && Number(label) < classes.length && !classes.some(isNumber)) return Number(label);
  throw new DataError(
    `the label ${JSON.stringify(label)} is not one of the model's classes ${
      classes.join(", ")
    }: give one of these, or its ` +
      `number from 0 to ${classes.length - 1}.`,
  );
}
