/** Keys of an `adapter_config.json` whose effect the file's tensors on the given base would not have. */
import { FileError } from "../../core/errors.ts";
import { refusedOptions } from "../../lora/check_options.ts";
import type { Method } from "../../lora/methods/method.ts";
import { startNamed } from "../../lora/methods/starts.ts";

/** Keys of every configuration that are notes. */
const notes = [
  "task_type",
  "auto_mapping",
  "peft_version",
  "revision",
  "inference_mode",
  "merge_weights",
  "runtime_config",
];

/**
 * Refuses by its name each key of a configuration that means more than is computed here, and each that is not known and says
 * anything.
 *
 * @param read the keys that are used, whatever they say
 * @param path of the file, for error sentences
 */
export function refuseMethods(
  file: Readonly<Record<string, unknown>>,
  { method, read, path }: { readonly method: Method; readonly read: object; readonly path: string },
): void {
  const silent = new Set([...notes, ...method.silent ?? []]);
  const isUnset = (v: unknown) =>
    v === null || v === undefined || v === false || v === 0 || (typeof v === "object" && Object.keys(v).length === 0);
  for (const [key, value] of Object.entries(file)) {
    if (isUnset(value) || silent.has(key) || Object.hasOwn(read, key)) continue;
    if (key === "init_lora_weights") {
      if (value === true || String(value).toLowerCase() === "gaussian" || startNamed(value) !== undefined) continue;
    }
    const why = key === "init_lora_weights" ? undefined : refusedOptions[key];
    throw new FileError(
      `${path} says ${key} is ${JSON.stringify(value)}, ${
        why === undefined
          ? "which is not known here and may change what the adapter computes: take the key out if it does not"
          : `which has no counterpart here (${why}): merge the adapter where it was made`
      }.`,
    );
  }
}

/** The way in which an adapter was started, where that changed the base's weights and the adapter belongs to what was left. */
export function changedBase({ init_lora_weights: init }: Readonly<Record<string, unknown>>): string | null {
  const start = startNamed(init);
  return start?.changesBase ? start.label : null;
}

/** Refuses an adapter that belongs to changed weights of its base. */
export function refuseChangedBase(path: string, config: Readonly<Record<string, unknown>>): void {
  const method = changedBase(config);
  if (method === null) return;
  const from = method === "PiSSA" ? "" : " --initial FOLDER, the adapter before training";
  const remedy = method === "LoftQ"
    ? "merge it into those where it was made"
    : `make it a plain adapter of the base first (lowrank convert ADAPTER --to plain${from})`;
  throw new FileError(
    `${path} was initialised by ${method} and belongs to the base's weights as that changed them: ${remedy}.`,
  );
}
