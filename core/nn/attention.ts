/**
 * Attention that keeps no queries x keys tensor: forward saves its output and each row's log-sum-exp, backward computes the
 * weights again from them. Source: Dao et al. 2022, "FlashAttention", algorithm 4; Ainslie et al. 2023 for grouped queries.
 */
import { formatAval, sameShape, sizeOf } from "../aval.ts";
import { ShapeError } from "../errors.ts";
import { defineComposite } from "../ir/composite.ts";
import { type BatchRule, bind, type Primitive, type Value } from "../ir/graph.ts";
import { showArgument } from "../ops/arguments.ts";
import { broadcastTo, full, reduceSum, reshape } from "../ops/broadcast.ts";
import { asValue, constant } from "../ops/constant.ts";
import { dot, type DotDims } from "../ops/contract.ts";
import { add, and, div, eq, exp, ge, le, log, mul, select, sub, tanh } from "../ops/elementwise.ts";
import { reduceMax } from "../ops/reduce.ts";
import { iota, transpose } from "../ops/structure.ts";
import type { Operand } from "../tensor.ts";
import { sigmoid } from "./activation.ts";
import { checkOptions, type OptionNames } from "../options.ts";

type Params = { readonly scale: number; readonly cap?: number; readonly causal: boolean };

// Definitions work on scores [B,Hkv,Tq,G,Tk]: G = H / Hkv query heads read one key/value head.
const scoreDims: DotDims = { contract: [[4], [3]], batch: [[0, 2], [0, 2]] };

/** [B,Tq,H,dh] as [B,Tq,Hkv,G,dh]. */
function grouped(q: Value, kvHeads: number): Value {
  const [b, t, h, dh] = q.shape;
  return reshape(q, [b, t, kvHeads, h / kvHeads, dh]);
}

/** [B,H,Tq] as [B,Hkv,Tq,G,1], to stand beside scores. */
function broadcastToScores(x: Value, kvHeads: number): Value {
  const [b, h, t] = x.shape;
  return reshape(transpose(reshape(x, [b, kvHeads, h / kvHeads, t]), [0, 1, 3, 2]), [b, kvHeads, t, h / kvHeads, 1]);
}

/** [B,T,H,dh] as [B,H,T,dh]. */
const headsFirst = (x: Value) => transpose(x, [0, 2, 1, 3]);

/** Scores as they are weighed, how far each is from its bound (tanh of its share of that) and which keys each query sees. */
function scoresOf([q, k, , mask, offset, first]: readonly Value[], { scale, cap, causal }: Params) {
  const [b, keys, kvHeads] = k.shape;
  const scaled = mul(dot(grouped(q, kvHeads), k, scoreDims), cap === undefined ? scale : scale / cap);
  const bent = cap === undefined ? null : tanh(scaled);
  const scores = bent === null ? scaled : mul(bent, cap!);
  let visible = broadcastTo(reshape(mask, [b, 1, 1, 1, keys]), scores.shape);
  if (causal) {
    const query = add(iota(scores.shape, 2), broadcastTo(offset, scores.shape));
    visible = and(visible, le(iota(scores.shape, 4), query));
  }
  if (first) {
    const bounds = broadcastTo(reshape(first, [b, 1, q.shape[1], 1, 1]), scores.shape);
    visible = and(visible, ge(iota(scores.shape, 4), bounds));
  }
  return { scores, bent, visible };
}

/** e^(scores - row) where visible, else 0; `row` [B,Hkv,Tq,G,1]. Hidden scores never reach exp, where they could overflow. */
function weigh(scores: Value, visible: Value, row: Value): Value {
  return select(visible, exp(select(visible, sub(scores, row), 0)), 0);
}

const attentionPrim: Primitive<Params> = defineComposite<Params>({
  name: "attention",
  define: (inputs, params) => {
    const [q, k, v] = inputs;
    const [b, t, h, dh] = q.shape;
    const { scores, visible } = scoresOf(inputs, params);
    const highest = reduceMax(select(visible, scores, -3.4e38), -1, { keep: true });
    const weights = weigh(scores, visible, highest);
    const total = reduceSum(weights, -1, { keep: true });
    const blind = eq(total, 0);
    const lse = select(blind, 0, add(highest, log(select(blind, 1, total))));
    const out = dot(div(weights, select(blind, 1, total)), v, { contract: [[4], [1]], batch: [[0, 1], [0, 2]] });
    const groups = h / k.shape[2];
    return [
      reshape(transpose(out, [0, 2, 1, 3, 4]), [b, t, h, dh]),
      reshape(transpose(reshape(lse, [b, k.shape[2], t, groups]), [0, 1, 3, 2]), [b, h, t]),
    ];
  },
  vjp: ({ cts: [dout, dlse], needs, inputs, outs: [out, lse], params }) => {
    if (dout === null && dlse === null) return inputs.map(() => null);
    const ct = dout ?? full(out.shape, 0);
    // d score = weight · (dout·v - Σ dout·out + dlse)
    const perQuery = reduceSum(mul(headsFirst(ct), headsFirst(out)), -1);
    const delta = dlse ? sub(perQuery, dlse) : perQuery;
    const operands = [...inputs, ct, lse, delta];
    const [dq] = needs[0] ? bind(attentionGradQPrim, operands, params) : [null];
    const [dk, dv] = needs[1] || needs[2] ? bind(attentionGradKVPrim, operands, params) : [null, null];
    return [dq, dk, dv, ...inputs.slice(3).map(() => null)];
  },
  batch: foldBatch(() => attentionPrim),
  lowering: { kind: "attention", pass: "forward" },
});

/** What both backward passes compute again: the weights, and the cotangents of the scaled scores, before any bound. */
function scoreGrads(operands: readonly Value[], params: Params) {
  const inputs = operands.slice(0, -3), [dout, lse, delta] = operands.slice(-3);
  const [, k, v] = inputs, kvHeads = k.shape[2];
  const { scores, bent, visible } = scoresOf(inputs, params);
  const weights = weigh(scores, visible, broadcastTo(broadcastToScores(lse, kvHeads), scores.shape));
  const dweights = dot(grouped(dout, kvHeads), v, scoreDims);
  const dscores = mul(weights, sub(dweights, broadcastToScores(delta, kvHeads)));
  // The slope of cap·tanh(x/cap).
  return { dout, weights, dscores: bent === null ? dscores : mul(dscores, sub(1, mul(bent, bent))) };
}

const attentionGradQPrim: Primitive<Params> = defineComposite<Params>({
  name: "attentionGradQ",
  define: (inputs, params) => {
    const [q, k] = inputs;
    const { dscores } = scoreGrads(inputs, params);
    const dq = dot(dscores, k, { contract: [[4], [1]], batch: [[0, 1], [0, 2]] });
    return [mul(reshape(transpose(dq, [0, 2, 1, 3, 4]), q.shape), params.scale)];
  },
  batch: foldBatch(() => attentionGradQPrim),
  lowering: { kind: "attention", pass: "backward-q" },
});

const attentionGradKVPrim: Primitive<Params> = defineComposite<Params>({
  name: "attentionGradKV",
  define: (inputs, params) => {
    const [q, k] = inputs;
    const { dout, weights, dscores } = scoreGrads(inputs, params);
    const dims: DotDims = { contract: [[2, 3], [1, 3]], batch: [[0, 1], [0, 2]] };
    return [
      mul(headsFirst(dot(dscores, grouped(q, k.shape[2]), dims)), params.scale),
      headsFirst(dot(weights, grouped(dout, k.shape[2]), dims)),
    ];
  },
  batch: foldBatch(() => attentionGradKVPrim),
  lowering: { kind: "attention", pass: "backward-kv" },
});

/** A new batch axis is more of the batch that is there. The offset (input 4) is one for all. */
function foldBatch(prim: () => Primitive<Params>): BatchRule<Params> {
  return ({ inputs, batched, params, size }) => {
    if (batched[4]) throw new ShapeError("vmap over the offset of attention has no rule: pass one offset for all");
    const folded = inputs.map((x, i) => {
      if (i === 4) return x;
      const all = batched[i] ? x : broadcastTo(x, [size, ...x.shape], { leading: true });
      return reshape(all, [size * all.shape[1], ...all.shape.slice(2)]);
    });
    const batch = inputs[0].shape[batched[0] ? 1 : 0];
    return bind(prim(), folded, params).map((y) => reshape(y, [size, batch, ...y.shape.slice(1)]));
  };
}

/** What attention may see, and what is made of scores. */
export interface AttentionOptions {
  /** bool[B,Tk]: whether a key is a real token. All are, by default. */
  readonly mask?: Operand;
  /** i32[]: the place of the first query among the keys, for causal attention over a cache. 0 by default. */
  readonly offset?: Operand;
  /** i32[B,Tq]: the first key that each query may see, the start of a window or of its document. 0 by default. */
  readonly first?: Operand;
  /** 1/√dh by default. */
  readonly scale?: number;
  /** A soft bound: scores x become cap·tanh(x/cap), before anything is masked. None by default. */
  readonly cap?: number;
  /** f32[H]: the score of one more key in every softmax of a head, whose value is 0: attention may go nowhere. */
  readonly sinks?: Operand;
  /** Whether query i sees only keys up to offset + i. */
  readonly causal: boolean;
}

const attentionOptions: OptionNames<AttentionOptions> = {
  ...{ mask: true, offset: true, first: true, scale: true, cap: true, sinks: true, causal: true },
};

/**
 * softmax(scale · q·kᵀ)·v per head: q f32[B,Tq,H,dh], k and v f32[B,Tk,Hkv,dh] where Hkv divides H (query head h reads
 * key/value head ⌊h / (H/Hkv)⌋), to f32[B,Tq,H,dh]. A query that sees no key gives zeros.
 *
 * @throws {ShapeError} when the sizes do not fit each other
 */
export function attention(q: Operand, k: Operand, v: Operand, options: AttentionOptions): Value {
  checkOptions("attention", options, attentionOptions);
  const [query, key, value] = [asValue(q), asValue(k), asValue(v)];
  const [b, queries, heads, width] = query.shape;
  const [kb, keys, kvHeads, kwidth] = key.shape;
  const f32 = [query, key, value].every(({ dtype }) => dtype === "f32");
  if (
    !f32 || query.shape.length !== 4 || key.shape.length !== 4 || !sameShape(key.shape, value.shape) || kb !== b ||
    kwidth !== width || (kvHeads === 0 ? heads !== 0 : heads % kvHeads !== 0)
  ) {
    throw new ShapeError(
      `Cannot attend from ${formatAval(query.aval)} to keys ${formatAval(key.aval)} and values ` +
        `${formatAval(value.aval)}: they are f32, [B,Tq,H,dh] and twice [B,Tk,Hkv,dh], where Hkv divides H`,
    );
  }
  const mask = options.mask === undefined ? full([b, keys], 1, "bool") : asValue(options.mask, "bool");
  if (mask.dtype !== "bool" || !sameShape(mask.shape, [b, keys])) {
    throw new ShapeError(`Cannot mask attention by ${formatAval(mask.aval)}: it takes bool[${b},${keys}]`);
  }
  const offset = options.offset === undefined ? constant(0, "i32") : asValue(options.offset, "i32");
  const first = options.first === undefined ? [] : [asValue(options.first, "i32")];
  if (first.some((x) => x.dtype !== "i32" || !sameShape(x.shape, [b, queries]))) {
    throw new ShapeError(
      `Cannot bound attention by ${formatAval(first[0].aval)}: the first key of each query is i32[${b},${queries}]`,
    );
  }
  const { scale = 1 / Math.sqrt(width), cap, causal } = options;
  if (cap !== undefined && !(Number.isFinite(cap) && cap > 0)) {
    throw new ShapeError(`Cannot bound the scores of attention by ${showArgument(cap)}: it is a number above 0`);
  }
  const sinks = options.sinks === undefined ? null : asValue(options.sinks);
  if (sinks !== null && !(sinks.dtype === "f32" && sameShape(sinks.shape, [heads]))) {
    throw new ShapeError(`Attention of ${heads} heads has sinks f32[${heads}], not ${formatAval(sinks.aval)}`);
  }
  if (keys === 0 || sizeOf(query.shape) === 0) return full(query.shape, 0);
  const params = cap === undefined ? { scale, causal } : { scale, cap, causal };
  const [out, lse] = bind(attentionPrim, [query, key, value, mask, offset, ...first], params);
  if (sinks === null) return out;
  // A share e^lse / (e^lse + e^sink) of each query's weights goes to keys, the rest to the sink.
  const share = sigmoid(sub(lse, broadcastTo(reshape(sinks, [1, heads, 1]), lse.shape)));
  return mul(out, broadcastTo(reshape(transpose(share, [0, 2, 1]), [b, queries, heads, 1]), out.shape));
}
