/** Models as GGUF files of f32 that llama.cpp itself opens. They have no tokenizer, and say so. */
import { openSafetensors } from "../../models/load/safetensors/safetensors.ts";
import { ggufFamily, ggufModules } from "../../models/load/gguf/names.ts";
import type { GgufValue } from "../../models/load/gguf/gguf.ts";
import { openGguf } from "../../models/load/gguf/source.ts";
import { f32Tensor, makeGguf, type Meta, type RawTensor } from "../../testing/make_gguf.ts";

const cases = `${import.meta.dirname}/../goldens/cases`;
const noTokenizer: Record<string, Meta> = { "tokenizer.ggml.model": { text: "none" } };

/** The tiny Llama of the goldens. */
export function tinyLlama(): Uint8Array {
  return asF32(`${cases}/llama-gguf/llama-F32.gguf`);
}

/**
 * A GGUF model with every weight as f32; `more` are further keys, null for one to leave out, and `factors` gives each
 * frequency of its positions one of its own.
 */
export function asF32(path: string, more: Readonly<Record<string, Meta | null>> = {}, factors = false): Uint8Array {
  using source = openGguf(path);
  const kept = [...source.metadata].filter(([key]) => key.startsWith("general.architecture") || /^llama\./.test(key));
  const asMeta = (key: string, value: GgufValue): Meta =>
    typeof value === "string"
      ? { text: value }
      : /eps|freq/.test(key)
      ? { f32: value as number }
      : { u32: value as number };
  const tensors: [string, RawTensor][] = [...source.tensors].map((
    [name, { shape }],
  ) => [name, f32Tensor(shape, source.readOwn(name))]);
  const width = source.metadata.get("llama.rope.dimension_count") as number;
  if (factors) {
    tensors.push([
      "rope_freqs.weight",
      f32Tensor([width / 2], Array.from({ length: width / 2 }, (_, i) => 1 + i / 2)),
    ]);
  }
  const vocabulary = { "llama.vocab_size": { u32: source.tensors.get("token_embd.weight")!.shape[0] } };
  const own = Object.fromEntries(kept.map(([key, value]) => [key, asMeta(key, value)]));
  const metadata: Record<string, Meta | null> = { ...own, ...vocabulary, ...noTokenizer, ...more };
  const said = Object.entries(metadata).flatMap(([key, value]) => value === null ? [] : [[key, value] as const]);
  return makeGguf(Object.fromEntries(said), Object.fromEntries(tensors));
}

/** The tiny GPT-2, made as llama.cpp's converter makes one: matrices [out, in]. */
export function tinyGpt2(): Uint8Array {
  const config = JSON.parse(Deno.readTextFileSync(`${cases}/gpt2-base/model/config.json`));
  using source = openSafetensors(`${cases}/gpt2-base/model/model.safetensors`);
  const tensors: Record<string, RawTensor> = {};
  for (const [module, { tensor, layout }] of ggufModules(ggufFamily("gpt2")!, config.n_layer)) {
    for (const part of ["weight", "bias"]) {
      const name = `${module}.${part}`;
      if (!source.names.includes(name)) continue;
      const { shape, data } = source.read(name, "f32");
      const turn = layout === "transposed" && shape.length === 2;
      const [rows, columns] = shape;
      const values = turn ? Float32Array.from(data, (_, i) => data[(i % rows) * columns + Math.floor(i / rows)]) : data;
      tensors[tensor.replace(/weight$/, part)] = f32Tensor(turn ? [columns, rows] : shape, values);
    }
  }
  return makeGguf({
    "general.architecture": { text: "gpt2" },
    "gpt2.block_count": { u32: config.n_layer },
    "gpt2.context_length": { u32: config.n_positions },
    "gpt2.embedding_length": { u32: config.n_embd },
    "gpt2.feed_forward_length": { u32: config.n_inner ?? 4 * config.n_embd },
    "gpt2.attention.head_count": { u32: config.n_head },
    "gpt2.attention.layer_norm_epsilon": { f32: config.layer_norm_epsilon },
    "gpt2.vocab_size": { u32: config.vocab_size },
    ...noTokenizer,
  }, tensors);
}
