/** Classification's relatives: any number of labels for a text, and a number for a text. */
import { logSigmoid } from "../../core/nn/activation.ts";
import { broadcastTo, reduceSum, reshape } from "../../core/ops/broadcast.ts";
import { asValue } from "../../core/ops/constant.ts";
import { abs, add, and, convert, eq, gt, mul, neg, not, or, sub } from "../../core/ops/elementwise.ts";
import { reduceMax } from "../../core/ops/reduce.ts";
import { iota } from "../../core/ops/structure.ts";
import { ignoredLabel } from "../../core/nn/loss.ts";
import { type BatchSize, type Example, numberColumn, padExamples } from "../../data/examples.ts";
import type { Row, RowFormat } from "../../data/rows.ts";
import { classOf } from "./class_of.ts";
import type { Objective } from "./objective.ts";
import { labelProblem, oneSequence } from "./one_sequence.ts";
import { meanOf } from "./sums.ts";

/** A column of one number a row, and one of which rows are any. */
function withRows(examples: readonly Example[], size: BatchSize, of: (example: any) => number) {
  const { columns, ...batch } = padExamples(examples, size);
  const known = numberColumn(examples, size.rows, () => 1);
  return { ...batch, columns: { ...columns, known, target: numberColumn(examples, size.rows, of) } };
}

const countKnown: Objective["count"] = ({ columns: { known } }) =>
  Array.from(known!.data).reduce((sum: number, x: number) => sum + x, 0);

/** The labels of a text, by the places of their outputs: `labels` of the example. */
interface Many extends Example {
  readonly many: true;
}

/** A text and its labels, any number of them. The loss is the binary cross-entropy of each label, their mean for a text. */
export const multiLabel: Objective = {
  ...oneSequence,
  name: "multi-label",
  learner: "a classifier of several labels",
  task: "SEQ_CLS",
  says: "multi_label_classification",
  unit: "rows",
  formats: [{
    kind: "text and labels",
    form: '{"text": …, "labels": [label, …]}',
    keys: ["text", "labels"],
    fits: ({ text, labels }) =>
      typeof text === "string" && Array.isArray(labels) && labels.every((label) => typeof label === "string"),
    take: ({ text, labels }) => ({ text, labels }),
  }],
  alone: "rows with labels teach a classifier, and then every row needs them",
  notPacked: "rows with labels are classified whole, and can't share a row: leave pack out.",
  notChunked: "labels of all of it, so it can't become several rows: take --overflow cut.",
  samples: [
    { text: "a kind and short word", labels: ["kind", "short"] },
    { text: "no", labels: ["short"] },
    { text: "the best of all the words", labels: ["kind"] },
    { text: "it is broken", labels: [] },
    { text: "yes!", labels: ["kind", "short"] },
  ],
  fits: (example) => "many" in example,
  classNames: ({ labels }: { readonly labels: readonly string[] }) => labels,
  // The list of labels lies in the column of the tokens' labels, so that an example is as long as either.
  lengthOf: (example) => Math.max(oneSequence.lengthOf(example), example.labels.length),
  cut: (example, start, end) => ({ ...example, ids: example.ids.slice(start, end) }),
  encode({ text, labels }: Row & { text: string; labels: readonly string[] }, tokenizer, { classes = [] } = {}): Many {
    return { ids: tokenizer.encode(text), labels: labels.map((label) => classOf(label, classes)), many: true };
  },
  isLearnable: ({ ids }) => ids.length > 0,
  problem: ({ ids, labels }, bounds) => labelProblem(ids, labels, bounds),
  collate: (examples, size) => withRows(examples, size, () => 0),
  count: countKnown,
  sums(apply, { labels, known, target: _, ...inputs }) {
    const logits = apply(inputs), [b, l] = logits.shape, [, t] = asValue(labels).shape;
    const all = [b, t, l];
    const named = eq(broadcastTo(reshape(asValue(labels), [b, t, 1]), all), iota(all, 2));
    const has = gt(reduceMax(convert(named, "f32"), 1), 0), wanted = convert(has, "f32");
    const each = neg(add(mul(logSigmoid(logits), wanted), mul(logSigmoid(neg(logits)), sub(1, wanted))));
    const rows = broadcastTo(reshape(asValue(known!), [b, 1]), [b, l]);
    const said = gt(logits, 0);
    const sum = (x: typeof has) => reduceSum(mul(rows, convert(x, "f32")));
    return {
      loss: reduceSum(mul(rows, mul(each, 1 / l))),
      found: sum(and(said, has)),
      wrong: sum(and(or(said, has), not(and(said, has)))),
    };
  },
  measures: [
    { name: "f1", percent: true, of: ({ found, wrong }) => found + wrong === 0 ? 1 : 2 * found / (2 * found + wrong) },
  ],
};

/** A text and a number. The loss is the square of what the model gives minus it. */
export const regression: Objective = {
  ...oneSequence,
  name: "regression",
  learner: "a model that gives a text a number",
  task: "SEQ_CLS",
  says: "regression",
  unit: "rows",
  formats: [
    {
      kind: "text and number",
      form: '{"text": …, "label": number}',
      keys: ["text", "label"],
      fits: ({ text, label }) => typeof text === "string" && Number.isFinite(label),
      take: ({ text, label }) => ({ text, number: label }),
    } satisfies RowFormat,
  ],
  alone: "rows with a number are learned by themselves, and then every row needs one",
  notPacked: "rows with a number are read whole, and can't share a row: leave pack out.",
  notChunked: "one number, so it can't become several rows: take --overflow cut.",
  samples: [
    { text: "a kind word", label: 0.75 },
    { text: "no", label: -0.5 },
    { text: "the best of all", label: 1.5 },
    { text: "broken", label: -1.25 },
    { text: "it works", label: 0.5 },
  ],
  fits: (example) => "number" in example,
  encode: ({ text, number }: { readonly text: string; readonly number: number }, tokenizer) => {
    const ids = tokenizer.encode(text);
    return { ids, labels: ids.map(() => ignoredLabel), number } as Example;
  },
  isLearnable: ({ ids }) => ids.length > 0,
  problem: ({ ids }, bounds) => labelProblem(ids, [], bounds),
  collate: (examples, size) => withRows(examples, size, ({ number }) => number),
  count: countKnown,
  sums(apply, { labels: _, known, target, ...inputs }) {
    const logits = apply(inputs), rows = asValue(known!);
    const error = sub(reshape(logits, [logits.shape[0]]), asValue(target!));
    return { loss: reduceSum(mul(rows, mul(error, error))), error: reduceSum(mul(rows, abs(error))) };
  },
  measures: [meanOf("error", "error")],
};
