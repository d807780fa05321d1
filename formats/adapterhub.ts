/** Bottleneck layers on disk as AdapterHub keeps them: `adapter_config.json` and `adapter.safetensors` in one folder. */
import { sameShape } from "../core/aval.ts";
import { FileError, OptionError } from "../core/errors.ts";
import type { Leaf, Model } from "../core/model.ts";
import { type HostTensor, Tensor } from "../core/tensor.ts";
import { flatten } from "../core/tree.ts";
import { read } from "../kernels/runtime/read.ts";
import { type Adapted, methods, type Trainable, tune, type Tuned } from "../lora/mod.ts";
import { writeFlushed } from "../models/load/files/atomic_file.ts";
import { pathKind, readJsonObject } from "../models/load/files/byte_source.ts";
import { stageFolder } from "../models/load/files/staged_folder.ts";
import { encodeSafetensors, openSafetensors } from "../models/load/safetensors/safetensors.ts";
import { listed } from "../models/load/weights.ts";
import { computed } from "./computed.ts";
import { isFinite, placerBeside, toF32 } from "./host_tensors.ts";

const { bottleneck: method } = methods;
const configName = "adapter_config.json", weightsName = "adapter.safetensors";

/** Whether a folder has such layers. */
export function isAdapterHub(folder: string): boolean {
  return pathKind(`${folder}/${weightsName}`) === "file" && pathKind(`${folder}/${configName}`) === "file";
}

/** The key of a leaf: layers stand in a block beside its attention or at its end. */
export function keyOf(site: Adapted, leaf: string, name = "default"): string {
  const block = /^(.*?\.\d+)\./.exec(site.hub)?.[1] ?? site.hub;
  const place = (site as typeof site & { readonly ends: string }).ends === "attention" ? "attention" : "output";
  const { ending } = method.keys.find((key) => key.leaf === leaf)!;
  return `${block}.${place}_adapters.adapters.${name}${ending}`;
}

/** Writes the folder. @throws {FileError} where a value is not finite, or it can't be written */
export async function saveAdapterHub<P>(
  folder: string,
  { plan: { adapted, edits } }: Tuned<P, unknown, unknown>,
  trainable: Trainable,
): Promise<void> {
  if (edits.length > 0) {
    throw new OptionError(
      `AdapterHub's files have nothing but layers, and "${edits[0].path}" of the model is trained beside: leave it out`,
    );
  }
  const host = await read(computed(trainable)) as Record<string, Record<string, HostTensor>>;
  const tensors = new Map(
    adapted.flatMap((site) => Object.entries(host[site.path]).map(([leaf, x]) => [keyOf(site, leaf), x] as const)),
  );
  for (const [key, tensor] of tensors) {
    if (isFinite(tensor)) continue;
    throw new FileError(`The adapter is not saved to ${folder}: ${key} holds values that are not finite.`);
  }
  const config = method.config(adapted as never, { adapted, spell: (path) => path });
  using staging = stageFolder(folder);
  writeFlushed(`${staging.path}/${weightsName}`, encodeSafetensors(tensors, { format: "pt" }), folder);
  writeFlushed(`${staging.path}/${configName}`, JSON.stringify(config, null, 2) + "\n", folder);
  staging.commit(configName);
}

/** Reads the folder and puts its layers on a model. @throws {FileError} for what it does not have, or says otherwise */
export function loadAdapterHub<P, I, O>(folder: string, model: Model<P, I, O>): Tuned<P, I, O> {
  const path = `${folder}/${configName}`, raw = readJsonObject(path);
  const options = {
    architecture: raw.architecture,
    reductionFactor: raw.reduction_factor,
    nonLinearity: raw.non_linearity,
    scaling: raw.scaling,
  };
  let tuned: Tuned<P, I, O>;
  try {
    tuned = tune<P, I, O, object>(model, method as never, options);
  } catch (error) {
    if (!(error instanceof OptionError)) throw error;
    throw new FileError(`${path} can't be put on this model: ${error.message}.`);
  }
  for (const leaf of flatten<Leaf>(tuned.trainable).leaves) if (leaf instanceof Tensor) leaf.dispose();
  const { adapted } = tuned.plan;
  const own = method.config(adapted as never, { adapted, spell: (path) => path });
  for (const [key, value] of Object.entries(raw)) {
    if (value === null || value === own[key]) continue;
    throw new FileError(`${path} says ${key} is ${JSON.stringify(value)}, and here it is ${JSON.stringify(own[key])}.`);
  }
  using source = openSafetensors(`${folder}/${weightsName}`);
  const name = /\.adapters\.([^.]+)\./.exec(source.names[0] ?? "")?.[1];
  const left = new Set(source.names), missing: string[] = [], wrong: string[] = [];
  const entries = adapted.map((site) => {
    const leaves = Object.entries(site.trained).flatMap(([leaf, shape]) => {
      const key = keyOf(site, leaf, name);
      if (!left.delete(key)) {
        missing.push(key);
        return [];
      }
      const tensor = toF32(source.read(key));
      if (!sameShape(tensor.shape, shape)) wrong.push(`${key} is [${tensor.shape}], expected [${shape}]`);
      return [[leaf, tensor] as const];
    });
    return [site.path, leaves] as const;
  });
  if (missing.length + left.size + wrong.length > 0) {
    throw new FileError(
      `${folder}/${weightsName} does not fit the model and its own configuration. ${listed("Missing", missing)}` +
        `${listed("Unexpected", [...left])}${listed("Of the wrong shape", wrong)}Nothing is loaded.`,
    );
  }
  const place = placerBeside(tuned.frozen);
  const trainable = Object.fromEntries(
    entries.map(([at, leaves]) => [at, Object.fromEntries(leaves.map(([leaf, x]) => [leaf, place(x)]))]),
  );
  return { ...tuned, trainable };
}
