/** Any model whose architecture is known here, by the name in its configuration. */
import { FileError } from "../../core/errors.ts";
import type { ClassifierModel, EncoderModel } from "../../core/model.ts";
import { bert } from "../families/bert.ts";
import { bertClassifier, type BertClassifierParams, type ClassifierOptions, headName } from "../families/classifier.ts";
import { gpt2 } from "../families/gpt2.ts";
import { llama, mistral, qwen2, qwen3 } from "../families/llama.ts";
import type { ModelConfig } from "./config.ts";
import { type ModelPlace, openModel } from "./place.ts";
import type { LayeredModel } from "../families/language_model.ts";
import type { Loaded, LoadedModel, Loader, LoadOptions, Outlined } from "./loader.ts";

const languageModels: readonly Loader<unknown>[] = [gpt2, llama, mistral, qwen2, qwen3];

/** The architectures that can be loaded, as configurations name them. */
export const architectures: readonly string[] = [...languageModels, bert].map((l) => l.modelType);

const loaderOf = (config: ModelConfig) => languageModels.find((l) => l.modelType === config.modelType);

/**
 * Loads a language model of any known architecture: names in its tree of parameters are checked when they are used.
 * `gpt2.load` and `llama.load` know theirs when the program is compiled.
 *
 * @throws {FileError} when the files are missing, damaged, of an unknown architecture, or do not fit each other
 * @throws {DeviceError} when the device can't hold the weights
 */
export async function loadModel(place: ModelPlace, options: LoadOptions): Promise<LoadedModel> {
  using opened = await outlineModel(place, options);
  return await opened.load();
}

/** A language model of which no weight was read yet. Throws as {@link loadModel} does. */
export async function outlineModel(place: ModelPlace, options: LoadOptions): Promise<Outlined<LayeredModel<unknown>>> {
  const check = (config: ModelConfig) => languageLoader(config).check(config);
  const files = await openModel(place, architectures, options, check);
  if (loaderOf(files.config) === undefined) files[Symbol.dispose]();
  return languageLoader(files.config).outline(files, options);
}

/**
 * A classifier of which no weight was read yet: with the head of its file, whose labels it has; where the file has none, with
 * a new one for the given `labels`.
 */
export async function outlineClassifier(
  place: ModelPlace,
  { labels, ...options }: ClassifierOptions,
): Promise<Outlined<ClassifierModel<BertClassifierParams>>> {
  const check = (config: ModelConfig) => classifierLoader(config).check(config);
  const files = await openModel(place, architectures, options, check);
  if (files.config.modelType !== bertClassifier.modelType) files[Symbol.dispose]();
  const hasHead = files.source.names.includes(headName);
  return classifierLoader(files.config).outline(files, hasHead ? options : { ...options, labels });
}

function classifierLoader({ path, modelType }: ModelConfig): typeof bertClassifier {
  if (modelType === bertClassifier.modelType) return bertClassifier;
  throw new FileError(
    `${path} is of the architecture ${modelType}, which generates text, and rows with a label teach a classifier: choose a ` +
      `model of the architecture ${bertClassifier.modelType}, or give rows of "prompt" and "completion".`,
  );
}

function languageLoader(config: ModelConfig): Loader<unknown> {
  const loader = loaderOf(config);
  if (loader !== undefined) return loader;
  throw new FileError(
    `${config.path} is of the architecture ${config.modelType}, which reads whole texts and generates none: ` +
      `give rows of "text" and "label" (in a program bert.load or loadClassifier), or choose a model of ` +
      `${languageModels.map((l) => l.modelType).join(", ")}.`,
  );
}

/** A model of any kind: one that continues text, one that reads it, one that labels it. */
export type AnyModel = LoadedModel | Loaded<EncoderModel> | Loaded<ClassifierModel>;

/** Loads a model of any known architecture, as what its file says it is. Throws as {@link loadModel} does. */
export async function loadAnyModel(place: ModelPlace, options: LoadOptions): Promise<AnyModel> {
  const files = await openModel(place, architectures, options, (config) => anyLoader(config).check(config));
  return await anyLoader(files.config).fromFiles(files, options) as AnyModel;
}

/** The loader of what a model's file says that it is. */
export function anyLoader(config: ModelConfig): Loader<any, AnyModel> {
  const named = config.raw.architectures;
  const labels = Array.isArray(named) && named.includes("BertForSequenceClassification");
  return (loaderOf(config) ?? (labels ? bertClassifier : bert)) as unknown as Loader<any, AnyModel>;
}
