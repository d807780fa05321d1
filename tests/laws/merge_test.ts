import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import fc from "fast-check";
import { randomKey } from "../../core/random.ts";
import { runtimes } from "../runtimes.ts";
import { makeSubject, mergeRatio, type MergeTrial, trials, unmergeRatio, uploadTree } from "./merge_property.ts";

const smallest: MergeTrial = {
  rows: 1,
  k: 1,
  n: 1,
  r: 1,
  alpha: 1,
  rslora: false,
  layout: "in,out",
  dtype: "f32",
  seed: 1,
};

for (const { name, open } of runtimes) {
  const numRuns = name.startsWith("webgpu") ? 10 : 60;

  Deno.test(`${name}: adapted and merged differ by no more than rounding can make them`, async () => {
    using runtime = await open();
    await fc.assert(
      fc.asyncProperty(trials, async (trial) => {
        const { ratio, alarm } = await mergeRatio(runtime, makeSubject(trial));
        assert(ratio <= 1, `${ratio} times the bound`);
        assert(alarm <= 1, `${alarm} times what random data comes to`);
      }),
      { numRuns, seed: 3 },
    );
  });

  Deno.test(`${name}: merged and unmerged again, a weight is what it was within rounding`, async () => {
    using runtime = await open();
    await fc.assert(
      fc.asyncProperty(trials.filter((t) => t.dtype === "f32"), async (trial) => {
        const ratio = await unmergeRatio(runtime, makeSubject(trial));
        assert(ratio <= 1, `${ratio} times the bound`);
      }),
      { numRuns, seed: 4 },
    );
  });

  Deno.test(`${name}: the report of merge errors, which a program can print, says the same`, async () => {
    using runtime = await open();
    for (const dtype of ["f32", "bf16", "f16"] as const) {
      const { tuned, trainable, frozen } = makeSubject({ ...smallest, k: 24, n: 16, r: 4, alpha: 8, dtype });
      const [t, p, key] = uploadTree(runtime, [trainable, frozen, randomKey(7)] as const);
      const merged = runtime.jit((t: any, p: any) => tuned.merge(t, p))(t, p);
      const errors = await runtime.read(
        runtime.jit((t: any, p: any, m: any, key: any) => tuned.mergeErrors(t, p, m, key))(t, p, merged, key),
      );
      assertEquals(Object.keys(errors), ["q", "k"]);
      for (const error of Object.values<number>(errors)) assert(error >= 0 && error <= 1, `${error} of the bound`);
      const other = await runtime.read(
        runtime.jit((t: any, p: any, m: any, key: any) => tuned.mergeErrors(t, p, m, key))(t, p, p, key),
      );
      for (const error of Object.values<number>(other)) {
        assert(error > 10, "unmerged weights do not pass for merged ones");
      }
    }
  });
}

Deno.test("merging leaves the base as it is: what was kept is exact", () => {
  const { tuned, model } = makeSubject(smallest);
  const before = model.params.q.weight;
  tuned.merge(tuned.trainable, tuned.frozen);
  assertStrictEquals(tuned.frozen.q.weight, before);
  assertStrictEquals(tuned.frozen, model.params);
});
