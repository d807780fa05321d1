/** GPT-2: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", in Hugging Face's layout. */
import type { Leaf } from "../../core/model.ts";
import type { Value } from "../../core/ir/graph.ts";
import { layerNorm } from "../../core/nn/norm.ts";
import { reshape } from "../../core/ops/broadcast.ts";
import { matmul } from "../../core/ops/contract.ts";
import { add, convert } from "../../core/ops/elementwise.ts";
import { gather } from "../../core/ops/indexing.ts";
import { split } from "../../core/ops/structure.ts";
import { type Architecture, languageModel, type LayeredModel } from "./language_model.ts";
import {
  type ActivationName,
  activationOf,
  demand,
  headWidth,
  type LayerNormParams,
  readActivation,
} from "./layers.ts";
import type { ModelConfig } from "../load/config.ts";
import { configOfWeights } from "../load/tied_head.ts";
import { type Loader, loaderOf } from "../load/loader.ts";

/** A linear layer as GPT-2 stores it: weight [in, out] (Hugging Face's Conv1D), bias [out]. */
export interface Conv1D {
  /** [in, out]. */
  readonly weight: Leaf;
  /** [out]. */
  readonly bias: Leaf;
}

/** One block. D is the width, F the feed-forward width. */
export interface Gpt2Layer {
  /** Before attention. */
  readonly ln_1: LayerNormParams;
  /** `c_attn` [D, 3D] (queries, keys, values), `c_proj` [D, D]. */
  readonly attn: { readonly c_attn: Conv1D; readonly c_proj: Conv1D };
  /** Before the feed-forward part. */
  readonly ln_2: LayerNormParams;
  /** `c_fc` [D, F], `c_proj` [F, D]. */
  readonly mlp: { readonly c_fc: Conv1D; readonly c_proj: Conv1D };
}

/** The weights of GPT-2, named as in its files. V is the vocabulary, P the context. */
export interface Gpt2Params {
  /** [V, D]; the head too, unless there is an `lm_head`. */
  readonly wte: { readonly weight: Leaf };
  /** [P, D]. */
  readonly wpe: { readonly weight: Leaf };
  /** The blocks. */
  readonly h: readonly Gpt2Layer[];
  /** After the last block. */
  readonly ln_f: LayerNormParams;
  /** [V, D], where the head is not tied. */
  readonly lm_head?: { readonly weight: Leaf };
}

/** The sizes of one GPT-2. */
export interface Gpt2Config {
  readonly vocabSize: number;
  readonly contextLength: number;
  readonly width: number;
  readonly layers: number;
  readonly heads: number;
  readonly innerWidth: number;
  readonly activation: ActivationName;
  readonly eps: number;
  readonly tiedHead: boolean;
}

/** Reads the sizes out of a configuration. Throws a {@link FileError} for what is not supported here. */
export function gpt2Config(config: ModelConfig): Gpt2Config {
  demand(config, { scale_attn_weights: true, scale_attn_by_inverse_layer_idx: false, add_cross_attention: false });
  headWidth(config, "n_embd", "n_head");
  const width = config.integer("n_embd");
  return {
    vocabSize: config.integer("vocab_size"),
    contextLength: config.integer("n_positions"),
    width,
    layers: config.integer("n_layer"),
    heads: config.integer("n_head"),
    innerWidth: config.integer("n_inner", 4 * width),
    activation: readActivation(config, "activation_function", "gelu_new"),
    eps: config.number("layer_norm_epsilon", 1e-5),
    tiedHead: config.flag("tie_word_embeddings", true),
  };
}

/** The shape of every weight, in the tree of {@link Gpt2Params}. */
export function gpt2Shapes(config: Gpt2Config): unknown {
  const { vocabSize, contextLength, width, innerWidth, layers, tiedHead } = config;
  const linear = (from: number, to: number) => ({ weight: [from, to], bias: [to] });
  const norm = () => ({ weight: [width], bias: [width] });
  return {
    wte: { weight: [vocabSize, width] },
    wpe: { weight: [contextLength, width] },
    h: Array.from({ length: layers }, () => ({
      ln_1: norm(),
      attn: { c_attn: linear(width, 3 * width), c_proj: linear(width, width) },
      ln_2: norm(),
      mlp: { c_fc: linear(width, innerWidth), c_proj: linear(innerWidth, width) },
    })),
    ln_f: norm(),
    ...(tiedHead ? {} : { lm_head: { weight: [vocabSize, width] } }),
  };
}

const linear = (x: Value, { weight, bias }: Conv1D) => add(matmul(x, weight), convert(bias, "f32"));

function architecture(config: Gpt2Config): Architecture<Gpt2Params> {
  const { width, heads, eps } = config;
  const headDim = width / heads;
  const activate = activationOf(config.activation);
  return {
    name: "gpt2",
    sizes: config,
    layers: config.layers,
    kvHeads: heads,
    headDim,
    tied: config.tiedHead ? { lm_head: "wte" } : {},
    parts: { c_attn: ["q", "k", "v"] },
    hubName: (path) => /^lm_head(\.|$)/.test(path) ? path : `transformer.${path}`,
    start: (params, inputIds, positions) => {
      const tokens = convert(gather(params.wte.weight, inputIds), "f32");
      const places = convert(gather(params.wpe.weight, positions), "f32");
      return {
        embedded: add(tokens, places),
        layer: (i, x, attend) => {
          const { ln_1, attn, ln_2, mlp } = params.h[i];
          const [b, t] = x.shape;
          const qkv = linear(layerNorm(x, ln_1.weight, ln_1.bias, eps), attn.c_attn);
          const [q, k, v] = split(qkv, -1, 3).map((part) => reshape(part, [b, t, heads, headDim]));
          const mixed = add(x, linear(reshape(attend(q, k, v), [b, t, width]), attn.c_proj));
          const inner = activate(linear(layerNorm(mixed, ln_2.weight, ln_2.bias, eps), mlp.c_fc));
          return add(mixed, linear(inner, mlp.c_proj));
        },
      };
    },
    norm: (params, x) => layerNorm(x, params.ln_f.weight, params.ln_f.bias, eps),
    head: (params, x) => matmul(x, (params.lm_head ?? params.wte).weight, { transposeB: true }),
  };
}

/** A GPT-2 over parameters that are already there. */
export function makeGpt2(config: Gpt2Config, params: Gpt2Params): LayeredModel<Gpt2Params> {
  return languageModel(architecture(config), params);
}

/** How GPT-2 is loaded: `await gpt2.load("path/to/gpt2", { device })`. */
export const gpt2: Loader<Gpt2Params> = loaderOf({
  modelType: "gpt2",
  check: gpt2Config,
  read: (given, source) => {
    const config = configOfWeights(given, source, { embedding: "wte.weight", tied: true });
    const sizes = gpt2Config(config);
    return {
      config,
      shapes: gpt2Shapes(sizes),
      make: (params) => makeGpt2(sizes, params as Gpt2Params),
      // The buffers of causal masks, which old files carry; a tied head that was written all the same.
      ignore: [/\.attn\.(masked_)?bias$/, ...(sizes.tiedHead ? [/^lm_head\.weight$/] : [])],
    };
  },
});
