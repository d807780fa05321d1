/** What GPT-2 and Llama have in common: blocks over one stream, run over whole sequences or step by step over a cache. */
import type { Cache, LanguageModel, LanguageModelSizes, StepInputs, TokenInputs } from "../../core/model.ts";
import { newInput, type Value } from "../../core/ir/graph.ts";
import { attention } from "../../core/nn/attention.ts";
import { broadcastTo, reshape } from "../../core/ops/broadcast.ts";
import { asValue } from "../../core/ops/constant.ts";
import { add, max, ne, sub } from "../../core/ops/elementwise.ts";
import { dynamicUpdateSlice } from "../../core/ops/indexing.ts";
import { iota, slice } from "../../core/ops/structure.ts";
import type { Operand } from "../../core/tensor.ts";
import { defaultPositions, readTokenInputs } from "../token_inputs.ts";
import { checkpoint } from "../../core/transforms/checkpoint.ts";

/** Attention of one layer over what it may see: q [B,T,H,dh], k and v [B,T,Hkv,dh], to [B,T,H,dh]. */
export type Attend = (q: Value, k: Value, v: Value) => Value;

/** The description of one architecture. D is its width. */
export interface Architecture<P> {
  readonly name: string;
  readonly sizes: LanguageModelSizes;
  readonly layers: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** How many tokens back, itself among them, a token sees in each layer; null, or no list, where it sees all. */
  readonly windows?: readonly (number | null)[];
  readonly tied: Readonly<Record<string, string>>;
  readonly parts?: Readonly<Record<string, readonly string[]>>;
  /** Hugging Face's name of a module or weight, in the class with a language-model head. */
  hubName(path: string): string;
  /** The stream [B,T,D] of tokens at positions [B,T] (B may be 1), and what each layer does to it. */
  start(params: P, inputIds: Value, positions: Value): {
    readonly embedded: Value;
    layer(index: number, x: Value, attend: Attend): Value;
  };
  /** The norm after the last layer. */
  norm(params: P, x: Value): Value;
  /** Logits [B,T,V]. */
  head(params: P, x: Value): Value;
}

/** A language model over parameters of its architecture. */
export interface LayeredModel<P> extends LanguageModel<P> {
  /** The stream as transformers reports it: the embedding, after each layer, the last of them after the final norm. */
  hiddenStates(params: P, inputs: TokenInputs): Value[];
  /** What `apply` computes, but of each block only its input is kept for the backward pass. */
  applyByBlocks(params: P, inputs: TokenInputs): Value;
}

/** Makes a model of an architecture and parameters for it. */
export function languageModel<P>(architecture: Architecture<P>, params: P): LayeredModel<P> {
  const { layers, kvHeads, headDim, windows, name, sizes, tied, parts } = architecture;

  const hiddenStates = (params: P, inputs: TokenInputs, byBlocks = false): Value[] => {
    const given = readTokenInputs(inputs, sizes);
    const { ids, seen: mask, documentStart } = given;
    const { embedded, layer } = architecture.start(params, ids, given.positionIds ?? defaultPositions(given));
    const states = [embedded];
    for (let i = 0; i < layers; i++) {
      const first = firstKeys(ids, 0, windows?.[i] ?? null, documentStart);
      const block = (x: Value) => layer(i, x, (q, k, v) => attention(q, k, v, { mask, first, causal: true }));
      states.push((byBlocks ? checkpoint(block) : block)(states[i]));
    }
    states[layers] = architecture.norm(params, states[layers]);
    return states;
  };

  const step = (params: P, inputs: StepInputs): { logits: Value; cache: Cache } => {
    const ids = asValue(inputs.inputIds);
    const mask = ne(inputs.mask, 0);
    const { embedded, layer } = architecture.start(params, ids, asValue(inputs.positionIds));
    const cache: { k: Value; v: Value }[] = [];
    let x = embedded;
    for (let i = 0; i < layers; i++) {
      x = layer(i, x, (q, k, v) => {
        const place = [0, inputs.index, 0, 0];
        cache[i] = {
          k: dynamicUpdateSlice(inputs.cache[i].k, k, place),
          v: dynamicUpdateSlice(inputs.cache[i].v, v, place),
        };
        const first = firstKeys(ids, inputs.index, windows?.[i] ?? null);
        return attention(q, cache[i].k, cache[i].v, { mask, offset: inputs.index, first, causal: true });
      });
    }
    const [b, t] = ids.shape;
    const last = slice(x, 1, t - 1, t);
    return { logits: reshape(architecture.head(params, architecture.norm(params, last)), [b, sizes.vocabSize]), cache };
  };

  return {
    architecture: name,
    params,
    apply: (params, inputs) => architecture.head(params, hiddenStates(params, inputs)[layers]),
    applyByBlocks: (params, inputs) => architecture.head(params, hiddenStates(params, inputs, true)[layers]),
    sample: { inputIds: newInput({ shape: [1, 2], dtype: "i32" }, "inputIds") },
    tied,
    parts,
    hubName: (path) => architecture.hubName(path),
    sizes,
    hiddenStates: (params, inputs) => hiddenStates(params, inputs),
    step,
    cacheAvals: (batch, length) => {
      const aval = { shape: [batch, length, kvHeads, headDim], dtype: "f32" } as const;
      return Array.from({ length: layers }, () => ({ k: aval, v: aval }));
    },
  };
}

/** The first key that each of the tokens from `index` on may see, i32[B,T]: the start of its window or of its document. */
function firstKeys(ids: Value, index: Operand, window: number | null, documentStart?: Value): Value | undefined {
  if (window === null) return documentStart;
  const shape = ids.shape;
  const start = add(iota(shape, 1), broadcastTo(sub(asValue(index, "i32"), window - 1), shape));
  return documentStart === undefined ? start : max(start, documentStart);
}
