import { assert, assertEquals } from "@std/assert";
import { newInput, type Value } from "../../core/ir/graph.ts";
import { printGraph } from "../../core/ir/print.ts";
import type { Leaf, Model } from "../../core/model.ts";
import { reduceSum } from "../../core/ops/broadcast.ts";
import { matmul } from "../../core/ops/contract.ts";
import { add, div, mul, sub } from "../../core/ops/elementwise.ts";
import { foldIn } from "../../core/ops/random.ts";
import { randomKey } from "../../core/random.ts";
import { upload } from "../../core/tensor.ts";
import { trace } from "../../core/trace.ts";
import { checkpoint } from "../../core/transforms/checkpoint.ts";
import { grad } from "../../core/transforms/grad.ts";
import { applyPerExample, lora, stackAdapters, together } from "../../lora/mod.ts";
import { evaluateOracle, fromHost, fromOracle, oracleTensor, runOracle } from "../../testing/oracle.ts";
import { randomised, randomTensor } from "../../testing/toy_models.ts";
import { oracleRuntime, runtimes } from "../runtimes.ts";

const n = 16;
type Params = { a: { weight: Leaf }; b: { weight: Leaf } };

/** Two linears side by side over the same input. */
function pair(
  weight: (seed: number) => Leaf,
  apply?: Model<Params, Value, Value[]>["apply"],
): Model<Params, Value, Value[]> {
  return {
    architecture: "pair",
    params: { a: { weight: weight(1) }, b: { weight: weight(2) } },
    sample: newInput({ shape: [2, n], dtype: "f32" }),
    apply: apply ?? ((p, x) => [matmul(x, p.a.weight), matmul(x, p.b.weight)]),
  };
}

const model = pair((seed) => randomTensor([n, n], seed));
const options = { r: n, alpha: n, targets: ["a", "b"] as const };
const x = randomTensor([8, n], 3);
const run = (tuned: any, t: any, key?: any): Float64Array[] =>
  runOracle((t: any, p: any, x: any, key: any) => tuned.apply(t, p, x, key && { key }), t, tuned.frozen, x, key)
    .map((y: any) => y.data);
const keyOf = (seed: number) => fromHost(randomKey(seed));

Deno.test("without a key the program is that of dropout 0", () => {
  const print = (dropout: number, key?: any) => {
    const tuned = lora(model, { ...options, dropout });
    return printGraph(
      trace((t: any, p: any, x: any) => tuned.apply(t, p, x, { key }), [tuned.trainable, tuned.frozen, x]).graph,
    );
  };
  assertEquals(print(0.5), print(0));
  assertEquals(print(0, newInput({ shape: [2], dtype: "u32" })), print(0));
});

Deno.test("one key gives one mask; another key, step, layer or example another", () => {
  const tuned = lora(model, { ...options, dropout: 0.5 });
  const t = randomised(tuned.trainable, 4);
  const first = run(tuned, t, keyOf(1));
  assertEquals(run(tuned, t, keyOf(1)), first);
  assert(run(tuned, t, keyOf(2))[0].some((v, i) => v !== first[0][i]));
  const step = (step: number) =>
    runOracle((key: any, s: any) => foldIn(key, s), keyOf(1), { shape: [], dtype: "u32", data: Float64Array.of(step) });
  assert(run(tuned, t, step(1))[0].some((v, i) => v !== run(tuned, t, step(2))[0][i]));
});

const identity = oracleTensor([n, n], Float64Array.from({ length: n * n }, (_, i) => i % (n + 1) === 0 ? 1 : 0));

/** What the low-rank branch of each layer lets through: with W zero and A, B the identity it is the dropped input. */
function masks(rate: number, key: any, rows = 8): { layers: Float64Array[]; input: Float64Array } {
  const still = pair(() => oracleTensor([n, n], new Float64Array(n * n)));
  const tuned = lora(still, { ...options, dropout: rate });
  const input = randomTensor([rows, n], 5);
  const t = { a: { A: identity, B: identity }, b: { A: identity, B: identity } };
  const outputs = runOracle(
    (t: any, p: any, x: any, key: any) => tuned.apply(t, p, x, { key }),
    t,
    tuned.frozen,
    input,
    key,
  );
  return { layers: outputs.map((y: any) => y.data), input: fromOracle(input).data };
}

Deno.test("kept entries are scaled by 1 / (1 - p), the others are zero, and layers and examples differ", () => {
  const { layers, input } = masks(0.25, keyOf(1));
  for (const y of layers) {
    y.forEach((v, i) => assert(v === 0 || Math.abs(v - input[i] / 0.75) <= 2 ** -50 * Math.abs(v), `${v} at ${i}`));
    assert(y.includes(0));
  }
  const kept = layers.map((y) => y.map((v) => v === 0 ? 0 : 1));
  assert(kept[0].some((k, i) => k !== kept[1][i]), "the same mask in both layers");
  assert(kept[0].slice(0, n).some((k, i) => k !== kept[0][n + i]), "the same mask for both examples");
});

Deno.test("only the low-rank branch is dropped", () => {
  const tuned = lora(model, { ...options, dropout: 0.9 });
  assertEquals(run(tuned, tuned.trainable, keyOf(1)), run(tuned, tuned.trainable));
});

Deno.test("with DoRA all that it adds to the base is computed of the dropped input, as PEFT does", () => {
  const tuned = lora(model, { ...options, dropout: 0.5, dora: true });
  const t = randomised(tuned.trainable, 4);
  // What the branch of a plain adapter lets through is the dropped input, whatever the adapter.
  const dropped = run(lora(pair(() => oracleTensor([n, n], new Float64Array(n * n))), { ...options, dropout: 0.5 }), {
    a: { A: identity, B: identity },
    b: { A: identity, B: identity },
  }, keyOf(1));
  const norms = runOracle((t: any, p: any) => tuned.overwritten(t, p), t, tuned.frozen);
  const formula = (t: any, w: any, x: any, y: any, norms: any) => {
    const gain = div(t.magnitude, norms);
    const low = matmul(matmul(y, t.A, { transposeB: true }), t.B, { transposeB: true });
    return add(matmul(x, w), add(mul(sub(gain, 1), matmul(y, w)), mul(gain, low)));
  };
  run(tuned, t, keyOf(1)).forEach((got, i) => {
    const path = (["a", "b"] as const)[i];
    const y = { shape: [8, n], dtype: "f32" as const, data: dropped[i] };
    const want = runOracle(formula, t[path], model.params[path].weight, x, y, norms[path].norms).data as Float64Array;
    const scale = want.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
    got.forEach((v, k) => assert(Math.abs(v - want[k]) <= 2 ** -43 * scale, `${v} and ${want[k]} at ${k}`));
  });
  assert(run(tuned, t, keyOf(1))[0].some((v, i) => v !== run(tuned, t)[0][i]), "something is dropped");
});

Deno.test("adapters that are active together, and rows with their own, each drop other places", () => {
  const still = pair(() => oracleTensor([n, n], new Float64Array(n * n)));
  const make = () => lora(still, { ...options, dropout: 0.5 });
  const [one, two] = [make(), make()];
  const t = { a: { A: identity, B: identity }, b: { A: identity, B: identity } };
  const both = together({ one, two });
  const ones = oracleTensor([8, n], new Float64Array(8 * n).fill(1));
  const [y] = runOracle(
    (t: any, p: any, x: any, key: any) => both.apply(t, p, x, { key }),
    { one: t, two: t },
    one.frozen,
    ones,
    keyOf(1),
  );
  assertEquals(new Set(y.data), new Set([0, 2, 4]), "where one drops the other may not");
  const rows = { shape: [8], dtype: "i32" as const, data: new Float64Array(8) };
  const stacked = runOracle((t: any) => stackAdapters([t]), t);
  const [z] = runOracle(
    (t: any, p: any, x: any, rows: any, key: any) =>
      applyPerExample(one, { adapters: t, frozen: p, inputs: x, adapterOf: rows, key }),
    stacked,
    one.frozen,
    ones,
    rows,
    keyOf(1),
  );
  const row = (i: number) => z.data.slice(n * i, n * (i + 1)).join();
  assertEquals(new Set(Array.from({ length: 8 }, (_, i) => row(i))).size, 8, "no two rows have one mask");
});

Deno.test("biases and modules in full are not dropped", () => {
  for (const more of [{ bias: "all" }, { modulesToSave: ["b"], targets: ["a"] }] as const) {
    const tuned = lora(model, { ...options, dropout: 0.9, ...more });
    assertEquals(run(tuned, tuned.trainable, keyOf(1)), run(tuned, tuned.trainable));
  }
});

Deno.test("the mean over 4096 keys is the function without dropout, within 5 standard errors", () => {
  const still = pair(() => oracleTensor([n, n], new Float64Array(n * n)));
  const rate = 0.3, count = 4096;
  const tuned = lora(still, { ...options, dropout: rate });
  const t = randomised(tuned.trainable, 6);
  const small = fromOracle(randomTensor([1, n], 7));
  const keyInput = newInput({ shape: [2], dtype: "u32" }), xInput = newInput({ shape: [1, n], dtype: "f32" });
  const graph = { inputs: [xInput, keyInput], outputs: tuned.apply(t, tuned.frozen, xInput, { key: keyInput }) };
  const [want] = runOracle((x: any) => tuned.apply(t, tuned.frozen, x), small);
  const sum = new Float64Array(n), squares = new Float64Array(n);
  for (let seed = 0; seed < count; seed++) {
    const [y] = evaluateOracle(graph, [small, keyOf(seed)]);
    y.data.forEach((v, i) => {
      sum[i] += v;
      squares[i] += v * v;
    });
  }
  sum.forEach((s, i) => {
    const mean = s / count;
    const error = Math.sqrt((squares[i] / count - mean * mean) / count);
    assert(Math.abs(mean - want.data[i]) <= 5 * error, `${mean} ± ${error}, not ${want.data[i]}`);
  });
});

/** Gradients of an adapted pair whose layers may be checkpointed. */
function gradients(runtime: typeof oracleRuntime, wrap: (f: any) => any) {
  const toDevice = (leaf: Leaf): Leaf =>
    upload(runtime.home, { ...leaf.aval, data: Float32Array.from(fromOracle(leaf as any).data) });
  const made = pair(
    (seed) => toDevice(randomTensor([n, n], seed)),
    (p, x) => [wrap((w: Leaf, x: Value) => matmul(x, w))(p.a.weight, x), matmul(x, p.b.weight)],
  );
  const tuned = lora(made, { ...options, dropout: 0.5 });
  const other = randomised({ a: { A: randomTensor([n, n], 1), B: randomTensor([n, n], 2) } }, 8).a;
  const t = { a: { A: toDevice(other.A), B: toDevice(other.B) }, b: { A: toDevice(other.B), B: toDevice(other.A) } };
  const loss = (t: any, p: any, x: any, key: any) => {
    const [a, b] = tuned.apply(t, p, x, { key });
    return reduceSum(matmul(a, b, { transposeB: true }));
  };
  return runtime.read(runtime.jit(grad(loss))(t, tuned.frozen, toDevice(x), upload(runtime.home, randomKey(1))));
}

for (const { name, open } of runtimes) {
  Deno.test(`${name}: a checkpoint computes the same mask again`, async () => {
    using runtime = await open();
    const [plain, kept] = [await gradients(runtime, (f) => f), await gradients(runtime, checkpoint)];
    for (const path of ["a", "b"]) {
      for (const leaf of ["A", "B"]) {
        assertEquals(kept[path][leaf], plain[path][leaf]);
      }
    }
  });
}
