import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { OptionError, ShapeError } from "../errors.ts";
import { newInput, nodesOf, type Value } from "../ir/graph.ts";
import { printGraph } from "../ir/print.ts";
import { verifyGraph } from "../ir/verify.ts";
import { reduceSum } from "../ops/broadcast.ts";
import { matmul } from "../ops/contract.ts";
import { add, convert, exp, floor, mul, sin, tanh } from "../ops/elementwise.ts";
import { trace } from "../trace.ts";
import { oracleTensor, runOracle } from "../../testing/oracle.ts";
import { checkpoint } from "./checkpoint.ts";
import { customVjp } from "./custom_vjp.ts";
import { grad, valueAndGrad } from "./grad.ts";
import { sumOver } from "./sum_over.ts";
import { vmap } from "./vmap.ts";

const numbers = (n: number, seed = 1) => Array.from({ length: n }, (_, i) => Math.sin(seed * 7.3 + i * 1.7));
const x = oracleTensor([5, 3], numbers(15));
const w = oracleTensor([3, 4], numbers(12, 2));
const close = (a: { data: ArrayLike<number> }, b: { data: ArrayLike<number> }) => {
  assertEquals(a.data.length, b.data.length);
  for (let i = 0; i < a.data.length; i++) assertAlmostEquals(a.data[i], b.data[i], 1e-12);
};

Deno.test("checkpoint: the same values and gradients bit for bit, computed again behind a barrier", () => {
  const layer = (x: any, w: any) => tanh(matmul(x, w));
  const plain = valueAndGrad((w: any, x: any) => reduceSum(mul(layer(x, w), layer(x, w))));
  const kept = checkpoint((w: any, x: any) => reduceSum(mul(layer(x, w), layer(x, w))));
  assertEquals(runOracle(valueAndGrad(kept), w, x), runOracle(plain, w, x));
  const { graph } = trace(valueAndGrad(kept), [w, x]);
  verifyGraph(graph);
  assert(nodesOf(graph.outputs).some((n) => n.prim.name === "barrier"));
});

Deno.test("checkpoint: what the body mentions from outside has a gradient too", () => {
  const f = (w: any, x: any) => {
    const scaled = mul(w, 2);
    return reduceSum(checkpoint((x: any) => tanh(matmul(x, scaled)))(x));
  };
  const plain = (w: any, x: any) => reduceSum(tanh(matmul(x, mul(w, 2))));
  assertEquals(runOracle(grad(f), w, x), runOracle(grad(plain), w, x));
});

Deno.test("vmap equals a loop, shares what is not mapped and keeps one product", () => {
  const f = (x: any, w: any) => tanh(matmul(x, w));
  const out = runOracle(vmap(f, { inAxes: [0, null] }), x, w);
  close(out, runOracle(f, x, w));
  const { graph } = trace(vmap(f, { inAxes: [0, null] }), [x, w]);
  const dots = nodesOf(graph.outputs).filter((n) => n.prim.name === "dot");
  assertEquals(dots.map((n) => n.outs[0].shape.length), [2]);
});

Deno.test("grad of x times a gradient that mentions x", () => {
  const f = (x: any) => mul(x, grad((y: any) => add(x, y))(2));
  assertEquals(runOracle(grad(f), 3).data[0], 1);
  const g = (x: any) => mul(x, grad((y: any) => mul(mul(x, y), y))(2));
  assertAlmostEquals(runOracle(grad(g), 3).data[0], 24, 1e-12);
});

Deno.test("vmap: none and one, axes from the end, and sizes that differ by both names", () => {
  const row = (r: any) => reduceSum(mul(r, r));
  assertEquals(runOracle(vmap(row), oracleTensor([0, 3], [])).shape, [0]);
  assertEquals([...runOracle(vmap(row), oracleTensor([1, 2], [3, 4])).data], [25]);
  assertEquals([...runOracle(vmap(row, { inAxes: -1 }), oracleTensor([2, 2], [1, 2, 3, 4])).data], [10, 20]);
  assertThrows(
    () => runOracle(vmap((p: any) => mul(p.w, p.b)), { w: w, b: x }),
    ShapeError,
    'vmap maps axis 0 of f32[5,3] at "0.b", which is 5, and "0.w" is mapped over 3',
  );
});

Deno.test("grad: an argument that is not there, or holds no floats, is refused; what is not used has zeros", () => {
  const total = (a: any) => reduceSum(a);
  assertThrows(() => grad(total, { argnums: 1 })(x), OptionError, "by argument 1, but there are 1");
  assertThrows(() => grad(total, { argnums: -1 })(x), OptionError, "by argument -1");
  assertThrows(
    () => grad((a: any) => reduceSum(convert(a, "f32")))(newInput({ shape: [2], dtype: "i32" })),
    ShapeError,
    "i32[2]",
  );
  assertEquals([...runOracle(grad((_: any, b: any) => total(b)), oracleTensor([2], [1, 2]), w).data], [0, 0]);
  assertEquals([...runOracle(grad((a: any) => total(floor(a))), oracleTensor([2], [1, 2])).data], [0, 0]);
});

Deno.test("vmap: one value mapped over and shared at once", () => {
  const square = oracleTensor([2, 2], [1, 2, 3, 4]);
  const both = (x: any, y: any) => reduceSum(mul(x, y));
  assertEquals([...runOracle((x: any) => vmap(both, { inAxes: [0, null] })(x, x), square).data], [16, 36]);
  assertEquals([...runOracle((x: any) => vmap((row: any) => both(row, x))(x), square).data], [16, 36]);
});

Deno.test("vmap inside checkpoint inside grad, and checkpoint inside vmap", () => {
  const row = (r: any, w: any) => reduceSum(exp(matmul(r, w)));
  const f = (w: any, x: any) => reduceSum(checkpoint((x: any) => vmap((r: any) => row(r, w))(x))(x));
  const g = (w: any, x: any) => reduceSum(vmap(checkpoint((r: any, w: any) => row(r, w)), { inAxes: [0, null] })(x, w));
  const plain = (w: any, x: any) => reduceSum(exp(matmul(x, w)));
  const want = runOracle(grad(plain), w, x);
  close(runOracle(grad(f), w, x), want);
  close(runOracle(grad(g), w, x), want);
});

Deno.test("sumOver: chunks, a shorter last one, and the gradients of a plain sum", () => {
  for (const chunk of [1, 2, 3, 5, 9]) {
    const body = (x: any, w: any) => reduceSum(tanh(matmul(x, w)));
    const f = (w: any, x: any) => mul(sumOver(body, x, w, { chunk })[0], 3);
    const plain = (w: any, x: any) => mul(body(x, w), 3);
    for (const argnums of [0, 1]) {
      const [v, g] = runOracle(valueAndGrad(f, { argnums }), w, x);
      const [v0, g0] = runOracle(valueAndGrad(plain, { argnums }), w, x);
      close(v, v0);
      close(g, g0);
    }
  }
});

Deno.test("sumOver: captures, further outputs, a second gradient", () => {
  const f = (w: any, x: any) => {
    const [loss, count] = sumOver((x: any) => [reduceSum(sin(matmul(x, w))), reduceSum(x)], x, null, { chunk: 2 });
    return [loss, count] as const;
  };
  const [[, count], g] = runOracle(valueAndGrad(f, { hasAux: true }), w, x);
  assertAlmostEquals(count.data[0], [...numbers(15)].reduce((a, b) => a + b), 1e-12);
  close(g, runOracle(grad((w: any, x: any) => reduceSum(sin(matmul(x, w)))), w, x));
  const second = (h: (w: any, x: any) => Value) => grad((w: any, x: any) => reduceSum(mul(grad(h)(w, x), w)));
  close(
    runOracle(second((w, x) => f(w, x)[0]), w, x),
    runOracle(second((w, x) => reduceSum(sin(matmul(x, w)))), w, x),
  );
});

Deno.test("customVjp: the written rule is used, under vmap too, and a captured value is refused", () => {
  const f = customVjp((x: Value, s: Value) => mul(x, s), {
    forward: (x, s) => [mul(x, s), { s }],
    backward: ({ s }, ct) => [mul(mul(ct, s), 10), null],
  });
  assertEquals(runOracle(grad((x: any) => f(x, mul(x, 0)) as any), 2).data[0], 0);
  assertEquals(runOracle(grad((x: any, s: any) => f(x, s)), 2, 3).data[0], 30);
  const g = grad((x: any, s: any) => reduceSum(vmap(f, { inAxes: [0, null] })(x, s)));
  assertEquals([...runOracle(g, oracleTensor([2], [1, 2]), 3).data], [30, 30]);
  const gs = grad((s: any, x: any) => reduceSum(vmap(f, { inAxes: [null, 0] })(s, x)));
  assertEquals(runOracle(gs, 3, oracleTensor([2], [1, 2])).data[0], 30);
  const bad = (x: any) =>
    customVjp((y: Value) => mul(y, x), { forward: (y) => [y, null], backward: (_, ct) => [ct] })(x);
  assertThrows(() => runOracle(grad(bad), 1), Error, "pass it as an argument");
});

Deno.test("a graph prints with names that depend on it alone", () => {
  const print = () => printGraph(trace((x: any, w: any) => checkpoint(matmul)(x, w), [x, w]).graph);
  assertEquals(print(), print());
  assertEquals(
    print(),
    `%0: f32[5,3] = input 0
%1: f32[3,4] = input 1
%2: f32[5,4] = checkpoint %0, %1
  body:
    %0: f32[5,3] = input
    %1: f32[3,4] = input
    %2: f32[5,4] = dot %0, %1 contract=[[1],[0]] batch=[[],[]]
    return %2
return %2`,
  );
});

Deno.test("a value that escapes its function is found", () => {
  let kept: Value;
  trace((a: any) => kept = mul(a, 2), [x]);
  const { graph } = trace((a: any) => add(a, kept), [x]);
  assertThrows(
    () => verifyGraph(graph, "step"),
    Error,
    'step uses the argument "0" (f32[5,3]) of another traced function',
  );
});
