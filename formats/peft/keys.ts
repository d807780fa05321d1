/** Names of tensors in PEFT's adapter files (huggingface/peft, `utils/save_and_load.py`), as the methods have them. */
import type { Method, PartKey } from "../../lora/mod.ts";
import { besidesOf, familyOf, methods } from "../../lora/methods/mod.ts";

/** The base's own weight, saved beside the adapter of an embedding. */
export const baseWeight: PartKey = { leaf: "base", ending: ".base_layer.weight" };

/** The prefix of every key: the names of PEFT's two wrappers. */
export const wrapper = "base_model.model.";

/** The keys in files of a method, the longest endings first. */
function keysOf(method: Method): readonly PartKey[] {
  // PEFT wraps the model once where it changes no module of it.
  const around = (key: PartKey) => method.whole ? { ...key, wrapper: "base_model." } : key;
  const beside = besidesOf(method).flatMap(({ keys }) => keys.map(around));
  const keys = [...familyOf(method).flatMap(({ keys }) => keys), ...beside];
  return [...keys, ...(method.whole ? [] : [baseWeight])].sort((a, b) => b.ending.length - a.ending.length);
}

/** The module path (as the wrapped class has it: `transformer.h.0.attn.c_attn`) and part of a key, or null. */
export function parseAdapterKey(
  key: string,
  method: Method,
): { readonly module: string; readonly part: PartKey } | null {
  const keys = keysOf(method), own = keys.find(({ of, ending }) => of !== undefined && key === ending);
  if (own !== undefined) return { module: own.of!, part: own };
  const part = keys.find(({ of, ending, wrapper: around = wrapper }) =>
    of === undefined && key.startsWith(around) && key.endsWith(ending) && key.length > around.length + ending.length
  );
  if (part === undefined) return null;
  // What another method trains would else pass for a whole weight of a module of that name.
  const other = Object.values(methods).flatMap((one): readonly PartKey[] => one.keys).find(({ ending }) =>
    key.endsWith(ending)
  );
  if (other !== undefined && other.ending.length > part.ending.length) return null;
  return { module: key.slice((part.wrapper ?? wrapper).length, -part.ending.length), part };
}

/** The key of a module's part. */
export function formatAdapterKey(module: string, { ending, of, wrapper: around = wrapper }: PartKey): string {
  return of === undefined ? `${around}${module}${ending}` : ending;
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
