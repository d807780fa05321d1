/** Combining by looking at the values, and any method as LoRA of a rank; PEFT's own numbers are a golden case. */
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { OptionError } from "../../core/errors.ts";
import type { Leaf } from "../../core/model.ts";
import { matmul } from "../../core/ops/contract.ts";
import { add, tanh } from "../../core/ops/elementwise.ts";
import { type OracleTensor, runOracle } from "../../testing/oracle.ts";
import { randomised, randomTensor, toyModel } from "../../testing/toy_models.ts";
import { roundoff } from "../bound.ts";
import { lora, tune } from "../lora.ts";
import { methods } from "../methods/mod.ts";
import type { LoraOptions } from "../options.ts";
import { pissa } from "../start.ts";
import { combine } from "./combine.ts";
import { ways, weightedSum } from "./sums.ts";
import { toLora } from "./to_lora.ts";

const x = randomTensor([3, 8], 99);
const linear = (rows: number, columns: number, seed: number) => ({
  weight: randomTensor([rows, columns], seed) as Leaf,
  bias: randomTensor([columns], seed + 50) as Leaf,
});
const model = {
  ...toyModel(
    { up: linear(8, 12, 1), down: linear(12, 8, 2) },
    (p, x) => add(matmul(tanh(add(matmul(x, p.up.weight), p.up.bias)), p.down.weight), p.down.bias),
    { shape: [3, 8], dtype: "f32" },
  ),
  parts: { up: ["a", "b", "c"] },
};
const adapter = (options: Partial<LoraOptions<typeof model.params>>, seed: number, weight = 1) => {
  const tuned = lora(model, { r: 2, alpha: 3, targets: "all-linear", ...options });
  return { tuned, trainable: randomised(tuned.trainable, seed), weight };
};
const apply = ({ tuned, trainable }: any): OracleTensor =>
  runOracle((t: any, p: any, x: any) => tuned.apply(t, p, x), trainable, tuned.frozen, x);
const applyOf = (tuned: any) => apply({ tuned, trainable: tuned.trainable });

/** Apart by what storing factors of this rank in f32 rounds, times what the layers make of that. */
function assertNear(a: OracleTensor, b: OracleTensor, rank: number): void {
  const bound = 64 * rank * roundoff.f32 * Math.max(...b.data.map(Math.abs));
  a.data.forEach((v, i) => assert(Math.abs(v - b.data[i]) <= bound, `${v} and ${b.data[i]} at ${i}`));
}

Deno.test("svd of a rank that holds the sum is the exact sum, of unequal ranks and negative weights", async () => {
  const list = [adapter({}, 3, 0.7), adapter({ r: 3, targets: ["up"] }, 4, -0.4)];
  const exact = applyOf(combine(list, "cat"));
  for (const svdRank of [5, 6]) {
    const made = await combine(list, "svd", { svdRank });
    assertEquals(made.matched.map((m) => [m.path, m.r, m.scaling]), [["up", svdRank, 1], ["down", svdRank, 1]]);
    assertNear(applyOf(made), exact, svdRank);
  }
  // Of less rank it is the nearest that there is: what is left out is smaller than any change of a part.
  const { A, B } = weightedSum("up", [{ A: rows([3, 0], [0, 1]), B: rows([1, 0], [0, 1]), weight: 2 }], "svd", {
    ...{ svdRank: 1, largest: 2 },
  });
  assertEquals([[...A[0]].map(Math.abs), [...B[0]].map(Math.abs)], [[1, 0], [6, 0]]);
});

const rows = (...list: number[][]) => list.map((row) => Float64Array.from(row));

Deno.test("what drops nothing is linear, of the factors and of the changes", async () => {
  const list = [adapter({}, 3, 0.7), adapter({}, 4, -0.4)];
  for (const way of ["magnitude_prune", "dare_linear"] as const) {
    assertNear(applyOf(await combine(list, way, { density: 1 })), applyOf(combine(list, "linear")), 2);
    const whole = await combine(list, `${way}_svd`, { density: 1, svdRank: 4 });
    assertNear(applyOf(whole), applyOf(combine(list, "cat")), 4);
  }
});

Deno.test("dare drops what its seed draws, and makes up for it on average", () => {
  const part = { A: rows(Array(4000).fill(1)), B: rows([1]), weight: 1 };
  const of = (
    seed: number,
    module = "up",
  ) => [...weightedSum(module, [part], "dare_linear", { density: 0.25, largest: 1, seed }).A[0]];
  assertEquals(of(1), of(1));
  assert(of(1).every((v) => v === 0 || v === 4));
  // 5 deviations of a binomial of 4000.
  const kept = of(1).filter((v) => v !== 0).length;
  assert(Math.abs(kept - 1000) < 5 * Math.sqrt(4000 * 0.25 * 0.75), `${kept}`);
  for (const other of [of(2), of(1, "down")]) assert(other.some((v, i) => v !== of(1)[i]));
});

Deno.test("ties keeps the largest, and of those the sign that most have", () => {
  const parts = [
    { A: rows([4, -1, 3, 0.5]), B: rows([1]), weight: 1 },
    { A: rows([-6, 2, 1, 0.1]), B: rows([1]), weight: 1 },
    { A: rows([1, 0.2, 5, -2]), B: rows([1]), weight: 4 },
  ];
  const of = (
    majoritySignMethod: "total" | "frequency",
  ) => [...weightedSum("up", parts, "ties", { density: 0.5, largest: 1, majoritySignMethod }).A[0]];
  // The two largest of each are 4 and 3, -6 and 2, 5 and -2; the third counts √4 times.
  assertEquals(of("total"), [-6, 2, (3 + 2 * 5) / 2, -4]);
  assertEquals(of("frequency"), [4, 2, (3 + 2 * 5) / 2, -4]);
});

Deno.test("values above a quantile are cut off", async () => {
  const list = [adapter({}, 3)];
  const values = (tuned: any) => {
    const { A, B } = runOracle((t: any) => t, tuned.trainable).up;
    return [...A.data, ...B.data] as number[];
  };
  const [all, cut] = [await combine(list, "svd"), await combine(list, "svd", { svdClamp: 0.9 })].map(values);
  const most = Math.max(...cut);
  assertEquals(cut, all.map((v) => Math.min(most, Math.max(-most, v))));
  assertEquals(all.filter((v) => v > most).length, Math.ceil(0.1 * (all.length - 1)));
});

Deno.test("a way that is not known, and options that it does not take, are refused", async () => {
  const list = [adapter({}, 3), adapter({ r: 1 }, 4)];
  const sentence = (way: any, options?: any) => assertThrows(() => combine(list, way, options), OptionError).message;
  assertStringIncludes(sentence("sum"), `combine by "sum" is not known: ${ways.join(", ")} are`);
  assertStringIncludes(sentence("ties"), "combining by ties takes a density");
  assertStringIncludes(sentence("ties", { density: 0 }), "above 0 and at most 1, not 0");
  assertStringIncludes(sentence("svd", { density: 0.5 }), "density says nothing about combining by svd");
  assertStringIncludes(
    sentence("dare_linear", { density: 0.5, majoritySignMethod: "total" }),
    "majoritySignMethod says",
  );
  assertStringIncludes(sentence("ties", { density: 0.5, majoritySignMethod: "most" }), 'is "most"; supported: "total"');
  assertStringIncludes(sentence("svd", { svdClamp: 2 }), "svdClamp is a quantile");
  assertStringIncludes(sentence("svd", { svdRank: 0.5 }), "svdRank is a whole number from 1, not 0.5");
  await assertRejects(() => combine(list, "svd", { svdRank: 9 }), OptionError, "it takes at most 8");
  await assertRejects(() => combine(list, "ties", { density: 0.5 }), OptionError, "which takes equal ranks");
});

Deno.test("IA3, parts of a projection and DoRA as LoRA: the same of a whole rank, with the error of a smaller one", async () => {
  const ia3 = tune(model, methods.ia3, { targets: ["up[a,c]", "down"], feedforward: ["down"] });
  const dora = lora(model, { r: 2, alpha: 3, targets: "all-linear", dora: true, bias: "all" });
  for (const tuned of [ia3, dora]) {
    const trainable = randomised(tuned.trainable, 4);
    const whole = await toLora(tuned, trainable, { rank: 8 });
    assertEquals(whole.tuned.matched.map((m) => [m.path, m.method, m.r, m.part]), [
      ["up", "lora", 8, undefined],
      ["down", "lora", 8, undefined],
    ]);
    assertNear(applyOf(whole.tuned), apply({ tuned, trainable }), 8);
    assert(whole.errors.every(({ error }) => error < 8 * roundoff.f32), JSON.stringify(whole.errors));
    const few = await toLora(tuned, trainable, { rank: 2 });
    assert(few.error > 0.05 && few.error < 1, `${few.error}`);
    const worst = Math.max(...few.errors.map(({ error }) => error));
    assert(worst >= few.error, `${worst}`);
  }
});

Deno.test("what is no LoRA of a rank is refused by name", async () => {
  const { tuned, trainable } = adapter({}, 3);
  await assertRejects(() => toLora(tuned, trainable, { rank: 9 }), OptionError, 'rank is 9, but "up" is f32[8,12]');
  const started = await pissa(model, { r: 2, alpha: 2, targets: ["up"] });
  await assertRejects(() => toLora(started, started.trainable, { rank: 2 }), OptionError, "use pissaToLora");
});
