/** BERT: Devlin et al. 2018, "BERT: Pre-training of Deep Bidirectional Transformers", in Hugging Face's layout. */
import { FileError, ShapeError } from "../../core/errors.ts";
import { newInput, type Value } from "../../core/ir/graph.ts";
import type { EncoderModel, Leaf, TokenInputs } from "../../core/model.ts";
import { attention } from "../../core/nn/attention.ts";
import { layerNorm } from "../../core/nn/norm.ts";
import { broadcastTo, full, reduceSum, reshape } from "../../core/ops/broadcast.ts";
import { asValue } from "../../core/ops/constant.ts";
import { add, convert, div, max, mul, ne, sqrt, tanh } from "../../core/ops/elementwise.ts";
import { gather } from "../../core/ops/indexing.ts";
import { iota, slice } from "../../core/ops/structure.ts";
import { checkpoint } from "../../core/transforms/checkpoint.ts";
import type { ModelConfig } from "../load/config.ts";
import { readTokenInputs } from "../token_inputs.ts";
import { classifier } from "./classifier.ts";
import { type Family, hubNameOf, type Names, readSizes, type StoredWeights, type TextSizes } from "./family.ts";
import {
  type ActivationName,
  activationOf,
  type LayerNormParams,
  type Linear,
  linear,
  linearShapes,
  readActivation,
} from "./layers.ts";

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
    /** [context, D]. */
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

/** The weights of a BERT with a classifying head, [labels, D]. */
export interface BertClassifierParams extends BertParams {
  /** The head: [labels, D]. */
  readonly classifier: Linear;
}

/** The sizes of one BERT. */
export interface BertConfig extends TextSizes {
  readonly tokenTypes: number;
  readonly activation: ActivationName;
}

/** Reads the sizes out of a configuration. Throws a {@link FileError} for what is not supported here. */
function sizesOf(config: ModelConfig): BertConfig {
  return {
    ...readSizes(names, config),
    tokenTypes: config.integer("type_vocab_size", 2),
    activation: readActivation(config, "hidden_act", "gelu"),
  };
}

function shapes(config: BertConfig, hasPooler: boolean): Record<string, unknown> {
  const { vocabSize, contextLength, tokenTypes, width, layers, innerWidth } = config;
  const table = (rows: number) => ({ weight: [rows, width] });
  const dense = (from: number, to: number) => linearShapes(from, to, true);
  const LayerNorm = { weight: [width], bias: [width] };
  return {
    embeddings: {
      word_embeddings: table(vocabSize),
      position_embeddings: table(contextLength),
      token_type_embeddings: table(tokenTypes),
      LayerNorm,
    },
    encoder: {
      layer: Array.from({ length: layers }, () => ({
        attention: {
          self: { query: dense(width, width), key: dense(width, width), value: dense(width, width) },
          output: { dense: dense(width, width), LayerNorm },
        },
        intermediate: { dense: dense(width, innerWidth) },
        output: { dense: dense(innerWidth, width), LayerNorm },
      })),
    },
    ...(hasPooler ? { pooler: { dense: dense(width, width) } } : {}),
  };
}

/**
 * The embedding f32[B,T,D] and the stream after each layer. Padding is seen by no token; its own states mean nothing.
 * `byBlocks`: of each layer only its input is kept for the backward pass.
 */
function statesOf(config: BertConfig, params: BertParams, inputs: TokenInputs, byBlocks = false): Value[] {
  const { width, heads, eps } = config;
  const { ids, seen: mask, positionIds, tokenTypeIds, documentStart } = readTokenInputs(inputs, config);
  if (documentStart !== undefined) {
    throw new ShapeError("a BERT reads one text a row: documents can't be packed where every token sees all others");
  }
  const [b, t] = ids.shape;
  const positions = positionIds ?? iota([1, t], 1);
  const types = tokenTypeIds ?? full([1, t], 0, "i32");
  const activate = activationOf(config.activation);
  const norm = (x: Value, { weight, bias }: LayerNormParams) => layerNorm(x, weight, bias, eps);

  const { embeddings, encoder } = params;
  const look = ({ weight }: { weight: Leaf }, at: Value) => convert(gather(weight, at), "f32");
  const words = look(embeddings.word_embeddings, ids);
  const marks = add(look(embeddings.position_embeddings, positions), look(embeddings.token_type_embeddings, types));
  const states = [norm(add(words, marks), embeddings.LayerNorm)];
  for (const { attention: { self, output: mix }, intermediate, output } of encoder.layer) {
    const block = (x: Value) => {
      const project = (to: Linear) => reshape(linear(x, to), [b, t, heads, width / heads]);
      const seen = attention(project(self.query), project(self.key), project(self.value), { mask, causal: false });
      const mixed = norm(add(x, linear(reshape(seen, [b, t, width]), mix.dense)), mix.LayerNorm);
      const inner = activate(linear(mixed, intermediate.dense));
      return norm(add(mixed, linear(inner, output.dense)), output.LayerNorm);
    };
    states.push((byBlocks ? checkpoint(block) : block)(states.at(-1)!));
  }
  return states;
}

/** The first token's state [B,D] of states [B,T,D], through the pooler. */
function pool({ pooler }: BertParams, states: Value): Value {
  if (pooler === undefined) {
    throw new FileError("this BERT has no pooler (its file holds no pooler.dense): use `embed`, which needs none");
  }
  const [b, , width] = states.shape;
  return tanh(linear(reshape(slice(states, 1, 0, 1), [b, width]), pooler.dense));
}

/** The mean over real tokens of states [B,T,D], scaled to length 1. */
function meanOfTokens(states: Value, inputs: TokenInputs): Value {
  const [b, t, width] = states.shape;
  const real = inputs.attentionMask === undefined
    ? full([b, t], 1)
    : convert(ne(asValue(inputs.attentionMask), 0), "f32");
  const sum = reduceSum(mul(states, broadcastTo(reshape(real, [b, t, 1]), states.shape)), 1);
  const mean = div(sum, broadcastTo(max(reduceSum(real, 1, { keep: true }), 1), [b, width]));
  const length = sqrt(reduceSum(mul(mean, mean), 1, { keep: true }));
  return div(mean, broadcastTo(max(length, 1e-12), [b, width]));
}

function encoderOver(config: BertConfig, params: BertParams): EncoderModel<BertParams> {
  const hiddenStates = (params: BertParams, inputs: TokenInputs) => statesOf(config, params, inputs);
  const last = (params: BertParams, inputs: TokenInputs) => hiddenStates(params, inputs)[config.layers];
  return {
    architecture: names.modelType,
    params,
    apply: last,
    sample: { inputIds: newInput({ shape: [1, 2], dtype: "i32" }, "inputIds") },
    tied: {},
    hubName: (path) => hubNameOf(names, path),
    sizes: config,
    hiddenStates,
    pool: (params, inputs) => pool(params, last(params, inputs)),
    embed: (params, inputs) => meanOfTokens(last(params, inputs), inputs),
  };
}

/** Whether a file has a pooler. */
const hasPooler = (stored: StoredWeights): boolean => stored.has("pooler.dense.weight");

const names: Names = {
  modelType: "bert",
  models: "BERT, MiniLM and other sentence encoders, and their classifiers",
  own: "every token attends to all others; old `gamma`, `beta` and `bert.` names are read",
  className: "BertModel",
  prefix: "",
  tables: ["word_embeddings", "position_embeddings", "token_type_embeddings"],
  keys: {
    width: "hidden_size",
    layers: "num_hidden_layers",
    heads: "num_attention_heads",
    inner: "intermediate_size",
    context: "max_position_embeddings",
    eps: "layer_norm_eps",
  },
  defaults: { context: 512, eps: 1e-12 },
  only: { position_embedding_type: ["absolute"], is_decoder: [false], add_cross_attention: [false] },
  // A buffer, and the heads of pretraining.
  ignore: [/\.?embeddings\.position_ids$/, /^cls\./],
  // Old files call a norm's scale gamma and its shift beta.
  rename: (name) => name.replace(/LayerNorm\.gamma$/, "LayerNorm.weight").replace(/LayerNorm\.beta$/, "LayerNorm.bias"),
};

/** BERT's encoders, and its classifiers: the pooled first token through a linear head. */
export const bert: Family<EncoderModel<BertParams>> = {
  ...names,
  check: sizesOf,
  build: (config, stored) => {
    const sizes = sizesOf(config);
    return {
      shapes: shapes(sizes, hasPooler(stored)),
      make: (params) => encoderOver(sizes, params),
      ignore: [...names.ignore!, /^classifier\./],
    };
  },
  classifier: classifier<BertParams, BertConfig>({
    ...names,
    className: "BertForSequenceClassification",
    prefix: "bert.",
    sizes: sizesOf,
    shapes: (sizes, stored) => {
      if (hasPooler(stored)) return shapes(sizes, true);
      throw new FileError(
        `${stored.path} holds no pooler.dense, which a classifier needs: choose a BERT that has one.`,
      );
    },
    pooled: (sizes, params, inputs, byBlocks) => pool(params, statesOf(sizes, params, inputs, byBlocks)[sizes.layers]),
  }),
};
