/** The training loop: batches in order, one compiled step, reports as they come, and four ways to end. */
import { DataError, OptionError } from "../core/errors.ts";
import { randomKey } from "../core/random.ts";
import { Tensor, upload } from "../core/tensor.ts";
import { flatten } from "../core/tree.ts";
import { jit } from "../kernels/runtime/jit.ts";
import { type BatchPlan, checkBatching, countSteps, heightOf, makeBatcher, planLengths } from "../data/batches.ts";
import { checkedRows } from "./checked_rows.ts";
import { compileStep } from "./compiled_step.ts";
import type { Example } from "../data/examples.ts";
import type { DataSet, Examples } from "../data/data_set.ts";
import { objectiveOf, openData } from "./objectives/mod.ts";
import { measuresOf, type Objective } from "./objectives/objective.ts";
import { relatedRows, withReference } from "./reference.ts";
import type { ReferenceStore } from "./reference_store.ts";
import { adamw, type Optimiser } from "./optimiser.ts";
import { makeSchedule, type ScheduleName } from "./options/schedule.ts";
import { groupReads, maxPerRead } from "./watch/grouped_reads.ts";
import { readTensors, restoreTensors, type Snapshot } from "./checkpoint/snapshot.ts";
import type { TrainState } from "./step.ts";
import type { Trainee } from "./trainee.ts";
import type { StepLine, Stop, Watch } from "./watch/watch.ts";
import { trainOptions } from "./options/config.ts";
import type { FromFiles } from "../models/load/loader.ts";
import type { LanguageModel } from "../core/model.ts";
import { checkMembers, checkOptions, type OptionNames } from "../core/options.ts";

/** One training run. */
export interface TrainOptions {
  /** What is learned. By default what the rows are of: classification where they have a class, else causal language modelling. */
  readonly objective?: Objective;
  /**
   * An array, a file opened by `openData`, or the path of a file of rows, which the tokenizer of the loaded model reads as the
   * command line does.
   */
  readonly data: string | Examples | readonly Example[];
  /** Updates of the parameters. By default as many as go once through the data. */
  readonly steps?: number;
  /** Rows that go through the model at once. Default 4. */
  readonly batch?: number;
  /** The highest learning rate. Default 2e-4. */
  readonly lr?: number;
  /** Default `linear`. */
  readonly schedule?: ScheduleName;
  /** Steps over which the learning rate rises from 0. Default 0. */
  readonly warmup?: number;
  /** The most that the gradients' global norm may be; null for no limit. Default 1. */
  readonly clip?: number | null;
  /** Batches whose gradients are accumulated for one update. Default 1. */
  readonly accumulate?: number;
  /** Divide by the labelled tokens of all of a step's batches (`tokens`, default), or average the batches' means (`micro`). */
  readonly normalise?: "tokens" | "micro";
  /** Default AdamW without weight decay. */
  readonly optimiser?: Optimiser;
  /** The most tokens of a row. By default the longest example, rounded up to a multiple of 16; of a pack at least 1024. */
  readonly seq?: number;
  /**
   * Lengths that rows are padded to. With one, every batch is as long as `seq`; with several, rows of like length go together:
   * less padding, and a program for each length. Default 1, and 3 where `data` is a path.
   */
  readonly buckets?: number;
  /** Put several examples into a row; none sees another. Default false. */
  readonly pack?: boolean;
  /** The model's context, which `seq` may not exceed. A loaded model knows its own. */
  readonly context?: number;
  /** What rows are padded with; it is never looked at. By default what a loaded model has for it, else 0. */
  readonly padId?: number;
  /** Decides the order of the rows and dropout. Default 0. */
  readonly seed?: number;
  /** Aborted, the run ends after the step it is in. */
  readonly signal?: AbortSignal;
  /** Called for every step, in order, at most two steps later. */
  readonly onStep?: (report: StepLine) => void;
  /** Evaluates, keeps the best and may end the run. */
  readonly watch?: Watch;
  /** Where the state of the run is kept: when they ask for it, and at the end, unless the run was lost there. */
  readonly checkpoints?: Checkpoints;
  /** Where numbers that are computed once for each row before the first step (a reference's) are kept between runs. */
  readonly reference?: ReferenceStore;
  /** Go on from here. The other options must be those of the run that it was taken from. */
  readonly resume?: Snapshot;
}

/** The names of {@link TrainOptions}. */
export const trainNames: OptionNames<TrainOptions> = {
  ...{ objective: true, data: true, steps: true, batch: true, lr: true, schedule: true, warmup: true, clip: true },
  ...{ accumulate: true, normalise: true, optimiser: true, seq: true, buckets: true, pack: true, context: true },
  ...{
    padId: true,
    seed: true,
    reference: true,
    signal: true,
    onStep: true,
    watch: true,
    checkpoints: true,
    resume: true,
  },
};

/** What keeps the state of a run. */
export interface Checkpoints {
  /** Whether to save after `step` updates; asked once for each step. `best` says that a watcher just found its best. */
  due(step: number, best: boolean): boolean;
  /** Keeps a state. `params` are the loop's tensors: what is to be kept of them has to be copied or written. */
  save(snapshot: Snapshot, params: unknown): Promise<unknown>;
}

/** How a run went. */
export interface TrainResult<P, T = unknown> {
  /** What was trained, with its parameters as they are now: what `lora` gave, ready to be saved, merged or talked to. */
  readonly tuned: T;
  /** The parameters after the last good step: tensors of the caller's from now on. */
  readonly trainable: P;
  /** Of the steps that were done now: a resumed run's do not have those before. */
  readonly losses: readonly number[];
  /** Whether the run came to its end; else why it did not, and the step. */
  readonly end:
    | "done"
    | { readonly reason: "interrupted"; readonly step: number }
    | Stop
    | { readonly reason: "not finite"; readonly step: number; readonly loss: number; readonly gradNorm: number };
  /** The shapes [rows, tokens] that batches had: a program was compiled for each, on the CPU for each share of labels in it. */
  readonly shapes: readonly string[];
}

/**
 * Trains. The parameters that `trainee` holds stay as they are; the result has tensors of its own. Given one seed, the losses
 * and the parameters are the same bits whatever the number of threads, and however often the run was interrupted and
 * resumed. A loss or a gradient that is not finite changes nothing and ends the run, as `end` says.
 *
 * @throws {OptionError} when an option can't be honoured
 * @throws {DataError} when there are no rows, or one does not fit
 */
export async function train<P, F, T extends Trainee<P, F> = Trainee<P, F>>(
  trainee: T & Trainee<P, F>,
  options: TrainOptions,
): Promise<TrainResult<P, T>> {
  checkOptions("train", options, trainNames);
  checkMembers("train", "what lora or wholeModel gives", trainee, ["trainable", "frozen", "apply"]);
  using opened = typeof options.data === "string" ? openRows(options.data, trainee, options) : undefined;
  const settled = settle(opened ?? options.data as Examples, { ...defaultsOf(trainee, options), ...options });
  const checked = checkedRows(settled.data, trainee, settled.objective);
  const { lengths } = settled;
  const plan = {
    ...settled,
    data: await withReference(checked, trainee, {
      ...settled,
      batch: heightOf(checked, settled),
      seqOf: (longest) => lengths.find((length) => length >= longest) ?? lengths.at(-1)!,
      store: options.reference,
    }),
  };
  const { home } = flatten([trainee.trainable, trainee.frozen]).leaves.find((x) => x instanceof Tensor) as Tensor;
  const { optimiser, signal, watch, checkpoints, resume, onStep = () => {} } = plan;
  const runStep = compileStep(trainee, plan);
  const batcher = makeBatcher(plan.data, plan, resume?.cursor);
  let state = jit((params: P) => ({ params, optimiser: optimiser.init(params) }))(trainee.trainable) as TrainState<P>;
  if (resume) {
    const best = resume.best && restoreTensors(home, copyOf(state.params), resume.best, "params.");
    if (resume.watch !== undefined) watch?.restore?.(resume.watch, best);
    state = restoreTensors(home, state, resume.tensors);
  }
  using key = upload(home, resume?.tensors.get("key") ?? randomKey(plan.seed));
  const losses: number[] = [];
  const shapes = new Set<string>();
  // A GPU computes while the next steps are queued; the CPU is done when the call returns.
  const depth = home.queues ? 2 : 1;
  const readers = groupReads(depth === 1 ? 1 : maxPerRead);
  let tokens = resume?.tokens ?? 0;
  let cursor = batcher.cursor();
  let end: TrainResult<P>["end"] = "done";
  let going = true;
  let saved = resume?.step ?? -1;

  /** Ends the run where a watcher says so; whether it goes on. */
  const applyStop = (stop: Stop | null | undefined): boolean => {
    if (stop) end = stop;
    return !stop;
  };

  /** Waits until at most `most` groups of steps are under way; false when one was not finite or the run is to end. */
  const drainReports = async (most: number): Promise<boolean> => {
    while (going && readers.waiting > most) {
      for (const line of await readers.oldest()) {
        if (!Number.isFinite(line.loss) || !Number.isFinite(line.gradNorm)) {
          end = { reason: "not finite", step: line.step, loss: line.loss, gradNorm: line.gradNorm };
          return false;
        }
        losses.push(line.loss);
        onStep(line);
        if (!applyStop(watch?.onStep(line))) return false;
      }
    }
    return going;
  };

  const save = async (step: number) => {
    if (checkpoints === undefined || saved === step) return;
    const tensors = await readTensors({ ...state, key });
    await checkpoints.save({ step, tokens, cursor, tensors, watch: watch?.save?.() }, state.params);
    saved = step;
  };

  let step = resume?.step ?? 0;
  if (step === 0 && watch?.due(0)) {
    going = applyStop(await watch.evaluate(0, state.params));
    if (watch.best?.step === 0 && checkpoints?.due(0, true)) await save(0);
  }
  while (step < plan.steps && going) {
    if (signal?.aborted) {
      end = { reason: "interrupted", step };
      break;
    }
    const lr = plan.lrAt(step);
    let batches, done;
    try {
      batches = batcher.next();
      done = runStep(state, { step, lr, batches, key });
    } catch (error) { // a row that can't be used, a device that can't go on: what was learned until then is not lost
      readers.close();
      try {
        going = await drainReports(0);
        if (going) await save(step);
      } catch {
        // The device took it along: the last checkpoint is what there is.
      }
      throw error;
    }
    state = done.state;
    cursor = batcher.cursor();
    batches.forEach(({ shape }) => shapes.add(shape.join(" x ")));
    tokens += batches.reduce((sum, batch) => sum + batch.tokens, 0);
    const count = batches.reduce((sum, batch) => sum + plan.objective.count(batch), 0);
    const measure = (loss: number, measured: Readonly<Record<string, number>>) =>
      measuresOf(plan.objective, { ...measured, loss: loss * count, count });
    readers.add({ step: ++step, lr, tokens, measure }, done.report as never);
    const evaluating = watch?.due(step) ?? false;
    const keep = checkpoints?.due(step, false) ?? false;
    if (evaluating || keep) readers.close();
    going = await drainReports(evaluating || keep ? 0 : depth - 1);
    if (evaluating && going) going = applyStop(await watch!.evaluate(step, state.params));
    if (going && (keep || (evaluating && watch!.best?.step === step && checkpoints?.due(step, true)))) await save(step);
    await new Promise((resolve) => setTimeout(resolve)); // Ctrl-C and timers get their turn
  }
  readers.close();
  going = await drainReports(0);
  await readers.rest();
  const ended = end as TrainResult<P>["end"]; // closures have set it
  const lost = ended !== "done" && (ended.reason === "not finite" || ended.reason === "diverged");
  if (!lost) await save(step);
  for (const leaf of flatten<Tensor>(state.optimiser).leaves) leaf.dispose();
  return {
    trainable: state.params,
    tuned: { ...trainee, trainable: state.params },
    losses,
    end: ended,
    shapes: [...shapes],
  };
}

/** The model that was read from files, where what is trained is one or an adapter of one. */
function loadedModel(
  { model = {} }: Trainee,
): (FromFiles & Pick<LanguageModel, "sizes"> & { labels?: readonly string[] }) | null {
  return "tokenizer" in model && "sizes" in model ? model as ReturnType<typeof loadedModel> : null;
}

/** What a loaded model decides: it is not asked for again. */
function defaultsOf(trainee: Trainee, { data }: TrainOptions): Pick<TrainOptions, "context" | "padId" | "buckets"> {
  const model = loadedModel(trainee);
  const context = model === null ? undefined : contextOf(model, trainee);
  // Examples are token ids already: they need no tokenizer, and their padding is never seen.
  if (typeof data !== "string") return { context };
  return { context, padId: model?.tokenizer().padId ?? 0, buckets: trainOptions.buckets.default };
}

/** The most tokens of a row. */
function contextOf({ sizes }: Pick<LanguageModel, "sizes">, { inFront = 0 }: Trainee): number {
  return sizes.contextLength - inFront;
}

/** Opens a file of rows for the model that is trained. */
function openRows(path: string, trainee: Trainee, { seq, objective }: TrainOptions): DataSet {
  const model = loadedModel(trainee);
  if (model === null) {
    throw new OptionError(
      `data is the path ${path}, and the model has no tokenizer to read it with: load the model from files, or give examples`,
    );
  }
  const { vocabSize: tableRows } = model.sizes, context = contextOf(model, trainee);
  return openData(path, model.tokenizer(), { objective, context, tableRows, seq, classes: model.labels });
}

/** Tensors of their own with the values of others. */
function copyOf<T>(tree: T): T {
  return jit((values: T) => values)(tree) as T;
}

/** The options with defaults, checked. */
function settle(given: Examples, options: TrainOptions) {
  const { clip = 1, accumulate = 1, normalise = "tokens", padId = 0, seed = 0, context = Infinity } = options;
  const { buckets = 1, pack = false, batch = trainOptions.batch.default, lr = trainOptions.lr.default } = options;
  const counts = { ...(options.steps !== undefined && { steps: options.steps }), batch, accumulate, buckets };
  for (const [name, value] of Object.entries(counts)) {
    if (!Number.isInteger(value) || value < 1) {
      throw new OptionError(`${name} is ${value}: give a whole number of at least 1`);
    }
  }
  if (clip !== null && !(clip > 0)) {
    throw new OptionError(`clip is ${clip}: give a number above 0, or null for no limit`);
  }
  const { seq } = options;
  if (seq !== undefined && seq > context) {
    throw new OptionError(`seq is ${seq}, but the model's context holds ${context} tokens`);
  }
  const { objective = objectiveOf(given) } = options;
  checkBatching(objective, { pack, accumulate });
  if (given.length === 0) throw new DataError("there are no rows to learn from: give at least one");
  const data = relatedRows(given, objective);
  const lengths = planLengths(data, { objective, seq, context, buckets, pack });
  const batches = { objective, batch, accumulate, seed, padId, lengths, pack } satisfies BatchPlan;
  const steps = options.steps ?? countSteps(data, batches, 1);
  const lrAt = makeSchedule({ schedule: options.schedule ?? "linear", warmup: options.warmup, steps, lr });
  const optimiser = options.optimiser ?? adamw({ weightDecay: 0 });
  return { ...options, ...batches, steps, data, clip, normalise, lrAt, optimiser };
}
