/** What objectives count and add up, and the measures that are means of it. */
import type { Value } from "../../core/ir/graph.ts";
import { ignoredLabel } from "../../core/nn/loss.ts";
import { reduceSum } from "../../core/ops/broadcast.ts";
import { mul } from "../../core/ops/elementwise.ts";
import type { Scalar } from "../../core/tree_types.ts";
import type { Measure, Objective } from "./objective.ts";

/** The labels of a batch. */
export const countLabels: Objective["count"] = ({ columns: { labels } }) =>
  Array.from(labels.data).filter((label) => label !== ignoredLabel).length;

/** The first rows of a batch in which any token is predicted: the first token of a row never is. */
export const countRows: Objective["count"] = ({ columns: { labels: { data } }, shape: [rows, seq] }) =>
  Array.from({ length: rows }, (_, i) => data.subarray(i * seq + 1, (i + 1) * seq))
    .filter((labels) => labels.some((label) => label !== ignoredLabel)).length;

/** Σ over the rows that are any, or pairs: `known` is 1 for these, else 0. */
export const sumKnown = (known: Value, x: Value): Scalar => reduceSum(mul(known, x));

/** A measure that is the mean of a sum. */
export const meanOf = (name: string, sum: string, percent = false): Measure => ({
  name,
  ...(percent && { percent }),
  of: (sums) => sums[sum] / sums.count,
});
