/** Choosing the next token on the device: no sort, no copy of the logits to the host. */
import { OptionError } from "../../core/errors.ts";
import type { Value } from "../../core/ir/graph.ts";
import { full, reduceSum, reshape } from "../../core/ops/broadcast.ts";
import {
  add,
  bitcast,
  convert,
  div,
  eq,
  exp,
  ge,
  gt,
  isFiniteValue,
  log,
  lt,
  max,
  mul,
  not,
  or,
  select,
  sub,
} from "../../core/ops/elementwise.ts";
import { scatterAdd } from "../../core/ops/indexing.ts";
import { foldIn, randomBits } from "../../core/ops/random.ts";
import { argmax, reduceMax } from "../../core/ops/reduce.ts";
import { iota } from "../../core/ops/structure.ts";
import type { Operand } from "../../core/tensor.ts";
import { type OptionNames } from "../../core/options.ts";

/** How a token is chosen. Without a temperature it is the most probable one; the limits apply in the order given here. */
export interface SamplingOptions {
  /** Logits of tokens that stand in the prompt or were made are divided (multiplied where negative) by this; 1 changes none. */
  readonly repetitionPenalty?: number;
  /** Logits are divided by this before one is drawn; 0, or none, takes the greatest. */
  readonly temperature?: number;
  /** Only this many of the most probable tokens may be sampled (and those as probable as the last of them). */
  readonly topK?: number;
  /** Only the most probable tokens may be drawn that together have at least this probability. */
  readonly topP?: number;
  /** Only tokens may be drawn that are at least this share as probable as the most probable one. */
  readonly minP?: number;
  /** Decides every draw: the same seed gives the same tokens, on every device. 0 by default. */
  readonly seed?: number;
}

/** The names of {@link SamplingOptions}. */
export const samplingNames: OptionNames<SamplingOptions> = {
  ...{ repetitionPenalty: true, temperature: true, topK: true, topP: true, minP: true, seed: true },
};

/**
 * The numbers of some options as a program takes them: absent where they do nothing, so that nothing is compiled for them.
 *
 * @throws {OptionError} for a number that means nothing
 */
export function samplingNumbers(options: SamplingOptions): SamplingNumbers {
  const { repetitionPenalty = 1, temperature = 0, topK, topP = 1, minP = 0 } = options;
  const demand = (holds: boolean, name: string, value: unknown, want: string) => {
    if (!holds) throw new OptionError(`${name} is ${want}, not ${value}`);
  };
  demand(temperature >= 0 && temperature < Infinity, "temperature", temperature, "a number of at least 0");
  demand(topK === undefined || (Number.isInteger(topK) && topK >= 1), "topK", topK, "a whole number of at least 1");
  demand(topP > 0 && topP <= 1, "topP", topP, "a probability above 0 and up to 1");
  demand(minP >= 0 && minP <= 1, "minP", minP, "a share from 0 to 1");
  demand(repetitionPenalty > 0 && repetitionPenalty < Infinity, "repetitionPenalty", repetitionPenalty, "above 0");
  // A temperature that f32 has no normal number for is none: some devices flush it to 0 and divide by that.
  const draws = temperature >= minNormal;
  return {
    ...(repetitionPenalty !== 1 && { repetitionPenalty }),
    ...(draws && { temperature }),
    ...(draws && topK !== undefined && { topK }),
    ...(draws && topP < 1 && { topP }),
    ...(draws && minP > 0 && { minP }),
  };
}

/** The part of {@link SamplingOptions} that a program computes with: numbers outside, values during tracing. */
export type SamplingNumbers = Partial<Record<"repetitionPenalty" | "temperature" | "topK" | "topP" | "minP", Operand>>;

/** The score of a token that can't be drawn. */
const hidden = -3.4e38;

/** The least normal number of f32. */
const minNormal = 2 ** -126;

/** What stands for the next token of a row whose logits are not all finite. */
export const noToken = -1;

/**
 * The next token i32[B] for logits f32[B,V], or {@link noToken}. A draw in proportion to the probabilities is the greatest of
 * logit + Gumbel noise.
 *
 * @param key u32[2], of this very draw
 * @param seen f32[B,V], not 0 for tokens that are penalised
 */
export function sampleToken(logits: Value, numbers: SamplingNumbers, key: Operand | null, seen: Value | null): Value {
  const finite = eq(reduceSum(convert(isFiniteValue(logits), "i32"), 1), logits.shape[1]);
  return select(finite, chooseToken(logits, numbers, key, seen), noToken);
}

/** The same for logits that are finite. */
function chooseToken(logits: Value, numbers: SamplingNumbers, key: Operand | null, seen: Value | null): Value {
  const { repetitionPenalty, temperature } = numbers;
  let x = logits;
  if (repetitionPenalty !== undefined && seen) {
    x = select(gt(seen, 0), select(gt(x, 0), div(x, repetitionPenalty), mul(x, repetitionPenalty)), x);
  }
  if (temperature === undefined || key === null) return argmax(x, 1);
  // Below the greatest, so that no temperature makes the greatest infinite.
  x = max(div(sub(x, reduceMax(x, 1, { keep: true })), temperature), hidden);
  x = limit(x, numbers);
  // -log E is Gumbel noise for E = -log u. Small E decide, so u is taken near 0, where f32 is finest.
  const u = mul(add(convert(randomBits(key, x.shape), "f32"), 0.5), 2 ** -32);
  const e = select(lt(u, 2 ** -12), mul(u, add(1, mul(u, 0.5))), mul(log(max(sub(1, u), 2 ** -25)), -1));
  return argmax(sub(x, log(e)), 1);
}

/** The key of the draw at a place, i32[]. */
export function drawKey(key: Operand, place: Value): Value {
  return foldIn(key, bitcast(place, "u32"));
}

/** Logits with those hidden that top-k, top-p and min-p leave out. */
export function limit(logits: Value, { topK, topP, minP }: SamplingNumbers): Value {
  let x = logits;
  if (topK !== undefined) x = keep(x, null, topK);
  if (topP !== undefined) {
    const weights = exp(sub(x, reduceMax(x, 1, { keep: true })));
    x = keep(x, weights, mul(reduceSum(weights, 1, { keep: true }), topP));
  }
  if (minP !== undefined) x = select(ge(x, add(reduceMax(x, 1, { keep: true }), log(minP))), x, hidden);
  return x;
}

/** The greatest entries of each row: as few as make the weights (1 each, if null) of those above them reach `most`. */
function keep(x: Value, weights: Value | null, most: Operand): Value {
  const order = orderOf(x);
  let least = full([x.shape[0], 1], 2 ** 32 - 1, "u32");
  // The least threshold above which there is less than `most`, bit by bit.
  for (let bit = 31; bit >= 0; bit--) {
    const lower = sub(least, 2 ** bit);
    const above = reduceSum(select(gt(order, lower), weights ?? 1, full([], 0)), 1, { keep: true });
    least = select(lt(above, most), lower, least);
  }
  return select(ge(order, least), x, hidden);
}

/** Bits that order as the f32 numbers themselves. */
function orderOf(x: Value): Value {
  const bits = bitcast(x, "u32");
  return select(ge(bits, 2 ** 31), not(bits), or(bits, full([], 2 ** 31, "u32")));
}

/** How often each token stands among ids i32[B,t], f32[B,V]; ids below 0 are no tokens. */
export function countTokens(ids: Value, vocabSize: number): Value {
  const [b, t] = ids.shape;
  const flat = select(lt(ids, 0), -1, add(ids, mul(iota([b, t], 0), vocabSize)));
  return reshape(scatterAdd(reshape(flat, [b * t]), full([b * t], 1), b * vocabSize), [b, vocabSize]);
}
