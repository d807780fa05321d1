/** Writes a whole model, such as one with an adapter merged in, as a folder that Hugging Face's libraries and `loadModel` read. */

import type { HostTensor, Tensor } from "../core/tensor.ts";
import { flatten } from "../core/tree.ts";
import { read } from "../kernels/jit.ts";
import type { LoadedModel } from "../models/loader.ts";
import { writeFileAtomic } from "../models/load/atomic_file.ts";
import { writeSafetensors } from "../models/load/safetensors.ts";
import type { TokenizerFiles } from "../models/load/tokenizer.ts";

const dtypeNames: Record<string, string> = { f32: "float32", f16: "float16", bf16: "bfloat16" };

/**
 * Saves `params` (by default the model's own) with the model's configuration and tokenizer: config.json, model.safetensors,
 * tokenizer.json, tokenizer_config.json. Weights are written in the dtypes they are held in.
 *
 * @throws {FileError} when the folder can't be written
 */
export async function saveModel<P>(folder: string, model: LoadedModel<P>, params: P = model.params): Promise<void> {
  const { leaves, paths } = flatten<Tensor>(params);
  const contents: HostTensor[] = await read(leaves);
  const tensors = new Map(contents.map((tensor, i) => [model.hubName(paths[i]), tensor]));
  writeSafetensors(`${folder}/model.safetensors`, tensors);
  writeJson(`${folder}/config.json`, {
    ...model.config.raw,
    // Merging into one use of a tied weight splits it.
    tie_word_embeddings: !paths.includes("lm_head.weight"),
    dtype: dtypeNames[contents.reduce((a, b) => b.data.length > a.data.length ? b : a).dtype],
  });
  writeTokenizer(folder, model.tokenizer().files);
}

function writeTokenizer(folder: string, { tokenizer, config, chatTemplate }: TokenizerFiles): void {
  writeJson(`${folder}/tokenizer.json`, tokenizer);
  writeJson(`${folder}/tokenizer_config.json`, {
    ...config,
    ...(chatTemplate !== undefined && { chat_template: chatTemplate }),
  });
}

function writeJson(path: string, value: unknown): void {
  writeFileAtomic(path, [new TextEncoder().encode(JSON.stringify(value, null, 2) + "\n")]);
}
