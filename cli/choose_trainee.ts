/** What `lowrank train` trains: a new adapter, an existing one, or the whole model. */
import { OptionError } from "../core/errors.ts";
import { formatBytes, formatCount } from "../core/host/format.ts";
import type { Value } from "../core/ir/graph.ts";
import type { Model, TokenInputs } from "../core/model.ts";
import { optionsOf } from "../lora/check_options.ts";
import { methods, tune, type Tuned } from "../lora/mod.ts";
import { chosenBy, familyOf } from "../lora/methods/mod.ts";
import { checkpointBlocks } from "../models/families/checkpoint_blocks.ts";
import { type LoadedAdapter } from "../formats/adapter.ts";
import { loadAdapter } from "../formats/tuned_model.ts";
import type { GivenConfig, TrainConfig } from "../train/options/config.ts";
import { adamw, loraPlus, type Optimiser } from "../train/optimiser.ts";
import { writtenName } from "../train/options/option_table.ts";
import { describeMatches, describeTrainable, sizeOfTree } from "../report/describe.ts";
import { type Trainee, wholeModel } from "../train/trainee.ts";
import { type Terminal, UsageError } from "./command.ts";
import type { PredictiveModel } from "./open_model.ts";

/** Options that are about an adapter that is there. */
const ofOld = ["adapter", "anyBase"] as const;

/** A model with an adapter, and what is to be known of one that was loaded; null where all of the model is trained. */
export type TunedOrNot =
  | Tuned<unknown, TokenInputs, Value> & Partial<Pick<LoadedAdapter<any, any, any>, "notes">>
  | null;

/** Options that make a new adapter what it is. */
const shaping = [
  "method",
  "r",
  "alpha",
  "dropout",
  "targets",
  "init",
  "miniR",
  "oftBlockSize",
  "blockShare",
  "cayleyNeumann",
  "decomposeBoth",
  "decomposeFactor",
  "feedforward",
  "saveProjection",
  "numVirtualTokens",
  "prefixProjection",
  "encoderHiddenSize",
  "initWeights",
  "promptTuningInit",
  "promptTuningInitText",
  "rslora",
  "dora",
  "invocation",
  "modulesToSave",
] as const;

/** The option of a method that a flag is, where it has another name. */
const optionOf = (flag: string) => flag === "invocation" ? "aloraInvocationTokens" : flag;

/**
 * Refuses flags that would not be looked at: those of an adapter where all of the model is trained, those of a new adapter
 * where an old one is begun with, and the other way round.
 *
 * @throws {UsageError} naming both
 */
export function checkFlags(flags: GivenConfig, { full, adapter, method }: TrainConfig): void {
  const [unused, reason] = full
    ? [
      [...shaping, ...ofOld, "loraplus"] as const,
      "is for adapters, and --full trains all of the model: leave one of them out",
    ]
    : adapter === undefined
    ? [ofOld, "is for an --adapter to start from, and none is named: leave it out"]
    : [shaping, "is set by the --adapter to start from: leave one of them out"];
  const given = unused.find((name) => flags[name] !== undefined);
  if (given !== undefined) throw new UsageError(`--${writtenName(given)} ${reason}`);
  const known = optionsOf(methodNamed(method));
  const other = shaping.find((name) => name !== "method" && !(optionOf(name) in known) && flags[name] !== undefined);
  if (other !== undefined) {
    throw new UsageError(`--${writtenName(other)} is not an option of the method ${method}: leave it out`);
  }
}

const methodNamed = (name: string) => Object.values(methods).find((method) => method.name === name)!;

/** An adapter, or with `full` all of the model. */
export function chooseTrainee(
  whole: PredictiveModel,
  config: TrainConfig,
): { trainee: Trainee<unknown, unknown>; tuned: TunedOrNot } {
  const model = config.checkpointBlocks ? checkpointBlocks(whole) : whole;
  const any = model as Model<unknown, TokenInputs, Value>;
  if (config.full) return { trainee: wholeModel(any), tuned: null };
  const tuned = config.adapter === undefined
    ? newAdapter(any, model, config)
    : loadAdapter<any, TokenInputs, Value>(config.adapter, any, { anyBase: config.anyBase });
  return { trainee: tuned, tuned };
}

function newAdapter(any: Model<any, TokenInputs, Value>, model: PredictiveModel, config: TrainConfig) {
  const method = methodNamed(config.method), known = optionsOf(method);
  const own = Object.entries(config).filter(([name, value]) => name in known && value !== undefined);
  const all = config.targets.length === 1 && config.targets[0] === "all-linear";
  // A new head knows nothing: it is trained whole.
  const heads = model.fresh ?? [];
  const saved = [...new Set([...config.modulesToSave ?? [], ...heads])];
  const { invocation } = config;
  const tokens = invocation === undefined
    ? undefined
    : model.tokenizer().encode(invocation, { addSpecialTokens: false });
  return tune<any, TokenInputs, Value, object>(any, chosenBy(familyOf(method), config), {
    ...Object.fromEntries(own),
    ...(tokens && { aloraInvocationTokens: tokens }),
    ...("targets" in known && { targets: all ? "all-linear" : [...config.targets] }),
    modulesToSave: saved.length > 0 ? saved : undefined,
  });
}

/** AdamW, for an adapter with LoRA+'s rates where these are asked for. */
export function chooseOptimiser(tuned: TunedOrNot, { weightDecay, loraplus, lr }: TrainConfig): Optimiser {
  if (loraplus === undefined) return adamw({ weightDecay });
  if (tuned === null) throw new OptionError("loraplus is for adapters, and all of the model is trained: leave it out.");
  if (!tuned.plan.adapted.some(({ trained }) => "B" in trained)) {
    throw new OptionError("loraplus is for pairs of A and B, and this adapter has none: leave it out.");
  }
  return adamw({ weightDecay, groups: loraPlus(tuned.matched, { ratio: loraplus, lr }) });
}

/** Says what is trained. */
export function describeTrainee(model: PredictiveModel, tuned: TunedOrNot, terminal: Terminal): void {
  if (tuned === null) {
    const { count, bytes } = sizeOfTree(model.params);
    terminal.say(`training  all ${formatCount(count)} parameters (${formatBytes(bytes)})`);
    return;
  }
  for (const note of tuned.notes ?? []) terminal.warn(`note: ${note}`);
  for (const line of describeMatches(tuned.matched)) terminal.say(`adapting  ${line}`);
  terminal.say(describeTrainable(tuned.trainable, model.params));
}
