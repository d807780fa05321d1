/** How good parameters are on rows that training never sees: their mean loss, and what their objective measures. */
import { DataError, OptionError } from "../core/errors.ts";
import type { Operand, Tensor, TensorHome } from "../core/tensor.ts";
import { flatten } from "../core/tree.ts";
import { jit } from "../kernels/runtime/jit.ts";
import { read } from "../kernels/runtime/read.ts";
import type { Batch, BatchColumns, Example } from "../data/examples.ts";
import { checkedRows } from "./checked_rows.ts";
import { uploadPlaced } from "./compiled_step.ts";
import { objectiveOf } from "./objectives/mod.ts";
import type { Objective, Sums } from "./objectives/objective.ts";
import type { Trainee } from "./trainee.ts";

/** What was measured: the loss, and by its name whatever else the objective measures. */
export interface Evaluation {
  /** The mean over all that is learned, in nats: tokens, or rows of a classifier. */
  readonly loss: number;
  /** Labelled tokens, or rows of a classifier. */
  readonly count: number;
  /** e^loss; of language models. */
  readonly perplexity?: number;
  /** The part of the rows whose highest logit is the right class, 0 to 1; of classifiers. */
  readonly accuracy?: number;
}

/** How rows are fed. */
export interface EvaluateOptions {
  /** What is measured. By default what the rows are of. */
  readonly objective?: Objective;
  /** Rows at once. Default 8. */
  readonly batch?: number;
  /** Lengths are rounded up to a multiple of this many tokens, so that there are few programs. Default 32. */
  readonly bucket?: number;
  /** The most tokens of a row. Default: no limit. */
  readonly context?: number;
  /** What rows are padded with. Default 0. */
  readonly padId?: number;
}

/**
 * Makes a function that measures parameters on `data`. Rows of like length go together, each batch in the time of its
 * longest; the programs are compiled once for all calls. Dropout is off.
 *
 * @throws {DataError} when there is nothing to measure on
 */
export function evaluator<P, F>(
  trainee: Trainee<P, F>,
  data: readonly Example[],
  options: EvaluateOptions = {},
): (params: P) => Promise<Evaluation> {
  const { objective = objectiveOf(data) } = options;
  checkedRows(data, trainee, objective);
  const batches = evaluationBatches(data, { ...options, objective });
  const measure = jit(measureFunction(trainee, objective), { warn: () => {} });
  return async (params) => {
    const [{ home }] = flatten<Tensor>(params).leaves;
    const sums: Record<string, number> = {};
    let count = 0;
    for (const batch of batches) {
      const columns = uploadPlaced(home as TensorHome, batch, objective);
      const found: Record<string, number> = await read(measure(params, trainee.frozen, columns), { release: true });
      for (const leaf of flatten<Tensor>(columns).leaves) leaf.dispose();
      for (const [name, sum] of Object.entries(found)) sums[name] = (sums[name] ?? 0) + sum;
      count += objective.count(batch);
    }
    const measured = objective.measures.map(({ name, of }) => [name, of({ ...sums, count })]);
    return { loss: sums.loss / count, count, ...Object.fromEntries(measured) };
  };
}

/**
 * The batches of an evaluation: rows of like length together.
 *
 * @throws {DataError} when there are no rows
 */
export function evaluationBatches(data: readonly Example[], options: EvaluateOptions = {}): Batch[] {
  const { objective = objectiveOf(data), batch = 8, bucket = 32, context = Infinity, padId = 0 } = options;
  if (!Number.isInteger(batch) || batch < 1) {
    throw new OptionError(`batch is ${batch}: give a whole number of at least 1`);
  }
  if (data.length === 0) throw new DataError("there are no rows to evaluate on: give at least one");
  const sorted = data.toSorted((a, b) => objective.lengthOf(a) - objective.lengthOf(b));
  return Array.from({ length: Math.ceil(data.length / batch) }, (_, i) => {
    const rows = sorted.slice(i * batch, (i + 1) * batch);
    const seq = Math.min(context, Math.ceil(objective.lengthOf(rows.at(-1)!) / bucket) * bucket);
    // The last batch is made as tall as the others: one program less, the same sums.
    return objective.collate(rows, { padId, seq, rows: Math.min(batch, data.length) });
  });
}

/** What is compiled of an evaluation: the sums of a batch. */
export function measureFunction<P, F>(
  trainee: Trainee<P, F>,
  objective: Objective,
): (params: P, frozen: F, columns: BatchColumns<Operand>) => Sums {
  return (params, frozen, columns) => objective.sums((inputs) => trainee.apply(params, frozen, inputs), columns);
}
