/** From a model's files to a model on a device: the memory it needs is checked before a weight is read. */
import { sizeOf } from "../../core/aval.ts";
import { type DType, storageBytes } from "../../core/dtype.ts";
import { DeviceError, FileError, OptionError } from "../../core/errors.ts";
import { formatBytes } from "../../core/host/format.ts";
import { newInput, type Value } from "../../core/ir/graph.ts";
import { isPacked } from "../../core/packed/blocks.ts";
import { packedGgufTypes } from "./gguf/packed.ts";
import type { Model, TokenInputs } from "../../core/model.ts";
import { type HostTensor, type TensorHome, upload } from "../../core/tensor.ts";
import { flatten } from "../../core/tree.ts";
import type { Tensor } from "../../core/tensor.ts";
import type { LayeredModel } from "../families/language_model.ts";
import { unpackBitsandbytes } from "./safetensors/bitsandbytes.ts";
import type { ModelConfig } from "./config.ts";
import { hubNames, type HubOptions } from "./hub/hub.ts";
import type { ModelFiles } from "./model_files.ts";
import { type ModelPlace, openModel } from "./place.ts";
import type { Tokenizer } from "./tokenizer.ts";
import type { Family, StoredWeights } from "../families/family.ts";
import { configOfWeights } from "./tied_head.ts";
import { checkWeights, matchName, renameWeights, type WeightSource } from "./weights.ts";
import { type TextGenerator, textGenerator, type TextModel } from "../generate/text_generator.ts";
import type { Steps } from "../generate/generate.ts";
import { checkNames, type OptionNames } from "../../core/options.ts";

/** How a weight may be held: as f32, as the 16 bits that it is stored in, or `packed`, with the codes of its file. */
export type WeightDType = "f32" | "f16" | "bf16" | "packed";
const weightDTypes: readonly WeightDType[] = ["f32", "f16", "bf16", "packed"];

/** The device for a model, and how its weights are held. */
export interface LoadOptions extends HubOptions {
  /** The device, as `openDevice` returns it. */
  readonly device: TensorHome;
  /**
   * How matrices are held. By default as the file stores them; quantised ones become f32. With `packed` those stay as they
   * are that kernels can read (Q4_0, Q4_1, Q8_0, Q4_K, Q6_K); the others become f32, and `notes` says so. Vectors are always
   * f32.
   */
  readonly dtype?: WeightDType;
  /** Called after each weight, with the bytes now held and the bytes in all. */
  readonly onProgress?: (held: number, total: number) => void;
}

/** The names of {@link LoadOptions}. */
export const loadNames: OptionNames<LoadOptions> = { ...hubNames, device: true, dtype: true, onProgress: true };

/** What a model read from files has besides the model itself. Disposing of it frees its weights. */
export interface FromFiles extends Disposable {
  /** What it was loaded by: a folder, a file, or its name on the hub. */
  readonly name: string;
  /** Where its files are. */
  readonly path: string;
  /** Its configuration. */
  readonly config: ModelConfig;
  /** What a person should know of its files, and of how the weights are held: those that were to stay packed and could not. */
  readonly notes: readonly string[];
  /** The model's tokenizer; a sentence where it has none. */
  tokenizer(): Tokenizer;
}

/** A model with its weights on a device. */
export type Loaded<M> = M extends Pick<Steps, "step"> ? M & FromFiles & TextGenerator : M & FromFiles;

/** A language model with its weights on a device. */
export interface LoadedModel<P = unknown> extends LayeredModel<P>, FromFiles, TextGenerator {}

/** Loads models of one architecture with parameters P. */
export interface Loader<
  P,
  M extends Model<P, TokenInputs, Value> = LayeredModel<P>,
  O extends LoadOptions = LoadOptions,
> {
  /** The architecture, as configurations name it. */
  readonly modelType: string;
  /** @ignore All that is known of the architecture. */
  readonly family: Family<M, O>;
  /**
   * Loads a model from a folder in Hugging Face's layout, a .gguf file, the hub by its name there (`owner/name`), or memory.
   *
   * @throws {FileError} when the files are missing, damaged, of another architecture, or do not fit each other
   * @throws {DeviceError} when the device can't hold the weights; nothing has been read then
   */
  load(place: ModelPlace, options: O): Promise<Loaded<M>>;
  /** @ignore The same from files that are open; they are closed at the end. */
  fromFiles(files: ModelFiles, options: O): Promise<Loaded<M>>;
  /** @ignore All but the weights, of files that are open. */
  outline(files: ModelFiles, options: O): Outlined<M>;
  /** @ignore Refuses a configuration that can't be built. */
  check(config: ModelConfig): void;
}

/** A model of which no weight was read yet. Disposing of it closes its files. */
export interface Outlined<M> extends Disposable {
  /** The model on placeholders, checked against its files and the device's memory: all that can be asked but values. */
  readonly outline: Loaded<M>;
  /** The same with its weights held otherwise; null where they can't be, or do not fit. */
  heldAs(dtype: WeightDType): Loaded<M> | null;
  /** Reads the weights. */
  load(): Promise<Loaded<M>>;
}

/** The loader of one architecture, with the names of its options. */
export function loaderOf<P, M extends Model<P, TokenInputs, Value>, O extends LoadOptions>(
  family: Family<M, O>,
  names: OptionNames<LoadOptions> = loadNames,
): Loader<P, M, O> {
  const { modelType, check, rename, build } = family;
  const checkWhole = (config: ModelConfig) => {
    refuseQuantised(config);
    check(config);
  };
  const outline = (files: ModelFiles, options: O): Outlined<M> => {
    const named = rename === undefined ? files.source : renameWeights(files.source, rename);
    let source = named;
    try {
      refuseQuantised(files.config);
      source = unpackBitsandbytes(named);
      const given = configOfWeights(files.config, source, family);
      const { shapes, ignore, make, config = given, fresh } = build(given, storedIn(source), options);
      const planned = (options: O) => planWeights(source, shapes, ignore, options, fresh);
      const weights = planned(options);
      let tokenizer: Tokenizer | undefined;
      const made = (params: unknown, tensors: readonly Tensor[]) => {
        const model = make(params);
        return {
          ...model,
          ...("step" in model && textGenerator((self: TextModel<unknown>) => self)),
          name: files.name ?? files.path,
          path: files.path,
          config,
          notes: [...files.notes ?? [], ...weights.notes],
          tokenizer: () => tokenizer ??= files.tokenizer(),
          [Symbol.dispose]: () => tensors.forEach((t) => t.dispose()),
        } as unknown as Loaded<M>;
      };
      return {
        outline: made(weights.placeholders, []),
        heldAs: (dtype) => {
          try {
            return made(planned({ ...options, dtype }).placeholders, []);
          } catch (error) {
            if (error instanceof OptionError || error instanceof DeviceError) return null;
            throw error;
          }
        },
        // deno-lint-ignore require-await -- a promise, so that reading may become asynchronous with the same interface
        load: async () => {
          const { tree, tensors } = weights.read();
          return made(tree, tensors);
        },
        [Symbol.dispose]: () => source[Symbol.dispose](),
      };
    } catch (error) {
      source[Symbol.dispose]();
      throw error;
    }
  };
  const fromFiles = async (files: ModelFiles, options: O): Promise<Loaded<M>> => {
    using opened = outline(files, options);
    return await opened.load();
  };
  return {
    ...{ modelType, family },
    outline,
    fromFiles,
    check: checkWhole,
    load: async (place, options) => {
      checkNames("load", options, names);
      return fromFiles(await openModel(place, [modelType], options, checkWhole), options);
    },
  };
}

function storedIn(source: WeightSource): StoredWeights {
  const names = new Set(source.names);
  return {
    path: source.path,
    has: (name) => matchName(name, names) !== null,
    shapeOf: (name) => source.entry(matchName(name, names) ?? name).shape,
  };
}

/** Refuses checkpoints whose matrices another tool has packed: they would look like tensors of odd shapes. */
function refuseQuantised({ path, raw }: ModelConfig): void {
  const packing = raw.quantization_config as Readonly<Record<string, unknown>> | null | undefined;
  if (packing === null || packing === undefined) return;
  const { quant_method: tool = "another tool", load_in_8bit: eight } = packing;
  if (tool === "bitsandbytes" && eight !== true) return;
  throw new FileError(
    `${path} says the weights were quantised by ${tool}${
      tool === "bitsandbytes" ? " into 8 bits" : ""
    }, which is not read: choose the model's own weights, or a .gguf file of it.`,
  );
}

const isShape = (x: unknown): x is number[] => Array.isArray(x) && x.every((d) => typeof d === "number");

/** Checks every name and shape, then the memory; reads where that is asked for. */
function planWeights(
  source: WeightSource,
  shapes: unknown,
  ignore: readonly RegExp[],
  options: LoadOptions,
  fresh: ReadonlyMap<string, HostTensor> = new Map(),
) {
  const { device, dtype, onProgress } = options;
  if (dtype !== undefined && !weightDTypes.includes(dtype)) {
    throw new OptionError(
      `weights can't be held as ${dtype}: choose ${weightDTypes.slice(0, -1).join(", ")} or packed`,
    );
  }
  const flat = flatten<number[]>(shapes, (x) => isShape(x) && x.length > 0);
  const expected = new Map(flat.paths.map((path, i) => [path, flat.leaves[i]]));
  const inFile = new Map([...expected].filter(([path]) => !fresh.has(path)));
  const found = checkWeights(inFile, source, ignore);
  const held = (path: string, as = dtype): DType => {
    const made = fresh.get(path);
    if (made !== undefined) return made.dtype;
    if (expected.get(path)!.length < 2) return "f32";
    const entry = source.entry(found.get(path)!);
    return as === "packed" ? entry.packed ?? entry.dtype : as ?? entry.dtype;
  };
  const packs = (as: WeightDType | undefined) => flat.paths.some((path) => isPacked(held(path, as)));
  if (dtype === "packed" && !packs(dtype)) {
    throw new OptionError(
      `no weight of ${source.path} can stay packed: give a Llama's .gguf file of the type ` +
        `${
          Object.keys(packedGgufTypes).join(", ")
        }, or what bitsandbytes saved in 4 bits, or quantize the weights after loading them`,
    );
  }
  const bytes = (as = dtype) =>
    flat.paths.reduce((n, p, i) => n + storageBytes(held(p, as), sizeOf(flat.leaves[i])), 0);
  const total = bytes();
  checkCapacity(source.path, device, total, (as) => as === "packed" && !packs("packed") ? Infinity : bytes(as));

  const read = () => {
    let done = 0;
    const tensors: Tensor[] = [];
    try {
      for (const path of flat.paths) {
        tensors.push(upload(device, fresh.get(path) ?? source.read(found.get(path)!, held(path))));
        done += storageBytes(tensors.at(-1)!.dtype, tensors.at(-1)!.size);
        onProgress?.(done, total);
      }
    } catch (error) {
      tensors.forEach((t) => t.dispose());
      throw error;
    }
    return { tree: flat.unflatten(tensors), tensors };
  };
  const widened = dtype !== "packed" ? [] : flat.paths.filter((path) => !fresh.has(path)).flatMap((path): Widened[] => {
    const { stored, bytes, shape } = source.entry(found.get(path)!);
    const more = storageBytes(held(path), sizeOf(shape)) - bytes;
    return shape.length > 1 && more > 0 && !isPacked(held(path)) ? [{ path, stored, dtype: held(path), more }] : [];
  });
  const placeholders = flat.paths.map((path, i) => newInput({ shape: flat.leaves[i], dtype: held(path) }, path));
  return { placeholders: flat.unflatten(placeholders), read, notes: describeWidened(widened) };
}

/** A weight that was to stay packed and could not. */
interface Widened {
  readonly path: string;
  readonly stored: string;
  readonly dtype: DType;
  /** The bytes that it takes more than in its file. */
  readonly more: number;
}

/** A line for each type of the file: `30 weights of type Q5_K can't stay packed …: layers.*.mlp.down_proj.weight (30)`. */
function describeWidened(all: readonly Widened[]): string[] {
  return [...new Set(all.map(({ stored }) => stored))].map((type) => {
    const some = all.filter(({ stored }) => stored === type);
    const counts = new Map<string, number>();
    for (const { path } of some) {
      const name = path.replace(/\.\d+(?=\.)/g, ".*");
      counts.set(name, (counts.get(name) ?? 0) + 1);
    }
    const names = [...counts].map(([name, n]) => n === 1 ? name : `${name} (${n})`).join(", ");
    const more = formatBytes(some.reduce((sum, w) => sum + w.more, 0));
    return `${some.length} weights of type ${type} can't stay packed and are held as ${
      some[0].dtype
    }, ${more} more than in ` +
      `the file: ${names}`;
  });
}

/** Refuses a model that the device can't hold, with what would fit: packed weights lose nothing, bf16 rounds. */
function checkCapacity(path: string, device: TensorHome, needed: number, held: (as: WeightDType) => number): void {
  const { capacity } = device;
  if (capacity === undefined || needed <= capacity) return;
  const dtype = (["packed", "bf16"] as const).find((dtype) => held(dtype) < needed && held(dtype) <= capacity);
  const remedy = dtype === undefined
    ? "choose a smaller model or a device with more memory"
    : `use --dtype ${dtype} (${formatBytes(held(dtype))})`;
  throw new DeviceError(
    `${path} needs ${formatBytes(needed)}, one memory of ${device.description} holds ${
      formatBytes(capacity)
    }: ${remedy}`,
  );
}
