/** What an objective is: all that the loop, evaluation, the memory estimate, the command line and the report ask of one. */
import type { Value } from "../../core/ir/graph.ts";
import type { ProblemType, Task, TokenInputs } from "../../core/model.ts";
import type { HostTensor, Operand } from "../../core/tensor.ts";
import type { Scalar } from "../../core/tree_types.ts";
import type { Collator } from "../../data/batches.ts";
import type { Batch, BatchColumns, Example } from "../../data/examples.ts";
import type { RowReader } from "../../data/rows.ts";
import type { Joins } from "../step.ts";

/**
 * What a run learns, as a value: how a row becomes an example (a {@link RowReader}), examples a batch (a {@link Collator}),
 * a batch a loss, and what of it is measured. One file in `train/objectives/` and a line in its list; the laws of every objective
 * (`tests/laws/objectives_test.ts`) are run on its `samples`.
 *
 * Where examples are more than one sequence (a preferred answer and another), they are a subtype of {@link Example}; what is
 * computed once for each of them before a run (a reference model's log-probabilities) is a field of it, which `collate` makes a
 * column. What takes settings (a temperature, a function that gives rewards) is a function that returns an objective.
 */
export interface Objective extends RowReader, Collator {
  /** What it is asked for as: `dpo`. */
  readonly name: string;
  /** What a model has to be for, in PEFT's words. */
  readonly task: Task;
  /** What a classifier's outputs say, where that is not which one of the labels a text has. */
  readonly says?: ProblemType;
  /** What its losses are means over: what {@link count} counts. */
  readonly unit: "tokens" | "rows";
  /** Some small rows as a file has them, of several lengths. */
  readonly samples: readonly object[];
  /** Whether an example is one of its own. */
  fits(example: Example): boolean;
  /** How many losses a batch has: what their sum is divided by, once all batches of a step are counted. */
  count(batch: Batch): number;
  /** i32[N]: the places b·T + t at which outputs are needed at all; undefined for everywhere. */
  places?(batch: Batch): HostTensor | undefined;
  /**
   * What a batch adds up to, f32[] each: the sum of its losses, and of whatever is measured. `apply` is the model, with what is
   * trained; the columns are those of {@link collate} or {@link pack}, and the {@link places}.
   */
  sums(apply: Apply, columns: BatchColumns<Operand>): Sums;
  /** How sums of two batches become one, by name, where they are not added: the least and the greatest. */
  readonly joins?: Joins;
  /** What is known of each example before the first step, from weights that no step changes. */
  readonly reference?: Reference;
  /**
   * What all batches of a step add up to before any of them is learned from, f32[] each, without a gradient: each batch gets
   * the sums as columns. So a loss that divides by what the whole step has is the sum of its batches' all the same.
   */
  shared?(apply: Apply, columns: BatchColumns<Operand>): Readonly<Record<string, Value>>;
  /** An example with what it takes of the one before it in the data (the last one, for the first). */
  related?(example: Example, previous: Example): Example;
  /** What evaluations tell beside the mean loss. */
  readonly measures: readonly Measure[];
  /** The beginning of an example that the model is to continue, to be read in the report; where it continues anything. */
  prompt?(example: Example): readonly number[];
}

/** The model, with what is trained: logits. */
export type Apply = (inputs: TokenInputs) => Value;

/**
 * Numbers of every example by weights that no step changes: those of the model without its adapter, or all of them as they were
 * before the run. They are computed once and become {@link Example.reference}, which `collate` makes columns.
 */
export interface Reference {
  /** The shape of one example's numbers, by their name. */
  readonly columns: Readonly<Record<string, readonly number[]>>;
  /** The numbers of a batch's examples, f32[rows, ...shape] each. */
  of(apply: Apply, columns: BatchColumns<Operand>): Readonly<Record<string, Value>>;
}

/** What a batch adds up to. */
export interface Sums {
  /** The sum of the loss, over what it is a mean of. */
  readonly loss: Scalar;
  /** Whatever else is measured. */
  readonly [other: string]: Scalar;
}

/** Something that an evaluation tells. */
export interface Measure {
  /** As it is called in metrics and on the terminal. */
  readonly name: string;
  /** Whether it is a part of the whole, 0 to 1, which is written in per cent. */
  readonly percent?: boolean;
  /** From the sums over all batches, `loss` among them, and their `count`. */
  of(sums: Readonly<Record<string, number>>): number;
}

/** Every measure, of the sums and their `count`. */
export function measuresOf(
  { measures }: Pick<Objective, "measures">,
  sums: Readonly<Record<string, number>>,
): Record<string, number> {
  return Object.fromEntries(measures.map(({ name, of }) => [name, of(sums)]));
}

/** A measure of an evaluation as a person reads it; `plain` writes what is no part of a whole. */
export function writeMeasure(
  { name, percent }: Measure,
  evaluation: object,
  digits = 2,
  plain: (value: number) => string = (value) => value.toFixed(digits),
): string {
  const value = (evaluation as Readonly<Record<string, number | undefined>>)[name] ?? NaN;
  return percent ? `${(100 * value).toFixed(digits)} %` : plain(value);
}
