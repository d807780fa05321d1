/** The small base model of the letters: its sizes, its first weights, its files. */
import { sizeOf } from "../core/aval.ts";
import { toF16 } from "../core/dtype.ts";
import { type HostTensor, type TensorHome, upload } from "../core/tensor.ts";
import { flatten } from "../core/tree.ts";
import { gpt2, type Gpt2Config, type Gpt2Params } from "../models/families/gpt2.ts";
import { writeFileAtomic } from "../models/load/files/atomic_file.ts";
import { writeSafetensors } from "../models/load/safetensors/safetensors.ts";
import { byteTokenizerConfig, byteTokenizerFile, END_OF_TEXT } from "../data/byte_tokenizer.ts";
import { type Rng, rngFrom } from "../data/rng.ts";

/** 1.9 million parameters: as f16 they stay below 4 MB. */
export const letterModel: Gpt2Config = {
  vocabSize: 257,
  contextLength: 256,
  width: 192,
  layers: 4,
  heads: 6,
  kvHeads: 6,
  headDim: 32,
  innerWidth: 768,
  activation: "gelu_new",
  eps: 1e-5,
  tiedHead: true,
};

/** A letter as a message of the user, in the form of `letterPrompt`; the answer follows. */
export const letterTemplate = "{% for message in messages %}" +
  "{% if message.role == 'user' %}{{ message.content | trim }}\n> {% else %}{{ message.content }}{% endif %}" +
  "{% endfor %}";

/** Host tensors by their paths in a tree. */
export type Weights = Map<string, HostTensor>;

/**
 * The weights before training, as GPT-2's (Radford et al. 2019, section 2.3): matrices from N(0, 0.02²), those that end a
 * residual branch divided by √(2 layers); biases 0, norms 1.
 */
export function initialWeights(config: Gpt2Config, seed: number): Weights {
  const { paths, leaves } = shapeTree(config);
  return new Map(paths.map((path, i) => {
    const shape = leaves[i];
    const data = new Float32Array(sizeOf(shape));
    if (shape.length > 1) {
      const scale = path.endsWith("c_proj.weight") ? 0.02 / Math.sqrt(2 * config.layers) : 0.02;
      fillNormal(data, scale, rngFrom(seed, i));
    } else if (/\.?ln_\w+\.weight$/.test(path)) data.fill(1);
    return [path, { shape, dtype: "f32", data }];
  }));
}

function shapeTree(config: Gpt2Config) {
  return flatten<number[]>(gpt2.shapes(config), (x) => Array.isArray(x) && typeof x[0] === "number");
}

/** Normal numbers by Box and Muller's transform. */
function fillNormal(data: Float32Array, scale: number, rng: Rng): void {
  for (let i = 0; i < data.length; i++) {
    data[i] = scale * Math.sqrt(-2 * Math.log(1 - rng.next())) * Math.cos(2 * Math.PI * rng.next());
  }
}

/** Puts weights on a device, in the tree of the model's parameters. */
export function toDevice(config: Gpt2Config, weights: Weights, home: TensorHome): Gpt2Params {
  const flat = shapeTree(config);
  return flat.unflatten(flat.paths.map((path) => upload(home, weights.get(path)!))) as Gpt2Params;
}

/** Writes the model's folder in Hugging Face's layout, weights as f16. */
export function writeLetterModel(folder: string, config: Gpt2Config, weights: Weights): void {
  const halves = new Map([...weights].map(([path, { shape, data }]) => {
    return [path, { shape, dtype: "f16", data: Uint16Array.from(data, toF16) } as HostTensor];
  }));
  writeSafetensors(`${folder}/model.safetensors`, halves);
  writeJson(`${folder}/config.json`, {
    architectures: ["GPT2LMHeadModel"],
    model_type: "gpt2",
    activation_function: config.activation,
    ...{ vocab_size: config.vocabSize, n_positions: config.contextLength },
    ...{ n_embd: config.width, n_layer: config.layers, n_head: config.heads, n_inner: config.innerWidth },
    layer_norm_epsilon: config.eps,
    initializer_range: 0.02,
    tie_word_embeddings: config.tiedHead,
    ...{ bos_token_id: END_OF_TEXT.id, eos_token_id: END_OF_TEXT.id, pad_token_id: END_OF_TEXT.id },
    dtype: "float16",
  });
  writeJson(`${folder}/tokenizer.json`, byteTokenizerFile());
  writeJson(`${folder}/tokenizer_config.json`, { ...byteTokenizerConfig(), chat_template: letterTemplate });
}

function writeJson(path: string, value: unknown): void {
  writeFileAtomic(path, JSON.stringify(value, null, 2) + "\n");
}
