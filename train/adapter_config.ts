import { FileError } from "../core/errors.ts";

/** An `adapter_config.json`: the keys that are used here, and whatever else the file has (kept when it is written again). */
export interface AdapterConfig {
  readonly peft_type: "LORA";
  readonly base_model_name_or_path: string | null;
  readonly r: number;
  readonly lora_alpha: number;
  readonly lora_dropout: number;
  /** Module names, or one regular expression, or `all-linear`. */
  readonly target_modules: readonly string[] | string | null;
  readonly use_rslora: boolean;
  /** Module pattern → rank, and → alpha, where they differ from `r` and `lora_alpha`. */
  readonly rank_pattern: Readonly<Record<string, number>>;
  readonly alpha_pattern: Readonly<Record<string, number>>;
  readonly [key: string]: unknown;
}

/** PEFT's values of keys that a file leaves out (`tuners/lora/config.py`). */
const defaults = {
  base_model_name_or_path: null,
  r: 8,
  lora_alpha: 8,
  lora_dropout: 0,
  target_modules: null,
  use_rslora: false,
  rank_pattern: {},
  alpha_pattern: {},
};

/** What a key must be, for those that are used. */
const demands: readonly (readonly [string, string, (value: unknown) => boolean])[] = [
  ["base_model_name_or_path", "a text or null", (v) => v === null || typeof v === "string"],
  ["r", "a positive integer", (v) => Number.isSafeInteger(v) && (v as number) > 0],
  ["lora_alpha", "a number", isNumber],
  ["lora_dropout", "a number from 0 to 1", (v) => isNumber(v) && (v as number) >= 0 && (v as number) <= 1],
  ["target_modules", "a list of names or one pattern", (v) => v === null || typeof v === "string" || isList(v)],
  ["use_rslora", "true or false", (v) => typeof v === "boolean"],
  ["rank_pattern", "patterns with positive integers", (v) => isTable(v, (n) => Number.isSafeInteger(n) && n > 0)],
  ["alpha_pattern", "patterns with numbers", (v) => isTable(v, Number.isFinite)],
];

/** Checks a parsed `adapter_config.json` and fills in PEFT's defaults. `path` is for error sentences. */
export function parseAdapterConfig(file: Readonly<Record<string, unknown>>, path: string): AdapterConfig {
  if (file.peft_type !== "LORA") {
    throw new FileError(
      `${path} is of the peft_type ${JSON.stringify(file.peft_type)}, and only "LORA" is read: choose a LoRA adapter.`,
    );
  }
  const present = Object.fromEntries(Object.entries(file).filter(([, value]) => value !== null && value !== undefined));
  const config = { ...file, ...defaults, ...present };
  for (const [key, demand, fits] of demands) {
    const value = (config as Record<string, unknown>)[key];
    if (!fits(value)) {
      throw new FileError(`${path} says ${key} is ${JSON.stringify(value)}, where ${demand} is expected.`);
    }
  }
  return config as unknown as AdapterConfig;
}

/** Options of an adapter that its file tells. */
export interface AdapterConfigOptions {
  readonly r: number;
  readonly alpha: number;
  readonly dropout?: number;
  readonly targets: readonly string[] | string;
  readonly rslora?: boolean;
  readonly rankPattern?: Readonly<Record<string, number>>;
  readonly alphaPattern?: Readonly<Record<string, number>>;
  /** Where the base model came from: a folder, a file or a hub name. */
  readonly baseModel: string | null;
  /** Whether the adapted matrices are stored (in, out), as GPT-2's are; PEFT wants to be told. */
  readonly fanInFanOut: boolean;
}

/** The `adapter_config.json` of a causal language model's adapter: just the keys that PEFT needs, so that older ones load it. */
export function makeAdapterConfig(options: AdapterConfigOptions): AdapterConfig {
  return {
    alpha_pattern: options.alphaPattern ?? {},
    base_model_name_or_path: options.baseModel,
    bias: "none",
    fan_in_fan_out: options.fanInFanOut,
    inference_mode: true,
    init_lora_weights: true,
    lora_alpha: options.alpha,
    lora_dropout: options.dropout ?? 0,
    modules_to_save: null,
    peft_type: "LORA",
    r: options.r,
    rank_pattern: options.rankPattern ?? {},
    target_modules: options.targets,
    task_type: "CAUSAL_LM",
    use_rslora: options.rslora ?? false,
  };
}

/** A module's alpha: that of the first pattern that matches its path in the file, else `lora_alpha`. */
export function alphaOf(config: AdapterConfig, module: string): number {
  for (const [pattern, alpha] of Object.entries(config.alpha_pattern)) {
    if (patternMatches(pattern, module)) return alpha;
  }
  return config.lora_alpha;
}

/**
 * A module's scaling s in W + s·B·A: alpha / r, or alpha / √r with rank stabilisation (Kalajdzievski 2023, arXiv:2312.03732).
 * `r` is the rank of the module's own tensors.
 */
export function adapterScaling(config: AdapterConfig, module: string, r: number): number {
  return alphaOf(config, module) / (config.use_rslora ? Math.sqrt(r) : r);
}

/** Whether PEFT's rule applies a pattern's key to a module: the whole path, or its end after a dot. */
function patternMatches(pattern: string, module: string): boolean {
  try {
    return new RegExp(`^(.*\\.)?(${pattern})$`).test(module);
  } catch {
    throw new FileError(`The adapter's alpha_pattern has the key ${pattern}, which is no regular expression: mend it.`);
  }
}

function isNumber(value: unknown): boolean {
  return typeof value === "number" && Number.isFinite(value);
}

function isList(value: unknown): boolean {
  return Array.isArray(value) && value.every((item) => typeof item === "string");
}

function isTable(value: unknown, fits: (n: number) => boolean): boolean {
  return typeof value === "object" && value !== null && !Array.isArray(value) &&
    Object.values(value).every((n) => typeof n === "number" && fits(n));
}
