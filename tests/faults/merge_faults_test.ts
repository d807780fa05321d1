/** Seeded faults: each is a mistake that such code has had somewhere, and must make a merge property fail within 200 runs. */
import { assert, assertStringIncludes } from "@std/assert";
import fc from "fast-check";
import type { Value } from "../../core/ir/graph.ts";
import type { Leaf } from "../../core/model.ts";
import { asValue } from "../../core/ops/constant.ts";
import { dot } from "../../core/ops/contract.ts";
import { add, convert, mul } from "../../core/ops/elementwise.ts";
import { pad, slice, transpose } from "../../core/ops/structure.ts";
import type { Trainable } from "../../lora/mod.ts";
import { makeSubject, mergeRatio, type MergeTrial, trials, unmergeRatio, type Wrong } from "../laws/merge_property.ts";
import { oracleRuntime } from "../runtimes.ts";

type Pair = { readonly A: Leaf; readonly B: Leaf };

/** Merges other adapters than those that were trained. */
const mergeOther = (change: (pair: Pair, trial: MergeTrial) => Pair): Wrong => ({
  merge: ({ tuned, trial }, trainable, frozen) => {
    const changed = Object.fromEntries(Object.entries(trainable).map(([path, pair]) => [path, change(pair, trial)]));
    return tuned.merge(changed, frozen);
  },
});

const scaledBy = (factor: (trial: MergeTrial) => number) =>
  mergeOther(({ A, B }, trial) => ({ A, B: mul(B, factor(trial)) }));

const faults: Record<string, { wrong: Wrong; of?: fc.Arbitrary<MergeTrial>; property?: "unmerge" }> = {
  "the scaling is off by 1 %": { wrong: scaledBy(() => 1.01) },
  "alpha / r where alpha / √r is asked for": {
    wrong: scaledBy(({ r, rslora }) => rslora ? 1 / Math.sqrt(r) : 1),
  },
  "the change is transposed, which a square weight does not show": {
    wrong: mergeOther(({ A, B }) => ({ A: transpose(B), B: transpose(A) })),
    of: trials.map((trial) => ({ ...trial, n: trial.k, r: Math.min(trial.r, trial.k) })),
  },
  "q and k are swapped": {
    wrong: { merge: ({ tuned }, { q, k }, frozen) => tuned.merge({ q: k, k: q } as Trainable, frozen) },
  },
  "a column of B is dropped": {
    wrong: mergeOther(({ A, B }, { r }) => ({ A, B: pad(slice(B, 1, 0, r - 1), [0, 0], [0, 1]) })),
  },
  "the bias is added twice": {
    wrong: {
      merge: ({ tuned }, trainable, frozen) => {
        const merged = tuned.merge(trainable, frozen);
        return { ...merged, q: { ...merged.q, bias: mul(merged.q.bias, 2) } };
      },
    },
  },
  "merging rounds twice": {
    wrong: {
      merge: ({ tuned, trial: { layout } }, trainable, frozen) => {
        const rounded = (name: "q" | "k"): Value => {
          const weight = asValue(frozen[name].weight);
          const { A, B } = trainable[name];
          const delta = layout === "in,out"
            ? dot(A, B, { contract: [[0], [1]], batch: [[], []] })
            : dot(B, A, { contract: [[1], [0]], batch: [[], []] });
          const change = convert(convert(mul(delta, tuned.matched[0].scaling), weight.dtype), "f32");
          return convert(add(convert(weight, "f32"), change), weight.dtype);
        };
        return { q: { ...frozen.q, weight: rounded("q") }, k: { weight: rounded("k") } };
      },
    },
    of: trials.map((trial) => ({ ...trial, dtype: "bf16" as const })),
  },
  "unmerging takes another adapter": {
    wrong: {
      unmerge: ({ tuned }, trainable, merged) => tuned.unmerge({ q: trainable.k, k: trainable.q } as Trainable, merged),
    },
    property: "unmerge",
  },
  "unmerging is done twice": {
    wrong: { unmerge: ({ tuned }, trainable, merged) => tuned.unmerge(trainable, tuned.unmerge(trainable, merged)) },
    property: "unmerge",
  },
};

for (const [name, { wrong, of = trials, property }] of Object.entries(faults)) {
  Deno.test(`caught: ${name}`, async () => {
    const chosen = property === "unmerge" ? of.filter((trial) => trial.dtype === "f32") : of;
    const result = await fc.check(
      fc.asyncProperty(chosen, async (trial) => {
        const subject = makeSubject(trial);
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
