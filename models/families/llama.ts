/** Llama and its like (SmolLM2, Mistral, Qwen2, Qwen3), in Hugging Face's layout: one block, and a literal each. */
import { FileError } from "../../core/errors.ts";
import type { Leaf } from "../../core/model.ts";
import type { ModelConfig } from "../load/config.ts";
import { attentionBiases, biasesOf, type BlockParams, blocks, type BlockSizes, everywhere, noBiases } from "./block.ts";
import { type GgufModule, type GgufNames, usualKeys } from "./family.ts";
import { decoder, type DecoderFamily } from "./language_model.ts";
import { full, layerTypes, sliding, windowOf, windowsOf } from "./layer_types.ts";
import type { Linear } from "./layers.ts";
import { readRotary } from "./rotary.ts";

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

/** The weights of a Llama. */
export type LlamaParams = BlockParams<LlamaLayer>;

/** llama.cpp's names, in a file of an architecture that keeps the order of the rows of q and k. */
export const gguf = {
  norm: "rms",
  rotary: true,
  outside: { token_embd: "embed_tokens", output_norm: "norm", output: "lm_head" },
  layers: "layers",
  inside: {
    attn_norm: "input_layernorm",
    attn_q: "self_attn.q_proj",
    attn_k: "self_attn.k_proj",
    attn_v: "self_attn.v_proj",
    attn_output: "self_attn.o_proj",
    ffn_norm: "post_attention_layernorm",
    ffn_gate: "mlp.gate_proj",
    ffn_up: "mlp.up_proj",
    ffn_down: "mlp.down_proj",
  } as Record<string, GgufModule>,
  config: ({ has }) => ({
    hidden_act: "silu",
    attention_bias: has("blk.0.attn_q.bias"),
    mlp_bias: has("blk.0.ffn_up.bias"),
  }),
} as const satisfies Omit<GgufNames, "name">;

/** The same in the order of llama.cpp's own rotation. */
export const ggufOfLlama: GgufNames = {
  ...gguf,
  name: "llama",
  inside: { ...gguf.inside, attn_q: ["self_attn.q_proj", "heads"], attn_k: ["self_attn.k_proj", "kvHeads"] },
  ignore: ["rope_freqs.weight"],
};

/** What all of them have in common. */
export const common = {
  prefix: "model.",
  tables: ["embed_tokens"],
  keys: { ...usualKeys, kvHeads: "num_key_value_heads", headDim: "head_dim", eps: "rms_norm_eps" },
  only: { hidden_act: ["silu"] },
  tiedHead: false,
  mlx: "model.",
  ignore: [/rotary_emb\.inv_freq$/], // buffers of old files
} as const;

/** Where Llama's norms are: before each part. */
export const normsBefore = { beforeAttention: "input_layernorm", beforeMlp: "post_attention_layernorm" } as const;

/** Llama's block. */
export const block = blocks({ norms: normsBefore, gate: "silu" });

/** The same positions in every layer. */
export const rotaryEverywhere = (config: ModelConfig, { layers, headDim }: Pick<BlockSizes, "layers" | "headDim">) =>
  everywhere(layers, readRotary(config, headDim));

const windowed = { use_sliding_window: true, sliding_window: 5, max_window_layers: 1 };

/** Touvron et al. 2023, "LLaMA". */
export const llama: DecoderFamily<LlamaParams, BlockSizes> = decoder({
  ...common,
  ...block,
  modelType: "llama",
  models: "Llama 1 to 3.2, SmolLM, SmolLM2, TinyLlama",
  own: "optional biases",
  className: "LlamaForCausalLM",
  defaults: { context: 2048, eps: 1e-6 },
  gguf: ggufOfLlama,
  example: { attention_bias: true, mlp_bias: true, tie_word_embeddings: true },
  sizes: (config, sizes) => ({ ...sizes, rotary: rotaryEverywhere(config, sizes), biases: biasesOf(config) }),
});

/** Jiang et al. 2023, "Mistral 7B". */
export const mistral: DecoderFamily<LlamaParams, BlockSizes> = decoder({
  ...common,
  ...block,
  modelType: "mistral",
  models: "Mistral 7B and similar models",
  own: "a sliding window in every layer, if `sliding_window` says so",
  className: "MistralForCausalLM",
  defaults: { context: 131_072, eps: 1e-6 },
  gguf: ggufOfLlama,
  example: { sliding_window: 5 },
  sizes: (config, sizes) => {
    refuseMixedLayers(config, sizes.layers);
    return {
      ...sizes,
      rotary: rotaryEverywhere(config, sizes),
      biases: noBiases,
      windows: everywhere(sizes.layers, windowOf(config, 4096)),
    };
  },
});

/** Yang et al. 2024, "Qwen2". */
export const qwen2: DecoderFamily<LlamaParams, BlockSizes> = decoder({
  ...common,
  ...block,
  modelType: "qwen2",
  models: "Qwen2, Qwen2.5",
  own: "biases of q, k and v; sliding windows in the layers that use them",
  className: "Qwen2ForCausalLM",
  defaults: { context: 32_768, eps: 1e-6 },
  gguf: { ...gguf, name: "qwen2" },
  example: windowed,
  sizes: (config, sizes) => ({
    ...sizes,
    rotary: rotaryEverywhere(config, sizes),
    biases: { qkv: true, out: false, mlp: false },
    windows: qwenWindows(config, sizes.layers),
  }),
});

/** Yang et al. 2025, "Qwen3". */
export const qwen3: DecoderFamily<LlamaParams, BlockSizes> = decoder({
  ...common,
  ...blocks({ norms: normsBefore, queryNorms: "heads", gate: "silu" }),
  modelType: "qwen3",
  models: "Qwen3 (not the mixture-of-experts models)",
  own: "queries and keys normalised per head; windows as in qwen2",
  className: "Qwen3ForCausalLM",
  defaults: { context: 32_768, headDim: 128, eps: 1e-6 },
  gguf: {
    ...gguf,
    name: "qwen3",
    inside: { ...gguf.inside, attn_q_norm: "self_attn.q_norm", attn_k_norm: "self_attn.k_norm" },
  },
  example: windowed,
  sizes: (config, sizes) => ({
    ...sizes,
    rotary: rotaryEverywhere(config, sizes),
    biases: attentionBiases(config),
    windows: qwenWindows(config, sizes.layers),
  }),
});

/** Qwen's windows: none unless switched on, then in the layers that `layer_types` names, or from `max_window_layers` on. */
function qwenWindows(config: ModelConfig, layers: number): readonly (number | null)[] {
  if (!config.flag("use_sliding_window", false)) return everywhere(layers, null);
  const from = config.number("max_window_layers", 28);
  const types = layerTypes(config, layers) ?? Array.from({ length: layers }, (_, i) => i >= from ? sliding : full);
  return windowsOf(types, windowOf(config, 4096));
}

/** A Mistral whose layers differ is another architecture under that name. */
function refuseMixedLayers(config: ModelConfig, layers: number): void {
  if (new Set(layerTypes(config, layers)).size < 2) return;
  throw new FileError(
    `${config.path} mixes layers with and without a window, which a mistral does not have: this is not supported.`,
  );
}
