/** `lowrank train`: fine-tunes a model on a file or folder of rows, with checkpoints that a run can be taken up from. */
import { DataError, OptionError } from "../core/errors.ts";
import type { Trainable } from "../lora/mod.ts";
import type { LoadedModel } from "../models/mod.ts";
import { pathKind, readText } from "../models/load/files/byte_source.ts";
import { loadModel } from "../models/load/load_model.ts";
import type { OpenedDevice } from "../kernels/device/open.ts";
import { describeModel } from "../report/describe.ts";
import { checkWritable, saveAdapter } from "../formats/adapter.ts";
import { recordBase } from "../formats/base_record.ts";
import { checkBatching, countSteps, heightOf, planLengths } from "../data/batches.ts";
import { checkpointStore } from "../train/checkpoint/checkpoint.ts";
import {
  fixedOptions,
  kindNamed,
  readConfig,
  resolveConfig,
  settingsOf,
  type TrainConfig,
  trainOptions,
  writeConfig,
} from "../train/options/config.ts";
import { findSplits } from "../data/files.ts";
import { type EvaluateOptions, evaluationBatches, evaluator } from "../train/evaluate.ts";
import { train, trainNames } from "../train/loop.ts";
import { causalLM } from "../train/objectives/causal_lm.ts";
import type { ObjectiveKind } from "../train/objectives/kind.ts";
import { objectives, purposeOfRows } from "../train/objectives/mod.ts";
import type { Objective } from "../train/objectives/objective.ts";
import { relatedRows } from "../train/reference.ts";
import { referenceFile, referenceStore } from "../train/reference_store.ts";
import { lockFolder } from "../train/checkpoint/folder_lock.ts";
import { metricsFile, openMetrics } from "../train/watch/metrics.ts";
import { checkValue, describeOptions, type OptionTable, wrap } from "../train/options/option_table.ts";
import { progressBar } from "../train/watch/progress.ts";
import { onInterrupt } from "../report/errors.ts";
import { BadRow } from "../data/rows.ts";
import { refuseOwnFolder, saveModel } from "../formats/save_model.ts";
import { watchRun } from "../train/watch/watch_run.ts";
import { sampleBytes, sampler } from "../train/watch/sampler.ts";
import type { Example } from "../data/examples.ts";
import { unmergedSteps } from "../formats/unmerged.ts";
import { type Command, formatUsage, readFlags, type Terminal, UsageError } from "./command.ts";
import { downloadAdapter } from "./download.ts";
import { checkFlags, chooseOptimiser, chooseTrainee, describeTrainee } from "./choose_trainee.ts";
import { describeEvaluation, describeSurroundings, planMemory } from "./train_watch.ts";
import {
  checkpointFolder,
  findStart,
  finish,
  keepCheckpoints,
  refuseOtherRun,
  tolerantMetrics,
} from "./train_state.ts";
import { openRows, rowsOf, warnSkipped, withSkipHint } from "./open_data.ts";
import { openDeviceFor, outlineModelFor } from "./open_model.ts";
import { pickOptions } from "../core/options.ts";
import { countOf } from "../core/host/format.ts";

/** Options of the command line alone, not part of a configuration. */
const ownOptions = {
  config: {
    kind: "text",
    value: "FILE",
    help: "Read options from a YAML file with the same keys; flags override it",
  },
  resume: {
    kind: "switch",
    default: false,
    help: "Continue from the newest checkpoint in the output folder, with the options stored there",
  },
  dryRun: {
    kind: "switch",
    default: false,
    help: "Show what would be trained and how much memory it takes, then exit",
  },
  overwrite: { kind: "switch", default: false, help: "Start over even if the output folder holds a run" },
} as const satisfies OptionTable;

const table = { ...trainOptions, ...ownOptions };
const configFile = "config.yaml";

export const command: Command = {
  name: "train",
  summary: "fine-tune a model on a file or folder of rows",
  usage: formatUsage({
    call: "train --model PATH --data PATH [OPTIONS]",
    table,
    example: "lowrank train --model models/SmolLM2 --data letters/ --out out/letters",
  }),
  usageFor: (args) => {
    const name = flagIn(args, "objective");
    return name === undefined ? undefined : usageOf(checkedKind(name));
  },
  run: async (args, terminal) => {
    const named = flagIn(args, "objective") ?? objectiveOfConfig(args);
    const all = { ...table, ...kindNamed(named).options } as typeof table;
    const { options: { config: file, resume = false, dryRun = false, overwrite = false, ...flags } } = readFlags(
      args,
      all,
    );
    if (resume && overwrite) {
      throw new UsageError("resume and overwrite are both given: continue the run that is there, or start over");
    }
    const path = file ?? (resume ? configOfRun(flags.out ?? trainOptions.out.default) : null);
    const config = resolveConfig(path === null ? {} : readConfig(path, flags.objective), flags);
    checkFlags(flags, config);
    if (config.steps !== undefined && config.epochs !== undefined) {
      throw new UsageError("steps and epochs are both given: give one of them");
    }
    await runTraining(config, { resume, dryRun, overwrite }, terminal);
  },
};

/** What follows a flag, before it is known which flags there are. */
function flagIn(args: readonly string[], name: string): string | undefined {
  const at = args.findLastIndex((arg) => arg === `--${name}` || arg.startsWith(`--${name}=`));
  return at < 0 ? undefined : args[at].includes("=") ? args[at].slice(args[at].indexOf("=") + 1) : args[at + 1];
}

/** The objective of the configuration that a run is begun or resumed with. */
function objectiveOfConfig(args: readonly string[]): string | undefined {
  const out = flagIn(args, "out") ?? trainOptions.out.default;
  const path = flagIn(args, "config") ?? (args.includes("--resume") ? configOfRun(out) : null);
  // What is wrong with the file is found where all of it is read.
  const line = path !== null && pathKind(path) === "file" ? /^objective:\s*(\S+)/m.exec(readText(path)) : null;
  return line?.[1].replace(/^(["'])(.*)\1$/, "$2");
}

function checkedKind(name: string): ObjectiveKind {
  checkValue(trainOptions.objective, name, "--objective");
  return kindNamed(name);
}

/** What an objective takes. */
function usageOf({ name, about, options }: ObjectiveKind): string {
  const { formats } = objectives.find((objective) => objective.name === name) ?? causalLM;
  const own = Object.keys(options).length === 0
    ? "It has no options of its own."
    : `Its own options:\n${describeOptions(options)}`;
  return `Usage: lowrank train --objective ${name} --model PATH --data PATH [OPTIONS]\n\n` +
    `${wrap(`${name}: ${about}.`, 80)}\n\nRows: ${formats.map(({ form }) => form).join("\n      ")}\n\n${own}\n\n` +
    `All others: lowrank train --help`;
}

/** The options that a run in a folder was begun with, or null. */
function configOfRun(out: string): string | null {
  const path = `${out}/${configFile}`;
  return pathKind(path) === "file" ? path : null;
}

async function runTraining(
  config: TrainConfig,
  { resume, dryRun, overwrite }: { resume: boolean; dryRun: boolean; overwrite: boolean },
  terminal: Terminal,
): Promise<void> {
  const { out } = config;
  if (config.data === undefined) throw new OptionError("no data is named: give --data with a file or a folder");
  const splits = findSplits(config.data);
  refuseOtherRun(out, { resume, overwrite });
  using device = await openDeviceFor(config, terminal);
  using asked = await askedObjective(config, device, terminal);
  const purpose = purposeOfRows(splits.train, asked.objective);
  const { objective } = purpose;
  checkBatching(objective, config);
  const begun = { ...config, adapter: await downloadAdapter(config.adapter, terminal) };
  // Everything that can be amiss is found on placeholders: reading the weights takes minutes where they are many.
  using opened = await outlineModelFor(config, { ...purpose, seed: config.seed }, device, terminal);
  if (splits.besides !== undefined) {
    terminal.warn(`note: ${splits.besides} is not used: give the folder as --data to evaluate on it`);
  }
  const { outline } = opened;
  if (config.full) refuseOwnFolder(out, outline.path);
  const planned = chooseTrainee(outline, begun);
  const tokenizer = outline.tokenizer();
  const context = outline.sizes.contextLength - (planned.tuned?.inFront ?? 0);
  const reading = { ...config, objective, context, classes: outline.labels, tableRows: outline.sizes.vocabSize };
  using data = openRows("train", splits.train, tokenizer, reading, terminal);
  using valid = splits.valid === undefined ? null : openRows("valid", splits.valid, tokenizer, reading, terminal);
  describeTrainee(outline, planned.tuned, terminal);
  const padId = tokenizer.padId ?? 0;
  const batching = { objective, batch: config.batch, accumulate: config.accumulate, seed: config.seed, padId };
  const related = relatedRows(data, objective);
  const lengths = withSkipHint(() => planLengths(related, { ...config, objective, context }));
  const steps = config.steps ?? countSteps(related, { ...batching, lengths, pack: config.pack }, config.epochs ?? 1);
  const optimiser = chooseOptimiser(planned.tuned, config);
  const clip = config.clip === 0 ? null : config.clip;
  const kept = valid && rowsOf(valid);
  const reference = config.precomputeReference ? referenceStore(`${out}/${referenceFile}`) : undefined;
  const evaluating = { objective, context, padId, reference };
  if (objective.reference) {
    terminal.say("reference the base without what is trained, over all rows once before the first step");
  }
  const promptOf = objective.prompt;
  const prompts = promptOf ? (kept ?? rowsOf(data, config.samples)).slice(0, config.samples).map(promptOf) : [];
  const memory = planMemory({
    ...{ trainee: planned.trainee, device, terminal },
    byBlocks: !config.checkpointBlocks,
    otherwise: ({ packed, byBlocks }) => {
      const held = packed ? config.dtype === "packed" ? null : opened.heldAs("packed") : outline;
      return held && chooseTrainee(held, { ...begun, checkpointBlocks: byBlocks }).trainee;
    },
    plan: {
      ...{
        objective,
        device,
        lengths,
        optimiser,
        clip,
        batch: heightOf(data, config),
        accumulate: config.accumulate,
        pack: config.pack,
      },
      keepBest: true,
      evaluation: kept ? evaluationShapes(kept, evaluating) : undefined,
      samples: sampleBytes(outline as LoadedModel, prompts),
    },
  });
  if (dryRun) {
    terminal.print(
      `dry run   ${countOf(steps, "step")} of ${countOf(config.batch * config.accumulate, "row")}; nothing was written`,
    );
    terminal.result({ steps, lengths, memory });
    return;
  }
  checkWritable(out);
  using _held = lockFolder(out);
  const base = recordBase(outline);
  const writeResult = async (folder: string, params: unknown) => {
    if (tuned === null) await saveModel(folder, model as any, { params });
    else {
      const { model: baseModel, dropout } = config;
      await saveAdapter(folder, tuned, { trainable: params as Trainable, baseModel, dropout, base });
    }
  };
  const store = checkpointStore({
    folder: `${out}/${checkpointFolder}`,
    keep: config.keep,
    identity: {
      base: { ...base, name: undefined },
      data: { rows: data.length, sha256: data.hash },
      valid: valid ? { rows: valid.length, sha256: valid.hash } : undefined,
      ...fixedOptions(config),
    },
    // A whole model lies in the checkpoint's state already.
    writeMore: planned.tuned ? writeResult : undefined,
  });
  const snapshot = findStart(store, out, resume, terminal);
  // A run may have ended between its last checkpoint and its adapter: then only that is left to do.
  if (snapshot && snapshot.step >= steps) {
    terminal.say(
      `done      all ${snapshot.step} steps were made; the result is saved again. --steps with a larger number continues`,
    );
  }
  using model = await opened.load();
  const { trainee, tuned } = chooseTrainee(model, begun);
  writeConfig(`${out}/${configFile}`, config);

  using metrics = tolerantMetrics(openMetrics(`${out}/${metricsFile}`, { append: snapshot !== undefined }), terminal);
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
    evaluate: kept ? evaluator(trainee, kept, evaluating) : undefined,
    sample: prompts.length > 0
      ? sampler<any>({
        model: tuned ? unmergedSteps(model as LoadedModel<any>, tuned) : model as LoadedModel<any>,
        ...{ tokenizer, prompts },
        params: (trained) => tuned ? { trainable: trained, frozen: tuned.frozen } : trained,
      })
      : undefined,
    onStep: (line, speed) => bar?.update({ ...line, bytes: device.memory.current }, speed),
    onEvaluation: (step, evaluation, best) => {
      const line = describeEvaluation(step, objective, evaluation, best);
      if (bar) bar.say(line);
      else terminal.say(line);
    },
  });
  using interrupt = onInterrupt(terminal.warn);
  const run = await trainTo(out, trainee, {
    ...config,
    ...batching,
    data,
    steps,
    context,
    reference,
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
    {
      store,
      steps,
      from: snapshot?.step ?? 0,
      out,
      watch,
      evaluated: valid !== null,
      classes: outline.labels,
      writeResult,
    },
    terminal,
  );
}

/** The objective that is asked for by its name, with the models that it learns from. */
async function askedObjective(
  config: TrainConfig,
  device: OpenedDevice,
  terminal: Terminal,
): Promise<{ readonly objective?: Objective } & Disposable> {
  const kind = kindNamed(config.objective);
  const settings = settingsOf(config, kind);
  const nothing = { [Symbol.dispose]: () => {} };
  const asIs = Object.entries(settings).every(([name, value]) => kind.options[name].default === value);
  if (config.objective === undefined && asIs) return nothing;
  const models: Disposable[] = [];
  for (const [name, { loads }] of Object.entries(kind.options)) {
    if (loads === undefined || settings[name] === undefined) continue;
    const model = await loadModel(settings[name] as string, { device });
    terminal.say(`${name.padEnd(9)} ${settings[name]}: ${describeModel(model)}`);
    settings[name] = model;
    models.push(model);
  }
  return { objective: kind.make(settings), [Symbol.dispose]: () => models.forEach((model) => model[Symbol.dispose]()) };
}

/** Trains; a bad row that a large file turns out to have ends the run, and what it came to until then is kept. */
async function trainTo(out: string, ...[trainee, options]: Parameters<typeof train>) {
  try {
    return await train(trainee, pickOptions(options, trainNames));
  } catch (error) {
    if (!(error instanceof BadRow)) throw error;
    throw new DataError(
      `${error.message} The run so far is kept: lowrank train --resume --skip-bad-rows --out ${out} continues without ` +
        "such rows.",
    );
  }
}

/** The rows and lengths of the batches of an evaluation. */
function evaluationShapes(rows: readonly Example[], options: EvaluateOptions) {
  const shapes = evaluationBatches(rows, options).map(({ shape }) => shape);
  return { batch: shapes[0][0], lengths: [...new Set(shapes.map(([, seq]) => seq))] };
}
