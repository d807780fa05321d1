import { FileError } from "../../../core/errors.ts";
import { type ModelConfig, parseConfig } from "../config.ts";
import { type GgufValue, oneForAllLayers } from "./gguf.ts";
import type { GgufSource } from "./source.ts";
import { ggufSpecialIds } from "./tokenizer.ts";

/** A key of a file: its value, what takes its place, or a refusal. */
type Key = (name: string) => GgufValue | undefined;

/**
 * The Hugging Face configuration that a GGUF's metadata stands for; what a key means, and its absence, is in `keys.ts`.
 * The head is tied where the file has no `output.weight`; biases are there where their tensors are.
 */
export function configFromGguf(source: GgufSource): ModelConfig {
  const architecture = source.metadata.get("general.architecture") as string;
  const key: Key = (name) => oneForAllLayers(source.path, `${architecture}.${name}`, source.metadata);
  const need = (name: string): GgufValue => {
    const value = key(name);
    if (value !== undefined) return value;
    throw new FileError(`${source.path} does not say ${architecture}.${name}: download it again; it is damaged.`);
  };
  const embedding = source.tensors.get("token_embd.weight");
  if (embedding === undefined) {
    throw new FileError(
      `${source.path} has no token_embd.weight: it is not a complete model (an adapter or a part of one?).`,
    );
  }
  const tokens = source.metadata.get("tokenizer.ggml.tokens");
  if (Array.isArray(tokens) && tokens.length > embedding.shape[0]) {
    throw new FileError(
      `${source.path} has ${tokens.length} tokens, and token_embd.weight has ${
        embedding.shape[0]
      } rows: download it again, ` +
        `it is damaged.`,
    );
  }
  const ids = ggufSpecialIds(source);
  const heads = need("attention.head_count");
  const width = need("embedding_length");
  const common = {
    model_type: architecture,
    vocab_size: embedding.shape[0],
    tie_word_embeddings: !source.tensors.has("output.weight"),
    bos_token_id: ids.bos,
    eos_token_id: ids.ends.length > 1 ? ids.ends : ids.eos,
    pad_token_id: ids.padding,
  };
  const even = Number(width) / Number(heads);
  const headWidth = key("attention.key_length") ?? even;
  // Heads of values, and what is rotated of a head, are as wide as heads of keys in every architecture that is read.
  const demand = (name: string, absent: GgufValue, expected: GgufValue) => {
    const said = key(name), value = said ?? absent;
    if (value === expected) return;
    throw new FileError(
      `${source.path} ${
        said === undefined ? `has no ${architecture}.${name}, so it is` : `says ${architecture}.${name} is`
      } ` +
        `${value}, where only ${expected} can be built: choose another file of the model.`,
    );
  };
  // Heads of values, and what is rotated of a head, are as wide as heads of keys in every architecture that is read.
  demand("attention.value_length", even, headWidth);
  if (architecture === "gpt2") {
    demand("attention.key_length", even, even);
    demand("attention.head_count_kv", heads, heads);
    return parseConfig({
      ...common,
      n_embd: width,
      n_layer: need("block_count"),
      n_head: heads,
      n_inner: key("feed_forward_length") ?? null,
      n_positions: need("context_length"),
      layer_norm_epsilon: need("attention.layer_norm_epsilon"),
      activation_function: "gelu_new",
    }, source.path);
  }
  demand("rope.dimension_count", headWidth, headWidth);
  return parseConfig({
    ...common,
    hidden_size: width,
    num_hidden_layers: need("block_count"),
    num_attention_heads: heads,
    num_key_value_heads: key("attention.head_count_kv") ?? heads,
    head_dim: headWidth,
    intermediate_size: need("feed_forward_length"),
    max_position_embeddings: need("context_length"),
    rms_norm_eps: need("attention.layer_norm_rms_epsilon"),
    hidden_act: "silu",
    attention_bias: source.tensors.has("blk.0.attn_q.bias"),
    mlp_bias: source.tensors.has("blk.0.ffn_up.bias"),
    rope_parameters: ropeParameters(source, architecture, key, Number(headWidth)),
  }, source.path);
}

/** Positions are divided by the factor unless the type is `none`, also where no type is named, and by each frequency's own. */
function ropeParameters(source: GgufSource, architecture: string, key: Key, width: number): Record<string, unknown> {
  const rope_theta = key("rope.freq_base") ?? 10000;
  const type = key("rope.scaling.type") ?? "linear";
  if (type !== "linear" && type !== "none") {
    throw new FileError(
      `${source.path} says ${architecture}.rope.scaling.type is ${type}; supported: linear, none: choose another model.`,
    );
  }
  const said = key("rope.scaling.factor") ?? key("rope.scale_linear") ?? 1;
  if (typeof said !== "number" || !(said >= 0) || said === Infinity) {
    throw new FileError(
      `${source.path} says ${architecture}.rope.scaling.factor is ${said}, where a positive number is expected: bring it ` +
        `again, it is damaged.`,
    );
  }
  const factor = type === "none" || said === 0 ? 1 : said;
  const tensor = source.tensors.get("rope_freqs.weight");
  if (tensor !== undefined) {
    const shape = `[${tensor.shape}]`, expected = `[${width / 2}]`;
    if (shape !== expected) {
      throw new FileError(
        `rope_freqs.weight in ${source.path} is ${shape}, expected ${expected}: download the file again.`,
      );
    }
    return {
      rope_theta,
      rope_type: "factors",
      factors: [...source.readOwn("rope_freqs.weight")].map((f) => f * factor),
    };
  }
  return factor === 1 ? { rope_theta, rope_type: "default" } : { rope_theta, rope_type: "linear", factor };
}
