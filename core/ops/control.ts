/** Operations about the graph itself: where gradients stop, and what must not be moved. */
import { bind, bind1, type Primitive, type Value } from "../ir/graph.ts";
import type { Operand } from "../tensor.ts";
import { asValue } from "./constant.ts";

/** The input, as a constant to differentiation. */
export const stopGradientPrim: Primitive<null> = {
  name: "stopGradient",
  infer: ([x]) => [x],
  vjp: "nondifferentiable",
  batch: ({ inputs: [x] }) => [stopGradient(x)],
  lowering: { kind: "alias" },
};

/** The same values, as a constant to differentiation. */
export function stopGradient(x: Operand): Value {
  return bind1(stopGradientPrim, [asValue(x)], null);
}

/**
 * The first `count` inputs as they are, but not before the other inputs are known. What is computed from a barrier's
 * outputs is never merged with what was computed from its inputs: this is what keeps a checkpoint's recomputation apart.
 */
export const barrierPrim: Primitive<{ count: number }> = {
  name: "barrier",
  infer: (inputs, { count }) => inputs.slice(0, count),
  vjp: ({ cts, inputs, params: { count } }) => inputs.map((_, i) => i < count ? cts[i] : null),
  batch: ({ inputs, params }) => [...bind(barrierPrim, inputs, params)],
  lowering: { kind: "alias" },
};

/** `values`, not available before `after` is. */
export function barrier(values: readonly Value[], after: readonly Value[]): Value[] {
  return [...bind(barrierPrim, [...values, ...after], { count: values.length })];
}
