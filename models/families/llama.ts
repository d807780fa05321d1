/** Llama and its like (SmolLM2, Mistral, Qwen2, Qwen3), in Hugging Face's layout: one block, and a literal each. */
import { FileError } from "../../core/errors.ts";
import type { Leaf } from "../../core/model.ts";
import type { Value } from "../../core/ir/graph.ts";
import { swiglu } from "../../core/nn/activation.ts";
import { rmsNorm } from "../../core/nn/norm.ts";
import { rope, ropeAngles } from "../../core/nn/rope.ts";
import { reshape } from "../../core/ops/broadcast.ts";
import { add, convert } from "../../core/ops/elementwise.ts";
import { gather } from "../../core/ops/indexing.ts";
import { type ModelConfig, ropeFrequencies } from "../load/config.ts";
import type { GgufModule, GgufNames } from "./family.ts";
import { type Linear, linear, linearShapes } from "./layers.ts";
import { decoder, type DecoderFamily, type DecoderSizes, type Layers } from "./language_model.ts";

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

/** The sizes of one Llama or of its like. */
export interface LlamaConfig extends DecoderSizes {
  /** Radians per token, [headDim / 2]. */
  readonly inverseFrequencies: ArrayLike<number>;
  /** Whether there are biases in: queries, keys and values; what attention gives; the feed-forward layers. */
  readonly biases: { readonly qkv: boolean; readonly out: boolean; readonly mlp: boolean };
  /** Whether queries and keys are normed head by head before they are rotated. */
  readonly headNorms: boolean;
  /** How many tokens back, itself among them, a token sees in each layer; null where it sees all. */
  readonly windows: readonly (number | null)[];
}

function shapes(config: LlamaConfig): Record<string, unknown> {
  const { vocabSize, width, layers, innerWidth, biases, headDim, headNorms } = config;
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
  };
}

function layers({ heads, kvHeads, headDim, eps, inverseFrequencies }: LlamaConfig): Layers<LlamaParams> {
  return {
    start: (params, inputIds, positions) => {
      const angles = ropeAngles(positions, inverseFrequencies);
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
  };
}

const everywhere = <T>(layers: number, value: T): readonly T[] => Array.from({ length: layers }, () => value);

/** llama.cpp's names, in a file of an architecture that keeps the order of the rows of q and k. */
const gguf = {
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
const ggufOfLlama: GgufNames = {
  ...gguf,
  name: "llama",
  inside: { ...gguf.inside, attn_q: ["self_attn.q_proj", "heads"], attn_k: ["self_attn.k_proj", "kvHeads"] },
  ignore: ["rope_freqs.weight"],
};

/** What all of them have in common. */
const common = {
  prefix: "model.",
  tables: ["embed_tokens"],
  keys: {
    width: "hidden_size",
    layers: "num_hidden_layers",
    heads: "num_attention_heads",
    kvHeads: "num_key_value_heads",
    headDim: "head_dim",
    inner: "intermediate_size",
    context: "max_position_embeddings",
    eps: "rms_norm_eps",
  },
  only: { hidden_act: ["silu"] },
  tiedHead: false,
  mlx: "model.",
  ignore: [/rotary_emb\.inv_freq$/], // buffers of old files
  shapes,
  layers,
} as const;

const windowed = { use_sliding_window: true, sliding_window: 5, max_window_layers: 1 };

/** Touvron et al. 2023, "LLaMA". */
export const llama: DecoderFamily<LlamaParams, LlamaConfig> = decoder({
  ...common,
  modelType: "llama",
  models: "Llama 1 to 3.2, SmolLM, SmolLM2, TinyLlama",
  own: "rope scaling `linear` and `llama3`, optional biases",
  className: "LlamaForCausalLM",
  defaults: { context: 2048, eps: 1e-6 },
  gguf: ggufOfLlama,
  example: { attention_bias: true, mlp_bias: true, tie_word_embeddings: true },
  sizes: (config, sizes) => {
    const attention = config.flag("attention_bias", false);
    return {
      ...sizes,
      inverseFrequencies: ropeFrequencies(config, sizes.headDim),
      biases: { qkv: attention, out: attention, mlp: config.flag("mlp_bias", false) },
      headNorms: false,
      windows: everywhere(sizes.layers, null),
    };
  },
});

/** Jiang et al. 2023, "Mistral 7B". */
export const mistral: DecoderFamily<LlamaParams, LlamaConfig> = decoder({
  ...common,
  modelType: "mistral",
  models: "Mistral 7B and similar models",
  own: "a sliding window in every layer, if `sliding_window` says so",
  className: "MistralForCausalLM",
  defaults: { context: 131_072, eps: 1e-6 },
  gguf: ggufOfLlama,
  example: { sliding_window: 5 },
  sizes: (config, sizes) => {
    refuseMixedLayers(config);
    const window = config.raw.sliding_window === null ? null : config.integer("sliding_window", 4096);
    return {
      ...sizes,
      inverseFrequencies: ropeFrequencies(config, sizes.headDim),
      biases: { qkv: false, out: false, mlp: false },
      headNorms: false,
      windows: everywhere(sizes.layers, window),
    };
  },
});

/** Yang et al. 2024, "Qwen2". */
export const qwen2: DecoderFamily<LlamaParams, LlamaConfig> = decoder({
  ...common,
  modelType: "qwen2",
  models: "Qwen2, Qwen2.5",
  own: "biases of q, k and v; sliding windows in the layers that use them",
  className: "Qwen2ForCausalLM",
  defaults: { context: 32_768, eps: 1e-6 },
  gguf: { ...gguf, name: "qwen2" },
  example: windowed,
  sizes: (config, sizes) => ({
    ...sizes,
    inverseFrequencies: ropeFrequencies(config, sizes.headDim),
    biases: { qkv: true, out: false, mlp: false },
    headNorms: false,
    windows: qwenWindows(config, sizes.layers),
  }),
});

/** Yang et al. 2025, "Qwen3". */
export const qwen3: DecoderFamily<LlamaParams, LlamaConfig> = decoder({
  ...common,
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
  sizes: (config, sizes) => {
    const attention = config.flag("attention_bias", false);
    return {
      ...sizes,
      inverseFrequencies: ropeFrequencies(config, sizes.headDim),
      biases: { qkv: attention, out: attention, mlp: false },
      headNorms: true,
      windows: qwenWindows(config, sizes.layers),
    };
  },
});

/** Qwen's windows: none unless switched on, then in the layers that `layer_types` names, or from `max_window_layers` on. */
function qwenWindows(config: ModelConfig, layers: number): readonly (number | null)[] {
  if (!config.flag("use_sliding_window", false)) return everywhere(layers, null);
  const window = config.raw.sliding_window === null ? null : config.integer("sliding_window", 4096);
  const types = layerTypes(config);
  if (types !== null && types.length !== layers) {
    throw new FileError(`${config.path} names ${types.length} layer_types for ${layers} layers: download it again.`);
  }
  const from = config.number("max_window_layers", 28);
  return everywhere(layers, window).map((w, i) => (types?.[i] ?? kinds[Number(i >= from)]) === kinds[1] ? w : null);
}

const kinds = ["full_attention", "sliding_attention"];

/** The kind of each layer's attention, where the file says it. */
function layerTypes(config: ModelConfig): readonly string[] | null {
  const types = config.raw.layer_types ?? null;
  if (types === null) return null;
  const other = Array.isArray(types) ? types.find((type) => !kinds.includes(type)) : types;
  if (other === undefined) return types as string[];
  throw new FileError(
    `${config.path} asks for layer_types of ${JSON.stringify(other)}; supported: ${kinds.join(", ")}.`,
  );
}

/** A Mistral whose layers differ is another architecture under that name. */
function refuseMixedLayers(config: ModelConfig): void {
  if (new Set(layerTypes(config)).size < 2) return;
  throw new FileError(
    `${config.path} mixes layers with and without a window, which a mistral does not have: this is not supported.`,
  );
}
