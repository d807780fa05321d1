import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { DataError } from "../core/errors.ts";
import { type BatchPlan, chooseLengths, makeBatcher, rowOrder } from "./batches.ts";
import type { Batch, Example } from "./data.ts";

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
  [...batch.inputIds].filter((id, i) => batch.attentionMask[i] === 1 && id % 1000 === 0).map((id) => id / 1000);

const plans = fc.record({
  sizes: fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 60 }),
  batch: fc.integer({ min: 1, max: 4 }),
  accumulate: fc.integer({ min: 1, max: 3 }),
  seed: fc.nat(1000),
  buckets: fc.integer({ min: 1, max: 4 }),
  pack: fc.boolean(),
  streamed: fc.boolean(),
});

Deno.test("batches have their rows once an epoch, and go on from any cursor as they would have", () => {
  fc.assert(
    fc.property(plans, fc.nat(20), ({ sizes, streamed, buckets, ...given }, at) => {
      const rows = sizes.map((size, i) => row(size, i + 1));
      const examples = { length: rows.length, at: (i: number) => rows[i], streamed };
      const lengths = given.pack ? [48] : chooseLengths(examples, buckets, 48);
      const plan: BatchPlan = { ...given, padId: 0, lengths };
      const whole = makeBatcher(examples, plan);
      const steps: Batch[][] = [];
      let cursor = whole.cursor();
      for (let step = 0; step < 25; step++) {
        if (step === at) cursor = JSON.parse(JSON.stringify(whole.cursor()));
        steps.push(whole.next());
      }
      const resumed = makeBatcher(examples, plan, cursor);
      assertEquals(Array.from({ length: 25 - at }, () => resumed.next()), steps.slice(at));

      const seen = steps.flat().flatMap(examplesOf);
      const often = (i: number) => seen.filter((id) => id === i + 1).length;
      const counts = rows.map((_, i) => often(i));
      // Windows and open packs may hold some back, across two ends of an epoch at most.
      const held = given.pack ? 32 * 48 : 16 * given.batch * given.accumulate;
      assert(Math.max(...counts) - Math.min(...counts) <= 1 + Math.ceil(held / rows.length), String(counts));
      for (const { shape: [height, width] } of steps.flat()) {
        assertEquals(height, given.batch);
        assert(lengths.includes(width));
      }
    }),
    { numRuns: 40 },
  );
});

Deno.test("without lengths to choose from, rows come in the order of the shuffle", () => {
  const rows = Array.from({ length: 7 }, (_, i) => row(3, i + 1));
  const batcher = makeBatcher(rows, { batch: 2, accumulate: 1, seed: 5, padId: 0, lengths: [16], pack: false });
  const order = rowOrder(7, 5);
  for (let step = 0; step < 9; step++) {
    assertEquals(examplesOf(batcher.next()[0]), [order(2 * step) + 1, order(2 * step + 1) + 1]);
  }
});

Deno.test("rows that are left out are passed over; with nothing left that is an error", () => {
  const plan = { batch: 2, accumulate: 1, seed: 0, padId: 0, lengths: [16], pack: false };
  const some = { length: 5, at: (i: number) => i % 2 ? undefined : row(2, i + 1) };
  const seen = Array.from({ length: 6 }, () => examplesOf(makeBatcher(some, plan).next()[0])).flat();
  assert(seen.every((id) => id % 2 === 1));
  assertThrows(() => makeBatcher({ length: 3, at: () => undefined }, plan).next(), DataError, "none of the 3 rows");
});

Deno.test("rows with a class are not packed", () => {
  const rows = [{ ids: [1, 2], labels: [], label: 0 }];
  const plan = { batch: 1, accumulate: 1, seed: 0, padId: 0, lengths: [16], pack: true };
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
