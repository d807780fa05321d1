/**
 * Seeded faults: each is a mistake that such code has had somewhere. In every variant that it can be made in, it must make a
 * merge property fail within 200 runs.
 */
import { assert, assertStringIncludes } from "@std/assert";
import fc from "fast-check";
import type { Value } from "../../core/ir/graph.ts";
import type { Leaf } from "../../core/model.ts";
import { asValue } from "../../core/ops/constant.ts";
import { reduceSum, reshape } from "../../core/ops/broadcast.ts";
import { add, convert, div, mul, sqrt } from "../../core/ops/elementwise.ts";
import { isPacked } from "../../core/packed/blocks.ts";
import { concat, pad, slice, transpose } from "../../core/ops/structure.ts";
import { deltaOf } from "../../lora/follow/effect.ts";
import type { AdapterEntry, Trainable } from "../../lora/mod.ts";
import type { Adapted } from "../../lora/methods/method.ts";
import { mergeRatio, unmergeAll, unmergeRatio, type Wrong } from "../laws/merge_property.ts";
import {
  makeSubject,
  type MergeSubject,
  type MergeTrial,
  type Params,
  stack,
  trials,
  variants,
} from "../laws/merge_subjects.ts";
import { oracleRuntime } from "../runtimes.ts";

type Tree = any;

/** Merges other values than those that were trained: each entry that has A and B is changed. */
const mergeOther = (change: (entry: AdapterEntry, subject: MergeSubject) => AdapterEntry): Wrong => ({
  merge: (subject, values, frozen) => {
    const changed = values.map((t) =>
      Object.fromEntries(
        Object.entries(t).map(([path, entry]) => [path, entry.A === undefined ? entry : change(entry, subject)]),
      )
    );
    return stack(subject, changed).merge(frozen);
  },
});

const scaledBy = (factor: (trial: MergeTrial) => number) =>
  mergeOther(({ B, ...entry }, { trial }) => ({ ...entry, B: mul(B!, factor(trial)) }));

/** Merges right, then changes what came out. */
const after = (
  change: (merged: Tree, subject: MergeSubject, frozen: Params, values: readonly Trainable[]) => Tree,
): Wrong => ({
  merge: (subject, values, frozen) => change(stack(subject, values).merge(frozen), subject, frozen, values),
});

/** Where a weight is, and with what effect on it, in a variant with one adapter. */
function effects(subject: MergeSubject, values: readonly Trainable[], frozen: Params) {
  const [{ plan: { adapted } }] = stack(subject, values).tuned;
  return adapted.map((m: Adapted) => {
    const weight = asValue(frozen[m.leafPath.split(".")[0]].weight as Leaf);
    return { m, weight, entry: values[0][m.path], name: m.into.split(".")[0] };
  });
}

/** Merged weights by a wrong formula: one for each adapted module. */
const byFormula = (formula: (of: { m: Adapted; weight: Value; entry: AdapterEntry }) => Value): Wrong =>
  after((merged, subject, frozen, values) => {
    let tree = merged;
    for (const { name, ...of } of effects(subject, values, frozen)) {
      tree = { ...tree, [name]: { ...tree[name], weight: convert(formula(of), of.weight.dtype) } };
    }
    return tree;
  });

const delta = ({ m, weight, entry }: { m: Adapted; weight: Value; entry: AdapterEntry }) =>
  deltaOf(m.method.effect!(m, entry, weight, {}), m.inAxis, m.aval.shape)!;
const f32 = (x: Value) => convert(x, "f32");
const along = (m: Adapted, gain: Value) => reshape(gain, m.inAxis === 0 ? [1, -1] : [-1, 1]);

// Merged weights of a packed base are f32, where these faults rebuild them in the base's own type.
const floats = trials.filter((trial) => !isPacked(trial.dtype));
const square = floats.map((trial) => ({ ...trial, n: trial.k, r: Math.min(trial.r, trial.k) }));
const narrow = floats.map((trial) => ({ ...trial, dtype: "bf16" as const }));
const wide = floats.filter((trial) => trial.dtype === "f32");
const even = floats.filter((trial) => trial.n % 2 === 0);

const all = Object.keys(variants);
const without = (...names: string[]) => all.filter((name) => !names.some((part) => name.includes(part)));
const having = (...names: string[]) => all.filter((name) => names.some((part) => name.includes(part)));
/** Variants with one adapter, of one weight each, added as it is. */
const simple = ["plain", "patterns", "PiSSA", "embeddings"];
const both = ["plain", "DoRA", "two adapters", "an adapter over DoRA"];

interface Fault {
  readonly wrong: Wrong;
  readonly variants: readonly string[];
  readonly of?: fc.Arbitrary<MergeTrial>;
  readonly property?: "unmerge";
}

const faults: Record<string, Fault> = {
  "the scaling is off by 1 %": { wrong: scaledBy(() => 1.01), variants: all },
  "alpha / r where alpha / √r is asked for": {
    wrong: scaledBy(({ r, rslora }) => rslora ? 1 / Math.sqrt(r) : 1),
    variants: all,
  },
  "the change is transposed, which a square weight does not show": {
    wrong: mergeOther(({ A, B, ...entry }) => ({ ...entry, A: transpose(B!), B: transpose(A!) })),
    variants: without("slices", "tied", "tokens"),
    of: square,
  },
  "q and k are swapped": {
    wrong: {
      merge: (subject, values, frozen) => {
        const swapped = values.map((t) => "q" in t && "k" in t ? { ...t, q: t.k, k: t.q } : t);
        return stack(subject, swapped).merge(frozen);
      },
    },
    variants: both,
  },
  "a column of B is dropped": {
    wrong: mergeOther(({ B, ...entry }) => {
      const r = B!.shape[1];
      return { ...entry, B: pad(slice(B!, 1, 0, r - 1), [0, 0], [0, 1]) };
    }),
    variants: all,
  },
  "the bias is added twice": {
    wrong: after((merged) => ({ ...merged, q: { ...merged.q, bias: mul(merged.q.bias, 2) } })),
    variants: without("embeddings", "tied", "tokens"),
  },
  "the bias of the low-rank branch is not scaled": {
    wrong: {
      merge: (subject, values, frozen) => {
        const [t] = values;
        const { scaling } = stack(subject, values).tuned[0].matched[0];
        return stack(subject, [{ ...t, q: { ...t.q, biasB: div(t.q.biasB!, scaling) } }]).merge(frozen);
      },
    },
    variants: having("biases"),
  },
  "a module in full is left as it was": {
    wrong: after((merged, _, frozen) => ({ ...merged, k: frozen.k })),
    variants: having("biases"),
  },
  "merging rounds twice": {
    wrong: byFormula((of) => add(f32(of.weight), f32(convert(delta(of), of.weight.dtype)))),
    variants: ["plain", "patterns"],
    of: narrow,
  },
  "the magnitude is left out": {
    wrong: byFormula((of) => add(f32(of.weight), delta(of))),
    variants: ["DoRA", "embeddings with DoRA"],
  },
  "the norm is that of the base alone": {
    wrong: byFormula((of) => {
      const { m, weight, entry: { magnitude } } = of;
      const norms = sqrt(reduceSum(mul(f32(weight), f32(weight)), m.inAxis));
      return mul(along(m, div(magnitude!, norms)), add(f32(weight), delta(of)));
    }),
    variants: ["DoRA", "embeddings with DoRA"],
  },
  "the magnitude multiplies the base and not the change": {
    wrong: byFormula((of) => {
      const { gain } = of.m.method.effect!(of.m, of.entry, of.weight, {});
      return add(mul(along(of.m, gain!.value), f32(of.weight)), delta(of));
    }),
    variants: ["DoRA", "embeddings with DoRA"],
  },
  "the change of a part goes to the other part": {
    wrong: after((merged, subject, frozen) => {
      const axis = subject.trial.layout === "in,out" ? 1 : 0;
      const [changed, base] = [merged.q.weight, frozen.q.weight].map((x) => asValue(x));
      const n = changed.shape[axis];
      const [part, rest] = [slice(changed, axis, n / 2, n), slice(base, axis, n / 2, n)];
      return { ...merged, q: { ...merged.q, weight: concat([part, rest], axis) } };
    }),
    variants: ["slices"],
    of: even,
  },
  "one of two adapters is left out": {
    wrong: { merge: (subject, values, frozen) => stack(subject, values).tuned[0].merge(values[0], frozen) },
    variants: having("two adapters", "over DoRA"),
  },
  "the inner adapter is merged first, so that its norm is that of less": {
    wrong: {
      merge: (subject, values, frozen) => {
        const { tuned } = stack(subject, values);
        return tuned[1].merge(values[1], tuned[0].merge(values[0], frozen));
      },
    },
    variants: having("over DoRA"),
  },
  "PiSSA is merged into the weights as they were before": {
    wrong: after((merged, subject, frozen, values) => {
      const [{ m, weight, entry }] = effects(subject, values, frozen);
      const whole = add(f32(asValue(merged.q.weight)), delta({ m, weight, entry }));
      return { ...merged, q: { ...merged.q, weight: convert(whole, weight.dtype) } };
    }),
    variants: ["PiSSA"],
  },
  "both uses of a tied weight are changed": {
    wrong: {
      merge: (subject, values, frozen) => {
        const { tuned: [tuned] } = stack(subject, values);
        return tuned.merge(values[0], frozen, { tied: "peft" });
      },
    },
    variants: ["embeddings", "embeddings with DoRA", "tied, both uses", "tokens"],
  },
  "rows of tokens are added to the old ones": {
    wrong: after((merged, subject, frozen, values) => {
      const sum = add(f32(asValue(merged.q.weight)), f32(asValue(frozen.q.weight)));
      const kept = f32(asValue(frozen.q.weight));
      const [row] = stack(subject, values).tuned[0].saved[0].tokens!;
      const pieces = [slice(kept, 0, 0, row), slice(sum, 0, row, row + 1), slice(kept, 0, row + 1, kept.shape[0])];
      const weight = concat(pieces.filter((p) => p.shape[0] > 0), 0);
      return { ...merged, q: { weight: convert(weight, merged.q.weight.dtype) } };
    }),
    variants: ["tokens"],
  },
  "unmerging takes another adapter": {
    wrong: { unmerge: (subject, values, merged) => backBy(subject, values.map(swapped), merged, values) },
    variants: ["plain", "two adapters"],
    property: "unmerge",
  },
  "unmerging is done twice": {
    wrong: {
      unmerge: (subject, values, merged) => {
        const { tuned: [tuned] } = stack(subject, values);
        const once = tuned.unmerge(values[0], merged);
        return tuned.unmerge(values[0], once);
      },
    },
    variants: simple,
    property: "unmerge",
  },
  "unmerging keeps the gain of DoRA": {
    wrong: {
      unmerge: (subject, values, merged) => {
        const { tuned: [tuned] } = stack(subject, values);
        const ones = Object.fromEntries(
          Object.entries(values[0]).map(([path, { magnitude }]) => [path, { norms: magnitude! }]),
        );
        return tuned.unmerge(values[0], merged, ones);
      },
    },
    // Of a tied weight the other name keeps the base's, so that nothing has to be divided out.
    variants: ["DoRA", "slices with DoRA"],
    property: "unmerge",
  },
  "unmerging leaves one of two": {
    wrong: {
      unmerge: (subject, values, merged) => stack(subject, values).tuned[0].unmerge(values[0], merged),
    },
    variants: ["two adapters"],
    property: "unmerge",
  },
};

const swapped = (t: Trainable): Trainable => "q" in t && "k" in t ? { q: t.k, k: t.q } : t;

function backBy(subject: MergeSubject, others: readonly Trainable[], merged: Params, values: readonly Trainable[]) {
  return unmergeAll(stack(subject, values).tuned, others, subject.model.params, merged);
}

for (const [name, { wrong, variants, of = floats, property }] of Object.entries(faults)) {
  Deno.test(`caught: ${name}`, async (t) => {
    for (const variant of variants) {
      await t.step(variant, async () => {
        const chosen = property === "unmerge" ? wide : of;
        const result = await fc.check(
          fc.asyncProperty(chosen, async (trial) => {
            const subject = await makeSubject(trial, variant);
            if (property === "unmerge") return await unmergeRatio(oracleRuntime, subject, wrong) <= 1;
            return (await mergeRatio(oracleRuntime, subject, wrong)).ratio <= 1;
          }),
          { numRuns: 200, seed: 11, endOnFailure: true },
        );
        assert(result.failed, "no run of 200 noticed");
        // By a wrong number, and not because the fault itself threw.
        assertStringIncludes(String(result.errorInstance), "returning false");
      });
    }
  });
}
