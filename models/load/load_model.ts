/** Any model whose architecture is known here, by the name in its configuration. */
import { FileError } from "../../core/errors.ts";
import type { ClassifierModel, EncoderModel } from "../../core/model.ts";
import { bert as bertFamily, type BertClassifierParams, type BertParams } from "../families/bert.ts";
import type { Family } from "../families/family.ts";
import { gpt2 as gpt2Family, type Gpt2Params } from "../families/gpt2.ts";
import {
  llama as llamaFamily,
  type LlamaParams,
  mistral as mistralFamily,
  qwen2 as qwen2Family,
  qwen3 as qwen3Family,
} from "../families/llama.ts";
import { families, familyOf } from "../families/mod.ts";
import type { ModelConfig } from "./config.ts";
import { type ModelPlace, openModel } from "./place.ts";
import type { LayeredModel } from "../families/language_model.ts";
import { type Loaded, type LoadedModel, type Loader, loaderOf, type LoadOptions, type Outlined } from "./loader.ts";

/** How GPT-2 is loaded: `await gpt2.load("path/to/gpt2", { device })`. */
export const gpt2: Loader<Gpt2Params> = loaderOf(gpt2Family);
/** How a Llama is loaded: `await llama.load("path/to/model", { device })`. */
export const llama: Loader<LlamaParams> = loaderOf(llamaFamily);
/** How a Mistral is loaded. */
export const mistral: Loader<LlamaParams> = loaderOf(mistralFamily);
/** How a Qwen2 or Qwen2.5 is loaded. */
export const qwen2: Loader<LlamaParams> = loaderOf(qwen2Family);
/** How a Qwen3 is loaded. */
export const qwen3: Loader<LlamaParams> = loaderOf(qwen3Family);
/** How a BERT encoder is loaded: `await bert.load("path/to/all-MiniLM-L6-v2", { device })`. */
export const bert: Loader<BertParams, EncoderModel<BertParams>> = loaderOf(bertFamily);

/** How a classifier is loaded. */
export interface ClassifierOptions extends LoadOptions {
  /** The names of the labels. By default those of the file; an encoder's file has none, so that they must be given. */
  readonly labels?: readonly string[];
  /** Where the head comes from: the file, if it has one (the default), or drawn even if the file has one. */
  readonly head?: "fresh";
  /** What a fresh head is drawn from. 0 by default. */
  readonly seed?: number;
}

/**
 * How a BERT classifier is loaded: `await bertClassifier.load("path/to/all-MiniLM-L6-v2", { device, labels: ["no", "yes"] })`.
 * Where the file has no head, or another is asked for, a new head is drawn and named in `fresh`.
 */
export const bertClassifier: Loader<
  BertClassifierParams,
  ClassifierModel<BertClassifierParams>,
  ClassifierOptions
> = loaderOf(bertFamily.classifier as Family<ClassifierModel<BertClassifierParams>, ClassifierOptions>);

/** The architectures that can be loaded, as configurations name them. */
export const architectures: readonly string[] = families.map(({ modelType }) => modelType);

const generates = (family: Family | undefined): boolean => family?.tiedHead !== undefined;

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
  if (!generates(familyOf(files.config.modelType))) files[Symbol.dispose]();
  return languageLoader(files.config).outline(files, options);
}

/**
 * A classifier of which no weight was read yet: with the head of its file, whose labels it has; where the file has none, with
 * a new one for the given `labels`.
 *
 * @param classes the labels that a head in the file must have, too
 */
export async function outlineClassifier(
  place: ModelPlace,
  { labels, classes, ...options }: ClassifierOptions & { readonly classes?: readonly string[] },
): Promise<Outlined<ClassifierModel>> {
  const check = (config: ModelConfig) => classifierLoader(config).check(config);
  const files = await openModel(place, classes ? withClassifier() : architectures, options, check);
  const family = familyOf(files.config.modelType)?.classifier;
  if (family === undefined) files[Symbol.dispose]();
  const hasHead = files.source.names.includes(`${family?.head}.weight`);
  return classifierLoader(files.config).outline(files, {
    ...options,
    labels: classes ?? (hasHead ? undefined : labels),
  });
}

const withClassifier = () => families.filter((family) => family.classifier).map(({ modelType }) => modelType);

/** Loads a text classifier, or makes one of an encoder: see {@link bertClassifier}. */
export async function loadClassifier(
  path: string,
  options: ClassifierOptions,
): Promise<Loaded<ClassifierModel>> {
  const files = await openModel(path, withClassifier(), options, (config) => classifierLoader(config).check(config));
  return await classifierLoader(files.config).fromFiles(files, options);
}

function classifierLoader({ path, modelType }: ModelConfig): Loader<unknown, ClassifierModel, ClassifierOptions> {
  const family = familyOf(modelType)?.classifier;
  if (family !== undefined) return loaderOf(family as Family<ClassifierModel, ClassifierOptions>);
  throw new FileError(
    `${path} is of the architecture ${modelType}, which generates text, and rows with a label teach a classifier: choose a ` +
      `model of the architecture ${withClassifier().join(", ")}, or give rows of "prompt" and "completion".`,
  );
}

function languageLoader({ path, modelType }: ModelConfig): Loader<unknown> {
  const family = familyOf(modelType);
  if (family !== undefined && generates(family)) return loaderOf(family as Family<LayeredModel<unknown>>);
  throw new FileError(
    `${path} is of the architecture ${modelType}, which reads whole texts and generates none: ` +
      `give rows of "text" and "label" (in a program bert.load or loadClassifier), or choose a model of ` +
      `${families.filter(generates).map((family) => family.modelType).join(", ")}.`,
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
export function anyLoader({ modelType, raw: { architectures: named } }: ModelConfig): Loader<any, AnyModel> {
  const family = familyOf(modelType)!, { classifier } = family;
  const labels = classifier !== undefined && Array.isArray(named) && named.includes(classifier.className);
  return loaderOf((labels ? classifier : family) as Family<AnyModel>);
}
