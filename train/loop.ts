/** The training loop: batches in order, one compiled step, reports as they come, and three ways to end. */
import { DataError, OptionError } from "../core/errors.ts";
import { causalLoss } from "../core/nn/loss.ts";
import { asValue } from "../core/ops/constant.ts";
import { convert } from "../core/ops/elementwise.ts";
import { foldIn } from "../core/ops/random.ts";
import type { Value } from "../core/ir/graph.ts";
import type { TokenInputs } from "../core/model.ts";
import { randomKey } from "../core/random.ts";
import { type Operand, type Tensor, type TensorHome, upload } from "../core/tensor.ts";
import { flatten } from "../core/tree.ts";
import type { Device } from "../kernels/device/device.ts";
import { jit, read } from "../kernels/jit.ts";
import { type Batch, batchOrder, type Example, IGNORED, makeBatch } from "./data.ts";
import { adamw, type Optimiser } from "./optimiser.ts";
import { makeSchedule, type ScheduleName } from "./schedule.ts";
import { guardedUpdate, makeAccumulation, makeStep, type TrainState } from "./step.ts";
import type { StepLine, Stop, Watch } from "./watch.ts";

/** What is trained: parameters, and a function from them and the frozen rest to logits. What `lora` returns is one. */
export interface Trainee<P = unknown, F = unknown> {
  readonly trainable: P;
  readonly frozen: F;
  apply(trainable: P, frozen: F, inputs: TokenInputs, options?: { readonly key?: Operand }): Value;
}

/** One training run. */
export interface TrainOptions {
  readonly data: readonly Example[];
  /** Updates of the parameters. */
  readonly steps: number;
  /** Rows that go through the model at once. */
  readonly batch: number;
  /** The highest learning rate. */
  readonly lr: number;
  /** Default `linear`. */
  readonly schedule?: ScheduleName;
  /** Steps in which the learning rate rises from 0. Default 0. */
  readonly warmup?: number;
  /** The most that the gradients' global norm may be; null for no limit. Default 1. */
  readonly clip?: number | null;
  /** Batches whose gradients are added up for one update. Default 1. */
  readonly accumulate?: number;
  /** Divide by the labelled tokens of all of a step's batches (`tokens`, default), or average the batches' means (`micro`). */
  readonly normalise?: "tokens" | "micro";
  /** Default AdamW without weight decay. */
  readonly optimiser?: Optimiser;
  /** Every batch is padded to this many tokens; by default to the longest row, rounded up to a multiple of 16. */
  readonly seq?: number;
  /**
   * In place of `seq`: every batch is padded to its own longest row, rounded up to a multiple of this. Less padding, and a
   * program for each length that occurs.
   */
  readonly bucket?: number;
  /** The model's context, which `seq` may not exceed. */
  readonly context?: number;
  /** What rows are padded with; it is never looked at. Default 0. */
  readonly padId?: number;
  /** Decides the order of the rows and dropout. Default 0. */
  readonly seed?: number;
  /** Aborted, the run ends after the step it is in. */
  readonly signal?: AbortSignal;
  /** Told of every step, in order, at most two steps later. */
  readonly onStep?: (report: StepLine) => void;
  /** Evaluates, keeps the best and may end the run. */
  readonly watch?: Watch;
}

/** How a run went. */
export interface TrainResult<P> {
  /** The parameters after the last good step: tensors of the caller's from now on. */
  readonly trainable: P;
  readonly losses: readonly number[];
  /** Whether the run came to its end; else why it did not, and the step. */
  readonly end:
    | "done"
    | { readonly reason: "interrupted"; readonly step: number }
    | Stop
    | { readonly reason: "not finite"; readonly step: number; readonly loss: number; readonly gradNorm: number };
}

/**
 * Trains. The parameters that `trainee` holds stay as they are; the result has tensors of its own. Given one seed, the losses
 * and the parameters are the same bits whatever the number of threads. A loss or a gradient that is not finite changes
 * nothing and ends the run, as `end` says.
 *
 * @throws {OptionError} when an option can't be honoured
 * @throws {DataError} when there are no rows, or one does not fit
 */
export async function train<P, F>(trainee: Trainee<P, F>, options: TrainOptions): Promise<TrainResult<P>> {
  const plan = settle(options);
  const [{ home }] = flatten<Tensor>(trainee.trainable).leaves;
  const { optimiser, accumulate, signal, watch, onStep = () => {} } = plan;
  const run = makeRunner(trainee, plan);
  let state: TrainState<P> = jit((params: P) => ({ params, optimiser: optimiser.init(params) }))(trainee.trainable);
  using key = upload(home, randomKey(plan.seed));
  const order = batchOrder(plan.data.length, { batch: plan.batch * accumulate, seed: plan.seed });
  const losses: number[] = [];
  // A GPU computes one step while the next is queued; the CPU is done when the call returns.
  const depth = (home as Device).kind === "cpu" ? 1 : 2;
  const under: Promise<StepLine>[] = [];
  let tokens = 0;
  let end: TrainResult<P>["end"] = "done";
  let going = true;

  /** Ends the run where a watcher says so; whether it goes on. */
  const heed = (stop: Stop | null | undefined): boolean => {
    if (stop) end = stop;
    return !stop;
  };

  /** Waits for the oldest step that is under way; false when it was not finite or the run is to end. */
  const settleOldest = async (): Promise<boolean> => {
    const line = await under.shift()!;
    if (!Number.isFinite(line.loss) || !Number.isFinite(line.gradNorm)) {
      end = { reason: "not finite", step: line.step, loss: line.loss, gradNorm: line.gradNorm };
      return false;
    }
    losses.push(line.loss);
    onStep(line);
    return heed(watch?.onStep(line));
  };

  if (watch?.due(0)) going = heed(await watch.look(0, state.params));
  for (let step = 0; step < plan.steps && going; step++) {
    if (signal?.aborted) {
      end = { reason: "interrupted", step };
      break;
    }
    const rows = order(step).map((i) => plan.data[i]);
    const batches = Array.from(
      { length: accumulate },
      (_, i) => makeBatch(rows.slice(i * plan.batch, (i + 1) * plan.batch), plan.padding),
    );
    const lr = plan.lrAt(step);
    const done = run(state, lr, batches, key, step, home);
    state = done.state;
    tokens += rows.reduce((sum, { ids }) => sum + ids.length, 0);
    const line = { step: step + 1, lr, tokens };
    under.push(read(done.report, { release: true }).then((report) => ({ ...line, ...report })));
    const due = watch?.due(step + 1) ?? false;
    while (going && under.length >= (due ? 1 : depth)) going = await settleOldest();
    if (due && going) going = heed(await watch!.look(step + 1, state.params));
    await new Promise((resolve) => setTimeout(resolve)); // Ctrl-C and timers get their turn
  }
  while (under.length > 0 && going) going = await settleOldest();
  await Promise.all(under);
  for (const leaf of flatten<Tensor>(state.optimiser).leaves) leaf.dispose();
  return { trainable: state.params, losses, end };
}

type Plan = ReturnType<typeof settle>;

/** The options with defaults, checked. */
function settle(options: TrainOptions) {
  const { data, clip = 1, accumulate = 1, normalise = "tokens", padId = 0, seed = 0, context = Infinity } = options;
  for (const [name, value] of Object.entries({ steps: options.steps, batch: options.batch, accumulate })) {
    if (!Number.isInteger(value) || value < 1) {
      throw new OptionError(`${name} is ${value}: give a whole number of at least 1`);
    }
  }
  if (clip !== null && !(clip > 0)) {
    throw new OptionError(`clip is ${clip}: give a number above 0, or null for no limit`);
  }
  if (data.length === 0) throw new DataError("there are no rows to learn from: give at least one");
  const longest = data.reduce((most, { ids }) => Math.max(most, ids.length), 0);
  const { bucket = 16 } = options;
  if (!Number.isInteger(bucket) || bucket < 1) {
    throw new OptionError(`bucket is ${bucket}: give a whole number of at least 1`);
  }
  const rounded = Math.ceil(longest / bucket) * bucket;
  const seq = options.seq ?? Math.min(context, rounded);
  const padding = options.bucket !== undefined && rounded <= context ? { padId, bucket } : { padId, seq };
  if (seq > context) throw new OptionError(`seq is ${seq}, but the model's context holds ${context} tokens`);
  const lrAt = makeSchedule({ schedule: "linear", ...options });
  const optimiser = options.optimiser ?? adamw({ weightDecay: 0 });
  return { ...options, data, clip, accumulate, normalise, seed, padding, lrAt, optimiser };
}

/** The compiled step, or with accumulation the compiled parts of it. */
function makeRunner<P, F>(trainee: Trainee<P, F>, plan: Plan) {
  interface Micro {
    readonly inputs: TokenInputs & { readonly labels: Operand };
    /** What the losses of its tokens are divided by. */
    readonly count: Operand;
    /** A number of its own for every micro-batch of the run. */
    readonly serial: Operand;
  }
  const loss = (params: P, frozen: F, { inputs, count, serial }: Micro, key: Value) => {
    const { labels, ...rest } = inputs;
    const own = foldIn(key, convert(serial, "u32"));
    return causalLoss(trainee.apply(params, frozen, rest, { key: own }), labels, { reduction: asValue(count) });
  };
  const whole = jit(makeStep(loss, plan), { donate: [0] });
  const { first, more } = makeAccumulation(loss);
  const begin = jit(first);
  const add = jit(more, { donate: [0] });
  const finish = jit(
    (state: TrainState<P>, sum: { loss: Value; grads: P }, lr: Value) =>
      guardedUpdate(state, sum.loss, sum.grads, lr, plan),
    { donate: [0, 1] },
  );
  return (state: TrainState<P>, lr: number, batches: readonly Batch[], key: Tensor, step: number, home: TensorHome) => {
    const counts = batches.map(countLabelled);
    const total = counts.reduce((a, b) => a + b);
    if (total === 0) throw new DataError(`no token of step ${step + 1} is to be learned: every label is ${IGNORED}`);
    const micros = batches.map((batch, i): Micro => ({
      inputs: uploadBatch(home, batch),
      count: plan.normalise === "tokens" ? total : Math.max(1, counts[i]) * batches.length,
      serial: step * batches.length + i,
    }));
    const rest = (i: number) => [trainee.frozen, micros[i], key] as const;
    let done;
    if (micros.length === 1) done = whole(state, lr, ...rest(0));
    else {
      let sum = begin(state.params, ...rest(0));
      for (let i = 1; i < micros.length; i++) sum = add(sum, state.params, ...rest(i));
      done = finish(state, sum, lr);
    }
    for (const { inputs } of micros) for (const leaf of flatten<Tensor>(inputs).leaves) leaf.dispose();
    return done as { state: TrainState<P>; report: { loss: Tensor; gradNorm: Tensor } };
  };
}

/** How many tokens of a batch have a label: the first of each row is never predicted. */
function countLabelled({ labels, shape: [, seq] }: Batch): number {
  return labels.reduce((count, label, i) => count + (label !== IGNORED && i % seq > 0 ? 1 : 0), 0);
}

/** A batch on a device: what a model reads, and the labels for its loss. */
export function uploadBatch(home: TensorHome, { inputIds, attentionMask, labels, shape }: Batch) {
  const make = (data: Int32Array) => upload(home, { shape, dtype: "i32", data });
  return { inputIds: make(inputIds), attentionMask: make(attentionMask), labels: make(labels) };
}
