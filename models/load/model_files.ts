import { FileError } from "../../core/errors.ts";
import { nearest } from "../../core/host/nearest.ts";
import { folderOf } from "./files/atomic_file.ts";
import { memoryBytes, parseJsonObject, pathKind, readJsonObject } from "./files/byte_source.ts";
import { type ModelConfig, parseConfig } from "./config.ts";
import { configFromGguf, ggufSizes } from "./gguf/config.ts";
import type { SizeKeys } from "../families/family.ts";
import { familyOf } from "../families/mod.ts";
import { openGguf } from "./gguf/source.ts";
import { ggufSpecialIds, ggufTokenizerNotes, tokenizerFromGguf } from "./gguf/tokenizer.ts";
import { openSafetensors } from "./safetensors/safetensors.ts";
import { openShards } from "./safetensors/sharded.ts";
import { readTokenizer, type Tokenizer } from "./tokenizer.ts";
import type { WeightSource } from "./weights.ts";

/** A model's files, opened: its configuration is read, of its weights only names and shapes. */
export interface ModelFiles extends Disposable {
  readonly path: string;
  /** What the model was named by, where that is not where its files are. */
  readonly name?: string;
  readonly config: ModelConfig;
  readonly source: WeightSource;
  /** What a person should know of the files. */
  readonly notes?: readonly string[];
  /** Builds the model's tokenizer. Throws a {@link FileError} that says what is missing where it has none. */
  tokenizer(): Tokenizer;
}

/**
 * Opens a model: a folder with config.json and model.safetensors (or its shards and their index), or a .gguf file. `known`
 * lists the architectures that the caller can build. Throws a {@link FileError} when there is no such model, a file of it is
 * missing or damaged, or its architecture is not known.
 */
export function openModelFiles(path: string, known: readonly string[]): ModelFiles {
  const place = path.length > 1 ? path.replace(/[/\\]+$/, "") : path;
  const kind = pathKind(place);
  if (kind === null) {
    throw new FileError(
      `There is no model at ${path}: give a folder with config.json and model.safetensors, or a .gguf file.`,
    );
  }
  return checkKnown(kind === "folder" ? openFolder(place) : openFile(place), known);
}

/** A model's files in memory: config.json, model.safetensors, tokenizer.json and what else belongs to them, by name. */
export interface ModelBytes {
  /** What error sentences call it. */
  readonly name: string;
  /** Contents by name. */
  readonly files: Readonly<Record<string, Uint8Array>>;
}

/** {@link openModelFiles} for files in memory. */
export function openModelBytes({ name, files }: ModelBytes, known: readonly string[]): ModelFiles {
  const text = (file: string) => files[file] ? new TextDecoder().decode(files[file]) : null;
  for (const needed of ["config.json", "model.safetensors"]) {
    if (!files[needed]) throw new FileError(`${name} has no ${needed}: a model in memory needs it.`);
  }
  const path = `${name}/config.json`;
  return checkKnown({
    path: name,
    config: parseConfig(parseJsonObject(text("config.json")!, path), path),
    source: openSafetensors(memoryBytes(`${name}/model.safetensors`, files["model.safetensors"])),
    tokenizer: () => readTokenizer(name, text) ?? noTokenizer(name),
    [Symbol.dispose]: () => {},
  }, known);
}

function checkKnown(files: ModelFiles, known: readonly string[]): ModelFiles {
  try {
    checkArchitecture(files.config, known);
    checkCounts(files.config, files.source);
    return files;
  } catch (error) {
    files[Symbol.dispose]();
    throw error;
  }
}

/**
 * Holds what a configuration counts against the weights, before anything is made by these counts: a model has at least one
 * tensor a layer, and a width is at most the largest dimension of a tensor.
 *
 * @throws {FileError} with both numbers
 */
function checkCounts({ path, raw, modelType }: ModelConfig, weights: WeightSource): void {
  const { keys, gguf } = familyOf(modelType)!;
  let widest = 0;
  for (const name of weights.names) for (const d of weights.entry(name).shape) widest = Math.max(widest, d);
  const check = (size: keyof SizeKeys, most: number, what: string) => {
    const key = keys[size], value = key && raw[key];
    if (typeof value !== "number" && typeof value !== "bigint" || value <= most) return;
    // A GGUF is configuration and weights in one, and has its own word for it.
    const name = path === weights.path && gguf ? ggufSizes(gguf)[size] : key;
    throw new FileError(
      `${path} says ${name} is ${value}, and ${what} in ${weights.path} is ${most}: use the configuration and the ` +
        `weights of the same model.`,
    );
  };
  check("layers", weights.names.length, "the number of tensors");
  check("width", widest, "the largest dimension of a tensor");
  check("headDim", widest, "the largest dimension of a tensor");
}

function checkArchitecture({ modelType, path }: ModelConfig, known: readonly string[]): void {
  if (known.includes(modelType)) return;
  const near = nearest(modelType, known);
  throw new FileError(
    `${path} is of the architecture ${modelType}; supported: ${known.join(", ")}` +
      `${near === null ? "" : ` (did you mean ${near}?)`}: choose a model of one of these.`,
  );
}

/**
 * The configuration of a folder, of which nothing else need be there yet.
 *
 * @throws {FileError} when it is missing, or of an architecture that is not known
 */
export function readFolderConfig(folder: string, known: readonly string[]): ModelConfig {
  const config = folderConfig(folder);
  checkArchitecture(config, known);
  return config;
}

function folderConfig(folder: string): ModelConfig {
  const configPath = `${folder}/config.json`;
  if (pathKind(configPath) !== "file") {
    const remedy = pathKind(`${folder}/adapter_config.json`) === "file"
      ? "it is an adapter; give the folder of its base model"
      : "give the folder that the model was saved or downloaded into";
    throw new FileError(`${folder} has no config.json, so it is not a model: ${remedy}.`);
  }
  return parseConfig(readJsonObject(configPath), configPath);
}

function openFolder(folder: string): ModelFiles {
  const config = folderConfig(folder);
  const source = openWeights(folder);
  return {
    path: folder,
    config,
    source,
    tokenizer: () => readTokenizer(folder) ?? noTokenizer(folder),
    [Symbol.dispose]: () => source[Symbol.dispose](),
  };
}

function openWeights(folder: string): WeightSource {
  const whole = `${folder}/model.safetensors`, index = `${folder}/model.safetensors.index.json`;
  if (pathKind(whole) === "file") return openSafetensors(whole);
  if (pathKind(index) === "file") return openShards(index);
  const pickled = pathKind(`${folder}/pytorch_model.bin`) ?? pathKind(`${folder}/pytorch_model.bin.index.json`);
  throw new FileError(
    `${folder} has neither model.safetensors nor model.safetensors.index.json: ` +
      (pickled === null
        ? "add the model's weights as safetensors."
        : "its pytorch_model.bin is a pickle, which can run code when it is read, and is not opened; save it as safetensors."),
  );
}

function openFile(path: string): ModelFiles {
  if (!path.toLowerCase().endsWith(".gguf")) {
    throw new FileError(`${path} is a file but no .gguf: give the folder that holds the model, or a .gguf file.`);
  }
  const source = openGguf(path);
  try {
    const config = configFromGguf(source);
    const folder = folderOf(path);
    // A tokenizer.json beside the file is the model's own and wins over the reconstruction.
    const rebuilt = pathKind(`${folder}/tokenizer.json`) !== "file";
    return {
      path,
      config,
      source,
      notes: [...source.notes, ...(rebuilt ? ggufTokenizerNotes(source) : [])],
      tokenizer: () => readTokenizer(folder, undefined, ggufSpecialIds(source).ends) ?? tokenizerFromGguf(source),
      [Symbol.dispose]: () => source[Symbol.dispose](),
    };
  } catch (error) {
    source[Symbol.dispose]();
    throw error;
  }
}

function noTokenizer(folder: string): never {
  throw new FileError(
    `${folder} has no tokenizer.json: add the model's own, which makes the ids that the model was trained on.`,
  );
}
