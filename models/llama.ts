/** Llama and its like (SmolLM2, …): Touvron et al. 2023, "LLaMA", in Hugging Face's layout. */
import type { Leaf } from "../core/model.ts";
import { FileError } from "../core/errors.ts";
import type { Value } from "../core/ir/graph.ts";
import { swiglu } from "../core/nn/activation.ts";
import { rmsNorm } from "../core/nn/norm.ts";
import { rope, ropeAngles } from "../core/nn/rope.ts";
import { reshape } from "../core/ops/broadcast.ts";
import { matmul } from "../core/ops/contract.ts";
import { add, convert } from "../core/ops/elementwise.ts";
import { gather } from "../core/ops/indexing.ts";
import { type Architecture, languageModel, type LayeredModel } from "./language_model.ts";
import { type ModelConfig, ropeFrequencies } from "./load/config.ts";
import { type Loader, loaderOf } from "./loader.ts";

/** A linear layer: weight [out, in], bias [out] where the model has biases. */
export interface Linear {
  readonly weight: Leaf;
  readonly bias?: Leaf;
}

/** One block. D is the width, F the feed-forward width, Q = heads · headDim, K = kvHeads · headDim. */
export interface LlamaLayer {
  readonly input_layernorm: { readonly weight: Leaf };
  /** `q_proj` [Q, D], `k_proj` and `v_proj` [K, D], `o_proj` [D, Q]. */
  readonly self_attn: {
    readonly q_proj: Linear;
    readonly k_proj: Linear;
    readonly v_proj: Linear;
    readonly o_proj: Linear;
  };
  readonly post_attention_layernorm: { readonly weight: Leaf };
  /** `gate_proj` and `up_proj` [F, D], `down_proj` [D, F]. */
  readonly mlp: { readonly gate_proj: Linear; readonly up_proj: Linear; readonly down_proj: Linear };
}

/** The weights of a Llama, named as in its files (without `model.`). V is the vocabulary. */
export interface LlamaParams {
  /** [V, D]; the head too, unless there is an `lm_head`. */
  readonly embed_tokens: { readonly weight: Leaf };
  readonly layers: readonly LlamaLayer[];
  readonly norm: { readonly weight: Leaf };
  /** [V, D], where the head is not tied. */
  readonly lm_head?: { readonly weight: Leaf };
}

/** The sizes of one Llama. */
export interface LlamaConfig {
  readonly vocabSize: number;
  readonly contextLength: number;
  readonly width: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly innerWidth: number;
  readonly eps: number;
  /** Radians per token, [headDim / 2]. */
  readonly inverseFrequencies: ArrayLike<number>;
  readonly tiedHead: boolean;
  readonly attentionBias: boolean;
  readonly mlpBias: boolean;
}

/** Reads the sizes out of a configuration. Throws a {@link FileError} for what is not built here. */
export function llamaConfig(config: ModelConfig): LlamaConfig {
  const activation = config.text("hidden_act", "silu");
  if (activation !== "silu") {
    throw new FileError(`${config.path} asks for the activation ${activation}, and known is silu.`);
  }
  const width = config.integer("hidden_size");
  const heads = config.integer("num_attention_heads");
  const kvHeads = config.integer("num_key_value_heads", heads);
  if (heads % kvHeads !== 0) {
    throw new FileError(
      `${config.path} says num_attention_heads is ${heads} and num_key_value_heads ${kvHeads}: the second must divide ` +
        `the first.`,
    );
  }
  const headDim = config.integer("head_dim", Math.floor(width / heads));
  return {
    vocabSize: config.integer("vocab_size"),
    contextLength: config.integer("max_position_embeddings", 2048),
    width,
    layers: config.integer("num_hidden_layers"),
    heads,
    kvHeads,
    headDim,
    innerWidth: config.integer("intermediate_size"),
    eps: config.number("rms_norm_eps", 1e-6),
    inverseFrequencies: ropeFrequencies(config, headDim),
    tiedHead: config.flag("tie_word_embeddings", false),
    attentionBias: config.flag("attention_bias", false),
    mlpBias: config.flag("mlp_bias", false),
  };
}

/** The shape of every weight, in the tree of {@link LlamaParams}. */
export function llamaShapes(config: LlamaConfig): unknown {
  const { vocabSize, width, layers, innerWidth, tiedHead, attentionBias, mlpBias, headDim } = config;
  const [queries, keys] = [config.heads * headDim, config.kvHeads * headDim];
  const linear = (bias: boolean, from: number, to: number) =>
    bias ? { weight: [to, from], bias: [to] } : { weight: [to, from] };
  return {
    embed_tokens: { weight: [vocabSize, width] },
    layers: Array.from({ length: layers }, () => ({
      input_layernorm: { weight: [width] },
      self_attn: {
        q_proj: linear(attentionBias, width, queries),
        k_proj: linear(attentionBias, width, keys),
        v_proj: linear(attentionBias, width, keys),
        o_proj: linear(attentionBias, queries, width),
      },
      post_attention_layernorm: { weight: [width] },
      mlp: {
        gate_proj: linear(mlpBias, width, innerWidth),
        up_proj: linear(mlpBias, width, innerWidth),
        down_proj: linear(mlpBias, innerWidth, width),
      },
    })),
    norm: { weight: [width] },
    ...(tiedHead ? {} : { lm_head: { weight: [vocabSize, width] } }),
  };
}

function linear(x: Value, { weight, bias }: Linear): Value {
  const y = matmul(x, weight, { transposeB: true });
  return bias === undefined ? y : add(y, convert(bias, "f32"));
}

function architecture(config: LlamaConfig): Architecture<LlamaParams> {
  const { heads, kvHeads, headDim, eps } = config;
  return {
    name: "llama",
    sizes: config,
    layers: config.layers,
    kvHeads,
    headDim,
    tied: config.tiedHead ? { lm_head: "embed_tokens" } : {},
    hubName: (path) => /^lm_head(\.|$)/.test(path) ? path : `model.${path}`,
    start: (params, inputIds, positions) => {
      const angles = ropeAngles(positions, config.inverseFrequencies);
      return {
        embedded: convert(gather(params.embed_tokens.weight, inputIds), "f32"),
        layer: (i, x, attend) => {
          const { input_layernorm, self_attn, post_attention_layernorm, mlp } = params.layers[i];
          const [b, t] = x.shape;
          const seen = rmsNorm(x, input_layernorm.weight, eps);
          const project = (to: Linear, count: number) => reshape(linear(seen, to), [b, t, count, headDim]);
          const q = rope(project(self_attn.q_proj, heads), angles);
          const k = rope(project(self_attn.k_proj, kvHeads), angles);
          const v = project(self_attn.v_proj, kvHeads);
          const mixed = add(x, linear(reshape(attend(q, k, v), [b, t, heads * headDim]), self_attn.o_proj));
          const inner = rmsNorm(mixed, post_attention_layernorm.weight, eps);
          return add(mixed, linear(swiglu(linear(inner, mlp.gate_proj), linear(inner, mlp.up_proj)), mlp.down_proj));
        },
      };
    },
    norm: (params, x) => rmsNorm(x, params.norm.weight, eps),
    head: (params, x) => matmul(x, (params.lm_head ?? params.embed_tokens).weight, { transposeB: true }),
  };
}

/** A Llama over parameters that are already there. */
export function makeLlama(config: LlamaConfig, params: LlamaParams): LayeredModel<LlamaParams> {
  return languageModel(architecture(config), params);
}

/** How a Llama is loaded: `await llama.load("path/to/model", { device })`. */
export const llama: Loader<LlamaParams> = loaderOf({
  modelType: "llama",
  read: (config) => {
    const sizes = llamaConfig(config);
    return {
      shapes: llamaShapes(sizes),
      make: (params) => makeLlama(sizes, params as LlamaParams),
      // Buffers of old files; a tied head that was written all the same.
      ignore: [/rotary_emb\.inv_freq$/, ...(sizes.tiedHead ? [/^lm_head\.weight$/] : [])],
    };
  },
});
