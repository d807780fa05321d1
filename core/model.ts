import type { Aval } from "./aval.ts";
import type { Value } from "./ir/graph.ts";
import type { Operand, Tensor } from "./tensor.ts";

/** A leaf of a tree of parameters: a tensor as loaded, a value while a function of the tree is traced. */
export type Leaf = Value | Tensor;

/** What a model is for, in PEFT's words; a masked language model is one that PEFT has no word for. */
export type Task = "CAUSAL_LM" | "SEQ_CLS" | "TOKEN_CLS" | "MASKED_LM" | "FEATURE_EXTRACTION";

/** What a classifier's outputs say of a text, in transformers' words: one label of several, any of them, or numbers. */
export type ProblemType = "single_label_classification" | "multi_label_classification" | "regression";

/**
 * A pure function of parameters and inputs, with parameters for it. Transforms (lora, grad, checkpoint) look only at the
 * graph that `apply` traces to; a model knows of none of them.
 */
export interface Model<P = unknown, I = unknown, O = Value> {
  /** The file format's name of the architecture: `gpt2`, `llama`, `bert`. */
  readonly architecture?: string;
  /** Nested plain objects and arrays whose leaf paths are Hugging Face names: `h.0.attn.c_attn.weight`. */
  readonly params: P;
  /** The function itself. */
  apply(params: P, inputs: I): O;
  /** What it is for, where its head says so. */
  readonly task?: Task;
  /** The module whose rows are its outputs, which "all-linear" leaves out as it does a head of a usual name. */
  readonly head?: string;
  /**
   * Where each token of these inputs stands, i32[B,T] or [1,T]: what those are counted on from that a method puts in front of
   * them. A model that has it reads `positionIds`.
   */
  positions?(inputs: I): Value;
  /** Placeholders with the avals of the smallest inputs: what a transform traces `apply` with. */
  readonly sample: I;
  /**
   * Further uses of a weight under the name of another module: `{ lm_head: "wte" }` says that products with `wte.weight`
   * are the module `lm_head`, while rows gathered from it are `wte`.
   */
  readonly tied?: Readonly<Record<string, string>>;
  /**
   * Names of the parts of a fused projection's outputs, by the module's name: `{ c_attn: ["q", "k", "v"] }` says that the
   * first third of what `c_attn` gives are queries, and `{ qkv_proj: { q: 64, k: 16, v: 16 } }` that the first 64 are.
   */
  readonly parts?: Parts;
  /** The module path in Hugging Face's class with a language-model head: `h.0.attn` is `transformer.h.0.attn` there. */
  hubName?(path: string): string;
  /** The names of what its outputs tell apart, in their order, where they do. */
  readonly labels?: readonly string[];
  /** Modules whose weights are new and not from the file: to be trained whole, beside any adapter. */
  readonly fresh?: readonly string[];
}

/** The parts of fused projections, of one size or each of its own: see {@link Model.parts}. */
export type Parts = Readonly<Record<string, readonly string[] | Readonly<Record<string, number>>>>;

/** What a language model reads. B sequences of T tokens. */
export interface TokenInputs {
  /** i32[B,T]. */
  readonly inputIds: Operand;
  /** i32[B,T], 1 = a real token, 0 = padding, on either side. */
  readonly attentionMask?: Operand;
  /** i32[B,T]. By default counted from the start of each document, or from each sequence's first real token. */
  readonly positionIds?: Operand;
  /**
   * i32[B,T]: where in its row the document of each token starts, for rows that several documents are packed in. A token
   * sees none before its own.
   */
  readonly documentStart?: Operand;
  /** i32[B,T], which of a pair of texts each token belongs to, for models that distinguish them (BERT). 0 by default. */
  readonly tokenTypeIds?: Operand;
  /** i32[B,T], -100 where no token is to be predicted. Ignored by `apply`; it belongs to the loss. */
  readonly labels?: Operand;
}

/** What a layer keeps of the tokens seen so far: keys and values [B, length, kvHeads, headDim], or its last inputs [B, n, D]. */
export type CacheEntry<L = Leaf> = { readonly k: L; readonly v: L } | { readonly last: L };

/** What all layers keep. */
export type Cache = readonly CacheEntry[];

/** What one decoding step reads: t new tokens that stand at cache places index … index + t - 1. */
export interface StepInputs {
  /** i32[B,t]. */
  readonly inputIds: Operand;
  /** i32[B,t]. */
  readonly positionIds: Operand;
  /** i32[B,length]: 1 where a cache place holds (or will hold, in this step) a real token. */
  readonly mask: Operand;
  /** i32[]: the place of the first new token, as data, so that one program serves every place. */
  readonly index: Operand;
  /** Keys and values so far. */
  readonly cache: Cache;
  /**
   * i32[]: how many tokens the longest sequence has at least, where these are the first of more that are known: some rotary
   * positions depend on the whole. By default up to the last of `positionIds`.
   */
  readonly length?: Operand;
  /** i32[B]: the place of the first token at which an adapter acts that does not act everywhere; past the end for none. */
  readonly from?: Operand;
}

/** The sizes that loading, generation and reports need to know of a model of text. */
export interface LanguageModelSizes {
  /** How many tokens there are. */
  readonly vocabSize: number;
  /** The longest sequence that it takes, in tokens. */
  readonly contextLength: number;
  /**
   * The longest sequence that shares a cache with longer ones, where there is such: past it, what its keys were made with is
   * no longer so, and they are made again.
   */
  readonly cacheLength?: number;
}

/** A model that predicts the next token: logits f32[B,T,V], and a way to do so token by token. */
export interface LanguageModel<P = unknown> extends Model<P, TokenInputs, Value> {
  /** The file format's name of the architecture. */
  readonly architecture: string;
  /** The module path in Hugging Face's class of this model. */
  hubName(path: string): string;
  /** What loading, generation and reports need to know. */
  readonly sizes: LanguageModelSizes;
  /** Logits f32[B,V] of the last of the new tokens, and the cache with the new tokens in it. */
  step(params: P, inputs: StepInputs): { logits: Value; cache: Cache };
  /** The avals of an empty cache, in the tree that `step` takes. */
  cacheAvals(batch: number, length: number): readonly CacheEntry<Aval>[];
}

/** A model that reads whole texts: every token sees all others. D is its width. */
export interface EncoderModel<P = unknown> extends Model<P, TokenInputs, Value> {
  /** The file format's name of the architecture. */
  readonly architecture: string;
  /** The module path in Hugging Face's class of this model. */
  hubName(path: string): string;
  /** What loading, generation and reports need to know. */
  readonly sizes: LanguageModelSizes;
  /** What `apply` computes, but of each block only its input is kept for the backward pass. */
  applyByBlocks(params: P, inputs: TokenInputs): Value;
  /** The embedding and the stream after each layer, f32[B,T,D] each; the last is what `apply` gives. */
  hiddenStates(params: P, inputs: TokenInputs): Value[];
  /** f32[B,D]: the first token's last state through the pooler. Throws a {@link FileError} where the model has none. */
  pool(params: P, inputs: TokenInputs): Value;
  /** f32[B,D]: the mean of the real tokens' last states at length 1, so that a dot product is the cosine of two texts. */
  embed(params: P, inputs: TokenInputs): Value;
}

/** What encoders with any head on them have in common. */
export interface HeadedModel<P = unknown> extends Model<P, TokenInputs, Value> {
  /** The file format's name of the architecture. */
  readonly architecture: string;
  /** What its head is for. */
  readonly task: Task;
  /** The module path in Hugging Face's class of this model. */
  hubName(path: string): string;
  /** What loading, generation and reports need to know. */
  readonly sizes: LanguageModelSizes;
  /** What `apply` computes, but of each block only its input is kept for the backward pass. */
  applyByBlocks(params: P, inputs: TokenInputs): Value;
  /** The embedding and the stream after each layer, f32[B,T,D] each: what the head reads. */
  hiddenStates(params: P, inputs: TokenInputs): Value[];
}

/** A model whose outputs have names. */
export interface LabelledModel<P = unknown> extends HeadedModel<P> {
  /** The names of the labels, in the order of the logits. */
  readonly labels: readonly string[];
  /**
   * Modules whose weights are new and not from the file: a head to be trained whole, beside any adapter (`lora`'s
   * `modulesToSave`). Empty where the file has a trained head.
   */
  readonly fresh: readonly string[];
}

/** A model that classifies texts: logits f32[B,labels]. */
export interface ClassifierModel<P = unknown> extends LabelledModel<P> {
  /** What the logits say. */
  readonly problem: ProblemType;
}

/** A model that labels each token of a text: logits f32[B,T,labels]. */
export interface TaggerModel<P = unknown> extends LabelledModel<P> {
  /** Each token has a label. */
  readonly task: "TOKEN_CLS";
}

/** A model that tells which word stands at each place of a text, hidden or not: logits f32[B,T,V]. */
export interface MaskedModel<P = unknown> extends HeadedModel<P> {
  /** Hidden words are told. */
  readonly task: "MASKED_LM";
}
