/** OLMo 2: OLMo team 2025, "2 OLMo 2 Furious". A part is normed after it, and queries and keys whole. */
import { attentionBiases, type BlockParams, blocks, type BlockSizes, type Scale } from "./block.ts";
import { decoder, type DecoderFamily } from "./language_model.ts";
import type { Linear } from "./layers.ts";
import { common, gguf, rotaryEverywhere } from "./llama.ts";

/** One block. D is the width, F the feed-forward width, Q = heads · headDim, K = kvHeads · headDim. */
export interface Olmo2Layer {
  /** `q_proj` [Q, D], `k_proj` and `v_proj` [K, D], `o_proj` [D, Q]; `q_norm` [Q], `k_norm` [K]. */
  readonly self_attn: {
    readonly q_proj: Linear;
    readonly k_proj: Linear;
    readonly v_proj: Linear;
    readonly o_proj: Linear;
    readonly q_norm: Scale;
    readonly k_norm: Scale;
  };
  /** [D], after attention. */
  readonly post_attention_layernorm: Scale;
  /** `gate_proj` and `up_proj` [F, D], `down_proj` [D, F]. */
  readonly mlp: { readonly gate_proj: Linear; readonly up_proj: Linear; readonly down_proj: Linear };
  /** [D], after the feed-forward part. */
  readonly post_feedforward_layernorm: Scale;
}

const { attn_norm: _attn_norm, ffn_norm: _ffn_norm, ...inside } = gguf.inside;

/** OLMo 2. */
export const olmo2: DecoderFamily<BlockParams<Olmo2Layer>, BlockSizes> = decoder({
  ...common,
  ...blocks({
    norms: { afterAttention: "post_attention_layernorm", afterMlp: "post_feedforward_layernorm" },
    queryNorms: "whole",
    gate: "silu",
  }),
  modelType: "olmo2",
  models: "OLMo 2",
  own: "norms after each part, not before; queries and keys normalised whole",
  className: "Olmo2ForCausalLM",
  defaults: { context: 2048, eps: 1e-5 },
  gguf: {
    ...gguf,
    name: "olmo2",
    inside: {
      ...inside,
      attn_q_norm: "self_attn.q_norm",
      attn_k_norm: "self_attn.k_norm",
      post_attention_norm: "post_attention_layernorm",
      post_ffw_norm: "post_feedforward_layernorm",
    },
  },
  sizes: (config, sizes) => ({ ...sizes, rotary: rotaryEverywhere(config, sizes), biases: attentionBiases(config) }),
});
