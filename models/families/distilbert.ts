/** DistilBERT: Sanh et al. 2019, "DistilBERT, a distilled version of BERT", in Hugging Face's layout. */
import type { Leaf } from "../../core/model.ts";
import { max } from "../../core/ops/elementwise.ts";
import { encoder, type EncoderFamily, firstToken } from "./encoder.ts";
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
export interface DistilBertLayer {
  /** [D, D] each. */
  readonly attention: {
    readonly q_lin: Linear;
    readonly k_lin: Linear;
    readonly v_lin: Linear;
    readonly out_lin: Linear;
  };
  /** [D] each: the norm after the attention is added. */
  readonly sa_layer_norm: LayerNormParams;
  /** `lin1` [F, D], `lin2` [D, F]. */
  readonly ffn: { readonly lin1: Linear; readonly lin2: Linear };
  /** [D] each: the norm after the feed-forward part is added. */
  readonly output_layer_norm: LayerNormParams;
}

/** The weights of a DistilBERT, named as in its files (without `distilbert.`). */
export interface DistilBertParams {
  /** What tokens and places begin as. */
  readonly embeddings: {
    /** [vocabulary, D]. */
    readonly word_embeddings: { readonly weight: Leaf };
    /** [context, D]. */
    readonly position_embeddings: { readonly weight: Leaf };
    readonly LayerNorm: LayerNormParams;
  };
  /** The layers. */
  readonly transformer: { readonly layer: readonly DistilBertLayer[] };
}

const block: PostNormNames = {
  layers: "transformer.layer",
  query: "attention.q_lin",
  key: "attention.k_lin",
  value: "attention.v_lin",
  mix: "attention.out_lin",
  mixNorm: "sa_layer_norm",
  inner: "ffn.lin1",
  outer: "ffn.lin2",
  outerNorm: "output_layer_norm",
};

export const distilbert: EncoderFamily<DistilBertParams, PostNormSizes> = encoder<DistilBertParams, PostNormSizes>({
  modelType: "distilbert",
  models: "DistilBERT and its like",
  own: "BERT's block under other names; no token types, no pooler",
  className: "DistilBertModel",
  prefix: "",
  inside: "distilbert.",
  tables: ["word_embeddings", "position_embeddings"],
  keys: { width: "dim", layers: "n_layers", heads: "n_heads", inner: "hidden_dim", context: "max_position_embeddings" },
  defaults: { context: 512, eps: 1e-12 },
  ignore: [/\.?embeddings\.position_ids$/],
  sizes: (config, sizes) => ({
    ...sizes,
    tokenTypes: 0,
    embeddingWidth: sizes.width,
    places: sizes.contextLength,
    activation: readActivation(config, "activation", "gelu"),
  }),
  shapes: (sizes) => postNormShapes(block, sizes),
  states: (sizes, params, inputs, byBlocks) => postNormStates(block, sizes, params, inputs, { byBlocks }),
  heads: {
    SEQ_CLS: {
      className: "DistilBertForSequenceClassification",
      output: "classifier",
      beside: ["pre_classifier"],
      shapes: ({ width }) => flatLinear("pre_classifier", width, width),
      features: (_, params, states) => max(linear(firstToken(states), linearAt(params, "pre_classifier")), 0),
    },
    TOKEN_CLS: { className: "DistilBertForTokenClassification", output: "classifier" },
    MASKED_LM: {
      className: "DistilBertForMaskedLM",
      output: "vocab_projector",
      beside: ["vocab_transform", "vocab_layer_norm"],
      bias: () => "vocab_projector.bias",
      shapes: ({ width }) => ({
        ...flatLinear("vocab_transform", width, width),
        ...flatNorm("vocab_layer_norm", width),
      }),
      features: ({ activation, eps }, params, states) =>
        transformed(params, states, "vocab_transform", "vocab_layer_norm", eps, activationOf(activation)),
    },
  },
});
