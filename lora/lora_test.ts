import { assert, assertEquals, assertStrictEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { OptionError } from "../core/errors.ts";
import { type Value } from "../core/ir/graph.ts";
import { printGraph } from "../core/ir/print.ts";
import type { Leaf, Model } from "../core/model.ts";
import { reduceSum } from "../core/ops/broadcast.ts";
import { matmul } from "../core/ops/contract.ts";
import { abs, add, convert, mul, tanh } from "../core/ops/elementwise.ts";
import { causalLoss } from "../core/nn/loss.ts";
import { gather } from "../core/ops/indexing.ts";
import { transpose } from "../core/ops/structure.ts";
import { trace } from "../core/trace.ts";
import { valueAndGrad } from "../core/transforms/grad.ts";
import { type OracleTensor, runOracle, toOracle } from "../testing/oracle.ts";
import { randomised, randomTensor, toyModel, waysOfUse } from "../testing/toy_models.ts";
import { roundoff } from "./bound.ts";
import { lora } from "./lora.ts";

const x = randomTensor([3, 4], 99);

/** Apart by no more than 2^9 roundings of float64, which is more than any sum here has. */
function assertSame(a: OracleTensor, b: OracleTensor) {
  assertEquals(a.shape, b.shape);
  const scale = Math.max(...b.data.map(Math.abs));
  a.data.forEach((v, i) => assert(Math.abs(v - b.data[i]) <= 2 ** -44 * scale, `${v} and ${b.data[i]} at ${i}`));
}

for (const [way, model] of Object.entries(waysOfUse)) {
  Deno.test(`a weight that is ${way}: nothing changes at first, and adapted is merged`, () => {
    const tuned = lora(model, { r: 2, alpha: 3, targets: ["w"] });
    const base = runOracle((p: any, x: any) => model.apply(p, x), model.params, x);
    const run = (t: any) => runOracle((t: any, p: any, x: any) => tuned.apply(t, p, x), t, tuned.frozen, x);
    assertEquals(run(tuned.trainable).data, base.data);
    const adapter = randomised(tuned.trainable, 5);
    const merged = runOracle((t: any, p: any, x: any) => model.apply(tuned.merge(t, p), x), adapter, tuned.frozen, x);
    assert(
      merged.data.some((v: number, i: number) => Math.abs(v - base.data[i]) > 0.1),
      "the adapter changes the result",
    );
    if (way !== "converted") return assertSame(run(adapter), merged);
    // A weight that the model itself rounds is rounded before the change or after it: both are off by its unit roundoff.
    const sizes = runOracle(
      (t: any, p: any, x: any) => add(matmul(abs(x), abs(p.w.weight)), matmul(abs(x), abs(tuned.merge(t, p).w.weight))),
      adapter,
      tuned.frozen,
      x,
    );
    const adapted = run(adapter);
    merged.data.forEach((v: number, i: number) =>
      assert(Math.abs(v - adapted.data[i]) <= roundoff.bf16 * sizes.data[i])
    );
  });
}

Deno.test("a linear has the factors in PEFT's shapes, and no product as large as the weight", () => {
  const model = waysOfUse["in,out"];
  const tuned = lora(model, { r: 2, alpha: 3, targets: ["w"] });
  assertEquals(tuned.matched, [{
    path: "w",
    method: "lora",
    kind: "linear",
    r: 2,
    alpha: 3,
    scaling: 1.5,
    shape: [4, 6],
    layout: "in,out",
    trainable: 20,
  }]);
  assertEquals([tuned.trainable.w.A!.shape, tuned.trainable.w.B!.shape], [[2, 4], [6, 2]]);
  const { graph } = trace(tuned.apply, [tuned.trainable, tuned.frozen, x]);
  assertEquals(
    printGraph(graph),
    `%0: f32[2,4] = input 0.w.A
%1: f32[6,2] = input 0.w.B
%2: f32[4,6] = input 1.w.weight
%3: f32[3,4] = input 2
%4: f32[3,6] = dot %3, %2 contract=[[1],[0]] batch=[[],[]]
%5: f32[3,2] = dot %3, %0 contract=[[1],[1]] batch=[[],[]]
%6: f32[] = constant value=1.5 dtype=f32
%7: f32[3,2] = broadcast %6 shape=[3,2] dims=[]
%8: f32[3,2] = mul %5, %7
%9: f32[3,6] = dot %8, %1 contract=[[1],[1]] batch=[[],[]]
%10: f32[3,6] = add %4, %9
return %10`,
  );
});

Deno.test("frozen is the model's own tree, and merge copies only what it changes", () => {
  const model = toyModel(
    { a: { weight: randomTensor([4, 4], 1) as Leaf }, b: { weight: randomTensor([4, 2], 2) as Leaf } },
    (p, x) => matmul(tanh(matmul(x, p.a.weight)), p.b.weight),
  );
  const tuned = lora(model, { r: 1, alpha: 1, targets: ["a"] });
  assertStrictEquals(tuned.frozen, model.params);
  const merged = tuned.merge(tuned.trainable, tuned.frozen);
  assertStrictEquals(merged.b, model.params.b);
  assert(merged.a.weight !== model.params.a.weight);
});

Deno.test("A is drawn from the seed within ±1/√in, B is zero; an embedding the other way round", () => {
  const first = (seed: number, way: string) => {
    const { A, B } = lora(waysOfUse[way], { r: 4, alpha: 1, targets: ["w"], seed }).trainable.w;
    return runOracle((a: any, b: any) => [a, b], A, B) as OracleTensor[];
  };
  const [a, b] = first(1, "in,out");
  assert(a.data.every((v) => Math.abs(v) <= 0.5) && Math.max(...a.data) > 0.25 && Math.min(...a.data) < -0.25);
  assert(b.data.every((v) => v === 0));
  assertEquals(first(1, "in,out")[0].data, a.data);
  assert(first(2, "in,out")[0].data[0] !== a.data[0]);
  const [ea, eb] = first(1, "looked up");
  assert(ea.data.every((v) => v === 0) && eb.data.some((v) => v !== 0));
});

const mlp = (use: (p: { up: { weight: Leaf }; down: { weight: Leaf } }, x: Value) => Value) =>
  toyModel({ up: { weight: randomTensor([4, 6], 1) as Leaf }, down: { weight: randomTensor([6, 4], 2) as Leaf } }, use);
const plain = mlp((p, x) => matmul(tanh(matmul(x, p.up.weight)), p.down.weight));
const message = (f: () => unknown) => assertThrows(f, OptionError).message;

Deno.test("what can't be adapted is refused with the weight's and the operation's name", () => {
  const squared = mlp((p, x) => matmul(matmul(x, mul(p.up.weight, p.up.weight)), p.down.weight));
  const text = message(() => lora(squared, { r: 1, alpha: 1, targets: ["up"] }));
  assertStringIncludes(text, '"up" can\'t be adapted: up.weight goes into mul, where the low-rank form is not known');
  lora(squared, { r: 1, alpha: 1, targets: ["down"] });
  const norm = mlp((p, x) => add(matmul(x, p.up.weight), reduceSum(p.down.weight)));
  assertStringIncludes(
    message(() => lora(norm, { r: 1, alpha: 1, targets: ["down"] })),
    "down.weight goes into reduceSum",
  );
  const returned = mlp((p, x) => add(matmul(matmul(x, p.up.weight), p.down.weight), 0));
  assertEquals(lora(returned, { r: 1, alpha: 1, targets: "all-linear" }).matched.length, 2);
  const leaked: Model<any, any, any> = { ...plain, apply: (p: any, x: any) => [matmul(x, p.up.weight), p.down.weight] };
  assertStringIncludes(
    message(() => lora(leaked, { r: 1, alpha: 1, targets: ["down"] })),
    "goes into the function's result",
  );
});

Deno.test("a captured target is refused: it would stay what it is while the adapter is merged elsewhere", () => {
  const kept = randomTensor([4, 6], 3);
  const model = toyModel({ up: { weight: kept as Leaf } }, (_, x) => matmul(x, kept));
  assertStringIncludes(
    message(() => lora(model, { r: 1, alpha: 1, targets: ["up"] })),
    "the model mentions up.weight itself instead of reading it from the params",
  );
});

Deno.test("targets: names, ends of paths, wildcards, expressions, all linears; what matches nothing is named", () => {
  const layer = (i: number) => ({
    attn: { q: { weight: randomTensor([4, 4], i) as Leaf } },
    norm: { weight: randomTensor([4], i) as Leaf },
  });
  const model = toyModel(
    { h: [layer(1), layer(2)], lm_head: { weight: randomTensor([4, 9], 3) as Leaf } },
    (p, x) => matmul(p.h.reduce((x, l) => mul(tanh(matmul(x, l.attn.q.weight)), l.norm.weight), x), p.lm_head.weight),
  );
  const paths = (targets: any) => lora(model, { r: 1, alpha: 1, targets }).matched.map((m) => m.path);
  const both = ["h.0.attn.q", "h.1.attn.q"];
  assertEquals(paths(["q"]), both);
  assertEquals(paths(["attn.q"]), both);
  assertEquals(paths(["h.*.attn.q"]), both);
  assertEquals(paths(["model.h.1.attn.q"]), ["h.1.attn.q"]);
  assertEquals(paths(/.*\.1\.attn\.q/), ["h.1.attn.q"]);
  assertEquals(paths("all-linear"), both);
  assertEquals(paths(["lm_head", "h.0.attn.q"]), ["h.0.attn.q", "lm_head"]);
  assertStringIncludes(message(() => paths(["atn.q"])), 'target "atn.q" matches no module of this model: did you mean');
  assertStringIncludes(message(() => paths(["tn.q"])), 'target "tn.q" matches no module');
  assertStringIncludes(message(() => paths(/q/)), "it must match the whole path");
  assertStringIncludes(message(() => paths(["norm"])), "h.0.norm.weight is f32[4], and LoRA adapts matrices");
  assertStringIncludes(message(() => paths([])), "targets is empty");
});

Deno.test("r, alpha, dropout: what can't be used is refused with the sentence", () => {
  const make = (options: object) => () => lora(plain, { r: 1, alpha: 1, targets: ["up"], ...options });
  for (const r of [0, -1, 1.5, 5, NaN]) {
    assertEquals(message(make({ r })), `r is ${r}, but "up" is f32[4,6]: it takes a whole number from 1 to 4`);
  }
  assertStringIncludes(message(make({ alpha: NaN })), "alpha is NaN");
  assertStringIncludes(message(make({ dropout: 1 })), "dropout is a fraction from 0 to less than 1, not 1");
  assertStringIncludes(message(make({ seed: -1 })), "a seed is a whole number");
  assertStringIncludes(message(make({ rankPattern: { uq: 2 } })), 'rankPattern "uq" matches no module');
  assertStringIncludes(message(make({ rankPattern: { up: 9 } })), "r is 9");
});

Deno.test("rslora and patterns decide each module's rank and scaling", () => {
  const tuned = lora(plain, {
    r: 4,
    alpha: 6,
    targets: "all-linear",
    rslora: true,
    rankPattern: { "^model.up": 2, "up": 3 },
    alphaPattern: { "down": 3 },
  });
  assertEquals(tuned.matched.map((m) => [m.path, m.r, m.alpha, m.scaling]), [["up", 2, 6, 6 / Math.SQRT2], [
    "down",
    4,
    3,
    1.5,
  ]]);
});

Deno.test("an adapter that is not this model's is refused", () => {
  const tuned = lora(plain, { r: 1, alpha: 1, targets: ["up"] });
  const other = lora(plain, { r: 2, alpha: 1, targets: "all-linear" });
  assertStringIncludes(message(() => tuned.apply(other.trainable, tuned.frozen, x as any)), 'A of "up" is f32[2,4]');
  assertStringIncludes(message(() => tuned.merge({}, tuned.frozen)), 'nothing for "up"');
});

Deno.test("rows looked up in a table that is stored narrower get the change in f32, not rounded", () => {
  const table = randomTensor([6, 4], 1);
  const model = toyModel(
    { wte: { weight: narrowed(table, "bf16") } },
    (p, ids) => convert(gather(p.wte.weight, ids), "f32"),
    { shape: [2], dtype: "i32" },
  );
  const tuned = lora(model, { r: 2, alpha: 2, targets: ["wte"] });
  const t = randomised(tuned.trainable, 3);
  const rows = runOracle((t: any, p: any, x: any) => tuned.apply(t, p, x), t, tuned.frozen, ids);
  const exact = runOracle(
    (t: any, w: any, x: any) =>
      add(convert(gather(w, x), "f32"), gather(matmul(transpose(t.wte.A), transpose(t.wte.B)), x)),
    t,
    tuned.frozen.wte.weight,
    ids,
  );
  assertSame(rows, exact);
});

Deno.test("dropout on a target in a sum over chunks is refused: every chunk would drop the same places", () => {
  const tuned = lora(waysOfUse["in a sum over chunks"], { r: 1, alpha: 1, targets: ["w"], dropout: 0.5 });
  const key = { shape: [2], dtype: "u32" as const, data: Float64Array.of(0, 1) };
  const run = () =>
    runOracle(
      (t: any, p: any, x: any, key: any) => tuned.apply(t, p, x, { key }),
      tuned.trainable,
      tuned.frozen,
      x,
      key,
    );
  assertStringIncludes(message(run), 'dropout on "w" is not known inside a sum over chunks');
});

Deno.test("an adapted head and its loss may be computed in chunks of rows", () => {
  const model = toyModel(
    { lm_head: { weight: randomTensor([7, 4], 1) as Leaf } },
    (p, x) => matmul(x, p.lm_head.weight, { transposeB: true }),
    { shape: [2, 3, 4], dtype: "f32" },
  );
  const tuned = lora(model, { r: 2, alpha: 2, targets: ["lm_head"] });
  const t = randomised(tuned.trainable, 3);
  const labels = { shape: [2, 3], dtype: "i32" as const, data: Float64Array.of(1, 2, 3, 4, 5, 6) };
  const loss = (chunk?: number) => (t: any, p: any, x: any, y: any) => causalLoss(tuned.apply(t, p, x), y, { chunk });
  const args = [t, tuned.frozen, randomTensor([2, 3, 4], 5), labels] as const;
  const [whole, parts] = [undefined, 2].map((chunk) => runOracle(valueAndGrad(loss(chunk)), ...args));
  assertSame(parts[0], whole[0]);
  assertSame(parts[1].lm_head.A, whole[1].lm_head.A);
  assertSame(parts[1].lm_head.B, whole[1].lm_head.B);
});

const tied = toyModel(
  { wte: { weight: randomTensor([5, 4], 1) as Leaf } } as { wte: { weight: Leaf }; lm_head?: { weight: Leaf } },
  (p, ids) => matmul(tanh(gather(p.wte.weight, ids)), (p.lm_head ?? p.wte).weight, { transposeB: true }),
  { shape: [2], dtype: "i32" },
  { lm_head: "wte" },
);
/** A tensor of the oracle under another dtype. */
function narrowed(x: any, dtype: "bf16"): Leaf {
  return toOracle(runOracle((x: any) => convert(x, dtype), x));
}

const ids = { shape: [2], dtype: "i32" as const, data: Float64Array.of(1, 3) };

Deno.test("a tied weight: each use can be adapted, both, or all by one adapter, and merging always holds", () => {
  for (
    const [targets, tie] of [[["wte"]], [["lm_head"]], [["wte", "lm_head"]], [["wte"], "all"], [
      ["wte", "lm_head"],
      "all",
    ]]
  ) {
    const tuned = lora(tied, { r: 2, alpha: 1, targets: targets as any, tie: tie as any });
    const t = randomised(tuned.trainable, 3);
    const adapted = runOracle((t: any, p: any, x: any) => tuned.apply(t, p, x), t, tied.params, ids);
    const merged = runOracle((t: any, p: any) => tuned.merge(t, p), t, tied.params);
    assertSame(runOracle((p: any, x: any) => tied.apply(p, x), merged, ids), adapted);
    assertEquals(tuned.unties, tie === "all" ? [] : [{ module: "lm_head", from: "wte" }]);
    assertEquals("lm_head" in merged, tie !== "all");
    const back = runOracle((t: any, p: any) => tuned.unmerge(t, p), t, merged);
    assertEquals(Object.keys(back), ["wte"]);
    assertSame(back.wte.weight, runOracle((w: any) => w, tied.params.wte.weight));
    const peft = runOracle((t: any, p: any) => tuned.merge(t, p, { tied: "peft" }), t, tied.params);
    assertEquals(Object.keys(peft), ["wte"]);
    assertSame(
      runOracle((t: any, p: any) => tuned.unmerge(t, p), t, peft).wte.weight,
      runOracle((w: any) => w, tied.params.wte.weight),
    );
  }
  const shapes = (targets: any) => {
    const { A, B } = Object.values(lora(tied, { r: 2, alpha: 1, targets }).trainable)[0];
    return [A!.shape, B!.shape];
  };
  assertEquals(shapes(["wte"]), [[2, 5], [4, 2]]);
  assertEquals(shapes(["lm_head"]), [[2, 4], [5, 2]]);
});
