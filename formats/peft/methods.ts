/** What an `adapter_config.json` says that the file's tensors on the given base would not compute. */
import { FileError } from "../../core/errors.ts";
import { refusedOptions } from "../../lora/check_options.ts";

/** Keys of PEFT's `LoraConfig` that are notes, or say only how an adapter was started and stored. */
const silent = new Set([
  ...["task_type", "auto_mapping", "peft_version", "revision", "inference_mode", "merge_weights", "runtime_config"],
  ...["fan_in_fan_out", "megatron_core", "qalora_group_size"], // found from the model, or asked of nothing without its switch
  ...["loftq_config", "eva_config", "corda_config", "lora_ga_config"], // how to start, where init_lora_weights names it
]);

/** Ways to start that leave the base's weights as they are, so that A and B belong to the base. */
const onTheBase = ["gaussian", "orthogonal", "eva", "mica"];

/** Ways to start that put other weights in the place of the base's. */
const changing: readonly (readonly [string, RegExp])[] = [
  ["PiSSA", /^pissa(_niter_\d+)?$/],
  ["OLoRA", /^olora$/i],
  ["CorDA", /^corda/],
  ["LoRA-GA", /^lora_ga$/],
  ["LoftQ", /^loftq$/],
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
  read: { readonly [key: string]: unknown },
  path: string,
): void {
  const isUnset = (v: unknown) =>
    v === null || v === undefined || v === false || (typeof v === "object" && Object.keys(v).length === 0);
  for (const [key, value] of Object.entries(file)) {
    if (isUnset(value) || silent.has(key) || Object.hasOwn(read, key)) continue;
    if (key === "init_lora_weights") {
      if (value === true || onTheBase.includes(String(value).toLowerCase()) || changedBase(file) !== null) continue;
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
  if (typeof init !== "string") return null;
  return changing.find(([, pattern]) => pattern.test(init))?.[0] ?? null;
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
