/** Adapters on disk as PEFT keeps them: `adapter_config.json` and `adapter_model.safetensors` in one folder. */
import type { HostTensor } from "../../core/tensor.ts";
import { isFloat } from "../../core/dtype.ts";
import { FileError } from "../../core/errors.ts";
import { writeFlushed } from "../../models/load/files/atomic_file.ts";
import { pathKind, readJsonObject } from "../../models/load/files/byte_source.ts";
import { encodeSafetensors, openSafetensors } from "../../models/load/safetensors/safetensors.ts";
import { currentPath, stageFolder } from "../../models/load/files/staged_folder.ts";
import { listed } from "../../models/load/weights.ts";
import { isFinite } from "../host_tensors.ts";
import type { Adapted, Method, PartKey } from "../../lora/mod.ts";
import { type AdapterConfig, methodOf, parseAdapterConfig } from "./config.ts";
import { formatAdapterKey, parseAdapterKey } from "./keys.ts";
import { checkMembers, checkPath } from "../../core/options.ts";

/** One tensor of an adapter file, in the dtype that it is stored in. */
export interface AdapterTensor {
  /** As in the file. */
  readonly key: string;
  /** The module as the class that PEFT wrapped names it: `transformer.h.0.attn.c_attn`. */
  readonly module: string;
  /** Which part of the module it is. */
  readonly part: PartKey;
  /** Its contents. */
  readonly tensor: HostTensor;
}

/** An adapter as read. */
export interface AdapterFiles {
  /** The file that holds the tensors, for error sentences. */
  readonly path: string;
  /** What the configuration is of. */
  readonly method: Method<Adapted>;
  /** The configuration with PEFT's defaults for keys that the file leaves out. */
  readonly config: AdapterConfig;
  /** The configuration as it stands in the file: what is written again. */
  readonly raw: Readonly<Record<string, unknown>>;
  /** All tensors of modules. */
  readonly tensors: readonly AdapterTensor[];
  /** Those of no module, by their keys. */
  readonly shared?: Readonly<Record<string, HostTensor>>;
  /** The metadata of the tensors' file; PEFT's is `{"format":"pt"}`. */
  readonly metadata: Readonly<Record<string, string>>;
}

const configName = "adapter_config.json";
const weightsName = "adapter_model.safetensors";

/**
 * Reads an adapter's folder. Keys are taken apart; whether they fit a model is asked when one is there.
 *
 * @throws {FileError} for a folder without an adapter, a damaged file, keys that are no adapter's, or weights that are only
 * there as a pickle
 */
export function readAdapter(folder: string): AdapterFiles {
  checkPath("readAdapter", folder);
  if (pathKind(folder) !== "folder") {
    throw new FileError(`There is no adapter at ${folder}: give the folder that holds ${configName}.`);
  }
  const [configPath, path] = [configName, weightsName].map((name) => currentPath(folder, name));
  if (pathKind(configPath) === null) {
    const names = adapterNames(folder);
    throw new FileError(
      names.length === 0
        ? `${folder} has no ${configName}, so it holds no adapter: give the folder that has one.`
        : `${folder} holds adapters in folders of their own. ${listed("Adapters", names)}Give one: ${folder}/${
          names[0]
        }.`,
    );
  }
  if (pathKind(path) === null) {
    throw new FileError(
      pathKind(`${folder}/adapter_model.bin`) === null
        ? `${folder} has no ${weightsName}: add the adapter's weights.`
        : `${folder} has adapter_model.bin, a pickle, which can run code when it is read, and is not opened: ` +
          `save the adapter as ${weightsName} (PEFT's save_pretrained does).`,
    );
  }
  const raw = readJsonObject(configPath);
  const config = parseAdapterConfig(raw, configPath), method = methodOf(raw)!;
  using source = openSafetensors(path);
  const tensors: AdapterTensor[] = [];
  const unknown: string[] = [], other: string[] = [];
  const shared: Record<string, HostTensor> = {};
  for (const key of source.names) {
    const parsed = parseAdapterKey(key, method);
    const { dtype, stored } = source.entry(key);
    const common = method.shared?.keys.some((k) => k === key || k.startsWith("*") && key.endsWith(k.slice(1))) ?? false;
    if (parsed === null && !common) unknown.push(key);
    else if (!isFloat(dtype) && (dtype !== "i32" || parsed !== null)) other.push(`${key} is ${stored}`);
    else if (parsed === null) shared[key] = source.read(key);
    else tensors.push({ key, ...parsed, tensor: source.read(key) });
  }
  if (unknown.length + other.length > 0) {
    throw new FileError(
      `${path} has keys that PEFT's files of peft_type ${method.peftType} do not have. ${
        listed("Unknown keys", unknown)
      }` +
        `${listed("Not of a float type that is read", other)}Save it again.`,
    );
  }
  if (tensors.length === 0) throw new FileError(`${path} holds no tensor: save the adapter again.`);
  return { path, method, config, raw, tensors, shared, metadata: source.metadata };
}

/** Names of the adapters that a folder holds in folders of their own, as PEFT saves all but the one named `default`. */
export function adapterNames(folder: string): string[] {
  checkPath("adapterNames", folder);
  if (pathKind(folder) !== "folder") throw new FileError(`There is no folder ${folder}: give one that holds adapters.`);
  return [...Deno.readDirSync(folder)]
    .filter((entry) => entry.isDirectory && pathKind(`${folder}/${entry.name}/${configName}`) === "file")
    .map((entry) => entry.name)
    .sort();
}

/** What {@link writeAdapter} writes. */
export interface AdapterContents {
  /** `adapter_config.json`, keys of others included. */
  readonly config: Readonly<Record<string, unknown>>;
  /** Tensors by PEFT's keys. */
  readonly tensors: ReadonlyMap<string, HostTensor>;
  /** The file's own metadata. */
  readonly metadata?: Readonly<Record<string, string>>;
}

/**
 * Writes an adapter's folder. The same adapter gives the same bytes. At every moment PEFT reads the old adapter, the new one,
 * or finds none; a save that is cut short leaves one whole adapter for {@link readAdapter}, the old or the new.
 *
 * @throws {FileError} where a value is not finite (nothing is written then), or the folder can't be written
 */
export function writeAdapter(folder: string, contents: AdapterContents): void {
  checkPath("writeAdapter", folder);
  checkMembers("writeAdapter", "an adapter's contents, { config, tensors }", contents, ["config", "tensors"]);
  const { config, tensors, metadata } = contents;
  for (const [key, tensor] of tensors) {
    if (isFinite(tensor)) continue;
    throw new FileError(
      `The adapter is not saved to ${folder}: ${key} holds values that are not finite; use an earlier one.`,
    );
  }
  const text = JSON.stringify(sortKeys(config), null, 2) + "\n";

  using staging = stageFolder(folder);
  writeFlushed(`${staging.path}/${weightsName}`, encodeSafetensors(tensors, metadata), `${folder}/${weightsName}`);
  writeFlushed(`${staging.path}/${configName}`, text, `${folder}/${configName}`);
  staging.commit(configName);
}

/** Tensors by their keys: the inverse of what {@link readAdapter} did. */
export function tensorsByKey(
  tensors: readonly Pick<AdapterTensor, "module" | "part" | "tensor">[],
  shared: Readonly<Record<string, HostTensor>> = {},
): Map<string, HostTensor> {
  const own = tensors.map(({ module, part, tensor }) => [formatAdapterKey(module, part), tensor] as const);
  return new Map([...own, ...Object.entries(shared)]);
}

function sortKeys(value: unknown): unknown {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).sort().map(([key, inner]) => [key, sortKeys(inner)]));
}
