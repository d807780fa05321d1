/**
 * Tokens that are trained and stand in front of a model's own, for all of those to see: a rewrite of every attention. What
 * they are to it are keys and values, given as such, or those that their embeddings come to on their way through the model.
 */
import { sizeOf } from "../../core/aval.ts";
import { DataError, OptionError } from "../../core/errors.ts";
import { bind, type Node, type Rewrite, type Value } from "../../core/ir/graph.ts";
import type { LanguageModel, Leaf, Model, TokenInputs } from "../../core/model.ts";
import { logSigmoid, sigmoid } from "../../core/nn/activation.ts";
import { broadcastTo, full, reshape } from "../../core/ops/broadcast.ts";
import { asValue, constant } from "../../core/ops/constant.ts";
import { add, convert, mul, sub } from "../../core/ops/elementwise.ts";
import { concat, slice, transpose } from "../../core/ops/structure.ts";
import type { Operand } from "../../core/tensor.ts";
import { trace } from "../../core/trace.ts";
import { flatten } from "../../core/tree.ts";
import { type Followed, rewriteGraph } from "./rewrite.ts";

/** Keys and values of the tokens in front, one pair for each attention in order: [tokens, kvHeads, headDim]. */
export type FrontCache = readonly { readonly k: Leaf; readonly v: Leaf }[];

/** What stands in front: embeddings f32[tokens, D], as the model looks up those of its own tokens, or keys and values. */
export type Front = { readonly embeddings: Value } | { readonly cache: FrontCache };

/** One attention of a model, in the order in which it computes them. */
export interface AttentionOutline {
  /** Heads of its queries. */
  readonly heads: number;
  /** Heads of its keys and values: as many, or fewer that several heads of queries share. */
  readonly kvHeads: number;
  /** The width of one head. */
  readonly headDim: number;
  /** Whether a token sees only those before it. */
  readonly causal: boolean;
  /** Whether a token sees only the nearest ones. */
  readonly windowed: boolean;
}

const isAttention = (node: Node) => node.prim.name === "attention";

/**
 * The attentions of a model.
 *
 * @throws {OptionError} where its tokens see others by other layers, too
 */
export function attentionsOf<P, I>(model: Model<P, I, unknown>): AttentionOutline[] {
  const kept = (model as Partial<LanguageModel>).cacheAvals?.(1, 1) ?? [];
  if (kept.some((entry) => "last" in entry)) {
    throw new OptionError(
      "no tokens can be put in front of this model's own: some of its layers read the inputs before theirs, not by attention",
    );
  }
  const found: AttentionOutline[] = [];
  const { graph } = trace((p: P, x: I) => model.apply(p, x), [model.params, model.sample]);
  const rule: Rewrite = (node) => {
    if (isAttention(node)) {
      const [{ shape: [, , heads] }, { shape: [, , kvHeads, headDim] }] = node.inputs;
      found.push({ heads, kvHeads, headDim, causal: node.params.causal, windowed: node.inputs.length > 5 });
    }
    return null;
  };
  rewriteGraph(graph, graph.inputs, new Map(), { rule });
  return found;
}

/** What a model's function reads, moved by so many places. */
export interface Shift<I> {
  positions(inputs: I): Value;
}

/** The same inputs for tokens that have `count` others in front of them. */
export function behind<I>(inputs: I, { positions }: Shift<I>, count: number): I {
  const { length } = inputs as { readonly length?: Operand };
  return {
    ...inputs,
    positionIds: add(positions(inputs), count),
    ...(length !== undefined && { length: add(length, count) }),
  };
}

/**
 * Refuses more tokens than there are places, where the model says how many.
 *
 * @throws {DataError} naming both numbers
 */
export function checkContext(model: object, inputs: object, count: number): void {
  const { sizes } = model as Partial<LanguageModel>, { inputIds } = inputs as Partial<TokenInputs>;
  const length = (inputIds as Leaf | undefined)?.aval?.shape[1] ?? 0;
  if (sizes === undefined || length + count <= sizes.contextLength) return;
  throw new DataError(
    `the sequence has ${length} tokens and the adapter puts ${count} in front, and the model's context is ` +
      `${sizes.contextLength}: cut it, or choose a model with a longer context`,
  );
}

/** How many tokens stand in front. */
export function countOf(front: FrontCache): number {
  return front[0].k.shape[0];
}

/**
 * Every attention over the keys in front, too: one attention more over those alone, of which the results are put together by
 * the logarithms of their sums. The model's own keys, masks, documents and caches stay as they are.
 *
 * @param inDocuments a row holds several documents, so that a bound on the keys is the start of one and not of a window
 */
export function seeing(front: FrontCache, inDocuments: boolean): Rewrite {
  let layer = 0;
  return (node, inputs) => {
    if (!isAttention(node)) return null;
    const { k, v } = front[layer++];
    const [q, keys, , , , first] = inputs, [b, t] = q.shape, [count] = k.shape;
    const all = (x: Leaf) => broadcastTo(reshape(x, [1, ...x.shape]), [b, ...x.shape]);
    const window = first === undefined || inDocuments ? [] : [add(first, count)];
    const others = [q, all(k), all(v), full([b, count], 1, "bool"), constant(0, "i32"), ...window];
    const ahead = bind(node.prim, others, { ...node.params, causal: false });
    // A decoder's cache may be empty yet.
    if (keys.shape[1] === 0 || sizeOf(q.shape) === 0) return ahead;
    const own = bind(node.prim, inputs, node.params);
    const [less, more] = [sub(own[1], ahead[1]), sub(ahead[1], own[1])];
    const share = (x: Value, y: Value) => {
      const part = reshape(transpose(sigmoid(x), [0, 2, 1]), [b, t, q.shape[2], 1]);
      return mul(broadcastTo(part, y.shape), y);
    };
    return [add(share(less, own[0]), share(more, ahead[0])), sub(own[1], logSigmoid(less))];
  };
}

/** A model's parameters as they enter its graph: the tree, its leaves, and which of these are followed. */
export interface Entered<P> {
  readonly edited: P;
  readonly leaves: readonly Value[];
  readonly weights: ReadonlyMap<number, readonly Followed[]>;
}

/** A lookup by the ids themselves: that of the tokens' embeddings. */
const isLookup = (node: Node, [, ids]: readonly Value[], own: Value) => node.prim.name === "gather" && ids === own;

/** What embeddings f32[n, D] come to on their way through a model whose tokens see those before them. */
export function cacheOf<P>(
  model: Model<P, any, unknown>,
  { edited, leaves, weights }: Entered<P>,
  embeddings: Value,
): { readonly cache: FrontCache; readonly outputs: readonly Value[] } {
  const inputs = { inputIds: full([1, embeddings.shape[0]], 0, "i32") };
  const values = [...leaves, inputs.inputIds], ids = inputs.inputIds;
  const cache: { k: Value; v: Value }[] = [];
  const one = (x: Value) => reshape(x, x.shape.slice(1));
  const rule: Rewrite = (node, given) => {
    if (isLookup(node, given, ids)) return [reshape(embeddings, [1, ...embeddings.shape])];
    if (isAttention(node)) cache.push({ k: one(given[1]), v: one(given[2]) });
    return null;
  };
  const { graph } = trace((p: P, x: any) => model.apply(p, x), [edited, inputs]);
  const outputs = rewriteGraph(graph, values, weights, { rule, flat: true });
  return { cache, outputs };
}

/** Outputs [B,T,…] behind those of the tokens in front, [1,n,…]. */
export function besideFront<O>(outputs: O, front: readonly Value[]): O {
  const own = flatten<Value>(outputs);
  return own.unflatten(
    own.leaves.map((y, i) => concat([broadcastTo(front[i], [y.shape[0], ...front[i].shape.slice(1)]), y], 1)),
  ) as O;
}

/** Embeddings f32[n, D] in the first places of what is looked up by `ids`, in every row. */
export function embedded(embeddings: Value, ids: Value): Rewrite {
  return (node, inputs) => {
    if (!isLookup(node, inputs, ids)) return null;
    const [y] = bind(node.prim, inputs, node.params);
    const [b, t, width] = y.shape, [count] = embeddings.shape;
    const front = broadcastTo(reshape(embeddings, [1, count, width]), [b, count, width]);
    return [concat([front, slice(convert(y, "f32"), 1, count, t)], 1)];
  };
}

/** Inputs of a model whose tokens see all others, with `count` in front. */
export function extended(inputs: TokenInputs, model: Model<any, any, unknown>, count: number): TokenInputs {
  const [b, t] = (inputs.inputIds as Leaf).aval.shape;
  if (inputs.documentStart !== undefined) {
    throw new OptionError("rows of several texts can't have trained embeddings in front of each: leave pack out");
  }
  const front = (value: number, x: Value) => concat([full([b, count], value, "i32"), broadcastTo(x, [b, t])], 1);
  const { attentionMask: mask, tokenTypeIds: types } = inputs;
  return {
    ...inputs,
    inputIds: front(0, asValue(inputs.inputIds)),
    ...(mask !== undefined && { attentionMask: front(1, asValue(mask)) }),
    ...(types !== undefined && { tokenTypeIds: front(0, asValue(types)) }),
    positionIds: concat([
      broadcastTo(model.positions!({ inputIds: full([1, count], 0, "i32") }), [b, count]),
      broadcastTo(add(model.positions!(inputs), count), [b, t]),
    ], 1),
  };
}
