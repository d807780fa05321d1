import { RE2JS, RE2JSException } from "re2js";
import { FileError } from "../../core/errors.ts";
import { optionsOf } from "../../lora/check_options.ts";
import type { Adapted, Method, ValueKind } from "../../lora/methods/method.ts";
import type { Task } from "../../core/model.ts";
import { methods } from "../../lora/methods/mod.ts";
import { refuseMethods } from "./methods.ts";

/** An `adapter_config.json`: the keys that are used here, and whatever else the file has (kept when it is written again). */
export interface AdapterConfig {
  /** Which method it is of. */
  readonly peft_type: string;
  /** The base. */
  readonly base_model_name_or_path: string | null;
  /** The rank. */
  readonly r: number;
  /** Alpha. */
  readonly lora_alpha: number;
  /** The share that training drops. */
  readonly lora_dropout: number;
  /** Module names, or one regular expression, or `all-linear`. */
  readonly target_modules: readonly string[] | string | null;
  /** What is not adapted. */
  readonly exclude_modules: readonly string[] | string | null;
  /** Which layers. */
  readonly layers_to_transform: readonly number[] | number | null;
  /** The name before a layer's number. */
  readonly layers_pattern: readonly string[] | string | null;
  /** Scaling alpha / √r. */
  readonly use_rslora: boolean;
  /** Trained magnitudes. */
  readonly use_dora: boolean;
  /** Biases of the branches. */
  readonly lora_bias: boolean;
  /** Which of the model's biases. */
  readonly bias: "none" | "all" | "lora_only";
  /** Modules trained in full. */
  readonly modules_to_save: readonly string[] | null;
  /** Rows of embeddings. */
  readonly trainable_token_indices: readonly number[] | Readonly<Record<string, readonly number[]>> | null;
  /** Module pattern → rank, and → alpha, where they differ from `r` and `lora_alpha`. */
  readonly rank_pattern: Readonly<Record<string, number>>;
  /** Other alphas. */
  readonly alpha_pattern: Readonly<Record<string, number>>;
  /** Whether what is trained of a tied weight is trained in every use. */
  readonly ensure_weight_tying: boolean;
  /** What others wrote is kept. */
  readonly [key: string]: unknown;
}

const isNumber = (v: unknown) => typeof v === "number" && Number.isFinite(v);
const isText = (v: unknown) => typeof v === "string";
const isIndex = (v: unknown) => Number.isSafeInteger(v) && (v as number) >= 0;
const isPositive = (v: unknown) => isIndex(v) && v !== 0;
const isList = (v: unknown, fits: (x: unknown) => boolean) => Array.isArray(v) && v.every(fits);
const isTable = (v: unknown, fits: (x: unknown) => boolean) =>
  typeof v === "object" && v !== null && !Array.isArray(v) && Object.values(v).every(fits);
const isNames = (v: unknown) => v === null || isText(v) || isList(v, isText);

/** What a value must be. */
const checks: Readonly<Record<Exclude<ValueKind, readonly unknown[]>, (value: unknown) => boolean>> = {
  "a positive integer": isPositive,
  "a positive integer or null": (v) => v === null || isPositive(v),
  "a text or null": (v) => v === null || isText(v),
  "a whole number": isIndex,
  "a whole number or null": (v) => v === null || isIndex(v),
  "-1 or a positive integer": (v) => v === -1 || isPositive(v),
  "a number": isNumber,
  "a number from 0 to less than 1": (v) => isNumber(v) && (v as number) >= 0 && (v as number) < 1,
  "true or false": (v) => typeof v === "boolean",
  "a list of names or null": (v) => v === null || isList(v, isText),
  "a list of token ids": (v) => v === null || isList(v, isIndex),
  "a list of names or one pattern": isNames,
  "a name or a list of names": isNames,
  "a layer or a list of layers": (v) => v === null || isIndex(v) || isList(v, isIndex),
  "a list of token ids, or lists by the embedding's name": (v) =>
    v === null || isList(v, isIndex) || isTable(v, (x) => isList(x, isIndex)),
  "patterns with positive integers": (v) => isTable(v, isPositive),
  "patterns with numbers": (v) => isTable(v, isNumber),
};

/** Whether a value is what is expected, and what that is. */
function expectation(is: ValueKind): readonly [string, (value: unknown) => boolean] {
  return typeof is === "string" ? [is, checks[is]] : [`one of ${is.join(", ")}`, (v) => is.includes(v as string)];
}

/** The method that a configuration is of. */
export function methodOf(config: Readonly<Record<string, unknown>>): Method<Adapted> | null {
  const family = Object.values<Method<any>>(methods).filter(({ peftType }) =>
    peftType !== undefined && peftType === config.peft_type
  );
  const switched = family.find((m) => m.switch !== undefined && config[m.options[m.switch].peft!] === true);
  return switched ?? family[0] ?? null;
}

/** Checks a parsed `adapter_config.json` and fills in PEFT's defaults. `path` is for error sentences. */
export function parseAdapterConfig(file: Readonly<Record<string, unknown>>, path: string): AdapterConfig {
  const method = methodOf(file);
  if (method === null) {
    const known = [
      ...new Set(
        Object.values<Method<any>>(methods).flatMap(({ peftType }) => peftType ? [JSON.stringify(peftType)] : []),
      ),
    ].join(", ");
    throw new FileError(
      `${path} is of the peft_type ${
        JSON.stringify(file.peft_type)
      }, and only ${known} are read: choose one of these, or ` +
        `merge this one with PEFT (merge_and_unload) where its method can be.`,
    );
  }
  const keys = Object.values(optionsOf(method)).flatMap(({ peft, file }) => file ? [{ key: peft!, ...file }] : []);
  const defaults: Record<string, unknown> = {
    base_model_name_or_path: null,
    ...Object.fromEntries(keys.map((k) => [k.key, k.default])),
  };
  refuseMethods(file, { method, read: { peft_type: "", ...defaults }, path });
  // A null is the default, but no number: PEFT would compute with it.
  const says = ([key, value]: [string, unknown]) => value !== undefined && (value !== null || isNumber(defaults[key]));
  const present = Object.fromEntries(Object.entries(file).filter(says));
  const config: Record<string, unknown> = { ...file, ...defaults, ...present };
  const demand = (key: string, what: string, fits: (value: unknown) => boolean) => {
    if (fits(config[key])) return;
    throw new FileError(`${path} says ${key} is ${JSON.stringify(config[key])}, where ${what} is expected.`);
  };
  demand("base_model_name_or_path", "a text or null", (v) => v === null || isText(v));
  for (const { key, is } of keys) demand(key, ...expectation(is));
  for (const { peft: key } of Object.values(method.options).filter(({ patternOf }) => patternOf !== undefined)) {
    for (const pattern of Object.keys(config[key!] as object)) {
      if (wholePattern(pattern) !== null) continue;
      throw new FileError(
        `${path} has the ${key} ${
          JSON.stringify(pattern)
        }, which is not a valid regular expression (RE2's syntax): fix it.`,
      );
    }
  }
  return config as unknown as AdapterConfig;
}

/** What a configuration says beside what its method does. */
export interface AdapterConfigOptions {
  readonly peftType: string;
  /** Left out of a method that is of the whole model. */
  readonly targets?: readonly string[] | string;
  /** Whether a tied weight is adapted in every use. */
  readonly tieAll?: boolean;
  /** Where the base model came from: a folder, a file or a hub name. */
  readonly baseModel: string | null;
  /** What the model is for, in PEFT's words. By default a causal language model. */
  readonly taskType?: Exclude<Task, "MASKED_LM"> | null;
}

/**
 * An `adapter_config.json`: just the keys that PEFT needs, and those that are used, so that older ones load it. They refuse
 * keys that they do not know.
 *
 * @param own the keys of the method
 */
export function makeAdapterConfig(
  own: Readonly<Record<string, unknown>>,
  { peftType, targets, tieAll, baseModel, taskType = "CAUSAL_LM" }: AdapterConfigOptions,
): Record<string, unknown> {
  return {
    base_model_name_or_path: baseModel,
    inference_mode: true,
    peft_type: peftType,
    ...(targets !== undefined && { target_modules: targets }),
    task_type: taskType,
    ...(tieAll && { ensure_weight_tying: true }),
    ...own,
  };
}

/**
 * A module's alpha: that of the first pattern that matches its path, else `lora_alpha`. A module may go by several paths, the
 * file's spelling and the class's own; the first of them that a pattern matches counts.
 */
function alphaOf(config: AdapterConfig, ...names: readonly string[]): number {
  return patterned(config, "alpha_pattern", { of: "lora_alpha", names });
}

/** A module's rank, likewise. */
export function rankOf(config: AdapterConfig, ...names: readonly string[]): number {
  return patterned(config, "rank_pattern", { of: "r", names });
}

/** What a table of patterns says of a module, else the value that it is the exception of. */
export function patterned(
  config: Readonly<Record<string, unknown>>,
  pattern: string,
  { of, names }: { readonly of: string; readonly names: readonly string[] },
): number {
  return patternValue(config[pattern] as Readonly<Record<string, number>>, names) ?? config[of] as number;
}

/**
 * A module's scaling s in W + s·B·A: alpha / r, or alpha / √r with rank stabilisation (Kalajdzievski 2023, arXiv:2312.03732).
 * `r` is the rank of the module's own tensors.
 */
export function adapterScaling(config: AdapterConfig, module: string, r: number): number {
  return alphaOf(config, module) / (config.use_rslora ? Math.sqrt(r) : r);
}

/** PEFT's rule for a pattern's key: the whole path, or its end after a dot; the first that matches wins. */
function patternValue(pattern: Readonly<Record<string, number>>, names: readonly string[]): number | undefined {
  let compiled = compiledKeys.get(pattern);
  if (compiled === undefined) {
    compiled = Object.entries(pattern).map(([key, value]) => [wholePattern(`(.*\\.)?(${key})`), value] as const);
    compiledKeys.set(pattern, compiled);
  }
  for (const name of names) {
    const found = compiled.find(([key]) => key?.matches(name));
    if (found !== undefined) return found[1];
  }
}

/** The expressions of tables of patterns that were asked before. */
const compiledKeys = new WeakMap<Readonly<Record<string, number>>, readonly (readonly [RE2JS | null, number])[]>();

/**
 * An expression, to be matched with all of a path, or null where it is not one. RE2's are matched in a time that is linear in the
 * path's length, whoever wrote them; they look neither ahead nor back.
 */
function wholePattern(source: string): RE2JS | null {
  try {
    return RE2JS.compile(source);
  } catch (error) {
    if (error instanceof RE2JSException) return null;
    throw error;
  }
}

/** Whether a name of a list means a module: the whole path, or its end after a dot. */
export function matchesWhole(name: string, module: string): boolean {
  return module === name || module.endsWith(`.${name}`);
}

/**
 * Whether PEFT would adapt a module, by its path in Hugging Face's class: target_modules, exclude_modules, modules_to_save,
 * layers_to_transform and layers_pattern together (`tuners_utils.py`, check_target_module_exists). Null where the
 * configuration leaves the choice to the model's kind, or has an expression that JavaScript can't read.
 */
export function selects(config: AdapterConfig): ((module: string) => boolean) | null {
  const { target_modules: targets, exclude_modules: excluded, modules_to_save: saved } = config;
  if (targets === null || (typeof targets === "string" && targets.toLowerCase() === "all-linear")) return null;
  const [wanted, unwanted] = [targets, excluded ?? []].map(matcher);
  if (wanted === null || unwanted === null) return null;
  const layer = layerRule(config);
  return (module) =>
    wanted(module) && !unwanted(module) && layer(module) && !(saved ?? []).some((name) => matchesWhole(name, module));
}

function matcher(names: readonly string[] | string): ((module: string) => boolean) | null {
  if (typeof names !== "string") return (module) => names.some((name) => matchesWhole(name, module));
  const pattern = wholePattern(names);
  return pattern && ((module) => pattern.matches(module));
}

/** Which layers: the number after a name of layers_pattern, else the first that stands between two names. */
function layerRule({ target_modules, layers_to_transform: layers, layers_pattern }: AdapterConfig) {
  if (layers === null || typeof target_modules === "string") return () => true;
  const wanted = [layers].flat();
  const patterns = layers_pattern === null || layers_pattern.length === 0 ? ["[^.]*"] : [layers_pattern].flat();
  const rules = patterns.map((name) => wholePattern(`.*\\.(?:${name})\\.(\\d+)\\..*`));
  return (module: string) => {
    const found = rules.map((rule) => rule?.matcher(module)).find((matcher) => matcher?.matches());
    return found !== undefined && wanted.includes(Number(found.group(1)));
  };
}
