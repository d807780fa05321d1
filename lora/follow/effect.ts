/** What a method makes of a weight, on which following it, merging it and bounding the difference all stand. */
import type { Value } from "../../core/ir/graph.ts";
import { reshape } from "../../core/ops/broadcast.ts";
import { dot } from "../../core/ops/contract.ts";
import { add, convert, div, mul, sub } from "../../core/ops/elementwise.ts";
import type { Module } from "./analyse.ts";
import type { Effect } from "../methods/method.ts";
import { addedBy, laid, lengthOf, turnedBy } from "./forms.ts";

/** A stored weight as f32. */
export function widened(weight: Value): Value {
  return convert(weight, "f32");
}

/** Which outputs of the module's weight are meant. */
export function outputsOf({ aval, part, inAxis }: Module): { start: number; end: number; of: number } {
  const of = aval.shape[1 - inAxis];
  return { start: part?.start ?? 0, end: part?.end ?? of, of };
}

/** The length of a weight's inputs, and of the outputs that are meant. */
export function sizesOf(site: Module): { in: number; out: number } {
  const { start, end } = outputsOf(site);
  return { in: site.aval.shape[site.inAxis], out: end - start };
}

/**
 * How many products an effect adds up for each value of the weight, at most: of LoRA its rank, of others whatever A and B, or
 * form, they make.
 */
export function rankOf({ pair, form }: Effect): number {
  return (pair === undefined ? 0 : pair.A.shape[0]) + (form === undefined ? 0 : lengthOf(form));
}

/** What is added to a weight, in its layout and shape, f32; null where nothing is. */
export function deltaOf({ pair, form }: Effect, inAxis: 0 | 1, shape: readonly number[]): Value | null {
  if (form !== undefined) {
    const added = addedBy(form, { in: shape[inAxis], out: shape[1 - inAxis] });
    return added && laid(added, inAxis);
  }
  if (pair === undefined) return null;
  const { A, B, scaling } = pair;
  const product = inAxis === 0
    ? dot(A, B, { contract: [[0], [1]], batch: [[], []] })
    : dot(B, A, { contract: [[1], [0]], batch: [[], []] });
  return mul(product, scaling);
}

/** A gain as one row or column of the weight; null where there is none. */
function gainOf({ gain }: Effect, inAxis: 0 | 1): Value | null {
  if (gain === undefined) return null;
  const axis = gain.of === "in" ? inAxis : 1 - inAxis;
  return reshape(gain.value, axis === 0 ? [gain.value.shape[0], 1] : [1, gain.value.shape[0]]);
}

/** One effect on a weight of a layout. */
export interface Effected {
  readonly inAxis: 0 | 1;
  readonly effect: Effect;
}

/** A weight f32 with every effect on it. Several gains and turns each act on the base alone. */
export function effected(weight: Value, effects: readonly Effected[]): Value {
  const parts = effects.map(({ inAxis, effect }) => ({
    delta: deltaOf(effect, inAxis, weight.shape),
    gain: gainOf(effect, inAxis),
    turned: effect.form?.turn && laid(turnedBy(effect.form, laid(weight, inAxis)), inAxis),
  }));
  const [{ delta, gain, turned }] = parts;
  if (parts.length === 1 && turned !== undefined) return delta === null ? turned : add(turned, delta);
  if (parts.length === 1 && gain !== null) return mul(gain, delta === null ? weight : add(weight, delta));
  const changes = parts.map(({ delta, gain, turned }) => {
    if (turned !== undefined) return delta === null ? sub(turned, weight) : add(sub(turned, weight), delta);
    if (gain === null) return delta!;
    const more = mul(sub(gain, 1), weight);
    return delta === null ? more : add(more, mul(gain, delta));
  });
  return add(weight, changes.reduce((a, b) => add(a, b)));
}

/** The weight again: gains of one adapter are of different outputs, so that they may be undone at once. */
export function uneffected(weight: Value, effects: readonly Effected[]): Value {
  const straight = effects.reduce((value, { inAxis, effect }) => {
    const gain = gainOf(effect, inAxis);
    return gain === null ? value : div(value, gain);
  }, weight);
  const deltas = effects.flatMap(({ inAxis, effect }) => deltaOf(effect, inAxis, weight.shape) ?? []);
  return deltas.length === 0 ? straight : sub(straight, deltas.reduce((a, b) => add(a, b)));
}
