/** The configuration of Llama, Mistral, Qwen2 and Qwen3, and how the four differ. */
import { FileError } from "../../core/errors.ts";
import { oneOf } from "./layers.ts";
import { type ModelConfig, ropeFrequencies } from "../load/config.ts";

/** The sizes of one Llama or of its like. */
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
  /** Whether there are biases in: queries, keys and values; what attention gives; the feed-forward layers. */
  readonly biases: { readonly qkv: boolean; readonly out: boolean; readonly mlp: boolean };
  /** Whether queries and keys are normed head by head before they are rotated. */
  readonly headNorms: boolean;
  /** How many tokens back, itself among them, a token sees in each layer; null where it sees all. */
  readonly windows: readonly (number | null)[];
}

/** In what one architecture differs from the others. */
interface Dialect {
  /** The defaults of transformers' configuration, for keys that a file leaves out. */
  readonly contextLength: number;
  readonly headDim?: number;
  readonly biases: (config: ModelConfig) => LlamaConfig["biases"];
  readonly headNorms: boolean;
  readonly windows: (config: ModelConfig, layers: number) => readonly (number | null)[];
}

const everywhere = <T>(layers: number, value: T): readonly T[] => Array.from({ length: layers }, () => value);

/** The architectures that are computed as a Llama is, as configurations name them. */
export type LlamaType = "llama" | "mistral" | "qwen2" | "qwen3";

/** Sources: Touvron et al. 2023, "LLaMA"; Jiang et al. 2023, "Mistral 7B"; Yang et al., "Qwen2" 2024 and "Qwen3" 2025. */
const dialects: Readonly<Record<LlamaType, Dialect>> = {
  llama: {
    contextLength: 2048,
    biases: (config) => {
      const attention = config.flag("attention_bias", false);
      return { qkv: attention, out: attention, mlp: config.flag("mlp_bias", false) };
    },
    headNorms: false,
    windows: (_, layers) => everywhere(layers, null),
  },
  mistral: {
    contextLength: 131_072,
    biases: () => ({ qkv: false, out: false, mlp: false }),
    headNorms: false,
    windows: (config, layers) => {
      refuseMixedLayers(config);
      return everywhere(layers, config.raw.sliding_window === null ? null : config.integer("sliding_window", 4096));
    },
  },
  qwen2: {
    contextLength: 32_768,
    biases: () => ({ qkv: true, out: false, mlp: false }),
    headNorms: false,
    windows: qwenWindows,
  },
  qwen3: {
    contextLength: 32_768,
    headDim: 128,
    biases: (config) => {
      const attention = config.flag("attention_bias", false);
      return { qkv: attention, out: attention, mlp: false };
    },
    headNorms: true,
    windows: qwenWindows,
  },
};

/** Reads the sizes out of a configuration. Throws a {@link FileError} for what is not supported here. */
export function llamaConfig(config: ModelConfig): LlamaConfig {
  const dialect: Dialect = dialects[config.modelType as LlamaType];
  oneOf(config, "hidden_act", ["silu"], "silu");
  const width = config.integer("hidden_size");
  const heads = config.integer("num_attention_heads");
  const kvHeads = config.integer("num_key_value_heads", heads);
  if (heads % kvHeads !== 0) {
    throw new FileError(
      `${config.path} says num_attention_heads is ${heads} and num_key_value_heads ${kvHeads}: the second must divide ` +
        `the first.`,
    );
  }
  const headDim = config.integer("head_dim", dialect.headDim ?? Math.floor(width / heads));
  const layers = config.integer("num_hidden_layers");
  return {
    vocabSize: config.integer("vocab_size"),
    contextLength: config.integer("max_position_embeddings", dialect.contextLength),
    width,
    layers,
    heads,
    kvHeads,
    headDim,
    innerWidth: config.integer("intermediate_size"),
    eps: config.number("rms_norm_eps", 1e-6),
    inverseFrequencies: ropeFrequencies(config, headDim),
    tiedHead: config.flag("tie_word_embeddings", false),
    biases: dialect.biases(config),
    headNorms: dialect.headNorms,
    windows: dialect.windows(config, layers),
  };
}

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
