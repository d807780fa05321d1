/** How positions turn queries and keys: read from a configuration, and made into angles. */
import { FileError } from "../../core/errors.ts";
import type { Value } from "../../core/ir/graph.ts";
import { ropeAngles } from "../../core/nn/rope.ts";
import { vector } from "../../core/nn/vector.ts";
import { broadcastTo } from "../../core/ops/broadcast.ts";
import { add, convert, exp, gt, log, max, mul, select } from "../../core/ops/elementwise.ts";
import { isObject, type ModelConfig, shown } from "../load/config.ts";

/** Rotary positions of one kind of layer. */
export interface Rotary {
  /** Radians per token, [n]: the first 2n values of each head are turned. */
  readonly frequencies: ArrayLike<number>;
  /** What cosines and sines are multiplied by. */
  readonly magnitude: number;
  /** What the frequencies are for sequences of more than `context` tokens, where these are others. */
  readonly beyond?: Beyond;
}

/** Other frequencies, or some that fall as the sequence grows: longrope's and dynamic NTK's. */
type Beyond =
  | { readonly context: number; readonly frequencies: ArrayLike<number> }
  | { readonly context: number; readonly factor: number };

/** The types of `rope_parameters` in configurations; `factors` is what the tensor of a GGUF file is read as. */
const types = { default: plain, linear, dynamic, yarn, longrope, llama3, proportional, factors };

/** The types that a configuration may ask for. */
export type RopeType = Exclude<keyof typeof types, "factors">;
const usual: readonly RopeType[] = ["default", "linear", "dynamic", "yarn", "longrope", "llama3"];

/** What architectures have of their own. */
export interface RotaryOptions {
  /** What takes the place of `rope_parameters`. */
  readonly parameters?: unknown;
  /** θ where the file does not say it. 10000 by default. */
  readonly theta?: number;
  /** How much of a head is turned where the file does not say it, if not all of it has to be. */
  readonly share?: number;
  /** The types that there are. */
  readonly types?: readonly RopeType[];
}

/** Reads rotary positions. Throws a {@link FileError} for a type that is not known. Source: transformers' modeling_rope_utils.py. */
export function readRotary(config: ModelConfig, headDim: number, options: RotaryOptions = {}): Rotary {
  const { parameters = config.raw.rope_parameters, theta = 10000, types: known = usual } = options;
  const given = { ...(isObject(parameters) ? parameters : {}) };
  const original = config.raw.original_max_position_embeddings ?? given.original_max_position_embeddings;
  const raw: Record<string, unknown> = {
    ...given,
    rope_theta: given.rope_theta ?? theta,
    original_max_position_embeddings: original ?? config.raw.max_position_embeddings,
  };
  const type = given.rope_type ?? given.type ?? "default";
  if (typeof type !== "string" || !((known as readonly string[]).includes(type) || type === "factors")) {
    throw new FileError(
      `${config.path} asks for rope scaling of type ${shown(type)}; supported: ${known.join(", ")}.`,
    );
  }
  const share = given.partial_rotary_factor ?? config.raw.partial_rotary_factor ?? options.share ?? 1;
  const some = options.share !== undefined || type === "proportional";
  if (typeof share !== "number" || !(share > 0 && share <= 1) || (share !== 1 && !some)) {
    throw new FileError(
      `${config.path} says partial_rotary_factor is ${shown(share)}, and only models that rotate ${
        some ? "a part of each head, or all of it," : "whole heads"
      } can be built.`,
    );
  }
  return types[type as RopeType](new Parameters(raw, config, headDim, share));
}

/** `rope_parameters`, checked as they are read. */
class Parameters {
  /** How many values of a head are turned. */
  readonly width: number;
  constructor(
    readonly raw: Readonly<Record<string, unknown>>,
    readonly config: ModelConfig,
    readonly headDim: number,
    readonly share: number,
  ) {
    this.width = Math.trunc(headDim * share);
  }

  number(key: string, fallback?: number): number {
    const value = this.raw[key] ?? fallback;
    if (typeof value === "number" && Number.isFinite(value) && value > 0) return value;
    throw new FileError(
      `${this.config.path} says ${key} of rope_parameters is ${shown(value)}, where a number is expected.`,
    );
  }

  flag(key: string, fallback: boolean): boolean {
    const value = this.raw[key] ?? fallback;
    if (typeof value === "boolean") return value;
    throw new FileError(
      `${this.config.path} says ${key} of rope_parameters is ${shown(value)}, where true or false is expected.`,
    );
  }

  /** A number above 0 for each frequency. */
  list(key: string): readonly number[] {
    const value = this.raw[key], count = this.width / 2;
    const fits = Array.isArray(value) && value.length === count && value.every((x) => typeof x === "number" && x > 0);
    if (fits) return value;
    throw new FileError(
      `${this.config.path} says ${key} of rope_parameters is ${shown(value)}, where ${count} numbers above 0 are ` +
        `expected: download the model again; it is damaged.`,
    );
  }

  /** θ^(2i/of), rounded where transformers' float32 is: angles are frequencies times positions, so a last bit is soon a large one. */
  powers(of = this.width): Float64Array {
    const theta = this.number("rope_theta");
    return Float64Array.from({ length: this.width / 2 }, (_, i) => Math.fround(theta ** Math.fround(2 * i / of)));
  }

  get factor(): number {
    return this.number("factor");
  }

  /** The tokens that the model was first trained on. */
  get context(): number {
    return this.number("original_max_position_embeddings");
  }

  /** `factor`, by default how much longer the context has become. */
  get stretch(): number {
    return this.number("factor", this.config.integer("max_position_embeddings") / this.context);
  }
}

const inverse = (powers: Float64Array) => powers.map((x) => Math.fround(1 / x));
const still = (frequencies: ArrayLike<number>): Rotary => ({ frequencies, magnitude: 1 });

function plain(p: Parameters): Rotary {
  return still(inverse(p.powers()));
}

function linear(p: Parameters): Rotary {
  return still(inverse(p.powers()).map((f) => f / p.factor));
}

function factors(p: Parameters): Rotary {
  const list = p.list("factors");
  return still(inverse(p.powers()).map((f, i) => f / list[i]));
}

/** Past the context θ grows with the length: each frequency falls by a power of how far it goes. */
function dynamic(p: Parameters): Rotary {
  const context = p.config.integer("max_position_embeddings");
  return { ...plain(p), beyond: { context, factor: p.factor } };
}

/** The context of a model whose rotary positions grow with the length: `factor` times what it was trained on. */
export function grownContext({ raw: { rope_parameters, max_position_embeddings: trained } }: ModelConfig) {
  const { rope_type, factor } = isObject(rope_parameters) ? rope_parameters : {} as Record<string, unknown>;
  const grows = rope_type === "dynamic" && typeof factor === "number" && typeof trained === "number";
  return grows ? { contextLength: Math.floor(trained * factor) } : {};
}

/** Long wavelengths are divided, short ones kept, and between them it is interpolated. */
function llama3(p: Parameters): Rotary {
  const { factor, context } = p, low = p.number("low_freq_factor"), high = p.number("high_freq_factor");
  return still(
    inverse(p.powers()).map((f) => {
      const turns = context * f / (2 * Math.PI); // over the context that the model was first trained on
      const keep = Math.min(1, Math.max(0, (turns - low) / (high - low)));
      return (1 - keep) * f / factor + keep * f;
    }),
  );
}

/** The same with a ramp over the frequencies' numbers. Source: Peng et al. 2023, "YaRN". */
function yarn(p: Parameters): Rotary {
  const { width, stretch, context } = p, theta = p.number("rope_theta");
  const place = (turns: number) => width * Math.log(context / (turns * 2 * Math.PI)) / (2 * Math.log(theta));
  const [fast, slow] = [place(p.number("beta_fast", 32)), place(p.number("beta_slow", 1))];
  const whole = p.flag("truncate", true);
  const low = Math.max(0, whole ? Math.floor(fast) : fast);
  const high = Math.min(width - 1, whole ? Math.ceil(slow) : slow);
  const powers = p.powers();
  const frequencies = powers.map((power, i) => {
    const divided = Math.min(1, Math.max(0, (i - low) / (low === high ? 0.001 : high - low)));
    return divided / (stretch * power) + (1 - divided) / power;
  });
  const grown = (by: number) => stretch <= 1 ? 1 : 0.1 * by * Math.log(stretch) + 1;
  const scales = ["mscale", "mscale_all_dim"].map((key) => p.raw[key] ? p.number(key) : null);
  const usual = scales[0] !== null && scales[1] !== null ? grown(scales[0]) / grown(scales[1]) : grown(1);
  return { frequencies, magnitude: p.number("attention_factor", usual) };
}

/** Each frequency has a divisor, another one past the context. Source: Ding et al. 2024, "LongRoPE". */
function longrope(p: Parameters): Rotary {
  const { context, stretch } = p, powers = p.powers();
  const usual = stretch <= 1 ? 1 : Math.sqrt(1 + Math.log(stretch) / Math.log(context));
  const divided = (key: string) => {
    const list = p.list(key);
    return powers.map((power, i) => 1 / (list[i] * power));
  };
  return {
    frequencies: divided("short_factor"),
    magnitude: p.number("attention_factor", usual),
    beyond: { context, frequencies: divided("long_factor") },
  };
}

/** The whole head is turned, all but the first frequencies by nothing. */
function proportional(p: Parameters): Rotary {
  const turned = Math.trunc(p.share * p.headDim / 2), factor = p.number("factor", 1);
  const whole = new Parameters(p.raw, p.config, p.headDim, 1);
  return still(inverse(whole.powers()).map((f, i) => i < turned ? f / factor : 0));
}

/** Cosines and sines, [B,T,n] each. */
export interface Angles {
  readonly cos: Value;
  readonly sin: Value;
}

/**
 * The angles of tokens at `positions` i32[B,T].
 *
 * @param length i32[]: how long the longest of the sequences is by now, asked for only where frequencies depend on it
 */
export function rotaryAngles(
  { frequencies, magnitude, beyond }: Rotary,
  positions: Value,
  length: () => Value,
): Angles {
  return ropeAngles(positions, beyond ? grown(frequencies, beyond, length()) : frequencies, magnitude);
}

function grown(frequencies: ArrayLike<number>, beyond: Beyond, length: Value): Value {
  const n = frequencies.length, { context } = beyond, short = vector(frequencies);
  if ("frequencies" in beyond) {
    return select(broadcastTo(gt(length, context), [n]), vector(beyond.frequencies), short);
  }
  // θ·s^(d/(d-2)) in the place of θ, where s = factor·length/context - (factor - 1): frequency i times s^(-2i/(d-2)).
  const { factor } = beyond;
  const s = add(mul(convert(max(length, context), "f32"), factor / context), 1 - factor);
  const powers = vector(Array.from({ length: n }, (_, i) => i === 0 ? 0 : -i / (n - 1)));
  return mul(short, exp(mul(powers, broadcastTo(log(s), [n]))));
}
