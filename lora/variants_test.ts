/** Every option of an adapter, in every way a weight is used: adapted and merged are one function, and nothing changes at first. */
import { assert, assertEquals } from "@std/assert";
import type { Value } from "../core/ir/graph.ts";
import type { Leaf } from "../core/model.ts";
import { reduceSum } from "../core/ops/broadcast.ts";
import { matmul } from "../core/ops/contract.ts";
import { add, mul, tanh } from "../core/ops/elementwise.ts";
import { gather } from "../core/ops/indexing.ts";
import { grad, valueAndGrad } from "../core/transforms/grad.ts";
import { type OracleTensor, oracleTensor, runOracle } from "../testing/oracle.ts";
import { randomised, randomTensor, toyModel, waysOfUse } from "../testing/toy_models.ts";
import { lora } from "./lora.ts";
import type { LoraOptions } from "./options.ts";

const x = randomTensor([3, 4], 99);
const ids = { shape: [3], dtype: "i32" as const, data: Float64Array.of(1, 3, 1) };

/** Apart by no more than 2^10 roundings of float64, which is more than any sum here has. */
function assertSame(a: OracleTensor, b: OracleTensor) {
  assertEquals(a.shape, b.shape);
  const scale = Math.max(...b.data.map(Math.abs));
  a.data.forEach((v, i) => assert(Math.abs(v - b.data[i]) <= 2 ** -43 * scale, `${v} and ${b.data[i]} at ${i}`));
}

const largest = (a: OracleTensor, b: OracleTensor) => Math.max(...a.data.map((v, i) => Math.abs(v - b.data[i])));

/** Adapted, merged and base, with what is trained drawn at random; and whether the start is the base. */
function check(model: any, options: LoraOptions<any>, x: unknown) {
  const tuned = lora<any, any, any>(model, options);
  const apply = (t: any, p: any, x: any) => tuned.apply(t, p, x);
  const base: OracleTensor = runOracle((p: any, x: any) => model.apply(p, x), model.params, x);
  if (options.init !== false) assertSame(runOracle(apply, tuned.trainable, tuned.frozen, x), base);
  const t = randomised(tuned.trainable, 5);
  const adapted: OracleTensor = runOracle(apply, t, tuned.frozen, x);
  const merged = runOracle((t: any, p: any) => tuned.merge(t, p), t, tuned.frozen);
  assertSame(runOracle((p: any, x: any) => model.apply(p, x), merged, x), adapted);
  assert(largest(adapted, base) > 0.05, "what is trained changes the result");
  const lost = runOracle((t: any, p: any) => tuned.overwritten(t, p), t, tuned.frozen);
  const back = runOracle((t: any, m: any, lost: any) => tuned.unmerge(t, m, lost), t, merged, lost);
  assertEquals(
    structureOf(back),
    structureOf(runOracle((p: any) => p, model.params)),
    "unmerged is the base's own tree",
  );
  assertSame(runOracle((p: any, x: any) => model.apply(p, x), back, x), base);
  return { tuned, t, adapted, merged };
}

const structureOf = (tree: any): unknown =>
  tree?.data ? tree.shape : Object.fromEntries(Object.entries(tree).map(([key, x]) => [key, structureOf(x)]));

for (const [way, model] of Object.entries(waysOfUse)) {
  if (way === "converted") continue; // what the model itself rounds is in lora_test.ts
  Deno.test(`DoRA on a weight that is ${way}`, () => {
    check(model, { r: 2, alpha: 3, targets: ["w"], dora: true }, x);
  });
}

const block = (biased: boolean) => {
  const linear = (shape: number[], seed: number) => ({
    weight: randomTensor(shape, seed) as Leaf,
    ...(biased && { bias: randomTensor([shape[1]], seed + 50) as Leaf }),
  });
  type Linear = { weight: Leaf; bias?: Leaf };
  const use = (x: Value, { weight, bias }: Linear) => bias ? add(matmul(x, weight), bias) : matmul(x, weight);
  const layer = (i: number) => ({
    up: linear([4, 6], 3 * i),
    down: linear([6, 4], 3 * i + 1),
    norm: { bias: randomTensor([4], i) as Leaf },
  });
  return {
    ...toyModel(
      { h: [layer(1), layer(2)], lm_head: linear([4, 5], 9) },
      (p, x) => use(p.h.reduce((x, l) => add(use(tanh(use(x, l.up)), l.down), l.norm.bias), x), p.lm_head),
    ),
    parts: { up: ["a", "b", "c"] },
  };
};
const plain = block(true);

const variants: Record<string, Partial<LoraOptions<any>>> = {
  plain: {},
  rslora: { rslora: true },
  patterns: { rankPattern: { up: 1 }, alphaPattern: { "h.0.down": 5 } },
  dora: { dora: true },
  "dora with rslora and patterns": { dora: true, rslora: true, rankPattern: { down: 3 } },
  "the biases of adapted modules": { bias: "lora" },
  "all biases": { bias: "all" },
  "biases of the low-rank branches": { loraBias: true },
  "biases of both kinds": { loraBias: true, bias: "all" },
  "modules in full": { modulesToSave: ["lm_head"] },
  "modules in full, with DoRA": { modulesToSave: ["lm_head", "h.0"], targets: ["h.1.up"], dora: true },
  "parts of a projection": { targets: ["up[a,c]"] },
  "one part and other modules": { targets: ["h.1.up[b]", "down"], rankPattern: { up: 1 } },
  "parts with DoRA": { targets: ["up[a,c]"], dora: true },
  "parts with biases": { targets: ["up[c]"], loraBias: true },
  "some layers": { layers: [1] },
  "without some": { exclude: ["h.0.up", "lm_head"], targets: /.*/ },
  "drawn at random from the first": { init: false },
  "gaussian": { init: "gaussian" },
};
for (const [name, options] of Object.entries(variants)) {
  Deno.test(`adapted is merged, and unmerged is the base: ${name}`, () => {
    check(plain, { r: 2, alpha: 3, targets: ["up", "down"], ...options }, x);
  });
}

const tied = toyModel(
  { wte: { weight: randomTensor([5, 4], 1) as Leaf } } as { wte: { weight: Leaf }; lm_head?: { weight: Leaf } },
  (p, ids) => matmul(tanh(gather(p.wte.weight, ids)), (p.lm_head ?? p.wte).weight, { transposeB: true }),
  { shape: [3], dtype: "i32" },
  { lm_head: "wte" },
);
const tiedVariants: Record<string, Partial<LoraOptions<any>>> = {
  "DoRA on rows": { dora: true },
  "DoRA on the head": { dora: true, targets: ["lm_head"] },
  "DoRA on both": { dora: true, targets: ["wte", "lm_head"] },
  "DoRA on every use": { dora: true, tie: "all" },
  "the head in full": { modulesToSave: ["lm_head"] },
  "rows in full, the head adapted": { modulesToSave: ["wte"], targets: ["lm_head"] },
  "every use in full, by one": { modulesToSave: ["lm_head"], tie: "all", targets: ["other"] },
  "both in full": { modulesToSave: ["wte", "lm_head"], targets: ["other"] },
  "tokens": { trainableTokens: [1, 4], targets: ["other"] },
  "tokens and rows": { trainableTokens: { wte: [3, 1] } },
  "tokens and the head": { trainableTokens: [3], targets: ["lm_head"] },
};
const withOther = {
  ...tied,
  params: { ...tied.params, other: { weight: randomTensor([5, 5], 8) as Leaf } },
  apply: (p: any, ids: Value) => matmul(tied.apply(p, ids), p.other.weight),
};
for (const [name, options] of Object.entries(tiedVariants)) {
  Deno.test(`adapted is merged, and unmerged is the base, of a tied weight: ${name}`, () => {
    check(withOther, { r: 2, alpha: 3, targets: ["wte"], ...options }, ids);
  });
}

Deno.test("the gradient takes DoRA's norm for a constant", () => {
  const model = waysOfUse["in,out"];
  const tuned = lora(model, { r: 2, alpha: 3, targets: ["w"], dora: true });
  const t = randomised(tuned.trainable, 5);
  const weights = randomTensor([3, 6], 7);
  const loss = (t: any, p: any, x: any, w: any) => reduceSum(mul(tuned.apply(t, p, x), w));
  const { A, B, magnitude } = runOracle(grad(loss), t, tuned.frozen, x, weights).w;
  // With the norm for a constant the loss is linear in A, in B and in the magnitude alone, so finite differences are exact.
  const norms = runOracle((t: any, p: any) => tuned.overwritten(t, p).w.norms, t, tuned.frozen);
  const held = (t: any, p: any, x: any, w: any, norms: any) => {
    const { A, B, magnitude } = t.w;
    const low = mul(matmul(matmul(x, A, { transposeB: true }), B, { transposeB: true }), 1.5);
    return reduceSum(mul(mul(add(matmul(x, p.w.weight), low), mul(magnitude, norms)), w));
  };
  const inverse = { ...norms, data: norms.data.map((n: number) => 1 / n) };
  const expected = runOracle(grad(held), t, tuned.frozen, x, weights, inverse).w;
  assertSame(A, expected.A);
  assertSame(B, expected.B);
  assertSame(magnitude, expected.magnitude);
});

Deno.test("a DoRA magnitude starts as the norm of each output's weights", () => {
  const w = [[3, 0], [4, 1]];
  const model = toyModel({ w: { weight: oracleTensor([2, 2], w.flat()) as Leaf } }, (p, x) => matmul(x, p.w.weight), {
    shape: [1, 2],
    dtype: "f32",
  });
  const tuned = lora(model, { r: 1, alpha: 1, targets: ["w"], dora: true });
  assertEquals([...runOracle((t: any) => t.w.magnitude, tuned.trainable).data], [5, 1]);
});

Deno.test("the bias of a low-rank branch is scaled as the branch is", () => {
  const tuned = lora<any, any, any>(plain, { r: 2, alpha: 3, targets: ["lm_head"], loraBias: true });
  const zero = randomised(tuned.trainable, 5, 0);
  const biasB = randomTensor([5], 6);
  const t = { lm_head: { ...zero.lm_head, biasB } };
  const adapted = runOracle((t: any, p: any, x: any) => tuned.apply(t, p, x), t, tuned.frozen, x);
  const formula = (p: any, x: any, b: any) => add(plain.apply(p, x), mul(b, 1.5));
  assertSame(adapted, runOracle(formula, plain.params, x, biasB));
});

Deno.test("where a module has no bias, that of its low-rank branch is added to what it gives, and learns as it would", () => {
  for (const transposeB of [false, true]) {
    const weight = randomTensor(transposeB ? [6, 4] : [4, 6], 5) as Leaf;
    const bias = oracleTensor([6], new Float64Array(6)) as Leaf;
    const use = (p: any, x: any) => matmul(x, p.w.weight, { transposeB });
    const [found, wanted] = [
      toyModel({ w: { weight } }, use),
      toyModel({ w: { weight, bias } }, (p, x) => add(use(p, x), p.w.bias)),
    ].map((model) => {
      const tuned = lora<any, any, any>(model, { r: 2, alpha: 3, targets: ["w"], loraBias: true, dropout: 0.5 });
      const key = { shape: [2], dtype: "u32" as const, data: Float64Array.of(1, 2) };
      const loss = (t: any, x: any, key: any) => {
        const y = tuned.apply(t, tuned.frozen, x, { key });
        return reduceSum(mul(y, y));
      };
      return runOracle(valueAndGrad(loss), randomised(tuned.trainable, 5), x, key);
    });
    assertSame(found[0], wanted[0]);
    for (const part of ["A", "B", "biasB"]) assertSame(found[1].w[part], wanted[1].w[part]);
  }
});

Deno.test("of a tied weight only the named use is trained in full, or with tie all every use", () => {
  const table = randomTensor([5, 4], 77);
  const run = (options: Partial<LoraOptions<any>>, path: string) => {
    const tuned = lora<any, any, any>(withOther, { r: 2, alpha: 3, targets: ["other"], ...options });
    const t = { ...randomised(tuned.trainable, 5, 0), [path]: { weight: table } };
    return runOracle((t: any, p: any, x: any) => tuned.apply(t, p, x), t, tuned.frozen, ids);
  };
  const { wte, other } = withOther.params;
  const want = (rows: unknown, head: unknown) =>
    runOracle(withOther.apply, { wte: { weight: rows }, lm_head: { weight: head }, other }, ids);
  assertSame(run({ modulesToSave: ["wte"] }, "wte"), want(table, wte.weight));
  assertSame(run({ modulesToSave: ["lm_head"] }, "lm_head"), want(wte.weight, table));
  assertSame(run({ modulesToSave: ["wte"], tie: "all" }, "wte"), want(table, table));
});
