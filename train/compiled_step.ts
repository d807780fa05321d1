/** A training step compiled for batches: forward, backward and update, of one batch or of several whose gradients add up. */
import { DataError } from "../core/errors.ts";
import type { Value } from "../core/ir/graph.ts";
import type { TokenInputs } from "../core/model.ts";
import { causalLoss, classificationLoss, ignoredLabel } from "../core/nn/loss.ts";
import { asValue } from "../core/ops/constant.ts";
import { convert } from "../core/ops/elementwise.ts";
import { foldIn } from "../core/ops/random.ts";
import { type Operand, type Tensor, type TensorHome, upload } from "../core/tensor.ts";
import { flatten } from "../core/tree.ts";
import { jit } from "../kernels/runtime/jit.ts";
import { type Batch } from "../data/encode.ts";
import type { Optimiser } from "./optimiser.ts";
import { guardedUpdate, makeAccumulation, makeStep, type StepReport, type TrainState } from "./step.ts";
import { labelledPositions } from "./labelled_positions.ts";
import type { Trainee } from "./trainee.ts";
import type { Scalar, Tensors } from "../core/tree_types.ts";

/** What a compiled step is made for. */
export interface CompiledStepOptions {
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
  readonly inputs: TokenInputs & { readonly labels: Operand };
  /** i32[N]: where a next token is predicted, if not everywhere. */
  readonly places?: Operand;
  /** What the losses of its tokens, or of a classifier's rows, are divided by. */
  readonly count: Operand;
  /** A number of its own for every micro-batch of the run. */
  readonly serial: Operand;
}

/** What is compiled of a step: all of it for one batch; for several the first, each further one, and the update. */
export function stepFunctions<P, F>(trainee: Trainee<P, F>, update: Pick<CompiledStepOptions, "optimiser" | "clip">) {
  const loss = (params: P, frozen: F, { inputs, places, count, serial }: Micro, key: Value) => {
    const { labels, ...rest } = inputs;
    const own = foldIn(key, convert(serial, "u32"));
    return lossOf(trainee.apply(params, frozen, rest, { key: own }), labels, { reduction: asValue(count), places });
  };
  const { first, more } = makeAccumulation(loss);
  const finish = (state: TrainState<P>, sum: { loss: Scalar; grads: P }, lr: Value) =>
    guardedUpdate(state, sum.loss, sum.grads, lr, update);
  return { whole: makeStep(loss, update), first, more, finish };
}

/** Compiles the step of a trainee, once for each length that batches have. The state is donated. */
export function compileStep<P, F>(
  trainee: Trainee<P, F>,
  { optimiser, clip, normalise, accumulate }: CompiledStepOptions,
): CompiledStep<P> {
  const functions = stepFunctions(trainee, { optimiser, clip });
  // Each length is a program, of which there are as many as was asked for: nothing to warn of.
  const quiet = { warn: () => {} };
  const whole = jit(functions.whole, { donate: [0], ...quiet });
  const begin = jit(functions.first, quiet);
  const add = jit(functions.more, { donate: [0], ...quiet });
  const finish = jit(functions.finish, { donate: [0, 1] });
  return (state, { step, lr, batches, key }) => {
    const counts = batches.map(countLabelled);
    const total = counts.reduce((a, b) => a + b);
    if (total === 0) {
      throw new DataError(`no token of step ${step + 1} is to be learned: every label is ${ignoredLabel}`);
    }
    const micros = batches.map((batch, i): Micro => ({
      inputs: uploadBatch(key.home, batch),
      ...uploadPlaces(key.home, batch),
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
    for (const { inputs, places } of micros) {
      for (const leaf of flatten<Tensor>([inputs, ...(places ? [places] : [])]).leaves) leaf.dispose();
    }
    return done as ReturnType<CompiledStep<P>>;
  };
}

/** Losses summed and divided: of each next token for logits [B,T,V], of each row for a classifier's logits [B,C]. */
function lossOf(logits: Value, labels: Operand, options: { reduction: Value; places?: Operand }): Scalar {
  return logits.shape.length === 3 ? causalLoss(logits, labels, options) : classificationLoss(logits, labels, options);
}

/** How many tokens of a batch have a label, of which the first of each row is never predicted; or of a classifier, rows. */
function countLabelled({ labels, labelShape: [, seq] }: Batch): number {
  return labels.reduce(
    (count, label, i) => count + (label !== ignoredLabel && (seq === undefined || i % seq > 0) ? 1 : 0),
    0,
  );
}

/** A batch on a device: what a model reads, and the labels for its loss. */
export interface UploadedBatch {
  /** i32[B,T]. */
  readonly inputIds: Tensor;
  /** i32[B,T]. */
  readonly attentionMask: Tensor;
  /** i32[B,T], of packed rows. */
  readonly documentStart?: Tensor;
  /** i32[B,T], or i32[B] of classes. */
  readonly labels: Tensor;
}

/**
 * The places of a batch that head and loss are computed at, on the device. On a GPU it is all of them: each count is a
 * program, and there each program has memory of its own.
 */
export function uploadPlaces(home: TensorHome, batch: Batch): { places?: Tensor } {
  const places = home.kind === "cpu" ? labelledPositions(batch) : undefined;
  return places === undefined ? {} : { places: upload(home, places) };
}

/** Copies a batch to a device. */
export function uploadBatch(home: TensorHome, batch: Batch): UploadedBatch {
  const make = (data: Int32Array, shape: readonly number[] = batch.shape) =>
    upload(home, { shape, dtype: "i32", data });
  return {
    inputIds: make(batch.inputIds),
    attentionMask: make(batch.attentionMask),
    ...(batch.documentStart && { documentStart: make(batch.documentStart) }),
    labels: make(batch.labels, batch.labelShape),
  };
}
