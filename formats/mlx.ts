/** Adapters as mlx-lm keeps them: `adapters.safetensors` and its own `adapter_config.json` (ml-explore/mlx-lm, `tuner/`). */
import { FileError } from "../core/errors.ts";
import type { HostTensor } from "../core/tensor.ts";
import { type Contents, writeFlushed } from "../models/load/files/atomic_file.ts";
import { pathKind, readJsonObject } from "../models/load/files/byte_source.ts";
import type { ModelConfig } from "../models/load/config.ts";
import { encodeSafetensors, openSafetensors } from "../models/load/safetensors/safetensors.ts";
import { currentPath, stageFolder } from "../models/load/files/staged_folder.ts";
import { type Family, hubNameOf } from "../models/families/family.ts";
import { families, familyOf } from "../models/families/mod.ts";
import { listed } from "../models/load/weights.ts";
import { matchesWhole } from "./peft/config.ts";
import type { AdapterFiles } from "./peft/files.ts";
import {
  filesFromPairs,
  padded,
  refuseTied,
  type ScaledPair,
  scaledPairs,
  times,
  transposed,
} from "./adapter_pairs.ts";
import { mostFrequent } from "../lora/methods/lora.ts";
import { isFinite, toF32 } from "./host_tensors.ts";
import { checkMembers, checkPath } from "../core/options.ts";

const weightsName = "adapters.safetensors", configName = "adapter_config.json";

/** Whether a folder holds an adapter of mlx-lm's. */
export function isMlxAdapter(folder: string): boolean {
  return pathKind(currentPath(folder, weightsName)) === "file" &&
    pathKind(`${folder}/adapter_model.safetensors`) === null;
}

/**
 * Writes an adapter as mlx-lm reads it (`mlx_lm.generate --adapter-path FOLDER`). Its matrices lie the other way round: a
 * [in, r], b [r, out]. The folder knows one rank and one scale: lower ranks are filled up with zeros; the scale is chosen for
 * most modules, and what another needs more or less goes into its b.
 *
 * @param config the base model's configuration
 * @throws {FileError} for what the format can't express, or values that are not finite
 */
export function writeMlxAdapter(folder: string, adapter: AdapterFiles, config: ModelConfig): void {
  checkPath("writeMlxAdapter", folder);
  checkMembers("writeMlxAdapter", "an adapter's files, as readAdapter gives them", adapter, ["config", "tensors"]);
  const family = mlxFamily(config);
  const given = scaledPairs(adapter, { format: "mlx-lm's adapter format", magnitudes: true });
  refuseTied(adapter, given, config);
  const rank = Math.max(...given.map(({ r }) => r)), pairs = given.map((pair) => padded(pair, rank));
  const dora = pairs.filter(({ magnitude }) => magnitude !== undefined).length;
  if (dora !== 0 && dora !== pairs.length) {
    throw new FileError(
      `${adapter.path} has magnitudes for ${dora} of ${pairs.length} modules; mlx-lm knows all or none.`,
    );
  }
  const scale = mostFrequent(pairs.map(({ scaling }) => scaling).filter((s) => s !== 0).concat(1));
  const tensors = new Map<string, HostTensor>();
  for (const { module, A, B, scaling, magnitude } of pairs) {
    const path = mlxPath(module, family);
    tensors.set(`${path}.lora_a`, transposed(A));
    tensors.set(`${path}.lora_b`, transposed(times(B, scaling === scale ? 1 : scaling / scale)));
    if (magnitude) tensors.set(`${path}.m`, magnitude);
  }
  for (const [name, tensor] of tensors) {
    if (!isFinite(tensor)) {
      throw new FileError(`${folder} is not written: ${name} would hold values that are not finite.`);
    }
  }
  const keys = [...new Set(pairs.map(({ module }) => keyOf(mlxPath(module, family))))].sort();
  const mlxConfig = {
    fine_tune_type: dora > 0 ? "dora" : "lora",
    lora_parameters: { dropout: adapter.config.lora_dropout, keys, rank, scale },
    ...(adapter.config.base_model_name_or_path !== null && { model: adapter.config.base_model_name_or_path }),
    num_layers: config.integer(family.keys.layers),
  };
  const contents: [string, Contents][] = [
    [weightsName, encodeSafetensors(tensors, { ...adapter.metadata, format: "mlx" })],
    [configName, JSON.stringify(mlxConfig, null, 4) + "\n"],
  ];
  using staging = stageFolder(folder);
  for (const [name, parts] of contents) writeFlushed(`${staging.path}/${name}`, parts, `${folder}/${name}`);
  staging.commit(configName);
}

/**
 * Reads an adapter of mlx-lm's as what PEFT's files would say.
 *
 * @param config the base model's configuration
 * @throws {FileError} for a damaged folder, or one that was not made with LoRA or DoRA
 */
export function readMlxAdapter(folder: string, config: ModelConfig): AdapterFiles {
  checkMembers("readMlxAdapter", "the base model's configuration", config, ["modelType", "raw"]);
  const family = mlxFamily(config);
  const [path, configPath] = [weightsName, configName].map((name) => currentPath(folder, name));
  const { fine_tune_type: type = "lora", lora_parameters: parameters, model } = readJsonObject(configPath);
  if (type !== "lora" && type !== "dora") {
    throw new FileError(
      `${configPath} says fine_tune_type is ${JSON.stringify(type)}, and only "lora" and "dora" are read.`,
    );
  }
  const scale = (parameters as Record<string, unknown> | undefined)?.scale;
  if (typeof scale !== "number" || !Number.isFinite(scale)) {
    throw new FileError(
      `${configPath} says lora_parameters.scale is ${JSON.stringify(scale)}, where a number is expected.`,
    );
  }
  using source = openSafetensors(path);
  const unexpected = source.names.filter((name) => !/.\.(lora_a|lora_b|m)$/.test(name));
  const modules = [...new Set(source.names.map((name) => name.replace(/\.(lora_a|lora_b|m)$/, "")))];
  const parts = type === "dora" ? ["lora_a", "lora_b", "m"] : ["lora_a", "lora_b"];
  const missing = modules.filter((module) => !unexpected.includes(module))
    .flatMap((module) => parts.map((part) => `${module}.${part}`)).filter((name) => !source.names.includes(name));
  if (unexpected.length + missing.length > 0) {
    throw new FileError(
      `${path} is not a complete adapter. ${listed("Missing", missing)}${
        listed("Unexpected", unexpected)
      }Save it again.`,
    );
  }
  const pairs = modules.map((name): ScaledPair => {
    const read = (part: string) => toF32(source.read(`${name}.${part}`));
    const [a, b] = [read("lora_a"), read("lora_b")];
    if (a.shape.length !== 2 || b.shape.length !== 2 || a.shape[1] !== b.shape[0]) {
      throw new FileError(
        `${path} has a ${name}.lora_a of [${a.shape}] and a ${name}.lora_b of [${b.shape}]: no pair.`,
      );
    }
    return {
      ...{ module: peftPath(name, family), r: a.shape[1] },
      embedding: family.tables.some((table) => matchesWhole(table, name)),
      ...{ A: transposed(a), B: transposed(b), scaling: scale },
      ...(type === "dora" && { magnitude: read("m") }),
    };
  });
  const { format: _, ...metadata } = source.metadata;
  return filesFromPairs(path, pairs, {
    baseModel: typeof model === "string" ? model : null,
    fanInFanOut: family.fanInFanOut === true,
    metadata: { format: "pt", ...metadata },
  });
}

/** A family that mlx-lm has, too. */
type MlxFamily = Family & { readonly mlx: string };

function mlxFamily(config: ModelConfig): MlxFamily {
  const family = familyOf(config.modelType);
  if (family?.mlx === undefined) {
    throw new FileError(
      `${config.path} is of the architecture ${config.modelType}, and mlx-lm has only models that generate text: ` +
        `${families.flatMap(({ mlx, modelType }) => mlx === undefined ? [] : [modelType]).join(", ")}.`,
    );
  }
  return family as MlxFamily;
}

/** A module's path in mlx-lm: what Hugging Face's class puts before all but the head is another there. */
function mlxPath(module: string, { prefix, mlx, head }: MlxFamily): string {
  const bare = module.startsWith(prefix) ? module.slice(prefix.length) : module;
  return hubNameOf({ prefix: mlx, head }, bare);
}

function peftPath(name: string, family: MlxFamily): string {
  return hubNameOf(family, name.startsWith(family.mlx) ? name.slice(family.mlx.length) : name);
}

/** The key by which mlx-lm finds a module: its path inside its layer, or the whole path outside layers. */
function keyOf(path: string): string {
  return path.replace(/^(\w+\.)*?\w+\.\d+\./, "");
}
