import type { Value } from "../core/ir/graph.ts";
import type { Leaf } from "../core/model.ts";
import { reduceSum } from "../core/ops/broadcast.ts";
import { asValue } from "../core/ops/constant.ts";
import { dot } from "../core/ops/contract.ts";
import { abs, add, convert, div, mul, sub } from "../core/ops/elementwise.ts";
import { randomUniform } from "../core/ops/random.ts";
import { reduceMax } from "../core/ops/reduce.ts";
import type { DType } from "../core/dtype.ts";
import type { Operand } from "../core/tensor.ts";
import type { LoraPair } from "./init.ts";
import type { Placement } from "./merge.ts";

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

/** The greatest |adapted - merged| / bound over `rows` random inputs of one module, f32[]. At most 1 if merging is right. */
export function mergeError(
  { A, B }: LoraPair,
  { scaling, inAxis }: Placement,
  weight: Leaf,
  merged: Leaf,
  key: Operand,
  rows: number,
): Value {
  const w = asValue(weight);
  const [k, r] = [w.shape[inAxis], A.shape[0]];
  const x = sub(mul(randomUniform(key, [rows, k]), 2), 1);
  const product = (x: Value, w: Operand) => dot(x, w, { contract: [[1], [inAxis]], batch: [[], []] });
  const lowRank = (x: Value, a: Operand, b: Operand) => {
    const narrow = dot(x, a, { contract: [[1], [1]], batch: [[], []] });
    return dot(mul(narrow, scaling), b, { contract: [[1], [1]], batch: [[], []] });
  };
  const adapted = add(product(x, w), lowRank(x, A, B));
  const apart = abs(sub(adapted, product(x, merged)));
  const terms = add(product(abs(x), abs(convert(w, "f32"))), abs(lowRank(abs(x), abs(A), abs(B))));
  const { ofTerms, ofInputs } = mergeBound({ k, r, dtype: w.dtype });
  const bound = add(mul(terms, ofTerms), mul(reduceSum(abs(x), 1, { keep: true }), ofInputs));
  return reduceMax(div(apart, add(bound, 1e-30)));
}
