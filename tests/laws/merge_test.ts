import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import fc from "fast-check";
import { randomKey } from "../../core/random.ts";
import { runtimes } from "../runtimes.ts";
import { mergeRatio, unmergeRatio, uploadTree } from "./merge_property.ts";
import { makeSubject, type MergeTrial, stack, trials, variants } from "./merge_subjects.ts";

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
  const numRuns = name.startsWith("webgpu") ? 1 : 20;

  Deno.test(`${name}: adapted and merged differ by no more than rounding can make them`, async (t) => {
    using runtime = await open();
    for (const variant of Object.keys(variants)) {
      await t.step(variant, () =>
        fc.assert(
          fc.asyncProperty(trials, async (trial) => {
            const { ratio, alarm } = await mergeRatio(runtime, await makeSubject(trial, variant));
            assert(ratio <= 1, `${ratio} times the bound`);
            assert(alarm <= 1, `${alarm} times what random data comes to`);
          }),
          { numRuns, seed: 3 },
        ));
    }
  });

  Deno.test(`${name}: merged and unmerged again, a weight is what it was within rounding`, async (t) => {
    using runtime = await open();
    for (const variant of Object.keys(variants)) {
      await t.step(variant, () =>
        fc.assert(
          fc.asyncProperty(trials.filter((t) => t.dtype === "f32"), async (trial) => {
            const ratio = await unmergeRatio(runtime, await makeSubject(trial, variant));
            assert(ratio <= 1, `${ratio} times the bound`);
          }),
          { numRuns, seed: 4 },
        ));
    }
  });

  Deno.test(`${name}: the report of merge errors, which a program can print, says the same`, async (t) => {
    using runtime = await open();
    const of = name.startsWith("webgpu") ? ["plain", "DoRA"] : Object.keys(variants);
    for (const variant of of.filter((v) => stackHeight(v) === 1)) {
      await t.step(variant, async () => {
        for (const dtype of ["f32", "bf16", "f16"] as const) {
          const subject = await makeSubject({ ...smallest, k: 24, n: 16, r: 4, alpha: 8, dtype }, variant);
          const values = subject.layers.map((layer) => layer.trainable);
          const [v, p, key] = uploadTree(runtime, [values, subject.frozen, randomKey(7)] as const);
          const merged = runtime.jit((v: any, p: any) => stack(subject, v).merge(p))(v, p);
          const report = runtime.jit((v: any, p: any, m: any, key: any) =>
            stack(subject, v).tuned[0].mergeErrors(v[0], p, m, key)
          );
          const errors = await runtime.read(report(v, p, merged, key));
          assertEquals(Object.keys(errors), stack(subject, values).tuned[0].matched.map((m) => m.path));
          for (const { ratio } of Object.values<any>(errors)) assert(ratio >= 0 && ratio <= 1, `${ratio} of the bound`);
          const other = await runtime.read(report(v, p, p, key));
          for (const { ratio } of Object.values<any>(other)) {
            assert(ratio > 10, "unmerged weights do not pass for merged ones");
          }
        }
      });
    }
  });
}

const stackHeight = (variant: string) => variants[variant].adapters(smallest).length;

Deno.test("merging leaves the base as it is: what was kept is exact", async () => {
  const subject = await makeSubject(smallest);
  const { tuned: [tuned] } = stack(subject, subject.layers.map((layer) => layer.trainable));
  const before = subject.model.params.q.weight;
  tuned.merge(tuned.trainable, tuned.frozen);
  assertStrictEquals(tuned.frozen.q.weight, before);
  assertStrictEquals(tuned.frozen, subject.model.params);
});
