import { FileError } from "../../core/errors.ts";
import { type ModelConfig, parseConfig } from "./config.ts";
import type { GgufValue } from "./gguf.ts";
import type { GgufSource } from "./gguf_source.ts";

/**
 * The Hugging Face configuration that a GGUF's metadata stands for (keys: ggml docs/gguf.md). The head is tied where the file
 * has no `output.weight`; biases are there where their tensors are.
 */
export function configFromGguf(source: GgufSource): ModelConfig {
  const architecture = source.metadata.get("general.architecture") as string;
  const key = (name: string): GgufValue | undefined => source.metadata.get(`${architecture}.${name}`);
  const need = (name: string): GgufValue => {
    const value = key(name);
    if (value !== undefined) return value;
    throw new FileError(`${source.path} does not say ${architecture}.${name}: bring it again, it is damaged.`);
  };
  const embedding = source.tensors.get("token_embd.weight");
  if (embedding === undefined) {
    throw new FileError(
      `${source.path} has no token_embd.weight: it is no whole model (an adapter or a part of one?).`,
    );
  }
  const common = {
    model_type: architecture,
    vocab_size: embedding.shape[0],
    tie_word_embeddings: !source.tensors.has("output.weight"),
    bos_token_id: source.metadata.get("tokenizer.ggml.bos_token_id") ?? null,
    eos_token_id: source.metadata.get("tokenizer.ggml.eos_token_id") ?? null,
    pad_token_id: source.metadata.get("tokenizer.ggml.padding_token_id") ?? null,
  };
  if (architecture === "gpt2") {
    return parseConfig({
      ...common,
      n_embd: need("embedding_length"),
      n_layer: need("block_count"),
      n_head: need("attention.head_count"),
      n_inner: key("feed_forward_length") ?? null,
      n_positions: need("context_length"),
      layer_norm_epsilon: need("attention.layer_norm_epsilon"),
      activation_function: "gelu_new",
    }, source.path);
  }
  const heads = need("attention.head_count");
  return parseConfig({
    ...common,
    hidden_size: need("embedding_length"),
    num_hidden_layers: need("block_count"),
    num_attention_heads: heads,
    num_key_value_heads: key("attention.head_count_kv") ?? heads,
    head_dim: key("attention.key_length") ?? key("rope.dimension_count") ?? null,
    intermediate_size: need("feed_forward_length"),
    max_position_embeddings: need("context_length"),
    rms_norm_eps: need("attention.layer_norm_rms_epsilon"),
    hidden_act: "silu",
    attention_bias: source.tensors.has("blk.0.attn_q.bias"),
    mlp_bias: source.tensors.has("blk.0.ffn_up.bias"),
    rope_parameters: ropeParameters(source, key),
  }, source.path);
}

function ropeParameters(source: GgufSource, key: (name: string) => GgufValue | undefined): Record<string, unknown> {
  const rope_theta = key("rope.freq_base") ?? 10000;
  if (source.tensors.has("rope_freqs.weight")) {
    return { rope_theta, rope_type: "factors", factors: [...source.readOwn("rope_freqs.weight")] };
  }
  const type = key("rope.scaling.type") ?? "none";
  if (type === "none") return { rope_theta, rope_type: "default" };
  return { rope_theta, rope_type: type, factor: key("rope.scaling.factor") };
}
