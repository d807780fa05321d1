/** What objectives have in common whose examples are texts that are compared by their embeddings. */
import type { Value } from "../../core/ir/graph.ts";
import { ignoredLabel } from "../../core/nn/loss.ts";
import { broadcastTo, reduceSum } from "../../core/ops/broadcast.ts";
import { asValue } from "../../core/ops/constant.ts";
import { add, convert, div, max, mul, ne, sqrt, sub } from "../../core/ops/elementwise.ts";
import { slice } from "../../core/ops/structure.ts";
import type { Operand } from "../../core/tensor.ts";
import { type Batch, type BatchColumns, type Example, numberColumn, padExamples } from "../../data/examples.ts";
import type { Json, RowFormat } from "../../data/rows.ts";
import { meanOfTokens } from "../../models/families/encoder.ts";
import type { Option } from "../options/option_table.ts";
import type { Apply, Objective } from "./objective.ts";
import { labelProblem, oneSequence } from "./one_sequence.ts";
import { countLabels } from "./sums.ts";

/** Texts that belong together, or don't. */
export interface Tuple extends Example {
  /** The texts after the first: one that belongs to it, and perhaps one that does not. */
  readonly others: readonly Pick<Example, "ids" | "labels">[];
  /** How alike the first two are, where the row says it. */
  readonly score?: number;
}

/** Texts of a row. */
interface Texts {
  readonly texts: readonly string[];
  readonly score?: number;
}

const isText = (value: unknown) => typeof value === "string";
const anchorOf = ({ anchor, query }: Json) => anchor ?? query;
const positiveOf = ({ positive, document }: Json) => positive ?? document;

/** A text and one that belongs to it. */
export const pairRows: RowFormat = {
  kind: "anchor and positive",
  form: '{"anchor": …, "positive": …}',
  keys: ["anchor", "query", "positive", "document"],
  fits: (row) =>
    isText(anchorOf(row)) && isText(positiveOf(row)) && row.negative === undefined && row.score === undefined,
  take: (row): Texts => ({ texts: [anchorOf(row), positiveOf(row)] as string[] }),
};

/** The same with one that does not. */
export const tripletRows: RowFormat = {
  kind: "anchor, positive and negative",
  form: '{"anchor": …, "positive": …, "negative": …}',
  keys: [...pairRows.keys, "negative"],
  fits: (row) => isText(anchorOf(row)) && isText(positiveOf(row)) && isText(row.negative),
  take: (row): Texts => ({ texts: [anchorOf(row), positiveOf(row), row.negative] as string[] }),
};

/** Two texts, and how alike they are. */
export const scoredRows: RowFormat = {
  kind: "two texts and a score",
  form: '{"sentence1": …, "sentence2": …, "score": number}',
  keys: ["sentence1", "sentence2", "score"],
  fits: ({ sentence1, sentence2, score }) => isText(sentence1) && isText(sentence2) && Number.isFinite(score),
  take: ({ sentence1, sentence2, score }): Texts => ({
    texts: [sentence1, sentence2] as string[],
    score: score as number,
  }),
};

/** All sequences of an example; of one that is no tuple (it is found wrong elsewhere), itself. */
const sequencesOf = (example: Example): readonly Example[] => {
  const { others = [], ...first } = example as Tuple;
  return [first, ...others];
};

/** What fills up a batch. */
const nothing: Example = { ids: [0], labels: [ignoredLabel] };

/** Everything but the name, the rows and the loss, of tuples of so many texts. A batch of n of them is n first texts, then n second ones, and so on. */
export const tuples = (
  most: number,
): Omit<Objective, "name" | "learner" | "formats" | "samples" | "fits" | "sums" | "measures"> => ({
  task: "FEATURE_EXTRACTION",
  unit: "rows",
  alone: "texts that are compared are learned by themselves, and then every row needs as many",
  notPacked: "texts that are compared are embedded one by one, and can't share a row: leave pack out.",
  notChunked: "texts that are compared whole: take --overflow cut.",
  encode({ texts, score }: Texts, tokenizer): Tuple {
    const [first, ...others] = texts.map((text): Example => {
      const ids = tokenizer.encode(text);
      return { ids, labels: ids.map(() => ignoredLabel) };
    });
    return { ...first, others, ...(score !== undefined && { score }) };
  },
  lengthOf: (example) => Math.max(...sequencesOf(example).map(oneSequence.lengthOf)),
  cut(example, start, end) {
    const [first, ...others] = sequencesOf(example).map((one) => oneSequence.cut(one, start, end));
    return { ...example, ...first, others };
  },
  isLearnable: (example) => sequencesOf(example).every(({ ids }) => ids.length > 0),
  problem(example, bounds) {
    for (const { ids } of sequencesOf(example)) {
      const problem = labelProblem(ids, [], bounds);
      if (problem !== null) return problem;
    }
    return "others" in example ? null : "is one text, and not several that are compared: give tuples.";
  },
  collate(examples, { rows, seq, padId }): Batch {
    // Rows of a file may differ in how many texts they have: what a batch has is what all of its rows have.
    const counts = examples.map((example) => sequencesOf(example).length);
    const count = Math.min(...counts, counts.length === 0 ? most : Infinity);
    const all = Array.from(
      { length: count },
      (_, k) =>
        Array.from({ length: rows }, (_, i) => examples[i] === undefined ? nothing : sequencesOf(examples[i])[k]),
    );
    const { columns } = padExamples(all.flat(), { rows: count * rows, seq, padId });
    const labels = Int32Array.from({ length: rows }, (_, i) => i < examples.length ? i : ignoredLabel);
    const score = numberColumn(examples as readonly Tuple[], rows, ({ score }) => score ?? 0);
    const tokens = examples.flatMap(sequencesOf).reduce((sum, { ids }) => sum + ids.length, 0);
    return {
      columns: {
        ...columns,
        labels: { shape: [rows], dtype: "i32", data: labels },
        score,
      },
      shape: [rows, seq],
      tokens,
    };
  },
  count: countLabels,
});

/** The embeddings of each text of the tuples, f32[n,D], the mean of its tokens; and which rows are any, 1 or else 0. */
export function embeddingsOf(apply: Apply, { inputIds, attentionMask, labels }: BatchColumns<Operand>) {
  const all = meanOfTokens(apply({ inputIds, attentionMask }), { attentionMask });
  const y = asValue(labels, "i32"), [n] = y.shape;
  return {
    texts: Array.from({ length: all.shape[0] / n }, (_, k) => slice(all, 0, k * n, (k + 1) * n)),
    known: convert(ne(y, ignoredLabel), "f32"),
  };
}

/** Rows at length 1. */
export function unitRows(x: Value): Value {
  const length = sqrt(add(reduceSum(mul(x, x), 1, { keep: true }), 1e-24));
  return div(x, broadcastTo(max(length, 1e-12), x.shape));
}

/** The cosine of each row of `a` with that of `b`. */
export const cosines = (a: Value, b: Value): Value => reduceSum(mul(unitRows(a), unitRows(b)), 1);

/** The option of what cosines are multiplied by. */
export const scaleOption = {
  kind: "number",
  above: 0,
  default: 20,
  help: "What cosines are multiplied by before they are compared",
} as const satisfies Option;

/** The distance of each row of `a` to that of `b`, as PyTorch has it: 1e-6 is added to each difference. */
export function distances(a: Value, b: Value): Value {
  const d = add(sub(a, b), 1e-6);
  return sqrt(reduceSum(mul(d, d), 1));
}
