import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { DataError } from "../core/errors.ts";
import { type BatchPlan, chooseLengths, countSteps, makeBatcher, rowOrder } from "./batches.ts";
import type { Batch, Example } from "./examples.ts";
import { evaluationBatches } from "../train/evaluate.ts";
import { causalLM } from "../train/objectives/causal_lm.ts";
import { classification } from "../train/objectives/classification.ts";

const row = (length: number, id: number): Example => {
  const ids = Array.from({ length }, (_, i) => 1000 * id + i);
  return { ids, labels: ids };
};

Deno.test("every epoch shows each example once, in another order", () => {
  const order = rowOrder(6, 1);
  const epochs = [0, 1, 2, 3].map((e) => Array.from({ length: 6 }, (_, i) => order(6 * e + i)));
  for (const epoch of epochs) assertEquals(epoch.toSorted(), [0, 1, 2, 3, 4, 5]);
  assert(new Set(epochs.map(String)).size > 1);
  assertEquals(rowOrder(6, 1)(15), epochs[2][3]);
});

/** Which examples a batch has, by their first ids. */
const examplesOf = (batch: Batch) =>
  [...batch.columns.inputIds.data].filter((id, i) =>
    batch.columns.attentionMask.data[i] === 1 && id > 0 && id % 1000 === 0
  ).map((id) => id / 1000);

const plans = fc.record({
  sizes: fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 60 }),
  batch: fc.integer({ min: 1, max: 9 }),
  accumulate: fc.integer({ min: 1, max: 4 }),
  seed: fc.nat(1000),
  buckets: fc.integer({ min: 1, max: 4 }),
  pack: fc.boolean(),
  streamed: fc.boolean(),
  bad: fc.array(fc.nat(59), { maxLength: 20 }),
});

/** A plan's batches by step, for three epochs; and what they must hold. */
function setUp({ sizes, streamed, bad, buckets, ...given }: typeof plans extends fc.Arbitrary<infer T> ? T : never) {
  const rows = sizes.map((size, i) => bad.includes(i) && sizes.length > 1 && i > 0 ? undefined : row(size, i + 1));
  const examples = { length: rows.length, at: (i: number) => rows[i], streamed };
  const lengths = given.pack ? [48] : chooseLengths(examples, buckets, 48);
  const plan: BatchPlan = { ...given, objective: causalLM, padId: 0, lengths };
  const usable = rows.flatMap((row, i) => row ? [i + 1] : []);
  return { rows, examples, plan, usable, lengths };
}

Deno.test("every epoch has every example exactly once, in the steps that are counted", () => {
  fc.assert(
    fc.property(plans, fc.integer({ min: 1, max: 3 }), (given, epochs) => {
      const { rows, examples, plan, usable } = setUp({ ...given, bad: [] });
      const batcher = makeBatcher(examples, plan);
      const steps = Array.from({ length: countSteps(examples, plan, epochs) }, () => batcher.next());
      const seen = steps.flat().flatMap(examplesOf);
      for (let epoch = 0; epoch < epochs; epoch++) {
        const from = epoch * usable.length;
        assertEquals(seen.slice(from, from + usable.length).toSorted((a, b) => a - b), usable);
      }
      assertEquals(seen.length, epochs * usable.length);
      const tokens = rows.reduce((sum, row) => sum + row!.ids.length, 0);
      assertEquals(steps.flat().reduce((sum, batch) => sum + batch.tokens, 0), epochs * tokens);
    }),
  );
});

Deno.test("with rows left out, no step crosses an epoch's end, and each epoch has the others once", () => {
  fc.assert(
    fc.property(plans, (given) => {
      const { examples, plan, usable, lengths } = setUp(given);
      const batcher = makeBatcher(examples, plan);
      for (let epoch = 0; epoch < 3; epoch++) {
        const seen: number[] = [];
        while (seen.length < usable.length) {
          const step = batcher.next();
          assert(step.length <= plan.accumulate);
          for (const { shape: [height, width] } of step) {
            assertEquals(height, Math.min(plan.batch, examples.length));
            assert(lengths.includes(width));
          }
          seen.push(...step.flatMap(examplesOf));
        }
        assertEquals(seen.toSorted((a, b) => a - b), usable);
      }
    }),
  );
});

Deno.test("an evaluation has every example exactly once", () => {
  fc.assert(
    fc.property(plans, ({ sizes, batch }) => {
      const rows = sizes.map((size, i) => row(size, i + 1));
      const batches = evaluationBatches(rows, { batch });
      assertEquals(batches.flatMap(examplesOf).toSorted((a, b) => a - b), rows.map((_, i) => i + 1));
      assertEquals(new Set(batches.map(({ shape }) => shape[0])), new Set([Math.min(batch, rows.length)]));
    }),
  );
});

Deno.test("a run goes on from any cursor as it would have", () => {
  fc.assert(
    fc.property(plans, fc.nat(20), (given, at) => {
      const { examples, plan } = setUp(given);
      const whole = makeBatcher(examples, plan);
      for (let step = 0; step < at; step++) whole.next();
      const resumed = makeBatcher(examples, plan, JSON.parse(JSON.stringify(whole.cursor())));
      for (let step = at; step < at + 25; step++) assertEquals(resumed.next(), whole.next());
    }),
  );
});

Deno.test("a step of several batches has the examples of one large batch", () => {
  fc.assert(
    fc.property(plans, (given) => {
      const { examples, plan } = setUp(given);
      const many = makeBatcher(examples, plan);
      const large = makeBatcher(examples, { ...plan, batch: plan.batch * plan.accumulate, accumulate: 1 });
      for (let step = 0; step < 30; step++) {
        const [a, b] = [many.next(), large.next()].map((step) => step.flatMap(examplesOf).toSorted((a, b) => a - b));
        assertEquals(a, b);
      }
    }),
  );
});

Deno.test("the steps of part of an epoch, and of data without rows", () => {
  const rows = Array.from({ length: 10 }, (_, i) => row(3, i + 1));
  const plan = { objective: causalLM, batch: 2, accumulate: 2, seed: 0, padId: 0, lengths: [16], pack: false };
  assertEquals([0.1, 0.5, 1, 1.5, 2].map((epochs) => countSteps(rows, plan, epochs)), [1, 2, 3, 5, 6]);
  assertEquals([0.1, 0.5, 1, 1.5, 2].map((epochs) => countSteps(rows, { ...plan, pack: true }, epochs)), [
    1,
    1,
    1,
    2,
    2,
  ]);
  for (const pack of [false, true]) {
    assertThrows(() => makeBatcher([], { ...plan, pack }).next(), DataError, "there are no rows");
  }
});

Deno.test("without lengths to choose from, rows come in the order of the shuffle", () => {
  const rows = Array.from({ length: 7 }, (_, i) => row(3, i + 1));
  const batcher = makeBatcher(rows, {
    objective: causalLM,
    batch: 2,
    accumulate: 1,
    seed: 5,
    padId: 0,
    lengths: [16],
    pack: false,
  });
  const order = rowOrder(7, 5);
  for (const epoch of [0, 1, 2]) {
    const seen = Array.from({ length: 4 }, () => examplesOf(batcher.next()[0]));
    const at = (i: number) => order(7 * epoch + i) + 1;
    assertEquals(seen, [[at(0), at(1)], [at(2), at(3)], [at(4), at(5)], [at(6)]]);
  }
});

Deno.test("rows that are left out are passed over; with nothing left that is an error", () => {
  const plan = { objective: causalLM, batch: 2, accumulate: 1, seed: 0, padId: 0, lengths: [16], pack: false };
  const some = { length: 5, at: (i: number) => i % 2 ? undefined : row(2, i + 1) };
  const seen = Array.from({ length: 6 }, () => examplesOf(makeBatcher(some, plan).next()[0])).flat();
  assert(seen.every((id) => id % 2 === 1));
  assertThrows(() => makeBatcher({ length: 3, at: () => undefined }, plan).next(), DataError, "none of the 3 rows");
});

Deno.test("rows with a class are not packed", () => {
  const rows = [{ ids: [1, 2], labels: [], label: 0 }];
  const plan = { objective: classification, batch: 1, accumulate: 1, seed: 0, padId: 0, lengths: [16], pack: true };
  assertThrows(() => makeBatcher(rows, plan).next(), DataError, "rows with a label can't share a row");
});

Deno.test("the lengths pad least, and the longest row always fits", () => {
  const rows = (...sizes: number[]) => sizes.map((size, i) => row(size, i));
  assertEquals(chooseLengths(rows(3, 5, 16, 17, 90), 1, 128), [96]);
  assertEquals(chooseLengths(rows(3, 5, 16, 17, 90), 2, 128), [32, 96]);
  assertEquals(chooseLengths(rows(3, 5, 16, 17, 90), 3, 128), [16, 32, 96]);
  assertEquals(chooseLengths(rows(3, 5, 16, 17, 90), 9, 128), [16, 32, 96]);
  assertEquals(chooseLengths(rows(3, 5, 60), 2, 60), [16, 60]);
  assertEquals(chooseLengths(rows(3, 5, 60), 2, 32), [16, 32], "no batch is longer than is allowed");
  const streamed = { length: 4, at: (i: number) => row([3, 5, 20, 33][i], i), streamed: true };
  assertEquals(chooseLengths(streamed, 2, 64), [16, 64]);
});
