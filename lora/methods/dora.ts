/**
 * DoRA: LoRA, and the length of each output's weights as one trained number.
 * Source: Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation".
 */
import { OptionError } from "../../core/errors.ts";
import { defineComposite } from "../../core/ir/composite.ts";
import { bind1, type Primitive, type Value } from "../../core/ir/graph.ts";
import { full, reduceSum } from "../../core/ops/broadcast.ts";
import { asValue } from "../../core/ops/constant.ts";
import { stopGradient } from "../../core/ops/control.ts";
import { abs, add, div, max, mul, sqrt } from "../../core/ops/elementwise.ts";
import { concat, pad, slice } from "../../core/ops/structure.ts";
import type { Operand } from "../../core/tensor.ts";
import { gamma } from "../bound.ts";
import { outputsOf, widened } from "../follow/effect.ts";
import { method as lora, rankSites, scalingOf } from "./lora.ts";
import type { Adapted, Method } from "./method.ts";
import type { AdapterEntry, LoraOptions } from "../options.ts";
import { squaredNormChange } from "../follow/rules.ts";

/** Σ w² over one axis of an f32 matrix: a name, so that another adapter of the same weight knows what to add to it. */
const squaredNormPrim: Primitive<{ axis: number }> = defineComposite<{ axis: number }>({
  name: "squaredNorm",
  define: ([w], { axis }) => [reduceSum(mul(w, w), axis)],
});

/**
 * ‖W + s·B·A‖ of each output that the module's adapter changes, f32[out]. Neither the sum nor B·A is made: their squares come
 * apart into products with A. Where the change all but cancels W only rounding is left of it, so it counts no less than that.
 */
function normsOf(site: Adapted, { A, B }: AdapterEntry, weight: Value, adapterWeight?: Operand): Value {
  const { inAxis: axis } = site, { start, end } = outputsOf(site);
  const rows = slice(widened(weight), 1 - axis, start, end);
  const sides = { inner: asValue(A!), outer: asValue(B!), scaling: scalingOf(site, adapterWeight) };
  const base = bind1(squaredNormPrim, [rows], { axis });
  const whole = add(base, squaredNormChange(rows, sides, axis));
  return sqrt(max(max(whole, mul(base, 2 ** -24)), full(base.shape, 1e-30)));
}

export const method: Method<Adapted, LoraOptions<any>> = {
  ...lora,
  name: "dora",
  switch: "dora",
  options: {
    ...lora.options,
    dora: { peft: "use_dora", file: { is: "true or false", default: false } },
  },
  keys: [...lora.keys, { leaf: "magnitude", ending: ".lora_magnitude_vector", optional: true }],
  sites: (outline, options) => {
    if (options.aloraInvocationTokens) {
      throw new OptionError("aloraInvocationTokens and dora exclude each other: leave one out");
    }
    if (options.loraBias) throw new OptionError("loraBias and dora exclude each other: leave one out");
    return rankSites(method, outline, options, (_, { r, in: inputs, out }) => ({
      ...{ A: [r, inputs], B: [out, r], magnitude: [out] },
    }));
  },
  derived: (site, entry, weight) => ({ magnitude: normsOf(site, entry, asValue(weight)) }),
  readsWeight: true,
  effect: (site, entry, weight, context) => {
    const { start, end, of } = outputsOf(site);
    const ones = (count: number) => count === 0 ? [] : [full([count], 1)];
    // The norm is a constant to the gradient, as in section 4.3 of the paper.
    const norms = stopGradient(context.lost?.("norms") ?? normsOf(site, entry, weight, context.adapterWeight));
    const value = concat([...ones(start), div(entry.magnitude!, norms), ...ones(of - end)], 0);
    return { ...lora.effect!(site, entry, weight, context), gain: { of: "out", value } };
  },
  /** The squared norm is a sum of terms that may cancel, and its root halves what rounding did: γₙ·Σ|terms| / ‖W + s·B·A‖². */
  gainError: (site, entry, weight) => {
    const sizes = { A: abs(asValue(entry.A!)), B: abs(asValue(entry.B!)) };
    const norms = normsOf(site, entry, weight), terms = normsOf(site, sizes, abs(widened(weight)));
    const { start, end, of } = outputsOf(site);
    const rounding = gamma(site.aval.shape[site.inAxis] + 2 * site.match.r + 8);
    return pad(mul(div(mul(terms, terms), mul(norms, norms)), rounding), [start], [of - end]);
  },
  lost: (site, entry, weight, { adapterWeight }) => ({ norms: normsOf(site, entry, asValue(weight), adapterWeight) }),
  config: (sites, beside) => ({ ...lora.config(sites, beside), use_dora: true }),
};
