/** The options of a training run: one table from which flags, configuration files, help and docs follow. */
import { dump, load, YAMLException } from "js-yaml";
import { OptionError } from "../../core/errors.ts";
import { writeFileAtomic } from "../../models/load/files/atomic_file.ts";
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
    help: "The base: a folder in Hugging Face's layout or a .gguf file",
    free: true,
  },
  data: {
    kind: "text",
    value: "PATH",
    help: "A .jsonl or .txt file, or a folder with train, valid and test as such files",
    free: true,
  },
  out: { kind: "text", value: "FOLDER", default: "out/adapter", help: "Where the adapter goes", free: true },
  full: {
    kind: "switch",
    default: false,
    help: "Train all of the model in place of an adapter, and save a whole model",
  },
  r: { kind: "whole", least: 1, default: 8, help: "The adapter's rank" },
  alpha: { kind: "number", above: 0, default: 16, help: "The adapter is scaled by alpha / r" },
  dropout: {
    kind: "number",
    least: 0,
    most: 0.99,
    default: 0,
    help: "The share of the adapter's inputs that is dropped",
  },
  targets: {
    kind: "list",
    default: ["all-linear"],
    help: "Modules to adapt: names, paths with * for any one part, or all-linear",
  },
  adapter: { kind: "text", value: "FOLDER", help: "Begin with this adapter, its rank, targets and values" },
  anyBase: { kind: "switch", default: false, help: "Take a base other than the one that the adapter was trained on" },
  rslora: { kind: "switch", default: false, help: "Scale by alpha / √r" },
  dora: {
    kind: "switch",
    default: false,
    help: "Train the length of each output's weights apart from their direction",
  },
  modulesToSave: { kind: "list", help: "Modules that are trained whole beside the adapter" },
  loraplus: { kind: "number", least: 1, help: "How much faster B learns than A (LoRA+; its paper starts at 16)" },
  // A run may be resumed with more of either.
  steps: { kind: "whole", least: 1, help: "Updates; in place of it give epochs", value: "N", free: true },
  epochs: {
    kind: "number",
    above: 0,
    help: "Rounds over the data; without steps and epochs one round",
    free: true,
  },
  batch: { kind: "whole", least: 1, default: 4, help: "Rows that go through the model at once" },
  accumulate: { kind: "whole", least: 1, default: 1, help: "Batches whose gradients are added up for one update" },
  lr: { kind: "number", above: 0, default: 2e-4, help: "The highest learning rate" },
  schedule: {
    kind: "text",
    choices: scheduleNames,
    default: "linear",
    help: "How the learning rate changes after the warm-up",
  },
  warmup: { kind: "whole", least: 0, default: 0, help: "Steps in which the learning rate rises from 0" },
  weightDecay: { kind: "number", least: 0, default: 0, help: "AdamW's weight decay" },
  clip: { kind: "number", least: 0, default: 1, help: "The most that the gradients' norm may be; 0 for no limit" },
  seq: { kind: "whole", least: 2, help: "The most tokens of a row; by default as many as the longest has", value: "N" },
  buckets: { kind: "whole", least: 1, default: 3, help: "Lengths that batches are padded to, each a compiled program" },
  pack: { kind: "switch", default: false, help: "Put several rows into one, none of which sees another" },
  maskPrompt: { kind: "switch", default: true, help: "Learn completions and last messages only, not prompts" },
  learn: {
    kind: "text",
    choices: ["last", "all"],
    default: "last",
    help: "Which of the assistant's messages of a chat are learned: the last one, or all of them",
  },
  overflow: {
    kind: "text",
    choices: ["error", "cut", "chunk"],
    default: "error",
    help: "What becomes of a row with too many tokens: refused, cut at its end, or made several rows",
  },
  skipBadRows: {
    kind: "switch",
    default: false,
    help: "Leave rows that can't be used out, in place of refusing them",
    free: true,
  },
  checkpointBlocks: {
    kind: "switch",
    default: false,
    help: "Keep only the input of each block for the backward pass: less memory, a longer step",
    free: true,
  },
  seed: {
    kind: "whole",
    least: 0,
    most: 0xffffffff,
    default: 0,
    help: "Decides first values, the order of the rows and dropout",
  },
  saveEvery: { kind: "whole", least: 1, default: 100, help: "Steps between two checkpoints", free: true },
  keep: { kind: "whole", least: 1, default: 3, help: "Checkpoints that stay beside the best one", free: true },
  evaluateEvery: { kind: "whole", least: 1, default: 100, help: "Steps between two evaluations on the valid rows" },
  patience: { kind: "whole", least: 1, help: "Evaluations without a new best that end the run", value: "N" },
  samples: {
    kind: "whole",
    least: 0,
    default: 3,
    help: "Rows whose prompts are continued at every evaluation, for the report",
    free: true,
  },
  device: { kind: "text", choices: ["auto", "cpu", "webgpu"], default: "auto", help: "Where to compute", free: true },
  dtype: {
    kind: "text",
    choices: ["f32", "f16", "bf16", "packed"],
    help:
      "How the base is held; by default as it is stored, quantised weights as f32. packed keeps those of a .gguf file",
  },
  threads: { kind: "whole", least: 1, help: "Threads of the CPU", value: "N", free: true },
  blas: {
    kind: "switch",
    default: true,
    help: "Large products by the system's BLAS, where --allow-ffi is given",
    free: true,
  },
  tune: {
    kind: "switch",
    default: true,
    help: "Time a few ways to cut kernels on a GPU, once; --no-tune for runs that repeat to the bit",
    free: true,
  },
} as const satisfies OptionTable;

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
export function readConfig(path: string, table: OptionTable = trainOptions): GivenConfig {
  const text = readText(path);
  const values = parseYaml(text, path);
  const config: Record<string, unknown> = {};
  for (const [written, value] of Object.entries(values)) {
    const place = `${path} line ${lineOf(text, written)}`;
    const name = tableName(table, written);
    if (name === null) throw new OptionError(`${place}: there is no option ${written}${suggestion(table, written)}`);
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
  return resolveOptions(trainOptions, { ...rest, ...length, ...flags });
}

/** Writes the options of a run as a file that {@link readConfig} reads. */
export function writeConfig(path: string, config: TrainConfig): void {
  const entries = Object.entries(config).filter(([, value]) => value !== undefined);
  const text = dump(Object.fromEntries(entries.map(([name, value]) => [writtenName(name), value])));
  writeFileAtomic(path, [
    new TextEncoder().encode(`# The options of this run: lowrank train --config ${path}\n${text}`),
  ]);
}

/** The options that decide what a run computes, as users write them. */
export function fixedOptions(config: TrainConfig): Record<string, unknown> {
  const table: OptionTable = trainOptions;
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
