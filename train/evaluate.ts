/** How good parameters are on rows that training never sees: loss, perplexity, and for classifiers accuracy. */
import { DataError, OptionError } from "../core/errors.ts";
import type { Value } from "../core/ir/graph.ts";
import type { TokenInputs } from "../core/model.ts";
import { causalLoss, classificationLoss, ignoredLabel, labelledTokens } from "../core/nn/loss.ts";
import { reduceSum } from "../core/ops/broadcast.ts";
import { and, convert, eq, ne } from "../core/ops/elementwise.ts";
import { argmax } from "../core/ops/reduce.ts";
import type { Operand, Tensor, TensorHome } from "../core/tensor.ts";
import { flatten } from "../core/tree.ts";
import { jit } from "../kernels/runtime/jit.ts";
import { read } from "../kernels/runtime/read.ts";
import { type Batch, type Example, makeBatch } from "../data/encode.ts";
import { checkedRows } from "./checked_rows.ts";
import { uploadBatch, uploadPlaces } from "./compiled_step.ts";
import type { Trainee } from "./trainee.ts";
import type { Scalar } from "../core/tree_types.ts";

/** What was measured. */
export interface Evaluation {
  /** The mean over all labelled tokens (for a classifier: rows), in nats. */
  readonly loss: number;
  /** e^loss; of language models. */
  readonly perplexity?: number;
  /** The part of the rows whose highest logit is the right class, 0 to 1; of classifiers. */
  readonly accuracy?: number;
  /** Labelled tokens, or rows of a classifier. */
  readonly count: number;
}

/** How rows are fed. */
export interface EvaluateOptions {
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
  checkedRows(data, trainee);
  const batches = evaluationBatches(data, options);
  const measure = jit(measureFunction(trainee), { warn: () => {} });
  return async (params) => {
    const [{ home }] = flatten<Tensor>(params).leaves;
    const total = { loss: 0, count: 0, right: 0 };
    let classes = false;
    for (const batch of batches) {
      const inputs = { ...uploadBatch(home as TensorHome, batch), ...uploadPlaces(home as TensorHome, batch) };
      const found = await read(measure(params, trainee.frozen, inputs), { release: true });
      for (const leaf of flatten<Tensor>(inputs).leaves) leaf.dispose();
      total.loss += found.loss;
      total.count += found.count;
      if (found.right === undefined) continue;
      classes = true;
      total.right += found.right;
    }
    const { count } = total;
    const loss = total.loss / count;
    return { loss, count, ...(classes ? { accuracy: total.right / count } : { perplexity: Math.exp(loss) }) };
  };
}

/**
 * The batches of an evaluation: rows of like length together.
 *
 * @throws {DataError} when there are no rows
 */
export function evaluationBatches(data: readonly Example[], options: EvaluateOptions = {}): Batch[] {
  const { batch = 8, bucket = 32, context = Infinity, padId = 0 } = options;
  if (!Number.isInteger(batch) || batch < 1) {
    throw new OptionError(`batch is ${batch}: give a whole number of at least 1`);
  }
  if (data.length === 0) throw new DataError("there are no rows to evaluate on: give at least one");
  const sorted = data.toSorted((a, b) => a.ids.length - b.ids.length);
  return Array.from({ length: Math.ceil(data.length / batch) }, (_, i) => {
    const rows = sorted.slice(i * batch, (i + 1) * batch);
    const seq = Math.min(context, Math.ceil(rows.at(-1)!.ids.length / bucket) * bucket);
    // The last batch is made as tall as the others: one program less, the same sums.
    return makeBatch(rows, { padId, seq, rows: Math.min(batch, data.length) });
  });
}

type LabelledInputs = TokenInputs & { readonly labels: Operand; readonly places?: Operand };

/** What a batch adds up to: the losses, how many tokens or rows they are of, and a classifier's right answers. */
interface Sums {
  readonly loss: Scalar;
  readonly count: Scalar;
  readonly right?: Scalar;
}

/** What is compiled of an evaluation: the sums of a batch. */
export function measureFunction<P, F>(trainee: Trainee<P, F>): (params: P, frozen: F, batch: LabelledInputs) => Sums {
  return (params, frozen, { labels, places, ...inputs }) => sums(trainee.apply(params, frozen, inputs), labels, places);
}

/** The sums of a batch: of a language model's logits [B,T,V] with labels [B,T], of a classifier's [B,C] with labels [B]. */
function sums(logits: Value, labels: Operand, places?: Operand): Sums {
  if (logits.shape.length === 3) {
    return { loss: causalLoss(logits, labels, { reduction: "sum", places }), count: labelledTokens(labels) };
  }
  const known = ne(labels, ignoredLabel);
  return {
    loss: classificationLoss(logits, labels, { reduction: "sum" }),
    count: reduceSum(convert(known, "f32")),
    right: reduceSum(convert(and(known, eq(argmax(logits, 1), labels)), "f32")),
  };
}
