import { valueAndGrad } from "./grad.ts";
import { add, mul, tanh } from "../ops/elementwise.ts";
import { matmul } from "../ops/contract.ts";
import { reduceSum } from "../ops/broadcast.ts";
import { newInput, nodesOf } from "../ir/graph.ts";

Deno.test("a gradient is a graph over the same inputs", () => {
  const x = newInput({ shape: [2, 3], dtype: "f32" });
  const w = newInput({ shape: [3, 4], dtype: "f32" });
  const [loss, g] = valueAndGrad((p: any, x: any) => reduceSum(tanh(add(matmul(x, p.w), mul(2, 1)))))({ w }, x);
  if (String(g.w.shape) !== "3,4" || loss.shape.length) throw new Error("shapes");
  nodesOf([loss, g.w]);
});
