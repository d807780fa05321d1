import { FileError } from "../../core/errors.ts";

/** A model's configuration, as Hugging Face spells it (transformers 5), with checked access. */
export interface ModelConfig {
  /** The file it came from, for error sentences. */
  readonly path: string;
  /** `gpt2`, `llama`, … */
  readonly modelType: string;
  /** All keys of the file; `rope_theta`, `rope_scaling` and `torch_dtype` of older files as `rope_parameters` and `dtype`. */
  readonly raw: Readonly<Record<string, unknown>>;
  /** A positive integer. A key that is absent or null has the fallback; without one, or of another kind, it is an error. */
  integer(key: string, fallback?: number): number;
  /** Any number, likewise. */
  number(key: string, fallback?: number): number;
  /** true or false, likewise. */
  flag(key: string, fallback?: boolean): boolean;
  /** A text, likewise. */
  text(key: string, fallback?: string): string;
}

/** Brings a parsed config.json to one spelling. Throws a {@link FileError} when it names no `model_type`. */
export function parseConfig(file: Readonly<Record<string, unknown>>, path: string): ModelConfig {
  const { rope_theta: theta, rope_scaling: scaling, torch_dtype: dtype, ...rest } = file;
  const raw: Record<string, unknown> = rest;
  if (raw.dtype === undefined && dtype !== undefined) raw.dtype = dtype;
  if (raw.rope_parameters === undefined && (theta !== undefined || scaling !== undefined)) {
    const { type, ...parameters } = isObject(scaling) ? scaling : {};
    raw.rope_parameters = {
      ...(theta !== undefined && { rope_theta: theta }),
      rope_type: type ?? "default",
      ...parameters,
    };
  }

  function get<T>(key: string, fallback: T | undefined, demand: string, fits: (value: unknown) => boolean): T {
    const value = raw[key] ?? fallback;
    if (value === undefined) throw new FileError(`${path} does not say ${key}: use a complete configuration.`);
    if (!fits(value)) {
      throw new FileError(`${path} says ${key} is ${shown(value)}, where ${demand} is expected.`);
    }
    return value as T;
  }
  const config: Omit<ModelConfig, "modelType"> = {
    path,
    raw,
    integer: (key, fallback) =>
      get(key, fallback, "a positive integer", (v) => Number.isSafeInteger(v) && (v as number) > 0),
    number: (key, fallback) => get(key, fallback, "a number", (v) => typeof v === "number" && Number.isFinite(v)),
    flag: (key, fallback) => get(key, fallback, "true or false", (v) => typeof v === "boolean"),
    text: (key, fallback) => get(key, fallback, "a text", (v) => typeof v === "string"),
  };
  return { ...config, modelType: config.text("model_type") };
}

/** A value as a sentence shows it: a GGUF's integers may be too large for JSON. */
export function shown(value: unknown): string {
  const text = typeof value === "bigint" ? String(value) : JSON.stringify(value) ?? String(value);
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}
