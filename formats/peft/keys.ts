/** Names of tensors in PEFT's adapter files (huggingface/peft, `utils/save_and_load.py`), as the methods have them. */
import type { Method, PartKey } from "../../lora/mod.ts";
import { besides, familyOf } from "../../lora/methods/mod.ts";

/** The base's own weight, saved beside the adapter of an embedding. */
export const baseWeight: PartKey = { leaf: "base", ending: ".base_layer.weight" };

/** The prefix of every key: the names of PEFT's two wrappers. */
export const wrapper = "base_model.model.";

/** The keys in files of a method, the longest endings first. */
function keysOf(method: Method): readonly PartKey[] {
  const keys = [...familyOf(method), ...besides].flatMap(({ keys }) => keys);
  return [...keys, baseWeight].sort((a, b) => b.ending.length - a.ending.length);
}

/** The module path (as the wrapped class has it: `transformer.h.0.attn.c_attn`) and part of a key, or null. */
export function parseAdapterKey(
  key: string,
  method: Method,
): { readonly module: string; readonly part: PartKey } | null {
  if (!key.startsWith(wrapper)) return null;
  const name = key.slice(wrapper.length);
  const part = keysOf(method).find(({ ending }) => name.endsWith(ending) && name.length > ending.length);
  return part === undefined ? null : { module: name.slice(0, -part.ending.length), part };
}

/** The key of a module's part. */
export function formatAdapterKey(module: string, { ending }: PartKey): string {
  return `${wrapper}${module}${ending}`;
}

/** The part of a file that a leaf of `trainable` is, on a table that is looked up or on a module that is adapted as well. */
export function partOf(
  method: Method,
  leaf: string,
  { embedding = false, adapted = false }: { readonly embedding?: boolean; readonly adapted?: boolean },
): PartKey {
  const own = keysOf(method).filter((key) => key.leaf === leaf);
  const special = own.find(({ on }) => (on === "embedding" && embedding) || (on === "adapted" && adapted));
  return special ?? own.find(({ on }) => on === undefined)!;
}
