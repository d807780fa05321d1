/** Adapters on disk as PEFT keeps them: `adapter_config.json` and `adapter_model.safetensors` in one folder. */
import { sameShape } from "../core/aval.ts";
import type { HostTensor } from "../core/tensor.ts";
import { FileError } from "../core/errors.ts";
import { replaceFile, writeFlushed } from "../models/load/atomic_file.ts";
import { pathKind, readJsonObject } from "../models/load/byte_source.ts";
import { encodeSafetensors, openSafetensors } from "../models/load/safetensors.ts";
import { listed, matchName } from "../models/load/weights.ts";
import { type AdapterConfig, alphaOf, parseAdapterConfig } from "./adapter_config.ts";
import { type AdapterPart, formatAdapterKey, parseAdapterKey } from "./adapter_keys.ts";

/** One adapted module on the host: A [r, in] and B [out, r]; for an embedding A [r, rows] and B [width, r]. */
export interface AdapterPair {
  readonly A: HostTensor;
  readonly B: HostTensor;
  /** Whether rows are looked up rather than multiplied; PEFT then names the tensors differently. */
  readonly embedding?: boolean;
  /** The base's own weight, which PEFT saves beside an adapted `embed_tokens` or `lm_head`. */
  readonly base?: HostTensor;
}

/** One tensor of an adapter file. */
export interface AdapterTensor {
  readonly key: string;
  /** The module as the class that PEFT wrapped names it: `transformer.h.0.attn.c_attn`. */
  readonly module: string;
  readonly part: AdapterPart;
  readonly tensor: HostTensor;
}

/** An adapter as read. */
export interface AdapterFiles {
  readonly folder: string;
  readonly config: AdapterConfig;
  readonly tensors: readonly AdapterTensor[];
}

const configName = "adapter_config.json";
const weightsName = "adapter_model.safetensors";

/**
 * Reads an adapter's folder. Every tensor is read as f32 and its key taken apart; whether it fits a model is asked by
 * {@link pairsFor}. Throws a {@link FileError} for a folder without an adapter, a damaged file, a key that is no adapter's, or
 * weights that are only there as a pickle.
 */
export function readAdapter(folder: string): AdapterFiles {
  if (pathKind(folder) !== "folder") {
    throw new FileError(`There is no adapter at ${folder}: give the folder that holds ${configName}.`);
  }
  const configPath = committedConfig(folder);
  const weightsPath = `${folder}/${weightsName}`;
  if (pathKind(configPath) === null) {
    throw new FileError(`${folder} has no ${configName}, so it holds no adapter: give the folder that has one.`);
  }
  if (pathKind(weightsPath) === null) {
    throw new FileError(
      pathKind(`${folder}/adapter_model.bin`) === null
        ? `${folder} has no ${weightsName}: bring the adapter's weights.`
        : `${folder} has adapter_model.bin, a pickle, which can run code when it is read, and is not opened: ` +
          `save the adapter as ${weightsName} (PEFT's save_pretrained does).`,
    );
  }
  const config = parseAdapterConfig(readJsonObject(configPath), configPath);
  using source = openSafetensors(weightsPath);
  const tensors: AdapterTensor[] = [];
  const unknown: string[] = [];
  for (const key of source.names) {
    const parsed = parseAdapterKey(key);
    if (parsed === null) unknown.push(key);
    else tensors.push({ key, ...parsed, tensor: source.read(key, "f32") });
  }
  if (unknown.length > 0) {
    throw new FileError(
      `${weightsPath} has keys that PEFT's LoRA files do not have. ${listed("Unknown", unknown)}Save it again.`,
    );
  }
  return { folder, config, tensors };
}

/** What `lora` is to be called with so that the adapter fits, its modules under the model's own paths. */
export interface AdapterOptions {
  readonly r: number;
  readonly alpha: number;
  readonly dropout: number;
  readonly targets: readonly string[];
  readonly rslora: boolean;
  readonly rankPattern: Readonly<Record<string, number>>;
  readonly alphaPattern: Readonly<Record<string, number>>;
}

/**
 * The options that rebuild an adapter on a model with these module paths. Targets are the modules that the file holds, ranks
 * those of its tensors, alphas those of its configuration, so that any selector of PEFT's is understood. Throws a
 * {@link FileError} for modules that the model has not, under any prefix, and for parts that plain LoRA has not.
 */
export function adapterOptions(adapter: AdapterFiles, paths: { has(path: string): boolean }): AdapterOptions {
  const { config } = adapter;
  const rankPattern: Record<string, number> = {}, alphaPattern: Record<string, number> = {};
  const modules = groupModules(adapter, paths);
  for (const [path, { module, A }] of modules) {
    const r = A!.shape[0], alpha = alphaOf(config, module);
    if (r !== config.r) rankPattern[path] = r;
    if (alpha !== config.lora_alpha) alphaPattern[path] = alpha;
  }
  return {
    r: config.r,
    alpha: config.lora_alpha,
    dropout: config.lora_dropout,
    targets: [...modules.keys()],
    rslora: config.use_rslora,
    rankPattern,
    alphaPattern,
  };
}

/**
 * The adapter's pairs under the paths of `shapes` (an adapted model's trainable leaves: path → shapes of A and B), whatever
 * prefix the file uses. Missing, unexpected and wrong-shape modules are listed together in one {@link FileError}.
 */
export function pairsFor(
  adapter: AdapterFiles,
  shapes: ReadonlyMap<string, { readonly A: readonly number[]; readonly B: readonly number[] }>,
): Record<string, AdapterPair> {
  const modules = groupModules(adapter, shapes);
  const pairs: Record<string, AdapterPair> = {};
  const wrong: string[] = [];
  for (const [path, { A, B, base, embedding }] of modules) {
    const expected = shapes.get(path)!;
    for (const [name, tensor] of [["A", A!], ["B", B!]] as const) {
      if (sameShape(tensor.shape, expected[name])) continue;
      wrong.push(`${name} of ${path} is [${tensor.shape}], expected [${expected[name]}]`);
    }
    pairs[path] = { A: A!, B: B!, embedding, ...(base && { base }) };
  }
  const missing = [...shapes.keys()].filter((path) => !modules.has(path));
  if (missing.length + wrong.length > 0) {
    throw new FileError(
      `The adapter in ${adapter.folder} does not fit the model. ${listed("Missing", missing)}` +
        `${listed("Of the wrong shape", wrong)}Use the model that it was trained on.`,
    );
  }
  return pairs;
}

interface Module {
  readonly module: string;
  A?: HostTensor;
  B?: HostTensor;
  base?: HostTensor;
  embedding: boolean;
}

/** Tensors by the model's path. Refuses what would otherwise be dropped: unknown modules, halves of pairs, other parts. */
function groupModules(adapter: AdapterFiles, paths: { has(path: string): boolean }): Map<string, Module> {
  const modules = new Map<string, Module>();
  const unexpected = new Set<string>();
  const other: string[] = [];
  for (const { key, module, part, tensor } of adapter.tensors) {
    const path = matchName(module, paths);
    if (path === null) {
      unexpected.add(module);
      continue;
    }
    const entry = modules.get(path) ?? { module, embedding: false };
    modules.set(path, entry);
    if (part === "A" || part === "embeddingA") entry.A = tensor;
    else if (part === "B" || part === "embeddingB") entry.B = tensor;
    else if (part === "baseWeight") entry.base = tensor;
    else other.push(key);
    if (part === "embeddingA") entry.embedding = true;
  }
  const halves = [...modules].filter(([, { A, B }]) =>
    A === undefined || B === undefined || A.shape.length !== 2 || B.shape.length !== 2 || A.shape[0] !== B.shape[1]
  );
  if (unexpected.size + other.length + halves.length > 0) {
    throw new FileError(
      `The adapter in ${adapter.folder} does not fit the model. ` +
        `${listed("Modules that the model has not", [...unexpected])}` +
        `${listed("Without a matching pair of A [r, in] and B [out, r]", halves.map(([path]) => path))}` +
        `${listed("Parts that are not supported (only A, B and embeddings are)", other)}` +
        `Use the model that it was trained on, and a plain LoRA adapter.`,
    );
  }
  return modules;
}

/** Whether PEFT saves the base's weight beside the adapter of this module. */
export function savesBase(module: string): boolean {
  return /(^|\.)(embed_tokens|lm_head)$/.test(module);
}

/**
 * Writes an adapter's folder. `hubName` turns a model's module path into the one that PEFT's wrapped class has. The same
 * adapter gives the same bytes. Both files are written and flushed under other names first, then put in place weights first; a
 * reader that finds the configuration still waiting knows that the weights are the new ones, so at every moment the folder
 * holds one whole adapter, the old or the new. Refuses values that are not finite, before anything is written.
 */
export function writeAdapter(
  folder: string,
  config: AdapterConfig,
  pairs: Readonly<Record<string, AdapterPair>>,
  hubName: (path: string) => string,
): void {
  const tensors = new Map<string, HostTensor>();
  const put = (path: string, part: AdapterPart, tensor: HostTensor) => {
    if (tensor.dtype === "f32" && !tensor.data.every(Number.isFinite)) {
      throw new FileError(
        `The adapter is not saved to ${folder}: ${part} of ${path} holds values that are not finite; use an earlier one.`,
      );
    }
    tensors.set(formatAdapterKey(hubName(path), part), tensor);
  };
  for (const [path, { A, B, embedding, base }] of Object.entries(pairs)) {
    put(path, embedding ? "embeddingA" : "A", A);
    put(path, embedding ? "embeddingB" : "B", B);
    if (base !== undefined && savesBase(path)) put(path, "baseWeight", base);
  }
  const text = JSON.stringify(sortKeys({ ...config, inference_mode: true }), null, 2) + "\n";

  const weightsPath = `${folder}/${weightsName}`, configPath = `${folder}/${configName}`;
  if (pathKind(pending(configPath)) !== null) { // an earlier save was cut short: complete it or take it back
    if (committedConfig(folder) !== configPath) replaceFile(pending(configPath), configPath);
    else Deno.removeSync(pending(configPath));
  }
  writeFlushed(pending(weightsPath), encodeSafetensors(tensors));
  try {
    writeFlushed(pending(configPath), [new TextEncoder().encode(text)]);
  } catch (error) {
    Deno.removeSync(pending(weightsPath));
    throw error;
  }
  replaceFile(pending(weightsPath), weightsPath);
  replaceFile(pending(configPath), configPath);
}

/** The name under which a new file waits for its turn. */
function pending(path: string): string {
  return `${path}.new`;
}

/** The configuration that belongs to the weights in place: the waiting one when only it still waits. */
function committedConfig(folder: string): string {
  const path = `${folder}/${configName}`;
  const cutShort = pathKind(pending(path)) === "file" && pathKind(pending(`${folder}/${weightsName}`)) === null;
  return cutShort ? pending(path) : path;
}

function sortKeys(value: unknown): unknown {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).sort().map(([key, inner]) => [key, sortKeys(inner)]));
}
