/** Weight norms, as DoRA divides by them. Source: Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation". */
import { defineComposite } from "../../core/ir/composite.ts";
import { bind1, type Primitive, type Value } from "../../core/ir/graph.ts";
import { full, reduceSum } from "../../core/ops/broadcast.ts";
import { add, max, mul, sqrt } from "../../core/ops/elementwise.ts";
import type { Operand } from "../../core/tensor.ts";
import { squaredNormChange } from "../follow/rules.ts";

/** Σ w² over one axis of an f32 matrix: a name, so that another adapter of the same weight knows what to add to it. */
const squaredNormPrim: Primitive<{ axis: number }> = defineComposite<{ axis: number }>({
  name: "squaredNorm",
  define: ([w], { axis }) => [reduceSum(mul(w, w), axis)],
});

/**
 * ‖W + s·B·A‖ of the weights of each output, f32[out]. Neither the sum nor B·A is made: their squares come apart into
 * products with A. Where the change all but cancels W only rounding is left of it, so it counts no less than that.
 *
 * @param weight f32, [in, out] or [out, in] as `inAxis` says
 */
export function weightNorms(
  weight: Value,
  { A, B, scaling, inAxis }: {
    readonly A: Value;
    readonly B: Value;
    readonly scaling: Operand;
    readonly inAxis: 0 | 1;
  },
): Value {
  const base = bind1(squaredNormPrim, [weight], { axis: inAxis });
  const whole = add(base, squaredNormChange(weight, { inner: A, outer: B, scaling }, inAxis));
  return sqrt(max(max(whole, mul(base, 2 ** -24)), full(base.shape, 1e-30)));
}
