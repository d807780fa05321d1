/** Whether an adapter's tensors are those that its configuration promises and a model can take; all that is amiss at once. */
import { sameShape } from "../core/aval.ts";
import { FileError } from "../core/errors.ts";
import type { HostTensor } from "../core/tensor.ts";
import { listed, matchName } from "../models/load/weights.ts";
import { type AdapterConfig, matchesWhole, patterned, rankOf, selects } from "./peft/config.ts";
import type { Method, TuneOptions } from "../lora/mod.ts";
import type { AdapterFiles, AdapterTensor } from "./peft/files.ts";
import { formatAdapterKey, partOf, wrapper } from "./peft/keys.ts";

/** The leaves of one module on the host, by their names in `trainable`; `base` is the base's weight beside an embedding. */
export type HostEntry = Readonly<Record<string, HostTensor>>;

/** A module of a model, as far as files are concerned. */
export interface ModuleNames {
  /** The path in the model's own tree. */
  readonly path: string;
  /** The path in Hugging Face's class. */
  readonly hub: string;
  /** Whether its weight is a matrix: only those are adapted. */
  readonly matrix: boolean;
}

/** One module of an adapter beside the model's own. */
export interface FittedModule {
  /** The path in the model's own tree. */
  readonly path: string;
  /** The path that the file spells. */
  readonly module: string;
  readonly hub: string;
  readonly embedding: boolean;
  readonly tensors: ReadonlyMap<string, AdapterTensor>;
}

/** An adapter's modules under a model's paths. */
export interface FittedAdapter {
  readonly modules: ReadonlyMap<string, FittedModule>;
  /** Tensors of modules that the model does not have. */
  readonly unexpected: readonly string[];
  /** Modules that the configuration names and the file has nothing for, as the file would spell them. */
  readonly missing: readonly string[];
  /** What a person should know: spellings, and what was not evaluated. */
  readonly notes: readonly string[];
}

/**
 * Brings an adapter's tensors under a model's paths, whatever prefix its keys have.
 *
 * @throws {FileError} when no module of it is one of the model's
 */
export function fitAdapter(adapter: AdapterFiles, own: readonly ModuleNames[]): FittedAdapter {
  const paths = new Map(own.map((m) => [m.path, m]));
  const modules = new Map<
    string,
    FittedModule & { embedding: boolean; readonly tensors: Map<string, AdapterTensor> }
  >();
  const unexpected: string[] = [];
  const copies = new Set(wrappedCopies(adapter.tensors).keys());
  for (const tensor of adapter.tensors) {
    const { key, module, part } = tensor;
    if (copies.has(tensor)) continue;
    const path = part.of ?? matchName(module, paths);
    // Two spellings of one module in one file: only one of them can be meant.
    if (path === null || (modules.get(path)?.module ?? module) !== module) {
      unexpected.push(key);
      continue;
    }
    const entry = modules.get(path) ??
      { path, module, hub: paths.get(path)?.hub ?? path, embedding: false, tensors: new Map() };
    modules.set(path, entry);
    entry.tensors.set(part.leaf, tensor);
    if (part.on === "embedding") entry.embedding = true;
  }
  if (modules.size === 0) {
    throw new FileError(
      `${adapter.path} is not for this model. ${listed("Modules that the model does not have", modulesOf(adapter))}` +
        `Use the model that it was trained on.`,
    );
  }
  const notes: string[] = [];
  const [first] = modules.values();
  if (first.module !== first.hub) {
    notes.push(
      `its keys are spelled ${wrapper}${first.module}…, as another class of the same model saves them, ` +
        `where this model's own spelling is ${wrapper}${first.hub}…; both are read`,
    );
  }
  const { config, method } = adapter;
  const expected = method.whole ? () => false : selects(config);
  if (expected === null) {
    notes.push(
      `target_modules is ${JSON.stringify(config.target_modules)}, which can't be evaluated here: ` +
        `the modules that the file holds are taken`,
    );
  }
  const named = own.filter((m) => m.matrix && (expected?.(m.hub) || expected?.(m.path)));
  const parts = method.keys.filter(({ on, optional }) => on === undefined && !optional);
  const missing = named.filter(({ path }) => !hasOwn(method, modules.get(path)?.tensors))
    .map(({ path, hub }) =>
      `${formatAdapterKey(spelled(first, path, hub), parts[0])}${
        parts.slice(1).map(({ leaf }) => ` and its ${leaf}`).join("")
      }`
    );
  return { modules, unexpected, missing, notes };
}

/** Whether there is anything of what the method trains. */
function hasOwn({ keys }: Method, tensors: ReadonlyMap<string, unknown> = new Map()): boolean {
  return keys.some(({ leaf, optional }) => !optional && tensors.has(leaf));
}

/**
 * What PEFT's wrapper of a module that is saved whole calls the trained one and the one that it had; the adapter's name follows
 * where the module holds others.
 */
const wrapped = [/\.(modules_to_save|original_module)(?=\.|$)/, /\.modules_to_save\.[^.]+(?=\.)/];

/**
 * Biases that stand twice in a file: `bias="all"` saves all that is called a bias, those inside PEFT's wrappers of
 * modules_to_save, too. It never reads them: the value is the one under the module's own name, to which each is mapped.
 */
export function wrappedCopies(tensors: readonly AdapterTensor[]): Map<AdapterTensor, AdapterTensor> {
  const biases = new Map(
    tensors.flatMap((t) => t.part.leaf === "bias" && t.part.on === undefined ? [[t.module, t]] : []),
  );
  return new Map(
    [...biases].flatMap(([module, copy]) => {
      const own = wrapped.flatMap((name) => name.test(module) ? biases.get(module.replace(name, "")) ?? [] : [])[0];
      return own === undefined ? [] : [[copy, own]];
    }),
  );
}

/** A module's name in this file. */
function spelled({ path, module }: FittedModule, other: string, hub: string): string {
  if (module.endsWith(path)) return module.slice(0, module.length - path.length) + other;
  return path.endsWith(module) ? other.slice(path.length - module.length) : hub;
}

function modulesOf(adapter: AdapterFiles): string[] {
  return [...new Set(adapter.tensors.map(({ module }) => module))];
}

/** Refuses ranks that no dimension of the file's own tensors reaches, before first values of that size are made. */
function checkRanks({ path, config }: AdapterFiles, modules: readonly FittedModule[]): void {
  const wrong = modules.flatMap(({ module, hub, tensors }) => {
    const pair = [tensors.get("A"), tensors.get("B")].flatMap((t) => t === undefined ? [] : [t]);
    if (pair.length === 0) return [];
    const rank = rankOf(config, module, hub);
    if (pair.some(({ tensor }) => tensor.shape.some((d) => d >= rank))) return [];
    return [`${pair[0].key} is [${pair[0].tensor.shape}], and its rank is to be ${rank}`];
  });
  if (wrong.length === 0) return;
  throw new FileError(
    `${path} does not fit its own configuration. ${listed("Of the wrong shape", wrong)}` +
      `Nothing is loaded: use the files that were saved together.`,
  );
}

/**
 * What `lora` is to be called with so that an adapter fits.
 *
 * @throws {FileError} for a rank far from that of the adapter's tensors
 */
export function adapterOptions(
  files: AdapterFiles,
  { modules }: Pick<FittedAdapter, "modules">,
): Partial<TuneOptions<any>> & Readonly<Record<string, unknown>> {
  const { config, method } = files;
  checkRanks(files, [...modules.values()]);
  const all = [...modules.values()];
  const having = (leaf: string) => all.filter((m) => m.tensors.has(leaf));
  const adapted = all.filter((m) => hasOwn(method, m.tensors));
  const isAdapted = new Set(adapted);
  const pattern = (key: string, of: string) =>
    Object.fromEntries(
      adapted.map((m) => [`^${escape(m.hub)}`, patterned(config, key, { of, names: [m.module, m.hub] })] as const)
        .filter(([, value]) => value !== config[of]),
    );
  const own = Object.entries(method.options).flatMap(([name, { peft, file, patternOf }]) =>
    file ? [[name, patternOf ? pattern(peft!, patternOf) : config[peft!]] as const] : []
  );
  const tokens = having("tokens").map(({ path, module }) => [path, tokensOf(config, module)] as const);
  const beside = {
    ...Object.fromEntries(own),
    modulesToSave: having("weight").filter((m) => !isAdapted.has(m)).map(({ path }) => path),
  };
  if (method.whole) return beside;
  return {
    ...beside,
    targets: adapted.map(({ path }) => path),
    bias: config.bias === "lora_only" ? "lora" as const : config.bias,
    trainableTokens: tokens.length === 0 ? undefined : Object.fromEntries(tokens),
    tie: config.ensure_weight_tying ? "all" as const : "use" as const,
  };
}

/** The rows of a module that `trainable_token_indices` names. */
function tokensOf(config: AdapterConfig, module: string): readonly number[] {
  const indices = config.trainable_token_indices;
  if (Array.isArray(indices)) return indices;
  const named = Object.entries(indices ?? {}).find(([name]) => matchesWhole(name, module));
  return (named?.[1] ?? []) as readonly number[];
}

/** A path as an expression that matches it alone. */
export function escape(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
}

/** The shapes of a model's trainable leaves, by path. */
export type EntryShapes = ReadonlyMap<string, { readonly [name: string]: readonly number[] }>;

/**
 * The adapter's tensors by the paths and names of a model's trainable leaves.
 *
 * @throws {FileError} that lists missing, unexpected and wrong-shape keys together
 */
export function entriesOf(
  adapter: AdapterFiles,
  fitted: FittedAdapter,
  shapes: EntryShapes,
): Record<string, HostEntry> {
  const missing = [...fitted.missing], unexpected = [...fitted.unexpected], wrong: string[] = [];
  const entries: Record<string, Record<string, HostTensor>> = {};
  const [first] = fitted.modules.values();
  for (const [path, expected] of shapes) {
    const module = fitted.modules.get(path);
    for (const [leaf, shape] of Object.entries(expected)) {
      const found = module?.tensors.get(leaf);
      if (found === undefined) {
        const traits = {
          embedding: module?.embedding,
          adapted: hasOwn(adapter.method, new Map(Object.entries(expected))),
        };
        missing.push(
          formatAdapterKey(module?.module ?? spelled(first, path, path), partOf(adapter.method, leaf, traits)),
        );
      } else if (!sameShape(found.tensor.shape, shape)) {
        wrong.push(`${found.key} is [${found.tensor.shape}], expected [${shape}]`);
      } else (entries[path] ??= {})[leaf] = found.tensor;
    }
  }
  for (const { path, tensors } of fitted.modules.values()) {
    for (const [leaf, { key }] of tensors) if (shapes.get(path)?.[leaf] === undefined) unexpected.push(key);
  }
  if (missing.length + unexpected.length + wrong.length > 0) {
    throw new FileError(
      `${adapter.path} does not fit the model and its own configuration. ${listed("Missing", missing)}` +
        `${listed("Unexpected", unexpected)}${listed("Of the wrong shape", wrong)}` +
        `Nothing is loaded: use the model that it was trained on, and the files that were saved together.`,
    );
  }
  return entries;
}
