/** The device and the model that a command works on. */
import { FileError, OptionError } from "../core/errors.ts";
import type { EncoderModel, HeadedModel } from "../core/model.ts";
import { openDevice, type OpenedDevice } from "../kernels/device/open.ts";
import type { LayeredModel } from "../models/families/language_model.ts";
import { outlineEncoder, outlineModel } from "../models/load/load_model.ts";
import type { Outlined } from "../models/load/loader.ts";
import type { AnyModel, Loaded, LoadedModel, WeightDType } from "../models/mod.ts";
import { writeFileAtomic } from "../models/load/files/atomic_file.ts";
import { pathKind, readJsonObject } from "../models/load/files/byte_source.ts";
import { describeModel } from "../report/describe.ts";
import { trainOptions } from "../train/options/config.ts";
import type { Objective } from "../train/objectives/objective.ts";
import type { Given, OptionTable } from "../train/options/option_table.ts";
import { downloadProgress } from "./download.ts";
import type { Terminal } from "./command.ts";

/** The options of every command that loads a model. */
export const modelOptions = {
  model: trainOptions.model,
  device: trainOptions.device,
  dtype: trainOptions.dtype,
  threads: trainOptions.threads,
  blas: trainOptions.blas,
  tune: trainOptions.tune,
} as const satisfies OptionTable;

/** A model that can be trained: one that continues text, or an encoder with a head or without. */
export type PredictiveModel = LoadedModel<any> | Loaded<EncoderModel<any> | HeadedModel<any>>;

/** The same before its weights are read. */
export type OutlinedModel = Outlined<LayeredModel<any> | EncoderModel<any> | HeadedModel<any>>;

/** Opens the device that is asked for, and says which it is. */
export async function openDeviceFor(
  { device, threads, blas, tune }: Given<typeof modelOptions>,
  terminal: Terminal,
): Promise<OpenedDevice> {
  const opened = await openDevice(device ?? "auto", {
    threads,
    blas,
    // What is not refused is left to the device: a software adapter is not tuned unless it is asked for.
    tune: tune === false ? false : undefined,
  });
  terminal.say(`device    ${opened.description}: ${opened.reason}`);
  return opened;
}

/** What a model is opened for. */
export interface Purpose {
  readonly objective: Objective;
  /** The labels of the rows, for a classifier: those of a new head where the model has none. */
  readonly labels?: readonly string[];
  /** The classes that an adapter was trained for, in their order. */
  readonly classes?: readonly string[];
  /** What a new head is drawn from. */
  readonly seed?: number;
}

/**
 * Opens the model that is named, as its objective needs it, and says what it is. Its weights are read when that is asked for, so
 * that a slip elsewhere is found before.
 */
export async function outlineModelFor(
  { model: path, dtype }: Given<typeof modelOptions>,
  { objective, ...purpose }: Purpose,
  device: OpenedDevice,
  terminal: Terminal,
): Promise<OutlinedModel> {
  if (path === undefined) {
    throw new OptionError("no model is named: give --model with a folder, a .gguf file or a name on the hub");
  }
  const { task, says: problem } = objective;
  const loading = { device, dtype: dtype as WeightDType | undefined, ...downloadProgress(path, terminal) };
  const options = { ...loading, ...purpose, problem };
  const opened: OutlinedModel = task === "CAUSAL_LM"
    ? await outlineModel(path, options)
    : await outlineEncoder(task, path, options);
  logModel(path, opened.outline as AnyModel, terminal);
  return opened;
}

/** Says what a model is, and what a person should know of it. */
export function logModel(path: string, model: AnyModel, terminal: Terminal): void {
  terminal.say(`model     ${path}: ${describeModel(model)}`);
  for (const note of model.notes) terminal.warn(`note: ${path}: ${note}`);
}

const labelsFile = "labels.json";

/** Writes the names of a classifier's classes beside its adapter, whose files have no place for them. */
export function writeLabels(folder: string, labels: readonly string[]): void {
  writeFileAtomic(`${folder}/${labelsFile}`, JSON.stringify({ labels }, null, 2) + "\n");
}

/** The names of the classes of an adapter's classifier, or null where it is for a language model. */
export function readLabels(folder: string): readonly string[] | null {
  const path = `${folder}/${labelsFile}`;
  if (pathKind(path) === null) return null;
  const { labels } = readJsonObject(path);
  if (Array.isArray(labels) && labels.every((label) => typeof label === "string")) return labels;
  throw new FileError(`${path} has no list of names under "labels": train the classifier again.`);
}
