/** `lowrank train`: fine-tunes a model on a file or folder of rows, with checkpoints that a run can be taken up from. */
import { FileError, OptionError } from "../core/errors.ts";
import type { Value } from "../core/ir/graph.ts";
import type { Model, TokenInputs } from "../core/model.ts";
import { lora, type Trainable, type Tuned } from "../lora/mod.ts";
import { checkWritable, saveAdapter } from "../train/adapter.ts";
import { recordBase } from "../train/base_record.ts";
import { countSteps, planLengths } from "../train/batches.ts";
import { type CheckpointStore, checkpointStore } from "../train/checkpoint.ts";
import {
  fixedOptions,
  readConfig,
  settleConfig,
  type TrainConfig,
  trainOptions,
  writeConfig,
} from "../train/config.ts";
import { findSplits, labelsOf } from "../train/data_files.ts";
import { type EvaluateOptions, evaluationBatches, evaluator } from "../train/evaluate.ts";
import { type Checkpoints, train, type TrainResult } from "../train/loop.ts";
import { metricsFile, type MetricsLog, openMetrics } from "../train/metrics.ts";
import { adamw } from "../train/optimiser.ts";
import type { OptionTable } from "../train/option_table.ts";
import { progressBar } from "../train/progress.ts";
import { describeMatches, describeTrainable, formatBytes, reportEnd, sizeOfTree } from "../train/report.ts";
import { onInterrupt } from "../train/report_errors.ts";
import { saveModel } from "../train/save_model.ts";
import { type Trainee, wholeModel } from "../train/trainee.ts";
import { type RunWatch, watchRun } from "../train/watch_run.ts";
import { sampler } from "../train/sampler.ts";
import { checkpointBlocks } from "../models/checkpoint_blocks.ts";
import type { Example } from "../train/data.ts";
import { mergeParams } from "../train/merge.ts";
import { type Command, formatUsage, readFlags, type Terminal, UsageError } from "./command.ts";
import { describeEvaluation, describeSurroundings, planMemory, reportFile, tryReport } from "./train_watch.ts";
import { openRows, rowsOf, warnSkipped } from "./open_data.ts";
import { type AnyModel, isClassifier, loadModelFor, openDeviceFor, writeLabels } from "./open_model.ts";

/** What only a command line has: not part of a configuration. */
const ownOptions = {
  config: {
    kind: "text",
    value: "FILE",
    help: "Options from a YAML file: key: value, keys as here; flags override it",
  },
  resume: { kind: "switch", default: false, help: "Go on from the newest checkpoint in the output folder" },
  dryRun: { kind: "switch", default: false, help: "Say what would be trained and how much memory it takes, and end" },
  overwrite: { kind: "switch", default: false, help: "Begin anew though the output folder holds a run" },
} as const satisfies OptionTable;

const table = { ...trainOptions, ...ownOptions };

export const command: Command = {
  name: "train",
  summary: "fine-tune a model on a file or folder of rows",
  usage: formatUsage({
    call: "train --model PATH --data PATH [OPTIONS]",
    table,
    example: "lowrank train --model models/SmolLM2 --data letters/ --epochs 2 --out out/letters",
  }),
  run: async (args, terminal) => {
    const { options: { config: file, resume = false, dryRun = false, overwrite = false, ...flags } } = readFlags(
      args,
      table,
    );
    const config = settleConfig(file === undefined ? {} : readConfig(file), flags);
    if (config.steps !== undefined && config.epochs !== undefined) {
      throw new UsageError("steps and epochs are both given: give one of them");
    }
    await runTraining(config, { resume, dryRun, overwrite }, terminal);
  },
};

async function runTraining(
  config: TrainConfig,
  { resume, dryRun, overwrite }: { resume: boolean; dryRun: boolean; overwrite: boolean },
  terminal: Terminal,
): Promise<void> {
  const { out } = config;
  if (config.data === undefined) throw new OptionError("no data is named: give --data with a file or a folder");
  const splits = findSplits(config.data);
  const labels = labelsOf(splits.train);
  using device = await openDeviceFor(config, terminal);
  using model = await loadModelFor(config, { device, classes: labels ?? undefined, seed: config.seed, terminal });
  const tokenizer = model.tokenizer();
  const context = model.sizes.contextLength;
  const classes = isClassifier(model) ? model.labels : undefined;
  const reading = { ...config, context, classes };
  using data = openRows("train", splits.train, tokenizer, reading, terminal);
  using valid = splits.valid === undefined ? null : openRows("valid", splits.valid, tokenizer, reading, terminal);

  const { trainee, tuned } = chooseTrainee(model, config);
  describeTrainee(model, tuned, terminal);
  const padId = tokenizer.padId ?? 0;
  const batching = { batch: config.batch, accumulate: config.accumulate, seed: config.seed, padId };
  const lengths = planLengths(data, { ...config, context });
  const steps = config.steps ?? countSteps(data, { ...batching, lengths, pack: config.pack }, config.epochs ?? 1);
  const optimiser = adamw({ weightDecay: config.weightDecay });
  const clip = config.clip === 0 ? null : config.clip;
  const kept = valid && rowsOf(valid);
  const memory = planMemory({
    ...{ trainee, device, terminal },
    byBlocks: !config.checkpointBlocks && "applyByBlocks" in model
      ? () => chooseTrainee(model, { ...config, checkpointBlocks: true }).trainee
      : null,
    plan: {
      ...{ device, lengths, optimiser, clip, batch: config.batch, accumulate: config.accumulate, pack: config.pack },
      ...{ classes: classes !== undefined, keepBest: true },
      evaluation: kept ? evaluationShapes(kept, { context, padId }) : undefined,
    },
  });
  if (dryRun) {
    terminal.print(`dry run   ${steps} steps of ${config.batch * config.accumulate} rows; nothing was written`);
    terminal.result({ steps, lengths, memory });
    return;
  }
  checkWritable(out);
  const base = recordBase(model);
  const writeResult = async (folder: string, params: unknown) => {
    if (tuned === null) await saveModel(folder, model as any, params);
    else {
      const { model: baseModel, dropout } = config;
      await saveAdapter(folder, model, tuned, params as Trainable, { baseModel, dropout, base });
    }
  };
  const store = checkpointStore({
    folder: `${out}/checkpoints`,
    keep: config.keep,
    identity: {
      base: { ...base, name: undefined },
      data: { rows: data.length, sha256: data.hash },
      ...fixedOptions({ ...config, steps }),
    },
    // A whole model lies in the checkpoint's state already.
    writeMore: tuned ? writeResult : undefined,
  });
  const snapshot = findStart(store, out, { resume, overwrite }, terminal);
  if (snapshot && snapshot.step >= steps) {
    terminal.print(`The run in ${out} is done: all of its ${steps} steps were made.`);
    terminal.result({ out, steps, end: "done" });
    return;
  }
  writeConfig(`${out}/config.yaml`, config);

  using metrics = lastingMetrics(openMetrics(`${out}/${metricsFile}`, { append: snapshot !== undefined }), terminal);
  metrics.write({
    event: "run",
    started: new Date().toISOString(),
    steps,
    from: snapshot?.step ?? 0,
    environment: describeSurroundings(model, splits.train, device),
    configuration: { ...config },
    adapter: tuned?.matched ?? [],
  });
  const bar = terminal.quiet ? null : progressBar(steps);
  using watch = watchRun<unknown>({
    steps,
    device,
    metrics,
    evaluateEvery: config.evaluateEvery,
    patience: config.patience,
    evaluate: kept ? evaluator(trainee, kept, { context, padId }) : undefined,
    sample: config.samples > 0 && !isClassifier(model)
      ? sampler<any>({
        ...{ model, tokenizer },
        rows: (kept ?? rowsOf(data, config.samples)).slice(0, config.samples),
        merge: (params) => tuned ? mergeParams(tuned as any, params) : params,
      })
      : undefined,
    onStep: (line, speed) => bar?.update({ ...line, bytes: device.memory.current }, speed),
    onEvaluation: (step, evaluation, best) => {
      const line = describeEvaluation(step, evaluation, best);
      if (bar) bar.say(line);
      else terminal.say(line);
    },
  });
  using interrupt = onInterrupt(terminal.warn);
  const run = await train(trainee, {
    ...config,
    ...batching,
    data,
    steps,
    context,
    ...{ clip, optimiser },
    signal: interrupt.signal,
    watch,
    checkpoints: keepCheckpoints(store, config, watch, terminal),
    resume: snapshot,
  });
  bar?.end();
  warnSkipped(data, terminal);
  await finish(
    run,
    { steps, from: snapshot?.step ?? 0, out, watch, evaluated: valid !== null, classes, writeResult },
    terminal,
  );
}

/** An adapter, or with `full` all of the model. */
function chooseTrainee(
  whole: AnyModel,
  config: TrainConfig,
): { trainee: Trainee<unknown, unknown>; tuned: Tuned<unknown, TokenInputs, Value> | null } {
  if (config.checkpointBlocks && !("applyByBlocks" in whole)) {
    throw new OptionError("checkpoint-blocks is for language models, and this is a classifier: leave it out.");
  }
  const model = config.checkpointBlocks && "applyByBlocks" in whole ? checkpointBlocks(whole) : whole;
  const any = model as Model<unknown, TokenInputs, Value>;
  if (config.full) return { trainee: wholeModel(any), tuned: null };
  const { r, alpha, dropout, rslora, seed } = config;
  const all = config.targets.length === 1 && config.targets[0] === "all-linear";
  const tuned = lora<any, TokenInputs, Value>(any, {
    ...{ r, alpha, dropout, rslora, seed },
    targets: all ? "all-linear" : [...config.targets],
    // A new head knows nothing: it is trained whole.
    modulesToSave: isClassifier(model) && model.fresh.length > 0 ? [...model.fresh] : undefined,
  });
  return { trainee: tuned, tuned };
}

/** Says what is trained. */
function describeTrainee(model: AnyModel, tuned: Tuned<unknown, TokenInputs, Value> | null, terminal: Terminal): void {
  if (tuned === null) {
    const { count, bytes } = sizeOfTree(model.params);
    terminal.say(`training  all ${count.toLocaleString("en")} parameters (${formatBytes(bytes)})`);
    return;
  }
  for (const line of describeMatches(tuned.matched)) terminal.say(`adapting  ${line}`);
  terminal.say(describeTrainable(tuned.matched, model.params));
}

/** The rows and lengths of the batches of an evaluation. */
function evaluationShapes(rows: readonly Example[], options: EvaluateOptions) {
  const shapes = evaluationBatches(rows, options).map(({ shape }) => shape);
  return { batch: shapes[0][0], lengths: [...new Set(shapes.map(([, seq]) => seq))] };
}

/** The checkpoint to go on from; undefined for a run that begins. */
function findStart(
  store: CheckpointStore,
  out: string,
  { resume, overwrite }: { resume: boolean; overwrite: boolean },
  terminal: Terminal,
) {
  const there = store.steps();
  if (!resume) {
    if (there.length === 0) return undefined;
    if (!overwrite) {
      throw new OptionError(
        `${out} holds a run with a checkpoint of step ${
          there.at(-1)
        }: add --resume to go on with it, --overwrite to begin ` +
          `anew, or choose another --out.`,
      );
    }
    store.clear();
    return undefined;
  }
  const found = store.newest();
  if (found === null) {
    throw new FileError(`There is no checkpoint in ${out}/checkpoints to resume from: leave --resume out to begin.`);
  }
  for (const note of found.notes) terminal.warn(note);
  terminal.say(`resuming  after step ${found.snapshot.step}`);
  return found.snapshot;
}

/** Metrics that can't be written end with a warning, not with the run. */
function lastingMetrics(log: MetricsLog, terminal: Terminal): MetricsLog {
  let failed = false;
  return {
    write(event) {
      if (failed) return;
      try {
        log.write(event);
      } catch (error) {
        if (!(error instanceof FileError)) throw error;
        failed = true;
        terminal.warn(`${error.message} No more metrics are written; the run goes on.`);
      }
    },
    [Symbol.dispose]: () => log[Symbol.dispose](),
  };
}

/** When to save, and what is said where that fails: a run goes on without a checkpoint rather than end. */
function keepCheckpoints(
  store: CheckpointStore,
  { saveEvery }: TrainConfig,
  watch: RunWatch<unknown>,
  terminal: Terminal,
): Checkpoints {
  return {
    due: (step, best) => best || step % saveEvery === 0,
    save: async (snapshot, params) => {
      try {
        await store.save(snapshot, params, watch.best?.step ?? null);
      } catch (error) {
        if (!(error instanceof FileError)) throw error;
        terminal.warn(`The checkpoint of step ${snapshot.step} is not saved: ${error.message} The run goes on.`);
      }
    },
  };
}

/** Writes the result and says how the run went. */
async function finish(
  run: TrainResult<unknown>,
  { steps, from, out, watch, evaluated, classes, writeResult }: {
    steps: number;
    from: number;
    out: string;
    watch: RunWatch<unknown>;
    evaluated: boolean;
    classes?: readonly string[];
    writeResult: (folder: string, params: unknown) => Promise<void>;
  },
  terminal: Terminal,
): Promise<void> {
  const { end, losses, shapes } = run;
  const step = from + losses.length;
  // Interrupted, the run will go on: what it has come to is what is wanted. Else the best that is known.
  const interrupted = end !== "done" && end.reason === "interrupted";
  const useBest = watch.best !== null && !interrupted && (evaluated || end !== "done");
  if (classes) writeLabels(out, classes);
  await writeResult(out, useBest ? watch.best!.params : run.trainable);
  watch.end(step, end);
  const programs = shapes.length === 1 ? "1 program compiled" : `${shapes.length} programs compiled`;
  terminal.say(`batches   ${programs}: ${shapes.join(", ")} tokens`);
  if (losses.length > 0) {
    terminal.print(
      `loss      ${losses[0].toFixed(4)} at step ${from + 1}, ${losses.at(-1)!.toFixed(4)} at step ${step}`,
    );
  }
  if (useBest) {
    terminal.print(
      `best      after step ${watch.best!.step}, loss ${watch.best!.loss.toFixed(4)}: this is what is saved`,
    );
  }
  terminal.print(`saved     ${out}`);
  terminal.result({
    ...{ out, steps: step, end: end === "done" ? "done" : end.reason, losses, shapes },
    ...(watch.evaluations.length > 0 && { evaluations: watch.evaluations }),
    ...(useBest && { best: { step: watch.best!.step, loss: watch.best!.loss } }),
  });
  await tryReport(`${out}/${metricsFile}`, `${out}/${reportFile}`, terminal);
  if (interrupted) terminal.say(`resuming  the same command with --resume goes on after step ${step}`);
  reportEnd(end, steps, out);
}
