/** A training step compiled for batches: forward, backward and update, of one batch or of several whose gradients add up. */
import { DataError } from "../core/errors.ts";
import type { Value } from "../core/ir/graph.ts";
import { ignoredLabel } from "../core/nn/loss.ts";
import { convert, div } from "../core/ops/elementwise.ts";
import { foldIn } from "../core/ops/random.ts";
import { type Operand, type Tensor, type TensorHome, upload } from "../core/tensor.ts";
import { flatten } from "../core/tree.ts";
import { jit } from "../kernels/runtime/jit.ts";
import { type Batch, type BatchColumns, mapColumns } from "../data/examples.ts";
import type { Objective } from "./objectives/objective.ts";
import type { Optimiser } from "./optimiser.ts";
import {
  type GradientSum,
  guardedUpdate,
  joined,
  makeAccumulation,
  makeStep,
  type StepReport,
  type TrainState,
} from "./step.ts";
import type { Trainee } from "./trainee.ts";
import type { Scalar, ScalarOperand, Tensors } from "../core/tree_types.ts";
import { checkMembers } from "../core/options.ts";

/** What a compiled step is made for. */
export interface CompiledStepOptions {
  readonly objective: Objective;
  readonly optimiser: Optimiser;
  readonly clip: number | null;
  readonly normalise: "tokens" | "micro";
  /** The most batches that a step has. */
  readonly accumulate: number;
}

/** One step: the batches of it, its number from 0 and its learning rate. */
export type CompiledStep<P> = (
  state: TrainState<P>,
  at: { readonly step: number; readonly lr: number; readonly batches: readonly Batch[]; readonly key: Tensor },
) => { state: TrainState<P>; report: Tensors<StepReport> };

interface Micro {
  readonly columns: BatchColumns<Operand>;
  /** What the sum of its losses is divided by. */
  readonly count: ScalarOperand;
  /** A number of its own for every micro-batch of the run. */
  readonly serial: Operand;
}

/** What is compiled of a step: all of it for one batch; for several the first, each further one, and the update. */
export function stepFunctions<P, F>(
  trainee: Trainee<P, F>,
  { objective, ...update }: Pick<CompiledStepOptions, "objective" | "optimiser" | "clip">,
) {
  const loss = (params: P, frozen: F, { columns, count, serial }: Micro, key: Value) => {
    const own = foldIn(key, convert(serial, "u32"));
    const sums = objective.sums((inputs) => trainee.apply(params, frozen, inputs, { key: own }), columns);
    const { loss, ...measured } = sums;
    return [div(loss, count), measured] as const;
  };
  const { first, more } = makeAccumulation(loss, objective.joins);
  const finish = (state: TrainState<P>, sum: GradientSum<P>, lr: Value) =>
    guardedUpdate(state, sum.loss, sum.grads, lr, update, sum.measured);
  return { whole: makeStep(loss, update), first, more, finish };
}

/** Compiles the step of a trainee, once for each length that batches have. The state is donated. */
export function compileStep<P, F>(
  trainee: Trainee<P, F>,
  { objective, optimiser, clip, normalise, accumulate }: CompiledStepOptions,
): CompiledStep<P> {
  const functions = stepFunctions(trainee, { objective, optimiser, clip });
  // Each length is a program, of which there are as many as was asked for: nothing to warn of.
  const quiet = { warn: () => {} };
  const whole = jit(functions.whole, { donate: [0], ...quiet });
  const begin = jit(functions.first, quiet);
  const add = jit(functions.more, { donate: [0], ...quiet });
  const finish = jit(functions.finish, { donate: [0, 1] });
  const share = sharer(trainee, objective);
  return (state, { step, lr, batches, key }) => {
    const counts = batches.map(objective.count);
    const total = counts.reduce((a, b) => a + b);
    if (total === 0) {
      throw new DataError(`no token of step ${step + 1} is to be learned: every label is ${ignoredLabel}`);
    }
    const uploaded = share(state.params, batches.map((batch) => uploadPlaced(key.home, batch, objective)));
    const micros = batches.map((_, i): Micro => ({
      columns: uploaded[i],
      count: normalise === "tokens" ? total : Math.max(1, counts[i]) * batches.length,
      serial: step * accumulate + i,
    }));
    const rest = (i: number) => [trainee.frozen, micros[i], key] as const;
    let done;
    if (accumulate === 1) done = whole(state, lr, ...rest(0));
    else {
      let sum = begin(state.params, ...rest(0));
      for (let i = 1; i < micros.length; i++) sum = add(sum, state.params, ...rest(i));
      done = finish(state, sum, lr);
    }
    for (const leaf of new Set(flatten<Tensor>(uploaded).leaves)) leaf.dispose();
    return done as ReturnType<CompiledStep<P>>;
  };
}

/** What is compiled of what batches share: that of one of them. */
export function sharedFunction<P, F>(trainee: Trainee<P, F>, objective: Objective) {
  return (params: P, frozen: F, columns: BatchColumns<Operand>) =>
    objective.shared!((inputs) => trainee.apply(params, frozen, inputs), columns);
}

/** Gives batches what they add up to before any of them is learned from, where their objective wants to know it. */
function sharer<P, F>(
  trainee: Trainee<P, F>,
  objective: Objective,
): (params: P, batches: readonly UploadedBatch[]) => readonly UploadedBatch[] {
  if (objective.shared === undefined) return (_, batches) => batches;
  const one = jit(sharedFunction(trainee, objective), { warn: () => {} });
  const both = jit((a: Record<string, Scalar>, b: Record<string, Scalar>) => joined(a, b), { donate: [0, 1] });
  return (params, batches) => {
    const own = batches.map((batch) => one(params, trainee.frozen, batch) as Record<string, Tensor>);
    const sums = own.reduce((a, b) => both(a as never, b as never) as Record<string, Tensor>);
    return batches.map((batch) => ({ ...batch, ...sums }));
  };
}

/**
 * Copies a batch to a device, with the places that its loss is computed at. On a GPU it is all of them: each count is a program,
 * and there each program has memory of its own.
 */
export function uploadPlaced(home: TensorHome, batch: Batch, objective: Objective): BatchColumns<Tensor> {
  const places = home.cheapShapes ? objective.places?.(batch) : undefined;
  return { ...uploadBatch(home, batch), ...(places && { places: upload(home, places) }) };
}

/** Copies a batch to a device. */
export function uploadBatch(home: TensorHome, batch: Batch): UploadedBatch {
  checkMembers("uploadBatch", "a batch, as makeBatch gives it", batch, ["columns"]);
  return mapColumns(batch.columns, (column) => upload(home, column));
}

/** A batch on a device: what a model reads, and the labels for its loss. */
export type UploadedBatch = BatchColumns<Tensor>;
