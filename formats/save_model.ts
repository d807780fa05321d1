/** Writes a whole model, such as one with an adapter merged in, as a folder that Hugging Face's libraries and `loadModel` read. */
import { sizeOf } from "../core/aval.ts";
import { byteSize, type DType, isFloat } from "../core/dtype.ts";
import { FileError, OptionError } from "../core/errors.ts";
import { asNumbers } from "../core/ops/quantize.ts";
import type { HostTensor, Operand, Tensor } from "../core/tensor.ts";
import { flatten } from "../core/tree.ts";
import { jit } from "../kernels/runtime/jit.ts";
import { read } from "../kernels/runtime/read.ts";
import type { Model } from "../core/model.ts";
import type { Loaded } from "../models/load/loader.ts";
import { familyOf, variantOf } from "../models/families/mod.ts";
import { writeFlushed } from "../models/load/files/atomic_file.ts";
import { pathKind, readJsonObject } from "../models/load/files/byte_source.ts";
import { encodeSafetensors } from "../models/load/safetensors/safetensors.ts";
import { stageFolder } from "../models/load/files/staged_folder.ts";
import { isFinite, toDType } from "./host_tensors.ts";
import { checkMembers, checkOptions, checkPath } from "../core/options.ts";

/** Any model that came from files. */
export type AnyLoaded<P> = Loaded<Model<P, unknown, unknown>>;

/** How a model is written. */
export interface SaveModelOptions<P = unknown> {
  /** The parameters, such as merged ones: by default the model's own. */
  readonly params?: P;
  /** The dtype of every matrix: by default the one that it is held in, f32 for packed ones. */
  readonly dtype?: "f32" | "f16" | "bf16";
  /** The most bytes of a file of weights; a larger model is written as several. 2 GB by default. */
  readonly shardBytes?: number;
}

const dtypeNames: Readonly<Record<string, string>> = { f32: "float32", f16: "float16", bf16: "bfloat16" };

/** Files that belong to a model beside its weights and config.json; copied where the base has them. */
const companions = [
  ...["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model"],
  ...["vocab.json", "vocab.txt", "merges.txt", "chat_template.jinja", "chat_template.json", "generation_config.json"],
];

/**
 * Saves a model's parameters with the model's configuration and its tokenizer's files. Everything is written
 * and flushed beside the folder's old contents first and then put in place, config.json last: a folder that is cut off in the
 * middle holds the old model, or none, but never a mixture. Files of an old model that the new one has not are removed.
 *
 * @returns the names of the files that were written
 * @throws {FileError} when the folder can't be written, is the base's own, or a value is not finite
 */
export async function saveModel<P>(
  folder: string,
  model: AnyLoaded<P>,
  options: SaveModelOptions<P> = {},
): Promise<string[]> {
  checkOptions("saveModel", options, { params: true, dtype: true, shardBytes: true });
  checkPath("saveModel", folder);
  checkMembers("saveModel", "a model that was loaded", model, ["params", "path", "config"]);
  const { params = model.params } = options;
  refuseOwnFolder(folder, model.path);
  using staging = stageFolder(folder);
  const weights = await writeShards(staging.path, namedLeaves(model, params), options);
  const others = writeCompanions(staging.path, model);
  writeJson(`${staging.path}/config.json`, configOf(model, params, options));
  staging.commit("config.json", (name) => companions.includes(name) || isWeights(name));
  return [...weights, ...others, "config.json"];
}

/** Whether a file holds a model's weights, in any way in which transformers would find them. */
function isWeights(name: string): boolean {
  return /^(model|pytorch_model)(-\d{5}-of-\d{5})?\.(safetensors|bin)(\.index\.json)?$/.test(name);
}

/**
 * A model is not written over the one that it was made of.
 *
 * @throws {FileError} where the folder is the base's
 */
export function refuseOwnFolder(folder: string, base: string): void {
  if (pathKind(folder) === null || pathKind(base) !== "folder") return;
  if (Deno.realPathSync(folder) === Deno.realPathSync(base)) {
    throw new FileError(`${folder} is the folder of the base model, which is not overwritten: choose another folder.`);
  }
}

/** A leaf by its name in the file, with the dtype that it is written in. */
interface NamedLeaf {
  readonly name: string;
  readonly leaf: Tensor;
}

function namedLeaves<P>(model: AnyLoaded<P>, params: P): NamedLeaf[] {
  const { leaves, paths } = flatten<Tensor>(params);
  return leaves.map((leaf, i) => ({ name: model.hubName?.(paths[i]) ?? paths[i], leaf }));
}

function writtenDType({ leaf }: NamedLeaf, { dtype }: SaveModelOptions): DType {
  if (dtype !== undefined && leaf.shape.length > 1) return dtype;
  return isFloat(leaf.dtype) ? leaf.dtype : "f32";
}

/** Writes the weights, one shard in memory at a time; the names of the files, an index last. */
async function writeShards(folder: string, all: readonly NamedLeaf[], options: SaveModelOptions): Promise<string[]> {
  const { shardBytes = 2e9 } = options;
  if (!(shardBytes > 0)) throw new OptionError(`shardBytes is ${shardBytes}, where a positive number is expected`);
  const bytesOf = (named: NamedLeaf) => sizeOf(named.leaf.shape) * byteSize[writtenDType(named, options)];
  const shards: NamedLeaf[][] = [[]];
  let held = 0;
  for (const named of all) {
    if (held > 0 && held + bytesOf(named) > shardBytes) {
      shards.push([]);
      held = 0;
    }
    shards.at(-1)!.push(named);
    held += bytesOf(named);
  }
  const five = (n: number) => String(n).padStart(5, "0");
  const files = shards.map((_, i) =>
    shards.length === 1 ? "model.safetensors" : `model-${five(i + 1)}-of-${five(shards.length)}.safetensors`
  );
  for (const [i, shard] of shards.entries()) {
    writeFlushed(`${folder}/${files[i]}`, encodeSafetensors(await contentsOf(shard, options)));
  }
  if (shards.length === 1) return files;
  const map = shards.flatMap((shard, i) => shard.map(({ name }) => [name, files[i]] as const));
  writeJson(`${folder}/model.safetensors.index.json`, {
    metadata: { total_size: all.reduce((sum, named) => sum + bytesOf(named), 0) },
    weight_map: Object.fromEntries(map.sort(([a], [b]) => a < b ? -1 : 1)),
  });
  return [...files, "model.safetensors.index.json"];
}

async function contentsOf(shard: readonly NamedLeaf[], options: SaveModelOptions): Promise<Map<string, HostTensor>> {
  const packed = shard.map(({ leaf }) => leaf).filter((leaf) => !isFloat(leaf.dtype));
  const opened = packed.length === 0 ? [] : jit((xs: Operand[]) => xs.map((x) => asNumbers(x)))(packed);
  const contents = await read(shard.map(({ leaf }) => opened[packed.indexOf(leaf)] ?? leaf)) as HostTensor[];
  for (const tensor of opened) tensor.dispose();
  return new Map(shard.map((named, i) => {
    const host = toDType(contents[i], writtenDType(named, options));
    if (!isFinite(host)) {
      throw new FileError(
        `The model is not saved: ${named.name} holds values that are not finite as ${host.dtype}; use an earlier adapter, ` +
          `or a wider dtype.`,
      );
    }
    return [named.name, host];
  }));
}

/** The base's own configuration where it has one, so that every version of its library still understands it. */
function configOf<P>(model: AnyLoaded<P>, params: P, options: SaveModelOptions): Record<string, unknown> {
  const { raw, modelType } = model.config;
  const variant = variantOf(modelType, raw.architectures);
  const isFolder = pathKind(model.path) === "folder";
  const { quantization_config: _, torch_dtype: __, ...kept } = isFolder
    ? readJsonObject(`${model.path}/config.json`)
    : fromGguf(model);
  const all = namedLeaves(model, params);
  const names = new Set(all.map(({ name }) => name));
  const largest = all.reduce((a, b) => sizeOf(b.leaf.shape) > sizeOf(a.leaf.shape) ? b : a);
  const labels = Object.fromEntries(["id2label", "label2id"].filter((key) => key in raw).map((key) => [key, raw[key]]));
  return {
    ...kept,
    // What an encoder was loaded as, with its head or without.
    ...(familyOf(modelType)?.tasks && {
      ...("labels" in model && labels),
      ...("problem_type" in raw && { problem_type: raw.problem_type }),
      architectures: raw.architectures,
    }),
    // Merging into one use of a tied weight splits it; a file may have had a head of its own, whatever it says.
    ...(variant?.tiedHead !== undefined &&
      (model.tied?.[variant.head!] !== undefined || names.has(`${variant.head}.weight`)) &&
      { tie_word_embeddings: !names.has(`${variant.head}.weight`) }),
    dtype: dtypeNames[writtenDType(largest, options)],
  };
}

/** A GGUF's configuration as config.json has it, in the old spelling of its rotary embedding beside the new one. */
function fromGguf({ config: { raw, modelType, path } }: AnyLoaded<unknown>): Record<string, unknown> {
  const rope = raw.rope_parameters as { rope_theta?: number; rope_type?: string } | undefined;
  if (rope?.rope_type === "factors") {
    throw new FileError(
      `${path} has rotary factors of its own, which a config.json can't express: merge into the model's own folder from the hub.`,
    );
  }
  return {
    architectures: [familyOf(modelType)!.className],
    ...raw,
    ...(rope?.rope_theta !== undefined && { rope_theta: rope.rope_theta }),
  };
}

/** Copies what belongs to the model; a GGUF's tokenizer is written as files. The names. */
function writeCompanions(folder: string, model: AnyLoaded<unknown>): string[] {
  const base = model.path;
  const own = pathKind(base) === "folder" ? companions.filter((name) => pathKind(`${base}/${name}`) === "file") : [];
  for (const name of own) {
    refuseForeign(base, name);
    writeFlushed(`${folder}/${name}`, [Deno.readFileSync(`${base}/${name}`)]);
  }
  if (pathKind(base) === "folder") return own;
  const { endIds, files: { tokenizer, config, chatTemplate } } = model.tokenizer();
  writeJson(`${folder}/tokenizer.json`, tokenizer);
  writeJson(`${folder}/tokenizer_config.json`, {
    ...config,
    ...(chatTemplate !== undefined && { chat_template: chatTemplate }),
  });
  // What ends a text is read from here by transformers, and by this library.
  if (endIds.length > 0) writeJson(`${folder}/generation_config.json`, { eos_token_id: endIds });
  return ["tokenizer.json", "tokenizer_config.json", ...(endIds.length > 0 ? ["generation_config.json"] : [])];
}

/**
 * A companion is copied into a folder that people publish: a link to elsewhere would take any file along. The hub's cache links
 * its snapshots to `blobs/` beside them.
 */
function refuseForeign(base: string, name: string): void {
  const [home, real] = [base, `${base}/${name}`].map((path) => Deno.realPathSync(path).replaceAll("\\", "/"));
  const cache = home.match(/^(.*\/models--[^/]+)\/snapshots\/[^/]+$/)?.[1];
  const within = [home, ...(cache === undefined ? [] : [`${cache}/blobs`])];
  if (within.includes(real.replace(/\/[^/]*$/, "")) && Deno.statSync(real).isFile) return;
  throw new FileError(
    `The model is not saved: ${base}/${name} is a link to ${real}, which is not the model's own, and would be copied: put ` +
      `the file itself there.`,
  );
}

function writeJson(path: string, value: unknown): void {
  writeFlushed(path, JSON.stringify(value, null, 2) + "\n");
}
