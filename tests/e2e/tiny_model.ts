/** A GPT-2-architecture model small enough to be made in every test: 1 layer, width 16, 64 positions, 257 byte tokens. */
import { writeSafetensors } from "../../models/load/safetensors/safetensors.ts";
import type { HostTensor } from "../../core/tensor.ts";
import { sizeOf } from "../../core/aval.ts";
import { byteTokenizerConfig, byteTokenizerFile } from "../../data/byte_tokenizer.ts";
import { rngFrom } from "../../data/rng.ts";

const [width, positions, vocabulary] = [16, 64, 257];

/** The configuration, in config.json's words. */
const tinyConfig: Record<string, unknown> = {
  model_type: "gpt2",
  architectures: ["GPT2LMHeadModel"],
  n_embd: width,
  n_head: 2,
  n_layer: 1,
  n_positions: positions,
  vocab_size: vocabulary,
  layer_norm_epsilon: 1e-5,
  activation_function: "gelu_new",
  tie_word_embeddings: true,
  eos_token_id: 256,
};

/** The shapes of its weights, or of those of a wider one. */
export function tinyShapes(width: number, vocabulary: number): Record<string, number[]> {
  return {
    "wte.weight": [vocabulary, width],
    "wpe.weight": [positions, width],
    "h.0.ln_1.weight": [width],
    "h.0.ln_1.bias": [width],
    "h.0.attn.c_attn.weight": [width, 3 * width],
    "h.0.attn.c_attn.bias": [3 * width],
    "h.0.attn.c_proj.weight": [width, width],
    "h.0.attn.c_proj.bias": [width],
    "h.0.ln_2.weight": [width],
    "h.0.ln_2.bias": [width],
    "h.0.mlp.c_fc.weight": [width, 4 * width],
    "h.0.mlp.c_fc.bias": [4 * width],
    "h.0.mlp.c_proj.weight": [4 * width, width],
    "h.0.mlp.c_proj.bias": [width],
    "ln_f.weight": [width],
    "ln_f.bias": [width],
  };
}

/** What to make wrong: entries of the configuration, and the weights themselves. */
export interface TinyModelEdits {
  readonly config?: Record<string, unknown>;
  /** Given all tensors by name, changes them in place. */
  readonly weights?: (tensors: Map<string, HostTensor>) => void;
}

/** Writes the model into `folder`, as transformers would. */
export async function writeTinyModel(folder: string, edits: TinyModelEdits = {}): Promise<void> {
  await Deno.mkdir(folder, { recursive: true });
  const rng = rngFrom(1);
  const tensors = new Map(
    Object.entries(tinyShapes(width, vocabulary)).map(([name, shape]) => [name, randomTensor(shape, rng.next)]),
  );
  edits.weights?.(tensors);
  writeSafetensors(`${folder}/model.safetensors`, tensors);
  await writeJson(`${folder}/config.json`, { ...tinyConfig, ...edits.config });
  await writeJson(`${folder}/tokenizer.json`, byteTokenizerFile());
  await writeJson(`${folder}/tokenizer_config.json`, byteTokenizerConfig());
}

/** Values between -0.1 and 0.1. */
function randomTensor(shape: readonly number[], next: () => number): HostTensor {
  const data = Float32Array.from({ length: sizeOf(shape) }, () => 0.2 * next() - 0.1);
  return { dtype: "f32", shape, data };
}

async function writeJson(path: string, value: unknown): Promise<void> {
  await Deno.writeTextFile(path, JSON.stringify(value, null, 2));
}
