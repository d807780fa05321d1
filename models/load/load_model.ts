/** Any model whose architecture is known here, by the name in its configuration. */
import { FileError } from "../../core/errors.ts";
import type { ClassifierModel, EncoderModel, MaskedModel, ProblemType, TaggerModel, Task } from "../../core/model.ts";
import {
  bert as bertFamily,
  type BertClassifierParams,
  type BertParams,
  electra as electraFamily,
  type ElectraParams,
  roberta as robertaFamily,
  xlmRoberta as xlmRobertaFamily,
} from "../families/bert.ts";
import { distilbert as distilbertFamily, type DistilBertParams } from "../families/distilbert.ts";
import type { Family } from "../families/family.ts";
import type { BlockParams } from "../families/block.ts";
import { gemma2 as gemma2Family, gemma3 as gemma3Family, type GemmaLayer } from "../families/gemma.ts";
import { gpt2 as gpt2Family, type Gpt2Params } from "../families/gpt2.ts";
import { gptNeox as gptNeoxFamily, type GptNeoxParams } from "../families/gpt_neox.ts";
import { granite as graniteFamily } from "../families/granite.ts";
import {
  llama as llamaFamily,
  type LlamaParams,
  mistral as mistralFamily,
  qwen2 as qwen2Family,
  qwen3 as qwen3Family,
} from "../families/llama.ts";
import { lfm2 as lfm2Family, type Lfm2Params } from "../families/lfm2.ts";
import { olmo2 as olmo2Family, type Olmo2Layer } from "../families/olmo2.ts";
import { phi3 as phi3Family, type Phi3Layer } from "../families/phi3.ts";
import { smollm3 as smollm3Family } from "../families/smollm3.ts";
import { families, familyOf, variantOf } from "../families/mod.ts";
import { modernbert as modernbertFamily, type ModernBertParams } from "../families/modernbert.ts";
import type { ModelConfig } from "./config.ts";
import { type ModelPlace, openModel } from "./place.ts";
import { scored, type ScoreOptions } from "../families/scored.ts";
import type { DecoderFamily, LayeredModel } from "../families/language_model.ts";
import {
  type Loaded,
  type LoadedModel,
  type Loader,
  loaderOf,
  loadNames,
  type LoadOptions,
  type Outlined,
} from "./loader.ts";
import { checkNames, checkOptions, type OptionNames } from "../../core/options.ts";

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
/** How an OLMo 2 is loaded. */
export const olmo2: Loader<BlockParams<Olmo2Layer>> = loaderOf(olmo2Family);
/** How a Granite 3 is loaded. */
export const granite: Loader<LlamaParams> = loaderOf(graniteFamily);
/** How a SmolLM3 is loaded. */
export const smollm3: Loader<LlamaParams> = loaderOf(smollm3Family);
/** How a Gemma 2 is loaded. */
export const gemma2: Loader<BlockParams<GemmaLayer>> = loaderOf(gemma2Family);
/** How a Gemma 3 of text is loaded. */
export const gemma3: Loader<BlockParams<GemmaLayer>> = loaderOf(gemma3Family);
/** How a Phi-3 or Phi-4 is loaded. */
export const phi3: Loader<BlockParams<Phi3Layer>> = loaderOf(phi3Family);
/** How a GPT-NeoX or Pythia is loaded. */
export const gptNeox: Loader<GptNeoxParams> = loaderOf(gptNeoxFamily);
/** How an LFM2 is loaded. */
export const lfm2: Loader<Lfm2Params> = loaderOf(lfm2Family);
/** How a BERT encoder is loaded: `await bert.load("path/to/all-MiniLM-L6-v2", { device })`. */
export const bert: Loader<BertParams, EncoderModel<BertParams>> = loaderOf(bertFamily);
/** How a RoBERTa is loaded. */
export const roberta: Loader<BertParams, EncoderModel<BertParams>> = loaderOf(robertaFamily);
/** How an XLM-RoBERTa is loaded. */
export const xlmRoberta: Loader<BertParams, EncoderModel<BertParams>> = loaderOf(xlmRobertaFamily);
/** How an ELECTRA is loaded. */
export const electra: Loader<ElectraParams, EncoderModel<ElectraParams>> = loaderOf(electraFamily);
/** How a DistilBERT is loaded. */
export const distilbert: Loader<DistilBertParams, EncoderModel<DistilBertParams>> = loaderOf(distilbertFamily);
/** How a ModernBERT is loaded. */
export const modernbert: Loader<ModernBertParams, EncoderModel<ModernBertParams>> = loaderOf(modernbertFamily);

/** How a model with a head that tells labels is loaded. */
export interface TaggerOptions extends LoadOptions {
  /** The names of the labels. By default those of the file; an encoder's file has none, so that they must be given. */
  readonly labels?: readonly string[];
  /** Where the head comes from: the file, if it has one (the default), or drawn even if the file has one. */
  readonly head?: "fresh";
  /** What a fresh head is drawn from. 0 by default. */
  readonly seed?: number;
}

/** How a classifier is loaded. */
export interface ClassifierOptions extends TaggerOptions {
  /**
   * What its outputs say of a text. By default what the file says, else which one of the labels it has; of one output in a file,
   * a number.
   */
  readonly problem?: ProblemType;
}

const taggerNames: OptionNames<TaggerOptions> = { ...loadNames, labels: true, head: true, seed: true };
const classifierNames: OptionNames<ClassifierOptions> = { ...taggerNames, problem: true };

/**
 * How a BERT classifier is loaded: `await bertClassifier.load("path/to/all-MiniLM-L6-v2", { device, labels: ["no", "yes"] })`.
 * Where the file has no head, or another is asked for, a new head is drawn and named in `fresh`.
 */
export const bertClassifier: Loader<
  BertClassifierParams,
  ClassifierModel<BertClassifierParams>,
  ClassifierOptions
> = loaderOf(
  bertFamily.tasks!.SEQ_CLS as Family<ClassifierModel<BertClassifierParams>, ClassifierOptions>,
  classifierNames,
);

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
  checkOptions("loadModel", options, loadNames);
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

/** The tasks that encoders are loaded for, each with its own head, or without one. */
export type EncoderTask = Exclude<Task, "CAUSAL_LM">;

/** What is loaded for each of them. */
interface EncoderTasks {
  readonly SEQ_CLS: ClassifierModel;
  readonly TOKEN_CLS: TaggerModel;
  readonly MASKED_LM: MaskedModel;
  readonly FEATURE_EXTRACTION: EncoderModel;
}

/** How models of a task are loaded; `classes` are labels that a head in the file must have, too. */
type EncoderOptions = ClassifierOptions & { readonly classes?: readonly string[] };

/**
 * A model for a task of which no weight was read yet: with the head of its file, whose labels it has; where the file has none,
 * with a new one for the given `labels`.
 */
export async function outlineEncoder<T extends EncoderTask>(
  task: T,
  place: ModelPlace,
  { labels, classes, ...options }: EncoderOptions,
): Promise<Outlined<EncoderTasks[T]>> {
  const check = (config: ModelConfig) => encoderLoader(task, config).check(config);
  const files = await openModel(place, classes ? encoders() : architectures, options, check);
  const family = encoderFor(task, files.config.modelType);
  if (family === undefined) files[Symbol.dispose]();
  const hasHead = files.source.names.includes(`${family?.head}.weight`);
  return encoderLoader(task, files.config).outline(files, {
    ...options,
    labels: classes ?? (hasHead ? undefined : labels),
  });
}

const encoderFor = (task: EncoderTask, modelType: string): Family | undefined => {
  const family = familyOf(modelType);
  return task === "FEATURE_EXTRACTION" && family?.tasks !== undefined ? family : family?.tasks?.[task];
};

/** What loads a model for a task, and the names of its options. */
const loads: Readonly<Record<EncoderTask, readonly [string, OptionNames<LoadOptions>]>> = {
  SEQ_CLS: ["loadClassifier", classifierNames],
  TOKEN_CLS: ["loadTagger", taggerNames],
  MASKED_LM: ["loadMasked", loadNames],
  FEATURE_EXTRACTION: ["loadEncoder", loadNames],
};

/** Architectures that read texts whole. */
const encoders = () => families.filter(({ tasks }) => tasks).map(({ modelType }) => modelType);

async function loadEncoderFor<T extends EncoderTask>(
  task: T,
  place: ModelPlace,
  options: EncoderOptions,
): Promise<Loaded<EncoderTasks[T]>> {
  const [who, names] = loads[task];
  checkNames(who, options, names);
  const files = await openModel(place, encoders(), options, (config) => encoderLoader(task, config).check(config));
  return await encoderLoader(task, files.config).fromFiles(files, options);
}

/** Loads a text classifier of any architecture, or makes one of an encoder: see {@link bertClassifier}. */
export const loadClassifier = (place: ModelPlace, options: ClassifierOptions): Promise<Loaded<ClassifierModel>> =>
  loadEncoderFor("SEQ_CLS", place, options);

/** Loads a model that labels tokens (names, places, parts of speech), or makes one of an encoder, as {@link loadClassifier} does. */
export const loadTagger = (place: ModelPlace, options: TaggerOptions): Promise<Loaded<TaggerModel>> =>
  loadEncoderFor("TOKEN_CLS", place, options);

/** Loads an encoder with the head that it was pretrained with, which tells hidden words. */
export const loadMasked = (place: ModelPlace, options: LoadOptions): Promise<Loaded<MaskedModel>> =>
  loadEncoderFor("MASKED_LM", place, options);

/** Loads an encoder of any architecture: states of tokens, and embeddings of texts. */
export const loadEncoder = (place: ModelPlace, options: LoadOptions): Promise<Loaded<EncoderModel>> =>
  loadEncoderFor("FEATURE_EXTRACTION", place, options);

/**
 * Loads a decoder that scores texts: one number for each, from its last token. Where the file has no head for it, one is drawn
 * and named in `fresh`, to be trained whole beside an adapter (`modulesToSave`): how reward models begin.
 */
export async function loadRewardModel(
  place: ModelPlace,
  options: LoadOptions & ScoreOptions,
): Promise<Loaded<ClassifierModel>> {
  checkOptions("loadRewardModel", options, { ...loadNames, seed: true });
  const decoderOf = (config: ModelConfig) => languageLoader(config).family as DecoderFamily;
  const files = await openModel(place, architectures, options, (config) => decoderOf(config).check(config));
  return await loaderOf(scored(decoderOf(files.config)) as Family<ClassifierModel, LoadOptions & ScoreOptions>)
    .fromFiles(files, options);
}

/** What rows teach that a task is learned from, for a sentence. */
const teaches: Readonly<Record<EncoderTask, string>> = {
  SEQ_CLS: "rows with a label teach a classifier",
  TOKEN_CLS: "rows with tags teach a tagger",
  MASKED_LM: "hidden words are told by a model that reads texts whole",
  FEATURE_EXTRACTION: "embeddings are made by a model that reads texts whole",
};

function encoderLoader<T extends EncoderTask>(
  task: T,
  { path, modelType }: ModelConfig,
): Loader<unknown, EncoderTasks[T], EncoderOptions> {
  const family = encoderFor(task, modelType);
  if (family !== undefined) return loaderOf(family as Family<EncoderTasks[T], EncoderOptions>);
  throw new FileError(
    `${path} is of the architecture ${modelType}, which generates text, and ${teaches[task]}: choose a ` +
      `model of the architecture ${encoders().join(", ")}, or give rows of "prompt" and "completion".`,
  );
}

function languageLoader({ path, modelType }: ModelConfig): Loader<unknown> {
  const family = familyOf(modelType);
  if (family !== undefined && generates(family)) return loaderOf(family as Family<LayeredModel<unknown>>);
  throw new FileError(
    `${path} is of the architecture ${modelType}, which reads whole texts and generates none: ` +
      `give rows of "text" and "label" (in a program loadEncoder or loadClassifier), or choose a model of ` +
      `${families.filter(generates).map((family) => family.modelType).join(", ")}.`,
  );
}

/** A model of any kind: one that continues text, one that reads it, one that labels it or its tokens, one that tells hidden words. */
export type AnyModel =
  | LoadedModel
  | Loaded<EncoderModel>
  | Loaded<ClassifierModel>
  | Loaded<TaggerModel>
  | Loaded<MaskedModel>;

/** Loads a model of any known architecture, as what its file says it is. Throws as {@link loadModel} does. */
export async function loadAnyModel(place: ModelPlace, options: LoadOptions): Promise<AnyModel> {
  checkOptions("loadAnyModel", options, loadNames);
  const files = await openModel(place, architectures, options, (config) => anyLoader(config).check(config));
  return await anyLoader(files.config).fromFiles(files, options) as AnyModel;
}

/** The loader of what a model's file says that it is. */
export const anyLoader = ({ modelType, raw }: ModelConfig): Loader<any, AnyModel> =>
  loaderOf(variantOf(modelType, raw.architectures) as Family<AnyModel>);
