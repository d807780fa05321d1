/** The steps that random programs are made of. Any step takes any value: what it can't take as it is, it converts. */
import { sameShape, sizeOf } from "../core/aval.ts";
import { type DType, isFloat } from "../core/dtype.ts";
import { bind1, type Value } from "../core/ir/graph.ts";
import { attention } from "../core/nn/attention.ts";
import { geluTanh, sigmoid, silu, swiglu } from "../core/nn/activation.ts";
import { crossEntropyRows } from "../core/nn/loss.ts";
import { layerNorm, rmsNorm } from "../core/nn/norm.ts";
import { rope } from "../core/nn/rope.ts";
import { logSoftmax, softmax } from "../core/nn/softmax.ts";
import { broadcastTo, full, reduceSum, reshape } from "../core/ops/broadcast.ts";
import { constant } from "../core/ops/constant.ts";
import { dot } from "../core/ops/contract.ts";
import { barrier, stopGradient } from "../core/ops/control.ts";
import {
  abs,
  add,
  and,
  bitcast,
  clamp,
  convert,
  cos,
  div,
  eq,
  erf,
  exp,
  floor,
  ge,
  gt,
  isFiniteValue,
  log,
  lt,
  max,
  min,
  mul,
  ne,
  neg,
  not,
  or,
  rem,
  rsqrt,
  select,
  shl,
  shr,
  sign,
  sin,
  sqrt,
  sub,
  tanh,
  xor,
} from "../core/ops/elementwise.ts";
import { dynamicSlice, dynamicUpdateSlice, gather, scatterAdd } from "../core/ops/indexing.ts";
import { randomBits } from "../core/ops/random.ts";
import { argmax, cumsum, reduceMax } from "../core/ops/reduce.ts";
import { concat, iota, pad, slice, split, transpose } from "../core/ops/structure.ts";
import { checkpoint } from "../core/transforms/checkpoint.ts";
import { grad } from "../core/transforms/grad.ts";
import { vmap } from "../core/transforms/vmap.ts";
import { elementwise, resultFor } from "./elementwise.ts";

/** An operation of the table: of a value, with the choices and the values of `c`. */
export type Step = (x: Value, c: Draws) => Value;

/** The values of a program so far, and the choices of the step that is being made. */
export class Draws {
  readonly all: Value[];
  /** What must not be near 0 for the program to have one answer: how far each decision is from its threshold. */
  readonly margins: Value[] = [];
  /** Values that may be infinite or NaN where arithmetic may not meet them. */
  readonly #wild = new Set<Value>();
  #choices: readonly number[] = [];
  #at = 0;
  #recording = true;

  constructor(readonly nonFinite: boolean, wild: readonly boolean[], inputs: readonly Value[]) {
    this.all = [...inputs];
    if (!nonFinite) inputs.forEach((v, i) => wild[i] && this.#wild.add(v));
  }

  /** A number below `n`, the next choice. */
  below(n: number): number {
    return this.#choices[this.#at++ % this.#choices.length] % n;
  }

  /** One of a list. */
  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)];
  }

  /** An axis of a value that has one. */
  axis(x: Value): number {
    return this.below(x.shape.length);
  }

  /** A value of the same shape as `x`, `x` itself at least. */
  like(x: Value): Value {
    return this.pick([...this.all.filter((v) => sameShape(v.shape, x.shape)), x]);
  }

  /** Does one step, through the transforms that `within` names, and keeps what it makes unless it is large. */
  step(step: Step, of: number, choices: readonly number[], within: readonly string[]): void {
    this.#choices = choices;
    this.#at = 0;
    const x = this.all[Math.max(0, this.all.length - 1 - of)];
    // Values of a transform's own trace end with it.
    this.#recording = within.length === 0;
    const f = within.reduce<(x: Value) => Value>((f, name) => transforms[name](f, this), (x) => step(x, this));
    const y = f(x);
    if (sizeOf(y.shape) > 600 || y.shape.length > 5) return;
    if (!this.nonFinite && this.#wild.has(x) && isFloat(y.dtype)) this.#wild.add(y);
    this.all.push(y);
  }

  /** A value as f32, small and whole where it is finite. */
  number(x: Value): Value {
    const y = x.dtype === "i32" || x.dtype === "u32" ? rem(x, 5) : x;
    const f = convert(y, "f32");
    return this.#wild.has(x) ? this.tame(f) : f;
  }

  /** f32 without infinities and NaN. */
  tame(x: Value): Value {
    return select(isFiniteValue(x), x, 1);
  }

  /** A value as i32. */
  whole(x: Value): Value {
    if (x.dtype === "i32") return x;
    return x.dtype === "u32" ? bitcast(x, "i32") : convert(isFloat(x.dtype) ? this.number(x) : x, "i32");
  }

  /** A value as bool. */
  truth(x: Value): Value {
    return x.dtype === "bool" ? x : gt(this.number(x), 0);
  }

  /** A value as one of the integer types, as it is if it can be. */
  bits(x: Value, dtype: DType = "i32"): Value {
    return dtype === "bool" ? this.truth(x) : dtype === "u32" ? bitcast(this.whole(x), "u32") : this.whole(x);
  }

  /** Another value of the shape and the dtype of `x`. */
  alike(x: Value): Value {
    const other = this.like(x);
    if (other.dtype === x.dtype) return other;
    if (!isFloat(x.dtype)) return this.bits(other, x.dtype);
    return convert(this.number(other), x.dtype);
  }

  /** f32 of the shape of `x`. */
  second(x: Value): Value {
    return this.number(this.like(x));
  }

  /** Where what rounds is above a threshold, which it is not near to. */
  decide(y: Value): Value {
    const threshold = this.pick([0.13, 0.37, -0.29, 0.71, 1.23]);
    if (this.#recording) this.margins.push(sub(y, threshold));
    return gt(y, threshold);
  }

  /** Whether decisions may be made: inside a transform nobody could look at their margins. */
  get decides(): boolean {
    return this.#recording;
  }
}

const transforms: Record<string, (f: (x: Value) => Value, c: Draws) => (x: Value) => Value> = {
  checkpoint: (f) => checkpoint(f),
  vmap: (f) => (x) => x.shape.length === 0 ? f(x) : vmap(f)(x),
  grad: (f, c) => (x) => small(grad((y: Value) => reduceSum(convert(small(c.number(f(y))), "f32")))(c.number(x))),
};

/** Keeps numbers small enough for sums and products of them to be exact. */
const small = (x: Value) => clamp(x, -4, 4);

/** A step on f32. */
const float = (f: (x: Value, c: Draws) => Value): Step => (x, c) => f(c.number(x), c);
/** A step that needs an axis: a scalar stays. */
const along = (f: (x: Value, c: Draws) => Value): Step => (x, c) => x.shape.length === 0 ? x : f(x, c);
/** A step on i32, u32 or bool. */
const integer = (f: (x: Value, c: Draws) => Value, types: readonly DType[] = ["i32", "u32"]): Step => (x, c) =>
  f(types.includes(x.dtype) ? x : c.bits(x, c.pick(types)), c);
/** A step whose result rounds: only where it is above a threshold is kept. */
const rounded = (f: (x: Value, c: Draws) => Value): Step => (x, c) => {
  if (!c.decides) return x;
  return c.decide(f(c.number(x), c));
};
/** A rounded step along an axis that has elements: of none there is no greatest. */
const row = (f: (x: Value, c: Draws) => Value): Step => {
  const step = rounded(f);
  return (x, c) => x.shape.length === 0 || x.shape[0] === 0 || x.shape.at(-1) === 0 ? x : step(x, c);
};

const constants = [0, 1, -1, 2, -0, NaN, Infinity, -Infinity];

/** A constant of f32; those that are not finite where arithmetic may meet them. */
const some = (c: Draws) => constant(c.pick(c.nonFinite ? constants : constants.slice(0, 5)));

const edges: Readonly<Partial<Record<DType, readonly number[]>>> = {
  i32: [-(2 ** 31), 2 ** 31 - 1, 0, -1, 1, 3, -7, 16777217],
  u32: [2 ** 32 - 1, 2 ** 31, 0, 1, 3, 16777217],
  bool: [0, 1],
};
const edge = (x: Value, c: Draws, without: readonly number[] = []) =>
  constant(c.pick(edges[x.dtype]!.filter((n) => !without.includes(n))), x.dtype);

/** Some i32 indices around [0, limit): a few of them outside. */
const indices = (c: Draws, limit: number, length = 3): Value =>
  sub(mul(iota([length]), 1 + c.below(3)), c.below(Math.max(1, limit)));

const movement: Record<string, Step> = {
  transpose: (x, c) => {
    const by = c.below(Math.max(1, x.shape.length));
    return transpose(x, x.shape.map((_, i) => (i + by) % x.shape.length));
  },
  swap: (x) => x.shape.length < 2 ? x : transpose(x),
  reshape: (x, c) => reshape(x, c.pick([[sizeOf(x.shape)], [1, ...x.shape], [...x.shape, 1], x.shape.toReversed()])),
  turnSplit: along((x, c) => {
    const axis = c.axis(x), first = c.below(x.shape[axis] + 1);
    return concat(split(x, axis, [first, x.shape[axis] - first]).toReversed(), axis);
  }),
  slice: along((x, c) => {
    const axis = c.axis(x), start = c.below(x.shape[axis] + 1);
    return slice(x, axis, start, start + c.below(x.shape[axis] - start + 1));
  }),
  pad: (x, c) => pad(x, x.shape.map(() => c.below(2)), x.shape.map(() => c.below(2))),
  concat: along((x, c) => concat([x, c.alike(x)], c.axis(x))),
  concatThree: along((x, c) => concat([x, c.alike(x), x], c.axis(x))),
  broadcast: (x, c) => broadcastTo(x, [c.below(4), ...x.shape]),
  stretch: (x) => broadcastTo(x, x.shape.map((d) => d === 1 ? 3 : d)),
  select: (x, c) => select(c.truth(c.like(x)), x, c.alike(x)),
  gather: along((x, c) => x.shape[0] === 0 ? x : gather(x, indices(c, x.shape[0], c.below(4)))),
  gatherByValue: along((x, c) => {
    const of = c.like(x);
    return x.shape[0] === 0 ? x : gather(x, c.whole(reshape(of, [sizeOf(of.shape)])));
  }),
  window: (x, c) => {
    const sizes = x.shape.map((d) => Math.max(0, d - c.below(2)));
    return dynamicSlice(x, x.shape.map(() => c.below(4) - 1), sizes);
  },
  update: (x, c) => {
    const part = dynamicSlice(c.alike(x), x.shape.map(() => 0), x.shape.map((d) => Math.max(0, d - 1)));
    return dynamicUpdateSlice(x, part, x.shape.map(() => c.below(3)));
  },
  barrier: (x, c) => barrier([x], [c.like(x)])[0],
  stopGradient: (x) => stopGradient(x),
};

const arithmetic: Record<string, Step> = {
  add: float((x, c) => small(add(x, c.second(x)))),
  sub: float((x, c) => small(sub(c.second(x), x))),
  mul: float((x, c) => small(mul(x, c.second(x)))),
  square: float((x) => small(mul(x, x))),
  max: float((x, c) => max(neg(x), c.second(x))),
  min: float((x, c) => min(x, c.second(x))),
  constantSum: float((x, c) => small(add(x, some(c)))),
  constantProduct: float((x, c) => small(mul(some(c), x))),
  constantMax: float((x, c) => small(max(x, some(c)))),
  quotient: float((x, c) => small(div(x, constant(c.pick(c.nonFinite ? [1, -1, 0, -0, Infinity, NaN] : [1, -1]))))),
  twoConstants: float((x, c) => select(eq(x, 1), some(c), select(eq(x, 2), some(c), some(c)))),
  sign: float((x) => sign(x)),
  abs: float((x) => abs(x)),
  floor: float((x) => floor(x)),
  compare: float((x, c) => c.pick([lt, ge, eq, ne, gt])(x, c.second(x))),
  isFinite: (x) => isFloat(x.dtype) ? isFiniteValue(convert(x, "f32")) : ne(x, x),
  toHalf: (x) => isFloat(x.dtype) ? convert(x, "f16") : x,
  toBrain: (x) => isFloat(x.dtype) ? convert(x, "bf16") : x,
  toFloat: float((x) => x),
  toInteger: float((x, c) => convert(x, c.pick(["i32", "bool"]))),
  filled: (x, c) => full(x.shape, c.below(2), c.pick(["f32", "i32", "u32", "bool"])),
};

const integers: Record<string, Step> = {
  integerAdd: integer((x, c) => add(x, c.alike(x))),
  integerSub: integer((x, c) => sub(c.alike(x), x)),
  integerMul: integer((x, c) => mul(x, c.alike(x))),
  integerMax: integer((x, c) => c.pick([max, min])(x, c.alike(x))),
  integerNeg: integer((x, c) => c.pick([neg, abs, sign, not])(x)),
  integerConstant: integer((x, c) => c.pick([add, sub, mul, max, min])(x, edge(x, c))),
  integerFold: integer((x, c) => add(x, mul(edge(x, c), edge(x, c)))),
  integerDivide: integer((x, c) => c.pick([div, rem])(x, edge(x, c, [0]))),
  integerCompare: integer((x, c) => c.pick([lt, ge, eq, ne, gt])(x, c.alike(x))),
  bitwise: integer((x, c) => c.pick([and, or, xor])(x, c.alike(x)), ["i32", "u32", "bool"]),
  not: integer((x) => not(x), ["i32", "u32", "bool"]),
  shift: integer((x, c) => c.pick([shl, shr])(x, c.below(32))),
  sameBits: integer((x) => bitcast(x, x.dtype === "i32" ? "u32" : "i32")),
  integerSum: along(integer((x, c) => reduceSum(x, c.axis(x)))),
  integerMost: along(integer((x, c) => x.shape.includes(0) ? x : reduceMax(x, c.axis(x)), ["i32"])),
  randomBits: (x) => randomBits(sizeOf(x.shape) < 2 ? constantKey() : twoWords(x), x.shape.slice(0, 3)),
};

const constantKey = () => bitcast(iota([2]), "u32");
const twoWords = (x: Value) => {
  const first = slice(reshape(x, [sizeOf(x.shape)]), 0, 0, 2);
  return first.dtype === "u32" ? first : constantKey();
};

const reductions: Record<string, Step> = {
  sum: along(float((x, c) => small(reduceSum(x, c.axis(x))))),
  sumTwo: float((x) => x.shape.length < 3 ? x : small(reduceSum(x, [0, x.shape.length - 1]))),
  sumAll: float((x) => small(reduceSum(x))),
  greatest: along(float((x, c) => {
    const axis = c.axis(x);
    return x.shape[axis] === 0 ? x : reduceMax(x, axis, { keep: true });
  })),
  argmax: along(float((x, c) => {
    const axis = c.axis(x);
    return x.shape[axis] === 0 ? x : argmax(x, axis);
  })),
  centred: along(float((x) => {
    return x.shape.at(-1) === 0 ? x : small(sub(x, broadcastTo(reduceMax(x, -1, { keep: true }), x.shape)));
  })),
  cumsum: along(float((x) => small(cumsum(x)))),
  scatter: along(float((x, c) => small(scatterAdd(indices(c, x.shape[0], x.shape[0]), x, c.below(4))))),
};

const products: Record<string, Step> = {
  product: along((x, c) => {
    const other = c.pick([...c.all.filter((v) => v.shape.some((d) => x.shape.includes(d))), x]);
    const axis = x.shape.findIndex((d) => other.shape.includes(d));
    const dims = { contract: [[axis], [other.shape.indexOf(x.shape[axis])]], batch: [[], []] } as const;
    const half = (v: Value) => v.dtype === "f16" || v.dtype === "bf16" ? convert(c.number(v), v.dtype) : c.number(v);
    return small(dot(half(x), half(other), dims));
  }),
  twoProducts: float((x) => {
    if (x.shape.length !== 2) return x;
    const dims = { contract: [[1], [1]], batch: [[], []] } as const;
    return small(add(dot(x, x, dims), dot(mul(x, 2), neg(x), dims)));
  }),
  batched: float((x) => {
    if (x.shape.length !== 3) return x;
    return small(dot(x, x, { contract: [[2], [2]], batch: [[0], [0]] }));
  }),
  outer: float((x, c) => small(dot(x, c.second(x), { contract: [[], []], batch: [[], []] }))),
};

/** x as [batch, tokens, heads, width], with no axis of 0 but the batch's. */
function heads(x: Value): Value {
  const [last = 1, before = 1] = x.shape.toReversed();
  const rest = sizeOf(x.shape) / Math.max(1, last * before);
  return sizeOf(x.shape) === 0 ? full([1, 1, 1, 2], 1) : reshape(x, [rest, before, 1, last]);
}

/** Every operation of one f32 that gives another. */
const unaries = elementwise.filter((each) => each.operands === 1 && resultFor(each, "f32") === "f32");

const composites: Record<string, Step> = {
  softmax: row((x) => softmax(x)),
  softmaxFirst: row((x) => softmax(x, 0)),
  logSoftmax: row((x) => logSoftmax(x)),
  layerNorm: row((x, c) => layerNorm(x, ones(x, c), ones(x, c), 1e-5)),
  rmsNorm: row((x, c) => rmsNorm(x, ones(x, c), 1e-5)),
  crossEntropy: row((x, c) => {
    const cols = x.shape.at(-1)!;
    const rows = reshape(x, [sizeOf(x.shape) / cols, cols]);
    return crossEntropyRows(rows, rem(iota([rows.shape[0]]), 1 + c.below(cols)));
  }),
  attention: rounded((x, c) => {
    const [q, k] = [heads(c.tame(x)), heads(c.tame(c.second(x)))];
    return attention(q, k, neg(k), { causal: c.below(2) === 0, cap: c.pick([undefined, undefined, 2, 50]) });
  }),
  rope: rounded((x) => {
    const q = heads(x), [b, t, , dh] = q.shape;
    if (dh % 2 === 1) return x;
    const angle = mul(convert(iota([b, t, dh / 2], 1), "f32"), 0.5);
    return rope(q, { cos: cos(angle), sin: sin(angle) });
  }),
  activation: rounded((x, c) => c.pick([geluTanh, silu, sigmoid, tanh, erf])(x)),
  gated: rounded((x, c) => swiglu(x, c.second(x))),
  transcendental: rounded((x, c) => c.pick([exp, sin, cos, (v: Value) => log(abs(v)), (v: Value) => sqrt(abs(v))])(x)),
  inverse: rounded((x) => rsqrt(add(abs(x), 1))),
  anyUnary: rounded((x, c) => bind1(c.pick(unaries).prim, [add(abs(x), 0.5)], null)),
};

const ones = (x: Value, c: Draws) => full([x.shape.at(-1)!], 1 + c.below(2));

/** Steps whose gradient is shared among equals: a third of it would round. */
export const roundedSlopes: ReadonlySet<string> = new Set(["greatest", "centred"]);

/** Every step, by name. */
export const steps: Readonly<Record<string, Step>> = {
  ...movement,
  ...arithmetic,
  ...integers,
  ...reductions,
  ...products,
  ...composites,
};
