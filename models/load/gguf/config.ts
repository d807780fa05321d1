import { FileError } from "../../../core/errors.ts";
import type { GgufNames, GgufOwnKey, SizeKeys } from "../../families/family.ts";
import { type ModelConfig, parseConfig } from "../config.ts";
import { type GgufValue, oneForAllLayers } from "./gguf.ts";
import type { GgufSource } from "./source.ts";
import { ggufFamily } from "./names.ts";
import { ggufSpecialIds } from "./tokenizer.ts";

/** A key of a file: its value, what takes its place, or a refusal. */
type Key = (name: string) => GgufValue | undefined;

/** Where a file says the sizes that every architecture has. */
export const ggufSizes = ({ norm }: Pick<GgufNames, "norm">): Readonly<Record<keyof SizeKeys, string>> => ({
  width: "embedding_length",
  layers: "block_count",
  heads: "attention.head_count",
  kvHeads: "attention.head_count_kv",
  headDim: "attention.key_length",
  inner: "feed_forward_length",
  context: "context_length",
  eps: norm === "rms" ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon",
});

/**
 * The Hugging Face configuration that a GGUF's metadata stands for; what a key means, and its absence, is in `keys.ts`.
 * The head is tied where the file has no `output.weight`; biases are there where their tensors are.
 */
export function configFromGguf(source: GgufSource): ModelConfig {
  const architecture = source.metadata.get("general.architecture") as string;
  const { modelType, keys, defaults, gguf } = ggufFamily(architecture)!, { keys: own = {} } = gguf;
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
    model_type: modelType,
    vocab_size: embedding.shape[0],
    tie_word_embeddings: !source.tensors.has("output.weight"),
    bos_token_id: ids.bos,
    eos_token_id: ids.ends.length > 1 ? ids.ends : ids.eos,
    pad_token_id: ids.padding,
  };
  const even = Number(width) / Number(heads);
  const headWidth = key("attention.key_length") ?? even;
  const demand = (name: string, absent: GgufValue, expected: GgufValue) => {
    if (Object.hasOwn(own, name)) return; // the architecture's own affair
    const given = key(name), value = given ?? absent;
    if (value === expected) return;
    throw new FileError(
      `${source.path} ${
        given === undefined ? `has no ${architecture}.${name}, so it is` : `says ${architecture}.${name} is`
      } ` +
        `${value}, where only ${expected} can be built: choose another file of the model.`,
    );
  };
  // Heads of values, and what is rotated of a head, are as wide as heads of keys in every architecture that is read.
  demand("attention.value_length", even, headWidth);
  if (keys.headDim === undefined) demand("attention.key_length", even, even);
  if (keys.kvHeads === undefined) demand("attention.head_count_kv", heads, heads);
  if (gguf.rotary) demand("rope.dimension_count", headWidth, headWidth);
  const absent: Partial<Record<keyof SizeKeys, GgufValue | null>> = {
    kvHeads: heads,
    headDim: headWidth,
    ...(defaults.inner !== undefined && { inner: null }),
  };
  const names = ggufSizes(gguf);
  const sizes = Object.fromEntries((Object.entries(keys) as [keyof SizeKeys, string][]).map(([size, hub]) => {
    const name = names[size];
    return [hub, size in absent ? key(name) ?? absent[size] : need(name)];
  }));
  const ownValue = (name: string, { absent, read }: GgufOwnKey): unknown => {
    const given = source.metadata.get(`${architecture}.${name}`);
    if (given === undefined) return absent === undefined ? need(name) : absent;
    return read === undefined ? key(name) : read(given, sizes);
  };
  return parseConfig({
    ...common,
    ...sizes,
    ...Object.fromEntries(Object.entries(own).map(([name, row]) => [row.config, ownValue(name, row)])),
    ...gguf.config({ has: (tensor) => source.tensors.has(tensor) }),
    ...(gguf.rotary && { rope_parameters: ropeParameters(source, architecture, key, Number(headWidth)) }),
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
  const given = key("rope.scaling.factor") ?? key("rope.scale_linear") ?? 1;
  if (typeof given !== "number" || !(given >= 0) || given === Infinity) {
    throw new FileError(
      `${source.path} says ${architecture}.rope.scaling.factor is ${given}, where a positive number is expected: download ` +
        `it again; it is damaged.`,
    );
  }
  const factor = type === "none" || given === 0 ? 1 : given;
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
