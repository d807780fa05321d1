/** One architecture as one literal: all that loaders, writers, other tools' formats and the documents know of it. */
import type { Model, Task } from "../../core/model.ts";
import type { HostTensor } from "../../core/tensor.ts";
import { FileError } from "../../core/errors.ts";
import type { ModelConfig } from "../load/config.ts";
import type { GgufValue } from "../load/gguf/gguf.ts";
import { demand, oneOf } from "./layers.ts";

export type { Task };

/** What an architecture is called, wherever it is called anything, and what its files say by which name. */
export interface Names {
  /** As config.json says it. */
  readonly modelType: string;
  /** Which models are of it, and in what they differ from others: its row in docs/models.md. */
  readonly models: string;
  readonly own: string;
  /** Transformers' class of what is loaded, and what that puts before the paths of all modules but the head. */
  readonly className: string;
  readonly prefix: string;
  /** The head's module whose rows are the outputs: `lm_head` (of a decoder that says no other), `classifier`, `classifier.out_proj`. */
  readonly head?: string;
  /** The modules of the head at the top: by default that one. */
  readonly headModules?: readonly string[];
  /** The modules that are looked up by token, by position, …: the tokens' first. */
  readonly tables: readonly string[];
  readonly keys: SizeKeys;
  /** Transformers' defaults of keys that a file leaves out; `inner` is a multiple of the width. */
  readonly defaults: {
    readonly context?: number;
    readonly headDim?: number;
    readonly kvHeads?: number;
    readonly inner?: number;
    readonly eps: number;
  };
  /** The only values that are computed here, by key of config.json: the first is the default. */
  readonly only?: Readonly<Record<string, readonly string[] | readonly [boolean]>>;
  /** Whether the head is the tokens' table where config.json does not say so. Absent where there is no such head. */
  readonly tiedHead?: boolean;
  /** PEFT's word for linear layers that are stored [in, out]. */
  readonly fanInFanOut?: boolean;
  /** What mlx-lm puts before the paths of all modules but the head. Absent where it has no such model. */
  readonly mlx?: string;
  /** Absent where no GGUF file of it is read. */
  readonly gguf?: GgufNames;
  /** Tensors of files that are no weights. */
  readonly ignore?: readonly RegExp[];
  /** Today's name of a tensor of an old file. */
  readonly rename?: (name: string) => string;
  /** Keys of a small model's config.json beside sizes, with which the conformance suite computes what sizes leave out. */
  readonly example?: Readonly<Record<string, unknown>>;
}

/** The keys of config.json that every architecture has, by what they say. */
export interface SizeKeys {
  readonly width: string;
  readonly layers: string;
  readonly heads: string;
  /** Absent where there are as many as heads. */
  readonly kvHeads?: string;
  /** Absent where heads share the width. */
  readonly headDim?: string;
  readonly inner: string;
  readonly context: string;
  /** Absent where it is the same number in every model. */
  readonly eps?: string;
}

/** The keys that most have. */
export const usualKeys = {
  width: "hidden_size",
  layers: "num_hidden_layers",
  heads: "num_attention_heads",
  inner: "intermediate_size",
  context: "max_position_embeddings",
} as const satisfies SizeKeys;

/**
 * How a GGUF tensor is laid out beside the Hugging Face weight of that name: `same`; `transposed`, (out, in) where GPT-2's
 * Conv1D is (in, out); `heads`, rows of each query head paired for interleaved rotation; `kvHeads`, the same for keys;
 * `fromOne`, a norm's scale with the 1 that it is added to.
 */
export type GgufLayout = "same" | "transposed" | "heads" | "kvHeads" | "fromOne";

/** A module's path, with the layout of its tensor where that is not the same. */
export type GgufModule = string | readonly [string, GgufLayout];

/**
 * A key of GGUF files that belongs to some architectures alone, and the key of config.json that says the same. Beside it no
 * other file knows of such a key: what reads files, the page of them and the conformance suite take it from here.
 */
export interface GgufOwnKey {
  /** Its row in docs/gguf.md. */
  readonly meaning: string;
  readonly config: string;
  /** As what it is written. */
  readonly type: "u32" | "f32" | "bool" | "text" | "i32s";
  /** What config.json says where a file has no such key (llama.cpp's default). Without it, such a file is refused. */
  readonly absent?: unknown;
  /**
   * config.json's value of a file's, with the sizes by their keys of config.json, and back. Without them both are the same;
   * a list of equal values, one a layer, is then that value.
   */
  read?(value: GgufValue, sizes: Readonly<Record<string, unknown>>): unknown;
  write?(value: any, sizes: Readonly<Record<string, unknown>>): unknown;
}

/** llama.cpp's names. Source: its gguf-py/gguf/tensor_mapping.py and src/llama-arch.cpp. */
export interface GgufNames {
  /** `general.architecture`. A file is of the first family of that name. */
  readonly name: string;
  readonly norm: "rms" | "layer";
  /** Whether positions are rotated. */
  readonly rotary: boolean;
  /** The module of each tensor outside the layers. */
  readonly outside: Readonly<Record<string, GgufModule>>;
  /** The list of layers, and the module of each tensor `blk.N.…` inside one. */
  readonly layers: string;
  readonly inside: Readonly<Record<string, GgufModule>>;
  /** Tensors that are part of the configuration. */
  readonly ignore?: readonly string[];
  /**
   * Keys of its own, without the architecture's name: `attention.scale`. One that is also in the table of keys
   * (`load/gguf/keys.ts`) is handled as it says here instead.
   */
  readonly keys?: Readonly<Record<string, GgufOwnKey>>;
  /** What config.json says beside sizes and these keys. */
  config(file: { has(tensor: string): boolean }): Readonly<Record<string, unknown>>;
}

/** The sizes that all have. */
export interface TextSizes {
  readonly vocabSize: number;
  readonly contextLength: number;
  readonly width: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly innerWidth: number;
  readonly eps: number;
}

/** Weights in files, by their names with or without a class's prefix. */
export interface StoredWeights {
  readonly path: string;
  has(name: string): boolean;
  shapeOf(name: string): readonly number[];
}

/** What is made of a configuration, the names and shapes in files, and options. */
export interface Built<M> {
  /** The tree of parameters with shapes for leaves. */
  readonly shapes: unknown;
  /** Tensors in a file that are no weights of the model. */
  readonly ignore: readonly RegExp[];
  /** Weights by path that are not read but made. */
  readonly fresh?: ReadonlyMap<string, HostTensor>;
  /** The configuration of what is made, where it is not the file's. */
  readonly config?: ModelConfig;
  make(params: any): M;
}

/** An architecture: its names, and how a model is made of a configuration. */
export interface Family<M extends Model<any, any, any> = Model<any, any, any>, O = any> extends Names {
  /** Refuses a configuration that can't be built: known before there are weights. */
  check(config: ModelConfig): void;
  build(config: ModelConfig, stored: StoredWeights, options: O): Built<M>;
  /** The same with another head, by what it is for. */
  readonly tasks?: Partial<Readonly<Record<Task, Family>>>;
}

/** An architecture and what else it is loaded as, with a head each. */
export const variantsOf = (family: Family): Family[] => [family, ...Object.values(family.tasks ?? {})];

/** The path of a module or weight in Hugging Face's class. */
export function hubNameOf(
  { prefix, head, headModules = head === undefined ? [] : [head] }: Pick<Names, "prefix" | "head" | "headModules">,
  path: string,
): string {
  return headModules.some((module) => path === module || path.startsWith(`${module}.`)) ? path : prefix + path;
}

/** Tensors under a module: all of them, or those of which the rest of the name is as `names` says. */
export const under = (module: string, names = "") => new RegExp(`^${module.replaceAll(".", "\\.")}\\.${names}`);

/** Reads the sizes out of a configuration. Throws a {@link FileError} for what is not supported here. */
export function readSizes({ keys, defaults, only = {} }: Names, config: ModelConfig): TextSizes {
  for (const [key, values] of Object.entries(only)) {
    const [first] = values;
    if (typeof first === "boolean") demand(config, { [key]: first });
    else oneOf(config, key, values as readonly string[], first);
  }
  const width = config.integer(keys.width), heads = config.integer(keys.heads);
  if (keys.headDim === undefined && width % heads !== 0) {
    throw new FileError(
      `${config.path} says ${keys.width} is ${width} and ${keys.heads} ${heads}: heads must divide the width.`,
    );
  }
  const kvHeads = keys.kvHeads === undefined ? heads : config.integer(keys.kvHeads, defaults.kvHeads ?? heads);
  if (heads % kvHeads !== 0) {
    throw new FileError(
      `${config.path} says ${keys.heads} is ${heads} and ${keys.kvHeads} ${kvHeads}: the second must divide the first.`,
    );
  }
  const even = defaults.headDim ?? Math.floor(width / heads);
  return {
    vocabSize: config.integer("vocab_size"),
    contextLength: config.integer(keys.context, defaults.context),
    width,
    layers: config.integer(keys.layers),
    heads,
    kvHeads,
    headDim: keys.headDim === undefined ? even : config.integer(keys.headDim, even),
    innerWidth: config.integer(keys.inner, defaults.inner && defaults.inner * width),
    eps: keys.eps === undefined ? defaults.eps : config.number(keys.eps, defaults.eps),
  };
}
