import { assert, assertEquals } from "@std/assert";
import { oracleTensor, runOracle } from "../../testing/oracle.ts";
import { sizeOf } from "../aval.ts";
import { newInput, nodesOf, type Value } from "../ir/graph.ts";
import { reduceSum } from "../ops/broadcast.ts";
import { matmul } from "../ops/contract.ts";
import { add, mul, tanh } from "../ops/elementwise.ts";
import { expand } from "../passes/expand.ts";
import { valueAndGrad } from "../transforms/grad.ts";
import { causalLoss } from "./loss.ts";
import { rowWise } from "./row_chunks.ts";

const [b, t, d, r, v] = [2, 5, 4, 2, 7];
const numbers = (n: number, seed: number) => Array.from({ length: n }, (_, i) => Math.sin(i * 1.7 + seed));
const random = (shape: number[], seed: number) => oracleTensor(shape, numbers(sizeOf(shape), seed));

/** A head with a bias, an adapter on it, and something of its own before it. */
function logitsOf(p: Record<string, Value>): Value {
  const x = tanh(p.x);
  const base = add(matmul(x, p.head, { transposeB: true }), p.bias);
  return add(base, mul(matmul(matmul(x, p.A, { transposeB: true }), p.B, { transposeB: true }), 2));
}

const params = {
  x: random([b, t, d], 1),
  head: random([v, d], 2),
  bias: random([v], 3),
  A: random([r, d], 4),
  B: random([v, r], 5),
};
const labels = oracleTensor([b, t], [1, 2, -100, 0, 4, 3, 6, -100, -100, 5], "i32");
const lossOf = (chunk: number | undefined) => (p: Record<string, Value>, y: Value) =>
  causalLoss(logitsOf(p), y, { chunk });

Deno.test("head and loss in chunks of rows: the same loss and gradients, whatever the chunk", () => {
  const whole = runOracle(valueAndGrad(lossOf(b * t)), params, labels);
  for (const chunk of [1, 3, 5, 9]) {
    const chunked = runOracle(valueAndGrad(lossOf(chunk)), params, labels);
    const flat = ([loss, grads]: any) => [loss, ...Object.values<any>(grads)].flatMap((x) => [...x.data]);
    const [expected, actual] = [flat(whole), flat(chunked)];
    assertEquals(actual.length, expected.length);
    expected.forEach((x, i) => assert(Math.abs(x - actual[i]) < 1e-12, `chunk ${chunk}, number ${i}`));
  }
});

Deno.test("head and loss in chunks of rows: nothing as large as the logits is left", () => {
  const leaves = Object.fromEntries(Object.entries(params).map(([k, p]) => [k, newInput(p.aval)]));
  const y = newInput(labels.aval);
  const largest = (chunk: number) => {
    const [loss, grads] = valueAndGrad(lossOf(chunk))(leaves, y);
    const graph = expand({ inputs: [], outputs: [loss, ...Object.values<Value>(grads)] }, () => true);
    return Math.max(...nodesOf(graph.outputs).flatMap((n) => n.outs.map((o) => sizeOf(o.shape))));
  };
  assertEquals(largest(b * t), b * t * v);
  assert(largest(3) < b * t * v);
});

Deno.test("head and loss only at some places: the same loss and gradients, and no logits of the others", () => {
  const places = oracleTensor([8], [0, 2, 3, 5, 8, 1, 7, 9], "i32"); // the labelled ones, and some that are not
  const some = (p: Record<string, Value>, y: Value, at: Value) => causalLoss(logitsOf(p), y, { places: at });
  const flat = ([loss, grads]: any) => [loss, ...Object.values<any>(grads)].flatMap((x) => [...x.data]);
  const expected = flat(runOracle(valueAndGrad(lossOf(undefined)), params, labels));
  const actual = flat(runOracle(valueAndGrad(some), params, labels, places));
  assertEquals(actual.length, expected.length);
  expected.forEach((x, i) => assert(Math.abs(x - actual[i]) < 1e-12, `number ${i}`));
  const leaves = Object.fromEntries(Object.entries(params).map(([k, p]) => [k, newInput(p.aval)]));
  const [loss, grads] = valueAndGrad(some)(leaves, newInput(labels.aval), newInput(places.aval));
  const graph = expand({ inputs: [], outputs: [loss, ...Object.values<Value>(grads)] }, () => true);
  const sizes = nodesOf(graph.outputs).flatMap((n) => n.outs.map((o) => sizeOf(o.shape)));
  assertEquals(sizes.filter((size) => size === b * t * v), []);
});

Deno.test("rowWise: refuses what mixes rows, and takes every product of rows as a source", () => {
  const x = newInput({ shape: [b, t, d], dtype: "f32" });
  const w = newInput({ shape: [v, d], dtype: "f32" });
  const y = matmul(x, w, { transposeB: true });
  assertEquals(rowWise(y)!.sources.map((s) => s.shape), [[b * t, d]]);
  assertEquals(rowWise(add(y, reduceSum(y, 1, { keep: true }))), null);
  assertEquals(rowWise(newInput({ shape: [b, t, v], dtype: "f32" })), null);
});
