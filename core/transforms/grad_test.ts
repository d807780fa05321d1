import { assertEquals, assertThrows } from "@std/assert";
import { newInput } from "../ir/graph.ts";
import { verifyGraph } from "../ir/verify.ts";
import { reduceSum } from "../ops/broadcast.ts";
import { matmul } from "../ops/contract.ts";
import { stopGradient } from "../ops/control.ts";
import { add, mul, tanh } from "../ops/elementwise.ts";
import { trace } from "../trace.ts";
import { oracleTensor, runOracle } from "../../testing/oracle.ts";
import { grad, valueAndGrad } from "./grad.ts";

const x = oracleTensor([2, 3], [1, 2, 3, 4, 5, 6]);

Deno.test("a gradient is a graph over the same inputs, in the tree of the argument", () => {
  const w = newInput({ shape: [3, 4], dtype: "f32" });
  const loss = (p: any, x: any) => reduceSum(tanh(add(matmul(x, p.w), p.b)));
  const { graph } = trace(valueAndGrad(loss), [{ w, b: newInput({ shape: [4], dtype: "f32" }) }, x]);
  verifyGraph(graph);
  assertEquals(graph.outputs.map((v) => v.shape), [[], [3, 4], [4]]);
});

Deno.test("argnums picks arguments, a list gives a list", () => {
  const f = (a: any, b: any) => reduceSum(mul(a, b));
  assertEquals(runOracle(grad(f, { argnums: 1 }), 2, 3).data[0], 2);
  const [a, b] = runOracle(grad(f, { argnums: [0, 1] }), 2, 3);
  assertEquals([a.data[0], b.data[0]], [3, 2]);
});

Deno.test("hasAux hands further results through", () => {
  const [[loss, aux], g] = runOracle(valueAndGrad((x: any) => [mul(x, x), { twice: mul(x, 2) }], { hasAux: true }), 3);
  assertEquals([loss.data[0], aux.twice.data[0], g.data[0]], [9, 6, 6]);
});

Deno.test("what the value does not depend on, and what is no float, gets zeros", () => {
  const ids = oracleTensor([2], [1, 2], "i32");
  const g = runOracle(grad((p: any) => reduceSum(mul(p.x, stopGradient(p.y)))), { x, y: x, ids, unused: x });
  assertEquals([...g.x.data], [1, 2, 3, 4, 5, 6]);
  for (const zero of [g.y, g.unused, g.ids]) assertEquals(new Set(zero.data), new Set([0]));
  assertEquals(g.ids.dtype, "i32");
});

Deno.test("a value that is no scalar, or several values, are refused with the remedy", () => {
  assertThrows(
    () => runOracle(grad((x: any) => mul(x, 2)), x),
    Error,
    "returned f32[2,3]: add it up with reduceSum or mean",
  );
  assertThrows(() => runOracle(grad((x: any) => [reduceSum(x), x] as any), x), Error, "pass { hasAux: true }");
});

Deno.test("a weight that is stored narrower and used twice gets the sum of both gradients", () => {
  const w = oracleTensor([3, 2], [1, 2, 3, 4, 5, 6], "bf16");
  const g = runOracle(grad((w: any) => add(reduceSum(matmul(x, w)), reduceSum(matmul(mul(x, 2), w)))), w);
  assertEquals([g.dtype, ...g.data], ["bf16", 15, 15, 21, 21, 27, 27]);
});
