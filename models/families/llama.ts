/** Llama and its like (SmolLM2, Mistral, Qwen2, Qwen3, …), in Hugging Face's layout: see llama_config.ts for their differences. */
import type { Leaf } from "../../core/model.ts";
import type { Value } from "../../core/ir/graph.ts";
import { swiglu } from "../../core/nn/activation.ts";
import { rmsNorm } from "../../core/nn/norm.ts";
import { rope, ropeAngles } from "../../core/nn/rope.ts";
import { reshape } from "../../core/ops/broadcast.ts";
import { matmul } from "../../core/ops/contract.ts";
import { add, convert } from "../../core/ops/elementwise.ts";
import { gather } from "../../core/ops/indexing.ts";
import { configOfWeights } from "../load/tied_head.ts";
import { type Linear, linear, linearShapes } from "./layers.ts";
import { type Architecture, languageModel, type LayeredModel } from "./language_model.ts";
import { type LlamaConfig, llamaConfig, type LlamaType } from "./llama_config.ts";
import { type Loader, loaderOf } from "../load/loader.ts";

/** One block. D is the width, F the feed-forward width, Q = heads · headDim, K = kvHeads · headDim. */
export interface LlamaLayer {
  /** [D], before attention. */
  readonly input_layernorm: { readonly weight: Leaf };
  /** `q_proj` [Q, D], `k_proj` and `v_proj` [K, D], `o_proj` [D, Q]. */
  readonly self_attn: {
    readonly q_proj: Linear;
    readonly k_proj: Linear;
    readonly v_proj: Linear;
    readonly o_proj: Linear;
    /** [headDim], where queries and keys are normed. */
    readonly q_norm?: { readonly weight: Leaf };
    readonly k_norm?: { readonly weight: Leaf };
  };
  /** [D], before the feed-forward part. */
  readonly post_attention_layernorm: { readonly weight: Leaf };
  /** `gate_proj` and `up_proj` [F, D], `down_proj` [D, F]. */
  readonly mlp: { readonly gate_proj: Linear; readonly up_proj: Linear; readonly down_proj: Linear };
}

/** The weights of a Llama, named as in its files (without `model.`). V is the vocabulary. */
export interface LlamaParams {
  /** [V, D]; the head too, unless there is an `lm_head`. */
  readonly embed_tokens: { readonly weight: Leaf };
  /** The blocks. */
  readonly layers: readonly LlamaLayer[];
  /** [D], after the last block. */
  readonly norm: { readonly weight: Leaf };
  /** [V, D], where the head is not tied. */
  readonly lm_head?: { readonly weight: Leaf };
}

/** The shape of every weight, in the tree of {@link LlamaParams}. */
export function llamaShapes(config: LlamaConfig): unknown {
  const { vocabSize, width, layers, innerWidth, tiedHead, biases, headDim, headNorms } = config;
  const [queries, keys] = [config.heads * headDim, config.kvHeads * headDim];
  return {
    embed_tokens: { weight: [vocabSize, width] },
    layers: Array.from({ length: layers }, () => ({
      input_layernorm: { weight: [width] },
      self_attn: {
        q_proj: linearShapes(width, queries, biases.qkv),
        k_proj: linearShapes(width, keys, biases.qkv),
        v_proj: linearShapes(width, keys, biases.qkv),
        o_proj: linearShapes(queries, width, biases.out),
        ...(headNorms ? { q_norm: { weight: [headDim] }, k_norm: { weight: [headDim] } } : {}),
      },
      post_attention_layernorm: { weight: [width] },
      mlp: {
        gate_proj: linearShapes(width, innerWidth, biases.mlp),
        up_proj: linearShapes(width, innerWidth, biases.mlp),
        down_proj: linearShapes(innerWidth, width, biases.mlp),
      },
    })),
    norm: { weight: [width] },
    ...(tiedHead ? {} : { lm_head: { weight: [vocabSize, width] } }),
  };
}

function architecture(config: LlamaConfig, name: LlamaType): Architecture<LlamaParams> {
  const { heads, kvHeads, headDim, eps } = config;
  return {
    name,
    sizes: config,
    layers: config.layers,
    kvHeads,
    headDim,
    windows: config.windows,
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
          const normed = (y: Value, norm?: { readonly weight: Leaf }) => norm ? rmsNorm(y, norm.weight, eps) : y;
          const q = rope(normed(project(self_attn.q_proj, heads), self_attn.q_norm), angles);
          const k = rope(normed(project(self_attn.k_proj, kvHeads), self_attn.k_norm), angles);
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

/** A Llama, Mistral, Qwen2 or Qwen3 over parameters that are already there. */
export function makeLlama(
  config: LlamaConfig,
  params: LlamaParams,
  name: LlamaType = "llama",
): LayeredModel<LlamaParams> {
  return languageModel(architecture(config, name), params);
}

const loader = (modelType: LlamaType): Loader<LlamaParams> =>
  loaderOf({
    modelType,
    check: llamaConfig,
    read: (given, source) => {
      const config = configOfWeights(given, source, { embedding: "embed_tokens.weight", tied: false });
      const sizes = llamaConfig(config);
      return {
        config,
        shapes: llamaShapes(sizes),
        make: (params) => makeLlama(sizes, params as LlamaParams, modelType),
        // Buffers of old files; a tied head that was written all the same.
        ignore: [/rotary_emb\.inv_freq$/, ...(sizes.tiedHead ? [/^lm_head\.weight$/] : [])],
      };
    },
  });

/** How a Llama is loaded: `await llama.load("path/to/model", { device })`. */
export const llama: Loader<LlamaParams> = loader("llama");
/** How a Mistral is loaded. */
export const mistral: Loader<LlamaParams> = loader("mistral");
/** How a Qwen2 or Qwen2.5 is loaded. */
export const qwen2: Loader<LlamaParams> = loader("qwen2");
/** How a Qwen3 is loaded. */
export const qwen3: Loader<LlamaParams> = loader("qwen3");
