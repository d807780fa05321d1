import type { Value } from "../core/ir/graph.ts";
import type { Leaf } from "../core/model.ts";
import { reduceSum } from "../core/ops/broadcast.ts";
import { asValue } from "../core/ops/constant.ts";
import { dot } from "../core/ops/contract.ts";
import { abs, add, div, mul, sub } from "../core/ops/elementwise.ts";
import { randomUniform } from "../core/ops/random.ts";
import { reduceMax } from "../core/ops/reduce.ts";
import type { DType } from "../core/dtype.ts";
import type { Operand } from "../core/tensor.ts";
import { rankOf, widened } from "./follow/effect.ts";
import { applied, laid, sized } from "./follow/forms.ts";
import type { Adapted } from "./methods/method.ts";
import type { AdapterEntry } from "./options.ts";
import type { Scalar } from "../core/tree_types.ts";

/** Unit roundoff: half the gap after 1. */
export const roundoff = { f32: 2 ** -24, f16: 2 ** -11, bf16: 2 ** -8 } as const;
/** Half the gap between the smallest numbers, where relative rounding ends; f32 and bf16 reach so low that it is nothing. */
const tiniest = { f32: 0, f16: 2 ** -25, bf16: 0 } as const;

/**
 * γₙ = nu / (1 - nu): what n roundings to f32 can add up to.
 * Source: Higham 2002, "Accuracy and Stability of Numerical Algorithms", lemma 3.1.
 */
export function gamma(n: number): number {
  return n * roundoff.f32 / (1 - n * roundoff.f32);
}

/**
 * How far x·W' may be from x·W + s·(x·A)·B when W' = W + s·B·A was merged with one rounding to W's dtype:
 * 2γₙ(|x||W| + s|x||A||B|) with n = K + r + 4, and u|x|(|W| + s|A||B|) where W is stored narrower than f32.
 */
export function mergeBound(
  sizes: { readonly k: number; readonly r: number; readonly dtype: DType },
): { readonly ofTerms: number; readonly ofInputs: number } {
  const { k, r, dtype } = sizes;
  const narrow = dtype === "f16" || dtype === "bf16";
  return {
    ofTerms: 2 * gamma(k + r + 4) + (narrow ? roundoff[dtype] : 0),
    ofInputs: narrow ? tiniest[dtype] : 0,
  };
}

/** How far a merged module is from the adapted one over random inputs, each f32[]. */
export interface MergeError {
  /** The greatest |adapted - merged| / bound. At most 1 if merging is right. */
  readonly ratio: Scalar;
  /** The greatest |adapted - merged|, and the greatest bound. */
  readonly difference: Scalar;
  /** What rounding allows. */
  readonly bound: Scalar;
}

/** Feeds one module `rows` random inputs, adapted and merged. */
export function mergeError(
  m: Adapted,
  entry: AdapterEntry,
  weight: Leaf,
  merged: Leaf,
  key: Operand,
  rows: number,
): MergeError {
  const w = asValue(weight);
  const { inAxis } = m;
  const k = w.shape[inAxis];
  const effect = m.method.effect!(m, entry, w, {}), { pair, gain, form } = effect;
  const x = sub(mul(randomUniform(key, [rows, k]), 2), 1);
  const product = (x: Value, w: Operand) => dot(x, w, { contract: [[1], [inAxis]], batch: [[], []] });
  const lowRank = (x: Value, a: Operand, b: Operand) => {
    const narrow = dot(x, a, { contract: [[1], [1]], batch: [[], []] });
    return dot(mul(narrow, pair!.scaling), b, { contract: [[1], [1]], batch: [[], []] });
  };
  /** gain ⊙ (x·W + s·(x·A)·B), of the values themselves or of their sizes. */
  const effected = (size: (x: Value) => Value) => {
    const base = (x: Value) => product(x, size(size === abs ? widened(w) : w));
    if (form !== undefined) {
      const own = size === abs ? sized(form) : form, weight = size(laid(widened(w), inAxis));
      const { delta, whole } = applied(own, size(x), { outputs: w.shape[1 - inAxis], base, weight })!;
      return delta === null ? whole! : add(whole ?? base(size(x)), delta);
    }
    const over = gain && size(gain.value);
    const input = gain?.of === "in" ? mul(size(x), over!) : size(x);
    const plain = base(input);
    const sum = pair === undefined ? plain : add(plain, size(lowRank(input, size(pair.A), size(pair.B))));
    return gain?.of === "out" ? mul(sum, over!) : sum;
  };
  const apart = abs(sub(effected((x) => x), product(x, merged)));
  const terms = effected(abs);
  const { ofTerms, ofInputs } = mergeBound({ k, r: rankOf(effect), dtype: w.dtype });
  const error = m.method.gainError?.(m, entry, w);
  const share = error === undefined ? asValue(ofTerms) : add(error, ofTerms);
  const bound = add(mul(terms, share), mul(reduceSum(abs(x), 1, { keep: true }), ofInputs));
  return { ratio: reduceMax(div(apart, add(bound, 1e-30))), difference: reduceMax(apart), bound: reduceMax(bound) };
}
