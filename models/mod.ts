/**
 * Models and their files: the architectures of docs/models.md from folders of Hugging Face's, .gguf files or the hub;
 * generating text, embedding sentences.
 *
 * @module
 */
export type { BertClassifierParams, BertLayer, BertParams, ElectraParams } from "./families/bert.ts";
export type { DistilBertLayer, DistilBertParams } from "./families/distilbert.ts";
export type { ModernBertLayer, ModernBertNorm, ModernBertParams } from "./families/modernbert.ts";
export { type Embed, embedder } from "./embed.ts";
export {
  type Activations,
  type Finish,
  type Generate,
  type Generated,
  type GenerateOptions,
  generator,
  type Steps,
  type TokenEvent,
  type TokenStream,
  tokenStream,
} from "./generate/generate.ts";
export type { ScoreOptions } from "./families/scored.ts";
export type { BlockParams, Scale } from "./families/block.ts";
export type { GemmaLayer } from "./families/gemma.ts";
export type { GptNeoxLayer, GptNeoxParams } from "./families/gpt_neox.ts";
export type { Lfm2Layer, Lfm2Params } from "./families/lfm2.ts";
export type { Olmo2Layer } from "./families/olmo2.ts";
export type { Phi3Layer } from "./families/phi3.ts";
export type { Conv1D, Gpt2Layer, Gpt2Params } from "./families/gpt2.ts";
export type { LayeredModel } from "./families/language_model.ts";
export type { LayerNormParams, Linear } from "./families/layers.ts";
export type { LlamaLayer, LlamaParams } from "./families/llama.ts";
export type { ModelConfig } from "./load/config.ts";
export { download, type HubOptions } from "./load/hub/hub.ts";
export type { ModelBytes } from "./load/model_files.ts";
export { lettersBase, type ModelPlace } from "./load/place.ts";
export type { ChatOptions, EncodeOptions, Message, Tokenizer, WrittenChat } from "./load/tokenizer.ts";
export {
  type AnyModel,
  architectures,
  bert,
  bertClassifier,
  type ClassifierOptions,
  distilbert,
  electra,
  gemma2,
  gemma3,
  gpt2,
  gptNeox,
  granite,
  lfm2,
  llama,
  loadAnyModel,
  loadClassifier,
  loadEncoder,
  loadMasked,
  loadModel,
  loadRewardModel,
  loadTagger,
  mistral,
  modernbert,
  olmo2,
  phi3,
  qwen2,
  qwen3,
  roberta,
  smollm3,
  type TaggerOptions,
  xlmRoberta,
} from "./load/load_model.ts";
export type { FromFiles, Loaded, LoadedModel, Loader, LoadOptions, WeightDType } from "./load/loader.ts";
export type { SamplingOptions } from "./generate/sampling.ts";
export type { ChatGeneratorOptions, GeneratorOptions, TextGenerator } from "./generate/text_generator.ts";
export { generateText, type TextOptions } from "./generate/text_stream.ts";
