/** How good parameters are on rows that training never sees: their mean loss, and what their objective measures. */
import { DataError, OptionError } from "../core/errors.ts";
import type { Operand, Tensor } from "../core/tensor.ts";
import { flatten } from "../core/tree.ts";
import { jit } from "../kernels/runtime/jit.ts";
import { read } from "../kernels/runtime/read.ts";
import type { Batch, BatchColumns, Example } from "../data/examples.ts";
import { checkedRows } from "./checked_rows.ts";
import { sharedFunction, type UploadedBatch, uploadPlaced } from "./compiled_step.ts";
import { objectiveOf } from "./objectives/mod.ts";
import { measuresOf, type Objective, type Sums } from "./objectives/objective.ts";
import { relatedRows, withReference } from "./reference.ts";
import type { ReferenceStore } from "./reference_store.ts";
import type { Trainee } from "./trainee.ts";
import { checkList, checkMembers, checkOptions, type OptionNames } from "../core/options.ts";

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
  /** Where numbers that are computed once for each row are kept between runs. */
  readonly reference?: ReferenceStore;
}

const evaluateNames: OptionNames<EvaluateOptions> = {
  ...{ objective: true, batch: true, bucket: true, context: true, padId: true, reference: true },
};

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
  checkOptions("evaluator", options, evaluateNames);
  checkList("evaluator", "examples", data);
  const { objective = objectiveOf(data) } = options;
  checkMembers("evaluator", "what lora or wholeModel gives", trainee, ["trainable", "frozen", "apply"]);
  checkedRows(data, trainee, objective);
  let batches = evaluationBatches(data, { ...options, objective });
  let ready = objective.reference === undefined;
  const measure = jit(measureFunction(trainee, objective), { warn: () => {} });
  const share = objective.shared && jit(sharedFunction(trainee, objective), { warn: () => {} });
  return async (params) => {
    if (!ready) batches = await referredBatches(data, trainee, { ...options, objective });
    ready = true;
    const { home } = flatten<Tensor>(params).leaves[0];
    /** What all batches add up to. */
    const total = async (f: (columns: UploadedBatch) => unknown): Promise<Record<string, number>> => {
      const sums: Record<string, number> = {};
      for (const batch of batches) {
        const columns = uploadPlaced(home, batch, objective);
        const found: Record<string, number> = await read(f(columns) as Record<string, Tensor>, {
          release: true,
        }) as never;
        for (const leaf of flatten<Tensor>(columns).leaves) leaf.dispose();
        for (const [name, sum] of Object.entries(found)) {
          const join = objective.joins?.[name];
          sums[name] = !(name in sums) ? sum : join ? Math[join](sums[name], sum) : sums[name] + sum;
        }
      }
      return sums;
    };
    const shared = share ? await total((columns) => share(params, trainee.frozen, columns)) : {};
    const sums = await total((columns) => measure(params, trainee.frozen, { ...columns, ...shared } as UploadedBatch));
    const count = batches.reduce((n, batch) => n + objective.count(batch), 0);
    return { loss: sums.loss / count, count, ...measuresOf(objective, { ...sums, count }) };
  };
}

/** The batches, with what is computed once for each row. */
async function referredBatches<P, F>(
  data: readonly Example[],
  trainee: Trainee<P, F>,
  options: EvaluateOptions & { readonly objective: Objective },
): Promise<Batch[]> {
  const { objective, batch = 8, padId = 0, reference: store } = options;
  const related = relatedRows(data, objective) as unknown as readonly Example[];
  const referred = await withReference(related, trainee, { objective, batch, padId, seqOf: seqOf(options), store });
  return evaluationBatches(referred as unknown as readonly Example[], { ...options, related: true });
}

/** The length of a batch whose longest row has so many tokens. */
const seqOf = ({ bucket = 32, context = Infinity }: EvaluateOptions) => (longest: number) =>
  Math.min(context, Math.ceil(longest / bucket) * bucket);

/**
 * The batches of an evaluation: rows of like length together.
 *
 * @throws {DataError} when there are no rows
 */
export function evaluationBatches(
  data: readonly Example[],
  options: EvaluateOptions & { readonly related?: boolean } = {},
): Batch[] {
  const { objective = objectiveOf(data), batch = 8, padId = 0 } = options;
  if (!Number.isInteger(batch) || batch < 1) {
    throw new OptionError(`batch is ${batch}: give a whole number of at least 1`);
  }
  if (data.length === 0) throw new DataError("there are no rows to evaluate on: give at least one");
  const all = options.related ? data : relatedRows(data, objective) as unknown as readonly Example[];
  const sorted = all.toSorted((a, b) => objective.lengthOf(a) - objective.lengthOf(b));
  return Array.from({ length: Math.ceil(data.length / batch) }, (_, i) => {
    const rows = sorted.slice(i * batch, (i + 1) * batch);
    const seq = seqOf(options)(objective.lengthOf(rows.at(-1)!));
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
