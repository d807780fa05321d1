/** The options of a training run: one table from which flags, configuration files, help and docs follow. */
import { deviceChoices } from "../../kernels/device/open.ts";
import { dump, load, YAMLException } from "js-yaml";
import { OptionError } from "../../core/errors.ts";
import { writeFileAtomic } from "../../models/load/files/atomic_file.ts";
import { methodNames } from "../../lora/methods/mod.ts";
import { objectiveKinds } from "../objectives/mod.ts";
import { causalKind } from "../objectives/causal_lm.ts";
import type { ObjectiveKind } from "../objectives/kind.ts";
import { readText } from "../../models/load/files/byte_source.ts";
import {
  checkValue,
  type Given,
  type OptionTable,
  type Resolved,
  resolveOptions,
  suggestion,
  tableName,
  writtenName,
} from "./option_table.ts";
import { scheduleNames } from "./schedule.ts";

/** Every option of a run. Those that are `free` may change when a run is resumed: they do not change what it computes. */
export const trainOptions = {
  // What they hold is compared when a run is resumed, not where they lie.
  model: {
    kind: "text",
    value: "PATH",
    help: "The base model: a folder in Hugging Face's layout or a .gguf file",
    free: true,
  },
  data: {
    kind: "text",
    value: "PATH",
    help: "A .jsonl or .txt file, or a folder with train, valid and test files of these kinds",
    free: true,
  },
  out: { kind: "text", value: "FOLDER", default: "out/adapter", help: "The folder to save the adapter in", free: true },
  full: {
    kind: "switch",
    default: false,
    help: "Train the whole model instead of an adapter, and save a whole model",
  },
  objective: {
    kind: "text",
    choices: objectiveKinds.map(({ name }) => name),
    help: "What is learned; by default what the rows are of. With --help: what it takes",
  },
  precomputeReference: {
    kind: "switch",
    default: false,
    help: "Keep what an objective computes once with the base (its log-probabilities) in the output folder",
    free: true,
  },
  method: { kind: "text", choices: methodNames, default: "lora", help: "How the targets are adapted" },
  r: { kind: "whole", least: 1, default: 8, help: "The adapter's rank" },
  alpha: { kind: "number", above: 0, default: 16, help: "The adapter is scaled by alpha / r" },
  dropout: {
    kind: "number",
    least: 0,
    most: 0.99,
    default: 0,
    help: "The fraction of the adapter's inputs that is dropped",
  },
  targets: {
    kind: "list",
    default: ["all-linear"],
    help: "Modules to adapt: names, paths in which * stands for any one part, or all-linear",
  },
  adapter: { kind: "text", value: "FOLDER", help: "Start from this adapter, with its rank, targets and values" },
  anyBase: { kind: "switch", default: false, help: "Allow a base other than the one that the adapter was trained on" },
  init: {
    kind: "text",
    choices: ["bat", "mini", "lycoris"],
    help:
      "With --method miss: bat or mini, which block it has; with --method lokr: lycoris, which factor starts at zero",
  },
  oftBlockSize: {
    kind: "whole",
    least: 1,
    help: "With --method oft: the size of its blocks, in place of r blocks",
    value: "N",
  },
  blockShare: { kind: "switch", default: false, help: "With --method oft: one block for all of a module's" },
  cayleyNeumann: {
    kind: "switch",
    default: true,
    help: "With --method oft: a short series of the turn; without it the turn itself, orthogonal to rounding",
  },
  decomposeBoth: { kind: "switch", default: false, help: "With --method lokr: its first factor is of low rank, too" },
  decomposeFactor: {
    kind: "whole",
    least: 1,
    help: "With --method lokr: the size of its first factor; by default both are as near to each other as they can be",
    value: "N",
  },
  miniR: { kind: "whole", least: 1, help: "With --method miss --init mini: the block's columns", value: "N" },
  feedforward: {
    kind: "list",
    help: "With --method ia3: those of the targets whose inputs are rescaled, not their outputs",
  },
  numVirtualTokens: {
    kind: "whole",
    least: 1,
    default: 20,
    help: "With --method prefix, prompt or ptuning: how many trained tokens stand in front of a text",
  },
  prefixProjection: {
    kind: "switch",
    default: false,
    help: "With --method prefix: train a small network that makes the keys and values",
  },
  encoderHiddenSize: {
    kind: "whole",
    least: 1,
    help: "The inner width of that network, or of p-tuning's; by default that of a token",
    value: "N",
  },
  initWeights: { kind: "text", choices: ["zero"], help: "With --method prefix: how it starts, if not at random" },
  promptTuningInit: {
    kind: "text",
    choices: ["RANDOM", "SAMPLE_VOCAB", "TEXT"],
    help: "With --method prompt: how it starts; by default at random",
  },
  promptTuningInitText: { kind: "text", value: "TEXT", help: "The text that --prompt-tuning-init TEXT starts from" },
  saveProjection: {
    kind: "switch",
    default: true,
    help: "With --method vera: keep its random matrices in the file; without them they are drawn again from the seed",
  },
  rslora: {
    kind: "switch",
    default: false,
    help: "Scale by alpha / √r: for high ranks (32 and more), whose change alpha / r makes small",
  },
  dora: {
    kind: "switch",
    default: false,
    help: "Train the magnitude of each output's weights separately from their direction (DoRA)",
  },
  invocation: { kind: "text", help: "Act only from the last time that this text occurs on (aLoRA)" },
  modulesToSave: { kind: "list", help: "Modules that are trained in full next to the adapter" },
  loraplus: { kind: "number", least: 1, help: "The ratio of B's learning rate to A's (LoRA+; its paper starts at 16)" },
  // A run may be resumed with more of either.
  steps: { kind: "whole", least: 1, help: "Number of updates; or give epochs instead", value: "N", free: true },
  epochs: {
    kind: "number",
    above: 0,
    most: 1e6,
    help: "Passes over the data; one if neither steps nor epochs is given",
    free: true,
  },
  batch: { kind: "whole", least: 1, default: 4, help: "Sequences that go through the model at once" },
  accumulate: { kind: "whole", least: 1, default: 1, help: "Batches whose gradients are accumulated for one update" },
  lr: { kind: "number", above: 0, default: 2e-4, help: "The highest learning rate" },
  schedule: {
    kind: "text",
    choices: scheduleNames,
    default: "linear",
    help: "How the learning rate changes after the warm-up",
  },
  warmup: { kind: "whole", least: 0, default: 0, help: "Steps over which the learning rate rises from 0" },
  weightDecay: { kind: "number", least: 0, default: 0, help: "AdamW's weight decay" },
  clip: { kind: "number", least: 0, default: 1, help: "The maximum gradient norm; 0 for no limit" },
  seq: {
    kind: "whole",
    least: 2,
    help: "The maximum number of tokens in a sequence; by default that of the longest row",
    value: "N",
  },
  buckets: {
    kind: "whole",
    least: 1,
    default: 3,
    help: "Number of lengths that batches are padded to; each is a compiled program",
  },
  pack: { kind: "switch", default: false, help: "Pack several rows into one sequence; none sees another" },
  maskPrompt: { kind: "switch", default: true, help: "Learn only completions and last messages, not prompts" },
  learn: {
    kind: "text",
    choices: ["last", "all"],
    default: "last",
    help: "Which of the assistant's messages in a chat are learned: the last one, or all of them",
  },
  overflow: {
    kind: "text",
    choices: ["error", "cut", "chunk"],
    default: "error",
    help: "What to do with a row that has too many tokens: refuse it, cut its end off, or split it into several rows",
  },
  skipBadRows: {
    kind: "switch",
    default: false,
    help: "Skip rows that can't be used instead of refusing them",
    free: true,
  },
  checkpointBlocks: {
    kind: "switch",
    default: false,
    help: "Gradient checkpointing: keep only the input of each block for the backward pass; less memory, a longer step",
    free: true,
  },
  seed: {
    kind: "whole",
    least: 0,
    most: 0xffffffff,
    default: 0,
    help: "Decides initial values, the order of the rows, and dropout",
  },
  saveEvery: { kind: "whole", least: 1, default: 100, help: "Steps between checkpoints", free: true },
  keep: { kind: "whole", least: 1, default: 3, help: "Number of checkpoints to keep besides the best one", free: true },
  evaluateEvery: { kind: "whole", least: 1, default: 100, help: "Steps between evaluations on the validation rows" },
  patience: { kind: "whole", least: 1, help: "End the run after this many evaluations without a new best", value: "N" },
  samples: {
    kind: "whole",
    least: 0,
    default: 3,
    help: "Number of rows whose prompts are continued at every evaluation, for the report",
    free: true,
  },
  device: {
    kind: "text",
    choices: deviceChoices,
    default: "auto",
    help: "The device to compute on",
    free: true,
  },
  dtype: {
    kind: "text",
    choices: ["f32", "f16", "bf16", "packed"],
    help:
      "How the base is held in memory; by default as it is stored, but quantised weights as f32. packed keeps them quantised",
  },
  threads: { kind: "whole", least: 1, help: "Number of CPU threads", value: "N", free: true },
  blas: {
    kind: "switch",
    default: true,
    help: "Use the system's BLAS for large products, if --allow-ffi is given",
    free: true,
  },
  tune: {
    kind: "switch",
    default: true,
    help: "Time a few kernel tilings on a GPU, once; --no-tune for runs that repeat to the bit",
    free: true,
  },
} as const satisfies OptionTable;

/** The objective of that name; where none is named, causal language modelling, whose options most rows have. */
export function kindNamed(name: unknown): ObjectiveKind {
  return objectiveKinds.find((kind) => kind.name === name) ?? causalKind;
}

/** The options of a run that learns by an objective. */
const optionsWith = (kind: ObjectiveKind): typeof trainOptions => ({ ...trainOptions, ...kind.options });

/** Of a run's options, those that are its objective's settings, where they are given. */
export function settingsOf(config: object, { options }: ObjectiveKind): Record<string, unknown> {
  return Object.fromEntries(Object.entries(config).filter(([name, value]) => name in options && value !== undefined));
}

/** How options are described, by name. */
export type GivenConfig = Given<typeof trainOptions>;
/** All of a run's options, with defaults. */
export type TrainConfig = Resolved<typeof trainOptions>;

/**
 * Reads a configuration file: YAML, one `key: value` a line, keys as the flags without their dashes.
 *
 * @throws {FileError} where the file can't be read
 * @throws {OptionError} naming the line of an unknown key or a value that an option does not take
 */
export function readConfig(path: string, objective?: string): GivenConfig {
  const text = readText(path);
  const values = parseYaml(text, path);
  const table: OptionTable = optionsWith(kindNamed(objective ?? values.objective));
  const config: Record<string, unknown> = {};
  for (const [written, value] of Object.entries(values)) {
    const place = `${path} line ${lineOf(text, written)}`;
    const name = tableName(table, written);
    if (name === null) {
      throw new OptionError(`${place}: there is no option ${written}${suggestion(table, written)}`);
    }
    if (value !== null) config[name] = checkValue(table[name], value, `${place}: ${written}`);
  }
  return config as GivenConfig;
}

function parseYaml(text: string, path: string): Record<string, unknown> {
  // Nothing but comments is no document of YAML.
  if (text.split("\n").every((line) => /^\s*(#|$)/.test(line))) return {};
  let values: unknown;
  try {
    values = load(text);
  } catch (error) {
    if (!(error instanceof YAMLException)) throw error;
    throw new OptionError(`${path} line ${(error.mark?.line ?? 0) + 1} is not YAML (${error.reason}).`);
  }
  if (typeof values === "object" && values !== null && !Array.isArray(values)) return values as Record<string, unknown>;
  throw new OptionError(`${path} is not a list of options: give one "key: value" a line.`);
}

/** The line of a key, from 1. Options are never nested, so it stands at a line's beginning. */
function lineOf(text: string, key: string): number {
  return text.split("\n").findIndex((line) => /^["']?([^"':]+?)["']?\s*:/.exec(line)?.[1] === key) + 1;
}

/** The options of a run: defaults, over them the file's, over them the flags. Steps take the place of epochs, and back. */
export function resolveConfig(file: GivenConfig, flags: GivenConfig): TrainConfig {
  const { steps, epochs, ...rest } = file;
  const length = flags.steps === undefined && flags.epochs === undefined ? { steps, epochs } : {};
  const given = { ...rest, ...length, ...flags };
  return resolveOptions(optionsWith(kindNamed(given.objective)), given);
}

/** Writes the options of a run as a file that {@link readConfig} reads. */
export function writeConfig(path: string, config: TrainConfig): void {
  const entries = Object.entries(config).filter(([, value]) => value !== undefined);
  const text = dump(Object.fromEntries(entries.map(([name, value]) => [writtenName(name), value])));
  writeFileAtomic(path, `# The options of this run: lowrank train --config ${path}\n${text}`);
}

/** The options that decide what a run computes, as users write them. */
export function fixedOptions(config: TrainConfig): Record<string, unknown> {
  const table: OptionTable = optionsWith(kindNamed(config.objective));
  return Object.fromEntries(
    Object.entries(config).filter(([name]) => !table[name].free).map(([name, value]) => [writtenName(name), value]),
  );
}

const takes = {
  text: "text",
  texts: "texts",
  list: "names",
  whole: "whole number",
  number: "number",
  switch: "true, false",
};

/** The table in Markdown: key, what it takes, default, meaning. */
export function optionsTable(table: OptionTable = trainOptions): string {
  const rows = Object.entries(table).map(([name, { kind, choices, default: value, help, free }]) => [
    `\`${writtenName(name)}\``,
    choices?.join(", ") ?? takes[kind],
    value === undefined || value === null ? "" : `\`${value}\``,
    free ? `${help} (free)` : help,
  ]);
  const all = [["key", "takes", "default", "meaning"], ...rows];
  const widths = all[0].map((_, i) => Math.max(...all.map((row) => row[i].length)));
  const lines = all.map((row) => `| ${row.map((cell, i) => cell.padEnd(widths[i])).join(" | ")} |`);
  return [lines[0], `| ${widths.map((width) => "-".repeat(width)).join(" | ")} |`, ...lines.slice(1)].join("\n");
}
