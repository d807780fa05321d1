/** BERT and its like with its names (RoBERTa, XLM-RoBERTa, ELECTRA), in Hugging Face's layout: one block, and a literal each. */
import { FileError } from "../../core/errors.ts";
import type { Value } from "../../core/ir/graph.ts";
import type { Leaf } from "../../core/model.ts";
import { gelu } from "../../core/nn/activation.ts";
import { add, convert, mul, ne, tanh } from "../../core/ops/elementwise.ts";
import { cumsum } from "../../core/ops/reduce.ts";
import type { ModelConfig } from "../load/config.ts";
import { encoder, type EncoderFamily, type EncoderLiteral, firstToken } from "./encoder.ts";
import { type StoredWeights, type TextSizes, usualKeys } from "./family.ts";
import {
  activationOf,
  flatLinear,
  flatNorm,
  type LayerNormParams,
  type Linear,
  linear,
  linearAt,
  readActivation,
} from "./layers.ts";
import { type PostNormNames, postNormShapes, type PostNormSizes, postNormStates, transformed } from "./post_norm.ts";

/** One layer. D is the width, F the feed-forward width. */
export interface BertLayer {
  /** Queries, keys and values, and what follows them. */
  readonly attention: {
    /** [D, D] each. */
    readonly self: { readonly query: Linear; readonly key: Linear; readonly value: Linear };
    /** `dense` [D, D]. */
    readonly output: { readonly dense: Linear; readonly LayerNorm: LayerNormParams };
  };
  /** `dense` [F, D]. */
  readonly intermediate: { readonly dense: Linear };
  /** `dense` [D, F]. */
  readonly output: { readonly dense: Linear; readonly LayerNorm: LayerNormParams };
}

/** The weights of BERT, named as in its files (without `bert.`). */
export interface BertParams {
  /** What tokens, places and the two texts begin as. */
  readonly embeddings: {
    /** [vocabulary, D]. */
    readonly word_embeddings: { readonly weight: Leaf };
    /** [places, D]. */
    readonly position_embeddings: { readonly weight: Leaf };
    /** [token types, D]. */
    readonly token_type_embeddings: { readonly weight: Leaf };
    readonly LayerNorm: LayerNormParams;
  };
  /** The layers. */
  readonly encoder: { readonly layer: readonly BertLayer[] };
  /** `dense` [D, D], where the file has one. */
  readonly pooler?: { readonly dense: Linear };
}

/** The weights of a BERT with a head that tells labels, of a text or of its tokens: [labels, D]. */
export interface BertClassifierParams extends BertParams {
  /** The head: [labels, D]. */
  readonly classifier: Linear;
}

/** The weights of an ELECTRA: BERT's, with tables that may be narrower than the layers. */
export interface ElectraParams extends Omit<BertParams, "pooler"> {
  /** [D, embedding width], where the two differ. */
  readonly embeddings_project?: Linear;
}

const block: PostNormNames = {
  layers: "encoder.layer",
  query: "attention.self.query",
  key: "attention.self.key",
  value: "attention.self.value",
  mix: "attention.output.dense",
  mixNorm: "attention.output.LayerNorm",
  inner: "intermediate.dense",
  outer: "output.dense",
  outerNorm: "output.LayerNorm",
};

const sizesOf = (config: ModelConfig, common: TextSizes): PostNormSizes => ({
  ...common,
  tokenTypes: config.integer("type_vocab_size", 2),
  embeddingWidth: common.width,
  places: common.contextLength,
  activation: readActivation(config, "hidden_act", "gelu"),
});

/** Whether a file has a pooler. */
const hasPooler = (stored: StoredWeights): boolean => stored.has("pooler.dense.weight");

const shapes = (sizes: PostNormSizes, stored: StoredWeights) => ({
  ...postNormShapes(block, sizes),
  ...(hasPooler(stored) && flatLinear("pooler.dense", sizes.width, sizes.width)),
});

/** The first token's state [B,D] of states [B,T,D], through the pooler. */
function pool({ pooler }: BertParams, states: Value): Value {
  if (pooler !== undefined) return tanh(linear(firstToken(states), pooler.dense));
  throw new FileError("this BERT has no pooler (its file holds no pooler.dense): use `embed`, which needs none");
}

const common = {
  tables: ["word_embeddings", "position_embeddings", "token_type_embeddings"],
  keys: { ...usualKeys, eps: "layer_norm_eps" },
  defaults: { context: 512, eps: 1e-12 },
  only: { position_embedding_type: ["absolute"], is_decoder: [false], add_cross_attention: [false] },
  sizes: sizesOf,
  shapes,
  pool,
  // Old files call a norm's scale gamma and its shift beta.
  rename: (name: string) =>
    name.replace(/LayerNorm\.gamma$/, "LayerNorm.weight").replace(/LayerNorm\.beta$/, "LayerNorm.bias"),
} as const satisfies Partial<EncoderLiteral<BertParams, PostNormSizes>>;

/** A buffer of old files. */
const places = /\.?embeddings\.position_ids$/;

/** Devlin et al. 2018, "BERT: Pre-training of Deep Bidirectional Transformers". */
export const bert: EncoderFamily<BertParams, PostNormSizes> = encoder({
  ...common,
  modelType: "bert",
  models: "BERT, MiniLM and other sentence encoders",
  own: "every token attends to all others; old `gamma`, `beta` and `bert.` names are read",
  className: "BertModel",
  prefix: "",
  inside: "bert.",
  ignore: [places, /^cls\.seq_relationship\./],
  states: (sizes, params, inputs, byBlocks) => postNormStates(block, sizes, params, inputs, { byBlocks }),
  heads: {
    SEQ_CLS: {
      className: "BertForSequenceClassification",
      output: "classifier",
      // The pooler is no module of the head: a file without one is no classifier.
      shapes: (_, stored) => {
        if (hasPooler(stored)) return {};
        throw new FileError(
          `${stored.path} holds no pooler.dense, which a classifier needs: choose a BERT that has one.`,
        );
      },
      features: (_, params, states) => pool(params, states),
    },
    TOKEN_CLS: { className: "BertForTokenClassification", output: "classifier" },
    MASKED_LM: {
      className: "BertForMaskedLM",
      output: "cls.predictions.decoder",
      bias: () => "cls.predictions.bias",
      shapes: ({ width }) => ({
        ...flatLinear("cls.predictions.transform.dense", width, width),
        ...flatNorm("cls.predictions.transform.LayerNorm", width),
      }),
      features: ({ activation, eps }, params, states) => {
        const [dense, norm] = ["dense", "LayerNorm"].map((part) => `cls.predictions.transform.${part}`);
        return transformed(params, states, dense, norm, eps, activationOf(activation));
      },
    },
  },
});

/** A head's vector of a text: the first token's state through a layer and an activation. */
const denseFirst = (act: (x: Value) => Value) => (_: unknown, params: unknown, states: Value) =>
  act(linear(firstToken(states), linearAt(params, "classifier.dense")));
const denseShapes = ({ width }: TextSizes) => flatLinear("classifier.dense", width, width);

/** The token that fills rows, beside which places are counted. */
interface RobertaSizes extends PostNormSizes {
  readonly padId: number;
}

function countedPlaces({ padId }: RobertaSizes, ids: Value): Value {
  const real = convert(ne(ids, padId), "i32");
  return add(mul(cumsum(real), real), padId);
}

/** What RoBERTa and its like have in common. */
const likeRoberta = {
  ...common,
  prefix: "",
  inside: "roberta.",
  ignore: [places],
  example: { pad_token_id: 1, type_vocab_size: 1 },
  sizes: (config: ModelConfig, sizes: TextSizes): RobertaSizes => {
    const padId = Number(config.raw.pad_token_id ?? 1), places = sizes.contextLength;
    // Rows up to that of the padding token are no text's.
    return { ...sizesOf(config, sizes), padId, places, contextLength: places - padId - 1 };
  },
  // Tokens are counted, padding is not: it stays at its own row of the table.
  positions: countedPlaces,
  states: (sizes: RobertaSizes, params: BertParams, inputs, byBlocks) =>
    postNormStates(block, sizes, params, inputs, { byBlocks, positions: (ids) => countedPlaces(sizes, ids) }),
} as const satisfies Partial<EncoderLiteral<BertParams, RobertaSizes>>;

const robertaHeads = (name: string): EncoderLiteral<BertParams, RobertaSizes>["heads"] => ({
  SEQ_CLS: {
    className: `${name}ForSequenceClassification`,
    output: "classifier.out_proj",
    shapes: denseShapes,
    features: denseFirst(tanh),
  },
  TOKEN_CLS: { className: `${name}ForTokenClassification`, output: "classifier" },
  MASKED_LM: {
    className: `${name}ForMaskedLM`,
    output: "lm_head.decoder",
    bias: () => "lm_head.bias",
    shapes: ({ width }) => ({ ...flatLinear("lm_head.dense", width, width), ...flatNorm("lm_head.layer_norm", width) }),
    features: ({ eps }, params, states) => transformed(params, states, "lm_head.dense", "lm_head.layer_norm", eps),
  },
});

/** Liu et al. 2019, "RoBERTa: A Robustly Optimized BERT Pretraining Approach". */
export const roberta: EncoderFamily<BertParams, RobertaSizes> = encoder<BertParams, RobertaSizes>({
  ...likeRoberta,
  modelType: "roberta",
  models: "RoBERTa, DistilRoBERTa and their like",
  own: "BERT's block; places are counted from the padding token's id on, and padding is not counted",
  className: "RobertaModel",
  heads: robertaHeads("Roberta"),
});

/** Conneau et al. 2019, "Unsupervised Cross-lingual Representation Learning at Scale". */
export const xlmRoberta: EncoderFamily<BertParams, RobertaSizes> = encoder<BertParams, RobertaSizes>({
  ...likeRoberta,
  modelType: "xlm-roberta",
  models: "XLM-RoBERTa, multilingual E5 and BGE-M3",
  own: "as roberta",
  className: "XLMRobertaModel",
  heads: robertaHeads("XLMRoberta"),
});

/** Clark et al. 2020, "ELECTRA: Pre-training Text Encoders as Discriminators Rather Than Generators". */
export const electra: EncoderFamily<ElectraParams, PostNormSizes> = encoder<ElectraParams, PostNormSizes>({
  ...common,
  pool: undefined,
  modelType: "electra",
  models: "ELECTRA's discriminators and generators",
  own: "BERT's block; tables may be narrower than the layers",
  className: "ElectraModel",
  prefix: "",
  inside: "electra.",
  ignore: [places, /^discriminator_predictions\./],
  example: { embedding_size: 12 },
  sizes: (config, sizes) => ({ ...sizesOf(config, sizes), embeddingWidth: config.integer("embedding_size", 128) }),
  shapes: (sizes) => postNormShapes(block, sizes),
  states: (sizes, params, inputs, byBlocks) => postNormStates(block, sizes, params, inputs, { byBlocks }),
  heads: {
    SEQ_CLS: {
      className: "ElectraForSequenceClassification",
      output: "classifier.out_proj",
      shapes: denseShapes,
      features: denseFirst(gelu),
    },
    TOKEN_CLS: { className: "ElectraForTokenClassification", output: "classifier" },
    MASKED_LM: {
      className: "ElectraForMaskedLM",
      output: "generator_lm_head",
      beside: ["generator_predictions"],
      bias: () => "generator_lm_head.bias",
      shapes: ({ width, embeddingWidth }) => ({
        ...flatNorm("generator_predictions.LayerNorm", embeddingWidth),
        ...flatLinear("generator_predictions.dense", width, embeddingWidth),
      }),
      features: ({ eps }, params, states) => {
        const [dense, norm] = ["dense", "LayerNorm"].map((part) => `generator_predictions.${part}`);
        return transformed(params, states, dense, norm, eps);
      },
    },
  },
});
