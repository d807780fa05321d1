/** What one adapter does to its weight, on which following it, merging it and bounding the difference all stand. */
import type { Value } from "../../core/ir/graph.ts";
import { full } from "../../core/ops/broadcast.ts";
import { asValue } from "../../core/ops/constant.ts";
import { dot } from "../../core/ops/contract.ts";
import { stopGradient } from "../../core/ops/control.ts";
import { convert, div, mul } from "../../core/ops/elementwise.ts";
import { concat, pad, slice } from "../../core/ops/structure.ts";
import type { Leaf } from "../../core/model.ts";
import type { Operand } from "../../core/tensor.ts";
import { weightNorms } from "../methods/dora.ts";
import type { AdapterEntry } from "../options.ts";
import type { Adapted } from "./plan.ts";

/** W becomes gain ⊙ (W + s·B·A): A f32[r, in], B f32[out, r], gain f32[out] where there is one. */
export interface Effect {
  readonly A: Value;
  readonly B: Value;
  readonly scaling: Operand;
  readonly gain: Value | null;
}

/** A stored weight as f32. */
export function widened(weight: Value): Value {
  return convert(weight, "f32");
}

/** Which outputs of the module's weight an adapter changes. */
export function outputsOf({ match: { shape, part }, inAxis }: Adapted): { start: number; end: number; of: number } {
  const of = shape[1 - inAxis];
  return { start: part?.start ?? 0, end: part?.end ?? of, of };
}

/**
 * @param weight the weight as stored, of the model's own shape
 * @param adapterWeight f32[]: multiplies the scaling
 * @param norms what {@link normsOf} gives, where the weight is not the base's any more
 */
export function effectOf(
  m: Adapted,
  entry: AdapterEntry,
  weight: Value,
  adapterWeight?: Operand,
  norms?: Leaf,
): Effect {
  const { start, end, of } = outputsOf(m);
  const ones = (count: number) => count === 0 ? [] : [full([count], 1)];
  const gain = entry.magnitude === undefined ? null : concat([
    ...ones(start),
    // The norm is a constant to the gradient, as in section 4.3 of the paper.
    div(entry.magnitude, stopGradient(norms ?? normsOf(m, entry, weight, adapterWeight))),
    ...ones(of - end),
  ], 0);
  const B = pad(asValue(entry.B!), [start, 0], [of - end, 0]);
  return { A: asValue(entry.A!), B, scaling: scalingOf(m, adapterWeight), gain };
}

function scalingOf({ match: { scaling } }: Adapted, adapterWeight?: Operand): Operand {
  return adapterWeight === undefined ? scaling : mul(adapterWeight, scaling);
}

/** ‖W + s·B·A‖ of each output that the module's adapter changes, f32[out]. */
export function normsOf(m: Adapted, { A, B }: AdapterEntry, weight: Value, adapterWeight?: Operand): Value {
  const { inAxis } = m;
  const { start, end } = outputsOf(m);
  const rows = slice(widened(weight), 1 - inAxis, start, end);
  return weightNorms(rows, { A: asValue(A!), B: asValue(B!), scaling: scalingOf(m, adapterWeight), inAxis });
}

/** s·B·A in the layout of the weight, f32. */
export function deltaOf({ A, B, scaling }: Pick<Effect, "A" | "B" | "scaling">, inAxis: 0 | 1): Value {
  const product = inAxis === 0
    ? dot(A, B, { contract: [[0], [1]], batch: [[], []] })
    : dot(B, A, { contract: [[1], [0]], batch: [[], []] });
  return mul(product, scaling);
}
