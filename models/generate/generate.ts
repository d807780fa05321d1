/** Generation for a batch of prompts, token by token, over a cache of keys and values that stays on the device. */
import { type Aval, sizeOf } from "../../core/aval.ts";
import { storageBytes } from "../../core/dtype.ts";
import type { Cache, LanguageModel } from "../../core/model.ts";
import { DataError, LowrankError, OptionError } from "../../core/errors.ts";
import type { Value } from "../../core/ir/graph.ts";
import { broadcastTo, full, reshape } from "../../core/ops/broadcast.ts";
import { add, ge, max, select, sub } from "../../core/ops/elementwise.ts";
import { iota } from "../../core/ops/structure.ts";
import { randomKey } from "../../core/random.ts";
import { homeOf, perCompiler } from "../../core/runtime.ts";
import { type HostTensor, readTensors, type Tensor, upload } from "../../core/tensor.ts";
import { roundActivations } from "../../core/transforms/round_activations.ts";
import { flatten } from "../../core/tree.ts";
import {
  countTokens,
  drawKey,
  noToken,
  sampleToken,
  samplingNames,
  type SamplingNumbers,
  samplingNumbers,
  type SamplingOptions,
} from "./sampling.ts";
import { outsideTable } from "../token_inputs.ts";
import type { Tensors } from "../../core/tree_types.ts";
import { checkMembers, checkOptions, type OptionNames } from "../../core/options.ts";

/** What is generated, how tokens are chosen, and where it ends. */
export interface GenerateOptions extends SamplingOptions {
  /** The most tokens a row may get; fewer where the model's context ends. */
  readonly maxNewTokens: number;
  /** Tokens after which a row is complete; they are not part of it. */
  readonly stopIds?: readonly number[];
  /** Whether a row's new tokens are complete as they are (a closing brace, a stop string). */
  readonly isComplete?: (ids: readonly number[]) => boolean;
  /**
   * How many tokens are computed before the host looks at them. By default 1 on the CPU, and 8 on a GPU, where reading costs
   * the same for one as for many.
   */
  readonly readEvery?: number;
  /**
   * What packed weights are multiplied with: activations as they are (`f32`, the default), or rounded to 8 bits in blocks of 32
   * ({@link roundActivations}), as llama.cpp does. The latter is faster on the CPU, and changes logits by a few percent.
   */
  readonly activations?: Activations;
}

/** The names of {@link GenerateOptions}. */
export const generateNames: OptionNames<GenerateOptions> = {
  ...samplingNames,
  ...{ maxNewTokens: true, stopIds: true, isComplete: true, readEvery: true, activations: true },
};

/** How activations meet packed weights. */
export type Activations = "f32" | "int8";

/** Both choices, the default first. */
export const activationTypes = ["f32", "int8"] as const satisfies readonly Activations[];

/** Why a row ended: it stopped by itself, or was cut off at the greatest length. */
export type Finish = "stop" | "length";

/** One prompt's continuation. */
export interface Generated {
  /** The new tokens. */
  readonly ids: number[];
  /** Why it ended. */
  readonly finish: Finish;
}

/** A new token of one row; the last event of a row says why it ended, and has no token where a stop token ended it. */
export interface TokenEvent {
  /** Which prompt. */
  readonly row: number;
  /** The token. */
  readonly id: number | null;
  /** Why the row ends here, if it does. */
  readonly finish: Finish | null;
}

/** Continues prompts (token ids) with a model's parameters. Logits that are not finite are a LowrankError. */
export type Generate<P = unknown> = (
  params: P,
  prompts: readonly (readonly number[])[],
  options: GenerateOptions,
) => Promise<Generated[]>;

/** The same, token by token as they are made. */
export type TokenStream<P = unknown> = (
  params: P,
  prompts: readonly (readonly number[])[],
  options: GenerateOptions,
) => AsyncGenerator<TokenEvent, void, void>;

/** The part of a language model that generation needs. */
export interface Steps<P = unknown> extends Pick<LanguageModel<P>, "sizes" | "step" | "cacheAvals"> {
  /** What is computed of the parameters once for all steps of a text, to stand beside them. */
  prepare?(params: P): Partial<P>;
  /** Of a model with an adapter that does not act everywhere: the index of the prompt's first token at which it does, or null. */
  actsFrom?(prompt: readonly number[]): number | null;
}

// Prompts go in by chunks of two sizes, and caches come in multiples of one length, so that few programs are compiled.
const chunks = { short: 32, long: 128 } as const;
const cacheBucket = 64;

/** How prompts go in: the tokens of a chunk, the places of all prompts, of the new tokens, and of the cache. */
function placesOf(prompts: readonly (readonly number[])[], maxNewTokens: number, { contextLength }: Steps["sizes"]) {
  const longest = Math.max(...prompts.map((p) => p.length));
  const chunk = longest > 2 * chunks.short ? chunks.long : chunks.short;
  const padded = Math.ceil(longest / chunk) * chunk;
  const rounds = Math.min(maxNewTokens, contextLength - longest);
  return { longest, chunk, padded, rounds, length: Math.ceil((padded + rounds) / cacheBucket) * cacheBucket };
}

/** The bytes of the cache while prompts are continued. */
export function cacheBytes(
  model: Pick<Steps, "sizes" | "cacheAvals">,
  prompts: readonly (readonly number[])[],
  maxNewTokens: number,
): number {
  const { length } = placesOf(prompts, maxNewTokens, model.sizes);
  const bytes = ({ dtype, shape }: Aval) => storageBytes(dtype, sizeOf(shape));
  return model.cacheAvals(prompts.length, length).flatMap((entry) => Object.values<Aval>(entry)).reduce(
    (sum, aval) => sum + bytes(aval),
    0,
  );
}

/** What is passed from step to step. */
interface State {
  readonly cache: Cache;
  readonly index: Value;
  /** How often each token was seen, where repetition is penalised. */
  readonly seen?: Value;
}

/** What stays the same from step to step. */
interface Fixed {
  readonly pads: Value;
  /** i32[]: the tokens of the longest prompt. */
  readonly longest: Value;
  readonly key?: Value;
  /** Where an adapter begins to act. */
  readonly from?: Value;
}

/**
 * Makes the token stream of a model. Its programs are compiled on first use and kept: one for a chunk of the prompts and one for
 * a single token, for each batch, cache length and set of sampling options; their numbers are data.
 */
export function tokenStream<P>(model: Steps<P>): TokenStream<P> {
  checkMembers("tokenStream", "a language model", model, ["sizes", "step", "cacheAvals"]);
  const { vocabSize } = model.sizes;
  // Prompts are padded on the left, so that all rows end together. A place's position is its distance from the padding.
  const advance = (params: P, ids: Value, state: State, fixed: Fixed, numbers: SamplingNumbers) => {
    const { pads, longest, key, from } = fixed;
    const { cache, index } = state;
    const [b, t] = ids.shape;
    const length = Math.max(...cache.map((entry) => "k" in entry ? entry.k.shape[1] : 0));
    const padding = (n: number) => broadcastTo(reshape(pads, [b, 1]), [b, n]);
    const places = add(iota([b, t], 1), index);
    const positionIds = max(sub(places, padding(t)), 0);
    const mask = select(ge(iota([b, length], 1), padding(length)), full([b, length], 1, "i32"), 0);
    const placed = { inputIds: ids, positionIds, mask, index, cache, length: longest, ...(from && { from }) };
    const out = model.step(params, placed);
    const next = add(index, t);
    const real = select(ge(places, padding(t)), ids, -1);
    const seen = state.seen && add(state.seen, countTokens(real, vocabSize));
    const token = sampleToken(out.logits, numbers, key ? drawKey(key, next) : null, seen ?? null);
    return { token: reshape(token, [b, 1]), state: { cache: out.cache, index: next, ...(seen && { seen }) } };
  };
  const compile = perCompiler((jit) => {
    const makers = new Map<string, (pads: Tensor) => Tensors<State>>();
    const emptyState = (length: number, penalised: boolean, pads: Tensor) => {
      const kind = `${length} ${penalised}`;
      const make = makers.get(kind) ?? jit((pads: Value): State => ({
        cache: model.cacheAvals(pads.shape[0], length).map((entry) =>
          "k" in entry ? { k: full(entry.k.shape, 0), v: full(entry.v.shape, 0) } : { last: full(entry.last.shape, 0) }
        ),
        index: full([], 0, "i32"),
        ...(penalised && { seen: full([pads.shape[0], vocabSize], 0) }),
      }));
      makers.set(kind, make);
      return make(pads);
    };
    // Two functions of one meaning, so that what warns of many programs counts each by itself.
    const programs = (f: typeof advance) => ({
      prefill: jit((...args: Parameters<typeof advance>) => f(...args), { donate: [2] }),
      decode: jit((...args: Parameters<typeof advance>) => f(...args), { donate: [2] }),
    });
    const prepare = model.prepare && jit((params: P) => model.prepare!(params));
    return { emptyState, prepare, f32: programs(advance), int8: programs(roundActivations(advance) as typeof advance) };
  });

  /** @param made the tokens that prompts end with that are new all the same */
  async function* stream(
    given: P,
    prompts: readonly (readonly number[])[],
    options: GenerateOptions,
    made: readonly (readonly number[])[] = prompts.map(() => []),
  ): AsyncGenerator<TokenEvent, void, void> {
    checkOptions("tokenStream", options, generateNames);
    const { maxNewTokens, stopIds = [], isComplete = () => false, seed = 0, activations = "f32" } = options;
    checkPrompts(prompts, model.sizes, maxNewTokens);
    if (!activationTypes.includes(activations)) {
      throw new OptionError(`activations is "${activations}": choose ${activationTypes.join(" or ")}`);
    }
    const numbers = samplingNumbers(options);
    if (prompts.length === 0) return;
    const { longest: most, chunk, padded, rounds, length } = placesOf(prompts, maxNewTokens, model.sizes);

    const home = homeOf(given);
    const { emptyState, prepare, [activations]: { prefill, decode } } = compile(home);
    const readEvery = options.readEvery ?? (home.queues ? 8 : 1);
    const ints = (shape: number[], data: Int32Array) => upload(home, { shape, dtype: "i32", data });
    using pads = ints([prompts.length], Int32Array.from(prompts, (p) => padded - p.length));
    using longest = ints([], Int32Array.of(most));
    using key = numbers.temperature === undefined ? undefined : upload(home, keyOf(seed, made));
    const place = (p: readonly number[]) => {
      const start = model.actsFrom!(p);
      return start === null ? length : padded - p.length + start;
    };
    using from = model.actsFrom && ints([prompts.length], Int32Array.from(prompts, place));
    const fixed = { pads, longest, ...(key && { key }), ...(from && { from }) };
    const more = prepare?.(given), params = { ...given, ...more } as P;
    let state = emptyState(length, numbers.repetitionPenalty !== undefined, pads);
    let token!: Tensor;
    const tokens: Tensor[] = [];
    try {
      for (let at = 0; at < padded; at += chunk) {
        const data = new Int32Array(prompts.length * chunk);
        prompts.forEach((p, row) => {
          for (let i = 0; i < chunk; i++) data[row * chunk + i] = p[at + i - (padded - p.length)] ?? 0;
        });
        using ids = ints([prompts.length, chunk], data);
        token?.dispose();
        ({ token, state } = prefill(params, ids, state, fixed, numbers));
      }
      const rows = made.map((ids) => ({ ids: [...ids], open: true }));
      for (let count = 0; count < rounds && rows.some((r) => r.open);) {
        while (tokens.length < readEvery && count < rounds) {
          tokens.push(token);
          if (++count < rounds) ({ token, state } = decode(params, token, state, fixed, numbers));
        }
        const last = count === rounds;
        const group = await readTensors(tokens);
        for (const tensor of tokens.splice(0)) if (tensor !== token) tensor.dispose();
        for (const [i, { data }] of group.entries()) {
          for (const [row, state] of rows.entries()) {
            if (!state.open) continue;
            if (data[row] === noToken) throw notFinite(row, state.ids.length);
            const id = stopIds.includes(data[row]) ? null : data[row];
            if (id !== null) state.ids.push(id);
            const stopped = id === null || isComplete(state.ids);
            const finish = stopped ? "stop" : last && i === group.length - 1 ? "length" : null;
            state.open = finish === null;
            yield { row, id, finish };
          }
        }
      }
    } finally {
      // The reader may leave at any token.
      for (const leaf of new Set([...tokens, ...flatten<Tensor>([token, state, more]).leaves])) leaf.dispose();
    }
  }
  const { cacheLength, contextLength } = model.sizes;
  if (cacheLength === undefined) return (params, prompts, options) => stream(params, prompts, options);

  return async function* (params, prompts, options) {
    const longest = prompts.reduce((most, { length }) => Math.max(most, length), 0);
    // As many as the cache of the first serves: the next is made of more than it may hold, all of which are read anew.
    const first = cacheLength + 1 - longest;
    if (first < 1 || first >= Math.min(options.maxNewTokens, contextLength - longest)) {
      return yield* stream(params, prompts, options);
    }
    const made = prompts.map((): number[] => []), open = new Set(prompts.keys());
    for await (const { row, id, finish } of stream(params, prompts, { ...options, maxNewTokens: first })) {
      if (id !== null) made[row].push(id);
      if (finish === "stop") open.delete(row);
      yield { row, id, finish: finish === "stop" ? finish : null };
    }
    const rows = [...open];
    if (rows.length === 0) return;
    const rest = { ...options, maxNewTokens: options.maxNewTokens - first };
    const whole = rows.map((row) => [...prompts[row], ...made[row]]);
    for await (const { row, ...event } of stream(params, whole, rest, rows.map((row) => made[row]))) {
      yield { row: rows[row], ...event };
    }
  };
}

/** The key of a stream's draws, which are told apart by their places: one that goes on has other places under another key. */
function keyOf(seed: number, made: readonly (readonly number[])[]): HostTensor {
  const { data, ...key } = randomKey(seed);
  return { ...key, data: Uint32Array.of(data[0] ^ made[0].length, data[1]) };
}

/** Makes the generator of a model: the tokens of {@link tokenStream}, all at once. */
export function generator<P>(model: Steps<P>): Generate<P> {
  const stream = tokenStream(model);
  return async (params, prompts, options) => {
    const rows = prompts.map((): { ids: number[]; finish: Finish } => ({ ids: [], finish: "length" }));
    for await (const { row, id, finish } of stream(params, prompts, options)) {
      if (id !== null) rows[row].ids.push(id);
      if (finish !== null) rows[row].finish = finish;
    }
    return rows;
  };
}

function notFinite(row: number, made: number): LowrankError {
  return new LowrankError(
    `The logits of prompt ${row + 1} after ${made} new token${
      made === 1 ? "" : "s"
    } are not finite: the weights or the ` +
      `adapter hold such values, or values so large that sums overflow; use an earlier adapter, or load the model again.`,
  );
}

function checkPrompts(
  prompts: readonly (readonly number[])[],
  { contextLength, vocabSize }: Steps["sizes"],
  maxNewTokens: number,
): void {
  if (!Number.isInteger(maxNewTokens) || maxNewTokens < 1) {
    throw new OptionError(`can't generate ${maxNewTokens} tokens: give a whole number of at least 1`);
  }
  prompts.forEach((p, i) => {
    if (p.length === 0) throw new DataError(`prompt ${i + 1} is empty: generation continues at least one token`);
    const outside = outsideTable(p, vocabSize);
    if (outside !== null) throw new DataError(`prompt ${i + 1} ${outside}`);
    if (p.length >= contextLength) {
      throw new DataError(
        `prompt ${
          i + 1
        } has ${p.length} tokens, and the model's context of ${contextLength} leaves no place to continue ` +
          `it: shorten it`,
      );
    }
  });
}
