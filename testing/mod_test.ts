import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { newInput, type Value } from "../core/ir/graph.ts";
import type { Model } from "../core/model.ts";
import { reduceSum } from "../core/ops/broadcast.ts";
import { matmul } from "../core/ops/contract.ts";
import { stopGradient } from "../core/ops/control.ts";
import { mul, tanh } from "../core/ops/elementwise.ts";
import { customVjp } from "../core/transforms/custom_vjp.ts";
import { gpt2, type Gpt2Params } from "../models/families/gpt2.ts";
import { assertAllClose, assertMergeEquivalent, checkGrads, type MergeOptions, oracleTensor } from "./mod.ts";

const message = (f: () => unknown) => String(assertThrows(f));

Deno.test("assertAllClose names the worst element", () => {
  const a = { shape: [3], dtype: "f32" as const, data: Float32Array.of(1, 2, 3) };
  assertAllClose(a, a);
  assertAllClose(1, 1 + 1e-9);
  const b = { ...a, data: Float32Array.of(1, 2.5, 3.1) };
  assertStringIncludes(message(() => assertAllClose(b, a)), "element 1 of f32[3] is 2.5 where 2 is expected");
  assertStringIncludes(message(() => assertAllClose({ ...a, shape: [1, 3] }, a)), "expected f32[3], but got f32[1,3]");
  assertStringIncludes(message(() => assertAllClose(NaN, 1)), "element 0");
  assertAllClose({ shape: [1], dtype: "bf16", data: Uint16Array.of(0x3f80) }, {
    shape: [1],
    dtype: "f32",
    data: Float32Array.of(1),
  });
});

Deno.test("checkGrads passes a right gradient and finds a wrong one, of either order", () => {
  const x = oracleTensor([3], [0.1, -2, 1.5]);
  checkGrads((x) => reduceSum(mul(x, tanh(x))), [x], { order: 2 });
  const wrong = customVjp((x: Value) => mul(x, x), {
    forward: (x) => [mul(x, x), x],
    backward: (x, ct) => [mul(ct, x)],
  });
  assertStringIncludes(message(() => checkGrads(wrong, [x])), "the gradient along a random direction is");
  const wrongAgain = customVjp((x: Value) => mul(x, x), {
    forward: (x) => [mul(x, x), x],
    backward: (x, ct) => [mul(ct, mul(2, stopGradient(x)))],
  });
  checkGrads(wrongAgain, [x]);
  assertStringIncludes(message(() => checkGrads(wrongAgain, [x], { order: 2 })), "the second gradient");
});

const place = (...shape: number[]) => newInput({ shape, dtype: "f32" });
type Mlp = { up: { weight: Value }; down: { weight: Value } };
const mlp = (size: number, apply: (p: Mlp, x: Value) => Value): Model<Mlp, Value, Value> => ({
  architecture: "mlp",
  params: { up: { weight: place(4, 3 * size) }, down: { weight: place(3 * size, 2) } },
  sample: place(size, 4),
  apply,
});

Deno.test("assertMergeEquivalent passes a model whose weights are only used as weights", () => {
  assertMergeEquivalent((size) => mlp(size, (p, x) => matmul(tanh(matmul(x, p.up.weight)), p.down.weight)));
});

Deno.test("assertMergeEquivalent shrinks what goes wrong to the smallest size", () => {
  const hidden = (size: number): Model<Mlp, Value, Value> => {
    const model = mlp(size, (p, x) => matmul(tanh(matmul(x, p.up.weight)), p.down.weight));
    let calls = 0;
    // From size 3 on every second trace builds another function, which no pure model would.
    return {
      ...model,
      apply: (p: Mlp, x: Value) => size > 2 && calls++ % 2 === 1 ? mul(model.apply(p, x), 1.01) : model.apply(p, x),
    };
  };
  const text = message(() => assertMergeEquivalent(hidden));
  assertStringIncludes(
    text,
    "adapted and merged are not the same function at size 3, r 1, alpha 1, rslora false, seed 0",
  );
});

Deno.test("assertMergeEquivalent holds for GPT-2, its tied head and its embedding", () => {
  const config = {
    vocabSize: 11,
    contextLength: 8,
    width: 8,
    layers: 1,
    heads: 2,
    kvHeads: 2,
    headDim: 4,
    innerWidth: 12,
    activation: "gelu_new",
    eps: 1e-5,
    tiedHead: true,
  } as const;
  const asPlaceholders = (shapes: any): any =>
    Array.isArray(shapes) && typeof shapes[0] === "number"
      ? place(...shapes)
      : Array.isArray(shapes)
      ? shapes.map(asPlaceholders)
      : Object.fromEntries(Object.entries(shapes).map(([key, x]) => [key, asPlaceholders(x)]));
  const model = gpt2.over(config, asPlaceholders(gpt2.shapes(config)));
  let seen = 0;
  const variants: MergeOptions<Gpt2Params>[] = [
    { targets: ["c_attn", "c_proj", "c_fc", "wte"] },
    { targets: ["c_attn", "wte"], dora: true, bias: "all" },
    { targets: ["c_attn[q,v]", "mlp.c_proj"], loraBias: true, modulesToSave: ["lm_head", "ln_f"] },
    { targets: ["c_fc"], trainableTokens: [3, 1], rankPattern: { c_fc: 2 } },
    { targets: ["wte", "c_fc"], tie: "all", dora: true },
  ];
  for (const options of variants) {
    assertMergeEquivalent(model, {
      ...options,
      runs: 10,
      input: ({ shape }, random) => {
        seen++;
        return Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => Math.floor((random() + 1) / 2 * 11));
      },
    });
  }
  assert(seen >= 50);
  assertEquals(model.tied, { lm_head: "wte" });
});
