/** Gemma 2 and 3, of text: norms before and after each part, windows in most layers, bounds on scores and logits. */
import type { ModelConfig } from "../load/config.ts";
import { isObject } from "../load/config.ts";
import { attentionBiases, type BlockParams, blocks, type BlockSizes, type BlockTraits, type Scale } from "./block.ts";
import type { GgufModule, GgufNames } from "./family.ts";
import { decoder, type DecoderFamily, type DecoderSizes } from "./language_model.ts";
import { full, layerTypes, sliding, windowOf, windowsOf } from "./layer_types.ts";
import type { Linear } from "./layers.ts";
import { common, gguf, rotaryEverywhere } from "./llama.ts";
import { readRotary } from "./rotary.ts";

/** One block. D is the width, F the feed-forward width, Q = heads · headDim, K = kvHeads · headDim. */
export interface GemmaLayer {
  /** [D], before attention. */
  readonly input_layernorm: Scale;
  /** `q_proj` [Q, D], `k_proj` and `v_proj` [K, D], `o_proj` [D, Q]. */
  readonly self_attn: {
    readonly q_proj: Linear;
    readonly k_proj: Linear;
    readonly v_proj: Linear;
    readonly o_proj: Linear;
    /** [headDim], of Gemma 3. */
    readonly q_norm?: Scale;
    readonly k_norm?: Scale;
  };
  /** [D], after attention. */
  readonly post_attention_layernorm: Scale;
  /** [D], before the feed-forward part. */
  readonly pre_feedforward_layernorm: Scale;
  /** `gate_proj` and `up_proj` [F, D], `down_proj` [D, F]. */
  readonly mlp: { readonly gate_proj: Linear; readonly up_proj: Linear; readonly down_proj: Linear };
  /** [D], after the feed-forward part. */
  readonly post_feedforward_layernorm: Scale;
}

const block: BlockTraits = {
  norms: {
    beforeAttention: "input_layernorm",
    afterAttention: "post_attention_layernorm",
    beforeMlp: "pre_feedforward_layernorm",
    afterMlp: "post_feedforward_layernorm",
  },
  normsFromOne: true,
  gate: "gelu_pytorch_tanh",
};

const gemma = {
  ...common,
  only: { hidden_activation: ["gelu_pytorch_tanh"], use_bidirectional_attention: [false] },
  tiedHead: true,
} as const;

/** llama.cpp's names. It adds the 1 of the norms' scales itself, and has the scale of scores by the sizes. */
const ggufOfGemma = {
  ...gguf,
  outside: { ...gguf.outside, output_norm: ["norm", "fromOne"] },
  inside: {
    ...gguf.inside,
    attn_norm: ["input_layernorm", "fromOne"],
    post_attention_norm: ["post_attention_layernorm", "fromOne"],
    ffn_norm: ["pre_feedforward_layernorm", "fromOne"],
    post_ffw_norm: ["post_feedforward_layernorm", "fromOne"],
  } as Record<string, GgufModule>,
  config: ({ has }) => ({
    hidden_activation: "gelu_pytorch_tanh",
    attention_bias: has("blk.0.attn_q.bias"),
    query_pre_attn_scalar: null,
  }),
} as const satisfies Omit<GgufNames, "name">;

/** What both have in common, and differ in. */
interface Numbers {
  /** The number of layers of the one model whose scale is not by the width of its heads: a GGUF file does not say it. */
  readonly largest: number;
  /** The bounds where a file says nothing of them. */
  readonly scoreCap: number | null;
  readonly logitCap: number | null;
}

function sizesOf(
  config: ModelConfig,
  sizes: DecoderSizes,
  { largest, scoreCap, logitCap }: Numbers,
): Omit<BlockSizes, "rotary" | "windows"> {
  const { width, heads, headDim, layers } = sizes;
  const scalar = config.raw.query_pre_attn_scalar === null
    ? layers === largest ? width / heads : headDim
    : config.number("query_pre_attn_scalar", 256);
  const cap = capOf(config, "attn_logit_softcapping", scoreCap);
  return {
    ...sizes,
    biases: attentionBiases(config),
    scores: { scale: 1 / Math.sqrt(scalar), ...(cap !== null && { cap }) },
    factors: { embedding: Math.sqrt(width) },
    logitCap: capOf(config, "final_logit_softcapping", logitCap) ?? undefined,
  };
}

/** A soft bound, or null where there is none. */
function capOf({ raw, number }: ModelConfig, key: string, absent: number | null): number | null {
  const { [key]: cap = absent } = raw;
  return cap === null ? null : number(key, absent ?? undefined);
}

/** Gemma team 2024, "Gemma 2: Improving Open Language Models at a Practical Size". */
export const gemma2: DecoderFamily<BlockParams<GemmaLayer>, BlockSizes> = decoder({
  ...gemma,
  ...blocks(block),
  modelType: "gemma2",
  models: "Gemma 2",
  own: "soft bounds on scores and logits; a window in every other layer; four norms a layer",
  className: "Gemma2ForCausalLM",
  defaults: { context: 8192, headDim: 256, kvHeads: 4, eps: 1e-6 },
  gguf: {
    ...ggufOfGemma,
    name: "gemma2",
    keys: {
      "attention.sliding_window": {
        ...{ meaning: "the window of every other layer", config: "sliding_window", type: "u32", absent: 4096 },
      },
      attn_logit_softcapping: {
        ...{ meaning: "a bound on scores", config: "attn_logit_softcapping", type: "f32", absent: 50 },
      },
      final_logit_softcapping: {
        ...{ meaning: "a bound on the logits", config: "final_logit_softcapping", type: "f32", absent: 30 },
      },
    },
  },
  example: { sliding_window: 5, attn_logit_softcapping: 2, final_logit_softcapping: 4, query_pre_attn_scalar: 6 },
  sizes: (config, sizes) => {
    const types = layerTypes(config, sizes.layers) ??
      Array.from({ length: sizes.layers }, (_, i) => i % 2 === 0 ? sliding : full);
    return {
      ...sizesOf(config, sizes, { largest: 46, scoreCap: 50, logitCap: 30 }),
      rotary: rotaryEverywhere(config, sizes),
      windows: windowsOf(types, windowOf(config, 4096)),
    };
  },
});

/** Gemma team 2025, "Gemma 3 Technical Report": its models of text. */
export const gemma3: DecoderFamily<BlockParams<GemmaLayer>, BlockSizes> = decoder({
  ...gemma,
  ...blocks({ ...block, queryNorms: "heads" }),
  modelType: "gemma3_text",
  models: "Gemma 3 (270M and 1B, and the text part of the larger ones)",
  own:
    "five layers with a window to one without, each kind with positions of its own; queries and keys normalised per head",
  className: "Gemma3ForCausalLM",
  defaults: { context: 131_072, headDim: 256, kvHeads: 4, eps: 1e-6 },
  gguf: {
    ...ggufOfGemma,
    name: "gemma3",
    inside: {
      ...ggufOfGemma.inside,
      attn_q_norm: ["self_attn.q_norm", "fromOne"],
      attn_k_norm: ["self_attn.k_norm", "fromOne"],
    },
    keys: {
      "attention.sliding_window": {
        ...{ meaning: "the window of five layers of six", config: "sliding_window", type: "u32", absent: null },
      },
      "rope.freq_base_swa": {
        ...{ meaning: "θ of those layers", config: "rope_local_base_freq", type: "f32", absent: 10_000 },
      },
      final_logit_softcapping: {
        ...{ meaning: "a bound on the logits", config: "final_logit_softcapping", type: "f32", absent: null },
      },
    },
  },
  example: {
    ...{ sliding_window: 5, query_pre_attn_scalar: 6, num_hidden_layers: 6 },
    ...{ rope_local_base_freq: 100, rope_theta: 10_000, final_logit_softcapping: 4 },
  },
  sizes: (config, sizes) => {
    const { layers, headDim } = sizes;
    const pattern = config.integer("sliding_window_pattern", config.integer("_sliding_window_pattern", 6));
    const types = layerTypes(config, layers) ??
      Array.from({ length: layers }, (_, i) => (i + 1) % pattern === 0 ? full : sliding);
    const { rope_parameters: given } = config.raw;
    // An older file says what the layers without a window have, and the base of the others beside it.
    const nested = isObject(given) && (full in given || sliding in given);
    const [far, near] = nested
      ? [given[full] ?? {}, given[sliding] ?? {}]
      : [given, { rope_theta: config.number("rope_local_base_freq", 10_000) }];
    const rotary = {
      [full]: readRotary(config, headDim, { parameters: far, theta: 1_000_000 }),
      [sliding]: readRotary(config, headDim, { parameters: near }),
    };
    return {
      ...sizesOf(config, sizes, { largest: 62, scoreCap: null, logitCap: null }),
      rotary: types.map((type) => rotary[type]),
      windows: windowsOf(types, windowOf(config, 4096)),
    };
  },
});
