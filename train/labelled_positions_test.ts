import { assertEquals } from "@std/assert";
import { ignoredLabel } from "../core/nn/loss.ts";
import { openCpu } from "../kernels/device/cpu/cpu.ts";
import { uploadPlaced } from "./compiled_step.ts";
import { labelledPositions } from "./labelled_positions.ts";
import { causalLM } from "./objectives/causal_lm.ts";
import { makeBatch } from "./objectives/mod.ts";

/** A row of `length` tokens of which the last `learned` are. */
const row = (length: number, learned: number) => {
  const ids = Array.from({ length }, (_, i) => i);
  return { ids, labels: ids.map((id) => id < length - learned ? ignoredLabel : id) };
};

Deno.test("the places that predict a label come first, made up to a quarter, half or three quarters of all", () => {
  const of = (learned: readonly number[]) =>
    labelledPositions(makeBatch(learned.map((n) => row(8, n)), { padId: 0, seq: 8 }));
  assertEquals(of([2, 1])?.data, Int32Array.of(5, 6, 14, 0)); // the place before each label, then one without
  assertEquals(of([2, 2])?.shape, [4]);
  assertEquals(of([3, 2])?.shape, [8]);
  assertEquals(of([6, 5])?.shape, [12]);
  // The first token of a row is never predicted, and the last predicts nothing.
  assertEquals(of([8, 8]), undefined);
  assertEquals(of([0, 0])?.data, Int32Array.of(0, 1, 2, 3));
});

Deno.test("devices where each program has memory of its own have all places", async () => {
  const masked = makeBatch([row(8, 1)], { padId: 0, seq: 8 });
  using device = await openCpu({ threads: 1 });
  assertEquals(uploadPlaced(device, masked, causalLM).places!.shape, [2]);
  const { places } = uploadPlaced({ allocate: () => null, write: () => {} } as never, masked, causalLM);
  assertEquals(places, undefined);
});
