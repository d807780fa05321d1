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
    raw.rope_parameters = { rope_theta: theta ?? 10000, rope_type: type ?? "default", ...parameters };
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

/**
 * The inverse frequencies of rotary embeddings, [headDim / 2], from `rope_parameters`: `default` θ^(-2i/headDim), `linear`
 * divided by its factor, `llama3` (long wavelengths divided, short ones kept, between them interpolated: transformers'
 * `_compute_llama3_parameters`), and `factors`, divided one by one, which GGUF files carry in place of the parameters.
 */
export function ropeFrequencies(config: ModelConfig, headDim: number): Float64Array {
  const found = config.raw.rope_parameters;
  const whole = { partial_rotary_factor: config.raw.partial_rotary_factor };
  const rope = parseRope({ ...whole, ...(isObject(found) ? found : {}) }, config.path);
  // Rounded where transformers' float32 is: angles are frequencies times positions, so that a last bit is soon a large one.
  const power = (i: number) => Math.fround(rope.theta ** Math.fround(2 * i / headDim));
  const frequencies = Float64Array.from({ length: headDim / 2 }, (_, i) => Math.fround(1 / power(i)));
  switch (rope.type) {
    case "default":
      return frequencies;
    case "linear":
      return frequencies.map((f) => f / rope.number("factor"));
    case "factors":
      return frequencies.map((f, i) => f / rope.factor(i));
    default: {
      const factor = rope.number("factor"), context = rope.number("original_max_position_embeddings");
      const low = rope.number("low_freq_factor"), high = rope.number("high_freq_factor");
      return frequencies.map((f) => {
        const turns = context * f / (2 * Math.PI); // over the context that the model was first trained on
        const keep = Math.min(1, Math.max(0, (turns - low) / (high - low)));
        return (1 - keep) * f / factor + keep * f;
      });
    }
  }
}

/** The kinds that a configuration may ask for; `factors` is only what GGUF files are read as. */
const ropeTypes = ["default", "linear", "llama3"];

function parseRope(raw: Readonly<Record<string, unknown>>, path: string) {
  const number = (key: string, fallback?: number): number => {
    const value = raw[key] ?? fallback;
    if (typeof value === "number" && Number.isFinite(value) && value > 0) return value;
    throw new FileError(
      `${path} says ${key} of rope_parameters is ${shown(value)}, where a number is expected.`,
    );
  };
  const type = raw.rope_type ?? "default";
  if (typeof type !== "string" || !(ropeTypes.includes(type) || type === "factors")) {
    throw new FileError(
      `${path} asks for rope scaling of type ${shown(type)}; supported: ${ropeTypes.join(", ")}.`,
    );
  }
  const share = raw.partial_rotary_factor ?? 1;
  if (share !== 1) {
    throw new FileError(
      `${path} says partial_rotary_factor is ${
        JSON.stringify(share)
      }, and only models that rotate whole heads can be built.`,
    );
  }
  const factors = Array.isArray(raw.factors) ? raw.factors as unknown[] : [];
  const factor = (i: number): number => {
    const value = factors[i];
    if (typeof value === "number" && value > 0) return value;
    throw new FileError(`${path} has no rope factor ${i}: download the model again; it is damaged.`);
  };
  return { type, theta: number("rope_theta", 10000), number, factor };
}

/** A value as a sentence shows it; a GGUF's integers may be too large for JSON. */
function shown(value: unknown): string {
  const text = typeof value === "bigint" ? String(value) : JSON.stringify(value) ?? String(value);
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}
