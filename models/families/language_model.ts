/** What decoders have in common: blocks over one stream, run over whole sequences or step by step over a cache. */
import { ShapeError } from "../../core/errors.ts";
import type { Cache, CacheEntry, LanguageModel, Parts, StepInputs, TokenInputs } from "../../core/model.ts";
import { newInput, type Value } from "../../core/ir/graph.ts";
import { attention, type AttentionOptions } from "../../core/nn/attention.ts";
import { broadcastTo, reshape } from "../../core/ops/broadcast.ts";
import { asValue } from "../../core/ops/constant.ts";
import { matmul } from "../../core/ops/contract.ts";
import { add, max, ne, select, sub } from "../../core/ops/elementwise.ts";
import { dynamicSlice, dynamicUpdateSlice } from "../../core/ops/indexing.ts";
import { reduceMax } from "../../core/ops/reduce.ts";
import { iota, slice } from "../../core/ops/structure.ts";
import type { Operand } from "../../core/tensor.ts";
import { positionsOf, readTokenInputs } from "../token_inputs.ts";
import type { ModelConfig } from "../load/config.ts";
import { type Family, hubNameOf, type Names, readSizes, type TextSizes, under } from "./family.ts";
import { checkpoint } from "../../core/transforms/checkpoint.ts";
import { type Recall, recallStep, recallWhole } from "./recall.ts";
import { grownContext } from "./rotary.ts";

/** Attention of one layer over what it may see: q [B,T,H,dh], k and v [B,T,Hkv,dh], to [B,T,H,dh]. */
export type Attend = (q: Value, k: Value, v: Value) => Value;

/** The sizes that every decoder has. */
export interface DecoderSizes extends TextSizes {
  readonly tiedHead: boolean;
  /** How many tokens back, itself among them, a token sees in each layer; null, or no list, where it sees all. */
  readonly windows?: readonly (number | null)[];
  /** How many of its last inputs each layer keeps instead of keys and values; null, or no list, where it attends. */
  readonly recalled?: readonly (number | null)[];
  /** What queries times keys are multiplied by, and what bounds them, where that is not 1/√headDim and nothing. */
  readonly scores?: Pick<AttentionOptions, "scale" | "cap">;
}

/** What a decoder computes, over its sizes. D is its width. */
export interface Layers<P> {
  /**
   * The stream [B,T,D] of tokens at positions [B,T] (B may be 1), and what each layer does to it. `length` gives how long the
   * longest sequence is by now, i32[].
   */
  start(params: P, inputIds: Value, positions: Value, length: () => Value): {
    readonly embedded: Value;
    layer(index: number, x: Value, attend: Attend, recall: Recall): Value;
  };
  /** The norm after the last layer. */
  norm(params: P, x: Value): Value;
  /** Logits [B,T,V], where they are not just the product with the head, or with the tokens' table where that is tied. */
  head?(params: P, x: Value): Value;
  /** What is made of those logits. */
  logits?(x: Value): Value;
}

/** A decoder as a literal: its names, and how it is computed. */
export interface DecoderLiteral<P, C extends DecoderSizes> extends Names {
  readonly tiedHead: boolean;
  /** Names of the parts of fused projections, as in {@link LanguageModel.parts}. */
  readonly parts?: Parts | ((sizes: C) => Parts);
  /** What the configuration says beside sizes. */
  readonly sizes: (config: ModelConfig, common: DecoderSizes) => C;
  /** The shape of every weight but the head's, in the tree of P. */
  readonly shapes: (sizes: C) => Record<string, unknown>;
  readonly layers: (sizes: C) => Layers<P>;
}

/** A decoder's family. */
export interface DecoderFamily<P = any, C extends DecoderSizes = any> extends Family<LayeredModel<P>> {
  readonly head: string;
  /** Reads the sizes out of a configuration. Throws a {@link FileError} for what is not supported here. */
  sizes(config: ModelConfig): C;
  /** The shape of every weight, in the tree of P. */
  shapes(sizes: C): unknown;
  /** A model over parameters that are already there. */
  over(sizes: C, params: P): LayeredModel<P>;
}

/** Makes a family of a literal. */
export function decoder<P, C extends DecoderSizes>(literal: DecoderLiteral<P, C>): DecoderFamily<P, C> {
  const { head: own = "lm_head", tables: [embedding] } = literal;
  const names = { ...literal, head: own };
  const sizes = (config: ModelConfig): C =>
    literal.sizes(config, {
      ...readSizes(names, config),
      ...grownContext(config),
      tiedHead: config.flag("tie_word_embeddings", literal.tiedHead),
    });
  const shapes = (c: C) => ({
    ...literal.shapes(c),
    ...(c.tiedHead ? {} : { [own]: { weight: [c.vocabSize, c.width] } }),
  });
  const over = (c: C, params: P): LayeredModel<P> => {
    const layers = literal.layers(c);
    const product = (params: any, x: Value) =>
      matmul(x, (params[own] ?? params[embedding]).weight, { transposeB: true });
    const { head = product, logits = (x: Value) => x } = layers;
    return languageModel({ ...layers, head: (params, x) => logits(head(params, x)) }, c, {
      architecture: literal.modelType,
      params,
      tied: c.tiedHead ? { [own]: embedding } : {},
      parts: typeof literal.parts === "function" ? literal.parts(c) : literal.parts,
      hubName: (path) => hubNameOf(names, path),
    });
  };
  return {
    ...names,
    sizes,
    shapes,
    over,
    check: sizes,
    build: (config) => {
      const c = sizes(config);
      return {
        shapes: shapes(c),
        make: (params) => over(c, params),
        // A tied head that was written all the same.
        ignore: [...literal.ignore ?? [], ...(c.tiedHead ? [under(own, "weight$")] : [])],
      };
    },
  };
}

/** A language model over parameters of its architecture. */
export interface LayeredModel<P> extends LanguageModel<P> {
  /** The stream as transformers reports it: the embedding, after each layer, the last of them after the final norm. */
  hiddenStates(params: P, inputs: TokenInputs): Value[];
  /** What `apply` computes, but of each block only its input is kept for the backward pass. */
  applyByBlocks(params: P, inputs: TokenInputs): Value;
}

function languageModel<P>(
  { start, norm, head }: Required<Omit<Layers<P>, "logits">>,
  sizes: DecoderSizes,
  named: Pick<LayeredModel<P>, "architecture" | "params" | "tied" | "parts" | "hubName">,
): LayeredModel<P> {
  const { layers, kvHeads, headDim, windows, recalled, scores } = sizes;

  const hiddenStates = (params: P, inputs: TokenInputs, byBlocks = false): Value[] => {
    const given = readTokenInputs(inputs, sizes);
    const { ids, seen: mask, documentStart } = given;
    const positions = positionsOf(given);
    const { embedded, layer } = start(params, ids, positions, () => longest(positions, mask));
    const states = [embedded];
    for (let i = 0; i < layers; i++) {
      const first = firstKeys(ids, 0, windows?.[i] ?? null, documentStart);
      const block = (x: Value) =>
        layer(
          i,
          x,
          (q, k, v) => attention(q, k, v, { mask, first, causal: true, ...scores }),
          recallWhole({ seen: mask, documentStart }),
        );
      states.push((byBlocks ? checkpoint(block) : block)(states[i]));
    }
    states[layers] = norm(params, states[layers]);
    return states;
  };

  const step = (params: P, inputs: StepInputs): { logits: Value; cache: Cache } => {
    const ids = asValue(inputs.inputIds);
    const mask = ne(inputs.mask, 0);
    const positions = asValue(inputs.positionIds);
    const length = () => max(longest(positions), inputs.length ?? 0);
    const { embedded, layer } = start(params, ids, positions, length);
    const cache: CacheEntry<Value>[] = [];
    let x = embedded;
    for (let i = 0; i < layers; i++) {
      const kept = inputs.cache[i];
      const attend = (q: Value, k: Value, v: Value) => {
        if (!("k" in kept)) throw new ShapeError(`The cache of layer ${i} has no keys, and the layer attends`);
        const place = [0, inputs.index, 0, 0];
        const now = { k: dynamicUpdateSlice(kept.k, k, place), v: dynamicUpdateSlice(kept.v, v, place) };
        cache[i] = now;
        const first = firstKeys(ids, inputs.index, windows?.[i] ?? null);
        return attention(q, now.k, now.v, { mask, offset: inputs.index, first, causal: true, ...scores });
      };
      const recall = (value: Value, count: number) => {
        if ("k" in kept) throw new ShapeError(`The cache of layer ${i} has keys, and the layer keeps its inputs`);
        const seen = dynamicSlice(mask, [0, inputs.index], ids.shape);
        const { values, last } = recallStep(value, count, kept.last, seen);
        cache[i] = { last };
        return values;
      };
      x = layer(i, x, attend, recall);
    }
    const [b, t] = ids.shape;
    const last = slice(x, 1, t - 1, t);
    return { logits: reshape(head(params, norm(params, last)), [b, sizes.vocabSize]), cache };
  };

  return {
    ...named,
    apply: (params, inputs) => head(params, hiddenStates(params, inputs)[layers]),
    applyByBlocks: (params, inputs) => head(params, hiddenStates(params, inputs, true)[layers]),
    positions: (inputs) => positionsOf(readTokenInputs(inputs, sizes)),
    sample: { inputIds: newInput({ shape: [1, 2], dtype: "i32" }, "inputIds") },
    sizes,
    hiddenStates: (params, inputs) => hiddenStates(params, inputs),
    step,
    cacheAvals: (batch, length) => {
      const aval = { shape: [batch, length, kvHeads, headDim], dtype: "f32" } as const;
      return Array.from({ length: layers }, (_, i) => {
        const count = recalled?.[i] ?? null;
        return count === null ? { k: aval, v: aval } : { last: { shape: [batch, count, sizes.width], dtype: "f32" } };
      });
    },
  };
}

/** One past the last position of a token that is seen, i32[]. */
function longest(positions: Value, seen?: Value): Value {
  if (seen === undefined) return add(reduceMax(positions), 1);
  return add(reduceMax(select(seen, broadcastTo(positions, seen.shape), 0)), 1);
}

/** The first key that each of the tokens from `index` on may see, i32[B,T]: the start of its window or of its document. */
function firstKeys(ids: Value, index: Operand, window: number | null, documentStart?: Value): Value | undefined {
  if (window === null) return documentStart;
  const shape = ids.shape;
  const start = add(iota(shape, 1), broadcastTo(sub(asValue(index, "i32"), window - 1), shape));
  return documentStart === undefined ? start : max(start, documentStart);
}
