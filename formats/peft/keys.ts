/** Names of tensors in PEFT's adapter files (huggingface/peft, `utils/save_and_load.py`). */

/** What a tensor of an adapter file is to its module. */
export type AdapterPart =
  | "A" // (r, in)
  | "B" // (out, r)
  | "embeddingA" // (r, rows)
  | "embeddingB" // (width, r)
  | "biasB" // (out), `lora_bias`
  | "magnitude" // (out), DoRA
  | "tokens" // (tokens, width), trainable_token_indices
  | "baseWeight" // the base's own weight, saved beside the adapter of an embedding
  | "baseBias" // (out), the trained bias of an adapted module: bias = "lora_only" or "all"
  | "weight" // modules_to_save
  | "bias"; // modules_to_save, or of a module that is not adapted: bias = "all"

/** How each part's key ends; the first that fits is meant. */
const endings: readonly (readonly [AdapterPart, string])[] = [
  ["A", ".lora_A.weight"],
  ["B", ".lora_B.weight"],
  ["biasB", ".lora_B.bias"],
  ["embeddingA", ".lora_embedding_A"],
  ["embeddingB", ".lora_embedding_B"],
  ["magnitude", ".lora_magnitude_vector"],
  ["tokens", ".token_adapter.trainable_tokens_delta"],
  ["baseWeight", ".base_layer.weight"],
  ["baseBias", ".base_layer.bias"],
  ["weight", ".weight"],
  ["bias", ".bias"],
];

/** What every key begins with: the names of PEFT's two wrappers. */
export const wrapper = "base_model.model.";

/** The module path (as the wrapped class has it: `transformer.h.0.attn.c_attn`) and part of a key, or null. */
export function parseAdapterKey(key: string): { readonly module: string; readonly part: AdapterPart } | null {
  if (!key.startsWith(wrapper)) return null;
  const name = key.slice(wrapper.length);
  for (const [part, ending] of endings) {
    if (name.endsWith(ending) && name.length > ending.length) return { module: name.slice(0, -ending.length), part };
  }
  return null;
}

/** The key of a module's part. */
export function formatAdapterKey(module: string, part: AdapterPart): string {
  return `${wrapper}${module}${endings.find(([name]) => name === part)![1]}`;
}
